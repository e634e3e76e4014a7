"""Where a position in the text of a document is: at a key, in a value, in an expression; also while it is being typed.

Text that is being typed is rarely valid.  A mark is put at the position, and what is open on its line is closed, until
the text has a tree; the mark in the tree then says where the position is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from iggyflux.documents import Document, Format, read_document
from iggyflux.errors import DocumentError

MARK: Final = "zzCURSORzz"
"""A name that no document has."""

_ONLY_A_WORD: Final = re.compile(r"[ \t]*(?:- +)*[\"']?[\w*$-]*\Z")
_CLOSERS: Final = {"{": "}", "[": "]", "(": ")"}


@dataclass(frozen=True, slots=True)
class Cursor:
    """A position: in the key of a member of the object at `pointer`, or in the value at `pointer`.

    `document` is that of the text with the mark.  `typed` is what the key or value has before the position, `rest` what
    it has after it.
    """

    document: Document
    pointer: str
    at: Literal["key", "value"]
    typed: str
    rest: str


def cursor_at(text: str, offset: int, format: Format, file: str | None = None) -> Cursor | None:  # noqa: A002
    """Return where `offset` is in `text`; None if the text around it cannot be understood."""
    for candidate in _candidates(text[:offset], text[offset:], format):
        try:
            document = read_document(candidate, file=file, format=format)
        except DocumentError:
            continue
        found = _marked(document)
        if found is not None:
            return found
    return None


def _candidates(before: str, after: str, format: Format) -> Iterator[str]:  # noqa: A002
    line, following = before.rpartition("\n")[2], "\n" + after.partition("\n")[2]
    rest = after.partition("\n")[0]
    separator = ": " if format == "yaml" else " = 0"
    if _ONLY_A_WORD.match(line) and not rest.strip():
        yield f"{before}{MARK}{separator}{following}"
    yield before + MARK + after
    closers = _closers(line, format)
    yield f"{before}{MARK}{separator}{after}"
    yield f"{before}{MARK}{closers}{following}"
    inner = closers.lstrip("\"'")
    yield f"{before}{MARK}{separator}{inner}{following}"
    if format == "toml":
        yield f'{before}"{MARK}"{following}'


def _closers(line: str, format: Format) -> str:  # noqa: A002
    """Return what closes the quotes and brackets that are open at the end of a line."""
    quote, brackets, index = "", [], 0
    while index < len(line):
        character = line[index]
        if quote:
            if character == "\\" and quote == '"':
                index += 1
            elif character == quote:
                quote = ""
        elif character in "\"'" and (
            format == "toml" or not line[:index].rstrip() or line[:index].rstrip()[-1] in ":,[{-"
        ):
            quote = character
        elif character in "{[":
            brackets.append(_CLOSERS[character])
        elif character in "}]" and brackets:
            brackets.pop()
        index += 1
    return quote + "".join(reversed(brackets))


def _marked(document: Document) -> Cursor | None:
    for pointer, node in document.root.walk():
        for key in node.keys:
            if MARK in key:
                typed, _, rest = key.partition(MARK)
                return Cursor(document, pointer, "key", typed, rest)
        if isinstance(node.value, str) and MARK in node.value:
            typed, _, rest = node.value.partition(MARK)
            return Cursor(document, pointer, "value", typed, rest)
    return None


def word_before(text: str) -> str:
    """Return the word at the end of `text`."""
    start = len(text)
    while start and (text[start - 1].isalnum() or text[start - 1] in "_*$-"):
        start -= 1
    return text[start:]
