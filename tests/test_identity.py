"""Plan identity: what changes a rendered point changes it; comments, layout, the order of keys and examples do not."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st

from iggyflux import MappingError, parse_mapping
from iggyflux.lineprotocol import Dialect, Precision
from iggyflux.mapping import ReaderMapping, WriterMapping
from iggyflux.records import Row
from tests import strategies
from tests.strategies import cases
from tests.test_reader_law import readers, rows

OTHERS: list[Any] = [
    "b",
    "a.b",
    "lambda",
    "x y",
    "",
    0,
    1,
    1.0,
    True,
    False,
    None,
    "unix_s",
    "integer",
    "omit",
    "merge",
]
TABLES = """\
iggyflux: 1
kind: writer
name: kilns
from: {stream: works, topic: kilns}
tables: {glaze: %s}
points:
  - measurement: {const: kiln}
    tags: {kind: "join('-', keys(lookup('glaze', code)))"}
    fields: {heat: heat}
"""


def places(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths to all nodes below the root."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [found for key, child in items for found in ((*path, key), *places(child, (*path, key)))]


def edited(tree: Any, chance: random.Random) -> Any:
    """Return the document with one change: a value replaced, a key renamed, removed or copied, or keys in new order."""
    tree = copy.deepcopy(tree)
    *way, last = chance.choice(places(tree))
    parent = tree
    for step in way:
        parent = parent[step]
    match chance.randrange(4):
        case 0:
            parent[last] = chance.choice(OTHERS)
        case 1:
            del parent[last]
        case 2 if isinstance(parent, dict):
            parent[str(chance.choice(OTHERS))] = parent.pop(last)
        case _:
            return in_new_order(tree, chance)
    return tree


def in_new_order(node: Any, chance: random.Random) -> Any:
    """Return a document with the keys of all objects in another order."""
    if isinstance(node, dict):
        keys = list(node)
        chance.shuffle(keys)
        return {key: in_new_order(node[key], chance) for key in keys}
    return [in_new_order(each, chance) for each in node] if isinstance(node, list) else node


def compiled(tree: Any) -> WriterMapping | ReaderMapping:
    try:
        return strategies.compiled(tree)
    except MappingError:
        event("document refused")
        assume(False)
        raise


def law(*strategies: Any) -> Any:
    """Return a decorator: the test with few examples, and as a slow one with many."""
    checks = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]

    def decorate(body: Any) -> Any:
        @pytest.mark.parametrize(
            "examples", [10, pytest.param(300, marks=pytest.mark.slow), pytest.param(1_000, marks=pytest.mark.long)]
        )
        def test(examples: int) -> None:
            settings(max_examples=examples, deadline=None, suppress_health_check=checks)(given(*strategies)(body))()

        test.__doc__ = body.__doc__
        return test

    return decorate


@law(cases(), st.randoms(use_true_random=False))
def test_what_changes_a_point_changes_the_identity(case: Any, chance: random.Random) -> None:
    """Change one thing of a document at random: if the lines differ, the identities do."""
    document, batches = case
    before, after = compiled(document), compiled(edited(document, chance))
    assume(before.kind == after.kind)
    plans: list[Any] = [each.plan("reference") for each in (before, after)]
    differs = any(plans[0].render(batch).lines != plans[1].render(batch).lines for batch in batches)
    event(f"lines differ: {differs}")

    assert not differs or before.identity() != after.identity()


@law(readers(), rows(), st.randoms(use_true_random=False))
def test_what_changes_a_message_changes_the_identity(document: Any, batch: list[Row], chance: random.Random) -> None:
    before, after = compiled(document), compiled(edited(document, chance))
    assume(before.kind == after.kind)
    plans: list[Any] = [each.plan("reference") for each in (before, after)]
    made = [[(message, list(message.headers)) for message in plan.render(batch).messages] for plan in plans]
    differs = made[0] != made[1]
    event(f"messages differ: {differs}")

    assert not differs or before.identity() != after.identity()


@law(cases(), st.randoms(use_true_random=False))
def test_what_changes_no_point_does_not_change_the_identity(case: Any, chance: random.Random) -> None:
    """Order of keys, layout, comments, a description and examples; and the lines are indeed the same."""
    document, batches = case
    other = {**in_new_order(document, chance), "description": "of the press"}
    text = f"# a comment\n{json.dumps(other, indent=chance.randrange(9))}"
    before, after = compiled(document), compiled(text)

    assert before.identity() == after.identity()
    plans: list[Any] = [each.plan() for each in (before, after)]
    assert [list(plans[0].render(each).lines) for each in batches] == [
        list(plans[1].render(each).lines) for each in batches
    ]


def test_dialect_precision_and_tags_of_the_pipeline_are_part_of_it() -> None:
    mapping = parse_mapping(TABLES % "{}")
    all_of_them = {
        mapping.identity(dialect=dialect.value, precision=precision.value, tags=tags)
        for dialect in Dialect
        for precision in Precision
        for tags in ({}, {"works": "north"}, {"works": "south"}, {"north": "works"})
    }

    assert len(all_of_them) == 3 * 4 * 4
    assert all(len(each) == 12 and int(each, 16) >= 0 for each in all_of_them)
    assert mapping.identity(tags={"a": "1", "b": "2"}) == mapping.identity(tags={"b": "2", "a": "1"})


def test_a_reader_has_one_identity_whatever_is_written() -> None:
    reader = parse_mapping("iggyflux: 1\nkind: reader\nname: n\nfrom: {measurement: m}\nto: {stream: s, topic: t}\n")

    assert reader.identity() == reader.identity(dialect="v3", precision="s", tags={"a": "b"})


@pytest.mark.parametrize(
    ("one", "other", "are_equal"),
    [
        ("{x: {a: 1, b: 2}, y: 1}", "{x: {b: 2, a: 1}, y: 1}", False),  # `keys` shows it
        ("{x: {a: 1}}", "{x: {a: 1.0}}", False),
        ("{x: [a, 1]}", "{x: {a: 1}}", False),
        ("{x: 'ü'}", '{"x": "\\u00fc"}', True),
    ],
)
def test_the_order_of_a_table_counts_and_its_spelling_does_not(one: str, other: str, are_equal: bool) -> None:
    assert (parse_mapping(TABLES % one).identity() == parse_mapping(TABLES % other).identity()) is are_equal


def test_a_name_from_the_file_counts_as_one_in_the_document() -> None:
    """Ids of a reader's messages depend on it, and dead letters are found by it."""
    text = TABLES % "{}"
    nameless = text.replace("name: kilns\n", "")

    assert parse_mapping(nameless, file="kilns.yaml").identity() == parse_mapping(text).identity()
    assert parse_mapping(nameless, file="ovens.yaml").identity() != parse_mapping(text).identity()
