"""`iggyflux sim` as a process: a URL on stdout, messages on stderr, an end on a signal."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from click.testing import CliRunner, Result

from iggyflux.cli.sim import sim
from tests.sim.client import call


def run(*arguments: str) -> Result:
    return CliRunner().invoke(sim, ["--port", "0", "--seconds", "0", *arguments])


def test_it_serves_until_it_is_stopped_and_sums_up() -> None:
    command = [sys.executable, "-m", "iggyflux", "sim", "--dialect", "1", "--port", "0", "--fault", "status:status=503"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        port = urlsplit(url).port
        assert port is not None
        statuses = [call(port, "POST", "/write?db=test", "m f=1 1\nbad").status for _ in range(2)]
        process.send_signal(signal.SIGTERM)
        out, talk = process.communicate(timeout=120)

    assert statuses == [503, 400]
    assert (process.returncode, out) == (0, "")
    assert talk.splitlines() == [
        "note: every token is accepted; use --token NAME to require one",
        "requests: 400 × 1, 503 × 1",
        "lines: 2 (1 stored, 1 rejected)",
        "points: 1 in 1 series (0 overwritten)",
        "faults: status × 1",
    ]


def test_the_url_is_the_first_line_of_stdout() -> None:
    result = run()

    assert result.exit_code == 0
    assert result.stdout.startswith("http://127.0.0.1:")


def test_a_scenario_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "scenario.yaml"
    path.write_text("faults:\n  - {kind: latency, seconds: 0.01, times: null}\nrandom: {seed: 7, rate: 0.2}\n")

    assert run("--scenario", str(path)).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--fault", "statu"], "IFX750: statu.kind: expected one of status"),
        (["--fault", "statu:times=1"], "did you mean 'status'?"),
        (["--fault", "status:status"], "expected KEY=VALUE"),
        (["--chaos", "x"], "expected SEED[:RATE]"),
        (["--retention", "soon"], "is not a duration"),
        (["--dialect", "4"], "is not one of"),
        (["--scenario", "no-such-file"], "does not exist"),
    ],
)
def test_wrong_usage_is_reported_with_exit_code_2(arguments: list[str], words: str) -> None:
    result = run(*arguments)

    assert result.exit_code == 2
    assert words in result.output


def test_an_invalid_scenario_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "scenario.yaml"
    path.write_text("faults:\n  - {kind: reset, when: later}\n")

    result = run("--scenario", str(path))

    assert result.exit_code == 2
    assert "faults[0]: when: expected one of before, during, after" in result.output
