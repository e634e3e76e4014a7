"""Archives: how files are split into records, a source that goes on where it ended, and `load` as a process."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import math
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import UTC, date, datetime
from decimal import Decimal, localcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import fsspec
import pyarrow
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pyarrow import parquet
from shell import iggyflux, process

from iggyflux.archives import source as source_module
from iggyflux.archives.files import Archive, find_archives, name_of, reading
from iggyflux.archives.records import ArchiveLines, WholeFile, header_of, splitter_of
from iggyflux.archives.source import ArchiveSource, Reading, RecordFile, position_state
from iggyflux.authoring import sample_bytes
from iggyflux.authoring.sample_bytes import SampleError, expanded
from iggyflux.cli.load_spread import shares_of
from iggyflux.cli.run import worker_command
from iggyflux.errors import EndOfInput, IggyfluxError, NotConnected, Stopped
from iggyflux.lineprotocol import Point, parse_lines
from iggyflux.mapping import parse_mapping
from iggyflux.payloads import FORMATS, MAX_PAYLOAD_BYTES
from iggyflux.plan.reads import reads_arrival
from iggyflux.records import FILE_HEADER, LINE_HEADER, Batch, Message
from iggyflux.sim import SimServer
from iggyflux.state.copies import read_state
from iggyflux.state.memory import MemoryState
from iggyflux.transports.local.letter_removal import remove_letters
from iggyflux.transports.share import Share
from tests.archive_mapping import DOCUMENT
from tests.transports.contract import SourceContract, drive

PACK: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".zst": lambda data: bytes(sample_bytes.zstd.compress(data)),
}


class Dribble(io.RawIOBase):
    """A file that gives a few bytes at a time."""

    def __init__(self, data: bytes, sizes: Sequence[int]) -> None:
        self._file = io.BytesIO(data)
        self._sizes = iter(sizes)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        data = self._file.read(min(len(buffer), next(self._sizes, 1 << 20)))
        buffer[: len(data)] = data
        return len(data)


def records(
    data: bytes, form: str = "json", options: dict[str, Any] | None = None, *, sizes: Sequence[int] = ()
) -> list[tuple[int, bytes]]:
    """Return the records of a file."""
    documents = form == "json" and source_module.has_documents(ArchiveLines(io.BytesIO(data)))
    lines = ArchiveLines(io.BufferedReader(Dribble(data, sizes), 64))
    header = header_of(lines, form, options or {})
    return list(splitter_of(form, documents=documents)(lines, options or {}, header))


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
SIZES = st.lists(st.integers(1, 40), max_size=30)


@given(values=st.lists(JSON_VALUES, max_size=8), indent=st.sampled_from([None, 1]), sizes=SIZES, gap=st.booleans())
def test_json_is_split_as_the_standard_library_reads_it(
    values: list[Any], indent: int | None, sizes: list[int], gap: bool
) -> None:
    """Documents a line, or over several lines from the first on, whatever pieces the file comes in."""
    texts = [json.dumps(value, indent=indent, ensure_ascii=False) for value in values]
    if any("\n" in text for text in texts) and "\n" not in texts[0]:
        texts.insert(0, json.dumps({"a": 1}, indent=1))
        values = [{"a": 1}, *values]
    data = ("\n\n" if gap else "\n").join(texts).encode()

    found = records(data, sizes=sizes)

    assert [json.loads(payload) for _, payload in found] == values
    lines = data.decode().split("\n")
    assert all(payload.decode().startswith(lines[number - 1]) for number, payload in found)


CELLS = st.text(alphabet='ab,;"\n\r \t=ß', max_size=6)


@example(rows=[["", "\r\n"], ["a", "b"]], has_header=False, sizes=[], end="\r\n")
@given(
    rows=st.lists(st.lists(CELLS, min_size=2, max_size=2), max_size=8),
    has_header=st.booleans(),
    sizes=SIZES,
    end=st.sampled_from(["\n", "\r\n"]),
)
def test_csv_is_split_as_the_standard_library_reads_it(
    rows: list[list[str]], has_header: bool, sizes: list[int], end: str
) -> None:
    """Cells may hold line feeds and quotes; each row alone decodes to what it is in the whole file."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator=end, quoting=csv.QUOTE_ALL)
    writer.writerows([["x", "y"], *rows] if has_header else rows)
    options: dict[str, Any] = {} if has_header else {"header": ["x", "y"]}

    found = records(text.getvalue().encode(), "csv", options, sizes=sizes)

    decoded = [FORMATS["csv"].decode(payload, options, None, False) for _, payload in found]
    assert decoded == [[{"x": x, "y": y}] for x, y in rows]


@given(
    rows=st.lists(st.lists(CELLS, min_size=2, max_size=2), max_size=6),
    skip=st.integers(0, 3),
    has_header=st.booleans(),
    has_units=st.booleans(),
    note=st.sampled_from(["#", '# it is 5" wide', "#,,,"]),
    sizes=SIZES,
)
def test_csv_as_it_is_found_is_split_as_it_is_read_whole(
    rows: list[list[str]], skip: int, has_header: bool, has_units: bool, note: str, sizes: list[int]
) -> None:
    """Lines before the table, comments and units belong to no row; each row alone decodes to what it is in the file."""
    text = io.StringIO(newline="")
    text.write('Log of plant "7"\n' * skip)
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)
    for row in [["x", "y"]] * has_header + [["m", "%"]] * has_units + rows:
        text.write(f"{note}\n")
        writer.writerow(row)
    options: dict[str, Any] = {"skip": skip, "comment": "#", "units_row": has_units}
    options |= {} if has_header else {"header": ["x", "y"]}

    found = records(text.getvalue().encode(), "csv", options, sizes=sizes)

    decoded = [FORMATS["csv"].decode(payload, options, None, False) for _, payload in found]
    assert decoded == [[{"x": x, "y": y}] for x, y in rows]
    if rows or has_header:
        whole = FORMATS["csv"].decode(text.getvalue().encode(), options, None, False)
        assert whole == [row for table in decoded for row in table]


POINTS = st.builds(
    lambda name, tag, text, number: Point(name, {"t": tag} if tag else {}, {"s": text, "f": number}, 7),
    st.text(alphabet='m"# é', min_size=1, max_size=4).filter(lambda name: not name.startswith("#")),
    st.text(alphabet='t"=, ', max_size=4),
    st.text(alphabet='ab"\\\n= ,#', max_size=9),
    st.floats(allow_nan=False, allow_infinity=False),
)


@given(points=st.lists(POINTS, max_size=8), sizes=SIZES)
def test_line_protocol_is_split_as_it_is_parsed(points: list[Point], sizes: list[int]) -> None:
    """Line feeds in strings, quotes in names."""
    data = "\n".join(point.encode() for point in points).encode()

    found = records(data, "influx", sizes=sizes)

    assert [parse_lines(payload) for _, payload in found] == [[point] for point in parse_lines(data)]
    assert len(found) == len(points)


@given(ends=st.lists(st.sampled_from([b"", b"\\", b"a", b"=", b'\\"']), min_size=2, max_size=2))
def test_a_string_goes_on_after_any_end_of_a_line(ends: list[bytes]) -> None:
    """Also after a backslash, which escapes nothing there."""
    first = b'm s="1%s\n2",t="3%s\n4" 1' % tuple(ends)

    assert records(first + b'\nm s="x" 2\n', "influx") == [(1, first), (4, b'm s="x" 2')]


@given(data=st.binary(max_size=80) | st.text(alphabet='{}[]",:\n\r\\=a1 \ufeff', max_size=80).map(str.encode))
@pytest.mark.parametrize("form", ["json", "csv", "influx", "text"])
def test_no_line_is_dropped(form: str, data: bytes) -> None:
    """Whatever a file holds, each line that is not blank is in a record, in order."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return
    found = records(data, form)

    texts = [payload for _, payload in found]
    if form == "csv":
        first = header_of(ArchiveLines(io.BytesIO(data)), "csv", {})
        texts = [first, *(payload.removeprefix(first + b"\n") for payload in texts)]
    seen = [line.removesuffix(b"\r") for text in texts for line in text.split(b"\n") if line.strip()]
    wanted = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    assert seen == [line.removesuffix(b"\r") for line in wanted if line.strip()]


def test_an_unclosed_quote_costs_its_own_line_only() -> None:
    """What would be one cell of a megabyte is a fault of the line that opens it."""
    rest = b"1,2\n" * 300_000
    found = records(b'x,y\n3,"4\n' + rest, "csv")

    assert found[:3] == [(2, b'x,y\n3,"4'), (3, b"x,y\n1,2"), (4, b"x,y\n1,2")]
    assert len(found) == 300_001


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf", b"utf-16"])
def test_marks_of_encodings_are_no_content(mark: bytes) -> None:
    """As in samples."""
    text = '{"ö": 1}\n{"ö": 2}\n'
    data = text.encode("utf-16") if mark == b"utf-16" else mark + text.encode()

    assert [payload.decode() for _, payload in records(data)] == text.split("\n")[:2]


# --- the source ---


class TestContract(SourceContract):
    """Archives fulfil the contract of every source; they have an end, so nothing comes later."""

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.path = tmp_path / "in.ndjson"
        self.state = tmp_path / "state"

    def fill(self, payloads: Sequence[bytes], partition: int = 0) -> None:
        with self.path.open("ab") as file:
            file.writelines(payload + b"\n" for payload in payloads)

    def source(self, *, until_end: bool = True, batch_size: int = 10) -> ArchiveSource:
        return source([self.path], self.state, batch_size=batch_size)

    test_an_empty_source_returns_none_and_reads_later_messages = None  # type: ignore[assignment]


def archives_at(paths: Sequence[Path | str]) -> list[Archive]:
    return find_archives([str(path) for path in paths])


def source(paths: Sequence[Path | str], folder: Path, reading: Reading | None = None, **more: Any) -> ArchiveSource:
    archives = archives_at(paths)
    return ArchiveSource(archives, reading or Reading(), lambda each: position_state(folder, "r", each), **more)


async def rest(from_source: ArchiveSource) -> list[Message]:
    """Return all that is left; acknowledge nothing."""
    found: list[Message] = []
    try:
        while True:
            if batch := await from_source.read():
                found += batch.messages
    except EndOfInput:
        return found


def file_of(folder: Path, form: str, numbers: Sequence[int], packed: str, encoding: str = "utf-8") -> Path:
    """Write an archive in which each number is in one record."""
    texts = {
        "json": "".join(f'{{"n": "N{number};"}}\n\n' for number in numbers),
        "documents": "".join(json.dumps({"n": f"N{number};"}, indent=2) + "\n" for number in numbers),
        "csv": "n,text\n" + "".join(f'N{number};,"a\n""b"\n' for number in numbers),
        "influx": "".join(f'm,t=N{number}; s="x\ny" 1\n' for number in numbers),
    }
    texts["whole"] = texts["csv"]
    path = folder / f"{form}-{numbers[0] if numbers else 'none'}.txt{packed}"
    path.write_bytes(PACK[packed](texts[form].encode(encoding)))
    return path


@pytest.mark.parametrize("form", ["json", "documents", "csv", "influx", "whole"])
@settings(max_examples=25)
@given(data=st.data(), packed=st.sampled_from(list(PACK)))
def test_killed_anywhere_the_next_run_makes_the_same_of_the_rest(
    tmp_path_factory: pytest.TempPathFactory, form: str, packed: str, data: st.DataObject
) -> None:
    """Runs that end without a word after any acknowledgements: all messages together are those of one whole run."""
    folder = tmp_path_factory.mktemp("archive")
    encoding = data.draw(st.sampled_from(["utf-8", "utf-16"]))
    sizes = data.draw(st.lists(st.integers(0, 12), min_size=1, max_size=3))
    paths = [file_of(folder, form, range(100 * at, 100 * at + size), packed, encoding) for at, size in enumerate(sizes)]
    named = {"documents": "json", "whole": "csv"}.get(form, form)
    reading = Reading(form=named, stream="s", topic="t", whole=form == "whole")
    whole, stored = drive(_whole(paths, {}, reading)), dict[str, Any]()
    numbers = [int(number) for each in whole for number in re.findall(rb"N(\d+);", each.payload)]

    settled: list[Message] = []

    async def run(*, is_killed: bool) -> bool:
        """Run until a kill or the end; return whether it is the end."""
        size = data.draw(st.integers(1, 5))
        one = ArchiveSource(archives_at(paths), reading, lambda each: MemoryState(stored, each.key), batch_size=size)
        await one.connect()
        open_: list[Batch] = []
        try:
            while True:
                batch = await one.read()
                assert batch is not None
                open_.append(batch)
                if data.draw(st.booleans()):
                    first = open_.pop(0)
                    taken = data.draw(st.integers(1, len(first.messages)))
                    part = first.part(0, taken)
                    await one.ack([part.last])
                    settled.extend(part.messages)
                    if taken < len(first.messages):
                        return False
                if is_killed and data.draw(st.integers(0, 3)) == 0:
                    return False
        except EndOfInput:
            for batch in open_:
                await one.ack([batch.last])
                settled.extend(batch.messages)
            return True
        finally:
            await one.close()

    for number in range(200):
        if drive(run(is_killed=number < 9)):  # else nothing may ever be settled
            break
    else:
        pytest.fail("no run came to the end")
    assert sorted(numbers) == sorted(100 * at + index for at, size in enumerate(sizes) for index in range(size))
    assert settled == whole
    assert drive(_whole(paths, stored, reading)) == []


async def _whole(paths: Sequence[Path], stored: dict[str, Any], reading: Reading) -> list[Message]:
    one = ArchiveSource(archives_at(paths), reading, lambda each: MemoryState(stored, each.key))
    await one.connect()
    try:
        return await rest(one)
    finally:
        await one.close()


# --- hostile and changed files ---


@settings(max_examples=30)
@given(cut=st.integers(0, 400), packed=st.sampled_from([".gz", ".bz2", ".zst"]))
def test_what_is_before_the_damage_is_read(tmp_path_factory: pytest.TempPathFactory, cut: int, packed: str) -> None:
    """A file that is cut off gives its first records, then an error with its name; acknowledgements of them count."""
    folder = tmp_path_factory.mktemp("damage")
    lines = [b'{"n": "%x"}' % random.Random(number).getrandbits(160) for number in range(300)]
    path = folder / f"a.ndjson{packed}"
    data = PACK[packed](b"\n".join(lines) + b"\n")
    path.write_bytes(data[: len(data) - 1 - cut * (len(data) - 2) // 400])

    async def main() -> tuple[list[Message], Stopped]:
        one = source([path], folder / "state", batch_size=50)
        await one.connect()
        found: list[Message] = []
        try:
            while True:
                batch = await one.read()
                assert batch is not None
                found += batch.messages
                await one.ack([batch.last])
        except Stopped as error:
            return found, error
        finally:
            await one.close()

    found, error = drive(main())

    assert [each.payload for each in found] == lines[: len(found)]
    assert (error.code, error.reason.startswith(f"{path}:{len(found) + 1}: the ")) == ("IFX504", True)
    assert f"{len(found)} record" in error.reason
    path.write_bytes(data)
    with pytest.raises(Stopped, match="not the file that was read before") if found else pytest.raises(EndOfInput):
        drive(_all_with(source([path], folder / "state")))


async def _all_with(one: ArchiveSource) -> None:
    await one.connect()
    try:
        while True:
            await one.read()
    finally:
        await one.close()


@pytest.mark.parametrize("packed", [".gz", ".bz2", ".zst"])
def test_a_file_that_cannot_be_read_on_does_not_stop_the_others(folder: Path, packed: str) -> None:
    """All that is before the damage, and all of the other files, is stored; the exit code is that of a stop."""
    data = (folder / "a.ndjson").read_bytes()
    (folder / f"b.ndjson{packed}").write_bytes(PACK[packed](random.Random(1).randbytes(90_000).hex().encode())[:-9])
    (folder / "d.ndjson").write_bytes(data.replace(b"Ulm", b"Hof").replace(b'"x"', b"7"))
    args = ("load", "klima.yaml", f"b.ndjson{packed}", "d.ndjson", "a.ndjson", "--pipeline", "pipeline.yaml")

    first, second = iggyflux(*args), iggyflux(*args)

    assert (first.code, second.code) == (3, 3), first.err
    assert len(set(stored(folder))) == 19
    assert f"error[IFX504]: {folder}/b.ndjson{packed}:1: the " in first.err
    assert "2 files were loaded before" in second.err


@pytest.mark.parametrize("change", ["gone", "grown", "replaced"])
def test_a_file_that_changes_before_a_reconnection_does_not_stop_the_others(tmp_path: Path, change: str) -> None:
    """Whether or not it was left already: it is not gone on with, and the others are."""
    paths = [file_of(tmp_path, "json", range(100 * at, 100 * at + 3), "") for at in range(3)]
    data = paths[0].read_bytes()

    async def main() -> tuple[list[Message], Stopped]:
        one = source(paths, tmp_path / "state", batch_size=2)
        await one.connect()
        batch = await one.read()
        assert batch is not None
        await one.ack([batch.last])
        paths[0].unlink()
        if change != "gone":
            paths[0].write_bytes(data + b"{}" if change == "grown" else data.replace(b"N0", b"N7"))
        await one.connect()
        found: list[Message] = []
        try:
            while (batch := await one.read()) is not None:
                found += batch.messages
        except Stopped as error:
            return found, error
        finally:
            await one.close()
        pytest.fail("not reached")

    found, error = drive(main())

    assert [re.findall(rb"N(\d+);", each.payload) for each in found] == [
        [b"%d" % n] for n in (100, 101, 102, 200, 201, 202)
    ]
    assert (error.code, str(paths[0]) in error.reason) == ("IFX710" if change == "gone" else "IFX712", True)


def test_a_file_that_is_replaced_before_it_is_opened_keeps_its_position(tmp_path: Path) -> None:
    """So it is not gone on with by the next load either."""
    path = file_of(tmp_path, "json", range(9), "")

    async def main() -> None:
        one = source([path], tmp_path / "state", batch_size=4)
        await one.connect()
        batch = await one.read()
        assert batch is not None
        await one.ack([batch.last])
        for _ in range(2):
            await one.connect()
            path.write_bytes(path.read_bytes().replace(b"N", b"M"))
            with pytest.raises(Stopped) as stopped:
                await one.read()
            assert stopped.value.code == "IFX712"
            path.write_bytes(path.read_bytes().replace(b"M", b"N"))
            os.utime(path, ns=(0, times))
            assert stored_records() == 4
        await one.close()

    def stored_records() -> int:
        (state,) = (tmp_path / "state").rglob("*.sqlite")
        return int(read_state(state).record["records"])

    os.utime(path, ns=(0, times := 1_700_000_000_000_000_000))
    drive(main())


@pytest.mark.parametrize("packed", [".gz", ".bz2", ".zst"])
def test_what_is_verified_is_sent_only_if_it_is_sound(folder: Path, packed: str) -> None:
    """Without --verify records before the damage are, and the hint says that they may be wrong."""
    rows = (folder / "a.ndjson").read_bytes().replace(b'"x"', b"7")
    blocks = rows + random.Random(1).randbytes(3_000_000).hex().encode()
    (folder / f"b.ndjson{packed}").write_bytes(PACK[packed](rows))
    (folder / f"c.ndjson{packed}").write_bytes(PACK[packed](blocks)[:-9])
    args = ("load", "klima.yaml", f"*.ndjson{packed}", "--pipeline", "pipeline.yaml")

    refused = iggyflux(*args, "--verify")

    assert (refused.code, (folder / "points.lp").exists()) == (3, False), refused.err
    assert f"error[IFX504]: {folder}/c.ndjson{packed}: the " in refused.err
    assert "b.ndjson" not in refused.err
    loaded = iggyflux(*args)
    assert (loaded.code, len(set(stored(folder)))) == (3, 10), loaded.err
    assert "records before that place may be damaged too" in loaded.err
    (folder / f"c.ndjson{packed}").unlink()
    assert iggyflux(*args, "--verify", "--restart").code == 0


def test_each_file_that_was_left_is_named(folder: Path) -> None:
    """In the log as it is left, and their number at the end."""
    for name in ("b", "c"):
        (folder / f"{name}.ndjson.gz").write_bytes(b"no gzip")

    outcome = iggyflux("load", "klima.yaml", "*.gz", "a.ndjson", "--pipeline", "pipeline.yaml")

    assert outcome.code == 3
    assert [outcome.err.count(f'archive.left code=IFX504 reason="{folder}/{name}.ndjson.gz:1') for name in "bc"] == [
        1,
        1,
    ]
    assert "2 of 3 files were not read to their ends; the first: " in outcome.err


@pytest.mark.parametrize("good", [0, 1, 3, 5])
@pytest.mark.parametrize("kind", ["envelope", "document"])
def test_the_next_load_begins_where_the_file_was_left(
    tmp_path: Path, kind: str, good: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the line that is at fault, not after it; the file is released when what is before that is settled."""
    monkeypatch.setattr("iggyflux.archives.records.MAX_PAYLOAD_BYTES", 200)
    path = tmp_path / "a.ndjson"
    if kind == "envelope":
        path.write_bytes(b'{"payload": 1}\n' * good + b'{"ofset": 2}\n{"payload": 2}\n')
        reading = Reading(envelope=True)
    else:
        path.write_bytes(b"[\n1]\n" * good + b"[\n" + b"1,\n" * 200)
        reading = Reading()

    async def main() -> tuple[int, str]:
        one = source([path], tmp_path / "state", reading, batch_size=2)
        await one.connect()
        before, count = descriptors(), 0
        try:
            while True:
                batch = await one.read()
                assert batch is not None
                count += len(batch.messages)
                await one.ack([batch.last])
        except Stopped as error:
            assert descriptors() == before
            return count, error.reason
        finally:
            await one.close()

    (first, why), (second, again) = drive(main()), drive(main())

    assert (first, second, again) == (good, 0, why)


@pytest.mark.slow
def test_a_line_of_a_gigabyte_is_one_failed_record(tmp_path: Path) -> None:
    """A small file that expands to a line without an end does not fill the memory."""
    path = tmp_path / "bomb.ndjson.zst"
    zeros = sample_bytes.zstd.compress(bytes(1 << 30))
    path.write_bytes(zeros + sample_bytes.zstd.compress(b'\n{"n": 1}\n'))
    assert path.stat().st_size < 200_000

    async def main() -> list[Message]:
        one = source([path], tmp_path / "state")
        await one.connect()
        try:
            return await rest(one)
        finally:
            await one.close()

    first, second = drive(main())

    assert len(first.payload) == MAX_PAYLOAD_BYTES + 1
    assert (second.payload, second.offset, second.headers[LINE_HEADER]) == (b'{"n": 1}', 1, 2)


def test_a_json_document_without_an_end_stops_the_file(tmp_path: Path) -> None:
    """It would swallow the rest of the file."""
    path = tmp_path / "a.json"
    path.write_bytes(b"[\n" + (b'"%s",\n' % bytes(b"x" * 9_996)) * (MAX_PAYLOAD_BYTES // 9_999))

    with pytest.raises(Stopped, match=r"a\.json:1: the JSON document that begins here does not end") as stop:
        drive(_all_with(source([path], tmp_path / "state")))

    assert stop.value.code == "IFX503"


@pytest.mark.parametrize("change", ["size", "time", "begin"])
@pytest.mark.parametrize("complete", [False, True])
def test_a_file_that_was_changed_is_not_gone_on_with(tmp_path: Path, change: str, complete: bool) -> None:
    """Its records would be others; where its position is forgotten it is read anew."""
    path = file_of(tmp_path, "json", range(20), "")

    async def begin() -> list[Message]:
        one = source([path], tmp_path / "state", batch_size=20 if complete else 5)
        await one.connect()
        try:
            batch = await one.read()
            assert batch is not None
            await one.ack([batch.last])
            return [*batch.messages, *await rest(one)]
        finally:
            await one.close()

    assert len(drive(begin())) == 20
    before, data = path.stat(), path.read_bytes()
    path.write_bytes({"size": data + b'{"n": "N20;"}', "time": data, "begin": data.replace(b"N0", b"N7")}[change])
    written = before.st_mtime_ns + (0 if change != "time" else 1_000_000)
    os.utime(path, ns=(written, written))

    with pytest.raises(Stopped, match="--restart") as stop:
        drive(begin())

    assert stop.value.code == "IFX712"
    (archive,) = archives_at([path])
    with closing(position_state(tmp_path / "state", "r", archive)) as state:
        state.take()
        state.replace(None)
    assert len(drive(begin())) == 20 + (change == "size")


def test_a_file_that_grows_while_it_is_read_is_not_complete(tmp_path: Path) -> None:
    """What came after its end was read would never be read."""
    path = file_of(tmp_path, "json", range(3), "")

    async def main() -> None:
        one = source([path], tmp_path / "state")
        await one.connect()
        try:
            await one.read()
            with path.open("ab") as file:
                file.write(b'{"n": 4}\n')
            while True:
                await one.read()
        finally:
            await one.close()

    with pytest.raises(Stopped, match="changed while it was read"):
        drive(main())


def test_what_was_read_of_a_file_that_changed_is_measured(tmp_path: Path) -> None:
    """How far it expands is a guess for those after it."""
    for name in "ab":
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(b'{"wert": 1}\n' * 400_000))
    packed = (tmp_path / "b.gz").stat().st_size

    async def main() -> int:
        one = source([tmp_path / "a.gz", tmp_path / "b.gz"], tmp_path / "state", batch_size=500_000)
        await one.connect()
        try:
            await one.read()
            os.utime(tmp_path / "a.gz", ns=(1, 1))
            await one.read()
            return one._extent._seen
        finally:
            await one.close()

    assert drive(main()) >= (1 << 20) + packed


@pytest.mark.parametrize("order", [["a", "b.gz"], ["b.gz", "a"], ["b.gz", "c.gz", "a"]])
def test_what_is_read_is_measured_in_content(tmp_path: Path, order: list[str]) -> None:
    """A compressed file is as much as a plain one of the same content; nothing is forgotten, and the end is 1."""
    draw = random.Random(3)
    data = b"".join(b'{"wert": %d, "ort": "Halle %d"}\n' % (draw.randrange(9999), n % 7) for n in range(40_000))
    for name in order:
        (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    size = 40_000 * len(order)

    async def main() -> None:
        one = source([tmp_path / name for name in order], tmp_path / "state", batch_size=2000)
        await one.connect()
        count = 0
        try:
            while (batch := await one.read()) is not None:
                count += len(batch.messages)
                now = one.progress
                assert now.done / now.total == pytest.approx(count / size, abs=0.25)
        except EndOfInput:
            assert (one.progress.done, one.progress.total) == (len(order) * len(data),) * 2
        finally:
            await one.close()

    drive(main())


# --- many files ---


@pytest.mark.parametrize("bad", [b"", b'{"ofset": 2}\n'])
@pytest.mark.parametrize("allowed", [100, 256])
def test_files_that_are_not_settled_do_not_add_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, allowed: int, bad: bytes
) -> None:
    """As many wait as may have half of the descriptors, two each; also of files that are left."""
    monkeypatch.setattr(source_module.resource, "getrlimit", lambda _: (allowed, allowed))
    for number in range(150):
        (tmp_path / f"{number:03}.ndjson").write_bytes(b'{"payload": {"n": %d}}\n' % number + bad * (number % 2))

    async def main() -> tuple[list[int], list[int], set[bytes], bool]:
        one = source(sorted(tmp_path.glob("*.ndjson")), tmp_path / "state", Reading(envelope=True))
        await one.connect()
        before, open_files, found, given_ = descriptors(), list[int](), set[bytes](), list[Batch]()
        waiting = list[int]()
        try:
            while True:
                batch = await one.read()
                assert (batch is None) is one.is_full
                if batch is not None:
                    given_.append(batch)
                    found.update(each.payload for each in batch.messages)
                    continue
                open_files.append(descriptors() - before)
                waiting.append(len(given_))
                await one.ack([each.last for each in given_])
                given_.clear()
        except (EndOfInput, Stopped):
            await one.ack([each.last for each in given_])
            return open_files, waiting, found, descriptors() == before
        finally:
            await one.close()

    open_files, waiting, found, is_closed = drive(main())

    assert set(waiting) == {allowed // 4}
    assert max(open_files) <= allowed // 2
    assert (len(found), is_closed) == (150, True)


def descriptors() -> int:
    return sum(1 for _ in Path("/dev/fd").iterdir())


def test_many_small_files_are_loaded_with_few_descriptors(folder: Path) -> None:
    """More of them than a process may have open."""
    row = '{"ort": "Ulm", "grad": 1, "zeit": %d}\n'
    for number in range(200):
        (folder / f"k{number}.ndjson").write_text(row % (SINCE + number), "utf-8")
    args = [sys.executable, "-m", "iggyflux", "load", "klima.yaml", "k*.ndjson", "--pipeline", "pipeline.yaml"]

    done = subprocess.run(
        args,
        capture_output=True,
        text=True,
        timeout=120,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (130, 130)),
    )

    assert done.returncode == 0, done.stderr
    assert len(set(stored(folder))) == 200


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (FileNotFoundError(), "No such file"),
        (PermissionError(), "Permission denied"),
        (io.UnsupportedOperation("seek"), "UnsupportedOperation"),
        (OSError(5, "Input/output error"), "Input/output error"),
        (OSError("x"), "OSError"),
    ],
)
def test_an_error_without_words_is_named_by_what_it_is(error: OSError, words: str) -> None:
    """Not each of them is a lack of permissions."""
    with pytest.raises(Stopped) as stop, reading("a.ndjson", None):
        raise error

    assert (stop.value.code, stop.value.reason) == ("IFX710", f"cannot read a.ndjson: {words}")


# --- object stores ---

CANARY = "kanarienvogel-7f3a"


@pytest.fixture
def store() -> Iterator[Any]:
    """An object store in memory, as fsspec knows them by URL."""
    filesystem = fsspec.filesystem("memory")
    yield filesystem
    filesystem.store.clear()
    filesystem.pseudo_dirs[:] = [""]


def test_urls_and_globs_of_an_object_store_are_read_and_gone_on_with(tmp_path: Path, store: Any) -> None:
    """As files are: sorted, expanded by name, left out when complete."""
    for number in range(3):
        store.pipe(f"/kübel/{number}.ndjson.gz", gzip.compress(b'{"n": %d}\n' % number))

    async def main(paths: list[str]) -> list[tuple[bytes, object]]:
        one = source(paths, tmp_path)
        await one.connect()
        try:
            found = []
            while True:
                batch = await one.read()
                assert batch is not None
                await one.ack([batch.last])
                found += [(each.payload, each.headers[FILE_HEADER]) for each in batch.messages]
        except EndOfInput:
            return found
        finally:
            await one.close()

    first = drive(main(["memory://kübel/1.ndjson.gz"]))
    others = drive(main(["memory://kübel/*.gz"]))

    assert first == [(b'{"n": 1}', "memory://kübel/1.ndjson.gz")]
    assert [payload for payload, _ in others] == [b'{"n": 0}', b'{"n": 2}']


@given(
    user=st.text(alphabet="ab%@:", max_size=4),
    path=st.text(alphabet="abä/.", min_size=1, max_size=8),
    query=st.sampled_from(["", f"?X-Amz-Signature={CANARY}", f"?sig={CANARY}#a"]),
)
def test_the_name_of_a_url_has_no_secret(user: str, path: str, query: str) -> None:
    """Neither its login nor its query."""
    name = name_of(f"s3://{user}:{CANARY}@bucket/{path}{query}")

    assert name == f"s3://bucket/{path}"


def test_no_error_of_an_object_store_shows_a_secret(
    tmp_path: Path, store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Libraries quote URLs, logins and keys in their errors."""
    url = f"memory://hans:{CANARY}@kübel/a.ndjson?X-Amz-Signature={CANARY}%2F1"
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", f"aws-{CANARY}")

    def fail(*_args: Any, **_more: Any) -> Any:
        raise ValueError(f"refused: {url} signed with aws-{CANARY} and {CANARY}/1")

    monkeypatch.setattr(type(store), "info", fail)
    with pytest.raises(NotConnected) as error:
        find_archives([url])

    assert CANARY not in str(error.value)
    assert "refused: " in str(error.value)


# --- the command ---

SINCE = 1_700_000_000
PIPELINE = "iggyflux: 1\nto: file:points.lp\nrun: [{mapping: klima.yaml, from: log:data}]\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a mapping, a pipeline and an archive of 10 records, one of them bad."""
    (tmp_path / "klima.yaml").write_text(DOCUMENT, "utf-8")
    (tmp_path / "pipeline.yaml").write_text(PIPELINE, "utf-8")
    rows = [{"ort": "Ulm", "grad": "x" if number == 4 else number, "zeit": SINCE + number} for number in range(10)]
    (tmp_path / "a.ndjson").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def stored(folder: Path) -> list[str]:
    return (folder / "points.lp").read_text("utf-8").splitlines()


def test_a_load_names_what_failed_and_replay_sends_it_again(folder: Path) -> None:
    """By file and line, in the report and in the dead letter."""
    outcome = iggyflux("load", "klima.yaml", "a.ndjson", "--pipeline", "pipeline.yaml")

    assert outcome.code == 1, outcome.err
    assert "\na.ndjson:5: error[IFX340]: expected a number" in outcome.err
    assert stored(folder) == [
        f"klima,ort=Ulm grad={number}.0 {SINCE + number}000000000" for number in range(10) if number != 4
    ]
    assert "a.ndjson:5  unknown  klima  IFX340" in iggyflux("dead-letters", "list", "dead-letters/klima").out
    for place, code in (("a.ndjson:5", 0), ("./a.ndjson:5", 0), (f"{folder}/a.ndjson:5", 0), ("a.ndjson:6", 1)):
        shown = iggyflux("dead-letters", "show", "dead-letters/klima", place)
        assert (shown.code, shown.out.startswith("a.ndjson:5\n")) == (code, not code)

    (folder / "klima.yaml").write_text(DOCUMENT.replace("grad: grad", "grad: 'length(grad)'"), "utf-8")
    again = iggyflux("replay", "dead-letters/klima", "--pipeline", "pipeline.yaml")

    assert again.code == 0, again.err
    assert stored(folder)[-1] == f"klima,ort=Ulm grad=1.0 {SINCE + 4}000000000"


def test_equal_failures_are_one_line_with_their_number(folder: Path) -> None:
    """Of each reason the first place is named; other reasons are counted, and the numbers add up."""
    rows = [{"ort": "Ulm", "grad": "nass" if number % 2 else f"t{number}", "zeit": SINCE} for number in range(60)]
    (folder / "a.ndjson").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")

    outcome = iggyflux("load", "klima.yaml", "a.ndjson", "--pipeline", "pipeline.yaml", "--quiet")

    *shown, others, total = [line for line in outcome.err.splitlines() if "IFX340" in line or line.startswith("…")]
    first, second = shown[:2]
    assert first.startswith("a.ndjson:1: error[IFX340]: expected a number, found string 't0'")
    assert "more failure" not in first
    assert second.startswith("a.ndjson:2: error[IFX340]: expected a number, found string 'nass'")
    assert second.endswith("; and 29 more failures for this reason")
    assert (len(shown), others) == (20, "… and 11 more failures for other reasons")
    assert total == f"failed: IFX340 ×{20 + 29 + 11}"


@pytest.mark.parametrize("dry", [["--dry-run"], []])
def test_a_letter_of_an_archive_is_not_replayed_with_a_time_that_it_does_not_have(folder: Path, dry: list[str]) -> None:
    """Its message has no time of arrival: the point would be of 1970."""
    assert iggyflux("load", "klima.yaml", "a.ndjson", "--pipeline", "pipeline.yaml").code == 1
    before = stored(folder)
    by_arrival = DOCUMENT.replace("grad: grad", "grad: 'length(grad)'").partition("  timestamp")[0]
    (folder / "klima.yaml").write_text(by_arrival, "utf-8")

    again = iggyflux("replay", "dead-letters/klima", "--pipeline", "pipeline.yaml", *dry)

    assert (again.code, again.out, stored(folder)) == (1, "", before)
    assert "1 of 1 letter of mapping 'klima' have no time of arrival" in again.err


@pytest.mark.parametrize("word", ["NaN", " -Infinity"])
def test_a_line_that_is_no_number_is_called_so(folder: Path, word: str) -> None:
    """Also where `on_bad_value: omit` takes such words for null: it is not a missing tag of an object."""
    text = DOCUMENT.replace("[ort]", "{ort: {expr: ort, required: true}}")
    (folder / "a.ndjson").write_text(f"{word}\n", "utf-8")
    for each in (text, text.replace("messung}", "messung, on_bad_value: omit}")):
        (folder / "klima.yaml").write_text(each, "utf-8")
        outcome = iggyflux("load", "klima.yaml", "a.ndjson", "--dry-run")
        assert f"error[IFX404]: the payload is {word.strip()}, which JSON does not allow" in outcome.err


def test_events_name_file_and_line(folder: Path) -> None:
    """Offsets count from 0 in each file."""
    (folder / "klima.yaml").write_text(
        DOCUMENT.replace("messung}", "messung, on_bad_value: omit}").replace("{grad:", "{n: zeit, grad:"), "utf-8"
    )
    (folder / "b.ndjson").write_text('{"ort": "Ulm", "grad": 1, "zeit": 1}\n\n{"ort": "x", "grad": "y", "zeit": 1}\n')

    outcome = iggyflux("load", "klima.yaml", "b.ndjson", "--pipeline", "pipeline.yaml", "--log-format", "text")

    assert f"value.omitted route=klima at={folder}/b.ndjson:3 " in outcome.err


def test_a_file_with_several_names_is_loaded_once_and_told(folder: Path) -> None:
    """By glob and path, by a link, by another way to it."""
    (folder / "link.ndjson").symlink_to("a.ndjson")

    outcome = iggyflux("load", "klima.yaml", "./a.ndjson", "*.ndjson", "--pipeline", "pipeline.yaml")

    assert len(stored(folder)) == 9
    assert f"2 names are of files that are named before and loaded once: {folder}/a.ndjson, …" in outcome.err


def test_a_link_to_a_folder_above_does_not_hold_up_a_glob(folder: Path) -> None:
    """It leads to the same files again and again; a link to itself leads nowhere."""
    (folder / "park/nord").mkdir(parents=True)
    shutil.copy("a.ndjson", "park/nord")
    (folder / "park/nord/auf").symlink_to("..")

    for pattern in ("park/**", "park/**/*", "park/**/*.ndjson"):
        assert len(find_archives([pattern])) == 1, pattern

    (folder / "park/nord/selbst").symlink_to("selbst")
    with pytest.raises(IggyfluxError, match="Too many levels of symbolic links"):
        find_archives(["park/**/*"])


@pytest.mark.parametrize("inode", [0, 7])
def test_files_are_not_taken_for_one_by_a_number_that_says_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, inode: int
) -> None:
    """Some file systems number no files, or give a number twice."""
    (folder / "b.ndjson").write_text("{}" * (1 if inode else 290))
    os.utime(folder / "b.ndjson", ns=((folder / "a.ndjson").stat().st_mtime_ns,) * 2)
    stat = Path.stat

    def numbered(path: Path, **more: Any) -> Any:
        found = stat(path, **more)
        names = ("st_mode", "st_dev", "st_size", "st_mtime_ns")
        return SimpleNamespace(st_ino=inode, **{name: getattr(found, name) for name in names})

    monkeypatch.setattr(Path, "stat", numbered)
    again: list[str] = []

    found = find_archives(["*.ndjson", "./a.ndjson"], again)

    monkeypatch.undo()
    assert [each.name for each in found] == [f"{folder}/{name}.ndjson" for name in "ab"]
    assert again == [f"{folder}/a.ndjson"]


def test_a_forgotten_mapping_is_told(folder: Path) -> None:
    """The first file is not described as a wrong document."""
    (folder / "big.csv").write_bytes(b"x" * 2_000_000)
    for args in (["a.ndjson", "--pipeline", "pipeline.yaml"], ["big.csv", "a.ndjson", "--pipeline", "pipeline.yaml"]):
        outcome = iggyflux("load", *args)
        assert (outcome.code, f"{args[0]} is no mapping" in outcome.err) == (2, True), outcome.err
    assert "a.ndjson is no pipeline" in iggyflux("run", "a.ndjson").err
    outcome = iggyflux("load", "klima.yaml", "--pipeline", "pipeline.yaml")
    assert (outcome.code, "Missing argument 'PATH...'" in outcome.err) == (2, True)


def test_a_loaded_file_of_another_plan_is_named(folder: Path) -> None:
    assert iggyflux("load", "klima.yaml", "a.ndjson", "--pipeline", "pipeline.yaml").code == 1
    (folder / "klima.yaml").write_text(DOCUMENT.replace("grad: grad", "celsius: grad"), "utf-8")

    again = iggyflux("load", "klima.yaml", "a.ndjson", "--pipeline", "pipeline.yaml", "--log-format", "text")

    assert "archive.plan_changed" in again.err
    assert "1 file was loaded before" in again.err


def test_failures_that_differ_in_their_place_are_reported_together(folder: Path) -> None:
    """A damaged file had twenty lines of one kind, each with another byte."""
    lines = [f'{{"ort": "Ulm", "grad": {"1" * number}' for number in range(1, 40)]
    (folder / "a.ndjson").write_text("\n".join([*lines[:20], '{"ort": NaN}', *lines[20:], "[}"]), "utf-8")
    outcome = iggyflux("load", "klima.yaml", "a.ndjson", "--pipeline", "pipeline.yaml")

    *shown, total = [line for line in outcome.err.splitlines() if line.startswith(("a.ndjson:", "failed"))]
    assert [line.partition(" ")[0] for line in shown] == ["a.ndjson:1:", "a.ndjson:21:", "a.ndjson:41:"]
    assert "; and 38 more failures for this reason" in shown[0]
    assert total == "failed: IFX404 ×41"


def test_a_file_whose_name_is_not_utf8_is_loaded(folder: Path) -> None:
    """As archives of older systems have them: its position, and a letter of it, could not be stored."""
    file = os.fsdecode(os.fsencode(folder) + b"/caf\xe9.ndjson")
    Path(file).write_text('{"ort": "Ulm", "grad": 1, "zeit": 1700000077}\n{"ort": "Ulm", "grad": "kalt"}\n', "utf-8")
    args = ("load", "klima.yaml", file, "--pipeline", "pipeline.yaml")
    shown = r"caf\xe9.ndjson:2"

    first, again, glob = iggyflux(*args), iggyflux(*args), iggyflux(*args[:2], "caf*", *args[3:])

    assert (first.code, again.code, glob.code) == (1, 0, 0), first.err
    assert stored(folder) == ["klima,ort=Ulm grad=1.0 1700000077000000000"]
    assert shown in iggyflux("dead-letters", "list", "dead-letters/klima").out
    assert iggyflux("dead-letters", "show", "dead-letters/klima", shown).code == 0
    assert "1 file loaded, 2 records" in iggyflux("status", "pipeline.yaml").out
    assert "note: 1 dead letter of these files" in iggyflux(*args, "--restart").err
    assert "1 dead letter in" in iggyflux("dead-letters", "list", "dead-letters/klima").err


def test_a_load_counts_the_letters_that_retention_removes(folder: Path) -> None:
    """The summary said that all of them are kept."""
    (folder / "pipeline.yaml").write_text(
        "iggyflux: 1\nto: file:points.lp\nrun: [{mapping: klima.yaml, dead_letters: {path: kept, max_bytes: 4kB}}]\n"
    )
    (folder / "a.ndjson").write_text('{"ort": "Ulm", "grad": "warm", "zeit": 1700000000}\n' * 12_000, "utf-8")

    loaded = iggyflux("load", "klima.yaml", "a.ndjson", "--pipeline", "pipeline.yaml")
    kept = json.loads(iggyflux("dead-letters", "summary", "kept", "--format", "json").out)["letters"]

    assert 0 < kept < 12_000
    assert f"12,000 kept as dead letters, {12_000 - kept:,} dead letters removed by retention" in loaded.err


def test_letters_of_files_are_chosen_by_when_they_were_kept(folder: Path) -> None:
    """Their messages did not arrive: letters of today counted as older than any time, and `prune` removed them."""
    (folder / "b.ndjson").write_text('{"grad": "warm"}\n', "utf-8")
    assert iggyflux("load", "klima.yaml", "b.ndjson", "--pipeline", "pipeline.yaml").code == 1
    began = "2026-01-01T00:00:00Z"
    path = "dead-letters/klima"

    for command in ("list", "summary"):
        assert "1 dead letter" in iggyflux("dead-letters", command, path, "--since", began).err
        assert "0 dead letters" in iggyflux("dead-letters", command, path, "--until", began).err
    assert "unknown" not in iggyflux("dead-letters", "summary", path).out
    iggyflux("dead-letters", "prune", path, "--until", began, "--yes")
    assert "1 dead letter" in iggyflux("dead-letters", "list", path).err
    iggyflux("dead-letters", "prune", path, "--until", "2100-01-01T00:00:00Z", "--yes")
    assert "0 dead letters" in iggyflux("dead-letters", "list", path).err


def test_what_concerns_many_files_is_told_once(folder: Path) -> None:
    """Of a large archive there was a warning for each file, and of several changed files the first one was named."""
    args = ("load", "klima.yaml", "*.ndjson", "--pipeline", "pipeline.yaml", "--log-format", "text")
    for name in "bcd":
        shutil.copy("a.ndjson", f"{name}.ndjson")
    assert iggyflux(*args).code == 1
    (folder / "klima.yaml").write_text(DOCUMENT.replace("grad: grad", "celsius: grad"), "utf-8")

    other_plan = iggyflux(*args)
    for name in "bcd":
        (folder / f"{name}.ndjson").write_text("{}\n", "utf-8")
    changed = iggyflux(*args)

    assert other_plan.err.count("archive.plan_changed") == 1
    assert f"file={folder}/a.ndjson files=4 records=40" in other_plan.err
    assert (
        f"{folder}/b.ndjson: it is not the file that was read before; the same holds for 2 other files" in changed.err
    )
    assert "load these alone with --restart" in changed.err


def test_a_second_load_leaves_out_what_was_loaded(folder: Path) -> None:
    """Unless it is reported to begin again."""
    args = ("load", "klima.yaml", "*.ndjson", "--pipeline", "pipeline.yaml")
    iggyflux(*args)
    (folder / "b.ndjson").write_text('{"ort": "Bonn", "grad": 1, "zeit": 1700000077}\n', "utf-8")

    second, third = iggyflux(*args), iggyflux(*args, "--restart")

    assert second.code == 0
    assert "klima  done: 1 message, 1 point written" in second.err
    assert "note: 1 file was loaded before (--restart loads them again)" in second.err
    assert "klima  done: 11 messages, 10 points written" in third.err
    assert sorted(set(stored(folder))) == sorted(stored(folder)[:10])
    status = iggyflux("status", "pipeline.yaml").out
    assert "  2 files loaded, 11 records" in status
    shown = iggyflux("state", "show", ".iggyflux").out
    assert f"load of klima from {folder}/a.ndjson\n  settled to 10 records, its end" in shown


def test_a_load_that_begins_again_leaves_one_letter_of_a_record(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the letter was replayed.  Letters of other files and pipelines stay, and so does a damaged line."""
    (folder / "other.yaml").write_text(PIPELINE.replace("points.lp", "other.lp"), "utf-8")
    for name, grades in (("b", "xyz"), ("c", "x")):
        rows = [{"ort": "Ulm", "grad": grad, "zeit": SINCE} for grad in grades]
        (folder / f"{name}.ndjson").write_text("".join(f"{json.dumps(row)}\n" for row in rows), "utf-8")
    letters = folder / "dead-letters" / "klima"

    def load(*names: str, pipeline: str = "pipeline.yaml") -> Any:
        return iggyflux("load", "klima.yaml", *names, "--pipeline", pipeline)

    def kept() -> list[tuple[str, str, bool]]:
        done = iggyflux("dead-letters", "list", str(letters), "--format", "json")
        found = map(json.loads, done.out.splitlines())
        return sorted((each["message"], each["pipeline"], each["replayed"] is not None) for each in found)

    assert load("b.ndjson", "c.ndjson").code == load("a.ndjson", pipeline="other.yaml").code == 1
    (folder / "klima.yaml").write_text(DOCUMENT.replace("grad: grad", "grad: {const: 1.5}"), "utf-8")
    assert iggyflux("replay", str(letters), "--pipeline", "pipeline.yaml").code == 1
    (folder / "klima.yaml").write_text(DOCUMENT, "utf-8")
    of_b = [(f"b.ndjson:{line}", "pipeline.yaml", True) for line in (1, 2, 3)]
    of_others = [("a.ndjson:5", "other.yaml", False), ("c.ndjson:1", "pipeline.yaml", True)]
    assert kept() == sorted(of_b + of_others)
    with (letters / "00000001.ndjson").open("ab") as file:
        file.write(b'{"iggyflux-file":\n')

    monkeypatch.setattr("iggyflux.archives.job._FORGOTTEN_TOGETHER", 1)
    again = load("b.ndjson", "a.ndjson", "--restart")

    assert "note: 3 dead letters of these files, kept before, were removed" in again.err
    (letters / "00000001.ndjson").write_bytes(
        (letters / "00000001.ndjson").read_bytes().replace(b'{"iggyflux-file":\n', b"")
    )
    new = [("a.ndjson:5", "pipeline.yaml", False), *((each, file, False) for each, file, _ in of_b)]
    assert kept() == sorted(new + of_others)


def test_a_load_that_dies_while_it_removes_letters_loads_their_records(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So each record is loaded, kept as a letter, or still to be loaded, at any time.

    One that fails again is a letter to replay, also with the words of a letter that was replayed.
    """
    args = ("load", "klima.yaml", "a.ndjson", "--pipeline", "pipeline.yaml")
    iggyflux(*args)
    letters = str(folder / "dead-letters" / "klima")
    (folder / "klima.yaml").write_text(DOCUMENT.replace("grad: grad", "grad: {const: 1.5}"), "utf-8")
    assert iggyflux("replay", letters, "--pipeline", "pipeline.yaml").code == 0
    (folder / "klima.yaml").write_text(DOCUMENT, "utf-8")

    def dying(*_given: Any) -> int:
        raise Stopped("killed", None, "IFX715")

    with monkeypatch.context() as patch:
        patch.setattr("iggyflux.archives.job.remove_letters", dying)
        assert "IFX715" in iggyflux(*args, "--restart").err

    assert "klima  done: 10 messages, 9 points written" in iggyflux(*args).err
    listed = iggyflux("dead-letters", "list", letters, "--format", "json", "--not-replayed")
    assert {json.loads(line)["message"] for line in listed.out.splitlines()} == {"a.ndjson:5"}


def test_files_that_another_load_has_are_not_loaded_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of them is forgotten; and while letters are removed no other load keeps one, which would go with them."""
    (folder / "b.ndjson").write_bytes((folder / "a.ndjson").read_bytes())
    args = ("load", "klima.yaml", "a.ndjson", "b.ndjson", "--pipeline", "pipeline.yaml")
    iggyflux(*args)
    letters = folder / "dead-letters" / "klima" / "00000001.ndjson"
    kept = letters.read_bytes()

    with closing(position_state(folder / ".iggyflux", "klima", archives_at([folder / "b.ndjson"])[0])) as state:
        state.take()
        refused = iggyflux(*args, "--restart")

    assert (refused.code, letters.read_bytes()) == (3, kept)
    assert f"error[IFX702]: the position of 'klima' in {folder}/b.ndjson is in use by process" in refused.err
    assert "2 files were loaded before" in iggyflux(*args).err
    others: list[Any] = []

    def removing(*given: Any) -> int:
        others.append(iggyflux(*args))
        return remove_letters(*given)

    monkeypatch.setattr("iggyflux.archives.job.remove_letters", removing)
    assert iggyflux(*args, "--restart").code == 1

    (other,) = others
    assert (other.code, "error[IFX702]" in other.err) == (3, True)
    listed = iggyflux("dead-letters", "list", str(letters.parent), "--format", "json").out.splitlines()
    assert [json.loads(line)["message"] for line in listed] == ["a.ndjson:5", "b.ndjson:5"]


@pytest.mark.parametrize("grows", [True, False])
def test_status_calls_a_file_loaded_that_was_read_to_its_end(folder: Path, grows: bool) -> None:
    """Not one that grew while it was read, nor one whose end was not reached after the last record."""
    path, state = folder / "a.ndjson", folder / ".iggyflux"

    async def main() -> None:
        one = ArchiveSource(
            archives_at([path]), Reading(), lambda each: position_state(state, "klima", each), batch_size=2
        )
        await one.connect()
        read = 0
        try:
            while read < (20 if grows else 10) and (batch := await one.read()) is not None:
                if grows and not read:
                    path.write_bytes(path.read_bytes() * 2)
                read += len(batch.messages)
                await one.ack([batch.last])
        finally:
            await one.close()

    drive(main())
    shown = iggyflux("status", "pipeline.yaml")

    assert (shown.code, "loaded" in shown.out) == (0, False)
    assert f"  load of {path}: {20 if grows else 10} records settled, 99%, not finished\n" in shown.out


@pytest.mark.parametrize("names_state", [True, False])
def test_status_names_why_a_file_was_left(folder: Path, names_state: bool) -> None:
    """Until a good copy is loaded: without --restart if no record of the damaged one was settled."""
    (folder / "pipeline.yaml").write_text(PIPELINE + ("state: kept\n" if names_state else ""), "utf-8")
    row = '{{"ort": "{:x}", "grad": 1, "zeit": 1700000000}}\n'
    good = gzip.compress("".join(row.format(random.Random(n).getrandbits(160)) for n in range(900)).encode())
    files = [folder / "b.ndjson.gz", folder / "c.ndjson.gz"]
    for file, data in zip(files, (good[:-9], b"no gzip"), strict=True):
        file.write_bytes(data)
    args = ("load", "klima.yaml", "*.ndjson*", "--pipeline", "pipeline.yaml")

    def loads() -> list[tuple[str, int, float | None, str | None]]:
        (tree,) = json.loads(iggyflux("status", "pipeline.yaml", "--format", "json").out)
        return sorted((Path(each["file"]).name, each["records"], each["share"], each["left"]) for each in tree["loads"])

    assert iggyflux(*args).code == 3
    count = loads()[1][1]
    assert 0 < count <= 900
    assert loads() == [
        ("a.ndjson", 10, 1.0, None),
        ("b.ndjson.gz", count, None, "IFX504"),
        ("c.ndjson.gz", 0, None, "IFX504"),
    ]
    _, _, *shown = iggyflux("status", "pipeline.yaml").out.splitlines()
    nothing = ["  `run` has settled nothing yet"] if names_state else []
    begun = [
        f"  load of {file}: {n} records settled, not finished (IFX504)"
        for file, n in zip(files, (count, 0), strict=True)
    ]
    assert (shown[0], sorted(shown[1:-1] if names_state else shown[1:]), shown[len(shown) - len(nothing) :]) == (
        "  1 file loaded, 10 records",
        begun,
        nothing,
    )

    for file in files:
        file.write_bytes(good)
    assert "IFX712" in iggyflux(*args).err
    assert iggyflux("load", "klima.yaml", "c.ndjson.gz", "--pipeline", "pipeline.yaml").code == 0
    assert iggyflux(*args, "--restart").code == 1
    assert [each[2:] for each in loads()] == [(1.0, None)] * 3


@pytest.mark.parametrize("state", ["", "iggy: {username: u, password: p}\nstate: {stream: werk, topic: stand}\n"])
def test_status_shows_loads_beside_a_position_that_is_damaged(folder: Path, state: str) -> None:
    """And where the pipeline keeps its other positions in a topic: those of loads are in a folder."""
    (folder / "pipeline.yaml").write_text(PIPELINE + state, "utf-8")
    for name in ("b", "c"):
        (folder / f"{name}.ndjson").write_text('{"ort": "Ulm", "grad": 1, "zeit": 1700000000}\n', "utf-8")
    assert iggyflux("load", "klima.yaml", "[bc].ndjson", "--pipeline", "pipeline.yaml").code == 0
    whole = iggyflux("status", "pipeline.yaml")
    first, _ = sorted((folder / ".iggyflux" / "archives" / "klima").glob("*.sqlite"))
    first.write_bytes(b"no database")

    shown = iggyflux("status", "pipeline.yaml")

    assert (whole.code, "  2 files loaded, 2 records" in whole.out) == (0, True)
    assert (shown.code, "  1 file loaded, 1 record" in shown.out) == (3, True)
    assert f"error[IFX701]: cannot use the positions in {first.relative_to(folder)}: it is not a database" in shown.err


@pytest.mark.slow
def test_a_load_that_is_killed_and_run_again_stores_the_same(folder: Path) -> None:
    """A real process, a real kill, twice: nothing is missing, and nothing else is there."""
    count = 40_000
    data = b"".join(b'{"ort": "Ulm", "grad": %d, "zeit": %d}\n' % (number, SINCE + number) for number in range(count))
    (folder / "a.ndjson").write_bytes(data[: len(data) // 2 + 7])
    (folder / "a.ndjson").write_bytes(data)
    (folder / "b.ndjson.gz").write_bytes(gzip.compress(data.replace(b"Ulm", b"Hof"), 1))
    args = ("load", "klima.yaml", "a.ndjson", "b.ndjson.gz", "--pipeline", "pipeline.yaml", "--rate", "40000")
    for at in (3_000, 55_000):
        process = subprocess.Popen([sys.executable, "-m", "iggyflux", *args], stderr=subprocess.PIPE)
        deadline = time.monotonic() + 60
        while not (folder / "points.lp").exists() or len(stored(folder)) < at:
            assert process.poll() is None, process.stderr and process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.communicate()

    outcome = iggyflux(*args[:-2])

    assert outcome.code == 0, outcome.err
    wanted = {
        f"klima,ort={ort} grad={number}.0 {SINCE + number}000000000"
        for ort in ("Ulm", "Hof")
        for number in range(count)
    }
    lines = stored(folder)
    assert set(lines) - {""} >= wanted
    assert {line for line in lines if line not in wanted} == set()
    assert len(lines) < 2 * len(wanted)


LOG = """<?xml version="1.0"?>
<messung>
  <ort>%s</ort>
  <grad>%s</grad>
  <zeit>%d</zeit>
</messung>
"""
WHOLE = DOCUMENT.replace("messung}", "messung, payload: xml}").replace("[ort]", "{ort: messung.ort}")
WHOLE = WHOLE.replace("grad: grad", "grad: {expr: messung.grad, cast: true}")
WHOLE = WHOLE.replace("expr: zeit", "expr: 'parse_number(messung.zeit)'")


def load_whole(*names: str) -> Any:
    return iggyflux("load", "klima.yaml", *names, "--whole", "--pipeline", "pipeline.yaml")


def test_each_file_is_a_message_with_whole(folder: Path) -> None:
    """Documents over lines, compressed or in UTF-16: one that fails is a letter, and damage ends one file."""
    (folder / "klima.yaml").write_text(WHOLE, "utf-8")
    for number, (packed, encoding, grad) in enumerate(
        [
            ("", "utf-8", "1"),
            (".gz", "utf-8", "2"),
            (".zst", "utf-8-sig", "3"),
            ("", "utf-16", "4"),
            ("", "utf-8", "nass"),
        ]
    ):
        text = LOG.replace('<?xml version="1.0"?>', "") % ("Köln", grad, SINCE + number)
        (folder / f"{number}.xml{packed}").write_bytes(PACK[packed](text.encode(encoding)))
    (folder / "5.xml.gz").write_bytes((folder / "1.xml.gz").read_bytes()[:-9])
    (folder / "6.xml").write_text("<messung>", "utf-8")
    (folder / "7.xml").write_text("")

    first, again = load_whole("*.xml*"), load_whole("*.xml*")

    assert stored(folder) == [f"klima,ort=Köln grad={number + 1}.0 {SINCE + number}000000000" for number in range(4)]
    assert first.code == 3
    for place in ("4.xml:1: error[IFX", "6.xml:1: error[IFX404]: not XML", "7.xml:1: error[IFX404]: not XML"):
        assert place in first.err
    assert f"error[IFX504]: {folder}/5.xml.gz:1: the gzip file ends early; 0 records before it" in first.err
    assert (again.code, "7 files were loaded before" in again.err) == (3, True)
    letters = iggyflux("dead-letters", "show", "dead-letters/klima", "4.xml:1", "--payload")
    assert (letters.code, "<grad>nass</grad>" in letters.out) == (0, True)


def test_json_over_lines_and_binary_payloads_are_loaded_whole(folder: Path) -> None:
    """An array that is too long for a document of lines, and what has no lines at all."""
    for name, data in {
        "json": json.dumps([{"ort": "a\nb"}], indent=2).encode(),
        "msgpack": b"\x91\x81\xa3ort\xa1\x0a",
    }.items():
        text = DOCUMENT.replace("messung}", f"messung, payload: {name}}}").replace("points", 'for_each: "@"\npoints')
        text = text.replace("grad: grad", "grad: 'length(ort)'").replace("expr: zeit", "expr: '`5`'")
        (folder / "klima.yaml").write_text(text.replace("  tags: [ort]\n", ""), "utf-8")
        (folder / f"b.{name}").write_bytes(data)

        shown = iggyflux("load", "klima.yaml", f"b.{name}", "--whole", "--dry-run")

        assert (shown.code, shown.out) == (0, f"klima grad={3.0 if name == 'json' else 1.0} 5000000000\n"), shown.err
    refused = iggyflux("load", "klima.yaml", "b.msgpack", "--dry-run")
    assert (refused.code, "add --whole if each file is one of them, else --envelope" in refused.err) == (2, True)


def test_a_line_of_a_whole_file_is_told(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Of the row that failed; a record of a file has only one."""
    text = DOCUMENT.replace("messung}", "messung, payload: csv}").replace("points", 'for_each: "@"\npoints')
    text = text.replace("grad: grad", "grad: {expr: grad, cast: true}")
    text = text.replace("expr: zeit", "expr: 'parse_number(zeit)'")
    (folder / "klima.yaml").write_text(text, "utf-8")
    (folder / "b.csv").write_text(f"ort,grad,zeit\nUlm,1,{SINCE}\nUlm,nass,{SINCE}\n")

    dry = iggyflux("load", "klima.yaml", "b.csv", "--whole", "--dry-run")
    whole = iggyflux("load", "klima.yaml", "b.csv", "--whole", "--pipeline", "pipeline.yaml")

    assert f"{folder}/b.csv:1, line 3: " in dry.err
    assert "\nb.csv:1, line 3: error[IFX340]: expected a number" in whole.err
    assert f"at={folder}/b.csv:1 code=IFX340 " in caplog.text and "payload_line=3" in caplog.text


def test_a_file_in_another_encoding_is_loaded_line_by_line_or_whole(folder: Path) -> None:
    """A byte that the encoding does not have fails its row; the letter has the bytes, and a replay reads them anew."""
    text = DOCUMENT.replace("messung}", "messung, payload: {format: csv, quote: '§', encoding: windows-1252}}")
    text = text.replace("points", 'invalid_names: replace\nfor_each: "@"\npoints').replace(
        "grad: grad", "grad: {expr: grad, cast: true}"
    )
    text = text.replace("expr: zeit", "expr: 'parse_number(zeit)'")
    (folder / "klima.yaml").write_text(text, "utf-8")
    rows = f"ort,grad,zeit\nKöln,1,{SINCE}\n§Burg\nauf €§,2,{SINCE}\nX?,3,{SINCE}\n".encode("windows-1252")
    (folder / "b.csv").write_bytes(rows.replace(b"?", b"\x8d"))

    loaded = iggyflux("load", "klima.yaml", "b.csv", "--pipeline", "pipeline.yaml")
    whole = iggyflux("load", "klima.yaml", "b.csv", "--whole", "--dry-run")
    (folder / "klima.yaml").write_text(text.replace("windows-1252", "cp850"), "utf-8")
    again = iggyflux("replay", "dead-letters/klima", "--pipeline", "pipeline.yaml")

    assert "\nb.csv:5: error[IFX402]: the payload is not windows-1252: undefined byte 0x8d at byte" in loaded.err
    assert whole.code == 1 and f"{folder}/b.csv:1: " in whole.err
    assert again.code == 0, again.err
    assert stored(folder) == [
        f"klima,ort=Köln grad=1.0 {SINCE}000000000",
        rf"klima,ort=Burg_auf\ € grad=2.0 {SINCE}000000000",
        f"klima,ort=Xì grad=3.0 {SINCE}000000000",
    ]


def test_a_file_of_utf_16_with_its_encoding_is_loaded_whole(folder: Path) -> None:
    """Its lines would be read as UTF-8, and not be in the encoding that the mapping declares."""
    text = DOCUMENT.replace("messung}", "messung, payload: {format: csv, encoding: utf-16}}")
    text = text.replace("points", 'for_each: "@"\npoints').replace("grad: grad", "grad: {expr: grad, cast: true}")
    (folder / "klima.yaml").write_text(text.replace("expr: zeit", "expr: 'parse_number(zeit)'"), "utf-8")
    (folder / "b.csv").write_bytes(f"ort,grad,zeit\nKöln,1,{SINCE}\n".encode("utf-16"))

    for command in ("load", "dry-run"):
        dry = ["--dry-run"] if command == "load" else []
        whole = iggyflux(command, "klima.yaml", "b.csv", "--whole", *dry)
        lines = iggyflux(command, "klima.yaml", "b.csv", *dry)

        assert whole.out == f"klima,ort=Köln grad=1.0 {SINCE}000000000\n", whole.err
        assert (lines.code, "utf-16 payloads are binary" in lines.err) == (2, True)


def test_a_file_is_not_gone_on_with_in_another_way(folder: Path) -> None:
    """What is settled are lines, or the file: either number means nothing for the other."""
    (folder / "klima.yaml").write_text(WHOLE, "utf-8")
    (folder / "a.xml").write_text(LOG % ("Ulm", 1, SINCE), "utf-8")
    lines = ("load", "klima.yaml", "a.xml", "--pipeline", "pipeline.yaml")
    hint = "with `--whole`"

    first, second, third = iggyflux(*lines), load_whole("a.xml"), iggyflux(*lines, "--whole", "--restart")
    back = iggyflux(*lines)

    assert (first.code, hint in first.err) == (1, True)
    assert second.code == 3, second.err
    assert (
        "error[IFX712]" in second.err and "loaded without --whole before, and is now to be loaded with it" in second.err
    )
    assert (third.code, stored(folder)) == (0, [f"klima,ort=Ulm grad=1.0 {SINCE}000000000"])
    assert back.code == 3 and "loaded with --whole before" in back.err


@given(
    text=st.text(alphabet="aé\n\0", max_size=40),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    sizes=SIZES,
)
def test_of_a_whole_file_no_more_is_kept_than_a_message_may_have(text: str, encoding: str, sizes: list[int]) -> None:
    """What is larger is one failed message, also if it expands to gigabytes; binary bytes are kept unchanged."""
    data = text.encode(encoding)
    for is_text, meant in ((True, text.encode()), (False, data)):
        file = WholeFile(io.BufferedReader(Dribble(data, sizes), 64), is_text=is_text, limit=len(data) - 1)
        cut = WholeFile(expanded(io.BytesIO(gzip.compress(b"x" * 99)), "a.gz", limit=None), is_text=is_text, limit=5)

        assert list(file.records()) == [(1, meant)]
        assert list(cut.records()) == [(1, b"x" * 6)]


def test_a_dry_run_prints_the_first_lines_and_keeps_nothing(folder: Path) -> None:
    """Also of a file that is expanded, without a pipeline."""
    (folder / "a.ndjson.bz2").write_bytes(bz2.compress((folder / "a.ndjson").read_bytes()))

    outcome = iggyflux("load", "klima.yaml", "a.ndjson.bz2", "--dry-run", "--limit", "2")

    assert outcome.out == f"klima,ort=Ulm grad=0.0 {SINCE}000000000\nklima,ort=Ulm grad=1.0 {SINCE + 1}000000000\n"
    assert sorted(path.name for path in folder.iterdir()) == ["a.ndjson", "a.ndjson.bz2", "klima.yaml", "pipeline.yaml"]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["fehlt.ndjson"], "cannot read fehlt.ndjson: No such file"),
        (["*.csv"], "no file matches '*.csv'"),
        (["."], "is not a file (name its files: './*')"),
        (["nosuch://a/b"], "unknown kind of URL: nosuch://a/b"),
        (["smb://a/b"], "smb:// needs a package: SMB requires"),
        (["a.ndjson", "--limit", "3"], "--limit needs --dry-run"),
        (["a.ndjson", "--whole", "--envelope"], "--whole and --envelope are mutually exclusive"),
        (["a.parquet", "--whole"], "a.parquet has rows, and each is a message"),
        (["a.ndjson", "--route", "x"], "has no route 'x' for klima.yaml"),
        (["a.ndjson", "pipeline.yaml", "--message-time", "2026-01-01T00:00:00Z"], "--message-time is for one file"),
        (["a.ndjson", "--message-time", "gestern"], "expected a time: "),
    ],
)
def test_wrong_usage_is_told(folder: Path, args: list[str], words: str) -> None:
    """Before anything is connected."""
    (folder / "a.parquet").touch()
    outcome = iggyflux("load", "klima.yaml", *args, "--pipeline", "pipeline.yaml")

    assert outcome.code == 2
    assert words in outcome.err


@pytest.mark.parametrize(("url", "package"), [("s3://a/b", "iggyflux[s3]"), ("gs://a/b", "fsspec")])
def test_a_store_without_the_package_for_any_store_names_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch, url: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, "fsspec", None)
    outcome = iggyflux("load", "klima.yaml", url, "--pipeline", "pipeline.yaml")

    assert f"{url.partition('/')[0]}// needs a package: pip install '{package}'" in outcome.err


TIMES = {
    "{expr: zeit, format: unix_s}": False,
    "{expr: zeit, format: unix_s, default: message}": True,
    "{spread: offset}": True,
    "{expr: \"meta('origin_timestamp')\", format: unix_us}": True,
    "{expr: zeit, format: unix_s, spread: offset}": False,
}


@pytest.mark.parametrize("timestamp", TIMES)
@pytest.mark.parametrize(
    "field", ["grad", "meta('timestamp')", "meta('offset')", "length(to_string(meta('timestamp')))"]
)
def test_it_is_known_whether_a_mapping_reads_the_time_of_a_message(timestamp: str, field: str) -> None:
    """A record has none, so such a mapping is refused; measured by rendering one message at two times."""
    text = DOCUMENT.replace("{expr: zeit, format: unix_s}", timestamp).replace("grad: grad", f'grad: "{field}"')
    mapping = parse_mapping(text, name="k.yaml", format="yaml")
    assert mapping.kind == "writer"
    payload = (
        b'{"ort": "a", "grad": 1, "zeit": null}' if "default" in timestamp else b'{"ort": "a", "grad": 1, "zeit": 1}'
    )
    lines = {
        tuple(mapping.plan().render([Message(payload, "werk", "messung", 0, 1, at, at)]).lines)
        for at in (1_000_000, 20_000_000_000)
    }

    assert reads_arrival(mapping.writer) is (len(lines) > 1)


def test_the_time_of_messages_is_given_or_in_envelopes(folder: Path) -> None:
    """Never a guess."""
    (folder / "klima.yaml").write_text(DOCUMENT.split("  timestamp")[0], "utf-8")
    args = ("load", "klima.yaml", "a.ndjson", "--dry-run", "--limit", "2")
    refused, given_ = iggyflux(*args), iggyflux(*args, "--message-time", "2026-01-01T00:00:00Z")
    (folder / "b.ndjson").write_text(
        '{"payload": {"ort": "a", "grad": 1}, "timestamp_us": 5}\n{"payload": {}}\n', "utf-8"
    )
    envelope = iggyflux("load", "klima.yaml", "b.ndjson", "--dry-run", "--envelope")

    assert refused.code == 2
    assert "add --message-time TIME" in refused.err
    assert given_.out == ("klima,ort=Ulm grad=0.0 1767225600000000000\nklima,ort=Ulm grad=1.0 1767225600000001000\n")
    assert (envelope.code, envelope.out) == (3, "")
    assert "b.ndjson:2: the mapping reads the time of the message" in envelope.err


def test_a_rate_is_kept(folder: Path) -> None:
    """Records a second, from the first batch on."""

    async def main() -> float:
        one = source([folder / "a.ndjson"], folder / "state", rate=20)
        await one.connect()
        began = time.monotonic()
        assert len(await rest(one)) == 10
        await one.close()
        return time.monotonic() - began

    assert drive(main()) >= 0.49


def test_two_loads_of_one_file_at_once_are_refused(folder: Path) -> None:
    """The second would send all again, and both would store positions."""

    async def main() -> None:
        first, second = (source([folder / "a.ndjson"], folder / "state") for _ in range(2))
        await first.connect()
        await first.read()
        try:
            await second.connect()
            with pytest.raises(Stopped) as stop:
                await second.read()
            assert stop.value.code == "IFX702"
        finally:
            await second.close()
            await first.close()

    drive(main())


# --- workers ---


@given(sizes=st.lists(st.integers(0, 50), max_size=12), workers=st.integers(1, 5))
def test_workers_share_all_files(sizes: list[int], workers: int) -> None:
    """Each file has one worker, and none has more than another and the largest file."""
    archives = [Archive(f"/{number}", 77, "") for number, _ in enumerate(sizes)]
    left = {f"/{number}": size for number, size in enumerate(sizes)}

    shares = shares_of(archives, workers, left)

    assert sorted(name for share in shares for name in share) == sorted(left)
    loads = [sum(left[name] + 1 for name in share) for share in shares]
    assert max(loads) - min(loads) <= max(sizes, default=-1) + 1


@pytest.mark.slow
def test_a_worker_that_is_killed_is_started_again_and_goes_on(folder: Path) -> None:
    """The store is that of a load by one process."""
    count = 20_000
    for ort in ("Ulm", "Hof", "Bonn"):
        rows = (b'{"ort": "%s", "grad": %d, "zeit": %d}\n' % (ort.encode(), n, SINCE + n) for n in range(count))
        (folder / f"{ort}.ndjson").write_bytes(b"".join(rows))
    with SimServer(1, database="werk") as server:
        text = f"iggyflux: 1\ninfluxdb: {{url: '{server.url}', database: werk}}\nrun: [{{mapping: klima.yaml}}]\n"
        (folder / "pipeline.yaml").write_text(text, "utf-8")
        args = (
            "load",
            "klima.yaml",
            "[A-Z]*.ndjson",
            "--pipeline",
            "pipeline.yaml",
            "--workers",
            "2",
            "--rate",
            "6000",  # so that none of them is done before it is killed
        )
        with subprocess.Popen([sys.executable, "-m", "iggyflux", *args], stderr=subprocess.PIPE, text=True) as loading:
            assert loading.stderr is not None
            pids: list[int] = []
            lines: list[str] = []
            for line in loading.stderr:
                lines.append(line)
                if found := re.search(r"worker\.started worker=\d pid=(\d+)", line):
                    pids.append(int(found[1]))
                if "route.connected" in line and len(pids) == 2:
                    deadline = time.monotonic() + 60
                    while not server.dump() and time.monotonic() < deadline:
                        time.sleep(0.02)
                    os.kill(pids[0], signal.SIGKILL)
                    pids.clear()
            assert loading.wait(60) == 0, "".join(lines)
        stored_there = sorted(server.dump())

    wanted = [
        f"klima,ort={ort} grad={n}.0 {SINCE + n}000000000" for ort in ("Ulm", "Hof", "Bonn") for n in range(count)
    ]
    assert len(stored_there) == len(wanted)
    assert "signal=SIGKILL" in "".join(lines)


def test_a_file_that_is_loaded_takes_no_worker(folder: Path) -> None:
    """Two files are left, so there are two processes, each with one of them."""
    row = '{"ort": "Ulm", "grad": 1, "zeit": 1700000000}\n'
    (folder / "a.ndjson").write_text(row * 90, "utf-8")
    with SimServer(1, database="werk") as server:
        text = f"iggyflux: 1\ninfluxdb: {{url: '{server.url}', database: werk}}\nrun: [{{mapping: klima.yaml}}]\n"
        (folder / "pipeline.yaml").write_text(text, "utf-8")
        assert iggyflux("load", "klima.yaml", "a.ndjson", "--pipeline", "pipeline.yaml").code == 0
        for name in ("b", "c"):
            (folder / f"{name}.ndjson").write_text(row.replace("Ulm", name) + row.replace("1,", '"kalt",') * 2, "utf-8")
        outcome = iggyflux("load", "klima.yaml", "*.ndjson", "--pipeline", "pipeline.yaml", "--workers", "3")
        for name in ("b", "c"):
            (folder / f"{name}.ndjson").write_text(row, "utf-8")
        changed = iggyflux("load", "klima.yaml", "*.ndjson", "--pipeline", "pipeline.yaml", "--workers", "3")

    assert "it is not the file that was read before; the same holds for 1 other file\n" in changed.err
    assert outcome.code == 1, outcome.err
    assert outcome.err.count("worker.started") == 2
    assert len(re.findall(r"route\.done .*read=3 ", outcome.err)) == 2
    assert "failed: IFX340 ×4\n" in outcome.err
    assert "note: 1 file was loaded before" in outcome.err


@pytest.mark.parametrize("change", ["gone", "moved", "grown"])
def test_a_worker_names_a_file_that_is_not_the_one_it_was_given(folder: Path, change: str) -> None:
    """It is gone, begun or not, or another one now: the others are loaded, and the exit code is that of a stop."""
    row = '{"ort": "Ulm", "grad": %d, "zeit": 1700000000}\n'
    for number, name in enumerate(("b", "c")):
        (folder / f"{name}.ndjson").write_text(row % number, "utf-8")
    if change != "gone":
        assert iggyflux("load", "klima.yaml", "b.ndjson", "--pipeline", "pipeline.yaml").code == 0
    if change == "grown":
        (folder / "b.ndjson").write_text(row * 2 % (3, 4), "utf-8")
    else:
        (folder / "b.ndjson").unlink()
    (folder / "only").write_text(json.dumps([f"{folder}/{name}.ndjson" for name in "bc"]), "utf-8")

    args = ["klima.yaml", "b.ndjson", "c.nd*", "--pipeline", "pipeline.yaml", "--only", "only"]
    started = worker_command("load", Share(0, 2))
    outcome = process(*started[started.index("load") :], *args)

    assert outcome.code == 3, outcome.err
    assert stored(folder)[-1] == "klima,ort=Ulm grad=1.0 1700000000000000000"
    (left,) = [event for event in map(json.loads, outcome.err.splitlines()) if event["event"] == "archive.left"]
    assert (left["code"], f"{folder}/b.ndjson" in left["reason"]) == ("IFX712" if change == "grown" else "IFX710", True)


def test_workers_need_a_server_that_many_may_write_to(folder: Path) -> None:
    """A file is written by one process."""
    (folder / "b.ndjson").write_text("{}", "utf-8")
    outcome = iggyflux("load", "klima.yaml", "*.ndjson", "--pipeline", "pipeline.yaml", "--workers", "2")

    assert outcome.code == 2
    assert "--workers needs a route to InfluxDB: one process writes to file:" in outcome.err


# --- Parquet ---


def parquet_file(path: Path, columns: dict[str, Any], *, group: int = 7) -> Path:
    parquet.write_table(pyarrow.table(columns), path, row_group_size=group)
    return path


def test_rows_of_parquet_are_objects_of_exact_values(tmp_path: Path) -> None:
    moments = [1_700_000_000_123_456_789, None, -1]
    columns = {
        "n": pyarrow.array([2**63 - 1, None, -(2**63)]),
        "u": pyarrow.array([2**64 - 1, 0, None], pyarrow.uint64()),
        "f": [1.5, math.nan, -math.inf],
        "t": pyarrow.array(moments, pyarrow.timestamp("ns", tz="Europe/Berlin")),
        "s": pyarrow.array([1, None, 253402300799], pyarrow.timestamp("s")),
        "day": pyarrow.array([date(2026, 1, 31), None, None]),
        "d": pyarrow.array([Decimal("1.10"), None, None]),
        "b": [b"\x00\xff", None, b""],
        "z": [[{"q": "é", "at": datetime(2026, 1, 1, tzinfo=UTC)}], [], None],
    }
    file = RecordFile(archives_at([parquet_file(tmp_path / "a.parquet", columns)])[0], Reading())
    file.begin(None)
    rows = [json.loads(payload) for _, payload in file.take(99)]
    file.raw.release()

    assert [row["n"] for row in rows] == [2**63 - 1, None, -(2**63)]
    assert [row["u"] for row in rows] == [2**64 - 1, 0, None]
    assert repr([row["f"] for row in rows]) == "[1.5, nan, -inf]"
    assert [row["t"] for row in rows] == moments
    assert [row["s"] for row in rows] == [10**9, None, 253402300799 * 10**9]
    assert [rows[0][name] for name in ("day", "d", "b")] == ["2026-01-31", "1.10", "AP8="]
    assert rows[0]["z"] == [{"q": "é", "at": 1_767_225_600_000_000_000}]


def rows_of(path: Path) -> list[dict[str, Any]]:
    file = RecordFile(archives_at([path])[0], Reading())
    try:
        file.begin(None)
        return [json.loads(payload) for _, payload in file.take(99)]
    finally:
        file.raw.release()


_NANOSECONDS = st.integers(-(2**62), 2**62) | st.none()


@settings(max_examples=40)
@given(whole=_NANOSECONDS, of_day=st.integers(0, 86_399_999_999_999), name=st.uuids(), price=st.integers(0, 10**30 - 1))
def test_rows_of_parquet_have_nanoseconds_at_any_depth(
    whole: int | None, of_day: int, name: UUID, price: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Python has times of microseconds; UUIDs and decimals are texts without an exponent."""
    moment, span, clock = pyarrow.timestamp("ns"), pyarrow.duration("ns"), pyarrow.time64("ns")
    nested = pyarrow.struct([("m", pyarrow.list_(moment)), ("s", pyarrow.map_(pyarrow.string(), span)), ("c", clock)])
    plain = pyarrow.array([name.bytes], pyarrow.binary(16))
    with localcontext() as context:
        context.prec = 60
        decimal = Decimal(price).scaleb(-30)
    columns = {
        "span": pyarrow.array([whole], span),
        "clock": pyarrow.array([of_day], clock),
        "nested": pyarrow.array([{"m": [whole], "s": [("k", whole)], "c": of_day}], nested),
        "name": pyarrow.ExtensionArray.from_storage(pyarrow.uuid(), plain),
        "price": pyarrow.array([decimal], pyarrow.decimal256(40, 30)),
    }
    (row,) = rows_of(parquet_file(tmp_path_factory.mktemp("deep") / "a.parquet", columns))

    seconds, rest = divmod(of_day, 10**9)
    written = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{rest:09}"
    assert (row["span"], row["clock"], row["name"]) == (whole, written, str(name))
    assert row["nested"] == {"m": [whole], "s": [["k", whole]], "c": written}
    assert row["price"] == f"0.{price:030}"


@pytest.mark.parametrize("what", ["two columns", "far time"])
def test_a_sound_file_of_parquet_that_cannot_be_read_is_not_called_damaged(what: str, tmp_path: Path) -> None:
    far = pyarrow.array([[10**15]], pyarrow.list_(pyarrow.timestamp("s")))
    columns = [pyarrow.array([1]), pyarrow.array([2])] if what == "two columns" else [far]
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.Table.from_arrays(columns, names=["wet"] * len(columns)), path)

    with pytest.raises(SampleError, match="'wet'") as refused:
        rows_of(path)
    assert (refused.value.code, "damaged" in str(refused.value)) == ("IFX710", False)


@given(group=st.integers(1, 9), count=st.integers(0, 30), sizes=st.lists(st.integers(1, 9), min_size=1, max_size=40))
def test_a_load_of_parquet_goes_on_at_the_row_after_the_last_settled_one(
    group: int, count: int, sizes: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    path = parquet_file(folder / "a.parquet", {"n": pyarrow.array(range(count), pyarrow.int64())}, group=group)
    seen: list[tuple[int, int, object]] = []

    async def part(most: int) -> bool:
        reader = source([path], folder, batch_size=most)
        try:
            await reader.connect()
            batch = await reader.read()
            assert batch is not None
            found = batch.messages
            seen.extend((json.loads(each.payload)["n"], each.offset, each.headers[LINE_HEADER]) for each in found)
            await reader.ack([batch.last])
        except EndOfInput:
            return False
        finally:
            await reader.close()
        return True

    for most in [*sizes, *[50] * 2]:
        if not drive(part(most)):
            break

    assert seen == [(number, number, number + 1) for number in range(count)]


@pytest.mark.parametrize("damage", ["cut", "flipped", "text"])
def test_a_damaged_file_of_parquet_is_named_and_others_are_loaded(damage: str, tmp_path: Path) -> None:
    good = parquet_file(tmp_path / "good.parquet", {"n": list(range(50)), "t": [1] * 50})
    data = good.read_bytes()
    middle = len(data) // 2
    bad = {"cut": data[:middle], "flipped": data[:60] + bytes(40) + data[100:], "text": b"n,t\n1,2\n"}[damage]
    (tmp_path / "bad.parquet").write_bytes(bad)
    (tmp_path / "m.yaml").write_text(
        "iggyflux: 1\nkind: writer\nfrom: {stream: s, topic: t}\n"
        "points: {measurement: {const: m}, fields: [n], timestamp: {expr: n, format: unix_ns}}\n"
    )
    (tmp_path / "p.yaml").write_text(
        f"iggyflux: 1\nrun: [{{mapping: m.yaml, from: stdin, to: 'file:{tmp_path}/o.lp'}}]\n"
    )
    outcome = iggyflux("load", tmp_path / "m.yaml", tmp_path / "bad.parquet", good, "--pipeline", tmp_path / "p.yaml")

    assert outcome.code == 3, outcome.err
    assert "IFX504" in outcome.err
    assert "bad.parquet" in outcome.err
    assert len(set((tmp_path / "o.lp").read_text().splitlines())) == 50


def test_what_parquet_needs_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = parquet_file(tmp_path / "a.parquet", {"n": [1]})
    (tmp_path / "m.yaml").write_text(
        "iggyflux: 1\nkind: writer\nfrom: {stream: s, topic: t, payload: csv}\nfor_each: '@'\n"
        "points: {measurement: {const: m}, fields: [n], timestamp: {expr: n, format: unix_ns}}\n"
    )
    outcome = iggyflux("load", tmp_path / "m.yaml", path, "--dry-run")
    assert (outcome.code, "they need a mapping with `payload: json`" in outcome.err) == (2, True)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    file = RecordFile(archives_at([path])[0], Reading())
    with pytest.raises(Stopped, match="needs a package") as refused:
        file.begin(None)
    file.raw.release()
    assert refused.value.code == "IFX710"
