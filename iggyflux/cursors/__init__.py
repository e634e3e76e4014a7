"""Durable cursors of readers, on disk or in a topic, with digests of the rows that may be read again."""

from __future__ import annotations

from iggyflux.cursors.deduplicator import Deduplicator, key_rows
from iggyflux.cursors.slices import Mark, Slice
from iggyflux.cursors.store import CursorStore, StoredCursor, cursor_state

__all__ = ["CursorStore", "Deduplicator", "Mark", "Slice", "StoredCursor", "cursor_state", "key_rows"]
