"""Which servers a run must have: a test that does not find one of them fails instead of being skipped.

They are those of `--servers iggy,influxd,…` and, with that option, those that a variable `IGGYFLUX_TEST_…` names.
"""

from __future__ import annotations

import os
from typing import Final, NoReturn

import pytest

OPTION: Final = "--servers"
VARIABLES: Final = {
    "iggy": "IGGYFLUX_TEST_IGGY",
    "influxdb1": "IGGYFLUX_TEST_INFLUXDB1",
    "influxdb2": "IGGYFLUX_TEST_INFLUXDB2",
    "influxdb3": "IGGYFLUX_TEST_INFLUXDB3",
}
SERVERS: Final = (*VARIABLES, "influxd", "influxdimage", "victoriametrics", "prometheus")
_required: frozenset[str] = frozenset()


def require(option: str | None) -> None:
    """Take the value of the option; None is a run that requires no server."""
    global _required
    if option is None:
        return
    names = {name.strip().lower() for name in option.split(",")} - {""}
    if unknown := names - set(SERVERS):
        raise pytest.UsageError(f"{OPTION}: unknown {', '.join(sorted(unknown))}; expected {', '.join(SERVERS)}")
    names |= {name for name, variable in VARIABLES.items() if os.environ.get(variable)}
    if not names:
        raise pytest.UsageError(f"{OPTION} and the variables IGGYFLUX_TEST_… name no server")
    _required = frozenset(names)


def not_found(server: str, reason: str) -> NoReturn:
    """Skip a test whose server is missing; fail it if the run requires that server."""
    if server.replace(" ", "").lower() in _required:
        pytest.fail(f"{server} is required, and not there: {reason}", pytrace=False)
    pytest.skip(reason)
