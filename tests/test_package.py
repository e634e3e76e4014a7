"""What is published: an sdist, the wheel that is built from it, lock files, the image. The wheel is self-contained."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from pages import Terminal, blocks

import iggyflux

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "iggyflux"
NO_INDEX = re.compile("error sending request|dns error|client error|operation timed out|tunnel error")
INSTALL_SECONDS = 280


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked sdist."""
    folder = tmp_path_factory.mktemp("sdist")
    build(ROOT, "sdist", folder)
    with tarfile.open(next(folder.glob("*.tar.gz"))) as archive:
        archive.extractall(folder, filter="data")
    return next(path for path in folder.iterdir() if path.is_dir())


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that is built from the sdist."""
    folder = tmp_path_factory.mktemp("wheel")
    build(sdist, "wheel", folder)
    return next(folder.glob("*.whl"))


def build(source: Path, target: str, folder: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", folder], cwd=source, check=True, timeout=60
    )


def files(folder: Path) -> set[str]:
    return {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and not {"__pycache__", ".ruff_cache"} & set(path.parts)
    }


def test_the_wheel_holds_every_file_of_the_package(wheel: Path) -> None:
    """Schemas, starters and texts of codes too, as in the source."""
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if name.startswith("iggyflux/")}
        changed = [name for name in names if archive.read(name) != (ROOT / name).read_bytes()]

    assert names == {f"iggyflux/{name}" for name in files(PACKAGE)}
    assert {name.rpartition("/")[2] for name in names} >= {"mapping-v1.schema.json", "writer.yaml", "py.typed"}
    assert changed == []


def test_the_sdist_holds_what_tests_and_examples_need(sdist: Path) -> None:
    for folder in ("iggyflux", "tests", "docs", "examples", "mappings", "deploy", "bench"):
        assert files(sdist / folder) == files(ROOT / folder), folder
    assert files(sdist) >= {"README.md", "Makefile", "pyproject.toml", "requirements.lock", "requirements-runtime.lock"}


@pytest.mark.parametrize("path", sorted([*ROOT.glob("mappings/*.yaml"), *ROOT.glob("examples/*/*.yaml")]), ids=str)
def test_schema_references_of_shipped_documents_resolve(path: Path) -> None:
    reference = re.match(r"# yaml-language-server: \$schema=(\S+)\n", path.read_text("utf-8"))

    if reference is None:
        assert path.name == "compose.yaml"
    else:
        assert json.loads((path.parent / reference[1]).read_bytes())["$id"].startswith("urn:iggyflux:")


# --- the locks ---


def pins(lock: str) -> dict[str, str]:
    return dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / lock).read_text("utf-8"), re.MULTILINE))


@pytest.mark.parametrize("lock", ["requirements-runtime.lock", "requirements-build.lock"])
def test_a_smaller_lock_pins_what_the_tests_ran_with(lock: str) -> None:
    tested = pins("requirements.lock")

    assert {name: tested.get(name) for name in pins(lock)} == pins(lock)


def test_the_runtime_lock_holds_no_tools() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    tools = {Requirement(text).name for text in project["dependency-groups"]["dev"] if isinstance(text, str)}
    runtime = {Requirement(text).name for text in project["project"]["dependencies"]}
    extras = project["project"]["optional-dependencies"]
    of_the_image = {
        Requirement(text).name for extra in ("avro", "compression", "fast", "protobuf") for text in extras[extra]
    }

    locked = set(pins("requirements-runtime.lock"))
    assert locked >= {name.replace(".", "-") for name in runtime | of_the_image}
    assert locked & (tools - of_the_image) == set()


# --- the image ---


def test_the_image_is_made_of_locks_and_of_files_that_docker_may_see() -> None:
    recipe = (ROOT / "deploy" / "Dockerfile").read_text("utf-8")
    copied = [name for line in re.findall(r"^COPY (?!--)(.*) \S+$", recipe, re.MULTILINE) for name in line.split()]
    ignored = [line for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line and line[0] != "#"]

    installs = re.findall(r"pip install (.*?)(?: \\|$)", recipe, re.MULTILINE)
    assert all("--require-hashes" in install or "--no-index" in install for install in installs), installs
    assert ignored[0] == "*"
    assert {line[1:] for line in ignored if line[0] == "!"} == set(copied)
    assert [name for name in copied if not (ROOT / name).exists()] == []
    assert "requirements.lock" not in copied


# --- installed ---


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of an environment that contains only the wheel and what the runtime lock names."""
    folder = tmp_path_factory.mktemp("installed") / "environment"
    uv("venv", "--python", sys.executable, str(folder))
    into = ("pip", "install", "--python", str(folder / "bin" / "python"))
    uv(*into, "--require-hashes", "-r", str(ROOT / "requirements-runtime.lock"))
    uv(*into, "--no-index", "--no-deps", str(wheel))
    return folder / "bin"


def uv(*arguments: str) -> None:
    command = [Path(sys.executable).parent / "uv", "--quiet", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False)
    if done.returncode and NO_INDEX.search(done.stderr):
        pytest.skip("the package index cannot be reached: nothing can be installed from it")
    assert done.returncode == 0, done.stderr


def test_the_quick_start_of_the_readme_works_without_a_checkout(installed: Path, tmp_path: Path) -> None:
    """Every transcript of README.md, in an empty folder, by the command of the wheel."""
    terminal = Terminal(tmp_path, {"PATH": f"{installed}:{os.defpath}", "COLUMNS": "100", "NO_COLOR": "1"}, False)
    with terminal.until:
        for block in blocks(ROOT / "README.md"):
            if block["file"]:
                terminal.write(block["file"], block["text"])
            if block["kind"] == "console":
                assert block["text"] == terminal.transcript(block["text"])


def test_the_readme_installs_with_uv(sdist: Path, tmp_path: Path) -> None:
    """The commands of README.md under Install, in an unpacked sdist; versions are those of the lock."""
    (tmp_path / "uv").mkdir()
    for name in ("uv", "uvx"):
        (tmp_path / "uv" / name).symlink_to(Path(sys.executable).parent / name)
    tools = {"UV_TOOL_DIR": str(tmp_path / "tools"), "UV_TOOL_BIN_DIR": str(tmp_path / "bin")}
    locks = {
        "UV_CONSTRAINT": str(ROOT / "requirements.lock"),
        "UV_BUILD_CONSTRAINT": str(ROOT / "requirements-build.lock"),
        "UV_PYTHON": sys.executable,
    }
    path = {"PATH": f"{tmp_path / 'bin'}:{tmp_path / 'uv'}:{os.defpath}"}
    terminal = Terminal(sdist, {**path, **tools, **locks}, in_process=False)
    (install,) = [block["text"] for block in blocks(ROOT / "README.md") if block["runs"]]
    assert [block["text"] for block in blocks(ROOT / "docs/install.md") if block["runs"]] == [install]

    for line in install.splitlines():
        printed = terminal.run(f"{line.partition(' #')[0].rstrip()}; echo exit $?")
        if NO_INDEX.search(printed):
            pytest.skip("the package index cannot be reached: nothing can be installed from it")
        assert printed.endswith("exit 0\n"), printed
    version = terminal.run("iggyflux --version")
    place = terminal.run("readlink -f $(command -v iggyflux)")

    assert version == f"iggyflux {iggyflux.__version__}\n"
    assert place.startswith(str(tmp_path / "tools"))


def test_the_runtime_lock_is_all_that_the_wheel_needs(installed: Path, tmp_path: Path) -> None:
    clean = {"PATH": f"{installed}:{os.defpath}"}
    uv("pip", "check", "--python", str(installed / "python"))
    place = subprocess.run(
        [installed / "python", "-c", "import iggyflux; print(iggyflux.__file__)"],
        cwd=tmp_path,
        env=clean,
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    assert Path(place).is_relative_to(installed.parent)
