"""A point that takes all members of one object as tags and all of another as fields: both plans agree."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from iggyflux import Message, parse_mapping

MAPPING = """\
iggyflux: 1
kind: writer
name: anlage
from: {stream: s, topic: t}
points:
  measurement: {const: p}
  tags: {ort: ort, "*": wo}
  fields: {kg: kg, "*": was}
  timestamp: {expr: zeit, format: unix_s}
on_error: dead_letter
"""
names = st.sampled_from(["a", "b", "é", "ort", "kg", "zeit", "", "tür 1"])
values = st.sampled_from([None, "", "x", "größe", 1, 2.5, True, {"a": 1}])
objects = st.one_of(st.none(), st.dictionaries(names, values, max_size=4))
payloads = st.fixed_dictionaries(
    {"wo": objects, "was": objects, "ort": values, "kg": values, "zeit": st.just(1_750_000_000)}
)


@settings(max_examples=300)
@given(st.lists(payloads, min_size=1, max_size=8))
def test_tags_and_fields_of_all_members_are_those_of_the_reference_plan(batch: list[dict[str, Any]]) -> None:
    """A member that would be a tag and a field fails its message, and no other."""
    mapping: Any = parse_mapping(MAPPING)
    plan = mapping.plan()
    assert plan.reason is None
    messages = [Message(json.dumps(each).encode(), "s", "t", 0, number) for number, each in enumerate(batch)]

    rendered, expected = plan.render(messages), mapping.plan("reference").render(messages)

    assert rendered == expected
    assert rendered.fallback is None


def test_objects_without_a_common_name_need_no_reference_plan() -> None:
    mapping: Any = parse_mapping(MAPPING)
    plan = mapping.plan()
    plan.reference.render_message = None  # it is not called
    good = {"wo": {"halle": "7"}, "was": {"volt": 230.5}, "ort": "x", "kg": 2.5, "zeit": 1_750_000_000}
    lines = plan.render([Message(json.dumps(good).encode())] * 3).lines

    assert lines == ["p,halle=7,ort=x kg=2.5,volt=230.5 1750000000000000000"] * 3
