"""From the shape of samples to a proposal: what is read, and what each place becomes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from iggyflux.authoring.inference.clocks import Clock, clock_of, needs_zone, suits
from iggyflux.authoring.inference.elements import MOST_HOPS, Elements, expression_of, find_elements
from iggyflux.authoring.inference.names import Names, key_of, singular
from iggyflux.authoring.inference.proposal import Field, Input, Measurement, Proposal, Tag, Time, Unused
from iggyflux.authoring.inference.roles import REQUIRED_FROM, Place, Role, different_values, roles_of, told_role
from iggyflux.authoring.inference.shape import Shape
from iggyflux.authoring.inference.words import MEASUREMENTS, OTHER_TIMES, SPANS, TIMES, has_word, words_of
from iggyflux.authoring.samples import SampleError
from iggyflux.errors import PointError, listed
from iggyflux.lineprotocol import check_measurement
from iggyflux.timestamps import TimestampError

NO_FIELDS: Final = "IFX542"
AMBIGUOUS: Final = "IFX543"
NO_SUCH_PLACE: Final = "IFX544"

MOST_MEASUREMENTS: Final = 20
"""A member with more values says which source a message is from, not which type it has."""
MOST_FIELDS: Final = 500
"""No table that people read has more columns; what is beyond is named in a comment."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the person who asks decides: places are named by their path, such as device.id."""

    stream: str = "stream"
    topic: str = "messages"
    measurement: str | None = None
    tags: tuple[str, ...] = ()
    time: str | None = None
    time_format: str | None = None
    timezone: str | None = None
    topic_per_type: bool = False


def decide(shape: Shape, source: Input, wishes: Wishes, most_hops: int = MOST_HOPS) -> Proposal:
    """Return the proposal for samples of a shape.  Raise SampleError if nothing is stored, or a person must choose."""
    elements = find_elements(shape, most_hops)
    places = _places(elements)
    time, clock_place, others = _time(places, wishes, bool(elements.hops))
    measurement, type_place = _measurement(places, wishes)
    used = {id(place) for place in (clock_place, type_place) if place is not None}
    wanted = {id(_find(places, name, "--tag")) for name in wishes.tags}
    names = Names()
    roles = {
        id(place): _roles(elements, place, id(place) in wanted, source.format)
        for place in places
        if id(place) not in used
    }
    # The innermost places choose first: their names are what a point is about.
    parts = {
        id(place): [_part(names, elements, place, role) for role in roles[id(place)]]
        for place in sorted(places, key=lambda each: -each.scope)
        if id(place) in roles and id(place) not in others
    }
    tags: list[Tag] = []
    fields: list[Field] = []
    unused: list[Unused] = []
    for place in places:
        if id(place) in others:
            unused.append(_unused(place, "another time than that of the values"))
        for part in parts.get(id(place), ()):
            if isinstance(part, Tag):
                tags.append(part)
            elif isinstance(part, Unused) or len(fields) >= MOST_FIELDS:
                unused.append(part if isinstance(part, Unused) else _unused(place, "there are many fields already"))
            else:
                fields.append(part)
    if not fields:
        raise _nothing_to_store(tags, elements)
    unused += [Unused("", expression_of(path, elements.start(scope)), why) for scope, path, why in elements.passed_over]
    return Proposal(
        source=source,
        measurement=measurement,
        tags=tuple(tags),
        fields=tuple(fields),
        time=time,
        for_each=elements.for_each,
        each_reason=_why_each(elements),
        unused=tuple(unused),
    )


# --- places ---


def _places(elements: Elements) -> list[Place]:
    """Return all places with scalars, those of the message first."""
    found = []
    for scope, shape in enumerate(elements.shapes):
        start = elements.start(scope)
        for path, place in shape.walk():
            if place.is_leaf:
                name = next((step for step in reversed(path) if isinstance(step, str)), "")
                key = key_of(path)
                if scope and elements.hops[scope - 1].kind == "zip" and path and isinstance(path[0], int):
                    column = elements.hops[scope - 1].columns[path[0]]
                    name, key = str(column[-1]), key_of(column[-1:])
                depth = len([step for step in path if step != "value"])
                found.append(Place(key, name, expression_of(path, start), place, len(shape.values), scope, depth))
    return found


def _is_map_key(elements: Elements, place: Place) -> bool:
    return place.scope > 0 and elements.hops[place.scope - 1].kind == "map" and place.key == "key"


def _roles(elements: Elements, place: Place, is_wanted: bool, form: str) -> list[Role]:
    if is_wanted:
        return [Role("tag", "chosen")]
    told = told_role(place) if form == "influx" else None
    return [told] if told is not None else roles_of(place, is_key=_is_map_key(elements, place))


def _part(names: Names, elements: Elements, place: Place, role: Role) -> Tag | Field | Unused:
    """Return what a place becomes, with a key of its own."""
    if role.what == "unused":
        return _unused(place, role.reason)
    key, instead = _keys(elements, place)
    if role.what == "tag":
        required = place.is_complete and place.of >= REQUIRED_FROM
        chosen = names.tag(key, instead)
        return Tag(chosen, role.expression or place.expression, _told(role, key, instead, chosen), required)
    suffix = f"_{role.suffix}" if role.suffix else ""
    chosen = names.field(key + suffix, instead + suffix)
    reason = _told(role, key + suffix, instead + suffix, chosen)
    return Field(chosen, role.expression or place.expression, reason, role.type, role.cast, role.omits)


def _keys(elements: Elements, place: Place) -> tuple[str, str]:
    """Return the key of a place, and the one to take if another place has it.

    Where its path says nothing, the key is the name of the list or map that it is in.
    """
    if place.scope == 0:
        return place.key or "value", f"message_{place.key}"
    around = singular(elements.hops[place.scope - 1].name)
    if _is_map_key(elements, place):
        return around or "key", "key"
    if not place.key:
        return around or "value", "value"
    key = f"{around}{place.key}" if place.key.startswith("_") and around else place.key
    return key, f"{around or 'element'}_{place.key.strip('_')}"


def _told(role: Role, key: str, instead: str, chosen: str) -> str:
    return (
        role.reason
        if chosen in (key, instead)
        else f"{role.reason}; renamed, since servers or other keys forbid '{key}'"
    )


def _find(places: Sequence[Place], name: str, option: str) -> Place:
    """Return the place that a person named.  Raise SampleError if there is none."""
    plain = name.removeprefix("root().")
    for wanted in (name, plain):
        for place in reversed(places):
            if wanted in (place.expression, place.expression.removeprefix("root()."), place.key, place.name):
                return place
    known = listed({place.expression for place in places}, name)
    raise SampleError(NO_SUCH_PLACE, f"{option}: no sample has a value at {name}", 0, f"there is {known}")


def _unused(place: Place, reason: str) -> Unused:
    kinds = set(place.shape.kinds) - {"null"}
    type_ = "string" if "string" in kinds else "boolean" if kinds == {"boolean"} else "float"
    return Unused(place.key or "value", {"expr": place.expression, "type": type_}, reason)


def _nothing_to_store(tags: Sequence[Tag], elements: Elements) -> SampleError:
    if tags:
        reason = f"no numbers, flags or other values to store: only {', '.join(tag.key for tag in tags[:5])}"
        return SampleError(NO_FIELDS, reason, 0, "add a constant field by hand: fields: {count: {const: 1}}")
    if elements.message.is_leaf or elements.message.members:
        return SampleError(
            NO_FIELDS, "no values to store: all of them are null, secrets or times", 0, "use other samples"
        )
    return SampleError(NO_FIELDS, "no values to store: the messages are empty", 0, "use other samples")


# --- time ---


def _time(places: Sequence[Place], wishes: Wishes, in_elements: bool) -> tuple[Time, Place | None, set[int]]:
    """Return the time, its place, and the places of other times."""
    spread = "index" if in_elements else "offset"
    if wishes.time is not None:
        place = _find(places, wishes.time, "--time")
        return _chosen_time(place, wishes), place, set()
    found: list[tuple[tuple[int, ...], Place, Clock]] = []
    for place in places:
        rank = _rank_of_name(place)
        if rank is None:
            continue
        clock = clock_of(place.shape.scalars, wishes.timezone)
        if clock is None or (rank == 0 and not _varies_like_a_time(place, clock)):
            continue
        found.append(((rank, place.scope, place.is_complete, _varies(place), -place.depth), place, clock))
    if not found:
        reason = "no member is a time: that of the message, kept apart by its offset"
        return Time(None, reason, spread=spread), None, set()  # type: ignore[arg-type]
    found.sort(key=lambda each: each[0], reverse=True)
    _, place, clock = found[0]
    others = {id(each) for _, each, _ in found[1:]}
    if wishes.time_format is not None:
        return _chosen_time(place, wishes), place, others
    if clock.other is not None:
        raise _ambiguous(place, clock)
    expression, is_complete = place.expression, place.is_complete
    outer = next((p for _, p, c in found[1:] if c.format == clock.format and p.name == place.name), None)
    if not is_complete and outer is not None:
        is_complete = outer.is_complete
        expression = f"not_null({place.expression}, {outer.expression})"
    shown = [each.expression for _, each, _ in found[1:] if each is not outer or expression == place.expression]
    reason = f"{_why_clock(place, clock)}" + (f"; or {', '.join(shown[:3])}" if shown else "")
    return Time(expression, reason, clock.format, clock.timezone, falls_back=not is_complete), place, others


def _rank_of_name(place: Place) -> int | None:
    """Return how well a name suits the time of the values; None if it is a span, such as uptime."""
    words = words_of(place.name)
    if has_word(place.name, SPANS):
        return None
    if has_word(place.name, OTHER_TIMES):
        return 1
    return 3 if words and set(words) <= TIMES else 2 if has_word(place.name, TIMES) else 0


def _varies(place: Place) -> bool:
    return len(place.shape.distinct) > 1


def _varies_like_a_time(place: Place, clock: Clock) -> bool:
    """Return whether values look like times although their name does not say so: texts, or growing numbers."""
    numbers = [value for value in place.shape.scalars if not isinstance(value, (str, bool))]
    if not numbers:
        return clock.format not in ("unix_s", "unix_ms", "unix_us", "unix_ns")
    return len(set(numbers)) > 1 and sorted(numbers) == numbers and clock.format != "unix_s"


def _why_clock(place: Place, clock: Clock) -> str:
    if clock.day:
        return f"by its size {clock.format}: {clock.day}"
    if clock.timezone:
        return f"CHECK the zone: the times do not say it, so {clock.timezone} is assumed"
    return f"a time, {place.seen}"


def _ambiguous(place: Place, clock: Clock) -> SampleError:
    shown = next(iter(place.shape.distinct))
    reason = f"{place.expression}: {shown!r} may be {clock.format} or {clock.other}, and no sample decides"
    hint = f"say which: --time-format '{clock.format}' or --time-format '{clock.other}'"
    return SampleError(AMBIGUOUS, reason, 0, hint)


def _chosen_time(place: Place, wishes: Wishes) -> Time:
    """Return the time that a person chose; its format is found unless it was chosen too."""
    values = place.shape.scalars
    falls_back = not place.is_complete
    if wishes.time_format is None:
        clock = clock_of(values, wishes.timezone)
        if clock is None:
            reason = f"{place.expression}: {next(iter(place.shape.distinct))!r} is not a time in a known format"
            raise SampleError(AMBIGUOUS, reason, 0, "say its format: --time-format unix_s, or '%d.%m.%Y %H:%M'")
        if clock.other is not None:
            raise _ambiguous(place, clock)
        return Time(place.expression, f"chosen; {_why_clock(place, clock)}", clock.format, clock.timezone, falls_back)
    form = wishes.time_format
    try:
        zone = (wishes.timezone or "UTC") if needs_zone(form) else None
        is_right = suits(values, form, zone)
    except TimestampError as error:
        raise SampleError(AMBIGUOUS, f"--time-format {form}: {error.reason}", 0, "see docs/mapping.md") from error
    if not is_right:
        reason = f"{place.expression}: not all values are {form}, such as {next(iter(place.shape.distinct))!r}"
        raise SampleError(AMBIGUOUS, reason, 0, "choose another --time-format, or another place by --time")
    assumed = "; CHECK the zone" if zone and wishes.timezone is None else ""
    return Time(place.expression, f"chosen{assumed}", form, zone, falls_back)


# --- measurement ---


def _measurement(places: Sequence[Place], wishes: Wishes) -> tuple[Measurement, Place | None]:
    """Return the measurement, and the place that it is read from."""
    if wishes.measurement is not None:
        try:
            place = _find(places, wishes.measurement, "--measurement")
        except SampleError:
            return Measurement(wishes.measurement, True, "chosen"), None
        return Measurement(place.expression, False, "chosen"), place
    if wishes.topic_per_type:
        return Measurement("meta('topic')", False, "each topic has one type of message"), None
    for word in MEASUREMENTS:
        for place in reversed(places):
            if place.depth == 1 and words_of(place.name)[-1:] == (word,) and _can_be_measurement(place, word):
                different = different_values(len(place.shape.distinct), len(place.shape.scalars))
                return Measurement(place.expression, False, f"the type of a message: {different}; or a constant"), place
    return Measurement(
        _plain_name(wishes.topic), True, "the name of the topic; no member says the type of a message"
    ), None


def _can_be_measurement(place: Place, word: str) -> bool:
    values = place.shape.distinct
    if not place.is_complete or not all(isinstance(value, str) for value in values):
        return False
    if not (1 if word in MEASUREMENTS[:2] else 2) <= len(values) <= MOST_MEASUREMENTS:
        return False
    if len(values) == len(place.shape.scalars) > 2:
        return False
    return all(isinstance(value, str) and _is_valid(value) for value in values)


def _is_valid(name: str) -> bool:
    try:
        check_measurement(name)
    except PointError:
        return False
    return len(name) <= 64


def _plain_name(topic: str) -> str:
    kept = "".join(char if char.isalnum() or char in "_-." else "_" for char in topic)
    return kept.strip("_") or "messages"


# --- for_each ---


def _why_each(elements: Elements) -> str:
    if not elements.hops:
        return ""
    hop = elements.hops[-1]
    counts = len(elements.message.values)
    what = {"list": "the list", "map": "the map", "zip": "the columns"}[hop.kind]
    return f"{len(hop.elements.values):,} elements in {counts:,} messages: {what} with most of what is measured"
