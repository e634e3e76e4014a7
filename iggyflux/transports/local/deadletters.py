"""Dead letters: messages that could not be delivered completely, kept with everything that a replay needs.

A letter is one line of JSON: when it was kept, the message's envelope, the names of its route, pipeline file and
mapping, the plan's identity, and the reasons.  A kept letter is on disk, in the file that is at its path now (or
confirmed by the topic).  A letter that cannot be kept stops the run.  Files are rotated by size; several processes may
share a directory.  Only `letter_removal` changes a file afterwards: a writer holds the folder's lock from the append to
the check that the file is still at its path.  Letters that come while others are being written share the next sync.
"""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import logging
import os
import re
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import msgspec

from iggyflux.disk import make_folder, open_private
from iggyflux.errors import NotConnected, Stopped
from iggyflux.escapes import json_escaped
from iggyflux.pipeline import Retention
from iggyflux.records import JSON, DeadLetter, OutgoingMessage, Reason
from iggyflux.transports.base import MessageSink, Worker
from iggyflux.transports.local.append_file import ATTEMPTS, AppendFile, leads_to
from iggyflux.transports.local.envelopes import EnvelopeError, decode_envelope, envelope_of
from iggyflux.transports.local.letter_rules import FolderRules

MAX_FILE_BYTES = 64 * 10**6
_SUFFIX = ".ndjson"
_LOCK = ".lock"
_OWN_KEYS = ("mapping", "plan", "route", "pipeline", "reasons", "kept_us", "trace_id", "mapping_hash")
"""The last one: letters of older versions have no `plan`."""
_NUMBER = re.compile("[0-9]+")
_KEPT = re.compile(rb'\{(?:"kept_us":([0-9]+),)?(?:"trace_id":"[^"\\]*",)?')

_MOST_JOINED_BYTES = 1_000_000
"""Of the payloads of letters that are written together, where they were put apart: so many need no other sync."""

log = logging.getLogger("iggyflux.deadletters")

LONGEST_LINE = 256 << 20
"""The longest line: a payload of 64 MB in base64, with lines and reasons.  A longer line is not a dead letter."""


def encode_letter(letter: DeadLetter) -> bytes:
    """Return the JSON line of a letter, without its end.  A lone surrogate becomes `?`."""
    encoded = msgspec.json.encode(letter_tree(letter))
    if encoded.isascii() and b"\x7f" not in encoded:  # a payload of many megabytes is not searched
        return encoded
    return json_escaped(encoded.decode()).encode()


def letter_tree(letter: DeadLetter) -> dict[str, JSON]:
    """Return the JSON form of a letter: when and by which route it was kept, its mapping, envelope and reasons."""
    return {
        **({"kept_us": letter.kept_us} if letter.kept_us else {}),  # `letter_digest` knows that it comes first
        **({} if letter.trace_id is None else {"trace_id": letter.trace_id}),
        **({"route": letter.route} if letter.route else {}),
        **({"pipeline": letter.pipeline} if letter.pipeline else {}),
        "mapping": letter.mapping,
        "plan": letter.plan,
        **envelope_of(letter.message),
        "reasons": [{key: value for key, value in _fields(reason) if value is not None} for reason in letter.reasons],
    }


def decode_letter(line: bytes) -> DeadLetter:
    """Return the letter in a line.  Raise `EnvelopeError`."""
    try:
        tree = msgspec.json.decode(line, type=dict[str, msgspec.Raw])
        names = (msgspec.json.decode(tree.get(key, msgspec.Raw(b'""')), type=str) for key in _OWN_KEYS[:4])
        mapping, plan, route, pipeline = names
        reasons = msgspec.json.decode(tree.get("reasons", msgspec.Raw(b"[]")), type=list[Reason])
        kept_us = msgspec.json.decode(tree.get("kept_us", msgspec.Raw(b"0")), type=int)
        trace_id = msgspec.json.decode(tree.get("trace_id", msgspec.Raw(b"null")), type=str | None)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise EnvelopeError(f"invalid dead letter: {error}") from error
    except RecursionError as error:
        raise EnvelopeError("invalid dead letter: it is nested too deeply") from error
    envelope = msgspec.json.encode({key: value for key, value in tree.items() if key not in _OWN_KEYS})
    message = decode_envelope(envelope, 0)
    return DeadLetter(message, mapping, plan, tuple(reasons), trace_id, route, pipeline, kept_us=kept_us)


def is_mark(payload: bytes) -> bool:
    """Return whether a message of a topic of letters marks some of them as replayed, and is not a letter itself."""
    return payload.startswith(b'{"replayed":')


def letter_digest(line: bytes) -> bytes:
    """Return what identifies the letter in a line: a hash of all but the time and the trace in which it was kept."""
    begin = _KEPT.match(line)
    digest = hashlib.blake2b(b"{" if begin else b"", digest_size=16)
    digest.update(memoryview(line)[begin.end() if begin else 0 : len(line) - line.endswith(b"\n")])
    return digest.digest()


def kept_us(line: bytes) -> int:
    """Return when the letter that begins with `line` was kept, in microseconds since the epoch; 0: unknown."""
    found = _KEPT.match(line)
    return 0 if found is None or found[1] is None else int(found[1])


def _fields(reason: Reason) -> Iterator[tuple[str, JSON]]:
    yield "code", reason.code
    yield "reason", reason.reason
    yield "location", reason.location or None
    yield "element", reason.element
    yield "elements", list(reason.elements) or None
    yield "payload_line", reason.payload_line
    yield "point", reason.point
    yield "line", reason.line
    yield "status", reason.status
    yield "bucket", reason.bucket


@dataclass(slots=True)
class _Put:
    """Letters that are to be kept, and what became of that: the path of their file, or an error."""

    letters: Sequence[DeadLetter]
    end: str | Exception | None = None

    @property
    def payload_bytes(self) -> int:
        """The size of their payloads."""
        return sum(len(letter.message.payload) for letter in self.letters)


class DirectoryDeadLetters:
    """A `DeadLetterSink` on a directory: `00000001.ndjson`, `00000002.ndjson`, … of at most `max_bytes`."""

    def __init__(
        self,
        path: Path,
        max_bytes: int = MAX_FILE_BYTES,
        *,
        max_seconds: float | None = None,
        rules: Retention | None = None,
        seconds: Callable[[], float] = time.time,
    ) -> None:
        """A file is full after `max_bytes`, or when its first letter is `max_seconds` old; `rules` are those of the
        folder; `seconds` is the time since the epoch."""
        self.path = path
        self._rules = FolderRules(path, rules)
        self._max_bytes = max_bytes
        self._max_seconds = max_seconds
        self._seconds = seconds
        self._file: AppendFile | None = None
        self._size = 0
        self._begun = 0.0
        self._waiting: deque[_Put] = deque()
        self._worker = Worker("dead-letters")

    async def connect(self) -> None:
        """As `DeadLetterSink.connect`: the folder is made for the first letter.

        Raise `Stopped` (IFX829) if other runs keep letters there, and remove them otherwise.
        """
        await self._worker.call(self._claim_existing)

    async def put(self, letters: Sequence[DeadLetter]) -> str:
        """As `DeadLetterSink.put`: synced, and at its path, when it returns.  Raise `Stopped` (IFX715)."""
        put = _Put(letters)
        self._waiting.append(put)
        while put.end is None:  # a call keeps the first letters that wait, so one is enough
            await self._worker.call(self._put_waiting)
        if isinstance(put.end, Exception):
            raise put.end
        return put.end

    async def close(self) -> None:
        """As `DeadLetterSink.close`."""
        await self._worker.finish(self._finish)

    def _finish(self) -> None:
        self._close()
        self._rules.release()

    def _claim_existing(self) -> None:
        with suppress(OSError):  # the first letter needs the folder, and its error says more
            if self.path.is_dir():
                self._rules.claim()

    def _put_waiting(self) -> None:
        """Keep what waits, with one sync, but not more than is joined; what comes from now on waits for another one."""
        group, size = list[_Put](), 0
        while self._waiting and (not group or size + self._waiting[0].payload_bytes <= _MOST_JOINED_BYTES):
            group.append(self._waiting.popleft())
            size += group[-1].payload_bytes
        if not group:
            return
        end: str | Exception
        try:
            end = self._put(list(chain.from_iterable(put.letters for put in group)))
        except Exception as error:  # each put raises it
            end = error
        for put in group:
            put.end = end

    def _put(self, letters: Sequence[DeadLetter]) -> str:
        """Keep the letters; return the path of their file."""
        data = b"".join(encode_letter(letter) + b"\n" for letter in _kept_now(letters, self._seconds()))
        try:
            for _ in range(ATTEMPTS):
                with folder_lock(self.path, shared=True):
                    try:
                        self._rules.claim()
                        file = self._ready(len(data))
                    except FileNotFoundError:  # the folder was removed meanwhile
                        continue
                    end = file.append(data)
                    file.sync()
                    if file.is_at(end):
                        self._size = end
                        return str(file.path)
        except OSError as error:
            raise self._stopped(error.strerror or str(error)) from error
        raise self._stopped("its files were removed or replaced while they were written")

    def _ready(self, need: int) -> AppendFile:
        """Return the file for the next `need` bytes: the open one, unless it is full or another process changed it."""
        file = self._file
        if file is not None:
            is_full = not self._has_room(need)
            is_changed = file.size != self._size or not file.is_at(self._size)
            if is_changed:
                log.warning("deadletters.replaced file=%s", file.path)
            if is_full or is_changed:
                self._close()
        if self._file is None:
            self._file = self._open(need)
        return self._file

    def _open(self, need: int) -> AppendFile:
        """Return the last file, if it has room for `need` bytes and no other process has it, else a new one."""
        number = max((int(path.stem) for path in dead_letter_files(self.path)), default=1)
        while True:
            file = AppendFile(self.path / f"{number:08d}{_SUFFIX}", private=True)
            try:
                self._size = file.size
                self._begun = kept_us(os.pread(file.descriptor, 64, 0)) / 1_000_000 or self._seconds()
                if self._has_room(need) and _is_free(file.descriptor) and _ends_whole(file.descriptor, self._size):
                    return file
            except OSError:
                file.close()
                raise
            file.close()
            number += 1

    def _has_room(self, need: int) -> bool:
        """Return whether the file is empty, or neither full nor too old."""
        is_young = self._max_seconds is None or self._seconds() - self._begun <= self._max_seconds
        return not self._size or (self._size + need <= self._max_bytes and is_young)

    def _stopped(self, reason: str) -> Stopped:
        hint = "free space or correct the permissions, and run again; nothing is lost"
        return Stopped(f"cannot keep dead letters in {self.path}: {reason}", hint, "IFX715")

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


class TopicDeadLetters:
    """A `DeadLetterSink` on a topic: the payload of each message is a line as in a directory."""

    def __init__(self, sink: MessageSink, *, seconds: Callable[[], float] = time.time) -> None:
        """`seconds` is the time since the epoch."""
        self._sink = sink
        self._seconds = seconds
        self._connected = False

    async def connect(self) -> None:
        """Verify that the topic exists, before the first letter needs it; idempotent.

        Raise `NotConnected` or `Stopped`.
        """
        if not self._connected:
            await self._sink.connect()
            self._connected = True

    async def put(self, letters: Sequence[DeadLetter]) -> None:
        """As `DeadLetterSink.put`: confirmed by the topic when it returns.

        Raise `NotConnected` if the topic cannot be reached: the messages are then read, and their letters put, again.
        """
        try:
            await self.connect()
            await self._sink.send([_outgoing(letter) for letter in _kept_now(letters, self._seconds())])
        except NotConnected:
            self._connected = False
            raise

    async def close(self) -> None:
        """As `DeadLetterSink.close`."""
        await self._sink.close()


def _kept_now(letters: Sequence[DeadLetter], seconds: float) -> list[DeadLetter]:
    return [dataclasses.replace(letter, kept_us=int(seconds * 1_000_000)) for letter in letters]


def _outgoing(letter: DeadLetter) -> OutgoingMessage:
    message = letter.message
    headers = {"mapping": letter.mapping, "plan": letter.plan}
    return OutgoingMessage(encode_letter(letter), f"{message.partition}", headers, None, message.id)


def dead_letter_files(path: Path) -> list[Path]:
    """Return the files of a directory of dead letters, oldest first; `path` itself if it is a file.

    Raise `OSError`.
    """
    if path.is_file():
        return [path]
    found = [entry for entry in path.iterdir() if entry.suffix == _SUFFIX and _NUMBER.fullmatch(entry.stem)]
    return sorted(found, key=lambda entry: int(entry.stem))


def letter_lines(readline: Callable[[int], bytes], file: Path) -> Iterator[tuple[bytes, str]]:
    """Yield the lines of a file of letters, each with its place; pieces of lines without a letter have an empty one.

    An incomplete last line has none: its message was never acknowledged.
    """
    number, is_inside = 1, False
    while line := readline(LONGEST_LINE + 1):
        is_end = line.endswith(b"\n")
        yield line, f"{file}:{number}" if is_end and not is_inside and len(line) <= LONGEST_LINE else ""
        is_inside = not is_end
        number += is_end


def read_dead_letters(path: Path, **told: Callable[[Path, int], None]) -> Iterator[DeadLetter]:
    """Return the letters of `read_kept` alone."""
    return (letter for letter, _ in read_kept(path, **told))


def read_kept(
    path: Path,
    *,
    torn: Callable[[Path, int], None] | None = None,
    too_large: Callable[[Path, int], None] | None = None,
) -> Iterator[tuple[DeadLetter, bytes]]:
    """Return the letters of a directory, or of one file, in the order in which they were kept, each with its digest.

    A last line without its end is left by a crash: its message was never acknowledged and is read again.  `torn` is
    called with file and line number; by default a warning is logged.  So it is for a line of more than `LONGEST_LINE`
    bytes, which is skipped (`too_large`).  Raise `Stopped`: IFX716 with the place of a
    damaged line, IFX717 if there is nothing to read, or no permission.
    """
    if not path.exists():
        raise Stopped(f"no dead letters in {path}", _CHECK_PATH, "IFX717")
    with _translate_errors(path):
        files = dead_letter_files(path)
    for file in files:
        with _open(file) as lines:
            for number, line in enumerate(iter(lambda: lines.readline(LONGEST_LINE + 1), b""), 1):
                if len(line) > LONGEST_LINE:
                    if not _skip_line(lines, line):
                        reason = f"{file}:{number}: a line does not end"
                        raise Stopped(reason, "name a directory or file of dead letters", "IFX716")
                    (too_large or _tell_too_large)(file, number)
                    continue
                if not line.endswith(b"\n"):
                    (torn or _tell_torn)(file, number)
                    break
                yield letter_in(line, f"{file}:{number}"), letter_digest(line)


def letter_in(line: bytes, place: str) -> DeadLetter:
    """Return the letter in the line at `place`.  Raise `Stopped` (IFX716) if there is none."""
    try:
        return decode_letter(line)
    except EnvelopeError as error:
        raise Stopped(f"{place}: {error}", "remove or correct the line", "IFX716") from error


_CHECK_PATH = "check that it is the path of `dead_letters`, and its permissions"


@contextmanager
def _translate_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Stopped(f"cannot read {path}: {error.strerror}", _CHECK_PATH, "IFX717") from error


def _open(file: Path) -> BinaryIO:
    """Return an open file of letters.  It is read twice, and opening a pipe would wait for its writer."""
    with _translate_errors(file):
        if not file.is_file():
            raise Stopped(f"cannot read {file}: it is not a regular file", _CHECK_PATH, "IFX717")
        return file.open("rb")


def _tell_torn(file: Path, number: int) -> None:
    log.warning("deadletters.torn file=%s line=%d", file, number)


def _tell_too_large(file: Path, number: int) -> None:
    log.warning("deadletters.too_large file=%s line=%d max_bytes=%d", file, number, LONGEST_LINE)


def _skip_line(lines: BinaryIO, line: bytes) -> bool:
    """Read the rest of a line that begins with `line`; return whether it ends within eight times the longest line."""
    for _ in range(8):
        if not line or line.endswith(b"\n"):
            return True
        line = lines.readline(LONGEST_LINE)
    return False


def _is_free(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _ends_whole(file: int, size: int) -> bool:
    """Whether the last line is complete: nothing is appended after an incomplete one."""
    return size == 0 or os.pread(file, 1, size - 1) == b"\n"


@contextmanager
def folder_lock(folder: Path, *, shared: bool) -> Iterator[None]:
    """Hold the lock of a folder of letters: `shared` to append, which makes the folder, alone to remove letters.

    A lock file that was removed meanwhile, with its folder, is made again.  Raise `OSError`.
    """
    path = folder / _LOCK
    left = ATTEMPTS + shared  # the first one may find no folder
    while True:
        try:
            file = open_private(path)
        except FileNotFoundError:
            left -= 1
            if not shared or not left:
                raise
            make_folder(folder, 0o700)
            continue
        try:
            fcntl.flock(file, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
            if leads_to(path, file):
                yield
                return
        finally:
            os.close(file)
