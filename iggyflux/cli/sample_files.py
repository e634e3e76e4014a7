"""Samples of files for a mapping: messages for a writer, rows for a reader."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from iggyflux.authoring.samples import Coordinates, read_rows, read_samples, whole_sample
from iggyflux.cli.inputs import open_input
from iggyflux.editor.evidence import MOST_SAMPLES, Samples
from iggyflux.mapping import ReaderMapping, WriterMapping


def samples_of_file(
    mapping: WriterMapping | ReaderMapping, path: Path, *, envelope: bool = False, whole: bool = False
) -> Samples:
    """Return the first samples of a file.  Raise UsageError or DocumentError if they cannot be read."""
    with open_input(path) as lines:
        if isinstance(mapping, ReaderMapping):
            form = "csv" if path.suffix.lower() == ".csv" else "jsonl"
            measurement = mapping.reader.source.measurement or ""
            rows = read_rows(lines, form=form, measurement=measurement)
            return [sample.row for sample in islice(rows, MOST_SAMPLES)]
        source = mapping.writer.source
        coordinates = Coordinates.of(source)
        found = (
            whole_sample(lines.read(), coordinates)
            if whole
            else read_samples(lines, coordinates, form=source.payload.format, envelope=envelope)
        )
        return [sample.message for sample in islice(found, MOST_SAMPLES)]
