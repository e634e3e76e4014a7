"""The ready mappings of this package, each with samples."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parents[1] / "gallery"
_NOT_SHOWN: Final = re.compile(r"\A(?:# yaml-language-server:[^\n]*\n)?")
"""The schema is named relative to the file, which the text in the playground is not."""
_NAMES_A_FILE: Final = re.compile(r"\bpayload: \{[^{}]*\b(?:descriptor|proto|schema):")
"""What is a text alone has no files beside it."""


@dataclass(frozen=True, slots=True)
class Item:
    """A ready mapping: `about` is its first comment."""

    name: str
    about: str
    text: str
    samples: str


def gallery() -> list[Item]:
    """Return all ready mappings that need no other file, by name."""
    items = map(_item, sorted(FOLDER.glob("*.yaml")))
    return [item for item in items if _NAMES_A_FILE.search(item.text) is None]


def _item(path: Path) -> Item:
    text = _NOT_SHOWN.sub("", path.read_text("utf-8"))
    comment = [
        line.removeprefix("#").strip() for line in text.partition("\niggyflux:")[0].split("\n") if line[:1] == "#"
    ]
    samples = FOLDER / "samples" / f"{path.stem}.ndjson"
    about = re.split(r"(?<=[.:;])\s", " ".join(comment))[0].rstrip(".:;")
    return Item(path.stem, about, text, samples.read_text("utf-8") if samples.is_file() else "")
