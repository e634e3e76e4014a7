"""Makes the folder of which the site is built: the pages of `docs/`, and those of the repository that belong to them.

`python docs/site.py FOLDER` writes FOLDER/docs and FOLDER/mkdocs.yml; `make docs` also builds the site.
Nothing is written twice: the quick start is that of README.md.  A link to what is no page leads to the repository.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
REPOSITORY: Final[str] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["urls"]["Repository"]

PAGES: Final = {
    **{path: path.name for path in sorted((ROOT / "docs").glob("*.md"))},
    ROOT / "docs" / "README.md": "index.md",
    ROOT / "DESIGN.md": "design.md",
    ROOT / "CONTRIBUTING.md": "contributing.md",
    ROOT / "CHANGELOG.md": "changes.md",
}
"""The pages of the site, by the file of which each is made."""
QUICK_START: Final = "quick-start.md"
SECTIONS_OF_README: Final = ("Quick start", "What a mapping is")

LINK = re.compile(r"(?<=\]\()(?!https?:|mailto:|#)([^)#\s]+)(#[^)\s]*)?(?=\))")
BLOCK = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)


def linked(text: str, source: Path, pages: Mapping[Path, str] = PAGES) -> str:
    """Return the text of the page `source` with links as the site has them; blocks of code stay as they are."""

    def of(found: re.Match[str]) -> str:
        target, anchor = Path(os.path.normpath(source.parent / found[1])), found[2] or ""
        if target in pages:
            return pages[target] + anchor
        if target.suffix in (".png", ".svg"):
            return target.name
        kind = "tree" if target.is_dir() else "blob"
        return f"{REPOSITORY}/{kind}/main/{target.relative_to(ROOT)}{anchor}"

    pieces, end = [], 0
    for block in BLOCK.finditer(text):
        pieces += [LINK.sub(of, text[end : block.start()]), block[0]]
        end = block.end()
    return "".join([*pieces, LINK.sub(of, text[end:])])


def quick_start() -> str:
    """Return the page of the sections of README.md that show iggyflux at work."""
    sections = re.split(r"^## (.*)\n", (ROOT / "README.md").read_text("utf-8"), flags=re.MULTILINE)
    text = dict(zip(sections[1::2], sections[2::2], strict=True))
    first, *others = SECTIONS_OF_README
    return f"# {first}\n{text[first]}" + "".join(f"## {name}\n{text[name]}" for name in others)


def write(folder: Path) -> None:
    """Make the sources of the site in `folder`, which is emptied before."""
    shutil.rmtree(folder, ignore_errors=True)
    docs = folder / "docs"
    docs.mkdir(parents=True)
    for source, name in PAGES.items():
        (docs / name).write_text(linked(source.read_text("utf-8"), source), "utf-8")
    (docs / QUICK_START).write_text(linked(quick_start(), ROOT / "README.md"), "utf-8")
    for picture in (*(ROOT / "docs").glob("*.png"), *(ROOT / "docs").glob("*.svg")):
        shutil.copy(picture, docs)
    shutil.copytree(ROOT / "docs" / "assets", docs / "assets")
    shutil.copy(ROOT / "mkdocs.yml", folder)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
