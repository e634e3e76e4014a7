"""What a compiled plan costs on some messages: decoding, each interpreted expression, and the generated code."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from iggyflux.expressions import Expression
from iggyflux.plan.compiled import CompiledPlan
from iggyflux.records import Message

ROUNDS = 7


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds of CPU time for one message: all, and its parts; the rest is generated code."""

    whole: float
    decoding: float
    interpreted: tuple[tuple[Expression, float], ...]

    @property
    def generated(self) -> float:
        """What is left for generated code."""
        return max(self.whole - self.decoding - sum(seconds for _, seconds in self.interpreted), 0.0)


def measure_cost(plan: CompiledPlan, messages: Sequence[Message]) -> Cost:
    """Return the cost of messages that render without a failure: the best of seven rounds of each part.

    Each round has messages of its own, since a plan remembers texts and times.  There must be 14 messages at least.
    """
    count = len(messages) // (2 * ROUNDS)
    whole, decoding = [], []
    found: list[list[float]] = [[] for _ in plan.interpreted]
    for start in range(0, 2 * ROUNDS * count, 2 * count):
        first, second = messages[start : start + count], messages[start + count : start + 2 * count]
        since = time.thread_time()
        plan.decode(first)
        decoding.append(time.thread_time() - since)
        since = time.thread_time()
        plan.render(first)
        whole.append(time.thread_time() - since)
        with plan.timing(time.thread_time) as spent:
            plan.render(second)
        for seconds, (_, of) in zip(found, plan.interpreted, strict=True):
            seconds.append(spent[of])
    parts = [(source, min(seconds) / count) for seconds, (source, _) in zip(found, plan.interpreted, strict=True)]
    return Cost(min(whole) / count, min(decoding) / count, tuple(parts))
