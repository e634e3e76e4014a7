"""`iggyflux dead-letters export`: messages of dead letters in the forms that other commands read.

Payloads may hold anything, so what is written is its owner's alone, and no file is replaced.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import Final

import click
import msgspec

from iggyflux.authoring.adding import add_example
from iggyflux.cli.letters import KeptLetter, LetterFilter, letter_options, selected_letters
from iggyflux.cli.new_files import new_files
from iggyflux.cli.output import ExitCode, plural, result, talk, warn
from iggyflux.cli.send_again import message_name
from iggyflux.disk import file_name, make_folder, named, open_private, replace_file, write_whole
from iggyflux.documents import format_of, read_source
from iggyflux.escapes import json_escaped
from iggyflux.transports.local.deadletters import encode_letter
from iggyflux.transports.local.envelopes import envelope_of
from iggyflux.transports.local.log import Log

_BATCH: Final = 1000


@click.command(name="export")
@letter_options
@click.argument("out", required=False, type=click.Path(path_type=Path))
@click.option(
    "--as",
    "form",
    type=click.Choice(["messages", "letters", "payloads", "log", "examples"]),
    default="messages",
    show_default=True,
    help="What OUT is: see above.",
)
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Export at most N letters, the oldest ones.")
def command(
    path: Path | tuple[str, str],
    pipeline: Path | None,
    chosen: LetterFilter,
    out: Path | None,
    form: str,
    limit: int | None,
) -> int:
    """Write the messages of dead letters for other commands.

    Payloads are included, and may hold secrets. By --as, OUT is:

    \b
      messages  a file of messages with coordinates: `dry-run MAPPING OUT --envelope`
      letters   a file of dead letters: `replay OUT`, `dead-letters show OUT`
      payloads  a directory with a file for each payload: `dry-run MAPPING FILE --whole`
      log       a message log: `dry-run MAPPING log:OUT`, `from: log:OUT` in a pipeline
      examples  the mapping itself: each message becomes an example of it, secrets masked, with what
                the mapping makes of it now; correct the result, and `test` holds the mapping to it

    Without OUT, messages and letters are printed. No existing file is replaced, but a log is appended to, and a
    mapping gets its examples.

    \b
    Example:
      iggyflux dead-letters export dead-letters/factory-env failed.ndjson --reason IFX340
      iggyflux dead-letters export dead-letters/factory-env mapping.yaml --as examples --limit 1
    """
    if out is None and form not in ("messages", "letters"):
        raise click.UsageError(f"--as {form} needs OUT")
    with selected_letters(path, pipeline, chosen) as letters:
        selected = islice(letters.scan(), limit)
        with nullcontext() if out is None else new_files(out):
            count, code = _WRITERS[form](selected, out)
        talk(f"{plural(count, 'dead letter')} of {letters.name} exported" + (f" to {out}" if out else ""))
        if not letters.count:
            letters.report_replayed()
            letters.report_others()
    return code


def _write_lines(
    line_of: Callable[[KeptLetter], bytes],
) -> Callable[[Iterator[KeptLetter], Path | None], tuple[int, int]]:
    def write(letters: Iterator[KeptLetter], out: Path | None) -> tuple[int, int]:
        count = 0
        if out is None:
            for kept in letters:
                count += 1
                result(line_of(kept) + b"\n")
            return count, ExitCode.OK
        file = open_private(out, os.O_EXCL)
        try:
            for kept in letters:
                count += 1
                with named(out):
                    write_whole(file, line_of(kept) + b"\n")
        finally:
            os.close(file)
        return count, ExitCode.OK

    return write


def _message_line(kept: KeptLetter) -> bytes:
    return json_escaped(msgspec.json.encode(envelope_of(kept.letter.message)).decode()).encode()


def _write_payloads(letters: Iterator[KeptLetter], out: Path | None) -> tuple[int, int]:
    assert out is not None  # noqa: S101
    make_folder(out, 0o700)
    count = 0
    for count, kept in enumerate(letters, 1):
        message = kept.letter.message
        place = f"{message.stream}_{message.topic}_{message.partition}_{message.offset}"
        path = out / f"{count:06d}_{file_name(place)}"
        file = open_private(path, os.O_EXCL)
        try:
            with named(path):
                write_whole(file, message.payload)
        finally:
            os.close(file)
    return count, ExitCode.OK


def _write_log(letters: Iterator[KeptLetter], out: Path | None) -> tuple[int, int]:
    assert out is not None  # noqa: S101
    make_folder(out, 0o700)
    log = Log.open(out, create=True)
    count = 0
    try:
        while chunk := [kept.letter.message for kept in islice(letters, _BATCH)]:
            for stream, topic in dict.fromkeys((message.stream, message.topic) for message in chunk):
                messages = [message for message in chunk if (message.stream, message.topic) == (stream, topic)]
                log.append(stream or "dead", topic or "letters", messages)
            count += len(chunk)
    finally:
        log.close()
    return count, ExitCode.OK


def _add_examples(letters: Iterator[KeptLetter], out: Path | None) -> tuple[int, int]:
    assert out is not None  # noqa: S101
    text, count, code = _text(out), 0, ExitCode.OK
    for kept in letters:
        name = message_name(kept.letter.message)
        added = add_example(
            text, kept.letter.message, format=format_of(str(out)), has_coordinates=True, name=f"dead letter {name}"
        )
        if added is None:
            warn(f"{name} cannot be an example of {out}")
            code = ExitCode.PROBLEMS
        else:
            text, count = added, count + 1
    if count:
        replace_file(out, text.encode())
    return count, code


def _text(path: Path) -> str:
    try:
        return read_source(path).decode("utf-8-sig")
    except OSError as error:
        raise click.UsageError(f"cannot read {path}: {error.strerror}; OUT is the mapping") from error
    except UnicodeDecodeError as error:
        raise click.UsageError(f"{path} is not UTF-8") from error


_WRITERS: Final[dict[str, Callable[[Iterator[KeptLetter], Path | None], tuple[int, int]]]] = {
    "messages": _write_lines(_message_line),
    "letters": _write_lines(lambda kept: encode_letter(kept.exported())),
    "payloads": _write_payloads,
    "log": _write_log,
    "examples": _add_examples,
}
