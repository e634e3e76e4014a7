"""Where in a payload its decoding failed: a path by the names of its schema, and a byte.

A decoder that knew it at each value would be slower.  So a failure has a function that finds it by a second pass over
the payload, which runs only when the failure is told.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from iggyflux.errors import DecodeError

Step: TypeAlias = str | int
"""A member of an object, or an element of a list."""
_MOST_SHOWN: Final = 120


@dataclass(frozen=True, slots=True)
class Place:
    """The part of a value at `path`, which begins at byte `byte` of the payload.

    In a container, the byte is one of what the block expands to whose number, from 1, is `block`.
    """

    path: tuple[Step, ...]
    byte: int
    block: int | None = None

    def __str__(self) -> str:
        byte = f"byte {self.byte}" + ("" if self.block is None else f" of block {self.block}")
        return f"{path_text(self.path)}, {byte}" if self.path else byte


Find: TypeAlias = Callable[[], Place | None]


def located(error: DecodeError, find: Find) -> DecodeError:
    """Give a failure what finds its place, and return it."""
    error.find_place = find
    return error


def within(error: DecodeError, path: tuple[Step, ...], byte: int = 0, block: int | None = None) -> DecodeError:
    """Give a failure the place that it has in the whole, of a part that is at `path` and begins at `byte`."""
    inner: Find | None = error.find_place

    def find() -> Place | None:
        if inner is None:
            return Place(path, byte, block)
        place = inner()
        return place and replace(place, path=(*path, *place.path), byte=byte + place.byte, block=block)

    return located(error, find)


def told(error: DecodeError) -> DecodeError:
    """Return a failure with its place in the reason; it takes as long as to decode the payload again."""
    place = error.find_place() if error.find_place is not None else None
    if place is None:
        return error
    return DecodeError(
        error.code, f"{error.reason} ({place})", error.location, error.hint, payload_line=error.payload_line
    )


def path_text(path: Iterable[Step]) -> str:
    """Return a path as an expression has it, `readings[3].value`; of a long one the beginning and the end."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{_name(step)}" for step in path).removeprefix(".")
    half = _MOST_SHOWN // 2
    return text if len(text) <= _MOST_SHOWN else f"{text[:half]}…{text[-half:]}"


def _name(name: str) -> str:
    return name if name.isascii() and name.isidentifier() else json.dumps(name)
