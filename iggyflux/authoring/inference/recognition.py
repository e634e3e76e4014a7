"""Which format samples are in: the payloads of a file, and `from.payload` of a mapping that reads them.

The formats are tried in an order in which none can be taken for a later one; the first that suits every payload is it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from iggyflux.authoring.inference.logfmt import (
    LEAST_PAIRS,
    is_all_pairs,
    logfmt_captures,
    logfmt_pattern,
    logfmt_trees,
)
from iggyflux.authoring.inference.syslog import KNOWN, PATTERN, syslog_trees
from iggyflux.authoring.samples import Coordinates, SampleError, read_samples
from iggyflux.errors import DecodeError, LineProtocolError, counted
from iggyflux.lineprotocol import Unsigned, parse_line
from iggyflux.payloads import FORMATS, expand
from iggyflux.payloads.avro.container import is_container
from iggyflux.payloads.compression import recognized
from iggyflux.payloads.format import ONE_BYTE, Options, not_utf8, single_byte_encoding
from iggyflux.payloads.recognition import WITH_ENCODING, explained
from iggyflux.records import JSON

NOTHING: Final = "IFX540"
UNKNOWN: Final = "IFX541"

RECOGNIZED: Final = (
    *("JSON", "CSV", "XML", "MessagePack", "CBOR", "Avro containers", "line protocol", "syslog"),
    "text with key=value",
)
"""The formats that samples show by themselves."""
_DECLARED: Final = "declare another one, such as bare Avro: --payload '{format: avro, schema: FILE}'"

_AVRO_HINT: Final = "copy the file again, or take another one"

DELIMITERS: Final = (",", ";", "\t", "|")
LEAST_ROWS: Final = 2
LEAST_COLUMNS: Final = 2
"""A table has at least so many rows and columns; a single column of texts is not a table."""
_BOM: Final = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Recognized:
    """Payloads with the format that all of them have; `trees` are their values.

    `lines` are the numbers of their first lines, `how` says how they were recognized.  `file` is the path of a mapping
    whose options name files.
    """

    format: str
    payloads: list[bytes]
    trees: list[JSON]
    lines: list[int]
    how: str
    options: dict[str, JSON] = field(default_factory=dict)
    captures: dict[str, str] = field(default_factory=dict)
    known: dict[str, Literal["tag", "field"]] = field(default_factory=dict)
    """What members of these names become, as the format says; those that are fields are texts."""
    has_non_finite: bool = False
    file: str | None = None
    compression: str = "none"


def recognize_file(data: bytes, *, whole: bool = False) -> Recognized:
    """Return the payloads in a file; `whole` says that it is one payload.  Raise SampleError with the place."""
    data = data.removeprefix(_BOM)
    if not data.strip():
        raise SampleError(NOTHING, "the input is empty", 0, "give messages: one a line, or one document")
    if whole:
        return recognize_payloads([data])
    as_json = [(sample.line, sample.message.payload) for sample in read_samples(data.splitlines(True), Coordinates())]
    if found := _json([payload for _, payload in as_json], [line for line, _ in as_json]):
        return found
    if found := _xml([payload for _, payload in as_json], [line for line, _ in as_json]) or _xml([data], [1]):
        return found
    if not _is_utf8(data):
        return _in_one_byte_a_character(data) or recognize_payloads([data])
    numbers, lines = [line for line, _ in as_json], [payload for _, payload in as_json]
    for recognize in (_line_protocol, _syslog):  # commas that are as many in each line do not make a table of it
        if found := recognize(lines, numbers):
            return found
    if table := _table([data], [1]):
        return table
    try:
        return recognize_payloads(lines, numbers)
    except SampleError:
        if table := _table_below_titles(data):
            return table
        raise


def _in_one_byte_a_character(data: bytes) -> Recognized | None:
    """Return text that is not UTF-8 in a format that can declare its encoding; None if it is something else."""
    try:
        text = data.decode(ONE_BYTE)
    except UnicodeDecodeError:
        return None
    if not single_byte_encoding(data, next(at for at, byte in enumerate(data) if byte >= 0x80)):
        return None
    try:
        found = recognize_file(text.encode())
    except SampleError:
        return None
    if found.format not in WITH_ENCODING or found.compression != "none":
        return None
    how = f"{found.how}; not UTF-8: {ONE_BYTE} is a guess, see that letters beyond ASCII are right"
    payloads = [payload.decode().encode(ONE_BYTE) for payload in found.payloads]
    return replace(found, payloads=payloads, options={**found.options, "encoding": ONE_BYTE}, how=how)


def recognize_payloads(payloads: Sequence[bytes], lines: Sequence[int] = ()) -> Recognized:
    """Return the format of payloads that are a message each.  Raise SampleError with the first that does not suit."""
    numbers = list(lines) or list(range(1, len(payloads) + 1))
    kept = [(number, payload) for number, payload in zip(numbers, payloads, strict=True) if payload.strip()]
    if not kept:
        raise SampleError(NOTHING, "there are no messages", 0, "give messages: one a line, or one document")
    numbers, payloads = [number for number, _ in kept], [payload for _, payload in kept]
    if set(ways := [recognized(payload) for payload in payloads]) != {"none"}:
        return compressed(payloads, numbers, ways, recognize_payloads)
    for recognize in (_json, _xml, _binary, _line_protocol, _syslog, _logfmt, _key_value, _table):
        if found := recognize(payloads, numbers):
            return found
    if len(payloads) == 1 and (table := _table_below_titles(payloads[0])):
        return table
    raise _unrecognized(payloads, numbers)


def compressed(
    payloads: Sequence[bytes],
    numbers: Sequence[int],
    found: Sequence[str],
    read: Callable[[list[bytes], Sequence[int]], Recognized],
) -> Recognized:
    """Return what `read` makes of what payloads expand to: all compressed by one way, or each by its own."""
    expanded = []
    for payload, number, name in zip(payloads, numbers, found, strict=True):
        try:
            expanded.append(expand(payload, name))
        except DecodeError as error:
            raise SampleError(UNKNOWN, error.reason, number, error.hint or "remove it, or correct it") from error
    inside = read(expanded, numbers)
    way = found[0] if len(set(found)) == 1 else "auto"
    how = f"{inside.how}, {'some of it compressed' if way == 'auto' else f'compressed by {way}'}"
    return replace(inside, payloads=list(payloads), how=how, compression=way)


def _unrecognized(payloads: Sequence[bytes], numbers: Sequence[int]) -> SampleError:
    """Return what is wrong, as seen from the format that most payloads have."""
    if all(map(is_container, payloads)):
        for number, payload in zip(numbers, payloads, strict=True):
            try:
                decoded("avro", payload, {})
            except DecodeError as error:
                return SampleError(UNKNOWN, f"an Avro container: {error.reason}", number, error.hint or _AVRO_HINT)
    are_json = [_decodes("json", payload) for payload in payloads]
    hint = f"{', '.join(RECOGNIZED[:-1])} and {RECOGNIZED[-1]} are recognized; {_DECLARED}"
    bad = are_json.index(False)
    if any(are_json) or payloads[bad].lstrip()[:1] in (b"{", b"["):
        try:
            FORMATS["json"].decode(payloads[bad], {}, None, False)
        except DecodeError as error:
            told = explained(error, payloads[bad], "json")
            reason = (
                told.reason
                if len(are_json) == 1 or not any(are_json)
                else f"others are JSON, but this is {told.reason}"
            )
            return SampleError(UNKNOWN, reason, numbers[bad], told.hint or "remove it, or correct it")
    for name in ("influx", "text"):
        suiting = [_suits(name, payload) for payload in payloads]
        if any(suiting) and not all(suiting):
            words = {"influx": "line protocol", "text": "key=value"}[name]
            line = numbers[suiting.index(False)]
            return SampleError(UNKNOWN, f"others are {words}, but this is not", line, "infer one format at a time")
    told = explained(_why_unknown(payloads[0]), payloads[0], "")
    return SampleError(UNKNOWN, told.reason, numbers[0], told.hint or hint)


def _why_unknown(payload: bytes) -> DecodeError:
    """Return the failure that says what a payload in no known format looks like: bytes, or text that is not UTF-8."""
    try:
        payload.decode()
    except UnicodeDecodeError as error:
        if single_byte_encoding(payload, error.start):
            return not_utf8(error, "the input")
    return DecodeError("IFX404", "no known format")


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _decodes(form: str, payload: bytes) -> bool:
    try:
        FORMATS[form].decode(payload, {}, None, False)
    except DecodeError:
        return False
    return True


def _trees(form: str, payloads: Sequence[bytes], options: dict[str, JSON]) -> list[JSON] | None:
    decode = FORMATS[form].decode
    try:
        return [decode(payload, options, None, False) for payload in payloads]
    except DecodeError:
        return None


def decoded(form: str, payload: bytes, options: Options) -> tuple[JSON, bool]:
    """Return the value of a payload, and whether NaN or infinities are in it.  Raise DecodeError."""
    try:
        return FORMATS[form].decode(payload, options, None, False), False
    except DecodeError:
        decode = FORMATS[form].decode_non_finite
        if decode is None:
            raise
    return decode(payload, options, None, False), True


def _found(form: str, payloads: Sequence[bytes], numbers: Sequence[int], how: str) -> Recognized | None:
    """Return payloads of a format that has no options, also with NaN and infinities; None if one is not of it."""
    try:
        values = [decoded(form, payload, {}) for payload in payloads]
    except DecodeError:
        return None
    trees, has_non_finite = [tree for tree, _ in values], any(has for _, has in values)
    how += " with NaN or Infinity" * has_non_finite
    return Recognized(form, list(payloads), trees, list(numbers), how, has_non_finite=has_non_finite)


# --- each format ---


def _json(payloads: Sequence[bytes], numbers: Sequence[int]) -> Recognized | None:
    """JSON; also with the NaN and Infinity that some encoders write."""
    found = _found("json", payloads, numbers, "JSON")
    if found is None:
        return None
    trees, how = found.trees, found.how
    if len(payloads) == 1 and isinstance(trees[0], list):
        how = "one JSON array, which is one message (`jq -c '.[]'` makes a message of each element)"
    elif len(payloads) == 1:
        how += ", one document"
    return replace(found, how=how)


def _xml(payloads: Sequence[bytes], numbers: Sequence[int]) -> Recognized | None:
    """XML; an element that is there once in some places and several times in others is a list everywhere."""
    if not all(map(_TAG.match, payloads)):
        return None
    trees = _trees("xml", payloads, {})
    if trees is None:
        return None
    kinds: set[tuple[str, bool]] = set()
    for tree in trees:
        _note_lists(tree, kinds)
    lists: list[JSON] = [name for name, is_list in sorted(kinds) if is_list and (name, False) in kinds]
    options: dict[str, JSON] = {"lists": lists} if lists else {}
    how = "XML" if len(payloads) > 1 else "XML; the file is one message (dry-run: --whole)"
    return Recognized("xml", list(payloads), _trees("xml", payloads, options) or trees, list(numbers), how, options)


_TAG: Final = re.compile(rb"\s*+<[!?A-Za-z_]|\xff\xfe<\0|\xfe\xff\0<")


def _note_lists(tree: JSON, kinds: set[tuple[str, bool]]) -> None:
    """Add each name in `tree` to `kinds`, and whether it is a list there."""
    if isinstance(tree, dict):
        kinds.update((name, isinstance(value, list)) for name, value in tree.items())
    for value in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ():
        _note_lists(value, kinds)


def _logfmt(payloads: Sequence[bytes], numbers: Sequence[int]) -> Recognized | None:
    """Nothing but key=value, in orders that differ: a pattern reads those in one order, also among other text."""
    trees = _trees("logfmt", payloads, {})
    if trees is None or any(len(tree) < LEAST_PAIRS or True in tree.values() for tree in trees):  # type: ignore[arg-type,union-attr]
        return None
    return Recognized("logfmt", list(payloads), trees, list(numbers), "logfmt")


def _binary(payloads: Sequence[bytes], numbers: Sequence[int]) -> Recognized | None:
    """MessagePack, CBOR or Avro; a single byte or a text would be valid in both, so only objects and lists count."""
    for form, name in (("msgpack", "MessagePack"), ("cbor", "CBOR")):
        found = _found(form, payloads, numbers, name) if all(each[0] >= 0x80 for each in payloads) else None
        if found is not None and all(isinstance(tree, (dict, list)) for tree in found.trees):
            return found
    # Of Avro only a container has its schema with it.
    return _found("avro", payloads, numbers, "Avro containers") if all(map(is_container, payloads)) else None


def _line_protocol(payloads: Sequence[bytes], numbers: Sequence[int]) -> Recognized | None:
    if not all(_suits("influx", payload) for payload in payloads[:LEAST_ROWS]):
        return None
    for precision in _precisions(payloads):
        options: dict[str, JSON] = {} if precision == "ns" else {"precision": precision}
        trees = _trees("influx", payloads, options)
        if trees is not None and any(trees):
            how = f"line protocol with times in {precision}"
            if any(map(_has_unsigned, payloads)):
                how += "; CHECK: unsigned integers become integers, `type: payload` keeps them"
            return Recognized("influx", list(payloads), trees, list(numbers), how, options)
    return None


def _has_unsigned(payload: bytes) -> bool:
    decode = FORMATS["influx"].decode_typed
    if decode is None or not _MAY_BE_UNSIGNED.search(payload):
        return False
    rows: Any = decode(payload, {}, None, False)
    return any(isinstance(value, Unsigned) for row in rows for value in row["fields"].values())


_MAY_BE_UNSIGNED: Final = re.compile(rb"=[0-9]++u")


def _precisions(payloads: Sequence[bytes]) -> Iterator[str]:
    """Yield the unit by the number of digits that the first time has: 10 for seconds, 19 for nanoseconds."""
    digits = Counter(len(each.split()[-1]) for each in payloads if each.split()[-1].isdigit())
    size = digits.most_common(1)[0][0] if digits else 19
    yield "s" if size <= 10 else "ms" if size <= 13 else "us" if size <= 16 else "ns"


def _suits(form: str, payload: bytes) -> bool:
    if form == "text":
        return logfmt_trees([payload.decode("utf-8", "replace")]) is not None
    try:
        for line in payload.decode().splitlines():
            if line.strip() and not line.startswith("#"):
                parse_line(line)
    except (LineProtocolError, UnicodeDecodeError):
        return False
    return True


def _syslog(payloads: Sequence[bytes], numbers: Sequence[int]) -> Recognized | None:
    try:
        trees, captures = syslog_trees(payloads)
    except DecodeError:
        return None
    how = "syslog (RFC 5424)"
    return Recognized(
        "text", list(payloads), trees, list(numbers), how, {"pattern": PATTERN}, captures=captures, known=KNOWN
    )


def _key_value(payloads: Sequence[bytes], numbers: Sequence[int]) -> Recognized | None:
    try:
        texts = [payload.decode() for payload in payloads]
    except UnicodeDecodeError:
        return None
    pattern = logfmt_pattern(texts)
    if pattern is None:
        return _in_any_order(texts, payloads, numbers)
    options: dict[str, JSON] = {"pattern": pattern}
    trees = _trees("text", payloads, options)
    if trees is None:
        return None
    how = "text with key=value" + _beside(texts)
    return Recognized("text", list(payloads), trees, list(numbers), how, options)


def _beside(texts: Sequence[str]) -> str:
    """Return what to add to the comment where texts have other words too."""
    return (
        "" if all(map(is_all_pairs, texts)) else "; CHECK: other words are not stored, a group of a pattern reads them"
    )


def _in_any_order(texts: Sequence[str], payloads: Sequence[bytes], numbers: Sequence[int]) -> Recognized | None:
    """Text whose keys are not always in one order, so that each is looked for alone."""
    trees = logfmt_trees(texts)
    if trees is None:
        return None
    how = "text with key=value, in any order" + _beside(texts)
    return Recognized("text", list(payloads), [*trees], list(numbers), how, captures=logfmt_captures(texts))


def _table(payloads: Sequence[bytes], numbers: Sequence[int]) -> Recognized | None:
    """CSV: the delimiter that gives the most columns, the same number in all rows."""
    best = _widest(payloads)
    if best is None:
        return _table_with_comments(payloads, numbers)
    delimiter, quote, rows = best
    options: dict[str, JSON] = {}
    if any(cell != cell.strip() for cell in rows[0]):
        options["trim"] = True
        rows = [[cell.strip() for cell in row] for row in rows]
    if delimiter != ",":
        options["delimiter"] = delimiter
    if quote != '"':
        options["quote"] = quote
    has_header = _is_header(rows)
    if has_header and len(payloads) > 1 and len({each.partition(b"\n")[0] for each in payloads}) > 1:
        return None
    has_units = has_header and len(payloads) == 1 and _has_units(rows)
    if has_units:
        options["units_row"] = True
        del rows[1]
    if not has_header:
        options["header"] = [f"column{number}" for number, _ in enumerate(rows[0], 1)]
    trees = _trees("csv", payloads, options)
    if trees is None and has_header and not all(rows[0]):
        trees = _without_unnamed(payloads, options, rows[0])
    if trees is None or not any(trees):
        return None
    if delimiter != "," and _has_decimal_comma(rows):
        options["decimal"] = ","
        trees = [_with_points(tree) for tree in trees]
    shown = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}[delimiter]
    how = f"CSV with {shown}, {'its header in the first line' if has_header else 'without a header'}"
    if has_units:
        how += ", and a row of units below it, which is left out"
    if len(payloads) == 1:
        how += "; the file is one message (dry-run: --whole)"
    return Recognized("csv", list(payloads), trees, list(numbers), how, options)


def _widest(payloads: Sequence[bytes]) -> tuple[str, str, list[list[str]]] | None:
    """Return delimiter, quote and rows of the table with the most columns."""
    best: tuple[str, str, list[list[str]]] | None = None
    for delimiter in DELIMITERS:
        for quote in ('"', "'", ""):
            rows = _rows(payloads, delimiter, quote)
            if rows and (best is None or len(rows[0]) > len(best[2][0])):
                best = delimiter, quote, rows
    return best


def _table_with_comments(payloads: Sequence[bytes], numbers: Sequence[int]) -> Recognized | None:
    """CSV among lines that begin with #."""
    plain = [_COMMENT.sub(b"", payload) for payload in payloads]
    if plain == list(payloads) or not all(map(bytes.strip, plain)):
        return None
    found = _table(plain, numbers)
    return found and replace(found, payloads=list(payloads), options={**found.options, "comment": "#"})


def _table_below_titles(data: bytes) -> Recognized | None:
    """CSV with a header, below lines that are not a part of the table."""
    lines = data.splitlines(keepends=True)
    if any(line.lstrip()[:1] in (b"{", b"[", b"<") for line in lines):
        return None
    for skip in range(1, min(_MOST_TITLES, len(lines) - LEAST_ROWS) + 1):
        found = _table([b"".join(lines[skip:])], [1])
        if found and "header" not in found.options and not _has_pair(found.trees[0]):
            how = found.how.replace("in the first line", f"in line {skip + 1}, below {counted(skip, 'line')} left out")
            return replace(found, payloads=[data], how=how, options={**found.options, "skip": skip})
    return None


_MOST_TITLES: Final = 20


def _has_pair(table: JSON) -> bool:
    """Return whether a name has a sign of equality: the lines are line protocol, or text with key=value."""
    return any("=" in name for row in table for name in row)  # type: ignore[union-attr,operator]


def _has_units(rows: Sequence[Sequence[str]]) -> bool:
    """Return whether the row below the header has no number, and a unit where all others have one.

    A row of texts might also be one whose only number is missing, so its other cells are then empty.
    """
    _, units, *others = rows
    if not others or any(map(_NUMBER.fullmatch, units)):
        return False
    numeric = [
        column
        for column in range(len(units))
        if (cells := [row[column] for row in others if row[column]]) and all(map(_NUMBER.fullmatch, cells))
    ]
    named = [column for column in numeric if units[column].strip().lower() not in _NO_UNITS]
    return bool(named) and (len(numeric) > 1 or sum(map(bool, units)) == 1)


_NO_UNITS: Final = ("", "-", "--", "?", "n/a", "na", "nan", "nil", "none", "null", "error", "err", "fault", "inf")
"""Words in the place of a number."""
_COMMENT: Final = re.compile(rb"^#.*\n?", re.MULTILINE)
_WITH_COMMA: Final = re.compile(r"-?[0-9]+,[0-9]+")
_WITH_POINT: Final = re.compile(r"-?[0-9]+\.[0-9]+|-?[0-9]{1,3}(?:\.[0-9]{3})+,[0-9]+")


def _has_decimal_comma(rows: Sequence[Sequence[str]]) -> bool:
    cells = [cell for row in rows for cell in row]
    return any(map(_WITH_COMMA.fullmatch, cells)) and not any(map(_WITH_POINT.fullmatch, cells))


def _with_points(tree: JSON) -> JSON:
    """Return a table in which numbers have a point, as they are read."""
    return [
        {name: cell.replace(",", ".") if _WITH_COMMA.fullmatch(cell) else cell for name, cell in row.items()}  # type: ignore[union-attr,arg-type]
        for row in tree  # type: ignore[union-attr]
    ]


def _rows(payloads: Sequence[bytes], delimiter: str, quote: str) -> list[list[str]] | None:
    """Return the cells of all payloads if their rows have the same number of them, else None."""
    first = payloads[0].removeprefix(_BOM).partition(b"\n")[0].decode("utf-8", "replace")
    width = first.count(delimiter) + 1
    if quote in first and quote:
        row = _cells(first.encode(), {"header": [], "delimiter": delimiter, "quote": quote}, range(1, width + 1))
        width = len(row[0]) if row else width
    if width < LEAST_COLUMNS:
        return None
    rows: list[list[str]] = []
    for payload in payloads:
        rows += _cells(payload.removeprefix(_BOM), {"delimiter": delimiter, "quote": quote}, [width])
        if not rows:
            return None
    return rows if len(rows) >= LEAST_ROWS else None


def _cells(payload: bytes, options: dict[str, JSON], widths: Iterable[int]) -> list[list[str]]:
    """Return the cells of a table that has one of these numbers of columns; an empty list if it does not."""
    for width in widths:
        names = [str(number) for number in range(width)]
        header: list[JSON] = [*names]
        try:
            rows = FORMATS["csv"].decode(payload, {**options, "header": header}, None, False)
        except DecodeError:
            continue
        return [[str(row[name]) for name in names] for row in rows if isinstance(row, dict)]  # type: ignore[union-attr]
    return []


def _unnamed(rows: Sequence[Sequence[str]]) -> int:
    """Return how many columns at the end have no name and no cell: their lines end with delimiters."""
    count = 0
    while count < len(rows[0]) - LEAST_COLUMNS and not any(row[-1 - count] for row in rows):
        count += 1
    return count


def _without_unnamed(payloads: Sequence[bytes], options: dict[str, JSON], names: Sequence[str]) -> list[JSON] | None:
    """Return tables without the columns that have no name, whose names cannot all be the same."""
    header: list[JSON] = [name or f"column{number}" for number, name in enumerate(names)]
    trees = _trees("csv", payloads, {**options, "header": header})
    if trees is None:
        return None
    named = [name for name in names if name]
    return [[{name: row[name] for name in named} for row in tree[1:]] for tree in trees]  # type: ignore[index,union-attr,call-overload]


_NUMBER: Final = re.compile(r"\s*+[-+]?[0-9][0-9.,:TZ+\-/ ]*+\s*+")


def _is_header(rows: Sequence[Sequence[str]]) -> bool:
    """Return whether the first row names columns: no number in it, no name twice, and other cells below it."""
    width = len(rows[0]) - _unnamed(rows)
    names, *others = [row[:width] for row in rows]
    has_names = all(names) and len(set(names)) == len(names) and not any(map(_NUMBER.fullmatch, names))
    differing = sum(any(row[column] != name for row in others) for column, name in enumerate(names))
    return has_names and bool(others) and differing > len(names) / 2
