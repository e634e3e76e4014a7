"""`check` compares the types of a mapping's fields with those that are stored, before a message is sent."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from itertools import permutations
from pathlib import Path

import pytest

from iggyflux.sim import SimServer
from tests.shell import Outcome, iggyflux

TOKENS = {1: "u:tok", 2: "tok", 3: "tok"}
LOGIN = {
    1: "database: test, username: u, password: tok",
    2: "org: org, bucket: test, token: tok",
    3: "database: test, token: tok",
}
WRITE = {
    1: "/write?db=test&u=u&p=tok",
    2: "/api/v2/write?org=org&bucket=test",
    3: "/api/v3/write_lp?db=test",
}
BOAT = """\
iggyflux: 1
kind: writer
name: boats
from: {{stream: harbour, topic: log}}
points:
  - measurement: {measurement}
    tags: {{berth: b}}
    fields: {{draught: {draught}}}
    timestamp: {{expr: t, format: unix_s}}
"""
STORED = {"float": "1.5", "integer": "3i", "string": '"deep"', "boolean": "true"}


@pytest.fixture(params=[1, 2, 3])
def server(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SimServer]:
    monkeypatch.chdir(tmp_path)
    with SimServer(request.param, token=TOKENS[request.param]) as running:
        yield running


def store(server: SimServer, line: str) -> None:
    request = urllib.request.Request(server.url + WRITE[server.dialect], line.encode(), {"Authorization": "Token tok"})
    urllib.request.urlopen(request).close()


def check(server: SimServer, draught: str, *, measurement: str = "{const: boat}", more: str = "") -> Outcome:
    Path("boats.yaml").write_text(BOAT.format(draught=draught, measurement=measurement) + more)
    login = LOGIN[server.dialect]
    pipeline = (
        f"iggyflux: 1\nfrom: log:data\ninfluxdb: {{url: '{server.url}', {login}}}\nrun: [{{mapping: boats.yaml}}]\n"
    )
    Path("pipeline.yaml").write_text(pipeline)
    Path("data").mkdir(exist_ok=True)
    return iggyflux("check", "pipeline.yaml")


def types(done: Outcome) -> list[str]:
    """Return what is said of types."""
    return [line.strip() for line in done.out.splitlines() if " types: " in line]


@pytest.mark.parametrize(("stored", "declared"), [("float", "float"), *permutations(("integer", "float", "string"), 2)])
def test_each_type_is_compared_with_the_stored_one(server: SimServer, stored: str, declared: str) -> None:
    store(server, f"boat,berth=b7 draught={STORED[stored]} 1767225600000000000")
    done = check(server, f"{{expr: d, type: {declared}}}")
    (words,) = types(done)
    if stored == declared:
        assert words == "ok   to    influxdb: types: 1 field as they are stored"
        return
    assert words == (
        f"FAIL to    influxdb: types: field draught of boat is {declared} at boats.yaml:8:23, "
        f"and stored as {stored} [IFX609]"
    )
    assert done.code == 1


def test_a_measurement_that_is_not_there_fits(server: SimServer) -> None:
    store(server, "ship,berth=b7 draught=1i 1767225600000000000")
    assert types(check(server, "d")) == []


@pytest.mark.parametrize("dialect", [1, 2, 3])
def test_a_database_that_is_not_there_is_no_fault_of_types(
    dialect: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with SimServer(dialect, token=TOKENS[dialect], database=None) as server:
        assert not any(words.startswith("FAIL") for words in types(check(server, "d")))


def test_examples_show_computed_measurements(server: SimServer) -> None:
    store(server, "dinghy,berth=b7 draught=1i 1767225600000000000")
    example = "examples: [{message: {b: b7, k: dinghy, d: 2.5, t: 1767225600}, points: []}]\n"
    (words,) = types(check(server, "d", measurement="k", more=example))
    assert "field draught of dinghy is float at boats.yaml:" in words


def test_a_token_that_may_only_write_is_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for dialect in (1, 2):
        with SimServer(dialect, tokens={TOKENS[dialect]: {"write"}}) as server:
            store(server, "boat,berth=b7 draught=1i 1767225600000000000")
            (words,) = types(check(server, "d"))
            assert words.startswith("?    to    influxdb: types: not compared with what is stored: ")


@pytest.mark.parametrize("stored", ["boat,draught=1 berth=2i", "boat,x=1 berth=2i"])
def test_a_tag_that_is_stored_as_a_field_is_named_and_the_other_way_round(server: SimServer, stored: str) -> None:
    """InfluxDB 3 refuses such points, so there it is a fault."""
    store(server, f"{stored} 1767225600000000000")
    done = check(server, "d")
    words = [line for line in types(done) if "IFX170" in line]
    expected = ["berth of boat is a tag at boats.yaml:7:19, and stored as a field"]
    if "draught" in stored:
        expected.append("draught of boat is a field at boats.yaml:8:23, and stored as a tag")

    mark = "FAIL" if server.dialect == 3 else "?   "
    assert words == [f"{mark} to    influxdb: types: {each} [IFX170]" for each in expected]
