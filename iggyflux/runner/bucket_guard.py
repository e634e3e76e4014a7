"""The buckets that a pipeline allows: a point for another one fails, and `on_error` of the mapping decides."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from iggyflux.records import Failure, Rendered

OTHER_BUCKET = "IFX623"
_HINT = "add it to `influxdb.buckets` of the pipeline, if it is meant"


def without_other_buckets(rendered: Rendered, allowed: Sequence[str]) -> Rendered:
    """Return what may be sent of `rendered`: without the lines of buckets that no glob of `allowed` accepts."""
    if rendered.buckets is None:
        return rendered
    others = {bucket for bucket in set(rendered.buckets) if bucket and not _is_allowed(bucket, allowed)}
    if not others:
        return rendered
    over = [index for index, bucket in enumerate(rendered.buckets) if bucket in others]
    failures = [
        Failure(
            rendered.origins[index],
            None,
            None,
            OTHER_BUCKET,
            "",
            f"the pipeline does not allow the bucket {rendered.buckets[index]!r}",
            hint=_HINT,
        )
        for index in over
    ]
    return rendered.without(over, failures)


def _is_allowed(bucket: str, allowed: Sequence[str]) -> bool:
    return any(fnmatchcase(bucket, glob) for glob in allowed)
