"""The content of a pipeline file, as frozen types.

Paths are resolved, secrets are read, durations are in seconds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from iggyflux.documents import Document
from iggyflux.errors import Location, Problem
from iggyflux.secrets import Secret

EndpointKind: TypeAlias = Literal["iggy", "log", "file", "stdin", "stdout", "influxdb"]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One end of a route: `log:DIR`, `file:PATH`, `stdin`, `stdout`, `iggy` or `influxdb`.

    `envelope` says that the lines of a file (or stdin) are messages with coordinates, not bare payloads.
    """

    kind: EndpointKind
    path: Path | None = None
    envelope: bool = False

    def __str__(self) -> str:
        return f"{self.kind}:{self.path}" if self.path else self.kind


@dataclass(frozen=True, slots=True)
class Start:
    """Where a consumer without a stored position begins; `value` is an offset, or microseconds since the epoch."""

    kind: Literal["first", "last", "offset", "timestamp"] = "first"
    value: int = 0


@dataclass(frozen=True, slots=True)
class Consumer:
    """The name under which positions are stored: a group shares partitions, a single consumer reads those it names.

    `name` None means the mapping's name, `partitions` None all partitions.  `exclusive` says that no other process is a
    member of the group, so that a run may rebuild it.
    """

    kind: Literal["group", "single"] = "group"
    name: str | None = None
    partitions: tuple[int, ...] | None = None
    exclusive: bool = False


@dataclass(frozen=True, slots=True)
class TopicAddress:
    """A topic in Iggy or in a message log, for dead letters or for the positions of readers."""

    stream: str
    topic: str


@dataclass(frozen=True, slots=True)
class Retention:
    """How long dead letters are kept, and how many bytes of them; None sets no limit."""

    keep_seconds: float | None = None
    max_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class IggySettings:
    """The `iggy` section: how to reach an Iggy server."""

    address: str = "127.0.0.1:8090"
    transport: Literal["tcp", "quic", "http", "websocket"] = "tcp"
    connection_string: Secret | None = None
    username: str | None = None
    password: Secret | None = None
    token: Secret | None = None
    tls: bool = False
    ca_file: Path | None = None
    domain: str | None = None
    client_cert: Path | None = None
    client_key: Path | None = None
    timeout_seconds: float = 10.0
    batch_size: int = 5000
    batch_bytes: int = 4_000_000
    poll_interval_seconds: float = 0.05
    create: bool = False
    allow_unencrypted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class InfluxSettings:
    """The `influxdb` section: how to reach an InfluxDB server, and how lines are sent to it."""

    url: str = "http://127.0.0.1:8086"
    flavor: Literal["auto", "v1", "v2", "v3", "victoriametrics"] = "auto"
    org: str | None = None
    bucket: str | None = None
    database: str | None = None
    retention_policy: str | None = None
    buckets: tuple[str, ...] = ()
    token: Secret | None = None
    username: str | None = None
    password: Secret | None = None
    headers: tuple[tuple[str, Secret], ...] = ()
    allow_unencrypted: bool = False
    precision: Literal["ns", "us", "ms", "s"] = "ns"
    batch_size: int = 5000
    batch_bytes: int = 5_000_000
    linger_seconds: float = 1.0
    gzip: Literal["auto", "on", "off"] = "auto"
    timeout_seconds: float = 30.0
    max_retries: int = 3
    retry_backoff_seconds: float = 1.0
    max_retry_backoff_seconds: float = 60.0
    max_in_flight: int | None = None
    on_unavailable: Literal["wait", "stop", "dead_letter"] = "wait"
    create: bool = False
    ca_file: Path | None = None
    client_cert: Path | None = None
    client_key: Path | None = None
    client_key_passphrase: Secret | None = None
    domain: str | None = None
    verify: bool = True
    accept_partial: bool = True
    no_sync: bool = False
    poll_interval_seconds: float = 5.0
    page_size: int = 5000
    backfill_rate: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistrySettings:
    """The `schema_registry` section: who is asked for the schemas of ids."""

    url: str = "http://127.0.0.1:8081"
    username: str | None = None
    password: Secret | None = None
    token: Secret | None = None
    ca_file: Path | None = None
    timeout_seconds: float = 10.0
    allow_unencrypted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TelemetrySettings:
    """The `telemetry` section: where a run answers requests for metrics and health, who may ask, and traces."""

    listen: str | None = None
    """Host and port; None if it does not listen."""
    token: Secret | None = None
    max_lag: int | None = None
    max_behind_seconds: float | None = None
    show: Literal["codes", "words", "payloads"] = "codes"
    """What is shown of the newest dead letters; more than `codes` on loopback only."""
    propagate: bool = False
    """Whether messages of readers carry their trace."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteSettings:
    """One item of `run`: a mapping between two ends.

    If `source` or `sink` is None, the mapping's kind decides: a writer goes from `iggy` to `influxdb`, a reader the
    other way.  `influxdb` is the section, with the route's own keys laid over it.  `dead_letters` None means the
    directory `dead-letters/NAME` beside the pipeline file; `retention` is that of a directory.  `tags` are
    for points that do not have them: those of the file, with the route's own laid over them, by name.
    """

    mapping: Path
    name: str | None = None
    source: Endpoint | None = None
    sink: Endpoint | None = None
    influxdb: InfluxSettings | None = None
    dead_letters: Path | TopicAddress | None = None
    retention: Retention | None = None
    consumer: Consumer = Consumer()
    start: Start = Start()
    tags: tuple[tuple[str, str], ...] = ()
    pointer: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """A pipeline file, checked, with its relative paths resolved."""

    routes: tuple[RouteSettings, ...]
    iggy: IggySettings | None = None
    influxdb: InfluxSettings | None = None
    schema_registry: RegistrySettings | None = None
    state: Path | TopicAddress = Path(".iggyflux")
    names_state: bool = False
    """Whether the file has `state`; else it is the default."""
    telemetry: TelemetrySettings = TelemetrySettings()
    shutdown_timeout_seconds: float = 30.0
    path: Path | None = None
    warnings: tuple[Problem, ...] = ()
    document: Document | None = field(default=None, compare=False, repr=False)
    mask: Callable[[Sequence[Problem]], list[Problem]] = field(default=list, compare=False, repr=False)
    """Removes secrets from problems, and from the lines that they quote."""

    @property
    def file(self) -> str:
        """The name of the file in messages."""
        return (self.document.file if self.document else None) or "PIPELINE"

    @property
    def file_name(self) -> str:
        """The name of the file without its folder; empty if the pipeline is read of stdin or made by a program."""
        return self.path.name if self.path and self.path.suffix else ""

    @property
    def folder(self) -> Path:
        """The folder in which relative paths start."""
        return self.path.parent if self.path else Path()

    def problem(self, code: str, route: RouteSettings, message: str, *, hint: str | None = None) -> Problem:
        """Return a problem of one route, at its place in the file."""
        if self.document is None:
            return Problem(code, message, Location(pointer=route.pointer), hint=hint)
        return self._masked(self.document.problem(code, route.pointer, message, hint=hint))

    def setting_problem(self, route: RouteSettings, section: str, found: Problem) -> Problem:
        """Return a problem of a section, at its place in the file.

        `found` is the problem as a transport reports it; its pointer names the key.
        """
        sections = (f"{route.pointer}/{section}", f"/{section}")
        places = [place + found.location.pointer for place in sections] + list(sections)
        pointer = next((each for each in places if self.document and self.document.node(each)), route.pointer)
        if self.document is None:
            return dataclasses.replace(found, location=Location(pointer=pointer))
        return self._masked(self.document.problem(found.code, pointer, found.message, key=True, hint=found.hint))

    def _masked(self, problem: Problem) -> Problem:
        return next(iter(self.mask([problem])), dataclasses.replace(problem, source=None))
