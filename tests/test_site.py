"""The site of the documentation: every page is in the menu, links have targets, nothing is fetched elsewhere."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).parents[1]
BUILD_SECONDS = 280


def build(folder: Path) -> subprocess.CompletedProcess[str]:
    """Build the site of the sources in `folder`, as `make docs` does."""
    command = [Path(sys.executable).parent / "zensical", "build", "--strict", "--config-file", folder / "mkdocs.yml"]
    return subprocess.run(command, capture_output=True, text=True, timeout=BUILD_SECONDS, check=False)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sources")
    subprocess.run([sys.executable, ROOT / "docs" / "site.py", folder], check=True, timeout=60)
    return folder


@pytest.fixture(scope="module")
def site(sources: Path) -> Path:
    done = build(sources)
    assert done.returncode == 0, done.stdout + done.stderr
    return sources / "site"


class Page(HTMLParser):
    """The names to which a page can be linked, its links, and what a browser loads with it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.names: set[str] = {""}
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {key: value or "" for key, value in attrs}
        self.names.add(given.get("id", ""))
        if tag == "a":
            self.links.append(given.get("href", ""))
        elif tag in ("script", "img", "iframe", "source") and "src" in given:
            self.loaded.append(given["src"])
        elif tag == "link" and given.get("rel") in ("stylesheet", "icon", "preconnect", "preload"):
            self.loaded.append(given["href"])


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path) for path in site.rglob("*.html") if path.name != "404.html"}


def test_every_page_is_in_the_menu_and_in_the_site(sources: Path, pages: dict[Path, Page]) -> None:
    written = {path.stem for path in (sources / "docs").glob("*.md")}
    menu = set(re.findall(r": ([\w-]+)\.md$", (ROOT / "mkdocs.yml").read_text("utf-8"), re.MULTILINE))

    assert menu == written
    assert {path.parent.name for path in pages if path.parent != sources / "site"} == written - {"index"}
    assert len(written) > 30


def test_every_link_and_anchor_has_its_target(site: Path, pages: dict[Path, Page]) -> None:
    broken = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or not link:
                continue
            target = Path(os.path.normpath(path.parent / unquote(parts.path))) if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            known = pages[target].names if target in pages else {""} if target.exists() else None
            if known is None or unquote(parts.fragment) not in known:
                broken.append(f"{path.relative_to(site)}: {link}")

    assert broken == []


def test_links_to_the_repository_name_files_that_exist(pages: dict[Path, Page]) -> None:
    found = {
        link
        for page in pages.values()
        for link in page.links
        if "/iggyflux/blob/main/" in link or "/tree/main/" in link
    }
    paths = {re.split("/(?:blob|tree)/main/", urlsplit(link).path)[1] for link in found}

    assert len(paths) > 5
    assert sorted(path for path in paths if not (ROOT / path).exists()) == []


def test_a_browser_fetches_nothing_from_other_servers(site: Path, pages: dict[Path, Page]) -> None:
    loaded = {name for page in pages.values() for name in page.loaded}
    styles = "".join(path.read_text("utf-8") for path in site.rglob("*.css"))

    assert len(loaded) > 3
    assert [path for path in pages if 'data-md-component="source"' in path.read_text("utf-8")] == [], "it asks GitHub"
    assert sorted(name for name in loaded if urlsplit(name).netloc) == []
    assert re.findall(r"url\([\"']?(?:https?:)?//[^)]*|@import[^;]*", styles) == []


@pytest.mark.parametrize(
    ("link", "is_sound"),
    [("nowhere.md", False), ("other.md#nowhere", False), ("other.md#1-a-part-of-it", True)],
    ids=["page", "anchor", "sound"],
)
def test_a_broken_link_fails_the_build(sources: Path, tmp_path: Path, link: str, is_sound: bool) -> None:
    shutil.copytree(sources / "docs" / "assets", tmp_path / "docs" / "assets")
    (tmp_path / "mkdocs.yml").write_text((sources / "mkdocs.yml").read_text("utf-8").partition("nav:")[0])
    (tmp_path / "docs" / "index.md").write_text(f"# Page\n\n[words]({link})\n")
    (tmp_path / "docs" / "other.md").write_text("# Other\n\n## 1. A part `of` it\n")

    assert (build(tmp_path).returncode == 0) is is_sound
