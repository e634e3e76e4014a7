"""The Iggy transport against a real server: the contract of sources, groups, offsets, sending, crashes."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from iggy_server import IggyServer, find_server

from iggyflux.pipeline import IggySettings
from iggyflux.records import OutgoingMessage, Partition
from iggyflux.transports.iggy import Connection, Reader
from iggyflux.transports.iggy_source import IggySource
from tests.transports.contract import SourceContract, drive

_NAMES = itertools.count()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[IggyServer]:
    found = find_server(tmp_path_factory.mktemp("iggy"))
    if isinstance(found, str):
        pytest.skip(found)
    yield found
    found.close()


class Topic:
    """A fresh topic, and everything a test does with it."""

    def __init__(self, server: IggyServer, partitions: int = 1) -> None:
        self.server = server
        self.stream = f"s{next(_NAMES)}"
        self.partitions = partitions
        server.create_topic(self.stream, "t", partitions)

    def settings(self, **more: Any) -> IggySettings:
        return self.server.settings(**more)

    async def send(self, payloads: Sequence[bytes], partition: int = 0, **headers: Any) -> None:
        connection = Connection(self.settings())
        await connection.open()
        for at in range(0, len(payloads), 1000):
            messages = [OutgoingMessage(payload, headers=headers) for payload in payloads[at : at + 1000]]
            await connection.send(self.stream, "t", partition, messages)
        await connection.close()

    def fill(self, payloads: Sequence[bytes], partition: int = 0, **headers: Any) -> None:
        drive(self.send(payloads, partition, **headers))

    def source(self, kind: Any = "group", name: str = "c", **more: Any) -> IggySource:
        settings = self.settings(**{key: more.pop(key) for key in ("batch_size", "batch_bytes") if key in more})
        return IggySource(settings, self.stream, ["t"], reader=Reader(kind, name), **more)

    def place(self, partition: int = 0) -> Partition:
        return Partition(self.stream, "t", partition)

    async def stored(self, partition: int = 0, kind: Any = "group", name: str = "c") -> int | None:
        connection = Connection(self.settings())
        await connection.open()
        found = await connection.stored(Reader(kind, name), self.place(partition))
        await connection.close()
        return None if found is None else found.stored


@pytest.fixture
def topic(server: IggyServer) -> Topic:
    return Topic(server)


class _Contract(SourceContract):
    kind = "group"

    @pytest.fixture(autouse=True)
    def _topic(self, server: IggyServer) -> None:
        self.topic = Topic(server)

    def fill(self, payloads: Sequence[bytes], partition: int = 0) -> None:
        loop_is_running = True
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            loop_is_running = False
        if loop_is_running:  # a test fills from inside a run: a thread of its own has a loop of its own
            import threading

            thread = threading.Thread(target=self.topic.fill, args=(payloads, partition))
            thread.start()
            thread.join()
        else:
            self.topic.fill(payloads, partition)

    def source(self, *, until_end: bool = True, batch_size: int = 10) -> IggySource:
        return self.topic.source(self.kind, until_end=until_end, batch_size=batch_size)


class TestGroup(_Contract):
    """A consumer group keeps what every source promises."""


class TestSingle(_Contract):
    """A consumer alone keeps what every source promises."""

    kind = "single"
