"""Dead letters: kept completely before anything goes on, rotated, read back, and never half."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iggyflux.errors import NotConnected, Stopped
from iggyflux.records import DeadLetter, Message, Reason
from iggyflux.transports.local.deadletters import (
    DirectoryDeadLetters,
    TopicDeadLetters,
    dead_letter_files,
    decode_letter,
    encode_letter,
    folder_lock,
    read_dead_letters,
)
from iggyflux.transports.local.memory import CollectingMessages
from tests.transports.contract import drive

MESSAGE = Message(b'{"a":\xff}', "s", "t", 1, 42, 5, 4, 7, {"k": "v", "raw": b"\x00"})
LETTER = DeadLetter(
    MESSAGE,
    "factory",
    "0123456789abcdef",
    (
        Reason("IFX401", "not UTF-8", "/from/payload"),
        Reason("IFX601", "field type conflict", element=3, point=0, line="m v=1 1", status=422),
    ),
    route="factory to the cloud",
)


def letters(count: int, first: int = 0) -> list[DeadLetter]:
    return [
        DeadLetter(Message(b"%d" % number, offset=number), "m", "h", (Reason("IFX301", "bad"),))
        for number in range(first, first + count)
    ]


def put(path: Path, *batches: list[DeadLetter], **more: int) -> None:
    async def main() -> None:
        sink = DirectoryDeadLetters(path, **more)  # type: ignore[arg-type]
        try:
            for batch in batches:
                await sink.put(batch)
        finally:
            await sink.close()
            await sink.close()

    drive(main())


class Groups(DirectoryDeadLetters):
    """Notes how many letters share each sync."""

    def __init__(self, path: Path, **more: int) -> None:
        super().__init__(path, **more)  # type: ignore[arg-type]
        self.sizes: list[int] = []

    def _put(self, letters: Sequence[DeadLetter]) -> str:
        self.sizes.append(len(letters))
        return super()._put(letters)


def put_at_once(path: Path, batches: Sequence[list[DeadLetter]], **more: int) -> tuple[list[int], list[str]]:
    """Put all batches while the folder is locked; return how many letters shared a sync, and the files."""

    async def main() -> tuple[list[int], list[str]]:
        sink = Groups(path, **more)
        with folder_lock(path, shared=True):  # makes the folder
            pass
        with folder_lock(path, shared=False):
            putting = [asyncio.create_task(sink.put(batch)) for batch in batches]
            done, _ = await asyncio.wait(putting, timeout=0.005)
            assert not done, "nothing is kept before it is written"
        files = await asyncio.gather(*putting)
        await sink.close()
        return sink.sizes, files

    return drive(main())


def test_letters_that_come_while_others_are_written_share_a_sync(tmp_path: Path) -> None:
    sizes, _ = put_at_once(tmp_path, [letters(2, number) for number in range(0, 40, 2)])

    assert sum(sizes) == 40
    assert len(sizes) <= 2
    assert [each.message.offset for each in read_dead_letters(tmp_path)] == list(range(40))


def test_large_letters_share_no_sync(tmp_path: Path) -> None:
    """Else as many as are in flight would be in memory once more, encoded."""
    large = DeadLetter(Message(b"x" * 600_000), "m", "h", (Reason("IFX301", "bad"),))

    sizes, _ = put_at_once(tmp_path, [[large]] * 3 + [[large, large]])

    assert sizes == [1, 1, 1, 2]


@given(st.lists(st.integers(1, 4), min_size=1, max_size=12), st.integers(1, 2000))
def test_whatever_shares_a_sync_is_kept_once_in_order_in_the_file_that_is_named(
    counts: list[int], max_bytes: int
) -> None:
    numbers = itertools.count()
    batches = [[letters(1, next(numbers))[0] for _ in range(count)] for count in counts]
    with TemporaryDirectory() as name:
        _, files = put_at_once(Path(name), batches, max_bytes=max_bytes)
        for batch, file in zip(batches, files, strict=True):
            found = {each.message.offset for each in read_dead_letters(Path(file))}
            assert {each.message.offset for each in batch} <= found
        assert [each.message.offset for each in read_dead_letters(Path(name))] == list(range(sum(counts)))


def test_a_sync_that_fails_keeps_none_of_the_letters_that_share_it(tmp_path: Path) -> None:
    (tmp_path / "letters").touch()

    async def main() -> list[object]:
        sink = DirectoryDeadLetters(tmp_path / "letters")
        ends = await asyncio.gather(*(sink.put(letters(1, each)) for each in range(5)), return_exceptions=True)
        await sink.close()
        return ends

    assert [end.code for end in drive(main()) if isinstance(end, Stopped)] == ["IFX715"] * 5


def test_a_letter_holds_everything_that_a_person_and_a_replay_need(tmp_path: Path) -> None:
    put(tmp_path / "dead", [LETTER])

    (file,) = dead_letter_files(tmp_path / "dead")
    assert file.name == "00000001.ndjson"
    tree = json.loads(file.read_text())
    assert base64.b64decode(tree.pop("payload_base64")) == MESSAGE.payload
    assert abs(tree.pop("kept_us") / 1e6 - time.time()) < 3600
    assert tree == {
        "route": "factory to the cloud", "mapping": "factory", "plan": "0123456789abcdef",
        "stream": "s", "topic": "t", "partition": 1, "offset": 42, "timestamp_us": 5, "origin_timestamp_us": 4,
        "id": "7", "headers": {"k": "v", "raw": {"base64": "AA=="}},
        "reasons": [
            {"code": "IFX401", "reason": "not UTF-8", "location": "/from/payload"},
            {"code": "IFX601", "reason": "field type conflict", "element": 3, "point": 0, "line": "m v=1 1",
             "status": 422},
        ],
    }  # fmt: skip
    assert list(read_dead_letters(tmp_path / "dead")) == [LETTER]


TEXTS = st.text(max_size=8)
REASONS = st.builds(
    Reason,
    TEXTS,
    TEXTS,
    TEXTS,
    st.none() | st.integers(0, 9),
    st.none() | st.integers(0, 9),
    st.none() | TEXTS,
    st.none() | st.integers(0, 599),
    st.lists(st.integers(0, 9), max_size=3).map(tuple),
)


@given(st.builds(DeadLetter, st.just(MESSAGE), TEXTS, TEXTS, st.lists(REASONS, max_size=3).map(tuple)))
def test_a_letter_is_one_line_and_reads_back_the_same(letter: DeadLetter) -> None:
    line = encode_letter(letter)

    assert b"\n" not in line
    assert decode_letter(line) == letter


def test_a_letter_that_was_kept_before_there_were_positions_in_nested_lists_is_read() -> None:
    """Of one list there is no need of them, so a letter has them only for nested ones."""
    nested = DeadLetter(MESSAGE, "m", "h", (Reason("IFX340", "no", "/points", 5, 0, elements=(1, 2)),))
    tree = json.loads(encode_letter(nested))
    positions = tree["reasons"][0].pop("elements")
    (old,) = decode_letter(json.dumps(tree).encode()).reasons

    assert (positions, old.element, old.elements) == ([1, 2], 5, ())
    assert b'"elements"' not in encode_letter(LETTER)


def test_files_are_rotated_by_size_and_read_in_order(tmp_path: Path) -> None:
    put(tmp_path, *(letters(1, number) for number in range(12)), max_bytes=1000)

    files = dead_letter_files(tmp_path)
    assert len(files) > 2
    assert all(file.stat().st_size <= 1000 for file in files)
    assert [letter.message.offset for letter in read_dead_letters(tmp_path)] == list(range(12))


def test_a_new_run_goes_on_in_the_last_file(tmp_path: Path) -> None:
    put(tmp_path, letters(1))
    put(tmp_path, letters(1, 1))

    assert len(dead_letter_files(tmp_path)) == 1
    assert [letter.message.offset for letter in read_dead_letters(tmp_path)] == [0, 1]


def test_a_torn_last_line_is_reported_and_never_written_behind(tmp_path: Path) -> None:
    put(tmp_path, letters(2))
    (first,) = dead_letter_files(tmp_path)
    first.write_bytes(first.read_bytes()[:-5])
    put(tmp_path, letters(1, 2))
    torn: list[tuple[Path, int]] = []

    found = list(read_dead_letters(tmp_path, torn=lambda file, line: torn.append((file, line))))

    assert [letter.message.offset for letter in found] == [0, 2]
    assert torn == [(first, 2)]


def test_a_damaged_line_in_the_middle_stops_with_its_place(tmp_path: Path) -> None:
    put(tmp_path, letters(2))
    (file,) = dead_letter_files(tmp_path)
    file.write_bytes(b"{}\n" + file.read_bytes())

    with pytest.raises(Stopped, match=r"00000001\.ndjson:1: ") as stopped:
        list(read_dead_letters(tmp_path))
    assert stopped.value.code == "IFX716"


def test_one_file_can_be_read_alone_and_a_missing_place_is_an_error(tmp_path: Path) -> None:
    put(tmp_path, letters(1))

    assert len(list(read_dead_letters(tmp_path / "00000001.ndjson"))) == 1
    with pytest.raises(Stopped, match="no dead letters in") as stopped:
        list(read_dead_letters(tmp_path / "none"))
    assert stopped.value.code == "IFX717"


def test_two_writers_share_a_directory_and_not_a_file(tmp_path: Path) -> None:
    async def main() -> None:
        first, second = DirectoryDeadLetters(tmp_path), DirectoryDeadLetters(tmp_path)
        await first.put(letters(1))
        await second.put(letters(1, 1))
        await first.put(letters(1, 2))
        await first.close()
        await second.close()

    drive(main())
    assert len(dead_letter_files(tmp_path)) == 2
    assert sorted(letter.message.offset for letter in read_dead_letters(tmp_path)) == [0, 1, 2]


def test_a_full_disk_stops_and_leaves_no_half_letter(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    put(tmp_path, letters(2))
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (600, limit[1]))
    try:
        with pytest.raises(Stopped, match="File too large"):
            put(tmp_path, letters(20, 2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)

    assert [letter.message.offset for letter in read_dead_letters(tmp_path)] == [0, 1]


def test_a_place_that_cannot_be_written_stops(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(Stopped) as stopped:
        put(tmp_path / "file", letters(1))
    assert stopped.value.code == "IFX715"
    assert stopped.value.hint


def test_a_topic_holds_the_same_letters(tmp_path: Path) -> None:
    topic = CollectingMessages()

    async def main() -> None:
        sink = TopicDeadLetters(topic)
        await sink.put([LETTER])
        await sink.close()

    drive(main())
    (message,) = topic.messages
    assert decode_letter(message.payload) == LETTER
    assert message.headers == {"mapping": "factory", "plan": "0123456789abcdef"}


def test_a_topic_that_cannot_be_reached_lets_the_messages_come_again() -> None:
    topic = CollectingMessages([NotConnected("gone")])

    async def main() -> None:
        sink = TopicDeadLetters(topic)
        with pytest.raises(NotConnected, match="gone"):
            await sink.put([LETTER])
        await sink.put([LETTER])

    drive(main())
    assert [decode_letter(message.payload) for message in topic.messages] == [LETTER]


def test_letters_are_on_the_disk_when_put_returns(tmp_path: Path) -> None:
    """Another descriptor reads them while the sink is still open."""

    async def main() -> None:
        sink = DirectoryDeadLetters(tmp_path)
        await sink.put(letters(3))
        assert (tmp_path / "00000001.ndjson").stat().st_size > 0
        assert len(list(read_dead_letters(tmp_path))) == 3
        await sink.close()

    drive(main())
