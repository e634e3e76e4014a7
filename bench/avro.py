"""Avro: rendering of the document of eight values against fastavro and attribute access by hand, in one run."""

from __future__ import annotations

import io
import json
import time
from typing import Any, Final

import fastavro

from bench.plan import EIGHT, eight, messages, writer
from bench.table import Figure, best_seconds, show
from iggyflux import Message
from iggyflux.payloads import FORMATS
from iggyflux.plan.compiled import CompiledPlan

SCHEMA: Final[dict[str, Any]] = {
    "type": "record",
    "name": "Reading",
    "namespace": "factory",
    "fields": [
        {
            "name": "device",
            "type": {
                "type": "record",
                "name": "Device",
                "fields": [{"name": "id", "type": "string"}, {"name": "site", "type": "string"}],
            },
        },
        *({"name": name, "type": "double"} for name in ("celsius", "humidity", "pressure")),
        {"name": "count", "type": "long"},
        {"name": "state", "type": "string"},
        {"name": "ts", "type": "long"},
    ],
}
GOAL: Final = 2.5


def by_hand(payloads: list[bytes]) -> list[tuple[Any, ...]]:
    """Return the eight values of each payload, as a script reads them."""
    read, schema = fastavro.schemaless_reader, fastavro.parse_schema(SCHEMA)
    found = []
    for payload in payloads:
        it: Any = read(io.BytesIO(payload), schema, None)
        device = it["device"]
        first = device["id"], device["site"], it["celsius"], it["humidity"]
        found.append((*first, it["pressure"], it["count"], it["state"], it["ts"]))
    return found


def lines_by_hand(payloads: list[bytes]) -> list[str]:
    """Return a line of each payload, in which nothing is escaped."""
    return [
        f"env,device={device},site={site} count={count}i,humidity={humidity},pressure={pressure},"
        f'state="{state}",temperature={celsius} {ts}000000'
        for device, site, celsius, humidity, pressure, count, state, ts in by_hand(payloads)
    ]


def main() -> None:
    in_json = messages(eight, 2_000)
    payloads = [FORMATS["avro"].encode(json.loads(each.payload), {"schema": SCHEMA}) for each in in_json]
    batch = [Message(payload, stream="factory", topic="readings") for payload in payloads]
    of = writer(EIGHT.replace("payload: json", f"payload: {{format: avro, schema: {json.dumps(SCHEMA)}}}"))
    plan = of.plan()
    assert isinstance(plan, CompiledPlan)
    assert plan.reason is None
    assert list(plan.render(batch).lines) == list(writer(EIGHT).plan().render(in_json).lines)
    assert list(plan.render(batch).lines) == lines_by_hand(payloads)
    hand, lines, decoding, rendering = best_seconds(
        [
            lambda: by_hand(payloads),
            lambda: lines_by_hand(payloads),
            lambda: plan.decode(batch),
            lambda: plan.render(batch),
        ],
        25,
        time.process_time,
    )
    against = "fastavro and access by hand"
    each = 1e6 / len(batch)
    show(
        "avro, eight values",
        [
            Figure("fastavro and access by hand", hand * each, "µs/msg"),
            _row("decoding", decoding * each, against, decoding / hand),
            _row("decoding and rendering", rendering * each, against, rendering / hand),
            _row("decoding and rendering", rendering * each, "the same, and an f-string", rendering / lines),
        ],
    )


def _row(name: str, value: float, against: str, ratio: float) -> Figure:
    return Figure(name, value, "µs/msg", against, ratio, f"≤ {GOAL}", ratio <= GOAL)


if __name__ == "__main__":
    main()
