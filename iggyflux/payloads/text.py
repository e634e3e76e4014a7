"""text: the whole payload as one string, or the named groups of a regular expression.

Expressions are RE2's: they take linear time, so that no payload can stop a partition.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from iggyflux.errors import DecodeError
from iggyflux.lineprotocol.checks import shorten
from iggyflux.payloads.format import (
    NO_MATCH,
    Format,
    OptionError,
    Options,
    decode_text,
    encode_text,
    not_encodable,
)
from iggyflux.reads import Reads
from iggyflux.records import JSON


def decode(payload: bytes, options: Options, reads: Reads | None = None, strict: bool = False) -> JSON:  # noqa: ARG001
    """Return the payload as a string, or with `pattern` an object of its named groups (null for an unused group)."""
    text = decode_text(payload, options)
    pattern = options.get("pattern")
    if pattern is None:
        return text
    found = _compile(str(pattern)).search(text)
    if found is None:
        raise DecodeError(NO_MATCH, f"the payload does not match the pattern: {shorten(text)}")
    groups: dict[str, JSON] = found.groupdict()
    return groups


def encode(value: JSON, options: Options | None = None) -> bytes:
    """Return a string in the encoding of the options."""
    if not isinstance(value, str):
        raise not_encodable("text", "a string", value)
    return encode_text(value, "text", options or {})


def check(options: Options) -> None:
    """Raise OptionError unless RE2 accepts the pattern, and it has a named group."""
    pattern = options.get("pattern")
    if pattern is not None and not _compile(str(pattern)).groupindex:
        raise OptionError("the pattern has no named group: write (?P<name>…)", "pattern")


@lru_cache(maxsize=64)
def _compile(pattern: str) -> Any:  # re2 publishes no types
    import re2

    quiet = re2.Options()
    quiet.log_errors = False
    try:
        return re2.compile(pattern, quiet)
    except re2.error as exc:
        reason = exc.args[0].decode() if exc.args and isinstance(exc.args[0], bytes) else str(exc)
        raise OptionError(f"invalid regular expression (RE2): {reason}", "pattern") from None
    except UnicodeEncodeError:
        raise OptionError("the pattern contains an unpaired surrogate", "pattern") from None


FORMAT = Format(decode, encode, check=check)
