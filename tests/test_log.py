"""`log:DIR`: the contract of sources, then what only a log on disk has: damage, locks, formats."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import sqlite3
import tempfile
import zlib
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from iggyflux.errors import EndOfInput, Stopped
from iggyflux.pipeline import Start
from iggyflux.records import Message, OutgoingMessage, Partition, Position, Scalar
from iggyflux.transports.local import log_store
from iggyflux.transports.local.log import Consumption, Log, LogSink, LogSource
from iggyflux.transports.local.log_batches import Coordinates, encode_batch
from tests.transports.contract import SourceContract, drive

HERE = Partition("s", "t", 0)


def messages(count: int, first: int = 0) -> list[Message]:
    return [Message(b"%d" % number) for number in range(first, first + count)]


def payloads(log: Log, partition: Partition = HERE, offset: int = 0) -> list[bytes]:
    reader = log.reader(partition, offset)
    found: list[Message] = []
    while part := reader.read(1_000_000):
        found += part
    return [message.payload for message in found]


def stored(log: Log) -> list[tuple[int, bytes]]:
    """Return the rows of batches: key and data."""
    with closing(sqlite3.connect(log.folder / log_store.FILE)) as connection:
        return connection.execute("SELECT rowid, payloads FROM batches ORDER BY rowid").fetchall()


def store(log: Log, statement: str, *values: object) -> None:
    """Change the database without the log."""
    with closing(sqlite3.connect(log.folder / log_store.FILE)) as connection, connection:
        connection.execute(statement, values)


def replace_data(log: Log, key: int, data: bytes) -> None:
    store(log, "UPDATE batches SET payloads = ? WHERE rowid = ?", data, key)


def settle(log: Log, *positions: Position) -> None:
    """Let the consumer `c` settle `positions`."""
    consumption = Consumption(log.folder, "c")
    consumption.acquire()
    consumption.store(positions)
    consumption.release()


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log.open(tmp_path / "log", create=True)


class TestContract(SourceContract):
    """A log fulfils the contract of every source."""

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path

    def fill(self, payloads: Sequence[bytes], partition: int = 0) -> None:
        Log.open(self.folder).append("s", "t", [Message(payload) for payload in payloads], partition=partition)

    def source(self, *, until_end: bool = True, batch_size: int = 10) -> LogSource:
        return LogSource(self.folder, "s", ["t"], consumer="c", until_end=until_end, batch_size=batch_size)


SCALARS = st.text(max_size=5) | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.booleans()
MESSAGES = st.builds(
    Message,
    st.binary(max_size=50),
    st.just("s"),
    st.just("t"),
    st.just(0),
    st.just(0),
    st.integers(1, 2**62),
    st.integers(1, 2**62),
    st.integers(0, 2**128 - 1),
    st.dictionaries(st.text(max_size=5), SCALARS | st.binary(max_size=9), max_size=3),
)


def as_read(given: Sequence[Message]) -> list[tuple[bytes, int, int, int, int, dict[str, Scalar | bytes]]]:
    return [
        (message.payload, offset, message.timestamp_us, message.origin_timestamp_us, message.id, dict(message.headers))
        for offset, message in enumerate(given)
    ]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(st.lists(st.lists(MESSAGES, max_size=5), max_size=5), st.integers(20, 200))
def test_what_is_appended_is_read_back_over_any_batches(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[Message]], batch_bytes: int
) -> None:
    log = Log.open(tmp_path_factory.mktemp("log"))
    for batch in batches:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(log_store, "_BATCH_BYTES", batch_bytes)
            log.append("s", "t", batch)
    reader = log.reader(HERE, 0)

    found = reader.read(1000)

    assert [
        (m.payload, m.offset, m.timestamp_us, m.origin_timestamp_us, m.id, dict(m.headers)) for m in found
    ] == as_read([message for batch in batches for message in batch])
    log.close()


def test_a_payload_larger_than_a_chunk_is_read_whole(log: Log) -> None:
    large = os.urandom(5 * 2**20)
    log.append("s", "t", [Message(b"before"), Message(large), Message(b"after")])

    assert payloads(log) == [b"before", large, b"after"]


class OpenedMeanwhile(Coordinates):
    """Those of a batch that another thread opens while this one asks whether it is open."""

    _found: Any = None
    _others = 1

    @property
    def _decoded(self) -> Any:
        found = self._found
        while self._others:
            self._others -= 1
            self.message(1, Partition("s", "t", 0), b"x")
        return found

    @_decoded.setter
    def _decoded(self, found: Any) -> None:
        self._found = found


def test_threads_may_open_a_batch_at_once() -> None:
    """The source reads on while a plan renders."""
    times = [1_700_000_000_000_000 + number for number in range(3)]
    stored = encode_batch([Message(b"x", timestamp_us=time) for time in times], 0, 1)

    opened = [OpenedMeanwhile(0, stored.columns) for _ in range(3)]
    made = [each.message(index, Partition("s", "t", 0), b"x") for index, each in enumerate(opened)]

    assert [each.timestamp_us for each in made] == times


def test_a_batch_of_large_messages_is_bounded_by_its_bytes(log: Log) -> None:
    log.append("s", "t", [Message(bytes(2**20))] * 20)
    reader = log.reader(HERE, 0)

    sizes = []
    while size := len(reader.read(5000, 5 * 2**20)):
        sizes.append(size)

    assert sum(sizes) == 20
    assert max(sizes) <= 9  # the bound, and a stored batch of 4 MB more
    assert len(log.tail("s", "t", 20)) == 20


def test_a_message_without_a_time_arrived_when_it_was_appended(tmp_path: Path) -> None:
    log = Log.open(tmp_path, clock=lambda: 1_700_000_000_123_456_789)

    log.append("s", "t", [Message(b"x"), Message(b"y", timestamp_us=5, origin_timestamp_us=4)])

    found = log.tail("s", "t")
    assert [(m.timestamp_us, m.origin_timestamp_us) for m in found] == [(1_700_000_000_123_456,) * 2, (5, 4)]


def test_reading_starts_at_any_offset_in_any_batch(tmp_path: Path) -> None:
    log = Log.open(tmp_path)
    for number in range(0, 20, 4):
        log.append("s", "t", messages(4, number))

    assert len(stored(log)) == 5
    for offset in range(21):
        assert payloads(log, offset=offset) == [b"%d" % number for number in range(offset, 20)]


def test_names_of_topics_may_hold_anything(log: Log) -> None:
    names = ["a/b", "..", ".", "ü", "with space", "%2F", "CON", "*"]
    for name in names:
        log.append(name, name, [Message(name.encode())])

    assert log.topics() == sorted((name, name) for name in names)
    for name in names:
        assert [message.payload for message in log.tail(name, name)] == [name.encode()]


def test_keys_choose_the_partition_and_the_rest_takes_turns(log: Log) -> None:
    log.create_topic("s", "t", 3)
    keys = ["a", "b", "c", "d"] * 5

    log.append("s", "t", [Message(key.encode()) for key in keys], keys=keys)
    log.append("s", "t", messages(9))

    for partition in log.partitions("s"):
        found = payloads(log, partition)
        assert all(zlib.crc32(p) % 3 == partition.partition for p in found if p.isalpha())
        assert len([p for p in found if p.isdigit()]) == 3
    assert len(log.partitions("s")) == 3


def test_info_has_offsets_sizes_and_consumers(log: Log) -> None:
    log.append("s", "t", messages(7))
    settle(log, Position(HERE, 4))

    (info,) = log.info()

    assert (info.partition, info.first, info.end, info.batches, info.consumers) == (HERE, 0, 7, 1, {"c": 5})
    assert info.size > sum(len(data) for _, data in stored(log))


def test_tail_gives_the_last_messages_of_each_partition(log: Log) -> None:
    log.create_topic("s", "t", 2)
    log.append("s", "t", messages(10), partition=0)
    log.append("s", "t", messages(1), partition=1)

    assert [(m.partition, m.payload) for m in log.tail("s", "t", 2)] == [(0, b"8"), (0, b"9"), (1, b"0")]
    assert [(m.partition, m.payload) for m in log.tail("s", "t", 2, partition=1)] == [(1, b"0")]


# Damage


def read_until_damage(log: Log, limit: int = 10) -> tuple[list[Message], Stopped]:
    """Return what is read before the reader stops."""
    reader, found = log.reader(HERE, 0), []
    try:
        while part := reader.read(limit):
            found += part
    except Stopped as stopped:
        return found, stopped
    raise AssertionError(f"no damage was noticed in {found}")


def test_the_sound_messages_before_a_damaged_one_are_given_first(log: Log) -> None:
    """Also those of its own batch; the error has its place and a hint."""
    log.append("s", "t", messages(3))
    log.append("s", "t", [Message(b"x%d" % number * 40, headers={"k": number}) for number in range(5)])
    key, whole = stored(log)[1]
    data = bytearray(whole)
    data[whole.index(b"x2")] ^= 0x40
    replace_data(log, key, bytes(data))

    found, stopped = read_until_damage(log)

    assert [message.offset for message in found] == [0, 1, 2, 3, 4]
    assert [dict(message.headers) for message in found[3:]] == [{"k": 0}, {"k": 1}]
    assert stopped.code == "IFX705"
    assert "damaged at s/t/0@5" in stopped.reason
    assert "start: {offset: 6}" in (stopped.hint or "")
    assert [message.offset for message in log.reader(HERE, 6).read(10)] == [6, 7]


@pytest.mark.parametrize("column", ["payloads", "columns"])
def test_every_flipped_bit_of_a_batch_is_noticed(log: Log, column: str) -> None:
    """Whatever bit is wrong: what is read is a prefix of what was written, with its coordinates."""
    written = [Message(b"%d" % number, headers={"k": number}, id=number) for number in range(4)]
    log.append("s", "t", written)
    with closing(sqlite3.connect(log.folder / log_store.FILE)) as connection:
        ((whole,),) = connection.execute(f"SELECT {column} FROM batches").fetchall()
    for bit in range(len(whole) * 8):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        store(log, f"UPDATE batches SET {column} = ?", bytes(data))

        found, stopped = read_until_damage(log)

        assert stopped.code == "IFX705"
        assert [(m.payload, m.offset, m.id, dict(m.headers)) for m in found] == [
            (b"%d" % number, number, number, {"k": number}) for number in range(len(found))
        ]


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM batches WHERE rowid = 2",
        "UPDATE batches SET payloads = substr(payloads, 1, length(payloads) - 1) WHERE rowid = 2",
        "UPDATE batches SET columns = substr(columns, 2) WHERE rowid = 2",
        "UPDATE batches SET first_offset = 1 WHERE rowid = 2",
        "UPDATE batches SET messages = 3 WHERE rowid = 2",
    ],
)
def test_rows_that_are_missing_or_do_not_follow_are_damage(log: Log, statement: str) -> None:
    """No message is skipped and none is read twice."""
    for number in range(3):
        log.append("s", "t", messages(2, 2 * number))
    store(log, statement)

    found, stopped = read_until_damage(log, limit=1)

    assert stopped.code == "IFX705"
    assert [message.payload for message in found] == [b"%d" % number for number in range(len(found))]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(st.integers(0, 2**31), st.integers(1, 4096), st.integers(0, 255))
def test_damage_anywhere_in_the_file_never_changes_a_message(
    tmp_path_factory: pytest.TempPathFactory, place: int, length: int, byte: int
) -> None:
    """What is read is a prefix of what was written; then comes the end or a clear error."""
    log = Log.open(tmp_path_factory.mktemp("log"))
    for number in range(0, 60, 20):
        log.append("s", "t", [Message(b"%d" % each + bytes(500)) for each in range(number, number + 20)])
    log.close()
    path = log.folder / log_store.FILE
    data = bytearray(path.read_bytes())
    place %= len(data)
    data[place : place + length] = bytes([byte]) * len(data[place : place + length])
    path.write_bytes(data)
    found: list[bytes] = []

    with suppress(Stopped):
        reader = Log.open(log.folder).reader(HERE, 0)
        while part := reader.read(7):
            found += [message.payload for message in part]

    assert found == [b"%d" % each + bytes(500) for each in range(len(found))]


@pytest.mark.parametrize("content", [b"not a database, " * 100, b"x"])
def test_a_file_that_is_not_a_database_is_rejected(log: Log, content: bytes) -> None:
    (log.folder / log_store.FILE).write_bytes(content)

    with pytest.raises(Stopped) as stopped:
        log.topics()

    assert stopped.value.code == "IFX705"


@pytest.mark.parametrize(
    ("statement", "words"),
    [("PRAGMA user_version = 7", "has format 7"), ("PRAGMA application_id = 5", "of another program")],
)
def test_a_log_of_another_format_is_refused_and_not_read_as_empty(log: Log, statement: str, words: str) -> None:
    log.append("s", "t", messages(1))
    log.close()
    store(log, statement)

    for ask in (lambda: Log.open(log.folder).topics(), lambda: Log.open(log.folder).append("s", "t", messages(1))):
        with pytest.raises(Stopped, match=words) as stopped:
            ask()
        assert stopped.value.code == "IFX708"


def test_a_log_of_segment_files_is_refused_and_not_read_as_empty(log: Log) -> None:
    """The format of 0.1.0."""
    old = log.folder / "s" / "t" / "0" / f"{0:020d}.log"
    old.parent.mkdir(parents=True)
    old.write_bytes(b"")

    with pytest.raises(Stopped, match=r"0\.1\.0") as stopped:
        Log.open(log.folder)
    assert stopped.value.code == "IFX708"


def test_a_log_whose_file_is_removed_or_replaced_keeps_nothing_elsewhere(log: Log) -> None:
    """After append has returned, the messages can be read from the path."""
    log.append("s", "t", messages(2))
    (log.folder / log_store.FILE).unlink()
    log.append("s", "t", messages(1, 7))

    assert payloads(Log.open(log.folder)) == [b"7"]


def test_files_are_for_their_owner_only(log: Log) -> None:
    log.append("s", "t", messages(1))

    assert (log.folder / log_store.FILE).stat().st_mode & 0o777 == 0o600
    assert log.folder.stat().st_mode & 0o777 == 0o700


def test_a_position_beyond_the_end_is_an_error_and_not_silence(log: Log) -> None:
    log.append("s", "t", messages(3))

    with pytest.raises(Stopped, match="beyond the end") as stopped:
        log.reader(HERE, 7).read(1)
    assert stopped.value.code == "IFX706"


def test_a_full_disk_leaves_earlier_messages_intact(log: Log) -> None:
    resource = pytest.importorskip("resource")
    log.append("s", "t", messages(3))
    size = (log.folder / log_store.FILE).stat().st_size
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, limit[1]))
    try:
        with pytest.raises(Stopped) as stopped:
            log.append("s", "t", [Message(bytes(50_000))])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)

    assert stopped.value.code == "IFX704"
    log.append("s", "t", messages(1, 3))
    assert payloads(log) == [b"0", b"1", b"2", b"3"]


# Several at once


def append_many(folder: Path, name: bytes, count: int) -> None:
    log = Log.open(folder)
    for number in range(count):
        log.append("s", "t", [Message(b"%s-%d" % (name, number))])
    log.close()


def test_processes_append_at_once_while_another_reads(tmp_path: Path) -> None:
    """Every message is there once, and those of each writer are in order."""
    log = Log.open(tmp_path)
    log.create_topic("s", "t")
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=append_many, args=(tmp_path, name, 150)) for name in (b"a", b"b")]
    for writer in writers:
        writer.start()
    reader, found = log.reader(HERE, 0), []
    while any(writer.is_alive() for writer in writers) and len(found) < 300:
        found += [message.payload for message in reader.read(50)]
    for writer in writers:
        writer.join()
    found += [message.payload for message in reader.read(1000)]

    assert [payload for payload in found if payload.startswith(b"a")] == [b"a-%d" % number for number in range(150)]
    assert [payload for payload in found if payload.startswith(b"b")] == [b"b-%d" % number for number in range(150)]
    assert [message.offset for message in log.tail("s", "t", 300)] == list(range(300))


def test_a_consumer_is_one_process_and_the_error_names_it(log: Log) -> None:
    log.append("s", "t", messages(1))
    source, other = (LogSource(log.folder, "s", ["t"], consumer="c") for _ in range(2))

    async def main() -> None:
        await source.connect()
        with pytest.raises(Stopped) as stopped:
            await other.connect()
        assert stopped.value.code == "IFX702"
        assert f"consumer 'c' of this log is in use by process {os.getpid()}" in stopped.value.reason
        await source.close()
        await other.connect()
        await other.close()

    drive(main())


# The source


@settings(deadline=None, max_examples=15)
@given(st.integers(1, 4), st.integers(0, 6), st.integers(0, 5))
def test_a_log_that_was_made_again_is_replaced_and_one_that_goes_on_is_not(old: int, new: int, more: int) -> None:
    place = Partition("s", "t", 0)

    def begin(folder: Path, name: str, count: int, first_us: int) -> Log:
        log = Log.open(folder / name, create=True)
        log.append("s", "t", [Message(b"x", timestamp_us=first_us + number) for number in range(count)])
        return log

    async def replaced(log: Log) -> list[Partition]:
        source = LogSource(log.folder, "s", ["t"], consumer="c")
        await source.connect()
        try:
            return await source.replaced({place: (old - 1, 1_000 + old - 1), Partition("s", "away", 0): (1, 1)})
        finally:
            await source.close()

    with tempfile.TemporaryDirectory() as name:
        first = begin(Path(name), "first", old, 1_000)
        first.append("s", "t", [Message(b"y")] * more)
        assert drive(replaced(first)) == []
        assert drive(replaced(begin(Path(name), "second", new, 9_000))) == ([place] if new else [])


async def offsets(source: LogSource) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    await source.connect()
    try:
        while batch := await source.read():
            found.setdefault(str(batch.partition), []).extend(message.offset for message in batch.messages)
    except EndOfInput:
        pass
    await source.close()
    return found


def test_topics_are_selected_by_name_list_and_glob(log: Log) -> None:
    for topic in ("env-1", "env-2", "other", "env-[x]"):
        log.append("s", topic, messages(1))
    log.append("elsewhere", "env-1", messages(1))

    def found(*topics: str) -> set[str]:
        source = LogSource(log.folder, "s", topics, consumer="-".join(topics).replace("*", "x"), until_end=True)
        return set(drive(offsets(source)))

    assert found("env-1") == {"s/env-1/0"}
    assert found("env-1", "other") == {"s/env-1/0", "s/other/0"}
    assert found("env-?") == {"s/env-1/0", "s/env-2/0"}
    assert found("*") == {"s/env-1/0", "s/env-2/0", "s/other/0", "s/env-[x]/0"}


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        (Start("first"), [0, 1, 2, 3, 4]),
        (Start("offset", 3), [3, 4]),
        (Start("timestamp", 1_000_002), [2, 3, 4]),
        (Start("timestamp", 9_000_000), []),
        (Start("last"), []),
    ],
    ids=str,
)
def test_a_consumer_without_a_position_begins_where_start_says(log: Log, start: Start, expected: list[int]) -> None:
    log.append("s", "t", [Message(b"x", timestamp_us=1_000_000 + number) for number in range(5)])

    source = LogSource(log.folder, "s", ["t"], consumer="c", start=start, until_end=True)

    assert drive(offsets(source)).get("s/t/0", []) == expected


def test_a_stored_position_comes_before_start(log: Log) -> None:
    log.append("s", "t", messages(5))
    settle(log, Position(HERE, 3))

    source = LogSource(log.folder, "s", ["t"], consumer="c", start=Start("first"), until_end=True)

    assert drive(offsets(source)) == {"s/t/0": [4]}


def test_a_run_to_the_end_notices_a_replaced_log(log: Log) -> None:
    """A position beyond the end means that messages were lost or replaced: "nothing to do" would hide this."""
    settle(log, Position(HERE, 7))
    log.append("s", "t", messages(5))

    source = LogSource(log.folder, "s", ["t"], consumer="c", until_end=True)

    with pytest.raises(Stopped, match=r"offset 8 of s/t/0 is beyond the end of the log \(5\)") as stopped:
        drive(source.connect())
    assert stopped.value.code == "IFX706"
    drive(source.close())


def test_only_the_chosen_partitions_are_read(log: Log) -> None:
    log.create_topic("s", "t", 3)
    log.append("s", "t", messages(9))

    source = LogSource(log.folder, "s", ["t"], consumer="c", partitions=[0, 2], until_end=True)

    assert set(drive(offsets(source))) == {"s/t/0", "s/t/2"}


def test_partitions_and_topics_that_appear_later_are_found(log: Log) -> None:
    log.append("s", "a", messages(1))

    async def main() -> list[str]:
        source = LogSource(log.folder, "s", ["*"], consumer="c")
        await source.connect()
        found = [await source.read()]
        log.append("s", "b", messages(1))
        while len(found) < 2:
            if batch := await source.read():
                found.append(batch)
        await source.close()
        return [str(batch.partition) for batch in found if batch]

    assert drive(main()) == ["s/a/0", "s/b/0"]


def test_until_the_end_means_what_was_there_at_the_start(log: Log) -> None:
    log.append("s", "t", messages(3))

    async def main() -> int:
        source = LogSource(log.folder, "s", ["t"], consumer="c", until_end=True, batch_size=2)
        await source.connect()
        count = 0
        for _ in range(2):
            batch = await source.read()
            count += len(batch.messages) if batch else 0
            log.append("s", "t", messages(2))
        with pytest.raises(EndOfInput):
            await source.read()
        await source.close()
        return count

    assert drive(main()) == 3


def test_the_lag_counts_messages_that_are_not_settled(log: Log) -> None:
    log.append("s", "t", messages(10))

    async def main() -> list[int]:
        source = LogSource(log.folder, "s", ["t"], consumer="c", batch_size=4)
        await source.connect()
        found = [(await source.lag())[HERE]]
        batch = await source.read()
        assert batch
        found.append((await source.lag())[HERE])
        await source.ack([batch.last])
        found.append((await source.lag())[HERE])
        log.append("s", "t", messages(5))
        found.append((await source.lag())[HERE])
        await source.close()
        return found

    assert drive(main()) == [10, 10, 6, 11]


def test_a_log_that_is_not_there_says_how_to_fill_it(tmp_path: Path) -> None:
    with pytest.raises(Stopped) as stopped:
        drive(LogSource(tmp_path / "no", "s", ["t"], consumer="c").connect())

    assert stopped.value.code == "IFX703"
    assert "iggyflux log" in (stopped.value.hint or "")
    assert not (tmp_path / "no").exists()


def test_a_missing_topic_is_an_error_at_the_end_with_a_suggestion(log: Log) -> None:
    log.append("factory", "readings", messages(1))

    with pytest.raises(Stopped, match="did you mean factory/readings") as stopped:
        drive(LogSource(log.folder, "factory", ["reading"], consumer="c", until_end=True).connect())
    assert stopped.value.code == "IFX707"


def test_rule_29_a_message_that_is_sent_keeps_its_time_id_and_headers(tmp_path: Path) -> None:
    sink = LogSink(tmp_path / "log", "s", "t")

    async def main() -> None:
        await sink.connect()
        await sink.send([OutgoingMessage(b"x", "key", {"h": 1}, 1_700_000_000_123_456_000, 7)])
        await sink.close()

    asyncio.run(main())
    (message,) = Log.open(tmp_path / "log").tail("s", "t")
    assert (message.payload, message.timestamp_us, message.id, message.headers) == (
        b"x", 1_700_000_000_123_456, 7, {"h": 1},
    )  # fmt: skip
