"""Logs, files and dead letters on this machine (IFX700 to IFX719)."""

from __future__ import annotations

from iggyflux.codes.code import Code

CODES: tuple[Code, ...] = (
    Code(
        "IFX701",
        "positions not usable",
        meaning=(
            "The database of a consumer's or a reader's positions, or the message that holds those of a reader, cannot "
            "be read or written, is damaged, or has another format: that of an older or newer release."
        ),
        fix=(
            "Free space or correct the permissions; put back a copy of the file, or remove it to begin where `start` "
            "says. Another format: go on with the release that wrote it, or as the hint says (docs/operations.md)."
        ),
    ),
    Code(
        "IFX702",
        "consumer in use",
        meaning=(
            "Another process reads under this consumer's name; two would acknowledge each other's messages. Where the "
            "positions of a reader are in a topic: since our last message there, somebody else has stored under its "
            "name."
        ),
        fix="Stop the other process, or give this run another consumer name.",
        example="two `iggyflux run` of one pipeline on `log:data`",
    ),
    Code(
        "IFX703",
        "no such log",
        meaning="`log:DIR` names a folder that does not exist or cannot be made.",
        fix="Fill it first with `iggyflux log append` or `iggyflux log generate`, or correct the path.",
        example="from: log:no-such-folder",
    ),
    Code(
        "IFX704",
        "log takes no more",
        meaning=(
            "A message could not be appended: the disk is full, or the folder may not be written. What was appended "
            "before is whole."
        ),
        fix="Free space or correct the permissions.",
    ),
    Code(
        "IFX705",
        "log damaged",
        meaning=(
            "A message of a log is not what its checksum says, or the log's file is damaged. A crash does not do that. "
            "The sound messages before it were read."
        ),
        fix=("Put back a copy of the file, or begin behind the damage with a new consumer and `start: {offset: N}`."),
    ),
    Code(
        "IFX706",
        "position beyond the end",
        meaning="A consumer's position, or `start`, lies beyond the last message: the log was cut or replaced.",
        fix="Give the consumer a new name, or correct `start`.",
        example="start: {offset: 1000} on a log of 10 messages",
    ),
    Code(
        "IFX707",
        "no topic matches",
        meaning=(
            "No topic of the log is the mapping's `from.stream` and `from.topic`, and the run is to end with what is "
            "there."
        ),
        fix="Correct the names in the mapping; `iggyflux log info` shows what there is.",
        example="from: {stream: factory, topic: reading}",
    ),
    Code(
        "IFX708",
        "log of another format",
        meaning=(
            "The folder holds a log that another version of iggyflux or another program wrote. It is never read as "
            "empty."
        ),
        fix=(
            "Copy it with the version that wrote it: `iggyflux log tail DIR STREAM/TOPIC -n 1000000000 --envelope` "
            "prints the messages, and `iggyflux log append NEW STREAM/TOPIC --envelope` of this version takes them."
        ),
    ),
    Code(
        "IFX709",
        "backup exists",
        meaning="A backup never replaces a file.",
        fix="Name a folder that is new or empty.",
        example="iggyflux state backup .iggyflux backups",
    ),
    Code(
        "IFX710",
        "file not usable",
        meaning="An input file cannot be read, or an output file cannot be written.",
        fix="Check the path and its permissions.",
        example="to: file:/",
    ),
    Code(
        "IFX711",
        "line is no message",
        meaning=(
            "A line of an input file with `envelope: true` is not a message: JSON with one of payload, payload_text "
            "and payload_base64."
        ),
        fix="Correct the line, or leave `envelope` out where lines are bare payloads.",
        example='{"ofset": 2}',
    ),
    Code(
        "IFX712",
        "file was replaced",
        meaning=(
            "An input file is shorter than what was read of it, or begins otherwise: its position means nothing any "
            "more."
        ),
        fix="Remove the file of its position (named in the hint) to read it from its beginning.",
    ),
    Code(
        "IFX713",
        "a file has no offsets",
        meaning="`start` of a file is an offset or a time.",
        fix="Take `first` or `last`.",
        example="start: {offset: 3}",
    ),
    Code(
        "IFX715",
        "dead letters cannot be kept",
        meaning=(
            "The place of dead letters is full, cannot be written, or is removed again and again. The run stops, since "
            "nothing is dropped."
        ),
        fix="Free space or correct the permissions, and run again.",
    ),
    Code(
        "IFX716",
        "dead letter damaged",
        meaning="A line of a dead-letter file is no dead letter.",
        fix="Remove or correct the line; file and line number are named.",
    ),
    Code(
        "IFX717",
        "no dead letters",
        meaning="There is nothing at the place where dead letters were to be read.",
        fix="Check the path: by default it is `dead-letters/NAME` beside the pipeline file.",
    ),
)
