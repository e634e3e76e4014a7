"""The one interface of durable state: the code above knows neither where nor how it is kept.

A state has one owner (a consumer of a log or a file, or a reader).  It has a *record*, a small plain value, and
numbered *blobs* that the record names.  A commit replaces the record and changes the blobs atomically.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Mapping
from typing import IO, Any, Protocol

FORMAT = 2
"""The version of the stored format; any other is rejected, never read as empty.  Format 1 was JSON files."""

UPGRADE_HINT = (
    "let the release that wrote it finish, then move the file away; this release begins at `start`, "
    "and points that are sent again overwrite themselves"
)
"""The hint for a consumer's file of format 1."""

CHUNK_BYTES = 2**20
NOTHING: Mapping[int, IO[bytes]] = {}


class StateStore(Protocol):
    """The state of one owner.  All calls block: make none in an event loop.

    Call `take` before `commit` and `replace`.  Every call may raise `Stopped` (IFX701) if the state cannot be used.  If
    a server keeps the state, it may raise `NotConnected`: nothing or everything was done, and the call is repeated.
    """

    @property
    def place(self) -> str:
        """Where the state is, for people."""

    def take(self) -> None:
        """Lock the state for this process.  Raise `Stopped` (IFX702) if another process has it."""

    def read(self) -> Any:
        """Return the record as plain JSON values, or None if nothing is stored.  Needs no `take`."""

    def blob(self, number: int) -> Iterator[bytes]:
        """Return a blob in pieces of at most `CHUNK_BYTES`.

        Raise `Stopped` (IFX641) if it is damaged or missing, before or after the last piece.
        """

    def commit(
        self, record: object, *, added: Mapping[int, IO[bytes]] = NOTHING, dropped: Collection[int] = ()
    ) -> None:
        """Replace the record, add and drop blobs; return when everything would survive a crash."""

    def replace(self, record: object | None) -> None:
        """Store `record` without blobs in place of any state, even a damaged one; None removes everything."""

    def close(self) -> None:
        """Release everything; idempotent.  Another process may take the state then."""


def check_no_event_loop() -> None:
    """Raise `RuntimeError` in a thread that runs an event loop: every call of a state blocks."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RuntimeError("a state blocks: it is not for an event loop")
