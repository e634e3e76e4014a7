"""The names, the paths and the limits of each flavor of InfluxDB: one table.  Pure: no socket, no clock.

A flavor is a path, an authorization, the spelling of precisions and a dialect of line protocol.  Nothing else in the
package distinguishes servers.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any
from urllib.parse import urlencode

from iggyflux.delivery.answers import Answer
from iggyflux.delivery.pace import Bounds
from iggyflux.errors import counted
from iggyflux.lineprotocol import Dialect
from iggyflux.pipeline import InfluxSettings


@dataclass(frozen=True, slots=True)
class Flavor:
    """`precisions` maps our names to those of the write path; `in_flight` bounds writes in flight.

    `query` returns the parameters of a write without the precision; `authorize` the value of `Authorization`, or None.
    `misfits` returns the settings that this flavor does not support.
    """

    name: str
    product: str
    dialect: Dialect
    route: str
    precisions: Mapping[str, str]
    in_flight: Bounds
    query: Callable[[InfluxSettings], list[tuple[str, str]]]
    authorize: Callable[[InfluxSettings], str | None]
    misfits: Callable[[InfluxSettings], list[UnsupportedSetting]]
    database_word: str
    creates_on_write: bool = False

    def write_target(self, settings: InfluxSettings) -> str:
        """Return path and query of a write; the precision is always given."""
        precision = ("precision", self.precisions[settings.precision])
        return f"{self.route}?{urlencode([*self.query(settings), precision])}"


@dataclass(frozen=True, slots=True)
class UnsupportedSetting:
    """A setting that a flavor does not support."""

    key: str
    why: str
    hint: str


# 1.6 reads every unknown word, `us` too, as nanoseconds, and answers 204.
_PRECISIONS_1 = MappingProxyType({"ns": "n", "us": "u", "ms": "ms", "s": "s"})
_PRECISIONS_2 = MappingProxyType({"ns": "ns", "us": "us", "ms": "ms", "s": "s"})
# The short words exist since 3.6 only; without a precision 3.x guesses by the size of the number.
_PRECISIONS_3 = MappingProxyType({"ns": "nanosecond", "us": "microsecond", "ms": "millisecond", "s": "second"})


def database_of(settings: InfluxSettings) -> str:
    """Return the database, by either of its names; a bucket `db/rp` is the 1.x spelling of both."""
    return settings.database or (settings.bucket or "").partition("/")[0]


def retention_policy_of(settings: InfluxSettings) -> str:
    """Return the retention policy of 1.x; empty for the database's default."""
    return settings.retention_policy or (settings.bucket or "").partition("/")[2]


def bucket_of(settings: InfluxSettings) -> str:
    """Return the bucket, by either of its names."""
    return settings.bucket or settings.database or ""


def _query_1(settings: InfluxSettings) -> list[tuple[str, str]]:
    policy = retention_policy_of(settings)
    return [("db", database_of(settings)), *([("rp", policy)] if policy else [])]


def _query_2(settings: InfluxSettings) -> list[tuple[str, str]]:
    return [*([("org", settings.org)] if settings.org else []), ("bucket", bucket_of(settings))]


def _query_3(settings: InfluxSettings) -> list[tuple[str, str]]:
    return [
        ("db", database_of(settings)),
        ("accept_partial", "true" if settings.accept_partial else "false"),
        *([("no_sync", "true")] if settings.no_sync else []),
    ]


def _query_metrics(settings: InfluxSettings) -> list[tuple[str, str]]:
    database = database_of(settings)
    return [("db", database)] if database else []


def _basic(settings: InfluxSettings) -> str | None:
    if settings.username is None and settings.password is None:
        return None
    password = settings.password.reveal() if settings.password else ""
    return "Basic " + base64.b64encode(f"{settings.username or ''}:{password}".encode()).decode()


def _token(scheme: str) -> Callable[[InfluxSettings], str | None]:
    def authorize(settings: InfluxSettings) -> str | None:
        return f"{scheme} {settings.token.reveal()}" if settings.token else _basic(settings)

    return authorize


def _no_version_3(settings: InfluxSettings, name: str) -> list[UnsupportedSetting]:
    found = []
    if settings.no_sync:
        found.append(UnsupportedSetting("no_sync", f"{name} does not support it", "remove `no_sync`"))
    if not settings.accept_partial:
        found.append(UnsupportedSetting("accept_partial", f"{name} does not support it", "remove `accept_partial`"))
    return found


def _misfits_1(settings: InfluxSettings) -> list[UnsupportedSetting]:
    found = _no_version_3(settings, "1.x")
    if not database_of(settings):
        found.append(UnsupportedSetting("database", "1.x writes to a database", "add `database: NAME`"))
    if settings.org:
        found.append(UnsupportedSetting("org", "1.x has no organizations", "remove `org`, or set `flavor: v2`"))
    return found


def _misfits_2(settings: InfluxSettings) -> list[UnsupportedSetting]:
    found = _no_version_3(settings, "2.x")
    if not bucket_of(settings):
        found.append(UnsupportedSetting("bucket", "2.x writes to a bucket", "add `bucket: NAME`"))
    if settings.retention_policy:
        found.append(
            UnsupportedSetting(
                "retention_policy", "in 2.x the retention belongs to the bucket", "remove it, and name the bucket"
            )
        )
    if not settings.token and (settings.username or settings.password):
        hint = "add `token`; or, for a user of the 1.x API, set `flavor: v1` and `database`, without `org`"
        found.append(UnsupportedSetting("username", "2.x requires a token for writes", hint))
    return found


# As 3.6 checks it, except the length; one slash may separate the retention policy of 1.x.
_NAME_3 = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*(/[A-Za-z0-9_-]+)?")


def _misfits_3(settings: InfluxSettings) -> list[UnsupportedSetting]:
    found = []
    if not database_of(settings):
        found.append(UnsupportedSetting("database", "3.x writes to a database", "add `database: NAME`"))
    elif not _NAME_3.fullmatch(database_of(settings)):
        key = "database" if settings.database else "bucket"
        hint = "ASCII letters, digits, `_` and `-`, a letter or digit first"
        found.append(UnsupportedSetting(key, f"{database_of(settings)!r} is not a valid database name in 3.x", hint))
    if retention_policy_of(settings):
        found.append(
            UnsupportedSetting("retention_policy", "3.x has no retention policies", "remove it, and name the database")
        )
    if not settings.token and (settings.username or settings.password):
        found.append(UnsupportedSetting("username", "3.x requires a token for writes", "add `token`"))
    return found


def _misfits_metrics(settings: InfluxSettings) -> list[UnsupportedSetting]:
    found = _no_version_3(settings, "VictoriaMetrics")
    if retention_policy_of(settings):
        found.append(UnsupportedSetting("retention_policy", "VictoriaMetrics has one retention for all", "remove it"))
    if settings.create:
        found.append(UnsupportedSetting("create", "VictoriaMetrics has no databases to create", "remove `create`"))
    return found


# Measured with requests of 5,000 lines.  3.x answers at its next flush of the log, once a second: 1 in flight is 6k
# lines a second, 8 are 40k, 16 are 78k, 32 are 155k, 64 are 200k.  1.6 and 2.9 gain half from 1 to 4, and nothing or
# less from 8 on.
_FEW = Bounds(first=2, least=1, most=8)
_MANY = Bounds(first=32, least=2, most=64)
FLAVORS: Mapping[str, Flavor] = MappingProxyType(
    {
        flavor.name: flavor
        for flavor in (
            Flavor(
                "v1",
                "InfluxDB 1.x",
                Dialect.V1,
                "/write",
                _PRECISIONS_1,
                _FEW,
                _query_1,
                _token("Bearer"),
                _misfits_1,
                "database",
            ),
            Flavor(
                "v2",
                "InfluxDB 2.x",
                Dialect.V2,
                "/api/v2/write",
                _PRECISIONS_2,
                _FEW,
                _query_2,
                _token("Token"),
                _misfits_2,
                "bucket",
            ),
            Flavor(
                "v3",
                "InfluxDB 3.x",
                Dialect.V3,
                "/api/v3/write_lp",
                _PRECISIONS_3,
                _MANY,
                _query_3,
                _token("Bearer"),
                _misfits_3,
                "database",
                creates_on_write=True,
            ),
            Flavor(
                "victoriametrics",
                "VictoriaMetrics",
                Dialect.V3,  # it reads two backslashes as one
                "/write",
                _PRECISIONS_2,  # it does not know `n`, and guesses the unit then
                _FEW,
                _query_metrics,
                _token("Bearer"),
                _misfits_metrics,
                "database",
                creates_on_write=True,
            ),
        )
    }
)


def misfits(settings: InfluxSettings) -> list[UnsupportedSetting]:
    """Return the settings that are not supported, as far as this is known without a server."""
    found = []
    token = settings.token.reveal() if settings.token else ""
    if wrong := re.search(r"[^\x21-\x7e]", token):
        kind = {" ": "a space", "\n": "a line break", "\r": "a line break"}.get(wrong[0], f"U+{ord(wrong[0]):04X}")
        what = f"the token contains {kind}, after {counted(wrong.start(), 'character')}"
        found.append(UnsupportedSetting("token", what, "check what the variable or file of the token holds"))
    if settings.client_key and not settings.client_cert:
        found.append(UnsupportedSetting("client_key", "a key needs its certificate", "add `client_cert`"))
    if settings.database and settings.bucket and settings.database != settings.bucket:
        found.append(
            UnsupportedSetting("bucket", "`bucket` and `database` name different places", "remove one of them")
        )
    flavor = FLAVORS.get(settings.flavor)
    return found + (flavor.misfits(settings) if flavor else [])


# --- detection ---


@dataclass(frozen=True, slots=True)
class Detected:
    """What a server is: `version` may be empty."""

    flavor: str
    product: str
    version: str


def detect(ping: Answer) -> Detected | None:
    """Return what answered `GET /ping`, or None if the response does not show it."""
    version = ping.headers.get("x-influxdb-version", "").strip().removeprefix("v")
    build = ping.headers.get("x-influxdb-build", "").strip()
    said = _tree(ping).get("version")
    if ping.status == 200 and isinstance(said, str):
        version = said.strip().removeprefix("v")
    if ping.status not in (200, 204):
        return None
    if "cluster-uuid" in ping.headers or build in ("Core", "Enterprise"):
        return Detected("v3", f"InfluxDB 3 {build}".strip(), version)
    if build.startswith("cloud"):
        return Detected("v2", "InfluxDB Cloud", version)
    flavor = _BY_MAJOR.get(version.partition(".")[0])
    return Detected(flavor, f"InfluxDB {build}".strip(), version) if flavor else None


_BY_MAJOR = {"1": "v1", "2": "v2", "3": "v3"}


def detect_by_health(health: Answer) -> Detected | None:
    """Return what answered `GET /health`, for a server whose ping does not show it: early 2.x."""
    tree = _tree(health)
    if health.status == 200 and tree.get("name") == "influxdb":
        version = str(tree.get("version") or "").removeprefix("v")
        return Detected(_BY_MAJOR.get(version.partition(".")[0], "v2"), "InfluxDB", version)
    return None


def detect_by_metrics(metrics: Answer) -> Detected | None:
    """Return what answered `GET /metrics`: VictoriaMetrics names itself there."""
    if metrics.status != 200:
        return None
    sample = re.search(rb"\bvm_app_version\{[^{}]*+\}", metrics.body)
    labels = dict(re.findall(rb'\b(\w+)="([^"]*)"', sample[0])) if sample else {}
    if b"version" not in labels:
        return None
    version = labels.get(b"short_version") or labels[b"version"]
    return Detected("victoriametrics", "VictoriaMetrics", version.decode("utf-8", "replace"))


def _tree(answer: Answer) -> dict[str, Any]:
    if not answer.body.lstrip().startswith(b"{"):
        return {}
    try:
        tree = json.loads(answer.body)
    except (ValueError, RecursionError):
        return {}
    return tree if isinstance(tree, dict) else {}
