"""The table of codes: in order, complete, and every code of the program has an entry."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from ruamel.yaml import YAML

from iggyflux import Message, Point, parse_mapping
from iggyflux.codes import CODES, Code
from iggyflux.errors import PointError

if TYPE_CHECKING:
    from _pytest.mark import ParameterSet

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


BASE = {"measurement": {"const": "class"}, "fields": {"while": {"const": 1}}, "timestamp": {"spread": "offset"}}


def examples(form: str) -> list[ParameterSet]:
    matches = [(entry.code, re.fullmatch(form, entry.example or "")) for entry in CODES.values()]
    return [pytest.param(code, match, id=code) for code, match in matches if match]


@pytest.mark.parametrize(("code", "match"), examples(r"(\w+: .*) and the message (\{.*\})"))
def test_the_example_of_a_failed_record_leads_to_its_code(code: str, match: re.Match[str]) -> None:
    """The example is a part of a point, in YAML, and the payload that fails."""
    part = YAML(typ="safe").load(f"{{{match[1]}}}")
    mapping = {"iggyflux": 1, "kind": "writer", "from": {"stream": "s", "topic": "t"}, "points": BASE | part}
    failures = parse_mapping(json.dumps(mapping)).plan().render([Message(match[2].encode())]).failures

    assert [code] == [each.code for each in failures]


@pytest.mark.parametrize(("code", "match"), examples(r".*(Point\(.*\))"))
def test_the_example_of_a_point_leads_to_its_code(code: str, match: re.Match[str]) -> None:
    """The example is a call in Python."""
    with pytest.raises(PointError) as caught:
        eval(match[1], {"Point": Point})

    assert code == caught.value.code
