"""`iggyflux eval`: one expression on JSON documents."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

import click

from iggyflux.authoring.declarations import declared_payload
from iggyflux.authoring.samples import Coordinates, samples_for
from iggyflux.cli.envelopes import Envelope, SamplesCommand, are_messages, check_whole, envelope_option
from iggyflux.cli.eval_session import MOST_SAMPLES, Document, run_session
from iggyflux.cli.inputs import (
    INPUT_FILE,
    MAPPING_FILE,
    STDIN,
    expression_problem,
    input_name,
    open_input,
    open_mapping,
    stdin_is_terminal,
)
from iggyflux.cli.output import ExitCode, Styled, json_text, note, result, show_problem, talk
from iggyflux.cli.sample_files import find_samples
from iggyflux.documents import parse_document
from iggyflux.errors import DecodeError, ExpressionError, RecordError
from iggyflux.expressions import Expression, compile_expression
from iggyflux.expressions.checks import Tables
from iggyflux.payloads import FORMATS, OptionError, expand
from iggyflux.payloads.recognition import explained
from iggyflux.records import JSON, Message
from iggyflux.spec import Payload


@click.command(name="eval", cls=SamplesCommand)
@click.argument("expression", required=False)
@click.argument("file", required=False, type=INPUT_FILE)
@envelope_option("FILE contains messages with coordinates and headers, so that meta() and header() work.", "--message")
@click.option("--whole", is_flag=True, help="FILE is one payload, for example a csv file with its header.")
@click.option("--compact", is_flag=True, help="Print one line per result, also on a terminal.")
@click.option("--raw", is_flag=True, help="Print strings without quotes.")
@click.option(
    "--payload",
    metavar="FORMAT",
    help="The payload format of FILE, as `from.payload` of a mapping (default json); schemas are files of this folder.",
)
@click.option("--mapping", "mapping_file", type=MAPPING_FILE, help="Take tables and payload format from a mapping.")
def command(
    expression: str | None,
    file: Path | None,
    envelope: Envelope,
    whole: bool,
    compact: bool,
    raw: bool,
    payload: str | None,
    mapping_file: Path | None,
) -> int:
    """Evaluate one expression on JSON documents.

    FILE is one JSON document, or one per line; `-` is stdin, which is also the default in a pipe. `root()` is the
    document. `meta()` and `header()` return null without --envelope. On a terminal and without EXPRESSION, you type one
    expression after another; without FILE too, on the samples beside --mapping.

    \b
    Example:
      echo '{"readings": [{"celsius": 21.5}]}' | iggyflux eval 'readings[0].celsius'
      iggyflux eval samples.ndjson
      iggyflux eval "meta('topic')" messages.ndjson --envelope
      iggyflux eval "[0].speed" pumps.csv --payload csv --whole
    """
    check_whole(envelope, whole)
    tables: Tables | None = None
    declared = Payload("json") if payload is None else _declared(payload)
    beside: Path | None = None
    if mapping_file is not None:
        mapping = open_mapping(mapping_file)
        beside = find_samples(mapping_file, mapping.document.text)
        if mapping.kind == "writer":
            tables, source = mapping.writer.tables, mapping.writer.source.payload
            if payload is None:
                declared = source
    read = partial(_documents, declared=declared, envelope=envelope, whole=whole)
    pretty = sys.stdout is not None and sys.stdout.isatty() and not compact

    def written(value: Any) -> str:
        return f"{value}\n" if raw and isinstance(value, str) else json_text(value, indent=pretty) + "\n"

    if expression is None or (file is None and stdin_is_terminal() and _is_file(expression)):
        if not stdin_is_terminal():
            raise click.UsageError("Missing argument 'EXPRESSION'.")
        chosen = beside if expression is None else Path(expression)
        return run_session(list(_session_documents(chosen, read, declared, tables, written)))
    try:
        compiled = compile_expression(expression, tables=tables)
    except ExpressionError as error:
        show_problem(expression_problem(error))
        return ExitCode.PROBLEMS
    for warning in compiled.warnings:
        show_problem(replace(expression_problem(warning), severity="warning"))
    _note_order(expression, file)
    code = ExitCode.OK
    for value in _values(compiled, read(file), declared):
        if value is _FAILED:
            code = ExitCode.PROBLEMS
        else:
            result(written(value))
    return code


def _note_order(expression: str, file: Path | None) -> None:
    """Note that EXPRESSION is the name of a file.  Raise UsageError if FILE is not one."""
    if not _is_file(expression):
        return
    if file is not None and file != STDIN and not file.exists():
        raise click.UsageError(f"{file} is not a file, but {expression} is: the expression comes first")
    note(f"{expression!r} is evaluated as an expression, and is also a file: the expression comes first, then the file")


def _is_file(expression: str) -> bool:
    """Return whether an expression is the name of a file."""
    return len(expression) <= _LONGEST_NAME and Path(expression).is_file()


_LONGEST_NAME = 200
_FAILED = object()


def _declared(payload: str) -> Payload:
    """Return what a text declares, a format or one with its options.  Raise DocumentError if it is not valid."""
    with suppress(OptionError):
        if payload in FORMATS:
            FORMATS[payload].check({})
            return Payload(payload)
    return declared_payload(parse_document(payload, format="yaml").tree, "payload.yaml")


_Documents: TypeAlias = Iterator[tuple[str, Message | None, bool]]
"""Documents with their places, and whether they have coordinates; None if there is no input."""


def _values(expression: Expression, documents: _Documents, declared: Payload) -> Iterator[Any]:
    """Yield the result for each document, or `_FAILED` after reporting a failure."""
    is_constant = expression.reads.is_bare and expression.root_reads.is_bare
    for place, message, has_coordinates in documents:
        if message is None and not is_constant and not stdin_is_terminal():
            note("stdin is empty: the expression is evaluated on null")
        try:
            yield expression.evaluate(_decoded(message, declared), message if has_coordinates else None)
        except RecordError as error:
            _show_failure(place, error)
            yield _FAILED


def _decoded(message: Message | None, declared: Payload) -> JSON:
    """Return the document in a message; null if there is none.  Raise DecodeError."""
    if message is None:
        return None
    content = message.payload
    try:
        content = expand(content, declared.compression)
        return FORMATS[declared.format].decode(content, declared.options, None, False)
    except DecodeError as error:
        raise explained(error, content, declared.format) from None


def _show_failure(place: str, error: RecordError) -> None:
    talk(place, Styled(f"error[{error.code}]", "red", bold=True), f": {error.reason}")
    if error.hint:
        talk("    ", Styled("hint:", "cyan"), f" {error.hint}")


def _session_documents(
    file: Path | None,
    read: Callable[[Path], _Documents],
    declared: Payload,
    tables: Tables | None,
    written: Callable[[Any], str],
) -> Iterator[Document]:
    """Yield the documents of a file for a session, null without a file; what cannot be decoded is reported."""
    found = [("null", None, False)] if file is None else islice(read(file), MOST_SAMPLES)
    count = 0
    for place, message, has_coordinates in found:
        try:
            tree = _decoded(message, declared)
        except RecordError as error:
            _show_failure(place, error)
            continue
        count += 1
        around = message if has_coordinates else None
        yield Document(place.removesuffix(": "), tree, partial(_answer, tree, around, tables, written))
    if not count:
        raise click.UsageError(f"{file} has no sample that can be read")


def _answer(
    tree: JSON, message: Message | None, tables: Tables | None, written: Callable[[Any], str], text: str
) -> str | None:
    """Return the text of an expression's value on a document; None after reporting why there is none."""
    try:
        compiled = compile_expression(text, tables=tables)
        for warning in compiled.warnings:
            show_problem(replace(expression_problem(warning), severity="warning"))
        return written(compiled.evaluate(tree, message))
    except ExpressionError as error:
        show_problem(expression_problem(error))
    except RecordError as error:
        _show_failure("", error)
    return None


def _documents(file: Path | None, declared: Payload, envelope: Envelope, whole: bool) -> _Documents:
    """Yield the documents of a file, of stdin without one; null if that is empty too."""
    if file is None and stdin_is_terminal():
        yield "", None, False
        return
    path = STDIN if file is None else file
    count = 0
    with open_input(path) as lines:
        is_enveloped = not whole and are_messages(lines, envelope)
        found = samples_for(lines, declared, Coordinates(), envelope=is_enveloped, whole=whole)
        for sample in found:
            count += 1
            yield f"{input_name(path)}:{sample.line}: ", sample.message, is_enveloped
    if count:
        return
    if file is None:
        yield "", None, False
    else:
        note(f"{input_name(path)} is empty: there is nothing to evaluate the expression on")
