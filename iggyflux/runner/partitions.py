"""How many partitions workers could share: more workers than that have nothing to do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Final

from iggyflux.errors import NotConnected, Stopped
from iggyflux.records import Partition
from iggyflux.runner.open import PreparedRoute
from iggyflux.runner.setup import WriterSetup
from iggyflux.transports.share import ALONE


async def count_partitions(routes: Sequence[PreparedRoute]) -> int | None:
    """Return the number of partitions that workers could share; None if a source does not tell it now."""
    count = 0
    for route in routes:
        if route.alone_because is None and isinstance(route.setup, WriterSetup):
            try:
                found = await _FIND[route.source.kind](route.setup, route.source.path)
            except (NotConnected, Stopped):
                return None
            count += sum(ALONE.has(place, route.setup.item.consumer.partitions) for place in found)
    return count


async def _in_log(setup: WriterSetup, folder: Path | None) -> list[Partition]:
    from iggyflux.transports.local.log import Log

    origin, log = setup.writer.source, Log(folder or Path())
    try:
        return await asyncio.to_thread(log.partitions, origin.stream, origin.topics)
    finally:
        log.close()


async def _in_iggy(setup: WriterSetup, _: Path | None) -> list[Partition]:
    from iggyflux.transports.iggy.connection import Connection, ConsumerId
    from iggyflux.transports.iggy.source import IggySource

    origin, consumer = setup.writer.source, ConsumerId(setup.item.consumer.kind, setup.consumer)
    topics = await IggySource(setup.iggy, origin.stream, origin.topics, consumer=consumer).places()
    connection = Connection(setup.iggy)
    try:
        await connection.open()
        return [
            Partition(stream, topic, info.number)
            for stream, topic in topics
            for info in await connection.partitions(stream, topic) or ()
        ]
    finally:
        await connection.close()


_FIND: Final[dict[str, Callable[[WriterSetup, Path | None], Coroutine[Any, Any, list[Partition]]]]] = {
    "iggy": _in_iggy,
    "log": _in_log,
}
