"""Iggy in the world: the server of `fake_iggy_groups`, whose calls take time and fail as the world demands."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from tests.simulation.loop import Process, current_process
from tests.simulation.reader import Confirmation, Confirmed, OutgoingBytes
from tests.transports.fake_iggy_groups import _CALLS, FakeClient, FakeGroups, _call


class Iggy(FakeGroups):
    """One server; `slow` multiplies the time of calls, `flaky` is the probability that a call ends its connection."""

    def __init__(self, chance: random.Random, partitions: int, topics: tuple[str, ...]) -> None:
        super().__init__(partitions, topics=topics)
        self.chance = chance
        self.slow = 1.0
        self.flaky = 0.0
        self.on_receive: Callable[[str, bytes, int], None] = lambda *_: None
        """Called with a topic, and the payload and id of a message that was sent to it."""
        self.dies_at: tuple[Process, int, bool] | None = None
        """A process that vanishes when it sends messages, after so many sends, before or after that one."""

    def end(self, client: Client) -> None:
        """End a connection; the server notices, or keeps the member as a ghost."""
        if client.number in self.clients:
            if self.chance.random() < 0.7:
                self.disconnect(client)
            else:
                self.make_ghost(client)

    def client(self) -> Client:
        """Return a client that is not connected."""
        client = Client(self)
        client.process = current_process()
        return client


class Client(FakeClient):
    """A client whose calls take time."""

    server: Iggy
    process: Process | None = None

    __getattribute__ = object.__getattribute__

    async def login_user(self, _name: str, _password: str) -> None:
        """As the SDK's client, which calls it over HTTP only."""

    async def send_messages(self, _stream: str, topic: str, number: int, batch: Sequence[OutgoingBytes]) -> Confirmed:
        """Append messages, as the SDK's client."""
        self._topic(topic)
        await self._die(is_after=False)
        for each in batch:
            self.server.append(topic, number, [each.payload])
            self.server.on_receive(topic, each.payload, each.number or 0)
        await self._die(is_after=True)
        return Confirmed([Confirmation(number)])

    async def _die(self, *, is_after: bool) -> None:
        if self.server.dies_at is None or self.process is None:
            return
        process, left, dies_after = self.server.dies_at
        if process is not self.process or dies_after != is_after:
            return
        self.server.dies_at = None if left == 0 else (process, left - 1, dies_after)
        if left == 0:
            process.kill()
            await asyncio.get_running_loop().create_future()


def _slow(name: str) -> Any:
    method = getattr(Client, name)

    def call(client: Client, *args: Any, **named: Any) -> Any:
        return _slow_call(client, partial(_call, client, name, partial(method, client)), *args, **named)

    return call


async def _slow_call(client: Client, call: Any, *args: Any, **named: Any) -> Any:
    server = client.server
    chance = server.chance
    if server.slow == 1.0 and not server.flaky and chance.random() < 0.5:
        return await call(*args, **named)
    seconds = chance.expovariate(1 / (0.004 * server.slow))
    is_before = chance.random() < 0.5
    fails = server.flaky and chance.random() < server.flaky
    if is_before:
        await asyncio.sleep(seconds)
        if fails:
            server.end(client)
        return await call(*args, **named)
    answer = await call(*args, **named)
    if fails and chance.random() < 0.2:
        if client.number in server.clients:
            server.make_ghost(client)  # the other end is gone without a word
        await asyncio.get_running_loop().create_future()
    if fails:
        server.end(client)
    await asyncio.sleep(seconds)
    if not client.is_alive:
        raise RuntimeError("Disconnected")
    return answer


for _name in (*_CALLS, "login_user", "send_messages"):
    setattr(Client, _name, _slow(_name))
