"""A real InfluxDB 1.6 is killed and loses the end of its log: an audit names what it lost, and sends it again."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import urllib.parse
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from iggy_server import free_ports
from required_servers import not_found
from shell import iggyflux

from iggyflux.records import Message
from iggyflux.transports.local.log import Log
from tests.servers.http import ask
from tests.servers.products import Server, _answering

MAPPING = """\
iggyflux: 1
kind: writer
name: swell
from: {stream: coast, topic: buoys}
points:
  measurement: {const: swell}
  tags: {buoy: b}
  fields: {height: h, waves: {expr: w, type: integer}, sea: {expr: s, type: string}, rough: {expr: r, type: boolean}}
  timestamp: {expr: t, format: unix_s}
"""
PIPELINE = """\
iggyflux: 1
from: log:data
to: influxdb
influxdb: {{url: '{url}', flavor: v1, database: coast, create: true, batch_size: 20, max_in_flight: 1}}
state: kept
run:
  - mapping: swell.yaml
"""


class Influxd:
    """A server that can be killed, and started again with its files."""

    def __init__(self, binary: str, folder: Path) -> None:
        self._command = [binary, "run", "-config", os.devnull]
        self.folder = folder
        port, rpc = free_ports(2)
        self.url = f"http://127.0.0.1:{port}"
        places = {f"INFLUXDB_{key}": str(folder / key.lower()) for key in ("META_DIR", "DATA_DIR", "DATA_WAL_DIR")}
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("INFLUX")}
        self._environment = {
            **inherited,
            **places,
            "INFLUXDB_BIND_ADDRESS": f"127.0.0.1:{rpc}",
            "INFLUXDB_HTTP_BIND_ADDRESS": f"127.0.0.1:{port}",
            "INFLUXDB_REPORTING_DISABLED": "true",
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        log = self.folder / "server.log"
        with log.open("ab") as output:
            process = self._process = subprocess.Popen(
                self._command, env=self._environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        _answering(self.url, lambda: process.poll() is None, log)

    def kill(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(20)

    def stored(self) -> set[int]:
        """Return the numbers of the points that the server has."""
        query = urllib.parse.urlencode({"db": "coast", "q": "SELECT waves FROM swell"})
        (found,) = ask(Server("influxd", "v1", self.url, {}), "GET", f"/query?{query}").tree["results"]
        return {row[1] for series in found.get("series", []) for row in series["values"]}


@pytest.fixture
def influxd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Influxd]:
    binary = shutil.which("influxd")
    if binary is None:
        not_found("influxd", "no influxd on PATH (package influxdb)")
    monkeypatch.chdir(tmp_path)
    with ExitStack() as until:
        server = Influxd(binary, tmp_path)
        until.callback(server.kill)
        server.start()
        yield server


def audit(*more: str) -> tuple[int, dict[str, object]]:
    outcome = iggyflux("audit", "pipeline.yaml", "--mapping", "swell", "--format", "json", "--show", "999", *more)
    return outcome.code, json.loads(outcome.out)


def test_what_a_killed_server_has_lost_is_named_and_sent_again(influxd: Influxd) -> None:
    here = influxd.folder
    (here / "swell.yaml").write_text(MAPPING)
    (here / "pipeline.yaml").write_text(PIPELINE.format(url=influxd.url))
    rows = [
        {"b": f"b{at % 3}", "h": at / 8, "w": at, "s": f'"{at}" = ü', "r": at % 2 == 0, "t": 1_700_000_000 + at}
        for at in range(300)
    ]
    with closing(Log.open(here / "data", create=True)) as log:
        log.append("coast", "buoys", [Message(json.dumps(row).encode()) for row in rows])
    outcome = iggyflux("run", "pipeline.yaml", "--until-end", "--quiet")
    assert outcome.code == 0, outcome.err
    assert influxd.stored() == set(range(300))
    code, found = audit()
    assert (code, found["findings"]) == (0, [])

    influxd.kill()
    segments = [each for each in (here / "data_wal_dir").rglob("*.wal") if each.stat().st_size]
    for each in segments:
        os.truncate(each, each.stat().st_size * 2 // 3)
    influxd.start()
    lost = set(range(300)) - influxd.stored()
    assert 20 <= len(lost) < 300

    code, found = audit()
    assert code == 1
    assert {each["offset"] for each in found["findings"]} == lost  # type: ignore[attr-defined]
    code, found = audit("--resend")
    assert (code, found["resent"]) == (0, {"sent": len(lost), "there_by_now": 0, "failed": 0})
    assert influxd.stored() == set(range(300))
    code, found = audit()
    assert (code, found["findings"]) == (0, [])
