"""Lists inside lists, and lists of an item of `points`: both plans, and a walk that knows nothing of either.

A battery store reports racks of modules of cells, beside alarms and fans.  In an example any list may be null, missing,
empty, or no list.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

import jmespath
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from jmespath.exceptions import JMESPathError

from iggyflux import MappingError, Message, parse_lines, parse_mapping
from iggyflux.authoring.generate import generate_messages
from iggyflux.authoring.mutations import mutate, mutations
from iggyflux.editor.completion import completions
from iggyflux.editor.coverage import cover
from iggyflux.editor.hover import hover
from iggyflux.editor.sample_checks import check_samples
from iggyflux.reads import Reads
from iggyflux.runner.failures import reason_of_failure
from tests.shell import iggyflux
from tests.test_law import outcome

AT = 1_700_000_000
_HEAD: dict[str, Any] = {
    "iggyflux": 1,
    "kind": "writer",
    "name": "store",
    "from": {"stream": "plant", "topic": "store"},
}

# --- messages: a store has racks and alarms, a rack modules and fans, a module cells ---

_NUMBERS = st.sampled_from([3.301, 21.5, 7, -0.25, 0])
_MISSING = object()
_NO_LISTS: list[Any] = [_MISSING, None, [], {}, 7, "n/a", [[]], [None]]


@st.composite
def _objects(draw: Any, members: dict[str, Any]) -> dict[str, Any]:
    made = {key: draw(values) for key, values in members.items()}
    return {key: value for key, value in made.items() if value is not _MISSING}


def _lists(elements: Any) -> Any:
    usual = st.lists(elements, min_size=1, max_size=3)
    return st.one_of(usual, usual, usual, usual, st.sampled_from(_NO_LISTS))


_CELLS = _objects({"mv": _NUMBERS, "class": st.sampled_from(["A", "B"])})
_MODULES = _objects({"no": st.sampled_from([1, 2, 3]), "volt": _NUMBERS, "cells": _lists(_CELLS)})
_FANS = _objects({"rpm": _NUMBERS, "no": st.sampled_from([1, 2])})
_RACKS = _objects(
    {"id": st.sampled_from(["r1", "r2"]), "volt": _NUMBERS, "modules": _lists(_MODULES), "fans": _lists(_FANS)}
)
STORES = _objects(
    {"site": st.just("Nord"), "volt": _NUMBERS, "racks": _lists(_RACKS), "alarms": _lists(_objects({"no": _NUMBERS}))}
)

# --- documents: the lists, and what is known of their elements ---

Lists: TypeAlias = tuple[str, ...]
_OUTER: list[Lists] = [
    (), (), ("racks",), ("racks", "modules"), ("racks[]", "modules[]"), ("racks", "modules", "cells"),
    ("racks[*].modules[]",), ("racks[?volt > `1`]", "modules[].cells[]"), ("racks", "[modules, fans][]"), ("alarms",),
    ("[@]", "racks", "fans"),
]  # fmt: skip
_OWN: list[Lists] = [
    ("racks",), ("racks", "modules"), ("modules",), ("modules[]", "cells[]"), ("cells",), ("fans",), ("alarms",),
    ("[volt, no]",), ("root().alarms",), ("modules", "[@, parent()]"),
]  # fmt: skip


@dataclass(frozen=True)
class Source:
    """An expression: `path` on the element that is `up` levels around, or on the message where it is None."""

    up: int | None
    path: str

    @property
    def text(self) -> str:
        """The expression."""
        start = {None: "root()", 0: "", 1: "parent()"}.get(self.up, f"parent(`{self.up}`)")
        return f"{start}.{self.path}" if start else self.path


@dataclass(frozen=True)
class Point:
    """An item of `points`."""

    own: Lists
    tag: Source
    fields: tuple[Source, ...]
    where: str | None


@st.composite
def documents(draw: Any) -> tuple[Lists, list[Point]]:
    outer = draw(st.sampled_from(_OUTER))
    points = []
    for _ in range(draw(st.integers(1, 2))):
        own = draw(st.sampled_from([(), (), *(lists for lists in _OWN if outer or "parent()" not in lists[-1])]))
        depth = len(outer) + len(own)
        ups = [None, 0, 0, *range(1, max(depth, 1))]
        sources = st.builds(Source, st.sampled_from(ups), st.sampled_from(["volt", "mv", "no", "rpm", "@"]))
        tags = st.builds(Source, st.sampled_from(ups), st.sampled_from(["id", "class", "site", "no"]))
        fields = [source for source in draw(st.lists(sources, min_size=1, max_size=3)) if source.text[-1:] != "@"]
        where = draw(st.sampled_from([None, None, "volt", "mv != `7`", "length(cells) > `1`", "class < 'B'"]))
        points.append(Point(own, draw(tags), (*fields, Source(0, "volt")), where))
    return outer, points


def tree_of(outer: Lists, points: Sequence[Point], *, listed: bool) -> dict[str, Any]:
    """Return the document; with `listed`, a single list is written as a list, too."""

    def written(lists: Lists) -> dict[str, Any]:
        return {} if not lists else {"for_each": [*lists] if listed or len(lists) > 1 else lists[0]}

    items = [
        {
            "measurement": {"const": f"m{number}"},
            **written(point.own),
            "tags": {"t": point.tag.text},
            "fields": {f"f{n}": {"expr": source.text, "type": "auto"} for n, source in enumerate(point.fields)},
            "timestamp": {"const": AT, "format": "unix_s", **({"spread": "index"} if outer or point.own else {})},
            **({"where": point.where} if point.where else {}),
        }
        for number, point in enumerate(points)
    ]
    return {**_HEAD, **written(outer), "points": items}


# --- a walk that knows nothing of the plans ---


class Failed(Exception):
    """A list that is none."""


def _found(expression: str, parents: Sequence[Any], element: Any, message: Any) -> list[Any]:
    if expression == "root().alarms":
        found = message.get("alarms")
    elif expression == "[@, parent()]":
        found = [element, parents[-1]]
    else:
        found = jmespath.search(expression, element)
    if found is not None and not isinstance(found, list):
        raise Failed
    return found or []


Reached: TypeAlias = "tuple[list[Any], Any] | Failed"


def _walk(lists: Lists, parents: list[Any], element: Any, message: Any, depth: int) -> Iterator[Reached]:
    """Yield the elements around each element, and itself; a list that is none once."""
    if not lists:
        yield parents, element
        return
    try:
        found = _found(lists[0], parents, element, message)
    except Failed as error:
        yield error
        return
    for each in found:
        yield from _walk(lists[1:], [*parents, element] if depth else [], each, message, depth + 1)


def expected(outer: Lists, points: Sequence[Point], message: Any) -> tuple[list[Any], int, bool]:
    """Return the points of a message in order, the number of failures, and whether it has no element at all."""
    made, failures, count = [], 0, 0
    numbers = [0] * len(points)
    for reached in _walk(outer, [], message, message, 0):
        if isinstance(reached, Failed):
            failures += 1
            continue
        for item, point in enumerate(points):
            for inner in _walk(point.own, *reached, message, len(outer)):
                if isinstance(inner, Failed):
                    failures += 1
                    continue
                count, number = count + 1, numbers[item]
                numbers[item] += 1
                around = [*inner[0], inner[1]]
                try:
                    if point.where and not jmespath.search(f"({point.where}) && `1`", inner[1]):
                        continue
                except JMESPathError:
                    failures += 1
                    continue
                values = [_value(source, around, message) for source in point.fields]
                tag = _value(point.tag, around, message)
                kept = {f"f{n}": value for n, value in enumerate(values) if value is not None}
                if not kept or any(isinstance(value, list | dict) for value in [*values, tag]):
                    failures += 1
                else:
                    made.append((f"m{item}", tag, kept, AT * 10**9 + number))
    return made, failures, not count


def _value(source: Source, around: list[Any], message: Any) -> Any:
    place = message if source.up is None else around[-1 - source.up]
    return jmespath.search(source.path, place)


# --- what must hold ---


def rendered_points(lines: Sequence[str]) -> list[Any]:
    points = parse_lines("\n".join(lines).encode(), dialect="v2")
    return [(point.measurement, point.tags.get("t"), dict(point.fields), point.timestamp_ns) for point in points]


def _text(tag: Any) -> str | None:
    return tag if tag is None or isinstance(tag, str) else str(tag)


_SETTINGS = settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))


@_SETTINGS
@given(document=documents(), stores=st.lists(STORES, min_size=1, max_size=3), listed=st.booleans())
def test_points_are_made_for_each_element_of_each_list(document: Any, stores: list[Any], listed: bool) -> None:
    """Rule 10.  Both plans make the points of a plain walk over the lists, in its order, in any batch."""
    outer, points = document
    mapping = parse_mapping(json.dumps(tree_of(outer, points, listed=listed)), format="yaml")
    compiled: Any = mapping.plan("compiled")
    reference: Any = mapping.plan("reference")
    batch = [Message(json.dumps(store).encode()) for store in stores]
    rendered = reference.render(batch)
    event("static" if "Struct, gc=False" in compiled.source else "dynamic")

    assert outcome(compiled.render(batch)) == outcome(rendered)
    assert compiled.render(batch).fallback is None
    for index, store in enumerate(stores):
        made, failures, is_empty = expected(outer, points, store)
        lines = [line for line, origin in zip(rendered.lines, rendered.origins, strict=True) if origin == index]

        assert rendered_points(lines) == [(name, _text(tag), fields, time) for name, tag, fields, time in made]
        assert sum(failure.count for failure in rendered.failures if failure.index == index) == failures
        assert (index in rendered.empty) == (is_empty and not failures)
        assert reference.render([batch[index]]).lines == lines


@_SETTINGS
@given(document=documents(), store=STORES)
def test_what_lists_do_not_read_is_not_decoded(document: Any, store: Any) -> None:
    """A payload of which only what the mapping reads is decoded gives the same result."""
    tree = tree_of(*document, listed=False)
    plan: Any = parse_mapping(json.dumps(tree), format="yaml").plan("reference")
    whole: Any = parse_mapping(json.dumps(tree), format="yaml").plan("reference")
    whole._reads = Reads.WHOLE
    message = Message(json.dumps(store).encode())

    assert outcome(plan.render([message])) == outcome(whole.render([message]))


STORE = {
    "site": "Nord",
    "racks": [
        {"id": "r1", "modules": [{"no": 1, "cells": [{"mv": 3301}, {"mv": "n/a"}]}, {"no": 2, "cells": 7}], "fans": {}},
        {"id": "r2", "modules": [{"no": 1, "cells": [{"mv": 3305}]}], "fans": [{"rpm": 900}]},
    ],
}
CELLS = {
    "measurement": {"const": "cell"},
    "tags": {"rack": "parent(`2`).id", "module": "parent().no"},
    "fields": ["mv"],
    "timestamp": {"const": AT, "format": "unix_s", "spread": "index"},
}
FANS = {
    "measurement": {"const": "fan"},
    "for_each": "fans",
    "tags": {"rack": "parent().id"},
    "fields": ["rpm"],
    "timestamp": {"const": AT, "format": "unix_s"},
}
RACKS = {
    "measurement": {"const": "rack"},
    "tags": ["id"],
    "fields": {"modules": "length(modules)"},
    "timestamp": {"const": AT, "format": "unix_s"},
}


def rendered(tree: dict[str, Any], message: Any) -> Any:
    """What both plans make of a message."""
    mapping = parse_mapping(json.dumps(_HEAD | tree), format="yaml")
    found, compiled = (
        mapping.plan(kind).render([Message(json.dumps(message).encode())]) for kind in ("reference", "compiled")
    )

    assert outcome(found) == outcome(compiled)
    return found


def test_a_list_that_is_none_fails_for_its_own_element_only() -> None:
    """Rule 10.  All other cells are points; each failure says which element it is, and where it is in the lists."""
    found = rendered({"for_each": ["racks", "modules", "cells"], "points": CELLS}, STORE)

    assert list(found.lines) == [
        "cell,module=1,rack=r1 mv=3301.0 1700000000000000000",
        "cell,module=1,rack=r2 mv=3305.0 1700000000000000002",
    ]
    assert [(each.code, each.location, each.element, each.elements, each.point) for each in found.failures] == [
        ("IFX340", "/points/fields/0", 1, (0, 0, 1), 0),
        ("IFX343", "/for_each/2", 1, (0, 1), None),
    ]
    assert [each.shown_element for each in found.failures] == ["element 0.0.1", "element 0.1"]


def test_where_an_element_is_in_nested_lists_is_kept_with_its_failure(tmp_path: Path) -> None:
    """In dead letters, and in what `dry-run` prints for machines."""
    tree = {"for_each": ["racks", "modules", "cells"], "points": CELLS}
    reasons = [reason_of_failure(each) for each in rendered(tree, STORE).failures]
    (tmp_path / "store.yaml").write_text(json.dumps(_HEAD | tree))
    shown = iggyflux(
        "dry-run", str(tmp_path / "store.yaml"), "-", "--format", "json", stdin=json.dumps(STORE).encode()
    ).out.splitlines()[0]

    assert [each.elements for each in reasons] == [(0, 0, 1), (0, 1)]
    assert [each["elements"] for each in json.loads(shown)["failures"]] == [[0, 0, 1], [0, 1]]


def test_a_record_without_values_is_told_where_others_are() -> None:
    """The time of a cell is a member of its module: the hint names parent() and root()."""
    point = {"measurement": {"const": "m"}, "fields": ["mv"], "timestamp": {"expr": "ts", "format": "unix_s"}}
    found = rendered({"for_each": ["racks", "modules"], "points": point | {"for_each": "cells"}}, STORE)
    rack = rendered({"for_each": "racks", "points": point}, STORE)

    hint = "parent() is the element around it, root() is the whole message"
    assert [each.code for each in found.failures if hint in (each.hint or "")] == ["IFX350", "IFX350"]
    assert [hint in (each.hint or "") for each in rack.failures] == [False, False]


def test_a_list_of_a_point_leaves_the_other_points_alone() -> None:
    """Rule 10.  The fans of the first rack are an object; its own point is made."""
    found = rendered({"for_each": "racks", "points": [RACKS, FANS]}, STORE)

    assert list(found.lines) == [
        "rack,id=r1 modules=2.0 1700000000000000000",
        "rack,id=r2 modules=1.0 1700000000000000000",
        "fan,rack=r2 rpm=900.0 1700000000000000000",
    ]
    assert [(each.location, each.element, each.point) for each in found.failures] == [("/points/1/for_each", 0, 1)]


def test_elements_of_a_points_own_list_may_collide() -> None:
    """Rule 22.  Two fans without a tag that tells them apart are two points of one series and time."""
    fans = {"measurement": {"const": "fan"}, "for_each": "fans", "fields": ["rpm"], "timestamp": FANS["timestamp"]}
    found = rendered({"points": fans}, {"fans": [{"rpm": 900}, {"rpm": 880}]})

    assert (list(found.lines), [(each.code, each.element) for each in found.failures]) == (
        ["fan rpm=900.0 1700000000000000000"],
        [("IFX351", 1)],
    )


def test_a_message_without_any_element_is_empty_and_one_whose_conditions_are_false_is_skipped() -> None:
    """Rule 10.  Where a point needs no element of its own, the message is never empty."""
    fans = {"measurement": {"const": "fan"}, "for_each": "fans", "fields": ["rpm"]}
    device = {"measurement": {"const": "store"}, "where": "volt", "fields": ["volt"]}

    assert list(rendered({"points": fans}, {"fans": []}).empty) == [0]
    assert list(rendered({"points": [fans, fans | {"for_each": "alarms"}]}, {}).empty) == [0]
    assert list(rendered({"points": [fans, device]}, {"fans": []}).skipped) == [0]
    assert list(rendered({"points": fans | {"where": "rpm"}}, {"fans": [{}]}).skipped) == [0]
    assert list(rendered({"for_each": "racks", "points": fans}, {"racks": [{}, {"fans": None}]}).empty) == [0]


def test_the_elements_of_all_lists_of_a_message_have_a_thousand_nanoseconds() -> None:
    """Rule 18.  `spread: index` counts through the message, so the 1,001st cell has no room."""
    store = {"racks": [{"modules": [{"cells": [{"mv": 1}] * 501}, {"cells": [{"mv": 2}] * 500}]}]}
    found = rendered({"for_each": ["racks", "modules", "cells"], "points": CELLS}, store)

    assert len({line.rpartition(" ")[2] for line in found.lines}) == len(found.lines) == 1000
    assert [(each.code, each.elements) for each in found.failures] == [("IFX353", (0, 1, 499))]


@pytest.mark.parametrize(
    ("tree", "pointer"),
    [
        ({"points": RACKS | {"tags": {"t": "parent().id"}}}, "/points/tags/t"),
        ({"for_each": "racks", "points": CELLS | {"tags": {"t": "parent().id"}}}, "/points/tags/t"),
        ({"for_each": ["racks"], "points": CELLS | {"tags": {"t": "parent().id"}}}, "/points/tags/t"),
        ({"for_each": ["racks", "modules"], "points": CELLS}, "/points/tags/rack"),
        ({"for_each": ["racks", "parent().modules"], "points": CELLS | {"tags": {}}}, "/for_each/1"),
        ({"where": "parent()", "for_each": ["racks", "modules"], "points": CELLS | {"tags": {}}}, "/where"),
        ({"points": [FANS]}, "/points/0/tags/rack"),
        ({"for_each": ["racks", "modules"], "points": [FANS, CELLS]}, "/points/1/tags/rack"),
        ({"for_each": "racks", "points": FANS | {"for_each": "parent().fans"}}, "/points/for_each"),
    ],
)
def test_an_element_that_nothing_is_around_has_no_parent(tree: dict[str, Any], pointer: str) -> None:
    """Rule 10.  The document has an error, and its hint is what to write instead."""
    with pytest.raises(MappingError) as caught:
        parse_mapping(json.dumps(_HEAD | tree), format="yaml")

    [problem] = [each for each in caught.value.problems if each.severity == "error"]
    assert (problem.code, problem.location.pointer) == ("IFX216", pointer)
    before = "in this `for_each` `@` is the element of the list before"
    assert (before if "/for_each" in pointer else "root() ") in (problem.hint or "")


@pytest.mark.parametrize(
    ("lists", "hint"),
    [
        ("racks[].modules[]", 'for parent() write for_each: ["racks", "modules"]'),
        ("racks[*].modules", 'for parent() write for_each: ["racks", "modules"]'),
        ("a.racks[].modules[].cells[]", 'for parent() write for_each: ["a.racks", "modules", "cells"]'),
        ("racks[?a].modules[]", 'parent() needs nested lists, such as `for_each: ["outer", "inner"]`'),
        ("racks", 'parent() needs nested lists, such as `for_each: ["outer", "inner"]`'),
    ],
)
def test_lists_that_are_flattened_have_no_parents_and_the_hint_writes_them_one_by_one(lists: str, hint: str) -> None:
    tree = {"for_each": lists, "points": RACKS | {"tags": {"t": "parent().id"}}}
    with pytest.raises(MappingError) as caught:
        parse_mapping(json.dumps(_HEAD | tree), format="yaml")

    (problem,) = [each for each in caught.value.problems if each.severity == "error"]
    assert problem.hint == f"root() is the whole message; {hint}"


@pytest.mark.parametrize("level", ["`0`", "`-1`", "`1.0`", "`1e400`", "'1'", "`true`", "no", "`null`"])
def test_a_level_is_a_whole_number_from_one(level: str) -> None:
    tree = {"for_each": ["racks", "modules"], "points": RACKS | {"fields": {"x": f"parent({level}).y"}}}
    with pytest.raises(MappingError) as caught:
        parse_mapping(json.dumps(_HEAD | tree), format="yaml")

    assert {each.location.pointer for each in caught.value.problems} == {"/points/fields/x"}


def test_a_star_omits_what_is_used_of_the_same_element() -> None:
    """Rule 16.  `"*": parent()` leaves out what other parts read by `parent()`, and not what they read by `@`."""
    star = {"measurement": {"const": "m"}, "tags": {"t": "parent().id", "n": "volt"}, "fields": {"*": "parent()"}}
    message = {"racks": [{"id": "r1", "volt": 48, "class": "A", "modules": [{"volt": 3}]}]}
    tree = {"for_each": ["racks", "modules"], "points": star | {"timestamp": {"const": AT, "format": "unix_s"}}}
    found = rendered(
        tree | {"points": tree["points"] | {"fields": {"*": {"expr": "parent()", "exclude": "modules"}}}}, message
    )

    assert list(found.lines) == ['m,n=3,t=r1 class="A",volt=48.0 1700000000000000000']


# --- the language service and what makes messages ---

SAMPLES = [Message(json.dumps(STORE).encode(), stream="plant", topic="store")]
TEXT = """\
iggyflux: 1
kind: writer
from: {stream: plant, topic: store}
for_each: ["racks", "modules"]
points:
  - measurement: {const: module}
    tags: {rack: "parent().id", no: "no"}
    fields: {cells: "length(cells)"}
    timestamp: {const: 0, format: unix_s}
  - measurement: {const: cell}
    for_each: ["cells[?mv]"]
    tags: {rack: "parent(`2`).id", module: "parent().no", cell: "index()"}
    fields: {mv: "mv"}
    timestamp: {const: 0, format: unix_s}
"""


@pytest.mark.parametrize(
    ("old", "new", "members"),
    [
        ('["racks", "modules"]', '["|", "modules"]', {"site", "racks"}),
        ('["racks", "modules"]', '["racks", "|"]', {"id", "modules", "fans"}),
        ('["racks", "modules"]', '["racks", "modules", "|"]', {"no", "cells"}),
        ('"parent().id", no', '"parent().|", no', {"id", "modules", "fans"}),
        ('no: "no"}', 'no: "|"}', {"no", "cells"}),
        ('no: "no"}', 'no: "root().|"}', {"site", "racks"}),
        ('["cells[?mv]"]', '["|"]', {"no", "cells"}),
        ('["cells[?mv]"]', '"cells[?|]"', {"mv"}),
        ('["cells[?mv]"]', '"parent().|"', {"id", "modules", "fans"}),
        ('module: "parent().no"', 'module: "parent().|"', {"no", "cells"}),
        ('module: "parent().no"', 'module: "parent(`2`).|', {"id", "modules", "fans"}),
        ('{mv: "mv"}', '{mv: "|"}', {"mv"}),
        ('{mv: "mv"}', "[|]", {"mv"}),
        ('{mv: "mv"}', "{|}", {"mv"}),
    ],
)  # fmt: skip
def test_members_of_the_element_at_the_cursor_are_proposed(old: str, new: str, members: set[str]) -> None:
    """Also while the document has no meaning yet."""
    assert TEXT.count(old) == 1
    text = TEXT.replace(old, new)
    offset = text.index("|")
    found = completions(text[:offset] + text[offset + 1 :], offset, SAMPLES)

    assert {each.label for each in found if each.kind == "member"} == members


def test_hover_shows_the_values_of_the_element_around() -> None:
    for word, value in (("id", '`"r1"`'), ("no", "`1`"), ("mv", "`3301`")):
        found = hover(TEXT, TEXT.rindex(word), SAMPLES)

        assert found is not None
        assert value in found.text


def test_samples_are_looked_at_element_by_element() -> None:
    """A member that only an outer element has is reported on an inner one, and so is parent without parentheses."""
    mapping: Any = parse_mapping(TEXT, format="yaml")
    wrong: Any = parse_mapping(TEXT.replace('no: "no"', 'no: "id"').replace('{mv: "mv"}', '{mv: "mv", r: "parent.no"}'))

    assert [each.message for each in check_samples(mapping, SAMPLES) if each.code == "IFX157"] == []
    assert [each.message for each in check_samples(wrong, SAMPLES) if each.code == "IFX157"] == [
        "no sample has a member id",
        "no sample has a member parent",
    ]


def test_coverage_and_mutations_know_the_lists() -> None:
    """Each list must have an element in an example; dropping a list is a change that an example notices."""
    tree = parse_mapping(TEXT, format="yaml").document.tree
    shown = {
        "racks": [
            {"id": "r1", "modules": [{"no": 1, "cells": [{"mv": 1}, {"mv": 2}]}, {"no": 2, "cells": [{"mv": 3}]}]}
        ]
    }
    lines = [
        "module,no=1,rack=r1 cells=2.0 0",
        "cell,cell=0,module=1,rack=r1 mv=1.0 0",
        "cell,cell=1,module=1,rack=r1 mv=2.0 0",
        "module,no=2,rack=r1 cells=1.0 0",
        "cell,cell=0,module=2,rack=r1 mv=3.0 0",
    ]
    documents = [json.dumps({**tree, "examples": [{"message": each, "points": points}]}) for each, points in
                 ((shown, lines), ({"racks": [{"modules": [{"no": 1, "cells": []}]}]}, []))]  # fmt: skip
    full, part = (parse_mapping(text, format="yaml", name="n") for text in documents)
    pointers = {each.location.pointer for each in mutate(full).unnoticed}

    assert cover(full).missing == ()
    assert "no example makes this point" in {each.message for each in cover(part).missing}
    assert {"/for_each/0", "/for_each/1", "/points/1/for_each/0"}.isdisjoint(pointers)
    assert {"/for_each/1", "/points/1/for_each/0"} <= {each.pointer for each in mutations(full.document.tree)}


def test_messages_can_be_made_up_for_nested_lists() -> None:
    mapping = parse_mapping(TEXT.replace("length(cells)", "no"), format="yaml", name="store")
    plan: Any = mapping.plan()

    lines = plan.render(
        list(islice(generate_messages(mapping, seed=1, start_ns=AT * 10**9, interval_ns=10**9), 20))
    ).lines
    assert {line.partition(",")[0] for line in lines} == {"module", "cell"}


def test_the_plan_is_explained_list_by_list(tmp_path: Path) -> None:
    (tmp_path / "store.yaml").write_text(TEXT)
    said = iggyflux("explain", tmp_path / "store.yaml").out

    assert "  for each of  racks\n  and in it each of  modules\n" in said
    assert "for each of                  cells[?mv]\n" in said
    assert "    racks[].id\n    racks[].modules[].cells\n    racks[].modules[].no\n" in said
