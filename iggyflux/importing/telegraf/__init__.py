"""Telegraf's configuration: inputs become mappings, processors change their points, outputs become the pipeline.

An input is only what carried the payload: here it is a topic of Apache Iggy.  `formats` and `json_v2` read payloads,
`processors` and `filters` change points, and `outputs` writes the pipeline.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Final

from iggyflux.errors import IggyfluxError
from iggyflux.importing import Documents, Options
from iggyflux.importing.configuration import Configuration, Part, with_variables
from iggyflux.importing.draft import Draft, Tree
from iggyflux.importing.influxdb import IGGY, IGGY_COMMENT
from iggyflux.importing.names import slug
from iggyflux.importing.report import Verdict
from iggyflux.importing.telegraf import carriers, filters, metric, outputs, processors
from iggyflux.importing.telegraf.formats import PARSERS, Parsed
from iggyflux.payloads import FORMATS
from iggyflux.records import JSON, Message

_PATTERNS: Final = ("pattern", "replacement", "grok_patterns", "grok_custom_patterns")
_CONNECTIONS: Final = (
    "servers",
    "brokers",
    "username",
    "password",
    "sasl_username",
    "sasl_password",
    "topics",
    "files",
)
"""Keys whose values are not written into a mapping, or in which `$` means something else."""
_ENCODINGS: Final = frozenset({"gzip", "zlib", "zstd", "auto"})
_AGENT: Final = "a setting of the agent; `iggyflux run` has its own pace"


def convert(configuration: Configuration, options: Options) -> Documents:
    """Return a mapping for each input that reads payloads, and a pipeline with the outputs of InfluxDB."""
    documents = Documents(configuration.report)
    root = configuration.root
    tags = _tags_of_all(root)
    steps = processors.in_order(root.part("processors"))
    inputs = [(kind, part) for kind, parts in root.part("inputs").children() for part in parts]
    host_is_told = False
    for kind, part in inputs:
        draft = _draft(kind, part, options)
        if draft is None:
            continue
        for step in steps:
            processors.apply(step, draft)
        draft.name = slug(part.text("alias") or metric.name_of(draft.points[0]) or draft.name)
        documents.drafts.append(draft)
        if not host_is_told and not root.part("agent").flag("omit_hostname") and "host" not in tags:
            host_is_told = True
            became = (
                "the tag `host`, the name of Telegraf's machine, is not written: add `tags: {host: …}` to the pipeline"
            )
            part.remark(Verdict.APPROXIMATED, "agent.hostname", became)
    processors.close(steps)
    for kind, parts in root.part("aggregators").children():
        for part in parts:
            part.not_taken(None, f"iggyflux does not aggregate; use a query or a task of InfluxDB ({kind})")
    outputs.convert(root.part("outputs"), documents, tags)
    configuration.warn_of_variables(("inputs", "processors"), (*_PATTERNS, *_CONNECTIONS))
    documents.pipeline["iggy"] = dict(IGGY)
    documents.comments["/iggy"] = IGGY_COMMENT
    if tags:
        documents.pipeline["tags"] = tags
    return documents


def _tags_of_all(root: Part) -> Tree:
    """Return the tags that Telegraf gives all metrics, and report the agent."""
    tags: Tree = {}
    in_points = outputs.choose_by_tags(root.part("outputs"))

    def place(key: str) -> str:
        is_moved = in_points and "${" not in tags[key]
        return (
            f"`tags.{key}` of all points, since an output chooses by tags"
            if is_moved
            else f"`tags.{key}` of the pipeline"
        )

    for key, value in root.part("global_tags").tree.items():
        part = root.part("global_tags")
        if isinstance(value, str) and value:
            tags[key] = with_variables(value)
            part.taken(key, place(key))
    agent = root.part("agent")
    name = agent.text("hostname")
    if name and not agent.flag("omit_hostname"):
        is_host = "host" not in tags
        tags.setdefault("host", with_variables(name))
        agent.taken("hostname", place("host") if is_host else "nothing to do: `global_tags.host` gives the tag")
    if "omit_hostname" in agent:
        agent.taken("omit_hostname", "no tag `host`" if agent.flag("omit_hostname") else "see `agent.hostname`")
    if "precision" in agent:
        agent.approximated(
            "precision", "times keep their nanoseconds; `influxdb.precision` of the pipeline rounds them"
        )
    own = ("hostname", "omit_hostname", "precision")
    agent.not_needed(*(key for key in agent.tree if key not in own), because=_AGENT)
    return tags


def _draft(kind: str, part: Part, options: Options) -> Draft | None:
    """Return the mapping of an input; None if it reads no payloads."""
    form = part.text("data_format") or ("influx" if kind in carriers.CARRIERS else "")
    if kind not in carriers.CARRIERS and "data_format" not in part:
        part.not_taken(None, f"the input {kind} gathers values itself: keep Telegraf for it, and send them to Iggy")
        return None
    parser = PARSERS.get(form)
    if parser is None:
        part.not_taken(None, f"iggyflux has no format {form!r}; see the formats of payloads")
        return None
    if "data_format" in part:
        part.taken("data_format", f"`from.payload: {parser.payload}`")
    carrier = carriers.read(kind, part, options)
    encoding = part.text("content_encoding")
    if encoding in _ENCODINGS:
        carrier.source["compression"] = encoding
        part.taken("content_encoding", f"`from.compression: {encoding}`")
    elif encoding:
        part.not_needed("content_encoding", because="payloads are read as they are")
    documents = decoded(options.samples, parser.payload)
    parsed: Parsed = parser.read(part, kind, documents)
    if not parsed.points:
        part.not_taken(None, "nothing of it could be expressed")
        return None
    tree: Tree = {"iggyflux": 1, "kind": "writer", "from": {**carrier.source, "payload": parsed.payload}}
    if parsed.for_each:
        tree["for_each"] = parsed.for_each
    points = [copy.deepcopy(point) for point in parsed.points]
    tree["points"] = points
    for point in points:
        carriers.apply(carrier, point)
        filters.apply(part, point)
    tree["points"] = [point for point in points if not point.pop("dropped", False)]
    if not tree["points"]:
        part.not_taken(None, "its filters drop every metric")
        return None
    part.not_needed("alias", because="the name of the file")
    if not any("timestamp" in point for point in points):
        became = "points have the time at which Iggy stored the message; Telegraf takes its own clock"
        part.remark(Verdict.APPROXIMATED, "time", became)
    return Draft(slug(kind.removesuffix("_consumer")), tree, {}, [], options.samples, carrier.headers)


def decoded(samples: Sequence[Message], payload: str) -> list[JSON]:
    """Return the values of samples in a format; those that are none are left out."""
    form = FORMATS[payload]
    found: list[JSON] = []
    for message in samples:
        try:
            found.append(form.decode(message.payload, _no_options(payload), None, False))
        except (IggyfluxError, ValueError, TypeError, KeyError):
            continue
    return found


def _no_options(payload: str) -> Any:
    from iggyflux.mapping import parse_mapping

    text = f"iggyflux: 1\nkind: writer\nfrom: {{stream: s, topic: t, payload: {payload}}}\npoints: {{measurement: m}}\n"
    mapping = parse_mapping(text, format="yaml", name="m")
    return mapping.writer.source.payload.options  # type: ignore[union-attr]  # it is a writer
