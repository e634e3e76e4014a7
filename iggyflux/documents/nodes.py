"""The tree of a document with the place of every node, and the way from a pointer to a place.

The readers of the formats build `Node`s.  All other modules see a `Document`: the plain tree, and problems with line,
column and source line.  This module knows neither YAML nor TOML, nor what a document means.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal, TypeAlias

from iggyflux.documents.offsets import Style, escape_length, source_offsets
from iggyflux.errors import Edit, Fix, Location, Problem
from iggyflux.records import JSON

Format: TypeAlias = Literal["yaml", "toml"]

_ABOUT_KEYS = frozenset({"IFX105", "IFX106"})
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


@dataclass(slots=True)
class Node:
    """A value with its place.

    `start` and `end` are offsets in the text; `keys` holds the places of an object's keys.  `children` are by key for
    an object and by index for a list.  `size` counts the nodes under it, itself included, with aliases expanded.  If
    `broken`, a fault of the value is reported already, and nothing that follows from it is.
    """

    value: JSON
    start: int
    end: int
    style: Style = Style.COLLECTION
    keys: dict[str, tuple[int, int]] = field(default_factory=dict)
    children: dict[str | int, Node] = field(default_factory=dict)
    size: int = 1
    depth: int = 1
    in_flow: bool = False
    broken: bool = False

    def walk(self) -> Iterator[tuple[str, Node]]:
        """Yield every node under this one and itself, with its pointer; a node with aliases once for each of them."""
        waiting = [("", self)]
        while waiting:
            pointer, node = waiting.pop()
            yield pointer, node
            waiting += [(join_pointer(pointer, key), child) for key, child in node.children.items()]


class Lines:
    """Maps offsets to lines and columns, both from 1."""

    __slots__ = ("_starts", "_text")

    def __init__(self, text: str) -> None:
        self._text = text
        self._starts = [0, *(match.end() for match in re.finditer("\n", text))]

    def place(self, offset: int) -> tuple[int, int]:
        """Return the line and the column of `offset`."""
        line = bisect_right(self._starts, offset)
        return line, offset - self._starts[line - 1] + 1

    def start(self, number: int) -> int:
        """Return the offset of the first character of a line."""
        return self._starts[number - 1]

    def line(self, number: int) -> str:
        """Return the text of a line; characters that a terminal would act on are replaced."""
        start = self._starts[number - 1]
        end = self._starts[number] if number < len(self._starts) else len(self._text)
        return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", self._text[start:end].rstrip("\r\n"))

    def problem(
        self,
        code: str,
        message: str,
        offset: int,
        length: int = 1,
        *,
        file: str | None,
        pointer: str = "",
        **more: str | None,
    ) -> Problem:
        """Return a problem at `offset`; the caret never passes the end of its line."""
        line, column = self.place(offset)
        source = self.line(line)
        length = max(1, min(length, len(source) - column + 1))
        return Problem(
            code,
            message,
            Location(file, line, column, pointer),
            expected=more.get("expected"),
            found=more.get("found"),
            hint=more.get("hint"),
            source=source,
            length=length,
            severity="warning" if more.get("severity") == "warning" else "error",
        )


@dataclass(frozen=True)
class Document:
    """A document that was read: the plain `tree`, its `text`, and the places of its nodes.

    The tree consists of dicts, lists, strings, integers, finite floats, booleans and None.  It is shared and must not
    be changed.  `text` has `\\n` for every line break and no byte order mark.  A pointer is an RFC 6901 JSON pointer.
    `faults` are those of text that has a tree in spite of them; such a document must not be used, only checked for
    further faults.
    """

    tree: JSON
    text: str = field(repr=False)
    file: str | None
    format: Format
    root: Node = field(repr=False, compare=False)
    faults: tuple[Problem, ...] = ()
    mask: Callable[[Problem], Problem] | None = field(default=None, repr=False, compare=False)
    """Hides secrets in problems; None where the document has none."""
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    """The content of the files that the document names, by the names that it gives them; see `mapping.files`."""

    @cached_property
    def broken(self) -> frozenset[str]:
        """The pointers of values whose fault is reported already; what they seem to be is not reported."""
        if not self.faults:
            return frozenset()
        return frozenset(pointer for pointer, node in self.root.walk() if node.broken)

    @cached_property
    def broken_keys(self) -> frozenset[str]:
        """The pointers of keys whose fault is reported already."""
        return frozenset(fault.location.pointer for fault in self.faults if fault.code in _ABOUT_KEYS)

    @cached_property
    def lines(self) -> Lines:
        """The lines and columns of the text."""
        return Lines(self.text)

    def locate(self, pointer: str, *, key: bool = False) -> Location:
        """Return the place of the node at `pointer`, or of its key if `key`; if missing, that of its nearest parent."""
        start, _, _ = self._span(pointer, key)
        line, column = self.lines.place(start)
        return Location(self.file, line, column, pointer)

    def node(self, pointer: str) -> Node | None:
        """Return the node at `pointer`, or None."""
        node: Node | None = self.root
        for part in split_pointer(pointer):
            node = _child(node, part) if node else None
        return node

    def problem(
        self,
        code: str,
        pointer: str,
        message: str,
        *,
        key: bool = False,
        offset: int | None = None,
        length: int | None = None,
        expected: str | None = None,
        found: str | None = None,
        hint: str | None = None,
        severity: Literal["error", "warning"] = "error",
        instead: str | None = None,
        safe: bool = True,
    ) -> Problem:
        """Return a problem of the node at `pointer`, or of its key if `key`.

        `offset` and `length` select characters of a scalar's value; they are mapped to the source through quotes,
        escapes and folded lines.  Without them the problem is about the whole scalar, or the start of a collection.
        `instead` is what would be right in that place, as characters of the value with `offset`, else as text of the
        document; it makes the fix, which is `safe` or not.
        """
        start, end, node = self._span(pointer, key)
        if node is not None and offset is not None and isinstance(node.value, str):
            start, end = _inside(self.text, node, offset, length or 1)
        elif length is not None:
            end = start + length
        problem = self.lines.problem(
            code,
            message,
            start,
            end - start,
            file=self.file,
            pointer=pointer,
            expected=expected,
            found=found,
            hint=hint,
            severity=severity,
        )
        if instead is not None and "\n" not in self.text[start:end]:
            inside = node is not None and offset is not None
            text = written_inside(instead, node.style, first=offset == 0) if node is not None and inside else instead
            stop = end + escape_length(self.text, end - 1, node.style) - 1 if node is not None and inside else end
            if text is not None:
                problem = replace(problem, fix=Fix(f"write {instead}", (Edit(start, stop, text),), safe))
        return problem if self.mask is None else self.mask(problem)

    def _span(self, pointer: str, key: bool) -> tuple[int, int, Node | None]:
        """Return the offsets of the node at `pointer`, and the node; None if they are those of a key or a parent."""
        node = self.root
        start, end = node.start, _end(node)
        parts = list(split_pointer(pointer))
        for index, part in enumerate(parts):
            child = _child(node, part)
            if child is None:
                return start, end, None
            place = node.keys.get(part)
            start, end = (child.start, _end(child))
            if place is not None and ((key and index == len(parts) - 1) or child.start == child.end):
                start, end = place
            node = child
        return start, end, None if key else node


def kind_of(tree: object) -> str:
    """Return `mapping` or `pipeline` by the keys of a document's tree; an empty string if it is neither."""
    if not isinstance(tree, dict):
        return ""
    if {"run", "iggy", "influxdb"} & set(tree) and "points" not in tree:
        return "pipeline"
    return "mapping" if {"kind", "points", "messages", "from", "examples"} & set(tree) else ""


def split_pointer(pointer: str) -> Iterator[str]:
    """Yield the reference tokens of a JSON pointer, unescaped."""
    for part in pointer.split("/")[1:]:
        yield part.replace("~1", "/").replace("~0", "~")


def join_pointer(pointer: str, part: str | int) -> str:
    """Return `pointer` with one more reference token."""
    return f"{pointer}/{part}" if isinstance(part, int) else f"{pointer}/{part.replace('~', '~0').replace('/', '~1')}"


def parent_of(pointer: str) -> str:
    """Return the pointer of the object or list that holds the node at `pointer`."""
    return pointer.rpartition("/")[0]


def _child(node: Node, part: str) -> Node | None:
    if isinstance(node.value, list):
        return node.children.get(int(part)) if part.isascii() and part.isdigit() else None
    return node.children.get(part)


def _end(node: Node) -> int:
    return node.start + 1 if node.style is Style.COLLECTION and node.end > node.start else node.end


_INDICATORS = frozenset("-?:,[]{}#&*!|>'\"%@`")
"""The characters that no plain scalar of YAML begins with, or not always."""


def written_inside(value: str, style: Style, *, first: bool) -> str | None:
    """Return characters of a value as they are written in a scalar of `style`; None where they cannot be.

    `first` says that the value begins with them.
    """
    if style is Style.SINGLE:
        return value.replace("'", "''")
    if style in (Style.DOUBLE, Style.BASIC, Style.MULTILINE_BASIC):
        return value.replace("\\", "\\\\").replace('"', '\\"')
    if style in (Style.LITERAL, Style.MULTILINE_LITERAL):
        return None if "'" in value else value
    if style is Style.PLAIN and ((first and value[:1] in _INDICATORS) or set(value) & set("#:,[]{}")):
        return None
    return value


def _inside(text: str, node: Node, offset: int, length: int) -> tuple[int, int]:
    value = node.value if isinstance(node.value, str) else ""
    offsets = source_offsets(text[node.start : node.end], node.style, value)
    if offsets is None or not offsets:
        return node.start, node.end
    first = min(max(offset, 0), len(offsets) - 1)
    last = min(max(offset + length - 1, first), len(offsets) - 1)
    if offset >= len(offsets):  # just after the end of the expression
        return node.start + offsets[-1] + 1, node.start + offsets[-1] + 2
    return node.start + offsets[first], node.start + offsets[last] + 1
