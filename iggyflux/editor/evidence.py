"""What samples and a document's own examples show: for each expression, the values that it is evaluated on."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import TypeAlias

from iggyflux.authoring.examples import example_message, example_rows
from iggyflux.documents import Document, split_pointer
from iggyflux.errors import DocumentError, EvaluationError, ExpressionError, RecordError
from iggyflux.expressions import Expression, Place, compile_expression, truth
from iggyflux.mapping import MessageSpec, PointSpec, ReaderMapping, WriterMapping, compile_document
from iggyflux.mapping.files import Unreadable, read_named
from iggyflux.payloads import FORMATS, Declared, OptionError, expand
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
            content = expand(message.payload, payload.compression)
            root = (form.decode_non_finite or form.decode)(content, payload.options, None, False)
            found.append(Given(name, message, root, text, is_example))

    for number, message in enumerate(samples[:MOST_SAMPLES], 1):
        add(f"sample {number}", message, _text(message, payload), is_example=False)
    for number, tree in enumerate(mapping.examples[:MOST_SAMPLES]):
        with suppress(RecordError):
            message = example_message(mapping, tree, number)
            node = mapping.document.node(f"/examples/{number}/message")
            text = _text(message, payload) if node is None else mapping.document.text[node.start : node.end]
            add(f"example {number + 1}", message, text, is_example=True)
    return found


def _text(message: Message, declared: Declared) -> str:
    with suppress(RecordError):
        return expand(message.payload, declared.compression).decode("utf-8", "replace")
    return ""


def noun_of(given: Sequence[Given]) -> str:
    """Return what `given` is called: samples, or where there are none examples."""
    return "example" if all(each.is_example for each in given) else "sample"


def writer_uses(mapping: WriterMapping, given: Sequence[Given]) -> Iterator[Use]:
    """Yield every expression of a writer with the places on which it is evaluated."""
    writer = mapping.writer
    places: Sequence[Place] = [each.place for each in given]
    noun = noun_of(given)
    if writer.where is not None:
        yield Use("where", writer.where, places, noun)
        places = _passing(writer.where, places)
    places = yield from _list_uses(writer.for_each, places, noun)
    for spec in writer.points:
        elements = yield from _list_uses(spec.for_each, places, "element" if writer.for_each else noun)
        yield from _point_uses(spec, elements, "element" if writer.lists_of(spec) else noun)


def _list_uses(
    for_each: Sequence[Expression], places: Sequence[Place], noun: str
) -> Generator[Use, None, Sequence[Place]]:
    """Yield the expressions of a `for_each`, and return its elements."""
    for expression in for_each:
        yield Use("for_each", expression, places, noun)
        places, noun = _elements_of(expression, places), "element"
    return places


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


def _elements_of(for_each: Expression, places: Sequence[Place]) -> list[Place]:
    """Return the elements of a list at each place; the first ones, if there are many."""
    return list(islice((element for place in places for element in _elements(for_each, place)), MOST_ELEMENTS))


def _elements(for_each: Expression, place: Place) -> Iterator[Place]:
    found = value_at(for_each, place)
    parents = () if place.index is None else (*place.parents, place.value)
    for index, value in enumerate(found if isinstance(found, list) else []):
        yield Place(value, place.root, index, place.message, parents)


def value_at(expression: Expression, place: Place) -> JSON:
    """Return the value of an expression at a place; null where it fails."""
    try:
        return expression.evaluate(
            place.value, place.message, root=place.root, index=place.index, parents=place.parents
        )
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
    compression = source.get("compression") if isinstance(source, dict) else None
    places = []
    examples = tree.get("examples")
    roots = (
        [each["message"] for each in examples if isinstance(each, dict) and "message" in each]
        if isinstance(examples, list)
        else []
    )
    chosen = {key: value for key, value in options.items() if key != "format"}
    with suppress(OptionError, LookupError):
        chosen = dict(form.bind(chosen, lambda name, _option: _read_beside(document, name)))
    for sample in samples:
        if isinstance(sample, Row):
            places.append(Place(dict(sample.columns), dict(sample.columns), None, sample))
            continue
        with suppress(RecordError, LookupError, TypeError):
            content = expand(sample.payload, str(compression or "none"))
            root = form.decode(content, chosen, None, False)
            places.append(Place(root, root, None, sample))
    places += [Place(root, root) for root in roots]
    for text in _lists_around(document, pointer):
        with suppress(ExpressionError):
            places = _elements_of(compile_expression(text, tables=tables_of(document), parents=None), places)
    return places


def _read_beside(document: Document, name: str) -> bytes | None:
    try:
        return read_named(document, name)
    except Unreadable:
        return None


def _lists_around(document: Document, pointer: str) -> list[str]:
    """Return the expressions of `for_each` that lead to what the expression at `pointer` is evaluated on."""
    first, *rest = [*split_pointer(pointer), ""]
    places = {"for_each": [""], "points": ["", f"/points/{rest[0]}" if rest[0].isdigit() else "/points"]}
    found: list[str] = []
    for place in places.get(first, []):
        node = document.node(f"{place}/for_each")
        lists = [] if node is None else node.value if isinstance(node.value, list) else [node.value]
        _, is_inside, number = pointer.partition(f"{place}/for_each")
        if is_inside and pointer.startswith(f"{place}/for_each"):
            lists = lists[: int(number[1:] or 0)]
        found += [each for each in lists if isinstance(each, str)]
    return found


def tables_of(document: Document) -> dict[str, dict[str, JSON]]:
    """Return the tables of a document, also of one that does not compile."""
    tree = document.tree if isinstance(document.tree, dict) else {}
    tables = tree.get("tables")
    return {
        name: table for name, table in (tables if isinstance(tables, dict) else {}).items() if isinstance(table, dict)
    }
