"""Documents and messages for the law: random writer documents, and payloads meant to be awkward for them.

Documents and messages of one example share a small vocabulary, `Words`, so that many messages fit their document.  The
vocabulary is drawn anew for each example, from names that may cause errors.  Payloads are written as text, not by a
JSON library, so that they contain what a library would never write: duplicate keys, spaced colons, escaped keys,
numbers of every spelling, bytes that are not UTF-8, and missing ends.  MessagePack and CBOR are written from the same
objects; csv, influx, text and raw have rows or values of their own.
"""

from __future__ import annotations

import builtins
import json
import keyword
import math
import struct
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import strategies as st

from iggyflux import Message, parse_mapping
from iggyflux.errors import PointError, RecordError
from iggyflux.mapping import ReaderMapping, WriterMapping
from iggyflux.payloads import FORMATS as PAYLOADS
from iggyflux.payloads.compression import COMPRESSIONS, compress
from iggyflux.plan import columns
from iggyflux.plan.tags import check_tag
from tests.binary_payloads import WRITERS, from_json
from tests.protobuf_payloads import struct_value, tagged, varint

_PYTHON = [*keyword.kwlist, *keyword.softkwlist, *dir(builtins)]
_GENERATED = [
    *(name for name in dir(columns) if not name.startswith("_")),
    "Annotated", "Any", "INT64", "NO_PAYLOAD", "Payload", "Struct", "UINT63", "Unread", "all_roots", "complete",
    "compress", "element", "elements", "empty", "f0", "field", "fields", "header_value", "index", "indices",
    "is_duplicate", "items", "joined", "keep", "lines", "lines_0", "lists", "member", "memo_texts", "message",
    "messages", "name", "odd", "odd_0", "origins", "payload", "payloads", "positions", "record_messages",
    "record_roots", "records_0", "render", "root", "roots", "self", "series", "series_0", "skipped", "tag", "tags",
    "time", "times", "times_0", "true_for", "truth", "unread", "unread0", "value", "values", "values_0", "x",
]  # fmt: skip
_ALIKE = [
    "geo_ip",
    "geoip",
    "geo-ip",
    "geo ip",
    "Geo_IP",
    "GEOIP",
    "geo_ip_2",
    "x_or_default",
    "n1",
    "1",
    "0",
    "-7",
    "18446744073709551615",
    "1x",
    "_",
    "__",
    "a_",
    "A",
]
_AWKWARD = [
    "", " ", ".", "a.b", "a[0]", "*", "@", "`", "'", '"', "say \"hi\"", "\\", "\\Processor(_Total)\\% Processor Time", "a\\",
    "\n", "\t", "\x00", "\x7f", "\x85", "{x}", "{{", "%s", "$ref", "#", "=", ",", "a=b", "a,b", "\u2028", "e\u0301", "é", "日本", "𝔘",
    "\u202eabc", "null", "true", "__class__", "__init__", "__struct_fields__", "a" * 300, "// x", "\"\"\"", "\\u0061", "über",
]  # fmt: skip
NAMES = st.one_of(
    st.sampled_from(_PYTHON), st.sampled_from(_GENERATED), st.sampled_from(_ALIKE), st.sampled_from(_AWKWARD)
)
"""Names of members, tags and fields: of Python, of generated code, alike but for case or punctuation, or just awkward.
"""

_ROLES = ("a", "b", "c", "d", "id", "xs", "t")
_PLAIN = ("a", "b", "c", "d", "id", "xs", "über")


@dataclass(frozen=True)
class Words:
    """The names of an example: a member's name by its role, and a path of one to six more members.

    In a valid message, member `a` is a number, `b` a string, `c` a boolean, `d` an object of `id` and `a`, `id` an
    integer, `xs` a list of objects, `t` a time in ms.  At the end of the path is an object like `d` with a list `xs`.
    """

    roles: tuple[str, ...]
    deep: tuple[str, ...]

    def __getitem__(self, role: str) -> str:
        return self.roles[_ROLES.index(role)]

    def path(self, template: str) -> str:
        """Return the expression of a template such as `d.id`; words of one to two letters in braces are roles."""
        names = {role: json.dumps(name, ensure_ascii=False) for role, name in zip(_ROLES, self.roles, strict=True)}
        deep = ".".join(json.dumps(name, ensure_ascii=False) for name in self.deep)
        return template.format_map({**names, "deep": deep})


@st.composite
def words(draw: Any) -> Words:
    """Return a vocabulary; a third of them are plain letters."""
    if draw(st.integers(0, 2)) == 0:
        return Words(_PLAIN, ("p", "q"))
    roles = draw(st.lists(NAMES, min_size=len(_ROLES) + 1, max_size=len(_ROLES) + 1, unique=True))
    return Words(tuple(roles[:-1]), (roles[-1], *draw(st.lists(NAMES, max_size=5))))


NUMBERS = st.sampled_from(
    [
        "0", "-0", "7", "-7", "7.0", "-0.0", "1e3", "1E-7", "0.00001", "1e16", "123456789012345680.0", "3.7",
        "9007199254740991", "9007199254740992", "9007199254740993", "9007199254740993.0", "9007199254740994.0", "4.00000000000000000001",
        "4503599627370497.4", "9007199254740993e0", "90071992547409930e-1", "1e17", "-9007199254740993", "9223372036854775807",
        "9223372036854775808", "-9223372036854775808", "18446744073709551615", "18446744073709551616", "1e400", "-1e400",
        "5e-324", "1700000000000", "1700000000.123456789", "1" + "0" * 400, "1.", "01", "NaN",
    ]
)  # fmt: skip
TEXTS = st.sampled_from(
    [
        "", "x", "7", "7.0", "1e3", " 7", "true", "false", "d1", "a,b", "a=b", "a b", "a\\", "a\\b", 'say "hi"', "lf\n", "\x00",
        "time", "_field", "#x", "über", "日本", "2024-01-01T00:00:00Z", "2024-02-30T00:00:00Z", "05.08.2018 07:17", "2024-01-02 03:04", "1700000000.1234567", "2024-01-01T00:00:00.5+02:00",
        "1700000000000", "readings", "celsius", "a\":1", ":x", "9007199254740993.0",
    ]
)  # fmt: skip


@st.composite
def json_text(draw: Any, words: Words, depth: int = 3) -> str:
    """Return a JSON value as text, mostly valid."""
    kind = draw(st.sampled_from("nnnnsssssbzoooolll" if depth else "nnnsssbz"))
    if kind == "n":
        return draw(NUMBERS)
    if kind == "s":
        text = json.dumps(draw(TEXTS), ensure_ascii=draw(st.booleans()))
        return text[:-1] + draw(st.sampled_from(["", "", "", "", "\\ud83d", "\\udc00x", "\\ud83d\\ude00"])) + '"'
    if kind == "b":
        return draw(st.sampled_from(["true", "false"]))
    if kind == "z":
        return "null"
    if kind == "l":
        return "[" + ",".join(draw(st.lists(json_text(words, depth - 1), max_size=3))) + "]"
    return draw(json_object(words, depth))


@st.composite
def json_object(draw: Any, words: Words, depth: int = 3) -> str:
    """Return an object: keys of the vocabulary, sometimes twice, sometimes escaped."""
    unique = draw(st.sampled_from([True, True, True, False]))
    keys = draw(st.lists(st.sampled_from([*words.roles, *words.deep]), max_size=6, unique=unique))
    colon = draw(st.sampled_from([":", ":", ":", ": ", " :", "\t:"]))
    members = []
    for key in keys:
        name = json.dumps(key, ensure_ascii=draw(st.booleans()))
        if draw(st.integers(0, 30)) == 0 and key.isascii():
            name = '"' + "".join(f"\\u{ord(letter):04x}" for letter in key) + '"'
        members.append(name + colon + draw(json_text(words, depth - 1)))
    return "{" + ",".join(members) + "}"


@st.composite
def good_object(draw: Any, words: Words, spoiled: bool = False) -> str:
    """Return an object that suits most documents of `documents`; with `spoiled`, all but a member or two."""
    a, b, id_ = (json.dumps(words[role], ensure_ascii=False) for role in ("a", "b", "id"))
    xs = json.dumps(words["xs"], ensure_ascii=False)
    inside = [f",{xs}:[{', '.join(f'{{{a}:{n},{id_}:{n}}}' for n in range(draw(st.integers(0, 3))))}]", f",{xs}:null"]
    inner = [draw(st.sampled_from(["", *inside, inside[0], inside[0]])) for _ in range(draw(st.integers(0, 3)))]
    elements = ",".join(f'{{{a}:{number / 4},{id_}:{number},{b}:"x"{nested}}}' for number, nested in enumerate(inner))
    inner = draw(st.sampled_from([f'{{{id_}:"d1",{a}:1.5}}', f"{{{id_}:7,{a}:0.25}}", f'{{{a}:2,{id_}:"d2"}}']))
    deep = f"{{{a}:{draw(NUMBERS)},{xs}:[{elements}]}}"
    for name in reversed(words.deep[1:]):
        deep = f"{{{json.dumps(name, ensure_ascii=False)}:{deep}}}"
    members = {
        words["a"]: draw(st.sampled_from(["1", "2.5", "7", "-3.25", "0.0001", "0", "21.75"])),
        words["b"]: json.dumps(draw(st.sampled_from(["x", "d1", "a b", "über"])), ensure_ascii=False),
        words["c"]: draw(st.sampled_from(["true", "false"])),
        words["d"]: inner,
        words["id"]: str(draw(st.sampled_from([0, 7, -7, 2**53 - 1, 1_700_000_000_000, 2**63 - 1]))),
        words["xs"]: f"[{elements}]",
        words["t"]: str(1_700_000_000_000 + draw(st.integers(0, 3))),
        words.deep[0]: deep,
    }
    for key in draw(st.lists(st.sampled_from(words.roles), max_size=2)) if draw(st.booleans()) else []:
        members.pop(key, None)
    if draw(st.integers(0, 3)) == 0:
        members.setdefault(
            "not read", draw(st.sampled_from(['"\\ud83d"', "1e400", '{"a":1,"a":2}', "[NaN]", '"\\u00zz"', "9" * 5000]))
        )
    if spoiled:
        for key in draw(st.lists(st.sampled_from([*words.roles, words.deep[0]]), min_size=1, max_size=2)):
            value = draw(st.one_of(NUMBERS, NUMBERS, json_text(words, 1)))
            members[key] = draw(
                st.sampled_from(
                    [
                        value,
                        value,
                        f"{{{id_}:{value},{a}:{value}}}",
                        f'[{{{a}:{value}}},{{{a}:1,{b}:"x",{id_}:{value}}}]',
                    ]
                )
            )
    pairs = [f"{json.dumps(key, ensure_ascii=False)}:{value}" for key, value in members.items()]
    if spoiled and pairs and draw(st.integers(0, 4)) == 0:
        pairs.append(draw(st.sampled_from(pairs)).replace('":', draw(st.sampled_from(['":', '" :'])), 1))
    return "{" + draw(st.sampled_from([",", ", "])).join(pairs) + "}"


@st.composite
def payloads(draw: Any, words: Words, form: str = "json") -> bytes:
    """Return the bytes of a message in the format `form`."""
    if form not in ("json", "msgpack", "cbor", "avro"):
        payload = draw(OTHER_PAYLOADS[form](words))
        return payload[: draw(st.integers(0, len(payload)))] if draw(st.integers(0, 15)) == 0 else payload
    kind = draw(st.sampled_from("ggggggssssssssoootuj"))
    if kind in "gs":
        text = draw(good_object(words, spoiled=kind == "s"))
    else:
        text = draw(json_text(words) if kind == "j" else json_object(words))
    if form == "json":
        payload = text.encode("utf-8", "surrogatepass")
    elif form == "avro":
        payload = _avro(text, words)
    else:
        payload = WRITERS[form](from_json(text), draw(st.randoms(use_true_random=False)))
    if kind == "t":
        return payload[: draw(st.integers(0, len(payload)))]
    if kind == "u":
        place = draw(st.integers(0, len(payload)))
        return payload[:place] + draw(st.sampled_from([b"\xff", b"\xc3", b"\x00", b"\\", b'"'])) + payload[place:]
    return payload


def avro_schema(words: Words) -> Any:
    """Return a schema of an object of the vocabulary as a record, and of other objects as a map."""

    def anything(depth: int) -> list[Any]:
        scalars = ["null", "boolean", "long", "double", "string"]
        deeper = anything(depth - 1) if depth else scalars
        return [*scalars, {"type": "array", "items": deeper}, {"type": "map", "values": deeper}]

    end: Any = anything(2)
    for number, name in enumerate(filter(None, reversed(words.deep[1:]))):
        end = ["null", {"type": "record", "name": f"Deep{number}", "fields": [{"name": name, "type": end}]}]
    types = {**dict.fromkeys(words.roles, anything(0)), words["xs"]: anything(1), words.deep[0]: end}
    members = [{"name": name, "type": kind, "default": None} for name, kind in types.items() if name]
    return [{"type": "record", "name": "Law", "fields": members}, {"type": "map", "values": anything(1)}, "null"]


def _avro(text: str, words: Words) -> bytes:
    """Return what the schema has room for of a JSON text, in Avro; the text as it is, if that is nothing."""
    options = {"schema": avro_schema(words)}

    def encoded(tree: Any) -> bytes | None:
        with suppress(RecordError):
            return PAYLOADS["avro"].encode(tree, options)
        return None

    try:
        tree = json.loads(text)
    except ValueError:
        return text.encode("utf-8", "surrogatepass")
    payload = encoded(tree)
    if payload is None and isinstance(tree, dict):
        payload = encoded({name: value for name, value in tree.items() if encoded({name: value}) is not None})
    return text.encode("utf-8", "surrogatepass") if payload is None else payload


_CELLS = st.one_of(NUMBERS, TEXTS).filter(lambda text: not set(text) & set(',"\n\\'))
_LINES = st.sampled_from(
    [
        "m,d=x f=1,g=2i,h=\"x\",t=true 1700000000000", "m a=1.5", "m,id=d1 id=7i,a=9007199254740993i,b=\"lf\n\" -5", "# x", "", "m f=1e400",
        "m,=x f=1", "m f=18446744073709551615u 7", "m f=7u,g=2i,h=0u,id=3u 8", "über,class=a\\ b lambda=0.1,日本=\"é\" 1", "m f=1,f=2", "m", "m f=t", "m f=1 5\r", "\ufeffm f=1 6", "\r",
    ]
)  # fmt: skip


def _csv(words: Words) -> Any:
    cells = _CELLS | st.sampled_from(['"1,5"', '"-0,25e1"', '"9007199254740993,0"', ' "x" ', "#", "1.5"])
    row = st.lists(cells, min_size=len(_ROLES) - 1, max_size=len(_ROLES)).map(",".join)
    header = st.just(",".join(json.dumps(name, ensure_ascii=False).replace('\\"', '""') for name in words.roles))
    return st.builds(lambda first, rows: "\n".join([first, *rows]).encode(), header, st.lists(row, max_size=3))


_PROTOBUF_NUMBERS = st.sampled_from([0, 1, 7, 2**53, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1, 1_700_000_000_000])
_PROTOBUF_FLOATS = st.sampled_from([0.0, -0.0, 1.0, 7.0, 3.7, 1e16, -1e17, 2.0**53, 5e-324, math.nan, math.inf])


@st.composite
def _protobuf(draw: Any, depth: int = 1) -> bytes:
    """Return a message of tests/cases/protobuf/law.proto; most have what documents read, of its type."""
    scalar = st.one_of(st.booleans(), TEXTS, _PROTOBUF_FLOATS)
    drawn = {
        1: (2, st.one_of(st.none(), scalar, st.lists(scalar, max_size=2)).map(struct_value)),
        2: (2, st.one_of(st.sampled_from(["x", ""]), TEXTS).map(lambda text: text.encode("utf-8", "replace"))),
        3: (0, st.booleans().map(varint)),
        5: (0, _PROTOBUF_NUMBERS.map(varint)),
        7: (0, _PROTOBUF_NUMBERS.map(varint)),
        10: (0, st.sampled_from([0, 1, 2]).map(varint)),
        40: (0, st.just(b"\1")),  # the schema does not declare it
        11: (2, st.tuples(TEXTS, _PROTOBUF_FLOATS).map(_map_entry)),
        12: (1, _PROTOBUF_FLOATS.map(lambda x: struct.pack("<d", x))),
    }
    inner = _protobuf(depth - 1) if depth else st.just(b"")
    drawn |= dict.fromkeys((4, 6, 8, 9), (2, inner))
    good = {
        1: st.sampled_from([7.0, 3.7, -0.5]).map(struct_value),
        2: st.sampled_from([b"x", b"y z"]),
        3: st.booleans().map(varint),
        5: st.sampled_from([1, 7, 2**53 + 1]).map(varint),
        7: st.sampled_from([0, 3_400_000_000_000]).map(varint),
    }
    parts = []
    if draw(st.integers(0, 3)):
        parts = [tagged(number, drawn[number][0], draw(value)) for number, value in good.items()]
        parts += [tagged(number, 2, draw(inner)) for number in (4, 6, 6) if depth]
    for number in draw(st.lists(st.sampled_from(sorted(drawn)), max_size=2 if parts else 6)):
        wire, content = drawn[number]
        parts.append(tagged(number, wire, draw(content)))
    return b"".join(parts)


def _map_entry(pair: tuple[str, float]) -> bytes:
    return tagged(1, 2, pair[0].encode("utf-8", "replace")) + tagged(2, 1, struct.pack("<d", pair[1]))


_XML = st.sampled_from(
    [
        '<d id="d1"><a>7</a><id>3</id><b>x</b></d>', "<d><a>7.5</a><a>2</a></d>", "<a>-7</a>", "<b/>", "<d", "<xs><a>1</a><b> x </b></xs>",
        '<d xmlns="u"><xs><a>1</a></xs><xs><a>n/a</a></xs></d>', "<!DOCTYPE d [<!ENTITY a '7'>]><d><a>&a;</a></d>", "<c>true</c>",
    ]
)  # fmt: skip
_LOGFMT = st.lists(
    st.sampled_from(["a=7", "a=7.5", "id=3", 'b="x y"', "b=x", "c", "c=true", "t=1700000000000", 'd="', "a=9007199254740993.0", 'xs="\\u00e9"'])
)  # fmt: skip
OTHER_PAYLOADS: dict[str, Any] = {
    "protobuf": lambda _: _protobuf(),
    "xml": lambda _: _XML.map(str.encode),
    "logfmt": lambda _: _LOGFMT.map(lambda pairs: " ".join(pairs).encode()),
    "csv": _csv,
    "influx": lambda _: st.lists(_LINES, max_size=3).map(lambda lines: "\n".join(lines).encode()),
    "text": lambda _: st.lists(_CELLS, max_size=3).map(lambda words: " ".join(words).encode()),
    "raw": lambda _: st.binary(max_size=9),
}


@st.composite
def messages(draw: Any, words: Words, form: str = "json", most: int = 6) -> list[Message]:
    """Return a batch."""
    found = draw(st.lists(payloads(words, form), max_size=most))
    headers = st.dictionaries(
        st.sampled_from(["k", "t"]), st.sampled_from([1, 2.5, "x", "", True, b"\x00\x01"]), max_size=2
    )
    return [
        Message(
            payload,
            stream="s",
            topic=draw(st.sampled_from(["t", "u v"])),
            partition=number % 2,
            offset=draw(st.integers(0, 2000)),
            timestamp_us=draw(st.sampled_from([0, 1_700_000_000_000_000, 2**63 // 1000 + 5])),
            headers=draw(headers),
        )
        for number, payload in enumerate(found)
    ]


PATHS = [
    "{a}", "{b}", "{c}", "{d}.{id}", "{d}.{a}", "{id}", "{xs}", "{t}", "{deep}.{a}", "{deep}", "root().{a}", "root().{d}.{id}",
    "root().{b}", "root().{deep}.{a}", "meta('topic')", "meta('offset')",
    "header('k')", "index()", "@", "{xs}[0].{a}", "upper({b})", "add({a}, `1`)", "not_null({a}, {id})", "length({b})", "{a} || {id}",
    "{d}", "@.{a}", "join('-', [{b}, {b}])", "type({a})", "{xs}[].{a} | [0]", "{deep}.{xs}[0].{a}",
]  # fmt: skip
STATIC_PATHS = PATHS[:14]
CONDITIONS = [
    "{a} != `null`",
    "{b} == 'x'",
    "{c}",
    "length(keys(@)) > `1`",
    "{d} != `null`",
    "{xs}",
    "{b} != 'x'",
    "{a} > `1`",
    "root().{a}",
    "{deep}.{a} != `null`",
]
TIME_FORMATS = ["unix_s", "unix_ms", "unix_us", "unix_ns", "rfc3339", "%Y-%m-%d", "flexible"]


STATIC_CONDITIONS = [
    "{a} != `null`", "{b} == 'x'", "{c}", "{d} != `null`", "{b} != 'x'", "{d}.{id} == 'd1'", "{deep}.{a} != 'x'",
    "{deep} != `null`",
]  # fmt: skip
LISTS = ["{xs}[]", "{xs}", "{xs}[*]", "{deep}.{xs}", "{deep}.{xs}[]"]
MORE_LISTS = ["{xs}[?{a}]", "@.{xs}[]", "[@, @]", "{d}.{xs}[]", "items(@)", "{d}", "{deep}"]
INNER_LISTS = ["{xs}", "{xs}", "{xs}[]", "{d}.{xs}"]
MORE_INNER_LISTS = ["[@]", "root().{xs}", "{xs}[?{a}]", "[@, root()]", "index()", "parent().{xs}", "parent()", "{a}"]
PARENT_PATHS = ["parent().{a}", "parent().{id}", "parent().{d}.{id}", "parent().{b}", "parent(`2`).{a}"]
MORE_PARENT_PATHS = [
    "parent()",
    "add({a}, parent().{a})",
    "length(parent().{xs})",
    "parent(`2`)",
    "[parent(), @][0].{id}",
]


@st.composite
def lists(draw: Any, words: Words, plain: bool, outside: int) -> tuple[list[str] | str, int]:
    """Return a `for_each` inside so many others, and how many lists lead to its elements."""
    found = []
    for number in range(draw(st.sampled_from([1, 1, 2, 2, 3]))):
        first, more = (INNER_LISTS, MORE_INNER_LISTS) if outside + number else (LISTS, MORE_LISTS)
        found.append(words.path(draw(st.sampled_from(first if plain else first + more))))
    return found[0] if len(found) == 1 and draw(st.booleans()) else found, outside + len(found)


@st.composite
def documents(draw: Any, words: Words, form: str = "json") -> dict[str, Any]:
    """Return a writer document as a tree; not every one compiles.  Half of them have plain paths only."""
    plain = draw(st.booleans())
    conditions = st.sampled_from(STATIC_CONDITIONS if plain else CONDITIONS).map(words.path)
    document: dict[str, Any] = {"iggyflux": 1, "kind": "writer", "name": "law", "from": {"stream": "s", "topic": "t"}}
    if not plain and draw(st.integers(0, 5)) == 0:
        document["from"]["strict"] = True
    if draw(st.integers(0, 4)) == 0:
        document["from"]["on_bad_value"] = "omit"
    if draw(st.integers(0, 9)) == 0:
        document["from"]["compression"] = draw(st.sampled_from(["auto", "gzip", "zlib", "zstd", "lz4", "snappy"]))
    if form != "json" or draw(st.integers(0, 9)) == 0:
        options = {"schema": avro_schema(words)} if form == "avro" else OPTIONS.get(form, {})
        options = draw(st.sampled_from(CSV_OPTIONS)) if form == "csv" else options
        written = {"format": form, **options}
        needs_options = form in ("avro", "protobuf")
        document["from"]["payload"] = written if needs_options else draw(st.sampled_from([form, written]))
    if draw(st.integers(0, 4)) == 0:
        document["where"] = draw(conditions)
    depth = 0
    if draw(st.integers(0, 2)) == 0:
        document["for_each"], depth = draw(lists(words, plain, 0))
    if form in ("csv", "influx") and draw(st.integers(0, 7)):
        document["for_each"], depth = draw(st.sampled_from(["@", "[]", "[*]"])), 1
    if draw(st.booleans()):
        document["collisions"] = draw(st.sampled_from(["error", "merge", "keep_last"]))
    if draw(st.integers(0, 2)) < 2:
        document["invalid_names"] = "replace"
    if draw(st.integers(0, 9)) == 0:
        document["to"] = {"bucket": draw(st.sampled_from([{"const": "in {0}"}, words.path("{b}"), "meta('topic')"]))}
    document["points"] = draw(st.lists(points(words, depth, conditions, plain), min_size=1, max_size=2))
    return document


def _names(usual: list[str], words: Words) -> Any:
    """Return names of tags or fields: usual ones, those of the vocabulary, and any."""
    return st.one_of(st.sampled_from(usual), st.sampled_from(words.roles), NAMES).filter(lambda name: "*" not in name)


def _paths(plain: bool, depth: int) -> list[str]:
    """Return the paths of expressions inside so many lists."""
    known = STATIC_PATHS if plain else PATHS
    if depth > 1:
        known = known + PARENT_PATHS[: 4 if depth == 2 else None] * 2
        known = known if plain else known + MORE_PARENT_PATHS[: 3 if depth == 2 else None]
    return known


@st.composite
def points(draw: Any, words: Words, depth: int, conditions: Any, plain: bool) -> dict[str, Any]:
    """Return an item of `points` inside so many lists; a fourth of them have lists of their own."""
    stars, own = not plain, None
    if draw(st.integers(0, 3)) == 0:
        own, depth = draw(lists(words, plain, depth))
    paths = st.sampled_from(_paths(plain, depth)).map(words.path)
    names = [
        {"const": "m"},
        {"const": "m"},
        {"const": draw(NAMES) or "m"},
        words.path("{b}"),
        "meta('topic')",
        words.path("{d}.{id}"),
    ]
    point: dict[str, Any] = {"measurement": draw(st.sampled_from(names))}
    if own is not None:
        point["for_each"] = own
    if draw(st.integers(0, 4)) == 0:
        point["to"] = {draw(st.sampled_from(["bucket", "database"])): draw(st.sampled_from(names))}
    if draw(st.integers(0, 4)) == 0:
        point["where"] = draw(conditions)
    constant = st.fixed_dictionaries({"const": st.sampled_from(["x", 7, "a b"])})
    tags: dict[str, Any] = {}
    for key in draw(st.lists(_names(["t", "site", "a b", "z"], words), max_size=3, unique=True)):
        tags[key] = draw(st.one_of(paths, constant, tag(paths)))
    if stars and draw(st.integers(0, 5)) == 0:
        tags["*"] = draw(
            st.sampled_from([words.path("{d}"), words.path("{xs}[0]"), {"expr": words.path("{d}"), "flatten": "_"}])
        )
    if tags:
        point["tags"] = tags
    point["fields"] = draw(_fields(words, depth, paths, stars, "*" in tags))
    if draw(st.integers(0, 3)):
        point["timestamp"] = draw(timestamps(words))
    return point


@st.composite
def _fields(draw: Any, words: Words, depth: int, paths: Any, stars: bool, has_tag_star: bool) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for key in draw(st.lists(_names(["f", "g", "h", "i j"], words), min_size=not stars, max_size=4, unique=True)):
        fields[key] = draw(st.one_of(st.sampled_from(["{a}", "{d}.{a}"]).map(words.path), paths, field(paths)))
    if stars and (not has_tag_star or not fields or draw(st.booleans())) and (draw(st.booleans()) or not fields):
        wholes = ["@", "{d}", "root().{d}", "{deep}", *(["parent()"] if depth > 1 else [])]
        star: Any = words.path(draw(st.sampled_from(wholes)))
        if draw(st.booleans()):
            star = {"expr": star, "flatten": draw(st.sampled_from(["_", "."]))}
            if draw(st.booleans()):
                star[draw(st.sampled_from(["include", "exclude"]))] = draw(
                    st.sampled_from([["a*"], ["*d", "b"], ["p_*"], [words["a"] or "x"]])
                )
            if draw(st.booleans()):
                kind = draw(st.sampled_from(["integer", "unsigned", "float", "string", "auto", "payload"]))
                star |= {"cast": kind != "payload", "type": kind}
            elif draw(st.booleans()):
                star["cast"] = "numbers"
            if draw(st.booleans()):
                star["on_bad_value"] = draw(st.sampled_from(["omit", "fail"]))
        fields[draw(st.sampled_from(["*", "p_*"]))] = star
    return fields


@st.composite
def timestamps(draw: Any, words: Words) -> dict[str, Any]:
    timestamp: dict[str, Any] = {
        "expr": words.path(
            draw(st.sampled_from(["{t}", "{t}", "{id}", "{a}", "root().{id}", "{b}", "meta('timestamp')"]))
        ),
        "format": draw(st.sampled_from(["unix_ms", *TIME_FORMATS])),
    }
    if timestamp["format"] in ("%Y-%m-%d", "flexible"):
        timestamp["timezone"] = draw(st.sampled_from(["UTC", "Europe/Berlin"]))
    if timestamp["format"] == "flexible":
        if draw(st.booleans()):
            timestamp["dayfirst"] = draw(st.booleans())
        if draw(st.booleans()):
            del timestamp["timezone"]
    if draw(st.integers(0, 4)) == 0:
        timestamp["spread"] = draw(st.sampled_from(["offset", "index"]))
        if timestamp["spread"] == "offset" and draw(st.booleans()):
            timestamp["partitions"] = draw(st.sampled_from([1, 2, 3, 1000]))
    if draw(st.integers(0, 2)) == 0:
        timestamp["default"] = "message"
    return timestamp


@st.composite
def tag(draw: Any, paths: Any) -> dict[str, Any]:
    item: dict[str, Any] = {"expr": draw(paths)}
    kind = draw(st.sampled_from(["default", "required", "plain"]))
    if kind == "default":
        item["default"] = draw(st.sampled_from([7, 2.5, "x", True]))
    elif kind == "required":
        item["required"] = True
    return item


DEFAULTS: dict[str, list[Any]] = {
    "float": [0.5, 7, -1e-7],
    "integer": [0, -7],
    "unsigned": [0, 2**64 - 1],
    "string": ["", 'say "hi"', "x"],
    "boolean": [True, False],
    "auto": [1.5, "x", True],
    "payload": [1.5, "x", True, 7],
}


@st.composite
def field(draw: Any, paths: Any) -> dict[str, Any]:
    item: dict[str, Any] = {"expr": draw(paths)}
    kind = draw(st.sampled_from(list(DEFAULTS)))
    if draw(st.booleans()) or kind != "float":
        item["type"] = kind
    if draw(st.booleans()):
        item["cast"] = draw(
            st.sampled_from({"auto": [False, True, "numbers"], "payload": [False]}.get(kind, [False, True]))
        )
    if draw(st.integers(0, 2)) == 0:
        item["on_bad_value"] = draw(st.sampled_from(["omit", "omit", "fail"]))
    more = draw(st.sampled_from(["default", "required", "plain"]))
    if more == "default":
        item["default"] = draw(st.sampled_from(DEFAULTS[kind]))
    elif more == "required":
        item["required"] = True
    return item


def compiled(document: dict[str, Any] | str) -> WriterMapping | ReaderMapping:
    """Return the mapping of a tree or a text; the files that it names are those of tests/cases/protobuf."""
    text = document if isinstance(document, str) else as_yaml(document)
    return parse_mapping(text, format="yaml", file=str(Path(__file__).parent / "cases/protobuf/law.yaml"))


def as_yaml(document: dict[str, Any]) -> str:
    """Return the tree as a document; characters that YAML allows only as escapes are escaped."""
    text = json.dumps(document, ensure_ascii=False)
    return "".join(letter if letter.isprintable() else f"\\u{ord(letter):04x}" for letter in text)


FORMATS = ["json"] * 12 + ["msgpack", "cbor", "avro"] * 3 + ["csv", "influx", "text", "raw", "xml", "logfmt"]
FORMATS += ["protobuf"] * 2
CSV_OPTIONS: list[dict[str, Any]] = [
    {}, {"trim": True}, {"comment": "#"}, {"skip": 1, "trim": True}, {"units_row": True}, {"decimal": ","},
    {"encoding": "windows-1252"}, {"encoding": "utf-16"},
]  # fmt: skip
OPTIONS = {
    "xml": {"lists": ["xs"]},
    "text": {"pattern": r"^(?P<lambda>\S*)(?: (?P<class>\S*))?"},
    "influx": {"precision": "ms"},
    "protobuf": {"proto": "law.proto", "message": "law.Case"},
}
# The names that a format itself gives to its members.
OWN_NAMES = {
    "influx": ("time", "measurement", "global", "fields", "d", "tags", "class"),
    "text": ("lambda", "class", "a", "b", "c", "d", "e"),
    "protobuf": ("load", "class", "lambda", "def", "id", "items", "time"),
    "xml": ("a", "b", "c", "d", "id", "xs", "t"),
    "logfmt": ("a", "b", "c", "d", "id", "xs", "t"),
}


@st.composite
def in_encoding(draw: Any, message: Message, encoding: str) -> Message:
    """Return the message with its text in this encoding, or as it is."""
    if not draw(st.integers(0, 4)):
        return message
    text = message.payload.decode("utf-8", "replace")
    return msgspec.structs.replace(message, payload=text.encode(encoding, "replace"))


@st.composite
def cases(draw: Any, forms: Sequence[str] = FORMATS) -> tuple[dict[str, Any], list[list[Message]]]:
    """Return a document, and batches of messages in its vocabulary."""
    form = draw(st.sampled_from(forms))
    vocabulary = draw(words())
    if form in OWN_NAMES:
        vocabulary = Words(OWN_NAMES[form], ("p", "q") if form == "protobuf" else vocabulary.deep)
    document = draw(documents(vocabulary, form))
    batches = draw(st.lists(messages(vocabulary, form), min_size=1, max_size=3))
    payload = document["from"].get("payload")
    if isinstance(payload, dict) and form == "csv" and "encoding" in payload:
        batches = [[draw(in_encoding(each, payload["encoding"])) for each in batch] for batch in batches]
    way = document["from"].get("compression")
    return document, batches if way is None else [[draw(compressed(each, way)) for each in batch] for batch in batches]


@st.composite
def compressed(draw: Any, message: Message, way: str) -> Message:
    """Return the message with its payload compressed, in three of four cases as `way` has it."""
    way = way if draw(st.integers(0, 3)) and way != "auto" else draw(st.sampled_from(["none", *COMPRESSIONS]))
    payload = compress(message.payload, way)
    if draw(st.integers(0, 7)) == 0:
        payload = draw(st.sampled_from([payload[: len(payload) // 2], payload * 2, payload + b"{}", b"{}" + payload]))
    return msgspec.structs.replace(message, payload=payload)


@st.composite
def pipeline_tags(draw: Any, document: dict[str, Any], batches: Sequence[Sequence[Message]]) -> dict[str, str]:
    """Return tags of a pipeline: half of their names are in the document or in a payload."""
    near = {str(key) for point in document["points"] for key in point.get("tags", ())}
    for message in (message for batch in batches for message in batch):
        try:
            found = json.loads(message.payload)
        except (ValueError, RecursionError):
            continue
        for value in (found, *(found.values() if isinstance(found, dict) else ())):
            near.update(value if isinstance(value, dict) else ())
    names = st.one_of(st.sampled_from(sorted(near)), NAMES) if near else NAMES
    drawn = draw(st.lists(st.tuples(names, TEXTS), max_size=3, unique_by=lambda pair: pair[0]))
    return {key: text for key, text in drawn if _is_tag(key, text)}


def _is_tag(key: str, text: str) -> bool:
    try:
        check_tag(key, text)
    except PointError:
        return False
    return True
