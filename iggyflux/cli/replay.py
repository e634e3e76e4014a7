"""`iggyflux replay`: renders dead letters again and sends them through their routes.

No letter is removed.  A letter is marked as replayed when all its points were accepted, and a second replay leaves it
out; after a crash between the two it is sent once more, as the same points.  Repeated failures are reported, and their
reasons are from then on those of the letter.  Letters are read to count them, and once more only if they are many; they
are never all in memory.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click
import msgspec

from iggyflux.cli.failures import show_failure
from iggyflux.cli.inputs import MAPPING_FILE, open_mapping, open_pipeline
from iggyflux.cli.letters import (
    KeptLetter,
    LetterCounts,
    LetterFilter,
    Letters,
    Marking,
    Origin,
    letter_options,
    selected_letters,
)
from iggyflux.cli.output import ExitCode, plural, result, show_problem, show_stop, talk, warn
from iggyflux.cli.printed_lines import PrintedLines
from iggyflux.cli.send_again import MOST_SHOWN, ReportedFailures, message_name, send_again
from iggyflux.errors import EndOfInput, Location, Problem
from iggyflux.mapping import OnError, WriterMapping, load_mapping
from iggyflux.plan.reads import reads_arrival
from iggyflux.records import Batch, DeadLetter, Message, Partition, Position, Reason, Rendered
from iggyflux.runner.build import SinkPlan
from iggyflux.runner.open import open_writers
from iggyflux.runner.route import Route, WriterPlan
from iggyflux.transports.base import Worker
from iggyflux.transports.schemas import AskingPlan

if TYPE_CHECKING:
    from iggyflux.transports.registry import SchemaRegistry

_BATCH: Final = 1000
_HERE: Final = Partition("dead-letters", "replay", 0)


@click.command(name="replay")
@letter_options
@click.option("--mapping", "mapping_file", type=MAPPING_FILE, help="Render with this mapping (only with --dry-run).")
@click.option("--as-is", is_flag=True, help="Send the rejected lines unchanged, instead of rendering again.")
@click.option("--again", is_flag=True, help="Send letters that were replayed, too.")
@click.option("--dry-run", is_flag=True, help="Print the lines without sending them.")
def command(
    path: Path | tuple[str, str],
    pipeline: Path | None,
    mapping_file: Path | None,
    as_is: bool,
    again: bool,
    dry_run: bool,
    chosen: LetterFilter,
) -> int:
    """Send dead letters again.

    PATH is a directory of dead letters, one of its files, or a topic: `iggy:STREAM/TOPIC`. Fix the mapping or
    the server first. Every message is then rendered and delivered as by `run`, through the route of --pipeline that
    kept its letter. --route chooses one where a letter names none, or one that --pipeline does not have. Repeated
    failures are reported, and the exit code is then 1; such a letter has the reasons of its newest failure.

    No dead letter is removed. A letter whose points were all accepted is marked as replayed, in its directory or
    topic, and is not sent again without --again.

    \b
    Example:
      iggyflux replay dead-letters/factory-env --pipeline pipeline.yaml --dry-run
      iggyflux replay dead-letters/factory-env --pipeline pipeline.yaml --reason IFX340
      iggyflux replay iggy:factory/dead-letters --pipeline pipeline.yaml
    """
    if pipeline is None and mapping_file is None and not (as_is and dry_run):
        raise click.UsageError("add --pipeline, or --mapping with --dry-run")
    if mapping_file is not None and (pipeline is not None or as_is):
        raise click.UsageError(f"--mapping and {'--as-is' if as_is else '--pipeline'} are mutually exclusive")
    if mapping_file is not None and not dry_run:
        raise click.UsageError("--mapping has no destination: add --dry-run, or --pipeline")
    if not again:
        if chosen.is_replayed:
            raise click.UsageError("letters that were replayed are sent with --again only")
        chosen = dataclasses.replace(chosen, is_replayed=False)
    with selected_letters(path, pipeline, chosen) as letters:
        letters.count_all()
        talk(f"{plural(letters.count, 'dead letter')} selected in {letters.name}")
        letters.report_replayed(" (--again sends them)")
        if not letters.count:
            letters.report_others()
            return ExitCode.PROBLEMS if letters.too_large else ExitCode.OK
        if dry_run:
            code = _dry_run(letters, pipeline, mapping_file, as_is)
        else:
            assert pipeline is not None  # noqa: S101
            code = asyncio.run(_send(letters, pipeline, as_is))
        return max(code, ExitCode.PROBLEMS) if letters.too_large else code


# --- without sending ---


def _dry_run(letters: Letters, pipeline: Path | None, mapping_file: Path | None, as_is: bool) -> int:
    if as_is:
        count = 0
        printed = PrintedLines()
        for kept in letters.of():
            result(printed.text(kept.lines))
            count += len(kept.lines)
        talk(f"{plural(count, 'line')} as they were rejected")
        return ExitCode.OK
    if mapping_file is not None:
        mapping = open_mapping(mapping_file)
        if mapping.kind == "reader":
            raise click.UsageError(f"{mapping_file} is a reader: its dead letters are rows, which dry-run reads")
        return _render(mapping, letters.of(), {})
    assert pipeline is not None  # noqa: S101
    routes_of_letters, code = _routes_of(letters, pipeline, letters.chosen.route)
    for each in routes_of_letters:
        code = max(code, _render(each.mapping, letters.of(each.origins), each.route.tags, each.route.registry))
    return code


def _render(
    mapping: WriterMapping,
    letters: Iterator[KeptLetter],
    tags: Mapping[str, str],
    registry: SchemaRegistry | None = None,
) -> int:
    plan = AskingPlan(mapping, registry, tags=tags)
    printed, messages, lines, failures, failed = PrintedLines(), 0, 0, 0, 0
    while chunk := [kept.letter.message for kept in islice(letters, _BATCH)]:
        rendered: Any = plan.render(chunk)
        result(printed.text(zip(rendered.buckets or repeat(None), rendered.lines, strict=False)))
        for failure in rendered.failures[: max(MOST_SHOWN - failures, 0)]:
            show_failure(mapping, message_name(chunk[failure.index]), failure)
        messages += len(chunk)
        lines += len(rendered.lines)
        failures += len(rendered.failures)
        failed += len({failure.index for failure in rendered.failures})
    if failures > MOST_SHOWN:
        talk(f"… and {plural(failures - MOST_SHOWN, 'more failure')}")
    made = f"{plural(messages, 'message')} render {plural(lines, 'line')}"
    talk(f"{mapping.name}: {made}, {failed:,} fail again")
    return ExitCode.PROBLEMS if failed else ExitCode.OK


# --- sending ---


@dataclasses.dataclass(frozen=True, slots=True)
class _RouteOfLetters:
    """A route of the pipeline, with its mapping, and the origins of the letters that it sends."""

    route: Route
    mapping: WriterMapping
    origins: list[Origin]


def _routes_of(
    letters: Letters, path: Path, only: str | None, *, as_is: bool = False
) -> tuple[list[_RouteOfLetters], int]:
    """Return the routes of the letters; the exit code is 1 if some letters have none, or several.

    | the letter names       | its route                                                                   |
    |------------------------|-----------------------------------------------------------------------------|
    | a route of `path`      | this one                                                                    |
    | no route, as older did | the only one of its mapping, or `only`, which the command line names        |
    | another route          | `only`: it was renamed or removed, and another one may have another server  |
    | another pipeline file  | `only`: a route of the same name there may have another server              |
    """
    pipeline = open_pipeline(path)
    documents = {item.mapping: load_mapping(item.mapping) for item in pipeline.routes}
    mappings = {mapping.name: mapping for mapping in documents.values()}
    routes: dict[str, list[Route]] = {}
    for route in open_writers(pipeline, only=[] if only is None else [only]):
        routes.setdefault(route.mapping, []).append(route)
    code = ExitCode.OK
    found: dict[str, _RouteOfLetters] = {}
    for (name, kept_by, file), counts in letters.counts_by_origin.items():
        count = plural(counts.count, "letter")
        mapping = mappings.get(name)
        if mapping is not None and mapping.kind == "reader":
            hint = f"`iggyflux cursor set {path} --mapping {kept_by or name} --at TIME` reads them again"
            warn(f"{count} of {name!r}, a reader, whose failures are rows ({hint})")
            code = ExitCode.PROBLEMS
            continue
        if mapping is None or name not in routes:
            known = ", ".join(sorted(routes))
            warn(f"cannot replay {count} of mapping {name!r}: {path} has no route for it (its routes: {known})")
            code = ExitCode.PROBLEMS
            continue
        by_name = {route.name: route for route in routes[name]}
        if file and only is None and pipeline.file_name not in ("", file):
            why = f"kept by route {kept_by!r} of {file}, which may have another server"
            others = ", ".join(sorted(by_name))
            warn(
                f"{count} of mapping {name!r}, {why}: name {file}, or choose a route of {path} with --route ({others})"
            )
            code = ExitCode.PROBLEMS
            continue
        is_clear = only is not None or (not kept_by and len(by_name) == 1)
        through = by_name.get(kept_by) or (routes[name][0] if is_clear else None)
        if through is None:
            why = f"of route {kept_by!r}, which {path} does not have" if kept_by else "which has several routes"
            warn(f"{count} of mapping {name!r}, {why}: choose one of them with --route ({', '.join(sorted(by_name))})")
            code = ExitCode.PROBLEMS
            continue
        if counts.without_arrival and not as_is and reads_arrival(mapping.writer):
            warn(
                f"{counts.without_arrival:,} of {count} of mapping {name!r} have no time of arrival, since they are of "
                "an archive, and the mapping reads it: give the points a `timestamp` of the payload"
            )
            code = ExitCode.PROBLEMS
            continue
        _warn_of_change(mapping, through, counts)
        found.setdefault(through.name, _RouteOfLetters(through, mapping, [])).origins.append((name, kept_by, file))
    return list(found.values()), code


def _warn_of_change(mapping: WriterMapping, route: Route, counts: LetterCounts) -> None:
    """Warn of letters of another plan than today's; letters of older versions do not say theirs."""
    plan = route.plan
    today = plan.identities() if isinstance(plan, SinkPlan) else {plan.identity}
    others = sum(count for identity, count in counts.plans.items() if identity and identity not in today)
    if others:
        message = f"the plan has changed since {others:,} of {plural(counts.count, 'letter')} failed"
        hint = "other points of these messages may have been written by the old one; --dry-run prints the new lines"
        place = Location(mapping.document.file)
        show_problem(Problem("IFX718", message, place, severity="warning", hint=hint))


async def _send(letters: Letters, path: Path, as_is: bool) -> int:
    routes_of_letters, code = _routes_of(letters, path, letters.chosen.route, as_is=as_is)
    again = ReportedFailures()
    routes = [_replaying(each, letters, letters.place.marking(), again, as_is) for each in routes_of_letters]
    summary = await send_again(routes)
    for route, status in zip(routes, summary.routes, strict=True):
        counts = f"{plural(status.read, 'message')}, {plural(status.delivered, 'point')} written"
        talk(f"{status.name}: {counts}, {status.dead_letters:,} failed again")
        source: Any = route.source
        if source.left:
            warn(f"{status.name}: {plural(source.left, 'letter')} not sent yet: replay again")
            code = max(code, ExitCode.PROBLEMS)
    for error in summary.errors:
        show_stop(error)
    for line in again.lines():
        talk(*line)
    return max(summary.exit_code, code, ExitCode.PROBLEMS if again.count else ExitCode.OK)


def _replaying(
    found: _RouteOfLetters, letters: Letters, marking: Marking, again: ReportedFailures, as_is: bool
) -> Route:
    """Return the route with letters as its source; failures are only reported."""
    route, counts = found.route, [letters.counts_by_origin[each] for each in found.origins]
    # Its letter exists already, so a message that an unavailable server does not accept needs no other one.
    patience = "stop" if route.policy.on_unavailable == "dead_letter" else route.policy.on_unavailable
    kept = letters.of(found.origins)
    source = LetterSource(
        map(_with_lines, (each for each in kept if each.lines)) if as_is else map(_whole, kept),
        sum(each.with_lines if as_is else each.count for each in counts),
        marking,
    )
    return dataclasses.replace(
        route,
        source=source,
        plan=_KeptLines() if as_is else route.plan,
        buckets=route.buckets if route.bucket_sink is not None else (),
        dead_letters=_FailedAgain(source, again),
        on_error=OnError.DEAD_LETTER,
        policy=dataclasses.replace(route.policy, on_unavailable=patience),
    )


class LetterMessage(NamedTuple):
    """A message of a letter, what identifies that, and the time in microseconds of what is newest of it."""

    message: Message
    digest: bytes
    newest_us: int


def _whole(kept: KeptLetter) -> LetterMessage:
    return LetterMessage(kept.letter.message, kept.digest, kept.fate.newest_us)


def _with_lines(kept: KeptLetter) -> LetterMessage:
    """Return a message whose payload is the list of the rejected lines with their buckets."""
    lines = [(bucket or "", line) for bucket, line in kept.lines]
    message = msgspec.structs.replace(kept.letter.message, payload=msgspec.json.encode(lines))
    return LetterMessage(message, kept.digest, kept.fate.newest_us)


class LetterSource:
    """A `Source` of the messages of letters.

    An acknowledgement marks what did not fail again, and keeps why others did, by a time after all that is known of
    them: clocks differ.  Messages without one stay in memory, and are read once more after a lost connection.
    """

    waiting_for: str | None = None

    def __init__(self, messages: Iterator[LetterMessage], count: int, marking: Marking) -> None:
        self._messages = messages
        self._marking = marking
        self._count = count
        self._read = 0
        self._settled = 0
        self._unsettled: deque[tuple[int, list[LetterMessage]]] = deque()
        self._waiting: deque[tuple[int, list[LetterMessage]]] = deque()
        self._failed: dict[int, list[Reason]] = {}
        self._worker = Worker("letters")

    @property
    def left(self) -> int:
        """Return the number of unsettled letters."""
        return self._count - self._settled

    def fail(self, message: Message, reasons: Sequence[Reason]) -> None:
        """Remember why a message, as `read` returned it, failed again: its letter is not marked."""
        self._failed.setdefault(id(message), []).extend(reasons)

    async def connect(self) -> None:
        """Connect to where marks are kept; what is unsettled is read again first."""
        await self._marking.connect()
        await self._worker.call(lambda: None)  # a read that was cancelled may still be going on
        self._waiting.extendleft(reversed(self._unsettled))
        self._unsettled.clear()
        self._failed.clear()

    async def read(self) -> Batch | None:
        """Return the next messages.  Raise `EndOfInput` after the last."""
        if not self._waiting:
            await self._worker.call(self._read_chunk)
        if not self._waiting:
            raise EndOfInput("all dead letters were read")
        end, chunk = self._waiting.popleft()
        self._unsettled.append((end, chunk))
        return Batch(_HERE, [each.message for each in chunk], end)

    def _read_chunk(self) -> None:
        """Read letters into what waits, so that a cancelled `read` loses none."""
        if chunk := list(islice(self._messages, _BATCH)):
            self._read += len(chunk)
            self._waiting.append((self._read, chunk))

    async def ack(self, positions: Sequence[Position]) -> None:
        """Mark the settled letters that did not fail again; none is removed."""
        settled = max(position.offset for position in positions)
        done = [each for end, chunk in self._unsettled if end <= settled for each in chunk]
        if done:
            marked = [each.digest for each in done if id(each.message) not in self._failed]
            failed = {each.digest: self._failed[id(each.message)] for each in done if id(each.message) in self._failed}
            at_us = max(time.time_ns() // 1000, 1 + max(each.newest_us for each in done))
            await self._marking.add(marked, at_us, failed)
        while self._unsettled and self._unsettled[0][0] <= settled:
            self._unsettled.popleft()
        for each in done:
            self._failed.pop(id(each.message), None)
        self._settled = max(self._settled, settled)

    async def lag(self) -> Mapping[Partition, int]:
        """Return the number of unsettled letters."""
        return {_HERE: self.left}

    async def close(self) -> None:
        """End the thread that reads."""
        await self._worker.finish()
        await self._marking.close()


class _FailedAgain:
    """A `DeadLetterSink` that reports failures, and keeps their letters from being marked."""

    def __init__(self, source: LetterSource, report: ReportedFailures) -> None:
        self._source = source
        self._report = report

    async def connect(self) -> None:
        """Do nothing: nothing is opened."""

    async def put(self, letters: Sequence[DeadLetter]) -> None:
        """Count the letters."""
        for letter in letters:
            self._source.fail(letter.message, letter.reasons)
        await self._report.put(letters)

    async def close(self) -> None:
        """Do nothing: nothing was opened."""


class _KeptLines(WriterPlan):
    """A plan that returns the rejected lines, which are the payload, for the buckets that rejected them."""

    def render(self, messages: Sequence[Message]) -> Rendered:
        lines: list[str] = []
        buckets: list[str] = []
        origins: list[int] = []
        for index, message in enumerate(messages):
            kept = msgspec.json.decode(message.payload, type=list[tuple[str, str]])
            lines += [line for _, line in kept]
            buckets += [bucket for bucket, _ in kept]
            origins += [index] * len(kept)
        return Rendered(lines, origins, buckets=buckets)
