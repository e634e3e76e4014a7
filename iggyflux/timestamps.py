"""Times as exact integers of nanoseconds since the epoch, from every form that a document may declare.

No time passes through a float, the wall clock, the locale or the machine's zone: a text is the same integer on every
machine.  A value that does not name exactly one instant in the range of int64 nanoseconds raises `TimestampError`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

from iggyflux.errors import closest
from iggyflux.lineprotocol.checks import MAX_NS, MIN_NS, shorten

__all__ = [
    "MAX_NS",
    "MIN_NS",
    "UNITS_NS",
    "DateParts",
    "TimestampError",
    "check_pattern",
    "date_parts",
    "format_rfc3339",
    "format_time",
    "likely_unit",
    "load_zone",
    "parse_flexible",
    "parse_pattern",
    "parse_rfc3339",
    "scale_number",
]

SECOND = 1_000_000_000
_MINUTE = 60 * SECOND
_DAY = 24 * 60 * _MINUTE
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001  (calendar arithmetic; the zone is applied as an offset)
_EPOCH_UTC = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_ORDINAL = date(1970, 1, 1).toordinal()

UNITS_NS = {"unix_s": SECOND, "unix_ms": 1_000_000, "unix_us": 1_000, "unix_ns": 1}
"""The units of times that are numbers, in nanoseconds."""

PLAUSIBLE_NS = range(631_152_000 * SECOND, 4_102_444_800 * SECOND)
"""The times of the years 1990 to 2099."""

# No time is longer. The limits also bound the work of exact arithmetic and of dateutil.
_LONGEST_NUMBER = 400
_SHORT_NUMBER = 20
"""The digits before the point of a number that is usual as a time."""
_DIGITS_BELOW = {SECOND: 9, 1_000_000: 6, 1_000: 3}
"""How many digits after the point give whole nanoseconds, by the nanoseconds of the unit."""
_LONGEST_TEXT = 200


class TimestampError(ValueError):
    """A value that does not name one instant, or names one out of range; `code` is the code of the cause."""

    def __init__(self, reason: str, code: str = "IFX330") -> None:
        self.reason = reason
        self.code = code
        super().__init__(reason)


class DateParts(NamedTuple):
    """An instant as a date and a time of day in a zone; `weekday` and weeks are those of ISO 8601 (Monday is 1)."""

    year: int
    month: int
    day: int
    hour: int
    minute: int
    second: int
    nanosecond: int
    weekday: int
    yearday: int
    iso_year: int
    iso_week: int
    offset_seconds: int


# --- numbers ---

_NUMBER = re.compile(r"(-?)(0|[1-9][0-9]*)(?:\.([0-9]+))?(?:[eE]([+-]?[0-9]+))?")


def likely_unit(value: float, declared: str | None = None) -> tuple[str, str] | None:
    """Return the unit in which `value` is plausible, and its day in that unit.

    Return None if it is plausible as `declared`, or in no unit.
    """
    if value - value != 0 or (declared is not None and int(value) * UNITS_NS[declared] in PLAUSIBLE_NS):
        return None
    for unit, scale in UNITS_NS.items():
        if int(value) * scale in PLAUSIBLE_NS:
            return unit, format_rfc3339(int(value) * scale)[:10]
    return None


def scale_number(value: float | str, ns_per_unit: int) -> int:
    """Return `value` units of `ns_per_unit` in nanoseconds, exactly; half a nanosecond is rounded to even.

    A float counts as its shortest decimal, a string as a number in JSON syntax.
    """
    if type(value) is int:
        return _in_range(value * ns_per_unit, value)
    if type(value) is float:
        if value - value != 0.0:
            raise TimestampError(f"expected a number as the time, found {value!r}")
        if value.is_integer() and -(2**53) < value < 2**53:
            return _in_range(int(value) * ns_per_unit, value)
        return _scale_decimal(repr(value), ns_per_unit)
    if isinstance(value, str):
        return _scale_decimal(value, ns_per_unit)
    raise TimestampError(f"expected a number as the time, found {shorten(value)}")


def _scale_decimal(text: str, ns_per_unit: int) -> int:
    whole, _, fraction = text.partition(".")
    places = _DIGITS_BELOW.get(ns_per_unit, 0) - len(fraction)
    is_usual = places >= 0 and len(whole) < _SHORT_NUMBER and text.isascii() and fraction.isdigit() and whole.isdigit()
    if is_usual and (whole[0] != "0" or len(whole) == 1):  # what the pattern below takes, without an exponent
        return _in_range(int(whole + fraction) * 10**places, text)
    found = _NUMBER.fullmatch(text) if len(text) <= _LONGEST_NUMBER else None
    if found is None:
        raise TimestampError(f"expected a number as the time, found {shorten(text)}")
    sign, whole, fraction, exponent_digits = found.groups(default="")
    mantissa = int(whole + fraction) * ns_per_unit
    exponent = (int(exponent_digits) if exponent_digits else 0) - len(fraction)
    if not mantissa:
        return 0
    if exponent > 20:
        raise _out_of_range(text)
    if exponent >= 0:
        return _in_range((-mantissa if sign else mantissa) * 10**exponent, text)
    # Beyond this many places nothing remains of a mantissa that has at most this many digits.
    unit = 10 ** min(-exponent, 2 * _LONGEST_NUMBER)
    quotient, rest = divmod(mantissa, unit)
    if rest * 2 > unit or (rest * 2 == unit and quotient % 2):
        quotient += 1
    return _in_range(-quotient if sign else quotient, text)


# --- RFC 3339 ---

_RFC3339 = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]+))?([Zz]|[+-][0-9]{2}:[0-9]{2})"
)
_FRACTION_UNITS: tuple[int, ...] = tuple(10 ** (9 - digits) for digits in range(10))
# Parts that were read before are looked up. The keys are texts that were found valid, so each table except that of the
# days is bounded by the clock. The table of the days is emptied when it is full. It holds no day so near the ends of
# the range that a time of that day could be out of range.
_days: dict[str, int] = {}
_minutes: dict[str, int] = {}
_offsets: dict[str, int] = {"Z": 0, "z": 0}
_SECONDS = {f"{second:02d}": second * SECOND for second in range(60)}
_MOST_DAYS = 4096


def parse_rfc3339(text: str) -> int:
    """Return the instant of `2023-11-14T22:13:20.123456789+01:00`, with a fraction of up to nine digits.

    As in RFC 3339, `t` and `z` may be lower case, and `-00:00` is UTC.  Rejected are a space for the `T`, a missing
    offset, `24:00`, and the leap second (`:60`), which no server can distinguish from the second after it.
    """
    try:
        instant = _days[text[:10]] + _minutes[text[10:17]] + _SECONDS[text[17:19]]
        tail = text[19:]
        if tail in _offsets:
            return instant - _offsets[tail]
        width = 1 if tail[-1] in "Zz" else 6
        digits = tail[1:-width]
        if tail[0] == "." and digits.isdecimal() and digits.isascii():
            return instant - _offsets[tail[-width:]] + int(digits) * _FRACTION_UNITS[len(digits)]
    except (KeyError, IndexError, TypeError):
        pass
    return _parse_rfc3339(text)


def _parse_rfc3339(text: str) -> int:
    """Parse with every check, and fill the tables; only this function decides what is rejected, and why."""
    found = _RFC3339.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise TimestampError(f"expected a time like 2023-11-14T22:13:20Z (RFC 3339), found {shorten(text)}")
    day_text, hour_text, minute_text, second_text, fraction, offset_text = found.groups(default="")
    day = _day_ns(day_text, text)
    hour, minute, second = int(hour_text), int(minute_text), int(second_text)
    if second == 60:
        raise TimestampError(f"{shorten(text)} is a leap second, which has no Unix time of its own")
    if hour > 23 or minute > 59 or second > 59:
        raise TimestampError(f"{shorten(text)} has an invalid time of day")
    if len(fraction) > 9:
        raise TimestampError(f"{shorten(text)} is finer than a nanosecond")
    offset = _offset_ns(offset_text, text)
    minutes = (hour * 60 + minute) * _MINUTE
    if MIN_NS + 2 * _DAY < day < MAX_NS - 3 * _DAY:
        if len(_days) >= _MOST_DAYS:
            _days.clear()
        _days[day_text] = day
    _minutes[text[10:17]] = minutes
    _offsets[offset_text] = offset
    nanoseconds = int(fraction) * _FRACTION_UNITS[len(fraction)] if fraction else 0
    return _in_range(day + minutes + second * SECOND + nanoseconds - offset, text)


def _day_ns(day_text: str, text: str) -> int:
    try:
        ordinal = date.fromisoformat(day_text).toordinal()
    except ValueError:
        raise TimestampError(f"{shorten(text)} has an invalid date") from None
    return (ordinal - _EPOCH_ORDINAL) * _DAY


def _offset_ns(offset_text: str, text: str) -> int:
    """Return the nanoseconds of `Z`, `+01:00`, `+0100` or `+01:00:30`."""
    if offset_text in ("Z", "z"):
        return 0
    digits = offset_text[1:].replace(":", "")
    hours, minutes, seconds = int(digits[:2]), int(digits[2:4]), int(digits[4:6] or "0")
    if hours > 23 or minutes > 59 or seconds > 59:
        raise TimestampError(f"{shorten(text)} has an invalid offset")
    offset = (hours * 60 + minutes) * _MINUTE + seconds * SECOND
    return -offset if offset_text[0] == "-" else offset


def format_rfc3339(timestamp_ns: int) -> str:
    """Return the instant in UTC, with as many digits of a fraction as it needs: none, or up to nine."""
    parts = date_parts(timestamp_ns)
    fraction = f".{parts.nanosecond:09d}".rstrip("0") if parts.nanosecond else ""
    return (
        f"{parts.year:04d}-{parts.month:02d}-{parts.day:02d}"
        f"T{parts.hour:02d}:{parts.minute:02d}:{parts.second:02d}{fraction}Z"
    )


# --- patterns ---

_MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)
_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def _names(names: tuple[str, ...], length: int | None = None) -> str:
    return "|".join(name[:length] for name in names)


def _index(names: tuple[str, ...], text: str) -> int:
    """Return the position, from 1, of a name or of its first three letters."""
    return next(position for position, name in enumerate(names, 1) if name[:3].lower() == text[:3].lower())


class _Directive(NamedTuple):
    """A directive of a pattern: `part` is the part of a time, `regex` reads it, `write` formats it."""

    part: str
    regex: str
    write: Callable[[DateParts], str]


def _fraction(digits: int) -> Callable[[DateParts], str]:
    return lambda parts: f"{parts.nanosecond:09d}"[:digits]


def _offset(separator: str) -> Callable[[DateParts], str]:
    def write(parts: DateParts) -> str:
        minutes, seconds = divmod(abs(parts.offset_seconds), 60)
        sign = "-" if parts.offset_seconds < 0 else "+"
        text = f"{sign}{minutes // 60:02d}{separator}{minutes % 60:02d}"
        return f"{text}{separator}{seconds:02d}" if seconds else text

    return write


_OFFSET_REGEX = "Z|[+-][0-9]{2}:?[0-9]{2}(?::?[0-9]{2})?"

# English names, whatever the locale; %f is exact. The names are those of Python's strptime where it has the directive.
_DIRECTIVES = {
    "Y": _Directive("year", "[0-9]{4}", lambda parts: f"{parts.year:04d}"),
    "y": _Directive("year", "[0-9]{2}", lambda parts: f"{parts.year % 100:02d}"),
    "m": _Directive("month", "1[0-2]|0?[1-9]", lambda parts: f"{parts.month:02d}"),
    "b": _Directive("month", _names(_MONTHS, 3), lambda parts: _MONTHS[parts.month - 1][:3]),
    "B": _Directive("month", _names(_MONTHS), lambda parts: _MONTHS[parts.month - 1]),
    "d": _Directive("day", "3[01]|[12][0-9]|[0 ]?[1-9]", lambda parts: f"{parts.day:02d}"),
    "j": _Directive("yearday", "[0-9]{1,3}", lambda parts: f"{parts.yearday:03d}"),
    "a": _Directive("weekday", _names(_WEEKDAYS, 3), lambda parts: _WEEKDAYS[parts.weekday - 1][:3]),
    "A": _Directive("weekday", _names(_WEEKDAYS), lambda parts: _WEEKDAYS[parts.weekday - 1]),
    "H": _Directive("hour", "2[0-3]|1[0-9]|0?[0-9]", lambda parts: f"{parts.hour:02d}"),
    "I": _Directive("hour12", "1[0-2]|0?[1-9]", lambda parts: f"{(parts.hour - 1) % 12 + 1:02d}"),
    "p": _Directive("half", "AM|PM", lambda parts: "PM" if parts.hour >= 12 else "AM"),
    "M": _Directive("minute", "[1-5][0-9]|0?[0-9]", lambda parts: f"{parts.minute:02d}"),
    "S": _Directive("second", "[1-5][0-9]|0?[0-9]", lambda parts: f"{parts.second:02d}"),
    "f": _Directive("fraction", "[0-9]{1,9}", _fraction(9)),
    "3f": _Directive("fraction", "[0-9]{3}", _fraction(3)),
    "6f": _Directive("fraction", "[0-9]{6}", _fraction(6)),
    "9f": _Directive("fraction", "[0-9]{9}", _fraction(9)),
    "z": _Directive("offset", _OFFSET_REGEX, _offset("")),
    ":z": _Directive("offset", _OFFSET_REGEX, _offset(":")),
}
_SHORTHANDS = {"F": "%Y-%m-%d", "T": "%H:%M:%S"}
_TOKEN = re.compile(r"%([369]f|:z|.)|(\s+)|([^%\s]+|%)", re.DOTALL)

# A part that means nothing without another one.
_NEEDS = {
    "minute": ("hour", "hour12"),
    "second": ("minute",),
    "fraction": ("second",),
    "hour12": ("half",),
    "half": ("hour12",),
}


@lru_cache(maxsize=256)
def _read_pattern(pattern: str) -> tuple[str | _Directive, ...]:
    """Return the literals and directives of `pattern`."""
    for shorthand, meaning in _SHORTHANDS.items():
        pattern = re.sub(rf"(?<!%)((?:%%)*)%{shorthand}", rf"\g<1>{meaning}", pattern)
    tokens: list[str | _Directive] = []
    for name, spaces, literal in _TOKEN.findall(pattern):
        if not name or name == "%":
            tokens.append(spaces or literal or "%")
            if literal == "%":
                raise TimestampError("the pattern ends with a single '%'", "IFX332")
            continue
        directive = _DIRECTIVES.get(name)
        if directive is None:
            raise TimestampError(_unknown_directive(name), "IFX332")
        tokens.append(directive)
    return tuple(tokens)


def _unknown_directive(name: str) -> str:
    if name == "Z":
        return "%Z is not supported: zone names are ambiguous (use %z, or timezone)"
    if name in "cxX":
        return f"%{name} is not supported: it depends on the locale"
    known = ", ".join(f"%{known}" for known in (*_DIRECTIVES, *_SHORTHANDS))
    return f"unknown directive %{name} (known: {known})"


@lru_cache(maxsize=256)
def _compile_pattern(pattern: str) -> re.Pattern[str]:
    tokens = _read_pattern(pattern)
    names = [token.part for token in tokens if isinstance(token, _Directive)]
    parts = frozenset(names)
    if len(parts) != len(names):
        twice = next(part for part in names if names.count(part) > 1)
        raise TimestampError(f"the pattern {pattern!r} has the {twice} twice", "IFX332")
    if "year" not in parts:
        raise TimestampError(f"the pattern {pattern!r} has no year (%Y)", "IFX332")
    if "yearday" in parts and parts & {"month", "day"}:
        raise TimestampError(f"the pattern {pattern!r} has the day twice", "IFX332")
    if "yearday" not in parts and not {"month", "day"} <= parts:
        raise TimestampError(f"the pattern {pattern!r} has no day (%m and %d, or %j)", "IFX332")
    if {"hour", "hour12"} <= parts:
        raise TimestampError(f"the pattern {pattern!r} has the hour twice", "IFX332")
    for part, needed in _NEEDS.items():
        if part in parts and not parts.intersection(needed):
            raise TimestampError(f"the pattern {pattern!r} has a {part} without {' or '.join(needed)}", "IFX332")
    regex = "".join(
        rf"(?P<{token.part}>{token.regex})"
        if isinstance(token, _Directive)
        else r"\s+"
        if token.isspace()
        else re.escape(token)
        for token in tokens
    )
    return re.compile(regex, re.IGNORECASE | re.ASCII)


def check_pattern(pattern: str) -> bool:
    """Return whether times of `pattern` have their own offset; the others need a zone, or count as UTC.

    Raise `TimestampError` if no text of the pattern can name one instant.
    """
    return "offset" in _compile_pattern(pattern).groupindex


def parse_pattern(text: str, pattern: str, zone: str | None = None) -> int:
    """Return the instant of `text` by a strptime `pattern`, in `zone` (an IANA name; UTC if None) unless it has `%z`.

    As Python's strptime, but exact and the same everywhere.  Names are English.  `%f` reads one to nine digits; `%3f`,
    `%6f` and `%9f` read exactly that many.  `%F` is `%Y-%m-%d`, `%T` is `%H:%M:%S`.  The date must be complete, and a
    weekday must be right.

    A local time that occurs twice in the zone, or not at all, is rejected.
    """
    regex = _compile_pattern(pattern)
    found = regex.fullmatch(text) if isinstance(text, str) and len(text) <= _LONGEST_TEXT else None
    if found is None:
        raise TimestampError(f"expected a time like {pattern!r}, found {shorten(text)}")
    values = found.groupdict()
    day = _read_day(values, text)
    hour = int(values.get("hour") or 0)
    if values.get("hour12"):
        hour = int(values["hour12"]) % 12 + (12 if values["half"].upper() == "PM" else 0)
    seconds = (hour * 60 + int(values.get("minute") or 0)) * 60 + int(values.get("second") or 0)
    fraction = values.get("fraction") or ""
    nanoseconds = int(fraction) * _FRACTION_UNITS[len(fraction)] if fraction else 0
    clock = datetime.combine(day, datetime.min.time()) + timedelta(seconds=seconds)
    if values.get("offset"):
        offset = _offset_ns(values["offset"], text)
    else:
        offset = _local_offset_seconds(clock, zone, text) * SECOND
    return _in_range(_wall_ns(clock) + nanoseconds - offset, text)


def _read_day(values: dict[str, str], text: str) -> date:
    year = int(values["year"])
    if len(values["year"]) == 2:
        year += 1900 if year >= 69 else 2000
    try:
        if "yearday" in values:
            day = date(year, 1, 1) + timedelta(days=int(values["yearday"]) - 1)
            if day.year != year:
                raise ValueError
        else:
            month = values["month"]
            day = date(year, int(month) if month.isdigit() else _index(_MONTHS, month), int(values["day"]))
    except (ValueError, OverflowError):
        raise TimestampError(f"{shorten(text)} has an invalid date") from None
    if "weekday" in values and _index(_WEEKDAYS, values["weekday"]) != day.isoweekday():
        raise TimestampError(f"{shorten(text)} is not a {values['weekday']}")
    return day


# --- flexible: what dateutil reads ---


_SIGNED_UTC = re.compile(r"(?:UTC|GMT|Z)\s*[+-]\s*[0-9]", re.IGNORECASE)
_YEAR_FIRST = re.compile(r"(?<![0-9])(?:[0-9]{4}([-./])[0-9]{1,2}\1[0-9]{1,2}|[0-9]{8})(?![0-9])")
_FINER_THAN_MICROSECOND = re.compile(r"[.,][0-9]{7}")


def parse_flexible(text: str, zone: str | None = None, dayfirst: bool | None = None) -> int:
    """Return the instant of a string that dateutil reads, in `zone` (an IANA name) if it has no offset.

    Everything that dateutil would guess is rejected: missing parts of the date (it takes today's), the century of a
    two-digit year, zone names other than UTC and GMT, digits beyond the microsecond, the zone of a time without offset
    if `zone` is None, and which of two numbers is the day if `dayfirst` is None.  `2024-02-01` is always the first of
    February.
    """
    if not isinstance(text, str) or len(text) > _LONGEST_TEXT:
        raise TimestampError(f"expected a time as a string, found {shorten(text)}")
    if _RFC3339.fullmatch(text):
        return parse_rfc3339(text)
    clock, offset = _parse_with_dateutil(text, dayfirst)
    if offset is None and zone is None:
        raise TimestampError(f"{shorten(text)} has no offset, and `timezone` is missing")
    if offset is None:
        offset = timedelta(seconds=_local_offset_seconds(clock, zone, text))
    return _in_range(_wall_ns(clock) - offset // timedelta(microseconds=1) * 1000, text)


def _parse_with_dateutil(text: str, dayfirst: bool | None) -> tuple[datetime, timedelta | None]:
    """Return the local time in `text`, and its offset if it has one."""
    from dateutil import parser, tz

    class Pure(parser.parserinfo):
        """dateutil's rules without the wall clock: it takes the century from today's year."""

        def convertyear(self, year: int, century_specified: bool = False) -> int:
            if year < 100 and not century_specified:
                raise TimestampError(f"{shorten(text)} has a year without century")
            return year

    def named_zone(name: str | None, offset_seconds: int | None) -> tzinfo | None:
        if name is not None and (name.upper() not in ("UTC", "GMT", "Z") or offset_seconds):
            raise TimestampError(f"{shorten(text)} has the zone name {name!r}, which is ambiguous")
        return None if offset_seconds is None and name is None else tz.tzoffset(None, offset_seconds or 0)

    if _SIGNED_UTC.search(text):
        raise TimestampError(
            f"{shorten(text)} has an offset after a zone name, whose sign is ambiguous: write +03:00 alone"
        )
    if _FINER_THAN_MICROSECOND.search(text):
        raise TimestampError(f"{shorten(text)} is finer than a microsecond: declare its format")
    reader = parser.parser(Pure())
    # A part that differs between two defaults was not in the text.
    defaults = (datetime(2000, 1, 1), datetime(2004, 2, 2))  # noqa: DTZ001
    order = False if _YEAR_FIRST.search(text) else dayfirst

    def read(default: datetime, order: bool | None) -> datetime:
        return reader.parse(text, default=default, tzinfos=named_zone, dayfirst=order is True)

    try:
        first, second = (read(default, order) for default in defaults)
        swapped = first if order is not None else read(defaults[0], True)
        offset = first.utcoffset()
    except TimestampError:
        raise
    except (ValueError, ArithmeticError, TypeError, LookupError, AttributeError) as exc:
        raise TimestampError(f"cannot parse {shorten(text)} as a time") from exc
    clock = first.replace(tzinfo=None)
    if clock != second.replace(tzinfo=None):
        raise TimestampError(f"{shorten(text)} has no complete date")
    if first != swapped:
        raise TimestampError(
            f"{shorten(text)} may be {first:%-d %B} or {swapped:%-d %B}: declare `dayfirst`, or a pattern as format"
        )
    return clock, offset


# --- zones and calendars ---


@lru_cache(maxsize=128)
def load_zone(name: str) -> ZoneInfo:
    """Return the IANA zone from the tzdata package, the same on every machine.

    Raise `TimestampError` for an unknown name.
    """
    from importlib.resources import files

    zones = (files("tzdata") / "zones").read_text(encoding="utf-8").split()
    if name not in zones:
        hint = closest(name, zones)
        guess = f" (did you mean {hint!r}?)" if hint else ""
        raise TimestampError(f"unknown time zone {shorten(name)}{guess}", "IFX333")
    with files("tzdata").joinpath("zoneinfo", *name.split("/")).open("rb") as stream:
        return ZoneInfo.from_file(stream, key=name)


def date_parts(timestamp_ns: int, zone: str | None = None) -> DateParts:
    """Return the date and the time of day in `zone` (UTC if None) at an instant.

    Raise `TimestampError` if it is out of range.
    """
    _in_range(timestamp_ns, timestamp_ns)
    seconds, nanosecond = divmod(timestamp_ns, SECOND)
    clock = _EPOCH_UTC + timedelta(seconds=seconds)
    if zone is not None:
        clock = clock.astimezone(load_zone(zone))
    iso_year, iso_week, weekday = clock.isocalendar()
    offset = clock.utcoffset() or timedelta()
    return DateParts(
        year=clock.year,
        month=clock.month,
        day=clock.day,
        hour=clock.hour,
        minute=clock.minute,
        second=clock.second,
        nanosecond=nanosecond,
        weekday=weekday,
        yearday=clock.timetuple().tm_yday,
        iso_year=iso_year,
        iso_week=iso_week,
        offset_seconds=offset // timedelta(seconds=1),
    )


def format_time(timestamp_ns: int, pattern: str, zone: str | None = None) -> str:
    """Return the instant formatted by a pattern of `parse_pattern`'s directives, in `zone` (UTC if None).

    `%f` writes nine digits.
    """
    tokens = _read_pattern(pattern)
    parts = date_parts(timestamp_ns, zone)
    return "".join(token.write(parts) if isinstance(token, _Directive) else token for token in tokens)


def _local_offset_seconds(clock: datetime, zone: str | None, text: str) -> int:
    """Return by how many seconds `zone` is ahead of UTC when its clock shows `clock`."""
    if zone is None:
        return 0
    local = clock.replace(tzinfo=load_zone(zone))
    earlier, later = local.utcoffset(), local.replace(fold=1).utcoffset()
    if earlier is None or later is None or earlier != later:
        # PEP 495: the offset grows over a gap and shrinks over a fold.
        twice = earlier is not None and later is not None and earlier > later
        what = "occurs twice in the local time of" if twice else "does not occur in the local time of"
        raise TimestampError(f"{shorten(text)} {what} {zone}", "IFX331")
    return earlier // timedelta(seconds=1)


def _wall_ns(clock: datetime) -> int:
    return (clock - _EPOCH) // timedelta(microseconds=1) * 1000


def _in_range(timestamp_ns: int, value: object) -> int:
    if not MIN_NS <= timestamp_ns <= MAX_NS:
        raise _out_of_range(value)
    return timestamp_ns


def _out_of_range(value: object) -> TimestampError:
    shown = "the time" if isinstance(value, int) and value.bit_length() > 128 else shorten(value)
    return TimestampError(f"{shown} is outside 1677-09-21 … 2262-04-11, the range of int64 nanoseconds", "IFX322")
