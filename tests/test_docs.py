"""The documentation stays true: reference pages are those of the tables, and every command of other pages runs.

`pages` explains how a page writes commands and files.  A `python` block that is not a file is run too.  A `sh` block
needs more than a folder: `<!-- runs: TEST -->` before it names the test that runs it.  `--update-cases` writes what was
printed into the page.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from pages import Terminal, blocks

from iggyflux import MappingError, parse_mapping
from iggyflux.cli import command_line
from iggyflux.codes import CODES
from iggyflux.documents import load_schema
from iggyflux.functions import FUNCTIONS
from iggyflux.sim.faults import KINDS

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
EXAMPLES = ROOT / "examples"
PAGES = sorted({*ROOT.glob("*.md"), *DOCS.glob("*.md"), *ROOT.glob("examples/**/*.md")})
GENERATED = "<!-- made by docs/build.py"
WRITTEN = [page for page in PAGES if GENERATED not in page.read_text("utf-8")]


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def read(page: str) -> str:
    return (DOCS / page).read_text("utf-8")


# --- transcripts ---


@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(block["kind"] in ("console", "python") for block in blocks(page))], ids=name
)
def test_transcripts_are_true(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, update_cases: bool) -> None:
    """The commands of a page, in order, print what the page says, in an empty folder or in that of an example."""
    if page.is_relative_to(EXAMPLES):
        for folder in ("examples", "mappings"):
            shutil.copytree(ROOT / folder, tmp_path / folder)
    folder = tmp_path / page.parent.relative_to(ROOT) if page.is_relative_to(EXAMPLES) else tmp_path
    monkeypatch.chdir(folder)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    terminal = Terminal(folder, {"PATH": path, "COLUMNS": "100", "NO_COLOR": "1"})
    pieces, end, text = [], 0, page.read_text("utf-8")
    with terminal.until:
        for block in blocks(page):
            if block["file"]:
                terminal.write(block["file"], block["text"])
            if block["kind"] == "python" and not block["file"]:
                exec(compile(block["text"], str(page), "exec"), {})
            if block["kind"] != "console":
                continue
            actual = terminal.transcript(block["text"])
            pieces += [text[end : block.start("text")], actual]
            end = block.end("text")
            if not update_cases:
                assert block["text"] == actual
    if update_cases:
        page.write_text("".join([*pieces, text[end:]]), "utf-8")


@pytest.mark.parametrize("page", WRITTEN, ids=name)
def test_commands_outside_transcripts_are_run_by_a_named_test(page: Path) -> None:
    for block in blocks(page):
        if block["kind"] in ("sh", "bash", "shell"):
            assert block["runs"], block["text"]
            assert f"{name(page)}" in (ROOT / block["runs"]).read_text("utf-8"), block["runs"]


@pytest.mark.parametrize("page", WRITTEN, ids=name)
def test_documents_in_pages_are_valid(page: Path) -> None:
    """A whole mapping in a page compiles; only one with a file name may be an example of a mistake."""
    for block in blocks(page):
        text = block["text"]
        if (
            block["kind"] == "yaml"
            and not block["file"]
            and re.search("^iggyflux: 1$", text, re.MULTILINE)
            and "\nkind:" in text
        ):
            try:
                parse_mapping(text)
            except MappingError as error:
                pytest.fail(str(error))


# --- the reference ---


def test_the_generated_pages_are_current() -> None:
    """docs/build.py would write the same pages."""
    result = subprocess.run(
        [sys.executable, ROOT / "docs" / "build.py", "--check"], capture_output=True, text=True, check=False
    )

    assert (result.returncode, result.stderr) == (0, "")


def commands(group: click.Group, path: str) -> Iterator[str]:
    for each in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), each)
        yield f"{path} {each}"
        if isinstance(command, click.Group):
            yield from commands(command, f"{path} {each}")


def test_every_command_is_documented() -> None:
    page = read("commands.md")

    assert [each for each in commands(command_line, "iggyflux") if f"\n## {each}\n" not in page] == []


def schema_keys(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key in ("properties", "patternProperties"):
                yield from value
            yield from schema_keys(value)
    elif isinstance(node, list):
        for value in node:
            yield from schema_keys(value)


@pytest.mark.parametrize("kind", ["mapping", "pipeline"])
def test_every_key_of_a_document_is_documented(kind: str) -> None:
    page = read(f"{kind}.md")

    assert sorted(key for key in set(schema_keys(load_schema(kind))) if f"| `{key}`" not in page) == []


def test_every_function_and_code_is_documented() -> None:
    functions, errors = read("functions.md"), read("errors.md")

    assert [each for each in FUNCTIONS if f"### `{each}`" not in functions] == []
    assert [each for each in CODES if f"\n## {each}\n" not in errors] == []


@pytest.mark.parametrize("page", WRITTEN, ids=name)
def test_codes_that_pages_name_exist(page: Path) -> None:
    assert sorted(set(re.findall(r"IFX\d{3}", page.read_text("utf-8"))) - set(CODES)) == []


def test_every_rule_has_a_section_with_an_example_and_a_test() -> None:
    """docs/language.md explains the rules that tests/test_language.py checks."""
    sections = re.split(r"^### (\d+)\. ", read("language.md"), flags=re.MULTILINE)
    examples = {int(number): "```" in text for number, text in zip(sections[1::2], sections[2::2], strict=True)}
    tested = {
        int(each) for each in re.findall(r'^    """Rule (\d+)\.', read("../tests/test_language.py"), re.MULTILINE)
    }

    assert examples == dict.fromkeys(range(1, 34), True)
    assert tested == set(range(1, 34))


# --- pages ---


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_have_targets(page: Path) -> None:
    """A link to a file of the project has that file, and one to a section has its heading."""
    for target, anchor in re.findall(r"\]\((?!https?:|mailto:)([^)#\s]*)(#[^)\s]*)?\)", page.read_text("utf-8")):
        file = page.parent / target if target else page

        assert file.exists(), target
        if anchor and file.suffix == ".md":
            assert anchor[1:] in anchors(file), target + anchor


def anchors(page: Path) -> set[str]:
    """Return the names by which headings are linked."""
    headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def test_the_index_links_every_page() -> None:
    index = read("README.md")

    assert [page.name for page in DOCS.glob("*.md") if page.name != "README.md" and f"({page.name}" not in index] == []


def test_the_table_of_changes_names_files_that_exist() -> None:
    """A file that moves is moved in CONTRIBUTING too."""
    rows = [
        line.split("|")[2:4] for line in (ROOT / "CONTRIBUTING.md").read_text().splitlines() if line.count("|") == 4
    ]
    named = {
        folder / path
        for cells in rows
        for folder, cell in zip((ROOT / "iggyflux", ROOT / "tests"), cells, strict=True)
        for path in re.findall(r"`([\w/]+(?:/|\.\w+))`", cell)
    }

    assert len(named) > 30
    assert {path for path in named if not path.exists()} == set()


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 120


WORDS = {
    "url",
    "token",
    "org",
    "bucket",
    "precision",
    "batch_size",
    "gzip",
    "max_retries",
    "poll_interval",
    "page_size",
}
OTHER_WORDS = {
    "retry_backoff_ms",
    "tag_fields",
    "timestamp_field",
    "timestamp_format",
    "measurement",
    "custom_query",
    "query_language",
    "poll_interval_ms",
    "buffer_duration_s",
    "output_format",
}


def test_names_of_other_tools_are_kept_and_documented() -> None:
    keys = set(schema_keys(load_schema("pipeline")))
    page = read("coming-from.md")

    assert keys >= WORDS
    for asked in (*WORDS, *OTHER_WORDS):
        assert f"`{asked}" in page, asked


def test_every_fault_of_the_simulator_is_documented() -> None:
    page = read("simulator.md")

    rows = {kind: {f"`{key}`" for key in keys} for kind, (_, keys) in KINDS.items()}
    found = {
        kind: set(re.findall("`[a-z_]+`", keys))
        for kind, keys in re.findall(r"^\| `(\w+)` \|.*\|(.*)\|$", page, re.MULTILINE)
    }
    assert found == rows
