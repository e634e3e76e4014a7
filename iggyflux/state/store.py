"""The one interface of durable state, so that the code above asks neither where nor how it is kept.

A state has one owner (a consumer of a log or a file, or a reader).  It holds a *record*, a small plain value, and
numbered *blobs* that the record names.  A commit replaces the record and changes the blobs at once, or does nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Mapping
from typing import IO, Any, Protocol

FORMAT = 2
"""The version of what is stored; any other is refused, and never read as empty.  1 was files of JSON and of digests."""

GO_ON = (
    "let the release that wrote it finish, then move the file away; this release begins at `start`, "
    "and points that are sent again overwrite themselves"
)
"""What helps whoever has a consumer's file of format 1."""

CHUNK_BYTES = 2**20
NOTHING: Mapping[int, IO[bytes]] = {}


class StateStore(Protocol):
    """The state of one owner.  All calls block: none is made in an event loop.

    `take` comes before `commit` and `replace`.  Every call may raise `Stopped` (IFX701) where the state cannot be used,
    and, where it is kept by a server, `NotConnected`: then nothing or all was done, and the same call is made again.
    """

    @property
    def place(self) -> str:
        """Where the state is, for people."""

    def take(self) -> None:
        """Become the one who commits.  Raise `Stopped` (IFX702) where another process is."""

    def read(self) -> Any:
        """Return the record as plain JSON values, or None where nothing is stored.  Needs no `take`."""

    def blob(self, number: int) -> Iterator[bytes]:
        """Return a blob in pieces of at most `CHUNK_BYTES`.

        Raise `Stopped` (IFX641) where it is damaged or missing, before or after the last piece.
        """

    def commit(
        self, record: object, *, added: Mapping[int, IO[bytes]] = NOTHING, dropped: Collection[int] = ()
    ) -> None:
        """Replace the record, add and drop blobs; return when all of it would survive a crash."""

    def replace(self, record: object | None) -> None:
        """Store `record` without blobs whatever is there, damaged or of another format; None removes everything."""

    def close(self) -> None:
        """Release everything; idempotent.  Another process may take the state then."""


def check_no_event_loop() -> None:
    """Raise `RuntimeError` in a thread that runs an event loop: every call of a state blocks."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RuntimeError("a state blocks: it is not for an event loop")
