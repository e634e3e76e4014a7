"""What an entry of the table of codes says."""

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
