"""The ledger: which offsets are settled, with counts; on disk after the acknowledgement; shown by `iggyflux status`."""

from __future__ import annotations

import asyncio
import itertools
import json
import sqlite3
import struct
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from iggyflux.cli.status import _ledger
from iggyflux.delivery import settled
from iggyflux.delivery.settled import Interval, SettledBatch, SettledOffsets, count_of_others, gaps
from iggyflux.pipeline import load_pipeline
from iggyflux.records import Message, Partition, Position
from iggyflux.runner import Status, Stop, run_pipeline
from iggyflux.runner.settled_ledger import ledger_state
from iggyflux.transports.local.deadletters import kept_us, letter_digest
from iggyflux.transports.local.letter_marks import Marks
from iggyflux.transports.local.log import Log
from tests.protobuf_payloads import tagged
from tests.shell import iggyflux

HERE = Partition("coast", "gauges", 3)


Fact: TypeAlias = tuple[int, bool, bool, bool, bool]


def arrived(offset: int) -> int:
    return 7_000 + 31 * offset


@dataclass(frozen=True)
class Drawn:
    """A settled batch: of each offset the accepted lines, and what else it is: a dead letter, dropped, skipped, …"""

    plan: str
    facts: dict[int, Fact]

    def batch(self) -> SettledBatch:
        messages = [Message(b"", "coast", "gauges", 3, offset, arrived(offset)) for offset in self.facts]
        accepted = [at for at, fact in enumerate(self.facts.values()) for _ in range(fact[0])]
        kinds: list[Sequence[int]] = [
            [at for at, fact in enumerate(self.facts.values()) if fact[kind]] for kind in (1, 2, 3, 4)
        ]
        return SettledBatch(messages, accepted, *kinds)


FACTS = st.tuples(st.integers(0, 3), st.booleans(), st.booleans(), st.booleans(), st.booleans())
BATCHES = st.lists(
    st.builds(
        Drawn,
        st.sampled_from(["old", "new"]),
        st.dictionaries(st.integers(0, 25), FACTS, min_size=1).map(lambda found: dict(sorted(found.items())))
        | st.tuples(st.integers(0, 25), st.lists(FACTS, min_size=1)).map(
            lambda drawn: dict(enumerate(drawn[1], drawn[0]))
        ),
    ),
    max_size=12,
)


@given(BATCHES, st.integers(0, 30), st.integers(0, 30))
@example([Drawn("new", {4: (0, True, False, False, False), 7: (1, False, False, True, False)})], 0, 9)
def test_intervals_are_the_settled_offsets_each_counted_once(drawn: list[Drawn], first: int, last: int) -> None:
    offsets, model = SettledOffsets(), dict[str, dict[int, Fact]]()
    for each in drawn:
        for interval in offsets.new(HERE, each.plan, each.batch()):
            offsets.add(HERE, each.plan, interval)
        model[each.plan] = {**each.facts, **model.get(each.plan, {})}  # the first settling counts
    offsets = SettledOffsets.of(json.loads(json.dumps(offsets.record())))

    found = offsets.intervals()
    for plan, facts in model.items():
        intervals = found[HERE, plan]
        assert [at for each in intervals for at in range(each.first, each.last + 1)] == sorted(facts)
        assert all(a.last + 1 < b.first for a, b in itertools.pairwise(intervals))
        for each in intervals:
            within = [facts[at] for at in range(each.first, each.last + 1)]
            sums = tuple(sum(fact[kind] for fact in within) for kind in range(5))
            assert (each.points, each.dead_letters, each.dropped, each.skipped, each.undeclared) == sums
            assert each.messages == len(within)
            assert each.last_us == arrived(each.last)
    everything = {at for facts in model.values() for at in facts}
    assert offsets.lasts() == ({HERE: (max(everything), arrived(max(everything)))} if everything else {})
    assert all(offsets.claims(Position(HERE, at)) == (at in everything) for at in range(30))
    between = gaps(each for all_of in found.values() for each in all_of)
    assert all(first <= last for first, last in between)
    shown = {at for first, last in between for at in range(first, last + 1)}
    assert shown == (set(range(min(everything), max(everything))) - everything if everything else set())
    others = everything - set(model.get("new", ()))
    assert count_of_others(found, "new", HERE, first, last) == len(others & set(range(first, last + 1)))


def test_the_oldest_of_too_many_intervals_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settled, "MOST_INTERVALS", 3)
    offsets = SettledOffsets.of(None)
    assert offsets.forgotten == 0
    for offset in range(0, 20, 2):
        offsets.add(HERE, "p", Interval(offset, offset))

    assert offsets.intervals()[HERE, "p"] == tuple(Interval(at, at, 0, 0, 0, 0, 0) for at in (14, 16, 18))
    assert offsets.forgotten == 7


def test_there_is_one_bound_for_all_plans_of_a_partition(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan of last year goes before one of today, also after a restart."""
    monkeypatch.setattr(settled, "MOST_INTERVALS", 4)
    offsets = SettledOffsets()
    for plan, first in (("zinc", 0), ("agate", 50), ("mica", 20)):
        for offset in range(first, first + 6, 2):
            offsets.add(HERE, plan, Interval(offset, offset))
        offsets = SettledOffsets.of(json.loads(json.dumps(offsets.copy().record())))

    found = {plan: [each.first for each in intervals] for (_, plan), intervals in offsets.intervals().items()}
    assert found == {"agate": [54], "mica": [20, 22, 24]}
    assert offsets.forgotten == 5


@given(BATCHES, st.integers(0, 30))
def test_what_is_cut_is_not_claimed_and_the_rest_is(drawn: list[Drawn], offset: int) -> None:
    offsets = SettledOffsets()
    for each in drawn:
        for interval in offsets.new(HERE, each.plan, each.batch()):
            offsets.add(HERE, each.plan, interval)
    before, kept = offsets.copy(), offsets.copy()
    claimed = {at for at in range(60) if offsets.claims(Position(HERE, at))}

    assert offsets.cut(HERE, offset) == any(at >= offset for at in claimed)
    assert {at for at in range(60) if offsets.claims(Position(HERE, at))} == {at for at in claimed if at < offset}
    assert before.intervals() == kept.intervals()
    for place, intervals in offsets.intervals().items():
        assert intervals
        for each in intervals:
            (whole,) = (one for one in before.intervals()[place] if one.first == each.first)
            counts = (whole.points, whole.dead_letters, whole.dropped, whole.skipped, whole.undeclared)
            *share, undeclared = (count * each.messages // whole.messages for count in counts)
            at = arrived(each.last) if each.last == whole.last else 0
            assert each == Interval(each.first, each.last, *share, at, undeclared)
    for each in drawn:  # what is settled again is counted anew
        for interval in offsets.new(HERE, each.plan, each.batch()):
            offsets.add(HERE, each.plan, interval)
    assert {at for at in range(60) if offsets.claims(Position(HERE, at))} == claimed


def test_an_interval_that_overlaps_another_is_left_out() -> None:
    offsets = SettledOffsets()
    offsets.add(HERE, "p", Interval(5, 9, points=5))
    offsets.add(HERE, "p", Interval(0, 5, points=6))

    assert offsets.intervals() == {(HERE, "p"): (Interval(5, 9, 5, 0, 0, 0),)}


# --- on disk ---

MAPPING = """\
iggyflux: 1
kind: writer
name: tides
from: {stream: coast, topic: gauges}
where: p != 'none'
on_error: ON_ERROR
points:
  measurement: {const: surge}
  tags: {pier: p}
  fields: {height: h}
  timestamp: {expr: t, format: unix_s}
"""
PIPELINE = "iggyflux: 1\nfrom: log:data\nto: file:out.lp\n{state}run:\n  - mapping: tides.yaml\n"
PAYLOADS = [b'{"p":"a","h":1,"t":1}', b'{"p":"none"}', b'{"p":"a","h":"x","t":1}', b'{"p":"b","h":2,"t":2}']


def begin(folder: Path, state: str = "state: kept\n", on_error: str = "dead_letter") -> None:
    (folder / "tides.yaml").write_text(MAPPING.replace("ON_ERROR", on_error))
    (folder / "pipeline.yaml").write_text(PIPELINE.format(state=state))
    with closing(Log.open(folder / "data", create=True)) as log:
        log.append("coast", "gauges", [Message(payload) for payload in PAYLOADS])


def ledger() -> dict[str, Any] | None:
    outcome = iggyflux("status", "pipeline.yaml", "--format", "json")
    assert outcome.code == 0, outcome.err
    (route,) = json.loads(outcome.out)
    found: dict[str, Any] | None = route["ledger"]
    return found


@pytest.mark.parametrize(("on_error", "dead_letters", "dropped"), [("dead_letter", 1, 0), ("skip", 0, 1)])
def test_a_run_writes_down_what_it_settled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_error: str, dead_letters: int, dropped: int
) -> None:
    monkeypatch.chdir(tmp_path)
    begin(tmp_path, on_error=on_error)
    assert ledger() is None
    assert iggyflux("status", "pipeline.yaml").out.splitlines()[1:] == ["  nothing is settled yet"]
    for end in (3, 4):
        assert iggyflux("run", "pipeline.yaml", "--until-end", "--quiet").code == 0
        found = ledger()
        assert found is not None
        (interval,) = found["intervals"]
        shown = [interval[key] for key in ("first", "last", "messages")]
        assert shown == [0, end, end + 1]
        assert [interval[key] for key in ("dead_letters", "dropped", "without_points")] == [dead_letters, dropped, 1]
        assert interval["points"] == end - 1
        with closing(Log.open(tmp_path / "data")) as log:
            log.append("coast", "gauges", [Message(PAYLOADS[0])])
    (tmp_path / "tides.yaml").write_text(MAPPING.replace("ON_ERROR", on_error).replace("height", "depth"))
    assert "0–4*" in iggyflux("status", "pipeline.yaml").out
    assert "settled by another plan" in iggyflux("status", "pipeline.yaml").out


def test_messages_with_fields_of_no_declaration_are_shown_where_there_are_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    begin(tmp_path)
    (tmp_path / "tide.proto").write_text('syntax = "proto3"; package coast; message Tide { double h = 1; }')
    payload = "{format: protobuf, proto: tide.proto, message: coast.Tide}"
    (tmp_path / "tides.yaml").write_text(
        f"{{iggyflux: 1, kind: writer, name: tides, from: {{stream: coast, topic: levels, payload: {payload}}}, "
        "points: {measurement: {const: surge}, fields: {height: h}, timestamp: {spread: offset}}}"
    )
    declared = tagged(1, 1, struct.pack("<d", 1.5))
    more = declared + tagged(2, 0, b"\7")
    for payloads, count, words in (
        ([declared], 0, "without points"),
        ([more, declared, more], 2, "without points  undeclared"),
    ):
        with closing(Log.open(tmp_path / "data")) as log:
            log.append("coast", "levels", [Message(payload) for payload in payloads])
        assert iggyflux("run", "pipeline.yaml", "--until-end", "--quiet").code == 0
        (interval,) = (ledger() or {})["intervals"]
        head, row = iggyflux("status", "pipeline.yaml").out.splitlines()[1:3]
        assert interval.get("undeclared") == (count or None)
        assert head.endswith(words)
        assert row.endswith(f" {count}")


def test_intervals_are_in_the_order_of_offsets_whatever_plan_settled_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    begin(tmp_path)
    for name in ("height", "depth", "rise", "fall"):
        (tmp_path / "tides.yaml").write_text(MAPPING.replace("ON_ERROR", "skip").replace("height", name))
        assert iggyflux("run", "pipeline.yaml", "--until-end", "--quiet").code == 0
        with closing(Log.open(tmp_path / "data")) as log:
            log.append("coast", "gauges", [Message(PAYLOADS[0])])
    kept = SettledOffsets.intervals
    backwards = lambda settled: dict(reversed(kept(settled).items()))  # noqa: E731
    for order in (kept, backwards):
        monkeypatch.setattr(SettledOffsets, "intervals", order)
        assert [each["first"] for each in (ledger() or {})["intervals"]] == [0, 4, 5, 6]


def test_intervals_and_gaps_are_in_the_order_of_partitions_as_numbers() -> None:
    offsets = SettledOffsets()
    for partition in (10, 9, 2):
        for first in (8, 0):
            offsets.add(Partition("coast", "gauges", partition), "p", Interval(first, first + 3))
    shown = _ledger(offsets, ())

    assert [(each["partition"], each["first"], each["last"]) for each in shown["gaps"]] == [
        (at, 4, 7) for at in (2, 9, 10)
    ]
    assert [(each["partition"], each["first"]) for each in shown["intervals"]] == [
        (at, first) for at in (2, 9, 10) for first in (0, 8)
    ]


def test_dead_letters_that_cannot_be_counted_are_an_error_beside_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    begin(tmp_path)
    assert iggyflux("run", "pipeline.yaml", "--until-end", "--quiet").code == 0
    place = tmp_path / "dead-letters" / "tides"
    assert "1 dead letter kept" in iggyflux("status", "pipeline.yaml").out
    (place / "00000009.ndjson").mkdir()
    outcome = iggyflux("status", "pipeline.yaml")

    assert outcome.code == 3
    assert "error[IFX717]: cannot count the dead letters in dead-letters/tides: Is a directory" in outcome.err
    assert "hint: correct the path" in outcome.err
    assert "0–3" in outcome.out


def test_dead_letters_that_were_replayed_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    begin(tmp_path)
    assert iggyflux("run", "pipeline.yaml", "--until-end", "--quiet").code == 0
    assert "  1 dead letter kept\n" in iggyflux("status", "pipeline.yaml").out
    (line,) = Path("dead-letters/tides/00000001.ndjson").read_bytes().splitlines()
    with closing(Marks(Path("dead-letters/tides"))) as marks:
        marks.add([letter_digest(line)], kept_us(line) + 1)

    text, (tree,) = (
        iggyflux("status", "pipeline.yaml").out,
        json.loads(iggyflux("status", "pipeline.yaml", "--format", "json").out),
    )

    assert "  1 dead letter kept, 1 of them replayed\n" in text
    assert (tree["dead_letters"], tree["replayed_letters"]) == (1, 1)
    (tmp_path / "dead-letters" / "tides" / "replayed.sqlite").write_bytes(b"no database" * 100)
    damaged = iggyflux("status", "pipeline.yaml")
    assert (damaged.code, "IFX719" in damaged.err, "0–3" in damaged.out) == (3, True, True)


def test_without_state_in_the_pipeline_there_is_no_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    begin(tmp_path, state="")
    assert iggyflux("run", "pipeline.yaml", "--until-end", "--quiet").code == 0
    assert ledger() is None
    assert "  no ledger: name a folder as `state` in the pipeline" in iggyflux("status", "pipeline.yaml").out
    assert not (tmp_path / ".iggyflux").exists()


def test_a_ledger_that_cannot_be_used_stops_nothing_and_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    begin(tmp_path)
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "tides.ledger.sqlite").write_bytes(b"not a database, but a file of that name" * 99)
    outcome = iggyflux("run", "pipeline.yaml", "--until-end", "--quiet")
    assert outcome.code == 0
    assert "ledger.unusable route=tides" in outcome.err
    assert (tmp_path / "out.lp").read_text().count("\n") == 2
    assert iggyflux("status", "pipeline.yaml").code == 3


def test_another_process_keeps_the_ledger_and_this_one_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    begin(tmp_path)
    with closing(ledger_state(tmp_path / "kept", "tides")) as other:
        other.take()
        outcome = iggyflux("run", "pipeline.yaml", "--until-end", "--quiet")
    assert outcome.code == 0
    assert "ledger.unusable" in outcome.err
    assert ledger() is None


@pytest.mark.slow
def test_a_run_without_new_messages_writes_down_the_last_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is written at most so often, and not only when something else is acknowledged."""
    for module in ("settled_ledger", "writer_run"):
        monkeypatch.setattr(f"iggyflux.runner.{module}.EVERY_SECONDS", 4.0)
    monkeypatch.chdir(tmp_path)
    begin(tmp_path)
    stop, status = Stop(), Status()

    def last() -> int | None:
        found = ledger()
        return found["intervals"][-1]["last"] if found and found["intervals"] else None

    async def try_it() -> None:
        pipeline = load_pipeline(tmp_path / "pipeline.yaml")
        running = asyncio.create_task(run_pipeline(pipeline, until_end=False, stop=stop, status=status))
        for end in (3, 4):
            async with asyncio.timeout(60):
                while await asyncio.to_thread(last) != end:
                    await asyncio.sleep(0.01)
            with closing(Log.open(tmp_path / "data")) as log:
                log.append("coast", "gauges", [Message(PAYLOADS[0])])
        stop.requested.set()
        await running

    asyncio.run(try_it())


def test_a_locked_ledger_holds_up_no_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    begin(tmp_path)
    assert iggyflux("run", "pipeline.yaml", "--until-end", "--quiet").code == 0
    with closing(Log.open(tmp_path / "data")) as log:
        log.append("coast", "gauges", [Message(PAYLOADS[0])])
    with closing(sqlite3.connect(tmp_path / "kept" / "tides.ledger.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        outcome = iggyflux("run", "pipeline.yaml", "--until-end", "--quiet")
        assert time.monotonic() - began < 20
    assert (outcome.code, "ledger.unusable" in outcome.err) == (0, True)
    assert (tmp_path / "out.lp").read_text().count("\n") == 3
