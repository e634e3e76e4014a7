"""`iggyflux dry-run`: prints the lines that a mapping renders from samples, exactly as they would be sent."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, islice, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from iggyflux.authoring.examples import example_message
from iggyflux.authoring.sample_bytes import plain_name
from iggyflux.authoring.samples import NEEDS_ENVELOPE, Coordinates, Sample, SampleError, samples_for
from iggyflux.authoring.series import beyond_limit, count_series
from iggyflux.cli.dry_run_reader import dry_run_live, dry_run_reader
from iggyflux.cli.envelopes import Envelope, SamplesCommand, are_messages, check_whole, envelope_option
from iggyflux.cli.failures import show_failure
from iggyflux.cli.inputs import MAPPING_FILE, STDIN, kind_of_file, open_input, open_mapping, open_pipeline
from iggyflux.cli.logs import open_log
from iggyflux.cli.output import (
    ExitCode,
    Styled,
    flush_results,
    json_text,
    note,
    plural,
    result,
    show_problem,
    talk,
    warn_of_fallback,
)
from iggyflux.cli.printed_lines import PrintedLines
from iggyflux.cli.tags import tags_for
from iggyflux.cli.tally import Tally
from iggyflux.cli.watch import run_on_save
from iggyflux.delivery.series import BEYOND_LIMIT
from iggyflux.editor.evidence import MOST_SAMPLES
from iggyflux.editor.sample_checks import IMPLAUSIBLE_TIME, SOME_FAIL, check_samples
from iggyflux.errors import DocumentError, MappingError, RecordError
from iggyflux.lineprotocol import Precision
from iggyflux.mapping import Mapping, ReaderMapping, Writer, WriterMapping
from iggyflux.payloads import undeclared_fields
from iggyflux.payloads.compression import recognized
from iggyflux.plan.reads import writer_expressions
from iggyflux.records import Failure, Message, is_part_of_file
from iggyflux.timestamps import format_rfc3339
from iggyflux.transports.schemas import AskingPlan, asks_registry, registry_of

if TYPE_CHECKING:
    from iggyflux.transports.registry import SchemaRegistry

_CHUNK: Final = 500
_SHOWN_FAILURES: Final = 50
_LOG_MESSAGES: Final = 10
_MOST_MESSAGES: Final = 10_000
_LIVE_ROWS: Final = 20


@click.command(name="dry-run", cls=SamplesCommand)
@click.argument("mapping", type=MAPPING_FILE)
@click.argument("samples", required=False)
@envelope_option("Samples are messages with coordinates and headers, not plain payloads.")
@click.option("--whole", is_flag=True, help="SAMPLES is one payload, for example a csv file with its header.")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--precision", type=click.Choice(["ns", "us", "ms", "s"]), default="ns", show_default=True)
@click.option("--dialect", type=click.Choice(["v1", "v2", "v3"]), default="v2", show_default=True)
@click.option("--plan", type=click.Choice(["compiled", "reference"]), default="compiled", show_default=True)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    metavar="N",
    help="Read at most N messages (of a log: the last N); with --whole all rows are one.",
)
@click.option(
    "--rows",
    type=click.Choice(["jsonl", "csv"]),
    help="The format of a reader's rows (default: by the file's extension).",
)
@click.option(
    "--from",
    "origin",
    type=click.Choice(["iggy", "influxdb"]),
    help="Read live messages (for a reader: rows) instead; no position is stored.",
)
@click.option(
    "--last",
    metavar="N|TIME",
    help="With --from: messages to read (default 10); for a reader, how far back, e.g. 1h (--limit defaults to 20).",
)
@click.option(
    "--pipeline",
    type=MAPPING_FILE,
    help="Add the tags of this pipeline file; with --from, use its connection (or set IGGY_ADDRESS, …).",
)
@click.option("--watch", is_flag=True, help="Render again whenever the mapping or SAMPLES is saved, until Ctrl-C.")
def command(
    mapping: Path,
    samples: str | None,
    envelope: Envelope,
    whole: bool,
    form: str,
    precision: str,
    dialect: str,
    plan: str,
    limit: int | None,
    rows: str | None,
    origin: str | None,
    last: str | None,
    pipeline: Path | None,
    watch: bool,
) -> int:
    """Show the lines that a mapping renders from sample messages.

    SAMPLES is a file with one payload per line, or one JSON document; `-` is stdin, `log:DIR` a message log. Without
    it the document's examples are used. For a reader, SAMPLES is a file of rows. The lines that would be sent go to
    stdout, failed records and a summary to stderr. The exit code is 1 if a record failed.

    \b
    Example:
      iggyflux dry-run mapping.yaml samples.ndjson
      tail -1 messages.ndjson | iggyflux dry-run mapping.yaml -
      iggyflux dry-run mapping.yaml samples.ndjson --watch
      iggyflux dry-run mapping.yaml --from iggy --last 20 --pipeline pipeline.yaml
      iggyflux dry-run reader.yaml --from influxdb --last 1h --limit 20 --pipeline pipeline.yaml
    """
    check_whole(envelope, whole)
    if whole and limit is not None:
        note("--limit counts messages, and --whole makes one message of the file: all of it is rendered")
    if watch and (origin is not None or samples == "-"):
        raise click.UsageError("--watch needs a file of SAMPLES, or the document's examples")

    files = [mapping] if samples is None or samples.startswith("log:") else [mapping, Path(samples)]

    def render() -> int:
        named: Sequence[Path] = ()
        try:
            document = _open(mapping, samples)
            named = document.files
        except MappingError as error:
            named = error.files
            raise
        finally:
            files.extend(path for path in named if path not in files)
        _check_origin(document, samples, origin, last, pipeline)
        if document.kind == "reader":
            if origin is not None:
                return dry_run_live(document, pipeline, last or "1h", form=form, limit=limit or _LIVE_ROWS)
            return dry_run_reader(document, samples, form=form, limit=limit, rows=rows)
        loaded = None if pipeline is None else open_pipeline(pipeline, connects=asks_registry(document.writer))
        tags = {} if loaded is None else tags_for(mapping, loaded)
        registry = registry_of(document, loaded)
        run = SampleRun(document, plan, dialect, precision, form, tags, registry)
        if origin is not None:
            from iggyflux.cli.iggy import iggy_settings, last_samples  # loads the SDK (60 ms), only with --from iggy

            source = last_samples(document, iggy_settings(pipeline), _count(last))
        else:
            source = _samples(document, samples, envelope, whole, limit)
        run(islice(source, limit))
        return ExitCode.PROBLEMS if run.tally.failed or run.is_beyond_limit else ExitCode.OK

    if watch:
        run_on_save(files, render)
    return render()


def _open(mapping: Path, samples: str | None) -> WriterMapping | ReaderMapping:
    try:
        return open_mapping(mapping)
    except DocumentError:
        if samples and not kind_of_file(mapping) and Path(samples).is_file() and kind_of_file(Path(samples)):
            raise click.UsageError(f"{samples} is the mapping, which comes first: {samples} {mapping}") from None
        raise


def _check_origin(
    document: Mapping, samples: str | None, origin: str | None, last: str | None, pipeline: Path | None
) -> None:
    wanted = "influxdb" if document.kind == "reader" else "iggy"
    if origin is None and last is not None:
        raise click.UsageError(f"--last needs --from {wanted}")
    if origin is None and pipeline is not None and document.kind == "reader":
        raise click.UsageError(f"a reader's --pipeline needs --from {wanted}")
    if origin is not None and samples is not None:
        raise click.UsageError("--from and SAMPLES are mutually exclusive: use one of them")
    if origin not in (None, wanted):
        raise click.UsageError(f"a {document.kind} needs --from {wanted}")


def _count(last: str | None) -> int:
    if last is None:
        return _LOG_MESSAGES
    if not last.isdecimal() or not 1 <= int(last) <= _MOST_MESSAGES:
        raise click.BadParameter(
            f"expected a number of messages from 1 to {_MOST_MESSAGES:,}, found {last!r}", param_hint="--last"
        )
    return int(last)


# --- where samples come from ---


def _samples(
    mapping: WriterMapping, samples: str | None, envelope: Envelope, whole: bool, limit: int | None
) -> Iterator[Sample]:
    if samples is None:
        return _example_samples(mapping)
    if samples == "log:":
        raise click.BadParameter("'log:' has no directory; write for example log:data", param_hint="SAMPLES")
    if samples.startswith("log:"):
        return _log_samples(mapping, Path(samples.removeprefix("log:")), limit)
    return _file_samples(mapping, Path(samples), envelope, whole)


def _file_samples(mapping: WriterMapping, path: Path, envelope: Envelope, whole: bool) -> Iterator[Sample]:
    source = mapping.writer.source
    coordinates = Coordinates.of(source)
    with open_input(path) as lines:
        try:
            envelope = not whole and are_messages(lines, envelope)
            found = samples_for(lines, source.payload, coordinates, envelope=envelope, whole=whole)
            for index, sample in enumerate(found):
                if not index and not envelope:
                    _note_assumptions(sample, coordinates, mapping.writer, whole)
                    _note_expanded(sample, path, source.payload.compression)
                yield sample
        except SampleError as error:
            if error.code == NEEDS_ENVELOPE:
                raise click.UsageError(f"{error.reason} ({error.hint})") from error
            raise


def _uses_coordinates(writer: Writer) -> bool:
    """Return whether a line can depend on the coordinates or headers of its message."""
    for point in writer.points:
        time = point.timestamp
        if time.source is None or time.default_message or time.spread == "offset":
            return True
    return any({"meta", "header"} & expression.uses for expression in writer_expressions(writer))


def _note_assumptions(first: Sample, coordinates: Coordinates, writer: Writer, whole: bool) -> None:
    """Note that samples are one document if they look like many, and their coordinates if lines depend on them."""
    if b"\n" in first.message.payload and not whole:
        hint = "; `jq -c '.[]'` turns each element into a message" if first.message.payload.startswith(b"[") else ""
        note(f"a JSON document over several lines is one message{hint}")
    if writer.source.payload.format == "csv" and "header" not in writer.source.payload.options and not whole:
        note("each line is one csv payload with its own header; use --whole to read the file as one payload")
    if not _uses_coordinates(writer):
        return
    note(
        f"samples are plain payloads: stream {coordinates.stream}, topic {coordinates.topic}, partition 0, "
        "offset = line number from 0, time = 2000-01-01 + offset µs (use --envelope for other values)"
    )


def _note_expanded(first: Sample, path: Path, compression: str) -> None:
    """Note that a payload that is to be expanded is plain, since the file was already expanded by its name."""
    plain = plain_name(path.name)
    is_plain = compression not in ("none", "auto") and recognized(first.message.payload) == "none"
    if is_plain and plain != path.name and path != STDIN:
        note(f"{path} was expanded because of its name; for `compression: {compression}` give it the name {plain}")


def _example_samples(mapping: WriterMapping) -> Iterator[Sample]:
    trees = mapping.examples
    if not trees:
        raise click.UsageError(f"{mapping.document.file} has no examples; name a file of SAMPLES, or - for stdin")
    note(f"no SAMPLES given: using the document's {len(trees)} examples")
    for number, tree in enumerate(trees):
        try:
            yield Sample(number + 1, example_message(mapping, tree, number), f"example {number + 1}")
        except RecordError as error:
            show_problem(mapping.document.problem(error.code, f"/examples/{number}", error.reason))


def _log_samples(mapping: WriterMapping, folder: Path, limit: int | None) -> Iterator[Sample]:
    log = open_log(folder)
    source = mapping.writer.source
    topics = dict.fromkeys(place.topic for place in log.partitions(source.stream, source.topics))  # globs among them
    messages = [message for topic in topics for message in log.tail(source.stream, topic, limit or _LOG_MESSAGES)]
    note(f"the last {plural(len(messages), 'message')} of {source.stream}/{','.join(source.topics)} in {folder}")
    return map(Sample.stored, messages)


# --- the run ---


class SampleRun:
    """Renders samples in chunks and prints each chunk at once."""

    def __init__(
        self,
        mapping: WriterMapping,
        plan: str,
        dialect: str,
        precision: str,
        form: str,
        tags: dict[str, str],
        registry: SchemaRegistry | None = None,
    ) -> None:
        self.mapping = mapping
        self.plan = AskingPlan(mapping, registry, plan, dialect=dialect, precision=precision, tags=tags)
        self.form = form
        self.tally: Tally = Tally(series=count_series(mapping))
        self.looked_at: list[Message] = []
        self.failed: set[str] = set()
        self.shown = 0
        self.printed = PrintedLines()
        self.seen: set[tuple[str, str]] = set()

    def __call__(self, samples: Iterable[Sample]) -> None:
        samples = iter(samples)
        while chunk := list(islice(samples, _CHUNK)):
            self._chunk(chunk)
        self._summary()

    def _chunk(self, samples: list[Sample]) -> None:
        rendered = self.plan.render([sample.message for sample in samples])
        warn_of_fallback(rendered.fallback)
        self.looked_at += [sample.message for sample in samples[: MOST_SAMPLES - len(self.looked_at)]]
        self.tally.skipped += len(rendered.skipped)
        self.tally.empty += len(rendered.empty)
        for value in rendered.omitted:
            self.tally.omitted[value.code, value.location] += value.count
        self._count_undeclared([samples[index].message for index in rendered.undeclared])
        self.failed.update(failure.location for failure in rendered.failures)
        lines = _grouped(zip(rendered.origins, rendered.lines, strict=True), len(samples))
        buckets = _grouped(zip(rendered.origins, rendered.buckets or (), strict=False), len(samples))
        failures = _grouped(((failure.index, failure) for failure in rendered.failures), len(samples))
        outcomes = {**dict.fromkeys(rendered.skipped, "skipped"), **dict.fromkeys(rendered.empty, "empty")}
        for index, sample in enumerate(samples):
            self.tally.add_message(str(sample), lines[index], failures[index], buckets[index])
            if self.form == "json":
                self._print_json(sample, lines[index], buckets[index], failures[index], outcomes.get(index))
        if self.form == "text":
            result(self.printed.text(zip(rendered.buckets or repeat(None), rendered.lines, strict=False)))
            flush_results()
            for failure in rendered.failures:
                self._show(samples[failure.index], failure)

    def _count_undeclared(self, messages: list[Message]) -> None:
        """Count messages with fields that their schema does not declare, and note the fields."""
        self.tally.undeclared += len(messages)
        for message in messages:
            for name, numbers in undeclared_fields(message.payload, self.mapping.writer.source.payload).items():
                self.tally.undeclared_fields.setdefault(name, set()).update(numbers)

    def _print_json(
        self,
        sample: Sample,
        lines: list[str],
        buckets: list[str],
        failures: list[Failure],
        outcome: str | None,
    ) -> None:
        message = sample.message
        made: dict[str, object] = {
            "sample": sample.line,
            "partition": message.partition,
            "offset": message.offset,
            "outcome": outcome or ("failed" if failures else "points"),
            "lines": lines,
            **({"buckets": buckets} if buckets else {}),
            "failures": [self._failure_dict(failure) for failure in failures],
        }
        result(json_text(made) + "\n")

    def _failure_dict(self, failure: Failure) -> dict[str, object]:
        place = self.mapping.locate(failure.location)
        return {
            "code": failure.code,
            "reason": failure.reason,
            "hint": failure.hint,
            "pointer": failure.location,
            "file": place.file,
            "line": place.line,
            "column": place.column,
            "element": failure.element,
            "elements": list(failure.elements),
            "payload_line": failure.payload_line,
            "point": failure.point,
        }

    def _show(self, sample: Sample, failure: Failure) -> None:
        """Print a failure: the first of its kind with source line and hint, later ones in one line."""
        self.shown += 1
        if self.shown > _SHOWN_FAILURES:
            return
        element = failure.shown_element
        if failure.payload_line is not None and is_part_of_file(sample.message):  # the sample is the row of a file
            element = element.partition(", ")[2]
        place = Styled(", ".join(filter(None, (str(sample), element))), bold=True)
        kind = (failure.code, failure.location)
        if kind in self.seen:
            mark = Styled(f"error[{failure.code}]", "red", bold=True)
            talk(place, ": ", mark, f": {failure.reason} (at {self.mapping.locate(failure.location)})")
            return
        self.seen.add(kind)
        show_failure(self.mapping, place, failure)

    @property
    def is_beyond_limit(self) -> bool:
        """Whether the samples make more series than the document allows."""
        return beyond_limit(self.mapping, self.tally.series) is not None

    def _show_limit(self) -> None:
        if (beyond := beyond_limit(self.mapping, self.tally.series)) is not None:
            show_problem(beyond)

    def _summary(self) -> None:
        if self.form == "json":
            result(json_text({"summary": self.tally.as_dict()}) + "\n")
            self._show_limit()
            return
        if self.shown > _SHOWN_FAILURES:
            talk(f"… and {plural(self.shown - _SHOWN_FAILURES, 'more failure')}")
        for line in summary_lines(self.tally, self.mapping, self.plan.precision):
            talk(line)
        self._show_limit()
        for problem in check_samples(self.mapping, self.looked_at):
            pointer = problem.location.pointer.removesuffix("/expr")
            if problem.code not in _SHOWN_OTHERWISE and pointer not in self.failed:
                show_problem(problem)


_SHOWN_OTHERWISE: Final = (SOME_FAIL, IMPLAUSIBLE_TIME, BEYOND_LIMIT)
"""Codes of what a dry run shows itself: failures, the first and last time, and too many series of all samples."""


_SHOWN_NUMBERS: Final = 10


def _span(tally: Tally, precision: Precision) -> str:
    """Return the first and last time: a wrong unit of time shows as a wrong century."""
    if tally.times is None:
        return ""
    first, last = (format_rfc3339(time * precision.divisor) for time in tally.times)
    return f"   at {first}" if first == last else f"   from {first} to {last}"


def _grouped(pairs: Iterable[tuple[int, Any]], size: int) -> list[list[Any]]:
    groups: list[list[Any]] = [[] for _ in range(size)]
    for index, group in groupby(pairs, key=lambda pair: pair[0]):
        groups[index].extend(value for _, value in group)
    return groups


def summary_lines(tally: Tally, mapping: Mapping, precision: Precision) -> Iterator[str]:
    """Yield the lines of the summary."""
    others = [
        text
        for count, text in (
            (tally.skipped, f"{tally.skipped:,} skipped by `where`"),
            (tally.empty, f"{tally.empty:,} without elements"),
            (tally.failed, f"{tally.failed:,} failed"),
        )
        if count
    ]
    yield f"messages    {tally.messages:>7,}" + (f"   {', '.join(others)}" if others else "")
    yield f"lines       {tally.lines:>7,}{_span(tally, precision)}"
    width = max(map(len, tally.points), default=0)
    for measurement, count in sorted(tally.points.items()):
        yield f"  {measurement:<{max(width, 9)}} {count:>7,}   in {tally.series.described(measurement)}"
    for what, counts in (("failures", tally.failures), ("omitted", tally.omitted)):
        if counts:
            yield f"{what:<11} {sum(counts.values()):>7,}"
        for (code, pointer), count in sorted(counts.items()):
            yield f"  {code:<9} {count:>7,}   at {mapping.locate(pointer)} ({pointer or '/'})"
    if tally.undeclared:
        yield f"undeclared  {tally.undeclared:>7,}   messages with fields that the schema does not declare"
        for name, numbers in sorted(tally.undeclared_fields.items()):
            shown = ", ".join(map(str, sorted(numbers)[:_SHOWN_NUMBERS]))
            yield f"  {name}: {shown}{' …' if len(numbers) > _SHOWN_NUMBERS else ''}"
    if tally.collisions and tally.first_collision:
        first, second = tally.first_collision
        yield (
            f"collisions  {tally.collisions:>7,}   with the measurement, tags, time and a field of a point of another "
            f"message, which is overwritten (for example {first} by {second})"
        )
