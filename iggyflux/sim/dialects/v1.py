"""InfluxDB 1.6 and 1.8: `/write`, `/query`, `/ping`, and from 1.8 `/api/v2/write` and `/health`."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from urllib.parse import parse_qsl

from iggyflux.sim import classic, shards
from iggyflux.sim.dialects.base import READ, WRITE, RequestTally, ServerDialect, basic_credentials
from iggyflux.sim.dialects.results import UNITS, StatementResult, render
from iggyflux.sim.exchange import MAX_EXPANDED, BodyTooLarge, HttpRequest, HttpResponse, Undecodable, gunzip
from iggyflux.sim.queries import ParseError, QueryError, influxql
from iggyflux.sim.queries.scalars import Scalar
from iggyflux.sim.texts import go_json, go_string

MAX_BODY = 25_000_000
_CONSISTENCIES = ("any", "one", "quorum", "all")


class V1Error(Exception):
    """An error response."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        self.message = message
        super().__init__(message)


class V1(ServerDialect):
    """InfluxDB 1.x."""

    write_paths = frozenset(("/write", "/api/v2/write"))
    query_paths = frozenset(("/query",))

    def answer(self, request: HttpRequest, tally: RequestTally) -> HttpResponse:
        known = self._routes().get(request.path)
        if known is None:
            return self._plain(404, "404 page not found\n")
        handler = known.get(request.method)
        if handler is None:
            if request.method == "OPTIONS":
                return HttpResponse(204, self._headers())
            allowed = ", ".join(sorted((*known, "OPTIONS") if request.path in ("/write", "/query") else known))
            return replace(
                self._plain(405, "Method Not Allowed\n"), headers={"Allow": allowed, **self._plain(405, "").headers}
            )
        try:
            return handler(request, tally)
        except V1Error as failed:
            return self.failure(failed.status, failed.message)

    def failure(self, status: int, message: str) -> HttpResponse:
        headers = self._headers()
        if status == 401:
            headers["WWW-Authenticate"] = 'Basic realm="InfluxDB"'
        else:
            headers["X-Influxdb-Error"] = message.encode("utf-8", "surrogateescape")[:1024].decode(
                "utf-8", "surrogateescape"
            )
        return HttpResponse(status, headers, go_body(_json({"error": message}) + b"\n"))

    def too_large(self, _request: HttpRequest, _limit: int) -> HttpResponse:
        return self.failure(413, "Request Entity Too Large")

    def _routes(self) -> dict[str, dict[str, Callable[[HttpRequest, RequestTally], HttpResponse]]]:
        routes: dict[str, dict[str, Callable[[HttpRequest, RequestTally], HttpResponse]]] = {
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
        number = str(uuid.uuid4())
        headers = {"Content-Type": content_type} if content_type else {}
        return headers | {"Request-Id": number, **self._product(), "X-Request-Id": number}

    def _product(self) -> dict[str, str]:
        return {"X-Influxdb-Build": "OSS", "X-Influxdb-Version": self.settings.version}

    def _plain(self, status: int, text: str) -> HttpResponse:
        headers = {"Content-Type": "text/plain; charset=utf-8", "X-Content-Type-Options": "nosniff", **self._product()}
        return HttpResponse(status, headers, text.encode())

    # --- other paths ---

    def _ping(self, request: HttpRequest, _tally: RequestTally) -> HttpResponse:
        if request.query.get("verbose") not in (None, "", "0", "false") and self.settings.newer(1, 8):
            return HttpResponse(200, self._headers(), go_json({"version": self.settings.version}).encode())
        return HttpResponse(204, self._headers())

    def _status(self, _request: HttpRequest, _tally: RequestTally) -> HttpResponse:
        return HttpResponse(204, self._headers())

    def _health(self, _request: HttpRequest, _tally: RequestTally) -> HttpResponse:
        body = {
            "checks": [],
            "message": "ready for queries and writes",
            "name": "influxdb",
            "status": "pass",
            "version": self.settings.version,
        }
        return HttpResponse(200, self._headers(), go_json(body).encode())

    def _flux(self, _request: HttpRequest, _tally: RequestTally) -> HttpResponse:
        text = "Flux query service disabled. Verify flux-enabled=true in the [http] section of the InfluxDB config.\n"
        return self._plain(403, text)

    # --- writing ---

    def _write(self, request: HttpRequest, tally: RequestTally) -> HttpResponse:
        rights = self._authorize(request)
        precision = request.query.get("precision", "")
        answer = self._store(
            request, tally, request.query.get("db", ""), request.query.get("rp", ""), precision, rights
        )
        if self.settings.newer(1, 8) and precision not in ("", "n", "ns", *UNITS):
            # the server reports the error and still executes the write
            return self.failure(400, f"invalid precision {go_string(precision)} (use n, u, ms, s, m or h)")
        return answer

    def _write_v2(self, request: HttpRequest, tally: RequestTally) -> HttpResponse:
        rights = self._authorize(request)
        bucket = request.query.get("bucket", "")
        if not bucket:
            raise V1Error(404, 'bucket name "" is missing a slash; not in "database/retention-policy" format')
        database, _, policy = bucket.partition("/")
        if not database:
            raise V1Error(404, f"bucket name {go_string(bucket)} is in db/rp form but has an empty database")
        precision = request.query.get("precision", "")
        unit = {"ns": "n", "us": "u"}.get(precision, precision)
        answer = self._store(request, tally, database, policy, unit, rights)
        if precision not in ("", "ns", "us", "ms", "s"):
            return self.failure(400, f"invalid precision {go_string(precision)} (use ns, us, ms or s)")
        return answer

    def _store(
        self,
        request: HttpRequest,
        tally: RequestTally,
        database: str,
        policy: str,
        precision: str,
        rights: frozenset[str],
    ) -> HttpResponse:
        if not database:
            raise V1Error(400, "database is required")
        owner = self.store.databases.get(database)
        if owner is None:
            raise V1Error(404, f"database not found: {go_string(database)}")
        if WRITE not in rights:
            name = self._user(request)
            raise V1Error(403, f'"{name}" user is not authorized to write to database "{database}"')
        try:
            data = self._body(request)
        except BodyTooLarge:
            return self.too_large(request, self.settings.max_body or MAX_BODY)
        now = self.settings.now_ns()
        rules = classic.ParseRules(unsigned=False, reserved_tags=False)
        points, bad = classic.parse(data, rules, UNITS.get(precision, 1), now)
        tally.lines, tally.refused = len(points) + len(bad), len(bad)
        words = "\n".join(f"unable to parse '{_text(line.line)}': {line.reason}" for line in bad)
        if bad and not points:
            raise V1Error(400, words)
        consistency = request.query.get("consistency", "")
        if consistency and consistency.lower() not in _CONSISTENCIES:
            raise V1Error(400, "invalid consistency level")
        place = owner.policy(policy)
        if place is None:
            raise V1Error(500, f"retention policy not found: {policy}")
        outcome = shards.write(self.store, place, points, shards.StoreRules(immediate=False, quoted=False), now)
        tally.stored, tally.refused = outcome.stored, tally.lines - outcome.stored
        if outcome.trouble is not None:
            raise V1Error(500 if isinstance(outcome.trouble, shards.EngineFailure) else 400, str(outcome.trouble))
        if outcome.beyond:
            raise V1Error(400, f"partial write: points beyond retention policy dropped={len(outcome.beyond)}")
        if bad:
            raise V1Error(400, f"partial write: {words} dropped=0")
        return HttpResponse(204, self._headers())

    def _body(self, request: HttpRequest) -> bytes:
        limit = self.settings.max_body or MAX_BODY
        zipped = request.headers.get("content-encoding") == "gzip"
        data = request.body.read(None if zipped and request.body.length is None else limit)
        if not zipped:
            return data
        try:
            return gunzip(data, self.settings.max_body or MAX_EXPANDED)
        except Undecodable as exc:
            raise V1Error(400, str(exc)) from exc

    # --- access ---

    def _authorize(self, request: HttpRequest, _form: Mapping[str, str] | None = None) -> frozenset[str]:
        if not self.settings.tokens:
            return self.rights(None) or frozenset()
        credentials = self._credentials(request)
        if isinstance(credentials, str):
            raise V1Error(401, credentials)
        if not credentials[0]:
            raise V1Error(401, "username required")
        rights = self.rights(":".join(credentials))
        if rights is None:
            raise V1Error(401, "authorization failed")
        return rights

    def _credentials(self, request: HttpRequest) -> tuple[str, str] | str:
        """Return user and password, or the message for missing ones."""
        user, password = request.query.get("u", ""), request.query.get("p", "")
        if user and password:
            return user, password
        header = request.headers.get("authorization", "")
        parts = header.split(" ")
        if len(parts) == 2 and parts[0] == "Bearer":
            return "bearer auth disabled" if self.settings.newer(1, 8) else "bearer auth disabld"
        if len(parts) == 2 and parts[0] == "Token" and self.settings.newer(1, 8):
            name, colon, secret = parts[1].partition(":")
            if colon:
                return name, secret
        return basic_credentials(header) or "unable to parse authentication credentials"

    def _user(self, request: HttpRequest) -> str:
        credentials = self._credentials(request)
        return credentials if isinstance(credentials, str) else credentials[0]

    # --- queries ---

    def _query(self, request: HttpRequest, _tally: RequestTally) -> HttpResponse:
        form = query_form(request)
        rights = self._authorize(request, form)
        text = form.get("q", "").strip()
        accept = request.headers.get("accept", "")
        if not text:
            raise V1Error(400, 'missing required parameter "q"')
        try:
            statements = influxql.parse(text, parameters(form), self.settings.now_ns())
        except ParseError as exc:
            raise V1Error(400, f"error parsing query: {exc}") from exc
        self._check_rights(request, statements, rights, text if len(statements) == 1 else "", form.get("db", ""))
        results = self._results(statements, form.get("db", ""), form.get("rp", ""))
        return render(results, form, accept, self._headers)

    def _check_rights(
        self,
        request: HttpRequest,
        statements: Iterable[influxql.Statement],
        rights: frozenset[str],
        text: str,
        database: str,
    ) -> None:
        for statement in statements:
            needed = WRITE if isinstance(statement, influxql.ChangeStatement) else READ
            if needed not in rights:
                user = self._user(request)
                name = text or type(statement).__name__.upper()
                words = f"{user} not authorized to execute statement '{name}', requires {needed.upper()} on {database}"
                raise V1Error(403, f"error authorizing query: {words}")

    def _results(
        self, statements: Iterable[influxql.Statement], database: str, policy: str
    ) -> Iterator[StatementResult]:
        failed = False
        for number, statement in enumerate(statements):
            if failed:
                yield StatementResult(number, error="not executed")
                continue
            if isinstance(statement, influxql.Show):
                statement = replace(statement, hides_unreadable=True)
            try:
                yield StatementResult(number, influxql.run(self.store, statement, database, policy))
            except QueryError as exc:
                failed = True
                yield StatementResult(number, error=str(exc))


def query_form(request: HttpRequest) -> dict[str, str]:
    """Return the parameters of a query from the URL and, for a POST, from the form in the body, which wins."""
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
    """Return the values of `$name` in a statement.  Raise `ParseError`."""
    text = form.get("params")
    if not text:
        return {}
    try:
        found = json.loads(text)
    except json.JSONDecodeError as exc:
        raise ParseError(f"error parsing query parameters: {exc}") from exc
    return dict(found) if isinstance(found, dict) else {}


def _json(value: object) -> bytes:
    return go_json(value).encode("utf-8", "surrogateescape")


def go_body(data: bytes) -> bytes | tuple[bytes, ...]:
    """Return a body as Go's server sends it: over 2,048 bytes in chunks."""
    return data if len(data) <= 2_048 else (data,)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
