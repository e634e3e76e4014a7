"""A message becomes an example of a document: the text around it stays, and the example says what comes of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iggyflux.authoring.adding import add_example
from iggyflux.authoring.examples import example_message, run_examples
from iggyflux.documents import Format, read_document
from iggyflux.mapping import WriterMapping, compile_document
from iggyflux.records import Message
from iggyflux.transports.local.envelopes import bare_message

ROOT = Path(__file__).parent.parent
HEAD = """\
# of the pump house
iggyflux: 1
kind: writer
from: {stream: plant, topic: pumps, payload: json}
points:
  measurement: {const: pump}
  tags: {class: "klass"}
  fields: {bar: {expr: "pressure", required: true}}
  timestamp: {expr: "at", format: unix_s}
"""
TOML = """\
iggyflux = 1
kind = "writer"
from = {stream = "plant", topic = "pumps"}
[points]
measurement = {const = "pump"}
tags = {class = "klass"}
fields = {bar = {expr = "pressure", required = true}}
timestamp = {expr = "at", format = "unix_s"}
"""
PUMP = {"klass": "b", "pressure": 2.5, "at": 1767225600}


def compiled(text: str, form: Format) -> WriterMapping:
    mapping = compile_document(read_document(text, format=form))
    assert isinstance(mapping, WriterMapping)
    return mapping


def message(value: object) -> Message:
    return bare_message(json.dumps(value).encode(), 0, stream="plant", topic="pumps")


@pytest.mark.parametrize(
    ("text", "form"),
    [
        (HEAD, "yaml"),
        (HEAD + "examples: []\n", "yaml"),
        (HEAD + "examples:\n- message: {pressure: 1, at: 1}  # the first\n  points: ['pump bar=1.0 1000000000']\n# the end\n", "yaml"),
        (HEAD + "examples:\n    - message: {at: 1}\n      fails: IFX345\n", "yaml"),
        (HEAD + "examples: [{message: {pressure: 1, at: 1}, points: ['pump bar=1.0 1000000000']}]\n", "yaml"),
        (TOML, "toml"),
        (TOML + '\n[[examples]]\nmessage = {at = 1}\nfails = "IFX345"\n', "toml"),
    ],
)  # fmt: skip
def test_an_example_is_added_in_the_style_of_the_others(text: str, form: Format) -> None:
    added = add_example(text, message(PUMP), format=form)
    assert added is not None
    before, after = compiled(text, form), compiled(added, form)

    assert after.examples[:-1] == before.examples
    assert after.examples[-1]["points"] == ["pump,class=b bar=2.5 1767225600000000000"]
    assert all(result.passed for result in run_examples(after))
    kept = iter(added.splitlines())
    assert all(line in kept for line in text.splitlines() if "examples: [" not in line)


@pytest.mark.parametrize(
    ("value", "result"),
    [
        (PUMP, {"points": ["pump,class=b bar=2.5 1767225600000000000"]}),
        ({"at": 1}, {"fails": "IFX345"}),
        ([], {"fails": "IFX345"}),
    ],
)
def test_an_example_says_what_comes_of_it(value: object, result: dict[str, object]) -> None:
    added = add_example(HEAD, message(value), format="yaml")
    assert added is not None
    example = compiled(added, "yaml").examples[-1]

    assert {key: example[key] for key in result} == result


def test_a_payload_that_is_no_json_is_kept_byte_for_byte() -> None:
    added = add_example(HEAD, bare_message(b'{"pressure": 1, "at"', 0), format="yaml")
    assert added is not None
    assert compiled(added, "yaml").examples[-1] == {
        "name": "sample 1",
        "message_json": '{"pressure": 1, "at"',
        "fails": "IFX404",
    }


def test_secrets_of_a_sample_are_not_written() -> None:
    added = add_example(HEAD, message({**PUMP, "password": "hunter2-is-long"}), format="yaml")

    assert added is not None
    assert "hunter2" not in added
    assert "password: '***'" in added


def test_coordinates_are_kept_where_the_sample_has_its_own() -> None:
    own = Message(json.dumps(PUMP).encode(), "plant", "pumps", 3, 7_001, 5, 4, 0, {"tenant": "acme"})
    added = add_example(HEAD, own, format="yaml", has_coordinates=True)
    assert added is not None
    example = compiled(added, "yaml").examples[-1]

    assert example["meta"] == {"offset": 7_001, "partition": 3, "timestamp": 5, "origin_timestamp": 4}
    assert example["headers"] == {"tenant": "acme"}


def test_a_document_on_one_line_or_of_a_reader_is_left_alone() -> None:
    flow = "{iggyflux: 1, kind: writer, from: {stream: s, topic: t}, points: {measurement: {const: m}}}\n"
    reader = (ROOT / "mappings" / "history-rows.yaml").read_text("utf-8")

    assert add_example(flow, message(PUMP), format="yaml") is None
    assert add_example(reader, message(PUMP), format="yaml") is None


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


PUMPS = st.dictionaries(st.sampled_from(["klass", "pressure", "at", "a b", "yes", "#", "é\n"]), VALUES)


@given(PUMPS, st.sampled_from(["yaml", "toml"]))
def test_any_message_can_be_an_example(value: dict[str, object], form: Format) -> None:
    text = HEAD if form == "yaml" else TOML
    added = add_example(text, message(value), format=form)

    assert added is not None
    assert added.startswith(text.rstrip("\n"))
    assert all(result.passed for result in run_examples(compiled(added, form)))


@pytest.mark.parametrize("encoding", ["utf-16le", "utf-16be", "utf-16", "koi8-r"])
@pytest.mark.parametrize("text", ["bar 7", "насос 7", "\ufeffbar 7"])
def test_an_example_has_the_bytes_of_its_message_in_any_encoding(encoding: str, text: str) -> None:
    """The bytes of "bar 7" in UTF-16 without a mark are valid UTF-8, too: other text, of other bytes in UTF-16."""
    payload = f"payload: {{format: text, encoding: {encoding}, pattern: '(?P<pressure>[0-9])'}}"
    document = HEAD.replace("payload: json", payload).replace('{expr: "at", format: unix_s}', "{spread: offset}")
    sent = text.encode(encoding, "replace")

    added = add_example(document, bare_message(sent, 0, stream="plant", topic="pumps"), format="yaml")

    assert added is not None
    after = compiled(added, "yaml")
    assert example_message(after, after.examples[-1], 0).payload == sent
    assert all(result.passed for result in run_examples(after))
