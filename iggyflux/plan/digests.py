"""Digests of rows, and the ids of messages that are made of them.

A digest depends only on the content of a row, not on the order of its columns, the time of reading or the process.
Its definition is part of the contract (docs/reader.md), since ids outlive a release:

    head   = the first 16 bytes of BLAKE2b-512 of: measurement, names
             (names: an array of those of the columns that have a value, in the order of their UTF-8 bytes)
    digest = the first 16 bytes of BLAKE2b-512 of: head, as it is, and values
             (values: an array in the order of names; integers and strings in their shortest form, floats in 64 bits;
             of what MessagePack has no form for, such as integers beyond 64 bits, a `bin` of the JSON text instead)
    id     = digest XOR the first 16 bytes of BLAKE2b-512 of: name of the mapping, number of the item of `messages`
             (from 0); a number of 128 bits, its first byte the highest

All but the head is MessagePack.  The digest of a message of many rows is the digest of their digests, one after the
other.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from operator import itemgetter

import msgspec

from iggyflux.records import JSON, Row

DIGEST_BYTES = 16

_pack = msgspec.msgpack.Encoder(order="deterministic").encode
_NO_FORM = (ValueError, OverflowError, TypeError, RecursionError)
"""What packing raises for a value without a form."""


def digest_rows(rows: Sequence[Row]) -> list[bytes]:
    """Return 16 bytes for each row, which are equal if measurement and typed columns are, `time` included.

    `1` and `1.0` differ, as do `0.0` and `-0.0`.  The order of columns, the window and the names of tags do not count.
    The result is the same on every machine and Python version, for every possible row.  A column without a value is not
    in a row (see `Row`); a null that is in it nevertheless counts as a value.
    """
    if not rows:
        return []
    columns = [row.columns for row in rows]
    width, measurement = len(columns[0]), rows[0].measurement
    is_uniform = {width}.issuperset(map(len, columns)) and {measurement}.issuperset([row.measurement for row in rows])
    if is_uniform:
        try:
            return _digest_alike(rows, columns)
        except KeyError:
            pass
    alike: dict[tuple[str, tuple[str, ...]], list[int]] = {}
    for index, row in enumerate(rows):
        alike.setdefault((row.measurement, tuple(row.columns)), []).append(index)
    digests = [b""] * len(rows)
    for indices in alike.values():
        made = _digest_alike([rows[index] for index in indices], [columns[index] for index in indices])
        for index, digest in zip(indices, made, strict=True):
            digests[index] = digest
    return digests


def _digest_alike(rows: Sequence[Row], columns: Sequence[Mapping[str, JSON]]) -> list[bytes]:
    """Return the digests of rows of one measurement and one number of columns; raise KeyError if the columns differ."""
    ordered = sorted(columns[0])
    head = _head(rows[0].measurement, ordered)
    values: list[tuple[JSON, ...]]
    if len(ordered) > 1:
        values = list(map(itemgetter(*ordered), columns))
    else:
        values = [tuple(each[name] for name in ordered) for each in columns]
    try:
        return [blake2b(head + packed).digest()[:DIGEST_BYTES] for packed in map(_pack, values)]
    except _NO_FORM:
        return [_digest_carefully(head, each) for each in values]


def digest_of_many(digests: Sequence[bytes]) -> bytes:
    """Return the digest of what is made of several rows, in their order."""
    return blake2b(b"".join(digests)).digest()[:DIGEST_BYTES]


def id_salt(mapping: str, number: int) -> int:
    """Return the number whose XOR with a row's digest is the id of the message of item `number` of a mapping.

    Two items, or two mappings, make different ids of one row.
    """
    return int.from_bytes(blake2b(_pack(mapping) + _pack(number)).digest()[:DIGEST_BYTES], "big")


def _digest_carefully(head: bytes, values: Sequence[JSON]) -> bytes:
    try:
        packed = _pack(values)
    except _NO_FORM:
        packed = _pack(json.dumps(values, sort_keys=True, separators=(",", ":")).encode())
    return blake2b(head + packed).digest()[:DIGEST_BYTES]


def _head(measurement: str, names: Sequence[str]) -> bytes:
    """Return the start of the digested bytes, the same for all rows of these columns."""
    array = _pack([None] * len(names))  # without its nulls: how an array of so many names begins
    text = _text(measurement) + array[: len(array) - len(names)] + b"".join(map(_text, names))
    return blake2b(text).digest()[:DIGEST_BYTES]


def _text(text: str) -> bytes:
    """Return a string as MessagePack; one with an unpaired surrogate, which no server sends, as its original bytes."""
    try:
        return _pack(text)
    except UnicodeEncodeError:
        return _pack(text.encode("utf-8", "surrogatepass"))
