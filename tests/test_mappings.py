"""The mappings and examples that we publish: each compiles, passes its own tests, and takes its own samples."""

from __future__ import annotations

from pathlib import Path

import pytest

from iggyflux import load_mapping
from iggyflux.examples import run_examples
from iggyflux.samples import Coordinates, read_samples

ROOT = Path(__file__).parent.parent
READY = sorted((ROOT / "mappings").glob("*.yaml"))


@pytest.mark.parametrize("path", READY, ids=lambda path: path.stem)
def test_a_ready_mapping_has_no_problem_and_passes_its_examples(path):
    """No warning either; and nothing is published without a test of its own."""
    mapping = load_mapping(path)
    results = run_examples(mapping)

    assert (mapping.warnings, mapping.name) == ((), path.stem)
    assert len(results) > 0
    assert [result for result in results if result.differences] == []


@pytest.mark.parametrize("path", READY, ids=lambda path: path.stem)
def test_a_ready_mapping_takes_its_samples(path):
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
