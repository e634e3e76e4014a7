"""What changes in the data when one version of a mapping replaces another: both render the same samples.

Results are compared sample by sample.  Points are paired within their measurement (messages within their sample): first
equal ones, then those of one series and time, then in their order.

| change                                          | verdict    | because                                            |
|-------------------------------------------------|------------|----------------------------------------------------|
| measurement, field, header or member added      | compatible | what is there stays as it is                       |
| value of a field, header or member changed      | compatible | later values differ, their names and types do not  |
| point or message added                          | compatible |                                                    |
| point overwritten by one of another sample      | breaking   | the values of one of them are lost                 |
| measurement, point, field, message … removed    | breaking   | a query or a consumer does not find it any more    |
| type of a field or member changed               | breaking   | the server, or a consumer, refuses the new one     |
| tag added, removed or changed                   | breaking   | the point is one of another series                 |
| time moved                                      | breaking   | a replay does not replace the point that is there  |
| key changed                                     | breaking   | the message goes to another partition              |
| id changed                                      | breaking   | a row that is read again is published twice        |
| sample fails, was rendered before               | breaking   | its message becomes a dead letter                  |
| sample is rendered, failed before               | compatible |                                                    |
| sample fails otherwise                          | compatible | it is a dead letter as before                      |

Pure: no I/O.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import SequenceMatcher
from itertools import chain, zip_longest
from typing import Any, Final, Literal, TypeAlias, cast

import msgspec

from iggyflux.authoring.examples import example_message, example_rows
from iggyflux.authoring.names import type_name
from iggyflux.errors import RecordError
from iggyflux.lineprotocol import Unsigned, parse_line
from iggyflux.mapping import ReaderMapping, WriterMapping
from iggyflux.payloads import FORMATS
from iggyflux.records import JSON, Message, OutgoingMessage, Row

Verdict: TypeAlias = Literal["compatible", "breaking"]

_BREAKING: Final = {
    ("measurement", "removed"),
    ("point", "removed"),
    ("point", "overwritten"),
    ("message", "removed"),
    ("tag", "added"),
    ("tag", "removed"),
    ("tag", "changed"),
    ("field", "removed"),
    ("field", "type"),
    ("member", "removed"),
    ("member", "type"),
    ("header", "removed"),
    ("header", "type"),
    ("time", "moved"),
    ("key", "changed"),
    ("id", "changed"),
    ("sample", "fails"),
}


@dataclass(frozen=True, slots=True)
class Given:
    """What is rendered: a message for writers, the rows of one call for readers."""

    name: str
    message: Message | None = None
    rows: tuple[Row, ...] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """A change of `subject` (`cpu.host`), and how many points or messages show it, the first of them in `sample`.

    `kind` is measurement, point, message, tag, field, member, header, time, key, id or sample; `how` is added, removed,
    changed, type, moved, fails or rendered; `detail` says from what to what, as the first one shows it.
    """

    kind: str
    how: str
    subject: str
    detail: str
    count: int
    sample: str

    @property
    def verdict(self) -> Verdict:
        """Whether what is stored, or what reads it, fits together with the new data."""
        return "breaking" if (self.kind, self.how) in _BREAKING else "compatible"


@dataclass(frozen=True, slots=True)
class ChangedSample:
    """The lines that differ in what comes of one sample, in their order: `-` before them is old, `+` is new."""

    sample: str
    lines: tuple[tuple[Literal["-", "+"], str], ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """The changes, the breaking ones first, and the number of series of each measurement before and after."""

    samples: int
    changes: tuple[Change, ...]
    changed_samples: tuple[ChangedSample, ...]
    series: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def verdict(self) -> Literal["equal", "compatible", "breaking"]:
        """The worst of the changes."""
        if any(change.verdict == "breaking" for change in self.changes):
            return "breaking"
        return "compatible" if self.changes or self.changed_samples else "equal"


def samples_of_examples(*mappings: WriterMapping | ReaderMapping) -> list[Given]:
    """Return the messages, or rows, of the examples of documents, each once.

    Where examples of two documents have one name, the name says which is `old` and which is `new`.
    """
    found: dict[str, tuple[int, Given]] = {}
    for document, mapping in enumerate(mappings):
        for number, tree in enumerate(mapping.examples):
            title = str(tree.get("name") or f"example {number + 1}")
            if isinstance(mapping, ReaderMapping):
                rows = tuple(example_rows(tree, mapping.reader.source.measurement or ""))
                found.setdefault(repr(rows), (document, Given(title, rows=rows)))
                continue
            try:
                message = example_message(mapping, tree, number)
            except RecordError:
                continue
            key = repr((message.payload, message.headers, tree.get("meta")))
            found.setdefault(key, (document, Given(title, message)))
    of_both = Counter(title for title, _ in {(given.name, document) for document, given in found.values()})
    return [
        replace(given, name=f"{given.name} ({'new' if document else 'old'})") if of_both[given.name] > 1 else given
        for document, given in found.values()
    ]


def compare(
    old: WriterMapping | ReaderMapping, new: WriterMapping | ReaderMapping, samples: Sequence[Given]
) -> Comparison:
    """Compare what both mappings, of one kind, make of `samples`."""
    plans = [cast(Any, mapping.plan()) for mapping in (old, new)]
    found = _Found()
    known: tuple[_Stored, _Stored] = (defaultdict(Counter), defaultdict(Counter))
    changed = []
    for given in samples:
        what = list(given.rows) if given.message is None else [given.message]
        rendered = [plan.render(what) for plan in plans]
        before, after = (_Made.of(mapping, each) for mapping, each in zip((old, new), rendered, strict=True))
        _compare_outcomes(found, given.name, before, after)
        for made, stored in zip((before, after), known, strict=True):
            for each in made.items:
                stored[each.group][frozenset(each.labels.items()), each.time] += 1
        if lines := tuple(_differences(before.lines, after.lines)):
            changed.append(ChangedSample(given.name, lines))
    if old.kind == "reader":
        return Comparison(len(samples), found.changes(), tuple(changed))
    _compare_groups(found, *known)
    series = {group: (_series(known[0], group), _series(known[1], group)) for group in sorted({*known[0], *known[1]})}
    return Comparison(len(samples), found.changes(), tuple(changed), series)


_Stored: TypeAlias = dict[str, Counter[tuple[Any, int | None]]]
"""What is stored: measurement → tags and time → how many points wrote it."""


def _series(stored: _Stored, group: str) -> int:
    return len({labels for labels, _ in stored.get(group, ())})


# --- what came of a sample ---


@dataclass(frozen=True, slots=True)
class _Item:
    """A point: measurement, tags, fields and time.  Or a message: headers, members of the payload, time, key and id."""

    group: str
    labels: Mapping[str, JSON]
    values: Mapping[str, JSON]
    time: int | None
    key: str | None = None
    id: int = 0


@dataclass(frozen=True, slots=True)
class _Made:
    items: Sequence[_Item]
    lines: Sequence[str]
    failures: Sequence[str]
    is_reader: bool

    @classmethod
    def of(cls, mapping: WriterMapping | ReaderMapping, rendered: Any) -> _Made:
        """Return what a plan rendered, for comparison."""
        failures = [f"{each.code} at {each.location}: {each.reason}" for each in rendered.failures]
        if isinstance(mapping, ReaderMapping):
            messages = rendered.messages
            payload = mapping.reader.target.payload
            items = [_item_of_message(each, payload) for each in messages]
            return cls(items, [_text_of_message(each) for each in messages], failures, is_reader=True)
        points = [parse_line(line) for line in rendered.lines]
        buckets = rendered.buckets or [""] * len(points)
        groups = [
            f"{bucket}/{each.measurement}" if bucket else each.measurement
            for bucket, each in zip(buckets, points, strict=True)
        ]
        items = [
            _Item(group, each.tags, each.fields, each.timestamp_ns) for group, each in zip(groups, points, strict=True)
        ]
        lines = [
            f"{line}  # bucket: {bucket}" if bucket else line
            for bucket, line in zip(buckets, rendered.lines, strict=True)
        ]
        return cls(items, lines, failures, is_reader=False)


def _item_of_message(message: OutgoingMessage, form: str) -> _Item:
    try:
        payload = FORMATS[form].decode(message.payload, {}, None, False)
    except RecordError:
        payload = message.payload.decode("utf-8", "backslashreplace")
    members = dict(_members(payload, ""))
    return _Item("", message.headers, members, message.timestamp_ns, message.key, message.id)


def _members(value: JSON, path: str) -> Iterator[tuple[str, JSON]]:
    """Yield the scalars of a payload with their paths; all elements of a list have one path."""
    if isinstance(value, Mapping):
        for name, each in value.items():
            yield from _members(each, f"{path}.{name}" if path else name)
    elif isinstance(value, list):
        for each in value:
            yield from _members(each, f"{path}[]")
    else:
        yield path or "@", value


def _text_of_message(message: OutgoingMessage) -> str:
    """Return a message as one line for people."""
    payload = message.payload.decode("utf-8", "backslashreplace")
    known = {"key": message.key, "headers": dict(message.headers) or None, "timestamp": message.timestamp_ns}
    rest = {name: value for name, value in known.items() if value is not None}
    return f"{payload}  {msgspec.json.encode(rest).decode()}" if rest else payload


# --- comparing ---


class _Found:
    """The changes so far: the first sample of each, and their number."""

    def __init__(self) -> None:
        self._changes: dict[tuple[str, str, str], Change] = {}

    def add(self, sample: str, kind: str, how: str, subject: str, detail: str = "") -> None:
        """Count a change."""
        known = self._changes.get((kind, how, subject)) or Change(kind, how, subject, detail, 0, sample)
        self._changes[kind, how, subject] = replace(known, count=known.count + 1)

    def replace(self, change: tuple[str, str, str], kind: str) -> None:
        """Say the same of another kind of subject."""
        known = self._changes.pop(change)
        self._changes[kind, known.how, known.subject] = replace(known, kind=kind)

    def changes(self) -> tuple[Change, ...]:
        """Return the changes, the breaking ones first, else in the order in which they were found."""
        return tuple(sorted(self._changes.values(), key=lambda each: each.verdict != "breaking"))


def _compare_outcomes(found: _Found, sample: str, before: _Made, after: _Made) -> None:
    more, fewer = (
        list(_missing(*each)) for each in ((after.failures, before.failures), (before.failures, after.failures))
    )
    for text, was in zip(more, fewer, strict=False):
        found.add(sample, "sample", "fails otherwise", was, f"now {text}")
    for text in more[len(fewer) :]:
        found.add(sample, "sample", "fails", text)
    for text in fewer[len(more) :]:
        found.add(sample, "sample", "rendered", text)
    noun = "message" if before.is_reader else "point"
    for group in dict.fromkeys(each.group for each in (*before.items, *after.items)):
        old = [each for each in before.items if each.group == group]
        new = [each for each in after.items if each.group == group]
        for one, other in _pairs(old, new):
            if one is None:
                found.add(sample, noun, "added", group)
            elif other is None:
                found.add(sample, noun, "removed", group)
            else:
                _compare_items(found, sample, one, other, is_reader=before.is_reader)


def _missing(wanted: Sequence[str], known: Sequence[str]) -> Iterator[str]:
    """Return the texts that are more often in `wanted` than in `known`."""
    return (Counter(wanted) - Counter(known)).elements()


def _pairs(old: Sequence[_Item], new: Sequence[_Item]) -> Iterator[tuple[_Item | None, _Item | None]]:
    """Yield the items that belong together; an item without a counterpart is paired with None."""
    left, others = list(old), list(new)
    for same in (_content, _place):
        waiting: dict[Any, list[_Item]] = defaultdict(list)
        for other in reversed(others):
            waiting[same(other)].append(other)
        unpaired = []
        for one in left:
            if waiting[same(one)]:
                yield one, waiting[same(one)].pop()
            else:
                unpaired.append(one)
        kept = {id(each) for each in chain.from_iterable(waiting.values())}
        left, others = unpaired, [each for each in others if id(each) in kept]
    yield from zip_longest(left, others)


def _content(item: _Item) -> Any:
    """Return what is the same only for items that are equal."""
    values = frozenset((name, type_name(value), value) for name, value in item.values.items())
    return _place(item), values, item.id


def _place(item: _Item) -> Any:
    """Return what is the same for points that replace one another."""
    labels = frozenset((name, type_name(value), value) for name, value in item.labels.items())
    return labels, item.time, item.key


def _compare_items(found: _Found, sample: str, one: _Item, other: _Item, *, is_reader: bool) -> None:
    prefix = f"{one.group}." if one.group else ""
    label, value = ("header", "member") if is_reader else ("tag", "field")
    for kind, old, new in ((label, one.labels, other.labels), (value, one.values, other.values)):
        for name in dict.fromkeys((*old, *new)):
            subject = f"{prefix}{name}"
            if name not in old:
                found.add(sample, kind, "added", subject, _shown(new[name]))
            elif name not in new:
                found.add(sample, kind, "removed", subject, _shown(old[name]))
            elif type_name(old[name]) != type_name(new[name]):
                types = f"{type_name(old[name])} → {type_name(new[name])}"
                found.add(sample, kind, "type", subject, types)
            elif old[name] != new[name]:
                found.add(sample, kind, "changed", subject, f"{_shown(old[name])} → {_shown(new[name])}")
    subject = one.group or "message"
    if one.time != other.time:
        found.add(sample, "time", "moved", subject, _moved(one.time, other.time))
    if one.key != other.key:
        found.add(sample, "key", "changed", subject, f"{_shown(one.key)} → {_shown(other.key)}")
    if one.id != other.id:
        found.add(sample, "id", "changed", subject)


def _shown(value: object) -> str:
    text = str(value) if isinstance(value, Unsigned) else msgspec.json.encode(value).decode()
    return text if len(text) <= 40 else f"{text[:39]}…"


def _moved(old: int | None, new: int | None) -> str:
    if old is None or new is None:
        return f"{'none' if old is None else old} → {'none' if new is None else new}"
    return f"by {(new - old) / 1e9:+.9g} s"


def _compare_groups(found: _Found, before: _Stored, after: _Stored) -> None:
    """Report what only all samples show: measurements of one mapping, and points that replace one another."""
    for how, groups in (("removed", {*before} - {*after}), ("added", {*after} - {*before})):
        for group in sorted(groups):
            found.replace(("point", how, group), "measurement")
    for group in sorted({*before} & {*after}):
        was, now = (sum(each[group].values()) - len(each[group]) for each in (before, after))
        if now > was:
            found.add("all samples", "point", "overwritten", group, f"{was:,} → {now:,}")


def _differences(old: Sequence[str], new: Sequence[str]) -> Iterator[tuple[Literal["-", "+"], str]]:
    for kind, start, stop, from_, to in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if kind != "equal":
            for line in old[start:stop]:
                yield "-", line
            for line in new[from_:to]:
                yield "+", line
