"""How large a request may be, as far as the server has shown.

Pure.  A server that refuses a request as too large seldom says what it would take, and sometimes it was a proxy in a
bad moment.  So a limit that was only concluded is tried again at twice the size once enough requests near it were
accepted; one that the server named is kept.
"""

from __future__ import annotations

# So many requests near the limit pay for one that may be refused.
_ACCEPTED_BEFORE_MORE = 16


class ByteLimit:
    """The limit for one server, shared by all deliveries to it; `bytes` never exceeds `most`."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.bytes = most
        """The largest request to be sent now."""
        self._is_named = False
        self._accepted = 0

    @property
    def is_lowered(self) -> bool:
        """Whether the server takes less than we would send: only then accepted requests are of interest."""
        return self.bytes < self._most and not self._is_named

    def refused(self, size: int, named: int | None) -> None:
        """A request of `size` bytes was too large; `named` is the limit that the server told, where it did."""
        self._is_named = named is not None and 0 < named < size
        self.bytes = min(self.bytes, named if named is not None and self._is_named else max(size // 2, 1))
        self._accepted = 0

    def accepted(self, size: int) -> None:
        """A request of `size` bytes was not."""
        if self.is_lowered and 2 * size >= self.bytes:
            self._accepted += 1
            if self._accepted >= _ACCEPTED_BEFORE_MORE:
                self.bytes = min(2 * self.bytes, self._most)
                self._accepted = 0
