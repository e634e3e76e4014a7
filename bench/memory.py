"""The largest resident memory of a run to InfluxDB 3, from `log:` and from Iggy, by the kind of messages and of server.

`VmHWM` of the run's process, whose first megabytes are Python and what it imports.  A server that hangs is waited for a
while, and its run is killed then.  `python -m bench memory`; `python -m bench.memory growth 10000000` reads so many
messages with a million different tags instead, and shows what is resident on the way.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from bench import iggy
from bench.influx import KINDS, PIPELINE, serving
from bench.run import BATCH, RUN, fill, messages
from bench.table import Figure, show
from iggyflux.records import Message
from tests.iggy_server import find_server

_STEADY, _WORST = 100, 150
_OF_SERVERS = [kind for kind in KINDS if kind != "bad"]
_SECONDS = 20.0
"""For which a run is watched that does not end."""
_TAGS = 1_000_000


def large(first: int) -> list[Message]:
    """Return a batch of readings with 10 kB of other values beside them."""
    rest = b'{"rest":"' + b"x" * 10_000 + b'",'
    return [Message(rest + message.payload[1:]) for message in messages(first)[: BATCH // 10]]


def long_lines(first: int) -> list[Message]:
    """Return a batch of readings whose lines have 10 kB each."""
    text = b'"state":"' + b"x" * 10_000 + b'"'
    return [Message(message.payload.replace(b'"state":"ok"', text)) for message in messages(first)[: BATCH // 10]]


def many_tags(first: int) -> list[Message]:
    """Return a batch of readings of a million devices."""
    return [
        Message(message.payload.replace(b'"id":"d', b'"id":"%06d' % (number % _TAGS), 1))
        for number, message in enumerate(messages(first), first)
    ]


MESSAGES: dict[str, Callable[[int], list[Message]]] = {
    "170 bytes": messages,
    "10 kB, of which 5 values": large,
    "10 kB, in one field": long_lines,
}


def watched(folder: Path, kind: str, seconds: float) -> Iterator[tuple[float, int, int]]:
    """Yield time, resident and largest resident MB of a run until it ends, or for so many seconds."""
    for file in (folder / "data/.consumers").glob("*"):
        file.unlink()
    with serving(kind) as port:
        (folder / "p.yaml").write_text(PIPELINE.format(port=port))
        command = [sys.executable, "-c", RUN, str(folder / "p.yaml")]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            yield from sizes_of(process, seconds)


def sizes_of(process: subprocess.Popen[bytes], seconds: float) -> Iterator[tuple[float, int, int]]:
    """Yield time, resident and largest resident MB of a process until it ends; it is killed after so many seconds."""
    began = time.monotonic()
    while process.poll() is None:
        status = Path(f"/proc/{process.pid}/status").read_text()
        sizes = [re.search(rf"{name}:\s+(\d+)", status) for name in ("VmRSS", "VmHWM")]
        resident, most = (int(size[1]) // 1024 if size else 0 for size in sizes)
        if most:
            yield time.monotonic() - began, resident, most
        if time.monotonic() - began > seconds:
            process.kill()
        time.sleep(0.05)


def largest(name: str, sizes: Iterable[tuple[float, int, int]]) -> Figure:
    """Return the largest that a process had in memory."""
    most = max(so_far for _, _, so_far in sizes)
    return Figure(name, most, "MB", "", None, f"< {_WORST}", most < _WORST)


def from_iggy(folder: Path) -> Iterator[Figure]:
    """Yield the largest of runs that read from a real Iggy, whose SDK has each message a second time."""
    server = find_server(folder)
    if isinstance(server, str):
        print(f"from iggy: not measured: {server}", file=sys.stderr)
        return
    try:
        server.create_topic("bench", "readings", iggy.PARTITIONS)
        asyncio.run(iggy.fill(server, iggy.COUNT))
        for kind in _OF_SERVERS:
            with serving(kind) as port:
                process = iggy.Bench(server, folder, port).start(kind.replace(" ", "-"), flavor="v3")
                yield largest(f"from iggy, 171 bytes: {kind}", sizes_of(process, _SECONDS))
    finally:
        server.close()


def growth(count: int) -> None:
    """Show what is resident while a run reads `count` messages with a million different tags."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fill(folder, count, many_tags)
        sizes = list(watched(folder, "good", 3600.0))
    figures = [
        Figure(f"after {sizes[at][0]:.0f} s", sizes[at][1], "MB")
        for at in range(len(sizes) // 10, len(sizes), len(sizes) // 10)
    ]
    most = sizes[-1][2]
    figures.append(Figure("largest", most, "MB", "", None, f"< {_STEADY}", most < _STEADY))
    show(f"resident memory over {count:,} messages with {_TAGS:,} tags", figures)


def main() -> None:
    if sys.argv[1:2] == ["growth"]:
        growth(int(sys.argv[2]))
        return
    figures = []
    for name, made in MESSAGES.items():
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            fill(folder, 1_000_000 if made is messages else 200_000, made)
            figures += [largest(f"{name}: {kind}", watched(folder, kind, _SECONDS)) for kind in _OF_SERVERS]
    with tempfile.TemporaryDirectory() as temporary:
        figures += from_iggy(Path(temporary))
    show("largest resident memory of a run to InfluxDB 3", figures)


if __name__ == "__main__":
    main()
