"""Plans: every awkward value in every place, by table; what a batch mixes; what plans share and carry.

`test_law.py` draws documents and messages at random.  This file enumerates the values that one place can have, so that
a fault in a column function shows every time.
"""

from __future__ import annotations

import gc
import json
import pickle
import threading
import tracemalloc
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iggyflux import Message, parse_mapping
from iggyflux.plan import reference
from iggyflux.records import LazyMessages
from iggyflux.values import rounded_numbers
from tests.test_law import outcome

NUMBERS = [
    "0", "-0", "7", "-7", "7.0", "-0.0", "1e3", "1E-7", "0.00001", "0.0001", "1.5e-5", "1e15", "1e16", "123456789012345680.0",
    "3.7", "0.1", "9007199254740991", "9007199254740992", "9007199254740993", "-9007199254740993", "9007199254740994.0",
    "9223372036854775807", "9223372036854775808", "-9223372036854775808", "-9223372036854775809",
    "18446744073709551615", "18446744073709551616", "1e400", "-1e400", "5e-324", "1" + "0" * 400, "1.", "01", "-", "NaN", "1e",
]  # fmt: skip
TEXTS = [
    "", "x", "7", "7.0", "1e3", " 7", "true", "false", "a,b", "a=b", "a b", "a\\", "a\\b", 'say "hi"', "lf\n", "\x00", "\x7f",
    "time", "_field", "#x", "über", "日本", "a" * 20_000, "ü" * 40_000, "9007199254740993.0", "2024-01-01T00:00:00Z",
]  # fmt: skip
VALUES = [
    *NUMBERS,
    *(json.dumps(text, ensure_ascii=False) for text in TEXTS),
    '"\\u0041"', '"\\ud800"', "true", "false", "null", "[]", "[1]", "{}", '{"a":1}', '{"a":1,"a":2}', "", "tru",
]  # fmt: skip
GOOD = '{"a":1.5,"b":"x","t":1700000000000}'


def payloads(value: str) -> list[bytes]:
    """Yield a value as the member `a`: alone, spaced, twice, and beside members that are not read."""
    return [
        f'{{"a":{value},"b":"x","t":1700000000000}}'.encode(),
        f'{{ "b" : "x", "a" : {value}, "t":1700000000000 }}'.encode(),
        f'{{"a":1,"b":"x","t":1700000000000,"a":{value}}}'.encode(),
        f'{{"a":1,"b":"x","t":1700000000000,"a" :{value}}}'.encode(),
        f'{{"a":1,"b":"x","t":1700000000000,"\\u0061":{value}}}'.encode(),
        f'{{"a":1,"b":"y","t":1700000000000,"a":{value}}}'.encode(),
        f'{{"a":1,"b":"x","t":1700000000000,"unread":{value}}}'.encode(),
        f'{{"a":{{"b":{value}}},"a_b":{value},"b":"x","t":1700000000000}}'.encode(),
    ]


BATCH = [Message(payload, offset=number) for number, payload in enumerate(p for v in VALUES for p in payloads(v))]
FIELDS = [
    {"expr": "a", **({"type": kind} if kind else {}), **({"cast": True} if cast else {}), **more}
    for kind in ("", "integer", "unsigned", "string", "boolean", "auto")
    for cast in (False, True)
    for more in ({}, {"required": True})
]
PLACES = {
    **{f"field {json.dumps(item)[13:-1]}": {"fields": {"f": item}} for item in FIELDS},
    "default": {"fields": {"f": {"expr": "a", "default": 7.5}}},
    "tag": {"tags": {"t": "a"}, "fields": {"b": {"expr": "b", "type": "string"}}},
    "tag, replaced": {"tags": {"t": "a"}, "fields": {"b": {"expr": "b", "type": "string"}}},
    "tag with default": {"tags": {"t": {"expr": "a", "default": "none"}}, "fields": {"b": {"const": 1}}},
    "measurement": {"measurement": "a", "fields": {"b": {"expr": "b", "type": "string"}}},
    "two fields": {"fields": {"f": "a", "b": {"expr": "b", "type": "string"}}},
    "star": {"fields": {"*": "@"}},
    "star and a named field": {"fields": {"*": "@", "a": "t", "b": {"expr": "b", "type": "string"}}},
    "star and a tag of its name": {"tags": {"a": {"const": "x"}}, "fields": {"*": "@"}},
    "star flattened": {"fields": {"*": {"expr": "@", "flatten": "_"}}},
    "star of it": {"tags": {"*": {"expr": "a", "flatten": "."}}, "fields": {"b": {"expr": "b", "type": "string"}}},
    **{
        f"time {form}": {
            "fields": {"b": {"expr": "b", "type": "string"}},
            "timestamp": {"expr": "a", "format": form, **default},
        }
        for form in ("unix_s", "unix_ms", "unix_us", "unix_ns", "rfc3339")
        for default in ({}, {"default": "message"})
    },
}


def document(place: str, where: str | None = None) -> dict:
    point = {"measurement": {"const": "m"}, "timestamp": {"expr": "t", "format": "unix_ms"}, **PLACES[place]}
    tree = {"iggyflux": 1, "kind": "writer", "from": {"stream": "s", "topic": "t"}, "points": [point]}
    if where:
        tree["where"] = where
    if place.endswith("replaced"):
        tree["invalid_names"] = "replace"
    return tree


@pytest.mark.parametrize("where", ["b == 'x'", "length(keys(@)) > `0`"], ids=["static", "dynamic"])
@pytest.mark.parametrize("place", PLACES)
def test_every_value_in_every_place(place, where):
    """All of them in one batch; and each beside a valid message or one without the member, half of them in each case."""
    mapping = parse_mapping(json.dumps(document(place, where)), name="m", format="yaml")
    good, missing = Message(GOOD.encode(), offset=9999), Message(b'{"b":"x","t":1700000000000}', offset=9998)
    for dialect, precision in (("v2", "ns"), ("v1", "s") if "b ==" in where else ("v3", "us")):
        compiled = mapping.plan(dialect=dialect, precision=precision)
        reference = mapping.plan("reference", dialect=dialect, precision=precision)
        assert outcome(compiled.render(BATCH)) == outcome(reference.render(BATCH))
        if dialect == "v2":
            turn = zlib.crc32(place.encode()) + ("b ==" in where)
            for number, message in enumerate(BATCH):
                if (number + number // 8 + turn) % 2:  # the other half of the values has the other `where`
                    batch = [(good, missing)[(number // 2 + turn // 2) % 2], message]
                    assert outcome(compiled.render(batch)) == outcome(reference.render(batch)), message.payload[:200]


NESTED = """
iggyflux: 1
kind: writer
name: nested
from: {stream: s, topic: t}
where: 'xs != `null`'
for_each: 'xs[]'
collisions: %s
points:
  - {measurement: {const: m}, tags: {d: root().d.id}, fields: {f: a}, timestamp: {expr: t, format: unix_ms}}
  - {measurement: n, where: 'n != `null`', fields: {g: {expr: a, type: auto}}, timestamp: {expr: t, format: unix_ms}}
"""
ELEMENTS = [
    '{"a":1,"t":1}', '{"a":2,"t":2}', '{"a":1,"t":1,"n":"m"}', '{"a":2.5,"t":1,"n":"k"}', '{"a":null,"t":3}', '{"t":3}',
    '{"a":"x","t":3,"n":"k"}', "null", "[]", '[{"a":9,"t":9}]', "7", '{"a":1,"a":2,"t":4}', '{"a":1,"t":null}',
]  # fmt: skip


@pytest.mark.parametrize("policy", ["error", "merge", "keep_last"])
def test_every_pair_of_elements(policy):
    """for_each with every pair of elements: collisions, duplicate keys, nulls, nested lists, roots of all kinds."""
    mapping = parse_mapping(NESTED % policy)
    roots = ['"d":{"id":"d1"},', '"d":null,', "", '"d":{"id":7,"id":8},', '"d":[1],']
    batch = [
        Message(f'{{{root}"xs":[{first},{second}]}}'.encode(), offset=number)
        for number, (root, first, second) in enumerate((r, f, s) for r in roots for f in ELEMENTS for s in ELEMENTS)
    ]
    batch += [Message(text.encode()) for text in ("{}", '{"xs":null}', '{"xs":[]}', '{"xs":{}}', '{"xs":[null]}', "[]")]
    compiled, reference = mapping.plan(), mapping.plan("reference")

    for message in batch:
        assert outcome(compiled.render([message])) == outcome(reference.render([message])), message.payload
    assert outcome(compiled.render(batch)) == outcome(reference.render(batch))


def test_a_deep_payload_fails_in_both_and_a_large_one_passes():
    """Depth and size are checked on the bytes; 20 MB that no expression reads do not fail."""
    mapping = parse_mapping(json.dumps(document("default")), name="m", format="yaml")
    deep = b'{"a":1,"t":1,"x":' + b"[" * 127 + b"]" * 127 + b"}"
    deeper = b'{"a":1,"t":1,"x":' + b"[" * 128 + b"]" * 128 + b"}"
    large = b'{"a":1,"t":1,"x":"' + b"y" * 20_000_000 + b'"}'
    batch = [Message(payload) for payload in (deep, deeper, large, b'{"a":1,"t":1,"x":"' + b"[" * 500 + b'"}')]
    rendered = mapping.plan().render(batch)

    assert list(rendered.origins) == [0, 2, 3]
    assert [failure.code for failure in rendered.failures] == ["IFX403"]
    assert outcome(rendered) == outcome(mapping.plan("reference").render(batch))


def test_bytes_that_are_not_utf8_fail_only_their_own_message():
    """Two halves of a character in neighbouring messages do not make one."""
    mapping = parse_mapping(json.dumps(document("default")), name="m", format="yaml")
    batch = [
        Message(b'{"a":1,"t":1,"x":"\xc3"}'),
        Message(b'{"a":1,"t":1,"x":"\xbc"}'),
        Message('{"a":1,"t":1,"x":"ü"}'.encode()),
    ]
    rendered = mapping.plan().render(batch)

    assert list(rendered.origins) == [2]
    assert outcome(rendered) == outcome(mapping.plan("reference").render(batch))


def test_messages_are_never_joined():
    """Three invalid messages that would join into three valid ones are three failures (LANGUAGE 24)."""
    mapping = parse_mapping(json.dumps(document("default")), name="m", format="yaml")
    batch = [Message(payload) for payload in (b'{"a":1,"x":[{}', b"{}]}", b'{"a":8,"t":1},{"a":9,"t":1}')]

    assert [failure.index for failure in mapping.plan().render(batch).failures] == [0, 1, 2]


def test_threads_share_a_plan():
    """Entries of memos never change: eight threads render the same as one."""
    mapping = parse_mapping(json.dumps(document("tag")), name="m", format="yaml")
    plan = mapping.plan()
    batches = [
        [Message(f'{{"a":"d{n % 40}","b":"{n}","t":{n + 1}}}'.encode()) for n in range(k, k + 200)] for k in range(8)
    ]
    expected = [outcome(mapping.plan().render(batch)) for batch in batches]
    found: dict[int, list] = {}
    threads = [
        threading.Thread(target=lambda k=k, batch=batch: found.update({k: outcome(plan.render(batch))}))
        for k, batch in enumerate(batches)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [found[k] for k in range(8)] == expected


LONG_TAGS = {
    "named": ("{device: d}", '{"d":"%s","v":1,"t":1}'),
    "of a measurement": ("{}", '{"m":"%s","v":1,"t":1}'),
    "of a star": ("{'*': o}", '{"o":{"a":"%s"},"v":1,"t":1}'),
    "of a star, each with a name of its own": ("{'*': o}", '{"o":{"%.900s":"x"},"v":1,"t":1}'),
    "beside many names": ("{'*': o}", '{"o":{"a%d":"%s"},"v":1,"t":1}'),
}


@pytest.mark.parametrize("name", LONG_TAGS)
def test_memory_stays_flat_however_long_and_many_tags_are(name):
    """Memos are bounded in characters too: 30 MB of unique tags leave no more memory in use than 10 MB."""
    tags, payload = LONG_TAGS[name]
    measurement = "m" if name == "of a measurement" else "{const: m}"
    plan = parse_mapping(
        "iggyflux: 1\nkind: writer\nfrom: {stream: s, topic: t}\npoints:\n"
        f"  measurement: {measurement}\n  tags: {tags}\n  fields: {{v: v}}\n  timestamp: {{expr: t, format: unix_s}}\n"
    ).plan()

    def render(first):
        batch = []
        for n in range(first, first + 1000):
            text = f"{n:08d}" + "x" * 4992
            batch.append(Message((payload % ((n, text) if payload.count("%") == 2 else text)).encode()))
        assert len(plan.render(batch).lines) == 1000

    gc.collect()
    tracemalloc.start()
    try:
        for k in range(2):
            render(k * 1000)
        before = tracemalloc.get_traced_memory()[0]
        for k in range(2, 6):
            render(k * 1000)
        after = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()

    assert after < 25_000_000
    assert after - before < 10_000_000


def test_a_mapping_pickles_and_its_plan_is_made_after_unpickling():
    """So other engines can send it to their workers."""
    mapping = parse_mapping(json.dumps(document("two fields")), name="m", format="yaml")
    landed = pickle.loads(pickle.dumps(mapping))

    assert (landed, landed.hash) == (mapping, mapping.hash)
    assert outcome(landed.plan().render([Message(GOOD.encode())])) == outcome(
        mapping.plan().render([Message(GOOD.encode())])
    )


def test_an_empty_batch_makes_nothing():
    """No message, no line."""
    plan = parse_mapping(json.dumps(document("tag")), name="m", format="yaml").plan()

    assert outcome(plan.render([])) == [[]] * 8


def test_an_unknown_kind_of_plan_is_rejected():
    """The error lists the known kinds."""
    mapping = parse_mapping(json.dumps(document("tag")), name="m", format="yaml")

    with pytest.raises(ValueError, match="'compiled' or 'reference'"):
        mapping.plan("fast")


FLAT = """
iggyflux: 1
kind: writer
name: flat
from: {stream: s, topic: t, payload: json}
points:
  - measurement: {const: m}
    tags: {d: d}
    fields: {a: a}
    timestamp: {expr: ts, format: unix_s}
"""
USUAL = ['"d": "x"', '"a": 1.5', '"ts": 7', '"x": 1', '"y": "p"']
OTHERS = ['"x" : 2', '"\\u0061": 2', '"y": "q\\": 1"', '"z": {"a": 1}']
MEMBERS = st.lists(st.sampled_from(USUAL + OTHERS), min_size=1, max_size=3)
BATCHES = st.lists(st.tuples(st.sets(st.sampled_from(USUAL[3:])), st.just([]) | MEMBERS), min_size=1, max_size=3)


@settings(max_examples=600, deadline=None)
@given(st.lists(BATCHES, min_size=1, max_size=3))
def test_duplicate_keys_are_found_beside_members_that_are_not_read(batches):
    """Rule 26.  Most messages have the keys of the first one; any may have a duplicate key, lack one or have another."""
    mapping = parse_mapping(FLAT)
    compiled, reference = mapping.plan("compiled"), mapping.plan("reference")
    for batch in [[(set(), [])], *batches]:
        members = [[*(each for each in USUAL if each not in lacking), *more] for lacking, more in batch]
        messages = [Message(f"{{{', '.join(each)}}}".encode()) for each in members]

        assert compiled.render(messages) == reference.render(messages)


@pytest.mark.parametrize(
    "name", ["list", "str", "float", "int", "bool", "Any", "Annotated", "INT64", "Struct", "Payload", "Ab"]
)
def test_a_member_may_have_the_name_of_a_type(name: str) -> None:
    """Generated code does not use names of the document."""
    mapping = parse_mapping(
        "iggyflux: 1\nkind: writer\nname: n\nfrom: {stream: s, topic: t, payload: json}\n"
        f"for_each: '{name}[]'\n"
        "points:\n  - measurement: {const: m}\n"
        f"    fields: {{a: {name}.{name}, b: {{expr: root().{name[0]}, type: string}}, c: {{expr: c, type: integer}}}}\n"
    )
    payload = json.dumps({name: [{name: {name: 1.5}, "c": 2}]}).encode()

    assert mapping.plan().render([Message(payload)]) == mapping.plan("reference").render([Message(payload)])
    assert list(mapping.plan().render([Message(payload)]).lines) == ["m a=1.5,c=2i 0"]


@pytest.mark.parametrize(
    "key", ["a\\\\u0061", "\\u0001", '\\"', "", "é", "unread0", "class", "\\ud83d\\ude00", "a b", "\\/"]
)
@pytest.mark.parametrize("read", ["unread0", "unread_0", "a"])
def test_a_member_that_is_not_read_may_have_any_name(key, read):
    mapping = parse_mapping(FLAT.replace("{a: a}", f"{{a: {read}}}"))
    compiled, reference = mapping.plan("compiled"), mapping.plan("reference")
    payload = f'{{"d": "x", "{read}": 1.5, "ts": 7, "{key}": 3}}'.encode()
    twice = f'{{"d": "x", "{read}": 1.5, "ts": 7, "{read}": 2.5}}'.encode()
    for _ in range(3):
        batch = [Message(payload), Message(twice), Message(payload)]

        assert compiled.render(batch) == reference.render(batch)
        assert compiled.render([Message(payload)] * 2) == reference.render([Message(payload)] * 2)


def test_a_payload_is_searched_for_rounded_numbers_once_for_each_type(monkeypatch):
    """However many members a star casts: a search for each of them is quadratic and blocks every route."""
    mapping = parse_mapping(
        "iggyflux: 1\nkind: writer\nname: n\nfrom: {stream: s, topic: t}\nfor_each: xs\npoints:\n"
        "  measurement: {const: m}\n  fields: {'*': {expr: '@', type: integer, cast: true}}\n"
    )
    payload = json.dumps({"xs": [{f"k{number}": float(number) for number in range(50)}, {"lambda": True}]}).encode()
    searched = []

    def count(text, kind):
        searched.append(text)
        return rounded_numbers(text, kind)

    monkeypatch.setattr(reference, "rounded_numbers", count)
    rendered = mapping.plan("reference").render([Message(payload)])

    assert (len(rendered.lines), [failure.code for failure in rendered.failures]) == (1, ["IFX340"])
    assert searched.count(payload) == 1
    assert len(searched) <= 2  # the payload and the expression


@pytest.mark.parametrize(("tag", "made"), [("tags: {with: meta('offset')}", 3), ("", 0)])
@pytest.mark.parametrize("place", ["document", "point"])
def test_a_message_is_made_once_and_only_where_something_reads_it(place, tag, made):
    """Not for each of its elements: a source makes a message only when it is asked for."""
    lists = ("for_each: yield\n", "") if place == "document" else ("", "  for_each: yield\n")
    text = (
        f"iggyflux: 1\nkind: writer\nname: n\nfrom: {{stream: s, topic: t}}\n{lists[0]}points:\n"
        f"- measurement: {{const: lambda}}\n{lists[1]}  {tag}\n  fields: {{x: class}}\n"
        "  timestamp: {expr: at, format: unix_s}\n"
    )
    payload = json.dumps({"yield": [{"class": 1.5, "at": number} for number in range(9)]}).encode()
    asked = []

    def make(index, payload):
        asked.append(index)
        return Message(payload, offset=index)

    rendered = parse_mapping(text).plan("compiled").render(LazyMessages([payload] * 3, make))

    assert len(rendered.lines) == 27
    assert len(asked) == made


@given(
    st.lists(st.sampled_from([b'{"class":1,"at":2}', b'{"class":"x","at":2}', b"{", b"\xff"]), min_size=1, max_size=9)
)
def test_only_messages_that_fail_are_made_and_the_times_of_the_others_are_kept(payloads):
    text = (
        "iggyflux: 1\nkind: writer\nname: n\nfrom: {stream: s, topic: t}\npoints:\n"
        "- measurement: {const: lambda}\n  fields: {x: class}\n  timestamp: {expr: at, format: unix_s}\n"
    )
    asked = []

    def make(index, payload):
        asked.append(index)
        return Message(payload, offset=index)

    rendered = parse_mapping(text).plan("compiled").render(LazyMessages(payloads, make))

    failed = [index for index, payload in enumerate(payloads) if not payload.startswith(b'{"class":1')]
    assert {failure.index for failure in rendered.failures} == set(failed) == set(asked)
    assert rendered.times == [2_000_000_000] * len(rendered.lines)


@pytest.mark.parametrize("cast", ["true", "numbers", "false"])
@pytest.mark.parametrize("default", ['"3"', "3", "true", "x y", "2.5"])
def test_a_default_is_what_it_says_whatever_is_cast(cast: str, default: str) -> None:
    """A default that looks like a number stays a string where a value of that text would become a number."""
    mapping = parse_mapping(
        "iggyflux: 1\nkind: writer\nname: n\nfrom: {stream: s, topic: t}\npoints:\n  measurement: {const: p}\n"
        f"  fields: {{kg: {{expr: kg, type: auto, cast: {cast}, default: {default}}}, one: {{const: 1}}}}\n"
        "  timestamp: {expr: at, format: unix_s}\n"
    )
    messages = [Message(b'{"at": 5}'), Message(b'{"at": 6, "kg": "3"}'), Message(b'{"at": 7, "kg": 4}')]

    assert mapping.plan().render(messages) == mapping.plan("reference").render(messages)
