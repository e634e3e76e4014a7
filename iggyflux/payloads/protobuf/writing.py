"""Plain values to messages, as `reading` makes them: for examples, generated payloads and round trips."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from math import isfinite
from typing import TYPE_CHECKING, Any

from google.protobuf import message_factory
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import EncodeError

from iggyflux.errors import RecordError
from iggyflux.payloads.format import not_encodable
from iggyflux.payloads.protobuf.reading import (
    ANY,
    DURATION,
    FLOATS,
    MESSAGES,
    NULL,
    SECOND,
    TIMESTAMP,
    TREES,
    WRAPPERS,
    is_map,
    is_special,
    key_text,
)
from iggyflux.records import JSON

if TYPE_CHECKING:
    from iggyflux.payloads.protobuf.schema import Schema


def encoded(schema: Schema, value: JSON) -> bytes:
    """Return the message of `value`; raise RecordError for what the type cannot hold."""
    message = schema.message_class()
    try:
        _fill(schema, message, value)
        return bytes(message.SerializeToString(deterministic=True))
    except RecursionError:
        raise not_encodable("protobuf", "a value that is not so deep", "") from None
    except EncodeError as error:
        raise not_encodable("protobuf", f"a whole {schema.name} ({' '.join(str(error).split())})", value) from None


def _refused(expected: str, value: JSON) -> RecordError:
    return not_encodable("protobuf", expected, value)


def _fill(schema: Schema, message: Any, value: JSON) -> None:
    name = message.DESCRIPTOR.full_name
    if is_special(name):
        _fill_special(message, name, value)
    elif not isinstance(value, dict):
        raise _refused(f"an object for {name}", value)
    elif name == ANY:
        _fill_any(schema, message, value)
    else:
        by_key = {field.json_name if schema.json_names else field.name: field for field in message.DESCRIPTOR.fields}
        for key, member in value.items():
            if key not in by_key:
                raise _refused(f"a field of {name}", key)
            field = by_key[key]
            holds_null = field.message_type is not None and field.message_type.full_name == "google.protobuf.Value"
            if member is not None or (holds_null and not field.is_repeated):
                _fill_field(schema, message, field, member)


def _fill_field(schema: Schema, message: Any, field: Any, value: JSON) -> None:
    if is_map(field):
        if not isinstance(value, dict):
            raise _refused(f"an object for {field.full_name}", value)
        key_field, value_field = (field.message_type.fields_by_name[name] for name in ("key", "value"))
        target = getattr(message, field.name)
        for text, member in value.items():
            key = _map_key(key_field, text)
            if value_field.type in MESSAGES:
                target[key].SetInParent()
                _fill(schema, target[key], member)
            else:
                target[key] = _scalar(value_field, member)
    elif field.is_repeated:
        if not isinstance(value, list):
            raise _refused(f"a list for {field.full_name}", value)
        target = getattr(message, field.name)
        for member in value:
            if field.type in MESSAGES:
                _fill(schema, target.add(), member)
            else:
                target.append(_scalar(field, member))
    elif field.type in MESSAGES:
        inner = getattr(message, field.name)
        inner.SetInParent()
        _fill(schema, inner, value)
    else:
        setattr(message, field.name, _scalar(field, value))


def _map_key(field: Any, text: str) -> str | int | bool:
    if field.type == FieldDescriptor.TYPE_STRING:
        return str(_scalar(field, text))
    try:
        key = {"true": True, "false": False}[text] if field.type == FieldDescriptor.TYPE_BOOL else int(text)
    except (KeyError, ValueError):
        raise _refused(f"a key of {field.containing_type.full_name}", text) from None
    if key_text(key) != text:
        raise _refused("the usual text of a key", text)
    if not isinstance(key, bool):
        _scalar(field, key)
    return key


_BITS: Mapping[int, tuple[int, int]] = {
    **dict.fromkeys(
        (FieldDescriptor.TYPE_INT32, FieldDescriptor.TYPE_SINT32, FieldDescriptor.TYPE_SFIXED32), (-(2**31), 2**31)
    ),
    **dict.fromkeys(
        (FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_SINT64, FieldDescriptor.TYPE_SFIXED64), (-(2**63), 2**63)
    ),
    **dict.fromkeys((FieldDescriptor.TYPE_UINT32, FieldDescriptor.TYPE_FIXED32), (0, 2**32)),
    **dict.fromkeys((FieldDescriptor.TYPE_UINT64, FieldDescriptor.TYPE_FIXED64), (0, 2**64)),
}
_MOST_OF_FLOAT = 3.4028235677973366e38
"""What rounds to an infinity of 32 bits begins here."""


def _scalar(field: Any, value: JSON) -> Any:
    """Return the value that the library takes."""
    kind = field.type
    if kind in _BITS:
        least, end = _BITS[kind]
        if type(value) is int and least <= value < end:
            return value
        raise _refused(f"an integer from {least} to {end - 1} for {field.full_name}", value)
    if kind in FLOATS:
        limit = _MOST_OF_FLOAT if kind == FieldDescriptor.TYPE_FLOAT else 2.0**1023 * 2
        if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < limit and isfinite(value):
            return float(value)
        raise _refused(f"a finite number for {field.full_name}", value)
    return _OTHERS[kind](field, value)


def _bool(field: Any, value: JSON) -> bool:
    if not isinstance(value, bool):
        raise _refused(f"true or false for {field.full_name}", value)
    return value


def _text(field: Any, value: JSON) -> str:
    try:
        if isinstance(value, str) and value.encode() is not None:
            return value
    except UnicodeEncodeError:
        pass
    raise _refused(f"a text for {field.full_name}", value)


def _bytes(field: Any, value: JSON) -> bytes:
    try:
        if isinstance(value, str):
            return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        pass
    raise _refused(f"base64 for {field.full_name}", value)


def _enum(field: Any, value: JSON) -> int:
    enum = field.enum_type
    if enum.full_name == NULL and value is None:
        return 0
    if isinstance(value, str) and value in enum.values_by_name:
        return int(enum.values_by_name[value].number)
    if type(value) is int and -(2**31) <= value < 2**31 and (not enum.is_closed or value in enum.values_by_number):
        return value
    raise _refused(f"a name or a number of {enum.full_name}", value)


_OTHERS: Mapping[int, Callable[[Any, JSON], Any]] = {
    FieldDescriptor.TYPE_BOOL: _bool,
    FieldDescriptor.TYPE_STRING: _text,
    FieldDescriptor.TYPE_BYTES: _bytes,
    FieldDescriptor.TYPE_ENUM: _enum,
}


def _fill_special(message: Any, name: str, value: JSON) -> None:
    if name == TIMESTAMP:
        try:
            message.FromJsonString(value)
        except (ValueError, TypeError, AttributeError):
            raise _refused("RFC 3339 for a Timestamp", value) from None
    elif name == DURATION:
        if type(value) is not int or not abs(value) < 2**63 * SECOND:
            raise _refused("an integer of nanoseconds for a Duration", value)
        seconds, nanoseconds = divmod(abs(value), SECOND)
        sign = 1 if value >= 0 else -1
        message.seconds, message.nanos = sign * seconds, sign * nanoseconds
    elif name in WRAPPERS:
        message.value = _scalar(message.DESCRIPTOR.fields_by_name["value"], value)
    elif name in TREES:
        _fill_tree(message, value)


def _fill_tree(message: Any, value: JSON) -> None:
    kind = message.DESCRIPTOR.name
    fields = message.DESCRIPTOR.fields_by_name
    if kind == "Struct":
        if not isinstance(value, dict):
            raise _refused("an object for a Struct", value)
        for key, member in value.items():
            _fill_tree(message.fields[_text(fields["fields"], key)], member)
    elif kind == "ListValue":
        if not isinstance(value, list):
            raise _refused("a list for a ListValue", value)
        for member in value:
            _fill_tree(message.values.add(), member)
    elif value is None:
        message.null_value = 0
    elif isinstance(value, bool):
        message.bool_value = value
    elif isinstance(value, str):
        message.string_value = _text(fields["string_value"], value)
    elif isinstance(value, (int, float)):
        if isinstance(value, int) and int(float(value)) != value:
            raise _refused("a number that a double holds for a Value", value)
        message.number_value = _scalar(fields["number_value"], value)
    else:
        inner = message.struct_value if isinstance(value, dict) else message.list_value
        inner.SetInParent()
        _fill_tree(inner, value)


def _fill_any(schema: Schema, message: Any, value: Mapping[str, JSON]) -> None:
    url = value.get("@type")
    if not isinstance(url, str):
        raise _refused("a `@type` for an Any", dict(value))
    message.type_url = url
    rest = {key: member for key, member in value.items() if key != "@type"}
    try:
        descriptor = schema.pool.FindMessageTypeByName(url.rpartition("/")[2])
    except KeyError:
        message.value = _bytes(message.DESCRIPTOR.fields_by_name["value"], rest.get("value", ""))
        return
    inner = message_factory.GetMessageClass(descriptor)()
    _fill(schema, inner, rest.get("value") if is_special(descriptor.full_name) else rest)
    message.value = inner.SerializeToString(deterministic=True)
