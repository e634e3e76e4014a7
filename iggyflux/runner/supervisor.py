"""A supervisor: starts workers, which are processes, keeps them running, and learns from each what it does.

It does no work of its own, and knows nothing of routes: a worker is a command.

| a worker is  | this happens                   | the supervisor                                                       |
|--------------|--------------------------------|----------------------------------------------------------------------|
| running      | it reports (once a second)     | hands the report on                                                  |
|              | it writes an event to stderr   | logs it as its own, with `worker=N`                                  |
|              | … another line (a panic)       | logs it as `worker.said`                                             |
|              | it says nothing for 60 s       | kills it: its event loop hangs                                       |
|              | it ends with 0                 | leaves it ended: its work is done                                    |
|              | it ends with 3                 | leaves it ended: what stopped it does not heal; the others go on     |
|              | it ends otherwise: by a        | starts it again, after a wait that grows from 1 to 30 s while it     |
|              | signal (kill -9, no memory),   | ends without progress; what it had not acknowledged is read again    |
|              | with 1 (a broken document), …  |                                                                      |
|              | … for the fifth time in a row  | where the work has an end: gives it up, and the run is interrupted;  |
|              | without progress               | else tries again without end                                         |
|              | … after a stop was requested   | leaves it ended, and the run is interrupted                          |
| ending       | a stop is requested            | (it ignores SIGTERM: its work is done, and it ends with its own      |
|              |                                | code)                                                                |
| starting     | a stop is requested, and it    | leaves it ended: it had not begun (where the work has an end, the    |
|              | ends by SIGTERM                | run is interrupted)                                                  |
|              | it cannot be started (no       | logs `worker.not_started`; as a crash                                |
|              | memory, no process)            |                                                                      |
| waiting      | the time is over               | starts it                                                            |
|              | a stop is requested            | leaves it ended                                                      |
| any          | a stop is requested            | sends SIGTERM to each one                                            |
|              | … again                        | sends SIGINT, which ends a worker at once; after 5 s SIGKILL         |
|              | … `shutdown_seconds` and 10 s  | kills those that are left                                            |
|              | ago                            |                                                                      |
|              | SIGHUP                         | passes it on                                                         |
| any          | the supervisor dies, also by   | (the worker finds its pipe closed, and ends as after SIGTERM:        |
|              | kill -9                        | `reporting`)                                                         |

Signals of a terminal reach the supervisor only: each worker has a session of its own.  A worker whose work cannot be
done twice must not be run so: it is started again after any crash.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random as _random
import signal
import struct
import subprocess
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from iggyflux.delivery.backoff import backoff_seconds
from iggyflux.runner.clock import Clock, SystemClock, first_of
from iggyflux.runner.events import emit
from iggyflux.runner.reporting import LENGTH, VARIABLE
from iggyflux.runner.stop import Stop

WorkerState: TypeAlias = Literal["running", "waiting", "ended"]

_BACKOFF_SECONDS: Final = (1.0, 30.0)  # first, cap
_SILENT_SECONDS: Final = 60.0
_MOST_CRASHES: Final = 5
_AT_ONCE_SECONDS: Final = 5.0
_LAST_SECONDS: Final = 10.0
"""How much longer than its own timeout a worker may take to end."""
_OF_THE_SUPERVISOR: Final = ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC")
_LONGEST_LINE: Final = 1 << 20
_LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}

log = logging.getLogger("iggyflux.runner")


@dataclass(slots=True)
class WorkerProcess:
    """A worker, as the supervisor knows it."""

    number: int
    state: WorkerState = "waiting"
    pid: int | None = None
    starts: int = 0
    """How often it was started."""
    has_reported: bool = False
    """Whether its process has reported, and so handles signals."""
    code: int | None = None
    """The exit code of its last process; -N is signal N."""
    failed: bool = False
    """Whether it ended before its work was done, and is not started again."""
    past_cpu_seconds: float = 0.0
    """The CPU time of its processes that have ended, as far as it was looked at."""
    cpu_seconds: float = 0.0
    resident_bytes: int = 0

    def look(self) -> None:
        """Update the CPU time and the resident memory of its process, where /proc tells them."""
        with suppress(OSError, ValueError, IndexError):
            found = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
            ticks = int(found[11]) + int(found[12])
            self.cpu_seconds = ticks / os.sysconf("SC_CLK_TCK")
            self.resident_bytes = int(found[21]) * os.sysconf("SC_PAGE_SIZE")

    def close(self, code: int) -> None:
        """Remember that its process has ended."""
        self.pid, self.code = None, code
        self.past_cpu_seconds += self.cpu_seconds
        self.cpu_seconds, self.resident_bytes = 0.0, 0


class Supervisor:
    """Runs workers until all of them have ended."""

    def __init__(
        self,
        commands: Sequence[Sequence[str]],
        *,
        reported: Callable[[WorkerProcess, bytes], int],
        ended: Callable[[WorkerProcess], None] = lambda _: None,
        stop: Stop,
        has_end: bool,
        shutdown_seconds: float,
        environ: Mapping[str, str] | None = None,
        clock: Clock | None = None,
        random: Callable[[], float] = _random.random,
    ) -> None:
        """`commands` are the workers.

        `reported` is called with each report of a worker, and returns a number that grows with its progress.  `ended`
        is called when the process of a worker has ended, and has another state.  `has_end` says whether the work has an
        end.  `shutdown_seconds` is how long a worker may take to end.
        """
        self.workers = [WorkerProcess(number) for number in range(len(commands))]
        self._commands = commands
        self._reported, self._ended = reported, ended
        self._stop = stop
        self._has_end = has_end
        self._shutdown_seconds = shutdown_seconds
        given = os.environ if environ is None else environ
        self._environ = {name: value for name, value in given.items() if name not in _OF_THE_SUPERVISOR}
        self._clock = clock or SystemClock()
        self._random = random
        self._heard: dict[int, float] = {}
        """By worker: when its process was started, or reported last."""

    async def run(self) -> None:
        """Return when all workers have ended."""
        watching = asyncio.create_task(self._watch(), name="workers")
        try:
            await asyncio.gather(*map(self._keep, self.workers))
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            self.pass_on(signal.SIGKILL)  # only after a mistake of ours there is one left

    def pass_on(self, number: signal.Signals) -> None:
        """Send a signal to each worker; SIGHUP only to those that have begun: the others read all files anyway."""
        for worker in self.workers:
            if worker.has_reported or number != signal.SIGHUP:
                self._send(worker, number)

    def _send(self, worker: WorkerProcess, number: signal.Signals) -> None:
        if worker.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(worker.pid, number)

    # --- one worker ---

    async def _keep(self, worker: WorkerProcess) -> None:
        """Run a worker, again after each crash, until it has ended."""
        crashes = 0
        while not self._stop.requested.is_set():
            try:
                progress = await self._run_once(worker)
            except OSError as error:  # the machine has no process, memory or file left: it may have later
                emit(log, logging.ERROR, "worker.not_started", worker=worker.number, reason=error.strerror)
                progress, worker.code = [], 1
            crashes = 1 if progress[0:1] < progress[1:] else crashes + 1
            is_crash, is_stopping = worker.code not in (0, 3), self._stop.requested.is_set()
            if worker.code == -signal.SIGTERM and is_stopping and not progress and not self._has_end:
                is_crash = False  # it was stopped before it had begun
            worker.failed = is_crash and (is_stopping or (self._has_end and crashes >= _MOST_CRASHES))
            if not is_crash or worker.failed:
                self._end(worker, None)
                return
            first, cap = _BACKOFF_SECONDS
            seconds = backoff_seconds(crashes, self._random(), first=first, cap=cap)
            self._end(worker, seconds)
            await first_of(self._stop.requested.wait(), self._clock.sleep(seconds))
        worker.state, worker.failed = "ended", self._has_end
        self._ended(worker)

    def _end(self, worker: WorkerProcess, again: float | None) -> None:
        worker.state = "ended" if again is None else "waiting"
        is_stopping = self._stop.requested.is_set()
        is_done = (worker.code == 0 and self._has_end) or (worker.code in (0, 3) and is_stopping)
        level = logging.INFO if is_done else logging.ERROR
        by = None if worker.code is None or worker.code >= 0 else _name_of(-worker.code)
        code = None if by else worker.code
        seconds = None if again is None else round(again, 1)
        emit(log, level, "worker.ended", worker=worker.number, code=code, signal=by, again_in_seconds=seconds)
        self._ended(worker)

    async def _run_once(self, worker: WorkerProcess) -> list[int]:
        """Run the process of a worker; return its progress by its first and its last report."""
        reading, writing = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                *self._commands[worker.number],
                stdin=subprocess.DEVNULL,
                stdout=None if worker.number == 0 else subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env={**self._environ, VARIABLE: str(writing)},
                pass_fds=[writing],
                start_new_session=True,
            )
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        worker.pid, worker.state, worker.starts = process.pid, "running", worker.starts + 1
        worker.has_reported = False
        self._heard[worker.number] = self._clock.monotonic()
        emit(log, logging.INFO, "worker.started", worker=worker.number, pid=process.pid)
        if self._stop.requested.is_set():
            self._send(worker, signal.SIGTERM)
        assert process.stderr is not None  # noqa: S101
        reports = asyncio.create_task(self._read_reports(worker, reading))
        lines = asyncio.create_task(_read_lines(worker.number, process.stderr))
        try:
            worker.close(await process.wait())
            await asyncio.wait([reports, lines], timeout=_AT_ONCE_SECONDS)  # what it said last
        finally:
            for task in (reports, lines):
                task.cancel()
            found = await asyncio.gather(reports, lines, return_exceptions=True)
        for error in found:
            if isinstance(error, Exception):
                raise error
        return found[0] if isinstance(found[0], list) else []

    async def _read_reports(self, worker: WorkerProcess, descriptor: int) -> list[int]:
        """Hand on the reports of a process, until it closes the pipe; return the progress of the first and the last."""
        progress: list[int] = []
        async for report in _reports_of(descriptor):
            self._heard[worker.number] = self._clock.monotonic()
            worker.has_reported = True
            progress = [*progress[:1], self._reported(worker, report)]
        return progress

    # --- all of them ---

    async def _watch(self) -> None:
        """Pass a stop on, and kill workers that are silent or do not end."""
        await first_of(self._stop.requested.wait(), self._kill_silent())
        self.pass_on(signal.SIGTERM)
        await first_of(self._stop.at_once.wait(), self._clock.sleep(self._shutdown_seconds + _LAST_SECONDS))
        if self._stop.at_once.is_set():
            self.pass_on(signal.SIGINT)
            await self._clock.sleep(_AT_ONCE_SECONDS)
        self.pass_on(signal.SIGKILL)

    async def _kill_silent(self) -> None:
        last = self._clock.monotonic()
        while True:
            await self._clock.sleep(1.0)
            now = self._clock.monotonic()
            if now - last > _SILENT_SECONDS / 2:  # this process did not run: the machine slept
                self._heard = dict.fromkeys(self._heard, now)
            last = now
            for worker in self.workers:
                worker.look()
                silent = now - self._heard.get(worker.number, now)
                if worker.pid is not None and silent > _SILENT_SECONDS:
                    emit(log, logging.ERROR, "worker.silent", worker=worker.number, seconds=round(silent))
                    self._heard[worker.number] = now
                    self._send(worker, signal.SIGKILL)


def _name_of(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)


# --- what workers say ---


async def _reports_of(descriptor: int) -> AsyncIterator[bytes]:
    """Yield each whole report that is written to a pipe; close the pipe."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb", buffering=0)
    )
    try:
        while True:
            (size,) = struct.unpack(LENGTH, await reader.readexactly(struct.calcsize(LENGTH)))
            yield await reader.readexactly(size)
    except asyncio.IncompleteReadError:
        return
    finally:
        transport.close()


async def _read_lines(worker: int, stream: asyncio.StreamReader) -> None:
    """Log what a worker writes to its stderr, line by line."""
    rest = b""
    while part := await stream.read(1 << 16):
        *lines, rest = (rest + part).split(b"\n")
        for line in lines:
            _log_line(worker, line)
        if len(rest) > _LONGEST_LINE:
            _log_line(worker, rest)
            rest = b""
    if rest:
        _log_line(worker, rest)


def _log_line(worker: int, line: bytes) -> None:
    """Log an event of a worker, or another line."""
    text = line.decode("utf-8", "replace")
    try:
        tree: dict[str, Any] = json.loads(text)
        level, logger, event = _LEVELS[tree.pop("level")], str(tree.pop("logger")), tree.pop("event")
        del tree["time"]
    except (ValueError, KeyError, TypeError, AttributeError):
        if text.strip():
            emit(log, logging.WARNING, "worker.said", worker=worker, line=text[:1000])
        return
    if "message" in tree:  # one that was logged as text
        logging.getLogger(logger).log(level, "%s %s worker=%d", event, tree["message"], worker)
    else:
        emit(logging.getLogger(logger), level, event, **{**tree, "worker": worker})
