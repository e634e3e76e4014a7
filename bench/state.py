"""Storing: messages of a log against a plain file of lines, and a reader's digests against a set in memory.

Measured in CPU time: the time of the disk depends on the machine.
"""

from __future__ import annotations

import io
import os
import random
import tempfile
import time
from contextlib import closing
from pathlib import Path

from bench.table import Figure, best_seconds, show
from iggyflux.records import Message, Partition
from iggyflux.state.sqlite import SqliteState
from iggyflux.transports.local.log import Log

BATCH = 1000
BATCHES = 200
ROWS = 200_000
DIGEST_BYTES = 16
APPEND_FLOOR = 1_000_000
READ_FLOOR = 3_000_000
DIGEST_GOAL = 0.65
PLACE = Partition("factory", "readings", 0)


def measure_log(folder: Path) -> list[float]:
    """Return the best times of appending to a file and to a log, and of reading both."""
    payloads = [b'{"device":"d%d","t":21.5,"x":"%s"}' % (number, b"y" * 120) for number in range(BATCH)]
    messages = [Message(payload) for payload in payloads]
    lines = folder / "lines.ndjson"
    log = Log.open(folder / "log", create=True)

    def append_lines() -> None:
        with lines.open("wb", buffering=0) as file:
            for _ in range(BATCHES):
                file.write(b"\n".join(payloads) + b"\n")
                os.fsync(file.fileno())

    def append() -> None:
        for _ in range(BATCHES):
            log.append(PLACE.stream, PLACE.topic, messages, partition=PLACE.partition)

    def read_lines() -> None:
        with lines.open("rb") as file:
            for _ in file:
                pass

    def read() -> None:
        reader, left = log.reader(PLACE, 0), BATCH * BATCHES
        while left:
            left -= len(reader.read(min(5000, left)))

    with closing(log):
        return best_seconds([append_lines, append, read_lines, read], 5, time.process_time)


def measure_digests(folder: Path) -> list[float]:
    """Return the best times of making a set of digests, of storing them, and of loading them."""
    chance = random.Random(1)
    digests = [chance.randbytes(DIGEST_BYTES) for _ in range(ROWS)]
    state = SqliteState(folder / "state.sqlite", "bench", "bench", "the benchmark")
    state.take()

    def into_a_set() -> None:
        set(digests)

    def store() -> None:
        state.commit(1, added={1: io.BytesIO(b"".join(digests))})

    def load() -> None:
        for piece in state.blob(1):
            {piece[at : at + DIGEST_BYTES] for at in range(0, len(piece), DIGEST_BYTES)}

    with closing(state):
        return best_seconds([into_a_set, store, load], 5, time.process_time)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        file_append, append_seconds, file_read, read_seconds = measure_log(Path(folder))
        as_set, stored, loaded = measure_digests(Path(folder))
    count = BATCH * BATCHES
    appended, found = count / append_seconds, count / read_seconds
    micro = 1e6 / ROWS
    kept = (stored + loaded) * micro
    show(
        "keeping, by the time of the processor",
        [
            Figure("lines of a file, appended", count / file_append / 1e6, "M msg/s"),
            Figure(
                "log, appended",
                appended / 1e6,
                "M msg/s",
                "lines of a file",
                file_append / append_seconds,
                ">= 1 M msg/s",
                appended >= APPEND_FLOOR,
            ),
            Figure("lines of a file, read", count / file_read / 1e6, "M msg/s"),
            Figure(
                "log, read",
                found / 1e6,
                "M msg/s",
                "lines of a file",
                file_read / read_seconds,
                ">= 3 M msg/s",
                found >= READ_FLOOR,
            ),
            Figure("digests into a set", as_set * micro, "µs a row"),
            Figure("digests of a slice, stored", stored * micro, "µs a row", "a set", stored / as_set),
            Figure(
                "digests of a slice, stored and loaded",
                kept,
                "µs a row",
                "a set",
                (stored + loaded) / as_set,
                f"<= {DIGEST_GOAL} µs a row",
                kept <= DIGEST_GOAL,
            ),
        ],
    )


if __name__ == "__main__":
    main()
