"""`explain` lists what is interpreted, and `--cost` what it takes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from iggyflux import Message, parse_mapping
from iggyflux.plan.cost import measure_cost
from tests.shell import iggyflux

MAPPING = """\
iggyflux: 1
kind: writer
name: muehle
from: {stream: s, topic: t}
points:
  measurement: {const: p}
  tags: {ort: "lower(ort)"}
  fields:
    lang: {expr: "length(sort(split(wort, '-')))", type: integer}
    kg: kg
  timestamp: {expr: zeit, format: unix_s}
examples:
  - message: {ort: Halle, wort: a-b-c-d, kg: 2.5, zeit: 1750000000}
    points: ["p,ort=halle kg=2.5,lang=4i 1750000000000000000"]
"""


def test_the_parts_of_the_cost_are_those_of_the_whole() -> None:
    mapping: Any = parse_mapping(MAPPING)
    plan = mapping.plan()
    word = "-".join("zyxwvutsrqponmlkjihgfedcba" * 8)
    messages = [
        Message(b'{"ort": "Halle", "wort": "%s%d", "kg": 2.5, "zeit": %d}' % (word.encode(), n, n)) for n in range(1400)
    ]

    cost = measure_cost(plan, messages)

    (field, most), (tag, little) = sorted(cost.interpreted, key=lambda part: -part[1])
    assert (field.text, tag.text) == ("length(sort(split(wort, '-')))", "lower(ort)")
    assert most > 20 * little  # one text is evaluated once
    assert 0.6 * cost.whole < most < cost.whole
    assert cost.decoding < cost.whole / 5
    assert abs(cost.generated + cost.decoding + most + little - cost.whole) < 1e-9


def test_a_measured_plan_is_as_before() -> None:
    mapping: Any = parse_mapping(MAPPING)
    plan = mapping.plan()
    message = Message(b'{"ort": "A", "wort": "b", "kg": 1, "zeit": 5}')
    with plan.timing(time.thread_time) as spent:
        plan.render([message])
    before = dict(spent)
    assert len(before) == 2

    plan.render([message])

    assert spent == before


def test_explain_names_each_expression_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "m.yaml"
    file.write_text(MAPPING)

    printed = iggyflux("explain", str(file), "--cost").out

    listed, measured = printed.partition("\ninterpreted\n")[2].partition("\ncost ")[::2]
    assert [line.split() for line in listed.strip().splitlines()] == [
        ["line", "7", "lower(ort)"],
        ["line", "9", "length(sort(split(wort,", "'-')))"],
    ]
    rows = measured.partition("\ncode")[0].strip().splitlines()[1:]
    assert [row.split()[0] for row in rows] == ["all", "decoding", "line", "line", "generated"]
    assert all("µs" in row and row.endswith("%") for row in rows)


def test_what_cannot_be_measured_says_why(tmp_path: Path) -> None:
    file = tmp_path / "m.yaml"
    file.write_text(MAPPING.partition("examples:")[0].replace("lower(ort)", "regex_capture(ort, '^(x{9})$', `1`)"))

    printed = iggyflux("explain", str(file), "--cost")

    assert printed.code == 0
    assert "cost  " in printed.out
    assert "Traceback" not in printed.out + printed.err
