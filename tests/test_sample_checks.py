"""Checks of a mapping against samples, and the fixes of problems."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iggyflux import load_mapping, parse_mapping
from iggyflux.documents import read_document
from iggyflux.editor.diagnostics import check_mapping
from iggyflux.editor.fixes import fix_all
from iggyflux.editor.sample_checks import check_samples
from iggyflux.errors import Problem
from iggyflux.expressions import Place, compile_expression
from iggyflux.records import Message
from iggyflux.transports.local.envelopes import bare_message
from tests.shell import iggyflux
from tests.test_mapping_warnings import MAPPINGS

NOW = 1_780_000_000 * 10**9


def messages(*payloads: Any) -> list[Message]:
    return [bare_message(json.dumps(payload).encode(), n, stream="s", topic="t") for n, payload in enumerate(payloads)]


def found(tree: dict[str, Any], samples: list[Any]) -> list[Problem]:
    base = {
        "iggyflux": 1,
        "kind": "writer",
        "name": "n",
        "from": {"stream": "s", "topic": "t"},
        "points": {"measurement": {"const": "m"}, "fields": {"class": {"const": 1}}, "timestamp": {"spread": "offset"}},
    }
    points = base["points"] | tree.get("points", {})  # type: ignore[operator]
    mapping = parse_mapping(json.dumps(base | tree | {"points": points}, ensure_ascii=False), format="yaml")
    return check_samples(mapping, messages(*samples), now_ns=NOW)


def codes(tree: dict[str, Any], samples: list[Any]) -> list[str]:
    return [problem.code for problem in found(tree, samples)]


def fields(expression: Any) -> dict[str, Any]:
    return {"points": {"fields": {"def": expression, "class": {"const": 1}}}}


# --- members and nulls ---


@pytest.mark.parametrize(
    ("expression", "samples", "message", "hint"),
    [
        ("wehn", [{"when": 1}], "no sample has a member wehn", "did you mean when?"),
        ("va", [{"values": [1], "lambda": 1}], "no sample has a member va", "did you mean values?"),
        ("va", [{"values": [1], "vacuum": 1}], "no sample has a member va", "add an example"),
        ("for.wehn", [{"for": {"when": 1}}, {}], "no sample has a member wehn", "did you mean when?"),
        ("self[].clss | [0]", [{"self": [{"klass": 1}, {"clasz": 2}]}], "no sample has a member clss", "did you mean"),
        ("max(self[].clss)", [{"self": [{"class": 1}]}], "no sample has a member clss", "did you mean class?"),
        ("sum(map(&yeild, self))", [{"self": [{"yield": 1}]}], "no sample has a member yeild", "did you mean yield?"),
        ("coalesce(lamda, `1`)", [{"lambda": 1}], "no sample has a member lamda", "did you mean lambda?"),
        ("if(x, lamda, `1`)", [{"x": 1, "lambda": 1}], "no sample has a member lamda", "did you mean lambda?"),
        ("self.klass", [{"self": [{"klass": 1}]}], "a list has no member klass", "for an element write [0].klass"),
        ("other", [{"lambda": 1}], "no sample has a member other", "add an example"),
        ("root.klass", [{"klass": 1}], "no sample has a member root", "root() is the whole payload"),
        ("a.b", [{"a": {"b": None}}], "the value is null for the sample", "add an example"),
        ("self[?key == 'x'].v | [0]", [{"self": [{"key": "y", "v": 1}]}] * 2, "the value is null for each of 2 samples", "a"),
    ],
)  # fmt: skip
def test_what_no_sample_has_is_reported(expression: str, samples: list[Any], message: str, hint: str) -> None:
    [problem] = [each for each in found(fields(expression), samples) if each.code in ("IFX157", "IFX161")]

    assert problem.message == message
    assert (problem.hint or "").startswith(hint)


@pytest.mark.parametrize(
    ("expression", "samples"),
    [
        ("lambda", [{}, {"lambda": 1}]),
        ("temp2", [{"temp1": 1, "temp2": None}, {"temp2": 1}]),
        ("coalesce(rh, humidity)", [{"humidity": 1}]),  # not similar to anything, and the other one is there
        ("if(x, never, `1`)", [{"x": None}]),
        ("x || never", [{"x": 1}]),
        ("x && `1`", [{"x": 1}, {"x": None}]),
        ("length(self[?a].b)", [{"self": []}]),
    ],
)
def test_what_a_sample_has_is_not_reported(expression: str, samples: list[Any]) -> None:
    assert [each.message for each in found(fields(expression), samples) if each.code in ("IFX157", "IFX161")] == []


def test_a_name_that_another_expression_reads_is_not_taken_for_the_one_that_was_meant() -> None:
    """temp2 is optional, and not a misspelt temp1."""
    tree = {"points": {"fields": {"a": "temp1", "b": {"expr": "temp2", "default": 0.5}}}}

    assert codes(tree, [{"temp1": 1}]) == []
    assert codes({"points": {"fields": {"b": {"expr": "temp2", "default": 0.5}}}}, [{"temp1": 1}]) == ["IFX157"]


def test_an_element_is_looked_at_in_its_place() -> None:
    tree = {"for_each": "self", "points": {"tags": {"k": "root().site", "no": "sit"}, "fields": {"x": "index()"}}}

    [problem] = found(tree, [{"site": "b", "self": [{"site": "c"}]}])
    assert problem.message == "no sample has a member sit"


# --- conditions and comparisons ---


@pytest.mark.parametrize(
    ("where", "samples", "expected"),
    [
        ("del == 'x'", [{"del": "x"}] * 10, ["the condition is true for each of 10 samples"]),
        ("del == 'x'", [{"del": "x"}] * 9, []),
        ("del == 'x'", [{"del": "y"}] * 2, ["the condition is true for none of 2 samples"]),
        ("del == 'x'", [{"del": "y"}, {"del": "x"}], []),
        ("del == `1`", [{"del": "1"}] * 2, ["compared with a string, in each sample, this is a number"]),
        ("del != 'a' || x == `1`", [{"del": 2, "x": 1}], ["compared with a number, in each sample, this is a string"]),
        ("del == `true`", [{"del": "true"}], ["compared with a string, in each sample, this is a boolean"]),
        ("del == `1`", [{"del": 1.5}, {"del": 1}], []),
        ("del == `1`", [{"del": "1"}, {"del": 1}], []),
        ("del == `null`", [{"del": 1}, {}], []),
        ("length(self[?a == '1']) > `0`", [{"self": [{"a": 1}]}] * 2, ["compared with a number, in each sample, this is a string"]),
    ],
)  # fmt: skip
def test_a_condition_that_is_the_same_for_all_samples(where: str, samples: list[Any], expected: list[str]) -> None:
    assert [each.message for each in found({"where": where}, samples) if each.code == "IFX162"] == expected


# --- failures, tags, times, stars ---


def test_a_sample_that_fails_is_reported_once_with_its_number() -> None:
    [problem] = found(fields("lambda"), [{"lambda": 1}, {"lambda": "on"}, {"lambda": "off"}])

    assert (problem.code, problem.location.pointer) == ("IFX163", "/points/fields/def")
    assert problem.message == "sample 2 fails, and 1 more: expected a number, found string 'on'"
    assert codes(fields({"expr": "lambda", "on_bad_value": "omit"}), [{"lambda": 1}, {"lambda": "on"}]) == []


@pytest.mark.parametrize(("count", "expected"), [(19, []), (20, ["IFX164"])])
def test_a_tag_with_another_value_in_each_sample(count: int, expected: list[str]) -> None:
    tree = {"points": {"tags": {"uuid": "id"}}}

    samples = [{"id": f"x{n}"} for n in range(count)]
    assert codes(tree, samples) == expected
    examples = [{"message": sample, "points": ["m class=1.0 1"]} for sample in samples[:2]]
    assert codes(tree | {"examples": examples}, samples) == expected  # an example is often a sample, too
    assert codes(tree, [{"id": f"x{n % 19}"} for n in range(40)]) == []


@pytest.mark.parametrize(
    ("value", "format_", "expected"),
    [
        (1_780_000_000, "unix_s", []),
        (1_780_000_000, "unix_ms", ["IFX158"]),
        (12, "unix_s", ["IFX165"]),
        (1_780_000_000 + 400 * 86_400, "unix_s", ["IFX165"]),
        ("1999-12-31T00:00:00Z", "rfc3339", ["IFX165"]),
        ("2026-01-01T00:00:00Z", "rfc3339", []),
    ],
)
def test_an_implausible_time(value: Any, format_: str, expected: list[str]) -> None:
    tree = {"points": {"timestamp": {"expr": "at", "format": format_}}}

    assert codes(tree, [{"at": value}]) == expected


@pytest.mark.parametrize(
    ("values", "star", "expected"),
    [
        (["1", "2.5"], "@", ["IFX160"]),
        (["1", "x"], "@", []),
        (["1", None], "@", ["IFX160"]),
        (["1"], {"expr": "@", "cast": "numbers"}, []),
        (["01"], "@", []),
        ([1], "@", []),
    ],
)
def test_a_star_that_stores_numbers_as_strings(values: list[Any], star: Any, expected: list[str]) -> None:
    tree = {"points": {"fields": {"*": star, "class": {"const": 1}}}}

    assert codes(tree, [{"halt": value, "n": 1} for value in values]) == expected


# --- laws ---

NAMES = st.sampled_from(["def", "lambda", "é", "a b", "class", "null", "items"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "x", "1"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=12,
)


@st.composite
def expressions(draw: st.DrawFn, depth: int = 3) -> str:
    if depth == 0:
        return draw(st.sampled_from(["@", "`1`", "'x'", "root()"]) | NAMES.map(json.dumps))
    a, b = (draw(expressions(depth=depth - 1)) for _ in range(2))
    forms = [
        f"({a}) | ({b})", f"({a}) || ({b})", f"({a}) && ({b})", f"!({a})", f"({a}) == ({b})", f"({a}) < ({b})",
        f"({a})[0]", f"({a})[].{json.dumps(draw(NAMES))}", f"({a})[?{b}]", f"({a}).*", f"[{a}, {b}]", f"{{k: {a}}}",
        f"if({a}, {b}, {a})", f"coalesce({a}, {b})", f"not_null({a}, {b})", f"map(&({a}), to_array({b}))", f"type({a})",
    ]  # fmt: skip
    return draw(st.sampled_from(forms))


@settings(max_examples=300, deadline=None)
@given(expressions(), st.lists(VALUES, min_size=1, max_size=4))
def test_a_trace_agrees_with_the_evaluation(text: str, documents: list[Any]) -> None:
    """The whole part gives what the expression gives; a path got an object with the member where its value is not null."""
    try:
        expression = compile_expression(text)
    except Exception:  # many of these can only fail
        return
    parts = expression.trace([Place(document, document) for document in documents])

    results = []
    for document in documents:
        try:
            results.append(expression.evaluate(document))
        except Exception:
            continue
    assert parts[0].found == results
    for part in parts:
        if part.kind == "field":
            name = part.node["value"]
            assert json.dumps(name)[1:-1] in text[part.start : part.stop] or name in text[part.start : part.stop]
            assert part.found == [value.get(name) if isinstance(value, dict) else None for value in part.given]


# --- fixes ---


def swapped(text: str, at: int) -> str:
    return text[:at] + text[at + 1] + text[at] + text[at + 2 :]


def misspellings(text: str) -> list[tuple[int, str]]:
    """Places of words in keys, functions and words of the schema that a person could misspell."""
    words = re.finditer(
        r"\b(?:measurement|timestamp|fields|points|format|stream|topic|payload|integer|boolean|string|unix_ms|rfc3339"
        r"|for_each|where|not_null|parse_number|regex_capture|split|items|default|required)\b",
        text,
    )
    return [(match.start(), match.group()) for match in words]


@pytest.mark.parametrize("file", MAPPINGS, ids=lambda file: file.stem)
def test_a_misspelt_word_is_corrected_or_left(file: Path) -> None:
    """A fix gives the document that was meant, with all its comments, or nothing."""
    text = file.read_text().partition("\nexamples:")[0] + "\n"
    whole = file.read_text()
    meant = load_mapping(file).document.tree
    draw = random.Random(file.stem)
    corrected = tried = 0
    for start, word in draw.sample(misspellings(text), 6):
        typo = swapped(word, draw.randrange(1, len(word) - 1))
        if typo == word:
            continue
        broken = whole[:start] + typo + whole[start + len(word) :]
        fixed, count = fix_all(broken, lambda each: check_mapping(read_document(each, file=str(file))))
        tried += any(problem.severity == "error" for problem in check_mapping(read_document(broken, file=str(file))))
        if count:
            corrected += 1
            assert read_document(fixed, file=str(file)).tree == meant, (word, typo)
            assert fixed == whole
    assert corrected >= tried * 0.5


@pytest.mark.parametrize(
    ("style", "wrong", "right"),
    [
        (style, wrong, right)
        for style in ("plain", "'", '"')
        for wrong, right in (
            ("a == null", "a == `null`"),
            ("lenght(a)", "length(a)"),
            ('a || split(b, ".")[0]', "a || split(b, '.')[0]"),
        )
        if style != "plain" or '"' not in wrong
    ],
)
def test_a_fix_is_written_as_its_scalar_needs_it(style: str, wrong: str, right: str) -> None:
    quoted = {"plain": wrong, "'": "'" + wrong.replace("'", "''") + "'", '"': json.dumps(wrong)}[style]
    text = (
        "iggyflux: 1\nkind: writer\nname: n\nfrom: {stream: s, topic: t}\npoints:\n"
        f"  tags:\n    while: {quoted}   # why\n  measurement: {{const: m}}\n"
    )
    fixed, count = fix_all(text, lambda each: check_mapping(read_document(each, format="yaml")))

    assert count == 1
    assert read_document(fixed, format="yaml").tree["points"]["tags"] == {"while": right}  # type: ignore[index, call-overload]
    assert "   # why\n" in fixed


@pytest.mark.parametrize(("mark", "line_break"), [(b"", b"\r\n"), (b"\xef\xbb\xbf", b"\n"), (b"\xef\xbb\xbf", b"\r\n")])
@pytest.mark.parametrize("suffix", ["yaml", "toml"])
def test_a_fixed_file_keeps_everything_else(tmp_path: Path, mark: bytes, line_break: bytes, suffix: str) -> None:
    """Byte order mark, line breaks, permissions, and a link to the file."""
    text = {
        "yaml": "iggyflux: 1  # é\nkind: writer\nfrom: {stream: s, topic: t}\npoints: {measurement: env, "
        "fields: {a: {expr: a, type: flaot}}, timestamp: {spread: offset}}\n",
        "toml": "iggyflux = 1  # é\nkind = 'writer'\nfrom = {stream = 's', topic = 't'}\n[points]\nmeasurement = 'env'\n"
        "fields = {a = {expr = 'a', type = 'flaot'}}\ntimestamp = {spread = 'offset'}\n",
    }[suffix]
    file, link = tmp_path / f"real.{suffix}", tmp_path / f"link.{suffix}"
    file.write_bytes(mark + text.encode().replace(b"\n", line_break))
    file.chmod(0o640)
    link.symlink_to(file)
    (tmp_path / "samples").write_text('{"a": 1}\n')

    outcome = iggyflux("validate", link, "--samples", tmp_path / "samples", "--fix")

    right = {"yaml": ("flaot", "float", "measurement: env", "measurement: {const: env}"),
             "toml": ("'flaot'", '"float"', "measurement = 'env'", "measurement = {const = 'env'}")}[suffix]  # fmt: skip
    expected = text.replace(right[0], right[1]).replace(right[2], right[3])
    assert outcome.code == 0, outcome.out
    assert "2 problems fixed" in outcome.err
    assert file.read_bytes() == mark + expected.encode().replace(b"\n", line_break)
    assert file.stat().st_mode & 0o777 == 0o640
    assert link.is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([file.name, link.name, "samples"])


def test_samples_need_one_mapping(tmp_path: Path) -> None:
    assert iggyflux("validate", *MAPPINGS[:2], "--samples", "-", stdin="").code == 2
    assert iggyflux("validate", MAPPINGS[0], "--whole").code == 2


def test_samples_of_a_pipe_are_read_once(tmp_path: Path) -> None:
    """Also where the document is checked several times."""
    file = tmp_path / "m.yaml"
    file.write_text(
        "{iggyflux: 1, kind: writer, from: {stream: s, topic: t}, points: {measurement: {const: m}, "
        "fields: {a: {expr: a, typ: float}}, timestamp: {spread: offset}}}"
    )
    outcome = iggyflux("validate", file, "--samples", "-", "--fix", stdin='{"a": "oops"}\n')

    assert outcome.code == 0
    assert "sample 1 fails" in outcome.out


# --- what is not only about samples ---


def test_what_only_examples_show_is_said_of_examples() -> None:
    examples = [{"message": {"lambda": 1}, "points": []}]
    (missing,) = found(fields("lamda") | {"examples": examples}, [])
    (shown,) = found(fields("lamda") | {"examples": examples}, [{"lambda": 1}])

    assert (missing.message, shown.message) == ("no example has a member lamda", "no sample has a member lamda")


@pytest.mark.parametrize("elements", [[["0.1", "5"]], ["a"], [7]])
def test_parent_without_parentheses_is_explained_whatever_the_elements_are(elements: list[Any]) -> None:
    tree = fields("parent.lambda") | {"for_each": ["class", "def"]}
    (problem,) = [each for each in found(tree, [{"class": [{"def": elements, "lambda": 1}]}]) if each.code == "IFX157"]

    assert problem.hint is not None
    assert problem.hint.startswith("parent() is the element around this one")


BOOK = {"symbol": "x", "bids": [["0.1", "5"]], "asks": [["0.2", "1"]]}
BOOK_OF_OBJECTS = {"bids": [{"p": 1}], "asks": [{"p": 2}]}
NESTED = {"racks": [{"slots": [1]}, {"slots": None}]}


@pytest.mark.parametrize(
    ("lists", "samples", "expected"),
    [
        (["bids", "asks"], [BOOK], "it is beside that list, not inside"),
        (["bids", "asks"], [BOOK_OF_OBJECTS], "it is beside that list, not inside"),
        (["bids", "askz"], [BOOK], "they have no members"),
        (["bids", "asks"], [BOOK_OF_OBJECTS | {"asks": None}], None),
        (["racks", "slots"], [NESTED], None),
        (["racks", "slots"], [NESTED | {"slots": [1]}], None),
        (["racks", "slots"], [{"slots": ["x"], "racks": [{"site": "a", "slots": None}]}], None),
        (["racks", "slots"], [{"slots": ["x"], "racks": [None]}], None),
        (["bids", "@"], [BOOK], None),
        (["[bids, asks]", "@"], [BOOK], None),
        ("[bids, asks][]", [BOOK], None),
        (["bids", "asks"], [{"bids": [], "asks": []}], None),
    ],
)
def test_lists_beside_each_other_are_not_nested(lists: Any, samples: list[Any], expected: str | None) -> None:
    """`for_each: [bids, asks]` without quotes is a list of two expressions, which gives no element of either."""
    problems = [each for each in found({"for_each": lists}, samples) if each.code == "IFX169"]

    assert [each.message.rpartition(": ")[2] for each in problems] == ([expected] if expected else [])
    assert all('write "[bids, ask' in (each.hint or "") for each in problems)


def test_lists_of_a_point_are_looked_at_too_and_examples_are_enough() -> None:
    tree = {"points": {"for_each": ["bids", "asks"]}, "examples": [{"message": BOOK, "points": []}]}
    (problem,) = [each for each in found(tree, []) if each.code == "IFX169"]
    assert (problem.location.pointer, problem.fix and problem.fix.safe) == ("/points/for_each", False)


@pytest.mark.parametrize(("most", "expected"), [(1, ["IFX622"]), (2, []), (3, [])])
def test_samples_that_make_too_many_series_are_reported(most: int, expected: list[str]) -> None:
    tree = {"limits": {"series": most}, "points": {"tags": {"del": "del"}}}
    samples = [{"del": "a"}, {"del": "b"}, {"del": "a"}]
    assert [code for code in codes(tree, samples) if code == "IFX622"] == expected
