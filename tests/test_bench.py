"""The benchmarks follow the code: `make bench` is run by hand, so a name that has changed is found here."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import guard, peers, scaling
from bench.__main__ import BENCHMARKS
from bench.iggy import PARTS
from bench.plan import EIGHT, writer
from iggyflux import Message

BENCH = Path(__file__).parent.parent / "bench"


@pytest.mark.parametrize("name", sorted(path.stem for path in BENCH.glob("*.py")))
def test_every_module_of_the_benchmarks_can_be_imported(name: str) -> None:
    """Also those that need a real server; mypy checks how they use what they import."""
    import_module(f"bench.{name}")


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_has_a_main(name: str) -> None:
    """`python -m bench` calls it."""
    assert callable(import_module(f"bench.{name}").main)


def test_the_measured_parts_of_a_run_are_there() -> None:
    """They are named in a text, which no type checker sees; it replaces functions, so it has a process of its own."""
    subprocess.run([sys.executable, "-c", PARTS], check=True)


# --- the guard of the ratios ---


def test_rendering_is_as_fast_as_it_was() -> None:
    """Beside a script by hand and beside decoding; `python -m bench.guard` measures the baseline anew."""
    assert not guard.slower()


def test_the_guard_notices_a_plan_that_decodes_twice() -> None:
    render = writer(EIGHT).plan().render

    def planted(batch: Sequence[Message]) -> object:
        for message in batch:
            json.loads(message.payload)
        return render(batch)

    assert {*guard.slower(planted)} == {"a script by hand", "typed decoding"}


# --- the comparison with other tools ---

PROGRAM = """\
#!{python}
import json, pathlib, re, sys
sys.path.insert(0, {root!r})
from bench.peer import f_string
if "--version" in sys.argv:
    sys.exit("" if print("program 1.2.3") else 0)
source = re.search(r'(?:files = |paths: )\\["(.*?/part.*?)"', pathlib.Path(sys.argv[-1]).read_text())[1]
print(*f_string(json.loads, pathlib.Path(source).read_bytes().splitlines()), sep="\\n")
"""


def test_peers_are_measured_where_they_make_the_same_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not there is named with the reason, and so is what makes other points."""
    text = PROGRAM.format(python=sys.executable, root=str(BENCH.parent))
    for name, program in (("telegraf", text), ("benthos", text.replace("print(*", "print(*['env a=1i 5'], *"))):
        (tmp_path / name).write_text(program)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(peers, "REPEATS", 1)

    measured, missing = peers.compare(sys.executable, rounds=1)

    assert [*measured] == [
        "iggyflux",
        "by hand: json, jmespath, influxdb-client",
        "json_v2 in Telegraf",
        "xpath_json in Telegraf",
    ]
    assert measured["iggyflux"][0].micros > 0
    assert measured["json_v2 in Telegraf"][0].version == "1.2.3"
    assert "its points differ: (5, 'env', [], [('a', 'int', 1)]), not " in missing["Bloblang in Benthos"]
    assert "No module named 'orjson'" in missing["by hand: f-string, orjson"]
    titles = {peer.title for peer in peers.PEERS.values()} | {each.title for each in peers.PROGRAMS.values()}
    assert titles | {*peers.NEVER} == {*measured, *missing}


def test_an_integer_is_not_a_float_with_that_value() -> None:
    one, other = (peers.typed_points(f"m f={value} 7", "ns") for value in ("1i", "1"))

    assert peers.difference(one, other, 1)


def test_the_picture_has_each_peer() -> None:
    text = peers.picture([("us & ours", 2.0, 1.0), ("a peer", 2000.0, 1000.0)], "now")

    assert "us & ours" in {each.text for each in ET.fromstring(text).iter()}
    assert "1,000 × (2,000 µs, 500/s)" in text


# --- the model of many hosts ---


def test_the_page_on_scaling_has_the_table_of_the_model() -> None:
    expected = scaling.table([scaling.simulate(hosts, scaling.Inputs()) for hosts in scaling.HOSTS])

    assert expected in (BENCH.parent / "docs" / "scaling.md").read_text("utf-8")


BETTER = {
    "host_gbit": 2.0,
    "iggy_cores": 2.0,
    "influxdb_cores": 2.0,
    "own_us": 0.5,
    "iggy_us": 0.5,
    "influxdb_us": 0.5,
    "sent_bytes": 0.5,
    "own_request_us": 0.5,
    "iggy_request_us": 0.5,
    "influxdb_request_us": 0.5,
}


@given(st.integers(1, 200), st.integers(1, 900), st.sampled_from(sorted(BETTER)))
def test_more_power_and_lower_costs_never_lower_the_rate_of_the_model(hosts: int, partitions: int, name: str) -> None:
    before = scaling.Inputs(partitions=partitions)
    better = replace(before, **{name: getattr(before, name) * BETTER[name]})
    results = scaling.simulate(hosts, before), scaling.simulate(hosts, better)

    assert results[1].rate >= results[0].rate
    assert min(results[0].limits.values()) == results[0].rate > 0


def test_a_process_reads_no_more_partitions_than_its_share() -> None:
    """Ten processes: with ten partitions all work, with eleven one has two, and with five half of them are idle."""
    rates = {count: scaling.simulate(5, scaling.Inputs(partitions=count)).limits for count in (5, 10, 11)}
    share = {count: limits["partitions"] / limits["CPU of the hosts"] for count, limits in rates.items()}

    assert share == pytest.approx({5: 0.5, 10: 1.0, 11: 0.55})
