"""What every `Source` must do, whatever system it reads from.  Tests of a transport subclass it.

The promises are those of `iggyflux.transports.base`: reading moves a position in memory only, what was acknowledged
survives, everything else is read again, byte for byte.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

import pytest

from iggyflux.errors import EndOfInput
from iggyflux.records import Batch, Message, Position
from iggyflux.transports.base import Source

T = TypeVar("T")


def drive(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run `coroutine`; a transport that hangs fails."""

    async def bounded() -> T:
        return await asyncio.wait_for(coroutine, 120)

    return asyncio.run(bounded())


class SourceContract:
    """Subclass it, with fixtures of your own if necessary."""

    partitions = 1

    @abstractmethod
    def fill(self, payloads: Sequence[bytes], partition: int = 0) -> None:
        """Append messages to a partition of the one topic."""

    @abstractmethod
    def source(self, *, until_end: bool = True, batch_size: int = 10) -> Source:
        """Return a new source on it, as after a restart, with the same consumer name."""

    # The suite

    def test_messages_come_in_order_and_whole(self) -> None:
        payloads = [f'{{"n": {number}}}'.encode() for number in range(25)]
        self.fill(payloads)

        messages = drive(self.read_all())

        assert [message.payload for message in messages] == payloads
        assert [message.offset for message in messages] == list(range(25))

    def test_a_batch_has_one_partition_and_at_most_the_requested_size(self) -> None:
        self.fill([b"{}"] * 25)

        async def main() -> list[Batch]:
            source = self.source()
            return await self.batches(source)

        for batch in drive(main()):
            assert 1 <= len(batch.messages) <= 10
            offsets = [message.offset for message in batch.messages]
            assert offsets == list(range(offsets[0], offsets[0] + len(offsets)))

    def test_the_end_comes_after_the_last_message_and_again(self) -> None:
        self.fill([b"{}"])

        async def main() -> None:
            source = self.source()
            await source.connect()
            assert await self.next_batch(source)
            for _ in range(2):
                with pytest.raises(EndOfInput):
                    await self.next_batch(source)
            await source.close()

        drive(main())

    def test_an_empty_source_returns_none_and_reads_later_messages(self) -> None:
        self.fill([b'"first"'])

        async def main() -> list[bytes]:
            source = self.source(until_end=False)
            await source.connect()
            first = await self.next_batch(source)
            assert await source.read() is None
            self.fill([b'"second"'])
            second = await self.next_batch(source)
            await source.close()
            return [message.payload for batch in (first, second) if batch for message in batch.messages]

        assert drive(main()) == [b'"first"', b'"second"']

    def test_what_was_acknowledged_does_not_come_again(self) -> None:
        self.fill([b"%d" % number for number in range(25)])

        async def main() -> list[Message]:
            source = self.source()
            await source.connect()
            first = await self.next_batch(source)
            assert first
            await source.ack([first.last])
            await source.close()
            return [message for batch in await self.batches(self.source()) for message in batch.messages]

        assert [message.payload for message in drive(main())] == [b"%d" % number for number in range(10, 25)]

    def test_what_was_not_acknowledged_is_read_again_unchanged(self) -> None:
        self.fill([b"%d" % number for number in range(25)])

        async def main() -> tuple[list[Batch], list[Batch]]:
            return await self.batches(self.source()), await self.batches(self.source())

        before, after = drive(main())
        assert before == after

    def test_reconnecting_returns_to_what_was_acknowledged(self) -> None:
        self.fill([b"%d" % number for number in range(25)])

        async def main() -> Batch | None:
            source = self.source()
            await source.connect()
            first = await self.next_batch(source)
            await self.next_batch(source)
            assert first
            await source.ack([first.last])
            await source.connect()
            again = await self.next_batch(source)
            await source.close()
            return again

        again = drive(main())
        assert again
        assert again.messages[0].payload == b"10"

    def test_an_acknowledgement_of_several_batches_at_once_counts_for_all(self) -> None:
        self.fill([b"%d" % number for number in range(25)])

        async def main() -> list[Batch]:
            source = self.source()
            await source.connect()
            read = [await self.next_batch(source) for _ in range(3)]
            await source.ack(positions(read))
            await source.close()
            return await self.batches(self.source())

        assert drive(main()) == []

    def test_to_close_twice_is_fine(self) -> None:
        self.fill([b"{}"])

        async def main() -> None:
            source = self.source()
            await source.connect()
            await source.close()
            await source.close()

        drive(main())

    # How it is read

    async def read_all(self) -> list[Message]:
        return [message for batch in await self.batches(self.source()) for message in batch.messages]

    async def batches(self, source: Source) -> list[Batch]:
        """Return every batch up to the end; close the source."""
        await source.connect()
        found = []
        try:
            while True:
                if batch := await source.read():
                    found.append(batch)
        except EndOfInput:
            return found
        finally:
            await source.close()

    async def next_batch(self, source: Source) -> Batch | None:
        """Return the next batch; None only if a source stays empty for long."""
        for _ in range(100):
            if batch := await source.read():
                return batch
        return None


def positions(batches: Sequence[Batch | None]) -> list[Position]:
    """Return the last position of each partition of `batches`."""
    last = {batch.partition: batch.last for batch in batches if batch}
    return list(last.values())
