"""Digests of rows, and the ids of messages that are made of them.

A digest says what a row holds and nothing else: not in which order, not when it was read, not by which process.  What
it is made of is part of the contract (docs/reader.md), since ids outlive a release:

    digest = the first 16 bytes of BLAKE2b-512 of: measurement, names, values, each as MessagePack
             (names: the array of those of the columns that have a value, in the order of their UTF-8 bytes, and values
             in that order; integers and strings in their shortest form, floats in 64 bits; of what MessagePack has
             no form for, such as integers beyond 64 bits, values is a `bin` of the JSON text instead)
    id     = digest XOR the first 16 bytes of BLAKE2b-512 of: name of the mapping, number of the item of `messages`
             (from 0), each as MessagePack; a number of 128 bits, its first byte the highest

The digest of a message of many rows is that of their digests, one after the other.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from operator import itemgetter
from typing import Any

import msgspec

from iggyflux.records import JSON, Row

DIGEST_BYTES = 16

_pack = msgspec.msgpack.Encoder(order="deterministic").encode
_NIL = b"\xc0"


def digest_rows(rows: Sequence[Row]) -> list[bytes]:
    """16 bytes for each row: equal where measurement and typed columns are, `time` among them; nulls are not there.

    `1` and `1.0` differ, as do `0.0` and `-0.0`; the order of columns, the window and what is told of tags do not
    count.  The same on every machine and Python version, for every row that there can be.
    """
    known: dict[str, dict[tuple[str, ...], _Shape]] = {}
    digests = []
    for row in rows:
        columns = row.columns
        names = tuple(columns)
        try:
            prefix, values_of = known[row.measurement][names]
        except KeyError:
            shape = prefix, values_of = _shape(row.measurement, names)
            known.setdefault(row.measurement, {})[names] = shape
        values = values_of(columns)
        try:
            packed = _pack(values)
        except (ValueError, OverflowError, TypeError, RecursionError):
            packed = b""
        if not packed or (_NIL in packed and None in values):
            digests.append(_digest_carefully(row))
        else:
            digests.append(blake2b(prefix + packed).digest()[:DIGEST_BYTES])
    return digests


def digest_of_many(digests: Sequence[bytes]) -> bytes:
    """The digest of what is made of several rows, in their order."""
    return blake2b(b"".join(digests)).digest()[:DIGEST_BYTES]


def id_salt(mapping: str, number: int) -> int:
    """What the digest of a row is XORed with to be the id of the message that item `number` of a mapping makes of it.

    Two items make two ids of one row, and two mappings too.
    """
    return int.from_bytes(blake2b(_pack(mapping) + _pack(number)).digest()[:DIGEST_BYTES], "big")


_Values = Callable[[Mapping[str, JSON]], Sequence[JSON]]
_Shape = tuple[bytes, _Values]
"""What the bytes begin with for rows of these columns, and the values in the order of the names."""


def _shape(measurement: str, names: Sequence[str]) -> _Shape:
    ordered = sorted(names)
    prefix = _text(measurement) + _names(ordered)
    if len(ordered) > 1:
        getter: Any = itemgetter(*ordered)
        return prefix, getter
    return prefix, lambda columns: [columns[name] for name in ordered]


def _digest_carefully(row: Row) -> bytes:
    """The specification of `digest_rows`: nulls left out, and values that MessagePack cannot hold."""
    names = sorted(name for name, value in row.columns.items() if value is not None)
    values: Any = [row.columns[name] for name in names]
    try:
        packed = _pack(values)
    except (ValueError, OverflowError, TypeError, RecursionError):
        packed = _pack(json.dumps(values, sort_keys=True, separators=(",", ":")).encode())
    return blake2b(_text(row.measurement) + _names(names) + packed).digest()[:DIGEST_BYTES]


def _names(names: Sequence[str]) -> bytes:
    """The names as an array: that of so many nulls, without the nulls, has its head."""
    head = _pack([None] * len(names))
    return head[: len(head) - len(names)] + b"".join(map(_text, names))


def _text(text: str) -> bytes:
    """A string as MessagePack; one with half a surrogate pair, which no server sends, as the bytes it came from."""
    try:
        return _pack(text)
    except UnicodeEncodeError:
        return _pack(text.encode("utf-8", "surrogatepass"))
