"""Inference: any samples give a mapping that renders all of them, or an error that says what is missing."""

from __future__ import annotations

import base64
import gzip
import io
import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import cbor2
import fastavro
import msgspec
import pyarrow
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pyarrow import parquet

from iggyflux import parse_mapping
from iggyflux.authoring.examples import run_examples
from iggyflux.authoring.inference import Proposal, Recognized, Wishes, infer, recognize_file, recognize_payloads
from iggyflux.authoring.inference.proposal import Field
from iggyflux.authoring.inference.prove import prove
from iggyflux.authoring.inference.recognition import RECOGNIZED
from iggyflux.authoring.samples import SampleError
from iggyflux.codes import CODES
from iggyflux.documents import parse_document
from iggyflux.editor.diagnostics import check_mapping
from iggyflux.lineprotocol import parse_lines
from iggyflux.mapping import WriterMapping
from iggyflux.records import Message
from iggyflux.transports.local.envelopes import bare_message
from tests.inference import HELD_OUT, Key, Step, covers, leaves, read_keys, write_path
from tests.inferred_paths import each_paths, paths_of, paths_of_text
from tests.shell import iggyflux
from tests.test_infer_answers import messages_of

# Foreign names, and names that could break a document or an expression.
NAMES = st.sampled_from(
    [
        *(
            "",
            " ",
            "a b",
            "null",
            "true",
            "time",
            "_field",
            "x.y",
            "x[0]",
            "*",
            "p*",
            "\\",
            "q\\",
            "#",
            "=",
            "é=",
            "日本",
        ),
        *(
            "'",
            '"',
            "\u2028",
            "\x85",
            "a\nb",
            "class",
            "__class__",
            "y",
            "n",
            "fjörður",
            "ríki",
            "kennung",
            "zeitpunkt",
        ),
        *("id", "ts", "type", "key", "value", "created_at", "password", "status"),
        *("k1", "k2", "k3", "42", "43", "ab:1", "ab:2", "EUR"),
    ]
)
TEXTS = ["", "x", "y", "grün", "n/a", "7", "21.5", "21,5", "+3", "007", "true", "NaN", "a\nb", "t\\", "\x00"]
CLOCKS = ["2026-01-01T00:00:00Z", "2026-01-02 10:11:12", "25.12.2026 10:00", "31/12/2026", "2026-13-01T00:00:00Z"]
TIMES = st.one_of(*(st.integers(16 * 10**digits, 18 * 10**digits) for digits in (8, 11, 17)), st.sampled_from(CLOCKS))
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 100),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.sampled_from(TEXTS),
    st.text(max_size=8),
    TIMES,
)
TREES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(NAMES, inner, max_size=4),
        st.dictionaries(NAMES, inner, max_size=4),
    ),
    max_leaves=12,
)


@st.composite
def alike(draw: st.DrawFn) -> list[Any]:
    """Messages of one shape: each has the members of a template, with other scalars, and sometimes without one."""
    template = draw(st.one_of(TREES, st.dictionaries(NAMES, TREES, min_size=1, max_size=5)))
    return [_varied(draw, template) for _ in range(draw(st.integers(1, 6)))]


def _varied(draw: st.DrawFn, tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _varied(draw, value) for key, value in tree.items() if draw(st.integers(0, 9)) < 9}
    if isinstance(tree, list):
        return [_varied(draw, value) for value in tree] * draw(st.integers(0, 2))
    if isinstance(tree, bool):
        return draw(st.booleans())
    if isinstance(tree, (int, float)):
        return draw(st.sampled_from([tree, tree + 1, tree * 2]))
    return draw(st.sampled_from([tree, tree, "z", None])) if isinstance(tree, str) else tree


def proved(proposal: Proposal, samples: Recognized, form: str) -> WriterMapping:
    """Return the mapping of a proposal; fail if a claim that every proposal makes is wrong."""
    mapping = parse_mapping(proposal.text(form), format=form)
    assert isinstance(mapping, WriterMapping)
    messages = [bare_message(each, index, stream="s", topic="messages") for index, each in enumerate(samples.payloads)]
    for plan in (mapping.plan("compiled"), mapping.plan("reference")):
        rendered = plan.render(messages)
        assert list(rendered.failures) == []
        assert rendered.lines
    assert proposal.examples
    assert [result.differences for result in run_examples(mapping)] == [()] * len(proposal.examples)
    for field in proposal.fields if not samples.has_non_finite else ():
        assert not field.omits or fails_without_omitting(proposal, field, messages), field
    return mapping


def fails_without_omitting(proposal: Proposal, field: Field, messages: list[Message]) -> bool:
    """Return whether a sample has a bad value of the field: it fails where bad values are not left out."""
    strict = tuple(replace(each, omits=False) if each is field else each for each in proposal.fields)
    mapping = parse_mapping(replace(proposal, fields=strict, examples=()).text())
    assert isinstance(mapping, WriterMapping)
    return bool(mapping.plan().render(messages).failures)


def check(recognize: Callable[[], Recognized], form: Literal["yaml", "toml"] = "yaml") -> None:
    """Assert that samples give a mapping that keeps its claims, or an error with a reason and a hint."""
    refused: SampleError | None = None
    try:
        samples = recognize()
        proposal = infer(samples, Wishes("s", "messages"), form=form)
    except SampleError as error:
        refused = error
    if refused is None:
        proved(proposal, samples, form)
    else:
        assert refused.code in CODES.keys() - {"IFX545"}  # a weaker choice was left
        assert refused.reason
        assert refused.hint


@given(form=st.sampled_from(["yaml", "toml"]), messages=st.one_of(alike(), st.lists(TREES, min_size=1, max_size=4)))
def test_any_messages_give_a_mapping_that_renders_them_or_a_clear_error(
    form: Literal["yaml", "toml"], messages: list[Any]
) -> None:
    check(lambda: recognize_payloads([json.dumps(message).encode() for message in messages]), form)


@pytest.mark.parametrize(
    ("messages", "code"),
    [
        ([[], [False, 0], {}], None),
        ([["1,5", True], {}], None),
        ([{"tun": [3, "fyra"]}, {"tun": {}}], None),
        ([[[{"kar": "ek"}, ["a", 5, "1"]], [[]]]], "IFX542"),
        (["1e400", None], "IFX542"),
        ([[{"at": CLOCKS[0], "kar": 1.5}, {"at": CLOCKS[0], "kar": 2.5}, {"at": ["x"], "kar": 3}]], None),
        ([{"kar": 1, "djup": "1e400"}, {"djup": "1e400"}, {}], None),
    ],
)
def test_a_few_odd_messages_give_a_mapping_or_an_error_that_says_why(messages: list[Any], code: str | None) -> None:
    """Lists of scalars of several kinds beside objects; texts of numbers that are too large; a time that is none."""
    samples = recognize_payloads([json.dumps(message).encode() for message in messages])
    if code is None:
        proved(infer(samples, Wishes("s", "messages")), samples, "yaml")
        return
    with pytest.raises(SampleError) as refused:
        infer(samples, Wishes("s", "messages"))
    assert (refused.value.code, bool(refused.value.reason), bool(refused.value.hint)) == (code, True, True)


def flat(values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    names = st.one_of(NAMES, st.text(max_size=5)).filter(lambda name: name.lower() not in ("id", "key"))
    return st.dictionaries(names, values, min_size=1, max_size=6)


# Of one type, since keys such as 42 and 43 make a map, whose values are one field.
@given(numbers=st.one_of(flat(st.floats(0.1, 0.9)), flat(st.integers(2**62, 2**63 - 1))))
def test_every_number_is_a_field_whatever_its_name(numbers: dict[str, float]) -> None:
    """A name that breaks an expression, a document or a line would cost the field."""
    samples = recognize_payloads([json.dumps(numbers).encode()])
    mapping = proved(infer(samples, Wishes("s", "messages")), samples, "yaml")

    lines = mapping.plan().render([bare_message(samples.payloads[0], 0)]).lines
    stored = [value for line in lines for point in parse_lines(line) for value in point.fields.values()]
    assert sorted(map(repr, stored)) == sorted(map(repr, numbers.values()))


def german(number: float) -> str:
    return f"{number:,.2f}".translate(str.maketrans(",.", ".,"))


WRITINGS: dict[str, Callable[[float], str]] = {
    "1.234,50": german,
    "1234,50": lambda number: german(number).replace(".", ""),
    "1,234.50": lambda number: f"{number:,.2f}",
    "1234.50": lambda number: f"{number:.2f}",
    "+1234.50": lambda number: f"{number:+.2f}",
}


@pytest.mark.parametrize("writing", WRITINGS)
@given(
    whole=st.lists(st.integers(-99, 9_999_999), min_size=3, max_size=9),
    large=st.integers(1_000, 9_999),
    junk=st.lists(st.sampled_from(["--", "n/a", "?", "-"]), max_size=2),
)
def test_numbers_are_read_as_they_are_written(writing: str, whole: list[int], large: int, junk: list[str]) -> None:
    """With commas or points between thousands, as export files have them; what says that there is none is left out."""
    numbers = [large + 0.25, *(number + 0.75 for number in whole)]
    texts = [*map(WRITINGS[writing], numbers), *junk]
    messages = [
        json.dumps({"at": 1767225600 + 60 * number, "yield": text, "hum": 0.5 + number}).encode()
        for number, text in enumerate(texts)
    ]
    samples = recognize_payloads(messages)
    mapping = proved(infer(samples, Wishes("s", "mill")), samples, "yaml")
    lines = mapping.plan().render([bare_message(each, 0) for each in messages]).lines
    points = [point for line in lines for point in parse_lines(line)]
    assert all(point.tags == {} for point in points)
    assert [point.fields["yield"] for point in points if "yield" in point.fields] == numbers


@pytest.mark.parametrize("begins", ["request", "session", "message", "msg", "event", "trace", "packet", "order"])
@pytest.mark.parametrize("ends", ["time", "length", "len", "size", "ms", "value", "seconds", "bytes", "latency", "kg"])
@pytest.mark.parametrize("written", [lambda number: str(number * 7 + 3), lambda number: f"{number / 8 + 0.125:.3f}"])
def test_a_number_in_a_text_is_no_id_of_a_message_by_the_first_word_of_its_name(
    begins: str, ends: str, written: Callable[[int], str]
) -> None:
    rows = [{"kiln": "a", "ts": 1767225600 + n, f"{begins}_{ends}": written(n)} for n in range(24)]
    samples = recognize_payloads([json.dumps(row).encode() for row in rows])
    [field] = infer(samples, Wishes("s", "t")).fields
    assert field.key == f"{begins}_{ends}"
    assert field.type in ("float", "integer")


@pytest.mark.parametrize("name", ["deduplicationId", "ladungId", "requestId", "vorgang_id"])
def test_an_id_that_is_new_in_each_message_is_no_tag(name: str) -> None:
    rows = [{name: f"{n * 7919 % 65536:04x}-ab", "kiln": "ab"[n % 2], "glow": 700.5 + n} for n in range(16)]
    proposal = infer(recognize_payloads([json.dumps(row).encode() for row in rows]), Wishes("s", "t"))
    assert [tag.key for tag in proposal.tags] == ["kiln"]
    assert [each.key for each in proposal.unused] == [name]


@pytest.mark.parametrize("as_text", [False, True])
@pytest.mark.parametrize("first", ["name", "number"])
@pytest.mark.parametrize("missing", ["nothing", "null", "word", "both", "short"])
def test_the_columns_of_rows_in_a_list_are_fields(as_text: bool, first: str, missing: str) -> None:
    """Numbers in strings are numbers, and a cell without a value does not make a table a list."""
    if missing == "short" and first == "number":
        return  # numbers alone may be lists of any length

    def number(value: float) -> Any:
        return f"{value:.2f}" if as_text else value

    messages = []
    for n in range(12):
        rows = [
            [name if first == "name" else number(index + 1.5), number(61000.25 + n + index), number(0.125 * (n + 1))]
            for index, name in enumerate(["kar", "fat", "sil"])
        ]
        if n % 3 == 2:
            rows[n % 2][1] = {"null": None, "both": None, "word": "n/a"}.get(missing, rows[n % 2][1])
            rows[n % 2][2] = {"both": "n/a"}.get(missing, rows[n % 2][2])
            rows[n % 2] = rows[n % 2][:2] if missing == "short" else rows[n % 2]
        messages.append({"ts": 1767225600 + 60 * n, "djup": rows})
    samples = recognize_payloads([json.dumps(message).encode() for message in messages])

    proposal = infer(samples, Wishes("s", "t"))

    proved(proposal, samples, "yaml")
    assert proposal.for_each == ("djup",)
    assert [tag.key for tag in proposal.tags] == (["djup_0"] if first == "name" else [])
    assert {"djup_1", "djup_2"} <= {field.key for field in proposal.fields if field.type == "float"}


@pytest.mark.parametrize("asks", [[["61001.00", "0.5"]], ["61001.00"]])
def test_a_list_with_numbers_in_strings_that_is_not_walked_is_to_be_checked(asks: Any) -> None:
    message = {"ts": 1767225600, "bids": [["61000.00", "0.5"], ["60999.00", "0.25"]], "asks": asks}
    samples = recognize_payloads([json.dumps(message).encode()] * 3)
    assert "# CHECK: not stored: root().asks" in infer(samples, Wishes("s", "t")).text()


def test_two_ids_of_a_device_that_change_together_are_one_tag() -> None:
    rows = [{"devEui": f"0004a30b001c05{n % 3:02x}", "deviceName": f"ofen {n % 3}", "glow": 0.5 + n} for n in range(12)]
    proposal = infer(recognize_payloads([json.dumps(row).encode() for row in rows]), Wishes("s", "t"))
    assert [tag.key for tag in proposal.tags] == ["deviceName"]


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (["pump ts=1767225600 kar=a djup=20.5", "pump ts=1767225660 djup=21.5 kar=b"], "in any order"),
        (["ts=1767225600 kar=a djup=20.5", "ts=1767225660 djup=21.5 kar=b"], "payload: logfmt"),
        (['{"ts": 1767225600, "djup": NaN}', '{"ts": 1767225660, "djup": 2.5}'], "NaN and infinities are left out"),
    ],
)
def test_the_command_infers_what_the_library_does(lines: list[str], says: str, tmp_path: Path) -> None:
    """The command joins files, and lost the expressions that read keys in any order."""
    files = [tmp_path / f"{name}.txt" for name in "ab"]
    for file in files:
        file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    assert says in iggyflux("infer", files[0]).out
    assert says in iggyflux("infer", *files).out


def test_a_point_is_between_thousands_where_other_columns_have_decimal_commas() -> None:
    rows = "".join(f"2026-03-13T10:{n}:00Z;{n},5;1.3{n}\n" for n in range(10, 22))
    samples = recognize_file(f"ts;djup;kW\n{rows}".encode())
    mapping = proved(infer(samples, Wishes("s", "t")), samples, "yaml")
    lines = mapping.plan().render([bare_message(samples.payloads[0], 0)]).lines
    assert [parse_lines(line)[0].fields["kW"] for line in lines] == [1300 + n for n in range(10, 22)]
    assert "# CHECK that the points are between thousands" in infer(samples, Wishes("s", "t")).text()


@pytest.mark.parametrize("name", ["djup", "djup (bar)", "text", "status"])
@pytest.mark.parametrize("written", ["{}", "{},5", "+{}.5", "1.{}0,5", "1,2{}.5", "{}.125"])
def test_a_bad_value_that_no_sample_has_fails(written: str, name: str) -> None:
    """To leave it out would lose the first bad value that comes without a failure; a name decides nothing."""
    rows = [{"ts": 1767225600 + n, "glow": f"{n},5", name: written.format(10 + n)} for n in range(12)]
    samples = recognize_payloads([json.dumps(row).encode() for row in rows])
    proposal = infer(samples, Wishes("s", "t"))

    mapping = proved(proposal, samples, "yaml")
    rendered = mapping.plan().render([bare_message(json.dumps({**rows[0], name: "defekt"}).encode(), 0)])

    assert [field.key for field in proposal.fields] == ["glow", name]
    assert "on_bad_value" not in proposal.text()
    assert len(rendered.failures) == 1


def test_a_state_of_texts_and_integers_is_a_text_of_which_none_is_left_out() -> None:
    rows = [{"ts": 1767225600 + n, "host": "ab"[n % 2], "gear": ["low", "high", 3][n % 3]} for n in range(24)]
    samples = recognize_payloads([json.dumps(row).encode() for row in rows])

    mapping = proved(infer(samples, Wishes("s", "t")), samples, "yaml")

    lines = mapping.plan().render([bare_message(each, 0) for each in samples.payloads]).lines
    assert [parse_lines(line)[0].fields for line in lines] == [{"gear": str(row["gear"])} for row in rows]


def test_an_expression_of_another_type_is_no_bad_value() -> None:
    """The document fails, and no sample: the type is cast, and nothing is left out."""
    messages = [
        bare_message(json.dumps({"ts": 1767225600 + n, "kar": "xy" * n, "glow": 0.5}).encode(), n) for n in range(3)
    ]
    proposal = infer(recognize_payloads([each.payload for each in messages]), Wishes("s", "t"))
    wrong = replace(proposal, fields=(Field("size", "length(kar)", "how long", "string"),), tags=())

    found = prove(wrong, messages, "yaml")

    assert found.fields == (Field("size", "length(kar)", "how long", "string", cast=True),)


@pytest.mark.parametrize("written", ["{},5", "+{}.5", "1.{}0,5"])
@pytest.mark.parametrize("junk", ["", "n/a", "--"])
def test_cells_without_a_number_are_counted_when_they_are_left_out(written: str, junk: str) -> None:
    rows = [{"ts": 1767225600 + n, "glow": 0.5 + n, "djup": written.format(10 + n)} for n in range(12)]
    rows[7]["djup"] = rows[9]["djup"] = junk
    messages = [bare_message(json.dumps(row).encode(), n) for n, row in enumerate(rows)]
    samples = recognize_payloads([each.payload for each in messages])
    proposal = infer(samples, Wishes("s", "t"))

    rendered = proved(proposal, samples, "yaml").plan().render(messages)

    [field] = [each for each in proposal.fields if each.key == "djup"]
    assert "in 10 of 12; 2 of 12 values are not numbers" in field.reason
    assert sum("djup=" in line for line in rendered.lines) == 10
    assert sum(each.count if hasattr(each, "count") else 1 for each in rendered.omitted) == 2


@given(data=st.one_of(st.binary(max_size=60), st.text(max_size=60).map(str.encode)))
def test_any_bytes_give_a_mapping_that_renders_them_or_a_clear_error(data: bytes) -> None:
    check(lambda: recognize_file(data))


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 3), st.integers(0, 9)), min_size=2, max_size=12))
def test_points_that_overwrite_others_are_told(readings: list[tuple[str, int, int]]) -> None:
    """A message that comes twice overwrites itself, and is none of them."""
    messages = [{"kiln": kiln, "ts": 1767225600 + 60 * at, "glow": 700.5 + glow} for kiln, at, glow in readings]
    try:
        proposal = infer(recognize_payloads([json.dumps(each).encode() for each in messages]), Wishes("s", "t"))
    except SampleError:
        return
    mapping = parse_mapping(proposal.text("yaml"))
    assert isinstance(mapping, WriterMapping)
    lines = set(mapping.plan().render([bare_message(json.dumps(each).encode(), 0) for each in messages]).lines)
    points = {line.rpartition(" ")[::2] for line in lines}
    places = {(line.partition(" ")[0], time) for line, time in points}
    told = [note for note in proposal.notes if note.startswith("CHECK: ")]
    assert bool(told) == (len(lines) > len(places))
    if told:
        assert told[0].startswith(f"CHECK: {len(lines) - len(places)} of ")


def test_the_text_that_tells_points_of_one_time_apart_is_named() -> None:
    """Kilns of two halls have the same names; points with no field in common do not overwrite each other."""
    hours = range(1767225600, 1767225600 + 40 * 3600, 3600)
    halls = [{"kiln": kiln, "hall": hall, "ts": ts, "glow": 7.5} for ts in hours for hall in "xy" for kiln in "abc"]
    mixed = [{**each, "glow": number * 1.5} for number, each in enumerate(halls)]
    parts = [{"kiln": "a", "ts": ts, name: 0.5} for ts in hours for name in ("glow", "draft")]
    told = []
    for messages in (mixed, parts):
        samples = recognize_payloads([json.dumps(each).encode() for each in messages])
        told.append([note for note in infer(samples, Wishes("s", "t")).notes if note.startswith("CHECK")])

    what = "CHECK: 120 of 240 points overwrite another one, with the same tags and time"
    assert told == [[f"{what}. Add a tag (--tag hall tells them apart), or take another time (--time)."], []]


def test_a_path_that_no_sample_has_is_no_constant_measurement() -> None:
    samples = recognize_payloads([b'{"kiln": "a", "glow": 700.5}'])
    with pytest.raises(SampleError) as found:
        infer(samples, Wishes("s", "t", measurement="data.kiln.name"))
    assert found.value.code == "IFX544"


def unnamed(proposal: Proposal, trees: list[Any]) -> set[str]:
    """Return the places of scalars that the mapping of a proposal neither reads nor names in a comment."""
    text = proposal.text("yaml")
    mapping = parse_mapping(text)
    assert isinstance(mapping, WriterMapping)
    [point] = mapping.writer.points
    sources = [point.measurement, point.timestamp.source]
    sources += [part.source for part in (*point.tags, *point.fields)]
    read = {path for source in sources for path in paths_of(mapping, source) if not path.startswith("header(")}
    named: set[str] = set()
    filtered: set[tuple[str, str]] = set()
    for each in proposal.unused:
        expression = each.line if isinstance(each.line, str) else str(each.line["expr"])
        written = (expression, expression.replace("'", "''"), json.dumps(expression, ensure_ascii=False)[1:-1])
        assert any(form in text for form in written) or not expression.isprintable()
        if each.kind == "rest" and (kind := re.search(r"type\(@\) != '(\w+)'", expression)):
            filtered |= {(path, kind[1]) for path in paths_of_text(mapping, expression)}
            continue
        suffix = {"value": "", "rest": "", "list": "[]", "map": ".*"}[each.kind]
        if not expression.startswith("header("):
            named |= {f"{path}{suffix}".removeprefix(".") for path in paths_of_text(mapping, expression)}
    # A message without the list of `for_each` may itself be an element.
    alone = {path.removeprefix(f"{each}.") for each in each_paths(mapping) for path in read | named}
    return {
        write_path(steps)
        for tree in trees
        for steps, value in leaves(tree)
        if value is not None
        and not any(covers(path, steps, tree) for path in read | alone)
        and not any(covers(path, steps[:end], tree) for path in named for end in range(len(steps) + 1))
        and not any(
            covers(path, steps[:end], tree) and _kind_at(tree, steps[:end]) != kind
            for path, kind in filtered
            for end in range(len(steps) + 1)
        )
    }


def _kind_at(tree: Any, steps: tuple[Step, ...]) -> str:
    for step in steps:
        tree = tree[step]
    return {dict: "object", list: "array"}.get(type(tree), "scalar")


# Lists and objects in lists: what is measured is somewhere in them.
LISTS = st.recursive(
    st.one_of(st.integers(-5, 100), st.floats(0.1, 9.9), st.sampled_from(["röd", "blå", "n/a", "7"]), st.booleans()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=6),
        st.dictionaries(st.sampled_from(["kar", "fat", "djup", "sil", "42", "43", "rad", "id"]), inner, max_size=4),
    ),
    max_leaves=14,
)


@given(messages=st.one_of(alike(), st.lists(LISTS, min_size=1, max_size=4), st.lists(TREES, min_size=1, max_size=4)))
def test_every_scalar_of_the_samples_is_read_or_named_in_a_comment(messages: list[Any]) -> None:
    payloads = [json.dumps(message).encode() for message in messages]
    try:
        samples = recognize_payloads(payloads)
        proposal = infer(samples, Wishes("s", "messages"))
    except SampleError:
        return

    assert unnamed(proposal, samples.trees) == set()


MOMENTS = st.datetimes(datetime(2024, 1, 1), datetime(2026, 12, 31))  # noqa: DTZ001  (as texts without a zone)


@pytest.mark.parametrize("named", ["kind", "kar[].kind", "kar.kind", "kar[*].kind", "kar[0].kind"])
def test_a_member_of_a_list_is_named_as_in_an_expression_or_as_seen_from_the_message(named: str) -> None:
    samples = recognize_payloads(
        [b'{"kar": [{"kind": "a", "djup": 1.5}, {"kind": "b", "djup": 2.5}], "larm": [{"nr": "x"}]}']
    )
    proposal = infer(samples, Wishes("s", "t", tags=(named,)))
    assert [(tag.expression, tag.reason) for tag in proposal.tags] == [("kind", "chosen")]


def test_a_member_of_a_list_that_is_not_walked_is_no_tag_and_the_error_names_the_list() -> None:
    samples = recognize_payloads([b'{"kar": [{"djup": 1.5}, {"djup": 2.5}], "larm": [{"nr": "x"}]}'])
    with pytest.raises(SampleError) as found:
        infer(samples, Wishes("s", "t", tags=("larm[].nr",)))
    assert "the list larm" in found.value.reason


DAYS = ["%Y-%m-%d", "%Y/%m/%d", "%Y%m%d", "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%d.%m.%y", "%d %b %Y"]
CLOCK_FACES = ["%H:%M:%S", "%H:%M", "%H.%M.%S", "%I:%M:%S %p", "%H:%M:%S.%f"]
PAIRS = [
    ("date", "time"),
    ("Date", "Time"),
    ("Datum", "Uhrzeit"),
    ("day", "hour-minute"),
    ("fecha", "hora"),
    ("d", "t"),
]


@given(
    moments=st.lists(MOMENTS, min_size=1, max_size=4, unique_by=lambda at: f"{at:%F %H:%M}"),
    day=st.sampled_from(DAYS),
    clock=st.sampled_from(CLOCK_FACES),
    names=st.sampled_from(PAIRS),
    place=st.sampled_from(["message", "list", "below"]),
)
def test_a_day_and_a_time_of_day_are_one_time(
    moments: list[datetime], day: str, clock: str, names: tuple[str, str], place: str
) -> None:
    """Which of two numbers is the day is asked for where no sample decides, and never guessed."""
    assume(day[-3:] != ".%y" or "." not in clock)  # 10.11.12 may be either
    rows = [{names[0]: f"{at:{day}}", names[1]: f"{at:{clock}}", "glow": 700.5} for at in moments]
    messages: list[Any] = [{"kiln": rows}] if place == "list" else rows
    if place == "below":
        messages = [{"kiln": row} for row in rows]
    samples = recognize_payloads([json.dumps(message).encode() for message in messages])
    is_certain = "%m" not in day or day.startswith("%Y") or any(at.day > 12 for at in moments)
    if not is_certain:
        with pytest.raises(SampleError) as asked:
            infer(samples, Wishes("s", "t"))
        assert asked.value.code == "IFX543"
        assert f"--time-format '{day} {clock}'" in (asked.value.hint or "")
    wishes = Wishes("s", "t") if is_certain else Wishes("s", "t", time_format=f"{day} {clock}")

    mapping = proved(infer(samples, wishes), samples, "yaml")

    [point] = mapping.writer.points
    lines = mapping.plan().render([bare_message(each, 0) for each in samples.payloads]).lines
    assert {field.key for field in point.fields} <= {"glow", "kiln_glow"}
    wanted = {datetime.strptime(f"{at:{day} {clock}}", f"{day} {clock}").replace(tzinfo=UTC) for at in moments}
    assert {parse_lines(line)[0].timestamp_ns for line in lines} == {
        (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000 for at in wanted
    }


def test_the_time_of_a_sunrise_does_not_belong_to_a_day() -> None:
    message = b'{"date": "2026-05-01", "sunrise": "05:41", "glow": 700.5}'
    text = infer(recognize_payloads([message]), Wishes("s", "t")).text()
    assert "join(" not in text


def findings(proposal: Proposal, messages: list[Message]) -> list[str]:
    """Return what `validate --samples` says of a mapping with its own samples."""
    problems = check_mapping(parse_document(proposal.text(), file="inferred.yaml"), lambda _: messages)
    return [f"{problem.code} {problem.location.pointer} {problem.message}" for problem in problems]


@given(messages=alike())
def test_validate_finds_nothing_in_a_mapping_with_the_samples_that_it_was_inferred_from(messages: list[Any]) -> None:
    messages = (messages * 10)[:12]
    try:
        samples = recognize_payloads([json.dumps(message).encode() for message in messages])
        proposal = infer(samples, Wishes("s", "messages"))
    except SampleError:
        return

    given = [bare_message(each, number, stream="s", topic="messages") for number, each in enumerate(samples.payloads)]
    assert findings(proposal, given) == []


@pytest.mark.parametrize("key", [*read_keys(), *read_keys(HELD_OUT)], ids=str)
def test_a_mapping_of_known_shapes_is_clean_and_names_every_scalar(key: Key) -> None:
    content = key.samples_file.read_bytes()
    messages = messages_of(key, content)
    samples = recognize_payloads([each.payload for each in messages]) if key.envelope else recognize_file(content)
    wishes = Wishes("s", "t", time_format="%d/%m/%Y %H:%M" if key.name == "meter-reads-ambiguous" else None)
    proposal = infer(samples, wishes, messages=messages)

    assert findings(proposal, messages) == []
    if samples.format in ("json", "csv"):
        assert unnamed(proposal, samples.trees) == set()


@pytest.mark.parametrize("decimals", [",", "."])
@pytest.mark.parametrize("blanks", ["", " "])
@pytest.mark.parametrize("comment", ["", "# pump 3 was cleaned\n"])
def test_a_table_as_it_is_found_is_read_by_options_of_csv(decimals: str, blanks: str, comment: str) -> None:
    rows = [
        f"2026-03-13T10:{n}:00Z{blanks};{blanks}{n}{decimals}5;{blanks}{['nord', 'syd'][n % 2]}\n"
        for n in range(10, 22)
    ]
    text = f"{comment}ts{blanks};{blanks}djup;{blanks}brunn\n{comment.join(rows)}"
    samples = recognize_file(text.encode())
    expected = {"delimiter": ";", "decimal": ",", "trim": True, "comment": "#"}
    unused = [
        name
        for name, is_unused in (("decimal", decimals == "."), ("trim", not blanks), ("comment", not comment))
        if is_unused
    ]

    assert samples.options == {name: value for name, value in expected.items() if name not in unused}
    mapping = proved(infer(samples, Wishes("s", "t")), samples, "yaml")
    lines = mapping.plan().render([bare_message(samples.payloads[0], 0)]).lines
    assert [parse_lines(line)[0].fields["djup"] for line in lines] == [n + 0.5 for n in range(10, 22)]


@pytest.mark.parametrize("counts", [(1, 1), (1, 3), (2, 2)])
@pytest.mark.parametrize("whole", [False, True])
def test_xml_is_recognized_and_what_is_a_list_somewhere_is_one_everywhere(
    counts: tuple[int, int], whole: bool, tmp_path: Path
) -> None:
    brunn = "".join(f'<brunn nr="{n}"><djup>{n}.5</djup></brunn>' for n in range(max(counts)))
    messages = [
        f"<plats><ts>17672256{number:02}</ts>{brunn[: len(brunn) // max(counts) * count]}</plats>"
        for number, count in enumerate(counts)
    ][: 1 if whole else 2]
    file = tmp_path / "a.xml"
    file.write_text("\n".join(messages) if not whole else messages[0].replace("><", ">\n<"), encoding="utf-8")
    outcome = iggyflux("infer", file)

    assert outcome.code == 0, outcome.err
    assert ("lists: [brunn]" in outcome.out) is (counts == (1, 3) and not whole)
    (tmp_path / "a.yaml").write_text(outcome.out, encoding="utf-8")
    rendered = iggyflux("dry-run", tmp_path / "a.yaml", file, *(["--whole"] if whole else []))
    assert rendered.code == 0, rendered.err
    assert rendered.out.count("djup=") == sum(counts[: 1 if whole else 2])


def test_the_hint_the_help_and_the_manual_name_the_same_formats() -> None:
    """Bytes in no known format: the hint names what is recognized, and how another format is declared."""
    with pytest.raises(SampleError) as refused:
        recognize_file(b"\x0e\x00\x06kar\x00\x01\xff")
    manual = Path(__file__).parents[1].joinpath("docs/infer.md").read_text(encoding="utf-8")
    rule = manual.partition("**Format.**")[2].partition("\n\n")[0]

    for text in (refused.value.hint or "", iggyflux("infer", "--help").out, rule):
        words = " ".join(text.split())
        assert [name for name in RECOGNIZED if name not in words] == []
        assert "--payload" in words
    assert "{format: avro, schema: FILE}" in (refused.value.hint or "")


@pytest.mark.parametrize("name", ["xmlns", "xmlns:djup"])
def test_the_namespace_of_xml_is_not_stored(name: str) -> None:
    """It says nothing of a source; an attribute of another name may."""
    brunn = '<brunn {}="urn:djup:1" xmlnsx="kar"><ts>17672256{:02}</ts><djup>{}.5</djup></brunn>'
    samples = recognize_payloads([brunn.format(name, n, n).encode() for n in range(12)])
    proposal = infer(samples, Wishes("s", "t"))

    proved(proposal, samples, "yaml")
    assert [tag.key for tag in proposal.tags] == ["brunn_@xmlnsx"]
    assert [(each.key, each.reason) for each in proposal.unused] == [(f"brunn_@{name}", "it declares an XML namespace")]


def _written(form: str, rows: list[dict[str, Any]]) -> bytes:
    """Rows in a format, as other programs write them."""
    if form == "avro":
        schema = {"type": "record", "name": "R", "fields": [{"name": "ts", "type": "long"}, _DJUP, _KAR]}
        file = io.BytesIO()
        fastavro.writer(file, fastavro.parse_schema(schema), rows)
        return file.getvalue()
    if form == "parquet":
        file = io.BytesIO()
        parquet.write_table(pyarrow.Table.from_pylist(rows), file)
        return file.getvalue()
    write = {"msgpack": msgspec.msgpack.encode, "cbor": cbor2.dumps, "json": lambda each: json.dumps(each).encode()}
    return write[form](rows)


_DJUP = {"name": "djup", "type": "double"}
_KAR = {"name": "kar", "type": "string"}


@pytest.mark.parametrize("form", ["json", "msgpack", "cbor", "avro", "parquet"])
@pytest.mark.parametrize("bad", [[], [math.nan], [math.inf, -math.inf]], ids=str)
def test_numbers_that_json_does_not_have_are_left_out_in_each_format(
    form: str, bad: list[float], tmp_path: Path
) -> None:
    """The others are points; nothing is left out silently where no sample has such a number."""
    depths = [*bad, 1.5, 2.25, 20.5]
    rows = [{"ts": 1_764_500_000 + n, "kar": "a", "djup": depth} for n, depth in enumerate(depths)]
    file = tmp_path / f"m.{form}"
    file.write_bytes(_written(form, rows))
    outcome = iggyflux("infer", file)

    assert outcome.code == 0, outcome.err
    assert ("on_bad_value: omit" in outcome.out) == bool(bad)
    (tmp_path / "m.yaml").write_text(outcome.out, encoding="utf-8")
    command = ["load", tmp_path / "m.yaml", file, "--dry-run", *["--whole"] * (form not in ("avro", "parquet"))]
    assert [line.split()[1] for line in iggyflux(*command).out.splitlines()] == ["djup=1.5", "djup=2.25", "djup=20.5"]


def test_a_container_that_cannot_be_read_is_named_with_the_reason() -> None:
    whole = _written("avro", [{"ts": n, "kar": "a", "djup": 1.5} for n in range(9)])
    with pytest.raises(SampleError) as refused:
        recognize_file(whole[:-30])

    assert refused.value.code == "IFX541"
    assert "an Avro container: " in refused.value.reason
    assert "no known format" not in refused.value.reason


@pytest.mark.parametrize("tags", ["", ",ort=a", ",ort=a,hall=b"])
@pytest.mark.parametrize("fields", ["floor=7i", 'floor=7i,djup=2.5,läge="a,b"', "wet=true"])
@pytest.mark.parametrize("count", [1, 2, 9])
def test_line_protocol_is_no_table_however_many_commas_its_lines_have(count: int, fields: str, tags: str) -> None:
    """And its rows are always walked, so that a message with several lines makes several points."""
    lines = [f"kar{tags} {fields} {1_764_500_000_000_000_000 + number}" for number in range(count)]
    samples = recognize_file("".join(f"{line}\n" for line in lines).encode())
    proposal = infer(samples, Wishes("s", "t"))
    rendered = proved(proposal, samples, "yaml").plan().render([bare_message("\n".join(lines).encode(), 0)])

    assert samples.format == "influx"
    assert rendered.failures == []
    assert [parse_lines(line) for line in rendered.lines] == [parse_lines(line) for line in lines]


def test_syslog_is_no_table_however_many_commas_its_lines_have() -> None:
    lines = [f"<34>1 2026-01-01T00:00:0{number}Z lift7 ctl - - - door, open" for number in range(3)]

    assert recognize_file("\n".join(lines).encode()).how.startswith("syslog")


@pytest.mark.parametrize(
    ("line", "is_said"),
    [("kar,ort=a floor=1u 1764500000000000000", True), ('kar,ort=a floor=1i,x="=7u" 1764500000000000000', False)],
)
def test_unsigned_integers_that_become_integers_are_to_be_checked(line: str, is_said: bool) -> None:
    proposal = infer(recognize_file(f"{line}\n{line}\n".encode()), Wishes("s", "t"))

    assert ("CHECK: unsigned integers become integers" in proposal.text("yaml")) is is_said


@pytest.mark.parametrize("packed", [0, 1, 3])
def test_payloads_of_a_declared_format_may_be_compressed(packed: int, tmp_path: Path) -> None:
    """The option `--payload` has no place to say so."""
    schema = {"type": "record", "name": "R", "fields": [{"name": "ts", "type": "long"}, _DJUP, _KAR]}
    lines = []
    for number in range(3):
        file = io.BytesIO()
        fastavro.schemaless_writer(file, schema, {"ts": 1_764_500_000 + number, "kar": "a", "djup": 1.5})
        payload = gzip.compress(file.getvalue()) if number < packed else file.getvalue()
        lines.append(json.dumps({"payload_base64": base64.b64encode(payload).decode()}))
    (tmp_path / "m.ndjson").write_text("\n".join(lines), "utf-8")
    declared = json.dumps({"format": "avro", "schema": schema})
    outcome = iggyflux("infer", tmp_path / "m.ndjson", "--envelope", "--payload", declared)

    assert outcome.code == 0, outcome.err
    assert re.findall(r"compression: (\w+)", outcome.out) == {0: [], 1: ["auto"], 3: ["gzip"]}[packed]
    (tmp_path / "m.yaml").write_text(outcome.out, encoding="utf-8")
    assert iggyflux("dry-run", tmp_path / "m.yaml", tmp_path / "m.ndjson", "--envelope").out.count("djup=1.5") == 3
