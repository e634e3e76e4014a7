"""Functions on times, which are integers of nanoseconds since the epoch.

`timestamps` does the work, and is imported for the first pattern.  Zones come from the tzdata package, names are
English, and the clock of the machine is never read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from iggyflux.errors import EvaluationError, closest
from iggyflux.functions.table import ConstantError, Function, Parameter, cannot
from iggyflux.records import JSON

_NS = Parameter("time", ("number",), "nanoseconds since the epoch, an integer")
_ZONE = Parameter("timezone", ("string",), "an IANA name; default UTC", optional=True, constant=True)
_UNITS = ("unix_s", "unix_ms", "unix_us", "unix_ns")
_NAMES = (*_UNITS, "rfc3339", "flexible")
_PARTS = (
    "year",
    "month",
    "day",
    "hour",
    "minute",
    "second",
    "nanosecond",
    "weekday",
    "yearday",
    "iso_year",
    "iso_week",
    "offset_seconds",
)


def _zone(constants: Mapping[str, Any]) -> str | None:
    from iggyflux.timestamps import TimestampError, load_zone

    zone: str | None = constants.get("timezone")
    if zone is not None:
        try:
            load_zone(zone)
        except TimestampError as error:
            raise ConstantError("timezone", error.reason) from error
    return zone


def _known(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        close = closest(value, known)
        hint = f"did you mean '{close}'?" if close else "known: " + ", ".join(known)
        raise ConstantError(name, f"unknown value {value!r}", hint)


def _guarded(name: str, body: Callable[[Any], JSON]) -> Callable[[Any], JSON]:
    """Return `body` with its failures as failures of an evaluation."""
    from iggyflux.timestamps import TimestampError

    def call(value: Any) -> JSON:
        try:
            return body(value)
        except TimestampError as error:
            raise EvaluationError(error.code, f"{name}(): {error.reason}") from error

    return call


def _reader(constants: Mapping[str, Any], _: int) -> dict[str, Any]:
    """Return, in place of `format`, a function that reads times of that format."""
    from iggyflux import timestamps

    form, zone = constants["format"], _zone(constants)
    if form in _UNITS:
        body: Callable[[Any], int] = partial(_swapped, timestamps.scale_number, timestamps.UNITS_NS[form])
    elif form == "rfc3339":
        body = timestamps.parse_rfc3339
    elif form == "flexible":
        body = partial(_swapped, timestamps.parse_flexible, zone or "UTC")
    else:
        if "%" not in form:
            _known("format", form, (*_NAMES, "a pattern such as %Y-%m-%d"))
        try:
            timestamps.check_pattern(form)
        except timestamps.TimestampError as error:
            raise ConstantError("format", error.reason) from error
        body = partial(_with_two, timestamps.parse_pattern, form, zone)
    return {"format": _guarded("parse_time", body), "timezone": None}


def _swapped(body: Callable[[Any, Any], int], second: Any, first: Any) -> int:
    return body(first, second)


def _with_two(body: Callable[[Any, Any, Any], Any], second: Any, third: Any, first: Any) -> Any:
    return body(first, second, third)


def _parse_time(value: Any, read: Callable[..., JSON], _: None = None) -> JSON:
    return read(value)


def _writer(constants: Mapping[str, Any], _: int) -> dict[str, Any]:
    """Return, in place of `format`, a function that writes times in that format."""
    from iggyflux import timestamps

    form, zone = constants["format"], _zone(constants)
    if form == "rfc3339":
        if zone is not None:
            raise ConstantError("timezone", "rfc3339 is always in UTC", "use a pattern: '%Y-%m-%dT%H:%M:%S%:z'")
        return {"format": _guarded("format_time", timestamps.format_rfc3339), "timezone": None}
    if "%" not in form:
        _known("format", form, ("rfc3339", "a pattern such as %Y-%m-%d"))
    try:
        timestamps.format_time(0, form, zone)
    except timestamps.TimestampError as error:
        raise ConstantError("format", error.reason) from error
    body = partial(_with_two, timestamps.format_time, form, zone)
    return {"format": _guarded("format_time", body), "timezone": None}


def _format_time(time: Any, write: Callable[..., JSON], _: None = None) -> JSON:
    if type(time) is not int:
        raise cannot("format_time", "the time is not an integer of nanoseconds")
    return write(time)


def _part(constants: Mapping[str, Any], _: int) -> dict[str, Any]:
    from iggyflux.timestamps import date_parts

    part, zone = constants["part"], _zone(constants)
    _known("part", part, _PARTS)
    return {"part": _guarded("date_part", lambda ns: getattr(date_parts(ns, zone), part)), "timezone": None}


def _date_part(read: Callable[..., JSON], time: Any, _: None = None) -> JSON:
    if type(time) is not int:
        raise cannot("date_part", "the time is not an integer of nanoseconds")
    return read(time)


TIMES: tuple[Function, ...] = (
    Function(
        "parse_time",
        "time",
        "The exact nanoseconds since the epoch of a time in a format: unix_s, unix_ms, unix_us, unix_ns, rfc3339, "
        "flexible, or a strptime pattern.",
        (Parameter("value", ("string", "number")), Parameter("format", ("string",), constant=True), _ZONE),
        ("number",),
        _parse_time,
        (
            ("parse_time(a, 'rfc3339')", '{"a": "2023-11-14T22:13:20.5Z"}', "1700000000500000000"),
            ("parse_time(a, 'unix_s')", '{"a": 1700000000.25}', "1700000000250000000"),
            ("parse_time(a, '%d.%m.%Y %H:%M', 'Europe/Berlin')", '{"a": "14.11.2023 23:13"}', "1699999980000000000"),
            ("parse_time(meta('timestamp'), 'unix_us')", "{}", "1700000000000001000"),
            ("parse_time(a, 'rfc3339')", '{"a": "yesterday"}', "IFX330"),
        ),
        prepare=_reader,
    ),
    Function(
        "format_time",
        "time",
        "A time formatted by a strptime pattern, or as rfc3339. `%f` has nine digits, `%3f` three.",
        (_NS, Parameter("format", ("string",), constant=True), _ZONE),
        ("string",),
        _format_time,
        (
            ("format_time(a, '%Y-%m-%d %H:%M:%S')", '{"a": 1700000000000000000}', '"2023-11-14 22:13:20"'),
            ("format_time(a, '%H:%M', 'Asia/Tokyo')", '{"a": 1700000000000000000}', '"07:13"'),
            ("format_time(a, 'rfc3339')", '{"a": 1700000000500000000}', '"2023-11-14T22:13:20.5Z"'),
            ("format_time(a, '%Y')", '{"a": 1.5}', "IFX304"),
        ),
        prepare=_writer,
    ),
    Function(
        "date_part",
        "time",
        f"A part of the date or the time of day: {', '.join(_PARTS)}. Monday is weekday 1.",
        (Parameter("part", ("string",), constant=True), _NS, _ZONE),
        ("number",),
        _date_part,
        (
            ("date_part('hour', a)", '{"a": 1700000000000000000}', "22"),
            ("date_part('hour', a, 'Europe/Berlin')", '{"a": 1700000000000000000}', "23"),
            ("date_part('weekday', a)", '{"a": 1700000000000000000}', "2"),
        ),
        prepare=_part,
    ),
)
