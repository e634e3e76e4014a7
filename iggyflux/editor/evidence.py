"""What samples and a document's own examples show: for each expression, the values that it is evaluated on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import TypeAlias

from iggyflux.authoring.examples import example_message, example_rows
from iggyflux.documents import Document
from iggyflux.errors import DocumentError, EvaluationError, ExpressionError, RecordError
from iggyflux.expressions import Expression, Place, compile_expression, truth
from iggyflux.mapping import MessageSpec, PointSpec, ReaderMapping, WriterMapping, compile_document
from iggyflux.payloads import FORMATS
from iggyflux.plan.reader import groups_of
from iggyflux.records import JSON, Message, Row

MOST_SAMPLES = 1000
"""The most samples that are looked at: more rarely show anything else, and each costs time at every keystroke."""

MOST_ELEMENTS = 20_000
"""The most elements of samples that are looked at, however many a `for_each` gives."""

Samples: TypeAlias = Sequence[Message] | Sequence[Row]


@dataclass(frozen=True, slots=True)
class Given:
    """A message of a sample or an example; `text` is as it is written."""

    name: str
    message: Message
    root: JSON
    text: str
    is_example: bool

    @property
    def place(self) -> Place:
        """The place of the whole payload."""
        return Place(self.root, self.root, None, self.message)


@dataclass(frozen=True, slots=True)
class Use:
    """An expression of a document and what it is evaluated on; `spec` is the point or message that it belongs to."""

    role: str
    expression: Expression
    places: Sequence[Place]
    noun: str
    spec: PointSpec | MessageSpec | None = None
    default: bool = False


def messages_of(mapping: WriterMapping, samples: Sequence[Message]) -> list[Given]:
    """Return the messages of the examples and of the first samples that can be decoded."""
    payload, found = mapping.writer.source.payload, []
    form = FORMATS[payload.format]

    def add(name: str, message: Message, text: str, *, is_example: bool) -> None:
        with suppress(RecordError):
            root = (form.decode_non_finite or form.decode)(message.payload, payload.options, None, False)
            found.append(Given(name, message, root, text, is_example))

    for number, message in enumerate(samples[:MOST_SAMPLES], 1):
        add(f"sample {number}", message, message.payload.decode("utf-8", "replace"), is_example=False)
    for number, tree in enumerate(mapping.examples[:MOST_SAMPLES]):
        with suppress(RecordError):
            message = example_message(mapping, tree, number)
            node = mapping.document.node(f"/examples/{number}/message")
            text = (
                message.payload.decode("utf-8", "replace")
                if node is None
                else mapping.document.text[node.start : node.end]
            )
            add(f"example {number + 1}", message, text, is_example=True)
    return found


def writer_uses(mapping: WriterMapping, given: Sequence[Given]) -> Iterator[Use]:
    """Yield every expression of a writer with the places on which it is evaluated."""
    writer = mapping.writer
    places: Sequence[Place] = [each.place for each in given]
    if writer.where is not None:
        yield Use("where", writer.where, places, "sample")
        places = _passing(writer.where, places)
    if writer.for_each is not None:
        yield Use("for_each", writer.for_each, places, "sample")
        every = (element for place in places for element in _elements(writer.for_each, place))
        places = list(islice(every, MOST_ELEMENTS))
    noun = "sample" if writer.for_each is None else "element"
    for spec in writer.points:
        yield from _point_uses(spec, places, noun)


def _point_uses(spec: PointSpec, places: Sequence[Place], noun: str) -> Iterator[Use]:
    if spec.where is not None:
        yield Use("where", spec.where, places, noun, spec)
        places = _passing(spec.where, places)
    parts = [("measurement", spec.measurement, False)]
    parts += [("tag", tag.source, tag.default is not None) for tag in spec.tags]
    parts += [("field", field.source, field.default is not None) for field in spec.fields]
    parts += [("star", star.source, False) for star in (*spec.tag_stars, *spec.field_stars)]
    if spec.timestamp.source is not None:
        parts.append(("timestamp", spec.timestamp.source, spec.timestamp.default_message))
    for role, source, default in parts:
        if isinstance(source, Expression):
            yield Use(role, source, places, noun, spec, default)


def reader_uses(mapping: ReaderMapping, rows: Sequence[Row]) -> Iterator[Use]:
    """Yield every expression of a reader with the places on which it is evaluated."""
    measurement = mapping.reader.source.measurement or ""
    all_rows = [*rows[:MOST_SAMPLES]]
    all_rows += [row for tree in mapping.examples[:MOST_SAMPLES] for row in example_rows(tree, measurement)]
    for spec in mapping.reader.messages:
        places = [
            Place(value, value, None, all_rows[indices[0]])
            for indices, value in groups_of(mapping.reader, spec, all_rows)
        ]
        parts = [("payload", spec.payload), ("key", spec.key), ("timestamp", spec.timestamp)]
        parts += [("header", source) for _, source in spec.headers]
        for role, source in parts:
            if isinstance(source, Expression):
                yield Use(role, source, places, spec.for_each, spec)


def _passing(where: Expression, places: Sequence[Place]) -> Sequence[Place]:
    return [place for place in places if truth(value_at(where, place))]


def _elements(for_each: Expression, place: Place) -> Iterator[Place]:
    found = value_at(for_each, place)
    for index, value in enumerate(found if isinstance(found, list) else []):
        yield Place(value, place.root, index, place.message)


def value_at(expression: Expression, place: Place) -> JSON:
    """Return the value of an expression at a place; null where it fails."""
    try:
        return expression.evaluate(place.value, place.message, root=place.root, index=place.index)
    except EvaluationError:
        return None


def places_at(document: Document, pointer: str, samples: Samples) -> Sequence[Place]:
    """Return what the expression at `pointer` is evaluated on, also in a document that does not compile.

    Then elements of `for_each` and the payload's format are taken from what can be read of it.
    """
    try:
        mapping = compile_document(document)
    except DocumentError:
        return _places_without_mapping(document, pointer, samples)
    if isinstance(mapping, ReaderMapping):
        uses = reader_uses(mapping, [each for each in samples if isinstance(each, Row)])
    else:
        uses = writer_uses(mapping, messages_of(mapping, [each for each in samples if isinstance(each, Message)]))
    return next((use.places for use in uses if use.expression.location == pointer), ())


def _places_without_mapping(document: Document, pointer: str, samples: Samples) -> Sequence[Place]:
    tree = document.tree if isinstance(document.tree, dict) else {}
    source = tree.get("from")
    payload = source.get("payload", "json") if isinstance(source, dict) else "json"
    options = payload if isinstance(payload, dict) else {"format": payload}
    name = options.get("format")
    form = FORMATS.get(name if isinstance(name, str) else "json", FORMATS["json"])
    places = []
    examples = tree.get("examples")
    roots = (
        [each["message"] for each in examples if isinstance(each, dict) and "message" in each]
        if isinstance(examples, list)
        else []
    )
    for sample in samples:
        if isinstance(sample, Row):
            places.append(Place(dict(sample.columns), dict(sample.columns), None, sample))
            continue
        with suppress(RecordError, LookupError, TypeError):
            root = form.decode(
                sample.payload, {key: value for key, value in options.items() if key != "format"}, None, False
            )
            places.append(Place(root, root, None, sample))
    places += [Place(root, root) for root in roots]
    for_each = tree.get("for_each")
    if isinstance(for_each, str) and pointer.startswith("/points"):
        with suppress(ExpressionError):
            expression = compile_expression(for_each)
            return list(islice((each for place in places for each in _elements(expression, place)), MOST_ELEMENTS))
    return places


def tables_of(document: Document) -> dict[str, dict[str, JSON]]:
    """Return the tables of a document, also of one that does not compile."""
    tree = document.tree if isinstance(document.tree, dict) else {}
    tables = tree.get("tables")
    return {
        name: table for name, table in (tables if isinstance(tables, dict) else {}).items() if isinstance(table, dict)
    }
