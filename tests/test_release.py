"""What publishes a release: the workflows, the files that they build, the owner's name in addresses, the extras."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

import iggyflux

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
LOADED = {path.name: YAML(typ="safe", pure=True).load(path.read_text("utf-8")) for path in WORKFLOWS}
STEPS = [
    pytest.param(step, id=f"{name} {job} {number}")
    for name, workflow in LOADED.items()
    for job, about in workflow["jobs"].items()
    for number, step in enumerate(about["steps"])
]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
WRITE = {
    "attest": {"id-token", "attestations"},
    "pypi": {"id-token"},
    "image": {"packages", "id-token", "attestations"},
    "notes": {"contents"},
    "site": {"pages", "id-token"},
}
"""What a job may change; all others may only read."""

# --- workflows ---


def test_actionlint_finds_nothing() -> None:
    program = shutil.which("actionlint")
    if program is None:
        pytest.skip("needs actionlint")
    done = subprocess.run([program, *WORKFLOWS], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout) == (0, "")


def test_a_job_may_change_only_what_it_publishes() -> None:
    for name, workflow in LOADED.items():
        assert workflow["permissions"] in ({}, {"contents": "read"}), name
        for job, about in workflow["jobs"].items():
            given = about.get("permissions", {})
            assert {key for key, value in given.items() if value == "write"} == WRITE.get(job, set()), job
            assert set(given.values()) <= {"read", "write"}, job


@pytest.mark.parametrize("step", STEPS)
def test_a_step_names_a_whole_version_and_keeps_no_secret(step: dict[str, Any]) -> None:
    text = json.dumps(step)

    assert "uses" not in step or re.fullmatch(r"[\w.-]+/[\w./-]+@v\d+\.\d+\.\d+", step["uses"])
    assert "secrets." not in text, "PyPI and the registry trust the workflow"
    assert "${{" not in step.get("run", ""), "what an event says must not become code"
    assert "actions/checkout" not in text or step["with"]["persist-credentials"] is False


def test_nothing_is_published_that_was_not_tested() -> None:
    jobs = LOADED["release.yml"]["jobs"]

    def before(job: str) -> set[str]:
        needs = jobs[job].get("needs", [])
        direct = {needs} if isinstance(needs, str) else set(needs)
        return direct.union(*map(before, direct))

    assert [job for job in jobs if job != "build" and "build" not in before(job)] == []
    assert any(step.get("run") == "bash .ci/run" for step in jobs["build"]["steps"])
    assert any(step.get("run") == "bash .ci/run" for step in LOADED["ci.yml"]["jobs"]["test"]["steps"])


@pytest.mark.parametrize(("tag", "code"), [(f"v{iggyflux.__version__}", 0), ("v99.0.0", 1)])
def test_a_tag_that_is_not_the_version_publishes_nothing(tag: str, code: int, tmp_path: Path) -> None:
    (step,) = [
        each for each in LOADED["release.yml"]["jobs"]["build"]["steps"] if each.get("name") == "the tag is the version"
    ]
    (tmp_path / ".venv").symlink_to(sys.prefix)
    command = ["bash", "-e", "-c", step["run"]]
    done = subprocess.run(command, cwd=tmp_path, env={**os.environ, "GITHUB_REF_NAME": tag}, check=False)

    assert done.returncode == code


def test_ci_runs_each_python_that_the_docs_promise() -> None:
    versions = LOADED["ci.yml"]["jobs"]["versions"]["strategy"]["matrix"]["python"]

    assert f"Python {versions[0]} to {versions[-1]}" in (ROOT / "docs" / "install.md").read_text("utf-8")
    assert PROJECT["requires-python"] == f">={versions[0]}"


# --- the owner ---


def run_owner(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, root / "deploy" / "owner.py", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_owner_is_written_everywhere_at_once(tmp_path: Path) -> None:
    """The placeholder is in the files that deploy/owner.py names, and in no others."""
    ignored = shutil.ignore_patterns(".venv", ".git", "build", "dist", "static", ".*_cache", ".hypothesis")
    shutil.copytree(ROOT, tmp_path / "copy", ignore=ignored, symlinks=True)
    assert "make owner" in run_owner(tmp_path / "copy", "--check").stderr
    assert run_owner(tmp_path / "copy", "Acme-7").returncode == 0
    left = [
        path
        for path in (tmp_path / "copy").rglob("*")
        if path.is_file()
        and path.suffix in {".md", ".toml", ".yaml", ".yml", ".json", ".py", ".service", ""}
        and re.search(r"OWNER(?:/|\.github\.io/)iggyflux", path.read_bytes().decode("utf-8", "replace"))
    ]

    assert left == []
    assert run_owner(tmp_path / "copy", "--check").returncode == 0
    assert "image: ghcr.io/acme-7/iggyflux:" in (tmp_path / "copy" / "deploy" / "kubernetes.yaml").read_text("utf-8")
    assert "https://Acme-7.github.io/iggyflux" in (tmp_path / "copy" / "pyproject.toml").read_text("utf-8")


def test_an_owner_is_a_name() -> None:
    assert "not the name" in run_owner(ROOT, "a/b; c").stderr


def test_the_image_has_the_version_of_the_package() -> None:
    for name in ("kubernetes.yaml", "compose.yaml"):
        images = re.findall(r"image: (?:\S+/)?iggyflux:(\S+)", (ROOT / "deploy" / name).read_text("utf-8"))
        assert set(images) == {iggyflux.__version__}, name


# --- extras ---


def test_all_is_every_extra_and_the_page_lists_each() -> None:
    extras = PROJECT["optional-dependencies"]
    (everything,) = extras["all"]
    page = (ROOT / "docs" / "install.md").read_text("utf-8")

    assert everything == f"iggyflux[{','.join(sorted(set(extras) - {'all', 'ray'}))}]"
    assert sorted(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == sorted(extras)


# --- what is built ---


@pytest.mark.slow
def test_what_is_published_is_built_twice_alike_and_lists_what_is_in_it(tmp_path: Path) -> None:
    for name in ("one", "two"):
        subprocess.run(
            ["sh", ROOT / "deploy" / "build.sh", tmp_path / name, Path(sys.executable).parent],
            env={**os.environ, "SOURCE_DATE_EPOCH": "1700000000"},
            capture_output=True,
            check=True,
            timeout=200,
        )
    one, two = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("one", "two"))
    bill = json.loads(one["iggyflux.cdx.json"])
    lock = (ROOT / "requirements-runtime.lock").read_text("utf-8")

    assert sorted(path.rpartition(".")[2] for path in one) == ["gz", "json", "whl"]
    assert one == two
    assert bill["metadata"]["component"]["version"] == iggyflux.__version__
    assert {f"{each['name']}=={each['version']}" for each in bill["components"]} == set(
        re.findall(r"^[\w.-]+==[^\s;]+", lock, re.MULTILINE)
    )
