"""Whatever a server answers, nothing crashes; whatever is at the path of a status file, only a file is replaced."""

from __future__ import annotations

import json
import os
import socket
import stat
import threading

import pytest

from iggyflux.delivery.answers import classify
from iggyflux.delivery.verdicts import Accepted
from iggyflux.runner.status import Status
from iggyflux.runner.status_file import StatusFile
from iggyflux.secrets import Scrubber
from iggyflux.transports.influxdb.http import Answer, HttpClient, Ticket
from iggyflux.transports.influxdb.query import rows
from iggyflux.transports.urls import parse_address

DEEP = [
    b'{"x":' * 100_000,
    b'{"x":' * 100_000 + b"1" + b"}" * 100_000,
    b'{"error":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
]


@pytest.mark.parametrize("body", DEEP, ids=["open", "objects", "lists"])
@pytest.mark.parametrize("status", [200, 204, 400, 401, 404, 413, 422, 429, 500, 503])
@pytest.mark.parametrize("flavor", ["v1", "v2", "v3"])
def test_an_answer_nested_deeply_is_one_of_unknown_words(flavor, status, body):
    """A parser that gives up on the nesting must not end the run."""
    verdict = classify(flavor, Answer(status, {"content-type": "application/json"}, body), ["m f=1 1"], 0.0)

    assert (type(verdict) is Accepted) <= (status in (200, 204))


def written(path):
    StatusFile(Status(), path, lambda: 1.0, every_seconds=1.0).close()


def test_what_is_no_regular_file_is_written_to_and_never_replaced(tmp_path):
    """A device, a pipe, or a folder at the path stays what it is."""
    pipe, folder, device = tmp_path / "pipe", tmp_path / "folder", tmp_path / "null"
    os.mkfifo(pipe)
    folder.mkdir()
    device.symlink_to("/dev/null")
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        for path in (pipe, folder, device):
            before = path.stat()
            written(path)

            assert stat.S_IFMT(path.stat().st_mode) == stat.S_IFMT(before.st_mode)
        assert device.is_symlink()
        assert json.loads(os.read(reader, 100_000))
    finally:
        os.close(reader)


def test_a_pipe_without_a_reader_holds_up_nothing(tmp_path):
    """Opening it would wait for a reader."""
    os.mkfifo(tmp_path / "pipe")

    written(tmp_path / "pipe")


def test_a_status_file_is_the_owners_alone(tmp_path):
    """It names servers, topics and reasons."""
    written(tmp_path / "status.json")

    assert stat.S_IMODE((tmp_path / "status.json").stat().st_mode) == 0o600
    assert json.loads((tmp_path / "status.json").read_text())


INTERIM = (
    b"HTTP/1.1 102 Processing\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\nLink: </x>; rel=preload\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
)


@pytest.mark.parametrize("final", [204, 200, 400])
@pytest.mark.parametrize("heads", [INTERIM[:1], INTERIM[1:2], INTERIM * 3], ids=["102", "103", "many"])
@pytest.mark.parametrize("downloads", [False, True])
def test_interim_answers_are_skipped(heads, final, downloads):
    """They may come before any answer; the connection stays usable for the next request."""
    body = b"" if final == 204 else b"words"
    answer = b"".join(heads) + b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n" % (final, len(body)) + body
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            connection, _ = server.accept()
            with connection:
                for _ in range(2):
                    request = b""
                    while not request.endswith(b"\r\n\r\nx"):
                        request += connection.recv(65536)
                    connection.sendall(answer)
                connection.recv(65536)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        address = parse_address(f"http://127.0.0.1:{server.getsockname()[1]}")[0]
        client = HttpClient(address, tls=None, timeout_seconds=10.0, scrub=Scrubber([]), connections=1)
        for _ in range(2):
            found = bytearray()
            if downloads:
                made = client.download("POST", "/query", {}, b"x", found.extend, ticket=Ticket(10.0))
            else:
                made = client.exchange("POST", "/write", {}, b"x")

            assert made.status == final
            assert bytes(found) + made.body == body
        client.close()
        thread.join(10)


@pytest.mark.parametrize("body", DEEP, ids=["open", "objects", "lists"])
def test_rows_nested_deeply_are_an_unreadable_answer(body):
    """Whichever statement they answer."""
    for read in (rows.read_document, rows._objects_of):
        with pytest.raises(rows.UnreadableAnswer):
            read(body)
