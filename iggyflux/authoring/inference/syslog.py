"""Lines of syslog (RFC 5424): a pattern for the parts of the header, and expressions for what is inside of a part.

A part that is `-` is null.  Nothing is left out: the message is a text, and what is key=value in it, or in the
structured data, is a member besides.  Values of structured data are without the escapes of RFC 5424.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, Literal, cast

from iggyflux.authoring.inference.logfmt import LEAST_PAIRS, logfmt_captures, pairs_of
from iggyflux.payloads import FORMATS
from iggyflux.records import JSON

PATTERN: Final = (
    r"(?s)^<(?P<pri>\d{1,3})>1"
    r" (?:-|(?P<time>\S+)) (?:-|(?P<host>\S+)) (?:-|(?P<app>\S+)) (?:-|(?P<pid>\S+)) (?:-|(?P<msgid>\S+))"
    r" (?:-|(?P<data>(?:\[(?:[^\]\\]|\\.)*\])+))(?: \x{FEFF}?(?P<message>.*))?$"
)
KNOWN: Final[dict[str, Literal["tag", "field"]]] = {
    "host": "tag",
    "app": "tag",
    "severity": "tag",
    "facility": "tag",
    "message": "field",
    "data": "field",
}
"""What parts of a line become, whatever their values are."""
_ESCAPED: Final = re.compile(r'\\(["\\\]])')
"""What is escaped in a value of structured data; a backslash before another character is one."""
_PRIORITY: Final = {"severity": "modulo(parse_number(pri), `8`)", "facility": "floor(divide(parse_number(pri), `8`))"}


def syslog_trees(payloads: Sequence[bytes]) -> tuple[list[JSON], dict[str, str]]:
    """Return the members of each line, and the expressions of those without a group of `PATTERN`.

    Raise DecodeError unless all are lines of RFC 5424.
    """
    decode = FORMATS["text"].decode
    headers = [cast(dict[str, JSON], decode(each, {"pattern": PATTERN}, None, False)) for each in payloads]
    captures = dict(_PRIORITY)
    for part in ("data", "message"):
        texts = [str(header[part] or "") for header in headers]
        least = LEAST_PAIRS if part == "message" else 1  # one alone in a message may be prose
        inside = logfmt_captures([text for text in texts if len(pairs_of(text)) >= least], part)
        new = {key: inside[key] for key in inside if key not in headers[0] and key not in captures}
        if part == "data":
            new = {key: rf"regex_replace({each}, '{_ESCAPED.pattern}', '\1')" for key, each in new.items()}
        captures |= new
        for header, text in zip(headers, texts, strict=True):
            found = {key: value for key, value in reversed(pairs_of(text)) if key in new}
            header |= {key: _ESCAPED.sub(r"\1", value) for key, value in found.items()} if part == "data" else found
    for header in headers:
        priority = int(str(header.pop("pri")))
        header |= {"severity": priority % 8, "facility": priority // 8}
    return [*headers], captures
