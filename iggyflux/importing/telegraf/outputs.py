"""Telegraf's outputs of InfluxDB as the section `influxdb` of a pipeline; several as more routes, with mappings."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import chain
from typing import Any, Final

from iggyflux.importing import Documents
from iggyflux.importing.configuration import Part
from iggyflux.importing.draft import Draft, Tree
from iggyflux.importing.influxdb import put_duration, put_text, put_url
from iggyflux.importing.names import string
from iggyflux.importing.report import Verdict
from iggyflux.importing.telegraf import filters, metric

_BY_TAGS: Final = ("taginclude", "tagexclude", "tagpass", "tagdrop", "bucket_tag", "database_tag")
FLAVORS: Final = {"influxdb": "v1", "influxdb_v2": "v2", "influxdb_v3": "v3"}
_FILES: Final = {
    "tls_ca": "ca_file",
    "tls_cert": "client_cert",
    "tls_key": "client_key",
    "tls_server_name": "domain",
}
_CLIENT: Final = (
    "user_agent",
    "idle_conn_timeout",
    "max_idle_conn",
    "max_idle_conn_per_host",
    "response_timeout",
    "ping_timeout",
    "read_idle_timeout",
    "concurrent_writes",
    "udp_payload",
    "write_consistency",
    "metric_batch_size",
    "metric_buffer_limit",
    "flush_interval",
    "flush_jitter",
)


def convert(outputs: Part, documents: Documents, tags: Tree) -> None:
    """Put the outputs into the pipeline.

    Each output has mappings of its own where it changes points, and no route for a mapping of which it drops all.
    `tags` are those of the pipeline: where an output chooses by tags, they go to the points, where that can be done.
    """
    found = []
    for kind, parts in outputs.children():
        for part in parts:
            if kind in FLAVORS:
                found.append((kind, part))
            else:
                part.not_taken(None, f"iggyflux writes to InfluxDB; keep Telegraf for the output {kind}")
    if not found:
        documents.pipeline["influxdb"] = {"url": "${INFLUX_URL:-http://127.0.0.1:8086}"}
        documents.report.add(
            0, "outputs", Verdict.APPROXIMATED, "no output of InfluxDB: complete `influxdb` of the pipeline"
        )
        return
    if by_tags := [(kind, part) for kind, part in found if any(key in part for key in _BY_TAGS)]:
        _into_points(tags, documents)
        for kind, part in by_tags if tags else ():
            became = f"tags with a variable are those of all routes, whatever this output chooses: {', '.join(tags)}"
            part.remark(Verdict.NOT_TAKEN, f"outputs.{kind}", became)
    made: list[list[Draft]] = [[] for _ in documents.drafts]
    for number, (kind, part) in enumerate(found, 1):
        changed = [draft.copied() for draft in documents.drafts]
        section = _section(kind, part, changed, f"_{number}" if number > 1 else "")
        if len(found) == 1:
            documents.pipeline["influxdb"] = section
        for draft, others in zip(changed, made, strict=True):
            if not draft.points:
                became = f"no route for {draft.name}: the filters of this output drop every metric of it"
                part.remark(Verdict.TAKEN, f"outputs.{kind}", became)
                continue
            same = next((other for other in others if other.tree == draft.tree), draft)
            if same is draft:
                others.append(draft)
            if len(found) > 1:
                same.sinks.append((number, section))
    documents.drafts = list(chain.from_iterable(made))


def choose_by_tags(outputs: Part) -> bool:
    """Return whether an output of InfluxDB needs the tags that all metrics have in the points."""
    return any(key in part for kind in FLAVORS for part in outputs.parts(kind) for key in _BY_TAGS)


def _into_points(tags: Tree, documents: Documents) -> None:
    """Move the tags that a mapping can have, which are those without a variable."""
    for key in [key for key, value in tags.items() if "${" not in value]:
        value = {"const": tags.pop(key)}
        for draft in documents.drafts:
            for point in draft.points:
                point["tags"].setdefault(key, dict(value))


def _section(kind: str, part: Part, drafts: Sequence[Draft], after: str) -> Tree:
    """Return the section of an output, and give points what it does to them; one that drops all leaves none.

    `after` is the end of its variables, which tells them from those of others.
    """
    flavor = FLAVORS[kind]
    section: Tree = {"flavor": flavor}
    urls = part.texts("urls") or part.texts("url")
    if urls:
        put_url(part, "urls" if "urls" in part else "url", section, urls[0], after)
        if len(urls) > 1:
            part.approximated("urls", "`influxdb.url` is the first one; put a load balancer before more of them")
    _TARGETS[flavor](part, section, after)
    if flavor != "v1" and (token := part.secret("token", f"INFLUX_TOKEN{after}", "influxdb.token")):
        section["token"] = token
    put_duration(part, "timeout", section, "timeout")
    _headers(part, section, after)
    _connection(part, section, after)
    _uints(kind, part, drafts)
    _buckets(part, drafts, section)
    for key in ("influx_omit_timestamp", "omit_timestamp"):
        if part.flag(key):
            part.not_taken(key, "points always have a time")
        else:
            part.not_needed(key, because="points have a time")
    part.not_needed(*_CLIENT, because="a setting of Telegraf's client; see `batch_size`, `linger` and `timeout`")
    for draft in drafts:
        for point in draft.points:
            if filters.choose(part, point):
                filters.shape(part, point)
        draft.tree["points"] = [point for point in draft.points if not point.pop("dropped", False)]
    return section


def _target_v1(part: Part, section: Tree, after: str) -> None:
    section["database"] = part.written(part.text("database") or "telegraf")
    if "database" in part:
        part.taken("database", "`influxdb.database`")
    put_text(part, "retention_policy", section, "retention_policy")
    section["create"] = not part.flag("skip_database_creation")
    if "skip_database_creation" in part:
        part.taken("skip_database_creation", "`influxdb.create`")
    put_text(part, "username", section, "username")
    password = part.secret("password", f"INFLUX_PASSWORD{after}", "influxdb.password")
    if password:
        section["password"] = password


def _target_v2(part: Part, section: Tree, _after: str) -> None:
    put_text(part, "organization", section, "org")
    put_text(part, "bucket", section, "bucket")


def _target_v3(part: Part, section: Tree, _after: str) -> None:
    put_text(part, "database", section, "database")
    if "sync" in part:
        section["no_sync"] = not part.flag("sync", default=True)
        part.taken("sync", "`influxdb.no_sync`")


_TARGETS: Final = {"v1": _target_v1, "v2": _target_v2, "v3": _target_v3}


def _connection(part: Part, section: Tree, after: str) -> None:
    for key, name in _FILES.items():
        put_text(part, key, section, name)
    secret = part.secret("tls_key_pwd", f"INFLUX_KEY_PASSPHRASE{after}", "influxdb.client_key_passphrase")
    if secret:
        section["client_key_passphrase"] = secret
    if "insecure_skip_verify" in part:
        section["verify"] = not part.flag("insecure_skip_verify")
        part.taken("insecure_skip_verify", "`influxdb.verify`")
    if "content_encoding" in part:
        section["gzip"] = "on" if part.text("content_encoding") == "gzip" else "off"
        part.taken("content_encoding", "`influxdb.gzip`")


def _headers(part: Part, section: Tree, after: str) -> None:
    headers: Tree = {}
    inside = part.part("http_headers")
    for key in inside.tree:
        variable = "INFLUX_HEADER_" + re.sub(r"[^A-Z0-9]", "_", key.upper()) + after
        value = inside.secret(key, variable, f"influxdb.headers.{key}")
        if value:
            headers[key] = value
    if headers:
        section["headers"] = headers


def _uints(kind: str, part: Part, drafts: Sequence[Draft]) -> None:
    """Let unsigned fields be integers, as the outputs write them by default."""
    keeps = part.flag("influx_uint_support") if kind != "influxdb_v3" else not part.flag("convert_uint_to_int")
    for key in ("influx_uint_support", "convert_uint_to_int"):
        if key in part:
            part.taken(key, "`type: unsigned`" if keeps else "`type: integer` for unsigned values")
    if keeps:
        return
    for draft in drafts:
        for point in draft.points:
            for value in point["fields"].values():
                if isinstance(value, dict) and value.get("type") == "unsigned":
                    value["type"] = "integer"


def _buckets(part: Part, drafts: Sequence[Draft], section: Tree) -> None:
    """Let a tag choose the bucket or the database of a point."""
    for key, other in (("bucket_tag", "exclude_bucket_tag"), ("database_tag", "exclude_database_tag")):
        tag, target = part.text(key), key.removesuffix("_tag")
        if not tag:
            continue
        found, default = False, str(section.get(target, ""))
        for draft in drafts:
            for point in draft.points:
                value: Any = point["tags"].get(tag)
                if value is not None:
                    found = True
                    point["to"] = {target: _or_default(value, default)}
                    if part.flag(other):
                        del point["tags"][tag]
        if found:
            section["buckets"] = ["*"]
            without = (
                "a point without the tag fails: write the default with `coalesce`"
                if not default or "${" in default
                else f"a point without the tag goes to `{default}`"
            )
            became = f"`to` of the points; {without}; `influxdb.buckets` says which are allowed: write them"
            part.approximated(key, became)
            part.not_needed(other, because="see the tag")
        else:
            part.not_taken(key, "no mapping has this tag; see `to` of points")


def _or_default(value: Any, default: str) -> Any:
    """Return the target of a point: its tag, or where it has none what the output names, unless that is a variable."""
    is_sure = isinstance(value, dict) and ("const" in value or "default" in value)
    if is_sure or not default or "${" in default:
        return value
    return f"coalesce({metric.expression_of(value)}, {string(default)})"
