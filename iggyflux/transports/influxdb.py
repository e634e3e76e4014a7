"""Lines to InfluxDB over HTTP: 1.x, 2.x, Cloud, 3.x, VictoriaMetrics.

A write is one request and one verdict: never a retry, never a split, never an exception for what a server does.  What
an answer means stands in `delivery.answers`; what a flavour speaks, in `influxdb_flavors`; sockets, in `influxdb_http`.
Joining, encoding, compression and the exchange run in threads of this sink.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

from iggyflux import __version__
from iggyflux.delivery.answers import Answer, classify
from iggyflux.delivery.verdicts import (
    Accepted,
    Impossible,
    Refusal,
    Refused,
    RefusedSome,
    TooLarge,
    Unavailable,
    Verdict,
)
from iggyflux.errors import NotConnected, PipelineError, Problem, Stopped
from iggyflux.pipeline import InfluxSettings
from iggyflux.transports import influxdb_admin as admin
from iggyflux.transports.influxdb_flavors import (
    FLAVORS,
    Detected,
    Flavor,
    Misfit,
    bucket_of,
    database_of,
    detect,
    detect_by_health,
    detect_by_metrics,
    misfits,
)
from iggyflux.transports.influxdb_http import (
    STALE_SECONDS,
    Address,
    AddressError,
    HttpClient,
    Login,
    Scrubber,
    Ticket,
    Tls,
    parse_address,
    proxy_secrets,
)

log = logging.getLogger("iggyflux.influxdb")

T = TypeVar("T")

_GZIP_FROM_BYTES = 1024
_SPARE_THREADS = 1
_PROBE = b"# iggyflux"
_PIN = "set `flavor` to what it speaks: v1, v2, v3 or victoriametrics"


def settings_problems(settings: InfluxSettings) -> list[Problem]:
    """What is wrong with `settings` before a server is asked; empty where nothing is."""
    problems = [_problem(misfit) for misfit in misfits(settings)]
    try:
        parse_address(settings.url)
    except AddressError as error:
        problems.append(Problem("IFX732", str(error), hint="for example `url: http://127.0.0.1:8086`"))
    return problems


def _problem(misfit: Misfit) -> Problem:
    return Problem("IFX728", f"`{misfit.key}`: {misfit.why}", hint=misfit.hint)


class InfluxLineSink:
    """A `LineSink`.  `dialect`, `precision` and `max_in_flight` are known after `connect`."""

    def __init__(
        self, settings: InfluxSettings, *, now: Callable[[], float] = time.time, stale_seconds: float = STALE_SECONDS
    ) -> None:
        """Opens nothing.  Raises `PipelineError` where the settings cannot be used."""
        problems = settings_problems(settings)
        if problems:
            raise PipelineError(problems)
        self.address, login = parse_address(settings.url)
        self._settings = _with_login(settings, login)
        self._scrub = Scrubber(_secrets(self._settings, login, self.address))
        self._now = now
        self._stale_seconds = stale_seconds
        self._flavor = FLAVORS.get(settings.flavor)
        self.detected: Detected | None = None
        """What the server is, once it was asked."""
        self._client: HttpClient | None = None
        self._threads: ThreadPoolExecutor | None = None
        self._target = ""
        self._headers: dict[str, str] = {}
        self._plain_headers: dict[str, str] = {}
        self._ready = False

    def __repr__(self) -> str:
        return f"InfluxLineSink({self.address}, {self._flavor.name if self._flavor else 'auto'})"

    @property
    def flavor(self) -> Flavor:
        """What is spoken.  Raises `RuntimeError` before it is known."""
        if self._flavor is None:
            raise RuntimeError("connect first: the flavor is not known yet")
        return self._flavor

    @property
    def dialect(self) -> str:
        """The dialect of line protocol that lines must be in."""
        return self.flavor.dialect.value

    @property
    def precision(self) -> str:
        """The unit of time that lines must be in."""
        return self._settings.precision

    @property
    def max_in_flight(self) -> int:
        """How many writes may run at once."""
        return self._settings.max_in_flight or (self._flavor.max_in_flight if self._flavor else 2)

    # --- the line sink ---

    async def connect(self) -> None:
        """Find out what the server is and whether it lets us write; once that is done, only whether it is there.

        Raises `NotConnected` or `Stopped`.
        """
        if self._ready:
            await self._run(self._find_alive)
            return
        if not self._settings.verify:
            hint = "whoever answers gets the token: set `ca_file` instead of `verify: false`"
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
        """As `LineSink.write`; `connect` comes first.  An empty batch sends nothing."""
        if not lines:
            return Accepted()
        ticket = Ticket(self._settings.timeout_seconds)
        deadline = asyncio.get_running_loop().call_later(self._settings.timeout_seconds, ticket.cut)
        try:
            return await self._run(lambda: self._write(lines, ticket))
        except asyncio.CancelledError:
            ticket.cut()
            raise
        finally:
            deadline.cancel()

    async def check(self) -> admin.CheckReport:
        """What `iggyflux check` tells: never raises for what is wrong, but says it."""
        return await self._run(self._check)

    async def close(self) -> None:
        """As `LineSink.close`: what is under way is left to its deadline."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
        if self._client is not None:
            self._client.close()
        self._threads = self._client = None
        self._ready = False

    # --- in threads ---

    async def _run(self, work: Callable[[], T]) -> T:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(
                self._most_in_flight() + _SPARE_THREADS, thread_name_prefix="iggyflux-influxdb"
            )
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def _most_in_flight(self) -> int:
        return self._settings.max_in_flight or max(flavor.max_in_flight for flavor in FLAVORS.values())

    def _open(self) -> None:
        self._detect()
        self._verify()
        self._ready = True

    def _http(self) -> HttpClient:
        if self._client is None:
            settings = self._settings
            tls = Tls(settings.ca_file, settings.client_cert, settings.client_key, settings.verify, settings.domain)
            try:
                self._client = HttpClient(
                    self.address,
                    tls=tls,
                    timeout_seconds=settings.timeout_seconds,
                    scrub=self._scrub,
                    connections=self._most_in_flight() + _SPARE_THREADS,
                    stale_seconds=self._stale_seconds,
                )
            except AddressError as error:
                raise Stopped(self._scrub(str(error)), "an http:// address, with user and password", "IFX726") from None
            except (OSError, ssl.SSLError) as error:
                words = self._scrub(str(error))
                raise Stopped(
                    f"the certificate files cannot be used: {words}",
                    "`ca_file`, `client_cert` and `client_key` are PEM files, the key without a passphrase",
                    "IFX733",
                ) from None
        return self._client

    def _ask(self, method: str, target: str, body: bytes | None = None, **headers: str) -> Answer:
        """One small exchange.  Raises `NotConnected` or `Stopped` where there is no answer."""
        authorization = self._authorization()
        given = {"user-agent": f"iggyflux/{__version__}", **headers}
        if authorization:
            given["authorization"] = authorization
        answer = self._http().exchange(method, target, given, body)
        if not isinstance(answer, Answer):
            raise self._as_error(answer)
        # Nothing of such an answer is compared with what was sent, so it can be scrubbed as a whole.
        headers = {key: self._scrub(value) for key, value in answer.headers.items()}
        return replace(answer, headers=headers, body=self._scrub(answer.body.decode("utf-8", "replace")).encode())

    def _authorization(self) -> str | None:
        # 3.x asks for it even on /ping; which scheme word is right is not known yet, and every 3.x takes Bearer.
        return (self._flavor or FLAVORS["v3"]).authorize(self._settings)

    def _as_error(self, verdict: Verdict) -> NotConnected | Stopped:
        if isinstance(verdict, Impossible):
            hint = self._scrub(verdict.hint) if verdict.hint else None
            return Stopped(self._scrub(verdict.reason), hint, verdict.code)
        return NotConnected(self._scrub(getattr(verdict, "reason", "not available")))

    def _find_alive(self) -> None:
        """Raise `NotConnected` unless something answers as a server that is there."""
        verdict = self._classified(self._ask("GET", "/ping"))
        if isinstance(verdict, Unavailable):
            raise self._as_error(verdict)

    def _classified(self, answer: Answer, lines: Sequence[str] = ("",)) -> Verdict:
        return classify(self._flavor.name if self._flavor else "v2", answer, lines, self._now())

    def _detect(self) -> None:
        ping = self._ask("GET", "/ping")
        verdict = self._classified(ping)
        if isinstance(verdict, Unavailable):
            raise self._as_error(verdict)
        self.detected = detect(ping)
        if self._flavor is None:
            if isinstance(verdict, Impossible) and (ping.status in (401, 403, 407) or 300 <= ping.status < 400):
                raise self._as_error(verdict)
            self.detected = self.detected or self._detect_otherwise(ping)
            self._flavor = FLAVORS[self.detected.flavor]
            wrong = self._flavor.misfits(self._settings)
            if wrong:
                self._flavor = None
                product = self.detected.product
                raise Stopped(
                    f"{self.address} is {product}, and `{wrong[0].key}` does not fit: {wrong[0].why}",
                    wrong[0].hint,
                    "IFX728",
                )
        elif self.detected and self.detected.flavor == "v2" and self._flavor.name == "v3":
            # 2.x answers 200 with its user interface to the write route of 3.x, and stores nothing.
            raise Stopped(f"{self.address} is InfluxDB 2.x", "set `flavor: v2`, or remove it", "IFX729")
        self._target = self._flavor.write_target(self._settings)
        authorization = self._authorization()
        self._plain_headers = {
            "user-agent": f"iggyflux/{__version__}",
            "content-type": "text/plain; charset=utf-8",
            "accept": "application/json",
            **({"authorization": authorization} if authorization else {}),
        }
        self._headers = {**self._plain_headers, "content-encoding": "gzip"}

    def _detect_otherwise(self, ping: Answer) -> Detected:
        if ping.status == 204:
            found = detect_by_health(self._ask("GET", "/health")) or detect_by_metrics(self._ask("GET", "/metrics"))
            if found:
                return found
        hint = _PIN if ping.status == 204 else f"is `url` the address of InfluxDB, with the right path? Else {_PIN}"
        raise Stopped(f"{self.address}/ping answered {ping.status}: not known as InfluxDB", hint, "IFX729")

    def _verify(self) -> None:
        """Whether we may write, without a point: servers check everything else first, then find only a comment."""
        flavor = self.flavor
        if flavor.creates_on_write:
            # It would create the database for a comment, too; a ping that asked for credentials has been answered.
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

    def _probe_write(self) -> Verdict:
        answer = self._http().exchange("POST", self._target, self._plain_headers, _PROBE)
        return self._classified(answer) if isinstance(answer, Answer) else answer

    def _write(self, lines: Sequence[str], ticket: Ticket) -> Verdict:
        try:
            body = "\n".join(lines).encode()
        except UnicodeEncodeError:
            return _not_encodable(lines)
        headers = self._plain_headers
        if self._settings.gzip == "on" or (self._settings.gzip == "auto" and len(body) >= _GZIP_FROM_BYTES):
            body, headers = compress(body), self._headers
        if ticket.is_cut:
            return Unavailable("the write waited too long for its turn")
        answer = self._http().exchange("POST", self._target, headers, body, ticket=ticket)
        verdict = self._classified(answer, lines) if isinstance(answer, Answer) else answer
        return self._clean(verdict)

    def _clean(self, verdict: Verdict) -> Verdict:
        """The verdict with its texts scrubbed: a server may repeat what it was sent."""
        scrub = self._scrub
        match verdict:
            case Accepted():
                return verdict
            case Refused(refusals=refusals):
                return replace(
                    verdict, refusals=tuple(replace(refusal, reason=scrub(refusal.reason)) for refusal in refusals)
                )
            case Impossible(hint=hint):
                return replace(verdict, reason=scrub(verdict.reason), hint=scrub(hint) if hint else None)
            case RefusedSome() | TooLarge() | Unavailable():
                return replace(verdict, reason=scrub(verdict.reason))

    def _check(self) -> admin.CheckReport:
        findings: list[admin.Finding] = []
        try:
            self._detect()
        except (NotConnected, Stopped) as error:
            findings.append(admin.failed("server", error))
            return admin.CheckReport(str(self.address), None, None, tuple(findings))
        known = self.detected
        product = f"{known.product} {known.version}".strip() if known else self.flavor.product
        findings.append(admin.Finding("server", True, f"{product}, spoken to as {self.flavor.name}"))
        findings += admin.look(self.flavor, self._settings, self._ask, self._probe_write)
        cleaned = tuple(finding.scrubbed(self._scrub) for finding in findings)
        return admin.CheckReport(str(self.address), self.flavor.name, product, cleaned)


def compress(body: bytes) -> bytes:
    """`body` as gzip: by isal, three times as fast, where it is installed."""
    return _compress(body, 1, 31)


def _compressor() -> Callable[[bytes, int, int], bytes]:
    try:
        from isal import isal_zlib
    except ImportError:
        return zlib.compress
    return isal_zlib.compress


_compress = _compressor()


def _not_encodable(lines: Sequence[str]) -> Verdict:
    refusals = []
    for index, line in enumerate(lines):
        try:
            line.encode()
        except UnicodeEncodeError as error:
            refusals.append(Refusal(index, f"not text that UTF-8 can hold: {error.reason}"))
    return Refused(tuple(refusals), rest_stored=False)


def _with_login(settings: InfluxSettings, login: Login | None) -> InfluxSettings:
    """User and password of the URL, where the settings have none of their own."""
    if login is None or settings.username is not None or settings.password is not None:
        return settings
    from iggyflux.pipeline import Secret

    return replace(settings, username=login.username, password=Secret(login.password))


def _secrets(settings: InfluxSettings, login: Login | None, address: Address) -> list[str]:
    secrets = [secret.reveal() for secret in (settings.token, settings.password) if secret]
    if settings.password:
        secrets.append(f"{settings.username or ''}:{settings.password.reveal()}")
    if login:
        secrets += [login.password, f"{login.username}:{login.password}"]
    return secrets + proxy_secrets(address)
