"""Where a value of a message goes: the columns in which a writer stores it, and what a reader makes of a column.

Only plain paths, stars, and templates of columns are traced.  Of an expression it is only known which values it uses.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from iggyflux.authoring.round_trip.changes import Path
from iggyflux.expressions import Expression, Reads, static_path
from iggyflux.expressions.lowering import Call, ColumnRead, ListOf, Lowered, ObjectOf, Start, lower
from iggyflux.mapping import Const, PointSpec, Reader, Source, Star, Writer
from iggyflux.plan.reads import payload_reads
from iggyflux.plan.shape import find_shape


@dataclass(frozen=True, slots=True)
class Stored:
    """The column in which a value is stored."""

    kind: Literal["tag", "field", "time", "measurement"]
    name: str


class Trace:
    """The paths of values through a pair of documents."""

    def __init__(self, writer: Writer, reader: Reader) -> None:
        self._writer = writer
        self._reads = payload_reads(writer)
        paths = find_shape(writer).list_paths
        self._lists = {point.pointer: found for point, found in zip(writer.points, paths, strict=True)}
        self._time = reader.cursor.column
        self.sends_whole_rows = False
        self._sent: dict[str, list[Path]] = {}
        self._used: set[str] = set()
        for spec in reader.messages:
            if isinstance(spec.payload, Expression):
                self._enter(lower(spec.payload), ())
                self._used.update(spec.payload.reads.keys)

    def stored(self, path: Path) -> list[Stored]:
        """Return the columns that store the value at `path` of a message."""
        return [stored for point in self._writer.points for stored in self._stored_by(point, path)]

    def is_used(self, path: Path) -> bool:
        """Return whether an expression of the writer can use the value."""
        return _covers(self._reads, path)

    def sent(self, stored: Stored) -> list[Path]:
        """Return the paths of a column's value in a message of the reader."""
        name = self._time if stored.kind == "time" else stored.name
        if stored.kind == "measurement":
            return []
        found = list(self._sent.get(name, ()))
        return [*found, *((*base, name) for base in self._sent.get("", ()))] if self.sends_whole_rows else found

    def is_seen(self, stored: Stored) -> bool:
        """Return whether an expression of the reader uses the column."""
        return (self._time if stored.kind == "time" else stored.name) in self._used

    def columns_at(self, path: Path) -> list[str]:
        """Return the columns at `path` of a message of the reader."""
        found = [name for name, places in self._sent.items() if name and path in places]
        if self.sends_whole_rows and path:
            found += [str(path[-1]) for base in self._sent.get("", ()) if path[:-1] == base]
        return found

    def is_time(self, column: str) -> bool:
        """Return whether the column is the time."""
        return column == self._time

    def constant(self, column: str) -> bool:
        """Return whether the writer makes the column without the payload."""
        sources: list[Source] = []
        for point in self._writer.points:
            sources += [tag.source for tag in point.tags if tag.key == column]
            sources += [field.source for field in point.fields if field.key == column]
        return bool(sources) and all(
            isinstance(source, Const)
            or all(each.is_bare for each in (source.reads, source.root_reads, *source.parent_reads.values()))
            for source in sources
        )

    # --- the reader ---

    def _enter(self, value: Lowered, path: Path) -> None:
        match value:
            case ColumnRead(None):
                self.sends_whole_rows = True
                self._sent.setdefault("", []).append(path)
            case ColumnRead(str() as name):
                self._sent.setdefault(name, []).append(path)
            case ObjectOf(parts):
                for key, part in parts:
                    self._enter(part, (*path, key))
            case ListOf(parts):
                for index, part in enumerate(parts):
                    self._enter(part, (*path, index))
            case Call():
                pass

    # --- the writer ---

    def _stored_by(self, point: PointSpec, path: Path) -> Iterator[Stored]:
        for tag in point.tags:
            if self._is_at(point, tag.source, path):
                yield Stored("tag", tag.key)
        for field in point.fields:
            if self._is_at(point, field.source, path):
                yield Stored("field", field.key)
        for kind, stars in (("tag", point.tag_stars), ("field", point.field_stars)):
            named = {tag.key for tag in point.tags} | {field.key for field in point.fields}
            for star in stars:
                name = self._name_by(point, star, path)
                if name is not None and name not in named:
                    yield Stored(kind, name)  # type: ignore[arg-type]
        if point.timestamp.source is not None and self._is_at(point, point.timestamp.source, path):
            yield Stored("time", "")
        if self._is_at(point, point.measurement, path):
            yield Stored("measurement", "")

    def _is_at(self, point: PointSpec, source: Source, path: Path) -> bool:
        if isinstance(source, Const):
            return False
        found = static_path(source)
        return found is not None and self._below(point, found[0], path) == found[1]

    def _below(self, point: PointSpec, start: Start, path: Path) -> Path | None:
        """Return the path relative to the start of an expression; None if it is outside."""
        if start == "root":
            return path
        lists = self._lists[point.pointer]
        if lists is None:
            return None
        for base in lists[: len(lists) - start] if isinstance(start, int) else lists:
            if path[: len(base)] != base or len(path) <= len(base) or isinstance(path[len(base)], str):
                return None
            path = path[len(base) + 1 :]
        return path

    def _name_by(self, point: PointSpec, star: Star, path: Path) -> str | None:
        """Return the name that a star gives to the value at `path`, or None."""
        found = None if isinstance(star.source, Const) else static_path(star.source)
        below = None if found is None else self._below(point, found[0], path)
        if found is None or below is None or below[: len(found[1])] != found[1]:
            return None
        parts = below[len(found[1]) :]
        if not parts or star.is_used(parts) or (star.flatten is None and len(parts) > 1):
            return None
        name = star.prefix + (star.flatten or "").join(map(str, parts))
        included = not star.include or any(fnmatchcase(name, glob) for glob in star.include)
        excluded = any(fnmatchcase(name, glob) for glob in star.exclude)
        return name if included and not excluded else None


def _covers(reads: Reads | None, path: Path) -> bool:
    for step in path:
        if reads is None or reads.whole:
            break
        keys: Mapping[str, Reads] = reads.keys
        reads = keys.get(step) if isinstance(step, str) else reads.items
    return reads is not None
