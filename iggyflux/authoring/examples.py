"""Runs the `examples` of a document as tests, and compares the results with the expectations.

An example lists all results of its message: any other line or failure is a difference.  The result is data, which
`iggyflux test` prints.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any, Literal, cast

import msgspec

from iggyflux.authoring.samples import Coordinates
from iggyflux.errors import LineProtocolError, Location, RecordError
from iggyflux.lineprotocol import Point, parse_lines
from iggyflux.mapping import ReaderMapping, WriterMapping
from iggyflux.payloads import FORMATS, Options, compress, encode_payload, text_encoding
from iggyflux.payloads.format import encode_exactly
from iggyflux.records import JSON, Failure, Message, OutgoingMessage, Rendered, RenderedMessages, Row
from iggyflux.transports.local.envelopes import bare_message

DIFFERENT = "IFX510"
FAILED = "IFX511"
NOT_FAILED = "IFX512"
NOT_SKIPPED = "IFX513"
NOT_ENCODED = "IFX514"


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference between an example and the result.

    `expected` and `actual` are lines, codes or JSON texts, or None; `details` explain the difference.
    """

    code: str
    title: str
    expected: str | None = None
    actual: str | None = None
    details: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ExampleResult:
    """The result of one example; it passed if there are no differences.  `number` counts from 1."""

    number: int
    name: str | None
    location: Location
    differences: tuple[Difference, ...] = ()

    @property
    def passed(self) -> bool:
        """Return whether there are no differences."""
        return not self.differences

    @property
    def title(self) -> str:
        """Return the example's name, or its number."""
        return self.name or f"example {self.number}"


def run_examples(
    mapping: WriterMapping | ReaderMapping, kind: Literal["compiled", "reference"] = "compiled"
) -> list[ExampleResult]:
    """Run the examples of `mapping`, each on its own, in the document's order."""
    run = _WriterExamples(mapping, kind) if mapping.kind == "writer" else _ReaderExamples(mapping, kind)
    return [
        ExampleResult(number, _name(tree), mapping.locate(f"/examples/{number - 1}"), tuple(run(tree, number - 1)))
        for number, tree in enumerate(mapping.examples, 1)
    ]


def example_message(mapping: WriterMapping, tree: Mapping[str, Any], number: int) -> Message:
    """Return the message of a writer's example, with default coordinates (LANGUAGE 28).

    Raise RecordError if the payload format cannot encode it.
    """
    source = mapping.writer.source
    if "message" in tree:
        payload = encode_payload(tree["message"], source.payload)
    elif "message_json" in tree:
        payload = compress(_raw(tree["message_json"], source.payload.options), source.payload.compression)
    else:
        try:
            payload = b64decode(tree["payload_base64"], validate=True)
        except ValueError as error:
            raise RecordError(NOT_ENCODED, f"payload_base64 is not base64: {error}") from error
    meta: dict[str, Any] = dict(tree.get("meta") or {})
    coordinates = Coordinates.of(source)
    offset = meta.get("offset", number)
    filled = bare_message(payload, offset, stream=coordinates.stream, topic=coordinates.topic)
    timestamp = meta.get("timestamp", filled.timestamp_us)
    return Message(
        payload,
        meta.get("stream", filled.stream),
        meta.get("topic", filled.topic),
        meta.get("partition", 0),
        offset,
        timestamp,
        meta.get("origin_timestamp", timestamp),
        meta.get("id", 0),
        tree.get("headers") or {},
    )


def _raw(text: str, options: Options) -> bytes:
    """Return a text as the bytes of a payload; of UTF-8 also one that is not valid."""
    encoding = text_encoding(options)
    return (
        text.encode("utf-8", "surrogatepass") if encoding == "utf-8" else encode_exactly(text, "the example", options)
    )


def example_rows(tree: Mapping[str, Any], measurement: str) -> list[Row]:
    """Return the rows of a reader's example; `measurement` is the default."""
    meta = tree.get("meta") or {}
    window = tuple(meta["window"]) if "window" in meta else None
    rows = tree["rows"] if "rows" in tree else [tree["row"]]
    columns = [{name: value for name, value in row.items() if value is not None} for row in rows]
    return [Row(each, meta.get("measurement", measurement), window) for each in columns]


def _name(tree: Mapping[str, Any]) -> str | None:
    name = tree.get("name")
    return name if isinstance(name, str) else None


def render_examples(
    mapping: WriterMapping | ReaderMapping, plan: Any
) -> Iterator[tuple[int, Rendered | RenderedMessages]]:
    """Yield what `plan` renders from each example of `mapping` that can be encoded, with its number from 0."""
    for number, tree in enumerate(mapping.examples):
        if mapping.kind == "reader":
            yield number, plan.render(example_rows(tree, mapping.reader.source.measurement or ""))
            continue
        try:
            message = example_message(mapping, tree, number)
        except RecordError:
            continue
        yield number, plan.render([message])


def actual_result(mapping: WriterMapping | ReaderMapping, number: int) -> dict[str, Any] | None:
    """Return what comes of example `number` (from 0), as the members that an example says it with.

    None if the message cannot be encoded.
    """
    tree, plan = mapping.examples[number], cast(Any, mapping.plan())
    if isinstance(mapping, ReaderMapping):
        run = _ReaderExamples(mapping, "compiled")
        made = plan.render(example_rows(tree, mapping.reader.source.measurement or ""))
        wanted: list[Any] = [*(cast(Any, tree.get("messages")) or [])]
        messages = [run.as_tree(each, like) for each, like in _paired(made.messages, wanted)]
        codes = [failure.code for failure in made.failures]
        return ({"fails": codes} if codes else {}) | ({"messages": messages} if messages or not codes else {})
    try:
        message = example_message(mapping, tree, number)
    except RecordError:
        return None
    rendered = plan.render([message])
    if rendered.skipped:
        return {"skipped": True}
    codes = [failure.code for failure in rendered.failures]
    lines = list(rendered.lines)
    return ({"fails": codes} if codes else {}) | ({"points": lines} if lines or not codes else {})


class _WriterExamples:
    """Runs the examples of a writer document."""

    def __init__(self, mapping: WriterMapping, kind: Literal["compiled", "reference"]) -> None:
        self._mapping = mapping
        self._plan = mapping.plan(kind)

    def __call__(self, tree: Mapping[str, Any], number: int) -> Iterator[Difference]:
        try:
            message = example_message(self._mapping, tree, number)
        except RecordError as error:
            yield Difference(NOT_ENCODED, "the message cannot be encoded", details=(error.reason,))
            return
        rendered = self._plan.render([message])
        if tree.get("skipped") and not rendered.skipped:
            yield Difference(NOT_SKIPPED, "the message is not skipped", "skipped", self._outcome(rendered.lines))
        yield from self._compare_failures(_codes(tree), rendered.failures)
        yield from compare_lines(tree.get("points") or [], rendered.lines)

    def _outcome(self, lines: Sequence[str]) -> str:
        return (
            f"{len(lines)} line{'' if len(lines) == 1 else 's'}" if lines else "no points, but not skipped by `where`"
        )

    def _compare_failures(self, expected: Sequence[str], failures: Sequence[Failure]) -> Iterator[Difference]:
        found = [failure.code for failure in failures]
        if list(expected) == found:
            return
        details = tuple(self._describe(failure) for failure in failures)
        if expected:
            shown = " ".join(found) if found else "no failure"
            yield Difference(NOT_FAILED, "other failures than expected", " ".join(expected), shown, details)
        else:
            yield Difference(FAILED, "a record fails", None, " ".join(found), details)

    def _describe(self, failure: Failure) -> str:
        place = self._mapping.locate(failure.location)
        element = ", ".join(filter(None, (str(place), failure.shown_element)))
        return f"{failure.code} at {element}: {failure.reason_and_hint}"


class _ReaderExamples:
    """Runs the examples of a reader document."""

    def __init__(self, mapping: ReaderMapping, kind: Literal["compiled", "reference"]) -> None:
        self._mapping = mapping
        self._measurement = mapping.reader.source.measurement or ""
        self._plan = mapping.plan(kind)

    def __call__(self, tree: Mapping[str, Any], _number: int) -> Iterator[Difference]:
        rendered = self._plan.render(example_rows(tree, self._measurement))
        expected = _codes(tree)
        found = [failure.code for failure in rendered.failures]
        if expected != found:
            details = tuple(
                f"{failure.code} at {self._mapping.locate(failure.location)}: {failure.reason_and_hint}"
                for failure in rendered.failures
            )
            yield Difference(
                NOT_FAILED if expected else FAILED,
                "other failures than expected" if expected else "a row fails",
                " ".join(expected) or None,
                " ".join(found) or "no failure",
                details,
            )
        wanted = tree.get("messages") or []
        made = [self.as_tree(message, like) for message, like in _paired(rendered.messages, wanted)]
        yield from _compare_texts([_sorted_json(each) for each in wanted], [_sorted_json(each) for each in made])

    def as_tree(self, message: OutgoingMessage, like: Mapping[str, Any]) -> dict[str, Any]:
        """Return a message in the form of an example; optional members only if `like` has them."""
        made: dict[str, Any] = {"payload": self._decoded(message.payload)}
        known = (("key", message.key), ("headers", dict(message.headers)), ("timestamp", message.timestamp_ns))
        made.update((name, value) for name, value in known if name in like)
        return made

    def _decoded(self, payload: bytes) -> JSON:
        form = FORMATS[self._mapping.reader.target.payload]
        try:
            return form.decode(payload, {}, None, False)
        except RecordError:
            return payload.decode("utf-8", "backslashreplace")


def _paired(messages: Sequence[OutgoingMessage], wanted: Sequence[Any]) -> Iterator[tuple[OutgoingMessage, Any]]:
    for index, message in enumerate(messages):
        yield message, wanted[index] if index < len(wanted) else {}


def _sorted_json(value: JSON) -> str:
    return msgspec.json.encode(value, order="sorted").decode()


def _codes(tree: Mapping[str, Any]) -> list[str]:
    codes = tree.get("fails") or []
    return [codes] if isinstance(codes, str) else list(codes)


# --- differences ---


def compare_lines(expected: Sequence[str], actual: Sequence[str]) -> Iterator[Difference]:
    """Yield the differences between lines, with corresponding lines paired."""
    for wanted, made in _aligned(expected, actual):
        if wanted is None:
            yield Difference(DIFFERENT, "an unexpected line", None, made)
        elif made is None:
            yield Difference(DIFFERENT, "a line is missing", wanted, None, _parse_problem(wanted))
        else:
            yield Difference(DIFFERENT, "a line differs", wanted, made, tuple(explain_lines(wanted, made)))


def _compare_texts(expected: Sequence[str], actual: Sequence[str]) -> Iterator[Difference]:
    for wanted, made in _aligned(expected, actual):
        what = "a message differs"
        if wanted is None or made is None:
            what = "a message is missing" if made is None else "an unexpected message"
        yield Difference(DIFFERENT, what, wanted, made)


def _aligned(expected: Sequence[str], actual: Sequence[str]) -> Iterator[tuple[str | None, str | None]]:
    """Yield pairs of texts that differ; a text without a counterpart is paired with None."""
    matcher = SequenceMatcher(None, expected, actual, autojunk=False)
    for kind, start, stop, from_, to in matcher.get_opcodes():
        if kind == "equal":
            continue
        wanted, made = expected[start:stop], actual[from_:to]
        for index in range(max(len(wanted), len(made))):
            yield (
                wanted[index] if index < len(wanted) else None,
                made[index] if index < len(made) else None,
            )


def explain_lines(expected: str, actual: str) -> Iterator[str]:
    """Yield the differences between two lines, part by part."""
    try:
        wanted, made = _one_point(expected), _one_point(actual)
    except LineProtocolError as error:
        yield f"the expected line is not line protocol: column {error.column}: {error.reason}"
        return
    if wanted.measurement != made.measurement:
        yield f"measurement: expected {wanted.measurement}, found {made.measurement}"
    yield from _explain_members("tag", wanted.tags, made.tags, str)
    yield from _explain_members("field", wanted.fields, made.fields, _field_text)
    if wanted.timestamp_ns != made.timestamp_ns:
        yield f"timestamp: expected {wanted.timestamp_ns}, found {made.timestamp_ns}{_apart(wanted, made)}"
    if wanted == made:
        yield "the same point, formatted differently: tags and fields are sorted by key, floats are written as 7.0"


def _one_point(line: str) -> Point:
    points = parse_lines(line)
    if len(points) != 1:
        raise LineProtocolError("it is not one line", 1, 1)
    return points[0]


def _parse_problem(line: str) -> tuple[str, ...]:
    try:
        _one_point(line)
    except LineProtocolError as error:
        return (f"the expected line is not line protocol: column {error.column}: {error.reason}",)
    return ()


def _explain_members(kind: str, wanted: Mapping[str, Any], made: Mapping[str, Any], text: Any) -> Iterator[str]:
    for key in sorted({*wanted, *made}):
        if key not in made:
            yield f"{kind} {key}: expected {text(wanted[key])}, found nothing"
        elif key not in wanted:
            yield f"{kind} {key}: unexpected {text(made[key])}"
        elif text(wanted[key]) != text(made[key]):
            yield f"{kind} {key}: expected {text(wanted[key])}, found {text(made[key])}"


def _field_text(value: Any) -> str:
    point = Point("m", {}, {"f": value})
    return point.encode().partition("=")[2]


def _apart(wanted: Point, made: Point) -> str:
    if wanted.timestamp_ns is None or made.timestamp_ns is None:
        return ""
    apart = made.timestamp_ns - wanted.timestamp_ns
    for size, unit in ((86_400_000_000_000, "d"), (3_600_000_000_000, "h"), (1_000_000_000, "s")):
        if abs(apart) >= size:
            return f" ({abs(apart) / size:.6g} {unit} {'later' if apart > 0 else 'earlier'})"
    return ""
