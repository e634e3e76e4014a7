"""Telegraf's formats of payloads: what each makes of a message, as points.  A format is a function and a line here."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Final

from iggyflux.importing.configuration import Part
from iggyflux.importing.draft import Tree
from iggyflux.importing.names import literal, member, text_of
from iggyflux.importing.report import Verdict
from iggyflux.importing.telegraf import grok, json_v2, xpath
from iggyflux.importing.telegraf.gjson import NotExpressed, expression, steps
from iggyflux.importing.telegraf.metric import TYPES
from iggyflux.importing.telegraf.times import time_of
from iggyflux.records import JSON


@dataclass
class Parsed:
    """What a format makes of the payloads of an input."""

    payload: JSON
    points: list[Tree]
    for_each: str = ""


def _json_v2(part: Part, kind: str, documents: Sequence[JSON]) -> Parsed:
    points: list[Tree] = []
    for config in part.parts("json_v2"):
        try:
            points += json_v2.points_of(config, kind, documents)
        except NotExpressed as error:
            config.not_taken(None, f"no expression for {error}")
    return Parsed("json", [point for point in points if point["fields"]])


def _json(part: Part, kind: str, documents: Sequence[JSON]) -> Parsed:
    base = _query(part)
    found = json_v2.evaluated(base, documents)
    known = _flattened([each for value in found for each in (value if isinstance(value, list) else [value])])
    tags = _json_tags(part, known)
    for key, text in tags.items():
        if any(isinstance(value, float) and value.is_integer() for value in _values(found, text)):
            became = f"the tag `{key}` is a number as the payload has it, such as 7.0; Telegraf writes 7"
            part.remark(Verdict.APPROXIMATED, "tag_keys", became)
    time_key, name_key = part.text("json_time_key"), part.text("json_name_key")
    point: Tree = {"measurement": {"const": kind}, "tags": tags, "fields": {}}
    _json_fields(part, point, known, [*tags, *filter(None, [time_key, name_key])], found)
    if name_key:
        point["measurement"] = f"coalesce({text_of(_path(known, name_key))}, {literal(kind)})"
        part.taken("json_name_key", "`measurement`")
    if time_key:
        zone = part.text("json_timezone")
        _put_time(part, point, _path(known, time_key), "json_time_key", "json_time_format", zone)
        if "json_timezone" in part:
            part.taken("json_timezone", "`timestamp.timezone`")
    part.not_needed("json_strict", because="a bad element fails alone, and is kept as a dead letter")
    are_lists = [isinstance(value, list) for value in found]
    if found and not any(are_lists) and base == "@":
        return Parsed("json", [point])
    return Parsed("json", [point], base if found and all(are_lists) else f"to_array({base})[]")


def _query(part: Part) -> str:
    """Return the expression of what is parsed: the whole message, or the part that `json_query` names."""
    query = part.text("json_query")
    if not query:
        return "@"
    try:
        base = expression(steps(query))
    except NotExpressed as error:
        part.not_taken("json_query", f"no expression for {error}")
        return "@"
    part.taken("json_query", f"`for_each: {base}`")
    return base


def _path(known: dict[str, str], key: str) -> str:
    return known.get(key) or _guess(key)


def _json_tags(part: Part, known: dict[str, str]) -> Tree:
    tags: Tree = {}
    globs = part.texts("tag_keys")
    for glob in globs:
        if _is_glob(glob):
            tags |= {key: text for key, text in known.items() if fnmatchcase(key, glob)}
        else:
            tags[glob] = _path(known, glob)
    if any(map(_is_glob, globs)) and not known:
        part.approximated("tag_keys", "`tags` without those of globs: give --samples")
    elif globs:
        part.taken("tag_keys", "`tags`")
    return tags


def _values(found: Sequence[JSON], text: str) -> list[JSON]:
    """Return the values of an expression in the elements of samples, without nulls."""
    return json_v2.evaluated(
        text, [each for value in found for each in (value if isinstance(value, list) else [value])]
    )


def _json_fields(part: Part, point: Tree, known: dict[str, str], used: list[str], found: Sequence[JSON]) -> None:
    """Put the fields of `json` into a point: all numbers, and the texts and booleans that are named."""
    texts = part.texts("json_string_fields")
    named = [key for key in known if any(_is_glob(glob) and fnmatchcase(key, glob) for glob in texts)]
    is_any = any(map(_is_glob, texts)) and not known
    texts = [*texts, *(key for key in named if key not in used)]
    for key in texts:
        if not _is_glob(key) and key not in used:
            kinds = [*{type(value) for value in _values(found, _path(known, key))}]
            of_type = "string" if kinds == [str] else "boolean" if kinds == [bool] else "auto"
            point["fields"][key] = {"expr": _path(known, key), "type": of_type}
    star: Tree = {"expr": "@", "flatten": "_"}
    if used:
        star["exclude"] = used
    if not is_any:
        star |= {"type": "float", "on_bad_value": "omit"}
    point["fields"]["*"] = star
    if texts:
        told = part.approximated if is_any else part.taken
        told("json_string_fields", "all texts and booleans are fields" if is_any else "`fields`")


def _is_glob(text: str) -> bool:
    return any(sign in text for sign in "*?[")


def _flattened(elements: Sequence[JSON]) -> dict[str, str]:
    """Return the expressions of all values of objects by the names that Telegraf's flattening gives them."""
    found: dict[str, str] = {}
    waiting: deque[tuple[str, str, JSON, int]] = deque(("", "", each, 0) for each in elements)
    while waiting:
        name, path, value, depth = waiting.popleft()
        if isinstance(value, dict) and depth < 20:
            for key, inner in value.items():
                waiting.append(
                    (
                        f"{name}_{key}" if name else key,
                        f"{path}.{member(key)}" if path else member(key),
                        inner,
                        depth + 1,
                    )
                )
        elif isinstance(value, list) and depth < 20 and name:
            waiting += [(f"{name}_{n}", f"{path}[{n}]", inner, depth + 1) for n, inner in enumerate(value[:50])]
        elif name:
            found.setdefault(name, path)
    return found


def _guess(key: str) -> str:
    parts = key.split("_")
    if len(parts) == 1 or not all(parts):
        return member(key)
    return f"coalesce({member(key)}, {'.'.join(map(member, parts))})"


def _put_time(part: Part, point: Tree, text: str, key: str, format_key: str, zone: str) -> None:
    made = time_of(text, part.text(format_key), zone)
    if made is None:
        part.not_taken(key, "no format of ours is the same; the time of the message is used")
        part.not_taken(format_key, "see the line of the time")
        return
    point["timestamp"] = made
    part.taken(key, "`timestamp.expr`")
    part.taken(format_key, f"`timestamp.format: {made['format']}`")


_CSV_LEFT: Final = {
    "csv_metadata_rows": 0,
    "csv_skip_columns": 0,
    "csv_skip_values": [],
    "csv_skip_errors": False,
    "csv_tag_overwrite": False,
    "csv_reset_mode": "",
    "csv_metadata_separators": [],
    "csv_metadata_trim_set": "",
}


def _csv(part: Part, kind: str, documents: Sequence[JSON]) -> Parsed:  # noqa: ARG001
    names = part.texts("csv_column_names")
    payload = _csv_payload(part, names)
    tags = {key: member(key) for key in part.texts("csv_tag_columns")}
    if tags:
        part.taken("csv_tag_columns", "`tags`")
    point: Tree = {"measurement": {"const": kind}, "tags": tags, "fields": {}}
    time, name = part.text("csv_timestamp_column"), part.text("csv_measurement_column")
    if name:
        point["measurement"] = member(name)
        part.taken("csv_measurement_column", "`measurement`")
    if time:
        _put_time(part, point, member(time), "csv_timestamp_column", "csv_timestamp_format", part.text("csv_timezone"))
        if "csv_timezone" in part:
            part.taken("csv_timezone", "`timestamp.timezone`")
    _csv_fields(part, point, names, sorted({*tags, time, name} - {""}))
    return Parsed(payload, [point], "@")


def _csv_payload(part: Part, names: list[str]) -> Tree:
    payload: Tree = {"format": "csv"}
    rows = part.get("csv_header_row_count", int) or 0
    if names and not rows:
        payload["header"] = names
        part.taken("csv_column_names", "`header` of the payload")
    elif names:
        part.not_taken("csv_column_names", "the names of the first line are used")
    if "csv_header_row_count" in part:
        told = part.taken if rows == 1 or (names and not rows) else part.not_taken
        told("csv_header_row_count", "the first line has the names" if rows else "`header` of the payload")
    if (delimiter := part.text("csv_delimiter")) and delimiter != ",":
        payload["delimiter"] = delimiter
    if "csv_delimiter" in part:
        part.taken("csv_delimiter", "`delimiter` of the payload")
    if (skipped := part.get("csv_skip_rows", int) or 0) > 0:
        payload["skip"] = skipped
        part.taken("csv_skip_rows", "`skip` of the payload")
    if comment := part.text("csv_comment"):
        payload["comment"] = comment
        part.taken("csv_comment", "`comment` of the payload")
    if part.flag("csv_trim_space"):
        payload["trim"] = True
        part.approximated("csv_trim_space", "`trim` of the payload, at both sides")
    unused = [key for key in ("csv_trim_space", "csv_skip_rows", "csv_comment") if not part.tree.get(key)]
    part.not_needed(*unused, because="the default")
    for key, default in _CSV_LEFT.items():
        if key in part and part.tree[key] == default:
            part.not_needed(key, because="the default")
        elif key in part:
            part.not_taken(key, "the payload format csv has no such option")
    return payload


def _csv_fields(part: Part, point: Tree, names: list[str], used: list[str]) -> None:
    types = part.texts("csv_column_types")
    if names and len(names) == len(types):
        for key, of_type in zip(names, types, strict=True):
            made = TYPES.get(of_type, "string")
            if key and key not in used:
                point["fields"][key] = {"expr": member(key), "type": made} | (
                    {} if made == "string" else {"cast": True}
                )
        part.taken("csv_column_types", "`type` of the fields, with `cast`")
        return
    star: Tree = {"expr": "@", "type": "auto", "cast": True}
    if used:
        star["exclude"] = used
    point["fields"]["*"] = star
    if types:
        part.not_taken("csv_column_types", "give `csv_column_names` too: a mapping has types by name")
    became = "numbers are floats; Telegraf has integers where a cell is one: name those with `type: integer`"
    part.remark(Verdict.APPROXIMATED, "csv", became)


def _influx(part: Part, kind: str, documents: Sequence[JSON]) -> Parsed:  # noqa: ARG001
    part.not_needed("influx_parser_type", because="there is one parser")
    precision = {"1ns": "ns", "1us": "us", "1ms": "ms", "1s": "s"}.get(part.text("influx_timestamp_precision"))
    payload: Tree = {"format": "influx"}
    if precision:
        payload["precision"] = precision
        part.taken("influx_timestamp_precision", "`precision` of the payload")
    point = {
        "measurement": "measurement",
        "tags": {"*": "tags"},
        "fields": {"*": {"expr": "fields", "type": "payload"}},
        "timestamp": {"expr": "time", "format": "unix_ns", "default": "message"},
    }
    return Parsed(payload if precision else "influx", [point], "@")


def _logfmt(part: Part, kind: str, documents: Sequence[JSON]) -> Parsed:
    globs = part.texts("logfmt_tag_keys")
    known = {key for document in documents if isinstance(document, dict) for key in document}
    keys = {key for glob in globs for key in ([glob] if not _is_glob(glob) else known) if fnmatchcase(key, glob)}
    if globs:
        is_known = bool(known) or not any(map(_is_glob, globs))
        told = part.taken if is_known else part.approximated
        told("logfmt_tag_keys", "`tags`" if is_known else "`tags` without those of globs: give --samples")
    became = (
        "numbers are floats; Telegraf has integers where a value is one: name those with `type: integer`; a key without"
        " a value is an empty text, and Telegraf leaves it out"
    )
    part.remark(Verdict.APPROXIMATED, "logfmt", became)
    tags: Tree = {key: member(key) for key in sorted(keys)}
    fields: Tree = {"*": {"expr": "@", "type": "auto", "cast": True}}
    return Parsed("logfmt", [{"measurement": {"const": kind}, "tags": tags, "fields": fields}])


_VALUES: Final[dict[str, Tree]] = {
    "integer": {"type": "integer", "cast": True},
    "int": {"type": "integer", "cast": True},
    "long": {"type": "integer", "cast": True},
    "float": {"type": "float", "cast": True},
    "double": {"type": "float", "cast": True},
    "string": {"type": "string"},
    "boolean": {"type": "boolean", "cast": True},
    "bool": {"type": "boolean", "cast": True},
    "auto_integer": {"type": "auto", "cast": "numbers"},
    "auto_float": {"type": "auto", "cast": "numbers"},
}


def _value(part: Part, kind: str, documents: Sequence[JSON]) -> Parsed:  # noqa: ARG001
    of_type = part.text("data_type") or "integer"
    key = part.text("value_field_name") or "value"
    if "value_field_name" in part:
        part.taken("value_field_name", f"the field `{key}`")
    if of_type == "base64":
        part.taken("data_type", "`payload: raw`, which is base64")
        return Parsed(
            "raw",
            [{"measurement": {"const": kind}, "tags": {}, "fields": {key: {"expr": "@", "type": "string"}}}],
            kind,
        )
    options = _VALUES.get(of_type)
    if options is None:
        part.not_taken("data_type", "an unknown type")
        return Parsed("text", [])
    text = "trim(@)" if of_type in ("string", "auto_integer", "auto_float") else r"regex_capture(@, '\S+\s*$')"
    if of_type not in ("string", "auto_integer", "auto_float"):
        text = f"trim({text})"
    if "data_type" in part:
        told = part.approximated if of_type == "auto_integer" else part.taken
        told("data_type", f"`type: {options['type']}`" + ("; integers are floats" if of_type == "auto_integer" else ""))
    field_tree = {"expr": text, **options}
    return Parsed("text", [{"measurement": {"const": kind}, "tags": {}, "fields": {key: field_tree}}])


def _grok(part: Part, kind: str, documents: Sequence[JSON]) -> Parsed:
    made = grok.read(part, kind)
    if made is None:
        return Parsed("text", [])
    if any("\n" in document.strip() for document in documents if isinstance(document, str)):
        became = "a sample has several lines: the first one that matches counts, so send each line as a message"
        part.remark(Verdict.APPROXIMATED, "grok", became)
    return Parsed({"format": "text", "pattern": made[0]}, [made[1]])


def _xpath(payload: str) -> Callable[[Part, str, Sequence[JSON]], Parsed]:
    def read(part: Part, kind: str, documents: Sequence[JSON]) -> Parsed:
        return Parsed(payload, xpath.points_of(part, kind, documents, is_xml=payload == "xml"))

    return read


@dataclass(frozen=True)
class Parser:
    """A format of payloads: the one of ours, and what reads an input."""

    payload: str
    read: Callable[[Part, str, Sequence[JSON]], Parsed] = field(repr=False)


PARSERS: Final[dict[str, Parser]] = {
    "json_v2": Parser("json", _json_v2),
    "json": Parser("json", _json),
    "csv": Parser("csv", _csv),
    "influx": Parser("influx", _influx),
    "value": Parser("text", _value),
    "grok": Parser("text", _grok),
    "logfmt": Parser("logfmt", _logfmt),
    "xml": Parser("xml", _xpath("xml")),
    "xpath_json": Parser("json", _xpath("json")),
    "xpath_msgpack": Parser("msgpack", _xpath("msgpack")),
    "xpath_cbor": Parser("cbor", _xpath("cbor")),
}
