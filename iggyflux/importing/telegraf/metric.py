"""Points as Telegraf's plugins change them: names, tags and fields that a converter gave them, one table a step.

A point is the tree of a mapping.  A step returns a reason where it cannot be expressed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any, Final

from iggyflux.errors import IggyfluxError
from iggyflux.expressions import compile_expression
from iggyflux.importing.draft import Tree
from iggyflux.importing.names import literal, member, string

TYPES: Final = {
    "int": "integer",
    "integer": "integer",
    "uint": "unsigned",
    "unsigned": "unsigned",
    "float": "float",
    "bool": "boolean",
    "boolean": "boolean",
    "string": "string",
}


def matches(name: str, globs: Iterable[str]) -> bool:
    return any(fnmatchcase(name, glob) for glob in globs)


def name_of(point: Tree) -> str | None:
    """Return the measurement, if it is constant."""
    measurement = point["measurement"]
    return str(measurement["const"]) if isinstance(measurement, dict) and "const" in measurement else None


def measurement_expression(point: Tree) -> str:
    name = name_of(point)
    return literal(name) if name is not None else str(point["measurement"])


def expression_of(value: Any) -> str:
    """Return the expression of a tag or field, with the default that it has."""
    if not isinstance(value, dict):
        return str(value)
    if "const" in value:
        return literal(value["const"])
    return f"coalesce({value['expr']}, {literal(value['default'])})" if "default" in value else str(value["expr"])


def with_expression(value: Any, expression: str) -> Any:
    """Return a tag or field with another expression, and its options."""
    if isinstance(value, dict) and "expr" in value:
        return {**value, "expr": expression}
    return {"expr": expression, "type": value.get("type", "string")} if isinstance(value, dict) else expression


def star_of(point: Tree) -> str | None:
    """Return the expression of the object whose members are fields; None if all fields are named."""
    star = point["fields"].get("*")
    return None if star is None else expression_of(star)


def field_of(point: Tree, key: str) -> Any:
    """Return a field by its name, also one that the star has; None if there is none."""
    if key in point["fields"]:
        return point["fields"][key]
    star = star_of(point)
    if star is None:
        return None
    options = point["fields"]["*"] if isinstance(point["fields"]["*"], dict) else {}
    if matches(key, options.get("exclude", ())) or ("include" in options and not matches(key, options["include"])):
        return None
    base = "" if star == "@" else f"{star}."
    expression = f"{base}{member(key)}"
    if options.get("flatten") == "_" and "_" in key.strip("_"):
        nested = ".".join(map(member, key.split("_")))
        if all(key.split("_")):
            expression = f"coalesce({expression}, {base}{nested})"
    made: Tree = {"expr": expression, "type": options.get("type", "auto")}
    return made | {name: options[name] for name in ("cast", "on_bad_value") if name in options}


def keep(point: Tree, part: str, key: str) -> None:
    """Name a field that the star has, before another one is made of it: a star is without what others read."""
    value = field_of(point, key) if part == "fields" else None
    if value is not None:
        point[part][key] = value


def exclude(point: Tree, part: str, globs: Sequence[str]) -> None:
    """Remove tags or fields whose names match; a star gets them as `exclude`."""
    for key in [key for key in point[part] if not key.endswith("*") and matches(key, globs)]:
        del point[part][key]
    _narrow(point, part, "exclude", globs)


def include(point: Tree, part: str, globs: Sequence[str]) -> None:
    """Remove tags or fields whose names do not match."""
    for key in [key for key in point[part] if not key.endswith("*") and not matches(key, globs)]:
        del point[part][key]
    _narrow(point, part, "include", globs)


def _narrow(point: Tree, part: str, option: str, globs: Sequence[str]) -> None:
    star = point[part].get("*")
    if star is not None:
        made = dict(star) if isinstance(star, dict) else {"expr": star}
        made[option] = [*dict.fromkeys([*made.get(option, []), *globs])]
        point[part]["*"] = made


def rename(point: Tree, part: str, old: str, new: str) -> bool:
    """Give a tag or field another name; return whether there is one."""
    table = point[part]
    if old in table:
        value = table.pop(old)
    elif part == "fields" and (value := field_of(point, old)) is not None:
        exclude(point, part, [old])
    elif part == "tags" and "*" in table:
        value = f"{expression_of(table['*'])}.{member(old)}"
        exclude(point, part, [old])
    else:
        return False
    put(point, part, new, value)
    return True


def put(point: Tree, part: str, key: str, value: Any, *, instead_of: str = "") -> None:
    """Give a tag or field a value; where that is null, it keeps the one that it has, unless that was changed."""
    before = field_of(point, key) if part == "fields" else point[part].get(key)
    kinds = [each.get("type", "float") if isinstance(each, dict) else "" for each in (value, before)]
    is_named, are_one = key in point[part], kinds[0] == kinds[1]
    is_constant = isinstance(value, dict) and "const" in value
    if (
        before is None
        or key == instead_of
        or is_constant
        or not (are_one or (is_named and kinds[0] not in ("integer", "unsigned")))
    ):
        point[part][key] = value
        return
    made = with_expression(value, f"coalesce({expression_of(value)}, {expression_of(before)})")
    if isinstance(made, dict):
        made.pop("default", None)
        made |= {} if are_one else {"type": "auto"}
    point[part][key] = made


def go_replacement(text: str) -> str:
    """Return a replacement of Go's regexp, such as `${1}xx`, as one of `regex_replace`."""
    text = text.replace("\\", "\\\\")
    return re.sub(
        r"\$(?:\{(\w+)\}|(\w+)|(\$))",
        lambda match: "$" if match[3] else _group(match[1] or match[2]),
        text,
    )


def _group(name: str) -> str:
    return f"\\{name}" if name.isdigit() else f"\\g<{name}>"


def regex_applied(pattern: str, replacement: str, name: str) -> str | None:
    """Return what a pattern makes of a name; None if it does not match, or is not a pattern."""
    call = f"if(regex_match(a, {string(pattern)}), regex_replace(a, {string(pattern)}, {string(replacement)}))"
    try:
        made = compile_expression(call).evaluate({"a": name})
    except IggyfluxError:
        return None
    return made if isinstance(made, str) and made else None


def each_key(point: Tree, part: str, glob: str) -> list[str]:
    """Return the names that a key of a processor means: itself, or those that match its glob."""
    if re.search(r"[*?\[]", glob):
        return [key for key in point[part] if not key.endswith("*") and matches(key, [glob])]
    return [glob]


def guarded(condition: str, point: Tree) -> None:
    """Write a point only if a condition is true, besides those that it has."""
    point["where"] = f"({point['where']}) && ({condition})" if "where" in point else condition
