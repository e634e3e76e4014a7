"""The ledger: which offsets are settled, with counts; on disk after the acknowledgement; shown by `iggyflux status`."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iggyflux.delivery import settled
from iggyflux.delivery.settled import Interval, SettledBatch, SettledOffsets, count_of_others, gaps
from iggyflux.records import Message, Partition, Position
from iggyflux.runner.settled_ledger import ledger_state
from iggyflux.transports.local.log import Log
from tests.shell import iggyflux

HERE = Partition("coast", "gauges", 3)


@dataclass(frozen=True)
class Drawn:
    """A settled batch: of each offset the accepted lines, and whether it is a dead letter, dropped or skipped."""

    plan: str
    facts: dict[int, tuple[int, bool, bool, bool]]

    def batch(self) -> SettledBatch:
        messages = [Message(b"", "coast", "gauges", 3, offset) for offset in self.facts]
        accepted = [at for at, fact in enumerate(self.facts.values()) for _ in range(fact[0])]
        kinds: list[Sequence[int]] = [
            [at for at, fact in enumerate(self.facts.values()) if fact[kind]] for kind in (1, 2, 3)
        ]
        return SettledBatch(messages, accepted, *kinds)


FACTS = st.tuples(st.integers(0, 3), st.booleans(), st.booleans(), st.booleans())
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
def test_intervals_are_the_settled_offsets_each_counted_once(drawn: list[Drawn], first: int, last: int) -> None:
    offsets, model = SettledOffsets(), dict[str, dict[int, tuple[int, bool, bool, bool]]]()
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
            sums = tuple(sum(fact[kind] for fact in within) for kind in range(4))
            assert (each.points, each.dead_letters, each.dropped, each.skipped) == sums
            assert each.messages == len(within)
    everything = {at for facts in model.values() for at in facts}
    assert all(offsets.claims(Position(HERE, at)) == (at in everything) for at in range(30))
    shown = {at for a, b in gaps(each for all_of in found.values() for each in all_of) for at in range(a, b + 1)}
    assert shown == (set(range(min(everything), max(everything))) - everything if everything else set())
    others = everything - set(model.get("new", ()))
    assert count_of_others(found, "new", HERE, first, last) == len(others & set(range(first, last + 1)))


def test_the_oldest_of_too_many_intervals_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settled, "MOST_INTERVALS", 3)
    offsets = SettledOffsets()
    for offset in range(0, 20, 2):
        offsets.add(HERE, "p", Interval(offset, offset))

    assert [each.first for each in offsets.intervals()[HERE, "p"]] == [14, 16, 18]
    assert offsets.forgotten == 7


def test_an_interval_that_overlaps_another_is_left_out() -> None:
    offsets = SettledOffsets()
    offsets.add(HERE, "p", Interval(5, 9, points=5))
    offsets.add(HERE, "p", Interval(0, 5, points=6))

    assert offsets.intervals() == {(HERE, "p"): (Interval(5, 9, points=5),)}


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
    for end in (3, 4):
        assert iggyflux("run", "pipeline.yaml", "--until-end", "--quiet").code == 0
        found = ledger()
        assert found is not None
        (interval,) = found["intervals"]
        shown = [interval[key] for key in ("first", "last", "messages")]
        assert shown == [0, end, end + 1]
        assert [interval[key] for key in ("dead_letters", "dropped", "skipped")] == [dead_letters, dropped, 1]
        assert interval["points"] == end - 1
        with closing(Log.open(tmp_path / "data")) as log:
            log.append("coast", "gauges", [Message(PAYLOADS[0])])
    (tmp_path / "tides.yaml").write_text(MAPPING.replace("ON_ERROR", on_error).replace("height", "depth"))
    assert "0–4*" in iggyflux("status", "pipeline.yaml").out
    assert "settled by another plan" in iggyflux("status", "pipeline.yaml").out


def test_without_state_in_the_pipeline_there_is_no_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    begin(tmp_path, state="")
    assert iggyflux("run", "pipeline.yaml", "--until-end", "--quiet").code == 0
    assert ledger() is None
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
