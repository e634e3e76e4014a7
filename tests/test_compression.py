"""Compressed payloads: what goes in comes out, and nothing else does anything but fail as one message."""

from __future__ import annotations

import base64
import gzip
import json
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import cramjam
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from shell import iggyflux

from iggyflux.authoring.examples import run_examples
from iggyflux.authoring.generate import generate_messages
from iggyflux.errors import DecodeError, MappingError
from iggyflux.mapping import WriterMapping, parse_mapping
from iggyflux.payloads import compression
from iggyflux.payloads.compression import COMPRESSIONS, compress, expand, expand_all, recognized
from iggyflux.plan import compiled
from iggyflux.records import Message
from iggyflux.spec import Compression

WORDS = b'{"kiln": "north", "heat": 1250.5}'
every_way = pytest.mark.parametrize("way", COMPRESSIONS)
ways = st.sampled_from(COMPRESSIONS)


def refusal(payload: bytes, way: str) -> DecodeError:
    with pytest.raises(DecodeError) as refused:
        expand(payload, way)
    return refused.value


def writer(way: str, payload: str = "json") -> WriterMapping:
    mapping = parse_mapping(
        f"iggyflux: 1\nkind: writer\nfrom: {{stream: s, topic: t, payload: {payload}, compression: {way}}}\n"
        "points: {measurement: {const: kiln}, tags: [kiln], fields: [heat]}\n"
        f"examples: [{{message: {WORDS.decode()}, points: ['kiln,kiln=north heat=1250.5 946684800000000000']}}]",
        name="kilns",
        format="yaml",
    )
    assert isinstance(mapping, WriterMapping)
    return mapping


@given(st.binary(max_size=3000) | st.binary(max_size=50).map(lambda part: part * 400), ways)
@example(b"", "gzip")
def test_what_was_compressed_comes_back_and_tells_how(payload: bytes, way: str) -> None:
    packed = compress(payload, way)

    assert expand(packed, way) == payload
    assert recognized(packed) == way
    assert expand(packed, "auto") == payload
    assert compress(payload, way) == packed


@given(st.binary(max_size=80), ways, st.data())
@settings(max_examples=300)
def test_any_bytes_expand_or_fail_as_a_payload(noise: bytes, way: str, data: st.DataObject) -> None:
    good = compress(data.draw(st.binary(max_size=200)), way)
    cut = data.draw(st.integers(0, len(good)))
    for payload in (noise, good[:cut] + noise, good[:cut] + noise + good[cut + len(noise) :]):
        for declared in (way, "auto"):
            try:
                expanded = expand(payload, declared)
            except DecodeError as error:
                refused = error
            else:
                assert type(expanded) is bytes
                continue
            assert refused.code in ("IFX401", "IFX450")
            assert len(refused.reason) < 200


@every_way
def test_a_payload_that_is_cut_fails_wherever_it_is_cut(way: str) -> None:
    packed = compress(WORDS, way)
    shorter = [packed[:size] for size in range(len(packed))]
    if way == "snappy":  # its frames have no end: the mark alone is an empty text
        assert expand(shorter.pop(10), way) == b""

    assert {refusal(each, way).code for each in shorter} == {"IFX450"}


JOINED: dict[str, bytes | None] = {
    "gzip": WORDS * 2,
    "zlib": None,
    "zstd": WORDS * 2,
    "lz4": WORDS * 2,
    "snappy": WORDS * 2,
}


@every_way
def test_members_and_frames_in_a_row_are_one_payload_and_other_data_is_not_dropped(way: str) -> None:
    packed = compress(WORDS, way)

    for tail in (b"\0", b"{}", b"\0\0\0\0\0\0\0\0", packed[:-1]):
        assert refusal(packed + tail, way).code == "IFX450"
    if JOINED[way] is None:
        assert refusal(packed * 2, way).reason == "damaged zlib: data after the stream"
    else:
        assert expand(packed * 2, way) == JOINED[way]


def test_so_many_members_that_they_would_take_long_fail() -> None:
    assert expand(gzip.compress(b"", mtime=0) * 10_000, "gzip") == b""
    assert "10,000 members" in refusal(gzip.compress(b"", mtime=0) * 10_001, "gzip").reason


def test_a_block_of_snappy_is_read_and_its_size_is_not_believed() -> None:
    block = bytes(cramjam.snappy.compress_raw(WORDS * 90))

    assert expand(block, "snappy") == WORDS * 90
    assert expand(block, "auto") == block
    assert (
        refusal(b"\xff\xff\xff\x1f" + block, "snappy").reason
        == "damaged snappy: the size in front of it cannot be true"
    )
    assert refusal(b"\xff\xff\xff\xff\xff\xff\x0f" + block, "snappy").code == "IFX450"
    assert refusal(b"", "snappy").code == "IFX450"


@given(st.lists(st.tuples(st.integers(0, 2**32 - 1), st.booleans()), min_size=1, max_size=20))
@example([(2**32 - 1, True)])
@example([(15_000, True)] * 10)
def test_blocks_of_snappy_that_lie_about_their_sizes_get_no_memory_for_it(blocks: list[tuple[int, bool]]) -> None:
    """The library allocates the size that is in front of a block before it reads the rest."""
    most, asked = 100_000, 0
    honest = bytes(cramjam.snappy.compress_raw(WORDS))
    payloads = [varint(size) + b"\0a" if lies else honest for size, lies in blocks]
    made = compression._function

    def counting(name: str, function: str) -> Callable[..., Any]:
        def decompress_raw(payload: bytes) -> Any:
            nonlocal asked
            asked += cramjam.snappy.decompress_raw_len(payload)
            return made(name, function)(payload)

        return decompress_raw if function == "decompress_raw" else made(name, function)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compression, "_function", counting)
        found = expand_all(payloads, "snappy", most)

    assert found is not None
    assert asked <= most + 2 * len(WORDS) * len(payloads)


def varint(number: int) -> bytes:
    rest, least = divmod(number, 128)
    return bytes([least | 128]) + varint(rest) if rest else bytes([least])


BOMBS: dict[str, Callable[[int], bytes]] = {
    **{way: lambda size, way=way: compress(bytes(size), way) for way in COMPRESSIONS},  # type: ignore[misc]
    "members": lambda size: compress(bytes(size // 4), "gzip") * 4 + compress(b"x", "gzip"),
    "frames": lambda size: compress(bytes(size // 4), "zstd") * 4 + compress(b"x", "zstd"),
    "block": lambda size: bytes(cramjam.snappy.compress_raw(bytes(size))),
}


@pytest.mark.parametrize("name", BOMBS)
def test_nothing_expands_beyond_the_bound(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression, "MAX_PAYLOAD_BYTES", 1_000_000)
    way = {"members": "gzip", "frames": "zstd", "block": "snappy"}.get(name, name)
    bomb, small = BOMBS[name](40_000_000), BOMBS[name](999_000)
    tracemalloc.start()
    refused = refusal(bomb, way)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert (refused.code, refused.reason) == ("IFX401", "the payload expands to more than 1,000,000 bytes")
    assert peak < 4_000_000
    assert 999_000 <= len(expand(small, way)) <= 1_000_000


def test_the_bound_itself_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression, "MAX_PAYLOAD_BYTES", 5000)
    for way in COMPRESSIONS:
        assert len(expand(compress(bytes(5000), way), way)) == 5000
        assert refusal(compress(bytes(5001), way), way).code == "IFX401"


@pytest.mark.parametrize("way", ["gzip", "zlib", "zstd", "lz4", "snappy", "block"])
def test_no_byte_becomes_more_than_is_reckoned(way: str) -> None:
    """Nothing is smaller than one byte again and again; short payloads are expanded without a buffer."""
    pack = BOMBS[way]
    way = "snappy" if way == "block" else way
    for size in (1, 1000, 2**17, 2**17 + 1, 10**6, 10**7):
        packed = pack(size)

        assert len(expand(packed, way)) <= len(packed) * compression._MOST_OF_A_BYTE[way]


def parts_of(way: str, draw: Callable[[st.SearchStrategy[bytes]], bytes]) -> bytes:
    """Return a payload as it should be, damaged, of another kind, or of several frames."""
    good = draw(st.binary(max_size=200) | st.binary(max_size=9).map(lambda part: part * 500))
    packed = bytes(cramjam.snappy.compress_raw(good)) if draw(BLOCK) else compress(good, way)
    at = draw(st.integers(0, len(packed)))
    return draw(
        st.sampled_from([packed, packed, packed, packed * 2, packed[:at], packed + b"\0", b"", good])
        | st.binary(max_size=4).map(lambda noise: packed[:at] + noise + packed[at + len(noise) :])
    )


BLOCK = st.sampled_from([False, False, False, True])


@given(st.sampled_from([*COMPRESSIONS, "auto"]), st.data(), st.sampled_from([2_000, 9_000, 64_000_000]))
@settings(max_examples=300, deadline=None)
def test_many_expand_as_each_of_them(way: str, data: st.DataObject, most: int) -> None:
    """Also where they nearly have, or have, more than they may together, and where few are taken at once."""
    count = data.draw(st.integers(1, 8))
    payloads = [parts_of("gzip" if way == "auto" else way, data.draw) for _ in range(count)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compression, "MAX_PAYLOAD_BYTES", data.draw(st.sampled_from([3000, 300_000, 64_000_000])))
        expected = [refused_or_expanded(payload, way) for payload in payloads]
        found = expand_all(payloads, way, most)

    size = sum(len(each) for each in expected if each is not None)
    if found is None:
        assert size > most
        assert count > 1
    else:
        assert found == (
            [each or b"" for each in expected],
            [index for index, each in enumerate(expected) if each is None],
        )
        assert size <= most or count == 1


@every_way
def test_among_many_an_empty_payload_and_other_kinds_are_what_they_are_alone(way: str) -> None:
    """The library takes no frame of snappy at all for an empty text."""
    packed, block = compress(WORDS, way), bytes(cramjam.snappy.compress_raw(WORDS))
    payloads = [packed, b"", block, packed * 2, WORDS, packed]
    expected = [refused_or_expanded(payload, way) for payload in payloads]

    for many in (payloads, payloads[::-1], [block, *payloads]):
        found = expand_all(many, way, 10_000)
        assert found is not None
        assert [None if index in found[1] else whole for index, whole in enumerate(found[0])] == [
            expected[payloads.index(payload)] for payload in many
        ]


def refused_or_expanded(payload: bytes, way: str) -> bytes | None:
    try:
        return expand(payload, way)
    except DecodeError:
        return None


def test_another_compression_than_the_declared_one_is_named() -> None:
    assert refusal(compress(WORDS, "zstd"), "gzip").reason == "not gzip: it looks like zstd"
    assert refusal(WORDS, "lz4").reason == "not lz4: the payload does not begin as lz4 does"
    failure = writer("none").plan().render([Message(compress(WORDS, "lz4"))]).failures[0]
    assert (failure.code, failure.hint) == ("IFX402", "set `compression: lz4`")


@every_way
def test_both_plans_read_them_among_others(way: str) -> None:
    text = writer("auto").document.text
    mapping = parse_mapping(text.replace("points: {", "where: \"kiln == 'north'\"\npoints: {", 1))
    batch = [
        Message(each, offset=number)
        for number, each in enumerate([compress(WORDS, way), WORDS, compress(WORDS, way)[:-2]])
    ]
    found = [mapping.plan(kind=kind).render(batch) for kind in ("compiled", "reference")]

    assert [list(each.lines) for each in found] == [["kiln,kiln=north heat=1250.5 0"] * 2] * 2
    assert [[(failure.index, failure.code, failure.location) for failure in each.failures] for each in found] == [
        [(2, "IFX450", "/from/compression")]
    ] * 2
    assert batch[0].payload == compress(WORDS, way)


def test_a_batch_that_expands_to_more_than_is_rendered_at_once_is_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "MAX_BYTES_AT_ONCE", 1_000_000)
    large = json.dumps({"kiln": "north", "heat": 1250.5, "unread": "x" * 190_000}).encode()
    batch = [Message(compress(large, "zstd"), offset=number, timestamp_us=number) for number in range(160)]
    plan = writer("zstd").plan()
    tracemalloc.start()
    parts = list(plan.render_parts(batch))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert [count for count, _ in parts] == [5] * 32
    assert peak < 8_000_000  # all of them have 30 MB
    assert [line for _, rendered in parts for line in rendered.lines] == [
        f"kiln,kiln=north heat=1250.5 {number * 1000}" for number in range(160)
    ]


@every_way
def test_examples_and_made_messages_are_compressed(way: str) -> None:
    mapping = writer(way)
    made = generate_messages(mapping, start_ns=0, interval_ns=10**9)

    assert [result.differences for result in run_examples(mapping)] == [()]
    assert {recognized(next(made).payload) for _ in range(5)} == {way}


@pytest.mark.parametrize("way", ["zstd", "lz4", "snappy"])
def test_what_is_missing_without_the_package_is_said(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = compress(WORDS, way)
    monkeypatch.setitem(sys.modules, "cramjam", None)
    monkeypatch.setattr(compression, "find_spec", lambda name: None)
    compression._cramjam.cache_clear()
    compression._function.cache_clear()
    try:
        failure = writer("auto").plan().render([Message(packed)]).failures[0]
        with pytest.raises(MappingError) as refused:
            writer(way)
    finally:
        compression._cramjam.cache_clear()
        compression._function.cache_clear()

    assert (failure.code, failure.hint) == ("IFX451", "pip install 'iggyflux[compression]'")
    assert [(each.code, each.location.pointer) for each in refused.value.problems][:1] == [
        ("IFX180", "/from/compression")
    ]


def test_the_words_of_documents_are_those_of_the_code() -> None:
    assert get_args(Compression) == ("none", "auto", *COMPRESSIONS)


def test_infer_recognizes_them(tmp_path: Path) -> None:
    packed = [compress(json.dumps({"kiln": "north", "heat": heat}).encode(), "snappy") for heat in (1.5, 2.5, 3.5)]
    plain = [base64.b64encode(each).decode() for each in packed]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"payload_base64": each}) + "\n" for each in plain))
    outcome = iggyflux("infer", tmp_path / "a.jsonl", "--envelope")

    assert outcome.code == 0, outcome.err
    assert "compression: snappy" in outcome.out
    (tmp_path / "mapping.yaml").write_text(outcome.out)
    assert iggyflux("test", tmp_path / "mapping.yaml").code == 0
    dry_run = iggyflux("dry-run", tmp_path / "mapping.yaml", tmp_path / "a.jsonl", "--envelope")
    assert dry_run.out.count("heat=") == 3


def test_dead_letters_and_their_replay_have_the_bytes_as_they_came(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    bad = zlib.compress(b'{"kiln": "north", "heat": "n/a"}')
    payloads = [compress(WORDS, "gzip"), bad, compress(WORDS, "lz4")[:-3]]
    lines = [
        json.dumps({"stream": "s", "topic": "t", "payload_base64": base64.b64encode(each).decode()})
        for each in payloads
    ]
    Path("kilns.yaml").write_text(writer("auto").document.text)
    Path("pipeline.yaml").write_text("iggyflux: 1\nrun: [{mapping: kilns.yaml, from: log:data, to: file:out.lp}]\n")
    assert iggyflux("log", "append", "data", "s/t", "-", "--envelope", stdin="\n".join(lines)).code == 0
    run = iggyflux("run", "pipeline.yaml", "--until-end")

    assert Path("out.lp").read_text().startswith("kiln,kiln=north heat=1250.5 "), run.err
    letters = [
        json.loads(line) for path in Path("dead-letters").rglob("*.ndjson") for line in path.read_text().splitlines()
    ]
    assert [base64.b64decode(each["payload_base64"]) for each in letters] == payloads[1:]
    Path("kilns.yaml").write_text(writer("auto").document.text.replace("[heat]", "{heat: {expr: heat, type: string}}"))
    replay = iggyflux("replay", "dead-letters/kilns", "--pipeline", "pipeline.yaml")
    assert 'heat="n/a"' in Path("out.lp").read_text(), replay.err


def test_eval_expands_what_its_mapping_says(tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text(writer("lz4").document.text)
    (tmp_path / "kiln.bin").write_bytes(compress(WORDS, "lz4"))

    outcome = iggyflux("eval", "heat", tmp_path / "kiln.bin", "--whole", "--mapping", tmp_path / "m.yaml")

    assert (outcome.code, outcome.out.strip()) == (0, "1250.5"), outcome.err


@pytest.mark.parametrize("way", ["gzip", "auto"])
def test_a_file_that_is_expanded_by_its_name_is_said_to_be(way: str, tmp_path: Path) -> None:
    """The payload is then plain, and `compression: gzip` fails without a sign of the reason."""
    mapping = tmp_path / "m.yaml"
    mapping.write_text(
        f"iggyflux: 1\nkind: writer\nfrom: {{stream: s, topic: t, compression: {way}}}\n"
        "points: {measurement: {const: m}, fields: [ph], timestamp: {expr: at, format: unix_s}}\n"
    )
    packed = gzip.compress(b'{"ph": 6.5, "at": 1}')
    for name in ("soil.json", "soil.json.gz"):
        (tmp_path / name).write_bytes(packed)
    renamed, expanded = (
        iggyflux("dry-run", mapping, tmp_path / name, "--whole") for name in ("soil.json", "soil.json.gz")
    )

    assert (renamed.code, "because of its name" in renamed.err) == (0, False)
    assert (expanded.code, "because of its name" in expanded.err) == (int(way == "gzip"), way == "gzip")
