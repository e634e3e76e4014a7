"""What a writer makes of samples, for people who look while they type: lines, failures, series and types."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from iggyflux.documents import Format, read_document
from iggyflux.editor.evidence import MOST_SAMPLES
from iggyflux.errors import DocumentError, Problem
from iggyflux.lineprotocol import Point, parse_line
from iggyflux.mapping import WriterMapping, compile_document
from iggyflux.records import Message


@dataclass(frozen=True, slots=True)
class Made:
    """What comes of one sample: its lines, and a problem for each failure; `outcome` is points, skipped or empty."""

    lines: tuple[str, ...]
    failures: tuple[Problem, ...]
    outcome: str


@dataclass(frozen=True, slots=True)
class Written:
    """A measurement of all samples: the number of its points and series, its tags with how many values each has, its
    fields with their types (several where samples conflict), and the first and the last time in nanoseconds.
    """

    measurement: str
    points: int
    series: int
    tags: dict[str, int]
    fields: dict[str, tuple[str, ...]]
    first_ns: int | None
    last_ns: int | None


@dataclass(frozen=True, slots=True)
class Preview:
    """What comes of each of the samples, and of all together."""

    samples: tuple[Made, ...]
    measurements: tuple[Written, ...]


def preview(text: str, samples: Sequence[Message], *, format: Format = "yaml", dialect: str = "v2") -> Preview | None:  # noqa: A002
    """Return what a writer makes of the first 1,000 samples; None if `text` does not compile, or is a reader."""
    try:
        mapping = compile_document(read_document(text, format=format))
    except DocumentError:
        return None
    if not isinstance(mapping, WriterMapping):
        return None
    samples = samples[:MOST_SAMPLES]
    rendered = mapping.plan("reference", dialect=dialect).render(samples)
    lines: list[list[str]] = [[] for _ in samples]
    for line, origin in zip(rendered.lines, rendered.origins, strict=True):
        lines[origin].append(line)
    failures: list[list[Problem]] = [[] for _ in samples]
    for failure in rendered.failures:
        message = ": ".join(filter(None, (failure.shown_element, failure.reason)))
        problem = mapping.document.problem(failure.code, failure.location, message, hint=failure.hint)
        failures[failure.index].append(problem)
    skipped, empty = set(rendered.skipped), set(rendered.empty)
    made = tuple(
        Made(tuple(lines[n]), tuple(failures[n]), "skipped" if n in skipped else "empty" if n in empty else "points")
        for n in range(len(samples))
    )
    return Preview(made, tuple(written(rendered.lines, dialect)))


def written(lines: Sequence[str], dialect: str = "v2") -> list[Written]:
    """Return what `lines` write, measurement by measurement, in the order of their names."""
    points: dict[str, list[Point]] = {}
    for line in lines:
        point = parse_line(line, dialect)
        points.setdefault(point.measurement, []).append(point)
    return [_written(measurement, made) for measurement, made in sorted(points.items())]


def _written(measurement: str, points: Sequence[Point]) -> Written:
    tags: dict[str, set[str]] = {}
    fields: dict[str, dict[str, None]] = {}
    for point in points:
        for key, value in point.tags.items():
            tags.setdefault(key, set()).add(value)
        for key, field in point.fields.items():
            fields.setdefault(key, {})[_type_of(field)] = None
    times = [point.timestamp_ns for point in points if point.timestamp_ns is not None]
    return Written(
        measurement,
        len(points),
        len({frozenset(point.tags.items()) for point in points}),
        {key: len(values) for key, values in sorted(tags.items())},
        {key: tuple(types) for key, types in sorted(fields.items())},
        min(times, default=None),
        max(times, default=None),
    )


def _type_of(value: object) -> str:
    names = {"bool": "boolean", "int": "integer", "str": "string", "Unsigned": "unsigned"}
    return names.get(type(value).__name__, "float")
