"""The schemas of ids that are not in a mapping but in a schema registry, as far as they are known.

A plan only looks them up: who renders asks the registry before, for the ids that `ids_of` finds in the payloads.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Refused:
    """There is no schema of an id that could be used: `reason` says why; `is_unknown`: the registry has none."""

    reason: str
    is_unknown: bool = False


Schema: TypeAlias = str | Refused


def ids_of(payloads: Iterable[bytes]) -> set[int]:
    """Return the ids that payloads name, in the format of Confluent."""
    heads = {payload[:5] for payload in payloads}
    return {int.from_bytes(head[1:], "big") for head in heads if len(head) == 5 and not head[0]}
