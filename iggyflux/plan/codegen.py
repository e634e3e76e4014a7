"""A writer document as Python source: columns instead of records, straight-line code instead of interpretation.

The generated `render` takes decoded payloads.  For each item of `points` it returns lines and the records that they
belong to.  It adds to the set `odd` every message that does not meet its assumptions.  The caller then drops what was
made of these messages and has the reference plan render them.  So generated code may be wrong about a message only if
it says so.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from itertools import compress
from typing import Any

from iggyflux.errors import RecordError
from iggyflux.expressions import Expression, scope_call, static_path, truth
from iggyflux.expressions.lowering import Input, Interpreted, interpreted, is_path, on_inputs
from iggyflux.functions.scope import header_value
from iggyflux.functions.table import MAX_STEPS
from iggyflux.lineprotocol import (
    Dialect,
    LinePart,
    Precision,
    check_part,
    escape_key,
    escape_measurement,
    escape_tag_value,
    replace_invalid,
)
from iggyflux.plan import columns, layout, stars
from iggyflux.plan.bounds import MAX_NAME_CHARACTERS, most_elements
from iggyflux.plan.layout import PayloadNode
from iggyflux.plan.reads import writer_expressions
from iggyflux.plan.reference import NO_TAGS, UNITS
from iggyflux.plan.shape import find_condition, find_shape, level_of
from iggyflux.plan.tags import fields_of_that_name, with_added, with_defaults
from iggyflux.records import JSON
from iggyflux.spec import Const, Field, PointSpec, Source, Star, Tag, Timestamp, TimestampFormat, Writer
from iggyflux.timestamps import parse_flexible, parse_pattern, parse_rfc3339, scale_number
from iggyflux.values import KEEPS_NUMBERS, FieldType, bucket_fault, convert, may_round, tag_text

SERIES_BYTES = 60_000
"""The most bytes that the memoised parts of one series key take together: 65,535 less room for a usual field key."""


BUCKET_END = "\0"
"""What generated code writes between the bucket of a line and the line; neither has it."""

_MOST_CALLS_NESTED = 8
_TIMES_REMEMBERED = 4096


@dataclass(frozen=True, slots=True)
class Generated:
    """The source of a plan, and the objects that its names refer to."""

    source: str
    namespace: dict[str, Any]
    is_static: bool
    interpreted: tuple[tuple[Expression, Interpreted], ...]
    """The expressions that the code evaluates; they may take long for a small message."""


@dataclass(slots=True)
class _RawColumn:
    """A raw column of a scope: its variable, and the known kind of its values (`any` if it is unknown)."""

    name: str
    kind: str


@dataclass(slots=True)
class _SourceLines:
    """Source under construction."""

    lines: list[str] = field(default_factory=list)
    indent: int = 1

    def add(self, text: str = "") -> None:
        for line in text.split("\n"):
            self.lines.append("    " * self.indent + line if line else "")


_COLUMNS = ("elements", "record_messages", "record_roots", "indices")
"""What expressions are evaluated on, one column each."""
_OF_RECORDS = {name: name for name in _COLUMNS}
_OF_MESSAGES = {
    "elements": "roots",
    "record_messages": "messages",
    "record_roots": "roots",
    "indices": "[None] * len(roots)",
}
"""What expressions on messages are evaluated on."""

_COLUMN_OF_MESSAGES = re.compile(r"\brecord_(?:messages|roots)\w*")


def _messages_of(number: str, origins: str) -> str:
    """Return the line that looks up the message of every element; each message is made once, if at all."""
    return f"record_messages{number} = list(map(list(messages).__getitem__, {origins}))"


def _without_unused(lines: list[str]) -> list[str]:
    """Return `lines` without those that make a column of messages, or of their roots, which no other line uses."""
    own = [line.partition(" = ")[0].strip() for line in lines]
    used = {
        name
        for line, made in zip(lines, own, strict=True)
        for name in _COLUMN_OF_MESSAGES.findall(line)
        if name != made
    }
    kept = [
        line for line, made in zip(lines, own, strict=True) if made in used or not _COLUMN_OF_MESSAGES.fullmatch(made)
    ]
    return kept if len(kept) == len(lines) else _without_unused(kept)


def generate(writer: Writer, dialect: Dialect, precision: Precision, tags: Mapping[str, str] = NO_TAGS) -> Generated:
    """Return the compiled form of `writer`, whose points get those of `tags` that they do not have."""
    return _WriterGenerator(writer, dialect, precision, tags).generate()


class _WriterGenerator:
    """Generates the source of one document."""

    def __init__(self, writer: Writer, dialect: Dialect, precision: Precision, tags: Mapping[str, str]) -> None:
        if any(fields_of_that_name(writer, tags)):
            raise NotCompiled("a field has the name of a tag of the pipeline")
        self.writer = writer
        self.tags = tags
        added = sum(len(_constant_tag(key, text, dialect).encode()) for key, text in tags.items())
        self.series_bytes = SERIES_BYTES - added
        self.dialect = dialect
        self.precision = precision
        self.out = _SourceLines()
        self.names: dict[str, Any] = {
            name: getattr(columns, name)
            for name in dir(columns)
            if callable(getattr(columns, name)) and not name.startswith("_")
        }
        self.names.update(layout.NAMESPACE)
        self.names.update(compress=compress, header_value=header_value, truth=truth)
        # Together, the columns of one message take no more steps than the reference plan allows it.
        steps = MAX_STEPS // max(1, len(list(writer_expressions(writer))))
        self.names["evaluate"] = partial(columns.evaluate, steps=steps)
        self.names["evaluate_deeply"] = partial(columns.evaluate, steps=steps, deep=True)
        self.shape = find_shape(self.writer)
        self.root = self.shape.root
        self.number = 0
        self.parents: list[str] = []
        self.is_static = self.shape.is_static
        self.interpreted: list[tuple[Expression, Interpreted]] = []
        self.cache: dict[tuple[str, bool] | Input, _RawColumn] = {}
        self.variables = 0

    # --- source ----------------------------------------------------------------------------------------------------

    def generate(self) -> Generated:
        head: list[str] = []
        if self.is_static:
            title = "Payload"
            for _, text in layout.name_structs(self.root, title):
                head += [text, ""]
        out = self.out
        out.add('"""Lines of each item of `points`, and the position in `messages` of the message each is of."""')
        out.add("positions = range(len(messages))")
        out.add("skipped, empty = [], []")
        if self.writer.where is not None:
            self._where()
        self._for_each()
        outer = self.parents
        for number, spec in enumerate(self.writer.points):
            self.parents = outer
            self._spec(number, spec)
        if all(spec.for_each for spec in self.writer.points):
            found = ", ".join(f"found_{number}" for number in range(len(self.writer.points)))
            out.add()
            out.add(f"empty = without_elements(positions, {found})")
        self._collisions()
        results = ", ".join(f"(lines_{n}, records_{n}, times_{n})" for n in range(len(self.writer.points)))
        out.add(f"return [{results}], positions, origins, skipped, empty")
        body = "\n".join(_without_unused(out.lines))
        source = "\n".join(
            [
                f"# The plan of {_printable(self.writer.name)} for {self.dialect.value} in {self.precision.value}.",
                *head,
                "",
                "def render(messages, roots, odd):",
                body,
                "",
            ]
        )
        return Generated(source, self.names, self.is_static, tuple(self.interpreted))

    def _comment(self, pointer: str) -> None:
        line = self.writer.document.locate(pointer).line
        text = f"line {line}: {self.writer.document.lines.line(line).strip()}" if line else pointer
        self.out.add(f"# {_printable(text)}")

    def _where(self) -> None:
        where = self.writer.where
        assert where is not None  # noqa: S101
        out = self.out
        out.add()
        self._comment("/where")
        out.add(f"keep = {self._keep(where, _OF_MESSAGES, [self.root], 'odd')}")
        out.add("if not all(keep):")
        out.indent += 1
        out.add("skipped = [position for position, true in zip(positions, keep) if not true]")
        out.add("positions = list(compress(positions, keep))")
        out.add("roots = list(compress(roots, keep))")
        out.add("messages = list(compress(messages, keep))")
        out.indent -= 1

    def _keep(self, where: Expression, scope: Mapping[str, str], levels: Sequence[PayloadNode], odd: str) -> str:
        """Return the source of a list of truths; `odd` gets positions in the elements of `scope`."""
        condition = find_condition(where) if self.is_static else None
        if condition is not None:
            return f"[{condition.source(levels[-1])} for value in {scope['elements']}]"

        values = partial(self._values, scope=scope, levels=levels)
        return f"true_for({self._evaluated('where', where, scope, odd, values)})"

    def _evaluated(
        self,
        stem: str,
        source: Expression,
        scope: Mapping[str, str],
        odd: str,
        values: Callable[[Input], str],
        *,
        deep: bool = False,
    ) -> str:
        """Return the source of the column of an expression; `values` returns that of an input."""
        of = on_inputs(source)
        if of is None or (of.null_for_null and not self.is_static):  # a struct is not null
            of = interpreted(source)
        self.interpreted.append((source, of))
        documents = f"({', '.join(map(values, of.inputs))},)" if of.inputs else f"({scope['elements']},)"
        arguments = [self._name(stem, of), documents, odd]
        arguments += [f"roots={scope['record_roots']}"] if of.spends or "root" in of.uses else []
        arguments += [f"messages={scope['record_messages']}"] if of.uses & {"meta", "header"} else []
        arguments += [f"indices={scope['indices']}"] if "index" in of.uses else []
        arguments += [f"parents=({', '.join(self.parents)},)"] if "parent" in of.uses else []
        return f"{'evaluate_deeply' if deep else 'evaluate'}({', '.join(arguments)})"

    @property
    def levels(self) -> list[PayloadNode]:
        """The trees of the message and of the elements that the current item of `points` sees."""
        return self.shape.levels[self.number]

    def _for_each(self) -> None:
        out = self.out
        out.add()
        if not self.writer.for_each:
            out.add("elements, origins = roots, range(len(roots))")
            out.add("record_messages, record_roots, indices = messages, roots, [None] * len(roots)")
            return
        first, *deeper = self.writer.for_each
        self._comment(first.location)
        self._lists(first, 0, _OF_MESSAGES, "positions[index]")
        out.add("elements, origins, indices = explode(lists)")
        out.add("empty = [position for position, found in zip(positions, lists) if not found]")
        out.add(_messages_of("", "origins"))
        out.add("record_roots = [roots[origin] for origin in origins]")
        for level, source in enumerate(deeper, 1):
            out.add()
            self._comment(source.location)
            self._lists(source, level, _OF_RECORDS, "positions[origins[index]]")
            self._enter("elements", "elements", "indices")
            out.add("origins = [origins[place] for place in outer]")
            out.add(_messages_of("", "origins"))
            out.add("record_roots = [roots[origin] for origin in origins]")
        if deeper:
            out.add("empty = without_elements(positions, origins)")

    def _lists(self, source: Expression, level: int, scope: Mapping[str, str], position: str) -> None:
        """Add `lists`, what `source` gives for the elements of a level; `position` is the source of a message's."""
        out = self.out
        if self.is_static:
            path = (self.shape.list_paths[self.number] or ())[level]
            out.add(f"lists = [{self._chain('value', self.levels[level], path)} for value in {scope['elements']}]")
        else:
            out.add("odd_lists = set()")
            values = partial(self._values, scope=scope, levels=())
            out.add(f"lists = {self._evaluated('for_each', source, scope, 'odd_lists', values)}")
            out.add("lists = only_lists(lists, odd_lists)")
            out.add(f"odd.update({position} for index in odd_lists)")
        out.add(f"lists = without_long(lists, positions, {most_elements(len(self.writer.points))}, odd)")

    def _enter(self, outside: str, inside: str, indices: str) -> None:
        """Add columns of the elements of `lists`, of those around them, and `outer`, where these are in the lists."""
        out = self.out
        around = [*self.parents, outside]
        if outside == inside:
            out.add(f"around = {outside}")
            around[-1] = "around"
        out.add(f"{inside}, outer, {indices} = explode(lists)")
        self.parents = [self._variable("parent") for _ in around]
        for name, column in zip(self.parents, around, strict=True):
            out.add(f"{name} = [{column}[place] for place in outer]")

    def _spec(self, number: int, spec: PointSpec) -> None:
        out = self.out
        self.cache.clear()
        self.number = number
        out.add()
        self._comment(spec.pointer)
        out.add(f"odd_{number} = set()")
        self.scope = dict(_OF_RECORDS)
        records = "range(len(elements))"
        if spec.for_each:
            self._own_elements(number, spec)
            records = f"records_{number}"
        if spec.timestamp.spread == "index" and len(self.writer.lists_of(spec)) > 1:
            self.scope["numbers"] = f"numbers_{number}"
            out.add(f"numbers_{number} = count_elements({f'found_{number}' if spec.for_each else 'origins'})")
        if spec.where is not None:
            self._comment(f"{spec.pointer}/where")
            keep = self._keep(spec.where, self.scope, self.levels if self.is_static else (), f"odd_{number}")
            out.add(f"keep_{number} = {keep}")
            record = f"records_{number}[record]" if spec.for_each else "record"
            out.add(f"odd.update(positions[origins[{record}]] for record in odd_{number})")
            out.add(f"odd_{number} = set()")
            out.add(f"records_{number} = list(compress({records}, keep_{number}))")
            for name, column in self.scope.items():
                out.add(f"{name}_{number} = list(compress({column}, keep_{number}))")
                self.scope[name] = f"{name}_{number}"
            around, self.parents = self.parents, [self._variable("parent") for _ in self.parents]
            for name, column in zip(self.parents, around, strict=True):
                out.add(f"{name} = list(compress({column}, keep_{number}))")
        elif not spec.for_each:
            out.add(f"records_{number} = {records}")
        self._lines_of(number, spec)
        out.add(f"odd.update(positions[origins[records_{number}[record]]] for record in odd_{number})")

    def _own_elements(self, number: int, spec: PointSpec) -> None:
        """Add the columns of an item with a `for_each` of its own; `records` are those around its elements."""
        out = self.out
        record = "index"
        for level, source in enumerate(spec.for_each, len(self.writer.for_each)):
            self._comment(source.location)
            self._lists(source, level, self.scope, f"positions[origins[{record}]]")
            inside = f"elements_{number}"
            if level:
                self._enter(self.scope["elements"], inside, f"indices_{number}")
            else:
                out.add(f"{inside}, outer, indices_{number} = explode(lists)")
            is_first = record == "index"
            out.add(f"records_{number} = {'outer' if is_first else f'[records_{number}[place] for place in outer]'}")
            record = f"records_{number}[index]"
            out.add(f"found_{number} = [origins[record] for record in records_{number}]")
            out.add(_messages_of(f"_{number}", f"found_{number}"))
            out.add(f"record_roots_{number} = [roots[origin] for origin in found_{number}]")
            self.scope = {name: f"{name}_{number}" for name in _COLUMNS}

    def _lines_of(self, number: int, spec: PointSpec) -> None:
        out = self.out
        series = [*self._bucket(number, spec), self._measurement(number, spec)]
        if spec.tag_stars:
            series.append(self._tag_stars(number, spec))
        else:
            tags = with_added(spec.tags, self.tags)
            series += [self._tag(number, position, tag) for position, tag in enumerate(tags)]
        dense, sparse, columns_of_fields = self._field_set(number, spec)
        times = self._times(number, spec.timestamp)
        out.add(f"time_texts_{number} = integer_texts({times}, odd_{number})")
        head = "".join(_literal(piece.text) if piece.column is None else f"{{{piece.variable}}}" for piece in series)
        series_columns = [(piece.variable, piece.column) for piece in series if piece.column is not None]
        self._check_texts(head, spec, series_columns, columns_of_fields)
        if self.may_collide:
            self._series(number, head, series_columns)
            head, series_columns = "{series}", [("series", f"series_{number}")]

        def statement(fields: str, pairs: list[tuple[str, str]]) -> str:
            pairs = [*series_columns, *pairs, ("time", f"time_texts_{number}")]
            variables = ", ".join(variable for variable, _ in pairs)
            zipped = ", ".join(column for _, column in pairs)
            variables = variables + "," if len(pairs) == 1 else variables
            return f'lines_{number} = [f"{head} {fields} {{time}}" for {variables} in zip({zipped})]'

        if dense is None:
            out.add(statement("{fields}", [("fields", sparse)]))
        else:
            density = [column for _, column in columns_of_fields]
            if density:
                out.add(f"if is_dense({', '.join(density)}):")
                out.indent += 1
                out.add(statement(dense, columns_of_fields))
                out.indent -= 1
                out.add("else:")
                out.indent += 1
                out.add(f"fields = {sparse}")
                out.add(statement("{fields}", [("fields", "fields")]))
                out.indent -= 1
            else:
                out.add(statement(dense, []))

    def _check_texts(
        self, head: str, spec: PointSpec, series: list[tuple[str, str]], fields: list[tuple[str, str]]
    ) -> None:
        """Add a check of what lines repeat for each element: they can be larger than their message without a bound."""
        if not self.writer.lists_of(spec):
            return
        sources: list[Source] = [] if spec.tag_stars else [spec.measurement, *(tag.source for tag in spec.tags)]
        sources = [*([] if spec.to is None else [spec.to.source]), *sources]
        sources = [source for source in sources if isinstance(source, Expression)]
        found = [column for source, (_, column) in zip(sources, series, strict=False) if self._repeats(source)]
        items = [item for item in spec.fields if isinstance(item.source, Expression)]
        if not spec.field_stars:
            found += [
                column
                for item, (_, column) in zip(items, fields, strict=True)
                if item.type not in _SHORT and self._repeats(item.source)
            ]
        constant = len(head) + sum(len(item.key) + 2 + _characters(item) for item in spec.fields)
        self.out.add(f"check_texts({', '.join([self.scope['elements'], str(constant), *found])})")

    def _repeats(self, source: Source) -> bool:
        """Return whether several elements may have one value of `source`: it is not a part of each element alone."""
        path = static_path(source) if isinstance(source, Expression) else None
        return path is None or path[0] != "@" or self.shape.list_paths[self.number] is None

    def _series(self, number: int, head: str, of: list[tuple[str, str]]) -> None:
        """Add a column of measurement and tags: the start of the line, which is also compared to find collisions."""
        if not of:
            self.out.add(f'series_{number} = [f"{head}"] * len({self.scope["elements"]})')
            return
        variables = ", ".join(variable for variable, _ in of) + ("," if len(of) == 1 else "")
        zipped = ", ".join(column for _, column in of)
        self.out.add(f'series_{number} = [f"{head}" for {variables} in zip({zipped})]')

    # --- parts of a point ------------------------------------------------------------------------------------------

    def _constant_measurement(self, spec: PointSpec) -> str | None:
        if not isinstance(spec.measurement, Const):
            return None
        return _make_measurement(self.dialect, self._valid, spec.measurement.value)

    def _bucket(self, number: int, spec: PointSpec) -> list[_Piece]:
        """Return what is before each line: its bucket and the end of it, if points choose theirs."""
        if not self.writer.chooses_bucket:
            return []
        if spec.to is None:
            return [_Piece(text=BUCKET_END)]
        if isinstance(spec.to.source, Const):
            return [_Piece(text=_make_bucket(spec.to.source.value))]
        self._comment(spec.to.pointer)
        raw = self._raw(spec.to.source, f"bucket_{number}")
        memo = self._name("bucket_text", columns.Memo(_make_bucket, SERIES_BYTES))
        column = f"place_{number}"
        self.out.add(f"{column} = memo_texts(only_strings({raw.name}, odd_{number}), {memo}, odd_{number})")
        return [_Piece(column=column, variable="place")]

    def _measurement(self, number: int, spec: PointSpec) -> _Piece:
        constant = self._constant_measurement(spec)
        if constant is not None:
            return _Piece(text=constant)
        pointer = f"{spec.pointer}/measurement"
        make = partial(_make_measurement, self.dialect, self._valid)
        self._comment(pointer)
        raw = self._raw(spec.measurement, f"measurement_{number}")
        memo = self._name("measurement_text", columns.Memo(make, self.series_bytes // (len(spec.tags) + 1)))
        column = f"name_{number}"
        self.out.add(f"{column} = memo_texts(only_strings({raw.name}, odd_{number}), {memo}, odd_{number})")
        return _Piece(column=column, variable="name")

    def _tag(self, number: int, position: int, tag: Tag) -> _Piece:
        make = partial(_make_tag, self.dialect, self._valid, tag)
        if isinstance(tag.source, Const):
            return _Piece(text=make(tag_text(tag.source.value)))
        self._comment(tag.pointer)
        column = self._variable("tag")
        raw = self._raw(tag.source, column)
        memo = self._name(
            f"text_of_{column}", columns.Memo(make, self.series_bytes // (len(self.writer.points[number].tags) + 1))
        )
        self.out.add(f"{column} = memo_texts({raw.name}, {memo}, odd_{number})")
        return _Piece(column=column, variable=f"t{position}")

    def _tag_stars(self, number: int, spec: PointSpec) -> _Piece:
        named = []
        for position, tag in enumerate(with_defaults(spec.tags, self.tags)):
            piece = self._tag(number, position, tag)
            text = piece.column or f"[{_string(piece.text)}] * len({self.scope['elements']})"
            named.append(text)
        added = {key: text for key, text in self.tags.items() if key not in {tag.key for tag in spec.tags}}
        for key, text in added.items():
            constant = _constant_tag(key, text, self.dialect)
            named.append(f"[{_string(constant)}] * len({self.scope['elements']})")
        objects = self._star_objects(spec.tag_stars, "tag")
        taken = frozenset(item.key for item in spec.fields)
        made = stars.StarTags(
            spec.tag_stars,
            tuple(tag.key for tag in spec.tags),
            taken,
            self.dialect,
            self._valid,
            self.series_bytes,
            self._name_characters(),
            added,
        )
        name = self._name("star_tags", made)
        column = f"tag_set_{number}"
        names = ""
        if spec.field_stars:
            self.out.add(f"tag_names_{number} = []")
            names = f", tag_names_{number}"
        self.out.add(f"{column} = {name}([{', '.join(named)}], [{objects}], odd_{number}{names})")
        return _Piece(column=column, variable="tags")

    def _name_characters(self) -> int:
        """Return the share of each place with `"*"` in the names of one message."""
        return MAX_NAME_CHARACTERS // (2 * len(self.writer.points))

    def _star_objects(self, of: tuple[Any, ...], kind: str) -> str:
        names = []
        for star in of:
            self._comment(star.pointer)
            names.append(self._raw(star.source, self._variable(f"{kind}_members"), deep=star.flatten is not None).name)
        return ", ".join(names)

    def _field_set(self, number: int, spec: PointSpec) -> tuple[str | None, str, list[tuple[str, str]]]:
        """Return source of the field set: an f-string body, an expression, and (variable, column) pairs of the body.

        The body is for records without nulls, or None if there is no such body; the expression is for other records.
        """
        body: list[str] = []
        sparse: list[str] = []
        pairs: list[tuple[str, str]] = []
        for position, item in enumerate(spec.fields):
            key = escape_key(self._valid(item.key, LinePart.FIELD_KEY), self.dialect)
            suffix = stars.SUFFIXES.get(item.type, "")
            if isinstance(item.source, Const):
                text = columns.scalar_text(convert(item.source.value, item.type, item.cast), item.type)
                if text is None or (item.type is FieldType.UNSIGNED and not self.dialect.has_unsigned):
                    raise NotCompiled(f"only the reference plan can judge the constant of field {item.key!r}")
                body.append(f"{_literal(key)}={_literal(text)}{suffix}")
                sparse.append(f"({key + '='!r}, [{text!r}] * len({self.scope['elements']}), {suffix!r})")
                continue
            quote = '"' if item.type is FieldType.STRING and not item.cast else ""
            column = self._field(number, item)
            body.append(f"{_literal(key + '=' + quote)}{{f{position}}}{_literal(quote)}{suffix}")
            sparse.append(f"({key + '=' + quote!r}, {column}, {quote + suffix!r})")
            pairs.append((f"f{position}", column))
        if not spec.field_stars:
            return ",".join(body), f"join_fields([{', '.join(sparse)}], odd_{number})", pairs
        for star in spec.field_stars:
            self._refuse_rounded(star)
        objects = self._star_objects(spec.field_stars, "field")
        tags = frozenset((*self.tags, *(tag.key for tag in spec.tags)))
        named = tuple(item.key for item in spec.fields)
        made = stars.StarFields(
            spec.field_stars, named, tags, self.dialect, self._valid, self.series_bytes, self._name_characters()
        )
        name = self._name("star_fields", made)
        names = f", tag_names_{number}" if spec.tag_stars else ""
        return None, f"{name}([{', '.join(sparse)}], [{objects}], odd_{number}{names})", []

    def _field(self, number: int, item: Field) -> str:
        assert isinstance(item.source, Expression)  # noqa: S101
        self._comment(item.pointer)
        odd = f"odd_{number}"
        self._refuse_rounded(item)
        column = self._variable("field")
        raw = self._raw(item.source, column)
        if item.cast:
            text = f"converted_texts({raw.name}, {odd}, {self._name('type', item.type)}, {item.cast!r})"
        else:
            general = columns.COLUMNS[item.type].__name__
            function = _TYPED.get(item.type, general) if raw.kind == item.type.value else general
            if item.type is FieldType.STRING:
                function = "string_contents"  # the quotes are in the text around it
            text = f"{function}({raw.name}, {odd})"
        self.out.add(f"{column} = {text}")
        if item.type is FieldType.UNSIGNED and not self.dialect.has_unsigned:
            if item.default is not None:
                raise NotCompiled(
                    f"field {item.key!r} is never null, and {self.dialect.value} has no unsigned integers"
                )
            self.out.add(f"{column} = refuse({column}, {odd})")
        if item.default is not None:
            value = convert(item.default, item.type, False)  # it is what it says, without a cast
            default = columns.scalar_text(value, item.type)
            if default is None:
                raise NotCompiled(f"only the reference plan can judge the default of field {item.key!r}")
            if item.type is FieldType.STRING and not item.cast:
                default = default[1:-1]
            self.out.add(f"{column} = with_default({column}, {default!r})")
        elif item.required:
            self.out.add(f"{column} = require({column}, {odd})")
        return column

    def _refuse_rounded(self, item: Field | Star) -> None:
        """Raise NotCompiled for a cast of a number that the expression itself may hold rounded."""
        keeps = item.cast and item.type in KEEPS_NUMBERS
        if keeps and isinstance(item.source, Expression) and may_round(item.source.text.encode()):
            raise NotCompiled(f"only the reference plan can judge the numbers of {item.pointer}")

    def _times(self, number: int, timestamp: Timestamp) -> str:
        out, odd, messages = self.out, f"odd_{number}", self.scope["record_messages"]
        self._comment(timestamp.pointer)
        times = f"times_{number}"
        if timestamp.source is None:
            out.add(f"{times} = [message.timestamp_us * 1000 for message in {messages}]")
        else:
            if isinstance(timestamp.source, Const):
                out.add(f"time_{number} = [{timestamp.source.value!r}] * len({self.scope['elements']})")
                raw = f"time_{number}"
            else:
                raw = self._raw(timestamp.source, f"time_{number}").name
            parse = self._time_parser(timestamp)
            if timestamp.default_message:
                out.add(f"{times} = or_message_time({raw}, {messages}, {parse}, {odd})")
            else:
                out.add(f"{times} = {parse}({raw}, {odd})")
        if timestamp.spread == "offset":
            out.add(f"{times} = spread_offsets({times}, {messages}, {timestamp.partitions}, {odd})")
        elif timestamp.spread == "index":
            out.add(f"{times} = spread_indices({times}, {self.scope.get('numbers', self.scope['indices'])}, {odd})")
        out.add(f"{times} = check_times({times}, {odd})")
        if self.precision.divisor > 1:
            out.add(f"{times} = [ns // {self.precision.divisor} for ns in {times}]")
        return times

    def _time_parser(self, timestamp: Timestamp) -> str:
        kind = timestamp.format
        made: Callable[[Any, set[int]], list[int]]
        if kind in UNITS:
            made = partial(_scale_times, UNITS[kind])
        elif kind is TimestampFormat.RFC3339:
            made = partial(_parse_times, parse_rfc3339)
        elif kind is TimestampFormat.FLEXIBLE:
            made = _remembering(partial(_swapped, parse_flexible, (timestamp.timezone, timestamp.dayfirst)))
        else:
            made = _remembering(partial(_swapped, parse_pattern, (timestamp.pattern or "", timestamp.timezone)))
        return self._name(f"parse_{kind.value}", made)

    # --- columns ---------------------------------------------------------------------------------------------------

    def _raw(self, source: Source, name: str, *, deep: bool = False) -> _RawColumn:
        """Return a variable that holds the values of `source` for the records of the current item.

        `deep` says that all of each value is read, not only what is its own.
        """
        assert isinstance(source, Expression)  # noqa: S101
        key = source.text, deep and source.spends
        cached = self.cache.get(key)
        if cached is None:
            cached = self.cache[key] = self._raw_of(source, f"values_{name}", deep=key[1])
        return cached

    def _raw_of(self, source: Expression, name: str, *, deep: bool) -> _RawColumn:
        out, scope = self.out, self.scope
        call = scope_call(source)
        if call is not None:
            return self._raw_input(call, name)
        path = static_path(source)
        if path is not None and path[1]:
            return self._raw_input(path, name)

        def values(each: Input) -> str:
            return self._raw_input(each, self._variable("values")).name

        evaluated = self._evaluated("expression", source, scope, f"odd_{self.number}", values, deep=deep)
        out.add(f"{name} = {evaluated}")
        return _RawColumn(name, "any")

    def _raw_input(self, each: Input, name: str) -> _RawColumn:
        """Return a variable that holds the values of an input, `name` if there is none yet."""
        if each in self.cache:
            return self.cache[each]
        levels = self.levels if self.is_static else ()
        kind = level_of(levels, each[0]).at(each[1]).leaf_kind() if self.is_static and is_path(each) else "any"
        self.out.add(f"{name} = {self._values(each, self.scope, levels)}")
        found = self.cache[each] = _RawColumn(name, kind)
        return found

    def _values(self, each: Input, scope: Mapping[str, str], levels: Sequence[PayloadNode]) -> str:
        """Return the source of the column of an input; `levels` are the trees of a static plan."""
        if not is_path(each):
            return self._scope_column(scope, *each)
        start, names = each
        column = scope["elements"] if start == "@" else scope["record_roots"]
        if isinstance(start, int):
            column = self.parents[-start]
        if not self.is_static:
            return f"[{_dynamic_chain(names)} for value in {column}]"
        return f"[{self._chain('value', level_of(levels, start), names)} for value in {column}]"

    def _scope_column(self, scope: Mapping[str, str], function: str, argument: str | None) -> str:
        """Return the source of the column of `meta('…')`, `header('…')` or `index()`."""
        if function == "index":
            return f"list({scope['indices']})"
        messages = scope["record_messages"]
        if function == "header":
            return f"[header_value(message.headers.get({argument!r})) for message in {messages}]"
        return f"[message.{_META[argument or '']} for message in {messages}]"

    def _chain(self, value: str, node: PayloadNode, path: tuple[str, ...]) -> str:
        for key in path:
            node = node.children[key]
            value = f"{value}.{node.attribute}"
        return value

    # --- checks of the whole batch ---------------------------------------------------------------------------------

    @property
    def may_collide(self) -> bool:
        """Whether a message can make two points of one series: it makes several, and not all of other measurements."""
        if self.writer.may_repeat:
            return True
        names = [self._constant_measurement(spec) for spec in self.writer.points]
        return None in names or len(set(names)) < len(names)

    def _collisions(self) -> None:
        """Add the search for two points of one message with one series and time, which the reference plan settles."""
        if not self.may_collide:
            return
        out = self.out
        out.add()
        out.add("# collisions: points of one message with the same measurement, tags and time")
        groups = ", ".join(f"(records_{n}, series_{n}, times_{n})" for n in range(len(self.writer.points)))
        out.add(f"find_collisions([{groups}], positions, origins, odd)")

    # --- names -----------------------------------------------------------------------------------------------------

    def _valid(self, text: str, part: LinePart) -> str:
        if self.writer.invalid_names == "replace":
            text = replace_invalid(text, part)
        return check_part(text, part)

    def _variable(self, kind: str) -> str:
        """Return a new variable of the generated code, numbered: names of documents appear in comments only."""
        self.variables += 1
        return f"{kind}_{self.variables}"

    def _name(self, stem: str, value: object) -> str:
        """Return a name for `value` in the namespace of the generated code."""
        name, number = stem, 2
        while name in self.names and self.names[name] is not value:
            name, number = f"{stem}_{number}", number + 1
        self.names[name] = value
        return name


class NotCompiled(Exception):
    """A document that has no compiled form; the text says why."""


@dataclass(frozen=True, slots=True)
class _Piece:
    """A part of the series: constant text, or a column with its loop variable."""

    text: str = ""
    column: str | None = None
    variable: str = ""


_META = {
    "stream": "stream",
    "topic": "topic",
    "partition": "partition",
    "offset": "offset",
    "timestamp": "timestamp_us",
    "origin_timestamp": "origin_timestamp_us",
    "id": "id",
}

_TYPED = {
    FieldType.FLOAT: "float_texts",
    FieldType.INTEGER: "integer_texts",
    FieldType.UNSIGNED: "integer_texts",
}
"""The column functions for values whose type the decoder checked, where they differ from those for any value."""


_SHORT = (FieldType.FLOAT, FieldType.INTEGER, FieldType.UNSIGNED, FieldType.BOOLEAN)
"""Types whose text is short, whatever the value."""


def _characters(item: Field) -> int:
    """Return how many characters of a field are the same in each line."""
    return max(len(str(value)) for value in (item.default, item.source.value if isinstance(item.source, Const) else ""))


def _make_bucket(value: JSON) -> str:
    if value == "" or bucket_fault(value) is not None:
        raise RecordError("", "not the name of a bucket")
    return f"{value}{BUCKET_END}"


def _make_measurement(dialect: Dialect, valid: Callable[[str, LinePart], str], value: JSON) -> str:
    if not isinstance(value, str):
        raise RecordError("", "not a string")
    return escape_measurement(valid(value, LinePart.MEASUREMENT), dialect)


def _make_tag(dialect: Dialect, valid: Callable[[str, LinePart], str], tag: Tag, value: str | None) -> str:
    text = value or (None if tag.default is None else tag_text(tag.default))
    if not text:
        if tag.required:
            raise RecordError("", "missing")
        return ""
    key = escape_key(valid(tag.key, LinePart.TAG_KEY), dialect)
    return f",{key}={escape_tag_value(valid(text, LinePart.TAG_VALUE), dialect)}"


def _constant_tag(key: str, text: str, dialect: Dialect) -> str:
    return f",{escape_key(key, dialect)}={escape_tag_value(text, dialect)}"


def _scale_times(ns_per_unit: int, column: list[JSON], fallback: set[int]) -> list[int]:
    return columns.scale_times(column, ns_per_unit, scale_number, fallback)


def _parse_times(parse: Callable[[str], int], column: list[JSON], fallback: set[int]) -> list[int]:
    return columns.parse_times(column, parse, fallback)


def _remembering(parse: Callable[[str], int]) -> Callable[[list[JSON], set[int]], list[int]]:
    """Return a parser of columns that remembers the last texts: many messages of a second have one text."""
    return partial(_parse_times, lru_cache(_TIMES_REMEMBERED)(parse))


def _swapped(parse: Callable[..., int], arguments: tuple[Any, ...], text: str) -> int:
    return parse(text, *arguments)


def _dynamic_chain(path: tuple[str, ...]) -> str:
    """Return the source of the value at `path` of `value`, a document."""
    if len(path) > _MOST_CALLS_NESTED:
        return f"follow(value, {path!r})"
    chain = "value"
    for key in path:
        chain = f"member({chain}, {key!r})"
    return chain


def _literal(text: str) -> str:
    """Return `text` as it is written inside an f-string with double quotes."""
    return _string(text)[1:-1].replace("{", "{{").replace("}", "}}")


def _printable(text: str) -> str:
    """Return `text` for a comment: nothing in it can end the line."""
    return "".join(character if character.isprintable() else " " for character in text)


def _string(text: str) -> str:
    """Return `text` as Python source with double quotes."""
    return '"' + "".join(map(_escaped, text)) + '"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    return character if character.isprintable() else character.encode("unicode_escape").decode()
