"""An InfluxDB that accepts everything and stores nothing, as cheaply as Python can: a process of its own.

`GET /counted` answers with the lines and bytes that arrived since it was last asked; lines of a compressed body count
as none.
"""

from __future__ import annotations

import asyncio
import json
import sys

_PING = b"HTTP/1.1 204 No Content\r\nX-Influxdb-Version: 1.8.10\r\nX-Influxdb-Build: OSS\r\nContent-Length: 0\r\n\r\n"
_DATABASES = b'{"results":[{"series":[{"name":"databases","columns":["name"],"values":[["bench"]]}]}]}'
_QUERY = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Influxdb-Version: 1.8.10\r\nContent-Length: %d\r\n\r\n%b"
    % (
        len(_DATABASES),
        _DATABASES,
    )
)


_COUNTED = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
_counted = {"lines": 0, "bytes": 0}


def _tell() -> bytes:
    body = json.dumps(_counted).encode()
    _counted.update(lines=0, bytes=0)
    return _COUNTED % (len(body), body)


def _count(body: bytes) -> None:
    if body[:2] != b"\x1f\x8b":
        _counted["lines"] += body.count(b"\n") + (not body.endswith(b"\n"))
    _counted["bytes"] += len(body)


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            lower = head.lower()
            if (at := lower.find(b"content-length:")) >= 0:
                _count(await reader.readexactly(int(lower[at + 15 : lower.index(b"\r\n", at)])))
            target = head.split(b"\r\n", 1)[0]
            writer.write(_QUERY if b"/query" in target else _tell() if b"/counted" in target else _PING)
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def main() -> None:
    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=2**20)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        sys.exit(0)
