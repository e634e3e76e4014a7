"""Worlds of many seeds: the real code of a run between models of Iggy, InfluxDB and a disk, on a virtual clock.

What a world is, what may happen in it and what must hold: `tests/simulation`.  A world that finds something is
repeated, with its timeline, by `make simulate SEED=…`.
"""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import hashlib
import os
import random
import re
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from iggyflux.runner import writer_run
from iggyflux.sim import export
from iggyflux.sim.exchange import Body, request_of
from tests.simulation.influxdb import Influx
from tests.simulation.loop import VirtualLoop
from tests.simulation.planted import PLANTED
from tests.simulation.scenario import CHANGES, FAULTS, SIZES, draw
from tests.simulation.world import World
from tests.simulation.worlds import run, run_seed, shrunk

HERE = Path(__file__).parent.parent


@pytest.mark.parametrize("first", range(0, 40, 10))
def test_nothing_is_lost_and_the_status_is_right_in_short_worlds(first: int) -> None:
    for seed in range(first, first + 10):
        result = run_seed(seed, SIZES["short"])
        assert result.wrong == [], f"make simulate SEED={seed} SIZE=short"


FOUND = {
    301741661: "a batch that was held was never sent again",
    301742519: "a partition of a ghost was not named where new messages took the offsets of lost ones",
    720001869: "a member that joined while the connected ones were counted hid a ghost",
    780001515: "a route waited for two backoffs after the last fault: one end was connected before, and gone since",
    780002979: "a route that had stopped, while another one finished, counted as one that makes no progress",
    820000438: "the time that a server asked for in its answer to a probe was forgotten",
    810000493: "a status that was late since Iggy had been slow counted as silent as soon as Iggy was quick again",
    335: "a route connected while the server had asked another one for no requests",
    545: "a ledger was first written at the end of the run, after the server had lost what it claims",
    820000270: "a ledger claimed offsets of a log that was replaced, until they were read again",
    820000865: "a process that was started again kept the claims of a log that was replaced",
    880000449: "the status was silent for some seconds when one ghost handed a starving partition to the next",
    930006352: "a server that is slow makes one partition wait for the other, and no status need say why",
    910001648: "a value that only a vanished process had sent counted as one that must be sent again",
    930000104: "a process that ended while Iggy hung left its members, connected for ever",
    750000690: "lines that were dropped, and whose offsets were about to be stored, counted as held",
}
"""Seeds of short worlds that found a fault of the code or of the world, while what a seed draws stays the same."""


@pytest.mark.parametrize("seed", FOUND, ids=FOUND.get)
def test_a_fault_that_a_world_found_is_not_made_again(seed: int) -> None:
    scenario = draw(seed, SIZES["short"])
    found_with = tuple(event for event in scenario.events if event.kind not in CHANGES)
    assert run(dataclasses.replace(scenario, events=found_with)).wrong == []


FOUND_WHILE_DOCUMENTS_CHANGE = {
    910001243: "the points of a 204 whose rest is missing counted as unacknowledged",
    930005926: "the backoff went on where it had been, though the server had answered when the route connected again",
}
"""The same, of worlds whose changes of documents are needed."""


@pytest.mark.parametrize("seed", FOUND_WHILE_DOCUMENTS_CHANGE, ids=FOUND_WHILE_DOCUMENTS_CHANGE.get)
def test_a_fault_that_a_world_with_changes_found_is_not_made_again(seed: int) -> None:
    assert run_seed(seed, SIZES["short"]).wrong == []


def test_a_changed_mapping_waits_for_all_buckets_at_once() -> None:
    """A held request was sent again while another bucket was waited for, and its letters named the new plan."""
    assert run_seed(957, SIZES["buckets"]).wrong == []


@pytest.mark.parametrize("first", range(0, 20, 10))
def test_a_bucket_that_is_missing_stalls_no_other(first: int) -> None:
    for seed in range(first, first + 10):
        result = run_seed(seed, SIZES["buckets"])
        assert result.wrong == [], f"make simulate SEED={seed} SIZE=buckets"


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, 10, 5))
def test_nothing_is_lost_and_the_status_is_right_in_worlds(first: int) -> None:
    for seed in range(first, first + 5):
        result = run_seed(seed, SIZES["usual"])
        assert result.wrong == [], f"make simulate SEED={seed}"


@pytest.mark.long
def test_the_same_in_many_worlds() -> None:
    found = _run("--size", "usual", "--first", "1000", "--seeds", "20000")
    assert " 0 failed" in found


def test_each_kind_of_fault_happens() -> None:
    drawn = {event.kind for seed in range(200) for event in draw(seed, SIZES["short"]).events}
    assert drawn == {*FAULTS, *CHANGES}


def test_a_server_that_loses_its_last_writes_has_the_values_before_them() -> None:
    loop = VirtualLoop()
    influx = Influx(loop, random.Random(1), 1, lambda: 10**18, retention_hours=None, retry_seconds=1.0)
    influx.keep_journal()

    def write(text: bytes) -> None:
        request = request_of("POST", "/write?db=test", {}, Body.of(text))
        influx.core.finish(influx.core.begin(request))

    async def main() -> None:
        write(b"class,def=a is=1i 5\nclass,def=b is=1i 5")
        await asyncio.sleep(10)
        write(b"class,def=a is=2i 5\nclass,def=a is=2i 6")
        lost, left = influx.lose(3.0)
        assert [len(each.rows) for each in (*lost, *left)] == [2, 2]

    with closing(loop):
        loop.run_until_complete(main())
    measurement = next(iter(export.measurements(influx.store, "test")))
    found = [(dict(each.series.tags)[b"def"], each.time, each.fields) for each in influx.store.scan(measurement, 0, 9)]
    assert sorted(found) == [(b"a", 5, {b"is": 1}), (b"b", 5, {b"is": 1})]


def test_a_world_that_breaks_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    before = writer_run.SETTLE_SECONDS
    scenario = dataclasses.replace(draw(0, SIZES["short"]), settle_seconds=before + 1)

    async def fail(_: World) -> None:
        assert before + 1 == writer_run.SETTLE_SECONDS
        raise RuntimeError("broken")

    monkeypatch.setattr(World, "_main", fail)
    with pytest.raises(RuntimeError, match="broken"):
        run(scenario)

    assert before == writer_run.SETTLE_SECONDS
    assert gc.isenabled()


def _digest(seed: int) -> str:
    result = run(draw(seed, SIZES["short"]), is_told=True)
    text = "\n".join([*result.timeline, *result.wrong, str(sorted(result.counts.items()))])
    return hashlib.sha256(re.sub(r"/\S*iggyflux-world-\w+", "", text).encode()).hexdigest()


def test_a_seed_always_makes_the_same_world(capfd: pytest.CaptureFixture[str]) -> None:
    """Also in another process, with another order of sets of strings, and after other worlds."""
    seeds = range(400, 402)
    here = [_digest(seed) for seed in seeds]
    assert [_digest(seed) for seed in reversed(seeds)][::-1] == here
    program = f"from tests.test_simulation import _digest\nfor seed in {list(seeds)}: print(_digest(seed))"
    for hash_seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            cwd=HERE,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.split() == here


EASY = ("acknowledge before settling", "write a letter without a sync")
"""Planted faults that are found in a few seconds; all of them are planted by the long tests."""


def _run(*arguments: str) -> str:
    command = [sys.executable, "-m", "tests.simulation", *arguments]
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize(
    "name", [pytest.param(each.name, marks=[] if each.name in EASY else pytest.mark.long) for each in PLANTED]
)
def test_a_planted_fault_is_found(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The lines that are printed are the table of docs/reliability.md."""
    size = next(each.size for each in PLANTED if each.name == name)
    found = _run("--plant", name, "--size", size, "--seeds", "1000")
    assert found.startswith("found after"), found
    with capsys.disabled():
        print(f"\n{found[:100]}", end="")


@pytest.mark.parametrize("planted", PLANTED, ids=lambda each: each.name)
def test_what_a_planted_fault_replaces_is_there(planted: object) -> None:
    """Else a fault that is not planted any more seems to be found late."""
    module = HERE / (planted.module.replace(".", "/") + ".py")  # type: ignore[attr-defined]
    assert module.read_text(encoding="utf-8").count(planted.old) == 1  # type: ignore[attr-defined]


def test_a_schedule_is_shrunk_to_what_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without what was planted, a world fails for one kind of fault only."""
    from tests.simulation import worlds

    scenario = draw(7, SIZES["usual"])
    needed = {scenario.events[2], scenario.events[5]}

    class Failing:
        def __init__(self, tried: object) -> None:
            self.wrong = ["wrong"] if needed <= set(tried.events) else []  # type: ignore[attr-defined]

    monkeypatch.setattr(worlds, "run", Failing)
    assert set(shrunk(scenario).events) == needed
