"""`iggyflux replay` over HTTP: rejected, kept, corrected, replayed, stored; and what it does if that fails again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from shell import Outcome, iggyflux

from iggyflux.cli.replay import LetterMessage, LetterSource
from iggyflux.errors import NotConnected
from iggyflux.records import Message, Reason
from iggyflux.sim import Fault, SimServer
from iggyflux.transports.local.deadletters import read_dead_letters

MAPPING = """\
iggyflux: 1
kind: writer
name: env
from: {stream: s, topic: t}
points:
  - measurement: {const: m}
    tags: [device]
    fields: {value: VALUE}
    timestamp: {expr: ts, format: unix_s}
"""
WRONG, RIGHT = "{expr: to_string(value), type: string}", "value"
PIPELINE = """\
iggyflux: 1
from: log:data
influxdb: {{url: '{url}', bucket: plant, {org} {secret}, linger: 10ms, retry_backoff: 5ms}}
run:
  - mapping: env.yaml
"""
FIRST = "m,device=first value=1 1000000000"
STORED = [
    "m,device=d0 value=0.5 1000000000",
    "m,device=d1 value=1.5 1001000000",
    "m,device=d2 value=2.5 1002000000",
]


@pytest.fixture(params=[1, 2, 3], ids=["1.x", "2.x", "3.x"])
def simulator(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SimServer]:
    """A server with `value` as a number, and a run whose mapping made text of it: all messages are dead letters."""
    dialect: int = request.param
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TOKEN", "s3cret")
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    with SimServer(dialect, database="plant") as started:
        org = "org: org," if dialect == 2 else ""
        Path("pipeline.yaml").write_text(PIPELINE.format(url=started.url, org=org, secret='token: "${TOKEN}"'))
        write(RIGHT)
        fill({"device": "first", "value": 1, "ts": 1})
        assert run().code == 0
        write(WRONG)
        fill(*({"device": f"d{number}", "value": number + 0.5, "ts": 1 + number / 1000} for number in range(3)))
        fill({"device": "d9"})
        outcome = run()
        assert (outcome.code, "3 rejected by the server, 4 kept as dead letters" in outcome.err) == (0, True), outcome
        assert len(started.dump("plant")) == 1
        yield started


def write(value: str) -> None:
    Path("env.yaml").write_text(MAPPING.replace("VALUE", value))


def fill(*messages: object) -> None:
    lines = "".join(json.dumps(message) + "\n" for message in messages)
    assert iggyflux("log", "append", "data", "s/t", stdin=lines).code == 0


def run() -> Outcome:
    return iggyflux("run", "pipeline.yaml", "--until-end")


def replay(*options: str) -> Outcome:
    return iggyflux("replay", "dead-letters/env", "--pipeline", "pipeline.yaml", *options)


def letters() -> int:
    return len(list(read_dead_letters(Path("dead-letters/env"))))


def others(simulator: SimServer) -> list[str]:
    return [line for line in simulator.dump("plant") if "=first" not in line]


def test_what_was_rejected_is_stored_once_however_often_it_is_replayed(
    simulator: SimServer,
) -> None:
    write(RIGHT)

    outcomes = [replay("--reason", "IFX609") for _ in range(3)]

    assert [outcome.code for outcome in outcomes] == [0, 0, 0], outcomes
    assert "3 points written, 0 failed again" in outcomes[0].err
    assert others(simulator) == STORED
    assert letters() == 4


def test_what_fails_again_is_reported_and_stays(simulator: SimServer) -> None:
    """By the server, and by the mapping; the exit code shows it, and the rest is stored."""
    again = replay()
    write(RIGHT)
    corrected = replay()

    assert again.code == 1
    assert "failed again: " in again.err
    assert "IFX609 ×3" in again.err
    assert corrected.code == 1
    assert "s/t/" in corrected.err
    assert "1 failed again" in corrected.err
    assert others(simulator) == STORED
    assert letters() == 4


def test_dry_run_prints_the_lines_and_sends_nothing(simulator: SimServer) -> None:
    write(RIGHT)
    before = len(simulator.requests)

    outcome = replay("--dry-run", "--reason", "IFX609")

    assert outcome.code == 0
    assert [f"m,device=d{number} value={number}.5" for number in range(3)] == [
        line.rpartition(" ")[0] for line in outcome.out.splitlines()
    ]
    assert len(simulator.requests) == before


def test_as_is_sends_the_lines_that_were_refused(simulator: SimServer) -> None:
    """Where the server was wrong: here it forgets the type of the field."""
    write(RIGHT)
    shown = replay("--as-is", "--dry-run")
    simulator.reset()

    outcomes = [replay("--as-is") for _ in range(2)]

    assert shown.out.splitlines() == [line.replace("value=", 'value="').replace(".5 ", '.5" ') for line in STORED]
    assert [outcome.code for outcome in outcomes] == [0, 0], outcomes
    assert others(simulator) == shown.out.splitlines()


def test_letters_are_chosen_by_code_time_and_mapping(simulator: SimServer) -> None:
    write(RIGHT)

    for options in (["--until", "2020-01-01T00:00:00Z"], ["--mapping-name", "other"], ["--reason", "IFX999"]):
        outcome = replay(*options)
        assert (outcome.code, "0 dead letters selected" in outcome.err) == (0, True), outcome
    assert others(simulator) == []
    assert replay("--reason", "ifx609", "--since", "2020-01-01T00:00:00Z", "--mapping-name", "env").code == 0
    assert others(simulator) == STORED


def test_a_replay_survives_what_a_run_survives(simulator: SimServer) -> None:
    write(RIGHT)
    simulator.inject(Fault("status", status=503, skip=1, times=2), Fault("reset", skip=1, when="after", stored=True))

    assert replay("--reason", "IFX609").code == 0

    assert others(simulator) == STORED


def test_a_rejected_replay_stops_with_a_hint_and_keeps_every_letter(simulator: SimServer) -> None:
    write(RIGHT)
    simulator.inject(Fault("status", status=403, times=None))

    outcome = replay("--reason", "IFX609")

    assert outcome.code == 3
    assert "IFX722" in outcome.err
    assert "hint" in outcome.err
    assert others(simulator) == []
    assert letters() == 4


@pytest.mark.parametrize("on_unavailable", ["stop", "dead_letter"])
def test_a_replay_to_a_server_that_is_away_ends_and_counts_what_is_left(
    simulator: SimServer, on_unavailable: str
) -> None:
    """A letter is one already: `dead_letter` keeps nothing twice."""
    write(RIGHT)
    pipeline = Path("pipeline.yaml")
    more = f"max_retries: 1, on_unavailable: {on_unavailable}, linger"
    pipeline.write_text(pipeline.read_text().replace("linger", more))
    simulator.inject(Fault("status", status=503, times=2))

    outcome = replay("--reason", "IFX609")

    assert outcome.code == 3
    assert "IFX606" in outcome.err
    assert "3 letters not sent yet: replay again" in outcome.err
    assert letters() == 4
    assert replay("--reason", "IFX609").code == 0
    assert others(simulator) == STORED


NEXT_CENTURY_US = 4_102_444_800_000_000


class Marked:
    """A `Marking` in memory, which fails as often as `faults` says."""

    def __init__(self, faults: int = 0) -> None:
        self.digests: list[bytes] = []
        self.failed: dict[bytes, Sequence[Reason]] = {}
        self.faults = faults
        self.at_us = 0

    async def connect(self) -> None: ...

    async def add(self, digests: Sequence[bytes], at_us: int, failed: Mapping[bytes, Sequence[Reason]]) -> None:
        self.faults -= 1
        if self.faults >= 0:
            raise NotConnected("gone")
        self.digests += digests
        self.failed |= failed
        self.at_us = at_us

    async def close(self) -> None: ...


def test_letters_are_read_on_demand_and_what_is_unsettled_comes_again() -> None:
    """They are read once; what failed again is not marked but with its reasons, nor what was not settled.

    Marks have a time after that of their letters, also where the clock that kept those is ahead.
    """
    taken, marked, reasons = [], Marked(faults=1), [Reason("IFX609", "no"), Reason("IFX603", "too old")]

    def messages() -> Iterator[LetterMessage]:
        for number in range(2500):
            taken.append(number)
            yield LetterMessage(Message(b"", offset=number), b"%d" % number, NEXT_CENTURY_US + number)

    async def main() -> None:
        source = LetterSource(messages(), 2500, marked)
        await source.connect()
        first = await source.read()
        assert first is not None
        assert len(first.messages) == len(taken) == 1000
        await source.read()
        source.fail(first.messages[7], reasons)
        with pytest.raises(NotConnected):
            await source.ack([first.last])
        await source.connect()
        again = await source.read()
        assert again is not None
        assert again.messages[0].offset == 0
        source.fail(again.messages[8], reasons[:1])
        source.fail(again.messages[8], reasons[1:])
        await source.ack([again.last])
        assert (source.left, len(taken)) == (1500, 2000)
        assert marked.digests == [b"%d" % number for number in range(1000) if number != 8]
        assert marked.failed == {b"8": reasons}
        assert marked.at_us == NEXT_CENTURY_US + 1000
        cancelled = asyncio.ensure_future(source.read())
        await asyncio.sleep(0)
        cancelled.cancel()
        await source.connect()
        rest = [await source.read(), await source.read()]
        assert [batch.messages[0].offset for batch in rest if batch] == [1000, 2000]
        await source.close()

    asyncio.run(main())


def test_a_letter_that_was_delivered_since_is_the_same_point(simulator: SimServer) -> None:
    """The log is read again from its start, and the letters are replayed: nothing is there twice."""
    write(RIGHT)
    for file in Path("data/.consumers").glob("*"):
        file.unlink()

    assert run().code == 0
    assert replay("--reason", "IFX609").code == 0

    assert others(simulator) == STORED
