"""`timestamp` of a point, and the times and durations of a cursor."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

from iggyflux.documents import join_pointer
from iggyflux.mapping.reading import Reading, object_of, scalar_of
from iggyflux.records import JSON, Scalar
from iggyflux.spec import Const, Source, Timestamp, TimestampFormat
from iggyflux.timestamps import (
    TimestampError,
    check_pattern,
    load_zone,
    parse_flexible,
    parse_pattern,
    parse_rfc3339,
    scale_number,
)

NO_TIMESTAMP = "IFX150"
_MOST_PARTITIONS = 1000  # one nanosecond below a microsecond for each
_DURATION = re.compile(r"([0-9]{1,18})(ns|us|ms|s|m|h|d)")
_UNITS_NS = {
    "ns": 1,
    "us": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
    "d": 86_400_000_000_000,
}
_NUMBERS = {
    TimestampFormat.UNIX_S: 1_000_000_000,
    TimestampFormat.UNIX_MS: 1_000_000,
    TimestampFormat.UNIX_US: 1_000,
    TimestampFormat.UNIX_NS: 1,
}


def read_timestamp(
    reading: Reading, point: Mapping[str, JSON], point_pointer: str, in_elements: bool = False
) -> Timestamp:
    """Return `timestamp` of a point; without one, the message's own time, which causes a warning."""
    if "timestamp" not in point:
        if point_pointer not in reading.misspelt:  # else it may be present under another name
            reading.warn(
                NO_TIMESTAMP,
                point_pointer,
                "points without `timestamp` have the message's time: with equal tags, points of the same microsecond"
                " overwrite each other",
                key=True,
                hint="use timestamp: {expr: …, format: …} for a time in the message, or {spread: offset}",
            )
        return Timestamp(None, TimestampFormat.UNIX_US, None, None, False, None, point_pointer)
    pointer = join_pointer(point_pointer, "timestamp")
    return _Timestamp(reading, object_of(point["timestamp"]), pointer, in_elements).read()


class _Timestamp:
    """Reads one `timestamp`."""

    def __init__(self, reading: Reading, tree: Mapping[str, JSON], pointer: str, in_elements: bool) -> None:
        self.in_elements = in_elements
        self.reading = reading
        self.tree = tree
        self.pointer = pointer

    def read(self) -> Timestamp:
        source = self.source()
        written, pattern = self.format()
        zone = self.zone(written, pattern)
        if "expr" not in self.tree and "const" not in self.tree:
            for key in ("format", "timezone", "default", "dayfirst"):
                self.meaningless(key, "without `expr` the message's timestamp is used")
        elif written is not TimestampFormat.FLEXIBLE and "format" in self.tree:
            self.meaningless("dayfirst", "it applies only to `flexible`")
        if "const" in self.tree:
            self.meaningless("default", "a constant is never missing")
        self.check_spread()
        dayfirst, partitions = self.tree.get("dayfirst"), self.tree.get("partitions")
        spread: Literal["offset", "index"] | None = self.reading.choice(self.tree, "spread", ("offset", "index"))
        timestamp = Timestamp(
            source=source,
            format=written,
            pattern=pattern,
            timezone=zone,
            default_message=self.tree.get("default") == "message",
            spread=spread if "spread" in self.tree else None,
            pointer=self.pointer,
            dayfirst=dayfirst if isinstance(dayfirst, bool) else None,
            partitions=partitions if type(partitions) is int and 1 <= partitions <= _MOST_PARTITIONS else 1,
        )
        if isinstance(source, Const) and not self.reading.problems:
            self.check_constant(source.value, timestamp)
        return timestamp

    def at(self, key: str) -> str:
        return join_pointer(self.pointer, key)

    def meaningless(self, key: str, why: str) -> None:
        if key in self.tree and self.pointer not in self.reading.misspelt:
            self.reading.report("IFX126", self.at(key), f"`{key}` has no effect: {why}", key=True)

    def source(self) -> Source | None:
        if "expr" in self.tree and "const" in self.tree:
            hint = "remove one of them"
            self.reading.report(
                "IFX117", self.at("const"), "`expr` and `const` are mutually exclusive", key=True, hint=hint
            )
        if "expr" in self.tree:
            return self.reading.expression(self.tree["expr"], self.at("expr"), "a string or a number")
        constant = scalar_of(self.tree.get("const"))
        return None if constant is None else Const(constant)

    def format(self) -> tuple[TimestampFormat, str | None]:
        value = self.tree.get("format")
        if isinstance(value, str) and "%" in value:
            return TimestampFormat.PATTERN, value
        known = {kind.value: kind for kind in TimestampFormat if kind is not TimestampFormat.PATTERN}
        return known.get(str(value), TimestampFormat.UNIX_US), None

    def zone(self, written: TimestampFormat, pattern: str | None) -> str | None:
        zone = self.tree.get("timezone")
        if zone is not None and not isinstance(zone, str):
            return None
        has_offset = False
        if pattern is not None:
            try:
                has_offset = check_pattern(pattern)
            except TimestampError as error:
                self.reading.report("IFX125", self.at("format"), error.reason)
                return None
        if zone is None:
            if pattern is not None and not has_offset:
                hint = "add `timezone: UTC`, or the zone of these times"
                if pattern.endswith("Z") and "T%H:%M:%S" in pattern:
                    hint = "use `format: rfc3339`; in a pattern, %z reads the Z"
                self.reading.report(
                    "IFX125", self.at("format"), "the pattern has no offset (%z), and `timezone` is missing", hint=hint
                )
            return None
        if has_offset:
            self.meaningless("timezone", "the pattern has the offset (%z)")
        elif written in _NUMBERS or written is TimestampFormat.RFC3339:
            if "format" in self.tree and self.at("format") not in self.reading.reported:
                self.meaningless("timezone", f"{written.value} needs no time zone")
        else:
            try:
                load_zone(zone)
            except TimestampError as error:
                self.reading.report(
                    "IFX125", self.at("timezone"), error.reason, hint="use an IANA name such as Europe/Berlin or UTC"
                )
                return None
        return zone

    def check_spread(self) -> None:
        """Report a `spread` that cannot keep points apart."""
        spread = self.tree.get("spread")
        if spread == "index" and not self.in_elements:
            self.meaningless("spread", "without `for_each` there are no elements")
        if spread is not None and self.tree.get("format") == "unix_ns":
            message = "`spread` has no room: unix_ns times use the nanoseconds themselves"
            self.reading.report("IFX125", self.at("spread"), message, key=True)
        if spread != "offset":
            self.meaningless("partitions", "only `spread: offset` tells partitions apart")

    def check_constant(self, value: Scalar, timestamp: Timestamp) -> None:
        written, pattern, zone = timestamp.format, timestamp.pattern, timestamp.timezone
        try:
            if written in _NUMBERS:
                if isinstance(value, bool):
                    return
                scale_number(value, _NUMBERS[written])
            elif not isinstance(value, str):
                raise TimestampError(f"{written.value} needs a string")
            elif pattern is not None:
                parse_pattern(value, pattern, zone)
            elif written is TimestampFormat.RFC3339:
                parse_rfc3339(value)
            else:
                parse_flexible(value, zone, timestamp.dayfirst)
        except TimestampError as error:
            self.reading.report("IFX125", self.at("const"), error.reason)


def read_time(reading: Reading, value: JSON, pointer: str) -> int | None:
    """Return the nanoseconds of an RFC 3339 time in the document; report an invalid one."""
    if not isinstance(value, str):
        return None
    try:
        return parse_rfc3339(value)
    except TimestampError as error:
        hint = "`beginning` and `now` are also allowed" if pointer.endswith("/start") else None
        reading.report("IFX125", pointer, error.reason, hint=hint)
        return None


def read_duration(value: JSON, default_ns: int) -> int:
    """Return the nanoseconds of a duration such as `10s`; the schema checks its form."""
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    return int(match[1]) * _UNITS_NS[match[2]] if match else default_ns
