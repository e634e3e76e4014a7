"""`iggyflux dead-letters`: what is kept, why, and how one letter came to be.

Nothing is changed.  Payloads may hold anything, so they are printed only where they are asked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

import click

from iggyflux.cli.iggy import LettersPlace
from iggyflux.cli.inputs import MAPPING_FILE
from iggyflux.cli.letters import LetterFilter, Letters, filter_options, letters_on_disk, name_of_place, report_others
from iggyflux.cli.output import ExitCode, Styled, json_text, plural, result, result_line, talk
from iggyflux.cli.send_again import message_name
from iggyflux.codes import CODES
from iggyflux.escapes import escaped
from iggyflux.records import JSON, DeadLetter, Reason
from iggyflux.timestamps import format_rfc3339
from iggyflux.transports.local.deadletters import letter_tree

_PLACE: Final = re.compile(r".+@[0-9]+", re.DOTALL)
_MOST_REASON_CHARACTERS: Final = 100

_place = click.argument("path", type=LettersPlace())
_pipeline = click.option("--pipeline", type=MAPPING_FILE, help="For a topic: the pipeline file with the connection.")
_form = click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)


@click.group(name="dead-letters")
def command() -> None:
    """Look at dead letters: how many, why, which.

    PATH is a directory of dead letters, one of its files, or a topic: `iggy:STREAM/TOPIC`. Nothing is changed;
    `iggyflux replay` sends letters again.

    \b
    Example:
      iggyflux dead-letters summary dead-letters/factory-env
      iggyflux dead-letters list dead-letters/factory-env --reason IFX340
    """


@dataclass(slots=True)
class _Kind:
    """The letters of one mapping with one code: how many, when the first and the last arrived, and one of them."""

    count: int
    first_us: int
    last_us: int
    example: str
    reason: str


@command.command(name="summary")
@_place
@_pipeline
@filter_options
@_form
def summary(path: Path | tuple[str, str], pipeline: Path | None, chosen: LetterFilter, form: str) -> int:
    """Count dead letters by mapping and reason.

    A letter with several reasons counts for each of its codes. Times are those of arrival.

    \b
    Example:
      iggyflux dead-letters summary dead-letters/factory-env
      iggyflux dead-letters summary iggy:factory/dead-letters --pipeline pipeline.yaml
    """
    found: dict[tuple[str, str], _Kind] = {}
    with letters_on_disk(path, pipeline) as place:
        letters = Letters(place, chosen)
        for letter in letters.of():
            _count(found, letter)
        if form == "json":
            result(json_text({"letters": letters.count, "kinds": _as_json(found)}, indent=True) + "\n")
        else:
            _print_summary(found)
        _conclude(letters, place, path)
    return ExitCode.OK


def _conclude(letters: Letters, place: Path, path: Path | tuple[str, str], more: str = "") -> None:
    """Say how many letters were meant, and where others are if there are none."""
    talk(f"{plural(letters.count, 'dead letter')} in {name_of_place(path)}{more}")
    if not letters.count:
        report_others(letters, place)


def _count(found: dict[tuple[str, str], _Kind], letter: DeadLetter) -> None:
    time_us = letter.message.timestamp_us
    for reason in {each.code: each for each in reversed(letter.reasons)}.values():
        kind = found.get((letter.mapping, reason.code))
        if kind is None:
            found[letter.mapping, reason.code] = _Kind(1, time_us, time_us, message_name(letter.message), reason.reason)
        else:
            kind.count += 1
            kind.first_us, kind.last_us = min(kind.first_us, time_us), max(kind.last_us, time_us)


def _ranked(found: dict[tuple[str, str], _Kind]) -> list[tuple[tuple[str, str], _Kind]]:
    return sorted(found.items(), key=lambda item: (item[0][0], -item[1].count, item[0][1]))


def _as_json(found: dict[tuple[str, str], _Kind]) -> list[JSON]:
    return [
        {
            "mapping": mapping,
            "code": code,
            "letters": kind.count,
            "first": _time(kind.first_us),
            "last": _time(kind.last_us),
            "example": kind.example,
            "reason": kind.reason,
        }
        for (mapping, code), kind in _ranked(found)
    ]


def _print_summary(found: dict[tuple[str, str], _Kind]) -> None:
    width = max((len(f"{kind.count:,}") for kind in found.values()), default=0)
    shown = None
    for (mapping, code), kind in _ranked(found):
        if mapping != shown:
            result_line(Styled(escaped(mapping), bold=True))
            shown = mapping
        meaning = CODES[code].title if code in CODES else ""
        result_line(f"  {kind.count:>{width},}  {code}  {meaning}")
        result_line(f"  {'':{width}}  {_time(kind.first_us)} to {_time(kind.last_us)}")
        result_line(f"  {'':{width}}  {escaped(kind.example)}: {_short(kind.reason)}")


@command.command(name="list")
@_place
@_pipeline
@filter_options
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="How many letters to print.")
@_form
def list_command(
    path: Path | tuple[str, str], pipeline: Path | None, chosen: LetterFilter, limit: int, form: str
) -> int:
    """List dead letters, one a line.

    They are in the order in which they were kept. A line has the place of the message, the time of its arrival, the
    mapping, the codes, and the first reason. JSON has all reasons with their lines, but no payloads.

    \b
    Example:
      iggyflux dead-letters list dead-letters/factory-env --since 2026-01-01T00:00:00Z
      iggyflux dead-letters list dead-letters/factory-env --format json --limit 5
    """
    with letters_on_disk(path, pipeline) as place:
        letters = Letters(place, chosen)
        for letter in islice(letters.of(), limit):
            if form == "json":
                result(json_text(_letter_as_json(letter, has_payload=False)) + "\n")
            else:
                codes = ",".join(dict.fromkeys(reason.code for reason in letter.reasons))
                first = _short(letter.reasons[0].reason) if letter.reasons else ""
                result_line(
                    f"{escaped(message_name(letter.message))}  {_time(letter.message.timestamp_us)}  "
                    f"{escaped(letter.mapping)}  {codes}  {first}"
                )
        hidden = max(letters.count - limit, 0)
        _conclude(letters, place, path, f", {plural(hidden, 'more', 'more')} with --limit" if hidden else "")
    return ExitCode.OK


@command.command(name="show")
@_place
@click.argument("message")
@_pipeline
@click.option("--payload", "has_payload", is_flag=True, help="Print the payload too, which may hold secrets.")
@_form
def show(path: Path | tuple[str, str], message: str, pipeline: Path | None, has_payload: bool, form: str) -> int:
    """Show all that is known of one message.

    That is when it arrived, the names of its headers, and each reason with its place in the mapping and its line.
    MESSAGE is STREAM/TOPIC/PARTITION@OFFSET, as the other commands print it. The exit code is 1 if there is no letter
    of it.

    \b
    Example:
      iggyflux dead-letters show dead-letters/factory-env factory/readings/0@21 --payload
    """
    if not _PLACE.fullmatch(message):
        raise click.BadParameter(f"{message!r}: expected STREAM/TOPIC/PARTITION@OFFSET", param_hint="MESSAGE")
    count = 0
    with letters_on_disk(path, pipeline) as place:
        for letter in Letters(place, LetterFilter()).of():
            if message not in (message_name(letter.message), escaped(message_name(letter.message))):
                continue
            count += 1
            if form == "json":
                result(json_text(_letter_as_json(letter, has_payload=has_payload), indent=True) + "\n")
            else:
                for line in _described(letter, has_payload=has_payload):
                    result_line(line)
    if not count:
        talk(f"no dead letter of {message} in {name_of_place(path)}")
    return ExitCode.OK if count else ExitCode.PROBLEMS


def _described(letter: DeadLetter, *, has_payload: bool) -> Iterator[str]:
    message = letter.message
    yield escaped(message_name(message))
    yield f"  arrived   {_time(message.timestamp_us)}"
    yield f"  mapping   {escaped(letter.mapping)} (plan {escaped(letter.plan) or 'unknown'})"
    if message.headers:
        yield f"  headers   {', '.join(map(escaped, message.headers))}"
    for reason in letter.reasons:
        yield f"  {reason.code}    {escaped(reason.reason)}{_place_of(reason)}"
        if reason.line is not None:
            yield f"            {escaped(reason.line)}"
    yield f"  payload   {plural(len(message.payload), 'byte')}" + ("" if has_payload else " (--payload prints it)")
    if has_payload:
        yield escaped(message.payload.decode("utf-8", "backslashreplace"))


def _place_of(reason: Reason) -> str:
    """Return the part of the mapping and the element that a reason is about, in parentheses."""
    places = [reason.location] if reason.location else []
    elements = reason.elements or ((reason.element,) if reason.element is not None else ())
    if elements:
        places.append("element " + ", ".join(map(str, elements)))
    if reason.status is not None:
        places.append(f"HTTP {reason.status}")
    return f" ({'; '.join(map(escaped, places))})" if places else ""


def _letter_as_json(letter: DeadLetter, *, has_payload: bool) -> dict[str, JSON]:
    tree = letter_tree(letter)
    if not has_payload:
        del tree["payload_base64"], tree["headers"]
    return {"message": message_name(letter.message), "arrived": _time(letter.message.timestamp_us), **tree}


def _time(time_us: int) -> str:
    return format_rfc3339(time_us * 1000) if time_us else "unknown"


def _short(text: str) -> str:
    shown = escaped(text)
    return shown if len(shown) <= _MOST_REASON_CHARACTERS else shown[:_MOST_REASON_CHARACTERS] + "…"
