"""`iggyflux load` in several processes: workers of this machine, or tasks of an engine."""

from __future__ import annotations

import asyncio
import json
import pickle
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from iggyflux.archives.files import Archive
from iggyflux.archives.job import load_route, state_folder
from iggyflux.archives.progress import storing_progress
from iggyflux.archives.source import Reading, Stored, identity_of, position_state, stored_positions
from iggyflux.cli.output import ExitCode, note, plural, show_stop, talk
from iggyflux.cli.progress import show_run, summary_lines
from iggyflux.cli.run import worker_command
from iggyflux.cli.send_again import ReportedFailures, by_code
from iggyflux.engines.ray import FileJob, load_files
from iggyflux.errors import Stopped
from iggyflux.pipeline import Pipeline, RouteSettings, TopicAddress
from iggyflux.records import DeadLetter
from iggyflux.runner import RouteStatus, Status, Stop, Summary, stopping_on_signals
from iggyflux.runner.merging import Part, after_end, merged_route, summary_of_workers
from iggyflux.runner.run import about_route
from iggyflux.runner.status import InputStatus
from iggyflux.runner.supervisor import Supervisor, WorkerProcess
from iggyflux.transports.base import DeadLetterSink
from iggyflux.transports.local.deadletters import decode_letter
from iggyflux.transports.share import Share

# --- workers of this machine ---


def shares_of(archives: Sequence[Archive], workers: int, left: Mapping[str, int]) -> list[list[str]]:
    """Return the names of the files that each worker loads: the largest go first, each to the worker that has least.

    `left` is by name about how many bytes of content are not loaded yet.
    """
    sizes, found = [0] * workers, [list[str]() for _ in range(workers)]
    for archive in sorted(archives, key=lambda each: (-left[each.name], each.name)):
        least = sizes.index(min(sizes))
        sizes[least] += left[archive.name] + 1
        found[least].append(archive.name)
    return found


def note_loaded(count: int) -> None:
    """Say how many of the files were loaded before."""
    note(f"{plural(count, 'file was', 'files were')} loaded before (--restart loads them again)")


def input_of(status: Status) -> InputStatus | None:
    """Return how much the one route of a load has read; None before it begins."""
    return next((route.input for route in status.routes), None)


def waits_of(status: Status) -> str | None:
    """Return what the one route of a load waits for."""
    return next((route.waiting_for for route in status.routes), None)


@dataclass(slots=True)
class WorkersLoad:
    """A load by `workers` processes; `words` are the arguments and options of each."""

    pipeline: Pipeline
    item: RouteSettings
    reading: Reading
    archives: Sequence[Archive]
    workers: int
    words: Sequence[str]
    rate: float | None = None
    """The records a second of all of them."""
    parts: list[Part] = field(default_factory=list)

    def run(self, log_format: str | None, *, quiet: bool) -> int:
        """Load; return the exit code."""
        route = load_route(self.pipeline, self.item, [], self.reading)
        left, complete = {}, 0
        states = [position_state(state_folder(self.pipeline), route.name, each) for each in self.archives]
        found = stored_positions(self.archives, states, whole=self.reading.whole)
        for archive, stored in zip(self.archives, found, strict=True):
            is_complete = stored is not None and stored.is_complete
            left[archive.name] = 0 if is_complete else archive.weight - (0 if stored is None else stored.sought[0])
            complete += is_complete
        self.workers = max(min(self.workers, len(self.archives) - complete), 1)
        weights, self.parts = {each.name: each.weight for each in self.archives}, []
        with TemporaryDirectory(prefix="iggyflux-") as folder:
            for number, names in enumerate(shares_of(self.archives, self.workers, left)):
                (Path(folder) / str(number)).write_text(json.dumps(names))
                total = sum(weights[name] for name in names)
                read = InputStatus(total - sum(left[name] for name in names), total)
                self.parts.append(Part(number, RouteStatus(route.name, about_route(route), input=read)))
            summary = asyncio.run(self._supervise(Path(folder), log_format, quiet=quiet))
        (status,) = summary.routes
        if not quiet or summary.exit_code or status.dead_letters:
            for line in summary_lines(summary):
                talk(*line)
        if status.dead_letters:
            place = self.item.dead_letters
            letters = self.pipeline.folder / "dead-letters" / route.name
            shown = letters if place is None or isinstance(place, TopicAddress) else place
            talk(f"failed: {by_code(status.reasons['dead_letters'])}")
            talk(f"`iggyflux dead-letters list {shown}` names the files and lines of what failed")
        if complete:
            note_loaded(complete)
        return summary.exit_code or (ExitCode.PROBLEMS if status.dead_letters else ExitCode.OK)

    async def _supervise(self, shares: Path, log_format: str | None, *, quiet: bool) -> Summary:
        stop, status, begin = Stop(), Status(routes=[merged_route(self.parts)]), time.monotonic()

        def reported(worker: WorkerProcess, report: bytes) -> int:
            found: Status = pickle.loads(report)  # noqa: S301  # of a process that this one started
            part = self.parts[worker.number]
            for route in found.routes:
                if route.input is None or not route.input.total:  # it has not found its files yet
                    route.input = part.now.input
                self.parts[worker.number] = replace(part, now=route)
            status.routes[:] = [merged_route(self.parts)]
            return sum(route.acknowledged for route in found.routes)

        def ended(worker: WorkerProcess) -> None:
            part = self.parts[worker.number]
            self.parts[worker.number] = after_end(part, again=worker.state == "waiting", failed=worker.failed)
            status.routes[:] = [merged_route(self.parts)]

        rate = [] if self.rate is None else ["--rate", str(self.rate / self.workers)]
        supervisor = Supervisor(
            [
                [
                    *worker_command("load", Share(number, self.workers)),
                    "--only",
                    str(shares / str(number)),
                    *rate,
                    *self.words,
                ]
                for number in range(self.workers)
            ],
            reported=reported,
            ended=ended,
            stop=stop,
            has_end=True,
            shutdown_seconds=self.pipeline.shutdown_timeout_seconds,
        )
        progress = show_run(status, log_format, quiet=quiet, without="record.failed")
        name = status.routes[0].name
        storing = storing_progress(
            state_folder(self.pipeline), name, lambda: input_of(status), lambda: waits_of(status)
        )
        with progress, stopping_on_signals(stop, for_good=True):
            async with storing:
                await supervisor.run()
        return summary_of_workers(status, time.monotonic() - begin, supervisor.workers)


# --- on many machines ---


def load_with_ray(
    pipeline: Pipeline,
    item: RouteSettings,
    archives: Sequence[Archive],
    reading: Reading,
    address: str | None,
    *,
    quiet: bool,
) -> int:
    """Load each file by a task; keep its dead letters, and then that it is loaded."""
    failed = ReportedFailures("failed")
    route = load_route(pipeline, item, [], reading)
    states = {each.name: position_state(state_folder(pipeline), route.name, each) for each in archives}
    todo = {}
    found = stored_positions(archives, list(states.values()), whole=reading.whole)
    for archive, stored in zip(archives, found, strict=True):
        if stored is None or not stored.is_complete:
            todo[archive.name] = identity_of(archive)
    if len(todo) < len(archives):
        note_loaded(len(archives) - len(todo))
    path, number = str((pipeline.path or Path()).resolve()), pipeline.routes.index(item)
    patterns = {each.name: each.local if each.url is None else each.url.reveal() for each in archives}
    jobs = [FileJob(path, number, patterns[name], name) for name in todo]
    code = ExitCode.OK
    for result in load_files(jobs, reading, address=address) if jobs else ():
        letters = [decode_letter(each) for each in result.letters]
        asyncio.run(_keep(route.dead_letters, failed, letters))
        if not quiet:
            counts = f"{plural(result.read, 'message')}, {plural(result.delivered, 'point')} written"
            talk(f"{result.name}: {counts}, {len(letters):,} failed")
        if result.error is not None:
            code, hint = ExitCode.STOPPED, result.error[2]
            show_stop(Stopped(f"{result.name}: {result.error[1]}", hint, result.error[0]))
            continue
        who = todo[result.name]
        state = states[result.name]
        state.take()
        state.commit(
            Stored(result.name, who.size, who.written, who.begin, result.read, is_complete=True, whole=reading.whole)
        )
        state.close()
    for line in failed.lines():
        talk(*line)
    return code or (ExitCode.PROBLEMS if failed.count else ExitCode.OK)


async def _keep(sink: DeadLetterSink, failed: ReportedFailures, letters: Sequence[DeadLetter]) -> None:
    if letters:
        await sink.connect()
        await sink.put(letters)
        await failed.put(letters)
