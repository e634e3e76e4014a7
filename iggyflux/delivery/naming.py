"""Which lines a server's words mean: by number, by quoting them, or only by what they complain about.

What is quoted is compared with exactly what was sent, never split apart: a line may hold anything, also the server's
own phrases.  Where that leaves a doubt, nothing is named, and the lines are told apart by sending them.
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
# What a server echoes was made by whoever sends messages: looking through it must end, even if it was made to be slow.
_MOST_LOOKS = 200_000
_MOST_CONFLICT = 8192
_NUMBERED = re.compile(r"error parsing line (\d{1,9}) \(1-based\): ?([^\n]*)")
_TRAILER = re.compile(r" dropped=0\s*\Z")


def lines_numbered(entries: Sequence[Any], lines: Sequence[str]) -> dict[int, str]:
    """Index → why, for entries `{line_number, error_message}`; empty where one of them fits no line.

    The server counts from 1, and neither blank lines nor comments.
    """
    # Whatever may be ignored is empty or begins with a line feed, a space or `#`: all of them sort low.
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
class Named:
    """Index → why.  `all_exact` is false where a quotation held more than one line: others are not stored either."""

    whys: dict[int, str]
    all_exact: bool


def lines_named(message: str, lines: Sequence[str]) -> Named | None:
    """The lines that `message` quotes as unparsable, or None where it leaves a doubt."""
    if _QUOTE in message:
        return _quoted(message, lines)
    if any("\n" in line or is_ignored(line) for line in lines):
        return None  # a line feed inside of a string may be counted as a line by whoever wrote this message
    whys: dict[int, str] = {}
    for number, why in _NUMBERED.findall(message):
        if not 0 < int(number) <= len(lines):
            return None
        whys[int(number) - 1] = why or "refused"
    return Named(whys, all_exact=False) if whys else None


def _quoted(message: str, lines: Sequence[str]) -> Named | None:
    indices: dict[str, list[int]] = {}
    for index, line in enumerate(lines):
        indices.setdefault(line, []).append(index)
    longest = max(map(len, lines), default=0)
    whys: dict[int, str] = {}
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
            whys[index] = _TRAILER.sub("", why)
        at = following + 1 if following >= 0 else -1
    return Named(whys, all_exact)


# --- schema conflicts, and who is suspect ---

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
    """The types that `message` says do not go together; `line` is the line it speaks of, where that is known."""
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
    """The measurement of a line, as a person knows it."""
    found = re.match(r"(?:\\.|[^,\\ ])*", line)
    return re.sub(r"\\([, ])", r"\1", found.group()) if found else ""


def suspects_of(message: str, lines: Sequence[str], dropped: int) -> tuple[int, ...]:
    """The lines that `message` may complain about, the most likely where it can be told, in the order to send them.

    Empty where the words do not help.
    """
    for pattern, choose in _SUSPECTS:
        found = pattern.search(message)
        if found is not None:
            return tuple(choose(found, lines, dropped))
    return ()


def _of_type(found: re.Match[str], lines: Sequence[str], _dropped: int) -> list[int]:
    """Lines with this field in this type; by time, since one shard refuses them all and another none."""
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
    """As many of the oldest as were dropped, oldest first."""
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
    (re.compile(r"is too long, \d+ > (\d{1,12})|max key length exceeded: \d+ > (?=(\d{1,12}))"), _longest),
)
