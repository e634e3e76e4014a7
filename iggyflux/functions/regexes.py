"""Regular expressions in linear time, by RE2, so that no payload can stop a partition.

A pattern is a literal and is compiled with the expression; what RE2 does not support (look-around, back-references) is
rejected then.  `re2` is imported for the first pattern.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from iggyflux.functions.table import ConstantError, Function, Parameter, check_count, check_size
from iggyflux.records import JSON

_TEXT = Parameter("text", ("string",))
_PATTERN = Parameter("pattern", ("string",), "RE2 syntax", constant=True)


def _compile(constants: Mapping[str, Any], _: int = 0) -> dict[str, Any]:
    import re2

    options = re2.Options()
    options.log_errors = False
    pattern = constants["pattern"]
    try:
        return {"pattern": re2.compile(pattern, options)}
    except re2.error as error:
        reason = error.args[0].decode(errors="replace") if isinstance(error.args[0], bytes) else str(error)
        hint = None
        if "perl operator" in reason or "escape sequence" in reason:
            hint = "write the pattern without look-around and back-references: patterns are RE2"
        raise ConstantError("pattern", f"invalid regular expression: {reason}", hint) from error
    except ValueError as error:
        raise ConstantError("pattern", "the pattern contains an unpaired surrogate") from error


def _match(text: str, pattern: Any) -> bool:
    return pattern.search(text) is not None


def _with_group(constants: Mapping[str, Any], _: int) -> dict[str, Any]:
    """Return the pattern, and the number of the wanted group."""
    pattern = _compile(constants)["pattern"]
    group = constants.get("group", 1 if pattern.groups else 0)
    known = [*range(pattern.groups + 1), *pattern.groupindex]
    if isinstance(group, bool) or group not in known:
        raise ConstantError("group", f"the pattern has no group {group!r}", "known: " + ", ".join(map(str, known)))
    return {"pattern": pattern, "group": int(pattern.groupindex.get(group, group))}


def _capture(text: str, pattern: Any, group: int) -> JSON:
    found = pattern.search(text)
    return None if found is None else found.group(group)


def _named(constants: Mapping[str, Any], _: int) -> dict[str, Any]:
    pattern = _compile(constants)["pattern"]
    if not pattern.groupindex:
        raise ConstantError("pattern", "the pattern has no named group", "write a named group as (?P<name>…)")
    return {"pattern": (pattern, sorted(pattern.groupindex, key=pattern.groupindex.get))}


def _groups(text: str, pattern_and_names: tuple[Any, list[str]]) -> JSON:
    pattern, names = pattern_and_names
    found = pattern.search(text)
    return None if found is None else {name: found.group(name) for name in names}


_REFERENCE = re.compile(r"\\(\\|[0-9]|g<([^>]*)>)?")


def _with_template(constants: Mapping[str, Any], _: int) -> dict[str, Any]:
    """Return the pattern, and the replacement as strings and numbers of groups."""
    pattern = _compile(constants)["pattern"]
    template, parts, position = constants["replacement"], [], 0
    for found in _REFERENCE.finditer(template):
        parts.append(template[position : found.start()])
        position = found.end()
        reference, name = found.group(1), found.group(2)
        group = int(reference) if reference and reference.isdigit() else pattern.groupindex.get(name)
        if reference == "\\":
            parts.append("\\")
        elif group is None or group > pattern.groups:
            hint = r"write \1 or \g<name> for a group of the pattern, \\ for a backslash"
            raise ConstantError("replacement", f"the pattern has no group {found.group()}", hint)
        else:
            parts.append(group)
    return {"pattern": pattern, "replacement": [*parts, template[position:]]}


def _replace(text: str, pattern: Any, replacement: list[str | int]) -> str:
    parts: list[str] = []
    size = position = 0
    for number, found in enumerate(pattern.finditer(text)):
        check_count("regex_replace", number)
        piece = [text[position : found.start()]]
        piece += [part if isinstance(part, str) else found.group(part) or "" for part in replacement]
        position = found.end()
        size += sum(map(len, piece))
        check_size("regex_replace", size)
        parts += piece
    return "".join([*parts, text[position:]])


REGEXES: tuple[Function, ...] = (
    Function(
        "regex_match",
        "regular expressions",
        "Whether the pattern matches anywhere in the string; anchor it with `^` and `$`.",
        (_TEXT, _PATTERN),
        ("boolean",),
        _match,
        (
            ("regex_match(a, '^v[0-9]+$')", '{"a": "v12"}', "true"),
            ("regex_match(a, '^v[0-9]+$')", '{"a": "v12b"}', "false"),
        ),
        prepare=_compile,
    ),
    Function(
        "regex_capture",
        "regular expressions",
        "The text of a group, by number or name (default: the first group, or the whole match); null without a match.",
        (_TEXT, _PATTERN, Parameter("group", ("number", "string"), constant=True, optional=True)),
        ("string", "null"),
        _capture,
        (
            ("regex_capture(a, 'hall-([0-9]+)')", '{"a": "plant/hall-7/x"}', '"7"'),
            ("regex_capture(a, '(?P<x>[a-z]+)=(?P<y>[0-9]+)', 'y')", '{"a": "n=5"}', '"5"'),
            ("regex_capture(a, '[0-9]+')", '{"a": "none"}', "null"),
        ),
        prepare=_with_group,
    ),
    Function(
        "regex_groups",
        "regular expressions",
        "An object of the named groups of the pattern; null without a match.",
        (_TEXT, _PATTERN),
        ("object", "null"),
        _groups,
        (
            (
                "regex_groups(a, '(?P<site>[a-z]+)/(?P<room>[0-9]+)')",
                '{"a": "b/7"}',
                '{"site": "b", "room": "7"}',
            ),
        ),
        prepare=_named,
    ),
    Function(
        "regex_replace",
        "regular expressions",
        r"The string with every match replaced; `\1` or `\g<name>` in the replacement inserts a group.",
        (_TEXT, _PATTERN, Parameter("replacement", ("string",), constant=True)),
        ("string",),
        _replace,
        (
            ("regex_replace(a, '[^A-Za-z0-9]+', '_')", '{"a": "CPU load (%)"}', '"CPU_load_"'),
            (r"regex_replace(a, '([0-9]+),([0-9]+)', '\1.\2')", '{"a": "21,5"}', '"21.5"'),
        ),
        prepare=_with_template,
    ),
)
