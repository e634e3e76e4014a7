"""`spread` keeps points of one microsecond apart, or says that it cannot (LANGUAGE 18)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iggyflux import MappingError, Message, parse_lines, parse_mapping
from iggyflux.errors import PipelineError
from iggyflux.pipeline import load_pipeline
from iggyflux.runner.open import prepare_routes


def mapping(timestamp: dict[str, Any], *, for_each: str | None = None) -> Any:
    document: dict[str, Any] = {
        "iggyflux": 1,
        "kind": "writer",
        "name": "n",
        "from": {"stream": "s", "topic": "t"},
        "points": {"measurement": {"const": "m"}, "fields": {"class": "lambda"}, "timestamp": timestamp},
    }
    if for_each is not None:
        document["for_each"] = for_each
    return parse_mapping(json.dumps(document), format="yaml")


def times(plan: Any, messages: list[Message]) -> list[int]:
    rendered = plan.render(messages)

    assert [failure.reason for failure in rendered.failures] == []
    return [point.timestamp_ns for point in parse_lines("\n".join(rendered.lines))]


@settings(max_examples=60, deadline=None)
@given(
    partitions=st.integers(1, 1000),
    start=st.integers(0, 2**40),
    time_us=st.sampled_from([0, 1_700_000_000_000_000, -7]),
    plan=st.sampled_from(["compiled", "reference"]),
)
def test_neighbours_of_all_partitions_get_times_of_their_own(
    partitions: int, start: int, time_us: int, plan: str
) -> None:
    """As many consecutive offsets of each partition as there is room for, all of one microsecond."""
    room = 1000 // partitions
    messages = [
        Message(b'{"lambda": 1}', partition=partition, offset=start + 3 * partition + number, timestamp_us=time_us)
        for partition in {0, partitions // 2, partitions - 1}
        for number in range(room)
    ]
    found = times(mapping({"spread": "offset", "partitions": partitions}).plan(plan), messages)

    assert len(set(found)) == len(messages)
    assert {ns // 1000 for ns in found} == {time_us}


@pytest.mark.parametrize("plan", ["compiled", "reference"])
def test_elements_get_times_of_their_own(plan: str) -> None:
    document = mapping({"expr": "root().ts", "format": "unix_s", "spread": "index"}, for_each="self")
    message = Message(json.dumps({"ts": 5, "self": [{"lambda": n} for n in range(1000)]}).encode())

    assert times(document.plan(plan), [message]) == [5_000_000_000 + n for n in range(1000)]


@pytest.mark.parametrize("plan", ["compiled", "reference"])
@pytest.mark.parametrize(
    ("timestamp", "partition", "payload", "words"),
    [
        ({"spread": "offset"}, 1, {"self": [{"lambda": 1}]}, "partition 1"),
        ({"spread": "offset", "partitions": 4}, 4, {"self": [{"lambda": 1}]}, "partition 4"),
        ({"spread": "index"}, 0, {"self": [{"lambda": 1}] * 1001}, "element 1000"),
        (
            {"expr": "at", "format": "rfc3339", "spread": "index"},
            0,
            {"self": [{"lambda": 1, "at": "2026-01-01T00:00:00.000000001Z"}]},
            "nanoseconds",
        ),
    ],
)
def test_what_has_no_room_fails(timestamp: dict[str, Any], partition: int, payload: Any, words: str, plan: str) -> None:
    """It is never put where another point may be."""
    message = Message(json.dumps(payload).encode(), partition=partition, offset=7, timestamp_us=1)
    rendered = mapping(timestamp, for_each="self").plan(plan).render([message])

    assert [failure.code for failure in rendered.failures] == ["IFX353"]
    assert words in rendered.failures[0].reason


@pytest.mark.parametrize("kind", ["compiled", "reference"])
@pytest.mark.parametrize("precision", ["us", "ms", "s"])
@pytest.mark.parametrize("spread", ["offset", "index"])
def test_a_coarser_precision_is_refused_when_the_plan_is_made(spread: str, precision: str, kind: Any) -> None:
    with pytest.raises(MappingError) as caught:
        mapping({"spread": spread}, for_each="self").plan(kind, precision=precision)

    assert [problem.code for problem in caught.value.problems] == ["IFX133"]
    assert caught.value.problems[0].location.pointer == "/points/timestamp/spread"


def test_one_partition_is_told_apart_by_offset_alone() -> None:
    """The default: a topic of one partition has all of the room."""
    found = times(mapping({"spread": "offset"}).plan(), [Message(b'{"lambda": 1}', offset=1999, timestamp_us=2)])

    assert found == [2999]


def test_check_finds_a_pipeline_whose_precision_is_too_coarse(tmp_path: Path) -> None:
    """Before anything is opened: a run would only start to stop."""
    (tmp_path / "m.yaml").write_text(
        "iggyflux: 1\nkind: writer\nfrom: {stream: s, topic: t}\n"
        "points: {measurement: {const: m}, fields: [class], timestamp: {spread: offset}}\n"
    )
    for precision, expected in (("ns", []), ("ms", ["IFX133"])):
        route = "{mapping: m.yaml, from: stdin, to: 'file:x'}"
        (tmp_path / "p.yaml").write_text(f"iggyflux: 1\ninfluxdb: {{precision: {precision}}}\nrun: [{route}]\n")
        problems: list[str] = []
        try:
            prepare_routes(load_pipeline(tmp_path / "p.yaml"))
        except PipelineError as error:
            problems = [problem.code for problem in error.problems]

        assert problems == expected
