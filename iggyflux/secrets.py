"""Secrets that never appear in output: `Secret` itself, and `Scrubber` for other texts.

Only this module knows the forms in which a secret may appear: in an exception of a library, in an answer of a server,
in a line of a file that a problem quotes.
"""

from __future__ import annotations

import base64
import html
import json
import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from urllib.parse import quote

from iggyflux.errors import closest

HIDDEN = "***"
SECRET_KEYS = frozenset({"token", "password", "connection_string", "client_key_passphrase"})
"""The keys of a pipeline whose values are secrets; all values under `headers` are secrets too."""

_SHORT = 3
"""A secret of so few characters may also be a part of words, so it is hidden only where it is a value."""


class Secret:
    """A secret string: only `reveal()` returns it; everything that prints it gives `***`."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the secret itself, for the one line of code that sends it."""
        return self._text

    def __repr__(self) -> str:
        return HIDDEN

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __reduce__(self) -> tuple[type[Secret], tuple[str]]:
        raise TypeError("a secret is not pickled")


class Scrubber:
    """Replaces secrets by `***`, in every form in which they may appear.

    A text is searched as it is, and with its escapes decoded, level by level.  If the text was cut, at an ellipsis or
    at its end (`is_cut`), the start of a secret before the cut is hidden too.  Even so, scrub before cutting.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        forms = {_folded(form) for secret in secrets if secret for form in _forms(secret)} - {""}
        self._in_order = sorted(forms)
        self._longest = max(map(len, forms), default=0)
        self._long: dict[str, dict[int, set[str]]] = {}
        """The forms by their first characters and their lengths: a search takes no time by their number."""
        for form in sorted(forms, key=len, reverse=True):  # the longest first, so that no part of it remains
            if len(form) > _SHORT:
                self._long.setdefault(form[: _SHORT + 1], {}).setdefault(len(form), set()).add(form)
        self._short = [form for form in self._in_order if len(form) <= _SHORT]
        self._short_pattern = re.compile("|".join(map(_pattern_of_short, self._short)) or r"(?!)")

    def __repr__(self) -> str:
        return f"Scrubber({HIDDEN})"

    def __call__(self, text: str, *, is_cut: bool = False) -> str:
        """Return `text` without secrets; `is_cut` says that it was cut at its end."""
        shown, at = "", 0
        for start, end in sorted(self.spans(text, is_cut=is_cut)):
            if end > at:
                if start >= at:  # else it overlaps a secret that is hidden already
                    shown += text[at:start] + HIDDEN
                at = end
        return shown + text[at:]

    def spans(self, text: str, *, is_cut: bool = False) -> list[tuple[int, int]]:
        """Return the spans of `text` that are secrets."""
        found: list[tuple[int, int]] = []
        if not self._in_order:
            return found
        level = _Level(text)
        for _ in range(_LEVELS):
            folded = _folded(level.text)
            heads = [at for at in range(len(folded)) if folded[at : at + _SHORT + 1] in self._long]
            spans = [*self._spans_of_long(folded, heads), *(at.span() for at in self._short_pattern.finditer(folded))]
            found += ((level.source(start), level.source(end, is_end=True)) for start, end in spans)
            cuts = self._spans_of_cuts(level, folded, heads, is_cut=is_cut)
            found += ((level.source(start), end) for start, end in cuts)
            if not _ESCAPE.search(level.text):
                break
            level = level.unescaped()
        return found

    def _spans_of_long(self, text: str, heads: Iterable[int]) -> Iterator[tuple[int, int]]:
        """Yield where forms are, without those inside of another."""
        at = 0
        for start in heads:
            for size, forms in self._long[text[start : start + _SHORT + 1]].items() if start >= at else ():
                if text[start : start + size] in forms:
                    at = start + size
                    yield start, at
                    break

    def _spans_of_cuts(
        self, level: _Level, folded: str, heads: list[int], *, is_cut: bool
    ) -> Iterator[tuple[int, int]]:
        """Yield where a secret that a cut left in part begins, and where it ends in the source."""
        cuts = [(len(folded), level.source(len(folded), is_end=True))] * is_cut
        for match in _ELLIPSIS.finditer(folded):
            dots = match.start("dots")
            end = level.source(dots, is_end=True)
            cuts.append((dots, end))
            if match.start() < dots:  # with backslashes of the secret before it, the quote itself looks escaped
                cuts.append((match.start(), end - 1))
        if not cuts:
            return
        short = {at for form in self._short for at in range(len(folded)) if folded.startswith(form, at)}
        starts = sorted({*heads, *short})
        longest = self._longest + _LONGEST_ESCAPE
        for cut, end in cuts:
            part = _PART.search(folded, max(cut - _LONGEST_ESCAPE, 0), cut)
            ends = (cut, *(range(part.start(), cut) if part else ()))
            for start in starts[bisect_left(starts, cut - longest) : bisect_left(starts, cut)]:
                if any(self._is_start_of_form(folded[start:at]) for at in ends):
                    yield start, end
                    break

    def _is_start_of_form(self, text: str) -> bool:
        """Return whether a form starts with `text`, and `text` is not too short to be recognized."""
        following = bisect_left(self._in_order, text)
        form = self._in_order[following] if following < len(self._in_order) else ""
        return form.startswith(text) and len(text) >= min(len(form), _SHORT + 1)


class _Level:
    """A text with its escapes decoded a number of times, and the places of its characters in the source."""

    def __init__(self, text: str, breaks: Sequence[tuple[int, int]] = ((0, 0),), below: _Level | None = None) -> None:
        self.text = text
        self._starts = [at for at, _ in breaks]
        self._sources = [source for _, source in breaks]
        self._below = below

    def unescaped(self) -> _Level:
        """Return this text with its escapes decoded once more."""
        pieces: list[str] = []
        breaks = [(0, 0)]
        size = at = 0
        for match in _ESCAPE.finditer(self.text):
            pieces.append(self.text[at : match.start()])
            size += match.start() - at
            for meant, start, end in _meanings(match):
                breaks += [(size, start), (size + len(meant), end)]
                pieces.append(meant)
                size += len(meant)
            at = match.end()
        pieces.append(self.text[at:])
        return _Level("".join(pieces), breaks, self)

    def source(self, at: int, *, is_end: bool = False) -> int:
        """Return where in the source the character at `at` begins, or where the one before it ends (`is_end`)."""
        if self._below is None:
            return at
        index = (bisect_left if is_end else bisect_right)(self._starts, at) - 1
        if is_end and at == 0:
            return 0
        begin, source = self._starts[index], self._sources[index]
        inside = source + at - begin
        if index + 1 < len(self._starts) and is_end and self._starts[index + 1] == at:
            inside = self._sources[index + 1]
        return self._below.source(inside, is_end=is_end)


_LEVELS = 4
"""The text as it is, and decoded up to three times."""
_ELLIPSIS = re.compile(r"['\"`]?(?P<dots>…|\.\.\.)")
_LONGEST_ESCAPE = 24
_PART = re.compile(r"[\\%&][A-Za-z0-9#%\\]*\Z")
"""A part of an escape at the end of a text."""
_ESCAPE = re.compile(
    r"(?P<octets>(?:%[0-9A-Fa-f]{2})+|(?:\\x[0-9A-Fa-f]{2})+)"
    r"|(?P<pair>\\u[dD][89abAB][0-9A-Fa-f]{2}\\u[dD][c-fC-F][0-9A-Fa-f]{2})"
    r"|\\u(?P<unit>[0-9A-Fa-f]{4})|\\U(?P<point>[0-9A-Fa-f]{8})"
    r"|&(?P<entity>\#[0-9]{1,7}|\#[xX][0-9A-Fa-f]{1,6}|[A-Za-z]{2,6});"
    r"|\\(?P<character>[nrtbf\"'/\\])"
)
_LETTERS = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f"}


def _meanings(match: re.Match[str]) -> Iterator[tuple[str, int, int]]:
    """Yield the characters that an escape means, each with its start and end."""
    start, end = match.span()
    kind, text = match.lastgroup, match[match.lastgroup or 0]
    if kind == "octets":
        yield from _characters(match[0], start)
        return
    if kind == "pair":
        meant = bytes.fromhex(text[2:6] + text[8:]).decode("utf-16-be")
    elif kind == "entity":
        meant = html.unescape(match[0])
    elif kind == "character":
        meant = _LETTERS.get(text, text)
    else:
        number = int(text, 16)
        meant = chr(number) if number < 0x110000 and not 0xD800 <= number < 0xDC00 else match[0]
    yield meant, start, end


def _characters(escapes: str, start: int) -> Iterator[tuple[str, int, int]]:
    """Yield the characters that consecutive octets mean; the octets of a cut character remain escaped."""
    width = 3 if escapes[0] == "%" else 4
    octets = bytes.fromhex(escapes.replace("%", "").replace("\\x", ""))
    sizes = None
    try:
        text = octets.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.reason == "unexpected end of data":
            text = octets[: error.start].decode("utf-8")
        else:
            text, sizes = octets.decode("latin-1"), 1
    at = 0
    for character in text:
        size = width * (sizes or len(character.encode("utf-8")))
        yield character, start + at, start + at + size
        at += size
    if at < len(escapes):
        yield escapes[at:], start + at, start + len(escapes)


def _folded(text: str) -> str:
    """Return `text` with one spelling of a space, which forms write as `+`."""
    return text.replace("+", " ")


def _forms(secret: str) -> Iterator[str]:
    level = _Level(secret)
    for _ in range(_LEVELS):  # escapes in the secret itself are decoded like those around it
        yield level.text
        level = level.unescaped()
    if len(secret) <= _SHORT:
        return
    if any(sign in secret for sign in "\\%&"):  # decoding the text around it also decodes parts of it
        yield from _encoded(secret)
    octets = secret.encode("utf-8", "surrogatepass")
    yield from (octets.hex(), octets.hex().upper())
    whole = base64.b64encode(octets).decode()
    yield from (whole, whole.translate(_FOR_ADDRESSES))
    for before in range(3):  # as a part of a longer text: only the digits that depend on nothing else
        text = base64.b64encode(bytes(before) + octets).decode()
        own = text[-(-before * 8 // 6) : (before + len(octets)) * 8 // 6]
        if len(own) > _SHORT:
            yield from (own, own.translate(_FOR_ADDRESSES))


_ENCODINGS: tuple[Callable[[str], str], ...] = (
    lambda text: json.dumps(text)[1:-1],
    lambda text: json.dumps(text, ensure_ascii=False)[1:-1],
    lambda text: json.dumps(text)[1:-1].replace("/", "\\/"),
    lambda text: _json_of_go(text, "&<"),
    lambda text: _json_of_go(text, "&<>"),
    lambda text: repr(text)[1:-1],
    lambda text: repr(text.encode("utf-8", "surrogatepass"))[2:-1],
    lambda text: quote(text, safe="", errors="surrogatepass"),
    lambda text: quote(text, errors="surrogatepass"),
    html.escape,
)


def _json_of_go(text: str, signs: str) -> str:
    escapes = {ord(sign): f"\\u{ord(sign):04x}" for sign in signs}
    return json.dumps(text, ensure_ascii=False)[1:-1].translate(escapes)


def _encoded(secret: str) -> set[str]:
    """Return the secret in each of the usual encodings, one inside another."""
    forms = {secret}
    for _ in range(_LEVELS - 1):
        forms |= {encode(form) for form in forms for encode in _ENCODINGS}
    return forms


_FOR_ADDRESSES = str.maketrans("+/", "-_")


def _pattern_of_short(form: str) -> str:
    # In prose the missing letters would reveal a short secret.
    return rf"(?<=['\"`=:@/]){re.escape(form)}(?=['\"`&,;@/]|$)"


def is_secret_key(key: str) -> bool:
    """Return whether the value of `key` is a secret, also if the key is misspelt."""
    return is_name_of_secret(key) or key == "headers" or closest(key.lower(), _MISSPELT) is not None


def is_name_of_secret(name: str) -> bool:
    """Return whether a name, such as that of a header, suggests credentials."""
    return _SECRET_NAME.search(name.lower()) is not None


_MISSPELT = ("connection_string", "passphrase", "password", "token")
_SECRET_NAME = re.compile(
    r"api[-_]?key|auth(?!or(?!iz))|connection_string|cookie|credential|passphrase|passw|secret|token"
    r"|(?<![a-z])(?:otp|pwd)(?![a-z])"
)


_SETTING = re.compile(r"""(?:^|[\s{,\["'])(?P<key>[A-Za-z_-]{4,})["']?[ \t]*[:=][ \t]*(?P<value>\S)""")
REFERENCE = re.compile(r"""["']?(?:\$\{[A-Za-z_][A-Za-z0-9_]*\}|file:[^\s,}]*)["']?(?=[\s,}]|$)""")
# A line may be long, so no pattern looks for the end of a login: they take linear time.
BEFORE_LOGIN = re.compile(r":(?:\s|\\[a-z]?)*+/(?:\s|\\[a-z]?)*+/")
"""The sign `://`, also with blanks or escapes in it, such as those of JSON."""
_BARE_LOGIN = re.compile(r"(?<![^\s'\"={\[,(])[^\s'\"@/:={}\[\],()]{1,64}:(?=[^\s'\"])")
_QUERY_MARK = re.compile(r"[?#]")


def login_spans(line: str) -> list[tuple[int, int]]:
    """Return the spans of a line that are secret in addresses: user and password, and what follows a path.

    A password may have any characters, so a login reaches to the last `@`, and a query to the end of the line.
    """
    mark = BEFORE_LOGIN.search(line)
    spans = []
    bare_at = line.rfind("@", 0, mark.start() if mark else len(line))
    if bare_at > 0 and (bare := _BARE_LOGIN.search(line, 0, bare_at)):
        spans.append((bare.start(), bare_at))
    if mark is None:
        return spans
    at = line.rfind("@", mark.end())
    if at > mark.end():
        spans.append((mark.end(), at))
    query = _QUERY_MARK.search(line, max(mark.end(), at))
    if query is not None and query.end() < len(line):
        spans.append((query.end(), len(line)))
    return spans


def secret_spans(line: str, is_secret: Callable[[str], bool] = is_secret_key) -> list[tuple[int, int]]:
    """Return the spans of a line of an unreadable file that may be secrets: values of secret keys, and addresses.

    The end of a value is unknown in such a line, so a span reaches to the end of the line.  `is_secret` tells the keys:
    in a document a key may be misspelt.
    """
    spans = login_spans(line)
    at = 0
    while match := _SETTING.search(line, at):
        start, end = match.start("value"), len(line)
        if is_secret(match["key"]):
            reference = REFERENCE.match(line, start)
            if reference is None:
                return [*spans, (start, end)]
            start = reference.end()
        at = start
    return spans


def suspected_secrets(line: str, is_secret: Callable[[str], bool] = is_secret_key) -> Iterator[str]:
    """Yield the texts at `secret_spans` without the signs around them, and the first word of each.

    A problem may quote no more than that word, such as a tag, or a string that ends early.
    """
    for start, end in secret_spans(line, is_secret):
        text = line[start:end].strip(_SIGNS)
        yield from (text, *(word.strip(_SIGNS) for word in text.split(maxsplit=1)[:1]))


_SIGNS = " \t'\"{}[],"


def url_secrets(text: str) -> Iterator[str]:
    """Yield the secret parts of an address: user and password, and what follows its path."""
    if _PATH.match(text):
        return
    scheme = _SCHEME.match(text)
    # The address may also be invalid: a password with a slash or a blank in it, or no scheme.
    login, at, rest = text[scheme.end() if scheme else 0 :].rpartition("@")
    if at and (scheme or ":" in login):
        yield login
        yield from _WORDS.findall(login.partition(":")[2])
    for part in (text, rest):
        match = re.match(r"[^\s?#]*[?#]", part)
        if match and (at or ":" in match[0] or "." in match[0]) and len(part) > match.end():
            query = part[match.end() :]
            yield query
            yield from (value for each in query.split("&") if (value := each.partition("=")[2]))


_PATH = re.compile(r"(?:file|log):(?!//[^/])")
_WORDS = re.compile(r"\S{4,}")
_SCHEME = re.compile(r"^[a-z][a-z0-9+.-]*://", re.IGNORECASE)
