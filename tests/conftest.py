"""What every test may use, and two flags: `--update-cases` rewrites golden files, `--long` runs the full numbers.

Drawn tests have the same examples in each run, a third of their number; with `--long` all of them, and new ones.

Nothing skips silently: what did not run is named at the end, with its reason.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import environment
import pytest
import required_servers
from hypothesis import settings

from iggyflux.plan import compiled, reader_compiled

environment.clear(os.environ)  # before anything reads it: modules, fixtures of a session, processes
time.tzset()
sys.dont_write_bytecode = False
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell starts `make test &`; processes would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The time of an example depends more on the machine than on the code: bench/ measures time.
settings.register_profile("seeded", deadline=None, derandomize=True)
settings.register_profile("random", deadline=None)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-cases", action="store_true", help="rewrite the golden files with what came out")
    parser.addoption(required_servers.OPTION, help="servers that must be there: a test that does not find one fails")
    parser.addoption("--long", action="store_true", help="run the tests marked `long` too")


@pytest.hookimpl(optionalhook=True)  # in a venv without xdist the hook is unknown
def pytest_xdist_auto_num_workers() -> int:
    """One more than there are processors: many tests wait for a server, a process or a disk."""
    return (os.cpu_count() or 1) + 1


def pytest_configure(config: pytest.Config) -> None:
    required_servers.require(config.getoption(required_servers.OPTION))
    # Two runs of the same code have the same outcome.
    settings.load_profile("random" if config.getoption("--long") else "seeded")


ENOUGH_EXAMPLES = 20
"""A drawn test that has no more of them has all of them in each run."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--long"):
        return
    drawn = {item.function for item in items if getattr(getattr(item, "function", None), "is_hypothesis_test", False)}
    for function in drawn:
        usual = function._hypothesis_internal_use_settings  # a decorated function is the only place that has them
        fewer = max(usual.max_examples // 3, min(ENOUGH_EXAMPLES, usual.max_examples))
        function._hypothesis_internal_use_settings = settings(usual, max_examples=fewer)
    skip = pytest.mark.skip(reason="the full numbers: --long")
    for item in items:
        if item.get_closest_marker("long") is not None:  # a folder of this name is a keyword too
            item.add_marker(skip)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reasons: dict[str, list[str]] = {}
    for report in terminalreporter.stats.get("skipped", []):
        reasons.setdefault(_reason(report), []).append(report.nodeid)
    if reasons:
        terminalreporter.section("did not run")
    for reason, names in sorted(reasons.items()):
        files = ", ".join(sorted({name.partition("::")[0] for name in names}))
        what = names[0] if len(names) == 1 else f"{len(names)} tests of {files}"
        terminalreporter.write_line(f"{reason} ({what})")


def _reason(report: pytest.TestReport) -> str:
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return reason.removeprefix("Skipped: ")


@pytest.fixture
def update_cases(request: pytest.FixtureRequest) -> bool:
    """Whether to rewrite golden files."""
    return bool(request.config.getoption("--update-cases"))


OPEN_FILES = Path("/proc/self/fd")
MOST_OPEN_FILES = 300


@pytest.fixture(autouse=True, scope="module")
def _open_files() -> Iterator[None]:
    """What a file of tests leaves open makes a later one fail, far from the cause."""
    yield
    if OPEN_FILES.is_dir():
        files = [str(each.readlink()) for each in OPEN_FILES.iterdir() if each.is_symlink()]
        assert len(files) < MOST_OPEN_FILES, Counter(files).most_common(5)


OF_SESSIONS = ("iggyflux-sim", "iggyflux-deadlines", "iggyflux-influxdb", "fsspecIO")
"""Threads of servers and clients that many files of tests share, or that end with the process."""
MOST_SECONDS_OF_THREADS = 60


@pytest.fixture(autouse=True, scope="module")
def _threads() -> Iterator[None]:
    """What a thread that outlives its tests draws of `random` makes a drawn test of another file fail."""
    yield
    until = time.monotonic() + MOST_SECONDS_OF_THREADS
    while alive := _foreign_threads():
        assert time.monotonic() < until, alive
        gc.collect()  # an executor ends its threads when it is forgotten
        time.sleep(0.05)


def _foreign_threads() -> list[str]:
    others = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
    return [name for name in others if not name.startswith((*OF_SESSIONS, "pytest", "asyncio"))]


@pytest.fixture(autouse=True)
def _no_fallback(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault of generated code fails the test that sees it; `fallback` marks tests that cause one."""
    if request.node.get_closest_marker("fallback") is not None:
        return

    def fail(error: Exception) -> str:
        raise AssertionError("generated code failed and the reference plan would render the batch") from error

    monkeypatch.setattr(compiled, "describe_fault", fail)
    monkeypatch.setattr(reader_compiled, "describe_fault", fail)
