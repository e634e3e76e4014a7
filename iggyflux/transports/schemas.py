"""Plans that read schemas of a registry: it is asked for the ids of a batch before the batch is rendered.

So a plan stays a function of the message and of what it looks up: an id never gets another schema.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from iggyflux.errors import DecodeError
from iggyflux.mapping import Writer, WriterMapping
from iggyflux.payloads import expand
from iggyflux.payloads.avro.known import ids_of
from iggyflux.pipeline import Pipeline
from iggyflux.records import Message, Rendered, payloads_of
from iggyflux.spec import Payload

if TYPE_CHECKING:
    from iggyflux.transports.registry import SchemaRegistry


def asks_registry(writer: Writer) -> bool:
    """Return whether schemas of a registry decide what a writer makes of a message."""
    return writer.source.payload.options.get("schema_registry") is True


def registry_of(
    mapping: WriterMapping, pipeline: Pipeline | None, opened: SchemaRegistry | None = None
) -> SchemaRegistry | None:
    """Return the registry of the pipeline if the mapping asks one; `opened` if that is there."""
    if pipeline is None or pipeline.schema_registry is None or not asks_registry(mapping.writer):
        return None
    from iggyflux.transports.registry import SchemaRegistry  # HTTP, which most commands do not need

    return opened or SchemaRegistry(pipeline.schema_registry)


def looking_up(mapping: WriterMapping, registry: SchemaRegistry | None) -> WriterMapping:
    """Return the mapping with what is known to the registry as a part of it; its identity stays."""
    if registry is None:
        return mapping
    source = mapping.writer.source
    payload = replace(source.payload, options={**source.payload.options, "known": registry.known})
    return replace(mapping, writer=replace(mapping.writer, source=replace(source, payload=payload)))


def learn(registry: SchemaRegistry | None, messages: Sequence[Message], payload: Payload) -> None:
    """Ask the registry for what these messages need.  Blocks.  Raise `NotConnected` or `Stopped`."""
    if registry is not None:
        payloads = payloads_of(messages)
        ids = ids_of(payloads if payload.compression == "none" else _expanded(payloads, payload.compression))
        schemas = payload.options.get("schemas")
        registry.learn(ids.difference(map(int, schemas)) if isinstance(schemas, dict) else ids)


def _expanded(payloads: Sequence[bytes], compression: str) -> Iterator[bytes]:
    """Yield what payloads expand to; the plan tells which cannot be expanded."""
    for payload in payloads:
        with suppress(DecodeError):
            yield expand(payload, compression)


class AskingPlan:
    """A plan that asks a registry before it renders; for commands, which may wait."""

    def __init__(
        self, mapping: WriterMapping, registry: SchemaRegistry | None, plan: Any = "compiled", **run: Any
    ) -> None:
        """`plan` and `run` are the arguments of `WriterMapping.plan`."""
        self._plan = looking_up(mapping, registry).plan(plan, **run)
        self._registry = registry
        self._payload = mapping.writer.source.payload
        self.precision = self._plan.precision

    def render(self, messages: Sequence[Message]) -> Rendered:
        """Return what the plan renders.  Raise `NotConnected` or `Stopped` if the registry is not there."""
        learn(self._registry, messages, self._payload)
        rendered: Rendered = self._plan.render(messages)
        return rendered
