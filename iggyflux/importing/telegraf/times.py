"""Time formats of Go as those of a mapping.

Go writes a format as the time `Mon Jan 2 15:04:05 MST 2006`; each of its parts is a directive of strptime.
"""

from __future__ import annotations

import re
from typing import Final

from iggyflux.importing.draft import Tree

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
_DIRECTIVES: Final = (
    ("2006", "%Y"),
    ("January", "%B"),
    ("Jan", "%b"),
    ("Monday", "%A"),
    ("Mon", "%a"),
    ("-07:00", "%z"),
    ("-0700", "%z"),
    ("Z07:00", "%z"),
    ("Z0700", "%z"),
    ("01", "%m"),
    ("02", "%d"),
    ("_2", "%d"),
    ("15", "%H"),
    ("03", "%I"),
    ("04", "%M"),
    ("05", "%S"),
    ("06", "%y"),
    ("PM", "%p"),
    ("1", "%m"),
    ("2", "%d"),
    ("3", "%I"),
    ("4", "%M"),
    ("5", "%S"),
)
_PARTS: Final = re.compile(
    "|".join([re.escape(part) for part, _ in _DIRECTIVES] + [r"[.,](?:0+|9+)(?![0-9])", "%", "."]), re.DOTALL
)
_UNKNOWN: Final = re.compile("MST|UTC|GMT")


def time_of(expression: str, layout: str, zone: str) -> Tree | None:
    """Return the `timestamp` of an expression in a format of Go; None if no format of ours is the same."""
    if layout in _UNIX:
        return {"expr": expression, "format": _UNIX[layout]}
    layout = _NAMED.get(layout.lower(), layout)
    if _RFC3339.fullmatch(layout):
        return {"expr": expression, "format": "rfc3339"}
    if not layout or zone == "Local" or _UNKNOWN.search(layout):
        return None
    made = "".join(_directive(match[0]) for match in _PARTS.finditer(layout))
    if "%" not in made:
        return None
    return {"expr": expression, "format": made} | ({} if "%z" in made else {"timezone": zone or "UTC"})


def _directive(part: str) -> str:
    if part == "%":
        return "%%"
    if re.fullmatch(r"[.,][09]+", part):
        return f"{part[0]}%f"
    return dict(_DIRECTIVES).get(part, part)
