"""Topics of MQTT in a header: whether one matches a filter, and its parts."""

from __future__ import annotations

import re

from iggyflux.importing.names import string


def matches_topic(pattern: str, header: str) -> str:
    """Return the condition that the topic in `header` matches a filter of MQTT, with `+` and `#`."""
    words = pattern.split("/")
    parts = ["[^/]*" if word == "+" else ".*" if word == "#" else re.escape(word) for word in words]
    whole = "/".join(parts)
    if words[-1] == "#":
        whole = "/".join(parts[:-1]) + "(?:/.*)?" if len(parts) > 1 else ".*"
    return f"regex_match(header({string(header)}), {string(f'^{whole}$')})"


def part_of_topic(index: int | str, header: str) -> str:
    """Return the part of the topic in `header` at a position from 0, from its end if negative."""
    return f"split(header({string(header)}), '/')[{index}]"


def plain_topic(pattern: str) -> str:
    """Return a topic that a filter matches."""
    return pattern.replace("+", "n1").replace("#", "n2/3")
