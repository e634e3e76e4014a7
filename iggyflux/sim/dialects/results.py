"""Results of `/query` in the forms of 1.x and 2.x: JSON whole or in chunks, CSV, MessagePack."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice

import msgspec

from iggyflux.sim.exchange import HttpResponse
from iggyflux.sim.queries.influxql import Frame
from iggyflux.sim.texts import go_json, plain_digits, rfc3339

CHUNK = 10_000
UNITS = {"u": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3_600 * 10**9}


class StatementResult(msgspec.Struct):
    """The result of one statement: frames, or an error."""

    number: int
    frames: Iterator[Frame] = iter(())
    error: str | None = None


def render(
    results: Iterable[StatementResult], form: Mapping[str, str], accept: str, headers: Callable[[str], dict[str, str]]
) -> HttpResponse:
    """Return the response of `/query` in the requested form."""
    if accept in ("application/csv", "text/csv"):
        return HttpResponse(200, headers("text/csv"), _csv(results, form.get("epoch", "")))
    if accept == "application/x-msgpack":
        return HttpResponse(200, headers("application/x-msgpack"), _msgpack(results, form.get("epoch", "")))
    epoch = form.get("epoch", "").strip()
    if form.get("chunked") == "true":
        size = form.get("chunk_size", "")
        return HttpResponse(
            200,
            headers("application/json"),
            _chunks(results, epoch, int(size) if size.isdigit() and size != "0" else CHUNK),
        )
    return HttpResponse(200, headers("application/json"), _whole(results, epoch))


def _whole(results: Iterable[StatementResult], epoch: str) -> Iterator[bytes]:
    yield b'{"results":['
    for index, result in enumerate(results):
        lead = b"," if index else b""
        if result.error is not None:
            yield lead + _json({"statement_id": result.number, "error": result.error})
            continue
        yield lead + b'{"statement_id":%d' % result.number
        opened = False
        for frame in result.frames:
            yield b"," if opened else b',"series":['
            opened = True
            rows = iter(frame.rows)
            first = next(rows, None)
            if first is None:
                yield _frame_head(frame).removesuffix(b',"values":[') + b"}"
                continue
            yield _frame_head(frame) + _row(frame, first, epoch).encode("utf-8", "surrogateescape")
            while batch := [_row(frame, row, epoch) for row in islice(rows, CHUNK)]:
                yield ("," + ",".join(batch)).encode("utf-8", "surrogateescape")
            yield b"]}"
        yield b"]}" if opened else b"}"
    yield b"]}\n"


def _frame_head(frame: Frame) -> bytes:
    head: dict[str, object] = {"name": frame.name} if frame.name else {}
    if frame.tags:
        head["tags"] = dict(frame.tags)
    head["columns"] = list(frame.columns)
    values = '"values":['
    return (go_json(head)[:-1] + "," + values).encode()


def _chunks(results: Iterable[StatementResult], epoch: str, size: int) -> Iterator[bytes]:
    for result in results:
        if result.error is not None:
            yield _json({"results": [{"statement_id": result.number, "error": result.error}]}) + b"\n"
            continue
        pending: tuple[Frame, list[str], bool] | None = None
        for piece in _pieces(result.frames, epoch, size):
            if pending is not None:
                yield _chunk(result.number, pending, more=True)
            pending = piece
        if pending is not None:
            yield _chunk(result.number, pending, more=False)
        else:
            yield _json({"results": [{"statement_id": result.number}]}) + b"\n"


def _pieces(frames: Iterator[Frame], epoch: str, size: int) -> Iterator[tuple[Frame, list[str], bool]]:
    """Return the rows in portions of one series; the flag says whether the series goes on."""
    for frame in frames:
        rows: list[str] = []
        for row in frame.rows:
            if len(rows) == size:
                yield frame, rows, True
                rows = []
            rows.append(_row(frame, row, epoch))
        yield frame, rows, False


def _chunk(number: int, piece: tuple[Frame, list[str], bool], *, more: bool) -> bytes:
    frame, rows, goes_on = piece
    tail = ',"partial":true' if goes_on else ""
    end = ',"partial":true' if more else ""
    text = f'{{"results":[{{"statement_id":{number},"series":['.encode()
    return text + _frame_head(frame) + ",".join(rows).encode() + f"]{tail}}}]{end}}}]}}\n".encode()


def _row(frame: Frame, row: Iterable[object], epoch: str) -> str:
    cells = [_cell(value) for value in row]
    if frame.columns[0] == "time":
        cells[0] = _time(cells[0], epoch)
    return go_json(cells)


def _cell(value: object) -> object:
    if isinstance(value, bytes):
        return _text(value)
    return value[0] if isinstance(value, list) else value


def _time(value: object, epoch: str) -> object:
    assert isinstance(value, int)  # noqa: S101 (the first column of a select)
    if not epoch:
        return rfc3339(value)
    unit = UNITS.get(epoch, 1)
    return value // unit if value >= 0 else -(-value // unit)


def _csv(results: Iterable[StatementResult], epoch: str) -> Iterator[bytes]:
    first = True
    for result in results:
        if result.error is not None:
            yield b"error\n" + _line([result.error])
            continue
        columns: list[str] | None = None
        for frame in result.frames:
            if columns != list(frame.columns):
                columns = list(frame.columns)
                if not first:
                    yield b"\n"
                first = False
                yield _line(["name", "tags", *columns])
            tags = ",".join(f"{key}={value}" for key, value in frame.tags.items())
            for row in frame.rows:
                cells = [_cell(value) for value in row]
                if columns[0] == "time":
                    cells[0] = _time(cells[0], epoch or "ns")
                yield _line([frame.name, tags, *(_csv_text(cell) for cell in cells)])


def _csv_text(cell: object) -> str:
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return "true" if cell else "false"
    return plain_digits(repr(cell)) if isinstance(cell, float) else str(cell)


def _line(cells: list[str]) -> bytes:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow(cells)
    return out.getvalue().encode("utf-8", "surrogateescape")


def _msgpack(results: Iterable[StatementResult], epoch: str) -> bytes:
    body = []
    for result in results:
        if result.error is not None:
            body.append({"statement_id": result.number, "error": result.error})
            continue
        series = []
        for frame in result.frames:
            rows = []
            for row in frame.rows:
                cells = [_cell(value) for value in row]
                if frame.columns[0] == "time":
                    cells[0] = _time(cells[0], epoch) if epoch else _time_extension(cells[0])
                rows.append(
                    [cell.encode("utf-8", "replace").decode() if isinstance(cell, str) else cell for cell in cells]
                )
            entry = {"name": frame.name, "tags": dict(frame.tags), "columns": list(frame.columns), "values": rows}
            series.append({key: value for key, value in entry.items() if value or key == "values"})
        body.append({"statement_id": result.number, **({"series": series} if series else {})})
    return msgspec.msgpack.encode({"results": body})


def _time_extension(value: object) -> msgspec.msgpack.Ext:
    assert isinstance(value, int)  # noqa: S101 (the first column of a select)
    seconds, fraction = divmod(value, 10**9)
    return msgspec.msgpack.Ext(5, seconds.to_bytes(8, "big", signed=True) + fraction.to_bytes(4, "big"))


def _json(value: object) -> bytes:
    return go_json(value).encode("utf-8", "surrogateescape")


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
