"""Messages to plain values: one function for each message type and what is read of it, made when it is first needed.

The value of a field without presence is always there (`defaults: true`), also that of a declared default; an absent
field with presence is left out.  What is not read is not converted, and cannot fail.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable
from keyword import iskeyword
from math import copysign, hypot, inf, isfinite
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from google.protobuf import descriptor_pb2, message_factory
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError as NotParsed

from iggyflux.errors import DecodeError
from iggyflux.lineprotocol import Unsigned
from iggyflux.payloads.binary import foreign, plain, time_text
from iggyflux.payloads.format import MALFORMED, not_finite, not_utf8, too_deep
from iggyflux.payloads.places import Place, located, within
from iggyflux.payloads.protobuf.bounds import Bounds, spend
from iggyflux.reads import Reads
from iggyflux.records import JSON

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor, EnumDescriptor, FileDescriptor

Step: TypeAlias = Callable[[Any, list[int]], JSON]
"""The type of a function from a value of the library to a plain value.  The list has how many more may be made."""

FLOATS: Final = frozenset({FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FLOAT})
UNSIGNED: Final = frozenset(
    {
        FieldDescriptor.TYPE_UINT32,
        FieldDescriptor.TYPE_UINT64,
        FieldDescriptor.TYPE_FIXED32,
        FieldDescriptor.TYPE_FIXED64,
    }
)
MESSAGES: Final = frozenset({FieldDescriptor.TYPE_MESSAGE, FieldDescriptor.TYPE_GROUP})
_MOST_ANYS: Final = 8
WRAPPERS: Final = frozenset(
    f"google.protobuf.{kind}Value"
    for kind in ("Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes")
)
TREES: Final = frozenset({"google.protobuf.Struct", "google.protobuf.Value", "google.protobuf.ListValue"})
TIMESTAMP: Final = "google.protobuf.Timestamp"
DURATION: Final = "google.protobuf.Duration"
ANY: Final = "google.protobuf.Any"
NULL: Final = "google.protobuf.NullValue"
SECOND: Final = 1_000_000_000


def is_map(field: Any) -> bool:
    """Whether a field is a map."""
    return bool(field.type == FieldDescriptor.TYPE_MESSAGE and field.message_type.GetOptions().map_entry)


def is_proto3(file: FileDescriptor) -> bool:
    """Whether a file is of proto3: then the library checks that strings are UTF-8."""
    written = descriptor_pb2.FileDescriptorProto()
    file.CopyToProto(written)
    return bool(written.syntax == "proto3")


def key_text(key: str | bytes | int | bool) -> str:
    """Return the text of a map's key."""
    if isinstance(key, bytes):
        return _utf8(key)
    return str(key).lower() if isinstance(key, bool) else str(key)


def is_special(name: str) -> bool:
    """Whether messages of a type do not become an object of their fields."""
    return name in WRAPPERS or name in TREES or name in (TIMESTAMP, DURATION)


class Converters:
    """The functions of one document and kind of NaN; if `typed`, unsigned integers are `Unsigned`.

    `find_fault` is that of `wire`, which says why bytes are not a message.
    """

    def __init__(
        self,
        pool: Any,
        find_fault: Callable[[bytes, Descriptor], Place | None],
        json_names: bool,
        enum_names: bool,
        defaults: bool,
        non_finite: bool,
        typed: bool = False,
    ) -> None:
        self._pool = pool
        self._find_fault = find_fault
        self._json_names = json_names
        self._enum_names = enum_names
        self._defaults = defaults
        self._non_finite = non_finite
        self._typed = typed
        self._made: dict[tuple[str, int, int], Step] = {}
        self._kept: list[Reads] = []
        self._proto3: dict[str, bool] = {}
        self._bounds: dict[str, Bounds] = {}

    def of(self, descriptor: Descriptor, reads: Reads, anys: int = 0) -> Step:
        """Return the function of a message type; `anys` is how many `Any` are around the message."""
        key = (descriptor.full_name, id(reads), anys)
        if key not in self._made:
            self._kept.append(reads)  # its id stays its own
            self._made[key] = lambda message, budget: self._made[key](message, budget)  # of a type in itself
            self._made[key] = self._special(descriptor, reads, anys) or self._object(descriptor, reads, anys)
        return self._made[key]

    def _object(self, descriptor: Descriptor, reads: Reads, anys: int) -> Step:
        floats: list[tuple[str, str]] = []
        others: list[tuple[str, str]] = []
        always: list[tuple[str, str, Step]] = []
        filled: list[tuple[str, str, Step | None]] = []
        present: list[tuple[str, str, Step | None]] = []
        for field in descriptor.fields:
            name, key = field.name, field.json_name if self._json_names else field.name
            if not reads.whole and key not in reads.keys:
                continue
            inner = reads if reads.whole else reads.keys[key]
            step = self._field(field, inner, anys)
            if field.has_presence and not (self._defaults and field.has_default_value):
                present.append((name, key, step or self._checked(field, inner, anys)))
            elif not self._defaults:
                filled.append((name, key, step or self._checked(field, inner, anys)))
            elif step is not None:
                always.append((name, key, step))
            else:
                (floats if field.type in FLOATS and not self._non_finite else others).append((name, key))
        base = _base(floats, others)
        if not (always or present or filled):
            return base
        has = message_factory.GetMessageClass(descriptor).HasField
        return _with_steps(base, has, always, present, filled)

    def _finite(self, value: float, _budget: list[int]) -> JSON:
        if not isfinite(value):
            raise not_finite(value)
        return value

    def _field(self, field: Any, reads: Reads, anys: int) -> Step | None:
        """Return the function of a field's value; None for a value that is as it should be, but for NaN."""
        if is_map(field):
            return self._map(field.message_type, reads, anys)
        if not field.is_repeated:
            return self._single(field, reads, anys)
        elements = reads if reads.whole else reads.items
        if elements is None:
            return lambda _, __: []
        single = self._checked(field, elements, anys)
        width = 1 + (len(field.message_type.fields) if field.message_type is not None else 0)

        def convert(values: Any, budget: list[int]) -> JSON:
            spend(budget, len(values) * width)
            if single is None:
                return list(values)
            rest = iter(values)
            try:
                return [single(value, budget) for value in rest]
            except DecodeError as error:
                within(error, (len(values) - 1 - sum(1 for _ in rest),))
                raise

        return convert

    def _single(self, field: Any, reads: Reads, anys: int) -> Step | None:
        if field.type in MESSAGES:
            return self.of(field.message_type, reads, anys)
        if field.type == FieldDescriptor.TYPE_BYTES:
            return _base64
        if self._typed and field.type in UNSIGNED:
            return _unsigned
        if field.type == FieldDescriptor.TYPE_STRING and not self._is_proto3(field.file):
            return _text
        return self._enum(field.enum_type) if field.type == FieldDescriptor.TYPE_ENUM else None

    def _is_proto3(self, file: FileDescriptor) -> bool:
        """Whether the library has checked that strings of types of a file are UTF-8."""
        if file.name not in self._proto3:
            self._proto3[file.name] = is_proto3(file)
        return self._proto3[file.name]

    def _checked(self, field: Any, reads: Reads, anys: int) -> Step | None:
        """Return the function of one value, which also finds NaN."""
        step = self._single(field, reads, anys)
        return self._finite if step is None and field.type in FLOATS and not self._non_finite else step

    def _enum(self, enum: EnumDescriptor) -> Step | None:
        if enum.full_name == NULL:
            return lambda _, __: None
        if not self._enum_names:
            return None
        names: dict[int, str] = {value.number: value.name for value in reversed(enum.values)}
        return lambda number, _: names.get(number, number)

    def _map(self, entry: Descriptor, reads: Reads, anys: int) -> Step:
        of_value = entry.fields_by_name["value"]
        width = 2 + (len(of_value.message_type.fields) if of_value.message_type is not None else 0)
        steps = {key: self._checked(of_value, each, anys) for key, each in reads.keys.items()}
        whole = self._checked(of_value, Reads.WHOLE, anys)

        def convert(values: Any, budget: list[int]) -> JSON:
            spend(budget, len(values) * width)
            row: dict[str, JSON] = {}
            # The library keeps no order of its own.
            entries = sorted(((key_text(key), value) for key, value in values.items()), key=_first)
            try:
                for key, value in entries:
                    if reads.whole or key in steps:
                        step = whole if reads.whole else steps[key]
                        row[key] = value if step is None else step(value, budget)
            except DecodeError as error:
                within(error, (key,))
                raise
            return row

        return convert

    def _special(self, descriptor: Descriptor, reads: Reads, anys: int) -> Step | None:
        name = descriptor.full_name
        if name == TIMESTAMP:
            return lambda message, _: time_text(message.seconds, message.nanos)
        if name == DURATION:
            return lambda message, _: message.seconds * SECOND + message.nanos
        if name in WRAPPERS:
            step = self._checked(descriptor.fields_by_name["value"], reads, anys)
            return lambda message, budget: message.value if step is None else step(message.value, budget)
        if name in TREES:
            return lambda message, budget: plain(_tree(message, budget), reads, _no_special, self._non_finite)
        return (lambda message, budget: self._any(message, budget, reads, anys)) if name == ANY else None

    def _any(self, message: Any, budget: list[int], reads: Reads, anys: int) -> JSON:
        """Return the object of a resolved message with its `@type`; of another type its bytes are the `value`."""
        url, content = message.type_url, message.value
        row: dict[str, JSON] = {"@type": url} if reads.whole or "@type" in reads.keys else {}
        try:
            descriptor = self._pool.FindMessageTypeByName(url.rpartition("/")[2])
        except KeyError:
            descriptor = None
        of_value = reads if reads.whole else reads.keys.get("value")
        if descriptor is not None and (not is_special(descriptor.full_name) or of_value is not None):
            if anys == _MOST_ANYS:
                raise too_deep()
            if descriptor.full_name not in self._bounds:
                self._bounds[descriptor.full_name] = Bounds(descriptor)
            self._bounds[descriptor.full_name].check(content, budget)
            try:
                inner = message_factory.GetMessageClass(descriptor).FromString(content)
            except NotParsed:
                reason = f"not protobuf of the type {descriptor.full_name}"
                raise located(DecodeError(MALFORMED, reason), lambda: self._why(content, descriptor)) from None
            spend(budget, len(descriptor.fields))
            if is_special(descriptor.full_name) and of_value is not None:
                return {**row, "value": self.of(descriptor, of_value, anys + 1)(inner, budget)}
            found = self.of(descriptor, reads, anys + 1)(inner, budget)
            return {**row, **found} if isinstance(found, dict) else row
        return row if of_value is None or descriptor is not None else {**row, "value": _base64(content, budget)}

    def _why(self, content: bytes, descriptor: Descriptor) -> Place:
        """Return why what an `Any` holds is not a message; what is in it has no place of its own."""
        found = self._find_fault(content, descriptor)
        return Place((), None, why="" if found is None else found.why)


def _first(pair: tuple[str, Any]) -> str:
    return pair[0]


def _base(floats: list[tuple[str, str]], others: list[tuple[str, str]]) -> Callable[[Any, list[int]], dict[str, JSON]]:
    """Return a function from a message to the object of fields, given as name and key, that need no conversion.

    It is generated, as the code of plans is: attributes in a dict display take half the time of a loop over names.
    """
    items = [f"{key!r}: (f{number} := {_attribute(name)})" for number, (name, key) in enumerate(floats)]
    items += [f"{key!r}: {_attribute(name)}" for name, key in others]
    names = "".join(f"f{number}, " for number in range(len(floats)))
    check = f"    if not hypot({names}) < inf:\n        check(({names}), keys)\n" if floats else ""
    source = f"def base(message, budget):\n    row = {{{', '.join(items)}}}\n{check}    return row\n"
    namespace: dict[str, Any] = {
        "hypot": hypot, "inf": inf, "check": _check_finite, "keys": [key for _, key in floats]
    }  # fmt: skip
    exec(source, namespace)  # noqa: S102  (our own source: names are identifiers or quoted)
    made: Callable[[Any, list[int]], dict[str, JSON]] = namespace["base"]
    return made


def _with_steps(
    base: Callable[[Any, list[int]], dict[str, JSON]],
    has: Callable[[Any, str], bool],
    always: list[tuple[str, str, Step]],
    present: list[tuple[str, str, Step | None]],
    filled: list[tuple[str, str, Step | None]],
) -> Step:
    """Return what adds to the object of `base` the fields that need more: always, if they are there, if not empty."""

    def convert(message: Any, budget: list[int]) -> JSON:
        row = base(message, budget)
        try:
            for name, key, step in always:
                row[key] = step(getattr(message, name), budget)
            for name, key, optional in present:
                if has(message, name):
                    value = getattr(message, name)
                    row[key] = value if optional is None else optional(value, budget)
            for name, key, optional in filled:
                value = getattr(message, name)
                if value or (type(value) is float and copysign(1, value) < 0):
                    row[key] = value if optional is None else optional(value, budget)
        except DecodeError as error:
            within(error, (key,))
            raise
        return row

    return convert


def _attribute(name: str) -> str:
    is_plain = name.isascii() and name.isidentifier() and not iskeyword(name)
    return f"message.{name}" if is_plain else f"getattr(message, {name!r})"


def _check_finite(values: Iterable[float], keys: Iterable[str]) -> None:
    for value, key in zip(values, keys, strict=True):
        if not isfinite(value):
            raise within(not_finite(value), (key,))


def _text(value: str | bytes, _budget: list[int]) -> JSON:
    """Return a string; the library gives bytes that are not UTF-8 as bytes."""
    return _utf8(value) if isinstance(value, bytes) else value


def _utf8(value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError as error:
        raise not_utf8(error, "a string") from None


def _unsigned(value: int, _budget: list[int]) -> JSON:
    return Unsigned(value)


def _base64(value: bytes, _budget: list[int]) -> JSON:
    return base64.b64encode(value).decode("ascii")


def _tree(message: Any, budget: list[int]) -> object:
    """Return the tree of a Struct, a ListValue or a Value; NaN is not checked."""
    kind = message.DESCRIPTOR.name
    if kind == "Struct":
        spend(budget, 2 * len(message.fields))
        return {key: _tree(message.fields[key], budget) for key in sorted(message.fields)}
    if kind == "ListValue":
        spend(budget, len(message.values))
        return [_tree(value, budget) for value in message.values]
    which = message.WhichOneof("kind")
    if which in ("struct_value", "list_value"):
        return _tree(getattr(message, which), budget)
    return None if which in (None, "null_value") else getattr(message, which)


def _no_special(_value: object) -> JSON:
    raise foreign("a value of a Struct")
