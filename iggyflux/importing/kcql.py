"""Lenses' KCQL: one mapping a statement, `INSERT INTO measurement SELECT fields FROM topic …`.

The file has statements, or is the configuration of the connector, as properties or JSON, with `connect.influx.kcql`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Final

from iggyflux.documents.text import check_size, read_text, without_utf16
from iggyflux.errors import DocumentError
from iggyflux.importing import Documents, Options
from iggyflux.importing.configuration import literal_text
from iggyflux.importing.draft import Draft, Tree
from iggyflux.importing.influxdb import IGGY, IGGY_COMMENT, without_login
from iggyflux.importing.names import literal, member, slug, text_of
from iggyflux.importing.report import Report, Verdict
from iggyflux.records import Message

_TOKEN: Final = re.compile(r"`([^`]*)`|([A-Za-z_$][\w$.*!/:-]*)|('[^']*')|([0-9][\w.:-]*)|([(),=*;])|(\S)")
_PROPERTY: Final = re.compile(r"[ \t]*([\w.-]+)[ \t]*[=:][ \t]*(.*)")
_UNITS: Final = {
    "MILLISECONDS": "unix_ms",
    "SECONDS": "unix_s",
    "MICROSECONDS": "unix_us",
    "NANOSECONDS": "unix_ns",
}
_CLAUSES: Final = frozenset(
    """
    IGNORE WITHTIMESTAMP TIMESTAMPUNIT WITHTAG WITHTARGET
    AUTOCREATE AUTOEVOLVE BATCH BUCKETS CAPITALIZE CLUSTERBY DISTRIBUTEBY DOCTYPE INCREMENTALMODE INITIALIZE
    KEYDELIMITER LIMIT PARTITIONBY PK PROJECTTO PROPERTIES RETRIES SAMPLE STOREAS TIMESTAMP TTL WITHCOMPRESSION
    WITHCONVERTER WITHDELAY WITHDOCTYPE WITHENCODE WITHFORMAT WITHGROUP WITHINDEXSUFFIX WITHJMSSELECTOR WITHKEY
    WITHPARTITIONER WITHPIPELINE WITHRATIO WITHREGEX WITHSESSION WITHSUBSCRIPTION WITHTYPE WITHUNWRAP
    """.split()  # noqa: SIM905
)
"""Words with which a clause of KCQL begins; the first line has those of InfluxDB."""
_CONNECT: Final = "connect.influx."
_SECRET: Final = ("password",)


@dataclass
class _Statement:
    """One statement, as it was read; `line` is where it begins."""

    line: int
    measurement: str = ""
    topic: str = ""
    fields: list[tuple[str, str]] = field(default_factory=list)
    """Paths and names; `*` for all."""
    ignored: list[str] = field(default_factory=list)
    tags: list[tuple[str, str, bool]] = field(default_factory=list)
    """Names, and the path or the constant; the last says that it is a constant."""
    time: str = ""
    unit: str = "MILLISECONDS"
    target: str = ""
    left: list[str] = field(default_factory=list)
    """The first words of clauses that were not understood."""


class _NotAStatement(ValueError):
    """A text is not KCQL; the message says what was expected."""


def convert(text: str | bytes, options: Options) -> Documents:
    """Return a mapping for each statement.  Raise DocumentError if the file is not text."""
    documents = Documents(Report())
    whole = _text(text)
    statements, settings = _parts(whole)
    documents.pipeline |= {"iggy": dict(IGGY), "influxdb": _influxdb(settings, documents.report)}
    documents.comments["/iggy"] = IGGY_COMMENT
    for line, source in statements:
        try:
            statement = _read(line, source)
        except _NotAStatement as error:
            documents.report.add(line, "statement", Verdict.NOT_TAKEN, f"expected {error}")
            continue
        documents.drafts.append(_draft(statement, options, documents.report))
    return documents


def _text(text: str | bytes) -> str:
    try:
        check_size(text, None)
        return read_text(without_utf16(text, None), None)
    except DocumentError as error:  # without the line, which may have a password
        raise DocumentError([replace(each, source=None, found=None) for each in error.problems]) from error


# --- the file ---


def _parts(text: str) -> tuple[list[tuple[int, str]], dict[str, tuple[int, str]]]:
    """Return the statements of a file, and its other settings, each with its line."""
    settings: dict[str, tuple[int, str]] = {}
    if text.lstrip().startswith("{"):
        settings = _json_settings(text)
    elif _CONNECT in text:
        settings = _properties(text)
    else:
        return list(_statements(1, text)), {}
    statements = [
        each for key in list(settings) if key == f"{_CONNECT}kcql" for each in _statements(*settings.pop(key))
    ]
    return statements, settings


def _json_settings(text: str) -> dict[str, tuple[int, str]]:
    try:
        tree: Any = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    tree = tree.get("config", tree) if isinstance(tree, dict) else {}
    found = {}
    for key, value in tree.items() if isinstance(tree, dict) else ():
        at = text.find(json.dumps(key))
        found[key] = (text.count("\n", 0, max(at, 0)) + 1, value if isinstance(value, str) else json.dumps(value))
    return found


def _properties(text: str) -> dict[str, tuple[int, str]]:
    found: dict[str, tuple[int, str]] = {}
    lines = text.split("\n")
    number = 0
    while number < len(lines):
        start, whole = number, lines[number].rstrip("\r")
        while whole.endswith("\\") and number + 1 < len(lines):
            number += 1
            whole = whole[:-1] + " " + lines[number].strip()
        number += 1
        match = _PROPERTY.match(whole)
        if match is not None and not whole.lstrip().startswith(("#", "!")):
            found[match[1]] = (start + 1, match[2].strip())
    return found


def _statements(line: int, text: str) -> Iterator[tuple[int, str]]:
    """Yield the statements of a text, which end in `;` or where the next one begins, each with its line."""
    plain = re.sub(r"--[^\n]*", lambda match: " " * len(match[0]), text)
    for match in re.finditer(r"[^;]+", plain):
        piece = match[0]
        starts = [each.start() for each in re.finditer(r"(?i)\b(?:insert|upsert)\s+into\b", piece)]
        cuts = [0, *starts[1:], len(piece)]
        for start, stop in pairwise(cuts):
            source = piece[start:stop]
            if source.strip():
                before = match.start() + start + len(source) - len(source.lstrip())
                yield line + plain.count("\n", 0, before), source.strip()


def _influxdb(settings: dict[str, tuple[int, str]], report: Report) -> Tree:
    section: Tree = {"flavor": "v1"}
    for key, (line, value) in settings.items():
        name = key.removeprefix(_CONNECT)
        verdict, became = Verdict.TAKEN, f"`influxdb.{name}`"
        if name == "url":
            plain, has_login = without_login(value)
            if plain is None:
                verdict, became = Verdict.NOT_TAKEN, "expected an address such as http://host:8086"
            else:
                section["url"] = literal_text(plain)
                became += "; the login in it is not copied: use `username` and `password`" * has_login
        elif name in ("db", "username", "retention.policy"):
            own = {"db": "database", "retention.policy": "retention_policy"}.get(name, name)
            section[own] = literal_text(value)
            became = f"`influxdb.{own}`"
        elif name in _SECRET:
            section[name] = "${INFLUX_PASSWORD}"
            became = (
                "`influxdb.password: ${INFLUX_PASSWORD}`: the value is not copied; set the variable INFLUX_PASSWORD"
            )
        elif key.startswith(_CONNECT):
            verdict, became = Verdict.NOT_TAKEN, "see `on_error`, `max_retries` and `on_unavailable`"
        else:
            became = "nothing to do: a setting of Kafka Connect"
        report.add(line, key, verdict, became)
    return section


# --- a statement ---


class _Tokens:
    """The words of a statement, read one after another."""

    def __init__(self, text: str) -> None:
        self._words: list[tuple[str, bool]] = [
            (quoted or name or text_[1:-1] or number or sign or other, bool(quoted or text_))
            for quoted, name, text_, number, sign, other in _TOKEN.findall(text)
        ]
        self._at = 0

    @property
    def is_done(self) -> bool:
        return self._at >= len(self._words)

    def peek(self) -> str:
        """Return the next word in capitals; "" for a quoted one, and at the end."""
        if self.is_done or self._words[self._at][1]:
            return ""
        return self._words[self._at][0].upper()

    def take(self, what: str = "a name") -> str:
        if self.is_done:
            raise _NotAStatement(what)
        self._at += 1
        return self._words[self._at - 1][0]

    def accept(self, *words: str) -> bool:
        if self.peek() in words:
            self._at += 1
            return True
        return False

    def expect(self, *words: str) -> None:
        if not self.accept(*words):
            raise _NotAStatement(" or ".join(words))


def _read(line: int, text: str) -> _Statement:
    """Return a statement.  Raise _NotAStatement."""
    tokens = _Tokens(text)
    made = _Statement(line)
    tokens.expect("INSERT", "UPSERT")
    tokens.expect("INTO")
    made.measurement = tokens.take("a measurement")
    tokens.expect("SELECT")
    made.fields = list(_selected(tokens))
    if tokens.peek() == "IGNORE":
        _clause(tokens, made)
    tokens.expect("FROM")
    made.topic = tokens.take("a topic")
    while not tokens.is_done:
        _clause(tokens, made)
    return made


def _selected(tokens: _Tokens) -> Iterator[tuple[str, str]]:
    while True:
        path = tokens.take("a field")
        name = path.rsplit(".", 1)[-1]
        if tokens.accept("AS"):
            name = tokens.take("a name")
        yield path, name
        if not tokens.accept(",", "AND"):
            return


def _clause(tokens: _Tokens, made: _Statement) -> None:
    if tokens.accept("IGNORE"):
        made.ignored = [tokens.take()]
        while tokens.accept(","):
            made.ignored.append(tokens.take())
    elif tokens.accept("WITHTIMESTAMP"):
        made.time = tokens.take("a field or sys_time()")
        if made.time.lower() == "sys_time":
            tokens.accept("(")
            tokens.accept(")")
    elif tokens.accept("TIMESTAMPUNIT"):
        tokens.accept("=")
        made.unit = tokens.take("a unit").upper()
    elif tokens.accept("WITHTAG"):
        tokens.expect("(")
        while not tokens.accept(")"):
            made.tags.append(_tag(tokens))
            tokens.accept(",")
    elif tokens.accept("WITHTARGET"):
        tokens.accept("=")
        made.target = tokens.take("a field")
    else:
        made.left.append(tokens.take())
        while not tokens.is_done and tokens.peek() not in _CLAUSES:
            tokens.take()


def _tag(tokens: _Tokens) -> tuple[str, str, bool]:
    path = tokens.take("a tag")
    if tokens.accept("="):
        value = tokens.take("a value")
        while not tokens.is_done and tokens.peek() not in (",", ")"):
            value += tokens.take()
        return path, value, True
    name = path.rsplit(".", 1)[-1] if path.startswith(("_key.", "_header.")) else path
    return (tokens.take() if tokens.accept("AS") else name), path, False


def _expression(path: str) -> str:
    """Return the expression of a path: of the value, of the key or of a header of a message."""
    words = [word for word in path.split(".") if word]
    return ".".join(map(member, words)) or "@"


def _draft(made: _Statement, options: Options, report: Report) -> Draft:
    def tell(construct: str, verdict: Verdict, became: str) -> None:
        report.add(made.line, construct, verdict, became)

    topic = options.topic or made.topic
    tell("FROM", Verdict.TAKEN, f"`from.topic: {topic}`")
    if options.stream is None:
        tell("FROM", Verdict.APPROXIMATED, "`from.stream: my-stream`: write the name of the stream, or give --topic")
    point: Tree = {"measurement": {"const": made.measurement}, "tags": {}, "fields": {}}
    tell("INSERT INTO", Verdict.TAKEN, f"`measurement: {{const: {made.measurement}}}`")
    if made.target:
        point["measurement"] = f"coalesce({text_of(_expression(made.target))}, {literal(made.measurement)})"
        tell(
            "WITHTARGET", Verdict.TAKEN, f"`measurement: {made.target}`, or `{made.measurement}` where that is missing"
        )
    for name, value, is_constant in made.tags:
        if is_constant:
            point["tags"][name] = {"const": value}
        elif not value.startswith(("_key", "_header", "_topic")):
            point["tags"][name] = _expression(value)
        elif value == "_topic":
            point["tags"][name] = "meta('topic')"
        elif value.startswith("_header."):
            point["tags"][name] = f"header({literal(value.removeprefix('_header.'))})"
        else:
            tell("WITHTAG", Verdict.NOT_TAKEN, f"`{name}`: messages of Iggy have no key: put it into a header")
            continue
        tell("WITHTAG", Verdict.TAKEN, f"the tag `{name}`")
    _fields(made, point, tell)
    _time(made, point, options.samples, tell)
    for word in made.left:
        tell(word, Verdict.NOT_TAKEN, "no such clause for InfluxDB")
    tree: Tree = {
        "iggyflux": 1,
        "kind": "writer",
        "from": {"stream": options.stream or "my-stream", "topic": topic, "payload": "json"},
        "points": [point],
    }
    return Draft(slug(made.measurement), tree, samples=options.samples)


def _fields(made: _Statement, point: Tree, tell: Any) -> None:
    for path, name in made.fields:
        if path.startswith(("_key", "_header")):
            tell("SELECT", Verdict.NOT_TAKEN, f"`{path}`: only the value of a message: use `header(…)`")
        elif path == "*" or path.endswith(".*"):
            point["fields"]["*"] = {"expr": _expression(path.removesuffix("*")), "type": "payload"}
            if made.ignored:
                point["fields"]["*"]["exclude"] = made.ignored
        elif path not in made.ignored:
            point["fields"][name] = {"expr": _expression(path), "type": "payload", "required": True}
    beside = set(_kept_beside_star(made))
    if both := sorted(beside & {*point["tags"]}):
        tell(
            "SELECT",
            Verdict.APPROXIMATED,
            f"only tags: {', '.join(both)}; there `*` makes fields of the same name, too",
        )
    for name in sorted(beside - {*point["tags"]}):
        point["fields"].setdefault(name, {"expr": _expression(name), "type": "payload"})
    if made.ignored:
        tell("IGNORE", Verdict.TAKEN, "`exclude`, or no field")
    became = "`fields`, with the types that values have in the payload"
    if "*" not in point["fields"]:
        tell("SELECT", Verdict.TAKEN, f"{became}; a message without one of them fails, as there")
    else:
        tell("SELECT", Verdict.APPROXIMATED, f"{became}; a null in `*` is left out, and there the message fails")


def _kept_beside_star(made: _Statement) -> Iterator[str]:
    """Yield what `*` of a mapping leaves out because something else reads it; in KCQL it is a field as well."""
    if not any(path == "*" for path, _ in made.fields):
        return
    renamed = {path for path, _ in made.fields}
    time = "" if _is_of_clock(made.time) else made.time
    for path in (*(path for _, path, is_constant in made.tags if not is_constant), time, made.target):
        is_member = path and "." not in path and not path.startswith(("_key", "_header", "_topic"))
        if is_member and path not in renamed and path not in made.ignored:
            yield path


def _time(made: _Statement, point: Tree, samples: Sequence[Message], tell: Any) -> None:
    if _is_of_clock(made.time):
        became = "points have the time at which Iggy stored the message, also when they are read again"
        tell("WITHTIMESTAMP" if made.time else "time", Verdict.APPROXIMATED, became)
        return
    if made.unit not in _UNITS:
        tell("TIMESTAMPUNIT", Verdict.NOT_TAKEN, "expected MILLISECONDS, SECONDS, MICROSECONDS or NANOSECONDS")
        return
    time_format, others = _UNITS[made.unit], "give --samples if it is a text, or a fraction of seconds"
    found = _first(made.time, samples)
    if isinstance(found, str):
        time_format, others = "rfc3339", "a number fails here, and there it is in the unit"
    elif isinstance(found, float):
        time_format, others = "unix_s", "a fraction is in seconds there, a whole number in the unit"
    elif found is not None:
        others = "there a text is a time of ISO 8601, and a fraction is in seconds"
    point["timestamp"] = {"expr": _expression(made.time), "format": time_format, "default": "message"}
    became = f"`timestamp: {{expr: …, format: {time_format}}}`, or the time at which Iggy stored the message"
    tell("WITHTIMESTAMP", Verdict.APPROXIMATED, f"{became}; {others}")


def _is_of_clock(time: str) -> bool:
    return not time or time.lower().startswith("sys_time")


def _first(path: str, samples: Sequence[Message]) -> Any:
    """Return the value at a path in the first sample that has one."""
    for message in samples:
        try:
            value = json.loads(message.payload)
        except (ValueError, RecursionError):
            continue
        for word in path.split("."):
            value = value.get(word) if isinstance(value, dict) else None
        if value is not None:
            return value
    return None
