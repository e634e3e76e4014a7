"""Both ends misbehave, as processes: a real Iggy, `iggyflux run` with several routes, a simulated InfluxDB.

Iggy is stopped and started, or hangs for longer than `timeout`; InfluxDB gives answers of `fault_rows.PASSING`, or is
away.  In the end every message is stored or a dead letter, and the status file says what is known of each route.
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from iggy_server import IggyServer
from live_iggy import killable_server  # noqa: F401  (the fixture `server`)
from test_both_ends import MAPPING, ROUTES, TOPICS, is_bad, is_odd, is_other, lines, payload

from iggyflux.records import OutgoingMessage
from iggyflux.sim import Fault, SimServer
from iggyflux.transports.iggy.connection import Connection
from iggyflux.transports.local.deadletters import read_dead_letters
from tests.fault_rows import PASSING

pytestmark = pytest.mark.slow

PARTITIONS = 2
PIPELINE = """\
iggyflux: 1
iggy: {{address: "{tcp}", username: iggy, password: "${{IGGY_PASSWORD}}", timeout: 1s, batch_size: 100}}
influxdb: {{url: "{url}", org: org, bucket: test, batch_size: 50, linger: 50ms, timeout: 1s, retry_backoff: 50ms}}
run:
{items}
"""


async def send(server: IggyServer, stream: str, placed: dict[int, str]) -> None:
    connection = Connection(server.settings())
    await connection.open()
    for number, topic in placed.items():
        await connection.send(stream, topic, number % PARTITIONS, [OutgoingMessage(payload(number))])
    await connection.close()


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.long), pytest.param(3, marks=pytest.mark.long)])
def test_processes_lose_nothing_and_the_status_file_is_right(server: IggyServer, tmp_path: Path, seed: int) -> None:
    if server.process is None:
        pytest.skip("this server is not ours to stop")
    chance, stream, folder = random.Random(seed), server.unique("ends"), tmp_path / "run"
    folder.mkdir()
    for topic in TOPICS:
        server.create_topic(stream, topic, PARTITIONS, messages_required_to_save="1", enforce_fsync="true")
    placed: dict[int, str] = {}
    with SimServer(1) as sim:
        for spec in ROUTES:
            words = {"name": spec.name, "topics": json.dumps(spec.topics), "on_error": spec.on_error}
            mapping = MAPPING.format(**words).replace("stream: s,", f"stream: {stream},")
            (folder / f"{spec.name}.yaml").write_text(mapping, encoding="utf-8")
        consumers = {
            "lambda": "{group: lambda, exclusive: true}",
            "yield": "{single: yield}",
            "import": "{single: import}",
        }
        items = "\n".join(f"  - {{mapping: {spec.name}.yaml, consumer: {consumers[spec.name]}}}" for spec in ROUTES)
        pipeline = PIPELINE.format(tcp=server.tcp, url=sim.url, items=items).replace("org: org, ", "")
        (folder / "p.yaml").write_text(pipeline)
        with (folder / "run.log").open("wb") as log:
            run = subprocess.Popen(
                [sys.executable, "-m", "iggyflux", "run", "p.yaml", "--log-format", "text", "--status-file", "s.json"],
                cwd=folder,
                env={"PATH": "/usr/bin:/bin", "IGGY_PASSWORD": "iggy"},
                stdout=log,
                stderr=log,
            )
        try:
            for harm in chance.sample(["stop", "hang", "both", "answers", "down"], 5):
                new = range(len(placed), len(placed) + 200)
                asyncio.run(send(server, stream, fresh := {number: chance.choice(TOPICS) for number in new}))
                placed |= fresh
                if harm in ("answers", "both"):
                    for row in chance.sample(PASSING, 3):
                        sim.inject(Fault(**row))
                if harm == "down":
                    sim.down(1.0)
                if harm in ("stop", "both"):
                    server.stop()
                    server.start()
                if harm == "hang":
                    server.process.send_signal(signal.SIGSTOP)
                    time.sleep(2.5)
                    server.process.send_signal(signal.SIGCONT)
            expected = {
                spec.name: {number for number, topic in placed.items() if topic in spec.topics} for spec in ROUTES
            }
            until = time.monotonic() + 60
            while not is_settled(folder, expected):
                assert time.monotonic() < until, (folder / "run.log").read_text()[-4000:]
                time.sleep(0.2)
            run.send_signal(signal.SIGTERM)
            assert run.wait(60) == 0, (folder / "run.log").read_text()[-4000:]
        finally:
            run.kill()
            run.wait()
        found = set(sim.dump())
    for spec in ROUTES:
        check(folder, spec.name, spec.on_error, expected[spec.name], found)


def routes_of(folder: Path) -> dict[str, dict[str, Any]]:
    return {route["name"]: route for route in json.loads((folder / "s.json").read_bytes())["routes"]}


def is_settled(folder: Path, expected: dict[str, set[int]]) -> bool:
    """Whether the status says that nothing waits any more."""
    routes = routes_of(folder) if (folder / "s.json").exists() else {}
    return bool(routes) and all(
        route["read"] >= len(expected[name])
        and route["state"] == "idle"
        and route["lag"]
        and not any(route["lag"].values())
        for name, route in routes.items()
    )


def check(folder: Path, name: str, on_error: str, numbers: set[int], found: set[str]) -> None:
    status = routes_of(folder)[name]
    failing = {number for number in numbers if is_bad(number)}
    letters = [*read_dead_letters(folder / "dead-letters" / name)] if (folder / "dead-letters" / name).exists() else []
    kept = {json.loads(letter.message.payload)["n"] for letter in letters}
    blamed = kept - failing  # a single line that a fault rejects is rejected like any other
    good = {number for number in numbers - blamed if not is_odd(number)}

    assert {line for number in good for line in lines(number, name)} - found == set()
    assert kept >= failing if on_error == "dead_letter" else kept == set()
    assert (status["state"], status["waiting_for"], status["error"]) == ("done", None, None)
    assert status["dead_letters"] == len(letters)
    assert status["read"] >= len(numbers)
    assert status["failed"] >= len(failing)
    assert status["skipped"] >= sum(map(is_other, numbers))
    assert (status["dropped"] >= len(failing)) == (on_error == "skip" or not failing)
    assert status["delivered"] + status["refused"] <= status["points"]
    assert status["reconnects"] > 0
