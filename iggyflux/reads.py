"""The parts of a value that an expression, or a whole document, can read.

A `Reads` may name too much, but never too little: a value pruned to it gives the same result or the same failure.
Decoders build only what it names; a plan takes the union over all its expressions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from iggyflux.records import JSON


@dataclass(frozen=True, slots=True)
class Reads:
    """The parts of a value that are read.

    `whole`: everything; `keys` and `items` are then empty.  Otherwise `keys` says what is read of each member of an
    object, and `items` what is read of each element of a list; if it is None, not even the length of the list is read.
    If nothing is set (`is_bare`), only the kind of the value is read (null, object, list …) and, of a scalar, the
    scalar itself: `a != null` needs no more.
    """

    whole: bool = False
    keys: Mapping[str, Reads] = field(default_factory=dict)
    items: Reads | None = None

    WHOLE: ClassVar[Reads]
    BARE: ClassVar[Reads]

    @property
    def is_whole(self) -> bool:
        """Whether everything is read."""
        return self.whole

    @property
    def is_bare(self) -> bool:
        """Whether only the kind is read, or a scalar itself."""
        return not (self.whole or self.keys or self.items is not None)

    def union(self, *others: Reads) -> Reads:
        """Return what this one or any of `others` reads."""
        result = self
        for other in others:
            result = _union(result, other)
        return result

    def prune(self, document: JSON) -> JSON:
        """Return `document` without the parts that are not read.

        Members that are not read are removed; a list of which no element is read becomes empty.
        """
        if self.whole:
            return document
        if isinstance(document, dict):
            return {key: self.keys[key].prune(value) for key, value in document.items() if key in self.keys}
        if isinstance(document, list):
            return [] if self.items is None else [self.items.prune(element) for element in document]
        return document

    def at(self, *path: str) -> Reads:
        """Return what is read of the member at `path`; `BARE` if it is not read."""
        reads = self
        for key in path:
            if reads.whole:
                return reads
            reads = reads.keys.get(key, Reads.BARE)
        return reads


def _union(left: Reads, right: Reads) -> Reads:
    if left.whole or right.whole:
        return Reads.WHOLE
    keys = dict(left.keys)
    for key, reads in right.keys.items():
        keys[key] = _union(keys[key], reads) if key in keys else reads
    if left.items is None or right.items is None:
        return Reads(keys=keys, items=right.items if left.items is None else left.items)
    return Reads(keys=keys, items=_union(left.items, right.items))


Reads.WHOLE = Reads(whole=True)
Reads.BARE = Reads()
