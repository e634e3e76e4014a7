"""TOML text to nodes: tomllib decides and makes the values, tree-sitter gives the place of each key and value.

tree-sitter accepts some texts that are not TOML, so it never decides.  A date or time becomes its source text, so that
TOML and YAML give the same tree.
"""

from __future__ import annotations

import datetime
import math
import re
import tomllib
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import islice
from typing import Any, NamedTuple

import tree_sitter
import tree_sitter_toml

from iggyflux.documents.nodes import Lines, Node, join_pointer
from iggyflux.documents.offsets import Style
from iggyflux.documents.text import MAX_DEPTH, MAX_DIGITS, MOST_FAULTS
from iggyflux.errors import DocumentError, Problem
from iggyflux.records import JSON

_STYLES = (
    ('"""', Style.MULTILINE_BASIC),
    ("'''", Style.MULTILINE_LITERAL),
    ('"', Style.BASIC),
    ("'", Style.LITERAL),
)
_KEYS = ("bare_key", "quoted_key", "dotted_key")
_PLACE = re.compile(r" \(at (?:line ([0-9]+), column ([0-9]+)|end of document)\)\Z")
_KEY = re.compile(r"[A-Za-z0-9_.\"' \t-]+")
_PART = r"""(?:[A-Za-z0-9_-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+"""
_LONG_KEY = re.compile(rf"(?<![A-Za-z0-9_-])(?:{_PART}\.[ \t]*+){{{MAX_DEPTH}}}")

_QUOTE_IT = "quotes"
_MEANINGS: tuple[tuple[str, str, str | None], ...] = (
    ("Expected '=' after a key", "expected `=` after the key", "write `key = value`"),
    ("Invalid value", "invalid TOML value", _QUOTE_IT),
    ("Invalid initial character for a key part", "a key cannot begin with this character", "quote the key"),
    ("Expected newline or end of document", "unexpected text after the value", _QUOTE_IT),
    ("Unescaped '\\'", "invalid escape sequence", "use single quotes, where a backslash is literal"),
    (
        "Illegal character '\\n'",
        "the quote is not closed on this line",
        "write a string of several lines in three quotes",
    ),
    ("Unterminated string", "this quote is not closed", None),
    ("Unclosed array", "the [ is not closed, or a comma is missing", None),
    ("Unclosed inline table", "the { is not closed, or a comma is missing", None),
    ("Invalid date or datetime", "invalid date or time", _QUOTE_IT),
    ("Escaped character is not a Unicode scalar value", "the escape is not a Unicode character", None),
)
"""How a message of tomllib begins, what it means, and what to do."""
_ABOUT_A_VALUE = ("Invalid value", "Expected newline", "Unescaped", "Illegal character '\\n'")


def read_toml(text: str, file: str | None) -> tuple[Node, tuple[Problem, ...]]:
    """Return the root node of a text, and its recoverable faults.

    Raise DocumentError for all others.
    """
    lines = Lines(text)
    reader = _TomlReader(text, lines, file)
    if reader.is_damaged and (long := _LONG_KEY.search(text)):  # tomllib takes minutes for a key of many parts
        raise DocumentError([reader.too_deep(long.start())])
    try:
        tree = _loads(text)
    except RecursionError:  # tree-sitter could not read this tree either
        raise DocumentError([reader.too_deep(0)]) from None
    except ValueError as error:
        if reader.is_damaged or not reader.faults:
            raise DocumentError(_explain(str(error), text, lines, file)) from error
        tree = reader.read_alone(reader.root)
    if not tree:
        hint = "`iggyflux init` writes a starter document"
        raise DocumentError([lines.problem("IFX101", "the document is empty", 0, file=file, hint=hint)])
    reader.fill(reader.root, tree)
    return reader.root, tuple(sorted(reader.faults, key=lambda each: (each.location.line, each.location.column)))


def _loads(text: str) -> dict[str, Any]:
    """Return the tree of a text whose line breaks are `\\n`: tomllib takes another `\\r\\n` for one, too."""
    return tomllib.loads(text.replace("\r\n", "\r\r\n"))


@cache
def _parser() -> tree_sitter.Parser:
    return tree_sitter.Parser(tree_sitter.Language(tree_sitter_toml.language()))


class _TomlReader:
    """Builds the nodes of one text; `faults` are those beyond its syntax."""

    def __init__(self, text: str, lines: Lines, file: str | None) -> None:
        self.text = text
        self.lines = lines
        self.file = file
        self.faults: list[Problem] = []
        self.root = Node({}, 0, 0)
        self.declared: set[int] = set()
        # tree-sitter counts bytes, all other code characters.
        self.offsets: Sequence[int] = range(len(text) + 1)
        if not text.isascii():
            widths = [len(character.encode()) for character in text]
            self.offsets = [index for index, width in enumerate(widths) for _ in range(width)] + [len(text)]
        syntax = _parser().parse(text.encode()).root_node
        self.is_damaged = syntax.has_error
        self.document(syntax)

    def report(self, code: str, message: str, span: tuple[int, int], pointer: str, hint: str | None) -> None:
        start, end = span
        problem = self.lines.problem(code, message, start, end - start, file=self.file, pointer=pointer, hint=hint)
        self.faults.append(problem)

    def too_deep(self, offset: int) -> Problem:
        return self.lines.problem(
            "IFX104", f"the document is nested more than {MAX_DEPTH} levels deep", offset, file=self.file
        )

    def span(self, syntax: tree_sitter.Node) -> tuple[int, int]:
        return self.offsets[syntax.start_byte], self.offsets[syntax.end_byte]

    def check_depth(self, depth: int, offset: int) -> None:
        if depth > MAX_DEPTH:
            raise DocumentError([self.too_deep(offset)])

    # tables and keys

    def document(self, root: tree_sitter.Node) -> None:
        for part in root.named_children:
            if part.type == "pair":
                self.pair(part, self.root, "", 0)
            elif part.type in ("table", "table_array_element"):
                self.table(part)

    def table(self, syntax: tree_sitter.Node) -> None:
        (key, *pairs) = syntax.named_children
        start, end = self.offsets[syntax.start_byte], self.offsets[(key.next_sibling or key).end_byte]
        *parents, (name, place) = self.key(key, 0)
        depth = 2 * (len(parents) + 1)  # each of them may be an array of tables
        self.check_depth(depth, start)
        parent, pointer = self.root, ""
        for part, part_place in parents:
            parent, pointer = self.member(parent, part, part_place, pointer)
        is_array = syntax.type == "table_array_element"
        child = parent.children.get(name)
        parent.keys.setdefault(name, place)
        own = join_pointer(pointer, name)
        if is_array and (child is None or isinstance(child.value, list)):
            items = parent.children.setdefault(name, Node([], start, end))
            own = join_pointer(own, len(items.children))
            items.children[len(items.children)] = child = Node({}, start, end)
        elif child is None:
            parent.children[name] = child = Node({}, start, end)
        elif id(child) in self.declared or not isinstance(child.value, dict):
            self.duplicate(name, place, parent, own)
            child = Node({}, start, end)  # go on, apart from the first one
        child.start, child.end = start, end
        self.declared.add(id(child))
        for pair in pairs:
            if pair.type == "pair":
                self.pair(pair, child, own, depth)

    def key(self, syntax: tree_sitter.Node, depth: int) -> list[tuple[str, tuple[int, int]]]:
        """Return the parts of a key with their places."""
        parts = []
        while syntax.type == "dotted_key":  # the first child is everything before the last part
            *rest, last = [child for child in syntax.named_children if child.type in _KEYS]
            parts.append(last)
            syntax = rest[0]
            self.check_depth(depth + len(parts), self.offsets[syntax.start_byte])
        parts.append(syntax)
        return [(self.key_text(part), self.span(part)) for part in reversed(parts)]

    def key_text(self, syntax: tree_sitter.Node) -> str:
        start, end = self.span(syntax)
        source = self.text[start:end]
        if syntax.type == "bare_key":
            return source
        try:
            return str(_loads(f"key = {source}")["key"])
        except ValueError:
            return source[1:-1]

    def member(self, node: Node, name: str, place: tuple[int, int], pointer: str) -> tuple[Node, str]:
        """Return the table under `name`, created if missing, and its pointer; of an array of tables, the last table."""
        pointer = join_pointer(pointer, name)
        child = node.children.get(name)
        if child is None:
            node.keys[name] = place
            child = node.children[name] = Node({}, place[0], place[0])
        if isinstance(child.value, list) and child.children:
            pointer = join_pointer(pointer, len(child.children) - 1)
            child = child.children[len(child.children) - 1]
        return child, pointer

    def duplicate(self, name: str, place: tuple[int, int], parent: Node, pointer: str) -> None:
        line, _ = self.lines.place(parent.keys[name][0])
        hint = f"remove one of them; the first is on line {line}"
        self.report("IFX105", f"duplicate key `{name}`", place, pointer, hint)

    # values

    def pair(self, syntax: tree_sitter.Node, table: Node, pointer: str, depth: int) -> None:
        key, *rest = [child for child in syntax.named_children if child.type != "comment"]
        if not rest:
            return
        *parents, (name, place) = self.key(key, depth)
        for part, part_place in parents:
            table, pointer = self.member(table, part, part_place, pointer)
        own = join_pointer(pointer, name)
        value = self.value(rest[-1], own, depth + len(parents) + 1)
        if name in table.children:
            self.duplicate(name, place, table, own)
        else:
            table.keys[name] = place
            table.children[name] = value

    def value(self, syntax: tree_sitter.Node, pointer: str, depth: int) -> Node:
        start, end = self.span(syntax)
        self.check_depth(depth, start)
        if syntax.type == "array":
            node = Node([], start, end, in_flow=True)
            for item in (child for child in syntax.named_children if child.type != "comment"):
                index = len(node.children)
                node.children[index] = self.value(item, join_pointer(pointer, index), depth + 1)
            return node
        if syntax.type == "inline_table":
            node = Node({}, start, end, in_flow=True)
            self.declared.add(id(node))
            for pair in (child for child in syntax.named_children if child.type == "pair"):
                self.pair(pair, node, pointer, depth)
            return node
        style = next((style for quotes, style in _STYLES if self.text.startswith(quotes, start)), Style.PLAIN)
        node = Node(None, start, end, style)
        if style is Style.PLAIN and end - start > MAX_DIGITS:
            node.broken = True
            self.report(
                "IFX108", f"a number with {end - start} characters", (start, end), pointer, "quote it if it is a string"
            )
        return node

    # values of tomllib

    def read_alone(self, node: Node) -> Any:
        """Return the value of `node`, with each scalar parsed by itself.

        This is for text that tomllib rejects for a reason that `faults` has.
        """
        if isinstance(node.value, dict):
            return {key: self.read_alone(child) for key, child in node.children.items()}
        if isinstance(node.value, list):
            return [self.read_alone(child) for child in node.children.values()]
        try:
            return _loads(f"value = {self.text[node.start : node.end]}")["value"]
        except ValueError as error:
            if not node.broken:
                self.faults.append(_problem(str(error), node.start, node.end, self.lines, self.file))
            node.broken = True
            return ""

    def fill(self, node: Node, value: Any, pointer: str = "") -> JSON:
        """Put the values of tomllib into the nodes; return the plain value of `node`."""
        if isinstance(value, dict):
            node.value = {
                key: self.fill(_child(node, key), item, join_pointer(pointer, key)) for key, item in value.items()
            }
        elif isinstance(value, list):
            node.value = [
                self.fill(_child(node, index), item, join_pointer(pointer, index)) for index, item in enumerate(value)
            ]
        elif isinstance(value, (datetime.date, datetime.time)):
            node.value = self.text[node.start : node.end]
        elif isinstance(value, float) and not math.isfinite(value):
            shown = self.text[node.start : node.end]
            hint = f"quote it if it is a string: '{shown}'"
            self.report("IFX108", f"{shown} is not a finite number", (node.start, node.end), pointer, hint)
            node.value, node.broken = 0, True
        else:
            node.value = "" if node.broken else value
        return node.value


def _child(node: Node, key: str | int) -> Node:
    """Return the child that tree-sitter found; if it misread a valid text, a child at the place of its parent."""
    child = node.children.get(key)
    if child is None:
        child = node.children[key] = Node(None, node.start, node.end)
    return child


# --- faults of text that is not TOML ---


def _explain(error_text: str, text: str, lines: Lines, file: str | None) -> list[Problem]:
    """Return the problem that tomllib reports, and if it is about a value also those of statements below."""
    match = _PLACE.search(error_text)
    reason = error_text[: match.start()] if match else error_text
    offset = len(text.rstrip()) - 1
    if match and match[1]:
        offset = lines.start(int(match[1])) + int(match[2]) - 1
    elif reason == "Unterminated string":
        offset = max(text.rfind('"""'), text.rfind("'''"))
    offset = max(min(offset, len(text) - 1), 0)
    line = text.rfind("\n", 0, offset) + 1
    statement = _statement(text, line)
    if statement is None or not reason.startswith(_ABOUT_A_VALUE):
        return [_problem(reason, offset, offset + 1, lines, file)]
    below = islice(_below(text, text.find("\n", line), lines, file), MOST_FAULTS - 1)
    return [_of_value(reason, offset, statement, lines, file), *below]


class _Statement(NamedTuple):
    """`key = value` on one line; `value` has no comment and begins at `start`."""

    key: str
    value: str
    start: int


def _statement(text: str, start: int) -> _Statement | None:
    """Return the statement on the line that begins at `start`, or None."""
    end = text.find("\n", start)
    key, equals, rest = text[start : end if end >= 0 else len(text)].partition("=")
    if not equals or not _KEY.fullmatch(key):
        return None
    value = rest.partition(" #")[0]
    begin = start + len(key) + 1 + len(value) - len(value.lstrip(" \t"))
    return _Statement(key.strip(" \t"), value.strip(" \t"), begin)


def _of_value(reason: str, offset: int, statement: _Statement, lines: Lines, file: str | None) -> Problem:
    """Return the problem of a statement whose value is wrong at `offset`.

    It marks the whole value, unless that is a list or a table.
    """
    if statement.value.startswith(("[", "{")):
        return _problem(reason, offset, offset + 1, lines, file)
    return _problem(reason, statement.start, statement.start + len(statement.value), lines, file, statement)


def _below(text: str, line_end: int, lines: Lines, file: str | None) -> Iterator[Problem]:
    """Yield the problems of one-line statements after `line_end` that are not TOML by themselves."""
    while line_end >= 0:
        statement = _statement(text, line_end + 1)
        line_end = text.find("\n", line_end + 1)
        if statement is None:
            continue
        try:
            _loads(f"_={statement.value}")
        except (ValueError, RecursionError) as error:
            place = _PLACE.search(str(error))
            if place is None or place[1] is None:
                return  # the value may continue below
            if str(error).startswith(_ABOUT_A_VALUE):
                yield _of_value(str(error), statement.start + int(place[2]) - 3, statement, lines, file)


def _problem(
    reason: str, start: int, end: int, lines: Lines, file: str | None, statement: _Statement | None = None
) -> Problem:
    """Return the problem that tomllib's `reason` means, of the text from `start` to `end`, the value of `statement`."""
    for begin, message, advice in _MEANINGS:
        if reason.startswith(begin):
            quoted = f"{statement.key} = {_in_quotes(statement.value)}" if statement else "'…'"
            hint = f"quote the string: {quoted}" if advice == _QUOTE_IT else advice
            return lines.problem("IFX102", message, start, end - start, file=file, hint=hint)
    return lines.problem("IFX102", f"invalid TOML: {_PLACE.sub('', reason)}", start, 1, file=file)


def _in_quotes(text: str) -> str:
    """Return `text` as a TOML string, or an ellipsis if it needs an escape in both kinds of quotes."""
    if "'" not in text:
        return f"'{text}'"
    return "'…'" if '"' in text or "\\" in text else f'"{text}"'
