"""The published mappings and examples: each compiles, passes its own tests, and renders its own samples."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from iggyflux import load_mapping
from iggyflux.authoring.examples import run_examples
from iggyflux.authoring.samples import Coordinates, read_rows, read_samples
from iggyflux.documents import parse_document
from iggyflux.documents.nodes import Style

ROOT = Path(__file__).parent.parent
READY = sorted((ROOT / "mappings").glob("*.yaml"))
WRITERS = [path for path in READY if load_mapping(path).kind == "writer"]
READERS = [path for path in READY if path not in WRITERS]


@pytest.mark.parametrize("path", READY, ids=lambda path: path.stem)
def test_a_ready_mapping_has_no_problem_and_passes_its_examples(path):
    """It has no warning either, and has examples."""
    mapping = load_mapping(path)
    results = run_examples(mapping)

    assert (mapping.warnings, mapping.name) == ((), path.stem)
    assert len(results) > 0
    assert [result for result in results if result.differences] == []


@pytest.mark.parametrize("path", WRITERS, ids=lambda path: path.stem)
def test_a_ready_mapping_renders_its_samples(path):
    """Samples are realistic messages; none of them fails, and both plans agree on them."""
    samples = path.parent / "samples" / f"{path.stem}.ndjson"
    mapping = load_mapping(path)
    envelope = '"payload"' in samples.read_text().split("\n", 1)[0][:12]
    with samples.open("rb") as lines:
        found = list(read_samples(lines, Coordinates.of(mapping.writer.source), envelope=envelope))
    messages = [sample.message for sample in found]
    rendered = mapping.plan().render(messages)

    assert messages and rendered.lines
    assert list(rendered.failures) == []
    assert list(rendered.lines) == list(mapping.plan("reference").render(messages).lines)


@pytest.mark.parametrize("path", READERS, ids=lambda path: path.stem)
def test_a_ready_reader_renders_its_rows(path):
    """None of them fails, and both plans agree on them."""
    mapping = load_mapping(path)
    with (path.parent / "samples" / f"{path.stem}.ndjson").open("rb") as lines:
        rows = [sample.row for sample in read_rows(lines, form="jsonl", measurement="env")]
    rendered = mapping.plan().render(rows)

    assert rows and rendered.messages
    assert list(rendered.failures) == []
    assert list(rendered.messages) == list(mapping.plan("reference").render(rows).messages)


def published_documents():
    """Yield every published mapping document: files, starters, and the blocks of pages."""
    files = [*READY, *ROOT.glob("examples/*/*.yaml"), *ROOT.glob("iggyflux/cli/starters/*.yaml")]
    for path in files:
        if "\nkind:" in path.read_text():
            yield pytest.param(path.read_text(), id=str(path.relative_to(ROOT)))
    for page in [ROOT / "README.md", *ROOT.glob("docs/*.md")]:
        for number, block in enumerate(re.findall(r"^```yaml\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)):
            if "\nkind:" in block and "{first: xs[0]}" not in block:  # the page on this rule shows the mistake
                yield pytest.param(block, id=f"{page.relative_to(ROOT)}-{number}")


def expressions(pointer, node):
    """Yield the pointers of expressions: `expr`, conditions, measurements, strings among tags and fields."""
    if isinstance(node, dict):
        for key, value in node.items():
            here = f"{pointer}/{key.replace('~', '~0').replace('/', '~1')}"
            inside = pointer.rsplit("/", 1)[-1] in ("tags", "fields", "headers")
            if key == "for_each" and value in ("row", "series", "window"):
                continue
            if isinstance(value, str) and (key in ("expr", "where", "for_each", "measurement") or inside):
                yield here
            elif key not in ("examples", "from"):
                yield from expressions(here, value)
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from expressions(f"{pointer}/{index}", value)


@pytest.mark.parametrize("text", list(published_documents()))
def test_published_expressions_are_quoted(text):
    """Rule 2.  A copied expression remains valid when a user adds a bracket."""
    document = parse_document(text, format="yaml")
    plain = [p for p in expressions("", document.tree) if document.node(p).style is Style.PLAIN]

    assert plain == []
