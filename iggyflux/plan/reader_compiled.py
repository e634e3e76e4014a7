"""The compiled plan of a reader: columns of values instead of one message at a time, in generated Python.

It equals the reader's reference plan in messages, ids, origins, failures and order.  It handles usual rows only: for
others it raises, and the reference plan renders them and the few rows around them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain, repeat
from typing import Any, TypeAlias, cast

import msgspec

from iggyflux.errors import RecordError
from iggyflux.expressions import RAISED
from iggyflux.expressions.lowering import Call, ColumnRead, Constant, ListOf, Lowered, ObjectOf, lower
from iggyflux.payloads import FORMATS, MAX_PAYLOAD_BYTES
from iggyflux.payloads.json_ import encode_many
from iggyflux.plan.digests import digest_rows
from iggyflux.plan.fallback import describe_fault
from iggyflux.plan.reader import ReferenceReaderPlan, header_scalar, key_text, point_of, time_of
from iggyflux.records import JSON, OutgoingMessage, RenderedMessages, Row, Scalar
from iggyflux.spec import Const, MessageSpec, Reader, Source

_ROWS_AROUND = 64
"""The most rows that the reference plan renders for one that is unusual."""

_Item: TypeAlias = Callable[[Sequence[Row], Sequence[Any], Sequence[bytes]], Sequence[OutgoingMessage]]


class _UnusualRows(Exception):
    """Rows that generated code does not handle."""


_NOT_ASSUMED = (_UnusualRows, RecordError, *RAISED)


class CompiledReaderPlan(ReferenceReaderPlan):
    """A reader document as generated code: `source`, or `reason`, which says why there is none."""

    def __init__(self, reader: Reader) -> None:
        super().__init__(reader)
        self.source = ""
        self.reason: str | None = "messages are made of many rows" if self.whole_windows else None
        self._fault: str | None = None
        self._items: Sequence[_Item] = ()
        if self.whole_windows:
            return
        try:
            generator = _ReaderGenerator(self)
            source = generator.source()
            self._items = generator.compile(source)
            self.source = source
        except Exception as error:
            self._fault = describe_fault(error)
            self.reason = f"a bug in iggyflux: {self._fault}"

    def render(self, rows: Sequence[Row], digests: Sequence[bytes] | None = None) -> RenderedMessages:
        """Return the same as `ReferenceReaderPlan.render`, faster."""
        if digests is None:
            digests = digest_rows(rows)
        if not self._items:
            return self._by_reference(rows, digests, self._fault)
        try:
            return self._render(rows, digests)
        except _NOT_ASSUMED:
            if len(rows) <= _ROWS_AROUND:
                return super().render(rows, digests)
        except Exception as error:
            return self._by_reference(rows, digests, describe_fault(error))
        parts = [
            (start, rows[start : start + _ROWS_AROUND], digests[start : start + _ROWS_AROUND])
            for start in range(0, len(rows), _ROWS_AROUND)
        ]
        return _joined([(start, self.render(few, theirs)) for start, few, theirs in parts])

    def _by_reference(self, rows: Sequence[Row], digests: Sequence[bytes], fault: str | None) -> RenderedMessages:
        rendered = super().render(rows, digests)
        return rendered if fault is None else replace(rendered, fallback=fault)

    def _render(self, rows: Sequence[Row], digests: Sequence[bytes]) -> RenderedMessages:
        columns = [row.columns for row in rows]
        if not {dict}.issuperset(map(type, columns)):
            raise _UnusualRows
        made = [item(rows, columns, digests) for item in self._items]
        if len(made) == 1:
            return RenderedMessages(made[0], range(len(rows)), ())
        origins = [index for index in range(len(rows)) for _ in made]
        return RenderedMessages(list(chain.from_iterable(zip(*made, strict=True))), origins, ())


def _joined(parts: Sequence[tuple[int, RenderedMessages]]) -> RenderedMessages:
    """Return the results for consecutive rows as one; each part has the number of its first row."""
    return RenderedMessages(
        [message for _, rendered in parts for message in rendered.messages],
        [start + origin for start, rendered in parts for origin in rendered.origins],
        [replace(each, index=start + each.index) for start, rendered in parts for each in rendered.failures],
        next((rendered.fallback for _, rendered in parts if rendered.fallback), None),
    )


class _ReaderGenerator:
    """Generates a function for each item of `messages`; values that source cannot express are bound to names."""

    def __init__(self, plan: ReferenceReaderPlan) -> None:
        self._plan = plan
        self._lowered: dict[int, Lowered] = {}
        self._names: dict[str, Any] = {
            "OutgoingMessage": OutgoingMessage,
            "encode": _encoder(plan.reader.target.payload),
            "from_bytes": int.from_bytes,
            "key_texts": _key_texts,
            "make_headers": _make_headers,
            "repeat": repeat,
            "times_of": _times_of,
        }

    def source(self) -> str:
        """Return the source of a function for each item."""
        return "\n\n".join(self._item(number, spec) for number, spec in enumerate(self._plan.reader.messages))

    def compile(self, source: str) -> list[_Item]:
        """Return the functions of `source`, which is what `source()` returned."""
        name = f"<plan of {self._plan.reader.name}>"
        exec(compile(source, name, "exec", dont_inherit=True), self._names)  # noqa: S102  (our own source)
        return [self._names[f"item_{number}"] for number in range(len(self._plan.reader.messages))]

    def _item(self, number: int, spec: MessageSpec) -> str:
        lines = [
            f"def item_{number}(rows, columns, digests):",
            *self._payload_lines(spec),
        ]
        keys, headers, times = "repeat(None)", self._constant_headers(spec), "repeat(None)"
        if spec.key is not None:
            lines.append(f"    keys = key_texts({self._each(spec.key)})")
            keys = "keys"
        if headers is None:
            names = tuple(name for name, _ in spec.headers)
            lists = ", ".join(self._each(source) for _, source in spec.headers)
            lines.append(f"    headers = make_headers({names!r}, {lists})")
            headers = "headers"
        if spec.timestamp is not None:
            lines.append(f"    times = times_of({self._each(spec.timestamp)})")
            times = "times"
        lines += [
            f"    ids = [from_bytes(digest, 'big') ^ {self._plan.salts[number]:#x} for digest in digests]",
            f"    return list(map(OutgoingMessage, payloads, {keys}, {headers}, {times}, ids))",
        ]
        return "\n".join(lines) + "\n"

    def _payload_lines(self, spec: MessageSpec) -> list[str]:
        if self._plan.sends_rows_as_points(spec):
            points = f"[{self._bind(partial(point_of, self._plan.reader))}(row) for row in rows]"
            return [f"    payloads = encode({points})"]
        struct = self._struct(spec)
        lenient = self._each(spec.payload, struct=struct)
        strict = self._each(spec.payload, struct=struct, is_strict=True)
        if strict == lenient:
            return [f"    payloads = encode({lenient})"]
        return [
            "    try:  # sooner, where every row has every column",
            f"        values = {strict}",
            "    except KeyError:",
            f"        values = {lenient}",
            "    payloads = encode(values)",
        ]

    def _struct(self, spec: MessageSpec) -> str | None:
        """Return the name of a struct for the payload's object, or None; a struct is made and written faster."""
        value = _lowered(spec.payload)
        if self._plan.reader.target.payload != "json" or not isinstance(value, ObjectOf):
            return None
        names = {f"f{number}": name for number, (name, _) in enumerate(value.parts)}
        if len(set(names.values())) < len(names):
            return None
        try:
            fields: list[tuple[str, Any]] = [(name, Any) for name in names]
            return self._bind(msgspec.defstruct("Payload", fields, rename=names, gc=False))
        except ValueError:  # a name that would have to be escaped
            return None

    def _constant_headers(self, spec: MessageSpec) -> str | None:
        """Return the headers of every row if they are constant, else None.

        None also if they are invalid, so that each row reports it.
        """
        if not all(isinstance(source, Const) for _, source in spec.headers):
            return None
        try:
            constant = _headers_of((name, source.value) for name, source in spec.headers if isinstance(source, Const))
        except RecordError:
            return None
        return f"repeat({self._bind(constant)})"

    def _each(self, source: Source, *, struct: str | None = None, is_strict: bool = False) -> str:
        """Return the source of a list with the value of `source` for each row, as a `struct` if one is named.

        If strict, a missing column raises KeyError.
        """
        value = self._lowered.get(id(source))
        if value is None:
            value = self._lowered[id(source)] = _lowered(source)
        if value == ColumnRead(None):
            return "columns"
        column = "c[{!r}]" if is_strict else "c.get({!r})"
        if struct is not None and isinstance(value, ObjectOf):
            text = f"{struct}({', '.join(self._value(part, column) for _, part in value.parts)})"
        else:
            text = self._value(value, column)
        loop = "for row, c in zip(rows, columns)" if "(row, c)" in text else "for c in columns"
        return f"[{text} {loop}]"

    def _value(self, value: Lowered, column: str) -> str:
        match value:
            case ColumnRead(None):
                return "c"
            case ColumnRead(name):
                return column.format(name)
            case ObjectOf(parts):
                return "{" + ", ".join(f"{name!r}: {self._value(part, column)}" for name, part in parts) + "}"
            case ListOf(parts):
                return "[" + ", ".join(self._value(part, column) for part in parts) + "]"
            case Call(run):
                return f"{self._bind(run)}(row, c)"
            case Constant(constant):
                return self._bind(constant)

    def _bind(self, value: Any) -> str:
        if value is None or isinstance(value, (bool, str)):
            return repr(value)
        for name, known in self._names.items():
            if known is value:
                return name
        name = f"v{len(self._names)}"
        self._names[name] = value
        return name


def _lowered(source: Source) -> Lowered:
    return Constant(source.value) if isinstance(source, Const) else lower(source)


def _headers_of(pairs: Iterable[tuple[str, JSON]]) -> dict[str, Scalar]:
    return {name: found for name, value in pairs if (found := header_scalar(value)) is not None}


def _make_headers(names: Sequence[str], *values: Sequence[JSON]) -> list[dict[str, Scalar]]:
    """Return the headers of each row; strings repeat often, so headers made of strings are made once."""
    rows = list(zip(*values, strict=True))
    if all({str}.issuperset(map(type, each)) for each in values):
        known = {row: _headers_of(zip(names, row, strict=True)) for row in set(rows)}
        return [known[row] for row in rows]
    return [_headers_of(zip(names, row, strict=True)) for row in rows]


def _key_texts(values: Sequence[JSON]) -> list[str | None]:
    if {str}.issuperset(map(type, values)):
        known = {value: key_text(value) for value in set(cast("Sequence[str]", values))}
        return [known[value] for value in cast("Sequence[str]", values)]
    return list(map(key_text, values))


def _times_of(values: Sequence[JSON]) -> Sequence[int | None]:
    return cast("Sequence[int]", values) if {int}.issuperset(map(type, values)) else list(map(time_of, values))


def _encoder(format_name: str) -> Callable[[Sequence[JSON]], list[bytes]]:
    """Return a function that encodes values as payloads, each within the bounds."""
    encode = FORMATS[format_name].encode
    encode_all = encode_many if format_name == "json" else lambda values: [encode(value, {}) for value in values]

    def encode_within_bounds(values: Sequence[JSON]) -> list[bytes]:
        payloads = encode_all(values)
        if not 0 < min(map(len, payloads), default=1) <= max(map(len, payloads), default=1) <= MAX_PAYLOAD_BYTES:
            raise _UnusualRows
        return payloads

    return encode_within_bounds
