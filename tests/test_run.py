"""`run`: pipelines as files, whole, on the embedded transports; and the process that runs them."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from iggyflux.errors import DocumentError
from iggyflux.mapping import load_mapping
from iggyflux.pipeline import load_pipeline
from iggyflux.records import Message, Partition
from iggyflux.runner import Status, Summary, run_pipeline
from iggyflux.transports.local.deadletters import decode_letter, read_dead_letters
from iggyflux.transports.local.log import Consumption, Log

MAPPING = """\
iggyflux: 1
kind: writer
name: env
from: {stream: factory, topic: readings, payload: json}
points:
  - measurement: {const: env}
    tags: {device: device, topic: "meta('topic')"}
    fields: {celsius: celsius}
    timestamp: {expr: ts, format: unix_ms}
"""

READER = """\
iggyflux: 1
kind: reader
name: back
from: {measurement: env}
cursor: {column: time, start: 2026-01-01T00:00:00Z}
messages:
  - payload: "{a: a}"
to: {stream: factory, topic: back, payload: json}
"""

PIPELINE = """\
iggyflux: 1
from: log:data
to: file:out.lp
run:
  - mapping: env.yaml
"""

PAYLOADS = [
    b'{"device": "d%d", "celsius": %d.5, "ts": 170000000000%d}' % (number, number, number) for number in range(5)
]
LINES = [f"env,device=d{number},topic=readings celsius={number}.5 170000000000{number}000000" for number in range(5)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "env.yaml").write_text(MAPPING)
    (tmp_path / "back.yaml").write_text(READER)
    Log.open(tmp_path / "data", create=True).append("factory", "readings", [Message(p) for p in PAYLOADS])
    return tmp_path


def run(folder: Path, text: str = PIPELINE, **more: object) -> Summary:
    (folder / "p.yaml").write_text(text)
    pipeline = load_pipeline(folder / "p.yaml", environ={})
    return asyncio.run(asyncio.wait_for(run_pipeline(pipeline, until_end=True, **more), 60))  # type: ignore[arg-type]


def problems(folder: Path, text: str, **more: object) -> list[tuple[str, str]]:
    with pytest.raises(DocumentError) as error:
        run(folder, text, **more)
    return [(problem.code, problem.location.pointer) for problem in error.value.problems]


def lines(folder: Path, name: str = "out.lp") -> list[str]:
    return (folder / name).read_text("utf-8").splitlines()


def test_messages_become_lines_and_a_second_run_finds_nothing_new(folder: Path) -> None:
    first, second = run(folder), run(folder)

    assert lines(folder) == LINES
    assert (first.routes[0].read, second.routes[0].read) == (5, 0)
    assert (first.exit_code, second.exit_code) == (0, 0)
    assert Consumption(folder / "data", "env").load() == {Partition("factory", "readings", 0): 4}


def test_messages_that_arrive_between_two_runs_are_read_by_the_second(folder: Path) -> None:
    run(folder)
    Log.open(folder / "data").append("factory", "readings", [Message(PAYLOADS[0])])

    assert run(folder).routes[0].read == 1
    assert lines(folder) == [*LINES, LINES[0]]


def test_rule_21_failed_records_are_kept_beside_the_pipeline_file_by_default(folder: Path) -> None:
    Log.open(folder / "data").append("factory", "readings", [Message(b'{"celsius": "warm"}'), Message(b"{")])

    summary = run(folder)

    assert summary.routes[0].dead_letters == 2
    assert lines(folder) == LINES
    letters = list(read_dead_letters(folder / "dead-letters" / "env"))
    assert [(letter.message.offset, letter.mapping) for letter in letters] == [(5, "env"), (6, "env")]
    assert {letter.plan for letter in letters} == {load_mapping(folder / "env.yaml").identity()}
    assert letters[0].reasons[0].location.startswith("/points/0")


def test_dead_letters_go_to_a_topic_of_the_log_if_the_pipeline_names_one(folder: Path) -> None:
    Log.open(folder / "data").append("factory", "readings", [Message(b"{")])

    run(folder, PIPELINE + "    dead_letters: {stream: factory, topic: dead}\n")

    (message,) = Log.open(folder / "data").tail("factory", "dead")
    assert decode_letter(message.payload).message.payload == b"{"
    assert not (folder / "dead-letters").exists()


def test_a_file_of_payloads_is_a_source_and_its_position_is_durable(folder: Path) -> None:
    (folder / "in.ndjson").write_bytes(b"\n".join(PAYLOADS[:2]) + b"\n")
    text = PIPELINE.replace("log:data", "file:in.ndjson")

    run(folder, text)
    with (folder / "in.ndjson").open("ab") as file:
        file.write(b"\n".join(PAYLOADS[2:]) + b"\n")
    run(folder, text)

    assert lines(folder) == LINES
    assert (folder / ".iggyflux" / "env.sqlite").exists()


def test_several_routes_of_one_process_have_positions_of_their_own(folder: Path) -> None:
    text = PIPELINE + "  - mapping: env.yaml\n    name: twin\n    to: file:twin.lp\n"

    summary = run(folder, text)

    assert [route.name for route in summary.routes] == ["env", "twin"]
    assert lines(folder) == lines(folder, "twin.lp") == LINES
    assert set(Log.open(folder / "data").consumers()) == {"env", "twin"}


def test_only_the_named_routes_run(folder: Path) -> None:
    text = PIPELINE + "  - mapping: env.yaml\n    name: twin\n    to: file:twin.lp\n"

    run(folder, text, only=["twin"])

    assert not (folder / "out.lp").exists()
    assert problems(folder, text, only=["twins"]) == [("IFX815", "")]


def test_two_routes_of_one_name_are_refused_before_the_run(folder: Path) -> None:
    assert problems(folder, PIPELINE + "  - mapping: env.yaml\n") == [("IFX811", "/run/1")]


def test_two_routes_that_read_as_one_consumer_are_refused_before_the_run(folder: Path) -> None:
    text = PIPELINE + "    consumer: {single: x}\n  - mapping: env.yaml\n    name: twin\n    consumer: {group: x}\n"

    assert problems(folder, text) == [("IFX811", "/run/1")]


WRONG: dict[str, tuple[str, list[tuple[str, str]]]] = {
    "no source": (PIPELINE.replace("from: log:data\n", ""), [("IFX807", "/run/0")]),
    "no sink": (PIPELINE.replace("to: file:out.lp\n", ""), [("IFX807", "/run/0")]),
    "neither": (PIPELINE.replace("from: log:data\nto: file:out.lp\n", ""), [("IFX807", "/run/0")] * 2),
    "a source that gives rows": (PIPELINE.replace("log:data", "influxdb") + "influxdb: {}\n", [("IFX813", "/run/0")]),
    "a sink that takes messages": (PIPELINE.replace("file:out.lp", "log:out"), [("IFX813", "/run/0")]),
    "a reader": (PIPELINE.replace("env.yaml", "back.yaml"), [("IFX813", "/run/0")]),
    "dead letters in no topic": (
        PIPELINE.replace("log:data", "stdin") + "    dead_letters: {stream: s, topic: t}\n",
        [("IFX813", "/run/0")],
    ),
}


@pytest.mark.parametrize(("text", "expected"), WRONG.values(), ids=WRONG)
def test_ends_that_are_not_possible_are_refused_before_the_run(
    folder: Path, text: str, expected: list[tuple[str, str]]
) -> None:
    assert problems(folder, text) == expected


def test_the_problems_of_each_mapping_are_reported_once(folder: Path) -> None:
    (folder / "bad.yaml").write_text(MAPPING.replace("celsius: celsius", "celsius: 'lenght(celsius)'"))
    text = PIPELINE + "  - mapping: bad.yaml\n    name: a\n  - mapping: bad.yaml\n    name: b\n"

    found = problems(folder, text)

    assert len(found) == 1
    assert found[0][1] == "/points/0/fields/celsius"


def test_the_status_file_holds_the_counters_as_json(folder: Path) -> None:
    status = Status()

    run(folder, status=status, status_file=folder / "status.json")

    tree = json.loads((folder / "status.json").read_text())
    assert tree["routes"][0]["name"] == "env"
    assert tree["routes"][0]["state"] == "done"
    assert tree["routes"][0]["acknowledged"] == 5
    assert status.routes[0].acknowledged == 5


# The process

FOLLOW = """\
import asyncio, logging, sys
from iggyflux.pipeline import load_pipeline
from iggyflux.runner import Stop, run_pipeline, stopping_on_signals
from iggyflux.runner.events import JsonFormatter, TextFormatter

handler = logging.StreamHandler()
handler.setFormatter(JsonFormatter() if sys.argv[2] == "json" else TextFormatter())
logging.getLogger("iggyflux").addHandler(handler)
logging.getLogger("iggyflux").setLevel(logging.INFO)

async def main():
    stop = Stop()
    with stopping_on_signals(stop):
        return await run_pipeline(load_pipeline(sys.argv[1]), stop=stop)

sys.exit(asyncio.run(main()).exit_code)
"""


@pytest.fixture
def follow(folder: Path) -> Callable[..., subprocess.Popen[bytes]]:
    """Start a process that follows the log, and wait until it is connected."""

    def start(form: str = "text") -> subprocess.Popen[bytes]:
        (folder / "p.yaml").write_text(PIPELINE + "influxdb: {linger: 10ms}\n")
        process = subprocess.Popen([sys.executable, "-c", FOLLOW, str(folder / "p.yaml"), form], stderr=subprocess.PIPE)
        assert process.stderr
        assert b"route.connected" in process.stderr.readline()
        return process

    return start


def wait_for(is_so: Callable[[], bool]) -> None:
    for _ in range(3000):
        if is_so():
            return
        time.sleep(0.01)  # another process works: there is nothing to wait on
    raise AssertionError("not in time")


def wait_for_lines(folder: Path, count: int) -> None:
    path = folder / "out.lp"
    wait_for(lambda: path.exists() and len(path.read_bytes().splitlines()) >= count)


def wait_for_offset(folder: Path, offset: int) -> None:
    """Until it is acknowledged."""
    settled = Consumption(folder / "data", "env")
    wait_for(lambda: settled.load().get(Partition("factory", "readings", 0)) == offset)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_run_after_everything_is_acknowledged(
    folder: Path, follow: Callable[..., subprocess.Popen[bytes]], number: int
) -> None:
    process = follow()
    wait_for_lines(folder, 5)
    Log.open(folder / "data").append("factory", "readings", [Message(PAYLOADS[0])])
    wait_for_lines(folder, 6)
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)

    assert process.returncode == 0, errors
    assert b"run.stopping" in errors
    assert b"Traceback" not in errors
    assert Consumption(folder / "data", "env").load() == {Partition("factory", "readings", 0): 5}


def test_no_message_is_lost_when_dead_letters_are_removed_during_a_run(
    folder: Path, follow: Callable[..., subprocess.Popen[bytes]]
) -> None:
    """Every acknowledged message is a line, or a letter in the present folder."""
    process, log = follow(), Log.open(folder / "data")
    wait_for_lines(folder, len(LINES))
    letters = folder / "dead-letters" / "env"
    removals: list[Callable[[], object]] = [
        lambda: (letters / "00000001.ndjson").unlink(),
        lambda: shutil.rmtree(letters.parent),
        lambda: letters.rename(letters.with_name("1")),
    ]
    for offset, remove in enumerate([None, *removals], len(PAYLOADS)):
        if remove is not None:
            remove()
        log.append("factory", "readings", [Message(b"lambda")])
        wait_for_offset(folder, offset)
        assert offset in [letter.message.offset for letter in read_dead_letters(letters)]

    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors


def test_dead_letters_that_cannot_be_kept_acknowledge_nothing(
    folder: Path, follow: Callable[..., subprocess.Popen[bytes]]
) -> None:
    process, log = follow(), Log.open(folder / "data")
    wait_for_offset(folder, len(LINES) - 1)
    shutil.rmtree(folder / "dead-letters", ignore_errors=True)
    (folder / "dead-letters").write_text("")
    log.append("factory", "readings", [Message(b"lambda")])
    _, errors = process.communicate(timeout=30)

    assert process.returncode == 3, errors
    assert b"IFX715" in errors
    assert Consumption(folder / "data", "env").load() == {Partition("factory", "readings", 0): len(LINES) - 1}


def test_events_are_json_lines_where_machines_read(
    folder: Path, follow: Callable[..., subprocess.Popen[bytes]]
) -> None:
    process = follow("json")
    wait_for_lines(folder, 5)
    process.terminate()
    _, errors = process.communicate(timeout=30)

    events = [json.loads(line) for line in errors.splitlines()]
    done = next(event for event in events if event["event"] == "route.done")
    assert (done["route"], done["acknowledged"], done["level"]) == ("env", 5, "info")


def test_a_pipe_is_a_source_and_a_sink(folder: Path) -> None:
    (folder / "p.yaml").write_text(PIPELINE.replace("log:data", "stdin").replace("file:out.lp", "stdout"))

    process = subprocess.run(
        [sys.executable, "-c", FOLLOW, str(folder / "p.yaml"), "text"],
        input=b"\n".join(PAYLOADS),
        capture_output=True,
        timeout=60,
        check=False,
    )

    assert process.returncode == 0, process.stderr
    assert process.stdout.decode().splitlines() == LINES
