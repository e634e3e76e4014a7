"""The published deployment files: the factory example on a real server, compose, systemd and Kubernetes files."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from iggy_server import IggyServer, find_server
from pages import Terminal, blocks
from required_servers import not_found
from ruamel.yaml import YAML
from shell import process

from iggyflux.mapping import WriterMapping, load_mapping
from iggyflux.pipeline import Pipeline, TopicAddress, load_pipeline, parse_pipeline
from iggyflux.sim import SimServer
from iggyflux.telemetry.metrics import METRICS
from iggyflux.telemetry.server import Deadlines
from iggyflux.transports.iggy.connection import Connection

ROOT = Path(__file__).parents[1]
FACTORY = ROOT / "examples" / "factory"
DEPLOY = ROOT / "deploy"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[IggyServer]:
    found = find_server(tmp_path_factory.mktemp("iggy"))
    if isinstance(found, str):
        not_found("iggy", found)
    if not found.is_ours:
        pytest.skip("the example's streams have names of their own: it takes a server of our own")
    yield found
    found.close()


def test_the_factory_example_works_from_end_to_end(server: IggyServer, tmp_path: Path) -> None:
    """The commands of examples/factory/README.md, in order, except those that start and name the servers."""
    folder = shutil.copytree(FACTORY, tmp_path / "factory")
    server.create_topic("factory", "readings", 4)  # as send.py does where the server is as new as the SDK
    server.create_topic("factory", "dead-letters")
    start, *rest = [block["text"] for block in blocks(FACTORY / "README.md") if block["runs"]]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    with SimServer(2, database="plant", org="acme", token="factory-token") as sim:
        terminal = Terminal(folder, {"PATH": path, "IGGY_ADDRESS": server.tcp}, in_process=False)
        terminal.environment |= {"INFLUX_URL": sim.url, "INFLUX_TOKEN": "factory-token"}
        commands = [line.partition(" #")[0].rstrip() for line in "".join(rest).splitlines()]
        printed = [terminal.run(f"{command}; echo exit $?") for command in commands]
        points = sim.points()
    tested, sent, checked, looked, ran, replayed_dry, replayed = printed

    assert start.startswith("docker compose up")
    assert [each.splitlines()[-1] for each in (tested, sent, checked, ran)] == ["exit 0"] * 4, printed
    assert [each.splitlines()[-1] for each in (looked, replayed_dry, replayed)] == ["exit 1"] * 3, printed
    assert tested.splitlines()[-2] == "1 document, 2 examples: 2 passed"
    assert sent.splitlines()[0] == "sent 10000 messages to factory/readings"
    assert "no faults found" in checked
    assert "env,device=press-" in looked
    assert "10,000 messages, 9,900 points written, 10,000 acknowledged" in ran
    assert "100 kept as dead letters" in ran
    assert len(points) == 9_900
    assert "100 dead letters selected" in replayed_dry
    assert "100 failed again" in replayed


def test_send_py_connects_to_no_server_that_it_is_not_given() -> None:
    refused = subprocess.run([sys.executable, FACTORY / "send.py"], capture_output=True, env={}, text=True, check=False)

    assert (refused.returncode, refused.stdout) == (1, "")
    assert "IGGY_ADDRESS" in refused.stderr


@pytest.mark.parametrize("path", sorted((ROOT / "examples").rglob("pipeline*.yaml")), ids=lambda path: path.parent.name)
def test_pipelines_of_examples_have_no_default_for_a_server(path: Path) -> None:
    """An example never uses a server that happens to listen at the usual port."""
    assert re.findall(r"(?:url|address): .*(?:\d+\.\d+|localhost).*", path.read_text("utf-8")) == []


@pytest.mark.parametrize("path", [FACTORY / "compose.yaml"], ids=lambda path: path.name)
def test_a_compose_file_is_sound(path: Path) -> None:
    tree = load_all(path)[0]
    images = {name: service["image"] for name, service in tree["services"].items()}
    assert images == {"iggy": "apache/iggy:0.9.0", "influxdb2": "influxdb:2.7", "influxdb3": "influxdb:3-core"}
    named = {volume.split(":")[0] for service in tree["services"].values() for volume in service["volumes"]}
    assert named == set(tree["volumes"])


@pytest.mark.parametrize("path", [FACTORY / "compose.yaml", DEPLOY / "compose.yaml"], ids=lambda path: path.parent.name)
def test_docker_accepts_the_compose_file(path: Path) -> None:
    compose = compose_command()
    if compose is None:
        pytest.skip("there is neither `docker compose` nor `docker-compose` here")
    checked = subprocess.run([*compose, "-f", path, "config", "--quiet"], capture_output=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, b"")


def compose_command() -> list[str] | None:
    """Return the compose command: docker's plugin, or the older program."""
    for command in (["docker", "compose"], ["docker-compose"]):
        found = shutil.which(command[0])
        if found and not subprocess.run([*command, "version"], capture_output=True, check=False).returncode:
            return command
    return None


def test_the_kubernetes_file_runs_a_pipeline_that_is_sound(tmp_path: Path) -> None:
    config, deployment, _ = load_all(DEPLOY / "kubernetes.yaml")
    for name in ("iggy-password", "influx-token", "telemetry-token"):
        (tmp_path / name).write_text("secret")
    for name, text in config["data"].items():
        (tmp_path / name).write_text(text.replace("/run/secrets/iggyflux", str(tmp_path)))
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]

    pipeline = parse_pipeline(
        (tmp_path / "pipeline.yaml").read_bytes(), file=tmp_path / "pipeline.yaml", environ={"IGGY_USERNAME": "u"}
    )
    validated = process("validate", tmp_path / "pipeline.yaml", env={"IGGY_USERNAME": "u"})

    assert validated.code == 0, validated.err
    assert container["args"][:2] == ["run", "/etc/iggyflux/pipeline.yaml"]
    assert pod["terminationGracePeriodSeconds"] > pipeline.shutdown_timeout_seconds
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}


def test_kubernetes_accepts_the_file() -> None:
    import kubernetes_validate

    for resource in load_all(DEPLOY / "kubernetes.yaml"):
        kubernetes_validate.validate(resource, kubernetes_validate.latest_version(), strict=True)


def test_kubernetes_asks_the_run_and_restricts_it() -> None:
    config, deployment, budget = load_all(DEPLOY / "kubernetes.yaml")
    pipeline = YAML(typ="safe", pure=True).load(config["data"]["pipeline.yaml"])
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    (port,) = container["ports"]
    probes = {kind: container[f"{kind}Probe"] for kind in ("startup", "liveness", "readiness")}

    assert pipeline["telemetry"]["listen"] == f"0.0.0.0:{port['containerPort']}"
    asked = {kind: probe["httpGet"] for kind, probe in probes.items()}
    paths = {"startup": "/healthz", "liveness": "/healthz", "readiness": "/readyz"}
    assert asked == {kind: {"path": path, "port": port["name"]} for kind, path in paths.items()}
    assert all(probe["timeoutSeconds"] > Deadlines().alive for probe in probes.values())
    assert budget["spec"]["selector"] == deployment["spec"]["selector"]
    # the profile "restricted" of the pod security standards
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_keda_scales_by_a_metric_that_exists() -> None:
    (scaled,) = load_all(DEPLOY / "keda.yaml")
    _, deployment, _ = load_all(DEPLOY / "kubernetes.yaml")
    (trigger,) = scaled["spec"]["triggers"]
    query = trigger["metadata"]["query"]
    labels = {metric.name: set(metric.all_labels) for metric in METRICS}
    (name,) = re.findall(r"iggyflux_\w+", query)

    assert scaled["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    assert set(re.search(r"by \(([^)]*)\)", query)[1].split(", ")) == labels[name]  # type: ignore[index]


def test_the_whole_plant_in_one_file_uses_what_is_there() -> None:
    (tree,) = load_all(DEPLOY / "compose.yaml")
    services = tree["services"]
    prometheus = YAML(typ="safe", pure=True).load((DEPLOY / "prometheus" / "prometheus.yaml").read_text("utf-8"))
    command = json.loads(re.findall(r"^CMD (.*)$", (DEPLOY / "Dockerfile").read_text("utf-8"), re.MULTILINE)[0])
    mounted = [
        volume.split(":")[0] for each in services.values() for volume in each.get("volumes", ()) if volume[0] in "./"
    ]

    assert set(services) == {"iggy", "influxdb2", "influxdb3", "topics", "iggyflux", "prometheus", "grafana"}
    assert [path for path in mounted if not (DEPLOY / path).exists()] == []
    assert services["prometheus"]["network_mode"] == "service:iggyflux"
    assert services["iggyflux"]["image"].islower(), "else Docker refuses to build it"
    assert prometheus["scrape_configs"][0]["static_configs"] == [{"targets": [command[command.index("--listen") + 1]]}]
    ports = [port for each in services.values() for port in each.get("ports", ())]
    assert all(port.startswith("127.0.0.1:") for port in ports)
    assert (services["iggyflux"]["read_only"], services["iggyflux"]["cap_drop"]) == (True, ["ALL"])


def test_the_whole_plant_makes_the_topics_of_its_pipeline_first_and_keeps_its_state() -> None:
    (tree,) = load_all(DEPLOY / "compose.yaml")
    topics, run = tree["services"]["topics"], tree["services"]["iggyflux"]
    variables = {key: re.sub(r"\$\{\w+:-(.*)\}", r"\1", value) for key, value in run["environment"].items()}
    pipeline = load_pipeline(FACTORY / "pipeline.yaml", environ=variables)
    [volume] = [volume.split(":")[1] for volume in run["volumes"] if volume.startswith("iggyflux:")]
    needed = set()
    for route in pipeline.routes:
        mapping = load_mapping(route.mapping)
        assert isinstance(mapping, WriterMapping)
        assert isinstance(route.dead_letters, TopicAddress)
        needed |= {f"{mapping.writer.source.stream}/{topic}" for topic in mapping.writer.source.topics}
        needed.add(f"{route.dead_letters.stream}/{route.dead_letters.topic}")
    made = re.sub(r"\$\{\w+:-(.*)\}", r"\1", topics["command"]).split()

    assert {each.partition(":")[0] for each in made} == needed
    assert run["depends_on"]["topics"] == {"condition": "service_completed_successfully"}
    assert topics["image"] == run["image"]
    assert isinstance(pipeline.state, Path)
    assert pipeline.state.is_relative_to(volume)
    assert pipeline.names_state


def make_topics(address: str, *topics: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "IGGY_ADDRESS": address, "IGGY_PASSWORD": "iggy"}
    command = [sys.executable, DEPLOY / "topics.py", *topics]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=variables)


def test_topics_that_are_missing_are_made_and_others_are_left_alone(server: IggyServer) -> None:
    server.create_topic("quay", "berths", 4)

    made = make_topics(server.tcp, "quay/berths:2", "quay/tides:2")

    if made.returncode:  # a server newer than the SDK may refuse what this asks
        by_hand = "create it by hand: iggy topic create quay tides 2 none"
        assert made.stdout == "quay/berths is there\n"
        assert made.stderr.startswith("topics.py: Iggy: creating quay/tides: ")
        assert by_hand in made.stderr
    assert partitions(server, "berths") == 4
    assert made.returncode or partitions(server, "tides") == 2


def partitions(server: IggyServer, topic: str) -> int:
    async def count() -> int:
        connection = Connection(server.settings())
        await connection.open()
        found = await connection.partitions("quay", topic)
        await connection.close()
        return len(found or [])

    return asyncio.run(count())


def test_topics_that_cannot_be_made_say_why_in_a_line() -> None:
    missing = make_topics("127.0.0.1:1", "quay/berths:4")

    assert (missing.returncode, missing.stdout) == (1, "")
    assert missing.stderr == "topics.py: connecting to tcp://127.0.0.1:1: Cannot establish connection\n"


@pytest.mark.parametrize("word", ["quay", "quay/berths", "quay/berths:many", "/berths:1"])
def test_a_wrong_topic_is_named(word: str) -> None:
    refused = make_topics("127.0.0.1:1", "quay/tides:1", word)

    assert (refused.returncode, refused.stderr) == (1, f"topics.py: {word!r} is no STREAM/TOPIC:PARTITIONS\n")


def test_the_unit_file_gives_a_run_time_to_end() -> None:
    lines = dict(
        line.split("=", 1)
        for line in (DEPLOY / "iggyflux.service").read_text().splitlines()
        if "=" in line and line[0] != "#"
    )

    assert (lines["Type"], lines["NotifyAccess"]) == ("notify", "main")
    assert float(lines["WatchdogSec"]) > Deadlines().alive
    assert lines["ExecStart"].startswith("/opt/iggyflux/bin/iggyflux run ")
    assert float(lines["TimeoutStopSec"]) > Pipeline(routes=()).shutdown_timeout_seconds


def test_the_pipeline_of_the_unit_writes_only_where_the_unit_allows_it(tmp_path: Path) -> None:
    unit = (DEPLOY / "iggyflux.service").read_text()
    text = (DEPLOY / "pipeline.yaml").read_bytes()
    (tmp_path / "factory-env.yaml").touch()
    environ = {"IGGY_PASSWORD": "lambda", "INFLUX_TOKEN": "class"}
    pipeline = parse_pipeline(text, file=tmp_path / "pipeline.yaml", environ=environ)
    allowed = [Path("/var/lib") / match for match in re.findall(r"^StateDirectory=(.*)$", unit, re.MULTILINE)]

    assert [route.dead_letters.is_relative_to(allowed[0]) for route in pipeline.routes] == [True]  # type: ignore[union-attr]
    assert isinstance(pipeline.state, Path) and pipeline.state.is_relative_to(allowed[0])
    assert set(re.findall(r"--status-file (/run/\S+)/", unit)) == {"/run/iggyflux"}


def test_prometheus_asks_where_the_run_of_the_unit_listens() -> None:
    pipeline = load_all(DEPLOY / "pipeline.yaml")[0]
    [job] = load_all(DEPLOY / "prometheus" / "prometheus.yaml")[0]["scrape_configs"]

    assert job["static_configs"] == [{"targets": [pipeline["telemetry"]["listen"]]}]
    assert " --listen " not in (DEPLOY / "iggyflux.service").read_text(), "it would be stronger than the pipeline"


def test_the_unit_exposes_little_of_the_machine() -> None:
    """Its score is from 0 to 10; it needs the network, and two folders."""
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("needs systemd-analyze")
    unit = str(DEPLOY / "iggyflux.service")
    done = subprocess.run([program, "security", "--offline=true", unit], capture_output=True, text=True, check=False)
    score = re.search(r"exposure level for iggyflux.service: ([0-9.]+)", done.stdout)

    assert score, done.stderr
    assert float(score[1]) <= 3


def load_all(path: Path) -> list[Any]:
    return list(YAML(typ="safe", pure=True).load_all(path.read_text("utf-8")))
