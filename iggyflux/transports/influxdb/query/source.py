"""Rows of InfluxDB, a span of time at a time: the `RowSource` of a query.

It has no position and never retries.  An answer is received whole and checked for completeness before it is decoded.
This file decides whether an answer is complete.  `answers` has the meaning of an answer without rows, `statements` the
text of a query, `rows` the decoding, `schema` what follows from a schema.

The schema of a measurement is asked for after each answer.  If it is not the one that the statement was made for, the
span is queried again.  So a field, a type or a tag that appears between two windows is in the window in which it
appeared.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import msgspec

from iggyflux.delivery.answers import Answer, parse_http_date, plain_words
from iggyflux.delivery.retention import Retention
from iggyflux.errors import NotConnected, Stopped, TooMuch, TooSlow, listed
from iggyflux.pipeline import InfluxSettings
from iggyflux.records import JSON, Row
from iggyflux.secrets import Scrubber
from iggyflux.spec import Query
from iggyflux.transports.influxdb.admin import bucket_name, retention
from iggyflux.transports.influxdb.connection import InfluxConnection
from iggyflux.transports.influxdb.flavors import bucket_of, database_of, retention_policy_of
from iggyflux.transports.influxdb.http import Ticket
from iggyflux.transports.influxdb.query import statements
from iggyflux.transports.influxdb.query.answers import judge, judge_words
from iggyflux.transports.influxdb.query.rows import (
    InfluxqlDocument,
    Layout,
    TypeUnknown,
    UnreadableAnswer,
    decode_flux,
    decode_influxql,
    decode_jsonl,
    read_document,
    read_documents,
)
from iggyflux.transports.influxdb.query.schema import (
    NamesClash,
    Schema,
    Selection,
    choose,
    missing_names,
    read_columns,
    read_field_keys,
    unfaithful,
)
from iggyflux.transports.influxdb.query.spool import Spool, SpoolError, SpoolFull
from iggyflux.transports.influxdb.query.types import Ask, find_spans

log = logging.getLogger("iggyflux.influxdb")

MOST_BYTES: Final = 4 * 1024**3
"""The largest allowed answer; a larger one raises `TooMuch`."""
_CELLS_A_DOCUMENT = 20_000
_ATTEMPTS = 3
_SLOW_ANSWERS = 5
"""So many answers in a row that were late: the server does not find the first row."""

Decode = Callable[[Iterator[bytes]], Iterator[list[Row]]]


@dataclass(frozen=True, slots=True)
class StatementRequest:
    """One request with a statement.  `kind` is a word that the answer's content type must contain."""

    target: str
    body: bytes
    headers: tuple[tuple[str, str], ...]
    kind: str


@dataclass(frozen=True, slots=True)
class CompleteAnswer:
    """A complete answer, and how to decode its rows."""

    spool: Spool
    decode: Decode
    rows: int | None = None


class InfluxWindow:
    """A `Window`: the answers of one span, decoded in a thread on demand."""

    def __init__(self, taken: Sequence[CompleteAnswer], scrub: Scrubber, selection: Selection | None = None) -> None:
        self._taken = tuple(taken)
        self._scrub = scrub
        self.selection = selection
        """The columns that were asked for; None if a statement asked, or there is nothing to find."""

    @property
    def rows(self) -> int | None:
        """The number of rows, if it is known."""
        total = 0
        for each in self._taken:
            if each.rows is None:
                return None
            total += each.rows
        return total

    @property
    def read_bytes(self) -> int:
        """As `Window.read_bytes`."""
        return sum(each.spool.size for each in self._taken)

    async def chunks(self) -> AsyncIterator[Sequence[Row]]:
        """As `Window.chunks`.  Time is integer nanoseconds in the cursor's column, which comes first."""
        loop = asyncio.get_running_loop()
        found = self._decoded()
        while (chunk := await loop.run_in_executor(None, next, found, None)) is not None:
            yield chunk

    def _decoded(self) -> Iterator[list[Row]]:
        for each in self._taken:
            try:
                yield from each.decode(each.spool.blocks())
            except UnreadableAnswer as error:
                words = plain_words(str(error), self._scrub)
                raise Stopped(f"cannot read the answer: {words}", _REPORT, "IFX747") from None
            except TypeUnknown as error:
                if error.is_gone:
                    raise NotConnected(f"rows were deleted while they were read: {error}") from None
                raise Stopped(str(error), _NAME, "IFX751") from None
            except SpoolError as error:
                raise Stopped(f"cannot read the stored answer: {error}", _DISK, "IFX746") from None

    def close(self) -> None:
        """As `Window.close`."""
        for each in self._taken:
            each.spool.close()


_NAME = "omit the field: name the other fields under `fields` of the mapping"
_SET_START = "set `cursor.start` to a time"
_REPORT = "report it, with the version of the server: the answer is complete, but does not follow its format"
_DISK = "free space in the directory for temporary files (TMPDIR), where answers are stored"


class InfluxRows(InfluxConnection):
    """A `RowSource`.  `language` and the kind of server are known after `connect`."""

    def __init__(
        self,
        settings: InfluxSettings,
        query: Query,
        *,
        column: str = "time",
        reads: Iterable[str] = (),
        folder: Path | None = None,
        most_bytes: int = MOST_BYTES,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Open nothing.  `column` is the cursor's; `reads` names the columns that the mapping reads; `folder` is
        where answers are kept while they are read.

        Raise `PipelineError` if the settings cannot be used.
        """
        super().__init__(settings, now=now)
        self._query = query
        self._column = column
        self._reads = tuple(reads)
        self._folder = folder
        self._most_bytes = most_bytes
        self._language: str = query.language
        self._schema: Schema | None = None
        self._examined: Schema | None = None
        self._tickets: set[Ticket] = set()
        self._warned: set[str] = set()
        self._slow_answers = 0  # to the question for the first row
        self._bucket_name = bucket_of(settings)

    @property
    def language(self) -> str:
        """The query language: `sql`, `influxql` or `flux`; `auto` before it is known."""
        return self._language

    # --- the row source ---

    async def connect(self) -> None:
        """As `RowSource.connect`."""
        if self._ready:
            await self._run(self._find_alive)
            return
        try:
            await self._run(self._open)
        except TooMuch as error:
            raise NotConnected(str(error)) from None  # the smallest queries: a shorter span is not possible

    async def now(self) -> int:
        """As `RowSource.now`: the header `Date`, which servers round down.  Raise `NotConnected` or `Stopped`."""
        return await self._run(self._server_now)

    async def missing(self) -> list[tuple[str, str]]:
        """Return the measurement, the tags and the columns that the server does not have, each with a hint."""
        if self._query.statement is not None:
            return []
        return await self._run(self._reported)

    async def schema(self, measurement: str) -> Schema:
        """Return the fields and tags that a measurement has on the server: none if it does not exist.

        Raise `NotConnected` or `Stopped`.
        """
        return await self._run(lambda: self._ask_schema(measurement))

    async def retention(self) -> Retention:
        """Return how long the server keeps points.  Raise `NotConnected` or `Stopped`."""
        return await self._run(lambda: retention(self.flavor, self._settings, self._ask))

    async def first(self) -> int | None:
        """As `RowSource.first`."""
        return await self._run(self._first)

    async def fetch(self, start: int, stop: int) -> InfluxWindow:
        """As `RowSource.fetch`."""
        ticket = Ticket(self._settings.timeout_seconds)
        self._tickets.add(ticket)
        try:
            return await self._run(lambda: self._fetch(start, stop, ticket))
        except asyncio.CancelledError:
            ticket.cut()
            raise
        finally:
            self._tickets.discard(ticket)

    async def close(self) -> None:
        """As `RowSource.close`: cuts the exchanges in progress."""
        for ticket in tuple(self._tickets):
            ticket.cut()
        await super().close()

    # --- in threads: opening ---

    def _threads_wanted(self) -> int:
        return 4

    def _open(self) -> None:
        self._detect()
        spoken = _SPOKEN[self.flavor.name]
        wanted = self._query.language
        if wanted != "auto" and wanted not in spoken:
            raise Stopped(
                f"{self.flavor.product} does not support {wanted!r}",
                f"set `language: auto`, or one of {', '.join(spoken)}" if spoken else "it supports no queries",
                "IFX743",
            )
        if not spoken:
            raise Stopped(f"{self.flavor.product} supports no queries", "read from an InfluxDB", "IFX743")
        self._language = wanted if wanted != "auto" else spoken[0]
        if self.flavor.name == "v2":
            self._bucket_name = bucket_name(self._settings, self._ask)
        if self._query.statement is not None:
            try:
                statements.check_statement(self._query.statement, self._language)
            except statements.StatementError as error:
                raise Stopped(str(error), "correct `statement` in the mapping", "IFX742") from None
            why = "as the mapping says"
        else:
            if self._column != "time":
                hint = "remove `column`: only a statement can have another"
                raise Stopped(f"the time of a measurement is not {self._column!r}", hint, "IFX748")
            why = self._choose_language(self._ask_schema())
        self._ready = True
        log.info(
            "influxdb.query.connected url=%s product=%r version=%s language=%s why=%r",
            self.address,
            self.detected.product if self.detected else self.flavor.product,
            self.detected.version or "?" if self.detected else "?",
            self._language,
            why,
        )

    def _choose_language(self, schema: Schema) -> str:
        """Choose between the languages of 2.x and return the reason."""
        self._schema = schema
        if self._query.language != "auto":
            if self._language == "flux" and (reason := self._unfaithful(schema)):
                raise Stopped(
                    f"Flux would not return the rows as they are stored: {reason}",
                    "set `language: influxql`, or `auto`",
                    "IFX745",
                )
            return "as the mapping says"
        if self.flavor.name != "v2":
            return "the best language of this server"
        reason = self._unfaithful(schema)
        self._language = "influxql" if reason else "flux"
        return (
            f"Flux would change the rows: {reason}" if reason else "Flux returns the rows of this measurement unchanged"
        )

    def _unfaithful(self, schema: Schema) -> str | None:
        """Return why Flux would not return the rows as they are stored, or None."""
        reason = unfaithful(schema, self._query)
        if reason is None and schema.tags:
            statement = statements.broken_tags_influxql(self._measurement, schema.tags)
            if self._ask_influxql(statement).series:
                return "a tag has a value with a line break, which Flux changes"
        return reason

    @property
    def _measurement(self) -> str:
        return self._query.measurement or ""

    # --- in threads: the schema and the ends ---

    def _server_now(self) -> int:
        answer = self._ask("GET", "/ping")
        error = None if answer.status in (200, 204) else judge(answer, self._now())
        if error is not None:
            raise error
        seconds = parse_http_date(answer.headers.get("date", ""))
        if seconds is None:
            self._warn_once(
                "influxdb.query.no_date hint=%r", "the server does not report its time, so the local clock is used"
            )
            seconds = self._now()
        return int(seconds) * 10**9

    def _ask_schema(self, measurement: str | None = None) -> Schema:
        """Return the schema of a measurement, of the query's if none is given."""
        name = self._measurement if measurement is None else measurement
        if self.flavor.name == "v3":
            return read_columns(self._ask_sql(statements.columns_sql(name)))
        fields = self._ask_influxql(statements.fields_influxql(name))
        tags = self._ask_influxql(statements.tags_influxql(name))
        return Schema(
            read_field_keys(row for series in fields.series for row in series.values),
            tuple(sorted({str(row[0]) for series in tags.series for row in series.values})),
        )

    def _choose(self, schema: Schema) -> Selection | None:
        """Return the columns to query; None if there is nothing to find."""
        try:
            chosen = choose(schema, self._query)
        except NamesClash as error:
            raise Stopped(str(error), "select columns with `fields` and `tags`", "IFX744") from None
        if schema != self._examined:
            self._examined = schema
            for what, name, hint in self._missing(schema):
                self._warn_once(f"influxdb.query.no_such_{what} name=%r hint=%r", name, hint)
        if not schema.fields:
            return None
        for name in chosen.renamed:
            self._warn_once("influxdb.query.renamed tag=%r as=%r", name, chosen.tags[name])
        for name, _ in self._query.where:
            if name not in schema.tags:
                return None
        return chosen if chosen.fields else None

    def _reported(self) -> list[tuple[str, str]]:
        """Return what is missing; no event repeats it."""
        schema = self._examined = self._ask_schema()
        return [(f"{what} {name!r}", hint) for what, name, hint in self._missing(schema)]

    def _missing(self, schema: Schema) -> Iterator[tuple[str, str, str]]:
        """Yield what the reader names and the server does not have: the kind, the name, and a hint."""
        if not schema.fields:
            known = self._measurements()
            yield "measurement", self._measurement, f"there is {known}" if known else "nothing is there yet"
            return
        where = {name for name, _ in self._query.where}
        columns = (*schema.fields, *schema.tags)
        for name in missing_names(schema, self._query, self._reads):
            if name in where:
                yield "tag", name, f"no row has this tag of `where`; the tags are {listed(schema.tags, name)}"
            else:
                yield "column", name, f"it is null in every message; the columns are {listed(columns, name)}"

    def _measurements(self) -> str:
        """Return the measurements that the server has, the most similar name first; empty if it does not tell."""
        try:
            if self.flavor.name == "v3":
                names = [str(row.get("table_name")) for row in self._ask_sql(statements.TABLES_SQL)]
            else:
                found = self._ask_influxql(statements.MEASUREMENTS_INFLUXQL).series
                names = [str(row[0]) for series in found for row in series.values]
        except (NotConnected, Stopped, TooMuch):
            return ""
        return listed(names, self._measurement)

    def _warn_once(self, event: str, *values: object) -> None:
        if (text := event % tuple(map(repr, values))) not in self._warned:
            self._warned.add(text)
            log.warning(event, *values)

    def _first(self) -> int | None:
        """Return the time of the first row.  Raise `NotConnected`, and `Stopped` where no answer can be hoped for."""
        try:
            if self._query.statement is not None:
                return self._first_of_statement(self._query.statement)
            return self._first_of_measurement()
        except TooMuch as error:
            self._slow_answers = self._slow_answers + 1 if isinstance(error, TooSlow) else _SLOW_ANSWERS
            if self._slow_answers < _SLOW_ANSWERS:
                raise NotConnected(str(error)) from None  # it may have been slow this time
            if self._language == "sql" and self._query.statement is None:
                # Core refuses to search many files, but knows the times in them.
                found = self._ask_sql(statements.first_file_sql(self._measurement))
                if found and (first := _integer(found[0].get("first"))) is not None:
                    log.info("influxdb.query.first_of_files first=%s why=%r", first, str(error))
                    return first
            raise Stopped(f"cannot find the first row: {error}", _SET_START, "IFX749") from None

    def _first_of_measurement(self) -> int | None:
        schema = self._schema = self._ask_schema()
        chosen = self._choose(schema)
        if chosen is None:
            return None
        where = self._query.where
        if self._language == "sql":
            found = self._ask_sql(statements.first_sql(self._measurement, where))
            return _integer(found[0].get("first")) if found else None
        if self._language == "flux":
            script = statements.first_flux(self._bucket, self._measurement, self._query.fields, where)
            return self._first_of_flux(script)
        columns = [(each.name, each.kind) for each in chosen.columns]
        return _first_of_document(self._ask_influxql(statements.first_influxql(self._measurement, columns, where)))

    def _first_of_statement(self, statement: str) -> int | None:
        try:
            if self._language == "sql":
                found = self._ask_sql(statements.first_of_sql(statement, self._column))
                return _integer(found[0].get("first")) if found else None
            if self._language == "flux":
                return self._first_of_flux(statements.first_of_flux(statement))
            return _first_of_document(self._ask_influxql(statements.first_of_influxql(statement)))
        except Stopped as error:
            if error.code != "IFX742":
                raise
            raise Stopped(f"cannot find the first row of the statement: {error}", _SET_START, "IFX749") from None

    def _first_of_flux(self, script: str) -> int | None:
        with ExitStack() as until:
            spool = self._download(self._flux_request(script), Ticket(self._settings.timeout_seconds), mark=b"")
            until.callback(spool.close)
            self._check_flux(spool)
            rows = [row for chunk in decode_flux(spool.blocks(), "time", (0, 0), None) for row in chunk]
        return _integer(rows[0].columns.get("time")) if rows else None

    # --- in threads: a span ---

    def _fetch(self, start: int, stop: int, ticket: Ticket) -> InfluxWindow:
        start, stop = max(start, statements.FIRST_TIME), min(stop, statements.END_OF_TIME)
        if start >= stop:
            return InfluxWindow((), self._scrub)
        if self._query.statement is not None:
            return InfluxWindow([self._take_statement(self._query.statement, start, stop, ticket)], self._scrub)
        for _ in range(_ATTEMPTS):
            schema = self._schema or self._ask_schema()
            with ExitStack() as until:
                taken = self._take(schema, start, stop, ticket, until)
                after = self._ask_schema()
                if after == schema and not self._turned_unfaithful(after):
                    until.pop_all()
                    return InfluxWindow(taken, self._scrub, self._choose(schema))
            self._schema = after
            log.info("influxdb.query.schema_changed measurement=%r", self._measurement)
        raise NotConnected(f"the schema of {self._measurement!r} changed with every answer")

    def _turned_unfaithful(self, schema: Schema) -> bool:
        """Whether Flux, which `auto` chose, no longer returns rows as stored: then switch to InfluxQL."""
        if self._language != "flux":
            return False
        was = self._language
        why = self._choose_language(schema)
        if self._language == was:
            return False
        log.warning("influxdb.query.language language=%s why=%r", self._language, why)
        return True

    def _take(self, schema: Schema, start: int, stop: int, ticket: Ticket, until: ExitStack) -> list[CompleteAnswer]:
        self._schema = schema
        chosen = self._choose(schema)
        if chosen is None:
            return []
        window = (start, stop)
        if self._language == "sql":
            return self._take_sql(chosen, window, ticket, until)
        if self._language == "flux":
            fields, where = self._query.fields, self._query.where
            script = statements.select_flux(self._bucket, self._measurement, fields, where, start, stop)
            spool = self._kept(self._flux_request(script), ticket, until)
            self._check_flux(spool)
            return [CompleteAnswer(spool, lambda blocks: decode_flux(blocks, "time", window, chosen.tags))]
        return [self._take_influxql(chosen, window, ticket, until)]

    def _take_sql(
        self, chosen: Selection, window: tuple[int, int], ticket: Ticket, until: ExitStack
    ) -> list[CompleteAnswer]:
        statement = statements.select_sql(
            self._measurement,
            chosen.tags,
            tuple(chosen.fields),
            self._query.where,
            *window,
            chosen=bool(self._query.fields),
        )
        spool = self._kept(self._sql_request(statement), ticket, until)
        self._check_jsonl(spool)
        tags = tuple(sorted(chosen.tags.values()))
        return [
            CompleteAnswer(
                spool, lambda blocks: decode_jsonl(blocks, self._measurement, window, tags), rows=spool.newlines
            )
        ]

    def _take_influxql(
        self, chosen: Selection, window: tuple[int, int], ticket: Ticket, until: ExitStack
    ) -> CompleteAnswer:
        columns = chosen.columns
        statement = statements.select_influxql(
            self._measurement, ((each.name, each.kind) for each in columns), self._query.where, *window
        )
        spool = self._kept(self._influxql_request(statement, len(columns) + 1), ticket, until, mark=b'"error":')
        self._check_influxql(spool)
        # Types are asked for after the rows: values written meanwhile are examined, but are in no row.
        kinds, signs = {}, {}
        for name, types in chosen.mixed.items():
            if "float" in types:
                kinds[name] = find_spans(self._asking(name, ticket), *window, signed=False)
            if types >= {"integer", "unsigned"}:
                signs[name] = find_spans(self._asking(name, ticket, negative=True), *window, signed=True)
        layout = Layout(columns, chosen.tags, kinds, signs)
        return CompleteAnswer(spool, lambda blocks: decode_influxql(blocks, layout, "time", window))

    def _take_statement(self, statement: str, start: int, stop: int, ticket: Ticket) -> CompleteAnswer:
        column, window = self._column, (start, stop)
        with ExitStack() as until:
            if self._language == "sql":
                text = statements.ordered_sql(statement, column, start, stop)
                spool = self._kept(self._sql_request(text), ticket, until)
                self._check_jsonl(spool)
                taken = CompleteAnswer(
                    spool, lambda blocks: decode_jsonl(blocks, "", window, None), rows=spool.newlines
                )
            elif self._language == "flux":
                text = statements.fill(statement, "flux", start, stop)
                spool = self._kept(self._flux_request(text), ticket, until)
                self._check_flux(spool)
                taken = CompleteAnswer(spool, lambda blocks: decode_flux(blocks, column, window, None))
            else:
                text = statements.fill(statement, "influxql", start, stop)
                spool = self._kept(self._influxql_request(text, 10), ticket, until, mark=b'"error":')
                self._check_influxql(spool)
                taken = CompleteAnswer(spool, lambda blocks: decode_influxql(blocks, Layout(), column, window))
            until.pop_all()
        return taken

    def _asking(self, name: str, ticket: Ticket, *, negative: bool = False) -> Ask:
        """Return a query for one value of a field, in MessagePack, which distinguishes 7 and 7.0; JSON does not."""

        def ask(start: int, stop: int, last: bool) -> tuple[int, JSON] | None:
            if start >= stop:
                return None
            if ticket.is_cut:
                raise NotConnected("the query was cut off")
            statement = statements.one_value_influxql(
                self._measurement, name, self._query.where, start, stop, last=last, negative=negative
            )
            request = self._influxql_request(statement, 0)
            headers = self._given({**dict(request.headers), "accept": "application/x-msgpack"})
            answer = self._http().exchange("POST", request.target, headers, request.body)
            if not isinstance(answer, Answer):
                raise self._as_error(answer)
            if not answer.whole:
                raise NotConnected("incomplete answer")
            if answer.status != 200:
                if judged := judge(answer, self._now()):
                    raise judged
                return None
            if "msgpack" not in answer.headers.get("content-type", ""):
                raise Stopped(
                    f"the type of {name!r} cannot be asked for: the answer is not MessagePack", _NAME, "IFX751"
                )
            return self._one_value(answer.body)

        return ask

    def _one_value(self, body: bytes) -> tuple[int, JSON] | None:
        try:
            document = msgspec.msgpack.decode(body, type=InfluxqlDocument)
            row = next((row for series in document.series for row in series.values), None)
            found = None if row is None else (int(row[0]), row[1])
        except (msgspec.DecodeError, ValueError, TypeError, LookupError, RecursionError) as error:
            raise Stopped(
                f"cannot read the answer: {plain_words(str(error), self._scrub)}", _REPORT, "IFX747"
            ) from None
        if document.failure and (judged := judge_words(document.failure, self._scrub)):
            raise judged
        return found

    # --- in threads: requests ---

    @property
    def _database(self) -> str:
        if self.flavor.name == "v2":
            return self._bucket_name.partition("/")[0]
        return database_of(self._settings)

    @property
    def _bucket(self) -> str:
        """The bucket as Flux names it: in 1.8 a database with its retention policy."""
        if self.flavor.name == "v2":
            return self._bucket_name
        return f"{self._database}/{self._policy}" if self._policy else self._database

    @property
    def _policy(self) -> str:
        if self.flavor.name == "v2":
            return self._bucket_name.partition("/")[2]
        return retention_policy_of(self._settings)

    def _influxql_request(self, statement: str, width: int) -> StatementRequest:
        """Return a request; `width` is the number of columns in a row; 0 requests one document."""
        given = {"db": self._database, "epoch": "ns", "q": statement}
        if self._policy:
            given["rp"] = self._policy
        if width:
            given |= {"chunked": "true", "chunk_size": str(min(max(_CELLS_A_DOCUMENT // width, 100), 5000))}
        headers = (("content-type", "application/x-www-form-urlencoded"), ("accept", "application/json"))
        return StatementRequest("/query", urlencode(given).encode(), headers, "json")

    def _sql_request(self, statement: str) -> StatementRequest:
        body = json.dumps({"db": self._database, "q": statement, "format": "jsonl"}).encode()
        headers = (("content-type", "application/json"),)
        return StatementRequest("/api/v3/query_sql", body, headers, "json")

    def _flux_request(self, script: str) -> StatementRequest:
        target = "/api/v2/query"
        if self._settings.org:
            target += "?" + urlencode({"org": self._settings.org})
        headers = (("content-type", "application/json"), ("accept", "application/csv"))
        return StatementRequest(target, statements.flux_body(script), headers, "csv")

    def _kept(self, request: StatementRequest, ticket: Ticket, until: ExitStack, mark: bytes = b"") -> Spool:
        spool = self._download(request, ticket, mark)
        until.callback(spool.close)
        return spool

    def _download(self, request: StatementRequest, ticket: Ticket, mark: bytes) -> Spool:
        """Return the whole answer to a request, not yet examined.  Raise `NotConnected`, `TooMuch`, `Stopped`."""
        with ExitStack() as until:
            spool = Spool(self._folder, self._most_bytes, mark)
            until.callback(spool.close)
            given = self._given(dict(request.headers))
            try:
                answer = self._http().download("POST", request.target, given, request.body, spool.append, ticket=ticket)
            except SpoolFull:
                raise TooMuch(f"the answer is larger than {self._most_bytes} bytes") from None
            except SpoolError as error:
                raise Stopped(f"cannot store the answer: {error}", _DISK, "IFX746") from None
            if not isinstance(answer, Answer):
                failure = self._as_error(answer)
                raise failure if ticket.is_cut else self._slow(failure)
            if answer.status != 200:
                if judged := judge(answer, self._now()):
                    raise judged
                spool.is_nothing = True
            elif not answer.whole:
                raise NotConnected("incomplete answer")
            elif request.kind not in answer.headers.get("content-type", ""):
                page = replace(answer, body=spool.read(0, 4096))
                raise judge(page, self._now()) or Stopped("no rows", code="IFX740")
            until.pop_all()
            return spool

    def _slow(self, error: NotConnected | Stopped) -> NotConnected | Stopped | TooMuch:
        """Return `TooMuch` if the server answers, but not in time: the query was too large."""
        if not str(error).startswith("no complete answer"):
            return error
        try:
            self._find_alive()
        except (NotConnected, Stopped):
            return error
        return TooSlow(f"{error}, although the server is reachable")

    def _ask_influxql(self, statement: str) -> InfluxqlDocument:
        """Return a small answer.  Raise `NotConnected`, `TooMuch`, `Stopped`."""
        with ExitStack() as until:
            spool = self._kept(
                self._influxql_request(statement, 10), Ticket(self._settings.timeout_seconds), until, mark=b'"error":'
            )
            self._check_influxql(spool)
            series = [series for document in read_documents(spool.blocks()) for series in document.series]
        return InfluxqlDocument.of(series)

    def _ask_sql(self, statement: str) -> list[dict[str, Any]]:
        with ExitStack() as until:
            spool = self._kept(self._sql_request(statement), Ticket(self._settings.timeout_seconds), until)
            self._check_jsonl(spool)
            rows = [row for chunk in decode_jsonl(spool.blocks(), "", (0, 0), None) for row in chunk]
        return [dict(row.columns) for row in rows]

    # --- in threads: is an answer complete? ---

    def _check_influxql(self, spool: Spool) -> None:
        """Check that the last document says that none follows; an error in any of them fails the whole answer."""
        if spool.is_nothing:
            return
        try:
            last = read_document(spool.last_line())
            documents = read_documents(spool.blocks()) if spool.is_marked else iter((last,))
            failure = next((document.failure for document in documents if document.failure), None)
        except UnreadableAnswer as error:
            raise NotConnected(f"the answer is truncated: {plain_words(str(error), self._scrub)}") from None
        if failure is not None and (judged := judge_words(failure, self._scrub)):
            raise judged
        if last.is_partial:
            raise NotConnected("the answer is truncated: its last part says that more follows")

    def _check_jsonl(self, spool: Spool) -> None:
        """Check the last line: apart from that, only HTTP framing distinguishes a truncated answer from a whole one."""
        line = spool.last_line() if spool.size else b""
        if line:
            try:
                list(decode_jsonl([line], "", (0, 0), None))
            except UnreadableAnswer as error:
                raise NotConnected(f"the answer is truncated: {plain_words(str(error), self._scrub)}") from None

    def _check_flux(self, spool: Spool) -> None:
        """Check that the answer ends with an empty line.  One with an error does not, though its status is 200."""
        if spool.is_nothing or spool.tail == b"\r\n" or spool.tail.endswith(b"\r\n\r\n"):
            return
        end = spool.read(max(spool.size - _TAIL_BYTES, 0), _TAIL_BYTES).decode("utf-8", "replace")
        for sign in (",error,reference\r\n", '{"code":'):
            _, found, message = end.rpartition(sign)
            if found and (judged := judge_words(message.strip("\r\n,"), self._scrub)):
                raise judged
        raise NotConnected("the answer is truncated: it has no end mark")


_TAIL_BYTES = 64 * 1024
_SPOKEN = {"v1": ("influxql", "flux"), "v2": ("influxql", "flux"), "v3": ("sql", "influxql"), "victoriametrics": ()}
"""The languages of each flavor; the first is the default, except for 2.x, where the schema decides."""


def _integer(value: object) -> int | None:
    return value if isinstance(value, int) else None


def _first_of_document(document: InfluxqlDocument) -> int | None:
    return next((_integer(row[0]) for series in document.series for row in series.values), None)
