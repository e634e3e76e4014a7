"""Where in a payload its decoding failed: a path by the names of its schema, and a byte.

A decoder that knew it at each value would be slower.  So a failure has a function that finds it by a second pass over
the payload, which runs only when the failure is reported.  It holds the payload: so neither it, nor a variable of a
frame that the failure passes, may hold the failure, or the payload would stay until garbage is collected.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from iggyflux.errors import DecodeError
from iggyflux.payloads.format import TOO_LARGE

Step: TypeAlias = str | int
"""A member of an object, or an element of a list."""
_MOST_SHOWN: Final = 120


@dataclass(frozen=True, slots=True)
class Place:
    """The part of a value at `path`, which begins at byte `byte` of the payload (None: that is not known).

    In a container, the byte is one of what the block expands to whose number, from 1, is `block`.  `why` says what is
    wrong there, where only a look at the bytes finds it.
    """

    path: tuple[Step, ...]
    byte: int | None
    block: int | None = None
    why: str = ""

    def __str__(self) -> str:
        parts = [path_text(self.path)] if self.path else []
        if self.byte is not None:
            parts.append(f"byte {self.byte}" + ("" if self.block is None else f" of block {self.block}"))
        return ", ".join(parts)


Find: TypeAlias = Callable[[], Place | None]


def located(error: DecodeError, find: Find) -> DecodeError:
    """Give a failure what finds its place, and return it."""
    error.find_place = find
    return error


def within(error: DecodeError, path: tuple[Step, ...], byte: int | None = 0, block: int | None = None) -> DecodeError:
    """Give a failure the place that it has in the whole, of a part that is at `path` and begins at `byte`.

    Without `byte` the place has none.
    """
    inner: Find | None = error.find_place

    def find() -> Place | None:
        if inner is None:
            return Place(path, byte, block)
        place = inner()
        if place is None:
            return None
        at = None if place.byte is None or byte is None else byte + place.byte
        return replace(place, path=(*path, *place.path), byte=at, block=block)

    return located(error, find)


def with_place(error: DecodeError) -> DecodeError:
    """Return a failure with its place in the reason, and what is wrong there; as slow as to decode the payload again.

    A payload that is too large as a whole has no place.
    """
    place = error.find_place() if error.find_place is not None and error.code != TOO_LARGE else None
    if place is None:
        return error
    reason = error.reason + (f": {place.why}" if place.why else "") + (f" ({place})" if str(place) else "")
    return DecodeError(error.code, reason, error.location, error.hint, payload_line=error.payload_line)


def path_text(path: Iterable[Step]) -> str:
    """Return a path as an expression has it, `readings[3].value`; of a long one the beginning and the end."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{_name(step)}" for step in path).removeprefix(".")
    half = _MOST_SHOWN // 2
    return text if len(text) <= _MOST_SHOWN else f"{text[:half]}…{text[-half:]}"


def _name(name: str) -> str:
    return name if name.isascii() and name.isidentifier() else json.dumps(name)
