"""From the shape of samples to a proposal: what is read, and what each place becomes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from iggyflux.authoring.inference.elements import MOST_HOPS, Elements, Passed, expression_of, find_elements
from iggyflux.authoring.inference.measurements import choose_measurement, constant_type
from iggyflux.authoring.inference.names import Names, singular
from iggyflux.authoring.inference.places import find_places, place_named
from iggyflux.authoring.inference.proposal import Field, Input, Proposal, Tag, Unused
from iggyflux.authoring.inference.roles import (
    FEW,
    REQUIRED_FROM,
    Place,
    Role,
    has_decimal_comma,
    is_one_each,
    known_role,
    role_beside_decimal_commas,
    roles_of,
    told_role,
)
from iggyflux.authoring.inference.shape import Shape
from iggyflux.authoring.inference.sources import copies_among, states_among
from iggyflux.authoring.inference.times import choose_time
from iggyflux.authoring.inference.wishes import Wishes
from iggyflux.authoring.inference.write import yaml_flow
from iggyflux.authoring.samples import SampleError
from iggyflux.errors import counted
from iggyflux.records import JSON

NO_FIELDS: Final = "IFX542"

MOST_FIELDS: Final = 500
"""No table that people read has more columns; what is beyond is named in a comment."""


def decide(
    shape: Shape,
    source: Input,
    wishes: Wishes,
    headers: Sequence[Mapping[str, JSON]] = (),
    most_hops: int = MOST_HOPS,
) -> Proposal:
    """Return the proposal for samples of a shape.  Raise SampleError if nothing is stored, or a person must choose."""
    elements = find_elements(shape, most_hops, has_rows=source.format in ("influx", "csv"))
    places = find_places(elements, source, headers)
    time, used, others = choose_time(elements, places, wishes)
    is_table = _is_table(elements, places, used)
    wanted = {id(place_named(elements, places, name, "--tag")) for name in wishes.tags}
    free = [place for place in places if id(place) not in wanted and place.name not in source.known]
    measurement, type_place = choose_measurement(elements, free if wishes.measurement is None else places, wishes)
    used |= {id(type_place)} if type_place is not None else set()
    names = Names()
    roles = {
        id(place): _roles(elements, place, id(place) in wanted, source) for place in places if id(place) not in used
    }
    rows = [place for place in places if id(place) in roles.keys() - wanted and place.name not in source.known]
    roles |= {
        id(place): [Role("field", f"an id of each row: {place.different}; or a tag, with a series for each", "string")]
        for place in (rows if is_table else ())
        if place.scope == 1 and roles[id(place)][0].what == "tag" and is_one_each(replace(place, is_new_each=True))
    }
    if any(map(has_decimal_comma, places)):
        beside = {
            id(place): role_beside_decimal_commas(place) for place in places if id(place) in roles.keys() - wanted
        }
        roles |= {place: [role] for place, role in beside.items() if role is not None}
    tagged = [place for place in places if id(place) in roles.keys() - wanted - others]
    tagged = [place for place in tagged if roles[id(place)][0].what == "tag"]
    told = {id(place) for place in tagged if place.name in source.known}  # a tag whatever its values are
    roles |= {place: role for place, role in copies_among(elements, tagged).items() if place not in told}
    tagged = [place for place in tagged if roles[id(place)][0].what == "tag"]
    roles |= {place: role for place, role in states_among(elements, tagged).items() if place not in told}
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
    unused += [_left(elements, passed) for passed in elements.passed_over if passed.values]
    return Proposal(
        source=source,
        measurement=measurement,
        tags=tuple(tags),
        fields=tuple(fields),
        time=time,
        for_each=elements.for_each,
        each_reason=_why_each(elements),
        may_lack_fields=constant_type(places),
        unused=tuple(unused),
    )


_NAMESPACE: Final = re.compile(r"@xmlns(?::.*)?")


def _is_table(elements: Elements, places: Sequence[Place], used: set[int]) -> bool:
    """Return whether the one message is a table of rows with times of their own, and no list of sources."""
    if not elements.hops or elements.hops[0].expression != "@" or len(elements.message.values) > 1:
        return False
    times = [place for place in places if id(place) in used and place.scope == 1]
    is_long = len(elements.hops[0].elements.values) >= REQUIRED_FROM
    return is_long and any(len(place.shape.distinct) >= FEW for place in times)


def _is_map_key(elements: Elements, place: Place) -> bool:
    return place.scope > 0 and elements.hops[place.scope - 1].kind == "map" and place.key == "key"


def _roles(elements: Elements, place: Place, is_wanted: bool, source: Input) -> list[Role]:
    if is_wanted:
        return [Role("tag", "chosen")]
    if place.name in source.known:
        return [known_role(place, source.known[place.name])]
    if source.format == "xml" and _NAMESPACE.fullmatch(place.name):
        return [Role("unused", "it declares an XML namespace", type="string")]
    told = told_role(place) if source.format == "influx" else None
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


def _unused(place: Place, reason: str) -> Unused:
    kinds = set(place.shape.kinds) - {"null"}
    type_ = "string" if "string" in kinds else "boolean" if kinds == {"boolean"} else "float"
    return Unused(place.key or "value", {"expr": place.expression, "type": type_}, reason)


def _left(elements: Elements, passed: Passed) -> Unused:
    """Return a list or map that is not entered, with what a person can write to store it."""
    expression = expression_of(passed.path, elements.start(passed.scope))
    walked = expression_of(passed.path)
    if passed.kind == "map":
        walked = f"items({walked})"
    if passed.only:
        walked = _filtered(walked, passed.only)
    if passed.kind == "rest":
        expression = _filtered(expression, passed.only) if passed.only else expression
    is_innermost = passed.scope == len(elements.hops)
    lists: list[JSON] = [walked] if is_innermost else [*elements.for_each[: passed.scope], walked]
    shown = yaml_flow(lists if len(lists) > 1 else walked, is_expression=True)
    advice = f"a point with for_each: {shown}" if is_innermost else f"a mapping with for_each: {shown}"
    if passed.kind == "rest" and not passed.only:
        advice = "a field"
    return Unused("", expression, passed.reason, passed.kind, advice, passed.is_measured)


def _filtered(expression: str, only: str) -> str:
    return f"{expression}{only}" if expression != "@" else only


def _nothing_to_store(tags: Sequence[Tag], elements: Elements) -> SampleError:
    if tags:
        reason = f"no numbers, flags or other values to store: only {', '.join(tag.key for tag in tags[:5])}"
        return SampleError(NO_FIELDS, reason, 0, "add a constant field by hand: fields: {count: {const: 1}}")
    if elements.message.is_leaf or elements.message.members:
        return SampleError(
            NO_FIELDS, "no values to store: all of them are null, secrets or times", 0, "use other samples"
        )
    return SampleError(NO_FIELDS, "no values to store: the messages are empty", 0, "use other samples")


def _why_each(elements: Elements) -> str:
    if not elements.hops:
        return ""
    hop = elements.hops[-1]
    counts = len(elements.message.values)
    what = {"list": "the list", "map": "the map", "zip": "the columns"}[hop.kind]
    size = len(hop.elements.values)
    return f"{counted(size, 'element')} in {counted(counts, 'message')}: {what} with most of what is measured"
