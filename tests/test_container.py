"""The image of deploy/Dockerfile, built and run where a container engine answers.

Where its base cannot be pulled, this machine's Python takes its place: the interpreter, its libraries and a shell.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.servers import image

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[1]
SECONDS = 120.0
"""The time after which something that must happen has not happened."""
BASE, TAG = "iggyflux-test-python:base", "iggyflux-test:image"
NO_INDEX = re.compile("No matching distribution|Connection|Temporary failure|timed out", re.IGNORECASE)
MAPPING = """\
iggyflux: 1
kind: writer
name: kilns
from: {stream: plant, topic: kilns}
points: {measurement: {const: kiln}, fields: {heat: heat}, timestamp: {expr: at, format: unix_s}}
"""
PIPELINE = """\
iggyflux: 1
state: /var/lib/iggyflux/state
dead_letters: /var/lib/iggyflux/dead-letters
from: log:/var/lib/iggyflux/data
to: file:/var/lib/iggyflux/out.lp
run: [{mapping: kilns.yaml}]
"""


@pytest.fixture(scope="module")
def engine() -> Iterator[Any]:
    try:
        with image.engine() as client:
            yield client
    except image.NoEngine as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="module")
def built(engine: Any) -> Any:
    """The image of the Dockerfile."""
    engine.images.build(fileobj=io.BytesIO(stand_in()), custom_context=True, tag=BASE, rm=True)
    try:
        made, _ = engine.images.build(
            path=str(ROOT),
            dockerfile="deploy/Dockerfile",
            tag=TAG,
            buildargs={"PYTHON": BASE},
            network_mode="host",
            rm=True,
        )
    except Exception as error:
        log = "".join(str(line.get("stream", "")) for line in getattr(error, "build_log", ()))
        if NO_INDEX.search(log):
            pytest.skip("the package index cannot be reached from a container")
        raise AssertionError(log or str(error)) from error
    return made


def stand_in() -> bytes:
    """Return the files of an image with this machine's Python, its libraries and a shell, as a context for a build."""
    prefix = Path(sys.base_prefix)
    python = f"python{sys.version_info.major}.{sys.version_info.minor}"
    wanted = [prefix / "bin" / python, Path("/bin/sh"), *Path("/etc/ssl/certs").glob("ca-certificates.crt")]
    own = [path for path in (prefix / "lib").rglob("*") if _is_part(path.relative_to(prefix / "lib"))]
    binaries = [path for path in [*wanted, *own] if path.suffix == ".so" or path in wanted[:2]]
    linked = subprocess.run(["ldd", *binaries], capture_output=True, text=True, check=False).stdout
    libraries = {Path(each) for each in re.findall(r"(/\S+) \(0x", linked)}
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for path in sorted({*wanted, *own, *libraries}):
            if not path.is_dir():
                entry = tarfile.TarInfo(f"root{path}")
                data = path.read_bytes()
                entry.size, entry.mode = len(data), 0o755
                tar.addfile(entry, io.BytesIO(data))
        settings = Path("/etc/pip.conf")
        lines = ["FROM scratch", "COPY root/ /", f"ENV PATH={prefix}/bin:/bin:/usr/bin PYTHONDONTWRITEBYTECODE=1"]
        lines += [f"ENV {name}={value}" for name, value in os.environ.items() if name.startswith("PIP_")]
        lines += [
            f'RUN ["{prefix}/bin/{python}", "-c", "import os; os.symlink(\'{python}\', \'{prefix}/bin/python\')"]'
        ]
        if settings.exists():
            lines.append("COPY pip.conf /etc/pip.conf")
            tar.add(settings, "pip.conf")
        text = "\n".join(lines).encode()
        entry = tarfile.TarInfo("Dockerfile")
        entry.size = len(text)
        tar.addfile(entry, io.BytesIO(text))
    return archive.getvalue()


def _is_part(path: Path) -> bool:
    """Return whether a file below `lib` belongs to the interpreter or to pip."""
    skipped = {"test", "tests", "__pycache__", "idlelib", "lib2to3", "tkinter", "pkgconfig"}
    others = "site-packages" in path.parts and path.parts[path.parts.index("site-packages") + 1 :][:1] not in [
        (),
        ("pip",),
    ]
    return not skipped & set(path.parts) and not others and path.suffix != ".a"


def until(is_so: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + SECONDS
    while not is_so():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


def test_the_image_runs_without_rights_is_healthy_and_stops_gently(engine: Any, built: Any, tmp_path: Path) -> None:
    settings, state = tmp_path / "etc", tmp_path / "state"
    settings.mkdir()
    state.mkdir()
    (settings / "kilns.yaml").write_text(MAPPING)
    (settings / "pipeline.yaml").write_text(PIPELINE)
    subprocess.run(
        [sys.executable, "-m", "iggyflux", "log", "append", state / "data", "plant/kilns"],
        input=b'{"heat": 1.5, "at": 7}\n',
        capture_output=True,
        check=True,
    )
    for path in (tmp_path, *tmp_path.parents[:2], *tmp_path.rglob("*")):
        path.chmod(0o777)
    container = engine.containers.run(
        built.id,
        detach=True,
        read_only=True,
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        network_mode="none",
        tmpfs={"/tmp": ""},
        volumes={str(settings): {"bind": "/etc/iggyflux", "mode": "ro"}, str(state): {"bind": "/var/lib/iggyflux"}},
        healthcheck={"test": built.attrs["Config"]["Healthcheck"]["Test"], "interval": 10**9, "timeout": 30 * 10**9},
    )
    try:

        def health() -> str:
            container.reload()
            assert container.status == "running", container.logs().decode()
            return str(container.attrs["State"]["Health"]["Status"])

        until(lambda: health() == "healthy", f"it is healthy: {container.logs().decode()}")
        until(lambda: (state / "out.lp").exists() and (state / "out.lp").stat().st_size, "its line is written")
        _, who = container.exec_run(["python", "-c", "import os; print(os.getuid(), os.access('/opt', os.W_OK))"])
        container.stop(timeout=45)
        left = container.wait()["StatusCode"]
        log = container.logs().decode()
    finally:
        container.remove(force=True)
        shutil.rmtree(state, ignore_errors=True)

    assert who == b"65532 False\n"
    assert left == 0, log
    assert '"event": "run.stopping"' in log or '"run.stopping"' in log
    assert "1 message, 1 point written, 1 acknowledged" in log


def test_the_image_says_that_a_run_which_does_not_answer_is_not_healthy(engine: Any, built: Any) -> None:
    check = built.attrs["Config"]["Healthcheck"]["Test"][1:]
    python, *arguments = check
    with pytest.raises(Exception, match=r"Connection refused|urlopen"):
        engine.containers.run(built.id, arguments, entrypoint=[python], network_mode="none", remove=True)


def test_the_image_shows_the_help_of_a_command(engine: Any, built: Any) -> None:
    shown = engine.containers.run(built.id, ["--version"], network_mode="none", remove=True)

    assert shown.startswith(b"iggyflux ")
