"""The environment of tests: only the caller's variables listed here, so that a run means the same everywhere.

The caller's tokens, addresses, proxies, time zone and terminal width change no result.
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
COMPILED_EACH_TIME: Final = "PYTHONDONTWRITEBYTECODE"
"""With it each process compiles all its modules: about half of the CPU time of tests that start commands."""
SET: Final = {"COLUMNS": "80", "TZ": "UTC"}


def clear(environ: MutableMapping[str, str]) -> None:
    """Remove what tests must not see, and set what would otherwise depend on the machine."""
    for name in list(environ):
        if name == COMPILED_EACH_TIME or (name not in KEPT and not name.startswith(KEPT_PREFIXES)):
            del environ[name]
    environ.update(SET)
