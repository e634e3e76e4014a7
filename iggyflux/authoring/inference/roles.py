"""What a place becomes: a tag, a field of a type, or nothing; with the reason, which the document quotes.

A wrong tag makes series without end and a wrong integer refuses later messages, so where samples leave a choice, a
string is a field rather than a tag, and a number a float rather than an integer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from iggyflux.authoring.inference.shape import Shape
from iggyflux.authoring.inference.words import (
    ANSWERS,
    COUNTS,
    IDENTITIES,
    ONE_EACH,
    QUANTITIES,
    STATES,
    ends_with_word,
    has_word,
)
from iggyflux.secrets import is_name_of_secret, suspected_secrets

FEW: Final = 10
"""With fewer values, how many of them differ says nothing."""
MOST_SHARE: Final = 0.5
"""A string with more different values than this part of its values is not what points are looked up by."""
MOST_TAG_CHARACTERS: Final = 64
MOST_TAG_WORDS: Final = 4
"""What is longer, or has more words, is text for people."""
LEAST_INTEGERS: Final = 20
LEAST_DIFFERENT: Final = 8
"""So many integers, so many of them different, and no fraction among them: a fraction is implausible. Of 20 values with
one decimal, all would be whole by chance once in 10^20; but 87, 87, 86 … of a battery may be a rounded beginning."""
REQUIRED_FROM: Final = 100
"""In so many samples without exception, a tag is required: a point without it would be in another series."""
LEAST_NUMERIC: Final = 0.5
"""A place is a number with bad values, rather than a text, if this part of its values are numbers."""

EXACT: Final = 2**53
_INT64: Final = range(-(2**63), 2**63)
_UINT64: Final = range(2**64)
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?", re.ASCII)
_INTEGER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)", re.ASCII)
_LENIENT: Final = re.compile(r"\s*[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?\s*", re.ASCII)
_COMMA: Final = re.compile(r"-?[0-9]+,[0-9]+", re.ASCII)
_UNIQUE: Final = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}|[0-9a-fA-F]{16,}|[0-9]{10,}")


@dataclass(frozen=True, slots=True)
class Place:
    """A place with scalars: `name` is what a person calls it, `expression` reads it in a record.

    `of` is the number of messages, or of elements, in which it could be.
    """

    key: str
    name: str
    expression: str
    shape: Shape
    of: int
    scope: int = 0
    depth: int = 1

    @property
    def seen(self) -> str:
        """In how many records it is."""
        return f"in all {self.of:,}" if self.is_complete else f"in {len(self.shape.scalars):,} of {self.of:,}"

    @property
    def is_complete(self) -> bool:
        """Whether every message or element has a value here."""
        return len(self.shape.scalars) == self.of


@dataclass(frozen=True, slots=True)
class Role:
    """What a place becomes, and why; `type`, `cast` and `omits` are those of a field."""

    what: Literal["tag", "field", "unused"]
    reason: str
    type: str = "float"
    cast: bool = False
    omits: bool = False
    expression: str = ""
    """What reads the value, where it is not the place's own expression."""
    suffix: str = ""
    """What is added to the key, where a place becomes several fields."""


def roles_of(place: Place, *, is_key: bool = False) -> list[Role]:
    """Return what a place becomes: mostly one role; a field for each kind where kinds are mixed."""
    scalars = place.shape.scalars
    if any(isinstance(value, str) for value in scalars) and is_secret(place):
        return [Role("unused", "it looks like a secret", type="string")]
    tag = "it is the key of the map" if is_key else _why_tag(place)
    if tag:
        return [Role("tag", tag)]
    kinds = set(place.shape.kinds) - {"null"}
    if not kinds.isdisjoint(("object", "list")):
        return _by_kind(place, kinds)
    if kinds <= {"integer", "float"}:
        return [_number(place, scalars, cast=False)]
    if kinds == {"boolean"}:
        return [Role("field", f"true or false, {place.seen}", "boolean")]
    if "boolean" not in kinds:
        numeric = _texts_of_numbers(place)
        if numeric is not None:
            return [numeric]
    if kinds == {"string"}:
        return [_text(place)]
    return _by_kind(place, kinds)


def told_role(place: Place) -> Role | None:
    """Return what line protocol says of a place in one of its rows; None for another place, or mixed types."""
    kinds = set(place.shape.kinds) - {"null"}
    if place.expression.startswith("tags."):
        return Role(
            "tag",
            f"a tag in the line protocol: {different_values(len(place.shape.distinct), len(place.shape.scalars))}",
        )
    types = {"integer": "integer", "float": "float", "string": "string", "boolean": "boolean"}
    if place.expression.startswith("fields.") and len(kinds) == 1:
        [kind] = kinds
        return Role("field", f"{kind} in the line protocol, {place.seen}", types[kind]) if kind in types else None
    return None


def is_secret(place: Place) -> bool:
    """Return whether the name or a text of a place suggests credentials."""
    texts = [value for value in list(place.shape.distinct)[:FEW] if isinstance(value, str)]
    return (is_name_of_secret(place.name) and not has_word(place.name, COUNTS)) or any(map(looks_secret, texts))


def looks_secret(text: str) -> bool:
    """Return whether a text holds credentials, such as an address with a password."""
    return "://" in text and "@" in text and any(suspected_secrets(text))


# --- tags ---


def _why_tag(place: Place) -> str | None:
    """Return why a place is a tag; None if it is not."""
    kinds = set(place.shape.kinds) - {"null"}
    if kinds <= {"integer"}:
        return _why_number_is_tag(place)
    if not kinds <= {"string", "integer"} or "string" not in kinds:
        return None
    values = list(place.shape.distinct)
    count, different = len(place.shape.scalars), len(values)
    texts = [value for value in values if isinstance(value, str)]
    is_identity = ends_with_word(place.name, IDENTITIES)
    if any(map(_is_free_text, texts)) or ends_with_word(place.name, STATES):
        return None
    if not is_identity and all(map(_may_be_number, texts)):
        return None
    if is_one_each(place):
        return None
    if is_identity:
        return f"it names a source: {different_values(different, count)}"
    if count >= FEW and different > MOST_SHARE * count:
        return None
    if set(texts) <= {"true", "false"}:
        return None
    return f"a text with few values: {different_values(different, count)}"


def _may_be_number(text: str) -> bool:
    return text.strip().lower() in ANSWERS | {""} or any(p.fullmatch(text) for p in (_LENIENT, _COMMA))


def is_one_each(place: Place) -> bool:
    """Return whether each message has its own value: an id of the message, not of its source."""
    values = [str(value) for value in place.shape.distinct]
    count = len(place.shape.scalars)
    if count < 2 or len(values) < count:
        return False
    if has_word(place.name, ONE_EACH):
        return True
    alone = place.name.lower() in ("id", "_id", "key", "name") or not ends_with_word(place.name, IDENTITIES)
    return alone and all(map(_UNIQUE.fullmatch, values))


def _why_number_is_tag(place: Place) -> str | None:
    """An integer is a tag only by its name: 17 may be a device or a temperature."""
    different, count = len(place.shape.distinct), len(place.shape.scalars)
    if not ends_with_word(place.name, IDENTITIES) or has_word(place.name, ONE_EACH | COUNTS):
        return None
    if count >= FEW and different > MOST_SHARE * count:
        return None
    return f"a number that names a source: {different_values(different, count)}"


def _is_free_text(text: str) -> bool:
    return len(text) > MOST_TAG_CHARACTERS or len(text.split()) > MOST_TAG_WORDS or "\n" in text


def different_values(different: int, count: int) -> str:
    """Return how many values of how many differ, in words."""
    return f"always the same in {count:,}" if different == 1 and count > 1 else f"{different:,} different in {count:,}"


# --- types of fields ---


def _number(place: Place, values: Sequence[object], *, cast: bool) -> Role:
    """An integer only if every value is an integer token and a later fraction is implausible."""
    tokens = [value for value in values if isinstance(value, (int, float))]
    integers = [value for value in tokens if isinstance(value, int)]
    finite = [value for value in tokens if value - value == 0]
    omits = len(finite) < len(tokens)
    seen = place.seen + (", NaN or infinity is left out" if omits else "")
    if len(integers) < len(tokens):
        return Role("field", f"{_range(finite)}, with fractions, {seen}", "float", cast, omits)
    low, high = min(integers), max(integers)
    shown = f"{_range(integers)}, {seen}"
    if low < _INT64[0] or high > _UINT64[-1] or (high > _INT64[-1] and low < 0):
        return Role("field", f"{shown}; no type of a server holds such integers", "string", cast=True)
    if high > _INT64[-1]:
        return Role("field", f"{shown}; beyond int64 (InfluxDB 1.x has no unsigned)", "unsigned", cast)
    if high >= EXACT or low <= -EXACT:
        return Role("field", f"{shown}; no float holds them exactly", "integer", cast)
    if ends_with_word(place.name, IDENTITIES | ONE_EACH):
        return Role("field", f"{shown}; an id has no fraction", "integer", cast)
    if has_word(place.name, COUNTS) and not ends_with_word(place.name, QUANTITIES):
        return Role("field", f"{shown}; the name says that it is counted", "integer", cast)
    if ends_with_word(place.name, QUANTITIES):
        return Role("field", f"{shown}; whole so far, but the name says that it is measured", "float", cast)
    different = len(place.shape.distinct)
    if len(integers) >= LEAST_INTEGERS and different >= LEAST_DIFFERENT:
        return Role("field", f"{shown}; {different:,} different integers and no fraction", "integer", cast)
    return Role("field", f"{shown}; whole so far, but a fraction may come: or type: integer", "float", cast)


def _range(values: Sequence[float]) -> str:
    if not values:
        return "no finite number"
    low, high = min(values), max(values)
    return f"{low:.6g}" if low == high else f"{low:.6g} … {high:.6g}"


def _texts_of_numbers(place: Place) -> Role | None:
    """Return the role of numbers in strings, some of which may be no numbers; None for other texts."""
    values = place.shape.scalars
    texts = [value for value in values if isinstance(value, str)]
    numeric = [text for text in texts if _NUMBER.fullmatch(text)]
    others = [text for text in texts if not _NUMBER.fullmatch(text)]
    numbers = [value for value in values if not isinstance(value, str)]
    if not others:
        parsed = [int(text) if _INTEGER.fullmatch(text) else float(text) for text in numeric]
        role = _number(place, [*numbers, *parsed], cast=True)
        return Role(role.what, f"{role.reason}, in strings", role.type, True, role.omits)
    if len(numeric) + len(numbers) >= LEAST_NUMERIC * len(values) and all(
        o.strip().lower() in ANSWERS | {""} for o in others
    ):
        shown = ", ".join(repr(text) for text in sorted(set(others))[:3])
        return Role("field", f"a number, {place.seen}; {shown} is left out and counted", "float", bool(numeric), True)
    if numbers:
        return None
    filled = [text for text in texts if text.strip() and text.strip().lower() not in ANSWERS]
    if filled and all(_COMMA.fullmatch(text) or _NUMBER.fullmatch(text) for text in filled):
        made = f"parse_number(replace({place.expression}, ',', '.'), `null`)"
        return Role("field", f"a number with a decimal comma, {place.seen}", expression=made)
    if filled and all(map(_LENIENT.fullmatch, filled)) and not any(re.match(r"0[0-9]", text) for text in filled):
        made = f"parse_number({place.expression}, `null`, 'lenient')"
        return Role("field", f"a number, loosely written, {place.seen}", expression=made)
    return None


def _text(place: Place) -> Role:
    values = set(place.shape.distinct)
    different = different_values(len(values), len(place.shape.scalars))
    if values <= {"true", "false"}:
        return Role("field", f"true or false in strings, {place.seen}", "boolean", cast=True)
    if ends_with_word(place.name, STATES):
        return Role("field", f"a state, which changes with time: {different}; or a tag", "string")
    return Role("field", f"a text, {different}: too many for a tag", "string")


def _by_kind(place: Place, kinds: set[str]) -> list[Role]:
    """Return a field for each kind of value: a field keeps its type."""
    roles: list[Role] = []
    for kind, suffix, type_ in (("number", "", "float"), ("string", "text", "string"), ("boolean", "flag", "boolean")):
        found = {"number": {"integer", "float"}}.get(kind, {kind}) & kinds
        if found:
            made = f"if(type({place.expression}) == '{kind}', {place.expression})"
            suffix = suffix if roles else ""
            reason = f"the {kind}s among values of mixed kinds: a field has one type"
            roles.append(Role("field", reason, type_, expression=made, suffix=suffix))
    return roles
