"""What a descriptor declares, in a pool of its own: two documents may give one name to different types."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache, partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError as NotParsed

from iggyflux.errors import DecodeError, closest
from iggyflux.payloads.format import MALFORMED, MAX_DEPTH, NOTHING_KNOWN, OptionError, too_deep
from iggyflux.payloads.places import Place, Step, located
from iggyflux.payloads.protobuf import wire
from iggyflux.payloads.protobuf.bounds import Bounds, spend
from iggyflux.payloads.protobuf.reading import Converters
from iggyflux.payloads.protobuf.undeclared import Undeclared, size_of
from iggyflux.reads import Reads
from iggyflux.records import JSON

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor

BAD_SCHEMA: Final = "IFX175"
NO_TYPE: Final = "IFX176"
UNKNOWN_FIELD: Final = "IFX441"
_MOST_CONVERTERS: Final = 32
Converter: TypeAlias = Callable[[bytes, list[int]], JSON]
"""The type of a function from a message's bytes to a plain value.  The list has how many more values may be made."""


class Schema:
    """A message type, and how its messages become values; one object may serve many threads."""

    def __init__(
        self, pool: Any, descriptor: Descriptor, *, json_names: bool, enum_names: bool, defaults: bool
    ) -> None:
        self.name: str = descriptor.full_name
        self.descriptor = descriptor
        self.message_class = message_factory.GetMessageClass(descriptor)
        self.parse: Callable[[bytes], Any] = self.message_class.FromString
        self.json_names = json_names
        self.pool = pool
        self._bounds = Bounds(descriptor)
        self.undeclared = Undeclared(descriptor, self.message_class, self._bounds.safe)
        self._options = (pool, partial(wire.find_fault, json_names=json_names), json_names, enum_names, defaults)
        self._converters: dict[tuple[int, bool, bool, bool], tuple[Reads | None, Converter]] = {}

    def converter(self, reads: Reads | None, strict: bool, non_finite: bool, typed: bool) -> Converter:
        """Return the function from the bytes of a message to the part of its value that is read."""
        key = (id(reads), strict, non_finite, typed)
        found = self._converters.get(key)
        if found is None:
            if len(self._converters) >= _MOST_CONVERTERS:
                self._converters = {}
            found = self._converters[key] = (reads, self._converter(reads or Reads.WHOLE, strict, non_finite, typed))
        return found[1]

    def _converter(self, reads: Reads, strict: bool, non_finite: bool, typed: bool) -> Converter:
        step = Converters(*self._options, non_finite, typed).of(self.descriptor, reads)
        check, safe = self._bounds.check, self._bounds.safe
        parse, width, is_recursive = self.parse, 1 + len(self.descriptor.fields), _is_recursive(self.descriptor)
        # With NaN, which a declared default may be: it fails payloads without the field, not each payload.
        of_no_bytes = Converters(*self._options, True).of(self.descriptor, reads)(self.message_class(), [width])
        has_nan = "nan" in repr(of_no_bytes)  # or a name with these letters; NaN is equal to nothing

        def convert(payload: bytes, budget: list[int]) -> JSON:
            try:
                budget[0] -= width
                if budget[0] < 0:
                    spend(budget, 0)
                if len(payload) > safe:
                    check(payload, budget)
                message = parse(payload)
                if strict and self._has_undeclared(message):
                    reason = f"the payload has fields that {self.name} does not declare"
                    raise located(DecodeError(UNKNOWN_FIELD, reason), lambda: self._look(wire.find_undeclared, payload))
                try:
                    value = step(message, budget)
                except DecodeError as error:
                    if error.find_place is not None:
                        find_path = error.find_place
                        located(error, lambda: self._byte_of(find_path(), payload))
                    raise
                is_empty = (has_nan or value == of_no_bytes) and not message.ListFields()
                if is_empty and 0 < size_of(message) == len(payload):  # a declared field with its default takes bytes
                    raise DecodeError(NOTHING_KNOWN, f"no field of the payload is declared in {self.name}")
                if is_recursive and not _is_shallow(value, MAX_DEPTH):
                    raise too_deep()
            except NotParsed:
                reason = f"not protobuf of the type {self.name}"
                raise located(DecodeError(MALFORMED, reason), lambda: self._look(wire.find_fault, payload)) from None
            except RecursionError:
                raise too_deep() from None
            return value

        return convert

    def _look(self, find: Callable[..., Place | None], payload: bytes, *path: tuple[Step, ...]) -> Place | None:
        return find(payload, self.descriptor, *path, json_names=self.json_names)

    def _byte_of(self, found: Place, payload: bytes) -> Place | None:
        """Return the place of a value that was found by its path."""
        place = self._look(wire.place_of, payload, found.path)
        return place and replace(place, why=found.why)

    def _has_undeclared(self, message: Any) -> bool:
        """Whether a message has fields, at any depth, that the schema does not declare."""
        copy = self.message_class()
        copy.CopyFrom(message)
        return self.undeclared.is_in(copy)

    def indexes(self) -> list[int]:
        """Return the way to the type from its file: the index of a type in the one around it, the outermost first."""
        found: list[int] = []
        inner: Any = self.descriptor
        while inner is not None:
            outer = inner.containing_type
            names = outer.nested_types if outer is not None else inner.file.message_types_by_name.values()
            found.insert(0, [each.name for each in names].index(inner.name))
            inner = outer
        return found


@lru_cache(maxsize=32)
def schema_of(
    content: bytes, message: str, *, file_option: str, json_names: bool, enum_names: bool, defaults: bool
) -> Schema:
    """Return the schema of a type in a serialized FileDescriptorSet; raise OptionError about one of the options."""
    pool = _pool(content, file_option)
    try:
        descriptor = pool.FindMessageTypeByName(message.removeprefix("."))
    except KeyError:
        names = _types(content)
        near = closest(message, names) or next((name for name in names if name.endswith(f".{message}")), None)
        hint = f"did you mean {near!r}?" if near else f"the file declares {', '.join(names[:5]) or 'no message'}"
        raise OptionError(f"no message type {message!r} is declared", "message", code=NO_TYPE, hint=hint) from None
    return Schema(pool, descriptor, json_names=json_names, enum_names=enum_names, defaults=defaults)


def _files(content: bytes, option: str) -> list[Any]:
    try:
        files = list(descriptor_pb2.FileDescriptorSet.FromString(content).file)
    except NotParsed:
        files = []
    if not files or not all(file.name for file in files):
        hint = "make one with `protoc --include_imports --descriptor_set_out=FILE …` or `buf build -o FILE.binpb`"
        raise OptionError("the file is not a FileDescriptorSet", option, code=BAD_SCHEMA, hint=hint)
    return files


def _types(content: bytes) -> list[str]:
    """Return the names of all types that a descriptor set declares."""
    found: list[str] = []

    def add(prefix: str, types: Any) -> None:
        for each in types:
            if not each.options.map_entry:
                found.append(f"{prefix}{each.name}")
                add(f"{prefix}{each.name}.", each.nested_type)

    for file in descriptor_pb2.FileDescriptorSet.FromString(content).file:
        add(f"{file.package}." if file.package else "", file.message_type)
    return found


_WELL_KNOWN: Final = ("any", "duration", "empty", "field_mask", "struct", "timestamp", "wrappers", "descriptor")


def _pool(content: bytes, option: str) -> Any:
    """Return a pool with the files of a descriptor set; those of protobuf itself need not be among them."""
    files = {file.name: file for file in _files(content, option)}
    pool = descriptor_pool.DescriptorPool()
    added: set[str] = set()

    def add(name: str, needed_by: str) -> None:
        if name in added:
            return
        added.add(name)
        file = files.get(name) or _well_known(name)
        if file is None:
            hint = "make it with `protoc --include_imports`"
            raise OptionError(f"{needed_by!r} imports {name!r}, which is not in it", option, code=BAD_SCHEMA, hint=hint)
        for dependency in file.dependency:
            add(dependency, name)
        try:
            pool.Add(file)
        except (TypeError, ValueError) as error:
            reason = " ".join(str(error).split())[:300]
            raise OptionError(f"{name!r} is not valid: {reason}", option, code=BAD_SCHEMA) from None

    for name in files:
        add(name, name)
    return pool


def _well_known(name: str) -> Any:
    stem = name.removeprefix("google/protobuf/").removesuffix(".proto")
    if stem not in _WELL_KNOWN or name != f"google/protobuf/{stem}.proto":
        return None
    file = descriptor_pb2.FileDescriptorProto()
    import_module(f"google.protobuf.{stem}_pb2").DESCRIPTOR.CopyToProto(file)
    return file


def _is_recursive(descriptor: Descriptor) -> bool:
    """Whether a type contains itself at any depth, or may contain any type: then its values have no certain depth."""
    done: set[str] = set()

    def visit(each: Any, inside: frozenset[str]) -> bool:
        if each.full_name in inside or each.full_name == "google.protobuf.Any":
            return True
        if each.full_name in done:
            return False
        inside |= {each.full_name}
        found = any(visit(field.message_type, inside) for field in each.fields if field.message_type is not None)
        done.add(each.full_name)
        return found

    return visit(descriptor, frozenset())


def _is_shallow(value: JSON, depth: int) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return inner is None or (depth > 0 and all(_is_shallow(each, depth - 1) for each in inner))
