"""Telegraf's `xpath_*`: tags and fields by XPath, as far as that is a path, a literal or a conversion of one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from iggyflux.importing.configuration import Part
from iggyflux.importing.draft import Tree
from iggyflux.importing.names import literal, member, string, text_of
from iggyflux.importing.telegraf.gjson import NotExpressed
from iggyflux.importing.telegraf.times import time_of
from iggyflux.records import JSON

_CALL: Final = re.compile(
    r"(?P<name>string|number|boolean|int|lower-case|upper-case|normalize-space)\((?P<inside>.*)\)", re.DOTALL
)
TABLES: Final = ("xpath", "xpath_json", "xpath_msgpack", "xpath_cbor", "xml")
MOST_CHARACTERS: Final = 1_000
_STEP: Final = re.compile(r"(?P<name>[\w.-]+)(?:\[(?P<index>[0-9]+)\])?")


def points_of(part: Part, kind: str, documents: Sequence[JSON]) -> list[Tree]:  # noqa: ARG001
    """Return a point for each table `xpath` of an input."""
    points = []
    for key in TABLES:
        for each in part.parts(key):
            point = _point(each, kind, is_native=part.flag("xpath_native_types"))
            if point["fields"]:
                points.append(point)
    part.not_needed(
        "xpath_print_document", "xpath_allow_empty_selection", "xpath_trace", because="see `iggyflux dry-run`"
    )
    if "xpath_native_types" in part:
        part.taken("xpath_native_types", "values have the types of the payload")
    return points


def _point(part: Part, kind: str, *, is_native: bool) -> Tree:
    selection = part.text("metric_selection")
    base: list[str] = []
    point: Tree = {"measurement": {"const": kind}, "tags": {}, "fields": {}}
    if selection:
        try:
            base = _steps(selection.removesuffix("/*"), [])
            if base:
                point["for_each"] = f"to_array({_joined(base)})[]"
            told = part.approximated if selection.endswith("/*") else part.taken
            told("metric_selection", f"`for_each: {point.get('for_each', '@')}`: the elements of a list")
        except NotExpressed as error:
            part.not_taken("metric_selection", f"no expression for {error}")
            return point
    if name := part.text("metric_name"):
        made = _value(part, "metric_name", base)
        if made is not None:
            is_constant = re.fullmatch(r"'[^']*'|\"[^\"]*\"", name)
            point["measurement"] = {"const": name[1:-1]} if is_constant else text_of(made)
            part.taken("metric_name", "`measurement`")
    _put_values(part, point, base, is_native=is_native)
    if "timestamp" in part:
        _put_time(part, point, base)
    for key in ("field_selection", "tag_selection"):
        if key in part:
            part.not_taken(key, 'names and values by XPath: write `"*"` with `include`, or an expression')
    part.not_needed(*_OF_SELECTIONS, because="parts of a selection that is not taken")
    return point


_OF_SELECTIONS: Final = (
    "field_name",
    "field_value",
    "tag_name",
    "tag_value",
    "field_name_expansion",
    "tag_name_expansion",
)


def _put_values(part: Part, point: Tree, base: Sequence[str], *, is_native: bool) -> None:
    tags = part.part("tags")
    for key in tags.tree:
        made = _value(tags, key, base)
        if made is not None:
            point["tags"][key] = made
            tags.taken(key, f'`tags: {{{key}: "{made}"}}`')
    for table, of_type in (("fields", "string"), ("fields_int", "integer")):
        fields = part.part(table)
        for key in fields.tree:
            made = _value(fields, key, base)
            if made is not None:
                kind = _type(fields.text(key)) or ("auto" if is_native else of_type)
                point["fields"][key] = {"expr": made, "type": kind} | ({} if kind == "auto" else {"cast": True})
                fields.taken(key, f'`fields: {{{key}: "{made}"}}`, {kind}')


def _put_time(part: Part, point: Tree, base: Sequence[str]) -> None:
    made = _value(part, "timestamp", base)
    if made is None:
        return
    time = time_of(made, part.text("timestamp_format") or "rfc3339", part.text("timezone"))
    if time is None:
        part.not_taken("timestamp", "no format of ours is the same; the time of the message is used")
        return
    point["timestamp"] = time
    part.taken("timestamp", "`timestamp`")
    for key in ("timestamp_format", "timezone"):
        if key in part:
            part.taken(key, "part of `timestamp`")


def _type(text: str) -> str:
    if text.startswith("number("):
        return "float"
    return "boolean" if text.startswith("boolean(") else ""


def _value(part: Part, key: str, base: Sequence[str]) -> str | None:
    text = part.text(key)
    try:
        return converted(text, base)
    except NotExpressed as error:
        part.not_taken(key, f"no expression for {error}")
        return None


def converted(text: str, base: Sequence[str]) -> str:
    """Return the expression of an XPath, seen from the element at `base`.  Raise NotExpressed."""
    text = text.strip()
    if len(text) > MOST_CHARACTERS:
        raise NotExpressed("a text of this length")
    if re.fullmatch(r"'[^']*'|\"[^\"]*\"", text):
        return string(text[1:-1])
    if re.fullmatch(r"-?[0-9]+(?:\.[0-9]+)?", text):
        return literal(float(text) if "." in text else int(text))
    call = _CALL.fullmatch(text)
    if call is not None:
        inside = converted(call["inside"], base)
        if call["name"] == "boolean":
            return f"{inside} != `null`"
        function: Any = {"lower-case": "lower", "upper-case": "upper", "normalize-space": "trim"}.get(call["name"])
        return f"{function}({inside})" if function else inside
    path = _steps(text, base)
    if text.startswith("/"):
        return _joined(path) if not base else f"root().{_joined(path)}"
    if path[: len(base)] == list(base):
        return _joined(path[len(base) :]) if len(path) > len(base) else "@"
    return f"root().{_joined(path)}" if path else "root()"


def _steps(text: str, base: Sequence[str]) -> list[str]:
    """Return the names of a path from the top.  Raise NotExpressed for anything but a plain path."""
    text = text.strip()
    if "//" in text or re.search(r"[()@=<>|:]", text):
        raise NotExpressed("a path with //, an axis, an attribute or a condition")
    found = [] if text.startswith("/") else list(base)
    for word in text.strip("/").split("/"):
        if word in ("", "."):
            continue
        if word == "..":
            if not found:
                raise NotExpressed("a path above the message")
            found.pop()
            continue
        match = _STEP.fullmatch(word)
        if match is None:
            raise NotExpressed("a step that is not a name")
        found.append(
            member(match["name"]) + (f"[{int(match['index']) - 1}]" if match["index"] and int(match["index"]) else "")
        )
    return found


def _joined(path: Sequence[str]) -> str:
    return ".".join(path) or "@"
