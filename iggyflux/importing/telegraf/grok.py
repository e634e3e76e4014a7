"""Grok patterns as one regular expression with named groups, as far as the usual patterns go."""

from __future__ import annotations

import re
from typing import Final

from iggyflux.importing.configuration import Part
from iggyflux.importing.draft import Tree
from iggyflux.importing.names import member
from iggyflux.importing.report import Verdict
from iggyflux.importing.telegraf.times import time_of

PATTERNS: Final[dict[str, str]] = {
    "WORD": r"\b\w+\b",
    "NOTSPACE": r"\S+",
    "SPACE": r"\s*",
    "DATA": r".*?",
    "GREEDYDATA": r".*",
    "INT": r"[+-]?[0-9]+",
    "POSINT": r"[1-9][0-9]*",
    "NONNEGINT": r"[0-9]+",
    "NUMBER": r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)",
    "BASE10NUM": r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)",
    "BASE16NUM": r"(?:0[xX])?[0-9A-Fa-f]+",
    "QS": r'"(?:[^"\\]|\\.)*"',
    "QUOTEDSTRING": r'"(?:[^"\\]|\\.)*"',
    "UUID": r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}",
    "IPV4": r"(?:[0-9]{1,3}\.){3}[0-9]{1,3}",
    "IPV6": r"[0-9A-Fa-f:]*:[0-9A-Fa-f:.]+",
    "IP": r"(?:[0-9A-Fa-f:]*:[0-9A-Fa-f:.]+|(?:[0-9]{1,3}\.){3}[0-9]{1,3})",
    "HOSTNAME": r"[0-9A-Za-z][0-9A-Za-z-]{0,62}(?:\.[0-9A-Za-z][0-9A-Za-z-]{0,62})*\.?",
    "HOST": r"[0-9A-Za-z][0-9A-Za-z-]{0,62}(?:\.[0-9A-Za-z][0-9A-Za-z-]{0,62})*\.?",
    "IPORHOST": r"[0-9A-Za-z:][0-9A-Za-z:.-]*",
    "CLIENT": r"[0-9A-Za-z:][0-9A-Za-z:.-]*",
    "USERNAME": r"[a-zA-Z0-9._-]+",
    "USER": r"[a-zA-Z0-9._-]+",
    "LOGLEVEL": r"[A-Za-z]+",
    "PATH": r"(?:/[^\s]*|[A-Za-z]:\\[^\s]*)",
    "URI": r"[A-Za-z][A-Za-z0-9+.-]*://\S+",
    "URIPATH": r"/[^\s?]*",
    "URIPATHPARAM": r"/\S*",
    "TIMESTAMP_ISO8601": (
        r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:?[0-9]{2}(?::?[0-9]{2}(?:[.,][0-9]+)?)?(?:Z|[+-][0-9]{2}:?[0-9]{2})?"
    ),
    "HTTPDATE": r"[0-9]{1,2}/[A-Z][a-z]{2}/[0-9]{4}:[0-9:]{8} [+-][0-9]{4}",
    "DATE_US": r"[0-9]{1,2}[/-][0-9]{1,2}[/-][0-9]{2,4}",
    "TIME": r"[0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:[.,][0-9]+)?)?",
    "YEAR": r"[0-9]{4}",
    "MONTH": r"[A-Z][a-z]{2,8}",
    "MONTHDAY": r"[0-9]{1,2}",
    "COMMON_LOG_FORMAT": (
        r"%{CLIENT:client_ip} %{NOTSPACE:ident} %{NOTSPACE:auth} \[%{HTTPDATE:ts:ts-httpd}\] "
        r'"(?:%{WORD:verb:tag} %{NOTSPACE:request}(?: HTTP/%{NUMBER:http_version:float})?|[^"]*)" '
        r"%{NUMBER:resp_code:tag} (?:-|%{NUMBER:resp_bytes:int})"
    ),
    "COMBINED_LOG_FORMAT": r'%{COMMON_LOG_FORMAT} "%{DATA:referrer}" "%{DATA:agent}"',
}
"""Patterns by their names: what the one of Logstash with this name usually is for, and Telegraf's log formats."""

_REFERENCE: Final = re.compile(r"%\{(?P<pattern>\w+)(?::(?P<name>[\w.-]*))?(?::(?P<modifier>ts-\"[^\"]*\"|[\w-]+))?\}")
_TIMES: Final = {
    "ts-rfc3339": "rfc3339",
    "ts-rfc3339nano": "rfc3339",
    "ts-epoch": "unix",
    "ts-epochmilli": "unix_ms",
    "ts-epochnano": "unix_ns",
    "ts-httpd": "httpd",
    "ts-ansic": "ansic",
    "ts-ruby": "rubydate",
    "ts-rfc822z": "rfc822z",
    "ts-rfc1123z": "rfc1123z",
}
MOST_DEPTH: Final = 8
MOST_CHARACTERS: Final = 10_000
"""A longer pattern is not written: patterns that name each other grow without bounds."""


def read(part: Part, kind: str) -> tuple[str, Tree] | None:
    """Return the pattern of an input and its point; None if its patterns are not known."""
    given = part.texts("grok_patterns")
    own: dict[str, str] = {}
    for line in part.text("grok_custom_patterns").splitlines():
        name, _, pattern = line.strip().partition(" ")
        if name and pattern:
            own[name] = pattern.strip()
    if "grok_custom_patterns" in part:
        part.taken("grok_custom_patterns", "parts of `pattern`")
    part.ignored("grok_custom_pattern_files", because="write these patterns into the file as `grok_custom_patterns`")
    if not given:
        part.not_taken("grok_patterns", "there is no pattern")
        return None
    point: Tree = {"measurement": {"const": kind}, "tags": {}, "fields": {}}
    made = _expanded(given[0], {**PATTERNS, **own}, point, part, 0)
    if made is None:
        part.not_taken("grok_patterns", "it names a pattern that is not known here; write it as `grok_custom_patterns`")
        return None
    told = part.approximated if len(given) > 1 else part.taken
    told(
        "grok_patterns",
        "`pattern` of the payload" + (": the first one; write a mapping for each other" * (len(given) > 1)),
    )
    for key in ("grok_timezone", "grok_unique_timestamp", "grok_named_patterns"):
        if key in part:
            part.taken(key, "see `timestamp`")
    return made, point


def _expanded(text: str, known: dict[str, str], point: Tree, part: Part, depth: int) -> str | None:
    """Return a pattern with every reference replaced, and put its names into the point."""
    made, at = "", 0
    for match in _REFERENCE.finditer(text):
        pattern = known.get(match["pattern"])
        if pattern is None or depth > MOST_DEPTH or len(made) > MOST_CHARACTERS:
            return None
        inner = _expanded(pattern, known, point, part, depth + 1)
        if inner is None:
            return None
        made += text[at : match.start()]
        at = match.end()
        name = re.sub(r"\W", "_", match["name"] or "")
        if name and re.match(r"[A-Za-z_]", name) and match["modifier"] != "drop" and f"(?P<{name}>" not in made:
            made += f"(?P<{name}>{inner})"
            _put(point, name, match["modifier"] or "string", part)
        else:
            made += f"(?:{inner})"
    return made + text[at:]


def _put(point: Tree, name: str, modifier: str, part: Part) -> None:
    value = member(name)
    if modifier == "tag":
        point["tags"][name] = value
    elif modifier == "measurement":
        point["measurement"] = value
    elif modifier.startswith("ts"):
        layout = modifier[4:-1] if modifier.startswith('ts-"') else _TIMES.get(modifier, "")
        time = (
            time_of(value, layout, part.text("grok_timezone"))
            if layout
            else {"expr": value, "format": "flexible", "timezone": "UTC"}
        )
        if time is None:
            became = "no format of ours is the same; the time of the message is used"
            part.remark(Verdict.NOT_TAKEN, f"grok_patterns, {name}", became)
        else:
            point["timestamp"] = time
    else:
        of_type = {"int": "integer", "float": "float"}.get(modifier, "string")
        point["fields"][name] = {"expr": value, "type": of_type} | ({} if of_type == "string" else {"cast": True})
