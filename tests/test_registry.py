"""The schema registry: what each of its answers means, and what routes and commands do until it answers."""

from __future__ import annotations

import asyncio
import base64
import gzip
import io
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import fastavro
import pytest
from shell import iggyflux

from iggyflux import Message, load_mapping
from iggyflux.errors import NotConnected, PipelineError, Stopped
from iggyflux.payloads import FORMATS
from iggyflux.payloads.avro.known import Refused, ids_of
from iggyflux.pipeline import RegistrySettings, Secret, parse_pipeline
from iggyflux.transports import registry as registry_module
from iggyflux.transports.registry import ASK_AGAIN_SECONDS, SchemaRegistry
from iggyflux.transports.schemas import AskingPlan, looking_up

CANARY = "canary-7f3a"
SCHEMA = {
    "type": "record",
    "name": "Reading",
    "fields": [{"name": "device", "type": "string"}, {"name": "celsius", "type": "double"}],
}
KNOWN = json.dumps({"schema": json.dumps(SCHEMA)})

Answer = Callable[[BaseHTTPRequestHandler], None]


@dataclass
class FakeRegistry:
    """A registry on a real socket: what it answers to requests of an id, in turn; the last answer is repeated."""

    url: str
    answers: dict[int, list[Answer]] = field(default_factory=dict)
    asked: list[int] = field(default_factory=list)
    subjects: dict[str, list[Answer]] = field(default_factory=dict)
    """What it answers to requests of a version of a subject, by the whole path."""
    asked_subjects: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        if handler.path in self.subjects:
            self.asked_subjects.append(handler.path)
            left = self.subjects[handler.path]
            (left.pop(0) if len(left) > 1 else left[0])(handler)
            return
        if handler.path.startswith("/base/subjects/"):
            says(404, '{"error_code": 40402, "message": "Version not found"}')(handler)
            return
        assert handler.path.startswith("/base/schemas/ids/")
        number = int(handler.path.rpartition("/")[2])
        self.asked.append(number)
        self.headers.append({name.lower(): value for name, value in handler.headers.items()})
        left = self.answers.get(number, [says(404, '{"error_code": 40403, "message": "Schema not found"}')])
        (left.pop(0) if len(left) > 1 else left[0])(handler)


def says(status: int, body: str | bytes, **headers: str) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        data = body if isinstance(body, bytes) else body.encode()
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("content-length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)

    return answer


def hangs(handler: BaseHTTPRequestHandler) -> None:
    handler.connection.settimeout(20)
    with suppress(OSError):
        handler.rfile.read(1)  # until the client gives up
    handler.close_connection = True


def breaks_off(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("content-length", "9999")
    handler.end_headers()
    handler.wfile.write(KNOWN.encode()[:30])
    handler.close_connection = True


def never_ends(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    try:
        while True:
            handler.wfile.write(b'{"schema": "' + b"x" * 1_000_000)
    except OSError:
        handler.close_connection = True


@contextmanager
def serving(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            answer(self)

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/base"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def fake() -> Iterator[FakeRegistry]:
    found = FakeRegistry("")
    with serving(found.answer) as found.url:
        yield found


def asking(fake: FakeRegistry, **more: Any) -> SchemaRegistry:
    return SchemaRegistry(RegistrySettings(url=fake.url, username="me", password=Secret(CANARY), **more))


def payload(number: int, celsius: float = 21.5) -> bytes:
    file = io.BytesIO()
    fastavro.schemaless_writer(file, fastavro.parse_schema(SCHEMA), {"device": "d1", "celsius": celsius})
    return b"\0" + number.to_bytes(4, "big") + file.getvalue()


# --- what answers mean ---


def test_an_id_is_asked_for_once(fake: FakeRegistry) -> None:
    fake.answers[7] = [says(200, KNOWN)]
    registry = asking(fake)

    registry.learn({7, 8})
    registry.learn({7})

    assert fake.asked == [7, 8]
    assert json.loads(str(registry.known[7])) == SCHEMA
    assert fake.headers[0]["authorization"] == "Basic " + base64.b64encode(f"me:{CANARY}".encode()).decode()
    registry.close()


def test_a_token_is_sent_as_such(fake: FakeRegistry) -> None:
    registry = SchemaRegistry(RegistrySettings(url=fake.url, token=Secret(CANARY)))

    registry.learn({8})

    assert fake.headers[0]["authorization"] == f"Bearer {CANARY}"
    registry.close()


@pytest.mark.parametrize(
    ("answer", "is_unknown", "words"),
    [
        (says(404, '{"error_code": 40403, "message": "x"}'), True, "no schema 7"),
        (says(422, '{"error_code": 422, "message": "x"}'), True, "no schema 7"),
        (says(400, '{"error_code": 40001, "message": "x"}'), True, "no schema 7"),
        (says(200, '{"schema": "{}", "schemaType": "PROTOBUF"}'), False, "'PROTOBUF', not of Avro"),
        (says(200, '{"schema": "{}", "references": [{"name": "a"}]}'), False, "refers to others in an unknown way"),
    ],
)
def test_an_answer_without_a_schema_to_use_is_kept(
    fake: FakeRegistry, answer: Answer, is_unknown: bool, words: str
) -> None:
    fake.answers[7] = [answer]
    registry = asking(fake)

    registry.learn({7})

    refused = registry.known[7]
    assert isinstance(refused, Refused)
    assert refused.is_unknown is is_unknown
    assert words in refused.reason
    registry.close()


# --- references ---


def refers(schema: Any, *to: tuple[str, int]) -> str:
    references = [{"name": subject, "subject": subject, "version": version} for subject, version in to]
    return json.dumps({"schema": json.dumps(schema), "schemaType": "AVRO", "references": references})


def subject_path(subject: str, version: int) -> str:
    return f"/base/subjects/{quote(subject, safe='')}/versions/{version}"


UNIT = {"type": "enum", "name": "Unit", "namespace": "lab", "symbols": ["C", "F"]}
SENSOR = {
    "type": "record",
    "name": "Sensor",
    "fields": [{"name": "unit", "type": "lab.Unit"}, {"name": "next", "type": ["null", "Sensor"]}],
}
PROBE = {
    "type": "record",
    "name": "plant.Probe",
    "fields": [
        {"name": "all", "type": {"type": "array", "items": "Sensor"}},
        {"name": "unit", "type": "lab.Unit"},
        {"name": "last", "type": ["null", {"type": "map", "values": "Sensor"}]},
    ],
}


def test_what_a_schema_refers_to_is_asked_for(fake: FakeRegistry) -> None:
    """At any depth, each once, also for another id; the result decodes what fastavro writes with all of them."""
    known = dict[str, Any]()
    fastavro.parse_schema(UNIT, known)
    fastavro.parse_schema(SENSOR, known)
    value = {"all": [{"unit": "F", "next": {"unit": "C", "next": None}}], "unit": "C", "last": None}
    file = io.BytesIO()
    # fastavro does not look for names without a namespace from within one
    plain = fastavro.parse_schema({**PROBE, "name": "Probe"}, known)
    fastavro.schemaless_writer(file, plain, value)
    fake.answers[7] = [says(200, refers(PROBE, ("sensor/é", 3), ("units", 1)))]
    fake.answers[8] = [says(200, refers([UNIT["namespace"] + ".Unit", "null"], ("units", 1)))]
    fake.subjects[subject_path("sensor/é", 3)] = [says(200, refers(SENSOR, ("units", 1)))]
    fake.subjects[subject_path("units", 1)] = [says(200, refers(UNIT))]
    registry = asking(fake)

    registry.learn({7, 8})

    read = FORMATS["avro"].prepare
    assert read is not None
    decode = read({"schema_registry": True, "known": registry.known}, None, False, False)
    assert decode(b"\0\0\0\0\7" + file.getvalue()) == value
    assert decode(b"\0\0\0\0\10\0\2") == "F"
    assert sorted(fake.asked_subjects) == sorted([subject_path("sensor/é", 3), subject_path("units", 1)])
    registry.close()


@pytest.mark.parametrize(
    ("answers", "words", "is_unknown"),
    [
        ({}, "refers to version 1 of 'a', which the registry does not have", True),
        ({"a": refers(SENSOR, ("b", 1)), "b": refers(UNIT, ("a", 1))}, "refers to itself", False),
        ({"a": refers(SENSOR, ("a", 1))}, "refers to itself", False),
        ({"a": '{"schema": "x", "schemaType": "JSON"}'}, "refers to a 'JSON'", False),
        ({"a": '{"schema": "{"}'}, "not JSON", False),
        ({"a": json.dumps({"schema": "[" * 2000})}, "", False),
    ],
)
def test_references_that_cannot_be_used_fail_messages(
    fake: FakeRegistry, answers: dict[str, str], words: str, is_unknown: bool
) -> None:
    fake.answers[7] = [says(200, refers(PROBE, ("a", 1)))]
    fake.subjects = {subject_path(name, 1): [says(200, body)] for name, body in answers.items()}
    registry = asking(fake)

    registry.learn({7})

    refused = registry.known[7]
    assert isinstance(refused, Refused)
    assert (refused.is_unknown, words in refused.reason) == (is_unknown, True)
    registry.close()


@pytest.mark.parametrize("shape", ["wide", "deep"])
def test_references_are_bounded(fake: FakeRegistry, shape: str) -> None:
    for number in range(200):
        next_one = [(f"s{number + 1}", 1)] if shape == "deep" else []
        fake.subjects[subject_path(f"s{number}", 1)] = [says(200, refers(UNIT, *next_one))]
    all_of_them = [(f"s{number}", 1) for number in range(200)]
    fake.answers[7] = [says(200, refers(PROBE, *(all_of_them if shape == "wide" else all_of_them[:1])))]
    registry = asking(fake)

    registry.learn({7})

    assert isinstance(registry.known[7], Refused)
    assert len(fake.asked_subjects) <= 100
    registry.close()


@pytest.mark.parametrize("answer", [says(500, "oops"), says(404, "<html>"), says(200, "{}")])
def test_a_reference_that_is_not_answered_is_waited_for(fake: FakeRegistry, answer: Answer) -> None:
    """The id is asked for again, as if it were not answered itself."""
    fake.answers[7] = [says(200, refers("lab.Unit", ("units", 1)))]
    fake.subjects[subject_path("units", 1)] = [answer, says(200, refers(UNIT))]
    registry = asking(fake)

    with pytest.raises(NotConnected):
        registry.learn({7})
    assert (registry.wanted, 7 in registry.known) == ({7}, False)
    registry.learn({7})

    assert json.loads(str(registry.known[7])) == UNIT
    registry.close()


AWAY = {
    "500": says(500, f"oops {CANARY}"),
    "429": says(429, "slow down", Retry_After="7"),
    "404 of another server": says(404, "<html>not found</html>"),
    "400 of a proxy": says(400, "<html>The plain HTTP request was sent to HTTPS port</html>"),
    "a web page": says(200, "<html>log in</html>"),
    "garbage": says(200, b"\xff\xfe{"),
    "deep": says(200, "[" * 100_000),
    "no schema": says(200, '{"id": 7}'),
    "no text as schema": says(200, '{"schema": {"type": "long"}}'),
    "half a body": breaks_off,
    "a body without an end": never_ends,
    "hangs": hangs,
}


@pytest.mark.parametrize("answer", AWAY.values(), ids=list(AWAY))
def test_a_registry_that_is_not_there_is_asked_again(fake: FakeRegistry, answer: Answer) -> None:
    """The text of the failure names the registry and no secret."""
    fake.answers[7] = [answer, says(200, KNOWN)]
    registry = asking(fake, timeout_seconds=1.0)

    with pytest.raises(NotConnected) as away:
        registry.learn({7})

    assert registry.wanted == {7}
    assert away.value.server == fake.url
    assert away.value.retry_after_seconds == (7.0 if answer is AWAY["429"] else None)
    assert CANARY not in str(away.value)
    registry.learn({7})
    assert json.loads(str(registry.known[7])) == SCHEMA
    assert not registry.wanted
    registry.close()


def test_a_registry_that_does_not_listen_is_asked_again() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        registry = SchemaRegistry(RegistrySettings(url=f"http://127.0.0.1:{closed.getsockname()[1]}"))

        with pytest.raises(NotConnected, match="cannot connect"):
            registry.learn({7})


@pytest.mark.parametrize("status", [401, 403])
def test_credentials_that_are_refused_stop(fake: FakeRegistry, status: int) -> None:
    fake.answers[7] = [says(status, f"no, {CANARY}")]

    with pytest.raises(Stopped) as stopped:
        asking(fake).learn({7})

    assert stopped.value.code == "IFX434"
    assert CANARY not in f"{stopped.value} {stopped.value.hint}"


def test_a_redirect_is_not_followed(fake: FakeRegistry) -> None:
    """Another host would get the credentials."""
    visitors: list[str] = []
    with serving(lambda handler: visitors.append(handler.path)) as elsewhere:
        fake.answers[7] = [says(302, "", Location=f"{elsewhere}/{CANARY}")]

        with pytest.raises(Stopped, match="redirects to") as stopped:
            asking(fake).learn({7})

    assert visitors == []
    assert CANARY not in f"{stopped.value} {stopped.value.hint}"


def test_connecting_asks_for_what_was_not_answered(fake: FakeRegistry) -> None:
    fake.answers[7] = [says(500, ""), says(500, ""), says(200, KNOWN)]
    registry = asking(fake)
    asyncio.run(registry.connect())
    assert fake.asked == []
    with pytest.raises(NotConnected):
        registry.learn({7, 9})

    with pytest.raises(NotConnected):
        asyncio.run(registry.connect())
    asyncio.run(registry.connect())

    assert fake.asked == [7, 7, 7, 9]
    registry.close()


def test_an_unknown_id_is_asked_for_again_after_a_minute(fake: FakeRegistry) -> None:
    clock = [100.0]
    registry = SchemaRegistry(RegistrySettings(url=fake.url), now=lambda: clock[0])
    registry.learn({7})
    fake.answers[7] = [says(200, KNOWN)]

    clock[0] += ASK_AGAIN_SECONDS - 1
    registry.learn({7})
    assert isinstance(registry.known[7], Refused)
    clock[0] += 1
    registry.learn({7})

    assert json.loads(str(registry.known[7])) == SCHEMA
    assert fake.asked == [7, 7]
    registry.close()


def test_ids_without_a_schema_do_not_fill_the_memory(fake: FakeRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any producer of the topic can name any id."""
    monkeypatch.setattr(registry_module, "MOST_REFUSED", 5)
    fake.answers[3] = [says(200, KNOWN)]
    registry = asking(fake)

    registry.learn(range(20))

    assert sorted(registry.known) == [3, 15, 16, 17, 18, 19]
    registry.close()


def test_unknown_ids_do_not_make_a_request_each(fake: FakeRegistry) -> None:
    """A topic of other payloads that begin with 0 names thousands."""
    clock = [100.0]
    registry = SchemaRegistry(RegistrySettings(url=fake.url), now=lambda: clock[0])

    registry.learn(range(1_000, 1_300))
    registry.learn([2_000])

    assert fake.asked == [*range(1_000, 1_100)]
    refused = [registry.known[number] for number in (1_000, 1_299, 2_000)]
    assert all(isinstance(each, Refused) and each.is_unknown for each in refused)
    assert "was not asked" in str(refused[2])
    fake.answers[2_000] = [says(200, KNOWN)]
    clock[0] += ASK_AGAIN_SECONDS
    registry.learn([2_000])
    assert json.loads(str(registry.known[2_000])) == SCHEMA
    registry.close()


def test_ids_that_no_registry_gives_are_not_asked_for(fake: FakeRegistry, folder: Path) -> None:
    registry, mapping = asking(fake), load_mapping(folder / "m.yaml")

    rendered = AskingPlan(mapping, registry).render([Message(payload(each)) for each in (2**31, 2**31 - 1)])

    assert fake.asked == [2**31 - 1]
    assert [each.code for each in rendered.failures] == ["IFX431"] * 2
    registry.close()


def test_an_id_that_was_forgotten_has_no_hint_of_a_missing_pipeline(
    fake: FakeRegistry, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry_module, "MOST_REFUSED", 1)
    registry, mapping = asking(fake), load_mapping(folder / "m.yaml")

    rendered = AskingPlan(mapping, registry).render([Message(payload(each)) for each in (8, 9)])

    assert [each.code for each in rendered.failures] == ["IFX431"] * 2
    assert "name a pipeline" not in str(rendered.failures)
    assert all(each.hint is None for each in rendered.failures)
    registry.close()


def test_a_schema_of_the_mapping_is_not_asked_for(fake: FakeRegistry, folder: Path) -> None:
    text = DOCUMENT.replace("schema_registry: true", f"schema_registry: true, schemas: {{'7': {json.dumps(SCHEMA)}}}")
    (folder / "m.yaml").write_text(text)
    fake.answers[7] = [says(500, "")]
    registry = asking(fake)

    rendered = AskingPlan(load_mapping(folder / "m.yaml"), registry).render([Message(payload(7))])

    assert len(rendered.lines) == 1
    assert fake.asked == []
    registry.close()


def test_ids_are_found_in_payloads_that_have_one() -> None:
    assert ids_of([payload(7), payload(8), payload(7), b"", b"\0\0\0", b"{}{}{}", b"\1" + payload(9)[1:]]) == {7, 8}


# --- plans, routes, commands ---

DOCUMENT = """\
iggyflux: 1
kind: writer
from: {stream: s, topic: t, payload: {format: avro, schema_registry: true}}
points:
  measurement: {const: m}
  tags: [device]
  fields: [celsius]
"""


def pipeline_of(fake: FakeRegistry) -> str:
    return (
        "iggyflux: 1\nfrom: log:data\nto: file:points.lp\ndead_letters: dead\n"
        f"schema_registry: {{url: '{fake.url}', username: me, password: '${{CANARY}}'}}\n"
        "run: [{mapping: m.yaml}]\n"
    )


@pytest.fixture
def folder(tmp_path: Path, fake: FakeRegistry, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CANARY", CANARY)
    (tmp_path / "m.yaml").write_text(DOCUMENT)
    (tmp_path / "pipeline.yaml").write_text(pipeline_of(fake))
    return tmp_path


def fill(*payloads: bytes) -> None:
    lines = [json.dumps({"payload_base64": base64.b64encode(each).decode(), "timestamp_us": 1}) for each in payloads]
    assert iggyflux("log", "append", "data", "s/t", "--envelope", stdin="\n".join(lines).encode()).code == 0


def points() -> list[str]:
    return Path("points.lp").read_text("utf-8").splitlines()


@pytest.mark.parametrize("plan", ["compiled", "reference"])
def test_both_plans_look_schemas_up(fake: FakeRegistry, folder: Path, plan: Any) -> None:
    fake.answers = {7: [says(200, KNOWN)], 9: [says(200, '{"schema": "{\\"type\\": \\"dooble\\"}"}')]}
    registry, mapping = asking(fake), load_mapping(folder / "m.yaml")
    messages = [Message(payload(each), offset=each) for each in (7, 8, 9, 7)]

    rendered = AskingPlan(mapping, registry, plan).render(messages)

    assert [line.partition(" ")[0] for line in rendered.lines] == ["m,device=d1"] * 2
    assert [(each.index, each.code) for each in rendered.failures] == [(1, "IFX431"), (2, "IFX430")]
    assert fake.asked == [7, 8, 9]
    assert looking_up(mapping, registry).identity() == mapping.identity()
    registry.close()


def test_ids_are_found_in_compressed_payloads(fake: FakeRegistry, folder: Path) -> None:
    fake.answers[7] = [says(200, KNOWN)]
    text = DOCUMENT.replace("topic: t,", "topic: t, compression: gzip,")
    (folder / "m.yaml").write_text(text)
    registry, mapping = asking(fake), load_mapping(folder / "m.yaml")

    rendered = AskingPlan(mapping, registry).render([Message(gzip.compress(payload(7))), Message(b"\x1f\x8bx")])

    assert len(rendered.lines) == 1
    assert [each.code for each in rendered.failures] == ["IFX450"]
    assert fake.asked == [7]
    registry.close()


def test_a_route_waits_for_the_registry_and_loses_nothing(fake: FakeRegistry, folder: Path) -> None:
    fake.answers[7] = [says(500, f"oops {CANARY}"), says(503, "later"), says(200, KNOWN)]
    fill(*(payload(7, number) for number in range(30)))

    outcome = iggyflux("run", "pipeline.yaml", "--until-end")

    assert outcome.code == 0, outcome.err
    assert len(points()) == 30
    assert "30 acknowledged" in outcome.err
    assert "the schema registry: it answered 500" in outcome.err
    assert fake.asked == [7, 7, 7]
    assert outcome.err.count("route.connected") == 2  # nothing is read before the registry answers
    assert CANARY not in outcome.err + outcome.out
    assert not any(CANARY in path.read_text("latin-1") for path in folder.rglob("*") if path.is_file())


def test_the_route_that_is_refused_stops_and_acknowledges_nothing(fake: FakeRegistry, folder: Path) -> None:
    fake.answers[7] = [says(401, "no")]
    fill(payload(7))

    outcome = iggyflux("run", "pipeline.yaml", "--until-end")

    assert outcome.code == 3
    assert "refuses the credentials" in outcome.err
    assert "0 acknowledged" in outcome.err


def test_an_unknown_id_is_a_dead_letter_that_replays_as_it_came(fake: FakeRegistry, folder: Path) -> None:
    fake.answers = {7: [says(200, KNOWN)]}
    fill(payload(7), payload(8, 5.0), b"\1garbage", payload(7))

    outcome = iggyflux("run", "pipeline.yaml", "--until-end")

    assert outcome.code == 0, outcome.err
    assert len(points()) == 2
    letters = [json.loads(line) for path in Path("dead").rglob("*.ndjson") for line in path.read_text().splitlines()]
    letters = [letter for letter in letters if "payload_base64" in json.dumps(letter)]
    assert {base64.b64encode(each).decode() for each in (payload(8, 5.0), b"\1garbage")} <= {
        part for letter in letters for part in json.dumps(letter).split('"')
    }
    fake.answers[8] = [says(200, KNOWN)]
    dry = iggyflux("replay", "dead", "--pipeline", "pipeline.yaml", "--dry-run")
    assert "celsius=5.0" in dry.out
    assert iggyflux("replay", "dead", "--pipeline", "pipeline.yaml").code in (0, 1)
    assert any("celsius=5.0" in line for line in points())


def test_a_dry_run_asks_the_registry_of_its_pipeline(fake: FakeRegistry, folder: Path) -> None:
    fake.answers = {7: [says(200, KNOWN)]}
    fill(payload(7))

    asked = iggyflux("dry-run", "m.yaml", "log:data", "--pipeline", "pipeline.yaml")
    alone = iggyflux("dry-run", "m.yaml", "log:data")

    assert "m,device=d1 celsius=21.5" in asked.out
    assert alone.code == 1
    assert "IFX431" in alone.err
    assert "name a pipeline file" in alone.err
    fake.answers[7] = [says(500, "")]
    away = iggyflux("dry-run", "m.yaml", "log:data", "--pipeline", "pipeline.yaml")
    assert away.code == 3
    assert "the schema registry: it answered 500" in away.err


@pytest.mark.parametrize(
    ("answer", "code", "words"),
    [
        (says(404, '{"error_code": 40403}'), 0, "answers"),
        (says(401, CANARY), 1, "refuses the credentials"),
        (says(502, CANARY), 1, "it answered 502"),
    ],
)
def test_check_asks_the_registry(fake: FakeRegistry, folder: Path, answer: Answer, code: int, words: str) -> None:
    fake.answers[0] = [answer]
    fill(payload(7))

    outcome = iggyflux("check", "pipeline.yaml")
    local = iggyflux("check", "pipeline.yaml", "--local")

    assert (outcome.code, local.code) == (code, 0)
    assert words in outcome.out
    assert CANARY not in outcome.out + outcome.err
    assert fake.asked == [0]


def test_a_pipeline_without_a_registry_is_refused(folder: Path) -> None:
    (folder / "pipeline.yaml").write_text("iggyflux: 1\nfrom: log:data\nto: file:points.lp\nrun: [{mapping: m.yaml}]\n")

    outcome = iggyflux("run", "pipeline.yaml", "--until-end")

    assert outcome.code != 0
    assert "IFX807" in outcome.err
    assert "schema_registry" in outcome.err


@pytest.mark.parametrize(
    ("section", "code"),
    [
        ("{}", "IFX111"),
        ("{url: 'ftp://x'}", "IFX809"),
        (f"{{url: 'http://me:{CANARY}@x'}}", "IFX809"),
        (f"{{url: 'https://x', password: {CANARY}}}", "IFX810"),
        (f"{{url: 'https://x', username: me, password: {CANARY}, token: {CANARY}}}", "IFX810"),
    ],
)
def test_a_fault_of_the_section_is_one_of_the_pipeline(section: str, code: str) -> None:
    with pytest.raises(PipelineError) as refused:
        parse_pipeline(f"iggyflux: 1\nschema_registry: {section}\nfrom: stdin\nto: stdout\nrun: [{{mapping: .}}]\n")

    found = [each for each in refused.value.problems if each.severity == "error"]
    assert code in [each.code for each in found]
    assert CANARY not in "".join(each.render() for each in found)


def test_credentials_in_plain_text_are_warned_of(tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text(DOCUMENT)
    text = "iggyflux: 1\nschema_registry: {url: 'http://x', token: '${T}'}\nfrom: stdin\nto: stdout\n"
    text += "run: [{mapping: m.yaml}]\n"

    pipeline = parse_pipeline(text, file=tmp_path / "p.yaml", environ={"T": CANARY})

    assert [each.code for each in pipeline.warnings] == ["IFX817"]


def test_closing_ends_a_request_in_progress(fake: FakeRegistry) -> None:
    fake.answers[7] = [hangs]
    registry = asking(fake, timeout_seconds=60.0)
    failures: list[BaseException] = []

    def learn() -> None:
        try:
            registry.learn({7})
        except NotConnected as error:
            failures.append(error)

    thread = threading.Thread(target=learn)
    thread.start()
    deadline = time.monotonic() + 60
    while not fake.asked and time.monotonic() < deadline:
        time.sleep(0.01)

    registry.close()

    thread.join(60)
    assert not thread.is_alive()
    assert len(failures) == 1
