"""Protobuf payloads of eight values: decoding, and rendering too, against the library and attribute access by hand."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from bench.plan import COUNT, EIGHT
from bench.table import Figure, best_seconds, show
from iggyflux import Message, load_mapping
from iggyflux.plan.compiled import CompiledPlan
from iggyflux.plan.reference import ReferencePlan

_FIELDS = {"id": 9, "site": 9, "celsius": 1, "humidity": 1, "pressure": 2, "count": 4, "state": 9, "ts": 3}
"""The types of FieldDescriptorProto: string, double, float, uint64, int64."""


def _descriptors() -> descriptor_pb2.FileDescriptorSet:
    file = descriptor_pb2.FileDescriptorProto(name="eight.proto", package="bench", syntax="proto3")
    message = file.message_type.add(name="Eight")
    for number, (name, kind) in enumerate(_FIELDS.items(), 1):
        message.field.add(name=name, number=number, type=kind, label=1)
    return descriptor_pb2.FileDescriptorSet(file=[file])


def main() -> None:
    descriptors = _descriptors()
    pool = descriptor_pool.DescriptorPool()
    pool.Add(descriptors.file[0])
    eight: Any = message_factory.GetMessageClass(pool.FindMessageTypeByName("bench.Eight"))
    payloads = [
        eight(
            id=f"dev-{n % 500}",
            site=f"hall-{n % 7}",
            celsius=20 + n % 97 / 16,
            humidity=40 + n % 11 / 8,
            pressure=1013.25,
            count=n * 17,
            state="running",
            ts=1_750_000_000_000 + n,
        ).SerializeToString()
        for n in range(COUNT)
    ]

    def by_hand(payload: bytes) -> tuple[object, ...]:
        got = eight()
        got.ParseFromString(payload)
        return got.id, got.site, got.celsius, got.humidity, got.pressure, got.count, got.state, got.ts

    def line_by_hand(payload: bytes) -> str:
        got = eight()
        got.ParseFromString(payload)
        fields = f'count={got.count}i,humidity={got.humidity},pressure={got.pressure},state="{got.state}"'
        return f"env,device={got.id},site={got.site} {fields},temperature={got.celsius} {got.ts}000000"

    with TemporaryDirectory() as folder:
        Path(folder, "eight.binpb").write_bytes(descriptors.SerializeToString())
        source = "{format: protobuf, descriptor: eight.binpb, message: bench.Eight}"
        text = EIGHT.replace("payload: json", f"payload: {source}").replace("device.", "")
        Path(folder, "eight.yaml").write_text(text)
        mapping = load_mapping(Path(folder, "eight.yaml"))
    plan, reference = mapping.plan(), mapping.plan("reference")
    messages = [Message(payload, offset=number) for number, payload in enumerate(payloads)]
    assert isinstance(plan, CompiledPlan)
    assert plan.reason is None, plan.reason
    rendered = plan.render(messages)
    assert isinstance(reference, ReferencePlan)
    assert rendered == reference.render(messages)
    assert list(rendered.lines) == list(map(line_by_hand, payloads))
    decode, render, bare, lines = best_seconds(
        [
            lambda: plan.decode(messages),
            partial(plan.render, messages),
            lambda: list(map(by_hand, payloads)),
            lambda: list(map(line_by_hand, payloads)),
        ],
        15,
        time.process_time,
    )
    against, written = "ParseFromString and attributes by hand", "the same, and an f-string that escapes nothing"
    show(
        "protobuf payloads of eight values",
        [
            Figure("decoding", decode * 1e6 / COUNT, "µs", against, decode / bare, "≤ 2.5", decode / bare <= 2.5),
            Figure("decoding and rendering", render * 1e6 / COUNT, "µs/line", against, render / bare),
            Figure(
                "decoding and rendering",
                render * 1e6 / COUNT,
                "µs/line",
                written,
                render / lines,
                "≤ 2.5",
                render / lines <= 2.5,
            ),
        ],
    )


if __name__ == "__main__":
    main()
