"""Rebuild a consumer group: delete it with its members, create it again with its offsets.

No other process may join meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from iggyflux.errors import NotConnected, Stopped
from iggyflux.records import Partition
from iggyflux.transports.iggy.connection import Connection, ConsumerId


@dataclass(frozen=True, slots=True)
class RebuiltGroup:
    """The former state of a group: the partitions of its members, and its stored offsets by partition."""

    members: Mapping[int, tuple[int, ...]]
    offsets: Mapping[int, int]


async def renew(
    connection: Connection, stream: str, topic: str, group: str, *, keep: Callable[[Mapping[int, int]], None]
) -> RebuiltGroup:
    """Delete a group, create it by joining it, and store its former offsets; `connection` stays a member.

    `keep` receives the offsets before anything is deleted: if this raises later, they may be stored nowhere else.
    Raise `NotConnected` (as `CallFailed`, NOT_OWNER, if another member joined meanwhile).
    """
    consumer = ConsumerId("group", group)
    members = await connection.members(stream, topic, group)
    offsets = {}
    for info in await connection.partitions(stream, topic) or []:
        if stored := await connection.stored(consumer, Partition(stream, topic, info.number)):
            offsets[info.number] = stored.stored
    keep(offsets)
    await connection.forget_group(stream, topic, group)
    await connection.join(stream, topic, group)
    for number, offset in offsets.items():
        await connection.store(consumer, Partition(stream, topic, number), offset)
    return RebuiltGroup(members, offsets)


async def refuse_while_connected(connection: Connection, stream: str, topic: str, group: str) -> None:
    """Raise `Stopped` (IFX769) if members of a group are connected, or may be."""
    members, connected = await connection.presence(stream, topic, group)
    if connected == 0:
        return
    state = "may be connected" if connected is None else "are connected"
    count = f"{len(members) if connected is None else connected} of {len(members)} members {state}"
    hint = "stop every process of the group, or add --yes: running processes join again and read some messages twice"
    raise Stopped(f"group {group} of {stream}/{topic} is in use: {count}", hint, "IFX769")


async def regroup(connection: Connection, stream: str, topic: str, group: str) -> RebuiltGroup:
    """Rebuild a group as `renew` does, for a command.  Raise `Stopped` (IFX768), with the offsets, if it breaks off."""
    kept: dict[int, int] = {}
    try:
        return await renew(connection, stream, topic, group, keep=kept.update)
    except NotConnected as error:
        if not kept:
            raise
        offsets = ", ".join(f"{partition}: {offset}" for partition, offset in sorted(kept.items()))
        hint = f"stop every process of the group, and run this again; the offsets were {{{offsets}}}"
        raise Stopped(f"group {group} of {stream}/{topic} was not rebuilt: {error}", hint, "IFX768") from error
