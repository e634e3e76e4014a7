"""The default of a field, as a schema writes it, in the JSON form that a written value would have."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

from iggyflux.errors import DecodeError
from iggyflux.payloads.avro.schema import Node, SchemaError
from iggyflux.records import JSON

Convert = Callable[[Any], JSON]


def default_of(node: Node, value: Any, converter: Callable[[Node], Convert | None]) -> JSON:
    """Return the JSON form of a default; `converter` is that of the reader.  Raise SchemaError."""
    return _Defaults(converter).of(node, value)


@dataclass(slots=True)
class _Defaults:
    converter: Callable[[Node], Convert | None]
    known: dict[tuple[int, int], JSON] = field(default_factory=dict)
    """Records whose defaults hold each other's have one default each, not one for each way to it."""

    def of(self, node: Node, value: Any) -> JSON:
        key = (id(node), id(value))
        if key not in self.known:
            self.known[key] = _HOLDS_ITSELF
            try:
                self.known[key] = _FORMS[node.kind](self, node, value)
            except (_NoFit, DecodeError, UnicodeEncodeError):
                raise SchemaError(f"the default {str(value)[:40]!r} is not a value of {node.title}") from None
        if self.known[key] is _HOLDS_ITSELF:
            raise SchemaError(f"the default {str(value)[:40]!r} of {node.title} holds itself")
        return self.known[key]

    def scalar(self, node: Node, value: Any) -> JSON:
        result: JSON = value
        return result if type(value) in _SCALARS[node.kind] else _no_fit()

    def integer(self, node: Node, value: Any) -> JSON:
        return self.converted(node, value) if type(value) is int else _no_fit()

    def floating(self, _node: Node, value: Any) -> JSON:
        return float(value) if type(value) in (int, float) else _no_fit()

    def binary(self, node: Node, value: Any) -> JSON:
        raw = value.encode("latin-1") if isinstance(value, str) else b""
        if not isinstance(value, str) or (node.kind == "fixed" and len(raw) != node.size):
            _no_fit()
        return self.converted(node, raw)

    def converted(self, node: Node, value: Any) -> JSON:
        convert = self.converter(node)
        result: JSON = value if convert is None else convert(value)
        return result

    def enum(self, node: Node, value: Any) -> JSON:
        return str(value) if value in node.symbols else _no_fit()

    def union(self, node: Node, value: Any) -> JSON:
        for branch in node.inner:
            try:
                return self.of(branch, value)
            except SchemaError:
                pass
        return _no_fit()

    def record(self, node: Node, value: Any) -> JSON:
        if not isinstance(value, dict):
            _no_fit()
        given = {each.name: value.get(each.name, each.default) for each in node.members}
        return {each.name: self.of(each.type, given[each.name]) for each in node.members}

    def array(self, node: Node, value: Any) -> JSON:
        return [self.of(node.inner[0], each) for each in value] if isinstance(value, list) else _no_fit()

    def map(self, node: Node, value: Any) -> JSON:
        if not isinstance(value, dict):
            _no_fit()
        return {name: self.of(node.inner[0], each) for name, each in value.items()}


_HOLDS_ITSELF: Final[Any] = object()
"""The mark of a default that is not made yet, or cannot be."""


class _NoFit(Exception):
    """A default that its type cannot hold."""


def _no_fit() -> NoReturn:
    raise _NoFit


_SCALARS: Final[Mapping[str, tuple[type, ...]]] = {"null": (type(None),), "boolean": (bool,), "string": (str,)}
_FORMS: Final[Mapping[str, Callable[[_Defaults, Node, Any], JSON]]] = {
    **dict.fromkeys(_SCALARS, _Defaults.scalar),
    **dict.fromkeys(("int", "long"), _Defaults.integer),
    **dict.fromkeys(("float", "double"), _Defaults.floating),
    **dict.fromkeys(("bytes", "fixed"), _Defaults.binary),
    "enum": _Defaults.enum,
    "union": _Defaults.union,
    "record": _Defaults.record,
    "array": _Defaults.array,
    "map": _Defaults.map,
}
