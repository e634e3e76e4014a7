"""Rendering beside the event loop: signals, status and other routes go on, however long a plan takes.

A plan runs in a thread, which gives way to the event loop every few milliseconds; only a batch whose size bounds the
work is rendered on the event loop, which is faster.  What takes long is rendered in parts, each of which is a batch of
its own: it is sent, settled and acknowledged before the next ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from iggyflux.records import Batch, Rendered
from iggyflux.runner.route import WriterPlan
from iggyflux.transports.base import Worker


async def rendered_parts(plan: WriterPlan, batch: Batch, worker: Worker) -> AsyncIterator[tuple[Batch, Rendered]]:
    """Yield the parts of a batch, usually one, with what they become; `worker` renders what may take long."""
    parts = plan.render_parts(batch.messages)
    may_take_long = plan.may_take_long(batch.messages)
    if not may_take_long:
        await asyncio.sleep(0)  # starts the next read before this batch occupies the event loop
    start, stop = 0, len(batch.messages)
    while start < stop:
        count, rendered = await worker.call(next, parts) if may_take_long else next(parts)
        yield batch.part(start, start + count), rendered
        start += count
