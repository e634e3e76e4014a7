"""What a point may hold: the name policy, the ranges and the sizes that every server keeps faithfully.

Each check gives its argument back or raises `PointError` with the code of the cause.  A check depends on the value
alone, never on the dialect: what one dialect loses, no point may hold (LANGUAGE 19).
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

# The portable cap of a name, a tag value and a string; also of a series key with a field key and 4 bytes between.
MAX_BYTES = 65535

RESERVED_FIELD_KEYS = frozenset({"time"})
# `_time`, `_value`, `_start`, `_stop`, `table`, `result` are accepted by 2.x and break every Flux query after that.
RESERVED_TAG_KEYS = frozenset(
    {"time", "_field", "_measurement", "_time", "_value", "_start", "_stop", "table", "result"}
)

_SURROGATE = "\ud800-\udfff"
_CONTROL = r"\x00-\x1f\x7f"
_KEY_CONTROL = _CONTROL + r"\x80-\x9f"  # in keys, 3.x means all of Unicode's by control characters
_SHOWN = 60


class _Bounded(reprlib.Repr):
    """`repr` in bounded time, also of what `repr` refuses."""

    def repr_int(self, x: int, level: int) -> str:  # noqa: ARG002  (reprlib's signature)
        return repr(x) if x.bit_length() <= 200 else f"<an integer of {x.bit_length()} bits>"

    # Subclasses come by their own names.
    repr_Unsigned = repr_int  # noqa: N815


_bounded = _Bounded()
_bounded.maxstring = _bounded.maxother = _SHOWN + 2
_bounded.maxlevel = _bounded.maxdict = _bounded.maxlist = 4


class Part(Enum):
    """The parts of a line that are written without quotes."""

    MEASUREMENT = "measurement"
    TAG_KEY = "tag key"
    TAG_VALUE = "tag value"
    FIELD_KEY = "field key"


@dataclass(frozen=True, slots=True)
class _Policy:
    """`refused` finds one character that may not stand where it stands; `reserved` are whole names."""

    refused: re.Pattern[str]
    reserved: frozenset[str] = frozenset()


_POLICIES = {
    Part.MEASUREMENT: _Policy(re.compile(rf"[{_CONTROL}{_SURROGATE}\\=]|\A#")),
    Part.TAG_KEY: _Policy(re.compile(rf"[{_KEY_CONTROL}{_SURROGATE}]|\\\Z"), RESERVED_TAG_KEYS),
    Part.TAG_VALUE: _Policy(re.compile(rf"[{_CONTROL}{_SURROGATE}]|\\\Z")),
    Part.FIELD_KEY: _Policy(re.compile(rf"[{_KEY_CONTROL}{_SURROGATE}\\]"), RESERVED_FIELD_KEYS),
}
_LONE_SURROGATE = re.compile(f"[{_SURROGATE}]")


def shorten(value: object) -> str:
    """`repr(value)`, cut where it is long or deep: what a reason quotes."""
    text = repr(value[: _SHOWN + 1]) if isinstance(value, str | bytes) else _bounded.repr(value)
    return text if len(text) <= _SHOWN + 2 else text[:_SHOWN] + "…"


def check_part(text: str, part: Part) -> str:
    """`text`, which may stand as `part` of a line."""
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
    """`name`, which may be a measurement."""
    return check_part(name, Part.MEASUREMENT)


def check_tag_key(name: str) -> str:
    """`name`, which may be a tag's key."""
    return check_part(name, Part.TAG_KEY)


def check_tag_value(text: str) -> str:
    """`text`, which may be a tag's value; an empty one is refused: leave the tag out."""
    return check_part(text, Part.TAG_VALUE)


def check_field_key(name: str) -> str:
    """`name`, which may be a field's key."""
    return check_part(name, Part.FIELD_KEY)


def replace_invalid(text: str, part: Part) -> str:
    """`text` with `_` for each character that `part` may not hold, and `_` after a reserved name.

    An empty or overlong `text` comes back as it is: check what is returned.
    """
    policy = _POLICIES[part]
    replaced = policy.refused.sub("_", text)
    return replaced + "_" if replaced in policy.reserved else replaced


def check_string(text: str) -> str:
    """`text`, which may be a string field: control characters and line feeds are kept by every server."""
    if not text.isascii() and _LONE_SURROGATE.search(text) is not None:
        raise PointError("IFX315", f"string {shorten(text)} contains an unpaired surrogate, which UTF-8 cannot encode")
    _check_bytes(text, "string")
    return text


def check_float(value: float) -> float:
    """`value`, which is finite."""
    if value - value != 0.0:
        raise PointError("IFX320", f"line protocol cannot represent {value!r}")
    return value


def check_integer(value: int) -> int:
    """`value`, which fits int64."""
    if not MIN_INTEGER <= value <= MAX_INTEGER:
        raise PointError("IFX321", f"{shorten(value)} is outside int64 ({MIN_INTEGER} … {MAX_INTEGER})")
    return value


def check_unsigned(value: int) -> int:
    """`value`, which fits uint64."""
    if not 0 <= value <= MAX_UNSIGNED:
        raise PointError("IFX321", f"{shorten(value)} is outside uint64 (0 … {MAX_UNSIGNED})")
    return value


def check_timestamp(timestamp_ns: int) -> int:
    """`timestamp_ns`, which every server stores."""
    if not MIN_NS <= timestamp_ns <= MAX_NS:
        raise PointError("IFX322", f"time {shorten(timestamp_ns)} ns is outside {MIN_NS} … {MAX_NS}")
    return timestamp_ns


def check_series_key(measurement: str, tags: Iterable[tuple[str, str]], field_keys: Iterable[str]) -> None:
    """Measurement, tags and the longest field key together fit what 1.x and 2.x take as one key.

    They measure what stands in the line, with its escapes, plus 4 bytes between series and field.
    """
    parts = [measurement, *(text for pair in tags for text in pair)]
    longest = max((len(key.encode()) for key in field_keys), default=0)
    size = sum(len(text.encode()) + 1 + sum(map(text.count, ", =")) for text in parts) - 1 + 4 + longest
    if size > MAX_BYTES:
        raise PointError("IFX316", f"measurement, tags and field key have {size} bytes together, more than {MAX_BYTES}")


def _check_bytes(text: str, what: str) -> None:
    # A character has at most 4 bytes: only long texts are measured.
    if len(text) > MAX_BYTES // 4 and len(text.encode()) > MAX_BYTES:
        raise PointError("IFX316", f"{what} {shorten(text)} has {len(text.encode())} bytes, more than {MAX_BYTES}")


def _cause(character: str, position: int, part: Part) -> tuple[str, str]:
    """The code and the words for a refused `character` at `position`."""
    if character == "\\":
        if part in (Part.TAG_KEY, Part.TAG_VALUE):
            return "IFX312", "ends with a backslash, which no server accepts"
        return "IFX312", "contains a backslash, which servers lose or store under another name"
    if part is Part.MEASUREMENT and character == "=":
        return "IFX313", "contains '=', and servers lose such points"
    if part is Part.MEASUREMENT and character == "#" and position == 0:
        return "IFX313", "begins with '#', which makes its line a comment"
    if "\ud800" <= character <= "\udfff":
        return "IFX315", "contains an unpaired surrogate, which UTF-8 cannot encode"
    return "IFX311", f"contains the control character U+{ord(character):04X}"
