"""Iggy's HTTP API in memory, for the real SDK: streams, topics, messages, headers, offsets, and faults.

Its answers are those that a real server 0.9 gave to the same requests.  It has no groups, as the real API.
"""

from __future__ import annotations

import http.server
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self
from urllib.parse import parse_qs, unquote, urlsplit

from iggyflux.pipeline import IggySettings, Secret

USER, PASSWORD = "iggy", "let-me-in"
Fault = Literal["error", "drop", "slow", "logged_out", "lost_answer"]


@dataclass
class Partition:
    """Messages as the API shows them; `first` is the offset of the first that still exists."""

    messages: list[dict[str, Any]] = field(default_factory=list)
    first: int = 0
    offsets: dict[str, int] = field(default_factory=dict)

    @property
    def end(self) -> int:
        return self.first + len(self.messages)


class FakeIggy:
    """A server on a free port of loopback; `with` starts and stops it.

    `faults` are the faults of the next requests that send or poll messages, one by one; None is a request without one.
    """

    def __init__(self, *, slow_seconds: float = 5.0) -> None:
        self.topics: dict[tuple[str, str], list[Partition]] = {}
        self.faults: list[Fault | None] = []
        self.requests: list[str] = []
        self.reply: Callable[[bytes, str], bytes] | None = None
        """Makes what is sent, and ends the connection, of a body as JSON and the path of its request."""
        self.tokens: set[str] = set()
        self.knows_options = True
        self.stopping = threading.Event()
        self.slow_seconds = slow_seconds
        self.clock_us = 1_700_000_000_000_000
        self.lock = threading.RLock()
        fake = self

        class Handler(_Handler):
            server_of = fake

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def settings(self, **more: Any) -> IggySettings:
        address = f"127.0.0.1:{self._server.server_address[1]}"
        given = {"username": USER, "password": Secret(PASSWORD), "poll_interval_seconds": 0.0, "timeout_seconds": 5.0}
        return IggySettings(address=address, transport="http", **{**given, **more})

    def create(self, stream: str, topic: str, partitions: int = 1) -> None:
        self.topics[stream, topic] = [Partition() for _ in range(partitions)]

    def fill(self, stream: str, topic: str, payloads: Sequence[str], partition: int = 0) -> None:
        """Append messages; `payloads` are base64."""
        self.append(self.topics[stream, topic][partition], [{"payload": payload} for payload in payloads])

    def append(self, partition: Partition, messages: Sequence[dict[str, Any]]) -> int:
        with self.lock:
            base = partition.end
            for message in messages:
                self.clock_us += 1
                header = {
                    "checksum": 1,
                    "id": message.get("id") or partition.end + 1000,
                    "offset": partition.end,
                    "timestamp": self.clock_us,
                    "origin_timestamp": self.clock_us - 1,
                    "user_headers_length": 0,
                    "payload_length": len(message["payload"]) * 3 // 4,
                    "reserved": 0,
                }
                headers = message.get("user_headers") or []
                partition.messages.append({"header": header, "payload": message["payload"], "user_headers": headers})
            return base

    def expire(self, stream: str, topic: str, count: int, partition: int = 0) -> None:
        """Remove the oldest messages, as retention does."""
        place = self.topics[stream, topic][partition]
        del place.messages[:count]
        place.first += count

    def lose_log(self, stream: str, topic: str) -> None:
        """Lose everything, as a server that is killed before anything was flushed: its offsets become 0."""
        for partition in self.topics[stream, topic]:
            partition.messages.clear()
            partition.offsets = dict.fromkeys(partition.offsets, 0)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_of: FakeIggy

    def do_GET(self) -> None:
        self._answer()

    do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815  # the names that the base class looks for

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self) -> None:
        fake = self.server_of
        size = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(size)) if size else None
        path = urlsplit(self.path)
        with fake.lock:
            fake.requests.append(f"{self.command} {self.path}")
            fault = fake.faults.pop(0) if fake.faults and path.path.startswith("/streams") else None
            answer = self._suffer(fault) or self._dispatch(path.path, parse_qs(path.query), body)
        if fault == "slow":
            fake.stopping.wait(fake.slow_seconds)
        if fault in ("drop", "lost_answer"):
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self._send(*answer)

    def _suffer(self, fault: Fault | None) -> tuple[int, Any] | None:
        if fault == "error":
            return 500, {"id": 1, "code": "error", "reason": "Error", "field": None}
        if fault == "logged_out":
            self.server_of.tokens.clear()
        return (0, None) if fault == "drop" else None

    def _dispatch(self, path: str, query: dict[str, list[str]], body: Any) -> tuple[int, Any]:
        if path == "/ping":
            return 200, "pong"
        if path == "/users/login":
            return self._login(body)
        if self.headers.get("Authorization", "").removeprefix("Bearer ") not in self.server_of.tokens:
            return 401, {"id": 40, "code": "unauthenticated", "reason": "Unauthenticated", "field": None}
        for pattern, answer in _ROUTES:
            if match := re.fullmatch(pattern, f"{self.command} {path}"):
                return answer(self.server_of, *map(unquote, match.groups()), query=query, body=body)
        return _NOT_FOUND

    def _login(self, body: Any) -> tuple[int, Any]:
        if (body["username"], body["password"]) != (USER, PASSWORD):
            return 400, {"id": 42, "code": "invalid_credentials", "reason": "Invalid credentials", "field": None}
        token = f"token-{time.monotonic_ns()}"
        self.server_of.tokens.add(token)
        expiry = 4_000_000_000
        return 200, {"user_id": 0, "access_token": {"token": token, "expiry": expiry}}

    def _send(self, status: int, tree: Any) -> None:
        data = b"" if tree is None else tree.encode() if isinstance(tree, str) else json.dumps(tree).encode()
        if self.server_of.reply is not None:
            self.wfile.write(self.server_of.reply(data, urlsplit(self.path).path))
            self.close_connection = True
            return
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


_NOT_FOUND = (404, {"id": 404, "code": "not_found", "reason": "Resource not found", "field": None})


def _topic(fake: FakeIggy, stream: str, topic: str, *, whole: bool) -> dict[str, Any]:
    partitions = fake.topics[stream, topic]
    tree: dict[str, Any] = {
        "id": sorted(fake.topics).index((stream, topic)),
        "created_at": 1,
        "name": topic,
        "size": "0 B",
        "message_expiry": 2**64 - 1,
        "compression_algorithm": "none",
        "max_topic_size": 2**64 - 1,
        "messages_count": sum(len(each.messages) for each in partitions),
        "partitions_count": len(partitions),
        "options": {},
    }
    if whole:
        tree["partitions"] = [
            {
                "id": number,
                "created_at": 1,
                "segments_count": 1,
                "current_offset": max(each.end - 1, 0),
                "size": f"{100 * len(each.messages)} B",
                "messages_count": len(each.messages),
            }
            for number, each in enumerate(partitions)
        ]
    return tree


def _get_stream(fake: FakeIggy, stream: str, **_: Any) -> tuple[int, Any]:
    topics = [_topic(fake, *key, whole=False) for key in sorted(fake.topics) if key[0] == stream]
    if not topics:
        return _NOT_FOUND
    base = {"id": 0, "created_at": 1, "name": stream, "size": "0 B", "messages_count": 0, "options": {}}
    return 200, {**base, "topics_count": len(topics), "topics": topics}


def _get_streams(fake: FakeIggy, **_: Any) -> tuple[int, Any]:
    return 200, [_get_stream(fake, stream)[1] for stream in dict.fromkeys(key[0] for key in sorted(fake.topics))]


def _get_topics(fake: FakeIggy, stream: str, **more: Any) -> tuple[int, Any]:
    status, tree = _get_stream(fake, stream, **more)
    return (status, tree["topics"]) if status == 200 else (status, tree)


def _get_topic(fake: FakeIggy, stream: str, topic: str, **_: Any) -> tuple[int, Any]:
    return (200, _topic(fake, stream, topic, whole=True)) if (stream, topic) in fake.topics else _NOT_FOUND


def _create_stream(_fake: FakeIggy, *, body: Any, **_: Any) -> tuple[int, Any]:
    base = {"id": 0, "created_at": 1, "size": "0 B", "messages_count": 0, "topics_count": 0, "topics": []}
    return 200, {**base, "name": body["name"], "options": {}}


def _create_topic(fake: FakeIggy, stream: str, *, body: Any, **_: Any) -> tuple[int, Any]:
    if not fake.knows_options:
        reason = "Unsupported option key: durability"
        return 400, {"id": 4041, "code": "unsupported_option_key", "reason": reason, "field": None}
    fake.create(stream, body["name"], body["partitions_count"])
    return 200, _topic(fake, stream, body["name"], whole=True)


def _send_messages(fake: FakeIggy, stream: str, topic: str, *, body: Any, **_: Any) -> tuple[int, Any]:
    if (stream, topic) not in fake.topics:
        return _NOT_FOUND
    number = int.from_bytes(_decoded(body["partitioning"]["value"]), "little")
    base = fake.append(fake.topics[stream, topic][number], body["messages"])
    confirmation = {"stream_id": 0, "topic_id": 0, "partition_id": number, "base_offset": base}
    return 201, {"confirmations": [confirmation]}


def _poll(fake: FakeIggy, stream: str, topic: str, *, query: dict[str, list[str]], **_: Any) -> tuple[int, Any]:
    given = {key: values[0] for key, values in query.items()}
    partitions = fake.topics.get((stream, topic))
    number = int(given["partition_id"])
    if partitions is None:
        return _NOT_FOUND
    if number >= len(partitions):
        return 404, {"id": 3007, "code": "partition_not_found", "reason": "Partition was not found.", "field": None}
    place, who = partitions[number], given["consumer_id"]
    begins: dict[str, Callable[[int], int]] = {
        "first": lambda _: place.first,
        "next": lambda _: place.offsets[who] + 1 if who in place.offsets else place.first,
        "offset": lambda value: value,
        "timestamp": lambda value: next(
            (each["header"]["offset"] for each in place.messages if each["header"]["timestamp"] >= value), place.end
        ),
    }
    begin = max(begins[given["kind"]](int(given["value"])) - place.first, 0)
    found = place.messages[begin : begin + int(given["count"])]
    if given["auto_commit"] == "true" and found:
        place.offsets[who] = max(found[-1]["header"]["offset"], place.offsets.get(who, 0))
    current = max(place.end - 1, 0)
    return 200, {"partition_id": number, "current_offset": current, "count": len(found), "messages": found}


def _decoded(text: str) -> bytes:
    import base64

    return base64.b64decode(text)


_ROUTES: tuple[tuple[str, Callable[..., tuple[int, Any]]], ...] = (
    (r"GET /streams", _get_streams),
    (r"GET /streams/([^/]+)", _get_stream),
    (r"POST /streams", _create_stream),
    (r"GET /streams/([^/]+)/topics", _get_topics),
    (r"POST /streams/([^/]+)/topics", _create_topic),
    (r"GET /streams/([^/]+)/topics/([^/]+)", _get_topic),
    (r"GET /streams/([^/]+)/topics/([^/]+)/messages", _poll),
    (r"POST /streams/([^/]+)/topics/([^/]+)/messages", _send_messages),
    (r"DELETE /users/logout", lambda *_, **__: (204, None)),
)
