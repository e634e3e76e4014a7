"""What must not be seen: a secret that shows itself nowhere, and texts without secrets.

The one place that knows how a secret may look where it must not be: in an error of a library, an answer of a server,
a line of a file that a problem quotes.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator
from urllib.parse import quote, quote_plus

from iggyflux.errors import closest

HIDDEN = "***"
SECRET_KEYS = frozenset({"token", "password", "connection_string"})
"""The keys of a pipeline whose values are secrets."""

_SHORT = 3
"""A secret of so few characters is also part of words; it is hidden where it stands as a value only."""


class Secret:
    """A text that must not be seen: only `reveal()` gives it, everything that prints gives `***`."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself, for the one line that sends it."""
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
    """Replaces secrets, in every form in which they travel, by `***`."""

    def __init__(self, secrets: Iterable[str]) -> None:
        forms = {form for secret in secrets for form in _forms(secret) if form}
        patterns = [_pattern(form) for form in sorted(forms, key=len, reverse=True)]  # no part of a longer one is left
        self._pattern = re.compile("|".join(patterns)) if patterns else None

    def __repr__(self) -> str:
        return f"Scrubber({HIDDEN})"

    def __call__(self, text: str) -> str:
        """`text` without secrets."""
        return self._pattern.sub(HIDDEN, text) if self._pattern else text

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Where secrets stand in `text`."""
        return [match.span() for match in self._pattern.finditer(text)] if self._pattern else []


def _forms(secret: str) -> Iterator[str]:
    as_json = json.dumps(secret)[1:-1]
    yield from (secret, quote(secret, safe=""), quote_plus(secret), repr(secret)[1:-1], as_json)
    yield json.dumps(secret, ensure_ascii=False)[1:-1]
    yield as_json.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")  # as Go writes it
    if len(secret) > _SHORT:
        yield base64.b64encode(secret.encode()).decode()
        yield secret.encode().hex()


def _pattern(form: str) -> str:
    # In prose a short secret would tell itself by the letters that are missing.
    return re.escape(form) if len(form) > _SHORT else rf"(?<=['\"`=:@/]){re.escape(form)}(?=['\"`&,;@/]|$)"


def is_secret_key(key: str) -> bool:
    """Whether what stands under `key` is a secret; also where the key is misspelt."""
    return key in SECRET_KEYS or bool(key and closest(key.lower(), sorted(SECRET_KEYS)))


_SETTING = re.compile(r"""(?:^|[\s{,\["'])(?P<key>[A-Za-z_-]{4,})["']?[ \t]*[:=][ \t]*(?P<value>\S.*)""")
_REFERENCE = re.compile(r"""["']?(?:\$\{[A-Za-z_][A-Za-z0-9_]*\}|file:[^\s,}]*)["']?(?=[\s,}]|$)""")
_LOGIN = re.compile(r"[a-z][a-z0-9+.-]*://([^/@\s'\"]+)@", re.IGNORECASE)
_QUERY = re.compile(r"[a-z][a-z0-9+.-]*://[^?#\s'\"]*[?#]([^\s'\",}]+)", re.IGNORECASE)


def secret_spans(line: str) -> list[tuple[int, int]]:
    """Where secrets may stand in a line of a file that could not be read: what follows their keys, and in addresses.

    Where a value ends is not known in such a line, so that the rest of it is taken.
    """
    spans = [match.span(1) for pattern in (_LOGIN, _QUERY) for match in pattern.finditer(line)]
    at = 0
    while match := _SETTING.search(line, at):
        start, end = match.span("value")
        if is_secret_key(match["key"]):
            reference = _REFERENCE.match(line, start)
            if reference is None:
                return [*spans, (start, end)]
            start = reference.end()
        at = start
    return spans


def url_secrets(text: str) -> Iterator[str]:
    """What an address holds that must not be seen: user and password, and what follows its path."""
    match = _LOGIN.match(text)
    if match:
        yield match[1]
    # Also where the address is none: a password with a slash in it, or no scheme.
    match = re.match(r"(?!file:|log:)(?:[a-z][a-z0-9+.-]*://)?(\S*:\S*)@", text)
    if match:
        yield match[1]
    match = re.match(r"(?!file:|log:)(?:[a-z][a-z0-9+.-]*://|[^\s?#]*[:.])[^\s?#]*[?#](.+)", text, re.DOTALL)
    if match:
        yield match[1]
        yield from (value for part in match[1].split("&") if (value := part.partition("=")[2]))
