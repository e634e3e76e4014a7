"""A consumer group made anew: its members forgotten, its offsets kept.  Nobody else may be a member meanwhile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from iggyflux.errors import Stopped
from iggyflux.pipeline import IggySettings
from iggyflux.records import Partition
from iggyflux.transports.iggy import Connection, Reader


@dataclass(frozen=True, slots=True)
class Renewed:
    """What a group was: the partitions that its members held, and its stored offsets by partition."""

    members: Mapping[int, tuple[int, ...]]
    offsets: Mapping[int, int]


async def renew_group(settings: IggySettings, stream: str, topic: str, group: str) -> Renewed:
    """Delete a group, make it again and store what it had stored.

    Raises `Stopped` (IFX768), with the offsets, where another member came in between.
    """
    connection, reader = Connection(settings), Reader("group", group)
    await connection.open()
    try:
        members = await connection.members(stream, topic, group)
        offsets = {}
        for info in await connection.partitions(stream, topic) or []:
            if stored := await connection.stored(reader, Partition(stream, topic, info.number)):
                offsets[info.number] = stored.stored
        await connection.forget_group(stream, topic, group)
        await connection.join(stream, topic, group)
        if len(await connection.members(stream, topic, group)) > 1:
            told = ", ".join(f"{partition}: {offset}" for partition, offset in sorted(offsets.items()))
            hint = f"stop every process of the group, and run this again; the offsets were {{{told}}}"
            raise Stopped(f"another member joined group {group} of {stream}/{topic} meanwhile", hint, "IFX768")
        for number, offset in offsets.items():
            await connection.store(reader, Partition(stream, topic, number), offset)
    finally:
        await connection.close()
    return Renewed(members, offsets)
