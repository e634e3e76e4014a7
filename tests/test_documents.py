"""Documents: text to trees with places, in both formats, and the check against a schema."""

from __future__ import annotations

import copy
import datetime
import json
import math
import re
import string
import time
import tomllib
from contextlib import suppress
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iggyflux.documents import Document, check_schema, join_pointer, load_schema, parse_document, read_document
from iggyflux.documents.nodes import Node
from iggyflux.documents.offsets import Style, source_offsets
from iggyflux.documents.schema import ANNOTATIONS, KEYWORDS, check_tree
from iggyflux.documents.text import MAX_BYTES, MAX_DEPTH, MOST_FAULTS
from iggyflux.errors import DecodeError, DocumentError, Problem
from iggyflux.payloads import FORMATS
from iggyflux.timestamps import parse_rfc3339
from iggyflux.values import FieldType

DESIGN = (Path(__file__).parent / "cases" / "design.yaml").read_text()


def problems_of(text: str | bytes, form: str = "yaml") -> list[tuple[str, int, int]]:
    """Return code, line and column of everything that prevents reading `text`."""
    with pytest.raises(DocumentError) as caught:
        parse_document(text, format=form)
    return [(found.code, found.location.line, found.location.column) for found in caught.value.problems]


# --- scalars ---

CORE_SCALARS = [
    *((text, None) for text in ("", "~", "null", "Null", "NULL")),
    *((text, True) for text in ("true", "True", "TRUE")),
    *((text, False) for text in ("false", "False", "FALSE")),
    *((text, text) for text in ("yes", "no", "on", "off", "y", "n", "Yes", "NO", "nULL", "tRue")),
    *((text, text) for text in ("1_000", "0b11", "0O17", "0o18", "0xG", "1:30", "190:20:30", "1e", "e3", ".", "+")),
    *((text, text) for text in ("2026-01-01", "2026-01-01T00:00:00Z", "2026-01-01 00:00:00", "=", "<<")),
    *((text, text) for text in ("+0x1F", "-0o7", ".Nan", "+.nan", "0.1.2", "١٢")),
    ("0", 0),
    ("-0", 0),
    ("012", 12),
    ("+7", 7),
    ("0o17", 15),
    ("0x1F", 31),
    ("18446744073709551616", 2**64),
    ("1e3", 1000.0),
    ("1.", 1.0),
    (".5", 0.5),
    ("-.5", -0.5),
    ("+1.5E-2", 0.015),
    ("1E+2", 100.0),
]


@pytest.mark.parametrize(("text", "value"), CORE_SCALARS, ids=[repr(text) for text, _ in CORE_SCALARS])
def test_a_plain_scalar_follows_yaml_1_2(text: str, value: object) -> None:
    """Rule 3.  The core schema only: no dates, no `no`, no underscores."""
    tree = parse_document(f"key: {text}").tree

    assert tree == {"key": value}
    assert type(tree["key"]) is type(value)  # type: ignore[index,call-overload]


@pytest.mark.parametrize("text", ["'5'", '"true"', '"null"', "'~'", "!!str 5", "! 5", "|-\n  5", ">-\n  5"])
def test_a_scalar_with_quotes_is_a_string(text: str) -> None:
    assert isinstance(parse_document(f"key: {text}").tree["key"], str)  # type: ignore[index,call-overload]


@pytest.mark.parametrize("text", [".inf", "-.INF", "+.Inf", ".nan", "1e400", "-1e999", "9" * 401, "0x" + "f" * 400])
def test_a_number_without_a_double_is_rejected(text: str) -> None:
    assert problems_of(f"key: {text}") == [("IFX108", 1, 6)]


@pytest.mark.parametrize("text", ["inf", "-inf", "nan", "1e400", "9" * 5000])
def test_a_number_without_a_double_is_rejected_in_toml(text: str) -> None:
    assert problems_of(f"key = {text}", "toml") == [("IFX108", 1, 7)]


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-01",
        "07:32:00",
        "07:32:00.999999",
        "2026-01-01T00:00:00Z",
        "2026-01-01 00:00:00.5+02:00",
        "2026-01-01t00:00:00",
    ],
)
def test_a_toml_datetime_is_its_source_text(text: str) -> None:
    """Rule 3."""
    assert parse_document(f"a = [{text}, 1] # x\nb = {text}", format="toml").tree == {"a": [text, 1], "b": text}


# --- text that cannot be read ---

REFUSED = {
    "nul byte": (b"a: \0", "IFX103"),
    "invalid utf-8": (b"a: \xff", "IFX103"),
    "truncated utf-8": (b"a: \xe2\x82", "IFX103"),
    "half of utf-16": ("a: b".encode("utf-16")[:-1], "IFX103"),
    "lone surrogate in utf-16": (b"\xff\xfea\x00:\x00 \x00\x00\xd8", "IFX103"),
    "utf-16 without a mark": ("a: b".encode("utf-16-le"), "IFX103"),
    "control character": ("a: \x1b", "IFX103"),
    "lone surrogate": ("a: \ud800", "IFX103"),
    "escaped lone surrogate": ('a: "\\ud800"', "IFX103"),
    "line separator": ("a: b\u2028c", "IFX103"),
    "next line": ("a: b\x85c", "IFX103"),
    "too long": ("a" * (MAX_BYTES + 1), "IFX104"),
    "too deep in flow": ("[" * (MAX_DEPTH + 1), "IFX104"),
    "too deep in blocks": ("- " * (MAX_DEPTH + 1), "IFX104"),
    "too deep by aliases": (
        "a: &a " + "[" * 60 + "]" * 60 + "\nb: " + "[" * 60 + "*a" + "]" * 60,
        "IFX104",
    ),
    "exploding aliases": (
        "a: &a [" + "1," * 99 + "1]\nb: &b [" + "*a," * 99 + "*a]\nc: [" + "*b," * 99 + "*b]",
        "IFX104",
    ),
    "alias in its own anchor": ("a: &a [*a]", "IFX107"),
    "alias without anchor": ("a: *b", "IFX107"),
    "python tag": ("a: !!python/object:os.system x", "IFX107"),
    "tag on an object": ("a: !!set {b: c}", "IFX107"),
    "number tag on a word": ("a: !!int x", "IFX107"),
    "second document": ("a: b\n---\nc: d", "IFX107"),
    "yaml 1.1": ("%YAML 1.1\n---\na: b", "IFX107"),
    "duplicate key": ("a: 1\nb: 2\na: 3", "IFX105"),
    "duplicate key in other quotes": ("{a: 1, 'a': 2}", "IFX105"),
    "number as key": ("1: a", "IFX106"),
    "null as key": ("~: a", "IFX106"),
    "no key": (": a", "IFX106"),
    "list as key": ("? [a]\n: b", "IFX106"),
    "object as key": ("{a: b}: c", "IFX106"),
    "tab": ("a:\n\tb: c", "IFX101"),
    "empty": ("", "IFX101"),
    "comment only": ("# a\n\n", "IFX101"),
    "escape beyond unicode": ('a: "\\U00110000"', "IFX101"),
    "escape beyond an int": ('a: "\\UFFFFFFFF"', "IFX101"),
}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a:\n\tb: c", "tabs are not allowed as indentation"),
        ("a:\n  \tb: c", "tabs are not allowed as indentation"),
        ("a:\tb", "a tab is not allowed before a value"),
    ],
)
def test_the_message_for_a_tab_depends_on_its_place(text: str, message: str) -> None:
    with pytest.raises(DocumentError) as caught:
        parse_document(text)

    assert [problem.message for problem in caught.value.problems] == [message]


@pytest.mark.parametrize("text", ["{", "[\n", "a: {", "a: {b: 1,\n", "a: [1, [\n# more\n"])
def test_an_open_bracket_at_the_end_is_reported(text: str) -> None:
    with pytest.raises(DocumentError) as caught:
        parse_document(text)

    (problem,) = caught.value.problems
    assert problem.message == "expected a value or a closing bracket, found the end of the document"


@pytest.mark.parametrize("name", REFUSED)
def test_text_that_cannot_be_read_is_reported_with_its_place(name: str) -> None:
    text, code = REFUSED[name]

    found = problems_of(text)

    assert [code] == [kind for kind, _, _ in found]
    assert all(line > 0 and column > 0 for _, line, column in found)


def test_every_problem_of_the_text_is_reported_at_once() -> None:
    found = problems_of("a: 1\na: 2\n1: x\nb: .inf\nc: !x y\nd: *e")

    assert found == [("IFX105", 2, 1), ("IFX106", 3, 1), ("IFX108", 4, 4), ("IFX107", 5, 4), ("IFX107", 6, 4)]


FAULTS = {
    "a key twice": ("yaml", "a: 1\nb: {c: x, c: y}\nd: 2\n", {"a": 1, "b": {"c": "x"}, "d": 2}, [("IFX105", "/b/c")]),
    "a key that is no string": ("yaml", "1: a\nb: c\n", {"1": "a", "b": "c"}, [("IFX106", "/1")]),
    "a key that is an object": ("yaml", "{a: b}: c\nd: e\n", {"d": "e"}, [("IFX106", "")]),
    "no finite number": ("yaml", "a: .inf\nb: c\n", {"a": 0, "b": "c"}, [("IFX108", "/a")]),
    "a tag": ("yaml", "a: !b c\nd: e\n", {"a": "c", "d": "e"}, [("IFX107", "/a")]),
    "an alias of nothing": ("yaml", "a: [*b, c]\n", {"a": [None, "c"]}, [("IFX107", "/a/0")]),
    "another YAML": ("yaml", "%YAML 1.1\n---\na: b\n", {"a": "b"}, [("IFX107", "")]),
    "two documents": ("yaml", "a: b\n---\nc: [\n", {"a": "b"}, [("IFX107", "")]),
    "half a pair": ("yaml", 'a: "\\ud800"\nb: c\n', {"a": "\ufffd", "b": "c"}, [("IFX103", "/a")]),
    "a line separator": ("yaml", "a: b\u2028c\nd: e\n", {"a": "b c", "d": "e"}, [("IFX103", "")]),
    "a key twice in TOML": (
        "toml",
        "a = 1\na = 2\n[b]\nc = 1\n[b]\nd = 1\n[e]\nf = {g = 1, g = 2}\n",
        {"a": 1, "b": {"c": 1}, "e": {"f": {"g": 1}}},
        [("IFX105", "/a"), ("IFX105", "/b"), ("IFX105", "/e/f/g")],
    ),
    "numbers that are none in TOML": (
        "toml",
        f"a = nan\nb = 1{'0' * 5000}\nc = 1\n",
        {"a": 0, "b": "", "c": 1},
        [("IFX108", "/a"), ("IFX108", "/b")],
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_recoverable_fault_is_returned_with_the_tree(name: str) -> None:
    """So the caller can check the tree and report everything at once."""
    form, text, tree, faults = FAULTS[name]

    document = read_document(text, format=form)

    assert document.tree == tree
    assert [(fault.code, fault.location.pointer) for fault in document.faults] == faults
    with pytest.raises(DocumentError) as caught:
        parse_document(text, format=form)
    assert caught.value.problems == document.faults


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("a: @b\n  c: d\ne: @f\n", [(1, 4), (3, 4)]),
        ("where: 'a' == b\n  || 'c' == d\nx: @\n", [(1, 12), (3, 4)]),
        ("a: [@b,\n  {c: d}\n", [(1, 5)]),
        ("a: @b\nc: @d\ne: [f\n", [(1, 4), (2, 4)]),
        ("a: @b\nc: |-\n  d: @e\n\n  f: @g\nh: @i\n", [(1, 4), (6, 4)]),
        ("a: @b\nc: `d`\ne: 'f' == g # why\nh: {i: j[0]}\nk: l\n", [(1, 4), (2, 4), (3, 8), (4, 9)]),
    ],
)
def test_consequences_of_a_fault_are_not_reported(text: str, places: list[tuple[int, int]]) -> None:
    """After a value without quotes, other lines that cannot be read by themselves are reported, and nothing else."""
    with pytest.raises(DocumentError) as caught:
        read_document(text)

    assert [(fault.location.line, fault.location.column) for fault in caught.value.problems] == places


def test_only_the_first_faults_are_reported() -> None:
    assert len(problems_of("".join(f"k{number}: @\n" for number in range(5000)))) == MOST_FAULTS
    assert len(problems_of("".join(f"k{number} = @\n" for number in range(5000)), "toml")) == MOST_FAULTS


def test_a_toml_document_that_is_nested_too_deeply_is_rejected() -> None:
    deep = MAX_DEPTH + 1
    for text in ("a = " + "[" * deep + "]" * deep, ".".join("a" * deep) + " = 1", f"[{'.'.join('a' * deep)}]"):
        assert [code for code, _, _ in problems_of(text, "toml")] == ["IFX104"]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("a = 1\na = 2", (2, 1)),
        ("[a]\n[b]\n[a]", (3, 2)),
        ("a = {b = 1, b = 2}", (1, 13)),
        ("[a]\nb.c = 1\nb.c = 2", (3, 3)),
        ('"a" = 1\na = 2', (2, 1)),
        ("[[a]]\n[a]\nb = 1\n[a.c]", (2, 2)),
        ("a = [1]\n[a]\nb = 1\n[a.c]", (2, 2)),
    ],
)
def test_a_duplicate_key_in_toml_is_reported_as_in_yaml(text: str, place: tuple[int, int]) -> None:
    assert problems_of(text, "toml") == [("IFX105", *place)]


@pytest.mark.parametrize("text", ["a = b", "a", "a = ", 'a = "b', "[a", "a = 'b\nc'", "= 1", 'a = "\\d"', "\ra = 1"])
def test_text_that_is_not_toml_is_reported_with_its_place(text: str) -> None:
    [(code, line, column)] = problems_of(text, "toml")

    assert code == "IFX102"
    assert line > 0
    assert column > 0


def test_each_toml_statement_without_quotes_is_reported() -> None:
    text = """a = b\nc = d == 'e'\nk = 1\nm = "\\d"\nl = ["x",\n  "y = z"]\nn = f(g)\n"""

    assert problems_of(text, "toml") == [("IFX102", 1, 5), ("IFX102", 2, 5), ("IFX102", 4, 5)]


def test_a_byte_order_mark_and_any_line_ends_change_nothing() -> None:
    plain = parse_document("a: 1\nb:\n  - c\n")

    for text in ("\ufeffa: 1\r\nb:\r\n  - c\r\n", b"\xef\xbb\xbfa: 1\nb:\n  - c\n", "a: 1\rb:\r  - c\r"):
        document = parse_document(text)

        assert document.tree == plain.tree
        assert document.locate("/b/0") == plain.locate("/b/0")

    for text in ("\ufeffa = 1\r\n[b]\r\nc = 2\r\n", b"\xef\xbb\xbfa = 1\n[b]\nc = 2\n"):
        document = parse_document(text, format="toml")

        assert document.tree == {"a": 1, "b": {"c": 2}}
        assert (document.locate("/b/c").line, document.locate("/b/c").column) == (3, 5)


def test_aliases_have_the_values_of_their_anchors() -> None:
    document = parse_document("a: &a {x: 1}\nb: [*a, *a]\n")

    assert document.tree == {"a": {"x": 1}, "b": [{"x": 1}, {"x": 1}]}
    assert document.locate("/b/1/x").line == 1


def test_json_is_read_as_yaml() -> None:
    tree = {"a": [1, 2.5, None, True, "x\ny", {'\u00e9"\\': "\U0001f600"}]}

    assert parse_document(json.dumps(tree)).tree == tree
    assert parse_document(json.dumps(tree, indent=2, ensure_ascii=False)).tree == tree


@pytest.mark.slow
def test_a_million_brackets_cost_no_more_than_a_long_text() -> None:
    for text in ("[" * 900_000, "a: " * 300_000, "{" * 900_000, "- " * 400_000, "&a " * 300_000, "? " * 400_000):
        with pytest.raises(DocumentError):
            parse_document(text)
        with pytest.raises(DocumentError):
            parse_document(f"a = {text}", format="toml")


# --- places ---

POSITIONS = {
    "yaml": 'name: x\npoints:\n  - tags: {device: "root().id"}\n    fields:\n      "a b": |\n        one\n',
    "toml": "name = 'x'\n[[points]]\ntags = {device = \"root().id\"}\n[points.fields]\n'a b' = '''\none\ntwo\n'''\n",
}


@pytest.mark.parametrize(
    ("form", "pointer", "key", "place"),
    [
        ("yaml", "", False, (1, 1)),
        ("yaml", "/name", False, (1, 7)),
        ("yaml", "/name", True, (1, 1)),
        ("yaml", "/points/0", False, (3, 5)),
        ("yaml", "/points/0/tags/device", True, (3, 12)),
        ("yaml", "/points/0/tags/device", False, (3, 20)),
        ("yaml", "/points/0/fields/a b", True, (5, 7)),
        ("yaml", "/points/0/nothing/here", False, (3, 5)),
        ("yaml", "/points/7", False, (3, 3)),
        ("toml", "", False, (1, 1)),
        ("toml", "/name", False, (1, 8)),
        ("toml", "/points", True, (2, 3)),
        ("toml", "/points/0", False, (2, 1)),
        ("toml", "/points/0/tags/device", True, (3, 9)),
        ("toml", "/points/0/tags/device", False, (3, 18)),
        ("toml", "/points/0/fields", True, (4, 9)),
        ("toml", "/points/0/fields/a b", True, (5, 1)),
        ("toml", "/points/0/nothing/here", False, (2, 1)),
    ],
)
def test_every_node_has_a_place(form: str, pointer: str, key: bool, place: tuple[int, int]) -> None:
    location = parse_document(POSITIONS[form], format=form).locate(pointer, key=key)

    assert (location.line, location.column) == place
    assert location.pointer == pointer


INSIDE = [
    ("yaml", "a: xyz", "z", (1, 6)),
    ("yaml", "a: 'it''s z'", "z", (1, 11)),
    ("yaml", 'a: "\\u0041\\t\\"z"', "z", (1, 15)),
    ("yaml", "a: |\n  x\n    z\n", "z", (3, 5)),
    ("yaml", "a: >-\n  x\n  y\n\n  z\n", "z", (5, 3)),
    ("yaml", "a: |2-\n    x\n   z\n", "z", (3, 4)),
    ("yaml", 'a: "x\n\n   y \\\n   z"', "z", (4, 4)),
    ("yaml", "a: x\n  y z", "z", (2, 5)),
    ("yaml", "a: &b !!str xz", "z", (1, 14)),
    ("yaml", "a: &b xz", "z", (1, 8)),
    ("yaml", "a: !!str &b 'xz'", "z", (1, 15)),
    ("yaml", "{a: [x, 'y z']}", "z", (1, 12)),
    ("toml", 'a = "\\u0041\\t\\"z"', "z", (1, 16)),
    ("toml", "a = 'x\\z'", "z", (1, 8)),
    ("toml", 'a = """\nx\n  z"""', "z", (3, 3)),
    ("toml", 'a = """x \\\n\n   z"""', "z", (3, 4)),
    ("toml", "a = '''\nx\n\tz'''", "z", (3, 2)),
    ("toml", 'a = """\n\\nz"""', "z", (2, 3)),
    ("toml", 'a = """\\\n\n  \\nz"""', "z", (3, 5)),
    ("yaml", 'a: "x\\\n   \\nz"', "z", (2, 6)),
]


@pytest.mark.parametrize(("form", "text", "character", "place"), INSIDE, ids=[text for _, text, _, _ in INSIDE])
def test_a_place_inside_a_scalar_is_the_place_in_the_source(
    form: str, text: str, character: str, place: tuple[int, int]
) -> None:
    document = parse_document(text, format=form)
    pointer = "/a/1" if "[" in text else "/a"
    node = document.node(pointer)
    assert node is not None
    assert isinstance(node.value, str)

    location = document.problem("IFX200", pointer, "", offset=node.value.rindex(character)).location

    assert (location.line, location.column) == place


def test_a_place_after_the_end_of_an_expression_is_just_after_it() -> None:
    document = parse_document("kind: writer\na: 'x('\n")

    problem = document.problem("IFX200", "/a", "", offset=2)

    assert (problem.location.column, problem.length) == (7, 1)


def test_a_caret_does_not_pass_the_end_of_its_line() -> None:
    document = parse_document("a: |\n  one\n  two\n")

    problem = document.problem("IFX200", "/a", "", offset=0, length=7)

    assert problem.length == 3


def test_a_long_line_is_shown_around_the_place() -> None:
    document = parse_document(json.dumps({"kind": "writer", "x": ["y" * 10] * 500, "z": 1}))

    for pointer, marked in (("/x/250", '"yyyyyyyyyy"'), ("/z", "1"), ("/x/0", '"yyyyyyyyyy"')):
        _, source, carets = document.problem("IFX112", pointer, "", key=False).render().splitlines()
        start, length = carets.index("^"), carets.count("^")

        assert source[start : start + length] == marked
        assert len(source) < 180


def test_control_characters_are_not_shown() -> None:
    document = parse_document('"\\e[31m\\n": x\n')

    problem = document.problem("IFX110", "/\x1b[31m\n", "unknown key `\x1b[31m\n`", key=True)

    assert "\x1b" not in problem.render()
    assert len(problem.render().splitlines()) == 3


# --- both formats give one tree ---

TEXTS = st.text(
    st.one_of(
        st.sampled_from(string.ascii_letters + string.digits + "_-.'\"\\ \n\t#:,[]{}&*!|>%@`~"),
        st.characters(exclude_categories=["Cs"]),
    ),
    max_size=12,
)
KEYS = st.one_of(st.text(string.ascii_letters + string.digits + "_-", min_size=1, max_size=6), TEXTS)
SCALARS = st.one_of(
    TEXTS, st.booleans(), st.integers(-(2**70), 2**70), st.floats(allow_nan=False, allow_infinity=False)
)
TREES = st.dictionaries(
    KEYS,
    st.recursive(
        SCALARS,
        lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=3)),
        max_leaves=8,
    ),
    min_size=1,
    max_size=4,
)


def yaml_text(draw: Any, value: Any, indent: int = 0) -> str:
    """Return `value` in any style that YAML has for it; it begins after a key or a dash."""
    pad = "\n" + "  " * indent
    if isinstance(value, dict) and value and draw(st.booleans()):
        return pad + pad.join(
            f"{yaml_scalar(draw, key, is_key=True)}: {yaml_text(draw, item, indent + 1)}" for key, item in value.items()
        )
    if isinstance(value, list) and value and draw(st.booleans()):
        return pad + pad.join(f"- {yaml_text(draw, item, indent + 1)}" for item in value)
    if isinstance(value, (dict, list)):
        return flow_text(value)
    return yaml_scalar(draw, value)


def flow_text(value: Any) -> str:
    return json.dumps(value)


def yaml_scalar(draw: Any, value: Any, *, is_key: bool = False) -> str:
    if not isinstance(value, str):
        return json.dumps(value)
    if (
        re.fullmatch(r"[A-Za-z]\w*", value, re.ASCII)
        and value.lower() not in ("null", "true", "false")
        and draw(st.booleans())
    ):
        return value
    if value.isprintable() and value.isascii() and draw(st.booleans()):
        return "'" + value.replace("'", "''") + "'"
    return json.dumps(value) if is_key else f'"{continued(draw, [json.dumps(each)[1:-1] for each in value])}"'


def continued(draw: Any, written: list[str]) -> str:
    """Return the characters of a text as they are written, perhaps with a line that a backslash continues."""
    breaks = [index for index, each in enumerate(written) if index and not each.isspace()]
    if breaks and draw(st.booleans()):
        written = written.copy()
        written.insert(draw(st.sampled_from(breaks)), "\\\n" + " " * 40)
    return "".join(written)


def toml_text(draw: Any, tree: dict[str, Any], header: str = "") -> str:
    """Return `tree` with tables, arrays of tables, dotted keys and inline values."""
    lines, later = [], []
    for key, value in tree.items():
        name = toml_key(draw, key)
        full = f"{header}.{name}" if header else name
        if isinstance(value, dict) and draw(st.booleans()):
            later.append(f"[{full}]\n" + toml_text(draw, value, full))
        elif (
            isinstance(value, list) and value and all(isinstance(item, dict) for item in value) and draw(st.booleans())
        ):
            later += [f"[[{full}]]\n" + toml_text(draw, item, full) for item in value]
        elif isinstance(value, dict) and value and draw(st.booleans()):
            lines += [f"{name} . {toml_key(draw, inner)} = {toml_value(draw, item)}" for inner, item in value.items()]
        else:
            lines.append(f"{name} = {toml_value(draw, value)}  # end")
    return "\n".join([*lines, *later, ""])


def toml_key(draw: Any, key: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9_-]+", key) and draw(st.booleans()):
        return key
    return toml_string(draw, key, multiline=False)


def toml_value(draw: Any, value: Any) -> str:
    if isinstance(value, dict):
        return (
            "{ " + ", ".join(f"{toml_key(draw, key)} = {toml_value(draw, item)}" for key, item in value.items()) + " }"
        )
    if isinstance(value, list):
        space = draw(st.sampled_from(["", " ", "\n  # why\n  "]))
        return "[" + ",".join(space + toml_value(draw, item) for item in value) + space + "]"
    if isinstance(value, str):
        return toml_string(draw, value, multiline=True)
    if isinstance(value, float):
        return repr(value)
    return json.dumps(value)


def toml_string(draw: Any, value: str, *, multiline: bool) -> str:
    styles = ["basic"]
    if value.isprintable() and "'" not in value:
        styles += ["literal", "long literal"] if multiline else ["literal"]
    if multiline:
        styles.append("long basic")
    style = draw(st.sampled_from(styles))
    if style == "literal":
        return f"'{value}'"
    if style == "long literal":
        return f"'''\n{value}'''"
    escaped = [json.dumps(character, ensure_ascii=False)[1:-1].replace("\x7f", "\\u007f") for character in value]
    escaped = [re.sub("[\x80-\x9f\ufffe\uffff]", lambda found: f"\\u{ord(found[0]):04x}", each) for each in escaped]
    if style == "basic":
        return f'"{"".join(escaped)}"'
    first = draw(st.sampled_from(["\n", ""])) if value[:1] != "\n" else "\n"
    return f'"""{first}{continued(draw, escaped)}"""'


@st.composite
def spelled_trees(draw: Any) -> tuple[dict[str, Any], str, str]:
    tree = draw(TREES)
    return tree, yaml_text(draw, tree).lstrip("\n"), toml_text(draw, tree)


def typed(value: Any) -> Any:
    """Return a form in which 1, 1.0 and True differ."""
    if isinstance(value, dict):
        return {key: typed(item) for key, item in value.items()}
    if isinstance(value, list):
        return [typed(item) for item in value]
    return type(value).__name__, repr(value)


@settings(max_examples=150, deadline=None)
@given(spelled_trees())
def test_both_formats_give_the_tree_that_was_written(spelled: tuple[dict[str, Any], str, str]) -> None:
    tree, yaml, toml = spelled

    assert typed(parse_document(yaml, format="yaml").tree) == typed(tree)
    assert typed(parse_document(toml, format="toml").tree) == typed(tree)


@settings(max_examples=100, deadline=None)
@given(spelled_trees())
def test_every_key_and_scalar_is_at_its_place(spelled: tuple[dict[str, Any], str, str]) -> None:
    _, yaml, toml = spelled
    for text, form, prefix in ((yaml, "yaml", "- "), (toml, "toml", "x = ")):
        document = parse_document(text, format=form)
        for node, key in walk(document.root):
            if key is not None:
                name, (start, end) = key
                whole = document.text[start:end]
                again = parse_document(f"{whole}: 1" if form == "yaml" else f"{whole} = 1", format=form).tree
                assert again == {name: 1}
            if node.style is not Style.COLLECTION:
                again = parse_document(prefix + document.text[node.start : node.end], format=form).tree
                assert typed(again) == typed([node.value] if form == "yaml" else {"x": node.value})


def walk(node: Node, key: tuple[str, tuple[int, int]] | None = None) -> Any:
    yield node, key
    for name, child in node.children.items():
        yield from walk(
            child,
            (str(name), node.keys[str(name)]) if str(name) in node.keys and isinstance(node.value, dict) else None,
        )


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_every_letter_of_a_value_is_found_in_its_source(data: st.DataObject) -> None:
    _, yaml, toml = data.draw(spelled_trees())
    for text, form in ((yaml, "yaml"), (toml, "toml")):
        document = parse_document(text, format=form)
        for node, _ in walk(document.root):
            if isinstance(node.value, str):
                source = document.text[node.start : node.end]
                offsets = source_offsets(source, node.style, node.value)
                assert offsets is not None
                for character, offset in zip(node.value, offsets, strict=True):
                    assert character == source[offset] or source[offset] == "\\" or not character.isalnum()


ONLY_IN_TOML = [
    *("1979-05-27T07:32:00Z", "1979-05-27 07:32:00.999999-07:00", "1979-05-27T07:32:00", "1979-05-27", "07:32:00"),
    *(
        "inf",
        "+inf",
        "-inf",
        "nan",
        "-nan",
        "0xDEAD_beef",
        "0o755",
        "0b1101",
        "1_000",
        "+99",
        "-0",
        "6.626e-34",
        "-0.0",
    ),
    *("'''it's'''", "''''two'''''", '"""""two"""""', '"""\\\n  é\n"""', '"\\U0001F600"', "'\\d'", "[ ]", "{ }"),
    *("[1, [2.0, 'x',],]", "{a.b = 1, a.'c' = [{}]}", "[{d = 07:32:00}, inf]", "[ # one\n 1 # two\n, # three\n]"),
]
TABLES = [
    *(
        "[{0}]\n[{0}.b.c]\n[{0}.b]\n",
        "[{0}.b.c]\n[{0}]\nx = {1}\n",
        "[[{0}]]\n[[{0}.b]]\nx.y = {1}\n[[{0}.b]]\n[[{0}]]\n",
    ),
    *("[ {0} . 'b' ]\nc . d = {1}\nc.e.f = {1}\n[{0}.g]\n", "[[{0}]]\n[{0}.b]\n[[{0}]]\n[{0}.b]\nx = {1}\n"),
]


@st.composite
def tomls(draw: Any) -> str:
    """Return valid TOML of all its forms."""
    values = draw(st.lists(st.sampled_from(ONLY_IN_TOML), max_size=4))
    tables = draw(st.lists(st.sampled_from(TABLES), max_size=2))
    text = "".join(f"'é {number}' = {value} # é\n" for number, value in enumerate(values))
    text += draw(spelled_trees())[2]
    for number, table in enumerate(tables):
        text += table.format(f'"{number} é"', draw(st.sampled_from(ONLY_IN_TOML)))
    return text.replace("\n", "\r\n") if draw(st.booleans()) else text


@settings(max_examples=200, deadline=None)
@given(tomls())
def test_toml_has_the_values_of_tomllib_and_the_places_of_its_text(text: str) -> None:
    tree = tomllib.loads(text)

    document = read_document(text, format="toml")

    assert {problem.code for problem in document.faults} <= {"IFX108"}
    stands_for(tree, document.root, document.text)


def stands_for(value: Any, node: Node, text: str) -> None:
    """Check that each key and scalar of `value` is at its place."""
    source = text[node.start : node.end]
    if isinstance(value, dict):
        assert list(node.value) == list(value)
        for key, item in value.items():
            start, end = node.keys[key]
            assert tomllib.loads(f"{text[start:end]} = 1") == {key: 1}
            stands_for(item, node.children[key], text)
    elif isinstance(value, list):
        assert len(node.value) == len(value)
        for index, item in enumerate(value):
            stands_for(item, node.children[index], text)
    else:
        assert repr(tomllib.loads(f"x = {source}")["x"]) == repr(value)
        if isinstance(value, (str, bool, int)) or (isinstance(value, float) and math.isfinite(value)):
            assert typed(node.value) == typed(value)
        else:
            assert node.value == (0 if isinstance(value, float) else source)
    if source.startswith(("{", "[")):
        assert source.endswith(("}", "]"))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_tomllib_decides_what_toml_is(data: st.DataObject) -> None:
    """A text has the values of tomllib, or problems; the only own limit is that numbers are finite."""
    text = data.draw(tomls()).replace("\n", data.draw(st.sampled_from(["\n", "\n", "\r\n", "\r\r\n", "\r"])))
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, len(text)))
        cut = data.draw(st.integers(0, 3))
        text = text[:at] + data.draw(st.text("[]{}=,.'\"\\#\n é0aT:-", max_size=3)) + text[at + cut :]
    try:
        tree = tomllib.loads(text)
    except ValueError:
        tree = None

    try:
        document = read_document(text, format="toml")
        problems = document.faults
    except DocumentError as error:
        document, problems = None, error.problems

    lines = text.replace("\r\n", "\n").split("\n")
    for problem in problems:
        assert 1 <= problem.location.line <= len(lines)
        assert 1 <= problem.location.column <= len(lines[problem.location.line - 1]) + 1
    codes = {problem.code for problem in problems}
    if tree is None:
        assert codes & {"IFX102", "IFX105"}
    elif not tree:
        assert codes == {"IFX101"}
    else:
        assert codes <= {"IFX108"}
        assert document is not None
        assert without_places(document.tree, tree)


def without_places(value: Any, expected: Any) -> bool:
    """Return whether two trees are equal, except for what JSON has no value for."""
    if isinstance(expected, dict):
        return list(value) == list(expected) and all(without_places(value[key], expected[key]) for key in expected)
    if isinstance(expected, list):
        return len(value) == len(expected) and all(map(without_places, value, expected))
    if isinstance(expected, (datetime.date, datetime.time)):
        return isinstance(value, str)
    if isinstance(expected, float) and not math.isfinite(expected):
        return bool(value == 0)
    return bool(typed(value) == typed(expected))


HOSTILE = {
    "spaces after a word": "x" + " " * 200_000 + "y\n",
    "spaces in a value": "k = a" + " " * 200_000 + "b\n",
    "a dotted key": "a" + ".a" * 200_000 + " = 1\n",
    "a dotted key without a value": "a" + ".a" * 200_000 + " 1\n",
    "a dotted key in a table": "k = {" + "a." * 200_000 + "a = 1}\n",
    "a header": "[" + "a" + ".a" * 200_000 + "]\n",
    "an array": "k = " + "[" * 200_000,
    "tables": "k = " + "{a=" * 200_000,
    "settings": "k = " + "aaaa: " * 30_000 + "\n",
    "addresses": "k = " + "a://" * 50_000 + "\n",
    "comments": "k = a" + " #" * 200_000 + "\n",
    "quotes": "k = " + "'" * 200_000 + "\n",
}


@pytest.mark.parametrize("form", ["yaml", "toml"])
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_text_costs_no_more_than_its_length(text: str, form: str) -> None:
    begin = time.process_time()

    works_or_has_problems(text, form)

    assert time.process_time() - begin < 8


def works_or_has_problems(text: str | bytes, form: str) -> None:
    problems: tuple[Problem, ...] = ()
    try:
        parse_document(text, format=form)
        worked = True
    except DocumentError as error:
        worked, problems = False, error.problems

    assert worked or problems
    assert all(problem.location.line > 0 and problem.location.column > 0 for problem in problems)
    assert all(problem.render() for problem in problems)


@settings(max_examples=150, deadline=None)
@given(
    st.one_of(st.text(max_size=80), st.binary(max_size=80), st.text("ab:- \n\t'\"[]{}#&*!|>%@`,?=.\\~01", max_size=60))
)
@pytest.mark.parametrize("form", ["yaml", "toml"])
def test_any_text_is_a_document_or_has_problems_with_places(form: str, text: str | bytes) -> None:
    works_or_has_problems(text, form)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_damaged_document_has_problems_with_places_or_none(data: st.DataObject) -> None:
    text = DESIGN
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(text)))
        cut = data.draw(st.integers(0, 3))
        text = text[:at] + data.draw(st.text("{}[]:,'\"@*`& \n\t-#!|", max_size=2)) + text[at + cut :]
    works_or_has_problems(text, "yaml")


@settings(max_examples=100, deadline=None)
@given(st.data())
@pytest.mark.parametrize("form", ["yaml", "toml"])
@pytest.mark.parametrize("kind", ["mapping", "pipeline"])
def test_a_fault_of_a_text_with_any_line_ends_has_its_place_in_the_text(
    kind: str, form: str, data: st.DataObject
) -> None:
    sign = ": " if form == "yaml" else " = "
    own = f'kind{sign}"writer"' if kind == "mapping" else f"run{sign}[]"
    lines = [f"iggyflux{sign}1", own, f'lambda{sign}["é"]', f'token{sign}"Qx7vK2wZ9"', f"zz{sign}3"]
    at = data.draw(st.integers(0, len(lines) - 1))
    lines[at] += data.draw(st.sampled_from([": @", "\n] [", "\x01", "\n\t: [", "\udc80", ': "']))
    end = st.sampled_from(["\n", "\r\n", "\r", "\r\r\n"])
    ends = st.just(data.draw(end)) if data.draw(st.booleans()) else end
    text: str | bytes = "".join(line + data.draw(ends) for line in lines)
    if data.draw(st.booleans()):
        text = text.encode("utf-8", "surrogateescape")
    with pytest.raises(DocumentError) as caught:
        parse_document(text, format=form)

    plain = re.split(
        rb"\r\n|\n|\r" if form == "yaml" else rb"\n",
        text if isinstance(text, bytes) else text.encode("utf-8", "replace"),
    )
    for problem in caught.value.problems:
        assert 1 <= problem.location.line <= len(plain)
        assert 1 <= problem.location.column <= len(plain[problem.location.line - 1]) + 1
        assert kind == "mapping" or "Qx7vK" not in problem.render()


# --- schemas ---

SCHEMAS = ("mapping", "pipeline")


def subschemas(schema: Any, path: str = "") -> Any:
    """Yield every schema inside of `schema`, with its path."""
    yield path, schema
    for keyword in ("properties", "patternProperties", "$defs"):
        for name, sub in schema.get(keyword, {}).items():
            yield from subschemas(sub, f"{path}/{keyword}/{name}")
    for keyword in ("items", "additionalProperties", "then"):
        if isinstance(schema.get(keyword), dict):
            yield from subschemas(schema[keyword], f"{path}/{keyword}")
    for keyword in ("anyOf", "oneOf", "allOf"):
        for index, sub in enumerate(schema.get(keyword, ())):
            yield from subschemas(sub, f"{path}/{keyword}/{index}")


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_schema_is_valid_and_uses_known_keywords(name: str) -> None:
    schema = load_schema(name)

    jsonschema.Draft202012Validator.check_schema(schema)
    unknown = {(path, key) for path, sub in subschemas(schema) for key in sub if key not in KEYWORDS}
    assert unknown == set()


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_schema_uses_keywords_only_as_the_standard_does(name: str) -> None:
    for path, sub in subschemas(load_schema(name)):
        assert "$ref" not in sub or set(sub) <= ANNOTATIONS | {"$ref"}, path
        if sub.get("uniqueItems"):
            items = sub["items"]
            assert (
                load_schema(name)["$defs"].get(items.get("$ref", "").rpartition("/")[2], items)["type"] == "string"
            ), path
        chosen_by = {tuple(branch["if"]["required"]) for branch in sub.get("allOf", ())}
        assert len(chosen_by) <= 1 and all(len(keys) == 1 for keys in chosen_by), path


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_key_of_a_schema_has_a_description_and_valid_examples(name: str) -> None:
    schema = load_schema(name)
    validator = jsonschema.Draft202012Validator(schema)
    for path, sub in subschemas(schema):
        if not path.rpartition("/")[0].endswith("/properties"):
            continue
        target = {**schema["$defs"][sub["$ref"].rpartition("/")[2]], **sub} if "$ref" in sub else sub

        assert target.get("description"), path
        assert target.get("examples"), path
        for example in target["examples"]:
            assert list(validator.evolve(schema={**sub, "$defs": schema["$defs"]}).iter_errors(example)) == [], path


ROWS: dict[str, Any] = {
    "csv": {"a": 'x "y", z', "b": 1},
    "xml": {"a": {"@b": "1", "c": "x"}},
    "influx": {"measurement": "m", "tags": {"a": "b\\c"}, "fields": {"x": 1}, "time": 1_000_000_001},
}


def test_the_words_of_the_schema_match_the_tables() -> None:
    defs = load_schema("mapping")["$defs"]
    branches: dict[str, Any] = {}
    for branch in defs["payload_object"]["allOf"]:
        properties = defs[branch["then"]["$ref"].rpartition("/")[2]]["properties"]
        words = properties["format"].get("enum") or [properties["format"]["const"]]
        branches |= dict.fromkeys(words, properties)

    assert defs["payload"]["anyOf"][0]["enum"] == [name for name in FORMATS if name != "protobuf"]
    assert set(branches) == set(FORMATS)
    options = [(name, key, node) for name, found in branches.items() for key, node in found.items() if key != "format"]
    assert {name for name, _, _ in options} == set(ROWS) | {"text", "logfmt", "protobuf", "avro", "xml"}
    for name, key, node in options:
        if name in ("protobuf", "avro"):
            continue  # their options need each other: tests/test_protobuf.py, tests/test_avro.py
        node = defs[node["$ref"].rpartition("/")[2]] if "$ref" in node else node
        for value in node.get("enum", node["examples"]):
            FORMATS[name].check({key: value})
            with suppress(DecodeError):
                FORMATS[name].decode(b"", {key: value}, None, False)
        if "default" in node:
            value = {"logfmt": {"a": "b"}, "text": "b", "xml": {"a": {"@b": "x", "#text": "y"}}, **ROWS}[name]
            assert FORMATS[name].encode(value, {}) == FORMATS[name].encode(value, {key: node["default"]})
    assert set(defs["type"]["enum"]) == {kind.value for kind in FieldType}
    assert set(defs["to"]["properties"]["payload"]["enum"]) <= set(FORMATS)
    assert parse_rfc3339(defs["cursor"]["properties"]["start"]["examples"][0])


def valid_documents() -> list[Any]:
    reader = {
        "iggyflux": 1,
        "kind": "reader",
        "from": {"measurement": "env", "where": {"site": ["a", "b"]}},
        "cursor": {"start": "2026-01-01T00:00:00Z", "settle": "10s"},
        "messages": [{"payload": {"a": "b", "c": {"const": 1}}, "headers": {"h": "x"}, "for_each": "row"}],
        "to": {"stream": "s", "topic": "t"},
        "examples": [{"row": {"time": 1}, "messages": [{"payload": {}}]}],
    }
    writer = parse_document(DESIGN).tree
    small = {
        "iggyflux": 1,
        "kind": "writer",
        "from": {"stream": "s", "topic": ["t"], "payload": {"format": "csv", "header": ["a"]}},
        "points": {"measurement": {"const": "m"}, "tags": ["a", "b"], "timestamp": {"spread": "offset"}},
    }
    return [writer, reader, small]


ACCIDENTS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 3),
    st.just(0.5),
    st.sampled_from(["", "x", "writer", "json", "unix_ms", "%Y", "10s"]),
    st.just({}),
    st.just([]),
    st.just(["a", "a"]),
    st.just({"const": 1}),
    st.just({"expr": "x", "typ": 1}),
    st.just({"format": "csv", "x": 1}),
)
NAMES = st.sampled_from(
    ["x", "expr", "const", "type", "from", "points", "fields", "*", "a*", "a*b", "format", "kind", "message", "default"]
)


@st.composite
def accidents(draw: Any) -> Any:
    """Return a valid document with some nodes replaced, removed or added."""
    tree = copy.deepcopy(draw(st.sampled_from(valid_documents())))
    for _ in range(draw(st.integers(0, 3))):
        parents = [node for node in containers(tree) if node]
        if not parents:
            break
        parent = draw(st.sampled_from(parents))
        key = draw(st.sampled_from(sorted(parent) if isinstance(parent, dict) else range(len(parent))))
        action = draw(st.sampled_from(["replace", "remove", "add"]))
        if action == "replace":
            parent[key] = copy.deepcopy(draw(ACCIDENTS))
        elif action == "remove":
            del parent[key]
        elif isinstance(parent, dict):
            parent[draw(NAMES)] = copy.deepcopy(draw(ACCIDENTS))
        else:
            parent.append(copy.deepcopy(draw(ACCIDENTS)))
    return tree


def containers(value: Any) -> Any:
    if isinstance(value, (dict, list)):
        yield value
        for item in value.values() if isinstance(value, dict) else value:
            yield from containers(item)


HOSTILE = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(10**30), 10**30),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(max_size=8),
        st.sampled_from(["a" * 5_000, "\ud800", "x\n", "{value}", "{text}", "%", "$ref", "\u202e", "0x" + "f" * 400]),
    ),
    lambda children: st.one_of(
        st.lists(children, max_size=4),
        st.dictionaries(
            st.one_of(st.text(max_size=8), NAMES, st.sampled_from(["$ref", "~", "/", "-1"])), children, max_size=4
        ),
    ),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(accidents() | HOSTILE, st.sampled_from(SCHEMAS))
def test_a_document_is_valid_if_the_standard_says_so(tree: Any, name: str) -> None:
    """Rejected beyond the standard: integers with a decimal point, and a line break before the end of a pattern."""
    document = Document(tree, "", None, "yaml", Node(tree, 0, 0))

    problems = check_schema(document, name)

    strict = jsonschema.Draft202012Validator.TYPE_CHECKER.redefine("integer", lambda _, value: type(value) is int)
    standard = jsonschema.validators.extend(jsonschema.Draft202012Validator, type_checker=strict)
    assert (problems == []) == standard(load_schema(name)).is_valid(tree)
    assert all(problem.location.line > 0 for problem in problems)
    # The keys of Avro are the only ones with this word.
    assert not any(
        "schema" in re.sub(r"schema_registry|reader_schema|`schemas?`", "", each.render()) for each in problems
    )


SUSPICIOUS = "correct-horse-battery"
FAILING: dict[str, tuple[Any, Any]] = {
    "type": ({"type": "integer"}, {"b": SUSPICIOUS}),
    "enum": ({"enum": ["x"]}, SUSPICIOUS),
    "const": ({"const": "x"}, SUSPICIOUS),
    "properties": ({"properties": {"b": {"type": "null"}}}, {"b": {"c": SUSPICIOUS}}),
    "patternProperties": ({"patternProperties": {"^b": {"type": "null"}}}, {"b": [SUSPICIOUS]}),
    "additionalProperties": ({"additionalProperties": False}, {"b": SUSPICIOUS}),
    "required": ({"required": ["c"]}, {"b": SUSPICIOUS}),
    "dependentRequired": ({"dependentRequired": {"b": ["c"]}}, {"b": SUSPICIOUS}),
    "anyOf": ({"anyOf": [{"type": "null"}, {"type": "array"}]}, {"b": SUSPICIOUS}),
    "minimum": ({"minimum": 5}, 4),
    "maximum": ({"maximum": 5}, 6),
    "exclusiveMinimum": ({"exclusiveMinimum": 5}, 5),
    "exclusiveMaximum": ({"exclusiveMaximum": 5}, 5),
    "minLength": ({"minLength": 50, "pattern": "^x"}, SUSPICIOUS),
    "maxLength": ({"maxLength": 5, "pattern": "^x"}, SUSPICIOUS),
    "pattern": ({"pattern": "^x"}, SUSPICIOUS),
    "minItems": ({"minItems": 2}, [SUSPICIOUS]),
    "maxItems": ({"maxItems": 1, "uniqueItems": True}, [SUSPICIOUS, SUSPICIOUS]),
    "uniqueItems": ({"uniqueItems": True}, [{"b": 1}, {"b": 1}]),
    "minProperties": ({"minProperties": 2}, {"b": SUSPICIOUS}),
    "maxProperties": ({"maxProperties": 0}, {"b": SUSPICIOUS}),
}


@pytest.mark.parametrize("keyword", sorted(KEYWORDS - {"$ref", "allOf", "if", "then", "items", *ANNOTATIONS}))
def test_every_keyword_that_can_fail_has_a_message(keyword: str) -> None:
    """jsonschema's own text, which quotes the whole value, is not shown.  Only `found` quotes a value, shortened."""
    schema, tree = FAILING[keyword]
    document = parse_document(json.dumps({"a": tree}))

    problems = check_tree(document, {"type": "object", "properties": {"a": schema}})

    assert len(problems) == 1
    assert problems[0].code in ("IFX110", "IFX111", "IFX112", "IFX113", "IFX114")
    assert SUSPICIOUS not in problems[0].message


def test_patterns_take_linear_time() -> None:
    schema = {"patternProperties": {"^(a+)+$": {}}, "additionalProperties": False}
    document = parse_document(json.dumps({"a" * 40 + "!": {"b": "a" * 40 + "!"}}))
    started = time.process_time()

    assert len(check_tree(document, schema)) == 1
    assert len(check_tree(document, {"additionalProperties": {"properties": {"b": {"pattern": "^(a+)+$"}}}})) == 1
    assert time.process_time() - started < 2


WRITER = {"iggyflux": 1, "kind": "writer", "from": {"stream": "s", "topic": "t"}, "points": {"measurement": "m"}}
READER = {"iggyflux": 1, "kind": "reader", "from": {"measurement": "m"}, "to": {"stream": "s", "topic": "t"}}
CSV = {"stream": "s", "topic": "t", "payload": {"format": "csv", "hedaer": ["a"]}}


@pytest.mark.parametrize(
    ("tree", "named"),
    [
        ({**WRITER, "forech": "a"}, "forech"),
        ({**WRITER, "kind": "wirter"}, "wirter"),
        ({**WRITER, "from": CSV}, "hedaer"),
        ({**READER, "cursr": {}}, "cursr"),
        ({**READER, "to": {"stream": "s", "topic": "t", "paylod": "json"}}, "paylod"),
    ],
)
def test_other_validators_name_the_fault(tree: Any, named: str) -> None:
    """check-jsonschema and editors show the best match of the plain standard."""
    errors = list(jsonschema.Draft202012Validator(load_schema("mapping")).iter_errors(tree))

    assert [named in error.message or any(named in each.message for each in error.context) for error in errors] == [
        True
    ]
    assert named in jsonschema.exceptions.best_match(errors).message


@pytest.mark.parametrize(
    ("schema", "tree", "expected"),
    [
        ({"minimum": 1, "maximum": 3}, {"a": 5}, "expected: at least 1 and at most 3"),
        ({"exclusiveMinimum": 0}, {"a": 0}, "expected: more than 0"),
        ({"type": "integer"}, {"a": "7"}, "hint: write it without quotes: 7"),
        ({"type": "integer"}, {"a": True}, "expected: an integer"),
        ({"type": "integer"}, {"a": 7.0}, "found: the number 7.0"),
        ({"type": "string"}, {"a": 7}, 'hint: quote it: "7"'),
        ({"type": "boolean"}, {"a": "no"}, "hint: write false"),
        ({"type": "array"}, {"a": "x"}, 'hint: write a list: ["x"]'),
        ({"minItems": 2, "maxItems": 2}, {"a": [1]}, "expected: 2 items"),
        (
            {"type": "object", "minProperties": 1, "maxProperties": 1, "properties": {"x": {}, "y": {}}},
            {"a": {"x": 1, "y": 2}},
            "expected: only one of x | y",
        ),
        ({"pattern": "^[a-z]+$"}, {"a": "x\n"}, 'found: "x\\n"'),
        ({"allOf": [{"type": "string"}, {"minLength": 3}]}, {"a": "xy"}, "expected: at least 3 characters"),
        ({"enum": ["on", 1]}, {"a": True}, "expected: on | 1"),
    ],
)
def test_a_violation_names_what_was_expected(schema: dict[str, Any], tree: dict[str, Any], expected: str) -> None:
    document = parse_document(json.dumps(tree))

    [problem] = check_tree(document, {"type": "object", "properties": {"a": schema}})

    assert expected in problem.render()
    assert problem.location.pointer.startswith("/a")


def test_pointers_escape_what_rfc_6901_escapes() -> None:
    document = parse_document('"a/b": {"c~d": 1}')
    pointer = join_pointer(join_pointer("", "a/b"), "c~d")

    assert pointer == "/a~1b/c~0d"
    assert document.locate(pointer).column == 16


def test_a_document_has_its_file_text_and_format() -> None:
    document = parse_document("a: 1\n", file="x.yaml")

    assert isinstance(document, Document)
    assert (document.file, document.format, document.text) == ("x.yaml", "yaml", "a: 1\n")
    assert parse_document("a = 1", file="X.TOML").format == "toml"
    with pytest.raises(ValueError, match="unknown format"):
        parse_document("", format="json5")
