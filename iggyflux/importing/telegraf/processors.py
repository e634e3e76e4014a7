"""Telegraf's processors as changes of points: one function a processor, in the table `PROCESSORS`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from iggyflux.importing.configuration import Part
from iggyflux.importing.draft import Draft, Tree
from iggyflux.importing.names import literal, string, text_of
from iggyflux.importing.telegraf import metric
from iggyflux.importing.telegraf.times import time_of


@dataclass
class Step:
    """One processor of the file."""

    kind: str
    part: Part
    was_applied: bool = field(default=False)


def in_order(processors: Part) -> list[Step]:
    """Return the processors in the order in which they run: by `order`, then as the file has them."""
    steps = [Step(kind, part) for kind, parts in processors.children() for part in parts]
    for step in steps:
        step.part.not_needed("order", "alias", because="the steps are written in this order")
    return sorted(steps, key=lambda step: (step.part.get("order", int) or 0, step.part.whole.line(step.part.pointer)))


def apply(step: Step, draft: Draft) -> None:
    """Change the points of a mapping as a processor does."""
    change = PROCESSORS.get(step.kind)
    if change is None:
        return
    for point in draft.points:
        name = metric.name_of(point)
        globs, drops = step.part.texts("namepass"), step.part.texts("namedrop")
        if name is not None and ((globs and not metric.matches(name, globs)) or metric.matches(name, drops)):
            continue
        step.was_applied = True
        change(step.part, point, draft.tree)
    for key in ("namepass", "namedrop"):
        if key in step.part:
            step.part.taken(key, "decided here for constant measurements")
    for key in ("tagpass", "tagdrop", "metricpass", "fieldinclude", "fieldexclude", "taginclude", "tagexclude"):
        step.part.ignored(key, because="the processor changes all points")


def close(steps: list[Step]) -> None:
    """Report the processors that are not known, and those that had nothing to do."""
    for step in steps:
        if step.kind not in PROCESSORS:
            step.part.not_taken(None, f"no conversion of the processor {step.kind}: write it as expressions")
        elif not step.was_applied:
            step.part.not_taken(None, "no mapping has such a measurement")


# --- the processors ---


def _rename(part: Part, point: Tree, tree: Tree) -> None:  # noqa: ARG001
    for each in part.parts("replace"):
        new = each.text("dest")
        if not new:
            each.not_taken(None, "it has no `dest`")
            continue
        for key, table in (("measurement", ""), ("tag", "tags"), ("field", "fields")):
            old = each.text(key)
            if not old:
                continue
            done = False
            if table:
                done = metric.rename(point, table, old, new)
            elif metric.name_of(point) == old:
                point["measurement"], done = {"const": new}, True
            elif metric.name_of(point) is None:
                text = metric.measurement_expression(point)
                point["measurement"], done = f"if({text} == {string(old)}, {string(new)}, {text})", True
            if done:
                each.taken(key, f"the name `{new}`")
                each.taken("dest", f"the name `{new}`")


def _converter(part: Part, point: Tree, tree: Tree) -> None:  # noqa: ARG001
    for source in ("tags", "fields"):
        table = part.part(source)
        layout = table.text("timestamp_format")
        for target in table.tree:
            if target == "timestamp_format":
                continue
            for glob in table.texts(target):
                for key in metric.each_key(point, source, glob):
                    _convert(table, point, source, key, target, layout)
        if "timestamp_format" in table:
            table.taken("timestamp_format", "`timestamp.format`")


def _convert(table: Part, point: Tree, source: str, key: str, target: str, layout: str) -> None:
    value = point["tags"].get(key) if source == "tags" else metric.field_of(point, key)
    if value is None:
        return
    text = metric.expression_of(value)
    of_type = metric.TYPES.get(target)
    if target == "tag":
        metric.exclude(point, source, [key])
        point["tags"][key] = text
    elif target == "measurement":
        metric.exclude(point, source, [key])
        before = metric.measurement_expression(point)
        point["measurement"] = f"coalesce({text_of(text)}, {before})"
    elif target == "timestamp":
        time = time_of(text, layout or "unix", "")
        if time is None:
            table.not_taken(target, "no format of ours is the same")
            return
        metric.exclude(point, source, [key])
        point["timestamp"] = time
    elif of_type is None:
        table.not_taken(target, "no conversion to it: write an expression")
        return
    else:
        metric.exclude(point, source, [key])
        made: Tree = {"expr": text, "type": of_type}
        if not (source == "tags" and of_type == "string"):
            made["cast"] = True
        point["fields"][key] = made
    if target in ("integer", "unsigned", "boolean"):
        table.approximated(target, "`cast: true`, which loses nothing: a fraction fails where Telegraf rounds it")
    elif target == "float" and not _is_no_text(value):
        table.approximated(target, "`cast: true`: other texts than numbers fail; Telegraf leaves the field out")
    else:
        table.taken(target, f"`{key}`")


def _regex(part: Part, point: Tree, tree: Tree) -> None:  # noqa: ARG001
    for source in ("tags", "fields"):
        for each in part.parts(source):
            for glob in each.texts("key"):
                for key in metric.each_key(point, source, glob):
                    _regex_value(each, point, source, key)
    for name, source in (("tag_rename", "tags"), ("field_rename", "fields")):
        for each in part.parts(name):
            pattern, replacement = each.text("pattern"), metric.go_replacement(each.text("replacement"))
            for key in [key for key in point[source] if not key.endswith("*")]:
                new = metric.regex_applied(pattern, replacement, key)
                if (
                    new is not None
                    and new != key
                    and (new not in point[source] or each.text("result_key") == "overwrite")
                ):
                    metric.rename(point, source, key, new)
            has_star = any(key.endswith("*") for key in point[source])
            (each.approximated if has_star else each.taken)(
                None, "named tags and fields have their new names" + ("; those of the star keep theirs" * has_star)
            )
    for each in part.parts("metric_rename"):
        name_now = metric.name_of(point)
        pattern, replacement = each.text("pattern"), metric.go_replacement(each.text("replacement"))
        if name_now is not None:
            new = metric.regex_applied(pattern, replacement, name_now)
            point["measurement"] = {"const": new or name_now}
        else:
            text = metric.measurement_expression(point)
            point["measurement"] = f"regex_replace({text}, {string(pattern)}, {string(replacement)})"
        each.taken(None, "`measurement`")


def _regex_value(part: Part, point: Tree, source: str, key: str) -> None:
    value = point["tags"].get(key) if source == "tags" else metric.field_of(point, key)
    if value is None:
        return
    if _is_no_text(value):
        part.not_needed(*part.tree, because=_NO_TEXT)
        return
    text = metric.expression_of(value)
    if source == "tags" or "const" not in (value if isinstance(value, dict) else {}):
        text = _text_of(text, source)
    pattern = part.text("pattern")
    if "replacement" not in part:
        metric.keep(point, source, key)
        for name in re.findall(r"\(\?P?<([A-Za-z_]\w*)>", pattern):
            made = f"regex_capture({text}, {string(pattern)}, {string(name)})"
            metric.put(point, source, name, made if source == "tags" else {"expr": made, "type": "string"})
        part.taken(None, "a value for each named group")
        return
    replacement = metric.go_replacement(part.text("replacement"))
    made = f"regex_replace({text}, {string(pattern)}, {string(replacement)})"
    target = part.text("result_key") or key
    if target != key:
        metric.keep(point, source, key)
    if target != key or part.flag("append"):
        made = f"if(regex_match({text}, {string(pattern)}), {made})"
    if part.flag("append"):
        before = _text_of(metric.expression_of(point[source][target]), source) if target in point[source] else ""
        made = f"coalesce(format('{{}}{{}}', {before}, {made}), {made}, {before})" if before else made
    metric.put(point, source, target, made if source == "tags" else {"expr": made, "type": "string"}, instead_of=key)
    part.taken(None, f"`{source}: {{{target}: regex_replace(…)}}`")


_NO_TEXT: Final = "the field is not a text, and Telegraf leaves it alone"


def _is_no_text(value: Any) -> bool:
    """Return whether a field is a number or a boolean in every message: then functions of texts do nothing."""
    return isinstance(value, dict) and value.get("type") in ("float", "integer", "unsigned", "boolean")


def _text_of(text: str, source: str) -> str:
    return text_of(text) if source == "tags" else text


def _enum(part: Part, point: Tree, tree: Tree) -> None:
    for each in part.parts("mapping"):
        table = each.part("value_mappings").tree
        if not table:
            each.not_taken(None, "it has no `value_mappings`")
            continue
        for source, old in (("tags", "tag"), ("fields", "field")):
            for glob in [*each.texts(source), *each.texts(old)]:
                for key in metric.each_key(point, source, glob):
                    _enum_value(each, point, tree, source, key, table)


def _enum_value(part: Part, point: Tree, tree: Tree, source: str, key: str, table: Tree) -> None:
    value = point["tags"].get(key) if source == "tags" else metric.field_of(point, key)
    if value is None:
        return
    text = metric.expression_of(value)
    name = re.sub(r"\W", "_", key) or "values"
    tables: Tree = tree.setdefault("tables", {})
    while name in tables and tables[name] != table:
        name += "_"
    tables[name] = dict(table)
    target = part.text("dest") or key
    if target != key:
        metric.keep(point, source, key)
    otherwise = part.tree.get("default")
    if otherwise is None and target == key:
        made = f"lookup({string(name)}, {text}, {text})"
    elif otherwise is None:
        made = f"lookup({string(name)}, {text})"
    else:
        made = f"if(is_null({text}), `null`, lookup({string(name)}, {text}, {literal(otherwise)}))"
    kinds = {type(each) for each in [*table.values(), *([otherwise] if otherwise is not None else [])]}
    of_type = {int: "integer", float: "float", bool: "boolean", str: "string"}.get(next(iter(kinds)), "auto")
    if len(kinds) > 1:
        of_type = "auto"
    metric.put(point, source, target, made if source == "tags" else {"expr": made, "type": of_type}, instead_of=key)
    is_open = otherwise is None and target == key and of_type != "string" and source == "fields"
    are_mixed = len(kinds) > 1 and int in kinds and source == "fields"
    told = part.approximated if is_open or are_mixed else part.taken
    differs = "; a value that is not in it fails" * is_open + "; integers are floats beside other types" * are_mixed
    told(None, f"`lookup` in `tables.{name}`{differs}")


_STRINGS: Final[dict[str, Callable[[Part, str], str | None]]] = {
    "lowercase": lambda _, text: f"lower({text})",
    "uppercase": lambda _, text: f"upper({text})",
    "trim": lambda part, text: _trimmed("trim", part, text),
    "trim_left": lambda part, text: _trimmed("trim_left", part, text),
    "trim_right": lambda part, text: _trimmed("trim_right", part, text),
    "trim_prefix": lambda part, text: f"regex_replace({text}, {string('^' + re.escape(part.text('prefix')))}, '')",
    "trim_suffix": lambda part, text: f"regex_replace({text}, {string(re.escape(part.text('suffix')) + '$')}, '')",
    "replace": lambda part, text: f"replace({text}, {string(part.text('old'))}, {string(part.text('new'))})",
    "left": lambda part, text: f"substring({text}, `0`, `{max(part.get('width', int) or 0, 0)}`)",
    "base64decode": lambda _, text: f"base64_decode({text})",
}


def _trimmed(function: str, part: Part, text: str) -> str:
    cutset = part.text("cutset")
    return f"{function}({text}, {string(cutset)})" if cutset else f"{function}({text})"


def _strings(part: Part, point: Tree, tree: Tree) -> None:  # noqa: ARG001
    for kind, parts in part.children():
        for each in parts:
            change = _STRINGS.get(kind)
            if change is None:
                each.not_taken(None, f"no function for {kind}")
                continue
            for place, key in _places(each, point):
                _string_value(each, point, change, place, key)


def _places(part: Part, point: Tree) -> Iterator[tuple[str, str]]:
    """Yield what a step of `strings` changes: a tag, a field, the measurement, or a name."""
    for word in ("tag", "field", "measurement", "tag_key", "field_key"):
        glob = part.text(word)
        if not glob:
            continue
        if word == "measurement":
            yield word, glob
            continue
        source = "tags" if word.startswith("tag") else "fields"
        for key in metric.each_key(point, source, glob):
            yield word, key


def _string_value(part: Part, point: Tree, change: Callable[[Part, str], str | None], place: str, key: str) -> None:
    if place == "measurement":
        name = metric.name_of(point)
        if key not in ("*", name) and name is not None:
            return
        made = change(part, metric.measurement_expression(point))
        point["measurement"] = _constant(made) or made
    elif place.endswith("_key"):
        source = "tags" if place == "tag_key" else "fields"
        new = _constant(change(part, string(key)))
        if new is not None and new["const"]:
            metric.rename(point, source, key, new["const"])
    else:
        source = f"{place}s"
        value = point["tags"].get(key) if place == "tag" else metric.field_of(point, key)
        if value is None:
            return
        if _is_no_text(value):
            part.not_needed(*part.tree, because=_NO_TEXT)
            return
        text = change(part, _text_of(metric.expression_of(value), source))
        target = part.text("dest") or key
        if target != key:
            metric.keep(point, source, key)
        metric.put(point, source, target, text if place == "tag" else {"expr": text, "type": "string"}, instead_of=key)
    if "width" in part:
        part.approximated(None, "`substring`: characters, where Telegraf cuts bytes")
    else:
        part.taken(None, f"a function on the {place.replace('_', ' ')}")


def _constant(text: str | None) -> Tree | None:
    """Return the value of an expression without members, as a constant."""
    from iggyflux.errors import IggyfluxError
    from iggyflux.expressions import compile_expression

    try:
        value = compile_expression(text or "").evaluate({})
    except IggyfluxError:
        return None
    return {"const": value} if isinstance(value, str) and value else None


def _defaults(part: Part, point: Tree, tree: Tree) -> None:  # noqa: ARG001
    tags, fields = part.part("tags"), part.part("fields")
    for key, value in tags.tree.items():
        if isinstance(value, str) and value:
            now = point["tags"].get(key)
            point["tags"][key] = (
                {"expr": _unless_blank(metric.expression_of(now)), "default": value}
                if now is not None
                else {"const": value}
            )
            tags.taken(key, f"`default` of the tag `{key}`")
    for key, value in fields.tree.items():
        if isinstance(value, dict | list) or value is None:
            continue
        now = metric.field_of(point, key)
        if _is_no_text(now) and _TYPES[type(value)] not in _SAME.get(now["type"], (now["type"],)):
            fields.not_taken(key, f"the field is a {now['type']}: write a default of that type")
            continue
        made = point["fields"][key] = _with_default(now, value)
        became = f"`default` of the field `{key}`"
        if type(value) is int and type(made.get("default")) is float:
            fields.approximated(key, f"{became}, a float as its numbers; Telegraf writes an integer beside floats")
        else:
            fields.taken(key, became)


_TYPES: Final = {bool: "boolean", int: "integer", float: "float", str: "string"}
_SAME: Final = {"float": ("float", "integer"), "unsigned": ("integer",)}
"""Types of defaults that a field may have; others have their own only."""


def _with_default(now: Any, value: Any) -> Tree:
    of_type = _TYPES[type(value)]
    if now is None or "const" in (now if isinstance(now, dict) else {}):
        return now if now is not None else {"const": value, "type": of_type}
    made = dict(now) if isinstance(now, dict) else {"expr": now}
    made.pop("required", None)
    if of_type == "string":
        made["expr"] = _unless_blank(made["expr"])
    if made.get("type", "float") in ("auto", "payload"):
        made["expr"] = f"coalesce({made['expr']}, {literal(value)})"
        return made
    return {**made, "default": float(value) if made.get("type", "float") == "float" and of_type == "integer" else value}


def _unless_blank(text: str) -> str:
    """Return the expression of a value that is null for a text without a letter or sign, as `defaults` takes it."""
    return f"if(regex_match({text_of(text)}, '\\S'), {text})"


PROCESSORS: Final[dict[str, Callable[[Part, Tree, Tree], None]]] = {
    "rename": _rename,
    "converter": _converter,
    "regex": _regex,
    "enum": _enum,
    "strings": _strings,
    "defaults": _defaults,
}
