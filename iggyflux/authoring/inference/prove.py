"""The proof of a proposal: it compiles, renders every sample without failure, and passes its own examples.

What fails is replaced by a weaker choice, which says so: an integer becomes a float, a value that cannot be stored is
left out, a tag becomes nothing.  Each step removes a choice, so there is an end.
"""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Final, Literal

from iggyflux.authoring.examples import run_examples
from iggyflux.authoring.inference.clocks import RARE
from iggyflux.authoring.inference.copies import example_of
from iggyflux.authoring.inference.decide import NO_FIELDS
from iggyflux.authoring.inference.proposal import Example, Field, Measurement, Proposal, Tag, Time, Unused
from iggyflux.authoring.inference.roles import FEW
from iggyflux.authoring.samples import SampleError
from iggyflux.authoring.series import tags_of
from iggyflux.delivery.lines import count_overwriting, field_names, point_key
from iggyflux.documents import split_pointer
from iggyflux.errors import MappingError, counted
from iggyflux.lineprotocol import parse_lines
from iggyflux.mapping import WriterMapping, parse_mapping
from iggyflux.records import Message, Rendered

CANNOT_PROVE: Final = "IFX545"

MOST_STEPS: Final = 40
"""More weaker choices than these are not made: the samples then suit no mapping."""
MOST_EXAMPLES: Final = 3
FEW_IN: Final = 2
"""Texts that distinguish points have at most one value for so many of them: an id of each point stays a field."""
SPREAD: Final = "; `spread` keeps elements with the same tags and time apart"
GROWTH: Final = 1.5
"""With so many times the series of the first half, the second half of the messages brought new ones all the time."""
_HEADER: Final = re.compile(r"header\('([^'\\]*)'\)")
_ALL_NULL, _COLLISION, _NO_ROOM, _TOO_MANY = "IFX346", "IFX351", "IFX353", "IFX354"
_NAMES: Final = frozenset({"IFX310", "IFX311", "IFX312", "IFX313", "IFX314", "IFX315"})
_NULL_TIME, _BAD_TIME = "IFX345", "IFX349"
_TIME_FAILS: Final = ("/points/timestamp", _BAD_TIME)


def prove(proposal: Proposal, messages: Sequence[Message], form: Literal["yaml", "toml"]) -> Proposal:
    """Return the proposal, weakened where it fails, with examples.  Raise SampleError if none is left that works."""
    if proposal.may_lack_fields is not None:
        reason = f"messages with another {proposal.may_lack_fields} and none of the fields are skipped and counted"
        proposal = replace(proposal, where_reason=reason)
    for _ in range(MOST_STEPS):
        try:
            mapping = _compiled(proposal, form)
        except MappingError as error:
            problem = error.problems[0]
            proposal = _weaker(proposal, problem.location.pointer or "", problem.code, problem.message, renders=False)
            continue
        rendered = mapping.plan().render(messages)
        if not rendered.failures:
            stored = _stored(proposal, rendered.lines)
            if stored != proposal and stored.fields:
                proposal = stored
                continue
            return _with_examples(proposal, mapping, messages, rendered, form)
        counts = Counter((failure.location, failure.code) for failure in rendered.failures)
        if counts[_TIME_FAILS] <= RARE * (len(rendered.lines) + counts.total()):
            del counts[_TIME_FAILS]
        if not counts:
            return _with_examples(proposal, mapping, messages, rendered, form)
        reasons = {(failure.location, failure.code): failure.reason for failure in rendered.failures}
        for (location, code), count in counts.items():
            if code == _COLLISION and (told := _told_apart(proposal, messages, form)):
                proposal = told
                continue
            if code == _NO_ROOM and (rarely := _rarely_one(proposal, messages, form)):
                proposal = rarely
                continue
            proposal = _weaker(proposal, location, code, f"{count:,} failed: {reasons[location, code]}")
    raise SampleError(CANNOT_PROVE, "no mapping renders all samples", 0, "give fewer kinds of messages at a time")


def _compiled(proposal: Proposal, form: Literal["yaml", "toml"]) -> WriterMapping:
    mapping = parse_mapping(proposal.text(form), format=form, name="inferred", file=proposal.source.file)
    assert isinstance(mapping, WriterMapping)  # noqa: S101  (its kind is written)
    return mapping


def _stored(proposal: Proposal, lines: Sequence[str]) -> Proposal:
    """Return the proposal without the tags and fields that no line has, since no record has a value there."""
    parts: tuple[Tag | Field, ...] = (*proposal.tags, *proposal.fields)
    missing = {each.key for each in parts}
    for line in lines:
        if not missing:
            return proposal
        for point in parse_lines(line):
            missing -= {*point.tags, *point.fields}
    lost = tuple(
        Unused(each.key, {"expr": each.expression, "type": "string"}, "no message that makes points has a value there")
        for each in parts
        if each.key in missing
    )
    tags = tuple(each for each in proposal.tags if each.key not in missing)
    fields = tuple(each for each in proposal.fields if each.key not in missing)
    return replace(proposal, tags=tags, fields=fields, unused=(*proposal.unused, *lost))


# --- weaker choices ---


def _weaker(proposal: Proposal, pointer: str, code: str, reason: str, *, renders: bool = True) -> Proposal:
    """Return the proposal with a weaker choice at `pointer`.  Raise SampleError if there is none.

    `renders` says that a sample fails there; else the document does, and no sample has a bad value.
    """
    part, *rest = [*split_pointer(pointer), "", ""][1:] if pointer.startswith("/points") else ["", ""]
    if code in _NAMES and not proposal.replaces_names:
        return replace(proposal, replaces_names=True)
    if code == _ALL_NULL and not proposal.where_reason:
        return replace(proposal, where_reason="some samples have none of the fields: those are skipped and counted")
    if code == _ALL_NULL and (omitting := next((each for each in proposal.fields if each.omits), None)):
        return _weaker_field(proposal, omitting.key, reason, renders=True)  # a bad value is the only one of a message
    if code == _COLLISION:
        return _apart(proposal)
    if part == "fields" and rest[0]:
        return _weaker_field(proposal, rest[0], reason, renders=renders)
    if part == "tags" and rest[0]:
        return _without_tag(proposal, rest[0], reason)
    if code == _NO_ROOM and proposal.time.spread == "index":
        hint = "name the member that tells them apart: --tag NAME"
        raise SampleError(CANNOT_PROVE, f"too many elements have the same tags and time: {reason}", 0, hint)
    if part == "timestamp":
        time = _weaker_time(proposal, code, reason)
        lost = proposal.time.expression if time.expression is None else None
        return _without(replace(proposal, time=time), lost, "it fails as the time")
    if part == "measurement" and not proposal.measurement.is_constant:
        measurement = Measurement(proposal.source.topic, True, f"the topic, since {reason}")
        weaker = replace(proposal, measurement=measurement)
        return _without(weaker, proposal.measurement.text, "it fails as the measurement")
    raise SampleError(CANNOT_PROVE, f"no mapping renders all samples: {reason}", 0, "remove what is unlike the others")


def _without(proposal: Proposal, expression: str | None, reason: str) -> Proposal:
    """Return the proposal, which names an expression that it does not read any more."""
    left = (Unused("", expression, reason),) if expression is not None else ()
    return replace(proposal, unused=(*proposal.unused, *left))


def _told_apart(
    proposal: Proposal, messages: Sequence[Message], form: Literal["yaml", "toml"], *, across: bool = False
) -> Proposal | None:
    """Return the proposal in which a text with few values is a tag, if no two points of a message are then one.

    Of several such texts it is the one with the fewest values.  With `across`, no points of several messages are one.
    """
    try:
        lines = _compiled(proposal if across else _apart(proposal), form).plan().render(messages).lines
    except MappingError:
        return None
    points = [point for line in lines for point in parse_lines(line)]
    texts = [each for each in proposal.fields if each.type == "string"]
    counts = [len({point.fields.get(each.key) for point in points}) for each in texts]
    for count, field in sorted(zip(counts, texts, strict=True), key=lambda each: each[0]):
        fields = tuple(each for each in proposal.fields if each is not field)
        if not fields or count * FEW_IN > len(points):
            break
        tag = Tag(field.key, field.expression, f"it tells points of one time apart; else {field.reason}")
        told = replace(proposal, tags=(*proposal.tags, tag), fields=fields)
        try:
            rendered = _compiled(told, form).plan().render(messages)
        except MappingError:
            continue
        is_one = across and count_overwriting(rendered.lines) > 0
        if not is_one and not any(failure.code == _COLLISION for failure in rendered.failures):
            return told
    return None


def _rarely_one(proposal: Proposal, messages: Sequence[Message], form: Literal["yaml", "toml"]) -> Proposal | None:
    """Return the proposal in which the last of points that are one wins, if few of a long list are."""
    if proposal.time.expression is None:  # all of them have the time of their message
        return None
    time = replace(proposal.time, spread=None, reason=proposal.time.reason.partition(SPREAD)[0])
    lost, count = _collisions(replace(proposal, time=time), messages, form)
    return replace(proposal, time=time, keeps_last=True) if 0 < lost <= RARE * count else None


def _collisions(proposal: Proposal, messages: Sequence[Message], form: Literal["yaml", "toml"]) -> tuple[int, int]:
    """Return how many points of a message have the tags and time of an earlier one of it, and how many do not."""
    rendered = _compiled(replace(proposal, keeps_last=False), form).plan().render(messages)
    return sum(failure.code == _COLLISION for failure in rendered.failures), len(rendered.lines)


def _apart(proposal: Proposal) -> Proposal:
    """Keep points of one message apart: by the nanoseconds below the time, else the last one wins."""
    time = proposal.time
    if proposal.for_each and time.spread is None and time.format != "unix_ns":
        reason = f"{time.reason}{SPREAD}"
        return replace(proposal, time=replace(time, spread="index", reason=reason))
    return replace(proposal, keeps_last=True)


def _weaker_field(proposal: Proposal, key: str, reason: str, *, renders: bool) -> Proposal:
    field = next(each for each in proposal.fields if each.key == key)
    weaker = _weaker_type(field, renders=renders)
    if weaker is None:
        left = tuple(each for each in proposal.fields if each is not field)
        if not left:
            raise SampleError(NO_FIELDS, f"no values to store: {key}: {reason}", 0, "use other samples")
        unused = Unused(key, {"expr": field.expression}, f"it fails: {reason}")
        return replace(proposal, fields=left, unused=(*proposal.unused, unused))
    if renders or weaker.type != field.type:
        weaker = replace(weaker, reason=f"{weaker.reason}; not {_kind(field)}: {reason}")
    fields = tuple(weaker if each is field else each for each in proposal.fields)
    return replace(proposal, fields=fields)


def _kind(field: Field) -> str:
    return f"as {field.type}" + (" with bad values left out" if field.omits else "")


def _weaker_type(field: Field, *, renders: bool) -> Field | None:
    """Return the field with the next weaker type; None if there is none."""
    if field.type in ("integer", "unsigned"):
        return replace(field, type="float", cast=True)
    if not renders:
        return None if field.cast else replace(field, cast=True)
    return None if field.omits else replace(field, cast=True, omits=True)


def _without_tag(proposal: Proposal, key: str, reason: str) -> Proposal:
    tag = next(each for each in proposal.tags if each.key == key)
    if tag.required:
        tags = tuple(replace(each, required=False) if each is tag else each for each in proposal.tags)
        return replace(proposal, tags=tags)
    unused = Unused(key, {"expr": tag.expression, "type": "string"}, f"it fails as a tag: {reason}")
    return replace(proposal, tags=tuple(e for e in proposal.tags if e is not tag), unused=(*proposal.unused, unused))


def _weaker_time(proposal: Proposal, code: str, reason: str) -> Time:
    time = proposal.time
    if time.spread is not None and (code not in (_NULL_TIME, _BAD_TIME) or time.expression is None):
        return replace(time, spread=None, reason=f"{time.reason}; not spread: {reason}")
    if time.expression is not None and not time.falls_back and code == _NULL_TIME:
        return replace(time, falls_back=True)
    if time.expression is None:
        raise SampleError(CANNOT_PROVE, f"no mapping renders all samples: {reason}", 0, "give other samples")
    spread: Literal["index", "offset"] = "index" if proposal.for_each else "offset"
    return Time(None, f"that of the message, since {time.expression} fails: {reason}", spread=spread)


# --- examples ---


def _with_examples(
    proposal: Proposal,
    mapping: WriterMapping,
    messages: Sequence[Message],
    rendered: Rendered,
    form: Literal["yaml", "toml"],
) -> Proposal:
    if not rendered.lines:
        raise SampleError(NO_FIELDS, "no sample makes a point", 0, "use samples that are alike, with numbers")
    examples: list[Example] = []
    for message in _telling(messages, rendered):
        example = example_of(mapping, message, len(examples), _headers_read(proposal))
        if example is not None:
            examples.append(example)
        if len(examples) == MOST_EXAMPLES:
            break
    proposal = replace(proposal, examples=tuple(examples), notes=_notes(proposal, messages, rendered, form))
    while True:
        failed = _failing_example(proposal, form)
        if failed is None:
            return proposal
        left = tuple(each for index, each in enumerate(proposal.examples) if index != failed)
        proposal = replace(proposal, examples=left)


def _headers_read(proposal: Proposal) -> frozenset[str]:
    """Return the names of the headers that tags, fields and the measurement are read from."""
    read = [tag.expression for tag in proposal.tags] + [field.expression for field in proposal.fields]
    read += [proposal.measurement.text, proposal.time.expression or ""]
    return frozenset(name for each in read for name in _HEADER.findall(each))


def _failing_example(proposal: Proposal, form: Literal["yaml", "toml"]) -> int | None:
    """Return the index of an example that cannot be read or does not pass."""
    try:
        mapping = _compiled(proposal, form)
    except MappingError as error:
        tokens = [*split_pointer(error.problems[0].location.pointer or ""), "", ""]
        return int(tokens[1]) if tokens[0] == "examples" and tokens[1].isdigit() else len(proposal.examples) - 1
    failed = [index for index, result in enumerate(run_examples(mapping)) if not result.passed]
    return failed[0] if failed else None


def _telling(messages: Sequence[Message], rendered: Rendered) -> Iterator[Message]:
    """Yield the messages that show most: the first, then those with lines of other fields, then one that is skipped."""
    seen: set[frozenset[str]] = set()
    shown: set[int] = set()
    for origin, line in zip(rendered.origins, rendered.lines, strict=True):
        fields = frozenset(field_names(line))
        if fields not in seen and origin not in shown:
            shown.add(origin)
            yield messages[origin]
        seen.add(fields)
    for index in [*rendered.skipped, *rendered.empty][:1]:
        yield messages[index]


def _notes(
    proposal: Proposal, messages: Sequence[Message], rendered: Rendered, form: Literal["yaml", "toml"]
) -> tuple[str, ...]:
    """Return the lines at the top: where the document comes from, how many series there are, and what to do."""
    keys = [point_key(line)[0] for line in rendered.lines]
    series, first_half = set(keys), set(keys[: len(keys) // 2])
    grows = len(keys) >= FEW and len(series) > GROWTH * len(first_half)
    makes = "makes" if len(messages) == 1 else "make"
    made = f"{counted(len(messages), 'message')}, which {makes} {counted(len(keys), 'point')}"
    return (
        f"Inferred by `iggyflux infer` from {made}.",
        f"About {len(series):,} series{', and growing with each message' if grows else ''}. {_causes(series)}",
        *_without_time(rendered),
        *(_lost(*_collisions(proposal, messages, form)) if proposal.keeps_last else ()),
        *_overwritten(proposal, messages, rendered.lines, form),
        *_not_walked(proposal),
        "The comments give the reasons and the alternatives. Next: iggyflux test FILE",
    )


def _without_time(rendered: Rendered) -> Iterator[str]:
    """Yield a warning if some samples fail since their times are none."""
    if count := len(rendered.failures):
        all_of_them = count + len(rendered.lines)
        yield f"CHECK: {count:,} of {all_of_them:,} fail, for their times: {rendered.failures[0].reason}."


def _lost(count: int, others: int) -> Iterator[str]:
    """Yield a warning if points of a message are left out, since others have their tags and time."""
    if count:
        yield f"CHECK: {count:,} of {count + others:,} points have tags and time of another one: the last one remains."


def _overwritten(
    proposal: Proposal, messages: Sequence[Message], lines: Sequence[str], form: Literal["yaml", "toml"]
) -> Iterator[str]:
    """Yield a warning if points have the tags and time of other ones, and a field in common."""
    if count := count_overwriting(lines):
        what = f"{count:,} of {counted(len(set(lines)), 'point')} overwrite another one, with the same tags and time"
        told = _told_apart(proposal, messages, form, across=True)
        name = f" {shlex.quote(told.tags[-1].expression)} tells them apart" if told is not None else ""
        yield f"CHECK: {what}. Add a tag (--tag{name}), or take another time (--time)."


def _not_walked(proposal: Proposal) -> Iterator[str]:
    """Yield a warning if lists or maps with numbers or flags are not stored."""
    names = [str(each.line) for each in proposal.unused if each.is_measured]
    if names:
        what = f"{', '.join(names[:3])}{' …' if len(names) > 3 else ''}"
        yield f"CHECK: values are not stored, of {what}. The comments under `fields` say what would store them."


def _causes(series: Iterable[str]) -> str:
    """Return how many values each tag has, the most first."""
    values: dict[str, set[str]] = {}
    for key in series:
        for name, value in tags_of(key):
            values.setdefault(name, set()).add(value)
    ordered = sorted(values.items(), key=lambda each: -len(each[1]))
    shown = ", ".join(f"{name} ({len(found):,})" for name, found in ordered[:6])
    return f"Tags and their values: {shown}." if shown else "No tags."
