"""What a place becomes: a tag, a field of a type, or nothing; with the reason, which the document quotes.

A wrong tag makes series without end and a wrong integer refuses later messages, so where samples leave a choice, a
string is a field rather than a tag, and a number a float rather than an integer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from iggyflux.authoring.inference.shape import Path, Shape
from iggyflux.authoring.inference.words import (
    CODES,
    COUNTS,
    DIMENSIONS,
    IDENTITIES,
    INTEGERS,
    NUMBERED,
    ONE_EACH,
    QUANTITIES,
    SPANS,
    STATES,
    STRANGERS,
    SWITCHES,
    TRANSIENT,
    UNITS,
    WORDS_OF_IDS,
    ends_with_word,
    has_word,
    words_of,
)
from iggyflux.secrets import is_name_of_secret, suspected_secrets
from iggyflux.values import stands_for_none

FEW: Final = 10
"""With fewer values, how many of them differ says nothing."""
MOST_SHARE: Final = 0.5
"""A string with more different values than this part of its values is not what points are looked up by."""
MOST_TAG_CHARACTERS: Final = 64
MOST_ID_CHARACTERS: Final = 256
"""A path or name of a source may be longer than other tags."""
MOST_TAG_WORDS: Final = 4
"""What is longer, or has more words, is text for people."""
LEAST_INTEGERS: Final = 15
LEAST_DIFFERENT: Final = 5
"""So many integers, so many of them different, and no fraction among them: a fraction is implausible. Of 15 values with
one decimal, all would be whole by chance once in 10^15; but 87, 87, 86 … of a battery may be a rounded beginning."""
LEAST_FILLED: Final = 0.5
"""A text in fewer of the elements is a remark: as a tag it would split a series now and then."""
NEARLY_ALL: Final = 0.9
"""If so many of the values are different, each message has its own, with a few messages sent twice."""
REQUIRED_FROM: Final = 100
"""In so many samples without exception, a tag is required: a point without it would be in another series."""
LEAST_NUMERIC: Final = 0.5
"""A place is a number with bad values, rather than a text, if this part of its values are numbers."""

SUSPECTED: Final = "it looks like a secret"

EXACT: Final = 2**53
_INT64: Final = range(-(2**63), 2**63)
_UINT64: Final = range(2**64)
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?", re.ASCII)
_INTEGER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)", re.ASCII)
_LENIENT: Final = re.compile(r"\s*+[-+]?(?:[0-9]++\.?[0-9]*+|\.[0-9]++)(?:[eE][-+]?[0-9]++)?\s*+", re.ASCII)
_COMMA: Final = re.compile(r"(?<![0-9])-?[0-9]++,[0-9]++", re.ASCII)
_THOUSANDS: Final = re.compile(r"[-+]?[0-9]{1,3},[0-9]{3}", re.ASCII)


@dataclass(frozen=True, slots=True)
class _Writing:
    """A way to write numbers: what all texts match, what some do, and the expression of the text to parse."""

    words: str
    all_are: re.Pattern[str]
    some_are: re.Pattern[str]
    made: str
    syntax: str = ""
    doubt: str = ""


_WRITINGS: Final = (
    _Writing(
        "with points between thousands and a decimal comma",
        re.compile(r"[-+]?(?:[0-9]{1,3}(?:\.[0-9]{3})++|[0-9]++)(?:,[0-9]++)?", re.ASCII),
        re.compile(r"[-+]?[0-9]{1,3}(?:\.[0-9]{3})+(?:,[0-9]++|\.[0-9]{3})", re.ASCII),
        "replace(replace({}, '.', ''), ',', '.')",
        ", 'lenient'",
    ),
    _Writing(
        "with commas between thousands",
        re.compile(r"[-+]?(?:[0-9]{1,3}(?:,[0-9]{3})++|[0-9]++)(?:\.[0-9]++)?", re.ASCII),
        re.compile(r"[-+]?[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]++|,[0-9]{3})", re.ASCII),
        "replace({}, ',', '')",
        ", 'lenient'",
    ),
    _Writing(
        "with a decimal comma",
        re.compile(rf"{_COMMA.pattern}|(?<![0-9])(?:{_NUMBER.pattern})", re.ASCII),
        _COMMA,
        "replace({}, ',', '.')",
        doubt="CHECK whether the comma is between thousands (then: replace(…, ',', '')): ",
    ),
)
_RANDOM: Final = re.compile(
    r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}|[0-9a-fA-F]{16,}|[0-9]{10,}"
    r"|(?:[a-z]{2,6}_)?[A-Za-z]*[0-9][A-Za-z0-9]{14,}"
)
"""Ids that no person wrote: UUIDs, hashes, long numbers, and the like with a prefix."""
_FRACTION: Final = re.compile(r"[-+]?[0-9]++[.,][0-9]++", re.ASCII)
_MEASURED: Final = (QUANTITIES | COUNTS | SPANS | {"time"}) - ONE_EACH - NUMBERED - CODES
"""Words at the end of a name that no id has."""
_DECIMAL_COMMA: Final = re.compile(r"[-+]?(?:[0-9]{1,3}(?:\.[0-9]{3})++|[0-9]++),[0-9]++", re.ASCII)
_POINTS: Final = re.compile(r"[-+]?[0-9]{1,3}(?:\.[0-9]{3})*", re.ASCII)
_BOUND: Final = re.compile(r"\s*+(?:<=?|>=?|[≤≥~≈])\s*+[-+]?[0-9]++(?:[.,][0-9]++)?\s*+")
"""A text in place of a number beyond the range of an instrument: <0.5, > 100."""
_ADDRESS: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*+://\S*+")
_BEGINS_WITH_NUMBER: Final = re.compile(r"\s*[-+.]?[0-9]")


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
    path: Path = ()
    from_root: str = ""
    """Where it is as seen from the message, without the marks of lists: `racks.modules.name`."""
    is_label: bool = False
    in_list: bool = False
    """Whether it is in a list that has had one element so far."""
    is_new_each: bool = True
    """Whether the elements of several messages were seen: what is the same in none of them belongs to an element."""

    @property
    def different(self) -> str:
        """How many of the values differ."""
        return different_values(len(self.shape.distinct), len(self.shape.scalars))

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
    """What a place becomes, and why; `type`, `cast` and `omits` are those of a field.

    `omits` only if a sample has a bad value: else the first one that comes would be lost without a failure.
    """

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
        return [Role("unused", SUSPECTED, type="string")]
    if is_one_each(place):
        return [Role("unused", f"an id of each message: {place.different}", type="string")]
    if _is_constant_unit(place):
        return [Role("unused", f"a unit that is {place.different}", type="string")]
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


def known_role(place: Place, what: Literal["tag", "field"]) -> Role:
    """Return what a part of a line becomes of which its format says what it is; no text that may hold a secret."""
    texts = [value for value in place.shape.distinct if isinstance(value, str)]
    if any(map(_holds_secret, texts)):
        return Role("unused", SUSPECTED, type="string")
    if what == "tag":
        return Role("tag", f"what lines are looked up by: {place.different}")
    return Role("field", f"a text, {place.seen}", "string")


def _holds_secret(text: str) -> bool:
    return any(suspected_secrets(text, names_secret))


def told_role(place: Place) -> Role | None:
    """Return what line protocol says of a place in one of its rows; None for another place, or mixed types."""
    kinds = set(place.shape.kinds) - {"null"}
    if place.expression.startswith(("tags.", "fields.")) and "string" in kinds and is_secret(place):
        return Role("unused", SUSPECTED, type="string")
    if place.expression.startswith("tags."):
        return Role("tag", f"a tag in the line protocol: {place.different}")
    types = {"integer": "integer", "float": "float", "string": "string", "boolean": "boolean"}
    if place.expression.startswith("fields.") and len(kinds) == 1:
        [kind] = kinds
        return Role("field", f"{kind} in the line protocol, {place.seen}", types[kind]) if kind in types else None
    return None


def _is_constant_unit(place: Place) -> bool:
    is_text = all(isinstance(value, str) for value in place.shape.distinct)
    return is_text and len(place.shape.distinct) == 1 and ends_with_word(place.name, UNITS)


def is_secret(place: Place) -> bool:
    """Return whether the name or a text of a place suggests credentials."""
    texts = [value for value in list(place.shape.distinct)[:FEW] if isinstance(value, str)]
    return names_secret(place.name) or any(map(looks_secret, texts))


def names_secret(name: str) -> bool:
    """Return whether a name in data suggests credentials; there, `open` is not a misspelt `token`."""
    return is_name_of_secret(name) and not has_word(name, COUNTS)


def looks_secret(text: str) -> bool:
    """Return whether a text holds credentials, such as an address with a password."""
    return "://" in text and "@" in text and any(suspected_secrets(text, names_secret))


# --- tags ---


def _why_tag(place: Place) -> str | None:
    """Return why a place is a tag; None if it is not."""
    kinds = set(place.shape.kinds) - {"null"}
    if has_word(place.name, TRANSIENT) and not place.is_label:
        return None
    if place.in_list:  # with a second element, the first may be another one
        return None
    if not kinds <= {"string", "integer"} or has_word(place.name, STRANGERS) or is_one_each(place):
        return None
    if is_status_code(place):
        return f"a status code: {place.different}"
    return _why_number_is_tag(place) if "string" not in kinds else _why_text_is_tag(place)


def _why_text_is_tag(place: Place) -> str | None:
    texts = [str(value) for value in place.shape.distinct if value != ""]
    filled = sum(count for value, count in place.shape.distinct.items() if value != "")
    is_identity = names_a_source(place.name)
    if not texts or any(map(_is_free_text, texts)):
        return None
    if not is_identity and (any(len(text) > MOST_TAG_CHARACTERS for text in texts) or any(map(_ADDRESS.match, texts))):
        return None
    if place.is_label:
        return f"among labels: {place.different}"
    if ends_with_word(place.name, STATES) or (not is_identity and _are_mostly_numbers(place)):
        return None
    is_sparse = filled < LEAST_FILLED * place.of
    if is_identity:  # what only some messages have, deep inside, is a part of the source
        return None if is_sparse and place.depth > 1 else f"it names a source: {place.different}"
    if {text.lower() for text in texts} <= SWITCHES:
        return None
    telling = [text for text in texts if not _says_no_number(text)]
    if ends_with_word(place.name, QUANTITIES - DIMENSIONS) or all(map(_BEGINS_WITH_NUMBER.match, telling or texts)):
        return None
    if len(texts) > MOST_SHARE * filled and filled >= FEW:
        return None
    if is_sparse and place.of >= FEW:
        return None
    return f"a text with few values: {place.different}"


def is_one_each(place: Place) -> bool:
    """Return whether each message has its own value: an id of the message, not of its source."""
    values = [str(value) for value in place.shape.distinct]
    count = len(place.shape.scalars)
    if count < 2 or len(values) < NEARLY_ALL * count or any(map(_is_free_text, values)):
        return False
    if any(map(_FRACTION.fullmatch, values)) or _is_measured_by_name(place.name, values):
        return False
    is_number = not any(isinstance(value, str) for value in place.shape.distinct)
    if is_number and not ends_with_word(place.name, WORDS_OF_IDS | ONE_EACH):  # `tx_bytes` is a counter
        return False
    words = set(words_of(place.name))
    if words <= WORDS_OF_IDS:  # `request.id` is the id of a request
        words |= {word for step in place.path[-2:-1] if isinstance(step, str) for word in words_of(step)}
    if not words.isdisjoint(ONE_EACH):
        return True
    if not words.isdisjoint(IDENTITIES - WORDS_OF_IDS):
        return False
    owners = {word for step in place.path[-2:-1] if isinstance(step, str) for word in words_of(step)}
    is_alone = _is_id_of_unknown(place) and owners.isdisjoint(IDENTITIES) and count >= FEW
    is_alone &= place.scope == 0 or place.is_new_each
    return is_alone or (all(map(_RANDOM.fullmatch, values)) and (place.scope == 0 or place.is_new_each))


def _is_id_of_unknown(place: Place) -> bool:
    """Return whether a name says that it is an id, and not of what; texts also with a word that is not known."""
    words = words_of(place.name)
    is_text = not any(_NUMBER.fullmatch(str(value)) for value in place.shape.distinct)
    return set(words) <= {"id", "ids"} or (is_text and words[-1:] in (("id",), ("ids",)))


def _is_measured_by_name(name: str, values: Sequence[str]) -> bool:
    """Return whether a name ends with what is measured or counted, whatever it begins with: `request_length`."""
    return ends_with_word(name, _MEASURED) and all(
        _NUMBER.fullmatch(value) or _says_no_number(value) for value in values
    )


def looks_random(text: str) -> bool:
    """Return whether a text is an id that no person wrote."""
    return _RANDOM.fullmatch(text) is not None


def is_status_code(place: Place) -> bool:
    """Return whether values are the codes of HTTP and its kin: 200, 404."""
    return ends_with_word(place.name, CODES) and all(
        re.fullmatch("[1-5][0-9]{2}", str(v)) for v in place.shape.distinct
    )


def _why_number_is_tag(place: Place) -> str | None:
    """An integer is a tag only by its name: 17 may be a device or a temperature."""
    different, count = len(place.shape.distinct), len(place.shape.scalars)
    if not ends_with_word(place.name, IDENTITIES - {"serial"}) or has_word(place.name, ONE_EACH | COUNTS):
        return None
    if count >= FEW and different > MOST_SHARE * count:
        return None
    return f"a number that names a source: {place.different}"


def names_a_source(name: str) -> bool:
    """Return whether a name is that of a source, such as `device` or `serialNumber`."""
    words = words_of(name)
    if len(words) > 1 and words[-1] in NUMBERED:
        return words[-2] in IDENTITIES
    return ends_with_word(name, IDENTITIES)


def _is_free_text(text: str) -> bool:
    is_long = len(text) > MOST_TAG_CHARACTERS and " " in text
    return is_long or len(text) > MOST_ID_CHARACTERS or len(text.split()) > MOST_TAG_WORDS or "\n" in text


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
    if has_word(place.name, INTEGERS):
        return Role("field", f"{shown}; the name says that it is an integer", "integer", cast)
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
        return replace(role, reason=f"{role.reason}, in strings", cast=True)
    if _are_mostly_numbers(place):
        shown = ", ".join(repr(text) for text in sorted(set(others))[:3])
        lost = f"{len(others):,} of {len(values):,} values are not numbers, and are left out and counted: {shown}"
        return Role("field", f"a number, {place.seen}; {lost}", "float", bool(numeric), True)
    if numbers:
        return None
    filled = [text for text in texts if text.strip() and not _says_no_number(text)]
    empty = [text for text in texts if not text.strip() or _says_no_number(text)]
    shown = ", ".join(repr(text) for text in sorted(set(empty))[:3])
    seen = place.seen if not empty else f"in {len(filled):,} of {place.of:,}"
    lost = f"; {len(empty):,} of {len(values):,} values are not numbers, and are left out and counted: {shown}"
    lost = lost if empty else ""
    for each in _WRITINGS if filled else ():
        if all(map(each.all_are.fullmatch, filled)) and any(map(each.some_are.fullmatch, filled)):
            made = each.made.format(place.expression)
            made = f"parse_number({made}, {place.expression}{each.syntax})" if each.syntax else made
            doubt = each.doubt if all(map(_THOUSANDS.fullmatch, filled)) else ""
            reason = f"{doubt}a number {each.words}, {seen}{lost}"
            return Role("field", reason, cast=True, omits=bool(empty), expression=made)
    if filled and all(map(_LENIENT.fullmatch, filled)) and not any(re.match(r"0[0-9]", text) for text in filled):
        made = f"parse_number({place.expression}, {place.expression}, 'lenient')"
        reason = f"a number, loosely written, {seen}{lost}"
        return Role("field", reason, cast=True, omits=bool(empty), expression=made)
    return None


def has_decimal_comma(place: Place) -> bool:
    """Return whether the texts of a place are numbers with a decimal comma: `10,5`, `1.234,50`."""
    filled = [str(value) for value in place.shape.distinct if not _says_no_number(str(value))]
    return bool(filled) and all(map(_DECIMAL_COMMA.fullmatch, filled)) and not all(map(_THOUSANDS.fullmatch, filled))


def role_beside_decimal_commas(place: Place) -> Role | None:
    """Return the role of texts such as `1.300`, where other texts have decimal commas; None for other texts."""
    texts = [value for value in place.shape.scalars if isinstance(value, str) and not _says_no_number(value)]
    if len(texts) < len(place.shape.scalars) or not all(map(_POINTS.fullmatch, texts)) or "." not in "".join(texts):
        return None
    made = f"parse_number(replace({place.expression}, '.', ''), {place.expression}, 'lenient')"
    reason = f"CHECK that the points are between thousands, since others have decimal commas: a number, {place.seen}"
    return Role("field", reason, cast=True, expression=made)


def _are_mostly_numbers(place: Place) -> bool:
    """Return whether values are numbers but for some that say that there is none, or that it is out of range."""
    others = [value for value in place.shape.scalars if isinstance(value, str) and not _NUMBER.fullmatch(value)]
    count = len(place.shape.scalars)
    return count - len(others) > LEAST_NUMERIC * count and all(map(_says_no_number, others))


def _says_no_number(text: str) -> bool:
    return stands_for_none(text) or _BOUND.fullmatch(text) is not None


def _text(place: Place) -> Role:
    values = {value for value in place.shape.distinct if isinstance(value, str)}
    different = place.different
    if values <= {"true", "false"}:
        return Role("field", f"true or false in strings, {place.seen}", "boolean", cast=True)
    if values and all(map(_ADDRESS.match, values)):
        return Role("field", f"an address, {different}, {place.seen}", "string")
    if any(map(_is_free_text, values)):
        return Role("field", f"a text for people, {different}, {place.seen}", "string")
    if ends_with_word(place.name, STATES) or {value.lower() for value in values} <= SWITCHES:
        return Role("field", f"a state, which may change with time: {different}; or a tag", "string")
    return Role("field", f"a text, {different}, {place.seen}; {_why_no_tag(place)}", "string")


def _why_no_tag(place: Place) -> str:
    """Return why a text is not a tag, as far as its values say."""
    different, count = len(place.shape.distinct), len(place.shape.scalars)
    if place.in_list:
        return "a list may have several of them"
    if count >= FEW and different > MOST_SHARE * count:
        return "as a tag it would make many series"
    if count < LEAST_FILLED * place.of:
        return "as a tag it would split a series now and then"
    if has_word(place.name, TRANSIENT | STRANGERS):
        return "there is no end of its values in time, by its name; or a tag"
    return "or a tag"


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
