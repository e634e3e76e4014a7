"""Members of objects as tags or fields (`"*"`), for generated plans: which member goes where is worked out once for
each set of names that messages come with, and remembered.

As in `columns`, whatever is unusual makes its record odd, and the reference plan judges it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from iggyflux.errors import RecordError
from iggyflux.lineprotocol import Dialect, Part, Unsigned, escape_key, escape_tag_value, format_string
from iggyflux.mapping import Star
from iggyflux.plan.columns import Odd, scalar_text
from iggyflux.plan.reference import leaves, selected
from iggyflux.records import JSON
from iggyflux.values import EXACT_INTEGERS, FieldType, convert, tag_text

Names = tuple[tuple[str, ...], ...]
_LAYOUTS = 10_000
_LONGEST_NAME = 1_000
_LONGEST_SET = 10_000


class _Entry:
    """One place of a set, in order: a named column, or a member of an object.  `prefix` is `key=`; None: not valid."""

    __slots__ = ("index", "is_named", "prefix", "star")

    def __init__(self, index: int, *, is_named: bool, prefix: str | None, star: Star | None = None) -> None:
        self.index = index
        self.is_named = is_named
        self.prefix = prefix
        self.star = star


class _Stars:
    """What tags and fields share: from objects to ordered entries."""

    part: Part

    def __init__(
        self,
        stars: Sequence[Star],
        named: Sequence[str],
        taken: frozenset[str],
        dialect: Dialect,
        valid: Callable[[str, Part], str],
    ) -> None:
        self._stars = stars
        self._named = named
        self._taken = taken
        self._dialect = dialect
        self._valid = valid
        self._layouts: dict[Names, list[_Entry] | None] = {}

    def _records(self, objects: Sequence[Sequence[JSON]], odd: Odd) -> Iterator[tuple[int, list[_Entry], list[JSON]]]:
        """Index, entries and member values of each record; a record that is odd has no entries."""
        for index in range(len(objects[0])):
            names: list[tuple[str, ...]] = []
            values: list[JSON] = []
            for star, column in zip(self._stars, objects, strict=True):
                found = column[index]
                if found is None:
                    names.append(())
                elif type(found) is not dict:
                    odd.add(index)
                elif star.flatten is None:
                    names.append(tuple(found))
                    values += found.values()
                else:
                    flat = [leaf for key, member in found.items() for leaf in self._flat(star, key, member)]
                    names.append(tuple(name for name, _ in flat))
                    values += [value for _, value in flat]
            layout = self._layout(tuple(names)) if len(names) == len(self._stars) else None
            if layout is None:
                odd.add(index)
            yield index, layout or [], values

    @staticmethod
    def _flat(star: Star, key: str, member: JSON) -> Iterator[tuple[str, JSON]]:
        return iter(()) if key in star.used else leaves(key, member, star.flatten)

    def _layout(self, names: Names) -> list[_Entry] | None:
        """The entries for objects of these members, in the order of their names; None where two have one name."""
        try:
            return self._layouts[names]
        except KeyError:
            if len(self._layouts) >= _LAYOUTS:
                self._layouts.clear()
            layout = self._layouts[names] = self._arrange(names)
            return layout

    def _arrange(self, names: Names) -> list[_Entry] | None:
        entries = {name: _Entry(index, is_named=True, prefix="") for index, name in enumerate(self._named)}
        index = -1
        for star, members in zip(self._stars, names, strict=True):
            for member in members:
                index += 1
                name = star.prefix + member
                if (star.flatten is None and member in star.used) or name in self._named or not selected(name, star):
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
                entries[name] = _Entry(index, is_named=False, prefix=prefix, star=star)
        return [entries[name] for name in sorted(entries)]


class StarFields(_Stars):
    """The field sets of records with `"*"` among their fields."""

    part = Part.FIELD_KEY

    def __call__(
        self, named: Sequence[tuple[str, Sequence[str | None], str]], objects: Sequence[Sequence[JSON]], odd: Odd
    ) -> list[str]:
        """The field set of each record; one with no field is odd."""
        made: list[str] = []
        for index, layout, values in self._records(objects, odd):
            fields: list[str] = []
            for entry in layout:
                if entry.is_named:
                    prefix, texts, suffix = named[entry.index]
                    if texts[index] is not None:
                        fields.append(f"{prefix}{texts[index]}{suffix}")
                    continue
                value = values[entry.index]
                if value is None:
                    continue
                text = None if entry.prefix is None else self._text(value, entry.star)
                if text is None:
                    odd.add(index)
                else:
                    fields.append(f"{entry.prefix}{text}")
            if not fields:
                odd.add(index)
            made.append(",".join(fields))
        return made

    def _text(self, value: JSON, star: Star | None) -> str | None:
        assert star is not None  # noqa: S101
        if star.type is FieldType.AUTO:
            if isinstance(value, (float, int)) and not isinstance(value, bool):
                # As in `columns`: beyond 2**53 only the reference plan can tell.
                return repr(float(value)) if -EXACT_INTEGERS < value < EXACT_INTEGERS else None
            if isinstance(value, str) and value.isascii() and len(value) < _LONGEST_SET:
                return format_string(value)
        try:
            converted = convert(value, star.type, star.cast)
        except RecordError:
            return None
        text = scalar_text(converted)
        if text is None or isinstance(converted, (str, bool, float)):
            return text
        if isinstance(converted, Unsigned):
            return f"{text}u" if self._dialect.has_unsigned else None
        return f"{text}i"


class StarTags(_Stars):
    """The tag sets of records with `"*"` among their tags."""

    part = Part.TAG_KEY

    def __call__(self, named: Sequence[Sequence[str]], objects: Sequence[Sequence[JSON]], odd: Odd) -> list[str]:
        """The tag set of each record, a comma before each tag."""
        made: list[str] = []
        for index, layout, values in self._records(objects, odd):
            tags: list[str] = []
            for entry in layout:
                if entry.is_named:
                    tags.append(named[entry.index][index])
                    continue
                value = values[entry.index]
                if value is None or value == "":
                    continue
                text = None if entry.prefix is None else self._text(value)
                if text is None:
                    odd.add(index)
                else:
                    tags.append(f",{entry.prefix}{text}")
            made.append("".join(tags))
            if len(made[-1]) > _LONGEST_SET:
                odd.add(index)
        return made

    def _text(self, value: JSON) -> str | None:
        try:
            text = tag_text(value)
            return None if text is None else escape_tag_value(self._valid(text, Part.TAG_VALUE), self._dialect)
        except RecordError:
            return None
