"""The names of types in reports."""

from __future__ import annotations

_NAMES = {"bool": "boolean", "int": "integer", "str": "string", "Unsigned": "unsigned", "NoneType": "null"}


def type_name(value: object) -> str:
    """Return the type of a field's value, or of a member of a payload."""
    return _NAMES.get(type(value).__name__, type(value).__name__)
