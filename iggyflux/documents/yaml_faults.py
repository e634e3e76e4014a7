"""Explains text that is not YAML in words for authors of mappings.

Most such faults are expressions without quotes: a value that begins with `@`, `*` or a backtick, brackets inside of
`{…}`, a quoted string that goes on after its quote.  The problem shows the line as it should be.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError

from iggyflux.documents.nodes import Lines
from iggyflux.documents.text import MOST_FAULTS
from iggyflux.errors import Problem

SYNTAX = "IFX101"
UNQUOTED = "IFX109"

_KEY = re.compile(
    r"""(?:^|[{\[,]|-[ ])[ ]*(?:"[^"\n]*"|'[^'\n]*'|[^\s{}\[\],:'"#&*!|>%@`][^\s{}\[\],:]*):[ ]+""", re.MULTILINE
)
_KEY_BEGINS = re.compile(
    r"""^[ ]*+(?:-[ ]++)*(?!-[ ])(?:"[^"\n]*"|'[^'\n]*'|[^\s{}\[\],:'"#&*!|>%@`][^\n{}\[\],:]*):(?:[ ]|$)""",
    re.MULTILINE,
)
_BLOCK_BEGINS = re.compile(r":[ ]+[|>][-+0-9]*[ ]*(?:#.*)?$")
_PAIRS = {"[": "]", "{": "}", "(": ")"}
_LONGEST_HINT = 80


@dataclass(frozen=True, slots=True)
class _Fault:
    """`at` is the offset at which the parser stopped, `since` the start of what it was reading."""

    text: str
    problem: str
    context: str
    at: int
    since: int

    @property
    def character(self) -> str:
        return self.text[self.at : self.at + 1]

    @property
    def line_start(self) -> int:
        return self.text.rfind("\n", 0, self.at) + 1


@dataclass(frozen=True, slots=True)
class _Explanation:
    message: str
    at: int
    length: int = 1
    hint: str | None = None
    code: str = SYNTAX


def explain(error: MarkedYAMLError, text: str, lines: Lines, file: str | None) -> Iterator[Problem]:
    """Yield the problem of `error`; if it is a value without quotes, also the same problem of lines below."""
    problem, place = _explain(error, 0, text, lines, file)
    yield problem
    if problem.code == UNQUOTED:
        yield from islice(_below(text, place, lines, file), MOST_FAULTS - 1)


def _below(text: str, offset: int, lines: Lines, file: str | None) -> Iterator[Problem]:
    """Yield the problems of values without quotes on the lines after `offset`, each line read by itself."""
    start = text.find("\n", offset) + 1
    block: int | None = None  # the indentation of the key of a string of several lines
    while 0 < start < len(text):
        end = text.find("\n", start) + 1 or len(text)
        line = text[start:end]
        inside = block is not None and (_indent(line) > block or not line.strip())
        if not inside and _KEY_BEGINS.match(line):
            block = _indent(line) if _BLOCK_BEGINS.search(line) else None
            try:
                for _ in YAML(typ="safe", pure=True).parse(line):
                    pass
            except MarkedYAMLError as error:
                problem, _ = _explain(error, start, text, lines, file)
                if problem.code == UNQUOTED:
                    yield problem
            except ValueError:  # an escape that is not a character
                pass
        start = end


def _explain(error: MarkedYAMLError, start: int, text: str, lines: Lines, file: str | None) -> tuple[Problem, int]:
    """Return the problem of text that was read from `start`, and its offset."""
    mark, since = error.problem_mark or error.context_mark, error.context_mark
    at = min(start + mark.index, len(text)) if mark is not None else start
    problem_text = str(error.problem or error.context or "")
    fault = _Fault(text, problem_text, str(error.context or ""), at, start + since.index if since else at)
    explanation = next(
        filter(None, (explanation(fault) for pattern, explanation in _EXPLANATIONS if pattern.search(fault.problem))),
        None,
    )
    if explanation is None:
        explanation = _Explanation(f"invalid YAML: {fault.problem}", fault.at)
    place = explanation.at
    if place >= len(text.rstrip()):  # the end of the file: show the last line with content
        place = max(len(text.rstrip()) - 1, 0)
    problem = lines.problem(
        explanation.code, explanation.message, place, explanation.length, file=file, hint=explanation.hint
    )
    return problem, place


def quoted(text: str) -> str:
    """Return `text` up to its comment, as a YAML scalar of exactly these characters."""
    text = re.split(r"\s#", text.strip())[0].strip()
    if len(text) > _LONGEST_HINT:
        text = text[:_LONGEST_HINT] + "…"
    if "'" not in text:
        return f"'{text}'"
    if '"' not in text and "\\" not in text:
        return f'"{text}"'
    return "'" + text.replace("'", "''") + "'"


def quoted_from(text: str, start: int, in_flow: bool) -> str:
    """Return the value that begins at `start`, as `quoted` writes it."""
    line_end = text.find("\n", start)
    return quoted(text[start : _value_end(text, start, line_end if line_end >= 0 else len(text), in_flow)])


def _value_around(fault: _Fault, *, outermost: bool = False) -> tuple[int, int, str] | None:
    """Return the offsets of the value around the place, on its line, and the text of its key."""
    line_end = fault.text.find("\n", fault.at)
    line_end = len(fault.text) if line_end < 0 else line_end
    best = None
    for match in _KEY.finditer(fault.text, fault.line_start, line_end):
        if match.end() <= fault.at and not (best and outermost):
            best = match
    if best is None:
        return None
    in_flow = best.group()[0] in "{[,"
    return best.end(), _value_end(fault.text, best.end(), line_end, in_flow), best.group().strip("{[,- ")


def _value_end(text: str, start: int, line_end: int, in_flow: bool) -> int:
    depth: list[str] = []
    quote = ""
    for index in range(start, line_end):
        character = text[index]
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"`":
            quote = character
        elif character in _PAIRS:
            depth.append(_PAIRS[character])
        elif depth and character == depth[-1]:
            depth.pop()
        elif not depth and ((in_flow and character in ",}]") or (character == "#" and text[index - 1] == " ")):
            return index
    return line_end


def _unquoted(fault: _Fault, why: str) -> _Explanation | None:
    found = _value_around(fault)
    if found is None:
        return None
    start, end, key = found
    value = fault.text[start:end].strip()
    hint = f"quote the value: {key} {quoted(value)}"
    return _Explanation(why, fault.at, 1, hint, UNQUOTED)


def _cannot_start(fault: _Fault) -> _Explanation | None:
    if fault.character == "\t":
        if fault.text[fault.line_start : fault.at].strip():
            return _Explanation("a tab is not allowed before a value", fault.at, hint="use a space")
        return _Explanation("tabs are not allowed as indentation", fault.at, hint="indent with spaces")
    why = f"an unquoted value cannot begin with {fault.character}"
    explanation = _unquoted(fault, why)
    if explanation is None:
        return _Explanation(why, fault.at, hint="quote the value", code=UNQUOTED)
    return explanation


def _alias(fault: _Fault) -> _Explanation | None:
    if "anchor" in fault.context or "alias" in fault.context:
        sign = fault.text[fault.since : fault.since + 1]
        inner = _Fault(fault.text, fault.problem, fault.context, fault.since, fault.since)
        return _unquoted(inner, f"an unquoted value cannot begin with {sign}") or _Explanation(
            f"an unquoted value cannot begin with {sign}", fault.since, hint="quote the value", code=UNQUOTED
        )
    return None


def _flow(fault: _Fault) -> _Explanation | None:
    bracket = fault.text[fault.since : fault.since + 1]
    if "<stream end>" in fault.problem or fault.character == ":":
        return _Explanation(
            f"the {bracket} is not closed", fault.since, hint=f"close it with {_PAIRS.get(bracket, ']')}"
        )
    if bracket != "{":
        return _Explanation(f"missing comma before {fault.character} inside [ … ]", fault.at, hint="quote expressions")
    what = {"[": "a list cannot begin", "{": "an object cannot begin"}.get(
        fault.character, "unexpected text after the value"
    )
    return _unquoted(fault, f"{what} inside {{ … }}")


_BEGINS_AN_OBJECT = ("const: ", "expr: ", "stream: ", "topic: ", "format: ")


def _mapping_value(fault: _Fault) -> _Explanation | None:
    found = _value_around(fault)
    if found is not None:
        start, end, key = found
        value = fault.text[start:end]
        hint = f"quote the value: {key} {quoted(value)}"
        if value.startswith(_BEGINS_AN_OBJECT):
            hint = f"write an object on one line in braces: {key} {{{value}}}"
        return _Explanation("an unquoted value cannot contain `: `", fault.at, 1, hint, UNQUOTED)
    before = fault.text[: fault.line_start].rstrip("\n").rsplit("\n", 1)[-1]
    if before.strip() and ":" not in before and not before.lstrip().startswith(("-", "#")):
        return _Explanation("missing colon after the key", fault.line_start - len(before) - 1 + _indent(before))
    start = fault.line_start + _indent(fault.text[fault.line_start : fault.at])
    return _Explanation(
        "this key is indented more than the keys before it",
        start,
        fault.at - start,
        "indent it like the lines around it",
    )


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


def _block_end(fault: _Fault) -> _Explanation | None:
    found = _value_around(fault, outermost=True)
    if found is not None and fault.text[found[0]] in "'\"{[":
        start, end, key = found
        what = {"'": "the quoted string", '"': "the quoted string", "{": "the object", "[": "the list"}[
            fault.text[start]
        ]
        hint = f"quote the whole expression: {key} {quoted(fault.text[start:end])}"
        return _Explanation(f"unexpected text after {what}", fault.at, 1, hint, UNQUOTED)
    if fault.character == "-":
        return _Explanation("expected a key, found a list item", fault.at, hint="indent the list under its key")
    if fault.text[fault.since : fault.since + 2] == "- " and fault.at - fault.line_start == _column(
        fault.text, fault.since
    ):
        hint = "write all of them as `- …`, or all as `key: …`"
        return _Explanation("expected a list item, found a key", fault.at, hint=hint)
    return _Explanation("inconsistent indentation", fault.at, hint="indent it like the lines around it")


def _column(text: str, offset: int) -> int:
    return offset - text.rfind("\n", 0, offset) - 1


def _quote_open(fault: _Fault) -> _Explanation | None:
    if "quoted scalar" not in fault.context:
        return None
    quote = fault.text[fault.since : fault.since + 1]
    return _Explanation(f"this quote {quote} is not closed", fault.since)


def _bad_escape(fault: _Fault) -> _Explanation | None:
    hint = "double the backslash, or use single quotes, where a backslash is literal"
    return _Explanation(f"\\{fault.character} is not an escape sequence", fault.at - 1, 2, hint)


def _no_colon(fault: _Fault) -> _Explanation | None:
    start = fault.since
    end = fault.text.find("\n", start)
    length = (end if end >= 0 else len(fault.text)) - start
    return _Explanation("expected `key: value` or a list item", start, max(length, 1), "add a colon after the key")


def _block_scalar(fault: _Fault) -> _Explanation | None:
    sign = fault.text[fault.since : fault.since + 1]
    inner = _Fault(fault.text, fault.problem, fault.context, fault.since, fault.since)
    return _unquoted(inner, f"{sign} begins a string of several lines") if sign else None


def _spaces_before_text(fault: _Fault) -> _Explanation | None:
    blank = fault.text.rfind("\n", 0, fault.line_start - 1) + 1
    message = "the first line of a string of several lines cannot consist of spaces"
    return _Explanation(message, blank, max(fault.line_start - 1 - blank, 1), "remove the line, or its spaces")


def _loose_end(fault: _Fault) -> _Explanation | None:
    if not fault.text[fault.at :].strip():
        message = "expected a value or a closing bracket, found the end of the document"
        return _Explanation(message, fault.at, hint="close the open bracket with ] or }")
    why = f"unexpected {fault.character}: no bracket is open"
    return _unquoted(fault, why) or _Explanation(why, fault.at, hint="quote a value that contains it")


def _tag(fault: _Fault) -> _Explanation | None:
    inner = _Fault(fault.text, fault.problem, fault.context, fault.since, fault.since)
    return _unquoted(inner, "an unquoted value that begins with ! is a YAML tag")


def _deeper_text(fault: _Fault) -> _Explanation | None:
    return _Explanation(
        "this key is not indented like the keys before it", fault.at, hint="indent it like the lines around it"
    )


def _not_here(fault: _Fault) -> _Explanation | None:
    return _unquoted(fault, f"an unquoted value cannot begin with {fault.character} and a space")


_EXPLANATIONS: tuple[tuple[re.Pattern[str], Callable[[_Fault], _Explanation | None]], ...] = (
    (re.compile("that cannot start any token"), _cannot_start),
    (re.compile("expected alphabetic or numeric character"), _alias),
    (re.compile(r"expected ',' or '[}\]]'"), _flow),
    (re.compile("mapping values are not allowed here"), _mapping_value),
    (re.compile("(sequence entries|mapping keys) are not allowed here"), _not_here),
    (re.compile("expected <block end>"), _block_end),
    (re.compile("unexpected (end of stream|document separator)"), _quote_open),
    (re.compile("unknown escape character"), _bad_escape),
    (re.compile("could not find expected ':'"), _no_colon),
    (re.compile("chomping or indentation|a comment or a line break|indentation indicator"), _block_scalar),
    (re.compile("more indented follow up line"), _spaces_before_text),
    (re.compile("expected the node content"), _loose_end),
    (re.compile("expected ' ', but found|undefined tag handle|expected '!'|expected URI"), _tag),
    (re.compile("<document start>"), _deeper_text),
)
