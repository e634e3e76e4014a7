"""Functions on strings; `MAX_TEXT` bounds what they make, whatever the payload contains."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from iggyflux.errors import EvaluationError, counted
from iggyflux.functions.table import (
    MAX_DEPTH,
    MAX_TEXT,
    ConstantError,
    Function,
    Parameter,
    cannot,
    check_count,
    check_size,
)
from iggyflux.records import JSON

_TEXT = Parameter("text", ("string",))
_CHARACTERS = Parameter("characters", ("string",), "the characters to remove; default whitespace", optional=True)


def _split(text: str, separator: str, most: Any = None) -> list[str]:
    if not separator:
        raise cannot("split", "the separator is empty")
    if most is None:
        check_count("split", text.count(separator) + 1)
        return text.split(separator)
    if type(most) is not int or most < 1:
        raise cannot("split", "the largest number of parts is not an integer above 0")
    check_count("split", min(most, text.count(separator) + 1))
    return text.split(separator, min(most, MAX_TEXT) - 1)


def _replace(text: str, old: str, new: str) -> str:
    if not old:
        raise cannot("replace", "the string to replace is empty")
    if len(new) > len(old):
        check_size("replace", len(text) + text.count(old) * (len(new) - len(old)))
    return text.replace(old, new)


def _substring(text: str, start: Any, length: Any = None) -> str:
    if type(start) is not int or (length is not None and (type(length) is not int or length < 0)):
        raise cannot("substring", "expected integers as start and length, and a length that is not negative")
    first = max(start + len(text), 0) if start < 0 else start
    return text[first:] if length is None else text[first : first + length]


_PLACE = re.compile(r"\{\{|\}\}|\{\}|[{}]")


def _read_pattern(constants: Mapping[str, Any], count: int) -> dict[str, Any]:
    """Return the texts before, between and after the placeholders of a pattern."""
    parts, position, pattern = [""], 0, constants["pattern"]
    for found in _PLACE.finditer(pattern):
        parts[-1] += pattern[position : found.start()]
        position = found.end()
        sign = found.group()
        if sign == "{}":
            parts.append("")
        elif len(sign) == 2:
            parts[-1] += sign[0]
        else:
            hint = "write {} for a placeholder, {{ and }} for braces"
            raise ConstantError("pattern", f"unmatched {sign} in the pattern", hint)
    parts[-1] += pattern[position:]
    if len(parts) != count:
        places = f"{counted(len(parts) - 1, 'placeholder')} for {counted(count - 1, 'value')}"
        raise ConstantError("pattern", f"the pattern has {places}")
    return {"pattern": parts}


_ENCODE = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


def text_of(value: JSON) -> str:
    """Return a string as it is, any other value as JSON."""
    return value if isinstance(value, str) else _ENCODE(value)


def _format(parts: list[str], *values: JSON) -> str:
    texts = [text_of(value) for value in values]
    check_size("format", sum(map(len, parts)) + sum(map(len, texts)))
    return "".join(part for pair in zip(parts, [*texts, ""], strict=True) for part in pair)


def _parse_json(text: str) -> JSON:
    try:
        value: JSON = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError) as error:
        raise cannot("parse_json", "the string is not JSON") from error
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        level = [part for whole in level for part in _parts(whole)]
        if not level:
            return value
    raise EvaluationError("IFX303", f"parse_json(): the value is nested more than {MAX_DEPTH} levels deep")


def _parts(value: Any) -> Iterable[Any]:
    """Return the objects and lists in an object or a list."""
    if not isinstance(value, dict | list):
        return ()
    return [part for part in (value.values() if isinstance(value, dict) else value) if isinstance(part, dict | list)]


def _case(name: str, description: str, *example: str) -> Function:
    body = getattr(str, name)

    def call(text: str) -> str:
        check_size(name, 3 * len(text))  # one character may become three
        return str(body(text))

    before, after = example
    return Function(
        name,
        "text",
        description,
        (_TEXT,),
        ("string",),
        call,
        ((f"{name}(a)", json.dumps({"a": before}, ensure_ascii=False), json.dumps(after, ensure_ascii=False)),),
    )


def _trim(name: str, body: Any, where: str, result: str) -> Function:
    return Function(
        name,
        "text",
        f"The string without whitespace, or without the given characters, {where}.",
        (_TEXT, _CHARACTERS),
        ("string",),
        body,
        ((f"{name}(a)", '{"a": "  x y "}', json.dumps(result)), (f"{name}(a, '-')", '{"a": "x"}', '"x"')),
    )


TEXT: tuple[Function, ...] = (
    _case("lower", "The string in lower case.", "Ok ÄÖ", "ok äö"),
    _case("upper", "The string in upper case.", "Ok äö", "OK ÄÖ"),
    _trim("trim", str.strip, "at both ends", "x y"),
    _trim("trim_left", str.lstrip, "at its start", "x y "),
    _trim("trim_right", str.rstrip, "at its end", "  x y"),
    Function(
        "split",
        "text",
        "The parts between the separators; with `most`, at most that many parts, the last of which is the rest.",
        (_TEXT, Parameter("separator", ("string",)), Parameter("most", ("number",), optional=True)),
        ("array",),
        _split,
        (
            ("split(a, '/')", '{"a": "plant/hall/7"}', '["plant", "hall", "7"]'),
            ("split(a, '/', `2`)", '{"a": "plant/hall/7"}', '["plant", "hall/7"]'),
            ("split(a, '')", '{"a": "xy"}', "IFX304"),
        ),
    ),
    Function(
        "replace",
        "text",
        "The string with every `old` replaced by `new`.",
        (_TEXT, Parameter("old", ("string",)), Parameter("new", ("string",))),
        ("string",),
        _replace,
        (("replace(a, ',', '.')", '{"a": "21,5"}', '"21.5"'), ("replace(a, '', 'x')", '{"a": "y"}', "IFX304")),
    ),
    Function(
        "substring",
        "text",
        "`length` characters from `start` (default: to the end); a negative `start` counts from the end.",
        (_TEXT, Parameter("start", ("number",)), Parameter("length", ("number",), optional=True)),
        ("string",),
        _substring,
        (
            ("substring(a, `0`, `3`)", '{"a": "sensor-7"}', '"sen"'),
            ("substring(a, `-1`)", '{"a": "sensor-7"}', '"7"'),
            ("substring(a, `99`)", '{"a": "sensor-7"}', '""'),
        ),
    ),
    Function(
        "format",
        "text",
        "The pattern with each `{}` replaced by the next value: a string unchanged, other values as JSON. `{{` is `{`.",
        (Parameter("pattern", ("string",), constant=True), Parameter("values", variadic=True, optional=True)),
        ("string",),
        _format,
        (
            ("format('{}-{}', a, b)", '{"a": "x", "b": 7}', '"x-7"'),
            ("format('{{{}}}', a)", '{"a": true}', '"{true}"'),
            ("format('{}', a)", "{}", "null"),
        ),
        prepare=_read_pattern,
    ),
    Function(
        "parse_json",
        "text",
        "The value of a JSON string; of duplicate keys the last one wins.",
        (_TEXT,),
        (),
        _parse_json,
        (("parse_json(a).x", '{"a": "{\\"x\\": 1.5}"}', "1.5"), ("parse_json(a)", '{"a": "{"}', "IFX304")),
    ),
)


def joined(separator: str, strings: list[str]) -> str:
    """Return the strings joined as by jmespath's `join`, but bounded."""
    if strings:
        check_size("join", sum(map(len, strings)) + len(separator) * (len(strings) - 1))
    return separator.join(strings)
