"""InfluxDB 3 Core: `/api/v3/write_lp`, the two older write paths, SQL and InfluxQL queries."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Iterator, Mapping

from iggyflux.sim import modern, tables
from iggyflux.sim.dialects import rows
from iggyflux.sim.dialects.base import READ, WRITE, Dropped, RequestTally, ServerDialect, basic_credentials
from iggyflux.sim.dialects.v1 import parameters, query_form
from iggyflux.sim.exchange import BodyTooLarge, HttpRequest, HttpResponse, Undecodable, gunzip
from iggyflux.sim.queries import ParseError, QueryError, influxql, sql
from iggyflux.sim.queries.influxql import Frame
from iggyflux.sim.store import Database
from iggyflux.sim.texts import rust_json

MAX_BODY = 10 * 2**20
MAX_NAME = 64
CHUNK = 10_000
_UNITS = {
    **dict.fromkeys(("ns", "n", "nanosecond"), 1),
    **dict.fromkeys(("us", "u", "microsecond"), 10**3),
    **dict.fromkeys(("ms", "millisecond"), 10**6),
    **dict.fromkeys(("s", "second"), 10**9),
}
_CONTENT_TYPES = {
    "json": "application/json",
    "jsonl": "application/jsonl",
    "csv": "text/csv",
    "pretty": "text/plain; charset=utf-8",
}
_ACCEPTS = {"text/csv": "csv", "text/plain": "pretty", "application/json": "json", "*/*": "json", "": "json"}
_GZIP_WORDS = {
    "EOF": "unexpected end of file",
    "unexpected EOF": "unexpected end of file",
    "gzip: invalid header": "invalid gzip header",
    "gzip: invalid checksum": "corrupt gzip stream does not have a matching checksum",
    "flate: corrupt input before offset 0": "corrupt deflate stream",
}
_PRECISIONS = "`s`, `second`, `millisecond`, `ms`, `microsecond`, `u`, `us`, `n`, `nanosecond`, `ns`"
_NO_ROUTE = "not found"
_MALFORMED = (
    "Authorization header was malformed, the request was not in the form of 'Authorization: <auth-scheme> <token>', "
    "supported auth-schemes are Bearer, Token and Basic"
)


class V3Error(Exception):
    """An error response: plain text, or JSON if `data` or `is_json` is given."""

    def __init__(
        self, status: int, message: str, *, is_json: bool = False, data: object = None, code: str = "invalid"
    ) -> None:
        self.status = status
        self.message = message
        self.is_json = is_json
        self.data = data
        self.code = code
        super().__init__(message)


class V3(ServerDialect):
    """InfluxDB 3 Core."""

    write_paths = frozenset(("/api/v3/write_lp", "/api/v2/write", "/write"))
    query_paths = frozenset(("/api/v3/query_sql", "/api/v3/query_influxql", "/query"))

    def answer(self, request: HttpRequest, tally: RequestTally) -> HttpResponse:
        if request.method == "OPTIONS":
            allow = {f"Access-Control-Allow-{name}": "*" for name in ("Origin", "Methods", "Headers")}
            return HttpResponse(204, {**allow, "Access-Control-Max-Age": "86400"})
        try:
            rights = self._authenticate(request)
            handler = self._routes().get((request.method, request.path))
            if handler is None:
                raise V3Error(404, _NO_ROUTE)
            return self._finish(handler(request, tally, rights))
        except V3Error as failed:
            return self._finish(self._failed(request, failed), failed=failed.message != _NO_ROUTE)

    def failure(self, status: int, message: str) -> HttpResponse:
        return HttpResponse(status, self._product(), _json({"error": message}))

    def too_large(self, request: HttpRequest, limit: int) -> HttpResponse:
        failed = V3Error(500, f"max request size ({limit} bytes) exceeded", code="request too large")
        return self._finish(self._failed(request, failed), failed=True)

    def _routes(self) -> dict[tuple[str, str], Callable[[HttpRequest, RequestTally, frozenset[str]], HttpResponse]]:
        routes: dict[tuple[str, str], Callable[[HttpRequest, RequestTally, frozenset[str]], HttpResponse]] = {
            ("POST", "/api/v3/write_lp"): self._write_v3,
            ("POST", "/api/v2/write"): self._write_v2,
            ("POST", "/write"): self._write_v1,
            ("GET", "/api/v3/configure/database"): self._databases,
            ("POST", "/api/v3/configure/database"): self._create_database,
            ("DELETE", "/api/v3/configure/database"): self._delete_database,
        }
        for method in ("GET", "POST"):
            routes[method, "/api/v3/query_sql"] = self._query_sql
            routes[method, "/api/v3/query_influxql"] = self._query_influxql
            routes[method, "/query"] = self._query_v1
            routes[method, "/ping"] = self._ping
        for path in ("/health", "/api/v1/health"):
            routes["GET", path] = self._health
        if self.settings.newer(3, 10):
            routes["GET", "/ready"] = self._health
        return routes

    def _finish(self, answer: HttpResponse, *, failed: bool = False) -> HttpResponse:
        """Add the headers of every response; failures lack the permission for other origins."""
        headers = {**answer.headers} if failed else {**answer.headers, "Access-Control-Allow-Origin": "*"}
        if self.settings.newer(3, 7):
            headers["cluster-uuid"] = self.settings.process
        return HttpResponse(answer.status, headers, answer.body, answer.close)

    def _product(self) -> dict[str, str]:
        return {}

    def _failed(self, request: HttpRequest, failed: V3Error) -> HttpResponse:
        if request.path == "/api/v2/write" and failed.status not in (401, 403) and failed.message != _MALFORMED:
            status = {"request too large": 413, "internal error": 500}.get(failed.code, 400)
            return HttpResponse(status, self._product(), _json({"code": failed.code, "message": _v2_message(failed)}))
        if failed.message == _MALFORMED:
            return HttpResponse(400, self._product(), f'{{"error": "{failed.message}"}}'.encode())
        if failed.data is not None:
            return HttpResponse(failed.status, self._product(), _json({"error": failed.message, "data": failed.data}))
        if failed.is_json:
            return HttpResponse(failed.status, self._product(), _json({"error": failed.message}))
        return HttpResponse(failed.status, self._product(), failed.message.encode("utf-8", "replace"))

    # --- other paths ---

    def _ping(self, _request: HttpRequest, _tally: RequestTally, _rights: frozenset[str]) -> HttpResponse:
        number = str(uuid.uuid4())
        headers = {
            "Content-Type": "application/json",
            "Request-Id": number,
            "X-Influxdb-Build": "Core",
            "X-Influxdb-Version": self.settings.version,
            "X-Request-Id": number,
        }
        body = {"version": self.settings.version, "revision": "simulator", "process_id": self.settings.process}
        return HttpResponse(200, headers, _json(body))

    def _health(self, _request: HttpRequest, _tally: RequestTally, _rights: frozenset[str]) -> HttpResponse:
        return HttpResponse(200, self._product(), b"OK")

    def _databases(self, request: HttpRequest, _tally: RequestTally, _rights: frozenset[str]) -> HttpResponse:
        names = [{"iox::database": name} for name in sorted(self.store.databases)]
        kind = "jsonl" if request.query.get("format") in ("jsonl", "json_lines") else "json"
        lines = [rust_json(row) for row in names]
        body = "".join(f"{line}\n" for line in lines) if kind == "jsonl" else f"[{','.join(lines)}]"
        return HttpResponse(200, {"Content-Type": _CONTENT_TYPES[kind]}, body.encode())

    def _create_database(self, request: HttpRequest, _tally: RequestTally, _rights: frozenset[str]) -> HttpResponse:
        tree = _read_json(request)
        name = tree.get("db")
        if not isinstance(name, str):
            raise V3Error(400, "serde json error: missing field `db`")
        _check_name(name)
        if name in self.store.databases:
            raise V3Error(409, "attempted to create a resource that already exists")
        self.store.create_database(name)
        return HttpResponse(200, self._product())

    def _delete_database(self, request: HttpRequest, _tally: RequestTally, _rights: frozenset[str]) -> HttpResponse:
        name = request.query.get("db", "")
        if name not in self.store.databases:
            raise V3Error(404, "the requested resource was not found")
        self.store.drop_database(name)
        return HttpResponse(200, self._product())

    # --- access ---

    def _authenticate(self, request: HttpRequest) -> frozenset[str]:
        if not self.settings.tokens:
            return self.rights(None) or frozenset()
        token = request.query.get("p") if request.path in ("/query", "/write") else None
        header = request.headers.get("authorization")
        if token is None and header is not None:
            token = _token(header)
        rights = self.rights(token)
        if rights is None:
            raise V3Error(
                401,
                "the request was not authenticated" if self.settings.newer(3, 7) else "",
                is_json=self.settings.newer(3, 7),
            )
        return rights

    def _allow(self, rights: frozenset[str], needed: str) -> None:
        if needed not in rights:
            raise V3Error(
                403,
                "requestor is forbidden from requested resource" if self.settings.newer(3, 7) else "",
                is_json=self.settings.newer(3, 7),
            )

    # --- writing ---

    def _write_v3(self, request: HttpRequest, tally: RequestTally, rights: frozenset[str]) -> HttpResponse:
        self._allow(rights, WRITE)
        query = request.query
        if "?" not in request.target:
            raise V3Error(400, "missing query parameter 'db'")
        precision = query.get("precision")
        if precision is not None and precision not in _UNITS and precision != "auto":
            raise V3Error(400, f"serde error: unknown variant `{precision}`, expected one of `auto`, {_PRECISIONS}")
        for name in ("accept_partial", "no_sync"):
            if query.get(name, "true") not in ("true", "false"):
                raise V3Error(400, "serde error: provided string was not `true` or `false`")
        if "db" not in query:
            raise V3Error(400, "serde error: missing field `db`")
        unit = _UNITS.get(precision) if precision is not None else None
        return self._write(request, tally, query["db"], unit, partial=query.get("accept_partial") != "false")

    def _write_v2(self, request: HttpRequest, tally: RequestTally, rights: frozenset[str]) -> HttpResponse:
        self._allow(rights, WRITE)
        if "?" not in request.target:
            raise V3Error(400, "no org/bucket destination provided")
        precision = _old_precision(request, "org/bucket/precision")
        if not request.query.get("bucket"):
            raise V3Error(400, "missing bucket value")
        return self._write(request, tally, request.query["bucket"], precision, partial=False)

    def _write_v1(self, request: HttpRequest, tally: RequestTally, rights: frozenset[str]) -> HttpResponse:
        self._allow(rights, WRITE)
        if "?" not in request.target:
            raise V3Error(400, "no db destination provided", is_json=True)
        precision = _old_precision(request, "db/rp/precision")
        if "db" not in request.query:
            raise V3Error(400, "failed to deserialize db/rp/precision in request: missing field `db`", is_json=True)
        policy = request.query.get("rp", "").lower()
        name = request.query["db"] + (f"/{policy}" if policy not in ("", "''", "autogen", "default") else "")
        return self._write(request, tally, name, precision, partial=False)

    def _write(
        self, request: HttpRequest, tally: RequestTally, name: str, unit: int | None, *, partial: bool
    ) -> HttpResponse:
        _check_name(name)
        data = self._body(request)
        try:
            data.decode()
        except UnicodeDecodeError as exc:
            words = f"invalid utf-8 sequence of {max(exc.end - exc.start, 1)} bytes from index {exc.start}"
            raise V3Error(500, f"body content is not valid utf8: {words}", code="invalid") from exc
        good, bad = modern.parse(data, older=not self.settings.newer(3, 10))
        tally.lines = len(good) + len(bad)
        tally.refused = tally.lines
        if bad and not partial:
            good = [line for line in good if line[0] < bad[0].number]
        database = self.store.create_database(name)
        policy = database.policy()
        assert policy is not None  # noqa: S101 (made with the database)
        if not tally.lines:
            raise V3Error(400, "incoming write was empty", code="invalid")
        if bad and not partial:
            earlier = tables.check(self.store, policy, good, unit, self.settings.now_ns())
            self._refuse_all(request, (earlier or bad)[0])
        stored, refused = tables.write(self.store, policy, good, unit, self.settings.now_ns(), partial=partial)
        if refused and not partial:
            self._refuse_all(request, refused[0])
        tally.stored, tally.refused = stored, tally.lines - stored
        found = sorted((*bad, *refused), key=lambda line: line.number)
        if found:
            limits = ("Update to schema would exceed number of", "Adding a new database would exceed limit of")
            status = 422 if any(line.reason.startswith(limits) for line in found) else 400
            raise V3Error(status, "partial write of line protocol occurred", data=[_line_error(line) for line in found])
        return HttpResponse(204, self._product())

    def _refuse_all(self, request: HttpRequest, line: modern.NumberedRejection) -> None:
        words = "line protocol parsing error" if self.settings.newer(3, 10) else "parsing failed for write_lp endpoint"
        raise V3Error(400, words, data={} if request.path == "/api/v2/write" else _line_error(line))

    def _body(self, request: HttpRequest) -> bytes:
        encoding = request.headers.get("content-encoding")
        if encoding not in (None, "identity", "gzip"):
            raise V3Error(400, f"unacceptable content-encoding: {encoding}")
        limit = self.settings.max_body or MAX_BODY
        too_large = V3Error(500, f"max request size ({limit} bytes) exceeded", code="request too large")
        try:
            data = request.body.read(
                None if request.body.length is not None and request.body.length < 4 * limit else limit
            )
        except BodyTooLarge:
            raise too_large from None
        if len(data) > limit:
            raise too_large
        if encoding != "gzip":
            return data
        try:
            return gunzip(data, limit, all_members=self.settings.newer(3, 7))
        except Undecodable as exc:
            raise V3Error(500, f"error decoding gzip stream: {_GZIP_WORDS[str(exc)]}", code="invalid") from exc
        except BodyTooLarge:
            raise too_large from None

    # --- queries ---

    def _query_sql(self, request: HttpRequest, _tally: RequestTally, rights: frozenset[str]) -> HttpResponse:
        self._allow(rights, READ)
        asked = self._asked(request)
        if asked.database is None:
            raise V3Error(
                400,
                "serde error: missing field `db`"
                if request.method == "GET"
                else "serde json error: missing field `db`",
            )
        database = self._database(asked.database)
        try:
            columns, found = sql.run(self.store, database, asked.text, asked.parameters)
        except QueryError as exc:
            raise V3Error(500, f"query error: error while planning query: {exc}") from exc
        return HttpResponse(
            200, {"Content-Type": _CONTENT_TYPES[asked.format]}, rows.FORMATS[asked.format](columns, found)
        )

    def _query_influxql(self, request: HttpRequest, _tally: RequestTally, rights: frozenset[str]) -> HttpResponse:
        self._allow(rights, READ)
        asked = self._asked(request)
        frames = self._run_influxql(asked.text, asked.database, asked.parameters)
        columns, found = rows.flatten(frames)
        return HttpResponse(
            200, {"Content-Type": _CONTENT_TYPES[asked.format]}, rows.FORMATS[asked.format](columns, found)
        )

    def _query_v1(self, request: HttpRequest, _tally: RequestTally, rights: frozenset[str]) -> HttpResponse:
        self._allow(rights, READ)
        form = query_form(request)
        if "q" not in form:
            raise V3Error(400, "missing query parameter 'q'")
        accept = request.headers.get("accept", "")
        if accept not in ("", "*/*", "application/json", "application/csv", "text/csv"):
            raise V3Error(500, f"invalid mime type ({accept})")
        try:
            frames = self._run_influxql(form["q"], form.get("db") or None, parameters(form))
        except ParseError as exc:
            raise V3Error(400, str(exc)) from exc
        epoch = form.get("epoch", "")
        if accept.endswith("/csv"):
            return HttpResponse(200, {"Content-Type": "application/csv"}, rows.v1_csv(frames, epoch or "ns"))
        size = form.get("chunk_size", "")
        chunk = (int(size) if size.isdigit() and int(size) else CHUNK) if form.get("chunked") == "true" else None
        return HttpResponse(200, {"Content-Type": "application/json"}, rows.v1_json(frames, epoch, chunk))

    def _run_influxql(self, text: str, name: str | None, values: Mapping[str, object]) -> Iterator[Frame]:
        try:
            statements = influxql.parse(text, values, self.settings.now_ns())  # type: ignore[arg-type]
            if len(statements) != 1:
                raise V3Error(500, "must provide only one InfluxQl statement per query")
            statement = statements[0]
            if isinstance(statement, influxql.ChangeStatement):
                raise QueryError(f"{statement.what.split()[0]} is not supported")
            shows_all = isinstance(statement, influxql.Show) and statement.what == "DATABASES"
            if not shows_all:
                named = name or getattr(statement, "database", None)
                if named is None:
                    raise V3Error(500, "must specify a 'db' parameter, or provide the database in the InfluxQL query")
                self._check_readable(self._database(named), statement)
            return influxql.run(self.store, statement, name or "")
        except ParseError as exc:
            raise V3Error(500, f"error in InfluxQL statement: parsing error: {exc}") from exc
        except QueryError as exc:
            prefix = "" if str(exc).startswith(("Schema error", "Execution error")) else "Error during planning: "
            raise V3Error(500, f"query error: error while planning query: {prefix}{exc}") from exc

    def _check_readable(self, database: Database, statement: influxql.Statement) -> None:
        if not isinstance(statement, influxql.Select):
            return
        if isinstance(statement.source, influxql.Select):
            self._check_readable(database, statement.source)
            return
        for policy in database.policies.values():
            found = policy.measurements.get(statement.source.name.encode())
            if found is not None and found.poisoned:
                raise QueryError(sql.POISONED)
            if found is not None and b"time" not in found.columns.get(0, {}):
                raise QueryError(f"Schema error: No field named time. Valid fields are {sql.valid_fields(found)}.")

    def _database(self, name: str) -> Database:
        found = self.store.databases.get(name)
        if found is None:
            raise V3Error(404, f"query error: database not found: {name}", is_json=True)
        return found

    def _asked(self, request: HttpRequest) -> _Asked:
        accept = request.headers.get("accept", "")
        format_name = _ACCEPTS.get(accept, "json" if "text/html" in accept or "*/*" in accept else None)
        if format_name is None:
            raise V3Error(500, f"invalid mime type ({accept})")
        tree: Mapping[str, object] = request.query if request.method == "GET" else _read_json(request)
        if request.method == "GET" and "?" not in request.target:
            raise V3Error(400, "missing query parameters 'db' and 'q'")
        prefix = "serde error" if request.method == "GET" else "serde json error"
        text, name, values = tree.get("q"), tree.get("db"), tree.get("params")
        if not isinstance(text, str):
            known = "" if request.method == "GET" else f" at line 1 column {len(request.body.read())}"
            first = "db" if "db" not in tree and request.method != "GET" else "q"
            raise V3Error(400, f"{prefix}: missing field `{first}`{known}")
        wanted = {"json_lines": "jsonl"}.get(str(tree.get("format")), tree.get("format") or format_name)
        if wanted not in _CONTENT_TYPES:
            known = "the simulator knows json, jsonl, csv and pretty"
            raise V3Error(400, f"{prefix}: unknown variant `{wanted}`: {known}")
        if isinstance(values, str):
            try:
                values = json.loads(values)
            except json.JSONDecodeError as exc:
                raise V3Error(400, f"serde json error: {exc}") from exc
        found = dict(values) if isinstance(values, Mapping) else {}
        return _Asked(text, name if isinstance(name, str) else None, str(wanted), found)


class _Asked:
    """A query as requested."""

    def __init__(self, text: str, database: str | None, format_name: str, values: Mapping[str, object]) -> None:
        self.text = text
        self.database = database
        self.format = format_name
        self.parameters = {
            key: value for key, value in values.items() if value is None or isinstance(value, str | int | float)
        }


def _read_json(request: HttpRequest) -> Mapping[str, object]:
    data = request.body.read()
    try:
        tree = json.loads(data)
    except (json.JSONDecodeError, UnicodeDecodeError) as exc:
        words = "EOF while parsing a value at line 1 column 0" if not data else str(exc)
        raise V3Error(400, f"serde json error: {words}") from exc
    if not isinstance(tree, dict):
        raise V3Error(400, "serde json error: invalid type: expected an object")
    return tree


def _token(header: str) -> str | None:
    parts = header.split(" ")
    if len(parts) != 2 or parts[0] not in ("Bearer", "Token", "Basic"):
        raise V3Error(400, _MALFORMED)
    if parts[0] != "Basic":
        return parts[1]
    credentials = basic_credentials(header)
    if credentials is None or ":" in credentials[1]:
        raise V3Error(400, _MALFORMED)
    return credentials[1]


def _check_name(name: str) -> None:
    characters = (
        "invalid character in database or rp name: must be ASCII, "
        "containing only letters, numbers, underscores, or hyphens"
    )
    policy = (
        "db name with invalid retention policy, if providing a retention policy name, "
        "must be of form '<db_name>/<rp_name>'"
    )
    words = None
    if not name:
        words = "db name cannot be empty"
    elif len(name.encode()) > MAX_NAME:
        words = f"db name too long: max {MAX_NAME}"
    elif not name.isascii():
        words = characters
    elif not name[0].isalnum():
        words = "db name did not start with a number or letter"
    elif not re.fullmatch(r"[A-Za-z0-9_\-/]+", name):
        words = characters
    elif name.count("/") > 1 or name.endswith("/"):
        words = policy
    if words is not None:
        raise V3Error(400, words, is_json=True)


def _old_precision(request: HttpRequest, names: str) -> int:
    word = request.query.get("precision", "ns")
    if word in _UNITS:
        return _UNITS[word]
    words = f"failed to deserialize {names} in request: unknown variant `{word}`, expected one of {_PRECISIONS}"
    raise V3Error(400, words, is_json=True)


def _v2_message(failed: V3Error) -> str:
    if isinstance(failed.data, dict):
        return "write buffer error: parsing for line protocol failed"
    return f"write buffer error: {failed.message}" if failed.message == "incoming write was empty" else failed.message


def _line_error(line: modern.NumberedRejection) -> dict[str, object]:
    if line.shown is None:
        raise Dropped("a character at the place where the line is cut")
    return {"error_message": line.reason, "line_number": line.number, "original_line": line.shown}


def _json(tree: object) -> bytes:
    return rust_json(tree).encode("utf-8", "replace")
