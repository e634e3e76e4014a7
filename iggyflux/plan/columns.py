"""What generated plans call: columns of values in, columns of text out, with the records that were not as assumed.

A column holds one entry a record.  Each function takes `odd`, a set, and adds the index of every record that only the
reference plan can judge; what it returns for such a record is of no account.  The usual case is done for the whole
column at once, in C; anything else is looked at value by value.  A text is None where a value is null.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import chain, repeat
from typing import Any

import msgspec

from iggyflux.errors import RecordError
from iggyflux.expressions import Expression, truth
from iggyflux.lineprotocol import (
    MAX_INTEGER,
    MAX_NS,
    MAX_UNSIGNED,
    MIN_INTEGER,
    MIN_NS,
    escape_string,
)
from iggyflux.records import JSON, Message, Scalar
from iggyflux.values import EXACT_INTEGERS, FieldType, convert, tag_text

Odd = set[int]


class Texts(list["str | None"]):
    """A column of text that may hold nulls; one that holds none is a plain list: that tells the two apart."""


Column = list[str] | Texts

_encode = msgspec.json.encode
_STRING_LIMIT = 16_000
"""Characters up to which a string needs no measuring: 65,535 bytes at four bytes a character."""
_SAFE_MIN_NS = MIN_NS + 1_000_000_000
"""Times above it may be floored to any precision without leaving the range."""
_MEMO_LIMIT = 100_000
MEMO_CHARACTERS = 4_000_000
"""100,000 tags of 20 characters; of long ones fewer are remembered."""


def float_texts(column: Sequence[float | None], odd: Odd) -> Column:
    """Floats as `repr` writes them.  From 2**53 on, an integer may have lost digits when it was decoded: odd."""
    text = _encode(column)
    # msgspec and repr write the same digits, but not the same exponents; `n` stands for null.
    if b"e" not in text and b"0.0000" not in text and b"n" not in text and math.hypot(*column) < EXACT_INTEGERS:  # type: ignore[arg-type]
        return text[1:-1].decode().split(",") if column else []
    return _texts([None if value is None else _float_text(index, value, odd) for index, value in enumerate(column)])


def _texts(texts: list[str | None]) -> Column:
    return Texts(texts) if None in texts else texts  # type: ignore[return-value]


def _float_text(index: int, value: float, odd: Odd) -> str:
    if not -EXACT_INTEGERS < value < EXACT_INTEGERS:
        odd.add(index)
    return repr(value)


def any_float_texts(column: Sequence[JSON], odd: Odd) -> Column:
    """`float_texts` of values of any type."""
    kinds = set(map(type, column))
    if kinds <= {float, type(None)}:
        return float_texts(column, odd)  # type: ignore[arg-type]
    if kinds <= {float, int, type(None)}:
        floats = [_to_float(index, value, odd) for index, value in enumerate(column)]
        return float_texts(floats, odd)
    return _each(column, odd, FieldType.FLOAT, False)


def _to_float(index: int, value: Any, odd: Odd) -> float | None:
    if not isinstance(value, int):
        return None if value is None else float(value)
    if -EXACT_INTEGERS < value < EXACT_INTEGERS:
        return float(value)
    odd.add(index)
    return 0.0


def integer_texts(column: Sequence[int | None], odd: Odd) -> Column:  # noqa: ARG001  (one signature for all columns)
    """Integers that were checked when they were decoded."""
    text = _encode(column)
    if b"n" not in text:
        return text[1:-1].decode().split(",") if column else []
    return _texts([None if value is None else str(value) for value in column])


def any_integer_texts(column: Sequence[JSON], odd: Odd) -> Column:
    """Integers among values of any type, in int64."""
    return _bounded(column, odd, FieldType.INTEGER, MIN_INTEGER, MAX_INTEGER)


def any_unsigned_texts(column: Sequence[JSON], odd: Odd) -> Column:
    """Integers among values of any type, in uint64."""
    return _bounded(column, odd, FieldType.UNSIGNED, 0, MAX_UNSIGNED)


def _bounded(column: Sequence[JSON], odd: Odd, kind: FieldType, low: int, high: int) -> Column:
    if set(map(type, column)) == {int} and low <= min(column) and max(column) <= high:  # type: ignore[type-var,operator]
        return integer_texts(column, odd)  # type: ignore[arg-type]
    return _each(column, odd, kind, False)


def string_texts(column: Sequence[str | None], odd: Odd) -> Column:
    """Strings with their quotes."""
    try:
        joined = "".join(column)  # type: ignore[arg-type]
    except TypeError:  # a null, or another type
        return _each(column, odd, FieldType.STRING, False)
    is_short = len(joined) < _STRING_LIMIT or len(max(column, key=len)) < _STRING_LIMIT  # type: ignore[arg-type]
    if is_short and _encodable(joined):
        if '"' not in joined and "\\" not in joined:
            return [f'"{value}"' for value in column]
        return [f'"{escape_string(value)}"' for value in column]  # type: ignore[arg-type]
    return _each(column, odd, FieldType.STRING, False)


def boolean_texts(column: Sequence[bool | None], odd: Odd) -> Column:
    """`true` and `false`."""
    if set(map(type, column)) <= {bool, type(None)}:
        return _texts([_BOOLEANS[value] for value in column])
    return _each(column, odd, FieldType.BOOLEAN, False)


_BOOLEANS: dict[bool | None, str | None] = {True: "true", False: "false", None: None}


def auto_texts(column: Sequence[JSON], odd: Odd) -> Column:
    """Numbers as floats, strings, booleans."""
    kinds = set(map(type, column)) - {type(None)}
    if kinds <= {float, int}:
        return any_float_texts(column, odd)
    if kinds == {str}:
        return string_texts(column, odd)  # type: ignore[arg-type]
    return _each(column, odd, FieldType.AUTO, False)


COLUMNS: dict[FieldType, Callable[[Sequence[Any], Odd], Column]] = {
    FieldType.FLOAT: any_float_texts,
    FieldType.INTEGER: any_integer_texts,
    FieldType.UNSIGNED: any_unsigned_texts,
    FieldType.STRING: string_texts,
    FieldType.BOOLEAN: boolean_texts,
    FieldType.AUTO: auto_texts,
}
"""The column function of each type, for values of any type."""


def cast_texts(column: Sequence[JSON], odd: Odd, kind: FieldType) -> Column:
    """Values under `cast: true`."""
    return _each(column, odd, kind, True)


def _each(column: Iterable[JSON], odd: Odd, kind: FieldType, cast: bool) -> Column:
    texts: list[str | None] = []
    for index, value in enumerate(column):
        if value is None:
            texts.append(None)
            continue
        try:
            text = scalar_text(convert(value, kind, cast))
        except RecordError:
            text = None
        if text is None:
            odd.add(index)
        texts.append(text)
    return _texts(texts)


def scalar_text(value: Scalar) -> str | None:
    """A converted value without the suffix of its type; None where only the reference plan can tell."""
    if isinstance(value, bool):
        return _BOOLEANS[value]
    if isinstance(value, str):
        return f'"{escape_string(value)}"' if len(value) < _STRING_LIMIT and _encodable(value) else None
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else None
    return int.__repr__(value)


def _encodable(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def with_default(texts: Column, default: str) -> Column:
    """`default` for each null."""
    return [default if text is None else text for text in texts] if type(texts) is Texts else texts


def require(texts: Column, odd: Odd) -> Column:
    """Every null is odd: the reference plan writes the failure."""
    if type(texts) is Texts:
        odd.update(index for index, text in enumerate(texts) if text is None)
    return texts


def refuse(texts: Column, odd: Odd) -> Column:
    """Everything but null is odd: a type that the dialect does not have."""
    odd.update(index for index, text in enumerate(texts) if text is not None)
    return texts


def is_dense(*columns: object) -> bool:
    """Whether no column holds a null."""
    return Texts not in map(type, columns)


def join_fields(columns: Sequence[tuple[str, Sequence[str | None], str]], odd: Odd) -> list[str]:
    """The field set of each record, of (`key=`, texts, suffix) in the order of keys; one with no field left is odd."""
    parts = [
        ["" if text is None else f",{prefix}{text}{suffix}" for text in texts] for prefix, texts, suffix in columns
    ]
    joined = ["".join(record)[1:] for record in zip(*parts, strict=True)]
    if "" in joined:
        odd.update(index for index, fields in enumerate(joined) if not fields)
    return joined


class Unusual(Exception):
    """A value that a memo cannot hold."""


class MemoBudget:
    """How many characters several memos hold together."""

    __slots__ = ("held",)

    def __init__(self) -> None:
        self.held = 0


class Memo(dict[Any, str]):
    """Text made of a string once: a tag with its key, or a measurement.  Safe to share: no entry ever changes.

    `make` gives the text or raises RecordError.  At a bound, of entries or of characters, all is forgotten.  `budget`
    counts what is held, where many memos have one bound.
    """

    def __init__(self, make: Callable[[str | None], str], longest: int, budget: MemoBudget | None = None) -> None:
        super().__init__()
        self._budget = budget or MemoBudget()
        self._make = make
        self._longest = longest
        self._held = 0

    def __missing__(self, value: str | None) -> str:
        try:
            text = self._make(value)
        except RecordError:
            raise Unusual from None
        if len(text) * 4 > self._longest:  # bytes, whatever the characters: the series key stays within its limit
            raise Unusual
        size = len(text) * 2  # its key is about as long
        if len(self) >= _MEMO_LIMIT or self._held + size > MEMO_CHARACTERS:
            self.clear()
            self._budget.held -= self._held
            self._held = 0
        self._held += size
        self._budget.held += size
        self[value] = text
        return text


def memo_texts(column: Sequence[JSON], memo: Memo, odd: Odd) -> Column:
    """The memo's text of each value, "" where a null leaves nothing; numbers and booleans are text first, as in tags.

    The column is `Texts` where it may hold a null.
    """
    kinds = set(map(type, column))
    if not kinds <= _MEMO_KEYS:
        column = [_as_tag(index, value, odd) for index, value in enumerate(column)]
    try:
        texts = list(map(memo.__getitem__, column))
    except Unusual:
        texts = [_remembered(index, value, memo, odd) for index, value in enumerate(column)]
    return Texts(texts) if type(None) in kinds else texts


_MEMO_KEYS = {str, type(None)}


def _as_tag(index: int, value: JSON, odd: Odd) -> str | None:
    try:
        return tag_text(value)
    except RecordError:
        odd.add(index)
        return None


def _remembered(index: int, value: JSON, memo: Memo, odd: Odd) -> str:
    try:
        return memo[value]
    except Unusual:
        odd.add(index)
        return ""


def scale_times(column: Sequence[JSON], ns_per_unit: int, scale: Callable[[Any, int], int], odd: Odd) -> list[int]:
    """Numbers (or numeric strings) of a unit as nanoseconds; `scale` takes what is no integer."""
    if set(map(type, column)) == {int}:
        return [value * ns_per_unit for value in column]  # type: ignore[operator,misc]
    return [_scaled(index, value, ns_per_unit, scale, odd) for index, value in enumerate(column)]


def _scaled(index: int, value: JSON, ns_per_unit: int, scale: Callable[[Any, int], int], odd: Odd) -> int:
    if type(value) is int:
        return value * ns_per_unit
    if type(value) in (float, str):
        try:
            return scale(value, ns_per_unit)
        except ValueError:
            pass
    odd.add(index)
    return 0


def parse_times(column: Sequence[JSON], parse: Callable[[str], int], odd: Odd) -> list[int]:
    """Strings as nanoseconds."""
    try:
        if set(map(type, column)) == {str}:
            return list(map(parse, column))  # type: ignore[arg-type]
    except ValueError:
        pass
    return [_parsed(index, value, parse, odd) for index, value in enumerate(column)]


def _parsed(index: int, value: JSON, parse: Callable[[str], int], odd: Odd) -> int:
    if type(value) is str:
        try:
            return parse(value)
        except ValueError:
            pass
    odd.add(index)
    return 0


def or_message_time(
    column: Sequence[JSON], messages: Sequence[Message], parse: Callable[[Sequence[JSON], Odd], list[int]], odd: Odd
) -> list[int]:
    """`default: message`: the message's own time where the value is null, what `parse` gives elsewhere."""
    present = [index for index, value in enumerate(column) if value is not None]
    inner: Odd = set()
    found = parse([column[index] for index in present], inner)
    odd.update(present[index] for index in inner)
    times = [message.timestamp_us * 1000 for message in messages]
    for index, ns in zip(present, found, strict=True):
        times[index] = ns
    return times


def check_times(times: list[int], odd: Odd) -> list[int]:
    """Times within what every server stores, with room for flooring."""
    if times and not (min(times) >= _SAFE_MIN_NS and max(times) <= MAX_NS):
        odd.update(index for index, ns in enumerate(times) if not _SAFE_MIN_NS <= ns <= MAX_NS)
    return times


def evaluate(
    expression: Expression,
    documents: Sequence[JSON],
    messages: Sequence[Message],
    roots: Sequence[JSON],
    indices: Sequence[int | None],
    odd: Odd,
) -> list[JSON]:
    """What an expression that is not a plain path gives for each record."""
    values: list[JSON] = []
    run = expression.evaluate
    for index, (document, message, root, element) in enumerate(zip(documents, messages, roots, indices, strict=True)):
        try:
            values.append(run(document, message, root=root, index=element))
        except RecordError:
            odd.add(index)
            values.append(None)
    return values


def true_for(values: Sequence[JSON]) -> list[bool]:
    """JMESPath truth of each value."""
    return [truth(value) for value in values]


def member(value: JSON, key: str) -> JSON:
    """`value.key` as JMESPath takes it: null where `value` is no object."""
    return value.get(key) if type(value) is dict else None


def follow(value: JSON, path: Sequence[str]) -> JSON:
    """What stands at `path`, as JMESPath takes it: null where something on the way is no object."""
    for key in path:
        if type(value) is not dict:
            return None
        value = value.get(key)
    return value


def only_strings(column: Sequence[JSON], odd: Odd) -> Sequence[JSON]:
    """Everything but strings is odd."""
    if set(map(type, column)) <= {str}:
        return column
    odd.update(index for index, value in enumerate(column) if type(value) is not str)
    return [value if type(value) is str else "" for value in column]


def only_lists(column: Sequence[JSON], odd: Odd) -> list[list[JSON] | None]:
    """Everything but lists and null is odd."""
    odd.update(index for index, value in enumerate(column) if value is not None and type(value) is not list)
    return [value if type(value) is list else None for value in column]


def explode(lists: Sequence[Sequence[Any] | None]) -> tuple[list[Any], list[int], list[int]]:
    """The elements of all lists, the position of the list that each is of, and its index in it."""
    sizes = [len(found) if found else 0 for found in lists]
    elements = list(chain.from_iterable(found for found in lists if found))
    origins = list(chain.from_iterable(map(repeat, range(len(lists)), sizes)))
    return elements, origins, list(chain.from_iterable(map(range, sizes)))


def find_collisions(
    groups: Sequence[tuple[Sequence[int], Sequence[str], Sequence[int]]],
    positions: Sequence[int],
    origins: Sequence[int],
    odd: Odd,
) -> None:
    """Messages with two points of one series and time are odd.  A group is (records, series, times) of one item."""
    seen: set[tuple[int, str, int]] = set()
    total = 0
    for records, series, times in groups:
        total += len(times)
        seen.update(zip([origins[record] for record in records], series, times, strict=True))
    if len(seen) == total:
        return
    seen.clear()
    for records, series, times in groups:
        for record, name, time in zip(records, series, times, strict=True):
            key = (origins[record], name, time)
            if key in seen:
                odd.add(positions[origins[record]])
            seen.add(key)
