"""Iggy (IFX760 to IFX799)."""

from __future__ import annotations

from iggyflux.codes.code import Code

CODES: tuple[Code, ...] = (
    Code(
        "IFX760",
        "the iggy section cannot be used",
        meaning="The `iggy` section or the consumer asks for what Iggy or its SDK does not have.",
        fix="Do as the hint says.",
        example="iggy: {transport: http}\nconsumer: {group: writers}",
    ),
    Code(
        "IFX761",
        "no encrypted connection to Iggy",
        meaning="Certificates do not fit: the server's is not trusted, or does not carry the name.",
        fix="Correct `tls`, `ca_file` and `domain`.",
    ),
    Code(
        "IFX763",
        "Iggy does not let us in",
        meaning="Name, password or token are wrong, or the user lacks the right for this stream and topic.",
        fix="Correct the `iggy` section, or give the user the rights to read, poll and send.",
    ),
    Code(
        "IFX764",
        "another version of Iggy",
        meaning="Client and server do not understand each other. This client speaks with servers 0.9.x only.",
        fix="Run a server 0.9.x.",
    ),
    Code(
        "IFX766",
        "no such stream or topic in Iggy",
        meaning="A stream or topic that is named is not there.",
        fix="Correct the name, create it by hand, or for dead letters and a reader's messages set `create: true`.",
    ),
    Code(
        "IFX767",
        "cannot create the topic",
        meaning="The server refused to create a stream or topic; the message holds its words.",
        fix="Create it by hand: `iggy topic create STREAM TOPIC PARTITIONS none`.",
    ),
    Code(
        "IFX768",
        "the group was not rebuilt",
        meaning="While `regroup` rebuilt a consumer group, another process joined it, or the connection broke.",
        fix="Stop every process of the group, and run it again; the hint holds the offsets that were stored.",
    ),
    Code(
        "IFX769",
        "members of the group are connected",
        meaning="`regroup` deletes a group with its members, and some of them are processes that run, or may be.",
        fix="Stop every process of the group, or say `--yes`: those that run join again within seconds.",
    ),
    Code(
        "IFX775",
        "a message that Iggy does not take",
        meaning="A payload is empty or larger than 64 MB, or a header's key or value has no or more than 255 bytes.",
        fix="Correct the mapping that makes the message.",
    ),
    Code(
        "IFX776",
        "a message with a time of its own",
        meaning="A mapping sets the timestamp of a message, and the Iggy SDK cannot send one.",
        fix="Put the time into a header or into the payload.",
        example="messages:\n- timestamp: time",
    ),
)
