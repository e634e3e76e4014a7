"""`log:` to InfluxDB over HTTP: render, compress, send.

The server is a process of its own that stores nothing: the figures are those of the run's process.  It accepts
everything here, and does as `KINDS` says for other benchmarks.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from bench.run import BATCH, RUN, fill
from bench.table import Figure, show

COUNT = 1_000_000
ROUNDS = 3
PIPELINE = """\
iggyflux: 1
from: log:data
influxdb: {{url: 'http://127.0.0.1:{port}', flavor: v3, database: bench}}
run: [{{mapping: env.yaml}}]
"""
_MEMORY = "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
_HEAD = b"HTTP/1.1 %b\r\nX-Influxdb-Version: 3.6.0\r\nX-Influxdb-Build: Core\r\nContent-Type: application/json\r\n"
_PING = _HEAD % b"200 OK" + b'Content-Length: 19\r\n\r\n{"version":"3.6.0"}'
_GOOD = _HEAD % b"204 No Content" + b"\r\n"
_REFUSAL = {"error_message": "invalid column type for column 'f'", "line_number": BATCH // 2, "original_line": "env,d"}
_REFUSED = json.dumps({"error": "partial write of line protocol occurred", "data": [_REFUSAL]}).encode()
_BAD = _HEAD % b"400 Bad Request" + b"Content-Length: %d\r\n\r\n%b" % (len(_REFUSED), _REFUSED)


class Run(NamedTuple):
    """The cost of a run: seconds of the clock, CPU seconds of its process, its largest memory in MiB, its requests."""

    wall: float
    cpu: float
    memory: float
    requests: int


_AWAY = _HEAD % b"503 Service Unavailable" + b"Content-Length: 0\r\n\r\n"
_AWAY_SECONDS = 5.0


@dataclass(frozen=True)
class Kind:
    """How a server answers a write: after so many seconds, and with `first` for the first seconds."""

    answer: bytes = _GOOD
    seconds: float = 0.0
    first: bytes | None = None


KINDS = {
    "good": Kind(),
    "bad": Kind(_BAD),
    "slow": Kind(seconds=1.0),
    "hanging": Kind(seconds=3600.0),
    "coming back": Kind(first=_AWAY),
}


async def serve(kind: Kind) -> None:
    """An InfluxDB 3 that stores nothing."""
    began = 0.0

    async def answered() -> bytes:
        nonlocal began
        began = began or time.monotonic()
        await asyncio.sleep(kind.seconds)
        is_first = kind.first is not None and time.monotonic() - began < _AWAY_SECONDS
        return kind.first if is_first and kind.first is not None else kind.answer

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                lower = head.lower()
                if (at := lower.find(b"content-length:")) >= 0:
                    await reader.readexactly(int(lower[at + 15 : lower.index(b"\r\n", at)]))
                writer.write(await answered() if head.startswith(b"POST") else _PING)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, limit=2**22)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@contextmanager
def serving(kind: str) -> Iterator[int]:
    """Start a server of this kind as a process; return its port."""
    command = [sys.executable, "-m", "bench.influx", "serve", kind]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


def run(folder: Path, port: int, count: int) -> Run:
    """One run over the whole log, from its beginning."""
    for old in ("data/.consumers", "dead-letters/env"):
        for file in (folder / old).glob("*"):
            file.unlink()
    (folder / "p.yaml").write_text(PIPELINE.format(port=port))
    done = subprocess.run(
        [sys.executable, "-c", RUN + _MEMORY, folder / "p.yaml"], check=True, capture_output=True, text=True
    )
    measured, memory = (json.loads(line) for line in done.stdout.splitlines())
    assert measured["read"] == count
    return Run(measured["wall"], measured["cpu"], memory / 1024, measured["requests"])


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else COUNT
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fill(folder, count)
        with serving("good") as port:
            good = [run(folder, port, count) for _ in range(ROUNDS)]
    wall, cpu = min(each.wall for each in good), min(each.cpu for each in good)
    rate, memory = count / wall / 1000, max(each.memory for each in good)
    show(
        f"run: log to InfluxDB 3 that keeps nothing, {count:,} lines, best of {ROUNDS}",
        [
            Figure("lines", rate, "k/s", "", None, "≥ 300 k/s", rate >= 300),
            Figure("lines a second of CPU of our process", count / cpu / 1000, "k/s"),
            Figure("CPU a line", cpu * 1e6 / count, "µs"),
            Figure("largest RSS", memory, "MiB"),
        ],
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        try:
            asyncio.run(serve(KINDS[sys.argv[2]]))
        except KeyboardInterrupt:
            sys.exit(0)
    else:
        main()
