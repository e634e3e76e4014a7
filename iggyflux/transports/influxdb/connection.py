"""What every exchange with an InfluxDB needs: the address, the credentials, the kind of server, and threads.

A connection sends a request and describes why there was no response.  Its subclasses decide what is written or asked,
and what a response to that means.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from typing import TypeVar

from iggyflux import __version__
from iggyflux.delivery.answers import PASSING, Answer, classify
from iggyflux.delivery.verdicts import Impossible, Unavailable, Verdict
from iggyflux.errors import Location, NotConnected, PipelineError, Problem, Stopped
from iggyflux.pipeline import InfluxSettings
from iggyflux.secrets import Scrubber, Secret
from iggyflux.transports.certificates import CertificateFault, Tls
from iggyflux.transports.influxdb.flavors import (
    FLAVORS,
    Detected,
    Flavor,
    UnsupportedSetting,
    detect,
    detect_by_health,
    detect_by_metrics,
    misfits,
)
from iggyflux.transports.influxdb.http import STALE_SECONDS, HttpClient, Ticket
from iggyflux.transports.proxies import proxy_secrets
from iggyflux.transports.urls import Address, AddressError, Login, parse_address

T = TypeVar("T")

_PIN = "set `flavor` to v1, v2, v3 or victoriametrics"


def settings_problems(settings: InfluxSettings) -> list[Problem]:
    """Return the problems of `settings` that need no server to be found."""
    problems = [_problem(misfit) for misfit in misfits(settings)]
    try:
        parse_address(settings.url)
    except AddressError as error:
        hint = "for example `url: http://127.0.0.1:8086`"
        problems.append(Problem("IFX732", str(error), Location(pointer="/url"), hint=hint))
    return problems


def certificate_problems(settings: InfluxSettings) -> list[Problem]:
    """Return the problem of the files of TLS; they can be specific to this machine."""
    return _tls(settings).problems() if settings.url.startswith("https:") else []


def _tls(settings: InfluxSettings) -> Tls:
    return Tls(
        settings.ca_file,
        settings.client_cert,
        settings.client_key,
        settings.client_key_passphrase,
        settings.verify,
        settings.domain,
    )


def _problem(misfit: UnsupportedSetting) -> Problem:
    return Problem("IFX728", f"`{misfit.key}`: {misfit.why}", Location(pointer=f"/{misfit.key}"), hint=misfit.hint)


class InfluxConnection:
    """One server.  `flavor` and `detected` are known after it was asked."""

    def __init__(
        self, settings: InfluxSettings, *, now: Callable[[], float] = time.time, stale_seconds: float = STALE_SECONDS
    ) -> None:
        """Open nothing.  Raise `PipelineError` if the settings cannot be used."""
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
        """What the server is, after it was asked."""
        self.ping: Answer | None = None
        """The server's response to `GET /ping`."""
        self._client: HttpClient | None = None
        self._threads: ThreadPoolExecutor | None = None
        self._ready = False

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.address}, {self._flavor.name if self._flavor else 'auto'})"

    @property
    def server(self) -> str:
        """The address of the server, without credentials."""
        return str(self.address)

    @property
    def flavor(self) -> Flavor:
        """The flavor of the server.  Raise `RuntimeError` before it is known."""
        if self._flavor is None:
            raise RuntimeError("the flavor is unknown before the connection")
        return self._flavor

    async def close(self) -> None:
        """Release everything, idempotent; exchanges in progress end at their deadlines."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
        if self._client is not None:
            self._client.close()
        self._threads = self._client = None
        self._ready = False

    # --- in threads ---

    def _threads_wanted(self) -> int:
        """Return how many exchanges may run at once."""
        return 2

    async def _run(self, work: Callable[[], T]) -> T:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self._threads_wanted(), thread_name_prefix="iggyflux-influxdb")
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def _http(self) -> HttpClient:
        if self._client is None:
            settings = self._settings
            try:
                self._client = HttpClient(
                    self.address,
                    tls=_tls(settings),
                    timeout_seconds=settings.timeout_seconds,
                    scrub=self._scrub,
                    connections=self._threads_wanted(),
                    stale_seconds=self._stale_seconds,
                )
            except AddressError as error:
                raise Stopped(self._scrub(str(error)), "an http:// address, with user and password", "IFX726") from None
            except CertificateFault as fault:
                raise Stopped(self._scrub(str(fault)), fault.hint, "IFX733") from None
        return self._client

    def _ask(self, method: str, target: str, body: bytes | None = None, **headers: str) -> Answer:
        """Return the response to one small request.

        Raise `NotConnected` or `Stopped` if there is none, or if it only says that the server has no time now.
        """
        return self._ask_within(None, method, target, body, headers)

    def _ask_within(
        self, ticket: Ticket | None, method: str, target: str, body: bytes | None, headers: Mapping[str, str]
    ) -> Answer:
        answer = self._http().exchange(method, target, self._given(headers), body, ticket=ticket)
        if not isinstance(answer, Answer):
            raise self._as_error(answer)
        if answer.status in PASSING:
            raise self._as_error(self._classified(answer))
        return self._cleaned(answer)

    def _given(self, headers: Mapping[str, str]) -> dict[str, str]:
        """Return `headers` with the credentials, the user agent and the configured headers."""
        given = {"user-agent": f"iggyflux/{__version__}", **headers}
        authorization = self._authorization()
        if authorization:
            given["authorization"] = authorization
        return {**given, **{name: value.reveal() for name, value in self._settings.headers}}

    def _cleaned(self, answer: Answer) -> Answer:
        """Return a response without secrets; it is never compared with what was sent, so all of it can be scrubbed."""
        headers = {key: self._scrub(value) for key, value in answer.headers.items()}
        return replace(answer, headers=headers, body=self._scrub(answer.body.decode("utf-8", "replace")).encode())

    def _authorization(self) -> str | None:
        # 3.x requires it even on /ping; the right scheme is not known yet, and every 3.x accepts Bearer.
        return (self._flavor or FLAVORS["v3"]).authorize(self._settings)

    def _as_error(self, verdict: Verdict) -> NotConnected | Stopped:
        if isinstance(verdict, Impossible):
            hint = self._scrub(verdict.hint) if verdict.hint else None
            return Stopped(self._scrub(verdict.reason), hint, verdict.code)
        seconds = verdict.retry_after_seconds if isinstance(verdict, Unavailable) else None
        reason = self._scrub(getattr(verdict, "reason", "not available"))
        return NotConnected(reason, retry_after_seconds=seconds)

    def _find_alive(self) -> None:
        """Raise `NotConnected` unless a server answers."""
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
        if isinstance(verdict, Impossible) and verdict.code == "IFX727":
            raise self._as_error(verdict)
        self.ping = ping
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
                    f"{self.address} is {product}, which does not support `{wrong[0].key}`: {wrong[0].why}",
                    wrong[0].hint,
                    "IFX728",
                )
        elif self.detected and self.detected.flavor == "v2" and self._flavor.name == "v3":
            # 2.x answers 200 with its user interface on the write path of 3.x, and stores nothing.
            raise Stopped(f"{self.address} is InfluxDB 2.x", "set `flavor: v2`, or remove it", "IFX729")

    def _detect_otherwise(self, ping: Answer) -> Detected:
        if ping.status == 204:
            found = detect_by_health(self._ask("GET", "/health")) or detect_by_metrics(self._ask("GET", "/metrics"))
            if found:
                return found
        hint = _PIN if ping.status == 204 else f"check that `url` is the address of InfluxDB, with its path; or {_PIN}"
        answered = f"{self.address}/ping answered {ping.status}{ping.through}"
        raise Stopped(f"{answered}, which does not identify an InfluxDB", hint, "IFX729")


def _with_login(settings: InfluxSettings, login: Login | None) -> InfluxSettings:
    """Return `settings` with user and password of the URL, unless they have their own."""
    if login is None or settings.username is not None or settings.password is not None:
        return settings
    return replace(settings, username=login.username, password=Secret(login.password))


def _secrets(settings: InfluxSettings, login: Login | None, address: Address) -> list[str]:
    given = (settings.token, settings.password, settings.client_key_passphrase)
    secrets = [secret.reveal() for secret in given if secret]
    for _, value in settings.headers:
        secrets += _header_secrets(value.reveal())
    if settings.password:
        secrets.append(f"{settings.username or ''}:{settings.password.reveal()}")
    if login:
        secrets += [login.password, f"{login.username}:{login.password}"]
    return secrets + proxy_secrets(address)


def _header_secrets(value: str) -> Iterator[str]:
    """Yield a value of a header, and the parts that a server may repeat alone."""
    yield value
    scheme, _, rest = value.partition(" ")
    if rest:
        yield rest.strip()
    if scheme.lower() == "basic":
        with suppress(ValueError):  # it is not what it should be
            decoded = base64.b64decode(rest, validate=True).decode()
            yield from (decoded, decoded.partition(":")[2])
