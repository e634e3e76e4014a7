"""`iggyflux replay`: renders dead letters again and sends them through their routes.

No letter is removed: a letter that is sent twice makes the same points, so a replay can be repeated.  Repeated failures
are reported.  Letters are read twice, to count and to send them, and are never all in memory.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from iggyflux.cli.failures import show_failure
from iggyflux.cli.iggy import LettersPlace
from iggyflux.cli.inputs import MAPPING_FILE, open_mapping, open_pipeline
from iggyflux.cli.letters import (
    LetterCounts,
    LetterFilter,
    Letters,
    filter_options,
    kept_lines,
    letters_on_disk,
    name_of_place,
    report_others,
)
from iggyflux.cli.output import ExitCode, plural, result, show_problem, show_stop, talk, warn
from iggyflux.cli.send_again import MOST_SHOWN, ReportedFailures, message_name, send_again
from iggyflux.errors import EndOfInput, Location, Problem
from iggyflux.mapping import OnError, WriterMapping, load_mapping
from iggyflux.records import Batch, DeadLetter, Message, Partition, Position, Rendered
from iggyflux.runner.build import SinkPlan
from iggyflux.runner.open import open_writers
from iggyflux.runner.route import Route, WriterPlan
from iggyflux.transports.base import Worker

_BATCH: Final = 1000
_HERE: Final = Partition("dead-letters", "replay", 0)


@click.command(name="replay")
@click.argument("path", type=LettersPlace())
@click.option(
    "--pipeline",
    type=MAPPING_FILE,
    help="Send through the routes of this pipeline, selected by the mapping of each letter.",
)
@click.option("--mapping", "mapping_file", type=MAPPING_FILE, help="Render with this mapping (only with --dry-run).")
@click.option("--as-is", is_flag=True, help="Send the rejected lines unchanged, instead of rendering again.")
@click.option("--dry-run", is_flag=True, help="Print the lines without sending them.")
@filter_options
def command(
    path: Path | tuple[str, str],
    pipeline: Path | None,
    mapping_file: Path | None,
    as_is: bool,
    dry_run: bool,
    chosen: LetterFilter,
) -> int:
    """Send dead letters again.

    PATH is a directory of dead letters, one of its files, or a topic: `iggy:STREAM/TOPIC`. Fix the mapping or
    the server first. Every message is then rendered and delivered as by `run`. Repeated failures are reported, and the
    exit code is then 1. No dead letter is removed.

    \b
    Example:
      iggyflux replay dead-letters/factory-env --pipeline pipeline.yaml --dry-run
      iggyflux replay dead-letters/factory-env --pipeline pipeline.yaml --reason IFX340
      iggyflux replay iggy:factory/dead-letters --pipeline pipeline.yaml
    """
    if (pipeline is None) == (mapping_file is None) and not (as_is and dry_run):
        raise click.UsageError("add --pipeline, or --mapping with --dry-run")
    if mapping_file is not None and not dry_run:
        raise click.UsageError("--mapping has no destination: add --dry-run, or --pipeline")
    with letters_on_disk(path, pipeline) as place:
        letters = Letters(place, chosen)
        talk(f"{plural(letters.count, 'dead letter')} selected in {name_of_place(path)}")
        if not letters.count:
            report_others(letters, place)
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
        for letter in letters.of():
            lines = kept_lines(letter)
            result("".join(f"{line}\n" for line in lines))
            count += len(lines)
        talk(f"{plural(count, 'line')} as they were rejected")
        return ExitCode.OK
    if mapping_file is not None:
        mapping = open_mapping(mapping_file)
        if mapping.kind == "reader":
            raise click.UsageError(f"{mapping_file} is a reader: its dead letters are rows, which dry-run reads")
        return _render(mapping, letters.of(), {})
    assert pipeline is not None  # noqa: S101
    routes_of_letters, code = _routes_of(letters, pipeline)
    for each in routes_of_letters:
        code = max(code, _render(each.mapping, letters.of(each.route.mapping), each.route.tags))
    return code


def _render(mapping: WriterMapping, letters: Iterator[DeadLetter], tags: Mapping[str, str]) -> int:
    plan, messages, lines, failures, failed = mapping.plan(tags=tags), 0, 0, 0, 0
    while chunk := [letter.message for letter in islice(letters, _BATCH)]:
        rendered: Any = plan.render(chunk)
        result("".join(f"{line}\n" for line in rendered.lines))
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
    """A route of the pipeline, with its mapping."""

    route: Route
    mapping: WriterMapping


def _routes_of(letters: Letters, path: Path) -> tuple[list[_RouteOfLetters], int]:
    """Return the routes of the letters' mappings; the exit code is 1 if some letters have no route."""
    pipeline = open_pipeline(path)
    documents = {item.mapping: load_mapping(item.mapping) for item in pipeline.routes}
    mappings = {mapping.name: mapping for mapping in documents.values()}
    routes = {route.mapping: route for route in open_writers(pipeline)}
    code = ExitCode.OK
    found = []
    for name, counts in letters.counts_by_mapping.items():
        count = plural(counts.count, "letter")
        mapping = mappings.get(name)
        if mapping is not None and mapping.kind == "reader":
            hint = f"`iggyflux cursor set {path} --mapping {name} --at TIME` reads them again"
            warn(f"{count} of {name!r}, a reader, whose failures are rows ({hint})")
            code = ExitCode.PROBLEMS
            continue
        if mapping is None or name not in routes:
            known = ", ".join(sorted(routes))
            warn(f"cannot replay {count} of mapping {name!r}: {path} has no route for it (its routes: {known})")
            code = ExitCode.PROBLEMS
            continue
        _warn_of_change(mapping, routes[name], counts)
        found.append(_RouteOfLetters(routes[name], mapping))
    return found, code


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
    routes_of_letters, code = _routes_of(letters, path)
    again = ReportedFailures()
    routes = [_replaying(each.route, letters, again, as_is) for each in routes_of_letters]
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


def _replaying(route: Route, letters: Letters, again: ReportedFailures, as_is: bool) -> Route:
    """Return the route with letters as its source; failures are only reported."""
    counts = letters.counts_by_mapping[route.mapping]
    # Its letter exists already, so a message that an unavailable server does not accept needs no other one.
    patience = "stop" if route.policy.on_unavailable == "dead_letter" else route.policy.on_unavailable
    return dataclasses.replace(
        route,
        source=LetterSource(
            lambda: _with_lines(letters.of(route.mapping)) if as_is else _messages(letters.of(route.mapping)),
            counts.with_lines if as_is else counts.count,
        ),
        plan=_KeptLines(route.bucket_sink is not None) if as_is else route.plan,
        dead_letters=again,
        on_error=OnError.DEAD_LETTER,
        policy=dataclasses.replace(route.policy, on_unavailable=patience),
    )


def _messages(letters: Iterator[DeadLetter]) -> Iterator[Message]:
    return (letter.message for letter in letters)


def _with_lines(letters: Iterator[DeadLetter]) -> Iterator[Message]:
    """Yield messages whose payload is the list of the rejected lines with their buckets."""
    for letter in letters:
        kept = [(reason.bucket or "", reason.line) for reason in letter.reasons if reason.line is not None]
        if kept:
            yield msgspec.structs.replace(letter.message, payload=msgspec.json.encode(kept))


class LetterSource:
    """A `Source` of messages that are read in batches; acknowledgements are only counted."""

    waiting_for: str | None = None

    def __init__(self, messages: Callable[[], Iterator[Message]], count: int) -> None:
        self._begin = messages
        self._messages: Iterator[Message] = iter(())
        self._count = count
        self._read = 0
        self._settled = 0
        self._worker = Worker("letters")

    @property
    def left(self) -> int:
        """Return the number of unsettled letters."""
        return self._count - self._settled

    async def connect(self) -> None:
        """Start reading after the settled letters; unsettled ones are read again."""
        self._read = self._settled
        self._messages = await self._worker.call(lambda: islice(self._begin(), self._settled, None))

    async def read(self) -> Batch | None:
        """Return the next messages.  Raise `EndOfInput` after the last."""
        chunk = await self._worker.call(lambda: list(islice(self._messages, _BATCH)))
        if not chunk:
            raise EndOfInput("all dead letters were read")
        self._read += len(chunk)
        return Batch(_HERE, chunk, self._read)

    async def ack(self, positions: Sequence[Position]) -> None:
        """Count the settled letters; none is removed."""
        self._settled = max(self._settled, *(position.offset for position in positions))

    async def lag(self) -> Mapping[Partition, int]:
        """Return the number of unsettled letters."""
        return {_HERE: self.left}

    async def close(self) -> None:
        """End the thread that reads."""
        await self._worker.finish()


class _KeptLines(WriterPlan):
    """A plan that returns the rejected lines, which are the payload, for the buckets that rejected them."""

    def __init__(self, has_buckets: bool) -> None:
        self._has_buckets = has_buckets

    def render(self, messages: Sequence[Message]) -> Rendered:
        lines: list[str] = []
        buckets: list[str] = []
        origins: list[int] = []
        for index, message in enumerate(messages):
            kept = msgspec.json.decode(message.payload, type=list[tuple[str, str]])
            lines += [line for _, line in kept]
            buckets += [bucket for bucket, _ in kept]
            origins += [index] * len(kept)
        return Rendered(lines, origins, buckets=buckets if self._has_buckets else None)
