"""Iggy's connectors as a process, with its sink for InfluxDB, whose library `IGGYFLUX_TEST_IGGY_SINK` names."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.iggy_server import IggyServer

_RUNTIME = """\
[http]
enabled = false
[iggy]
address = "{tcp}"
username = "iggy"
password = "iggy"
[state]
path = "{folder}/state"
[connectors]
config_type = "local"
config_dir = "{folder}/connectors"
[logging]
format = "text"
"""


def missing() -> str | None:
    """Return what is not there."""
    if shutil.which("iggy-connectors") is None:
        return "iggy-connectors is not on PATH"
    library = os.environ.get("IGGYFLUX_TEST_IGGY_SINK", "")
    return None if Path(library).is_file() else "IGGYFLUX_TEST_IGGY_SINK does not name the library of the sink"


def sink_configuration(text: str) -> str:
    """Return the configuration of a connector with the path of the library."""
    library = Path(os.environ["IGGYFLUX_TEST_IGGY_SINK"]).with_suffix("")
    return re.sub(
        r"^(?=\[\[streams)", f'version = 0\nname = "InfluxDB"\npath = "{library}"\n', text, count=1, flags=re.MULTILINE
    )


@contextmanager
def connectors(server: IggyServer, folder: Path, sink: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run the connectors with one sink in a new `folder`; its `log` is what they print."""
    program = shutil.which("iggy-connectors")
    assert program is not None
    (folder / "connectors").mkdir(parents=True)
    (folder / "runtime.toml").write_text(_RUNTIME.format(tcp=server.tcp, folder=folder))
    (folder / "connectors/sink.toml").write_text(sink)
    environ = {**os.environ, "IGGY_CONNECTORS_CONFIG_PATH": str(folder / "runtime.toml")}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([program], cwd=folder, env=environ, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)
