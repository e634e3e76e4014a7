"""What Iggy's own sink for InfluxDB writes of messages, and what the imported mapping writes of them.

The messages and lines of `cases/importing-sink` are from a run of both; `--update-cases` writes them anew.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from iggy_server import IggyServer
from live_iggy import killable_server  # noqa: F401  (the fixture `server`)
from shell import process

from iggyflux.importing import convert
from iggyflux.lineprotocol import Point, Precision, parse_lines
from iggyflux.mapping import parse_mapping
from iggyflux.records import Message, OutgoingMessage, Partition
from iggyflux.sim import SimServer
from iggyflux.transports.iggy.connection import Connection, ConsumerId
from tests.iggy_connectors import connectors, missing, sink_configuration

FOLDERS = sorted((Path(__file__).parent / "cases" / "importing-sink").iterdir())
PARTITIONS = 2
WAIT_SECONDS = 60.0
by_folder = pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "messages.ndjson").read_text("utf-8").splitlines()]


def without_checksum(lines: Iterable[str], divisor: int = 1) -> list[str]:
    """The lines in order, their times cut, without the field that is not imported."""
    made = []
    for point in parse_lines("\n".join(lines)):
        fields = {key: value for key, value in point.fields.items() if key != "iggy_checksum"}
        cut = None if point.timestamp_ns is None else point.timestamp_ns // divisor * divisor
        made.append(Point(point.measurement, point.tags, fields, cut).encode())
    return sorted(made)


@by_folder
def test_the_imported_mapping_writes_the_lines_of_the_sink(folder: Path) -> None:
    """All but the checksum: the same names, tags, fields, types and times."""
    text = (folder / "iggy-influxdb-sink.toml").read_text("utf-8")
    files = convert("iggy-influxdb-sink", text).files
    (name,) = (each for each in files if each != "pipeline.yaml")
    messages = [Message(base64.b64decode(row.pop("payload")), "quarry", **row) for row in rows(folder)]
    precision = tomllib.loads(text)["plugin_config"].get("precision", "us")

    rendered = parse_mapping(files[name], format="yaml", name="m").plan().render(messages)

    assert rendered.failures == []
    expected = (folder / "expected.lp").read_text("utf-8").rstrip("\n").split("\n")
    assert len(expected) == len(messages)
    assert without_checksum(rendered.lines, Precision(precision).divisor) == without_checksum(expected)


@by_folder
@pytest.mark.slow
def test_a_run_of_the_imported_pipeline_writes_what_the_sink_writes(
    folder: Path, server: IggyServer, tmp_path: Path, update_cases: bool
) -> None:
    """The real sink and `iggyflux run`, of the same topics of a real Iggy."""
    if reason := missing():
        pytest.skip(reason)
    text = (folder / "iggy-influxdb-sink.toml").read_text("utf-8")
    tree = tomllib.loads(text)
    topics = tree["streams"][0]["topics"]
    stream = "quarry" if update_cases else server.unique("quarry")
    server.rest("POST", "/streams", {"name": stream})
    for topic in topics:
        server.create_topic(stream, topic, PARTITIONS)
    kept = asyncio.run(send(server, stream, topics, rows(folder)))
    text = text.replace("quarry", stream)
    found = {}
    for who in ("sink", "iggyflux"):
        with SimServer(int(tree["plugin_config"]["version"][1]), database="raw", org="stone") as sim:
            sent = text.replace("http://influx:8086", sim.url).replace("-sink", f"-{who}")
            if who == "sink":
                run_sink(server, tmp_path / who, sink_configuration(sent), sim, len(kept))
            else:
                run_iggyflux(server, tmp_path / who, sent)
            found[who] = sim.dump()
    if update_cases:
        (folder / "messages.ndjson").write_text("".join(json.dumps(row) + "\n" for row in kept), "utf-8")
        (folder / "expected.lp").write_text("".join(f"{line}\n" for line in sorted(found["sink"])), "utf-8")

    assert len(found["sink"]) == len(kept)
    assert without_checksum(found["iggyflux"]) == without_checksum(found["sink"])


async def send(server: IggyServer, stream: str, topics: list[str], rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Send messages, and return them as Iggy has them."""
    connection = Connection(server.settings())
    await connection.open()
    for row in rows:
        message = OutgoingMessage(base64.b64decode(row["payload"]), id=row["id"])
        await connection.send(stream, row["topic"], row["partition"], [message])
    kept = []
    for topic in topics:
        for partition in range(PARTITIONS):
            place = Partition(stream, topic, partition)
            kept += [
                as_row(each) for each in await connection.poll(ConsumerId("single", "look"), place, ("offset", 0), 1000)
            ]
    await connection.close()
    return kept


def as_row(message: Message) -> dict[str, Any]:
    names = ("topic", "partition", "offset", "id", "timestamp_us", "origin_timestamp_us")
    return {name: getattr(message, name) for name in names} | {"payload": base64.b64encode(message.payload).decode()}


def run_sink(server: IggyServer, folder: Path, text: str, sim: SimServer, count: int) -> None:
    with connectors(server, folder, text) as running:
        until = time.monotonic() + WAIT_SECONDS
        while len(sim.dump()) < count and time.monotonic() < until and running.poll() is None:
            time.sleep(0.1)
    if len(sim.dump()) < count:
        pytest.fail(f"the sink wrote {len(sim.dump())} of {count}:\n{(folder / 'log').read_text()[-2000:]}")


def run_iggyflux(server: IggyServer, folder: Path, text: str) -> None:
    folder.mkdir()
    for name, document in convert("iggy-influxdb-sink", text).files.items():
        (folder / name).write_text(document, "utf-8")
    environ = {"INFLUX_TOKEN": "x", "IGGY_ADDRESS": server.tcp}
    done = process("run", folder / "pipeline.yaml", "--until-end", env=environ)
    assert done.code == 0, done.err
