"""The types of fields and the text of tags: which JSON value has which type, exactly (LANGUAGE 11-14, 17).

Both plans use this module, and so does the check of defaults when a document is compiled.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal
from enum import Enum
from typing import Literal, TypeAlias

from iggyflux.errors import RecordError
from iggyflux.lineprotocol import MAX_INTEGER, MAX_UNSIGNED, MIN_INTEGER, Unsigned, shorten
from iggyflux.records import JSON, Scalar

WRONG_TYPE = "IFX340"
OUT_OF_RANGE = "IFX341"
INEXACT = "IFX342"

EXACT_INTEGERS = 2**53
"""Beyond this bound not every integer has a double of its own."""

_JSON_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?", re.ASCII)
_JSON_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]*)", re.ASCII)
_COMMA_NUMBER = re.compile(r"-?(?!\d{1,3},\d{3}\Z)(?:0|[1-9][0-9]*),[0-9]+", re.ASCII)
"""A number with a decimal comma that is not taken for one with a comma between thousands."""
_LONGEST_BUCKET = 255
_LONGEST_NUMBER = 400
"""The most characters of a number that `cast` reads; a double needs at most 327, a uint64 20."""


_FRACTION = re.compile(rb"(?<![\d.])\d[\d.]*+(?:[eE][+-]?\d++)?")
_LONG = re.compile(rb"(?<![\d.])\d(?:(?=[\d.]{15})\d*+\.|[\d.]{8,}+[eE])")


_NO_VALUES = frozenset({"n/a", "na", "none", "null", "nil", "nan", "-", "--", "?"})
_NO_VALUES |= {"unavailable", "unknown", "err", "error", "inf", "-inf", "infinity", "-infinity"}


def stands_for_none(text: str) -> bool:
    """Return whether `text` is what programs send where a number is expected and there is none, such as `n/a`."""
    plain = text.strip().lower()
    return plain in _NO_VALUES or not any(map(str.isalnum, plain))


OnBadValue: TypeAlias = Literal["fail", "omit"]
"""What happens to a value that its field cannot hold (LANGUAGE 17)."""

Cast: TypeAlias = "bool | Literal['numbers', 'comma', 'numbers, comma']"
"""Whether values are converted; `numbers`, which only `auto` has, converts numbers in strings and nothing else.

With `comma`, numbers in strings have a decimal comma.
"""

_COMMA = ("comma", "numbers, comma")


def with_comma(cast: Cast) -> Cast:
    """Return `cast` for strings in which numbers have a decimal comma."""
    return "comma" if cast is True else "numbers, comma" if cast == "numbers" else cast


class FieldType(Enum):
    """The declared type of a field; `auto` takes numbers as float, `payload` as the payload has them (LANGUAGE 11)."""

    FLOAT = "float"
    INTEGER = "integer"
    UNSIGNED = "unsigned"
    STRING = "string"
    BOOLEAN = "boolean"
    AUTO = "auto"
    PAYLOAD = "payload"


KEEPS_NUMBERS = frozenset({FieldType.INTEGER, FieldType.UNSIGNED, FieldType.STRING})
"""Types to which a cast must convert a number as it is written; a float is the nearest double by definition."""


def rounded_numbers(text: bytes, kind: FieldType) -> frozenset[float]:
    """Return the whole doubles that are another number in `text`, which is JSON, such as 9007199254740993.0.

    Decoding keeps only the nearest double of a number with a fraction or an exponent.  A cast to `kind` must not change
    the number, so it checks for these.  As a string a double is its shortest decimal, as an integer its exact value.
    """
    if not may_round(text):
        return frozenset()
    found: set[float] = set()
    for token in map(bytes.decode, _FRACTION.findall(text)):
        if len(token) <= _LONGEST_NUMBER and not token.isdigit():
            with suppress(ArithmeticError, ValueError):
                value = float(token)
                kept = Decimal(repr(value)) if kind is FieldType.STRING else Decimal(value)
                if value.is_integer() and Decimal(token) != kept:
                    found.update((value, -value))
    return frozenset(found)


def may_round(text: bytes) -> bool:
    """Return whether `rounded_numbers` may find a number below 2**64.

    Such a number has 16 digits, or 9 and an exponent.
    """
    return _LONG.search(text) is not None


def describe(value: JSON) -> str:
    """Return a value as messages describe it: its JSON type and, of a scalar, the value itself, shortened.

    Elements and members are not counted: those that no path reads are not decoded.
    """
    if value is None:
        return "null"
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, str):
        return f"string {shorten(value)}"
    if isinstance(value, bool):
        return f"boolean {'true' if value else 'false'}"
    if isinstance(value, int) and value.bit_length() > 200:
        return f"an integer of {value.bit_length()} bits"
    return f"number {value!r}"


_NUMBERS = frozenset({FieldType.FLOAT, FieldType.INTEGER, FieldType.UNSIGNED})


def convert(value: JSON, kind: FieldType, cast: Cast, on_bad_value: OnBadValue | None = None) -> Scalar:
    """Return `value` (not null) as a field value of type `kind`; an `Unsigned` for unsigned.

    Raise RecordError for a wrong type, a number out of range, or one that the type cannot hold exactly; its hint names
    what the field would have to declare.  `on_bad_value` is what the field declares; None if it must have a value.
    An unsigned integer of a payload is unsigned for `payload` alone.
    """
    if type(value) is Unsigned and kind is not FieldType.PAYLOAD:
        value = int(value)
    try:
        return _CONVERSIONS[kind](value, cast)
    except RecordError as error:
        error.hint = _hint(value, kind, cast, on_bad_value)
        raise


def _hint(value: JSON, kind: FieldType, cast: Cast, on_bad_value: OnBadValue | None) -> str | None:
    """Return what a field of type `kind` would have to declare for `value`."""
    if isinstance(value, (dict, list)):
        return _part_hint(value)
    hints = []
    if not cast and _accepts(value, kind, cast=True):
        hints.append("add `cast: true`")
    elif isinstance(value, str) and kind in _NUMBERS and on_bad_value == "fail" and (cast or stands_for_none(value)):
        hints.append("set `on_bad_value: omit`" + ("" if cast else " (with `cast: true` where numbers are in strings)"))
    if not (isinstance(value, str) and on_bad_value == "omit"):  # numbers are meant
        types = [other.value for other in _OWN_TYPES[type(value)] if _accepts(value, other, cast)]
        hints += [f"declare `type: {name}`" for name in types[:1]]
    return ", or ".join(hints) or None


def comma_hint(value: JSON, kind: FieldType, cast: Cast) -> str | None:
    """Return the hint for a cell with a decimal comma, where a number is expected and cells have a decimal point."""
    if kind not in _NUMBERS or cast in _COMMA or not isinstance(value, str) or not _COMMA_NUMBER.fullmatch(value):
        return None
    return "set `decimal: ','` of the payload" + ("" if cast else ", and add `cast: true`")


def _part_hint(value: JSON) -> str:
    if isinstance(value, dict):
        return "select one of its members, or all of them with `*`"
    return "select an element, such as x[0], or make points of the elements with `for_each`"


def _accepts(value: JSON, kind: FieldType, cast: Cast) -> bool:
    try:
        _CONVERSIONS[kind](value, cast)
    except RecordError:
        return False
    return True


def tag_text(value: JSON) -> str | None:
    """Return the text of a tag: strings as they are, integers decimal, booleans `true`/`false`, floats as `repr`.

    Return None for null and the empty string.  Raise RecordError for an object or a list.
    """
    if value is None or value == "":
        return None
    if isinstance(value, str):
        return value
    if isinstance(value, (list, dict)):
        reason = f"expected a string, number or boolean as tag, found {describe(value)}"
        raise RecordError(WRONG_TYPE, reason, hint=_part_hint(value))
    return scalar_text(value)


def bucket_fault(value: JSON) -> str | None:
    """Return why `value` cannot be the name of a bucket or database; None if it can."""
    if not isinstance(value, str):
        return f"expected a string as the name of a bucket, found {describe(value)}"
    if not value.isprintable() or len(value.encode()) > _LONGEST_BUCKET:
        return f"the name of a bucket has a control character, or more than {_LONGEST_BUCKET} bytes"
    return None


def scalar_text(value: bool | float) -> str:
    """Return a number or boolean as text (LANGUAGE 14)."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        if value.bit_length() > 4096:
            raise RecordError(OUT_OF_RANGE, f"{describe(value)} is too long for text")
        return int.__repr__(value)
    _finite(value)
    return repr(value)


def _wrong(value: JSON, expected: str) -> RecordError:
    return RecordError(WRONG_TYPE, f"expected {expected}, found {describe(value)}")


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise RecordError(OUT_OF_RANGE, f"{value!r} is not a finite number")
    return value


def _json_number(text: str, cast: Cast) -> str:
    """Return `text` with a point for its decimal comma, if numbers have one; it need not be a number."""
    return text.translate(_SWAPPED) if cast in _COMMA else text


_SWAPPED = str.maketrans(",.", ".,")
"""With a decimal comma, a number cannot contain a point, and without it no comma."""


def _number(text: str, expected: str, cast: Cast) -> int | float:
    """Return the number that `text` is in JSON syntax; integers are exact."""
    given, text = text, _json_number(text, cast)
    if len(text) > _LONGEST_NUMBER or not _JSON_NUMBER.fullmatch(text):
        raise _wrong(given, f"{expected} in JSON syntax{' with a decimal comma' if cast in _COMMA else ''}")
    return int(text) if _JSON_INTEGER.fullmatch(text) else float(text)


def _float(value: JSON, cast: Cast) -> float:
    if isinstance(value, float):
        return _finite(value)
    if isinstance(value, int) and not isinstance(value, bool):
        try:
            nearest = float(value)
        except OverflowError:
            nearest = math.inf
        if nearest != value:
            raise RecordError(INEXACT, f"integer {describe(value)[7:]} cannot be stored exactly as a float")
        return nearest
    if isinstance(value, str) and cast:
        return _float(_number(value, "a number", cast), False)
    raise _wrong(value, "a number")


def _whole(value: JSON, cast: Cast, expected: str) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return int(value)
    if isinstance(value, str) and cast:
        return _whole_text(value, expected, cast)
    if isinstance(value, float) and cast:
        if not _finite(value).is_integer():
            raise RecordError(INEXACT, f"{value!r} is not a whole number")
        return int(value)
    raise _wrong(value, expected)


def _whole_text(text: str, expected: str, cast: Cast) -> int:
    """Return the whole number that `text` is, without a double: "9007199254740993.0" keeps its last digit."""
    number = _number(text, expected, cast)
    if isinstance(number, int):
        return number
    text = _json_number(text, cast)
    if not _finite(number).is_integer():
        raise RecordError(INEXACT, f"{text!r} is not a whole number")
    exact = Decimal(text)
    if exact != exact.to_integral_value():
        raise RecordError(INEXACT, f"{text!r} is not a whole number")
    return int(exact)


def _integer(value: JSON, cast: Cast) -> int:
    number = _whole(value, cast, "an integer")
    if not MIN_INTEGER <= number <= MAX_INTEGER:
        raise RecordError(OUT_OF_RANGE, f"{describe(number)} is outside int64")
    return number


def _unsigned(value: JSON, cast: Cast) -> Unsigned:
    number = _whole(value, cast, "an unsigned integer")
    if not 0 <= number <= MAX_UNSIGNED:
        raise RecordError(OUT_OF_RANGE, f"{describe(number)} is outside uint64")
    return Unsigned(number)


def _string(value: JSON, cast: Cast) -> str:
    if isinstance(value, str):
        return value
    if cast and isinstance(value, (bool, int, float)):
        return scalar_text(value)
    raise _wrong(value, "a string")


def _boolean(value: JSON, cast: Cast) -> bool:
    if isinstance(value, bool):
        return value
    if cast and value in ("true", "false"):
        return value == "true"
    raise _wrong(value, "a boolean")


def _auto(value: JSON, cast: Cast) -> float | str | bool:
    if cast and isinstance(value, str):
        if cast in (True, "comma") and value in ("true", "false"):
            return value == "true"
        return _float(value, cast) if _JSON_NUMBER.fullmatch(_json_number(value, cast)) else value
    if isinstance(value, (str, bool)):
        return value
    if isinstance(value, (int, float)):
        return _float(value, cast)
    raise _wrong(value, "a number, string or boolean")


def _payload(value: JSON, cast: Cast) -> Scalar:
    if isinstance(value, (str, bool, Unsigned)):
        return value
    if isinstance(value, float):
        return _finite(value)
    if isinstance(value, int):
        return _integer(value, cast)
    raise _wrong(value, "a number, string or boolean")


_CONVERSIONS: dict[FieldType, Callable[[JSON, Cast], Scalar]] = {
    FieldType.FLOAT: _float,
    FieldType.INTEGER: _integer,
    FieldType.UNSIGNED: _unsigned,
    FieldType.STRING: _string,
    FieldType.BOOLEAN: _boolean,
    FieldType.AUTO: _auto,
    FieldType.PAYLOAD: _payload,
}

_OWN_TYPES: dict[type, tuple[FieldType, ...]] = {
    str: (FieldType.STRING,),
    bool: (FieldType.BOOLEAN,),
    int: (FieldType.INTEGER, FieldType.UNSIGNED),
    float: (FieldType.FLOAT,),
}
"""The types that take each class of values as they are."""
