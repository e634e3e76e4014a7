"""Exceptions, sorted by who must act, and `Problem`, the form in which a fault of a document is reported.

A problem has a code, a place, an expectation, a finding and a hint.  This module knows nothing of documents, servers or
terminals: the code that finds a problem creates it, and the command line prints it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from iggyflux.escapes import escaped

if TYPE_CHECKING:
    from pathlib import Path


class IggyfluxError(Exception):
    """The base class of every exception that iggyflux raises on purpose."""


_LONGEST_SOURCE = 160
"""The most characters of a source line that are shown: a document of one line may have a million."""


@dataclass(frozen=True, slots=True)
class Location:
    """A place in a document.

    `line` and `column` count from 1; 0 means unknown.  `pointer` is an RFC 6901 JSON pointer.
    """

    file: str | None = None
    line: int = 0
    column: int = 0
    pointer: str = ""

    def __str__(self) -> str:
        place = self.file or "<document>"
        return f"{place}:{self.line}:{self.column}" if self.line else place


@dataclass(frozen=True, slots=True)
class Edit:
    """A change of a document: `text` replaces the characters from offset `start` to `end` of its text."""

    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True)
class Fix:
    """What would end a problem: `title` says it to a person.

    If `safe`, the document then says what it can only have meant; else an author has to decide.
    """

    title: str
    edits: tuple[Edit, ...]
    safe: bool = True


@dataclass(frozen=True, slots=True)
class Problem:
    """A fault of a document, or as a warning a doubtful part of it.

    `code` is stable (`IFX101`) and has a section in docs/errors.md.  `source` is the line of text at `location`; the
    caret underlines `length` characters from its column.  `caret` is the column in `source` if it differs from the
    column in the file because text before it is hidden.  `fix` is a change that ends it, if there is a certain one.
    """

    code: str
    message: str
    location: Location = field(default_factory=Location)
    expected: str | None = None
    found: str | None = None
    hint: str | None = None
    source: str | None = None
    length: int = 1
    severity: Literal["error", "warning"] = "error"
    caret: int | None = None
    fix: Fix | None = None

    def __str__(self) -> str:
        return self.render()

    def render(self) -> str:
        """Return the text form without colours: place, code and message, the source line with a caret, the hints."""
        lines = [f"{_shown(str(self.location))}: {self.severity}[{self.code}]: {_shown(self.message)}"]
        if self.location.pointer:
            lines[0] += f" (at {_shown(self.location.pointer)})"
        if self.source is not None and self.location.line:
            number = str(self.location.line)
            source, before = _window(self.source, max((self.caret or self.location.column) - 1, 0))
            indent = "".join("\t" if character == "\t" else " " for character in source[:before])
            carets = "^" * max(min(self.length, len(source) - before), 1)
            lines.append(f"  {number} | {escaped(source)}")
            lines.append(f"  {' ' * len(number)} | {indent}{carets}")
        for label, text in (("expected", self.expected), ("found", self.found), ("hint", self.hint)):
            if text:
                lines.append(f"    {label}: {_shown(text)}")
        return "\n".join(lines)

    def hiding(self, spans: Iterable[tuple[int, int]]) -> Problem:
        """Return the problem with `***` for each of `spans` of its source line, which hides their lengths too."""
        if self.source is None:
            return self
        shown, at, places = "", 0, []
        for start, end in _merged(spans):
            places.append((start, end, len(shown) + start - at))
            shown += f"{self.source[at:start]}***"
            at = end
        if not places:
            return self
        first = (self.caret or self.location.column) - 1
        start, end = _moved(first, places, after=False), _moved(first + self.length, places, after=True)
        length = max(end - start, 1)
        return replace(self, source=shown + self.source[at:], caret=start + 1, length=length)

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form that `validate --format json` prints."""
        return {
            "code": self.code,
            "severity": self.severity,
            "message": self.message,
            "file": self.location.file,
            "line": self.location.line,
            "column": self.location.column,
            "length": self.length,
            "pointer": self.location.pointer,
            "expected": self.expected,
            "found": self.found,
            "hint": self.hint,
        }


def _merged(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        elif end > start:
            merged.append((start, end))
    return merged


def _moved(offset: int, places: Sequence[tuple[int, int, int]], *, after: bool) -> int:
    """Return the place of `offset` in a line in which three stars replace each of `places`.

    An offset inside of a place moves to its start, or to its end if `after`.
    """
    moved = offset
    for start, end, shown in places:
        if offset >= end:
            moved = shown + 3 + offset - end
        elif offset > start or (offset == start and not after):
            moved = shown + 3 * after
    return moved


def _window(source: str, before: int) -> tuple[str, int]:
    """Return the part of a line that is shown, and the place of the character at `before` in that part."""
    if len(source) <= _LONGEST_SOURCE:
        return source, before
    start = max(0, min(before - _LONGEST_SOURCE // 2, len(source) - _LONGEST_SOURCE))
    end = start + _LONGEST_SOURCE
    left, right = "…" if start else "", "…" if end < len(source) else ""
    return f"{left}{source[start:end]}{right}", before - start + len(left)


def _shown(text: str) -> str:
    """Return `text` on one line with control characters escaped: a document may quote anything."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


class DocumentError(IggyfluxError):
    """A document that cannot be used; `problems` holds all its faults.  The author must act."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems: tuple[Problem, ...] = tuple(problems)
        super().__init__("\n".join(problem.render() for problem in self.problems))


class MappingError(DocumentError):
    """A mapping document that does not compile.

    `files` are those that the document names: it may compile when one of them has changed.
    """

    def __init__(self, problems: Iterable[Problem], files: Iterable[Path] = ()) -> None:
        super().__init__(problems)
        self.files = tuple(files)


class PipelineError(DocumentError):
    """A pipeline file that cannot be run."""


class ExpressionError(IggyfluxError):
    """An expression that does not compile.

    `position` is the 0-based offset in `text`, in characters; `length` is the number of characters at fault.
    `instead` is what was probably meant in their place.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str,
        text: str,
        position: int = 0,
        length: int = 1,
        hint: str | None = None,
        instead: str | None = None,
    ) -> None:
        self.message = message
        self.code = code
        self.text = text
        self.position = position
        self.length = length
        self.hint = hint
        self.instead = instead
        caret = " " * position + "^" * max(length, 1)
        super().__init__(f"{message}\n  {text}\n  {caret}" + (f"\n  hint: {hint}" if hint else ""))


class RecordError(IggyfluxError):
    """A record that cannot be mapped.

    `code` and `reason` say why; `location` is a JSON pointer into the mapping document; `hint` is what would help in
    this document, or None; `payload_line` is the line of the payload that it is about, counted from 1, if that is
    known.  The policy `on_error` says what the runner does.  Other records of the same message are still mapped.
    """

    def __init__(
        self, code: str, reason: str, location: str = "", hint: str | None = None, *, payload_line: int | None = None
    ) -> None:
        self.code = code
        self.reason = reason
        self.location = location
        self.hint = hint
        self.payload_line = payload_line
        super().__init__(f"{code}: {reason}" + (f" (at {location})" if location else ""))

    def at(self, location: str) -> RecordError:
        """Set `location` if there is none yet, and return this error."""
        if not self.location:
            self.location = location
        return self


class EvaluationError(RecordError):
    """An expression that fails on a document."""


class DecodeError(RecordError):
    """A payload that is not in its declared format; `find_place` finds where (iggyflux/payloads/places.py)."""

    find_place: Callable[[], Any] | None = None


class PartlyDecoded(DecodeError):
    """A payload of which some parts are not in its declared format, one of `errors` each; `value` has the others.

    As a `DecodeError` it is the first of `errors`.
    """

    def __init__(self, value: Any, errors: Sequence[DecodeError]) -> None:
        self.value = value
        self.errors = errors
        first = errors[0]
        super().__init__(first.code, first.reason, hint=first.hint, payload_line=first.payload_line)


class LineProtocolError(IggyfluxError):
    """Text that is not line protocol.

    `line` and `column` count from 1, columns in bytes; `reason` says what is wrong.
    """

    def __init__(self, reason: str, line: int, column: int) -> None:
        self.reason = reason
        self.line = line
        self.column = column
        super().__init__(f"line {line}, column {column}: {reason}")


class PointError(RecordError):
    """A measurement, tag, field or time that line protocol, or the plan's dialect, cannot represent faithfully."""


class TransportError(IggyfluxError):
    """A failure of a remote system.  The runner retries with backoff."""


class NotConnected(TransportError):
    """There is no connection: connect again with backoff.

    `retry_after_seconds` is how long the server asked clients to wait, `server` the address of the server, if known.
    """

    server: str | None = None

    def __init__(self, reason: str = "", *, retry_after_seconds: float | None = None) -> None:
        self.retry_after_seconds = retry_after_seconds
        super().__init__(reason)

    @property
    def named(self) -> str:
        """The reason, with the address of the server."""
        return f"{self.server}: {self}" if self.server else str(self)

    @property
    def briefly(self) -> str:
        """What failed, without the words of the server."""
        return f"{self.server or 'a server'}: not connected"


class TooMuch(TransportError):
    """A query whose result is too large for one answer: query a shorter span."""


class TooSlow(TooMuch):
    """A query that a reachable server did not answer in time: too large, or the server was slow."""


class EndOfInput(IggyfluxError):
    """The source has no more messages and will never have any; this is not a fault."""


class Stopped(IggyfluxError):
    """The run cannot continue (exit code 3).

    Nothing in flight is acknowledged.  `hint` says what the user can do.
    """

    def __init__(self, reason: str, hint: str | None = None, code: str = "IFX600") -> None:
        self.reason = reason
        self.hint = hint
        self.code = code
        super().__init__(reason + (f" ({hint})" if hint else ""))


def counted(count: int, noun: str, many: str | None = None) -> str:
    """Return a number with its noun: `1 message`, `2,000 messages`."""
    return f"{count:,} {noun if count == 1 else many or noun + 's'}"


MOST_LISTED = 10


def listed(names: Iterable[str], word: str) -> str:
    """Return `names` as a list for a hint: those most similar to `word` first, and at most 10."""
    import difflib

    folded = word.lower()
    ordered = sorted(names, key=lambda each: (-difflib.SequenceMatcher(None, folded, each[:200].lower()).ratio(), each))
    more = f" and {len(ordered) - MOST_LISTED:,} more" if len(ordered) > MOST_LISTED else ""
    return ", ".join(ordered[:MOST_LISTED]) + more


def closest(word: str, candidates: Sequence[str], *, likeness: float = 0.6) -> str | None:
    """Return the candidate that is most similar to `word`, or None; `likeness` from 0 to 1 is the least that counts."""
    import difflib

    matches = difflib.get_close_matches(word, candidates, n=1, cutoff=likeness)
    if matches:
        return matches[0]
    folded = {candidate.lower(): candidate for candidate in candidates}
    return folded.get(word.lower())
