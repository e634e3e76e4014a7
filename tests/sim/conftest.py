"""A simulator of each dialect, on a free port, for one test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from iggyflux.sim import SimServer


@pytest.fixture
def v1() -> Iterator[SimServer]:
    with SimServer(1, version="1.6.7~rc0") as server:
        yield server


@pytest.fixture
def v2() -> Iterator[SimServer]:
    with SimServer(2) as server:
        yield server


@pytest.fixture
def v3() -> Iterator[SimServer]:
    with SimServer(3) as server:
        yield server


@pytest.fixture(params=[1, 2, 3], ids=["1.x", "2.x", "3.x"])
def any_dialect(request: pytest.FixtureRequest) -> Iterator[SimServer]:
    with SimServer(request.param) as server:
        yield server
