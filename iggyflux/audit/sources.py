"""The messages of a range of a writer's source, up to what its consumer has settled, and its dead letters.

Nothing is joined, locked or stored: a run of the route goes on meanwhile.
"""

from __future__ import annotations

import asyncio
import glob
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iggyflux.audit.check import Range
from iggyflux.errors import EndOfInput
from iggyflux.pipeline import Endpoint, TopicAddress
from iggyflux.records import DeadLetter, Message, Partition, place_in_file
from iggyflux.runner.factories import coordinates_of, dead_letters_folder
from iggyflux.runner.setup import WriterSetup
from iggyflux.transports.local.deadletters import decode_letter, is_mark, read_dead_letters
from iggyflux.transports.ranges import Bound


@dataclass(frozen=True, slots=True)
class Limits:
    """Which messages are meant: from `since` to `until`, exclusive; `settled_only` ends at the consumer's position."""

    since: Bound | None = None
    until: Bound | None = None
    partition: int | None = None
    topic: str | None = None
    """The topic of the partition, where there are several."""
    settled_only: bool = True

    def of_topics(self, topics: Sequence[str]) -> Sequence[str]:
        """Return those of the topics, or globs, that are meant."""
        return topics if self.topic is None else [glob.escape(self.topic)]


async def range_of(setup: WriterSetup, source: Endpoint, limits: Limits) -> Range | None:
    """Return the range of a source; None for standard input, which cannot be read again.

    Raise `NotConnected` or `Stopped`.
    """
    make = _RANGES.get(source.kind)
    return None if make is None else await make(setup, source, limits)


async def _of_iggy(setup: WriterSetup, _source: Endpoint, limits: Limits) -> Range:
    from iggyflux.transports.iggy.connection import Connection, ConsumerId
    from iggyflux.transports.iggy.source import IggySource
    from iggyflux.transports.iggy.topics import IggyRange

    origin, consumer = setup.writer.source, ConsumerId(setup.item.consumer.kind, setup.consumer)
    places = await IggySource(setup.iggy, origin.stream, limits.of_topics(origin.topics), consumer=consumer).places()
    ends: dict[Partition, int] | None = None
    if limits.settled_only:
        ends = {}
        connection = Connection(setup.iggy)
        try:
            await connection.open()
            for stream, topic in places:
                for info in await connection.partitions(stream, topic) or ():
                    place = Partition(stream, topic, info.number)
                    if (stored := await connection.stored(consumer, place)) is not None:
                        ends[place] = stored.stored + 1
        finally:
            await connection.close()
    return IggyRange(setup.iggy, places, since=limits.since, until=limits.until, partition=limits.partition, ends=ends)


async def _of_log(setup: WriterSetup, source: Endpoint, limits: Limits) -> Range:
    from iggyflux.transports.local.log import Log
    from iggyflux.transports.local.ranges import LogRange

    folder, origin = source.path or Path(), setup.writer.source
    ends: Mapping[Partition, int] | None = None
    if limits.settled_only:
        settled = (await asyncio.to_thread(Log(folder).consumers)).get(setup.consumer, {})
        ends = {place: offset + 1 for place, offset in settled.items()}
    return LogRange(
        folder,
        origin.stream,
        limits.of_topics(origin.topics),
        since=limits.since,
        until=limits.until,
        partition=limits.partition,
        ends=ends,
    )


async def _of_file(setup: WriterSetup, source: Endpoint, limits: Limits) -> Range:
    from iggyflux.transports.local.files import file_state
    from iggyflux.transports.local.ranges import FileRange

    end = None
    if limits.settled_only and isinstance(setup.pipeline.state, Path):
        state = file_state(setup.pipeline.state, setup.consumer)
        try:
            content = await asyncio.to_thread(state.read)
        finally:
            state.close()
        end = 0 if content is None else content["position"]
    stream, topic = coordinates_of(setup.writer)
    return FileRange(
        source.path or Path(),
        stream=stream,
        topic=topic,
        envelope=source.envelope,
        since=limits.since,
        until=limits.until,
        end=end,
    )


_RANGES: dict[str, Callable[[WriterSetup, Endpoint, Limits], Coroutine[Any, Any, Range]]] = {
    "iggy": _of_iggy,
    "log": _of_log,
    "file": _of_file,
}


async def letters_of(setup: WriterSetup, source: Endpoint) -> AsyncIterator[DeadLetter]:
    """Yield the dead letters that a route kept.  Raise `NotConnected`, `Stopped` or `EnvelopeError`."""
    place = setup.item.dead_letters
    if isinstance(place, TopicAddress):
        async for message in _topic(setup, source, place):
            if is_mark(message.payload):
                continue
            letter = decode_letter(message.payload)
            if _is_of(letter, setup):
                yield letter
        return
    folder = place or dead_letters_folder(setup)
    if folder.exists():
        for letter in read_dead_letters(folder, torn=_ignore):
            if _is_of(letter, setup):
                yield letter


def _is_of(letter: DeadLetter, setup: WriterSetup) -> bool:
    """Return whether a run of the route kept the letter; one of an older version names the mapping only.

    Records of files that were loaded have the coordinates of other messages.
    """
    is_of_source = place_in_file(letter.message) is None
    return is_of_source and letter.mapping == setup.mapping.name and letter.route in ("", setup.name)


async def _topic(setup: WriterSetup, source: Endpoint, place: TopicAddress) -> AsyncIterator[Message]:
    from iggyflux.transports.iggy.topics import IggyRange
    from iggyflux.transports.local.ranges import LogRange

    kept: Range = (
        IggyRange(setup.iggy, [(place.stream, place.topic)])
        if source.kind == "iggy"
        else LogRange(source.path or Path(), place.stream, [place.topic])
    )
    try:
        await kept.connect()
        while batch := await kept.read():
            for message in batch.messages:
                yield message
    except EndOfInput:
        pass
    finally:
        await kept.close()


def _ignore(_file: Path, _line: int) -> None:
    pass
