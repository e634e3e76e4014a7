"""A known token is searched for in every output: stdout, errors, logs, status, dead letters."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from shell import Outcome, iggyflux, process

from iggyflux.sim import Fault, SimServer

CANARY = "canary-t0ken+Zx/9=="
FORMS = (
    CANARY,
    quote(CANARY, safe=""),
    base64.b64encode(CANARY.encode()).decode(),
    CANARY.replace("/", "\\/"),
    "canary",
)
MAPPING = """\
iggyflux: 1
kind: writer
name: env
from: {stream: s, topic: t}
points:
  - measurement: {const: m}
    tags: [device]
    fields: {value: value}
    timestamp: {expr: ts, format: unix_s}
"""
TLS = Path(__file__).parent.parent / "transports" / "tls"
CREDENTIALS = {1: 'username: me, password: "${SECRET}"', 2: 'org: org, token: "${SECRET}"', 3: "token: file:token.txt"}


@pytest.fixture(params=[1, 2, 3], ids=["1.x", "2.x", "3.x"])
def simulator(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SimServer]:
    """A server that requires the canary, and a pipeline that sends it."""
    dialect: int = request.param
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SECRET", CANARY)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    with SimServer(dialect, database="plant", token=f"me:{CANARY}" if dialect == 1 else CANARY) as started:
        Path("env.yaml").write_text(MAPPING)
        Path("token.txt").write_text(CANARY + "\n")
        Path("pipeline.yaml").write_text(pipeline(started.url, CREDENTIALS[dialect]))
        lines = ['{"device": "d", "value": 1, "ts": 1}', '{"device": "d", "value": "x", "ts": 2}']
        assert iggyflux("log", "append", "data", "s/t", stdin="\n".join(lines) + "\n").code == 0
        yield started


def pipeline(url: str, credentials: str) -> str:
    sending = "linger: 10ms, retry_backoff: 5ms, max_retry_backoff: 10ms, on_unavailable: stop, timeout: 2s"
    headers = 'headers: {X-Proxy-Login: "${SECRET}", X-Scope-OrgID: "${SECRET}"}'
    section = f"influxdb: {{url: '{url}', bucket: plant, {credentials}, {headers}, {sending}}}"
    return f"iggyflux: 1\nfrom: log:data\n{section}\nrun:\n  - mapping: env.yaml\n"


READER = """\
iggyflux: 1
kind: reader
name: back
from: {measurement: m}
cursor: {start: 1970-01-01T00:00:00Z, settle: 0s, window: 30000d}
messages: {payload: "{d: device, v: value, t: time}"}
to: {stream: s, topic: back}
"""


def reading() -> list[Outcome]:
    """Every command of a pipeline that reads from the same server."""
    Path("back.yaml").write_text(READER)
    section = next(line for line in Path("pipeline.yaml").read_text().splitlines() if line.startswith("influxdb:"))
    Path("reading.yaml").write_text(f"iggyflux: 1\nto: log:data\n{section}\nrun:\n  - mapping: back.yaml\n")
    run = ("run", "reading.yaml", "--until-end", "--log-format")
    return [
        iggyflux("check", "reading.yaml"),
        iggyflux(*run, "json", "--status-file", "status.json"),
        iggyflux("cursor", "show", "reading.yaml"),
        iggyflux("cursor", "set", "reading.yaml", "--mapping", "back", "--at", "1970-01-01T00:00:00Z", "--yes"),
        iggyflux(*run, "text"),
        iggyflux("cursor", "reset", "reading.yaml", "--mapping", "back", "--yes"),
        iggyflux("validate", "reading.yaml", "pipeline.yaml"),
    ]


def everything(run: Callable[..., Outcome] = iggyflux) -> list[Outcome]:
    """Run every command that reads a pipeline, once; with `process` one of them as a process of its own."""
    target = ("pipeline.yaml",)
    replay = ("replay", "dead-letters/env", "--pipeline", "pipeline.yaml")
    outcomes = [
        iggyflux("check", *target),
        run("run", *target, "--until-end", "--log-format", "json", "--status-file", "status.json"),
        iggyflux("run", *target, "--until-end", "--log-format", "text"),
        iggyflux("run", *target, "--until-end", "--quiet"),
    ]
    if Path("dead-letters/env").exists():
        outcomes += [iggyflux(*replay), iggyflux(*replay, "--dry-run"), iggyflux(*replay, "--as-is")]
        letters = (("summary",), ("list",), ("list", "--format", "json"), ("export",), ("prune", "--all", "--dry-run"))
        outcomes += [iggyflux("dead-letters", name, "dead-letters/env", *more) for name, *more in letters]
    return outcomes


def written() -> str:
    """Return every file that was made, except the one with the secret."""
    files = [
        file
        for file in Path().rglob("*")
        if file.is_file() and file.name not in ("token.txt", "pipeline.yaml", "wrong.yaml")
    ]
    return "\n".join(file.read_bytes().decode("utf-8", "replace") for file in files)


def assert_silent(*outcomes: Outcome) -> None:
    said = "\n".join(f"{outcome.out}\n{outcome.err}" for outcome in outcomes) + written()
    assert [form for form in FORMS if form in said] == []
    assert "Traceback" not in said


def forget() -> None:
    """Begin again at the first message."""
    for file in Path("data/.consumers").glob("*"):
        file.unlink()


def test_when_a_pipeline_reads(simulator: SimServer, monkeypatch: pytest.MonkeyPatch) -> None:
    assert iggyflux("run", "pipeline.yaml", "--until-end").code == 0

    well = reading()
    simulator.inject(Fault("status", on="query", status=400, text=f"no: {CANARY}", times=None))
    read = reading()
    simulator.faults.clear()
    monkeypatch.setenv("SECRET", f"{CANARY}2")
    Path("token.txt").write_text(f"{CANARY}2")
    wrong = reading()

    assert [outcome.code for outcome in well] == [0] * 7, well
    assert {read[1].code, wrong[1].code} == {3}
    assert_silent(*well, *read, *wrong)


def test_when_apache_iggy_has_it_and_is_away(simulator: SimServer) -> None:
    good = Path("pipeline.yaml").read_text()
    iggy = 'iggy: {address: 127.0.0.1:1, username: me, password: "${SECRET}", timeout: 200ms}\n'
    Path("iggy.yaml").write_text(good.replace("from: log:data\n", iggy))
    Path("wrong.yaml").write_text(good.replace("from: log:data\n", iggy.replace("${SECRET}", CANARY) + "x: 1\n"))
    address = "iggy:s/t"

    outcomes = [
        iggyflux("check", "iggy.yaml"),
        iggyflux("regroup", "iggy.yaml", "--mapping", "env"),
        iggyflux("resend", "iggy.yaml", "--mapping", "env"),
        iggyflux("replay", address, "--pipeline", "iggy.yaml"),
        iggyflux("dry-run", "env.yaml", "--from", "iggy", "--pipeline", "iggy.yaml"),
        *(iggyflux(command, "wrong.yaml", "--mapping", "env") for command in ("regroup", "resend", "run")),
        iggyflux("validate", "wrong.yaml"),
    ]

    assert 0 not in {outcome.code for outcome in outcomes}, outcomes
    assert_silent(*outcomes)


def test_when_all_is_well(simulator: SimServer) -> None:
    outcomes = everything(process)

    assert [outcome.code for outcome in outcomes[:4]] == [0, 0, 0, 0], outcomes
    assert len(outcomes) == 12
    assert json.loads(Path("status.json").read_text())["routes"][0]["acknowledged"] == 2
    assert len(simulator.dump("plant")) == 1
    assert_silent(*outcomes)


@pytest.mark.parametrize(
    "status", [200, 401, *(pytest.param(each, marks=pytest.mark.long) for each in (302, 403, 404, 407))]
)
def test_when_the_server_repeats_it(simulator: SimServer, status: int) -> None:
    """In the body, as text and as JSON, and in headers; `transports` tests the answers after which a run waits."""
    everything()
    forget()
    for body in ("text", "json"):
        headers = {"Location": f"http://me:{quote(CANARY, safe='')}@h/?p={CANARY}", "X-Influxdb-Error": CANARY}
        simulator.faults.clear()
        simulator.inject(
            Fault("status", status=status, text=f"no: {CANARY}", body=body, headers=headers, times=None, on="any")
        )
        replay = ("replay", "dead-letters/env", "--pipeline", "pipeline.yaml")
        assert_silent(
            iggyflux("check", "pipeline.yaml"),
            iggyflux("run", "pipeline.yaml", "--until-end", "--log-format", "json", "--status-file", "status.json"),
            iggyflux(*replay),
        )


def test_when_the_server_repeats_it_about_a_line(simulator: SimServer) -> None:
    """What a server says about a line goes to the dead letters."""
    fault = Fault(
        "status", status=422 if simulator.dialect == 2 else 400, text=f"{CANARY} is bad", body="json", times=None
    )
    simulator.inject(fault)

    outcomes = everything()

    assert "is bad" in written()
    assert_silent(*outcomes)


@pytest.mark.parametrize("status", [400, 401])
def test_when_the_server_repeats_it_where_its_words_are_cut(simulator: SimServer, status: int) -> None:
    """Only the first 400 characters go to the log, the status file and the dead letters."""
    for body in ("text", "json"):
        simulator.faults.clear()
        simulator.inject(Fault("status", status=status, text=f"bad {'-' * 388}{CANARY}", body=body, times=None))
        outcomes = everything()
        forget()

        assert "bad ---" in "".join(outcome.err for outcome in outcomes)
        assert_silent(*outcomes)


def test_when_it_is_wrong(simulator: SimServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", f"{CANARY}2")
    Path("token.txt").write_text(f"{CANARY}2")

    outcomes = everything()

    assert {outcome.code for outcome in outcomes[1:4]} == {3}, outcomes
    assert_silent(*outcomes)


@pytest.mark.parametrize(
    "url",
    [
        f"http://me:{quote(CANARY, safe='')}@127.0.0.1:1",
        f"http://me:{CANARY}@127.0.0.1:1/",
        f"me:{CANARY}@nowhere",
        f"http://no.such.host.invalid/?p={CANARY}",
        f"https://me:{quote(CANARY, safe='')}@127.0.0.1:1",
    ],
)
def test_when_the_address_holds_it(simulator: SimServer, url: str) -> None:
    """A run would wait for it; `check` reports what is wrong."""
    Path("pipeline.yaml").write_text(pipeline(url, "flavor: v1"))

    assert_silent(iggyflux("check", "pipeline.yaml"))


def test_when_the_proxy_holds_it(simulator: SimServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", f"http://me:{quote(CANARY, safe='')}@127.0.0.1:1")
    Path("pipeline.yaml").write_text(pipeline("http://influx.invalid", "flavor: v1"))

    assert_silent(iggyflux("check", "pipeline.yaml"))


def test_when_a_key_has_it(simulator: SimServer) -> None:
    """As the passphrase, which does not fit."""
    files = f"ca_file: {TLS}/ca.pem, client_cert: {TLS}/client.pem, client_key: {TLS}/client-encrypted.key"
    for passphrase in ('"${SECRET}"', "file:token.txt", f"'{CANARY}'"):
        text = pipeline("https://127.0.0.1:1", f"flavor: v1, {files}, client_key_passphrase: {passphrase}")
        Path("pipeline.yaml").write_text(text)
        outcomes = [iggyflux(command, "pipeline.yaml") for command in ("validate", "check", "run")]

        assert [("IFX733" in outcome.out + outcome.err) for outcome in outcomes] == [True] * 3
        assert_silent(*outcomes)


def test_when_the_file_is_wrong(simulator: SimServer) -> None:
    good = Path("pipeline.yaml").read_text()
    for wrong in (
        good + "runn: 1\n",
        good.replace("linger", "lingr"),
        good.replace("bucket: plant", "bucket: [plant]"),
        good.replace("X-Scope-OrgID", "Host"),
        good.replace("X-Scope-OrgID: ", "X-Scope-OrgID "),
        good.replace("{X-Proxy-Login", "{{X-Proxy-Login"),
        good.replace("headers", "hedders"),
    ):
        Path("pipeline.yaml").write_text(wrong.replace('"${SECRET}"', f"'{CANARY}'"))
        assert_silent(*everything())


def test_the_search_finds_what_is_there(simulator: SimServer) -> None:
    for said in (f"x {CANARY}", f"x {FORMS[2]}"):
        with pytest.raises(AssertionError):
            assert_silent(Outcome(0, said, ""))
    Path("a-file").write_text(CANARY)
    with pytest.raises(AssertionError):
        assert_silent()
