"""What a document makes of a message, by json, decimal and jmespath alone: nothing of iggyflux but its line parser.

It knows the part of the language that these say the same about: paths and functions of JMESPath, types without `cast`,
`default`, `required`, `where`, `for_each`, times as integers.  A record is a point, a failure or nothing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, TypeAlias

import jmespath
from jmespath.exceptions import JMESPathError

from iggyflux.lineprotocol import MAX_NS, MIN_NS

Point: TypeAlias = tuple[str, tuple[tuple[str, str], ...], tuple[tuple[str, object], ...], int]
UNITS = {"unix_s": 10**9, "unix_ms": 10**6, "unix_us": 10**3, "unix_ns": 1}
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
        elements = [message]
        if "for_each" in document:
            found = evaluate(document["for_each"], message)
            if found is None:
                return []
            if not isinstance(found, list):
                raise Failed("for_each needs a list")
            elements = found
    except Failed as error:
        return [error]
    return [_record(document["points"], element) for element in elements]


def _record(point: Mapping[str, Any], element: object) -> Point | None | Failed:
    try:
        if "where" in point and not is_true(evaluate(point["where"], element)):
            return None
        tags = {key: _tag(item, element) for key, item in point.get("tags", {}).items()}
        fields = {key: _field(item, element) for key, item in point["fields"].items()}
        fields = {key: value for key, value in fields.items() if value is not None}
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
    return str(value)


def _field(item: str | Mapping[str, Any], element: object) -> object:
    item = {"expr": item} if isinstance(item, str) else item
    value = evaluate(item["expr"], element)
    if value is None:
        if item.get("required"):
            raise Failed("required")
        value = item.get("default")
        if value is None:
            return None
    kind = item.get("type", "float")
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
    if isinstance(value, str) and re.fullmatch(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?", value):
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
