"""`iggyflux import`: documents from the configuration of another tool, and a report of what became of it."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from iggyflux.authoring.samples import Coordinates, read_samples, whole_sample
from iggyflux.cli.envelopes import Envelope, SamplesCommand, are_messages, check_whole, envelope_option
from iggyflux.cli.init import write_schema
from iggyflux.cli.inputs import INPUT_FILE, STDIN, input_name, open_input, read_stdin
from iggyflux.cli.log import TopicName
from iggyflux.cli.new_files import new_files
from iggyflux.cli.output import ExitCode, result_line, talk
from iggyflux.disk import named
from iggyflux.documents import read_source
from iggyflux.errors import DocumentError, Location, Problem
from iggyflux.importing import FORMATS, Imported, Options, Verdict, convert
from iggyflux.records import Message

MOST_SAMPLES = 1_000
"""So many messages show which members are lists, and which have numbers in strings."""


@click.command(name="import", cls=SamplesCommand)
@click.argument("format", type=click.Choice(list(FORMATS)), metavar="FORMAT")
@click.argument("file", type=INPUT_FILE)
@click.option(
    "--output",
    "-o",
    type=click.Path(file_okay=False, path_type=Path),
    help="The folder to write into (default: named like FILE, beside it).",
)
@click.option("--topic", type=TopicName(), help="The stream and topic of Apache Iggy, where FILE does not name them.")
@click.option(
    "--topic-header",
    metavar="NAME",
    default="topic",
    show_default=True,
    help="The header of a message that has the topic of its broker.",
)
@click.option("--samples", multiple=True, type=INPUT_FILE, help="Payloads: they show what FILE leaves to each message.")
@envelope_option("Samples are messages with coordinates and headers, not plain payloads.")
@click.option("--whole", is_flag=True, help="Each file of samples is one payload.")
@click.option("--strict", is_flag=True, help="Exit with 1 unless everything was taken as it is.")
@click.option("--force", is_flag=True, help="Overwrite existing files.")
def command(
    format: str,  # noqa: A002  # the word of the command line
    file: Path,
    output: Path | None,
    topic: tuple[str, str] | None,
    topic_header: str,
    samples: tuple[Path, ...],
    envelope: Envelope,
    whole: bool,
    strict: bool,
    force: bool,
) -> int:
    """Convert the configuration of another tool, with a report.

    FORMAT is iggy-influxdb-sink, iggy-influxdb-source, telegraf, mqtt2influxdb or kcql; FILE is a configuration of it,
    or `-` for stdin. The report says of each construct what it became, what is only similar, and what could not be
    taken. Secrets are not copied: they become variables. The mappings validate, and their examples pass; the pipeline
    validates unless the report says what it lacks.

    \b
    Example:
      iggyflux import iggy-influxdb-sink sink.toml --output imported
      iggyflux import telegraf telegraf.conf --samples samples.ndjson --topic plant/readings
    """
    check_whole(envelope, whole)
    if not samples and (envelope or whole):
        raise click.UsageError("--envelope and --whole need --samples")
    stream, name = topic or (None, None)
    messages = _messages(samples, envelope, whole, Coordinates(stream or "my-stream", name or "my-topic"))
    made = convert(format, _source(file), file=input_name(file), options=Options(stream, name, topic_header, messages))
    for line in made.report.text(input_name(file)):
        result_line(line)
    if not made.files:
        hint = f"a mapping is made of {FORMATS[format].reads}; `iggyflux infer SAMPLES` writes one of messages"
        raise DocumentError(
            [Problem("IFX190", "nothing of it can be converted", Location(input_name(file)), hint=hint)]
        )
    _write(made, output or _folder(file), force)
    is_exact = made.report.count(Verdict.TAKEN) == len(made.report.lines)
    return ExitCode.PROBLEMS if strict and not is_exact else ExitCode.OK


def _source(file: Path) -> bytes:
    if file == STDIN:
        return read_stdin()
    try:
        return read_source(file)
    except OSError as error:
        message = f"cannot read the file: {(error.strerror or str(error)).lower()}"
        raise DocumentError([Problem("IFX100", message, Location(str(file)))]) from error


def _messages(files: tuple[Path, ...], envelope: Envelope, whole: bool, coordinates: Coordinates) -> list[Message]:
    messages: list[Message] = []
    for file in files:
        with open_input(file) as lines:
            read = (
                whole_sample(lines.read(is_text=False), coordinates)
                if whole
                else read_samples(lines, coordinates, envelope=are_messages(lines, envelope))
            )
            for sample in read:
                messages.append(sample.message)
                if len(messages) == MOST_SAMPLES:
                    return messages
    return messages


def _folder(file: Path) -> Path:
    if file == STDIN:
        return Path("imported")
    stem = file.with_suffix("")
    return stem if stem != file else file.with_name(f"{file.name}-imported")


def _write(made: Imported, folder: Path, force: bool) -> None:
    with named(folder):
        folder.mkdir(parents=True, exist_ok=True)
    if not force:
        for name in made.files:
            if (folder / name).exists():
                remedy = "choose another folder with --output, or replace it with --force"
                raise click.UsageError(f"{folder / name} already exists: {remedy}")
    for name, text in made.files.items():
        with new_files(folder / name, has_force=True), (folder / name).open("w", encoding="utf-8", newline="\n") as out:
            out.write(text)
        talk(f"wrote {folder / name}")
    for kind in ("mapping", "pipeline"):
        write_schema(kind, folder / f"{kind}-v1.schema.json", force)
    mappings = [name for name in made.files if name != "pipeline.yaml"]
    verb = "test" if any("\nexamples:" in text for text in made.files.values()) else "validate"
    talk(f"try: iggyflux {verb} {' '.join(shlex.quote(str(folder / name)) for name in mappings[:3])}")
