"""An event loop with virtual time, and processes in it that can vanish between any two steps.

Time passes only when nothing is ready: then it jumps to the next timer.  There are no threads: what is given to an
executor runs in a greenlet, one at a time, and `pause` lets time pass in it.  Each task, timer and greenlet belongs to
the process in whose context it was made.  A process that is killed takes no further step: no `finally` of it runs.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import itertools
import signal
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import greenlet

_PROCESS: contextvars.ContextVar[Process | None] = contextvars.ContextVar("process", default=None)


_STEP_SECONDS = 10.0


class Deadlock(Exception):
    """All tasks wait, and no timer is set."""


class Endless(KeyboardInterrupt):
    """A step does not end.  (What is no `KeyboardInterrupt` would be kept by the task.)"""


@contextmanager
def bounded_steps() -> Iterator[Callable[[], None]]:
    """Raise `Endless` in the block if it takes `_STEP_SECONDS` of CPU without a call of what it gets."""

    def end(*_: object) -> None:
        raise Endless(f"a step takes more than {_STEP_SECONDS:g} s")

    before = signal.signal(signal.SIGVTALRM, end)
    try:
        yield lambda: signal.setitimer(signal.ITIMER_VIRTUAL, _STEP_SECONDS)  # type: ignore[func-returns-value]
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


class Process:
    """What runs together and ends together."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_alive = True
        self.steps = 0
        self.dies_at: int | None = None
        """The step before which it vanishes."""
        self.on_death: list[Callable[[], None]] = []
        self.threads: set[object] = set()
        self._kept: list[object] = []
        self.frozen: list[_Step] | None = None
        """What it would do, while it is frozen."""
        self.freezes = 0

    def freeze(self) -> None:
        """Do nothing until `thaw`, as after SIGSTOP; time goes on."""
        if self.frozen is None:
            self.frozen = []
            self.freezes += 1

    def thaw(self, loop: VirtualLoop) -> None:
        """Go on with all that became due meanwhile."""
        steps, self.frozen = self.frozen or [], None
        loop.go_on(steps)

    def kill(self) -> None:
        """End it now."""
        if self.is_alive:
            self.is_alive = False
            # what is not finished is kept: its `finally` must not run when it is forgotten
            self._kept = [each for each in asyncio.all_tasks() if getattr(each, "process", None) is self]
            for each in self.on_death:
                each()


def current_process() -> Process | None:
    """Return the process that runs now; None for the world itself."""
    return _PROCESS.get()


class _Task(asyncio.Task[Any]):
    """A task whose order in sets does not depend on its address."""

    numbers = itertools.count(1)

    def __init__(self, work: Any, *, context: contextvars.Context | None = None, **more: Any) -> None:
        self._number = next(_Task.numbers)
        self.process = _PROCESS.get() if context is None else context.get(_PROCESS)
        super().__init__(work, context=context, **more)
        self._log_destroy_pending = False

    def __hash__(self) -> int:
        return self._number

    def __eq__(self, other: object) -> bool:
        return self is other


class _Step:
    """A callback that is to run, at once or at a time, as part of a process."""

    __slots__ = ("_args", "_callback", "_context", "_when", "is_cancelled", "process")

    def __init__(self, callback: Callable[..., object], args: Any, context: contextvars.Context | None, when: float):
        self._callback = callback
        self._args = args
        if context is None:
            self._context = contextvars.copy_context()
            self.process = _PROCESS.get()
        else:
            self._context = context
            self.process = context.get(_PROCESS)
        self._when = when
        self.is_cancelled = False

    def run(self) -> None:
        self._context.run(self._callback, *self._args)

    def is_over(self) -> bool:
        """Whether it never runs."""
        return self.is_cancelled or (self.process is not None and not self.process.is_alive)

    # What `asyncio` uses of a handle

    def cancel(self) -> None:
        self.is_cancelled = True

    def cancelled(self) -> bool:
        return self.is_cancelled

    def when(self) -> float:
        return self._when


class VirtualLoop(asyncio.BaseEventLoop):
    """The loop.  `time` begins at 0 and is in seconds."""

    _ready: deque[Any]
    _scheduled: list[Any]
    _stopping: bool

    def __init__(self) -> None:
        super().__init__()
        _Task.numbers = itertools.count(1)
        self._now = 0.0
        self._timers = 0
        self._pools: dict[object, _Pool] = {}
        self.steps = 0
        self.set_task_factory(_make_task)

    def time(self) -> float:
        """Return the virtual time."""
        return self._now

    def spawn(self, process: Process, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run `work` as `process`."""
        context = contextvars.copy_context()
        context.run(_PROCESS.set, process)
        return self.create_task(work, context=context)

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        """Run `func` in a greenlet, as many at once as the executor has threads, in the order of the calls."""
        pool = self._pools.get(executor)
        if pool is None:
            pool = self._pools[executor] = _Pool(self, getattr(executor, "_max_workers", 8))
        return pool.submit(lambda: func(*args))

    def call_soon(self, callback: Any, *args: Any, context: contextvars.Context | None = None) -> Any:
        """As in `asyncio`."""
        step = _Step(callback, args, context, 0.0)
        self._ready.append(step)
        return step

    call_soon_threadsafe = call_soon

    def call_at(self, when: float, callback: Any, *args: Any, context: contextvars.Context | None = None) -> Any:
        """As in `asyncio`."""
        step = _Step(callback, args, context, when)
        self._timers += 1
        heapq.heappush(self._scheduled, (when, self._timers, step))
        return step

    def call_later(self, delay: float, callback: Any, *args: Any, context: contextvars.Context | None = None) -> Any:
        """As in `asyncio`."""
        return self.call_at(self._now + delay, callback, *args, context=context)

    def _run_once(self) -> None:
        scheduled, ready = self._scheduled, self._ready
        while not self._stopping:
            while scheduled and scheduled[0][2].is_over():
                heapq.heappop(scheduled)
            if not ready:
                if not scheduled:
                    raise Deadlock(f"nothing will happen after {self._now} s")
                self._now = max(self._now, scheduled[0][0])
            while scheduled and scheduled[0][0] <= self._now:
                ready.append(heapq.heappop(scheduled)[2])
            for _ in range(len(ready)):
                step = ready.popleft()
                if step.is_cancelled:
                    continue
                process = step.process
                if process is not None:
                    if not process.is_alive:
                        continue
                    if process.frozen is not None:
                        process.frozen.append(step)
                        continue
                    process.steps += 1
                    if process.steps == process.dies_at:
                        process.kill()
                        continue
                self.steps += 1
                try:
                    step.run()
                except Exception as error:
                    self.call_exception_handler({"message": "a callback failed", "exception": error})

    def go_on(self, steps: Iterable[_Step]) -> None:
        """Run steps that were put off."""
        self._ready.extend(steps)

    def _process_events(self, event_list: object) -> None:
        pass

    def _write_to_self(self) -> None:
        pass


def _make_task(loop: asyncio.AbstractEventLoop, work: Any, **more: Any) -> Any:
    return _Task(work, loop=loop, **more)


class _Pool:
    """The greenlets of an executor."""

    def __init__(self, loop: VirtualLoop, workers: int) -> None:
        self._loop = loop
        self._free = workers
        self._waiting: deque[Callable[[], None]] = deque()

    def submit(self, work: Callable[[], Any]) -> asyncio.Future[Any]:
        future = self._loop.create_future()
        process = current_process()

        def run() -> None:
            try:
                result = work()
            except greenlet.GreenletExit:
                raise
            except BaseException as error:
                if not future.done():
                    future.set_exception(error)
            else:
                if not future.done():
                    future.set_result(result)
            self._free += 1
            self._begin_next()
            if process is not None:
                process.threads.discard(greenlet.getcurrent())

        def begin() -> None:
            thread = greenlet.greenlet(run)
            thread.gr_context = contextvars.copy_context()
            if process is not None:
                process.threads.add(thread)
            thread.switch()

        self._waiting.append(begin)
        self._begin_next()
        return future

    def _begin_next(self) -> None:
        while self._free and self._waiting:
            self._free -= 1
            self._loop.call_soon(self._waiting.popleft())


class Wait:
    """A wait of the greenlet that makes it, for a time or until it is ended."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self._thread = greenlet.getcurrent()
        self._context = contextvars.copy_context()
        self._is_over = False

    def wait(self, seconds: float | None = None) -> None:
        """Return after `seconds`, or when `end` is called."""
        if self._thread.parent is None:
            raise RuntimeError("only what an executor runs can wait")
        timer = None if seconds is None else self._loop.call_later(seconds, self.end)
        if not self._is_over:
            self._thread.parent.switch()
        if timer is not None:
            timer.cancel()

    def end(self) -> None:
        """End the wait, from outside of the greenlet."""
        if not self._is_over:
            self._is_over = True
            self._loop.call_soon(self._thread.switch, context=self._context)


def is_in_thread() -> bool:
    """Return whether this runs in an executor, where `pause` lets time pass."""
    return current_process() is not None and greenlet.getcurrent().parent is not None


def pause(seconds: float) -> None:
    """Let time pass in a greenlet; the process may vanish meanwhile."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    Wait(loop).wait(seconds)


def vanish() -> None:
    """Kill the process of this greenlet: it never continues."""
    process = current_process()
    assert process is not None
    process.kill()
    greenlet.getcurrent().parent.switch()
