"""What counts as kept is in the file that is at the path now, whatever was done to the files meanwhile."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Protocol

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from iggyflux.delivery.verdicts import Accepted
from iggyflux.errors import Stopped
from iggyflux.records import DeadLetter, Message, OutgoingMessage, Reason
from iggyflux.transports.local import log_store
from iggyflux.transports.local.deadletters import DirectoryDeadLetters, read_dead_letters
from iggyflux.transports.local.files import LineFileSink
from iggyflux.transports.local.log import Log, LogSink


class Keeper(Protocol):
    """A sink that keeps numbers in `folder`, and what another process reads there."""

    file: Path

    def __init__(self, folder: Path) -> None: ...

    async def keep(self, numbers: list[int]) -> bool:
        """Return whether it reports them as kept."""

    async def close(self) -> None: ...

    def read(self) -> set[int]: ...


class Letters:
    def __init__(self, folder: Path) -> None:
        self.folder, self.file = folder, folder / "00000001.ndjson"
        self._sink = DirectoryDeadLetters(folder, max_bytes=2000)

    async def keep(self, numbers: list[int]) -> bool:
        reasons = (Reason("IFX301", "bad"),)
        try:
            await self._sink.put([DeadLetter(Message(b"%d" % n, offset=n), "class", "", reasons) for n in numbers])
        except Stopped as stopped:
            return stopped.code != "IFX715"  # any other code fails the test
        return True

    async def close(self) -> None:
        await self._sink.close()

    def read(self) -> set[int]:
        if self.file.exists() and not self.file.is_file():
            return set()
        return {letter.message.offset for letter in read_dead_letters(self.folder, torn=lambda *_: None)}


class Lines:
    def __init__(self, folder: Path) -> None:
        self.folder, self.file = folder, folder / "lambda.out"
        self._sink = LineFileSink(self.file)

    async def keep(self, numbers: list[int]) -> bool:
        try:
            await self._sink.connect()
        except Stopped:
            return False
        return await self._sink.write([f"def v={number} 1" for number in numbers]) == Accepted()

    async def close(self) -> None:
        await self._sink.close()

    def read(self) -> set[int]:
        if not self.file.is_file():
            return set()
        whole = [line for line in self.file.read_text().splitlines(keepends=True) if line.endswith(" 1\n")]
        return {int(line[6:-3]) for line in whole if line.startswith("def v=")}


class LogMessages:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / log_store.FILE
        self._sink = LogSink(folder, "if", "else")

    async def keep(self, numbers: list[int]) -> bool:
        try:
            await self._sink.connect()
            await self._sink.send([OutgoingMessage(b"%d" % n, None, {}, None, n) for n in numbers])
        except Stopped:
            return False
        return True

    async def close(self) -> None:
        await self._sink.close()

    def read(self) -> set[int]:
        if not self.file.is_file():
            return set()
        try:
            return {int(message.payload) for message in Log.open(self.folder).tail("if", "else", 10**6)}
        except Stopped:  # the file is damaged, and this is reported
            return set()


KEEPERS = {"dead letters": Letters, "lines of a file": Lines, "messages of a log": LogMessages}


# What other processes do to the files


def remove_file(file: Path, _folder: Path) -> None:
    file.unlink()


def rename_file(file: Path, _folder: Path) -> None:
    file.rename(file.with_name(f"{file.name}.1"))


def cut_to_nothing(file: Path, _folder: Path) -> None:
    os.truncate(file, 0)


def cut_inside_of_a_line(file: Path, _folder: Path) -> None:
    os.truncate(file, max(file.stat().st_size - 7, 0))


def copy_over(file: Path, _folder: Path) -> None:
    """Replace the file by one with the same content, as editors do."""
    other = file.with_name("as")
    shutil.copy(file, other)
    other.replace(file)


def put_an_empty_file(file: Path, _folder: Path) -> None:
    other = file.with_name("as")
    other.touch()
    other.replace(file)


def put_a_full_disk(file: Path, _folder: Path) -> None:
    file.unlink()
    file.symlink_to("/dev/full")


def put_a_folder(file: Path, _folder: Path) -> None:
    file.unlink()
    file.mkdir()


def remove_folder(_file: Path, folder: Path) -> None:
    shutil.rmtree(folder)


def rename_folder(_file: Path, folder: Path) -> None:
    shutil.rmtree(folder.with_name("import"), ignore_errors=True)
    folder.rename(folder.with_name("import"))


def empty_folder(_file: Path, folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def link_folder_elsewhere(_file: Path, folder: Path) -> None:
    shutil.rmtree(folder.with_name("import"), ignore_errors=True)
    folder.rename(folder.with_name("import"))
    folder.with_name("other").mkdir(exist_ok=True)
    folder.symlink_to(folder.with_name("other"))


def put_a_file_for_the_folder(_file: Path, folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("")


FAULTS = (
    remove_file,
    rename_file,
    cut_to_nothing,
    cut_inside_of_a_line,
    copy_over,
    put_an_empty_file,
    put_a_full_disk,
    put_a_folder,
    remove_folder,
    rename_folder,
    empty_folder,
    link_folder_elsewhere,
    put_a_file_for_the_folder,
)
UNUSABLE = (put_a_full_disk, put_a_folder, put_a_file_for_the_folder)
Fault = Callable[[Path, Path], None]


def apply(fault: Fault, keeper: Keeper, folder: Path) -> None:
    """Do it where it is possible."""
    if folder.is_dir() and keeper.file.is_file() and not folder.is_symlink():
        fault(keeper.file, folder)


def run(work: Coroutine[None, None, None]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(work, 60)

    asyncio.run(bounded())


def emptied(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder / "from"


@pytest.mark.parametrize("kind", KEEPERS.values(), ids=KEEPERS)
@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_kept_after_a_fault_is_at_the_path(tmp_path: Path, kind: type[Keeper], fault: Fault) -> None:
    async def main() -> None:
        folder = tmp_path / "from"
        keeper = kind(folder)
        assert await keeper.keep([1, 2])
        apply(fault, keeper, folder)
        if await keeper.keep([3, 4]):
            assert {3, 4} <= keeper.read()
            assert await keeper.keep([5])
            assert {3, 4, 5} <= keeper.read()
        else:
            assert fault in UNUSABLE or kind is LogMessages
        await keeper.close()

    run(main())


@pytest.mark.parametrize("kind", KEEPERS.values(), ids=KEEPERS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(st.lists(st.sampled_from((None, *(fault for fault in FAULTS if fault not in UNUSABLE))), max_size=12))
def test_whatever_is_done_to_the_files_what_was_kept_last_is_at_the_path(
    tmp_path: Path, kind: type[Keeper], faults: list[Fault | None]
) -> None:
    async def main() -> None:
        folder = emptied(tmp_path / "while")
        keeper = kind(folder)
        since: set[int] = set()
        for number, fault in enumerate(faults):
            if fault is not None:
                apply(fault, keeper, folder)
                since = set()
            kept = {2 * number, 2 * number + 1}
            if await keeper.keep(sorted(kept)):
                since |= kept
                assert since <= keeper.read()
            else:
                assert kind is LogMessages  # which stops; the next run makes a new one
                await keeper.close()
                keeper = kind(folder)
        await keeper.close()

    run(main())


@pytest.mark.parametrize("kind", [Letters, Lines])
@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault not in UNUSABLE])
@pytest.mark.parametrize("times", [1, 1000])
def test_a_fault_between_writing_and_the_end_of_the_fsync_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Keeper], fault: Fault, times: int
) -> None:
    """The worst moment: the bytes are written and not yet reported; `times` 1000 is a process that does not stop."""

    async def main() -> None:
        folder = tmp_path / "from"
        keeper = kind(folder)
        assert await keeper.keep([1, 2])
        left = times

        def fsync(descriptor: int, fsync: Callable[[int], None] = os.fsync) -> None:
            nonlocal left
            fsync(descriptor)
            if left and keeper.file.is_file() and os.path.samestat(os.fstat(descriptor), keeper.file.stat()):
                left -= 1
                apply(fault, keeper, folder)

        monkeypatch.setattr(os, "fsync", fsync)
        if await keeper.keep([3, 4]):
            assert {3, 4} <= keeper.read()
        else:
            assert times > 1
        monkeypatch.undo()
        await keeper.close()

    run(main())


@pytest.mark.parametrize("kind", [Letters, Lines])
@pytest.mark.parametrize("call", range(6))
@pytest.mark.parametrize("is_there", [False, True], ids=["new", "there"])
def test_a_folder_that_is_removed_while_a_file_is_opened_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Keeper], call: int, is_there: bool
) -> None:
    async def main() -> None:
        folder = tmp_path / "global"
        if is_there:
            folder.mkdir()
        keeper = kind(folder)
        left = call

        def open_file(path: Path, *args: int, open_file: Callable[..., int] = os.open, **named: int) -> int:
            nonlocal left
            if str(path).startswith(str(folder)):
                left -= 1
                if left == -1:
                    shutil.rmtree(folder, ignore_errors=True)
            return open_file(path, *args, **named)

        monkeypatch.setattr(os, "open", open_file)
        assert await keeper.keep([1, 2])
        assert {1, 2} <= keeper.read()
        monkeypatch.undo()
        await keeper.close()

    run(main())


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault not in UNUSABLE])
def test_a_fault_right_after_the_commit_of_a_log_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    """SQLite has committed, perhaps to a file that is at no path any more; nothing counts as kept there."""
    is_replaced = log_store.LogStore._is_replaced

    async def main() -> None:
        folder = tmp_path / "from"
        keeper = LogMessages(folder)
        assert await keeper.keep([1, 2])
        calls = 0

        def fault_first(store: log_store.LogStore) -> bool:
            nonlocal calls
            calls += 1
            if calls == 3:  # after opening for the partitions and for the append
                apply(fault, keeper, folder)
            return is_replaced(store)

        monkeypatch.setattr(log_store.LogStore, "_is_replaced", fault_first)
        kept = await keeper.keep([3, 4])

        assert calls == 3
        assert not kept or {3, 4} <= keeper.read()
        monkeypatch.undo()
        await keeper.close()

    run(main())
