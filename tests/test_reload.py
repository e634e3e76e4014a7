"""Change without a restart: documents that change while they run, good ones and broken ones."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from shell import iggyflux

from iggyflux.cli.run import _check
from iggyflux.errors import DocumentError, MappingError, Problem
from iggyflux.pipeline import load_pipeline
from iggyflux.runner.change import Change
from iggyflux.runner.configuration import Configuration
from iggyflux.runner.documents import PipelineDocuments
from iggyflux.runner.open import prepare_routes
from iggyflux.runner.reload import Current, Documents, Reload
from iggyflux.runner.status import RouteStatus

DOCUMENT = """\
iggyflux: 1
kind: writer
name: wool
from: {stream: mill, topic: bales}
points:
  measurement: {const: %s}
  tags: [d]
  fields: {a: a}
  timestamp: {expr: ts, format: unix_s}
examples:
  - {message: {d: d1, a: 1.5, ts: 1}, points: ['%s,d=d1 a=1.5 1000000000']}
"""
PIPELINE = "iggyflux: 1\nfrom: log:data\nto: file:points.lp\nrun: [{mapping: env.yaml}]\n"
SECONDS = 60.0


def document(measurement: str, example: str | None = None) -> str:
    return DOCUMENT % (measurement, example or measurement)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "env.yaml").write_text(document("m"), "utf-8")
    (tmp_path / "pipeline.yaml").write_text(PIPELINE, "utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def until(condition: Callable[[], Any]) -> Any:
    """Return what `condition` returns as soon as it is true."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError("not in time")


class Running:
    """A run in a process of its own."""

    def __init__(self, *options: str) -> None:
        command = [sys.executable, "-m", "iggyflux", "run", "pipeline.yaml", "--log-format", "json", *options]
        self.log = Path("events.ndjson")
        self.count = 0
        self.append()
        with self.log.open("wb") as log:
            self.process = subprocess.Popen([*command, "--status-file", "status.json"], stderr=log)
        try:
            self.connected = self.event("route.connected")
        except AssertionError:
            self.process.kill()
            raise

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return the events of a name up to now."""
        lines = [json.loads(line) for line in self.log.read_text().splitlines() if line[:1] + line[-1:] == "{}"]
        return [line for line in lines if line["event"] == name]

    def event(self, name: str, count: int = 1) -> dict[str, Any]:
        """Return the newest event of a name when there are so many."""

        def found() -> Any:
            events = self.events(name)
            return events[-1] if len(events) >= count else None

        return until(found)

    def append(self) -> None:
        """Append a message."""
        self.count += 1
        payload = json.dumps({"d": "d1", "a": 1, "ts": self.count}).encode()
        assert iggyflux("log", "append", "data", "mill/bales", stdin=payload + b"\n").code == 0

    def send(self) -> None:
        """Append a message, and wait until it is written."""
        self.append()
        self.written()

    def written(self) -> None:
        """Wait until all messages are written."""
        until(lambda: Path("points.lp").exists() and len(points()) >= self.count)

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(Path("status.json").read_text())
        return found


@contextmanager
def running(*options: str) -> Iterator[Running]:
    run = Running(*options)
    try:
        yield run
    finally:
        run.process.send_signal(signal.SIGTERM)
        code = run.process.wait(SECONDS)
        assert "Traceback" not in run.log.read_text()
    assert code == 0


def points() -> list[str]:
    return Path("points.lp").read_text("utf-8").splitlines()


def replace(file: str, text: str) -> None:
    """Write as editors do: another file takes the name."""
    beside = Path(f"{file}.swp")
    beside.write_text(text)
    beside.replace(file)


def test_a_run_takes_a_changed_mapping_on_sighup_and_refuses_a_broken_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was written before keeps its plan; the broken document is reported until it is corrected.

    The service manager learns of each reload when it begins and when it has ended, whatever came of it.
    """
    said, socket_file = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM), f"{folder}/notify"
    said.bind(socket_file)
    said.settimeout(SECONDS)
    monkeypatch.setenv("NOTIFY_SOCKET", socket_file)
    with closing(said), running() as run:
        run.written()
        first = run.connected["plan"]
        Path("env.yaml").write_text(document("n"))
        run.process.send_signal(signal.SIGHUP)
        changed = run.event("plan.changed")
        run.send()
        Path("env.yaml").write_text(document("o").replace("fields: {a: a}", "fields: {a: lenght(a)}"))
        run.process.send_signal(signal.SIGHUP)
        refused = run.event("configuration.refused")
        run.send()
        until(lambda: run.status()["configuration"]["state"] == "refused")
        status = run.status()
        replace("env.yaml", document("o"))
        run.process.send_signal(signal.SIGHUP)
        last = run.event("plan.changed", 2)
        run.send()
        until(lambda: run.status()["configuration"]["state"] == "current")
        states: list[str] = []
        while len(states) < 7:
            word = said.recv(4096).decode().split("\n")[0]
            states += [word] if word in ("READY=1", "RELOADING=1") else []

    assert states == ["READY=1", *["RELOADING=1", "READY=1"] * 3]
    assert [line.split(",")[0] for line in points()] == ["m", "n", "n", "o"]
    assert (changed["before"], changed["plan"]) == (first, last["before"])
    assert (refused["code"], refused["at"].rpartition("/")[2]) == ("IFX203", "env.yaml:8:15")
    assert status["configuration"]["refused"]["hint"] == "did you mean length?"
    assert status["configuration"]["changes"] == {"accepted": 1, "refused": 1}
    assert status["routes"][0]["about"]["plan"] == changed["plan"]


@pytest.mark.slow
def test_a_watching_run_takes_what_editors_and_configmaps_put_there() -> None:
    """A file that is replaced, one that is half written, one that is gone for a while, and a link that moves."""
    with running("--watch") as run:
        run.written()
        replace("env.yaml", document("n"))
        run.event("plan.changed")
        run.send()
        Path("env.yaml").unlink()
        Path("env.yaml").write_text(document("o")[:60])
        time.sleep(0.2)
        Path("env.yaml").write_text(document("o"))
        run.event("plan.changed", 2)
        run.send()
        for name in ("a", "b"):
            Path(name).mkdir()
            Path(name, "env.yaml").write_text(document(name))
        Path("..data").symlink_to("a")
        Path("env.yaml").unlink()
        Path("env.yaml").symlink_to("..data/env.yaml")
        run.event("plan.changed", 3)
        run.send()
        Path("..new").symlink_to("b")
        Path("..new").replace("..data")
        run.event("plan.changed", 4)
        run.send()
        before = len(run.events("configuration.refused"))  # a busy machine may have seen half a file for long
        Path("..data").unlink()  # every file behind it is gone
        refused = run.event("configuration.refused", before + 1)
        run.send()

    assert [line.split(",")[0] for line in points()] == ["m", "n", "o", "a", "b", "b"]
    assert refused["code"] == "IFX100"


class Ticks:
    """A clock whose sleeps pass at once, and are counted."""

    def __init__(self) -> None:
        self.count = 0

    def monotonic(self) -> float:
        return float(self.count)

    async def sleep(self, _seconds: float) -> None:
        self.count += 1
        await asyncio.sleep(0)


@pytest.mark.parametrize("name", ["env.yaml", "zebra.yaml"])  # before and after `pipeline.yaml` in the order of names
def test_a_save_is_one_change_whether_it_is_good_or_broken(name: str) -> None:
    """However often its files are looked at afterwards."""
    Path(name).write_text(document("m"))
    Path("pipeline.yaml").write_text(PIPELINE.replace("env.yaml", name))
    pipeline = load_pipeline(Path("pipeline.yaml"))
    prepared = prepare_routes(pipeline)
    broken = document("o").replace("fields: {a: a}", "fields: {a: lenght(a)}")
    elsewhere = Path("pipeline.yaml").read_text().replace(name, "moved.yaml")
    Path("moved.yaml").write_text(broken)
    saves = [(name, text) for text in (document("m"), broken, document("m"), broken + "# again\n", document("m"))]
    saves += [("pipeline.yaml", elsewhere), ("moved.yaml", document("m")), ("moved.yaml", broken)]
    counted = []

    async def follow() -> None:
        status, clock = Configuration(), Ticks()
        reload = Reload(PipelineDocuments(pipeline, prepared, None), watch=True)
        following = asyncio.create_task(reload.follow((), status, clock))
        for file, text in saves:
            replace(file, text)
            after = clock.count + 20
            while clock.count < after:
                await asyncio.sleep(0.001)
            counted.append({**status.changes})
        following.cancel()
        await asyncio.wait([following])

    asyncio.run(follow())

    changes = [(each["accepted"], each["refused"]) for each in counted]
    assert changes == [(0, 0), (0, 1), (1, 1), (1, 2), (2, 2), (2, 3), (3, 3), (3, 4)]


def test_a_file_that_a_broken_mapping_names_is_looked_at_until_it_is_repaired() -> None:
    pipeline = load_pipeline(Path("pipeline.yaml"))
    documents = PipelineDocuments(pipeline, prepare_routes(pipeline), None)
    schema = "payload: {format: avro, schema: kiln.avsc}"
    text = document("m").partition("examples:")[0]
    replace("env.yaml", text.replace("topic: bales", f"topic: bales, {schema}"))
    looks = []
    for text in (
        None,
        '{"type": "recod"}',
        '{"type": "record", "name": "R", "fields": [{"name": "a", "type": "long"}]}',
    ):
        if text is not None:
            Path("kiln.avsc").write_text(text)
        looks.append(documents.look())
        with suppress(MappingError):
            documents.read()
        looks.append(documents.look())

    assert looks[2] != looks[1]
    assert looks[4] != looks[3]
    assert documents.read()


@pytest.mark.parametrize(("code", "is_solved_by_a_restart"), [("IFX830", True), ("IFX203", False)])
def test_a_refusal_says_of_a_restart_only_what_is_true(
    code: str, is_solved_by_a_restart: bool, caplog: pytest.LogCaptureFixture
) -> None:
    class Refusing:
        contents: Mapping[str, str] = {}

        def look(self) -> list[object]:
            return []

        def read(self) -> Mapping[str, Current]:
            raise DocumentError([Problem(code, "x", hint="y")])

    async def follow() -> None:
        reload = Reload(Refusing())
        reload.request()
        following = asyncio.create_task(reload.follow((), status, Ticks()))
        while status.refused is None:
            await asyncio.sleep(0.001)
        following.cancel()
        await asyncio.wait([following])

    status = Configuration()
    asyncio.run(follow())

    [refused] = [record for record in caplog.records if getattr(record, "event", "") == "configuration.refused"]
    assert ("restart" in refused.fields["then"]) == (not is_solved_by_a_restart)  # type: ignore[attr-defined]


READER = """\
iggyflux: 1
kind: reader
name: back
from: {measurement: m}
messages: {payload: "{a: a}"}
to: {stream: mill, topic: back}
"""
TWO = """\
iggyflux: 1
influxdb: {url: "http://127.0.0.1:1", database: d, batch_size: 5}
run:
  - {mapping: env.yaml, from: "log:data"}
  - {mapping: other.yaml, from: "log:more"}
  - {mapping: back.yaml, to: "log:data"}
"""
CHANGES: dict[str, tuple[str, dict[str, str], str | None]] = {
    "nothing": ("env.yaml", {}, None),
    "a comment, an example and the layout": ("env.yaml", {"name: wool": "# of sheep\nname:  wool"}, None),
    "what is written": ("env.yaml", {"tags: [d]": "tags: {d: d, e: {const: f}}", ",d=d1 a": ",d=d1,e=f a"}, None),
    "what happens to failures": ("env.yaml", {"points:\n": "on_error: skip\npoints:\n"}, None),
    "what a reader sends": ("back.yaml", {"{a: a}": "{b: a}"}, None),
    "the file of a mapping": ("pipeline.yaml", {"env.yaml": "moved.yaml"}, None),
    "a comment in the pipeline": ("pipeline.yaml", {"run:": "# here\nrun:"}, None),
    "a broken document": ("env.yaml", {"{a: a}": "{a: lenght(a)}"}, "IFX203"),
    "no YAML": ("env.yaml", {"tags: [d]": "tags: [d"}, "IFX101"),
    "a failing example": ("env.yaml", {"a=1.5": "a=2.5"}, "IFX510"),
    "another type than another writer's": (
        "env.yaml",
        {"{a: a}": "{a: {const: 1, type: integer}}", "a=1.5 ": "a=1i "},
        "IFX167",
    ),
    "another name": ("env.yaml", {"name: wool": "name: yarn"}, "IFX830"),
    "another kind": ("env.yaml", {DOCUMENT % ("m", "m"): READER.replace("back", "wool")}, "IFX813"),
    "another topic": ("env.yaml", {"topic: bales": "topic: sheep"}, "IFX830"),
    "another limit": ("env.yaml", {"points:\n": "limits: {series: 5}\npoints:\n"}, "IFX830"),
    "another batch size": ("pipeline.yaml", {"batch_size: 5": "batch_size: 6"}, "IFX830"),
    "another source": ("pipeline.yaml", {"log:more": "log:less"}, "IFX830"),
    "another key": ("pipeline.yaml", {"run:": "shutdown_timeout: 5s\nrun:"}, "IFX830"),
    "a route less": ("pipeline.yaml", {'  - {mapping: other.yaml, from: "log:more"}\n': ""}, "IFX830"),
    "a pipeline that is none": ("pipeline.yaml", {"run:": "runs:"}, "IFX110"),
    "what a reader reads": ("back.yaml", {"measurement: m": "measurement: n"}, "IFX830"),
    "how a reader goes on": ("back.yaml", {"messages:": "cursor: {window: 1m}\nmessages:"}, "IFX830"),
    "what a reader makes a message of": ("back.yaml", {'{a: a}"': '@", for_each: window'}, "IFX830"),
    "where a reader sends": ("back.yaml", {"topic: back": "topic: forth"}, "IFX830"),
}


@pytest.mark.parametrize("change", list(CHANGES))
def test_a_change_is_taken_or_refused_with_its_place(change: str) -> None:
    """What can change while it runs, and the code of what cannot; all of it again after it is undone."""
    Path("back.yaml").write_text(READER)
    Path("other.yaml").write_text(document("m").replace("name: wool", "name: other"))
    Path("moved.yaml").write_text(document("n"))
    Path("pipeline.yaml").write_text(TWO)
    pipeline = load_pipeline("pipeline.yaml")
    found = PipelineDocuments(pipeline, prepare_routes(pipeline), _check)
    file, edits, code = CHANGES[change]
    before, text = Path(file).read_text(), Path(file).read_text()
    for old, new in edits.items():
        assert old in text
        text = text.replace(old, new)
    Path(file).write_text(text)

    if code is None:
        now = {name: each.content for name, each in found.read().items()}
        changed = [name for name in now if now[name] != found.contents[name]]
        is_same = change in ("nothing", "a comment in the pipeline", "a comment, an example and the layout")
        assert changed == ([] if is_same else ["back" if file == "back.yaml" else "wool"])
    else:
        with pytest.raises(DocumentError) as error:
            found.read()
        assert [problem.code for problem in error.value.problems][:1] == [code]
        if change == "a failing example":
            assert error.value.problems[0].hint == "`iggyflux test env.yaml` shows it"
        files = (file, "pipeline.yaml") if change == "another kind" else (file, "other.yaml")
        assert Path(error.value.problems[0].location.file or "").name in files
    Path(file).write_text(before)
    assert {name: each.content for name, each in found.read().items()} == found.contents


def as_documents(contents: dict[str, str]) -> Documents:
    """Return documents that are never read."""

    class Fixed:
        def __init__(self) -> None:
            self.contents = contents

        def look(self) -> list[object]:
            raise NotImplementedError

        def read(self) -> dict[str, Current]:
            raise NotImplementedError

    return Fixed()


class Route:
    """A route by its name."""

    def __init__(self, name: str) -> None:
        self.name = name


class Run:
    """What is offered to a run."""

    def __init__(self, name: str) -> None:
        self.status = RouteStatus(name)
        self.route, self.change = Route(name), Change[Any](self.status)


class Scripted:
    """Documents that note whether the status says that they are read."""

    def __init__(self, status: Configuration) -> None:
        self.contents = {"a": "1"}
        self.content, self.looks, self.checking, self.status = "1", 0, list[bool](), status

    def look(self) -> list[object]:
        self.looks += 1
        return [3]

    def read(self) -> dict[str, Current]:
        self.checking.append(self.status.is_checking)
        if self.content == "!":
            raise ZeroDivisionError
        return {"a": Current(self.content, lambda _: self.content)}


def test_files_are_read_when_it_is_asked_for_and_the_status_says_so_meanwhile() -> None:
    status, clock, run = Configuration(since_unix=7.0), Ticks(), Run("a")
    documents, since, refused = Scripted(status), list[float](), list[str]()
    reload = Reload(documents)

    async def follow() -> None:
        following = asyncio.create_task(reload.follow([run], status, clock))  # type: ignore[list-item]
        await asyncio.sleep(0.02)
        assert documents.looks == 0
        for count, content in enumerate("1223!3", 1):
            documents.content = content
            reload.request()
            while len(documents.checking) < count or status.is_checking:
                await asyncio.sleep(0.001)
            since.append(status.since_unix)
            refused.append(status.refused.code if status.refused else "")
        following.cancel()
        await asyncio.wait([following])

    began = time.time()
    asyncio.run(follow())

    assert documents.checking == [True] * 6
    assert documents.looks == 12
    assert refused == ["", "", "", "", "IFX699", ""]  # after a bug it goes on
    assert since[0] == 7.0
    assert began <= since[1] == since[2] < since[3] < since[4] < since[5] <= time.time()
    until(lambda: not any(each.name.startswith("iggyflux-reload") for each in threading.enumerate()))


def test_a_bug_while_one_route_is_changed_changes_none() -> None:
    """All of it is offered the next time."""
    reload, runs, status = Reload(as_documents({"a": "1", "b": "1"})), [Run("a"), Run("b")], Configuration()

    def fail(route: Any) -> Any:
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError):
        reload._accept({"a": Current("2", lambda _: "A"), "b": Current("2", fail)}, runs, status)  # type: ignore[arg-type]
    assert [run.change.take() for run in runs] == [None, None]
    assert status.changes["accepted"] == 0
    reload._accept({"a": Current("2", lambda _: "A"), "b": Current("2", lambda _: "B")}, runs, status)  # type: ignore[arg-type]
    assert [run.change.take() for run in runs] == ["A", "B"]


def test_a_route_that_has_ended_is_offered_nothing() -> None:
    """So the configuration does not wait for it; the others take what changed."""
    reload, runs, status = Reload(as_documents({"a": "1", "b": "1"})), [Run("a"), Run("b")], Configuration()
    runs[0].change.offer("before")
    runs[0].change.end()
    reload._accept({"a": Current("2", lambda _: "A"), "b": Current("2", lambda _: "B")}, runs, status)  # type: ignore[arg-type]

    assert [run.status.is_changing for run in runs] == [False, True]
    assert [run.change.take() for run in runs] == [None, "B"]


def test_the_mapping_of_a_route_that_reads_stdin_cannot_change() -> None:
    """What is in flight could not be read again."""
    Path("pipeline.yaml").write_text(PIPELINE.replace("log:data", "stdin"))
    pipeline = load_pipeline("pipeline.yaml")
    found = PipelineDocuments(pipeline, prepare_routes(pipeline), None)
    assert found.read()
    Path("env.yaml").write_text(document("n"))

    with pytest.raises(DocumentError, match="stdin"):
        found.read()
