"""Headers of the user: what is accepted arrives as it is and changes nothing else; what is not is a problem."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from iggyflux.errors import PipelineError, Problem
from iggyflux.pipeline import InfluxSettings, Pipeline, parse_pipeline
from iggyflux.secrets import Secret
from iggyflux.sim import SimServer
from iggyflux.spec import Query
from iggyflux.transports.influxdb.query.source import InfluxRows
from iggyflux.transports.influxdb.write.sink import InfluxLineSink
from tests.servers.proxy import in_front_of
from tests.transports.raw_server import RawServer, Request

NAMES = st.one_of(
    st.text(max_size=12),
    st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=12),
    st.sampled_from(
        [
            "X-Scope-OrgID",
            "x-scope-orgid",
            "Host",
            "HOST",
            "Content-Length",
            "content-encoding",
            "Transfer-Encoding",
            "Connection",
            "TE",
            "Authorization",
            "User-Agent",
            "Proxy-Authorization",
            "Cookie",
            "class",
            "X-A:b",
        ]
    ),
    st.sampled_from(["X-A: b", "X\r\nB"]),
)
VALUES = st.one_of(
    st.text(min_size=1, max_size=20),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=20),
    st.sampled_from(["a\r\nX-Injected: 1", "a\nb", "a\x00b", "ü", " a", "a ", "a\tb", "0", "chunked", "a, b", "\x0b"]),
)


@pytest.fixture(scope="module")
def server() -> Iterator[RawServer]:
    with RawServer(ping=None) as started:
        yield started


def loaded(headers: dict[str, str], folder: Path, **more: Any) -> Pipeline:
    """Return the pipeline whose section has these headers; TOML writes every text, as JSON does."""
    (folder / "m.yaml").touch()
    document = {
        "iggyflux": 1,
        "from": "log:data",
        "influxdb": {"url": "http://127.0.0.1:1", "bucket": "b", **more, "headers": headers},
        "run": [{"mapping": "m.yaml"}],
    }
    return parse_pipeline(json.dumps(document), file=folder / "pipeline.yaml", environ={})


def problems(headers: dict[str, str], folder: Path, **more: Any) -> list[Problem]:
    with pytest.raises(PipelineError) as error:
        loaded(headers, folder, **more)
    return list(error.value.problems)


def asked(server: RawServer, given: InfluxSettings) -> Request:
    """Return a request as the server received it."""
    connection = InfluxLineSink(dataclasses.replace(given, url=server.url, flavor="v2"))
    try:
        connection._ask("GET", "/x")
    finally:
        asyncio.run(connection.close())
    return server.requests.pop()


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(headers=st.dictionaries(NAMES, VALUES, max_size=4))
@example(headers={"X-A": "a\r\nX-Injected: 1"})
@example(headers={"Transfer-Encoding": "chunked"})
@example(headers={"X-A": "1", "x-a": "2"})
@example(headers={"authorization": "Basic eA=="})
def test_accepted_headers_arrive_and_change_nothing_else(
    headers: dict[str, str], server: RawServer, tmp_path: Path
) -> None:
    try:
        pipeline = loaded(headers, tmp_path)
    except PipelineError:
        return
    assert pipeline.influxdb is not None
    without = asked(server, dataclasses.replace(pipeline.influxdb, headers=()))

    received = asked(server, pipeline.influxdb)

    assert received.headers == {**without.headers, **{name.lower(): value for name, value in headers.items()}}
    assert len(received.headers) == len(without.headers) + len(headers)
    assert (received.method, received.target, received.body) == (without.method, without.target, without.body)


GOOD = {
    "X-Scope-OrgID": "plant-7",
    "x!#$%&'*+.^_`|~9": "a",
    "CF-Access-Client-Secret": "!~ \t x",
    "Cookie": "a=b; c=d",
    "Authorization": "Basic eDp5",
}


@pytest.mark.parametrize("name", GOOD)
def test_headers_of_tenants_and_proxies_are_accepted(name: str, tmp_path: Path) -> None:
    given = loaded({name: GOOD[name]}, tmp_path).influxdb

    assert given is not None
    assert given.headers == ((name, Secret(GOOD[name])),)


@pytest.mark.parametrize(
    "name",
    ["Host", "Content-Type", "content-length", "TE", "Upgrade", "Connection", "Proxy-Authorization", "User-Agent", "",
     "X A", "X:A", "X-Ü", "X\nA"],
)  # fmt: skip
def test_a_name_that_is_not_accepted_has_a_place_and_a_hint(name: str, tmp_path: Path) -> None:
    (problem,) = problems({name: "v"}, tmp_path)

    assert problem.code == "IFX816"
    assert problem.location.pointer.startswith("/influxdb/headers/")
    assert problem.hint


@pytest.mark.parametrize("more", [{"token": "t"}, {"username": "u", "password": "p"}])
def test_authorization_is_given_once(more: dict[str, str], tmp_path: Path) -> None:
    assert [each.code for each in problems({"authorization": "Basic eDp5"}, tmp_path, **more)] == ["IFX810"]


def test_a_value_is_a_number_only_as_text(tmp_path: Path) -> None:
    document = """\
iggyflux: 1
from: log:data
influxdb: {headers: {verify: "${V}", X-Scope-OrgID: "${N}"}}
run: [{mapping: m.yaml}]
"""
    (tmp_path / "m.yaml").touch()

    pipeline = parse_pipeline(document, file=tmp_path / "p.yaml", environ={"V": "true", "N": "12"})

    assert pipeline.influxdb is not None
    assert pipeline.influxdb.headers == (("verify", Secret("true")), ("X-Scope-OrgID", Secret("12")))


def test_a_value_comes_from_a_file_and_a_route_replaces_all(tmp_path: Path) -> None:
    (tmp_path / "m.yaml").touch()
    (tmp_path / "tenant").write_text("plant-7\n")
    document = """\
iggyflux: 1
from: log:data
influxdb: {headers: {X-Scope-OrgID: "file:tenant", X-A: a}}
run:
  - {mapping: m.yaml, name: one}
  - {mapping: m.yaml, name: two, influxdb: {headers: {X-B: b}}}
"""
    one, two = parse_pipeline(document, file=tmp_path / "p.yaml", environ={}).routes

    assert one.influxdb is not None
    assert two.influxdb is not None
    assert dict(one.influxdb.headers) == {"X-Scope-OrgID": Secret("plant-7"), "X-A": Secret("a")}
    assert dict(two.influxdb.headers) == {"X-B": Secret("b")}


@pytest.mark.parametrize(("name", "warned"), [("X-Scope-OrgID", False), ("X-Api-Key", True), ("Authorization", True)])
def test_a_header_with_credentials_in_the_file_is_a_warning(name: str, warned: bool, tmp_path: Path) -> None:
    codes = [problem.code for problem in loaded({name: "abc"}, tmp_path).warnings]

    assert codes == ["IFX814"] * warned


def test_no_problem_shows_a_value(tmp_path: Path) -> None:
    canary = "canary-Qj7KwVx2"
    for headers in (
        {"X-A": f"{canary}\n"},
        {"Host": canary},
        {f"X-A: {canary}": "v"},
        {"X-A": canary, "x-a": canary},
        {"X-A": [canary]},
    ):
        found = problems(headers, tmp_path)  # type: ignore[arg-type]
        assert canary not in repr([problem.as_dict() for problem in found]), headers


@pytest.mark.parametrize("dialect", [1, 2, 3])
def test_every_request_of_writers_readers_and_checks_has_them(dialect: int) -> None:
    """Also those that detect the server, that create a bucket, and that query."""

    async def main(given: InfluxSettings) -> None:
        sink = InfluxLineSink(given)
        await sink.check()
        await sink.connect()
        await sink.write([f"m,t=a f={number} {number}" for number in range(200)])
        await sink.close()
        rows = InfluxRows(given, Query("m", None, "auto", (), (), ()), column="time")
        await rows.connect()
        await rows.now()
        window = await rows.fetch(0, 10**6)
        window.close()
        await rows.close()

    token = "me:s" if dialect == 1 else "s"
    with SimServer(dialect, database="plant", token=token) as simulator, in_front_of(simulator.url) as proxy:
        login: dict[str, Any] = (
            {"username": "me", "password": Secret("s")} if dialect == 1 else {"token": Secret("s"), "org": "org"}
        )
        headers = (("X-Scope-OrgID", Secret("plant-7")), ("Cookie", Secret("a=b")))
        given = InfluxSettings(url=proxy.url, bucket="plant", create=dialect < 3, headers=headers, **login)
        asyncio.run(main(given))

    assert len(proxy.received) > 5
    assert [
        each for each in proxy.received if each.get("x-scope-orgid") != "plant-7" or each.get("cookie") != "a=b"
    ] == []


def test_what_a_header_holds_is_hidden_in_each_of_its_parts() -> None:
    password = "s3cr3t-of-the-proxy"
    login = base64.b64encode(f"me:{password}".encode()).decode()
    sink = InfluxLineSink(InfluxSettings(bucket="b", headers=(("Authorization", Secret(f"Basic {login}")),)))
    for text in (f"Basic {login}", f"no {login}", f"me:{password}", password):
        assert password not in sink._scrub(text)
        assert login not in sink._scrub(text)
