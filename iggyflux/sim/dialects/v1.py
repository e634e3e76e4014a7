"""InfluxDB 1.6 and 1.8: `/write`, `/query`, `/ping`, and from 1.8 `/api/v2/write` and `/health`."""

from __future__ import annotations

import csv
import io
import json
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from urllib.parse import parse_qsl

import msgspec

from iggyflux.sim import classic, shards
from iggyflux.sim.dialects.base import READ, WRITE, Dialect, Tally, basic_credentials
from iggyflux.sim.queries import ParseError, QueryError, influxql
from iggyflux.sim.queries.conditions import Scalar
from iggyflux.sim.queries.influxql import Frame
from iggyflux.sim.texts import go_json, go_string, plain_digits, rfc3339
from iggyflux.sim.wire import Answer, Request, TooLarge, Undecodable, gunzip

MAX_BODY = 25_000_000
CHUNK = 10_000
UNITS = {"u": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3_600 * 10**9}
_CONSISTENCIES = ("any", "one", "quorum", "all")


class Failed(Exception):
    """An answer with an error."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        self.message = message
        super().__init__(message)


class V1(Dialect):
    """InfluxDB 1.x."""

    write_paths = frozenset(("/write", "/api/v2/write"))
    query_paths = frozenset(("/query",))

    def answer(self, request: Request, tally: Tally) -> Answer:
        known = self._routes().get(request.path)
        if known is None:
            return self._plain(404, "404 page not found\n")
        handler = known.get(request.method)
        if handler is None:
            if request.method == "OPTIONS":
                return Answer(204, self._headers())
            allowed = ", ".join(sorted((*known, "OPTIONS") if request.path in ("/write", "/query") else known))
            return replace(
                self._plain(405, "Method Not Allowed\n"), headers={"Allow": allowed, **self._plain(405, "").headers}
            )
        try:
            return handler(request, tally)
        except Failed as failed:
            return self.failure(failed.status, failed.message)

    def failure(self, status: int, message: str) -> Answer:
        headers = self._headers()
        if status == 401:
            headers["WWW-Authenticate"] = 'Basic realm="InfluxDB"'
        else:
            headers["X-Influxdb-Error"] = message.encode("utf-8", "surrogateescape")[:1024].decode(
                "utf-8", "surrogateescape"
            )
        return Answer(status, headers, go_body(_json({"error": message}) + b"\n"))

    def too_large(self, _request: Request, _limit: int) -> Answer:
        return self.failure(413, "Request Entity Too Large")

    def _routes(self) -> dict[str, dict[str, Callable[[Request, Tally], Answer]]]:
        routes: dict[str, dict[str, Callable[[Request, Tally], Answer]]] = {
            "/ping": {"GET": self._ping, "HEAD": self._ping},
            "/status": {"GET": self._status, "HEAD": self._status},
            "/query": {"GET": self._query, "POST": self._query},
            "/write": {"POST": self._write},
        }
        if self.settings.newer(1, 8):
            routes["/api/v2/write"] = {"POST": self._write_v2}
            routes["/api/v2/query"] = {"POST": self._flux}
            routes["/health"] = {"GET": self._health}
        return routes

    def _headers(self, content_type: str | None = "application/json") -> dict[str, str]:
        number = str(uuid.uuid1())
        headers = {"Content-Type": content_type} if content_type else {}
        return headers | {"Request-Id": number, **self._product(), "X-Request-Id": number}

    def _product(self) -> dict[str, str]:
        return {"X-Influxdb-Build": "OSS", "X-Influxdb-Version": self.settings.version}

    def _plain(self, status: int, text: str) -> Answer:
        headers = {"Content-Type": "text/plain; charset=utf-8", "X-Content-Type-Options": "nosniff", **self._product()}
        return Answer(status, headers, text.encode())

    # --- small ones ---

    def _ping(self, request: Request, _tally: Tally) -> Answer:
        if request.query.get("verbose") not in (None, "", "0", "false") and self.settings.newer(1, 8):
            return Answer(200, self._headers(), go_json({"version": self.settings.version}).encode())
        return Answer(204, self._headers())

    def _status(self, _request: Request, _tally: Tally) -> Answer:
        return Answer(204, self._headers())

    def _health(self, _request: Request, _tally: Tally) -> Answer:
        body = {
            "checks": [],
            "message": "ready for queries and writes",
            "name": "influxdb",
            "status": "pass",
            "version": self.settings.version,
        }
        return Answer(200, self._headers(), go_json(body).encode())

    def _flux(self, _request: Request, _tally: Tally) -> Answer:
        text = "Flux query service disabled. Verify flux-enabled=true in the [http] section of the InfluxDB config.\n"
        return self._plain(403, text)

    # --- writing ---

    def _write(self, request: Request, tally: Tally) -> Answer:
        rights = self._authorize(request)
        precision = request.query.get("precision", "")
        answer = self._store(
            request, tally, request.query.get("db", ""), request.query.get("rp", ""), precision, rights
        )
        if self.settings.newer(1, 8) and precision not in ("", "n", "ns", *UNITS):
            # the server says so and goes on with the write all the same
            return self.failure(400, f"invalid precision {go_string(precision)} (use n, u, ms, s, m or h)")
        return answer

    def _write_v2(self, request: Request, tally: Tally) -> Answer:
        rights = self._authorize(request)
        bucket = request.query.get("bucket", "")
        if not bucket:
            raise Failed(404, 'bucket name "" is missing a slash; not in "database/retention-policy" format')
        database, _, policy = bucket.partition("/")
        if not database:
            raise Failed(404, f"bucket name {go_string(bucket)} is in db/rp form but has an empty database")
        precision = request.query.get("precision", "")
        unit = {"ns": "n", "us": "u"}.get(precision, precision)
        answer = self._store(request, tally, database, policy, unit, rights)
        if precision not in ("", "ns", "us", "ms", "s"):
            return self.failure(400, f"invalid precision {go_string(precision)} (use ns, us, ms or s)")
        return answer

    def _store(
        self, request: Request, tally: Tally, database: str, policy: str, precision: str, rights: frozenset[str]
    ) -> Answer:
        if not database:
            raise Failed(400, "database is required")
        owner = self.store.databases.get(database)
        if owner is None:
            raise Failed(404, f"database not found: {go_string(database)}")
        if WRITE not in rights:
            name = self._user(request)
            raise Failed(403, f'"{name}" user is not authorized to write to database "{database}"')
        try:
            data = self._body(request)
        except TooLarge:
            return self.too_large(request, self.settings.max_body or MAX_BODY)
        now = self.settings.now_ns()
        rules = classic.Rules(unsigned=False, reserved_tags=False)
        points, bad = classic.parse(data, rules, UNITS.get(precision, 1), now)
        tally.lines, tally.refused = len(points) + len(bad), len(bad)
        words = "\n".join(f"unable to parse '{_text(line.line)}': {line.reason}" for line in bad)
        if bad and not points:
            raise Failed(400, words)
        consistency = request.query.get("consistency", "")
        if consistency and consistency.lower() not in _CONSISTENCIES:
            raise Failed(400, "invalid consistency level")
        place = owner.policy(policy)
        if place is None:
            raise Failed(500, f"retention policy not found: {policy}")
        outcome = shards.write(self.store, place, points, shards.Rules(immediate=False, quoted=False), now)
        tally.stored, tally.refused = outcome.stored, tally.lines - outcome.stored
        if outcome.trouble is not None:
            raise Failed(500 if isinstance(outcome.trouble, shards.EngineFailure) else 400, str(outcome.trouble))
        if outcome.beyond:
            raise Failed(400, f"partial write: points beyond retention policy dropped={len(outcome.beyond)}")
        if bad:
            raise Failed(400, f"partial write: {words} dropped=0")
        return Answer(204, self._headers())

    def _body(self, request: Request) -> bytes:
        limit = self.settings.max_body or MAX_BODY
        zipped = request.headers.get("content-encoding") == "gzip"
        data = request.body.read(None if zipped and request.body.length is None else limit)
        if not zipped:
            return data
        try:
            return gunzip(data)
        except Undecodable as exc:
            raise Failed(400, str(exc)) from exc

    # --- who asks ---

    def _authorize(self, request: Request, _form: Mapping[str, str] | None = None) -> frozenset[str]:
        if not self.settings.tokens:
            return self.rights(None) or frozenset()
        credentials = self._credentials(request)
        if isinstance(credentials, str):
            raise Failed(401, credentials)
        if not credentials[0]:
            raise Failed(401, "username required")
        rights = self.rights(":".join(credentials))
        if rights is None:
            raise Failed(401, "authorization failed")
        return rights

    def _credentials(self, request: Request) -> tuple[str, str] | str:
        """User and password, or why there are none."""
        user, password = request.query.get("u", ""), request.query.get("p", "")
        if user and password:
            return user, password
        header = request.headers.get("authorization", "")
        parts = header.split(" ")
        if len(parts) == 2 and parts[0] == "Bearer":
            return "bearer auth disabled"
        if len(parts) == 2 and parts[0] == "Token" and self.settings.newer(1, 8):
            name, colon, secret = parts[1].partition(":")
            if colon:
                return name, secret
        return basic_credentials(header) or "unable to parse authentication credentials"

    def _user(self, request: Request) -> str:
        credentials = self._credentials(request)
        return credentials if isinstance(credentials, str) else credentials[0]

    # --- reading ---

    def _query(self, request: Request, _tally: Tally) -> Answer:
        form = query_form(request)
        rights = self._authorize(request, form)
        text = form.get("q", "").strip()
        accept = request.headers.get("accept", "")
        if not text:
            raise Failed(400, 'missing required parameter "q"')
        try:
            statements = influxql.parse(text, parameters(form), self.settings.now_ns())
        except ParseError as exc:
            raise Failed(400, f"error parsing query: {exc}") from exc
        self._check_rights(request, statements, rights, form.get("db", ""))
        results = self._results(statements, form.get("db", ""), form.get("rp", ""))
        return render(results, form, accept, self._headers)

    def _check_rights(
        self, request: Request, statements: Iterable[influxql.Statement], rights: frozenset[str], database: str
    ) -> None:
        for statement in statements:
            needed = WRITE if isinstance(statement, influxql.Change) else READ
            if needed not in rights:
                user = self._user(request)
                name = type(statement).__name__.upper()
                words = f"{user} not authorized to execute statement '{name}', requires {needed.upper()} on {database}"
                raise Failed(403, f"error authorizing query: {words}")

    def _results(self, statements: Iterable[influxql.Statement], database: str, policy: str) -> Iterator[Result]:
        failed = False
        for number, statement in enumerate(statements):
            if failed:
                yield Result(number, error="not executed")
                continue
            if isinstance(statement, influxql.Show):
                statement = replace(statement, hides_unreadable=True)
            try:
                yield Result(number, influxql.run(self.store, statement, database, policy))
            except QueryError as exc:
                failed = True
                yield Result(number, error=str(exc))


class Result(msgspec.Struct):
    """What one statement gave: frames, or an error."""

    number: int
    frames: Iterator[Frame] = iter(())
    error: str | None = None


def query_form(request: Request) -> dict[str, str]:
    """Parameters of a query from the address and, for a POST, from the form in the body, which wins."""
    form = dict(request.query)
    content_type = request.headers.get("content-type", "")
    if request.method == "POST" and not content_type.startswith("multipart"):
        body = request.body.read().decode("utf-8", "replace")
        if content_type.startswith("application/vnd.influxql"):
            form["q"] = body
        else:
            form.update(parse_qsl(body, keep_blank_values=True))
    return form


def parameters(form: Mapping[str, str]) -> dict[str, Scalar]:
    """The values of `$name` in a statement.  Raises `ParseError`."""
    text = form.get("params")
    if not text:
        return {}
    try:
        found = json.loads(text)
    except json.JSONDecodeError as exc:
        raise ParseError(f"error parsing query parameters: {exc}") from exc
    return dict(found) if isinstance(found, dict) else {}


# --- how results are written ---


def render(
    results: Iterable[Result], form: Mapping[str, str], accept: str, headers: Callable[[str], dict[str, str]]
) -> Answer:
    """The answer of `/query` in the form that was asked for."""
    if accept in ("application/csv", "text/csv"):
        return Answer(200, headers("text/csv"), _csv(results, form.get("epoch", "")))
    if accept == "application/x-msgpack":
        return Answer(200, headers("application/x-msgpack"), _msgpack(results, form.get("epoch", "")))
    epoch = form.get("epoch", "").strip()
    if form.get("chunked") == "true":
        size = form.get("chunk_size", "")
        return Answer(
            200,
            headers("application/json"),
            _chunks(results, epoch, int(size) if size.isdigit() and size != "0" else CHUNK),
        )
    return Answer(200, headers("application/json"), _whole(results, epoch))


def _whole(results: Iterable[Result], epoch: str) -> Iterator[bytes]:
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
            yield _frame_head(frame)
            buffer: list[str] = []
            written = False
            for row in frame.rows:
                buffer.append(_row(frame, row, epoch))
                if len(buffer) == CHUNK:
                    yield (("," if written else "") + ",".join(buffer)).encode()
                    buffer, written = [], True
            yield (("," if written and buffer else "") + ",".join(buffer)).encode() + b"]}"
        yield b"]}" if opened else b"}"
    yield b"]}\n"


def _frame_head(frame: Frame) -> bytes:
    head: dict[str, object] = {"name": frame.name} if frame.name else {}
    if frame.tags:
        head["tags"] = dict(frame.tags)
    head["columns"] = list(frame.columns)
    values = '"values":['
    return (go_json(head)[:-1] + "," + values).encode()


def _chunks(results: Iterable[Result], epoch: str, size: int) -> Iterator[bytes]:
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
    """Rows in portions of one series; the flag says whether the series goes on."""
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


def _csv(results: Iterable[Result], epoch: str) -> Iterator[bytes]:
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


def _msgpack(results: Iterable[Result], epoch: str) -> bytes:
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


def go_body(data: bytes) -> bytes | tuple[bytes, ...]:
    """A body as Go's server sends it: over 2,048 bytes it goes out in chunks."""
    return data if len(data) <= 2_048 else (data,)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
