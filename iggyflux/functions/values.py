"""Functions on any value: type tests, choices, and objects and lists made of others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from iggyflux.errors import counted
from iggyflux.functions.table import ANY, Function, Parameter, cannot, check_count
from iggyflux.records import JSON


def _coalesce(*values: JSON) -> JSON:
    return next((value for value in values if value is not None), None)


def _if(condition: JSON, then: JSON, otherwise: JSON = None) -> JSON:
    return then if bool(condition) or type(condition) in (int, float) else otherwise


def _get(value: dict[str, JSON] | list[JSON], key: Any) -> JSON:
    if type(value) is dict:
        return value.get(key) if type(key) is str else None
    if type(key) is not int:
        return None
    return value[key] if -len(value) <= key < len(value) else None  # type: ignore[index]


def _items(value: dict[str, JSON]) -> JSON:
    check_count("items", len(value))
    return [{"key": key, "value": member} for key, member in value.items()]


def _from_items(items: list[Any]) -> JSON:
    made: dict[str, JSON] = {}
    for item in items:
        if type(item) is not dict or type(item.get("key")) is not str:
            raise cannot("from_items", "an element is not an object with a string as its key")
        made[item["key"]] = item.get("value")
    return made


def _zip(*arrays: list[JSON]) -> JSON:
    check_count("zip", min(map(len, arrays)) * len(arrays))
    return [list(row) for row in zip(*arrays, strict=False)]


def _pair(value: JSON, array: list[JSON] | None) -> JSON:
    check_count("pair", len(array or []))
    return [[value, element] for element in array or []]


def _zip_object(keys: list[str], values: list[JSON]) -> JSON:
    if len(keys) != len(values):
        raise cannot("zip_object", f"{counted(len(keys), 'key')} for {counted(len(values), 'value')}")
    return dict(zip(keys, values, strict=True))


def _enumerate(array: list[JSON]) -> JSON:
    check_count("enumerate", len(array))
    return [{"index": index, "value": value} for index, value in enumerate(array)]


def _is(kind: str, test: Callable[[Any], bool], example: str) -> Function:
    article = "an" if kind[0] in "ao" else "a"
    what = "null, or missing" if kind == "null" else f"{article} {kind}"
    return Function(
        f"is_{kind}",
        "values",
        f"Whether the value is {what}.",
        (Parameter("value"),),
        ("boolean",),
        test,
        ((f"is_{kind}(a)", f'{{"a": {example}}}', "true"), (f"is_{kind}(a)", '{"a": "1"}', _string_is(kind))),
        accepts_null=True,
        shallow=True,
    )


def _string_is(kind: str) -> str:
    return "true" if kind == "string" else "false"


VALUES: tuple[Function, ...] = (
    _is("null", lambda value: value is None, "null"),
    _is("boolean", lambda value: value is True or value is False, "false"),
    _is("number", lambda value: type(value) in (int, float), "1.5"),
    _is("string", lambda value: isinstance(value, str), '""'),
    _is("array", lambda value: isinstance(value, list), "[]"),
    _is("object", lambda value: isinstance(value, dict), "{}"),
    Function(
        "coalesce",
        "values",
        "The first argument that is not null; those after it are not evaluated.",
        (Parameter("values", variadic=True),),
        ANY,
        _coalesce,
        (("coalesce(a, b, 'none')", '{"b": "x"}', '"x"'), ("coalesce(a, b, 'none')", "{}", '"none"')),
        accepts_null=True,
        lazy=True,
    ),
    Function(
        "if",
        "values",
        "`then` if the condition is true by the rules of JMESPath (0 is true), else `otherwise` (default null); the "
        "other one is not evaluated.",
        (Parameter("condition"), Parameter("then"), Parameter("otherwise", optional=True)),
        ANY,
        _if,
        (
            ("if(a > `5`, 'high', 'low')", '{"a": 7}', '"high"'),
            ("if(is_string(a), parse_number(a), a)", '{"a": 7}', "7"),
            ("if(a == 'x', `1`)", "{}", "null"),
        ),
        accepts_null=True,
        lazy=True,
    ),
    Function(
        "get",
        "values",
        "The member of an object under a key that an expression gives, or the element of an array at a position, from "
        "its end if negative; null if there is none.",
        (Parameter("value", ("object", "array")), Parameter("key", ("string", "number"))),
        ANY,
        _get,
        (
            ("get(units, name)", '{"name": "t1", "units": {"t1": "°C"}}', '"°C"'),
            ("values[*].get(root().names, id)", '{"values": [{"id": 1}, {"id": 9}], "names": ["a", "b"]}', '["b"]'),
            ("get(a, `-1`)", '{"a": [1, 2]}', "2"),
        ),
        direct=True,
    ),
    Function(
        "items",
        "objects",
        "The members of an object as a list of `{key, value}`, in the order of the document.",
        (Parameter("object", ("object",)),),
        ("array",),
        _items,
        (
            (
                "items(a)",
                '{"a": {"x": 1, "y": 2}}',
                '[{"key": "x", "value": 1}, {"key": "y", "value": 2}]',
            ),
        ),
        shallow=True,
    ),
    Function(
        "from_items",
        "objects",
        "The object made of a list of `{key, value}`; of duplicate keys the last one wins.",
        (Parameter("items", ("array",)),),
        ("object",),
        _from_items,
        (
            ("from_items(a[*].{key: n, value: v})", '{"a": [{"n": "x", "v": 1}]}', '{"x": 1}'),
            ("from_items(a)", '{"a": [1]}', "IFX304"),
        ),
        shallow=True,
    ),
    Function(
        "zip",
        "arrays",
        "The first elements of all arrays as one list, then the second ones, to the end of the shortest array.",
        (Parameter("arrays", ("array",), variadic=True),),
        ("array",),
        _zip,
        (("zip(a, b)", '{"a": [1, 2], "b": ["x", "y", "z"]}', '[[1, "x"], [2, "y"]]'),),
        shallow=True,
    ),
    Function(
        "pair",
        "arrays",
        "A `[value, element]` for each element of the array, none if it is null. In `for_each` of nested lists, "
        "`[outer, inner]` and `parent()` are simpler.",
        (Parameter("value", ANY), Parameter("array", ("array", "null"))),
        ("array",),
        _pair,
        (
            ("pair(a, b)", '{"a": "x", "b": [1, 2]}', '[["x", 1], ["x", 2]]'),
            (
                "groups[].pair(name, members)[]",
                '{"groups": [{"name": "g", "members": [1, 2]}, {"name": "h"}]}',
                '[["g", 1], ["g", 2]]',
            ),
        ),
        accepts_null=True,
        shallow=True,
    ),
    Function(
        "zip_object",
        "arrays",
        "The object made of a list of keys and a list of the same number of values.",
        (Parameter("keys", ("array-string",)), Parameter("values", ("array",))),
        ("object",),
        _zip_object,
        (
            (
                "rows[*].zip_object(root().columns, @)",
                '{"columns": ["x", "y"], "rows": [[1, 2], [3, 4]]}',
                '[{"x": 1, "y": 2}, {"x": 3, "y": 4}]',
            ),
            ("zip_object(a, b)", '{"a": ["x"], "b": []}', "IFX304"),
        ),
        shallow=True,
    ),
    Function(
        "enumerate",
        "arrays",
        "The elements with their positions, from 0, as a list of `{index, value}`.",
        (Parameter("array", ("array",)),),
        ("array",),
        _enumerate,
        (("enumerate(a)", '{"a": ["x"]}', '[{"index": 0, "value": "x"}]'),),
        shallow=True,
    ),
)
