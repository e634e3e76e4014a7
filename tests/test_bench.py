"""The benchmarks follow the code: `make bench` is run by hand, so a name that has changed is found here."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

from bench.__main__ import BENCHMARKS

BENCH = Path(__file__).parent.parent / "bench"


@pytest.mark.parametrize("name", sorted(path.stem for path in BENCH.glob("*.py")))
def test_every_module_of_the_benchmarks_can_be_imported(name: str) -> None:
    """Also those that need a real server; mypy checks how they use what they import."""
    import_module(f"bench.{name}")


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_has_a_main(name: str) -> None:
    """`python -m bench` calls it."""
    assert callable(import_module(f"bench.{name}").main)
