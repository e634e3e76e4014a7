"""Dead letters as a thing one works with: replayed once, removed only where chosen, and counted as they are."""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
import os
import re
import shutil
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from shell import iggyflux

from iggyflux.cli.letters import FolderMarks
from iggyflux.cli.output import attached
from iggyflux.errors import Stopped
from iggyflux.pipeline import Retention
from iggyflux.records import DeadLetter, Message, OutgoingMessage, Reason
from iggyflux.state.sqlite import BUSY_SECONDS, connect
from iggyflux.transports.local.deadletters import (
    DirectoryDeadLetters,
    TopicDeadLetters,
    dead_letter_files,
    decode_letter,
    letter_digest,
    read_dead_letters,
)
from iggyflux.transports.local.letter_marks import Marks, count_letters
from iggyflux.transports.local.letter_removal import Retaining, RetainingDeadLetters, remove_letters, rewrite
from iggyflux.transports.local.log import Log
from tests.transports.contract import drive

MAPPING = """\
iggyflux: 1
kind: writer
name: looms
from: {stream: mill, topic: looms}
points: {measurement: {const: cloth}, fields: {ells: ells}, timestamp: {expr: at, format: unix_s}}
"""
PIPELINE = "{iggyflux: 1, from: 'log:data', to: 'file:points.lp', run: [{mapping: looms.yaml}]}\n"
CODES = ("IFX340", "IFX609")


def letter(number: int, code: str = "IFX340", ells: object = 0.5, *, mapping: str = "looms") -> DeadLetter:
    payload = json.dumps({"ells": ells, "at": number}).encode()
    message = Message(payload, "mill", "looms", 0, number, 1_700_000_000_000_000 + number)
    return DeadLetter(message, mapping, "", (Reason(code, "too long"),))


@dataclass
class Known:
    """A letter as it should be there."""

    number: int
    code: str
    is_good: bool
    is_replayed: bool = False
    kept_us: int = 0
    words: tuple[int, str] = (0, "")
    """What letters of one message and one failure have in common, whenever they were kept."""

    def __post_init__(self) -> None:
        self.words = self.number, self.code


@dataclass
class Mill:
    """A folder with letters, and what should be in it."""

    folder: Path
    kept: list[Known] = field(default_factory=list)
    sent: list[int] = field(default_factory=list)
    next_number: int = 1
    is_broken: bool = False
    """Whether every message fails."""

    def __post_init__(self) -> None:
        (self.folder / "looms.yaml").write_text(MAPPING)
        (self.folder / "p.yaml").write_text(PIPELINE)
        (self.folder / "data").mkdir()
        self.path = self.folder / "dead-letters" / "looms"

    def put(self, goods: Sequence[tuple[str, bool]], max_bytes: int) -> None:
        new = []
        for code, is_good in goods:
            new.append(letter(self.next_number, code, 0.5 if is_good else "none"))
            self.kept.append(Known(self.next_number, code, is_good))
            self.next_number += 1
        self._keep(new, max_bytes)

    def put_again(self, which: int) -> None:
        """A message comes once more, and fails as before."""
        if self.kept:
            number, code = self.kept[which % len(self.kept)].words
            is_good = self.kept[which % len(self.kept)].is_good
            self.kept.append(Known(number, code, is_good))
            self._keep([letter(number, code, 0.5 if is_good else "none")], 10**6)

    def _keep(self, new: Sequence[DeadLetter], max_bytes: int) -> None:
        put(self.path, new, max_bytes)
        there = list(read_dead_letters(self.path, torn=lambda *_: None))[-len(new) :]
        for each, found in zip(self.kept[-len(new) :], there, strict=True):
            assert each.number == found.message.offset
            each.kept_us = found.kept_us

    def remap(self, is_broken: bool) -> None:
        """The mapping asks for a member that no message has, or does not any more."""
        self.is_broken = is_broken
        changed = MAPPING.replace("{ells: ells}", "{ells: no.such.member}") if is_broken else MAPPING
        (self.folder / "looms.yaml").write_text(changed)

    def tear(self, count: int) -> None:
        """A crash while a letter is written: a part of its line is there, and nothing of it was acknowledged."""
        if files := self.files():
            whole = files[0].read_bytes().split(b"\n")[0]
            with files[-1].open("ab") as end:
                end.write(whole[: max(count % len(whole), 1)])
            (self.path / f".{files[0].name}.new").write_bytes(whole)  # and one while letters are removed

    def replay(self, code: str | None, again: bool, dies: bool) -> None:
        meant = [each for each in self.kept if code in (None, each.code) and (again or not each.is_replayed)]
        if not self.kept:
            return
        options = [*(["--reason", code] if code else []), *(["--again"] if again else [])]
        with pytest.MonkeyPatch.context() as patch:
            if dies:
                patch.setattr(FolderMarks, "add", _dying)
            done = iggyflux("replay", str(self.path), "--pipeline", str(self.folder / "p.yaml"), *options)
        if others := [] if meant else [each.code for each in self.kept if each.code != code]:
            noun = "other dead letter" if len(others) == 1 else "other dead letters"
            words = f"it has {len(others)} {noun}: mapping looms; codes {', '.join(sorted(set(others)))}"
            assert words in done.err.splitlines()[-1], done
        good = [] if self.is_broken else [each for each in meant if each.is_good]
        assert done.code == (3 if dies and meant else 1 if len(good) < len(meant) else 0), done
        self.sent += [each.number for each in good]
        for each in [] if dies else meant:
            for twin in [other for other in self.kept if other.words == each.words]:
                twin.is_replayed = each in good
                if each not in good:
                    twin.code = "IFX346" if self.is_broken else "IFX340"  # that of its newest failure

    def prune(self, code: str | None, replayed: bool | None, keep: int) -> None:
        if not self.files():
            return
        meant = [
            each
            for each in self.kept
            if code in (None, each.code) and (replayed is None or each.is_replayed == replayed)
        ]
        gone = meant[: max(len(meant) - keep, 0)]
        options = ["--reason", code] if code else []
        options += [] if replayed is None else ["--replayed" if replayed else "--not-replayed"]
        done = iggyflux("dead-letters", "prune", str(self.path), "--all", "--keep", str(keep), "--yes", *options)
        assert done.code == 0, done
        assert not gone or f"removed {len(gone):,} dead letter" in done.err
        self.kept = [each for each in self.kept if each not in gone]

    def retain(self, share: float) -> None:
        """Replayed letters go first, then whole files from the oldest on; the newest file stays."""
        if not self.files():
            return
        newest = _names(self.files()[-1])
        most = max(int(sum(file.stat().st_size for file in self.files()) * share), 1)
        retaining = Retaining(self.path, Retention(max_bytes=most))
        retaining.apply(0.0)
        left = _names(self.path) if self.files() else set()
        gone = [each for each in self.kept if (each.number, each.kept_us) not in left]
        assert retaining.removed.replayed == sum(each.is_replayed for each in gone)
        assert retaining.removed.others == sum(not each.is_replayed for each in gone)
        if retaining.removed.others:
            assert not any(each.is_replayed for each in self.kept if (each.number, each.kept_us) in left)
            oldest_left = min((each.kept_us for each in self.kept if (each.number, each.kept_us) in left), default=0)
            assert all(each.kept_us <= oldest_left for each in gone if not each.is_replayed)
        assert all(each.is_replayed for each in gone if (each.number, each.kept_us) in newest)
        size = sum(file.stat().st_size for file in self.files())
        self.kept = [each for each in self.kept if (each.number, each.kept_us) in left]
        assert size <= most or not any(each.is_replayed for each in self.kept)
        assert size <= most or len(self.files()) == 1

    def files(self) -> list[Path]:
        return dead_letter_files(self.path) if self.path.exists() else []

    def check(self) -> None:
        points = self.folder / "points.lp"
        lines = points.read_text().splitlines() if points.exists() else []
        assert [int(line.rpartition(" ")[2]) // 10**9 for line in lines] == self.sent
        if not self.files():
            assert not self.kept
            return
        done = iggyflux("dead-letters", "list", str(self.path), "--format", "json", "--limit", "1000")
        rows = [json.loads(line) for line in done.out.splitlines()]
        assert [(row["offset"], row["replayed"] is not None) for row in rows] == [
            (each.number, each.is_replayed) for each in self.kept
        ]
        summary = json.loads(iggyflux("dead-letters", "summary", str(self.path), "--format", "json").out)
        assert (summary["letters"], summary["replayed"]) == (
            len(self.kept),
            sum(each.is_replayed for each in self.kept),
        )
        assert count_letters(self.path) == (summary["letters"], summary["replayed"])
        assert {kind["code"]: (kind["letters"], kind["replayed"]) for kind in summary["kinds"]} == {
            code: (count, sum(each.is_replayed for each in self.kept if each.code == code))
            for code, count in Counter(each.code for each in self.kept).items()
        }


def _names(path: Path) -> set[tuple[int, int]]:
    return {(each.message.offset, each.kept_us) for each in read_dead_letters(path, torn=lambda *_: None)}


async def _dying(_self: object, *_marks: object) -> None:
    raise Stopped("killed", None, "IFX719")


def put(path: Path, letters: Sequence[DeadLetter], max_bytes: int = 10**6, *, keeper: Any = None) -> None:
    async def main() -> None:
        sink = keeper or DirectoryDeadLetters(path, max_bytes)
        await sink.put(letters)
        await sink.close()

    drive(main())


CODE = st.none() | st.sampled_from(CODES)
STEPS = st.one_of(
    st.tuples(
        st.just("put"),
        st.lists(st.tuples(st.sampled_from(CODES), st.sampled_from([True, True, False])), min_size=1, max_size=5),
        st.sampled_from([400, 1000, 10**6]),
    ),
    st.tuples(st.just("put_again"), st.integers(0, 9)),
    st.tuples(st.just("remap"), st.booleans()),
    st.tuples(st.just("tear"), st.integers(0, 200)),
    st.tuples(st.just("replay"), CODE, st.booleans(), st.sampled_from([False, False, True])),
    st.tuples(st.just("prune"), CODE, st.sampled_from([None, True, False]), st.integers(0, 3)),
    st.tuples(st.just("retain"), st.floats(0.1, 0.95)),
)


REPLAY = ("replay", None, False, False)


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=st.lists(STEPS, min_size=3, max_size=9))
@example(steps=[REPLAY, ("put_again", 0), ("put_again", 1), ("prune", None, False, 0)])
@example(steps=[REPLAY, ("put_again", 0), ("retain", 0.7), REPLAY])
@example(steps=[("remap", True), REPLAY, ("put_again", 1), ("prune", "IFX609", None, 0)])
@example(steps=[REPLAY, ("remap", True), ("replay", None, True, False), ("remap", False), REPLAY])
def test_no_letter_is_lost_or_sent_twice_whatever_is_done(
    steps: list[Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """What was not chosen stays, in its order; what was replayed is sent again only if asked; counts agree.

    A letter that was kept, or failed, after it was replayed waits for the next replay.
    """
    mill = Mill(tmp_path_factory.mktemp("mill"))
    mill.put([("IFX340", True), ("IFX609", False)], 1000)
    for name, *arguments in steps:
        getattr(mill, name)(*arguments)
        mill.check()
    shutil.rmtree(mill.folder)


def test_letters_that_are_kept_while_others_are_removed_stay(tmp_path: Path) -> None:
    """A writer has its file open, and another thread removes every second letter again and again."""
    stop, count = threading.Event(), 400

    def remove() -> None:
        while not stop.is_set():
            for file in dead_letter_files(tmp_path) if tmp_path.exists() else []:
                with suppress(FileNotFoundError):  # it was empty, and is gone
                    rewrite(tmp_path, file, is_odd)

    def is_odd(line: bytes, _place: str) -> bool:
        return bool(decode_letter(line).message.offset % 2)

    async def write() -> None:
        sink = DirectoryDeadLetters(tmp_path, 3000)
        for number in range(count):
            await sink.put([letter(number)])
        await sink.close()

    remover = threading.Thread(target=remove)
    remover.start()
    try:
        drive(write())
    finally:
        stop.set()
        remover.join()
    found = [each.message.offset for each in read_dead_letters(tmp_path)]
    assert set(found) >= set(range(0, count, 2))
    for file in dead_letter_files(tmp_path):
        rewrite(tmp_path, file, is_odd)
    assert sorted({each.message.offset for each in read_dead_letters(tmp_path)}) == list(range(0, count, 2))
    assert not list(tmp_path.glob(".*.new"))


def test_retention_by_age_removes_whole_files_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A file is full after a sixteenth of the time, so a letter that is new does not keep old ones."""
    now = 1_000_000.0

    def seconds() -> float:
        return now

    async def main() -> None:
        nonlocal now
        sink = RetainingDeadLetters(tmp_path, Retention(keep_seconds=160.0), seconds=seconds)
        for number in range(3):
            await sink.put([letter(number)])
            for file in dead_letter_files(tmp_path)[number:]:
                os.utime(file, (now, now))
            now += 11.0
        assert len(dead_letter_files(tmp_path)) == 3
        with_marks(tmp_path, [1])
        now += 141.0  # 174, 163 and 152 seconds
        await sink.connect()
        for _ in range(6_000):
            if sink.removed.others:
                break
            await asyncio.sleep(0.01)
        await sink.close()
        assert (sink.removed.replayed, sink.removed.others) == (1, 1)

    drive(main())
    assert [each.message.offset for each in read_dead_letters(tmp_path)] == [2]
    assert "deadletters.removed" in caplog.text
    assert "limit=age" in caplog.text


def test_a_retention_that_fails_neither_ends_nor_fails_what_keeps_letters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """`²³` is a number to Python, and does not name a file of letters."""
    (tmp_path / "²³.ndjson").write_text("x\n")
    monkeypatch.setattr("iggyflux.transports.local.letter_removal._PAUSE_AFTER_FAILURE_SECONDS", 0.1)

    async def main() -> None:
        sink = RetainingDeadLetters(tmp_path, Retention(keep_seconds=0.16))
        await sink.connect()
        await sink.put([letter(1)])
        assert "not_removed" not in caplog.text
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Retaining, "_expire", _broken)
            await sink.put([letter(2)])
        for _ in range(6_000):
            if sink.removed.others == 2:
                break
            await asyncio.sleep(0.02)
        await sink.close()
        assert sink.removed.others == 2

    drive(main())
    assert "deadletters.not_removed" in caplog.text
    assert "ValueError('no number')" in caplog.text


def test_locked_marks_hold_up_no_letter(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Retention does not wait for them while it has the lock of the folder, nor again for each letter."""
    now = 1_000_000.0
    put(tmp_path, [letter(number) for number in range(40)], 400)
    with_marks(tmp_path, [1])
    lock = sqlite3.connect(tmp_path / "replayed.sqlite", isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")

    async def main() -> None:
        nonlocal now
        sink = RetainingDeadLetters(tmp_path, Retention(max_bytes=2000), seconds=lambda: now)
        begun = time.monotonic()
        for number in range(40, 60):
            await sink.put([letter(number)])
        assert time.monotonic() - begun < BUSY_SECONDS / 2
        assert caplog.text.count("deadletters.not_removed") == 1
        assert sum(1 for _ in read_dead_letters(tmp_path)) == 60
        lock.close()
        await sink.put([letter(60)])
        assert sink.removed.others == 0
        now += 11.0
        await sink.put([letter(61)])
        assert (sink.removed.replayed, sink.removed.others > 0) == (1, True)
        await sink.close()

    drive(main())


@given(st.lists(st.tuples(st.integers(1, 9), st.sampled_from([0.1, 25.0, 70.0])), min_size=1, max_size=8))
@settings(max_examples=60)
def test_what_a_limit_removes_is_one_event_a_minute_and_nothing_is_left_out(
    steps: list[tuple[int, float]],
) -> None:
    """Each letter of these is too large for the rest: every one removes a file."""
    logged: list[tuple[float, int, int]] = []
    now = 1_000_000.0

    class Listening(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if found := re.fullmatch(r"deadletters\.removed .* files=(\d+) .* not_replayed=(\d+)", record.getMessage()):
                logged.append((now, int(found[1]), int(found[2])))

    async def main(folder: Path) -> tuple[int, int]:
        nonlocal now
        sink = RetainingDeadLetters(folder, Retention(max_bytes=2000), seconds=lambda: now)
        count = 0
        for letters, pause in steps:
            for _ in range(letters):
                await sink.put([letter(count)])
                count += 1
            now += pause
        await sink.close()
        return count - sum(1 for _ in read_dead_letters(folder)), sink.removed.others

    with TemporaryDirectory() as folder, attached(Listening(), logging.WARNING):
        gone, counted = drive(main(Path(folder)))

    assert sum(letters for _, _, letters in logged) == gone == counted
    times = [time for time, _, _ in logged]
    assert all(later - time >= 60 for time, later in pairwise(times[:-1]))  # the last one may be that of the end
    assert all(files >= 1 for _, files, _ in logged)


RULES = [None, Retention(keep_seconds=86400.0), Retention(max_bytes=10**6), Retention(86400.0, 10**6)]


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.sampled_from(["begin", "put", "put", "end"]), st.sampled_from(RULES)),
        max_size=12,
    ),
    st.booleans(),
)
@settings(max_examples=60)
def test_runs_that_share_a_folder_have_one_retention(
    steps: list[tuple[int, str, Retention | None]], is_there: bool
) -> None:
    """The first run decides, until all have ended: another rule would remove letters of the others."""

    async def main(folder: Path) -> None:
        if is_there:
            folder.mkdir()
        runs: dict[int, tuple[DirectoryDeadLetters, Retention | None]] = {}
        users: set[int] = set()
        kept = 0
        for number, step, rules in steps:
            if number not in runs:
                sink = DirectoryDeadLetters(folder) if rules is None else RetainingDeadLetters(folder, rules)
                runs[number] = sink, rules
            sink, rules = runs[number]
            if step == "end":
                await sink.close()
                del runs[number]
                users.discard(number)
                continue
            code = None
            try:
                await (sink.connect() if step == "begin" else sink.put([letter(kept)]))
            except Stopped as error:
                code = error.code
            await asyncio.sleep(0)
            await sink._worker.call(lambda: None)  # its first look for old letters is over
            assert code in (None, "IFX829")
            is_refused = code is not None
            is_user = step == "put" or folder.exists()
            assert is_refused is (is_user and any(runs[other][1] != rules for other in users))
            if is_user and not is_refused:
                users.add(number)
            kept += step == "put" and not is_refused
        for sink, _ in runs.values():
            await sink.close()
        assert not kept or sum(1 for _ in read_dead_letters(folder)) == kept

    with TemporaryDirectory() as folder:
        drive(main(Path(folder) / "letters"))


def test_a_folder_that_another_run_made_is_not_pruned_by_other_rules(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The run with the retention began before the folder was made."""
    folder, now = tmp_path / "letters", 1_000_000.0

    async def main() -> None:
        sink = RetainingDeadLetters(folder, Retention(keep_seconds=16.0), seconds=lambda: now)
        await sink.connect()
        await asyncio.sleep(0)
        await sink._worker.call(int)  # what it does at its start is over
        other = DirectoryDeadLetters(folder)
        await other.put([letter(1)])
        os.utime(dead_letter_files(folder)[0], (1, 1))
        await sink._worker.call(sink._apply)
        await other.close()
        assert sum(1 for _ in read_dead_letters(folder)) == 1
        await sink._worker.call(sink._apply)
        await sink.close()

    drive(main())
    assert "code=IFX829" in caplog.text
    assert not dead_letter_files(folder)


def test_prune_asks_marks_before_it_locks_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A replay may have the marks for half a minute, and every route waits for the folder."""
    put(tmp_path, [letter(number) for number in range(9)], 400)
    with_marks(tmp_path, [2, 3, 7])
    asked = 0
    when = Marks.when

    def while_free(marks: Marks, digest: bytes) -> int | None:
        nonlocal asked
        asked += 1
        with (tmp_path / ".lock").open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # as a route that keeps a letter
        return when(marks, digest)

    monkeypatch.setattr(Marks, "when", while_free)
    done = iggyflux("dead-letters", "prune", str(tmp_path), "--replayed", "--yes")

    assert (done.code, asked >= 9) == (0, True), done.err
    assert [each.message.offset for each in read_dead_letters(tmp_path)] == [0, 1, 4, 5, 6, 8]


def _broken(*_given: object) -> None:
    raise ValueError("no number")


def with_marks(path: Path, numbers: Sequence[int]) -> None:
    marks = Marks(path)
    lines = [line for file in dead_letter_files(path) for line in file.read_bytes().splitlines(keepends=True)]
    marks.add([letter_digest(line) for line in lines if decode_letter(line).message.offset in numbers], 9 * 10**15)
    marks.close()


def test_letters_stay_where_it_cannot_be_told_which_were_replayed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put(tmp_path, [letter(number) for number in range(9)], 400)
    (tmp_path / "replayed.sqlite").write_bytes(b"no database" * 100)
    Retaining(tmp_path, Retention(max_bytes=500)).apply(0.0)
    assert len(list(read_dead_letters(tmp_path))) == 9
    assert "deadletters.not_removed" in caplog.text
    listed = iggyflux("dead-letters", "list", str(tmp_path))
    assert (listed.code, "IFX719" in listed.err) == (3, True)


def test_marks_of_a_replay_are_seen_by_the_next_one_only(tmp_path: Path) -> None:
    """Many letters are read a second time, while the first of them are marked already."""
    marks = Marks(tmp_path)
    marks.begin()
    marks.add([b"a"], 5)
    marks.begin()
    assert marks.when(b"a") is None
    marks.close()
    later = Marks(tmp_path)
    assert later.when(b"a") == 5
    later.begin()
    assert (later.when(b"a"), later.when(b"b")) == (5, None)
    later.close()


def test_of_two_failures_the_later_one_counts_in_whatever_order_they_are_read(tmp_path: Path) -> None:
    """Messages of a topic come by partition; a file of an older version has no table of them."""
    marks = Marks(tmp_path)
    marks.add([b"a"], 1)
    with closing(sqlite3.connect(tmp_path / "replayed.sqlite")) as file:
        file.execute("DROP TABLE failed")
    assert marks.failed(b"a") is None
    for at_us, code in [(7, "IFX340"), (5, "IFX346"), (9, "IFX609"), (8, "IFX345")]:
        marks.add([], at_us, {b"a": [Reason(code, "too long", elements=(1, 2))]})
    assert marks.failed(b"a") == (9, (Reason("IFX609", "too long", elements=(1, 2)),))
    assert marks.when(b"a") == 1
    marks.close()


def test_what_a_crash_left_of_a_line_goes_with_the_first_letter(tmp_path: Path) -> None:
    put(tmp_path, [letter(1), letter(2)])
    (file,) = dead_letter_files(tmp_path)
    first, second, _ = file.read_bytes().split(b"\n")
    file.write_bytes(b"\n".join([first, second, first[:30]]))
    rewrite(tmp_path, file, lambda _line, _place: False)
    assert file.read_bytes().endswith(first[:30])
    rewrite(tmp_path, file, lambda line, _place: line.startswith(first))
    assert file.read_bytes() == second + b"\n"


def test_letters_that_cannot_be_removed_are_told_with_their_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    put(tmp_path, [letter(1), letter(2)])
    assert remove_letters(tmp_path / "none", lambda _: True, b"{") == 0
    monkeypatch.setattr("iggyflux.transports.local.letter_removal.rewrite", refuse)
    with pytest.raises(Stopped, match=f"cannot remove dead letters of {tmp_path}: Permission denied") as stop:
        remove_letters(tmp_path, lambda _: True, b"{")
    assert (stop.value.code, bool(stop.value.hint)) == ("IFX715", True)
    assert len(list(read_dead_letters(tmp_path))) == 2


def test_a_file_that_retention_removes_meanwhile_does_not_keep_the_others(tmp_path: Path) -> None:
    """Neither before it is read nor after that."""
    for number in range(3):
        put(tmp_path, [letter(number)], 1)
    first, second, _ = dead_letter_files(tmp_path)

    def goes(_: DeadLetter) -> bool:
        first.unlink(missing_ok=True)
        second.unlink(missing_ok=True)
        return True

    assert remove_letters(tmp_path, goes, b"{") == 1
    assert not dead_letter_files(tmp_path)


@pytest.fixture
def mill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mill:
    monkeypatch.chdir(tmp_path)
    made = Mill(tmp_path)
    put(made.path, [letter(1), letter(2, "IFX609", "none"), letter(3)])
    return made


@pytest.mark.parametrize(
    ("command", "hint"),
    [
        (["replay", "dead-letters/looms", "--pipeline", "p.yaml"], " (--again sends them)"),
        (["dead-letters", "list", "dead-letters/looms", "--not-replayed"], ""),
    ],
)
def test_letters_that_were_replayed_are_no_other_letters(mill: Mill, command: list[str], hint: str) -> None:
    assert iggyflux("replay", "dead-letters/looms", "--pipeline", "p.yaml", "--reason", "IFX340").code == 0

    done = iggyflux(*command, "--reason", "IFX340")

    assert [each for each in done.err.splitlines() if each.startswith("note: ")] == [
        f"note: 2 letters were replayed before{hint}",
        "note: it has 1 other dead letter: mapping looms; codes IFX609",
    ]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["dead-letters", "prune", "dead-letters/looms"], 2, "which letters?"),
        (["dead-letters", "prune", "dead-letters/looms", "--all"], 130, "looms, 3 of them not replayed?"),
        (["dead-letters", "prune", "dead-letters/looms", "--reason", "IFX609", "--dry-run"], 0, "would remove 1 dead"),
        (["dead-letters", "prune", "dead-letters/looms", "--replayed"], 0, "3 other dead letters"),
        (["dead-letters", "prune", "iggy:mill/dead", "--replayed"], 2, "a topic cannot delete single messages"),
        (["replay", "dead-letters/looms", "--pipeline", "p.yaml", "--replayed"], 2, "with --again only"),
        (["replay", "dead-letters/looms", "--dry-run"], 2, "add --pipeline, or --mapping with --dry-run"),
        (
            ["replay", "dead-letters/looms", "--dry-run", "--mapping", "looms.yaml", "--pipeline", "p.yaml"],
            2,
            "--mapping and --pipeline are mutually exclusive",
        ),
        (
            ["replay", "dead-letters/looms", "--dry-run", "--mapping", "looms.yaml", "--as-is"],
            2,
            "--mapping and --as-is are mutually exclusive",
        ),
        (["dead-letters", "list", "dead-letters/looms", "--route", "looms"], 2, "--route needs --pipeline"),
        (
            ["dead-letters", "list", "dead-letters/looms", "--route", "x", "--pipeline", "p.yaml"],
            2,
            "its routes: looms",
        ),
        (
            ["dead-letters", "list", "dead-letters/looms", "--route", "looms", "--pipeline", "p.yaml"],
            0,
            "3 dead letters",
        ),
        (["dead-letters", "export", "dead-letters/looms", "--as", "log"], 2, "needs OUT"),
        (["dead-letters", "export", "dead-letters/looms", "p.yaml"], 2, "p.yaml already exists"),
    ],
)
@pytest.mark.usefixtures("mill")
def test_what_is_asked_wrongly_changes_nothing(arguments: list[str], code: int, words: str) -> None:
    done = iggyflux(*arguments)
    assert (done.code, words in done.err) == (code, True), done
    assert len(list(read_dead_letters(Path("dead-letters/looms")))) == 3


def test_a_mapping_with_two_routes_is_replayed_through_the_one_that_is_named(mill: Mill) -> None:
    run = "[{mapping: looms.yaml, name: a, to: 'file:a.lp'}, {mapping: looms.yaml, name: b, to: 'file:b.lp'}]"
    (mill.folder / "p.yaml").write_text(f"{{iggyflux: 1, from: 'log:data', run: {run}}}\n")
    unclear = iggyflux("replay", "dead-letters/looms", "--pipeline", "p.yaml", "--reason", "IFX340")
    assert (unclear.code, "choose one of them with --route (a, b)" in unclear.err) == (1, True)
    named = iggyflux("replay", "dead-letters/looms", "--pipeline", "p.yaml", "--reason", "IFX340", "--route", "b")
    assert named.code == 0, named
    assert (Path("a.lp").exists(), len(Path("b.lp").read_text().splitlines())) == (False, 2)


ROUTES = "{{iggyflux: 1, from: 'log:data', dead_letters: dl, run: [{}]}}\n"


def pipeline_of(*names: str) -> str:
    return ROUTES.format(", ".join(f"{{mapping: looms.yaml, name: {name}, to: 'file:{name}.lp'}}" for name in names))


def test_each_route_of_a_mapping_has_its_own_letters(mill: Mill) -> None:
    """Two routes of one mapping keep the same messages in one folder; the route that kept a letter sends it.

    Letters of a route that the pipeline does not have are sent where the command line says.
    """
    shutil.rmtree("data")
    with closing(Log.open(Path("data"), create=True)) as log:
        log.append("mill", "looms", [Message(b'{"ells": "none", "at": 1}'), Message(b'{"ells": 0.5, "at": "?"}')])
    Path("p.yaml").write_text(pipeline_of("a", "b"))
    assert iggyflux("run", "p.yaml", "--until-end", "--quiet").code == 0
    listed = iggyflux("dead-letters", "list", "dl").out
    assert (listed.count("looms (a)"), listed.count("looms (b)")) == (2, 2)
    mapping = Path("looms.yaml").read_text()
    Path("looms.yaml").write_text(mapping.replace("{ells: ells}", "{ells: {const: 1.5}}"))  # one message of two

    def replay(*more: str) -> tuple[int, list[int]]:
        done = iggyflux("replay", "dl", "--pipeline", "p.yaml", *more)
        assert (done.code in (0, 1), "Traceback" in done.err) == (True, False), done
        lines = [Path(f"{name}.lp") for name in "abc"]
        return done.code, [len(each.read_text().splitlines()) if each.exists() else 0 for each in lines]

    assert replay("--route", "a") == (1, [1, 0, 0])
    assert replay("--route", "b") == (1, [1, 1, 0])
    assert replay() == (1, [1, 1, 0])
    assert replay("--again") == (1, [2, 2, 0])
    assert iggyflux("replay", "dl", "--pipeline", "p.yaml", "--again", "--dry-run").out.count("cloth") == 2
    Path("p.yaml").write_text(pipeline_of("a", "c"))
    unclear = iggyflux("replay", "dl", "--pipeline", "p.yaml", "--again", "--dry-run")
    assert (unclear.code, unclear.out.count("cloth")) == (1, 1)
    assert "2 letters of mapping 'looms', of route 'b', which p.yaml does not have" in unclear.err
    assert replay("--route", "c", "--again") == (1, [2, 2, 1])


@pytest.mark.parametrize(
    ("of_all", "first", "second", "clashes"),
    [
        ("dl", "{path: dl, keep: 1h}", "", True),
        ("dl", "{path: dl, keep: 1h}", "./elsewhere/../dl", True),
        ("dl", "{path: dl, keep: 1h}", "link", True),
        ("dl", "{keep: 1h}", "{path: dead-letters/a}", True),
        ("dl", "{path: dl, keep: 1h}", "{path: dl, keep: 1h, max_bytes: 1MB}", True),
        ("dl", "{path: dl, keep: 1h}", "{path: dl, keep: 60m}", False),
        ("dl", "{keep: 1h}", "{max_bytes: 1MB}", False),
        ("{path: dl, max_bytes: 1MB}", "", "", False),
        ("dl", "{stream: mill, topic: dead}", "", False),
    ],
)
def test_routes_that_share_letters_keep_them_equally_long(
    mill: Mill, of_all: str, first: str, second: str, clashes: bool
) -> None:
    """What one of them removes may be a letter of the other one."""
    (mill.folder / "dl").mkdir()
    (mill.folder / "link").symlink_to("dl")
    (mill.folder / "elsewhere").mkdir()
    routes = [
        f"{{mapping: looms.yaml, name: {name}, to: 'file:{name}.lp'{f', dead_letters: {own}' if own else ''}}}"
        for name, own in (("a", first), ("b", second))
    ]
    text = f"{{iggyflux: 1, from: 'log:data', dead_letters: {of_all},\n run: [{routes[0]},\n {routes[1]}]}}\n"
    (mill.folder / "p.yaml").write_text(text)
    done = iggyflux("run", "p.yaml", "--until-end", "--mapping", "a")
    assert ("IFX829" in done.err) is clashes, done
    assert ("p.yaml:3:" in done.err and "'b' and 'a' share the dead letters in" in done.err) is clashes, done


def test_exported_letters_are_read_by_other_commands(mill: Mill) -> None:
    place = ["dead-letters", "export", "dead-letters/looms"]
    assert iggyflux(*place, "messages.ndjson").code == 0
    assert iggyflux(*place, "letters.ndjson", "--as", "letters", "--reason", "IFX340").code == 0
    assert iggyflux(*place, "payloads", "--as", "payloads", "--limit", "1").code == 0
    assert iggyflux(*place, "elsewhere", "--as", "log").code == 0
    assert Path("messages.ndjson").stat().st_mode & 0o777 == 0o600

    rendered = iggyflux("dry-run", "looms.yaml", "messages.ndjson", "--envelope")
    assert rendered.out.splitlines() == ["cloth ells=0.5 1000000000", "cloth ells=0.5 3000000000"]
    assert "expected a number, found string 'none'" in rendered.err
    assert iggyflux("dry-run", "looms.yaml", "log:elsewhere").out == rendered.out
    (payload,) = Path("payloads").iterdir()
    assert iggyflux("dry-run", "looms.yaml", str(payload), "--whole").out == rendered.out.splitlines(keepends=True)[0]
    assert iggyflux("replay", "letters.ndjson", "--pipeline", "p.yaml").code == 0
    assert (mill.folder / "points.lp").read_text() == rendered.out

    assert iggyflux(*place, "looms.yaml", "--as", "examples").code == 0
    assert "fails: IFX340" in Path("looms.yaml").read_text()
    assert iggyflux("test", "looms.yaml").code == 0


def test_a_letter_has_the_reason_of_its_newest_failure(mill: Mill) -> None:
    """When it was kept stays, and so do its rejected lines where none was rejected since."""
    line = "cloth ells=2.5 9"
    old = replace(letter(2, ells="none"), reasons=(Reason("IFX609", "a schema conflict", line=line, status=400),))
    put(mill.path, [old])
    place = "dead-letters/looms"
    (before,) = [row for row in rows_of(place) if row["reasons"][0].get("line")]

    for code, ells in [("IFX340", "ells"), ("IFX346", "no.such.member")]:
        (mill.folder / "looms.yaml").write_text(MAPPING.replace("{ells: ells}", f"{{ells: {ells}}}"))
        assert iggyflux("replay", place, "--pipeline", "p.yaml").code == 1
        chosen = rows_of(place, "--reason", code, "--not-replayed")
        assert {row["offset"] for row in chosen} >= {2}
        assert all(row["failed_again"] for row in chosen)
        assert not rows_of(place, "--reason", "IFX609")
        (after,) = [row for row in chosen if row["kept"] == before["kept"]]
        assert "line" not in after["reasons"][0]

    assert "failed    20" in iggyflux("dead-letters", "show", place, "mill/looms/0@2").out
    as_is = iggyflux("replay", place, "--pipeline", "p.yaml", "--as-is", "--dry-run")
    assert as_is.out == f"{line}\n"
    assert iggyflux("dead-letters", "export", place, "moved.ndjson", "--as", "letters").code == 0
    assert iggyflux("replay", "moved.ndjson", "--pipeline", "p.yaml", "--as-is", "--dry-run").out == f"{line}\n"
    (moved,) = [row for row in rows_of("moved.ndjson") if row["kept"] == before["kept"]]
    assert [each["code"] for each in moved["reasons"]] == ["IFX346", "IFX609"]
    assert iggyflux("dead-letters", "prune", place, "--reason", "IFX346", "--yes").code == 0
    assert not reasons_kept(mill.path)


def test_reasons_leave_with_letters_that_retention_removes(mill: Mill) -> None:
    """They may hold rejected lines, which are data."""
    put(mill.path, [letter(4, ells="none")], 1)
    assert iggyflux("replay", "dead-letters/looms", "--pipeline", "p.yaml").code == 1
    assert reasons_kept(mill.path) == 2
    Retaining(mill.path, Retention(max_bytes=1)).apply(0.0)
    assert [each.message.offset for each in read_dead_letters(mill.path)] == [4]
    assert reasons_kept(mill.path) == 1


def test_a_letter_that_waits_does_so_when_retention_removes_an_equal_one(tmp_path: Path) -> None:
    """It failed after it was replayed; what says so is known by its words, which both have."""
    for _ in range(2):
        put(tmp_path, [letter(4)], 1)
    first, second = dead_letter_files(tmp_path)
    digest = letter_digest(second.read_bytes())
    with closing(Marks(tmp_path)) as marks:
        marks.add([digest], 8 * 10**15)
        marks.add([], 9 * 10**15, {digest: [Reason("IFX340", "none")]})
    os.utime(first, (100, 100))
    Retaining(tmp_path, Retention(keep_seconds=50.0)).apply(200.0)
    assert dead_letter_files(tmp_path) == [second]
    assert (count_letters(tmp_path), reasons_kept(tmp_path)) == ((1, 0), 0)


def reasons_kept(folder: Path) -> int:
    with closing(sqlite3.connect(folder / "replayed.sqlite")) as marks:
        return int(marks.execute("SELECT count(*) FROM failed").fetchone()[0])


def rows_of(place: str, *options: str) -> list[Any]:
    done = iggyflux("dead-letters", "list", place, "--format", "json", *options)
    return [json.loads(line) for line in done.out.splitlines()]


class Topic:
    """What an Iggy server holds of one topic: payloads, in the order of their arrival."""

    def __init__(self) -> None:
        self.payloads: list[bytes] = []

    def __call__(self, _settings: object, *_address: str) -> Topic:
        return self

    async def connect(self) -> None: ...

    async def close(self) -> None: ...

    async def send(self, messages: Sequence[OutgoingMessage]) -> None:
        self.payloads += [message.payload for message in messages]

    async def read(self, _range: object) -> AsyncIterator[Message]:
        for offset, payload in enumerate(self.payloads):
            yield Message(payload, "mill", "dead", 0, offset)


def test_letters_of_a_topic_are_marked_in_it(mill: Mill, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mark is a message; the same letter twice is the later one; what is neither is refused."""
    topic = Topic()
    monkeypatch.setattr("iggyflux.cli.iggy.IggySink", topic)
    monkeypatch.setattr("iggyflux.cli.iggy.read_range", topic.read)
    iggy = "iggy: {username: u, password: p}, from: 'log:data', to: 'file:points.lp'"
    (mill.folder / "p.yaml").write_text(f"{{iggyflux: 1, {iggy}, run: [{{mapping: looms.yaml}}]}}\n")
    again = replace(letter(1), trace_id="4bf92f3577b34da6a3ce929d0e0e4736")
    letters = [letter(1), letter(2, "IFX609", "none"), letter(3), again]

    async def keep() -> None:
        await TopicDeadLetters(topic, seconds=lambda: 5.0).put(letters[:3])
        await TopicDeadLetters(topic, seconds=lambda: 6.0).put(letters[3:])

    drive(keep())
    place = ["iggy:mill/dead", "--pipeline", "p.yaml"]
    dry = iggyflux("replay", *place, "--dry-run")
    assert len(topic.payloads) == 4
    for number, sent in enumerate([2, 0, 0, 2]):
        done = iggyflux("replay", *place, *(["--again"] if number == 3 else []))
        assert done.code == 1
        assert f"{sent:,} point" in done.err
        assert "1 failed again" in done.err
    assert Path("points.lp").read_text() == dry.out * 2
    rows = [json.loads(line) for line in iggyflux("dead-letters", "list", *place, "--format", "json").out.splitlines()]
    assert [(row["offset"], row["replayed"] is not None) for row in rows] == [(2, False), (3, True), (1, True)]
    assert [row["reasons"][0]["code"] for row in rows] == ["IFX340"] * 3  # also of the one that was kept with IFX609
    assert [row["failed_again"] is not None for row in rows] == [True, False, False]
    assert "3 dead letters in iggy:mill/dead, 2 of them replayed" in iggyflux("dead-letters", "summary", *place).err
    drive(TopicDeadLetters(topic).put([letter(3)]))
    assert "3 dead letters in iggy:mill/dead, 1 of them replayed" in iggyflux("dead-letters", "summary", *place).err
    assert "1 point written" in iggyflux("replay", *place).err
    topic.payloads *= 9
    statements: list[str] = []

    def traced(*given: Any) -> sqlite3.Connection:
        opened = connect(*given)
        opened.set_trace_callback(statements.append)
        return opened

    with monkeypatch.context() as patch:
        patch.setattr("iggyflux.transports.local.letter_marks.connect", traced)
        assert "3 dead letters in iggy:mill/dead, 2 of them replayed" in iggyflux("dead-letters", "summary", *place).err
    assert sum("INSERT" in each for each in statements) >= 9 * 4
    assert statements.count("COMMIT") <= 1  # each waits for the disk
    topic.payloads.append(b'{"replayed":["no digest"],"at_us":1}')
    refused = iggyflux("dead-letters", "summary", *place)
    assert (refused.code, "IFX716" in refused.err) == (3, True)
