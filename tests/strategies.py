"""Documents and messages for the law: random writer documents, and payloads meant to be awkward for them.

Keys, values and paths come from one small vocabulary, so that documents meet messages that half suit them.  Payloads are
written as text, not by a JSON library, so that they hold what a library would never write: duplicate keys, spaced colons,
escaped keys, numbers of every spelling, bytes that are no UTF-8, and ends that are missing.
"""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

from iggyflux import Message

KEYS = ["a", "b", "c", "d", "id", "xs", "über"]

NUMBERS = st.sampled_from(
    [
        "0", "-0", "7", "-7", "7.0", "-0.0", "1e3", "1E-7", "0.00001", "1e16", "123456789012345680.0", "3.7",
        "9007199254740991", "9007199254740992", "9007199254740993", "-9007199254740993", "9223372036854775807",
        "9223372036854775808", "-9223372036854775808", "18446744073709551615", "18446744073709551616", "1e400", "-1e400",
        "5e-324", "1700000000000", "1700000000.123456789", "1" + "0" * 400, "1.", "01", "NaN",
    ]
)  # fmt: skip
TEXTS = st.sampled_from(
    [
        "", "x", "7", "7.0", "1e3", " 7", "true", "false", "d1", "a,b", "a=b", "a b", "a\\", "a\\b", 'say "hi"', "lf\n", "\x00",
        "time", "_field", "#x", "über", "日本", "2024-01-01T00:00:00Z", "2024-02-30T00:00:00Z", "2024-01-01T00:00:00.5+02:00",
        "1700000000000", "readings", "celsius", "a\":1", ":x", "9007199254740993.0",
    ]
)  # fmt: skip


@st.composite
def json_text(draw: Any, depth: int = 3) -> str:
    """A JSON value as text, mostly valid."""
    kind = draw(st.sampled_from("nnnnsssssbzoooolll" if depth else "nnnsssbz"))
    if kind == "n":
        return draw(NUMBERS)
    if kind == "s":
        return json.dumps(draw(TEXTS), ensure_ascii=draw(st.booleans()))
    if kind == "b":
        return draw(st.sampled_from(["true", "false"]))
    if kind == "z":
        return "null"
    if kind == "l":
        return "[" + ",".join(draw(st.lists(json_text(depth - 1), max_size=3))) + "]"
    return draw(json_object(depth))


@st.composite
def json_object(draw: Any, depth: int = 3) -> str:
    """An object: keys of the vocabulary, sometimes twice, sometimes spelled with escapes."""
    keys = draw(st.lists(st.sampled_from(KEYS), max_size=6, unique=draw(st.sampled_from([True, True, True, False]))))
    colon = draw(st.sampled_from([":", ":", ":", ": ", " :", "\t:"]))
    members = []
    for key in keys:
        name = json.dumps(key, ensure_ascii=False)
        if draw(st.integers(0, 30)) == 0:
            name = '"' + "".join(f"\\u{ord(letter):04x}" for letter in key) + '"'
        members.append(name + colon + draw(json_text(depth - 1)))
    return "{" + ",".join(members) + "}"


@st.composite
def good_object(draw: Any, spoiled: bool = False) -> str:
    """An object that suits most documents of `documents`; with `spoiled`, but for a member or two."""
    members = {
        "a": draw(st.sampled_from(["1", "2.5", "7", "-3.25", "0.0001", "0", "21.75"])),
        "b": json.dumps(draw(st.sampled_from(["x", "d1", "a b", "über"])), ensure_ascii=False),
        "c": draw(st.sampled_from(["true", "false"])),
        "d": draw(st.sampled_from(['{"id":"d1","a":1.5}', '{"id":7,"a":0.25}', '{"a":2,"id":"d2"}'])),
        "id": str(draw(st.sampled_from([0, 7, -7, 2**53 - 1, 1_700_000_000_000, 2**63 - 1]))),
        "xs": "["
        + ",".join(f'{{"a":{number / 4},"id":{number},"b":"x"}}' for number in range(draw(st.integers(0, 3))))
        + "]",
        "über": str(1_700_000_000_000 + draw(st.integers(0, 3))),
    }
    for key in draw(st.lists(st.sampled_from(KEYS), max_size=2)) if draw(st.booleans()) else []:
        members.pop(key, None)
    if spoiled:
        for key in draw(st.lists(st.sampled_from(KEYS), min_size=1, max_size=2)):
            value = draw(st.one_of(NUMBERS, NUMBERS, json_text(1)))
            members[key] = draw(
                st.sampled_from(
                    [value, value, f'{{"id":{value},"a":{value}}}', f'[{{"a":{value}}},{{"a":1,"b":"x","id":{value}}}]']
                )
            )
    pairs = [f"{json.dumps(key, ensure_ascii=False)}:{value}" for key, value in members.items()]
    if spoiled and pairs and draw(st.integers(0, 4)) == 0:
        pairs.append(draw(st.sampled_from(pairs)).replace(":", draw(st.sampled_from([":", " :"])), 1))
    return "{" + draw(st.sampled_from([",", ", "])).join(pairs) + "}"


@st.composite
def payloads(draw: Any) -> bytes:
    """Bytes of a message."""
    kind = draw(st.sampled_from("ggggggssssssssoootuj"))
    if kind in "gs":
        text = draw(good_object(spoiled=kind == "s"))
    else:
        text = draw(json_text() if kind == "j" else json_object())
    payload = text.encode("utf-8", "surrogatepass")
    if kind == "t":
        return payload[: draw(st.integers(0, len(payload)))]
    if kind == "u":
        place = draw(st.integers(0, len(payload)))
        return payload[:place] + draw(st.sampled_from([b"\xff", b"\xc3", b"\x00", b"\\", b'"'])) + payload[place:]
    return payload


@st.composite
def messages(draw: Any, most: int = 6) -> list[Message]:
    """A batch."""
    found = draw(st.lists(payloads(), max_size=most))
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
    "a", "b", "c", "d.id", "d.a", "id", "xs", '"über"', "root().a", "root().d.id", "root().b", "meta('topic')", "meta('offset')",
    "header('k')", "index()", "@", "xs[0].a", "upper(b)", "add(a, `1`)", "not_null(a, id)", "length(b)", "a || id", "d", "@.a",
    "join('-', [b, b])", "type(a)", "xs[].a | [0]",
]  # fmt: skip
STATIC_PATHS = PATHS[:12]
CONDITIONS = [
    "a != `null`",
    "b == 'x'",
    "c",
    "length(keys(@)) > `1`",
    "d != `null`",
    "xs",
    "b != 'x'",
    "a > `1`",
    "root().a",
]
FORMATS = ["unix_s", "unix_ms", "unix_us", "unix_ns", "rfc3339", "%Y-%m-%d", "flexible"]


STATIC_CONDITIONS = ["a != `null`", "b == 'x'", "c", "d != `null`", "b != 'x'", "d.id == 'd1'"]
LISTS = ["xs[]", "xs", "xs[*]"]


@st.composite
def documents(draw: Any) -> dict[str, Any]:
    """A writer document as a tree; not each one compiles.  Half of them are plain paths only."""
    plain = draw(st.booleans())
    paths = st.sampled_from(STATIC_PATHS if plain else PATHS)
    conditions = st.sampled_from(STATIC_CONDITIONS if plain else CONDITIONS)
    document: dict[str, Any] = {"iggyflux": 1, "kind": "writer", "name": "law", "from": {"stream": "s", "topic": "t"}}
    if not plain and draw(st.integers(0, 5)) == 0:
        document["from"]["strict"] = True
    if draw(st.integers(0, 4)) == 0:
        document["where"] = draw(conditions)
    if draw(st.integers(0, 2)) == 0:
        more = [] if plain else ["xs[?a]", "@.xs[]", "[@, @]", "d.xs[]", "items(@)"]
        document["for_each"] = draw(st.sampled_from(LISTS + more))
    if draw(st.booleans()):
        document["collisions"] = draw(st.sampled_from(["error", "merge", "keep_last"]))
    if draw(st.integers(0, 2)) == 0:
        document["invalid_names"] = "replace"
    document["points"] = draw(st.lists(points(paths, conditions, stars=not plain), min_size=1, max_size=2))
    return document


@st.composite
def points(draw: Any, paths: Any, conditions: Any, stars: bool) -> dict[str, Any]:
    names = [{"const": "m"}, {"const": "m"}, {"const": "m"}, "b", "meta('topic')", "d.id"]
    point: dict[str, Any] = {"measurement": draw(st.sampled_from(names))}
    if draw(st.integers(0, 4)) == 0:
        point["where"] = draw(conditions)
    constant = st.fixed_dictionaries({"const": st.sampled_from(["x", 7, "a b"])})
    tags: dict[str, Any] = {}
    for key in draw(st.lists(st.sampled_from(["t", "site", "a b", "z"]), max_size=3, unique=True)):
        tags[key] = draw(st.one_of(paths, constant, tag(paths)))
    if stars and draw(st.integers(0, 5)) == 0:
        tags["*"] = draw(st.sampled_from(["d", "xs[0]", {"expr": "d", "flatten": "_"}]))
    if tags:
        point["tags"] = tags
    fields: dict[str, Any] = {}
    for key in draw(st.lists(st.sampled_from(["f", "g", "h", "i j"]), min_size=not stars, max_size=4, unique=True)):
        fields[key] = draw(st.one_of(st.sampled_from(["a", "d.a"]), paths, field(paths)))
    if stars and ("*" not in tags or not fields) and (draw(st.booleans()) or not fields):
        star: Any = draw(st.sampled_from(["@", "d", "root().d"]))
        if draw(st.booleans()):
            star = {"expr": star, "flatten": draw(st.sampled_from(["_", "."]))}
            if draw(st.booleans()):
                star[draw(st.sampled_from(["include", "exclude"]))] = draw(
                    st.sampled_from([["a*"], ["*d", "b"], ["p_*"]])
                )
        fields[draw(st.sampled_from(["*", "p_*"]))] = star
    point["fields"] = fields
    if draw(st.integers(0, 3)):
        timestamp: dict[str, Any] = {
            "expr": draw(st.sampled_from(['"über"', '"über"', "id", "a", "root().id", "b", "meta('timestamp')"])),
            "format": draw(st.sampled_from(["unix_ms", *FORMATS])),
        }
        if timestamp["format"] in ("%Y-%m-%d", "flexible"):
            timestamp["timezone"] = draw(st.sampled_from(["UTC", "Europe/Berlin"]))
        if draw(st.integers(0, 2)) == 0:
            timestamp["default"] = "message"
        point["timestamp"] = timestamp
    return point


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
}


@st.composite
def field(draw: Any, paths: Any) -> dict[str, Any]:
    item: dict[str, Any] = {"expr": draw(paths)}
    kind = draw(st.sampled_from(list(DEFAULTS)))
    if draw(st.booleans()) or kind != "float":
        item["type"] = kind
    if draw(st.booleans()):
        item["cast"] = draw(st.booleans())
    more = draw(st.sampled_from(["default", "required", "plain"]))
    if more == "default":
        item["default"] = draw(st.sampled_from(DEFAULTS[kind]))
    elif more == "required":
        item["required"] = True
    return item
