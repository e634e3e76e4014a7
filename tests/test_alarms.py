"""Alarms and the dashboard name only what the table of metrics has, and work on a real Prometheus.

Without Prometheus the expressions are cut into words, which are compared with the table.  With it (Debian package
`prometheus`) `promtool` tests the alarms, and a Prometheus scrapes a real run, as docs/operations.md says.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from alarm_mutants import survivors
from iggy_server import free_ports
from pages import blocks
from required_servers import not_found
from ruamel.yaml import YAML

from iggyflux.records import Message
from iggyflux.runner import Status
from iggyflux.sim import SimServer
from iggyflux.sim.faults import Fault
from iggyflux.telemetry.exposition import exposed
from iggyflux.telemetry.metrics import METRICS
from iggyflux.transports.local.log import Log

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
PROMETHEUS = DEPLOY / "prometheus"
DASHBOARD = json.loads((DEPLOY / "grafana" / "iggyflux.json").read_text("utf-8"))
SECONDS = 60.0
"""The time after which something that must happen has not happened."""


@cache
def load(name: str) -> Any:
    return YAML(typ="safe", pure=True).load((PROMETHEUS / name).read_text("utf-8"))


ALARMS = {rule["alert"]: rule for group in load("rules.yaml")["groups"] for rule in group["rules"]}
TARGETS = [
    pytest.param(panel, target, id=f"{panel['title']} {target['refId']}")
    for panel in DASHBOARD["panels"]
    for target in panel.get("targets", ())
]

# --- expressions ---

OF_SCRAPE = {"job", "instance"}
PARTS = {"histogram": {"_bucket": {"le"}, "_sum": set(), "_count": set()}}
LABELS: dict[str, set[str]] = {
    f"{metric.name}{part}": {*metric.all_labels, *more, *OF_SCRAPE}
    for metric in METRICS
    for part, more in PARTS.get(metric.type, {"": set()}).items()
} | {"up": OF_SCRAPE}
LABELS |= {
    line.split(" ")[0]: OF_SCRAPE
    for line in exposed({"version": "", "python": "", **Status().as_public()}, as_openmetrics=False)[0]
    .decode()
    .splitlines()
    if line.startswith("process_")
}
GROWING = {f"{each.name}{part}" for each in METRICS for part in PARTS.get(each.type, {"": ()}) if each.type != "gauge"}
GROWING.add("process_cpu_seconds_total")
FUNCTIONS = {"sum", "max", "min", "count", "rate", "increase", "changes", "histogram_quantile"} | {
    f"{each}_over_time" for each in ("avg", "min", "max")
}
OF_COUNTERS = {"rate", "increase"}
GROUPING = {"by", "without", "on", "ignoring"}
WORDS = {"and", "or", "unless", "offset", "bool"}
TOKEN = re.compile(
    r"""(?P<string>"[^"]*") | (?P<range>\[[^\]]*\]) | (?P<number>\d[\w.]*) | (?P<word>[A-Za-z_]\w*)
      | (?P<sign>[=!<>]~?=?|[-+*/(){},]) | \s+""",
    re.VERBOSE,
)


@dataclass(frozen=True)
class Used:
    """What an expression names: metrics in order, labels that select, labels of groups, functions of metrics."""

    metrics: list[str]
    labels: set[tuple[str, str]]
    grouped: set[str]
    functions: set[tuple[str, str]]


def used(expr: str) -> Used:
    """Cut an expression into words, and say what each is by the words before and after it."""
    tokens, end = [], 0
    while end < len(expr):
        match = TOKEN.match(expr, end)
        assert match, f"not understood: {expr[end:]}"
        end = match.end()
        tokens += [(match.lastgroup, match[0])] if match.lastgroup else []
    found = Used([], set(), set(), set())
    place, before = "", ""
    for at, (kind, text) in enumerate(tokens):
        after = tokens[at + 1][1] if at + 1 < len(tokens) else ""
        if text == "{":
            place = "selector"
        elif text == "(" and before in GROUPING:
            place = "group"
        elif text in ("}", ")"):
            place = ""
        elif kind == "word" and place == "selector":
            found.labels.add((found.metrics[-1], text))
        elif kind == "word" and place == "group":
            found.grouped.add(text)
        elif kind == "word" and text not in GROUPING | WORDS:
            if after == "(" or (text in FUNCTIONS and after in GROUPING):
                assert text in FUNCTIONS, f"no function {text}"
            else:
                found.metrics.append(text)
                if before == "(" and tokens[at - 2][0] == "word":
                    found.functions.add((tokens[at - 2][1], text))
        before = text
    return found


def wrong_in(expr: str, *shown: str) -> list[str]:
    """Return what an expression, and the texts `shown` beside it, name and the table does not have."""
    names = used(expr)
    if unknown := [f"no metric {name}" for name in names.metrics if name not in LABELS]:
        return unknown
    inside = names.grouped | {
        label for text in shown for label in re.findall(r"\{\{ ?(?:\$labels\.)?([a-z_]+) ?\}\}", text)
    }
    return [
        *(f"{name} has no label {label}" for name, label in names.labels if label not in LABELS[name]),
        *(f"no label {label}" for label in inside if any(label not in LABELS[name] for name in names.metrics[:1])),
        *(f"{function} of a gauge {name}" for function, name in names.functions & _counted(names)),
    ]


def _counted(names: Used) -> set[tuple[str, str]]:
    return {(function, name) for function in OF_COUNTERS for name in names.metrics if name not in GROWING}


@pytest.mark.parametrize(
    ("expr", "wrong"),
    [
        ('sum by (route) (rate(iggyflux_requests_total{server=~"a.*"}[5m])) / 2 > bool 1e3', []),
        ("iggyflux_lag_message > 1", ["no metric iggyflux_lag_message"]),
        ('iggyflux_requests_total{topic="x"}', ["iggyflux_requests_total has no label topic"]),
        ("sum by (topic) (iggyflux_requests_total)", ["no label topic"]),
        ("rate(iggyflux_lag_messages[1m])", ["rate of a gauge iggyflux_lag_messages"]),
        ("iggyflux_request_points", ["no metric iggyflux_request_points"]),
        ("up unless on (job) other_total", ["no metric other_total"]),
    ],
)
def test_an_expression_that_names_what_the_table_does_not_have_is_found(expr: str, wrong: list[str]) -> None:
    assert wrong_in(expr) == wrong


@pytest.mark.parametrize("name", ALARMS)
def test_an_alarm_names_only_metrics_and_labels_that_exist(name: str) -> None:
    texts = ALARMS[name]["annotations"].values()

    assert wrong_in(ALARMS[name]["expr"], *texts) == []


@pytest.mark.parametrize(("panel", "target"), TARGETS)
def test_a_panel_names_only_metrics_and_labels_that_exist(panel: Any, target: Any) -> None:
    assert wrong_in(target["expr"], target["legendFormat"]) == []


def test_the_variables_of_the_dashboard_are_labels_of_a_metric() -> None:
    variables = {each["name"]: each["query"] for each in DASHBOARD["templating"]["list"] if each["type"] == "query"}
    queries = [re.fullmatch(r"label_values\((.*), (\w+)\)", each["query"]) for each in variables.values()]

    assert [match[2] for match in queries if match] == [*variables] == ["job", "instance", "route"]
    assert [wrong for match in queries if match for wrong in wrong_in(match[1], f"{{{{{match[2]}}}}}")] == []
    used_variables = set(
        re.findall(r"\$([a-z]\w*)", json.dumps([target["expr"] for _, target in map(_values, TARGETS)]))
    )
    assert used_variables == set(variables)


def _values(parameters: Any) -> tuple[Any, Any]:
    panel, target = parameters.values
    return panel, target


NOT_SHOWN = {"iggyflux_acknowledged_offset": "an offset says nothing to the eye: the lag does"}


def test_every_metric_is_on_the_dashboard() -> None:
    shown = {name for _, target in map(_values, TARGETS) for name in used(target["expr"]).metrics}

    missing = {each.name for each in METRICS if not any(name.startswith(each.name) for name in shown)}
    assert missing == set(NOT_SHOWN)


def test_the_dashboard_is_what_its_script_makes() -> None:
    made = subprocess.run(
        [sys.executable, DEPLOY / "dashboard.py", "--check"], capture_output=True, text=True, check=False
    )

    assert (made.returncode, made.stderr) == (0, "")


def test_panels_lie_beside_each_other_and_have_numbers_of_their_own() -> None:
    panels = DASHBOARD["panels"]
    cells = [
        (x, y)
        for at in (panel["gridPos"] for panel in panels)
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    ]

    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) == 23
    assert len({panel["id"] for panel in panels}) == len({panel["title"] for panel in panels}) == len(panels)


# --- alarms ---


@pytest.mark.parametrize("name", ALARMS)
def test_an_alarm_says_how_bad_it_is_where_it_is_and_what_to_do(name: str) -> None:
    """And each has tests on which it fires, and on which it does not."""
    rule = ALARMS[name]
    notes = rule["annotations"]
    tests = [each for test in load("rules_test.yaml")["tests"] for each in test["alert_rule_test"]]
    outcomes = {bool(each["exp_alerts"]) for each in tests if each["alertname"] == name}

    assert rule["labels"]["severity"] in ("critical", "warning")
    assert set(notes) == {"summary", "description", "runbook_url"}
    assert "$labels.instance" in notes["description"]
    labels = LABELS[used(rule["expr"]).metrics[0]]
    named = {"route", "partition", "topic"} - ({"partition"} if "partition" not in labels else set())
    assert [each for each in named & labels if f"$labels.{each} " not in notes["description"]] == []
    assert outcomes == {True, False}


def test_every_alarm_has_a_section_in_the_order_of_the_rules() -> None:
    page = (ROOT / "docs" / "operations.md").read_text("utf-8")
    headings = re.findall("^### (Iggyflux.*)$", page.partition("\n## Alarms\n")[2], re.MULTILINE)

    assert headings == list(ALARMS)
    anchors = {
        name: rule["annotations"]["runbook_url"].partition("docs/operations.md#")[2] for name, rule in ALARMS.items()
    }
    assert anchors == {name: name.lower() for name in ALARMS}


# --- Prometheus ---


def program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        not_found("prometheus", f"no {name} on PATH (Debian package `prometheus`; `make servers`)")
    return found


def commands() -> list[str]:
    """Return the commands of the page."""
    page = blocks(ROOT / "docs" / "operations.md")
    return "".join(block["text"] for block in page if block["runs"] == "tests/test_alarms.py").splitlines()


@pytest.mark.long
def test_the_unit_tests_of_the_alarms_notice_each_change_of_one() -> None:
    program("promtool")
    assert survivors([]) == []


@pytest.mark.parametrize("command", [each for each in commands() if re.match("promtool (check|test)", each)])
def test_promtool_has_nothing_against_configuration_and_alarms(command: str) -> None:
    program("promtool")
    done = subprocess.run(shlex.split(command), cwd=ROOT, capture_output=True, text=True, timeout=SECONDS)

    assert done.returncode == 0, done.stdout + done.stderr


OVENS = """\
iggyflux: 1
kind: writer
name: ovens
from: {stream: bakery, topic: ovens}
where: loaf != 'none'
points:
  measurement: {const: bake}
  tags: {oven: oven}
  fields: {crust: {expr: crust, type: auto}}
  timestamp: {expr: at, format: unix_ns}
limits: {series: 1000}
"""
CHECKED = {
    "ovens.yaml": OVENS,
    "skips.yaml": OVENS.replace("name: ovens", "name: skips\non_error: skip"),
    "fails.yaml": OVENS.replace("name: ovens", "name: fails\non_error: fail"),
    "back.yaml": """\
iggyflux: 1
kind: reader
name: back
from: {measurement: bake}
cursor: {start: beginning, settle: 100ms, overlap: 1s}
to: {stream: bakery, topic: history}
""",
    "pipeline.yaml": """\
iggyflux: 1
influxdb:
  url: URL
  flavor: v2
  org: org
  bucket: test
  linger: 10ms
  max_retries: 1
  retry_backoff: 10ms
  max_retry_backoff: 100ms
  poll_interval: 200ms
run:
  - {mapping: ovens.yaml, from: "log:data"}
  - {mapping: skips.yaml, from: "log:data", to: "file:skips.lp"}
  - {mapping: fails.yaml, from: "log:data", to: "file:fails.lp"}
  - {mapping: back.yaml, to: "log:history"}
""",
}
OF_OTHER_RUNS = {
    "Starving partitions A",
    "Partitions of the member A",
    "Messages that starve A",
    "Points written, by bucket A",
    "Points refused, by bucket A",
    "Requests that wait for a bucket A",
    "Buckets that are away A",
    "CPU of workers, of one core A",
    "Memory of workers A",
    "Workers that run A",
    "Restarts of workers A",
}
"""Panels about consumer groups, which only a server of Iggy has, buckets that points choose, and workers."""


@dataclass
class Watched:
    """A run that is scraped, the server that it writes to, and the log that it reads."""

    server: SimServer
    log: Log
    url: str
    processes: list[subprocess.Popen[bytes]]

    def feed(self) -> None:
        """Append a message of each kind: two good ones at one time, one that fails, one that the server refuses."""
        now = time.time_ns()
        values = [
            f'"crust": 0.5, "at": {now}',
            f'"crust": 0.7, "at": {now}',
            '"crust": 0.9',
            f'"crust": "black", "at": {now}',
        ]
        self.log.append("bakery", "ovens", [Message(f'{{"oven": "left", {each}}}'.encode()) for each in values])

    def ask(self, path: str, **parameters: str) -> Any:
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{query}", timeout=SECONDS) as answer:
            return json.load(answer)["data"]

    def query(self, expr: str) -> list[Any]:
        """Return the series of a query that have a number, with the variables of the dashboard filled in."""
        for name, value in {
            "__rate_interval": "1m",
            "__range": "1m",
            **dict.fromkeys(("job", "instance", "route"), ".*"),
        }.items():
            expr = expr.replace(f"${name}", value)
        return [each for each in self.ask("query", query=expr)["result"] if each["value"][1] != "NaN"]

    def until(self, holds: Callable[[], object]) -> None:
        """Feed the run until something holds."""
        deadline = time.monotonic() + SECONDS
        while not holds():
            assert time.monotonic() < deadline, self.ask("alerts")
            assert [each.poll() for each in self.processes] == [None, None]
            self.feed()
            time.sleep(0.2)


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """The commands of docs/operations.md, with free ports, more scrapes, and no time that an alarm waits."""
    program("prometheus"), program("promtool")
    folder = tmp_path_factory.mktemp("watched")
    shutil.copytree(PROMETHEUS, folder / "deploy" / "prometheus")
    ports = dict(zip(("9273", "9090"), map(str, free_ports(2)), strict=True))
    lines = commands()
    for old, new in ports.items():
        lines = [line.replace(old, new) for line in lines]
    *stays, asks = (shlex.split(line) for line in lines if line.endswith(" &") or line.startswith("promtool query"))
    for name in ("prometheus.yaml", "rules.yaml"):
        path = folder / "deploy" / "prometheus" / name
        text = re.sub("(_interval: ).*", r"\g<1>300ms", path.read_text("utf-8")).replace("9273", ports["9273"])
        path.write_text(re.sub(" +for: .*\n", "", text), "utf-8")
    with ExitStack() as until:
        server = until.enter_context(SimServer(2))
        for name, text in CHECKED.items():
            (folder / name).write_text(text.replace("URL", server.url), "utf-8")
        log = Log.open(folder / "data", create=True)
        until.callback(log.close)
        processes: list[subprocess.Popen[bytes]] = []
        for *words, _ in stays:
            words = [sys.executable, "-m", *words] if words[0] == "iggyflux" else words
            with (folder / f"{Path(words[0]).name}.log").open("wb") as output:
                process = subprocess.Popen(words, cwd=folder, stdout=output, stderr=output)
            processes.append(process)
            until.callback(process.wait, SECONDS)
            until.callback(process.terminate)
        found = Watched(server, log, f"http://127.0.0.1:{ports['9090']}", processes)
        deadline = time.monotonic() + SECONDS
        while subprocess.run(asks, cwd=folder, capture_output=True).returncode:
            assert time.monotonic() < deadline, [path.read_text() for path in folder.glob("*.log")]
            time.sleep(0.2)
        yield found


@pytest.mark.slow
def test_no_panel_is_empty_where_a_run_is_scraped(watched: Watched) -> None:
    watched.until(watched.server.points)
    watched.server.inject(Fault("status", status=503, times=1))
    queries = {
        parameters.id: target["expr"] for parameters, (_, target) in zip(TARGETS, map(_values, TARGETS), strict=True)
    }
    empty = set(queries)

    def all_have_numbers() -> bool:
        empty.intersection_update({name for name in empty if not watched.query(queries[name])})
        return empty <= OF_OTHER_RUNS

    try:
        watched.until(all_have_numbers)
    finally:
        assert empty == OF_OTHER_RUNS


@pytest.mark.slow
def test_prometheus_alarms_of_what_happens_to_a_run(watched: Watched) -> None:
    """Dead letters, points that overwrite others, a route that stops; then of a server that is away."""

    def firing() -> set[tuple[str, str]]:
        alerts = watched.ask("alerts")["alerts"]
        return {
            (each["labels"]["alertname"], each["labels"].get("route", ""))
            for each in alerts
            if each["state"] == "firing"
        }

    expected = {("IggyfluxDeadLetters", "ovens"), ("IggyfluxCollisions", "ovens"), ("IggyfluxRouteStopped", "fails")}
    watched.until(lambda: expected <= firing())
    rules = [rule for group in watched.ask("rules")["groups"] for rule in group["rules"]]
    assert {rule["name"]: rule.get("lastError", "") for rule in rules} == dict.fromkeys(ALARMS, "")
    away = ("IggyfluxSinkAway", "ovens")
    watched.until(lambda: away not in firing())  # it may end what the test before has begun

    watched.server.down(SECONDS)
    watched.until(lambda: away in firing())
    (notes,) = [
        each["annotations"]
        for each in watched.ask("alerts")["alerts"]
        if each["labels"]["alertname"] == away[0] and each["labels"]["route"] == "ovens"
    ]
    assert watched.server.url in notes["description"]
