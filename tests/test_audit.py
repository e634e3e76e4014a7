"""`iggyflux audit`: each point of a range has the class that the table of `iggyflux/audit` says, missing ones are sent.

The property draws messages, losses and changes, and has a model of its own, which looks at every pair of claims.  The
other tests run the command against the simulator, of which a crash takes points that it had acknowledged.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import json
import shutil
import sqlite3
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from iggyflux.audit import points, sorting
from iggyflux.audit.again import LinesPlan, StillMissing
from iggyflux.audit.check import Audit, Report
from iggyflux.audit.letters import LetterIndex
from iggyflux.audit.points import Entry, FieldReader, Numbers, SeriesReader
from iggyflux.audit.sorting import PointSorter
from iggyflux.audit.sources import Limits
from iggyflux.audit.stored import StoreFacts
from iggyflux.audit.window import Class, Window, is_same
from iggyflux.cli.audit import _next_step, _Sent
from iggyflux.delivery.verdicts import Accepted, Unavailable, Verdict
from iggyflux.errors import EndOfInput, Stopped
from iggyflux.lineprotocol import Dialect, Point, Unsigned, parse_line
from iggyflux.mapping import WriterMapping, parse_mapping
from iggyflux.records import Batch, DeadLetter, LazyMessages, Message, Partition, Reason, Row
from iggyflux.runner.writer_run import WriterRun
from iggyflux.sim.server import SimServer
from iggyflux.transports.influxdb.query.schema import Selection
from iggyflux.transports.local.log import Log
from iggyflux.transports.local.memory import ScriptedSource
from tests.shell import iggyflux
from tests.test_change import Tried

MAPPING = """\
iggyflux: 1
kind: writer
name: tides
from: {stream: coast, topic: gauges, payload: json}
for_each: rows
points:
  - measurement: k
    tags: {pier: p}
    fields:
      height: h
      waves: {expr: w, type: integer}
      note: {expr: n, type: string}
      open: {expr: o, type: boolean}
    timestamp: {expr: t, format: unix_s}
"""
NAMES = {"h": "height", "w": "waves", "n": "note", "o": "open"}
OLDEST_S = 3

Key = tuple[str, str, int]


@dataclass(frozen=True)
class Claim:
    """What one message makes of one point."""

    partition: int
    offset: int
    key: Key
    fields: dict[str, Any]
    is_refused: bool


@dataclass
class Case:
    """Messages by partition, with the rows whose lines were refused, and what is in the store in the end."""

    claims: list[Claim]
    payloads: dict[int, list[bytes]]
    has_others: bool = False
    """Whether the store has points of other writers, with a tag of their own."""
    unreadable: list[tuple[int, int, bool]] = field(default_factory=list)
    """Partition and offset of messages that fail to render, and whether a dead letter has them."""
    empty: int = 0
    """Messages without a row."""
    stored: dict[Key, dict[str, Any]] = field(default_factory=dict)


KEYS = st.tuples(st.sampled_from(["surge", "ebb tide"]), st.sampled_from(["north", "a=b,c d", ""]), st.integers(2, 5))
SOME = {
    "h": st.sampled_from([0.5, 1.0, 2.0, -0.0]),
    "n": st.sampled_from(["", 'a "b" \\', "two\nlines", "plain", "x=1i", ",note=", ",open=true"]),
    "o": st.booleans(),
}
FIELDS = st.fixed_dictionaries({"w": st.integers(0, 2)}, optional=SOME) | st.fixed_dictionaries(
    {"w": st.integers(0, 2), **SOME}
)
ROWS = st.lists(st.tuples(KEYS, FIELDS, st.integers(0, 3)), min_size=1, max_size=4, unique_by=lambda row: row[0])


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Draw messages of two partitions, write them in some order, then lose and change what is stored."""
    case = Case([], {0: [], 1: []}, draw(st.booleans()))
    waiting: dict[int, list[list[Claim]]] = {0: [], 1: []}
    for partition in (0, 1):
        for offset, rows in enumerate(draw(st.lists(ROWS, max_size=6))):
            tree = [{"k": key[0], "p": key[1], "t": key[2], **fields} for key, fields, _ in rows]
            case.payloads[partition].append(json.dumps({"rows": tree}).encode())
            waiting[partition].append(
                [
                    Claim(partition, offset, key, {NAMES[name]: value for name, value in fields.items()}, luck == 0)
                    for key, fields, luck in rows
                ]
            )
        for kind in draw(st.lists(st.sampled_from(["empty", "failed", "kept"]), max_size=2)):
            case.empty += kind == "empty"
            if kind != "empty":
                case.unreadable.append((partition, len(case.payloads[partition]), kind == "kept"))
            case.payloads[partition].append(b'{"rows": []}' if kind == "empty" else b"{")
    while any(waiting.values()):
        partition = draw(st.sampled_from([each for each, left in waiting.items() if left]))
        for claim in waiting[partition].pop(0):
            case.claims.append(claim)
            if not claim.is_refused:
                case.stored.setdefault(claim.key, {}).update(claim.fields)
    for key in draw(st.lists(st.sampled_from(sorted(case.stored)), max_size=4)) if case.stored else ():
        for _ in range(draw(st.integers(1, 3))):
            if key in case.stored:
                damage(draw, case, key)
    return case


def damage(draw: st.DrawFn, case: Case, key: Key) -> None:
    """Lose or change something of a stored point, or replay its dead letters."""
    row = case.stored[key]
    kind = draw(st.sampled_from(["lose", "lose a field", "change", "replay"]))
    if kind == "lose":
        del case.stored[key]
    elif kind == "lose a field":
        row.pop(draw(st.sampled_from(sorted(row))))
        if not row:
            del case.stored[key]
    elif kind == "change":
        row[draw(st.sampled_from(sorted(row)))] = draw(st.sampled_from([7.5, 1, True, "other", 0.0, 0]))
    else:
        for claim in case.claims:
            if claim.key == key and claim.is_refused:
                row.update(claim.fields)


def states_of(claims: list[Claim], stored: dict[str, Any]) -> list[dict[str, str]]:
    """Return the class of each field by looking at all pairs of claims to one point."""
    found = []
    for claim in claims:
        states = {}
        for name, value in claim.fields.items():
            mates = [each for each in claims if name in each.fields and each is not claim]
            if any(each.partition == claim.partition and each.offset > claim.offset for each in mates):
                states[name] = "overwritten"
                continue
            finals = [
                each
                for each in (claim, *mates)
                if not any(
                    other.partition == each.partition and other.offset > each.offset for other in (claim, *mates)
                )
            ]
            here = stored.get(name)
            if equals(value, here):
                states[name] = "there"
            elif any(equals(each.fields[name], here) for each in finals):
                states[name] = "overwritten"
            else:
                states[name] = "missing" if here is None else "different"
        found.append(states)
    return found


def equals(value: Any, stored: Any) -> bool:
    return stored is not None and isinstance(value, bool) == isinstance(stored, bool) and value == stored


def truth(case: Case) -> dict[tuple[int, int, Key], str]:
    """Return the class of each claim, by partition, offset and point."""
    found = {}
    for key in {claim.key for claim in case.claims}:
        claims = [claim for claim in case.claims if claim.key == key]
        stored = case.stored.get(key, {})
        states = states_of(claims, stored)
        wrong = any(state in ("missing", "different") for each in states for state in each.values())
        if wrong:
            accepted = [claim for claim in claims if not claim.is_refused]
            again = iter(states_of(accepted, stored))
            states = [{"": "dead_lettered"} if claim.is_refused else next(again) for claim in claims]
        for claim, each in zip(claims, states, strict=True):
            order = ("different", "missing", "dead_lettered", "there", "overwritten")
            kind = next(name for name in order if name in each.values())
            if kind == "missing" and key[2] < OLDEST_S:
                kind = "expired"
            found[claim.partition, claim.offset, key] = kind
    return found


# --- a range and a store in memory ---


class Messages:
    """A range of messages: each partition in batches of two."""

    unsettled = 0

    def __init__(self, payloads: dict[int, list[bytes]]) -> None:
        self.total = sum(map(len, payloads.values()))
        self._batches = [
            Batch(
                Partition("coast", "gauges", partition),
                LazyMessages(
                    all_of[start : start + 2],
                    lambda index, payload, start=start, partition=partition: Message(  # type: ignore[misc]
                        payload, "coast", "gauges", partition, start + index
                    ),
                ),
            )
            for partition, all_of in payloads.items()
            for start in range(0, len(all_of), 2)
        ]

    async def connect(self) -> None: ...

    async def read(self) -> Batch:
        if not self._batches:
            raise EndOfInput("that is all")
        return self._batches.pop(0)

    async def close(self) -> None: ...


class Answer:
    """The rows of a measurement in a span, with rows of others."""

    def __init__(self, rows: list[Row], selection: Selection) -> None:
        self._rows, self.selection = rows, selection

    async def chunks(self) -> AsyncIterator[Sequence[Row]]:
        for row in self._rows:
            yield [row]

    def close(self) -> None: ...


class Stored:
    """A store of the points of a case, and perhaps of others."""

    def __init__(self, case: Case) -> None:
        self._stored = case.stored
        self._tags = {"pier": "pier", "quay": "quay"} if case.has_others else {"pier": "pier"}

    async def facts(self) -> StoreFacts:
        return StoreFacts("v2", 1, OLDEST_S * 10**9)

    async def of(self, measurement: str, entries: list[Entry]) -> AsyncIterator[tuple[list[Entry], Answer]]:
        first, last = entries[0][0], entries[-1][0]
        rows = []
        for (name, pier, at), fields in sorted(self._stored.items()):
            if name == measurement and first <= at <= last:
                tags = {"pier": pier} if pier else {}
                rows.append(Row({"time": at * 10**9, **tags, **fields}, name))
                if len(self._tags) > 1:
                    rows.append(Row({"time": at * 10**9, **tags, "quay": "9", **fields, "waves": 99}, name))
        kinds: dict[str, set[str]] = {}
        for row in rows:
            for field_name, value in row.columns.items():
                kinds.setdefault(field_name, set()).add("boolean" if isinstance(value, bool) else "float")
        yield entries, Answer(rows, Selection({each: tuple(found) for each, found in kinds.items()}, self._tags))


def tides() -> WriterMapping:
    mapping = parse_mapping(MAPPING)
    assert isinstance(mapping, WriterMapping)
    return mapping


def letters_of(case: Case) -> list[DeadLetter]:
    found = []
    for claim in case.claims:
        if claim.is_refused:
            kind, pier, at = claim.key
            fields = dict(claim.fields.items())
            line = Point(kind, {"pier": pier} if pier else {}, fields, at * 10**9).encode(precision="s")
            message = Message(b"", "coast", "gauges", claim.partition, claim.offset)
            found.append(DeadLetter(message, "tides", "", (Reason("IFX600", "refused", line=line, status=400),)))
    kept = [Message(b"", "coast", "gauges", *place) for *place, is_kept in case.unreadable if is_kept]
    return found + [DeadLetter(message, "tides", "", (Reason("IFX203", "not JSON"),)) for message in kept]


def audit_of(case: Case, window_points: int, most_in_memory: int, most_named: int = 1000) -> Audit:
    audit = made_audit(case, window_points, most_in_memory, most_named)
    asyncio.run(audit.run())
    return audit


def made_audit(case: Case, window_points: int, most_in_memory: int, most_named: int = 1000) -> Audit:
    return Audit(
        Messages(case.payloads),
        lambda dialect: tides().plan(dialect=dialect, precision="s"),
        Stored(case),  # type: ignore[arg-type]
        LetterIndex(letters_of(case)),
        unit_ns=10**9,
        most_named=most_named,
        window_points=window_points,
        sorter=PointSorter(most_in_memory),
    )


@settings(max_examples=150)
@given(cases(), st.integers(1, 30), st.sampled_from([1, 3, 10**6]), st.sampled_from([0, 2, 1000]))
def test_each_point_has_the_class_that_the_model_says(
    case: Case, window_points: int, most_in_memory: int, most_named: int
) -> None:
    expected = truth(case)
    audit = audit_of(case, window_points, most_in_memory, most_named)
    report, found = audit.report, {}
    claims = {(claim.partition, claim.offset, claim.key): claim.fields for claim in case.claims}
    for each in report.findings:
        key = each.measurement, each.tags.get("pier", ""), each.time_ns // 10**9
        found[each.partition.partition, each.offset, key] = each.kind.value
        assert each.fields
        for name, (value, stored) in each.fields.items():
            assert value == claims[each.partition.partition, each.offset, key][name]
            assert stored == case.stored.get(key, {}).get(name)
            assert not equals(value, stored)

    counts = Counter(expected.values())
    counts["dead_lettered"] += sum(is_kept for *_, is_kept in case.unreadable)
    assert {kind.value: count for kind, count in report.points.items() if count} == dict(+counts)
    wrong = {place: kind for place, kind in expected.items() if kind in ("missing", "different")}
    assert found.items() <= wrong.items()
    assert len(found) == len(report.findings) == min(len(wrong), most_named)
    assert report.is_clean == (not wrong)
    assert (report.total, report.messages) == (sum(map(len, case.payloads.values())),) * 2
    assert (report.rendered, report.compared) == (len(case.claims),) * 2
    assert (report.skipped, report.failed) == (case.empty, sum(not is_kept for *_, is_kept in case.unreadable))


@settings(max_examples=100)
@given(cases())
def test_sending_what_is_missing_leaves_nothing_missing_and_changes_no_value(case: Case) -> None:
    """What is sent are the fields that the store lacks, in the order of messages."""
    audit = audit_of(case, 100, 10**6)
    before = {key: dict(fields) for key, fields in case.stored.items()}
    reader = FieldReader(Dialect.V2)
    for measurement in audit.missing.measurements():
        for entries in audit.missing.windows(measurement, 100, 10**9):
            still = asyncio.run(audit.still_missing(measurement, entries))
            assert still == entries
            for at, series, _, text in entries:
                pier = audit._series.read(series)[1].get("pier", "")
                case.stored.setdefault((measurement, pier, at), {}).update(reader.read([text]).at(0))

    again = truth(case)
    assert "missing" not in again.values()
    for key, fields in before.items():
        assert fields.items() <= case.stored[key].items()
    for measurement in audit.missing.measurements():
        for entries in audit.missing.windows(measurement, 100, 10**9):
            assert asyncio.run(audit.still_missing(measurement, entries)) == []


def changed(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    return f"{value}!" if isinstance(value, str) else value + 1


@settings(max_examples=50)
@given(cases(), st.data())
def test_what_came_in_the_meantime_is_not_sent(case: Case, data: st.DataObject) -> None:
    """Each point is asked for before each attempt: newer values stay, also those that came between two of them."""
    audit = audit_of(case, 100, 10**6)
    entries = [entry for name in audit.missing.measurements() for entry in next(audit.missing.windows(name, 99, 10**9))]
    points = sorted({entry[:2] for entry in entries})
    before, between = (data.draw(st.sets(st.sampled_from(points)) if points else st.just(set())) for _ in range(2))
    newer: dict[Key, dict[str, Any]] = {}

    def key_of(at: int, series: str) -> Key:
        kind, tags = audit._series.read(series)
        return kind, tags.get("pier", ""), at

    def arrive(which: set[tuple[int, str]]) -> None:
        for at, series, _, text in entries:
            if (at, series) in which:
                fields = FieldReader(Dialect.V2).read([text]).at(0)
                newer.setdefault(key_of(at, series), {}).update({name: changed(fields[name]) for name in fields})
        for key, fields in newer.items():
            case.stored.setdefault(key, {}).update(fields)

    async def away(_: Sequence[str]) -> Verdict:
        arrive(between)
        return Unavailable("status 503", 503)

    async def store(lines: Sequence[str]) -> Verdict:
        for point in map(parse_line, lines):
            key = point.measurement, dict(point.tags).get("pier", ""), point.timestamp_ns or 0
            assert key not in newer
            case.stored.setdefault(key, {}).update(point.fields)
        return Accepted()

    arrive(before)
    source = StillMissing(audit, 3, 10**9)
    tried = Tried(ScriptedSource([]), [away, *[store] * 99])
    route = dataclasses.replace(
        tried.route, source=source, sink=source.sink(tried.sink), plan=LinesPlan(), batch_size=3, max_in_flight=2
    )
    asyncio.run(asyncio.wait_for(WriterRun(route, tried.status, tried.stop, tried.clock).run(), 60))

    assert all(fields.items() <= case.stored[key].items() for key, fields in newer.items())
    assert "missing" not in truth(case).values()
    assert tried.status.delivered == len(entries)
    assert source.healed >= sum(entry[:2] in before for entry in entries)


@given(st.integers(1, 40), st.lists(st.sampled_from(["read", "ack", "connect"]), max_size=60))
def test_what_is_sent_again_is_held_until_it_is_acknowledged(count: int, steps: list[str]) -> None:
    """A new connection goes on with what was not acknowledged."""
    audit = made_audit(Case([], {0: [], 1: []}), 9, 10**6)
    audit.numbers.add([Message(b"", "coast", "gauges", 0, offset) for offset in range(count)])
    audit.missing.add("surge", [(number, "surge", number, f"waves={number}i") for number in range(count)])
    source = StillMissing(audit, 3, 10**9)
    settled, given = 0, list[Batch]()

    async def drive() -> None:
        nonlocal settled
        await source.connect()
        for step in [*steps, *["read", "ack"] * count]:
            match step:
                case "connect":
                    await source.connect()
                    given.clear()
                case "ack" if given:
                    batch = given.pop(0)
                    assert batch.last is not None
                    await source.ack([batch.last])
                    settled += len(batch.messages)
                case "read":
                    with contextlib.suppress(EndOfInput):
                        batch = await source.read()
                        assert batch is not None
                        assert batch.messages[0].offset == settled + sum(len(each.messages) for each in given)
                        given.append(batch)
            assert len(source._read) == len(given)

    asyncio.run(drive())
    assert settled == count
    assert not source._points


@pytest.mark.parametrize(
    ("rendered", "stored", "kinds"),
    [
        ({"w": 1}, 2, ("integer",)),
        ({"w": 1, "h": 0.5}, 2, ("integer",)),
        ({"w": 1}, True, ("boolean",)),
        ({"w": 1}, True, ("boolean", "integer")),
        ({"w": 1}, True, ("any",)),
        ({"w": 0, "o": True}, 1, ("integer",)),
        ({"w": 0, "o": False}, 0.0, ("float",)),
    ],
)
def test_another_value_is_different_and_a_boolean_is_not_a_number(
    rendered: dict[str, Any], stored: object, kinds: tuple[str, ...]
) -> None:
    """Python takes True for 1; a store that has one of them does not have the other."""
    name = NAMES[max(rendered, key="hwo".index)]
    fields = {NAMES[key]: value for key, value in rendered.items()}
    entries = [(at, "surge", at, Point("surge", {}, fields).encode().partition(" ")[2]) for at in (1, 2)]
    others = {each: (("boolean",) if each == "open" else ("integer",)) for each in fields}
    window = Window(
        entries,
        Selection({**others, name: kinds}, {}),
        unit_ns=1,
        series=SeriesReader(Dialect.V2),
        fields=FieldReader(Dialect.V2),
    )
    window.take([Row({"time": 1, **fields}), Row({"time": 2, **fields, name: stored})])
    (suspect,) = window.suspects(lambda _: Partition("coast", "gauges", 0), lambda _: False)

    assert (window.there(), suspect.entry[0], suspect.states[name]) == (1, 2, Class.DIFFERENT)


# --- parts ---


LETTER_PLACES = list(itertools.product((0, 1), (0, 1, 2)))
LETTER_LINES = list(itertools.product(("surge", "ebb\\ tide,pier=a\\,b"), (-1, 1)))
LETTER_REASONS = st.lists(
    st.tuples(st.none() | st.sampled_from(LETTER_LINES), st.sampled_from([None, 400])), max_size=3
)


@given(st.lists(st.tuples(st.sampled_from(LETTER_PLACES), LETTER_REASONS), max_size=6))
def test_a_letter_excuses_its_lines_or_all_where_it_does_not_keep_them(
    letters: list[tuple[tuple[int, int], list[Any]]],
) -> None:
    """A reason with a status and without a line is one of lines that the letter does not keep."""

    def letter(at: tuple[int, int], reasons: list[Any]) -> DeadLetter:
        lines = ((kept and f"{kept[0]} f=1 {kept[1]}", status) for kept, status in reasons)
        made = tuple(Reason("IFX600", "no", line=line, status=status) for line, status in lines)
        return DeadLetter(Message(b"", "coast", "gauges", *at), "tides", "", made)

    index = LetterIndex(itertools.starmap(letter, letters))
    assert index.count == len(letters)
    for place in LETTER_PLACES:
        here = [reason for at, reasons in letters if at == place for reason in reasons]
        found = Partition("coast", "gauges", place[0]), place[1]
        assert index.has_message(found) == any(at == place for at, _ in letters)
        for line in LETTER_LINES:
            is_there = any(kept == line or (kept is None and status) for kept, status in here)
            assert index.has_line(found, *line) == is_there


POINTS = st.lists(
    st.tuples(
        st.integers(-5, 5) | st.integers(3598, 3602) | st.integers(0, 10**14),
        st.sampled_from("abc"),
        st.integers(0, 99),
        st.just("f=1"),
    )
)


PARTS = st.lists(st.tuples(st.sampled_from(["surge", "ebb"]), POINTS), max_size=6)


@given(PARTS, st.integers(1, 20), st.integers(1, 9), st.sampled_from([1, 10**9]), st.sampled_from([2, 1000]))
@example([("surge", [(-1, "a", 0, "f=1"), (3600, "a", 1, "f=1")])], 20, 9, 10**9, 1000)
@example([("surge", [(0, "a", 0, "f=1"), (3600, "a", 1, "f=1")])], 20, 9, 10**9, 1000)
def test_windows_have_all_points_in_order_and_each_point_in_one_of_them(
    parts: list[tuple[str, list[Entry]]], most_in_memory: int, most: int, unit_ns: int, block: int
) -> None:
    """A window ends when it is full, or before a gap of more than an hour."""
    hour = 3600 * 10**9 // unit_ns
    sorter = PointSorter(most_in_memory)
    with pytest.MonkeyPatch.context() as patch, closing(sorter):
        patch.setattr(sorting, "_BLOCK", block)
        for name, part in parts:
            sorter.add(name, list(part))
            assert sum(map(len, sorter._pending.values())) < most_in_memory
        assert sorter.count == sum(len(part) for _, part in parts)
        names = sorter.measurements()
        assert names == sorted({name for name, part in parts if part or name in names})
        found = {name: list(sorter.windows(name, most, unit_ns)) for name in names}

    for name in {name for name, part in parts if part}:
        windows, all_of = found[name], [each for other, part in parts if other == name for each in part]
        assert [each for window in windows for each in window] == sorted(all_of)
        for before, after in itertools.pairwise(windows):
            assert before[-1][:2] != after[0][:2]
            assert len(before) >= most or after[0][0] - before[-1][0] > hour
        for window in windows:
            times = [entry[0] for entry in window]
            assert all(b - a <= hour for a, b in itertools.pairwise(times))
            assert len(window) <= most or window[most - 1][:2] == window[-1][:2]
    assert sorter.measurements() == []


@pytest.mark.parametrize("which", ["_sorter", "missing"])
def test_a_full_disk_stops_an_audit_with_a_hint(monkeypatch: pytest.MonkeyPatch, which: str) -> None:
    """Also where what is missing is kept."""
    monkeypatch.setattr(tempfile, "TemporaryFile", partial(Path("/dev/full").open, "w+b"))
    payloads = {0: [b'{"rows": [{"k": "surge", "p": "north", "t": 5, "w": 1}]}'], 1: []}
    audit = made_audit(Case([], payloads), 9, 10**6)
    setattr(audit, which, PointSorter(1))
    with pytest.raises(Stopped) as caught:
        asyncio.run(audit.run())
    audit.missing.close()
    assert (caught.value.code, "No space left" in caught.value.reason) == ("IFX746", True)


VALUES = (
    st.floats(allow_nan=False, allow_infinity=False)
    | st.integers(-(2**63), 2**63 - 1)
    | st.integers(0, 2**64 - 1).map(Unsigned)
    | st.booleans()
    | st.text(alphabet='an"\\ ,=\né1', max_size=6)
    | st.sampled_from([",plain=", "\nplain=1", '",y\\ z="', "\\n", '1,"q'])
)
FIELD_SETS = st.dictionaries(st.sampled_from(["m,x", "y z", "q=", "plain", "é"]), VALUES, min_size=1)


@given(st.lists(FIELD_SETS, min_size=1, max_size=8), st.sampled_from(["v2", "v3"]))
def test_fields_are_read_from_lines_as_they_were_written(sets: list[dict[str, Any]], dialect: str) -> None:
    reader = FieldReader(Dialect(dialect))
    for _ in range(2):  # the second time by the patterns that were learnt
        texts = [Point("m", {}, each).encode(dialect).partition(" ")[2] for each in sets]
        table = reader.read(texts)
        found = [table.at(index) for index in range(len(texts))]
        assert found == sets
        assert all(
            is_same(each[name], value) for each, read in zip(sets, found, strict=True) for name, value in read.items()
        )
        for each, text in zip(sets, texts, strict=True):
            name = max(each)
            assert reader.read([reader.only(text, {name})]).at(0) == {name: each[name]}
    values = [item for each in sets for item in each.items()]
    assert reader.booleans == {name for name, value in values if isinstance(value, bool)}
    assert reader.others == {name for name, value in values if not isinstance(value, bool)}


def test_what_is_remembered_of_lines_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(points, "_MOST_SERIES", 3)
    monkeypatch.setattr(points, "_MOST_SHAPES", 2)
    series, fields = SeriesReader(Dialect.V2), FieldReader(Dialect.V2)
    for number in range(9):
        assert series.read(f"surge,pier=p{number}") == ("surge", {"pier": f"p{number}"})
        assert fields.read([f"h{number}=1i"]).at(0) == {f"h{number}": 1}

    assert len(series._known) == 3
    assert len(fields._shapes) == 2


ALIKE = st.sampled_from([1, 25, 25.0, 0.5, Unsigned(7), True, "", "x", ",b=", "x\na=y", ',ab="', '"\\'])
"""Values that contain the text between two values, or that differ from others in a letter."""


@given(
    st.lists(
        st.fixed_dictionaries({"a": ALIKE}, optional={"b": ALIKE, "c": ALIKE})
        | st.dictionaries(st.sampled_from(["ab", "b"]), ALIKE),
        min_size=1,
        max_size=3,
    ).filter(all),
    st.lists(st.integers(0, 2), max_size=3),
)
@example([{"a": "x\na=y"}], [])
@example([{"a": ",b=", "b": 1}], [])
@example([{"a": ",b=", "b": 1, "c": 2}], [])
def test_fields_that_look_alike_are_not_confused(sets: list[dict[str, Any]], learnt: list[int]) -> None:
    """The shapes that were learnt before change nothing."""
    reader = FieldReader(Dialect.V2)
    texts = [Point("m", {}, each).encode("v2").partition(" ")[2] for each in sets]
    for _ in range(2):
        for index in learnt:
            reader.read([texts[index % len(texts)]])
        table = reader.read(texts)
        found = [table.at(index) for index in range(len(texts))]
        assert found == sets
        kinds = [
            [{name: isinstance(value, float) for name, value in each.items()} for each in of] for of in (found, sets)
        ]
        assert kinds[0] == kinds[1]


@given(
    st.lists(
        st.tuples(
            st.integers(0, 2),
            st.lists(st.integers(0, 40), min_size=1, unique=True).map(sorted)
            | st.lists(st.integers(20, 24), min_size=1, unique=True).map(sorted),
            st.booleans(),
        ),
        max_size=8,
    )
)
def test_the_coordinates_of_each_message_are_known_by_its_number(batches: list[tuple[int, list[int], bool]]) -> None:
    numbers, expected = Numbers(), []
    for partition, offsets, is_lazy in batches:
        made = [Message(b"", "coast", "gauges", partition, offset) for offset in offsets]
        lazy = LazyMessages([b""] * len(made), lambda index, _, made=made: made[index])  # type: ignore[misc]
        start = numbers.add(lazy if is_lazy else made)
        assert start == len(expected)
        expected += [(Partition("coast", "gauges", partition), offset) for offset in offsets]

    assert [numbers.place(number) for number in range(len(expected))] == expected
    runs = [(place, offset) for place, first, last in numbers.runs() for offset in range(first, last + 1)]
    assert runs == expected


# --- the command, after a crash that took acknowledged points ---

PIPELINE = """\
iggyflux: 1
from: log:data
to: influxdb
influxdb: {{url: '{url}', {place}, batch_size: 100, retry_backoff: 10ms}}
state: kept
tags: {{shore: west}}
run:
  - mapping: tides.yaml
"""
PLACES = {1: "database: coast", 2: "bucket: coast, org: org", 3: "database: coast"}


def append(folder: Path, first: int, count: int) -> None:
    rows = [
        {
            "k": "surge",
            "p": f"pier {number % 5}",
            "t": 1_700_000_000 + number // 3,
            "h": number / 4,
            "w": number,
            "n": f'"{number}"\\',
            "o": number % 2 == 0,
        }
        for number in range(first, first + count)
    ]
    with closing(Log.open(folder / "data", create=True)) as log:
        log.append("coast", "gauges", [Message(json.dumps({"rows": [row]}).encode()) for row in rows])


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "tides.yaml").write_text(MAPPING)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def copy(source: Path, target: Path) -> None:
    with closing(sqlite3.connect(source)) as before, closing(sqlite3.connect(target)) as after:
        before.backup(after)


def audit(*more: str) -> tuple[int, dict[str, Any]]:
    outcome = iggyflux("audit", "pipeline.yaml", "--mapping", "tides", "--format", "json", *more)
    return outcome.code, json.loads(outcome.out)


def run() -> None:
    outcome = iggyflux("run", "pipeline.yaml", "--until-end", "--quiet")
    assert outcome.code == 0, outcome.err


def test_a_letter_of_a_file_that_was_loaded_excuses_no_message(here: Path) -> None:
    """Its record is numbered as the messages of the topic are, and counted as one of them."""
    (here / "lines.ndjson").write_text("low tide\n" * 3)
    with SimServer(1, database="coast") as server:
        (here / "pipeline.yaml").write_text(PIPELINE.format(url=server.url, place=PLACES[1]))
        append(here, 0, 2)
        with closing(Log.open(here / "data", create=True)) as log:
            log.append("coast", "gauges", [Message(b"high tide")])
        assert iggyflux("run", "pipeline.yaml", "--until-end", "--quiet").code == 0
        (_, found), letters = audit(), next((here / "dead-letters").iterdir())
        assert (found["records_failed"], found["points"]["dead_lettered"]) == (0, 1)
        shutil.rmtree(letters)
        assert iggyflux("load", "tides.yaml", "lines.ndjson", "--pipeline", "pipeline.yaml").code == 1
        _, found = audit()

    assert (found["records_failed"], found["points"]["dead_lettered"]) == (1, 0)


@pytest.mark.parametrize("dialect", [1, 2, 3])
def test_points_that_a_crash_took_are_named_and_sent_again(here: Path, dialect: int) -> None:
    store = here / "store.db"
    with SimServer(dialect, database="coast", db_file=store) as server:
        port = server.port
        (here / "pipeline.yaml").write_text(PIPELINE.format(url=server.url, place=PLACES[dialect]))
        append(here, 0, 230)
        run()
        copy(store, here / "before.db")
        append(here, 230, 70)
        run()  # each of these points was acknowledged
        code, found = audit()
        assert (code, found["points"]["there"]) == (0, 300)
    for each in here.glob("store.db*"):
        each.unlink()
    copy(here / "before.db", store)
    with SimServer(dialect, port, database="coast", db_file=store) as server:
        code, found = audit("--show", "100")
        assert code == 1
        assert sorted(each["offset"] for each in found["findings"]) == list(range(230, 300))
        assert {each["class"] for each in found["findings"]} == {"missing"}
        first = next(each for each in found["findings"] if each["offset"] == 230)
        assert first["fields"]["note"] == {"rendered": '"230"\\', "stored": None}

        code, found = audit("--resend", "--show", "3")
        assert (code, found["resent"]) == (0, {"sent": 70, "there_by_now": 0, "failed": 0})
        assert found["findings_not_shown"] == 67
        written = server.store.written
        code, found = audit("--resend")
        assert (code, found["points"]["there"], found["resent"]["sent"]) == (0, 300, 0)
        assert server.store.written == written
        assert iggyflux("audit", "pipeline.yaml", "--mapping", "tides").code == 0


@example(names=["a[1]", "a1"])
@given(names=st.lists(st.text(alphabet="a1[]*?!-", min_size=1, max_size=5), min_size=1, max_size=6, unique=True))
def test_the_topic_of_a_partition_is_a_name_and_no_glob(names: list[str]) -> None:
    """Whatever it is called, its messages are looked at, and no others."""
    wanted = Limits(topic=names[0]).of_topics(["*"])

    assert [name for name in names if any(fnmatchcase(name, each) for each in wanted)] == names[:1]


def test_a_range_is_bounded_by_offsets_times_and_what_is_settled(here: Path) -> None:
    with SimServer(1, database="coast") as server:
        (here / "pipeline.yaml").write_text(PIPELINE.format(url=server.url, place=PLACES[1]))
        append(here, 0, 50)
        run()
        append(here, 50, 20)
        assert [audit()[1][key] for key in ("messages", "messages_not_settled")] == [50, 20]
        code, found = audit("--unsettled")
        assert (code, found["points"]["missing"]) == (1, 20)
        assert audit("--from", "10", "--to", "15")[1]["messages"] == 5
        named = iggyflux("status", "pipeline.yaml").out.splitlines()[2].split()[0]
        assert named.startswith("coast/gauges/")
        assert audit("--partition", named)[1]["messages"] == audit("--partition", named[-1])[1]["messages"] > 0
        assert audit("--from", "2030-01-01T00:00:00Z")[1]["messages"] == 0
        for wrong, code, words in (
            (["--partition", "7"], 3, "no partition 7"),
            (["--partition", "coast/gauges/7"], 3, "no partition 7"),
            (["--partition", "reef/other/0"], 2, "tides does not read reef/other/0"),
            (["--partition", "reef/0"], 2, "expected a number, or STREAM/TOPIC/P"),
            (["--from", "500"], 3, "no message has the offset 500"),
            (["--from", "20", "--to", "10"], 2, "no message is from 20 to 10"),
        ):  # a mistyped range must not look like one without faults
            outcome = iggyflux("audit", "pipeline.yaml", "--mapping", "tides", *wrong)
            assert (outcome.code, words in outcome.err) == (code, True), outcome.err


def test_expired_points_and_dead_letters_are_not_missing(here: Path) -> None:
    with SimServer(2, database="coast", retention_seconds=1000 * 86_400) as server:
        (here / "pipeline.yaml").write_text(PIPELINE.format(url=server.url, place=PLACES[2]))
        append(here, 0, 20)
        with closing(Log.open(here / "data")) as log:
            log.append("coast", "gauges", [Message(b'{"rows": [{"k": "surge", "t": 1, "w": 1}]}'), Message(b"{")])
        assert iggyflux("run", "pipeline.yaml", "--until-end", "--quiet").code == 0
        code, found = audit("--show", "5")

    # The line of 1970 is beyond the retention: it was refused, and is in a letter, as is the message that is not JSON.
    expected = {"rendered": 21, "there": 0, "missing": 0, "different": 0, "overwritten": 0}
    assert {key: found["points"][key] for key in ("rendered", "missing", "different", "overwritten")} == {
        key: value for key, value in expected.items() if key != "there"
    }
    assert found["points"]["dead_lettered"] >= 2
    assert found["points"]["there"] + found["points"]["expired"] + found["points"]["dead_lettered"] == 22
    assert code == 0
    assert found["retention_seconds"] == 1000 * 86_400


@pytest.mark.parametrize("letters", ["dead", "{stream: coast, topic: dead}"])
def test_letters_of_another_route_excuse_nothing(here: Path, letters: str) -> None:
    """One route loses a point; another one of the same mapping keeps a letter of the same message in the same place."""
    with SimServer(2, database="coast", retention_seconds=86_400) as strict, SimServer(1, database="coast") as server:
        with closing(Log.open(here / "data", create=True)) as log:
            log.append("coast", "gauges", [Message(b'{"rows": [{"k": "surge", "p": "n", "t": 1, "w": 1}]}')])
            log.append("coast", "dead", [])
        routes = [
            f"{{name: brim, mapping: tides.yaml, influxdb: {{url: '{strict.url}', bucket: coast, org: org}}}}",
            f"{{name: tides, mapping: tides.yaml, influxdb: {{url: '{server.url}', database: coast}}}}",
        ]
        head = f"iggyflux: 1\nfrom: log:data\ninfluxdb: {{token: t, precision: s}}\ndead_letters: {letters}\n"
        (here / "pipeline.yaml").write_text(f"{head}run:\n  - {routes[0]}\n  - {routes[1]}\n")
        run()
        assert (audit()[0], audit()[1]["points"]["there"]) == (0, 1)
        server.reset()
        code, found = audit()
        assert (code, found["points"]["missing"], found["points"]["dead_lettered"]) == (1, 1, 0)
        assert iggyflux("audit", "pipeline.yaml", "--mapping", "brim").code == 0


@pytest.mark.parametrize(
    ("points", "is_resent", "is_iggy", "words"),
    [
        ({}, False, True, []),
        ({Class.MISSING: 1}, False, True, ["`--resend` sends what is missing"]),
        ({Class.MISSING: 1}, True, True, []),
        ({Class.DIFFERENT: 1}, True, True, ["`iggyflux resend` sends a range again"]),
        ({Class.DIFFERENT: 1}, False, False, ["`consumer: {group: NEW}`"]),
        ({Class.DIFFERENT: 1, Class.MISSING: 1}, False, True, ["`--resend`", "`iggyflux resend`"]),
    ],
)
def test_the_next_step_is_one_that_the_route_can_take(
    points: dict[Class, int], is_resent: bool, is_iggy: bool, words: list[str]
) -> None:
    """`iggyflux resend` refuses what does not read Iggy."""
    report = Report()
    report.points.update(points)
    step = _next_step(report, _Sent() if is_resent else None, is_iggy=is_iggy)

    assert all(each in step for each in words)
    assert bool(step) == bool(words)
    assert is_iggy or "iggyflux resend" not in step


def test_messages_that_another_plan_settled_are_counted(here: Path) -> None:
    with SimServer(1, database="coast") as server:
        (here / "pipeline.yaml").write_text(PIPELINE.format(url=server.url, place=PLACES[1]))
        append(here, 0, 30)
        run()
        assert audit()[1]["messages_of_other_plans"] == 0
        (here / "tides.yaml").write_text(MAPPING.replace("height: h", "depth: h"))
        code, found = audit("--from", "20")
        assert (code, found["messages_of_other_plans"], found["points"]["missing"]) == (1, 10, 10)
        outcome = iggyflux("audit", "pipeline.yaml", "--mapping", "tides", "--from", "20")
        assert "10 messages were settled by another plan" in outcome.out


def test_an_audit_says_why_it_cannot_be_made(here: Path) -> None:
    (here / "pipeline.yaml").write_text(PIPELINE.format(url="http://127.0.0.1:9", place=PLACES[1]))
    append(here, 0, 1)
    assert iggyflux("audit", "pipeline.yaml", "--mapping", "ebb").code == 1
    assert iggyflux("audit", "pipeline.yaml", "--mapping", "tides", "--from", "yesterday").code == 2
    outcome = iggyflux("audit", "pipeline.yaml", "--mapping", "tides")
    assert (outcome.code, "IFX611" in outcome.err, "cannot connect" in outcome.err) == (3, True, True)
    (here / "pipeline.yaml").write_text("iggyflux: 1\nfrom: log:data\nto: file:out.lp\nrun:\n  - mapping: tides.yaml\n")
    outcome = iggyflux("audit", "pipeline.yaml", "--mapping", "tides")
    assert (outcome.code, "writes to a file" in outcome.err) == (2, True)
