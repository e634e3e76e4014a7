"""zlib, by isal where it is installed (the extra `fast`): several times as fast."""

from __future__ import annotations

from typing import Final

try:
    from isal.isal_zlib import compress, crc32, decompress
except ImportError:
    from zlib import compress, crc32, decompress

__all__ = ["GZIP", "compress", "crc32", "decompress"]

GZIP: Final = 31
"""As `wbits` of `compress` and `decompress`: the format of gzip."""
