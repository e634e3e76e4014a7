"""An InfluxDB 1.x that accepts everything and stores nothing, as cheaply as Python can: a process of its own."""

from __future__ import annotations

import asyncio
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


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            lower = head.lower()
            if (at := lower.find(b"content-length:")) >= 0:
                await reader.readexactly(int(lower[at + 15 : lower.index(b"\r\n", at)]))
            writer.write(_QUERY if b"/query" in head.split(b"\r\n", 1)[0] else _PING)
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
