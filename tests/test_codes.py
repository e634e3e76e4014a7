"""The table of codes: each code once, in the file of its range, and every code of the program has an entry."""

from __future__ import annotations

import re
from pathlib import Path

from iggyflux.codes import CODES, RANGES

PACKAGE = Path(__file__).parent.parent / "iggyflux"


def number(code: str) -> int:
    return int(code.removeprefix("IFX"))


def test_no_code_stands_twice():
    """A code has one meaning."""
    written = [entry.code for entries in RANGES.values() for entry in entries]

    assert sorted(written) == sorted(set(written))
    assert len(written) == len(CODES)


def test_a_code_stands_in_the_file_of_its_range_in_order():
    """Whoever looks for a code, or for a free one, has one file to open."""
    for numbers, entries in RANGES.items():
        found = [number(entry.code) for entry in entries]

        assert [each for each in found if each not in numbers] == []
        assert found == sorted(found)


def test_ranges_do_not_overlap():
    """No code can stand in two files."""
    ends = [each for numbers in sorted(RANGES, key=lambda numbers: numbers.start) for each in (numbers[0], numbers[-1])]

    assert ends == sorted(set(ends))


def test_every_code_that_the_program_names_has_an_entry():
    """What a user is told can be looked up."""
    named = {
        code: path.name
        for path in PACKAGE.rglob("*.py")
        if path.parent.name != "codes"
        for code in re.findall(r"\bIFX\d{3}\b", path.read_text("utf-8"))
    }

    assert {code: name for code, name in named.items() if code not in CODES} == {}
