"""Payloads of every format with the shapes of products in them, and the value that each has by the rules.

The value is found without the decoders of iggyflux: it is what the payload was written from, or what another decoder
reads.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from random import Random
from typing import Any

import cbor2
import msgspec

from iggyflux.reads import Reads
from tests.binary_payloads import TREES, WRITERS, evaluate, from_json
from tests.independent_evaluation import Failed
from tests.payload_shapes import SHAPES, Members, Token, containers, mutated, parse, paths
from tests.schema_documents import Vocabulary, is_one_in

UNKNOWN = object()
"""The value of a payload of which only a part may be readable: rules that the independent evaluation does not know."""


@dataclass(frozen=True)
class Payload:
    """The bytes of a payload and its value, `Failed` if it cannot be decoded; `bad_lines` of it fail by themselves."""

    data: bytes
    value: Any
    bad_lines: int = 0


@dataclass(frozen=True)
class Form:
    """Payloads of a format and a shape.

    `payload` is what `from` says of them, `vocabulary` what expressions can name, `for_each` goes over their rows.
    """

    payload: Any
    vocabulary: Vocabulary
    for_each: str | None
    ordinary: Callable[[Random], Payload]
    mutated: Callable[[Random], Payload]


def form_of(name: str, shape: str, random: Random) -> Form:
    """Return payloads of the format `name`, whose options are drawn."""
    return _FORMS[name](shape, random)


def vocabulary_of(shape: str) -> Vocabulary:
    """Return the paths and members of a shape."""
    found = list(paths(parse(SHAPES[shape])))
    leaves = [path for path in found if not any(other.startswith((f"{path}.", f"{path}[")) for other in found)]
    return Vocabulary(
        [*leaves, *leaves, *leaves, *found],
        sorted({path.rpartition(".")[2].strip('"') for path in found if '"' in path}),
    )


def _leaves(shape: str) -> dict[str, Any]:
    """Return the scalars of a shape by the name of their member; the last of a name counts."""
    return {
        key: value
        for tree in containers(parse(SHAPES[shape]))
        if isinstance(tree, Members)
        for key, value in tree
        if isinstance(value, str | bool)
    }


# --- json, msgpack, cbor ---


def _json(shape: str, _random: Random) -> Form:
    def draw(random: Random) -> Payload:
        return _json_payload(mutated(shape, random))

    return Form("json", vocabulary_of(shape), None, lambda _: _json_payload(SHAPES[shape]), draw)


def _json_payload(text: str) -> Payload:
    data = text.encode("utf-8", "surrogatepass")
    if re.search(r'\\ud83d"|\\u0000|1e400|(?<!")(NaN|Infinity)', text):
        return Payload(data, UNKNOWN)  # fails if it is read
    return Payload(data, json.loads(text, parse_float=Decimal))


def _binary(name: str) -> Callable[[str, Random], Form]:
    dumps: Callable[[Any], bytes] = {"msgpack": msgspec.msgpack.encode, "cbor": cbor2.dumps}[name]

    def form(shape: str, _random: Random) -> Form:
        tree = json.loads(SHAPES[shape])
        usual = Payload(dumps(tree), tree)

        def draw(random: Random) -> Payload:
            data = WRITERS[name](from_json(mutated(shape, random)), Random(random.getrandbits(32)))
            if is_one_in(20, random):
                data = data[: random.randrange(len(data))]
            try:
                return Payload(data, evaluate(TREES[name](data), Reads.WHOLE, strict=False))
            except ValueError:
                return Payload(data, UNKNOWN)

        return Form(name, vocabulary_of(shape), None, lambda _: usual, draw)

    return form


# --- csv ---

_CELLS = [
    "",
    "7",
    "-2.50",
    "true",
    "null",
    " x ",
    'say "hi"',
    "a,b;c\td",
    "two\r\nlines",
    "日本",
    "e\u0301",
    "\u2028",
    "'",
]
_TORN_ROWS = ['"open', 'x"y', '"a"b']


def _csv(shape: str, random: Random) -> Form:
    leaves = _leaves(shape)
    names = random.sample(sorted(leaves), min(len(leaves), random.randint(2, 6)))
    delimiter, quote = random.choice([",", ",", ";", "\t"]), random.choice(['"', '"', "'"])
    options = {"format": "csv", "delimiter": delimiter, "quote": quote}
    has_header = is_one_in(2, random)
    if has_header:
        options["header"] = names

    def written(rows: Sequence[Sequence[str]], end: str, torn: str | None = None) -> bytes:
        lines = [
            delimiter.join(quote + cell.replace(quote, quote * 2) + quote for cell in row)
            if any(quote in cell or delimiter in cell or "\n" in cell or cell == "" for cell in row)
            else delimiter.join(row)
            for row in ([] if has_header else [names]) + [list(row) for row in rows]
        ]
        return (end.join(lines if torn is None else [*lines, torn]) + end).encode()

    def payload(rows: list[list[str]], end: str) -> Payload:
        return Payload(written(rows, end), [dict(zip(names, row, strict=True)) for row in rows])

    usual = [str(leaves[name]) for name in names]

    def draw(random: Random) -> Payload:
        rows = [
            [random.choice(_CELLS) if is_one_in(3, random) else cell for cell in usual]
            for _ in range(random.randint(0, 4))
        ]
        end = random.choice(["\n", "\r\n"])
        if is_one_in(6, random):
            torn = random.choice([*_TORN_ROWS, delimiter * len(names)]).replace('"', quote)
            return Payload(written(rows, end, torn), payload(rows, end).value, 1)
        if is_one_in(12, random):
            return Payload(written(rows, end) + b"\xff\n", Failed())
        return payload(rows, end)

    return Form(options, _rows_of(names, ""), "@", lambda _: payload([usual, usual], "\n"), draw)


def _rows_of(names: Sequence[str], prefix: str, others: Sequence[str] = ()) -> Vocabulary:
    """Return the vocabulary of rows: mostly paths in a row, some in the list of rows."""
    found = [f"{prefix}{json.dumps(name, ensure_ascii=False)}" for name in names] + list(others)
    return Vocabulary([*found * 4, *(f"[0].{path}" for path in found), "@", "[]"], list(names))


# --- influx ---

_BAD_LINES = ["m", "m f=", "m f=NaN 6", "m f=1 x", "m,=x f=1", "m f=1 99999999999999999999", "m f=12k", 'm f="open']
_FIELDS = [
    ("7i", 7), ("-9223372036854775808i", -(2**63)), ("18446744073709551615u", 2**64 - 1), ("7", 7.0), ("-0.0", -0.0),
    ("1e300", 1e300), ("5e-324", 5e-324), ("T", True), ("false", False), ('"say \\"hi\\""', 'say "hi"'), ('""', ""),
    ('"back\\\\slash"', "back\\slash"), ('"two\nlines, # = x"', "two\nlines, # = x"), ('"日本"', "日本"),
]  # fmt: skip


def _influx(shape: str, random: Random) -> Form:
    leaves = {name: value for name, value in _leaves(shape).items() if name.isprintable() and "\\" not in name and name}
    names = random.sample(sorted(leaves), min(len(leaves), random.randint(2, 6)))
    precision = random.choice(["ns", "us", "ms", "s"])
    unit = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9}[precision]
    is_tag = {name: type(leaves[name]) is str and bool(_tag_text(leaves[name])) for name in names[1:]}
    tag_names = [name for name, is_one in is_tag.items() if is_one and name != "time"]
    field_names = [name for name in names if name not in tag_names and name != "time"] or ["value"]

    def row(fields: Sequence[tuple[str, Any]], time: int | None) -> tuple[str, dict[str, Any]]:
        tags = {name: _tag_text(leaves[name]) for name in tag_names}
        line = "".join(
            [
                "m\\,\\ m",
                *(f",{_escaped(name)}={_escaped(text)}" for name, text in tags.items()),
                " " + ",".join(f"{_escaped(name)}={text}" for name, (text, _) in zip(field_names, fields, strict=True)),
                "" if time is None else f" {time}",
            ]
        )
        return line, {
            "measurement": "m, m",
            "tags": tags,
            "fields": {name: value for name, (_, value) in zip(field_names, fields, strict=True)},
            "time": None if time is None else time * unit,
        }

    usual = [_field(leaves.get(name, Token("2.5"))) for name in field_names]

    def ordinary(_: Random) -> Payload:
        rows = [row(usual, 1_700_000_000 + number) for number in range(2)]
        return Payload("\n".join(line for line, _ in rows).encode(), [value for _, value in rows])

    def draw(random: Random) -> Payload:
        lines, values, bad = [], [], 0
        for _ in range(random.randint(0, 4)):
            if is_one_in(5, random):
                lines.append(random.choice(["", "# m f=1 1", "   "]))
            if is_one_in(6, random):
                lines.append(random.choice(_BAD_LINES[:-1]))
                bad += 1
                continue
            fields = [random.choice(_FIELDS) if is_one_in(2, random) else each for each in usual]
            line, value = row(fields, random.choice([None, 0, -1, 1_700_000_000, random.randrange(2**31)]))
            lines.append(line)
            values.append(value)
        text = random.choice(["\n", "\r\n"]).join(lines)
        if is_one_in(12, random):
            return Payload(text.encode() + b"\xff", Failed())
        return Payload((random.choice(["", "\ufeff"]) + text).encode(), values, bad)

    others = ["time", "measurement", "tags", "fields"]
    vocabulary = _rows_of(field_names, "fields.", [*(f"tags.{json.dumps(name)}" for name in tag_names), *others])
    return Form({"format": "influx", "precision": precision}, vocabulary, "@", ordinary, draw)


def _tag_text(value: Any) -> str:
    text = "" if isinstance(value, bool) else str(value)
    return text if text.isprintable() and "\\" not in text else ""


def _escaped(name: str) -> str:
    return re.sub(r"([,= ])", r"\\\1", name)


def _field(value: Any) -> tuple[str, Any]:
    if isinstance(value, bool):
        return str(value).lower(), value
    if isinstance(value, Token):
        return (f"{value}i", int(value)) if re.fullmatch(r"-?\d{1,18}", value) else (str(value), float(value))
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"', value


# --- text and raw ---

_PATTERNS = [
    r"^(?P<lambda>[^;]*);(?P<class>[^;]*)(?:;(?P<x>\d+))?",
    r"(?P<word>[A-Za-z]+)[^;]*;(?P<rest>(?s:.*))",
    r"(?P<number>-?\d+(?:\.\d+)?)",
]


def _text(shape: str, random: Random) -> Form:
    usual = ";".join(str(value) for value in _leaves(shape).values())
    pattern = random.choice([None, *_PATTERNS])

    def payload(text: str) -> Payload:
        if pattern is None:
            return Payload(text.encode(), text)
        found = re.search(pattern, text, re.ASCII)
        return Payload(text.encode(), Failed() if found is None else found.groupdict())

    def draw(random: Random) -> Payload:
        cells = [random.choice(_CELLS) if is_one_in(3, random) else cell for cell in usual.split(";")]
        if is_one_in(12, random):
            return Payload(";".join(cells).encode() + b"\xff", Failed())
        return payload(";".join(cells[: random.randint(0, len(cells))]))

    names = [] if pattern is None else sorted(re.compile(pattern).groupindex)
    form = "text" if pattern is None else {"format": "text", "pattern": pattern}
    return Form(form, Vocabulary(names or ["@"], names), None, lambda _: payload(usual), draw)


def _raw(shape: str, _random: Random) -> Form:
    def payload(data: bytes) -> Payload:
        return Payload(data, base64.b64encode(data).decode())

    def draw(random: Random) -> Payload:
        return payload(mutated(shape, random).encode()[random.randint(0, 3) :] + random.choice([b"", b"\xff\x00"]))

    return Form("raw", Vocabulary(["@"], []), None, lambda _: payload(SHAPES[shape].encode()), draw)


_FORMS: dict[str, Callable[[str, Random], Form]] = {
    "json": _json,
    "msgpack": _binary("msgpack"),
    "cbor": _binary("cbor"),
    "csv": _csv,
    "influx": _influx,
    "text": _text,
    "raw": _raw,
}
FORMATS = [*["json"] * 8, *["msgpack", "cbor"] * 3, *["csv", "influx"] * 2, "text", "raw"]
"""The names of formats, by how often they are drawn."""
