"""Telegraf's `xpath_*`: tags and fields by XPath, as far as that is a path, a literal or a conversion of one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from iggyflux.importing.configuration import Part
from iggyflux.importing.draft import Tree
from iggyflux.importing.names import literal, member, string, text_of
from iggyflux.importing.telegraf.gjson import NotExpressed
from iggyflux.importing.telegraf.json_v2 import evaluated
from iggyflux.importing.telegraf.times import time_of
from iggyflux.records import JSON

_CALL: Final = re.compile(
    r"(?P<name>string|number|boolean|int|lower-case|upper-case|normalize-space)\((?P<inside>.*)\)", re.DOTALL
)
TABLES: Final = ("xpath", "xpath_json", "xpath_msgpack", "xpath_cbor", "xml")
MOST_CHARACTERS: Final = 1_000
_STEP: Final = re.compile(r"(?P<name>[\w.-]+)(?:\[(?P<index>[0-9]+)\])?")
_ITEM: Final = "*"
_ATTRIBUTE: Final = re.compile(r"@[\w.-]+")


@dataclass(frozen=True, slots=True)
class Place:
    """From where a path goes on: the element at `base`, in documents like these."""

    base: Sequence[str] = ()
    is_item: bool = False
    """Whether it is an item of the list there, whose parent is the list."""
    is_xml: bool = False
    documents: Sequence[JSON] = ()

    def has_attributes(self, path: Sequence[str]) -> bool:
        """Return whether the element of XML at a path is an object in a sample: its text is then a member."""
        inside = path[len(self.base) :]
        is_below = bool(self.base and inside) and list(path[: len(self.base)]) == list(self.base)
        text = f"to_array({_joined(self.base)})[].{_joined(inside)}" if is_below else _joined(path)
        found = evaluated(f"to_array({text})[]", self.documents) if self.is_xml else []
        return any(isinstance(value, dict) for values in found if isinstance(values, list) for value in values)


def points_of(part: Part, kind: str, documents: Sequence[JSON], *, is_xml: bool) -> list[Tree]:
    """Return a point for each table `xpath` of an input."""
    points = []
    for key in TABLES:
        for each in part.parts(key):
            point = _point(
                each, kind, Place(is_xml=is_xml, documents=documents), is_native=part.flag("xpath_native_types")
            )
            if point["fields"]:
                points.append(point)
    part.not_needed(
        "xpath_print_document", "xpath_allow_empty_selection", "xpath_trace", because="see `iggyflux dry-run`"
    )
    if "xpath_native_types" in part:
        part.taken("xpath_native_types", "values have the types of the payload")
    return points


def _point(part: Part, kind: str, place: Place, *, is_native: bool) -> Tree:
    selection = part.text("metric_selection")
    point: Tree = {"measurement": {"const": kind}, "tags": {}, "fields": {}}
    if selection:
        try:
            is_item = selection.endswith("/*") and not place.is_xml
            base = _steps(selection.removesuffix("/*") if is_item else selection, place)
            if base:
                point["for_each"] = f"to_array({_joined(base)})[]"
            place = replace(place, base=base, is_item=is_item)
            told = part.approximated if is_item else part.taken
            told("metric_selection", f"`for_each: {point.get('for_each', '@')}`: the elements of a list")
        except NotExpressed as error:
            part.not_taken("metric_selection", f"no expression for {error}")
            return point
    if name := part.text("metric_name"):
        made = _value(part, "metric_name", place)
        if made is not None:
            is_constant = re.fullmatch(r"'[^']*'|\"[^\"]*\"", name)
            point["measurement"] = {"const": name[1:-1]} if is_constant else text_of(made)
            part.taken("metric_name", "`measurement`")
    _put_values(part, point, place, is_native=is_native)
    if "timestamp" in part:
        _put_time(part, point, place)
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


def _put_values(part: Part, point: Tree, place: Place, *, is_native: bool) -> None:
    tags = part.part("tags")
    for key in tags.tree:
        made = _value(tags, key, place)
        if made is not None:
            point["tags"][key] = made
            tags.taken(key, f'`tags: {{{key}: "{made}"}}`')
    for table, of_type in (("fields", "string"), ("fields_int", "integer")):
        fields = part.part(table)
        for key in fields.tree:
            made = _value(fields, key, place)
            if made is not None:
                kind = _type(fields.text(key)) or ("auto" if is_native else of_type)
                point["fields"][key] = {"expr": made, "type": kind} | ({} if kind == "auto" else {"cast": True})
                fields.taken(key, f'`fields: {{{key}: "{made}"}}`, {kind}')


def _put_time(part: Part, point: Tree, place: Place) -> None:
    made = _value(part, "timestamp", place)
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


def _value(part: Part, key: str, place: Place) -> str | None:
    text = part.text(key)
    try:
        return converted(text, place)
    except NotExpressed as error:
        part.not_taken(key, f"no expression for {error}")
        return None


def converted(text: str, place: Place) -> str:
    """Return the expression of an XPath, seen from a place.  Raise NotExpressed."""
    text = text.strip()
    if len(text) > MOST_CHARACTERS:
        raise NotExpressed("a text of this length")
    if re.fullmatch(r"'[^']*'|\"[^\"]*\"", text):
        return string(text[1:-1])
    if re.fullmatch(r"-?[0-9]+(?:\.[0-9]+)?", text):
        return literal(float(text) if "." in text else int(text))
    call = _CALL.fullmatch(text)
    if call is not None:
        inside = converted(call["inside"], place)
        if call["name"] == "boolean":
            return f"{inside} != `null`"
        function: Any = {"lower-case": "lower", "upper-case": "upper", "normalize-space": "trim"}.get(call["name"])
        return f"{function}({inside})" if function else inside
    path = _steps(text, place)
    made = _from(place.base, path, is_absolute=text.startswith("/"))
    return f"if(type({made}) == 'object', {made}.\"#text\", {made})" if place.has_attributes(path) else made


def _from(base: Sequence[str], path: Sequence[str], *, is_absolute: bool) -> str:
    """Return the expression of a path from the top, seen from the element at `base`."""
    if is_absolute:
        return _joined(path) if not base else f"root().{_joined(path)}"
    if path[: len(base)] == list(base):
        return _joined(path[len(base) :]) if len(path) > len(base) else "@"
    return f"root().{_joined(path)}" if path else "root()"


def _steps(text: str, place: Place) -> list[str]:
    """Return the names of a path from the top.  Raise NotExpressed for anything but a plain path."""
    text = text.strip()
    steps, _, last = text.rpartition("/")
    if place.is_xml and _ATTRIBUTE.fullmatch(last):
        return [*(_steps(f"{steps}/" if text.startswith("/") else steps, place)), member(last)]
    if "//" in text or re.search(r"[()@=<>|:]", text):
        raise NotExpressed(f"a path with //, an axis, {'' if place.is_xml else 'an attribute '}or a condition")
    found = [] if text.startswith("/") else [*place.base, *([_ITEM] if place.is_item else [])]
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
    return [step for step in found if step != _ITEM]


def _joined(path: Sequence[str]) -> str:
    return ".".join(path) or "@"
