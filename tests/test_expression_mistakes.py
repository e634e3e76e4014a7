"""What people write who know other languages, and what can never be meant: a finding, and the expression to write."""

from __future__ import annotations

import re
from typing import Any

import jmespath
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from iggyflux.errors import ExpressionError
from iggyflux.expressions import Expression, compile_expression, truth
from iggyflux.functions import FUNCTIONS
from tests.expression_cases import STANDARD, Maker

# --- operators of other languages ---

PATHS = ["lambda", '"über_1".class', '"wind speed"', "xs[0].def", "root().self"]
LITERALS = ["'NY'", "`7`", '`"x y"`']


@st.composite
def sql(draw: Any, depth: int = 2) -> tuple[str, str]:
    """A condition as SQL or another language writes it, and the same in JMESPath."""
    kind = draw(
        st.sampled_from(("compare", "null", "in", "like", "path") + ("and", "or", "not", "group") * (depth > 0))
    )
    path = draw(st.sampled_from(PATHS))
    if kind == "compare":
        literal = draw(st.sampled_from([*LITERALS, "5", "-1.5", "TRUE"]))
        right = f"`{literal.lower()}`" if literal[0] not in "'`" else literal
        written, meant = draw(
            st.sampled_from(
                [
                    ("=", "=="),
                    ("<>", "!="),
                    ("===", "=="),
                    ("!==", "!="),
                    ("==", "=="),
                    ("eq", "=="),
                    ("NE", "!="),
                    ("gt", ">"),
                ]
            )
        )
        return f"{path} {written} {literal}", f"{path} {meant} {right}"
    if kind == "null":
        word, meant = draw(
            st.sampled_from([("is null", "=="), ("IS NOT NULL", "!="), ("is not null", "!="), ("= null", "==")])
        )
        return f"{path} {word}", f"{path} {meant} `null`"
    if kind == "in":
        word, sign = draw(st.sampled_from([("in", ""), ("NOT IN", "!"), ("not in", "!")]))
        written, meant = draw(st.sampled_from([("('a', 7)", "['a', `7`]"), ("['a', 'b']", "['a', 'b']"), ("ys", "ys")]))
        return f"{path} {word} {written}", f"{sign}contains({meant}, {path})"
    if kind == "like":
        pattern, meant = draw(
            st.sampled_from(
                [
                    ("'x%'", "starts_with({}, 'x')"),
                    ("'%x'", "ends_with({}, 'x')"),
                    ("'%x.y%'", "contains({}, 'x.y')"),
                    ("'x'", "{} == 'x'"),
                    ("'a%b_'", "regex_match({}, '(?s)^a.*b.$')"),
                ]
            )
        )
        return f"{path} like {pattern}", meant.format(path)
    if kind == "path":
        return path, path
    if kind == "group":
        written, meant = draw(sql(depth - 1))
        return f"({written})", f"({meant})"
    left, right = draw(sql(depth - 1)), draw(sql(depth - 1))
    if kind == "not":
        written, meant = f"({left[0]})", f"!({left[1]})"
        return draw(st.sampled_from(["not", "NOT", "!"])) + " " * 1 + written, meant
    (written_left, left_meant), (written_right, right_meant) = ((f"({w})", f"({m})") for w, m in (left, right))
    words = {"and": (["and", "AND", "&&"], "&&"), "or": (["or", "Or", "||"], "||")}[kind]
    return f"{written_left} {draw(st.sampled_from(words[0]))} {written_right}", f"{left_meant} {words[1]} {right_meant}"


def hinted(text: str) -> str:
    """The expression that the hint for `text` tells to write."""
    with pytest.raises(ExpressionError) as caught:
        compile_expression(text)
    hint = str(caught.value.hint)

    assert hint.startswith("write "), f"{caught.value.message}: {hint}"
    return hint.removeprefix("write ")


def bare(text: str) -> str:
    """The text of an expression without what makes no difference here."""
    return re.sub(r"\s", "", text)


@settings(max_examples=400, deadline=None)
@given(case=sql())
def test_a_condition_of_another_language_is_answered_with_its_jmespath(case: tuple[str, str]) -> None:
    """The hint is an expression that compiles, and the same as the one that was meant."""
    written, meant = case
    compile_expression(meant)
    try:
        compile_expression(written)
    except ExpressionError as error:
        assume(error.code != "IFX206")  # `null` alone has a hint of its own
        assume(len(meant) <= 100)
    else:
        return

    assert bare(hinted(written)) == bare(meant)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("a is not null", "a != `null`"),
        ("a is null", "a == `null`"),
        ("a = b", "a == b"),
        ("a <> b", "a != b"),
        ("a and b", "a && b"),
        ("a or b", "a || b"),
        ("not a", "!a"),
        ("not a.b", "!(a.b)"),
        ("not a = 'x' and b = 2", "!(a == 'x') && b == `2`"),
        ("a in b", "contains(b, a)"),
        ("a in ('x', 'y')", "contains(['x', 'y'], a)"),
        ("a not in b", "!contains(b, a)"),
        ("a like 'x'", "a == 'x'"),
        ("a not like '%x'", "!ends_with(a, 'x')"),
        ("a between 1 and 5 or b", "a >= `1` && a <= `5` || b"),
        ("xs[?state = 'on' and not done].v", "xs[?state == 'on' && !done].v"),
        ("length(xs) = 3", "length(xs) == `3`"),
        ("a is not 'x'", "a != 'x'"),
        ("a matches '^x'", "regex_match(a, '^x')"),
        ("a =~ '^x'", "regex_match(a, '^x')"),
        ("a exists", "a != `null`"),
    ],
)
def test_an_operator_of_another_language_leads_to_jmespath(written: str, meant: str) -> None:
    assert hinted(written) == meant


@pytest.mark.parametrize("text", ["a is", "a like b c d", "a in", "= 5", "a = )", "a between 1", "''' = x", "a = `{"])
def test_what_cannot_be_put_right_has_no_rewriting(text: str) -> None:
    """The error is ours, with a hint or none."""
    with pytest.raises(ExpressionError):
        compile_expression(text)


# --- parts of values that have none ---

LEFT = [
    "!klass", "klass == 'x'", "klass > `1`", "(a && !b)", "`5`", "'text'", "`true`", "length(klass)", "upper(klass)",
    "meta('topic')", "to_string(@)", "[a, b]", "items(klass)", "keys(klass)", "{a: b}", "merge(klass, @)", "`[1]`",
    "contains(klass, 'x')", "add(a, b)", "xs[]", "xs[?a]", "klass.*", "xs[1:]",
]  # fmt: skip
STEPS = {
    ".lambda": "object",
    "[0]": "array",
    "[1:]": "array",
    "[*].b": "array",
    "[]": "array",
    "[?b].c": "array",
    ".*": "object",
}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("left", LEFT)
def test_a_part_of_a_value_that_never_has_it_is_refused(left: str, step: str) -> None:
    """The types of the value decide: no member of a text, a number, a boolean or a list, no element of an object."""
    types = compile_expression(left).types
    text = f"({left}){step}"
    if STEPS[step] in types:
        compile_expression(text)
        return
    with pytest.raises(ExpressionError) as caught:
        compile_expression(text)

    assert caught.value.code == "IFX215"
    assert types - {"null"}


def test_only_what_is_always_null_is_refused() -> None:
    """Whatever the document, jmespath.py gives null where the expression is rejected."""
    seen = 0
    for seed in range(4_000):
        maker = Maker(seed, STANDARD)
        text = f"({maker.expression(2)}){maker.random.choice(['.a', '[0]', '.a.b', ' | b'])}"
        try:
            compile_expression(text)
            continue
        except ExpressionError as error:
            if error.code != "IFX215" or error.position < text.rindex(")"):
                continue
        seen += 1
        try:
            value = jmespath.search(text, maker.document())
        except Exception:  # the record fails anyway
            continue

        assert value is None

    assert seen > 100


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("!a.b", "!(a.b)"),
        ("x && !a.b.c", "!(a.b.c)"),
        ("![0].b", "!([0].b)"),
        ("!a[?b]", "!(a[?b])"),
        ("xs[?!lambda.class].v", "!(lambda.class)"),
        ("!a.*", "!(a.*)"),
        ("items(a).key", "[].key"),
        ("(a == b).c", "members"),
    ],
)
def test_the_hint_says_where_parentheses_or_brackets_are_missing(text: str, hint: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        compile_expression(text)

    assert caught.value.code == "IFX215"
    assert hint in f"{caught.value.message}; {caught.value.hint}"


# --- two sides that are the same ---


@pytest.mark.parametrize("sign", ["==", "!=", "<", "<=", ">", ">=", "&&", "||"])
@pytest.mark.parametrize(
    "side", ["lambda", "a.b[0].c", "upper(klass)", "xs[?a].b", "root().x", "`1`", "@", "{a: b}", "!a", "index()"]
)
def test_a_comparison_of_a_value_with_itself_is_doubtful(side: str, sign: str) -> None:
    """It compiles, with a warning, also inside of a filter and whatever the spacing."""
    spaced = side.replace(".", " . ")
    for text in (f"{side} {sign} {side}", f"ys[?({spaced}){sign}{side}]", f"not_null(({side}){sign}({spaced}))"):
        assert "IFX222" in [warning.code for warning in compile_expression(text).warnings]


@settings(max_examples=300, deadline=None)
@given(seed=st.integers(0, 10**6), sign=st.sampled_from(["==", "!="]))
def test_a_comparison_of_different_values_is_not_doubted(seed: int, sign: str) -> None:
    """The warning means that the result is the same for every document."""
    maker = Maker(seed, STANDARD)
    left, right = maker.expression(1), maker.expression(1)
    try:
        found: Expression = compile_expression(f"({left}) {sign} ({right})")
    except ExpressionError:
        return
    if "IFX222" not in [warning.code for warning in found.warnings if warning.position == 0]:
        return
    values = set()
    for _ in range(20):
        try:
            values.add(truth(found.evaluate(maker.document())))
        except Exception:
            continue

    assert len(values) <= 1


def test_numbers_of_different_spelling_are_not_the_same_side() -> None:
    for text in ("`1` == `true`", "`1` == `1.0`", "a == b", "a.b == a.c", "a[0] == a[1]", "'a' == a"):
        assert "IFX222" not in [warning.code for warning in compile_expression(text).warnings]


def test_every_function_has_known_results_for_these_checks() -> None:
    """A function that may give anything must say so, or its members would be refused."""
    for function in FUNCTIONS.values():
        assert set(function.result or ()) <= {"null", "boolean", "number", "string", "array", "object"}


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("ns:class", '"ns:class"'),
        ("if.ns:class.x", '"ns:class"'),
        ("ns:7", '"ns:7"'),
        ("xs[?ns:class == `1`]", None),
        ("lambda{a: b}", "name.{key: value}"),
    ],
)
def test_a_colon_and_a_brace_where_an_operator_is_expected_get_a_hint(text: str, hint: str | None) -> None:
    """Names of XML and OPC UA have colons."""
    with pytest.raises(ExpressionError) as caught:
        compile_expression(text)

    assert hint is None or hint in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        *[("lenght", "length"), ("uper", "upper"), ("avgs", "avg"), ("mxa", "max"), ("starts_wiht", "starts_with")],
        *[("maximum", "max"), ("sumup", "sum"), ("parsetime", "parse_time"), ("splitt", "split")],
        *[("frobnicate", None), ("celsius", None), ("temp", None), ("site", None), ("coerce", None), ("tags", None)],
    ],
)
def test_only_a_function_of_a_similar_name_is_proposed(name: str, meant: str | None) -> None:
    with pytest.raises(ExpressionError) as raised:
        compile_expression(f"{name}(a)")

    assert raised.value.hint == (f"did you mean {meant}?" if meant else "docs/functions.md lists all functions")


@given(st.sampled_from(sorted(FUNCTIONS)).filter(lambda name: len(name) > 4), st.data())
def test_a_function_with_one_letter_too_few_is_proposed(name: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(name) - 1))
    written = name[:at] + name[at + 1 :]
    assume(written not in FUNCTIONS and written.isidentifier())
    with pytest.raises(ExpressionError) as raised:
        compile_expression(f"{written}(a)")

    assert "did you mean" in (raised.value.hint or "")
