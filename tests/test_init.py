"""`iggyflux init`: what it writes is valid as it is, and editors find the schema that it names."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ruamel.yaml import YAML
from shell import Outcome, iggyflux, process

from iggyflux import parse_mapping
from iggyflux.cli.sample_files import find_samples
from iggyflux.pipeline import load_pipeline
from iggyflux.sim import SimServer

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

    assert (refused.code, other.code, Path("mapping.yaml").read_text(), schema.read_text()) == (2, 0, "mine", "{}")
    init("--force")
    assert (Path("mapping.yaml").read_text() != "mine", schema.read_text() != "{}") == (True, True)


@pytest.mark.parametrize("words", [["pipeline.yaml", "--reader", "--pipeline"], ["m.yaml", "--mapping", "a.yaml"]])
def test_options_that_do_not_go_together_are_usage_errors(words: list[str]) -> None:
    assert (iggyflux("init", *words).code, list(Path().iterdir())) == (2, [])


# --- a directory ---

PROJECTS = [
    ([], ["--ci", "github"]),
    (["--reader"], ["--ci", "gitlab"]),
    (["--toml"], ["--ci", "gitlab"]),
    (["--toml", "--reader"], []),
]


def commands_of(path: Path) -> list[str]:
    """The commands in a written file: those of its comments, those of a CI, that of an editor's settings."""
    text = path.read_text("utf-8")
    if path.suffix == ".json":
        settings = json.loads(text)
        name = settings.get("glspc.server.command")
        return [" ".join([name, *settings["glspc.server.commandArguments"]])] if name else []
    return [
        found[1].rstrip()
        for found in re.finditer(r"(?:^#  |- run:|^    -) +(iggyflux .+?)(?:   |$)", text, re.MULTILINE)
    ]


@pytest.fixture
def server() -> Iterator[SimServer]:
    with SimServer(2, token="t", org="acme", database="plant") as running:
        yield running


@pytest.mark.parametrize(("words", "ci"), PROJECTS, ids=str)
def test_every_command_in_the_files_of_a_directory_runs_there(
    words: list[str], ci: list[str], server: SimServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It validates, tests and dry-runs as it is; a server is needed only to run the pipeline."""
    init("nord werk", *words, *ci)
    monkeypatch.chdir("nord werk")
    files = [path for path in Path().rglob("*") if path.is_file()]
    commands = [(path, each) for path in files for each in commands_of(path)]
    alone = [each for each in commands if not each[1].startswith(("iggyflux check", "iggyflux run"))]
    with_server = [each for each in commands if each not in alone]

    fills = set() if "--reader" in words else {"log"}
    assert {each.split()[1] for _, each in commands} == {"validate", "test", "dry-run", "check", "run", "lsp", *fills}
    for path, each in alone:
        run = process if each == "iggyflux lsp" else iggyflux
        outcome = run(*shlex.split(each.partition(" >")[0])[1:])
        assert outcome.code == 0, (path, each, outcome)
    environment = {"INFLUX_TOKEN": "t", "INFLUX_URL": server.url}
    if "--reader" in words:
        iggyflux("log", "append", "data", "factory/readings")
    for path, each in with_server:
        more = ["--until-end"] if each.startswith("iggyflux run") else []
        outcome = iggyflux(*shlex.split(each)[1:], *more, env=environment)
        assert outcome.code == 0, (path, each, outcome)


@pytest.mark.parametrize(("words", "ci"), PROJECTS, ids=str)
def test_what_a_directory_is_given_is_found_by_editors(words: list[str], ci: list[str]) -> None:
    """Schemas that files and settings name are there, and those of the program; samples are found without a name."""
    init("werk", *words, *ci)
    folder = Path("werk")
    mapping = next(folder.glob("mapping.*ml"))

    for path in (mapping, next(folder.glob("pipeline.*ml"))):
        found = re.match(REFERENCE[path.suffix.strip(".")], path.read_text("utf-8"))
        assert found is not None
        assert (folder / found[1]).read_text() == iggyflux("schema", path.stem).out
    settings = json.loads((folder / ".vscode/settings.json").read_text())
    for schema, globs in settings["yaml.schemas"].items():
        assert (folder / schema).is_file()
        assert mapping.suffix == ".toml" or any([*folder.glob(each)] for each in globs)
    assert find_samples(mapping, mapping.read_text("utf-8")) == folder / "samples/mapping.ndjson"


def test_a_directory_gets_what_it_lacks_and_nothing_in_it_is_changed() -> None:
    Path("werk/.vscode").mkdir(parents=True)
    Path("werk/.vscode/settings.json").write_text("mine")
    Path("werk/mapping.yaml").write_text("kind: reader")

    outcome = init("werk")
    written = {path: path.read_bytes() for path in Path("werk").rglob("*") if path.is_file()}
    again = init("werk", "--ci", "gitlab")

    assert outcome.err.count("kept") == 2
    assert (Path("werk/.vscode/settings.json").read_text(), Path("werk/mapping.yaml").read_text()) == (
        "mine",
        "kind: reader",
    )
    assert "to: log:data" in Path("werk/pipeline.yaml").read_text()
    assert again.err.count("wrote") == 1
    assert {path: path.read_bytes() for path in written} == written


@pytest.mark.parametrize(
    "words",
    [["werk", "--force"], ["werk", "--pipeline"], ["werk/", "--mapping", "a.yaml"], ["m.yaml", "--ci", "github"]],
)
def test_options_of_files_are_not_for_directories(words: list[str]) -> None:
    assert (iggyflux("init", *words).code, list(Path().iterdir())) == (2, [])


@pytest.mark.parametrize("name", ["plant.yamll", "readings.yam", "v1.0"])
def test_another_extension_is_no_directory_by_mistake(name: str) -> None:
    done = iggyflux("init", name)
    assert (done.code, Path(name).exists()) == (2, False)
    assert f"or a directory ({name}/)" in done.err
    assert iggyflux("init", f"{name}/").code == 0
    assert (Path(name) / "mapping.yaml").is_file()


def test_a_file_in_the_way_of_a_directory_is_named() -> None:
    Path("werk").write_text("")
    outcome = iggyflux("init", "werk")

    assert (outcome.code, "werk is in the way" in outcome.err) == (2, True)


def test_what_check_needs_is_printed_and_enough(server: SimServer) -> None:
    """The commands that `init` prints are run as they are, then the check that it names."""
    done = init("nord werk")
    (command,) = [line.strip() for line in done.err.splitlines() if line.startswith("  iggyflux")]
    token = {"INFLUX_TOKEN": "t", "INFLUX_URL": server.url}
    before = iggyflux("check", "nord werk/pipeline.yaml", env=token)
    assert iggyflux(*shlex.split(command)[1:]).code == 0

    assert (before.code, iggyflux("check", "nord werk/pipeline.yaml", env=token).code) == (1, 0)
    assert "then: iggyflux check nord werk/pipeline.yaml, which needs\n  export INFLUX_TOKEN=" in done.err


@pytest.mark.parametrize(
    ("ci", "file", "folder", "moved"),
    [
        ("github", ".github/workflows/iggyflux.yaml", {"working-directory": "süd/nord werk"}, "move it to"),
        ("gitlab", ".gitlab-ci.yml", "cd 'süd/nord werk'", "add `include: süd/nord werk/.gitlab-ci.yml` to"),
    ],
)
def test_a_folder_below_the_root_of_a_repository_says_where_its_ci_has_to_be(
    ci: str, file: str, folder: object, moved: str
) -> None:
    """The CI reads its file only at the root; nothing is written outside of the folder that was named."""
    Path(".git").mkdir()
    Path("süd").mkdir()
    root = init(".", "--ci", ci)
    at_root = Path(file).read_bytes()
    below = init("süd/nord werk", "--ci", ci)
    text = tree(Path("süd/nord werk", file))

    assert "has no effect there" not in root.err
    assert f"has no effect there: {moved}" in below.err
    assert Path(file).read_bytes() == at_root
    assert folder in ([text["defaults"]["run"]] if ci == "github" else text["mappings"]["script"])
