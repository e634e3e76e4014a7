"""Rendering: the compiled plan against a script by hand, the bare typed decode, and the reference plan."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from functools import partial

import jmespath
import msgspec
from influxdb_client import Point, WritePrecision

from bench.table import Figure, best_seconds, show
from iggyflux import Message, parse_mapping
from iggyflux.mapping import WriterMapping

COUNT = 5_000

EIGHT = """
iggyflux: 1
kind: writer
name: eight
from: {stream: factory, topic: readings, payload: json}
points:
  - measurement: {const: env}
    tags: {device: device.id, site: device.site}
    fields:
      temperature: celsius
      humidity: humidity
      pressure: pressure
      count: {expr: count, type: integer}
      state: {expr: state, type: string}
    timestamp: {expr: ts, format: unix_ms}
"""

TEN = """
iggyflux: 1
kind: writer
name: ten
from: {stream: factory, topic: readings, payload: json}
for_each: 'readings[]'
points:
  - measurement: {const: env}
    tags: {device: root().device.id}
    fields:
      temperature: celsius
      count: {expr: count, type: integer}
    timestamp: {expr: ts, format: unix_ms}
"""

FLATTEN = """
iggyflux: 1
kind: writer
name: flat
from: {stream: factory, topic: readings, payload: json}
points:
  - measurement: {const: env}
    tags: {device: device.id}
    fields: {"*": {expr: "@", flatten: "_"}}
    timestamp: {expr: ts, format: unix_ms}
"""

DYNAMIC_TAGS = """
iggyflux: 1
kind: writer
name: labels
from: {stream: factory, topic: readings, payload: json}
points:
  - measurement: {const: env}
    tags: {"*": labels}
    fields: {temperature: celsius, humidity: humidity}
    timestamp: {expr: ts, format: unix_ms}
"""


def messages(make: Callable[[random.Random, int], object], count: int = COUNT) -> list[Message]:
    """Return `count` messages that `make` returns for a random source and a number."""
    source = random.Random(7)
    return [
        Message(
            json.dumps(make(source, number), separators=(",", ":")).encode(),
            stream="factory",
            topic="readings",
            offset=number,
        )
        for number in range(count)
    ]


def eight(source: random.Random, number: int) -> dict[str, object]:
    return {
        "device": {"id": f"dev-{source.randrange(200):03}", "site": source.choice(["berlin", "lyon", "porto"])},
        "celsius": round(source.uniform(-20, 40), 2),
        "humidity": round(source.uniform(10, 95), 1),
        "pressure": round(source.uniform(960, 1040), 3),
        "count": source.randrange(100_000),
        "state": source.choice(["ok", "warn", "stopped"]),
        "ts": 1_700_000_000_000 + number * 10,
    }


def ten(source: random.Random, number: int) -> dict[str, object]:
    readings = [
        {
            "celsius": round(source.uniform(-20, 40), 2),
            "count": source.randrange(1000),
            "ts": 1_700_000_000_000 + number * 100 + i,
        }
        for i in range(10)
    ]
    return {"device": {"id": f"dev-{source.randrange(200):03}"}, "readings": readings}


def labels(source: random.Random, number: int) -> dict[str, object]:
    return {
        "labels": {"host": f"h{source.randrange(50)}", "region": "eu", "az": source.choice("abc")},
        "celsius": round(source.uniform(-20, 40), 2),
        "humidity": round(source.uniform(10, 95), 1),
        "ts": 1_700_000_000_000 + number * 10,
    }


PATHS = {name: jmespath.compile(text) for name, text in {
    "device": "device.id", "site": "device.site", "temperature": "celsius", "humidity": "humidity",
    "pressure": "pressure",
    "count": "count", "state": "state", "ts": "ts",
}.items()}  # fmt: skip


def by_hand(payload: bytes) -> str:
    """What users write: json, jmespath, influxdb-client."""
    document = json.loads(payload)
    point = Point("env")
    point.tag("device", PATHS["device"].search(document)).tag("site", PATHS["site"].search(document))
    for name in ("temperature", "humidity", "pressure", "count", "state"):
        point.field(name, PATHS[name].search(document))
    point.time(PATHS["ts"].search(document) * 1_000_000, WritePrecision.NS)
    return str(point.to_line_protocol())


class Device(msgspec.Struct):
    id: str
    site: str


class Reading(msgspec.Struct):
    device: Device
    celsius: float
    humidity: float
    pressure: float
    count: int
    state: str
    ts: int


def writer(text: str) -> WriterMapping:
    """Return the mapping in `text`, which is a writer."""
    mapping = parse_mapping(text)
    assert isinstance(mapping, WriterMapping)
    return mapping


def main() -> None:
    batch = messages(eight)
    payloads = [message.payload for message in batch]
    mapping = writer(EIGHT)
    compiled, reference = mapping.plan(), mapping.plan("reference")
    assert list(compiled.render(batch).lines) == list(reference.render(batch).lines)
    assert sorted(by_hand(payloads[0]).split(" ")[1].split(",")) == sorted(
        compiled.render(batch[:1]).lines[0].split(" ")[1].split(",")
    )
    decode = msgspec.json.Decoder(Reading).decode
    hand, bare, fast, slow = best_seconds(
        [
            lambda: [by_hand(payload) for payload in payloads[:500]],
            lambda: [decode(payload) for payload in payloads],
            lambda: compiled.render(batch),
            lambda: reference.render(batch[:500]),
        ]
    )
    micro = 1e6 / COUNT
    hand, slow = hand * 10, slow * 10
    figures = [
        Figure("by hand (json, jmespath, influxdb-client)", hand * micro, "µs/msg"),
        Figure("typed decode alone", bare * micro, "µs/msg"),
        Figure("compiled plan", fast * micro, "µs/msg", "by hand, faster", hand / fast, "≥ 15", hand / fast >= 15),
        Figure("compiled plan", fast * micro, "µs/msg", "the decode", fast / bare, "≤ 5.5", fast / bare <= 5.5),
        Figure("reference plan", slow * micro, "µs/msg", "compiled", slow / fast),
    ]
    for name, text, make in (
        ("for_each of 10", TEN, ten),
        ("flatten", FLATTEN, eight),
        ("dynamic tags", DYNAMIC_TAGS, labels),
    ):
        sample = messages(make, 1_000)
        other = writer(text)
        one, two = other.plan(), other.plan("reference")
        assert list(one.render(sample).lines) == list(two.render(sample).lines), name
        points = len(one.render(sample).lines)
        quick, plain = best_seconds([partial(one.render, sample), partial(two.render, sample[:200])], 5)
        figures.append(
            Figure(f"{name}: compiled", quick * 1e6 / points, "µs/line", "reference, faster", plain * 5 / quick)
        )
    show("rendering, a batch of 5,000", figures)


if __name__ == "__main__":
    main()
