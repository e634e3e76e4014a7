"""Variables of pipeline files and of templates in a mapping, where they are ordinary text.

A mapping is the same wherever it runs, so that a message always makes the same points.
"""

from __future__ import annotations

import re

from iggyflux.documents import join_pointer
from iggyflux.mapping.reading import Reading
from iggyflux.records import JSON

_VARIABLE = re.compile(r"(?<!\$)\$\{[A-Za-z_][A-Za-z0-9_]*(?::-[^{}]*)?\}|\{\{[^{}]+\}\}")
# Messages, Flux and regular expressions have a `${…}` of their own.
_NOT_SEARCHED = frozenset(("examples", "statement", "pattern"))


def warn_of_variables(reading: Reading) -> None:
    """Warn of each text with a variable in it, unless it has a problem anyway."""
    faulty = {problem.location.pointer for problem in reading.problems}
    _search(reading, reading.document.tree, "", faulty)


def _search(reading: Reading, node: JSON, pointer: str, faulty: set[str]) -> None:
    if isinstance(node, dict):
        for key, value in node.items():
            inner = join_pointer(pointer, key)
            _warn(reading, key, inner, faulty, key=True)
            if key not in _NOT_SEARCHED:
                _search(reading, value, inner, faulty)
    elif isinstance(node, list):
        for index, value in enumerate(node):
            _search(reading, value, join_pointer(pointer, index), faulty)
    elif isinstance(node, str):
        _warn(reading, node, pointer, faulty, key=False)


def _warn(reading: Reading, text: str, pointer: str, faulty: set[str], *, key: bool) -> None:
    found = _VARIABLE.search(text)
    if found is not None and pointer not in faulty:
        where = "variables belong to the pipeline file" if found[0][0] == "$" else "documents are not templates"
        message = f"{found.group()} is ordinary text here: {where}"
        hint = "write the value itself, or take it from the message, meta('topic') or header('…')"
        reading.warn("IFX156", pointer, message, key=key, hint=hint)
