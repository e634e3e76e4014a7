"""Members of objects as tags or fields (`"*"`), for generated plans.

Records whose objects have the same members form a group.  Which member goes where is decided once for each set of names
and remembered, and the members of a group are columns like all others.  As in `columns`, an unusual record is added to
`fallback`, and the reference plan judges it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from iggyflux.errors import RecordError
from iggyflux.lineprotocol import Dialect, LinePart, escape_key, escape_tag_value
from iggyflux.plan.bounds import MAX_LINE_CHARACTERS, MAX_NAME_CHARACTERS, MayBeTooMuch, check_characters
from iggyflux.plan.columns import (
    COLUMNS,
    MEMO_CHARACTERS,
    Column,
    Fallback,
    Memo,
    MemoBudget,
    converted_texts,
    join_fields,
    memo_texts,
    refuse,
)
from iggyflux.plan.reference import NO_TAGS, selected
from iggyflux.records import JSON
from iggyflux.spec import Star
from iggyflux.values import FieldType

Used: TypeAlias = "dict[str | int | None, Used | None]"
"""The places that a star omits, as a tree by the steps of their paths; None is a place that is omitted whole."""

_NOTHING: Used = {}
Names = tuple[tuple[str, ...], ...]
Group = list[tuple[int, list[JSON]]]
_LAYOUTS = 10_000
_LONGEST_NAME = 1_000
_FEW = 100
"""The most members of an object whose names are not counted: a long name needs the reference plan in any case."""
_DIGITS = 8
"""More than the index of an element has."""
SUFFIXES = {FieldType.INTEGER: "i", FieldType.UNSIGNED: "u"}


@dataclass(frozen=True, slots=True)
class _Entry:
    """One part of a set: the named column at `index`, or (with a star) the member at `index` of a record's values.

    `prefix` is `key=`; None if the name is not valid, so that a record with such a member needs the reference plan.
    """

    index: int
    prefix: str | None = None
    star: Star | None = None
    memo: Memo | None = None


@dataclass(frozen=True, slots=True)
class _Layout:
    """The entries for objects of some members, in the order of their names, and these names."""

    entries: list[_Entry]
    names: frozenset[str]


class _Stars:
    """What tags and fields share: from objects to groups, from names to entries in order."""

    part: LinePart

    def __init__(
        self,
        stars: Sequence[Star],
        named: Sequence[str],
        taken: frozenset[str],
        dialect: Dialect,
        valid: Callable[[str, LinePart], str],
        series_bytes: int,
        name_characters: int = MAX_NAME_CHARACTERS,
        added: Mapping[str, str] = NO_TAGS,
    ) -> None:
        """`name_characters` bounds the names that `flatten` makes here of the messages of one batch.

        `added` are tags for records in which nothing else has their names; their columns follow those of `named`.
        """
        self._stars = stars
        self._used = [_tree_of(star.used) or _NOTHING for star in stars]
        self._named = named
        self._taken = taken
        self._dialect = dialect
        self._valid = valid
        self._series_bytes = series_bytes
        self._name_characters = name_characters
        self._added = tuple(added)
        self._defaults = {escape_key(key, dialect) + "=": text for key, text in added.items()}
        self._layouts: dict[Names, _Layout | None] = {}
        self._named_characters = 0
        self._budget = MemoBudget()

    def _groups(self, objects: Sequence[Sequence[JSON]], fallback: Fallback) -> list[tuple[_Layout, Group]]:
        """Return the records grouped by the members of their objects; those added to `fallback` are in no group."""
        groups: dict[Names, Group] = {}
        room = [self._name_characters]
        for index, found in enumerate(zip(*objects, strict=True)):
            names: list[tuple[str, ...]] = []
            values: list[JSON] = []
            for star, used, members in zip(self._stars, self._used, found, strict=True):
                if type(members) is dict:
                    names.append(_take(star, used, members, values, room))
                elif members is None:
                    names.append(())
                else:
                    fallback.add(index)
            if len(names) == len(self._stars):
                groups.setdefault(tuple(names), []).append((index, values))
        if self._budget.held > MEMO_CHARACTERS:
            self._forget()
        known: list[tuple[_Layout, Group]] = []
        for key, group in groups.items():
            layout = self._layout(key)
            if layout is None:
                fallback.update(index for index, _ in group)
            else:
                known.append((layout, group))
        return known

    def _layout(self, names: Names) -> _Layout | None:
        """Return the layout for objects of these members; None if two have one name."""
        try:
            return self._layouts[names]
        except KeyError:
            if len(self._layouts) >= _LAYOUTS or self._named_characters > MEMO_CHARACTERS:
                self._forget()
            layout = self._layouts[names] = self._arrange(names)
            self._named_characters += sum(len(name) for member in names for name in member)
            return layout

    def _forget(self) -> None:
        self._layouts.clear()
        self._named_characters = 0
        self._budget = MemoBudget()

    def _arrange(self, names: Names) -> _Layout | None:
        entries = {name: _Entry(index) for index, name in enumerate(self._named)}
        share = self._series_bytes // (sum(map(len, names)) + len(self._named) + 1)
        index = -1
        for star, members in zip(self._stars, names, strict=True):
            for member in members:
                index += 1
                name = star.prefix + member
                if (
                    (star.flatten is None and star.is_used((member,)))
                    or name in self._named
                    or not selected(name, star)
                ):
                    continue
                prefix: str | None = None
                try:
                    valid = self._valid(name, self.part)
                    if len(valid) <= _LONGEST_NAME and valid not in self._taken:
                        prefix = escape_key(valid, self._dialect) + "="
                    name = valid
                except RecordError:
                    pass
                if name in entries:
                    return None
                entries[name] = _Entry(index, prefix, star, self._memo(prefix, share))
        for index, name in enumerate(self._added, len(self._named)):
            entries.setdefault(name, _Entry(index))
        return _Layout([entries[name] for name in sorted(entries)], frozenset(entries))

    def _memo(self, prefix: str | None, share: int) -> Memo | None:  # noqa: ARG002  (fields remember nothing)
        return None


def _tree_of(paths: Collection[tuple[str | int | None, ...]]) -> Used | None:
    """Return the places at `paths` as a tree; None if all of it is omitted."""
    if () in paths:
        return None
    return {
        step: _tree_of({path[1:] for path in paths if path[0] == step or (path[0] is None and isinstance(step, int))})
        for step in {path[0] for path in paths}
    }


def _take(star: Star, used: Used, members: dict[str, JSON], values: list[JSON], room: list[int]) -> tuple[str, ...]:
    """Return the names of what `star` finds in `members`; the values are appended to `values`.

    `room` holds how many characters the names may have.  Raise MayBeTooMuch.
    """
    if star.flatten is None:
        values += members.values()
        return tuple(members)
    names: list[str] = []
    more = len(star.prefix) + 1
    if len(members) > _FEW:
        room[0] -= sum(map(len, members)) + more * len(members)
    for key, member in members.items():
        inner = used.get(key, _NOTHING) if used else _NOTHING
        if inner is None:
            continue
        if type(member) is dict or type(member) is list:
            _flatten(f"{key}{star.flatten}", member, star.flatten, inner, names, values, room, more + 1)
        else:
            names.append(key)
            values.append(member)
    if room[0] < 0:
        raise MayBeTooMuch
    return tuple(names)


def _flatten(
    before: str,
    whole: dict[str, JSON] | list[JSON],
    separator: str,
    used: Used,
    names: list[str],
    values: list[JSON],
    room: list[int],
    more: int,
) -> None:
    """Append names and values of the leaves of `whole` that are not used; names begin with `before`.

    Each part of `whole` takes its name of the room, and `more`: the length of the star's prefix and the depth.
    """
    room[0] -= (len(before) + more) * len(whole)
    elements: Used | None = _NOTHING
    parts: Iterable[tuple[str | int, JSON]]
    if type(whole) is dict:
        room[0] -= sum(map(len, whole))
        parts = whole.items()
    else:
        room[0] -= _DIGITS * len(whole)
        elements, parts = used.get(None, _NOTHING), enumerate(whole)
    if room[0] < 0:
        raise MayBeTooMuch
    for step, part in parts:
        inner = used.get(step, elements)
        if inner is None:
            continue
        if type(part) is dict or type(part) is list:
            _flatten(f"{before}{step}{separator}", part, separator, inner, names, values, room, more + 1)
        else:
            names.append(f"{before}{step}")
            values.append(part)


class StarFields(_Stars):
    """Makes the field sets of records with `"*"` among their fields."""

    part = LinePart.FIELD_KEY

    def __call__(
        self,
        named: Sequence[tuple[str, Column, str]],
        objects: Sequence[Sequence[JSON]],
        fallback: Fallback,
        tags: Sequence[frozenset[str]] = (),
    ) -> list[str]:
        """Return the field set of each record; a record without a field is added to `fallback`.

        `tags` are the names of each record's tags, if `"*"` is among these too.  Raise MayBeTooMuch.
        """
        made = [""] * len(objects[0])
        characters = 0
        for layout, group in self._groups(objects, fallback):
            inner: Fallback = set()
            parts: list[tuple[str, Sequence[str | None], str]] = []
            for entry in layout.entries:
                if entry.star is None:
                    prefix, texts, suffix = named[entry.index]
                    parts.append((prefix, [texts[index] for index, _ in group], suffix))
                else:
                    parts.append(self._member(entry, entry.star, [values[entry.index] for _, values in group], inner))
            characters += _characters(parts, len(group))
            check_characters(characters, MAX_LINE_CHARACTERS)
            fields = join_fields(parts, inner) if parts else []
            for (index, _), text in zip(group, fields, strict=False):
                made[index] = text
            fallback.update(group[position][0] for position in inner)
            fallback.update(index for index, _ in group if not made[index])
            if tags:
                shared = {each for each in {tags[index] for index, _ in group} if not each.isdisjoint(layout.names)}
                fallback.update(index for index, _ in group if tags[index] in shared)
        return made

    def _member(self, entry: _Entry, star: Star, column: list[JSON], fallback: Fallback) -> tuple[str, Column, str]:
        if star.cast:
            texts = converted_texts(column, fallback, star.type, star.cast)
        else:
            texts = COLUMNS[star.type](column, fallback)
        if entry.prefix is None or (star.type is FieldType.UNSIGNED and not self._dialect.has_unsigned):
            texts = refuse(texts, fallback)
        return entry.prefix or "", texts, SUFFIXES.get(star.type, "")


def _characters(parts: Sequence[tuple[str, Sequence[str | None], str]], count: int) -> int:
    """Return how many characters the field sets of `count` records have."""
    return sum(len(prefix) * count + sum(map(len, filter(None, texts))) for prefix, texts, _ in parts)


class StarTags(_Stars):
    """Makes the tag sets of records with `"*"` among their tags."""

    part = LinePart.TAG_KEY

    def __call__(
        self,
        named: Sequence[Column],
        objects: Sequence[Sequence[JSON]],
        fallback: Fallback,
        names: list[frozenset[str]] | None = None,
    ) -> list[str]:
        """Return the tag set of each record, with a comma before each tag; `names` gets those of each record.

        Raise MayBeTooMuch.
        """
        made = [""] * len(objects[0])
        if names is not None:
            names += [frozenset()] * len(made)
        characters = 0
        for layout, group in self._groups(objects, fallback):
            inner: Fallback = set()
            parts: list[list[Any]] = []
            for entry in layout.entries:
                if entry.memo is None:
                    parts.append([named[entry.index][index] for index, _ in group])
                else:
                    parts.append(memo_texts([values[entry.index] for _, values in group], entry.memo, inner))
            characters += sum(sum(map(len, texts)) for texts in parts)
            check_characters(characters, MAX_LINE_CHARACTERS)
            if parts:
                for (index, _), texts in zip(group, zip(*parts, strict=True), strict=True):
                    made[index] = "".join(texts)
            if names is not None:
                for index, _ in group:
                    names[index] = layout.names
            fallback.update(group[position][0] for position in inner)
        return made

    def _memo(self, prefix: str | None, share: int) -> Memo:
        return Memo(partial(self._tag, prefix), share, self._budget)

    def _tag(self, prefix: str | None, value: str | None) -> str:
        if not value and prefix is not None:
            value = self._defaults.get(prefix)
        if not value:
            return ""
        if prefix is None:
            raise RecordError("", "a name that is not valid")
        return f",{prefix}{escape_tag_value(self._valid(value, LinePart.TAG_VALUE), self._dialect)}"
