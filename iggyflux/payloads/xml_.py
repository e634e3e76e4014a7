"""xml: an object with the root element, by the rules of xmltodict: values are strings.

An element is null, a string, or an object of its attributes (`@name`), its children and its text (`#text`); equal
children are a list.  expat reads it, and opens nothing.  A document type with declarations, its own or elsewhere,
fails: they can define entities that grow without bounds, and expat omits what it cannot look up from attributes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from iggyflux.errors import DecodeError
from iggyflux.payloads.format import (
    MALFORMED,
    MAX_DEPTH,
    TOO_DEEP,
    Format,
    OptionError,
    Options,
    check_size,
    encode_utf8,
    not_encodable,
)
from iggyflux.reads import Reads
from iggyflux.records import JSON

_MOST_NESTED: Final = MAX_DEPTH // 2
"""Each may be a list with an object in it."""
_NOT_XML: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def decode(payload: bytes, options: Options, reads: Reads | None = None, strict: bool = False) -> JSON:  # noqa: ARG001
    """Return the root element in an object.  The encoding is what the document declares, else UTF-8 or UTF-16."""
    import xmltodict

    check_size(payload)
    try:
        tree: dict[str, JSON] = xmltodict.parse(payload, expat=_Reader, **_rules(options))
    except DecodeError:
        raise
    except (_expat().ExpatError, ValueError, LookupError) as error:  # the last two of encodings
        hint = _MANY_LINES if payload.strip() and getattr(error, "code", None) in _expat_codes() else None
        raise DecodeError(MALFORMED, f"not XML: {error}", hint=hint) from None
    return tree


_MANY_LINES: Final = (
    "a document over several lines is one message: give its file to `dry-run`, `load` or `log append` with `--whole`"
)


def is_begun(line: bytes) -> bool:
    """Return whether a line begins a document of XML that does not end in it."""
    if not line.lstrip().startswith(b"<"):
        return False
    try:
        decode(line, {})
    except DecodeError as error:
        return error.hint == _MANY_LINES
    return False


@cache
def _expat_codes() -> frozenset[int]:
    """Return the errors of a document that ends before its root element does."""
    errors = _expat().errors
    names = errors.XML_ERROR_NO_ELEMENTS, errors.XML_ERROR_UNCLOSED_TOKEN, errors.XML_ERROR_UNCLOSED_CDATA_SECTION
    return frozenset(errors.codes[name] for name in names)


def encode(value: JSON, options: Options | None = None) -> bytes:
    """Return the object of one root element as XML; numbers and booleans are written as text."""
    import xmltodict

    options = options or {}
    prefix = str(options.get("attribute_prefix", "@"))
    if not isinstance(value, dict) or len(value) != 1 or not prefix:
        raise not_encodable("xml", "an object with one root element", value)
    try:
        if not _has_texts_as_attributes(value, prefix):
            raise not_encodable("xml", "texts, numbers and booleans as attributes", value)
        text: str = xmltodict.unparse(value, attr_prefix=prefix).replace("\r", "&#13;")  # a bare one is read as \n
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise not_encodable("xml", "names of XML, and texts, objects and lists in them", value) from None
    if _NOT_XML.search(text):
        raise not_encodable("xml", "characters that XML has", value)
    payload = encode_utf8(text, "xml")
    try:
        decode(payload, options)
    except DecodeError:  # a name that xmltodict does not check, or of a namespace that the options do not name
        raise not_encodable("xml", "names of XML", value) from None
    return payload


def _has_texts_as_attributes(value: JSON, prefix: str) -> bool:
    """Return whether each member whose name begins with `prefix` can be an attribute, which is never null."""
    if isinstance(value, list):
        return all(_has_texts_as_attributes(each, prefix) for each in value)
    if not isinstance(value, dict):
        return True
    for name, each in value.items():
        is_of_namespaces = name == f"{prefix}xmlns" and isinstance(each, dict)
        if name.startswith(prefix) and not is_of_namespaces:
            if not isinstance(each, str | int | float):
                return False
        elif not is_of_namespaces and not _has_texts_as_attributes(each, prefix):
            return False
    return True


def check(options: Options) -> None:
    """Raise OptionError for two namespaces with one prefix."""
    prefixes = [each for each in _object(options.get("namespaces")).values() if each]
    if len(set(prefixes)) != len(prefixes):
        raise OptionError("two namespaces have one prefix", "namespaces")


def _rules(options: Options) -> dict[str, Any]:
    """Return the options as xmltodict has them."""
    lists = options.get("lists")
    rules: dict[str, Any] = {"attr_prefix": options.get("attribute_prefix", "@")}
    if isinstance(lists, list):
        rules["force_list"] = tuple(lists)
    if "namespaces" in options:
        rules["process_namespaces"] = True
        rules["namespaces"] = _object(options["namespaces"])
    return rules


def _object(value: JSON) -> Mapping[str, JSON]:
    return value if isinstance(value, dict) else {}


def _expat() -> Any:
    from xml.parsers import expat

    return expat


class _Reader:
    """What xmltodict takes for a parser of expat.

    It refuses declarations, and elements that are nested too deeply.
    """

    def __init__(self, encoding: str | None, separator: str | None) -> None:
        self._made_with = encoding, separator

    @classmethod
    def ParserCreate(cls, encoding: str | None, separator: str | None) -> _Reader:  # noqa: N802  (names of expat)
        """Return a parser; xmltodict sets its attributes."""
        return cls(encoding, separator)

    def Parse(self, data: bytes, is_final: bool) -> None:  # noqa: N802
        """Parse a document."""
        parser = _expat().ParserCreate(*self._made_with)
        given = {name: value for name, value in vars(self).items() if name != "_made_with"}
        start, end = given["StartElementHandler"], given["EndElementHandler"]
        depth = 0

        def start_element(name: str, attributes: object) -> None:
            nonlocal depth
            depth += 1
            if depth > _MOST_NESTED:
                raise DecodeError(TOO_DEEP, f"elements are nested more than {_MOST_NESTED} deep")
            start(name, attributes)

        def end_element(name: str) -> None:
            nonlocal depth
            depth -= 1
            end(name)

        handlers = {
            "StartElementHandler": start_element,
            "EndElementHandler": end_element,
            "StartDoctypeDeclHandler": _refuse_declarations,
        }
        for name, value in (given | handlers).items():
            setattr(parser, name, value)
        parser.Parse(data, is_final)


def _refuse_declarations(_name: str, system: str | None, public: str | None, has_own: int) -> None:
    if has_own or system is not None or public is not None:
        raise DecodeError(MALFORMED, "the document type has declarations, which are not read")


FORMAT = Format(decode, encode, check=check)
