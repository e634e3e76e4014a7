"""mqtt2influxdb's YAML: each of its points becomes a point of one mapping, chosen by the topic of the broker.

Its version 2 writes to InfluxDB 3, with a token; version 1 writes to InfluxDB 1.x, and has no token.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from typing import Any, Final

from iggyflux.importing import Documents, Options
from iggyflux.importing.configuration import Configuration, Part
from iggyflux.importing.draft import Draft, Tree
from iggyflux.importing.influxdb import IGGY, IGGY_COMMENT, put_text, put_url
from iggyflux.importing.names import literal, member, text_of
from iggyflux.importing.report import Verdict
from iggyflux.importing.topics import matches_topic, part_of_topic, plain_topic

_PATH: Final = re.compile(r"\$(?:\.[A-Za-z_][\w-]*|\[[0-9]{1,6}\]|\['[^'\\]+'\]|\[\"[^\"\\]+\"\])+")
_STEP: Final = re.compile(r"\.([A-Za-z_][\w-]*)|\[([0-9]+)\]|\['([^']+)'\]|\[\"([^\"]+)\"\]")
_AS_BOOLEAN: Final = "if(is_number({0}), {0} != `0`, if({0} == `null`, `null`, !(!{0})))"
_AS_NUMBER: Final = "if(is_boolean({0}), if({0}, `1`, `0`), parse_number({0}, `null`, 'lenient'))"
_TYPES: Final = {
    "float": ("float", _AS_NUMBER),
    "int": ("integer", f"if(is_number({{0}}), if({{0}} < `0`, ceil({{0}}), floor({{0}})), {_AS_NUMBER})"),
    "str": ("string", "{0}"),
    "bool": ("boolean", _AS_BOOLEAN),
}
"""Their types, ours, and the conversion as Python does it."""
_BOOLEAN_TO_INTEGER: Final = ("integer", f"if({{0}} == `null`, `null`, if({_AS_BOOLEAN}, `1`, `0`))")
_CALLS: Final = {ast.Add: "add", ast.Sub: "subtract", ast.Mult: "multiply", ast.Div: "divide", ast.Mod: "modulo"}
_SECONDS: Final = "if(is_number(timestamp), timestamp, `null`)"
MOST_CHARACTERS: Final = 500


class _NotExpressed(ValueError):
    """A value that no expression has; the text says why."""


def convert(configuration: Configuration, options: Options) -> Documents:
    """Return one mapping with all points, and a pipeline to InfluxDB 1.x."""
    documents = Documents(configuration.report)
    root = configuration.root
    server = root.part("influxdb")
    is_2 = any(key in server for key in ("token", "bucket"))
    documents.pipeline |= {"iggy": dict(IGGY), "influxdb": _influxdb_3(server) if is_2 else _influxdb(server)}
    documents.comments["/iggy"] = IGGY_COMMENT
    if "mqtt" in root:
        root.taken("mqtt", "nothing to do: how the messages came; send them to Apache Iggy")
    root.ignored("http", because="iggyflux calls no other service")
    root.ignored("base64decode", because="write `base64_decode`, `bytes` or `unpack` where the value is used")
    points = [made for part in root.parts("points") if (made := _point(part, options, is_2=is_2))]
    databases = sorted({point["to"]["database"]["const"] for point in points if "to" in point})
    if databases:
        documents.pipeline["influxdb"]["buckets"] = databases
    if not points:
        return documents
    first = root.parts("points")[0]
    source = f"`from: {{stream: {options.stream or 'my-stream'}, topic: {options.topic or 'my-topic'}}}`"
    first.remark(Verdict.APPROXIMATED, "points.topic", f"{source}: write the names of Iggy, or give --topic")
    header = f"the messages need a header `{options.topic_header}` with the topic of the broker"
    first.remark(Verdict.APPROXIMATED, "points.topic", header)
    clock = "points have the time at which Iggy stored the message; there the client's clock"
    first.remark(Verdict.APPROXIMATED, "time", clock if is_2 else f"{clock}, in seconds")
    if is_2:
        first.remark(Verdict.TAKEN, "payload.timestamp", "`timestamp`, if it is a number of seconds")
        texts = "a payload that is not JSON fails; there it is a text"
        first.remark(Verdict.APPROXIMATED, "payload", texts)
    words = "booleans and null as texts are `true`, not `True`; a value that is an object fails"
    first.remark(Verdict.APPROXIMATED, "values", words)
    tree: Tree = {
        "iggyflux": 1,
        "kind": "writer",
        "from": {"stream": options.stream or "my-stream", "topic": options.topic or "my-topic", "payload": "json"},
        "points": points,
    }
    headers = {options.topic_header: plain_topic(first.text("topic"))}
    documents.drafts.append(Draft("mqtt", tree, samples=options.samples, headers=headers))
    return documents


def _influxdb(part: Part) -> Tree:
    section: Tree = {"flavor": "v1", "create": True}
    host, port = part.text("host"), part.text("port") or "8086"
    if re.fullmatch(r"[A-Za-z0-9.-]+", host) and port.isdigit():
        section["url"] = f"{'https' if part.flag('ssl') else 'http'}://{host}:{port}"
        for key in ("host", "port", "ssl"):
            if key in part:
                part.taken(key, "`influxdb.url`")
    put_text(part, "database", section, "database")
    put_text(part, "username", section, "username")
    password = part.secret("password", "INFLUX_PASSWORD", "influxdb.password")
    if password:
        section["password"] = password
    return section


def _influxdb_3(part: Part) -> Tree:
    section: Tree = {"flavor": "v3"}
    host, port = part.text("host"), part.text("port") or "8181"
    if port.isdigit() and host:
        put_url(part, "host", section, f"{host if '://' in host else f'https://{host}'}:{port}")
        part.not_needed("port", because="it is in `influxdb.url`")
    put_text(part, "bucket", section, "database")
    part.not_needed("org", because="InfluxDB 3 has no organizations")
    if "enable_gzip" in part:
        section["gzip"] = part.flag("enable_gzip")
        part.taken("enable_gzip", "`influxdb.gzip`")
    token = part.secret("token", "INFLUX_TOKEN", "influxdb.token")
    if token:
        section["token"] = token
    return section


def _point(part: Part, options: Options, *, is_2: bool) -> Tree | None:
    topic = part.text("topic")
    point: Tree = {"measurement": "", "tags": {}, "fields": {}}
    if topic and topic != "#":
        point["where"] = matches_topic(topic, options.topic_header)
    if "topic" in part:
        part.taken("topic", "`where`" if "where" in point else "every message")
    name = part.text("measurement")
    measurement = _value(part, "measurement", options)
    if measurement is None:
        part.not_taken(None, "its measurement cannot be expressed")
        return None
    point["measurement"] = {"const": name} if "const" in measurement else text_of(measurement["expr"])
    part.taken("measurement", "`measurement`")
    tags = part.part("tags")
    for key in tags.tree:
        made = _value(tags, key, options)
        if made is not None:
            point["tags"][key] = made if "const" in made else made["expr"]
            tags.taken(key, f"the tag `{key}`")
    _fields(part, point, options, is_2=is_2)
    key = "bucket" if is_2 else "database"
    if database := part.text(key):
        point["to"] = {"database": {"const": database}}
        part.taken(key, "`to.database` of the point")
    if is_2:
        point["timestamp"] = {"expr": _SECONDS, "format": "unix_s", "default": "message"}
    part.ignored("httpcontent", because="iggyflux calls no other service")
    part.ignored("schedule", because="points have no hours: stop the run, or write a `where` on the time")
    part.not_needed("qos", because="how the messages came")
    if not point["fields"]:
        part.not_taken(None, "it has no fields that can be expressed")
        return None
    return {"measurement": point["measurement"], **{key: value for key, value in point.items() if key != "measurement"}}


def _fields(part: Part, point: Tree, options: Options, *, is_2: bool) -> None:
    if isinstance(part.tree.get("fields"), str):
        made = _value(part, "fields", options)
        if made is not None and "expr" in made:
            point["fields"]["*"] = {"expr": made["expr"], "type": "payload"}
            part.taken("fields", 'all members: `fields: {"*": …}`')
        return
    fields = part.part("fields")
    for key, given in fields.tree.items():
        if isinstance(given, dict):
            inner = fields.part(key)
            made = _value(inner, "value", options)
            of_type = inner.text("type")
            if made is None:
                continue
            inner.taken("value", f"the field `{key}`")
            expression = made.get("expr") or literal(made["const"])
            chosen = _BOOLEAN_TO_INTEGER if is_2 and of_type == "booltoint" else _TYPES.get(of_type)
            point["fields"][key] = {"expr": expression, "type": "payload"}
            if chosen is not None:
                ours, form = chosen
                converted = {"expr": form.format(expression), "type": ours, "cast": True, "on_bad_value": "omit"}
                point["fields"][key] = converted
                inner.taken("type", f"`type: {ours}`, converted as there; what cannot be converted is left out")
            elif of_type == "booltoint":
                inner.taken("type", "`type: payload`: version 1 leaves such a value as it is")
            elif of_type:
                inner.not_taken("type", "`type: payload`: no such conversion")
            continue
        made = _value(fields, key, options)
        if made is not None:
            divides = "divide(" in made.get("expr", "")  # whose result is never an integer in Python
            point["fields"][key] = {**made, "type": "string" if "const" in made else "float" if divides else "payload"}
            fields.taken(key, f"the field `{key}`")


def _value(part: Part, key: str, options: Options) -> Tree | None:
    """Return a value as an expression or a constant; None if it is reported as not taken."""
    text = part.text(key)
    if not text:
        part.not_taken(key, "it has no value")
        return None
    try:
        if text.startswith("="):
            return {"expr": _calculated(text[1:], options)}
        if "$." in text:
            return {"expr": _path(text.strip(), options)}
    except _NotExpressed as error:
        part.not_taken(key, f"no expression for {error}")
        return None
    return {"const": text}


def _path(text: str, options: Options) -> str:
    """Return the expression of a JSONPath on their message: topic, payload, timestamp or qos."""
    if not _PATH.fullmatch(text):
        raise _NotExpressed("this JSONPath: expected names and numbers, as in $.payload.a.b[0]")
    steps: Sequence[tuple[str, str]] = [
        (name or quoted or double, index) for name, index, quoted, double in _STEP.findall(text[1:])
    ]
    (first, _), *rest = steps
    if first == "topic" and len(rest) == 1 and rest[0][1]:
        return part_of_topic(rest[0][1], options.topic_header)
    if first != "payload":
        raise _NotExpressed(f"$.{first} as a value: expected $.payload…, or $.topic[n]")
    made = ""
    for name, index in rest:
        made += f"[{index}]" if index else f".{member(name)}"
    return made.removeprefix(".") or "@"


def _calculated(text: str, options: Options) -> str:
    """Return an arithmetic expression with JSONPaths as calls of functions."""
    paths: list[str] = []

    def put(match: re.Match[str]) -> str:
        paths.append(_path(match[0], options))
        return f" v{len(paths) - 1} "

    source = _PATH.sub(put, text).replace("^", "**").strip()
    if len(source) > MOST_CHARACTERS or "$" in source:
        raise _NotExpressed("this calculation")
    try:
        tree: Any = ast.parse(source, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise _NotExpressed("this calculation") from error
    numbers = " && ".join(f"is_number({path})" for path in dict.fromkeys(paths))
    return f"if({numbers}, {_call(tree, paths)}, `null`)" if paths else _call(tree, paths)


def _call(node: Any, paths: Sequence[str]) -> str:
    if isinstance(node, ast.BinOp) and type(node.op) in _CALLS:
        return f"{_CALLS[type(node.op)]}({_call(node.left, paths)}, {_call(node.right, paths)})"
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return f"subtract(`0`, {_call(node.operand, paths)})"
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return literal(node.value)
    if isinstance(node, ast.Name) and re.fullmatch(r"v[0-9]+", node.id) and int(node.id[1:]) < len(paths):
        return paths[int(node.id[1:])]
    raise _NotExpressed("a function or an operator in a calculation")
