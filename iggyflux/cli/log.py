"""`iggyflux log`: fill, read and inspect a message log on disk."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, Final, TypeVar

import click
import msgspec
from msgspec.structs import replace

from iggyflux.authoring.generate import generate_messages
from iggyflux.authoring.sample_bytes import plain_name
from iggyflux.authoring.samples import Coordinates, Sample, SampleError, check_is_text, read_samples, whole_sample
from iggyflux.cli.envelopes import Envelope, SamplesCommand, are_messages, check_whole, envelope_option
from iggyflux.cli.inputs import (
    INPUT_FILE,
    MAPPING_FILE,
    STDIN,
    expression_problem,
    input_name,
    open_input,
    open_mapping,
)
from iggyflux.cli.logs import open_log
from iggyflux.cli.output import ExitCode, flush_results, json_text, note, plural, result, result_line, talk
from iggyflux.disk import has_input
from iggyflux.errors import DocumentError, ExpressionError, IggyfluxError, RecordError
from iggyflux.expressions import Expression, compile_expression
from iggyflux.payloads import FORMATS
from iggyflux.payloads.xml_ import is_begun
from iggyflux.records import Message, Partition
from iggyflux.timestamps import TimestampError, parse_rfc3339
from iggyflux.transports.local.envelopes import default_timestamp_us, envelope_of
from iggyflux.transports.local.log import Log
from iggyflux.values import tag_text

_T = TypeVar("_T")
_BATCH: Final = 1000
_FOLLOW_SECONDS: Final = 0.2
_NS: Final = 1_000_000_000

FOLDER = click.Path(file_okay=False, path_type=Path)


class TopicName(click.ParamType[tuple[str, str]]):
    """`STREAM/TOPIC`."""

    name = "stream/topic"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        stream, slash, topic = str(value).partition("/")
        if not (slash and stream and topic):
            self.fail(f"expected STREAM/TOPIC such as factory/readings, found {value!r}", param, ctx)
        return stream, topic


@click.group(name="log")
def command() -> None:
    """Fill, read and inspect a message log on disk.

    A log is a directory of messages with the coordinates of Iggy (stream, topic, partition, offset), for use without
    a server. `from: log:DIR` in a pipeline file reads it.

    \b
    Example:
      iggyflux log generate mapping.yaml --into data --count 1000
      iggyflux log info data
    """


# --- append ---


@command.command(name="append", cls=SamplesCommand)
@click.argument("folder", metavar="DIR", type=FOLDER)
@click.argument("target", metavar="STREAM/TOPIC", type=TopicName())
@click.argument("file", required=False, type=INPUT_FILE, default=STDIN)
@envelope_option("Lines are messages with headers, id and times, not plain payloads.")
@click.option("--whole", is_flag=True, help="FILE is one payload of any format, for example a csv file.")
@click.option(
    "--partition", type=click.IntRange(min=0), metavar="P", help="The partition to append to (default: round robin)."
)
@click.option("--partitions", type=click.IntRange(min=1), metavar="N", help="Create the topic with N partitions.")
@click.option(
    "--key", metavar="EXPR", help="An expression that selects the partition: messages with the same key stay in order."
)
def append(
    folder: Path,
    target: tuple[str, str],
    file: Path,
    envelope: Envelope,
    whole: bool,
    partition: int | None,
    partitions: int | None,
    key: str | None,
) -> int:
    """Append messages to a topic of a log.

    FILE has one JSON document or text per line. Without FILE, stdin is read, and each line is appended as soon as it is
    read. A binary payload has no lines: it needs `--whole`, or its base64 in an envelope.

    \b
    Example:
      iggyflux log append data factory/readings samples.ndjson --partitions 4 --key device.id
      iggyflux log append data factory/tables pumps.csv --whole
    """
    check_whole(envelope, whole)
    if partition is not None and key is not None:
        raise click.UsageError("--partition and --key are mutually exclusive")

    choose = _key_expression(key) if key is not None else None
    log = Log.open(folder, create=True)
    stream, topic = target
    if partitions is not None:
        log.create_topic(stream, topic, partitions)
    count = 0
    ends: dict[Partition, int] = {}
    samples = _read(file, Coordinates(stream, topic), envelope, whole)
    for batch in _batches(samples, _stdin_is_idle) if file == STDIN else _batches(samples):
        keys = [_key_of(choose, sample) for sample in batch] if choose is not None else None
        messages = [_arriving_now(sample.message) for sample in batch]
        ends.update(log.append(stream, topic, messages, partition=partition, keys=keys))
        count += len(batch)
    log.close()
    places = ", ".join(
        f"{place.partition}@{end - 1}" for place, end in sorted(ends.items(), key=lambda i: i[0].partition)
    )
    talk(f"appended {plural(count, 'message')} to {stream}/{topic}" + (f": now at {places}" if places else ""))
    return ExitCode.OK


def _read(file: Path, coordinates: Coordinates, envelope: Envelope, whole: bool) -> Iterator[Sample]:
    with open_input(file) as lines:
        if whole:
            if (plain := plain_name(file.name)) != file.name:
                note(
                    f"{file} is expanded because of its name; give it the name {plain} to append its bytes as they are"
                )
            yield from whole_sample(lines.read(is_text=False), coordinates)
        else:
            has_coordinates = are_messages(lines, envelope)
            for index, sample in enumerate(read_samples(lines, coordinates, envelope=has_coordinates)):
                if not has_coordinates:
                    _check_is_text(sample, file)
                    if not index and is_begun(sample.message.payload):
                        note("each line is a message; if the file is one XML document, append it with --whole")
                yield sample


def _check_is_text(sample: Sample, file: Path) -> None:
    """Raise UsageError for a line of a binary payload."""
    try:
        check_is_text(sample)
    except SampleError as error:
        raise click.UsageError(f"{input_name(file)}:{error.line}: {error.reason} ({error.hint})") from error


def _batches(items: Iterable[_T], is_idle: Callable[[], bool] = lambda: False) -> Iterator[list[_T]]:
    """Yield samples or messages in batches; a batch ends early if the input `is_idle`, so that no sample waits."""
    batch: list[_T] = []
    for item in items:
        batch.append(item)
        if len(batch) == _BATCH or is_idle():
            yield batch
            batch = []
    if batch:
        yield batch


def _stdin_is_idle() -> bool:
    """Return whether a read from stdin would block; False if stdin has no file descriptor."""
    try:
        return not has_input(sys.stdin.fileno(), 0)
    except (OSError, ValueError):
        return False


def _arriving_now(message: Message) -> Message:
    """Return the message without the default times of samples."""
    if message.timestamp_us != default_timestamp_us(message.offset):
        return message
    return replace(message, timestamp_us=0, origin_timestamp_us=0)


def _key_expression(text: str) -> Expression:
    try:
        return compile_expression(text)
    except ExpressionError as error:
        raise DocumentError([expression_problem(error)]) from error


def _key_of(expression: Expression, sample: Sample) -> str | None:
    try:
        document = FORMATS["json"].decode(sample.message.payload, {}, None, False)
        return tag_text(expression.evaluate(document, sample.message))
    except RecordError as error:
        raise IggyfluxError(f"{sample}: cannot evaluate the key: [{error.code}] {error.reason}") from error


# --- tail ---


@command.command(name="tail")
@click.argument("folder", metavar="DIR", type=FOLDER)
@click.argument("target", metavar="STREAM/TOPIC", type=TopicName())
@click.option(
    "-n",
    "count",
    type=click.IntRange(min=0),
    metavar="N",
    default=10,
    show_default=True,
    help="Print the last N messages of each partition.",
)
@click.option("--partition", type=click.IntRange(min=0), metavar="P", help="Only this partition.")
@click.option(
    "--envelope", is_flag=True, help="Print messages with coordinates and headers, as dry-run --envelope reads them."
)
@click.option("--follow", "-f", is_flag=True, help="Print new messages as they are appended, until interrupted.")
def tail(folder: Path, target: tuple[str, str], count: int, partition: int | None, envelope: bool, follow: bool) -> int:
    """Print the last messages of a topic, one payload per line.

    \b
    Example:
      iggyflux log tail data factory/readings -n 5
      iggyflux log tail data factory/readings --envelope | iggyflux dry-run mapping.yaml - --envelope
    """
    log = open_log(folder)
    stream, topic = target
    if not log.partitions(stream, [topic]):
        known = ", ".join("/".join(place) for place in log.topics()) or "nothing"
        raise click.UsageError(f"no topic {stream}/{topic} in {folder}; it has {known}")
    # One reader a partition, for what is there and for what comes: between two of them something could be missed.
    readers = [
        log.reader(place, max(log.end(place) - count, log.first(place)))
        for place in log.partitions(stream, [topic])
        if partition is None or place.partition == partition
    ]
    for reader in readers:
        _print_messages(reader.read(count), envelope)
    while follow:
        messages = [message for reader in readers for message in reader.read(_BATCH)]
        _print_messages(messages, envelope)
        if not messages:
            time.sleep(_FOLLOW_SECONDS)
    return ExitCode.OK


def _print_messages(messages: Sequence[Message], envelope: bool) -> None:
    unprintable = 0
    for message in messages:
        if envelope:
            result(envelope_line(message))
            continue
        is_line = b"\n" not in message.payload and _is_text(message.payload)
        unprintable += not is_line
        result(message.payload + b"\n" if is_line else ascii(message.payload) + "\n")
    flush_results()
    if unprintable:
        note(
            f"{plural(unprintable, 'payload')} with binary data or line breaks: use --envelope to print them unchanged"
        )


def _is_text(payload: bytes) -> bool:
    try:
        payload.decode()
    except UnicodeDecodeError:
        return False
    return True


def envelope_line(message: Message) -> bytes:
    """Return the message as a line of NDJSON; its payload is JSON, text or base64, the first that fits."""
    tree: dict[str, Any] = dict(envelope_of(message))
    payload = message.payload
    if b"\n" not in payload and _is_text(payload):
        del tree["payload_base64"]
        try:
            msgspec.json.decode(payload, type=msgspec.Raw)
            tree["payload"] = msgspec.Raw(payload)
        except (msgspec.MsgspecError, RecursionError):
            tree["payload_text"] = payload.decode()
    return msgspec.json.encode(tree) + b"\n"


# --- info ---


@command.command(name="info")
@click.argument("folder", metavar="DIR", type=FOLDER)
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
def info(folder: Path, form: str) -> int:
    """Show the partitions of a log, their offsets and sizes, and how far each consumer is.

    \b
    Example:
      iggyflux log info data
    """
    partitions = open_log(folder).info()
    if form == "json":
        content = [
            {
                "stream": each.partition.stream,
                "topic": each.partition.topic,
                "partition": each.partition.partition,
                "first": each.first,
                "end": each.end,
                "messages": each.end - each.first,
                "bytes": each.size,
                "batches": each.batches,
                "consumers": {
                    name: {"next": next_offset, "behind": each.end - next_offset}
                    for name, next_offset in sorted(each.consumers.items())
                },
            }
            for each in partitions
        ]
        result(json_text(content, indent=True) + "\n")
        return ExitCode.OK
    rows: list[tuple[str, ...]] = [("partition", "first", "end", "messages", "bytes", "consumers")]
    for each in partitions:
        consumers = ", ".join(
            f"{name} at {offset:,} ({each.end - offset:,} behind)" for name, offset in sorted(each.consumers.items())
        )
        numbers = (each.first, each.end, each.end - each.first, each.size)
        rows.append((str(each.partition), *(f"{number:,}" for number in numbers), consumers))
    for line in _table(rows):
        result_line(line)
    if not partitions:
        note(f"{folder} has no messages")
    return ExitCode.OK


def _table(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """Yield rows with aligned columns; all but the first and the last are numbers, aligned to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:-1], widths[1:-1], strict=True)]
        yield "  ".join((*cells, row[-1])).rstrip()


# --- generate ---


@command.command(name="generate")
@click.argument("mapping", type=MAPPING_FILE)
@click.option(
    "--into", "folder", metavar="DIR", type=FOLDER, help="Append to the log DIR, instead of printing payloads."
)
@click.option(
    "--count", type=click.IntRange(min=1), metavar="N", help="Number of messages (default 1000; with --rate unlimited)."
)
@click.option(
    "--rate",
    type=click.FloatRange(min=0, min_open=True),
    metavar="R",
    help="Messages per second, with the current time.",
)
@click.option("--seed", type=int, metavar="N", default=0, show_default=True, help="Seed of the random messages.")
@click.option(
    "--start",
    metavar="TIME",
    help="The first timestamp, RFC 3339 (default 2026-01-01T00:00:00Z; with --rate the current time).",
)
@click.option(
    "--interval", type=click.FloatRange(min=0), metavar="SECONDS", help="Time between two messages (default 1s)."
)
@click.option("--partitions", type=click.IntRange(min=1), metavar="N", help="Create the topic with N partitions.")
@click.option("--envelope", is_flag=True, help="Print messages with coordinates and headers.")
def generate(
    mapping: Path,
    folder: Path | None,
    count: int | None,
    rate: float | None,
    seed: int,
    start: str | None,
    interval: float | None,
    partitions: int | None,
    envelope: bool,
) -> int:
    """Generate random messages that a mapping accepts.

    They are modelled on the document's examples, or on what the mapping reads: times advance, tags vary, numbers drift.
    Each message renders without a failure. The same mapping and seed generate the same messages.

    \b
    Example:
      iggyflux log generate mapping.yaml --into data --count 100000 --partitions 4
      iggyflux log generate mapping.yaml --into data --rate 50
    """
    document = open_mapping(mapping)
    interval_ns = round((interval if interval is not None else 1 / rate if rate else 1.0) * _NS)
    start_ns = _start_ns(start, live=rate is not None)
    endless = generate_messages(
        document, seed=seed, start_ns=start_ns, interval_ns=interval_ns, overlap=rate is not None
    )
    messages: Iterator[Message] = islice(endless, count if count is not None else None if rate else 1000)
    batches = _paced(messages, rate) if rate is not None else _batches(messages)
    if folder is None:
        for batch in batches:
            for message in batch:
                result(envelope_line(message) if envelope else message.payload + b"\n")
            flush_results()
        return ExitCode.OK
    _append_generated(batches, folder, partitions)
    return ExitCode.OK


def _start_ns(start: str | None, *, live: bool) -> int:
    if start is None:
        return time.time_ns() if live else 1_767_225_600 * _NS
    try:
        return parse_rfc3339(start)
    except TimestampError as error:
        raise click.BadParameter(str(error), param_hint="--start") from error


def _paced(messages: Iterator[Message], rate: float) -> Iterator[list[Message]]:
    """Yield `messages` as they are due, not faster than `rate` a second."""
    begun = time.monotonic()
    number = 0
    while True:
        due = min(int((time.monotonic() - begun) * rate) + 1 - number, _BATCH)
        if due <= 0:
            time.sleep(max(begun + number / rate - time.monotonic(), 0))
            continue
        batch = list(islice(messages, due))
        if not batch:
            return
        number += len(batch)
        yield batch


def _append_generated(batches: Iterable[list[Message]], folder: Path, partitions: int | None) -> None:
    """Append each message to the topic that it names: examples of a mapping may name several."""
    batches = iter(batches)
    first = next(batches, None)  # before the log is made: a mapping without possible messages leaves no empty log
    log = Log.open(folder, create=True)
    counts: Counter[tuple[str, str]] = Counter()
    try:
        for batch in chain([first] if first else [], batches):
            topics: dict[tuple[str, str], list[Message]] = {}
            for message in batch:
                topics.setdefault((message.stream, message.topic), []).append(message)
            for (stream, topic), part in topics.items():
                if partitions is not None and not counts[stream, topic]:
                    log.create_topic(stream, topic, partitions)
                log.append(stream, topic, part)
                counts[stream, topic] += len(part)
    finally:
        log.close()
        for (stream, topic), count in sorted(counts.items()):
            talk(f"appended {plural(count, 'message')} to {stream}/{topic} in {folder}")
