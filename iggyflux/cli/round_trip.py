"""`iggyflux test --round-trip`: compares messages with what a reader makes of the points that a writer stored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import click

from iggyflux.authoring.examples import example_message
from iggyflux.authoring.round_trip import Loss, RoundTrip, round_trip
from iggyflux.authoring.samples import Coordinates, read_samples
from iggyflux.cli.envelopes import Envelope, are_messages
from iggyflux.cli.inputs import open_input, open_mapping
from iggyflux.cli.output import ExitCode, Styled, json_text, note, plural, result, result_line, talk
from iggyflux.mapping import WriterMapping
from iggyflux.records import JSON, Message

_MOST_MESSAGES = 10_000
_LONGEST_VALUE = 60


@dataclass(slots=True)
class _LossKind:
    """One kind of difference: the first one, its message, and their number."""

    loss: Loss
    first: int
    count: int = 0


def run_round_trip(paths: Sequence[Path], *, form: str, envelope: Envelope) -> int:
    """Run `test --round-trip WRITER READER [SAMPLES]` and return the exit code."""
    if not 2 <= len(paths) <= 3:
        raise click.UsageError("--round-trip needs a writer, a reader and optionally a file of messages")
    writer, reader = open_mapping(paths[0]), open_mapping(paths[1])
    if writer.kind == "reader":
        raise click.UsageError(f"{paths[0]} is a reader; --round-trip needs WRITER READER [SAMPLES]")
    if reader.kind == "writer":
        raise click.UsageError(f"{paths[1]} is a writer; --round-trip needs WRITER READER [SAMPLES]")
    messages = list(islice(_messages(writer, paths[2] if len(paths) == 3 else None, envelope), _MOST_MESSAGES + 1))
    if len(messages) > _MOST_MESSAGES:
        raise click.UsageError(f"at most {_MOST_MESSAGES:,} messages, since they are compared in memory")
    found = round_trip(writer, reader, messages)
    kinds = _kinds(found)
    if form == "json":
        result(json_text(_as_tree(found, kinds)) + "\n")
    else:
        _print(found, kinds)
    return ExitCode.OK if found.is_whole and messages else ExitCode.PROBLEMS


def _messages(writer: WriterMapping, samples: Path | None, envelope: Envelope) -> Iterator[Message]:
    source = writer.writer.source
    if samples is None:
        wanted = [(number, tree) for number, tree in enumerate(writer.examples) if not tree.get("fails")]
        if not wanted:
            raise click.UsageError(f"{writer.document.file} has no examples; name a file of messages, or - for stdin")
        note(f"no samples given: using the messages of the writer's {plural(len(wanted), 'example')}")
        for number, tree in wanted:
            yield example_message(writer, tree, number)
        return
    with open_input(samples) as lines:
        is_enveloped = are_messages(lines, envelope)
        for sample in read_samples(
            lines,
            Coordinates.of(source),
            form=source.payload.format,
            options=source.payload.options,
            compression=source.payload.compression,
            envelope=is_enveloped,
        ):
            yield sample.message


def _kinds(found: RoundTrip) -> list[_LossKind]:
    """Return the kinds of differences in the order of their first occurrence, losses first."""
    kinds: dict[tuple[str, str, bool], _LossKind] = {}
    for each in found.returns:
        for key in dict.fromkeys((loss.place, loss.reason, loss.is_lossy) for loss in each.losses):
            loss = next(loss for loss in each.losses if (loss.place, loss.reason, loss.is_lossy) == key)
            kinds.setdefault(key, _LossKind(loss, each.index)).count += 1
    return sorted(kinds.values(), key=lambda kind: not kind.loss.is_lossy)


def _print(found: RoundTrip, kinds: Sequence[_LossKind]) -> None:
    width = max((len(kind.loss.place or "the message") for kind in kinds), default=0)
    total = len(found.returns)
    for kind in kinds:
        loss = kind.loss
        colour = "red" if loss.is_lossy else "green"
        place = Styled(f"{loss.place or 'the message':<{width}}", bold=True)
        often = "" if total == 1 else f"  ({kind.count:,} of {total:,}, first: {kind.first + 1})"
        result_line(place, "  ", Styled(loss.reason, colour), f"{often}{_values(loss)}")
    for text in found.notes:
        note(text)
    whole = sum(each.is_whole for each in found.returns)
    back = sum(len(each.back) > 0 for each in found.returns)
    talk(f"{plural(total, 'message')}: {back:,} returned, {whole:,} of them without loss")


def _values(loss: Loss) -> str:
    if not loss.place:
        return ""
    if loss.before is None:
        return f": {_short(loss.after)}" if loss.after is not None else ""
    if loss.after is None:
        return f": {_short(loss.before)}"
    before, after = _short(loss.before), _short(loss.after)
    return f": {before}" if before == after else f": {before} → {after}"


def _short(value: JSON) -> str:
    text = json_text(value)
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 1] + "…"


def _as_tree(found: RoundTrip, kinds: Sequence[_LossKind]) -> dict[str, Any]:
    return {
        "messages": len(found.returns),
        "returned": sum(len(each.back) > 0 for each in found.returns),
        "whole": sum(each.is_whole for each in found.returns),
        "differences": [
            {
                "place": kind.loss.place,
                "reason": kind.loss.reason,
                "lossy": kind.loss.is_lossy,
                "count": kind.count,
                "first": kind.first + 1,
                "before": kind.loss.before,
                "after": kind.loss.after,
            }
            for kind in kinds
        ],
        "notes": list(found.notes),
    }
