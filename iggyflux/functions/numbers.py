"""Arithmetic that is exact in decimals: a float counts as the shortest decimal that is written for it.

Integers with integers stay integers.  Everything else is calculated exactly and given as the nearest float, so
`multiply(`235`, `0.1`)` is 23.5.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from decimal import ROUND_HALF_UP, Context, Decimal, Inexact
from typing import Any, TypeAlias, cast

from iggyflux.errors import EvaluationError
from iggyflux.functions.table import ANY, MAX_DIGITS, ConstantError, Function, Parameter, cannot
from iggyflux.records import JSON

Number: TypeAlias = int | float
_MAX_BITS = MAX_DIGITS * 10 // 3
_NUMBER = ("number",)


_GUARD = "guard it: if(x != `0`, …, `null`), where x is the divisor"


def _out_of_range(name: str) -> EvaluationError:
    return EvaluationError("IFX302", f"{name}(): the result is out of range")


def _checked(name: str, value: int) -> int:
    if value.bit_length() > _MAX_BITS:
        raise _out_of_range(name)
    return value


def _shown(text: str) -> str:
    return repr(text) if len(text) <= 40 else f"{text[:40]!r}…"


def _decimal(name: str, value: Number) -> Decimal:
    if type(value) is int:
        return Decimal(_checked(name, value))
    if value - value != 0.0:
        raise EvaluationError("IFX302", f"{name}() does not accept {value!r}")
    return Decimal(repr(value))


_EXACT = Context(prec=5000, Emax=99999, Emin=-99999, traps=[Inexact])
"""Exact, or an error: sums and products of a few floats have some 700 digits, and nothing is rounded twice."""

_FINE = Context(prec=40, Emax=99999, Emin=-99999, traps=[])
_BELOW, _ABOVE = 1 - Decimal("1e-36"), 1 + Decimal("1e-36")
_ROUNDING = Context(prec=5000, Emax=99999, Emin=-99999)
_UNITS = {digits: Decimal(1).scaleb(-digits) for digits in range(-30, 31)}


def _float(name: str, value: Decimal) -> float:
    result = float(value)
    if result - result != 0.0:
        raise _out_of_range(name)
    return result


_MILLION = 10**6
_POWERS = [10.0**digits for digits in range(16)]


def _millionths(number: Number) -> int:
    """Return how many millionths a number is exactly, if it has at most 15 digits; else 0.

    The quotient of two integers below 2**53 is the float nearest to their decimal quotient, and no two decimals of 15
    digits have the same nearest float: so the shortest decimal of a float that is equal to the quotient is that one.
    """
    scaled = number * _MILLION if type(number) is int else number * 1e6
    if not -1e15 < scaled < 1e15:
        return 0
    whole = round(scaled)
    return whole if whole / 1e6 == number else 0


def _exactly(name: str, of_integers: Callable[[int, int], int], unit: int = _MILLION) -> Callable[..., Number]:
    """Return a function of two or more numbers whose decimal result is exact; Context has a method of this `name`.

    Of millionths, `of_integers` gives the result in parts of which `unit` are one.
    """

    calculate: Callable[[Decimal, Decimal], Decimal] = getattr(_EXACT, name)

    def call(first: Number, *rest: Number) -> Number:
        if type(first) is int and all(type(number) is int for number in rest):
            total = _checked(name, first)
            for number in rest:
                total = _checked(name, of_integers(total, _checked(name, cast(int, number))))
            return total
        if len(rest) == 1 and (left := _millionths(first)) and (right := _millionths(rest[0])):
            total = of_integers(left, right)
            if total:  # 0 may be -0.0
                return total / unit
        exact = _decimal(name, first)
        for number in rest:
            exact = calculate(exact, _decimal(name, number))
        return _float(name, exact)

    return call


def _divide(dividend: Number, divisor: Number) -> Number:
    if not divisor:
        raise EvaluationError("IFX302", "divide(): division by zero", hint=_GUARD)
    if type(dividend) is int and type(divisor) is int:
        quotient, rest = divmod(_checked("divide", dividend), _checked("divide", divisor))
        return quotient if not rest else _nearest("divide", dividend, divisor)
    if (left := _millionths(dividend)) and (right := _millionths(divisor)):
        return left / right
    top, bottom = _decimal("divide", dividend), _decimal("divide", divisor)
    about = _FINE.divide(top, bottom)
    below, above = float(_FINE.multiply(about, _BELOW)), float(_FINE.multiply(about, _ABOVE))
    if below == above and below - below == 0.0:  # every number between them has this nearest float
        return below
    (a, b), (c, d) = top.as_integer_ratio(), bottom.as_integer_ratio()
    return _nearest("divide", a * d, b * c)


def _nearest(name: str, numerator: int, denominator: int) -> float:
    """Return the float nearest to a fraction; Python divides integers like this."""
    try:
        return numerator / denominator
    except OverflowError:
        raise _out_of_range(name) from None


def _modulo(dividend: Number, divisor: Number) -> Number:
    if not divisor:
        raise EvaluationError("IFX302", "modulo(): division by zero", hint=_GUARD)
    if type(dividend) is int and type(divisor) is int:
        return _checked("modulo", dividend) % _checked("modulo", divisor)
    (a, b), (c, d) = (_decimal("modulo", number).as_integer_ratio() for number in (dividend, divisor))
    return _nearest("modulo", a * d % (b * c), b * d)


def _round(number: Number, digits: Any = 0) -> Number:
    if type(digits) is not int or not -30 <= digits <= 30:
        raise cannot("round", "the number of digits is not an integer from -30 to 30")
    if type(number) is int and digits >= 0:
        return number
    if 0 <= digits <= 15:
        scaled = number * _POWERS[digits]
        if -1e9 < scaled < 1e9 and not 0.4999 < scaled % 1.0 < 0.5001:  # far from a half, both ways to round agree
            return round(number, digits) if digits else round(number)
    rounded = _decimal("round", number).quantize(_UNITS[digits], ROUND_HALF_UP, _ROUNDING)
    return int(rounded) if digits <= 0 else float(rounded)


_JSON_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_LENIENT_NUMBER = re.compile(r"[+-]?(?=\.?[0-9])[0-9]*+(\.[0-9]*+)?([eE][+-]?[0-9]+)?")
_SYNTAXES = {"json": (_JSON_NUMBER, ""), "lenient": (_LENIENT_NUMBER, " \t\r\n\u00a0")}
"""How a number may be written, and the characters that may be around it."""
_FAIL: JSON = object()  # type: ignore[assignment]  # means "not given"


def _syntax(constants: Mapping[str, Any], _: int) -> dict[str, Any]:
    if "syntax" not in constants:
        return {}
    name = constants["syntax"]
    if name not in _SYNTAXES:
        raise ConstantError("syntax", f"unknown value {name!r}", "known: " + ", ".join(_SYNTAXES))
    return {"syntax": _SYNTAXES[name]}


def _parse_number(text: Any, otherwise: JSON = _FAIL, syntax: tuple[re.Pattern[str], str] = _SYNTAXES["json"]) -> JSON:
    if not isinstance(text, str):
        return text  # type: ignore[no-any-return]  # null, or a number already
    pattern, blanks = syntax
    bare = text.strip(blanks)
    found = pattern.fullmatch(bare) if len(bare) <= MAX_DIGITS else None
    if found is not None:
        value: int | float = float(bare) if found.group(1) or found.group(2) else int(bare)
        if value - value == 0:
            return value
    if otherwise is _FAIL:
        reason = f"{_shown(text)} is not a number in JSON syntax, or out of range"
        raise cannot("parse_number", reason, "parse_number(x, `null`) gives null instead")
    return otherwise


def _parse_integer(text: str, base: Any = 10) -> int:
    if type(base) is not int or not 2 <= base <= 36:
        raise cannot("parse_integer", "the base is not an integer from 2 to 36")
    if len(text) > MAX_DIGITS or not re.fullmatch(r"[+-]?[0-9A-Za-z]+", text):
        raise cannot("parse_integer", f"{_shown(text)} is not an integer")
    digits = text.lstrip("+-").lower()
    if any(int(digit, 36) >= base for digit in digits):
        raise cannot("parse_integer", f"{_shown(text)} is not an integer of base {base}")
    return int(text[0].replace("+", "").replace(digits[0], "") + digits, base)


def _bits(number: Any, first: Any, count: Any = 1) -> int:
    if any(type(value) is not int for value in (number, first, count)):
        raise cannot("bits", "the arguments are not integers")
    if number < 0 or not (0 <= first < 128 and 0 < count <= 128):
        raise cannot("bits", "expected a non-negative integer, a first bit from 0 to 127, and 1 to 128 bits")
    return int(number >> first & (1 << count) - 1)


def _arithmetic(
    name: str, description: str, body: Callable[..., Number], *rows: tuple[str, str], most: bool
) -> Function:
    first, second = (Parameter(word, _NUMBER) for word in ("a", "b"))
    parameters = (first, second, Parameter("more", _NUMBER, variadic=True, optional=True)) if most else (first, second)
    examples = tuple((expression, '{"a": 235, "b": 0.1}', result) for expression, result in rows)
    return Function(name, "numbers", description, parameters, _NUMBER, body, examples)


NUMBERS: tuple[Function, ...] = (
    _arithmetic(
        "add",
        "The sum, exact in decimals.",
        _exactly("add", lambda a, b: a + b),
        ("add(a, `1`)", "236"),
        ("add(b, `0.2`)", "0.3"),
        ("add(a, b, `1`)", "236.1"),
        ("add(a, missing)", "null"),
        most=True,
    ),
    _arithmetic(
        "subtract",
        "The difference, exact in decimals.",
        _exactly("subtract", lambda a, b: a - b),
        ("subtract(a, `300`)", "-65"),
        ("subtract(`0.3`, b)", "0.2"),
        most=False,
    ),
    _arithmetic(
        "multiply",
        "The product, exact in decimals.",
        _exactly("multiply", lambda a, b: a * b, _MILLION**2),
        ("multiply(a, b)", "23.5"),
        ("multiply(a, `2`)", "470"),
        most=True,
    ),
    _arithmetic(
        "divide",
        "The quotient: an integer if two integers divide without remainder, else the nearest float. "
        "Fails on division by zero.",
        _divide,
        ("divide(a, `10`)", "23.5"),
        ("divide(a, `5`)", "47"),
        ("divide(a, `0`)", "IFX302"),
        most=False,
    ),
    _arithmetic(
        "modulo",
        "The remainder of the division, with the sign of the divisor.",
        _modulo,
        ("modulo(a, `60`)", "55"),
        ("modulo(`-30`, `360`)", "330"),
        ("modulo(`1`, b)", "0.0"),
        most=False,
    ),
    Function(
        "round",
        "numbers",
        "The number rounded to `digits` decimals (default 0), exact in decimals, halves away from zero. "
        "Without decimals the result is an integer.",
        (Parameter("number", _NUMBER), Parameter("digits", _NUMBER, optional=True)),
        _NUMBER,
        _round,
        (
            ("round(a)", '{"a": 2.5}', "3"),
            ("round(a, `2`)", '{"a": 2.675}', "2.68"),
            ("round(a, `-2`)", '{"a": 1250}', "1300"),
            ("round(a)", '{"a": 9007199254740993}', "9007199254740993"),
        ),
    ),
    Function(
        "parse_number",
        "numbers",
        "The number in a string in JSON syntax; integers are exact. A number is returned unchanged. Any other string "
        "fails, or returns `otherwise`. `lenient` also takes blanks around it, a plus sign, leading zeros, and no "
        "digit before or after the point.",
        (
            Parameter("text", ("string", "number", "null")),
            Parameter("otherwise", optional=True),
            Parameter("syntax", ("string",), "json or lenient", optional=True, constant=True),
        ),
        ANY,
        _parse_number,
        (
            ("parse_number(a)", '{"a": "21.50"}', "21.5"),
            ("parse_number(a)", '{"a": "18446744073709551617"}', "18446744073709551617"),
            ("parse_number(a)", '{"a": "n/a"}', "IFX304"),
            ("parse_number(a, `null`)", '{"a": "n/a"}', "null"),
            ("parse_number(a, `null`, 'lenient')", '{"a": " +07.50 "}', "7.5"),
        ),
        prepare=_syntax,
        accepts_null=True,
    ),
    Function(
        "parse_integer",
        "numbers",
        "The integer that a string denotes in a base from 2 to 36 (default 10).",
        (Parameter("text", ("string",)), Parameter("base", _NUMBER, optional=True)),
        _NUMBER,
        _parse_integer,
        (
            ("parse_integer(a, `16`)", '{"a": "01ff"}', "511"),
            ("parse_integer(a)", '{"a": "-12"}', "-12"),
            ("parse_integer(a)", '{"a": "12.5"}', "IFX304"),
        ),
    ),
    Function(
        "bits",
        "numbers",
        "`count` bits (default 1) of a non-negative integer, from bit `first`; the lowest is bit 0.",
        (Parameter("number", _NUMBER), Parameter("first", _NUMBER), Parameter("count", _NUMBER, optional=True)),
        _NUMBER,
        _bits,
        (("bits(a, `0`)", '{"a": 6}', "0"), ("bits(a, `4`, `4`)", '{"a": 165}', "10")),
    ),
)
