"""The table of codes: in order, complete, and every code of the program has an entry."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from iggyflux.codes import CODES, Code

PACKAGE = Path(__file__).parent.parent / "iggyflux"


def test_codes_are_in_order():
    """A code, or a free number, is found without a search; TOML itself rejects a duplicate."""
    assert list(CODES) == sorted(CODES)


@pytest.mark.parametrize("entry", CODES.values(), ids=list(CODES))
def test_every_entry_is_complete(entry: Code):
    """A title fits into one line; meaning and fix are sentences."""
    assert re.fullmatch(r"IFX\d{3}", entry.code)
    assert 0 < len(entry.title) <= 60 and not entry.title.endswith(".")
    assert entry.meaning.endswith(".") and entry.fix.endswith((".", "?"))


def test_every_code_that_the_program_names_has_an_entry():
    """A user can look up each reported code."""
    named = {
        code: path.name
        for path in PACKAGE.rglob("*.py")
        for code in re.findall(r"\bIFX\d{3}\b", path.read_text("utf-8"))
    }

    assert {code: name for code, name in named.items() if code not in CODES} == {}
