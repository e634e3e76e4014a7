"""Documents drawn through the schema, with payloads as products write them: both plans agree, nothing crashes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from copy import deepcopy
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
from tests.forms import Form
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

    def prepare(options: Any, reads: Any, strict: bool, non_finite: bool, typed: bool) -> Any:
        decode = real.bound(options, reads, strict, non_finite=non_finite, typed=typed)
        return lambda payload: reverse_texts(decode(payload))

    monkeypatch.setitem(FORMATS, name, replace(real, prepare=prepare))
    monkeypatch.setattr(shapes, "FORMATS", [name])

    with pytest.raises(AssertionError):
        check_seeds(check_values, range(200))


def test_every_format_is_drawn() -> None:
    assert set(payload_forms.FORMATS) == set(FORMATS)


SCHEMAS = {"message", "descriptor", "proto", "import_paths", "schema", "schemas", "schema_registry"}
"""Options that say where a schema is: without it nothing is decoded, wherever it is the values are the same."""
OPTIONS = [
    (node["properties"]["format"]["const"], option)
    for name, node in sorted(SCHEMA["$defs"].items())
    if name.startswith("payload_") and "const" in node.get("properties", {}).get("format", {})
    for option in sorted(node["properties"].keys() - {"format"} - SCHEMAS)
]


def change_documents(change: Callable[[dict[str, Any]], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the plans have documents that are changed after the independent evaluation got them."""
    real = shapes.parsed

    def parsed(document: dict[str, Any], *given: Any) -> Any:
        document = deepcopy(document)
        change(document)
        return real(document, *given)

    monkeypatch.setattr(shapes, "parsed", parsed)


@pytest.mark.parametrize(("name", "option"), OPTIONS)
def test_the_independent_evaluation_finds_that_an_option_of_a_format_does_nothing(
    name: str, option: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So each option is drawn, with payloads for which it matters."""

    def lose(document: dict[str, Any]) -> None:
        payload = document["from"]["payload"]
        document["from"]["payload"] = {key: value for key, value in payload.items() if key != option}

    monkeypatch.setattr(shapes, "FORMATS", [name])
    monkeypatch.setattr(shapes, "form_of", lambda *given: as_object(payload_forms.form_of(*given)))
    change_documents(lose, monkeypatch)

    with pytest.raises(AssertionError):
        check_seeds(check_values, range(400))


def as_object(form: Form) -> Form:
    """Return a form whose payload is written with `format`."""
    return form if isinstance(form.payload, dict) else replace(form, payload={"format": form.payload})


@pytest.mark.parametrize("name", ["json", "influx", "protobuf"])
def test_the_independent_evaluation_finds_that_the_type_of_a_payload_is_not_kept(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose(document: dict[str, Any]) -> None:
        for field in document["points"]["fields"].values():
            if field.get("type") == "payload":
                field["type"] = "integer" if name == "protobuf" else "auto"

    monkeypatch.setattr(shapes, "FORMATS", [name])
    change_documents(lose, monkeypatch)

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
