"""Payloads of logfmt and XML with the shapes of products, and the value that each has by the rules of docs/language.md.

The value is made of what the payload was written from: nothing of it is parsed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

from tests.forms import Form, Payload, leaves_of, vocabulary_of_value
from tests.independent_evaluation import Failed
from tests.payload_shapes import SHAPES, Members, mutated, parse
from tests.schema_documents import Vocabulary, is_one_in

# --- logfmt ---

_TEXTS = [
    "", "7", "-2.50", "true", "null", "1e3", "two words", 'say "hi"', "a=b", "back\\slash", "日本", "e\u0301", "\u2028",
    "Küche é", "\x01", "tab\tin it", "\U0001d518", "two\nlines",
]  # fmt: skip
_BROKEN_LINES = ['a="open', 'a=x"y', "=1", 'a="x"b', "a=1\nb=2", 'a="\\q"', 'a="\\ud83d"', "", "   ", '"a"=1']


def logfmt(shape: str, random: Random) -> Form:
    """Return lines of `key=value`."""
    leaves = {re.sub(r'[\s="\x00-\x1f\x7f]', "-", name) or "-": value for name, value in leaves_of(shape).items()}
    names = random.sample(sorted(leaves), min(len(leaves), random.randint(2, 8)))
    usual: dict[str, Any] = {name: value if value is True else str(leaves[name]) for name, value in leaves.items()}

    def written(pairs: list[tuple[str, Any]], random: Random) -> Payload:
        words = [name if value is True else f"{name}={_quoted(value, random)}" for name, value in pairs]
        blank, end = random.choice([" ", " ", "  ", "\t"]), random.choice(["", "", "\n", "\r\n"])
        return Payload((blank * random.randint(0, 1) + blank.join(words) + end).encode(), dict(pairs))

    def draw(random: Random) -> Payload:
        if is_one_in(12, random):
            return Payload(random.choice(_BROKEN_LINES).encode(), Failed())
        if is_one_in(12, random):
            return Payload(b"a=\xff", Failed())
        pairs = [
            (name, random.choice([*_TEXTS, True]) if is_one_in(3, random) else usual[name])
            for name in random.choices(names, k=random.randint(1, len(names) + 1))
        ]
        return written(pairs, random)

    vocabulary = Vocabulary([json.dumps(name, ensure_ascii=False) for name in names], names)
    return Form("logfmt", vocabulary, None, lambda _: written([(n, usual[n]) for n in names], Random(0)), draw)


def _quoted(text: str, random: Random) -> str:
    if re.fullmatch(r'[^\s"\x00-\x1f\x7f]*', text) and is_one_in(2, random):
        return text
    if is_one_in(4, random):  # raw line feeds and control characters, and no escape that need not be
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return json.dumps(text, ensure_ascii=is_one_in(2, random))


# --- xml ---

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_NOISE = ["<!-- a > b -->", "<?target x?>", "<![CDATA[]]>", "\n  "]
_HOMES = {"": "urn:plant:meters", "p": "urn:plant:parts", "q": "urn:nobody"}
"""The namespaces of the prefixes in payloads."""


@dataclass
class Element:
    """An element: its name with a prefix, and its content in order."""

    name: str
    attributes: dict[str, str] = field(default_factory=dict)
    content: list[str | Element] = field(default_factory=list)


@dataclass(frozen=True)
class _Xml:
    """The names of a form that are attributes, and those that have a prefix; the options that the form draws."""

    attributes: frozenset[str]
    prefixed: Mapping[str, str]
    options: Mapping[str, Any]
    has_spaces: bool

    def element(self, name: str, tree: Any) -> Element:
        """Return the element of a value: objects become children and attributes, lists repeated children."""
        made = Element(self.written(name))
        if not isinstance(tree, Members):
            made.content = [] if tree is None else [_text(tree)]
            return made
        for key, value in tree:
            inner = _as_name(key)
            if inner in self.attributes and not isinstance(value, list):
                made.attributes[self.written(inner)] = _text(value)
            else:
                each = value if isinstance(value, list) and not isinstance(value, Members) else [value]
                made.content += [self.element(inner, one) for one in each]
        return made

    def value(self, root: Element) -> Any:
        found: dict[str, Any] = {}
        self._put(found, root)
        return found

    def _put(self, holder: dict[str, Any], element: Element) -> None:
        name, value = self._name(element.name), self._inner(element)
        if name in holder:
            holder[name] = [*(holder[name] if isinstance(holder[name], list) else [holder[name]]), value]
        else:
            holder[name] = [value] if name in self.options.get("lists", ()) else value

    def _inner(self, element: Element) -> Any:
        mark = self.options.get("attribute_prefix", "@")
        members: dict[str, Any] = {}
        declared = {}
        for name, text in element.attributes.items():
            if "namespaces" in self.options and name.startswith("xmlns"):
                declared[name.partition(":")[2]] = text
            else:
                members[mark + self._name(name, is_attribute=True)] = text
        if declared:
            members[f"{mark}xmlns"] = declared
        for each in element.content:
            if isinstance(each, Element):
                self._put(members, each)
        text = "".join(each for each in element.content if isinstance(each, str)).strip()
        if not members:
            return text or None
        if text:
            members["#text"] = text
        return members

    def written(self, name: str) -> str:
        """Return a name with its prefix."""
        return self.prefixed.get(name, "") + name

    def name(self, name: str) -> str:
        """Return the name that an element has for expressions."""
        return self._name(self.written(name))

    def _name(self, written: str, *, is_attribute: bool = False) -> str:
        prefix, _, name = written.rpartition(":")
        if (
            not self.has_spaces
            or "namespaces" not in self.options
            or "xmlns" in written
            or (is_attribute and not prefix)
        ):
            return written
        given = self.options["namespaces"].get(_HOMES[prefix], _HOMES[prefix])
        return f"{given}:{name}" if given else name


def _as_name(key: str) -> str:
    """Return a name of XML for a member."""
    return re.sub(r"[^\w.-]", "-", key if re.match(r"[A-Za-z_]", key) else f"_{key}", flags=re.ASCII)


def _text(value: Any) -> str:
    return _NOT_XML.sub("?", str(value).lower() if isinstance(value, bool) else "" if value is None else str(value))


def xml(shape: str, random: Random) -> Form:
    """Return XML with attributes, namespaces and mixed content."""
    names = sorted({_as_name(key) for tree in _objects(parse(SHAPES[shape])) for key, _ in tree})
    options: dict[str, Any] = {"format": "xml"}
    if is_one_in(2, random):
        options["attribute_prefix"] = random.choice(["@", "_", "", "at-"])
    has_spaces = is_one_in(2, random)
    prefixed = {name: random.choice(["p:", "q:"]) for name in names if is_one_in(4, random)} if has_spaces else {}
    if is_one_in(2, random):
        options["namespaces"] = random.choice([{_HOMES[""]: "", _HOMES["p"]: "m"}, {_HOMES["p"]: "p"}, {}])
    rules = _Xml(frozenset(name for name in names if is_one_in(3, random)), prefixed, options, has_spaces)
    if is_one_in(2, random):
        options["lists"] = [rules.name(name) for name in [*names, "doc"] if is_one_in(3, random)]
        options["lists"] = options["lists"] or ["doc"]

    def root(text: str) -> Element:
        made = rules.element("doc", parse(text))
        if has_spaces:
            made.attributes |= {"xmlns" + (prefix and f":{prefix}"): home for prefix, home in _HOMES.items()}
        return made

    def usual(_: Random) -> Payload:
        made = root(SHAPES[shape])
        return Payload(_written(made, None).encode(), rules.value(made))

    def draw(random: Random) -> Payload:
        made = root(mutated(shape, random))
        for _ in range(random.randint(0, 2)):
            _mix(made, random)
        text = _written(made, random)
        if is_one_in(10, random):
            return Payload(_broken(text, random), Failed())
        head, encoding = random.choice(_HEADS)
        data = (head + text).encode(encoding, "xmlcharrefreplace")
        return Payload(data, rules.value(made))

    vocabulary = vocabulary_of_value(rules.value(root(SHAPES[shape])))
    return Form(options if len(options) > 1 else "xml", vocabulary, None, usual, draw)


_HEADS = [
    ("", "utf-8"), ("", "utf-8"), ("\ufeff", "utf-8"), ("", "utf-16"), ("<!DOCTYPE doc>", "utf-8"),
    ("<?xml version='1.0' encoding='ISO-8859-1'?>", "latin-1"), ('<?xml version="1.0"?>\r\n<!-- - -->', "utf-8"),
]  # fmt: skip


def _objects(tree: Any) -> list[Members]:
    inner = [value for _, value in tree] if isinstance(tree, Members) else tree if isinstance(tree, list) else []
    return [tree] * isinstance(tree, Members) + [found for each in inner for found in _objects(each)]


def _mix(element: Element, random: Random) -> None:
    """Put text between the children of an element somewhere."""
    inner = [each for each in element.content if isinstance(each, Element)]
    if inner and is_one_in(2, random):
        _mix(random.choice(inner), random)
    else:
        text = random.choice(["7", " x ", "\n", "\u2028", "]]>", "a&b<c", "\xa0", "true", "\r"])
        element.content.insert(random.randint(0, len(element.content)), text)


def _written(element: Element, random: Random | None) -> str:
    attributes = "".join(f" {name}={_attribute(text, random)}" for name, text in element.attributes.items())
    if not element.content and (random is None or is_one_in(2, random)):
        return f"<{element.name}{attributes}/>"
    inner = [_characters(each, random) if isinstance(each, str) else _written(each, random) for each in element.content]
    if random is not None and is_one_in(6, random):
        inner.insert(random.randint(0, len(inner)), random.choice(_NOISE[:3] if _has_text(element) else _NOISE))
    return f"<{element.name}{attributes}>{''.join(inner)}</{element.name}{' ' * (random is not None)}>"


def _has_text(element: Element) -> bool:
    return any(isinstance(each, str) for each in element.content)


def _characters(text: str, random: Random | None) -> str:
    is_verbatim = "]]>" not in text and "\r" not in text and all(each < "\u0100" for each in text)
    if random is not None and is_verbatim and is_one_in(6, random):
        return f"<![CDATA[{text}]]>"
    if random is not None and is_one_in(6, random):
        return "".join(
            f"&#{'x' * hexed}{ord(each):{'x' if hexed else 'd'}};" for each in text for hexed in [is_one_in(2, random)]
        )
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("\r", "&#13;")


def _attribute(text: str, random: Random | None) -> str:
    mark = "'" if random is not None and is_one_in(3, random) else '"'
    found = text.replace("&", "&amp;").replace("<", "&lt;").replace(mark, "&quot;" if mark == '"' else "&apos;")
    return mark + re.sub("[\t\n\r]", lambda found: f"&#{ord(found[0])};", found) + mark


def _broken(text: str, random: Random) -> bytes:
    end = text.rindex("</") if "</" in text else len(text)
    return random.choice(
        [
            text[: random.randrange(len(text))],
            text + "<doc/>",
            text[:end] + "&nothing;" + text[end:] if end < len(text) else "<",
            '<!DOCTYPE doc [<!ENTITY e "x">]>' + text,
            '<!DOCTYPE doc SYSTEM "file:///etc/hosts">' + text,
            "<a>" * 65 + "</a>" * 65,
            '<doc a="1" a="2"/>',
            "<doc>\x01</doc>",
            "",
        ]
    ).encode()
