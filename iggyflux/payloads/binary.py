"""What msgpack and cbor share: a reader of bytes that says where they end too early, and the rules of JSON values.

Both formats are read twice at need: by their fast library, whose answer counts only where it is beyond doubt, and by a
careful reader here in Python, which is the specification and says why a payload is refused.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Collection
from datetime import datetime, timedelta

from iggyflux.errors import DecodeError, counted
from iggyflux.lineprotocol.checks import shorten
from iggyflux.payloads.format import (
    BAD_KEY,
    BAD_NUMBER,
    FOREIGN_TYPE,
    MALFORMED,
    MAX_DEPTH,
    duplicate_key,
    not_utf8,
    too_deep,
)
from iggyflux.reads import Reads

_FLOATS = {2: struct.Struct(">e"), 4: struct.Struct(">f"), 8: struct.Struct(">d")}


class Cursor:
    """Bytes, read from the front."""

    __slots__ = ("_name", "_payload", "_position")

    def __init__(self, payload: bytes, name: str) -> None:
        self._payload = payload
        self._name = name
        self._position = 0

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        end = self._position + count
        if end > len(self._payload):
            raise self.malformed(f"the payload ends early: {counted(count, 'byte')} expected, {self.left:,} left")
        taken = self._payload[self._position : end]
        self._position = end
        return taken

    def byte(self) -> int:
        """The next byte."""
        return self.take(1)[0]

    def unsigned(self, size: int) -> int:
        """The next `size` bytes as an unsigned integer."""
        return int.from_bytes(self.take(size), "big")

    def signed(self, size: int) -> int:
        """The next `size` bytes as a signed integer."""
        return int.from_bytes(self.take(size), "big", signed=True)

    def float(self, size: int, reads: Reads | None) -> float | None:
        """The next `size` bytes as a float, which is finite; None for one that is not, where nothing is read of it."""
        value: float = _FLOATS[size].unpack(self.take(size))[0]
        if value - value != 0.0:
            if reads is None:
                return None
            raise DecodeError(BAD_NUMBER, f"{value!r} at byte {self._position - size} is not a number of JSON")
        return value

    def text(self, count: int) -> str:
        """The next `count` bytes as UTF-8."""
        try:
            return self.take(count).decode("utf-8")
        except UnicodeDecodeError as exc:
            raise not_utf8(exc, f"a string before byte {self._position}") from None

    def raw(self, count: int) -> str:
        """The next `count` bytes in base64."""
        return to_base64(self.take(count))

    def at_end(self) -> None:
        """Nothing is left."""
        if self.left:
            raise self.malformed(f"{counted(self.left, 'byte')} left after the value")

    @property
    def left(self) -> int:
        """How many bytes are left."""
        return len(self._payload) - self._position

    def malformed(self, reason: str) -> DecodeError:
        """The failure for bytes that are not of the format."""
        return DecodeError(MALFORMED, f"not {self._name}: {reason} (at byte {self._position})")

    def foreign(self, what: str) -> DecodeError:
        """The failure for a type that JSON does not have."""
        return DecodeError(FOREIGN_TYPE, f"{self._name} {what} (before byte {self._position}) has no JSON form")


def to_base64(data: bytes) -> str:
    """Bytes as JSON can hold them."""
    return base64.b64encode(data).decode("ascii")


def deeper(depth: int) -> int:
    """The depth of what is inside of a list or an object at `depth`."""
    if depth >= MAX_DEPTH:
        raise too_deep()
    return depth + 1


def object_key(key: object, seen: Collection[str], reads: Reads | None, strict: bool) -> str | None:
    """Return `key`, an integer as its decimal text; None for another type in an object that is not read.

    Raise `DecodeError` for another type where the object is read and, if `strict`, for a key that is among `seen`.
    """
    if type(key) is int:
        key = str(key)
    if not isinstance(key, str):
        if reads is None:
            return None
        raise DecodeError(BAD_KEY, f"the key {shorten(key)} is neither a string nor an integer")
    if strict and key in seen:
        raise duplicate_key(key)
    return key


def time_text(seconds: int, nanoseconds: int) -> str | None:
    """Return a time as RFC 3339 with nine digits, which is exact; None outside of the years 1 to 9999."""
    if not 0 <= nanoseconds < 1_000_000_000:
        return None
    try:
        second = datetime(1970, 1, 1) + timedelta(seconds=seconds)  # noqa: DTZ001  (it is written as UTC)
    except OverflowError:
        return None
    return f"{second.isoformat()}.{nanoseconds:09}Z"


def is_plain(value: object, depth: int = 0) -> bool:
    """Whether `value` is exactly of JSON's types, with finite numbers and not too deep."""
    kind = type(value)
    if kind is dict and depth < MAX_DEPTH:
        # mypy does not narrow by `type(…) is`.
        return all(type(key) is str and is_plain(member, depth + 1) for key, member in value.items())  # type: ignore[attr-defined]
    if kind is list and depth < MAX_DEPTH:
        return all(is_plain(element, depth + 1) for element in value)  # type: ignore[attr-defined]
    if kind is float:
        return bool(value - value == 0.0)  # type: ignore[operator]
    return kind is str or kind is int or kind is bool or value is None
