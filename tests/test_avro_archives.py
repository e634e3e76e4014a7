"""Archives of Avro containers: what the records of a file are, wherever a load ends, and whatever is damaged."""

from __future__ import annotations

import gzip
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fastavro
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from shell import iggyflux

from iggyflux.archives import avro
from iggyflux.archives.files import find_archives
from iggyflux.archives.source import ArchiveSource, Reading, RecordFile, position_state
from iggyflux.authoring.sample_bytes import SampleError
from iggyflux.errors import DecodeError, EndOfInput
from iggyflux.payloads import FORMATS
from iggyflux.payloads.avro.writing import long
from iggyflux.records import LINE_HEADER
from iggyflux.sim import SimServer
from tests.transports.contract import drive

SCHEMA = {
    "type": "record",
    "name": "lake.Level",
    "fields": [{"name": "buoy", "type": "string"}, {"name": "n", "type": "long"}, {"name": "m", "type": "double"}],
}
SYNC = bytes(range(200, 216))
CODECS = ["null", "deflate", "snappy", "zstandard", "bzip2"]
CONTAINER = {"encoding": "container"}


def rows(numbers: Sequence[int]) -> list[dict[str, Any]]:
    return [{"buoy": f"b{number % 3}", "n": number, "m": number / 4} for number in numbers]


def container(numbers: Sequence[int], codec: str = "null", interval: int = 40, schema: Any = None) -> bytes:
    """Return a file with a block of about so many bytes after another."""
    file = io.BytesIO()
    records = rows(numbers) if schema is None else numbers
    fastavro.writer(file, schema or SCHEMA, records, codec=codec, sync_interval=interval, sync_marker=SYNC)
    return file.getvalue()


def block(numbers: Sequence[int], *, off: int = 0, left_out: int = 0) -> bytes:
    """Return a block whose length is wrong by `off`, and that lacks so many of its last bytes."""
    file = io.BytesIO()
    for row in rows(numbers):
        fastavro.schemaless_writer(file, SCHEMA, row)
    data = file.getvalue()[: len(file.getvalue()) - left_out]
    return long(len(numbers)) + long(len(data) + off) + data + SYNC


def header() -> bytes:
    return container([])


def reading_of() -> Reading:
    return Reading(form="avro", options=CONTAINER, stream="s", topic="t")


def payloads_of(path: Path) -> list[tuple[int, bytes]]:
    file = RecordFile(find_archives([str(path)])[0], reading_of())
    try:
        file.begin(None)
        return list(file.take(10**6))
    finally:
        file.raw.release()


def cut(data: bytes) -> tuple[list[int], list[str], SampleError | None]:
    """Return the numbers in the records of a file, the codes of those that fail, and what ended it."""
    found: list[int] = []
    failed: list[str] = []
    try:
        for _, payload in avro.ContainerRecords(io.BytesIO(data)).records():
            try:
                (row,) = FORMATS["avro"].decode(payload, CONTAINER)
                found.append(row["n"])
            except DecodeError as error:
                failed.append(error.code)
    except SampleError as error:
        return found, failed, error
    return found, failed, None


@settings(max_examples=40)
@given(count=st.integers(0, 60), codec=st.sampled_from(CODECS), interval=st.integers(1, 400), packed=st.booleans())
def test_each_record_is_a_container_of_its_own(
    count: int, codec: str, interval: int, packed: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("avro") / ("a.avro.gz" if packed else "a.avro")
    data = container(range(count), codec, interval)
    path.write_bytes(gzip.compress(data) if packed else data)

    found = payloads_of(path)

    assert [number for number, _ in found] == list(range(1, count + 1))
    assert [FORMATS["avro"].decode(each, CONTAINER) for _, each in found] == [[row] for row in rows(range(count))]
    assert [list(fastavro.reader(io.BytesIO(each))) for _, each in found] == [[row] for row in rows(range(count))]


def test_records_that_take_no_bytes_are_read() -> None:
    blocks = (long(1) + long(0) + SYNC) * 3
    empty = container([], schema={"type": "record", "name": "Nothing", "fields": []}) + blocks

    found = [each for _, each in avro.ContainerRecords(io.BytesIO(empty)).records()]

    assert [FORMATS["avro"].decode(each, CONTAINER) for each in found] == [[{}]] * 3


@settings(max_examples=60)
@given(
    count=st.integers(0, 30),
    interval=st.integers(1, 200),
    sizes=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=40),
    packed=st.booleans(),
)
def test_a_load_goes_on_at_the_record_after_the_last_settled_one(
    count: int, interval: int, sizes: list[tuple[int, int]], packed: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    path = folder / ("a.avro.gz" if packed else "a.avro")
    data = container(range(count), "deflate", interval)
    path.write_bytes(gzip.compress(data) if packed else data)
    seen: list[tuple[int, int, object]] = []

    async def part(most: int, settled: int) -> bool:
        archives = find_archives([str(path)])
        reader = ArchiveSource(archives, reading_of(), lambda each: position_state(folder, "r", each), batch_size=most)
        try:
            await reader.connect()
            batch = await reader.read()
            assert batch is not None
            batch = batch.part(0, min(settled, len(batch.messages)))
            for each in batch.messages:
                (row,) = FORMATS["avro"].decode(each.payload, CONTAINER)
                seen.append((row["n"], each.offset, each.headers[LINE_HEADER]))
            await reader.ack([batch.last])
        except EndOfInput:
            return False
        finally:
            await reader.close()
        return True

    for most, settled in [*sizes, *[(50, 50)] * 2]:
        if not drive(part(most, settled)):
            break

    assert seen == [(number, number, number + 1) for number in range(count)]


def test_a_plain_file_is_read_on_from_the_block_where_it_ended(tmp_path: Path) -> None:
    """And not from its beginning: the state names the block."""
    path = tmp_path / "a.avro"
    path.write_bytes(container(range(90)))
    file = RecordFile(find_archives([str(path)])[0], reading_of())
    file.begin(None)
    list(file.take(50))
    byte, before, taken = file.place
    file.raw.release()

    assert (before, path.read_bytes()[byte - 16 : byte]) == (taken, SYNC)
    assert 40 < before < 50


# --- damage ---


@settings(max_examples=150)
@given(
    codec=st.sampled_from(["null", "deflate", "snappy"]),
    block=st.integers(0, 4),
    place=st.floats(0, 1, exclude_max=True),
    change=st.one_of(st.binary(max_size=30), st.just(b"\xff" * 10)),
    length=st.integers(0, 30),
)
@example("null", 2, 0.0, long(3) + long(10**15), 2)
@example("null", 2, 0.0, long(-3), 1)
@example("null", 4, 0.0, b"\xff" * 30, 0)
def test_damage_costs_no_record_of_other_blocks(
    codec: str, block: int, place: float, change: bytes, length: int
) -> None:
    """Bytes of a block are replaced, but for its sync marker; what fails is named, and what follows is read."""
    sound = [container(range(10 * at, 10 * at + 10), codec, 10**6)[len(header_of(codec)) :] for at in range(5)]
    at = int(place * (len(sound[block]) - 16))
    damaged = sound[block][:at] + change + sound[block][min(at + length, len(sound[block]) - 16) :]
    blocks = [*sound[:block], damaged, *sound[block + 1 :]]

    found, failed, ended = cut(header_of(codec) + b"".join(blocks))

    rest = iter(found)
    assert ended is None
    assert all(number in rest for number in range(50) if number // 10 != block)
    if codec == "snappy" and found != list(range(50)):  # whose blocks have checksums
        assert failed


def header_of(codec: str) -> bytes:
    return container([], codec)


def test_what_is_left_of_a_damaged_block_is_one_failed_record() -> None:
    """A length that is wrong, a record that does not end, and a marker that is damaged: then the next block, too."""
    one, two, three = (block(range(5 * at, 5 * at + 5)) for at in range(3))
    cases = [
        (block(range(5, 10), off=1), [*range(5), *range(10, 15)]),
        (block(range(5, 10), left_out=1), [*range(9), *range(10, 15)]),
        (two[:-1] + b"?", [*range(5)]),
    ]

    assert [cut(header() + one + damaged + three) for damaged, _ in cases] == [
        (numbers, ["IFX404"], None) for _, numbers in cases
    ]


@settings(max_examples=60)
@given(cut_at=st.integers(1, 2000))
def test_a_file_that_is_cut_off_gives_what_is_before_it(cut_at: int) -> None:
    data = container(range(60))
    cut_at = min(cut_at, len(data) - 1)
    found, failed, ended = cut(data[:cut_at])

    assert (found, failed) == (list(range(len(found))), [])
    if data[:cut_at].endswith(SYNC) and cut_at >= len(header()):
        assert ended is None
    else:
        assert ended is not None
        assert (ended.code, ended.line) == ("IFX504", len(found) + 1)


@settings(max_examples=150)
@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_are_records_or_damage(data: bytes, has_header: bool) -> None:
    cut(header() + data if has_header else data)
    cut(b"Obj\x01" + data)


def test_a_block_larger_than_any_payload_is_one_failed_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only its beginning is kept."""
    small = container(range(3), interval=10**6)[len(header()) :]
    large = container(range(1000), interval=10**6)[len(header()) :]
    monkeypatch.setattr(avro, "MAX_PAYLOAD_BYTES", 5000)
    monkeypatch.setattr(avro, "_CHUNK", 700)

    found = [each for _, each in avro.ContainerRecords(io.BytesIO(header() + small + large + small)).records()]

    assert len(found) == 7
    assert len(large) > 10_000
    assert max(map(len, found)) == 5001


def test_many_blocks_that_claim_much_are_read_in_linear_time() -> None:
    """Each read copies what is there, so there are few of them."""

    class Counting(io.BytesIO):
        reads = 0

        def read(self, size: int | None = -1, /) -> bytes:
            self.reads += 1
            return super().read(size)

    file = Counting(header() + (long(1) + long(60_000_000) + SYNC) * 1000 + block(range(5)))

    assert len(list(avro.ContainerRecords(file).records())) == 1005
    assert file.reads < 10


def test_a_marker_is_found_wherever_a_piece_of_the_file_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(avro, "_CHUNK", 17)
    monkeypatch.setattr(avro, "_BEGIN", len(header()))
    for off in [*range(-20, 0), *range(1, 20)]:
        found, failed, ended = cut(header() + block(range(5), off=off) + block(range(5, 9)))
        assert (found[-4:], failed, ended) == ([5, 6, 7, 8], ["IFX404"], None)


@pytest.mark.parametrize(
    ("data", "code", "words"),
    [
        (b'{"n": 1}\n' * 1000, "IFX504", "not an Avro container"),
        (header()[:40], "IFX504", "ends in the middle"),
        (header().replace(b"null", b"lzma", 1), "IFX710", "compressed by 'lzma'"),
        (header().replace(b'"double"', b'"deuble"', 1), "IFX710", "unknown type 'deuble'"),
    ],
)
def test_a_file_that_cannot_be_read_is_left(data: bytes, code: str, words: str) -> None:
    _, _, ended = cut(data)

    assert ended is not None
    assert (ended.code, ended.line) == (code, 1)
    assert words in ended.reason


def test_a_header_may_be_long() -> None:
    schema = {**SCHEMA, "doc": "x" * 300_000}
    data = container(rows(range(3)), schema=schema)  # type: ignore[arg-type]

    assert cut(data) == ([0, 1, 2], [], None)


def test_a_codec_whose_package_is_missing_stops_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    data = container(range(3), "snappy")
    monkeypatch.setitem(sys.modules, "cramjam", None)
    _, _, ended = cut(data)

    assert ended is not None
    assert (ended.code, ended.hint) == ("IFX710", "install iggyflux[avro]")


# --- the command ---

MAPPING = """\
iggyflux: 1
kind: writer
name: levels
from: {stream: s, topic: t, payload: avro}
for_each: "@"
points: {measurement: {const: m}, tags: [buoy], fields: {m: m}, timestamp: {expr: n, format: unix_ns}}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.yaml").write_text(MAPPING)
    (tmp_path / "p.yaml").write_text(
        f"iggyflux: 1\nrun: [{{mapping: m.yaml, from: stdin, to: 'file:{tmp_path}/o.lp'}}]\n"
    )
    for name, first in (("a", 0), ("b", 100)):
        (tmp_path / f"{name}.avro").write_bytes(container(range(first, first + 60), "deflate"))
    return tmp_path


def load(folder: Path, *more: object, to: str = "p.yaml") -> Any:
    return iggyflux("load", folder / "m.yaml", f"{folder}/*.avro", *(["--pipeline", folder / to] if to else []), *more)


def test_workers_share_containers(folder: Path) -> None:
    with SimServer(1, database="d") as server:
        text = f"iggyflux: 1\ninfluxdb: {{url: '{server.url}', database: d}}\nrun: [{{mapping: m.yaml}}]\n"
        (folder / "p.yaml").write_text(text)
        outcome = load(folder, "--workers", "2")
        stored = list(server.dump())

    assert outcome.code == 0, outcome.err
    assert outcome.err.count("worker.started") == 2
    assert len(stored) == 120


def test_containers_are_loaded_once(folder: Path) -> None:
    first, second = load(folder), load(folder)

    assert (first.code, second.code) == (0, 0), first.err
    lines = (folder / "o.lp").read_text().splitlines()
    assert sorted(lines) == sorted(f"m,buoy={row['buoy']} m={row['m']} {row['n']}" for row in ALL)
    assert "2 files were loaded before" in second.err


ALL = rows([*range(60), *range(100, 160)])


def test_a_dry_run_shows_the_first_records(folder: Path) -> None:
    shown = load(folder, "--dry-run", "--limit", "3", to="")

    assert shown.code == 0, shown.err
    assert [line for line in shown.out.splitlines() if line.startswith("m,")] == [
        "m,buoy=b0 m=0.0 0",
        "m,buoy=b1 m=0.25 1",
        "m,buoy=b2 m=0.5 2",
    ]


def test_a_damaged_block_is_named_and_replayed(folder: Path) -> None:
    """The others are loaded; the letter has the bytes, which fail again."""
    damaged = bytearray((folder / "a.avro").read_bytes())
    damaged[len(header_of("deflate")) + 2] ^= 0x55
    (folder / "a.avro").write_bytes(damaged)

    outcome = load(folder)

    assert outcome.code == 1, outcome.err
    assert "a.avro:1: error[IFX433]" in outcome.err
    assert 100 < len((folder / "o.lp").read_text().splitlines()) < 120
    again = iggyflux("replay", "dead-letters/levels", "--pipeline", "p.yaml", "--dry-run")
    assert "IFX433" in again.out + again.err


def test_a_bad_record_fails_alone(folder: Path) -> None:
    """A dead letter is one record, and FILE:N names it."""
    schema = json.loads(json.dumps(SCHEMA).replace('"double"', '["string", "double"]'))
    records = [{**row, "m": "wet"} if row["n"] == 7 else row for row in rows(range(20))]
    (folder / "a.avro").write_bytes(container(records, schema=schema, interval=10**6))  # type: ignore[arg-type]

    outcome = load(folder)

    assert outcome.code == 1, outcome.err
    assert "a.avro:8: error[IFX340]" in outcome.err
    assert len((folder / "o.lp").read_text().splitlines()) == 79


@pytest.mark.parametrize(("off", "bad", "code"), [(1, b"\xff", "IFX402"), (0, b"\3", "IFX404")])
@pytest.mark.parametrize("interval", [1, 40, 10**6])
def test_the_place_of_a_record_that_cannot_be_decoded_is_that_in_its_file(
    folder: Path, interval: int, off: int, bad: bytes, code: str
) -> None:
    """Whatever block it is in, and also if the next record cannot be found; the letter has no other place."""
    data = container(range(20), interval=interval)
    at = data.index(b"\4b1" + long(13)) + off
    (folder / "a.avro").write_bytes(data[:at] + bad + data[at + 1 :])

    outcome = load(folder)

    (line,) = [each for each in outcome.err.splitlines() if each.startswith(f"a.avro:14: error[{code}]: ")]
    assert line.endswith("(buoy)"), line


def test_files_of_avro_need_a_mapping_of_containers(folder: Path) -> None:
    for payload in ("json", "{format: avro, schema: {type: string}}"):
        (folder / "m.yaml").write_text(MAPPING.replace("payload: avro", f"payload: {payload}"))
        refused = load(folder)

        assert refused.code == 2
        assert "which needs a mapping with `payload: {format: avro, encoding: container}`" in refused.err
