"""Warnings of `validate`: what a document says that is hardly meant, seen without a message."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from iggyflux import MappingError, load_mapping, parse_mapping
from tests.strategies import as_yaml

MAPPINGS = sorted(Path("mappings").glob("**/*.yaml"))
OF_A_SYSTEM_OF_THEIR_OWN = ("examples", "statement", "pattern")


def warnings(document: dict[str, Any] | str) -> list[str]:
    """The codes of all warnings of a document that compiles."""
    text = document if isinstance(document, str) else as_yaml(document)
    return [warning.code for warning in parse_mapping(text, format="yaml").warnings]


# --- variables of pipelines ---


def texts(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all strings in a tree, and of the keys that the author chose."""
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else []
    for key, inner in pairs:
        if key in OF_A_SYSTEM_OF_THEIR_OWN:
            continue
        if isinstance(inner, str):
            yield (*path, key)
        yield from texts(inner, (*path, key))


@pytest.mark.parametrize("file", MAPPINGS, ids=lambda file: file.stem)
@pytest.mark.parametrize("variable", ["${SITE}", "x-${lambda:-default}", "'${SITE}'"])
def test_a_variable_anywhere_in_a_mapping_is_reported(file: Path, variable: str) -> None:
    """Each string of a mapping: replaced by a variable of pipelines it is an error or a warning, never silence."""
    tree = load_mapping(file).document.tree
    for path in texts(tree):
        changed: Any = copy.deepcopy(tree)
        inner = changed
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = variable
        try:
            found = parse_mapping(as_yaml(changed), format="yaml").warnings
        except MappingError:
            continue

        assert [warning.code for warning in found if warning.code == "IFX156"], path


@pytest.mark.parametrize("tags", ['{"${SITE}": a}', '{site: {expr: a, default: "${SITE}"}}', "{site: \"'${SITE}'\"}"])
def test_a_variable_in_a_key_a_default_or_a_literal_is_reported(tags: str) -> None:
    text = "{iggyflux: 1, kind: writer, from: {stream: s, topic: t}, points: {measurement: {const: m}, tags: TAGS}}"

    assert "IFX156" in warnings(text.replace("TAGS", tags))


@pytest.mark.parametrize("value", ["$${SITE}", "${", "$SITE", "${}", "${a b}", "{SITE}"])
def test_what_is_no_variable_is_not_reported(value: str) -> None:
    document = {
        "iggyflux": 1,
        "kind": "writer",
        "from": {"stream": "s", "topic": "t"},
        "points": {"measurement": {"const": "m"}, "tags": {"self": {"const": value}}},
    }

    assert "IFX156" not in warnings(document)


@pytest.mark.parametrize(
    ("language", "statement", "expected"),
    [
        ("sql", "SELECT * FROM m WHERE time >= $start AND time < $stop LIMIT 10", ["IFX166"]),
        ("influxql", "select * from m where time >= $start and time < $stop limit 10 offset 5", ["IFX166"] * 2),
        ("flux", 'from(bucket: "b") |> range(start: $start, stop: $stop) |> limit(n: 10)', ["IFX166"]),
        ("flux", 'from(bucket: "b") |> range(start: $start, stop: $stop) |> tail( n:10)', ["IFX166"]),
        ("sql", 'SELECT "limit", speed_limit FROM m WHERE time >= $start AND time < $stop', []),
    ],
)
def test_a_limit_of_rows_in_a_statement_is_reported(language: str, statement: str, expected: list[str]) -> None:
    document = {
        "iggyflux": 1,
        "kind": "reader",
        "from": {"statement": statement, "language": language},
        "to": {"stream": "s", "topic": "t"},
    }

    assert [code for code in warnings(document) if code == "IFX166"] == expected
