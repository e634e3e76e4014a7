"""Text with key=value: a pattern whose named groups are the values."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from typing import Final

from iggyflux.records import JSON

LEAST_PAIRS: Final = 2
"""A text has at least this many pairs; fewer may be prose with an equals sign."""

_PAIR: Final = re.compile(r'(?:^|(?<=[\s,;]))([A-Za-z_][\w.\-]*)=("(?:[^"\\]|\\.)*"|[^\s"]*)')
_WRITTEN: Final = re.compile(r"""(?:"(?:[^"\\]|\\.)*"?|'[^']*'?|[^\s"'])*""")
"""A value up to a blank that is not in quotes of either kind."""
_OUTSIDE_QUOTES: Final = r'(?:[^"]|"(?:[^"\\]|\\.)*")*?'
_ANYTHING: Final = ".*?"


def logfmt_pattern(texts: Sequence[str]) -> str | None:
    """Return an RE2 pattern with a group for each key, in the order of the keys; None if texts are not of this form."""
    found = [_PAIR.findall(text) for text in texts]
    if not found or any(len(pairs) < LEAST_PAIRS for pairs in found):
        return None
    order = _common_order([[key for key, _ in pairs] for pairs in found])
    if order is None:
        return None
    always = set.intersection(*({key for key, _ in pairs} for pairs in found))
    names: dict[str, str] = {}
    for key in order:
        name = re.sub(r"\W", "_", key)
        while name in names.values():
            name += "_"
        names[key] = name
    between = _OUTSIDE_QUOTES if any('"' in text for text in texts) else _ANYTHING
    parts = []
    for key in order:
        is_quoted = {value.startswith('"') for pairs in found for name, value in pairs if name == key}
        part = rf"{between}(?:^|[\s,;]){re.escape(key)}={_value(names[key], is_quoted)}"
        parts.append(part if key in always else f"(?:{part})?")
    return "^" + "".join(parts)


def logfmt_trees(texts: Sequence[str]) -> list[dict[str, JSON]] | None:
    """Return the pairs of each text, of a key that is there twice the first; None if texts are not of this form."""
    found = [_PAIR.findall(text) for text in texts]
    if not found or any(len(pairs) < LEAST_PAIRS for pairs in found):
        return None
    return [dict(reversed(pairs_of(text))) for text in texts]


def pairs_of(text: str) -> list[tuple[str, str]]:
    """Return the keys and values in a text, without quotes."""
    return [(key, _unquoted(value)) for key, value in _PAIR.findall(text)]


def written_pairs(text: str) -> Iterator[tuple[str, str]]:
    """Yield as `pairs_of`, but a value with quotes inside, of either kind, up to the blank after them."""
    for pair in _PAIR.finditer(text):
        written = None if pair[2].startswith('"') else _WRITTEN.match(text, pair.start(2))
        yield pair[1], _unquoted(pair[2]) if written is None else written[0]


def is_all_pairs(text: str) -> bool:
    """Return whether a text has nothing but key=value, and what separates them."""
    return not _PAIR.sub("", text).strip(" \t,;")


def logfmt_captures(texts: Sequence[str], place: str = "@") -> dict[str, str]:
    """Return the expression that reads each key, wherever it is in the text at `place`."""
    pairs = [pair for text in texts for pair in _PAIR.findall(text)]
    outside = _OUTSIDE_QUOTES if any('"' in text for text in texts) else _ANYTHING
    captures: dict[str, str] = {}
    for key in dict.fromkeys(key for key, _ in pairs):
        is_quoted = {value.startswith('"') for name, value in pairs if name == key}
        value = _value("v", is_quoted).replace("?P<v>", "")
        captures[key] = rf"regex_capture({place}, '^{outside}(?:^|[\s,;]){re.escape(key)}={value}')"
    return captures


def _unquoted(value: str) -> str:
    return value[1:-1] if value.startswith('"') else value


def _value(name: str, is_quoted: set[bool]) -> str:
    """Return the pattern of a value.  RE2 has no group twice, so one that is quoted in some texts keeps its quotes."""
    bare, quoted = r'[^\s"]*', r'(?:[^"\\]|\\.)*'
    if is_quoted == {True}:
        return f'"(?P<{name}>{quoted})"'
    return f"(?P<{name}>{bare})" if is_quoted == {False} else f'(?P<{name}>"{quoted}"|{bare})'


def _common_order(keys: Sequence[Sequence[str]]) -> list[str] | None:
    """Return an order that suits every text; None if there is none, or a text has a key twice."""
    graph: TopologicalSorter[str] = TopologicalSorter()
    for each in dict.fromkeys(map(tuple, keys)):
        if len(set(each)) != len(each):
            return None
        graph.add(each[0])
        for before, key in pairwise(each):
            graph.add(key, before)
    try:
        return list(graph.static_order())
    except CycleError:
        return None
