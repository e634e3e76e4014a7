"""Every regular expression of the package takes linear time, whatever its text: texts come from messages and servers.

Patterns that users write run in RE2, which guarantees that.
"""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest
from regex_growth import ANY_USE, growth, slowest

import iggyflux
from iggyflux import secrets, timestamps
from iggyflux.audit import points
from iggyflux.delivery import answers, naming
from iggyflux.payloads import csv_
from iggyflux.transports.influxdb.query import statements

ROOT = Path(iggyflux.__file__).parent
METHODS = {
    **dict.fromkeys(("search", "sub", "subn", "split", "findall", "finditer"), "scan"),
    "match": "match",
    "fullmatch": "fullmatch",
}


@cache
def trees() -> dict[str, ast.Module]:
    return {
        path.relative_to(ROOT).as_posix(): ast.parse(path.read_text())
        for path in sorted(ROOT.rglob("*.py"))
        if path.name != "__main__.py"  # it runs the command when it is imported
    }


# Patterns that are made of a function's own names: examples of them.  Those in tables are found there.
MADE: dict[tuple[str, str], Callable[[], list[str]]] = {
    ("audit/points.py", "__init__"): lambda: [
        points._Shape(names, names, [points._KINDS[each] for each in kinds])._pattern.pattern
        for names, kinds in (("abcde", points._KINDS), ("aab", (str, str, float)))
    ],
    ("cli/init.py", "_filled"): lambda: ["FILE|END"],
    ("delivery/answers.py", "_words"): list,
    ("delivery/naming.py", "_of_type"): lambda: ["[ ,]aa=" + value for value in naming._VALUES.values()],
    ("lineprotocol/parse.py", ""): list,
    ("mapping/reader.py", "_check_statement"): lambda: [r"\$start\b"],
    ("payloads/csv_.py", "_patterns"): lambda: [
        pattern.pattern
        for each in ((",", '"', "", False), (";", "", "#", True), ("\t", "'", "//", True), (",", '"', "", True))
        for pattern in csv_._patterns(*each)
        if pattern is not None
    ],
    ("secrets.py", "__init__"): lambda: [
        "|".join(map(secrets._pattern_of_short, secrets._forms(each))) for each in ("Qj7", "aaa", "a%&")
    ],
    ("timestamps.py", "_compile_pattern"): lambda: [
        timestamps._compile_pattern(each).pattern
        for each in ("%Y-%m-%dT%H:%M:%S.%f%z", "%d %b %Y  %I %M %p", "%Y%j", "%A %Y%m%d%H%M%S%3f")
    ],
    ("timestamps.py", "_read_pattern"): lambda: [r"(?<!%)((?:%%)*)%F"],
    ("transports/influxdb/query/answers.py", "_words"): list,
    ("transports/influxdb/query/statements.py", "_any_of"): lambda: [
        "|".join([*each.texts.values(), *each.more.values()]) for each in statements.LANGUAGES.values()
    ],
}

# Patterns of which the code cuts the texts, at which length; how they are applied, where that is not to be seen.
APPLIED = {("payloads/csv_.py", "cell"): ("tokens",), ("payloads/csv_.py", "_patterns"): ("tokens",)}
MOST_SECONDS = 0.1
BOUNDED: dict[tuple[str, str], int] = {
    ("secrets.py", "_PART"): secrets._LONGEST_ESCAPE,
    ("delivery/answers.py", "RULES"): 2 * answers._GIST,
    ("delivery/naming.py", "_CONFLICT"): 2 * answers._GIST,
    ("delivery/naming.py", "_SUSPECTS"): 2 * answers._GIST,
    ("transports/influxdb/query/answers.py", "RULES"): 2 * answers._GIST,
}
# Patterns that are applied only to texts that another one has matched.
CHECKED = {
    ("lineprotocol/parse.py", "_PLAIN_FIELD"),
    ("sim/plain.py", "_ONE_FIELD"),
    ("sim/plain.py", "plain_tags"),
    ("sim/queries/flux_script.py", "_duration"),
    ("sim/queries/tokens.py", "duration_ns"),
}


OF_ONE_CONVERSION = "importing/telegraf/filters.py"
"""Filters of names in a configuration of the user's own, read once: no message and no server gives these texts."""


class Use(NamedTuple):
    """A pattern, its file, its name or its function, and how it is applied."""

    path: str
    name: str
    pattern: re.Pattern[Any]
    uses: tuple[str, ...]


def module_of(path: str) -> ModuleType:
    return importlib.import_module("iggyflux." + ".".join(Path(path).with_suffix("").parts).removesuffix(".__init__"))


@cache
def parents(path: str) -> dict[ast.AST, ast.AST]:
    return {child: node for node in ast.walk(trees()[path]) for child in ast.iter_child_nodes(node)}


@cache
def applied(path: str) -> dict[str, set[str]]:
    """Return how what has a name is applied in a file: "handed on" where that is not to be seen."""
    found: dict[str, set[str]] = {}
    for node in ast.walk(trees()[path]):
        name = getattr(node, "id", getattr(node, "attr", None))
        if name is not None and isinstance(node.ctx, ast.Load):  # type: ignore[attr-defined]
            found.setdefault(name, set()).add(use_of(node, path))
    return found


def use_of(node: ast.AST, path: str) -> str:
    method = parents(path)[node]
    if not isinstance(method, ast.Attribute):
        return "handed on"
    call = parents(path)[method]
    if method.attr == "match" and not (isinstance(call, ast.Call) and len(call.args) == 1):
        return "tokens"
    return METHODS.get(method.attr, "match")


def uses_of(name: str, path: str) -> tuple[str, ...]:
    """Return how the pattern with this name of a file is applied, in every way if it is handed on."""
    found = set().union(*(applied(each).get(name, set()) for each in ([path] if name.startswith("_") else trees())))
    return ANY_USE if "handed on" in found or not found else tuple(sorted(found))


def compiled() -> Iterator[Use]:
    """Yield what each call of `re` in the package compiles."""
    for path, tree in trees().items():
        for node in ast.walk(tree):
            match node:
                case ast.Call(ast.Attribute(ast.Name("re"), "compile"), [text, *flags]):
                    name, uses = target_of(node, path)
                case ast.Call(ast.Attribute(ast.Name("re"), method), [text, *_]) if method in METHODS:
                    name, uses, flags = function_of(node, path), (METHODS[method],), []
                case _:
                    continue
            flags += [each.value for each in node.keywords if each.arg == "flags"]
            for source in sources_of(text, path, function_of(node, path)):
                yield Use(path, name, re.compile(source, value_of(flags[0], path) if flags else 0), uses)


def target_of(call: ast.Call, path: str) -> tuple[str, tuple[str, ...]]:
    """Return the name of what `re.compile` returns, and how it is applied."""
    match parents(path)[call]:
        case ast.Assign([ast.Name(name)]) | ast.AnnAssign(ast.Name(name)):
            return name, uses_of(name, path)
        case ast.Attribute():
            return function_of(call, path), (use_of(call, path),)
    return function_of(call, path), ANY_USE


def function_of(node: ast.AST, path: str) -> str:
    while not isinstance(node, ast.FunctionDef | ast.Module):
        node = parents(path)[node]
    return node.name if isinstance(node, ast.FunctionDef) else ""


def sources_of(text: ast.expr, path: str, function: str) -> list[Any]:
    try:
        return [value_of(text, path)]
    except NameError:
        assert (path, function) in MADE, f"add examples of {ast.unparse(text)} in {path} to MADE"
        return MADE[path, function]()


def value_of(node: ast.expr, path: str) -> Any:
    return eval(ast.unparse(node), vars(module_of(path)))


def held() -> Iterator[Use]:
    """Yield patterns in the tables of modules."""
    for path in trees():
        for name, value in vars(module_of(path)).items():
            if not isinstance(value, re.Pattern):
                yield from (Use(path, name, each, uses_of(name, path)) for each in within(value, 4))


def within(value: object, depth: int) -> Iterator[re.Pattern[Any]]:
    if isinstance(value, re.Pattern):
        yield value
    elif depth and isinstance(value, Mapping):
        yield from (each for item in value.values() for each in within(item, depth - 1))
    elif depth and isinstance(value, tuple | list):
        yield from (each for item in value for each in within(item, depth - 1))
    elif depth and is_dataclass(value) and not isinstance(value, type):
        yield from (each for field in fields(value) for each in within(getattr(value, field.name), depth - 1))


def patterns() -> list[Use]:
    found: dict[tuple[Any, ...], Use] = {}
    for use in [*compiled(), *held()]:
        uses = APPLIED.get((use.path, use.name), use.uses)
        found.setdefault((use.pattern, uses), use._replace(uses=uses))
    return list(found.values())


@pytest.mark.slow
def test_patterns_take_linear_time() -> None:
    """Whatever text a message, a document, a variable or a server gives."""
    found = patterns()
    slow = {}
    for path, name, pattern, uses in found:
        if path.startswith(OF_ONE_CONVERSION):
            continue
        bound = BOUNDED.get((path, name))
        if bound is not None:
            if (seconds := slowest(pattern, uses, bound)) > MOST_SECONDS:
                slow[path, name, pattern.pattern] = f"{seconds} s"
        elif (path, name) not in CHECKED and (text := growth(pattern, uses)) is not None:
            slow[path, name, pattern.pattern] = text

    assert len(found) > 200
    assert slow == {}


@pytest.mark.parametrize(
    "planted",
    [
        r"\s*x",
        r"(a+)+$",
        r"[0-9]+(?=[^0-9]*$)",
        r"(\w+)(\d+)!",
        r"/\*.*?\*/",
        r'"(?:[^"\\]|\\.)*"',
        r'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\Z)',
        r"-?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][0-9]+)?",
        rb" +\Z",
    ],
)
def test_a_pattern_that_is_not_linear_is_found(planted: str | bytes) -> None:
    """Each by a text of its own kind: what it repeats, what it begins with, an escaped quote."""
    assert growth(re.compile(planted, re.DOTALL)) is not None


@pytest.mark.parametrize("linear", [r"a+", r"(?<!\s)\s++x", r'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)', r"(?:[^,\\ ]|\\.)*+"])
def test_a_linear_pattern_is_not(linear: str) -> None:
    assert growth(re.compile(linear, re.DOTALL)) is None
