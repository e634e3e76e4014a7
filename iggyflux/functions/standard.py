"""The functions of JMESPath itself: their bodies are those of jmespath.py, so values and failures are the same."""

from __future__ import annotations

from typing import Any

from jmespath.functions import Functions

from iggyflux.functions.table import ANY, Example, Function, Parameter, Types
from iggyflux.functions.text import joined

_BODIES = Functions()
_SHALLOW = frozenset(
    ("avg", "keys", "length", "map", "max", "max_by", "merge", "min", "min_by", "not_null", "reverse", "sort_by")
) | {"sum", "to_array", "type", "values"}
_ORDERED: Types = ("array-number", "array-string")


def _standard(
    name: str, group: str, description: str, parameters: tuple[Parameter, ...], result: Types, *examples: Example
) -> Function:
    body: Any = joined if name == "join" else getattr(_BODIES, f"_func_{name}")
    return Function(
        name, group, description, parameters, result, body, tuple(examples), builtin=True, shallow=name in _SHALLOW
    )


def _p(name: str, *types: str, variadic: bool = False) -> Parameter:
    return Parameter(name, types or ANY, variadic=variadic)


STANDARD: tuple[Function, ...] = (
    _standard(
        "abs", "numbers", "The absolute value.", (_p("number", "number"),), ("number",), ("abs(a)", '{"a": -7}', "7")
    ),
    _standard(
        "avg",
        "numbers",
        "The mean of an array of numbers; null for an empty array.",
        (_p("numbers", "array-number"),),
        ("number", "null"),
        ("avg(a)", '{"a": [1, 2, 6]}', "3.0"),
        ("avg(a)", '{"a": []}', "null"),
    ),
    _standard(
        "ceil",
        "numbers",
        "The number rounded up to an integer.",
        (_p("number", "number"),),
        ("number",),
        ("ceil(a)", '{"a": 1.2}', "2"),
    ),
    _standard(
        "contains",
        "text",
        "Whether a string contains `search`, or an array has an element equal to it.",
        (_p("subject", "array", "string"), _p("search")),
        ("boolean",),
        ("contains(a, 'ell')", '{"a": "hello"}', "true"),
        ("contains(a, `2`)", '{"a": [1, 2]}', "true"),
    ),
    _standard(
        "ends_with",
        "text",
        "Whether the text ends with `suffix`.",
        (_p("text", "string"), _p("suffix", "string")),
        ("boolean",),
        ("ends_with(a, 'lo')", '{"a": "hello"}', "true"),
    ),
    _standard(
        "floor",
        "numbers",
        "The number rounded down to an integer.",
        (_p("number", "number"),),
        ("number",),
        ("floor(a)", '{"a": -1.2}', "-2"),
    ),
    _standard(
        "join",
        "text",
        "The strings of an array, joined with `separator`.",
        (_p("separator", "string"), _p("strings", "array-string")),
        ("string",),
        ("join('-', a)", '{"a": ["x", "y"]}', '"x-y"'),
    ),
    _standard(
        "keys",
        "objects",
        "The names of an object's members, in the order of the document.",
        (_p("object", "object"),),
        ("array",),
        ("keys(a)", '{"a": {"x": 1, "y": 2}}', '["x", "y"]'),
    ),
    _standard(
        "length",
        "arrays",
        "The number of characters, elements or members.",
        (_p("subject", "string", "array", "object"),),
        ("number",),
        ("length(a)", '{"a": [1, 2, 3]}', "3"),
        ("length(a)", '{"a": "héé"}', "3"),
    ),
    _standard(
        "map",
        "arrays",
        "The result of an expression for each element, nulls included.",
        (_p("expression", "expref"), _p("array", "array")),
        ("array",),
        ("map(&x, a)", '{"a": [{"x": 1}, {}]}', "[1, null]"),
    ),
    _standard(
        "max",
        "arrays",
        "The largest of an array of numbers or of strings; null for an empty one.",
        (_p("values", *_ORDERED),),
        ("number", "string", "null"),
        ("max(a)", '{"a": [3, 10, 7]}', "10"),
    ),
    _standard(
        "max_by",
        "arrays",
        "The element for which the expression is largest.",
        (_p("array", "array"), _p("expression", "expref")),
        ANY,
        ("max_by(a, &x).n", '{"a": [{"n": "p", "x": 1}, {"n": "q", "x": 2}]}', '"q"'),
    ),
    _standard(
        "merge",
        "objects",
        "One object with all members; of duplicate keys the last one wins.",
        (_p("objects", "object", variadic=True),),
        ("object",),
        ("merge(a, b)", '{"a": {"x": 1, "y": 1}, "b": {"y": 2}}', '{"x": 1, "y": 2}'),
    ),
    _standard(
        "min",
        "arrays",
        "The smallest of an array of numbers or of strings; null for an empty one.",
        (_p("values", *_ORDERED),),
        ("number", "string", "null"),
        ("min(a)", '{"a": ["b", "a"]}', '"a"'),
    ),
    _standard(
        "min_by",
        "arrays",
        "The element for which the expression is smallest.",
        (_p("array", "array"), _p("expression", "expref")),
        ANY,
        ("min_by(a, &x).n", '{"a": [{"n": "p", "x": 1}, {"n": "q", "x": 2}]}', '"p"'),
    ),
    _standard(
        "not_null",
        "values",
        "The first argument that is not null.",
        (_p("values", variadic=True),),
        ANY,
        ("not_null(a, b, `0`)", '{"b": 5}', "5"),
    ),
    _standard(
        "reverse",
        "arrays",
        "The elements, or the characters, in reverse order.",
        (_p("subject", "array", "string"),),
        ("array", "string"),
        ("reverse(a)", '{"a": [1, 2, 3]}', "[3, 2, 1]"),
    ),
    _standard(
        "sort",
        "arrays",
        "An array of numbers or of strings in ascending order.",
        (_p("values", "array-string", "array-number"),),
        ("array",),
        ("sort(a)", '{"a": [3, 1, 2]}', "[1, 2, 3]"),
    ),
    _standard(
        "sort_by",
        "arrays",
        "The elements in ascending order of the expression, which is a number for all or a string for all.",
        (_p("array", "array"), _p("expression", "expref")),
        ("array",),
        ("sort_by(a, &x)[*].x", '{"a": [{"x": 2}, {"x": 1}]}', "[1, 2]"),
    ),
    _standard(
        "starts_with",
        "text",
        "Whether the text starts with `prefix`.",
        (_p("text", "string"), _p("prefix", "string")),
        ("boolean",),
        ("starts_with(a, 'he')", '{"a": "hello"}', "true"),
    ),
    _standard(
        "sum",
        "numbers",
        "The sum of an array of numbers, in floating-point arithmetic (`add` is exact in decimals).",
        (_p("numbers", "array-number"),),
        ("number",),
        ("sum(a)", '{"a": [1, 2, 3]}', "6"),
    ),
    _standard(
        "to_array",
        "values",
        "The value if it is an array, else an array with the value.",
        (_p("value"),),
        ("array",),
        ("to_array(a)", '{"a": 1}', "[1]"),
    ),
    _standard(
        "to_number",
        "numbers",
        "A number unchanged, a string parsed as a number (leniently: see `parse_number`), else null.",
        (_p("value"),),
        ("number", "null"),
        ("to_number(a)", '{"a": "1.5"}', "1.5"),
        ("to_number(a)", '{"a": "x"}', "null"),
    ),
    _standard(
        "to_string",
        "values",
        "A string unchanged, any other value as JSON.",
        (_p("value"),),
        ("string",),
        ("to_string(a)", '{"a": [1, "x"]}', '"[1,\\"x\\"]"'),
    ),
    _standard(
        "type",
        "values",
        "The JMESPath type: null, boolean, number, string, array or object.",
        (_p("value"),),
        ("string",),
        ("type(a)", '{"a": 1}', '"number"'),
    ),
    _standard(
        "values",
        "objects",
        "The values of an object's members.",
        (_p("object", "object"),),
        ("array",),
        ("values(a)", '{"a": {"x": 1, "y": 2}}', "[1, 2]"),
    ),
)
