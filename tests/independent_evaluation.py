"""What a document makes of a message, by json, decimal and jmespath alone: nothing of iggyflux but its line parser.

It knows the part of the language that these say the same about: paths and functions of JMESPath, types, `cast`,
`default`, `on_bad_value`, `required`, `where`, `for_each`, collisions, times as numbers and of RFC 3339, `"*"` beside
plain paths.  A record is a point, a failure or nothing.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fnmatch import fnmatchcase
from typing import Any, TypeAlias

import jmespath
from jmespath.exceptions import JMESPathError

from iggyflux.lineprotocol import MAX_NS, MIN_NS, Unsigned

Point: TypeAlias = tuple[str, tuple[tuple[str, str], ...], tuple[tuple[str, object], ...], int]
UNITS = {"unix_s": 10**9, "unix_ms": 10**6, "unix_us": 10**3, "unix_ns": 1}
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_RFC3339 = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt](\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(?:([Zz])|([-+])([01]\d|2[0-3]):([0-5]\d))", re.ASCII
)
_SWAPPED = str.maketrans(",.", ".,")
RANGES = {"integer": (-(2**63), 2**63 - 1), "unsigned": (0, 2**64 - 1)}


class Failed(Exception):
    """The record fails."""


def records(document: Mapping[str, Any], message: Any) -> list[Point | None | Failed]:
    """Return each record of a message, in order: a point, None for one that is left out, or why it fails.

    A message that is `Failed` could not be decoded.
    """
    if isinstance(message, Failed):
        return [message]
    try:
        if "where" in document and not is_true(evaluate(document["where"], message)):
            return []
    except Failed as error:
        return [error]
    lists = [each for holder in (document, document["points"]) for each in _listed(holder.get("for_each", []))]
    payload = document["from"].get("payload")
    comma = isinstance(payload, dict) and payload.get("decimal") == ","
    rules = _Rules(document["from"].get("on_bad_value") == "omit", comma)
    return [
        element if isinstance(element, Failed) else _record(document["points"], element, rules)
        for element in _elements(lists, message)
    ]


@dataclass(frozen=True)
class _Rules:
    """What a document says of all fields: whether a bad value is left out, and whether numbers have a decimal comma."""

    omits: bool
    comma: bool


def _listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def _elements(lists: Sequence[str], value: object) -> Iterator[object]:
    """Yield the elements of lists inside lists; a list that fails is `Failed`."""
    if not lists:
        yield value
        return
    try:
        found = evaluate(lists[0], value)
        if found is not None and not isinstance(found, list):
            raise Failed("for_each needs a list")
    except Failed as error:
        yield error
        return
    for element in found or ():
        yield from _elements(lists[1:], element)


def settled(
    policy: str, found: Sequence[Point | None | Failed]
) -> tuple[dict[tuple[str, tuple[tuple[str, str], ...], int], dict[str, object]], int]:
    """Return the fields of the points of a message by measurement, tags and time, and the number of failures."""
    points: dict[tuple[str, tuple[tuple[str, str], ...], int], dict[str, object]] = {}
    failures = 0
    for record in found:
        if isinstance(record, Failed):
            failures += 1
        elif record is not None:
            measurement, tags, fields, time = record
            key = measurement, tags, time
            if policy == "error" and key in points:
                failures += 1
            else:
                points[key] = {**(points.get(key, {}) if policy == "merge" else {}), **dict(fields)}
    return points, failures


def _record(point: Mapping[str, Any], element: object, rules: _Rules) -> Point | None | Failed:
    try:
        if "where" in point and not is_true(evaluate(point["where"], element)):
            return None
        tags = {key: _tag(item, element) for key, item in point.get("tags", {}).items()}
        fields = {key: _field(item, element, rules) for key, item in point["fields"].items() if key != "*"}
        fields = {key: value for key, value in fields.items() if value is not None}
        if "*" in point["fields"]:
            fields |= dict(_star(point, element, rules))
        if fields.keys() & {key for key, value in tags.items() if value}:
            raise Failed("a tag and a field")
        if not fields:
            raise Failed("all fields are null")
        time = _time(point["timestamp"], element)
    except Failed as error:
        return error
    kept = tuple(sorted((key, value) for key, value in tags.items() if value))
    return point["measurement"]["const"], kept, tuple(sorted(fields.items())), time


def evaluate(expression: str, element: object) -> Any:
    """Return the value of an expression.  Raises `Failed`."""
    try:
        return jmespath.search(expression, element)
    except (JMESPathError, TypeError, ValueError) as error:
        raise Failed(str(error)) from error


def is_true(value: object) -> bool:
    """Return whether JMESPath takes a value for true: numbers are, 0 too."""
    return bool(value) or (isinstance(value, int | float | Decimal) and not isinstance(value, bool))


def _tag(item: str | Mapping[str, Any], element: object) -> str:
    value = evaluate(item if isinstance(item, str) else item["expr"], element)
    if (value is None or value == "") and not isinstance(item, str):
        if item.get("required"):
            raise Failed("required")
        value = item.get("default", value)
    if isinstance(value, list | dict):
        raise Failed("a tag is a scalar")
    text = "" if value is None else _text(value)
    if re.search(r"[\x00-\x1f\x7f\ud800-\udfff]|\\\Z", text):
        raise Failed("no server takes such a tag")
    return text


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Decimal | float):
        return repr(_float(value))
    return str(int(value) if isinstance(value, Unsigned) else value)


def _field(item: str | Mapping[str, Any], element: object, rules: _Rules) -> object:
    item = {"expr": item} if isinstance(item, str) else item
    kind, cast = item.get("type", "float"), item.get("cast", False)
    try:
        value = evaluate(item["expr"], element)
        if type(value) is Unsigned and re.search(r"\w\(", re.sub(r'"(\\.|[^"\\])*"', "", item["expr"])):
            value = int(value)  # a function gave it
        if value is not None:
            return _typed(value, kind, cast, rules.comma)
    except Failed:
        if not _omits(item, rules) or item.get("required"):
            raise
    if item.get("required"):
        raise Failed("required")
    default = item.get("default")
    return None if default is None else _typed(default, kind, cast)


def _omits(item: Mapping[str, Any], rules: _Rules) -> bool:
    """Return whether a bad value is left out."""
    return item["on_bad_value"] == "omit" if "on_bad_value" in item else rules.omits


def _typed(value: Any, kind: str, cast: bool | str, comma: bool = False) -> tuple[str, object]:
    if cast and not (cast == "numbers" and value in ("true", "false")):
        value = _cast(value, kind, comma)
    if kind == "payload":
        if type(value) is Unsigned:
            return "unsigned", value
        kind = {bool: "boolean", str: "string", int: "integer"}.get(type(value), "float")
    elif type(value) is Unsigned:
        value = int(value)
    if kind == "auto":
        kind = {bool: "boolean", str: "string"}.get(type(value), "float")
    if kind in RANGES:
        least, most = RANGES[kind]
        if type(value) is not int or not least <= value <= most:
            raise Failed(kind)
        return kind, value
    if kind == "float":
        if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
            raise Failed(kind)
        return kind, repr(_float(value))
    if type(value) is not {"string": str, "boolean": bool}[kind]:
        raise Failed(kind)
    return kind, value


def _cast(value: Any, kind: str, comma: bool) -> Any:
    """Return a value as near to a type as it can be without loss."""
    if isinstance(value, str) and kind != "string":
        if value in ("true", "false") and kind in ("boolean", "auto"):
            return value == "true"
        text = value.translate(_SWAPPED) if comma else value
        if _NUMBER.fullmatch(text) and kind != "boolean":
            number = Decimal(text)
            is_whole = number == number.to_integral_value()
            return int(number) if is_whole and (kind in RANGES or re.fullmatch("-?[0-9]+", text)) else number
        return value
    if isinstance(value, Decimal | float) and kind in (*RANGES, "string"):
        double = _float(value)
        if double.is_integer() and double != value:
            raise Failed("rounded")
        if kind in RANGES and double.is_integer():
            return int(double)
    if kind == "string" and isinstance(value, bool | int | float | Decimal):
        return _text(value)
    return value


def _star(point: Mapping[str, Any], element: object, rules: _Rules) -> Iterator[tuple[str, object]]:
    """Yield the fields of `"*"`; all expressions of the point are paths of names and indices."""
    star = point["fields"]["*"]
    flatten = star.get("flatten")
    found = evaluate(star["expr"], element)
    if found is None:
        return
    if not isinstance(found, dict):
        raise Failed("not an object")
    items = [
        point["timestamp"],
        *point["tags"].values(),
        *(item for key, item in point["fields"].items() if key != "*"),
    ]
    used = {_steps(item if isinstance(item, str) else item["expr"]) for item in items}
    whole = _steps(star["expr"])
    used = {path[len(whole) :] for path in used if path[: len(whole)] == whole and path != whole}
    if flatten is None:
        used = {path[:1] for path in used}
    names = set()
    for path, value in _leaves(found, flatten is not None):
        name = (flatten or "").join(map(str, path))
        is_taken = any(fnmatchcase(name, glob) for glob in star.get("include", "*"))
        is_taken &= not any(fnmatchcase(name, glob) for glob in star.get("exclude", ""))
        is_used = any(path[: len(other)] == other for other in used)
        if value is None or is_used or name in point["fields"] or not is_taken:
            continue
        try:
            typed = _typed(value, star.get("type", "auto"), star.get("cast", False), rules.comma)
        except Failed:
            if _omits(star, rules):
                continue
            raise
        if re.search(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\\]", name) or name in ("", "time") or name in names:
            raise Failed("no server takes such a field")
        names.add(name)
        yield name, typed


def _steps(path: str) -> tuple[str | int, ...]:
    """Return the names and indices of a path."""
    steps = re.findall(r'"((?:[^"\\]|\\.)*)"|\[(\d+)\]|([A-Za-z_]\w*)', path, re.ASCII)
    return tuple(int(index) if index else name or json.loads(f'"{quoted}"') for quoted, index, name in steps)


def _leaves(value: Any, flatten: bool) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Yield the members of an object, or with `flatten` the scalars in it, with their paths."""
    for step, inner in value.items() if isinstance(value, dict) else enumerate(value):
        if flatten and isinstance(inner, dict | list):
            yield from (((step, *path), leaf) for path, leaf in _leaves(inner, flatten))
        else:
            yield (step,), inner


def _float(value: float | Decimal) -> float:
    try:
        found = float(value)
    except OverflowError as error:
        raise Failed("out of range") from error
    if not math.isfinite(found) or (isinstance(value, int) and int(found) != value):
        raise Failed("not exact")
    return found


def _time(item: Mapping[str, Any], element: object) -> int:
    value = evaluate(item["expr"], element)
    if item["format"] == "rfc3339":
        return _rfc3339(value)
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        value = Decimal(value)
    elif isinstance(value, Decimal | float):
        value = Decimal(repr(_float(value)))  # a JSON float is a double
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise Failed("not a time")
    if abs(value) > 2**64:
        raise Failed("out of range")
    time = int(
        (value * UNITS[item["format"]]).to_integral_value()
        if isinstance(value, Decimal)
        else value * UNITS[item["format"]]
    )
    if not MIN_NS <= time <= MAX_NS:
        raise Failed("out of range")
    return time


def _rfc3339(value: object) -> int:
    found = _RFC3339.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise Failed("not of RFC 3339")
    day, clock, fraction, _, sign, hours, minutes = found.groups()
    try:
        time = datetime.fromisoformat(f"{day}T{clock}+00:00")
    except ValueError as error:
        raise Failed(str(error)) from error
    seconds = (time - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(seconds=1)
    if sign:
        seconds -= (int(hours) * 60 + int(minutes)) * (60 if sign == "+" else -60)
    ns = seconds * 10**9 + int((fraction or "").ljust(9, "0"))
    if not MIN_NS <= ns <= MAX_NS:
        raise Failed("out of range")
    return ns
