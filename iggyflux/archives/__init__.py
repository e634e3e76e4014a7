"""Archives: files of messages, on this machine or in an object store, compressed or not, as the source of a writer.

`files` finds and opens them, `records` splits their content into messages, `source` is a `Source` that can be resumed.
"""

from __future__ import annotations

from typing import Final

from iggyflux.records import Message

FILE_HEADER: Final = "iggyflux-file"
"""The header of a message that names the file that it was read of."""
LINE_HEADER: Final = "iggyflux-line"
"""The header of a message with the number of its first line, from 1."""


def place_in_file(message: Message) -> str | None:
    """Return `FILE:LINE` of a message that was read of an archive."""
    file = message.headers.get(FILE_HEADER)
    return None if file is None else f"{file!s}:{message.headers.get(LINE_HEADER, '')!s}"
