"""The documentation cannot rot: pages of the reference are what the tables say, and what can run in the others, runs.

In a page, `<!-- file: NAME -->` before a block makes a file of it; a `console` block is a transcript: each line after `$ `
is run in the page's folder of files, and what follows it is what it prints (`…` at the end of a line stands for anything).
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("examples/*/README.md"), *ROOT.glob("*.md")])
BLOCK = re.compile(r"(?:<!-- file: (?P<file>\S+) -->\n)?^```(?P<kind>\w*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)
GENERATED = "<!-- made by docs/build.py"


def blocks(page: Path):
    return list(BLOCK.finditer(page.read_text()))


def test_the_reference_is_what_the_program_goes_by():
    """docs/build.py would write the same pages."""
    result = subprocess.run(
        [sys.executable, ROOT / "docs" / "build.py", "--check"], capture_output=True, text=True, check=False
    )

    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    """A link to a file of ours has a file at its end."""
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())

    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if any(block["kind"] == "console" for block in blocks(page))],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_transcripts_are_true(page, tmp_path):
    """Every command of a page prints what the page says."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "COLUMNS": "100",
        "NO_COLOR": "1",
    }
    for block in blocks(page):
        if block["file"]:
            (tmp_path / block["file"]).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / block["file"]).write_text(block["text"])
        if block["kind"] != "console":
            continue
        for step in re.split(r"^\$ ", block["text"], flags=re.MULTILINE)[1:]:
            command, _, expected = step.partition("\n")
            result = subprocess.run(
                ["bash", "-c", command],
                cwd=tmp_path,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=60,
                check=False,
            )
            pattern = "".join(
                ".*" if piece == "…" else re.escape(piece) for piece in re.split(r"(…(?=\n|$))", expected)
            )

            if not re.fullmatch(pattern, result.stdout):
                assert result.stdout == expected, command


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if GENERATED not in page.read_text()],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_documents_in_pages_are_valid(page, tmp_path):
    """A whole mapping document in a page compiles; one that is named as a file may be an example of a mistake."""
    from iggyflux import parse_mapping

    for block in blocks(page):
        text = block["text"]
        if block["kind"] == "yaml" and text.startswith("iggyflux: 1") and "\nkind:" in text:
            assert parse_mapping(text, name="page").name
