"""The form of a payload format, and what all formats have in common.

A format converts bytes to plain JSON values (exactly dict, list, str, int, float, bool or None: jmespath compares
classes) and back.  For any bytes at all `decode` returns a value or raises `DecodeError`; it never changes a value.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeAlias

from iggyflux.errors import DecodeError, RecordError
from iggyflux.lineprotocol.checks import shorten
from iggyflux.reads import Reads
from iggyflux.records import JSON
from iggyflux.structure import Structure
from iggyflux.values import describe

MAX_PAYLOAD_BYTES = 64_000_000
MAX_DEPTH = 128
MAX_VALUES: Final = 10_000_000
"""The values of one payload, where few bytes may become many values."""

TOO_LARGE = "IFX401"
NOT_UTF8 = "IFX402"
TOO_DEEP = "IFX403"
MALFORMED = "IFX404"
DUPLICATE_KEY = "IFX405"
BAD_NUMBER = "IFX406"
BAD_KEY = "IFX407"
FOREIGN_TYPE = "IFX408"
BAD_TABLE = "IFX410"
NO_MATCH = "IFX411"
NOT_ENCODABLE = "IFX420"
NOTHING_KNOWN = "IFX442"

Options: TypeAlias = Mapping[str, Any]
"""JSON values as the document has them, and what `bind` adds."""
ReadFile: TypeAlias = Callable[[str, str | None], bytes | None]
"""The type of a function from the name of a file and the option that names it to its content; None: it is reported.

Without an option the file need not be there, and nothing is reported.
"""
Decode: TypeAlias = Callable[[bytes, Options, Reads | None, bool], JSON]
ReadPayload: TypeAlias = Callable[[bytes], JSON]


class OptionError(ValueError):
    """An invalid option of a format.

    `option` is its name, or a pointer from the options to a part of it (None: the options together).
    """

    def __init__(
        self, reason: str, option: str | None = None, *, code: str = "IFX118", hint: str | None = None
    ) -> None:
        self.reason = reason
        self.option = option
        self.code = code
        self.hint = hint
        super().__init__(reason)


@dataclass(frozen=True, slots=True)
class Format:
    """A payload format.

    `decode(payload, options, reads, strict)` may omit what `reads` does not name (None: everything is read).  Of
    duplicate keys the last wins; `strict` rejects them.  `decode_non_finite` does the same, but NaN and infinities are
    floats instead of failures; None for a format without them.  `decode_typed` does the same as `decode`, but integers
    that are unsigned in the payload are `Unsigned`; None for a format without them.  Of a format with both it takes
    `non_finite=True`.  `encode(value, options)` raises `RecordError` for a value that the format cannot hold.  `binary`
    says that a payload is not text for people.  `check(options)` is called when a document is compiled and raises
    `OptionError`; then `bind(options, read)` returns the options with what it made of files that they name, or raises
    it, too.  `decode` and `encode` rely on both.  `prepare(options, reads, strict, non_finite, typed)` returns what
    decodes many payloads, where a format has something to prepare.  Of payloads that can be decoded,
    `undeclared(payloads, options)` returns the indices of those with fields that their schema does not declare, and
    `undeclared_fields(payload, options)` the numbers of these fields by type; None for a format in which there are
    none.  `structure(options)` returns what the schema says of the values, None if there is no schema.
    `row_lines(payload, options)` returns the line of the payload at which each row begins that `decode` returns,
    counted from 1; None for a format that has no rows.
    """

    decode: Decode
    encode: Callable[[JSON, Options], bytes]
    binary: bool = False
    decode_non_finite: Decode | None = None
    decode_typed: Decode | None = None
    check: Callable[[Options], None] = lambda options: None  # noqa: ARG005  (nothing to check)
    bind: Callable[[Options, ReadFile], Options] = lambda options, read: options  # noqa: ARG005  (no file)
    prepare: Callable[[Options, Reads | None, bool, bool, bool], ReadPayload] | None = None
    undeclared: Callable[[Sequence[bytes], Options], Sequence[int]] | None = None
    undeclared_fields: Callable[[bytes, Options], Mapping[str, Collection[int]]] | None = None
    structure: Callable[[Options], Structure | None] = lambda options: None  # noqa: ARG005  (no schema)
    row_lines: Callable[[bytes, Options], Sequence[int]] | None = None

    def bound(
        self, options: Options, reads: Reads | None, strict: bool, *, non_finite: bool = False, typed: bool = False
    ) -> ReadPayload:
        """Return the decoder for these arguments: `decode_non_finite` or `decode_typed` if it is wanted and there."""
        if self.prepare is not None:
            return self.prepare(options, reads, strict, non_finite, typed)
        decode: Callable[..., JSON] = self.decode
        if non_finite and self.decode_non_finite is not None:
            decode = self.decode_non_finite
        if typed and self.decode_typed is not None:
            keeps = non_finite and self.decode_non_finite is not None
            typed_decode: Callable[..., JSON] = self.decode_typed
            decode = partial(typed_decode, non_finite=True) if keeps else typed_decode
        return lambda payload: decode(payload, options, reads, strict)

    def finder_of_undeclared(self, options: Options, strict: bool) -> Callable[[Sequence[bytes]], Sequence[int]] | None:
        """Return `undeclared` for these options; None if no payload that is decoded has such fields."""
        find = self.undeclared
        return None if find is None or strict else lambda payloads: find(payloads, options)


def line_counter(text: str) -> Callable[[int], int]:
    """Return what tells at which line of `text` an index is, as an editor counts; it is asked for growing indices."""
    line, counted = 1, 0

    def line_at(index: int) -> int:
        nonlocal line, counted
        line += sum(text.count(end, counted, index) for end in "\r\n") - text.count("\r\n", counted, index)
        counted = index
        return line

    return line_at


def check_size(payload: bytes) -> None:
    """Raise DecodeError if `payload` is larger than any message can be."""
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise DecodeError(TOO_LARGE, f"the payload has more than {MAX_PAYLOAD_BYTES:,} bytes")


def too_many() -> DecodeError:
    """Return the failure for a payload of more than `MAX_VALUES` values."""
    return DecodeError(TOO_LARGE, f"the payload has more than {MAX_VALUES:,} values")


def decode_utf8(payload: bytes) -> str:
    """Return the text of a payload."""
    check_size(payload)
    try:
        return payload.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise not_utf8(exc) from None


ENCODINGS: Final = (
    "utf-8",
    "windows-1252",
    *(f"windows-{number}" for number in (1250, 1251, *range(1253, 1259))),
    *(f"iso-8859-{number}" for number in (*range(1, 12), *range(13, 17))),
    *("koi8-r", "koi8-u", "cp437", "cp850", "cp852", "cp866", "mac-roman"),
    *("utf-16", "utf-16le", "utf-16be"),
)
"""The encodings of text: all but the last three have ASCII in one byte, and so its line ends, quotes and delimiters.

An encoding in which a part of a character can look like one of these is not among them.
"""
_WITHOUT_MARK: Final = ("utf-16le", "utf-16be")
"""Of these Python keeps a mark at the beginning."""
_UTF_16_MARKS: Final = (b"\xff\xfe", b"\xfe\xff")


def text_encoding(options: Options) -> str:
    """Return the encoding of payloads that are text: one of `ENCODINGS`, as Python calls it too."""
    name = options.get("encoding")
    return name if name in ENCODINGS else "utf-8"


def is_wide(options: Options) -> bool:
    """Return whether payloads are text with two bytes a character, in which a byte 0x0a is not the end of a line."""
    return text_encoding(options).startswith("utf-16")


def decode_text(payload: bytes, options: Options) -> str:
    """Return the text of a payload in the encoding that `options` name, without the mark of UTF-16.

    Raise DecodeError for bytes that are not of it; UTF-16 needs a mark, unless the encoding says the order of bytes.
    """
    encoding = text_encoding(options)
    if encoding == "utf-8":
        return decode_utf8(payload)
    check_size(payload)
    if encoding == "utf-16" and not payload.startswith(_UTF_16_MARKS):
        hint = "declare `encoding: utf-16le` or `utf-16be` for payloads without a mark"
        raise DecodeError(NOT_UTF8, "the payload is not utf-16: it does not begin with a byte order mark", hint=hint)
    try:
        text = payload.decode(encoding)
    except UnicodeDecodeError as exc:
        what = "undefined byte" if exc.reason.startswith("character maps to") else exc.reason
        reason = f"the payload is not {encoding}: {what} 0x{payload[exc.start]:02x} at byte {exc.start}"
        raise DecodeError(NOT_UTF8, reason, hint="declare the `encoding` that the producer has") from None
    return text.removeprefix("\ufeff") if encoding in _WITHOUT_MARK else text


def encode_text(text: str, name: str, options: Options) -> bytes:
    """Return a payload that reads as `text`; raise RecordError for characters that its encoding does not have."""
    has_mark = text_encoding(options) in _WITHOUT_MARK and text.startswith("\ufeff")  # reading drops one
    return encode_exactly("\ufeff" + text if has_mark else text, name, options)


def encode_exactly(text: str, name: str, options: Options) -> bytes:
    """Return `text` in the encoding of `options`, UTF-16 with its mark; raise RecordError for what it does not have."""
    encoding = text_encoding(options)
    try:
        return text.encode(encoding)
    except UnicodeEncodeError:
        named = "UTF-8" if encoding == "utf-8" else encoding
        raise not_encodable(name, f"text that {named} can encode", text) from None


def not_utf8(exc: UnicodeDecodeError, what: str = "the payload") -> DecodeError:
    """Return the failure for bytes that are not UTF-8."""
    byte = exc.object[exc.start]
    return DecodeError(NOT_UTF8, f"{what} is not UTF-8: {exc.reason} 0x{byte:02x} at byte {exc.start}")


ONE_BYTE: Final = "windows-1252"
"""What text in Latin-1 is declared as, too: it has all its letters."""


def single_byte_encoding(data: bytes, at: int) -> tuple[str, str] | None:
    """Return the encoding of text that is not UTF-8 at index `at`, and the character there; None if it is not text.

    Encodings of one byte a character do not differ in their form: this is the one that most systems have.
    """
    name = "Windows-1252" if _NOT_LATIN_1.search(data) else "Latin-1"
    try:
        text = data.decode(name)
    except UnicodeDecodeError:
        return None
    is_text = text[at].isprintable() and text.translate(_BLANKS).isprintable()
    return (name, text[at]) if is_text else None


_NOT_LATIN_1: Final = re.compile(rb"[\x80-\x9f]")
_BLANKS: Final = {ord(blank): None for blank in "\t\r\n\xa0\xad"}
"""What is not printable and common in text."""


def too_deep() -> DecodeError:
    """Return the failure for values that are nested too deeply."""
    return DecodeError(TOO_DEEP, f"lists and objects are nested more than {MAX_DEPTH} deep")


def not_finite(value: float) -> DecodeError:
    """Return the failure for NaN or an infinity."""
    return DecodeError(BAD_NUMBER, f"{value!r} is not a finite number")


def duplicate_key(key: str) -> DecodeError:
    """Return the failure for a duplicate key of an object."""
    return DecodeError(DUPLICATE_KEY, f"duplicate key {shorten(key)}")


def not_encodable(name: str, expected: str, value: JSON) -> RecordError:
    """Return the failure for a value that format `name` cannot hold; it does not quote objects and lists."""
    return RecordError(NOT_ENCODABLE, f"{name} needs {expected}, found {describe(value)}")


def encode_utf8(text: str, name: str) -> bytes:
    """Return `text` as UTF-8; raise RecordError for an unpaired surrogate."""
    return encode_text(text, name, {})
