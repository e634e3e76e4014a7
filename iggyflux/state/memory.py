"""A state in memory, for work that begins anew when its process ends."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import IO, Any

import msgspec

from iggyflux.state.store import NOTHING, StateStore


class MemoryState(StateStore):
    """A `StateStore` of a record in `kept`, by its key; it keeps no blobs."""

    def __init__(self, kept: dict[str, Any], key: str) -> None:
        self._kept = kept
        self._key = key

    @property
    def place(self) -> str:
        """As of `StateStore`."""
        return f"memory:{self._key}"

    def take(self) -> None:
        """As of `StateStore`; no other process can have it."""

    def read(self) -> Any:
        """As of `StateStore`."""
        return self._kept.get(self._key)

    def blob(self, number: int) -> Iterator[bytes]:
        """As of `StateStore`; there is none."""
        raise KeyError(number)

    def commit(
        self,
        record: object,
        *,
        added: Mapping[int, IO[bytes]] = NOTHING,  # noqa: ARG002
        dropped: Collection[int] = (),  # noqa: ARG002
    ) -> None:
        """As of `StateStore`."""
        self._kept[self._key] = msgspec.to_builtins(record)

    def replace(self, record: object | None) -> None:
        """As of `StateStore`."""
        self._kept.pop(self._key, None)
        if record is not None:
            self.commit(record)

    def close(self) -> None:
        """As of `StateStore`; nothing is open."""
