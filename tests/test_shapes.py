"""Documents drawn through the schema, with payloads as products write them: both plans agree, nothing crashes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from iggyflux.mapping import writer
from iggyflux.payloads import FORMATS
from iggyflux.plan import compiled
from iggyflux.records import JSON
from tests import payload_forms, shapes
from tests.schema_documents import SCHEMA, Vocabulary, node_of
from tests.shapes import Tally, check_plans, check_readers, check_values

EXAMPLES, SLOW_EXAMPLES, LONG_EXAMPLES = 60, 200, 100_000


@pytest.mark.parametrize("check", [check_plans, check_values, check_readers])
@pytest.mark.parametrize(
    ("examples", "is_seeded"),
    [
        (EXAMPLES, True),
        pytest.param(SLOW_EXAMPLES, True, marks=pytest.mark.slow),
        pytest.param(LONG_EXAMPLES, False, marks=pytest.mark.long),
    ],
)
def test_documents_and_payloads_of_products(
    check: Callable[[Random, Tally], None], examples: int, is_seeded: bool
) -> None:
    """Both plans agree, and values are those of an independent evaluation; documents are valid often enough."""
    tally: Tally = Counter()

    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), derandomize=is_seeded)
    @given(st.randoms(use_true_random=False))
    def law(random: Random) -> None:
        check(random, tally)

    law()
    assert tally["documents"] > examples / 4


def check_seeds(check: Callable[[Random, Tally], None], seeds: range) -> None:
    """Check the examples of seeds."""
    for seed in seeds:
        check(Random(seed), Counter())


def reverse_texts(value: JSON) -> JSON:
    """Return a value with all its strings reversed."""
    if isinstance(value, dict):
        return {key: reverse_texts(member) for key, member in value.items()}
    if isinstance(value, list):
        return [reverse_texts(element) for element in value]
    return value[::-1] if isinstance(value, str) else value


@pytest.mark.parametrize("name", sorted(set(payload_forms.FORMATS) - {"json"}))
def test_the_independent_evaluation_finds_a_fault_of_a_decoder(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both plans decode by it, so that they agree."""
    real = FORMATS[name]
    monkeypatch.setitem(FORMATS, name, replace(real, decode=lambda *given: reverse_texts(real.decode(*given))))
    monkeypatch.setattr(shapes, "FORMATS", [name])

    with pytest.raises(AssertionError):
        check_seeds(check_values, range(200))


def test_the_independent_evaluation_finds_a_star_that_omits_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both plans take what it omits from the document."""
    monkeypatch.setattr(writer, "used_paths", lambda *_: frozenset())

    with pytest.raises(AssertionError):
        check_seeds(check_values, range(200))


def test_comparing_plans_finds_a_fault_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last line that generated code made of a batch is lost."""
    real = compiled.CompiledPlan._merge

    def lossy(self: Any, messages: Any, lines: list[str], *rest: Any) -> Any:
        return real(self, messages, [*lines[:-1], "m lost=1 1700000000000000000"] if lines else lines, *rest)

    monkeypatch.setattr(compiled.CompiledPlan, "_merge", lossy)

    with pytest.raises(AssertionError):
        check_seeds(check_plans, range(200))


@pytest.mark.parametrize("name", sorted(name for name, node in SCHEMA["$defs"].items() if "properties" in node))
def test_each_key_of_the_schema_is_drawn(name: str) -> None:
    """A key that is added to the schema is drawn, or this fails."""
    drawn, node = Vocabulary(["a"], ["a"]), SCHEMA["$defs"][name]
    for seed in range(200):
        node_of(node, drawn, f"/{name}", Random(seed))

    keys = {f"/{name}/{key}" for key in node["properties"]} if "allOf" not in node else set()
    assert keys - drawn.seen == set()


def test_a_pattern_of_the_schema_has_a_text() -> None:
    """A string with a pattern that no text matches is not drawn, and is reported."""
    with pytest.raises(LookupError, match="no text"):
        node_of({"type": "string", "pattern": "^~$"}, Vocabulary([], []), "/x", Random(0))
