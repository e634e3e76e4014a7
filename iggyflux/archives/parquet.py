"""Rows of a Parquet file as JSON texts, each the payload of a message.

Row groups are read one after another and in pieces, so that memory does not grow with the file.  Those that are
settled are not read again.

| a column of                 | is in JSON                                                                          |
|-----------------------------|-------------------------------------------------------------------------------------|
| integers, floats, booleans  | the number or boolean; NaN and infinities are the words that `on_bad_value` is about |
| times (with a zone or not)  | nanoseconds since 1970, an integer; a time without a zone counts as UTC              |
| dates, times of day         | their text by ISO 8601                                                              |
| decimals                    | their text, exact                                                                   |
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

from iggyflux.authoring.sample_bytes import DAMAGED, SampleError
from iggyflux.errors import Stopped

ENDING: Final = ".parquet"
_ROWS: Final = 1000
_BUFFER_BYTES: Final = 1 << 20
"""What is read of a column at once; without it, all of a row group."""
_NANOSECONDS: Final = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}
_INSTALL: Final = "pip install 'iggyflux[parquet]'"


def is_parquet(name: str) -> bool:
    """Return whether the name of a file is that of Parquet."""
    return name.lower().endswith(ENDING)


class ParquetRows:
    """The rows of a file; `done` of `count` were taken."""

    def __init__(self, file: IO[bytes], name: str) -> None:
        """Raise SampleError if it is not Parquet, `Stopped` without the package."""
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
        self.count: int = self._file.metadata.num_rows
        self.done = 0

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
                if batch is None:
                    return
                texts = self._texts(batch) if number + batch.num_rows > start else [b""] * batch.num_rows
            except self._faults as error:
                raise self._damaged(error, number + 1) from error
            for text in texts:
                number += 1
                if number > start:
                    self.done = number
                    yield number, text

    def _texts(self, batch: Any) -> list[bytes]:
        names = batch.schema.names
        columns = [self._values(column) for column in batch.columns]
        rows = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
        return [json.dumps(row, ensure_ascii=False, default=_json).encode() for row in rows]

    def _values(self, column: Any) -> list[Any]:
        """Return the values of a column, times as nanoseconds."""
        if not self._arrow.types.is_timestamp(column.type):
            values: list[Any] = column.to_pylist()
            return values
        scale = _NANOSECONDS[column.type.unit]
        return [None if whole is None else whole * scale for whole in column.cast(self._arrow.int64()).to_pylist()]

    def _damaged(self, error: Exception, row: int) -> SampleError:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        return SampleError(DAMAGED, f"the file is not Parquet, or damaged: {reason}", row, "copy it again")


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
        return round(value / timedelta(microseconds=1)) * 1000
    if isinstance(value, Decimal):
        return str(value)
    raise ValueError(f"a value of type {type(value).__name__}, which JSON does not have")
