"""`iggyflux replay`: dead letters, rendered again and sent where their route sends.

Nothing is removed: a letter that was sent twice makes the same points, so a replay can be repeated.  What fails again
is told, and stays where it is.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from iggyflux.cli.iggy import TOPIC_PREFIX, LettersPlace, iggy_settings, topic_letters
from iggyflux.cli.inputs import MAPPING_FILE, open_mapping, open_pipeline
from iggyflux.cli.output import ExitCode, note, plural, result, show_stop, styled_problem, talk, warn
from iggyflux.errors import EndOfInput
from iggyflux.records import Batch, DeadLetter, Message, Partition, Position, Rendered

if TYPE_CHECKING:
    from iggyflux.mapping import Mapping as MappingDocument
    from iggyflux.runner.route import Route

_BATCH: Final = 1000
_TOLD: Final = 20


@dataclasses.dataclass(frozen=True, slots=True)
class Chosen:
    """Which letters are meant; a bound that is None does not bind.  Times are in microseconds, `until` exclusive."""

    reasons: frozenset[str] = frozenset()
    since_us: int | None = None
    until_us: int | None = None
    mapping: str | None = None

    def takes(self, letter: DeadLetter) -> bool:
        """Whether `letter` is one of them."""
        time_us = letter.message.timestamp_us
        return (
            (not self.reasons or any(reason.code in self.reasons for reason in letter.reasons))
            and (self.since_us is None or time_us >= self.since_us)
            and (self.until_us is None or time_us < self.until_us)
            and (self.mapping is None or letter.mapping == self.mapping)
        )


@click.command(name="replay")
@click.argument("path", type=LettersPlace())
@click.option(
    "--pipeline", type=MAPPING_FILE, help="Send through the routes of this pipeline, by the letters' mappings."
)
@click.option("--mapping", "mapping_file", type=MAPPING_FILE, help="Render with this mapping; only with --dry-run.")
@click.option("--as-is", is_flag=True, help="The lines that were refused, as they were, instead of rendering again.")
@click.option("--dry-run", is_flag=True, help="Print the lines, send nothing.")
@click.option(
    "--reason", "reasons", multiple=True, metavar="CODE", help="Only letters with this code; may be repeated."
)
@click.option("--since", metavar="TIME", help="Only messages that arrived at this time or later (RFC 3339).")
@click.option("--until", metavar="TIME", help="Only messages that arrived before this time (RFC 3339).")
@click.option("--mapping-name", metavar="NAME", help="Only letters of the mapping of this name.")
def command(
    path: Path | tuple[str, str],
    pipeline: Path | None,
    mapping_file: Path | None,
    as_is: bool,
    dry_run: bool,
    reasons: tuple[str, ...],
    since: str | None,
    until: str | None,
    mapping_name: str | None,
) -> int:
    """Send dead letters again.

    PATH is a directory of dead letters, one of its files, or `iggy:STREAM/TOPIC`, a topic of them. Mend the mapping or
    the server first; every message is then rendered and delivered as `run` does it. What fails again is told, and the
    exit code is 1. Nothing is removed.

    \b
    Example:
      iggyflux replay dead-letters/factory-env --pipeline pipeline.yaml --dry-run
      iggyflux replay dead-letters/factory-env --pipeline pipeline.yaml --reason IFX340
      iggyflux replay iggy:factory/dead-letters --pipeline pipeline.yaml
    """
    if (pipeline is None) == (mapping_file is None) and not (as_is and dry_run):
        raise click.UsageError("give --pipeline, or --mapping with --dry-run")
    if mapping_file is not None and not dry_run:
        raise click.UsageError("--mapping says nothing of where to send: give --dry-run, or --pipeline")
    chosen = Chosen(
        frozenset(code.upper() for code in reasons),
        _time_us(since, "--since"),
        _time_us(until, "--until"),
        mapping_name,
    )
    letters = [letter for letter in _read(path, pipeline) if chosen.takes(letter)]
    where = path if isinstance(path, Path) else f"{TOPIC_PREFIX}{'/'.join(path)}"
    talk(f"{plural(len(letters), 'dead letter')} chosen in {where}")
    if not letters:
        return ExitCode.OK
    if dry_run:
        return _dry_run(letters, pipeline, mapping_file, as_is)
    assert pipeline is not None  # noqa: S101
    return asyncio.run(_send(letters, pipeline, as_is))


def _time_us(text: str | None, option: str) -> int | None:
    from iggyflux.timestamps import TimestampError, parse_rfc3339

    if text is None:
        return None
    try:
        return parse_rfc3339(text) // 1000
    except TimestampError as error:
        raise click.BadParameter(str(error), param_hint=option) from error


def _read(path: Path | tuple[str, str], pipeline: Path | None) -> Iterable[DeadLetter]:
    from iggyflux.transports.deadletters import read_dead_letters

    if not isinstance(path, Path):
        return topic_letters(iggy_settings(pipeline), *path)
    return read_dead_letters(
        path, torn=lambda file, line: warn(f"{file}:{line} is not whole: it comes again by itself")
    )


def _kept_lines(letter: DeadLetter) -> list[str]:
    return [reason.line for reason in letter.reasons if reason.line is not None]


# --- without sending ---


def _dry_run(letters: Sequence[DeadLetter], pipeline: Path | None, mapping_file: Path | None, as_is: bool) -> int:
    if as_is:
        lines = [line for letter in letters for line in _kept_lines(letter)]
        result("".join(f"{line}\n" for line in lines))
        talk(f"{plural(len(lines), 'line')} as they were refused")
        return ExitCode.OK
    if mapping_file is not None:
        mapping = open_mapping(mapping_file)
        return _render(mapping, letters)
    assert pipeline is not None  # noqa: S101
    routes, code = _routes_of(letters, pipeline)
    for route, of_route in routes:
        code = max(code, _render(route.plan_mapping, of_route))
    return code


def _render(mapping: MappingDocument, letters: Sequence[DeadLetter]) -> int:
    from iggyflux.cli.dry_run import failure_problem

    rendered: Any = mapping.plan().render([letter.message for letter in letters])
    result("".join(f"{line}\n" for line in rendered.lines))
    for failure in rendered.failures[:_TOLD]:
        talk(f"{_name(letters[failure.index].message)}: {styled_problem(failure_problem(mapping, failure))}")
    if len(rendered.failures) > _TOLD:
        talk(f"… and {len(rendered.failures) - _TOLD:,} more failures")
    failed = len({failure.index for failure in rendered.failures})
    made = f"{plural(len(letters), 'message')} make {plural(len(rendered.lines), 'line')}"
    talk(f"{mapping.name}: {made}, {failed:,} fail again")
    return ExitCode.PROBLEMS if failed else ExitCode.OK


def _name(message: Message) -> str:
    return f"{message.stream}/{message.topic}/{message.partition}@{message.offset}"


# --- sending ---


@dataclasses.dataclass(frozen=True, slots=True)
class _Way:
    """A route of the pipeline, and its mapping."""

    route: Route
    plan_mapping: MappingDocument


def _routes_of(letters: Sequence[DeadLetter], path: Path) -> tuple[list[tuple[_Way, list[DeadLetter]]], int]:
    """The letters by the route of their mapping; 1 where some have none."""
    from iggyflux.mapping import load_mapping
    from iggyflux.runner.open import open_writers

    pipeline = open_pipeline(path)
    documents = {item.mapping: load_mapping(item.mapping) for item in pipeline.routes}
    mappings = {mapping.name: mapping for mapping in documents.values()}
    routes = {route.mapping: route for route in open_writers(pipeline)}
    grouped: dict[str, list[DeadLetter]] = {}
    for letter in letters:
        grouped.setdefault(letter.mapping, []).append(letter)
    code = ExitCode.OK
    found = []
    for name, of_mapping in grouped.items():
        if name not in routes:
            known = ", ".join(sorted(routes))
            count = plural(len(of_mapping), "letter")
            warn(f"{count} of mapping {name!r}, for which {path} has no route (it has {known})")
            code = ExitCode.PROBLEMS
            continue
        changed = sum(letter.mapping_hash != mappings[name].hash for letter in of_mapping)
        if changed:
            count = plural(len(of_mapping), "letter")
            note(f"{name}: the mapping has changed since {changed:,} of {count} failed")
        found.append((_Way(routes[name], mappings[name]), of_mapping))
    return found, code


async def _send(letters: Sequence[DeadLetter], path: Path, as_is: bool) -> int:
    from iggyflux.cli.run import logging_to_stderr
    from iggyflux.mapping import OnError
    from iggyflux.runner import Stop, run_routes, stopping_on_signals

    found, code = _routes_of(letters, path)
    again = FailedAgain()
    routes = []
    for way, of_route in found:
        chosen = [letter for letter in of_route if _kept_lines(letter)] if as_is else of_route
        source = LetterSource([letter.message for letter in chosen])
        route = dataclasses.replace(way.route, source=source, dead_letters=again, on_error=OnError.DEAD_LETTER)
        if as_is:
            kept = {id(letter.message): _kept_lines(letter) for letter in chosen}
            route = dataclasses.replace(route, plan=_KeptLines(kept))
        routes.append(route)
    stop = Stop()
    with logging_to_stderr("text", logging.WARNING, without="record.failed"), stopping_on_signals(stop):
        summary = await run_routes(routes, stop=stop)
    for route_status in summary.routes:
        counts = f"{plural(route_status.read, 'message')}, {plural(route_status.delivered, 'point')} written"
        talk(f"{route_status.name}: {counts}, {route_status.dead_letters:,} failed again")
    for error in summary.errors:
        show_stop(error)
    for text in again.lines():
        talk(text)
    return max(summary.exit_code, code, ExitCode.PROBLEMS if again.letters else ExitCode.OK)


class LetterSource:
    """A `Source` of messages that are in memory; there is nothing to acknowledge."""

    def __init__(self, messages: Sequence[Message]) -> None:
        self._messages = messages
        self._next = 0

    async def connect(self) -> None:
        """Begin, or begin again: whatever was not settled comes again, and so does the rest."""
        self._next = 0

    async def read(self) -> Batch | None:
        """The next messages, by their own coordinates.  Raises `EndOfInput`."""
        if self._next >= len(self._messages):
            raise EndOfInput("every dead letter was read")
        chunk = self._messages[self._next : self._next + _BATCH]
        self._next += len(chunk)
        return Batch(Partition("dead-letters", "replay", 0), chunk, self._next)

    async def ack(self, positions: Sequence[Position]) -> None:
        """Nothing: letters stay where they are."""

    async def close(self) -> None:
        """Nothing."""


class _KeptLines:
    """A plan that gives back the lines that were refused."""

    def __init__(self, lines: Mapping[int, Sequence[str]]) -> None:
        self._lines = lines

    def render(self, messages: Sequence[Message]) -> Rendered:
        pairs = [(index, line) for index, message in enumerate(messages) for line in self._lines[id(message)]]
        return Rendered([line for _, line in pairs], [index for index, _ in pairs])


class FailedAgain:
    """A `DeadLetterSink` that only remembers: these letters are still where they were."""

    def __init__(self) -> None:
        self.letters: list[DeadLetter] = []

    async def put(self, letters: Sequence[DeadLetter]) -> None:
        self.letters += letters

    async def close(self) -> None:
        pass

    def lines(self) -> Iterator[str]:
        """What failed again, for people."""
        for letter in self.letters[:_TOLD]:
            for reason in letter.reasons:
                mark = click.style(f"error[{reason.code}]", fg="red", bold=True)
                yield f"{_name(letter.message)}: {mark}: {reason.reason}"
        if self.letters:
            codes = Counter(reason.code for letter in self.letters for reason in letter.reasons)
            kinds = ", ".join(f"{code} ×{count:,}" for code, count in sorted(codes.items()))
            yield f"failed again: {kinds}"
