"""`iggyflux state`: shows, checks and copies the state of routes on disk, also while they run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import click

from iggyflux.cli.output import ExitCode, Styled, json_text, note, plural, result, result_line, show_stop, talk
from iggyflux.errors import Stopped
from iggyflux.state.copies import check_pages, check_state, copy_databases, find_files, format_1_of, is_free, read_state
from iggyflux.state.sqlite import SUFFIX
from iggyflux.timestamps import format_rfc3339
from iggyflux.transports.local.log import Log
from iggyflux.transports.local.log_store import FILE, LogStore

_PLACES = click.argument(
    "places", metavar="PATH...", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path)
)
_FORMAT = click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)


@click.group(name="state")
def command() -> None:
    """Show, check or back up the state of routes on disk.

    PATH is a state directory (`state:` of a pipeline), a message log, or one file of them. Routes can run meanwhile.

    \b
    Example:
      iggyflux state show .iggyflux
    """


@command.command(name="show")
@_PLACES
@_FORMAT
def show(places: tuple[Path, ...], form: str) -> int:
    """Show the positions in state directories and logs.

    The exit code is 3 if a file cannot be read; the others are shown.

    \b
    Example:
      iggyflux state show .iggyflux data
      iggyflux state show .iggyflux --format json
    """
    files, refused = _databases(places)
    found = []
    for path in files:
        try:
            found.append(_tree(path))
        except Stopped as error:
            refused.append(error)
    if form == "json":
        result(json_text(found, indent=True) + "\n")
    else:
        for tree in found:
            result_line(Styled(tree["file"], bold=True))
            for line in _lines(tree):
                result_line(f"  {line}")
    return _report(refused)


@command.command(name="check")
@_PLACES
def check(places: tuple[Path, ...]) -> int:
    """Check that state directories and logs can be read: every page, checksum and message.

    The exit code is 1 if a file is damaged or has another format.

    \b
    Example:
      iggyflux state check .iggyflux data
    """
    files, refused = _databases(places)
    for refusal in refused:
        show_stop(refusal)
    bad = len(refused)
    for path in files:
        try:
            if _is_log(path):
                with closing(Log.open(path.parent)) as log:
                    log.check()
                check_pages(path)
            else:
                check_state(path)
        except Stopped as error:
            bad += 1
            show_stop(error)
        else:
            result_line(f"{path}: ok")
    talk(f"{plural(len(files) + len(refused), 'file')}: {bad or 'none'} damaged or of another format")
    return ExitCode.PROBLEMS if bad else ExitCode.OK


@command.command(name="backup")
@click.argument("place", metavar="PATH", type=click.Path(exists=True, path_type=Path))
@click.argument("target", metavar="FOLDER", type=click.Path(file_okay=False, path_type=Path))
def backup(place: Path, target: Path) -> int:
    """Back up a state directory or a log; each copy is a consistent snapshot of its file.

    FOLDER is new or empty; it can be a mount point. After an error it has no files. While a file .unfinished is in
    it, it is not a backup: one is being made, or was killed; the next backup to FOLDER replaces what that left. A new
    FOLDER is made as .FOLDER.unfinished beside it, and renamed.

    The exit code is 3 if a file cannot be copied, and nothing is. It is 3 too if a directory in PATH cannot be read,
    or files have another format; the others are copied.

    To restore a backup, stop the routes and replace their files by those of the backup.

    \b
    Example:
      iggyflux state backup .iggyflux /var/backups/iggyflux-2026-01-31
    """
    if target.exists() and not is_free(target):
        raise click.BadParameter(f"{str(target)!r} is not empty", param_hint="FOLDER")
    files, refused = _databases((place,))
    names = {path: Path(path.name) if path == place else path.relative_to(place) for path in files}
    if names:
        copy_databases(names, target)
    for name in names.values():
        result_line(str(target / name))
    talk(f"copied {plural(len(files), 'file')}")
    return _report(refused)


def _report(refused: list[Stopped]) -> int:
    for refusal in refused:
        show_stop(refusal)
    return ExitCode.STOPPED if refused else ExitCode.OK


def _databases(places: tuple[Path, ...]) -> tuple[list[Path], list[Stopped]]:
    """Return the databases in `places`, and the error of each file of another format and each unreadable folder."""
    refused: list[Stopped] = []
    found: list[Path] = []
    for place in places:
        files = find_files(place, refused.append)
        other_formats = {path: error for path in files if (error := format_1_of(path)) is not None}
        refused += other_formats.values()
        found += [path for path in files if path not in other_formats and (path == place or _is_database(path))]
        for folder in sorted({path.parents[3] for path in files if path.match("*/*/*/*.log")}):
            try:
                LogStore(folder).exists()
            except Stopped as error:
                refused.append(error)
    if not found and not refused:
        note(f"nothing is stored in {', '.join(map(str, places))}")
    return found, refused


def _is_database(path: Path) -> bool:
    return path.suffix == SUFFIX or _is_log(path)


def _is_log(path: Path) -> bool:
    return path.name == FILE


def _tree(path: Path) -> dict[str, Any]:
    """Return the content of a file as JSON."""
    if _is_log(path):
        with closing(Log.open(path.parent)) as log:
            partitions = [
                {
                    "stream": each.stream,
                    "topic": each.topic,
                    "partition": each.partition,
                    "first": log.first(each),
                    "end": log.end(each),
                }
                for each in log.all_partitions()
            ]
        return {"file": str(path), "kind": "log", "bytes": path.stat().st_size, "partitions": partitions}
    state = read_state(path)
    return {
        "file": str(path),
        "kind": state.kind,
        "name": state.name,
        "format": state.format,
        "bytes": path.stat().st_size,
        "record": state.record,
    }


def _lines(tree: dict[str, Any]) -> Iterator[str]:
    """Yield the content of a file as lines of text."""
    if tree["kind"] == "log":
        for each in tree["partitions"]:
            yield f"{each['stream']}/{each['topic']}/{each['partition']}: offsets {each['first']} to {each['end'] - 1}"
        return
    record = tree["record"]
    match tree["kind"]:
        case "log-positions":
            yield f"consumer {tree['name']} of a log"
            for each in record:
                yield f"{each['stream']}/{each['topic']}/{each['partition']}: settled to offset {each['offset']}"
        case "file-position":
            yield f"consumer {tree['name']} of {record['file']}"
            yield f"settled to line {record['line']}, byte {record['position']}"
        case "archive-position":
            yield f"load of {tree['name']} from {record['file']}"
            end = ", its end" if record["is_complete"] else f", left by {left}" if (left := record.get("left")) else ""
            yield f"settled to {plural(record['records'], 'record')}{end}"
        case "cursor":
            yield f"reader {tree['name']}"
            yield f"read to {format_rfc3339(record['done'])}, final to {format_rfc3339(record['checked'])}"
            if record["gap"]:
                start, stop = map(format_rfc3339, record["gap"])
                yield f"backfill {start} to {stop} is not read yet"
            yield f"digests of {plural(sum(each['count'] for each in record['slices']), 'row')}"
        case "series":
            yield f"writer {tree['name']}"
            yield f"{plural(record['series'], 'known series', 'known series')}"
        case kind:
            yield f"{kind} {tree['name']}: {json_text(record)}"
    yield f"format {tree['format']}, {tree['bytes']:,} bytes"
