"""What the page asks about a text and its samples, answered by the language service as plain JSON.

Nothing is decided here.  Offsets are UTF-16 code units, as in JavaScript; integers that may exceed 2**53 are texts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import msgspec

from iggyflux.authoring.adding import add_example
from iggyflux.authoring.inference import Wishes, infer, recognize_file, recognize_payloads
from iggyflux.authoring.names import type_name
from iggyflux.authoring.samples import Coordinates, Sample, SampleError, read_samples
from iggyflux.documents import Format, read_document
from iggyflux.editor.checking import check_text
from iggyflux.editor.completion import completions
from iggyflux.editor.evidence import Samples
from iggyflux.editor.fixes import fix_all
from iggyflux.editor.hover import hover
from iggyflux.editor.positions import Positions
from iggyflux.editor.preview import Preview, Written, preview_of
from iggyflux.editor.sample_text import (
    LinedSamples,
    begins_with_message,
    mapping_or_stand_in,
    plain,
    read_pasted,
    stand_in,
)
from iggyflux.errors import DocumentError, Problem
from iggyflux.lineprotocol import Point
from iggyflux.mapping import ReaderMapping, WriterMapping, compile_document
from iggyflux.sim.answers import answer_write

MOST_ROWS: Final = 500
"""The most points, lines and failures that are shown; all of them are counted."""
_LONGEST: Final = 1_000
_LONGEST_NAME: Final = 200
_FOLDERLESS: Final = {"yaml": Path("mapping.yaml"), "toml": Path("mapping.toml")}

SERVERS: Final = (("InfluxDB 1.x", 1), ("InfluxDB 2.x", 2), ("InfluxDB 3.x", 3))

Answer: TypeAlias = dict[str, Any]


class Question(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A text with its samples; `position` is an offset, `sample` the index of a sample, `name` that of an example."""

    text: str = ""
    samples: str = ""
    format: Literal["yaml", "toml"] = "yaml"
    position: int = 0
    sample: int = 0
    name: str = ""


def look(asked: Question) -> Answer:
    """Return the problems of the text, and what comes of the samples if it has no errors."""
    positions = Positions(asked.text)
    read = _Read(asked)
    problems = _check(positions.plain, asked.format, read)
    made = None
    if read.mapping is not None:
        made = preview_of(read.mapping, plain(read.samples))
    else:  # the text has errors
        read(stand_in(positions.plain))
    return {
        "problems": [_problem(positions, each) for each in problems],
        "samples": {"count": len(read.samples), "lines": [each.line for each in read.samples], "fault": read.fault},
        "made": None if made is None else _made(positions, made),
    }


def answers(asked: Question) -> Answer:
    """Return what an empty server of each version answers to all lines in one request."""
    read = _Read(asked)
    try:
        mapping = compile_document(read_document(Positions(asked.text).plain, format=asked.format))
    except DocumentError:
        return {"answers": []}
    if not isinstance(mapping, WriterMapping):
        return {"answers": []}
    samples = read(mapping)
    return {
        "answers": [
            _answer(name, number, preview_of(mapping, samples, dialect=f"v{number}")) for name, number in SERVERS
        ]
    }


def _answer(name: str, number: int, made: Preview) -> Answer:
    lines = [line for each in made.samples for line in each.lines]
    failed = sum(len(each.failures) for each in made.samples)
    answer = answer_write(number, lines) if lines else None
    about: Answer = {
        "server": name,
        "lines": len(lines),
        "failed": failed,
        "version": "",
        "status": 0,
        "body": "",
        "stored": 0,
    }
    if answer is not None:
        about |= {
            "version": answer.version,
            "status": answer.status,
            "body": _short(answer.body),
            "stored": answer.points,
        }
    return about


def complete(asked: Question) -> Answer:
    """Return what can be written at the position."""
    positions = Positions(asked.text)
    offset = positions.offset_of_units(asked.position)
    found = completions(positions.plain, offset, _samples(asked, positions.plain), format=asked.format)
    return {
        "completions": [
            {
                "label": each.label,
                "kind": each.kind,
                "insert": each.text,
                "from": positions.units(each.start),
                "detail": each.detail,
                "documentation": each.documentation,
            }
            for each in found
        ]
    }


def explain(asked: Question) -> Answer:
    """Return what is at the position, as Markdown; an empty text if nothing is known of it."""
    positions = Positions(asked.text)
    offset = positions.offset_of_units(asked.position)
    found = hover(positions.plain, offset, _samples(asked, positions.plain), format=asked.format)
    if found is None:
        return {"text": "", "from": asked.position, "to": asked.position}
    return {"text": found.text, "from": positions.units(found.start), "to": positions.units(found.end)}


def fix(asked: Question) -> Answer:
    """Return the text with all fixes that are certain, and how many they are."""
    text, read = Positions(asked.text).plain, _Read(asked)
    fixed, count = fix_all(text, lambda each: _check(each, asked.format, read))
    return {"text": fixed, "count": count}


def propose(asked: Question) -> Answer:
    """Return a mapping inferred from the samples, or a fault that says why there is none."""
    try:
        data, messages = asked.samples.encode("utf-8", "replace"), []
        if begins_with_message(data):
            found = read_samples(data.splitlines(True), Coordinates("my-stream", "messages"), envelope=True)
            messages = [each.message for each in found]
            samples = recognize_payloads([each.payload for each in messages])
        else:
            samples = recognize_file(data)
        first = messages[0] if messages else None
        wishes = Wishes(first.stream if first else "my-stream", first.topic if first else "messages")
        proposal = infer(samples, wishes, messages=messages, form=asked.format)
    except SampleError as error:
        return {"fault": _fault(error)}
    return {"text": proposal.text(asked.format), "notes": proposal.told, "warnings": [*proposal.warnings]}


def keep(asked: Question) -> Answer:
    """Return the text with a sample as an example, or a fault that says why that cannot be done."""
    text, read = Positions(asked.text).plain, _Read(asked)
    read(mapping_or_stand_in(text, format=asked.format))
    chosen = read.samples[asked.sample] if 0 <= asked.sample < len(read.samples) else None
    added = None
    if isinstance(chosen, Sample):
        coordinates = begins_with_message(asked.samples.encode("utf-8", "replace"))
        try:
            name = " ".join(asked.name.split())[:_LONGEST_NAME]
            added = add_example(text, chosen.message, format=asked.format, has_coordinates=coordinates, name=name)
        except DocumentError as error:
            first = error.problems[0]
            hint = "correct the document first"
            return {"fault": {"code": first.code, "message": first.message, "line": 0, "hint": hint}}
    if added is None:
        reason = "the text of the document cannot be edited so, or the sample is a row"
        return {"fault": {"code": "IFX526", "message": reason, "line": 0, "hint": "write the example by hand"}}
    return {"text": added}


QUESTIONS: Final[dict[str, Callable[[Question], Answer]]] = {
    "look": look,
    "answers": answers,
    "complete": complete,
    "explain": explain,
    "fix": fix,
    "propose": propose,
    "keep": keep,
}


# --- samples ---


class _Read:
    """Reads the samples of a question for a mapping.

    `mapping` is the last one, `samples` are its samples, `fault` says why there are none.
    """

    def __init__(self, asked: Question) -> None:
        self._text = asked.samples
        self.mapping: WriterMapping | ReaderMapping | None = None
        self.samples: LinedSamples = ()
        self.fault: Answer | None = None

    def __call__(self, mapping: WriterMapping | ReaderMapping) -> Samples:
        self.mapping, self.samples, self.fault = mapping, (), None
        try:
            self.samples = read_pasted(mapping, self._text)
        except SampleError as error:
            self.fault = _fault(error)
        return plain(self.samples)


def _samples(asked: Question, text: str) -> Samples:
    return _Read(asked)(mapping_or_stand_in(text, format=asked.format))


def _check(text: str, form: Format, read: _Read) -> Sequence[Problem]:
    checked, _ = check_text(text, _FOLDERLESS[form], read, form=form, pipelines=False)
    return checked.problems


def _fault(error: SampleError) -> Answer:
    return {"code": error.code, "message": error.reason, "line": error.line, "hint": error.hint}


# --- as JSON ---


def _problem(positions: Positions, problem: Problem) -> Answer:
    place = problem.location
    start, end = positions.span(place.line, place.column, problem.length)
    made: Answer = {
        "code": problem.code,
        "severity": problem.severity,
        "message": _short(problem.message),
        "details": [
            [label, _short(text)]
            for label, text in (("expected", problem.expected), ("found", problem.found), ("hint", problem.hint))
            if text
        ],
        "line": place.line,
        "column": place.column,
        "from": positions.units(start),
        "to": positions.units(end),
    }
    if problem.fix is not None:
        edits = [
            {"from": positions.units(edit.start), "to": positions.units(edit.end), "insert": edit.text}
            for edit in problem.fix.edits
        ]
        made["fix"] = {"title": problem.fix.title, "safe": problem.fix.safe, "edits": edits}
    return made


def _made(positions: Positions, made: Preview) -> Answer:
    failures = [(n, problem) for n, each in enumerate(made.samples) for problem in each.failures]
    lines = [(n, line) for n, each in enumerate(made.samples) for line in each.lines]
    points = [(n, point) for n, each in enumerate(made.samples) for point in each.points]
    return {
        "outcomes": ["failed" if each.failures else each.outcome for each in made.samples],
        "measurements": [_measurement(each, points) for each in made.measurements],
        "lines": [[n, _short(line)] for n, line in lines[:MOST_ROWS]],
        "failures": [{"sample": n, **_problem(positions, problem)} for n, problem in failures[:MOST_ROWS]],
        "counts": {
            "lines": len(lines),
            "bytes": sum(len(line.encode("utf-8", "surrogatepass")) + 1 for _, line in lines),
            "failures": len(failures),
            "omitted": made.omitted,
        },
    }


def _measurement(written: Written, points: Sequence[tuple[int, Point]]) -> Answer:
    own = [(n, point) for n, point in points if point.measurement == written.measurement][:MOST_ROWS]
    return {
        "name": written.measurement,
        "points": written.points,
        "series": written.series,
        "tags": written.tags,
        "fields": {key: list(types) for key, types in written.fields.items()},
        "first": None if written.first_ns is None else str(written.first_ns),
        "last": None if written.last_ns is None else str(written.last_ns),
        "rows": [
            {
                "sample": n,
                "time": str(point.timestamp_ns),
                "tags": {key: _short(value) for key, value in point.tags.items()},
                "fields": dict(_fields(point)),
            }
            for n, point in own
        ],
    }


def _fields(point: Point) -> Iterator[tuple[str, Any]]:
    for key, value in point.fields.items():
        kind = type_name(value)
        shown = str(value).lower() if kind == "boolean" else _short(value) if isinstance(value, str) else repr(value)
        yield key, [shown, kind]


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"
