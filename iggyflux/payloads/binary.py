"""What msgpack and cbor share: their libraries read bytes, and one walker makes plain JSON values of the result.

A value that the mapping does not read, or that a later equal key replaces, is not checked.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain
from math import isfinite
from typing import TypeAlias

from iggyflux.errors import DecodeError
from iggyflux.payloads.format import BAD_KEY, FOREIGN_TYPE, MAX_DEPTH, duplicate_key, not_finite
from iggyflux.reads import Reads
from iggyflux.records import JSON


class Members(list[object]):
    """The keys and values of an object in turn, for objects of which a dict would hide members.

    In Python 1, 1.0 and True are equal keys.
    """


@dataclass(frozen=True, slots=True, eq=False)
class TaggedValue:
    """A tag of CBOR with its content."""

    number: int
    content: object


_SIMPLE = {str, int, bool, type(None)}

Special: TypeAlias = Callable[[object], JSON]
"""The type of a function that returns the JSON form of a format's own type, or raises `DecodeError` if it has none."""


def plain(value: object, reads: Reads, special: Special, non_finite: bool = False) -> JSON:
    """Return the part of `value` that `reads` names; raise `DecodeError` if it has no JSON form.

    With `non_finite`, NaN and infinities are kept.
    """
    if type(value) in _SIMPLE:
        return value  # type: ignore[return-value]
    if isinstance(value, float):
        if non_finite or isfinite(value):
            return value
        raise not_finite(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    keys_and_values = _opened(value)
    if keys_and_values is not None:
        keys, values = keys_and_values
        last = dict(zip(map(_required_text, keys), values, strict=True))
        if reads.whole:
            return {key: plain(member, reads, special, non_finite) for key, member in last.items()}
        return {
            key: plain(member, reads.keys[key], special, non_finite)
            for key, member in last.items()
            if key in reads.keys
        }
    if isinstance(value, list):
        elements = reads if reads.whole else reads.items
        return [] if elements is None else [plain(element, elements, special, non_finite) for element in value]
    return special(value)


def check_keys(value: object) -> None:
    """Raise `DecodeError` if an object in `value`, read or not, has two keys with one text."""
    parts: Iterable[object] = ()
    keys_and_values = _opened(value)
    if keys_and_values is not None:
        seen: set[str] = set()
        for key in keys_and_values[0]:
            text = _text(key)
            if text in seen:
                raise duplicate_key(text)
            if text is not None:
                seen.add(text)
        parts = chain(*keys_and_values)
    elif isinstance(value, (list, tuple)):
        parts = value
    elif isinstance(value, TaggedValue):
        parts = (value.content,)
    for part in parts:
        if type(part) not in _SIMPLE:
            check_keys(part)


def _opened(value: object) -> tuple[Iterable[object], Iterable[object]] | None:
    """Return the keys and the values of an object; None for another value."""
    if isinstance(value, Members):
        return value[::2], value[1::2]
    # cbor2 makes a frozendict of an object in a key.
    return (value.keys(), value.values()) if isinstance(value, Mapping) else None


def _text(key: object) -> str | None:
    """Return the text of a key, an integer in decimal; None for another type."""
    return key if type(key) is str else str(key) if type(key) is int else None


def _required_text(key: object) -> str:
    text = _text(key)
    if text is None:
        if key is None or isinstance(key, (bool, float)):
            raise DecodeError(BAD_KEY, f"the key {key} is neither a string nor an integer")
        if isinstance(key, (list, tuple, Mapping)):
            raise DecodeError(BAD_KEY, "a key is a list or an object, and neither a string nor an integer")
        raise foreign("bytes, a tag or an extension type as a key")
    return text


def foreign(what: str) -> DecodeError:
    """Return the failure for a type that JSON does not have."""
    return DecodeError(FOREIGN_TYPE, f"{what} has no JSON form")


def time_text(seconds: int, nanoseconds: int) -> str:
    """Return a time as RFC 3339 with nine digits; raise `DecodeError` outside the years 1 to 9999."""
    try:
        second = datetime(1970, 1, 1) + timedelta(seconds=seconds)  # noqa: DTZ001  (it is written as UTC)
    except OverflowError:
        raise foreign("a time outside the years 1 to 9999") from None
    if not 0 <= nanoseconds < 1_000_000_000:
        raise foreign("a time with a second or more in its nanoseconds")
    return f"{second.isoformat()}.{nanoseconds:09}Z"


def is_plain(value: object, depth: int = 0) -> bool:
    """Return whether `value` is exactly of JSON's types, with finite numbers and not too deep."""
    if type(value) is dict:
        inner: Iterable[object] = value.values()
        if not {str}.issuperset(map(type, value)):
            return False
    elif type(value) is list:
        inner = value
    else:
        return type(value) in _SIMPLE or (type(value) is float and isfinite(value))
    if depth >= MAX_DEPTH:
        return False
    return all(
        type(each) in _SIMPLE or (isfinite(each) if type(each) is float else is_plain(each, depth + 1))
        for each in inner
    )
