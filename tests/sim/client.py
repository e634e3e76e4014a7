"""A client that hides nothing: one connection a call, unprocessed replies, and raw sockets."""

from __future__ import annotations

import http.client
import importlib.util
import json
import socket
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import urlencode

import pytest

from iggyflux.sim import SimServer

needs_datafusion = pytest.mark.skipif(
    importlib.util.find_spec("datafusion") is None, reason="DataFusion is not installed (extra sim)"
)
WRITES = {
    1: "/write?db=test",
    2: "/api/v2/write?org=org&bucket=test",
    3: "/api/v3/write_lp?db=test&precision=nanosecond",
}
"""The write path of each dialect for lines in nanoseconds."""


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def text(self) -> str:
        return self.body.decode()


def call(
    server: SimServer | int, method: str, target: str, body: bytes | str = b"", headers: Mapping[str, str] | None = None
) -> Reply:
    """Send one request; header names of the reply are in lower case."""
    port = server if isinstance(server, int) else server.port
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        data = body.encode() if isinstance(body, str) else body
        connection.request(method, target, None if method in ("GET", "HEAD") else data, dict(headers or {}))
        response = connection.getresponse()
        return Reply(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())
    finally:
        connection.close()


def write(server: SimServer, lines: bytes | str) -> Reply:
    return call(server, "POST", WRITES[server.dialect], lines)


def influxql(server: SimServer, statement: str, **more: str) -> Any:
    """Return the results of a statement, times in nanoseconds."""
    query = urlencode({"q": statement, "db": "test", "epoch": "ns", **more})
    return call(server, "GET", f"/query?{query}").json["results"]


def rows(server: SimServer, statement: str) -> list[list[Any]]:
    """Return the rows of the first series of a statement."""
    series = influxql(server, statement)[0].get("series", [])
    return series[0]["values"] if series else []


def sql(server: SimServer, statement: str, **parameters: Any) -> list[dict[str, Any]]:
    body = json.dumps({"db": "test", "q": statement, "format": "jsonl", "params": parameters})
    reply = call(server, "POST", "/api/v3/query_sql", body)
    assert reply.status == 200, reply
    return [json.loads(line) for line in reply.body.splitlines()]


def flux(server: SimServer, script: str) -> str:
    body = json.dumps({"query": script, "dialect": {"annotations": ["datatype", "group", "default"]}})
    reply = call(server, "POST", "/api/v2/query?org=org", body, {"Content-Type": "application/json"})
    assert reply.status == 200, reply
    return reply.text


def raw(server: SimServer, data: bytes, *, wait: bool = True) -> bytes:
    """Return everything that a socket receives; a reset ends it with `RESET`."""
    received = b""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        try:
            connection.sendall(data)
            while wait and (piece := connection.recv(65_536)):
                received += piece
        except (ConnectionResetError, BrokenPipeError):
            received += b"RESET"
    return received


def post(target: str, body: bytes, *more: str) -> bytes:
    """Return the bytes of a request that closes its connection."""
    head = [f"POST {target} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}", "Connection: close", *more]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body
