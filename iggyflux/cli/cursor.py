"""`iggyflux cursor`: shows how far readers have read, and moves it after confirmation."""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import click

from iggyflux.cli.inputs import MAPPING_FILE, open_pipeline
from iggyflux.cli.output import ExitCode, Line, Styled, ask, json_text, note, plural, result, result_line, talk
from iggyflux.cursors import CursorStore, StoredCursor
from iggyflux.delivery.windows import ReadPosition
from iggyflux.errors import Stopped
from iggyflux.runner import ReaderRoute
from iggyflux.runner.open import open_routes
from iggyflux.timestamps import TimestampError, format_rfc3339, parse_rfc3339

_NAME = click.option("--mapping", "name", required=True, metavar="NAME", help="The route of the reader.")
_YES = click.option("--yes", is_flag=True, help="Do not ask for confirmation.")


@click.group(name="cursor")
def cursor() -> None:
    """Show or change how far readers have read.

    \b
    Example:
      iggyflux cursor show pipeline.yaml
    """


@cursor.command(name="show")
@click.argument("pipeline", type=MAPPING_FILE)
@click.option("--mapping", "only", multiple=True, metavar="NAME", help="Only this reader; can be repeated.")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
def show(pipeline: Path, only: tuple[str, ...], form: str) -> int:
    """Show how far each reader of a pipeline has read.

    Running readers are not affected. If `state` is a topic, the positions are read from Iggy.

    \b
    Example:
      iggyflux cursor show pipeline.yaml
      iggyflux cursor show pipeline.yaml --mapping env-history --format json
    """
    for store in _stores(pipeline, only):
        with closing(store):
            found = store.read()
        if form == "json":
            result(json_text(_tree(store, found)) + "\n")
        else:
            for line in _lines(store, found):
                result_line(*line)
    return ExitCode.OK


@cursor.command(name="set")
@click.argument("pipeline", type=MAPPING_FILE)
@_NAME
@click.option("--at", required=True, metavar="TIME", help="The time from which to read, as RFC 3339.")
@_YES
def set_(pipeline: Path, name: str, at: str, yes: bool) -> int:
    """Continue a reader from another time.

    All rows from that time on are read. Rows that were already sent are sent again with the same ids. Earlier rows that
    were not read yet are skipped. Stop the reader first.

    \b
    Example:
      iggyflux cursor set pipeline.yaml --mapping env-history --at 2026-01-31T12:00:00Z
    """
    try:
        time = parse_rfc3339(at)
    except TimestampError as error:
        raise click.BadParameter(f"{error} (for example 2026-01-31T12:00:00Z)", param_hint="--at") from error
    (store,) = _stores(pipeline, [name])
    with closing(store):
        store.take()
        before, _ = _stored(store)
        if before is not None and before.position.gap is not None and before.position.gap[0] < time:
            gap = (before.position.gap[0], min(before.position.gap[1], time))
            note(f"the backfill of {format_rfc3339(gap[0])} to {format_rfc3339(gap[1])} is dropped")
        was = "nothing is stored" if before is None else f"now at {format_rfc3339(before.position.done)}"
        _ask(f"{name}: continue from {format_rfc3339(time)} ({was})?", yes)
        store.replace(StoredCursor(store.query, ReadPosition(time, time)))
        found = store.read()
    for line in _lines(store, found):
        result_line(*line)
    return ExitCode.OK


@cursor.command(name="reset")
@click.argument("pipeline", type=MAPPING_FILE)
@_NAME
@_YES
def reset(pipeline: Path, name: str, yes: bool) -> int:
    """Delete the position of a reader: it begins again at `start`.

    Rows that were already sent are sent again with the same ids. Stop the reader first.

    \b
    Example:
      iggyflux cursor reset pipeline.yaml --mapping env-history
    """
    (store,) = _stores(pipeline, [name])
    with closing(store):
        store.take()
        before, is_there = _stored(store)
        was = "cannot be read" if before is None else f"is at {format_rfc3339(before.position.done)}"
        if not is_there:
            talk(f"{name}: nothing is stored")
            return ExitCode.OK
        _ask(f"{name}: delete the position, which {was}?", yes)
        store.replace(None)
    talk(f"{name}: position deleted")
    return ExitCode.OK


def _stores(path: Path, only: tuple[str, ...] | list[str]) -> list[CursorStore]:
    """Return the cursor stores of the readers of a pipeline."""
    routes = open_routes(open_pipeline(path), only=tuple(only))
    readers = [route for route in routes if isinstance(route, ReaderRoute)]
    for route in routes:
        if only and route not in readers:
            raise click.UsageError(f"{route.name!r} is a writer: its positions are stored with its messages")
    if not readers:
        raise click.UsageError(f"{path} has no readers")
    return [route.store for route in readers]


def _stored(store: CursorStore) -> tuple[StoredCursor | None, bool]:
    """Return the stored cursor (None if it is missing or unusable) and whether anything is stored."""
    try:
        found = store.read()
    except Stopped as error:
        if error.code != "IFX701":
            raise
        note(error.reason)
        return None, True
    return found, found is not None


def _ask(question: str, yes: bool) -> None:
    if yes:
        return
    if sys.stdin is None or not sys.stdin.isatty():
        raise click.UsageError(f"{question} cannot ask without a terminal: add --yes")
    ask(question)


def _tree(store: CursorStore, found: StoredCursor | None) -> dict[str, Any]:
    made: dict[str, Any] = {"name": store.name, "stored": found is not None}
    if found is None:
        return made
    gap = found.position.gap
    return {
        **made,
        "done": format_rfc3339(found.position.done),
        "final": format_rfc3339(found.position.checked),
        "backfill": None if gap is None else [format_rfc3339(time) for time in gap],
        "remembered": sum(each.count for each in found.slices),
        "query": found.query,
        "fits": found.query == store.query,
    }


def _lines(store: CursorStore, found: StoredCursor | None) -> list[Line]:
    """Return the cursor as lines of text."""
    tree = _tree(store, found)
    if found is None:
        return [(f"{store.name}: nothing is stored; the reader begins at `start`",)]
    lines: list[Line] = [(Styled(store.name, bold=True),), (f"  read to     {tree['done']}",)]
    if tree["backfill"]:
        lines.append((f"  backfill    {tree['backfill'][0]} to {tree['backfill'][1]} is not read yet",))
    lines.append((f"  final to    {tree['final']}   (later times are read again for late and changed points)",))
    lines.append((f"  digests of  {plural(tree['remembered'], 'row')}",))
    lines.append((f"  query       {_query(found)}",))
    if not tree["fits"]:
        lines.append(("              ", Styled("not the current query of the mapping", "yellow")))
    return lines


def _query(found: StoredCursor) -> str:
    query = found.query
    what = query.get("measurement") or query.get("statement")
    where = query.get("where")
    return f"{what} in {query.get('place')}" + (f", where {json_text(where)}" if where else "")
