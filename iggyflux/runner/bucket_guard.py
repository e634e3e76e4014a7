"""The buckets that a pipeline allows: a point for another one fails, and `on_error` of the mapping decides."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Final

from iggyflux.records import Failure, Rendered

OTHER_BUCKET: Final = "IFX623"
MOST_BUCKETS: Final = 200
"""The most buckets of a route: each has connections and a queue."""
_HINT = "add it to `influxdb.buckets` of the pipeline, if it is meant"
_MANY = "use several routes, or tags for what has so many values"


class BucketGuard:
    """The buckets of one route; it remembers those that points have chosen."""

    def __init__(self, allowed: Sequence[str]) -> None:
        """`allowed` are names, or globs of names."""
        self._allowed = allowed
        self._known: set[str] = set()

    def admit(self, rendered: Rendered) -> Rendered:
        """Return what may be sent of `rendered`: without the lines of buckets that are not allowed."""
        if rendered.buckets is None:
            return rendered
        new = sorted(set(rendered.buckets) - self._known - {""})
        others = {bucket: fault for bucket in new if (fault := self._fault_of(bucket)) is not None}
        if not others:
            return rendered
        over = [index for index, bucket in enumerate(rendered.buckets) if bucket in others]
        reasons = [(index, *others[rendered.buckets[index]]) for index in over]
        failures = [
            Failure(rendered.origins[index], None, None, OTHER_BUCKET, "", reason, hint=hint)
            for index, reason, hint in reasons
        ]
        return rendered.without(over, failures)

    def _fault_of(self, bucket: str) -> tuple[str, str] | None:
        """Return why points may not choose this bucket, and a hint; remember one that they may."""
        if not any(fnmatchcase(bucket, glob) for glob in self._allowed):
            return f"the pipeline does not allow the bucket {bucket!r}", _HINT
        if len(self._known) >= MOST_BUCKETS:
            return f"the bucket {bucket!r} is beyond the {MOST_BUCKETS} of a route", _MANY
        self._known.add(bucket)
        return None
