"""`iggyflux dry-run` of a reader: a file of rows, and the messages that would be sent."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from iggyflux.cli.inputs import open_input, sample_problem
from iggyflux.cli.output import ExitCode, flush_results, json_text, note, plural, result, styled_problem, talk

if TYPE_CHECKING:
    from iggyflux.mapping import Mapping
    from iggyflux.records import OutgoingMessage
    from iggyflux.samples import SampleRow


def dry_run_reader(mapping: Mapping, samples: str | None, *, form: str, limit: int | None, rows: str | None) -> int:
    """Print what comes of rows, a message a line; failures on stderr, with a summary."""
    from iggyflux.cli.dry_run import failure_problem

    chosen = list(islice(_rows(mapping, samples, rows), limit))
    plan: Any = mapping.plan()
    rendered = plan.render([sample.row for sample in chosen])
    for message, origin in zip(rendered.messages, rendered.origins, strict=True):
        line = message_dict(mapping, message)
        result(json_text({"sample": chosen[origin].line, **line} if form == "json" else line) + "\n")
    flush_results()
    for failure in rendered.failures:
        place = click.style(f"row {chosen[failure.index].line}", bold=True)
        talk(f"{place}: {styled_problem(failure_problem(mapping, failure))}")
    summary = {"rows": len(chosen), "messages": len(rendered.messages), "failures": len(rendered.failures)}
    if form == "json":
        result(json_text({"summary": summary}) + "\n")
    else:
        failed = f", {plural(len(rendered.failures), 'failure')}" if rendered.failures else ""
        talk(f"{plural(len(chosen), 'row')}: {plural(len(rendered.messages), 'message')}{failed}")
    return ExitCode.PROBLEMS if rendered.failures else ExitCode.OK


def message_dict(mapping: Mapping, message: OutgoingMessage) -> dict[str, Any]:
    """A message as JSON: where it goes, key, headers, time, and its payload as readable as it can be."""
    import msgspec

    assert mapping.reader is not None  # noqa: S101
    target = mapping.reader.target
    made: dict[str, Any] = {"stream": target.stream, "topic": target.topic, "id": str(message.id)}
    known = (("key", message.key), ("headers", dict(message.headers) or None), ("timestamp_ns", message.timestamp_ns))
    made.update((name, value) for name, value in known if value is not None)
    if target.payload == "json":
        made["payload"] = msgspec.json.decode(message.payload)
        return made
    try:
        made["payload_text"] = message.payload.decode()
    except UnicodeDecodeError:
        from base64 import b64encode

        made["payload_base64"] = b64encode(message.payload).decode("ascii")
    return made


def _rows(mapping: Mapping, samples: str | None, form: str | None) -> Iterator[SampleRow]:
    from iggyflux.samples import SampleError, read_rows

    assert mapping.reader is not None  # noqa: S101
    measurement = mapping.reader.source.measurement or ""
    if samples is None:
        yield from _example_rows(mapping, measurement)
        return
    path = Path(samples)
    with open_input(path) as lines:
        try:
            chosen = form or ("csv" if path.suffix == ".csv" else "jsonl")
            yield from read_rows(lines, form=chosen, measurement=measurement)
        except SampleError as error:
            raise sample_problem(error, path) from error


def _example_rows(mapping: Mapping, measurement: str) -> Iterator[SampleRow]:
    from iggyflux.examples import example_rows
    from iggyflux.samples import SampleRow

    if not mapping.examples:
        raise click.UsageError(f"{mapping.document.file} has no examples: name a file of rows, or - for stdin")
    note(f"no rows given: these are the document's own {plural(len(mapping.examples), 'example')}")
    for number, tree in enumerate(mapping.examples, 1):
        for row in example_rows(tree, measurement):
            yield SampleRow(number, row)
