"""Every code that a problem, a failure or a stop can carry, with its meaning and its cure: docs/errors.md is made of this.

A code is never reused or renumbered.  IFX1xx documents, 2xx expressions, 3xx records, 4xx payloads, 5xx command line and
samples, 6xx delivery and run, 7xx transports, 8xx pipeline files.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Code:
    """`title` in a few words, `meaning` what was found, `fix` what to do, `example` what leads to it (may be empty)."""

    code: str
    title: str
    meaning: str
    fix: str
    example: str = ""


# --- IFX1xx documents ---
_DOCUMENTS: tuple[Code, ...] = ()

# --- IFX2xx expressions ---
_EXPRESSIONS: tuple[Code, ...] = ()

# --- IFX3xx records ---
_RECORDS: tuple[Code, ...] = ()

# --- IFX4xx payloads ---
_PAYLOADS: tuple[Code, ...] = ()

# --- IFX5xx command line, samples, examples ---
_COMMANDS: tuple[Code, ...] = ()

# --- IFX6xx delivery and run ---
_DELIVERY: tuple[Code, ...] = ()

# --- IFX7xx transports ---
_TRANSPORTS: tuple[Code, ...] = ()

# --- IFX8xx pipeline files ---
_PIPELINES: tuple[Code, ...] = ()

CODES: dict[str, Code] = {
    entry.code: entry
    for entry in (
        *_DOCUMENTS,
        *_EXPRESSIONS,
        *_RECORDS,
        *_PAYLOADS,
        *_COMMANDS,
        *_DELIVERY,
        *_TRANSPORTS,
        *_PIPELINES,
    )
}
