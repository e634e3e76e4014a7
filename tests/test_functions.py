"""The functions of expressions: the examples of the table, and the corner cases that examples do not show."""

from __future__ import annotations

import contextlib
import itertools
import json
from fractions import Fraction
from typing import Any

import jmespath
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iggyflux.errors import EvaluationError, ExpressionError
from iggyflux.expressions import compile_expression
from iggyflux.functions import FUNCTIONS, GROUPS
from iggyflux.functions.reference import EXAMPLE_MESSAGE, EXAMPLE_PARENTS, EXAMPLE_TABLES, render_reference
from iggyflux.functions.table import MAX_ITEMS, MAX_TEXT


def run(text: str, **document: Any) -> Any:
    return compile_expression(text, tables=EXAMPLE_TABLES, parents=None).evaluate(document)


def code_of(text: str, **document: Any) -> str:
    with pytest.raises(EvaluationError) as caught:
        run(text, **document)
    return caught.value.code


EXAMPLES = [
    pytest.param(*example, id=f"{function.name}: {example[0]} on {example[1]}")
    for function in FUNCTIONS.values()
    for example in function.examples
]


@pytest.mark.parametrize(("text", "document", "result"), EXAMPLES)
def test_an_example_gives_its_result(text: str, document: str, result: str) -> None:
    """The examples of the table are those of the reference."""
    expression = compile_expression(text, tables=EXAMPLE_TABLES, parents=None)
    if result.startswith("IFX"):
        with pytest.raises(EvaluationError) as caught:
            expression.evaluate(json.loads(document), EXAMPLE_MESSAGE)
        assert result == caught.value.code
        return

    actual = expression.evaluate(json.loads(document), EXAMPLE_MESSAGE, parents=EXAMPLE_PARENTS)

    assert repr(json.loads(result)) == repr(actual)


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=lambda function: function.name)
def test_a_function_is_described_and_has_an_example_that_uses_it(function: Any) -> None:
    """Every entry of the table is complete."""
    assert function.examples
    assert all(f"{function.name}(" in expression for expression, _, _ in function.examples)
    assert function.description.endswith(".")
    assert function.group in GROUPS
    assert all(not later.variadic or later is function.parameters[-1] for later in function.parameters)


def test_every_standard_function_exists() -> None:
    """The tables of jmespath.py and of iggyflux have the same names and types."""
    theirs = jmespath.functions.Functions.FUNCTION_TABLE

    ours = {name: function for name, function in FUNCTIONS.items() if function.builtin}
    assert set(theirs) == set(ours)
    for name, spec in theirs.items():
        assert [tuple(p["types"]) for p in spec["signature"]] == [p.types for p in ours[name].parameters]
        assert [bool(p.get("variadic")) for p in spec["signature"]] == [p.variadic for p in ours[name].parameters]


def test_the_reference_shows_every_function() -> None:
    """docs/functions.md is generated from the table."""
    page = render_reference()

    assert all(f"### `{name}`" in page for name in FUNCTIONS)
    assert all(f"## {group.capitalize()}\n" in page for group in GROUPS)


ADDED = [f for f in FUNCTIONS.values() if f.propagates_null and f.parameters]


@pytest.mark.parametrize("function", ADDED, ids=lambda function: function.name)
def test_an_added_function_gives_null_for_null(function: Any) -> None:
    """A missing member leads to a missing tag or field, calculated or not."""
    expression = next(example[0] for example in function.examples if example[1] != "{}")

    result = compile_expression(expression, tables=EXAMPLE_TABLES, parents=None).evaluate({})

    assert result is None


# --- numbers ---


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("multiply(`235`, `0.1`)", 23.5),
        ("add(`0.1`, `0.2`)", 0.3),
        ("subtract(`1.1`, `1`)", 0.1),
        ("divide(`1`, `3`)", 1 / 3),
        ("divide(`6`, `3`)", 2),
        ("divide(`6.0`, `3`)", 2.0),
        ("divide(`0.3`, `0.1`)", 3.0),
        ("add(`9007199254740993`, `1`)", 9007199254740994),
        ("add(`9007199254740993`, `1.0`)", 9007199254740994.0),
        ("add(`1e308`, `-1e308`, `5e-324`)", 5e-324),
        ("multiply(`1e308`, `1e-308`)", 1.0),
        ("multiply(`5e-324`, `0.1`)", 0.0),
        ("modulo(`0.3`, `0.1`)", 0.0),
        ("modulo(`-1`, `3`)", 2),
        ("modulo(`7`, `-3`)", -2),
        ("modulo(`7.5`, `2`)", 1.5),
        ("round(`-2.5`)", -3),
        ("round(`0.5`)", 1),
        ("round(`1.005`, `2`)", 1.01),
        ("round(`12345678901234567890`, `-1`)", 12345678901234567890),
        ("round(`15`, `-1`)", 20),
        ("round(`1e308`, `2`)", 1e308),
        ("round(`5e-324`, `2`)", 0.0),
        ("round(`7`, `2`)", 7),
        ("floor(`9007199254740993`)", 9007199254740993),
        ("ceil(`-9007199254740993`)", -9007199254740993),
        ("parse_number('-0')", 0),
        ("parse_number('-0.0')", -0.0),
        ("parse_number('1e3')", 1000.0),
        ("parse_number(`7`)", 7),
        ("parse_number(`null`)", None),
        ("parse_number('7', `null`)", 7),
        ("parse_integer('+7')", 7),
        ("parse_integer('-zz', `36`)", -1295),
        ("parse_integer('0')", 0),
    ],
)
def test_arithmetic_is_exact(text: str, expected: Any) -> None:
    """Rule 8.  A float counts as its shortest decimal; integers stay integers."""
    assert repr(expected) == repr(run(text))


@pytest.mark.parametrize(
    "text",
    [
        "divide(`1`, `0`)",
        "divide(`1.5`, `0.0`)",
        "modulo(`1`, `0`)",
        "modulo(`1.5`, `0`)",
        "multiply(`1e308`, `10`)",
        "divide(`1e308`, `1e-10`)",
        "add(to_number('1e400'), `1`)",
        "round(to_number('1e400'))",
        "add(`1" + "0" * 500 + "`, `1`)",
        "multiply(`1" + "0" * 300 + "`, `1" + "0" * 300 + "`)",
    ],
)
def test_a_calculation_without_a_result_fails(text: str) -> None:
    """Rule 8.  Division by zero, infinities, and numbers that are too long."""
    assert code_of(text) == "IFX302"


@pytest.mark.parametrize(
    "text", ["", " 1", "1 ", "+1", "01", "1.", ".5", "1_000", "0x10", "NaN", "Infinity", "1e400", "١"]
)
def test_a_number_is_read_in_json_syntax(text: str) -> None:
    """Rule 17.  Without trimming or guessing."""
    assert code_of("parse_number(a)", a=text) == "IFX304"
    assert run("parse_number(a, 'none')", a=text) == "none"


@pytest.mark.parametrize("text", ["", "+", "+-1", "1 ", "1_0", "0x1", "12a", "１"])
def test_an_integer_is_digits_and_a_sign(text: str) -> None:
    """Python's looser rules do not apply."""
    assert code_of("parse_integer(a)", a=text) == "IFX304"


decimals = st.builds(lambda whole, digits: whole / 10**digits, st.integers(-(10**17), 10**17), st.integers(0, 9))
"""As sensors give them: a few digits, of which some are decimals."""
counters = st.floats(1e8, 1e11)
"""With more digits than are certain."""
reals = st.one_of(st.integers(-(10**20), 10**20), st.floats(allow_nan=False, allow_infinity=False), decimals, counters)
halves = st.builds(
    lambda whole, digits: ((2 * whole + 1) / (2 * 10**digits), digits), st.integers(-9999, 9999), st.integers(0, 9)
)
"""A number, and the digits to which it is rounded in the middle between two."""


def exact(number: Any) -> Fraction:
    return Fraction(repr(number)) if isinstance(number, float) else Fraction(number)


def nearest(value: Fraction) -> Any:
    try:
        return float(value)
    except OverflowError:
        return None


@settings(max_examples=500)
@given(a=reals, b=reals)
def test_arithmetic_is_that_of_fractions(a: Any, b: Any) -> None:
    """Rule 8.  Compared with exact rational arithmetic: the same integer, or the nearest float."""
    operations = {"add": exact(a) + exact(b), "subtract": exact(a) - exact(b), "multiply": exact(a) * exact(b)}
    if b:
        operations |= {"divide": exact(a) / exact(b), "modulo": exact(a) % exact(b)}
    whole = isinstance(a, int) and isinstance(b, int)
    for name, expected in operations.items():
        want = int(expected) if whole and expected.denominator == 1 else nearest(expected)
        if want is None:
            assert code_of(f"{name}(a, b)", a=a, b=b) == "IFX302"
            continue
        got = run(f"{name}(a, b)", a=a, b=b)
        assert (type(want), want) == (type(got), got), name


@settings(max_examples=400)
@given(st.one_of(st.tuples(reals, st.integers(-30, 30)), halves))
def test_rounding_is_exact_in_decimals(drawn: tuple[Any, int]) -> None:
    """Halves are rounded away from zero."""
    number, digits = drawn
    unit = Fraction(10) ** -digits
    scaled = abs(exact(number)) / unit
    rounded = (scaled + Fraction(1, 2)).__floor__() * unit * (-1 if number < 0 else 1)
    want = int(rounded) if rounded.denominator == 1 and (digits <= 0 or isinstance(number, int)) else float(rounded)

    got = run("round(a, b)", a=number, b=digits)

    assert (type(want), want) == (type(got), got)


# --- text ---


def test_limits_keep_one_payload_from_filling_the_memory() -> None:
    """A result that would exceed the limit fails before it is made."""
    long = "x" * (MAX_TEXT // 8)
    many = [long] * 9

    assert code_of("replace(a, 'x', '1234567890')", a=long) == "IFX303"
    assert code_of("join(',', a)", a=many) == "IFX303"
    assert code_of("join(a, b)", a=long, b=["x"] * 10) == "IFX303"
    assert code_of(f"regex_replace(a, 'x{{100}}', '{'y' * 1000}')", a=long) == "IFX303"
    assert code_of("split(a, 'x')", a=long) == "IFX303"
    assert code_of("bytes(a)", a="AAAA" * (MAX_ITEMS // 3 + 1)) == "IFX303"
    assert code_of("enumerate(a)", a=[0] * (MAX_ITEMS + 1)) == "IFX303"
    assert code_of("zip(a, a)", a=[0] * (MAX_ITEMS // 2 + 1)) == "IFX303"
    assert code_of("parse_json(a)", a="[" * 129 + "]" * 129) == "IFX303"
    assert code_of("parse_json(a)", a="[" * 9000 + "]" * 9000) == "IFX303"
    assert run("parse_json(a)", a="[" * 128 + "]" * 128) is not None
    assert code_of("format('{}{}{}{}{}{}{}{}{}', a, a, a, a, a, a, a, a, a)", a=long) == "IFX303"


def test_a_hostile_pattern_takes_linear_time() -> None:
    """Rule 8.  A payload must not stop a partition."""
    text = "a" * 5000

    assert run("regex_match(a, '^(a+)+$')", a=text + "b") is False
    assert run("regex_match(a, '^(a|a?)+$')", a=text) is True


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("regex_replace('abc', '', '-')", "-a-b-c-"),
        ("regex_replace('a1b2', '[0-9]', '')", "ab"),
        (r"regex_replace('x', '(a)|x', '[\1]')", "[]"),
        (r"regex_replace('a', 'a', '\\')", "\\"),
        (r"regex_replace('aé🎉b', '(?P<e>🎉)', '<\g<e>>')", "aé<🎉>b"),
        ("regex_capture('aé🎉b', '🎉(.)')", "b"),
        ("regex_capture('b', '(a)?b')", None),
        ("regex_capture('ab', 'a(b)', `0`)", "ab"),
        ("regex_groups('b', '(?P<y>b)(?P<x>a)?')", {"y": "b", "x": None}),
        ("regex_groups('', '(?P<x>a)')", None),
        ("format('{{}} {}', `1.0`)", "{} 1.0"),
        ("format('{}', `[\"é\", null]`)", '["é",null]'),
        ("format('plain')", "plain"),
        ("split('', ',')", [""]),
        ("split('a,b,c', ',', `1`)", ["a,b,c"]),
        ("substring('abc', `-5`, `4`)", "abc"),
        ("substring('abc', `1`, `0`)", ""),
        ("lower('İ')", "i̇"),
        ("trim('\u00a0x\t')", "x"),
        ("trim('--x-', '-')", "x"),
        ("parse_json('18446744073709551616')", 18446744073709551616),
        ("zip(`[1]`, `[]`)", []),
        ("items(`{}`)", []),
        ("lookup('sites', `7`)", "Oslo"),
        ("lookup('sites', `true`, 'none')", "none"),
        ("lookup('sites', `null`, 'none')", "none"),
        ("lookup('sites', `null`)", None),
        ("coalesce(`null`, `false`)", False),
        ("if(`0`, 'true', 'false')", "true"),
        ("if(`\"\"`, 'true')", None),
    ],
)
def test_corner_cases_of_functions(text: str, expected: Any) -> None:
    """Cases that the examples of the reference omit."""
    assert repr(expected) == repr(run(text))


@pytest.mark.parametrize(
    ("text", "document"),
    [
        ("split(a, ',', `0`)", {"a": ""}),
        ("split(a, ',', `1.5`)", {"a": ""}),
        ("substring(a, `1.0`)", {"a": ""}),
        ("substring(a, `0`, `-1`)", {"a": ""}),
        ("round(a, `0.5`)", {"a": 1.5}),
        ("round(a, `31`)", {"a": 1.5}),
        ("bits(a, `0`)", {"a": -1}),
        ("bits(a, `0`)", {"a": 1.0}),
        ("bits(a, `128`)", {"a": 1}),
        ("parse_integer(a, `1`)", {"a": "1"}),
        ("base64_decode(a)", {"a": "/w=="}),
        ("base64_decode(a)", {"a": "é"}),
        ("hex_decode(a)", {"a": "ff"}),
        ("bytes(a, 'hex')", {"a": "f f"}),
        ("hash(a)", {"a": "\ud800"}),
        ("regex_match(a, 'x')", {"a": "\ud800"}),
        ("date_part('year', a)", {"a": 1.0}),
        ("from_items(a)", {"a": [{"key": 1}]}),
    ],
)
def test_values_that_a_function_cannot_use_fail(text: str, document: Any) -> None:
    """The right type with the wrong content."""
    assert code_of(text, **document) == "IFX304"


@pytest.mark.parametrize(
    ("text", "document"),
    [
        ("format_time(a, '%Y')", {"a": 10**30}),
        ("date_part('year', a)", {"a": -(10**30)}),
        ("parse_time(a, 'unix_s')", {"a": 1e300}),
    ],
)
def test_times_out_of_range_fail_with_the_code_of_the_cause(text: str, document: Any) -> None:
    assert code_of(text, **document) == "IFX322"


@pytest.mark.parametrize(
    ("text", "marked"),
    [
        ("regex_match(a, '(a')", "'(a'"),
        (r"regex_match(a, '(a)\1')", r"'(a)\1'"),
        ("regex_capture(a, 'x', `1`)", "`1`"),
        ("regex_groups(a, '(x)')", "'(x)'"),
        (r"regex_replace(a, 'x', '\1')", r"'\1'"),
        ("regex_match(a, b)", "b"),
        ("format('{', a)", "'{'"),
        ("format('{}', a, b)", "'{}'"),
        ("format_time(a, 'rfc3339', 'Europe/Berlin')", "'Europe/Berlin'"),
        ("format_time(a, '%Z')", "'%Z'"),
        ("parse_time(a, '%H')", "'%H'"),
        ("parse_time(a, 'unix')", "'unix'"),
        ("date_part('hour', a, 'Mars')", "'Mars'"),
        ("hash(a, 'md6')", "'md6'"),
        ("bytes(a, 'hexx')", "'hexx'"),
    ],
)
def test_an_invalid_constant_is_an_error_of_the_text(text: str, marked: str) -> None:
    """The error is at the argument."""
    with pytest.raises(ExpressionError) as caught:
        compile_expression(text)
    error = caught.value

    assert error.code in ("IFX212", "IFX209")
    assert marked == text[error.position : error.position + error.length]


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=lambda function: function.name)
def test_a_literal_of_any_type_compiles_or_is_rejected(function: Any) -> None:
    """Literals in every place give an expression, or an error of iggyflux."""
    literals = ["'x'", "`null`", "`1.5`", "`[[]]`", "''", "`true`", "`0`", "`-1`", "'('", "'%'", "'\\'", "`{}`"]
    for count in range(function.least, min(len(function.parameters), 3) + 1):
        for arguments in itertools.product(literals[:4] if count > 2 else literals, repeat=count):
            with contextlib.suppress(ExpressionError, EvaluationError):
                run(f"{function.name}({', '.join(arguments)})")


def test_arguments_that_are_not_needed_are_not_evaluated() -> None:
    """`if` and `coalesce` stop when the result is known."""
    assert run("if(is_string(a), 'text', abs(a))", a="x") == "text"
    assert run("coalesce(a, abs(b))", a=1, b="x") == 1
    assert run("if(`false`, abs(a), 'ok')", a="x") == "ok"


@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_encodings_round_trip(text: str) -> None:
    """base64 and hexadecimal digits lose nothing."""
    assert run("base64_decode(base64_encode(a))", a=text) == text
    assert run("hex_decode(hex_encode(a))", a=text) == text
    assert run("bytes(base64_encode(a))", a=text) == list(text.encode())


@given(value=st.dictionaries(st.text(), st.one_of(st.none(), st.integers(), st.text())))
def test_items_round_trip(value: dict[str, Any]) -> None:
    """An object equals the object made of its items."""
    assert run("from_items(items(a))", a=value) == value
    assert run("zip_object(keys(a), values(a))", a=value) == value
