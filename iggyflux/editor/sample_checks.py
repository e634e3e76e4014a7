"""What samples and examples show about a document: members that none has, conditions that never change, wrong units.

Each check is a function from the uses of expressions to problems.  A sample is what the author knows of real messages,
so what suits none of them is hardly meant.  All problems are warnings, but that samples make too many series.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise
from typing import Final, Literal, TypeAlias, cast

from iggyflux.authoring.series import beyond_limit, count_series
from iggyflux.delivery.lines import point_key
from iggyflux.documents import Document, parent_of
from iggyflux.editor.evidence import (
    MOST_SAMPLES,
    Given,
    Samples,
    Use,
    messages_of,
    noun_of,
    reader_uses,
    value_at,
    writer_uses,
)
from iggyflux.errors import Problem, RecordError, closest, counted
from iggyflux.expressions import Part, Place, truth
from iggyflux.mapping import FieldType, PointSpec, ReaderMapping, Timestamp, TimestampFormat, WriterMapping, in_order
from iggyflux.plan.reference import parse_timestamp
from iggyflux.records import JSON, Message, Row
from iggyflux.timestamps import UNITS_NS, TimestampError, format_rfc3339, likely_unit, scale_number
from iggyflux.values import tag_text

NO_MEMBER: Final = "IFX157"
OTHER_UNIT: Final = "IFX158"
LOST_NANOSECONDS: Final = "IFX159"
NUMBERS_AS_TEXTS: Final = "IFX160"
ALWAYS_NULL: Final = "IFX161"
SAME_FOR_ALL: Final = "IFX162"
SOME_FAIL: Final = "IFX163"
TOO_MANY_VALUES: Final = "IFX164"
IMPLAUSIBLE_TIME: Final = "IFX165"
NOT_NESTED: Final = "IFX169"

_MISSING: Final = (NO_MEMBER, ALWAYS_NULL)

ENOUGH_FOR_ALWAYS: Final = 10
"""Fewer samples hardly show that a condition is true for all messages: an author's examples often are of one kind."""

ENOUGH_FOR_A_TAG: Final = 20
"""Fewer elements may all have different values of a good tag, such as one message of each device."""

ENOUGH_TO_COMPILE: Final = 20
"""Making a compiled plan takes as long as rendering so many samples by the reference plan."""

EARLIEST_NS: Final = 946_684_800 * 10**9
"""The year 2000: no older time of a message is likely."""

YEAR_NS: Final = 366 * 86_400 * 10**9
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_FRACTION: Final = re.compile(r"(?<![\w.])-?[0-9]+\.[0-9]+(?:[eE][+-]?[0-9]+)?(?![\w.])")


def check_samples(
    mapping: WriterMapping | ReaderMapping, samples: Samples = (), *, now_ns: int | None = None
) -> list[Problem]:
    """Return what the samples and the document's examples show about a mapping, in the order of the text.

    `samples` are messages for a writer, rows for a reader; the first 1,000 of them are used.  `now_ns` is the time in
    nanoseconds that times of samples are compared with; by default they may be of any year from 2000 on.
    """
    if isinstance(mapping, ReaderMapping):
        uses = [_Traced.of(use) for use in reader_uses(mapping, cast("Sequence[Row]", samples)) if use.places]
        return in_order(list(_check_uses(mapping.document, uses, "sample" if samples else "example")))
    given = messages_of(mapping, cast("Sequence[Message]", samples))
    uses = [_Traced.of(use) for use in writer_uses(mapping, given) if use.places]
    of_samples = {id(each.message) for each in given if not each.is_example}
    problems = list(_check_uses(mapping.document, uses, noun_of(given), of_samples))
    explained = {problem.location.pointer.removesuffix("/expr") for problem in problems if problem.code in _MISSING}
    messages = cast("Sequence[Message]", samples)[:MOST_SAMPLES]
    problems += [each for each in _check_rendered(mapping, messages) if each.location.pointer not in explained]
    for point in mapping.writer.points:
        problems += _check_times(mapping, point, uses, given, now_ns)
        problems += _check_stars(mapping, point, uses)
        problems += _check_tags(mapping, point, uses, given)
    return in_order(list(dict.fromkeys(problems)))


@dataclass(frozen=True, slots=True)
class _Traced:
    """A use of an expression, and what its parts gave; the first part is the whole expression."""

    use: Use
    parts: Sequence[Part]

    @classmethod
    def of(cls, use: Use) -> _Traced:
        return cls(use, use.expression.trace(use.places))


# --- members, nulls, conditions ---


def _check_uses(
    document: Document, uses: Sequence[_Traced], who: str, of_samples: Collection[int] = ()
) -> Iterator[Problem]:
    used = {part.node["value"] for traced in uses for part in traced.parts if part.kind == "field"}
    not_nested = dict(_check_nesting(document, uses))
    yield from not_nested.values()
    for traced in uses:
        use, parts = traced.use, traced.parts
        if use.expression.location in not_nested:
            continue
        yield from _check_expression(document, use, parts, used, who)
        comparisons = list(_check_comparisons(document, use, parts))
        yield from comparisons
        if use.role == "where" and not comparisons:
            yield from _check_condition(document, use, parts[0], of_samples)


def _check_nesting(document: Document, uses: Sequence[_Traced]) -> Iterator[tuple[str, Problem]]:
    """Yield a problem for each list of a nested `for_each` that lies beside the outer one, with its place.

    `for_each: [bids, asks]` without quotes is such a list, and hardly meant: it gives no element at all.
    """
    for outer, inner in pairwise(each for each in uses if each.use.role == "for_each"):
        first, second = outer.use.expression, inner.use.expression
        pointer = parent_of(second.location)
        found = inner.parts[0].found
        if pointer != parent_of(first.location) or not found or any(isinstance(each, list) for each in found):
            continue
        elements = [place.value for place in inner.use.places]
        names = {part.node["value"] for part in inner.parts if part.kind == "field"}
        if all(each is None for each in elements) or any(
            isinstance(each, dict) and names & each.keys() for each in elements
        ):
            continue  # the samples do not say: the member is there, and may hold a list elsewhere
        is_beside = any(isinstance(value_at(second, place), list) for place in outer.use.places)
        is_plain = any(part.kind == "field" for part in inner.parts)
        if not is_beside and (not is_plain or any(isinstance(place.value, dict) for place in inner.use.places)):
            continue
        both = f"[{first.text}, {second.text}][]"
        why = "it is beside that list, not inside" if is_beside else "they have no members"
        message = f"no element of {first.text} has a list {second.text}: {why}"
        hint = (
            f"the second list is that of an element of the first; for both in turn write {_quoted(both)}, "
            "or give each an item of `points` with a `for_each` of its own"
        )
        node = document.node(pointer)
        is_short = node is not None and is_beside and isinstance(node.value, list) and len(node.value) == _BOTH
        yield (
            second.location,
            document.problem(
                NOT_NESTED,
                pointer if is_short else second.location,
                message,
                length=node.end - node.start if node is not None and is_short else None,
                severity="warning",
                hint=hint,
                instead=_quoted(both) if is_short else None,
                safe=False,
            ),
        )


_BOTH: Final = 2


def _quoted(text: str) -> str:
    """Return a text as YAML and TOML write it in double quotes."""
    return json.dumps(text, ensure_ascii=False)


def _check_expression(
    document: Document, use: Use, parts: Sequence[Part], used: set[str], who: str
) -> Iterator[Problem]:
    """Report members that no sample has: where the value is always null or false for it, or a similar name is there.

    `who` is what is looked at: sample, or example where there are no samples.
    """
    whole = parts[0]
    is_null = bool(whole.found) and all(found is None for found in whole.found) and not use.default
    is_null |= use.role == "where" and bool(whole.found) and not any(map(truth, whole.found))
    reported = False
    for part in parts:
        if part.kind != "field" or (missing := _Missing.of(part, used, who)) is None:
            continue
        if missing.near is None and not (is_null and not reported):
            continue
        reported = True
        path = use.expression.text
        name = part.node["value"]
        start = max(part.stop - len(name), part.start) if path[part.start : part.stop].endswith(name) else part.start
        may_be_text = path == name and use.role in ("measurement", "tag")
        constant = _constant(document, use) if may_be_text and missing.near is None else None
        problem = document.problem(
            NO_MEMBER,
            use.expression.location,
            missing.message,
            offset=None if constant else start,
            length=None if constant else part.stop - start,
            hint=missing.hint or (f"for a fixed text write {{const: {name}}}" if may_be_text else _ABSENT_HINT),
            severity="warning",
            instead=constant or missing.instead,
        )
        yield problem
    if is_null and not reported and use.role not in ("where", "star") and whole.kind != "literal":
        message = f"the value is null for {_all(use)}"
        yield document.problem(ALWAYS_NULL, use.expression.location, message, severity="warning", hint=_NULL_HINT)


_NULL_HINT: Final = "add an example in which it has a value, or correct the expression"
_ABSENT_HINT: Final = "add an example that has it, or correct the expression"


@dataclass(frozen=True, slots=True)
class _Missing:
    """A member that no value has: what to say about it, and the name that was probably meant."""

    message: str
    hint: str | None
    near: str | None

    @property
    def instead(self) -> str | None:
        """The name that was meant, as an expression writes it."""
        if self.near is None or self.near.removesuffix("()").isidentifier():
            return self.near
        return json.dumps(self.near, ensure_ascii=False)

    @classmethod
    def of(cls, part: Part, used: set[str], who: str) -> _Missing | None:
        """Return what is wrong with a member that no value has; None if one has it, or there is none to look at."""
        name = part.node["value"]
        objects = [value for value in part.given if isinstance(value, dict)]
        if any(name in value for value in objects):
            return None
        shown = f"member {name}" if name.isidentifier() else f"member {name!r}"
        if name in _SCOPES and any(value is not None for value in part.given):
            return cls(f"no {who} has a {shown}", _SCOPES[name], f"{name}()")
        if objects:
            names = dict.fromkeys(key for value in objects for key in value if key and key not in used)
            near = _nearest(name, list(names)) if len(name) > 1 else None
            return cls(f"no {who} has a {shown}", f"did you mean {near}?" if near else None, near)
        lists = [value for value in part.given if isinstance(value, list)]
        if lists:
            hint = f"for an element write [0].{name}, for all of them [].{name}"
            return cls(f"a list has no {shown}", hint, None)
        return None


def _nearest(name: str, names: Sequence[str]) -> str | None:
    """Return the most similar of `names`, or the only one that begins with `name`."""
    longer = [each for each in names if each.lower().startswith(name.lower())]
    return closest(name, names) or (longer[0] if len(longer) == 1 else None)


_SCOPES: Final = {
    "root": "root() is the whole payload",
    "parent": "parent() is the element around this one, where `for_each` is nested",
}


def _constant(document: Document, use: Use) -> str | None:
    """Return `{const: text}` as the document's format writes it, if the whole expression is one plain word."""
    node = document.node(use.expression.location)
    if node is None or use.expression.location.endswith("/expr") or not use.expression.text.isidentifier():
        return None
    text = document.text[node.start : node.end]
    return f"{{const: {text}}}" if document.format == "yaml" else f"{{const = {text}}}"


def _all(use: Use) -> str:
    count = len(use.places)
    return f"the {use.noun}" if count == 1 else f"each of {counted(count, use.noun)}"


def _check_condition(document: Document, use: Use, whole: Part, of_samples: Collection[int]) -> Iterator[Problem]:
    """Report a `where` that is the same for all samples; `x != null` guards against what may come: it is right.

    Examples are often samples, so they are counted only where there is nothing else.
    """
    if not whole.found or len(whole.found) < len(use.places):
        return
    pairs = list(zip(use.places, whole.found, strict=True))
    pairs = [pair for pair in pairs if id(pair[0].message) in of_samples] or pairs
    count, truths = len(pairs), {truth(found) for _, found in pairs}
    if truths == {True} and count >= ENOUGH_FOR_ALWAYS and not _is_guard(whole):
        message = f"the condition is true for each of {counted(count, use.noun)}"
        hint = "remove it, or add a sample that it skips"
    elif truths == {False} and count > 1:
        message, hint = f"the condition is true for none of {counted(count, use.noun)}", None
    else:
        return
    yield document.problem(SAME_FOR_ALL, use.expression.location, message, severity="warning", hint=hint)


def _is_guard(whole: Part) -> bool:
    """Return whether a condition asks only whether a value is there."""
    if whole.kind != "comparator" or whole.node["value"] != "ne":
        return False
    return any(child["type"] == "literal" and child["value"] is None for child in whole.node["children"])


_KINDS: Final[dict[type, str]] = {
    str: "a string",
    int: "a number",
    float: "a number",
    bool: "a boolean",
    list: "a list",
    dict: "an object",
}


def _check_comparisons(document: Document, use: Use, parts: Sequence[Part]) -> Iterator[Problem]:
    """Report `state == 'on'` where state is a number in each sample: it compares two types, and is never true."""
    by_node = {id(part.node): part for part in parts}
    for part in parts:
        if part.kind != "comparator" or part.node["value"] not in ("eq", "ne"):
            continue
        for one, other in (part.node["children"], part.node["children"][::-1]):
            side = by_node.get(id(one))
            if other["type"] != "literal" or one["type"] == "literal" or side is None:
                continue
            kinds = {_KINDS[type(found)] for found in side.found if found is not None}
            wanted = _KINDS.get(type(other["value"]))
            if wanted is None or not kinds or wanted in kinds:
                continue
            literal = by_node[id(other)]
            message = f"compared with {' or '.join(sorted(kinds))}, in each {use.noun}, this is {wanted}"
            yield document.problem(
                SAME_FOR_ALL,
                use.expression.location,
                message,
                offset=literal.start,
                length=literal.stop - literal.start,
                severity="warning",
                hint="parse_number(x) reads a number in a string" if kinds == {"a string"} else None,
                instead=_as_kind(other["value"], kinds),
            )


def _as_kind(value: JSON, kinds: set[str]) -> str | None:
    """Return a literal of the only kind of `kinds` that says the same as `value`."""
    if kinds == {"a string"} and isinstance(value, (int, float)) and not isinstance(value, bool):
        return f"'{value!r}'"
    if kinds == {"a number"} and isinstance(value, str) and _NUMBER.fullmatch(value):
        return f"`{value}`"
    if kinds == {"a boolean"} and value in ("true", "false"):
        return f"`{value}`"
    return None


# --- records ---


def _check_rendered(mapping: WriterMapping, samples: Sequence[Message]) -> Iterator[Problem]:
    """Report what fails when samples are rendered, and too many series; of examples `iggyflux test` reports that."""
    plan: Literal["compiled", "reference"] = "compiled" if len(samples) >= ENOUGH_TO_COMPILE else "reference"
    rendered = mapping.plan(plan).render(samples)
    kinds = Counter((failure.code, failure.location) for failure in rendered.failures)
    first = {(failure.code, failure.location): failure for failure in reversed(rendered.failures)}
    for kind, count in kinds.items():
        failure = first[kind]
        who = f"sample {failure.index + 1}"
        many = f", and {count - 1:,} more" if count > 1 else ""
        message = f"{who} fails{many}: {failure.reason}"
        pointer = failure.location
        yield mapping.document.problem(SOME_FAIL, pointer, message, severity="warning", hint=failure.hint)
    beyond = beyond_limit(mapping, count_series(mapping, (point_key(line)[0] for line in rendered.lines)))
    if beyond is not None:
        yield beyond


# --- tags ---


def _check_tags(
    mapping: WriterMapping, point: PointSpec, uses: Sequence[_Traced], given: Sequence[Given]
) -> Iterator[Problem]:
    """Report a tag with another value in each element of the samples: each would be a series of its own.

    Examples are often samples, so they are counted only where there is nothing else.
    """
    samples = {id(each.message) for each in given if not each.is_example} or {id(each.message) for each in given}
    for traced in uses:
        use = traced.use
        if use.spec is not point or use.role != "tag":
            continue
        values = [value_at(use.expression, place) for place in use.places if id(place.message) in samples]
        texts = [text for value in values if (text := _tag_text(value)) is not None]
        if len(texts) >= ENOUGH_FOR_A_TAG and len(set(texts)) == len(texts):
            each = counted(len(texts), noun_of(given))
            message = f"the tag has another value in each of {each}, so each point is a series of its own"
            yield mapping.document.problem(
                TOO_MANY_VALUES, use.expression.location, message, severity="warning", hint="make it a field"
            )


def _tag_text(value: JSON) -> str | None:
    try:
        return tag_text(value)
    except RecordError:
        return None


# --- times ---


def _check_times(
    mapping: WriterMapping, point: PointSpec, uses: Sequence[_Traced], given: Sequence[Given], now_ns: int | None
) -> Iterator[Problem]:
    """Report a time in another unit, one of an implausible year, and nanoseconds that a double cannot hold."""
    timestamp = point.timestamp
    use = next((each.use for each in uses if each.use.spec is point and each.use.role == "timestamp"), None)
    if use is None:
        return
    values = [(place, value_at(use.expression, place)) for place in use.places]
    unit = timestamp.format
    found: list[Problem] = []
    if unit.value in UNITS_NS:
        numbers = [(place, value) for place, value in values if isinstance(value, (int, float)) and value is not True]
        found += _check_unit(mapping.document, numbers, timestamp.pointer, unit, given)
        found += _check_doubles(mapping.document, numbers, timestamp.pointer, unit, given)
    yield from found
    if not any(problem.code == OTHER_UNIT for problem in found):
        samples = {id(each.message) for each in given if not each.is_example}
        of_samples = [value for place, value in values if id(place.message) in samples and value is not None]
        yield from _check_years(mapping.document, timestamp, use, of_samples, now_ns)


_ONE: Final = {"sample": "a sample", "example": "an example"}
_Numbers: TypeAlias = Sequence[tuple[Place, int | float]]


def _check_unit(
    document: Document, numbers: _Numbers, pointer: str, unit: TimestampFormat, given: Sequence[Given]
) -> Iterator[Problem]:
    for _, value in numbers:
        likely = likely_unit(value, unit.value)
        if likely is not None:
            other, day = likely
            message = f"the time {value!r} of {_ONE[noun_of(given)]} is not plausible in {unit.value}"
            hint = f"as {other} it would be {day}: set format: {other}"
            place = f"{pointer}/format"
            instead = other if document.format == "yaml" else f'"{other}"'
            yield document.problem(
                OTHER_UNIT,
                place,
                message,
                hint=hint,
                severity="warning",
                instead=instead if document.node(place) else None,
            )
            return


def _check_doubles(
    document: Document, numbers: _Numbers, pointer: str, unit: TimestampFormat, given: Sequence[Given]
) -> Iterator[Problem]:
    texts = {id(each.message): each.text for each in given}
    for place, value in numbers:
        text = texts.get(id(place.message), "")
        if isinstance(value, float) and (token := _rounded(text, value, unit)) is not None:
            who = _ONE[noun_of(given)]
            message = f"the time {token} of {who} is read as {value!r}: a double has no room for its nanoseconds"
            hint = "nanoseconds need an integer (unix_ns) or a string"
            yield document.problem(LOST_NANOSECONDS, pointer, message, hint=hint, severity="warning")
            return


def _rounded(text: str, value: float, unit: TimestampFormat) -> str | None:
    """Return the number in `text` that is read as `value`, if it is another time."""
    scale = UNITS_NS[unit.value]
    for token in _FRACTION.findall(text):
        try:
            if float(token) == value and scale_number(value, scale) != round(Decimal(token) * scale):
                return str(token)
        except TimestampError:
            continue
    return None


def _check_years(
    document: Document, timestamp: Timestamp, use: Use, values: Sequence[JSON], now_ns: int | None
) -> Iterator[Problem]:
    """Report a sample's time before 2000, or more than a year ahead; examples may have any time."""
    latest = None if now_ns is None else now_ns + YEAR_NS
    for value in values:
        try:
            time = parse_timestamp(value, timestamp)
        except RecordError:
            continue
        if time >= EARLIEST_NS and (latest is None or time <= latest):
            continue
        message, hint = f"a sample has the time {format_rfc3339(time)}", None
        if timestamp.format.value in UNITS_NS:
            hint = "check `format`: unix_s, unix_ms, unix_us or unix_ns"
        yield document.problem(IMPLAUSIBLE_TIME, use.expression.location, message, severity="warning", hint=hint)
        return


# --- stars ---


def _check_stars(mapping: WriterMapping, point: PointSpec, uses: Sequence[_Traced]) -> Iterator[Problem]:
    """Report `"*"` that stores numbers in strings as strings."""
    for star in point.field_stars:
        traced = next((each for each in uses if each.use.spec is point and each.use.expression is star.source), None)
        if traced is None or star.cast or star.type is not FieldType.AUTO:
            continue
        found = [value for value in traced.parts[0].found if isinstance(value, dict)]
        names = dict.fromkeys(name for value in found for name in value)
        texts = [name for name in names if _is_number_in_text(name, found) and not star.is_used((name,))]
        if texts:
            shown = ", ".join(texts[:3]) + (" …" if len(texts) > 3 else "")
            yield mapping.document.problem(
                NUMBERS_AS_TEXTS,
                star.pointer,
                f"numbers in strings are stored as strings: {shown}",
                severity="warning",
                hint="write {type: auto, cast: numbers} for numbers, or type: string if strings are meant",
            )


def _is_number_in_text(name: str, found: Sequence[dict[str, JSON]]) -> bool:
    values = [value[name] for value in found if value.get(name) is not None]
    return bool(values) and all(isinstance(value, str) and _NUMBER.fullmatch(value) for value in values)
