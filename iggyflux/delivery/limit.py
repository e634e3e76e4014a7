"""How large a request may be, as learnt from the server.

Pure.  A server that rejects a request as too large seldom names its limit, and the rejection may be a proxy's temporary
fault.  So a limit that was inferred is doubled again after enough accepted requests near it; a limit that the server
named is kept.
"""

from __future__ import annotations

# So many accepted requests near the limit make up for one that may be rejected.
_ACCEPTED_BEFORE_MORE = 16


class ByteLimit:
    """The limit for one server, shared by all deliveries to it; `bytes` never exceeds `most`."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.bytes = most
        """The size in bytes of the largest request to send now."""
        self._is_named = False
        self._accepted = 0

    @property
    def is_lowered(self) -> bool:
        """Whether an inferred limit is in force: only then `accepted` matters."""
        return self.bytes < self._most and not self._is_named

    def refused(self, size: int, named: int | None) -> None:
        """Lower the limit: a request of `size` bytes was too large; `named` is the limit that the server named."""
        limit = named if named is not None and 0 < named < size else max(size // 2, 1)
        self.bytes, self._is_named = min(self.bytes, limit), limit == named
        self._accepted = 0

    def accepted(self, size: int) -> None:
        """Count an accepted request of `size` bytes; enough of them near the limit double it."""
        if self.is_lowered and 2 * size >= self.bytes:
            self._accepted += 1
            if self._accepted >= _ACCEPTED_BEFORE_MORE:
                self.bytes = min(2 * self.bytes, self._most)
                self._accepted = 0
