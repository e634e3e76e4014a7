"""Which proxy is used, and what is said of one that does not work: its address and its variable, never its login."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
from collections.abc import Callable
from typing import Any
from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]  # it is there

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from iggyflux.errors import NotConnected, Stopped
from iggyflux.pipeline import InfluxSettings
from iggyflux.secrets import Secret
from iggyflux.transports.influxdb.query.source import InfluxRows
from iggyflux.transports.proxies import is_excepted
from tests.iggy_server import free_ports
from tests.transports.line_sinks import check, connect
from tests.transports.raw_server import RawServer, Reply, Script, http

VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
PASSWORD = "canary-p4ss/+"
LOGIN = "me:canary-p4ss%2F%2B"


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


# --- NO_PROXY ---

EXCEPTIONS: list[tuple[str, str, int, bool]] = [
    ("*", "influx.example.org", 443, True),
    (" a, * ", "influx.example.org", 443, True),
    ("", "influx.example.org", 443, False),
    ("influx.example.org", "influx.example.org", 443, True),
    ("INFLUX.example.org", "influx.EXAMPLE.org", 443, True),
    ("influx.example.org.", "influx.example.org", 443, True),
    ("influx.example.org", "influx.example.org.", 443, True),
    ("example.org", "influx.example.org", 443, True),
    (".example.org", "influx.example.org", 443, True),
    (".example.org", "example.org", 443, True),
    ("*.example.org", "influx.example.org", 443, True),
    ("*.example.org", "badexample.org", 443, False),
    ("example.org", "badexample.org", 443, False),
    ("example.org", "example.org.evil", 443, False),
    ("a.org b.org", "b.org", 443, True),
    ("example.org:8086", "influx.example.org", 8086, True),
    ("example.org:8086", "influx.example.org", 443, False),
    ("10.1.2.3", "10.1.2.3", 8086, True),
    ("10.1.2.3:8086", "10.1.2.3", 8086, True),
    ("10.1.2.3:8086", "10.1.2.3", 8087, False),
    ("10.0.0.0/8", "10.1.2.3", 8086, True),
    ("10.9.9.9/8", "10.1.2.3", 8086, True),
    ("10.0.0.0/8:8086", "10.1.2.3", 8086, True),
    ("10.0.0.0/8:8086", "10.1.2.3", 8087, False),
    ("10.0.0.0/8", "11.1.2.3", 8086, False),
    ("10.0.0.0/8", "ten.example.org", 8086, False),
    ("0.0.0.0/0", "11.1.2.3", 8086, True),
    ("0.0.0.0/0", "::1", 8086, False),
    ("1.2.3", "0.1.2.3", 80, False),
    ("3", "10.1.2.3", 80, False),
    (".2.3", "10.1.2.3", 80, False),
    ("::1", "::1", 8086, True),
    ("[::1]", "::1", 8086, True),
    ("[::1]:8086", "::1", 8086, True),
    ("[::1]:8086", "::1", 8087, False),
    ("0:0:0:0:0:0:0:1", "::1", 8086, True),
    ("fd00::/8", "fd12::5", 8086, True),
    ("[fd00::]/8", "fd12::5", 8086, True),
    ("[fd00::/8]:8086", "fd12::5", 8086, True),
    ("fd00::/8", "fe80::5", 8086, False),
    ("10.0.0.0/8", "::ffff:10.1.2.3", 8086, True),
    ("10.0.0.0/33,b.org", "b.org", 8086, True),
    ("10.0.0.0/x", "10.1.2.3", 8086, False),
    ("example.org:x", "example.org", 8086, False),
    (":8086", "example.org", 8086, False),
    (".", "example.org", 8086, False),
    ("http://example.org", "example.org", 8086, False),
]


@pytest.mark.parametrize(("exceptions", "host", "port", "expected"), EXCEPTIONS)
def test_an_exception_is_a_name_a_suffix_an_address_or_a_network(
    exceptions: str, host: str, port: int, expected: bool
) -> None:
    assert is_excepted(host, port, exceptions) == expected


def bits(address: str) -> tuple[int, str]:
    """Return the family of an address and its bits as digits, by the C library."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return family, "".join(f"{byte:08b}" for byte in socket.inet_pton(family, address))


CASES = st.sampled_from([(4, 32), (6, 128)]).flatmap(
    lambda kind: st.tuples(st.ip_addresses(v=kind[0]), st.ip_addresses(v=kind[0]), st.integers(0, kind[1]))  # type: ignore[arg-type]
)


@given(CASES)
@example((ipaddress.ip_address("10.0.0.1"), ipaddress.ip_address("10.0.0.2"), 31))
@example((ipaddress.ip_address("::ffff:0:0"), ipaddress.ip_address("::"), 96))
def test_a_network_holds_the_addresses_with_its_first_bits(case: tuple[Any, Any, int]) -> None:
    network, address, width = case
    ours, theirs = bits(str(address)), bits(str(network))
    mixed = str(
        type(address)(int(ours[1][width:] or "0", 2) | int(theirs[1][:width] or "0", 2) << (len(ours[1]) - width))
    )

    assert is_excepted(mixed, 8086, f"{network}/{width}")
    assert is_excepted(str(address), 8086, f"a.b,{network}/{width}") == (ours[1][:width] == theirs[1][:width])


LABELS = st.text("ab-", min_size=1, max_size=3)
HOSTS = st.lists(LABELS, min_size=1, max_size=4).map(".".join)


@given(
    HOSTS, st.lists(st.tuples(st.sampled_from(["", "."]), HOSTS, st.sampled_from(["", ":80"])).map("".join), max_size=4)
)
def test_names_are_excepted_as_the_standard_library_does(host: str, exceptions: list[str]) -> None:
    text = ", ".join(exceptions)

    assert is_excepted(host, 80, text) == bool(proxy_bypass_environment(f"{host}:80", {"no": text}))


@given(st.text(max_size=30), st.text("ab.:0123456789[]/*%", max_size=20), st.integers(1, 65535))
def test_no_text_is_an_error(exceptions: str, host: str, port: int) -> None:
    assert is_excepted(host, port, exceptions) in (True, False)


def test_a_network_of_the_environment_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "10.0.0.0/8,127.0.0.0/8")
    with RawServer() as server:
        connect(settings(server.url))

    assert server.requests


# --- proxies that do not work ---


def settings(url: str) -> InfluxSettings:
    return InfluxSettings(url=url, bucket="b", token=Secret("t"), timeout_seconds=1.0)


REFUSALS: dict[str, tuple[Script, type[Exception]]] = {
    **{f"{status}": (http(status, "no"), Stopped) for status in (400, 401, 403, 404, 405, 407, 501)},
    **{
        f"{status} of a page": (http(status, "<html>Squid", "Content-Type: text/html"), Stopped)
        for status in (403, 407)
    },
    **{f"{status}": (http(status, "later"), NotConnected) for status in (429, 500, 502, 503, 504)},
    "silent": (Reply(b"", close=True), NotConnected),
    "reset": (Reply(b"", reset=True), NotConnected),
    "slow": (Reply(b"HTTP/1.1 " * 100, drip=True), NotConnected),
    "no http": (Reply(b"SSH-2.0-OpenSSH_9.6\r\n", close=True), NotConnected),
}


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("case", REFUSALS)
@pytest.mark.parametrize("variable", ["HTTP_PROXY", "all_proxy"])
def test_what_a_proxy_does_is_told_with_its_address_and_its_variable(
    monkeypatch: pytest.MonkeyPatch, scheme: str, case: str, variable: str
) -> None:
    reply, expected = REFUSALS[case]
    name = variable.replace("HTTP", scheme.upper())
    with RawServer(ping=None, script=[reply] * 9) as proxy:
        monkeypatch.setenv(name, f"http://{LOGIN}@127.0.0.1:{proxy.port}")
        with pytest.raises((Stopped, NotConnected)) as error:
            connect(settings(f"{scheme}://influx.invalid:8086"))
        report = check(settings(f"{scheme}://influx.invalid:8086"))

    (finding,) = [each for each in report.findings if each.ok is False and each.topic == "server"]
    for text in (str(error.value), finding.text):
        assert f"http://127.0.0.1:{proxy.port} ({name})" in text
        assert "canary" not in text
    assert "influx.invalid:8086" in str(error.value) or scheme == "http"
    if scheme == "https" or case in ("403", "407", "403 of a page", "407 of a page") or expected is NotConnected:
        assert isinstance(error.value, expected)
    if isinstance(error.value, Stopped) and case[:3] in ("403", "407"):
        assert error.value.code == "IFX726"
        assert "NO_PROXY" in (error.value.hint or "")


AWAY: dict[str, Callable[[], str]] = {
    "away": lambda: f"127.0.0.1:{free_ports(1)[0]}",
    "not resolved": lambda: "proxy.invalid:3128",
}


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("case", AWAY)
def test_a_proxy_that_is_away_is_told_apart_from_the_server(
    monkeypatch: pytest.MonkeyPatch, scheme: str, case: str
) -> None:
    where, name = AWAY[case](), f"{scheme}_proxy"
    monkeypatch.setenv(name, f"http://{LOGIN}@{where}")

    with pytest.raises(NotConnected) as error:
        connect(settings(f"{scheme}://influx.invalid:8086"))

    assert str(error.value).startswith(f"cannot connect to the proxy http://{where} ({name})")
    assert "canary" not in str(error.value)


def test_a_server_that_answers_through_a_proxy_is_not_blamed_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """InfluxDB 1.x and 2.x name themselves in every answer."""
    denied = http(403, '{"message":"insufficient permissions for write"}', "X-Influxdb-Version: v2.7.1")
    with RawServer(probe=denied) as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
        with pytest.raises(Stopped) as stopped:
            connect(settings("http://influx.invalid:8086"))

    assert stopped.value.code == "IFX722"


def test_queries_through_a_proxy_are_told_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    from iggyflux.spec import Query

    async def main(url: str) -> None:
        given = InfluxSettings(url=url, bucket="b", org="o", token=Secret("t"), timeout_seconds=1.0, flavor="v2")
        rows = InfluxRows(given, Query("m", None, "flux", (), (), ()), column="time")
        try:
            await rows.connect()
            (await rows.fetch(0, 10)).close()
        finally:
            await rows.close()

    with RawServer(script=[http(403, "<html>Squid", "Content-Type: text/html")] * 9) as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://{LOGIN}@127.0.0.1:{proxy.port}")
        with pytest.raises(Stopped) as stopped:
            asyncio.run(main("http://influx.invalid:8086"))

    assert f"http://127.0.0.1:{proxy.port} (HTTP_PROXY)" in str(stopped.value)
    assert stopped.value.code == "IFX726"


def test_the_variable_is_named_as_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("Http_Proxy", f"socks5://{LOGIN}@127.0.0.1:1")

    with pytest.raises(Stopped, match="Http_Proxy") as stopped:
        connect(settings("http://influx.invalid"))

    assert stopped.value.code == "IFX726"
    assert "canary" not in str(stopped.value)
    assert not [name for name in os.environ if name.lower() == "all_proxy"]
