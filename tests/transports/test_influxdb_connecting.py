"""What keeps a connection from being made: a server that asks for time, and credentials of another API."""

from __future__ import annotations

import asyncio
import dataclasses
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iggyflux.delivery.backoff import MAX_RETRY_AFTER_SECONDS
from iggyflux.errors import NotConnected, PipelineError, Stopped
from iggyflux.pipeline import InfluxSettings, Secret
from iggyflux.sim import SimServer
from iggyflux.spec import Query
from iggyflux.transports.influxdb.query.source import InfluxRows
from tests.shell import iggyflux
from tests.test_session import FIRST, Scripted, drive
from tests.transports.line_sinks import check, connect
from tests.transports.raw_server import NO_CONTENT, RawServer, Reply, Request, http

ORGS = http(200, '{"orgs":[{"id":"07"}]}')
MISSING = http(404, '{"code":"not found","message":"bucket \\"b\\" not found"}')
UNKNOWN_PING = http(204)


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def settings(url: str, **given: Any) -> InfluxSettings:
    base = InfluxSettings(url=url, bucket="b", org="o", token=Secret("t"), timeout_seconds=5.0)
    return dataclasses.replace(base, **given)


# --- Retry-After ---

FORMS = {
    "seconds": lambda: ("Retry-After: 7",),
    "a date": lambda: (
        f"Retry-After: {formatdate(1_700_000_007, usegmt=True)}",
        f"Date: {formatdate(1_700_000_000, usegmt=True)}",
    ),
}
PLACES: dict[str, dict[str, Any]] = {
    "ping": {"busy": ["/ping"]},
    "write": {"busy": ["/api/v2/write"]},
    "health": {"busy": ["/health"], "ping": UNKNOWN_PING},
    "metrics": {"busy": ["/metrics"], "ping": UNKNOWN_PING},
    "organizations": {"busy": ["/api/v2/orgs"], "probe": MISSING},
    "a bucket to create": {"busy": ["/api/v2/buckets"], "probe": MISSING},
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("status", [429, 502, 503, 504])
@pytest.mark.parametrize("place", PLACES)
def test_each_request_of_connecting_waits_as_long_as_the_server_asks(place: str, status: int, form: str) -> None:
    busy = http(status, "later", *FORMS[form]())
    replies = {"/ping": http(204, "", "X-Influxdb-Version: v2.7.1"), "/api/v2/write": NO_CONTENT, "/api/v2/orgs": ORGS}
    replies["/ping"] = PLACES[place].get("ping", replies["/ping"])
    replies["/api/v2/write"] = PLACES[place].get("probe", NO_CONTENT)
    replies |= dict.fromkeys(PLACES[place]["busy"], busy)

    def answer(request: Request) -> Reply:
        return replies.get(request.target.partition("?")[0], http(404, "nothing"))

    with RawServer(ping=None, probe=None, script=[answer] * 20) as server, pytest.raises(NotConnected) as error:
        connect(settings(server.url, create=True))

    assert error.value.retry_after_seconds == 7.0
    assert str(status) in str(error.value)


def test_connecting_again_waits_too() -> None:
    ping = http(204, "", "X-Influxdb-Version: v2.7.1")
    script = [ping, NO_CONTENT, http(503, "later", "Retry-After: 7")]
    with RawServer(ping=None, probe=None, script=script) as server, pytest.raises(NotConnected) as error:
        connect(settings(server.url), times=2)

    assert error.value.retry_after_seconds == 7.0


@given(st.floats(0.001, 1e9))
def test_a_wait_that_a_server_asks_for_is_bounded(seconds: float) -> None:
    """And drawn apart, so that not all clients come at the same moment."""
    scripted = Scripted("not connected", error=NotConnected("busy", retry_after_seconds=seconds))
    drive(scripted.run())

    (slept,) = scripted.clock.slept
    assert slept == min(seconds, MAX_RETRY_AFTER_SECONDS) + FIRST


@pytest.mark.parametrize("place", ["ping", "write"])
def test_check_says_how_long_the_server_asks_to_wait(place: str) -> None:
    busy = http(503, "later", "Retry-After: 7")
    given = {"ping": busy} if place == "ping" else {"probe": busy}
    with RawServer(**given, script=[http(200, '{"buckets":[{"name":"b"}]}')] * 9) as server:
        report = check(settings(server.url))

    (finding,) = [each for each in report.findings if each.ok is False]
    assert "7 s" in (finding.hint or "")


# --- credentials of 1.x for 2.x ---

LOGIN: dict[str, Any] = {"token": None, "username": "me", "password": Secret("s"), "org": None}


def test_user_and_password_for_2x_lead_to_the_flavor_of_1x() -> None:
    with SimServer(2, database="b", token="s") as server:
        with pytest.raises(Stopped, match="token") as stopped:
            connect(settings(server.url, **LOGIN))
        report = check(settings(server.url, **LOGIN))
        connect(settings(server.url, **LOGIN, flavor="v1"))

    for hint in (stopped.value.hint, *(each.hint for each in report.findings if each.ok is False)):
        assert "flavor: v1" in (hint or "")


def test_a_pinned_flavor_of_2x_leads_there_too() -> None:
    with pytest.raises(PipelineError) as error:
        connect(settings("http://127.0.0.1:1", **LOGIN, flavor="v2"))

    assert "flavor: v1" in (error.value.problems[0].hint or "")


@pytest.mark.parametrize("read", [False, True])
def test_user_and_password_as_a_token_lead_to_the_flavor_of_1x(read: bool) -> None:
    async def main(given: InfluxSettings) -> None:
        rows = InfluxRows(given, Query("m", None, "flux", (), (), ()), column="time")
        try:
            await rows.connect()
            (await rows.fetch(0, 10)).close()
        finally:
            await rows.close()

    with SimServer(2, database="b", token="s") as server:
        given = settings(server.url, org="org", token=Secret("me:secret"))
        with pytest.raises(Stopped) as stopped:
            asyncio.run(main(given)) if read else connect(given)
        report = check(given)

    assert stopped.value.code == "IFX721"
    for hint in (stopped.value.hint, *(each.hint for each in report.findings if each.ok is False)):
        assert "flavor: v1" in (hint or "")


def test_the_flavor_of_1x_on_2x_leads_to_its_users_and_its_mapping_of_databases() -> None:
    with SimServer(2, database="b", token="s") as server:
        with pytest.raises(Stopped) as wrong:
            connect(settings(server.url, **{**LOGIN, "password": Secret("wrong")}, flavor="v1"))
        with pytest.raises(Stopped) as missing:
            connect(settings(server.url, **{**LOGIN, "bucket": "nothing"}, flavor="v1"))

    assert "influx v1 auth" in (wrong.value.hint or "")
    assert "influx v1 dbrp" in (missing.value.hint or "")
    assert missing.value.code == "IFX723"


def test_a_database_without_policies_is_not_reported_as_there() -> None:
    """2.9.1 answers so to `SHOW RETENTION POLICIES` of an unknown database."""
    with RawServer([http(200, '{"results":[{"statement_id":0,"series":[{"columns":["name"]}]}]}')]) as server:
        report = check(settings(server.url, **LOGIN, flavor="v1"))

    assert [each.ok for each in report.findings if each.topic == "database"] == [None]


def test_check_prints_the_way_to_1x(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("P", "s")
    (tmp_path / "m.yaml").write_text(
        "iggyflux: 1\nkind: writer\nfrom: {stream: s, topic: t}\npoints: {measurement: {const: m}}\n"
    )
    with SimServer(2, database="b", token="s") as server:
        section = f'{{url: "{server.url}", database: b, username: me, password: "${{P}}"}}'
        (tmp_path / "p.yaml").write_text(f"iggyflux: 1\nfrom: stdin\ninfluxdb: {section}\nrun: [{{mapping: m.yaml}}]\n")
        outcome = iggyflux("check", "p.yaml")

    assert outcome.code == 1
    assert "flavor: v1" in outcome.out
