"""Which place is the time of a point, by name, form and variation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from iggyflux.authoring.inference.clocks import Clock, are_days, are_times_of_day, clock_of, needs_zone, suits
from iggyflux.authoring.inference.elements import Elements
from iggyflux.authoring.inference.places import place_named, values_at
from iggyflux.authoring.inference.proposal import Time
from iggyflux.authoring.inference.roles import Place
from iggyflux.authoring.inference.shape import Path, observe
from iggyflux.authoring.inference.wishes import Wishes
from iggyflux.authoring.inference.words import COUNTS, OTHER_TIMES, QUANTITIES, SPANS, TIMES, has_word, words_of
from iggyflux.authoring.samples import SampleError
from iggyflux.records import JSON
from iggyflux.timestamps import UNITS_NS, TimestampError

AMBIGUOUS: Final = "IFX543"
CLOSENESS: Final = 0.01
"""Times of samples lie this close together, as a part of the number: in unix_s, 1 % is half a year."""


def choose_time(elements: Elements, places: Sequence[Place], wishes: Wishes) -> tuple[Time, set[int], set[int]]:
    """Return the time, the places that it is read from, and the places of other times, by their `id`."""
    joined = _days_with_times(elements, places)
    parts = {id(part): whole for whole, *pair in joined for part in pair}
    candidates = [whole for whole, _, _ in joined] + [place for place in places if id(place) not in parts]
    time, chosen, others = _choose(elements, candidates, places, parts, wishes)
    if chosen is None:
        return time, set(), set()
    read = {key for key, whole in parts.items() if whole is chosen} or {id(chosen)}
    whole_of = {id(whole): {id(day), id(clock)} for whole, day, clock in joined}
    return time, read, {each for other in others for each in whole_of.get(other, {other})}


def _days_with_times(elements: Elements, places: Sequence[Place]) -> list[tuple[Place, Place, Place]]:
    """Return the places that a day and a time of day beside it make together, each with the two of them."""
    beside: dict[tuple[int, Path], list[Place]] = {}
    for place in places:
        if place.path and not has_word(place.name, OTHER_TIMES | SPANS):
            beside.setdefault((place.scope, place.path[:-1]), []).append(place)
    pairs = filter(None, map(_day_and_time, beside.values()))
    return [(_joined(elements, day, time), day, time) for day, time in pairs]


def _day_and_time(places: Sequence[Place]) -> tuple[Place, Place] | None:
    """Return the one day and the one time of day among places of one object; 10.11.12 alone may be either."""
    days = {id(place): place for place in places if are_days(place.shape.scalars)}
    times = {id(place): place for place in places if are_times_of_day(place.shape.scalars)}
    sure_days, sure_times = days.keys() - times.keys(), times.keys() - days.keys()
    if len(sure_days) == 1:
        days = {key: days[key] for key in sure_days}
        times = {key: times[key] for key in times.keys() - sure_days}
    elif len(sure_times) == 1:
        times = {key: times[key] for key in sure_times}
    days = {key: days[key] for key in days.keys() - times.keys()}
    if len(days) != 1 or len(times) != 1:
        return None
    return (*days.values(), *times.values())  # type: ignore[return-value]  # mypy does not count them


def _joined(elements: Elements, day: Place, time: Place) -> Place:
    """Return the place of a day and a time of day as one text, with a blank between them."""
    pairs = zip(values_at(elements, day), values_at(elements, time), strict=True)
    texts: list[JSON] = [f"{one} {other}" for one, other in pairs if one is not None and other is not None]
    expression = f"join(' ', [{day.expression}, {time.expression}])"
    if not (day.is_complete and time.is_complete):
        expression = f"if({day.expression} && {time.expression}, {expression})"
    return replace(day, name="timestamp", expression=expression, shape=observe(texts))


def _choose(
    elements: Elements,
    places: Sequence[Place],
    all_places: Sequence[Place],
    joined: Mapping[int, Place],
    wishes: Wishes,
) -> tuple[Time, Place | None, set[int]]:
    spread = "index" if any(place.scope for place in all_places) else "offset"
    if wishes.time is not None:
        place = place_named(elements, all_places, wishes.time, "--time")
        place = joined.get(id(place), place)
        return _chosen_time(place, wishes), place, set()
    found: list[tuple[tuple[int, ...], Place, Clock]] = []
    for place in places:
        rank = _rank_of_name(place)
        if rank is None:
            continue
        clock = clock_of(place.shape.scalars, wishes.timezone)
        if clock is None or (rank == 0 and not _looks_like_a_time(place, clock)):
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
    reason = f"{_why_clock(place, clock, wishes)}" + (f"; or {', '.join(shown[:3])}" if shown else "")
    return Time(expression, reason, clock.format, clock.timezone, falls_back=not is_complete), place, others


def _rank_of_name(place: Place) -> int | None:
    """Return how well a name suits the time of the values; None if it is a span, such as uptime."""
    words = words_of(place.name)
    if has_word(place.name, SPANS):
        return None
    if has_word(place.name, OTHER_TIMES) or place.in_list:
        return 1
    return 3 if words and set(words) <= TIMES else 2 if has_word(place.name, TIMES) else 0


def _varies(place: Place) -> bool:
    return len(place.shape.distinct) > 1


def _looks_like_a_time(place: Place, clock: Clock) -> bool:
    """Return whether values look like times although their name does not say so.

    Texts do.  Numbers do in a tuple, and where they grow, or lie close together, and are not counted or measured.
    """
    numbers = [value for value in place.shape.scalars if not isinstance(value, (str, bool))]
    if not numbers:
        return clock.format not in UNITS_NS
    if place.path and isinstance(place.path[-1], int):
        return True
    if has_word(place.name, COUNTS | QUANTITIES) or len(set(numbers)) < 2:
        return False
    is_close = max(numbers) - min(numbers) <= CLOSENESS * max(numbers)
    return is_close and (clock.format != "unix_s" or len(numbers) > 2)


def _why_clock(place: Place, clock: Clock, wishes: Wishes) -> str:
    if clock.day:
        return f"by its size {clock.format}: {clock.day}"
    if clock.timezone and wishes.timezone:
        return f"a time, {place.seen}; the zone was chosen, since the times do not say it"
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
        return Time(
            place.expression, f"chosen; {_why_clock(place, clock, wishes)}", clock.format, clock.timezone, falls_back
        )
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
