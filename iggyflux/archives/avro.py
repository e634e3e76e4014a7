"""Records of an Avro object container file, each a container of its own: the file's header, and a block of that record.

So a record that fails is a dead letter of its own, and the mapping decodes it as any container.

| of a block                                      | the records are                                                   |
|-------------------------------------------------|-------------------------------------------------------------------|
| it is sound                                     | its records                                                       |
| a record in it does not end                     | those before it, and one of all the rest, which fails             |
| it cannot be expanded, or is too large          | one of the whole block, which fails                               |
| it does not end with the sync marker            | one of all that is before the next marker, which fails            |
| … and no marker comes                           | none: the file is damaged                                         |

At most one block is in memory, as it is and expanded, each of at most 64 MB.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Final

from iggyflux.archives.records import Record
from iggyflux.authoring.sample_bytes import DAMAGED, SampleError, plain_name
from iggyflux.errors import DecodeError
from iggyflux.payloads import MAX_PAYLOAD_BYTES
from iggyflux.payloads.avro.container import (
    MAX_SCHEMA_BYTES,
    content_of,
    expander,
    is_container,
    read_header,
    write_block,
    write_header,
)
from iggyflux.payloads.avro.reading import compile_reader, read_long
from iggyflux.payloads.avro.schema import MAX_FOREIGN_NODES, SchemaError, parse
from iggyflux.payloads.format import MAX_VALUES
from iggyflux.reads import Reads

_UNREADABLE: Final = "IFX710"
_CHUNK: Final = 1 << 20
_BEGIN: Final = 4096
_MOST_HEADER: Final = 2 * MAX_SCHEMA_BYTES
_LEAST_BLOCK: Final = 18
"""No block has fewer bytes, and no count and length that make sense have more."""


def is_avro(name: str) -> bool:
    """Return whether the name of a file is that of a container, perhaps of a compressed one."""
    return plain_name(name).lower().endswith(".avro")


class ContainerRecords:
    """The records of a file, or of what it expands to; `number` were taken."""

    def __init__(self, file: IO[bytes]) -> None:
        """Read the header.  Raise SampleError if it is not a container, or one that cannot be read."""
        self._file = file
        self._data = b""
        """What was read of the file and is not taken yet, from byte `_at` on."""
        self._at = 0
        self._is_read = False
        """Whether nothing is left of the file."""
        self.position = 0
        self.number = 0
        self._block = (0, 0)
        """Where the block begins that is read, and the records before it."""
        schema, self._codec, self._sync, start = self._read_header()
        try:
            self._expand = expander(self._codec)
            self._walk, _ = compile_reader(parse(schema, MAX_FOREIGN_NODES), None, Reads.BARE)
        except SchemaError as error:
            raise SampleError(_UNREADABLE, f"the schema in the container cannot be used: {error}", 1) from error
        except DecodeError as error:
            raise SampleError(_UNREADABLE, error.reason, 1, "write the file again with another codec") from error
        self._take(start)
        self._header, self._own_header = write_header(schema, self._sync), write_header(schema, self._sync, self._codec)

    def _read_header(self) -> tuple[str, str, bytes, int]:
        size = _BEGIN
        while True:
            there = self._fill(size)
            try:
                return read_header(self._data)
            except DecodeError as error:
                if size <= there and size < _MOST_HEADER and is_container(self._data):
                    size *= 4
                    continue
                raise SampleError(DAMAGED, error.reason, 1, "name files of Avro, and copy this one again") from error

    def sought(self, _taken: int) -> tuple[int, int, int]:
        """As of `Content`: the beginning of the block."""
        byte, before = self._block
        return byte, before, before

    def records(self, byte: int = 0, number: int = 0) -> Iterator[Record]:
        """Yield the records from the block at `byte` on (0: the first), before which there are `number`.

        Raise SampleError if the file ends within a block, or where this machine cannot expand it.
        """
        if byte:
            self._file.seek(byte)
            self._data, self._at, self._is_read, self.position, self.number = b"", 0, False, byte, number
        while self._fill(_LEAST_BLOCK):
            self._block = (self.position, self.number)
            for payload in self._next_block():
                self.number += 1
                yield self.number, payload

    def _next_block(self) -> Iterator[bytes]:
        """Yield the records of the block that begins here, and go to the next one."""
        try:
            count, at = read_long(self._data, self._at)
            size, at = read_long(self._data, at)
        except (IndexError, DecodeError):
            count, size, at = 0, -1, self._at
        head = at - self._at
        if not 0 <= size <= MAX_PAYLOAD_BYTES or not self._ends_block(head + size):
            yield self._damaged()
            return
        block = self._take(head + size + len(self._sync))
        try:
            data = content_of(count, block[head : head + size], self._expand)
        except DecodeError as error:
            if error.hint is not None:  # a package
                raise SampleError(_UNREADABLE, error.reason, self.number + 1, error.hint) from error
            yield self._own_header + block
            return
        yield from self._records_of(count, data)

    def _records_of(self, count: int, data: bytes) -> Iterator[bytes]:
        at = 0
        for _ in range(count):
            try:
                _, end = self._walk(data, at, [MAX_VALUES])
            except DecodeError:
                yield self._header + write_block(1, data[at:], self._sync)
                return
            yield self._header + write_block(1, data[at:end], self._sync)
            at = end
        if at < len(data):
            yield self._header + write_block(0, data[at:], self._sync)

    def _ends_block(self, size: int) -> bool:
        """Return whether the sync marker follows so many bytes."""
        self._fill(size + len(self._sync))
        return self._data.startswith(self._sync, self._at + size)

    def _damaged(self) -> bytes:
        """Return what is before the next sync marker, and go behind that.  Raise SampleError if there is none."""
        kept = bytearray(self._own_header)
        first, last = self.number + 1, len(self._sync) - 1
        while (found := self._data.find(self._sync, self._at)) < 0:
            size = max(len(self._data) - self._at - last, 0)
            part = self._take(size)
            kept += part[: max(MAX_PAYLOAD_BYTES + 1 - len(kept), 0)]
            if self._fill(_CHUNK) < _CHUNK and self._data.find(self._sync, self._at) < 0:
                reason = "the file is damaged, or ends within a block: no sync marker follows"
                raise SampleError(DAMAGED, reason, first, "copy it again")
        part = self._take(found + len(self._sync) - self._at)
        return bytes(kept + part[: max(MAX_PAYLOAD_BYTES + 1 - len(kept), 0)])

    def _fill(self, size: int) -> int:
        """Read until there are `size` bytes that are not taken; return how many there are, fewer at the end.

        It reads ahead, as each call that reads copies all that is there: many damaged blocks may each claim 64 MB.
        """
        there = len(self._data) - self._at
        if there >= size:
            return there
        if self._is_read:
            return there
        parts = [self._data[self._at :]]
        while there < size and not self._is_read:
            parts.append(self._file.read(max(size - there, _CHUNK)))
            there += len(parts[-1])
            self._is_read = not parts[-1]
        self._data, self._at = b"".join(parts), 0
        return there

    def _take(self, size: int) -> bytes:
        """Take so many bytes."""
        part = self._data[self._at : self._at + size]
        self._at += size
        self.position += size
        return part
