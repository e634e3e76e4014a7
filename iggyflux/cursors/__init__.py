"""How far readers have come, durably: on disk or in a topic, with digests of what may have to be looked at again."""

from __future__ import annotations

from iggyflux.cursors.deduplicator import Deduplicator, key_rows
from iggyflux.cursors.slices import Mark, Slice
from iggyflux.cursors.store import Cursor, CursorStore, cursor_state

__all__ = ["Cursor", "CursorStore", "Deduplicator", "Mark", "Slice", "cursor_state", "key_rows"]
