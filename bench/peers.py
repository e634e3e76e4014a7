"""`make bench-peers`: iggyflux and other tools render the same messages in turns; their points are compared first.

Each round runs each of them once, in a process of its own.  A figure is the median of the rounds' CPU time for a
message.  On a busy machine only the ratios count: a neighbour slows all of them down.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from html import escape
from math import log10
from pathlib import Path
from statistics import median
from typing import Final

from bench.peer import PEERS
from bench.plan import COUNT, eight, messages
from bench.table import Figure, show
from iggyflux.lineprotocol import parse_lines

ROOT: Final = Path(__file__).resolve().parent.parent
RESULTS: Final = ROOT / "build" / "peers.json"
PICTURE: Final = ROOT / "build" / "peers.svg"
ROUNDS: Final = 7
COMMAND: Final = "make bench-peers"
REPEATS: Final = 20
"""How often a program on PATH reads the input: the time of its start is subtracted."""

BLOBLANG: Final = """\
http: {{enabled: false}}
logger: {{level: "OFF"}}
input: {{file: {{paths: ["{source}"], scanner: {{lines: {{}}}}}}}}
pipeline:
  threads: 1
  processors:
    - mapping: |
        root = "env,device=" + this.device.id + ",site=" + this.device.site +
          " temperature=" + this.celsius.string() + ",humidity=" + this.humidity.string() +
          ",pressure=" + this.pressure.string() + ",count=" + this.count.string() + "i" +
          ",state=\\"" + this.state + "\\" " + this.ts.string() + "000000"
output: {{stdout: {{}}}}
"""
TELEGRAF: Final = """\
[agent]
  flush_interval = "100ms"
  metric_batch_size = 5000
  metric_buffer_limit = 1000000
  omit_hostname = true
  quiet = true
[[outputs.file]]
  files = ["stdout"]
  data_format = "influx"
[[inputs.tail]]
  files = ["{source}"]
  initial_read_offset = "beginning"
  path_tag = ""
  max_undelivered_lines = 1000000
"""
JSON_V2: Final = """\
  data_format = "json_v2"
  [[inputs.tail.json_v2]]
    measurement_name = "env"
    timestamp_path = "ts"
    timestamp_format = "unix_ms"
""" + "".join(
    f"    [[inputs.tail.json_v2.{kind}]]\n      path = '{path}'\n      rename = '{name}'\n      type = '{type_}'\n"
    for kind, path, name, type_ in (
        ("tag", "device.id", "device", "string"),
        ("tag", "device.site", "site", "string"),
        ("field", "celsius", "temperature", "float"),
        ("field", "humidity", "humidity", "float"),
        ("field", "pressure", "pressure", "float"),
        ("field", "count", "count", "int"),
        ("field", "state", "state", "string"),
    )
)
XPATH: Final = """\
  data_format = "xpath_json"
  [[inputs.tail.xpath]]
    metric_name = "'env'"
    timestamp = "ts"
    timestamp_format = "unix_ms"
    [inputs.tail.xpath.tags]
      device = "device/id"
      site = "device/site"
    [inputs.tail.xpath.fields]
      temperature = "number(celsius)"
      humidity = "number(humidity)"
      pressure = "number(pressure)"
      state = "string(state)"
    [inputs.tail.xpath.fields_int]
      count = "count"
"""


@dataclass(frozen=True)
class Program:
    """A program that is run where one of its `names` is on PATH, with its settings in a file."""

    title: str
    names: tuple[str, ...]
    settings: str
    arguments: tuple[str, ...]
    bare: str = ""
    """Settings that pass each line on as it is.  Their cost is subtracted; without them, that of one message is."""


PROGRAMS: Final = {
    "bloblang": Program(
        "Bloblang in Benthos",
        ("benthos", "redpanda-connect"),
        BLOBLANG,
        ("run",),
        re.sub("  proc.*?(?=out)", "", BLOBLANG, flags=re.DOTALL),
    ),
    "json_v2": Program("json_v2 in Telegraf", ("telegraf",), TELEGRAF + JSON_V2, ("--config",)),
    "xpath_json": Program("xpath_json in Telegraf", ("telegraf",), TELEGRAF + XPATH, ("--config",)),
}
NEVER: Final = {
    "Iggy's influxdb_sink": "it has no mapping: the document becomes one text field, so no points are equal to these",
    "Vector": "its InfluxDB sinks do not write lines to a file; its language VRL is compared",
}


@dataclass(frozen=True)
class Measured:
    """What one run of a peer printed."""

    version: str
    micros: float


class Missing(Exception):
    """The peer cannot be run, or says something else; the text is why."""


def run_peer(name: str, python: str, source: Path, target: Path) -> Measured:
    """Render the messages in `source` in a process; its lines go to `target`."""
    command = [sys.executable if PEERS[name].ours else python, "-m", "bench.peer", name, str(source), str(target)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Missing(done.stderr.strip().splitlines()[-1])
    return Measured(**json.loads(done.stdout))


def cpu_seconds(command: Sequence[str], target: Path, lines: int) -> float:
    """Return the CPU time of `command` until it has written `lines` lines to `target` or ended."""
    with target.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while target.read_bytes().count(b"\n") < lines and time.monotonic() < deadline:
        if os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            break
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGTERM)  # `send_signal` would wait for it, and the usage be lost
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.stderr is not None
    with process.stderr as errors:
        complaint = errors.read().decode(errors="replace").strip()
    if target.read_bytes().count(b"\n") < lines:
        raise Missing(f"it ended too early: {complaint[-200:]}")
    return usage.ru_utime + usage.ru_stime


def run_program(program: Program, source: Path, target: Path) -> Measured:
    """Run `program` over one message and over many; the difference is the cost of the others."""
    found = next(filter(None, map(shutil.which, program.names)), None)
    if found is None:
        raise Missing(f"no {' or '.join(program.names)} on PATH")
    payloads = source.read_bytes().splitlines(keepends=True)
    work, settings = source.with_name("part.jsonl"), source.with_name("settings")
    base = payloads[:1], program.settings
    if program.bare:
        base = payloads * REPEATS, program.bare
    seconds = []
    for part, text in (base, (payloads * REPEATS, program.settings)):
        work.write_bytes(b"".join(part))
        settings.write_text(text.format(source=work))
        seconds.append(cpu_seconds([found, *program.arguments, str(settings)], target, len(part)))
    with target.open() as lines:
        first = [next(lines) for _ in payloads]
    target.write_text("".join(first))
    said = subprocess.run([found, "--version"], capture_output=True, text=True, check=False).stdout
    version = re.search(r"\d+\.[\w.-]+", said)
    return Measured(version[0] if version else "", (seconds[1] - seconds[0]) * 1e6 / (len(payloads) * REPEATS))


def typed_points(lines: str, unit: str) -> Sequence[object]:
    """Return the points in `lines`, by time: measurement, tags, fields with their types, time."""
    return sorted(
        (
            each.timestamp_ns,
            each.measurement,
            sorted(each.tags.items()),
            sorted((name, type(value).__name__, value) for name, value in each.fields.items()),
        )
        for each in parse_lines(lines, "v2", unit)
    )


def write_input(path: Path) -> None:
    """Write the messages; mqtt2influxdb takes the time from `timestamp`, all others from `ts`."""
    made = messages(
        lambda source, n: {**eight(source, n), "ts": 1_700_000_000_000 + n * 1000, "timestamp": 1_700_000_000 + n}
    )
    path.write_bytes(b"".join(message.payload + b"\n" for message in made))


def difference(expected: Sequence[object], found: Sequence[object], count: int) -> str | None:
    """Return how the points found differ from the first `count` expected."""
    if len(found) != count:
        return f"{len(found)} points of {count}"
    return next((f"{b}, not {a}" for a, b in zip(expected, found, strict=False) if a != b), None)


def compare(python: str, rounds: int = ROUNDS) -> tuple[dict[str, list[Measured]], dict[str, str]]:
    """Return what each run of each measured, and why others were not: by title."""
    measured: dict[str, list[Measured]] = {}
    missing = dict(NEVER)
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "input.jsonl"), Path(folder, "lines")
        write_input(source)
        expected: Sequence[object] = []
        entries = {peer.title: (partial(run_peer, name, python), peer.unit, peer.count) for name, peer in PEERS.items()}
        entries |= {each.title: (partial(run_program, each), "ns", COUNT) for each in PROGRAMS.values()}
        for _ in range(rounds):
            for title, (run, unit, count) in entries.items():
                if title in missing:
                    continue
                try:
                    took = run(source, target)
                    points = typed_points(target.read_text("utf-8"), unit)
                    expected = expected or points
                    if found := difference(expected, points, count):
                        raise Missing(f"its points differ: {found}")
                except Missing as reason:
                    missing[title] = str(reason)
                    measured.pop(title, None)
                else:
                    measured.setdefault(title, []).append(took)
    return measured, missing


def machine() -> str:
    """Return the processor, the number of its cores and the version of Python."""
    information = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in information.read_text().splitlines() if "model name" in line]
    return f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores, Python {platform.python_version()}"


def short(number: float) -> str:
    """Return the number with three digits."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def rate(micros: float) -> str:
    """Return how many messages a second of CPU time renders."""
    return f"{1000 / micros:,.0f}k" if micros < 100 else f"{1e6 / micros:,.0f}"


def picture(rows: Sequence[tuple[str, float, float]], caption: str) -> str:
    """Return an SVG of the rows (title, microseconds, ratio): bars on a logarithmic scale."""
    height = 26 * len(rows) + 62
    scale = 230 / log10(max(10, *(micros for _, micros, _ in rows)))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="800" height="{height}" font-family="sans-serif">',
        '<g font-size="13">',
        f'<rect width="800" height="{height}" fill="#fff"/>',
        (
            '<text x="10" y="22" font-weight="bold">CPU time to render one JSON message to line protocol, '
            "and messages rendered in a second of CPU time</text>"
        ),
    ]
    for top, (title, micros, ratio) in zip(range(36, height, 26), rows, strict=False):
        width = 20 + scale * log10(max(micros, 1))
        parts.append(
            f'<text x="300" y="{top + 14}" text-anchor="end">{escape(title)}</text>'
            f'<rect x="308" y="{top}" width="{width:.0f}" height="18" fill="{"#3f51b5" if top == 36 else "#b0bec5"}"/>'
            f'<text x="{316 + width:.0f}" y="{top + 14}">{short(ratio)} × ({short(micros)} µs, {rate(micros)}/s)</text>'
        )
    parts.append(f'<text x="10" y="{height - 10}" font-size="11" fill="#555">{escape(caption)}</text></g></svg>\n')
    return "\n".join(parts)


def main() -> None:
    measured, missing = compare(sys.argv[1] if len(sys.argv) > 1 else sys.executable)
    micros = {title: median(each.micros for each in took) for title, took in measured.items()}
    ours = next(iter(micros))
    order = [ours, *sorted(micros.keys() - {ours}, key=lambda title: micros[title])]
    rows = [(f"{title} {measured[title][0].version}", micros[title], micros[title] / micros[ours]) for title in order]
    show(
        f"rendering {COUNT} messages, median of {ROUNDS} rounds in turns, CPU time",
        [Figure(title, each, "µs/msg", "" if title == rows[0][0] else ours, ratio) for title, each, ratio in rows],
    )
    for title, reason in missing.items():
        print(f"  not compared: {title}: {reason}", file=sys.stderr)
    found = {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "machine": machine(),
        "command": COMMAND,
        "rounds": {title: [each.micros for each in took] for title, took in measured.items()},
        "peers": [{"peer": title, "micros": each, "ratio": ratio} for title, each, ratio in rows],
        "missing": missing,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", "utf-8")
    caption = f"{found['date']} · {found['machine']} · {COMMAND}: median of {ROUNDS} rounds · logarithmic scale"
    PICTURE.write_text(picture(rows, caption), "utf-8")
    print(f"written: {RESULTS.relative_to(ROOT)}, {PICTURE.relative_to(ROOT)}", file=sys.stderr)


if __name__ == "__main__":
    main()
