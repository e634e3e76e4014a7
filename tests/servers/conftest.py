"""Each product once for the whole run; tests ask for `server`, and say what it must support.

A simulator is new for each test: one that holds the points of all tests before answers slowly.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from required_servers import not_found

from tests.servers.products import LACKS, PRODUCTS, NotThere, Server, find


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "server" in metafunc.fixturenames:
        needed = getattr(metafunc.function, "needed", frozenset())
        able = [name for name in PRODUCTS if not needed & LACKS[name]]
        metafunc.parametrize("server", able, indirect=True)


class Found:
    """The requested servers so far; a missing one is looked for once."""

    def __init__(self, folders: pytest.TempPathFactory) -> None:
        self.until = ExitStack()
        self._folders = folders
        self._known: dict[str, Server | str] = {}

    def get(self, name: str) -> Server | str:
        if name not in self._known:
            try:
                self._known[name] = find(name, self._folders.mktemp("server"), self.until)
            except NotThere as error:
                self._known[name] = str(error)
        return self._known[name]


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Found]:
    found = Found(tmp_path_factory)
    with found.until:
        yield found


@pytest.fixture
def server(request: pytest.FixtureRequest, servers: Found, tmp_path: Path) -> Iterator[Server]:
    """A running server of a product."""
    if request.param.startswith("simulator"):
        with ExitStack() as until:
            yield find(request.param, tmp_path, until)
        return
    known = servers.get(request.param)
    if isinstance(known, str):
        not_found(request.param, f"{request.param}: {known}")
    yield known
