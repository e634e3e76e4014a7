"""Every example in the help of a command runs as it is written there, in a folder with the files that it names."""

from __future__ import annotations

import gzip
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from iggy_server import free_ports

from iggyflux.cli import command_line
from iggyflux.sim import SimServer
from tests.shell import Outcome, iggyflux, process

TOKEN = "while"
READER = """
iggyflux: 1
kind: reader
name: env-history
from: {measurement: env}
cursor: {start: 2026-01-01T00:00:00Z, end: 2026-01-01T01:00:00Z}
to: {stream: factory, topic: history}
"""
PIPELINE = """
iggyflux: 1
iggy: {address: "127.0.0.1:IGGY", username: u, password: "${INFLUX_TOKEN}", create: true}
influxdb: {url: "URL", org: org, bucket: test, token: "${INFLUX_TOKEN}"}
run:
  - {mapping: mapping.yaml, name: factory-env, from: "log:data", to: influxdb}
  - {mapping: reader.yaml, to: "log:history"}
"""
NEEDS_IGGY = ("--from iggy", "iggy:", "iggyflux regroup", "iggyflux resend")
ENDLESS = ("iggyflux run pipeline.yaml", "--rate", "--watch", "iggyflux sim", "iggyflux playground")
"""What ends by a signal only."""
REPORTS = ("iggyflux test --round-trip", "iggyflux replay", "iggyflux log tail")
"""What reports the message that cannot be mapped, which is in the log: exit code 1."""
OWN_PROCESS = ("iggyflux run", "iggyflux lsp", "iggyflux completion")
"""What sets up a process: signals, logs, stdin."""
OTHER_SIZES = {"--count 100000": "--count 1000", "--from 120000 --to 125000": "--from 2 --to 7"}
ASKS = ("iggyflux cursor set", "iggyflux cursor reset")


def examples(command: click.Command, context: click.Context, *names: str) -> Iterator[tuple[str, str]]:
    """Yield each example in the help of a command and of those below it, with the command's name."""
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from examples(inner, context, *names, name)
    _, _, after = (command.help or "").partition("Example:")
    assert after or isinstance(command, click.Group), f"{names} has no example"
    yield from ((" ".join(names), line.strip()) for line in after.splitlines() if line.strip())


EXAMPLES = list(dict.fromkeys(line for _, line in examples(command_line, click.Context(command_line))))


@pytest.fixture(scope="module")
def server() -> Iterator[SimServer]:
    with SimServer(2, token=TOKEN) as running:
        yield running


@pytest.fixture(scope="module")
def prepared(server: SimServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the pipeline has run."""
    folder = tmp_path_factory.mktemp("prepared")
    assert process("init", "mapping.yaml", cwd=folder).code == 0
    (folder / "reader.yaml").write_text(READER)
    (iggy,) = free_ports(1)
    (folder / "pipeline.yaml").write_text(PIPELINE.replace("URL", server.url).replace("IGGY", str(iggy)))
    for name in (
        "mappings",
        "home/.local/share/bash-completion/completions",
        "home/.zfunc",
        "home/.config/fish/completions",
    ):
        (folder / name).mkdir(parents=True)
    shutil.copy(folder / "mapping.yaml", folder / "mappings" / "factory-env.yaml")
    for name in ("writer.yaml", "old.yaml"):
        shutil.copy(folder / "mapping.yaml", folder / name)
    for arguments in (("init", "-q", "-b", "main"), ("add", "mapping.yaml"), ("commit", "-qm", "first")):
        git = ("git", "-c", "user.name=a", "-c", "user.email=a@b.c", *arguments)
        subprocess.run(git, cwd=folder, check=True, capture_output=True)
    payloads = process("log", "generate", "mapping.yaml", "--count", "20", cwd=folder).out
    (folder / "samples.ndjson").write_text(payloads)
    envelopes = process("log", "generate", "mapping.yaml", "--count", "20", "--envelope", cwd=folder).out
    (folder / "messages.ndjson").write_text(envelopes)
    (folder / "archive").mkdir()
    (folder / "archive" / "2026-01.ndjson.gz").write_bytes(gzip.compress(payloads.encode()))
    (folder / "documents").mkdir()
    (folder / "documents" / "1.json").write_text(payloads.splitlines()[0])
    (folder / "pumps.csv").write_text("name,speed\na,1\n")
    cases = Path(__file__).parent / "cases" / "importing"
    shutil.copy(cases / "iggy-sink" / "iggy-influxdb-sink.toml", folder / "sink.toml")
    shutil.copy(cases / "telegraf-json-array" / "telegraf.toml", folder / "telegraf.conf")
    messages = f'{payloads}{{}}\n{{"readings": [1]}}\n'.encode()
    process("log", "append", "data", "factory/readings", "--partitions", "2", stdin=messages, cwd=folder)
    ran = process("run", "pipeline.yaml", "--until-end", cwd=folder, env={"INFLUX_TOKEN": TOKEN})
    assert ran.code == 0, ran.err
    assert (folder / "dead-letters" / "factory-env").is_dir()
    return folder


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_of_the_help_runs(
    example: str, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it needs a server of Apache Iggy, it is at least a right usage."""
    folder = tmp_path / "work"
    shutil.copytree(prepared, folder)
    if example.startswith(("iggyflux init", "iggyflux test readings")):
        (folder / "pipeline.yaml").unlink()
        (folder / "mapping.yaml").rename(folder / "readings.yaml")
        if example == "iggyflux init readings.yaml":
            (folder / "readings.yaml").unlink()
    command = example + " --yes" * example.startswith(ASKS)
    for written, here in {"/var/": f"{tmp_path}/", **OTHER_SIZES}.items():
        command = command.replace(written, here)
    is_endless = any(command.startswith(each) or each in command for each in ENDLESS) and "--until-end" not in command
    needs_iggy = any(each in command for each in NEEDS_IGGY)
    if needs_iggy:
        pipeline = folder / "pipeline.yaml"
        pipeline.write_text(pipeline.read_text().replace('from: "log:data", ', "").replace(', to: "log:history"', ""))
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(folder / "home"),
        "INFLUX_TOKEN": TOKEN,
    }
    if is_endless or needs_iggy:
        done = run_until_it_speaks(command, folder, environment)
    elif set(command) & set("|<>*") or command.startswith(OWN_PROCESS):
        done = run_shell(command, folder, environment)
    else:  # the same in a tenth of the time
        monkeypatch.chdir(folder)
        done = iggyflux(*shlex.split(command)[1:], env=environment)

    assert "Usage:" not in done.err, done.err
    expected = {1, 3, 130} if needs_iggy else {0, 130} if is_endless else {0, 1} if command.startswith(REPORTS) else {0}
    assert done.code in expected, done.out + done.err


def run_shell(command: str, folder: Path, environment: dict[str, str]) -> Outcome:
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        cwd=folder,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def run_until_it_speaks(command: str, folder: Path, environment: dict[str, str]) -> Outcome:
    """Run what may be endless until it has written something, or for 4 s, then interrupt it as Ctrl-C does."""
    out, err = folder / "stdout", folder / "stderr"
    with out.open("wb") as out_file, err.open("wb") as err_file:
        running = subprocess.Popen(
            ["bash", "-o", "pipefail", "-c", command],
            cwd=folder,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=out_file,
            stderr=err_file,
            start_new_session=True,
        )
        until = time.monotonic() + 4
        while running.poll() is None and time.monotonic() < until and not out.stat().st_size + err.stat().st_size:
            time.sleep(0.02)
        time.sleep(0.2)  # the rest of what it says
        if running.poll() is None:
            os.killpg(running.pid, signal.SIGINT)
        code = running.wait(120)
    return Outcome(130 if code == -signal.SIGINT else code, out.read_text(), err.read_text())
