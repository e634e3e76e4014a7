"""Ray Data as the engine: `render` maps a dataset of payloads to lines, `load_files` loads archives, a file a task.

Ray repeats the task of a worker that dies, and the same file makes the same points.  So a task keeps no position:
what failed comes back with its result, and the caller keeps it, and only then marks the file as loaded.  Neither logins
nor tokens pass through Ray: a worker reads the pipeline file, and its environment.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

import msgspec

from iggyflux.archives.files import find_archives
from iggyflux.archives.job import load_route
from iggyflux.archives.source import Reading
from iggyflux.errors import IggyfluxError, Stopped
from iggyflux.mapping import WriterMapping
from iggyflux.pipeline import load_pipeline
from iggyflux.plan.reads import reads_arrival
from iggyflux.records import DeadLetter, Message
from iggyflux.runner import run_routes
from iggyflux.state.memory import MemoryState
from iggyflux.transports.base import DeadLetterSink
from iggyflux.transports.local.deadletters import encode_letter

BATCH_SIZE: Final = 5000
_MOST_LETTERS: Final = 100_000
_COLUMNS: Final = ("line", "bucket", "code", "reason", "payload")


# --- a dataset of payloads ---


def render(
    dataset: Any,
    mapping: WriterMapping,
    *,
    column: str = "payload",
    dialect: str = "v2",
    precision: str = "ns",
    tags: Mapping[str, str] | None = None,
    batch_size: int = BATCH_SIZE,
) -> Any:
    """Return a `ray.data.Dataset` of what `mapping` makes of the payloads (bytes or text) in `column` of `dataset`.

    A row has a `line` of line protocol (and its `bucket`, if the mapping chooses it), or the `code` and `reason` of a
    failed record with its `payload`; the other columns are null.  Messages have no coordinates and no headers.  Raise
    ValueError if the mapping is a reader, or takes the time of the message.
    """
    if mapping.kind != "writer":
        raise ValueError(f"{mapping.name} is a reader; expected a writer")
    if reads_arrival(mapping.writer):
        raise ValueError(f"{mapping.name} reads the time of the message, and a payload has none")
    more: dict[str, Any] = {"mapping": mapping, "column": column, "dialect": dialect, "precision": precision}
    more["tags"] = dict(tags or {})
    return dataset.map_batches(render_batch, batch_size=batch_size, batch_format="pyarrow", fn_kwargs=more)


def render_batch(
    table: Any, *, mapping: WriterMapping, column: str, dialect: str, precision: str, tags: Mapping[str, str]
) -> Any:
    """Return the lines and failures of a table of payloads, as a table of `render`'s columns."""
    import pyarrow as pa

    payloads = [each if isinstance(each, bytes) else str(each).encode() for each in table.column(column).to_pylist()]
    plan = _plan(mapping, dialect, precision, tuple(sorted(tags.items())))
    rendered = plan.render([Message(payload) for payload in payloads])
    lines, failures = list(rendered.lines), rendered.failures
    none: list[None] = [None] * len(lines)
    columns: dict[str, list[Any]] = {
        "line": lines + [None] * len(failures),
        "bucket": [*(none if rendered.buckets is None else rendered.buckets), *(None for _ in failures)],
        "code": [*none, *(each.code for each in failures)],
        "reason": [*none, *(each.reason_and_hint for each in failures)],
        "payload": [*none, *(payloads[each.index] for each in failures)],
    }
    types = {name: pa.binary() if name == "payload" else pa.string() for name in _COLUMNS}
    return pa.table({name: pa.array(columns[name], types[name]) for name in _COLUMNS})


@lru_cache(maxsize=4)
def _plan(mapping: WriterMapping, dialect: str, precision: str, tags: tuple[tuple[str, str], ...]) -> Any:
    """Return the plan; a worker compiles it once."""
    return mapping.plan(dialect=dialect, precision=precision, tags=dict(tags))


# --- archives ---


class FileJob(msgspec.Struct, frozen=True):
    """One file to load: the pipeline file, the number of its route, the pattern that names the file, and its name."""

    pipeline: str
    route: int
    pattern: str
    name: str


class FileResult(msgspec.Struct):
    """What came of a file; `error` is the code, reason and hint that stopped it."""

    name: str
    read: int = 0
    delivered: int = 0
    letters: list[bytes] = []
    error: tuple[str, str, str | None] | None = None


def load_files(jobs: Sequence[FileJob], reading: Reading, *, address: str | None = None) -> Iterator[FileResult]:
    """Load each file by a task of Ray, and yield the results as they come.

    `address` is that of a cluster; without one a local Ray uses the cores of this machine.  Raise `Stopped` if Ray
    cannot be used.
    """
    try:
        import ray
    except ImportError as error:
        raise Stopped("the package of the engine is not installed", "pip install 'iggyflux[ray]'", "IFX770") from error
    try:
        if not ray.is_initialized():
            quiet = {"include_dashboard": False} if address is None else {}
            ray.init(address=address or "local", log_to_driver=False, logging_level="ERROR", **quiet)
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        ray.data.DataContext.get_current().enable_progress_bars = False
        items = [{"job": msgspec.json.encode(job)} for job in jobs]
        dataset = ray.data.from_items(items, override_num_blocks=len(items))
        done = dataset.map_batches(load_batch, batch_size=1, fn_kwargs={"reading": reading})
        for row in done.iter_rows():
            yield msgspec.json.decode(row["result"], type=FileResult)
    except (ray.exceptions.RayError, ConnectionError) as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        raise Stopped(f"Ray failed: {reason}", "run again: files that were loaded are left out", "IFX770") from error


def load_batch(batch: Mapping[str, Any], reading: Reading) -> dict[str, list[bytes]]:
    """Load the files of a batch, on a worker; what fails is in the result, and raises nothing."""
    results = []
    for text in batch["job"]:
        job = msgspec.json.decode(bytes(text), type=FileJob)
        try:
            result = asyncio.run(_load(job, reading))
        except (IggyfluxError, OSError) as error:
            stop = error if isinstance(error, Stopped) else Stopped(str(error))
            result = FileResult(job.name, error=(stop.code, stop.reason, stop.hint))
        results.append(msgspec.json.encode(result))
    return {"result": results}


async def _load(job: FileJob, reading: Reading) -> FileResult:
    pipeline = load_pipeline(job.pipeline)
    archive = next((each for each in find_archives([job.pattern]) if each.name == job.name), None)
    if archive is None:
        raise Stopped(f"{job.name} is not there on {os.uname().nodename}", "workers read the same paths", "IFX710")
    letters, kept = _Letters(), dict[str, Any]()
    route = load_route(
        pipeline, pipeline.routes[job.route], [archive], reading, state=lambda each: MemoryState(kept, each.key)
    )
    summary = await run_routes([dataclasses.replace(route, dead_letters=letters, series=None)])
    (status,) = summary.routes
    stop = status.error
    error = None if stop is None else (stop.code, stop.reason, stop.hint)
    return FileResult(job.name, status.read, status.delivered, letters.encoded, error)


class _Letters(DeadLetterSink):
    """The dead letters of one file, in memory."""

    def __init__(self) -> None:
        self.encoded: list[bytes] = []

    async def connect(self) -> None:
        """Do nothing: nothing is opened."""

    async def put(self, letters: Sequence[DeadLetter]) -> None:
        """Keep the letters for the result."""
        self.encoded += map(encode_letter, letters)
        if len(self.encoded) > _MOST_LETTERS:
            hint = "correct the mapping: `load --dry-run` shows why records fail; or load the file without --engine ray"
            raise Stopped(f"more than {_MOST_LETTERS:,} records of a file fail", hint, "IFX770")

    async def close(self) -> None:
        """Do nothing: nothing was opened."""
