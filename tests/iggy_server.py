"""A real Iggy for tests: a local `iggy-server` on loopback, killed and restarted at will, or an existing server.

Looked for in this order: `IGGYFLUX_TEST_IGGY=HOST:PORT` (user and password iggy), an `iggy-server` on PATH, the image
`IMAGE` by testcontainers.  A missing one is named at the end of the run.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from iggyflux.pipeline import IggySettings, Secret
from iggyflux.transports.iggy.connection import Connection

IMAGE = "apache/iggy:0.9.0"
USER = PASSWORD = "iggy"
_START_SECONDS = 60
_PULL_SECONDS = 180


@dataclass
class IggyServer:
    """A server; `kill` and `start` only where it is a local process."""

    tcp: str
    http: str | None
    folder: Path | None = None
    process: subprocess.Popen[bytes] | None = None
    container: Any = None
    extra: Mapping[str, str] = field(default_factory=dict)
    made: list[str] = field(default_factory=list)
    inside: Sequence[str] = ()
    """The beginning of a command line that runs the server elsewhere, as in a network namespace."""

    @property
    def is_ours(self) -> bool:
        return self.folder is not None

    def settings(self, **more: Any) -> IggySettings:
        """How to reach it."""
        given = {"address": self.tcp, "username": USER, "password": Secret(PASSWORD), "poll_interval_seconds": 0.02}
        return IggySettings(**{**given, **more})

    def start(self) -> None:
        """Start, or start again on the same ports and data."""
        assert self.folder is not None
        binary = shutil.which("iggy-server")
        assert binary is not None
        own = {
            "IGGY_TCP_ADDRESS": self.tcp,
            "IGGY_HTTP_ADDRESS": (self.http or "").removeprefix("http://"),
            "IGGY_QUIC_ENABLED": "false",
            "IGGY_WEBSOCKET_ENABLED": "false",
            "IGGY_ROOT_USERNAME": USER,
            "IGGY_ROOT_PASSWORD": PASSWORD,
            "IGGY_SYSTEM_PATH": str(self.folder / "data"),
            "IGGY_PATH": str(self.folder / "data"),
            "IGGY_SYSTEM_SHARDING_CPU_ALLOCATION": "1",
            "IGGY_SHARDING_CPU_ALLOCATION": "1",
            "IGGY_SYSTEM_MEMORY_POOL_SIZE": "512 MiB",
            "IGGY_MEMORY_POOL_SIZE": "512 MiB",
        }
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("IGGY")}
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*self.inside, binary],
                cwd=self.folder,
                env={**inherited, **own, **self.extra},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.wait()

    def wait(self) -> None:
        """Wait until it answers."""
        until = time.monotonic() + _START_SECONDS
        while not self._answers():
            if self.process is not None and self.process.poll() is not None:
                text = (self.folder / "server.log").read_text()[-2000:] if self.folder else ""
                raise RuntimeError(f"iggy-server left with {self.process.returncode}: {text}")
            if time.monotonic() > until:
                raise RuntimeError("iggy-server did not answer in time")
            time.sleep(0.05)

    def kill(self) -> None:
        """End it as a crash does."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it as an operator does."""
        self._end(signal.SIGTERM)

    def close(self) -> None:
        if not self.is_ours and self.http is not None:
            for stream in self.made:
                self.rest("DELETE", f"/streams/{stream}")
        if self.container is not None:
            self.container.stop()
            self.container.get_docker_client().client.close()
        self._end(signal.SIGTERM)

    def unique(self, name: str) -> str:
        """Return a stream name that no other test and no other user of the server has."""
        self.made.append(f"iggyflux-test-{name}-{secrets.token_hex(4)}")
        return self.made[-1]

    def create_topic(self, stream: str, topic: str, partitions: int = 1, **options: str) -> None:
        """By the HTTP API, if its address is known: `create_topic` of the SDK does not work with every server."""
        if self.http is None:
            asyncio.run(self._create(stream, topic, partitions))
            return
        self.rest("POST", "/streams", {"name": stream})
        body = {"name": topic, "partitions_count": partitions, "compression_algorithm": "none", "message_expiry": 0}
        tree: dict[str, object] = {**body, "max_topic_size": 0}
        if options:
            tree["options"] = options
        status, answer = self.rest("POST", f"/streams/{stream}/topics", tree)
        assert status in (200, 201), answer

    async def _create(self, stream: str, topic: str, partitions: int) -> None:
        connection = Connection(self.settings())
        await connection.open()
        await connection.create(stream, topic, partitions)
        await connection.close()

    def rest(self, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, Any]:
        """Call the HTTP API, logged in."""
        login = self._http("POST", "/users/login", {"username": USER, "password": PASSWORD}, None)[1]
        return self._http(method, path, body, login["access_token"]["token"])

    def _http(self, method: str, path: str, body: dict[str, Any] | None, token: str | None) -> tuple[int, Any]:
        headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.http}{path}", data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                text = answer.read()
                return answer.status, json.loads(text) if text[:1] in (b"{", b"[") else None
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def _answers(self) -> bool:
        host, _, port = self.tcp.rpartition(":")
        try:
            with socket.create_connection((host, int(port)), timeout=1):
                pass
            return self.http is None or self._http("GET", "/ping", None, None)[0] == 200
        except OSError:
            return False

    def _end(self, number: signal.Signals) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)
            self.process.wait(60)
        self.process = None


def find_server(folder: Path) -> IggyServer | str:
    """A running server, or why there is none."""
    if address := os.environ.get("IGGYFLUX_TEST_IGGY"):
        return IggyServer(address, os.environ.get("IGGYFLUX_TEST_IGGY_HTTP"))
    if shutil.which("iggy-server"):
        return start_server(folder)
    return _container()


def start_server(folder: Path, **extra: str) -> IggyServer:
    """Start a local server with its data in `folder`; `extra` are variables of its environment."""
    tcp, http = free_ports(2)
    server = IggyServer(f"127.0.0.1:{tcp}", f"http://127.0.0.1:{http}", folder, extra=extra)
    try:
        server.start()
    except BaseException:
        server.close()
        raise
    return server


def _container() -> IggyServer | str:
    nothing = "Iggy: no IGGYFLUX_TEST_IGGY, no iggy-server on PATH, and "
    docker = shutil.which("docker")
    if docker is None:
        return f"{nothing}no docker to run {IMAGE}"
    for arguments, words in ((["info"], "docker does not run"), (["pull", "-q", IMAGE], f"{IMAGE} cannot be pulled")):
        try:
            done = subprocess.run([docker, *arguments], capture_output=True, timeout=_PULL_SECONDS, check=False)
        except subprocess.TimeoutExpired:
            return f"{nothing}{words}"
        if done.returncode:
            return f"{nothing}{words}"
    try:
        from testcontainers.core.container import DockerContainer

        container = (
            DockerContainer(IMAGE)
            .with_exposed_ports(8090, 3000)
            .with_env("IGGY_TCP_ADDRESS", "0.0.0.0:8090")
            .with_env("IGGY_HTTP_ADDRESS", "0.0.0.0:3000")
            .with_env("IGGY_NODE_ADVERTISED_ADDRESS", "localhost")
            .with_env("IGGY_SHARDING_CPU_ALLOCATION", "all")
            .with_env("IGGY_ROOT_USERNAME", USER)
            .with_env("IGGY_ROOT_PASSWORD", PASSWORD)
            .with_kwargs(cap_add=["SYS_NICE"], security_opt=["seccomp=unconfined"], ulimits=[_unlimited_memlock()])
        )
        container.start()
    except Exception as error:  # docker's exceptions are not documented: each one is the reason
        return f"{nothing}{IMAGE} cannot be run: {str(error).splitlines()[0][:120]}"
    host = container.get_container_host_ip()
    ports = [container.get_exposed_port(port) for port in (8090, 3000)]
    server = IggyServer(f"{host}:{ports[0]}", f"http://{host}:{ports[1]}", container=container)
    server.wait()
    return server


def _unlimited_memlock() -> Any:
    from docker.types import Ulimit

    return Ulimit(name="memlock", soft=-1, hard=-1)


SYSTEM_PORTS = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_ports(count: int) -> Sequence[int]:
    """Return ports of loopback that stay free until a program of this test takes them.

    They are below those that the system gives to sockets without a port, of which other tests take many, and each
    worker of a test run has its own.
    """
    first = int(SYSTEM_PORTS.read_text().split()[0]) if SYSTEM_PORTS.exists() else 0
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    ours = range(10_000 + worker, first, workers)
    found: list[int] = []
    with ExitStack() as until:
        while len(found) < count:
            port = secrets.choice(ours) if len(ours) > 1_000 else 0
            one = until.enter_context(socket.socket())
            with suppress(OSError):
                one.bind(("127.0.0.1", port))
                found.append(one.getsockname()[1])
    return found
