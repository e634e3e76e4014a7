"""Time formats of Go as those of a mapping.

Go writes a format as the time `Mon Jan 2 15:04:05 MST 2006`; each of its parts is a directive of strptime.
"""

from __future__ import annotations

import re
from typing import Final

from iggyflux.importing.draft import Tree
from iggyflux.timestamps import TimestampError, check_pattern

_UNIX: Final = {"unix": "unix_s", "unix_ms": "unix_ms", "unix_us": "unix_us", "unix_ns": "unix_ns"}
_NAMED: Final = {
    "rfc3339": "2006-01-02T15:04:05Z07:00",
    "rfc3339nano": "2006-01-02T15:04:05Z07:00",
    "ansic": "Mon Jan _2 15:04:05 2006",
    "rubydate": "Mon Jan 02 15:04:05 -0700 2006",
    "rfc822z": "02 Jan 06 15:04 -0700",
    "rfc1123z": "Mon, 02 Jan 2006 15:04:05 -0700",
    "httpd": "02/Jan/2006:15:04:05 -0700",
}
_RFC3339: Final = re.compile(r"2006-01-02T15:04:05(?:[.,][09]+)?Z07:00")
_OFFSETS: Final = ("070000", "07:00:00", "0700", "07:00")
_DIRECTIVES: Final = {
    "2006": "%Y",
    "January": "%B",
    "Jan": "%b",
    "Monday": "%A",
    "Mon": "%a",
    "002": "%j",
    "01": "%m",
    "02": "%d",
    "_2": "%d",
    "15": "%H",
    "03": "%I",
    "04": "%M",
    "05": "%S",
    "06": "%y",
    "PM": "%p",
    "1": "%m",
    "2": "%d",
    "3": "%I",
    "4": "%M",
    "5": "%S",
    **{f"{sign}{offset}": "%z" for sign in "-Z" for offset in _OFFSETS},
}
_UNKNOWN: Final = frozenset({"MST", "UTC", "GMT", "-07", "Z07", "__2", "pm"})
"""Parts of Go that no directive reads in the same way, and names of zones."""
_PARTS: Final = re.compile(
    rf"January|Jan(?![a-z])|Monday|Mon(?![a-z])|MST|UTC|GMT|002|0[1-6]|15|1|2006|_(?=2006)|_2|__2|[2345]|PM|pm|"
    rf"[-Z](?:{'|'.join(_OFFSETS)}|07)|[.,](?:0+|9+)(?![0-9])|.",
    re.DOTALL,
)
"""The parts in the order in which Go looks for them."""
_TAKES_MORE: Final = re.compile(r"%[zf](?:[0-9]|%[YymdjHIMS])")
"""Where an offset or a fraction would take digits of the part after it."""


def time_of(expression: str, layout: str, zone: str) -> Tree | None:
    """Return the `timestamp` of an expression in a format of Go; None if no format of ours is the same."""
    if layout in _UNIX:
        return {"expr": expression, "format": _UNIX[layout]}
    layout = _NAMED.get(layout.lower(), layout)
    if _RFC3339.fullmatch(layout):
        return {"expr": expression, "format": "rfc3339"}
    parts = _PARTS.findall(layout)
    if not layout or zone == "Local" or not _UNKNOWN.isdisjoint(parts):
        return None
    made = "".join(map(_directive, parts))
    try:
        has_offset = check_pattern(made)
    except TimestampError:
        return None
    if _TAKES_MORE.search(made):
        return None
    return {"expr": expression, "format": made} | ({} if has_offset else {"timezone": zone or "UTC"})


def _directive(part: str) -> str:
    if part == "%":
        return "%%"
    if len(part) > 1 and part[0] in ".,":
        return f"{part[0]}%f"
    return _DIRECTIVES.get(part, part)
