"""Dead letters: messages that could not be delivered completely, kept with everything that a replay needs.

A letter is one line of JSON: the message's envelope, the mapping's name, the plan's identity, and the reasons.  A kept
letter is on disk, in the file that is at the path now (or confirmed by the topic).  A letter that cannot be kept stops
the run.
Files are rotated by size and never changed afterwards; several processes may share a directory.
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import msgspec

from iggyflux.disk import make_folder
from iggyflux.errors import NotConnected, Stopped
from iggyflux.escapes import json_escaped
from iggyflux.records import JSON, DeadLetter, OutgoingMessage, Reason
from iggyflux.transports.base import MessageSink, Worker
from iggyflux.transports.local.append_file import ATTEMPTS, AppendFile
from iggyflux.transports.local.envelopes import EnvelopeError, decode_envelope, envelope_of

MAX_FILE_BYTES = 64 * 10**6
_SUFFIX = ".ndjson"
_OWN_KEYS = ("mapping", "plan", "reasons", "mapping_hash")  # the last one: letters of older versions have no `plan`

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
    """Return the JSON form of a letter: its mapping, the keys of its envelope, and its reasons."""
    return {
        "mapping": letter.mapping,
        "plan": letter.plan,
        **envelope_of(letter.message),
        "reasons": [{key: value for key, value in _fields(reason) if value is not None} for reason in letter.reasons],
    }


def decode_letter(line: bytes) -> DeadLetter:
    """Return the letter in a line.  Raise `EnvelopeError`."""
    try:
        tree = msgspec.json.decode(line, type=dict[str, msgspec.Raw])
        mapping, plan = (msgspec.json.decode(tree.get(key, msgspec.Raw(b'""')), type=str) for key in _OWN_KEYS[:2])
        reasons = msgspec.json.decode(tree.get("reasons", msgspec.Raw(b"[]")), type=list[Reason])
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise EnvelopeError(f"invalid dead letter: {error}") from error
    envelope = msgspec.json.encode({key: value for key, value in tree.items() if key not in _OWN_KEYS})
    return DeadLetter(decode_envelope(envelope, 0), mapping, plan, tuple(reasons))


def _fields(reason: Reason) -> Iterator[tuple[str, JSON]]:
    yield "code", reason.code
    yield "reason", reason.reason
    yield "location", reason.location or None
    yield "element", reason.element
    yield "elements", list(reason.elements) or None
    yield "point", reason.point
    yield "line", reason.line
    yield "status", reason.status


class DirectoryDeadLetters:
    """A `DeadLetterSink` on a directory: `00000001.ndjson`, `00000002.ndjson`, … of at most `max_bytes`."""

    def __init__(self, path: Path, max_bytes: int = MAX_FILE_BYTES) -> None:
        self.path = path
        self._max_bytes = max_bytes
        self._file: AppendFile | None = None
        self._size = 0
        self._worker = Worker("dead-letters")

    async def connect(self) -> None:
        """As `DeadLetterSink.connect`: the folder is made for the first letter."""

    async def put(self, letters: Sequence[DeadLetter]) -> None:
        """As `DeadLetterSink.put`: synced, and at its path, when it returns.  Raise `Stopped` (IFX715)."""
        await self._worker.call(self._put, letters)

    async def close(self) -> None:
        """As `DeadLetterSink.close`."""
        await self._worker.finish(self._close)

    def _put(self, letters: Sequence[DeadLetter]) -> None:
        data = b"".join(encode_letter(letter) + b"\n" for letter in letters)
        try:
            for _ in range(ATTEMPTS):
                file = self._ready(len(data))
                end = file.append(data)
                file.sync()
                if file.is_at(end):
                    self._size = end
                    return
        except OSError as error:
            raise self._stopped(error.strerror or str(error)) from error
        raise self._stopped("its files were removed or replaced while they were written")

    def _ready(self, need: int) -> AppendFile:
        """Return the file for the next `need` bytes: the open one, unless it is full or another process changed it."""
        file = self._file
        if file is not None:
            is_full = bool(self._size) and self._size + need > self._max_bytes
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
        make_folder(self.path, 0o700)
        number = max((int(path.stem) for path in dead_letter_files(self.path)), default=1)
        while True:
            file = AppendFile(self.path / f"{number:08d}{_SUFFIX}", private=True)
            try:
                self._size = file.size
                has_room = not self._size or self._size + need <= self._max_bytes
                if has_room and _is_free(file.descriptor) and _ends_whole(file.descriptor, self._size):
                    return file
            except OSError:
                file.close()
                raise
            file.close()
            number += 1

    def _stopped(self, reason: str) -> Stopped:
        hint = "free space or correct the permissions, and run again; nothing is lost"
        return Stopped(f"cannot keep dead letters in {self.path}: {reason}", hint, "IFX715")

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


class TopicDeadLetters:
    """A `DeadLetterSink` on a topic: the payload of each message is a line as in a directory."""

    def __init__(self, sink: MessageSink) -> None:
        self._sink = sink
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
            await self._sink.send([_outgoing(letter) for letter in letters])
        except NotConnected:
            self._connected = False
            raise

    async def close(self) -> None:
        """As `DeadLetterSink.close`."""
        await self._sink.close()


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
    found = [entry for entry in path.iterdir() if entry.suffix == _SUFFIX and entry.stem.isdigit()]
    return sorted(found, key=lambda entry: int(entry.stem))


def read_dead_letters(
    path: Path,
    *,
    torn: Callable[[Path, int], None] | None = None,
    too_large: Callable[[Path, int], None] | None = None,
) -> Iterator[DeadLetter]:
    """Return the letters of a directory, or of one file, in the order in which they were kept.

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
                try:
                    yield decode_letter(line)
                except EnvelopeError as error:
                    raise Stopped(f"{file}:{number}: {error}", "remove or correct the line", "IFX716") from error


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
