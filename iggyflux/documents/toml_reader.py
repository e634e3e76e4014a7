"""TOML text to nodes: tomllib makes the tree, a scanner of our own says where each key and value stands.

No TOML library of Python gives positions.  The scanner reads the statements of a document that tomllib accepts; in one
that it refuses, it helps to say why (which key is there twice).  A date or time counts as its source text, so that
TOML and YAML give one tree.
"""

from __future__ import annotations

import datetime
import math
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from iggyflux.documents.nodes import Lines, Node, join_pointer
from iggyflux.documents.offsets import Style
from iggyflux.documents.text import MAX_DEPTH, MAX_DIGITS
from iggyflux.errors import DocumentError, Problem
from iggyflux.records import JSON

_BLANK = re.compile(r"(?:[ \t\n]|#[^\n]*)*")
_SPACES = re.compile(r"[ \t]*")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_BASIC = re.compile(r'"(?:[^"\\\n]|\\.)*"')
_LITERAL = re.compile(r"'[^'\n]*'")
_MULTILINE_BASIC = re.compile(r'"""(?:[^"\\]|\\.|"(?!"")|"(?=""""?"?(?!")))*?"""(?:"{0,2})(?!")', re.DOTALL)
_MULTILINE_LITERAL = re.compile(r"'''.*?'''(?:'{0,2})(?!')", re.DOTALL)
_BARE_VALUE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9:.]+(?:[zZ]|[-+][0-9:]+)?|[^\s,\]}#]+")
_STRINGS = (
    ('"""', _MULTILINE_BASIC, Style.MULTILINE_BASIC),
    ("'''", _MULTILINE_LITERAL, Style.MULTILINE_LITERAL),
    ('"', _BASIC, Style.BASIC),
    ("'", _LITERAL, Style.LITERAL),
)
_FAULT_PLACE = re.compile(r" \(at (?:line ([0-9]+), column ([0-9]+)|end of document)\)\Z")


_MOST_MENDS = 20
_LONGEST_TO_MEND = 1 << 16
"""Each mend costs another reading of the text."""


def read_toml(text: str, file: str | None) -> tuple[str, Node, tuple[Problem, ...]]:
    """The text, its document, and the faults that left it one.

    A value that TOML cannot read (a text without quotes, most often) is told, and the rest read as if it had its
    quotes: the next one is told too.  Raises DocumentError with all that can be seen.
    """
    lines = Lines(text)
    mends: list[_Span] = []
    told: list[Problem] = []
    mended = text
    scanner = _Scanner(text)
    while scanner.scan() is not None and not scanner.too_deep and (error := _refusal(mended)) is not None:
        fault = _explain(error, text, lines, file, scanner)
        is_news = not mends or fault.is_news_after(mends[-1], text)
        told += [fault.problem] if is_news else []
        if not is_news or fault.mend is None or len(mends) >= _MOST_MENDS or len(text) > _LONGEST_TO_MEND:
            raise DocumentError(_in_order([*told, *scanner.faults(lines, file)]))
        mends.append(fault.mend)
        mended = _mended(mended, fault.mend)
        scanner = _Scanner(mended)
    if scanner.too_deep:
        raise DocumentError(_in_order([*told, *scanner.faults(lines, file)]))
    for node in scanner.too_long:
        mends.append((node.start, node.end))
        mended = _mended(mended, mends[-1])
    tree, faults = _tree(scanner, mended, lines, file)
    if not tree:
        hint = "`iggyflux init` writes one to start from"
        raise DocumentError([lines.problem("IFX101", "the document is empty", 0, file=file, hint=hint)])
    told += faults
    _fill(scanner.root, tree, text, lines, file, told)
    for _, node in scanner.root.walk():
        if not node.children and any(start < node.end and node.start < end for start, end in mends):
            node.broken = True
    return text, scanner.root, _in_order([*told, *scanner.faults(lines, file)])


def _refusal(text: str) -> ValueError | None:
    """What tomllib has against `text`."""
    try:
        tomllib.loads(text)
    except ValueError as error:
        return error
    return None


def _tree(scanner: _Scanner, text: str, lines: Lines, file: str | None) -> tuple[dict[str, Any], list[Problem]]:
    """The tree, and what is wrong where tomllib makes none: then every value is read by itself."""
    error = _refusal(text)
    if error is None:
        return tomllib.loads(text), []
    problems: list[Problem] = []
    tree = _read_alone(scanner.root, text, lines, file, problems)
    if not problems and not scanner.duplicates:
        problems.append(_explain(error, text, lines, file, scanner).problem)
    return tree, problems


def _read_alone(node: Node, text: str, lines: Lines, file: str | None, problems: list[Problem]) -> Any:
    if isinstance(node.value, dict):
        return {key: _read_alone(child, text, lines, file, problems) for key, child in node.children.items()}
    if isinstance(node.value, list):
        return [_read_alone(child, text, lines, file, problems) for child in node.children.values()]
    source = text[node.start : node.end]
    try:
        return tomllib.loads(f"value = {source}")["value"]
    except ValueError as error:
        node.broken = True
        problems.append(_told(str(error), node.start, lines, file, value=source).problem)
        return ""


def _in_order(problems: Sequence[Problem]) -> tuple[Problem, ...]:
    return tuple(sorted(problems, key=lambda each: (each.location.line, each.location.column)))


def _mended(text: str, span: _Span) -> str:
    """A text in quotes for what stands at `span`, in as many characters."""
    start, end = span
    return f"{text[:start]}{'0' if end - start == 1 else repr('x' * (end - start - 2))}{text[end:]}"


class _Lost(Exception):  # nobody's error: tomllib says what is wrong
    """The scanner does not understand the text at `offset`."""

    def __init__(self, offset: int) -> None:
        self.offset = offset


@dataclass(frozen=True, slots=True)
class _Part:
    """One part of a dotted key."""

    name: str
    start: int
    end: int


class _Scanner:
    """Reads statement by statement; what tomllib would refuse is read in whatever way comes first."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.root = Node({}, 0, 0)
        self.table = self.root
        self.table_depth = 0
        self.declared: set[int] = set()
        self.duplicates: list[tuple[_Part, int, Node]] = []
        self.too_deep: int | None = None
        self.too_long: list[Node] = []
        self.lost: int | None = None

    def scan(self) -> int | None:
        """Read the text; where it is not understood, if it is not."""
        try:
            self.document()
        except _Lost as lost:
            self.lost = lost.offset
        return self.lost

    def faults(self, lines: Lines, file: str | None) -> list[Problem]:
        """What tomllib does not tell, or not all of."""
        pointers = {id(node): pointer for pointer, node in self.root.walk()}

        def problem(code: str, message: str, start: int, end: int, pointer: str, hint: str | None = None) -> Problem:
            return lines.problem(code, message, start, end - start, file=file, pointer=pointer, hint=hint)

        found = []
        for part, first, table in self.duplicates:
            hint = f"keep one of them; the first is on line {lines.place(first)[0]}"
            pointer = join_pointer(pointers.get(id(table), ""), part.name)
            found.append(problem("IFX105", f"the key `{part.name}` is here twice", part.start, part.end, pointer, hint))
        for node in self.too_long:
            message = f"a number of {node.end - node.start} characters"
            pointer = pointers.get(id(node), "")
            found.append(problem("IFX108", message, node.start, node.end, pointer, "a string has quotes"))
        if self.too_deep is not None:
            message = f"the document is nested deeper than {MAX_DEPTH}"
            found.append(problem("IFX104", message, self.too_deep, self.too_deep + 1, ""))
        return found

    def document(self) -> None:
        while True:
            self.skip(_BLANK)
            if self.at >= len(self.text):
                return
            if self.text.startswith("[", self.at):
                self.header()
            else:
                self.statement(self.table, self.table_depth)
            self.skip(_SPACES)
            if self.at < len(self.text) and self.text[self.at] not in "\n#":
                raise _Lost(self.at)

    def skip(self, pattern: re.Pattern[str]) -> None:
        match = pattern.match(self.text, self.at)
        self.at = match.end() if match else self.at

    def expect(self, sign: str) -> None:
        if not self.text.startswith(sign, self.at):
            raise _Lost(self.at)
        self.at += len(sign)

    def check_depth(self, depth: int, start: int) -> None:
        if depth > MAX_DEPTH:
            self.too_deep = start
            raise _Lost(start)

    # keys and tables

    def header(self) -> None:
        start = self.at
        is_array = self.text.startswith("[[", start)
        self.expect("[[" if is_array else "[")
        parts = self.key()
        self.expect("]]" if is_array else "]")
        self.check_depth(len(parts) * 2, start)
        *parents, last = parts
        node = self.root
        for part in parents:
            node = self.member(node, part)
        node.keys.setdefault(last.name, (last.start, last.end))
        child = node.children.get(last.name)
        if is_array:
            if child is None:
                child = node.children[last.name] = Node([], start, self.at)
            if not isinstance(child.value, list):
                raise _Lost(start)
            child.children[len(child.children)] = self.table = Node({}, start, self.at)
        else:
            if child is None:
                child = node.children[last.name] = Node({}, start, self.at)
            elif id(child) in self.declared or not isinstance(child.value, dict):
                self.duplicates.append((last, node.keys.get(last.name, (last.start, 0))[0], node))
                child = Node({}, start, self.at)  # read on, apart from what is there
            child.start, child.end = start, self.at
            self.declared.add(id(child))
            self.table = child
        self.table_depth = len(parts) * 2

    def key(self) -> list[_Part]:
        parts = []
        while True:
            self.skip(_SPACES)
            start = self.at
            name = self.key_part()
            parts.append(_Part(name, start, self.at))
            self.skip(_SPACES)
            if not self.text.startswith(".", self.at):
                return parts
            self.check_depth(len(parts), start)
            self.at += 1

    def key_part(self) -> str:
        for pattern in (_BARE_KEY, _LITERAL, _BASIC):
            match = pattern.match(self.text, self.at)
            if match is not None:
                self.at = match.end()
                if pattern is _BARE_KEY:
                    return match.group()
                return match.group()[1:-1] if pattern is _LITERAL else _unescape(match.group())
        raise _Lost(self.at)

    def member(self, node: Node, part: _Part) -> Node:
        """The table under `part`, made where it is not there; of an array of tables the last one."""
        child = node.children.get(part.name)
        if child is None:
            node.keys[part.name] = (part.start, part.end)
            child = node.children[part.name] = Node({}, part.start, part.start)
        if isinstance(child.value, list) and child.children:
            child = child.children[len(child.children) - 1]
        return child

    def statement(self, table: Node, depth: int) -> None:
        parts = self.key()
        self.expect("=")
        self.skip(_SPACES)
        *parents, last = parts
        self.check_depth(depth + len(parts), last.start)
        for part in parents:
            table = self.member(table, part)
        value = self.value(depth + len(parts))
        if last.name in table.children:
            self.duplicates.append((last, table.keys.get(last.name, (last.start, 0))[0], table))
            return
        table.keys[last.name] = (last.start, last.end)
        table.children[last.name] = value

    # values

    def value(self, depth: int) -> Node:
        start = self.at
        self.check_depth(depth, start)
        for opening, pattern, style in _STRINGS:
            if self.text.startswith(opening, start):
                match = pattern.match(self.text, start)
                if match is None:
                    raise _Lost(start)
                self.at = match.end()
                return Node(None, start, self.at, style)
        if self.text.startswith("[", start):
            return self.array(depth)
        if self.text.startswith("{", start):
            return self.inline_table(depth)
        match = _BARE_VALUE.match(self.text, start)
        if match is None:
            raise _Lost(start)
        self.at = match.end()
        node = Node(None, start, self.at, Style.PLAIN)
        if len(match.group()) > MAX_DIGITS:
            self.too_long.append(node)
        return node

    def array(self, depth: int) -> Node:
        node = Node([], self.at, self.at, in_flow=True)
        self.expect("[")
        while True:
            self.skip(_BLANK)
            if self.text.startswith("]", self.at):
                break
            node.children[len(node.children)] = self.value(depth + 1)
            self.skip(_BLANK)
            if not self.text.startswith("]", self.at):
                self.expect(",")
        self.at += 1
        node.end = self.at
        return node

    def inline_table(self, depth: int) -> Node:
        node = Node({}, self.at, self.at, in_flow=True)
        self.declared.add(id(node))
        self.expect("{")
        while True:
            self.skip(_BLANK)
            if self.text.startswith("}", self.at):
                break
            self.statement(node, depth)
            self.skip(_BLANK)
            if not self.text.startswith("}", self.at):
                self.expect(",")
        self.at += 1
        node.end = self.at
        return node


def _unescape(text: str) -> str:
    try:
        return str(tomllib.loads(f"key = {text}")["key"])
    except ValueError:
        return text[1:-1]


def _fill(node: Node, value: Any, text: str, lines: Lines, file: str | None, problems: list[Problem]) -> JSON:
    """Put what tomllib read into the nodes; the plain value of `node`."""
    if isinstance(value, dict):
        node.value = {key: _fill(_child(node, key), child, text, lines, file, problems) for key, child in value.items()}
    elif isinstance(value, list):
        node.value = [
            _fill(_child(node, index), child, text, lines, file, problems) for index, child in enumerate(value)
        ]
    elif isinstance(value, (datetime.date, datetime.time)):
        node.value = text[node.start : node.end]
    else:
        node.value = value
        if isinstance(value, float) and not math.isfinite(value):
            shown = text[node.start : node.end]
            hint = f"a string has quotes: '{shown}'"
            message = f"{shown} is no finite number"
            problems.append(lines.problem("IFX108", message, node.start, node.end - node.start, file=file, hint=hint))
            node.value, node.broken = 0, True
    return node.value


def _child(node: Node, key: str | int) -> Node:
    """The child that the scanner found; if it did not (a fault of ours), one that has its parent's place."""
    child = node.children.get(key)
    if child is None:
        child = node.children[key] = Node(None, node.start, node.end)
    return child


# --- what is wrong with text that is not TOML ---

_QUOTE_IT = "quotes"
_ANSWERS: tuple[tuple[str, str, str | None], ...] = (
    ("Expected '=' after a key", "a key and no `=`", "TOML says `key = value`"),
    ("Invalid value", "this is no value of TOML", _QUOTE_IT),
    ("Invalid initial character for a key part", "no key can begin with this", "quote the key"),
    ("Expected newline or end of document", "the value has ended, and something follows", _QUOTE_IT),
    ("Unescaped '\\'", "a backslash that escapes nothing", "in single quotes a backslash is a backslash"),
    (
        "Illegal character '\\n'",
        "the quote that opens here is not closed on its line",
        "a text of several lines has three quotes",
    ),
    ("Unterminated string", "the quote that opens here is never closed", None),
    ("Unclosed array", "the [ is never closed, or a comma is missing", None),
    ("Unclosed inline table", "the { is never closed, or a comma is missing", None),
    ("Invalid date or datetime", "there is no such date or time", _QUOTE_IT),
    ("Escaped character is not a Unicode scalar value", "the escape names no character", None),
)


_Span: TypeAlias = tuple[int, int]
_STATEMENT = re.compile(r"[ \t]*[A-Za-z0-9_.\"' -]+?[ \t]*=[ \t]*(?P<value>[^\n]*?)[ \t]*(?:[ ]#[^\n]*)?(?:\n|\Z)")


@dataclass(frozen=True, slots=True)
class _Fault:
    """A problem at `offset`, and the value that stands for it: with another one the rest could be read."""

    problem: Problem
    offset: int
    mend: _Span | None = None

    def is_news_after(self, span: _Span, text: str) -> bool:
        """Whether this is a fault of its own, and not what a mend led to."""
        return self.offset >= span[1] and _STATEMENT.match(text, text.rfind("\n", 0, self.offset) + 1) is not None


_MENDABLE = {"Invalid value", "Expected newline or end of document", "Unescaped '\\'", "Illegal character '\\n'"}
"""What is wrong with one value on its line."""


def _explain(error: ValueError, text: str, lines: Lines, file: str | None, scanner: _Scanner) -> _Fault:
    said = str(error)
    match = _FAULT_PLACE.search(said)
    reason = said[: match.start()] if match else said
    offset = len(text.rstrip()) - 1
    if match and match[1]:
        offset = sum(len(line) + 1 for line in text.split("\n")[: int(match[1]) - 1]) + int(match[2]) - 1
    if "quote" in reason or "string" in reason or "'\\n'" in reason:
        offset = scanner.lost if scanner.lost is not None else offset
    return _told(reason, max(min(offset, len(text) - 1), 0), lines, file, text=text)


def _told(
    reason: str, offset: int, lines: Lines, file: str | None, *, text: str = "", value: str | None = None
) -> _Fault:
    """What tomllib says, in words that help; of a `value` by itself, or of the statement at `offset`."""
    for begin, message, advice in _ANSWERS:
        if reason.startswith(begin):
            quoted = _in_quotes(value) if value is not None else _quoted(lines, offset)
            hint = f"a text has quotes: {quoted}" if advice == _QUOTE_IT else advice
            problem = lines.problem("IFX102", message, offset, file=file, hint=hint)
            return _Fault(problem, offset, _value_at(text, offset) if begin in _MENDABLE else None)
    return _Fault(lines.problem("IFX102", f"this is not TOML: {reason}", offset, file=file), offset)


def _value_at(text: str, offset: int) -> _Span | None:
    """Where the value of the statement on the line of `offset` stands."""
    match = _STATEMENT.match(text, text.rfind("\n", 0, offset) + 1)
    return match.span("value") if match is not None and match["value"] else None


def _quoted(lines: Lines, offset: int) -> str:
    """The statement at `offset` with quotes around its value, or an ellipsis in them."""
    number, _ = lines.place(offset)
    match = re.match(r"\s*([^=]+?)\s*=\s*([^'\"].*?)\s*\Z", lines.line(number).split(" #")[0])
    return "'…'" if match is None else f"{match[1]} = {_in_quotes(match[2])}"


def _in_quotes(text: str) -> str:
    """`text` as a string of TOML, or an ellipsis where neither kind of quotes will do as it is."""
    if "'" not in text:
        return f"'{text}'"
    return "'…'" if '"' in text or "\\" in text else f'"{text}"'
