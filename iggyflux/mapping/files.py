"""Files that a document names, such as the schema of its payloads: their content is a part of the document.

They are read once, when the document is compiled, and travel with it, so a plan stays a function of its document alone.
A name is relative to the folder of the document.  A document without a file, such as one of a browser, names none:
its author may have no right to read the files of this machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from iggyflux.documents import Document, read_source
from iggyflux.errors import DocumentError

MAX_FILE_BYTES: Final = 4 << 20


class Unreadable(Exception):
    """A file that cannot be read: `reason`, and what to do about it."""

    def __init__(self, reason: str, hint: str) -> None:
        self.reason = reason
        self.hint = hint
        super().__init__(reason)


def read_named(document: Document, name: str) -> bytes:
    """Return the content of the file that `document` calls `name`.  Raise Unreadable."""
    path = _path_of(document, name)
    if path is None:
        raise Unreadable(f"{name!r} is a file, and this document has no folder", "save the document beside that file")
    try:
        return read_source(path, limit=MAX_FILE_BYTES)
    except DocumentError as error:
        raise Unreadable(f"cannot read {str(path)!r}: {error.problems[0].message}", "name a smaller file") from None
    except (OSError, ValueError) as error:
        why = (getattr(error, "strerror", None) or str(error)).lower()
        hint = "write a path that starts at the folder of the document"
        raise Unreadable(f"cannot read {str(path)!r}: {why}", hint) from None


def paths_of(document: Document, names: Iterable[str]) -> Sequence[Path]:
    """Return the paths of the files that `document` calls `names`."""
    return [path for name in names if (path := _path_of(document, name)) is not None]


def _path_of(document: Document, name: str) -> Path | None:
    """Return the path of a file; None if the document is only a text."""
    if document.file is None:
        return None
    is_stream = document.file == "-" or document.file.startswith("<")
    return (Path() if is_stream else Path(document.file).parent) / name
