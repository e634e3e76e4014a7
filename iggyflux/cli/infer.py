"""`iggyflux infer`: a commented mapping from sample messages, proved on them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Final

import click

from iggyflux.archives.parquet import ParquetRows, is_parquet
from iggyflux.authoring.inference import (
    Declared,
    Proposal,
    Recognized,
    Wishes,
    infer,
    recognize_file,
    recognize_payloads,
)
from iggyflux.authoring.samples import Coordinates, SampleError, read_samples
from iggyflux.cli.envelopes import Envelope, SamplesCommand, are_messages, check_whole, envelope_option
from iggyflux.cli.init import write_schema
from iggyflux.cli.inputs import INPUT_FILE, MAPPING_FILE, STDIN, input_name, open_input, stdin_is_terminal
from iggyflux.cli.log import TopicName
from iggyflux.cli.logs import Origin, open_log
from iggyflux.cli.new_files import write_text
from iggyflux.cli.output import ExitCode, note, plural, result, talk, warn
from iggyflux.errors import DocumentError, Location, Problem
from iggyflux.records import Message

MOST_MESSAGES: Final = 10_000
"""So many messages show what the others are like, and are read within seconds."""
_LAST: Final = 1_000
_STREAM: Final = "my-stream"
_SCHEMA: Final = "mapping-v1.schema.json"


@dataclass(frozen=True, slots=True)
class _Input:
    """What was read: the payloads, the messages with their coordinates if they have any, and the names to write."""

    samples: Recognized
    stream: str
    topic: str
    messages: Sequence[Message] = ()


@click.command(name="infer", cls=SamplesCommand)
@click.argument("samples", nargs=-1)
@click.option("--from", "origin", type=Origin(), help="Read the last messages of a topic instead of files.")
@click.option(
    "--last",
    type=click.IntRange(1, MOST_MESSAGES),
    metavar="N",
    help=f"With --from: messages to read (default {_LAST:,}).",
)
@click.option(
    "--pipeline",
    type=MAPPING_FILE,
    help="With --from iggy: the pipeline file with the connection (or set IGGY_ADDRESS, …).",
)
@envelope_option("Samples are messages with coordinates and headers, not plain payloads.")
@click.option("--whole", is_flag=True, help="Each file is one payload.")
@click.option(
    "--payload",
    metavar="FORMAT",
    help="The format of the samples, as `from.payload` of a mapping: '{format: protobuf, proto: FILE, message: TYPE}'.",
)
@click.option(
    "--topic", type=TopicName(), help="The stream and topic to write into the mapping (default: by the file's name)."
)
@click.option("--measurement", metavar="NAME|PATH", help="The measurement: a constant, or a member of the message.")
@click.option("--tag", "tags", multiple=True, metavar="PATH", help="A member that is a tag. May be repeated.")
@click.option("--time", metavar="PATH", help="The member that is the time.")
@click.option(
    "--time-format", metavar="FORMAT", help="Its format: unix_s, unix_ms, …, rfc3339, or such as '%d.%m.%Y %H:%M'."
)
@click.option("--timezone", metavar="ZONE", help="The zone of times without one, such as Europe/Berlin.")
@click.option("--topic-per-type", is_flag=True, help="Each topic has one type of message: its name is the measurement.")
@click.option(
    "--format", "form", type=click.Choice(["yaml", "toml"]), help="Default yaml, or by the extension of --output."
)
@click.option("--output", "-o", type=click.Path(dir_okay=False, path_type=Path), help="Write a file instead of stdout.")
@click.option("--force", is_flag=True, help="Overwrite an existing file.")
def command(
    samples: tuple[str, ...],
    origin: str | None,
    last: int | None,
    pipeline: Path | None,
    envelope: Envelope,
    whole: bool,
    payload: str | None,
    topic: tuple[str, str] | None,
    measurement: str | None,
    tags: tuple[str, ...],
    time: str | None,
    time_format: str | None,
    timezone: str | None,
    topic_per_type: bool,
    form: str | None,
    output: Path | None,
    force: bool,
) -> int:
    """Write a commented mapping from sample messages.

    SAMPLES are files, or `-` for stdin: JSON (a document a line, an array, or documents one after another), CSV, XML,
    MessagePack, CBOR, Avro containers, line protocol, syslog, or text with key=value; rows of a .parquet file are JSON,
    as for `load`. --payload declares another format. With --from they are one STREAM/TOPIC. The mapping validates,
    renders every sample, and has some of them as examples; comments say why, and what else would do.

    \b
    Example:
      iggyflux infer samples.ndjson --output inferred.yaml
      iggyflux infer --from log:data factory/readings --last 500
      iggyflux infer samples.ndjson --tag device.id --time ts --measurement env
    """
    _check(samples, origin, last, pipeline, envelope, whole)
    folder = Path() if output is None else output.parent
    declared = None if payload is None else Declared(payload, str(folder / "inferred.yaml"))
    if origin is not None:
        found = _of_topic(origin, samples, last, pipeline, declared)
    else:
        found = _of_files(samples, envelope, whole, declared)
    stream, name = topic or (found.stream, found.topic)
    wishes = Wishes(stream, name, measurement, tags, time, time_format, timezone, topic_per_type)
    toml = form == "toml" or (form is None and output is not None and output.suffix == ".toml")
    try:
        proposal = infer(found.samples, wishes, messages=found.messages, form="toml" if toml else "yaml")
    except SampleError as error:
        raise _problem(error, samples[0] if samples and origin is None else "") from error
    _tell(proposal)
    return _write(proposal.text("toml" if toml else "yaml"), output, force, toml=toml)


def _check(
    samples: tuple[str, ...],
    origin: str | None,
    last: int | None,
    pipeline: Path | None,
    envelope: Envelope,
    whole: bool,
) -> None:
    check_whole(envelope, whole)
    if origin is None:
        if last is not None or pipeline is not None:
            raise click.UsageError("--last and --pipeline need --from")
        if not samples and stdin_is_terminal():
            raise click.UsageError("name a file of SAMPLES, or - for stdin")
    else:
        if len(samples) != 1:
            raise click.UsageError("--from needs one STREAM/TOPIC, such as factory/readings")
        if envelope or whole:
            raise click.UsageError("--envelope and --whole are for files")
        if pipeline is not None and origin != "iggy":
            raise click.UsageError("--pipeline needs --from iggy")


def _problem(error: SampleError, file: str) -> DocumentError:
    place = Location("<stdin>" if file == "-" else file or "<samples>", error.line, 1 if error.line else 0)
    return DocumentError([Problem(error.code, error.reason, place, hint=error.hint)])


# --- input ---


def _of_files(names: tuple[str, ...], envelope: Envelope, whole: bool, declared: Declared | None) -> _Input:
    recognize = recognize_file if declared is None else declared.file
    paths = [INPUT_FILE.convert(name, None, None) for name in names] or [STDIN]
    topic = re.sub(r"[^A-Za-z0-9_.-]", "_", Path(paths[0].name.split(".")[0]).name) if paths[0] != STDIN else "messages"
    coordinates = Coordinates(_STREAM, topic or "messages")
    messages: list[Message] = []
    read: list[Recognized] = []
    for path in paths:
        with open_input(path) as lines:
            if is_parquet(path.name) and declared is None and not whole and not envelope:
                read.append(recognize_file(_rows_of(path)))
            elif not whole and are_messages(lines, envelope):
                messages += [sample.message for sample in read_samples(lines, coordinates, envelope=True)]
            else:
                read.append(recognize(lines.read(), whole=whole))
    if not messages:
        return _Input(_joined(read, paths), coordinates.stream, coordinates.topic)
    if read:
        raise click.UsageError("some files are messages with coordinates and others are not: infer one kind at a time")
    try:
        of_payloads = recognize_payloads if declared is None else declared.payloads
        return _named(of_payloads([message.payload for message in messages]), messages)
    except SampleError as error:
        raise _problem(error, input_name(paths[0])) from error


def _rows_of(path: Path) -> bytes:
    """Return the first rows of a Parquet file, as lines of JSON, which they are for `load`.  Raise SampleError."""
    with path.open("rb") as file:
        rows = ParquetRows(file, str(path), path.stat().st_size)
        return b"\n".join(row for _, row in islice(rows.records(0), MOST_MESSAGES))


def _named(samples: Recognized, messages: Sequence[Message]) -> _Input:
    first = messages[0]
    return _Input(samples, first.stream or _STREAM, first.topic or "messages", messages)


def _joined(read: Sequence[Recognized], paths: Sequence[Path]) -> Recognized:
    """Return the samples of all files, which have one format."""
    first = read[0]
    for other, path in zip(read, paths, strict=True):
        if (other.format, other.options, other.compression) != (first.format, first.options, first.compression):
            reason = f"{input_name(path)} is {other.how}, but {input_name(paths[0])} is {first.how}"
            place = Location(input_name(path))
            raise DocumentError([Problem("IFX541", reason, place, hint="infer one format at a time")])
    return replace(
        first,
        payloads=[payload for each in read for payload in each.payloads][:MOST_MESSAGES],
        trees=[tree for each in read for tree in each.trees][:MOST_MESSAGES],
        lines=[line for each in read for line in each.lines][:MOST_MESSAGES],
        captures={name: made for each in read for name, made in each.captures.items()},
        has_non_finite=any(each.has_non_finite for each in read),
    )


def _of_topic(
    origin: str, names: tuple[str, ...], last: int | None, pipeline: Path | None, declared: Declared | None
) -> _Input:
    stream, topic = TopicName().convert(names[0], None, None)
    count = last or _LAST
    if origin == "iggy":
        from iggyflux.cli.iggy import iggy_settings, last_of_topic  # loads the SDK (60 ms), only with --from iggy

        messages = last_of_topic(iggy_settings(pipeline), stream, topic, count)
    else:
        log = open_log(Path(origin.removeprefix("log:")))
        if not log.partitions(stream, [topic]):
            known = ", ".join("/".join(place) for place in log.topics()) or "nothing"
            raise click.UsageError(f"no topic {stream}/{topic} in {origin}; it has {known}")
        messages = log.tail(stream, topic, count)
    note(f"the last {plural(len(messages), 'message')} of {stream}/{topic}")
    try:
        of_payloads = recognize_payloads if declared is None else declared.payloads
        samples = of_payloads([message.payload for message in messages])
    except SampleError as error:
        raise _problem(error, names[0]) from error
    kept = [message for message in messages if message.payload.strip()]
    return _Input(samples, stream, topic, kept)


# --- output ---


def _tell(proposal: Proposal) -> None:
    for line in proposal.told:
        note(line)
    for warning in proposal.warnings:
        warn(warning)


def _write(text: str, output: Path | None, force: bool, *, toml: bool) -> int:
    if output is None:
        result(text)
        return ExitCode.OK
    reference = f"#:schema ./{_SCHEMA}\n" if toml else f"# yaml-language-server: $schema=./{_SCHEMA}\n"
    write_text(output, reference + text, force=force)
    talk(f"wrote {output}")
    write_schema("mapping", output.parent / _SCHEMA, force)
    talk(f"try: iggyflux test {output}")
    return ExitCode.OK
