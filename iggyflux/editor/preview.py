"""What a mapping makes of samples, for people who look while they type: lines, failures, series and types.

A reader makes messages of rows; they are shown as lines of JSON.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from iggyflux.authoring.names import type_name
from iggyflux.documents import Format, read_document
from iggyflux.editor.evidence import MOST_SAMPLES, Samples
from iggyflux.errors import DocumentError, Problem
from iggyflux.escapes import json_text
from iggyflux.lineprotocol import Point, parse_line
from iggyflux.mapping import Mapping, ReaderMapping, WriterMapping, compile_document
from iggyflux.records import Failure, Message, OutgoingMessage, Row


@dataclass(frozen=True, slots=True)
class Made:
    """What comes of one sample: its lines, each also as a point, and a problem for each failure.

    `outcome` is points, skipped, empty, or for a reader messages.
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
    """What comes of each of the samples, and of all together; `omitted` counts values (`on_bad_value: omit`)."""

    samples: tuple[Made, ...]
    measurements: tuple[Written, ...]
    omitted: int = 0


def preview(text: str, samples: Samples, *, format: Format = "yaml", dialect: str = "v2") -> Preview | None:  # noqa: A002
    """Return what a mapping makes of the first 1,000 samples, a reader of rows; None if `text` does not compile."""
    try:
        mapping = compile_document(read_document(text, format=format))
    except DocumentError:
        return None
    return preview_of(mapping, samples, dialect=dialect)


def preview_of(mapping: WriterMapping | ReaderMapping, samples: Samples, *, dialect: str = "v2") -> Preview:
    """Return what a mapping makes of the first 1,000 samples."""
    samples = samples[:MOST_SAMPLES]
    if isinstance(mapping, ReaderMapping):
        return _of_rows(mapping, [each for each in samples if isinstance(each, Row)])
    return _of_messages(mapping, [each for each in samples if isinstance(each, Message)], dialect)


def _of_messages(mapping: WriterMapping, samples: Sequence[Message], dialect: str) -> Preview:
    rendered = mapping.plan(dialect=dialect).render(samples)
    points = [parse_line(line, dialect) for line in rendered.lines]
    lines: list[list[tuple[str, Point]]] = [[] for _ in samples]
    for line, point, origin in zip(rendered.lines, points, rendered.origins, strict=True):
        lines[origin].append((line, point))
    failures = _failures(mapping, rendered.failures, len(samples))
    skipped, empty = set(rendered.skipped), set(rendered.empty)
    made = tuple(
        Made(
            tuple(line for line, _ in lines[n]),
            tuple(point for _, point in lines[n]),
            failures[n],
            "skipped" if n in skipped else "empty" if n in empty else "points",
        )
        for n in range(len(samples))
    )
    omitted = sum(value.count for value in rendered.omitted)
    return Preview(made, tuple(_by_measurement(points)), omitted)


def _of_rows(mapping: ReaderMapping, rows: Sequence[Row]) -> Preview:
    rendered = mapping.plan().render(rows)
    lines: list[list[str]] = [[] for _ in rows]
    for message, origin in zip(rendered.messages, rendered.origins, strict=True):
        lines[origin].append(json_text(message_dict(mapping, message)))
    failures = _failures(mapping, rendered.failures, len(rows))
    made = (Made(tuple(lines[n]), (), failures[n], "messages") for n in range(len(rows)))
    return Preview(tuple(made), ())


def _failures(mapping: Mapping, failed: Sequence[Failure], count: int) -> list[tuple[Problem, ...]]:
    """Return the failures of each of `count` samples as problems of the document."""
    found: list[list[Problem]] = [[] for _ in range(count)]
    for failure in failed:
        message = ": ".join(filter(None, (failure.shown_element, failure.reason)))
        problem = mapping.document.problem(failure.code, failure.location, message, hint=failure.hint)
        found[failure.index].append(problem)
    return [tuple(problems) for problems in found]


def message_dict(mapping: ReaderMapping, message: OutgoingMessage) -> dict[str, Any]:
    """Return a message as JSON; its payload is JSON, text or base64, the first that fits."""
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
        made["payload_base64"] = b64encode(message.payload).decode("ascii")
    return made


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
            fields.setdefault(key, {})[type_name(field)] = None
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
