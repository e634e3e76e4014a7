"""What users run in CI: pre-commit hooks, the GitHub action, the GitLab template; and which files are documents."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from ruamel.yaml import YAML
from shell import iggyflux

from iggyflux.documents import has_version

ROOT = Path(__file__).parents[1]
ACTION: Any = YAML(typ="safe").load(ROOT / "action.yml")
GITLAB: Any = YAML(typ="safe").load(ROOT / "deploy" / "gitlab-ci.yml")

KILN = """\
iggyflux: 1
kind: writer
from: {stream: pottery, topic: kilns}
points:
  measurement: {const: kiln}
  tags: {chamber: "chamber"}
  fields: {heat: "heat"}
  timestamp: {expr: "at", format: unix_s}
examples:
  - message: {chamber: left, heat: 1063.5, at: 1767225600}
    points: ['kiln,chamber=left heat=1063.5 1767225600000000000']
"""
OTHERS = {
    "compose.yaml": "services:\n  iggyflux:\n    image: iggyflux:1\n  other: {image: 'iggyflux:2'}\n",
    "jobs.yml": "iggyflux:\n  script: [iggyflux validate .]\n",
    "environment.yml": "dependencies:\n  - iggyflux=0.1.0\n  - pip: ['iggyflux==1']\n",
    "pyproject.toml": '[tool.poetry.dependencies]\niggyflux = "^0.1"\n[project]\ndependencies = ["iggyflux>=0.1"]\n',
    "values.yaml": "# iggyflux: 1\niggyflux: # our release\n  replicas: 2\n",
    "empty.toml": "",
}


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_file_that_says_iggyflux_otherwise_is_no_document(name: str, encoding: str) -> None:
    assert not has_version(OTHERS[name].encode(encoding))


DOCUMENTS = sorted(
    path
    for folder in ("mappings", "examples", "deploy", "tests")
    for path in (ROOT / folder).rglob("*")
    if path.suffix in (".yaml", ".toml") and re.search(r"^iggyflux\b", path.read_text("utf-8", "replace"), re.MULTILINE)
)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
def test_every_document_of_the_project_is_one(encoding: str) -> None:
    assert len(DOCUMENTS) > 20
    assert [path for path in DOCUMENTS if not has_version(path.read_text("utf-8", "replace").encode(encoding))] == []


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"kind": "writer", "iggyflux": 1}),
        json.dumps({"kind": "writer", "iggyflux": 1}, indent=2),
        json.dumps({"iggyflux": 1}, separators=(",", ":")),
        "{kind: writer, iggyflux: 1}",
        "---\n'iggyflux': 1\n",
        "  iggyflux: 1\n  kind: writer\n",
        "iggyflux : one\n",
        "kind = 'writer'\niggyflux=1\n",
        'iggyflux = "1"\n',
        "iggyflux = +1\n",
        "iggyflux: # the version\n  1\nrun: []\n",
        "# x\riggyflux: 1\rkind: writer\r",
        '{\n  "iggyflux": "1"\n}',
        "{iggyflux: '1'}",
        "  iggyflux: '1'\n",
        "iggyflux:\nkind: writer\n",
        "? iggyflux\n: 1\nkind: reader\n",
        " iggyflux: &v 1\n",
    ],
)
def test_a_document_may_be_written_in_any_way(text: str) -> None:
    assert has_version(text.encode())


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a mapping and files of others, all of which are committed; the current directory."""
    for name, text in {**OTHERS, "plant/kilns.yaml": KILN, "notes.txt": "iggyflux: 1\n"}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, "utf-8")
    git(tmp_path, "init", "-q", "-b", "main")
    commit(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.email=a@b.c", "-c", "user.name=a", "-c", "protocol.file.allow=always")
    return subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


def commit(folder: Path) -> str:
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "a change")
    return git(folder, "rev-parse", "HEAD").strip()


# --- named files that are not documents ---


@pytest.mark.parametrize("command", ["validate", "test"])
def test_named_files_of_others_are_left_alone_only_if_asked(repository: Path, command: str) -> None:
    files = sorted(OTHERS)
    assert iggyflux(command, *files, "plant/kilns.yaml").code == 1
    assert iggyflux(command, "--skip-others", *files, "plant/kilns.yaml").code == 0
    assert iggyflux(command, "--skip-others", *files).code == 0
    assert iggyflux(command, "--skip-others", "pl").code == 2
    os.mkfifo("pipe")
    with subprocess.Popen(["sh", "-c", "cat plant/kilns.yaml >pipe"]):
        assert "1 document" in iggyflux(command, "--skip-others", "pipe").err
    (repository / "plant" / "kilns.yaml").write_text(KILN.replace("1063.5 17", "1000.0 17").replace("kind:", "knd:"))
    assert iggyflux(command, "--skip-others", *files, "plant/kilns.yaml").code == 1


# --- diff --since ---

CHANGES = {
    "equal": ({}, 0),
    "compatible": ({"fields: {": "fields: {centi: heat, "}, 0),
    "breaking": ({"chamber: ": "kiln: "}, 1),
}


@pytest.mark.parametrize(("verdict", "change"), [(key, value[0]) for key, value in CHANGES.items()])
@pytest.mark.parametrize("form", ["text", "markdown", "json"])
def test_each_changed_mapping_is_compared(repository: Path, verdict: str, change: Mapping[str, str], form: str) -> None:
    text = KILN + "# a comment\n"
    for old, new in change.items():
        text = text.replace(old, new, 1)
    path = repository / "plant" / "kilns.yaml"
    path.write_text(text)
    (repository / "compose.yaml").write_text("services: {}\n")

    done = iggyflux("diff", "--since", "HEAD", "--format", form)

    assert done.code == CHANGES[verdict][1]
    assert f"1 mapping changed since HEAD: 1 {verdict}" in done.err
    assert "plant/kilns.yaml" in done.out
    assert "compose" not in done.out
    if form == "json":
        assert [each["verdict"] for each in json.loads(done.out)["files"]] == [verdict]


def test_what_was_added_removed_or_broken_is_told(repository: Path) -> None:
    path = repository / "plant" / "kilns.yaml"
    (repository / "plant" / "glaze.yaml").write_text(KILN)
    git(repository, "add", "-A")
    path.write_text(KILN.replace('"heat"', '"heat["'))
    done = iggyflux("diff", "--since", "HEAD", "plant")
    assert done.code == 1
    assert "compatible: the mapping was added" in done.out
    assert "breaking: the mapping does not compile: IFX" in done.out
    assert iggyflux("diff", "--since", "HEAD", "--fail-on", "none", "plant").code == 0
    path.unlink()
    (repository / "plant" / "glaze.yaml").unlink()
    git(repository, "add", "-A")
    done = iggyflux("diff", "--since", "HEAD", "plant")
    assert (done.code, "breaking: the mapping was removed" in done.out) == (1, True)


def test_paths_of_a_comparison_are_those_of_this_directory(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (repository / "plant" / "kilns.yaml").write_text(KILN.replace("heat:", "warmth:", 1))
    monkeypatch.chdir(repository / "plant")
    assert "\nkilns.yaml" in "\n" + iggyflux("diff", "--since", "HEAD").out
    assert iggyflux("diff", "--since", "HEAD", "..").code == 1
    assert iggyflux("diff", "--since", "nowhere").code == 2
    assert iggyflux("diff", "--since", "--output=x").code == 2
    assert not (repository / "plant" / "x").exists()


@pytest.mark.parametrize(("new", "verdict"), [(KILN, "unknown"), ("services: {}\n", "breaking"), ("a: [", "breaking")])
def test_a_mapping_that_did_not_compile_or_is_none_any_more(repository: Path, new: str, verdict: str) -> None:
    """A mapping is made of a broken one; of a sound one something else is made."""
    path = repository / "plant" / "kilns.yaml"
    if verdict == "unknown":
        path.write_text(KILN.replace("measurement", "measure"))
        commit(repository)
    path.write_text(new)
    done = iggyflux("diff", "--since", "HEAD", "plant")
    assert (done.code, f"{verdict}: " in done.out) == (int(verdict == "breaking"), True)


@pytest.mark.parametrize(("fail_on", "code"), [("breaking", 0), ("any", 1), ("none", 0)])
def test_a_change_without_examples_is_unknown_and_not_compatible(repository: Path, fail_on: str, code: int) -> None:
    path = repository / "plant" / "kilns.yaml"
    bare = KILN.partition("examples:")[0]
    path.write_text(bare)
    commit(repository)
    path.write_text(bare.replace("heat:", "hot:"))
    done = iggyflux("diff", "--since", "HEAD", "--fail-on", fail_on)
    assert (done.code, "unknown: not compared: no examples" in done.out) == (code, True)
    assert done.err.endswith("1 mapping changed since HEAD: 1 unknown\n")


@pytest.mark.parametrize("path", ["plant", "plant/ovens.yaml", "plant/kilns.yaml", "."])
def test_a_renamed_mapping_is_compared_under_its_old_name(repository: Path, path: str) -> None:
    git(repository, "mv", "plant/kilns.yaml", "plant/ovens.yaml")
    new = repository / "plant" / "ovens.yaml"
    new.write_text(KILN.replace("heat:", "hot:", 1))
    done = iggyflux("diff", "--since", "HEAD", "--format", "json", path)
    [file] = json.loads(done.out)["files"]
    assert (done.code, file["file"], file["was"]) == (1, "plant/ovens.yaml", "plant/kilns.yaml")
    assert ("field", "kiln.heat") in {(each["kind"], each["subject"]) for each in file["changes"]}
    assert "plant/ovens.yaml (was plant/kilns.yaml)" in iggyflux("diff", "--since", "HEAD", path).out
    new.write_text(KILN)
    assert iggyflux("diff", "--since", "HEAD", path).code == 0


def test_files_beside_this_directory_are_compared_if_they_are_named(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (repository / "depot").mkdir()
    (repository / "depot" / "shelf.yaml").write_text(KILN)
    commit(repository)
    git(repository, "mv", "depot/shelf.yaml", "plant/shelf.yaml")
    (repository / "plant" / "kilns.yaml").write_text(KILN.replace("heat:", "hot:", 1))
    monkeypatch.chdir(repository / "depot")
    assert iggyflux("diff", "--since", "HEAD", "../plant").code == 1
    out = iggyflux("diff", "--since", "HEAD", "..").out
    assert "../plant/shelf.yaml (was shelf.yaml)" in out
    assert "removed" not in out.partition("shelf")[2]


def test_a_path_that_is_nowhere_is_a_wrong_usage(repository: Path) -> None:
    (repository / "plant" / "kilns.yaml").unlink()
    assert iggyflux("diff", "--since", "HEAD", "plant/kilns.yaml").code == 1
    done = iggyflux("diff", "--since", "HEAD", "plant", "plnat/kilns.yaml")
    assert (done.code, "plnat/kilns.yaml: no such file or directory" in done.err) == (2, True)
    (repository / "plant" / "new").mkdir()
    assert iggyflux("diff", "--since", "HEAD", "plant/new").code == 0


@pytest.mark.parametrize("arguments", [("--since", "main"), ("main:kilns.yaml", "kilns.yaml")])
def test_outside_of_a_repository_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    (tmp_path / "kilns.yaml").write_text(KILN)
    monkeypatch.chdir(tmp_path)
    done = iggyflux("diff", *arguments)
    assert (done.code, "this directory is not in a repository of git\n" in done.err) == (2, True)


@pytest.mark.parametrize("revision", ["HEAD", "main", ":/a change", "HEAD^{/a change}", "main@{0}"])
def test_a_revision_may_be_written_in_any_way(repository: Path, revision: str) -> None:
    (repository / ":odd").mkdir()
    (repository / ":odd" / "kilns.yaml").write_text(KILN)
    git(repository, "add", "-A")
    git(repository, "commit", "-qm", "a change")
    (repository / ":odd" / "kilns.yaml").write_text(KILN.replace("chamber: ", "kiln: ", 1))
    done = iggyflux("diff", "--since", revision, ":odd")
    assert (done.code, "tag kiln.chamber removed" in done.out) == (1, True)


# --- pre-commit ---


def test_the_hooks_check_documents_and_leave_other_files_alone(repository: Path, tmp_path_factory: Any) -> None:
    """By the real pre-commit; only the way in which it installs our package is replaced."""
    hooks = tmp_path_factory.mktemp("hooks")
    text = (ROOT / ".pre-commit-hooks.yaml").read_text()
    assert text.count("language: python") == 2
    (hooks / ".pre-commit-hooks.yaml").write_text(text.replace("language: python", "language: system"))
    git(hooks, "init", "-q")
    config = [f"repos: [{{repo: '{hooks}', rev: {commit(hooks)}, hooks: ["]
    config += ["{id: iggyflux-validate}, {id: iggyflux-test}]}]"]
    (repository / ".pre-commit-config.yaml").write_text("".join(config))
    commit(repository)
    environment = {"PATH": _path(), "PRE_COMMIT_HOME": str(tmp_path_factory.mktemp("home")), "HOME": str(hooks)}

    def run() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pre_commit", "run", "--all-files", "--verbose", "--color", "never"]
        return subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True, check=False)

    done = run()
    assert done.returncode == 0, done.stdout
    assert "1 document: no problems" in done.stdout
    assert "1 document, 1 example: 1 passed" in done.stdout
    (repository / "plant" / "kilns.yaml").write_text(KILN.replace("1063.5 17", "1000.0 17"))
    done = run()
    assert done.returncode == 1
    results = dict(re.findall(r"^iggyflux (\w+)\.+(\w+)$", done.stdout, re.MULTILINE))
    assert results == {"validate": "Passed", "test": "Failed"}


def _path(*more: Path) -> str:
    return ":".join([*map(str, more), str(Path(sys.executable).parent), os.environ["PATH"]])


# --- GitHub ---


def action_step(name: str, environment: Mapping[str, str], **inputs: str) -> subprocess.CompletedProcess[str]:
    """Run a step of the action in the current directory, as a runner of GitHub does."""
    step = next(each for each in ACTION["runs"]["steps"] if each.get("name") == name)
    given = {key: str(about.get("default", "")) for key, about in ACTION["inputs"].items()} | inputs

    def value(text: str) -> str:
        def of(found: re.Match[str]) -> str:
            name = found[1].strip()
            return given[name.removeprefix("inputs.")] if name.startswith("inputs.") else environment[name]

        return re.sub(r"\$\{\{([^}]*)\}\}", of, text)

    own = {key: value(text) for key, text in step.get("env", {}).items()}
    assert "${{" not in step["run"], "what an input says must not become code"
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]]
    return subprocess.run(command, env={**environment, **own}, capture_output=True, text=True, check=False)


def test_the_inputs_of_the_action_are_those_it_uses() -> None:
    used = set(re.findall(r"inputs\.([\w-]+)", json.dumps(ACTION["runs"])))
    assert used == set(ACTION["inputs"])


def test_the_action_validates_tests_and_compares(repository: Path, tmp_path_factory: Any) -> None:
    tools = tmp_path_factory.mktemp("tools")
    (tools / "gh").write_text('#!/bin/sh\nprintf "%s\\n" "$@" >gh-was-called\n')
    (tools / "gh").chmod(0o755)
    base = git(repository, "rev-parse", "HEAD").strip()
    environment = {
        "PATH": _path(tools),
        "HOME": str(tools),
        "RUNNER_TEMP": str(tools),
        "GITHUB_STEP_SUMMARY": str(tools / "summary.md"),
        "github.event.pull_request.base.sha": base,
        "github.event.pull_request.head.sha": base,
        "github.event.pull_request.html_url": "https://example.org/pull/1",
    }

    assert action_step("validate", environment, paths="plant").returncode == 0
    assert action_step("test", environment, paths="plant", **{"fail-under": "100", "strict": "true"}).returncode == 0
    assert json.loads(Path("iggyflux.sarif").read_text())["runs"][0]["results"] == []
    assert ElementTree.parse("iggyflux-junit.xml").getroot().find(".//testcase") is not None

    (repository / "plant" / "kilns.yaml").write_text(KILN.replace("chamber:", "kiln:", 1).replace("heat:", "hot:", 1))
    commit(repository)
    tested = action_step("test", environment, paths="plant")
    assert (tested.returncode, "1 failed" in tested.stderr) == (1, True)
    compared = action_step("compare", environment, paths="plant\ncompose.yaml")
    assert compared.returncode == 0, compared.stderr
    assert "| breaking | tag kiln.chamber removed" in (tools / "summary.md").read_text()
    assert "https://example.org/pull/1" in Path("gh-was-called").read_text()
    assert action_step("compare", environment, paths="plant", **{"fail-on": "breaking"}).returncode == 1

    (repository / "plant" / "kilns.yaml").write_text("iggyflux: 1\nkind: writr\n")
    checked = action_step("validate", environment, paths="mappings-of-others.toml\nplant\n")
    assert checked.returncode == 2
    checked = action_step("validate", environment, paths="\nplant\n")
    assert checked.returncode == 1
    assert "::error file=plant/kilns.yaml,line=2" in checked.stdout
    assert json.loads(Path("iggyflux.sarif").read_text())["runs"][0]["results"] != []


@pytest.mark.parametrize("checked_out", ["merge", "head"])
@pytest.mark.parametrize("depth", [1, 50])
def test_the_action_does_not_report_what_the_base_branch_changed(
    repository: Path, tmp_path_factory: Any, monkeypatch: pytest.MonkeyPatch, checked_out: str, depth: int
) -> None:
    """A mapping is changed there after the branch began.  GitHub checks out a merge; `ref` may say the head."""
    base = git(repository, "branch", "--show-current").strip()
    began = git(repository, "rev-parse", "HEAD").strip()
    git(repository, "checkout", "-qb", "branch")
    (repository / "other.yaml").write_text(KILN)
    head = commit(repository)
    git(repository, "checkout", "-q", base)
    (repository / "plant" / "kilns.yaml").write_text(KILN.replace("chamber: ", "kiln: ", 1))
    tip = commit(repository)
    git(repository, "checkout", "-qb", "merged")
    git(repository, "merge", "-q", "--no-ff", "-m", "merge", head)
    git(repository, "config", "uploadpack.allowAnySHA1InWant", "true")
    clone, tools = tmp_path_factory.mktemp("clone"), tmp_path_factory.mktemp("tools")
    branch = "merged" if checked_out == "merge" else "branch"
    git(clone, "clone", "-q", f"--depth={depth}", "--no-single-branch", "-b", branch, f"file://{repository}", ".")
    monkeypatch.chdir(clone)
    environment = {
        "PATH": _path(),
        "HOME": str(tools),
        "RUNNER_TEMP": str(tools),
        "GITHUB_STEP_SUMMARY": str(tools / "summary.md"),
        "github.event.pull_request.base.sha": tip if checked_out == "head" else began,
        "github.event.pull_request.head.sha": head,
        "github.event.pull_request.html_url": "https://example.org/pull/1",
    }
    done = action_step("compare", environment, comment="false")
    assert done.returncode == 0, done.stderr
    summary = (tools / "summary.md").read_text()
    assert ("other.yaml" in summary, "kilns.yaml" in summary) == (True, False), summary


# --- GitLab ---


@pytest.mark.parametrize(
    ("variables", "jobs"),
    [
        ({"CI_PIPELINE_SOURCE": "push", "CI_COMMIT_BRANCH": "b"}, {"iggyflux-validate", "iggyflux-test"}),
        ({"CI_PIPELINE_SOURCE": "push", "CI_COMMIT_BRANCH": "b", "CI_OPEN_MERGE_REQUESTS": "g/p!1"}, set()),
        ({"CI_PIPELINE_SOURCE": "push", "CI_COMMIT_TAG": "v1"}, {"iggyflux-validate", "iggyflux-test"}),
        (
            {
                "CI_PIPELINE_SOURCE": "merge_request_event",
                "CI_MERGE_REQUEST_DIFF_BASE_SHA": "0123",
                "CI_OPEN_MERGE_REQUESTS": "g/p!1",
            },
            {"iggyflux-validate", "iggyflux-test", "iggyflux-diff"},
        ),
    ],
    ids=["branch", "branch with a merge request", "tag", "merge request"],
)
def test_a_push_makes_one_pipeline_on_gitlab(variables: dict[str, str], jobs: set[str]) -> None:
    """The rules are read as GitLab reads them: the first one whose condition is true decides."""

    def is_true(condition: str) -> bool:
        return all(
            variables.get(name) == value if value else bool(variables.get(name))
            for name, value in re.findall(r"\$(\w+)(?: == \"(\w+)\")?", condition)
        )

    def runs(job: Any) -> bool:
        rules = job.get("rules") or GITLAB[job["extends"]]["rules"]
        decided = (rule.get("when", "on_success") for rule in rules if is_true(rule.get("if", "")))
        return next(decided, "never") != "never"

    found = {name for name, job in GITLAB.items() if isinstance(job, dict) and "script" in job and runs(job)}
    assert found == jobs


def test_the_template_for_gitlab_validates_tests_and_compares(repository: Path) -> None:
    base = git(repository, "rev-parse", "HEAD").strip()
    given = {"PATH": _path(), "HOME": str(repository), "CI_MERGE_REQUEST_DIFF_BASE_SHA": base}
    environment = {**given, **{key: str(value) for key, value in GITLAB["variables"].items()}}

    def run(job: str, **variables: str) -> subprocess.CompletedProcess[str]:
        script = "\n".join(GITLAB[job]["script"])
        command = ["bash", "-eo", "pipefail", "-c", script]
        return subprocess.run(command, env={**environment, **variables}, capture_output=True, text=True, check=False)

    for job in ("iggyflux-validate", "iggyflux-test", "iggyflux-diff"):
        assert run(job).returncode == 0, job
    (repository / "plant" / "kilns.yaml").write_text(KILN.replace("heat:", "hot:", 1))
    assert run("iggyflux-validate").returncode == 0
    assert run("iggyflux-test").returncode == 1
    assert ElementTree.parse("iggyflux-junit.xml").getroot().find(".//failure") is not None
    compared = run("iggyflux-diff")
    assert (compared.returncode, "field kiln.heat removed" in compared.stdout) == (0, True)
    assert run("iggyflux-diff", IGGYFLUX_FAIL_ON="breaking").returncode == 1


def test_the_schemas_say_who_they_are_for_a_public_catalogue() -> None:
    schemas = [json.loads(path.read_text()) for path in sorted((ROOT / "schemas").glob("*.schema.json"))]
    assert len({schema["$id"] for schema in schemas}) == len(schemas) > 1
    assert all(schema["$schema"] and schema["title"] for schema in schemas)


def test_the_commands_of_the_page_run(repository: Path) -> None:
    """docs/ci.md, with the folder and the revision of this repository."""
    page = (ROOT / "docs" / "ci.md").read_text()
    block = re.search(r"<!-- runs: tests/test_user_ci.py -->\n```sh\n(.*?)```", page, re.DOTALL)
    assert block is not None
    commands = block[1].replace("origin/main", "HEAD").replace("mappings", "plant")
    environment = {"PATH": _path(), "HOME": str(repository)}
    done = subprocess.run(["bash", "-e", "-c", commands], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    assert sorted(each.name for each in repository.glob("iggyflux*")) == [
        "iggyflux-diff.md",
        "iggyflux-junit.xml",
        "iggyflux.sarif",
    ]
