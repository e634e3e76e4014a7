"""Asks the worker process, one question at a time, each within a limit of processor time.

A worker that takes longer ends, and another one is started.  Of the questions of one kind that wait, only the newest
is asked: the others are about texts that are gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections import Counter
from typing import Final

import msgspec

from iggyflux.playground.service import Answer, Question
from iggyflux.playground.worker import SMALLER, TOO_LONG

ANSWER_SECONDS: Final = 10.0
"""The processor time of an answer."""
MOST_TIMES: Final = 30
"""So many times as long a worker may take on a busy machine."""
ANSWER_BYTES: Final = 1 << 26


class Superseded(Exception):
    """A newer question of the same kind waits."""


class Desk:
    """The worker and who waits for it."""

    def __init__(self, seconds: float = ANSWER_SECONDS) -> None:
        self._seconds = seconds
        self._process: asyncio.subprocess.Process | None = None
        self._lock = asyncio.Lock()
        self._newest: Counter[str] = Counter()

    async def ask(self, name: str, question: Question) -> Answer:
        """Return the answer, or a fault if there is none in time.  Raise `Superseded`."""
        self._newest[name] += 1
        number = self._newest[name]
        async with self._lock:
            if self._newest[name] != number:
                raise Superseded
            try:
                async with asyncio.timeout(MOST_TIMES * self._seconds):
                    line = await self._answer(f"{name} ".encode() + msgspec.json.encode(question) + b"\n")
            except TimeoutError:
                await self.close()
                return self._too_long()
            except ValueError:  # the line has no end within the limit
                await self.close()
                return _fault("the answer is too large")
            except BaseException:  # a question that is broken off leaves half an answer in the pipe
                await self.close()
                raise
        if not line:
            ended = await self.close()
            return self._too_long() if ended == -signal.SIGPROF else _fault("this takes too much memory")
        answer: Answer = msgspec.json.decode(line)
        return answer

    async def _answer(self, line: bytes) -> bytes:
        if self._process is None:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "iggyflux.playground.worker", str(self._seconds)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                limit=ANSWER_BYTES,
            )
        to_worker, from_worker = self._process.stdin, self._process.stdout
        if to_worker is None or from_worker is None:
            raise AssertionError
        with contextlib.suppress(ConnectionError):
            to_worker.write(line)
            await to_worker.drain()
        return await from_worker.readline()

    async def close(self) -> int | None:
        """End the worker, and return its exit code, if there is one."""
        process, self._process = self._process, None
        if process is None:
            return None
        with contextlib.suppress(ProcessLookupError):
            if process.stdout is None or not process.stdout.at_eof():  # else it has ended by itself
                process.kill()
        return await process.wait()

    def _too_long(self) -> Answer:
        return _fault(f"no answer within {self._seconds:g} s")


def _fault(reason: str) -> Answer:
    return {"fault": {"code": TOO_LONG, "message": reason, "line": 0, "hint": SMALLER}}
