"""Lines to InfluxDB over HTTP: 1.x, 2.x, Cloud, 3.x, VictoriaMetrics.

A write is one request and one verdict: it is never retried or split, and no behavior of a server raises an exception.
`delivery.answers` has the meaning of a response, `flavors` the differences of products, `http` the sockets.
Joining, encoding, compression and the exchange run in threads of this sink.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from iggyflux import deflate
from iggyflux.delivery.answers import Answer, parse_http_date, plain_words
from iggyflux.delivery.lines import RequestLines
from iggyflux.delivery.pace import Bounds
from iggyflux.delivery.retention import Retention
from iggyflux.delivery.verdicts import (
    Accepted,
    Impossible,
    Refusal,
    Refused,
    Unavailable,
    Verdict,
)
from iggyflux.errors import NotConnected, Stopped
from iggyflux.pipeline import InfluxSettings
from iggyflux.transports.influxdb import admin
from iggyflux.transports.influxdb.connection import InfluxConnection, settings_problems
from iggyflux.transports.influxdb.flavors import FLAVORS, bucket_of, database_of
from iggyflux.transports.influxdb.http import STALE_SECONDS, Ticket

__all__ = ["InfluxLineSink", "compress", "settings_problems"]

log = logging.getLogger("iggyflux.influxdb")

T = TypeVar("T")

_GZIP_FROM_BYTES = 1024
_SPARE_THREADS = 1
_RETENTION_SECONDS = 5.0
_PROBE = b"# iggyflux"


class InfluxLineSink(InfluxConnection):
    """A `LineSink`.  `dialect`, `precision` and `in_flight` are known after `connect`."""

    def __init__(
        self, settings: InfluxSettings, *, now: Callable[[], float] = time.time, stale_seconds: float = STALE_SECONDS
    ) -> None:
        """Open nothing.  Raise `PipelineError` if the settings cannot be used."""
        super().__init__(settings, now=now, stale_seconds=stale_seconds)
        self.sent_bytes = 0
        self._target = ""
        self._headers: dict[str, str] = {}
        self._plain_headers: dict[str, str] = {}

    @property
    def dialect(self) -> str:
        """The dialect of line protocol that lines must have."""
        return self.flavor.dialect.value

    @property
    def precision(self) -> str:
        """The unit of time that lines must have."""
        return self._settings.precision

    @property
    def in_flight(self) -> Bounds:
        """How many writes to have in flight: the configured number, else what suits this flavor."""
        chosen = self._settings.max_in_flight
        return Bounds.exactly(chosen) if chosen else self.flavor.in_flight

    # --- the line sink ---

    async def connect(self) -> None:
        """Detect the server and verify the write permission; after that, only check that the server answers.

        Raise `NotConnected` or `Stopped`.
        """
        if self._ready:
            await self._run(self._find_alive)
            return
        if not self._settings.verify:
            hint = "set `ca_file` instead of `verify: false`: the token is sent to any server"
            log.warning("influxdb.not_verified url=%s hint=%r", self.address, hint)
        if self._settings.no_sync:
            log.warning("influxdb.no_sync hint=%r", "a crash of the server loses points that were acknowledged")
        await self._run(self._open)
        log.info(
            "influxdb.connected url=%s product=%r version=%s flavor=%s",
            self.address,
            self.detected.product if self.detected else self.flavor.product,
            self.detected.version or "?" if self.detected else "?",
            self.flavor.name,
        )

    async def write(self, lines: Sequence[str]) -> Verdict:
        """As `LineSink.write`; call `connect` first.  An empty batch sends nothing."""
        if not lines:
            return Accepted()
        ticket = Ticket(self._settings.timeout_seconds)
        sizes: list[int] = []
        deadline = asyncio.get_running_loop().call_later(self._settings.timeout_seconds, ticket.cut)
        try:
            return await self._run(lambda: self._write(lines, ticket, sizes))
        except asyncio.CancelledError:
            ticket.cut()
            raise
        finally:
            deadline.cancel()
            self.sent_bytes += sum(sizes)  # here and not in the threads, which would have to take turns

    async def retention(self) -> Retention:
        """As `Retaining.retention`; the whole has a deadline of some seconds."""
        return await self._run(self._retention)

    async def check(self) -> admin.CheckReport:
        """Return the report for `iggyflux check`; faults are findings, never exceptions."""
        return await self._run(self._check)

    # --- in threads ---

    def _most_in_flight(self) -> int:
        return self._settings.max_in_flight or max(flavor.in_flight.most for flavor in FLAVORS.values())

    def _threads_wanted(self) -> int:
        return self._most_in_flight() + _SPARE_THREADS

    def _open(self) -> None:
        self._detect()
        self._verify()
        self._ready = True

    def _detect(self) -> None:
        super()._detect()
        self._target = self.flavor.write_target(self._settings)
        self._plain_headers = self._given({"content-type": "text/plain; charset=utf-8", "accept": "application/json"})
        self._headers = {**self._plain_headers, "content-encoding": "gzip"}

    def _verify(self) -> None:
        """Verify the write permission without a point: servers check it first, and then find only a comment."""
        flavor = self.flavor
        if flavor.creates_on_write:
            # It would create the database even for a comment; the ping required credentials and was answered.
            verdict = self._classified(self._ask("GET", "/ping"))
            if isinstance(verdict, Impossible) and verdict.code in ("IFX721", "IFX722"):
                raise self._as_error(verdict)
            return
        verdict = self._probe_write()
        if isinstance(verdict, Impossible) and verdict.code == "IFX723" and self._settings.create:
            admin.create(flavor, self._settings, self._ask)
            log.info("influxdb.created %s=%r", flavor.database_word, self._place())
            verdict = self._probe_write()
        if isinstance(verdict, Impossible | Unavailable):
            raise self._as_error(verdict)

    def _place(self) -> str:
        return bucket_of(self._settings) if self.flavor.database_word == "bucket" else database_of(self._settings)

    def _probe_write(self, seen: list[Answer] | None = None) -> Verdict:
        answer = self._http().exchange("POST", self._target, self._plain_headers, _PROBE)
        if isinstance(answer, Answer) and seen is not None:
            seen.append(self._cleaned(answer))
        return self._classified(answer) if isinstance(answer, Answer) else answer

    def _write(self, lines: Sequence[str], ticket: Ticket, sizes: list[int]) -> Verdict:
        """Send a request; append the size of its body to `sizes`."""
        try:
            body, is_compressed = self._body(lines)
        except UnicodeEncodeError:
            return _not_encodable(lines)
        if ticket.is_cut:
            return Unavailable("the write waited too long for a connection")
        sizes.append(len(body))
        headers = self._headers if is_compressed else self._plain_headers
        answer = self._http().exchange("POST", self._target, headers, body, ticket=ticket)
        return self._classified(answer, lines) if isinstance(answer, Answer) else answer

    def _body(self, lines: Sequence[str]) -> tuple[bytes, bool]:
        """Return the body of a request, and whether it is compressed: then `RequestLines` need not be kept as lines."""
        known = lines if isinstance(lines, RequestLines) else None
        if known is not None and known.body is not None:
            known.drop()
            return known.body, True
        body = "\n".join(lines).encode()
        if self._settings.gzip == "off" or (self._settings.gzip == "auto" and len(body) < _GZIP_FROM_BYTES):
            return body, False
        compressed = compress(body)
        if known is not None and body.count(b"\n") == len(lines) - 1:  # else a string has a line feed
            known.keep(compressed)
        return compressed, True

    def _retention(self) -> Retention:
        ticket, dates = Ticket(min(_RETENTION_SECONDS, self._settings.timeout_seconds)), [0.0]

        def ask(method: str, target: str, body: bytes | None = None, **headers: str) -> Answer:
            answer = self._ask_within(ticket, method, target, body, headers)
            if (date := parse_http_date(answer.headers.get("date", ""))) is not None:
                dates.append(date - self._now())
            return answer

        try:
            found = admin.retention(self.flavor, self._settings, ask)
        except NotConnected as error:
            found = Retention(None, str(error), retry_after_seconds=error.retry_after_seconds)
        except Stopped as error:
            found = Retention(None, str(error))
        return replace(found, why=plain_words(found.why, self._scrub), ahead_seconds=dates[-1])

    def _check(self) -> admin.CheckReport:
        findings: list[admin.ServerFinding] = []
        try:
            self._detect()
        except (NotConnected, Stopped) as error:
            findings.append(admin.failed("server", error))
            return admin.CheckReport(str(self.address), None, None, tuple(findings))
        known = self.detected
        product = f"{known.product} {known.version}".strip() if known else self.flavor.product
        findings.append(admin.ServerFinding("server", True, f"{product}, used as {self.flavor.name}"))
        answers = [self.ping] if self.ping else []

        def ask(method: str, target: str, body: bytes | None = None, **headers: str) -> Answer:
            answers.append(self._ask(method, target, body, **headers))
            return answers[-1]

        findings += admin.look(self.flavor, self._settings, ask, lambda: self._probe_write(answers))
        findings += admin.refuses_everything(answers)
        cleaned = tuple(finding.scrubbed(self._scrub) for finding in findings)
        return admin.CheckReport(str(self.address), self.flavor.name, product, cleaned)


def compress(body: bytes) -> bytes:
    """Return `body` as gzip."""
    return deflate.compress(body, 1, deflate.GZIP)


def _not_encodable(lines: Sequence[str]) -> Verdict:
    refusals = []
    for index, line in enumerate(lines):
        try:
            line.encode()
        except UnicodeEncodeError as error:
            refusals.append(Refusal(index, f"not text that UTF-8 can hold: {error.reason}"))
    return Refused(tuple(refusals), rest_stored=False)
