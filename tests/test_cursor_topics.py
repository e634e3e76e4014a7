"""Cursors in a topic: the next run finds what was published; damage, another owner and loss are reported.

Against an Iggy in memory (over HTTP), and a real one (over TCP) if there is one.
"""

from __future__ import annotations

import asyncio
import logging
import random
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from iggy_server import IggyServer, find_server, start_server
from required_servers import not_found
from shell import iggyflux
from test_cursors import QUERY, read, row, select
from test_reader_route import BASE, Point, S, Store, World, expected, points
from transports.fake_iggy import FakeIggy

from iggyflux.cursors import CursorStore, StoredCursor
from iggyflux.cursors.topics import MOST_BYTES, TopicState
from iggyflux.delivery.windows import ReadPosition
from iggyflux.errors import NotConnected, Stopped
from iggyflux.pipeline import IggySettings, TopicAddress
from iggyflux.records import OutgoingMessage
from iggyflux.sim import SimServer
from iggyflux.transports.iggy.connection import Connection

Topics = Callable[..., "Topic"]


class Topic:
    """A topic on a server, and the stores that were made on it."""

    def __init__(self, settings: IggySettings, stream: str) -> None:
        self.settings = settings
        self.address = TopicAddress(stream, "cursors")
        self.made: list[CursorStore] = []

    def store(self, name: str = "r", query: dict[str, Any] | None = None, **more: Any) -> CursorStore:
        self.made.append(CursorStore(TopicState(self.settings, self.address, name, **more), name, query or QUERY))
        return self.made[-1]

    def opened(self, name: str = "r", **more: Any) -> tuple[CursorStore, ReadPosition | None]:
        store = self.store(name, **more)
        return store, store.open()

    def send(self, payloads: list[bytes], **headers: str) -> None:
        async def main() -> None:
            connection = Connection(self.settings)
            await connection.open()
            messages = [
                OutgoingMessage(each, headers={k.replace("_", "."): v for k, v in headers.items()}) for each in payloads
            ]
            await connection.send(self.address.stream, self.address.topic, 0, messages)
            await connection.close()

        asyncio.run(main())

    def close(self) -> None:
        for store in self.made:
            store.close()


@pytest.fixture
def fake() -> Iterator[FakeIggy]:
    with FakeIggy() as running:
        yield running


@pytest.fixture
def topics() -> Iterator[Topics]:
    """Makes topics of an Iggy in memory: an existing one, or with `create` a missing one."""
    made: list[Topic] = []

    def make(fake: FakeIggy, create: bool | None = False) -> Topic:
        if create is False:
            fake.create("s", "cursors")
        made.append(Topic(fake.settings(create=bool(create)), "s"))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[IggyServer | str]:
    found = find_server(tmp_path_factory.mktemp("iggy"))
    yield found
    if isinstance(found, IggyServer):
        found.close()


@pytest.fixture(params=["fake", "real"])
def topic(request: pytest.FixtureRequest) -> Iterator[Topic]:
    if request.param == "fake":
        fake: FakeIggy = request.getfixturevalue("fake")
        made = Topic(fake.settings(), "s")
        fake.create("s", "cursors", 2)
    else:
        server = request.getfixturevalue("real")
        if isinstance(server, str):
            not_found("iggy", server)
        made = Topic(server.settings(), server.unique("cursors"))
        server.create_topic(made.address.stream, "cursors")
    yield made
    made.close()


def commit(store: CursorStore, time: int) -> None:
    store.commit(ReadPosition(time, time))


def stopped(work: Callable[[], object]) -> Stopped:
    with pytest.raises(Stopped) as found:
        work()
    return found.value


# --- what is kept ---


def test_the_next_run_continues_and_recognizes_seen_rows(topic: Topic) -> None:
    first, position = topic.opened()
    rows = [row(time) for time in range(100, 120)]
    assert position is None
    assert len(select(first, read(100, 120, 0), rows, ReadPosition(100, 120))) == 20
    first.close()

    second, position = topic.opened()
    assert position == ReadPosition(100, 120)
    assert select(second, read(100, 121, 120), [*rows, row(120)], ReadPosition(101, 121)) == [(20, "")]
    third, position = topic.opened()
    assert position == ReadPosition(101, 121)
    assert select(third, read(101, 121, 121), [*rows[1:], row(120)]) == []


def test_what_was_not_confirmed_is_not_reported_as_committed(fake: FakeIggy, topics: Topics) -> None:
    topic = topics(fake)
    store, _ = topic.opened()
    commit(store, 100)
    fake.faults = ["error"] * 5
    with pytest.raises(NotConnected):
        commit(store, 200)
    fake.faults = []

    assert topic.opened()[1] == ReadPosition(100, 100)


def test_a_cursor_in_a_topic_leaves_no_files(topic: Topic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    store, _ = topic.opened()
    select(store, read(100, 120, 0), [row(time) for time in range(100, 120)], ReadPosition(100, 120))
    found = list(tmp_path.iterdir())
    store.close()

    assert found == list(tmp_path.iterdir()) == []


def test_readers_share_a_topic_and_each_finds_its_own_newest_message(topic: Topic) -> None:
    stores = {name: topic.opened(name)[0] for name in ("a", "b", "c")}
    for time in range(1, 30):
        for name, store in stores.items():
            if name != "a" or time == 1:
                commit(store, time)
    topic.send([b"somebody else's"] * 1500)

    assert {name: topic.opened(name)[1] for name in (*stores, "d")} == {
        "a": ReadPosition(1, 1),
        "b": ReadPosition(29, 29),
        "c": ReadPosition(29, 29),
        "d": None,
    }


def test_a_reader_that_is_too_far_back_is_not_guessed_to_be_new(topic: Topic) -> None:
    commit(topic.opened()[0], 1)
    topic.send([b"another's"] * 50)

    assert topic.opened(most_back=51)[1] == ReadPosition(1, 1)
    error = stopped(topic.store(most_back=50).open)
    assert (error.code, "none of the newest 50 messages" in error.reason) == ("IFX701", True)


def test_a_cursor_is_shown_and_replaced_and_forgotten(topic: Topic) -> None:
    store = topic.store()
    assert store.read() is None
    store.take()
    store.replace(StoredCursor(QUERY, ReadPosition(5, 5)))
    assert store.read() == StoredCursor(QUERY, ReadPosition(5, 5))
    again, position = topic.opened()
    assert position == ReadPosition(5, 5)
    store.replace(None)

    assert store.read() is None
    assert topic.opened()[1] is None
    assert stopped(lambda: commit(again, 6)).code == "IFX702"


# --- bounds ---


def digests(count: int) -> Iterator[bytes]:
    chance = random.Random(1)
    return (chance.randbytes(16) for _ in range(count))


def remember(store: CursorStore, count: int) -> None:
    """Commit `count` digests."""
    deduplicator = store.deduplicator(read(0, 100, 0), "time")
    rows = [row(1)] * 10_000
    made = digests(count)
    for _ in range(count // 10_000):
        deduplicator.select(rows, [next(made) for _ in rows])
    try:
        store.commit(ReadPosition(0, 100), deduplicator)
    finally:
        deduplicator.close()


def test_large_cursors_come_whole_and_larger_ones_stop_with_what_to_do(topic: Topic) -> None:
    most = 80_000 if topic.settings.transport == "http" else 490_000
    store, _ = topic.opened()
    remember(store, most)
    again, position = topic.opened()
    assert position == ReadPosition(0, 100)
    (each,) = again.slices(0, 100)
    assert hash(tuple(again.entries(each))) == hash(tuple(digests(most)))

    error = stopped(lambda: remember(again, most + 20_000))
    assert (error.code, "overlap" in (error.hint or "")) == ("IFX643", True)
    assert topic.settings.transport == "http" or f"{MOST_BYTES:,}" in error.reason


def test_a_name_too_long_for_a_header_is_rejected_at_once(topic: Topic) -> None:
    assert stopped(topic.store("n" * 256).open).code == "IFX643"


# --- what is wrong ---


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data[:-20],
        lambda data: data.replace(b"\xa4done\x64", b"\xa4done\x65"),
        lambda data: data[:-100] + bytes([data[-100] ^ 1]) + data[-99:],
        lambda data: data.replace(b"\xa7version\x02", b"\xa7version\x03"),
        lambda data: data.replace(b"\xa7version\x02", b"\xa7version\x01"),
        lambda _: b"nonsense",
    ],
    ids=["cut", "changed", "digests", "newer", "older", "other"],
)
def test_a_damaged_message_stops_and_can_be_replaced(
    fake: FakeIggy, topics: Topics, spoil: Callable[[bytes], bytes]
) -> None:
    from base64 import b64decode, b64encode

    topic = topics(fake)
    written, _ = topic.opened()
    remember(written, 10_000)
    (message,) = fake.topics["s", "cursors"][0].messages
    data = b64decode(message["payload"])
    assert spoil(data) != data
    message["payload"] = b64encode(spoil(data)).decode()

    error = stopped(topic.store().open)
    assert (error.code, "'r' in s/cursors" in error.reason) == ("IFX701", True), error
    for version in (1, 3):
        if b"\xa7version" + bytes([version]) in spoil(data):
            assert f"it has format {version}; this release reads format 2" in error.reason
    store = topic.store()
    assert stopped(store.read).code == "IFX701"
    store.take()
    store.replace(StoredCursor(QUERY, ReadPosition(7, 7)))
    assert topic.opened()[1] == ReadPosition(7, 7)


def test_a_cursor_of_another_query_stops_and_names_its_place(topic: Topic) -> None:
    commit(topic.opened()[0], 1)
    error = stopped(topic.store(query={"measurement": "other", "where": {}}).open)

    assert error.code == "IFX640"
    assert f"{topic.address.stream}/cursors" in error.reason


# --- owners ---


def test_of_two_runs_the_one_that_published_last_goes_on(topic: Topic) -> None:
    first, _ = topic.opened()
    commit(first, 1)
    second, _ = topic.opened()
    commit(second, 2)

    error = stopped(lambda: commit(first, 3))
    assert error.code == "IFX702"
    assert "another process reads as 'r'" in error.reason
    assert "process" in error.reason
    commit(second, 4)
    assert topic.opened()[1] == ReadPosition(4, 4)


def test_a_run_that_starts_while_another_publishes_stops(topic: Topic) -> None:
    first, _ = topic.opened()
    second, _ = topic.opened()
    commit(first, 1)

    assert stopped(lambda: commit(second, 1)).code == "IFX702"
    commit(first, 2)


def test_runs_that_publish_at_once_do_not_both_stop(fake: FakeIggy, topics: Topics) -> None:
    """Neither saw the other: the order in the topic decides which goes on."""
    topic = topics(fake)
    first, _ = topic.opened()
    second, _ = topic.opened()
    commit(first, 1)
    place = fake.topics["s", "cursors"][0]
    hidden = place.messages.pop()
    commit(second, 2)
    place.messages.insert(0, hidden)
    for offset, message in enumerate(place.messages):
        message["header"]["offset"] = offset

    assert stopped(lambda: commit(first, 3)).code == "IFX702"
    commit(second, 4)


# --- servers that are away, forget, remove ---


@pytest.mark.parametrize("fault", ["error", "drop", "lost_answer", "logged_out"])
@pytest.mark.parametrize("after", range(2))
def test_what_was_not_confirmed_is_published_again_and_is_there_once(
    fake: FakeIggy, topics: Topics, fault: Any, after: int
) -> None:
    topic = topics(fake)
    store, _ = topic.opened()
    commit(store, 1)
    fake.faults = [None] * after + [fault]
    for _ in range(3):
        try:
            commit(store, 2)
        except NotConnected:
            continue
        break
    commit(store, 3)

    assert [message["payload"] for message in fake.topics["s", "cursors"][0].messages] != []
    assert len(fake.topics["s", "cursors"][0].messages) == 3
    assert topic.opened()[1] == ReadPosition(3, 3)


def test_after_retention_removed_everything_the_reader_begins_again(
    fake: FakeIggy, topics: Topics, caplog: pytest.LogCaptureFixture
) -> None:
    topic = topics(fake)
    store, _ = topic.opened()
    for time in range(1, 6):
        commit(store, time)
    fake.expire("s", "cursors", 4)
    with caplog.at_level(logging.WARNING):
        assert topic.opened()[1] == ReadPosition(5, 5)
        assert caplog.messages == []
        fake.expire("s", "cursors", 1)
        again, position = topic.opened()

    assert position is None
    assert "reader.no_cursor" in caplog.text
    commit(again, 6)
    assert topic.opened()[1] == ReadPosition(6, 6)


def test_a_topic_that_is_emptied_under_a_run_hides_no_other_run(fake: FakeIggy, topics: Topics) -> None:
    """Offsets begin again at 0, and later messages are still read."""
    topic = topics(fake)
    store, _ = topic.opened()
    for time in range(1, 50):
        commit(store, time)
    fake.create("s", "cursors")
    commit(store, 50)
    commit(store, 51)
    commit(topic.opened()[0], 52)

    assert stopped(lambda: commit(store, 53)).code == "IFX702"


def test_a_missing_topic_is_reported_or_created(fake: FakeIggy, topics: Topics) -> None:
    error = stopped(topics(fake, create=None).store().open)
    assert (error.code, "iggy topic create s cursors 1 none" in (error.hint or "")) == ("IFX766", True)
    assert stopped(topics(fake, create=None).store().read).code == "IFX766"

    topic = topics(fake, create=True)
    assert topic.store().read() is None
    assert fake.topics == {}
    store = topic.store()
    store.take()
    store.replace(StoredCursor(QUERY, ReadPosition(1, 1)))
    assert topic.opened()[1] == ReadPosition(1, 1)


def test_a_server_that_is_killed_may_lose_the_newest_and_the_run_goes_on(tmp_path: Path) -> None:
    """An older cursor remains, or none: rows are sent again.  The run that is active publishes as before."""
    server = _own_server(tmp_path)
    stream = server.unique("lost")
    server.create_topic(stream, "cursors")
    topic = Topic(server.settings(), stream)
    try:
        store, _ = topic.opened()
        for time in range(1, 50):
            commit(store, time)
        server.kill()
        server.start()
        _, position = topic.opened()
        assert position is None or position.done <= 49
        for _ in range(5):
            try:
                commit(store, 50)
            except NotConnected:
                continue
            break
        commit(store, 51)
        assert topic.opened()[1] == ReadPosition(51, 51)
    finally:
        topic.close()
        server.close()


def _own_server(folder: Path) -> IggyServer:
    import shutil

    if shutil.which("iggy-server") is None:
        not_found("iggy", "Iggy: no iggy-server on PATH that may be killed")
    return start_server(folder)


# --- the loop ---


class TopicWorld(World):
    """A reader whose cursor is in a topic; nothing of its folder survives a run."""

    def __init__(self, fake: FakeIggy, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.topic = Topic(fake.settings(), "s")

    def route(self) -> Any:
        import dataclasses

        store = Store(TopicState(self.topic.settings, self.topic.address, "back"), "back", self.query)
        store.faults = self.faults
        return dataclasses.replace(super().route(), store=store)


def test_a_reader_goes_on_after_restarts_without_a_disk(fake: FakeIggy, tmp_path: Path) -> None:
    fake.create("s", "cursors")
    late = Point(BASE - 50 * S, "late", "x", arrives=BASE + 15 * S)
    world = TopicWorld(fake, tmp_path, [*points(50), late])
    for _ in range(3):
        world.run(12)

    assert sorted(world.sink.values, key=str) == expected(world.database.points)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_reader_waits_for_the_server_of_its_cursor_and_loses_nothing(fake: FakeIggy, tmp_path: Path) -> None:
    fake.create("s", "cursors")
    chance = random.Random(3)
    late = [Point(BASE - 40 * S, number, f"l{number}", arrives=BASE + number * 4 * S) for number in range(10)]
    fake.faults = [chance.choice([None, None, "error", "drop", "lost_answer", "logged_out"]) for _ in range(25)]
    world = TopicWorld(fake, tmp_path, [*points(50), *late]).run(600)

    assert sorted(world.sink.values, key=str) == expected(world.database.points)
    assert world.status.retries > 3
    assert world.status.state == "done"


def test_a_reader_stopped_while_its_server_is_unreachable_ends(fake: FakeIggy, tmp_path: Path) -> None:
    fake.create("s", "cursors")
    world = TopicWorld(fake, tmp_path, points(50))
    fake.faults = ["error"] * 5_000
    world.run(30)
    assert world.status.state == "done"
    fake.faults = [None] * 5 + ["error"] * 5_000
    world.run(30)

    assert world.status.state == "done"
    fake.faults = []
    world.run(30)
    assert set(world.sink.values) == set(expected(world.database.points))


@pytest.mark.parametrize("moment", ["before store", "after store"])
@pytest.mark.parametrize("number", range(1, 5))
def test_a_crash_around_storing_repeats_messages_and_loses_none(
    fake: FakeIggy, tmp_path: Path, moment: str, number: int
) -> None:
    from test_reader_route import Crash, Faults

    fake.create("s", "cursors")
    world = TopicWorld(fake, tmp_path, points(50), faults=Faults((moment, number, Crash())), window=20 * S)
    assert world.run_through_crashes(60) == 1

    assert set(world.sink.values) == set(expected(world.database.points))
    assert len({message.id for message in world.sink.messages}) == 50
    if moment == "after store":
        assert len(world.sink.messages) == 50


# --- the command line ---

PIPELINE = """\
iggyflux: 1
iggy: {{address: "{address}", transport: http, username: iggy, password: "${{PASSWORD}}"}}
influxdb: {{url: "{url}", database: test, poll_interval: 100ms}}
state: {{stream: s, topic: cursors}}
to: {{file: out.ndjson}}
run: [{{mapping: back.yaml}}]
"""
MAPPING = """\
iggyflux: 1
kind: reader
name: back
from: {measurement: env}
cursor: {start: 2026-01-01T00:00:00Z, overlap: 20s}
messages: {payload: "{t: time, v: value}"}
to: {stream: s, topic: back}
"""


def test_the_commands_look_at_and_move_a_cursor_in_a_topic(
    fake: FakeIggy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PASSWORD", "let-me-in")
    with SimServer(3) as sim:
        sim.store.create_database("test")
        _write(sim)
        (tmp_path / "back.yaml").write_text(MAPPING)
        (tmp_path / "p.yaml").write_text(PIPELINE.format(address=fake.settings().address, url=sim.url))
        missing = iggyflux("check", "p.yaml")
        fake.create("s", "cursors")
        checked = iggyflux("check", "p.yaml")
        nothing = iggyflux("cursor", "show", "p.yaml")
        runs = [iggyflux("run", "p.yaml", "--until-end") for _ in range(2)]
        shown = iggyflux("cursor", "show", "p.yaml")
        moved = iggyflux("cursor", "set", "p.yaml", "--mapping", "back", "--at", "2026-01-01T00:00:05Z", "--yes")
        runs.append(iggyflux("run", "p.yaml", "--until-end"))
        reset = [iggyflux("cursor", "reset", "p.yaml", "--mapping", "back", "--yes") for _ in range(2)]
        runs.append(iggyflux("run", "p.yaml", "--until-end"))

    assert (missing.code, "topic s/cursors for positions not found" in missing.out) == (1, True), missing.out
    assert (checked.code, "topic s/cursors for positions exists" in checked.out) == (0, True), checked.out
    assert "nothing is stored" in nothing.out
    assert [run.code for run in runs] == [0] * 4, runs
    for run, count in zip(runs, ("10 rows", "0 rows", "5 rows", "10 rows"), strict=True):
        assert count in run.err
    assert (shown.code, "read to" in shown.out) == (0, True)
    assert "read to     2026-01-01T00:00:05Z" in moved.out
    assert ["deleted" in reset[0].err, "nothing is stored" in reset[1].err] == [True, True]
    assert not (tmp_path / ".iggyflux").exists()


def test_what_needs_a_directory_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file keeps its position in a directory; a reader needs a login to Iggy, wherever its messages go."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PASSWORD", "let-me-in")
    text = PIPELINE.format(address="127.0.0.1:1", url="http://127.0.0.1:1")
    (tmp_path / "back.yaml").write_text(MAPPING)
    (tmp_path / "w.yaml").write_text(
        "iggyflux: 1\nkind: writer\nfrom: {stream: s, topic: t}\npoints: {measurement: {const: m}, fields: [v]}\n"
    )
    writer = "run: [{mapping: w.yaml, from: file:in.ndjson, to: stdout}]"
    (tmp_path / "p.yaml").write_text(text.replace("run: [{mapping: back.yaml}]", writer))
    of_file = iggyflux("validate", "p.yaml")
    (tmp_path / "p.yaml").write_text(text.replace('username: iggy, password: "${PASSWORD}"', "create: true"))
    of_reader = iggyflux("validate", "p.yaml")
    (tmp_path / "p.yaml").write_text(text)

    assert (of_file.code, "cannot be stored in a topic" in of_file.err + of_file.out) == (1, True)
    assert (of_reader.code, "missing credentials for Iggy" in of_reader.err + of_reader.out) == (1, True)
    assert iggyflux("validate", "p.yaml").code == 0


def _write(sim: SimServer) -> None:
    import urllib.request

    body = "\n".join(f"env value={number} {(1_767_225_600 + number) * 10**9}" for number in range(10)).encode()
    urllib.request.urlopen(f"{sim.url}/api/v3/write_lp?db=test", data=body).close()
