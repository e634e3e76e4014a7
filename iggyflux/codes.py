"""The codes of problems, failed records and stopped runs, read from codes.toml.

docs/errors.md is generated from the same file.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

__all__ = ["CODES", "Code"]


@dataclass(frozen=True, slots=True)
class Code:
    """One entry of codes.toml; `example` may be empty."""

    code: str
    title: str
    meaning: str
    fix: str
    example: str = ""


def _load() -> dict[str, Code]:
    tables = tomllib.loads(Path(__file__).with_name("codes.toml").read_text("utf-8"))
    return {code: Code(code, **texts) for code, texts in tables.items()}


CODES: dict[str, Code] = _load()
