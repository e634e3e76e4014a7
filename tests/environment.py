"""The environment that tests run in: of the caller's only what is listed here, so that a run means the same everywhere.

A token, an address, a proxy, a time zone or a terminal's width of the caller changes no result.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Final

KEPT: Final = frozenset({"CI", "HOME", "LD_LIBRARY_PATH", "LOGNAME", "PATH", "TEMP", "TMP", "TMPDIR", "USER"})
KEPT_PREFIXES: Final = (
    "COV_",
    "COVERAGE_",
    "DOCKER_",
    "HYPOTHESIS_",
    "IGGYFLUX_TEST_",
    "PIP_",
    "PYTEST_",
    "PYTHON",
    "SSL_CERT_",
    "TESTCONTAINERS_",
    "UV_",
    "XDG_",
)
SET: Final = {"COLUMNS": "80", "TZ": "UTC"}


def clear(environ: MutableMapping[str, str]) -> None:
    """Remove what tests must not see, and set what would else be that of the machine."""
    for name in list(environ):
        if name not in KEPT and not name.startswith(KEPT_PREFIXES):
            del environ[name]
    environ.update(SET)
