"""A missing engine, or one that does not answer, is reported as such, soon, and leaves nothing open."""

from __future__ import annotations

import gc
import socket
from pathlib import Path

import pytest
from iggy_server import free_ports

from tests.servers import image


def _ask_for_an_engine(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", address)
    with pytest.raises(image.NoEngine, match="no Docker engine answers"), image.engine(0.1):
        pytest.fail("there is none")
    gc.collect()  # a socket that is still open would be reported now


def test_no_engine_at_an_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (port,) = free_ports(1)
    for address in (f"unix://{tmp_path}/none.sock", f"tcp://127.0.0.1:{port}"):
        _ask_for_an_engine(address, monkeypatch)


def test_an_engine_that_hangs_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the name of such a socket must be short
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind("silent.sock")
        silent.listen()
        _ask_for_an_engine("unix://" + str(tmp_path / "silent.sock"), monkeypatch)


def test_a_reason_is_the_engines_own_words() -> None:
    error = RuntimeError("500 Server Error for http+docker://localhost")
    error.explanation = "no such host\nmore"  # type: ignore[attr-defined]

    assert image.first_line(error) == "no such host"
    assert image.first_line(RuntimeError("")) == "RuntimeError"
