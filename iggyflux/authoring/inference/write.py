"""A proposal as a document: one tree of commented entries, written as YAML or as TOML."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

from iggyflux.escapes import escaped
from iggyflux.records import JSON

if TYPE_CHECKING:
    from iggyflux.authoring.inference.proposal import Example, Field, Proposal, Unused

WIDTH: Final = 120
"""A comment is written after its line if both fit this width, else above it."""
COLUMN: Final = 56
"""Comments beside lines begin here, or after a longer line."""


@dataclass(frozen=True)
class Entry:
    """A key with its value and a comment; without a key, only the comment.

    A value is a scalar, a list or object on one line, or a list of entries (a block), or of blocks.
    """

    key: str = ""
    value: JSON = None
    block: Sequence[Entry] = ()
    blocks: Sequence[Sequence[Entry]] = ()
    comment: str = ""
    above: Sequence[str] = field(default=())
    is_expression: bool = False


def document_text(proposal: Proposal, form: Literal["yaml", "toml"]) -> str:
    """Return the document of a proposal."""
    entries = list(_document(proposal, form))
    lines = yaml_lines(entries) if form == "yaml" else _toml(entries)
    head = [f"# {escaped(note)}".rstrip() for note in proposal.notes]
    return "\n".join([*head, *lines]) + "\n"


# --- the tree ---


def _document(proposal: Proposal, form: str) -> Iterator[Entry]:
    yield Entry("iggyflux", 1)
    yield Entry("kind", "writer")
    source = proposal.source
    read = [Entry("stream", source.stream), Entry("topic", source.topic)]
    payload: JSON = {"format": source.format, **source.options} if source.options else source.format
    read.append(Entry("payload", payload, comment=source.how))
    if source.compression != "none":
        read.append(Entry("compression", source.compression))
    if source.has_non_finite:
        read.append(Entry("on_bad_value", "omit", comment="NaN and infinities are left out and counted"))
    yield Entry("from", block=read)
    if proposal.for_each:
        lists: JSON = [*proposal.for_each] if len(proposal.for_each) > 1 else proposal.for_each[0]
        yield Entry("for_each", lists, comment=proposal.each_reason, is_expression=True)
    if proposal.replaces_names:
        comment = "names or tags in samples have characters that servers lose: _ replaces them; or: fail"
        yield Entry("invalid_names", "replace", comment=comment)
    if proposal.keeps_last:
        comment = "elements of one message have the same tags and time; a tag that tells them apart would keep all"
        yield Entry("collisions", "keep_last", comment=comment)
    yield Entry("points", block=list(_point(proposal)))
    if proposal.examples:
        above = ["Samples, and what comes of them: `iggyflux test` compares."]
        yield Entry("examples", blocks=[list(_example(each, form)) for each in proposal.examples], above=above)


def _point(proposal: Proposal) -> Iterator[Entry]:
    if proposal.where is not None:
        yield Entry("where", proposal.where, comment=proposal.where_reason, is_expression=True)
    measurement = proposal.measurement
    yield Entry(
        "measurement",
        {"const": measurement.text} if measurement.is_constant else measurement.text,
        comment=measurement.reason,
        is_expression=True,
    )
    if proposal.tags:
        tags: list[Entry] = []
        for tag in proposal.tags:
            value: JSON = {"expr": tag.expression, "required": True} if tag.required else tag.expression
            tags.append(Entry(tag.key, value, comment=tag.reason, is_expression=True))
        yield Entry("tags", block=tags, above=["What points are looked up by; each combination of values is a series."])
    stored = [Entry(each.key, _field(each), comment=each.reason, is_expression=True) for each in proposal.fields]
    left = [Entry(comment=_not_stored(each)) for each in proposal.unused]
    yield Entry("fields", block=[*stored, *left], above=["The values; float unless `type` says otherwise."])
    time = proposal.time
    made: dict[str, JSON] = {}
    if time.expression is not None:
        made = {"expr": time.expression, "format": time.format}
        if time.timezone:
            made["timezone"] = time.timezone
        if time.falls_back:
            made["default"] = "message"
    if time.spread is not None:
        made["spread"] = time.spread
    yield Entry("timestamp", made, comment=time.reason, is_expression=True)


def _field(each: Field) -> JSON:
    made: dict[str, JSON] = {"expr": each.expression}
    if each.type != "float":
        made["type"] = each.type
    if each.cast:
        made["cast"] = True
    if each.omits:
        made["on_bad_value"] = "omit"
    return each.expression if len(made) == 1 else made


def _not_stored(each: Unused) -> str:
    if not each.advice:
        return f"not stored: {_shown(each.key, each.line)}  ({each.reason})"
    check = "CHECK: " if each.is_measured else ""
    return f"{check}not stored: {_shown(each.key, each.line)}  ({each.reason}; {each.advice} would store it)"


def _shown(key: str, line: Mapping[str, JSON] | str) -> str:
    return line if isinstance(line, str) else f"{_yaml_key(key)}: {yaml_flow(dict(line), is_expression=True)}"


def _example(example: Example, form: str) -> Iterator[Entry]:
    yield Entry("name", example.name)
    how, message = example.form, example.message
    if form == "toml" and how == "message":  # TOML has no null
        how, message = ("message_json", json.dumps(message)) if example.is_json else (how, message)
        if how == "message" and _has_null(message):
            how, message = "payload_base64", b64encode(example.payload).decode("ascii")
    yield Entry(how, message)
    if example.meta:
        yield Entry("meta", dict(example.meta))
    if example.headers:
        yield Entry("headers", dict(example.headers))
    if example.skipped:
        yield Entry("skipped", True)
    else:
        yield Entry("points", list(example.points))


def _has_null(value: JSON) -> bool:
    if isinstance(value, dict):
        return any(map(_has_null, value.values()))
    return any(map(_has_null, value)) if isinstance(value, list) else value is None


# --- YAML ---

_PLAIN: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*", re.ASCII)
_WORDS: Final = frozenset({"null", "true", "false", "y", "n", "yes", "no", "on", "off"})


def yaml_lines(entries: Iterable[Entry], indent: str = "") -> Iterator[str]:
    for entry in entries:
        yield from (f"{indent}# {line}" for line in entry.above)
        if not entry.key:
            yield f"{indent}# {escaped(entry.comment)}"
            continue
        key = f"{indent}{_yaml_key(entry.key)}:"
        if entry.block:
            yield key
            yield from yaml_lines(entry.block, indent + "  ")
        elif entry.blocks:
            yield key
            for block in entry.blocks:
                lines = list(yaml_lines(block, indent + "    "))
                yield f"{indent}  - {lines[0].lstrip()}"
                yield from lines[1:]
        elif entry.key == "points" and isinstance(entry.value, list) and entry.value:
            yield key
            yield from (f"{indent}  - {_yaml_text(str(line), is_plain=False)}" for line in entry.value)
        else:
            value = yaml_flow(entry.value, is_expression=entry.is_expression)
            yield from _commented(indent, f"{key} {value}", entry.comment)


def _commented(indent: str, line: str, comment: str) -> Iterator[str]:
    comment = escaped(comment)
    if not comment:
        yield line
    elif max(len(line) + 2, COLUMN) + len(comment) + 2 <= WIDTH:
        yield f"{line.ljust(COLUMN)}  # {comment}"
    else:
        yield f"{indent}# {comment}"
        yield line


def _yaml_key(key: str) -> str:
    return _yaml_text(key)


def yaml_flow(value: JSON, *, is_expression: bool = False) -> str:
    if isinstance(value, dict):
        members = (
            f"{_yaml_key(name)}: {yaml_flow(each, is_expression=is_expression and name == 'expr')}"
            for name, each in value.items()
        )
        return "{" + ", ".join(members) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(yaml_flow(each, is_expression=is_expression) for each in value) + "]"
    if isinstance(value, str):
        return _yaml_text(value, is_plain=not is_expression)
    if isinstance(value, float):
        return repr(value).replace("nan", ".nan").replace("inf", ".inf")
    return json.dumps(value)


def _yaml_text(text: str, *, is_plain: bool = True) -> str:
    if is_plain and _PLAIN.fullmatch(text) and text.lower() not in _WORDS:
        return text
    if not text.isprintable():
        return '"' + "".join(map(_yaml_escape, text)) + '"'
    if "'" not in text:
        return f"'{text}'"
    return (
        json.dumps(text, ensure_ascii=False)
        if '"' not in text and "\\" not in text
        else "'" + text.replace("'", "''") + "'"
    )


def _yaml_escape(char: str) -> str:
    if char in '"\\':
        return "\\" + char
    if char.isprintable():
        return char
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


# --- TOML ---

_BARE: Final = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)


def _toml(entries: Sequence[Entry], path: tuple[str, ...] = ()) -> Iterator[str]:
    """Yield a table: its values first, as TOML has it, then the tables in it."""
    for entry in entries:
        if not entry.key:
            yield f"# {escaped(entry.comment)}"
        elif not entry.block and not entry.blocks:
            yield from _commented("", f"{_toml_key(entry.key)} = {toml_value(entry.value)}", entry.comment)
    for entry in entries:
        here = (*path, entry.key)
        name = ".".join(map(_toml_key, here))
        if entry.block:
            yield ""
            yield from (f"# {line}" for line in entry.above)
            yield f"[{name}]"
            yield from _toml(entry.block, here)
        for number, block in enumerate(entry.blocks):
            yield ""
            yield from (f"# {line}" for line in entry.above if not number)
            yield f"[[{name}]]"
            yield from _toml(block, here)


def _toml_key(key: str) -> str:
    return key if _BARE.fullmatch(key) else _toml_text(key)


def toml_value(value: JSON) -> str:
    if isinstance(value, dict):
        pairs = (f"{_toml_key(name)} = {toml_value(each)}" for name, each in value.items())
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    if isinstance(value, str):
        return f"'{value}'" if '"' in value and "'" not in value and value.isprintable() else _toml_text(value)
    return repr(value) if isinstance(value, float) else json.dumps(value)


def _toml_text(text: str) -> str:
    return '"' + "".join(map(_toml_escape, text)) + '"'


def _toml_escape(char: str) -> str:
    if char in '"\\':
        return "\\" + char
    if char.isprintable():
        return char
    return f"\\u{ord(char):04x}" if ord(char) < 0x10000 else f"\\U{ord(char):08x}"
