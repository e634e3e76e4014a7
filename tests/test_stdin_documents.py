"""`validate -`: a document on stdin is checked as the same document in a file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.shell import Outcome, iggyflux

WRITER = """\
iggyflux: 1
kind: writer
from: {stream: s, topic: t}
points: {measurement: {const: m}, fields: {kg: 'gewicht'}, timestamp: {spread: offset}}
"""
READER = """\
iggyflux: 1
kind: reader
from: {measurement: m}
cursor: {start: beginning}
messages: {payload: '@'}
to: {stream: s, topic: t}
"""
TOML = """\
# iggyflux: 1

iggyflux = 1
kind = 'writer'
[from]
stream = 's'
topic = 't'
[points]
measurement = {const = 'm'}
fields = ['kg', 'x y']
"""
PIPELINE = """\
iggyflux = 1
from = 'log:data'
[influxdb]
org = 'o'
bucket = 'b'
[[run]]
mapping = 'wage.yaml'
"""
DOCUMENTS = {
    "a writer": ("x.yaml", WRITER),
    "a writer with an error": ("x.yaml", WRITER.replace("gewicht", "lenght(gewicht)")),
    "a writer with a fault": ("x.yaml", WRITER + "  -: {"),
    "a reader": ("x.yaml", READER),
    "TOML": ("x.toml", TOML),
    "a pipeline": ("x.yaml", "iggyflux: 1\nfrom: log:data\ninfluxdb: {bucket: b}\nrun: [{mapping: wage.yaml}]\n"),
    "a pipeline in TOML": ("x.toml", PIPELINE),
    "nothing": ("x.yaml", ""),
    "neither": ("x.yaml", "services: {}\n"),
}


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("wage.yaml").write_text(WRITER)
    Path("samples.ndjson").write_text('{"gewicht": 1}\n{"gewcht": 2}\n')


@pytest.mark.parametrize("form", ["text", "json", "github", "sarif"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize(("name", "text"), DOCUMENTS.values(), ids=list(DOCUMENTS))
def test_a_document_on_stdin_has_the_problems_that_it_has_in_a_file(
    name: str, text: str, encoding: str, form: str
) -> None:
    """Except for its name, which its plan has too; paths in a pipeline start in the current folder."""
    content = text.encode(encoding)
    Path(name).write_bytes(content)

    read, file = (iggyflux("validate", each, "--format", form, stdin=content) for each in ("-", name))

    for quoted in ("<stdin>", "%3Cstdin%3E"):
        read = Outcome(read.code, read.out.replace(quoted, name), read.err.replace(quoted, name))
    read, file = (
        Outcome(each.code, re.sub(r'"plan": "[0-9a-f]{12}"', "", each.out), each.err) for each in (read, file)
    )
    assert read == file


def test_a_document_on_stdin_can_stand_beside_files_and_samples() -> None:
    outcome = iggyflux("validate", "-", "wage.yaml", stdin=WRITER)
    assert (outcome.code, outcome.err) == (0, "2 documents: no problems\n")

    checked = iggyflux("validate", "-", "--samples", "samples.ndjson", stdin=WRITER.replace("gewicht", "gewichte"))
    assert "<stdin>:4:" in checked.out and "IFX157" in checked.out


@pytest.mark.parametrize("more", [["--fix"], ["--samples", "-"]])
def test_stdin_is_read_once_and_never_written(more: list[str]) -> None:
    outcome = iggyflux("validate", "-", *more, stdin=WRITER)

    assert (outcome.code, "the document is on stdin" in outcome.err) == (2, True)


def test_a_document_on_stdin_that_is_too_large_is_refused() -> None:
    assert "error[IFX104]" in iggyflux("validate", "-", stdin=b"#" * (1 << 21)).out
