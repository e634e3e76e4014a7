"""Payloads of every format with the shapes of products in them, and the value that each has by the rules.

The value is found without the decoders of iggyflux: it is what the payload was written from, or what another decoder
reads.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from decimal import Decimal
from random import Random
from typing import Any

import cbor2
import msgspec

from iggyflux.lineprotocol import Unsigned
from iggyflux.reads import Reads
from tests import avro_forms, markup_forms, protobuf_forms
from tests.binary_payloads import TREES, WRITERS, evaluate, from_json
from tests.forms import UNKNOWN, Form, Payload, leaves_of, rows_of, vocabulary_of
from tests.independent_evaluation import Failed
from tests.payload_shapes import SHAPES, Token, mutated, parse
from tests.schema_documents import Vocabulary, is_one_in


def form_of(name: str, shape: str, random: Random) -> Form:
    """Return payloads of the format `name`, whose options are drawn."""
    return _FORMS[name](shape, random)


# --- json, msgpack, cbor ---


def _json(shape: str, _random: Random) -> Form:
    def draw(random: Random) -> Payload:
        return _json_payload(mutated(shape, random))

    return Form("json", vocabulary_of(parse(SHAPES[shape])), None, lambda _: _json_payload(SHAPES[shape]), draw)


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

        return Form(name, vocabulary_of(parse(SHAPES[shape])), None, lambda _: usual, draw)

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
    "Küche é",
    "e\u0301",
    "\u2028",
    "'",
]
_TORN_ROWS = ['"open', 'x"y', '"a"b']


_SKIPPED = ["Kiln log, plant 7", 'an "open quote', "", "#;,"]
_COMMENTS = ["# the door was opened", '#"', "#a,b;c"]


def _csv_options(names: Sequence[str], cells: Sequence[str], random: Random) -> dict[str, Any]:
    """Return options of csv for rows with these names, in which `cells` are usual."""
    delimiter, quote = random.choice([",", ",", ";", "\t"]), random.choice(['"', '"', "'"])
    options: dict[str, Any] = {"format": "csv", "delimiter": delimiter, "quote": quote}
    if is_one_in(2, random):
        options["header"] = names
    drawn = {"skip": random.randint(1, 2), "units_row": True, "trim": True, "decimal": ",", "comment": "#"}
    if any(text.startswith("#") for text in (*names, *cells)):
        del drawn["comment"]
    return options | {key: value for key, value in drawn.items() if is_one_in(4, random)}


def _csv(shape: str, random: Random) -> Form:
    leaves = leaves_of(shape)
    names = random.sample(sorted(leaves), min(len(leaves), random.randint(2, 6)))
    usual = [str(leaves[name]) for name in names]
    options = _csv_options(names, usual, random)
    if "decimal" in options:
        numbers = [type(leaves[name]) is Token for name in names]
        usual = [cell.replace(".", ",") if is_one else cell for cell, is_one in zip(usual, numbers, strict=True)]
    delimiter, quote = options["delimiter"], options["quote"]
    blanks = " \t".replace(delimiter, "") if "trim" in options else ""

    def line(cells: Sequence[str], random: Random, *, exact: bool = False) -> str:
        """Return a row; if `exact`, no blanks are lost of its cells."""
        is_quoted = any(quote in cell or delimiter in cell or "\n" in cell or cell == "" for cell in cells)
        is_quoted |= exact and any(cell.strip(" \t") != cell for cell in cells)
        written = [quote + cell.replace(quote, quote * 2) + quote if is_quoted else cell for cell in cells]
        around = [random.choice(["", "", blanks]) for _ in cells] if blanks else [""] * len(cells)
        return delimiter.join(f"{blank}{cell}{blank}" for blank, cell in zip(around, written, strict=True))

    def payload(rows: Sequence[list[str]], random: Random, torn: str | None = None) -> Payload:
        end = random.choice(["\n", "\r\n"])
        table = [line(row, random, exact=True) for row in rows]
        if "comment" in options:
            table.insert(random.randint(0, len(table)), random.choice(_COMMENTS))
        lines = [random.choice(_SKIPPED) for _ in range(options.get("skip", 0))]
        if "header" not in options:
            lines.append(line(names, random, exact=True))
        if "units_row" in options:
            lines.append(line(["°C"] * random.randint(1, 3), random))
        lines += [*table, *([] if torn is None else [torn])]
        return Payload((end.join(lines) + end).encode(), [dict(zip(names, row, strict=True)) for row in rows])

    def draw(random: Random) -> Payload:
        rows = [
            [random.choice(_CELLS) if is_one_in(3, random) else cell for cell in usual]
            for _ in range(random.randint(0, 4))
        ]
        if is_one_in(6, random):
            torn = random.choice([*_TORN_ROWS, delimiter * len(names)]).replace('"', quote)
            made = payload(rows, random, torn)
            return Payload(made.data, made.value, 1)
        made = payload(rows, random)
        return Payload(made.data + b"\xff\n", Failed()) if is_one_in(12, random) else made

    return Form(options, rows_of(names, ""), "@", lambda _: payload([usual, usual], Random(0)), draw)


# --- influx ---

_BAD_LINES = ["m", "m f=", "m f=NaN 6", "m f=1 x", "m,=x f=1", "m f=1 99999999999999999999", "m f=12k", 'm f="open']
_FIELDS = [
    ("7i", 7), ("-9223372036854775808i", -(2**63)), ("18446744073709551615u", Unsigned(2**64 - 1)), ("0u", Unsigned(0)),
    ("7", 7.0), ("7.", 7.0), ("-0.0", -0.0),
    ("1e300", 1e300), ("5e-324", 5e-324), ("T", True), ("false", False), ('"say \\"hi\\""', 'say "hi"'), ('""', ""),
    ('"back\\\\slash"', "back\\slash"), ('"two\nlines, # = x"', "two\nlines, # = x"), ('"日本"', "日本"),
]  # fmt: skip


_REFUSED = {"": "(?!)", "v1": r"\d+u", "v2": "(?!)", "v3": r"\d+\."}
"""The values that a dialect does not have; without an option it is v2."""
_FOLDER = "C:\\dir"


def _influx(shape: str, random: Random) -> Form:
    leaves = {
        name: value for name, value in leaves_of(shape).items() if name.isprintable() and "\\" not in name and name
    }
    names = random.sample(sorted(leaves), min(len(leaves), random.randint(2, 6)))
    precision, dialect = random.choice(["ns", "us", "ms", "s"]), random.choice(["", "", "v1", "v2", "v3"])
    unit = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9}[precision]
    is_tag = {name: type(leaves[name]) is str and bool(_tag_text(leaves[name])) for name in names[1:]}
    tag_names = [name for name, is_one in is_tag.items() if is_one and name not in ("time", "folder")]
    field_names = [name for name in names if name not in tag_names and name != "time"] or ["value"]

    backslash = "\\"

    def row(fields: Sequence[tuple[str, Any]], time: int | None) -> tuple[str, dict[str, Any]]:
        tags = {name: _tag_text(leaves[name]) for name in tag_names}
        line = "".join(
            [
                "m\\,\\ m",
                *(f",{_escaped(name)}={_escaped(text)}" for name, text in tags.items()),
                f",folder={_FOLDER.replace(backslash, backslash * 2) if dialect == 'v3' else _FOLDER}",
                " " + ",".join(f"{_escaped(name)}={text}" for name, (text, _) in zip(field_names, fields, strict=True)),
                "" if time is None else f" {time}",
            ]
        )
        return line, {
            "measurement": "m, m",
            "tags": {**tags, "folder": _FOLDER},
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
            if any(re.fullmatch(_REFUSED[dialect], text) for text, _ in fields):
                bad += 1
            else:
                values.append(value)
        text = random.choice(["\n", "\r\n"]).join(lines)
        if is_one_in(12, random):
            return Payload(text.encode() + b"\xff", Failed())
        return Payload((random.choice(["", "\ufeff"]) + text).encode(), values, bad)

    others = ["time", "measurement", "tags", "fields", "tags.folder"]
    vocabulary = rows_of(field_names, "fields.", [*(f"tags.{json.dumps(name)}" for name in tag_names), *others])
    options = {"format": "influx", "precision": precision, **({"dialect": dialect} if dialect else {})}
    return Form(options, vocabulary, "@", ordinary, draw)


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
    usual = ";".join(str(value) for value in leaves_of(shape).values())
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


# --- text in other encodings ---

_ENCODINGS = ["windows-1252", "iso-8859-1", "cp437", "utf-16", "utf-16le", "utf-16be"]


def _in_encodings(make: Callable[[str, Random], Form]) -> Callable[[str, Random], Form]:
    """Return what draws the forms of `make`, some of them in another encoding than UTF-8."""

    def form(shape: str, random: Random) -> Form:
        made, encoding = make(shape, random), random.choice(_ENCODINGS)
        if not is_one_in(3, random) or _encoded(made.ordinary(Random(0)), encoding) is None:
            return made

        def ordinary(random: Random) -> Payload:
            found = _encoded(made.ordinary(random), encoding)
            assert found is not None
            return found

        def draw(random: Random) -> Payload:
            found = _encoded(made.mutated(random), encoding)
            if found is None:  # it has bytes that are not UTF-8, or characters that the encoding lacks
                found = ordinary(random)
                if encoding.startswith("utf-16"):
                    return Payload(found.data + b"x", Failed())
            return found

        options = made.payload if isinstance(made.payload, dict) else {"format": made.payload}
        return replace(made, payload={**options, "encoding": encoding}, ordinary=ordinary, mutated=draw)

    return form


def _encoded(payload: Payload, encoding: str) -> Payload | None:
    try:
        return replace(payload, data=payload.data.decode().encode(encoding))
    except UnicodeError:
        return None


_FORMS: dict[str, Callable[[str, Random], Form]] = {
    "json": _json,
    "msgpack": _binary("msgpack"),
    "cbor": _binary("cbor"),
    "csv": _in_encodings(_csv),
    "influx": _influx,
    "text": _in_encodings(_text),
    "raw": _raw,
    "logfmt": _in_encodings(markup_forms.logfmt),
    "xml": markup_forms.xml,
    "avro": avro_forms.avro,
    "protobuf": protobuf_forms.protobuf,
}
FORMATS = [*["json"] * 8, *["msgpack", "cbor"] * 3, *["csv", "influx", "avro", "protobuf"] * 2]
FORMATS += ["xml", "xml", "text", "raw", "logfmt"]
"""The names of formats, by how often they are drawn."""
