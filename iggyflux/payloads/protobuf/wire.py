"""Where and why a message failed: a look at the bytes by the schema, since the library only says that it is none.

It is made only when a failure is reported, and ends after `MOST_FIELDS` fields: after milliseconds for any payload.
What protobuf does with the bytes counts: a field of another wire type than its own is one that is not declared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from google.protobuf import message_factory
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError as NotParsed

from iggyflux.errors import DecodeError
from iggyflux.payloads.places import Place, Step
from iggyflux.payloads.protobuf.reading import ANY, MESSAGES, is_map, is_proto3, is_special, key_text

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor

MOST_FIELDS: Final = 5_000
_DEEPEST: Final = 100
_MOST_TAG: Final = 5
_VARINT, _EIGHT, _BYTES, _GROUP, _END, _FOUR = range(6)
_SIZES: Final = {_EIGHT: 8, _FOUR: 4}
_PACKED: Final = (_VARINT, _EIGHT, _FOUR)
_WIRES: Final = {
    **dict.fromkeys((FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FIXED64, FieldDescriptor.TYPE_SFIXED64), _EIGHT),
    **dict.fromkeys((FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_FIXED32, FieldDescriptor.TYPE_SFIXED32), _FOUR),
    **dict.fromkeys((FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES, FieldDescriptor.TYPE_MESSAGE), _BYTES),
    FieldDescriptor.TYPE_GROUP: _GROUP,
}
"""The wire types that are not that of numbers of any length."""

Path: TypeAlias = tuple[Step, ...]
_Declared: TypeAlias = tuple[Any, str, int | None]
_NOT_DECLARED: Final[_Declared] = (None, "", None)


def find_fault(payload: bytes, descriptor: Descriptor, *, json_names: bool) -> Place | None:
    """Return where a payload stops to be a message, and why; None if that is not found."""
    return _walked(_Walk(payload, json_names), descriptor)


def find_undeclared(payload: bytes, descriptor: Descriptor, *, json_names: bool) -> Place | None:
    """Return where the first field is that the schema does not declare, and the path of the message that has it."""
    return _walked(_Walk(payload, json_names, is_strict=True), descriptor)


def place_of(payload: bytes, descriptor: Descriptor, path: Path, *, json_names: bool) -> Place:
    """Return the place of the value at `path` of a message; the byte is that of the innermost part that is found."""
    walk = _Walk(payload, json_names, wanted=path)
    _walked(walk, descriptor)
    return Place(path, walk.byte)


def _walked(walk: _Walk, descriptor: Descriptor) -> Place | None:
    try:
        walk.message(0, len(walk.payload), descriptor, (), 0)
    except _Found as found:
        return found.place
    except _Enough:
        pass
    return None


class _Found(Exception):
    def __init__(self, path: Path, byte: int, why: str) -> None:
        self.place = Place(path, byte, why=why)


class _Unsound(Exception):
    """Bytes that are not a field; the text says why, without what is in them."""


class _Enough(Exception):
    pass


@dataclass(slots=True)
class _Walk:
    """One look at a payload.  It ends with `_Found` at a fault, with `is_strict` also at a field of no declaration."""

    payload: bytes
    json_names: bool
    wanted: Path = ()
    is_strict: bool = False
    left: int = MOST_FIELDS
    byte: int | None = None
    """Where the longest part of `wanted` begins that was seen: of those of one length the last, as it counts."""
    length: int = 1
    counts: dict[Path, int] = field(default_factory=dict)
    proto3: dict[str, bool] = field(default_factory=dict)
    declared: dict[str, tuple[bool, dict[int, _Declared]]] = field(default_factory=dict)

    def message(self, at: int, end: int, kind: Descriptor | None, path: Path, depth: int, group: int = 0) -> int:
        """Look at the fields of a message, or of the group `group`; return where it ends."""
        if depth > _DEEPEST:
            raise _Found(path, at, f"messages are nested more than {_DEEPEST} deep")
        names_fields, declared = (False, {}) if kind is None else self._declared(kind)
        while at < end:
            self._spend(1)
            begin, inner = at, path
            try:
                tag, at = _varint(self.payload, at, end, "the number of a field")
                number, wire = tag >> 3, tag & 7
                if tag >> 32 or at - begin > _MOST_TAG:
                    raise _Unsound(f"the number of a field has more than {_MOST_TAG} bytes or 32 bits")
                if not number:
                    raise _Unsound("a field has the number 0")
                if wire == _END and number == group:
                    return at
                known, name, own = declared.get(number, _NOT_DECLARED)
                if name and names_fields:
                    inner = (*path, name)
                if wire == own or (wire == _BYTES and own in _PACKED and known.is_repeated):
                    at = self._field(known, wire, at, end, begin, inner, names_fields, depth)
                elif self.is_strict:
                    other = "" if known is None else f" with wire type {wire}, not {own}"
                    raise _Found(path, begin, f"field {number}{other}")
                elif wire == _GROUP:
                    at = self.message(at, end, None, path, depth + 1, number)
                else:
                    at = _end_of(wire, self.payload, at, end)
            except _Unsound as error:
                raise _Found(inner, begin, str(error)) from None
        if group:
            raise _Found(path, end, "a group has no end")
        return at

    def _field(
        self, known: Any, wire: int, at: int, end: int, begin: int, path: Path, is_named: bool, depth: int
    ) -> int:
        """Look at the value of a field of the schema; return where it ends.  Raise _Unsound."""
        if wire == _GROUP:
            path = self._value(known, path, begin, is_named)
            return self.message(at, end, known.message_type, path, depth + 1, known.number)
        after = _end_of(wire, self.payload, at, end)
        if wire == _BYTES:
            _, at = _varint(self.payload, at, end)
        if wire == _BYTES and _WIRES.get(known.type, _VARINT) != _BYTES:
            begins = _packed(_WIRES.get(known.type, _VARINT), self.payload, at, after)
            self._spend(len(begins))
            for each in begins:
                self._value(known, path, each, is_named)
        elif known.is_repeated and known.type in MESSAGES and is_map(known):
            key = self._key_of(known.message_type, at, after)
            if is_named and key is not None:
                path = (*path, key)
                self._note(path, begin)
            self.message(at, after, known.message_type, path, depth + 1)
        else:
            path = self._value(known, path, begin, is_named)
            if known.type in MESSAGES:
                self.message(at, after, known.message_type, path, depth + 1)
            elif known.type == FieldDescriptor.TYPE_STRING and self._is_proto3(known.file):
                self._check_text(path, begin, at, after)
        return after

    def _declared(self, kind: Descriptor) -> tuple[bool, dict[int, _Declared]]:
        """Return whether fields of a type have paths of their own, and by number each with its name and wire type."""
        found = self.declared.get(kind.full_name)
        if found is None:
            fields: dict[int, _Declared] = {
                each.number: (each, each.json_name if self.json_names else each.name, _WIRES.get(each.type, _VARINT))
                for each in kind.fields
            }
            found = self.declared[kind.full_name] = (not _is_value(kind), fields)
        return found

    def _value(self, known: Any, path: Path, begin: int, is_named: bool) -> Path:
        """Note that a value of the field at `path` begins, and return its own path."""
        if not is_named:
            return path
        if known.is_repeated:
            index = self.counts.get(path, 0)
            self.counts[path] = index + 1
            path = (*path, index)
        self._note(path, begin)
        return path

    def _note(self, path: Path, begin: int) -> None:
        if len(path) >= self.length and path == self.wanted[: len(path)]:
            self.length, self.byte = len(path), begin

    def _key_of(self, entry: Descriptor, at: int, end: int) -> str | None:
        """Return the key of an entry of a map, which may follow the value; None if it is not sound."""
        own = _WIRES.get(entry.fields_by_name["key"].type, _VARINT)
        written = b""
        try:
            while at < end:
                self._spend(1)
                begin = at
                tag, at = _varint(self.payload, at, end)
                at = _end_of(tag & 7, self.payload, at, end)
                if tag == (1 << 3 | own):
                    written = self.payload[begin:at]
            message: Any = message_factory.GetMessageClass(entry).FromString(written)
            return key_text(message.key)
        except (_Unsound, NotParsed, DecodeError):
            return None

    def _check_text(self, path: Path, begin: int, at: int, end: int) -> None:
        try:
            self.payload[at:end].decode()
        except UnicodeDecodeError:
            raise _Found(path, begin, "a string is not UTF-8") from None

    def _is_proto3(self, file: Any) -> bool:
        if file.name not in self.proto3:
            self.proto3[file.name] = is_proto3(file)
        return self.proto3[file.name]

    def _spend(self, count: int) -> None:
        self.left -= count
        if self.left < 0:
            raise _Enough


def _is_value(kind: Descriptor) -> bool:
    """Whether what is in a message has no path: in an entry of a map, and in what does not become an object."""
    return bool(kind.GetOptions().map_entry) or is_special(kind.full_name) or kind.full_name == ANY


def _varint(payload: bytes, at: int, end: int, what: str = "an integer") -> tuple[int, int]:
    """Return the number at index `at`, and where it ends.  Raise _Unsound about `what` it is."""
    if at < end and payload[at] < 0x80:
        return payload[at], at + 1
    number = 0
    for shift in range(0, 70, 7):
        if at >= end:
            raise _Unsound(f"{what} is cut off")
        byte = payload[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
    raise _Unsound(f"{what} has more than 10 bytes")


def _end_of(wire: int, payload: bytes, at: int, end: int) -> int:
    """Return where the value at `at` ends, which is not a group.  Raise _Unsound."""
    if wire == _VARINT:
        return _varint(payload, at, end)[1]
    if wire == _BYTES:
        length, at = _varint(payload, at, end, "a length")
        if length > end - at:
            raise _Unsound(f"a length is {length:,}, and the message has {end - at:,} more bytes")
        return at + length
    if wire in _SIZES:
        if _SIZES[wire] > end - at:
            raise _Unsound(f"a value of {_SIZES[wire]} bytes is cut off: the message has {end - at} more")
        return at + _SIZES[wire]
    raise _Unsound("a group ends that did not begin" if wire == _END else f"there is no wire type {wire}")


def _packed(wire: int, payload: bytes, at: int, end: int) -> Sequence[int]:
    """Return where the elements of a packed field begin.  Raise _Unsound."""
    if wire in _SIZES:
        if (end - at) % _SIZES[wire]:
            raise _Unsound(f"a list of values of {_SIZES[wire]} bytes has {end - at:,} bytes")
        return range(at, end, _SIZES[wire])
    begins = []
    while at < end:
        begins.append(at)
        _, at = _varint(payload, at, end)
        if len(begins) > MOST_FIELDS:
            raise _Enough
    return begins
