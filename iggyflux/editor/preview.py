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
    """What comes of one sample: its lines, each also as a point, and a problem for each failure.

    `outcome` is points, skipped or empty.
    """

    lines: tuple[str, ...]
    points: tuple[Point, ...]
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
    points = [parse_line(line, dialect) for line in rendered.lines]
    lines: list[list[tuple[str, Point]]] = [[] for _ in samples]
    for line, point, origin in zip(rendered.lines, points, rendered.origins, strict=True):
        lines[origin].append((line, point))
    failures: list[list[Problem]] = [[] for _ in samples]
    for failure in rendered.failures:
        element = "" if failure.element is None else f"element {failure.element}: "
        problem = mapping.document.problem(
            failure.code, failure.location, f"{element}{failure.reason}", hint=failure.hint
        )
        failures[failure.index].append(problem)
    skipped, empty = set(rendered.skipped), set(rendered.empty)
    made = tuple(
        Made(
            tuple(line for line, _ in lines[n]),
            tuple(point for _, point in lines[n]),
            tuple(failures[n]),
            "skipped" if n in skipped else "empty" if n in empty else "points",
        )
        for n in range(len(samples))
    )
    return Preview(made, tuple(_by_measurement(points)))


def written(lines: Sequence[str], dialect: str = "v2") -> list[Written]:
    """Return what `lines` write, measurement by measurement, in the order of their names."""
    return _by_measurement([parse_line(line, dialect) for line in lines])


def _by_measurement(points: Sequence[Point]) -> list[Written]:
    found: dict[str, list[Point]] = {}
    for point in points:
        found.setdefault(point.measurement, []).append(point)
    return [_written(measurement, made) for measurement, made in sorted(found.items())]


def _written(measurement: str, points: Sequence[Point]) -> Written:
    tags: dict[str, set[str]] = {}
    fields: dict[str, dict[str, None]] = {}
    for point in points:
        for key, value in point.tags.items():
            tags.setdefault(key, set()).add(value)
        for key, field in point.fields.items():
            fields.setdefault(key, {})[type_of(field)] = None
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


def type_of(value: object) -> str:
    """Return the type of a field with this value."""
    names = {"bool": "boolean", "int": "integer", "str": "string", "Unsigned": "unsigned"}
    return names.get(type(value).__name__, "float")
