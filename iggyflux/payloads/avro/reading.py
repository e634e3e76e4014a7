"""Bytes of Avro to plain values: Python source, generated for the schema of the writer and that of the reader.

fastavro does not do it: 100 kB of nested records end its process, five bytes that declare 2**60 nulls never end, and a
long of twenty bytes is a number.  Here every length is compared with what is left, every number has the range of its
type, and nesting is counted.  What the mapping does not read is walked over: its bytes are checked, not what they say.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from typing import Any, Final

from iggyflux.errors import DecodeError
from iggyflux.payloads.avro.schema import MISSING, NAMED, Member, Node, SchemaError
from iggyflux.payloads.avro.values import as_double, bad_number, bad_symbol, bad_union, base64_text, converter
from iggyflux.payloads.format import MALFORMED, MAX_DEPTH, duplicate_key, not_utf8, too_deep
from iggyflux.reads import Reads
from iggyflux.records import JSON

Read = Callable[[bytes, int], tuple[Any, int]]
"""Returns the value that begins at an index, and the index of what follows."""

_FLAT: Final = 4
"""So many lists stand in one another in one function; Python bounds the loops of a function."""
_PROMOTIONS: Final = {
    ("int", "long"), ("int", "float"), ("int", "double"), ("long", "float"), ("long", "double"), ("float", "double"),
    ("string", "bytes"), ("bytes", "string"),
}  # fmt: skip


def compile_reader(
    writer: Node,
    reader: Node | None = None,
    reads: Reads = Reads.WHOLE,
    *,
    strict: bool = False,
    non_finite: bool = False,
    logical: bool = True,
    numbers: bool = False,
) -> tuple[Read, str]:
    """Return what reads a value of `writer` as one of `reader` (None: as it is), and its source.

    What it returns raises DecodeError for bytes of any form.  Raise SchemaError if no value of `writer` could ever be
    read as `reader`.
    """
    emitter = _Emitter(strict, non_finite, logical, numbers)
    emitter.function(writer, reader or writer, reads)
    source = "\n".join(emitter.done)
    namespace = emitter.names
    exec(compile(source, "<avro>", "exec", dont_inherit=True), namespace)  # noqa: S102  (our own source)
    return _guarded(namespace["read0"]), source


def _guarded(read: Callable[[bytes, int, int, int], tuple[Any, int]]) -> Read:
    def guarded(payload: bytes, start: int) -> tuple[Any, int]:
        end = len(payload)
        try:
            value, at = read(payload, start, end, 0)
        except (IndexError, struct.error):
            raise truncated() from None
        except UnicodeDecodeError as error:
            raise not_utf8(error, "a string") from None
        if at > end:
            raise truncated()
        return value, at

    return guarded


def truncated() -> DecodeError:
    """Return the failure for a payload that ends too early."""
    return DecodeError(MALFORMED, "not Avro of this schema: the payload ends in the middle of a value")


def read_long(payload: bytes, at: int) -> tuple[int, int]:
    """Return a long, and where it ends.  Raise IndexError at the end of the payload."""
    byte = payload[at]
    if byte < 128:
        return (byte >> 1) ^ -(byte & 1), at + 1
    return _long(payload, at + 1, byte)


def _long(payload: bytes, at: int, first: int) -> tuple[int, int]:
    """Return the long of which `first` is the first byte and the others begin at `at`."""
    number, shift = first & 127, 7
    while True:
        byte = payload[at]
        at += 1
        number |= (byte & 127) << shift
        if byte < 128:
            break
        shift += 7
        if shift > 63:
            raise DecodeError(MALFORMED, "not Avro of this schema: a number has more than ten bytes")
    if number >> 64:
        raise DecodeError(MALFORMED, "not Avro of this schema: a number has more than 64 bits")
    return (number >> 1) ^ -(number & 1), at


def _int(payload: bytes, at: int, first: int) -> tuple[int, int]:
    number, at = _long(payload, at, first)
    if not -0x8000_0000 <= number <= 0x7FFF_FFFF:
        raise DecodeError(MALFORMED, f"not Avro of this schema: {number} is no int of 32 bits")
    return number, at


def _bad_boolean(byte: int) -> DecodeError:
    return DecodeError(MALFORMED, f"not Avro of this schema: a boolean is 0 or 1, found {byte}")


def _bad_length(length: int, left: int) -> DecodeError:
    if length < 0:
        return DecodeError(MALFORMED, f"not Avro of this schema: the length {length} is negative")
    return DecodeError(MALFORMED, f"not Avro of this schema: a length is {length:,}, and {max(left, 0):,} bytes are left")


def _bad_block() -> DecodeError:
    return DecodeError(MALFORMED, "not Avro of this schema: a block is not as long as it says")


def _unresolved(written: str, wanted: str) -> DecodeError:
    return DecodeError(MALFORMED, f"the payload has {written}, and the reader's schema wants {wanted}")


_NAMESPACE: Final[Mapping[str, Any]] = {
    "long": _long, "int_": _int, "bad_boolean": _bad_boolean, "bad_length": _bad_length, "bad_block": _bad_block,
    "bad_number": bad_number, "bad_union": bad_union, "bad_symbol": bad_symbol, "unresolved": _unresolved,
    "truncated": truncated, "too_deep": too_deep, "duplicate_key": duplicate_key, "as_double": as_double,
    "double": struct.Struct("<d").unpack_from, "float_": struct.Struct("<f").unpack_from,
}  # fmt: skip


class _Emitter:
    """Writes functions `read0(b, p, e, d)`: of payload, index, its end, and how deep the value is nested."""

    def __init__(self, strict: bool, non_finite: bool, logical: bool, numbers: bool) -> None:
        self.strict, self.non_finite, self.logical, self.numbers = strict, non_finite, logical, numbers
        self.names: dict[str, Any] = {"__name__": "iggyflux.payloads.avro.generated", **_NAMESPACE}
        self.done: list[str] = []
        self.made: dict[tuple[int, int, object], str] = {}
        self.kept: list[object] = []
        """What ids in `made` are of, so that no other object gets them."""
        self.lines: list[str] = []
        self.level = 1
        self.counter = count()
        self.optional = 0
        """How many unions are around: what does not resolve there fails where a payload chooses it."""

    # functions

    def function(self, writer: Node, reader: Node, reads: Reads | None) -> str:
        """Return the name of the function that reads `writer` as `reader`; `reads` None: that walks over it."""
        key = (id(writer), id(reader), "whole" if reads is not None and reads.whole else reads and id(reads))
        if key in self.made:
            return self.made[key]
        name = self.made[key] = f"read{len(self.made)}"
        self.kept.append(reads)
        outer = self.lines, self.level
        self.lines, self.level = [f"def {name}(b, p, e, d):"], 1
        target = self.new()
        self.value(writer, reader, reads, target, 0, is_body=True)
        self.add(f"return {target}, p")
        self.done += self.lines
        self.lines, self.level = outer
        return name

    def add(self, line: str) -> None:
        self.lines.append("  " * self.level + line)

    @contextmanager
    def block(self, head: str) -> Iterator[None]:
        self.add(head)
        self.level += 1
        before = len(self.lines)
        yield
        if len(self.lines) == before:
            self.add("pass")
        self.level -= 1

    def new(self) -> str:
        return f"v{next(self.counter)}"

    def constant(self, value: object) -> str:
        name = f"c{next(self.counter)}"
        self.names[name] = value
        return name

    # values

    def value(
        self, w: Node, r: Node, reads: Reads | None, target: str, nested: int, *, is_body: bool = False
    ) -> None:
        """Write what reads a value into `target`; `nested` lists and objects are around it in this function."""
        if w.kind == "union":
            self.union(w, r, reads, target, nested)
            return
        if r is not w and r.kind == "union":
            match = next((each for each in r.inner if _is_same(w, each)), None) or next(
                (each for each in r.inner if _fits(w, each)), None
            )
            if match is None:
                self.fail(w, r, target)
            else:
                self.value(w, match, reads, target, nested)
            return
        if r is not w and not _fits(w, r):
            self.fail(w, r, target)
            return
        if not is_body and w.kind in ("record", "array", "map") and (w.uses > 1 or r.uses > 1 or nested >= _FLAT):
            name = self.function(w, r, reads)
            self.add(f"{target}, p = {name}(b, p, e, d + {nested})")
            return
        if w.kind in ("record", "array", "map"):
            if nested >= MAX_DEPTH:
                self.add("raise too_deep()")
            else:
                self.add(f"if d >= {MAX_DEPTH - nested}: raise too_deep()")
        getattr(self, f"_{w.kind}")(w, r, reads, target, nested)

    def fail(self, w: Node, r: Node, target: str) -> None:
        if not self.optional:
            raise SchemaError(f"{w.title} of the writer cannot be read as {r.title}")
        self.add(f"raise unresolved({w.title!r}, {r.title!r})")

    def union(self, w: Node, r: Node, reads: Reads | None, target: str, nested: int) -> None:
        self.long(index := self.new())
        self.optional += 1
        for number, branch in enumerate(w.inner):
            with self.block(f"{'el' if number else ''}if {index} == {number}:"):
                self.value(branch, branch if r is w else r, reads, target, nested)
        self.optional -= 1
        with self.block("else:"):
            self.add(f"raise bad_union({index}, {len(w.inner)})")

    def long(self, target: str, kind: str = "long") -> None:
        self.add(f"{target} = b[p]; p += 1")
        self.add(f"if {target} < 128: {target} = ({target} >> 1) ^ -({target} & 1)")
        self.add(f"else: {target}, p = {'int_' if kind == 'int' else 'long'}(b, p, {target})")

    def length(self, target: str) -> str:
        """Write what reads the length of bytes; return the name of where they end."""
        self.long(target)
        end = self.new()
        self.add(f"{end} = p + {target}")
        self.add(f"if {target} < 0 or {end} > e: raise bad_length({target}, e - p)")
        return end

    def converted(self, w: Node, r: Node, value: str, target: str) -> None:
        """Write what gives `target` the JSON form of `value`, an integer or bytes."""
        # What a number means is what its writer says; a reader may say it of a writer that does not.
        of = w if w.logical or w.kind != r.kind else r
        if not self.logical and of.logical:
            of = Node(of.kind, size=of.size)
        convert = converter(of, numbers=self.numbers)
        if convert is not None:
            self.add(f"{target} = {self.constant(convert)}({value})")
        elif value != target:
            self.add(f"{target} = {value}")

    # kinds of types

    def _null(self, w: Node, r: Node, reads: Reads | None, target: str, nested: int) -> None:
        self.add(f"{target} = None")

    def _boolean(self, w: Node, r: Node, reads: Reads | None, target: str, nested: int) -> None:
        self.add(f"{target} = b[p]; p += 1")
        self.add(f"if {target} > 1: raise bad_boolean({target})")
        if reads is not None:
            self.add(f"{target} = {target} == 1")

    def _long(self, w: Node, r: Node, reads: Reads | None, target: str, nested: int) -> None:
        self.long(target, w.kind)
        if reads is None:
            return
        if r.kind in ("float", "double"):
            self.add(f"{target} = as_double({target})")
        else:
            self.converted(w, r, target, target)

    _int = _long

    def _double(self, w: Node, r: Node, reads: Reads | None, target: str, nested: int) -> None:
        size = 8 if w.kind == "double" else 4
        if reads is None:
            self.add(f"p += {size}; {target} = None")
            return
        self.add(f"{target}, = {'double' if size == 8 else 'float_'}(b, p); p += {size}")
        if not self.non_finite:
            self.add(f"if {target} - {target}: raise bad_number({target})")

    _float = _double

    def _string(self, w: Node, r: Node, reads: Reads | None, target: str, nested: int) -> None:
        end = self.length(target)
        if reads is None:
            pass
        elif r.kind == "string":
            self.add(f"{target} = b[p:{end}].decode()")
        elif w.kind == "bytes":
            self.converted(w, r, f"b[p:{end}]", target)
        else:
            self.add(f"{target} = {self.constant(base64_text)}(b[p:{end}])")
        self.add(f"p = {end}")

    _bytes = _string

    def _fixed(self, w: Node, r: Node, reads: Reads | None, target: str, nested: int) -> None:
        end = self.new()
        self.add(f"{end} = p + {w.size}")
        self.add(f"if {end} > e: raise truncated()")
        if reads is None:
            self.add(f"{target} = None")
        else:
            self.converted(w, r, f"b[p:{end}]", target)
        self.add(f"p = {end}")

    def _enum(self, w: Node, r: Node, reads: Reads | None, target: str, nested: int) -> None:
        self.long(target)
        total = len(w.symbols)
        self.add(f"if not 0 <= {target} < {total}: raise bad_symbol({target}, {total})")
        if reads is None:
            return
        symbols = [each if r is w or each in r.symbols else r.default for each in w.symbols]
        self.add(f"{target} = {self.constant(tuple(symbols))}[{target}]")
        if None in symbols:
            self.add(f"if {target} is None: raise unresolved('another symbol', {r.title!r})")

    def _record(self, w: Node, r: Node, reads: Reads | None, target: str, nested: int) -> None:
        members = {member.name: member for member in r.members}
        found: dict[str, str] = {}
        for member in w.members:
            into = _counterpart(member, r, members) if r is not w else member
            inner = None if into is None or reads is None else _member_reads(reads, into.name)
            value = self.new()
            wanted = member.type if into is None else into.type
            self.value(member.type, wanted, inner, value, nested + 1)
            if into is not None:
                found[into.name] = value
        if reads is None:
            self.add(f"{target} = None")
            return
        parts = []
        for name, into in members.items():
            if name not in found:
                if into.default is MISSING:
                    if not self.optional:
                        raise SchemaError(f"the writer has no {name!r}, and in the reader's {r.title} it has no default")
                    self.add(f"raise unresolved('no {name}', 'it')")
                    continue
                if _member_reads(reads, name) is not None:
                    found[name] = self.constant(self.default(into.type, into.default, {}))
            if _member_reads(reads, name) is not None:
                parts.append(f"{name!r}: {found[name]}")
        self.add(f"{target} = {{{', '.join(parts)}}}")

    @contextmanager
    def blocks(self) -> Iterator[None]:
        """Write the loops over the items of all blocks; what is written inside reads an item."""
        number, size, end = self.new(), self.new(), self.new()
        with self.block("while True:"):
            self.long(number)
            with self.block(f"if not {number}:"):
                self.add("break")
            self.add(f"{end} = -1")
            with self.block(f"if {number} < 0:"):
                self.add(f"{number} = -{number}")
                self.long(size)
                self.add(f"{end} = p + {size}")
                self.add(f"if {size} < 0 or {end} > e: raise bad_length({size}, e - p)")
            self.add(f"if {number} > e - p: raise bad_length({number}, e - p)")  # each takes a byte
            with self.block(f"for _ in range({number}):"):
                yield
            self.add(f"if {end} >= 0 and p != {end}: raise bad_block()")

    def _array(self, w: Node, r: Node, reads: Reads | None, target: str, nested: int) -> None:
        items = None if reads is None else reads if reads.whole else reads.items
        self.add(f"{target} = []")
        item = self.new()
        with self.blocks():
            self.value(w.inner[0], r.inner[0] if items is not None else w.inner[0], items, item, nested + 1)
            if items is not None:
                self.add(f"{target}.append({item})")

    def _map(self, w: Node, r: Node, reads: Reads | None, target: str, nested: int) -> None:
        self.add(f"{target} = {{}}")
        item, key = self.new(), self.new()
        is_read = reads is not None and (reads.whole or bool(reads.keys))
        with self.blocks():
            end = self.length(key)
            if is_read or self.strict:
                self.add(f"{key} = b[p:{end}].decode()")
            self.add(f"p = {end}")
            if self.strict:
                self.add(f"if {key} in {target}: raise duplicate_key({key})")
            if reads is None or not is_read:
                self.value(w.inner[0], w.inner[0], None, item, nested + 1)
                if self.strict:
                    self.add(f"{target}[{key}] = None")
            elif reads.whole:
                self.value(w.inner[0], r.inner[0], reads, item, nested + 1)
                self.add(f"{target}[{key}] = {item}")
            else:
                with self.block(f"if {key} in {self.constant(frozenset(reads.keys))}:"):
                    union = Reads.BARE.union(*reads.keys.values())
                    self.value(w.inner[0], r.inner[0], union, item, nested + 1)
                    self.add(f"{target}[{key}] = {item}")
                with self.block("else:"):
                    self.value(w.inner[0], w.inner[0], None, item, nested + 1)
                    if self.strict:
                        self.add(f"{target}[{key}] = None")

    # defaults of a reader

    def default(self, node: Node, value: Any, known: dict[tuple[int, int], JSON]) -> JSON:
        """Return the JSON form of a default, as a schema writes it.  Raise SchemaError."""
        key = (id(node), id(value))
        if key not in known:
            known[key] = self._default(node, value, known)
        return known[key]

    def _default(self, node: Node, value: Any, known: dict[tuple[int, int], JSON]) -> JSON:
        kind = node.kind
        if kind == "union":
            for branch in node.inner:
                try:
                    return self.default(branch, value, known)
                except SchemaError:
                    pass
        elif kind == "record" and isinstance(value, dict):
            pairs = [(each, value.get(each.name, each.default)) for each in node.members]
            if not any(given is MISSING for _, given in pairs):
                return {each.name: self.default(each.type, given, known) for each, given in pairs}
        elif kind == "map" and isinstance(value, dict):
            return {name: self.default(node.inner[0], each, known) for name, each in value.items()}
        elif kind == "array" and isinstance(value, list):
            return [self.default(node.inner[0], each, known) for each in value]
        elif kind in ("bytes", "fixed") and isinstance(value, str):
            try:
                raw = value.encode("latin-1")
                if kind == "bytes" or len(raw) == node.size:
                    return self.form(node, raw)
            except (UnicodeEncodeError, DecodeError):
                pass
        elif (kind == "enum" and value in node.symbols) or type(value) in _DEFAULTS.get(kind, ()):
            if kind in ("float", "double"):
                return float(value)
            if kind not in ("int", "long"):
                result: JSON = value
                return result
            try:
                return self.form(node, value)
            except DecodeError:
                pass
        raise SchemaError(f"the default {str(value)[:40]!r} is no {node.title}")

    def form(self, node: Node, value: Any) -> JSON:
        of = node if self.logical else Node(node.kind, size=node.size)
        convert = converter(of, numbers=self.numbers)
        return value if convert is None else convert(value)  # type: ignore[no-any-return]


_DEFAULTS: Final[Mapping[str, tuple[type, ...]]] = {
    "null": (type(None),),
    "boolean": (bool,),
    "int": (int,),
    "long": (int,),
    "float": (int, float),
    "double": (int, float),
    "string": (str,),
}


def _member_reads(reads: Reads, name: str) -> Reads | None:
    return reads if reads.whole else reads.keys.get(name)


def _counterpart(member: Member, reader: Node, members: Mapping[str, Member]) -> Member | None:
    """Return the field of the reader that a field of the writer becomes."""
    return members.get(member.name) or next((each for each in reader.members if member.name in each.aliases), None)


def _is_same(w: Node, r: Node) -> bool:
    return w.kind == r.kind and (w.name == r.name or w.kind not in NAMED)


def _fits(w: Node, r: Node) -> bool:
    """Return whether a value of `w` can be one of `r`, as far as kinds and names say."""
    if r.kind == "union":
        return any(_fits(w, each) for each in r.inner)
    if w.kind != r.kind:
        return w.kind == "union" or (w.kind, r.kind) in _PROMOTIONS
    if w.kind not in NAMED:
        return True
    return (w.last_name == r.last_name or w.name in r.aliases) and w.size == r.size

