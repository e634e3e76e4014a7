"""Rows of a Parquet file as JSON texts, each the payload of a message.

Row groups are read one after another and in pieces, so that memory does not grow with the file.  Those that are
settled are not read again.

| a column of                 | is in JSON                                                                          |
|-----------------------------|-------------------------------------------------------------------------------------|
| integers, floats, booleans  | the number or boolean; NaN and infinities are the words that `on_bad_value` is about |
| times (with a zone or not)  | nanoseconds since 1970, an integer; a time without a zone counts as UTC              |
| dates, times of day         | their text by ISO 8601                                                              |
| durations                   | nanoseconds, an integer                                                             |
| decimals, UUIDs             | their text, exact; a decimal without an exponent                                    |
| bytes                       | base64                                                                              |
| lists, structs, maps        | lists, objects, and lists of pairs                                                  |
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import IO, Any, Final
from uuid import UUID

from iggyflux.authoring.sample_bytes import DAMAGED, SampleError
from iggyflux.errors import Stopped

ENDING: Final = ".parquet"
_ROWS: Final = 1000
UNREADABLE: Final = "IFX710"
_BUFFER_BYTES: Final = 1 << 20
"""What is read of a column at once; without it, all of a row group."""
_NANOSECONDS: Final = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}
_INSTALL: Final = "pip install 'iggyflux[parquet]'"


def is_parquet(name: str) -> bool:
    """Return whether the name of a file is that of Parquet."""
    return name.lower().endswith(ENDING)


class ParquetRows:
    """The rows of a file of `size` bytes; `number` of `count` were taken."""

    def __init__(self, file: IO[bytes], name: str, size: int) -> None:
        """Raise SampleError if it is not Parquet or two columns have one name, `Stopped` without the package."""
        try:
            import pyarrow
            from pyarrow import parquet
        except ImportError as error:
            raise Stopped(f"{name} needs a package to be read", _INSTALL, "IFX710") from error
        self._arrow = pyarrow
        self._faults: tuple[type[Exception], ...] = (pyarrow.ArrowException, ValueError, OverflowError, OSError)
        try:
            self._file = parquet.ParquetFile(pyarrow.PythonFile(file, mode="r"), buffer_size=_BUFFER_BYTES)
        except self._faults as error:
            raise self._damaged(error, 0) from error
        names = self._file.schema_arrow.names
        if twice := next((each for each in names if names.count(each) > 1), None):
            raise _unreadable(f"two columns have the name {twice!r}", 0)
        self.count: int = self._file.metadata.num_rows
        self.number = 0
        self._size = size

    @property
    def position(self) -> int:
        """As of `Content`: the share of the file that so many rows have."""
        return self._size * self.number // max(self.count, 1)

    def sought(self, _taken: int) -> tuple[int, int, int]:
        """As of `Content`: rows are sought by their number."""
        return (0, 0, 0)

    def records(self, start: int) -> Iterator[tuple[int, bytes]]:
        """Yield the rows from number `start` on, each with its number from 1.  Raise SampleError for damage."""
        first = 0
        for group in range(self._file.num_row_groups):
            rows = self._file.metadata.row_group(group).num_rows
            if first + rows > start:
                yield from self._group(group, first, start)
            first += rows

    def _group(self, group: int, number: int, start: int) -> Iterator[tuple[int, bytes]]:
        batches = self._file.iter_batches(_ROWS, row_groups=[group], use_threads=False)
        while True:
            try:
                batch = next(batches, None)
            except self._arrow.ArrowNotImplementedError as error:
                raise _unreadable(_first_line(error), number + 1) from error
            except self._faults as error:
                raise self._damaged(error, number + 1) from error
            if batch is None:
                return
            texts = self._texts(batch, number + 1) if number + batch.num_rows > start else [b""] * batch.num_rows
            for text in texts:
                number += 1
                if number > start:
                    self.number = number
                    yield number, text

    def _texts(self, batch: Any, row: int) -> list[bytes]:
        names = batch.schema.names
        columns = []
        for name, column in zip(names, batch.columns, strict=True):
            try:
                columns.append(self._values(column))
            except self._faults as error:
                raise _unreadable(f"the column {name!r} of {column.type}: {_first_line(error)}", row) from error
        rows = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
        try:
            return [json.dumps(row, ensure_ascii=False, default=_json).encode() for row in rows]
        except self._faults as error:
            raise _unreadable(_first_line(error), row) from error

    def _values(self, column: Any) -> list[Any]:
        """Return the values of a column, times and durations as nanoseconds."""
        types = self._arrow.types
        if types.is_timestamp(column.type) or types.is_duration(column.type):
            scale = _NANOSECONDS[column.type.unit]
            return [None if whole is None else whole * scale for whole in column.cast(self._arrow.int64()).to_pylist()]
        plain = self._plain(column.type)
        values: list[Any] = (column if plain == column.type else column.cast(plain)).to_pylist()
        return values

    def _plain(self, kind: Any) -> Any:
        """Return the type to which one with nanoseconds is cast, at any depth: Python has only microseconds."""
        arrow, types = self._arrow, self._arrow.types
        if types.is_time64(kind) and kind.unit == "ns":
            return arrow.string()
        if (types.is_timestamp(kind) or types.is_duration(kind)) and kind.unit == "ns":
            return arrow.int64()
        if types.is_struct(kind):
            return arrow.struct(
                [kind.field(each).with_type(self._plain(kind.field(each).type)) for each in range(kind.num_fields)]
            )
        if types.is_map(kind):
            return arrow.map_(self._plain(kind.key_type), self._plain(kind.item_type))
        if types.is_list(kind) or types.is_large_list(kind):
            inner = kind.value_field.with_type(self._plain(kind.value_type))
            return arrow.list_(inner) if types.is_list(kind) else arrow.large_list(inner)
        return kind

    def _damaged(self, error: Exception, row: int) -> SampleError:
        return SampleError(DAMAGED, f"the file is not Parquet, or damaged: {_first_line(error)}", row, "copy it again")


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__


def _unreadable(reason: str, row: int) -> SampleError:
    """Return the error for a sound file with something that has no JSON form here."""
    hint = "write the file again without that column, or with another type"
    return SampleError(UNREADABLE, f"the file cannot be read: {reason}", row, hint)


def _json(value: object) -> object:
    """Return what JSON has for a value that it does not have."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, datetime):  # within a list or struct, where pyarrow has no time finer than microseconds
        return (
            (value.replace(tzinfo=value.tzinfo or UTC) - datetime.fromtimestamp(0, tz=UTC))
            // timedelta(microseconds=1)
            * 1000
        )
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value // timedelta(microseconds=1) * 1000
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, UUID):
        return str(value)
    raise ValueError(f"a value of type {type(value).__name__} has no JSON form")
