"""What changes in the data when one version of a mapping replaces another: `compare` and `iggyflux diff`."""

from __future__ import annotations

import json
import subprocess
from itertools import islice
from pathlib import Path

import pytest
from shell import iggyflux

from iggyflux.authoring.comparison import Comparison, Given, compare, samples_of_examples
from iggyflux.authoring.mutations import mutations
from iggyflux.documents import read_document
from iggyflux.errors import DocumentError
from iggyflux.mapping import ReaderMapping, WriterMapping, compile_document, load_mapping
from iggyflux.records import Message

MAPPINGS = sorted((Path(__file__).parent.parent / "mappings").glob("*.yaml"))

MEADOW = """\
iggyflux: 1
kind: writer
name: hives
from: {stream: apiary, topic: scales}
points:
  - measurement: {const: hive}
    tags: {meadow: m, queen: q}
    fields:
      kg: {expr: w, type: float}
      entries: {expr: e, type: integer}
      mood: {expr: s, type: string}
    timestamp: {expr: t, format: unix_s}
"""
ALL = "  - {measurement: {const: all}, fields: {w: w}, timestamp: {expr: t, format: unix_s}}\n"
MESSAGES = [
    {"m": "north", "q": "Ada", "w": 31.5, "e": 1204, "s": "calm", "t": 1764000000},
    {"m": "north", "q": "Ada", "w": 31.75, "e": 1, "s": "calm", "t": 1764000060},
    {"m": "south", "q": "Bea", "w": 12, "e": 0, "t": 1764000060},
]


def mapping_of(text: str) -> WriterMapping | ReaderMapping:
    return compile_document(read_document(text, format="yaml"))


def given(*documents: object) -> list[Given]:
    return [Given(f"sample {number}", Message(json.dumps(each).encode())) for number, each in enumerate(documents, 1)]


def compared(*edits: tuple[str, str]) -> Comparison:
    """Compare the mapping with an edited one."""
    text = MEADOW
    for old, new in edits:
        assert old in text
        text = text.replace(old, new)
    return compare(mapping_of(MEADOW), mapping_of(text), given(*MESSAGES))


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("queen: q", "", [("breaking", "tag", "removed", "hive.queen", '"Ada"', 3)]),
        ("queen: q", "queen: q, at: s", [("breaking", "tag", "added", "hive.at", '"calm"', 2)]),
        ("queen: q", "queen: upper(q)", [("breaking", "tag", "changed", "hive.queen", '"Ada" → "ADA"', 3)]),
        ("e, type: integer", "e, type: float", [("breaking", "field", "type", "hive.entries", "integer → float", 3)]),
        ("entries:", "bees:", None),
        ("w, type", "w_, type", [("breaking", "field", "removed", "hive.kg", "31.5", 3)]),
        ("expr: w", "expr: 'multiply(w, `2`)'", [("compatible", "field", "changed", "hive.kg", "31.5 → 63.0", 3)]),
        ("unix_s", "unix_ms", [("breaking", "time", "moved", "hive", "by -1.762236e+09 s", 3)]),
        ("timestamp:", "where: e > `0`\n    timestamp:", [("breaking", "point", "removed", "hive", "", 1)]),
        ("s, type: string", "s, type: string, required: true", None),
        ("const: hive", "const: beehive", None),
        ("points:\n", f"points:\n{ALL}", [("compatible", "measurement", "added", "all", "", 3)]),
    ],
)  # fmt: skip
def test_each_change_has_its_verdict(old: str, new: str, expected: list[tuple[object, ...]] | None) -> None:
    found = [
        (each.verdict, each.kind, each.how, each.subject, each.detail, each.count)
        for each in compared((old, new)).changes
    ]
    if expected is not None:
        assert found == expected
        return
    two = {
        "bees:": [("breaking", "field", "removed", "hive.entries"), ("compatible", "field", "added", "hive.bees")],
        "const: beehive": [
            ("breaking", "measurement", "removed", "hive"),
            ("compatible", "measurement", "added", "beehive"),
        ],
        "s, type: string, required: true": [("breaking", "sample", "fails"), ("breaking", "point", "removed", "hive")],
    }  # fmt: skip
    assert [change[: len(wanted)] for change, wanted in zip(found, two[new], strict=True)] == two[new]


def test_series_are_counted_before_and_after() -> None:
    assert compared(("queen: q", "bee: e")).series == {"hive": (2, 3)}


def test_points_that_newly_replace_one_another_are_found() -> None:
    """Two queens of one meadow at one time: without the tag, one scale hides the other."""
    text = MEADOW.replace("queen: q", "")
    samples = given(MESSAGES[0], {**MESSAGES[0], "q": "Cleo", "w": 8.5}, MESSAGES[1])
    changes = compare(mapping_of(MEADOW), mapping_of(text), samples).changes
    found = {(each.verdict, each.kind, each.how, each.detail) for each in changes}
    assert ("breaking", "point", "overwritten", "0 → 1") in found
    back = compare(mapping_of(text), mapping_of(MEADOW), samples).changes
    assert "overwritten" not in {each.how for each in back}


@pytest.mark.parametrize("path", MAPPINGS, ids=lambda path: path.stem)
def test_a_mapping_equals_itself_and_a_change_read_backwards_is_its_opposite(path: Path) -> None:
    """For each fifth small change of the ready mappings: something is found where lines differ, and nothing else."""
    mapping = load_mapping(path)
    samples = samples_of_examples(mapping)
    assert compare(mapping, mapping, samples) == Comparison(
        len(samples), (), (), compare(mapping, mapping, samples).series
    )
    opposite = {"added": "removed", "removed": "added", "fails": "rendered", "rendered": "fails"}
    for mutation in islice(mutations(mapping.document.tree), 0, None, 5):
        try:
            text = json.dumps(mutation.tree)
            changed = compile_document(read_document(text, format="yaml"), name=mapping.name)
        except DocumentError:
            continue
        there, back = compare(mapping, changed, samples), compare(changed, mapping, samples)
        subjects = {(each.kind, each.how, each.subject, each.count) for each in there.changes}
        mirrored = {(each.kind, opposite.get(each.how, each.how), each.subject, each.count) for each in back.changes}
        subjects, mirrored = ({each for each in found if each[1] != "overwritten"} for found in (subjects, mirrored))
        assert subjects == mirrored
        has_failures = any(each.kind == "sample" for each in there.changes)
        assert bool(there.changes) == (bool(there.changed_samples) or has_failures), mutation.change
        for one, other in zip(there.changed_samples, back.changed_samples, strict=True):
            assert {line for sign, line in one.lines if sign == "-"} == {
                line for sign, line in other.lines if sign == "+"
            }


def test_points_are_paired_by_their_series_whatever_their_order() -> None:
    text = MEADOW.replace("points:", "for_each: hives\npoints:")
    turned = text.replace("for_each: hives", "for_each: reverse(hives)")
    message = given({"hives": [*MESSAGES, {**MESSAGES[0], "q": "Cleo"}]})
    assert compare(mapping_of(text), mapping_of(turned), message).changes == ()


# --- the command ---


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(
        ["git", "-c", "user.email=a@b.c", "-c", "user.name=a", *arguments], cwd=folder, check=True, capture_output=True
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "hives.yaml").write_text(MEADOW)
    (tmp_path / "samples.ndjson").write_text("".join(json.dumps(each) + "\n" for each in MESSAGES))
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    (tmp_path / "sub" / "hives.yaml").write_text(MEADOW.replace("integer", "float").replace("m, queen: q", "m"))
    return tmp_path


@pytest.mark.parametrize("old", ["HEAD:sub/hives.yaml", "HEAD:./sub/hives.yaml"])
def test_a_revision_is_compared_with_a_file(folder: Path, old: str) -> None:
    done = iggyflux("diff", old, "sub/hives.yaml", "--samples", "samples.ndjson")
    assert done.code == 1
    assert "breaking    field hive.entries has another type: integer → float" in done.out
    assert "breaking    tag hive.queen removed" in done.out
    assert '+ hive,meadow=north entries=1204.0,kg=31.5,mood="calm" 1764000000000000000' in done.out


def test_the_command_of_the_docs_for_pull_requests(folder: Path) -> None:
    """docs/changing.md"""
    page = (Path(__file__).parent.parent / "docs/changing.md").read_text()
    command = next(line for line in page.splitlines() if line.startswith("iggyflux diff HEAD:")).split()
    (folder / "sub" / "hives.yaml").rename(folder / "mapping.yaml")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "moved")
    (folder / "mapping.yaml").write_text(MEADOW.replace("queen: q", ""))
    done = iggyflux(*command[1:])
    assert done.code == 1
    assert "| breaking | field hive.entries has another type: float → integer" in done.out


def test_a_path_of_a_revision_is_relative_to_the_current_directory_first(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder / "sub")
    done = iggyflux("diff", "HEAD:hives.yaml", "hives.yaml", "--samples", "../samples.ndjson")
    assert (done.code, "breaking: 3 of 3 samples changed" in done.err) == (1, True)


@pytest.mark.parametrize(
    ("fail_on", "new", "code"),
    [("breaking", "b", 1), ("none", "b", 0), ("any", "c", 1), ("breaking", "c", 0), ("any", "a", 0)],
)
def test_the_exit_code_says_what_fail_on_asks(tmp_path: Path, fail_on: str, new: str, code: int) -> None:
    (tmp_path / "a").write_text(MEADOW)
    (tmp_path / "b").write_text(MEADOW.replace("integer", "float"))
    (tmp_path / "c").write_text(MEADOW.replace("expr: w", "expr: 'multiply(w, `2`)'"))
    (tmp_path / "s").write_text(json.dumps(MESSAGES[0]))
    assert iggyflux("diff", "a", new, "--samples", "s", "--fail-on", fail_on).code == code


def test_json_has_every_change_and_line(folder: Path) -> None:
    done = iggyflux("diff", "HEAD:sub/hives.yaml", "sub/hives.yaml", "--samples", "samples.ndjson", "--format", "json")
    found = json.loads(done.out)
    assert found["verdict"] == "breaking"
    assert [(each["kind"], each["how"], each["subject"], each["count"]) for each in found["changes"]] == [
        ("tag", "removed", "hive.queen", 3),
        ("field", "type", "hive.entries", 3),
    ]
    assert found["series"] == {"hive": {"old": 2, "new": 2}}
    assert [each["sample"] for each in found["lines"]] == ["sample 1", "sample 2", "sample 3"]


def test_markdown_shows_names_as_they_are(tmp_path: Path) -> None:
    text = MEADOW.replace("hive}", '"a|b_<c>"}')
    (tmp_path / "a.yaml").write_text(text)
    (tmp_path / "b.yaml").write_text(text.replace("integer", "float"))
    (tmp_path / "s").write_text(json.dumps(MESSAGES[0]))
    done = iggyflux("diff", "a.yaml", "b.yaml", "--samples", "s", "--format", "markdown")
    assert "| breaking | field a\\|b\\_\\<c\\>.entries has another type: integer → float (in sample 1) |" in done.out
    assert "```diff\n# sample 1\n- a|b_<c>,meadow=north" in done.out


@pytest.mark.parametrize(
    ("old", "words"),
    [
        ("none.yaml", "cannot read none.yaml: no such file"),
        ("HEAD:none.yaml", "HEAD:none.yaml: no such file, and git says: "),
        ("nowhere:sub/hives.yaml", "nowhere:sub/hives.yaml: no such file, and git says: "),
        (".", "cannot read .: it is a directory"),
    ],
)
def test_what_is_not_there_is_said(folder: Path, old: str, words: str) -> None:
    done = iggyflux("diff", old, "sub/hives.yaml", "--samples", "samples.ndjson")
    assert (done.code, words in done.err) == (2, True)


def test_documents_without_examples_need_samples(folder: Path) -> None:
    done = iggyflux("diff", "HEAD:sub/hives.yaml", "sub/hives.yaml")
    assert (done.code, "no samples: the documents have no examples" in done.err) == (2, True)


def test_readers_are_compared_by_their_messages(tmp_path: Path) -> None:
    reader = next(path for path in MAPPINGS if path.stem == "history-rows").read_text()
    (tmp_path / "a.yaml").write_text(reader)
    changed = reader.replace("key: 'device'", "key: 'site'").replace("count: 'count'", "count: to_string(count)")
    (tmp_path / "b.yaml").write_text(changed)
    rows = [{"time": 1767225600000000000, "device": "d7", "site": "Ulm", "count": 5, "humidity": 4.5}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = iggyflux("diff", "a.yaml", "b.yaml", "--samples", "rows.jsonl", "--format", "json")
    changes = [(each["kind"], each["how"], each["subject"]) for each in json.loads(done.out)["changes"]]
    assert ("key", "changed", "message") in changes
    assert ("member", "type", "count") in changes


def test_examples_of_one_name_say_whose_they_are(folder: Path) -> None:
    """Where a member was renamed, each version has its own message under the name that stayed."""
    text = MEADOW + "examples: [{name: a hive, message: {m: north, q: Ada, w: 1.5, e: 3, t: 1764000000}, points: []}]\n"
    (folder / "old.yaml").write_text(text)
    (folder / "new.yaml").write_text(text.replace("w: 1.5", "w: 2.5").replace("integer", "float"))
    done = iggyflux("diff", "old.yaml", "new.yaml", "--samples", "samples.ndjson", "--format", "json")
    names = [each["sample"] for each in json.loads(done.out)["lines"]]
    assert {"a hive (old)", "a hive (new)", "sample 1"} <= set(names)


def test_a_sample_and_an_example_of_one_name_are_told_apart(folder: Path) -> None:
    text = (
        MEADOW + "examples: [{name: sample 1, message: {m: north, q: Ada, w: 1.5, e: 3, t: 1764000000}, points: []}]\n"
    )
    (folder / "old.yaml").write_text(text)
    (folder / "new.yaml").write_text(text.replace("integer", "float"))
    done = iggyflux("diff", "old.yaml", "new.yaml", "--samples", "samples.ndjson", "--format", "json")
    names = [each["sample"] for each in json.loads(done.out)["lines"]]
    assert {"sample 1", "sample 1 of samples.ndjson"} <= set(names)
    assert len(set(names)) == len(names)


def test_samples_that_are_not_shown_are_counted(folder: Path) -> None:
    message = {"m": "north", "q": "Ada", "w": 1.5, "e": 3, "t": 1764000000}
    lines = [json.dumps({**message, "t": 1764000000 + second}) + "\n" for second in range(42)]
    (folder / "samples.ndjson").write_text("".join(lines))
    done = iggyflux("diff", "HEAD:sub/hives.yaml", "sub/hives.yaml", "--samples", "samples.ndjson")
    assert done.err.endswith("42 of 42 samples changed; 22 more with --all\n")
