"""The playground without a browser: what it answers, whom it answers, and which files it touches."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from iggyflux.authoring.samples import Sample, SampleError
from iggyflux.cli.playground_server import HOST
from iggyflux.cli.sample_files import samples_beside
from iggyflux.documents import read_document
from iggyflux.editor.sample_text import read_pasted
from iggyflux.mapping import WriterMapping, compile_document, parse_mapping
from iggyflux.payloads import text_encoding
from iggyflux.playground.app import MOST_BYTES, STATIC, TOKEN_HEADER, Playground, Start, Topics, create_app
from iggyflux.playground.desk import Desk, Superseded
from iggyflux.playground.files import FileRefused, Folder
from iggyflux.playground.gallery import gallery
from iggyflux.playground.service import QUESTIONS, Question
from iggyflux.records import Message
from tests.shell import iggyflux

ROOT = Path(__file__).parent.parent
TOKEN = "only-for-this-test"
ADDRESS = f"http://{HOST}:4321"
TEXT = """\
iggyflux: 1
kind: writer
from: {stream: plant, topic: pumps}
points:
  measurement: {const: "🌡 pump"}
  tags: {class: "klass"}
  fields: {bar: "pressure", lambda: {expr: "lambda", type: integer}}
  timestamp: {expr: "at", format: unix_s}
"""
SAMPLES = '{"klass": "b", "pressure": 2.5, "lambda": 7, "at": 1767225600}\n{"klass": "c", "at": "soon"}\n'


def asked(name: str, /, text: str = TEXT, samples: str = SAMPLES, **more: Any) -> Any:
    return QUESTIONS[name](Question(text, samples, **more))


# --- what is answered ---


def test_a_look_shows_points_failures_and_where_in_the_samples_they_are() -> None:
    looked = asked("look")
    made = looked["made"]

    assert made["outcomes"] == ["points", "failed"]
    assert made["lines"] == [[0, r"🌡\ pump,class=b bar=2.5,lambda=7i 1767225600000000000"]]
    (measurement,) = made["measurements"]
    assert measurement["rows"] == [
        {
            "sample": 0,
            "time": "1767225600000000000",
            "tags": {"class": "b"},
            "fields": {"bar": ["2.5", "float"], "lambda": ["7", "integer"]},
        }
    ]
    (failure,) = made["failures"]
    assert (failure["sample"], looked["samples"]["lines"]) == (1, [1, 2])
    units = TEXT.encode("utf-16-le")
    assert units[2 * failure["from"] : 2 * failure["to"]].decode("utf-16-le") == "{"


def test_places_are_in_units_of_utf_16() -> None:
    """The measurement before the mistake has a character of two units."""
    text = TEXT.replace('"pressure"', '"presure"')
    (problem,) = [each for each in asked("look", text)["problems"] if each["code"] == "IFX157"]
    units = text.encode("utf-16-le")

    assert units[2 * problem["from"] : 2 * problem["to"]].decode("utf-16-le") == "presure"
    edit = problem["fix"]["edits"][0]
    assert units[2 * edit["from"] : 2 * edit["to"]].decode("utf-16-le") == "presure"
    assert edit["insert"] == "pressure"
    position = len(text[: text.index("presure") + 4].encode("utf-16-le")) // 2
    found = asked("complete", text, position=position)["completions"]
    assert {each["from"] for each in found if each["label"] == "pressure"} == {problem["from"]}


def test_a_text_with_errors_still_has_its_samples() -> None:
    looked = asked("look", TEXT.replace("points:", "ponts:"))

    assert looked["made"] is None
    assert looked["samples"]["count"] == 2
    assert looked["problems"][0]["severity"] == "error"


def test_samples_that_make_too_many_series_are_a_problem() -> None:
    samples = SAMPLES.replace('"soon"', "1767225601") + '{"klass": "d", "pressure": 1, "at": 1}\n'
    looked = asked("look", TEXT + "limits: {series: 1}\n", samples)
    (problem,) = [each for each in looked["problems"] if each["code"] == "IFX622"]

    assert problem["message"] == "the samples make 2 series, and `limits.series` is 1"
    assert looked["made"]["counts"]["lines"] == 2


def test_binary_payloads_are_messages_with_coordinates() -> None:
    text = TEXT.replace("topic: pumps", "topic: pumps, payload: msgpack")
    packed = json.dumps({"payload_base64": "g6JhdM5pVbqApWtsYXNzoWKocHJlc3N1cmXLQAQAAAAAAAA="})

    assert asked("look", text, "")["samples"] == {"count": 0, "lines": [], "fault": None}
    assert asked("look", text, SAMPLES)["samples"]["fault"]["code"] == "IFX501"
    assert asked("look", text, packed)["made"]["lines"] == [[0, r"🌡\ pump,class=b bar=2.5 1767225984000000000"]]


@pytest.mark.parametrize(
    ("rows", "lines"),
    [
        ('{"time": 5, "device": "d1", "v": 2.5}\n{"time": 6}\n', [1, 2]),
        ("time,device,v\n1970-01-01T00:00:00Z,d1,2.5\n", [2]),
    ],
)
def test_a_reader_shows_its_messages(rows: str, lines: list[int]) -> None:
    text = (
        "iggyflux: 1\nkind: reader\nname: r\nfrom: {measurement: env}\n"
        "cursor: {start: 1970-01-01T00:00:00Z}\nto: {stream: s, topic: t}\n"
    )
    looked = asked("look", text, rows)

    assert looked["samples"]["lines"] == lines
    assert looked["made"]["outcomes"] == ["messages"] * len(lines)
    assert json.loads(looked["made"]["lines"][0][1])["payload"]["device"] == "d1"
    assert asked("answers", text, rows) == {"answers": []}


def test_a_pipeline_is_not_looked_into(tmp_path: Path) -> None:
    """It would name files and variables of this machine."""
    secret = tmp_path / "secret"
    secret.write_text("hunter2")
    text = (
        f"iggyflux: 1\ninfluxdb: {{url: http://h, database: d, token_file: {secret}}}\nrun: [{{mapping: {secret}}}]\n"
    )
    looked = asked("look", text)

    assert [each["code"] for each in looked["problems"]] == ["IFX522"]
    assert "hunter2" not in json.dumps(looked)


def test_servers_answer_to_what_they_would_be_sent() -> None:
    text = TEXT.replace('"lambda", type: integer', '"lambda", type: unsigned')
    found = asked("answers", text)["answers"]

    assert [(each["server"], each["status"], each["lines"]) for each in found] == [
        ("InfluxDB 1.x", 0, 0),
        ("InfluxDB 2.x", 204, 1),
        ("InfluxDB 3.x", 204, 1),
    ]
    assert [each["failed"] for each in found] == [2, 1, 1]


def test_what_is_inferred_from_samples_renders_them() -> None:
    """All formats of text that `infer` knows, envelopes too; in both forms."""
    envelope = json.dumps({"payload": {"v": 1}, "stream": "s", "topic": "t", "headers": {"site": "x"}}) + "\n"
    for samples in (SAMPLES.splitlines(True)[0] * 3, "a,b\n1,2\n2,3\n", "m,a=b x=1 5\n", envelope * 3):
        for form in ("yaml", "toml"):
            found = asked("propose", samples=samples, format=form)
            made = asked("look", found["text"], samples, format=form)["made"]
            assert "failed" not in made["outcomes"], samples
            assert made["counts"]["lines"]


def test_what_is_to_be_checked_in_a_proposal_is_told_as_the_command_does(tmp_path: Path) -> None:
    samples = "".join(f'{{"klass": "a", "lambda": {n}.5, "at": {1767225600 + n // 2}}}\n' for n in range(9))
    (tmp_path / "oven.ndjson").write_text(samples)
    notes = asked("propose", samples=samples)["notes"]
    assert any(line.startswith("CHECK") for line in notes)
    told = iggyflux("infer", tmp_path / "oven.ndjson").err
    assert [line.removeprefix("note: ") for line in told.splitlines() if line.startswith("note: CHECK")] == notes[2:]


def test_a_look_counts_values_that_are_omitted() -> None:
    text = TEXT.replace("topic:", "on_bad_value: omit, topic:", 1)
    samples = '{"klass": "b", "pressure": "n/a", "lambda": 7, "at": 1767225600}\n' * 2
    counts = asked("look", text, samples)["made"]["counts"]
    assert (counts["omitted"], counts["failures"], counts["lines"]) == (2, 0, 2)


def test_what_cannot_be_inferred_says_why() -> None:
    assert asked("propose", samples="")["fault"]["code"] == "IFX540"


def test_a_sample_is_kept_as_an_example_that_passes() -> None:
    kept = asked("keep", sample=1)["text"]

    assert kept.startswith(TEXT.rstrip())
    assert compile_document(read_document(kept, format="yaml")).examples[-1]["fails"] == "IFX346"
    assert "fault" in asked("keep", sample=2)
    assert "fault" in asked("keep", TEXT.replace("points", "ponts"))


@pytest.mark.parametrize(
    ("name", "written"), [("  a hot\npump ", "a hot pump"), ("", "sample 1"), ("x" * 900, "x" * 200)]
)
def test_an_example_has_the_name_that_is_given_to_it(name: str, written: str) -> None:
    kept = asked("keep", sample=0, name=name)["text"]
    mapping = parse_mapping(kept)
    assert mapping.examples[-1]["name"] == written


@pytest.mark.parametrize(
    ("samples", "are_messages"),
    [
        ('{"payload": {"klass": "b", "at": 1}}', False),
        ('{"payload": {"klass": "b", "at": 1}, "offset": 5}', True),
        ('\ufeff{"payload": {"klass": "b", "at": 1}, "headers": {}}', True),
        ('{"payload": {"klass": "b"}, "lambda": 5}', False),
    ],
)
def test_samples_are_messages_with_coordinates_by_one_rule(tmp_path: Path, samples: str, are_messages: bool) -> None:
    """The page, the language server and `--envelope auto` agree."""
    (tmp_path / "m.yaml").write_text(TEXT)
    (tmp_path / "m.ndjson").write_text(samples)
    mapping = parse_mapping(TEXT)
    pasted = read_pasted(mapping, samples)[0]
    beside = samples_beside(mapping, tmp_path / "m.ndjson")[0]
    by_option = iggyflux("eval", "klass", str(tmp_path / "m.ndjson"), "--envelope", "auto").out

    assert isinstance(pasted, Sample)
    assert isinstance(beside, Message)
    is_message = [b"payload" not in pasted.message.payload, b"payload" not in beside.payload, by_option == '"b"\n']
    assert is_message == [are_messages] * 3


@pytest.mark.parametrize(
    "payload", ["text", "{format: text, encoding: cp866}", "{format: csv, encoding: windows-1251}"]
)
def test_pasted_text_is_read_in_the_encoding_of_the_mapping(payload: str) -> None:
    """A page has characters, and the mapping expects bytes."""
    source = f"from: {{stream: s, topic: t, payload: {payload}}}"
    mapping = parse_mapping(
        f"iggyflux: 1\nkind: writer\n{source}\npoints: {{measurement: {{const: m}}, timestamp: {{spread: offset}}}}"
    )

    (pasted,) = read_pasted(mapping, "зал,lux\n" if "csv" in payload else "зал")

    assert isinstance(mapping, WriterMapping)
    assert isinstance(pasted, Sample)
    assert "зал" in pasted.message.payload.decode(text_encoding(mapping.writer.source.payload.options))


def test_fixes_that_are_certain_are_applied_together() -> None:
    text = TEXT.replace("pressure", "presure").replace("stream:", "straem:")
    found = asked("fix", text)

    assert (found["text"], found["count"]) == (TEXT, 2)


@pytest.mark.parametrize("item", gallery(), ids=lambda item: item.name)
def test_the_gallery_has_no_problems_and_shows_something(item: Any) -> None:
    looked = asked("look", item.text, item.samples)

    assert looked["problems"] == []
    assert looked["made"]["counts"]["lines"]
    assert not looked["made"]["failures"]
    assert item.about and not item.about.startswith("#")


def test_the_welcome_has_no_problems() -> None:
    folder = ROOT / "iggyflux" / "playground" / "welcome"
    looked = asked("look", *((folder / name).read_text("utf-8") for name in ("mapping.yaml", "samples.ndjson")))

    assert looked["problems"] == []
    assert looked["made"]["counts"] == {"lines": 48, "bytes": 4855, "failures": 0, "omitted": 0}


@given(st.data())
def test_no_text_and_no_sample_raises(data: st.DataObject) -> None:
    """Any question is answered, about whatever is left of a document."""
    seed = data.draw(st.integers(0, 2**32))
    chosen = random.Random(seed)
    item = chosen.choice(gallery())
    text, samples = (_damaged(each, chosen) for each in (item.text, item.samples))
    form = chosen.choice(["yaml", "toml"])
    name = data.draw(st.sampled_from(sorted(QUESTIONS)))
    if name == "fix":
        text = text[:600]  # it checks again for each fix
    QUESTIONS[name](Question(text, samples, form, chosen.randrange(len(text) + 2), chosen.randrange(3)))


def _damaged(text: str, chosen: random.Random) -> str:
    for _ in range(chosen.randrange(4)):
        at = chosen.randrange(len(text) + 1)
        text = (
            text[:at]
            + chosen.choice(["", "\n", "'", "{", "🙂", "\x00", "- ", "root().", "\ud800"])
            + text[at + chosen.randrange(9) :]
        )
    return text  # fmt: skip


# --- the process that answers ---


def slow_question() -> Question:
    """A question that takes a minute: each expression is within its limit, but there are many samples."""
    numbers = json.dumps({"n": list(range(1_500)), "at": 1})
    text = TEXT.replace('"pressure"', '"length(n[?contains(root().n, @) && contains(root().n, @)])"')
    return Question(text, f"{numbers}\n" * 400)


def test_a_question_that_takes_too_long_is_given_up() -> None:
    async def session() -> None:
        desk = Desk(seconds=2)
        try:
            assert (await desk.ask("look", Question(TEXT, SAMPLES)))["made"]
            assert (await desk.ask("look", slow_question()))["fault"] == {
                "code": "IFX523",
                "message": "no answer within 2 s",
                "line": 0,
                "hint": "use fewer or smaller samples, or a simpler expression",
            }
            assert (await desk.ask("look", Question(TEXT, SAMPLES)))["made"]
        finally:
            await desk.close()

    asyncio.run(session())


def test_only_the_newest_of_waiting_questions_is_asked() -> None:
    async def session() -> None:
        desk = Desk()
        try:
            tasks = [asyncio.create_task(desk.ask("look", Question(TEXT, SAMPLES))) for _ in range(5)]
            found = await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            await desk.close()
        assert [isinstance(each, Superseded) for each in found] == [False, True, True, True, False]

    asyncio.run(session())


def test_a_bug_is_named_without_what_the_text_contains(monkeypatch: pytest.MonkeyPatch) -> None:
    from iggyflux.playground import worker

    monkeypatch.setitem(QUESTIONS, "look", lambda asked: {}[asked.text])
    found = json.loads(worker.answer("look", b'{"text": "hunter2"}'))

    assert found["fault"]["message"].startswith("a bug in iggyflux: KeyError in test_playground.py:")
    assert "hunter2" not in json.dumps(found)


# --- whom it answers ---


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("outside") / "inside"
    made.mkdir()
    (made.parent / "outside.yaml").write_text("iggyflux: 1  # hunter2\n")
    (made / "pumps.yaml").write_text(TEXT)
    (made / "crlf.yaml").write_bytes(b"\xef\xbb\xbf" + TEXT.replace("\n", "\r\n").encode())
    (made / "link.yaml").symlink_to(made.parent / "outside.yaml")
    (made / "notes.txt").write_text("hunter2")
    (made / ".hidden.yaml").write_text("hunter2")
    (made / "sub").mkdir()
    (made / "sub" / "inner.yaml").write_text("hunter2")
    return made


def last(topic: str, count: int) -> str:
    if topic != "plant/pumps":
        raise SampleError("IFX540", f"{topic} has no messages", 0, "choose another topic")
    return SAMPLES.splitlines(True)[0] * count


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[TestClient]:
    hosts = frozenset({f"{HOST}:4321", "localhost:4321"})
    topics = Topics("log:data", ("plant/pumps",), last)
    playground = Playground(TOKEN, hosts, Folder(folder), Start(TEXT, SAMPLES, "pumps.yaml"), topics)
    with TestClient(create_app(playground), ADDRESS, headers={TOKEN_HEADER: TOKEN}) as made:
        yield made


def test_the_page_and_its_parts_are_served(client: TestClient) -> None:
    page = client.get("/", headers={TOKEN_HEADER: ""})
    nonce = re.search(r'content="([\w-]{20,})"', page.text)

    assert nonce is not None
    assert f"'nonce-{nonce[1]}'" in page.headers["content-security-policy"]
    assert TOKEN not in page.text
    for name in re.findall(r'(?:src|href)="(static/[^"]+)"', page.text):
        part = client.get(f"/{name}")
        assert part.status_code == 200, name
        assert part.headers["x-content-type-options"] == "nosniff"
        assert part.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self';")


def test_the_page_loads_nothing_from_elsewhere() -> None:
    """The only addresses are names of XML, and those in licences."""
    for path in STATIC.iterdir():
        if path.name == "codemirror.LICENSE.txt":
            continue
        found = set(re.findall(r"https?://[\w.-]+", path.read_text("utf-8")))
        assert found <= {"http://www.w3.org"}, path.name


REFUSED = {
    "another host": ({"host": "evil.example:4321"}, 421),
    "another port": ({"host": f"{HOST}:80"}, 421),
    "no port": ({"host": HOST}, 421),
    "a host that begins like ours": ({"host": f"{HOST}:4321.evil.example"}, 421),
    "another page": ({"origin": "http://evil.example"}, 403),
    "a page of another port": ({"origin": f"http://{HOST}:80"}, 403),
    "a page of a file": ({"origin": "null"}, 403),
    "https": ({"origin": f"https://{HOST}:4321"}, 403),
    "a link of another site": ({"sec-fetch-site": "cross-site"}, 403),
    "another port of this machine": ({"sec-fetch-site": "same-site"}, 403),
    "no token": ({TOKEN_HEADER: ""}, 401),
    "another token": ({TOKEN_HEADER: TOKEN + "x"}, 401),
    "a token that is no ASCII": ({TOKEN_HEADER: "é".encode()}, 401),
}


@pytest.mark.parametrize(("headers", "status"), REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/api/start"), ("POST", "/api/ask/look"), ("GET", "/api/files/pumps.yaml"), ("PUT", "/api/files/pumps.yaml"), ("POST", "/api/topic")],
)  # fmt: skip
def test_others_are_refused(client: TestClient, method: str, path: str, headers: dict[str, Any], status: int) -> None:
    answer = client.request(method, path, headers=headers, content=None if method == "GET" else b"{}")

    assert answer.status_code == status
    assert set(answer.json()) == {"fault"}
    assert TOKEN not in answer.text


@pytest.mark.parametrize("headers", [{}, {"origin": ADDRESS}, {"host": "localhost:4321", "origin": "http://localhost:4321", "sec-fetch-site": "same-origin"}])  # fmt: skip
def test_the_page_is_answered(client: TestClient, headers: dict[str, str]) -> None:
    started = client.get("/api/start", headers=headers)

    assert started.status_code == 200
    assert started.json()["file"]["text"] == TEXT
    assert started.json()["folder"]["files"] == ["crlf.yaml", "pumps.yaml"]


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"{", 400),
        (b"[]", 400),
        (b'{"text": 1}', 400),
        (b'{"path": "/etc/passwd"}', 400),
        (b'{"text": "\xff"}', 400),
        (b'{"text": "' + b"x" * MOST_BYTES + b'"}', 413),
    ],
    ids=["half", "list", "number", "unknown", "bytes", "large"],
)
def test_what_is_no_question_is_refused(client: TestClient, content: bytes, status: int) -> None:
    answer = client.post("/api/ask/look", content=content, headers={"content-type": "application/json"})

    assert answer.status_code == status
    assert answer.json()["fault"]["message"]


def test_a_form_of_another_page_is_no_question(client: TestClient) -> None:
    """Those are the types that a page may send without asking first."""
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        assert client.post("/api/ask/look", content=b"{}", headers={"content-type": kind}).status_code == 415


def test_questions_are_answered_by_name(client: TestClient) -> None:
    answer = client.post("/api/ask/look", json={"text": TEXT, "samples": SAMPLES})

    assert answer.json()["made"]["outcomes"] == ["points", "failed"]
    assert client.post("/api/ask/__import__", json={}).status_code == 404


def test_messages_of_a_topic_are_taken(client: TestClient) -> None:
    assert client.post("/api/topic", json={"topic": "plant/pumps", "last": 2}).json()["samples"].count("\n") == 2
    refused = client.post("/api/topic", json={"topic": "plant/none"})
    assert (refused.status_code, refused.json()["fault"]["code"]) == (409, "IFX540")


# --- which files it touches ---

NOT_OURS = ["../outside.yaml", "/etc/passwd", "link.yaml", "notes.txt", ".hidden.yaml", "sub/inner.yaml", "sub", "..", "", "a\x00.yaml", "..\\outside.yaml", "x" * 200 + ".yaml"]  # fmt: skip


@pytest.mark.parametrize("name", NOT_OURS)
def test_a_file_that_is_not_ours_is_neither_read_nor_written(client: TestClient, folder: Path, name: str) -> None:
    before = sorted((str(path), path.read_bytes()) for path in folder.parent.rglob("*") if path.is_file())
    with pytest.raises(FileRefused):
        Folder(folder).open(name)
    with pytest.raises(FileRefused):
        Folder(folder).save(name, "x", None)
    quoted = "".join(f"%{ord(each):02x}" for each in name)
    for answer in (
        client.get(f"/api/files/{quoted}"),
        client.get(f"/static/{quoted}"),
        client.put(f"/api/files/{quoted}", json={"text": "x", "version": None}),
    ):
        assert answer.status_code >= 400
        assert "hunter2" not in answer.text

    assert sorted((str(path), path.read_bytes()) for path in folder.parent.rglob("*") if path.is_file()) == before


@given(
    st.text(st.sampled_from("./\\%ay\x00é~-") | st.characters(), max_size=12), st.sampled_from(["", ".yaml", ".toml"])
)
def test_no_name_leads_out_of_the_folder(stem: str, ending: str) -> None:
    folder = Folder(ROOT / "mappings")
    try:
        path = folder._path(stem + ending)
    except FileRefused:
        return
    assert path.parent == folder.path
    assert path.name not in ("", ".", "..")


def test_a_file_is_saved_with_its_line_breaks(tmp_path: Path, folder: Path) -> None:
    shutil.copy(folder / "crlf.yaml", tmp_path / "crlf.yaml")
    here = Folder(tmp_path)
    opened = here.open("crlf.yaml")
    assert opened.text == TEXT
    here.save("crlf.yaml", TEXT + "# end\n", opened.version)

    assert (tmp_path / "crlf.yaml").read_bytes() == b"\xef\xbb\xbf" + (TEXT + "# end\n").replace("\n", "\r\n").encode()


def test_what_something_else_wrote_is_not_lost(tmp_path: Path) -> None:
    here = Folder(tmp_path)
    saved = here.save("new.yaml", TEXT, None)
    (tmp_path / "new.yaml").write_text("theirs: 1\n")
    with pytest.raises(FileRefused) as refused:
        here.save("new.yaml", TEXT, saved.version)
    assert refused.value.code == "IFX525"
    with pytest.raises(FileRefused):
        here.save("new.yaml", TEXT, None)

    assert (tmp_path / "new.yaml").read_text() == "theirs: 1\n"


def test_a_page_opens_and_saves(client: TestClient, folder: Path) -> None:
    opened = client.get("/api/files/pumps.yaml").json()
    assert opened["text"] == TEXT
    saved = client.put("/api/files/copy.toml", json={"text": "a = 1\n", "version": None}).json()
    assert (folder / "copy.toml").read_text() == "a = 1\n"
    assert "copy.toml" in saved["files"]
    again = client.put("/api/files/copy.toml", json={"text": "a = 2\n", "version": saved["version"]})
    assert again.status_code == 200
    stale = client.put("/api/files/copy.toml", json={"text": "a = 3\n", "version": saved["version"]})
    assert (stale.status_code, stale.json()["fault"]["code"]) == (409, "IFX525")
    assert (folder / "copy.toml").read_text() == "a = 2\n"
    (folder / "copy.toml").unlink()


# --- the command ---


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["mapping.txt"], "expected a name that ends with .yaml"),
        (["no/mapping.yaml"], "directory no does not exist"),
        (["--pipeline", "m.yaml"], "--pipeline needs --from iggy"),
        (["--from", "log:none"], "no log in none"),
        (["--from", "kafka"], "expected log:DIR or iggy"),
        (["m.yaml", "binary"], "binary is not text"),
    ],
)
def test_a_wrong_usage_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.yaml").write_text(TEXT)
    (tmp_path / "binary").write_bytes(b"\xff\x00")
    done = iggyflux("playground", *arguments)

    assert done.code == 2
    assert told in done.err


def test_without_its_parts_it_says_how_to_install_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "iggyflux.cli.playground_server")
    done = iggyflux("playground")

    assert (done.code, done.out) == (2, "")
    assert "pip install 'iggyflux[playground]'" in done.err


def test_it_serves_on_loopback_until_it_is_interrupted(tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text(TEXT)
    command = [sys.executable, "-m", "iggyflux", "playground", "m.yaml"]
    running = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert running.stdout is not None
        url = running.stdout.readline().strip()
        found = re.fullmatch(r"(http://127\.0\.0\.1:\d+)/#token=([\w-]{43})", url)
        assert found is not None
        import httpx2 as httpx

        with httpx.Client(base_url=found[1], headers={TOKEN_HEADER: found[2]}, timeout=60) as session:
            assert session.get("/api/start").json()["file"]["name"] == "m.yaml"
            assert session.post("/api/ask/look", json={"text": TEXT}).json()["problems"] == []
        if Path("/proc/net/tcp").exists():
            port = f"{int(found[1].rpartition(':')[2]):04X}"
            local = [line.split()[1] for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
            assert {each for each in local if each.endswith(f":{port}")} == {f"0100007F:{port}"}
    finally:
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=60)

    assert (running.returncode, out) == (0, "")
    assert "Traceback" not in err
    assert err.startswith("note: Ctrl-C ends it; the page opens and saves mappings in ")


# --- the bundle ---


@pytest.mark.slow
def test_the_bundle_is_what_its_script_makes(tmp_path: Path) -> None:
    """The committed file can be made again by anyone with Node."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("Node is not installed: the bundle of the playground's editor is not made again")
    source = tmp_path / "codemirror"
    shutil.copytree(ROOT / "codemirror", source, ignore=shutil.ignore_patterns("node_modules"))
    installed = subprocess.run(
        ["npm", "ci", "--ignore-scripts"], cwd=source, capture_output=True, text=True, timeout=200, check=False
    )
    if installed.returncode and re.search(r"E(NOTFOUND|CONN|TIMEDOUT|AI_AGAIN|403|404)|network", installed.stderr):
        pytest.skip("npm cannot fetch packages: the bundle of the playground's editor is not made again")
    assert installed.returncode == 0, installed.stderr
    (tmp_path / "made").mkdir()
    subprocess.run(["sh", "build.sh", tmp_path / "made"], cwd=source, check=True, timeout=100)

    for path in (tmp_path / "made").iterdir():
        assert path.read_bytes() == (STATIC / path.name).read_bytes(), path.name


def test_the_lock_of_the_bundle_names_no_host() -> None:
    lock = json.loads((ROOT / "codemirror" / "package-lock.json").read_text("utf-8"))
    package = json.loads((ROOT / "codemirror" / "package.json").read_text("utf-8"))

    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in package["devDependencies"].values())
    assert all("integrity" in each for name, each in lock["packages"].items() if name)
    assert "://" not in json.dumps(lock)
    assert os.access(ROOT / "codemirror" / "build.sh", os.X_OK)
