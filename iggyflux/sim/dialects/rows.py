"""Rows in the forms of 3.x: JSON, JSON lines, CSV, a table for people, and the JSON of the old `/query`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from math import isfinite

from iggyflux.sim.dialects.base import Dropped
from iggyflux.sim.dialects.results import UNITS as EPOCHS
from iggyflux.sim.queries.influxql import Frame
from iggyflux.sim.texts import arrow_float, csv_cell, rfc3339, rust_json, rust_time, ryu_float

Columns = Sequence[tuple[str, str]]
"""Names and kinds of columns; a value of kind `time` is integer nanoseconds, written as a time."""
Rows = Iterable[Sequence[object]]


def _cells(columns: Columns, row: Sequence[object]) -> list[object]:
    return [
        rust_time(value) if kind == "time" and isinstance(value, int) else _scalar(value)
        for (_, kind), value in zip(columns, row, strict=True)
    ]


def _scalar(value: object) -> object:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value[0] if isinstance(value, list) else value


def _objects(columns: Columns, rows: Rows) -> Iterator[str]:
    names = [name for name, _ in columns]
    for row in rows:
        cells = _cells(columns, row)
        row_object = {name: cell for name, cell in zip(names, cells, strict=True) if cell is not None}
        yield rust_json(row_object, arrow_float)


def _as_jsonl(columns: Columns, rows: Rows) -> Iterator[bytes]:
    yield from _batched((line + "\n" for line in _objects(columns, rows)), "")


def _as_json(columns: Columns, rows: Rows) -> Iterator[bytes]:
    yield b"["
    yield from _batched(_objects(columns, rows), ",")
    yield b"]"


def _as_csv(columns: Columns, rows: Rows) -> Iterator[bytes]:
    def lines() -> Iterator[str]:
        for number, row in enumerate(rows):
            if not number:  # without a row there is no header
                yield ",".join(csv_cell(name) for name, _ in columns) + "\n"
            yield ",".join(csv_cell(_csv_text(cell)) for cell in _cells(columns, row)) + "\n"

    yield from _batched(lines(), "")


def _as_pretty(columns: Columns, rows: Rows) -> Iterator[bytes]:
    table = [[name for name, _ in columns], *([_csv_text(cell) for cell in _cells(columns, row)] for row in rows)]
    widths = [max(len(row[index]) for row in table) for index in range(len(columns))]
    rule = "+" + "+".join("-" * (width + 2) for width in widths) + "+"
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in table
    ]
    yield "\n".join([rule, lines[0], rule, *lines[1:], rule]).encode()


def _csv_text(cell: object) -> str:
    if cell is None:
        return ""
    if isinstance(cell, float):
        return ryu_float(cell)
    return cell if isinstance(cell, str) else rust_json(cell)


def _batched(texts: Iterable[str], separator: str) -> Iterator[bytes]:
    buffer: list[str] = []
    first = True
    for text in texts:
        buffer.append(text)
        if len(buffer) == 1_000:
            yield (("" if first else separator) + separator.join(buffer)).encode("utf-8", "replace")
            buffer, first = [], False
    if buffer:
        yield (("" if first else separator) + separator.join(buffer)).encode("utf-8", "replace")


FORMATS: dict[str, Callable[[Columns, Rows], Iterator[bytes]]] = {
    "json": _as_json,
    "jsonl": _as_jsonl,
    "csv": _as_csv,
    "pretty": _as_pretty,
}


def flatten(frames: Iterator[Frame]) -> tuple[Columns, Rows]:
    """Return frames as one table, with the measurement in a column of its own."""
    found = list(frames)
    if not found:
        return [], []
    if found[0].name == "databases":
        return [("iox::database", "string")], [row for frame in found for row in frame.rows]
    heads: list[str] = []
    for frame in found:
        for name in (*frame.columns[:1], *sorted(frame.tags), *frame.columns[1:]):
            if name not in heads:
                heads.append(name)
    columns = [("iox::measurement", "string"), *((name, "time" if name == "time" else "other") for name in heads)]

    def rows() -> Iterator[Sequence[object]]:
        for frame in found:
            for row in frame.rows:
                values = {
                    **{key: text or None for key, text in frame.tags.items()},
                    **dict(zip(frame.columns, row, strict=True)),
                }
                yield [frame.name, *(values.get(name) for name in heads)]

    return columns, rows()


def _v1_cells(frame: Frame, row: Sequence[object], epoch: str) -> list[object]:
    cells = [_scalar(value) for value in row]
    if any(isinstance(cell, float) and not isfinite(cell) for cell in cells):
        raise Dropped("a value that this JSON cannot hold")
    time = cells[0]
    if frame.columns[0] == "time" and isinstance(time, int):
        unit = EPOCHS.get(epoch, 1)
        cells[0] = (time // unit if time >= 0 else -(-time // unit)) if epoch else rfc3339(time)
    return cells


def _v1_series(frame: Frame, rows: Iterable[Sequence[object]], epoch: str) -> dict[str, object]:
    head: dict[str, object] = {"name": frame.name}
    if frame.tags:
        head["tags"] = dict(frame.tags)
    return {**head, "columns": list(frame.columns), "values": [_v1_cells(frame, row, epoch) for row in rows]}


def v1_json(frames: Iterator[Frame], epoch: str, chunk: int | None) -> Iterator[bytes]:
    if chunk is None:
        series = [_v1_series(frame, frame.rows, epoch) for frame in frames]
        series.reverse()  # the server returns the last group first
        yield _v1_line(series)
        return
    empty = True
    for frame in frames:
        rows: list[Sequence[object]] = []
        for row in frame.rows:
            if len(rows) == chunk:
                yield _v1_line([_v1_series(frame, rows, epoch)])
                rows = []
            rows.append(row)
        empty = False
        yield _v1_line([_v1_series(frame, rows, epoch)])
    if empty:
        yield _v1_line([])


def _v1_line(series: list[dict[str, object]]) -> bytes:
    result: dict[str, object] = {"statement_id": 0}
    if series:
        result["series"] = series
    return rust_json({"results": [result]}).encode("utf-8", "replace") + b"\r\n"


def v1_csv(frames: Iterator[Frame], epoch: str) -> Iterator[bytes]:
    first = True
    for frame in frames:
        lines = [",".join(("name", "tags", *frame.columns))] if first else []
        first = False
        rows = (_v1_cells(frame, row, epoch) for row in frame.rows)
        lines += [",".join((frame.name, "", *map(_csv_text, cells))) for cells in rows]
        yield ("\n".join(lines) + "\n").encode("utf-8", "replace")
    yield b"\r\n"
