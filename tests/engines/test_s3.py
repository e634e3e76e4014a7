"""`load` from S3 for real: s3fs, and a server of S3 (moto) in this process; what is killed is a process.

`make test-s3` has both in a venv of its own, and fails without them; elsewhere these tests are skipped by name.
"""

from __future__ import annotations

import gzip
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

if not os.environ.get("IGGYFLUX_TEST_S3"):
    pytest.importorskip("moto", reason="moto is not installed (make test-s3)")
    pytest.importorskip("s3fs", reason="s3fs is not installed (make test-s3)")

from tests.archive_mapping import DOCUMENT
from tests.shell import process

pytestmark = [pytest.mark.timeout(600), pytest.mark.filterwarnings("ignore")]
SECRET = "kanarienvogel-51c0"
RECORDS, SINCE = 30_000, 1_700_000_000


def rows(place: str) -> bytes:
    return b"".join(b'{"ort": "%s", "grad": %d, "zeit": %d}\n' % (place.encode(), n, SINCE + n) for n in range(RECORDS))


@pytest.fixture(scope="module")
def store() -> Iterator[tuple[Any, str]]:
    """A server of S3, and its address."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    login = {"aws_access_key_id": "wir", "aws_secret_access_key": SECRET, "region_name": "us-east-1"}
    yield boto3.client("s3", endpoint_url=url, **login), url
    server.stop()


@pytest.fixture
def folder(tmp_path: Path, store: tuple[Any, str], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a mapping and a pipeline; a bucket with two compressed objects and a plain one."""
    (tmp_path / "klima.yaml").write_text(DOCUMENT, "utf-8")
    text = "iggyflux: 1\nto: file:points.lp\nrun: [{mapping: klima.yaml, from: log:data}]\n"
    (tmp_path / "pipeline.yaml").write_text(text, "utf-8")
    client, url = store
    client.create_bucket(Bucket="archiv")
    for name, data in (("a.ndjson.gz", gzip.compress(rows("a"))), ("b.ndjson.gz", gzip.compress(rows("b")))):
        client.put_object(Bucket="archiv", Key=f"2026/{name}", Body=data)
    client.put_object(Bucket="archiv", Key="2026/c.ndjson", Body=rows("c"))
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    login = {"AWS_ACCESS_KEY_ID": "wir", "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_DEFAULT_REGION": "us-east-1"}
    for name, value in {**login, "AWS_ENDPOINT_URL": url, "AWS_EC2_METADATA_DISABLED": "true"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    return tmp_path


ARGS = ("load", "klima.yaml", "s3://archiv/2026/*", "--pipeline", "pipeline.yaml")


def test_a_load_that_is_killed_goes_on_and_what_is_loaded_is_left_out(folder: Path, store: tuple[Any, str]) -> None:
    """In a plain object, after two compressed ones; an object that is replaced then is not gone on with."""
    loading = subprocess.Popen(
        [sys.executable, "-m", "iggyflux", *ARGS, "--rate", "40000"], cwd=folder, stderr=subprocess.DEVNULL
    )
    points, deadline = folder / "points.lp", time.monotonic() + 120
    while (not points.exists() or b"ort=c" not in points.read_bytes()) and time.monotonic() < deadline:
        assert loading.poll() is None
        time.sleep(0.02)
    loading.send_signal(signal.SIGKILL)
    loading.wait()

    second, third = process(*ARGS, cwd=folder), process(*ARGS, cwd=folder)

    assert (second.code, third.code) == (0, 0), second.err
    assert "note: 2 files were loaded before" in second.err
    assert "note: 3 files were loaded before" in third.err
    lines = points.read_text("utf-8").splitlines()
    whole = {f"klima,ort={ort} grad={n}.0 {SINCE + n}000000000" for ort in "abc" for n in range(RECORDS)}
    assert set(lines) == whole
    assert len(lines) < len(whole) + RECORDS

    store[0].put_object(Bucket="archiv", Key="2026/c.ndjson", Body=rows("d"))
    changed = process(*ARGS, cwd=folder)
    assert (changed.code, "error[IFX712]: s3://archiv/2026/c.ndjson: it is not" in changed.err) == (3, True)


@pytest.mark.parametrize(
    ("environment", "path", "code", "words"),
    [
        ({}, "2026/missing.ndjson", 3, "cannot read s3://archiv/2026/missing.ndjson: No such file"),
        ({}, "2027/*", 2, "no file matches 's3://archiv/2027/*'"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, "2026/*", 3, "error[IFX611]: cannot read s3://archiv/2026/*: "),
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "2026/c.ndjson", 3, "hint: check the login"),
    ],
)
def test_what_cannot_be_read_is_told_without_a_secret(
    folder: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], path: str, code: int, words: str
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    outcome = process("load", "klima.yaml", f"s3://archiv/{path}", "--dry-run", cwd=folder)

    assert outcome.code == code, outcome.err
    assert words in outcome.err
    assert SECRET not in outcome.err
    assert "Traceback" not in outcome.err


def test_objects_are_read_in_blocks_that_fit_the_memory(folder: Path) -> None:
    """s3fs alone would read 50 MB of each object that is loaded already, to know it again."""
    from iggyflux.archives.files import find_archives

    (archive, *_) = find_archives(["s3://archiv/2026/c.ndjson"])
    file = archive.open()
    file.identity()
    assert file._file.blocksize <= 4 << 20
    file.release()
