"""What generated plans call: columns of values in, columns of text out, and the records that need the reference plan.

A column has one entry for each record.  Each function takes `fallback`, a set, and adds the index of every record that
only the reference plan can judge; the result for such a record is ignored.  The usual case is done for the whole column
at once, in C; all others value by value.  A text is None where a value is null.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, groupby, repeat
from typing import Any, Final, TypeAlias, cast

import msgspec

from iggyflux.errors import EvaluationError, RecordError
from iggyflux.expressions import RAISED, Budget, truth
from iggyflux.expressions.evaluation import Evaluation, Run
from iggyflux.expressions.lowering import Interpreted
from iggyflux.functions.table import MAX_STEPS
from iggyflux.lineprotocol import (
    MAX_INTEGER,
    MAX_NS,
    MAX_UNSIGNED,
    MIN_INTEGER,
    MIN_NS,
    Unsigned,
    escape_string,
)
from iggyflux.plan.bounds import MAX_LINE_CHARACTERS, MayBeTooMuch, check_characters
from iggyflux.records import JSON, Message, Scalar
from iggyflux.values import EXACT_INTEGERS, Cast, FieldType, convert, tag_text

Fallback = set[int]
"""The indices of records that only the reference plan can judge; generated code calls such a set `odd`."""


class Texts(list["str | None"]):
    """A column of text that may contain nulls; a column without nulls is a plain list, which tells the two apart."""


Column = list[str] | Texts

_encode = msgspec.json.encode
_STRING_LIMIT = 16_000
"""The most characters of a string that needs no measuring: 65,535 bytes at four bytes a character."""
_WHOLE = {int, Unsigned}
_SAFE_MIN_NS = MIN_NS + 1_000_000_000
"""Times above it may be rounded down to any precision without leaving the range."""
_MEMO_LIMIT = 100_000
MEMO_CHARACTERS = 4_000_000
"""100,000 tags of 20 characters; a memo holds fewer if they are longer."""


def float_texts(column: Sequence[float | None], fallback: Fallback) -> Column:
    """Return floats as `repr` writes them.

    From 2**53 on, an integer may have lost digits when it was decoded: the record needs the reference plan.
    """
    text, values = _encode(column), column
    if b"n" in text:  # msgspec writes a null, and what is not finite, as null
        values = [value for value in column if value is not None]
        text = _encode(values)
    # msgspec and repr write the same digits, but not the same exponents.
    if b"e" not in text and b"0.0000" not in text and b"n" not in text and math.hypot(*values) < EXACT_INTEGERS:  # type: ignore[arg-type]
        texts = text[1:-1].decode().split(",") if values else []
        return texts if len(values) == len(column) else _with_nulls(texts, column)
    return _texts(
        [None if value is None else _float_text(index, value, fallback) for index, value in enumerate(column)]
    )


def _with_nulls(texts: Sequence[str], column: Sequence[object]) -> Texts:
    """Return a column of the texts of what is not null."""
    following = iter(texts).__next__
    return Texts([None if value is None else following() for value in column])


def _texts(texts: list[str | None]) -> Column:
    return Texts(texts) if None in texts else texts  # type: ignore[return-value]


def _float_text(index: int, value: float, fallback: Fallback) -> str:
    if not -EXACT_INTEGERS < value < EXACT_INTEGERS:
        fallback.add(index)
    return repr(value)


def any_float_texts(column: Sequence[JSON], fallback: Fallback) -> Column:
    """Return `float_texts` of values of any type."""
    kinds = set(map(type, column))
    if kinds <= {float, type(None)}:
        return float_texts(column, fallback)  # type: ignore[arg-type]
    if kinds <= {float, int, type(None)}:
        floats = [_to_float(index, value, fallback) for index, value in enumerate(column)]
        return float_texts(floats, fallback)
    return converted_texts(column, fallback, FieldType.FLOAT, False)


def _to_float(index: int, value: Any, fallback: Fallback) -> float | None:
    if not isinstance(value, int):
        return None if value is None else float(value)
    if -EXACT_INTEGERS < value < EXACT_INTEGERS:
        return float(value)
    fallback.add(index)
    return 0.0


def integer_texts(column: Sequence[int | None], fallback: Fallback) -> Column:  # noqa: ARG001  (one signature for all columns)
    """Return the texts of integers that the decoder checked."""
    text = _encode(column)[1:-1].decode()
    if "n" not in text:
        return text.split(",") if column else []
    return Texts([None if each == "null" else each for each in text.split(",")])


def any_integer_texts(column: Sequence[JSON], fallback: Fallback) -> Column:
    """Return the texts of integers among values of any type, within int64."""
    return _bounded(column, fallback, FieldType.INTEGER, MIN_INTEGER, MAX_INTEGER)


def any_unsigned_texts(column: Sequence[JSON], fallback: Fallback) -> Column:
    """Return the texts of integers among values of any type, within uint64."""
    return _bounded(column, fallback, FieldType.UNSIGNED, 0, MAX_UNSIGNED)


def _bounded(column: Sequence[JSON], fallback: Fallback, kind: FieldType, low: int, high: int) -> Column:
    if set(map(type, column)) == {int} and low <= min(column) and max(column) <= high:  # type: ignore[type-var,operator]
        return integer_texts(column, fallback)  # type: ignore[arg-type]
    return converted_texts(column, fallback, kind, False)


def string_texts(column: Sequence[str | None], fallback: Fallback) -> Column:
    """Return strings with their quotes."""
    return _texts([None if text is None else f'"{text}"' for text in string_contents(column, fallback)])


def string_contents(column: Sequence[str | None], fallback: Fallback) -> Column:
    """Return what is between the quotes of strings."""
    joined = _joined_strings(column)
    if joined is None:
        texts = converted_texts(column, fallback, FieldType.STRING, False)
        return _texts([None if text is None else text[1:-1] for text in texts])
    if '"' not in joined and "\\" not in joined:
        return list(column)  # type: ignore[arg-type]
    return [escape_string(value) for value in column]  # type: ignore[arg-type]


def _joined_strings(column: Sequence[str | None]) -> str | None:
    """Return all texts as one; None if they have to be converted one by one.

    Raise MayBeTooMuch: several records may have one text.
    """
    try:
        check_characters(sum(map(len, column)), MAX_LINE_CHARACTERS)  # type: ignore[arg-type]
        joined = "".join(column)  # type: ignore[arg-type]
    except TypeError:  # a null, or another type
        return None
    is_short = len(joined) < _STRING_LIMIT or len(max(column, key=len)) < _STRING_LIMIT  # type: ignore[arg-type]
    return joined if is_short and _encodable(joined) else None


def boolean_texts(column: Sequence[bool | None], fallback: Fallback) -> Column:
    """Return `true` and `false`."""
    if set(map(type, column)) <= {bool, type(None)}:
        return _texts([_BOOLEANS[value] for value in column])
    return converted_texts(column, fallback, FieldType.BOOLEAN, False)


_BOOLEANS: dict[bool | None, str | None] = {True: "true", False: "false", None: None}


def auto_texts(column: Sequence[JSON], fallback: Fallback) -> Column:
    """Return numbers as floats, strings with their quotes, and booleans."""
    kinds = set(map(type, column)) - {type(None)}
    if kinds <= {float, int}:
        return any_float_texts(column, fallback)
    if kinds == {str}:
        return string_texts(column, fallback)  # type: ignore[arg-type]
    return converted_texts(column, fallback, FieldType.AUTO, False)


def payload_texts(column: Sequence[JSON], fallback: Fallback) -> Column:
    """Return numbers with the suffix of their type, strings with their quotes, and booleans."""
    kinds = set(map(type, column)) - {type(None)}
    if kinds == {float}:
        return float_texts(column, fallback)  # type: ignore[arg-type]
    if kinds == {str}:
        return string_texts(column, fallback)  # type: ignore[arg-type]
    if kinds == {int}:
        whole = any_integer_texts(column, fallback)
        return _texts([None if text is None else f"{text}i" for text in whole])
    if kinds == {Unsigned}:
        return _texts([None if value is None else f"{int(value)}u" for value in column])  # type: ignore[arg-type]
    return converted_texts(column, fallback, FieldType.PAYLOAD, False)


COLUMNS: dict[FieldType, Callable[[Sequence[Any], Fallback], Column]] = {
    FieldType.FLOAT: any_float_texts,
    FieldType.INTEGER: any_integer_texts,
    FieldType.UNSIGNED: any_unsigned_texts,
    FieldType.STRING: string_texts,
    FieldType.BOOLEAN: boolean_texts,
    FieldType.AUTO: auto_texts,
    FieldType.PAYLOAD: payload_texts,
}
"""The column function of each type, for values of any type."""


def converted_texts(column: Sequence[JSON], fallback: Fallback, kind: FieldType, cast: Cast) -> Column:
    """Return the texts of fields of a type, value by value.

    Raise MayBeTooMuch: several records may have one text.
    """
    check_characters(sum([len(value) for value in column if type(value) is str]), MAX_LINE_CHARACTERS)
    texts: list[str | None] = []
    for index, value in enumerate(column):
        if value is None:
            texts.append(None)
            continue
        try:
            text = scalar_text(convert(value, kind, cast), kind)
        except RecordError:
            text = None
        if text is None:
            fallback.add(index)
        texts.append(text)
    return _texts(texts)


def scalar_text(value: Scalar, kind: FieldType) -> str | None:
    """Return a converted value, without the suffix of its type unless `kind` is PAYLOAD.

    Return None if only the reference plan can judge it.
    """
    if isinstance(value, bool):
        return _BOOLEANS[value]
    if isinstance(value, str):
        return f'"{escape_string(value)}"' if len(value) < _STRING_LIMIT and _encodable(value) else None
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else None
    text = int.__repr__(value)
    if kind is not FieldType.PAYLOAD:
        return text
    return f"{text}u" if type(value) is Unsigned else f"{text}i"


def _encodable(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def with_default(texts: Column, default: str) -> Column:
    """Return the texts with `default` for each null."""
    return [default if text is None else text for text in texts] if type(texts) is Texts else texts


def require(texts: Column, fallback: Fallback) -> Column:
    """Return `texts`; add every null to `fallback`: the reference plan writes the failure."""
    if type(texts) is Texts:
        fallback.update(index for index, text in enumerate(texts) if text is None)
    return texts


def refuse(texts: Column, fallback: Fallback) -> Column:
    """Return `texts`; add everything but null to `fallback`: the dialect does not have the type."""
    fallback.update(index for index, text in enumerate(texts) if text is not None)
    return texts


def is_dense(*columns: object) -> bool:
    """Return whether no column contains a null."""
    return Texts not in map(type, columns)


def join_fields(columns: Sequence[tuple[str, Sequence[str | None], str]], fallback: Fallback) -> list[str]:
    """Return the field set of each record, made of (`key=`, texts, suffix) in the order of keys.

    A record without a field is added to `fallback`.
    """
    parts = [
        ["" if text is None else f",{prefix}{text}{suffix}" for text in texts]
        for prefix, texts, suffix in columns
        if type(texts) is not Texts or texts.count(None) < len(texts)
    ] or [[""] * len(columns[0][1])]
    joined = ["".join(record)[1:] for record in zip(*parts, strict=True)]
    if "" in joined:
        fallback.update(index for index, fields in enumerate(joined) if not fields)
    return joined


class NotMemoized(Exception):
    """A value that a memo cannot hold."""


class MemoBudget:
    """The number of characters that several memos hold together."""

    __slots__ = ("held",)

    def __init__(self) -> None:
        self.held = 0


class Memo(dict[Any, str]):
    """Text made of a string once: a tag with its key, or a measurement.

    Threads may share a memo, since no entry ever changes.  `make` returns the text or raises RecordError.  At a limit,
    of entries or of characters, all entries are dropped.  `budget` counts the characters of several memos that have one
    limit.
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
            raise NotMemoized from None
        if len(text) * 4 > self._longest:  # bytes, whatever the characters: the series key stays within its limit
            raise NotMemoized
        size = len(text) * 2  # its key is about as long
        if len(self) >= _MEMO_LIMIT or self._held + size > MEMO_CHARACTERS:
            self.clear()
            self._budget.held -= self._held
            self._held = 0
        self._held += size
        self._budget.held += size
        self[value] = text
        return text


def memo_texts(column: Sequence[JSON], memo: Memo, fallback: Fallback) -> Column:
    """Return the memo's text of each value, "" for a null without text.

    Numbers and booleans become text first, as in tags.  The result is `Texts` if it may contain a null.
    """
    kinds = set(map(type, column))
    if not kinds <= _MEMO_KEYS:
        column = [_as_tag(index, value, fallback) for index, value in enumerate(column)]
    try:
        texts = list(map(memo.__getitem__, column))
    except NotMemoized:
        refused: set[Any] = set()
        texts = [_remembered(index, value, memo, refused, fallback) for index, value in enumerate(column)]
    return Texts(texts) if type(None) in kinds else texts


_MEMO_KEYS = {str, type(None)}


def _as_tag(index: int, value: JSON, fallback: Fallback) -> str | None:
    try:
        return tag_text(value)
    except RecordError:
        fallback.add(index)
        return None


def _remembered(index: int, value: JSON, memo: Memo, refused: set[Any], fallback: Fallback) -> str:
    """Return the text of `value`; one that was refused is not made again: several records may have a long one."""
    if value not in refused:
        try:
            return memo[value]
        except NotMemoized:
            refused.add(value)
    fallback.add(index)
    return ""


def scale_times(
    column: Sequence[JSON], ns_per_unit: int, scale: Callable[[Any, int], int], fallback: Fallback
) -> list[int]:
    """Return numbers (or numeric strings) of a unit as nanoseconds; `scale` converts what is not an integer."""
    if set(map(type, column)) <= _WHOLE:
        return [value * ns_per_unit for value in column]  # type: ignore[operator,misc]
    return [_scaled(index, value, ns_per_unit, scale, fallback) for index, value in enumerate(column)]


def _scaled(index: int, value: JSON, ns_per_unit: int, scale: Callable[[Any, int], int], fallback: Fallback) -> int:
    if type(value) in _WHOLE:
        return value * ns_per_unit  # type: ignore[operator,return-value]
    if type(value) in (float, str):
        try:
            return scale(value, ns_per_unit)
        except ValueError:
            pass
    fallback.add(index)
    return 0


def parse_times(column: Sequence[JSON], parse: Callable[[str], int], fallback: Fallback) -> list[int]:
    """Return strings as nanoseconds."""
    try:
        if set(map(type, column)) == {str}:
            return list(map(parse, column))  # type: ignore[arg-type]
    except ValueError:
        pass
    return [_parsed(index, value, parse, fallback) for index, value in enumerate(column)]


def _parsed(index: int, value: JSON, parse: Callable[[str], int], fallback: Fallback) -> int:
    if type(value) is str:
        try:
            return parse(value)
        except ValueError:
            pass
    fallback.add(index)
    return 0


def or_message_time(
    column: Sequence[JSON],
    messages: Sequence[Message],
    parse: Callable[[Sequence[JSON], Fallback], list[int]],
    fallback: Fallback,
) -> list[int]:
    """Return times under `default: message`: the message's own time for a null, what `parse` returns for others."""
    present = [index for index, value in enumerate(column) if value is not None]
    inner: Fallback = set()
    found = parse([column[index] for index in present], inner)
    fallback.update(present[index] for index in inner)
    times = [message.timestamp_us * 1000 for message in messages]
    for index, ns in zip(present, found, strict=True):
        times[index] = ns
    return times


def spread_offsets(times: Sequence[int], messages: Sequence[Message], partitions: int, fallback: Fallback) -> list[int]:
    """Return the times with (offset, partition) of their messages in the nanoseconds below a microsecond."""
    fallback.update(
        index
        for index, (ns, message) in enumerate(zip(times, messages, strict=True))
        if ns % 1000 or message.partition >= partitions
    )
    room = 1000 // partitions
    return [
        ns + message.offset % room * partitions + message.partition for ns, message in zip(times, messages, strict=True)
    ]


def spread_indices(times: Sequence[int], numbers: Sequence[int | None], fallback: Fallback) -> list[int]:
    """Return the times with the numbers of their elements in the nanoseconds below a microsecond."""
    counted = [number or 0 for number in numbers]
    fallback.update(
        index for index, (ns, number) in enumerate(zip(times, counted, strict=True)) if ns % 1000 or number > 999
    )
    return [ns + number for ns, number in zip(times, counted, strict=True)]


def check_times(times: list[int], fallback: Fallback) -> list[int]:
    """Return `times`; add those to `fallback` that some server does not store, with room for rounding down."""
    if times and not (min(times) >= _SAFE_MIN_NS and max(times) <= MAX_NS):
        fallback.update(index for index, ns in enumerate(times) if not _SAFE_MIN_NS <= ns <= MAX_NS)
    return times


_NOTHING: Final[Iterable[None]] = repeat(None)
_NEW: Final = cast(JSON, object())
_FAILED: Final = (EvaluationError, *RAISED)
_TEXT_OR_NULL: Final = frozenset((str, type(None)))
_Row: TypeAlias = tuple[JSON, Message | None, JSON, int | None, Sequence[JSON]]


def evaluate(
    of: Interpreted,
    inputs: Sequence[Sequence[JSON]],
    fallback: Fallback,
    *,
    roots: Iterable[JSON] = _NOTHING,
    messages: Iterable[Message | None] = _NOTHING,
    indices: Iterable[int | None] = _NOTHING,
    parents: Sequence[Sequence[JSON]] = (),
    steps: int = MAX_STEPS,
    deep: bool = False,
) -> list[JSON]:
    """Return what an expression that is not a plain path gives for each record.

    `inputs` are the columns of what it is evaluated on.  The others are there if it needs them: `roots`, which also
    tell the records of one message, where it takes steps; `parents` are those of the elements around each record, the
    outermost first.  `steps` is the budget for all records of one message.  With `deep`, all of a value is read, which
    takes steps.  Raise MayBeTooMuch if several messages together take more steps than one may.
    """
    is_single = of.inputs is None or of.takes_one or not of.inputs
    documents: Sequence[Any] = inputs[0] if is_single else list(zip(*inputs, strict=True))
    budget = Budget(steps)
    try:
        if not of.uses:
            found = _evaluate_together(of.run, documents, budget, _are_texts(inputs))
        else:
            found = _evaluate_scoped(of.run, _rows(documents, messages, roots, indices, parents), budget)
        if deep:
            for value in found:
                budget.spend_on(value, deep=True)
    except _FAILED:  # for one of them, or since together they take many steps
        return _evaluate_each(of, _rows(documents, messages, roots, indices, parents), fallback, steps, deep)
    return found


def _rows(
    documents: Iterable[JSON],
    messages: Iterable[Message | None],
    roots: Iterable[JSON],
    indices: Iterable[int | None],
    parents: Sequence[Sequence[JSON]],
) -> Iterator[_Row]:
    around: Iterable[Sequence[JSON]] = zip(*parents, strict=True) if parents else repeat(())
    return zip(documents, messages, roots, indices, around, strict=False)


def _are_texts(inputs: Sequence[Sequence[JSON]]) -> bool:
    """Return whether all values are strings or null: equal ones are then the same, which 1, 1.0 and true are not."""
    return all(_TEXT_OR_NULL.issuperset(map(type, column)) for column in inputs)


def _evaluate_together(run: Run, documents: Sequence[Any], budget: Budget, are_texts: bool) -> list[JSON]:
    """Return the values if none of them fails; `are_texts` says that equal documents give the same value."""
    scope = Evaluation(None, None, None, budget)
    counts: Mapping[Any, int] = Counter(documents) if are_texts else {}
    if not counts or len(counts) * 2 > len(documents):
        return [run(scope, document) for document in documents]
    known = {}
    for document, count in counts.items():
        before = budget.spent
        known[document] = run(scope, document)
        budget.spend((budget.spent - before) * (count - 1))
    return list(map(known.__getitem__, documents))


def _evaluate_scoped(run: Run, rows: Iterable[_Row], budget: Budget) -> list[JSON]:
    scope, values = Evaluation(None, None, None, budget), []
    for document, scope.message, scope.root, scope.index, scope.parents in rows:
        values.append(run(scope, document))
    return values


def _evaluate_each(of: Interpreted, rows: Iterable[_Row], fallback: Fallback, steps: int, deep: bool) -> list[JSON]:
    values: list[JSON] = []
    budget, last, spent = Budget(steps), _NEW, 0
    for index, (document, message, root, element, outer) in enumerate(rows):
        if of.spends and root is not last:
            spent += budget.spent
            if spent > MAX_STEPS:
                raise MayBeTooMuch
            budget, last = Budget(steps), root
        try:
            value = of.run(Evaluation(message, root, element, budget, outer), document)
            if deep:
                budget.spend_on(value, deep=True)
            values.append(value)
        except _FAILED:
            fallback.add(index)
            values.append(None)
    return values


def true_for(values: Sequence[JSON]) -> list[bool]:
    """Return whether each value is true in JMESPath."""
    return [truth(value) for value in values]


def member(value: JSON, key: str) -> JSON:
    """Return `value.key` as in JMESPath: null if `value` is not an object."""
    return value.get(key) if type(value) is dict else None


def follow(value: JSON, path: Sequence[str]) -> JSON:
    """Return the value at `path` as in JMESPath: null if a value on the way is not an object."""
    for key in path:
        if type(value) is not dict:
            return None
        value = value.get(key)
    return value


def only_strings(column: Sequence[JSON], fallback: Fallback) -> Sequence[JSON]:
    """Return the strings of `column`; add everything else to `fallback`."""
    if set(map(type, column)) <= {str}:
        return column
    fallback.update(index for index, value in enumerate(column) if type(value) is not str)
    return [value if type(value) is str else "" for value in column]


def only_lists(column: Sequence[JSON], fallback: Fallback) -> list[list[JSON] | None]:
    """Return the lists and nulls of `column`; add everything else to `fallback`."""
    fallback.update(index for index, value in enumerate(column) if value is not None and type(value) is not list)
    return [value if type(value) is list else None for value in column]


def without_long(
    lists: Sequence[Sequence[Any] | None], positions: Sequence[int], most: int, fallback: Fallback
) -> Sequence[Sequence[Any] | None]:
    """Return `lists`; if the only message of them has more than `most` elements, add it to `fallback`.

    `positions` are those of the messages.  Raise MayBeTooMuch if several messages together have more than `most`.
    """
    if sum(map(len, filter(None, lists))) <= most:
        return lists
    if len(positions) > 1:
        raise MayBeTooMuch
    fallback.update(positions)
    return [None] * len(lists)


def check_texts(elements: Sequence[Any], constant: int, *texts: Sequence[str | None]) -> None:
    """Raise MayBeTooMuch if lines of these columns, and of `constant` characters each, are too long together."""
    total = constant * len(elements)
    for column in texts:
        total += sum(map(len, filter(None, column)))
    check_characters(total, MAX_LINE_CHARACTERS)


def explode(lists: Sequence[Sequence[Any] | None]) -> tuple[list[Any], list[int], list[int]]:
    """Return the elements of all lists, the position of the list of each, and its index in the list."""
    sizes = [len(found) if found else 0 for found in lists]
    elements = list(chain.from_iterable(found for found in lists if found))
    origins = list(chain.from_iterable(map(repeat, range(len(lists)), sizes)))
    return elements, origins, list(chain.from_iterable(map(range, sizes)))


def count_elements(origins: Sequence[int]) -> list[int]:
    """Return the number of each element among those of its message; `origins` are in order."""
    return list(chain.from_iterable(range(len(list(group))) for _, group in groupby(origins)))


def without_elements(positions: Sequence[int], *origins: Iterable[int]) -> list[int]:
    """Return the positions of messages of which there is no element; `origins` are the messages of those there are."""
    found = set(chain.from_iterable(origins))
    return [position for index, position in enumerate(positions) if index not in found]


def find_collisions(
    groups: Sequence[tuple[Sequence[int], Sequence[str], Sequence[int]]],
    positions: Sequence[int],
    origins: Sequence[int],
    fallback: Fallback,
) -> None:
    """Add messages with two points of one series and time to `fallback`.

    A group is (records, series, times) of one item of `points`.
    """
    total = sum([len(times) for _, _, times in groups])
    if len(set().union(*[times for _, _, times in groups])) == total:  # no time is twice there
        return
    seen: set[tuple[int, str, int]] = set()
    for records, series, times in groups:
        seen.update(zip([origins[record] for record in records], series, times, strict=True))
    if len(seen) == total:
        return
    seen.clear()
    for records, series, times in groups:
        for record, name, time in zip(records, series, times, strict=True):
            key = (origins[record], name, time)
            if key in seen:
                fallback.add(positions[origins[record]])
            seen.add(key)
