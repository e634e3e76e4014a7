"""What a point may contain: the names, ranges and sizes that every server preserves.

Each check returns its argument or raises `PointError` with the code of the cause.  A check depends only on the value,
never on the dialect: no point may contain what one dialect loses (LANGUAGE 19).
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from iggyflux.errors import PointError

MIN_NS = -9223372036854775806
MAX_NS = 9223372036854775806
MIN_INTEGER = -(2**63)
MAX_INTEGER = 2**63 - 1
MAX_UNSIGNED = 2**64 - 1

# The portable limit of a name, a tag value and a string; also of a series key and a field key with 4 bytes between
# them.
MAX_BYTES = 65535

RESERVED_FIELD_KEYS = frozenset({"time"})
# 2.x accepts `_time`, `_value`, `_start`, `_stop`, `table` and `result`, and then every Flux query fails.
RESERVED_TAG_KEYS = frozenset(
    {"time", "_field", "_measurement", "_time", "_value", "_start", "_stop", "table", "result"}
)

_SURROGATE = "\ud800-\udfff"
_CONTROL = r"\x00-\x1f\x7f"
_KEY_CONTROL = _CONTROL + r"\x80-\x9f"  # in keys, 3.x rejects all control characters of Unicode
_SHOWN = 60


class _Bounded(reprlib.Repr):
    """`repr` in bounded time, also for values that `repr` rejects."""

    def repr_int(self, x: int, level: int) -> str:  # noqa: ARG002  (reprlib's signature)
        return repr(x) if x.bit_length() <= 200 else f"<an integer of {x.bit_length()} bits>"

    # reprlib finds the method of a subclass by its own name.
    repr_Unsigned = repr_int  # noqa: N815


_bounded = _Bounded()
_bounded.maxstring = _bounded.maxother = _SHOWN + 2
_bounded.maxlevel = _bounded.maxdict = _bounded.maxlist = 4


class LinePart(Enum):
    """The parts of a line that are written without quotes."""

    MEASUREMENT = "measurement"
    TAG_KEY = "tag key"
    TAG_VALUE = "tag value"
    FIELD_KEY = "field key"


@dataclass(frozen=True, slots=True)
class _Policy:
    """`refused` finds a character that is not allowed at its place; `reserved` are names that are not allowed."""

    refused: re.Pattern[str]
    reserved: frozenset[str] = frozenset()


_POLICIES = {
    LinePart.MEASUREMENT: _Policy(re.compile(rf"[{_CONTROL}{_SURROGATE}\\=]|\A#")),
    LinePart.TAG_KEY: _Policy(re.compile(rf"[{_KEY_CONTROL}{_SURROGATE}]|\\\Z"), RESERVED_TAG_KEYS),
    LinePart.TAG_VALUE: _Policy(re.compile(rf"[{_CONTROL}{_SURROGATE}]|\\\Z")),
    LinePart.FIELD_KEY: _Policy(re.compile(rf"[{_KEY_CONTROL}{_SURROGATE}\\]"), RESERVED_FIELD_KEYS),
}
_LONE_SURROGATE = re.compile(f"[{_SURROGATE}]")


def shorten(value: object) -> str:
    """Return `repr(value)` as a reason quotes it: cut where it is long or deep."""
    text = repr(value[: _SHOWN + 1]) if isinstance(value, str | bytes) else _bounded.repr(value)
    return text if len(text) <= _SHOWN + 2 else text[:_SHOWN] + "…"


def check_part(text: str, part: LinePart) -> str:
    """Return `text` if it is valid as `part` of a line; raise PointError if not."""
    if not isinstance(text, str):
        raise PointError("IFX324", f"expected a string as {part.value}, found {shorten(text)}")
    if not text:
        raise PointError("IFX310", f"the {part.value} is empty")
    policy = _POLICIES[part]
    found = policy.refused.search(text)
    if found is not None:
        code, what = _cause(found.group(), found.start(), part)
        raise PointError(code, f"{part.value} {shorten(text)} {what}")
    if text in policy.reserved:
        raise PointError("IFX314", f"{text!r} is a reserved name and cannot be a {part.value}")
    _check_bytes(text, part.value)
    return text


def check_measurement(name: str) -> str:
    """Return `name` if it is a valid measurement; raise PointError if not."""
    return check_part(name, LinePart.MEASUREMENT)


def check_tag_key(name: str) -> str:
    """Return `name` if it is a valid tag key; raise PointError if not."""
    return check_part(name, LinePart.TAG_KEY)


def check_tag_value(text: str) -> str:
    """Return `text` if it is a valid tag value; raise PointError if not.

    An empty value is rejected: omit the tag.
    """
    return check_part(text, LinePart.TAG_VALUE)


def check_field_key(name: str) -> str:
    """Return `name` if it is a valid field key; raise PointError if not."""
    return check_part(name, LinePart.FIELD_KEY)


def replace_invalid(text: str, part: LinePart) -> str:
    """Return `text` with `_` for each character that `part` does not allow, and `_` after a reserved name.

    An empty or too long `text` is returned unchanged, so check the result.
    """
    policy = _POLICIES[part]
    replaced = policy.refused.sub("_", text)
    return replaced + "_" if replaced in policy.reserved else replaced


def check_string(text: str) -> str:
    """Return `text` if it is a valid string field; raise PointError if not.

    Control characters and line feeds are valid: every server preserves them.
    """
    if not text.isascii() and _LONE_SURROGATE.search(text) is not None:
        raise PointError("IFX315", f"string {shorten(text)} contains an unpaired surrogate, which UTF-8 cannot encode")
    _check_bytes(text, "string")
    return text


def check_float(value: float) -> float:
    """Return `value` if it is finite; raise PointError if not."""
    if value - value != 0.0:
        raise PointError("IFX320", f"line protocol cannot represent {value!r}")
    return value


def check_integer(value: int) -> int:
    """Return `value` if it fits int64; raise PointError if not."""
    if not MIN_INTEGER <= value <= MAX_INTEGER:
        raise PointError("IFX321", f"{shorten(value)} is outside int64 ({MIN_INTEGER} … {MAX_INTEGER})")
    return value


def check_unsigned(value: int) -> int:
    """Return `value` if it fits uint64; raise PointError if not."""
    if not 0 <= value <= MAX_UNSIGNED:
        raise PointError("IFX321", f"{shorten(value)} is outside uint64 (0 … {MAX_UNSIGNED})")
    return value


def check_timestamp(timestamp_ns: int) -> int:
    """Return `timestamp_ns` if every server stores it; raise PointError if not."""
    if not MIN_NS <= timestamp_ns <= MAX_NS:
        raise PointError("IFX322", f"time {shorten(timestamp_ns)} ns is outside {MIN_NS} … {MAX_NS}")
    return timestamp_ns


def check_series_key(measurement: str, tags: Iterable[tuple[str, str]], field_keys: Iterable[str]) -> None:
    """Raise PointError if measurement, tags and the longest field key are too long together for 1.x and 2.x.

    They measure what is in the line, with its escapes, plus 4 bytes between series and field.
    """
    parts = [measurement, *(text for pair in tags for text in pair)]
    longest = max((len(key.encode()) for key in field_keys), default=0)
    size = sum(len(text.encode()) + 1 + sum(map(text.count, ", =")) for text in parts) - 1 + 4 + longest
    if size > MAX_BYTES:
        raise PointError("IFX316", f"measurement, tags and field key have {size} bytes together, more than {MAX_BYTES}")


def _check_bytes(text: str, what: str) -> None:
    # A character has at most 4 bytes, so only long texts are measured.
    if len(text) > MAX_BYTES // 4 and len(text.encode()) > MAX_BYTES:
        raise PointError("IFX316", f"{what} {shorten(text)} has {len(text.encode())} bytes, more than {MAX_BYTES}")


def _cause(character: str, position: int, part: LinePart) -> tuple[str, str]:
    """Return the code and the words for a rejected `character` at `position`."""
    if character == "\\":
        if part in (LinePart.TAG_KEY, LinePart.TAG_VALUE):
            return "IFX312", "ends with a backslash, and servers lose or reject such points"
        return "IFX312", "contains a backslash, and servers lose such points or store them under another name"
    if part is LinePart.MEASUREMENT and character == "=":
        return "IFX313", "contains '=', and servers lose such points"
    if part is LinePart.MEASUREMENT and character == "#" and position == 0:
        return "IFX313", "begins with '#', which makes its line a comment"
    if "\ud800" <= character <= "\udfff":
        return "IFX315", "contains an unpaired surrogate, which UTF-8 cannot encode"
    return "IFX311", f"contains the control character U+{ord(character):04X}"
