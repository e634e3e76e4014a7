"""`limits.series`: which points are of a series too many, before a message is sent and while a route runs."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iggyflux.delivery.series import SeriesLimit, hash_of, pack, unpack
from iggyflux.errors import Stopped
from iggyflux.records import Failure, Rendered
from iggyflux.runner.series_guard import SeriesGuard, series_state
from tests.shell import Outcome, iggyflux

SERIES = st.sampled_from([f"buoy,moored=b{number}" for number in range(6)] + ["sea\\ state,at=x\\,y", "sea\\ state"])
BATCHES = st.lists(st.lists(SERIES, max_size=6), max_size=8)

BUOY = """\
iggyflux: 1
kind: writer
name: buoys
from: {{stream: bay, topic: readings}}
for_each: buoys
points:
  measurement: {{const: buoy}}
  tags: {{moored: id}}
  fields: {{waves: h}}
  timestamp: {{expr: "root().at", format: unix_s}}
limits: {limits}
"""


def lines_of(batch: list[str]) -> list[str]:
    return [f"{series} waves=1 {number}" for number, series in enumerate(batch)]


# --- which lines are over the limit ---


@given(BATCHES, st.integers(1, 8))
def test_the_first_series_are_known_and_all_others_are_over(batches: list[list[str]], most: int) -> None:
    limit = SeriesLimit(most)
    first: dict[str, None] = {}
    for batch in batches:
        judged = limit.judge(lines_of(batch))
        limit.add(judged.new)
        for series in batch:
            if len(first) < most:
                first[series] = None
        assert judged.over == tuple(index for index, series in enumerate(batch) if series not in first)
        assert set(limit.known) == set(map(hash_of, first))


def test_a_hash_is_the_same_in_each_process() -> None:
    program = "from iggyflux.delivery.series import hash_of; print(hash_of('buoy,moored=b1'))"
    found = {
        subprocess.check_output([sys.executable, "-c", program], env={"PYTHONHASHSEED": seed}) for seed in ("1", "2")
    }
    assert found == {b"%d\n" % hash_of("buoy,moored=b1")}


# --- the state ---


@given(st.lists(st.integers(0, 2**64 - 1)), st.lists(st.integers(0, 400)))
def test_a_stored_blob_has_its_hashes_wherever_it_is_cut(hashes: list[int], cuts: list[int]) -> None:
    blob, ends = pack(hashes), sorted({0, *cuts})
    pieces = [blob[start:stop] for start, stop in zip(ends, [*ends[1:], None], strict=True)]

    assert list(unpack(pieces)) == hashes


def guarded(folder: Path, most: int, batches: list[list[str]], *, on_limit: str = "dead_letter") -> list[Rendered]:
    """Return what a process admits of these batches."""

    async def main() -> list[Rendered]:
        guard = SeriesGuard("buoys", most, on_limit, series_state(folder, "buoys"))  # type: ignore[arg-type]
        try:
            await guard.connect()
            return [await guard.admit(Rendered(lines_of(batch), list(range(len(batch))))) for batch in batches]
        finally:
            await guard.close()

    return asyncio.run(main())


@settings(max_examples=30, deadline=None)
@given(BATCHES, st.integers(1, 6), st.lists(st.integers(0, 7), max_size=4))
def test_messages_that_are_read_again_are_judged_as_before(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[str]], most: int, again: list[int]
) -> None:
    """In other processes too: each of them begins with what is stored, and reads some batches again."""
    folder = tmp_path_factory.mktemp("state")
    found = guarded(folder, most, batches)
    for start in again:
        assert guarded(folder, most, batches[start:]) == found[start:]
    assert guarded(folder, most, batches) == found


def test_many_new_series_one_after_another_are_all_known_later(tmp_path: Path) -> None:
    """There are more commits than blobs."""
    batches = [[f"buoy,moored=b{number}"] for number in range(200)]
    guarded(tmp_path, 150, batches)
    found = guarded(tmp_path, 150, batches)
    assert [len(each.lines) for each in found] == [1] * 150 + [0] * 50


def test_what_is_over_fails_with_its_series_and_the_others_are_sent(tmp_path: Path) -> None:
    (found,) = guarded(tmp_path, 1, [["buoy,moored=b1", "buoy,moored=b2", "buoy,moored=b1"]])
    assert found.lines == ["buoy,moored=b1 waves=1 0", "buoy,moored=b1 waves=1 2"]
    assert found.origins == [0, 2]
    (failure,) = found.failures
    assert isinstance(failure, Failure)
    assert (failure.index, failure.code, failure.location) == (1, "IFX622", "/limits/series")
    assert failure.reason == "a new series beyond the 1 of `limits.series`: buoy,moored=b2"


def test_a_lower_limit_keeps_what_is_known(tmp_path: Path) -> None:
    guarded(tmp_path, 5, [["buoy,moored=b1", "buoy,moored=b2"]])
    (found,) = guarded(tmp_path, 1, [["buoy,moored=b2", "buoy,moored=b3"]])
    assert found.lines == ["buoy,moored=b2 waves=1 0"]


def test_the_others_of_a_batch_are_not_sent_where_the_route_stops(tmp_path: Path) -> None:
    with pytest.raises(Stopped) as stopped:
        guarded(tmp_path, 1, [["buoy,moored=b1", "buoy,moored=b2"]], on_limit="stop")
    assert (stopped.value.code, "buoy,moored=b2" in stopped.value.reason) == ("IFX622", True)
    (found,) = guarded(tmp_path, 1, [["buoy,moored=b2"]])
    assert found.lines == ["buoy,moored=b2 waves=1 0"]


# --- the commands ---


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def message(*buoys: str, at: int = 1767225600) -> str:
    return json.dumps({"at": at, "buoys": [{"id": each, "h": 0.5} for each in buoys]})


def run(limits: str, *messages: str) -> Outcome:
    Path("buoys.yaml").write_text(BUOY.format(limits=limits))
    Path("p.yaml").write_text("iggyflux: 1\nfrom: log:data\nto: file:out.lp\nrun: [{mapping: buoys.yaml}]\n")
    iggyflux("log", "append", "data", "bay/readings", stdin="".join(f"{each}\n" for each in messages))
    return iggyflux("run", "p.yaml", "--until-end", "--status-file", "status.json")


def written() -> set[str]:
    return {line.split(" ")[0].partition("moored=")[2] for line in Path("out.lp").read_text().splitlines()}


def test_points_of_series_too_many_become_dead_letters_and_their_neighbours_are_written() -> None:
    done = run("{series: 2}", message("b1", "b2", "b3"), message("b4", at=1767225601), message("b1", at=1767225602))
    assert (done.code, written()) == (0, {"b1", "b2"})
    letters = [
        json.loads(line)
        for path in Path("dead-letters/buoys").glob("*.ndjson")
        for line in path.read_text().splitlines()
    ]
    assert [len(each["reasons"]) for each in letters] == [1, 1]
    assert json.loads(Path("status.json").read_text())["routes"][0]["series"] == 2
    assert "2 known series" in iggyflux("state", "show", ".iggyflux").out
    run("{series: 3}", message("b5", at=1767225603))
    assert written() == {"b1", "b2", "b5"}


def test_replay_has_no_limit() -> None:
    run("{series: 2}", message("b1", "b2", "b3"))
    done = iggyflux("replay", "dead-letters/buoys", "--pipeline", "p.yaml")
    assert (done.code, written()) == (0, {"b1", "b2", "b3"})


def test_a_topic_cannot_keep_the_series() -> None:
    run("{series: 2}", message("b1"))
    text = (
        Path("p.yaml").read_text().replace("from:", "state: {stream: s, topic: p}\niggy: {address: 127.0.0.1:1}\nfrom:")
    )
    Path("p.yaml").write_text(text)
    for command in ("check", "run", "validate"):
        done = iggyflux(command, "p.yaml")
        assert done.code != 0, command
        assert "IFX819" in done.out + done.err


def test_warn_writes_all_and_says_so_once() -> None:
    done = run("{series: 2, on_limit: warn}", message("b1", "b2", "b3"), message("b4"))
    assert (done.code, written()) == (0, {"b1", "b2", "b3", "b4"})
    assert done.err.count("series.limit") == 1


def test_stop_stops_the_route_and_acknowledges_nothing_of_the_batch() -> None:
    done = run("{series: 2, on_limit: stop}", message("b1", "b2"), message("b3"))
    assert done.code == 3
    assert "IFX622" in done.err
    assert run("{series: 3, on_limit: stop}").code == 0
    assert written() == {"b1", "b2", "b3"}


def test_a_run_says_when_80_percent_are_used() -> None:
    assert "series.near_limit" not in run("{series: 10}", message(*"abcdefg")).err
    assert "series.near_limit" in run("{series: 10}", message("h", at=1767225601)).err


@pytest.mark.parametrize(("limit", "code"), [(3, 0), (2, 1)])
def test_dry_run_and_test_fail_beyond_the_limit(limit: int, code: int) -> None:
    text = BUOY.format(limits=f"{{series: {limit}}}")
    lines = "".join(f"      - buoy,moored=b{number} waves=0.5 1767225600000000000\n" for number in (1, 2, 3))
    Path("buoys.yaml").write_text(f"{text}examples:\n  - message: {message('b1', 'b2', 'b3')}\n    points:\n{lines}")
    Path("samples.ndjson").write_text(message("b1", "b2", "b3"))
    for command in (("dry-run", "buoys.yaml", "samples.ndjson"), ("test", "buoys.yaml")):
        done = iggyflux(*command)
        assert done.code == code, command
        assert ("the samples make 3 series, and `limits.series` is 2" in done.err + done.out) == bool(code)


@pytest.mark.parametrize("limits", ["{}", "{series: 0}", "{series: two}", "{series: 2, on_limit: drop}", "5"])
def test_what_is_no_limit_is_reported(limits: str) -> None:
    Path("buoys.yaml").write_text(BUOY.format(limits=limits))
    assert iggyflux("validate", "buoys.yaml").code == 1
