"""Containers for tests: an image of one program and its libraries, and images that are pulled.

Any error of the engine is the reason why a product did not run.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import socket
import subprocess
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

_ENGINE = "unix:///var/run/docker.sock"
_PING = b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n"
_LABEL = "iggyflux.tests.process"
_DOCKERFILE = """\
FROM scratch
COPY root/ /
ENV INFLUXDB_META_DIR=/var/meta INFLUXDB_DATA_DIR=/var/data INFLUXDB_DATA_WAL_DIR=/var/wal
EXPOSE 8086
ENTRYPOINT ["/influxd", "run", "-config", "/dev/null"]
"""


class NoEngine(Exception):
    """No container can run here; the text says why."""


@contextmanager
def engine(patience_seconds: float = 5.0) -> Iterator[Any]:
    """Return a client of the container engine.  Raise `NoEngine`."""
    _knock(patience_seconds)
    # One image less to pull; the tests stop the containers.
    os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")
    import docker

    with ExitStack() as closing:
        try:
            client = docker.DockerClient.from_env(timeout=120)
            closing.callback(client.close)
            client.ping()
        except Exception as error:  # the engine's exceptions are not documented: each one is the reason
            raise NoEngine("no Docker engine answers") from error
        yield client


def _knock(patience_seconds: float) -> None:
    """Ask whether an engine answers: without one, the client leaves its socket open, and waits long."""
    address = urlsplit(os.environ.get("DOCKER_HOST") or _ENGINE)
    if address.scheme not in ("unix", "tcp", "http"):
        return
    unix = address.scheme == "unix"
    with socket.socket(socket.AF_UNIX if unix else socket.AF_INET) as knocking:
        knocking.settimeout(patience_seconds)
        try:
            knocking.connect(address.path if unix else (address.hostname or "", address.port or 2375))
            if not os.environ.get("DOCKER_TLS_VERIFY"):
                knocking.sendall(_PING)
                knocking.recv(1)
        except OSError as error:
            raise NoEngine("no Docker engine answers") from error


def build(binary: Path) -> str:
    """Make an image of only `binary` and the libraries it is linked with; return its tag.  Raise `NoEngine`."""
    context = _context(binary)
    tag = f"iggyflux-test-{binary.name}:{hashlib.sha256(context).hexdigest()[:12]}"
    with engine() as client:
        try:
            if not client.images.list(tag):
                client.images.build(fileobj=io.BytesIO(context), custom_context=True, tag=tag, rm=True)
        except Exception as error:
            raise NoEngine(first_line(error)) from error
    return tag


def _context(binary: Path) -> bytes:
    """Return the files of an image, as an archive that is the same for the same files."""
    files = {"Dockerfile": _DOCKERFILE.encode(), f"root/{binary.name}": binary.resolve().read_bytes()}
    if ldd := shutil.which("ldd"):
        linked = subprocess.run([ldd, str(binary)], capture_output=True, text=True, check=False).stdout
        for library in re.findall(r"(/\S+) \(0x", linked):
            files[f"root{library}"] = Path(library).resolve().read_bytes()
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, data in sorted(files.items()):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o755
            tar.addfile(entry, io.BytesIO(data))
    return archive.getvalue()


def run(tag: str, port: int, environment: Mapping[str, str], until: ExitStack, command: str | None = None) -> str:
    """Start a container of this image, pulled if missing; return its URL.  Raise `NoEngine`."""
    with engine() as client:
        _remove_orphans(client)
    from testcontainers.core.container import DockerContainer

    container = DockerContainer(tag).with_exposed_ports(port).with_kwargs(labels={_LABEL: str(os.getpid())})
    for key, value in environment.items():
        container = container.with_env(key, value)
    if command is not None:
        container = container.with_command(command)
    try:
        container.start()
        until.callback(container.stop)
        return f"http://{container.get_container_host_ip()}:{container.get_exposed_port(port)}"
    except Exception as error:
        raise NoEngine(first_line(error)) from error


def _remove_orphans(client: Any) -> None:
    """Remove the containers of killed test runs: where processes are visible, those whose owner has ended."""
    if not Path("/proc/self").exists():
        return
    for container in client.containers.list(all=True, filters={"label": _LABEL}):
        if not Path("/proc", container.labels[_LABEL]).exists():
            container.remove(force=True)


def first_line(error: Exception) -> str:
    """Return the reason in one line: the engine's own words if it gave some."""
    words = str(getattr(error, "explanation", None) or error)
    return (words.splitlines() or [type(error).__name__])[0][:120]
