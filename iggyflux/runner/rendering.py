"""Rendering beside the event loop: signals, status and other routes go on, however long a plan takes.

A plan runs in a thread, which gives way to the event loop every few milliseconds; only a batch whose size bounds the
work is rendered on the event loop, which is faster.  What takes long is rendered in parts, each of which is a batch of
its own: it is sent, settled and acknowledged before the next ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from iggyflux.records import Batch, Rendered
from iggyflux.runner.route import WriterPlan

P = ParamSpec("P")
T = TypeVar("T")


class RenderThread:
    """The thread in which the plan of one route runs."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="iggyflux-render")

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return the result of `function`, run in the thread."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, lambda: function(*args, **kwargs))

    async def render(self, plan: WriterPlan, batch: Batch) -> AsyncIterator[tuple[Batch, Rendered]]:
        """Yield the parts of a batch, usually one, with what they become."""
        parts = plan.render_parts(batch.messages)
        may_take_long = plan.may_take_long(batch.messages)
        if not may_take_long:
            await asyncio.sleep(0)  # starts the next read before this batch occupies the event loop
        start, stop = 0, len(batch.messages)
        while start < stop:
            count, rendered = await self.call(next, parts) if may_take_long else next(parts)
            yield batch.part(start, start + count), rendered
            start += count

    async def close(self) -> None:
        """End the thread after the part in progress, without waiting for it; idempotent."""
        self._executor.shutdown(wait=False, cancel_futures=True)
