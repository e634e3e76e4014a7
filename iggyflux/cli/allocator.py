"""What the C library does with memory that a run frees: it keeps some, instead of giving all back to the system.

Threads share two pools: by default each that sends a request would keep what it freed in one of its own.

A run allocates and frees buffers of some hundred kB for each batch: what is polled, joined, compressed.  By default
glibc gives the largest ones back at once, and the system clears new pages for the next batch.
"""

from __future__ import annotations

import ctypes
from contextlib import suppress

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -2, -3, -8  # of mallopt(3)
_MIB = 1 << 20


def keep_freed_memory() -> None:
    """Let this process keep up to 4 MiB of freed memory for later; nothing happens where glibc is not the C library."""
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        chosen = (_MMAP_THRESHOLD, _MIB), (_TOP_PAD, _MIB), (_TRIM_THRESHOLD, 4 * _MIB), (_ARENA_MAX, 2)
        for parameter, value in chosen:
            mallopt(parameter, value)
