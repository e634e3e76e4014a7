"""The fallback of generated code: a fault costs time, never data, and is always reported."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from shell import iggyflux

from iggyflux import Message, parse_mapping
from iggyflux.mapping import WriterMapping
from iggyflux.plan import compiled, reader_compiled
from iggyflux.records import Row
from iggyflux.runner import Route, Stop, run_routes
from iggyflux.runner.build import SinkPlan
from iggyflux.transports.local.memory import CollectingDeadLetters, ImmediateClock, ScriptedSink, ScriptedSource, batch

pytestmark = pytest.mark.fallback

WRITER = """\
iggyflux: 1
kind: writer
name: pump
from: {stream: s, topic: t}
points: {measurement: {const: m}, fields: {flow: flow}, timestamp: {expr: at, format: unix_s}}
"""
READER = """\
iggyflux: 1
kind: reader
name: pump-rows
from: {measurement: m}
to: {stream: s, topic: t}
messages: {payload: "{flow: flow}"}
"""
MESSAGES = [Message(b'{"flow":1,"at":1}'), Message(b'{"flow":"secret-in-a-payload","at":2}')]
ROWS = [Row(columns={"time": 1, "flow": 2.5}, measurement="m")]


def explode(*_: object) -> Any:
    raise NameError("secret-in-a-payload")


def break_running(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let generated code raise when it runs."""
    monkeypatch.setattr(compiled.CompiledPlan, "_assemble", explode)
    monkeypatch.setattr(reader_compiled.CompiledReaderPlan, "_render", explode)


def break_generating(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let generating code fail."""
    monkeypatch.setattr(compiled, "generate", explode)
    monkeypatch.setattr(reader_compiled._ReaderGenerator, "source", explode)


def break_source(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the generated source be no Python."""
    real = compiled.generate
    monkeypatch.setattr(
        compiled, "generate", lambda *given: compiled.Generated("def render(:", real(*given).namespace, True, ())
    )
    monkeypatch.setattr(reader_compiled._ReaderGenerator, "source", lambda _: "def item_0(:")


BREAKS = pytest.mark.parametrize("broken", [break_running, break_generating, break_source])


@BREAKS
def test_the_reference_plan_renders_what_generated_code_cannot(
    broken: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lines, failures and messages are those of the reference plan; the fault is named without a value."""
    broken(monkeypatch)
    writer, reader = parse_mapping(WRITER), parse_mapping(READER)
    lines, messages = writer.plan().render(MESSAGES), reader.plan().render(ROWS)

    assert lines.lines == ["m flow=1.0 1000000000"]
    assert [failure.code for failure in lines.failures] == ["IFX340"]
    assert [message.payload for message in messages.messages] == [b'{"flow":2.5}']
    for rendered in (lines, messages):
        assert rendered.fallback is not None
        assert " in line " in rendered.fallback
        assert "secret" not in rendered.fallback


@BREAKS
def test_a_run_counts_every_fallback_and_logs_the_first(
    broken: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is lost; the status has the count."""
    broken(monkeypatch)
    mapping, sink = parse_mapping(WRITER), ScriptedSink()
    assert isinstance(mapping, WriterMapping)
    source = ScriptedSource([batch([MESSAGES[0].payload]), batch([MESSAGES[0].payload], offset=1)])
    route = Route(
        name="r",
        source=source,
        plan=SinkPlan(mapping, sink, "ns"),
        sink=sink,
        dead_letters=CollectingDeadLetters(),
        mapping="pump",
    )
    with caplog.at_level(logging.ERROR):
        summary = asyncio.run(run_routes([route], stop=Stop(), clock=ImmediateClock(), tick_seconds=None))
    status = summary.routes[0]

    assert status.acknowledged == 2
    assert status.as_dict()["fallbacks"] == 2
    assert [record.getMessage().split()[0] for record in caplog.records] == ["plan.fallback"]
    assert "mapping=pump" in caplog.text


@BREAKS
def test_check_and_dry_run_report_a_plan_that_always_falls_back(
    broken: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`check` fails; `dry-run` prints the lines and a warning."""
    (tmp_path / "pump.yaml").write_text(WRITER)
    (tmp_path / "data").mkdir()
    pipeline = tmp_path / "pipeline.yaml"
    pipeline.write_text(f"iggyflux: 1\nrun: [{{mapping: pump.yaml, from: 'log:{tmp_path}/data', to: stdout}}]\n")
    samples = tmp_path / "samples.ndjson"
    samples.write_bytes(MESSAGES[0].payload + b"\n")

    assert "generated code fails" not in iggyflux("check", pipeline).out
    broken(monkeypatch)
    checked = iggyflux("check", pipeline)
    dry = iggyflux("dry-run", tmp_path / "pump.yaml", samples)

    assert checked.code == 1
    assert "IFX699" in checked.out
    assert dry.out == "m flow=1.0 1000000000\n"
    assert "a bug in iggyflux" in dry.err
