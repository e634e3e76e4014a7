"""Hides what may be a secret in problems of documents that are not mappings.

A problem quotes its line, and values.  In a pipeline file, or a file that may become one, a value is shown only if the
schema of pipelines knows its key and the key is not that of a secret, also misspelt, or if no secret has such a value:
people add keys of other programs.  Text that has no tree is judged line by line, in the same way.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator, Sequence

from iggyflux.documents.line_masking import hidden_in_lines
from iggyflux.documents.nodes import Lines, Node, join_pointer, split_pointer
from iggyflux.documents.pipeline_keys import (
    Schema,
    expanded,
    is_key,
    is_plain,
    means_known_key,
    schemas_inside,
    takes_scalars,
    vocabulary,
)
from iggyflux.documents.schema import load_schema
from iggyflux.errors import Problem
from iggyflux.secrets import REFERENCE, Scrubber, is_secret_key, secret_spans, url_secrets

_OWN_KEYS = ("kind", "points", "messages", "for_each", "where", "examples")
"""Keys of mappings that pipelines do not have: one of them tells also what a document is that is not finished."""
_KEYS_OF_PIPELINES = ("run", "iggy", "influxdb")
_OWN_KEY_IN_TEXT = re.compile(rf"^[ \t{{\[]*[\"']?(?:{'|'.join(_OWN_KEYS)})\b", re.MULTILINE)
_KEY_OF_PIPELINES_IN_TEXT = re.compile(rf"^[ \t{{\[]*[\"']?(?:{'|'.join(_KEYS_OF_PIPELINES)})\b", re.MULTILINE)

_COMMENT = re.compile(r"#[ \t]*+([^ \t].*+)")
"""Or the rest of a value with this sign: a person may write anything in a comment."""
_PIECE = re.compile(r"[^\s{}\[\],'\"`]+")
_NARROW_PIECE = re.compile(r"[^\s{}\[\],'\"`=:*&!]+")
_RUN = re.compile(r"[0-9A-Za-z]{4}")
_OF_VALUES = re.compile(r"[\"'{}\[\]]")
"""A key with such a character is text that is damaged, with values in it."""
_AFTER_KEY = re.compile(r"['\"]?[ \t]*+[:=.\]]")
_FIXED_TEXTS = ("IFX111", "IFX814")
"""Their messages and hints have no text of the file, and a secret may be one of their words."""
_PROPOSAL = re.compile(r"did you mean `(.*)`\?")
_FEWEST = 4
"""Shorter texts are parts of many words."""
_AROUND = 10_000
"""A problem can quote so many characters before and after it, such as an open string."""


def is_mapping(tree: object) -> bool:
    """Return whether a tree is probably that of a mapping, whose values are not secret."""
    if not isinstance(tree, dict) or tree.keys() & {*_KEYS_OF_PIPELINES}:
        return False
    source = tree.get("from")  # of a pipeline it is a text
    return any(key in tree for key in _OWN_KEYS) or (isinstance(source, dict) and "topic" in source)


def is_mapping_text(text: str) -> bool:
    """Return whether a text without a tree is probably a mapping."""
    return _OWN_KEY_IN_TEXT.search(text) is not None and _KEY_OF_PIPELINES_IN_TEXT.search(text) is None


class Mask:
    """What problems of one text may not show: parts of the text, and other texts in any form.

    `by_line` says that the tree, if there is one, does not have all of the text.
    """

    def __init__(self, text: str, *, by_line: bool = False) -> None:
        self._text = text
        self._lines = Lines(text)
        self._by_line = by_line
        self._hidden = hidden_in_lines(text) if by_line else []
        self._spans: dict[int, list[tuple[int, int]]] = {}
        """Hidden parts of the text by the number of each line that they touch."""
        self._values: set[tuple[int, int]] = set()
        self._keys: dict[int, list[tuple[int, int]]] = {}
        """Keys of the schema by the number of their line: one with the text of a secret is shown."""
        self._texts: set[str] = set()
        self._scrub = Scrubber(())
        self._is_current = True

    def hide(self, start: int, end: int) -> None:
        """Hide a part of the text."""
        first, last = self._lines.place(start)[0], self._lines.place(max(start, end - 1))[0]
        for number in range(first, last + 1):
            self._spans.setdefault(number, []).append((start, end))

    def keep_key(self, start: int, end: int) -> None:
        """Show a key of the schema also if it has the text of a secret."""
        self._keys.setdefault(self._lines.place(start)[0], []).append((start, end))

    def add(self, *texts: str) -> None:
        """Hide texts, in every form."""
        self._texts.update(filter(None, texts))
        self._is_current = False

    def add_value(self, node: Node, *, is_secret: bool) -> None:
        """Hide a value: its place, its spelling, and itself; of an unknown key only if `is_telling`."""
        written = self._text[node.start : node.end]
        self._values.add((node.start, node.end))
        if REFERENCE.fullmatch(written):
            return
        self.hide(node.start, node.end)
        if node.value is None or isinstance(node.value, bool):
            return
        value = str(node.value)
        texts = {value, *value.splitlines(), written.strip("'\"")}
        self.add(*(text for text in texts if is_secret or is_telling(text)))

    def without_pointer(self, problem: Problem) -> Problem:
        """Return the problem with the hidden texts of its pointer masked: a key can have the text of a secret."""
        self._update()
        return scrub_pointer(problem, self._scrub)

    def hides(self, node: Node) -> bool:
        """Return whether the value of a node is hidden; what it refers to is then a secret."""
        return (node.start, node.end) in self._values

    def __call__(self, problem: Problem) -> Problem:
        """Return the problem without what is hidden."""
        self._update()
        scrub = self._scrub
        if self._by_line:
            scrub = Scrubber([*self._texts, *self._suspects(problem)])
        masked = problem if problem.code in _FIXED_TEXTS else scrub_texts(problem, scrub)
        is_changed = problem.caret is not None  # its line is hidden already, and has other columns than the text
        spans = [] if is_changed else self._spans_of(problem)
        return masked.hiding([*spans, *self._without_keys(problem, scrub.spans(problem.source or ""))])

    def _update(self) -> None:
        if not self._is_current:
            self._scrub, self._is_current = Scrubber(self._texts), True

    def _spans_of(self, problem: Problem) -> Iterator[tuple[int, int]]:
        source, line = problem.source or "", problem.location.line
        if self._by_line and line:
            yield from ((start, min(end, len(source))) for start, end in self._hidden[line - 1] if start < len(source))
        if comment := _COMMENT.search(source):
            yield comment.span(1)
        begin = self._lines.start(line) if line else 0
        end = begin + len(source)
        for first, last in self._spans.get(line or 0, ()):
            if first < end and begin < last:
                yield max(first - begin, 0), min(last, end) - begin

    def _without_keys(self, problem: Problem, spans: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
        """Yield the spans of a problem's line that are not parts of a key of the schema."""
        line, source = problem.location.line, problem.source or ""
        keys = self._keys.get(line, ())
        begin = self._lines.start(line) if line else 0
        is_changed = problem.caret is not None  # its columns are others, and its values were hidden where they are
        texts = {self._text[start:end].strip("'\"") for start, end in keys if is_changed}
        for start, end in spans:
            is_word = source[start:end] in texts and _AFTER_KEY.match(source, end) is not None
            is_place = any(first <= begin + start and begin + end <= last for first, last in keys)
            if not (is_word if is_changed else is_place):
                yield start, end

    def _suspects(self, problem: Problem) -> Iterator[str]:
        """Yield the hidden texts around a problem that it may quote."""
        said = " ".join(filter(None, (problem.message, problem.expected, problem.found, problem.hint)))
        line, column = problem.location.line or 1, problem.location.column or 1
        place = self._lines.start(line) + column
        first, last = max(place - _AROUND, 0), min(place + _AROUND, len(self._text))
        for number in range(self._lines.place(first)[0], self._lines.place(last)[0] + 1):
            begin = self._lines.start(number)
            for start, end in self._hidden[number - 1]:
                part = self._text[max(begin + start, first) : min(begin + end, last)].strip(" \t'\"{}[],")
                for text in (part, *_PIECE.findall(part), *_NARROW_PIECE.findall(part)):
                    begins = [run[0] for run in _RUN.finditer(text)] or [text]
                    if is_telling(text) and any(each in said for each in begins) and not REFERENCE.match(text):
                        yield text


def scrub_texts(problem: Problem, scrub: Scrubber) -> Problem:
    """Return a problem without the secrets of `scrub` in what it says of the file; its line stays as it is.

    What is expected, and a word of the schema that is proposed, are the same whatever the file holds: they are shown
    also if a secret is one of their words.  Hidden there, what is missing from a known list would show it.
    """
    proposed = _PROPOSAL.fullmatch(problem.hint or "")
    is_fixed = proposed is not None and proposed[1] in vocabulary().words
    return dataclasses.replace(
        problem,
        message=scrub(problem.message),
        found=problem.found and scrub(problem.found),
        hint=problem.hint if is_fixed else problem.hint and _without_secrets(problem.hint, scrub),
    )


def _without_secrets(hint: str, scrub: Scrubber) -> str | None:
    """Return a hint, or what it advises before it quotes: one with masked words in it is hardly of use."""
    advice, _, _ = hint.partition(": ")
    return next((each for each in (hint, advice) if scrub(each) == each), None)


def scrub_pointer(problem: Problem, scrub: Scrubber) -> Problem:
    """Return a problem without the secrets of `scrub` in its pointer; a word of the schema tells none."""
    words = vocabulary().words
    parts = split_pointer(problem.location.pointer)
    pointer = "".join(join_pointer("", part if part in words else scrub(part)) for part in parts)
    return dataclasses.replace(problem, location=dataclasses.replace(problem.location, pointer=pointer))


def mask_of(root: Node, text: str, *, by_line: bool) -> Mask:
    """Return the mask of a text with a tree: the values of keys that pipelines do not have, or have for secrets."""
    mask = Mask(text, by_line=by_line)
    waiting: list[tuple[Node, Sequence[Schema], bool, bool]] = [
        (root, expanded([load_schema("pipeline")]), False, False)
    ]
    seen: set[tuple[object, ...]] = set()
    while waiting:
        node, schemas, is_secret, is_meant = waiting.pop()
        state = (id(node), is_secret, is_meant, *map(id, schemas))
        if state in seen:  # an alias
            continue
        seen.add(state)
        if node.children:
            for key, child in node.children.items():
                inner = schemas_inside(schemas, key)
                if key in node.keys and is_key(schemas, key):
                    mask.keep_key(*node.keys[key])
                if isinstance(key, str) and _OF_VALUES.search(key) and key in node.keys:
                    mask.hide(*node.keys[key])
                    mask.add(key, *filter(is_telling, _PIECE.findall(key)))
                is_hidden = is_secret or (isinstance(key, str) and is_secret_key(key))
                waiting.append((child, inner, is_hidden, not inner and means_known_key(schemas, key)))
        elif not isinstance(node.value, (dict, list)):
            is_known = is_meant or is_plain(node.value) or any(takes_scalars(schema) for schema in schemas)
            if is_secret or not is_known:
                mask.add_value(node, is_secret=is_secret)
            elif isinstance(node.value, str):
                suspected = (node.value[start:end] for start, end in secret_spans(node.value))
                for part in {*url_secrets(node.value), *suspected}:
                    mask.add(part)
                    at = text.find(part, node.start, node.end)
                    mask.hide(*((at, at + len(part)) if at >= 0 else (node.start, node.end)))
    return mask


def is_telling(text: str) -> bool:
    """Return whether the text may be hidden wherever it occurs: neither short nor a word of the schema."""
    words = vocabulary().words
    return len(text) >= _FEWEST and text not in words and text.strip(":=").lower() not in words
