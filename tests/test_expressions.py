"""The expression language: jmespath.py 1.1 defines values and failures; compile-time errors are those of iggyflux."""

from __future__ import annotations

import copy
import json
import pickle
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jmespath
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iggyflux.codes import CODES
from iggyflux.errors import EvaluationError, ExpressionError
from iggyflux.expressions import Expression, Reads, compile_expression, literal_value, scope_call, static_path, truth
from iggyflux.functions import FUNCTIONS
from iggyflux.functions.reference import EXAMPLE_MESSAGE, EXAMPLE_TABLES
from iggyflux.records import JSON, Message, Row
from tests.expression_cases import ALL, STANDARD, Maker, check_all

DEVIATIONS = {"IFX203", "IFX204", "IFX205", "IFX206", "IFX211", "IFX213", "IFX215"}
"""Codes of texts that jmespath.py compiles, but that can only fail or are hardly meant (LANGUAGE 5, 7)."""


LONG = 50 if "--long" in sys.argv else 1
"""The factor of random cases in `make test-long`."""


def examples(count: int) -> settings:
    """Return the number of random examples."""
    return settings(max_examples=count * LONG, deadline=None)


# --- random documents and expressions ---

NAMES = ["a", "b", "é"]
numbers = st.one_of(
    st.integers(0, 2),
    st.sampled_from([-1, 2**53 + 1, -(2**63), 10**30, 0.1, -0.0, 1.0, 1.5, 1e308, 5e-324]),
)
texts = st.sampled_from(["", "a", "x", "1", "-2.5", "é", "a,b", '{"a": 1}', "2024-01-01T00:00:00Z", "1e400", "YQ=="])
scalars = st.one_of(st.none(), st.booleans(), numbers, texts)


def _grown(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    pair = st.fixed_dictionaries({"a": inner, "b": inner})
    return st.one_of(
        pair,
        st.lists(inner, max_size=3),
        st.lists(pair, min_size=1, max_size=3),
        st.lists(st.lists(inner, max_size=2), max_size=3),
        st.lists(numbers, max_size=3),
        st.lists(texts, max_size=3),
        st.lists(st.fixed_dictionaries({"key": texts, "value": inner}), max_size=2),
        st.dictionaries(st.sampled_from(NAMES), inner, max_size=3),
    )


documents: st.SearchStrategy[Any] = st.recursive(scalars, _grown, max_leaves=10)
"""Return a value of few names and few scalars, so that paths exist and comparisons find equal values."""

objects: st.SearchStrategy[Any] = st.one_of(
    st.fixed_dictionaries({"a": documents, "b": documents}),
    st.fixed_dictionaries({"a": _grown(documents), "b": _grown(scalars)}),
    st.dictionaries(st.sampled_from(NAMES), documents, max_size=4),
)


tokens = st.sampled_from(
    [
        *". [ ] ( ) { } [? [] * : , @ & && | || ! != == < <= > >= = - + / $ ? a b null true 'x' 'x ` `1` `x`".split(),  # noqa: SIM905
        *(
            '"',
            "5",
            "-1",
            '"a"',
            '"\\x"',
            " ",
            "\n",
            "é",
            "🎉",
            "\x00",
            "\ud800",
            "`{",
            "abs(",
            "meta(",
            "sort_by(",
            "if(",
        ),
    ]
)
soups = st.one_of(st.lists(tokens, max_size=12).map("".join), st.text(max_size=12))


def outcome(run: Callable[[], Any]) -> tuple[str, str]:
    """Return the value by its exact text, or that it failed, for whatever reason."""
    try:
        return "value", repr(run())
    except RecursionError:
        raise
    except Exception:
        return "fails", ""


def evaluated(expression: Expression, document: Any, **scope: Any) -> tuple[str, str]:
    """Return `outcome`, with code and reason of a failure."""
    try:
        return "value", repr(expression.evaluate(document, **scope))
    except EvaluationError as error:
        return error.code, error.reason


def compiled_or_none(text: str) -> Any:
    try:
        return compile_expression(text, tables=EXAMPLE_TABLES, parents=None)
    except ExpressionError:
        return None


# --- compared with jmespath.py ---


def test_values_and_failures_are_those_of_jmespath_py() -> None:
    """Rule 7.  The value is that of jmespath.py, and where that raises anything the record fails."""

    def check(_: Maker, text: str, document: JSON) -> None:
        theirs = jmespath.compile(text)
        try:
            ours = compile_expression(text)
        except ExpressionError as error:
            if error.code not in DEVIATIONS:
                raise
            return

        expected = outcome(lambda: theirs.search(document))
        assert expected == outcome(lambda: ours.evaluate(document))

    check_all(4000 * LONG, STANDARD, check)


@examples(600)
@given(text=soups)
def test_the_texts_that_compile_are_those_of_jmespath_py(text: str) -> None:
    """A random text compiles in both or in neither, except for the documented deviations."""
    try:
        compile_expression(text)
        ours = "compiles"
    except ExpressionError as error:
        ours = error.code
    try:
        jmespath.compile(text)
        theirs = True
    except PendingDeprecationWarning:  # an error under pytest's filter, and not a fault of the text
        return
    except Exception:
        theirs = False

    if theirs:
        assert ours == "compiles" or ours in DEVIATIONS | {
            "IFX207",
            "IFX208",
            "IFX209",
            "IFX212",
        }  # of added functions
    else:
        assert ours != "compiles"


@pytest.mark.parametrize(
    ("text", "document", "expected"),
    [
        ("a.b", {"a": {"b": 1}}, 1),
        ("a.b", {"a": "text"}, None),
        ("a[?b == `1`].c | [0]", {"a": [{"b": True, "c": 0}, {"b": 1, "c": 2}]}, 2),
        ("a == `1`", {"a": True}, False),
        ("a == `0`", {"a": False}, False),
        ("a == `[0]`", {"a": [False]}, True),
        ("!a", {"a": 0}, False),
        ("a && 'yes'", {"a": 0}, "yes"),
        ("a || 'none'", {"a": []}, "none"),
        ("a[]", {"a": [[1], 2, None, [None]]}, [1, 2]),
        ("a[*]", {"a": [1, None]}, [1]),
        ("[a, b]", {}, [None, None]),
        ("[a, b]", None, None),
        ("a < 'x'", {"a": True}, None),
        ("a[99999999999999999999]", {"a": [1]}, None),
        ("to_number(a)", {"a": "1e400"}, float("inf")),
        ("`text` == 'text'", {}, True),
        ("to_number('12') > `3`", {}, True),
        ("foo(@)", {}, ExpressionError),
        ("a < `2`", {"a": "1"}, EvaluationError),
        ("merge(a, b)", {"a": {}}, EvaluationError),
        ("a[::0]", {"a": [1]}, EvaluationError),
        ("a[::0]", {"a": 1}, None),
        ("ceil(to_number('1e400'))", {}, EvaluationError),
    ],
)
def test_corner_cases_of_jmespath_py_are_kept(text: str, document: JSON, expected: Any) -> None:
    """Cases that are easy to get wrong, written out."""
    if isinstance(expected, type):
        with pytest.raises(expected):
            compile_expression(text).evaluate(document)
        return

    assert repr(expected) == repr(compile_expression(text).evaluate(document))


def test_truth_is_that_of_jmespath() -> None:
    """Rule 9. 0 is true, empty values are not."""
    values: list[Any] = [None, False, "", [], {}, 0, 0.0, -0.0, True, "0", [None], {"a": None}, 1]

    expected = [False] * 5 + [True] * 8
    assert expected == [truth(value) for value in values]
    assert expected == [jmespath.search("@ && 'true' == 'true'", value) is True for value in values]


# --- any text and any document ---


@examples(400)
@given(text=soups, document=documents)
def test_a_text_gives_a_value_or_an_error_of_iggyflux(text: str, document: JSON) -> None:
    """Random text on random documents; the document is unchanged."""
    before = copy.deepcopy(document)
    found: ExpressionError | EvaluationError | None = None
    try:
        expression = compile_expression(text, tables=EXAMPLE_TABLES)
        expression.evaluate(document, EXAMPLE_MESSAGE, index=3)
    except (ExpressionError, EvaluationError) as error:
        found = error

    assert repr(before) == repr(document)
    assert found is None or found.code in CODES
    if isinstance(found, ExpressionError):
        assert 0 <= found.position <= len(text)
        assert found.length >= 1


def test_an_expression_gives_a_value_or_an_error_of_iggyflux() -> None:
    """All functions on all kinds of values; the document is unchanged, and `types` has the type of the value."""

    def check(_: Maker, text: str, document: JSON) -> None:
        expression = compiled_or_none(text)
        if expression is None:
            return
        before = repr(document)
        try:
            value = expression.evaluate(document, EXAMPLE_MESSAGE, index=3)
        except EvaluationError as error:
            codes.add(error.code)
        else:
            assert jmespath.search("type(@)", value) in expression.types
        assert before == repr(document)

    codes: set[str] = set()
    check_all(4000 * LONG, ALL, check)

    assert codes <= set(CODES)
    assert len(codes) > 3


ENDLESS = {
    "brackets": "(" * 5000 + "a",
    "signs": "!" * 5000 + "a",
    "projections": "a" + "[*]" * 5000,
    "lists": "[" * 3000,
    "literal": "`" + "[" * 4000 + "]" * 4000 + "`",
}


@pytest.mark.parametrize("text", ENDLESS.values(), ids=ENDLESS)
def test_a_text_that_is_nested_too_deeply_is_rejected(text: str) -> None:
    """No text raises RecursionError."""
    with pytest.raises(ExpressionError) as caught:
        compile_expression(text)

    assert caught.value.code in ("IFX200", "IFX201", "IFX202", "IFX211")


def test_a_long_chain_of_members_is_not_nested() -> None:
    """Members are flat, however many there are."""
    text = ".".join("a" for _ in range(500))

    assert compile_expression(text).evaluate({"a": {"a": 1}}) is None


def test_a_deep_document_is_evaluated() -> None:
    """Documents are at most 128 levels deep."""
    document: Any = 1
    for _ in range(128):
        document = [document]

    assert compile_expression("@ == @").evaluate(document) is True
    assert compile_expression("length(to_string(@))").evaluate(document) == 257


# --- reads ---


def test_an_expression_reads_no_more_than_its_reads() -> None:
    """A document that is pruned to `reads` gives the same value, or the same failure with the same reason."""

    def check(_: Maker, text: str, document: JSON) -> None:
        expression = compiled_or_none(text)
        if expression is not None:
            reads = expression.reads.union(expression.root_reads)
            assert evaluated(expression, document) == evaluated(expression, reads.prune(document))

    check_all(4000 * LONG, ALL, check)


@pytest.mark.parametrize(
    ("text", "document"),
    [
        ("a[].b", {"a": [[{"b": 1, "c": 2}], {"b": 3}]}),
        ("a[]", {"a": [[[1]], [2], 3]}),
        ("a[?b].c", {"a": [{"b": [0], "c": 1}, {"b": [], "c": 2}]}),
        ("a == b", {"a": {"x": [1]}, "b": {"x": [2]}}),
        ("a || b", {"a": {"x": 1}, "b": 2}),
        ("!a", {"a": [1]}),
        ("a && b", {"a": {}, "b": 1}),
        ("if(a, 'full', 'empty')", {"a": {"x": 1}}),
        ("sort_by(a, &b)[*].c", {"a": [{"b": 2, "c": [1]}, {"b": 1, "c": [2]}]}),
        ("max_by(a, &b)", {"a": [{"b": {"x": 1}}]}),
        ("a.*.b", {"a": {"x": {"b": 1}, "y": {}}}),
        ("length(a[*].b)", {"a": [{"b": [1]}, {}]}),
        ("map(&[b, root().c], a)", {"a": [{"b": {"x": 1}}], "c": {"y": 2}}),
        ("{x: a, x: b}.x.c", {"a": {"c": 1}, "b": {"c": 2}}),
    ],
)
def test_reads_have_what_is_easily_overlooked(text: str, document: JSON) -> None:
    """Emptiness, nested lists, lists of keys: cases of the test above, written out."""
    expression = compile_expression(text)

    expected = evaluated(expression, document)
    assert expected == evaluated(expression, expression.reads.union(expression.root_reads).prune(document))


def test_reads_of_the_element_and_of_the_payload_are_separate() -> None:
    """Under `for_each` element, payload and parents are pruned to `reads`, `root_reads` and `parent_reads`."""

    def check(maker: Maker, text: str, document: JSON) -> None:
        expression = compiled_or_none(text)
        if expression is None or not expression.uses & {"root", "index", "parent"}:
            return
        element, *around = (maker.document() for _ in range(3))

        expected = evaluated(expression, element, root=document, index=0, parents=around)
        pruned, root = expression.reads.prune(element), expression.root_reads.prune(document)
        parents = [expression.parent_reads.get(2 - n, Reads.BARE).prune(parent) for n, parent in enumerate(around)]
        assert expected == evaluated(expression, pruned, root=root, index=0, parents=parents)

    check_all(3000 * LONG, [*ALL, *[FUNCTIONS[name] for name in ("root", "index", "parent")] * 20], check)


reads_trees: st.SearchStrategy[Reads] = st.recursive(
    st.sampled_from([Reads.WHOLE, Reads.BARE]),
    lambda inner: st.builds(
        Reads, keys=st.dictionaries(st.sampled_from(NAMES), inner, max_size=3), items=st.one_of(st.none(), inner)
    ),
    max_leaves=5,
)


def test_reads_for_a_part_of_the_result_suffice_for_that_part() -> None:
    """A `for_each` whose elements are read in part needs only these parts of the payload."""
    parts = [
        Reads(items=Reads(keys={"a": Reads.WHOLE})),
        Reads(items=Reads(keys={"a": Reads.BARE, "b": Reads(keys={"a": Reads.WHOLE})}), keys={"a": Reads.WHOLE}),
        Reads.BARE,
        Reads(items=Reads(items=Reads.WHOLE)),
    ]

    def check(maker: Maker, text: str, document: JSON) -> None:
        expression = compiled_or_none(text)
        if expression is None:
            return
        result = maker.random.choice(parts)
        here, root, _ = expression.reads_for(result)

        def part(of: JSON) -> tuple[str, str]:
            try:
                return "value", repr(result.prune(expression.evaluate(of)))
            except EvaluationError as error:
                return error.code, error.reason

        assert part(document) == part(here.union(root).prune(document))

    check_all(4000 * LONG, ALL, check)


@given(first=reads_trees, second=reads_trees, document=documents)
def test_a_union_reads_what_either_reads(first: Reads, second: Reads, document: JSON) -> None:
    """Pruning to a union and then to one of its parts is pruning to that part."""
    both = first.union(second)

    assert repr(first.prune(document)) == repr(first.prune(both.prune(document)))
    assert repr(second.prune(document)) == repr(second.prune(both.prune(document)))


K = Reads.WHOLE


@pytest.mark.parametrize(
    ("text", "reads", "root_reads"),
    [
        ("a.b", Reads(keys={"a": Reads(keys={"b": K})}), Reads.BARE),
        ("root().a.b", Reads.BARE, Reads(keys={"a": Reads(keys={"b": K})})),
        ("@", K, Reads.BARE),
        ("keys(@)", K, Reads.BARE),
        ("a.*", Reads(keys={"a": K}), Reads.BARE),
        ("a != `null`", Reads(keys={"a": Reads.BARE}), Reads.BARE),
        ("a > `5`", Reads(keys={"a": Reads.BARE}), Reads.BARE),
        ("a == b", Reads(keys={"a": K, "b": K}), Reads.BARE),
        ("a[*].b", Reads(keys={"a": Reads(items=Reads(keys={"b": K}))}), Reads.BARE),
        ("a[0].b", Reads(keys={"a": Reads(items=Reads(keys={"b": K}))}), Reads.BARE),
        ("a[?b == 'x'].c", Reads(keys={"a": Reads(items=Reads(keys={"b": Reads.BARE, "c": K}))}), Reads.BARE),
        ("a | {x: b} | x", Reads(keys={"a": Reads(keys={"b": K})}), Reads.BARE),
        ("max_by(a, &b).c", Reads(keys={"a": Reads(items=Reads(keys={"b": Reads.BARE, "c": K}))}), Reads.BARE),
        ("not_null(a, b).c", Reads(keys={"a": Reads(keys={"c": K}), "b": Reads(keys={"c": K})}), Reads.BARE),
        (
            "pair(a, b)[*][0].c",
            Reads(keys={"a": Reads(keys={"c": K}), "b": Reads(items=Reads(keys={"c": K}))}),
            Reads.BARE,
        ),
        ("enumerate(a)[*].value.b", Reads(keys={"a": Reads(items=Reads(keys={"b": K}))}), Reads.BARE),
        ("'constant'", Reads.BARE, Reads.BARE),
    ],
)
def test_reads_are_as_narrow_as_they_should_be(text: str, reads: Reads, root_reads: Reads) -> None:
    """Decoders profit from narrow reads; mappings use these shapes."""
    expression = compile_expression(text)

    assert (reads, root_reads) == (expression.reads, expression.root_reads)


def test_reads_of_a_for_each_reach_the_members_of_its_elements() -> None:
    """`for_each: readings[]` with fields `celsius` reads `celsius` of each reading."""
    here, root, _ = compile_expression("readings[]").reads_for(Reads(items=Reads(keys={"celsius": Reads.WHOLE})))

    element = Reads(keys={"celsius": Reads.WHOLE})
    assert here == Reads(keys={"readings": Reads(keys=element.keys, items=Reads(keys=element.keys))}) or here == Reads(
        keys={"readings": Reads(items=Reads(keys=element.keys, items=element))}
    )
    assert root == Reads.BARE


# --- scope ---


def test_the_scope_is_the_message_the_payload_and_the_position() -> None:
    """Rule 6.  `@` is the element, `root()` the payload, `index()` the position, `meta` the coordinates."""
    expression = compile_expression(
        "[@, root().unit, index(), parent().y, parent(`2`), parent(`3`), meta('topic'), meta('timestamp'), meta('id'), "
        "header('tenant')]",
        parents=3,
    )

    actual = expression.evaluate({"x": 1}, EXAMPLE_MESSAGE, root={"unit": "C"}, index=4, parents=("far", {"y": "near"}))

    assert actual == [{"x": 1}, "C", 4, "near", "far", None, "readings", 1_700_000_000_000_001, 42, "acme"]
    assert expression.uses == {"root", "index", "parent", "meta", "header"}


def test_without_a_message_coordinates_and_headers_are_null() -> None:
    """Rule 6.  In `eval` the root is the document itself."""
    expression = compile_expression("[meta('topic'), header('tenant'), index(), root()]")

    assert expression.evaluate({"a": 1}) == [None, None, None, {"a": 1}]


def test_a_null_payload_is_a_root() -> None:
    """Rule 6.  A given root counts, even if it is null."""
    assert compile_expression("[root(), @]").evaluate(1, root=None) == [None, 1]


@pytest.mark.parametrize(
    ("header", "expected"), [(b"\x00\xff", "AP8="), ("text", "text"), (7, 7), (1.5, 1.5), (True, True), (None, None)]
)
def test_headers_keep_their_scalar_types_and_bytes_become_base64(header: Any, expected: JSON) -> None:
    """Rule 6.  The types that headers of Iggy have."""
    message = Message(payload=b"", headers={} if header is None else {"k": header})

    actual = compile_expression("header('k')").evaluate(None, message)

    assert (type(expected), expected) == (type(actual), actual)


def test_meta_of_a_row_has_measurement_and_window() -> None:
    """Rule 29.  In a reader `meta` reads the row."""
    row = Row(columns={}, measurement="env", window=(5, 9))

    actual = compile_expression("[meta('measurement'), meta('window').stop, meta('topic')]").evaluate({}, row)

    assert actual == ["env", 9, None]


def test_a_reader_has_no_topic() -> None:
    """Rule 29.  With the kind of the document given, names of the other kind are rejected."""
    with pytest.raises(ExpressionError) as caught:
        compile_expression("meta('topic')", kind="reader")

    assert caught.value.code == "IFX207"
    assert compile_expression("meta('topic')", kind="writer").evaluate({}) is None


def test_the_scope_reaches_into_filters_and_expression_arguments() -> None:
    """`root()` and `index()` mean the same everywhere."""
    document = {"limit": 2, "xs": [{"v": 1}, {"v": 3}]}
    text = "[xs[?v > root().limit].v | [0], map(&add(v, index()), xs), max_by(xs, &multiply(v, root().limit)).v]"

    assert compile_expression(text).evaluate(document, index=10) == [3, [11, 13], 3]


def test_evaluations_in_many_threads_are_independent() -> None:
    """One expression, many threads, each with its own message."""
    expression = compile_expression("xs[*].[meta('offset'), index(), root().n, @]")
    wrong: list[Any] = []

    def work(number: int) -> None:
        message = Message(payload=b"", offset=number)
        for turn in range(400):
            actual = expression.evaluate({"xs": [1, 2], "n": number}, message, index=turn)
            if actual != [[number, turn, number, 1], [number, turn, number, 2]]:
                wrong.append(actual)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)

    assert wrong == []


# --- what compiling finds ---


def examples_of(first: int, last: int) -> list[Any]:
    codes = [code for code in CODES.values() if first <= int(code.code[3:]) <= last and code.example]
    return [pytest.param(code.code, code.example, id=code.code) for code in codes]


@pytest.mark.parametrize(("code", "example"), examples_of(200, 219))
def test_the_example_of_a_code_raises_it(code: str, example: str) -> None:
    """docs/errors.md shows these examples."""
    with pytest.raises(ExpressionError) as caught:
        compile_expression(example)

    assert code == caught.value.code


@pytest.mark.parametrize(("code", "example"), examples_of(220, 299))
def test_the_example_of_a_warning_causes_it(code: str, example: str) -> None:
    """A doubtful expression compiles with a warning."""
    assert [code] == [warning.code for warning in compile_expression(example).warnings]


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ('split(gr, ".")', "'.'"),
        ('starts_with(class, "halle")', "'halle'"),
        ("replace(a, \"yield\", 'x')", "'yield'"),
        ('join(", ", a)', "', '"),
        ('coalesce(a, "unknown")', "'unknown'"),
        ('split(a, "\'")', r"'\''"),
        ('upper("für")', None),
        ('upper("class")', None),
        ('starts_with(a, "air-temp")', None),
        ('coalesce(a, "null")', None),
        ("split(a, '.')", None),
        ("split(a, class)", None),
        ('length("class")', None),
        ('sort_by(a, &"class")', None),
    ],
)
def test_a_string_argument_in_double_quotes_is_doubted(text: str, hint: str | None) -> None:
    """It is the name of a member, and gives null without a failure; a name that needs its quotes is not doubted."""
    warnings = compile_expression(text).warnings

    assert [f"write {hint} for the string"] * (hint is not None) == [warning.hint for warning in warnings]


@pytest.mark.parametrize(
    ("code", "example"), [each for each in examples_of(300, 399) if " on {" in str(each.values[1])]
)
def test_the_example_of_a_failure_causes_it(code: str, example: str) -> None:
    """A failure at run time has its code, and the place of the expression in the document."""
    text, document = example.split(" on ", 1)
    with pytest.raises(EvaluationError) as caught:
        compile_expression(text, location="/points/0/fields/x").evaluate(json.loads(document))

    assert (code, "/points/0/fields/x") == (caught.value.code, caught.value.location)


@pytest.mark.parametrize(
    ("text", "marked", "words"),
    [
        ("a == b and c", "and", "&&"),
        ("a > 5", "5", "`5`"),
        ("a + b", "+", "add(a, b)"),
        ("device-id", "-", '"device-id"'),
        ("a['b']", "'b'", ".b"),
        ("readings[?ok", "[?", "is not closed"),
        ("'text", "'", "not closed"),
        ("f.lenght(a)", "lenght", "did you mean length?"),
        ("upper(a, b)", "upper", "upper(text: string)"),
        ("[a, abs( 'x' ), b]", "'x'", "expects number"),
        ("join(',', sort_by(a, b.c))", "b.c", "&b.c"),
        ("a[?b == null].c", "null", "`null`"),
        ("{t: meta('tpoic')}", "'tpoic'", "did you mean 'topic'?"),
        ('meta("topic")', '"topic"', "'topic'"),
        ("lookup('site', a)", "'site'", "did you mean 'sites'?"),
        ("regex_match(a, '(?=b)')", "'(?=b)'", "RE2"),
        ('a == `{"b"}`', "}", "is not JSON"),
        ("format('{} {}', a)", "'{} {}'", "2 placeholders for 1 value"),
        ("now()", "now", "the clock is not available"),
        ("température", "é", '"température"'),
        ("[&a]", "&", "only for arguments"),
        ("q && [x, {y: &(q.x || `1`)}]", "&", "only for arguments"),
        ("type(@) == `0` && (( &z ))", "&", "only for arguments"),
    ],
)
def test_an_error_has_a_place_in_the_expression_and_a_hint(text: str, marked: str, words: str) -> None:
    """Place, finding and hint."""
    with pytest.raises(ExpressionError) as caught:
        compile_expression(text, tables=EXAMPLE_TABLES)
    error = caught.value

    assert marked == text[error.position : error.position + error.length]
    assert words in f"{error.message}; {error.hint}"


@pytest.mark.parametrize("word", ["null", "true", "false"])
def test_a_literal_without_backticks_is_rejected_with_two_hints(word: str) -> None:
    """Rule 5.  `null` would be a field; both spellings in the hint work."""
    with pytest.raises(ExpressionError) as caught:
        compile_expression(f"a == {word}")

    assert caught.value.code == "IFX206"
    assert f"write `{word}` in backticks" in str(caught.value.hint)
    assert compile_expression(f"a == `{word}`").evaluate({"a": json.loads(word)}) is True
    assert compile_expression(f'"{word}"').evaluate({word: 5}) == 5
    assert compile_expression(f"counts.{word}").evaluate({"counts": {word: 5}}) == 5


def test_an_unknown_function_is_rejected_even_if_it_is_never_called() -> None:
    """Rule 7.  A deviation: jmespath.py would evaluate this."""
    assert jmespath.search("`1` || nosuch(@)", {}) == 1
    with pytest.raises(ExpressionError):
        compile_expression("`1` || nosuch(@)")


def test_a_failure_shows_types_and_not_documents() -> None:
    """Reasons are kept in dead letters and logs, so they must stay short."""
    with pytest.raises(EvaluationError) as caught:
        compile_expression("abs(a)").evaluate({"a": "x" * 10_000})

    assert caught.value.reason == "abs() expected number, found string"


def test_missing_and_trailing_commas_are_accepted_as_in_jmespath() -> None:
    """jmespath.py accepts `f(a b)` and `f(a,)`; places are found all the same."""
    assert compile_expression("contains(a 'x')").evaluate({"a": "xy"}) is True
    with pytest.raises(ExpressionError) as caught:
        compile_expression("contains(`5` 'x')")

    assert caught.value.position == 0


# --- what a code generator uses ---


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.b.c", ("@", ("a", "b", "c"))),
        ("@", ("@", ())),
        ("@.a", ("@", ("a",))),
        ("a | b", ("@", ("a", "b"))),
        ("(a.b).c", ("@", ("a", "b", "c"))),
        ("root().a.b", ("root", ("a", "b"))),
        ("root()", ("root", ())),
        ("parent().a", (1, ("a",))),
        ("parent(`3`).a.b", (3, ("a", "b"))),
        ("a | root().b", ("root", ("b",))),
        ('"a.b"', ("@", ("a.b",))),
        ("a[0]", None),
        ("a.*", None),
        ("a || b", None),
        ("'a'", None),
        ("a.[b]", None),
    ],
)
def test_static_paths_are_found(text: str, expected: Any) -> None:
    """Plain chains of members, from the element or from the payload."""
    assert expected == static_path(compile_expression(text, parents=None))


paths = st.recursive(
    st.sampled_from(["a", "b", '"é"', "@", "root()"]),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from([".a", ".b", '."é"'])).map("".join),
        st.tuples(inner, st.just(" | "), inner).map("".join),
        inner.map(lambda text: f"({text})"),
    ),
)


@examples(200)
@given(text=paths, document=objects, element=documents)
def test_a_static_path_gives_the_same_value_as_evaluation(text: str, document: JSON, element: JSON) -> None:
    """A lowered expression means the same."""
    expression = compile_expression(text)
    path = static_path(expression)
    assert path is not None

    value: Any = element if path[0] == "@" else document
    for key in path[1]:
        value = value.get(key) if isinstance(value, dict) else None
    assert repr(value) == repr(expression.evaluate(element, root=document))


def test_literals_and_scope_calls_are_found() -> None:
    """The other forms that a code generator writes as plain Python."""
    assert literal_value(compile_expression("'env'")) == ("env",)
    assert literal_value(compile_expression("`null`")) == (None,)
    assert literal_value(compile_expression("a")) is None
    assert scope_call(compile_expression("meta('topic')")) == ("meta", "topic")
    assert scope_call(compile_expression("header('k')")) == ("header", "k")
    assert scope_call(compile_expression("index()")) == ("index", None)
    assert scope_call(compile_expression("upper(meta('topic'))")) is None


# --- the object ---


def test_an_expression_pickles_as_its_arguments() -> None:
    """Text, tables, kind and place; the rest is made again after unpickling."""
    expression = compile_expression("lookup('sites', a)", tables={"sites": {"x": 1}}, kind="writer", location="/where")

    again = pickle.loads(pickle.dumps(expression))

    assert expression == again
    assert hash(expression) == hash(again)
    assert again.evaluate({"a": "x"}) == 1
    assert (again.location, again.kind) == ("/where", "writer")


def test_expressions_differ_by_text_and_tables() -> None:
    """Equal expressions do the same."""
    assert compile_expression("a") == compile_expression("a")
    assert compile_expression("a") != compile_expression("b")
    assert compile_expression("a", tables={"t": {}}) != compile_expression("a")
    assert compile_expression("a") != "a"


def test_compiling_imports_nothing_heavy() -> None:
    """Only a function that needs them imports regular expressions, decimals, zones and dates."""
    heavy = ["re2", "fractions", "zoneinfo", "dateutil", "iggyflux.timestamps", "difflib"]
    code = (
        "import sys; from iggyflux.expressions import compile_expression as c;"
        "assert c('a[?b > `1`].{x: upper(c)} | [0]').evaluate({'a': [{'b': 2, 'c': 'y'}]}) == {'x': 'Y'};"
        f"print([name for name in {heavy} if name in sys.modules])"
    )

    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


# --- the guide ---

GUIDE = (Path(__file__).parent.parent / "docs" / "expressions.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| (?:`` (.+?) ``|`([^`]+)`) \| `([^`]+)` \| `([^`]+)` \|$", re.MULTILINE)


def rows_of_the_guide() -> list[Any]:
    rows = [(long or short, document, result) for long, short, document, result in ROW.findall(GUIDE)]
    return [pytest.param(text.replace("\\|", "|"), document, result, id=text) for text, document, result in rows]


@pytest.mark.parametrize(("text", "document", "result"), rows_of_the_guide())
def test_a_row_of_the_guide_is_true(text: str, document: str, result: str) -> None:
    """docs/expressions.md shows these results."""
    try:
        actual: Any = compile_expression(text, tables=EXAMPLE_TABLES).evaluate(json.loads(document), EXAMPLE_MESSAGE)
    except (ExpressionError, EvaluationError) as error:
        actual = error.code

    assert repr(actual) == repr(result if result.startswith("IFX") else json.loads(result))


def test_every_row_of_the_guide_is_run() -> None:
    """The test above covers each of its tables."""
    lines = [
        line for line in GUIDE.splitlines() if line.startswith("|") and not line.startswith(("| expression", "|--"))
    ]

    assert len(lines) == len(rows_of_the_guide()) > 50


@pytest.mark.parametrize(
    "text",
    [
        r'`"\ud800"`',
        r'`["x", {"\udfff": 1}]`',
        r'`{"class": {"a": "b\ud83d"}}`',
        r'"\ud800"',
        r'lambda."a\udc00".b',
        r"`\ud800`",
    ],
)
def test_an_unpaired_surrogate_is_an_error_with_its_place(text: str) -> None:
    """No line could be encoded with it; a pair is a character."""
    with pytest.raises(ExpressionError) as error:
        compile_expression(text)
    start = min(place for place in (text.find("`"), text.find('"')) if place >= 0)

    assert (error.value.code, error.value.position) == ("IFX200", start)


def test_a_surrogate_pair_is_one_character() -> None:
    assert compile_expression(r'`"\ud83d\ude00"`').evaluate({}) == "😀"
    assert compile_expression(r'"\ud83d\ude00"').evaluate({"😀": 1}) == 1
