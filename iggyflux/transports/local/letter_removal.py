"""Removal of dead letters from a folder, also while processes keep letters there.

Nothing else ever changes a file of letters.  A file gets its new content by a rename, under the folder's lock: a writer
that appended before it is read whole, one that appends after it finds another file at its path and opens that.  A crash
leaves the old file or the new one.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from iggyflux.disk import open_private, sync_folder, write_whole
from iggyflux.errors import Stopped
from iggyflux.pipeline import Retention
from iggyflux.records import DeadLetter
from iggyflux.transports.base import Removed
from iggyflux.transports.local.deadletters import (
    LONGEST_LINE,
    MAX_FILE_BYTES,
    DirectoryDeadLetters,
    dead_letter_files,
    decode_letter,
    folder_lock,
    kept_us,
    letter_digest,
    letter_lines,
)
from iggyflux.transports.local.envelopes import EnvelopeError
from iggyflux.transports.local.letter_marks import FILE, Marks

log = logging.getLogger("iggyflux.deadletters")

_PARTS: Final = 16
"""How many files share the bytes and the time of a retention: what is removed at once is one of them."""

_REPORT_SECONDS: Final = 60.0
"""How often removals are logged: with a small limit, every few letters remove a file."""
_PAUSE_AFTER_FAILURE_SECONDS: Final = 10.0
_BUSY_SECONDS: Final = 0.1
"""How long retention waits for marks that a replay has locked: every route of the folder may wait for it."""


def rewrite(
    folder: Path,
    file: Path,
    goes: Callable[[bytes, str], bool],
    *,
    still: Callable[[os.stat_result], bool] = lambda _found: True,
    entire: bool = False,
) -> None:
    """Remove the lines of `file` for which `goes(line, place)` is true; a file without lines is removed.

    Nothing is done unless `still` is true of the file when it is locked.  Overlong lines stay, unless the file is to be
    removed `entire`: then `goes` only sees its letters.  An incomplete last line is left by a crash, since the lock
    excludes writers; it goes with the first letter.  Raise `OSError`, and what `goes` raises: the file is then as
    before.
    """
    new = file.with_name(f".{file.name}.new")
    with folder_lock(folder, shared=False), file.open("rb") as lines, ExitStack() as until:
        before = os.fstat(lines.fileno())
        if not still(before):
            return
        target = None
        position = left = 0
        for line, place in letter_lines(lines.readline, file):
            is_gone = bool(place) and goes(line, place)
            if is_gone and not entire and target is None:
                until.callback(new.unlink, missing_ok=True)
                target = open_private(new, os.O_TRUNC)
                until.callback(os.close, target)
                _copy(file, target, position)
                left = position
            is_torn = not line.endswith(b"\n") and len(line) <= LONGEST_LINE
            if target is not None and not (is_gone or is_torn):
                left += len(line)
                write_whole(target, line)
            position += len(line)
        if target is None and not entire:
            return
        if target is not None and left:
            os.fsync(target)
            os.utime(target, ns=(before.st_atime_ns, before.st_mtime_ns))
            new.replace(file)
        else:
            file.unlink()
        sync_folder(folder)


def remove_letters(folder: Path, goes: Callable[[DeadLetter], bool], has: bytes) -> int:
    """Remove the letters for which `goes` is true, of the lines that hold `has`, with their marks; return their number.

    Letters that are equal to such a one and kept later count as new ones.  A file is read before the folder is locked.
    Other lines stay.  Raise `Stopped` (IFX715, IFX719).
    """
    removed = 0
    going: set[bytes] = set()

    def is_gone(line: bytes, _place: str) -> bool:
        nonlocal removed
        is_going = letter_digest(line) in going
        removed += is_going
        return is_going

    try:
        with closing(Marks(folder)) as marks:
            for file in dead_letter_files(folder) if folder.exists() else ():
                with suppress(FileNotFoundError):  # retention removed it
                    with file.open("rb") as lines:
                        found = (line for line, place in letter_lines(lines.readline, file) if place and has in line)
                        going = {letter_digest(line) for line in found if _is_letter(line, goes)}
                    if going:
                        marks.forget(going)  # first: so none is left of a letter that is gone
                        rewrite(folder, file, is_gone)
    except OSError as error:
        hint = "correct the permissions, and begin again"
        raise Stopped(f"cannot remove dead letters of {folder}: {error.strerror or error}", hint, "IFX715") from error
    return removed


def _is_letter(line: bytes, wanted: Callable[[DeadLetter], bool]) -> bool:
    try:
        return wanted(decode_letter(line))
    except EnvelopeError:
        return False


def _copy(file: Path, target: int, count: int) -> None:
    """Copy the first `count` bytes of a file."""
    with file.open("rb") as data:
        while count:
            piece = data.read(min(count, 1 << 20))
            write_whole(target, piece)
            count -= len(piece)


def file_bytes(rules: Retention) -> int:
    """Return the size at which a file is full."""
    return MAX_FILE_BYTES if rules.max_bytes is None else max(min(MAX_FILE_BYTES, rules.max_bytes // _PARTS), 1)


def file_seconds(rules: Retention) -> float | None:
    """Return the age at which a file is full."""
    return None if rules.keep_seconds is None else rules.keep_seconds / _PARTS


@dataclass(slots=True)
class _Gone:
    """What a limit removed: the names of the files, in order, and the letters."""

    files: dict[str, None] = field(default_factory=dict)
    letters: Removed = field(default_factory=Removed)


class Retaining:
    """Applies a retention to a folder; `removed` counts.

    | limit | what goes first                                                                               |
    |-------|-----------------------------------------------------------------------------------------------|
    | age   | files whose last letter is older, replayed or not                                             |
    | bytes | letters that were replayed, the oldest first; then whole files, the oldest first, but never   |
    |       | the newest file                                                                               |
    """

    def __init__(self, folder: Path, rules: Retention) -> None:
        self._folder = folder
        self._rules = rules
        self._failed_seconds = -math.inf
        self._reported_seconds = -math.inf
        self._unreported: dict[str, _Gone] = {}
        self.removed = Removed()

    def apply(self, now_seconds: float) -> None:
        """Remove what is beyond the limits, and log what was removed, at most once a minute.

        Where that fails, letters stay, a warning is logged, and for a while nothing is tried.
        """
        self._try(now_seconds)
        if self._unreported and abs(now_seconds - self._reported_seconds) >= _REPORT_SECONDS:
            self._reported_seconds = now_seconds
            self.report()

    def report(self) -> None:
        """Log what was removed since the last time, an event for each limit."""
        for limit, gone in self._unreported.items():
            log.warning(
                "deadletters.removed folder=%s limit=%s files=%d first=%s last=%s replayed=%d not_replayed=%d",
                self._folder,
                limit,
                len(gone.files),
                *(next(iter(gone.files)), next(reversed(gone.files))),
                *(gone.letters.replayed, gone.letters.others),
            )
        self._unreported.clear()

    def _try(self, now_seconds: float) -> None:
        if abs(now_seconds - self._failed_seconds) < _PAUSE_AFTER_FAILURE_SECONDS:
            return
        try:
            self._apply(now_seconds)
        except FileNotFoundError:  # the folder has no letters yet, or is being removed
            return
        except OSError as error:
            log.warning("deadletters.not_removed folder=%s reason=%s", self._folder, error.strerror or error)
        except Stopped as error:
            log.warning("deadletters.not_removed folder=%s code=%s reason=%s", self._folder, error.code, error.reason)
        except Exception as error:  # a bug: a letter is kept, whatever becomes of old ones
            log.warning("deadletters.not_removed folder=%s reason=%r", self._folder, error)
        else:
            return
        self._failed_seconds = now_seconds

    def _apply(self, now_seconds: float) -> None:
        with closing(Marks(self._folder, _BUSY_SECONDS)) as marks:
            if self._rules.keep_seconds is not None:
                self._expire(marks, now_seconds - self._rules.keep_seconds)
            if self._rules.max_bytes is not None and self._bytes() > self._rules.max_bytes:
                self._shrink(marks, self._rules.max_bytes - file_bytes(self._rules))

    def _bytes(self) -> int:
        return sum(file.stat().st_size for file in dead_letter_files(self._folder))

    def _expire(self, marks: Marks, before_seconds: float) -> None:
        for file in dead_letter_files(self._folder):
            if file.stat().st_mtime < before_seconds:  # looked at again when it is locked
                old = partial(_is_older, seconds=before_seconds)
                self._remove(marks, file, "age", only_replayed=False, still=old)

    def _shrink(self, marks: Marks, target: int) -> None:
        files = dead_letter_files(self._folder)
        if (self._folder / FILE).exists():
            for file in files:
                if self._bytes() > target:
                    self._remove(marks, file, "max_bytes", only_replayed=True)
        for file in files[:-1]:
            if self._bytes() > target and file.exists():
                self._remove(marks, file, "max_bytes", only_replayed=False)

    def _remove(
        self,
        marks: Marks,
        file: Path,
        limit: str,
        *,
        only_replayed: bool,
        still: Callable[[os.stat_result], bool] = lambda _found: True,
    ) -> None:
        """Remove the letters of a file, or those that were replayed, and count them."""
        gone, digests = Removed(), list[bytes]()
        marks.when(b"")  # a fault of the marks shows before the folder is locked

        def goes(line: bytes, _place: str) -> bool:
            digest = letter_digest(line)
            is_replayed = marks.fate(digest, kept_us(line)).replayed_us is not None
            if is_replayed:
                gone.replayed += 1
            elif not only_replayed:
                gone.others += 1
            if is_gone := is_replayed or not only_replayed:
                digests.append(digest)
            return is_gone

        rewrite(self._folder, file, goes, still=still, entire=not only_replayed)
        if gone.replayed or gone.others:
            self.removed.replayed += gone.replayed
            self.removed.others += gone.others
            unreported = self._unreported.setdefault(limit, _Gone())
            unreported.files[file.name] = None
            unreported.letters.replayed += gone.replayed
            unreported.letters.others += gone.others
            marks.forget(digests, only_reasons=True)


class RetainingDeadLetters(DirectoryDeadLetters):
    """A `DeadLetterSink` on a directory with a retention, which is applied after each letter, and from time to time."""

    def __init__(self, path: Path, rules: Retention, *, seconds: Callable[[], float] = time.time) -> None:
        super().__init__(path, file_bytes(rules), max_seconds=file_seconds(rules), rules=rules, seconds=seconds)
        self._retaining = Retaining(path, rules)
        self._looking: asyncio.Task[None] | None = None
        self._pause = min(file_seconds(rules) or _REPORT_SECONDS, _REPORT_SECONDS)

    @property
    def removed(self) -> Removed:
        """What was removed since the start."""
        return self._retaining.removed

    async def connect(self) -> None:
        """As `DeadLetterSink.connect`; begin to look for old letters."""
        await super().connect()
        if self._looking is None:
            self._looking = asyncio.create_task(self._look())

    def _put(self, letters: Sequence[DeadLetter]) -> str:
        """Keep the letters, and remove what is beyond the limits, in one call of the thread."""
        file = super()._put(letters)
        self._apply()
        return file

    async def close(self) -> None:
        """As `DeadLetterSink.close`."""
        if self._looking is not None:
            self._looking.cancel()
        await super().close()

    def _finish(self) -> None:
        self._retaining.report()
        super()._finish()

    async def _look(self) -> None:
        while True:
            await self._worker.call(self._apply)
            await asyncio.sleep(self._pause)

    def _apply(self) -> None:
        try:
            self._claim_existing()
        except Stopped as error:  # another run made the folder: its letters stay, and ours are refused
            log.warning("deadletters.not_removed folder=%s code=%s reason=%s", self.path, error.code, error.reason)
        else:
            self._retaining.apply(self._seconds())


def _is_older(found: os.stat_result, *, seconds: float) -> bool:
    return found.st_mtime < seconds
