"""`iggyflux explain`: describes what a mapping reads and writes, and prints its generated code."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import click

from iggyflux.authoring.generate import GenerateError, generate_messages
from iggyflux.cli.inputs import MAPPING_FILE, open_mapping, open_pipeline
from iggyflux.cli.output import ExitCode, Line, Styled, json_text, result, result_line
from iggyflux.cli.tags import routes_of, tags_for
from iggyflux.expressions import Expression
from iggyflux.expressions.syntax import nodes_in
from iggyflux.mapping import Field, Mapping, PointSpec, Reader, Source, Star, Tag, Timestamp, Writer, WriterMapping
from iggyflux.plan.compiled import CompiledPlan
from iggyflux.plan.cost import measure_cost
from iggyflux.plan.reads import payload_reads, writer_expressions
from iggyflux.plan.tags import with_defaults
from iggyflux.reads import Reads
from iggyflux.timestamps import format_rfc3339
from iggyflux.transports.influxdb.flavors import FLAVORS

Row = tuple[str, ...]
_MEASURED = 7000
_MEASURED_FROM_NS = 1_750_000_000 * 10**9


@click.command(name="explain")
@click.argument("mapping", type=MAPPING_FILE)
@click.option("--source", "source_only", is_flag=True, help="Print only the generated source.")
@click.option("--precision", type=click.Choice(["ns", "us", "ms", "s"]), help="Default: that of --pipeline, or ns.")
@click.option(
    "--dialect", type=click.Choice(["v1", "v2", "v3"]), help="Default: that of the flavor in --pipeline, or v2."
)
@click.option("--pipeline", type=MAPPING_FILE, help="Add the tags of this pipeline file.")
@click.option("--cost", is_flag=True, help="Measure what a message costs, on messages like the examples.")
def command(
    mapping: Path, source_only: bool, precision: str | None, dialect: str | None, pipeline: Path | None, cost: bool
) -> int:
    """Describe what a mapping reads and writes, and show its code.

    Only the listed members of a payload are decoded. Points with the same identity overwrite each other. The code is
    what `run` executes; a record that it cannot handle is rendered by the reference plan. Expressions that are not
    written as code are listed as interpreted: they cost more.

    \b
    Example:
      iggyflux explain mapping.yaml
      iggyflux explain mapping.yaml --source --dialect v1 > plan.py
      iggyflux explain mapping.yaml --pipeline pipeline.yaml
      iggyflux explain mapping.yaml --cost
    """
    document = open_mapping(mapping)
    file = pipeline if document.kind == "writer" else None
    tags, run_precision, run_dialect = _of_a_run(mapping, file)
    precision, dialect = precision or run_precision, dialect or run_dialect
    if isinstance(document, WriterMapping):
        plan: Any = document.plan(dialect=dialect, precision=precision, tags=tags)
    else:
        plan = document.plan()
    if source_only:
        result(plan.source)
        return ExitCode.OK
    title = "code"
    if cost and (document.kind == "reader" or not plan.source):
        raise click.UsageError("--cost measures the compiled plan of a writer")
    if document.kind == "reader":
        _print(_reader_lines(document, document.reader, document.identity()))
    else:
        identity = document.identity(dialect=dialect, precision=precision, tags=tags)
        whose = f"dialect {dialect}, precision {precision}"
        of_tags = f"the tags of {pipeline}" if pipeline else "no tags (--pipeline FILE: those of a run)"
        about = f"  plan {identity}: {whose}, {of_tags}"
        _print(_writer_lines(document, document.writer, precision, tags, about))
        if isinstance(plan, CompiledPlan) and plan.source:
            _print(_interpreted_lines(document, plan))
            if cost:
                _print(_cost_lines(document, plan))
        title = f"code ({whose})"
    result_line("")
    if plan.source:
        result_line(Styled(title, bold=True))
        result_line("")
        for line in plan.source.rstrip("\n").split("\n"):
            result_line(f"  {line}" if line else "")
    else:
        result_line(Styled("code", bold=True))
        result_line(f"  none: the reference plan renders all messages ({plan.reason})")
    return ExitCode.OK


def _of_a_run(mapping: Path, file: Path | None) -> tuple[dict[str, str], str, str]:
    """Return tags, precision and dialect of a mapping in a pipeline; v2 where a run asks the server what it is."""
    if file is None:
        return {}, "ns", "v2"
    pipeline = open_pipeline(file, connects=False)
    tags, server = tags_for(mapping, pipeline), routes_of(mapping, pipeline)[0].influxdb
    if server is None:
        return tags, "ns", "v2"
    return tags, server.precision, FLAVORS[server.flavor].dialect.value if server.flavor in FLAVORS else "v2"


def _print(lines: Iterable[str | Line]) -> None:
    for line in lines:
        result_line(*((line,) if isinstance(line, str) else line))


def _heading(text: str, after: str = "") -> Line:
    return Styled(text, bold=True), after


def _aligned(rows: Iterable[Row], indent: str = "  ") -> Iterator[str]:
    """Yield rows with aligned columns."""
    rows = list(rows)
    widths = [max(len(row[i]) for row in rows if i < len(row)) for i in range(max(map(len, rows), default=0))]
    for row in rows:
        yield indent + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip()


# --- writers ---


def _writer_lines(
    mapping: Mapping, writer: Writer, precision: str, tags: dict[str, str], about_plan: str
) -> Iterator[str | Line]:
    source = writer.source
    yield _heading(mapping.name, f"  writer, {mapping.document.file}")
    yield about_plan
    yield ""
    yield _heading("reads")
    payload = source.payload
    way = "" if payload.compression == "none" else f", compression {payload.compression}"
    yield f"  stream {source.stream}, topic {', '.join(source.topics)}, payload {payload.format}{way}"
    paths = list(read_paths(payload_reads(writer)))
    yield from (f"    {path}" for path in paths or ["nothing of the payload"])
    for kind, names in _message_parts(writer):
        yield f"    {kind} {', '.join(names)}"
    if writer.where is not None:
        yield f"  only where  {writer.where.text}"
    for words, text in _lists(writer.for_each):
        yield f"  {words}  {text}"
    for number, point in enumerate(writer.points, 1):
        yield ""
        title = f"writes point {number}" if len(writer.points) > 1 else "writes"
        yield _heading(title, f"  {mapping.locate(point.pointer)}")
        yield from _point_lines(point, precision, tags)
    yield ""
    yield _heading("otherwise")
    yield from _aligned(
        [
            ("a record that fails", writer.on_error.value),
            ("points of one message with the same identity", writer.collisions.value),
            ("a name that some servers lose or change", writer.invalid_names),
        ]
    )


def read_paths(reads: Reads, path: str = "") -> Iterator[str]:
    """Yield the paths that are read of a payload: `a.b`, `readings[].celsius`, `extra.*`."""
    if reads.is_whole:
        yield path or "@ (the whole payload)"
        return
    if reads.items is not None:
        yield from read_paths(reads.items, f"{path}[]")
    for key, child in sorted(reads.keys.items()):
        name = key if key.isidentifier() and key.isascii() else json_text(key)
        yield from read_paths(child, f"{path}.{name}" if path else name)
    if reads.is_bare and path:
        yield path


def _message_parts(writer: Writer) -> Iterator[tuple[str, list[str]]]:
    """Yield the coordinates and headers that are read of a message."""
    found: dict[str, set[str]] = {"meta": set(), "header": set()}
    for expression in writer_expressions(writer):
        for node in nodes_in(expression.node):
            if node["type"] == "function_expression" and node["value"] in found:
                found[node["value"]].add(str(node["children"][0]["value"]))
    if any(point.timestamp.source is None or point.timestamp.default_message for point in writer.points):
        found["meta"].add("timestamp")
    for kind, words in (("meta", "of the message:"), ("header", "headers:")):
        if found[kind]:
            yield words, sorted(found[kind])


def _point_lines(point: PointSpec, precision: str, tags: dict[str, str]) -> Iterator[str]:
    rows: list[Row] = [(words, "", "", text) for words, text in _lists(point.for_each)]
    if point.to is not None:
        rows.append(("to bucket", "", "", _text(point.to.source)))
    rows.append(("measurement", "", "", _text(point.measurement)))
    if point.where is not None:
        rows.append(("only where", "", "", point.where.text))
    rows += [("tag", tag.key, "", _text(tag.source), _tag_notes(tag)) for tag in with_defaults(point.tags, tags)]
    added = [key for key in tags if key not in {tag.key for tag in point.tags}]
    rows += [("tag", key, "", f"constant {json_text(tags[key])}", "of the pipeline") for key in added]
    rows += [("tags", f"{star.prefix}*", "", _text(star.source), _star_notes(star)) for star in point.tag_stars]
    rows += [("field", each.key, each.type.value, _text(each.source), _field_notes(each)) for each in point.fields]
    rows += [
        ("fields", f"{star.prefix}*", star.type.value, _text(star.source), _star_notes(star))
        for star in point.field_stars
    ]
    rows.append(("time", "", *_time_cells(point.timestamp)))
    yield from _aligned(rows)
    identity = _identity(point, precision, added)
    yield f"  a point is identified by {identity}: a later point with the same values overwrites it"


def _lists(for_each: Sequence[Expression]) -> Iterator[tuple[str, str]]:
    """Yield the lists that points are made for, the outer one first, each with the words that say so."""
    for number, expression in enumerate(for_each):
        yield "and in it each of" if number else "for each of", " ".join(expression.text.split())


def _text(source: Source | None) -> str:
    if source is None:
        return "the message's own timestamp"
    return source.text if isinstance(source, Expression) else f"constant {json_text(source.value)}"


def _tag_notes(tag: Tag) -> str:
    return ", ".join(_default_notes(tag.default, tag.required))


def _field_notes(each: Field) -> str:
    return ", ".join([*_bad_value_notes(each), *_default_notes(each.default, each.required)])


def _bad_value_notes(each: Field | Star) -> Iterator[str]:
    if each.cast:
        yield "cast"
    if each.on_bad_value == "omit":
        yield "bad values left out"


def _default_notes(default: object, required: bool) -> Iterator[str]:
    if default is not None:
        yield f"default {json_text(default)}"
    if required:
        yield "required"


def _shown_path(path: tuple[str | int | None, ...]) -> str:
    steps = (f".{step}" if isinstance(step, str) else "[]" if step is None else f"[{step}]" for step in path)
    return "".join(steps).removeprefix(".")


def _star_notes(star: Star) -> str:
    notes = [*_bad_value_notes(star)]
    notes += [f"flattened with {star.flatten!r}"] if star.flatten is not None else []
    notes += [f"only {', '.join(star.include)}"] if star.include else []
    notes += [f"not {', '.join(star.exclude)}"] if star.exclude else []
    notes += [f"without {', '.join(sorted(map(_shown_path, star.used)))}, used above"] if star.used else []
    return "; ".join(notes)


_SPREAD = {"offset": "plus partition and offset in ns", "index": "plus the element's number in ns"}


def _time_cells(timestamp: Timestamp) -> Row:
    form = timestamp.pattern or timestamp.format.value
    notes = [f"in {timestamp.timezone}"] if timestamp.timezone else []
    notes += ["else the message's own timestamp"] if timestamp.default_message else []
    notes += [_SPREAD[timestamp.spread]] if timestamp.spread is not None else []
    return form if timestamp.source is not None else "", _text(timestamp.source), ", ".join(notes)


def _identity(point: PointSpec, precision: str, added: Sequence[str]) -> str:
    names = sorted([*added, *(tag.key for tag in point.tags)]) + [f"{star.prefix}*" for star in point.tag_stars]
    tags = f"the tags {', '.join(names)}" if names else "no tags"
    unit = {"ns": "nanosecond", "us": "microsecond", "ms": "millisecond", "s": "second"}[precision]
    return f"its measurement, {tags}, and its time to the {unit}"


def _interpreted_lines(mapping: WriterMapping, plan: CompiledPlan) -> Iterator[str | Line]:
    """Yield the expressions that are evaluated for each record."""
    yield ""
    yield _heading("interpreted", "" if plan.interpreted else "  nothing: all expressions are code")
    yield from _aligned(
        (
            _line_of(mapping, source),
            " ".join(source.text.split()),
            "" if of.inputs is not None else "reads whole values",
        )
        for source, of in plan.interpreted
    )
    if plan.refuses_unsigned and plan.dialect.has_unsigned:
        why = "a function is given what root() or parent() gives"
        yield f"  all of a message with an unsigned integer, at twenty times the cost: {why}"


def _cost_lines(mapping: WriterMapping, plan: CompiledPlan) -> Iterator[str | Line]:
    """Yield what a message costs here, by its parts."""
    yield ""
    try:
        made = generate_messages(mapping, start_ns=_MEASURED_FROM_NS, interval_ns=10**9)
        messages = list(islice(made, _MEASURED))
    except GenerateError as error:
        yield _heading("cost", f"  not measured: {error}")
        return
    cost = measure_cost(plan, messages)
    size = sum(len(message.payload) for message in messages) // len(messages)
    yield _heading("cost", f"  CPU time for a message of {size} bytes, here; {_MEASURED} like the examples")
    rows = [("all", cost.whole), ("decoding", cost.decoding)]
    by_cost = sorted(cost.interpreted, key=lambda part: -part[1])
    rows += [(f"{_line_of(mapping, source)}, interpreted", seconds) for source, seconds in by_cost]
    rows.append(("generated code", cost.generated))
    yield from _aligned((name, f"{seconds * 1e6:6.2f} µs", f"{seconds / cost.whole:4.0%}") for name, seconds in rows)


def _line_of(mapping: WriterMapping, source: Expression) -> str:
    line = mapping.document.locate(source.location).line
    return f"line {line}" if line else source.location


# --- readers ---


def _reader_lines(mapping: Mapping, reader: Reader, identity: str) -> Iterator[str | Line]:
    query, cursor, target = reader.source, reader.cursor, reader.target
    yield _heading(mapping.name, f"  reader, {mapping.document.file}, plan {identity}")
    yield ""
    yield _heading("reads")
    rows: list[Row] = [("language", query.language)]
    if query.measurement is not None:
        rows.insert(0, ("measurement", query.measurement))
    if query.statement is not None:
        rows.insert(0, ("statement", query.statement))
    rows += [(f"only where {tag}", " or ".join(map(json_text, values))) for tag, values in query.where]
    rows += [(words, ", ".join(names)) for words, names in (("fields", query.fields), ("tags", query.tags)) if names]
    rows += [
        ("from", format_rfc3339(cursor.start) if isinstance(cursor.start, int) else cursor.start),
        ("in windows of", _span(cursor.window_ns)),
        ("staying behind by", _span(cursor.settle_ns)),
        ("looking back by", _span(cursor.overlap_ns)),
    ]
    yield from _aligned(rows)
    for number, spec in enumerate(reader.messages, 1):
        yield ""
        title = f"sends message {number}" if len(reader.messages) > 1 else "sends"
        yield _heading(title, f"  {mapping.locate(spec.pointer)}")
        rows = [("for each", spec.for_each), ("payload", _text(spec.payload))]
        rows += [("key", _text(spec.key))] if spec.key is not None else []
        rows += [(f"header {name}", _text(source)) for name, source in spec.headers]
        rows += [("timestamp", spec.timestamp.text)] if spec.timestamp is not None else []
        yield from _aligned(rows)
    yield ""
    yield f"to stream {target.stream}, topic {target.topic}, payload {target.payload}"


def _span(ns: int) -> str:
    for size, unit in ((86_400 * 10**9, "d"), (3600 * 10**9, "h"), (60 * 10**9, "m"), (10**9, "s"), (10**6, "ms")):
        if ns and ns % size == 0:
            return f"{ns // size}{unit}"
    return f"{ns}ns"
