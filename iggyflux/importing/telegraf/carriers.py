"""Inputs that carry payloads: what they say of stream, topic and header of Apache Iggy, and the tags of topics."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from iggyflux.importing import Options
from iggyflux.importing.configuration import Part
from iggyflux.importing.draft import Tree
from iggyflux.importing.names import string
from iggyflux.importing.report import Verdict
from iggyflux.importing.telegraf.metric import TYPES

CARRIERS: Final = frozenset(
    {
        "amqp_consumer",
        "cloud_pubsub",
        "directory_monitor",
        "eventhub_consumer",
        "exec",
        "execd",
        "file",
        "http",
        "http_listener_v2",
        "kafka_consumer",
        "kinesis_consumer",
        "mqtt_consumer",
        "nats_consumer",
        "nsq_consumer",
        "redis_consumer",
        "socket_listener",
        "stdin",
        "tail",
        "websocket",
    }
)
_CONNECTION: Final = "how the messages reached Telegraf; send them to Apache Iggy"
_PARSER: Final = re.compile(
    r"^(?:json|csv|xpath|grok|value|influx|xml|metric|field|tag|name_|json_v2|topic_tag|topic_parsing|data_|tags$|taginclude|"
    r"content_encoding|logfmt|tagexclude|namepass|namedrop|fieldpass|fielddrop|fieldinclude|fieldexclude|tagpass|tagdrop|alias)"
)
_NOT_SAFE: Final = re.compile(r"[*?\[\]/+#\s$]")


@dataclass
class Carrier:
    """Where messages are, and what their topic gives."""

    source: Tree
    topic: str = ""
    """The expression of the topic; empty if the input has none."""
    tag: str = ""
    """The name of the tag with the whole topic."""
    parsings: list[_Parsing] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    """The header with a topic that the input subscribes to."""


@dataclass
class _Parsing:
    """What the parts of a topic become, if it matches."""

    condition: str
    measurement: str
    tags: Tree
    fields: Tree


def read(kind: str, part: Part, options: Options) -> Carrier:
    """Return the carrier of an input, and report its connection."""
    topics = part.texts("topics")
    is_kafka = kind in ("kafka_consumer", "nsq_consumer", "nats_consumer")
    stream, topic = options.stream or "my-stream", [options.topic or "my-topic"]
    if is_kafka and options.topic is None and topics and not any(map(_NOT_SAFE.search, topics)):
        topic = topics
        part.taken("topics", "`from.topic`: the topics of Iggy, with the same names")
    elif "topics" in part:
        part.approximated("topics", f"`from.topic: {topic[0]}`: send these topics to it")
    if options.stream is None:
        became = f"`from.stream: {stream}`, `from.topic: {topic[0]}`: write the names of Iggy, or give --topic"
        part.remark(Verdict.APPROXIMATED, kind, became)
    carrier = Carrier({"stream": stream, "topic": topic[0] if len(topic) == 1 else topic})
    if kind == "mqtt_consumer":
        carrier.topic = f"header({string(options.topic_header)})"
        words = topics[0] if topics else "a/b/c/d"
        carrier.headers = {options.topic_header: words.replace("+", "n1").replace("#", "n2/3")}
        carrier.tag = part.text("topic_tag") if "topic_tag" in part.tree else "topic"
        carrier.parsings = [
            made for each in part.parts("topic_parsing") if (made := _parsing(each, carrier.topic, topics))
        ]
    elif is_kafka:
        carrier.topic, carrier.tag = "meta('topic')", part.text("topic_tag")
    if carrier.tag:
        became = f'`tags: {{{carrier.tag}: "{carrier.topic}"}}`'
        if kind == "mqtt_consumer":
            became += f": the messages need a header `{options.topic_header}` with the topic of the broker"
        if "topic_tag" in part:
            part.taken("topic_tag", became)
        else:
            part.remark(Verdict.APPROXIMATED, f"{kind}.topic_tag", became)
    elif "topic_tag" in part.tree:
        part.taken("topic_tag", "no tag of the topic")
    for key in part.tree:
        if not _PARSER.match(key) and key != "topics":
            part.not_needed(key, because=_CONNECTION)
    return carrier


def apply(carrier: Carrier, point: Tree) -> None:
    """Give a point what the topic says."""
    for parsing in carrier.parsings:
        if parsing.measurement:
            point["measurement"] = _chosen(parsing.condition, parsing.measurement, point["measurement"])
        for key, value in parsing.tags.items():
            point["tags"][key] = _chosen(parsing.condition, value, point["tags"].get(key))
        for key, value in parsing.fields.items():
            point["fields"][key] = {**value, "expr": _chosen(parsing.condition, value["expr"], None)}
    if carrier.tag and carrier.tag not in point["tags"]:
        point["tags"] = {carrier.tag: carrier.topic, **point["tags"]}


def _chosen(condition: str, then: str, otherwise: Any) -> str:
    if not condition:
        return then
    if otherwise is None:
        return f"if({condition}, {then})"
    if isinstance(otherwise, dict):
        otherwise = string(str(otherwise["const"])) if "const" in otherwise else otherwise["expr"]
    return f"if({condition}, {then}, {otherwise})"


def _parsing(part: Part, topic: str, subscribed: Sequence[str]) -> _Parsing | None:
    """Return what a table `topic_parsing` makes of the parts of a topic."""
    pattern = part.text("topic")
    if not pattern:
        part.not_taken(None, "it has no `topic`")
        return None
    words = pattern.strip("/").split("/") if pattern != "/" else [pattern]
    is_sure = pattern == "#" or list(subscribed) == [pattern]
    condition = "" if is_sure else f"regex_match({topic}, {string(_regex(words))})"
    types = {key: TYPES.get(str(value), "") for key, value in part.part("types").tree.items()}
    made = _Parsing(condition, "", {}, {})
    for key in ("measurement", "tags", "fields"):
        for index, word in _places(part.text(key)):
            value = f"split(trim_left({topic}, '/'), '/')[{index}]"
            if key == "measurement":
                made.measurement = made.measurement or value
            elif key == "tags":
                made.tags[word] = value
            else:
                of_type = types.get(word) or "string"
                made.fields[word] = {"expr": value, "type": of_type} | ({} if of_type == "string" else {"cast": True})
        if key in part:
            part.taken(key, "parts of the topic: `split(…)[n]`")
    part.taken("topic", "every message" if is_sure else "messages whose topic matches")
    if "types" in part:
        part.taken("types", "`type` of the fields, with `cast`")
    return made


def _places(text: str) -> list[tuple[int, str]]:
    """Return the positions and names of a pattern such as `_/site/_`; those after a `#` count from the end."""
    words = text.strip("/").split("/")
    places: list[tuple[int, str]] = []
    rest = words.index("#") if "#" in words else len(words)
    for number, word in enumerate(words):
        if word not in ("", "_", "#"):
            places.append((number if number < rest else number - len(words), word))
    return places


def _regex(words: Sequence[str]) -> str:
    parts = ["[^/]+" if word in ("+", "_") else ".*" if word == "#" else re.escape(word) for word in words]
    return "^/?" + "/".join(parts) + "$"
