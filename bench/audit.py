"""`iggyflux audit`: points a second of CPU, of its own process and of its parts; and what the ledger costs a run.

The store is the simulator in a process of its own, which answers each query in Python: its rate is shown beside.  CPU
counts, and the best of several rounds, so that the figures hold on a busy machine.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from itertools import count
from multiprocessing.queues import Queue
from pathlib import Path

from bench.run import BATCH, MAPPING, fill
from bench.table import Figure, best_seconds, show
from iggyflux.audit.check import Audit
from iggyflux.audit.letters import LetterIndex
from iggyflux.audit.points import Entry
from iggyflux.audit.stored import StoredPoints, StoreFacts
from iggyflux.delivery.settled import Interval, SettledOffsets
from iggyflux.mapping import OnError, WriterMapping, parse_mapping
from iggyflux.pipeline import InfluxSettings
from iggyflux.records import Batch, Partition
from iggyflux.runner.ledger import Job
from iggyflux.runner.settled_ledger import SettledLedger, ledger_state
from iggyflux.sim.server import SimServer
from iggyflux.transports.influxdb.query.source import InfluxWindow
from iggyflux.transports.influxdb.write.sink import InfluxLineSink
from iggyflux.transports.local.log import Log
from iggyflux.transports.local.ranges import LogRange

COUNT = 200_000
ROUNDS = 3


def serve(urls: Queue[str]) -> None:
    """Run a simulator until the process is killed."""
    with SimServer(1, database="factory") as server:
        urls.put(server.url)
        time.sleep(1e6)


class Kept(StoredPoints):
    """The store, whose answers are kept: a second audit asks for none and decodes all."""

    def __init__(self, settings: InfluxSettings) -> None:
        super().__init__(settings, 1)
        self.windows: dict[tuple[int, int], InfluxWindow] = {}

    async def of(self, measurement: str, entries: list[Entry]) -> AsyncIterator[tuple[list[Entry], InfluxWindow]]:
        key = entries[0][0], entries[-1][0]
        if key not in self.windows:
            async for _, window in super().of(measurement, entries):
                window.close = lambda: None  # type: ignore[method-assign]
                self.windows[key] = window
        yield entries, self.windows[key]

    async def facts(self) -> StoreFacts:
        return StoreFacts("v1", 0, None)


async def write(settings: InfluxSettings, mapping: WriterMapping, folder: Path) -> None:
    sink = InfluxLineSink(settings)
    await sink.connect()
    with_log = Log.open(folder / "data")
    for partition in (0, 1):
        reader = with_log.reader(Partition("factory", "readings", partition), 0)
        while messages := reader.read(BATCH):
            await sink.write(mapping.plan(dialect="v1").render(messages).lines)
    await sink.close()


def audit(mapping: WriterMapping, store: StoredPoints, folder: Path) -> tuple[float, float]:
    """Return the seconds of an audit, and those of CPU in this process."""
    made = Audit(
        LogRange(folder / "data", "factory", ["readings"]),
        lambda dialect: mapping.plan(dialect=dialect),
        store,
        LetterIndex(),
        unit_ns=1,
        most_named=0,
    )
    wall, cpu = time.perf_counter(), time.process_time()
    report = asyncio.run(made.run())
    assert report.is_clean
    assert report.compared == report.rendered
    return time.perf_counter() - wall, time.process_time() - cpu


def ledger_costs(mapping: WriterMapping, folder: Path) -> tuple[float, float]:
    """Return the CPU of noting a batch, in shares of its rendering, and that of a write, once a second, in seconds."""
    messages = Log.open(folder / "data").reader(Partition("factory", "readings", 0), 0).read(BATCH)
    rendered, numbers = mapping.plan().render(messages), count()
    state = ledger_state(folder, "bench")
    ledger = SettledLedger("bench", OnError.DEAD_LETTER, state)
    asyncio.run(ledger.connect())
    plan, known = mapping.plan(), SettledOffsets()

    def note() -> None:
        place = Partition("factory", "readings", next(numbers))
        ledger.note([(place, each) for each in ledger.intervals_of(Job(Batch(place, messages), rendered, 0), "p")])

    known.add(Partition("factory", "readings", 0), "p", Interval(0, BATCH))
    rendering, noting, writing = best_seconds(
        [lambda: plan.render(messages), note, lambda: state.commit(known.record())], 20, time.process_time
    )
    state.close()
    return noting / rendering, writing


def main() -> None:
    number = int(sys.argv[1]) if len(sys.argv) > 1 else COUNT
    context = multiprocessing.get_context("spawn")
    urls: Queue[str] = context.Queue()
    server = context.Process(target=serve, args=(urls,), daemon=True)
    server.start()
    mapping = parse_mapping(MAPPING)
    assert isinstance(mapping, WriterMapping)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fill(folder, number)
        settings = InfluxSettings(url=urls.get(), database="factory")
        asyncio.run(write(settings, mapping, folder))
        share, writing = ledger_costs(mapping, folder)
        wall, whole = audit(mapping, StoredPoints(settings, 1), folder)
        store = Kept(settings)
        audit(mapping, store, folder)
        alone = min(audit(mapping, store, folder)[1] for _ in range(ROUNDS))
    server.kill()
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    rate = number / alone / 1e3
    show(
        "audit",
        [
            Figure("points, answers at hand: CPU", rate, "k/s", "", None, "≥ 200", rate >= 200),
            Figure("… a point", alone / number * 1e6, "µs"),
            Figure("points, with the client of queries: CPU", number / whole / 1e3, "k/s"),
            Figure("points, against the simulator: wall clock", number / wall / 1e3, "k/s"),
            Figure("largest resident memory", megabytes, "MB"),
            Figure("ledger, noting a batch", share, "", "its rendering", share, "< 0.01", share < 0.01),
            Figure("ledger, a write, once a second", writing * 1e3, "ms", "", None, "< 10", writing < 0.01),
        ],
    )


if __name__ == "__main__":
    main()
