"""`make demo`: the whole of iggyflux in a minute, each step shown as the command that you would type.

Realistic messages go into a log on disk.  A pipeline renders them and sends them to a simulated InfluxDB over HTTP,
which is made to fail meanwhile.  A second run shows that positions survive.  Needs no server; it writes into `.demo/`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DEMO = Path(".demo")
MAPPING = "mappings/zigbee2mqtt.yaml"
PIPELINE = "examples/home/pipeline.yaml"
BIN = Path(sys.executable).parent / "iggyflux"


def say(text: str) -> None:
    print(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n{text}", flush=True)


def run(*arguments: str, environment: dict[str, str] | None = None) -> None:
    """Show a command and run it; a failure ends the demo."""
    print(f"$ iggyflux {' '.join(arguments)}", flush=True)
    result = subprocess.run([BIN, *arguments], env={**os.environ, **(environment or {})}, check=False)
    if result.returncode:
        sys.exit(f"the demo stopped: exit code {result.returncode}")


def main() -> None:
    os.chdir(ROOT)
    shutil.rmtree(DEMO, ignore_errors=True)
    DEMO.mkdir()

    say("1. A mapping says what becomes of a message")
    print("\n".join(Path(MAPPING).read_text().split("examples:")[0].splitlines()[2:]))
    run("test", MAPPING)

    say("2. Realistic messages in a log on disk (Apache Iggy's place is taken by log:DIR)")
    run("log", "generate", MAPPING, "--into", str(DEMO / "log"), "--count", "20000", "--seed", "7")
    run("log", "tail", str(DEMO / "log"), "home/zigbee2mqtt", "-n", "3")

    say("3. What comes of them, byte for byte as it will be sent")
    last: list[str | Path] = [BIN, "log", "tail", str(DEMO / "log"), "home/zigbee2mqtt", "-n", "3", "--envelope"]
    tail = subprocess.run(last, capture_output=True, check=True)
    (DEMO / "three.ndjson").write_bytes(tail.stdout)
    run("dry-run", MAPPING, str(DEMO / "three.ndjson"), "--envelope")

    say("4. A simulated InfluxDB 2.x, which answers 503 to two requests and breaks one connection")
    command = ["sim", "--dialect", "2", "--port", "0", "--org", "home", "--bucket", "sensors", "--token", "demo-token"]
    command += ["--fault", "status:status=503,times=2,retry_after=1,path=/api/v2/write,skip=2"]
    command += ["--fault", "reset:when=after,stored=true,times=1,path=/api/v2/write,skip=4"]
    print(f"$ iggyflux {' '.join(command)} &", flush=True)
    simulator = subprocess.Popen([BIN, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert simulator.stdout is not None
        url = simulator.stdout.readline().split()[-1]
        print(url)
        environment = {"INFLUX_URL": url, "INFLUX_TOKEN": "demo-token", "DEMO_DIR": str((DEMO).resolve())}

        say("5. The pipeline: read, render, send, acknowledge; the faults are survived")
        print(Path(PIPELINE).read_text())
        run("run", PIPELINE, "--until-end", environment=environment)

        say("6. The same again: positions are durable, so there is nothing new")
        run("run", PIPELINE, "--until-end", environment=environment)
    finally:
        simulator.terminate()
        _, summary = simulator.communicate(timeout=20)
    say("7. What the simulated InfluxDB saw")
    print(summary)

    say("What to try next")
    where = BIN.relative_to(ROOT) if BIN.is_relative_to(ROOT) else BIN
    print(
        f"""  iggyflux init my-mapping.yaml                 a commented starter for your own messages
  iggyflux dry-run {MAPPING} mappings/samples/zigbee2mqtt.ndjson
  iggyflux explain {MAPPING}      what is read, what is written, the generated code
  docs/tutorial.md                              from a JSON message to a tested mapping in ten minutes
(the command is {where}; `source .venv/bin/activate` puts it on your PATH)"""
    )


if __name__ == "__main__":
    main()
