"""What every plugin of Telegraf can do with the metrics that it has made: names, tags, and what is left out.

The order is that of Telegraf: the name is changed, tags are added, metrics are chosen, then fields and tags.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from iggyflux.importing.configuration import Part
from iggyflux.importing.draft import Tree
from iggyflux.importing.names import literal, string
from iggyflux.importing.telegraf import metric, xpath

_OLD_NAMES: Final = {
    "fieldpass": "fieldinclude",
    "fielddrop": "fieldexclude",
    "pass": "fieldinclude",
    "drop": "fieldexclude",
}

_MEASUREMENTS: Final = (
    "json_v2.measurement_name",
    "json_v2.measurement_name_path",
    "json_name_key",
    "csv_measurement_column",
    "topic_parsing.measurement",
    *(f"{key}.metric_name" for key in xpath.TABLES),
)
"""What else gives the measurement of an input."""


def apply(part: Part, point: Tree) -> None:
    """Change a point as the options of an input say; a point that is never written gets `dropped`."""
    _rename(part, point)
    for key, value in part.part("tags").tree.items():
        if isinstance(value, str) and value:
            point["tags"].setdefault(key, {"const": value})
            part.part("tags").taken(key, f"`tags: {{{key}: {{const: …}}}}`")
    choose(part, point)
    shape(part, point)


def choose(part: Part, point: Tree) -> bool:
    """Drop a point, or write it on a condition, as namepass, namedrop, tagpass and tagdrop say; return if it is."""
    name = metric.name_of(point)
    for key, keeps in (("namepass", True), ("namedrop", False)):
        globs = part.texts(key)
        if not globs:
            continue
        if name is not None:
            part.taken(key, "decided here, since the measurement is constant")
            if metric.matches(name, globs) != keeps:
                point["dropped"] = True
                return False
        else:
            condition = _one_of(metric.measurement_expression(point), globs)
            metric.guarded(condition if keeps else f"!({condition})", point)
            part.taken(key, "`where`")
    for key, keeps in (("tagpass", True), ("tagdrop", False)):
        conditions = []
        for tag in part.part(key).tree:
            globs = part.part(key).texts(tag)
            value = point["tags"].get(tag)
            if value is not None and globs:
                conditions.append(_one_of(f"to_string(not_null({metric.expression_of(value)}, ''))", globs))
        if conditions:
            whole = " || ".join(conditions)
            metric.guarded(whole if keeps else f"!({whole})", point)
            part.taken(key, "`where`")
        elif key in part:
            part.approximated(key, "the mapping has no such tag" + (", so nothing is written" if keeps else ""))
            if keeps:
                point["dropped"] = True
    if "metricpass" in part:
        part.not_taken("metricpass", "write it as `where` of the points")
    return "dropped" not in point


def shape(part: Part, point: Tree) -> None:
    """Leave out fields and tags as fieldinclude, fieldexclude, taginclude and tagexclude say."""
    for key in ("fieldinclude", "fieldexclude", "taginclude", "tagexclude", *_OLD_NAMES):
        globs = part.texts(key)
        if not globs:
            continue
        word = _OLD_NAMES.get(key, key)
        change = metric.include if word.endswith("include") else metric.exclude
        change(point, "fields" if word.startswith("field") else "tags", globs)
        part.taken(
            key, f"{word.removeprefix('field').removeprefix('tag')} of {'fields' if 'field' in word else 'tags'}"
        )
    if not point["fields"]:
        point["dropped"] = True


def _rename(part: Part, point: Tree) -> None:
    if name := part.text("name_override"):
        point["measurement"] = {"const": name}
        part.taken("name_override", f"`measurement: {{const: {name}}}`")
        part.overruled(*_MEASUREMENTS, because="`name_override` gives the measurement")
    before, after = part.text("name_prefix"), part.text("name_suffix")
    if before or after:
        name_now = metric.name_of(point)
        if name_now is not None:
            point["measurement"] = {"const": f"{before}{name_now}{after}"}
        else:
            inner = point["measurement"]
            point["measurement"] = f"join('', [{string(before)}, {inner}, {string(after)}])"
        for key in ("name_prefix", "name_suffix"):
            if key in part:
                part.taken(key, "part of `measurement`")


def _one_of(expression: str, globs: Sequence[str]) -> str:
    """Return the condition that a text matches one of the globs."""
    if not any(re.search(r"[*?\[]", glob) for glob in globs):
        return f"contains({literal(list(globs))}, {expression})"
    return f"regex_match({expression}, {string('^(?:' + '|'.join(map(_regex, globs)) + ')$')})"


def _regex(glob: str) -> str:
    """Return the pattern of a glob with `*`, `?` and `[…]`."""
    parts = re.findall(r"\[!?[^\]]+\]|.", glob, re.DOTALL)
    return "".join(_SIGNS.get(part) or (part.replace("[!", "[^") if part[1:] else re.escape(part)) for part in parts)


_SIGNS: Final = {"*": ".*", "?": "."}
