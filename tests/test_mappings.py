"""The published mappings and examples: each compiles, passes its own tests, and renders its own samples."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource

from iggyflux import Message, load_mapping
from iggyflux.authoring.examples import run_examples
from iggyflux.authoring.samples import Coordinates, read_rows, read_samples
from iggyflux.documents import parse_document
from iggyflux.documents.nodes import Style
from iggyflux.lineprotocol import parse_lines
from iggyflux.payloads.protobuf.protoc import descriptors_of
from tests.shell import iggyflux

ROOT = Path(__file__).parent.parent
READY = sorted((ROOT / "mappings").glob("*.yaml"))
WRITERS = [path for path in READY if load_mapping(path).kind == "writer"]
READERS = [path for path in READY if path not in WRITERS]


@pytest.mark.parametrize("path", READY, ids=lambda path: path.stem)
def test_a_ready_mapping_has_no_problem_and_passes_its_examples(path):
    """It has no warning either, and has examples."""
    mapping = load_mapping(path)
    results = run_examples(mapping)

    assert (mapping.warnings, mapping.name) == ((), path.stem)
    assert len(results) > 0
    assert [result for result in results if result.differences] == []


@pytest.mark.parametrize("path", WRITERS, ids=lambda path: path.stem)
def test_a_ready_mapping_renders_its_samples(path):
    """Samples are realistic messages; none of them fails, and both plans agree on them."""
    samples = path.parent / "samples" / f"{path.stem}.ndjson"
    mapping = load_mapping(path)
    envelope = '"payload' in samples.read_text().split("\n", 1)[0][:12]
    with samples.open("rb") as lines:
        found = list(read_samples(lines, Coordinates.of(mapping.writer.source), envelope=envelope))
    messages = [sample.message for sample in found]
    rendered = mapping.plan().render(messages)

    assert messages and rendered.lines
    assert list(rendered.failures) == []
    assert list(rendered.lines) == list(mapping.plan("reference").render(messages).lines)


@pytest.mark.parametrize("path", sorted((ROOT / "mappings/schemas").glob("*.proto")), ids=lambda path: path.stem)
def test_a_descriptor_is_what_the_proto_beside_it_says(path):
    compiled = descriptors_of(path.name, lambda _name, _option: path.read_bytes())

    assert FileDescriptorSet.FromString(path.with_suffix(".binpb").read_bytes()) == FileDescriptorSet.FromString(
        compiled
    )


def test_the_schema_of_otlp_is_that_of_opentelemetry():
    """Each field of ours has the number, the type and the name of theirs; what ours lacks is not mapped."""
    mapping = load_mapping(ROOT / "mappings/otlp-metrics.yaml")
    pairs = [(mapping.writer.source.payload.options["compiled"].descriptor, ExportMetricsServiceRequest.DESCRIPTOR)]
    lacking, done = set(), set()
    for ours, theirs in pairs:  # the list grows
        for field in theirs.fields:
            own = ours.fields_by_number.get(field.number)
            if own is None:
                lacking.add(field.name)
                continue
            facts = [(each.name, each.type, each.is_repeated, each.has_presence) for each in (own, field)]
            assert facts[0] == facts[1]
            if own.message_type is not None and own.message_type.full_name not in done:
                done.add(own.message_type.full_name)
                pairs.append((own.message_type, field.message_type))
        assert {each.number for each in ours.fields} <= {each.number for each in theirs.fields}

    assert lacking <= {"exemplars", "entity_refs", "string_value_strindex", "key_strindex"}
    assert len(done) > 15


def test_what_an_sdk_exports_is_rendered():
    """An SDK makes one metric of each of its kinds; all values are in the lines."""
    reader = InMemoryMetricReader()
    exponential = View(instrument_name="wait", aggregation=ExponentialBucketHistogramAggregation())
    provider = MeterProvider([reader], Resource({"service.name": "kiln", "replica": 3}), views=[exponential])
    meter = provider.get_meter("pottery", attributes={"site": "north"})
    meter.create_counter("fired").add(7, {"glaze": "ash"})
    meter.create_up_down_counter("queued").add(-2.5)
    meter.create_gauge("cone").set(9)
    for value in (1, 6, 700):
        meter.create_histogram("soak", unit="min").record(value)
        meter.create_histogram("wait").record(value)
    payload = encode_metrics(reader.get_metrics_data()).SerializeToString()
    provider.shutdown()
    rendered = load_mapping(ROOT / "mappings/otlp-metrics.yaml").plan().render([Message(payload)])

    points = {point.measurement: point for line in rendered.lines for point in parse_lines(line)}
    own = {"service.name": "kiln", "replica": "3", "site": "north"}
    assert list(rendered.failures) == []
    assert points["fired"].fields == {"integer": 7}
    assert points["fired"].tags.items() >= {**own, "glaze": "ash", "temporality": "CUMULATIVE"}.items()
    assert points["queued"].fields == {"value": -2.5}
    assert points["cone"].fields == {"integer": 9}
    soak = points["soak"].fields
    assert (soak["count"], soak["sum"], soak["min"], soak["max"]) == (3, 707.0, 1.0, 700.0)
    assert {key: soak[key] for key in soak if key.startswith("bucket") and soak[key]} == {
        "bucket_5.0": 1,
        "bucket_10.0": 1,
        "bucket_750.0": 1,
    }
    wait = points["wait"].fields
    base = 2**2 ** -wait["scale"]
    buckets = {
        int(key.removeprefix("positive_")): wait[key] for key in wait if key.startswith("positive_") and wait[key]
    }
    assert [math.ceil(math.log(value, base)) - 1 for value in (1, 6, 700)] == sorted(buckets)


@pytest.mark.parametrize("plan", ["compiled", "reference"])
def test_a_value_that_is_not_finite_costs_an_export_only_that_value(plan):
    """A point without a time, which is 0 there, has that of its message."""
    export = ExportMetricsServiceRequest()
    metrics = export.resource_metrics.add().scope_metrics.add().metrics
    levels = metrics.add(name="level").gauge.data_points
    for value, time in ((1.5, 7), (math.nan, 8), (-math.inf, 9), (2.5, 10), (3.5, 0)):
        levels.add(as_double=value, time_unix_nano=time)
    metrics.add(name="soak").histogram.data_points.add(count=3, sum=math.nan, min=0.5, time_unix_nano=11)
    message = Message(export.SerializeToString(), timestamp_us=1_000_000)
    rendered = load_mapping(ROOT / "mappings/otlp-metrics.yaml").plan(plan).render([message])

    assert list(rendered.failures) == []
    assert [(line.split(" ")[1], line.split(" ")[2]) for line in rendered.lines] == [
        ("value=1.5", "7"),
        ("value=2.5", "10"),
        ("value=3.5", "1000000000"),
        ("count=3i,min=0.5", "11"),
    ]


@pytest.mark.parametrize("plan", ["compiled", "reference"])
@pytest.mark.parametrize(
    ("point", "line"),
    [
        ({"asDouble": "NaN"}, None),
        ({"asDouble": "-Infinity"}, None),
        ({"asDouble": math.nan}, None),
        ({"asDouble": 1, "flags": 1}, None),
        ({}, None),
        ({"asDouble": 0}, "level value=0.0 7"),
        ({"asDouble": "2.5"}, "level value=2.5 7"),
        ({"asInt": "9007199254740993"}, "level integer=9007199254740993i 7"),
        ({"asInt": -9, "flags": 2}, "level integer=-9i 7"),
        ({"asInt": 1, "timeUnixNano": 8}, "level integer=1i 8"),
        ({"asInt": 1, "timeUnixNano": "0"}, "level integer=1i 1000000000"),
        ({"asInt": 1, "timeUnixNano": None}, "level integer=1i 1000000000"),
        ({"asInt": 1, "attributes": [{"key": "cpu", "value": {"intValue": "3"}}]}, "level,cpu=3 integer=1i 7"),
    ],
    ids=str,
)
def test_otlp_in_json_has_numbers_as_its_producers_write_them(plan, point, line):
    """A point that gives nothing costs its export nothing else, as do kinds of metric that are not mapped."""
    points = [{"timeUnixNano": "7", **point}, {"timeUnixNano": "9", "asInt": 5}]
    others = [{"name": "wait", "exponentialHistogram": {"dataPoints": [{"count": "3"}]}}, {"name": "none", "sum": {}}]
    metrics = [{"name": "level", "gauge": {"dataPoints": points}}, *others]
    export = {"resourceMetrics": [{"scopeMetrics": [{"metrics": metrics}]}]}
    message = Message(json.dumps(export).encode(), timestamp_us=1_000_000)
    rendered = load_mapping(ROOT / "mappings/otel-metrics.yaml").plan(plan).render([message])

    assert list(rendered.failures) == []
    assert list(rendered.lines) == [*([line] if line else []), "level integer=5i 9"]


@pytest.mark.parametrize("path", READERS, ids=lambda path: path.stem)
def test_a_ready_reader_renders_its_rows(path):
    """None of them fails, and both plans agree on them."""
    mapping = load_mapping(path)
    with (path.parent / "samples" / f"{path.stem}.ndjson").open("rb") as lines:
        rows = [sample.row for sample in read_rows(lines, form="jsonl", measurement="env")]
    rendered = mapping.plan().render(rows)

    assert rows and rendered.messages
    assert list(rendered.failures) == []
    assert list(rendered.messages) == list(mapping.plan("reference").render(rows).messages)


def published_documents():
    """Yield every published mapping document: files, starters, and the blocks of pages."""
    files = [*READY, *ROOT.glob("examples/*/*.yaml"), *ROOT.glob("iggyflux/cli/starters/*.yaml")]
    for path in files:
        if "\nkind:" in path.read_text():
            yield pytest.param(path.read_text(), id=str(path.relative_to(ROOT)))
    for page in [ROOT / "README.md", *ROOT.glob("docs/*.md")]:
        for number, block in enumerate(re.findall(r"^```yaml\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)):
            if "\nkind:" in block and "{first: xs[0]}" not in block:  # the page on this rule shows the mistake
                yield pytest.param(block, id=f"{page.relative_to(ROOT)}-{number}")


def expressions(pointer, node):
    """Yield the pointers of expressions: `expr`, conditions, measurements, strings among tags and fields."""
    if isinstance(node, dict):
        for key, value in node.items():
            here = f"{pointer}/{key.replace('~', '~0').replace('/', '~1')}"
            inside = pointer.rsplit("/", 1)[-1] in ("tags", "fields", "headers")
            if key == "for_each" and value in ("row", "series", "window"):
                continue
            if isinstance(value, str) and (key in ("expr", "where", "for_each", "measurement") or inside):
                yield here
            elif key not in ("examples", "from"):
                yield from expressions(here, value)
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from expressions(f"{pointer}/{index}", value)


@pytest.mark.parametrize("text", list(published_documents()))
def test_published_expressions_are_quoted(text):
    """Rule 2.  A copied expression remains valid when a user adds a bracket."""
    document = parse_document(text, format="yaml")
    plain = [p for p in expressions("", document.tree) if document.node(p).style is Style.PLAIN]

    assert plain == []


def test_the_index_tells_how_to_try_each_ready_mapping():
    """Its two commands run, and each mapping is in it; that it is current, test_docs sees."""
    index = (ROOT / "mappings/README.md").read_text("utf-8")
    commands = [line.removeprefix("$ iggyflux ").split() for line in index.splitlines() if line.startswith("$ ")]
    root = f"{ROOT}/"

    assert [f"[{path.stem}]({path.name})" for path in READY if f"[{path.stem}]({path.name})" not in index] == []
    assert len(commands) == 2
    for command in commands:
        done = iggyflux(*(f"{root}{word}" if word.startswith("mappings/") else word for word in command))
        assert (done.code, bool(done.out)) == (0, True), done.err
