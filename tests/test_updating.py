"""`test --update`: results are written into the file, and nothing else of it changes."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iggyflux import MappingError, load_mapping, parse_mapping
from iggyflux.authoring.examples import run_examples
from iggyflux.authoring.updating import RESULTS, update_examples
from iggyflux.documents import read_document
from tests.shell import iggyflux
from tests.strategies import as_yaml
from tests.test_mapping_warnings import MAPPINGS

WITH_EXAMPLES = [file for file in MAPPINGS if load_mapping(file).examples]
HEAD = """\
iggyflux: 1
kind: writer
from: {stream: s, topic: t}
points: {measurement: {const: m}, fields: {while: lambda}, timestamp: {expr: at, format: unix_s}}
"""


def as_toml(tree: dict[str, Any]) -> str:
    """A document as people write it: plain keys first, a table for each example."""

    def value(each: Any) -> str:
        if isinstance(each, dict):
            return "{" + ", ".join(f"{json.dumps(key)} = {value(inner)}" for key, inner in each.items()) + "}"
        return "[" + ", ".join(map(value, each)) + "]" if isinstance(each, list) else json.dumps(each)

    lines = [f"{key} = {value(each)}" for key, each in tree.items() if key != "examples"]
    for example in tree["examples"]:
        lines += ["", "[[examples]]  # é", *(f"{key} = {value(each)}" for key, each in example.items())]
    return "\n".join(lines) + "\n"


def has_null(value: Any) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return value is None or any(map(has_null, inner))


def passes(text: str, format: str, file: Path | None = None) -> bool:  # noqa: A002
    mapping = parse_mapping(text, format=format, file=None if file is None else str(file))
    return all(result.passed for result in run_examples(mapping))


def without_comments(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip().startswith("#")]


def garbled(tree: Any, draw: random.Random) -> Any:
    """The tree with other results: removed, emptied, changed, or of another kind."""
    changed = copy.deepcopy(tree)
    for example in changed["examples"]:
        key = "messages" if {"row", "rows"} & set(example) else "points"
        how = draw.randrange(5)
        if how == 0:
            for each in RESULTS:
                example.pop(each, None)
        elif how == 1:
            for each in RESULTS:
                example.pop(each, None)
            example[key] = []
        elif how == 2:
            for each in RESULTS:
                example.pop(each, None)
            example["fails"] = "IFX340"
        elif how == 3 and example.get("points"):
            example["points"] = [*example["points"][1:], "x y=1", "z z=2"]
    return changed


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(WITH_EXAMPLES), st.integers(0, 10**6), st.booleans())
def test_results_come_back_whatever_happened_to_them(file: Path, seed: int, toml: bool) -> None:
    tree = load_mapping(file).document.tree
    format_, write = ("toml", as_toml) if toml and not has_null(tree) else ("yaml", as_yaml)
    text = write(garbled(tree, random.Random(seed)))

    updated = update_examples(text, file=str(file), format=format_)  # type: ignore[arg-type]

    assert updated.left == ()
    assert passes(updated.text, format_, file)
    found: Any = read_document(updated.text, format=format_).tree
    for example in (*found["examples"], *tree["examples"]):  # type: ignore[index, call-overload]
        if isinstance(example.get("fails"), str):
            example["fails"] = [example["fails"]]
    assert {**found, "examples": 0} == {**tree, "examples": 0}  # type: ignore[dict-item]
    again = update_examples(updated.text, file=str(file), format=format_)  # type: ignore[arg-type]
    assert (again.text, again.count) == (updated.text, 0)


@pytest.mark.parametrize("file", WITH_EXAMPLES, ids=lambda file: file.stem)
def test_comments_and_layout_stay(file: Path) -> None:
    """A wrong number in a result is put right, and no other byte changes."""
    text = file.read_text()
    assert update_examples(text, file=str(file), format="yaml").text == text
    if load_mapping(file).kind != "writer":
        return
    at = text.rindex(" 17")
    broken = f"{text[:at]} 16{text[at + 3 :]}"
    updated = update_examples(broken, file=str(file), format="yaml")

    assert without_comments(updated.text) == without_comments(text)
    assert passes(updated.text, "yaml", file)
    assert len(updated.text.splitlines()) <= len(text.splitlines())


def test_what_is_written() -> None:
    text = HEAD + (
        "examples:\n"
        "  - name: one   # c1\n"
        "    message: {lambda: 1, at: 1}\n"
        "    # before\n"
        "    points:\n"
        "      - 'm while=2.0 1000000000'   # x\n"
        "      # own line\n"
        "  - message: {lambda: 'x', at: 2}\n"
        "  - {message: {lambda: 3, at: 3}, points: ['a a=1']}\n"
        "  - fails: IFX340\n"
        "    message: {lambda: 4, at: 4}\n"
        "    # tail\n"
    )
    updated = update_examples(text, file=None, format="yaml")

    assert updated.count == 4
    assert updated.text == HEAD + (
        "examples:\n"
        "  - name: one   # c1\n"
        "    message: {lambda: 1, at: 1}\n"
        "    # before\n"
        "    points:\n"
        "      - 'm while=1.0 1000000000'   # x\n"
        "      # own line\n"
        "  - message: {lambda: 'x', at: 2}\n"
        "    fails:\n"
        "      - 'IFX340'\n"
        "  - {message: {lambda: 3, at: 3}, points: ['m while=3.0 3000000000']}\n"
        "  - points:\n"
        "      - 'm while=4.0 4000000000'\n"
        "    message: {lambda: 4, at: 4}\n"
        "    # tail\n"
    )


def test_a_shared_result_is_left_as_it_is() -> None:
    """An alias is the result of another example, too."""
    text = HEAD + (
        "examples:\n"
        "  - {message: {lambda: 1, at: 1}, points: &right ['m while=1.0 1000000000']}\n"
        "  - {message: {lambda: 2, at: 1}, points: *right}\n"
    )
    updated = update_examples(text, file=None, format="yaml")

    first = run_examples(parse_mapping(updated.text, format="yaml"))[0]
    assert first.passed
    assert len(updated.left) + updated.count == 1


@pytest.mark.parametrize("line_break", ["\n", "\r\n"])
def test_the_command_updates_files(tmp_path: Path, line_break: str) -> None:
    text = HEAD + "examples:\n  - message: {lambda: 1.5, at: 1}   # é\n"
    file, pipeline = tmp_path / "m.yaml", tmp_path / "pipeline.yaml"
    file.write_bytes(text.replace("\n", line_break).encode())
    pipeline.write_text("iggyflux: 1\nrun: [{mapping: m.yaml}]\n")

    outcome = iggyflux("test", tmp_path, "--update")

    assert (outcome.code, "1 example updated" in outcome.err) == (0, True)
    expected = text + "    points:\n      - 'm while=1.5 1000000000'\n"
    assert (
        file.read_bytes().replace(b"   # \xc3\xa9", b"")
        == expected.replace("   # é", "").replace("\n", line_break).encode()
    )
    assert iggyflux("test", file, "--update", "-k", "x").code == 2
    broken = tmp_path / "broken.yaml"
    broken.write_text(HEAD.replace("fields", "feilds"))
    assert iggyflux("test", broken, "--update").code == 1


def test_json_of_any_text_is_written_so_that_it_is_read_again() -> None:
    for text in ("it's", "a: b", "# x", "\u2028", "\x85", "é\n", '"', "\\", "", " x "):
        example = {"message": {"lambda": 1, "at": 1, "text": text}}
        document = {
            "iggyflux": 1, "kind": "writer", "name": "n", "from": {"stream": "s", "topic": "t"},
            "points": {"measurement": {"const": "m"}, "fields": {"f": {"expr": "text", "type": "string"}}, "timestamp": {"expr": "at", "format": "unix_s"}},
            "examples": [example],
        }  # fmt: skip
        for format_, written in (
            ("yaml", json.dumps(document)),
            ("toml", as_toml(document)),
            ("yaml", as_yaml(document)),
        ):
            updated = update_examples(written, file=None, format=format_)  # type: ignore[arg-type]
            assert passes(updated.text, format_), (text, format_)


TWO = "m while=1.0 1000000000"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (  # a comment stays beside the message, and one without a line break at the end
            "- message: {lambda: 1, at: 1}  # of it",
            "- message: {lambda: 1, at: 1}  # of it\n  points:\n    - 'm while=1.0 1000000000'",
        ),
        (  # a list without indentation, with comments, and one line too many
            f"- message: {{lambda: 1, at: 1}}\n  points:\n  # why\n  - {TWO} # a\n  - x y=1  # b\n  # end\n",
            f"- message: {{lambda: 1, at: 1}}\n  points:\n  # why\n  - {TWO} # a\n  # end\n",
        ),
        (  # another kind of result
            "- message: {lambda: 1, at: 1}  # c\n  fails: IFX340\n  points: [x y=1]  # d\n",
            f"- message: {{lambda: 1, at: 1}}  # c\n  points:\n    - '{TWO}'  # d\n",
        ),
        ("- {message: {lambda: 1, at: 1},}\n", f"- {{message: {{lambda: 1, at: 1}}, points: ['{TWO}']}}\n"),
        ("- {message: {lambda: 1, at: 1}, points: [x y=1, z z=1]}\n", f"- {{message: {{lambda: 1, at: 1}}, points: ['{TWO}']}}\n"),
    ],
)  # fmt: skip
def test_comments_stay_where_they_are(before: str, after: str) -> None:
    updated = update_examples(f"{HEAD}examples:\n{before}", file=None, format="yaml")

    assert updated.text == f"{HEAD}examples:\n{after}"
    assert passes(updated.text, "yaml")


def test_an_alias_of_an_example_without_a_result_changes_nothing() -> None:
    text = f"{HEAD}examples:\n- &one {{message: {{lambda: 1, at: 1}}}}\n- *one\n"

    with pytest.raises(MappingError):
        update_examples(text, file=None, format="yaml")


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6))
def test_no_comment_moves(seed: int) -> None:
    """Comments at the end of each line of an example: each is still on a line with the same beginning, or its line is gone."""
    draw = random.Random(seed)
    lines, number = [], 0
    values = [TWO, "m while=2.0 1000000000", "x y=1", "m while=1,0 5", "no line", "m while=1 1 1"]
    indent = draw.choice(["", "  "])
    for _ in range(draw.randrange(1, 4)):
        rows = [f"{indent}- message: {{lambda: {draw.randrange(3)}, at: 1}}"]
        if draw.random() < 0.7:
            inner = draw.choice(["", "  "])
            rows.append(f"{indent}  points:")
            rows += [f"{indent}  {inner}- {draw.choice(values)}" for _ in range(draw.randrange(1, 4))]
        for row in rows:
            number += 1
            lines.append(f"{row}  # c{number}")
    updated = update_examples(f"{HEAD}examples:\n" + "\n".join(lines) + "\n", file=None, format="yaml")

    assert passes(updated.text, "yaml")
    for line in lines:
        beginning, _, comment = line.partition("  # ")
        after = next((each for each in updated.text.splitlines() if each.endswith(f"# {comment}")), None)
        if after is None:
            assert "- " in beginning
            assert "message" not in beginning
        else:
            assert after.startswith(beginning[: beginning.index("-") + 2] if "- " in beginning else beginning)


INVALID = {
    "a line": "points: ['m while=1,0 5']",
    "two lines": "points: [m, 'm while=1.0 1000000000', no line]",
    "several lines in one": 'points: ["a a=1\\nb b=1"]',
    "lines that are a text": "points: m while=1.0 1000000000",
    "lines that are numbers": "points: [1]",
    "an unknown code": "fails: IFX999",
    "points of what is skipped": "{skipped: true, points: ['a a=1']}",
    "a skip that is no flag": "skipped: maybe",
}


@pytest.mark.parametrize("result", INVALID.values(), ids=list(INVALID))
@pytest.mark.parametrize("form", ["flow", "block"])
def test_an_invalid_result_is_replaced_and_stops_no_other(result: str, form: str) -> None:
    result = result.strip("{}")
    members = "message: {lambda: 1, at: 1}"
    bad = f"  - {{{members}, {result}}}\n"
    if form == "block":
        bad = f"  - {members}  # kept\n    " + result.replace(", points", "\n    points") + "\n"
    text = f"{HEAD}examples:\n  - {{{members}, points: ['m while=7.0 1']}}  # first\n{bad}  - {{{members}}}\n"

    updated = update_examples(text, file=None, format="yaml")

    assert (updated.count, updated.left) == (3, ())
    assert passes(updated.text, "yaml")
    assert updated.text.startswith(f"{HEAD}examples:\n  - {{{members}, points: ['{TWO}']}}  # first\n")
    assert (form == "flow") or "# kept" in updated.text


def test_an_invalid_result_is_not_lost_where_there_is_no_other() -> None:
    """The message cannot be encoded, so nothing comes of it: the document is refused, as it is without --update."""
    text = HEAD.replace("topic: t", "topic: t, payload: text") + (
        "examples:\n  - {message: {a: 1}, points: [no line]}\n"
    )

    with pytest.raises(MappingError, match="line protocol"):
        update_examples(text, file=None, format="yaml")


def test_what_else_is_wrong_with_a_document_stops_its_update() -> None:
    text = f"{HEAD}examples:\n  - {{message: {{lambda: 1, at: 1}}, points: [no line], nmae: x}}\n"

    with pytest.raises(MappingError):
        update_examples(text, file=None, format="yaml")
