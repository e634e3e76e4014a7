"""What commands share that read from Apache Iggy: the connection, the last messages and the dead letters of a topic."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from iggyflux.authoring.samples import Sample
from iggyflux.cli.output import note, plural
from iggyflux.errors import Stopped
from iggyflux.mapping import WriterMapping
from iggyflux.pipeline import IggySettings, load_pipeline
from iggyflux.records import Message, OutgoingMessage, Reason
from iggyflux.secrets import Secret
from iggyflux.transports.iggy.topics import IggyRange, IggySink, last_messages, read_range
from iggyflux.transports.local.deadletters import decode_letter, encode_letter, is_mark, kept_us, letter_digest
from iggyflux.transports.local.envelopes import EnvelopeError
from iggyflux.transports.local.letter_marks import Marks
from iggyflux.transports.local.letter_removal import rewrite

TOPIC_PREFIX = "iggy:"
_MARKS_IN_MESSAGE: Final = 1000


class LettersPlace(click.ParamType):  # type: ignore[type-arg]  # generic in new versions of click only
    """A directory or file of dead letters, or `iggy:STREAM/TOPIC`."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path | tuple[str, str]:
        if isinstance(value, str) and value.startswith(TOPIC_PREFIX):
            stream, _, topic = value.removeprefix(TOPIC_PREFIX).partition("/")
            if not stream or not topic:
                self.fail(f"expected iggy:STREAM/TOPIC, found {value!r}", param, ctx)
            return stream, topic
        path: Path = click.Path(exists=True, path_type=Path).convert(value, param, ctx)
        return path


def iggy_settings(pipeline: Path | None) -> IggySettings:
    """Return the `iggy` section of a pipeline; without a pipeline, the settings in IGGY_ADDRESS, IGGY_USERNAME and
    IGGY_PASSWORD."""
    if pipeline is not None:
        settings = load_pipeline(pipeline).iggy
        if settings is None:
            raise click.UsageError(f"{pipeline} has no `iggy` section")
        return settings
    name, password = os.environ.get("IGGY_USERNAME"), os.environ.get("IGGY_PASSWORD")
    if not name or not password:
        raise click.UsageError(
            "no server given: use --pipeline FILE, or set IGGY_ADDRESS, IGGY_USERNAME and IGGY_PASSWORD"
        )
    return IggySettings(
        address=os.environ.get("IGGY_ADDRESS") or IggySettings().address, username=name, password=Secret(password)
    )


def last_samples(mapping: WriterMapping, settings: IggySettings, count: int) -> Iterator[Sample]:
    """Return the last messages of the topics that the mapping reads."""
    source = mapping.writer.source
    messages = asyncio.run(last_messages(settings, source.stream, source.topics, count))
    note(
        f"the last {plural(len(messages), 'message')} of {source.stream}/{','.join(source.topics)}; no offset is stored"
    )
    return map(Sample.stored, messages)


def last_of_topic(settings: IggySettings, stream: str, topic: str, count: int) -> list[Message]:
    """Return the last messages of a topic."""
    return asyncio.run(last_messages(settings, stream, (topic,), count))


class _Mark(msgspec.Struct, forbid_unknown_fields=True):
    """What a message says of letters of its topic, by their digests in hex: which were replayed when, and why others
    failed again then."""

    replayed: list[str]
    at_us: int
    failed: dict[str, tuple[Reason, ...]] | msgspec.UnsetType = msgspec.UNSET


class TopicMarks:
    """What replays made of letters, in their topic: a message names up to a thousand of them.

    So they are where the letters are, for every machine, and leave with them.
    """

    def __init__(self, settings: IggySettings, stream: str, topic: str) -> None:
        self._sink = IggySink(settings, stream, topic)

    async def connect(self) -> None:
        """Connect.  Raise `NotConnected` or `Stopped`."""
        await self._sink.connect()

    async def add(self, digests: Sequence[bytes], at_us: int, failed: Mapping[bytes, Sequence[Reason]]) -> None:
        """Mark letters; confirmed by the topic when it returns.  Raise `NotConnected` or `Stopped`."""
        names = [digest.hex() for digest in digests]
        marks = [_Mark(names[at : at + _MARKS_IN_MESSAGE], at_us) for at in range(0, len(names), _MARKS_IN_MESSAGE)]
        # Reasons may be long, so each such letter has a message of its own.
        marks += [_Mark([], at_us, {digest.hex(): tuple(reasons)}) for digest, reasons in failed.items()]
        await self._sink.send([OutgoingMessage(msgspec.json.encode(mark)) for mark in marks])

    async def close(self) -> None:
        """Release everything; idempotent."""
        await self._sink.close()


def save_topic_letters(settings: IggySettings, stream: str, topic: str, file: Path, marks: Marks) -> None:
    """Write the dead letters of a topic to a new file in the form of a directory's files, and what replays made of them
    to `marks`.

    Of those with the same words, the one that was kept last is written.

    Raise `Stopped` (IFX716) for a message that is not a dead letter.
    """
    asyncio.run(_save_letters(settings, stream, topic, file, marks))


async def _save_letters(settings: IggySettings, stream: str, topic: str, file: Path, marks: Marks) -> None:
    newest: dict[bytes, int] = {}
    written = 0
    with file.open("xb") as lines, marks.together():
        async for message in read_range(IggyRange(settings, [(stream, topic)])):
            if is_mark(message.payload):
                with suppress(msgspec.MsgspecError, ValueError):  # such a message is not a letter either
                    mark = msgspec.json.decode(message.payload, type=_Mark)
                    failed = {bytes.fromhex(each): why for each, why in (mark.failed or {}).items()}
                    marks.add(map(bytes.fromhex, mark.replayed), mark.at_us, failed)
                    continue
            try:
                letter = decode_letter(message.payload)
            except EnvelopeError as error:
                place = f"{stream}/{topic}/{message.partition}@{message.offset}"
                raise Stopped(f"{place}: {error}", "check that it is a topic of dead letters", "IFX716") from error
            line = encode_letter(letter)
            digest = letter_digest(line)
            if letter.kept_us > newest.get(digest, -1):
                newest[digest] = letter.kept_us
                lines.write(line + b"\n")
                written += 1
    if written > len(newest):
        rewrite(file.parent, file, lambda line, _: kept_us(line) < newest[letter_digest(line)])
