"""Bytes to text, with the checks of size and characters that are the same for every format."""

from __future__ import annotations

import re
from dataclasses import dataclass

from iggyflux.documents.nodes import Lines
from iggyflux.errors import DocumentError, Problem

MAX_BYTES = 1 << 20
"""A mapping of a thousand fields has some 100 kB; a larger text was not written by hand."""

MAX_DEPTH = 100
MAX_NODES = 100_000
MAX_DIGITS = 400
"""A double needs at most 327 characters; Python rejects integers beyond 4,300 digits."""

MOST_FAULTS = 20
"""The most syntax faults that are reported at once."""

_BOM = "\N{ZERO WIDTH NO-BREAK SPACE}"
_FORBIDDEN = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufffe\uffff]")
_WIDE_MARKS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}


def check_size(data: str | bytes, file: str | None) -> None:
    """Raise DocumentError if `data` is larger than a document can be."""
    if len(data) > MAX_BYTES:
        raise too_large(f"{len(data):,} {'bytes' if isinstance(data, bytes) else 'characters'}", MAX_BYTES, file)


def with_plain_breaks(data: str | bytes, *, lone: bool) -> str | bytes:
    """Return `data` with `\\n` for each `\\r\\n`, and if `lone` for each other `\\r`, which TOML does not allow."""
    if isinstance(data, str):
        data = data.replace("\r\n", "\n")
        return data.replace("\r", "\n") if lone else data
    data = data.replace(b"\r\n", b"\n")
    return data.replace(b"\r", b"\n") if lone else data


def read_text(data: str | bytes, file: str | None) -> str:
    """Return `data` as text, without a byte order mark and with its line breaks as they are.

    Raise DocumentError.
    """
    text = data if isinstance(data, str) else _decode(data, file)
    text = text.removeprefix(_BOM)
    found = _FORBIDDEN.search(text)
    if found is not None:
        raise refuse(_forbidden(text, found, file))
    return text


@dataclass(frozen=True, slots=True)
class EditableText:
    """The text of a document, as its problems count it, and what a file with that text has besides."""

    text: str
    has_mark: bool
    line_break: str

    @classmethod
    def of(cls, data: bytes) -> EditableText | None:
        """Return the text of a file; None if its line breaks are of several kinds.  Raise DocumentError."""
        text = read_text(data, None)
        plain = text.replace("\r\n", "\n")
        if "\r" in plain or (plain != text and text.count("\n") != text.count("\r\n")):
            return None
        return cls(plain, data.startswith(_BOM.encode()), "\n" if plain == text else "\r\n")

    def with_text(self, text: str) -> bytes:
        """Return the content of the file with another text."""
        return (_BOM * self.has_mark + text.replace("\n", self.line_break)).encode()


def too_large(found: str, limit: int, file: str | None) -> DocumentError:
    """Return the error for a document that is larger than `limit`."""
    hint = "check that this is a mapping document; keep large samples in a file of their own"
    expected = f"at most {limit:,}"
    return refuse(Lines("").problem("IFX104", f"the document has {found}", 0, file=file, expected=expected, hint=hint))


def refuse(problem: Problem) -> DocumentError:
    """Return the error for a document with one problem and no tree."""
    return DocumentError([problem])


def _decode(data: bytes, file: str | None) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8")
        wide = _WIDE_MARKS.get(data[:2])
        if wide:
            problem = Lines("").problem("IFX103", f"this is {wide} text", 0, file=file, hint="save the file as UTF-8")
        else:
            after = data[error.start : error.start + 80].decode("utf-8", "replace").split("\n")[0]
            problem = Lines(before + after).problem(
                "IFX103",
                f"byte 0x{data[error.start]:02x} is not UTF-8",
                len(before),
                file=file,
                hint="save the file as UTF-8",
            )
        raise refuse(problem) from error


def _forbidden(text: str, found: re.Match[str], file: str | None) -> Problem:
    character = ord(found.group())
    what = (
        "an unpaired surrogate"
        if 0xD800 <= character <= 0xDFFF
        else "a control character"
        if character < 0xA0
        else "not a character"
    )
    name = "a NUL byte" if character == 0 else f"U+{character:04X}, {what},"
    return Lines(text).problem(
        "IFX103",
        f"{name} is not allowed in a document",
        found.start(),
        file=file,
        hint=None if character < 9 or character > 0xA0 else f'inside double quotes write it as "\\u{character:04x}"',
    )
