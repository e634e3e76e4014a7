"""The language service: what it proposes, explains and previews, at any position of any text."""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iggyflux import load_mapping
from iggyflux.authoring.examples import example_message
from iggyflux.documents import Document, kind_of, read_document
from iggyflux.editor.completion import Completion, completions
from iggyflux.editor.hover import hover
from iggyflux.editor.outline import Symbol, outline
from iggyflux.editor.preview import preview
from iggyflux.editor.schema_paths import schemas_at
from iggyflux.functions import FUNCTIONS
from iggyflux.payloads import decode_payload
from iggyflux.records import Message
from iggyflux.transports.local.envelopes import bare_message
from tests.test_mapping_warnings import MAPPINGS

WRITERS = [file for file in MAPPINGS if load_mapping(file).kind == "writer"]
PIPELINES = sorted(Path("examples").glob("**/pipeline*.yaml"))
PAYLOAD = {"device": {"id": "d1", "klass": "b"}, "yield": [{"lambda": 21.5, "a b": 1}], "at": 1}
SAMPLES = [bare_message(json.dumps(PAYLOAD).encode(), 0, stream="s", topic="t")]
TEXT = """\
iggyflux: 1
kind: writer
from: {stream: s, topic: t}
for_each: "yield"
points:
  - measurement: {const: env}
    tags: {device: "root().device.id"}
    fields:
      c: {expr: "lambda", type: float}
    timestamp: {expr: "root().at", format: unix_s}
"""


def samples_of(file: Path) -> list[Message]:
    mapping: Any = load_mapping(file)
    return [example_message(mapping, tree, number) for number, tree in enumerate(mapping.examples)]


def proposed(text: str, samples: list[Message] = SAMPLES) -> dict[str, Completion]:
    """The proposals at the `|` of `text`, by label."""
    offset = text.index("|")
    return {each.label: each for each in completions(text[:offset] + text[offset + 1 :], offset, samples)}


# --- completion ---


@pytest.mark.parametrize(
    ("old", "new", "labels"),
    [
        ('"root().device.id"', '"root().device.|"', ["id", "klass"]),
        ('"root().device.id"', '"root().|"', ["device", "yield", "at"]),
        ('"root().device.id"}', '"root().device.|', ["id", "klass"]),
        ("type: float", "type: |", ["float", "integer", "unsigned", "string", "boolean", "auto", "payload"]),
        ("type: float", "|", ["type", "cast", "default", "required", "on_bad_value", "const"]),
        ("fields:", "fiel|:", ["fields", "for_each", "where"]),
        ('    timestamp: {expr: "root().at", format: unix_s}\n', "    |\n", ["timestamp", "for_each", "where"]),
        ('    timestamp: {expr: "root().at", format: unix_s}\n', "    tim|\n", ["timestamp", "for_each", "where"]),
        ('"lambda"', "\"meta('|')\"", ["stream", "topic", "partition", "offset", "timestamp", "origin_timestamp", "id"]),
        ('{device: "root().device.id"}', "[|]", ["lambda"]),
        ("topic: t", "topic: t, payload: |", ["json", "msgpack", "cbor", "csv", "text", "raw", "influx", "xml", "logfmt"]),
        ("kind: writer", "kind: |", ["writer", "reader"]),
    ],
)  # fmt: skip
def test_what_is_proposed(old: str, new: str, labels: list[str]) -> None:
    found = proposed(TEXT.replace(old, new))

    assert set(labels) <= set(found)
    assert set(found) - set(labels) <= {"description", "to"} | {name for name in found if found[name].kind == "member"}


@pytest.mark.parametrize("new", ['"|"', '"la|"', "|", '"max(map(&|, root().yield))"', '"sum(root().yield[?l|', "'|'"])
def test_members_and_functions_are_proposed_in_an_expression(new: str) -> None:
    """Those of the element where the position is; also inside of a filter that is not closed."""
    found = proposed(TEXT.replace('"lambda"', new))

    assert (found["lambda"].kind, found["lambda"].detail) == ("member", "21.5")
    assert "klass" not in found
    assert set(FUNCTIONS) <= set(found)


def test_a_name_that_needs_quotes_gets_them() -> None:
    assert proposed(TEXT.replace('"lambda"', '"|"'))["a b"].text == '\\"a b\\"'
    assert proposed(TEXT.replace('"lambda"', "'|'"))["a b"].text == '"a b"'


def test_tags_and_fields_are_proposed_with_their_expression() -> None:
    found = proposed(TEXT.replace('      c: {expr: "lambda", type: float}\n', "      |\n"))

    assert found["lambda"].text == 'lambda: "lambda"'


def removed(document: Document, kind: str) -> Iterator[tuple[int, int, str]]:
    """The keys and words of the schema in a document, with their places; examples hold the data of others."""
    for pointer, node in document.root.walk():
        if pointer.startswith(("/examples", "/tables")):
            continue
        schemas = schemas_at(kind, document.tree, pointer)  # type: ignore[arg-type]
        for key, (start, end) in node.keys.items():
            if any(key in schema.get("properties", {}) for schema in schemas):
                yield start, end, key
        if isinstance(node.value, str) and any(node.value in schema.get("enum", ()) for schema in schemas):
            yield node.start, node.end, node.value


@pytest.mark.parametrize("file", [*MAPPINGS, *PIPELINES], ids=lambda file: file.stem)
def test_each_key_and_word_that_is_removed_is_proposed(file: Path) -> None:
    text = file.read_text()
    document = read_document(text, file=str(file))
    places = list(removed(document, "pipeline" if kind_of(document.tree) == "pipeline" else "mapping"))
    draw = random.Random(file.stem)
    for start, end, word in draw.sample(places, min(len(places), 12)):
        begun = word[: draw.randrange(0, len(word))]
        text_without = text[:start] + begun + text[end:]
        found = completions(text_without, start + len(begun), [])
        labels = {each.label: each for each in found}

        assert word in labels, (word, begun, text_without[max(0, start - 60) : start + 20])
        chosen = labels[word]
        written = text_without[: chosen.start] + chosen.text.rstrip(": ") + text_without[chosen.end :]
        assert written == text


@pytest.mark.parametrize("file", WRITERS, ids=lambda file: file.stem)
def test_each_member_that_is_removed_from_an_expression_is_proposed(file: Path) -> None:
    """With the samples of the document: by its whole beginning, since proposals depend on it."""
    text = file.read_text()
    head = text.partition("\nexamples:")[0]
    samples = samples_of(file)
    if not samples:
        return
    names = [match for match in re.finditer(r'"([a-z_][\w.]*\.)?([a-z_]\w+)"', head) if match[2] not in FUNCTIONS]
    source = load_mapping(file).writer.source.payload
    trees = [json.dumps(decode_payload(sample.payload, source)) for sample in samples]
    keys = {key for tree in trees for key in re.findall(r'"(\w+)"\s*:', tree)}
    tried = 0
    for match in names:
        if match[2] not in keys:
            continue
        tried += 1
        changed = text[: match.start(2)] + text[match.end(2) :]
        labels = {each.label for each in completions(changed, match.start(2), samples, file=str(file))}
        assert match[2] in labels, match.group()
    assert tried or not names


# --- hover ---


def test_hover_shows_the_value_on_the_samples() -> None:
    found = hover(TEXT, TEXT.index("device.id") + 8, SAMPLES)

    assert found is not None
    assert (TEXT[found.start : found.end], '`"d1"`' in found.text) == ("id", True)


def test_hover_explains_keys_words_and_functions() -> None:
    for word, said in (("for_each", "list"), ("measurement", "The measurement"), ("type", "type"), ("topic", "topic")):
        found = hover(TEXT, TEXT.index(word) + 1, SAMPLES)
        assert found is not None
        assert said in found.text
    text = TEXT.replace('"lambda"', '"abs(lambda)"')
    found = hover(text, text.index("abs") + 1, SAMPLES)
    assert found is not None
    assert "abs(" in found.text
    assert "`21.5`" in found.text


# --- outline and preview ---


def test_the_outline_names_the_parts() -> None:
    def names(symbols: list[Symbol] | tuple[Symbol, ...]) -> dict[str, Any]:
        return {each.name: names(each.children) for each in symbols}

    found = names(outline(TEXT))

    assert list(found) == ["iggyflux", "kind", "from", "for_each", "points"]
    assert list(found["points"]["env"]) == ["measurement", "tags", "fields", "timestamp"]
    for symbol in outline(TEXT):
        assert TEXT[symbol.name_start : symbol.name_end] == symbol.name
        assert symbol.start <= symbol.name_start <= symbol.name_end <= symbol.end


def test_the_preview_shows_lines_failures_series_and_types() -> None:
    samples = [
        bare_message(json.dumps(payload).encode(), n, stream="s", topic="t")
        for n, payload in enumerate([PAYLOAD, PAYLOAD | {"yield": [{"lambda": "x"}]}, {"yield": []}])
    ]
    shown = preview(TEXT, samples)

    assert shown is not None
    assert [made.lines for made in shown.samples] == [("env,device=d1 c=21.5 1000000000",), (), ()]
    assert [made.outcome for made in shown.samples] == ["points", "points", "empty"]
    [problem] = shown.samples[1].failures
    assert (problem.code, problem.location.line) == ("IFX340", 9)
    [written] = shown.measurements
    assert (written.measurement, written.points, written.series) == ("env", 1, 1)
    assert (written.tags, written.fields, written.first_ns) == ({"device": 1}, {"c": ("float",)}, 10**9)
    assert preview("{", samples) is None


# --- any text, any position ---


def mutated(text: str, draw: random.Random) -> str:
    """A text as it is while a person types: cut, doubled, with a quote or bracket too many."""
    at = draw.randrange(len(text))
    return draw.choice(
        [
            text[:at],
            text[:at] + draw.choice(['"', "'", "{", "]", ":", "\n", "\t", "- ", "|", "&", "\x00", "🙂"]) + text[at:],
            text[:at] + text[at + draw.randrange(20) :],
            text[:at] + text[at - 5 :],
        ]
    )


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), toml=st.booleans())
def test_no_text_and_no_position_is_an_error(seed: int, toml: bool) -> None:
    draw = random.Random(seed)
    file = draw.choice(WRITERS)
    text = mutated(file.read_text(), draw)
    offset = draw.randrange(len(text) + 1)
    format_ = "toml" if toml else "yaml"
    samples = samples_of(file)

    for found in completions(text, offset, samples, format=format_):  # type: ignore[arg-type]
        assert 0 <= found.start <= found.end == offset
    shown = hover(text, offset, samples, format=format_)  # type: ignore[arg-type]
    assert shown is None or 0 <= shown.start <= shown.end <= len(text)
    for symbol in outline(text, format=format_):  # type: ignore[arg-type]
        assert 0 <= symbol.start <= symbol.end <= len(text)
    preview(text, samples, format=format_)  # type: ignore[arg-type]


def test_an_answer_takes_no_time_that_a_person_sees() -> None:
    """100 samples: a ratio against compiling the document, which is one keystroke's least work."""
    file = next(file for file in WRITERS if file.stem == "telegraf-json")
    text, samples = file.read_text(), samples_of(file) * 100
    samples = samples[:100]
    at = text.index("timestamp:")
    completions(text, at, samples)
    began = time.process_time()
    for _ in range(3):
        load_mapping(file)
    compiling = time.process_time() - began
    began = time.process_time()
    for _ in range(3):
        completions(text, at, samples)
        hover(text, at, samples)
    assert time.process_time() - began < 40 * compiling
