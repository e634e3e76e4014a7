"""A reader document's tree to types: the query, the cursor, and what each message is made of."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from iggyflux.documents import join_pointer
from iggyflux.expressions import compile_expression
from iggyflux.mapping.examples import check_reader_examples
from iggyflux.mapping.reading import NOTHING, Reading, check_length, items_of, object_of, scalar_of, texts_of
from iggyflux.mapping.tables import warn_unused_tables
from iggyflux.mapping.times import read_duration, read_time
from iggyflux.records import JSON, Scalar
from iggyflux.spec import Const, CursorSpec, MessageSpec, OnError, Query, Reader, Source, Target
from iggyflux.values import tag_text

BAD_STATEMENT = "IFX131"
LIMITED = "IFX166"
_LIMIT = re.compile(r"\b(?:limit|offset)\s+[0-9]+|\b(?:limit|tail)\s*\(\s*(?:n|offset)\s*:\s*[0-9]+", re.IGNORECASE)
_NOW = re.compile(r"\bnow\s*\(\s*\)", re.IGNORECASE)


def read_reader(reading: Reading, name: str) -> Reader:
    """Return the reader of the document; if `reading` has problems afterwards, it must not be used."""
    tree = reading.tree
    query = _read_query(reading, object_of(tree.get("from")))
    cursor = _read_cursor(reading, object_of(tree.get("cursor")))
    messages = tuple(
        _read_message(reading, item, pointer) for item, pointer in items_of(tree.get("messages"), "/messages")
    )
    if "messages" not in tree:
        messages = (MessageSpec(compile_expression("@"), None, (), None, "row", ""),)
    for spec in messages:
        if cursor.mark in dict(spec.headers):
            place = join_pointer(join_pointer(spec.pointer, "headers"), cursor.mark or "")
            message = f"the header {cursor.mark!r} is reserved by `cursor.mark`"
            reading.report("IFX117", place, message, key=True, hint="rename one of them")
    check_reader_examples(reading)
    warn_unused_tables(reading)
    target = object_of(tree.get("to"))
    check_length(reading, target.get("stream"), "/to/stream")
    check_length(reading, target.get("topic"), "/to/topic")
    payload = reading.choice(target, "payload", ("json", "msgpack", "cbor", "csv", "influx"))
    return Reader(
        name=name,
        document=reading.document,
        source=query,
        cursor=cursor,
        messages=messages,
        target=Target(str(target.get("stream", "")), str(target.get("topic", "")), payload),
        on_error=OnError(reading.choice(tree, "on_error", ("dead_letter", "fail", "skip"))),
        tables=reading.tables,
    )


def _read_query(reading: Reading, tree: Mapping[str, JSON]) -> Query:
    language = reading.choice(tree, "language", ("auto", "sql", "influxql", "flux"))
    measurement, statement = tree.get("measurement"), tree.get("statement")
    if "measurement" in tree and "statement" in tree:
        message = "`measurement` and `statement` are mutually exclusive"
        reading.report("IFX117", "/from/statement", message, key=True, hint="remove one of them")
    elif "measurement" not in tree and "statement" not in tree and isinstance(reading.tree.get("from"), dict):
        hint = "for example measurement: env"
        message = "missing `measurement` or `statement`"
        reading.report("IFX111", "/from", message, key=True, expected="measurement | statement", hint=hint)
    if isinstance(statement, str):
        _check_statement(reading, statement, tree)
    return Query(
        measurement=measurement if isinstance(measurement, str) else None,
        statement=statement if isinstance(statement, str) else None,
        language=language,
        where=tuple((tag, _read_condition(reading, tag, value)) for tag, value in object_of(tree.get("where")).items()),
        fields=texts_of(tree.get("fields")),
        tags=texts_of(tree.get("tags")),
    )


def _read_condition(reading: Reading, tag: str, value: JSON) -> tuple[Scalar, ...]:
    """Return the values that a tag may have; report a name or value that no stored tag has."""
    place = join_pointer("/from/where", tag)
    if not tag:
        reading.report("IFX114", place, "the name of the tag is empty", key=True)
    items = value if isinstance(value, list) else [value]
    values = []
    for number, item in enumerate(items):
        if (scalar := scalar_of(item)) is None:
            continue
        values.append(scalar)
        pointer = join_pointer(place, number) if isinstance(value, list) else place
        if tag_text(scalar) is None:
            hint = "no row has an empty tag; use a `statement` to select rows without the tag"
            reading.report("IFX114", pointer, "the string is empty", hint=hint)
    return tuple(values)


def _check_statement(reading: Reading, statement: str, tree: Mapping[str, JSON]) -> None:
    place = "/from/statement"
    for name in ("$start", "$stop"):
        if re.search(re.escape(name) + r"\b", statement) is None:
            hint = "for example … WHERE time >= $start AND time < $stop …"
            reading.report(
                BAD_STATEMENT,
                place,
                f"the statement does not use {name}, so each query would read all rows",
                hint=hint,
            )
    for match in _NOW.finditer(statement):
        hint = "the window is [$start, $stop); `settle` keeps it behind the server's clock"
        message = "the statement uses the clock; a window must depend on its bounds only"
        reading.report(BAD_STATEMENT, place, message, offset=match.start(), length=len(match.group()), hint=hint)
    for match in _LIMIT.finditer(statement):
        message = "a window with more rows than this would lose the others without a word"
        hint = "remove it; a window that is too large for one answer is read in parts"
        length = len(match.group())
        reading.warn(LIMITED, place, message, offset=match.start(), length=length, hint=hint)
    if tree.get("language", "auto") == "auto":
        hint = "add `language: sql`, influxql or flux"
        reading.report(BAD_STATEMENT, place, "missing `language` of the statement", key=True, hint=hint)
    for key in ("where", "fields", "tags"):
        if key in tree:
            message = f"`{key}` has no effect with a statement"
            reading.report("IFX126", join_pointer("/from", key), message, key=True)


def _read_cursor(reading: Reading, tree: Mapping[str, JSON]) -> CursorSpec:
    default = CursorSpec()
    start = tree.get("start", "beginning")
    begin = start if start in ("beginning", "now") else read_time(reading, start, "/cursor/start")
    end = read_time(reading, tree.get("end"), "/cursor/end")
    if isinstance(begin, int) and end is not None and end <= begin:
        reading.report("IFX125", "/cursor/end", "`end` is not after `start`")
    check_length(reading, tree.get("mark"), "/cursor/mark")
    window = read_duration(tree.get("window"), default.window_ns)
    if window == 0:
        reading.report("IFX125", "/cursor/window", "the window has no length")
    return CursorSpec(
        column=str(tree.get("column", default.column)),
        start="beginning" if begin is None or begin == "beginning" else "now" if begin == "now" else int(begin),
        end_ns=end,
        settle_ns=read_duration(tree.get("settle"), default.settle_ns),
        overlap_ns=read_duration(tree.get("overlap"), default.overlap_ns),
        window_ns=window,
        mark=None if "mark" not in tree else str(tree["mark"]),
    )


def _read_message(reading: Reading, tree: Mapping[str, JSON], pointer: str) -> MessageSpec:
    headers = object_of(tree.get("headers"))
    place = join_pointer(pointer, "headers")
    for name in headers:
        if not name or len(name.encode("utf-8", "surrogatepass")) > 255:
            reading.report("IFX122", join_pointer(place, name), "expected a header name of 1 to 255 bytes", key=True)
    return MessageSpec(
        payload=_read_payload(reading, tree.get("payload", "@"), join_pointer(pointer, "payload")),
        key=reading.source(tree["key"], join_pointer(pointer, "key")) if "key" in tree else None,
        headers=tuple((name, reading.source(value, join_pointer(place, name))) for name, value in headers.items()),
        timestamp=reading.expression(tree.get("timestamp"), join_pointer(pointer, "timestamp")),
        for_each=reading.choice(tree, "for_each", ("row", "series", "window")),
        pointer=pointer,
    )


def _read_payload(reading: Reading, value: JSON, pointer: str) -> Source:
    """Return an expression, also for a template.

    The members of a template are compiled one by one, for the places of their problems, and then as one expression.
    """
    if not isinstance(value, dict):
        return reading.expression(value, pointer) or NOTHING
    parts = []
    before = len(reading.problems)
    for name, member in value.items():
        source = reading.source(member, join_pointer(pointer, name))
        parts.append(f"{json.dumps(name)}: ({_text_of(source)})")
    if len(reading.problems) > before or reading.problems:
        return NOTHING
    return reading.expression("{" + ", ".join(parts) + "}", pointer) or NOTHING


def _text_of(source: Source) -> str:
    if isinstance(source, Const):
        return "`" + json.dumps(source.value, ensure_ascii=False).replace("`", "\\`") + "`"
    return source.text
