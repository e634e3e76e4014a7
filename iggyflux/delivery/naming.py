"""Which lines a server's message means: by number, by quoting them, or only by what it complains about.

A quotation is compared with exactly what was sent and never split: a line may contain anything, even the server's
own phrases.  Where a doubt remains no line is named, and delivery finds the line by sending parts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from iggyflux.delivery.lines import is_ignored, line_bytes
from iggyflux.delivery.verdicts import SchemaConflict

_QUOTE = "unable to parse '"
_QUOTE_END = "': "
# A server echoes texts that any sender of messages can choose.  The search through them is bounded.
_MOST_LOOKS = 200_000
_MOST_CONFLICT = 8192
_NUMBERED = re.compile(r"error parsing line (\d{1,9}) \(1-based\): ?([^\n]*)")
_TRAILER = re.compile(r" dropped=0\s*\Z")


def lines_numbered(entries: Sequence[Any], lines: Sequence[str]) -> dict[int, str]:
    """Return index → reason, for entries `{line_number, error_message}`; empty if an entry matches no line.

    The server counts from 1, and skips blank lines and comments.
    """
    # A line that a server may skip is empty or begins with a line feed, a space or `#`: all of them sort low.
    counted: Sequence[int] = range(len(lines))
    if min(lines, default="") < "$":
        counted = [index for index, line in enumerate(lines) if not is_ignored(line)]
    found: dict[int, str] = {}
    for entry in entries:
        number = entry.get("line_number") if isinstance(entry, Mapping) else None
        if not isinstance(number, int) or isinstance(number, bool) or not 0 < number <= len(counted):
            return {}
        found[counted[number - 1]] = str(entry.get("error_message") or "refused")
    return found


@dataclass(frozen=True, slots=True)
class NamedLines:
    """Index → reason.  `all_exact` is false where a quotation held more than one line: the others are not stored."""

    reasons: dict[int, str]
    all_exact: bool


def lines_named(message: str, lines: Sequence[str]) -> NamedLines | None:
    """Return the lines that `message` quotes as unparsable, or None if there is a doubt."""
    if _QUOTE in message:
        return _quoted(message, lines)
    if any("\n" in line or is_ignored(line) for line in lines):
        return None  # the server may count a line feed inside a string as a new line
    reasons: dict[int, str] = {}
    for number, why in _NUMBERED.findall(message):
        if not 0 < int(number) <= len(lines):
            return None
        reasons[int(number) - 1] = why or "refused"
    return NamedLines(reasons, all_exact=False) if reasons else None


def _quoted(message: str, lines: Sequence[str]) -> NamedLines | None:
    indices: dict[str, list[int]] = {}
    for index, line in enumerate(lines):
        indices.setdefault(line, []).append(index)
    longest = max(map(len, lines), default=0)
    reasons: dict[int, str] = {}
    all_exact = True
    lengths = frozenset(map(len, indices))
    looks = _MOST_LOOKS
    at = message.find(_QUOTE)
    while at >= 0:
        start = at + len(_QUOTE)
        ends = []
        end = message.find(_QUOTE_END, start)
        while 0 <= end <= start + longest:
            looks -= 1
            if end - start in lengths and message[start:end] in indices:
                ends.append(end)
            end = message.find(_QUOTE_END, end + 1)
            if looks < 0:
                return None
        if len(ends) > 1:
            return None
        if ends:
            line, after = message[start : ends[0]], ends[0] + len(_QUOTE_END)
        else:
            # An unbalanced quote swallows the lines that follow: the first one is the culprit.
            line, after = message[start : message.find("\n", start)], start
            all_exact = False
            if "\n" not in message[start:] or line not in indices:
                return None
        following = message.find("\n" + _QUOTE, after)
        why = message[after : following if following >= 0 else None] if ends else "a string that does not end"
        for index in indices[line]:
            reasons[index] = _TRAILER.sub("", why)
        at = following + 1 if following >= 0 else -1
    return NamedLines(reasons, all_exact)


# --- schema conflicts, and the lines that a message may mean ---

# These are the servers' own words: InfluxDB 1.x and 2.x, then 3.x.
_CONFLICT = re.compile(
    r'input field "(.*?)" on measurement "(.*?)" is type (\w+), already exists as type (\w+)', re.DOTALL
)
_COLUMN_CONFLICT = re.compile(
    r"invalid column type for column '(.*?)', expected ([\w:]+), got ([\w:]+)",
    re.DOTALL,
)
_TYPES = {"timestamp": "the time", "uinteger": "unsigned", "bool": "boolean"}


def find_conflicts(message: str, *, line: str | None = None) -> tuple[SchemaConflict, ...]:
    """Return the pairs of types that `message` reports as conflicting; `line` is the line it is about, if known."""
    message = message[:_MOST_CONFLICT]
    found = [
        SchemaConflict(measurement, key, _type(sent), _type(stored))
        for key, measurement, sent, stored in _CONFLICT.findall(message)
    ]
    found += [
        SchemaConflict(_measurement(line or ""), key, _type(sent), _type(stored))
        for key, stored, sent in _COLUMN_CONFLICT.findall(message)
    ]
    return tuple(dict.fromkeys(found))


def _type(word: str) -> str:
    word = word.rpartition("::")[2].lower()
    return _TYPES.get(word, word)


def _measurement(line: str) -> str:
    """Return the unescaped measurement of a line."""
    found = re.match(r"(?:\\.|[^,\\ ])*", line)
    return re.sub(r"\\([, ])", r"\1", found.group()) if found else ""


def suspects_of(message: str, lines: Sequence[str], dropped: int) -> tuple[int, ...]:
    """Return the lines that `message` may complain about, most likely first, in the order to send them.

    Empty if the words do not help.
    """
    for pattern, choose in _SUSPECTS:
        found = pattern.search(message)
        if found is not None:
            return tuple(choose(found, lines, dropped))
    return ()


def _of_type(found: re.Match[str], lines: Sequence[str], _dropped: int) -> list[int]:
    """Return the lines with this field in this type, by time: a shard rejects all of them or none."""
    key, measurement, sent, _stored = found.groups()
    value = _VALUES.get(_type(sent))
    if value is None:
        return []
    start = re.sub(r"([, ])", r"\\\1", measurement)
    heads = (start + ",", start + " ")
    field = re.compile("[ ,]" + re.escape(re.sub(r"([,= ])", r"\\\1", key)) + "=" + value)
    chosen = [index for index, line in enumerate(lines) if line.startswith(heads) and field.search(line)]
    return sorted(chosen, key=lambda index: _time(lines[index]))


def _oldest(_found: re.Match[str], lines: Sequence[str], dropped: int) -> list[int]:
    """Return as many of the oldest lines as were dropped, oldest first."""
    return sorted(range(len(lines)), key=lambda index: _time(lines[index]))[: max(dropped, 1)]


def _longest(found: re.Match[str], lines: Sequence[str], _dropped: int) -> list[int]:
    return [index for index, line in enumerate(lines) if line_bytes(line) > int(found.group(1))]


def _time(line: str) -> int:
    word = line[line.rfind(" ") + 1 :]
    return int(word) if re.fullmatch(r"-?\d{1,19}", word) else 0


_VALUES = {
    "string": '"',
    "integer": r"-?\d+i",
    "unsigned": r"\d+u",
    "float": r"-?[\d.][-+.\deE]*(?=[, ]|\Z)",
    "boolean": r"[tTfF]",
}
_SUSPECTS: tuple[tuple[re.Pattern[str], Callable[[re.Match[str], Sequence[str], int], list[int]]], ...] = (
    (_CONFLICT, _of_type),
    (re.compile(r"beyond retention|outside retention"), _oldest),
    (re.compile(r"(?:is too long,|max key length exceeded:) \d+ > (\d{1,12})"), _longest),
)
