"""`iggyflux dead-letters`: what is kept, why, and how one letter came to be; letters for other tools; their removal.

Only `prune` changes anything.  Payloads may hold anything, so they are printed only where they are asked for.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Final

import click

from iggyflux.cli.export_letters import command as export
from iggyflux.cli.letters import KeptLetter, LetterFilter, Letters, letter_options, selected_letters
from iggyflux.cli.output import ExitCode, Styled, json_text, plural, result, result_line, talk
from iggyflux.cli.prune_letters import command as prune
from iggyflux.cli.send_again import message_name
from iggyflux.codes import CODES
from iggyflux.escapes import escaped
from iggyflux.records import JSON, Reason, place_in_file, shown_element
from iggyflux.timestamps import format_rfc3339
from iggyflux.transports.local.deadletters import letter_tree

_PLACE: Final = re.compile(r".+[@:][0-9]+", re.DOTALL)
_MOST_REASON_CHARACTERS: Final = 100

_form = click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)


@click.group(name="dead-letters")
def command() -> None:
    """Look at dead letters: how many, why, which; export and remove them.

    PATH is a directory of dead letters, one of its files, or a topic: `iggy:STREAM/TOPIC`. `iggyflux replay` sends
    letters again, and marks those whose points were accepted.

    \b
    Example:
      iggyflux dead-letters summary dead-letters/factory-env
      iggyflux dead-letters list dead-letters/factory-env --reason IFX340
    """


command.add_command(export)
command.add_command(prune)


@dataclass(slots=True)
class _Kind:
    """The letters of one mapping with one code: how many, when the first and the last arrived, and one of them.

    Where a message has no time of arrival, as those of files, it is when its letter was kept.
    """

    count: int
    replayed: int
    first_us: int
    last_us: int
    example: str
    reason: str


@command.command(name="summary")
@letter_options
@_form
def summary(path: Path | tuple[str, str], pipeline: Path | None, chosen: LetterFilter, form: str) -> int:
    """Count dead letters by mapping and reason.

    A letter with several reasons counts for each of its codes. Times are those of arrival, or, of messages of files,
    those at which the letters were kept.

    \b
    Example:
      iggyflux dead-letters summary dead-letters/factory-env
      iggyflux dead-letters summary iggy:factory/dead-letters --pipeline pipeline.yaml
    """
    found: dict[tuple[str, str], _Kind] = {}
    with selected_letters(path, pipeline, chosen) as letters:
        for kept in letters.scan():
            _count(found, kept)
        if form == "json":
            tree: dict[str, JSON] = {"letters": letters.count, "replayed": letters.replayed, "kinds": _as_json(found)}
            result(json_text(tree, indent=True) + "\n")
        else:
            _print_summary(found)
        _conclude(letters)
    return ExitCode.OK


def _conclude(letters: Letters, more: str = "") -> None:
    """Say how many letters were meant, and where others are if there are none."""
    replayed = f", {letters.replayed:,} of them replayed" if letters.replayed else ""
    talk(f"{plural(letters.count, 'dead letter')} in {letters.name}{replayed}{more}")
    if not letters.count:
        letters.report_replayed()
        letters.report_others()


def _count(found: dict[tuple[str, str], _Kind], kept: KeptLetter) -> None:
    letter, time_us, replayed = kept.letter, kept.chosen_us, kept.is_replayed
    for reason in {each.code: each for each in reversed(letter.reasons)}.values():
        kind = found.get((letter.mapping, reason.code))
        if kind is None:
            found[letter.mapping, reason.code] = _Kind(
                1, replayed, time_us, time_us, message_name(letter.message), reason.reason
            )
        else:
            kind.count += 1
            kind.replayed += replayed
            kind.first_us, kind.last_us = min(kind.first_us, time_us), max(kind.last_us, time_us)


def _ranked(found: dict[tuple[str, str], _Kind]) -> list[tuple[tuple[str, str], _Kind]]:
    return sorted(found.items(), key=lambda item: (item[0][0], -item[1].count, item[0][1]))


def _as_json(found: dict[tuple[str, str], _Kind]) -> list[JSON]:
    return [
        {
            "mapping": mapping,
            "code": code,
            "letters": kind.count,
            "replayed": kind.replayed,
            "first": _time(kind.first_us),
            "last": _time(kind.last_us),
            "example": kind.example,
            "reason": kind.reason,
        }
        for (mapping, code), kind in _ranked(found)
    ]


def _print_summary(found: dict[tuple[str, str], _Kind]) -> None:
    width = max((len(f"{kind.count:,}") for kind in found.values()), default=0)
    for mapping, kinds in groupby(_ranked(found), key=lambda item: item[0][0]):
        result_line(Styled(escaped(mapping), bold=True))
        for (_, code), kind in kinds:
            meaning = CODES[code].title if code in CODES else ""
            replayed = f" ({kind.replayed:,} replayed)" if kind.replayed else ""
            result_line(f"  {kind.count:>{width},}  {code}  {meaning}{replayed}")
            result_line(f"  {'':{width}}  {_time(kind.first_us)} to {_time(kind.last_us)}")
            result_line(f"  {'':{width}}  {escaped(kind.example)}: {_short(kind.reason)}")


@command.command(name="list")
@letter_options
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="How many letters to print.")
@_form
def list_command(
    path: Path | tuple[str, str], pipeline: Path | None, chosen: LetterFilter, limit: int, form: str
) -> int:
    """List dead letters, one a line.

    They are in the order in which they were kept. A line has the place of the message, the time of its arrival, the
    mapping (and the route, if it has another name), the codes, when it was replayed, and the first reason. JSON has
    all reasons with their lines, but no payloads.

    \b
    Example:
      iggyflux dead-letters list dead-letters/factory-env --since 2026-01-01T00:00:00Z
      iggyflux dead-letters list dead-letters/factory-env --format json --limit 5
    """
    with selected_letters(path, pipeline, chosen) as letters:
        for kept in letters.scan():
            if letters.count > limit:
                continue
            letter = kept.letter
            if form == "json":
                result(json_text(_letter_as_json(kept, has_payload=False)) + "\n")
            else:
                codes = ",".join(dict.fromkeys(reason.code for reason in letter.reasons))
                first = _short(letter.reasons[0].reason) if letter.reasons else ""
                route = "" if letter.route in ("", letter.mapping) else f" ({escaped(letter.route)})"
                replayed = "" if kept.fate.replayed_us is None else f"replayed {_time(kept.fate.replayed_us)}  "
                result_line(
                    f"{escaped(message_name(letter.message))}  {_time(letter.message.timestamp_us)}  "
                    f"{escaped(letter.mapping)}{route}  {codes}  {replayed}{first}"
                )
        hidden = max(letters.count - limit, 0)
        more = f", {plural(hidden, 'more', 'more')} with --limit" if hidden else ""
        _conclude(letters, more)
    return ExitCode.OK


@command.command(name="show")
@letter_options
@click.argument("message")
@click.option("--payload", "has_payload", is_flag=True, help="Print the payload too, which may hold secrets.")
@_form
def show(
    path: Path | tuple[str, str],
    message: str,
    pipeline: Path | None,
    chosen: LetterFilter,
    has_payload: bool,
    form: str,
) -> int:
    """Show all that is known of one message.

    That is when it arrived, was kept, was replayed and failed again last, the names of its headers, and each reason of
    its newest failure with its place in the mapping and its line.
    MESSAGE is STREAM/TOPIC/PARTITION@OFFSET, or FILE:LINE of an archive, as the other commands print it. The exit code
    is 1 if there is no letter of it.

    \b
    Example:
      iggyflux dead-letters show dead-letters/factory-env factory/readings/1@10 --payload
    """
    if not _PLACE.fullmatch(message):
        expected = "expected STREAM/TOPIC/PARTITION@OFFSET or FILE:LINE"
        raise click.BadParameter(f"{message!r}: {expected}", param_hint="MESSAGE")
    count = 0
    with selected_letters(path, pipeline, chosen) as letters:
        for kept in letters.scan():
            name = message_name(kept.letter.message)
            in_file = place_in_file(kept.letter.message)
            if message not in (name, escaped(name)) and in_file not in (message, os.path.abspath(message)):  # noqa: PTH100
                continue
            count += 1
            if form == "json":
                result(json_text(_letter_as_json(kept, has_payload=has_payload), indent=True) + "\n")
            else:
                for line in _described(kept, has_payload=has_payload):
                    result_line(line)
    if not count:
        talk(f"no dead letter of {message} in {letters.name}")
    return ExitCode.OK if count else ExitCode.PROBLEMS


def _described(kept: KeptLetter, *, has_payload: bool) -> Iterator[str]:
    letter, message = kept.letter, kept.letter.message
    yield escaped(message_name(message))
    yield f"  arrived   {_time(message.timestamp_us)}"
    if letter.kept_us:
        yield f"  kept      {_time(letter.kept_us)}"
    if kept.fate.replayed_us is not None:
        yield f"  replayed  {_time(kept.fate.replayed_us)}"
    if kept.fate.failed_us is not None:
        yield f"  failed    {_time(kept.fate.failed_us)}, again, for the reasons below"
    if letter.route:
        of = f" of {escaped(letter.pipeline)}" if letter.pipeline else ""
        yield f"  route     {escaped(letter.route)}{of}"
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
    if element := shown_element(reason):
        places.append(element)
    if reason.status is not None:
        places.append(f"HTTP {reason.status}")
    return f" ({'; '.join(map(escaped, places))})" if places else ""


def _letter_as_json(kept: KeptLetter, *, has_payload: bool) -> dict[str, JSON]:
    message, tree = kept.letter.message, letter_tree(kept.letter)
    tree.pop("kept_us", None)
    if not has_payload:
        del tree["payload_base64"], tree["headers"]
    return {
        "message": message_name(message),
        "arrived": _time(message.timestamp_us),
        "kept": _time(kept.letter.kept_us) if kept.letter.kept_us else None,
        "replayed": None if kept.fate.replayed_us is None else _time(kept.fate.replayed_us),
        "failed_again": None if kept.fate.failed_us is None else _time(kept.fate.failed_us),
        **tree,
    }


def _time(time_us: int) -> str:
    return format_rfc3339(time_us * 1000) if time_us else "unknown"


def _short(text: str) -> str:
    shown = escaped(text)
    return shown if len(shown) <= _MOST_REASON_CHARACTERS else shown[:_MOST_REASON_CHARACTERS] + "…"
