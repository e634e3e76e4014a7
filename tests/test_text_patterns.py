"""The patterns of docs/text-patterns.md: each reads what it is for, and nothing more."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from iggyflux.payloads import FORMATS

PAGE = (Path(__file__).parents[1] / "docs" / "text-patterns.md").read_text("utf-8")
PATTERNS = dict(
    re.split(r" {2,}", line, maxsplit=1) for line in re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)[0].splitlines()
)
READ = {
    "a word without blanks": ("kiln-7, north", {"word": "kiln-7,"}),
    "the rest of the line": ("kiln 7", {"rest": "kiln 7"}),
    "an integer": ("heat -12.5", {"n": "-12"}),
    "a number": ("heat -12.5e3 C", {"x": "-12.5e3"}),
    "an IPv4 address": ("from 192.0.2.17:80", {"ip": "192.0.2.17"}),
    "an IPv6 address, not checked": ("from [2001:db8::9]:80", {"ip": "2001:db8::9"}),
    "a MAC address": ("at 00:1B:44:11:3a:b7.", {"mac": "00:1B:44:11:3a:b7"}),
    "a host name": ("kiln-7.example.org.", {"host": "kiln-7.example.org"}),
    "a path without its query": ("GET /kilns/7?full=1 HTTP/1.1", {"path": "/kilns/7"}),
    "a UUID": ("id=123e4567-e89b-12d3-a456-426614174000;", {"id": "123e4567-e89b-12d3-a456-426614174000"}),
    "a text in quotes": ('note "say \\"hot\\"" end"', {"text": 'say \\"hot\\"'}),
    "RFC 3339, ISO 8601": ("[2026-03-01T10:11:12.003+01:00]", {"ts": "2026-03-01T10:11:12.003+01:00"}),
    "the time of a syslog line": ("<34>Oct  1 22:14:15 kiln", {"ts": "Oct  1 22:14:15"}),
    "the time of an access log": ("- [01/Mar/2026:10:11:12 +0100] x", {"ts": "01/Mar/2026:10:11:12 +0100"}),
    "one of some words": ("x WARNING y", {"level": "WARNING"}),
    "something that may lack": ("kiln", {"ms": None}),
}


@pytest.mark.parametrize("name", PATTERNS)
def test_a_pattern_reads_what_it_is_for(name: str) -> None:
    text, expected = READ[name]
    options = {"pattern": PATTERNS[name]}
    FORMATS["text"].check(options)

    assert FORMATS["text"].decode(text.encode(), options, None, False) == expected
