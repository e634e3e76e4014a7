"""A sample message made from what a mapping reads, for a document without examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Final

from iggyflux.authoring.generate.trial import Base, PlanTrial, replace_payload
from iggyflux.authoring.generate.values import Path
from iggyflux.errors import IggyfluxError, RecordError
from iggyflux.expressions import Expression, static_path
from iggyflux.expressions.syntax import nodes_in
from iggyflux.mapping import Timestamp, TimestampFormat, Writer
from iggyflux.plan.reads import payload_reads, point_expressions
from iggyflux.reads import Reads
from iggyflux.records import JSON, Message
from iggyflux.timestamps import format_rfc3339, format_time
from iggyflux.values import FieldType

CANNOT_GENERATE: Final = "IFX530"
_ATTEMPTS: Final = 600


class GenerateError(IggyfluxError):
    """No message was found that the mapping renders without a failure."""

    def __init__(self, reason: str, hint: str) -> None:
        self.code = CANNOT_GENERATE
        self.reason = reason
        self.hint = hint
        super().__init__(f"{reason} ({hint})")


def synthetic_base(trial: PlanTrial, random: Random) -> Base:
    """Return a message with everything that the mapping reads, of suitable types, found by trial."""
    shape = _PayloadShape(trial.writer)
    message = Message(
        b"",
        trial.coordinates.stream,
        trial.coordinates.topic,
        timestamp_us=_SYNTHETIC_NS // 1000,
        headers={name: f"{name}-1" for name in shape.headers},
    )
    for attempt in range(_ATTEMPTS):
        tree = shape.tree(random, attempt)
        try:
            made = replace_payload(message, trial.encode(tree))
        except RecordError:
            continue
        if trial.points([made])[0] is not None:
            return made, tree
    name = trial.mapping.document.file or trial.mapping.name
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
    FieldType.PAYLOAD: 21.5,
}
_STAR: Final[dict[str, JSON]] = {"value": 21.5, "level": 3}


class _PayloadShape:
    """The form of a mapping's payloads, as far as its expressions show it."""

    def __init__(self, writer: Writer) -> None:
        self._reads = payload_reads(writer)
        self._hints: dict[Path, JSON] = {}
        self._stars: set[Path] = set()
        self._literals: list[JSON] = []
        self._expected: dict[Path, list[JSON]] = {}
        self.headers: set[str] = set()
        if writer.where is not None:
            self._learn(writer.where, ())
        for point in writer.points:
            self._levels = self._paths_to(writer.lists_of(point))
            for expression in point_expressions(point):
                self._learn(expression, self._levels[-1])
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

    def _paths_to(self, lists: Sequence[Expression]) -> list[Path]:
        """Return the path of the message, and of the first element of each list that leads further in."""
        levels: list[Path] = [()]
        for each in lists:
            self._learn(each, levels[-1])
            here, root, around = each.reads_for(Reads(items=Reads()))
            found = [(levels[-1], here), ((), root), *((levels[-1 - up], reads) for up, reads in around.items())]
            levels.append(next(((*base, *path) for base, reads in found if (path := _list_path(reads))), levels[-1]))
        return levels

    def _path(self, source: object) -> Path | None:
        path = static_path(source) if isinstance(source, Expression) else None
        if path is None:
            return None
        start, keys = path
        base = {"@": self._levels[-1], "root": ()}.get(start) if isinstance(start, str) else self._levels[-1 - start]
        return (*(base or ()), *keys)

    def _hint(self, source: object, value: JSON) -> None:
        path = self._path(source)
        if path is not None:
            self._hints.setdefault(path, value)

    def _learn(self, expression: Expression, prefix: Path) -> None:
        """Collect an expression's literals, the values that its paths are compared with, and its headers."""
        for node in nodes_in(expression.node):
            children = node["children"]
            if node["type"] == "literal" and isinstance(node["value"], (str, int, float)):
                self._literals.append(node["value"])
            if node["type"] == "function_expression" and node["value"] == "header" and children:
                self.headers.add(str(children[0]["value"]))
            if node["type"] == "comparator" and len(children) == 2 and children[1]["type"] == "literal":
                name, literal = children[0], children[1]["value"]
                if name["type"] == "field" and literal is not None:
                    self._expected.setdefault((*prefix, name["value"]), []).append(literal)

    def tree(self, random: Random, attempt: int) -> JSON:
        return self._build(self._reads, (), random, attempt)

    def _build(self, reads: Reads, path: Path, random: Random, attempt: int) -> JSON:
        if path in self._stars:
            members = {key: self._build(child, (*path, key), random, attempt) for key, child in reads.keys.items()}
            named = {key[-1] for key in self._hints if key[:-1] == path and key}
            members.update((str(key), self._leaf((*path, key), random, attempt)) for key in sorted(map(str, named)))
            return {**_STAR, **members}
        if reads.keys:
            return {key: self._build(child, (*path, key), random, attempt) for key, child in reads.keys.items()}
        if reads.items is not None:
            return [self._build(reads.items, (*path, 0), random, attempt)]
        below = [hint for hint in self._hints if len(hint) > len(path) and hint[: len(path)] == path]
        if reads.whole and below:
            return {str(hint[len(path)]): self._leaf(hint[: len(path) + 1], random, attempt) for hint in below}
        return self._leaf(path, random, attempt)

    def _leaf(self, path: Path, random: Random, attempt: int) -> JSON:
        name = str(path[-1]) if path else "value"
        known = self._expected.get(path, [])
        if path in self._hints and attempt < _ATTEMPTS // 3:
            return known[attempt % len(known)] if known else self._hints[path]
        guesses: list[JSON] = [*known, 21.5, f"{name}-1", 42, True, *self._literals, [1.5, 2.5], {"value": 1.5}]
        guesses += ["2026-01-01T00:00:00Z", _SYNTHETIC_NS // 10**6, "7"]
        if attempt == 0:
            return guesses[0]
        return random.choice(guesses)


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
    """Return a time in the timestamp's format."""
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
