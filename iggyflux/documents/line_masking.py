"""Finds what may be a secret in text of a pipeline that has no tree, line by line.

A value is shown only if its key is known and no unknown key owns its line.  The text is broken somewhere, so where a
value ends is in doubt: what is hidden reaches to the end of its line, and below to where the value ends for certain.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from iggyflux.documents.pipeline_keys import vocabulary
from iggyflux.secrets import BEFORE_LOGIN, REFERENCE, is_secret_key, login_spans

_QUOTED_TEXT = r""""(?:[^"\\]|\\.)*+"|'[^']*+'"""
_SETTING = re.compile(
    rf"""(?:^[ \t-]*+|(?<=[\s{{,\[#]))"""
    rf"""(?:(?P<quoted>{_QUOTED_TEXT})[ \t]*+[:=]"""
    r"""|(?:(?P<bare>[^\s{}\[\],:='"#]++)[ \t]*+|)(?:=|:(?=[ \t"'{\[]|$)))[ \t]*+"""
)
"""A key, which a damaged line may not have, and the sign after it."""
_VALUE = re.compile(rf"""{_QUOTED_TEXT}|[^,{{}}"']*+""")
_NO_VALUE = re.compile(r"(?:[&!][^\s,{}\[\]]*+[ \t]*+)*+[ \t{\[]*+(?:#.*+)?$")
_TOKEN = re.compile(r"[^\s{}\[\],:='\"#|>&*!-]+|[:='\"|>&*!]")
_QUOTED = re.compile(rf"\\.|{_QUOTED_TEXT}")
_COMMENT = re.compile(r"(?:^|(?<=[ \t]))#.*+")
_BRACKET = re.compile(r"[\[\]{}]")
_TABLE = re.compile(r"[ \t]*+\[{1,2}([^\[\]]*+)\]{1,2}[ \t]*+(?:#[ \t]*+(.*+))?$")
_TABLE_AT_END = re.compile(r"[^\s=:\[{][ \t]*+\[([^\[\]]*+)\][\] \t]*+$")
_ASSIGNMENT = re.compile(rf"""[ \t]*+(?:{_QUOTED_TEXT}|[^\s{{}}\[\],:='"#]++)[ \t]*+=""")
_TOP_KEY = re.compile(r"([a-z_]++)[ \t]*+:(?:[ \t]|$)")


def hidden_in_lines(text: str) -> list[list[tuple[int, int]]]:
    """Return the spans of each line of a broken text that are not shown.

    These are those of `hidden_spans`, and all of a line that belongs to an unknown or secret key of a line before it.
    """
    lines = text.split("\n")
    outline = _Outline(is_balanced=_is_balanced(lines))
    hidden = [outline.spans(line) for line in lines]
    is_open = False
    for line, spans in zip(reversed(lines), reversed(hidden), strict=True):
        mark = BEFORE_LOGIN.search(line)
        if is_open and mark:  # a login that goes on below
            spans.append((mark.end(), len(line)))
        is_open = not _begins_with_known_key(line) and (is_open or "@" in line)
    return hidden


def _begins_with_known_key(line: str) -> bool:
    setting = _SETTING.match(line)
    return setting is not None and any(_kinds(setting["quoted"] or setting["bare"] or ""))


def hidden_spans(line: str) -> list[tuple[int, int]]:
    """Return the spans of a line of a broken text that are not shown.

    These are values of unknown and secret keys, to the end of the line; text without a key, unless it consists of words
    of the schema; and what is secret in addresses.
    """
    return _judged(line).spans(line)


class _Judgement(NamedTuple):
    """What a line says for itself."""

    hidden_from: int | None = None
    is_owner: bool = False
    """Whether it has an unknown key, or what may be one: lines below may belong to it."""
    is_waiting: bool = False
    """Whether it ends with that key, so that the value is below."""
    has_key: bool = False

    def spans(self, line: str) -> list[tuple[int, int]]:
        return login_spans(line) + ([] if self.hidden_from is None else [(self.hidden_from, len(line))])


def _judged(line: str) -> _Judgement:
    settings = list(_SETTING.finditer(line))
    ends = [*(setting.start() for setting in settings), len(line)]
    stray = _stray(line, 0, ends[0])
    if stray is not None:
        return _Judgement(stray, is_owner="#" not in line[:stray])
    for setting, end in zip(settings, ends[1:], strict=True):
        start = setting.end()
        is_scalar, is_collection = _kinds(setting["quoted"] or setting["bare"] or "")
        is_waiting = not is_collection and _NO_VALUE.match(line, start) is not None
        if (
            is_waiting
            or not (is_scalar or is_collection)
            or (line[start : start + 1] in ("{", "[") and not is_collection)
        ):
            reference = REFERENCE.match(line, start)
            if reference is None:
                is_empty = not line[start:].strip(" \t{}[],")
                return _Judgement(None if is_empty else start, True, is_waiting, has_key=True)
            start = reference.end()
        elif is_scalar:
            start = _VALUE.match(line, start, end).end()  # type: ignore[union-attr]  # it matches every text
        stray = _stray(line, start, end)
        if stray is not None:
            return _Judgement(stray, is_owner="#" not in line[start:stray], has_key=True)
    return _Judgement(has_key=bool(settings))


def _kinds(key: str) -> tuple[bool, bool]:
    """Return whether the schema knows a key with a scalar, and with known keys or items below."""
    known = vocabulary()
    *tables, name = key.strip("'\"").split(".")
    if not known.collections.issuperset(tables):
        return False, False
    return name in known.scalars, name in known.collections


def _stray(line: str, start: int, end: int) -> int | None:
    """Return where text without a key begins, if there is any but words of the schema."""
    for token in _TOKEN.finditer(line, start, end):
        if token[0] not in vocabulary().words or is_secret_key(token[0]):
            return token.start()
    return None


def _brackets(line: str) -> Iterator[str]:
    return (match[0] for match in _BRACKET.finditer(_COMMENT.sub("", _QUOTED.sub("", line))))


def _is_balanced(lines: Iterable[str]) -> bool:
    """Return whether each bracket of a text is closed by its own kind."""
    expected: list[str] = []
    for line in lines:
        for bracket in _brackets(line):
            if bracket in "{[":
                expected.append("}" if bracket == "{" else "]")
            elif not expected or expected.pop() != bracket:
                return False
    return not expected


class _Outline:
    """Which lines belong to an unknown key of a line before: in a block of YAML, in brackets, or in a table of TOML."""

    def __init__(self, *, is_balanced: bool) -> None:
        self._is_balanced = is_balanced
        self._depth = 0
        self._owner: tuple[int, int] | None = None
        """The columns of an unknown key in a block: of the dash before it, if any, and its own."""
        self._outside: int | None = None
        """The depth of brackets at which the value of an unknown key ends."""
        self._is_waiting = False
        self._is_table_hidden = False
        self._is_table_in_doubt = False
        """Whether a damaged line may have been the name of a table."""

    def spans(self, line: str) -> list[tuple[int, int]]:
        """Return the hidden spans of the next line."""
        content = line.lstrip(" \t")
        if not content:
            return []
        start, before = len(line) - len(content), self._depth
        self._depth = max(before + sum(1 if bracket in "{[" else -1 for bracket in _brackets(line)), 0)
        if (table := _TABLE.match(line)) and self._is_free(before, table[1]):
            return self._of_table(line, table)
        top_key = _TOP_KEY.match(line)
        if top_key and top_key[1] in vocabulary().top_keys and not before and not line.endswith(","):
            self._owner, self._outside, self._is_table_in_doubt = None, None, False
        judged = _judged(line)
        is_hidden = self._is_hidden(line, start, before)
        if not is_hidden and (judged.is_owner or not content.startswith("#")):
            self._owner = (start, len(line) - len(line.lstrip(" \t-"))) if judged.is_owner else None
        if (is_hidden or judged.is_owner) and self._outside is None and (self._depth > before or not self._is_balanced):
            self._outside = before
        if self._outside is not None and self._is_balanced and self._depth <= self._outside:
            self._outside = None
        at_end = _TABLE_AT_END.search(line)
        if (judged.is_owner and not judged.has_key) or (at_end and not _is_known_table(at_end[1])):
            self._is_table_in_doubt = True
        self._is_waiting = judged.is_waiting
        return [(start, len(line))] if is_hidden else judged.spans(line)

    def _is_free(self, before: int, table: str) -> bool:
        """Return whether a line that looks like the name of a table is one, and no value of a key before it."""
        if self._is_balanced:
            return not before
        return self._outside is None or _is_known_table(table)

    def _of_table(self, line: str, table: re.Match[str]) -> list[tuple[int, int]]:
        self._is_table_hidden = not _is_known_table(table[1])
        self._depth, self._owner, self._outside = 0, None, None
        self._is_waiting = self._is_table_in_doubt = False
        shown = table.start(1) if self._is_table_hidden else table.start(2)
        return [(shown, len(line))] if shown >= 0 else []

    def _is_hidden(self, line: str, start: int, before: int) -> bool:
        """Return whether all of a line may be the value of a key before it, or under that key."""
        if self._is_table_hidden or self._outside is not None:
            return True
        if self._is_table_in_doubt and _ASSIGNMENT.match(line):
            return True
        if self._is_waiting and (before or line[start] in "{["):
            return True
        if self._owner is None:
            return False
        dash, column = self._owner
        return line[start] == "-" if start == column else start > dash


def _is_known_table(name: str) -> bool:
    return vocabulary().collections.issuperset(part.strip(" \t\"'") for part in name.split("."))
