"""What can be written at a position: keys and words of the schema, functions, coordinates, members of the samples."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from iggyflux.documents import Format, join_pointer, kind_of
from iggyflux.documents.nodes import written_inside
from iggyflux.documents.validator import Schema
from iggyflux.editor.cursor import MARK, Cursor, cursor_at, word_before
from iggyflux.editor.evidence import Samples, places_at, tables_of
from iggyflux.editor.schema_paths import is_expression, schemas_at
from iggyflux.errors import ExpressionError
from iggyflux.expressions import Place, compile_expression
from iggyflux.functions import FUNCTIONS, META_NAMES, Function
from iggyflux.records import JSON, Message

_IN_NAME: Final = re.compile(r"\b(meta|header|lookup)\(\s*(['`\"])([^'`\"]*)\Z")
_OPENERS: Final = {"(": ")", "[": "]", "{": "}"}
_LONGEST_DETAIL: Final = 60


@dataclass(frozen=True, slots=True)
class Completion:
    """One proposal: `text` replaces the characters from `start` to `end` of the document's text.

    `detail` is one line; `documentation` is Markdown.
    """

    label: str
    kind: Literal["key", "word", "function", "member", "name"]
    text: str
    start: int
    end: int
    detail: str = ""
    documentation: str = ""


def completions(
    text: str,
    offset: int,
    samples: Samples = (),
    *,
    format: Format = "yaml",  # noqa: A002
    file: str | None = None,
) -> list[Completion]:
    """Return what can be written at `offset` of `text`, the most likely first.

    `samples` are as for `check_mapping`; `file` is the path of the document, beside which the files are that it names.
    """
    cursor = cursor_at(text, offset, format, file)
    if cursor is None:
        return []
    kind: Literal["mapping", "pipeline"] = "pipeline" if kind_of(cursor.document.tree) == "pipeline" else "mapping"
    schemas = schemas_at(kind, cursor.document.tree, cursor.pointer)
    if cursor.at == "key":
        if not cursor.pointer and kind == "mapping" and not _OF_MAPPINGS & set(cursor.document.root.keys):
            schemas += schemas_at("pipeline", cursor.document.tree, "")
        has_separator = re.match(r"[\w*$-]*[\"']?[ \t]*[:=]", text[offset:]) is not None
        separator = "" if has_separator else ": " if format == "yaml" else " = "
        found = list(_keys(cursor, schemas, offset, separator))
        if any(schema.get("title") in _OBJECTS_OF_MEMBERS for schema in schemas):
            found += _named_members(cursor, samples, offset, separator)
        return found
    found = list(_words(schemas, text, offset, cursor.typed, format))
    if kind == "mapping" and any(schema.get("title") == "the name of a member" for schema in schemas):
        members = (each for each in _in_expression(cursor, samples, offset) if each.kind == "member")
        found += [each for each in members if _IDENTIFIER.fullmatch(each.label)]
    elif kind == "mapping" and is_expression(schemas):
        found += _in_expression(cursor, samples, offset)
    return found


_OF_MAPPINGS: Final = {"kind", "points", "messages", "cursor", "for_each", "where"}
"""The keys that no pipeline has."""

_OBJECTS_OF_MEMBERS: Final = ("an object of tags", "an object of fields")


def _named_members(cursor: Cursor, samples: Samples, offset: int, separator: str) -> Iterator[Completion]:
    """Yield `celsius: "celsius"` for each member that a tag or field could be made of."""
    places = places_at(cursor.document, join_pointer(cursor.pointer, f"{cursor.typed}{MARK}{cursor.rest}"), samples)
    seen = set((cursor.document.node(cursor.pointer) or cursor.document.root).keys)
    for place in places:
        for name, value in place.value.items() if isinstance(place.value, dict) else ():
            if name not in seen and _IDENTIFIER.fullmatch(name):
                seen.add(name)
                text = f'{name}{separator}"{name}"' if separator else name
                yield Completion(name, "member", text, offset - len(cursor.typed), offset, _shown(value))


def _keys(cursor: Cursor, schemas: Sequence[Schema], offset: int, separator: str) -> Iterator[Completion]:
    node = cursor.document.node(cursor.pointer)
    present = set() if node is None else {key for key in node.keys if MARK not in key}
    start = offset - len(cursor.typed)
    seen = set(present)
    for schema in schemas:
        required = set(schema.get("required", ()))
        for name, inner in sorted(schema.get("properties", {}).items(), key=lambda item: item[0] not in required):
            if name not in seen:
                seen.add(name)
                described = str(inner.get("description", ""))
                detail = "required" if name in required else ""
                yield Completion(name, "key", name + separator, start, offset, detail, described)


def _words(
    schemas: Iterable[Schema],
    text: str,
    offset: int,
    typed: str,
    format: Format,  # noqa: A002
) -> Iterator[Completion]:
    quoted = text[offset - len(typed) - 1 : offset - len(typed)] in ('"', "'")
    seen: set[str] = set()
    for schema in schemas:
        words: list[object] = [*schema.get("enum", ())]
        words += [schema["const"]] if "const" in schema else []
        if schema.get("type") == "boolean":
            words += [True, False]
        for word in words:
            shown = word if isinstance(word, str) else json.dumps(word)
            if shown in seen:
                continue
            seen.add(shown)
            written = f'"{shown}"' if format == "toml" and isinstance(word, str) and not quoted else shown
            described = str(schema.get("description", ""))
            yield Completion(shown, "word", written, offset - len(typed), offset, "", described)


# --- expressions ---


def _in_expression(cursor: Cursor, samples: Samples, offset: int) -> Iterator[Completion]:
    named = _IN_NAME.search(cursor.typed)
    if named is not None:
        yield from _names(cursor, named[1], named[3], samples, offset)
        return
    word = word_before(cursor.typed)
    before = cursor.typed[: len(cursor.typed) - len(word)]
    seen: set[str] = set()
    node = cursor.document.node(cursor.pointer)
    for name, value in _members(cursor, samples):
        if name in seen:
            continue
        seen.add(name)
        written: str | None = name if _IDENTIFIER.fullmatch(name) else json.dumps(name, ensure_ascii=False)
        if written is not None and node is not None:
            written = written_inside(written, node.style, first=not before)
        if written is not None:
            yield Completion(name, "member", written, offset - len(word), offset, _shown(value))
    if not before.rstrip().endswith("."):
        for function in FUNCTIONS.values():
            yield Completion(
                function.name,
                "function",
                f"{function.name}(",
                offset - len(word),
                offset,
                function.signature,
                describe_function(function),
            )


_IDENTIFIER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def _names(cursor: Cursor, function: str, typed: str, samples: Samples, offset: int) -> Iterator[Completion]:
    """Yield the names that `meta`, `header` and `lookup` take."""
    tree = cursor.document.tree if isinstance(cursor.document.tree, dict) else {}
    if function == "meta":
        names: Iterable[str] = META_NAMES["reader" if tree.get("kind") == "reader" else "writer"]
    elif function == "lookup":
        names = tables_of(cursor.document)
    else:
        names = dict.fromkeys(name for each in samples if isinstance(each, Message) for name in each.headers)
    for name in names:
        yield Completion(name, "name", name, offset - len(typed), offset)


def _members(cursor: Cursor, samples: Samples) -> Iterator[tuple[str, JSON]]:
    """Yield the members that samples have where the position is, each with its first value."""
    places = places_at(cursor.document, cursor.pointer, samples)
    for given in _given(cursor, places):
        if isinstance(given, dict):
            yield from given.items()


def _given(cursor: Cursor, places: Sequence[Place]) -> list[JSON]:
    """Return the values on which a member at the position would be evaluated."""
    word = word_before(cursor.typed)
    marked = cursor.typed[: len(cursor.typed) - len(word)] + MARK
    rest = cursor.rest.lstrip("0123456789_abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
    for candidate in (marked + rest, marked + _open_brackets(marked)):
        try:
            expression = compile_expression(candidate, tables=tables_of(cursor.document), parents=None)
        except ExpressionError:
            continue
        for part in expression.trace(places):
            if part.kind == "field" and part.node["value"] == MARK:
                return part.given
    return []


_QUOTED: Final = re.compile(
    r"'(?:[^'\\]|\\.)*+(?:'|\\?\Z)|`(?:[^`\\]|\\.)*+(?:`|\\?\Z)|\"(?:[^\"\\]|\\.)*+(?:\"|\\?\Z)", re.DOTALL
)
"""Texts, literals and quoted names of an expression, also one that is not closed."""


def _open_brackets(text: str) -> str:
    """Return what closes the brackets that are open at the end of an expression."""
    open_: list[str] = []
    for character in _QUOTED.sub("", text):
        if character in _OPENERS:
            open_.append(_OPENERS[character])
        elif open_ and character == open_[-1]:
            open_.pop()
    return "".join(reversed(open_))


def _shown(value: JSON) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST_DETAIL else text[:_LONGEST_DETAIL] + "…"


def describe_function(function: Function) -> str:
    """Return the documentation of a function as Markdown."""
    lines = [f"```\n{function.signature}\n```", function.description]
    lines += [f"- `{each.name}`: {each.description}" for each in function.parameters if each.description]
    for expression, document, outcome in function.examples[:3]:
        on = "" if document in ("{}", "null") else f" on {as_code(document)}"
        lines.append(f"{as_code(expression)}{on} → {as_code(outcome)}")
    return "\n\n".join(lines)


def as_code(text: str) -> str:
    """Return a text as code of Markdown on one line, also if it has backticks of its own."""
    return f"`` {text} ``" if "`" in text else f"`{text}`"
