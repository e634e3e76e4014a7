"""The example of a reader runs as its page says: a file into InfluxDB, and what is stored into a log."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from iggyflux.sim import SimServer

EXAMPLE = Path(__file__).parent.parent / "examples" / "history"


def iggyflux(*arguments: str, environment: dict[str, str]) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "iggyflux", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_is_stored_comes_back_once(tmp_path: Path) -> None:
    """Types and nanoseconds kept; a second run sends nothing again."""
    with SimServer(2, org="acme", database="plant", token="demo-token") as server:
        environment = {"INFLUX_URL": server.url, "STATE_DIR": str(tmp_path)}
        iggyflux("run", str(EXAMPLE / "writer.yaml"), "--until-end", environment=environment)
        for _ in range(2):
            iggyflux("run", str(EXAMPLE / "reader.yaml"), "--until-end", environment=environment)
        lines = iggyflux("log", "tail", str(tmp_path / "log"), "plant/readings", environment=environment).splitlines()

    found = {each["at"]: each for each in map(json.loads, lines)}
    assert len(lines) == 3
    assert found["2026-01-01T00:00:00.123456789Z"]["humidity"] == 40.25
    assert found["2026-01-01T00:00:20.5Z"]["count"] == 2**53 + 1
    assert found["2026-01-01T00:00:20.5Z"]["state"] is None
