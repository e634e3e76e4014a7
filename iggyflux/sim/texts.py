"""JSON, CSV and times in exactly the form that servers in Go and Rust write them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from math import isfinite

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_GO_SPECIAL = re.compile("[<>&\u2028\u2029\ud800-\udfff]|\\\\.")


def go_string(text: str) -> str:
    """Return a JSON string as Go's encoding/json writes it; bytes that are not UTF-8 become U+FFFD, one by one."""
    return _GO_SPECIAL.sub(_go_escape, json.dumps(text, ensure_ascii=False))


def _go_escape(found: re.Match[str]) -> str:
    text = found[0]
    if text[0] == "\\":
        return {"\\b": "\\u0008", "\\f": "\\u000c"}.get(text, text)
    return "\\ufffd" if "\ud800" <= text <= "\udfff" else f"\\u{ord(text):04x}"


def go_float(value: float) -> str:
    """Return a JSON number as Go writes a float64: no `.0`, an exponent below 1e-6 and from 1e21."""
    if not isfinite(value):
        raise ValueError(value)
    if value == 0:
        return repr(value).removesuffix(".0")
    digits = repr(value)
    if 1e-6 <= abs(value) < 1e21:
        return plain_digits(digits)
    mantissa, _, exponent = _scientific(value).partition("e")
    return f"{mantissa}e{exponent[0]}{exponent[1:].lstrip('0')}"


def plain_digits(digits: str) -> str:
    """Return a number's shortest digits without an exponent and without `.0`."""
    if "e" not in digits and digits[-2:] == ".0":
        return digits[:-2]
    text = format(Decimal(digits), "f")
    return text.removesuffix(".0")


def _scientific(value: float) -> str:
    mantissa, _, exponent = repr(value).partition("e")
    if exponent:
        return f"{mantissa.removesuffix('.0')}e{exponent if exponent[0] in '+-' else '+' + exponent}"
    sign, numbers, shift = Decimal(repr(value)).as_tuple()
    text = "".join(map(str, numbers)).rstrip("0") or "0"
    power = len(numbers) - 1 + int(shift)
    body = text[0] + ("." + text[1:] if len(text) > 1 else "")
    return f"{'-' if sign else ''}{body}e{'+' if power >= 0 else '-'}{abs(power)}"


def go_json(value: object) -> str:
    """Return a value as Go's encoding/json writes it.

    Stored strings (bytes) and unsigned integers (`[n]` in a list) must be converted to text and integers before.
    """
    if value is None:
        return "null"
    if value is True or value is False:
        return "true" if value else "false"
    if isinstance(value, str):
        return go_string(value)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return go_float(value)
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{go_string(str(key))}:{go_json(item)}" for key, item in value.items()) + "}"
    if isinstance(value, Sequence):
        return "[" + ",".join(go_json(item) for item in value) + "]"
    raise TypeError(type(value))


def rfc3339(time_ns: int, *, zone: str = "Z") -> str:
    """Return a time with as many digits of fraction as it needs, at most nine."""
    seconds, fraction = divmod(time_ns, 10**9)
    text = (_EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S")
    if text[:1] != "1" and text[:1] != "2":  # strftime does not pad years below 1000 on every system
        text = text.rjust(19, "0")
    return text + (f".{fraction:09d}".rstrip("0") if fraction else "") + zone


def csv_cell(text: str, special: str = '",\r\n') -> str:
    """Return a CSV cell, quoted where necessary."""
    return '"' + text.replace('"', '""') + '"' if any(character in special for character in text) else text


def rust_json(value: object, number: Callable[[float], str] | None = None) -> str:
    """Return a value as serde_json writes it: floats keep `.0`, only quotes and control characters are escaped.

    `number` writes floats, by default as ryu does.
    """
    if value is None:
        return "null"
    if value is True or value is False:
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value.encode("utf-8", "replace").decode(), ensure_ascii=False)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return (number or ryu_float)(value) if isfinite(value) else "null"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{rust_json(str(key))}:{rust_json(item, number)}" for key, item in value.items()) + "}"
    if isinstance(value, Sequence):
        return "[" + ",".join(rust_json(item, number) for item in value) + "]"
    raise TypeError(type(value))


def ryu_float(value: float) -> str:
    """Return a float as serde_json and Arrow's CSV write it: an exponent below 1e-5 and from 1e16."""
    if not isfinite(value):
        return {"inf": "inf", "-inf": "-inf"}.get(repr(value), "NaN")
    if value == 0 or 1e-5 <= abs(value) < 1e16:
        return _with_point(value)
    mantissa, _, exponent = _scientific(value).partition("e")
    return f"{mantissa}e{int(exponent)}"


def arrow_float(value: float) -> str:
    """Return a float as Arrow's JSON writes it: an exponent below 1e-5 and from 1e10, and always a point."""
    if value == 0 or 1e-5 <= abs(value) < 1e10:
        return _with_point(value)
    mantissa, _, exponent = _scientific(value).partition("e")
    return f"{mantissa}{'' if '.' in mantissa else '.0'}e{int(exponent)}"


def _with_point(value: float) -> str:
    text = plain_digits(repr(value))
    return text if "." in text else f"{text}.0"


def rust_time(time_ns: int) -> str:
    """Return a time without zone and with 0, 3, 6 or 9 digits of fraction."""
    fraction = time_ns % 10**9
    text = rfc3339(time_ns - fraction, zone="")
    if not fraction:
        return text
    digits = f"{fraction:09d}"
    while digits.endswith("000"):
        digits = digits[:-3]
    return f"{text}.{digits}"


def go_duration(nanoseconds: int) -> str:
    """Return a duration as Go prints it: `168h0m0s`, `0s`."""
    if nanoseconds == 0:
        return "0s"
    seconds, fraction = divmod(nanoseconds, 10**9)
    hours, rest = divmod(seconds, 3_600)
    minutes, seconds = divmod(rest, 60)
    tail = f"{seconds}.{fraction:09d}".rstrip("0") if fraction else str(seconds)
    if hours:
        return f"{hours}h{minutes}m{tail}s"
    return f"{minutes}m{tail}s" if minutes else f"{tail}s"
