"""Bytes of Avro to plain values: Python source, generated for the schema of the writer and that of the reader.

fastavro does not do it: 100 kB of nested records end its process, five bytes that declare 2**60 nulls never end, and a
long of twenty bytes is a number.  Here every length is compared with what is left, every number has the range of its
type, and nesting is counted.  What the mapping does not read is walked over: its bytes are checked, not what they say.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from itertools import count
from types import TracebackType
from typing import Any, Final, TypeAlias

from iggyflux.errors import DecodeError
from iggyflux.payloads.avro.defaults import default_of
from iggyflux.payloads.avro.schema import MISSING, NAMED, Member, Node, SchemaError
from iggyflux.payloads.avro.values import as_double, bad_symbol, bad_union, base64_text, converter
from iggyflux.payloads.format import (
    MALFORMED,
    MAX_DEPTH,
    MAX_VALUES,
    duplicate_key,
    not_finite,
    not_utf8,
    too_deep,
    too_many,
)
from iggyflux.payloads.places import Place, Step, located
from iggyflux.reads import Reads
from iggyflux.records import JSON

Budget = list[int]
"""How many values a payload may still become, in a list of one: records that share it take from it."""
Read = Callable[[bytes, int, Budget], tuple[Any, int]]
"""Returns the value that begins at an index, and the index of what follows."""

_FLAT: Final = 4
"""So many lists are nested in one function; Python bounds the loops of a function."""
_LONG: Final = 1000
"""After so many lines of a function what is nested in it becomes one of its own."""
_OBJECT: Final = 4
"""An object or a list takes as much memory as so many values."""
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

    def written(*, traced: bool) -> tuple[_Generated, _Emitter]:
        emitter = _Emitter(strict, non_finite, logical, numbers, traced=traced)
        try:
            emitter.write(writer, reader or writer, reads)
            for source in emitter.done:  # each by itself: a syntax tree of all of them takes 100 MB
                exec(compile(source, _FILE, "exec", dont_inherit=True), emitter.names)  # noqa: S102  (our own source)
        except RecursionError:
            raise SchemaError("its types hold each other too deep") from None
        return emitter.names["read0"], emitter

    read, emitter = written(traced=False)
    return _guarded(read, cache(lambda: written(traced=True))), "\n".join(emitter.done)


_Generated = Callable[[bytes, int, int, int, Budget], tuple[Any, int]]
_FAULTS: Final = (DecodeError, IndexError, struct.error, UnicodeDecodeError)
_FILE: Final = "<avro>"


def _guarded(read: _Generated, traced: Callable[[], tuple[_Generated, _Emitter]]) -> Read:
    def guarded(payload: bytes, start: int, budget: Budget) -> tuple[Any, int]:
        end = len(payload)
        try:
            value, at = read(payload, start, end, 0, budget)
            if at > end:
                raise truncated()
        except _FAULTS as error:
            raise _located(_refusal(error), traced, payload, start) from None
        return value, at

    return guarded


def _located(
    refused: DecodeError, traced: Callable[[], tuple[_Generated, _Emitter]], payload: bytes, start: int
) -> DecodeError:
    """Return a failure that finds its place.  No circle keeps it, and so the payload, until garbage is collected."""
    reason = refused.reason
    return located(refused, lambda: _find(reason, traced, payload, start))


def _refusal(error: Exception) -> DecodeError:
    if isinstance(error, DecodeError):
        return error
    return not_utf8(error, "a string") if isinstance(error, UnicodeDecodeError) else truncated()


def _find(reason: str, traced: Callable[[], tuple[_Generated, _Emitter]], payload: bytes, start: int) -> Place | None:
    """Return the place of a failure: read again by functions that keep where the last value began."""
    read, emitter = traced()
    try:
        read(payload, start, len(payload), 0, [MAX_VALUES])
    except _FAULTS as error:
        if _refusal(error).reason == reason:
            return emitter.place_of(error.__traceback__)
    return None


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
        raise DecodeError(MALFORMED, f"not Avro of this schema: {number} is not an int of 32 bits")
    return number, at


def _bad_boolean(byte: int) -> DecodeError:
    return DecodeError(MALFORMED, f"not Avro of this schema: a boolean is 0 or 1, found {byte}")


def _bad_length(length: int, left: int) -> DecodeError:
    if length < 0:
        return DecodeError(MALFORMED, f"not Avro of this schema: the length {length} is negative")
    return DecodeError(
        MALFORMED, f"not Avro of this schema: a length is {length:,}, and {max(left, 0):,} bytes are left"
    )


def _bad_block() -> DecodeError:
    return DecodeError(MALFORMED, "not Avro of this schema: a block is not as long as it says")


def _unresolved(written: str, wanted: str) -> DecodeError:
    return DecodeError(MALFORMED, f"the payload has {written}, and the reader's schema wants {wanted}")


_NAMESPACE: Final[Mapping[str, Any]] = {
    "long_": _long, "int_": _int, "bad_boolean": _bad_boolean, "bad_length": _bad_length, "bad_block": _bad_block,
    "not_finite": not_finite, "bad_union": bad_union, "bad_symbol": bad_symbol, "unresolved": _unresolved,
    "truncated": truncated, "too_deep": too_deep, "too_many": too_many, "duplicate_key": duplicate_key,
    "as_double": as_double,
    "double": struct.Struct("<d").unpack_from, "float": struct.Struct("<f").unpack_from,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Slot:
    """A value that a function reads into `target`: `written` as `wanted`, if `reads` is not None.

    `nested` lists and objects are around it in this function.
    """

    written: Node
    wanted: Node
    reads: Reads | None
    target: str
    nested: int


@dataclass(frozen=True, slots=True)
class _Element:
    """The step to an element of a list: `index` is the variable that has its index."""

    index: str

    def of(self, variables: Mapping[str, Any]) -> int:
        return int(variables[self.index])


@dataclass(frozen=True, slots=True)
class _Entry:
    """The step to a value of a map: `key` is the variable of its key, or of how long that is; `end` that of its end."""

    key: str
    end: str

    def of(self, variables: Mapping[str, Any]) -> str:
        key, end = variables[self.key], variables[self.end]
        return key if isinstance(key, str) else variables["b"][end - key : end].decode(errors="backslashreplace")


_Steps: TypeAlias = tuple[str | _Element | _Entry, ...]


class _Emitter:
    """Writes functions `read0(b, p, e, d, q)`: of payload, index, its end, how deep the value is nested, `Budget`.

    With `traced`, they keep in `s` where the last value begins, and count the elements of lists.
    """

    def __init__(self, strict: bool, non_finite: bool, logical: bool, numbers: bool, *, traced: bool = False) -> None:
        self.strict, self.non_finite, self.logical, self.numbers = strict, non_finite, logical, numbers
        self.traced = traced
        self.path: _Steps = ()
        """The way from the value of the function to what is written."""
        self.line_paths: list[_Steps] = []
        self.paths: dict[str, list[_Steps]] = {}
        """The way to what each line of a function reads, by its name."""
        self.names: dict[str, Any] = {"__name__": "iggyflux.payloads.avro.generated", **_NAMESPACE}
        self.done: list[str] = []
        self.made: dict[tuple[int, int, object], str] = {}
        self.waiting: deque[tuple[str, _Slot, int]] = deque()
        """Functions that are called and not written, with what `optional` is there."""
        self.kept: list[object] = []
        """What ids in `made` are of, so that no other object gets them."""
        self.lines: list[str] = []
        self.level = 1
        self.counter = count()
        self.width = 0
        """How many values are made each time that the lines of this function, branch or loop run."""
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
        self.waiting.append((name, _Slot(writer, reader, reads, self.new(), 0), self.optional))
        return name

    def write(self, writer: Node, reader: Node, reads: Reads | None) -> None:
        """Write the function `read0` for these, and all that it calls: one by one, as types may be a long chain."""
        self.function(writer, reader, reads)
        while self.waiting:
            name, slot, self.optional = self.waiting.popleft()
            self.lines, self.line_paths, self.level = [f"def {name}(b, p, e, d, q):"], [()], 1
            with self.spending():
                self.value(slot, is_body=True)
            self.add(f"return {slot.target}, p")
            self.done.append("\n".join(line for line in self.lines if line.strip()))
            self.paths[name] = [
                path
                for line, path in zip(self.lines, self.line_paths, strict=True)
                if line.strip()
                for _ in line.split("\n")
            ]

    def place_of(self, traceback: TracebackType | None) -> Place:
        """Return where the functions failed, if they are traced."""
        path: list[Step] = []
        byte = 0
        while traceback is not None:
            frame = traceback.tb_frame
            if frame.f_code.co_filename == _FILE:
                variables = frame.f_locals
                byte = variables.get("s", byte)
                steps = self.paths[frame.f_code.co_name][traceback.tb_lineno - 1]
                path += [step if isinstance(step, str) else step.of(variables) for step in steps]
            traceback = traceback.tb_next
        return Place(tuple(path), byte)

    def add(self, line: str) -> None:
        self.lines.append("  " * self.level + line)
        self.line_paths.append(self.path)

    def begin(self) -> None:
        """Write that a value, or a part of one, begins here."""
        if self.traced:
            self.add("s = p")

    @contextmanager
    def inside(self, step: str | _Element | _Entry) -> Iterator[None]:
        """Write inside what reads a part of the value."""
        outer, self.path = self.path, (*self.path, step)
        yield
        self.path = outer

    @contextmanager
    def block(self, head: str) -> Iterator[None]:
        self.add(head)
        self.level += 1
        before = len(self.lines)
        yield
        if len(self.lines) == before:
            self.add("pass")
        self.level -= 1

    @contextmanager
    def spending(self, times: str = "") -> Iterator[None]:
        """Write what takes from the budget the values that are made inside, `times` so many."""
        outer, self.width, at = self.width, 0, len(self.lines)
        self.add("")
        yield
        if self.width:
            amount = f"{times} * {self.width}" if times else self.width
            self.lines[at] += f"q[0] -= {amount}\n{self.lines[at]}if q[0] < 0: raise too_many()"
        self.width = outer

    def new(self) -> str:
        return f"v{next(self.counter)}"

    def constant(self, value: object) -> str:
        name = f"c{next(self.counter)}"
        self.names[name] = value
        return name

    # values

    def value(self, slot: _Slot, *, is_body: bool = False) -> None:
        """Write what reads a value; `is_body` says that the function is of this type alone."""
        w, r = slot.written, slot.wanted
        self.begin()
        if w.kind == "union":
            self.union(slot)
            return
        if r is not w and r.kind == "union":
            same = (each for each in r.inner if _is_same(w, each))
            match = next(same, None) or next((each for each in r.inner if _fits(w, each)), None)
            if match is None:
                self.fail(slot)
            else:
                self.value(replace(slot, wanted=match))
            return
        if r is not w and not _fits(w, r):
            self.fail(slot)
            return
        if w.kind in ("record", "array", "map"):
            if not is_body and (w.uses > 1 or r.uses > 1 or slot.nested >= _FLAT or len(self.lines) > _LONG):
                name = self.function(w, r, slot.reads)
                self.add(f"{slot.target}, p = {name}(b, p, e, d + {slot.nested}, q)")
                return
            self.add(f"if d >= {MAX_DEPTH - slot.nested}: raise too_deep()")
        _WRITERS[w.kind](self, slot)

    def fail(self, slot: _Slot) -> None:
        """Write the failure of what does not resolve; raise SchemaError if every value would fail."""
        if not self.optional:
            raise SchemaError(f"{slot.written.title} of the writer cannot be read as {slot.wanted.title}")
        self.add(f"raise unresolved({slot.written.title!r}, {slot.wanted.title!r})")

    def union(self, slot: _Slot) -> None:
        w, r = slot.written, slot.wanted
        self.number(index := self.new())
        self.optional += 1
        for number, branch in enumerate(w.inner):
            with self.block(f"{'el' if number else ''}if {index} == {number}:"), self.spending():
                self.value(replace(slot, written=branch, wanted=branch if r is w else r))
        self.optional -= 1
        with self.block("else:"):
            self.add(f"raise bad_union({index}, {len(w.inner)})")

    def number(self, target: str, kind: str = "long") -> None:
        self.add(f"{target} = b[p]; p += 1")
        self.add(f"if {target} < 128: {target} = ({target} >> 1) ^ -({target} & 1)")
        self.add(f"else: {target}, p = {kind}_(b, p, {target})")

    def length(self, target: str) -> str:
        """Write what reads the length of bytes; return the name of where they end."""
        self.number(target)
        end = self.new()
        self.add(f"{end} = p + {target}")
        self.add(f"if {target} < 0 or {end} > e: raise bad_length({target}, e - p)")
        return end

    def converted(self, slot: _Slot, value: str) -> None:
        """Write what gives the target the JSON form of `value`, an integer or bytes."""
        w, r = slot.written, slot.wanted
        # What a number means is what its writer says; a reader may say it of a writer that does not.
        convert = self.converter(w if w.logical or w.kind != r.kind else r)
        if convert is not None:
            self.add(f"{slot.target} = {self.constant(convert)}({value})")
        elif value != slot.target:
            self.add(f"{slot.target} = {value}")

    def converter(self, node: Node) -> Callable[[Any], JSON] | None:
        return converter(node if self.logical else Node(node.kind, size=node.size), numbers=self.numbers)

    # kinds of types

    def null(self, slot: _Slot) -> None:
        self.add(f"{slot.target} = None")

    def boolean(self, slot: _Slot) -> None:
        target = slot.target
        self.add(f"{target} = b[p]; p += 1")
        self.add(f"if {target} > 1: raise bad_boolean({target})")
        self.add(f"{target} = {target} == 1")

    def integer(self, slot: _Slot) -> None:
        self.number(slot.target, slot.written.kind)
        if slot.reads is None:
            return
        if slot.wanted.kind in ("float", "double"):
            self.add(f"{slot.target} = as_double({slot.target})")
        else:
            self.converted(slot, slot.target)

    def floating(self, slot: _Slot) -> None:
        target, kind = slot.target, slot.written.kind
        size = 8 if kind == "double" else 4
        if slot.reads is None:
            self.add(f"p += {size}; {target} = None")
            if self.traced:
                self.add("if p > e: raise truncated()")
            return
        self.add(f"{target}, = {kind}(b, p); p += {size}")
        if not self.non_finite:
            self.add(f"if {target} - {target}: raise not_finite({target})")

    def sequence(self, slot: _Slot) -> None:
        end = self.length(slot.target)
        content = f"b[p:{end}]"
        if slot.reads is not None:
            if slot.wanted.kind == "string":
                self.add(f"{slot.target} = {content}.decode()")
            elif slot.written.kind == "bytes":
                self.converted(slot, content)
            else:
                self.add(f"{slot.target} = {self.constant(base64_text)}({content})")
        self.add(f"p = {end}")

    def fixed(self, slot: _Slot) -> None:
        end = self.new()
        self.add(f"{end} = p + {slot.written.size}")
        self.add(f"if {end} > e: raise truncated()")
        if slot.reads is None:
            self.add(f"{slot.target} = None")
        else:
            self.converted(slot, f"b[p:{end}]")
        self.add(f"p = {end}")

    def enum(self, slot: _Slot) -> None:
        w, r, target = slot.written, slot.wanted, slot.target
        self.number(target)
        total = len(w.symbols)
        self.add(f"if not 0 <= {target} < {total}: raise bad_symbol({target}, {total})")
        if slot.reads is None:
            return
        symbols = [each if r is w or each in r.symbols else r.default for each in w.symbols]
        self.add(f"{target} = {self.constant(tuple(symbols))}[{target}]")
        if None in symbols:
            self.add(f"if {target} is None: raise unresolved('another symbol', {r.title!r})")

    def record(self, slot: _Slot) -> None:
        w, r, reads = slot.written, slot.wanted, slot.reads
        members = {member.name: member for member in r.members}
        found: dict[str, str] = {}
        for member in w.members:
            into = _counterpart(member, r, members) if r is not w else member
            inner = None if into is None or reads is None else _member_reads(reads, into.name)
            value = self.new()
            wanted = member.type if into is None else into.type
            with self.inside(member.name):
                self.value(_Slot(member.type, wanted, inner, value, slot.nested + 1))
            if into is not None:
                found[into.name] = value
        for name in members.keys() - found.keys():
            found[name] = self.missing(members[name], r)
        if reads is not None:
            self.width += _OBJECT
        parts = [f"{name!r}: {found[name]}" for name in members if reads and _member_reads(reads, name) is not None]
        self.width += len(parts)
        self.add(f"{slot.target} = {{{', '.join(parts)}}}")

    def missing(self, member: Member, reader: Node) -> str:
        """Return the name of the default of a field that the writer does not have."""
        if member.default is not MISSING:
            return self.constant(default_of(member.type, member.default, self.converter))
        if not self.optional:
            raise SchemaError(
                f"the writer has no {member.name!r}, and it has no default in {reader.title} of the reader"
            )
        self.add(f"raise unresolved('no ' + {member.name!r}, 'it')")
        return "None"

    @contextmanager
    def blocks(self, width: int) -> Iterator[_Element]:
        """Write the loops over the items of all blocks; what is written inside reads an item, of `width` values."""
        count, size, end, index = self.new(), self.new(), self.new(), self.new()
        if self.traced:
            self.add(f"{index} = -1")
        with self.block("while True:"):
            self.begin()
            self.number(count)
            self.add(f"if not {count}: break")
            self.add(f"{end} = -1")
            with self.block(f"if {count} < 0:"):
                self.add(f"{count} = -{count}")
                self.number(size)
                self.add(f"{end} = p + {size}")
                self.add(f"if {size} < 0 or {end} > e: raise bad_length({size}, e - p)")
            self.add(f"if {count} > e - p: raise bad_length({count}, e - p)")  # each takes a byte
            with self.spending(count), self.block(f"for _ in range({count}):"):
                self.width += width
                if self.traced:
                    self.add(f"{index} += 1")
                yield _Element(index)
            self.begin()
            self.add(f"if {end} >= 0 and p != {end}: raise bad_block()")

    def array(self, slot: _Slot) -> None:
        reads = slot.reads
        items = reads if reads is None or reads.whole else reads.items
        item = _Slot(slot.written.inner[0], slot.wanted.inner[0], items, self.new(), slot.nested + 1)
        self.add(f"{slot.target} = []")
        self.width += 0 if reads is None else _OBJECT
        with self.blocks(0 if items is None else 1) as element:
            with self.inside(element):
                self.value(item)
            if items is not None:
                self.add(f"{slot.target}.append({item.target})")

    def map(self, slot: _Slot) -> None:
        reads, target, key = slot.reads, slot.target, self.new()
        keys = {} if reads is None else reads.keys
        values = reads if reads is None or reads.whole else Reads.BARE.union(*keys.values())
        item = _Slot(slot.written.inner[0], slot.wanted.inner[0], values, self.new(), slot.nested + 1)
        self.add(f"{target} = {{}}")
        self.width += 0 if reads is None else _OBJECT
        with self.blocks(2 if self.strict or (reads and reads.whole) else 0):
            self.begin()
            end = self.length(key)
            if self.strict or keys or (reads and reads.whole):
                self.add(f"{key} = b[p:{end}].decode()")
            self.add(f"p = {end}")
            if self.strict:
                self.add(f"if {key} in {target}: raise duplicate_key({key})")
            with self.inside(_Entry(key, end)):
                if keys:
                    with self.block(f"if {key} in {self.constant(frozenset(keys))}:"), self.spending():
                        self.value(item)
                    with self.block("else:"):
                        self.value(replace(item, reads=None))
                else:
                    self.value(item if reads and reads.whole else replace(item, reads=None))
            if self.strict or (reads and reads.whole):
                self.add(f"{target}[{key}] = {item.target}")
            elif keys:
                self.add(f"if {key} in {self.constant(frozenset(keys))}: {target}[{key}] = {item.target}")


_WRITERS: Final[Mapping[str, Callable[[_Emitter, _Slot], None]]] = {
    "null": _Emitter.null,
    "boolean": _Emitter.boolean,
    "int": _Emitter.integer,
    "long": _Emitter.integer,
    "float": _Emitter.floating,
    "double": _Emitter.floating,
    "bytes": _Emitter.sequence,
    "string": _Emitter.sequence,
    "fixed": _Emitter.fixed,
    "enum": _Emitter.enum,
    "record": _Emitter.record,
    "array": _Emitter.array,
    "map": _Emitter.map,
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
