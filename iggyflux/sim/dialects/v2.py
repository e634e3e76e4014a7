"""InfluxDB 2.x: `/api/v2/write`, `/api/v2/query`, the older `/write` and `/query`, buckets, organizations.

For every unknown path a real server returns a web page with status 200; so does this one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from urllib.parse import quote

from iggyflux.sim import classic, shards
from iggyflux.sim.dialects.base import READ, WRITE, RequestTally, ServerDialect, basic_credentials
from iggyflux.sim.dialects.results import StatementResult, render
from iggyflux.sim.dialects.v1 import go_body, parameters, query_form
from iggyflux.sim.exchange import MAX_EXPANDED, BodyTooLarge, HttpRequest, HttpResponse, Undecodable, gunzip
from iggyflux.sim.queries import NotFound, ParseError, QueryError, flux, flux_csv, influxql
from iggyflux.sim.store import NARROWEST_SHARD_NS, Database
from iggyflux.sim.texts import go_duration, go_json, go_string, plain_digits, rfc3339

PAGE = b'<!doctype html><html><head><title>InfluxDB</title></head><body><div id="react-root"></div></body></html>'
CODES = {
    400: "invalid",
    401: "unauthorized",
    403: "forbidden",
    404: "not found",
    405: "method not allowed",
    413: "request too large",
    422: "unprocessable entity",
    429: "too many requests",
    500: "internal error",
    503: "unavailable",
}
_UNITS = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9}
_UNKNOWN_FAULT = "An internal error has occurred - check server logs"
_VARYING = ("/write", "/query", "/api/v2/query")
_NOT_IMPLEMENTED = (
    "CREATE DATABASE",
    "DROP DATABASE",
    "CREATE RETENTION POLICY",
)


class V2Error(Exception):
    """An error response; `pretty` for the part of the API that indents its JSON."""

    def __init__(self, status: int, message: str, *, pretty: bool = False) -> None:
        self.status = status
        self.message = message
        self.pretty = pretty
        self.varies = False
        super().__init__(message)


class V2(ServerDialect):
    """InfluxDB 2.x."""

    write_paths = frozenset(("/api/v2/write", "/write"))
    query_paths = frozenset(("/api/v2/query", "/query"))

    def answer(self, request: HttpRequest, tally: RequestTally) -> HttpResponse:
        is_bucket = request.path.startswith("/api/v2/buckets/")
        known = (
            {"GET": self._one_bucket, "DELETE": self._drop_bucket} if is_bucket else self._routes().get(request.path)
        )
        try:
            if known is None:
                return self._unknown(request)
            handler = known.get(request.method)
            if handler is not None:
                return handler(request, tally)
            allowed = ", ".join(sorted((*known, "OPTIONS")))
            if not request.path.startswith(("/api/", "/write", "/query")):
                headers = {**self._headers("text/plain; charset=utf-8"), "X-Content-Type-Options": "nosniff"}
                return HttpResponse(
                    405, {"Allow": allowed, "Vary": "Accept-Encoding", **headers}, b"Method Not Allowed\n"
                )
            answer = self.failure(405, f"allow: {allowed}")
            return HttpResponse(405, {"Allow": allowed, **answer.headers}, answer.body)
        except V2Error as failed:
            failed.varies = request.path in _VARYING and failed.status != 401
            return self._failed(failed)

    def failure(self, status: int, message: str) -> HttpResponse:
        return self._failed(V2Error(status, message))

    def too_large(self, _request: HttpRequest, _limit: int) -> HttpResponse:
        return self.failure(413, "unable to read data: points batch is too large")

    def _failed(self, failed: V2Error) -> HttpResponse:
        code = CODES.get(failed.status, "internal error")
        headers = self._headers("application/json; charset=utf-8")
        headers["X-Platform-Error-Code"] = code
        if failed.varies:
            headers["Vary"] = "Accept-Encoding"
        tree = {"code": code, "message": failed.message}
        text = _pretty(tree) if failed.pretty else go_json(tree)
        return HttpResponse(failed.status, headers, go_body(text.encode("utf-8", "surrogateescape")))

    def _routes(self) -> dict[str, dict[str, Callable[[HttpRequest, RequestTally], HttpResponse]]]:
        return {
            "/ping": {"GET": self._ping, "HEAD": self._ping},
            "/health": {"GET": self._health},
            "/ready": {"GET": self._ready},
            "/api/v2/write": {"POST": self._write},
            "/write": {"POST": self._write_old},
            "/api/v2/query": {"POST": self._flux},
            "/query": {"GET": self._influxql, "POST": self._influxql},
            "/api/v2/buckets": {"GET": self._buckets, "POST": self._make_bucket},
            "/api/v2/orgs": {"GET": self._orgs},
            "/api/v2/dbrps": {"GET": self._mappings},
            "/api/v2/me": {"GET": self._me},
        }

    def _headers(self, content_type: str | None = None) -> dict[str, str]:
        headers = {"Content-Type": content_type} if content_type else {}
        return {**headers, "X-Influxdb-Build": "OSS", "X-Influxdb-Version": self.settings.version}

    def _unknown(self, request: HttpRequest) -> HttpResponse:
        if request.path in ("/api/v2/write/", "/api/v2/query/"):
            target = request.path.rstrip("/") + (
                "?" + request.target.partition("?")[2] if "?" in request.target else ""
            )
            return HttpResponse(308, {**self._headers(), "Location": target})
        if request.path.startswith("/api/v2/"):
            self._authorize(request)
            raise V2Error(404, "path not found", pretty=True)
        if self.settings.assets:
            return HttpResponse(
                200, {**self._headers("text/html; charset=utf-8"), "Cache-Control": "public, max-age=3600"}, PAGE
            )
        headers = {**self._headers("text/plain; charset=utf-8"), "X-Content-Type-Options": "nosniff"}
        return HttpResponse(404, headers, b"404 page not found\n")

    # --- other paths ---

    def _ping(self, _request: HttpRequest, _tally: RequestTally) -> HttpResponse:
        return HttpResponse(204, {"Vary": "Accept-Encoding", **self._headers()})

    def _health(self, _request: HttpRequest, _tally: RequestTally) -> HttpResponse:
        text = (
            '{"name":"influxdb", "message":"ready for queries and writes", "status":"pass", "checks":[], '
            f'"version": "{self.settings.version}", "commit": "simulator"}}\n'
        )
        return HttpResponse(200, self._headers("application/json; charset=utf-8"), text.encode())

    def _ready(self, _request: HttpRequest, _tally: RequestTally) -> HttpResponse:
        tree = {"status": "ready", "started": rfc3339(self.settings.now_ns()), "up": "1s"}
        return HttpResponse(
            200, self._headers("application/json; charset=utf-8"), (json.dumps(tree, indent=4)).encode()
        )

    def _me(self, request: HttpRequest, _tally: RequestTally) -> HttpResponse:
        self._authorize(request)
        number = identifier("user")
        return self._json(
            {"links": {"self": f"/api/v2/users/{number}"}, "id": number, "name": "simulator", "status": "active"}
        )

    def _orgs(self, request: HttpRequest, _tally: RequestTally) -> HttpResponse:
        self._authorize(request)
        name, number = self.settings.org, identifier(self.settings.org)
        wanted, wanted_number = request.query.get("org"), request.query.get("orgID")
        if wanted_number is not None and len(wanted_number) == _IDENTIFIER_LENGTH and wanted_number != number:
            raise V2Error(404, "organization not found", pretty=True)
        if wanted not in (None, name):
            raise V2Error(404, f'organization name "{wanted}" not found', pretty=True)
        org = {
            "links": {"self": f"/api/v2/orgs/{number}", "buckets": f"/api/v2/buckets?org={name}"},
            "id": number,
            "name": name,
        }
        return self._json({"links": {"self": "/api/v2/orgs"}, "orgs": [{**org, "description": ""}]})

    def _buckets(self, request: HttpRequest, _tally: RequestTally) -> HttpResponse:
        is_seen = READ in self._authorize(request)
        query = request.query
        if query.get("org") not in (None, self.settings.org):
            raise V2Error(404, f'organization name "{query["org"]}" not found', pretty=True)
        if len(query.get("id", "0" * _IDENTIFIER_LENGTH)) != _IDENTIFIER_LENGTH:
            raise V2Error(400, "id must have a length of 16 bytes", pretty=True)
        names = [
            name
            for name in sorted(self.store.databases)
            if is_seen and query.get("name") in (None, name) and query.get("id") in (None, identifier(name))
        ]
        if "id" in query and not names:
            raise V2Error(404, "bucket not found", pretty=True)
        if query.get("orgID") not in (None, identifier(self.settings.org)):
            raise V2Error(404, f'bucket "{query.get("name", "")}" not found', pretty=True)
        offset, limit = _integer(query.get("offset"), 0), _integer(query.get("limit"), 20)
        chosen = names[offset : offset + limit]
        named = f"bucket={quote(query['name'])}&" if "name" in query else ""
        link = f"/api/v2/buckets?{named}descending=false&limit={limit}&offset={offset}"
        return self._json(
            {"links": {"self": link}, "buckets": [self._bucket(self.store.databases[name]) for name in chosen]}
        )

    def _make_bucket(self, request: HttpRequest, _tally: RequestTally) -> HttpResponse:
        """Make a bucket; only the name, the retention and the width of shards are used."""
        if WRITE not in self._authorize(request):
            raise V2Error(403, "insufficient permissions for create", pretty=True)
        try:
            tree = json.loads(request.body.read())
            name, rules = str(tree["name"]), tree.get("retentionRules") or [{}]
            seconds = int(rules[0].get("everySeconds", 0))
            shard_seconds = int(rules[0].get("shardGroupDurationSeconds", 0))
        except (ValueError, TypeError, LookupError, AttributeError):
            raise V2Error(400, "the body is not a bucket", pretty=True) from None
        if name in self.store.databases:
            raise V2Error(422, f"bucket with name {name} already exists", pretty=True)
        shard_ns = max(shard_seconds * 10**9, NARROWEST_SHARD_NS) if shard_seconds else None
        database = self.store.create_database(name, duration_ns=seconds * 10**9, shard_ns=shard_ns)
        return replace(self._json(self._bucket(database)), status=201)

    def _one_bucket(self, request: HttpRequest, _tally: RequestTally) -> HttpResponse:
        self._authorize(request)
        number = request.path.rpartition("/")[2]
        for name, database in self.store.databases.items():
            if identifier(name) == number:
                return self._json(self._bucket(database))
        raise V2Error(404, "bucket not found", pretty=True)

    def _drop_bucket(self, request: HttpRequest, _tally: RequestTally) -> HttpResponse:
        if WRITE not in self._authorize(request):
            raise V2Error(403, "insufficient permissions for delete", pretty=True)
        number = request.path.rpartition("/")[2]
        for name in [name for name in self.store.databases if identifier(name) == number]:
            self.store.drop_database(name)
            return HttpResponse(204, self._headers())
        raise V2Error(404, "bucket not found", pretty=True)

    def _bucket(self, database: Database) -> Mapping[str, object]:
        policy = database.policy()
        assert policy is not None  # noqa: S101 (a bucket has one)
        rule = {
            "type": "expire",
            "everySeconds": policy.duration_ns // 10**9,
            "shardGroupDurationSeconds": policy.shard_ns // 10**9,
        }
        number = identifier(database.name)
        links = {
            "self": f"/api/v2/buckets/{number}",
            "write": f"/api/v2/write?org={identifier(self.settings.org)}&bucket={number}",
        }
        head = {"id": number, "orgID": identifier(self.settings.org), "type": "user", "name": database.name}
        return {**head, "retentionRules": [rule], "links": links, "labels": []}

    def _mappings(self, request: HttpRequest, _tally: RequestTally) -> HttpResponse:
        self._authorize(request)
        content = []
        for name in sorted(self.store.databases):
            head, _, policy = name.partition("/")
            number, org = identifier(name), identifier(self.settings.org)
            entry = {"id": number, "database": head, "retention_policy": policy or "autogen", "default": not policy}
            content.append({**entry, "virtual": True, "orgID": org, "bucketID": number})
        return self._json({"content": content})

    def _json(self, tree: object) -> HttpResponse:
        return HttpResponse(200, self._headers("application/json; charset=utf-8"), go_body(_pretty(tree).encode()))

    # --- access ---

    def _authorize(self, request: HttpRequest) -> frozenset[str]:
        """Return the rights of a request to the newer part of the API: `Token x` or `Bearer x`, in any case."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if not self.settings.tokens:
            return self.rights(None) or frozenset()
        known = self.rights(token) if scheme.lower() in ("token", "bearer") and token else None
        if known is None:
            raise V2Error(401, "unauthorized access")
        return known

    def _authorize_old(self, request: HttpRequest) -> frozenset[str]:
        """Return the rights of a request to `/write` and `/query`: u and p, Basic, `Token [user:]token`, not Bearer."""
        if not self.settings.tokens:
            return self.rights(None) or frozenset()
        header = request.headers.get("authorization", "")
        parts = header.split(" ")
        if request.query.get("u") and request.query.get("p"):
            token = request.query["p"]
        elif len(parts) == 2 and parts[0] == "Token":
            token = parts[1].partition(":")[2] or parts[1]
        elif (credentials := basic_credentials(header)) is not None:
            token = credentials[1]
        else:
            raise V2Error(401, "unauthorized access")
        known = self.rights(token)
        if known is None:
            raise V2Error(401, "Unauthorized")
        return known

    # --- writing ---

    def _write(self, request: HttpRequest, tally: RequestTally) -> HttpResponse:
        rights = self._authorize(request)
        query = request.query
        precision = query.get("precision") or "ns"
        if precision not in _UNITS:
            raise V2Error(400, "invalid precision; valid precision units are ns, us, ms, and s")
        bucket = query.get("bucket")
        if not bucket:
            raise V2Error(404, "bucket not found")
        self._organization(query)
        owner = self._find_bucket(bucket)
        if owner is None:
            raise V2Error(404, f"bucket {go_string(bucket)} not found")
        return self._store(request, tally, owner, _UNITS[precision], rights)

    def _organization(self, query: Mapping[str, str]) -> None:
        number, name = query.get("orgID"), query.get("org")
        if number:
            if number != identifier(self.settings.org):
                raise V2Error(404, "organization not found")
            return
        if not name:
            raise V2Error(400, "Please provide either orgID or org")
        if name not in (self.settings.org, identifier(self.settings.org)):
            raise V2Error(404, f"organization name {go_string(name)} not found")

    def _find_bucket(self, text: str) -> Database | None:
        found = next((each for name, each in self.store.databases.items() if identifier(name) == text), None)
        return found or self.store.databases.get(text)

    def _write_old(self, request: HttpRequest, tally: RequestTally) -> HttpResponse:
        rights = self._authorize_old(request)
        query = request.query
        if not query.get("db"):
            raise V2Error(400, "missing db")
        owner = self._mapped(query["db"], query.get("rp", ""))
        if owner is None:
            raise V2Error(404, "no dbrp mapping found")
        # anything but us, ms or s means nanoseconds here, unlike at /api/v2/write
        unit = {"us": 10**3, "ms": 10**6, "s": 10**9}.get(query.get("precision", ""), 1)
        return self._store(request, tally, owner, unit, rights)

    def _mapped(self, database: str, policy: str) -> Database | None:
        if policy and f"{database}/{policy}" in self.store.databases:
            return self.store.databases[f"{database}/{policy}"]
        return self.store.databases.get(database) if policy in ("", "autogen") else None

    def _store(
        self, request: HttpRequest, tally: RequestTally, owner: Database, unit: int, rights: frozenset[str]
    ) -> HttpResponse:
        if WRITE not in rights:
            raise V2Error(403, "insufficient permissions for write")
        try:
            data = self._body(request)
        except BodyTooLarge:
            return self.too_large(request, self.settings.max_body or 0)
        now = self.settings.now_ns()
        points, bad = classic.parse(data, classic.ParseRules(unsigned=True, reserved_tags=True), unit, now)
        tally.lines = tally.refused = len(points) + len(bad)
        if bad:
            words = "\n".join(f"unable to parse '{_text(line.line)}': {line.reason}" for line in bad)
            raise V2Error(400, words)
        policy = owner.policy()
        assert policy is not None  # noqa: S101 (a bucket has one)
        rules = shards.StoreRules(
            immediate=True, quoted=True, says_stripped=self.settings.newer(2, 9), max_string=shards.MAX_STRING
        )
        outcome = shards.write(self.store, policy, points, rules, now)
        tally.stored, tally.refused = outcome.stored, tally.lines - outcome.stored
        place = f" for database: {identifier(owner.name)} for retention policy: {policy.name}"
        if isinstance(outcome.trouble, shards.EngineFailure):
            raise V2Error(500, f"unexpected error writing points to database: {outcome.trouble}")
        if outcome.trouble is not None:
            located = isinstance(outcome.trouble, shards.Partial) and outcome.trouble.located
            raise V2Error(422, f"failure writing points to database: {outcome.trouble}{place if located else ''}")
        if outcome.beyond:
            words = self._beyond(outcome, now, policy.duration_ns)
            raise V2Error(
                422,
                f"failure writing points to database: partial write: {words}{place}",
            )
        return HttpResponse(204, self._headers())

    def _beyond(self, outcome: shards.Outcome, now: int, duration: int) -> str:
        number = len(outcome.beyond)
        if not self.settings.newer(2, 7, 12):
            return f"points beyond retention policy dropped={number}"
        bound = rfc3339(now - duration)

        def show(pair: tuple[bytes, int]) -> str:
            reason = f"because it violates a Retention Policy Lower Bound at {bound}"
            return f"point {_text(pair[0])} at {rfc3339(pair[1])} dropped {reason}"

        oldest, newest = min(outcome.beyond, key=lambda pair: pair[1]), max(outcome.beyond, key=lambda pair: pair[1])
        head = f"dropped {number} points outside retention policy of duration {go_duration(duration)}"
        return f"{head} - oldest {show(oldest)}, newest {show(newest)} dropped={number}"

    def _body(self, request: HttpRequest) -> bytes:
        data = request.body.read(self.settings.max_body)
        if request.headers.get("content-encoding") not in ("gzip", "x-gzip"):
            return data
        try:
            return gunzip(data, self.settings.max_body or MAX_EXPANDED)
        except Undecodable as exc:
            if str(exc) == "gzip: invalid checksum":
                raise V2Error(400, f"unable to read data: {exc}") from exc
            raise V2Error(500, _UNKNOWN_FAULT if exc.in_header else f"unable to read data: {exc}") from exc

    # --- queries ---

    def _flux(self, request: HttpRequest, _tally: RequestTally) -> HttpResponse:
        rights = self._authorize(request)
        content_type = request.headers.get("content-type", "").partition(";")[0].strip()
        body = request.body.read()
        tree: Mapping[str, object] = {"query": body.decode("utf-8", "replace")}
        if content_type not in ("application/vnd.flux", "application/vnd.influx.flux"):
            tree = _read_query(body)
        if tree.get("type", "flux") != "flux":
            raise V2Error(400, f"failed to decode request body: unknown query type: {tree.get('type')}")
        script = tree.get("query")
        if not script or not isinstance(script, str):
            raise V2Error(400, "failed to decode request body: request body requires either query or AST")
        query = request.query
        number = identifier(self.settings.org)
        if query.get("org") not in (None, "", self.settings.org, number) or query.get("orgID") not in (
            None,
            "",
            number,
        ):
            raise V2Error(
                400, f"failed to decode request body: organization name {go_string(query.get('org', ''))} not found"
            )
        context = flux.Context(self.store, self.settings.now_ns())
        try:
            if READ not in rights:
                raise NotFound('failed to initialize execute state: could not find bucket "?"', "?")
            results = flux.run(context, script)
        except NotFound as exc:
            raise V2Error(404, str(exc)) from exc
        except QueryError as exc:
            raise V2Error(500 if str(exc).startswith("a panic") else 400, str(exc)) from exc
        headers = {"Vary": "Accept-Encoding", **self._headers("text/csv; charset=utf-8")}
        return HttpResponse(200, headers, flux_csv.write(results, _flux_dialect(tree.get("dialect")), rfc3339, _double))

    def _influxql(self, request: HttpRequest, _tally: RequestTally) -> HttpResponse:
        rights = self._authorize_old(request)
        form = query_form(request)
        text = form.get("q", "").strip()
        if not text:
            raise V2Error(400, "mime: no media type")
        try:
            statements = influxql.parse(text, parameters(form), self.settings.now_ns())
        except ParseError as exc:
            raise V2Error(400, f"failed to parse query: {exc}") from exc

        def headers(content_type: str) -> dict[str, str]:
            return {"Vary": "Accept-Encoding", **self._headers(content_type)}

        if all(isinstance(each, influxql.ChangeStatement) and each.what == "DELETE" for each in statements):
            done = list(self._results(statements, form, rights))
            if all(result.error is None for result in done):
                return HttpResponse(200, {"Vary": "Accept-Encoding", **self._headers("application/json")}, b"{}\n")
            return render(done, form, request.headers.get("accept", ""), headers)
        results = self._results(statements, form, rights)

        return render(results, form, request.headers.get("accept", ""), headers)

    def _without_mapping(
        self, statement: influxql.Statement, missing: NotFound
    ) -> tuple[str | None, Iterator[influxql.Frame]]:
        """Return what each statement answers for a database without a bucket: an error, or nothing."""
        what = getattr(statement, "what", "SELECT")
        if what == "RETENTION POLICIES":
            return None, iter((influxql.Frame("", influxql.POLICY_COLUMNS, ()),))
        words = {
            "TAG KEYS": f"default retention policy not set for: {missing.name}",
            "DELETE": f"no dbrp mappings found: db={missing.name}, rp=, please check to make sure db and rp exist",
        }
        return words.get(what, str(missing)), iter(())

    def _results(
        self, statements: Iterable[influxql.Statement], form: Mapping[str, str], rights: frozenset[str]
    ) -> Iterator[StatementResult]:
        database, policy = form.get("db", ""), form.get("rp", "")
        for number, statement in enumerate(statements):
            try:
                if READ not in rights and database:
                    raise QueryError(f"database not found: {database}")
                if isinstance(statement, influxql.ChangeStatement) and statement.what in _NOT_IMPLEMENTED:
                    raise QueryError(f"not implemented: {statement.what}")
                name = f"{database}/{policy}" if policy and f"{database}/{policy}" in self.store.databases else database
                frames = influxql.run(self.store, statement, name, "")
                if isinstance(statement, influxql.Show) and statement.what == "RETENTION POLICIES":
                    # 2.x answers the same for every bucket, whatever its retention and its shards are.
                    row = ["autogen", "0s", "168h0m0s", 1, True]
                    frames = iter((influxql.Frame("", influxql.POLICY_COLUMNS, [row]),))
            except NotFound as exc:
                words, frames = self._without_mapping(statement, exc)
                if words is None:
                    yield StatementResult(number, frames)
                    continue
                yield StatementResult(number, error=words if number == 0 else "not executed")
                return
            except QueryError as exc:
                # the server gives the cause for the first statement only, and omits the others
                yield StatementResult(number, error=str(exc) if number == 0 else "not executed")
                return
            yield StatementResult(number, frames)


_IDENTIFIER_LENGTH = 16


def identifier(name: str) -> str:
    """Return the id of a bucket or organization: 16 hexadecimal digits that depend on the name only."""
    return hashlib.sha256(name.encode()).hexdigest()[:_IDENTIFIER_LENGTH]


def _read_query(body: bytes) -> Mapping[str, object]:
    try:
        tree = json.loads(body)
    except (json.JSONDecodeError, UnicodeDecodeError) as exc:
        hint = "if sending a raw Flux script, set 'Content-Type: application/vnd.flux' in your request headers"
        raise V2Error(
            400, f"failed to decode request body: failed parsing request body as JSON; {hint}: {exc}"
        ) from exc
    if not isinstance(tree, dict):
        raise V2Error(400, "failed to decode request body: request body requires either query or AST")
    return tree


def _flux_dialect(tree: object) -> flux_csv.CsvFormat:
    if not isinstance(tree, Mapping):
        return flux_csv.CsvFormat()
    annotations = tuple(str(each) for each in tree.get("annotations") or ())
    for each in annotations:
        if each not in ("datatype", "group", "default"):
            raise V2Error(400, f"failed to decode request body: unknown dialect annotation type: {each}")
    header = tree.get("header")
    return flux_csv.CsvFormat(
        annotations, header is not False, str(tree.get("delimiter") or ","), str(tree.get("commentPrefix") or "#")
    )


def _double(value: float) -> str:
    if value != value:
        return "NaN"
    return plain_digits(repr(value)) if abs(value) != float("inf") else ("+Inf" if value > 0 else "-Inf")


def _pretty(tree: object) -> str:
    return json.dumps(tree, indent="\t", ensure_ascii=False).replace("&", "\\u0026")


def _integer(text: str | None, default: int) -> int:
    return int(text) if text and text.isdigit() else default


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
