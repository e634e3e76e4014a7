"""Writes the owner of the repository into every address that names it.

`python deploy/owner.py NAME` does so; `python deploy/owner.py --check` fails as long as the owner is the placeholder.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
PLACEHOLDER: Final = "OWNER"
FILES: Final = (
    "pyproject.toml",
    "docs/ci.md",
    "docs/releasing.md",
    "deploy/compose.yaml",
    "deploy/kubernetes.yaml",
    "deploy/prometheus/rules.yaml",
    "deploy/prometheus/rules_test.yaml",
)
ADDRESS: Final = re.compile(
    r"(?P<before>https://(?:github\.com/)?|ghcr\.io/|uses: )(?P<owner>[\w-]+)(?P<after>/iggyflux|\.github\.io/iggyflux)"
)


def owners() -> Iterator[str]:
    """Yield the owner in each address."""
    for name in FILES:
        for found in ADDRESS.finditer((ROOT / name).read_text("utf-8")):
            yield found["owner"]


def write(owner: str) -> None:
    """Write `owner` into each address."""
    if not re.fullmatch(r"[A-Za-z0-9](?:-?[A-Za-z0-9]){0,38}", owner):
        sys.exit(f"not the name of an owner at GitHub: {owner!r}")
    for name in FILES:
        path = ROOT / name
        text = path.read_text("utf-8")
        # the names of images have no capitals
        written = ADDRESS.sub(
            lambda found: found["before"] + (owner.lower() if "ghcr" in found[0] else owner) + found["after"], text
        )
        path.write_text(written, "utf-8")


if __name__ == "__main__":
    given = sys.argv[1] if len(sys.argv) > 1 else ""
    if given == "--check":
        sys.exit("the owner is not set: make owner OWNER=NAME" if PLACEHOLDER in owners() else 0)
    write(given)
