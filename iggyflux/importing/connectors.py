"""The connectors influxdb_sink and influxdb_source of Apache Iggy: one mapping a stream of the connector."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from iggyflux.importing import Documents, Options
from iggyflux.importing.configuration import Configuration, Part
from iggyflux.importing.draft import Draft, Tree
from iggyflux.importing.influxdb import IGGY, IGGY_COMMENT, put_count, put_duration, put_text, put_url
from iggyflux.importing.names import literal, slug
from iggyflux.importing.report import Verdict
from iggyflux.lineprotocol import Precision
from iggyflux.timestamps import TimestampError, parse_rfc3339

_SCHEMAS: Final = ("json", "text", "raw")
_LINE_BREAKS: Final = "; line breaks are kept, and the sink writes them as `\\n` and `\\r`"
_OTHER_JSON: Final = (
    "; a member that is there twice is written once, exponents may be written in another form, as `1e-07`, and a"
    " payload that is only a string has no quotes"
)
_GOES_ON: Final = (
    "iggyflux goes on where the connector stopped; stop it before, since members of a group share the messages"
)
_PRECISIONS: Final = tuple(each.value for each in Precision)
_TIMES: Final = ("", "time", "_time")
"""A `cursor_field` that is the time of a row, which readers name `time`."""
_RUNTIME: Final = ("type", "key", "version", "name", "path", "verbose", "plugin_config_format")
_NOT_NEEDED: Final = (
    "max_open_retries",
    "open_retry_max_delay",
    "circuit_breaker_threshold",
    "circuit_breaker_cool_down",
    "stuck_batch_cap_factor",
)


def _connectors(root: Part, word: str) -> Iterator[Part]:
    """Yield the tables of the connectors: the file itself, or the items of `sinks` or `sources`."""
    if "plugin_config" in root or "streams" in root:
        yield root
    for part in root.parts(word):
        if "plugin_config" in part or "streams" in part:
            yield part
        else:  # [sinks.NAME]
            for _, inner in part.children():
                yield from inner


def _common(connector: Part, settings: Part, documents: Documents, streams: list[Part], number: int) -> Tree:
    """Return the section `influxdb`, and report what belongs to the runtime of the connectors.

    `number` of the connector, from 0, tells its variables from those of others.
    """
    after = f"_{number + 1}" if number else ""
    connector.not_needed(*_RUNTIME, because="a setting of the connectors' runtime")
    if connector.flag("enabled", default=True):
        connector.not_needed("enabled", because="its routes are in the pipeline")
    else:
        connector.approximated("enabled", "the mapping and the route are written; remove the route")
    connector.ignored("transforms", because="write it as expressions, `where` and `for_each` in the mapping")
    influxdb: Tree = {}
    put_url(settings, "url", influxdb, after=after)
    version = settings.text("version") or "v2"
    if version in ("v2", "v3"):
        influxdb["flavor"] = version
        settings.taken("version", f"`influxdb.flavor: {version}`") if "version" in settings else None
    else:
        settings.not_taken("version", "expected v2 or v3; iggyflux asks the server")
    put_text(settings, "org", influxdb, "org")
    put_text(settings, "bucket", influxdb, "bucket")
    put_text(settings, "db", influxdb, "database")
    token = settings.secret("token", f"INFLUX_TOKEN{after}", "influxdb.token")
    if token:
        influxdb["token"] = token
    put_duration(settings, "timeout", influxdb, "timeout")
    retries = settings.get("max_retries", int)
    if retries is not None and retries >= 0:
        influxdb["max_retries"] = max(retries - 1, 0)
        became = (
            f"`influxdb.max_retries: {max(retries - 1, 0)}`: there attempts in all, and the batch is lost after them"
        )
        settings.approximated("max_retries", f"{became}; here `on_unavailable` decides: `wait` is the default")
    put_duration(settings, "retry_delay", influxdb, "retry_backoff")
    put_duration(settings, "retry_max_delay", influxdb, "max_retry_backoff")
    settings.not_needed(*_NOT_NEEDED, because="it connects until it is connected, and drops nothing meanwhile")
    settings.not_needed("verbose_logging", because="see `iggyflux run --log-format` and `--status-file`")
    iggy = dict(IGGY)
    own = [] if number else streams[:1]
    for stream in own:
        put_count(stream, "batch_length", iggy, "batch_size", "iggy")
        put_duration(stream, "poll_interval", iggy, "poll_interval", "iggy")
    for stream in streams[len(own) :]:
        stream.ignored("batch_length", "poll_interval", because="`iggy` of the pipeline is that of all routes")
    documents.pipeline.setdefault("iggy", iggy)
    documents.comments.setdefault("/iggy", IGGY_COMMENT)
    return influxdb


def _route(influxdb: Tree, documents: Documents, connectors: int) -> Tree:
    """Return what the routes of a connector have of `influxdb`: with one connector it is that of the pipeline."""
    if connectors > 1:
        return {"influxdb": influxdb}
    documents.pipeline["influxdb"] = influxdb
    return {}


# --- influxdb_sink ---


def convert_sink(configuration: Configuration, options: Options) -> Documents:
    """Return a writer for each stream of the sink: the payload as one string field, as the sink stores it."""
    documents = Documents(configuration.report)
    connectors = list(_connectors(configuration.root, "sinks"))
    for which, connector in enumerate(connectors):
        settings = connector.part("plugin_config")
        streams = connector.parts("streams")
        influxdb = _common(connector, settings, documents, streams, which)
        precision = settings.text("precision") or "us"
        influxdb["precision"] = precision if precision in _PRECISIONS else "us"
        if precision not in _PRECISIONS:
            settings.not_taken("precision", "expected ns, us, ms or s; `us` is the default of the sink")
        elif "precision" in settings:
            settings.taken("precision", f"`influxdb.precision: {precision}`")
        put_count(settings, "batch_size", influxdb, "batch_size")
        route = _route(influxdb, documents, len(connectors))
        point = _sink_point(settings)
        for stream in streams:
            draft = _sink_draft(stream, settings, point, options)
            documents.drafts.append(draft)
            draft.route |= route
            group = stream.text("consumer_group")
            if group:
                draft.route["consumer"] = {"group": group}
                stream.taken("consumer_group", f"`consumer.group`: {_GOES_ON}")
            else:
                theirs = f"`iggy-connect-sink-{connector.text('key') or 'KEY'}`"
                became = (
                    f"the group of the route has the name of its mapping; with `consumer.group`: {theirs}, {_GOES_ON}"
                )
                stream.remark(Verdict.APPROXIMATED, "streams.consumer_group", became)
    return documents


def _sink_point(settings: Part) -> Tree:
    """Return the point that the sink writes of a message."""
    name = settings.text("measurement") or "iggy_messages"
    if "measurement" in settings:
        settings.taken("measurement", f"`measurement: {{const: {name}}}`")
    tags: Tree = {}
    fields: Tree = {}
    has_metadata = settings.flag("include_metadata", default=True)
    if "include_metadata" in settings:
        settings.taken(
            "include_metadata", "tags and fields of `meta(…)`" if has_metadata else "no such tags and fields"
        )
    for word in ("stream", "topic", "partition"):
        key = f"include_{word}_tag"
        is_tag = settings.flag(key, default=True)
        if has_metadata and is_tag:
            tags[word] = f"meta('{word}')"
        elif has_metadata:
            kind = "unsigned" if word == "partition" else "string"
            fields[f"iggy_{word}"] = {"expr": f"meta('{word}')", "type": kind}
        if key in settings:
            settings.taken(key, f"the tag `{word}`" if is_tag else f"the field `iggy_{word}`")
    tags["offset"] = "meta('offset')"
    fields["message_id"] = {"expr": "to_string(meta('id'))", "type": "string"}
    if settings.flag("include_checksum", default=True):
        became = "no field `iggy_checksum`: messages have no checksum here"
        if "include_checksum" in settings:
            settings.not_taken("include_checksum", became)
        else:
            settings.remark(Verdict.NOT_TAKEN, "include_checksum", became)
    elif "include_checksum" in settings:
        settings.taken("include_checksum", "no field")
    has_origin = settings.flag("include_origin_timestamp", default=True)
    if has_origin:
        fields["iggy_origin_timestamp"] = {"expr": "meta('origin_timestamp')", "type": "unsigned"}
    if "include_origin_timestamp" in settings:
        settings.taken("include_origin_timestamp", "the field `iggy_origin_timestamp`" if has_origin else "no field")
    return {"measurement": {"const": name}, "tags": tags, "fields": fields}


def _stored(schema: str, stored: str) -> tuple[str, str, str, str]:
    """Return what a sink makes of payloads: ours of `from.payload`, the field, its expression, and what differs.

    The sink decodes by `schema`, and writes a payload that it decoded from JSON as compact JSON, in all its formats.
    """
    made = "format('{}', @)"
    if stored in ("base64", "raw"):
        if schema == "json":
            return "json", "payload_base64", f"base64_encode({made})", _OTHER_JSON
        return "raw", "payload_base64", "@", ""
    if stored in ("text", "utf8"):
        if schema == "json":
            return "json", "payload_text", made, _OTHER_JSON
        return "text", "payload_text", "@", _LINE_BREAKS
    if schema not in _SCHEMAS:
        return "raw", "payload_json", "@", ""
    is_sorted = "" if schema == "json" else "; members of objects keep their order, and the sink sorts them"
    return "json", "payload_json", made, f"{is_sorted}{_OTHER_JSON}"


def _sink_draft(stream: Part, settings: Part, point: Tree, options: Options) -> Draft:
    name, topics = stream.text("stream"), stream.texts("topics") or stream.texts("topic")
    schema, stored = stream.text("schema") or "json", (settings.text("payload_format") or "json").lower()
    for key, became in (("stream", "`from.stream`"), ("topics", "`from.topic`"), ("topic", "`from.topic`")):
        if key in stream:
            stream.taken(key, became)
    payload, key, expression, differs = _stored(schema, stored)
    if schema not in _SCHEMAS:
        became = f"`from.payload: {payload}`: see the formats of payloads for one that decodes it"
        stream.approximated("schema", became)
    elif "schema" in stream:
        by = "" if payload == schema else ", by `payload_format`"
        stream.taken("schema", f"`from.payload: {payload}`{by}")
    became = f"the field `{key}`, as there{differs}"
    if "payload_format" not in settings:
        settings.remark(Verdict.APPROXIMATED if differs else Verdict.TAKEN, "payload_format", became)
    elif differs:
        settings.approximated("payload_format", became)
    else:
        settings.taken("payload_format", became)
    stream.not_needed("linger_time", because="see `influxdb.linger`")
    point = {**point, "fields": {**point["fields"], key: {"expr": expression, "type": "string"}}}
    listed = topics[0] if len(topics) == 1 else topics or [options.topic or "my-topic"]
    source = {"stream": name or options.stream or "my-stream", "topic": listed, "payload": payload}
    notes = [
        "The sink stores the whole payload as one string. To store its members as fields of their own types, write",
        "them under `fields`; `iggyflux infer SAMPLES` proposes them.",
    ]
    comments = {
        "/points/tags/offset": "as the sink has it: one series a message; without it, `timestamp: {spread: offset}`",
    }
    tree = {"iggyflux": 1, "kind": "writer", "from": source, "points": [point]}
    stem = "-".join([name, *topics[:1]])
    return Draft(slug(stem), tree, comments, notes, options.samples)


# --- influxdb_source ---


def convert_source(configuration: Configuration, options: Options) -> Documents:
    """Return a reader for each stream of the source."""
    documents = Documents(configuration.report, comments={})
    connectors = list(_connectors(configuration.root, "sources"))
    for which, connector in enumerate(connectors):
        settings = connector.part("plugin_config")
        streams = connector.parts("streams")
        influxdb = _common(connector, settings, documents, streams, which)
        put_duration(settings, "poll_interval", influxdb, "poll_interval")
        put_count(settings, "batch_size", influxdb, "page_size")
        is_sql = influxdb.get("flavor") == "v3"
        source = _source_query(settings, is_sql=is_sql)
        if (
            is_sql is False
            and "bucket" not in influxdb
            and (bucket := re.search(r'from\s*\(\s*bucket\s*:\s*"([^"\\]*)"', settings.text("query")))
        ):
            influxdb["bucket"] = bucket[1]
        route = _route(influxdb, documents, len(connectors))
        messages = _source_messages(settings, is_sql=is_sql)
        cursor: Tree = {}
        start = settings.text("initial_offset")
        if start:
            try:
                parse_rfc3339(start)
            except TimestampError:
                settings.not_taken(
                    "initial_offset", "expected a time as RFC 3339; the reader begins at the first point"
                )
            else:
                cursor["start"] = start
                settings.taken("initial_offset", "`cursor.start`")
        column = settings.text("cursor_field")
        if column not in _TIMES:
            cursor["column"] = column
        if "cursor_field" in settings:
            settings.taken("cursor_field", "`cursor.column`; the time of a row is `time` by default")
        for stream in streams:
            target = {
                "stream": stream.text("stream") or options.stream or "my-stream",
                "topic": stream.text("topic") or options.topic or "my-topic",
            }
            for key in ("stream", "topic"):
                if key in stream:
                    stream.taken(key, f"`to.{key}`")
            schema = stream.text("schema") or "json"
            if schema != "json":
                stream.approximated("schema", "`to.payload: json`: a reader has no such payload")
            elif "schema" in stream:
                stream.taken("schema", "`to.payload: json`")
            stream.not_needed("linger_time", because="a window is sent as soon as it is read")
            tree: Tree = {"iggyflux": 1, "kind": "reader", "from": dict(source)}
            tree |= {"cursor": cursor} if cursor else {}
            tree |= {"messages": messages} if messages else {}
            tree["to"] = {**target, "payload": "json"}
            notes = ["Positions begin anew: `cursor.start` says where. Rows are read in windows of time."]
            row = _row(settings, is_sql=is_sql)
            found = re.search(r'_measurement\s*==\s*"([^"\\]+)"', settings.text("query"))
            name = found[1] if found and not is_sql else ""
            name_of_it = slug("-".join(target.values()))
            documents.drafts.append(Draft(name_of_it, tree, {}, notes, row=row, measurement=name, route={**route}))
    return documents


def _source_query(settings: Part, *, is_sql: bool) -> Tree:
    """Return `from` of the reader: the query with our window in the place of their cursor, else a measurement."""
    query = settings.text("query").strip()
    made = _sql(query) if is_sql else _flux(query)
    language = "sql" if is_sql else "flux"
    if query and made is not None:
        settings.approximated(
            "query", f"`from.statement` in {language}: $start and $stop take the place of $cursor, $limit and $offset"
        )
        return {"statement": made, "language": language}
    found = (
        re.search(r'\bfrom\s+"?([A-Za-z_][\w.-]*)"?', query, re.IGNORECASE)
        if is_sql
        else re.search(r'_measurement\s*==\s*"([^"\\]+)"', query)
    )
    name = found[1] if found else "my-measurement"
    became = f"`from: {{measurement: {name}}}` instead: $cursor is where no window fits; write a `statement`"
    settings.remark(Verdict.NOT_TAKEN, "query", became)
    settings.not_needed("query", because="see the line above")
    return {"measurement": name}


def _flux(query: str) -> str | None:
    """Return a query in Flux with the window of a reader; None if $cursor is left somewhere else."""
    steps = re.split(r"\|>", query)
    kept = [steps[0].strip()]
    has_range = False
    for step in steps[1:]:
        text = step.strip()
        if text.startswith("range"):
            has_range = True
            kept.append("range(start: $start, stop: $stop)")
        elif "$limit" in text or (text.startswith("filter") and "$cursor" in text and " and " not in text):
            continue
        elif not text.startswith("sort"):
            kept.append(text)
    made = " |> ".join(kept)
    return made if has_range and not re.search(r"\$(?:cursor|limit|offset)", made) else None


def _sql(query: str) -> str | None:
    """Return a query in SQL with the window of a reader; None if $cursor is left somewhere else."""
    made = " ".join(query.rstrip(";").split())
    made = re.sub(r" (?:LIMIT|OFFSET) \$(?:limit|offset)\b", "", made, flags=re.IGNORECASE)
    made, count = re.subn(r"""\b"?(\w+)"?\s*>=?\s*'\$cursor'""", r"\1 >= $start AND \1 < $stop", made)
    made = re.sub(r" ORDER BY \w+(?: ASC)?$", "", made, flags=re.IGNORECASE)
    return made if count == 1 and not re.search(r"\$(?:cursor|limit|offset)", made) else None


def _row(settings: Part, *, is_sql: bool) -> Tree:
    """Return the columns of a row as the query may give it, without the time."""
    if column := re.sub(r'[\\"]', "", settings.text("payload_column")):
        return {column: '{"value": 21.5}'}
    if not is_sql:
        has_time = settings.text("cursor_field") in _TIMES
        return ({} if has_time else {"_time": 1_767_225_600_000_000_000}) | {"_field": "value", "_value": 21.5}
    selected = re.match(r"\s*SELECT\s+(.*?)\s+FROM\s", settings.text("query"), re.IGNORECASE | re.DOTALL)
    names = [name.strip().strip('"') for name in selected[1].split(",")] if selected else []
    plain = [name for name in names if re.fullmatch(r"\w+", name) and name != "time"]
    return dict.fromkeys(plain, 21.5) or {"value": 21.5}


def _source_messages(settings: Part, *, is_sql: bool) -> Tree:
    column, stored = settings.text("payload_column"), (settings.text("payload_format") or "json").lower()
    if "payload_format" in settings and (stored == "json" or not column):
        settings.taken("payload_format", "`to.payload: json`")
    has_metadata = settings.flag("include_metadata", default=True)
    if column:
        settings.approximated("payload_column", "the column as the whole payload, in JSON")
        settings.ignored("include_metadata", because="without effect where `payload_column` is given")
        if stored != "json":
            settings.approximated("payload_format", "the payload is a JSON string: a reader sends no plain text")
        name = re.sub(r'[\\"]', "", column)
        if stored != "json" or is_sql:  # rows of SQL have values, those of Flux have texts
            return {"payload": f'"{name}"'}
        return {"payload": f'if(is_string("{name}"), parse_json("{name}"), "{name}")'}
    if is_sql:
        return _sql_messages(settings, has_metadata=has_metadata)
    return _flux_messages(settings, has_metadata=has_metadata)


def _flux_messages(settings: Part, *, has_metadata: bool) -> Tree:
    """Return messages with the members that the source makes of a row of Flux."""
    is_cursor = settings.text("cursor_field") in _TIMES
    time = f"format_time({'time' if is_cursor else '_time'}, 'rfc3339')"
    row, became = f"{{_time: {time}, _value: _value}}", "`row` has `_time` and `_value`"
    if has_metadata:
        columns = "from_items(items(@)[?key != 'time'])" if is_cursor else "@"
        row = f"merge({columns}, {{_time: {time}, _measurement: meta('measurement')}})"
        became = "`row` has the columns of the query, without `result`, `table`, `_start` and `_stop`"
    told = settings.approximated if has_metadata else settings.taken
    if "include_metadata" in settings:
        told("include_metadata", became)
    elif has_metadata:
        settings.remark(Verdict.APPROXIMATED, "include_metadata", became)
    settings.approximated(
        None,
        "messages have the members of the source: measurement, field, timestamp, value, row; values have their types, "
        "where the source guesses them from the text, and times but `_time` are integers in nanoseconds",
    )
    return {
        "payload": {
            "measurement": "meta('measurement')",
            "field": "_field",
            "timestamp": time,
            "value": "_value",
            "row": row,
        }
    }


def _sql_messages(settings: Part, *, has_metadata: bool) -> Tree:
    """Return messages that are rows of SQL, in which the source has times as InfluxDB 3 writes them in JSON."""
    column = settings.text("cursor_field") or "time"
    if not has_metadata:
        settings.taken("include_metadata", f"the row without `{column}`")
        return {"payload": f"from_items(items(@)[?key != {literal(column)}])"}
    if "include_metadata" in settings:
        settings.taken("include_metadata", "the whole row is the payload")
    if column != "time":
        settings.approximated(None, "times of a row are integers in nanoseconds; the source has texts in UTC")
        return {}
    settings.approximated(None, "`time` is a text in UTC, as there; its fraction has no zeros at the end")
    return {"payload": "merge(@, {time: replace(format_time(time, 'rfc3339'), 'Z', '')})"}
