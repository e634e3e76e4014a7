"""What an expression, or a whole document, can read of a value.

A `Reads` is a sound over-approximation: a value pruned to it gives the same result, or the same failure.  Decoders use
it to build only what is needed; plans unite those of all their expressions.  Nothing here knows how it was found out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from iggyflux.records import JSON


@dataclass(frozen=True, slots=True)
class Reads:
    """What is read of a value.

    `whole`: everything (`keys` and `items` are then empty).  Else `keys` says what is read of the members of an
    object, and `items` what is read of each element of a list (None: not even their number).  Of a value for which
    none of the three says anything (`is_bare`), its kind is read (null, object, list …) and, where it is a scalar, the
    scalar itself: that is all `a != null` needs.
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
        """Whether only the kind is read, and the scalar where it is one."""
        return not (self.whole or self.keys or self.items is not None)

    def union(self, *others: Reads) -> Reads:
        """What this one or any of `others` reads."""
        result = self
        for other in others:
            result = _union(result, other)
        return result

    def prune(self, document: JSON) -> JSON:
        """`document` less what is not read: unread members are gone, a list of which nothing is read is empty."""
        if self.whole:
            return document
        if isinstance(document, dict):
            return {key: self.keys[key].prune(value) for key, value in document.items() if key in self.keys}
        if isinstance(document, list):
            return [] if self.items is None else [self.items.prune(element) for element in document]
        return document

    def at(self, *path: str) -> Reads:
        """What is read of the member at `path`; `BARE` where it is not read at all."""
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
