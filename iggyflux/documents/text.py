"""Bytes to text, with the checks of size and characters that are the same for every format."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Final

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
_BREAK = re.compile(r"\r?\n")
_FORBIDDEN = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufffe\uffff]")
_VERSION = re.compile(
    rb"""^["']?iggyflux["']?[ \t]*+:[ \t]++[^\s#]"""
    rb"""|(?:^[ \t]*+|[{,]\s*+)["']?iggyflux["']?[ \t]*+:(?:\s|\#[^\n]*+\n|&\S++)*+["']?[0-9]"""
    rb"""|^[ \t]*+["']?iggyflux["']?[ \t]*+=[ \t]*+(?:[+]?[0-9]|"[0-9]++"|'[0-9]++')""",
    re.MULTILINE,
)
"""YAML at the start of a line with any value, YAML and JSON anywhere with a number, TOML with a whole number."""
_KIND = re.compile(rb"""^[ \t]*+["']?kind["']?[ \t]*+[:=][ \t]*+["']?(?:writer|reader)\b""", re.MULTILINE)
_WIDE_MARKS: Final = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}


def check_size(data: str | bytes, file: str | None) -> None:
    """Raise DocumentError if `data` is larger than a document can be."""
    if len(data) > MAX_BYTES:
        raise too_large(f"{len(data):,} {'bytes' if isinstance(data, bytes) else 'characters'}", MAX_BYTES, file)


def without_utf16(data: str | bytes, file: str | None) -> str | bytes:
    """Return `data` as text if it is UTF-16, which its first two bytes say, else as it is.  Raise DocumentError."""
    encoding = _WIDE_MARKS.get(data[:2]) if isinstance(data, bytes) else None
    if isinstance(data, str) or encoding is None:
        return data
    try:
        return data[2:].decode(encoding)
    except UnicodeDecodeError as error:
        # Without the line, which may hold a secret: what kind of document this is, is not known.
        reason = f"this is not UTF-16, as its first two bytes say: {error.reason}"
        raise refuse(Lines("").problem("IFX103", reason, 0, file=file, hint="save the file as UTF-8")) from error


def has_version(data: bytes) -> bool:
    """Return whether there is a key `iggyflux` as documents have it, also in UTF-16.

    Other files have the word too: a service, an image, a package or a job of this name has no number as its value, or
    none beside it.
    """
    for mark in (codecs.BOM_UTF8, *_WIDE_MARKS):
        data = data.removeprefix(mark)
    data = data.replace(b"\0", b"").replace(b"\r", b"\n")
    return _VERSION.search(data) is not None or (b"iggyflux" in data and _KIND.search(data) is not None)


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
    """The text of a document, as its problems count it, and what a file with that text has besides.

    `breaks` are the line breaks, one for each line feed of `text`.
    """

    text: str
    mark: bytes
    encoding: str
    breaks: tuple[str, ...]

    @classmethod
    def of(cls, data: bytes) -> EditableText | None:
        """Return the text of a file; None if lone carriage returns break its lines.  Raise DocumentError."""
        encoding = _WIDE_MARKS.get(data[:2], "utf-8")
        text = read_text(without_utf16(data, None), None)
        plain = text.replace("\r\n", "\n")
        if "\r" in plain:
            return None
        mark = _BOM.encode(encoding)
        return cls(plain, mark if data.startswith(mark) else b"", encoding, tuple(_BREAK.findall(text)))

    def with_text(self, text: str) -> bytes:
        """Return the content of the file with another text; lines that stay keep their breaks."""
        usual = max(sorted(set(self.breaks)), key=self.breaks.count, default="\n")
        if len(set(self.breaks)) > 1:
            text = "".join(self._broken(text.split("\n"), usual))
        elif usual != "\n":
            text = text.replace("\n", usual)
        return self.mark + text.encode(self.encoding)

    def _broken(self, lines: list[str], usual: str) -> Iterator[str]:
        """Yield the lines with a break behind each but the last: their own, else the usual one."""
        old = self.text.split("\n")
        first = _same(old, lines)
        last = _same(old[:first:-1], lines[:first:-1])
        middle = SequenceMatcher(None, old[first : len(old) - last], lines[first : len(lines) - last])
        moved = [(first + start, first + new, size) for start, new, size in middle.get_matching_blocks()]
        breaks = [usual] * len(lines)
        for start, new, size in ((0, 0, first), *moved, (len(old) - last, len(lines) - last, last)):
            kept = self.breaks[start : start + size]
            breaks[new : new + len(kept)] = kept
        breaks[-1] = ""
        for line, its in zip(lines, breaks, strict=True):
            yield line + its


def _same(some: Sequence[str], others: Sequence[str]) -> int:
    """Return how many texts are the same from the beginning on."""
    pairs = enumerate(zip(some, others, strict=False))
    return next((number for number, (one, other) in pairs if one != other), min(len(some), len(others)))


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
        after = data[error.start : error.start + 80].decode("utf-8", "replace").split("\n")[0]
        from iggyflux.payloads.format import single_byte_encoding  # all formats, only for such a file

        message, hint = f"byte 0x{data[error.start]:02x} is not UTF-8", "save the file as UTF-8"
        if (found := single_byte_encoding(data, error.start)) is not None:
            encoding, character = found
            message, hint = f"{message}: in {encoding} it is {character}", f"{hint} instead of {encoding}"
        problem = Lines(before + after).problem("IFX103", message, len(before), file=file, hint=hint)
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
