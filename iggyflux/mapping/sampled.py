"""What the document's own examples show about it: members that none has, units of times, lost nanoseconds.

An example is what the author knows of real messages, so what suits none of them is hardly meant.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal

from iggyflux.errors import EvaluationError
from iggyflux.expressions import Expression, static_path
from iggyflux.mapping.reading import Reading, items_of
from iggyflux.records import JSON
from iggyflux.spec import PointSpec, Timestamp, TimestampFormat, Writer
from iggyflux.timestamps import UNITS_NS, TimestampError, likely_unit, scale_number

NO_MEMBER = "IFX157"
OTHER_UNIT = "IFX158"
LOST_NANOSECONDS = "IFX159"
_FRACTION = re.compile(r"(?<![\w.])-?[0-9]+\.[0-9]+(?:[eE][+-]?[0-9]+)?(?![\w.])")


@dataclass(frozen=True, slots=True)
class _Element:
    """What points are made of in one example; `text` is the example as it is written."""

    value: JSON
    root: JSON
    index: int | None
    text: str

    def evaluate(self, expression: Expression) -> JSON:
        try:
            return expression.evaluate(self.value, root=self.root, index=self.index)
        except EvaluationError:
            return None

    def has(self, start: str, path: Sequence[str]) -> bool:
        """Return whether there is a member at `path`, also one that is null."""
        value = self.root if start == "root" else self.value
        for name in path:
            if not isinstance(value, dict) or name not in value:
                return False
            value = value[name]
        return True


def warn_from_examples(reading: Reading, writer: Writer) -> None:
    """Warn of what suits none of the examples; a document without examples has no such warnings."""
    elements = list(_elements(reading, writer))
    if not elements:
        return
    for point in writer.points:
        _warn_of_members(reading, point, elements)
        if isinstance(point.timestamp.source, Expression):
            _warn_of_times(reading, point.timestamp, point.timestamp.source, elements)


def _elements(reading: Reading, writer: Writer) -> Iterator[_Element]:
    examples = reading.tree.get("examples")
    for tree, pointer in items_of(examples if isinstance(examples, list) else None, "/examples"):
        node = reading.document.node(pointer)
        text = "" if node is None else reading.document.text[node.start : node.end]
        if "message" in tree:
            root = tree["message"]
        elif writer.source.payload.format == "json" and isinstance(tree.get("message_json"), str):
            text = str(tree["message_json"])
            try:
                root = json.loads(text)
            except (ValueError, RecursionError):
                continue
        else:
            continue
        if writer.for_each is None:
            yield _Element(root, root, None, text)
            continue
        found = _Element(root, root, None, text).evaluate(writer.for_each)
        for index, value in enumerate(found if isinstance(found, list) else []):
            yield _Element(value, root, index, text)


def _warn_of_members(reading: Reading, point: PointSpec, elements: Sequence[_Element]) -> None:
    """Warn of a measurement or tag that no example has: `site: berlin` is a member, not a text."""
    sources = [point.measurement, *(tag.source for tag in point.tags if tag.default is None)]
    for source in sources:
        path = static_path(source) if isinstance(source, Expression) else None
        if not isinstance(source, Expression) or path is None or not path[1]:
            continue
        if not any(element.has(*path) for element in elements):
            hint = f"for a fixed text write {{const: {source.text}}}" if source.text.isidentifier() else None
            reading.warn(NO_MEMBER, source.location, f"no example has a member {source.text}", hint=hint)


def _warn_of_times(reading: Reading, timestamp: Timestamp, source: Expression, elements: Sequence[_Element]) -> None:
    """Warn of a time that is plausible in another unit only, and of one whose nanoseconds a double cannot hold."""
    unit = timestamp.format
    if unit.value not in UNITS_NS:
        return
    values = [(element, element.evaluate(source)) for element in elements]
    numbers = [(element, value) for element, value in values if isinstance(value, (int, float)) and value is not True]
    for _, value in numbers:
        likely = likely_unit(value, unit.value)
        if likely is not None:
            other, day = likely
            message = f"the time {value!r} of an example is not plausible in {unit.value}"
            reading.warn(
                OTHER_UNIT, timestamp.pointer, message, hint=f"as {other} it would be {day}: set format: {other}"
            )
            break
    for element, value in numbers:
        if isinstance(value, float) and (token := _rounded(element.text, value, unit)) is not None:
            message = f"the time {token} of an example is read as {value!r}: a double has no room for its nanoseconds"
            hint = "nanoseconds need an integer (unix_ns) or a string"
            reading.warn(LOST_NANOSECONDS, timestamp.pointer, message, hint=hint)
            break


def _rounded(text: str, value: float, unit: TimestampFormat) -> str | None:
    """Return the number in `text` that is read as `value`, if it is another time."""
    scale = UNITS_NS[unit.value]
    for token in _FRACTION.findall(text):
        try:
            if float(token) == value and scale_number(value, scale) != round(Decimal(token) * scale):
                return str(token)
        except TimestampError:
            continue
    return None
