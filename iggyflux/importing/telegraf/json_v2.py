"""Telegraf's `json_v2`: fields, tags and objects by paths of GJSON.

Telegraf walks an object of any shape: a list in it makes a point of each element.  A mapping names its lists, so the
shape is taken from samples; without samples, objects have no lists inside, and the report says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from iggyflux.errors import IggyfluxError
from iggyflux.expressions import compile_expression
from iggyflux.importing.configuration import Part
from iggyflux.importing.draft import Tree
from iggyflux.importing.names import literal, member, text_of
from iggyflux.importing.report import Verdict
from iggyflux.importing.telegraf import metric
from iggyflux.importing.telegraf.gjson import NotExpressed, Step, expression, steps
from iggyflux.importing.telegraf.metric import TYPES
from iggyflux.importing.telegraf.times import time_of
from iggyflux.records import JSON

_TRUE: Final = ["1", "t", "T", "TRUE", "true", "True"]
_FALSE: Final = ["0", "f", "F", "FALSE", "false", "False"]
_NONE: Final = "Telegraf then makes no point"
_COMPACT: Final = "the text is compact JSON; Telegraf keeps the blanks of the message"
MOST_LEVELS: Final = 8
MOST_LEAVES: Final = 400


@dataclass
class Level:
    """A list whose elements make points: where it is (in an element of another level, or in the message)."""

    inside: int
    """The number of the level around it; -1 for the message."""
    path: str
    """Its expression there."""
    is_optional: bool = True
    """Whether there is a point of the other values where the list is empty or missing."""


@dataclass
class Leaf:
    """A value: the level in whose elements it is, and its expression there."""

    level: int
    path: str
    kind: str
    """tag, field or time."""
    name: str = ""
    type: str = ""
    values: Sequence[JSON] = ()
    is_shared: bool = False
    """Whether it is a tag or field of the message, which Telegraf puts into each point of an object."""


@dataclass
class Shape:
    """The levels and values of one point."""

    levels: list[Level] = field(default_factory=list)
    leaves: list[Leaf] = field(default_factory=list)
    where: list[str] = field(default_factory=list)

    def level(self, inside: int, path: str, *, is_optional: bool = True, is_new: bool = False) -> int:
        """Return the number of a level, made if there is none.  Raise NotExpressed if there are too many."""
        for number, each in enumerate(self.levels):
            if (each.inside, each.path) == (inside, path) and not is_new:
                return number
        if len(self.levels) == MOST_LEVELS:
            raise NotExpressed(f"more than {MOST_LEVELS} lists inside each other")
        self.levels.append(Level(inside, path, is_optional))
        return len(self.levels) - 1

    def is_around(self, number: int, other: int) -> bool:
        """Return whether the level `other` is the level `number`, or in its elements."""
        while other > number:
            other = self.levels[other].inside
        return other == number


def evaluated(expression_text: str, documents: Sequence[JSON]) -> list[JSON]:
    """Return the values of an expression in samples, without nulls."""
    found: list[JSON] = []
    try:
        compiled = compile_expression(expression_text)
    except IggyfluxError as error:
        raise NotExpressed(str(error)) from error
    for document in documents:
        try:
            found.append(compiled.evaluate(document))
        except IggyfluxError:
            continue
    return [value for value in found if value is not None]


def points_of(config: Part, name: str, documents: Sequence[JSON]) -> list[Tree]:
    """Return the points of one `json_v2` table; `documents` are samples."""
    measurement: Any = {"const": config.text("measurement_name") or name}
    if "measurement_name" in config:
        config.taken("measurement_name", "`measurement`")
    path = config.text("measurement_name_path")
    if path:
        try:
            measurement = text_of(expression(steps(path)))
            config.taken("measurement_name_path", f"`measurement: {measurement}`")
        except NotExpressed as error:
            config.not_taken("measurement_name_path", f"no expression for {error}")
    time = _time(config)
    shared = Shape()
    for kind in ("tag", "field"):
        for part in config.parts(kind):
            _data_set(part, kind, shared, documents)
    is_alone = not any(leaf.kind == "field" for leaf in shared.leaves)
    made = [_object(part, documents, is_alone=is_alone) for part in config.parts("object")]
    objects = [each for each in made if each is not None]
    trees: list[Tree] = []
    for shape, part in objects:
        whole = Shape([*shape.levels], [*shape.leaves], [*shape.where])
        _add(whole, replace(shared, leaves=[leaf for leaf in shared.leaves if _meets(leaf, shape, part, documents)]))
        trees.append(_tree(config, whole, measurement, _object_time(part, whole) or time))
    if not is_alone:
        alone = Shape([*shared.levels], [*shared.leaves], [*shared.where])
        paths = [expression(steps(part.text("path"))) for _, part in objects]
        if not objects:
            trees.append(_tree(config, alone, measurement, time))
        elif "@" not in paths:
            alone.where.append("!(" + " || ".join(paths) + ")")
            trees.append(_tree(config, alone, measurement, time))
    return trees


def _meets(leaf: Leaf, shape: Shape, part: Part, documents: Sequence[JSON]) -> bool:
    """Return whether a value of the message belongs into the points of an object.

    One that has the name of a tag there, or of a field, does not if no sample has both.
    """
    is_named = any(each.name == leaf.name and each.kind != leaf.kind for each in shape.leaves)
    if not is_named or leaf.level >= 0 or not documents:
        return True
    text = expression(steps(part.text("path")))
    return any(any(evaluated(text, [each])) and evaluated(leaf.path, [each]) for each in documents)


def _add(shape: Shape, other: Shape) -> None:
    """Put the levels and values of `other` into a shape: each combination of their elements is a point."""
    offset = len(shape.levels)
    for level in other.levels:
        if len(shape.levels) == MOST_LEVELS:
            return
        inside = level.inside + offset if level.inside >= 0 else -1
        shape.levels.append(Level(inside, level.path, level.is_optional))
    for leaf in other.leaves:
        if leaf.level + offset < len(shape.levels) or leaf.level < 0:
            moved = replace(leaf)
            moved.level = leaf.level + offset if leaf.level >= 0 else -1
            moved.is_shared = True
            shape.leaves.append(moved)


# --- values of the message ---


def _time(config: Part) -> Tree | None:
    path, layout = config.text("timestamp_path"), config.text("timestamp_format")
    if not path:
        config.not_needed("timestamp_format", "timestamp_timezone", because="without effect but for `timestamp_path`")
        return None
    try:
        text = expression(steps(path))
    except NotExpressed as error:
        config.not_taken("timestamp_path", f"no expression for {error}")
        return None
    made = time_of(text, layout, config.text("timestamp_timezone"))
    if made is None:
        config.not_taken("timestamp_format", "no format of ours is the same; the time of the message is used")
        config.not_taken("timestamp_path", "see `timestamp_format`")
        return None
    config.taken("timestamp_path", f"`timestamp: {{expr: {text}}}`")
    config.taken("timestamp_format", f"`timestamp.format: {made['format']}`")
    if "timestamp_timezone" in config:
        config.taken("timestamp_timezone", "`timestamp.timezone`")
    return made


def _data_set(part: Part, kind: str, shape: Shape, documents: Sequence[JSON]) -> None:
    """Put a tag or field of the message into a shape."""
    path = part.text("path")
    try:
        parsed = steps(path)
    except NotExpressed as error:
        part.not_taken(None, f"no expression for {error}")
        return
    if not parsed:
        part.not_taken(None, "the whole message cannot be a tag or field")
        return
    name, levels = part.text("rename") or path.split(".")[-1], len(shape.levels)
    try:
        leaf = _resolved(shape, -1, parsed, documents, is_text=part.text("type") == "string", is_new=True)
    except NotExpressed as error:
        part.not_taken(None, f"no expression for {error}")
        return
    leaf.kind, leaf.name = kind, name.replace(" ", "_")
    if kind == "field":
        leaf.type = part.text("type")
    if all(isinstance(value, dict) for value in leaf.values) and leaf.values and part.text("type") != "string":
        is_listed = leaf.level >= 0
        part.not_taken(
            None,
            "a list of objects: make it an `object`" if is_listed else "it is an object, which Telegraf ignores here",
        )
        del shape.levels[levels:]
        return
    shape.leaves.append(leaf)
    part.taken("path", f"`{kind}s: {{{leaf.name}: …}}`" + (" for each element" if leaf.level >= 0 else ""))
    is_compact = part.text("type") == "string" and any(isinstance(value, dict | list) for value in leaf.values)
    if is_compact:
        part.approximated("type", _COMPACT)
    elif any(isinstance(value, dict) for value in leaf.values):
        part.approximated(None, "an element that is an object fails; Telegraf takes its members")
    _options_taken(part, "rename", "optional", *() if is_compact else ("type",))


def _options_taken(part: Part, *keys: str) -> None:
    became = {
        "rename": "the name",
        "type": "`type`, with the conversion that samples need",
        "optional": "a value that is missing is left out",
    }
    for key in keys:
        if key in part:
            part.taken(key, became[key])


def _resolved(
    shape: Shape, level: int, parsed: list[Step], documents: Sequence[JSON], *, is_text: bool, is_new: bool = False
) -> Leaf:
    """Return the value at a path, with a level for each list on the way, and one for a list at the end.

    If `is_new`, none of them is that of another value: Telegraf then combines all elements of the two lists.
    """
    at = max((n for n, step in enumerate(parsed) if step.kind in ("each", "all")), default=-1)
    rest = parsed
    if at >= 0 and is_text:
        text = expression(parsed)
        return Leaf(level, text, "", values=evaluated(text, documents) or [[]])
    if at >= 0:
        end = len(parsed) if is_new else at + 1  # elements without the value are none of the list's
        level = shape.level(level, expression(parsed[:end]), is_new=is_new)
        rest = parsed[end:]
        values = evaluated(expression(parsed[:end]), documents)
        documents = [item for value in values if isinstance(value, list) for item in value]
    text = expression(rest)
    values = evaluated(text, documents)
    while not is_text and any(isinstance(value, list) for value in values):
        if is_new and text == "@":
            shape.levels[level].path += "[]"  # without those that are empty
        else:
            level, text = shape.level(level, _as_list(text, values), is_new=is_new), "@"
        values = _elements(values)
    return Leaf(level, text, "", values=values)


def _as_list(path: str, values: Sequence[JSON]) -> str:
    return path if all(isinstance(value, list) for value in values) else f"to_array({path})"


def _elements(values: Sequence[JSON]) -> list[JSON]:
    found: list[JSON] = []
    for value in values:
        found += value if isinstance(value, list) else [value]
    return [value for value in found if value is not None]


# --- objects ---


@dataclass
class _Walk:
    """What an `object` says about the names in it."""

    part: Part
    shape: Shape
    tags: list[str]
    included: list[str]
    excluded: list[str]
    renames: dict[str, Any]
    types: dict[str, Any]
    time_key: str
    is_short: bool

    def is_included(self, name: str, values: Sequence[JSON]) -> bool:
        if name in self.excluded:
            return False
        if not self.included:
            return True
        wanted = [*self.included, *self.tags]
        is_nested = any(isinstance(value, dict | list) for value in values)
        return name in wanted or (is_nested and any(each.startswith(name) for each in wanted))

    def put(self, level: int, path: str, name: str, key: str, kind: str, of_type: str, values: Sequence[JSON]) -> None:
        """Put a value into the shape, under its name or its new one."""
        if name == self.time_key:
            self.shape.leaves.append(Leaf(level, path, "time", name, values=values))
            return
        shown = str(self.renames.get(name, key if self.is_short else name))
        if any((leaf.kind, leaf.name) == (kind, shown) for leaf in self.shape.leaves):
            both = (
                f"`{shown}` is made of two members: where a message has both, of the one that is later in the samples"
            )
            self.part.approximated(None, f"{both}, in Telegraf in the message")
        if len(self.shape.leaves) < MOST_LEAVES:
            self.shape.leaves.append(Leaf(level, path, kind, shown, of_type, values))

    def walk(self, level: int, path: str, values: Sequence[JSON], name: str, of_type: str, depth: int = 0) -> None:
        """Put all that is in objects into the shape."""
        objects = [value for value in values if isinstance(value, dict)]
        keys = list(dict.fromkeys(key for value in objects for key in value))[:MOST_LEAVES]
        for key in keys:
            found = [value[key] for value in objects if value.get(key) is not None]
            plain = key.replace(" ", "_")
            inner = f"{name}_{plain}" if name else plain
            if not found or not self.is_included(inner, found) or depth > 30:
                continue
            here = f"{path}.{member(key)}".removeprefix(".") if path != "@" else member(key)
            self.value(level, here, found, inner, plain, str(self.types.get(inner, of_type)), depth)

    def value(self, level: int, path: str, found: list[JSON], name: str, key: str, of_type: str, depth: int) -> None:
        kind = "tag" if name in self.tags else "field"
        is_list = any(isinstance(value, list) for value in found)
        if of_type == "string" and any(isinstance(value, dict | list) for value in found) and is_list:
            self.part.approximated("fields", f"`{name}`: {_COMPACT}")
            self.put(level, path, name, key, kind, of_type, found)
            return
        if is_list:
            inner, path = level, path
            while any(isinstance(value, list) for value in found):
                inner = self.shape.level(inner, _as_list(path, found))
                found, path = _elements(found), "@"
            level = inner
        if any(isinstance(value, dict) for value in found):
            leaves, levels = len(self.shape.leaves), len(self.shape.levels)
            self.walk(level, path, found, name, of_type, depth + 1)
            if self.included and is_list and path == "@" and levels == len(self.shape.levels):
                self.choose(self.shape.levels[level], self.shape.leaves[leaves:], found)
            if name in self.included and leaves == len(self.shape.leaves):
                self.part.approximated(
                    "included_keys", f"`{name}` is an object without a member that is named: {_NONE}"
                )
        scalars = [value for value in found if not isinstance(value, dict)]
        if 0 < len(scalars) < len(found):
            self.part.approximated(None, f"`{name}` is an object in some samples: those fail, or the others")
        if scalars:
            self.put(level, path, name, key, kind, of_type, scalars)

    def choose(self, level: Level, leaves: list[Leaf], elements: list[JSON]) -> None:
        """Leave out the elements of a list that have none of these values: Telegraf makes no point of them."""
        if not leaves:
            return
        paths = ", ".join(leaf.path for leaf in leaves)
        test = f"not_null({paths})"
        if len(evaluated(test, elements)) < len(elements):
            level.path = f"{level.path}[?{test} != `null`]"


def _object(part: Part, documents: Sequence[JSON], *, is_alone: bool) -> tuple[Shape, Part] | None:
    """Return the shape of an object; None if nothing of it can be expressed.

    `is_alone` says that its points have nothing else.
    """
    try:
        parsed = steps(part.text("path"))
        text = expression(parsed)
        values = evaluated(text, documents)
    except NotExpressed as error:
        part.not_taken(None, f"no expression for {error}")
        return None
    shape = Shape()
    walk = _Walk(
        part,
        shape,
        part.texts("tags"),
        part.texts("included_keys"),
        part.texts("excluded_keys"),
        part.part("renames").tree,
        part.part("fields").tree,
        part.text("timestamp_key"),
        part.flag("disable_prepend_keys"),
    )
    sub_paths = _sub_paths(part)
    level, here = -1, text
    is_list = any(isinstance(value, list) for value in values) or any(step.kind in ("each", "all") for step in parsed)
    try:
        if is_list:
            level, here = shape.level(-1, _as_list(text, values) if documents else text, is_optional=False), "@"
            elements = [item for value in values if isinstance(value, list) for item in value]
            values = _elements(values)
            while any(isinstance(item, dict) for value in values if isinstance(value, list) for item in value):
                level, values = shape.level(level, _as_list("@", values), is_optional=False), _elements(values)
        elif not documents:
            level, here = shape.level(-1, f"to_array({text})[]", is_optional=False), "@"
        for kind, each in sub_paths:
            _sub_path(walk, kind, each, level, here, values)
        if not sub_paths and documents:
            walk.walk(level, "" if here == "@" else here, values, "", "")
            if is_list and is_alone and len(shape.levels) == 1:
                walk.choose(shape.levels[level], [leaf for leaf in shape.leaves if leaf.kind == "field"], elements)
        elif not sub_paths:
            _without_samples(walk, level, here)
    except NotExpressed as error:
        part.not_taken(None, f"no expression for {error}")
        return None
    if documents and not shape.leaves:
        part.not_taken(None, "no sample has an object with values there; Telegraf ignores other values")
        return None
    if level < 0 and text != "@":
        shape.where.append(text)
    if any(_is_long(value) for leaf in shape.leaves if leaf.kind == "tag" for value in leaf.values):
        part.remark(Verdict.APPROXIMATED, "json_v2.object.tags", "a number as a tag is 2643743, not 2.643743e+06")
    _tell_object(part, documents, is_listed=bool(sub_paths))
    return shape, part


def _is_long(value: JSON) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) >= 1_000_000


def _sub_paths(part: Part) -> list[tuple[str, Part]]:
    """Return the tags and fields of an object; of one path Telegraf takes the first, a field before a tag."""
    found: list[tuple[str, Part]] = []
    paths: set[str] = set()
    for kind in ("field", "tag"):
        for each in part.parts(kind):
            if each.text("path") in paths:
                each.not_taken(None, "as in Telegraf, which takes one value of each path: a field before a tag")
                continue
            paths.add(each.text("path"))
            found.append((kind, each))
    return sorted(found, key=lambda pair: pair[0], reverse=True)


def _sub_path(walk: _Walk, kind: str, part: Part, level: int, here: str, values: Sequence[JSON]) -> None:
    """Put a tag or field of an object, given by a path in it, into the shape."""
    try:
        parsed = steps(part.text("path"))
    except NotExpressed as error:
        part.not_taken(None, f"no expression for {error}")
        return
    if not parsed:
        part.not_taken(None, "the whole object cannot be a tag or field")
        return
    if level >= 0 and parsed[0].kind == "each":
        parsed = parsed[1:]
    start = steps("") if here == "@" else []
    leaf_values = [value for value in values if isinstance(value, dict)]
    whole = [*start, *parsed]
    of_type = part.text("type") if kind == "field" else ""
    found = evaluated(expression(whole), leaf_values)
    while any(isinstance(value, list) for value in found):
        found = _elements(found)
    if found and all(isinstance(value, dict) for value in found):
        part.not_taken(None, "it is an object, which Telegraf ignores here, or a list of them: name their members")
        return
    if here != "@":
        whole_shape = _resolved(walk.shape, level, parsed, leaf_values, is_text=False)
        if whole_shape.level == level:
            whole_shape.path = f"{here}.{whole_shape.path}"
        else:
            _move_first(walk.shape, level, here)
    else:
        whole_shape = _resolved(walk.shape, level, whole, leaf_values, is_text=False)
    keys = [step.text for step in parsed if step.kind == "key"] or ["value"]
    name = "_".join(key.replace(" ", "_") for key in keys)
    shown = part.text("rename") or walk.renames.get(name) or (keys[-1] if walk.is_short else name)
    whole_shape.kind, whole_shape.name, whole_shape.type = kind, str(shown).replace(" ", "_"), of_type
    walk.shape.leaves.append(whole_shape)
    part.taken("path", f"`{kind}s: {{{whole_shape.name}: …}}`")
    _options_taken(part, "rename", "type", "optional")


def _move_first(shape: Shape, level: int, here: str) -> None:
    """Let the newest lists that are directly in the object begin at its path in the message."""
    for each in shape.levels:
        if each.inside == level and not each.path.startswith(here):
            each.path = f"{here}.{each.path}"


def _without_samples(walk: _Walk, level: int, here: str) -> None:
    """Put the names that the object itself names into the shape; a star takes the rest."""
    base = "" if here == "@" else f"{here}."
    named = [*walk.tags, *walk.included, *walk.types, *walk.renames, *([walk.time_key] if walk.time_key else [])]
    for name in dict.fromkeys(named):
        if name in walk.excluded:
            continue
        kind = "tag" if name in walk.tags else "field"
        key = name.rsplit("_", 1)[-1] if walk.is_short else name
        walk.put(level, f"{base}{_nested(name)}", name, key, kind, str(walk.types.get(name, "")), ())
    if not walk.included:
        left_out = (glob for name in walk.excluded for glob in (name, f"{name}_*"))
        walk.shape.leaves.append(Leaf(level, here, "star", values=[*dict.fromkeys([*named, *left_out])]))


def _nested(name: str) -> str:
    """Return the expression of a name that may be that of a key, or of nested keys joined by `_`."""
    parts = name.split("_")
    return (
        member(name)
        if len(parts) == 1 or not all(parts)
        else f"coalesce({member(name)}, {'.'.join(map(member, parts))})"
    )


def _tell_object(part: Part, documents: Sequence[JSON], *, is_listed: bool) -> None:
    part.taken("path", "`for_each`, or the beginning of the expressions")
    told = part.taken if documents or is_listed else part.approximated
    left_out = "tags and fields that are left out"
    if not documents and not is_listed:
        left_out += ", with all whose names go on with `_`, inside them or not"
    for key, became in (
        ("tags", "`tags`"),
        ("included_keys", "the tags and fields that are named"),
        ("excluded_keys", left_out),
        ("renames", "the names"),
        ("fields", "`type`, with the conversion that samples need"),
        ("optional", "`where`, or a list without elements"),
        ("disable_prepend_keys", "the names"),
    ):
        if key in part:
            told(key, became if documents or is_listed else f"{became}; lists inside are not known: give --samples")
    if not documents and not is_listed:
        part.approximated("path", "`for_each` with a star: lists inside are not known: give --samples")


def _object_time(part: Part, shape: Shape) -> Tree | None:
    key = part.text("timestamp_key")
    if not key:
        return None
    leaf = next((leaf for leaf in shape.leaves if leaf.kind == "time"), None)
    if leaf is None:
        part.not_taken("timestamp_key", "no sample has it")
        return None
    made = time_of(_reference(shape, leaf), part.text("timestamp_format"), part.text("timestamp_timezone"))
    if made is None:
        part.not_taken("timestamp_format", "no format of ours is the same; the time of the message is used")
        part.not_taken("timestamp_key", "see `timestamp_format`")
        return None
    part.taken("timestamp_key", "`timestamp.expr`")
    part.taken("timestamp_format", f"`timestamp.format: {made['format']}`")
    if "timestamp_timezone" in part:
        part.taken("timestamp_timezone", "`timestamp.timezone`")
    return made


# --- the tree of a point ---


def _tree(config: Part, shape: Shape, measurement: Any, time: Tree | None) -> Tree:
    """Return the point of a shape."""
    point: Tree = {"measurement": measurement}
    if shape.levels:
        lists = [_list_of(shape, number) for number in range(len(shape.levels))]
        point["for_each"] = lists[0] if len(lists) == 1 else lists
    if shape.where:
        conditions = [_from_message(shape, each) for each in shape.where]
        point["where"] = conditions[0] if len(conditions) == 1 else " && ".join(f"({each})" for each in conditions)
    if isinstance(measurement, str):
        point["measurement"] = (
            measurement if not shape.levels else measurement.replace("format('{}', ", "format('{}', root().")
        )
    point["tags"], point["fields"] = {}, {}
    for leaf in shape.leaves:
        text = _reference(shape, leaf)
        kinds = {"tag": "tags", "field": "fields"}
        before = point[kinds[leaf.kind]].get(leaf.name) if leaf.kind in kinds else None
        if leaf.is_shared and before is not None:
            text = f"coalesce({text}, {before['expr'] if leaf.kind == 'field' else before})"
        if leaf.kind == "tag":
            is_nested = any(isinstance(value, dict | list) for value in leaf.values)
            metric.put(point, "tags", leaf.name, text_of(text) if is_nested else text)
        elif leaf.kind == "field":
            made = converted(text, leaf.type, leaf.values)
            if before is not None and before["type"] != made["type"]:
                became = f"`{leaf.name}` is made of two values with different types, and has the type of the message's"
                config.approximated(None, became)
            metric.put(point, "fields", leaf.name, made)
        elif leaf.kind == "star":
            star: Tree = {"expr": text, "flatten": "_"}
            if leaf.values:
                star["exclude"] = [*leaf.values]
            point["fields"]["*"] = star
    _keep_apart(config, point)
    if time is not None:
        text = time["expr"]
        is_own = any(leaf.kind == "time" for leaf in shape.leaves)
        point["timestamp"] = time if is_own else {**time, "expr": _from_message(shape, text)}
    return point


def _keep_apart(config: Part, point: Tree) -> None:
    """Give fields with the name of a tag another one."""
    for name in [name for name in point["tags"] if name in point["fields"]]:
        other = name
        while other in point["tags"] or other in point["fields"]:
            other += "_field"
        became = f"`{other}`, since a point has a tag of that name; `rename` one of them"
        config.approximated(None, f"the field `{name}` becomes {became}")
        point["fields"][other] = point["fields"].pop(name)


def _list_of(shape: Shape, number: int) -> str:
    level = shape.levels[number]
    path = level.path
    if number:
        distance = number - 1 - level.inside
        if level.inside < 0:
            path = _after("root()", path)
        elif distance:
            path = _after(f"parent(`{distance}`)" if distance > 1 else "parent()", path)
    has_others = any(leaf.kind == "field" and not shape.is_around(number, leaf.level) for leaf in shape.leaves)
    return f"{path} || `[null]`" if level.is_optional and has_others else path


def _after(start: str, path: str) -> str:
    """Return a path that begins at another value."""
    if path == "@":
        return start
    for function in ("to_array(", "coalesce(", "("):
        if path.startswith(function):
            inside = path.removeprefix(function)
            if function == "coalesce(":
                first, _, second = inside.partition(", ")
                return f"coalesce({_after(start, first)}, {_after(start, second)}"
            return f"{function}{_after(start, inside)}"
    return f"{start}{path}" if path.startswith("[") else f"{start}.{path}"


def _from_message(shape: Shape, path: str) -> str:
    if not shape.levels:
        return path
    if path.startswith("!("):
        return "!(" + " || ".join(_after("root()", each) for each in path[2:-1].split(" || ")) + ")"
    return _after("root()", path)


def _reference(shape: Shape, leaf: Leaf) -> str:
    """Return the expression of a value from the innermost element."""
    innermost = len(shape.levels) - 1
    if leaf.level == innermost:
        return leaf.path
    if leaf.level < 0:
        return _after("root()", leaf.path)
    distance = innermost - leaf.level
    return _after(f"parent(`{distance}`)" if distance > 1 else "parent()", leaf.path)


_JSON: Final = re.compile(r"-?(?:0(?![0-9])|[1-9])[0-9.eE+-]*\Z")
"""What may be a number of JSON; Go reads `+7` and `07` as well."""


def converted(text: str, of_type: str, values: Sequence[JSON]) -> Tree:
    """Return the field of a value with a type of Telegraf; samples say what has to be converted."""
    made = TYPES.get(of_type, "auto")
    kinds = set(_kinds(values))
    whole = text
    if made in ("integer", "unsigned", "float") and any(
        isinstance(each, str) and not _JSON.match(each) for each in values
    ):
        text = whole = f"parse_number({text}, {text}, 'lenient')"
    if made in ("integer", "unsigned"):
        if "fraction" in kinds:
            whole = f"if(is_number({text}), if({text} < `0`, ceil({text}), floor({text})), {text})"
        if "boolean" in kinds:
            whole = f"if(is_boolean({text}), if({text}, `1`, `0`), {whole})"
    elif made == "boolean":
        if "string" in kinds:
            no = f"if(contains({literal(list(_FALSE))}, {text}), `false`, {text})"
            whole = f"if(is_string({text}), if(contains({literal(list(_TRUE))}, {text}), `true`, {no}), {whole})"
        if kinds & {"integer", "float"}:
            no = f"if({text} == `0`, `false`, {text})"
            whole = f"if(is_number({text}), if({text} == `1`, `true`, {no}), {whole})"
    elif made == "string" and kinds & {"object", "array"}:
        whole = text_of(text)
    return {"expr": whole, "type": made} | ({} if made == "auto" else {"cast": True})


def _kinds(values: Sequence[JSON]) -> Iterator[str]:
    for value in values:
        if isinstance(value, bool):
            yield "boolean"
        elif isinstance(value, int):
            yield "integer"
        elif isinstance(value, float):
            yield "float"
            if not value.is_integer():
                yield "fraction"
        elif isinstance(value, str):
            yield "string"
        else:
            yield "array" if isinstance(value, list) else "object"
