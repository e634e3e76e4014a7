"""In which form values are times: since 1970, RFC 3339, or a pattern.  The order of day and month is not guessed."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Final, TypeAlias

from iggyflux.timestamps import (
    UNITS_NS,
    TimestampError,
    check_pattern,
    likely_unit,
    parse_flexible,
    parse_pattern,
    parse_rfc3339,
)

Scalar: TypeAlias = str | int | float | bool

NOT_TOLD: Final = "UTC"
"""The zone of times without an offset, unless one is given; the mapping says that it was assumed."""

MOST_READ: Final = 1_000
"""So many different texts decide, but for the order of day and month; the proof of the mapping reads all of them."""

RARE: Final = 0.01
"""No more than this part of the times may be none, as those of the hour that a change of clocks makes twice."""

DECIDING: Final = 10
"""So many more failures of one order of day and month decide for the other one."""

_NUMBER: Final = re.compile(r"-?[0-9]{1,30}(?:\.[0-9]{1,30})?", re.ASCII)
_TEXT: Final = re.compile(
    r"(?P<weekday>[A-Z][a-z]{2}, )?"
    r"(?:(?P<year>[0-9]{4})(?P<a>[-/.])[0-9]{1,2}(?P=a)[0-9]{1,2}"
    r"|(?P<compact>[0-9]{8})"
    r"|[0-9]{1,2}(?P<b>[-/.])[0-9]{1,2}(?P=b)(?P<end>[0-9]{4}|[0-9]{2})"
    r"|[0-9]{1,2}(?P<c>[ /-])(?P<month>[A-Z][a-z]{2})(?P=c)[0-9]{4}"
    r"|(?P<american>[A-Z][a-z]{2}) [0-9]{1,2}(?P<comma>,?) [0-9]{4})"
    r"(?:(?P<between>T|:|,? {1,2}|_)"
    r"(?:(?P<hour>[0-9]{1,2})(?P<colon>[:.])[0-9]{2}(?P<second>(?P=colon)[0-9]{2})?|(?P<clock>[0-9]{6}))"
    r"(?P<fraction>\.[0-9]{1,9})?(?P<half> ?[AP]M)?(?P<offset> ?(?:Z|[+-][0-9]{2}:?[0-9]{2}))?)?"
)


@dataclass(frozen=True, slots=True)
class Clock:
    """How a time is written: `format` and `timezone` are those of a mapping's `timestamp`.

    `other` is a format that suits all values as well, with day and month swapped: a person must choose.  `day` is the
    day of one of the values, where a unit was chosen by it.
    """

    format: str
    timezone: str | None = None
    other: str | None = None
    day: str = ""


def clock_of(values: Sequence[Scalar], zone: str | None = None) -> Clock | None:
    """Return how all of `values` are written as times, or all texts but a few; None if they are not."""
    return _clock_of(values, zone, 0.0) or _clock_of(values, zone, RARE)


def _clock_of(values: Sequence[Scalar], zone: str | None, rare: float) -> Clock | None:
    if not values or any(isinstance(value, bool) for value in values):
        return None
    numbers = [value for value in values if not isinstance(value, str)]
    if len(numbers) == len(values):
        return _unit_of(numbers)
    texts = [value for value in values if isinstance(value, str)]
    if len(texts) != len(values):
        return None
    if compact := _compact_of(texts, zone or NOT_TOLD):
        return compact
    if all(map(_NUMBER.fullmatch, texts)) and (unit := _unit_of([float(text) for text in texts])):
        return unit
    written = [text for text in texts if _TEXT.fullmatch(text)]
    is_written = bool(written) and len(texts) - len(written) <= rare * len(texts)
    if _are_times(written if is_written else texts, parse_rfc3339, rare):
        return Clock("rfc3339")
    return _pattern_of(written, zone or NOT_TOLD, rare) if is_written else None


_DAY: Final = re.compile(
    r"[0-9]{4}(?:[-/.][0-9]{1,2}){2}|[0-9]{8}|[0-9]{1,2}([-/. ])(?:[0-9]{1,2}|[A-Z][a-z]{2})\1[0-9]{2,4}"
)
_TIME_OF_DAY: Final = re.compile(r"[0-9]{1,2}([:.])[0-9]{2}(?:\1[0-9]{2}(?:\.[0-9]{1,9})?)?(?: ?[AP]M)?")


def are_days(values: Sequence[Scalar]) -> bool:
    """Return whether all of `values` are texts of days without a time of day."""
    return bool(values) and all(isinstance(value, str) and _DAY.fullmatch(value) for value in values)


def are_times_of_day(values: Sequence[Scalar]) -> bool:
    """Return whether all of `values` are texts such as 13:05:00."""
    return bool(values) and all(isinstance(value, str) and _TIME_OF_DAY.fullmatch(value) for value in values)


_COMPACT: Final = {8: "%Y%m%d", 10: "%Y%m%d%H", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}
"""The patterns of digits alone, by their number."""


def _compact_of(texts: Sequence[str], zone: str) -> Clock | None:
    """Return the pattern of digits alone, such as 2026030207, which would hardly be a time by chance in all texts."""
    pattern = _COMPACT.get(len(texts[0]))
    if pattern is None or not all(re.fullmatch(r"(?:19|20)[0-9]{2}(?:0[1-9]|1[0-2])[0-9]*", text) for text in texts):
        return None
    is_right = _are_times(texts, partial(parse_pattern, pattern=pattern, zone=zone))
    return Clock(pattern, zone) if is_right and len({len(text) for text in texts}) == 1 else None


def suits(values: Sequence[Scalar], form: str, zone: str | None) -> bool:
    """Return whether all of `values`, or all texts but a few, are times in a chosen format."""
    if form in UNITS_NS:
        return all(not isinstance(v, bool) and (not isinstance(v, str) or _NUMBER.fullmatch(v)) for v in values)
    texts = [value for value in values if isinstance(value, str)]
    named: dict[str, Callable[[str], int]] = {
        "rfc3339": parse_rfc3339,
        "flexible": partial(parse_flexible, zone=zone or NOT_TOLD),
    }
    read = named.get(form) or partial(parse_pattern, pattern=form, zone=zone or NOT_TOLD)
    return len(texts) == len(values) and _are_times(texts, read, RARE)


def needs_zone(form: str) -> bool:
    """Return whether times of a format name no zone themselves.  Raise TimestampError for an invalid pattern."""
    return form == "flexible" or ("%" in form and not check_pattern(form))


def _unit_of(values: Sequence[float]) -> Clock | None:
    """Return the one unit in which all values are plausible (the years 1990 to 2099)."""
    found = [likely_unit(value) for value in (min(values), max(values))]
    if None in found or len({each[0] for each in found if each}) != 1:
        return None
    unit, day = found[0] or ("", "")
    return Clock(unit, day=day)


def _are_times(texts: Sequence[str], read: Callable[[str], int], rare: float = 0.0) -> bool:
    looked = list(islice(dict.fromkeys(texts), MOST_READ))
    failures = 0
    for text in looked:
        try:
            read(text)
        except TimestampError:
            failures += 1
            if failures > rare * len(looked):
                return False
    return True


def _pattern_of(texts: Sequence[str], zone: str, rare: float) -> Clock | None:
    """Return the pattern of texts; `flexible` where they are of several, such as with and without a fraction."""
    patterns = _patterns_of(max(texts, key=len))
    suiting = [
        pattern for pattern in patterns if _are_times(texts, partial(parse_pattern, pattern=pattern, zone=zone), rare)
    ]
    if not suiting:
        is_certain = len(patterns) == 1 and _are_times(texts, partial(parse_flexible, zone=zone), rare)
        return Clock("flexible", zone) if is_certain else None
    chosen, *others = _fewest_failures(texts, suiting, zone) if len(suiting) > 1 else suiting
    return Clock(chosen, zone if needs_zone(chosen) else None, *others)


def _fewest_failures(texts: Sequence[str], patterns: Sequence[str], zone: str) -> list[str]:
    """Return the patterns by which most of all texts are times: the first days of a month do not decide."""
    failures = dict.fromkeys(patterns, 0)
    for text in dict.fromkeys(texts):
        for pattern in patterns:
            failures[pattern] += not _are_times([text], partial(parse_pattern, pattern=pattern, zone=zone))
        if max(failures.values()) - min(failures.values()) >= DECIDING:
            break
    return [pattern for pattern in patterns if failures[pattern] == min(failures.values())]


def _patterns_of(text: str) -> list[str]:
    """Return the pattern of a text of the form `_TEXT`; two of them if the day or the month may come first."""
    found = _TEXT.fullmatch(text)
    assert found is not None  # noqa: S101  (the caller looked)
    part = found.groupdict(default="")
    year = "%Y" if len(part["end"]) == 4 else "%y"
    if part["year"]:
        dates = [part["a"].join(("%Y", "%m", "%d"))]
    elif part["compact"]:
        dates = ["%Y%m%d"]
    elif part["b"]:
        dates = [part["b"].join(("%d", "%m", year)), part["b"].join(("%m", "%d", year))]
    elif part["month"]:
        dates = [part["c"].join(("%d", "%b", "%Y"))]
    else:
        dates = [f"%b %d{part['comma']} %Y"]
    hour = "%I" if part["half"] else "%H"
    colon = part["colon"]
    clock = f"{hour}{colon}%M{f'{colon}%S' if part['second'] else ''}" if part["hour"] else ""
    clock = clock or ("%H%M%S" if part["clock"] else "")
    rest = f"{part['between']}{clock}{'.%f' if part['fraction'] else ''}"
    if part["half"]:
        rest += part["half"][:-2] + "%p"
    if part["offset"]:
        rest += " %z" if part["offset"][0] == " " else "%z"
    return [f"{'%a, ' if part['weekday'] else ''}{date}{rest if clock else ''}" for date in dates]
