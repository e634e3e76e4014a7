"""The products that the contract applies to: where each is found, and what it does not support.

A server is one that an address names, a local process on loopback, or a container.  A missing one is reported with its
reason at the end of the run.  `LACKS` is the one table of what a product does not support: no test there asks for it.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit, urlunsplit

from iggy_server import free_ports

from iggyflux.pipeline import InfluxSettings, Secret
from iggyflux.sim import SimServer
from tests.servers import image
from tests.servers.http import ask, influxql

USER, PASSWORD, TOKEN = "writer", "s3cret-Pass", "s3cret-t0ken"
_START_SECONDS = 60
_NOTHING: frozenset[str] = frozenset()

# unsigned: 64 bit integers without a sign.  words: strings.  types: all that are not floats (words are 0 then).
# nanoseconds: finer than milliseconds.  merge: written twice is there once.  refuses: names the lines it rejects.
# database: a missing one is rejected.  create: one can be made.  retention: what is too old is rejected.
# auth: credentials are checked.  queries: rows can be queried.  several types: a field has one in each shard, and a
# tag may have the name of a field.  windows: InfluxQL and Flux aggregate by time.  statements: a user's own SQL.
LACKS: Mapping[str, frozenset[str]] = {
    "simulator 1": frozenset({"unsigned", "windows"}),
    "simulator 2": frozenset({"windows"}),
    "simulator 3": frozenset({"database", "create", "retention", "several types", "windows"})
    | (_NOTHING if importlib.util.find_spec("datafusion") else {"statements"}),
    "influxd": frozenset({"unsigned"}),
    "influxd image": frozenset({"unsigned"}),
    "VictoriaMetrics": frozenset(
        {"unsigned", "words", "types", "nanoseconds", "merge", "refuses", "database", "create", "retention", "auth"}
        | {"queries", "several types", "windows"}
    ),
    "InfluxDB 1": frozenset({"unsigned"}),
    "InfluxDB 2": _NOTHING,
    "InfluxDB 3": frozenset({"database", "create", "retention", "several types"}),
}
PRODUCTS = tuple(LACKS)


class NotThere(Exception):
    """Why a product is not available on this machine."""


@dataclass
class Server:
    """A running server: `given` are the settings that reach it, `wrong` those that it must reject."""

    name: str
    flavor: str
    url: str
    given: Mapping[str, Any]
    wrong: Mapping[str, Any] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    """What a request without iggyflux needs."""
    used_days: set[int] = field(default_factory=set)
    """The days since 1970 for which the database has a point of the tests."""

    @property
    def lacks(self) -> frozenset[str]:
        return LACKS[self.name]

    @property
    def dialect(self) -> str:
        return "v3" if self.flavor == "victoriametrics" else self.flavor

    @property
    def database(self) -> str:
        return str(self.given.get("bucket") or self.given.get("database") or "")

    def settings(self, **more: Any) -> InfluxSettings:
        """How to write to it."""
        return InfluxSettings(**{"url": self.url, "timeout_seconds": 60.0, "max_in_flight": 4, **self.given, **more})

    def make_database(self, name: str, retention_seconds: int) -> None:
        """Make a database or bucket that keeps points only for so long."""
        if self.flavor == "v1":
            statement = f'CREATE DATABASE "{name}"'
            influxql(self, statement + (f" WITH DURATION {retention_seconds}s" if retention_seconds else ""))
            return
        found = ask(self, "GET", "/api/v2/orgs?" + urlencode({"org": self.given["org"]})).tree
        rules = [{"type": "expire", "everySeconds": retention_seconds}] if retention_seconds else []
        bucket = {"orgID": found["orgs"][0]["id"], "name": name, "retentionRules": rules}
        made = ask(self, "POST", "/api/v2/buckets", bucket)
        assert made.status == 201, made

    def drop_database(self, name: str) -> None:
        """Drop it, if it exists."""
        if self.flavor == "v1":
            influxql(self, f'DROP DATABASE "{name}"')
            return
        found = ask(self, "GET", "/api/v2/buckets?" + urlencode({"name": name})).tree
        for bucket in found.get("buckets") or []:
            ask(self, "DELETE", f"/api/v2/buckets/{bucket['id']}")


# --- how each is found ---


def find(name: str, folder: Path, until: ExitStack) -> Server:
    """Return the server of a product; `until` ends it.  Raise `NotThere`."""
    return _FINDERS[name](name, folder, until)


def _simulator(name: str, _folder: Path, until: ExitStack) -> Server:
    dialect = int(name[-1])
    token = f"{USER}:{PASSWORD}" if dialect == 1 else TOKEN
    server = until.enter_context(SimServer(dialect, database="plant", token=token))
    found = {1: _one, 2: _two, 3: _three}[dialect](name, server.url, "plant")
    if dialect == 3:  # the first write makes its database
        request = urllib.request.Request(f"{server.url}/api/v3/write_lp?db=plant", b"first x=1 1", dict(found.headers))
        urllib.request.urlopen(request, timeout=10).close()
    return found


def _one(name: str, url: str, database: str, user: str | None = USER, password: str | None = PASSWORD) -> Server:
    given: dict[str, Any] = {"database": database}
    if user is None:
        return Server(name, "v1", url, given)
    given |= {"username": user, "password": Secret(password or "")}
    query = {"X-Query": urlencode({"u": user, "p": password or ""})}
    return Server(name, "v1", url, given, {**given, "password": Secret("wrong")}, query)


def _two(name: str, url: str, bucket: str, org: str = "org", token: str = TOKEN) -> Server:
    given = {"org": org, "bucket": bucket, "token": Secret(token)}
    wrong = {**given, "token": Secret("wrong")}
    return Server(name, "v2", url, given, wrong, {"Authorization": f"Token {token}"})


def _three(name: str, url: str, database: str, token: str = TOKEN) -> Server:
    given: dict[str, Any] = {"database": database}
    if not token:
        return Server(name, "v3", url, given)
    given["token"] = Secret(token)
    wrong = {**given, "token": Secret("wrong")}
    return Server(name, "v3", url, given, wrong, {"Authorization": f"Bearer {token}"})


def _influxd(name: str, folder: Path, until: ExitStack) -> Server:
    binary = _influxd_1()
    port, rpc = free_ports(2)
    paths = {key: str(folder / key.lower()) for key in ("META_DIR", "DATA_DIR", "DATA_WAL_DIR")}
    given = {"BIND_ADDRESS": f"127.0.0.1:{rpc}", "HTTP_BIND_ADDRESS": f"127.0.0.1:{port}", **paths, **INFLUXD}
    environment = {f"INFLUXDB_{key}": value for key, value in given.items()}
    command = [binary, "run", "-config", os.devnull]
    return _first_user(name, _process(command, environment, port, folder, until))


INFLUXD = {"REPORTING_DISABLED": "true", "HTTP_AUTH_ENABLED": "true", "HTTP_LOG_ENABLED": "false"}


@cache
def _influxd_1() -> str:
    binary = shutil.which("influxd")
    if binary is None:
        raise NotThere("no influxd on PATH (package influxdb)")
    version = subprocess.run([binary, "version"], capture_output=True, text=True, check=False).stdout.strip()
    if "v1." not in version:
        raise NotThere(f"influxd on PATH is no 1.x: {version}")
    return binary


def _influxd_image(name: str, _folder: Path, until: ExitStack) -> Server:
    binary = _influxd_1()
    try:
        tag = image.build(Path(binary))
        url = image.run(tag, 8086, {f"INFLUXDB_{key}": value for key, value in INFLUXD.items()}, until)
    except image.NoEngine as error:
        raise NotThere(f"{error}: it runs as a process only") from error
    return _first_user(name, _answering(url))


def _first_user(name: str, url: str) -> Server:
    """Start a fresh 1.x that requires credentials: the first user is made without any."""
    server = _one(name, url, "plant")
    unprotected = Server(name, "v1", url, {})
    influxql(unprotected, f"CREATE USER {USER} WITH PASSWORD '{PASSWORD}' WITH ALL PRIVILEGES")
    server.make_database("plant", 0)
    return server


def _victoria(name: str, folder: Path, until: ExitStack) -> Server:
    binary = shutil.which("victoria-metrics")
    if binary is None:
        raise NotThere("no victoria-metrics on PATH (package victoria-metrics)")
    (port,) = free_ports(1)
    flags = [f"-storageDataPath={folder / 'data'}", f"-httpListenAddr=127.0.0.1:{port}", "-retentionPeriod=100y"]
    return Server(name, "victoriametrics", _process([binary, *flags], {}, port, folder, until), {})


def _named_1(name: str, _folder: Path, until: ExitStack) -> Server:
    if address := os.environ.get("IGGYFLUX_TEST_INFLUXDB1"):
        parts = urlsplit(address)
        url = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
        server = _one(name, url, f"iggyflux_test_{time.time_ns()}", parts.username, parts.password)
        until.callback(server.drop_database, server.database)
        server.make_database(server.database, 0)
        return server
    url = _pulled(
        "influxdb:1.8", "IGGYFLUX_TEST_INFLUXDB1=URL", {f"INFLUXDB_{k}": v for k, v in INFLUXD.items()}, until
    )
    return _first_user(name, url)


def _named_2(name: str, _folder: Path, until: ExitStack) -> Server:
    if given := os.environ.get("IGGYFLUX_TEST_INFLUXDB2"):
        url, org, bucket, token = given.split(",")
        return _two(name, url, bucket, org, token)
    setup = {"MODE": "setup", "USERNAME": USER, "PASSWORD": PASSWORD, "ORG": "org", "BUCKET": "plant"}
    variables = {f"DOCKER_INFLUXDB_INIT_{key}": value for key, value in {**setup, "ADMIN_TOKEN": TOKEN}.items()}
    server = _two(
        name, _pulled("influxdb:2.7", "IGGYFLUX_TEST_INFLUXDB2=URL,ORG,BUCKET,TOKEN", variables, until), "plant"
    )
    _until_true(lambda: ask(server, "GET", "/api/v2/buckets?name=plant").status == 200)
    return server


def _named_3(name: str, _folder: Path, until: ExitStack) -> Server:
    if given := os.environ.get("IGGYFLUX_TEST_INFLUXDB3"):
        url, database, token = given.split(",")
        return _three(name, url, database, token)
    command = "influxdb3 serve --node-id test --object-store memory"
    variable = "IGGYFLUX_TEST_INFLUXDB3=URL,DB,TOKEN"
    url = _pulled("influxdb:3-core", variable, {}, until, port=8181, command=command)
    made = ask(Server(name, "v3", url, {}), "POST", "/api/v3/configure/token/admin")
    return _three(name, url, "plant", made.tree["token"])


def _pulled(tag: str, variable: str, environment: Mapping[str, str], until: ExitStack, **more: Any) -> str:
    try:
        return _answering(image.run(tag, more.pop("port", 8086), environment, until, more.pop("command", None)))
    except image.NoEngine as error:
        raise NotThere(f"{variable} is not set, and {tag} cannot be run: {error}") from error


_FINDERS: Mapping[str, Callable[[str, Path, ExitStack], Server]] = {
    "simulator 1": _simulator,
    "simulator 2": _simulator,
    "simulator 3": _simulator,
    "influxd": _influxd,
    "influxd image": _influxd_image,
    "VictoriaMetrics": _victoria,
    "InfluxDB 1": _named_1,
    "InfluxDB 2": _named_2,
    "InfluxDB 3": _named_3,
}


# --- processes ---


def _process(command: list[str], environment: Mapping[str, str], port: int, folder: Path, until: ExitStack) -> str:
    """Start a local server; return its URL once it answers."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("INFLUX")}
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env={**inherited, **environment}, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )

    def end() -> None:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(20)

    until.callback(end)
    return _answering(f"http://127.0.0.1:{port}", lambda: process.poll() is None, log)


def _answering(url: str, is_alive: Callable[[], bool] = lambda: True, log: Path | None = None) -> str:
    def answers() -> bool:
        assert is_alive(), log.read_text()[-2000:] if log else url
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"{url}/ping", timeout=2):
                return True
        except urllib.error.HTTPError as error:
            with error:
                return True
        except OSError:
            return False

    _until_true(answers)
    return url


def _until_true(ask: Callable[[], bool]) -> None:
    until = time.monotonic() + _START_SECONDS
    while not ask():
        assert time.monotonic() < until, "the server did not come up in time"
        time.sleep(0.05)
