"""Documents drawn through the schema, with payloads as products write them: both plans agree, nothing crashes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, assume, event, given, settings
from hypothesis import strategies as st

from iggyflux import Mapping, MappingError, Message, parse_lines, parse_mapping
from iggyflux.lineprotocol import Unsigned
from iggyflux.records import Row
from tests.independent_evaluation import UNITS, Failed, records
from tests.payload_shapes import SHAPES, Members, Token, containers, mutated, parse, paths
from tests.schema_documents import SCHEMA, Vocabulary, documents, node_of
from tests.strategies import as_yaml
from tests.test_law import outcome
from tests.test_reader_law import outcome as reader_outcome

EXAMPLES, SLOW_EXAMPLES, LONG_EXAMPLES = 60, 600, 100_000
RELAXED = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
RELAXED_BY = {
    examples: settings(max_examples=examples, deadline=None, suppress_health_check=RELAXED, derandomize=is_seeded)
    for examples, is_seeded in ((EXAMPLES, True), (SLOW_EXAMPLES, True), (LONG_EXAMPLES, False))
}
NUMBERS_OF_EXAMPLES = pytest.mark.parametrize(
    "examples",
    [
        EXAMPLES,
        pytest.param(SLOW_EXAMPLES, marks=pytest.mark.slow),
        pytest.param(LONG_EXAMPLES, marks=pytest.mark.long),
    ],
)


def vocabulary_of(shape: str) -> Vocabulary:
    """The paths and members of a shape."""
    found = list(paths(parse(SHAPES[shape])))
    leaves = [path for path in found if not any(other.startswith((f"{path}.", f"{path}[")) for other in found)]
    return Vocabulary(
        [*leaves, *leaves, *leaves, *found],
        sorted({path.rpartition(".")[2].strip('"') for path in found if '"' in path}),
    )


@st.composite
def batches(draw: Any, shape: str) -> list[Message]:
    """Ordinary messages of a shape, and mutated ones among them."""
    texts = draw(st.lists(st.one_of(st.just(SHAPES[shape]), mutated(shape)), min_size=1, max_size=5))
    return [
        Message(
            text.encode("utf-8", "surrogatepass"), "factory", "readings", number % 3, 7 + number, 1_700_000_000_000_000
        )
        for number, text in enumerate(texts)
    ]


def parsed(document: dict[str, Any]) -> Mapping:
    """A mapping; documents that are refused are not examples."""
    try:
        return parse_mapping(as_yaml(document), format="yaml")
    except MappingError as error:
        for problem in error.problems:
            event(f"refused: {problem.code}")
        assume(False)
        raise AssertionError from error


@NUMBERS_OF_EXAMPLES
def test_plans_agree_on_payloads_of_products(examples: int) -> None:
    @settings(parent=RELAXED_BY[examples])
    @given(
        st.data(),
        st.sampled_from(sorted(SHAPES)),
        st.sampled_from(["v1", "v2", "v3"]),
        st.sampled_from(["ns", "us", "ms", "s"]),
    )
    def law(data: st.DataObject, shape: str, dialect: str, precision: str) -> None:
        mapping = parsed(data.draw(documents("writer", vocabulary_of(shape))))
        compiled = mapping.plan("compiled", dialect=dialect, precision=precision)
        reference = mapping.plan("reference", dialect=dialect, precision=precision)
        for batch in data.draw(st.lists(batches(shape), min_size=1, max_size=2)):
            expected = outcome(reference.render(batch))

            assert outcome(compiled.render(batch)) == expected
            event(f"{bool(expected[0])} lines, {bool(expected[2])} failures")

    law()


# --- against an independent evaluation ---

_FORMS = [
    "{0}", "{0}", "{0}", "{0}", "{0} || {1}", "{0} && {1}", "not_null({0}, {1})", "{0} == {1}", "{0} != `null`",
    "{0} > `1`", "!{0}", "length({0})", "[{0}, {1}][1]", "{0}[0]", "{0}[-1]", "{0}[?@ != `null`] | [0]",
    "{0}[*] | [1]", "`7`", "'x'", "contains({0}, 'x')", "starts_with({0}, '2')", "join('-', [{0}, {0}])",
    "{{a: {0}}}.a", "@.{0}", "{0} <= {1}",
]  # fmt: skip


@st.composite
def plain_documents(draw: Any, shape: str) -> dict[str, Any]:
    """Documents in the part of the language that `independent_evaluation` knows."""
    vocabulary = vocabulary_of(shape)
    path = st.sampled_from(vocabulary.paths)
    expressions = st.builds(lambda form, a, b: form.format(a, b), st.sampled_from(_FORMS), path, path)
    kinds = {"float": 1.5, "integer": -7, "unsigned": 2**64 - 1, "string": 'say "hi"', "boolean": True, "auto": 2.5}
    document: dict[str, Any] = {"iggyflux": 1, "kind": "writer", "from": {"stream": "s", "topic": "t"}}
    document |= {"collisions": "keep_last", "name": "shapes"}
    point: dict[str, Any] = {"measurement": {"const": "m"}, "tags": {}, "fields": {}}
    for key in draw(st.lists(st.sampled_from(["über", "Drehzahl [1/min]", "class", "a,b"]), max_size=3, unique=True)):
        more = st.sampled_from([{}, {"required": True}, {"default": "none"}])
        point["tags"][key] = draw(
            st.one_of(expressions, st.builds(lambda expr, more: {"expr": expr, **more}, expressions, more))
        )
    for key in draw(
        st.lists(st.sampled_from(["lambda", "日本", "a=b", "x y", "_"]), min_size=1, max_size=4, unique=True)
    ):
        kind = draw(st.sampled_from([*kinds, *["auto"] * 12]))
        more = st.sampled_from([{}, {}, {"required": True}, {"default": kinds[kind]}])
        point["fields"][key] = {"expr": draw(expressions), "type": kind, **draw(more)}
    numbers = [path for path in vocabulary.paths if any(word in path for word in ("ime", "t", "T", "E"))]
    point["timestamp"] = {
        "expr": draw(st.one_of(st.just("`1700000000`"), st.just("`1700000000`"), st.sampled_from([*numbers, "`1`"]))),
        "format": draw(st.sampled_from(sorted(UNITS))),
    }
    for place in (document, point):
        if draw(st.integers(0, 7)) == 0:
            place["where"] = draw(expressions)
    if draw(st.integers(0, 3)) == 0:
        document["for_each"] = draw(st.one_of(path.map("{0}[]".format), path, st.just("[@, @]")))
    return {**document, "points": point}


def found_points(lines: Sequence[str]) -> dict[tuple[Any, ...], Any]:
    """The fields of points by measurement, tags and time."""
    kinds = {bool: "boolean", str: "string", int: "integer", float: "float", Unsigned: "unsigned"}
    return {
        (point.measurement, tuple(sorted(point.tags.items())), point.timestamp_ns): {
            key: (kinds[type(value)], repr(value) if type(value) is float else value)
            for key, value in point.fields.items()
        }
        for point in parse_lines("\n".join(lines).encode(), dialect="v2")
    }


@NUMBERS_OF_EXAMPLES
def test_values_are_those_of_an_independent_evaluation(examples: int) -> None:
    @settings(parent=RELAXED_BY[examples])
    @given(st.data(), st.sampled_from(sorted(SHAPES)))
    def agree(data: st.DataObject, shape: str) -> None:
        document = data.draw(plain_documents(shape))
        plan = parsed(document).plan()
        texts = data.draw(st.lists(st.one_of(st.just(SHAPES[shape]), mutated(shape)), min_size=1, max_size=3))
        # These fail where they are read: by rules that the evaluation does not know.
        texts = [text for text in texts if not any(odd in text for odd in ('\\ud83d"', "\\u0000", "1e400"))]
        for text in texts:
            rendered = plan.render([Message(text.encode(), "s", "t", 0, 0, 1_700_000_000_000_000)])
            expected = records(document, text)

            points = {point[:2] + point[3:]: dict(point[2]) for point in expected if isinstance(point, tuple)}
            assert found_points(rendered.lines) == points, text
            assert len(rendered.failures) == sum(isinstance(each, Failed) for each in expected), (
                text,
                rendered.failures,
                expected,
            )

    agree()


# --- readers, and the schema ---


@st.composite
def rows(draw: Any, shape: str) -> list[Row]:
    """Rows whose columns are the members of a shape's objects."""
    objects = [tree for tree in containers(parse(SHAPES[shape])) if isinstance(tree, Members)]
    made = []
    for _ in range(draw(st.integers(1, 4))):
        columns: dict[str, Any] = {"time": draw(st.integers(0, 2**62))}
        for key, value in draw(st.sampled_from(objects)):
            columns[key] = (
                json.loads(value) if isinstance(value, Token) else value if isinstance(value, str | bool) else None
            )
        made.append(Row(columns, draw(st.sampled_from(["m", "Müller, 1"])), draw(st.sampled_from([None, (0, 2**62)]))))
    return made


@NUMBERS_OF_EXAMPLES
def test_reader_plans_agree_on_rows_of_products(examples: int) -> None:
    @settings(parent=RELAXED_BY[examples])
    @given(st.data(), st.sampled_from(sorted(SHAPES)))
    def law(data: st.DataObject, shape: str) -> None:
        mapping = parsed(data.draw(documents("reader", vocabulary_of(shape))))
        batch = data.draw(rows(shape))

        assert reader_outcome(mapping.plan("compiled").render(batch)) == reader_outcome(
            mapping.plan("reference").render(batch)
        )

    law()


@pytest.mark.parametrize("name", sorted(name for name, node in SCHEMA["$defs"].items() if "properties" in node))
def test_each_key_of_the_schema_is_drawn(name: str) -> None:
    """A key that is added to the schema is drawn, or this fails."""
    drawn, node = Vocabulary(["a"], ["a"]), SCHEMA["$defs"][name]

    @settings(max_examples=200, database=None, phases=[Phase.generate], derandomize=True, suppress_health_check=RELAXED)
    @given(node_of(node, drawn, f"/{name}"))
    def draw(_tree: Any) -> None:
        pass

    draw()
    keys = {f"/{name}/{key}" for key in node["properties"]} if "allOf" not in node else set()
    assert keys - drawn.seen == set()
