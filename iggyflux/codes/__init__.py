"""Every code that a problem, failure or stop can carry, with its meaning and its cure: docs/errors.md is made of it.

A code is never reused or renumbered.  Each file holds a range, and only codes of it; a new code goes into the file of
its range, in order.
"""

from __future__ import annotations

from iggyflux.codes import (
    commands,
    delivery,
    documents,
    expressions,
    iggy,
    influxdb,
    local,
    payloads,
    pipelines,
    records,
)
from iggyflux.codes.code import Code

__all__ = ["CODES", "RANGES", "Code"]

RANGES: dict[range, tuple[Code, ...]] = {
    range(100, 200): documents.CODES,
    range(200, 300): expressions.CODES,
    range(300, 400): records.CODES,
    range(400, 500): payloads.CODES,
    range(500, 600): commands.CODES,
    range(600, 700): delivery.CODES,
    range(700, 720): local.CODES,
    range(720, 760): influxdb.CODES,
    range(760, 800): iggy.CODES,
    range(800, 900): pipelines.CODES,
}

CODES: dict[str, Code] = {entry.code: entry for entries in RANGES.values() for entry in entries}
