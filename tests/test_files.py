"""Files, stdin and stdout: the contract of sources, durable positions, envelopes, and lines that are on disk."""

from __future__ import annotations

import asyncio
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iggyflux.delivery.verdicts import Accepted, Impossible
from iggyflux.errors import EndOfInput, Stopped
from iggyflux.payloads import MAX_PAYLOAD_BYTES
from iggyflux.pipeline import Start
from iggyflux.records import Batch, Message, Partition
from iggyflux.transports.local.deadletters import read_dead_letters
from iggyflux.transports.local.envelopes import MAX_LINE_BYTES, EnvelopeError, decode_envelope, envelope_of
from iggyflux.transports.local.files import (
    FileSource,
    LineFileSink,
    StdinSource,
    StdoutSink,
    file_state,
)
from iggyflux.transports.local.input_lines import InputLines, after_last_line
from tests.transports.contract import SourceContract, drive


class TestContract(SourceContract):
    """A file fulfils the contract of every source."""

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.path = tmp_path / "in.ndjson"
        self.state = tmp_path / "state"

    def fill(self, payloads: Sequence[bytes], partition: int = 0) -> None:
        with self.path.open("ab") as file:
            file.writelines(payload + b"\n" for payload in payloads)

    def source(self, *, until_end: bool = True, batch_size: int = 10) -> FileSource:
        return FileSource(self.path, state=file_state(self.state, "c"), until_end=until_end, batch_size=batch_size)


def source(path: Path, **more: object) -> FileSource:
    values: dict[str, object] = {
        "state": file_state(path.parent, path.stem),
        "until_end": True,
        "stream": "s",
        "topic": "t",
    }
    return FileSource(path, **{**values, **more})  # type: ignore[arg-type]


async def read_all(source: FileSource | StdinSource, *, ack: int = 0) -> list[Message]:
    """Return every message to the end; the first `ack` batches are acknowledged."""
    await source.connect()
    batches: list[Batch] = []
    try:
        while True:
            if batch := await source.read():
                batches.append(batch)
                if len(batches) <= ack:
                    await source.ack([batch.last])
    except EndOfInput:
        return [message for batch in batches for message in batch.messages]
    finally:
        await source.close()


def payloads(path: Path, **more: object) -> list[bytes]:
    return [message.payload for message in drive(read_all(source(path, **more)))]


def test_rule_28_a_line_is_a_payload_with_fixed_coordinates(tmp_path: Path) -> None:
    path = tmp_path / "in.ndjson"
    path.write_bytes(b'{"a":1}\n{"a":2}\n')

    first, second = drive(read_all(source(path)))

    assert (first.payload, first.stream, first.topic, first.partition) == (b'{"a":1}', "s", "t", 0)
    assert [(m.offset, m.timestamp_us) for m in (first, second)] == [(0, 946684800000000), (1, 946684800000001)]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", []),
        (b"\n\n", []),
        (b"1", [b"1"]),
        (b"1\n2", [b"1", b"2"]),
        (b"\xef\xbb\xbf1\r\n2\r\n", [b"1", b"2"]),
        (b"\n1\n\n2\n", [b"1", b"2"]),
    ],
    ids=["empty", "blank lines", "no line end", "last line without end", "BOM and CRLF", "blank lines between"],
)
def test_lines_are_read_as_editors_write_them(tmp_path: Path, data: bytes, expected: list[bytes]) -> None:
    path = tmp_path / "in.ndjson"
    path.write_bytes(data)

    assert payloads(path) == expected


def test_a_line_longer_than_a_chunk_is_read_whole(tmp_path: Path) -> None:
    path, long = tmp_path / "in.ndjson", b"x" * 3_000_000
    path.write_bytes(b"1\n" + long + b"\n2\n")

    assert payloads(path) == [b"1", long, b"2"]


def test_an_offset_is_the_line_number_after_a_restart_too(tmp_path: Path) -> None:
    path = tmp_path / "in.ndjson"
    path.write_bytes(b"1\n\n2\n3\n4\n")
    drive(read_all(source(path, batch_size=2), ack=1))

    again = drive(read_all(source(path)))

    assert [(m.offset, m.payload) for m in again] == [(2, b"2"), (3, b"3"), (4, b"4")]


def test_a_last_line_without_its_end_is_waited_for_while_following(tmp_path: Path) -> None:
    path = tmp_path / "in.ndjson"
    path.write_bytes(b"1\n2")

    async def main() -> list[list[bytes] | None]:
        following = source(path, until_end=False)
        await following.connect()
        found = [await following.read(), await following.read()]
        with path.open("ab") as file:
            file.write(b"2\n")
        found.append(await following.read())
        await following.close()
        return [batch and [message.payload for message in batch.messages] for batch in found]

    assert drive(main()) == [[b"1"], None, [b"22"]]


@pytest.mark.parametrize(
    "replaced", [b"9\n2\n3\n", b"1\n", b"1\n22\n3\n"], ids=["other content", "cut", "other line ends"]
)
def test_a_file_that_was_replaced_is_not_read_from_the_old_position(tmp_path: Path, replaced: bytes) -> None:
    path = tmp_path / "in.ndjson"
    path.write_bytes(b"1\n2\n")
    drive(read_all(source(path), ack=1))
    path.write_bytes(replaced)

    with pytest.raises(Stopped, match="not the file that was read before") as stopped:
        payloads(path)
    assert stopped.value.code == "IFX712"
    assert str(tmp_path / "in.sqlite") in (stopped.value.hint or "")


def test_a_last_line_without_end_counts_and_what_follows_it_is_read_later(tmp_path: Path) -> None:
    path = tmp_path / "in.ndjson"
    path.write_bytes(b"1\n2")
    assert drive(read_all(source(path), ack=2))[-1].payload == b"2"
    assert payloads(path) == []
    path.write_bytes(b"1\n2\n3\n")

    assert payloads(path) == [b"3"]


def test_a_last_line_that_was_read_and_then_grew_is_not_cut_in_two(tmp_path: Path) -> None:
    path = tmp_path / "in.ndjson"
    path.write_bytes(b"1\n2")
    drive(read_all(source(path), ack=2))
    path.write_bytes(b"1\n2345\n3\n")

    with pytest.raises(Stopped, match="not the file that was read before"):
        payloads(path)


def test_start_last_reads_lines_appended_from_now_on(tmp_path: Path) -> None:
    path = tmp_path / "in.ndjson"
    path.write_bytes(b"1\n2\n")

    assert payloads(path, start=Start("last")) == []
    with pytest.raises(Stopped, match="cannot start at an offset"):
        payloads(path, start=Start("offset", 3))


def test_a_missing_file_and_a_second_reader_are_clear_errors(tmp_path: Path) -> None:
    with pytest.raises(Stopped, match="No such file") as stopped:
        payloads(tmp_path / "none")
    assert stopped.value.code == "IFX710"
    path = tmp_path / "in.ndjson"
    path.write_bytes(b"1\n")

    async def main() -> None:
        first = source(path)
        await first.connect()
        with pytest.raises(Stopped, match=f"in use by process {os.getpid()}"):
            await source(path).connect()
        await first.close()

    drive(main())


# Envelopes


def test_an_envelope_has_coordinates_and_the_position_is_the_files(tmp_path: Path) -> None:
    path = tmp_path / "in.ndjson"
    path.write_bytes(
        b'{"payload": {"b": 1.0, "a": [1 ,2]}, "stream": "x", "topic": "y", "partition": 3, "offset": 99, '
        b'"timestamp_us": 5, "origin_timestamp_us": 4, "id": "7", '
        b'"headers": {"k": "v", "n": 1, "raw": {"base64": "AAE="}}}\n'
        b'{"payload_text": "h\\u00e9"}\n{"payload_base64": "AP8="}\n'
    )

    found = drive(read_all(source(path, envelope=True), ack=1))

    assert found[0] == Message(
        b'{"b": 1.0, "a": [1 ,2]}', "x", "y", 3, 99, 5, 4, 7, {"k": "v", "n": 1, "raw": b"\x00\x01"}
    )
    assert [(m.payload, m.stream, m.topic, m.offset) for m in found[1:]] == [
        ("hé".encode(), "s", "t", 1),
        (b"\x00\xff", "s", "t", 2),
    ]
    assert payloads(path, envelope=True) == []


BAD_ENVELOPES = {
    "not JSON": (b"{", "invalid envelope"),
    "not an object": (b"[]", "invalid envelope"),
    "unknown key": (b'{"payload": 1, "ofset": 2}', "ofset"),
    "no payload": (b'{"offset": 2}', "found none"),
    "two payloads": (b'{"payload": 1, "payload_text": "x"}', "found payload and payload_text"),
    "bad base64": (b'{"payload_base64": "?"}', "payload_base64 is not base64"),
    "bad header": (b'{"payload": 1, "headers": {"a": {"b": "c"}}}', "as header"),
    "bad id": (b'{"payload": 1, "id": "x"}', "expected a number as id"),
    "large id": (b'{"payload": 1, "id": "340282366920938463463374607431768211456"}', "128 bits"),
    "not UTF-8": (b'{"payload_text": "\xff"}', "invalid envelope"),
}


@pytest.mark.parametrize(("line", "words"), BAD_ENVELOPES.values(), ids=BAD_ENVELOPES)
def test_a_line_that_is_not_an_envelope_stops_with_its_place(tmp_path: Path, line: bytes, words: str) -> None:
    path = tmp_path / "in.ndjson"
    path.write_bytes(b'{"payload": 1}\n' + line + b"\n")

    with pytest.raises(Stopped) as stopped:
        payloads(path, envelope=True)
    assert stopped.value.code == "IFX711"
    assert stopped.value.reason.startswith(f"{path}:2: ")
    assert words in stopped.value.reason


SCALARS = st.text(max_size=5) | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.booleans() | st.binary(max_size=9)


@given(
    st.builds(
        Message,
        st.binary(max_size=50),
        st.text(max_size=5),
        st.text(max_size=5),
        st.integers(0, 2**31),
        st.integers(0, 2**63 - 1),
        st.integers(0, 2**63 - 1),
        st.integers(0, 2**63 - 1),
        st.integers(0, 2**128 - 1),
        st.dictionaries(st.text(max_size=5), SCALARS, max_size=3),
    )
)
def test_an_envelope_gives_the_same_message_back(message: Message) -> None:
    again = decode_envelope(msgspec.json.encode(envelope_of(message)), 5)

    assert without_nan(again) == without_nan(message)
    assert [type(value) for value in again.headers.values()] == [type(value) for value in message.headers.values()]


def without_nan(message: Message) -> Message:
    headers = {
        key: "NaN" if isinstance(value, float) and math.isnan(value) else value
        for key, value in message.headers.items()
    }
    return msgspec.structs.replace(message, headers=headers)


@given(st.binary() | st.text().map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_are_an_envelope_or_an_envelope_error(line: bytes) -> None:
    try:
        message = decode_envelope(line, 0)
    except EnvelopeError:
        return
    assert isinstance(message, Message)


# Standard input


def test_standard_input_is_read_to_its_end_and_never_blocks_the_run(tmp_path: Path) -> None:
    reading, writing = os.pipe()

    async def main() -> list[bytes]:
        stdin = StdinSource(stream="s", topic="t", descriptor=reading)
        await stdin.connect()
        assert await stdin.read() is None
        os.write(writing, b"1\n2")
        first = await stdin.read()
        os.write(writing, b"2\n3")
        os.close(writing)
        found = [first]
        found += [await stdin.read(), await stdin.read()]
        with pytest.raises(EndOfInput):
            await stdin.read()
        await stdin.ack([])
        await stdin.close()
        return [message.payload for batch in found if batch for message in batch.messages]

    assert drive(main()) == [b"1", b"22", b"3"]
    os.close(reading)


# Lines out


def test_lines_are_appended_and_on_the_disk_when_they_are_accepted(tmp_path: Path) -> None:
    path = tmp_path / "new" / "out.lp"

    async def main() -> None:
        sink = LineFileSink(path)
        await sink.connect()
        assert await sink.write(["a v=1 1", "b v=2 2"]) == Accepted()
        assert await sink.write(["ü v=1 1"]) == Accepted()
        await sink.close()
        await sink.close()

    drive(main())
    drive(main())
    assert path.read_text("utf-8") == "a v=1 1\nb v=2 2\nü v=1 1\n" * 2


def test_writes_at_once_are_each_whole_and_all_accepted(tmp_path: Path) -> None:
    path = tmp_path / "out.lp"

    async def main() -> None:
        sink = LineFileSink(path)
        await sink.connect()
        verdicts = await asyncio.gather(*(sink.write([f"a v={n} 1", f"b v={n} 1"]) for n in range(30)))
        assert verdicts == [Accepted()] * 30
        await sink.close()

    drive(main())
    lines = path.read_text().splitlines()
    assert lines == [f"{name} v={number} 1" for number in range(30) for name in "ab"]


def test_a_sink_is_closed_well_while_writes_that_were_cancelled_go_on(tmp_path: Path) -> None:
    path = tmp_path / "out.lp"

    async def main(rounds: int) -> None:
        sink = LineFileSink(path)
        await sink.connect()
        writes = [asyncio.ensure_future(sink.write([f"a v={n} 1"])) for n in range(5)]
        for _ in range(rounds):
            await asyncio.sleep(0)
        for write in writes:
            write.cancel()
        await asyncio.gather(*writes, return_exceptions=True)
        await sink.close()

    for rounds in range(0, 60, 3):
        drive(main(rounds))
    assert all(line.endswith(" 1") for line in path.read_text().splitlines())


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"", b""),
        (b"a v=1 1\n", b"a v=1 1\n"),
        (b"a v=1 1\nb v=2", b"a v=1 1\n"),
        (b"b v=2", b""),
        (b"x" * 3_000_000, b""),
    ],
    ids=["empty", "whole", "torn", "only a torn line", "a long torn line"],
)
def test_a_torn_last_line_is_cut_off_when_the_file_is_opened(tmp_path: Path, before: bytes, after: bytes) -> None:
    path = tmp_path / "out.lp"
    path.write_bytes(before)

    async def main() -> None:
        sink = LineFileSink(path)
        await sink.connect()
        await sink.close()

    drive(main())
    assert path.read_bytes() == after


def test_a_torn_line_of_a_file_that_another_writes_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "out.lp"

    async def main() -> None:
        first, second = LineFileSink(path), LineFileSink(path)
        await first.connect()
        path.write_bytes(b"half a li")
        await second.connect()
        assert path.read_bytes() == b"half a li"
        await first.close()
        await second.close()

    drive(main())


def test_a_full_disk_is_impossible_and_leaves_no_half_line(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    path = tmp_path / "out.lp"

    async def main() -> None:
        sink = LineFileSink(path)
        await sink.connect()
        assert await sink.write(["a v=1 1"]) == Accepted()
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (50, limit[1]))
        try:
            verdict = await sink.write(["b v=1 1"] * 100)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        assert isinstance(verdict, Impossible)
        assert "File too large" in verdict.reason
        await sink.close()

    drive(main())
    assert path.read_bytes() == b"a v=1 1\n"


def test_a_place_that_cannot_be_written_stops(tmp_path: Path) -> None:
    with pytest.raises(Stopped, match="Is a directory") as stopped:
        drive(LineFileSink(tmp_path).connect())
    assert stopped.value.code == "IFX710"


def test_standard_output_accepts_lines_and_a_closed_one_is_impossible() -> None:
    reading, writing = os.pipe()

    async def main() -> None:
        sink = StdoutSink(writing)
        await sink.connect()
        assert await sink.write(["a v=1 1", "b v=1 1"]) == Accepted()
        assert os.read(reading, 100) == b"a v=1 1\nb v=1 1\n"
        os.close(reading)
        verdict = await sink.write(["a v=1 1"])
        assert isinstance(verdict, Impossible)
        assert "Broken pipe" in verdict.reason
        await sink.close()

    asyncio.run(main())
    os.close(writing)


def test_a_batch_of_a_file_knows_its_own_partition(tmp_path: Path) -> None:
    path = tmp_path / "in.ndjson"
    path.write_bytes(b"1\n")

    async def main() -> Batch | None:
        one = source(path)
        await one.connect()
        batch = await one.read()
        await one.close()
        return batch

    batch = drive(main())
    assert batch
    assert batch.partition == Partition("s", "t", 0)
    assert batch.last.offset == 2


# Lines that are too long


@given(
    st.lists(st.sampled_from([b"a", b"bc", b"\n", b" ", b"xyz" * 4, b"\r\n", b"\n\n"])).map(b"".join),
    st.integers(1, 7),
    st.integers(7, 12),
)
def test_lines_are_cut_at_the_limit_and_positions_stay_those_of_the_file(data: bytes, chunk: int, limit: int) -> None:
    lines = InputLines(0, "x", limit)
    taken = []
    for start in range(0, len(data), chunk):
        lines.feed(data[start : start + chunk])
        for each in lines.take(3):
            taken.append(each)
            assert data[: lines.position].count(b"\n") == lines.number
    lines.finish()
    taken += lines.take(len(data))

    whole = data.split(b"\n")
    expected = [line[: limit + 1] if len(line) > limit else line.strip() for line in whole]
    assert taken == [(number, line) for number, line in enumerate(expected) if line]
    assert lines.position == len(data) + (not data.endswith(b"\n") and bool(data))


@pytest.mark.parametrize("chunk", [1, 3, 100])
@given(st.lists(st.sampled_from([b"a", b"\n", b"bcd"])).map(b"".join), st.integers(0, 40))
def test_the_last_line_is_found_in_pieces(chunk: int, data: bytes, cut: int) -> None:
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        size = min(cut, len(data))
        found = after_last_line(file.fileno(), size, chunk)

    assert found == (data[:size].rfind(b"\n") + 1, data[:size].count(b"\n"))


def test_messages_before_a_broken_envelope_are_settled_first(tmp_path: Path) -> None:
    path = tmp_path / "in.ndjson"
    path.write_bytes(b'{"payload": 1}\n{"payload": 2}\n{"paylod": 3}\n{"payload": 4}\n')

    async def main() -> list[bytes]:
        broken = source(path, envelope=True)
        await broken.connect()
        batch = await broken.read()
        assert batch
        await broken.ack([batch.last])
        for _ in range(2):
            with pytest.raises(Stopped, match=":3: invalid envelope"):
                await broken.read()
        await broken.close()
        return [message.payload for message in batch.messages]

    assert drive(main()) == [b"1", b"2"]
    path.write_bytes(path.read_bytes().replace(b"paylod", b"payload"))
    assert payloads(path, envelope=True) == [b"3", b"4"]


def test_an_envelope_that_is_too_long_stops_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "in.ndjson"
    with path.open("wb") as file:
        file.write(b'{"payload": 1}\n')
        file.truncate(MAX_LINE_BYTES + 100)

    with pytest.raises(Stopped, match=r":2: the line has more than 100,663,296 bytes") as stopped:
        payloads(path, envelope=True)
    assert stopped.value.code == "IFX711"


@pytest.mark.parametrize("end", ["file:in.ndjson", "stdin"])
@pytest.mark.timeout(120)
@pytest.mark.slow
def test_a_line_of_a_gigabyte_costs_itself_and_bounded_memory(tmp_path: Path, end: str) -> None:
    """Its letter shows that it is too large, and its neighbors are written."""
    (tmp_path / "m.yaml").write_text(
        "iggyflux: 1\nkind: writer\nname: m\nfrom: {stream: s, topic: t}\n"
        "points: {measurement: {const: m}, fields: [x], timestamp: {expr: ts, format: unix_s}}\n"
    )
    (tmp_path / "p.yaml").write_text(f'iggyflux: 1\nrun: [{{mapping: m.yaml, from: "{end}", to: "file:out.lp"}}]\n')
    with (tmp_path / "in.ndjson").open("w+b") as file:
        file.write(b'{"x":1,"ts":1}\n')
        file.truncate(1_000_000_000)
        file.seek(0, os.SEEK_END)
        file.write(b'\n{"x":2,"ts":2}\n')
        file.seek(0)
        command = [sys.executable, "-c", MEASURED, "run", "p.yaml", "--until-end", "--log-format", "json"]
        ran = subprocess.run(command, cwd=tmp_path, stdin=file, capture_output=True, text=True, check=False)

    *_, peak = ran.stderr.splitlines()
    assert (tmp_path / "out.lp").read_text() == "m x=1.0 1000000000\nm x=2.0 2000000000\n"
    [letter] = read_dead_letters(tmp_path / "dead-letters" / "m")
    assert len(letter.message.payload) == MAX_PAYLOAD_BYTES + 1
    assert (letter.message.offset, letter.reasons[0].code) == (1, "IFX401")
    assert '"files.line_too_long' in ran.stderr
    assert int(peak) < 500_000, f"{peak} KB"


MEASURED = """
import sys
from pathlib import Path
from iggyflux.cli import command_line
sys.argv[0] = "iggyflux"
try:
    command_line()
finally:  # the peak of `getrusage` would be that of the tests, before exec
    peak = Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]
    print(peak, file=sys.stderr, flush=True)
"""


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_a_pipe_or_a_device_is_no_file_of_lines(kind: str, tmp_path: Path) -> None:
    """They cannot keep lines durably."""
    path = tmp_path / "lambda"
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/null")

    async def main() -> None:
        sink = LineFileSink(path)
        try:
            await sink.connect()
        finally:
            await sink.close()

    with pytest.raises(Stopped, match="it is not a regular file") as stopped:
        asyncio.run(main())
    assert stopped.value.code == "IFX710"
