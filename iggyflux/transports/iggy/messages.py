"""Messages of Iggy's SDK as the messages of a batch.

Most are never built, and their headers are never decoded.  Those of the SDK take 440 bytes beside their payloads, so
messages that wait for a server are kept as columns.
"""

from __future__ import annotations

import pickle
from array import array
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from types import MappingProxyType
from typing import Any, Final

from iggyflux import deflate
from iggyflux.records import LazyMessages, MakeMessage, Message, Partition, Scalar

_ID_BYTES: Final = 16


def lazy_messages(polled: Sequence[Any], place: Partition) -> LazyMessages:
    """Return what was polled of a partition."""

    def make(index: int, payload: bytes) -> Message:
        each = polled[index]
        return Message(
            payload,
            place.stream,
            place.topic,
            place.partition,
            each.offset(),
            each.timestamp(),
            each.origin_timestamp(),
            each.id(),
            _NO_HEADERS if each.user_headers() is None else Headers(each),
        )

    return LazyMessages(
        [each.payload() for each in polled],
        make,
        compact=lambda indices: _compact([polled[at] for at in indices], place),
    )


def _compact(polled: Sequence[Any], place: Partition) -> MakeMessage:
    """Return a function that builds the messages of columns."""
    offsets = array("Q", [each.offset() for each in polled])
    timestamps = array("Q", [each.timestamp() for each in polled])
    origins = array("Q", [each.origin_timestamp() for each in polled])
    ids = b"".join([each.id().to_bytes(_ID_BYTES, "big") for each in polled])
    found = [None if (given := each.user_headers()) is None else _decoded(given) for each in polled]
    packed = deflate.compress(pickle.dumps(found), 1) if any(found) else b""

    @cache
    def headers() -> Sequence[Mapping[str, Scalar | bytes] | None]:
        unpacked: list[Mapping[str, Scalar | bytes] | None] = pickle.loads(deflate.decompress(packed))  # noqa: S301  # our own bytes
        return unpacked

    def make(index: int, payload: bytes) -> Message:
        return Message(
            payload,
            place.stream,
            place.topic,
            place.partition,
            offsets[index],
            timestamps[index],
            origins[index],
            int.from_bytes(ids[index * _ID_BYTES : (index + 1) * _ID_BYTES], "big"),
            (headers()[index] if packed else None) or _NO_HEADERS,
        )

    return make


class Headers(Mapping[str, "Scalar | bytes"]):
    """The headers of a message, decoded on first access: most mappings never read them."""

    __slots__ = ("_found", "_message")

    def __init__(self, message: Any) -> None:
        self._message = message

    def __getitem__(self, key: str) -> Scalar | bytes:
        return self._all()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def __repr__(self) -> str:
        return repr(self._all())

    def _all(self) -> dict[str, Scalar | bytes]:
        if self._message is not None:
            self._found = _decoded(self._message.user_headers())
            self._message = None
        return self._found


_NO_HEADERS: Final[Mapping[str, Scalar | bytes]] = MappingProxyType({})


def _decoded(headers: Any) -> dict[str, Scalar | bytes]:
    """Return headers of every kind, by string keys; where two keys become one string, the later one is kept."""
    if not headers:
        return {}
    found: dict[str, Scalar | bytes] = {}
    for key, value in headers.items():
        name = key.value
        if isinstance(name, bytes):
            name = b64encode(name).decode("ascii")
        elif not isinstance(name, str):
            name = str(name).lower() if isinstance(name, bool) else str(name)
        found[name] = value.value
    return found
