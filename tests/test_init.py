"""`iggyflux init`: what it writes is valid as it is, and editors find the schema that it names."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ruamel.yaml import YAML
from shell import Outcome, iggyflux

from iggyflux import parse_mapping
from iggyflux.pipeline import load_pipeline

REFERENCE = {"yaml": r"# yaml-language-server: \$schema=(\S+)\n", "toml": r"#:schema (\S+)\n"}


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def init(*words: str) -> Outcome:
    outcome = iggyflux("init", *words)
    assert outcome.code == 0, outcome.err
    return outcome


def tree(path: Path) -> Any:
    text = path.read_text("utf-8")
    return tomllib.loads(text) if path.suffix == ".toml" else YAML(typ="safe", pure=True).load(text)


@pytest.mark.parametrize("form", REFERENCE)
@pytest.mark.parametrize(
    ("words", "kind"), [([], "mapping"), (["--reader"], "mapping"), (["--pipeline"], "pipeline")], ids=str
)
def test_the_schema_of_a_starter_is_beside_it_and_accepts_it(form: str, words: list[str], kind: str) -> None:
    Path("werk halle").mkdir()
    path = Path("werk halle", f"pumpen.{form}")

    init(str(path), *words)

    found = re.match(REFERENCE[form], path.read_text("utf-8"))
    assert found is not None
    schema = json.loads((path.parent / found[1]).read_bytes())
    assert schema == json.loads(iggyflux("schema", kind).out)
    jsonschema.Draft202012Validator(schema).validate(json.loads(json.dumps(tree(path), default=str)))


@pytest.mark.parametrize("words", [[], ["--reader"], ["--toml"], ["--toml", "--reader"]], ids=str)
def test_a_starter_mapping_passes_its_own_examples(words: list[str]) -> None:
    parse_mapping(init("-", *words).out, format="toml" if "--toml" in words else "yaml")

    path = "m.toml" if "--toml" in words else "m.yaml"
    init(path, *words)

    assert iggyflux("test", path).code == 0


@pytest.mark.parametrize("name", ["pipeline.yaml", "pipeline.toml", "north-pipeline.yaml"])
def test_a_name_with_pipeline_gives_a_pipeline_of_the_starter_mapping(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INFLUX_TOKEN", "t")
    init(*(["--toml"] if name.endswith("toml") else []))
    init(name)

    (route,) = load_pipeline(name).routes
    assert (route.mapping.stem, iggyflux("validate", name).code) == ("mapping", 0)


@pytest.mark.parametrize("form", REFERENCE)
@pytest.mark.parametrize("mapping", ["halle 7: süd.yaml", 'the "old" # one.yaml', "MAPPING FILE.yaml"])
def test_a_pipeline_names_the_mapping_that_it_is_given(form: str, mapping: str) -> None:
    init(f"pipeline.{form}", "--mapping", mapping)

    assert tree(Path(f"pipeline.{form}"))["run"][0]["mapping"] == mapping


@pytest.mark.parametrize("form", REFERENCE)
@pytest.mark.parametrize("kind", ["reader", "writer"])
def test_a_pipeline_suits_the_kind_of_the_mapping_that_it_is_given(
    form: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader has no messages to read: its route sends to the log."""
    monkeypatch.setenv("INFLUX_TOKEN", "t")
    init(f"torna-7.{form}", *(["--reader"] if kind == "reader" else []))
    init(f"pipeline.{form}", "--mapping", f"torna-7.{form}")

    (route,) = load_pipeline(f"pipeline.{form}").routes
    assert iggyflux("validate", f"pipeline.{form}").err == "2 documents: no problems\n"
    assert (str(route.source), str(route.sink)) == (("None", "log:data") if kind == "reader" else ("log:data", "None"))


def test_nothing_that_exists_is_overwritten_without_force() -> None:
    schema = Path("mapping-v1.schema.json")
    init()
    Path("mapping.yaml").write_text("mine")
    schema.write_text("{}")

    refused, other = iggyflux("init"), iggyflux("init", "other.yaml")

    assert (refused.code, other.code, Path("mapping.yaml").read_text(), schema.read_text()) == (1, 0, "mine", "{}")
    init("--force")
    assert (Path("mapping.yaml").read_text() != "mine", schema.read_text() != "{}") == (True, True)


@pytest.mark.parametrize("words", [["pipeline.yaml", "--reader", "--pipeline"], ["m.yaml", "--mapping", "a.yaml"]])
def test_options_that_do_not_go_together_are_usage_errors(words: list[str]) -> None:
    assert (iggyflux("init", *words).code, list(Path().iterdir())) == (2, [])
