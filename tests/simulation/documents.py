"""Mapping documents that change while processes run them: good versions, and broken ones that have to be refused.

A version writes its number as a field of every point.  A broken version compiles, and its example fails: only the check
tells it from a good one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from iggyflux.authoring.acceptance import acceptance_problems
from iggyflux.errors import MappingError
from iggyflux.mapping import WriterMapping, parse_mapping
from iggyflux.plan import compile_plan
from iggyflux.runner.reload import Current
from iggyflux.runner.route import WriterPlan
from tests.simulation.scenario import RouteSpec
from tests.simulation.truth import MAPPING

_EXAMPLE = """\
examples:
  - {{message: {{what: env, n: 1, at: 5, in: warm}}, points: ['env,by={name} n=1i,v={version}i 5000000']}}
"""


@lru_cache(maxsize=1024)
def mapping_of(spec: RouteSpec, version: int = 0, *, is_broken: bool = False) -> WriterMapping:
    """Return a version of the mapping of a route."""
    to = 'to: {bucket: "\\"in\\""}\n' if spec.has_buckets else ""
    form = {
        "to": to,
        "name": spec.name,
        "topics": json.dumps(spec.topics),
        "on_error": spec.on_error,
        "version": version,
    }
    example = _EXAMPLE.format(**{**form, "version": version + is_broken})
    found = parse_mapping(MAPPING.format(**form) + example)
    assert isinstance(found, WriterMapping)
    return found


@lru_cache(maxsize=1024)
def plan_of(spec: RouteSpec, version: int, dialect: str) -> WriterPlan:
    """Return the plan of a version, compiled once for all worlds."""
    return compile_plan(mapping_of(spec, version).writer, dialect=dialect, precision="ns")


@lru_cache(maxsize=1024)
def _identities(spec: RouteSpec, version: int) -> frozenset[str]:
    mapping = mapping_of(spec, version)
    return frozenset(mapping.identity(dialect=dialect) for dialect in ("v1", "v2", "v3"))


@dataclass
class Shelf:
    """The documents on the disk of a world."""

    specs: Sequence[RouteSpec]
    version: int = 0
    is_broken: bool = False
    changes: int = 0
    good: set[int] = field(default_factory=lambda: {0})
    """The versions that may be used."""

    def put(self, *, is_broken: bool) -> None:
        """Replace the documents by the next version."""
        self.changes += 1
        self.version, self.is_broken = self.changes, is_broken
        if not is_broken:
            self.good.add(self.version)

    def version_of(self, identity: str) -> int | None:
        """Return the version whose plan has an identity."""
        for version in range(self.changes + 1):
            if any(identity in _identities(spec, version) for spec in self.specs):
                return version
        return None


class ShelfDocuments:
    """The `Documents` of a process, with those of the routes that it runs."""

    def __init__(
        self, shelf: Shelf, specs: Sequence[RouteSpec], change: Callable[[RouteSpec, int], Callable[[Any], Any]]
    ) -> None:
        """`change` returns what makes a running route into one of a version."""
        self._shelf = shelf
        self._specs = specs
        self._change = change
        self.contents: Mapping[str, str] = {spec.name: str(shelf.version) for spec in specs}

    def look(self) -> Sequence[object]:
        """As `Documents.look`."""
        return [self._shelf.changes]

    def read(self) -> Mapping[str, Current]:
        """As `Documents.read`."""
        shelf, version = self._shelf, self._shelf.version
        mappings = [mapping_of(spec, version, is_broken=shelf.is_broken) for spec in self._specs]
        if problems := list(acceptance_problems(mappings, [])):
            raise MappingError(problems)
        return {spec.name: Current(str(version), self._change(spec, version)) for spec in self._specs}
