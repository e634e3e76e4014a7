"""Problems for machines: each form's own escapes and shape, held against its specification."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import fromstring

import pytest
import xmlschema
from hypothesis import given, settings
from hypothesis import strategies as st
from shell import iggyflux

from iggyflux.cli.reports import as_github, as_json, as_sarif, print_text, sorted_problems
from iggyflux.codes import CODES
from iggyflux.editor.checking import CheckedFile
from iggyflux.errors import Location, Problem

ODD = Problem(
    "IFX110",
    "100% wrong,\nin two: lines",
    Location("a folder/b,c:d%.yaml", 2, 5, "/points/0"),
    hint="correct it\r",
    source="    ünder: it",
    length=5,
)
OTHER = Problem("IFX150", "doubtful", Location("a.yaml"), severity="warning")
FILES = [CheckedFile("a folder/b,c:d%.yaml", "writer", (ODD,)), CheckedFile("a.yaml", "reader", (OTHER, ODD))]


def test_github_annotations_are_escaped_as_the_runner_reads_them() -> None:
    """% and LF everywhere; commas and colons in properties too; other control characters as in text."""
    first, second = as_github(FILES).splitlines()

    assert first == (
        "::error file=a folder/b%2Cc%3Ad%25.yaml,line=2,col=5,endColumn=10,title=IFX110"
        "::100%25 wrong,%0Ain two: lines%0Ahint: correct it\\r"
    )
    assert second == "::warning file=a.yaml,title=IFX150::doubtful"


def test_sarif_has_the_shape_that_its_readers_ask_for() -> None:
    """SARIF 2.1.0: rules by id, results that point to them, regions from 1, URIs that are URIs."""
    log = json.loads(as_sarif(FILES))

    assert log["version"] == "2.1.0"
    assert log["$schema"].endswith("sarif-2.1.0.json")
    (run,) = log["runs"]
    rules = run["tool"]["driver"]["rules"]
    assert [rule["id"] for rule in rules] == ["IFX110", "IFX150"]
    assert rules[0]["shortDescription"]["text"] == CODES["IFX110"].title
    for result in run["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["level"] in ("error", "warning", "note", "none")
        assert result["message"]["text"]
    (odd, other) = run["results"]
    place = odd["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"] == "a%20folder/b%2Cc%3Ad%25.yaml"
    assert place["region"] == {"startLine": 2, "startColumn": 5, "endColumn": 10, "snippet": {"text": "    ünder: it"}}
    assert "region" not in other["locations"][0]["physicalLocation"]


def test_absolute_paths_are_file_uris() -> None:
    """As SARIF asks for."""
    problem = Problem("IFX110", "x", Location("/data/a b.yaml", 1, 1))

    assert '"uri": "file:///data/a%20b.yaml"' in as_sarif([CheckedFile("/data/a b.yaml", "", (problem,))])


def test_json_holds_every_problem_once_and_counts() -> None:
    """A problem that two files tell is one."""
    content = json.loads(as_json(FILES))

    assert (content["errors"], content["warnings"]) == (1, 1)
    assert [file["ok"] for file in content["files"]] == [False, False]
    assert [problem["code"] for problem in content["problems"]] == ["IFX110", "IFX150"]


def test_problems_are_sorted_by_place() -> None:
    """The same order in every form and on every machine."""
    problems = [
        Problem("IFX111", "b", Location("b", 1, 1)),
        Problem("IFX111", "a10", Location("a", 10, 1)),
        Problem("IFX111", "a2", Location("a", 2, 9)),
        Problem("IFX110", "a2", Location("a", 2, 9)),
    ]

    found = sorted_problems([CheckedFile("x", "", tuple(problems))])

    assert [(each.location.file, each.location.line, each.code) for each in found] == [
        ("a", 2, "IFX110"),
        ("a", 2, "IFX111"),
        ("a", 10, "IFX111"),
        ("b", 1, "IFX111"),
    ]


def test_text_shows_the_line_with_its_caret(capsys: pytest.CaptureFixture[str]) -> None:
    """A blank line between problems."""
    print_text(FILES)
    text = capsys.readouterr().out

    assert "  2 |     ünder: it\n    |     ^^^^^\n" in text
    assert text.count("\n\n") == 1


DOCUMENT = """\
iggyflux: 1
kind: writer
from: {stream: s, topic: t}
points: {measurement: {const: m}, fields: {a: a}, timestamp: {expr: ts, format: unix_s}}
"""


@pytest.mark.parametrize("form", ["text", "json", "github", "sarif"])
def test_a_document_without_problems_is_0_in_every_form(form: str, tmp_path: Path) -> None:
    """And the machine's forms are still whole."""
    (tmp_path / "a.yaml").write_text(DOCUMENT, "utf-8")

    outcome = iggyflux("validate", tmp_path, "--format", form)

    assert outcome.code == 0
    assert outcome.err == "1 document: no problems\n"
    if form in ("json", "sarif"):
        json.loads(outcome.out)


def test_a_folder_is_walked_in_order_without_what_is_hidden_or_others(tmp_path: Path) -> None:
    """Endings .yaml, .yml and .toml; a file that does not say `iggyflux` is none of ours; no link leads back."""
    for name in ("b.yml", "a.yaml", "sub/c.yaml", ".hidden/d.yaml", "e.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(DOCUMENT, "utf-8")
    (tmp_path / "compose.yaml").write_text("services: {}\n", "utf-8")
    (tmp_path / "sub" / "back").symlink_to(tmp_path)

    outcome = iggyflux("validate", tmp_path, "--format", "json")

    files = [Path(file["file"]).relative_to(tmp_path).as_posix() for file in json.loads(outcome.out)["files"]]
    assert files == ["a.yaml", "b.yml", "sub/c.yaml"]
    assert "1 other file ignored" in outcome.err


def test_an_empty_folder_is_a_problem(tmp_path: Path) -> None:
    """A CI job that checks nothing does not pass."""
    assert iggyflux("validate", tmp_path).code == 1
    assert iggyflux("test", tmp_path).code == 1


def test_variables_that_are_not_set_here_are_warnings(tmp_path: Path) -> None:
    """CI has no tokens; problems caused by a missing variable are omitted."""
    (tmp_path / "m.yaml").write_text(DOCUMENT, "utf-8")
    pipeline = tmp_path / "p.yaml"
    pipeline.write_text(
        'iggyflux: 1\ninfluxdb: {url: "${NOT_SET_URL}", batch_size: "${NOT_SET_SIZE}", org: a, bucket: b}\n'
        "from: log:data\nrun: [{mapping: m.yaml}]\n",
        "utf-8",
    )

    outcome, strict = iggyflux("validate", pipeline), iggyflux("validate", pipeline, "--strict")

    assert outcome.code == 0
    assert outcome.out.count("IFX802") == 2
    assert "2 documents: 2 warnings" in outcome.err
    assert strict.code == 1


def test_a_pipeline_is_checked_with_its_mappings_as_run_does(tmp_path: Path) -> None:
    """Each mapping once, also where it is named twice."""
    (tmp_path / "m.yaml").write_text(DOCUMENT.replace("fields", "feilds"), "utf-8")
    pipeline = tmp_path / "p.yaml"
    pipeline.write_text("iggyflux: 1\nfrom: log:data\nrun: [{mapping: m.yaml}, {mapping: m.yaml, name: b}]\n", "utf-8")

    broken = iggyflux("validate", pipeline)
    (tmp_path / "m.yaml").write_text(DOCUMENT, "utf-8")
    misfit = iggyflux("validate", pipeline)

    assert broken.out.count("IFX110") == 1
    assert misfit.code == 1
    assert "IFX807" in misfit.out


def test_junit_is_xml_whatever_names_hold(tmp_path: Path) -> None:
    """Control characters and markup in names and lines do not break it."""
    (tmp_path / "a.yaml").write_text(
        DOCUMENT + 'examples:\n  - {name: "a <b> & \\x07", message: {a: 1, ts: 1}, points: []}\n', "utf-8"
    )

    outcome = iggyflux("test", tmp_path, "--format", "junit")

    root = ElementTree.fromstring(outcome.out)
    assert outcome.code == 1
    assert [case.get("name") for case in root.iter("testcase")] == ["a <b> & \\x07"]
    assert root.get("failures") == "1"


KEYS = ("parts", "exercised", "percent")
JUNIT = xmlschema.XMLSchema(str(Path(__file__).parent / "junit.xsd"))

SOUND = """\
iggyflux: 1
kind: writer
from: {stream: s, topic: t}
points: {measurement: {const: m}, fields: {if: if}, timestamp: {expr: ts, format: unix_s}}
"""
EXAMPLE = """\
examples:
  - {message: {if: 1, ts: 1}, points: ["m if=EXPECTED 1000000000"]}
"""
DOCUMENTS = {
    "broken": "iggyflux: 1\nkind: writer\n",
    "no YAML": "iggyflux: 1\nkind: writer\npoints: [",
    "untested": SOUND,
    "passes": SOUND + EXAMPLE.replace("EXPECTED", "1.0"),
    "fails": SOUND + EXAMPLE.replace("EXPECTED", "2.0"),
    "a warning": SOUND.replace("if: if", "if: 'split(x, \".\") || if'"),
    "a warning and an error": SOUND.replace("if: if", "if: 'split(x, \".\") || if', is: 'if +'"),
}


@given(st.lists(st.sampled_from(sorted(DOCUMENTS)), min_size=1, max_size=4))
@settings(max_examples=15, deadline=None)
def test_junit_is_valid_and_counts_what_it_holds(chosen: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for number, name in enumerate(chosen):
            (Path(folder) / f"{number}.yaml").write_text(DOCUMENTS[name])
        outcome = iggyflux("test", folder, "--format", "junit")
    root = fromstring(outcome.out)

    assert [error.reason for error in JUNIT.iter_errors(outcome.out)] == []
    for element in (root, *root):
        cases = list(element.iter("testcase"))
        assert element.attrib["tests"] == str(len(cases))
        assert element.attrib["failures"] == str(len(list(element.iter("failure"))))
    for suite in root:
        properties = {each.attrib["name"]: each.attrib["value"] for each in suite.iter("property")}
        is_broken = any(each.attrib["name"] == "compiles" and len(each) for each in suite.iter("testcase"))
        assert set(properties) == (set() if is_broken else {f"coverage.{each}" for each in KEYS})
    failing = {"broken", "no YAML", "fails", "a warning and an error"}
    assert root.attrib["failures"] == str(sum(name in failing for name in chosen))
    for failure in root.iter("failure"):
        assert "double quotes" not in failure.attrib["message"], "a warning is no reason to fail"
