"""YAML text to nodes: YAML 1.2 with the core schema, exactly, without features that mappings do not need.

ruamel.yaml gives the events.  The table below resolves scalars, so that `no`, `1_000` and `2026-01-01` are strings, as
YAML 1.2 says.  Everything is iterative and bounded: a hostile document costs no more than a long one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NoReturn

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from iggyflux.documents.nodes import Lines, Node, join_pointer
from iggyflux.documents.offsets import Style
from iggyflux.documents.text import MAX_DEPTH, MAX_DIGITS, MAX_NODES
from iggyflux.errors import DocumentError, Problem
from iggyflux.records import JSON

_CORE = "tag:yaml.org,2002:"
_SURROGATE = re.compile("[\ud800-\udfff]")
_SEPARATORS = re.compile("[\x85\u2028\u2029]")
# Exceptions of ruamel besides its own: for example, it decodes "\UFFFFFFFF" with a plain chr().
_FAULTS = (YAMLError, ValueError, ArithmeticError, LookupError, AttributeError, TypeError, AssertionError)
_LONG_ESCAPE = re.compile(r"\\U([0-9A-Fa-f]{8})")
_STYLES = {None: Style.PLAIN, "": Style.PLAIN, "'": Style.SINGLE, '"': Style.DOUBLE, "|": Style.BLOCK, ">": Style.BLOCK}

# https://yaml.org/spec/1.2.2/#1032-tag-resolution
_RESOLVERS: tuple[tuple[str, re.Pattern[str], Callable[[str], JSON]], ...] = (
    ("null", re.compile(r"null|Null|NULL|~|"), lambda _: None),
    ("bool", re.compile(r"true|True|TRUE|false|False|FALSE"), lambda text: text in ("true", "True", "TRUE")),
    ("int", re.compile(r"[-+]?[0-9]+"), int),
    ("int", re.compile(r"0o[0-7]+"), lambda text: int(text, 0)),
    ("int", re.compile(r"0x[0-9a-fA-F]+"), lambda text: int(text, 0)),
    ("float", re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"), float),
    ("float", re.compile(r"[-+]?\.(?:inf|Inf|INF)"), lambda text: -math.inf if text[0] == "-" else math.inf),
    ("float", re.compile(r"\.(?:nan|NaN|NAN)"), lambda _: math.nan),
)
_MAYBE_NOT_A_STRING = frozenset("-+.0123456789nNtTfF~")


def read_yaml(text: str, file: str | None) -> tuple[Node, tuple[Problem, ...]]:
    """Return the root node of a text whose line breaks are `\\n`, and its recoverable faults.

    Raise DocumentError if the text is not YAML.
    """
    reader = _YamlReader(text, file)
    root = reader.read()
    return root, in_order(reader.located(root))


def in_order(problems: Sequence[Problem]) -> tuple[Problem, ...]:
    """Return the problems in the order of the text, without duplicates."""
    return tuple(dict.fromkeys(sorted(problems, key=lambda each: (each.location.line, each.location.column))))


class _YamlReader:
    """Reads one text."""

    def __init__(self, text: str, file: str | None) -> None:
        self.text = text
        self.file = file
        self.lines = Lines(text)
        self.problems: list[Problem] = []
        self.faulty: list[tuple[Node | None, str | None]] = []  # for each problem its node, or a node and its key
        self.anchors: dict[str, Node | None] = {}
        self.open: list[_Open] = []
        self.root: Node | None = None

    def read(self) -> Node:
        found = _SEPARATORS.search(self.text)
        if found is not None:
            name = f"U+{ord(found.group()):04X}"
            hint = f'inside double quotes write it as "\\u{ord(found.group()):04x}"'
            self.report(
                "IFX103", f"the line separator {name} is not allowed in a YAML document", found.start(), hint=hint
            )
            self.text = _SEPARATORS.sub(" ", self.text)
        documents = 0
        for event in self.events():
            if isinstance(event, DocumentStartEvent):
                documents += 1
                if documents > 1:
                    hint = "write one document per file"
                    self.report("IFX107", "a second document begins here", event.start_mark.index, length=3, hint=hint)
                    break
                if event.version is not None and tuple(event.version) != (1, 2):
                    hint = "remove the %YAML line: only YAML 1.2 is supported"
                    self.report("IFX107", "unsupported YAML version", event.start_mark.index, hint=hint)
            else:
                self.take(event)
        if self.root is None:
            self.stop("IFX101", "the document is empty", 0, hint="`iggyflux init` writes a starter document")
        return self.root

    def located(self, root: Node) -> list[Problem]:
        """Return the problems with the pointers of their nodes."""
        if not self.problems:
            return []
        pointers = {id(node): pointer for pointer, node in root.walk()}
        found = []
        for problem, (node, key) in zip(self.problems, self.faulty, strict=True):
            pointer = pointers.get(id(node), "")
            if key is not None:
                pointer = join_pointer(pointer, key)
            found.append(replace(problem, location=replace(problem.location, pointer=pointer)))
        return found

    def events(self) -> Iterator[Any]:
        try:
            yield from YAML(typ="safe", pure=True).parse(self.text)
        except MarkedYAMLError as error:
            from iggyflux.documents.yaml_faults import explain  # valid documents need none of its patterns

            self.problems += explain(error, self.text, self.lines, self.file)
            raise DocumentError(in_order(self.problems)) from error
        except _FAULTS as error:
            self.unreadable(error)
            raise DocumentError(self.problems) from error

    def unreadable(self, error: Exception) -> None:
        for match in _LONG_ESCAPE.finditer(self.text):
            if int(match[1], 16) > 0x10FFFF:
                self.report(
                    "IFX101", f"{match.group()} is not a Unicode character", match.start(), length=len(match.group())
                )
                return
        place = self.open[-1].node.start if self.open else 0
        self.report("IFX101", f"invalid YAML: {str(error).splitlines()[0]}", place)

    def take(self, event: Any) -> None:
        if isinstance(event, ScalarEvent):
            self.scalar(event)
        elif isinstance(event, AliasEvent):
            self.alias(event)
        elif isinstance(event, (MappingStartEvent, SequenceStartEvent)):
            self.begin(event)
        elif isinstance(event, (MappingEndEvent, SequenceEndEvent)):
            self.end(event)

    # scalars

    def scalar(self, event: Any) -> None:
        style = _STYLES[event.style]
        start, end = event.start_mark.index, event.end_mark.index
        node = Node(event.value, start, end, style, in_flow=bool(self.open and self.open[-1].flow))
        tag = str(event.ctag) if event.ctag is not None else None
        if tag is not None or event.anchor is not None:
            node.start = self.after_tag(start, end)
        if tag is not None:
            self.tagged(node, tag)
        elif style is Style.PLAIN:
            node.value = self.resolved(node, event.value)
        if isinstance(node.value, str) and _SURROGATE.search(node.value):
            node.value = self.joined(node, node.value)
        self.anchor(event, node)
        self.place(node)

    def joined(self, node: Node, text: str) -> str:
        """Return `text` with the escaped surrogate pairs of JSON joined; an unpaired one is a fault."""
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
        bad = _SURROGATE.search(text)
        if bad is not None:
            name = f"U+{ord(bad.group()):04X}"
            message = f"{name} is an unpaired surrogate"
            self.fault(node, "IFX103", message, node.start, length=node.end - node.start)
        return _SURROGATE.sub("\N{REPLACEMENT CHARACTER}", text)

    def after_tag(self, start: int, end: int) -> int:
        """Return where the scalar itself begins: ruamel's mark is before its anchor and tag."""
        match = re.compile(r"(?:[!&]\S*\s+)*").match(self.text, start, end)
        return match.end() if match else start

    def resolved(self, node: Node, text: str) -> JSON:
        if text and text[0] not in _MAYBE_NOT_A_STRING:
            return text
        for _, pattern, convert in _RESOLVERS:
            if pattern.fullmatch(text):
                return self.number(node, text, convert)
        return text

    def number(self, node: Node, text: str, convert: Callable[[str], JSON]) -> JSON:
        if len(text) > MAX_DIGITS:
            self.fault(
                node, "IFX108", f"a number with {len(text)} characters", node.start, hint="quote it if it is a string"
            )
            return 0
        value = convert(text)
        if isinstance(value, float) and not math.isfinite(value):
            hint = f"quote it if it is a string: '{text}'"
            message = f"{text} is not a finite number"
            self.fault(node, "IFX108", message, node.start, length=len(text), hint=hint)
            return 0
        return value

    def tagged(self, node: Node, tag: str) -> None:
        text = str(node.value)
        name = tag.removeprefix(_CORE)
        if tag == "!" or name == "str":
            return
        for kind, pattern, convert in _RESOLVERS:
            if kind == name and pattern.fullmatch(text):
                node.value = self.number(node, text, convert)
                return
        self.refuse_tag(node, tag)

    def refuse_tag(self, node: Node, tag: str) -> None:
        shown = "!!" + tag.removeprefix(_CORE) if tag.startswith(_CORE) else tag
        start = max(self.text.rfind(shown, 0, node.start + len(shown)), 0)
        hint = "remove the tag"
        if self.text.startswith("!", start) and not shown.startswith("!!"):
            hint = self.quote_hint(start)
        self.fault(
            node,
            "IFX107",
            f"unsupported YAML tag {shown if len(shown) <= 40 else shown[:40] + '…'}",
            start,
            length=len(shown),
            hint=hint,
        )

    def quote_hint(self, start: int) -> str:
        from iggyflux.documents.yaml_faults import quoted_from

        in_flow = bool(self.open and self.open[-1].flow)
        return f"if this is an expression, quote it: {quoted_from(self.text, start, in_flow)}"

    # collections

    def begin(self, event: Any) -> None:
        start = event.start_mark.index
        if len(self.open) >= MAX_DEPTH:
            self.stop("IFX104", f"the document is nested more than {MAX_DEPTH} levels deep", start)
        is_mapping = isinstance(event, MappingStartEvent)
        node = Node({} if is_mapping else [], start, start, in_flow=bool(event.flow_style))
        tag = str(event.ctag) if event.ctag is not None else None
        if tag not in (None, "!", _CORE + ("map" if is_mapping else "seq")):
            node.start = self.after_tag(start, len(self.text))
            self.refuse_tag(node, str(tag))
        self.open.append(_Open(node, is_mapping, bool(event.flow_style), event.anchor))
        if event.anchor is not None:
            self.anchors[event.anchor] = None  # still open: an alias to it would contain itself

    def end(self, event: Any) -> None:
        done = self.open.pop()
        done.node.end = event.end_mark.index
        if done.anchor is not None:
            self.anchors[done.anchor] = done.node
        self.place(done.node)

    def anchor(self, event: Any, node: Node) -> None:
        if event.anchor is not None:
            self.anchors[event.anchor] = node

    def alias(self, event: Any) -> None:
        start, end = event.start_mark.index, event.end_mark.index
        name = event.anchor
        if name not in self.anchors:
            hint = f'quote the key: "*{name[:-1]}": …' if name.endswith(":") else self.quote_hint(start)
            stand_in = Node(None, start, end, Style.PLAIN)
            self.fault(stand_in, "IFX107", f"unknown anchor &{name}", start, length=end - start, hint=hint)
            self.place(stand_in)
            return
        node = self.anchors[name]
        if node is None:
            self.stop("IFX107", f"*{name} is inside its own anchor &{name}", start, length=end - start)
        if len(self.open) + node.depth > MAX_DEPTH:
            self.stop("IFX104", f"the document is nested more than {MAX_DEPTH} levels deep", start)
        self.place(node, (start, end))

    def place(self, node: Node, alias: tuple[int, int] | None = None) -> None:
        """Add a finished node to its parent: it is the document, an element, a key, or the value of a key."""
        if not self.open:
            self.root = node
            return
        parent = self.open[-1]
        if not parent.is_mapping:
            self.add(parent.node, len(parent.node.children), node)
        elif parent.key is None:
            parent.key = self.key(node, alias)
        else:
            key, start, end = parent.key
            parent.key = None
            if key is None:
                return
            if key in parent.node.keys:
                line, _ = self.lines.place(parent.node.keys[key][0])
                hint = f"remove one of them; the first is on line {line}"
                message = f"duplicate key `{key}`"
                self.report("IFX105", message, start, length=end - start, hint=hint, about=(parent.node, key))
                return
            parent.node.keys[key] = (start, end)
            self.add(parent.node, key, node)

    def add(self, parent: Node, key: str | int, node: Node) -> None:
        parent.size += node.size
        parent.depth = max(parent.depth, node.depth + 1)
        if sum(part.node.size for part in self.open) > MAX_NODES:
            hint = "use fewer aliases: each one repeats the values of its anchor"
            self.stop("IFX104", f"the document has more than {MAX_NODES:,} values", node.start, hint=hint)
        parent.children[key] = node
        if isinstance(parent.value, dict):
            parent.value[str(key)] = node.value
        elif isinstance(parent.value, list):
            parent.value.append(node.value)

    def key(self, node: Node, alias: tuple[int, int] | None) -> tuple[str | None, int, int]:
        start, end = alias or (node.start, max(node.end, node.start + 1))
        if isinstance(node.value, str):
            return node.value, start, end
        if node.style is Style.COLLECTION:
            hint = "quote it" if node.in_flow else None
            if self.text[start - 1 : start + 1] == "{{":
                hint = "a document has no {{ }}: write an expression in quotes, such as 'device.id'"
            self.report("IFX106", "expected a string as key, found a list or an object", start, hint=hint)
            return None, start, end
        shown = self.text[start:end]
        named = bool(shown.strip(":"))
        hint = f'quote it: "{shown}"' if named else "write a key before the colon"
        about = (self.open[-1].node, shown if named else None)
        self.report(
            "IFX106", "expected a string as key", start, length=end - start, found=shown, hint=hint, about=about
        )
        return (shown if named else None), start, end

    # problems

    def report(
        self,
        code: str,
        message: str,
        offset: int,
        *,
        length: int = 1,
        found: str | None = None,
        hint: str | None = None,
        about: tuple[Node | None, str | None] = (None, None),
    ) -> None:
        """Report a problem after which reading continues; `about` is its node, or a node and its key."""
        self.problems.append(self.lines.problem(code, message, offset, length, file=self.file, found=found, hint=hint))
        self.faulty.append(about)

    def fault(
        self, node: Node, code: str, message: str, offset: int, *, length: int = 1, hint: str | None = None
    ) -> None:
        """Report that the value of `node` cannot be what is written; it has a substitute from here on."""
        node.broken = True
        self.report(code, message, offset, length=length, hint=hint, about=(node, None))

    def stop(self, code: str, message: str, offset: int, *, length: int = 1, hint: str | None = None) -> NoReturn:
        self.report(code, message, offset, length=length, hint=hint)
        raise DocumentError(self.problems)


class _Open:
    """A collection that has not ended yet; `key` waits for its value."""

    __slots__ = ("anchor", "flow", "is_mapping", "key", "node")

    def __init__(self, node: Node, is_mapping: bool, flow: bool, anchor: str | None) -> None:
        self.node = node
        self.is_mapping = is_mapping
        self.flow = flow
        self.anchor = anchor
        self.key: tuple[str | None, int, int] | None = None
