"""What a run says to its service manager, heard at real sockets; and by a real systemd, where one can be started."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iggyflux.runner import RouteStatus, Status, Stop
from iggyflux.runner.configuration import Configuration
from iggyflux.runner.reload import Current, Reload
from iggyflux.runner.service_manager import ServiceManager, notifying, states
from iggyflux.runner.status import About
from iggyflux.transports.local.memory import ImmediateClock

SECONDS = 60.0
"""The time after which something that must happen has not happened."""
ABOUT = About("writer", "kilns", "0a1b", None, None)


@pytest.fixture(params=["path", "abstract"])
def listener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """A socket that hears what is said, and its address as systemd writes it."""
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as heard:
        heard.settimeout(SECONDS)
        if request.param == "abstract":
            heard.bind("")  # the kernel chooses a name
            yield heard, "@" + heard.getsockname()[1:].decode()
        else:
            heard.bind(str(tmp_path / "notify"))
            yield heard, str(tmp_path / "notify")


def waiting_at(heard: socket.socket) -> list[str]:
    """Return all that was said and not yet heard."""
    found = []
    heard.setblocking(False)
    with suppress(BlockingIOError):
        while True:
            found.append(heard.recv(4096).decode())
    heard.settimeout(SECONDS)
    return found


def test_a_run_says_that_it_is_ready_lives_and_stops(listener: tuple[socket.socket, str], tmp_path: Path) -> None:
    heard, address = listener
    (tmp_path / "kilns.yaml").write_text(
        "iggyflux: 1\nkind: writer\nname: kilns\nfrom: {stream: plant, topic: kilns}\n"
        "points: {measurement: {const: kiln}, fields: {heat: heat}, timestamp: {expr: at, format: unix_s}}\n"
    )
    (tmp_path / "pipeline.yaml").write_text(
        "iggyflux: 1\nfrom: log:data\nto: file:out.lp\nrun: [{mapping: kilns.yaml}]\n"
    )
    create = [sys.executable, "-m", "iggyflux", "log", "append", "data", "plant/kilns"]
    subprocess.run(create, cwd=tmp_path, input=b'{"heat": 1, "at": 1700000000}\n', capture_output=True, check=True)
    environment = {**os.environ, "NOTIFY_SOCKET": address, "WATCHDOG_USEC": "300000"}
    command = [
        sys.executable,
        "-m",
        "iggyflux",
        "run",
        "pipeline.yaml",
        "--listen",
        "127.0.0.1:0",
        "--log-format",
        "json",
    ]
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True) as run:
        first = heard.recv(4096).decode()
        said = [heard.recv(4096).decode() for _ in range(4)]
        while not any("1 idle" in each for each in said):
            said.append(heard.recv(4096).decode())
        run.send_signal(signal.SIGTERM)
        log = [json.loads(line) for line in run.communicate(timeout=SECONDS)[1].splitlines() if line.startswith("{")]
    last = [line for text in waiting_at(heard) for line in text.splitlines()]

    assert run.returncode == 0
    assert first == "READY=1"
    assert log[0]["event"] == "telemetry.listening", "it is ready when it answers"
    assert all(text.startswith("WATCHDOG=1") for text in said)
    assert last.count("STOPPING=1") == 1


def test_a_loop_that_hangs_is_silent(listener: tuple[socket.socket, str]) -> None:
    heard, address = listener
    manager = ServiceManager({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "60000", "WATCHDOG_PID": str(os.getpid())})
    status = Status([RouteStatus("kilns", ABOUT, "running"), RouteStatus("pumps", ABOUT, "connecting")])

    async def hang() -> tuple[list[str], list[str]]:
        async with notifying(manager, status, Stop()):
            before: list[str] = []
            while sum("WATCHDOG=1" in each for each in before) < 3:
                await asyncio.sleep(0.01)
                before += waiting_at(heard)
            time.sleep(0.3)  # what must not happen
            return before, waiting_at(heard)

    before, during = asyncio.run(hang())

    assert before[0] == "READY=1"
    assert [each for each in before if "STATUS" in each] == ["WATCHDOG=1\nSTATUS=2 routes: 1 running, 1 connecting"]
    assert during == []
    assert waiting_at(heard)[-1] == "STOPPING=1", "a run that ends by itself stops, too"


@pytest.mark.parametrize("turns", range(5))
def test_a_run_that_ends_while_it_is_stopped_says_so_once(listener: tuple[socket.socket, str], turns: int) -> None:
    heard, address = listener

    async def end() -> None:
        stop = Stop()
        async with notifying(ServiceManager({"NOTIFY_SOCKET": address}), Status(), stop):
            await asyncio.sleep(0.01)
            stop.request()
            for _ in range(turns):
                await asyncio.sleep(0)

    asyncio.run(end())

    assert [each for each in waiting_at(heard) if "STATUS" not in each] == ["READY=1", "STOPPING=1"]


@pytest.mark.parametrize(
    "environ",
    [{"WATCHDOG_USEC": "60000"}, {"NOTIFY_SOCKET": "vsock:2:1"}, {"NOTIFY_SOCKET": "/nowhere/notify"}],
    ids=["none", "of another kind", "gone"],
)
def test_a_run_needs_no_manager(environ: dict[str, str]) -> None:
    async def run() -> str:
        manager = ServiceManager(environ)
        async with notifying(manager, Status(), Stop()):
            manager.reloading()
            manager.ready()
            await asyncio.sleep(0)
            return "ran"

    assert asyncio.run(run()) == "ran"


def test_a_watchdog_of_another_process_is_not_ours(listener: tuple[socket.socket, str]) -> None:
    heard, address = listener
    manager = ServiceManager({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "60000", "WATCHDOG_PID": "1"})
    manager.alive("x")

    assert waiting_at(heard) == ["STATUS=x"]


def test_a_reload_says_when_it_began(listener: tuple[socket.socket, str]) -> None:
    heard, address = listener
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    ServiceManager({"NOTIFY_SOCKET": address}).reloading()
    words, at = waiting_at(heard)[0].split("\n")

    assert words == "RELOADING=1"
    assert before <= int(at.removeprefix("MONOTONIC_USEC=")) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000


@given(said=st.lists(st.sampled_from(["ready", "stopping", "alive"]), max_size=60), read_after=st.integers(0, 60))
def test_states_arrive_in_order_whatever_the_manager_has_room_for(said: list[str], read_after: int) -> None:
    """A full queue makes no caller wait: states are sent later, signs of life are dropped."""
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as heard:
        heard.bind("")
        manager = ServiceManager({"NOTIFY_SOCKET": "@" + heard.getsockname()[1:].decode(), "WATCHDOG_USEC": "60000"})
        received = []
        for number, word in enumerate(said):
            manager.alive(str(number)) if word == "alive" else getattr(manager, word)()
            if number == read_after:
                received += waiting_at(heard)
        for _ in said:  # later ticks
            received += waiting_at(heard)
            manager.alive("last")
        received += waiting_at(heard)

    wanted = [f"{word.upper()}=1" for word in said if word != "alive"]
    assert [each for each in received if not each.startswith(("WATCHDOG", "STATUS"))] == wanted
    assert not said or [each for each in received if "STATUS" in each][-1].endswith("STATUS=last")


@contextmanager
def no_free_descriptor() -> Iterator[None]:
    """Take every file descriptor that the process may have, inside the block."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = max(map(int, os.listdir("/proc/self/fd"))) + 3  # noqa: PTH208
    taken: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, soft), hard))
    try:
        with suppress(OSError):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        yield
    finally:
        for each in taken:
            os.close(each)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Unchanged:
    """Documents that never change."""

    contents: ClassVar[dict[str, str]] = {}

    def __init__(self) -> None:
        self.reads = 0

    def look(self) -> list[object]:
        return [1]

    def read(self) -> dict[str, Current]:
        self.reads += 1
        return {}


def test_reloads_and_signs_of_life_go_on_after_no_descriptor_was_free(listener: tuple[socket.socket, str]) -> None:
    """What was said meanwhile is sent later; a full table of files ends neither."""
    heard, address = listener
    manager = ServiceManager({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "60000"})
    documents = Unchanged()

    async def until(reads: int, following: asyncio.Task[None]) -> None:
        reload.request()
        while documents.reads < reads and not following.done():
            await asyncio.sleep(0.01)

    async def main() -> list[str]:
        following = asyncio.create_task(reload.follow([], Configuration(), ImmediateClock()))
        after: list[str] = []
        async with notifying(manager, Status(), Stop()):
            await until(1, following)
            waiting_at(heard)
            with no_free_descriptor():
                await until(2, following)
                await asyncio.sleep(3 * manager.tick_seconds)
            await until(3, following)
            end = time.monotonic() + SECONDS / 4
            while not any("WATCHDOG=1" in each for each in after) and time.monotonic() < end:
                await asyncio.sleep(0.01)
                after += waiting_at(heard)
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        return after

    reload = Reload(documents, manager=manager)
    after = asyncio.run(asyncio.wait_for(main(), SECONDS))

    assert documents.reads == 3
    words = [each.split("\n")[0] for each in after if not each.startswith(("WATCHDOG", "STATUS"))]
    assert words[:2] == ["RELOADING=1", "READY=1"], "it is told later"
    assert any("WATCHDOG=1" in each for each in after)


def test_systemd_s_own_client_says_the_same(listener: tuple[socket.socket, str]) -> None:
    program = shutil.which("systemd-notify")
    if program is None:
        pytest.skip("needs systemd-notify")
    heard, address = listener
    manager = ServiceManager({"NOTIFY_SOCKET": address})
    manager.ready()
    manager.alive("2 routes: 2 idle")
    ours = waiting_at(heard)
    for option in ("--ready", "--status=2 routes: 2 idle"):
        subprocess.run([program, "--no-block", option], env={"NOTIFY_SOCKET": address}, check=True, timeout=SECONDS)

    assert waiting_at(heard) == ours


def test_states_are_one_line_of_words() -> None:
    assert states(Status([RouteStatus("a\nREADY=1", ABOUT, "idle")])) == "1 route: 1 idle"
