"""Line protocol: points that are valid by construction, their text in each dialect, and a strict parser.

There is one encoder and one set of rules.  A point that some server of the dialect would not return unchanged is
rejected with a reason, never altered.  This package knows nothing of documents, payloads or servers.
"""

from __future__ import annotations

from iggyflux.lineprotocol.checks import (
    MAX_INTEGER,
    MAX_NS,
    MAX_UNSIGNED,
    MIN_INTEGER,
    MIN_NS,
    RESERVED_FIELD_KEYS,
    RESERVED_TAG_KEYS,
    LinePart,
    check_field_key,
    check_float,
    check_integer,
    check_measurement,
    check_part,
    check_series_key,
    check_string,
    check_tag_key,
    check_tag_value,
    check_timestamp,
    check_unsigned,
    replace_invalid,
    shorten,
)
from iggyflux.lineprotocol.encode import (
    Dialect,
    Precision,
    escape_key,
    escape_measurement,
    escape_string,
    escape_tag_value,
    format_boolean,
    format_float,
    format_integer,
    format_string,
    format_timestamp,
    format_unsigned,
)
from iggyflux.lineprotocol.parse import parse_line, parse_lines, split_lines
from iggyflux.lineprotocol.point import FieldValue, Point, Unsigned

__all__ = [
    "MAX_INTEGER",
    "MAX_NS",
    "MAX_UNSIGNED",
    "MIN_INTEGER",
    "MIN_NS",
    "RESERVED_FIELD_KEYS",
    "RESERVED_TAG_KEYS",
    "Dialect",
    "FieldValue",
    "LinePart",
    "Point",
    "Precision",
    "Unsigned",
    "check_field_key",
    "check_float",
    "check_integer",
    "check_measurement",
    "check_part",
    "check_series_key",
    "check_string",
    "check_tag_key",
    "check_tag_value",
    "check_timestamp",
    "check_unsigned",
    "escape_key",
    "escape_measurement",
    "escape_string",
    "escape_tag_value",
    "format_boolean",
    "format_float",
    "format_integer",
    "format_string",
    "format_timestamp",
    "format_unsigned",
    "parse_line",
    "parse_lines",
    "replace_invalid",
    "shorten",
    "split_lines",
]
