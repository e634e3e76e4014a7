"""How a value varies from message to message, and the values to try in its place."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from random import Random
from typing import TypeAlias

from iggyflux.records import JSON

Path: TypeAlias = tuple[str | int, ...]
Setter: TypeAlias = "Callable[[Random, int, int], JSON]"
"""Returns a new value of a leaf, given a generator, the message's number and its time in nanoseconds."""

NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?", re.ASCII)
_COUNTER = re.compile(r"(?<![0-9])[0-9]++(?=[^0-9]*\Z)", re.ASCII)


def constant(value: JSON) -> Setter:
    """Return a setter that always gives `value`."""
    return lambda _random, _number, _time: value


def as_text(setter: Setter) -> Setter:
    """Return a setter that gives the number of `setter` as a string."""
    return lambda random, number, time_ns: str(setter(random, number, time_ns))


def walking(path: Path, value: float) -> Setter:
    """Return a setter of numbers around `value`, up to a tenth away, with noise; type and sign stay the same."""
    whole = isinstance(value, int)
    if abs(value) >= 1e9:  # a serial number, a time, a counter
        return lambda _random, number, _time: value + number if whole else value
    spread = max(abs(value) * 0.1, 1.0 if whole or value == 0 else 0.0)
    phase = sum(map(ord, repr(path))) % 628 / 100
    decimals = max(_decimals(repr(value)), 1)
    low = 0 if value >= 0 else -math.inf
    high = 1 if not whole and 0 <= value <= 1 else math.inf

    def step(random: Random, number: int, _time_ns: int) -> JSON:
        swing = 0.7 * math.sin(number / 40 + phase) + 0.3 * random.uniform(-1, 1)
        moved = min(max(value + spread * swing, low), high)
        return round(moved) if whole else round(moved, decimals)

    return step


def _decimals(text: str) -> int:
    return min(len(text.partition(".")[2]), 6) if "e" not in text else 6


def numbered(text: str, variants: int) -> list[JSON]:
    """Return `text` with its last number counted up; an empty list if it has no number."""
    match = _COUNTER.search(text)
    if match is None or len(match[0]) > 15:
        return []
    width, first = len(match[0]), int(match[0])
    others = (str(first + step).zfill(width) for step in range(1, variants))
    return [
        f"{text[: match.start()]}{other}{text[match.end() :]}" for other in others if len(other) == width or width < 2
    ]


def next_number(text: str) -> str:
    """Return the number in `text` plus one, with as many decimals; integers stay exact."""
    return f"{float(text) + 1:.{_decimals(text)}f}" if "." in text else str(int(text) + 1)


def other_value(value: JSON) -> JSON:
    """Return another value of the same type; None if there is none to try."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value + 1
    if isinstance(value, str):
        if NUMBER.fullmatch(value):
            return next_number(value)
        return (numbered(value, 2) or [value + "x"])[0]
    return None
