"""`iggyflux status`: what the routes of a pipeline have settled and read, from files alone, whether or not they run."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict
from operator import itemgetter
from pathlib import Path
from typing import Any

import click

from iggyflux.archives.job import state_folder
from iggyflux.archives.progress import LoadProgress, running_loads
from iggyflux.archives.source import archive_positions
from iggyflux.cli.inputs import MAPPING_FILE, open_pipeline
from iggyflux.cli.live_lines import of_input
from iggyflux.cli.output import ExitCode, Line, Styled, json_text, plural, result, result_line, show_stop
from iggyflux.cursors import cursor_state
from iggyflux.delivery.settled import Interval, SettledOffsets, gaps
from iggyflux.disk import remedy
from iggyflux.errors import Stopped
from iggyflux.escapes import escaped
from iggyflux.lineprotocol import Dialect
from iggyflux.pipeline import TopicAddress
from iggyflux.records import Partition
from iggyflux.runner.factories import dead_letters_folder, make_ledger
from iggyflux.runner.open import PreparedRoute, prepare_routes
from iggyflux.runner.settled_ledger import read_ledgers
from iggyflux.runner.setup import WriterSetup
from iggyflux.runner.status import InputStatus
from iggyflux.state.copies import read_state
from iggyflux.state.sqlite import SUFFIX
from iggyflux.timestamps import format_rfc3339
from iggyflux.transports.local.letter_marks import count_letters

_MOST_GAPS = 10
_MOST_SHARE = 0.99
"""Of a file that is not read to its end: it may have grown, or end with what is settled."""
_COUNTS = {
    "messages": "messages",
    "points": "points",
    "dead_letters": "dead_letters",
    "dropped": "dropped",
    "without_points": "skipped",
}
"""The counts of an interval, as they are called here and there."""
_RARE = "undeclared"
"""A count that is shown only where it is not 0."""


@click.command(name="status")
@click.argument("pipeline", type=MAPPING_FILE)
@click.option("--mapping", "only", multiple=True, metavar="NAME", help="Only the route of this name; can be repeated.")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
def command(pipeline: Path, only: tuple[str, ...], form: str) -> int:
    """Show what the routes of a pipeline have settled, also while none runs.

    For each writer the intervals of settled offsets, with their counts and the gaps between them, as the ledger has
    them, the loads that run now, with the time at which they end, and the files that were loaded; for each reader how
    far it has read; the number of dead letters, and how many of them were replayed. It reads files only. The exit code
    is 3 if a file cannot be used; the others are shown.

    \b
    Example:
      iggyflux status pipeline.yaml
      iggyflux status pipeline.yaml --mapping factory-env --format json
    """
    code = ExitCode.OK
    trees = []

    def failed(error: Stopped) -> None:
        nonlocal code
        show_stop(error)
        code = ExitCode.STOPPED

    prepared_routes = prepare_routes(open_pipeline(pipeline), only=only)
    by_name = {prepared.setup.name: prepared for prepared in prepared_routes}
    for prepared in prepared_routes:
        try:
            trees.append(_tree(prepared, failed))
        except Stopped as error:
            failed(error)
    if form == "json":
        result(json_text(trees, indent=True) + "\n")
    else:
        for tree in trees:
            for line in _lines(tree):
                result_line(*line)
            if tree.get("ledger", "") is None and (why := _why_nothing(by_name[tree["route"]], tree)):
                result_line(f"  {why}")
    return code


def _tree(prepared: PreparedRoute, failed: Callable[[Stopped], None]) -> dict[str, Any]:
    setup = prepared.setup
    state, letters = setup.pipeline.state, setup.item.dead_letters
    made: dict[str, Any] = {"route": setup.name, "kind": setup.kind, "mapping": setup.mapping.name}
    if isinstance(letters, TopicAddress):
        made["dead_letters"] = made["replayed_letters"] = None
    else:
        counts = _count_letters(letters or dead_letters_folder(setup), failed)
        made["dead_letters"], made["replayed_letters"] = counts
    if setup.kind == "writer":
        folder = state_folder(setup.pipeline)
        made["running_loads"] = [*map(_running_load, running_loads(folder, setup.name, failed))]
        made["loads"] = [*_loads(archive_positions(folder, setup.name), failed)]
    if isinstance(state, TopicAddress):
        return made
    if setup.kind == "reader":
        record = _record(cursor_state(state, setup.name))
        made["cursor"] = None if record is None else _cursor(record)
        return made
    ledger = read_ledgers(state, setup.name)
    tags, precision = dict(setup.item.tags), setup.influxdb.precision
    plans = {setup.mapping.identity(dialect=dialect.value, precision=precision, tags=tags) for dialect in Dialect}
    return {**made, "ledger": None if ledger is None else _ledger(ledger, plans)}


def _loads(folder: Path, failed: Callable[[Stopped], None]) -> Iterator[dict[str, Any]]:
    """Yield how far each file is loaded; call `failed` for a position that cannot be used.

    `share` is 1 only for a file that was read to its end, and None where it is not known, as of a compressed file.
    `left` is the code of the reason for which the last load left the file; None if it did not.
    """
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        try:
            record = read_state(path).record
        except Stopped as error:
            failed(error)
            continue
        sought, size = record["sought"][0], record["size"]
        share = 1.0 if record["is_complete"] else min(sought / size, _MOST_SHARE) if sought and size else None
        left = record.get("left") or None  # files of older versions do not have it
        yield {"file": record["file"], "records": record["records"], "share": share, "left": left}


def _running_load(found: LoadProgress) -> dict[str, Any]:
    read = InputStatus(found.bytes, found.bytes_total, found.seconds_left)
    times = {"end": _time(found.end_unix), "measured": _time(found.unix)}
    return {"pid": found.pid, **read.as_dict(), **times, "waiting_for": found.waiting_for}


def _time(unix: float | None) -> str | None:
    return None if unix is None else format_rfc3339(round(unix) * 10**9)


def _why_nothing(prepared: PreparedRoute, tree: dict[str, Any]) -> str:
    """Return why a writer has no ledger; empty if none is expected, as loads keep their own positions."""
    is_loaded = tree["loads"] or tree["running_loads"]
    if not prepared.setup.pipeline.names_state:
        return "" if is_loaded else "no ledger: name a folder as `state` in the pipeline, and run the route"
    assert isinstance(prepared.setup, WriterSetup)  # noqa: S101
    has_one = make_ledger(prepared.setup, prepared.source) is not None
    if has_one:
        return "`run` has settled nothing yet" if is_loaded else "nothing is settled yet"
    return "" if is_loaded else "no ledger: messages of standard input and envelopes have none"


def _record(state: Any) -> Any:
    try:
        return state.read()
    finally:
        state.close()


def _count_letters(place: Path, failed: Callable[[Stopped], None]) -> tuple[int | None, int | None]:
    """Return the number of letters in a folder, and of replayed ones; None, and call `failed`, if that is unknown."""
    try:
        return count_letters(place)
    except FileNotFoundError:
        return 0, 0
    except OSError as error:
        reason = f"cannot count the dead letters in {place}: {error.strerror}"
        failed(Stopped(reason, remedy(error), "IFX717"))
    except Stopped as error:
        failed(error)
    return None, None


def _cursor(record: dict[str, Any]) -> dict[str, Any]:
    gap = record["gap"]
    return {
        "done": format_rfc3339(record["done"]),
        "final": format_rfc3339(record["checked"]),
        "backfill": None if gap is None else [format_rfc3339(each) for each in gap],
    }


def _ledger(found: SettledOffsets, plans: Collection[str]) -> dict[str, Any]:
    places: dict[Partition, list[Interval]] = {}
    intervals = []
    for (place, plan), all_of in found.intervals().items():
        places.setdefault(place, []).extend(all_of)
        whose = {**asdict(place), "plan": plan, "is_plan_of_today": plan in plans}
        for each in all_of:
            counts = {name: getattr(each, of) for name, of in _COUNTS.items()}
            rare = {_RARE: each.undeclared} if each.undeclared else {}
            intervals.append({**whose, "first": each.first, "last": each.last, **counts, **rare})
    between = [
        {**asdict(place), "first": first, "last": last}
        for place, all_of in places.items()
        for first, last in gaps(all_of)
    ]
    order = itemgetter("stream", "topic", "partition", "first")
    return {
        "intervals": sorted(intervals, key=order),
        "gaps": sorted(between, key=order),
        "forgotten": found.forgotten,
    }


def _lines(tree: dict[str, Any]) -> Iterator[Line]:
    yield Styled(tree["route"], bold=True), f"  ({tree['kind']}, mapping {tree['mapping']})"
    if tree["dead_letters"]:
        replayed = f", {tree['replayed_letters']:,} of them replayed" if tree["replayed_letters"] else ""
        yield (f"  {plural(tree['dead_letters'], 'dead letter')} kept{replayed}",)
    yield from _KINDS[tree["kind"]](tree)


def _lines_of_reader(tree: dict[str, Any]) -> Iterator[Line]:
    cursor = tree.get("cursor")
    if cursor is None:
        yield ("  nothing is stored",)
        return
    yield (f"  read to {cursor['done']}, final to {cursor['final']}",)
    if cursor["backfill"]:
        yield (f"  backfill {' to '.join(cursor['backfill'])} is not read yet",)


def _lines_of_loads(loads: Sequence[dict[str, Any]]) -> Iterator[Line]:
    whole = [each for each in loads if each["share"] == 1]
    if whole:
        yield (f"  {plural(len(whole), 'file')} loaded, {plural(sum(each['records'] for each in whole), 'record')}",)
    begun = [each for each in loads if each["share"] != 1]
    for each in begun[:_MOST_GAPS]:
        share = "" if each["share"] is None else f", {each['share']:.0%}"
        left = "" if each["left"] is None else f" ({each['left']})"
        yield (f"  load of {each['file']}: {plural(each['records'], 'record')} settled{share}, not finished{left}",)
    if (more := len(begun) - _MOST_GAPS) > 0:
        yield (f"  … and {plural(more, 'more file')} not loaded to the end",)


def _line_of_running(load: dict[str, Any]) -> str:
    waits = load["waiting_for"]
    read = of_input(InputStatus(load["bytes"], load["bytes_total"], None if waits else load["seconds_left"]))
    parts = list(read) if load["bytes_total"] else ["nothing is read yet"]
    if waits:
        parts.append(f"waits for {escaped(waits)}")
    elif load["end"] is not None:
        parts.append(f"ends about {load['end']}")
    return f"  load in process {load['pid']}: {', '.join(parts)}"


def _lines_of_writer(tree: dict[str, Any]) -> Iterator[Line]:
    for load in tree.get("running_loads", ()):
        yield (_line_of_running(load),)
    yield from _lines_of_loads(tree.get("loads", ()))
    ledger = tree.get("ledger")
    if ledger is None:
        return
    counted = (*_COUNTS, _RARE) if any(_RARE in each for each in ledger["intervals"]) else (*_COUNTS,)
    head = ("partition", "offsets", *(key.replace("_", " ") for key in counted))
    rows = [head, *(_row(each, counted) for each in ledger["intervals"])]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for place, *counts in rows:
        yield (f"  {place.ljust(widths[0])}  " + "  ".join(map(str.rjust, counts, widths[1:])),)
    for gap in ledger["gaps"][:_MOST_GAPS]:
        yield Styled("  gap", "yellow"), f" in {_place(gap)}: offsets {_span(gap)}"
    if (more := len(ledger["gaps"]) - _MOST_GAPS) > 0:
        yield (f"  … and {plural(more, 'more gap')}",)
    if ledger["gaps"]:
        yield (
            "  a gap was settled just before a kill of its process, or by another one, or is kept no more; see `audit`",
        )
    if not all(each["is_plan_of_today"] for each in ledger["intervals"]):
        yield ("  * settled by another plan: the mapping has changed since",)
    if ledger["forgotten"]:
        yield (f"  {plural(ledger['forgotten'], 'older interval')} not kept",)


_KINDS = {"reader": _lines_of_reader, "writer": _lines_of_writer}


def _row(each: dict[str, Any], counted: Sequence[str]) -> tuple[str, ...]:
    mark = "" if each["is_plan_of_today"] else "*"
    return (_place(each), _span(each) + mark, *(f"{each.get(key, 0):,}" for key in counted))


def _place(each: dict[str, Any]) -> str:
    return str(Partition(each["stream"], each["topic"], each["partition"]))


def _span(each: dict[str, Any]) -> str:
    return str(each["first"]) if each["first"] == each["last"] else f"{each['first']}–{each['last']}"
