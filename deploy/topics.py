"""Make missing streams and topics on the server of IGGY_ADDRESS: `python topics.py STREAM/TOPIC:PARTITIONS …`.

A run makes no topic that it reads: a name that is misspelt would read nothing, and look healthy.
"""

from __future__ import annotations

import asyncio
import os
import sys

from apache_iggy import AutoLogin, IggyClient, TcpConfig


async def main(address: str, topics: list[str]) -> None:
    name, password = os.environ.get("IGGY_USERNAME", "iggy"), os.environ.get("IGGY_PASSWORD", "iggy")
    login = AutoLogin.username_password(name, password)
    client = IggyClient(TcpConfig(server_address=address, auto_login=login))
    await client.connect()
    for each in topics:
        stream, _, rest = each.partition("/")
        topic, _, partitions = rest.rpartition(":")
        if await client.get_stream(stream) is None:
            await client.create_stream(stream)
        if await client.get_topic(stream, topic) is None:
            await client.create_topic(stream, topic, int(partitions))
        print(f"{stream}/{topic} is there", flush=True)
    await client.logout_user()


if __name__ == "__main__":
    if not (server := os.environ.get("IGGY_ADDRESS")):
        sys.exit("topics.py: set IGGY_ADDRESS to the HOST:PORT of the Iggy server")
    asyncio.run(main(server, sys.argv[1:]))
    os._exit(0)  # the client's threads sometimes abort a process that shuts down
