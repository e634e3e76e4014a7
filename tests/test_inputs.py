"""Expressions as functions of columns: they give what they give on the whole document, however they are evaluated."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from iggyflux import Message, parse_mapping
from iggyflux.errors import EvaluationError, ExpressionError
from iggyflux.expressions import compile_expression
from iggyflux.expressions.evaluation import Evaluation
from iggyflux.expressions.lowering import Input, Interpreted, interpreted, is_path, on_inputs
from iggyflux.functions.reference import EXAMPLE_MESSAGE, EXAMPLE_TABLES
from iggyflux.functions.table import Budget
from iggyflux.plan import columns
from iggyflux.plan.bounds import MayBeTooMuch
from iggyflux.records import JSON
from tests.expression_cases import ALL, Maker, check_all


def value_of(each: Input, element: JSON, root: JSON) -> JSON:
    """Return what an input gives."""
    if not is_path(each):
        name, argument = each
        text = f"{name}({'' if argument is None else repr(argument)})"
        return compile_expression(text).evaluate(element, EXAMPLE_MESSAGE, root=root, index=4)
    start, names = each
    value: JSON = root if start == "root" else element
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def outcome(of: Interpreted, value: Any, root: JSON) -> str:
    try:
        return repr(of.run(Evaluation(EXAMPLE_MESSAGE, root, 4, Budget()), value))
    except columns._FAILED:
        return "fails"


def test_a_function_of_inputs_gives_what_the_expression_gives_on_the_document() -> None:
    seen = 0

    def check(maker: Maker, text: str, element: Any) -> None:
        nonlocal seen
        root = maker.document()
        try:
            expression = compile_expression(text, tables=EXAMPLE_TABLES)
        except ExpressionError:
            return
        of = on_inputs(expression)
        if of is None or of.inputs is None or any(isinstance(start, int) for start, _ in of.inputs):
            return
        if maker.random.random() < 0.1 and not of.null_for_null:
            element = None
        seen += bool(of.inputs)
        found = [value_of(each, element, root) for each in of.inputs]
        # Nothing else is read: neither of the element, nor of the root.
        value = found[0] if of.takes_one else tuple(found) if found else element
        assert outcome(of, value, "") == outcome(interpreted(expression), element, root)

    check_all(6000, ALL, check)

    assert seen > 1000


MAPPING = """\
iggyflux: 1
kind: writer
name: n
from: {{stream: s, topic: t}}
for_each: l
where: "{text} != 'halle'"
points:
  measurement: {{const: p}}
  fields:
    f: {{expr: "{text}", type: auto}}
    whole: {{expr: "length(to_string(@))", type: integer}}
    i: {{expr: "index()", type: integer}}
  timestamp: {{expr: "root().zeit", format: unix_s, spread: index}}
"""
elements = st.none() | st.fixed_dictionaries(
    {}, optional={"a": st.sampled_from([None, "x", [2.5], 7]), "b": st.just("y")}
)


@settings(max_examples=150)
@given(
    st.sampled_from(["length([a])", "[a, b][1]", "{x: b}.x", "join('-', [b, 'k'])", "not_null(a, b)", "type([b])"]),
    st.lists(st.one_of(elements, st.just(3)), max_size=4),
    st.booleans(),
)
def test_what_is_made_of_null_is_that_of_the_reference_plan(text: str, found: list[Any], is_null: bool) -> None:
    """`[a]` of null is null, and not a list that contains null."""
    mapping: Any = parse_mapping(MAPPING.format(text=text))
    payload = b"null" if is_null else json.dumps({"l": found, "zeit": 1_750_000_000}).encode()
    messages = [Message(payload, "s", "t", 0, 1)]

    assert mapping.plan().render(messages) == mapping.plan("reference").render(messages)


words = st.sampled_from(["halle", "größe", "x" * 40, "9" * 90, "", "12.5", "a,b,c,d,e,f"])
mixed = st.one_of(words, st.none(), st.sampled_from([1, 1.0, True, 0, False, -0.0, ["a", "b"], {"k": 1}]))
few = st.one_of(
    st.lists(st.tuples(st.sampled_from(["x" * 40, "größe"]), st.just("halle")), min_size=4, max_size=12),
    st.lists(st.tuples(st.sampled_from([1, True, 1.0]), st.just("halle")), min_size=4, max_size=12),
)
"""Records of which many are equal, or seem to be."""
CALLS = [
    "upper(p)",
    "split(p, ',')",
    "join('-', [p, q])",
    "not_null(p, q)",
    "length(p)",
    "type(p)",
    "p == q",
    "to_string(p)",
]
CALLS += ["parse_number(p)", "[p, q]", "header('k') || p", "p > q", "if(p, q, p)", "to_number(p)"]


@settings(max_examples=400)
@given(
    st.sampled_from(CALLS),
    st.one_of(few, st.lists(st.tuples(words, words)), st.lists(st.tuples(mixed, mixed), max_size=12)),
    st.integers(0, 60),
    st.integers(1, 4),
)
def test_a_column_is_what_its_records_give_one_by_one(
    text: str, pairs: list[tuple[JSON, JSON]], steps: int, of_a_message: int
) -> None:
    """Equal texts are evaluated once, all share a budget: neither is seen, whatever fails or takes too many steps."""
    expression = compile_expression(text)
    of = on_inputs(expression)
    assert of is not None and of.inputs is not None
    roots: list[JSON] = [{"message": index // of_a_message} for index in range(len(pairs))]
    roots = [roots[index // of_a_message * of_a_message] for index in range(len(pairs))]
    elements: list[Any] = [{"p": p, "q": q} for p, q in pairs]
    inputs = [[value_of(each, element, None) for element in elements] for each in of.inputs]
    fallback: set[int] = set()
    documents: list[Any] = inputs[0] if of.takes_one else list(zip(*inputs, strict=True))
    expected_fallback: set[int] = set()

    found = columns.evaluate(of, inputs, fallback, roots=roots, steps=steps)
    expected = columns._evaluate_each(
        of,
        columns._rows(documents, [None] * len(pairs), roots, [None] * len(pairs), ()),
        expected_fallback,
        steps,
        False,
    )

    assert repr(found) == repr(expected)
    assert fallback == expected_fallback
    for index, element in enumerate(elements):
        if index not in fallback:
            try:
                whole = expression.evaluate(element, EXAMPLE_MESSAGE)
            except EvaluationError:
                raise AssertionError(f"{index} fails on the document") from None
            assert text.startswith("header") or repr(whole) == repr(found[index])


def test_many_messages_that_take_many_steps_together_are_too_much_at_once() -> None:
    of = on_inputs(compile_expression("upper(p)"))
    assert of is not None
    texts: list[JSON] = [f"{number:07d}" + "y" * 2**20 for number in range(140)]
    try:
        columns.evaluate(of, [texts], set(), roots=list(range(140)))
    except MayBeTooMuch:
        return
    raise AssertionError("they were rendered at once")
