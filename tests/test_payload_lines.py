"""Where a row of a payload failed: the line at which it begins, as an editor counts the lines of the payload."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iggyflux import Message, parse_mapping
from iggyflux.records import DeadLetter, Failure
from iggyflux.runner.failures import reason_of_failure
from iggyflux.transports.local.deadletters import decode_letter, encode_letter
from tests.shell import iggyflux


def mapping(payload: dict[str, Any], for_each: str = "@", level: str = "level") -> Any:
    return parse_mapping(
        json.dumps(
            {
                "iggyflux": 1,
                "kind": "writer",
                "from": {"stream": "dam", "topic": "gauges", "payload": payload},
                "for_each": for_each,
                "points": {
                    "measurement": {"const": "gauge"},
                    "tags": ["pier"],
                    "fields": {"level": {"expr": level, "cast": True}},
                    "timestamp": {"spread": "index"},
                },
            }
        )
    )


def failed_lines(document: Any, text: str) -> dict[str, list[int | None]]:
    """Return the lines of the failures by code, which both plans name."""
    rendered = [document.plan(plan).render([Message(text.encode())]) for plan in ("compiled", "reference")]
    assert rendered[0].failures == rendered[1].failures
    lines: dict[str, list[int | None]] = {}
    for failure in rendered[0].failures:
        lines.setdefault(failure.code, []).append(failure.payload_line)
    return lines


ROWS = {
    "good": "p1;3;",
    "quoted": "p2;4;'a\nb'",
    "two": "'p2';'5';'\r\r\n'",
    "bad number": "p3;deep;",
    "bad after a line end": "p4;deep;'a\r\nb'",
    "ragged": "p5",
    "ragged after a line end": "p6;'\n'",
    "blank": "",
    "comment": "#p7;'deep",
}
CODES = {"bad": "IFX340", "ragged": "IFX410"}


@settings(max_examples=150)
@given(st.data())
def test_the_line_of_a_row_is_the_one_of_an_editor(data: st.DataObject) -> None:
    skip = data.draw(st.integers(0, 2), "skip")
    has_header, has_units, trim, mark = (data.draw(st.booleans(), name) for name in ("header", "units", "trim", "mark"))
    end = st.sampled_from(["\n", "\r\n", "\r"])
    parts = [f"a 'title{data.draw(end)}" for _ in range(skip)]
    before = st.lists(st.sampled_from(["#note", "", *["  "] * trim]), max_size=2)
    parts += [f"{each}{data.draw(end)}" for each in data.draw(before, "before")]
    parts += [f"{each}{data.draw(end)}" for each in [*["pier;level;note"] * has_header, *["-;m;"] * has_units]]
    expected: dict[str, list[int | None]] = {}
    rows = data.draw(st.lists(st.sampled_from(sorted(ROWS)), max_size=8), "rows")
    for name in rows:
        line = len(re.split("\r\n|\r|\n", "".join(parts)))
        if code := CODES.get(name.split()[0]):
            expected.setdefault(code, []).append(line)
        parts.append(f"{' ' * trim}{ROWS[name]}{data.draw(end)}")
    if data.draw(st.booleans(), "open"):
        expected.setdefault("IFX410", []).append(len(re.split("\r\n|\r|\n", "".join(parts))))
        parts.append("p8;'3\np9;4;\n")
    payload: dict[str, Any] = {"format": "csv", "delimiter": ";", "quote": "'", "comment": "#", "skip": skip}
    payload |= {"trim": trim, "units_row": has_units} | ({} if has_header else {"header": ["pier", "level", "note"]})

    text = "\ufeff" * (mark and has_header) + "".join(parts)

    assert failed_lines(mapping(payload), text) == expected


def test_the_line_is_that_of_the_row_whatever_for_each_leaves_out() -> None:
    text = "pier,level\np1,3\np2,deep\n\np1,high\n"

    assert failed_lines(mapping({"format": "csv"}, "[?pier=='p1']"), text) == {"IFX340": [5]}
    assert failed_lines(mapping({"format": "csv"}, "[].{pier: pier, level: level}"), text) == {"IFX340": [None, None]}


def test_a_row_of_line_protocol_has_its_line_too() -> None:
    text = '# sent by pier 2\ng,pier=p1 level="deep" 1\n\nno\ng,pier=p1 note="a\nb",level="low" 2\n'
    document = mapping({"format": "influx"}, "[].merge(tags, fields)")

    assert failed_lines(document, text) == {"IFX404": [None], "IFX340": [None, None]}
    assert failed_lines(mapping({"format": "influx"}, level="fields.level"), text)["IFX340"] == [2, 5]


@pytest.mark.parametrize(
    ("elements", "shown"), [((), "line 12"), ((4, 0), "line 12, element 4.0")], ids=["row", "inside a row"]
)
def test_a_dead_letter_keeps_the_line(elements: tuple[int, ...], shown: str) -> None:
    failure = Failure(0, 4, 0, "IFX340", "/points", "no", elements=elements, payload_line=12)
    letter = DeadLetter(Message(b"x"), "m", "p", (reason_of_failure(failure),))

    assert failure.shown_element == shown
    assert decode_letter(encode_letter(letter)) == letter


def test_dry_run_names_the_line_and_load_that_of_the_file_alone(tmp_path: Path) -> None:
    document, table = tmp_path / "dam.yaml", tmp_path / "dam.csv"
    document.write_text(
        "{iggyflux: 1, kind: writer, from: {stream: s, topic: t, payload: {format: csv, skip: 1}},"
        " for_each: '@', points: {measurement: {const: gauge}, fields: {level: {expr: level, cast: true}},"
        " timestamp: {expr: '`1`', format: unix_s}}}"
    )
    table.write_text("Dam 7\nlevel\n1\n\ndeep\n1,2\n")

    shown = iggyflux("dry-run", document, table, "--whole").err
    loaded = iggyflux("load", document, table, "--dry-run").err

    assert "sample 1, line 6: " in shown and "sample 1, line 5: " in shown and "element" not in shown
    assert f"{table}:5: {document}" in loaded and f"{table}:6: {document}" in loaded
    assert ", line" not in loaded and "element" not in loaded
