"""Make the stream and topics of the example on the server of IGGY_ADDRESS, and send readings: `python send.py [COUNT]`.

The key of a message is the name of its device, so its messages stay in one partition and in order.  One message in a
hundred is wrong on purpose, to show where it is kept.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from itertools import groupby

from apache_iggy import AutoLogin, IggyClient, Partitioning, SendMessage, TcpConfig

STREAM, TOPIC, DEAD_LETTERS, PARTITIONS = "factory", "readings", "dead-letters", 4
DEVICES = 20


async def main(address: str, count: int) -> None:
    name, password = os.environ.get("IGGY_USERNAME", "iggy"), os.environ.get("IGGY_PASSWORD", "iggy")
    login = AutoLogin.username_password(name, password)
    client = IggyClient(TcpConfig(server_address=address, auto_login=login))
    await client.connect()
    await ensure_topics(client)
    for first in range(0, count, 1000):
        numbers = sorted(range(first, min(first + 1000, count)), key=lambda number: number % DEVICES)
        for device, of_device in groupby(numbers, key=lambda number: number % DEVICES):
            messages = [SendMessage(reading(device, number), {"tenant": "acme"}) for number in of_device]
            await client.send_messages(STREAM, TOPIC, Partitioning.messages_key(f"press-{device}"), messages)
    print(f"sent {count} messages to {STREAM}/{TOPIC}", flush=True)
    await client.logout_user()


async def ensure_topics(client: IggyClient) -> None:
    if await client.get_stream(STREAM) is None:
        await client.create_stream(STREAM)
    for topic, partitions in ((TOPIC, PARTITIONS), (DEAD_LETTERS, 1)):
        if await client.get_topic(STREAM, topic) is None:
            await client.create_topic(STREAM, topic, partitions)


def reading(device: int, number: int) -> bytes:
    celsius = "hot" if number % 100 == 99 else 20 + number % 50 / 10
    ts = int(time.time() * 1000) + number
    readings = [{"celsius": celsius, "count": number, "state": "ok", "ts": ts}]
    return json.dumps({"device": {"id": f"press-{device}", "line": "AB"[device % 2]}, "readings": readings}).encode()


if __name__ == "__main__":
    if not (server := os.environ.get("IGGY_ADDRESS")):
        sys.exit("send.py: set IGGY_ADDRESS to the HOST:PORT of the Iggy server to send to")
    asyncio.run(main(server, int(sys.argv[1]) if len(sys.argv) > 1 else 10_000))
    os._exit(0)  # the client's threads sometimes abort a process that shuts down
