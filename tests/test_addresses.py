"""Addresses of Iggy before the SDK sees them, and credentials that are sent without encryption."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from iggyflux.errors import NotConnected, PipelineError, Problem, Stopped
from iggyflux.pipeline import IggySettings, Pipeline, Secret, parse_pipeline
from iggyflux.pipeline.addresses import (
    PORTS,
    AddressFault,
    is_loopback,
    parse_connection_string,
    parse_iggy_address,
)
from iggyflux.transports.iggy.connection import Connection, _client
from tests.transports.test_schemes import close, reset, says, serving

GOOD = {
    "127.0.0.1:8090": "127.0.0.1:8090",
    "localhost": "localhost:8090",
    "iggy": "iggy:8090",
    "Iggy.example.org.": "Iggy.example.org:8090",
    "iggy_server-1:65535": "iggy_server-1:65535",
    " 127.0.0.1:1 ": "127.0.0.1:1",
    "::1": "[::1]:8090",
    "[::1]": "[::1]:8090",
    "[fd00::2]:9": "[fd00::2]:9",
    "2001:db8::a": "[2001:db8::a]:8090",
    "tcp://127.0.0.1:9": "127.0.0.1:9",
    "TCP://h:9/": "h:9",
    "iggy://h": "h:8090",
    "iggy+tcp://[::1]:9": "[::1]:9",
}


@pytest.mark.parametrize("text", GOOD)
def test_an_address_is_completed_where_only_one_thing_can_be_meant(text: str) -> None:
    assert parse_iggy_address(text, "tcp", tls=False) == GOOD[text]


@pytest.mark.parametrize("transport", PORTS)
def test_the_port_is_that_of_the_transport(transport: Any) -> None:
    assert parse_iggy_address("h", transport, tls=False) == f"h:{PORTS[transport]}"


BAD = {
    "127.0.0.1:0": "port",
    "127.0.0.1:70000": "port",
    "127.0.0.1:x": "port",
    "127.0.0.1:": "port",
    "127.0.0.1:-1": "port",
    "127.0.0.1:８０": "port",
    ":8090": "no host",
    "8090": "neither",
    "300.0.0.1:8090": "neither",
    "::1:8090": "unclear",
    "2001:db8::1:2": "unclear",
    "::g": "IPv6",
    "[127.0.0.1]:8090": "IPv6",
    "[::1]8090": "IPv6",
    "http://h:3000": "contradicts `transport: tcp`",
    "https://h": "contradicts `transport: tcp`",
    "iggy+quic://h": "contradicts `transport: tcp`",
    "kafka://h": "scheme",
    "h:1,g:1": "more than",
    "h:1/path": "more than",
    "h:1?tls=true": "more than",
    "a b": "more than",
    "me:canary@h:1": "user name or password",
    "iggy://me:canary@h:1": "user name or password",
}


@pytest.mark.parametrize("text", BAD)
def test_a_wrong_address_is_a_problem_with_a_place_and_a_hint(text: str, tmp_path: Path) -> None:
    (problem,) = problems({"iggy": {"address": text, "username": "u", "password": "${P}"}}, tmp_path)

    assert (problem.code, problem.location.pointer) == ("IFX809", "/iggy/address")
    assert BAD[text] in problem.message
    assert problem.hint
    assert "canary" not in repr(problem.as_dict())


@pytest.mark.parametrize(
    ("scheme", "transport", "tls", "words"),
    [
        ("https", "http", False, "tls: true"),
        ("http", "http", True, "tls: false"),
        ("wss", "websocket", False, "tls: true"),
        ("https", "http", True, None),
        ("http", "http", False, None),
        ("ws", "websocket", False, None),
    ],
)
def test_a_scheme_agrees_with_tls(scheme: str, transport: Any, tls: bool, words: str | None) -> None:
    if words is None:
        assert parse_iggy_address(f"{scheme}://h:1", transport, tls=tls) == "h:1"
    else:
        with pytest.raises(AddressFault) as fault:
            parse_iggy_address(f"{scheme}://h:1", transport, tls=tls)
        assert words in (fault.value.hint or "")


@given(st.text(st.sampled_from("abz09.:[]/%@-_ üx\n"), max_size=20), st.sampled_from(list(PORTS)))
@example("[::1%eth0]:1", "tcp")
@example("fe80::1%1", "tcp")
def test_what_is_accepted_is_a_host_and_a_port_for_the_sdk(text: str, transport: Any) -> None:
    """It accepts `host:port`, and IPv6 addresses in brackets only."""
    try:
        address = parse_iggy_address(text, transport, tls=False)
    except AddressFault:
        return
    host, _, port = address.rpartition(":")
    assert 0 < int(port) < 65536
    if ":" in host:
        assert host[0] + host[-1] == "[]"
        ipaddress.IPv6Address(host[1:-1])
    assert parse_iggy_address(address, transport, tls=False) == address
    assert "the `iggy` section cannot be used" not in refused_by_the_sdk(address, transport)


def refused_by_the_sdk(address: str, transport: Any) -> str:
    """Return the words with which the SDK refuses an address when a client is made; it connects to nothing."""
    settings = IggySettings(address=address, transport=transport, username="u", password=Secret("p"))
    try:
        _client(settings)
    except (ValueError, RuntimeError) as error:
        return f"the `iggy` section cannot be used: {error}"
    return ""


STRINGS = {
    "iggy://u:canary@localhost": "iggy://u:canary@localhost:8090",
    "iggy+tcp://u:canary@h:9?tls=true&nodelay=true": "iggy+tcp://u:canary@h:9?tls=true&nodelay=true",
    "iggy+http://u:canary@h": "iggy+http://u:canary@h:3000",
    "iggy+ws://canary@127.0.0.1": "iggy+ws://canary@127.0.0.1:8092",
    " iggy+quic://u:canary@127.0.0.1/\n": "iggy+quic://u:canary@127.0.0.1:8080",
}


@pytest.mark.parametrize("text", STRINGS)
def test_a_connection_string_is_completed(text: str) -> None:
    assert parse_connection_string(text).text == STRINGS[text]
    assert "canary" not in repr(parse_connection_string(text))
    _client(IggySettings(connection_string=Secret(STRINGS[text])))  # the SDK accepts it


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("tcp://u:canary@h:1", "unknown scheme"),
        ("u:canary@h:1", "unknown scheme"),
        ("iggy://h:1", "no login"),
        ("iggy://u:canary@h:70000", "port"),
        ("iggy://u:canary@[::1]:1", "IPv6"),
        ("iggy://u:canary@::1", "IPv6"),
        ("iggy://u:canary@", "no host"),
    ],
)
def test_a_wrong_connection_string_is_a_problem(text: str, words: str, tmp_path: Path) -> None:
    (problem,) = problems({"iggy": {"connection_string": text}}, tmp_path)

    assert (problem.code, problem.location.pointer) == ("IFX809", "/iggy/connection_string")
    assert words in problem.message
    assert problem.hint
    assert "canary" not in repr(problem.as_dict())


# --- credentials without encryption ---


def loaded(document: dict[str, Any], folder: Path) -> Pipeline:
    (folder / "m.yaml").touch()
    whole = {"iggyflux": 1, "from": "log:data", "to": "stdout", "run": [{"mapping": "m.yaml"}], **document}
    return parse_pipeline(json.dumps(whole), file=folder / "p.yaml", environ={"P": "pass-canary"})


def problems(document: dict[str, Any], folder: Path) -> list[Problem]:
    with pytest.raises(PipelineError) as error:
        loaded(document, folder)
    return list(error.value.problems)


def warned(document: dict[str, Any], folder: Path) -> list[tuple[str, str]]:
    return [(each.code, each.location.pointer) for each in loaded(document, folder).warnings]


TOKEN = {"bucket": "b", "token": "${P}"}
LOGIN = {"database": "b", "username": "u", "password": "${P}"}
HEADER = {"bucket": "b", "headers": {"X-Api-Key": "${P}"}}
REMOTE = "http://influx.example.org:8086"


@pytest.mark.parametrize(
    "section",
    [
        {"url": REMOTE, **TOKEN},
        {"url": REMOTE, **LOGIN},
        {"url": REMOTE, **HEADER},
        {"url": "http://[2001:db8::1]:8086", **TOKEN},
        {"url": "http://127.0.0.1.example.org", **TOKEN},
        {"url": "http://localhost.example.org", **TOKEN},
        {"url": "http://10.0.0.1", **TOKEN},
    ],
)
def test_credentials_over_http_to_another_host_are_a_warning(section: dict[str, Any], tmp_path: Path) -> None:
    assert warned({"influxdb": section}, tmp_path) == [("IFX817", "/influxdb/url")]
    assert warned({"influxdb": {**section, "allow_unencrypted": True}}, tmp_path) == []


@pytest.mark.parametrize(
    "section",
    [
        {"url": REMOTE, "bucket": "b"},
        {"url": REMOTE, "bucket": "b", "headers": {"X-Scope-OrgID": "acme"}},
        {"url": "https://influx.example.org", **TOKEN},
        {"url": "http://localhost:8086", **TOKEN},
        {"url": "http://LOCALHOST.:8086", **TOKEN},
        {"url": "http://127.1.2.3", **TOKEN},
        {"url": "http://[::1]:8086", **TOKEN},
        {"url": "http://influx.localhost", **TOKEN},
        TOKEN,
    ],
)
def test_what_nobody_else_can_read_is_no_warning(section: dict[str, Any], tmp_path: Path) -> None:
    assert warned({"influxdb": section}, tmp_path) == []


def test_the_warning_is_at_the_url_of_the_route(tmp_path: Path) -> None:
    document = {
        "influxdb": TOKEN,
        "run": [{"mapping": "m.yaml"}, {"mapping": "m.yaml", "name": "two", "influxdb": {"url": REMOTE}}],
    }

    assert warned(document, tmp_path) == [("IFX817", "/run/1/influxdb/url")]


IGGY = {"address": "iggy.example.org:8090", "username": "u", "password": "${P}"}


@pytest.mark.parametrize(
    ("more", "codes"),
    [
        ({}, ["IFX817"]),
        ({"transport": "http"}, ["IFX817"]),
        ({"transport": "websocket"}, ["IFX817"]),
        ({"transport": "quic"}, []),
        ({"tls": True}, []),
        ({"allow_unencrypted": True}, []),
        ({"address": "localhost"}, []),
        ({"address": "::1"}, []),
        ({"connection_string": "iggy://u:p@iggy.example.org:1"}, ["IFX814", "IFX817"]),
        ({"connection_string": "iggy://u:p@iggy.example.org:1?tls=true"}, ["IFX814"]),
        ({"connection_string": "iggy+quic://u:p@iggy.example.org:1"}, ["IFX814"]),
        ({"connection_string": "iggy://u:p@localhost"}, ["IFX814"]),
    ],
)
def test_iggy_is_treated_alike(more: dict[str, Any], codes: list[str], tmp_path: Path) -> None:
    assert sorted(code for code, _ in warned({"iggy": {**IGGY, **more}}, tmp_path)) == codes


@given(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).map(str))
@example("::ffff:127.0.0.1")
@example("127.255.255.255")
@example("128.0.0.0")
def test_loopback_is_what_the_standard_says(text: str) -> None:
    """RFC 1122: 127/8; RFC 4291: ::1, and IPv4 in IPv6."""
    number, is_4 = int(ipaddress.ip_address(text)), "." in text and ":" not in text
    expected = number >> 24 == 127 if is_4 else number == 1 or number >> 24 == (0xFFFF << 8) + 127

    assert is_loopback(text) == expected


# --- what is connected to is another protocol ---


@pytest.mark.parametrize(
    ("tls", "otherwise", "hint"),
    [
        (False, close, "transport: http"),
        (False, says(b"\x2a\x00\x00\x00\x00\x00\x00\x00"), "transport: http"),
        (True, close, "tls: true"),
        (True, reset, "tls: true"),
        (True, says(b"\x15\x03\x03\x00\x02\x02\x46"), "tls: true"),
    ],
)
def test_a_port_that_speaks_another_protocol_is_named(
    tls: bool, otherwise: Callable[[socket.socket], None], hint: str
) -> None:
    with serving(tls=tls, otherwise=otherwise) as server:
        address = f"127.0.0.1:{server.port}"
        settings = IggySettings(address=address, username="u", password=Secret("p"), timeout_seconds=2)
        with pytest.raises(Stopped) as stopped:
            asyncio.run(Connection(settings).open())

    assert hint in (stopped.value.hint or "")
    assert "password`" not in str(stopped.value)


@pytest.mark.parametrize("exceptions", [None, "127.0.0.0/8"])
def test_a_proxy_before_iggy_is_named(monkeypatch: pytest.MonkeyPatch, exceptions: str | None) -> None:
    """The SDK uses it for http."""
    for name in ("http_proxy", "all_proxy", "no_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTP_PROXY", "http://me:canary@127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", exceptions or "")
    settings = IggySettings(address="127.0.0.1:2", transport="http", username="u", password=Secret("p"))

    with pytest.raises(NotConnected) as error:
        asyncio.run(Connection(settings).open())

    assert ("http://127.0.0.1:1 (HTTP_PROXY)" in str(error.value)) == (exceptions is None)
    assert "canary" not in str(error.value)


def test_the_usual_port_of_another_transport_is_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = IggySettings(address="127.0.0.1:8090", transport="http", username="u", password=Secret("p"))

    with pytest.raises(NotConnected, match="8090 is the usual port of tcp"):
        asyncio.run(Connection(settings, client=lambda _: Refusing()).open())


class Refusing:
    """An SDK's client that reaches nothing."""

    async def connect(self) -> None:
        raise RuntimeError("Cannot establish connection")

    async def logout_user(self) -> None:
        pass
