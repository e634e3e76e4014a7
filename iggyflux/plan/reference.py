"""The reference plan: decode, evaluate, build a Point, encode; one record at a time.

This file is the specification.  It is written to be obviously right and takes no shortcut.  The compiled plan must
equal it in lines, origins, failures, skips and order, for every document and every batch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cache, partial
from itertools import accumulate, chain
from types import MappingProxyType

import msgspec

from iggyflux.errors import DecodeError, EvaluationError, PartlyDecoded, PointError, RecordError
from iggyflux.expressions import Budget, Expression, truth
from iggyflux.expressions.lowering import static_path
from iggyflux.lineprotocol import (
    MAX_NS,
    MIN_NS,
    Dialect,
    LinePart,
    Point,
    Precision,
    Unsigned,
    check_part,
    replace_invalid,
    shorten,
)
from iggyflux.payloads import FORMATS, expand
from iggyflux.payloads.binary import is_plain
from iggyflux.payloads.format import Format, Options
from iggyflux.payloads.recognition import explained
from iggyflux.plan.bounds import (
    MAX_LINE_CHARACTERS,
    MAX_NAME_CHARACTERS,
    TOO_MUCH,
    Failures,
    Order,
    Room,
    Work,
    most_elements,
)
from iggyflux.plan.reads import payload_reads
from iggyflux.records import JSON, Failure, Message, Rendered, Scalar
from iggyflux.spec import Collisions, Field, PointSpec, Source, Star, Tag, Timestamp, TimestampFormat, Writer
from iggyflux.timestamps import (
    TimestampError,
    likely_unit,
    parse_flexible,
    parse_pattern,
    parse_rfc3339,
    scale_number,
)
from iggyflux.values import (
    INEXACT,
    KEEPS_NUMBERS,
    FieldType,
    bucket_fault,
    comma_hint,
    convert,
    describe,
    rounded_numbers,
    tag_text,
)

TOO_MANY_STEPS = "IFX303"
NOT_A_LIST = "IFX343"
NOT_A_STRING = "IFX344"
MISSING = "IFX345"
NO_FIELD = "IFX346"
DUPLICATE_KEY = "IFX347"
NOT_AN_OBJECT = "IFX348"
BAD_TIMESTAMP = "IFX349"
NO_TIMESTAMP = "IFX350"
COLLISION = "IFX351"
NO_ROOM = "IFX353"
NS_PER_US = 1000
NO_TAGS: Mapping[str, str] = MappingProxyType({})
_LONGEST_NAME = 100

Path = tuple[str | int, ...]
UNITS = {
    TimestampFormat.UNIX_S: 1_000_000_000,
    TimestampFormat.UNIX_MS: 1_000_000,
    TimestampFormat.UNIX_US: 1_000,
    TimestampFormat.UNIX_NS: 1,
}


@dataclass(frozen=True, slots=True)
class _Scope:
    """What an expression sees besides the value that it is evaluated on.

    `rounded` is `rounded_numbers`, cached so that each text of a message is searched once for each type.  `budget` and
    `names` bound what the expressions and `flatten` make of the message.  `bad` collects the failures of values that
    the point being made omits.  `finite` is `root` with null for NaN and infinities, which only plain paths see: no
    function could sort or compare them; `finite_parents` are `parents` so.  Their unsigned integers are plain ones;
    `selected` is `root` with null for NaN and with unsigned integers, for expressions that call no function.

    Of an element, `index` is its position in its list, `parents` are the elements around it (the outermost first), and
    `positions` where they and the element are in their lists.  `number` counts the elements of the innermost list from
    the first of the message on.  `row` is the element of the outermost list that it is in, and `line_of` tells the
    line of the payload where that begins.
    """

    message: Message
    root: JSON
    finite: JSON
    selected: JSON
    index: int | None
    is_text: bool
    rounded: Callable[[bytes, FieldType], frozenset[float]]
    budget: Budget
    names: Room
    bad: list[RecordError]
    parents: tuple[JSON, ...] = ()
    finite_parents: tuple[JSON, ...] = ()
    positions: tuple[int, ...] = ()
    number: int | None = None
    line_of: Callable[[JSON], int | None] = lambda row: None  # noqa: ARG005  (no rows)
    row: JSON = None

    @property
    def inside(self) -> str:
        """The words that say, under `for_each`, that a value is missing in the element."""
        return "" if self.index is None else " in the element"

    @property
    def outside(self) -> str:
        """The words that say, under `for_each`, how to reach what is around the element."""
        around = "parent() is the element around it, " if self.parents else ""
        return f"{around}root() is the whole message"

    def evaluate(self, source: Source, value: JSON) -> JSON:
        if not isinstance(source, Expression):
            return source.value
        root, parents = self.root, self.parents
        if self.finite is not root and static_path(source) is None:
            if source.selects:
                return source.evaluate(self._selected(value), self.message, index=self.index, budget=self.budget)
            value, root, parents = self.finite if value is root else finite(value), self.finite, self.finite_parents
        return source.evaluate(value, self.message, root=root, index=self.index, budget=self.budget, parents=parents)

    def _selected(self, value: JSON) -> JSON:
        """Return `value` as expressions see it that call no function."""
        if value is self.root:
            return self.selected
        return value if self.selected is self.root else finite(value, unsigned=True)

    def around(self, value: JSON) -> _Scope:
        """Return the scope of the elements inside `value`, which this one is the scope of."""
        if self.index is None:
            return self
        same = self.finite is self.root
        return replace(
            self,
            parents=(*self.parents, value),
            finite_parents=(*self.finite_parents, value if same else finite(value)),
        )

    def convert(self, value: JSON, field: Field | Star) -> Scalar:
        """Return the field value of `value`, which the source of `field` gave.

        Raise RecordError, also for a number that was rounded.
        """
        kind, cast, source = field.type, field.cast, field.source
        if cast and kind in KEEPS_NUMBERS and isinstance(value, float):
            written = [self.message.payload] if self.is_text else []
            written += [source.text.encode()] if isinstance(source, Expression) else []
            if any(value in self.rounded(text, kind) for text in written):
                reason = f"the number in the message cannot be stored exactly: its float is {value!r}"
                raise RecordError(INEXACT, reason, hint="let the producer send an integer")
        may_be_omitted = isinstance(field, Star) or not field.required
        return convert(value, kind, cast, field.on_bad_value if may_be_omitted else None)


@dataclass(frozen=True, slots=True)
class _Record:
    """A point that was made, before collisions are settled."""

    order: Order
    scope: _Scope
    number: int
    point: Point
    bucket: str = ""


class ReferencePlan:
    """A writer document as a pure function from messages to lines; thread-safe, without state between calls."""

    def __init__(
        self, writer: Writer, dialect: Dialect, precision: Precision, tags: Mapping[str, str] = NO_TAGS
    ) -> None:
        """`tags` are added to each point that does not have a tag of that name."""
        self.writer = writer
        self.dialect = dialect
        self.precision = precision
        self.tags = tags
        self._reads = payload_reads(writer)
        self._format = FORMATS[writer.source.payload.format]
        parts = [each for spec in writer.points for each in (spec.fields, spec.field_stars)]
        omits = any(each.on_bad_value == "omit" for part in parts for each in part)
        source, typed = writer.source, writer.keeps_types
        self._has_non_finite = omits and self._format.decode_non_finite is not None
        self._is_special = self._has_non_finite or (typed and self._format.decode_typed is not None)
        self._decode_payload = self._format.bound(
            source.payload.options, self._reads, source.strict, non_finite=omits, typed=typed
        )
        self._find_undeclared = self._format.finder_of_undeclared(source.payload.options, source.strict)

    def render(self, messages: Sequence[Message]) -> Rendered:
        """Return lines, origins and failures of `messages`, in their order; never raise for what a message contains."""
        return joined(self.render_parts(messages))

    def may_take_long(self, _messages: Sequence[Message]) -> bool:
        """Return True: expressions are evaluated."""
        return True

    def render_parts(self, messages: Sequence[Message]) -> Iterator[tuple[int, Rendered]]:
        """Yield what `render` returns in parts: the number of messages, and what they become.

        The work for a part is bounded, or it is one message.
        """
        outcomes: list[tuple[int, Rendered]] = []
        work = Work()
        for message in messages:
            outcomes.append((1, self.render_message(0, message, work)))
            if work.is_enough:
                yield len(outcomes), joined(outcomes)
                outcomes, work = [], Work()
        if outcomes:
            yield len(outcomes), joined(outcomes)

    def render_message(self, index: int, message: Message, work: Work | None = None) -> Rendered:
        """Return what `render` gives for one message, which is at `index` of a batch; add what it takes to `work`."""
        budget = Budget()
        failures = Failures()
        undeclared: Sequence[int] = ()
        try:
            message = self._expand(message)
            root = self._decode(index, message, failures)
            if self._find_undeclared is not None:
                undeclared = self._find_undeclared([message.payload])
            rendered = self._render(index, message, root, budget, failures)
        except RecordError as error:
            failures.add(_failure(index, None, None, error))
            rendered = Rendered(failures=failures.in_order())
        if undeclared:
            rendered = replace(rendered, undeclared=[index])
        if work is not None:
            work.add(budget, len(rendered.lines) + sum(failure.count for failure in rendered.failures))
        return rendered

    def _expand(self, message: Message) -> Message:
        """Return the message with what its payload expands to."""
        compression = self.writer.source.payload.compression
        if compression == "none":
            return message
        try:
            return msgspec.structs.replace(message, payload=expand(message.payload, compression))
        except DecodeError as error:
            raise error.at("/from/compression") from None

    def _decode(self, index: int, message: Message, failures: Failures) -> JSON:
        """Return the payload; what of it could not be decoded is added to `failures`."""
        source = self.writer.source
        try:
            root = self._decode_payload(message.payload)
        except PartlyDecoded as error:
            first, *others = error.errors
            if not error.value:
                first = explained(first, message.payload, source.payload.format)
            for each in (first, *others):
                failures.add(_failure(index, None, None, each.at("/from/payload")))
            root = error.value
        except DecodeError as error:
            raise explained(error, message.payload, source.payload.format).at("/from/payload") from None
        return root

    def _render(self, index: int, message: Message, root: JSON, budget: Budget, failures: Failures) -> Rendered:
        names = Room(MAX_NAME_CHARACTERS, "the names that flatten makes of this message")
        numbers = selected = root
        if self._is_special and not is_plain(root):
            numbers = finite(root)
            selected = finite(root, unsigned=True) if self._has_non_finite else root
        is_text = not self._format.binary
        line_of = _line_finder(self._format, message.payload, self.writer.source.payload.options, root)
        rounded = cache(rounded_numbers)
        scope = _Scope(message, root, numbers, selected, None, is_text, rounded, budget, names, [], line_of=line_of)
        if self.writer.where is not None and not truth(_evaluate(scope, self.writer.where, root, "/where")):
            return Rendered(failures=kept) if (kept := failures.in_order()) else Rendered(skipped=[index])
        records: list[_Record] = []
        omitted = Failures()
        room = Room(MAX_LINE_CHARACTERS, "the lines of this message")
        elements = list(self._elements(scope, failures, index))  # too many must be found before points are made
        for inner, value, number, order in elements:
            inner.bad.clear()
            spec = self.writer.points[number]
            try:
                point = self._point(inner, value, spec)
                bucket = "" if point is None else self._bucket(inner, value, spec)
            except RecordError as error:
                if error.code == TOO_MUCH:
                    raise
                failures.add(_failure(index, inner, number, error), order)
            else:
                for bad in inner.bad:
                    omitted.add(_failure(index, inner, number, bad), order)
                if point is not None:
                    room.take(len(point.encode(self.dialect, self.precision)), spec.pointer)
                    records.append(_Record(order, inner, number, point, bucket))
        if not elements:
            return Rendered(failures=kept) if (kept := failures.in_order()) else Rendered(empty=[index])
        lines, buckets = [], []
        for order, outcome, bucket in self._settle_collisions(records, partial(_failure, index)):
            if isinstance(outcome, Failure):
                failures.add(outcome, order)
            else:
                lines.append(outcome)
                buckets.append(bucket)
        kept = failures.in_order()
        if not lines and not kept:
            return Rendered(skipped=[index])
        chosen = buckets if self.writer.chooses_bucket else None
        return Rendered(lines, [index] * len(lines), kept, omitted=omitted.in_order(), buckets=chosen)

    def _elements(self, scope: _Scope, failures: Failures, index: int) -> Iterator[tuple[_Scope, JSON, int, Order]]:
        """Yield the records: scope and value, the item of `points`, and the place among the others.

        A list that fails is added to `failures`; the records of other elements are made.
        """
        points = self.writer.points
        counts = [[0] * len(spec.for_each) for spec in points]

        def fail(inner: _Scope, error: RecordError) -> None:
            failures.add(_failure(index, inner, None, error), (inner.positions, -1, ()))

        for outer, value in self._walk(scope, scope.root, self.writer.for_each, [0] * len(self.writer.for_each), fail):
            for number, spec in enumerate(points):
                if not spec.for_each:
                    yield outer, value, number, (outer.positions, number, ())
                    continue
                depth = len(outer.positions)

                def fail_own(inner: _Scope, error: RecordError, number: int = number, depth: int = depth) -> None:
                    order = inner.positions[:depth], number, inner.positions[depth:]
                    failures.add(_failure(index, inner, number, error), order)

                for inner, element in self._walk(outer, value, spec.for_each, counts[number], fail_own):
                    order = inner.positions[:depth], number, inner.positions[depth:]
                    yield inner, element, number, order

    def _walk(
        self,
        scope: _Scope,
        value: JSON,
        lists: Sequence[Expression],
        counts: list[int],
        fail: Callable[[_Scope, RecordError], None],
    ) -> Iterator[tuple[_Scope, JSON]]:
        """Yield the elements of nested lists with their scopes, or `value` itself if there are no lists.

        `counts` has how many elements each list has given of this message.
        """
        if not lists:
            yield scope, value
            return
        source, *deeper = lists
        try:
            found = self._list(scope, source, value)
        except RecordError as error:
            fail(scope, error)
            return
        around = scope.around(value)
        number = counts[-len(lists)]
        counts[-len(lists)] += len(found)
        most = most_elements(len(self.writer.points))
        if number + len(found) > most:
            raise RecordError(TOO_MUCH, f"for_each gives more than {most:,} elements", source.location)
        for index, element in enumerate(found):
            positions = (*scope.positions, index)
            row = scope.row if scope.positions else element
            inner = replace(around, index=index, number=number + index, positions=positions, row=row)
            yield from self._walk(inner, element, deeper, counts, fail)

    def _list(self, scope: _Scope, source: Expression, value: JSON) -> list[JSON]:
        found = _evaluate(scope, source, value, source.location)
        if found is None:
            return []
        if not isinstance(found, list):
            reason = f"expected a list from for_each, found {describe(found)}"
            raise RecordError(NOT_A_LIST, reason, source.location, _listing_hint(source, found))
        return found

    def _point(self, scope: _Scope, value: JSON, spec: PointSpec) -> Point | None:
        """Return the point that `spec` makes of `value`; None if its `where` is not true.

        Raise RecordError at the first failure.
        """
        pointer = spec.pointer
        if spec.where is not None and not truth(_evaluate(scope, spec.where, value, f"{pointer}/where")):
            return None
        measurement = self._measurement(scope, value, spec)
        tags = self._tags(scope, value, spec)
        fields = self._fields(scope, value, spec)
        if not fields and scope.bad:
            first = scope.bad[0]
            reason = f"all fields are null, missing or bad{scope.inside}: {first.reason}"
            hint = f"{first.hint}, or {_SKIP_HINT}" if first.hint else _SKIP_HINT
            raise RecordError(NO_FIELD, reason, first.location, hint)
        if not fields:
            reason = f"all fields are null or missing{scope.inside}{_without_members(scope, value)}"
            raise RecordError(
                NO_FIELD, reason, f"{pointer}/fields", self._header_hint(value) or _path_hint(scope, value)
            )
        timestamp_ns = self._timestamp(scope, value, spec)
        try:
            point = Point(measurement, tags, fields, timestamp_ns)
            point.encode(self.dialect, self.precision)
        except PointError as error:
            raise error.at(pointer) from None
        return point

    def _bucket(self, scope: _Scope, value: JSON, spec: PointSpec) -> str:
        """Return the bucket of a point; "" is the one of the pipeline."""
        if spec.to is None:
            return ""
        name = _evaluate(scope, spec.to.source, value, spec.to.pointer)
        if name is None or name == "":
            hint = "write EXPR || 'NAME' for a bucket of all other points"
            raise RecordError(MISSING, f"the bucket is null, missing or empty{scope.inside}", spec.to.pointer, hint)
        if (fault := bucket_fault(name)) is not None:
            raise RecordError(NOT_A_STRING, fault, spec.to.pointer)
        return str(name)

    def _measurement(self, scope: _Scope, value: JSON, spec: PointSpec) -> str:
        pointer = f"{spec.pointer}/measurement"
        name = _evaluate(scope, spec.measurement, value, pointer)
        if name is None or name == "":
            reason = "the measurement is null, missing or empty"
            hint = _fixed_name_hint(spec.measurement)
            if not isinstance(value, dict):
                reason, hint = reason + _without_members(scope, value), _path_hint(scope, value)
            raise RecordError(MISSING, reason, pointer, hint)
        if not isinstance(name, str):
            reason = f"expected a string as measurement, found {describe(name)}"
            raise RecordError(NOT_A_STRING, reason, pointer, _fixed_name_hint(spec.measurement))
        return self._name(LinePart.MEASUREMENT, name, pointer)

    def _tags(self, scope: _Scope, value: JSON, spec: PointSpec) -> dict[str, str]:
        tags: dict[str, str] = {}
        for tag in spec.tags:
            text = self._tag(scope, value, tag)
            if text is not None:
                tags[self._name(LinePart.TAG_KEY, tag.key, tag.pointer)] = self._name(
                    LinePart.TAG_VALUE, text, tag.pointer
                )
        named = {tag.key for tag in spec.tags}
        for star in spec.tag_stars:
            for key, member in self._members(scope, value, star, named):
                with _Located(star.pointer, key, _nested_hint(star, member)):
                    text = tag_text(member)
                if text is not None:
                    name = self._name(LinePart.TAG_KEY, key, star.pointer)
                    _refuse_duplicate(name in tags, "tag", name, star.pointer)
                    tags[name] = self._name(LinePart.TAG_VALUE, text, star.pointer)
        return {**self.tags, **tags}

    def _tag(self, scope: _Scope, value: JSON, tag: Tag) -> str | None:
        with _Located(tag.pointer):
            text = tag_text(_evaluate(scope, tag.source, value, tag.pointer))
            if text is None and tag.default is not None:
                text = tag_text(tag.default)
        if text is None and tag.required:
            reason = f"tag {tag.key!r} is required, but null, missing or empty{scope.inside}"
            raise RecordError(MISSING, reason, tag.pointer, _REQUIRED_HINT)
        return text

    def _fields(self, scope: _Scope, value: JSON, spec: PointSpec) -> dict[str, Scalar]:
        fields: dict[str, Scalar] = {}
        for field in spec.fields:
            scalar = self._field(scope, value, field)
            if scalar is not None:
                fields[self._name(LinePart.FIELD_KEY, field.key, field.pointer)] = scalar
        named = {field.key for field in spec.fields}
        for star in spec.field_stars:
            for key, member in self._members(scope, value, star, named):
                try:
                    hint = _nested_hint(star, member) or self._comma_hint(member, star)
                    with _Located(star.pointer, key, hint):
                        scalar = scope.convert(member, star)
                except RecordError as error:
                    if star.on_bad_value == "fail":
                        raise
                    scope.bad.append(error)
                    continue
                name = self._name(LinePart.FIELD_KEY, key, star.pointer)
                _refuse_duplicate(name in fields, "field", name, star.pointer)
                fields[name] = scalar
        return fields

    def _field(self, scope: _Scope, value: JSON, field: Field) -> Scalar | None:
        try:
            found = _evaluate(scope, field.source, value, field.pointer, typed=field.type is FieldType.PAYLOAD)
            if found is not None:
                with _Located(field.pointer, hint=self._comma_hint(found, field)):
                    return scope.convert(found, field)
        except RecordError as error:
            if field.on_bad_value == "fail" or field.required or error.code == TOO_MANY_STEPS:
                raise
            scope.bad.append(error)
        if field.required:
            reason = f"field {field.key!r} is required, but null or missing{scope.inside}"
            raise RecordError(MISSING, reason, field.pointer, _REQUIRED_HINT)
        return field.default

    def _members(self, scope: _Scope, value: JSON, star: Star, named: set[str]) -> Iterator[tuple[str, JSON]]:
        """Yield name and value of each member that `star` takes: not used, not named, not null, and in the globs."""
        found = _evaluate(scope, star.source, value, star.pointer, deep=star.flatten is not None)
        if found is None:
            return
        if not isinstance(found, dict):
            reason = f"expected an object from {star.prefix}*, found {describe(found)}"
            raise RecordError(NOT_AN_OBJECT, reason, star.pointer, _OBJECT_HINTS.get(type(found)))
        for key, member in found.items():
            for path, leaf in leaves((key,), member, star.flatten is not None):
                if leaf is None or star.is_used(path):
                    continue
                name = star.prefix + (star.flatten or "").join(map(str, path))
                if star.flatten is not None:
                    scope.names.take(len(name) + len(path), star.pointer)
                if name not in named and selected(name, star):
                    yield name, leaf

    def _timestamp(self, scope: _Scope, value: JSON, spec: PointSpec) -> int:
        timestamp = spec.timestamp
        found: JSON = None
        if timestamp.source is not None:
            found = _evaluate(scope, timestamp.source, value, timestamp.pointer)
        if found is not None:
            with _Located(timestamp.pointer):
                ns = parse_timestamp(found, timestamp)
        elif timestamp.source is None or timestamp.default_message:
            ns = scope.message.timestamp_us * 1000
        else:
            hint = self._header_hint(value) or "`default: message` takes the message's own timestamp"
            if scope.inside:
                hint += f"; paths start at the element, and {scope.outside}"
            raise RecordError(NO_TIMESTAMP, f"the timestamp is null or missing{scope.inside}", timestamp.pointer, hint)
        if timestamp.spread is not None:
            ns += _spread(scope, timestamp, ns)
        if not MIN_NS <= ns <= MAX_NS:
            raise RecordError(BAD_TIMESTAMP, f"{ns} ns is outside the years 1677 to 2262", timestamp.pointer)
        return ns

    def _comma_hint(self, value: JSON, field: Field | Star) -> str | None:
        is_cell = self.writer.source.payload.format == "csv"
        return comma_hint(value, field.type, field.cast) if is_cell else None

    def _header_hint(self, value: JSON) -> str | None:
        """Return what is wrong with the header of a csv payload, as a row `value` shows it, or None."""
        if self.writer.source.payload.format != "csv" or not isinstance(value, dict):
            return None
        for name in value:
            if name != name.strip():
                written = json.dumps(name[:_LONGEST_NAME], ensure_ascii=False)
                return f"the header has blanks around names: write {written} in the expression, or set `header`"
        separators = [each for each in ";\t|" if any(each in name for name in value)]
        if len(value) == 1 and separators:
            return f"the header has one name: set the `delimiter` of the payload to {separators[0]!r}"
        return None

    def _name(self, part: LinePart, text: str, pointer: str) -> str:
        """Return `text` as `part` of a line, with invalid characters replaced if the document says so.

        `Point` rejects what is not replaced, for the same reason; the check here adds the place.
        """
        if self.writer.invalid_names == "replace":
            text = replace_invalid(text, part)
        try:
            return check_part(text, part)
        except PointError as error:
            raise RecordError(error.code, error.reason, pointer, _name_hint(text, part)) from None

    def _settle_collisions(
        self, records: Iterable[_Record], fail: Callable[[_Scope, int, RecordError], Failure]
    ) -> Iterator[tuple[Order, str | Failure, str]]:
        """Yield the lines of `records` with their buckets.

        The policy settles points of one bucket with one measurement, tags and time in the precision.

        A merged point has the place of the first one, and later fields win; `keep_last` keeps the place of the last
        one.
        """
        key: object
        kept: dict[object, _Record] = {}
        merged: dict[object, dict[str, Scalar]] = {}
        policy = self.writer.collisions
        for record in records:
            key = record.bucket, _identity(record.point, self.precision)
            first = kept.get(key)
            if first is None:
                kept[key] = record
            elif policy is Collisions.MERGE:
                merged.setdefault(key, dict(first.point.fields)).update(record.point.fields)
            elif policy is Collisions.KEEP_LAST:
                del kept[key]
                kept[key] = record
            else:
                error = RecordError(
                    COLLISION,
                    f"a second point of this message has the same measurement, tags and time: "
                    f"{record.point.encode(self.dialect, self.precision)}"[:200],
                    self.writer.points[record.number].pointer,
                    "add a tag or a finer timestamp, or set `collisions: merge` or `collisions: keep_last`",
                )
                yield record.order, fail(record.scope, record.number, error), record.bucket
        for key, fields in merged.items():
            first = kept[key]
            point = Point(first.point.measurement, first.point.tags, fields, first.point.timestamp_ns)
            kept[key] = replace(first, point=point)
        for record in kept.values():
            yield record.order, record.point.encode(self.dialect, self.precision), record.bucket


def joined(parts: Iterable[tuple[int, Rendered]]) -> Rendered:
    """Return the results of consecutive parts of a batch as one; each comes with its number of messages."""
    kept = list(parts)
    starts = [0, *accumulate(count for count, _ in kept)]
    placed = [(start, part) for start, (_, part) in zip(starts, kept, strict=False)]
    times = [part.times for _, part in kept if part.times is not None]
    return Rendered(
        list(chain.from_iterable(part.lines for _, part in kept)),
        list(chain.from_iterable(_moved(part.origins, start) for start, part in placed)),
        [replace(failure, index=start + failure.index) for start, part in placed for failure in part.failures],
        [start + index for start, part in placed for index in part.skipped],
        [start + index for start, part in placed for index in part.empty],
        next((part.fallback for _, part in placed if part.fallback is not None), None),
        [replace(value, index=start + value.index) for start, part in placed for value in part.omitted],
        list(chain.from_iterable(times)) if len(times) == len(kept) else None,
        _joined_buckets([part for _, part in placed]),
        [start + index for start, part in placed for index in part.undeclared],
    )


def _moved(origins: Sequence[int], start: int) -> Sequence[int]:
    """Return `origins` counted from `start` messages before them."""
    if type(origins) is range:  # a line of each message
        return range(start + origins.start, start + origins.stop)
    return [start + origin for origin in origins]


def _joined_buckets(parts: Sequence[Rendered]) -> list[str] | None:
    """Return the buckets of all lines; parts without lines have none."""
    if all(part.buckets is None for part in parts):
        return None
    return [bucket for part in parts for bucket in part.buckets or [""] * len(part.lines)]


def _spread(scope: _Scope, timestamp: Timestamp, ns: int) -> int:
    """Return the nanoseconds below a microsecond that keep points of the time `ns` apart (LANGUAGE 18)."""
    if ns % NS_PER_US:
        raise RecordError(NO_ROOM, f"the time {ns} has nanoseconds, so `spread` has no room", timestamp.pointer)
    if timestamp.spread == "index":
        position = scope.number or 0
        if position >= NS_PER_US:
            reason = f"element {position} is beyond the {NS_PER_US:,} that `spread: index` keeps apart"
            raise RecordError(NO_ROOM, reason, timestamp.pointer)
        return position
    message, partitions = scope.message, timestamp.partitions
    if message.partition >= partitions:
        reason = f"the message is of partition {message.partition}, but `spread` has room for {partitions}"
        raise RecordError(NO_ROOM, reason, timestamp.pointer, "set `partitions` to the topic's number of them")
    return message.offset % (NS_PER_US // partitions) * partitions + message.partition


def parse_timestamp(value: JSON, timestamp: Timestamp) -> int:
    """Return `value` (not null) as integer nanoseconds since the epoch.

    Raise RecordError.
    """
    kind = timestamp.format
    try:
        if kind in UNITS:
            if isinstance(value, bool) or not isinstance(value, (int, float, str)):
                raise TimestampError(f"expected a number or a numeric string, found {describe(value)}")
            return scale_number(value, UNITS[kind])
        if not isinstance(value, str):
            raise TimestampError(f"expected a string for format {kind.value}, found {describe(value)}")
        if kind is TimestampFormat.RFC3339:
            return parse_rfc3339(value)
        if kind is TimestampFormat.FLEXIBLE:
            return parse_flexible(value, timestamp.timezone, timestamp.dayfirst)
        return parse_pattern(value, timestamp.pattern or "", timestamp.timezone)
    except TimestampError as error:
        raise RecordError(BAD_TIMESTAMP, str(error), hint=_format_hint(value, timestamp)) from None


def _format_hint(value: JSON, timestamp: Timestamp) -> str | None:
    """Return the format in which `value` is a time, in numbers one between 1990 and 2100; None if there is none."""
    also = "" if timestamp.timezone is None else " without `timezone`"
    if isinstance(value, str):
        with suppress(TimestampError):
            parse_rfc3339(value)
            return f"declare `format: rfc3339`{also}"
        with suppress(ValueError):
            value = float(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    likely = likely_unit(value)
    return None if likely is None else f"declare `format: {likely[0]}`{also}, in which it is {likely[1]}"


def _identity(point: Point, precision: Precision) -> object:
    """Return what makes a later point overwrite an earlier one: measurement, tag set and the time as it is sent."""
    return point.measurement, tuple(sorted(point.tags.items())), (point.timestamp_ns or 0) // precision.divisor


def _without_members(scope: _Scope, value: JSON) -> str:
    """Return the words that say why no path gives anything: `value` is not an object."""
    what = "element" if scope.inside else "payload"
    return "" if isinstance(value, dict) else f" (the {what} is {describe(value)})"


def _path_hint(scope: _Scope, value: JSON) -> str | None:
    """Return what helps where no path gives anything in `value`."""
    if isinstance(value, dict):
        what = "elements" if scope.inside else "messages"
        check = f"check the paths, give a field a `default`, or skip such {what} with `where`"
        return f"{check}; {scope.outside}" if scope.inside else check
    if isinstance(value, list):
        flatten = "flatten the lists in `for_each`: xs[] instead of xs"
        return flatten if scope.inside else 'add `for_each: "@"` for points of its elements'
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        return "it is JSON in a string: parse_json(@) reads it"
    return None


def _listing_hint(source: Source | None, value: JSON) -> str:
    """Return how `for_each` could make a list of `value`."""
    text = source.text if isinstance(source, Expression) else ""
    if not isinstance(value, dict):
        return "select a list"
    return f"write [{text}] for points of the object itself, items({text}) for points of its members"


def _fixed_name_hint(source: Source) -> str | None:
    text = source.text if isinstance(source, Expression) else ""
    return f"for a fixed name write {{const: {text}}}" if text.isidentifier() else None


def _nested_hint(star: Star, member: JSON) -> str | None:
    return "add `flatten: _`" if star.flatten is None and isinstance(member, (dict, list)) else None


def _name_hint(text: str, part: LinePart) -> str | None:
    """Return the hint to replace what `part` of a line cannot hold, if that would help."""
    replaced = replace_invalid(text, part)
    return "set `invalid_names: replace`, or clean it with replace()" if replaced != text else None


_SKIP_HINT = "put `where:` in the point (points: - where: …) to skip it"
_REQUIRED_HINT = "remove `required`, or write a `default` instead"
_OBJECT_HINTS: dict[type, str] = {
    list: "make points of its elements with `for_each`, or members with {expr: '{cell: x}', flatten: _}",
    str: "select an object; parse_json(…) reads JSON in a string",
}
"""What to do where `*` finds something else than an object."""


def _failure(index: int, scope: _Scope | None, point: int | None, error: RecordError) -> Failure:
    """Return a failure of the element that `scope` is about, or of the whole message."""
    element, elements = (None, ()) if scope is None else (scope.number, _nested(scope.positions))
    line = error.payload_line if scope is None or element is None else scope.line_of(scope.row)
    kind = error.code, error.location, error.reason
    return Failure(index, element, point, *kind, hint=error.hint, elements=elements, payload_line=line)


def _line_finder(format_: Format, payload: bytes, options: Options, root: JSON) -> Callable[[JSON], int | None]:
    """Return what tells at which line of `payload` a row of `root` begins; they are counted when it is first asked."""
    if format_.row_lines is None or not isinstance(root, list):
        return lambda row: None  # noqa: ARG005
    count, rows = format_.row_lines, root

    @cache
    def lines() -> dict[int, int]:
        return dict(zip(map(id, rows), count(payload, options), strict=True))

    return lambda row: lines().get(id(row))


def _nested(positions: tuple[int, ...]) -> tuple[int, ...]:
    """Return the positions of an element if more than one list leads to it."""
    return positions if len(positions) > 1 else ()


def _evaluate(
    scope: _Scope, source: Source, value: JSON, pointer: str, *, deep: bool = False, typed: bool = False
) -> JSON:
    """Return the value of `source`; with `deep`, all of it is read, which takes steps where an expression made it.

    If `typed`, an unsigned integer of the payload remains one.
    """
    try:
        found = scope.evaluate(source, value)
        if type(found) is Unsigned and not typed:
            found = int(found)
        if deep and isinstance(source, Expression) and source.spends:
            scope.budget.spend_on(found, deep=True)
        return found
    except EvaluationError as error:
        raise error.at(pointer) from None


def finite(value: JSON, *, unsigned: bool = False) -> JSON:
    """Return `value` with null for NaN and infinities, and a plain integer for an unsigned one unless `unsigned`."""
    if isinstance(value, dict):
        return {key: finite(member, unsigned=unsigned) for key, member in value.items()}
    if isinstance(value, list):
        return [finite(element, unsigned=unsigned) for element in value]
    if type(value) is Unsigned and not unsigned:
        return int(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


class _Located:
    """Add the place to a failure: `pointer`, and the member's name if one node of the document takes many members.

    `hint` replaces the failure's own hint.  (A generator would take three times as long, around each field.)
    """

    __slots__ = ("_hint", "_key", "_pointer")

    def __init__(self, pointer: str, key: str | None = None, hint: str | None = None) -> None:
        self._pointer, self._key, self._hint = pointer, key, hint

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, RecordError):
            reason = error.reason if self._key is None else f"{shorten(self._key)}: {error.reason}"
            raise RecordError(error.code, reason, error.location or self._pointer, self._hint or error.hint) from None


def leaves(path: Path, member: JSON, flatten: bool) -> Iterator[tuple[Path, JSON]]:
    """Yield `member` itself with its path, or with `flatten` the values inside of it (LANGUAGE 16)."""
    if not flatten or not isinstance(member, (dict, list)):
        yield path, member
        return
    inner: Iterable[tuple[str | int, JSON]] = member.items() if isinstance(member, dict) else enumerate(member)
    for step, value in inner:
        yield from leaves((*path, step), value, flatten)


def selected(name: str, star: Star) -> bool:
    """Return whether the globs of `star` accept a member of this name."""
    included = not star.include or any(fnmatchcase(name, glob) for glob in star.include)
    return included and not any(fnmatchcase(name, glob) for glob in star.exclude)


def _refuse_duplicate(is_duplicate: bool, kind: str, name: str, pointer: str) -> None:
    if is_duplicate:
        raise RecordError(DUPLICATE_KEY, f"duplicate {kind} {shorten(name)} from two sources", pointer)
