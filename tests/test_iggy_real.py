"""The Iggy transport against a real server: the contract of sources, groups, offsets, sending, crashes."""

from __future__ import annotations

import asyncio
import json
import secrets
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from iggy_server import IggyServer, find_server, free_ports, start_server
from required_servers import not_found
from shell import process

from iggyflux import load_mapping
from iggyflux.cli.playground_server import topics_of
from iggyflux.errors import EndOfInput, NotConnected, Stopped
from iggyflux.mapping import WriterMapping
from iggyflux.pipeline import IggySettings, Secret, Start
from iggyflux.records import Batch, LazyMessages, Message, OutgoingMessage, Partition, Position
from iggyflux.transports.iggy.connection import Connection, ConsumerId
from iggyflux.transports.iggy.source import IggySource
from iggyflux.transports.iggy.topics import IggyRange, IggySink, last_messages
from iggyflux.transports.ranges import Bound
from tests.transports.contract import SourceContract, drive


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[IggyServer]:
    found = find_server(tmp_path_factory.mktemp("iggy"))
    if isinstance(found, str):
        not_found("iggy", found)
    yield found
    found.close()


class Topic:
    """A fresh topic, and everything a test does with it."""

    def __init__(self, server: IggyServer, partitions: int = 1) -> None:
        self.server = server
        self.stream = server.unique("t")
        self.partitions = partitions
        server.create_topic(self.stream, "t", partitions)

    def settings(self, **more: Any) -> IggySettings:
        return self.server.settings(**more)

    async def send(self, payloads: Sequence[bytes], partition: int = 0, **headers: Any) -> None:
        connection = Connection(self.settings())
        await connection.open()
        for at in range(0, len(payloads), 1000):
            messages = [OutgoingMessage(payload, headers=headers) for payload in payloads[at : at + 1000]]
            await connection.send(self.stream, "t", partition, messages)
        await connection.close()

    def fill(self, payloads: Sequence[bytes], partition: int = 0, **headers: Any) -> None:
        drive(self.send(payloads, partition, **headers))

    def source(self, kind: Any = "group", name: str = "c", **more: Any) -> IggySource:
        settings = self.settings(**{key: more.pop(key) for key in ("batch_size", "batch_bytes") if key in more})
        return IggySource(settings, self.stream, ["t"], consumer=ConsumerId(kind, name), **more)

    def place(self, partition: int = 0) -> Partition:
        return Partition(self.stream, "t", partition)

    async def stored(self, partition: int = 0, kind: Any = "group", name: str = "c") -> int | None:
        connection = Connection(self.settings())
        await connection.open()
        found = await connection.stored(ConsumerId(kind, name), self.place(partition))
        await connection.close()
        return None if found is None else found.stored


@pytest.fixture
def topic(server: IggyServer) -> Topic:
    return Topic(server)


class _Contract(SourceContract):
    kind = "group"

    @pytest.fixture(autouse=True)
    def _topic(self, server: IggyServer) -> None:
        self.topic = Topic(server)

    def fill(self, payloads: Sequence[bytes], partition: int = 0) -> None:
        loop_is_running = True
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            loop_is_running = False
        if loop_is_running:  # called within a run: a thread of its own needs a loop of its own
            import threading

            thread = threading.Thread(target=self.topic.fill, args=(payloads, partition))
            thread.start()
            thread.join()
        else:
            self.topic.fill(payloads, partition)

    def source(self, *, until_end: bool = True, batch_size: int = 10) -> IggySource:
        return self.topic.source(self.kind, until_end=until_end, batch_size=batch_size)


class TestGroup(_Contract):
    """A consumer group fulfils the contract of every source."""


class TestSingle(_Contract):
    """A single consumer fulfils the contract of every source."""

    kind = "single"


# Reading


async def read_all(source: IggySource) -> list[Message]:
    """Return everything up to the end; close the source and acknowledge nothing."""
    found: list[Message] = []
    await source.connect()
    try:
        while True:
            if batch := await source.read():
                found += batch.messages
    except EndOfInput:
        return found
    finally:
        await source.close()


async def next_batch(source: IggySource, tries: int = 100) -> Batch | None:
    for _ in range(tries):
        if batch := await source.read():
            return batch
    return None


async def next_batch_or_end(source: IggySource) -> Batch | None:
    try:
        return await next_batch(source)
    except EndOfInput:
        return None


def test_headers_of_every_kind_are_readable(topic: Topic) -> None:
    given = {"text": "ü", "whole": 7, "large": 2**64 - 1, "huge": -(2**100), "real": 0.5, "yes": True, "raw": b"\0\1"}
    topic.fill([b"{}"], **given)

    (message,) = drive(read_all(topic.source(until_end=True)))

    assert dict(message.headers) == given
    assert type(message.headers["yes"]) is bool
    assert topic.server is not None


def test_packed_messages_are_those_that_were_polled(topic: Topic) -> None:
    """Their headers and coordinates are columns then: those of the SDK are let go."""
    given = {"text": "ü", "large": 2**64 - 1, "huge": -(2**100), "real": 0.5, "yes": True, "raw": b"\0\1"}
    topic.fill([b"plain", b"{}"])
    topic.fill([b"of a crane"], **given)

    async def packed() -> list[tuple[list[Message], LazyMessages]]:
        source, found = topic.source(until_end=True), []
        await source.connect()
        try:
            while True:
                batch = await source.read()
                if batch is not None:
                    assert isinstance(batch.messages, LazyMessages)
                    polled = [batch.messages[index] for index in range(len(batch.messages))]
                    batch.messages.pack()
                    found.append((polled, batch.messages))
        except EndOfInput:
            return found
        finally:
            await source.close()

    found = drive(packed())

    assert [message for polled, _ in found for message in polled] == [each for _, lazy in found for each in lazy]
    (*_, last) = found[-1][1]
    assert (last.payload, dict(last.headers)) == (b"of a crane", given)


def test_a_message_brings_its_coordinates(topic: Topic) -> None:
    topic.fill([b"a", b"b"])

    found = drive(read_all(topic.source(until_end=True)))

    assert [(m.stream, m.topic, m.partition, m.offset) for m in found] == [(topic.stream, "t", 0, n) for n in (0, 1)]
    assert all(m.timestamp_us > 1_700_000_000_000_000 and m.id for m in found)


@pytest.mark.parametrize(
    ("start", "expected"),
    [(Start("first"), 0), (Start("offset", 7), 7), (Start("timestamp", 1), 0), (Start("last"), None)],
    ids=str,
)
@pytest.mark.parametrize("kind", ["group", "single"])
def test_a_consumer_without_an_offset_begins_at_start(
    topic: Topic, kind: str, start: Start, expected: int | None
) -> None:
    topic.fill([b"%d" % number for number in range(20)])

    found = drive(read_all(topic.source(kind, start=start, until_end=True)))

    assert (found[0].offset if found else None) == expected


def test_a_start_by_time_begins_with_the_first_message_at_or_after_it(topic: Topic) -> None:
    topic.fill([b"0"])
    topic.fill([b"1"])
    first, second = drive(read_all(topic.source(until_end=True)))

    found = drive(read_all(topic.source(name="d", start=Start("timestamp", first.timestamp_us + 1), until_end=True)))

    assert found == [second]


def test_a_stored_offset_wins_over_start_and_is_the_servers(topic: Topic) -> None:
    topic.fill([b"%d" % number for number in range(20)])

    async def main() -> list[Message]:
        source = topic.source()
        await source.connect()
        await next_batch(source)
        await source.ack([Position(topic.place(), 11)])
        await source.close()
        return await read_all(topic.source(start=Start("last"), until_end=True))

    assert [message.offset for message in drive(main())] == list(range(12, 20))
    assert drive(topic.stored()) == 11


@pytest.mark.parametrize("kind", ["group", "single"])
def test_an_acknowledgement_never_goes_backwards(topic: Topic, kind: str) -> None:
    topic.fill([b"x"] * 20)

    async def main() -> None:
        source = topic.source(kind)
        await source.connect()
        await next_batch(source)
        for offset in (15, 3, 12):
            await source.ack([Position(topic.place(), offset)])
        await source.close()

    drive(main())
    assert drive(topic.stored(kind=kind)) == 15


def test_offset_zero_is_not_trusted_so_that_a_lost_log_loses_nothing(topic: Topic) -> None:
    topic.fill([b"a", b"b"])

    async def main() -> list[Message]:
        source = topic.source()
        await source.connect()
        await next_batch(source)
        await source.ack([Position(topic.place(), 0)])
        await source.close()
        return await read_all(topic.source(until_end=True))

    assert [message.offset for message in drive(main())] == [0, 1]


def test_polls_are_bounded_by_bytes(topic: Topic) -> None:
    topic.fill([b"x" * 10_000] * 30)

    async def main() -> list[int]:
        source = topic.source(batch_bytes=50_000, until_end=True)
        await source.connect()
        sizes = []
        while batch := await next_batch_or_end(source):
            sizes.append(len(batch.messages))
        await source.close()
        return sizes

    sizes = drive(main())
    assert sum(sizes) == 30
    assert max(sizes) <= 5


def test_partitions_are_read_in_turn_and_an_idle_source_rests(server: IggyServer) -> None:
    topic = Topic(server, 3)
    for partition in range(3):
        topic.fill([b"x"] * 20, partition)

    async def main() -> tuple[list[int], float]:
        source = topic.source(batch_size=10)
        await source.connect()
        order = [batch.partition.partition for batch in [await next_batch(source) for _ in range(6)] if batch]
        begin = asyncio.get_running_loop().time()
        for _ in range(5):
            assert await source.read() is None
        seconds = asyncio.get_running_loop().time() - begin
        await source.close()
        return order, seconds

    order, seconds = drive(main())
    assert order == [0, 1, 2, 0, 1, 2]
    assert seconds > 0.05


def test_only_the_partitions_that_are_named_are_read(server: IggyServer) -> None:
    topic = Topic(server, 3)
    for partition in range(3):
        topic.fill([b"x"], partition)

    found = drive(read_all(topic.source("single", partitions=[0, 2], until_end=True)))

    assert [message.partition for message in found] == [0, 2]


def test_topics_are_selected_by_glob_and_new_ones_are_found(topic: Topic) -> None:
    topic.server.create_topic(topic.stream, "t-2")
    topic.fill([b"x"])

    async def main() -> set[str]:
        time = [0.0]
        source = IggySource(
            topic.settings(), topic.stream, ["t*"], consumer=ConsumerId("group", "c"), monotonic=lambda: time[0]
        )
        await source.connect()
        first = await next_batch(source)
        topic.server.create_topic(topic.stream, "t-3")
        sink = IggySink(topic.settings(), topic.stream, "t-3")
        await sink.connect()
        await sink.send([OutgoingMessage(b"y")])
        await sink.close()
        time[0] = 100.0
        second = await next_batch(source)
        await source.close()
        return {batch.partition.topic for batch in (first, second) if batch}

    assert drive(main()) == {"t", "t-3"}


def test_lag_is_what_is_not_settled(topic: Topic) -> None:
    topic.fill([b"x"] * 20)

    async def main() -> list[int]:
        source, found = topic.source(), []
        await source.connect()
        found += (await source.lag()).values()
        await next_batch(source)
        found += (await source.lag()).values()
        await source.ack([Position(topic.place(), 14)])
        found += (await source.lag()).values()
        await source.close()
        return found

    assert drive(main()) == [20, 20, 5]


# Several members


def test_two_members_share_partitions_and_a_leaving_one_hands_over(server: IggyServer) -> None:
    topic = Topic(server, 4)
    for partition in range(4):
        topic.fill([b"%d" % number for number in range(10)], partition)

    async def main() -> tuple[set[int], set[int], set[int]]:
        first, second = topic.source(), topic.source()
        await first.connect()
        await second.connect()
        batches = [[b for _ in range(12) if (b := await each.read())] for each in (first, second)]
        owned = [{batch.partition.partition for batch in each} for each in batches]
        await first.ack([batch.last for batch in batches[0]])
        await second.close()
        for partition in range(4):
            await topic.send([b"later"], partition)
        after: set[int] = set()
        for _ in range(40):
            if batch := await first.read():
                after.add(batch.partition.partition)
                await first.ack([batch.last])
        await first.close()
        return owned[0], owned[1], after

    first, second, after = drive(main())
    assert (first | second, first & second) == ({0, 1, 2, 3}, set())
    assert len(first) == len(second) == 2
    assert after == {0, 1, 2, 3}


def test_an_acknowledgement_for_a_reassigned_partition_is_rejected(
    server: IggyServer,
) -> None:
    topic = Topic(server, 2)
    for partition in range(2):
        topic.fill([b"%d" % number for number in range(10)], partition)

    async def main() -> tuple[set[int], dict[int, int | None]]:
        first = topic.source()
        await first.connect()
        read = [batch for _ in range(4) if (batch := await first.read())]
        second = topic.source()
        await second.connect()
        assert await second.read() is None  # handed over only when what was polled is stored
        await first.ack([Position(batch.partition, 4) for batch in read])
        stored = {partition: await topic.stored(partition) for partition in range(2)}
        await first.close()
        found = [batch for _ in range(20) if (batch := await second.read())]
        await second.close()
        return {batch.messages[0].offset for batch in found}, stored

    begun, stored = drive(main())
    assert stored == {0: 4, 1: 4}
    assert begun == {5}


# Sending


def test_keys_go_where_every_client_sends_them(server: IggyServer) -> None:
    import apache_iggy as sdk

    topic = Topic(server, 3)
    keys = [f"device-{number}" for number in range(40)] + ["", "ü" * 20, "a-rather-long-key-of-more-than-sixteen-bytes"]

    async def main() -> None:
        sink = IggySink(topic.settings(), topic.stream, "t")
        await sink.connect()
        await sink.send([OutgoingMessage(key.encode() or b"-", key=key) for key in keys if key])
        client = sdk.IggyClient.from_connection_string(f"iggy+tcp://iggy:iggy@{server.settings().address}")
        await client.connect()
        for key in keys:
            if key:
                message = sdk.SendMessage(key)
                await client.send_messages(topic.stream, "t", sdk.Partitioning.messages_key(key), [message])
        await sink.close()

    drive(main())
    found = drive(read_all(topic.source(until_end=True)))
    places: dict[bytes, set[int]] = {}
    for message in found:
        places.setdefault(message.payload, set()).add(message.partition)
    assert len(found) == 2 * len([key for key in keys if key])
    assert all(len(each) == 1 for each in places.values())


def test_what_is_sent_arrives_in_order_with_headers_of_stable_types(topic: Topic) -> None:
    async def main() -> None:
        sink = IggySink(topic.settings(batch_bytes=5000), topic.stream, "t")
        await sink.connect()
        await sink.send([OutgoingMessage(b"%04d" % n, "k", {"n": n, "f": 1.0, "e": ""}, id=n + 1) for n in range(3000)])
        await sink.close()

    drive(main())
    found = drive(read_all(topic.source(until_end=True)))
    assert [message.payload for message in found] == [b"%04d" % number for number in range(3000)]
    assert [message.id for message in found] == list(range(1, 3001))
    assert dict(found[7].headers) == {"n": 7, "f": 1.0}


def test_a_message_that_iggy_cannot_hold_stops_with_the_reason(topic: Topic) -> None:
    async def send(message: OutgoingMessage) -> str:
        sink = IggySink(topic.settings(), topic.stream, "t")
        await sink.connect()
        try:
            with pytest.raises(Stopped) as stopped:
                await sink.send([message])
        finally:
            await sink.close()
        return stopped.value.code

    assert drive(send(OutgoingMessage(b""))) == "IFX775"
    assert drive(send(OutgoingMessage(b"x", headers={"k": "v" * 256}))) == "IFX775"
    assert drive(send(OutgoingMessage(b"x", timestamp_ns=1))) == "IFX776"


def test_a_missing_topic_is_created_or_reported_with_a_hint(topic: Topic) -> None:
    async def connect(create: bool) -> None:
        sink = IggySink(topic.settings(create=create), topic.stream, "new")
        try:
            await sink.connect()
        finally:
            await sink.close()

    with pytest.raises(Stopped, match="iggy topic create") as stopped:
        drive(connect(create=False))
    assert stopped.value.code == "IFX766"
    created: Stopped | None = None
    try:
        drive(connect(create=True))
    except Stopped as error:  # a server older than the SDK does not support the request
        created = error
    assert created is None or (created.code, "iggy topic create" in (created.hint or "")) == ("IFX767", True)


def test_the_last_messages_are_seen_without_touching_an_offset(server: IggyServer) -> None:
    topic = Topic(server, 2)
    for partition in range(2):
        topic.fill([b"%d-%d" % (partition, number) for number in range(30)], partition)

    found = drive(last_messages(topic.settings(), topic.stream, ["t"], 5))

    assert [message.payload for message in found] == [b"1-%d" % number for number in range(25, 30)]
    assert drive(topic.stored()) is None


# What is wrong


@pytest.mark.parametrize(
    ("more", "code"),
    [({"password": Secret("wrong-secret")}, "IFX763"), ({"username": "nobody"}, "IFX763")],
    ids=["password", "user"],
)
def test_wrong_credentials_stop_and_no_secret_is_shown(topic: Topic, more: dict[str, Any], code: str) -> None:
    async def main() -> None:
        await Connection(topic.settings(**more)).open()

    with pytest.raises(Stopped) as stopped:
        drive(main())
    assert stopped.value.code == code
    assert "wrong-secret" not in str(stopped.value)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere.invalid:8090"])
def test_a_server_that_is_not_there_is_tried_again(address: str) -> None:
    settings = IggySettings(address=address, username="u", password=Secret("p"))

    async def main() -> None:
        await Connection(settings).open()

    with pytest.raises(NotConnected, match="connecting to tcp://"):
        drive(main())


def test_a_topic_that_is_not_there_stops_with_what_was_meant(topic: Topic) -> None:
    async def main(wanted: str) -> None:
        source = IggySource(topic.settings(), topic.stream, [wanted], consumer=ConsumerId("group", "c"))
        try:
            await source.connect()
        finally:
            await source.close()

    topic.server.create_topic(topic.stream, "readings")
    with pytest.raises(Stopped, match="did you mean") as stopped:
        drive(main("readngs"))
    assert stopped.value.code == "IFX766"


def test_a_connection_string_connects_too(topic: Topic) -> None:
    text = Secret(f"iggy://iggy:iggy@{topic.server.tcp}")
    settings = IggySettings(connection_string=text)

    async def main() -> list[str] | None:
        connection = Connection(settings)
        await connection.open()
        try:
            return await connection.topics(topic.stream)
        finally:
            await connection.close()

    assert drive(main()) == ["t"]


# Commands


@pytest.fixture
def pipeline(topic: Topic, tmp_path: Path) -> Path:
    """A pipeline from the topic to a file, with dead letters in a topic of its own."""
    topic.server.create_topic(topic.stream, "dead")
    (tmp_path / "env.yaml").write_text(MAPPING.format(stream=topic.stream))
    path = tmp_path / "p.yaml"
    path.write_text(PIPELINE.format(tcp=topic.server.tcp, stream=topic.stream))
    return path


MAPPING = """\
iggyflux: 1
kind: writer
name: env
from: {{stream: {stream}, topic: t}}
points:
  - measurement: {{const: env}}
    tags: {{tenant: header('tenant')}}
    fields: {{n: {{expr: n, type: integer}}}}
    timestamp: {{expr: "meta('offset')", format: unix_s}}
"""

PIPELINE = """\
iggyflux: 1
iggy: {{address: "{tcp}", username: iggy, password: "${{IGGY_PASSWORD}}"}}
to: file:out.lp
dead_letters: {{stream: {stream}, topic: dead}}
run:
  - mapping: env.yaml
"""
ENV = {"IGGY_PASSWORD": "iggy"}


def lines_of(path: Path) -> list[str]:
    return (path.parent / "out.lp").read_text().splitlines()


def test_dead_letters_go_to_a_topic_and_are_replayed_from_it(topic: Topic, pipeline: Path) -> None:
    topic.fill([b'{"n": 0}', b'{"n": "one"}', b'{"n": 2}', b"broken"], tenant="acme")

    ran = process("run", pipeline, "--until-end", env=ENV)
    assert (ran.code, lines_of(pipeline)) == (0, ["env,tenant=acme n=0i 0", "env,tenant=acme n=2i 2000000000"])
    mapping = pipeline.with_name("env.yaml")
    mapping.write_text(
        mapping.read_text().replace("n: {expr: n,", "n: {expr: \"to_number(replace(to_string(n), 'one', '1'))\",")
    )
    replayed = process("replay", f"iggy:{topic.stream}/dead", "--pipeline", pipeline, env=ENV)

    assert "2 dead letters selected" in replayed.err
    assert (replayed.code, lines_of(pipeline)[2:]) == (1, ["env,tenant=acme n=1i 1000000000"]), replayed.err
    assert f"{topic.stream}/t/0@3" in replayed.err


def test_dry_run_reads_the_live_topic_without_touching_an_offset(topic: Topic, pipeline: Path) -> None:
    topic.fill([b'{"n": %d}' % number for number in range(30)])

    shown = process(
        "dry-run", pipeline.with_name("env.yaml"), "--from", "iggy", "--last", "3", "--pipeline", pipeline, env=ENV
    )
    by_environment = process(
        "dry-run",
        pipeline.with_name("env.yaml"),
        "--from",
        "iggy",
        env={**ENV, "IGGY_ADDRESS": topic.server.tcp, "IGGY_USERNAME": "iggy"},
    )

    assert (shown.code, shown.out) == (0, "".join(f"env n={n}i {n}000000000\n" for n in (27, 28, 29)))
    assert len(by_environment.out.splitlines()) == 10
    assert drive(topic.stored(name="env")) is None


def test_a_mapping_is_inferred_from_the_last_messages_of_a_live_topic(server: IggyServer, tmp_path: Path) -> None:
    """Of all partitions, with headers, and without touching an offset."""
    topic = Topic(server, 2)
    rows = [json.dumps({"kiln": f"k{at % 3}", "ts": 1772434800 + at, "glow": 700 + at / 10}) for at in range(40)]
    topic.fill([row.encode() for row in rows[:20]], 0, hall="north", raw=b"\x01")
    topic.fill([row.encode() for row in rows[20:]], 1, hall="south", raw=b"\x02")
    env = {"IGGY_ADDRESS": server.tcp, "IGGY_USERNAME": "iggy", "IGGY_PASSWORD": "iggy"}
    name = f"{topic.stream}/t"

    made = process("infer", "--from", "iggy", name, "--last", "25", "--output", tmp_path / "kilns.yaml", env=env)

    assert made.code == 0, made.err
    assert f"the last 25 messages of {name}" in made.err
    mapping = load_mapping(tmp_path / "kilns.yaml")
    assert isinstance(mapping, WriterMapping)
    [point] = mapping.writer.points
    assert {tag.key for tag in point.tags} == {"kiln", "hall"}
    assert (mapping.writer.source.stream, mapping.writer.source.topics) == (topic.stream, ("t",))
    tested = process("test", tmp_path / "kilns.yaml")
    assert (tested.code, "hall=" in (tmp_path / "kilns.yaml").read_text()) == (0, True), tested.out
    for partition in (0, 1):
        assert drive(topic.stored(partition, name="kilns")) is None
    missing = process("infer", "--from", "iggy", f"{topic.stream}/nope", env=env)
    assert (missing.code, "the topics are: t" in missing.err) == (3, True)


def test_the_playground_takes_the_last_messages_of_a_live_topic(topic: Topic, monkeypatch: pytest.MonkeyPatch) -> None:
    topic.fill([b'{"glow": %d.5}' % at for at in range(30)], hall="north")
    for key, value in {"ADDRESS": topic.server.tcp, "USERNAME": "iggy", "PASSWORD": "iggy"}.items():
        monkeypatch.setenv(f"IGGY_{key}", value)
    topics = topics_of("iggy", None)

    taken = topics.last(f"{topic.stream}/t", 3)

    assert [json.loads(line)["payload"] for line in taken.splitlines()] == [{"glow": at + 0.5} for at in (27, 28, 29)]
    with pytest.raises(Stopped):
        topics.last(f"{topic.stream}/nope", 3)


def test_resend_sends_a_range_again_and_touches_no_offset(topic: Topic, pipeline: Path) -> None:
    topic.fill([b'{"n": %d}' % number for number in range(30)])
    assert process("run", pipeline, "--until-end", env=ENV).code == 0
    stored = drive(topic.stored(name="env"))
    lines = lines_of(pipeline)

    sent = process("resend", pipeline, "--mapping", "env", "--from", "5", "--to", "9", env=ENV)
    by_time = process(
        "resend", pipeline, "--mapping", "env", "--from", "2000-01-01T00:00:00Z", "--partition", "0", env=ENV
    )

    assert (sent.code, lines_of(pipeline)[30:34]) == (0, lines[5:9]), sent.err
    assert "4 messages read, 4 points sent again, 0 failed" in sent.err.replace("env: ", "")
    assert (by_time.code, lines_of(pipeline)[34:]) == (0, lines), by_time.err
    assert drive(topic.stored(name="env")) == stored == 29


@pytest.mark.parametrize(
    ("since", "until", "unsettled"),
    [
        (None, None, 20),
        (Bound("offset", 22), None, 8),
        (None, Bound("offset", 14), 4),
        (Bound("offset", 90), None, 0),
        (Bound("offset", 2), Bound("offset", 10), 0),
        (None, Bound("timestamp", 1), 0),
        (None, Bound("timestamp", 2**62), 20),
    ],
)
def test_what_is_not_settled_is_counted_within_the_range_only(
    topic: Topic, since: Bound | None, until: Bound | None, unsettled: int
) -> None:
    topic.fill([b"x"] * 30)

    async def main() -> int:
        place = Partition(topic.stream, "t", 0)
        source = IggyRange(topic.settings(), [(topic.stream, "t")], since=since, until=until, ends={place: 10})
        await source.connect()
        await source.close()
        return source.unsettled

    assert drive(main()) == unsettled


def test_check_joins_nothing(topic: Topic, pipeline: Path) -> None:
    checked = process("check", pipeline, env=ENV)

    assert checked.code == 0, checked.out
    assert f"0 messages in 1 partition of {topic.stream}/t" in checked.out
    assert f"topic {topic.stream}/dead for dead letters exists" in checked.out
    assert topic.server.rest("GET", f"/streams/{topic.stream}/topics/t/consumer-groups")[1] == []


def test_a_member_that_starves_says_who_holds_the_partitions(topic: Topic, caplog: pytest.LogCaptureFixture) -> None:
    topic.fill([b"x"] * 5)

    async def main() -> str | None:
        time = [0.0]
        holder = topic.source()
        await holder.connect()
        assert await next_batch(holder)  # and never acknowledges
        starving = IggySource(
            topic.settings(), topic.stream, ["t"], consumer=ConsumerId("group", "c"), monotonic=lambda: time[0]
        )
        await starving.connect()
        for _ in range(8):
            assert await starving.read() is None
            time[0] += 2.0
        words = starving.waiting_for
        await starving.close()
        await holder.close()
        return words

    words = drive(main())
    assert words is not None
    assert words.startswith(f"{topic.stream}/t/0 starves: member 0 holds it, 5 messages pending; ")
    assert caplog.text.count("iggy.starving ") == 1
    assert "partitions=0 member=0 self=1 waiting=5" in caplog.text
    assert "all members count as connected; the server notices a host that is gone after" in caplog.text


# Ways to connect


@dataclass(frozen=True)
class Ways:
    """A server that listens by every transport, and the credentials for it."""

    server: IggyServer
    websocket: str
    quic: str
    ca: Path
    token: str


@pytest.fixture(scope="module")
def ways(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ways]:
    if shutil.which("iggy-server") is None:
        not_found("iggy", "Iggy over TLS: no iggy-server on PATH to be started with certificates")
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make certificates with")
    folder = tmp_path_factory.mktemp("ways")
    certificates(folder)
    websocket, quic = (f"127.0.0.1:{port}" for port in free_ports(2))
    server = start_server(
        folder,
        IGGY_TCP_TLS_ENABLED="true",
        IGGY_TCP_TLS_SELF_SIGNED="false",
        IGGY_TCP_TLS_CERT_FILE=str(folder / "server.pem"),
        IGGY_TCP_TLS_KEY_FILE=str(folder / "server.key"),
        IGGY_WEBSOCKET_ENABLED="true",
        IGGY_WEBSOCKET_ADDRESS=websocket,
        IGGY_QUIC_ENABLED="true",
        IGGY_QUIC_ADDRESS=quic,
    )
    try:
        server.create_topic("ways", "t")
        token = server.rest("POST", "/personal-access-tokens", {"name": "flux", "expiry": 0})[1]["token"]
        yield Ways(server, websocket, quic, folder / "ca.pem", token)
    finally:
        server.close()


def certificates(folder: Path) -> None:
    """Return an authority, and a certificate of it for localhost."""
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    (folder / "extensions").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE\n")
    for arguments in (
        ["req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=test authority"],
        ["req", *key, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=localhost"],
        [
            "x509",
            "-req",
            "-in",
            "server.csr",
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-days",
            "2",
            "-extfile",
            "extensions",
            "-out",
            "server.pem",
        ],
    ):
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


async def way_through(settings: IggySettings, kind: Any) -> tuple[list[bytes], int]:
    """Connect, send, read, acknowledge."""
    name = f"c-{secrets.token_hex(4)}"
    sink = IggySink(settings, "ways", "t")
    await sink.connect()
    await sink.send([OutgoingMessage(name.encode())])
    await sink.close()
    source = IggySource(settings, "ways", ["t"], consumer=ConsumerId(kind, name), until_end=True)
    await source.connect()
    batch = await next_batch(source)
    assert batch
    await source.ack([batch.last])
    await source.close()
    connection = Connection(settings)
    await connection.open()
    stored = await connection.stored(ConsumerId(kind, name), Partition("ways", "t", 0))
    await connection.close()
    return [batch.messages[-1].payload, name.encode()], batch.last.offset - (stored.stored if stored else -1)


WAYS: dict[str, Callable[[Ways], dict[str, Any]]] = {
    "tls": lambda w: {"address": w.server.tcp, "tls": True, "ca_file": w.ca, "domain": "localhost"},
    "tls by name": lambda w: {"address": f"localhost:{w.server.tcp.split(':')[1]}", "tls": True, "ca_file": w.ca},
    "websocket": lambda w: {"address": w.websocket, "transport": "websocket"},
    "quic": lambda w: {"address": w.quic, "transport": "quic"},
    "http": lambda w: {"address": (w.server.http or "")[7:], "transport": "http"},
    "token": lambda w: {"address": w.websocket, "transport": "websocket", "token": Secret(w.token), "username": None},
    "string, tls": lambda w: {
        "connection_string": Secret(
            f"iggy://iggy:iggy@localhost:{w.server.tcp.split(':')[1]}?tls=true&tls_domain=localhost&tls_ca_file={w.ca}"
        )
    },
    "string, websocket": lambda w: {"connection_string": Secret(f"iggy+ws://iggy:iggy@{w.websocket}")},
    "string, quic": lambda w: {"connection_string": Secret(f"iggy+quic://iggy:iggy@{w.quic}")},
    "string, http": lambda w: {"connection_string": Secret(f"iggy+http://iggy:iggy@{(w.server.http or '')[7:]}")},
    "string, token": lambda w: {"connection_string": Secret(f"iggy+ws://{w.token}@{w.websocket}")},
}


@pytest.mark.parametrize("way", WAYS)
def test_there_are_many_ways_to_connect(ways: Ways, way: str) -> None:
    settings = ways.server.settings(**WAYS[way](ways))

    (last, sent), behind = drive(way_through(settings, "single" if "http" in way else "group"))

    assert (last, behind) == (sent, 0)


@pytest.mark.parametrize(
    ("way", "more", "words"),
    [
        ("tls", {"domain": "other.example"}, "valid for the name"),
        ("tls", {"ca_file": None}, "certificate is trusted"),
        ("tls", {"tls": False}, "tls: true"),
        ("tls", {"ca_file": Path("nowhere.pem")}, "IFX761"),
        ("token", {"token": Secret("no-such-token-at-all")}, "IFX763"),
    ],
)
def test_a_closed_transport_says_why(ways: Ways, way: str, more: dict[str, Any], words: str) -> None:
    settings = ways.server.settings(**{**WAYS[way](ways), **more})

    with pytest.raises((NotConnected, Stopped)) as failed:
        drive(Connection(settings).open())

    text = f"{failed.value} {getattr(failed.value, 'code', '')}"
    assert words in text
    assert "no-such-token-at-all" not in text


def test_the_answer_to_a_cancelled_read_reaches_no_other_call(topic: Topic) -> None:
    """As a run does when it is stopped: storing the last offset must get its own answer."""
    topic.fill([b"%d" % number for number in range(3000)])

    async def main() -> None:
        source = topic.source(batch_size=1000)
        await source.connect()
        batch = await next_batch(source)
        assert batch
        for turn in range(5):
            task = asyncio.ensure_future(source.read())
            for _ in range(turn * 3):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await source.ack([Position(topic.place(), 100 * (turn + 1))])
        await source.close()

    drive(main())
    assert drive(topic.stored()) == 500


def test_a_missing_dead_letter_topic_is_reported_before_the_first_message(topic: Topic, pipeline: Path) -> None:
    topic.fill([b'{"n": 0}'])
    pipeline.write_text(pipeline.read_text().replace("topic: dead}", "topic: lost}"))

    checked, ran = (process(command, pipeline, env=ENV) for command in ("check", "run"))

    assert (checked.code, f"topic {topic.stream}/lost for dead letters not found" in checked.out) == (1, True)
    assert (ran.code, "IFX766" in ran.err, f"iggy topic create {topic.stream} lost" in ran.err) == (3, True, True)
    assert drive(topic.stored(name="env")) is None


@pytest.mark.parametrize(("stream", "name"), [("", "c"), ("x" * 300, "c"), (None, "g" * 300), (None, "")])
def test_a_name_that_nothing_can_have_stops(topic: Topic, stream: str | None, name: str) -> None:
    """The client raises some of these at once, and some by the awaitable that it returns."""
    source = IggySource(
        topic.settings(), topic.stream if stream is None else stream, ["t"], consumer=ConsumerId("group", name)
    )

    async def main() -> None:
        try:
            await source.connect()
        finally:
            await source.close()

    with pytest.raises(Stopped) as stopped:
        drive(main())
    assert (stopped.value.code, "1 to 255 bytes" in (stopped.value.hint or "")) == ("IFX766", True)


@pytest.mark.parametrize("kind", ["group", "single"])
def test_partitions_added_during_a_run_are_read_from_the_beginning(topic: Topic, kind: str) -> None:
    topic.fill([b"old"])

    async def main() -> list[tuple[int, bytes]]:
        time = [0.0]
        source = IggySource(
            topic.settings(),
            topic.stream,
            ["t"],
            consumer=ConsumerId(kind, "c"),  # type: ignore[arg-type]
            start=Start("last"),
            monotonic=lambda: time[0],
        )
        await source.connect()
        assert await source.read() is None
        status, _ = topic.server.rest("POST", f"/streams/{topic.stream}/topics/t/partitions", {"partitions_count": 1})
        assert status in (200, 201, 204)
        await topic.send([b"new"], 1)
        time[0] = 100.0
        batch = await next_batch(source)
        assert batch
        await source.ack([batch.last])
        await source.close()
        return [(message.partition, message.payload) for message in batch.messages]

    assert drive(main()) == [(1, b"new")]
