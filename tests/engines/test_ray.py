"""Ray for real: a local cluster with workers, one of which is killed; the store must hold what one process stores.

`make test-ray` has Ray in a venv of its own, and fails without it; elsewhere these tests are skipped by name.
"""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

if os.environ.get("IGGYFLUX_TEST_RAY"):
    import ray
else:
    ray = pytest.importorskip("ray", reason="Ray is not installed (make test-ray)")

from iggyflux import Message, load_mapping
from iggyflux.engines.ray import render
from iggyflux.sim import SimServer
from tests.archive_mapping import DOCUMENT
from tests.shell import process

pytestmark = [pytest.mark.timeout(1200), pytest.mark.filterwarnings("ignore")]
ENVIRONMENT = {"RAY_AUTH_MODE": "disabled", "RAY_raylet_start_wait_time_s": "240", "RAY_DEDUP_LOGS": "0"}
FILES, RECORDS = 6, 10_000


@pytest.fixture(scope="module", autouse=True)
def _environment() -> Iterator[None]:
    before = {key: os.environ.get(key) for key in ENVIRONMENT}
    os.environ.update(ENVIRONMENT)
    yield
    for key, value in before.items():
        if value is None:
            os.environ.pop(key, None)
        else:
            os.environ[key] = value


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An archive of several files, in each of which one record fails, and a mapping."""
    (tmp_path / "klima.yaml").write_text(DOCUMENT, "utf-8")
    for file in range(FILES):
        rows = [
            {"ort": f"o{file}", "grad": "x" if number == 7 else number, "zeit": 1_700_000_000 + number}
            for number in range(RECORDS)
        ]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / f"{file:02}.ndjson.gz").write_bytes(gzip.compress(text.encode(), 1))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@contextmanager
def serving(folder: Path) -> Iterator[SimServer]:
    """Run a server, and write a pipeline file with its address."""
    with SimServer(1, database="werk") as server:
        text = f"iggyflux: 1\ninfluxdb: {{url: '{server.url}', database: werk}}\nrun: [{{mapping: klima.yaml}}]\n"
        (folder / "pipeline.yaml").write_text(text, "utf-8")
        yield server


def workers_of(parent: int) -> list[int]:
    """Return the processes below `parent` that run tasks of Ray now."""
    listing = subprocess.run(["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 2) for line in listing.splitlines()[1:]]
    below, found = {parent}, []
    for _ in range(6):
        below |= {int(pid) for pid, ppid, _ in rows if int(ppid) in below}
    for pid, _, args in rows:
        if int(pid) in below and args.startswith("ray::") and "IDLE" not in args and "MapBatches" in args:
            found.append(int(pid))
    return found


def test_a_worker_that_is_killed_loses_nothing_and_changes_nothing(folder: Path) -> None:
    """Killed while tasks write: the store is that of a load by one process, and every failed record has its letter."""
    args = ("load", "klima.yaml", "*.ndjson.gz", "--pipeline", "pipeline.yaml")
    with serving(folder) as alone:
        first = process(*args, "--quiet", cwd=folder)
        assert first.code == 1, first.err
        wanted = sorted(alone.dump())
    assert len(wanted) == FILES * (RECORDS - 1)
    for path in (folder / ".iggyflux", folder / "dead-letters"):
        path.rename(folder / f"alone{path.name}")

    with serving(folder) as spread:
        command = [sys.executable, "-m", "iggyflux", *args, "--engine", "ray"]
        loading = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)
        deadline, killed = time.monotonic() + 900, 0
        while loading.poll() is None and time.monotonic() < deadline:
            some_are_written = bool(spread.dump())
            if some_are_written and not killed and (running := workers_of(loading.pid)):
                os.kill(running[0], signal.SIGKILL)
                killed += 1
            time.sleep(0.05)
        err = loading.communicate(timeout=60)[1]

        assert killed == 1, err
        assert loading.returncode == 1, err
        assert sorted(spread.dump()) == wanted
        letters = process("dead-letters", "list", "dead-letters/klima", cwd=folder).out
        again = process(*args, "--engine", "ray", cwd=folder)

    for file in range(FILES):
        assert letters.count(f"{file:02}.ndjson.gz:8  ") == 1
    assert again.code == 0, again.err
    assert f"note: {FILES} files were loaded before" in again.err


def test_a_dataset_is_rendered_as_the_plan_renders(folder: Path) -> None:
    """By several workers, with a mapping that was pickled; failures are rows too."""
    mapping = load_mapping(folder / "klima.yaml")
    assert mapping.kind == "writer"
    payloads = [b'{"ort": "a", "grad": %d, "zeit": %d}' % (number, number) for number in range(2000)] + [
        b"{",
        b'{"a": 1}',
    ]
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        dataset = ray.data.from_items([{"body": payload} for payload in payloads], override_num_blocks=4)
        rows = render(dataset, mapping, column="body", tags={"quelle": "archiv"}, batch_size=300).take_all()
    finally:
        ray.shutdown()

    rendered = mapping.plan(tags={"quelle": "archiv"}).render([Message(payload) for payload in payloads])
    assert sorted(row["line"] for row in rows if row["line"]) == sorted(rendered.lines)
    failed = sorted((row["payload"], row["code"], row["reason"]) for row in rows if row["code"])
    assert failed == sorted((payloads[each.index], each.code, each.reason_and_hint) for each in rendered.failures)


def test_the_recipe_for_pyspark_renders_what_the_plan_renders(folder: Path) -> None:
    """The function of the page, called as `mapInPandas` calls it: with an iterator of frames."""
    pandas = pytest.importorskip("pandas", reason="it comes with Ray (make test-ray)")
    page = (Path(__file__).parents[2] / "docs/archives.md").read_text("utf-8")
    (code,) = [each for each in page.split("```python\n")[1:] if "def lines_of" in each]
    names: dict[str, Any] = {}
    exec(code.partition("```")[0], names)
    payloads = [b'{"ort": "a", "grad": %d, "zeit": %d}' % (number, number) for number in range(100)] + [b"{"]

    frames = list(
        names["lines_of"](
            iter([pandas.DataFrame({"payload": payloads[:40]}), pandas.DataFrame({"payload": payloads[40:]})])
        )
    )

    lines = [line for frame in frames for line in frame["line"]]
    assert lines == list(load_mapping(folder / "klima.yaml").plan().render([Message(each) for each in payloads]).lines)  # type: ignore[union-attr]
