"""Make missing streams and topics on the server of IGGY_ADDRESS: `python topics.py STREAM/TOPIC:PARTITIONS …`.

A run makes no topic that it reads: a name that is misspelt would read nothing, and look healthy.
"""

from __future__ import annotations

import asyncio
import os
import sys

from iggyflux.errors import NotConnected, Stopped
from iggyflux.pipeline import IggySettings, Secret
from iggyflux.transports.iggy.connection import Connection


async def make(settings: IggySettings, topics: list[tuple[str, str, int]]) -> None:
    connection = Connection(settings)
    await connection.open()
    for stream, topic, partitions in topics:
        await connection.create(stream, topic, partitions)
        print(f"{stream}/{topic} is there", flush=True)
    await connection.close()


def read(text: str) -> tuple[str, str, int]:
    stream, _, rest = text.partition("/")
    topic, _, partitions = rest.rpartition(":")
    if not (stream and topic and partitions.isdecimal()):
        sys.exit(f"topics.py: {text!r} is no STREAM/TOPIC:PARTITIONS")
    return stream, topic, int(partitions)


def main() -> int:
    if not (server := os.environ.get("IGGY_ADDRESS")):
        sys.exit("topics.py: set IGGY_ADDRESS to the HOST:PORT of the Iggy server")
    topics = list(map(read, sys.argv[1:]))
    name, password = os.environ.get("IGGY_USERNAME", "iggy"), os.environ.get("IGGY_PASSWORD", "iggy")
    try:
        asyncio.run(make(IggySettings(address=server, username=name, password=Secret(password)), topics))
    except (NotConnected, Stopped) as error:
        print(f"topics.py: {error}", file=sys.stderr, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    os._exit(main())  # the client's threads sometimes abort a process that shuts down
