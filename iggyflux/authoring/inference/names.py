"""Names of tags and fields: from paths, valid on every server, and each only once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain, count
from typing import Final

from iggyflux.authoring.inference.shape import Path
from iggyflux.errors import PointError
from iggyflux.lineprotocol import check_field_key, check_tag_key
from iggyflux.lineprotocol.checks import LinePart, replace_invalid

WRAPPERS: Final = frozenset(
    [
        "value",
        "values",
        "data",
        "payload",
        "properties",
        "fields",
        "attributes",
        "attrs",
        "params",
        "parameters",
        "tags",
        "labels",
        "state",
        "reported",
        "body",
        "message",
        "msg",
        "object",
        "decoded",
        "content",
        "readings",
        "metrics",
    ]
)
"""Members that only hold others: their names say nothing, so keys do without them."""
MOST_CHARACTERS: Final = 200
"""A key is cut here; servers take more, people do not."""


def key_of(path: Path) -> str:
    """Return the key for a path: its names joined by `_`, without the names of mere wrappers."""
    steps = list(path)
    while len(steps) > 1 and isinstance(steps[0], str) and steps[0].lower() in WRAPPERS and isinstance(steps[1], str):
        steps.pop(0)
    return "_".join(map(str, steps)) if not steps or isinstance(steps[0], str) else f"_{'_'.join(map(str, steps))}"


def singular(name: str) -> str:
    """Return the name of one of `sensors`: `sensor`."""
    if name.endswith("ies") and len(name) > 4:
        return name[:-3] + "y"
    if name.endswith("s") and not name.endswith(("ss", "us", "is")) and len(name) > 2:
        return name[:-1]
    return name


class Names:
    """Gives each tag and field a key of its own."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def tag(self, *wanted: str) -> str:
        """Return a tag key: the first of `wanted` that is free, or one near it."""
        return self._free(wanted, LinePart.TAG_KEY, check_tag_key)

    def field(self, *wanted: str) -> str:
        """Return a field key: the first of `wanted` that is free, or one near it."""
        return self._free(wanted, LinePart.FIELD_KEY, check_field_key)

    def _free(self, wanted: Sequence[str], part: LinePart, check: Callable[[str], str]) -> str:
        valid = [name for name in (_valid(each, part, check) for each in wanted) if name]
        numbered = (f"{name}_{number}" for number in count(2) for name in valid[:1] or ["unnamed"])
        name = next(name for name in chain(valid, numbered) if name not in self._taken)
        self._taken.add(name)
        return name


def _valid(wanted: str, part: LinePart, check: Callable[[str], str]) -> str | None:
    """Return a key that is valid on every server and in a document; None if nothing is left of `wanted`."""
    # A star in a key would select members, and a backslash is lost by servers in either kind of key.
    name = replace_invalid(wanted[:MOST_CHARACTERS].replace("*", "_").replace("\\", "_"), part)
    try:
        return check(name)
    except PointError:
        return None
