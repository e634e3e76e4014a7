"""Input without bounds (an endless device, a pipe without a writer, a huge file): commands report it and end."""

from __future__ import annotations

import fcntl
import io
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from iggyflux.authoring.samples import Coordinates, SampleError, SampleFile, read_rows, read_samples
from iggyflux.cli import command_line
from iggyflux.disk import has_input
from iggyflux.documents import may_be_document, open_source, parse_document, read_source
from iggyflux.errors import DocumentError, PipelineError, Stopped
from iggyflux.pipeline import parse_pipeline
from iggyflux.transports.local.deadletters import read_dead_letters

ENDLESS = Path("/dev/zero")
MAPPING = "iggyflux: 1\nkind: writer\nfrom: {stream: s, topic: t}\npoints: {measurement: {const: m}}\n"

pytestmark = [
    pytest.mark.skipif(not ENDLESS.exists(), reason="no /dev/zero on this system"),
    pytest.mark.timeout(60),
]


@pytest.fixture
def mapping(tmp_path: Path) -> str:
    path = tmp_path / "m.yaml"
    path.write_text(MAPPING)
    return str(path)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["validate", "/dev/zero"], "IFX104"),
        (["test", "/dev/zero"], "IFX104"),
        (["explain", "/dev/zero"], "IFX104"),
        (["dry-run", "/dev/zero"], "IFX104"),
        (["run", "/dev/zero"], "IFX104"),
        (["check", "/dev/zero"], "IFX104"),
        (["dry-run", "{mapping}", "/dev/zero"], "IFX503"),
        (["dry-run", "{mapping}", "/dev/zero", "--whole"], "IFX503"),
        (["dry-run", "{mapping}", "/dev/zero", "--envelope"], "IFX503"),
        (["eval", "a", "/dev/zero"], "IFX503"),
    ],
    ids=" ".join,
)
def test_an_endless_file_is_too_large(arguments: list[str], code: str, mapping: str) -> None:
    """Sizes are checked while a file is read, not after."""
    result = CliRunner().invoke(command_line, [each.format(mapping=mapping) for each in arguments])

    assert result.exit_code == 1
    assert f"[{code}]" in result.output
    assert "more than" in result.output


def test_endless_dead_letters_are_rejected(tmp_path: Path) -> None:
    (tmp_path / "1.ndjson").symlink_to(ENDLESS)

    with pytest.raises(Stopped) as caught:
        next(read_dead_letters(tmp_path))

    assert caught.value.code == "IFX717"


def test_an_endless_secret_file_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text(MAPPING)
    text = "iggyflux: 1\nfrom: log:data\ninfluxdb: {token: file:/dev/zero}\nrun: [{mapping: m.yaml}]\n"

    with pytest.raises(PipelineError) as caught:
        parse_pipeline(text, file=tmp_path / "p.yaml", environ={})

    assert [(each.code, each.message) for each in caught.value.problems] == [
        ("IFX803", "cannot read the secret in /dev/zero: it has more than 65,536 bytes")
    ]


def test_a_huge_file_is_not_read_whole(tmp_path: Path, mapping: str) -> None:
    """Its size suffices: nothing of a sparse file of a terabyte is kept in memory."""
    huge = tmp_path / "huge.yaml"
    with huge.open("wb") as file:
        file.write(b"iggyflux: 1\n")
        file.truncate(1 << 40)

    result = CliRunner().invoke(command_line, ["validate", str(tmp_path)])

    assert result.exit_code == 1
    assert "IFX104" in result.output
    assert may_be_document(huge)


def test_a_pipe_without_a_writer_is_a_problem(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    with pytest.raises(DocumentError) as caught:
        read_source(pipe, pipe_seconds=0.05)

    [problem] = caught.value.problems
    assert (problem.code, problem.message) == ("IFX100", "no data from this pipe in 0.05 s")


@pytest.mark.parametrize(
    "arguments", [["dry-run", "{mapping}", "{pipe}"], ["eval", "a", "{pipe}"], ["dry-run", "{pipe}"], ["run", "{pipe}"]]
)
def test_commands_report_a_pipe_without_a_writer(
    arguments: list[str], mapping: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for function in (read_source, open_source):
        monkeypatch.setitem(function.__kwdefaults__, "pipe_seconds", 0.05)

    result = CliRunner().invoke(command_line, [each.format(mapping=mapping, pipe=pipe) for each in arguments])

    assert result.exit_code == 1
    assert "no data from this pipe in 0.05 s" in result.output


@pytest.mark.parametrize("seconds", [0.05, 10.0])
def test_samples_may_come_slowly_through_a_pipe(tmp_path: Path, seconds: float) -> None:
    """As in `iggyflux dry-run m.yaml <(slow)`: a pipe with a writer is waited for."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    other = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)  # so that the pipe has a writer before it is read
    written = pipe.open("wb")

    def write() -> None:
        with written:
            time.sleep(0.3)
            written.write(b"one\ntwo\n")

    writer = threading.Thread(target=write)
    writer.start()
    with open_source(pipe, pipe_seconds=seconds) as file:
        lines = list(file)
    writer.join()
    os.close(other)

    assert lines == [b"one\n", b"two\n"]


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_a_route_from_what_is_not_a_file_stops(tmp_path: Path, mapping: str, kind: str) -> None:
    path = ENDLESS if kind == "device" else tmp_path / "pipe"
    if kind == "pipe":
        os.mkfifo(path)
    pipeline = tmp_path / "p.yaml"
    pipeline.write_text(f"iggyflux: 1\nfrom: file:{path}\nto: stdout\nrun: [{{mapping: {mapping}}}]\n")

    done = subprocess.run(
        [sys.executable, "-m", "iggyflux", "run", "p.yaml", "--until-end"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )

    assert done.returncode == 3
    assert f"cannot read {path}: it is not a regular file" in done.stderr


def test_a_document_may_come_through_a_pipe(tmp_path: Path) -> None:
    """As in `iggyflux validate <(make-mapping)`."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=("a: b\n" * 1,))
    writer.start()

    data = read_source(pipe)
    writer.join()

    assert parse_document(data).tree == {"a": "b"}


def test_an_invalid_first_line_does_not_hold_up_the_others() -> None:
    """It may be the start of one document of many lines, but only as long as all lines together may be one."""
    given = 0

    def lines() -> object:
        nonlocal given
        yield b"{broken\n"
        while True:
            given += 1
            yield b'"' + b"x" * (1 << 20) + b'"\n'

    samples = read_samples(lines(), Coordinates("s", "t"))  # type: ignore[arg-type]

    assert next(samples).message.payload == b"{broken"
    assert next(samples).line == 2
    assert given < 200


def test_lines_are_bounded_and_reported_by_number() -> None:
    lines = iter(SampleFile(io.BytesIO(b"ab\ncd\nefghij\n"), limit=5))

    assert [next(lines), next(lines)] == [b"ab\n", b"cd\n"]
    with pytest.raises(SampleError) as caught:
        next(lines)
    assert (caught.value.code, caught.value.line) == ("IFX503", 3)


def test_endless_annotated_rows_are_rejected() -> None:
    def lines() -> Iterator[bytes]:
        yield b"#datatype,string\n"
        while True:
            yield b",x" * (1 << 20) + b"\n"

    with pytest.raises(SampleError, match="annotated CSV has more than") as caught:
        next(read_rows(lines(), form="csv"))
    assert caught.value.code == "IFX503"


@pytest.fixture
def high() -> Iterator[int]:
    """A number of a descriptor that is higher than a process with 1,024 open files has."""
    usual = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = usual[1] if usual[1] != resource.RLIM_INFINITY else 1 << 20
    if most < 2048:
        pytest.skip("the hard limit of open files is below 2,048")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(usual[0], 2048), usual[1]))
    yield 1500
    resource.setrlimit(resource.RLIMIT_NOFILE, usual)


@pytest.mark.parametrize("source", ["file", "null", "empty pipe", "pipe with data", "ended pipe"])
def test_whether_there_is_input_does_not_depend_on_the_number_of_open_files(
    high: int, tmp_path: Path, source: str
) -> None:
    reading, writing = os.pipe()
    if source == "pipe with data":
        os.write(writing, b"x")
    if source == "ended pipe":
        os.close(writing)
    (tmp_path / "file").write_bytes(b"x")
    opened = {"file": os.open(tmp_path / "file", os.O_RDONLY), "null": os.open(os.devnull, os.O_RDONLY)}
    descriptor = fcntl.fcntl(opened.get(source, reading), fcntl.F_DUPFD_CLOEXEC, high)
    try:
        assert descriptor >= high
        assert has_input(descriptor, 0.01) == (source != "empty pipe")
    finally:
        for each in (descriptor, reading, *opened.values(), *([writing] if source != "ended pipe" else [])):
            os.close(each)


def test_a_descriptor_that_is_closed_has_no_input_but_an_error() -> None:
    reading, writing = os.pipe()
    os.close(writing)
    os.close(reading)
    with pytest.raises(OSError, match="Bad file descriptor"):
        has_input(reading, 0.01)


def test_a_process_with_many_open_files_reads_pipes(high: int, tmp_path: Path, mapping: str) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    kept = [os.open(os.devnull, os.O_RDONLY) for _ in range(high)]
    try:
        with pytest.raises(DocumentError, match=r"no data from this pipe"):
            read_source(pipe, pipe_seconds=0.05)
        with pytest.raises(DocumentError, match=r"no data from this pipe"):
            open_source(pipe, pipe_seconds=0.05)
    finally:
        for each in kept:
            os.close(each)
