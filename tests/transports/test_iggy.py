"""The Iggy transport without an Iggy server: tables and pure parts, then the real SDK against a fake of the API."""

from __future__ import annotations

import asyncio
import random
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iggyflux.codes import CODES
from iggyflux.errors import EndOfInput, NotConnected, Stopped
from iggyflux.pipeline import Consumer, IggySettings, Secret, Start
from iggyflux.records import Batch, Message, OutgoingMessage, Partition, Position, Rendered
from iggyflux.runner import Route, Stop, run_routes
from iggyflux.runner.route import WriterPlan
from iggyflux.transports.iggy import wire
from iggyflux.transports.iggy.connection import Connection, ConsumerId
from iggyflux.transports.iggy.errors import TEXTS, CallFailed, Meaning, meaning_of, translated
from iggyflux.transports.iggy.keys import by_partition, partition_of, xxhash32
from iggyflux.transports.iggy.settings import settings_problems
from iggyflux.transports.iggy.source import IggySource
from iggyflux.transports.iggy.topics import IggyRange, IggySink, read_range
from iggyflux.transports.local.memory import CollectingDeadLetters, ImmediateClock, ScriptedSink
from iggyflux.transports.ranges import Bound
from tests.transports.contract import SourceContract, drive
from tests.transports.fake_iggy import FakeIggy

HERE = Partition("s", "t", 0)
ALONE = ConsumerId("single", "c")


@pytest.fixture
def fake() -> Iterator[FakeIggy]:
    with FakeIggy() as running:
        running.create("s", "t")
        yield running


def fill(fake: FakeIggy, payloads: Sequence[bytes], partition: int = 0) -> None:
    fake.fill("s", "t", [b64encode(payload).decode() for payload in payloads], partition)


@pytest.mark.parametrize(
    ("stream", "topic", "words"),
    [
        ("halle", "t", ("no stream halle", "`from.stream` in the mapping; existing: s")),
        ("s", "zug", ("no topic s/zug", "`from.topic` in the mapping; existing: s/t")),
        ("s", "tt", ("no topic s/tt", "did you mean s/t?")),
    ],
)
def test_a_missing_name_is_called_a_stream_or_a_topic(
    fake: FakeIggy, stream: str, topic: str, words: tuple[str, str]
) -> None:
    fill(fake, [b"{}"])
    reader = IggySource(fake.settings(), stream, [topic], consumer=ConsumerId("single", "c"))

    async def main() -> None:
        try:
            await reader.connect()
        finally:
            await reader.close()

    with pytest.raises(Stopped) as stopped:
        drive(main())

    assert words[0] in str(stopped.value)
    assert words[1] in (stopped.value.hint or "")


def source(fake: FakeIggy, **more: Any) -> IggySource:
    settings = fake.settings(**{key: more.pop(key) for key in ("batch_size", "timeout_seconds") if key in more})
    return IggySource(settings, "s", ["t"], consumer=ALONE, **more)


async def read_all(source: IggySource) -> list[Message]:
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


class TestContract(SourceContract):
    """Over HTTP a source fulfils the contract of every source."""

    @pytest.fixture(autouse=True)
    def _fake(self, fake: FakeIggy) -> None:
        self.fake = fake

    def fill(self, payloads: Sequence[bytes], partition: int = 0) -> None:
        fill(self.fake, payloads, partition)

    def source(self, *, until_end: bool = True, batch_size: int = 10) -> IggySource:
        return source(self.fake, until_end=until_end, batch_size=batch_size)


# Tables


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("Invalid credentials", Meaning.NOT_LET_IN),
        ("Unauthenticated", Meaning.NO_SESSION),
        ("Unauthorized", Meaning.NOT_ALLOWED),
        ("Disconnected", Meaning.AWAY),
        ("Cannot establish connection", Meaning.AWAY),
        ("Topic with ID: 0 for stream with ID: 0 was not found.", Meaning.MISSING),
        ("Resource with key:  was not found.", Meaning.NOT_OWNER),
        ('Resource with key: {"id":404,"code":"not_found"} was not found.', Meaning.MISSING),
        ("Consumer group member with client ID: 0 for group with ID: 0 was not found.", Meaning.NO_MEMBER),
        ("Consumer group member with client ID: 1 does not own partition: 2", Meaning.NO_MEMBER),
        ("Invalid offset: 0", Meaning.BAD_OFFSET),
        ("Stream with name:  already exists.", Meaning.EXISTS),
        ("Unsupported option key: ", Meaning.NO_SUCH_OPTION),
        ("Feature is unavailable", Meaning.OTHER_VERSION),
        ("Too big message payload", Meaning.BAD_MESSAGE),
        ("something that nobody has seen yet", Meaning.AWAY),
        ("", Meaning.AWAY),
    ],
)
def test_the_texts_of_errors_mean(text: str, meaning: Meaning) -> None:
    assert meaning_of(text) is meaning


def test_an_unknown_error_is_tried_again_and_shown_whole() -> None:
    error = translated("the moon is in the wrong house", "polling s/t/0")

    assert isinstance(error, NotConnected)
    assert str(error) == "polling s/t/0: the moon is in the wrong house"


def test_every_text_has_its_effect_and_every_code_is_registered() -> None:
    for text, meaning in TEXTS:
        error = translated(text, "doing")
        assert meaning_of(text) is meaning
        if isinstance(error, Stopped):
            assert error.code in CODES
            assert error.hint
        else:
            assert isinstance(error, CallFailed)
    assert isinstance(translated("Unauthenticated", "logging in", logging_in=True), Stopped)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", 0x02CC5D05),
        (b"a", 0x550D7456),
        (b"abc", 0x32D153FF),
        (b"Nobody inspects the spammish repetition", 0xE2293B2F),
    ],
)
def test_keys_are_hashed_as_published(data: bytes, expected: int) -> None:
    """The vectors of the specification's own tests and of xxhash's documentation."""
    assert xxhash32(data) == expected


@given(st.lists(st.tuples(st.none() | st.text(max_size=40), st.binary(max_size=3)), max_size=30), st.integers(1, 9))
def test_sorting_into_partitions_keeps_messages_and_their_order(
    given_messages: list[tuple[str | None, bytes]], partitions: int
) -> None:
    messages = [OutgoingMessage(payload, key) for key, payload in given_messages]

    parts = by_partition(messages, partitions, 5)

    assert sorted(map(id, messages)) == sorted(id(each) for part in parts.values() for each in part)
    for number, part in parts.items():
        assert part == [
            m for m in messages if number == (partition_of(m.key, partitions) if m.key is not None else 5 % partitions)
        ]


def test_the_requests_for_offsets_have_the_bytes_of_the_protocol() -> None:
    asked = wire.offset_request("group", "g", "st", "t", 7)
    stored = wire.store_request("one", "st", "t", 7, 258)

    assert asked == b"\x02\x02\x01g\x02\x02st\x02\x01t\x01\x07\0\0\0"
    assert stored == b"\x01\x02\x03one\x02\x02st\x02\x01t\x01\x07\0\0\0\x02\x01\0\0\0\0\0\0\x01"
    answer = b"\x07\0\0\0\x63\0\0\0\0\0\0\0\x14\0\0\0\0\0\0\0"
    assert wire.parse_offset(answer, 7) == wire.StoredOffset(last=99, stored=20)
    assert wire.parse_offset(b"", 7) is None
    for bad, partition in ((answer, 6), (answer[:-1], 7)):
        with pytest.raises(ValueError, match="an answer"):
            wire.parse_offset(bad, partition)
    assert (wire.is_known("0.9.3"), wire.is_known("0.10.0")) == (True, False)


@pytest.mark.parametrize(
    ("settings", "consumer", "words"),
    [
        ({}, Consumer(), "missing credentials"),
        ({"username": "u"}, Consumer(), "no `password`"),
        (
            {"transport": "http", "username": "u", "password": Secret("p")},
            Consumer(),
            "does not support consumer groups",
        ),
        ({"transport": "http", "token": Secret("t")}, Consumer("single"), "does not support personal access tokens"),
        ({"token": Secret("t"), "client_cert": "c"}, Consumer(), "client certificates"),
        ({"token": Secret("t")}, Consumer("group", "x" * 256), "255 bytes"),
    ],
)
def test_settings_that_cannot_work_are_reported_before_connecting(
    settings: dict[str, Any], consumer: Consumer, words: str
) -> None:
    (problem,) = settings_problems(IggySettings(**settings), consumer)

    assert problem.code == "IFX760"
    assert words in problem.message
    assert problem.hint


def test_sound_settings_have_no_problems() -> None:
    for settings in ({"token": Secret("t")}, {"username": "u", "password": Secret("p")}):
        assert settings_problems(IggySettings(**settings), Consumer()) == []  # type: ignore[arg-type]


# Faults


@pytest.mark.parametrize("fault", ["error", "drop", "logged_out", "lost_answer"])
@pytest.mark.parametrize("call", ["connect", "read", "ack"])
def test_a_fault_is_not_connected_and_everything_is_read_again(fake: FakeIggy, fault: Any, call: str) -> None:
    fill(fake, [b"%d" % number for number in range(20)])

    async def main() -> list[Message]:
        flawed = source(fake, batch_size=10, until_end=True)
        if call != "connect":
            await flawed.connect()
        if call == "ack":
            assert await flawed.read()
        fake.faults = [fault]
        with pytest.raises(NotConnected):
            await (flawed.ack([Position(HERE, 9)]) if call == "ack" else getattr(flawed, call)())
        fake.topics["s", "t"][0].offsets.clear()  # stored by a request whose answer was lost
        await flawed.connect()
        found: list[Message] = []
        while len(found) < 20:
            if batch := await flawed.read():
                found += batch.messages
        await flawed.close()
        return found

    assert [message.offset for message in drive(main())] == list(range(20))


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
INTERIM = {
    "100": b"HTTP/1.1 100 Continue\r\n\r\n",
    "102": b"HTTP/1.1 102 Processing\r\n\r\n",
    "103": b"HTTP/1.1 103 Early Hints\r\nLink: </x>; rel=preload\r\n\r\n",
}


def sized(body: bytes, extra: int = 0) -> bytes:
    return HEAD + b"Content-Length: %d\r\nConnection: close\r\n\r\n" % (len(body) + extra) + body


SOUND: dict[str, Callable[[bytes], bytes]] = {
    "without a length": lambda body: HEAD + b"Connection: close\r\n\r\n" + body,
    "in chunks": lambda body: (
        HEAD + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    ),
    **{f"after {name}": lambda body, head=head: head + sized(body) for name, head in INTERIM.items()},  # type: ignore[misc]
    "after many": lambda body: b"".join(INTERIM.values()) * 3 + sized(body),
}
BROKEN: dict[str, Callable[[bytes], bytes]] = {
    "cut, with a length": lambda body: sized(body[: len(body) // 2], len(body) - len(body) // 2),
    "cut, without a length": lambda body: HEAD + b"Connection: close\r\n\r\n" + body[: len(body) // 2],
    "cut in a chunk": lambda body: (
        HEAD + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b" % (len(body) + 9, body)
    ),
    "cut in its head": lambda _: HEAD,
    "deep lists": lambda _: sized(b"[" * 100_000 + b"]" * 100_000),
    "deep objects": lambda _: sized(b'{"x":' * 100_000 + b"1" + b"}" * 100_000),
    "deep, without an end": lambda _: sized(b'{"messages":' + b"[" * 100_000),
    "not JSON": lambda _: sized(b"<html>\x1b[2J" * 100),
    "empty": lambda _: sized(b""),
    "only 103": lambda _: INTERIM["103"],
}
CALLS = ["/users/login", "/streams/s", "/streams/s/topics/t", "/streams/s/topics/t/messages"]


@pytest.mark.parametrize("kind", SOUND)
def test_answers_of_every_form_of_http_are_read(fake: FakeIggy, kind: str) -> None:
    """Interim answers are skipped, and a body ends with its connection where it has no length."""
    fill(fake, [b'{"a":1}', b'{"a":2}'])
    fake.reply = lambda body, _: SOUND[kind](body)

    assert [message.payload for message in drive(read_all(source(fake, until_end=True)))] == [b'{"a":1}', b'{"a":2}']


@pytest.mark.parametrize("at", CALLS)
@pytest.mark.parametrize("kind", BROKEN)
def test_an_answer_that_is_cut_off_or_nested_deeply_is_reported(fake: FakeIggy, kind: str, at: str) -> None:
    """Whatever the call, and in the time of one call; nothing is taken for read."""
    fill(fake, [b'{"a":1}'])
    fake.reply = lambda body, path: BROKEN[kind](body) if path == at else sized(body)

    with pytest.raises((NotConnected, Stopped)) as caught:
        drive(read_all(source(fake, timeout_seconds=2.0, until_end=True)))

    assert len(str(caught.value)) < 2000
    assert not any(partition.offsets for partition in fake.topics["s", "t"])


# The SDK takes an empty answer with 200 for an acceptance.
@pytest.mark.parametrize("kind", [kind for kind in BROKEN if kind != "empty"])
def test_an_answer_to_messages_that_cannot_be_read_is_reported(fake: FakeIggy, kind: str) -> None:
    """The sender repeats them: the server may have them or not."""
    fake.reply = lambda body, path: BROKEN[kind](body) if path.endswith("/messages") else sized(body)
    sink = IggySink(fake.settings(timeout_seconds=2.0), "s", "t")

    async def main() -> None:
        try:
            await sink.connect()
            await sink.send([OutgoingMessage(b"{}")])
        finally:
            await sink.close()

    with pytest.raises(NotConnected):
        drive(main())


def test_a_call_without_an_answer_in_time_is_not_connected() -> None:
    with FakeIggy() as fake:
        fake.create("s", "t")
        fill(fake, [b"x"])

        async def main() -> None:
            slow = source(fake, timeout_seconds=0.2)
            await slow.connect()
            fake.faults = ["slow"]
            with pytest.raises(NotConnected, match=r"no answer in 0\.2 s"):
                await slow.read()
            fake.stopping.set()
            await slow.close()

        drive(main())


@pytest.mark.parametrize("turns", range(4))
def test_a_cancellation_counts_although_an_answer_arrives(turns: int) -> None:
    """At any of the turns that an answer takes from the server to the caller."""

    class Client:
        async def connect(self) -> None:
            """Connect at once."""

        async def login_user(self, _name: str, _password: str) -> None:
            """Let everyone in."""

        async def logout_user(self) -> None:
            """Leave at once."""

        def get_stream(self, _stream: str) -> asyncio.Future[None]:
            return answer

    async def main() -> None:
        nonlocal answer
        answer = asyncio.get_running_loop().create_future()
        connection = Connection(IggySettings(), client=lambda _settings: Client())
        await connection.open()
        calling = asyncio.create_task(connection.topics("s"))
        await asyncio.sleep(0.01)
        answer.set_result(None)
        for _ in range(turns):
            await asyncio.sleep(0)
        if not calling.done():
            calling.cancel()
            with pytest.raises(asyncio.CancelledError):
                await calling
        await connection.close()

    answer: asyncio.Future[None]
    drive(main())


def test_who_is_not_let_in_stops(fake: FakeIggy) -> None:
    async def main() -> None:
        await Connection(fake.settings(password=Secret("hidden-word"))).open()

    with pytest.raises(Stopped) as stopped:
        drive(main())
    assert stopped.value.code == "IFX763"
    assert "hidden-word" not in str(stopped.value)


def test_a_server_that_lost_its_log_loses_no_new_message(fake: FakeIggy) -> None:
    fill(fake, [b"old"] * 20)

    async def settle_all() -> None:
        reading = source(fake)
        await reading.connect()
        batch = await reading.read()
        assert batch
        await reading.ack([batch.last])
        await reading.close()

    drive(settle_all())
    fake.lose_log("s", "t")
    fill(fake, [b"new-0", b"new-1"])

    found = drive(read_all(source(fake, until_end=True)))

    assert [message.payload for message in found] == [b"new-0", b"new-1"]


def test_messages_removed_by_retention_are_skipped_and_reported(
    fake: FakeIggy, caplog: pytest.LogCaptureFixture
) -> None:
    fill(fake, [b"%d" % number for number in range(20)])

    async def main() -> Batch | None:
        reading = source(fake, batch_size=5)
        await reading.connect()
        await reading.read()
        fake.expire("s", "t", 12)
        batch = await reading.read()
        await reading.close()
        return batch

    batch = drive(main())
    assert batch
    assert [message.offset for message in batch.messages] == [12, 13, 14, 15, 16]
    assert "iggy.messages_gone partition=s/t/0 from=5 to=11" in caplog.text


def test_a_poll_that_fails_is_tried_with_less(fake: FakeIggy) -> None:
    fill(fake, [b"x"] * 40)

    async def main() -> list[int]:
        reading, sizes = source(fake, batch_size=16), []
        for fault in (["error"], ["error"], []):
            await reading.connect()
            fake.faults = [*fault]  # type: ignore[list-item]
            try:
                while batch := await reading.read():
                    sizes.append(len(batch.messages))
            except NotConnected:
                fake.faults = []
        await reading.close()
        return sizes

    sizes = drive(main())
    assert sizes[0] < 16
    assert sum(sizes) == 40


def test_last_does_not_move_when_the_source_reconnects(fake: FakeIggy) -> None:
    """Messages that came while a writer with `start: last` was disconnected for a moment belong to it."""
    fill(fake, [b"before"] * 3)

    async def main() -> list[bytes]:
        reading = source(fake, start=Start("last"))
        await reading.connect()
        assert await reading.read() is None
        fill(fake, [b"after"])
        await reading.connect()
        batch = await reading.read()
        await reading.close()
        return [message.payload for message in batch.messages] if batch else []

    assert drive(main()) == [b"after"]


class OnePlan(WriterPlan):
    """A line for each message."""

    def render(self, messages: Sequence[Message]) -> Rendered:
        lines = [f"m n={message.payload.decode()} {message.offset}" for message in messages]
        return Rendered(lines, range(len(lines)))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.slow
def test_random_faults_lose_nothing_on_the_way(seed: int) -> None:
    """Every message is delivered, and the stored offsets are the ends, whatever happens to the requests."""
    chance = random.Random(seed)
    kinds: list[Any] = ["error", "drop", "logged_out", "lost_answer", None, None, None, None]
    with FakeIggy() as fake:
        fake.create("s", "t", 2)
        for partition in range(2):
            fill(fake, [b"%d" % (partition * 1000 + number) for number in range(200)], partition)
        fake.faults = [chance.choice(kinds) for _ in range(60)]
        sink = ScriptedSink()
        reading = source(fake, batch_size=chance.randint(1, 60), until_end=True)
        route = Route(name="r", source=reading, plan=OnePlan(), sink=sink, dead_letters=CollectingDeadLetters())

        summary = drive(run_routes([route], stop=Stop(), clock=ImmediateClock(), tick_seconds=None))

        assert summary.errors == ()
        delivered = {line.split()[1] for line in sink.stored}
        assert delivered == {f"n={partition * 1000 + number}" for partition in range(2) for number in range(200)}
        assert [partition.offsets["c"] for partition in fake.topics["s", "t"]] == [199, 199]


# Sending and looking


def test_what_is_sent_over_http_comes_back_with_headers_and_ids(fake: FakeIggy) -> None:
    async def main() -> list[Message]:
        sink = IggySink(fake.settings(), "s", "t")
        await sink.connect()
        await sink.send([OutgoingMessage(b"a", headers={"k": "v", "n": 7, "f": 1.0, "yes": True}, id=5)])
        await sink.close()
        return await read_all(source(fake, until_end=True))

    (message,) = drive(main())
    assert (message.payload, message.id, dict(message.headers)) == (b"a", 5, {"k": "v", "n": 7, "f": 1.0, "yes": True})


def test_of_an_id_of_a_reader_64_bits_are_sent_over_http(fake: FakeIggy) -> None:
    """The SDK panics at longer ones, and ids of rows have 128 bits."""

    async def main() -> list[Message]:
        sink = IggySink(fake.settings(), "s", "t")
        await sink.connect()
        await sink.send([OutgoingMessage(b"a", id=(3 << 64) + 5), OutgoingMessage(b"b", id=2**64 - 1)])
        await sink.close()
        return await read_all(source(fake, until_end=True))

    assert [message.id for message in drive(main())] == [5, 2**64 - 1]


def test_a_topic_that_the_server_rejects_is_reported_with_its_words(fake: FakeIggy) -> None:
    async def connect() -> None:
        sink = IggySink(fake.settings(create=True), "s", "new", partitions=3)
        await sink.connect()
        await sink.close()

    fake.knows_options = False
    with pytest.raises(Stopped, match="Unsupported option key: durability") as stopped:
        drive(connect())
    assert (stopped.value.code, "iggy topic create s new 3 none" in (stopped.value.hint or "")) == ("IFX767", True)
    fake.knows_options = True
    drive(connect())
    assert len(fake.topics["s", "new"]) == 3


@pytest.mark.parametrize(
    ("since", "until", "expected"),
    [
        (None, None, range(30)),
        (Bound("offset", 12), None, range(12, 30)),
        (None, Bound("offset", 12), range(12)),
        (Bound("offset", 5), Bound("offset", 6), range(5, 6)),
        (Bound("offset", 6), Bound("offset", 6), range(0)),
        (Bound("offset", 99), None, range(0)),
        (Bound("timestamp", 1_700_000_000_000_011), Bound("timestamp", 1_700_000_000_000_021), range(10, 20)),
    ],
    ids=str,
)
def test_a_range_has_the_messages_between_its_bounds(
    fake: FakeIggy, since: Bound | None, until: Bound | None, expected: range
) -> None:
    fill(fake, [b"x"] * 30)

    async def main() -> list[int]:
        wanted = IggyRange(fake.settings(batch_size=7), [("s", "t")], since=since, until=until)
        return [message.offset async for message in read_range(wanted)]

    assert drive(main()) == list(expected)
    assert fake.topics["s", "t"][0].offsets == {}


def test_cancelling_a_read_does_not_cancel_the_request(fake: FakeIggy) -> None:
    """An abandoned answer would be taken for that of the next request."""
    fill(fake, [b"x"] * 3)

    async def main() -> list[int]:
        reading = source(fake, until_end=True)
        await reading.connect()
        task = asyncio.ensure_future(reading.read())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        found: list[int] = []
        await reading.connect()
        if batch := await reading.read():
            found += (message.offset for message in batch.messages)
        await reading.close()
        return found

    assert drive(main()) == [0, 1, 2]
