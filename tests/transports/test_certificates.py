"""The files of TLS: what is wrong with one of them names its key and its path, and no passphrase is asked for."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import pty
import shutil
import ssl
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from iggyflux.delivery.verdicts import Accepted
from iggyflux.errors import Stopped
from iggyflux.pipeline import IggySettings, InfluxSettings, Secret
from iggyflux.transports.iggy.settings import certificate_problems
from iggyflux.transports.influxdb.write.sink import InfluxLineSink
from tests.transports.raw_server import RawServer

TLS = Path(__file__).parent / "tls"
PASSPHRASE = "corr3ct h0rse"
KEYS = ("ca_file", "client_cert", "client_key")


def first_part(name: str) -> bytes:
    """Return the certificate of a file that also holds a key."""
    return (TLS / name).read_bytes().split(b"-----BEGIN PRIVATE")[0].split(b"-----BEGIN EC PRIVATE")[0]


def empty(path: Path) -> None:
    path.write_bytes(b"")


def another_text(path: Path) -> None:
    path.write_text("url: http://127.0.0.1\n")


def binary(path: Path) -> None:
    path.write_bytes(ssl.PEM_cert_to_DER_cert((TLS / "ca.pem").read_text()))


def half(path: Path) -> None:
    text = (TLS / ("ca.pem" if path.name != "client_key" else "client-encrypted.key")).read_text()
    path.write_text(text[: len(text) // 2])


def another_kind(path: Path) -> None:
    path.write_bytes((TLS / ("client-encrypted.key" if path.name != "client_key" else "ca.pem")).read_bytes())


def expired(path: Path) -> None:
    path.write_bytes((TLS / "expired.pem").read_bytes())


FAULTS: dict[str, Callable[[Path], None]] = {
    "missing": lambda path: path.unlink(missing_ok=True),
    "a directory": lambda path: (path.unlink(), path.mkdir())[1],
    **{each.__name__: each for each in (empty, another_text, binary, half, another_kind)},
}


async def connected(given: InfluxSettings) -> object:
    sink = InfluxLineSink(given)
    try:
        await sink.connect()
        return await sink.write(["m f=1 1"])
    finally:
        await sink.close()


def connect(url: str, **given: Any) -> object:
    base = InfluxSettings(url=url, bucket="b", token=Secret("t"), timeout_seconds=5.0)
    return asyncio.run(connected(dataclasses.replace(base, **given)))


def client_context() -> ssl.SSLContext:
    """Return what a server needs that asks for a certificate of the client."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TLS / "server.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(TLS / "ca.pem")
    return context


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """Return three files that can be used."""
    found = {key: tmp_path / key for key in KEYS}
    shutil.copy(TLS / "ca.pem", found["ca_file"])
    found["client_cert"].write_bytes(first_part("client.pem"))
    found["client_key"].write_bytes((TLS / "client.pem").read_bytes())
    return found


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def test_three_files_that_fit_are_used(files: dict[str, Path]) -> None:
    with RawServer(context=client_context()) as server:
        assert connect(server.url, **files) == Accepted()


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_a_file_names_the_key_and_the_path(files: dict[str, Path], key: str, fault: str) -> None:
    FAULTS[fault](files[key])

    with pytest.raises(Stopped) as stopped:
        connect("https://127.0.0.1:1", **files)

    assert stopped.value.code == "IFX733"
    assert f"`{key}`" in stopped.value.reason
    assert str(files[key]) in stopped.value.reason
    assert [other for other in KEYS if other != key and f"`{other}`" in stopped.value.reason] == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
@pytest.mark.parametrize("key", KEYS)
def test_a_file_without_permission_names_the_key(files: dict[str, Path], key: str) -> None:
    files[key].chmod(0)

    with pytest.raises(Stopped, match=f"`{key}`.*Permission denied"):
        connect("https://127.0.0.1:1", **files)


@pytest.mark.parametrize("key", ["ca_file", "client_cert"])
def test_an_expired_certificate_names_the_key(files: dict[str, Path], key: str) -> None:
    expired(files[key])
    if key == "client_cert":
        expired(files["client_key"])

    with pytest.raises(Stopped, match=f"`{key}`.*expired") as stopped:
        connect("https://127.0.0.1:1", **files)

    assert stopped.value.code == "IFX733"


def test_a_key_of_another_certificate_is_reported_with_both_paths(files: dict[str, Path]) -> None:
    expired(files["client_key"])

    with pytest.raises(Stopped, match=r"`client_key`.*does not belong") as stopped:
        connect("https://127.0.0.1:1", **files)

    assert str(files["client_cert"]) in stopped.value.reason
    assert str(files["client_key"]) in stopped.value.reason


def test_a_certificate_file_without_a_key_asks_for_one(files: dict[str, Path]) -> None:
    del files["client_key"]

    with pytest.raises(Stopped, match=r"`client_cert`.*no private key") as stopped:
        connect("https://127.0.0.1:1", **files)

    assert "client_key" in (stopped.value.hint or "")


def test_an_expired_certificate_of_the_server_is_named_as_such(tmp_path: Path) -> None:
    """It is trusted, beside an authority that is valid."""
    authorities = tmp_path / "authorities.pem"
    authorities.write_bytes((TLS / "ca.pem").read_bytes() + first_part("expired.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TLS / "expired.pem")
    with RawServer(context=context) as server, pytest.raises(Stopped, match="has expired") as stopped:
        connect(server.url, ca_file=authorities)

    assert "renew" in (stopped.value.hint or "")
    assert "ca_file" not in (stopped.value.hint or "")


@pytest.mark.parametrize("fault", FAULTS)
def test_the_authorities_of_iggy_are_checked_too(files: dict[str, Path], fault: str) -> None:
    given = IggySettings(username="u", password=Secret("p"), tls=True, ca_file=files["ca_file"])
    assert certificate_problems(given) == []

    FAULTS[fault](files["ca_file"])
    (problem,) = certificate_problems(given)

    assert (problem.code, problem.location.pointer) == ("IFX733", "/ca_file")
    assert str(files["ca_file"]) in problem.message


# --- passphrases ---


@pytest.fixture
def encrypted(files: dict[str, Path]) -> dict[str, Path]:
    """Return three files, of which the key is encrypted."""
    shutil.copy(TLS / "client-encrypted.key", files["client_key"])
    return files


def test_an_encrypted_key_is_read_with_its_passphrase(encrypted: dict[str, Path]) -> None:
    with RawServer(context=client_context()) as server:
        assert connect(server.url, **encrypted, client_key_passphrase=Secret(PASSPHRASE)) == Accepted()


def test_a_passphrase_of_a_key_that_is_not_encrypted_does_no_harm(files: dict[str, Path]) -> None:
    with RawServer(context=client_context()) as server:
        assert connect(server.url, **files, client_key_passphrase=Secret(PASSPHRASE)) == Accepted()


@pytest.mark.parametrize("passphrase", ["n0t-this", "x" * 5000, "ü", "corr3ct h0rse "])
def test_a_wrong_passphrase_is_reported(encrypted: dict[str, Path], passphrase: str) -> None:
    with pytest.raises(Stopped, match="`client_key_passphrase`") as stopped:
        connect("https://127.0.0.1:1", **encrypted, client_key_passphrase=Secret(passphrase))

    assert stopped.value.code == "IFX733"
    assert str(encrypted["client_key"]) in stopped.value.reason
    assert passphrase not in str(stopped.value)


@pytest.mark.parametrize("command", ["validate", "check", "run"])
@pytest.mark.parametrize("in_one_file", [False, True])
def test_no_command_asks_for_a_passphrase_on_a_terminal(
    encrypted: dict[str, Path], tmp_path: Path, command: str, in_one_file: bool
) -> None:
    """By default OpenSSL asks on the terminal, also if stdin is another file."""
    keys = "client_cert: client_cert, client_key: client_key"
    if in_one_file:
        both = encrypted["client_cert"].read_bytes() + encrypted["client_key"].read_bytes()
        encrypted["client_cert"].write_bytes(both)
        keys = "client_cert: client_cert"
    (tmp_path / "env.yaml").write_text(
        "iggyflux: 1\nkind: writer\nfrom: {stream: s, topic: t}\npoints: {measurement: {const: m}}\n"
    )
    (tmp_path / "pipeline.yaml").write_text(
        "iggyflux: 1\nfrom: stdin\n"
        f"influxdb: {{url: 'https://127.0.0.1:1', bucket: b, ca_file: ca_file, {keys}}}\n"
        "run: [{mapping: env.yaml}]\n"
    )
    terminal, end = pty.openpty()
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "iggyflux", command, "pipeline.yaml"],
            cwd=tmp_path,
            stdin=end,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=lambda: os.close(os.open(os.ttyname(0), os.O_RDWR)),  # makes it the terminal of the session
        )
        said, _ = process.communicate(timeout=120)
    finally:
        process.kill()
        os.close(end)
        os.close(terminal)

    assert b"IFX733" in said
    assert b"client_key_passphrase" in said
    assert process.returncode == (0 if command == "validate" else 1)
