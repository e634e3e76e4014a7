"""`"*"`: what it takes and what it omits (LANGUAGE 16), compared with an independent walk over the payload."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iggyflux import Message, parse_lines, parse_mapping

NAMES = st.sampled_from(["lambda", "def", "über", "x y", "0", "a_b", "self", "items"])
Path = tuple[str | int, ...]


def objects(depth: int) -> Any:
    """Objects with numbers as leaves; no two leaves have one name after flattening with `/`."""
    inner = st.integers(0, 99)
    if depth:
        inner = st.one_of(inner, inner, objects(depth - 1), st.lists(st.one_of(inner, objects(depth - 1)), max_size=2))
    return st.dictionaries(NAMES, inner, max_size=4)


def leaves(value: Any, path: Path = ()) -> list[Path]:
    """The paths of all scalars in a value."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    return [path] if pairs is None else [leaf for key, each in pairs for leaf in leaves(each, (*path, key))]


def expression(path: Path) -> str:
    """The static path to a value."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{json.dumps(step, ensure_ascii=False)}"
    return text.removeprefix(".")


def writer(points: dict[str, Any]) -> dict[str, Any]:
    """A document of these points."""
    return {"iggyflux": 1, "kind": "writer", "name": "n", "from": {"stream": "s", "topic": "t"}, "points": points}


def rendered(document: dict[str, Any], payload: Any, plan: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Fields and tags of the only line."""
    mapping = parse_mapping(json.dumps(document, ensure_ascii=False), format="yaml")
    found = mapping.plan(plan).render([Message(json.dumps(payload).encode())])

    assert [failure.reason for failure in found.failures] == []
    [point] = parse_lines("\n".join(found.lines))
    return dict(point.fields), dict(point.tags)


@settings(max_examples=150, deadline=None)
@given(data=st.data(), payload=objects(2))
def test_with_flatten_each_leaf_is_in_the_line_once(data: st.DataObject, payload: dict[str, Any]) -> None:
    """Tags, a named field and the timestamp use some leaves; the star takes all others."""
    found = leaves(payload)
    used = data.draw(st.lists(st.sampled_from(found), unique=True, max_size=3)) if found else []
    document = writer(
        {
            "measurement": {"const": "m"},
            "tags": {f"tag {number}": expression(path) for number, path in enumerate(used)},
            "fields": {"fixed": {"const": 1}, "*": {"expr": "@", "flatten": "/"}},
        }
    )
    expected = {"/".join(map(str, path)) for path in found if path not in used} | {"fixed"}

    for plan in ("compiled", "reference"):
        fields, tags = rendered(document, payload, plan)
        assert set(fields) == expected
        assert len(tags) == len(used)


@settings(max_examples=150, deadline=None)
@given(data=st.data(), payload=st.fixed_dictionaries({"xs": st.lists(objects(2), min_size=1, max_size=2)}))
def test_a_star_of_any_place_takes_each_leaf_that_is_not_used(data: st.DataObject, payload: dict[str, Any]) -> None:
    """The star is of an element of a list, and parts of other elements are used too."""
    index = data.draw(st.integers(0, len(payload["xs"]) - 1))
    found = leaves(payload)
    used = data.draw(st.lists(st.sampled_from(found), unique=True, max_size=3)) if found else []
    document = writer(
        {
            "measurement": {"const": "m"},
            "tags": {f"tag {number}": expression(path) for number, path in enumerate(used)},
            "fields": {"fixed": {"const": 1}, "*": {"expr": expression(("xs", index)), "flatten": "/"}},
        }
    )
    expected = {"/".join(map(str, path[2:])) for path in found if path[:2] == ("xs", index) and path not in used}

    for plan in ("compiled", "reference"):
        fields, tags = rendered(document, payload, plan)
        assert set(fields) == expected | {"fixed"}
        assert len(tags) == len(used)


@pytest.mark.parametrize("plan", ["compiled", "reference"])
@pytest.mark.parametrize(
    ("star", "source", "missing"),
    [
        ("d.w[0]", "d.w[0].p", {"p"}),
        ("d.w[0]", "d.w[1].p", set()),
        ("d.w[0]", "sum(d.w[].p)", {"p"}),
        ("d.w[-2]", "d.w[-2].p", {"p"}),
        ("d.w[-2]", "d.w[0].p", set()),  # the same element here, another one where the list is longer
        ("root().d.w[0]", "d.w[0].q", {"q"}),
        ("d.w | [0]", "d.w[0].q", {"q"}),
    ],
)
@pytest.mark.parametrize("flatten", [{}, {"flatten": "_"}])
def test_a_star_of_an_element_omits_what_is_used_of_that_element(
    star: str, source: str, missing: set[str], flatten: dict[str, str], plan: str
) -> None:
    document = writer(
        {"measurement": {"const": "m"}, "tags": {"k": source}, "fields": {"e": "e", "*": {"expr": star, **flatten}}}
    )
    fields, _ = rendered(document, PAYLOAD, plan)

    assert set(fields) == {"e", "p", "q"} - missing


PAYLOAD = {"d": {"id": "x", "v": 1, "w": [{"p": 2, "q": 3}, {"p": 4}]}, "e": 5, "t": 7}


@pytest.mark.parametrize("plan", ["compiled", "reference"])
@pytest.mark.parametrize(
    ("source", "missing"),
    [
        ("d.id", {"d_id"}),
        ("root().d.id", {"d_id"}),
        ("@ | d | id", {"d_id"}),
        ("upper(d.id)", {"d_id"}),
        ("d.w[0].p", {"d_w_0_p"}),
        ("d.w[-1].p", {"d_w_0_p", "d_w_1_p"}),
        ("sum(d.w[].p)", {"d_w_0_p", "d_w_1_p"}),
        ("d.w[?q].p | [0]", {"d_w_0_p", "d_w_1_p", "d_w_0_q"}),
        ("length(d.w)", {"d_w_0_p", "d_w_1_p", "d_w_0_q"}),
        ("add(e, d.v)", {"e", "d_v"}),
        ("length(@)", set()),
        ("d.none", set()),
        ("e.none", set()),
        ("meta('topic')", set()),
    ],
)
def test_what_another_part_reads_is_omitted_and_nothing_beside_it(source: str, missing: set[str], plan: str) -> None:
    document = writer(
        {
            "measurement": {"const": "m"},
            "tags": {"k": source},
            "fields": {"*": {"expr": "@", "flatten": "_"}},
        }
    )
    fields, _ = rendered(document, PAYLOAD, plan)

    assert set(fields) == {"d_id", "d_v", "d_w_0_p", "d_w_0_q", "d_w_1_p", "e", "t"} - missing


@pytest.mark.parametrize("plan", ["compiled", "reference"])
def test_without_flatten_a_member_of_which_a_part_is_used_is_omitted(plan: str) -> None:
    """Its rest could not be written anyway."""
    document = writer({"measurement": {"const": "m"}, "tags": {"k": "d.id"}, "fields": {"*": "@"}})

    assert rendered(document, PAYLOAD, plan) == ({"e": 5.0, "t": 7.0}, {"k": "x"})


@pytest.mark.parametrize("plan", ["compiled", "reference"])
def test_a_star_of_a_member_omits_what_is_used_inside_of_it(plan: str) -> None:
    document = writer(
        {
            "measurement": {"const": "m"},
            "tags": {"k": "d.id", "l": "d.w[1].p"},
            "fields": {"*": {"expr": "d", "flatten": "_"}, "all_*": {"expr": "@", "flatten": "."}},
        }
    )
    fields, _ = rendered(document, PAYLOAD, plan)

    assert set(fields) == {"v", "w_0_p", "w_0_q", "all_e", "all_t"}


# --- two of them ---

TWO = """\
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
keys = st.sampled_from(["a", "b", "é", "ort", "kg", "zeit", "", "tür 1"])
values = st.sampled_from([None, "", "x", "größe", 1, 2.5, True, {"a": 1}])
members = st.one_of(st.none(), st.dictionaries(keys, values, max_size=4))
payloads = st.fixed_dictionaries(
    {"wo": members, "was": members, "ort": values, "kg": values, "zeit": st.just(1_750_000_000)}
)


@settings(max_examples=300)
@given(st.lists(payloads, min_size=1, max_size=8))
def test_tags_and_fields_of_all_members_are_those_of_the_reference_plan(batch: list[dict[str, Any]]) -> None:
    """A member that would be a tag and a field fails its message, and no other."""
    mapping: Any = parse_mapping(TWO)
    plan = mapping.plan()
    assert plan.reason is None
    messages = [Message(json.dumps(each).encode(), "s", "t", 0, number) for number, each in enumerate(batch)]

    rendered, expected = plan.render(messages), mapping.plan("reference").render(messages)

    assert rendered == expected
    assert rendered.fallback is None


def test_objects_without_a_common_name_need_no_reference_plan() -> None:
    mapping: Any = parse_mapping(TWO)
    plan = mapping.plan()
    plan.reference.render_message = None  # it is not called
    good = {"wo": {"halle": "7"}, "was": {"volt": 230.5}, "ort": "x", "kg": 2.5, "zeit": 1_750_000_000}
    lines = plan.render([Message(json.dumps(good).encode())] * 3).lines

    assert lines == ["p,halle=7,ort=x kg=2.5,volt=230.5 1750000000000000000"] * 3
