"""`file:PATH`, stdin and stdout: messages as lines of NDJSON in, line protocol out.

A line is a bare payload or, if configured, an envelope with coordinates.  A line that is too long is never in memory
whole: a payload is truncated to a length that fails as too large, and an envelope stops the route.  The position in a
file is the byte after the last settled line.  It is stored with a fingerprint of the file's beginning, which shows
whether the file was replaced.  Written lines are on disk before they count as accepted.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import logging
import os
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from iggyflux.delivery.pace import Bounds
from iggyflux.delivery.verdicts import Accepted, Impossible, Verdict
from iggyflux.disk import file_name, has_input, remedy, write_whole
from iggyflux.errors import EndOfInput, Stopped
from iggyflux.escapes import escaped_lines
from iggyflux.payloads import MAX_PAYLOAD_BYTES
from iggyflux.pipeline import Start
from iggyflux.records import Batch, Message, Partition, Position
from iggyflux.state.sqlite import SUFFIX, SqliteState
from iggyflux.state.store import UPGRADE_HINT, StateStore
from iggyflux.transports.base import Worker
from iggyflux.transports.local.append_file import ATTEMPTS, AppendFile
from iggyflux.transports.local.envelopes import MAX_LINE_BYTES, EnvelopeError, bare_message, decode_envelope
from iggyflux.transports.local.input_lines import CHUNK_BYTES, InputLines, after_last_line

_MOST_CHUNKS = 256
_FINGERPRINT_BYTES = 4096
_STDIN_WAIT_SECONDS = 0.2
_KIND = "file-position"

log = logging.getLogger("iggyflux.files")


class _LineSource:
    """The common part of a file and stdin: lines into batches."""

    waiting_for: str | None = None

    def __init__(self, stream: str, topic: str, *, envelope: bool, batch_size: int) -> None:
        self._coordinates = (stream, topic)
        self._partition = Partition(stream, topic, 0)
        self._envelope = envelope
        self._limit = MAX_LINE_BYTES if envelope else MAX_PAYLOAD_BYTES
        self._batch_size = batch_size
        self._lines: InputLines | None = None
        self._stop: Stopped | None = None
        self._worker = Worker("line-source")

    async def read(self) -> Batch | None:
        """As `Source.read`."""
        return await self._worker.call(self._read)

    def _read(self) -> Batch | None:
        lines = self._lines
        if lines is None:
            raise EndOfInput("the input is closed")
        stream, topic = self._coordinates
        while True:
            if self._stop is not None:
                raise self._stop
            if not len(lines) and not self._more(lines):
                return None
            if self._envelope:
                messages = self._envelopes(lines)
            else:
                taken = lines.take(self._batch_size)
                messages = [bare_message(line, number, stream=stream, topic=topic) for number, line in taken]
            if messages:
                return Batch(self._partition, messages, lines.position)

    def _more(self, lines: InputLines) -> bool:
        """Return whether there are complete lines now.  Raise `EndOfInput` if there will be none.

        A long line takes several calls, so that a run can be stopped meanwhile.
        """
        for _ in range(_MOST_CHUNKS):
            data = self._next_bytes(lines)
            if data is None:
                return False
            if data:
                lines.feed(data)
            else:
                lines.finish()
                if not len(lines):
                    raise EndOfInput(f"the end of {lines.name} is reached")
            if len(lines):
                return True
        return False

    def _next_bytes(self, lines: InputLines) -> bytes | None:
        """Return the next bytes, at most a chunk; empty at the end, None if more may come."""
        raise NotImplementedError

    def _envelopes(self, lines: InputLines) -> list[Message]:
        """Return the next messages.  A line that is not an envelope stops only the next read."""
        stream, topic = self._coordinates
        messages: list[Message] = []
        while len(messages) < self._batch_size and len(lines):
            before = lines.position, lines.number
            for number, line in lines.take(1):
                try:
                    if len(line) > self._limit:
                        raise EnvelopeError(f"the line has more than {self._limit:,} bytes")
                    messages.append(decode_envelope(line, number, stream=stream, topic=topic))
                except EnvelopeError as error:
                    lines.position, lines.number = before
                    hint = "correct the line, or remove `envelope` if lines are plain payloads"
                    self._stop = Stopped(f"{lines.name}:{number + 1}: {error}", hint, "IFX711")
                    return messages
        return messages


def file_state(folder: Path, name: str) -> SqliteState:
    """Return the state of the consumer `name` of a file, in `folder`."""
    file = file_name(name)
    return SqliteState(
        folder / f"{file}{SUFFIX}",
        _KIND,
        name,
        f"the position of {name!r} in its file",
        previous=folder / f"{file}.json",
        upgrade_hint=f"{UPGRADE_HINT} (the file has its position in `line`)",
    )


class FileSource(_LineSource):
    """A `Source` on a file of NDJSON.  With `until_end` it ends with the file, else it waits for more lines.

    `state` keeps the position.  A line without its end is read when it is complete.
    """

    def __init__(
        self,
        path: Path,
        *,
        state: StateStore,
        stream: str = "",
        topic: str = "",
        envelope: bool = False,
        start: Start = Start(),  # noqa: B008  # frozen
        batch_size: int = 5000,
        until_end: bool = False,
    ) -> None:
        super().__init__(stream, topic, envelope=envelope, batch_size=batch_size)
        self._path = path
        self._state = state
        self._start = start
        self._until_end = until_end
        self._ends: deque[tuple[int, int]] = deque()

    async def connect(self) -> None:
        """As `Source.connect`; raise `Stopped` if the file is missing, in use, or was replaced."""
        await self._worker.call(self._connect)

    async def read(self) -> Batch | None:
        batch = await super().read()
        if batch is not None and self._lines is not None:
            self._ends.append((self._lines.position, self._lines.number))
        return batch

    async def ack(self, positions: Sequence[Position]) -> None:
        """As `Source.ack`."""
        settled = None
        while self._ends and self._ends[0][0] <= max(position.offset for position in positions):
            settled = self._ends.popleft()
        if settled is not None:
            await self._worker.call(self._store, *settled)

    async def lag(self) -> dict[Partition, int]:
        """Return nothing: no lag can be counted cheaply."""
        return {}

    async def close(self) -> None:
        """As `Source.close`."""
        await self._worker.finish(self._close)

    def _connect(self) -> None:
        self._state.take()
        if self._lines is not None:
            os.close(self._lines.descriptor)
            self._lines = None
        with self._translate_errors():
            if self._path.exists() and not self._path.is_file():  # opening a pipe waits for its writer
                hint = "name a regular file; `from: stdin` reads a pipe"
                raise Stopped(f"cannot read {self._path}: it is not a regular file", hint, "IFX710")
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            position, number = self._stored(descriptor)
        self._lines = InputLines(descriptor, str(self._path), self._limit, position=position, number=number)
        self._stop = None
        self._ends.clear()

    def _stored(self, descriptor: int) -> tuple[int, int]:
        content = self._state.read()
        size = os.fstat(descriptor).st_size
        if content is None:
            return self._begin(descriptor, size)
        position, number = content["position"], content["line"]
        continues = position > size or os.pread(descriptor, 1, position - 1) == b"\n"
        if (
            position > size + 1
            or not continues
            or _fingerprint(descriptor, content["sample"]) != content["fingerprint"]
        ):
            hint = f"remove {self._state.place} to read the input from its beginning"
            raise Stopped(
                f"{self._path} is not the file that was read before: it was truncated or replaced", hint, "IFX712"
            )
        return min(position, size), number

    def _begin(self, descriptor: int, size: int) -> tuple[int, int]:
        if self._start.kind == "first":
            return 0, 0
        if self._start.kind == "last":
            return after_last_line(descriptor, size)
        hint = "use `first` or `last`: a file has no offsets or times"
        raise Stopped(f"a file cannot start at an {self._start.kind}", hint, "IFX713")

    def _store(self, position: int, number: int) -> None:
        if self._lines is not None:
            descriptor = self._lines.descriptor
            sample = min(position, os.fstat(descriptor).st_size, _FINGERPRINT_BYTES)
            content = {
                "file": str(self._path),
                "position": position,
                "line": number,
                "sample": sample,
                "fingerprint": _fingerprint(descriptor, sample),
            }
            self._state.commit(content)

    def _next_bytes(self, lines: InputLines) -> bytes | None:
        with self._translate_errors():
            data = os.pread(lines.descriptor, CHUNK_BYTES, lines.end)
        return data if data or self._until_end else None

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise Stopped(f"cannot read {self._path}: {error.strerror}", remedy(error), "IFX710") from error

    def _close(self) -> None:
        if self._lines is not None:
            os.close(self._lines.descriptor)
            self._lines = None
        self._state.close()


class StdinSource(_LineSource):
    """A `Source` on standard input.  Its input cannot be read twice, so it keeps no position."""

    def __init__(
        self,
        *,
        stream: str = "",
        topic: str = "",
        envelope: bool = False,
        batch_size: int = 5000,
        descriptor: int = 0,
    ) -> None:
        super().__init__(stream, topic, envelope=envelope, batch_size=batch_size)
        self._lines = InputLines(descriptor, "<stdin>", self._limit)

    async def connect(self) -> None:
        """As `Source.connect`: there is nothing to open."""

    async def ack(self, positions: Sequence[Position]) -> None:
        """As `Source.ack`: there is nothing to keep."""

    async def close(self) -> None:
        """As `Source.close`."""
        await self._worker.finish()

    def _next_bytes(self, lines: InputLines) -> bytes | None:
        # A blocking read could not be stopped, so first wait a short time for input.
        if not has_input(lines.descriptor, _STDIN_WAIT_SECONDS):
            return None
        return os.read(lines.descriptor, CHUNK_BYTES)


class LineFileSink:
    """A `LineSink` on a file: lines are appended, and synced before they are accepted.

    A last line without its end is left by a crash: it was never accepted, is written again, and is truncated here.
    Overlapping writes share an fsync.  A file that was removed, renamed, replaced or truncated is reopened; lines that
    are not in the file at the path are then written again.
    """

    dialect = "v2"
    in_flight = Bounds.exactly(2)

    def __init__(self, path: Path) -> None:
        self.sent_bytes = 0
        self._path = path
        self._file: AppendFile | None = None
        self._end = 0
        self._worker = Worker("line-sink")
        self._syncer = Worker("line-sink-sync")
        self._syncing: asyncio.Task[None] | None = None
        self._next: asyncio.Task[None] | None = None

    async def connect(self) -> None:
        """As `LineSink.connect`; raise `Stopped` if the file cannot be written."""
        try:
            await self._worker.call(self._connect)
        except OSError as error:
            raise Stopped(f"cannot write to {self._path}: {error.strerror}", remedy(error), "IFX710") from error

    async def write(self, lines: Sequence[str]) -> Verdict:
        """As `LineSink.write`."""
        data = ("\n".join(lines) + "\n").encode()
        self.sent_bytes += len(data)
        reason: str | None = "it was removed or replaced while it was written"
        hint: str | None = "leave the file in its place, and run again"
        try:
            for _ in range(ATTEMPTS):
                file, end = await self._worker.call(self._append, data)
                await self._synced()
                if await self._syncer.call(file.is_at, end):
                    return Accepted()
                await self._worker.call(self._open_anew, file)
        except OSError as error:
            reason, hint = error.strerror, remedy(error)
        return Impossible(f"cannot write to {self._path}: {reason}", hint)

    async def close(self) -> None:
        """As `LineSink.close`."""
        while pending := {task for task in (self._syncing, self._next) if task is not None and not task.done()}:
            await asyncio.wait(pending)  # their writers were cancelled
        await self._syncer.finish()
        await self._worker.finish(self._close)

    async def _synced(self) -> None:
        """Return after an fsync that began after this call: the next one, shared by all waiting calls."""
        if self._next is None:
            self._next = asyncio.create_task(self._sync_after(self._syncing))
        await asyncio.shield(self._next)

    async def _sync_after(self, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait([before])
        self._syncing, self._next = self._next, None
        if self._file is not None:
            await self._syncer.call(self._file.sync)

    def _connect(self) -> None:
        if self._file is not None:
            return
        file = AppendFile(self._path)
        try:
            try:
                fcntl.flock(file.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._cut_torn_line(file.descriptor)
            except BlockingIOError:
                log.debug("files.shared path=%s", self._path)  # another process writes: it handles the end of the file
            fcntl.flock(file.descriptor, fcntl.LOCK_SH)
        except OSError:
            file.close()
            raise
        self._file, self._end = file, 0

    def _open_anew(self, file: AppendFile) -> None:
        """Close `file`, unless that was done already, and open the file at the path."""
        if self._file is file:
            log.warning("files.replaced path=%s", self._path)
            self._close()
            self._connect()

    def _cut_torn_line(self, file: int) -> None:
        size = end = os.fstat(file).st_size
        while end:
            start = max(end - CHUNK_BYTES, 0)
            if (found := os.pread(file, end - start, start).rfind(b"\n")) >= 0:
                end = start + found + 1
                break
            end = start
        if end < size:
            os.ftruncate(file, end)
            log.warning("files.repaired path=%s cut_bytes=%d", self._path, size - end)

    def _append(self, data: bytes) -> tuple[AppendFile, int]:
        if self._file is not None and self._file.size < self._end:  # truncated, perhaps inside a line
            self._open_anew(self._file)
        if self._file is None:
            raise OSError(errno.EBADF, "it is closed")
        self._end = self._file.append(data)
        return self._file, self._end

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


class StdoutSink:
    """A `LineSink` on standard output: lines as they are for a pipe or a file, escaped for a terminal."""

    dialect = "v2"
    in_flight = Bounds.exactly(1)

    def __init__(self, descriptor: int = 1) -> None:
        self.sent_bytes = 0
        self._descriptor = descriptor
        self._worker = Worker("stdout")

    async def connect(self) -> None:
        """As `LineSink.connect`: there is nothing to open."""

    async def write(self, lines: Sequence[str]) -> Verdict:
        """As `LineSink.write`."""
        return await self._worker.call(self._write, lines)

    async def close(self) -> None:
        """As `LineSink.close`."""
        await self._worker.finish()

    def _write(self, lines: Sequence[str]) -> Verdict:
        text = "".join(f"{line}\n" for line in lines)
        data = (escaped_lines(text) if os.isatty(self._descriptor) else text).encode()
        self.sent_bytes += len(data)  # the one thread that writes is the only one that counts
        try:
            write_whole(self._descriptor, data)
        except OSError as error:
            return Impossible(f"cannot write to standard output: {error.strerror}", remedy(error))
        return Accepted()


def _fingerprint(descriptor: int, sample: int) -> int:
    """Return a checksum of the first bytes of the file."""
    return zlib.crc32(os.pread(descriptor, sample, 0))
