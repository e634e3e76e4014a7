"""Names, expressions and durations of documents, written from texts of another tool."""

from __future__ import annotations

import json
import re
from typing import Final

from iggyflux.records import JSON

_PLAIN: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_CONSTANTS: Final = frozenset({"null", "true", "false"})
_TEXTS: Final = ("'", "header(", "meta(", "format(")
"""How expressions of texts begin."""
_DURATION: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(ns|us|µs|ms|s|sec|m|min|h|d)?", re.ASCII)
_SECONDS: Final = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "sec": 1.0,
    "m": 60.0,
    "min": 60.0,
    "h": 3600.0,
    "d": 86400.0,
}


def member(name: str) -> str:
    """Return the expression of a member: a plain name, or one in double quotes."""
    if _PLAIN.fullmatch(name) and name not in _CONSTANTS:
        return name
    return json.dumps(name, ensure_ascii=False)


def string(text: str) -> str:
    """Return the expression of a text."""
    if text.endswith("\\") or "\\'" in text or not text.isprintable():  # a raw string cannot have these
        return "`" + json.dumps(text).replace("`", "\\`") + "`"
    return "'" + text.replace("'", "\\'") + "'"


def literal(value: JSON) -> str:
    """Return the expression of any value."""
    if isinstance(value, str):
        return string(value)
    return "`" + json.dumps(value).replace("`", "\\`") + "`"


def text_of(expression: str) -> str:
    """Return the expression of a value as a text, or of null if it is null: `to_string` would give the text null."""
    return expression if expression.startswith(_TEXTS) else f"format('{{}}', {expression})"


def slug(text: str) -> str:
    """Return a name of a document, or of a file, that is like `text`."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")[:60] or "imported"


def duration(text: str) -> str | None:
    """Return a duration as a pipeline writes it; None if it is none, or too short."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        return None
    ms = round(float(match[1]) * _SECONDS[match[2] or "s"] * 1000)
    if not 0 < ms < 10**12:
        return None
    for unit, size in (("h", 3_600_000), ("m", 60_000), ("s", 1000)):
        if ms % size == 0:
            return f"{ms // size}{unit}"
    return f"{ms}ms"
