"""Random messages that suit a mapping: seeded, realistic, and rendered without a failure.

What a value is for is found by trying: a leaf of a sample message is changed, the plan renders it, and what changed in
the points says whether the leaf is a time, a tag or a field.  So any expression may stand between them.  Times advance,
tags vary among few values, numbers walk.  Samples are the document's own examples; where it has none, one is made from
what the mapping reads.  The same mapping, seed and start give the same bytes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from itertools import count, islice
from random import Random
from typing import Any, Final, NamedTuple, TypeAlias

from iggyflux.authoring.examples import example_message
from iggyflux.authoring.samples import Coordinates
from iggyflux.errors import IggyfluxError, LineProtocolError, RecordError
from iggyflux.expressions import Expression, static_path
from iggyflux.lineprotocol import Point, parse_lines
from iggyflux.mapping import ReaderMapping, Timestamp, TimestampFormat, Writer, WriterMapping
from iggyflux.payloads import FORMATS
from iggyflux.plan.reads import payload_reads, point_expressions
from iggyflux.reads import Reads
from iggyflux.records import JSON, Message
from iggyflux.timestamps import TimestampError, format_rfc3339, format_time, parse_pattern, parse_rfc3339
from iggyflux.values import FieldType

Path: TypeAlias = tuple[str | int, ...]
Setter: TypeAlias = "Callable[[Random, int, int], JSON]"
"""A new value of a leaf, from a generator, the message's number and its time in nanoseconds."""

CANNOT_GENERATE: Final = "IFX530"
_BATCH: Final = 500
_MOST_LEAVES: Final = 200
_TRIALS: Final = 600
_HOUR_NS: Final = 3_600_000_000_000
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?", re.ASCII)
_COUNTER = re.compile(r"[0-9]+(?=[^0-9]*$)", re.ASCII)


class GenerateError(IggyfluxError):
    """No message could be made that the mapping takes without a failure."""

    def __init__(self, reason: str, hint: str) -> None:
        self.code = CANNOT_GENERATE
        self.reason = reason
        self.hint = hint
        super().__init__(f"{reason} ({hint})")


def generate_messages(
    mapping: WriterMapping | ReaderMapping,
    *,
    seed: int = 0,
    start_ns: int,
    interval_ns: int,
    variants: int = 4,
    overlap: bool = False,
) -> Iterator[Message]:
    """Messages without an end, the first at `start_ns`, each `interval_ns` after the last time in the one before, so
    that they don't overwrite each other; with `overlap` after the first time in it.

    Each makes at least one point and no failure; offsets count from 0, in partition 0.  A tag takes at most `variants`
    values where its values can be numbered.  Raises GenerateError before the first message.
    """
    if mapping.kind == "reader":
        raise GenerateError(f"{mapping.name} is a reader, which does not read messages", "name a writer mapping")
    random = Random(seed)  # noqa: S311  (nothing here is a secret)
    plan = _Plan(mapping)
    samples = [_Sample(plan, *base, variants) for base in _bases(plan, random)]
    _share_values(samples)
    if not overlap:
        interval_ns += max(sample.span_ns for sample in samples)
    numbers = count()
    while True:
        made: list[tuple[_Sample, int, int, Message]] = []
        for number in islice(numbers, _BATCH):
            sample = random.choice(samples)
            time_ns = start_ns + number * interval_ns
            made.append((sample, number, time_ns, sample.vary(random, number, time_ns)))
        rendered = plan.render([message for *_, message in made])
        bad = {failure.index for failure in rendered.failures} | (set(range(len(made))) - set(rendered.origins))
        for index, (sample, number, time_ns, message) in enumerate(made):
            yield sample.plain(number, time_ns) if index in bad else message


class _Plan:
    """The mapping's plan, as a question: what comes of this tree?"""

    def __init__(self, mapping: WriterMapping) -> None:
        self.mapping = mapping
        self.writer = mapping.writer
        self.coordinates = Coordinates.of(self.writer.source)
        self._plan: Any = mapping.plan()
        payload = self.writer.source.payload
        self._form, self._options = FORMATS[payload.format], payload.options

    def render(self, messages: Sequence[Message]) -> Any:
        return self._plan.render(messages)

    def encode(self, tree: JSON) -> bytes:
        return self._form.encode(tree, self._options)

    def decode(self, payload: bytes) -> JSON:
        return self._form.decode(payload, self._options, None, False)

    def points(self, messages: Sequence[Message]) -> list[list[Point] | None]:
        """The points of each message; None where one of its records fails, or there is none."""
        rendered = self.render(messages)
        bad = {failure.index for failure in rendered.failures}
        found: list[list[Point]] = [[] for _ in messages]
        for origin, line in zip(rendered.origins, rendered.lines, strict=True):
            try:
                found[origin] += parse_lines(line)
            except LineProtocolError:
                bad.add(origin)
        return [None if index in bad or not points else points for index, points in enumerate(found)]


# --- samples ---

Base: TypeAlias = "tuple[Message, JSON]"
"""A message, with the tree of its payload (None where that cannot be changed and encoded again)."""


def _bases(plan: _Plan, random: Random) -> list[Base]:
    """Messages that render well: those of the document's examples, else one that is made."""
    found: list[Base] = []
    for number, example in enumerate(plan.mapping.examples):
        if not example.get("points"):
            continue
        try:
            message = example_message(plan.mapping, example, number)
        except RecordError:
            continue
        if plan.points([message])[0] is not None:
            found.append((message, _tree(plan, message)))
    return found or [_synthesised(plan, random)]


def _tree(plan: _Plan, message: Message) -> JSON:
    try:
        tree = plan.decode(message.payload)
        same = plan.points([replace_payload(message, plan.encode(tree)), message])
    except RecordError:
        return None
    return tree if same[0] == same[1] else None


def replace_payload(message: Message, payload: bytes) -> Message:
    """The message with another payload."""
    return _at(message, payload, message.offset, message.timestamp_us)


def _at(message: Message, payload: bytes, offset: int, timestamp_us: int) -> Message:
    return Message(
        payload,
        message.stream,
        message.topic,
        0,
        offset,
        timestamp_us,
        timestamp_us,
        message.id,
        message.headers,
    )


class Role(Enum):
    """What a leaf of a payload is for."""

    TIME = "time"
    TAG = "tag"
    FIELD = "field"
    FIXED = "fixed"


@dataclass(slots=True)
class _Leaf:
    """A leaf that varies; `values` are those of strings, `set` makes a new one."""

    path: Path
    role: Role
    value: JSON
    set: Setter
    values: list[JSON] = field(default_factory=list)


class _TextForm(NamedTuple):
    """A way in which a time is written as text."""

    read: Callable[[str], int]
    write: Callable[[int], str]


class _Sample:
    """A message that renders well, and what may change in it."""

    def __init__(self, plan: _Plan, message: Message, tree: JSON, variants: int) -> None:
        self._plan = plan
        self._message = message
        self._tree = tree
        self._variants = variants
        points = plan.points([message])[0]
        assert points is not None  # noqa: S101  (that is how bases are chosen)
        self._points = points
        times = [point.timestamp_ns or 0 for point in points]
        self._base_ns = min(times)
        self.span_ns = max(times) - self._base_ns
        """From the first time in the message to the last."""
        self.leaves: list[_Leaf] = []
        for path, value in islice(_walk(tree), _MOST_LEAVES):
            leaf = self._probe(path, value)
            if leaf is not None:
                self.leaves.append(leaf)

    def vary(self, random: Random, number: int, time_ns: int) -> Message:
        """A variation of the sample."""
        return self._made(self.leaves, random, number, time_ns)

    def plain(self, number: int, time_ns: int) -> Message:
        """The sample itself, at another time; where even that fails, as it is."""
        times = [leaf for leaf in self.leaves if leaf.role is Role.TIME]
        message = self._made(times, Random(number), number, time_ns)  # noqa: S311
        if self._plan.points([message])[0] is not None:
            return message
        return _at(self._message, self._message.payload, number, self._message.timestamp_us)

    def _made(self, leaves: Sequence[_Leaf], random: Random, number: int, time_ns: int) -> Message:
        payload = self._message.payload
        if leaves:
            tree = _copy(self._tree)
            for leaf in leaves:
                tree = _put(tree, leaf.path, leaf.set(random, number, time_ns))
            payload = self._plan.encode(tree)
        return _at(self._message, payload, number, time_ns // 1000)

    # What a leaf is for

    def _probe(self, path: Path, value: JSON) -> _Leaf | None:
        for candidate, setter in self._time_candidates(value):
            role, shift_ns = self._outcome(path, candidate)
            if role is Role.TIME and shift_ns > 0:
                return _Leaf(path, role, value, setter(shift_ns))
        other = _other(value)
        if other is None:
            return None
        role, _ = self._outcome(path, other)
        if role not in (Role.TAG, Role.FIELD):
            return None
        leaf = _Leaf(path, role, value, _constant(value))
        leaf.set = self._setter(leaf)
        return leaf

    def _outcome(self, path: Path, value: JSON) -> tuple[Role, int]:
        """What becomes of the points when the leaf has this value, and by how much their times move."""
        try:
            payload = self._plan.encode(_put(_copy(self._tree), path, value))
        except RecordError:
            return Role.FIXED, 0
        points = self._plan.points([replace_payload(self._message, payload)])[0]
        if points is None or len(points) != len(self._points):
            return Role.FIXED, 0
        pairs = list(zip(self._points, points, strict=True))
        if any(one.measurement != other.measurement for one, other in pairs):
            return Role.FIXED, 0
        shifts = {(other.timestamp_ns or 0) - (one.timestamp_ns or 0) for one, other in pairs} - {0}
        if shifts:
            return Role.TIME, shifts.pop()
        if any(one.tags != other.tags for one, other in pairs):
            return Role.TAG, 0
        return (Role.FIELD, 0) if any(one != other for one, other in pairs) else (Role.FIXED, 0)

    def _time_candidates(self, value: JSON) -> Iterator[tuple[JSON, Callable[[int], Setter]]]:
        """Values that are an hour (or one unit) later if this leaf is a time, with what then sets it."""
        if isinstance(value, bool) or value is None:
            return
        if isinstance(value, (int, float)):
            yield value + 1, lambda shift_ns: self._number_time(value, shift_ns)
        elif isinstance(value, str):
            if _NUMBER.fullmatch(value):
                number = float(value) if "." in value else int(value)
                yield _next_number(value), lambda shift_ns: _as_text(self._number_time(number, shift_ns))
            for form in self._text_forms():
                try:
                    ns = form.read(value)
                    yield form.write(ns + _HOUR_NS), partial(self._text_time, ns, form)
                except (TimestampError, OverflowError):
                    continue

    def _text_forms(self) -> Iterator[_TextForm]:
        yield _TextForm(parse_rfc3339, format_rfc3339)
        for timestamp in (point.timestamp for point in self._plan.writer.points):
            if timestamp.pattern is not None:
                pattern, zone = timestamp.pattern, timestamp.timezone
                yield _TextForm(
                    partial(parse_pattern, pattern=pattern, zone=zone), partial(format_time, pattern=pattern, zone=zone)
                )

    def _number_time(self, value: float, shift_ns: int) -> Setter:
        def set_time(_random: Random, _number: int, time_ns: int) -> JSON:
            moved = time_ns - self._base_ns
            if isinstance(value, int):  # exact, also in nanoseconds
                return value + moved // shift_ns
            return round(value + moved / shift_ns, 6)

        return set_time

    def _text_time(self, ns: int, form: _TextForm, _shift_ns: int) -> Setter:
        return lambda _random, _number, time_ns: form.write(ns + time_ns - self._base_ns)

    # What varies

    def _setter(self, leaf: _Leaf) -> Setter:
        value = leaf.value
        if isinstance(value, bool):
            return lambda random, _number, _time: random.random() < 0.5
        if leaf.role is Role.TAG and self._has_siblings(leaf.path):
            return _constant(value)  # what tells the elements of a list apart
        if isinstance(value, (int, float)):
            if leaf.role is Role.TAG:
                return lambda random, _number, _time: value + random.randrange(self._variants)
            return _walking(leaf.path, value)
        assert isinstance(value, str)  # noqa: S101
        if _NUMBER.fullmatch(value) and leaf.role is Role.FIELD:
            return _as_text(_walking(leaf.path, float(value) if "." in value else int(value)))
        leaf.values.append(value)
        if leaf.role is Role.TAG:
            leaf.values += _numbered(value, self._variants)
        return lambda random, _number, _time: random.choice(leaf.values)

    def _has_siblings(self, path: Path) -> bool:
        """Whether a list on the way to `path` has other elements."""
        node: Any = self._tree
        for part in path:
            if isinstance(part, int) and len(node) > 1:
                return True
            node = node[part]
        return False


def _share_values(samples: Sequence[_Sample]) -> None:
    """A string may take the values that it has in the other samples."""
    pools: dict[tuple[Path, Role], dict[JSON, None]] = {}
    leaves = [leaf for sample in samples for leaf in sample.leaves if leaf.values]
    for leaf in leaves:
        pools.setdefault((_shape(leaf.path), leaf.role), {}).update(dict.fromkeys(leaf.values))
    for leaf in leaves:
        leaf.values = list(pools[_shape(leaf.path), leaf.role])


def _shape(path: Path) -> Path:
    """The path with list positions taken for one."""
    return tuple(0 if isinstance(part, int) else part for part in path)


def _constant(value: JSON) -> Setter:
    return lambda _random, _number, _time: value


def _as_text(setter: Setter) -> Setter:
    """A number in a string."""
    return lambda random, number, time_ns: str(setter(random, number, time_ns))


def _walking(path: Path, value: float) -> Setter:
    """A number that swings around `value`, as far as a tenth of it, with some noise; ints stay ints, signs stay."""
    whole = isinstance(value, int)
    if abs(value) >= 1e9:  # a serial number, a time, a counter
        return lambda _random, number, _time: value + number if whole else value
    spread = max(abs(value) * 0.1, 1.0 if whole or value == 0 else 0.0)
    phase = sum(map(ord, repr(path))) % 628 / 100
    decimals = max(_decimals(repr(value)), 1)
    low = 0 if value >= 0 else -math.inf
    high = 1 if not whole and 0 <= value <= 1 else math.inf

    def step(random: Random, number: int, _time_ns: int) -> JSON:
        swing = 0.7 * math.sin(number / 40 + phase) + 0.3 * random.uniform(-1, 1)
        moved = min(max(value + spread * swing, low), high)
        return round(moved) if whole else round(moved, decimals)

    return step


def _decimals(text: str) -> int:
    return min(len(text.partition(".")[2]), 6) if "e" not in text else 6


def _numbered(text: str, variants: int) -> list[JSON]:
    """`text` with the last number in it counted up; nothing where there is none."""
    match = _COUNTER.search(text)
    if match is None or len(match[0]) > 15:
        return []
    width, first = len(match[0]), int(match[0])
    others = (str(first + step).zfill(width) for step in range(1, variants))
    return [
        f"{text[: match.start()]}{other}{text[match.end() :]}" for other in others if len(other) == width or width < 2
    ]


def _next_number(text: str) -> str:
    """The number in `text`, one more, with as many decimals; digits beyond a double's stay exact."""
    return f"{float(text) + 1:.{_decimals(text)}f}" if "." in text else str(int(text) + 1)


def _other(value: JSON) -> JSON:
    """Another value of the same kind; None where there is none to try."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value + 1
    if isinstance(value, str):
        if _NUMBER.fullmatch(value):
            return _next_number(value)
        return (_numbered(value, 2) or [value + "x"])[0]
    return None


# --- trees ---


def _walk(tree: JSON, path: Path = ()) -> Iterator[tuple[Path, JSON]]:
    """The leaves of a tree."""
    if isinstance(tree, dict):
        for key, child in tree.items():
            yield from _walk(child, (*path, key))
    elif isinstance(tree, list):
        for index, child in enumerate(tree):
            yield from _walk(child, (*path, index))
    else:
        yield path, tree


def _copy(tree: JSON) -> JSON:
    if isinstance(tree, dict):
        return {key: _copy(child) for key, child in tree.items()}
    if isinstance(tree, list):
        return [_copy(child) for child in tree]
    return tree


def _put(tree: Any, path: Path, value: JSON) -> JSON:
    """`tree`, changed at `path`."""
    if not path:
        return value
    parent = tree
    for part in path[:-1]:
        parent = parent[part]
    parent[path[-1]] = value
    return tree  # type: ignore[no-any-return]


# --- a sample from what the mapping reads ---


def _synthesised(plan: _Plan, random: Random) -> Base:
    """A message with everything that the mapping reads, of the types that it wants; found by trying."""
    shape = _Shape(plan.writer)
    message = Message(
        b"",
        plan.coordinates.stream,
        plan.coordinates.topic,
        timestamp_us=_SYNTHETIC_NS // 1000,
        headers={name: f"{name}-1" for name in shape.headers},
    )
    for trial in range(_TRIALS):
        tree = shape.tree(random, trial)
        try:
            made = replace_payload(message, plan.encode(tree))
        except RecordError:
            continue
        if plan.points([made])[0] is not None:
            return made, tree
    name = plan.mapping.document.file or plan.mapping.name
    hint = "add an example with `points` to the document: messages are then generated like its message"
    raise GenerateError(f"cannot generate a message that {name} renders", hint)


_SYNTHETIC_NS: Final = 1_767_225_600_000_000_000  # 2026-01-01
_FIELD_VALUES: Final[Mapping[FieldType, JSON]] = {
    FieldType.FLOAT: 21.5,
    FieldType.INTEGER: 42,
    FieldType.UNSIGNED: 42,
    FieldType.STRING: "ok",
    FieldType.BOOLEAN: True,
    FieldType.AUTO: 21.5,
}
_STAR: Final[dict[str, JSON]] = {"value": 21.5, "level": 3}


class _Shape:
    """What payloads of a mapping look like, as far as its expressions tell."""

    def __init__(self, writer: Writer) -> None:
        self._reads = payload_reads(writer)
        self._hints: dict[Path, JSON] = {}
        self._stars: set[Path] = set()
        self._literals: list[JSON] = []
        self._expected: dict[Path, list[JSON]] = {}
        self.headers: set[str] = set()
        self._element = (
            () if writer.for_each is None else _list_path(writer.for_each.reads_for(Reads(items=Reads()))[0])
        )
        for point in writer.points:
            for expression in point_expressions(point):
                self._learn(expression, self._element)
            self._hint(point.measurement, "m")
            for tag in point.tags:
                self._hint(tag.source, f"{tag.key}-1")
            for field_ in point.fields:
                self._hint(field_.source, _FIELD_VALUES[field_.type])
            self._hint(point.timestamp.source, _time_value(point.timestamp))
            for star in (*point.tag_stars, *point.field_stars):
                found = self._path(star.source)
                if found is not None:
                    self._stars.add(found)
        for each in (writer.where, writer.for_each):
            if each is not None:
                self._learn(each, ())

    def _path(self, source: object) -> Path | None:
        path = static_path(source) if isinstance(source, Expression) else None
        if path is None:
            return None
        start, keys = path
        return (*(self._element if start == "@" else ()), *keys)

    def _hint(self, source: object, value: JSON) -> None:
        path = self._path(source)
        if path is not None:
            self._hints.setdefault(path, value)

    def _learn(self, expression: Expression, prefix: Path) -> None:
        """The literals of an expression, what a path is compared with, and the headers that it asks for."""
        for node in _nodes(expression.node):
            children = node["children"]
            if node["type"] == "literal" and isinstance(node["value"], (str, int, float)):
                self._literals.append(node["value"])
            if node["type"] == "function_expression" and node["value"] == "header" and children:
                self.headers.add(str(children[0]["value"]))
            if node["type"] == "comparator" and len(children) == 2 and children[1]["type"] == "literal":
                name, literal = children[0], children[1]["value"]
                if name["type"] == "field" and literal is not None:
                    self._expected.setdefault((*prefix, name["value"]), []).append(literal)

    def tree(self, random: Random, trial: int) -> JSON:
        return self._build(self._reads, (), random, trial)

    def _build(self, reads: Reads, path: Path, random: Random, trial: int) -> JSON:
        if path in self._stars:
            members = {key: self._build(child, (*path, key), random, trial) for key, child in reads.keys.items()}
            named = {key[-1] for key in self._hints if key[:-1] == path and key}
            members.update((str(key), self._leaf((*path, key), random, trial)) for key in sorted(map(str, named)))
            return {**_STAR, **members}
        if reads.keys:
            return {key: self._build(child, (*path, key), random, trial) for key, child in reads.keys.items()}
        if reads.items is not None:
            return [self._build(reads.items, (*path, 0), random, trial)]
        below = [hint for hint in self._hints if len(hint) > len(path) and hint[: len(path)] == path]
        if reads.whole and below:
            return {str(hint[len(path)]): self._leaf(hint[: len(path) + 1], random, trial) for hint in below}
        return self._leaf(path, random, trial)

    def _leaf(self, path: Path, random: Random, trial: int) -> JSON:
        name = str(path[-1]) if path else "value"
        known = self._expected.get(path, [])
        if path in self._hints and trial < _TRIALS // 3:
            return known[trial % len(known)] if known else self._hints[path]
        guesses: list[JSON] = [*known, 21.5, f"{name}-1", 42, True, *self._literals, [1.5, 2.5], {"value": 1.5}]
        guesses += ["2026-01-01T00:00:00Z", _SYNTHETIC_NS // 10**6, "7"]
        if trial == 0:
            return guesses[0]
        return random.choice(guesses)


def _nodes(node: Any) -> Iterator[dict[str, Any]]:
    yield node
    for child in node["children"]:
        if isinstance(child, dict):
            yield from _nodes(child)


def _list_path(reads: Reads) -> Path:
    """Return the path of the first element of the list of `for_each`, which is the first path with elements."""
    waiting: list[tuple[Path, Reads]] = [((), reads)]
    while waiting:
        path, found = waiting.pop(0)
        if found.items is not None:
            return (*path, 0)
        waiting += [((*path, key), child) for key, child in found.keys.items()]
    return ()


def _time_value(timestamp: Timestamp) -> JSON:
    """How a time is written in the timestamp's format."""
    units = {
        TimestampFormat.UNIX_S: 10**9,
        TimestampFormat.UNIX_MS: 10**6,
        TimestampFormat.UNIX_US: 10**3,
        TimestampFormat.UNIX_NS: 1,
    }
    if timestamp.format in units:
        return _SYNTHETIC_NS // units[timestamp.format]
    if timestamp.format is TimestampFormat.PATTERN:
        return format_time(_SYNTHETIC_NS, timestamp.pattern or "", timestamp.timezone)
    return format_rfc3339(_SYNTHETIC_NS)
