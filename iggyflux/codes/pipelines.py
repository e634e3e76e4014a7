"""Pipeline files (IFX8xx)."""

from __future__ import annotations

from iggyflux.codes.code import Code

CODES: tuple[Code, ...] = (
    Code(
        "IFX801",
        "pipeline file not readable",
        meaning="The pipeline file does not exist, is a folder, or may not be read.",
        fix="Check the path and its permissions.",
        example="iggyflux run no-such-file.yaml",
    ),
    Code(
        "IFX802",
        "variable not set",
        meaning="A `${VAR}` of the pipeline file names an environment variable that is not set or is empty.",
        fix="Set the variable, or give it a default: `${VAR:-default}`. A literal `${VAR}` is written `$${VAR}`.",
        example="token: ${NOT_SET}",
    ),
    Code(
        "IFX803",
        "secret file not readable",
        meaning="The file that `file:PATH` names as the place of a secret cannot be read, or is empty.",
        fix="Check the path (relative to the pipeline file) and its permissions.",
        example="token: file:/run/secrets/none",
    ),
    Code(
        "IFX804",
        "not a duration",
        meaning="A duration is a number and a unit without a space.",
        fix='Write "250ms", "10s", "5m", "1h" or "1d".',
        example="linger: 10",
    ),
    Code(
        "IFX805",
        "not a size",
        meaning="A size is a number of bytes, or a number with a unit.",
        fix='Write 5000000, "5MB" or "512KiB".',
        example="batch_bytes: 5 mega",
    ),
    Code(
        "IFX806",
        "unknown end of a route",
        meaning="`from` or `to` names a place that this version does not know, or lacks its path.",
        fix=(
            "Take one of `iggy`, `log:DIR`, `file:PATH`, `stdin` to read messages, `influxdb`, `file:PATH`, `stdout` "
            "to write lines."
        ),
        example="from: logs:data",
    ),
    Code(
        "IFX807",
        "section missing",
        meaning="A route, or `state`, needs a server whose connection the file does not describe.",
        fix="Add the section `iggy` or `influxdb` at the top of the file.",
        example="to: influxdb",
    ),
    Code(
        "IFX808",
        "no such mapping file",
        meaning="The mapping of a route does not exist. Paths are relative to the pipeline file.",
        fix="Correct the path.",
        example="run: [{mapping: mappings/nothing.yaml}]",
    ),
    Code(
        "IFX809",
        "not a usable address",
        meaning="`url` is not an http or https address, or holds a user name or password, which would end up in logs.",
        fix="Write scheme, host and port only; put credentials in `username`, `password` or `token`.",
        example="url: http://me:secret@127.0.0.1:8086",
    ),
    Code(
        "IFX810",
        "keys that do not go together",
        meaning="Two keys contradict each other, or one is useless without another.",
        fix="Keep `token`, or `username` with `password`; give `client_key` only with `client_cert`, "
        "and `exclusive` only with a group.",
        example="influxdb: {token: …, password: …}",
    ),
    Code(
        "IFX811",
        "two routes of one name",
        meaning=(
            "Two routes have one name, or read one place as one consumer: they would acknowledge each other's messages."
        ),
        fix="Give one of them a `name`, or another `consumer`.",
        example="run: [{mapping: a.yaml}, {mapping: a.yaml}]",
    ),
    Code(
        "IFX812",
        "not a point to start at",
        meaning="`start: {timestamp: …}` is not an RFC 3339 timestamp.",
        fix="Write it as 2026-01-31T12:00:00Z.",
        example="start: {timestamp: yesterday}",
    ),
    Code(
        "IFX813",
        "ends that do not suit the mapping",
        meaning=(
            "A writer mapping goes from messages to lines, a reader mapping from rows to messages; the route's ends do"
            " not."
        ),
        fix="Correct `from` and `to`, or name the other mapping.",
        example="{mapping: a-writer.yaml, from: influxdb, to: stdout}",
    ),
    Code(
        "IFX814",
        "secret in the file",
        meaning="A token or password is written into the pipeline file in plain (a warning).",
        fix="Write `${VARIABLE}` or `file:PATH` instead.",
        example="token: my-token",
    ),
    Code(
        "IFX815",
        "no such route",
        meaning="`--mapping` names a route that the pipeline does not have.",
        fix="Take one of the names that the hint lists.",
        example="iggyflux run pipeline.yaml --mapping nothing",
    ),
)
