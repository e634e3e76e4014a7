"""A writer document's tree to types: what is read, and what each point is made of.

Everything that can be known without a message is checked here: names, types of defaults, times, globs, clashes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import cast, get_args

from iggyflux.documents import join_pointer
from iggyflux.errors import PointError, RecordError
from iggyflux.expressions import Expression, compile_expression, literal_value
from iggyflux.expressions.lowering import steps_of
from iggyflux.lineprotocol import check_field_key, check_measurement, check_tag_key, check_tag_value
from iggyflux.mapping.examples import check_writer_examples
from iggyflux.mapping.members import warn_unknown_members
from iggyflux.mapping.reading import NOTHING, Reading, check_length, items_of, object_of, scalar_of, texts_of
from iggyflux.mapping.stars import used_paths
from iggyflux.mapping.tables import warn_unused_tables
from iggyflux.mapping.times import read_timestamp
from iggyflux.records import JSON, Scalar
from iggyflux.spec import (
    Collisions,
    Compression,
    Const,
    Destination,
    Field,
    From,
    Limits,
    OnError,
    OnLimit,
    Payload,
    PointSpec,
    Source,
    Star,
    Tag,
    Writer,
)
from iggyflux.values import Cast, FieldType, OnBadValue, bucket_fault, convert, tag_text, with_comma

TYPES = tuple(kind.value for kind in FieldType)
LISTS_OF_ROWS = ("csv", "influx", "avro container")
TEXTS_ONLY = ("csv", "text", "xml", "logfmt")
SCALAR = "a string, a number or a boolean"
_GIVING = {
    FieldType.FLOAT: "a number",
    FieldType.INTEGER: "a number",
    FieldType.UNSIGNED: "a number",
    FieldType.STRING: "a string",
    FieldType.BOOLEAN: "a boolean",
    FieldType.AUTO: SCALAR,
    FieldType.PAYLOAD: SCALAR,
}
_CASTING = {
    **dict.fromkeys((FieldType.FLOAT, FieldType.INTEGER, FieldType.UNSIGNED), "a string or a number"),
    **dict.fromkeys((FieldType.STRING, FieldType.BOOLEAN, FieldType.AUTO, FieldType.PAYLOAD), SCALAR),
}


def read_writer(reading: Reading, name: str) -> Writer:
    """Return the writer of the document; if `reading` has problems afterwards, it must not be used."""
    tree = reading.tree
    invalid_names = reading.choice(tree, "invalid_names", ("fail", "replace"))
    where = reading.expression(tree.get("where"), "/where")
    for_each = reading.for_each(tree.get("for_each"), "/for_each")
    points = tuple(
        _Point(reading, item, pointer, invalid_names == "fail").read()
        for item, pointer in items_of(tree.get("points"), "/points")
    )
    source = read_from(reading, object_of(tree.get("from")))
    check_writer_examples(reading, source.payload)
    warn_unused_tables(reading)
    _warn_missing_for_each(reading, source.payload, bool(for_each) or any(each.for_each for each in points))
    writer = Writer(
        name=name,
        document=reading.document,
        source=source,
        where=where,
        for_each=for_each,
        points=points,
        collisions=Collisions(reading.choice(tree, "collisions", ("error", "merge", "keep_last"))),
        on_error=OnError(reading.choice(tree, "on_error", ("dead_letter", "fail", "skip"))),
        invalid_names=invalid_names,
        tables=reading.tables,
        limits=_read_limits(reading, tree.get("limits")),
    )
    if source.payload.options and not reading.problems:
        from iggyflux.payloads import FORMATS  # decoders are not needed to check most documents

        structure = FORMATS[source.payload.format].structure(source.payload.options)
        if structure is not None:
            warn_unknown_members(reading, writer, structure)
    return writer


def _read_limits(reading: Reading, value: JSON) -> Limits | None:
    tree = object_of(value)
    series = tree.get("series")
    if isinstance(series, bool) or not isinstance(series, int):
        return None
    return Limits(series, cast(OnLimit, reading.choice(tree, "on_limit", ("dead_letter", "warn", "stop"))))


def _warn_missing_for_each(reading: Reading, payload: Payload, has_for_each: bool) -> None:
    """Warn of expressions that read members of a list of rows: without `for_each` they are always null."""
    form = payload.format
    if form == "avro" and not has_for_each:
        from iggyflux.payloads.avro import encoding_of

        form = f"avro {encoding_of(payload.options)}"
    is_list = form in LISTS_OF_ROWS or payload.options.get("framing") == "delimited"
    if is_list and not has_for_each and any(expression.reads.keys for expression in reading.expressions):
        pointer = "/from/payload" if "payload" in object_of(reading.tree.get("from")) else "/from"
        message = f"a payload of {form} is a list of rows; without `for_each` expressions get the list, not a row"
        reading.warn("IFX153", pointer, message, hint="add `for_each: '@'` to render points per row")


_MQTT = re.compile(r"(?:(?<=^)|(?<=/))[+#](?=/|$)")


def read_from(reading: Reading, tree: Mapping[str, JSON]) -> From:
    """Return `from`; the topics are names or globs."""
    topics = texts_of(tree.get("topic"))
    for topic in topics:
        _check_glob(reading, topic, _item("/from/topic", tree.get("topic"), topic))
        if _MQTT.search(topic):
            hint = f"write `*` for any characters: '{_MQTT.sub('*', topic)}'"
            message = "the MQTT wildcards `+` and `#` are ordinary characters here"
            reading.warn("IFX155", _item("/from/topic", tree.get("topic"), topic), message, hint=hint)
        check_length(reading, topic, _item("/from/topic", tree.get("topic"), topic))
    check_length(reading, tree.get("stream"), "/from/stream")
    return From(
        stream=str(tree.get("stream", "")),
        topics=topics,
        payload=replace(_read_payload(reading, tree.get("payload", "json")), compression=_compression(reading, tree)),
        strict=tree.get("strict") is True,
        on_bad_value=_on_bad_value(reading, tree),
    )


def _read_payload(reading: Reading, value: JSON) -> Payload:
    if not isinstance(value, dict):
        return Payload(value if isinstance(value, str) else "json")
    name = value.get("format")
    options = {key: option for key, option in value.items() if key != "format"}
    if not isinstance(name, str):
        return Payload("json")
    if options and not any(pointer.startswith("/from/payload") for pointer in reading.reported):
        from iggyflux.payloads import FORMATS, OptionError  # decoders are not needed to check most documents

        def read(file: str, option: str | None) -> bytes | None:
            return reading.file(file, None if option is None else f"/from/payload/{option}")

        try:
            if name in FORMATS:
                FORMATS[name].check(options)
                options = dict(FORMATS[name].bind(options, read))
        except OptionError as error:
            pointer = f"/from/payload/{error.option}" if error.option else "/from/payload"
            reading.report(error.code, pointer, error.reason, hint=error.hint)
    return Payload(name, options)


def _compression(reading: Reading, tree: Mapping[str, JSON]) -> Compression:
    chosen: Compression = reading.choice(tree, "compression", get_args(Compression))
    if chosen not in ("none", "auto"):
        from iggyflux.payloads.compression import INSTALL, is_missing

        if is_missing(chosen):
            reading.report(
                "IFX180", "/from/compression", f"the package that expands {chosen} is not installed", hint=INSTALL
            )
    return chosen


def _item(pointer: str, items: JSON, item: str) -> str:
    return join_pointer(pointer, items.index(item)) if isinstance(items, list) else pointer


def _check_glob(reading: Reading, glob: str, pointer: str) -> None:
    opened = glob.find("[")
    if opened >= 0 and "]" not in glob[opened + 2 :]:
        hint = "close the set with ]; write [[] for the character ["
        reading.report("IFX127", pointer, "the [ of this glob is not closed", offset=opened, hint=hint)


def _on_bad_value(reading: Reading, tree: Mapping[str, JSON]) -> OnBadValue:
    chosen: OnBadValue = reading.choice(tree, "on_bad_value", ("fail", "omit"))
    return chosen


class _Point:
    """Reads one item of `points`."""

    def __init__(self, reading: Reading, tree: Mapping[str, JSON], pointer: str, strict_names: bool) -> None:
        self.reading = reading
        self.tree = tree
        self.pointer = pointer
        self.strict_names = strict_names

    def read(self) -> PointSpec:
        outside = self.reading.lists
        for_each = self.reading.for_each(self.tree.get("for_each"), self.at("for_each"))
        point = self.of_elements(for_each, in_elements=self.reading.lists > 0)
        self.reading.lists = outside
        return point

    def of_elements(self, for_each: tuple[Expression, ...], *, in_elements: bool) -> PointSpec:
        measurement = self.measurement()
        tags, tag_stars = self.tags()
        fields, field_stars = self.fields()
        timestamp = read_timestamp(self.reading, self.tree, self.pointer, in_elements)
        self.check_clashes(tags, fields)
        # Python compares strings by code points, which is the order of their UTF-8 bytes.
        spec = PointSpec(
            measurement=measurement,
            tags=tuple(sorted(tags, key=lambda tag: tag.key)),
            tag_stars=tuple(tag_stars),
            fields=tuple(sorted(fields, key=lambda field: field.key)),
            field_stars=tuple(field_stars),
            timestamp=timestamp,
            where=self.reading.expression(self.tree.get("where"), self.at("where")),
            pointer=self.pointer,
            for_each=for_each,
            to=self.destination(),
        )
        return replace(
            spec,
            tag_stars=tuple(replace(star, used=used_paths(spec, star, in_elements)) for star in tag_stars),
            field_stars=tuple(replace(star, used=used_paths(spec, star, in_elements)) for star in field_stars),
        )

    def at(self, *parts: str | int) -> str:
        pointer = self.pointer
        for part in parts:
            pointer = join_pointer(pointer, part)
        return pointer

    def measurement(self) -> Source:
        source = self.reading.source(self.tree.get("measurement"), self.at("measurement"), "a string")
        if isinstance(source, Expression):
            literal = literal_value(source)
            if literal is not None and isinstance(literal[0], str) and self.strict_names:
                self.check_name(check_measurement, literal[0], source.location, key=False)
        elif source is not NOTHING:
            place = self.at("measurement", "const")
            if not isinstance(source.value, str):
                hint = f'quote the string: {{const: "{source.value}"}}'
                self.reading.report("IFX123", place, "expected a string as measurement", hint=hint)
            elif self.strict_names:
                self.check_name(check_measurement, source.value, place, key=False)
        return source

    def destination(self) -> Destination | None:
        """Return where the point goes: its own `to`, else that of the document."""
        own = "to" in self.tree
        tree, pointer = object_of((self.tree if own else self.reading.tree).get("to")), self.at("to") if own else "/to"
        for key, value in tree.items():
            place = join_pointer(pointer, key)
            source = self.reading.source(value, place, "a string")
            if source is NOTHING:
                return None
            if isinstance(source, Const):
                fault = bucket_fault(source.value)
                if fault is not None:
                    self.reading.report("IFX122", join_pointer(place, "const"), fault)
            return Destination(source, place)
        return None

    # members of tags and fields

    def members(self, key: str) -> Iterator[tuple[str, JSON, str]]:
        """Yield name, value and pointer of each tag or field; a name in a list is its own expression."""
        value = self.tree.get(key)
        if isinstance(value, dict):
            for name, member in value.items():
                yield name, member, self.at(key, name)
        elif isinstance(value, list):
            for index, item in enumerate(value):
                if isinstance(item, str) and self.at(key, index) not in self.reading.reported:
                    yield item, item, self.at(key, index)

    def check_name(
        self, check: Callable[[str], str], name: str, pointer: str, *, key: bool = True, hint: str | None = None
    ) -> None:
        try:
            check(name)
        except PointError as error:
            reserved = error.code == "IFX314"
            self.reading.report(
                "IFX121" if reserved else "IFX122",
                pointer,
                error.reason,
                key=key,
                hint=hint or ("choose another name" if reserved else None),
            )

    def tags(self) -> tuple[list[Tag], list[Star]]:
        tags: list[Tag] = []
        stars: list[Star] = []
        for name, value, pointer in self.members("tags"):
            if name.endswith("*"):
                stars.append(self.star(name[:-1], value, pointer, is_tag=True))
                continue
            self.check_name(check_tag_key, name, pointer)
            source = self.reading.source(value, pointer, SCALAR)
            options = object_of(value)
            default = scalar_of(options.get("default"))
            if default is not None:
                self.check_tag_text(default, join_pointer(pointer, "default"), "a default")
            if isinstance(source, Const) and source is not NOTHING:
                self.check_tag_text(source.value, join_pointer(pointer, "const"), "a constant")
            required = self.required(options, pointer)
            tags.append(Tag(name, source, default, required, pointer))
        return tags, stars

    def check_tag_text(self, value: Scalar, pointer: str, what: str) -> None:
        try:
            text = tag_text(value)
            if text is None:
                message = f"{what} is empty, so the tag is omitted"
                self.reading.report("IFX123", pointer, message, hint="remove it")
            elif self.strict_names:
                check_tag_value(text)
        except RecordError as error:
            self.reading.report("IFX122", pointer, error.reason)

    def fields(self) -> tuple[list[Field], list[Star]]:
        if "fields" not in self.tree:
            return [], [self.star("", "@", self.pointer, is_tag=False)]
        fields: list[Field] = []
        stars: list[Star] = []
        count = 0
        for name, value, pointer in self.members("fields"):
            count += 1
            if name.endswith("*"):
                stars.append(self.star(name[:-1], value, pointer, is_tag=False))
                continue
            hint = "use `timestamp` for the time of a point" if name == "time" else None
            self.check_name(check_field_key, name, pointer, hint=hint)
            fields.append(self.field(name, value, pointer))
        if not count and isinstance(self.tree["fields"], (dict, list)) and not self.tree["fields"]:
            hint = 'add a field, or omit `fields` to use every member that is not used elsewhere ({"*": "@"})'
            self.reading.report("IFX128", self.at("fields"), "missing fields of the point", key=True, hint=hint)
        return fields, stars

    def field(self, name: str, value: JSON, pointer: str) -> Field:
        options = object_of(value)
        kind = FieldType(self.reading.choice(options, "type", TYPES))
        cast = self.cast(options, kind, pointer)
        source = self.reading.source(value, pointer, _CASTING[kind] if cast else _GIVING[kind])
        default = scalar_of(options.get("default"))
        if default is not None:
            default = self.typed(default, kind, join_pointer(pointer, "default"), "the default")
        if isinstance(source, Const) and source is not NOTHING:
            kind = kind if "type" in options else _type_of(source.value)
            source = Const(self.typed(source.value, kind, join_pointer(pointer, "const"), "the constant"))
        if isinstance(source, Expression) and source.text in TYPES and source.text != name:
            message = f"this expression reads a member named {source.text!r}"
            hint = f"to declare a type write {{expr: {name}, type: {source.text}}}"
            self.reading.warn("IFX152", source.location, message, hint=hint)
        required = self.required(options, pointer)
        return Field(name, source, kind, cast, default, required, pointer, self.on_bad_value(options))

    def cast(self, options: Mapping[str, JSON], kind: FieldType, pointer: str) -> Cast:
        comma = object_of(object_of(self.reading.tree.get("from")).get("payload")).get("decimal") == ","
        cast = options.get("cast")
        if cast and kind is FieldType.PAYLOAD:
            hint = "remove `cast`, or declare `type: auto`"
            message = "`type: payload` takes values as they are, so nothing is converted"
            self.reading.report("IFX181", join_pointer(pointer, "cast"), message, hint=hint)
            return False
        if cast != "numbers":
            return with_comma(cast is True) if comma else cast is True
        if kind is not FieldType.AUTO:
            hint = "write `cast: true`, or declare `type: auto`"
            self.reading.report(
                "IFX125", join_pointer(pointer, "cast"), "`cast: numbers` is for `type: auto`", hint=hint
            )
        return with_comma("numbers") if comma else "numbers"

    def on_bad_value(self, options: Mapping[str, JSON]) -> OnBadValue:
        """Return what a field does with a bad value; `from` says it for all fields."""
        source = object_of(self.reading.tree.get("from"))
        return _on_bad_value(self.reading, options if "on_bad_value" in options else source)

    def typed(self, value: Scalar, kind: FieldType, pointer: str, what: str) -> Scalar:
        """Return `value` as the field's type; report a value of another type."""
        try:
            return convert(value, kind, cast=False)
        except RecordError as error:
            hint = None
            if isinstance(value, str) and re.fullmatch(r"-?[0-9][0-9_]*", value):
                hint = f"this is a string; write the number as {value.replace('_', '')}, without `_` and quotes"
            elif kind is FieldType.FLOAT and isinstance(value, (str, bool)):
                hint = f"declare type: {_type_of(value).value}; the default is float"
            elif kind is FieldType.FLOAT:
                hint = "declare type: integer"
            self.reading.report("IFX123", pointer, f"{what} is not of the field's type: {error.reason}", hint=hint)
            return value

    def required(self, options: Mapping[str, JSON], pointer: str) -> bool:
        required = options.get("required") is True
        if required and "default" in options:
            message = "`required` has no effect with a `default`"
            place = join_pointer(pointer, "required")
            self.reading.report("IFX124", place, message, key=True, hint="remove one of them")
        return required

    def star(self, prefix: str, value: JSON, pointer: str, *, is_tag: bool) -> Star:
        options = object_of(value)
        source: Source = NOTHING
        if pointer == self.pointer:
            source = compile_expression("@", location=pointer)
        elif isinstance(value, dict):
            source = self.reading.expression(value.get("expr"), join_pointer(pointer, "expr"), "an object") or NOTHING
        else:
            source = self.reading.expression(value, pointer, "an object") or NOTHING
        globs = {}
        for key in ("include", "exclude"):
            place = join_pointer(pointer, key)
            globs[key] = texts_of(options.get(key))
            for glob in globs[key]:
                _check_glob(self.reading, glob, _item(place, options.get(key), glob))
        kind = FieldType.AUTO if is_tag else FieldType(self.reading.choice(options, "type", ("auto", *TYPES)))
        if not is_tag and options.get("type") is None and not options.get("cast"):
            self.warn_of_texts(source, pointer)
        flatten = options.get("flatten")
        return Star(
            prefix=prefix,
            source=source,
            flatten=flatten if isinstance(flatten, str) else None,
            include=globs["include"],
            exclude=globs["exclude"],
            used=frozenset(),
            type=kind,
            cast=self.cast(options, kind, pointer),
            pointer=pointer,
            on_bad_value="fail" if is_tag else self.on_bad_value(options),
        )

    def warn_of_texts(self, source: Source, pointer: str) -> None:
        """Warn of a star that writes every value as a string, since the payload has nothing else."""
        payload = object_of(self.reading.tree.get("from")).get("payload")
        form = object_of(payload).get("format", payload)
        if form in TEXTS_ONLY and isinstance(source, Expression) and steps_of(source.node) is not None:
            message = f"every value of a {form} payload is a text, so these fields are strings"
            hint = "set cast: true for numbers and booleans in texts, or type: string"
            self.reading.warn("IFX160", pointer, message, hint=hint)

    def check_clashes(self, tags: list[Tag], fields: list[Field]) -> None:
        names = {tag.key: tag.pointer for tag in tags}
        for field in fields:
            if field.key in names:
                line = self.reading.document.locate(names[field.key], key=True).line
                hint = f"rename one of them; the tag is on line {line}"
                message = f"`{field.key}` is a tag and a field"
                self.reading.report("IFX120", field.pointer, message, key=True, hint=hint)


def _type_of(value: Scalar) -> FieldType:
    """Return the type of a constant without a declared type: numbers are floats."""
    if isinstance(value, bool):
        return FieldType.BOOLEAN
    return FieldType.STRING if isinstance(value, str) else FieldType.FLOAT
