"""InfluxDB, and the simulator of it (IFX720 to IFX759)."""

from __future__ import annotations

from iggyflux.codes.code import Code

CODES: tuple[Code, ...] = (
    Code(
        "IFX720",
        "not InfluxDB's write address",
        meaning="Something answered a write as InfluxDB never does: a web page, a 200, an unknown route.",
        fix="Correct `url` (with the path, behind a proxy) and `flavor`. Only the status 204 acknowledges a write.",
        example="url: http://influx.example.org/signin",
    ),
    Code(
        "IFX721",
        "credentials refused",
        meaning="InfluxDB does not know the token, or the user and password.",
        fix="Correct `token` (2.x, 3.x) or `username` and `password` (1.x).",
    ),
    Code(
        "IFX722",
        "no permission to write",
        meaning="InfluxDB knows the credentials, but they may not write to this database or bucket.",
        fix="Give them write permission; in 2.x also look whether the token is active.",
    ),
    Code(
        "IFX723",
        "database, bucket or organization missing",
        meaning="InfluxDB does not have what `database`, `bucket` or `org` names, or hides it from this token.",
        fix="Create it, set `create: true`, or correct the name.",
    ),
    Code(
        "IFX724",
        "retention policy missing",
        meaning="The database of an InfluxDB 1.x has no retention policy of that name.",
        fix="Create it, or correct `retention_policy`.",
    ),
    Code(
        "IFX725",
        "redirect",
        meaning="The address answers with a redirect. None is followed: the token would go along.",
        fix="Set `url` to the address of InfluxDB itself.",
        example="url: http://influx.example.org, which redirects to https",
    ),
    Code(
        "IFX726",
        "proxy in the way",
        meaning="The proxy that HTTPS_PROXY, HTTP_PROXY or ALL_PROXY names wants credentials or cannot be used.",
        fix="Put user and password into the variable, or name the host in NO_PROXY.",
    ),
    Code(
        "IFX727",
        "TLS refused",
        meaning="No trust between us and the server: its certificate, ours, or only one of the two speaks TLS.",
        fix="Set `ca_file`, or `client_cert` and `client_key`; use http:// where the server speaks no TLS, and "
        "https:// where it does.",
    ),
    Code(
        "IFX728",
        "setting that the server cannot follow",
        meaning="A setting of the connection is missing, or means nothing to this flavour of InfluxDB.",
        fix="Follow the hint, or pin another `flavor`.",
        example="flavor: v1 with org: acme",
    ),
    Code(
        "IFX729",
        "server not recognized",
        meaning="The answer to /ping does not tell what the server is, or tells something else than `flavor`.",
        fix="Check `url`, or set `flavor` to what the server speaks.",
    ),
    Code(
        "IFX730",
        "server not reached",
        meaning="No answer: the name does not resolve, nothing listens, or the server is overloaded.",
        fix="Start the server, correct `url`, or look at the network.",
    ),
    Code(
        "IFX731",
        "answer that fits no write",
        meaning="The server, or something before it, refuses the request whatever its lines are.",
        fix="Read the answer: is a proxy, a firewall or another product at that address?",
    ),
    Code(
        "IFX732",
        "URL not usable",
        meaning="`url` is not an http or https address with a host.",
        fix="Write it as scheme, host, port and, behind a proxy, path.",
        example="url: influx.example.org",
    ),
    Code(
        "IFX733",
        "certificate files not usable",
        meaning="`ca_file`, `client_cert` or `client_key` cannot be read, or do not fit together.",
        fix="Give PEM files; the key without a passphrase.",
    ),
    Code(
        "IFX735",
        "limit of the server reached",
        meaning="InfluxDB 3 has as many databases as it may have.",
        fix="Raise the limit, or write to a database that exists.",
    ),
    Code(
        "IFX740",
        "not InfluxDB's query address",
        meaning="Something answered a query as InfluxDB never does: a web page, or a status that it does not give.",
        fix="Correct `url` (with the path, behind a proxy) and `flavor`.",
        example="url: http://influx.example.org/signin",
    ),
    Code(
        "IFX741",
        "no permission to read",
        meaning="InfluxDB knows the credentials, but they may not read from this database or bucket.",
        fix="Give them read permission; in 2.x also look whether the token is active.",
    ),
    Code(
        "IFX742",
        "query refused",
        meaning="InfluxDB cannot answer the statement, however often it is asked; the message holds its words.",
        fix="Correct `statement`, or the names under `from`, in the mapping.",
        example="statement: SELECT mean() FROM env WHERE time >= $start AND time < $stop",
    ),
    Code(
        "IFX743",
        "language not spoken",
        meaning="This server does not answer queries in the language that the mapping names, or in none.",
        fix="Set `language: auto`, or what it speaks: influxql or flux (1.x, 2.x), sql or influxql (3.x).",
        example="language: flux, and an InfluxDB 3",
    ),
    Code(
        "IFX744",
        "columns of one name",
        meaning="A tag has the name of a field. It is read as NAME_tag then, but another column has that name, too.",
        fix="Choose with `fields` and `tags` so that no two of them meet.",
    ),
    Code(
        "IFX745",
        "Flux would change the rows",
        meaning=(
            "Flux gives rows otherwise than they are stored: of a field with several types it drops all but one, it "
            "changes line ends, makes null of empty texts, and fails on some names of tags."
        ),
        fix="Set `language: influxql`, or `auto`, which finds out.",
        example="language: flux, and a field that is an integer in one shard and a float in another",
    ),
    Code(
        "IFX746",
        "answer cannot be kept",
        meaning="An answer is kept on disk until it is complete, and the disk takes no more.",
        fix="Make room in the folder for temporary files (TMPDIR), or take a smaller `window`.",
    ),
    Code(
        "IFX747",
        "answer not understood",
        meaning="A complete answer is not what its format says.",
        fix="Report it, with the version of the server.",
    ),
    Code(
        "IFX748",
        "no such time",
        meaning="The rows have no column of the name that `cursor.column` gives.",
        fix="Remove `column` for a measurement; for a statement, name the column of its times.",
        example="measurement: env, and cursor: {column: at}",
    ),
    Code(
        "IFX749",
        "beginning not found",
        meaning="Where the rows of a statement begin cannot be found out: the server cannot answer it for all times.",
        fix="Set `cursor.start` to a time.",
        example="a statement with GROUP BY time(1s), and start: beginning",
    ),
    Code(
        "IFX750",
        "fault not understood",
        meaning="A fault or a scenario for the simulator has an unknown kind or key, or a value that makes no sense.",
        fix="Correct it as the message says; docs/simulator.md lists the kinds of faults and their keys.",
        example="iggyflux sim --fault statu:status=503",
    ),
    Code(
        "IFX751",
        "type of a number not known",
        meaning=(
            "A field has several numeric types, and whether a value is an integer, a float or unsigned cannot be found "
            "out: shards are narrower than an hour, or the server does not answer in MessagePack."
        ),
        fix="Leave the field out: name the others under `fields`.",
        example="integers, floats and integers again within one hour, in a bucket whose shard width was changed twice",
    ),
)
