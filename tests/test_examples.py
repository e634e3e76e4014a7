"""Examples of documents: what passes, and how a difference is reported."""

from __future__ import annotations

import pytest

from iggyflux.authoring.examples import compare_lines, example_message, explain_lines, run_examples
from iggyflux.mapping import parse_mapping

HEAD = """\
iggyflux: 1
kind: writer
from: {stream: factory, topic: 'line-*'}
points:
  measurement: {const: env}
  tags:
    at: "join('/', map(&to_string(@), [meta('topic'), meta('partition'), meta('offset')]))"
    tenant: "header('tenant')"
  fields: {temperature: celsius}
examples:
"""
READER = """\
iggyflux: 1
kind: reader
from: {measurement: env}
messages: {payload: '{c: celsius}', key: device, headers: {m: "meta('measurement')"}}
to: {stream: s, topic: t}
examples:
"""


def outcome(example: str, head: str = HEAD) -> list[str]:
    """The codes of the differences of one example."""
    results = run_examples(parse_mapping(f"{head}  - {example}\n", name="env"))
    assert len(results) == 1
    return [difference.code for difference in results[0].differences]


def test_rule_28_coordinates_of_an_example_are_filled_in() -> None:
    """Topic of `from`, partition 0, offset = its number, time 2000-01-01 + offset µs; what it names holds."""
    text = HEAD + (
        "  - {message: {celsius: 1}, points: ['env,at=line-1/0/0 temperature=1.0 946684800000000000']}\n"
        "  - {message: {celsius: 1}, points: ['env,at=line-1/0/1 temperature=1.0 946684800000001000']}\n"
        "  - {message: {celsius: 1}, meta: {topic: x, partition: 3, offset: 8, timestamp: 5}, headers: {tenant: acme},"
        " points: ['env,at=x/3/8,tenant=acme temperature=1.0 5000']}\n"
    )

    assert [result.differences for result in run_examples(parse_mapping(text, name="env"))] == [(), (), ()]


@pytest.mark.parametrize(
    ("example", "codes"),
    [
        ("{message_json: '{\"celsius\":', fails: IFX404}", []),
        ("{message_json: '{\"celsius\": 1}', fails: IFX404}", ["IFX512", "IFX510"]),
        ("{message: {celsius: x}, points: []}", ["IFX511"]),
        ("{message: {celsius: x}, fails: IFX345}", ["IFX512"]),
        ("{message: {celsius: x}, fails: [IFX340, IFX340]}", ["IFX512"]),
        ("{message: {celsius: x}, fails: IFX340}", []),
        ("{message: {celsius: 1}, skipped: true}", ["IFX513", "IFX510"]),
        ("{payload_base64: eyJjZWxzaXVzIjp4fQ==, fails: IFX404}", []),
    ],
)
def test_an_example_says_everything_that_comes_of_its_message(example: str, codes: list[str]) -> None:
    """Lines that are not named must not come, nor failures."""
    assert outcome(example) == codes


def test_an_example_may_expect_lines_and_a_failure() -> None:
    """Siblings of a failed record are written."""
    head = HEAD.replace("points:", "for_each: '@'\npoints:")

    line = "env,at=line-1/0/0 temperature=1.0 946684800000000000"
    example = f"{{message: [{{celsius: 1}}, {{celsius: x}}], fails: IFX340, points: ['{line}']}}"

    assert outcome(example, head) == []


@pytest.mark.parametrize(
    ("example", "codes"),
    [
        ("{row: {time: 1, celsius: 2, device: d}, messages: [{payload: {c: 2}, key: d, headers: {m: env}}]}", []),
        ("{row: {time: 1, celsius: 2, device: d}, messages: [{payload: {c: 2}}]}", []),
        ("{row: {time: 1, celsius: 2, device: d}, messages: [{payload: {c: 2}, key: e}]}", ["IFX510"]),
        ("{row: {time: 1, celsius: 2}, messages: [{payload: {c: 2.5}}]}", ["IFX510"]),
        ("{rows: [{time: 1}, {time: 2}], messages: [{payload: {c: null}}]}", ["IFX510"]),
        ("{row: {time: 1, device: [d]}, fails: IFX340}", []),
        ("{row: {time: 1, device: [d]}, messages: []}", ["IFX511"]),
        ("{row: {time: 1}, meta: {measurement: x}, messages: [{payload: {c: null}, headers: {m: x}}]}", []),
    ],
)
def test_examples_of_a_reader_compare_messages(example: str, codes: list[str]) -> None:
    """An example of a message may leave out key, headers and timestamp; what it names is compared."""
    assert outcome(example, READER) == codes


def test_both_plans_run_examples() -> None:
    """The reference plan says the same."""
    mapping = parse_mapping(HEAD + "  - {message: {celsius: 1}, points: []}\n", name="env")

    assert run_examples(mapping, "reference") == run_examples(mapping, "compiled")


def test_a_message_that_the_format_cannot_write_is_a_difference() -> None:
    """An example of a CSV cannot be an object of objects."""
    head = HEAD.replace("topic: 'line-*'", "topic: x, payload: csv")

    assert outcome("{message: {a: {b: 1}}, points: []}", head) == ["IFX514"]


def test_lines_that_belong_together_stand_side_by_side() -> None:
    """A missing line shifts no others."""
    differences = list(compare_lines(["a x=1 1", "b x=1 1", "c x=1 1"], ["b x=1 1", "c x=2 1", "d x=1 1"]))

    assert [(each.expected, each.actual) for each in differences] == [
        ("a x=1 1", None),
        ("c x=1 1", "c x=2 1"),
        (None, "d x=1 1"),
    ]


@pytest.mark.parametrize(
    ("expected", "actual", "words"),
    [
        ("m a=1 1", "n a=1 1", ["measurement: expected m, found n"]),
        ("m a=1 1", "m a=1i 1", ["field a: expected 1.0, found 1i"]),
        ("m a=1,b=2 1", "m a=1,c=2 1", ["field b: expected 2.0, found nothing", "field c: unexpected 2.0"]),
        ("m,t=1 a=1 1", "m,t=2 a=1 1", ["tag t: expected 1, found 2"]),
        ("m a=-0.0 1", "m a=0.0 1", ["field a: expected -0.0, found 0.0"]),
        ("m a=1 0", "m a=1 86400000000000", ["timestamp: expected 0, found 86400000000000 (1 d later)"]),
        (
            "m a=1 1",
            "m a=1.0 1",
            ["the same point, formatted differently: tags and fields are sorted by key, floats are written as 7.0"],
        ),
        ("m a= 1", "m a=1 1", ["the expected line is not line protocol: column 5: a value is missing"]),
    ],
)
def test_what_differs_in_a_line_is_said_in_words(expected: str, actual: str, words: list[str]) -> None:
    """Part by part: measurement, tags, fields, time."""
    found = list(explain_lines(expected, actual))

    assert [word.split(": column")[0] for word in found] == [word.split(": column")[0] for word in words]


def test_an_example_message_keeps_raw_text_byte_for_byte() -> None:
    """`message_json` may be broken on purpose, and spaces in it stay."""
    mapping = parse_mapping(HEAD + "  - {message_json: ' {\"celsius\":  1 ', fails: IFX404}\n", name="env")

    assert example_message(mapping, mapping.examples[0], 0).payload == b' {"celsius":  1 '
