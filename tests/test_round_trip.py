"""The round trip: whatever differs is named, and nothing else differs."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from iggyflux import MappingError, Message, parse_mapping
from iggyflux.authoring.round_trip import RoundTrip, applied, round_trip
from iggyflux.authoring.round_trip.changes import changes, leaves, most_alike, same
from iggyflux.authoring.round_trip.losses import place_of
from iggyflux.cli import command_line

WRITER: dict[str, Any] = {
    "iggyflux": 1,
    "kind": "writer",
    "name": "there",
    "from": {"stream": "s", "topic": "t", "payload": "json"},
}
READER: dict[str, Any] = {
    "iggyflux": 1,
    "kind": "reader",
    "name": "back",
    "from": {"measurement": "m"},
    "to": {"stream": "s", "topic": "b", "payload": "json"},
}
TIME = {"expr": "ts", "format": "unix_ns"}


def there_and_back(point: dict[str, Any], payload: object, *sent: object, **more: Any) -> RoundTrip:
    reader = READER | {"messages": {"payload": payload, **more.pop("message", {})}}
    reader["from"] = READER["from"] | more.pop("source", {})
    writer = WRITER | {"points": [{"measurement": {"const": "m"}, "timestamp": TIME, **point}]} | more
    return round_trip(
        parse_mapping(json.dumps(writer)),
        parse_mapping(json.dumps(reader)),
        [Message(json.dumps(each).encode(), offset=number) for number, each in enumerate(sent)],
    )


def named(found: RoundTrip, index: int = 0) -> dict[str, str]:
    return {loss.place: loss.reason for loss in found.returns[index].losses}


def test_a_message_that_comes_back_as_it_was_is_whole() -> None:
    """No word is said."""
    found = there_and_back(
        {"tags": {"d": "d"}, "fields": {"n": {"expr": "n", "type": "integer"}, "x": "x"}},
        "{d: d, n: n, x: x, ts: time}",
        {"d": "a", "n": 2**53 + 1, "x": 1.5, "ts": 5},
    )

    assert found.is_whole
    assert found.returns[0].losses == ()
    assert found.returns[0].back == ({"d": "a", "n": 2**53 + 1, "x": 1.5, "ts": 5},)


@pytest.mark.parametrize(
    ("point", "payload", "sent", "place", "reason"),
    [
        ({"fields": {"a": "a"}}, "@", {"a": 1.5, "b": 1, "ts": 1}, "b", "dropped: not mapped"),
        ({"fields": {"a": "a"}}, "@", {"a": 1.5, "b": None, "ts": 1}, "b", "null is not stored"),
        ({"fields": {"a": "a"}}, "@", {"a": 1.5, "b": [], "ts": 1}, "b", "an empty list is not stored"),
        ({"fields": {"a": "a"}}, "@", {"a": 1, "ts": 1}, "a", "integer became float"),
        (
            {"fields": {"a": {"expr": "a", "type": "integer", "cast": True}}},
            "@",
            {"a": 7.0, "ts": 1},
            "a",
            "float became integer",
        ),
        (
            {"fields": {"a": "a"}, "tags": {"b": "b"}},
            "@",
            {"a": 1.5, "b": 7, "ts": 1},
            "b",
            "integer became a string (tags are strings)",
        ),
        (
            {"fields": {"a": "a"}, "tags": {"b": "b"}},
            "@",
            {"a": 1.5, "b": "", "ts": 1},
            "b",
            "an empty string cannot be a tag value",
        ),
        ({"fields": {"a": "a"}}, "{x: a}", {"a": 1.5, "ts": 1}, "a", "unchanged, as x"),
        ({"fields": {"a": "a"}}, "{x: a}", {"a": 1, "ts": 1}, "a", "integer became float, as x"),
        (
            {"fields": {"a": "a"}},
            "{ts: time}",
            {"a": 1.5, "ts": 1},
            "a",
            "stored as field a, which the reader does not send",
        ),
        ({"fields": {"a": "add(a, `1`)"}}, "@", {"a": 1.5, "ts": 1}, "a", "changed"),
        (
            {"fields": {"a": "a", "b": "length(b)"}},
            "{a: a, ts: time}",
            {"a": 1.5, "b": "xy", "ts": 1},
            "b",
            "used by an expression, not stored as it is",
        ),
        (
            {"fields": {"a": {"expr": "a", "default": 1.5}}},
            "{a: a, ts: time}",
            {"a": None, "ts": 1},
            "a",
            "null became a default",
        ),
        (
            {"fields": {"*": {"expr": "o", "flatten": "_"}}},
            "@",
            {"o": {"a": {"b": 1.5}}, "ts": 1},
            "o.a.b",
            "unchanged, as a_b",
        ),
        (
            {"fields": {"a": "a"}, "timestamp": {"expr": "ts", "format": "unix_ms"}},
            "{a: a, ts: time}",
            {"a": 1.5, "ts": 1},
            "ts",
            "the time is returned in nanoseconds",
        ),
        (
            {"fields": {"a": "a"}, "measurement": "b"},
            "@",
            {"a": 1.5, "b": "m", "ts": 1},
            "b",
            "stored as the measurement, which is not a column",
        ),
        (
            {"fields": {"a": "x[0]", "b": "x[1]"}},
            "{x: [b, a], ts: time}",
            {"x": [1.5, 2.5], "ts": 1},
            "x",
            "the order of elements changed",
        ),
    ],
)
def test_what_is_lost_is_named(
    point: dict[str, Any], payload: str, sent: dict[str, Any], place: str, reason: str
) -> None:
    """Which member, and why."""
    found = named(there_and_back(point, payload, sent))

    assert found.get(place) == reason


def test_an_added_value_is_not_a_loss() -> None:
    """It says where it comes from."""
    found = there_and_back(
        {"fields": {"a": "a", "c": {"const": 1}}},
        {"a": "a", "ts": "time", "c": "c", "at": "time", "from": {"const": "x"}, "nothing": "nothing"},
        {"a": 1.5, "ts": 1},
    )

    assert found.is_whole
    assert named(found) == {
        "c": "added by the writer",
        "at": "added: the time of the point",
        "from": "added by the reader",
        "nothing": "null instead of missing",
    }


def test_two_messages_that_overwrite_each_other_are_named() -> None:
    """Both of them."""
    found = there_and_back({"fields": {"a": "a"}}, "@", {"a": 1.5, "ts": 1}, {"a": 2.5, "ts": 1}, {"a": 2.5, "ts": 2})

    words = "messages 1 and 2 overwrite each other: one point of m (no tags) at 1"
    assert named(found, 0)[""] == named(found, 1)[""] == words
    assert named(found, 0)["a"] == "changed, by another message"
    assert "" not in named(found, 2)
    found = there_and_back({"fields": {"a": "a", "b": "b"}}, "@", {"a": 1.5, "ts": 1}, {"b": 2.5, "ts": 1})
    assert named(found, 0)[""] == "messages 1 and 2 are stored as one point of m (no tags) at 1"


def test_a_message_that_is_not_stored_has_a_reason() -> None:
    """Failed, skipped, refused, or of another measurement."""
    point = {"fields": {"a": {"expr": "a", "type": "auto"}}}
    sent = [{"a": 1.5, "ts": 1}, {"a": [1], "ts": 2}, {"a": 1.5, "ts": 3, "off": True}, {"a": "x", "ts": 4}]
    found = there_and_back(point, "@", *sent, where="!off")
    other = there_and_back({"fields": {"a": "a"}, "measurement": {"const": "n"}}, "@", sent[0])

    assert named(found, 1)[""].startswith("the writer fails: IFX340")
    assert named(found, 2)[""] == "skipped: `where` is not true"
    assert named(found, 3)[""].startswith("rejected by the server:")
    assert named(other)[""] == "stored, but not returned by the query"
    assert other.notes == ("the reader reads m, but the writer stores n",)


def test_a_message_of_many_elements_comes_back_as_many_or_as_one() -> None:
    """A row each, or the series as one; what each element had is looked for in all of them."""
    sent = {"d": "x", "list": [{"a": 1.5, "ts": 1}, {"a": 2.5, "b": 1, "ts": 2}]}
    point = {"tags": {"d": "root().d"}, "fields": {"a": "a"}}
    rows = there_and_back(point, "{d: d, a: a, ts: time}", sent, for_each="list[]")
    series = there_and_back(
        point, "{d: [0].d, list: [].{a: a, ts: time}}", sent, for_each="list[]", message={"for_each": "series"}
    )

    assert named(rows) == {"": "one message is returned as several", "list[].b": "dropped: not mapped"}
    assert series.returns[0].back == ({"d": "x", "list": [{"a": 1.5, "ts": 1}, {"a": 2.5, "ts": 2}]},)
    assert named(series) == {"list[].b": "dropped: not mapped"}


@pytest.mark.parametrize("language", ["influxql", "flux", "sql"])
def test_each_language_reads_what_was_written(language: str) -> None:
    """By the simulator of the server that speaks it."""
    text = "s" if language != "flux" else "nothing"  # text is what Flux does not read faithfully
    found = there_and_back(
        {"tags": {"d": "d"}, "fields": {"s": {"expr": text, "type": "string"}, "b": {"expr": "b", "type": "boolean"}}},
        "{d: d, s: s, b: b, ts: time}",
        {"d": "a b", "s": 'say "hi"', "b": True, "ts": 1_700_000_000_000_000_001},
        source={"language": language},
    )

    assert found.is_whole == (language != "flux"), found


# --- the property ---

NAMES = ["a", "b", "c", "d"]
VALUES = (
    st.none() | st.booleans() | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False, width=32)
    | st.sampled_from(["", "x", "a b", "7", "lf\n", "ü"])
)  # fmt: skip
TREES = VALUES | st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=2) | st.lists(VALUES, max_size=2)
PATHS = st.sampled_from(["a", "b", "c", "d", "a.b", "c.d", "b[0]", "a || b", "not_null(a, b)"])
MEMBERS = st.sampled_from(["a", "b", "c", "d", "time", "x", "'k'", "{a: a, b: b}", "[a, b]", "type(a)"])


@st.composite
def pairs(draw: st.DrawFn) -> tuple[dict[str, Any], object, dict[str, Any]]:
    """A point, the payload of a reader, and other keys of the writer."""
    types = st.sampled_from(["float", "integer", "string", "boolean", "auto"])
    fields: dict[str, Any] = {
        name: {"expr": draw(PATHS), "type": draw(types), "cast": draw(st.booleans())}
        for name in draw(st.lists(st.sampled_from(NAMES), max_size=3, unique=True))
    }
    if not fields or draw(st.booleans()):
        fields["*"] = {"expr": draw(st.sampled_from(["@", "a", "c"])), "flatten": "_", "exclude": ["ts"]}
    point: dict[str, Any] = {"fields": fields}
    tags = draw(st.lists(st.sampled_from([name for name in NAMES if name not in fields] or ["t"]), max_size=1))
    if tags:
        point["tags"] = {tags[0]: draw(PATHS)}
    template = st.dictionaries(st.sampled_from([*NAMES, "ts"]), MEMBERS, min_size=1, max_size=4)
    more = {"for_each": "b"} if draw(st.integers(0, 5)) == 0 else {}
    return point, draw(st.one_of(st.just("@"), template)), more


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(
    pairs(),
    st.lists(st.dictionaries(st.sampled_from(NAMES), TREES, min_size=1, max_size=4), min_size=1, max_size=4),
    st.sampled_from(["influxql", "sql", "auto"]),
)
def test_whatever_differs_is_named_and_nothing_else_differs(
    pair: tuple[dict[str, Any], object, dict[str, Any]], sent: list[dict[str, Any]], language: str
) -> None:
    """For every pair of documents and all messages: the changes make the one of the other, and each has a word."""
    point, payload, more = pair
    messages = [{**each, "ts": 1_700_000_000_000_000_000 + number // 2} for number, each in enumerate(sent)]
    if "for_each" in more:
        point = point | {"timestamp": {"expr": "root().ts", "format": "unix_ns"}}

    try:
        found = there_and_back(point, payload, *messages, source={"language": language}, **more)
    except MappingError:
        assume(False)

    for each, message in zip(found.returns, messages, strict=True):
        assert each.sent == message
        places = {loss.place for loss in each.losses}
        if len(each.back) != 1:
            assert "" in places
            continue
        (back,) = each.back
        assert same(applied(message, each.changes), back)
        if "" in places:
            continue  # several messages made this one
        there, elsewhere = dict(leaves(back)), " ".join(loss.reason for loss in each.losses)
        whole = {place_of(change.path) for change in each.changes if change.kind in ("changed", "order")}
        for path, value in leaves(message):
            if path not in there or not same(value, there[path]):
                assert place_of(path) in places or any(place_of(path[:size]) in whole for size in range(len(path)))
        before = dict(leaves(message))
        for path in there.keys() - before.keys():
            named_ = place_of(path) in places or f"as {place_of(path)}" in elsewhere
            assert named_ or any(place_of(path[:size]) in whole for size in range(len(path) + 1))


@given(TREES, TREES)
def test_a_value_with_its_changes_is_the_other(one: Any, other: Any) -> None:
    """In value and type."""
    assert same(applied(one, list(changes(one, other))), other)
    assert list(changes(one, one)) == []


# --- the command ---


def test_the_command_prints_losses_first(tmp_path: Path) -> None:
    """And exits with 1 where something is lost."""
    writer = WRITER | {"points": [{"measurement": {"const": "m"}, "fields": {"a": "a"}, "timestamp": TIME}]}
    (tmp_path / "w.json.yaml").write_text(json.dumps(writer))
    (tmp_path / "r.yaml").write_text(json.dumps(READER | {"messages": {"payload": "{a: a, ts: time, x: 'k'}"}}))
    (tmp_path / "lossy.ndjson").write_text('{"a": 1.5, "b": 1, "ts": 1}\n{"a": 1, "ts": 2}\n')
    (tmp_path / "whole.ndjson").write_text('{"a": 1.5, "ts": 1}\n')
    pair = ["test", "--round-trip", str(tmp_path / "w.json.yaml"), str(tmp_path / "r.yaml")]

    lossy = CliRunner().invoke(command_line, [*pair, str(tmp_path / "lossy.ndjson")])
    whole = CliRunner().invoke(command_line, [*pair, str(tmp_path / "whole.ndjson"), "--format", "json"])

    assert lossy.exit_code == 1
    assert lossy.stdout.splitlines() == [
        "b  dropped: not mapped  (1 of 2, first: 1): 1",
        "a  integer became float  (1 of 2, first: 2): 1 → 1.0",
        'x  added by the reader  (2 of 2, first: 1): "k"',
    ]
    assert "2 messages: 2 returned, 0 of them without loss" in lossy.stderr
    assert whole.exit_code == 0
    assert json.loads(whole.stdout)["differences"] == [
        {
            "place": "x",
            "reason": "added by the reader",
            "lossy": False,
            "count": 1,
            "first": 1,
            "before": None,
            "after": "k",
        }
    ]


@pytest.mark.parametrize("paths", [["w"], ["r", "w"], ["w", "r", "w", "w"]])
def test_the_command_reports_wrong_arguments(tmp_path: Path, paths: list[str]) -> None:
    """Usage, exit 2."""
    writer = WRITER | {"points": [{"measurement": {"const": "m"}, "fields": {"a": "a"}}]}
    (tmp_path / "w").write_text(json.dumps(writer))
    (tmp_path / "r").write_text(json.dumps(READER))

    assert (
        CliRunner().invoke(command_line, ["test", "--round-trip", *(str(tmp_path / each) for each in paths)]).exit_code
        == 2
    )


EXACT = st.fixed_dictionaries(
    {"ts": st.integers(-(2**62), 2**62), "i": st.integers(-(2**63), 2**63 - 1)},
    optional={
        "t": st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=6).filter(
            lambda text: not text.endswith("\\")
        ),
        "f": st.floats(allow_nan=False, allow_infinity=False),
        "s": st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=6),
        "b": st.booleans(),
    },
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(EXACT, min_size=1, max_size=6, unique_by=lambda each: each["ts"]),
    st.sampled_from(["influxql", "sql", "auto"]),
)
def test_what_is_mapped_with_its_types_comes_back_as_it_was(sent: list[dict[str, Any]], language: str) -> None:
    """Integers of 64 bits, doubles to the last bit, texts with line ends, nanoseconds before and after 1970."""
    types = {"i": "integer", "f": "float", "s": "string", "b": "boolean"}
    fields = {name: {"expr": name, "type": kind} for name, kind in types.items()}
    payload = {name: name for name in ("t", *types)} | {"ts": "time"}

    found = there_and_back({"tags": {"t": "t"}, "fields": fields}, payload, *sent, source={"language": language})

    assert [loss for each in found.returns for loss in each.losses if loss.reason != "null instead of missing"] == []
    assert all(len(each.back) == 1 for each in found.returns)


# --- elements of lists ---


@given(
    st.lists(
        st.tuples(st.text("abc", min_size=1, max_size=6), st.integers(-99, 99)),
        min_size=1,
        max_size=6,
        unique_by=lambda each: each[0],
    ),
    st.randoms(use_true_random=False),
)
def test_elements_are_paired_whatever_their_order(elements: list[tuple[str, int]], random: Random) -> None:
    """An integer that became a float is reported for its own element, split into messages or reordered in a list."""
    before: Any = {"with": [{"as": name, "in": number} for name, number in elements]}
    after: list[Any] = [{"as": name, "in": float(number)} for name, number in elements]
    random.shuffle(after)

    found = [each for each in changes(before, {"with": after}) if each.kind == "changed"]
    assert all(isinstance(each.after, float) and each.before == each.after for each in found)
    assert len(found) == len(elements)
    for name, number in elements:
        assert most_alike({"as": name, "in": number}, after) == {"as": name, "in": float(number)}


def test_a_message_that_is_split_is_compared_element_by_element() -> None:
    point = {"tags": {"s": "s"}, "fields": {"c": {"expr": "c", "type": "float"}}}
    sent = {"r": [{"s": "a", "c": 21.5, "ts": 1}, {"s": "b", "c": 22, "ts": 1}]}
    found = there_and_back(point, "{s: s, c: c, ts: time}", sent, for_each="r[]")

    losses = [loss for loss in found.returns[0].losses if "integer became float" in loss.reason]
    assert [(loss.before, loss.after) for loss in losses] == [(22, 22.0)]
