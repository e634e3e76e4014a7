"""Made-up messages: they suit their mapping, they look alive, and the same seed makes the same."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import pytest

from iggyflux.authoring.generate import GenerateError, generate_messages
from iggyflux.lineprotocol import parse_lines
from iggyflux.mapping import Mapping, load_mapping, parse_mapping
from iggyflux.records import Message

START_NS = 1_767_225_600 * 10**9
SECOND_NS = 10**9
COUNT = 120
READY = sorted((Path(__file__).parents[1] / "mappings").glob("**/*.yaml"))

HEAD = "iggyflux: 1\nkind: writer\nfrom: {stream: s, topic: t}\n"
DOCUMENTS = {
    "the smallest": HEAD
    + "points: {measurement: {const: env}, tags: [device], timestamp: {expr: ts, format: unix_ms}}",
    "no timestamp": HEAD + "points: {measurement: {const: env}, fields: {a: a}}",
    "rfc3339": HEAD + "points: {measurement: {const: env}, fields: {a: a}, timestamp: {expr: at, format: rfc3339}}",
    "nanoseconds in a string": HEAD
    + "points: {measurement: m, fields: {a: a}, timestamp: {expr: at, format: unix_ns}}\n"
    "examples: [{message: {a: 1, m: x, at: '1700000000000000001'}, points: ['x a=1.0 1700000000000000001']}]",
    "a pattern": HEAD
    + "points: {measurement: m, fields: {a: a}, timestamp: {expr: at, format: '%d.%m.%Y %H:%M:%S', timezone: UTC}}",
    "every type": HEAD
    + "points: {measurement: m, fields: {f: f, i: {expr: i, type: integer}, u: {expr: u, type: unsigned},"
    " s: {expr: s, type: string, required: true}, b: {expr: b, type: boolean, required: true}}}",
    "where compares": HEAD + "where: \"type == 'reading' && level >= `3`\"\npoints: {measurement: m, fields: {a: a}}",
    "for_each": HEAD
    + "for_each: 'readings'\npoints: {measurement: {const: m}, tags: {d: 'root().d'}, fields: {a: {expr: v.a,"
    " required: true}}, timestamp: {expr: ts, format: unix_s}}",
    "functions": HEAD
    + 'points: {measurement: "lower(kind)", fields: {a: {expr: "parse_number(a, `0`)"}, n: "length(name)"}}',
    "headers": HEAD
    + "points: {measurement: m, tags: {t: {expr: \"header('tenant')\", required: true}}, fields: {a: a}}",
    "csv": HEAD.replace("topic: t", "topic: t, payload: {format: csv, header: [d, v]}") + "for_each: '@'\n"
    "points: {measurement: {const: m}, tags: [d], fields: {v: {expr: v, cast: true, required: true}}}\n"
    "examples: [{message: [{d: d1, v: '1.5'}], points: ['m,d=d1 v=1.5 946684800000000000']}]",
    "xml": HEAD.replace("topic: t", "topic: t, payload: {format: xml, lists: [kiln]}, compression: zlib")
    + "for_each: plant.kiln\npoints: {measurement: {const: m}, tags: {d: '\"@id\"'},"
    " fields: {v: {expr: v, cast: true}}}",
    "logfmt": HEAD.replace("topic: t", "topic: t, payload: logfmt, compression: snappy")
    + "points: {measurement: {const: m}, tags: [d], fields: {v: {expr: v, cast: true, required: true}}}",
    "the types of the payload": HEAD + "points: {measurement: {const: m}, fields: {'*': {expr: '@', type: payload}}}",
    "text": HEAD.replace("topic: t", "topic: t, payload: {format: text, pattern: '(?P<a>[0-9.]+) (?P<d>.*)'}")
    + "points: {measurement: {const: m}, tags: [d], fields: {a: {expr: a, cast: true}}}\n"
    "examples: [{payload_base64: MS41IGQx, points: ['m,d=d1 a=1.5 946684800000000000']}]",
    "msgpack": HEAD.replace("topic: t", "topic: t, payload: msgpack")
    + "points: {measurement: m, tags: [d], fields: {a: a}}",
    "two points": HEAD
    + "points: [{measurement: {const: a}, fields: {a: a}}, {measurement: {const: b}, where: 'b', fields: {b: b}}]",
}


def made(mapping: Mapping, count: int = COUNT, seed: int = 0, interval_ns: int = SECOND_NS) -> list[Message]:
    return list(islice(generate_messages(mapping, seed=seed, start_ns=START_NS, interval_ns=interval_ns), count))


@pytest.mark.parametrize("text", DOCUMENTS.values(), ids=DOCUMENTS)
def test_generated_messages_render_without_failures(text: str) -> None:
    """Each makes a point; the reference plan says so too."""
    mapping = parse_mapping(text, name="env")

    rendered = mapping.plan("reference").render(made(mapping))

    assert list(rendered.failures) == []
    assert set(rendered.origins) == set(range(COUNT))


@pytest.mark.parametrize("path", READY, ids=[path.stem for path in READY])
def test_messages_for_every_ready_mapping_render_without_failures(path: Path) -> None:
    """What the project ships can be tried without data of one's own."""
    mapping = load_mapping(path)
    if mapping.kind == "reader":
        return

    rendered = mapping.plan("reference").render(made(mapping))

    assert list(rendered.failures) == []
    assert set(rendered.origins) == set(range(COUNT))


@pytest.mark.parametrize(
    "name", ["the smallest", "rfc3339", "a pattern", "no timestamp", "for_each", "nanoseconds in a string"]
)
def test_times_advance_so_that_no_point_overwrites_another(name: str) -> None:
    """The first time is the start, each message is later than the one before."""
    mapping = parse_mapping(DOCUMENTS[name], name="env")

    rendered = mapping.plan().render(made(mapping))

    times = [point.timestamp_ns or 0 for line in rendered.lines for point in parse_lines(line)]
    assert times[0] == START_NS
    assert times == sorted(set(times))


def test_elements_keep_their_distance_in_time_and_do_not_overlap() -> None:
    """Messages whose elements differ in time follow each other without an overlap."""
    text = (
        HEAD
        + "for_each: '@'\npoints: {measurement: {const: m}, fields: {a: a}, timestamp: {expr: t, format: unix_s}}\n"
        "examples: [{message: [{a: 1, t: 10}, {a: 1, t: 15}], points: ['m a=1.0 10000000000', 'm a=1.0 15000000000']}]"
    )

    lines = parse_mapping(text, name="env").plan().render(made(parse_mapping(text, name="env"), 3)).lines

    assert [int(line.split()[-1]) // SECOND_NS - START_NS // SECOND_NS for line in lines] == [0, 5, 6, 11, 12, 17]


def test_values_that_walk_out_of_where_are_taken_back() -> None:
    """A message that would be skipped is replaced by the sample itself, at its own time."""
    text = (
        HEAD
        + "where: 'a < `11`'\npoints: {measurement: {const: m}, fields: {a: a}, timestamp: {expr: t, format: unix_s}}\n"
        "examples: [{message: {a: 9.9, t: 1}, points: ['m a=9.9 1000000000']}]"
    )
    mapping = parse_mapping(text, name="env")
    messages = made(mapping, 300)

    rendered = mapping.plan().render(messages)

    assert list(rendered.skipped) == []
    assert len(rendered.lines) == 300
    assert len({json.loads(message.payload)["t"] for message in messages}) == 300


def test_tags_that_distinguish_elements_of_a_list_stay() -> None:
    """Two sensors of one message are never taken for one."""
    text = (
        HEAD
        + "for_each: '@'\npoints: {measurement: {const: m}, tags: [s], fields: {a: a}, timestamp: {expr: t, format:"
        " unix_s}}\nexamples: [{message: [{s: s1, a: 1, t: 1}, {s: s2, a: 2, t: 1}],"
        " points: ['m,s=s1 a=1.0 1000000000', 'm,s=s2 a=2.0 1000000000']}]"
    )
    mapping = parse_mapping(text, name="env")

    trees = [json.loads(message.payload) for message in made(mapping)]

    assert {tuple(element["s"] for element in tree) for tree in trees} == {("s1", "s2")}
    assert len({tree[0]["a"] for tree in trees}) > 1


def test_the_same_seed_makes_the_same_messages() -> None:
    """And another one makes others."""
    mapping = parse_mapping(DOCUMENTS["the smallest"], name="env")

    assert made(mapping, seed=7) == made(mapping, seed=7)
    assert made(mapping, seed=7) != made(mapping, seed=8)


def test_tags_vary_among_few_and_numbers_walk() -> None:
    """What looks like data: some devices, values that change, and nothing else that changes."""
    text = (
        HEAD
        + "points: {measurement: {const: env}, tags: [device, site], fields: {c: celsius, n: {expr: n, type: integer}},"
        " timestamp: {expr: ts, format: unix_ms}}\n"
        "examples:\n"
        "  - message: {device: d1, site: berlin, celsius: 21.5, n: 3, ts: 1}\n"
        "    points: ['env,device=d1,site=berlin c=21.5,n=3i 1000000']\n"
        "  - message: {device: d9, site: paris, celsius: 20.5, n: 3, ts: 1}\n"
        "    points: ['env,device=d9,site=paris c=20.5,n=3i 1000000']\n"
    )
    trees = [json.loads(message.payload) for message in made(parse_mapping(text, name="env"), 400)]

    assert {tree["site"] for tree in trees} == {"berlin", "paris"}
    assert {"d1", "d2", "d3", "d4", "d9"} <= {tree["device"] for tree in trees}
    assert len({tree["celsius"] for tree in trees}) > 20
    assert all(15 < tree["celsius"] < 30 and isinstance(tree["n"], int) and tree["n"] >= 0 for tree in trees)


def test_a_mapping_that_accepts_no_message_is_reported() -> None:
    """A hint what to do, instead of a search without an end."""
    mapping = parse_mapping(
        HEAD + "where: \"sha == hash('x') && n == `1`\"\npoints: {measurement: m, fields: {a: a}}", name="env"
    )

    with pytest.raises(GenerateError) as caught:
        made(mapping, 1)

    assert caught.value.code == "IFX530"
    assert "example" in caught.value.hint
