"""The house: imports go one way, foreign packages stay behind one file, and starting costs no more than is used."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "iggyflux"

LAYERS: list[set[str]] = [
    {"errors", "codes"},
    {"disk"},
    {"secrets"},
    {"records"},
    {"reads", "lineprotocol"},
    {"timestamps"},
    {"values"},
    {"payloads", "functions"},
    {"expressions"},
    {"documents"},
    {"mapping"},
    {"pipeline"},
    {"plan", "delivery"},
    {"state"},
    {"transports"},
    {"cursors"},
    {"runner"},
    {"sim"},
    {"authoring"},
    {"cli"},
    {"__main__"},
]
"""From the ground up; modules of one layer do not import each other."""

UPWARD = {("mapping", "plan"), ("functions", "expressions")}
"""`Mapping.plan()` is the one place where a document reaches up, inside the method."""

BEHIND_ONE_DOOR = {
    "jmespath": {"functions", "expressions"},
    "ruamel": {"documents"},
    "jsonschema": {"documents"},
    "referencing": {"documents"},
    "tomllib": {"codes", "documents"},
    "tree_sitter": {"documents"},
    "tree_sitter_toml": {"documents"},
    "dateutil": {"timestamps"},
    "re2": {"functions", "payloads", "documents", "mapping", "sim"},
    "cbor2": {"payloads"},
    "h11": {"sim"},
    "urllib3": {"transports"},
    "apache_iggy": {"transports"},
    "datafusion": {"sim"},
    "pyarrow": {"sim"},
    "sqlite3": {"state", "sim", "transports"},
    "click": {"cli"},
    "rich": {"cli"},
}


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names if node.module == "iggyflux")
    return found


MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py" or path.parent != PACKAGE)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


def test_every_module_has_a_layer():
    """A new room has its place in the order."""
    assert {room(path) for path in MODULES} - set(LEVEL) == set()


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(path):
    """A module imports only from layers below its own."""
    here = room(path)
    wrong = []
    for name in imports(path):
        parts = name.split(".")
        if parts[0] != "iggyflux" or len(parts) < 2 or parts[1] == here or parts[1] not in LEVEL:
            continue
        if LEVEL[parts[1]] < LEVEL[here] or (here, parts[1]) in UPWARD:
            continue
        wrong.append(name)

    assert wrong == []


def module(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


def used_modules(path: Path, names: set[str]) -> set[str]:
    """The modules of ours that a module imports when it runs: at its top or in a function."""
    tree = ast.parse(path.read_text())
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and id(node) not in for_types:
            parts = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= parts & names or {node.module} & names
    return found - {module(path)}


def test_no_module_imports_itself_by_way_of_another():
    """Inside a room too; the one import upwards is that of `UPWARD`."""
    names = {module(path): path for path in MODULES}
    graph = {name: used_modules(path, set(names)) for name, path in names.items()}
    for name, used in graph.items():
        used -= {other for other in used if (room(names[name]), room(names[other])) in UPWARD}
    while leaves := [name for name, used in graph.items() if not used]:
        for name in leaves:
            del graph[name]
        for used in graph.values():
            used -= set(leaves)

    circles = {name: used for name, used in graph.items() if any(name in graph[other] for other in used)}
    assert circles == {}
    assert graph == {}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_foreign_package_stays_behind_its_door(path):
    """Each dependency is known in as few places as can be."""
    here = room(path)
    wrong = [name for name in imports(path) if here not in BEHIND_ONE_DOOR.get(name.split(".")[0], {here})]

    assert wrong == []


def test_only_one_file_knows_the_iggy_sdk():
    """apache_iggy is imported in transports/iggy/connection.py and nowhere else."""
    found = [path.name for path in MODULES if any(name.split(".")[0] == "apache_iggy" for name in imports(path))]

    assert found in ([], ["connection.py"])


HEAVY = [
    "jmespath",
    "ruamel.yaml",
    "jsonschema",
    "referencing",
    "rpds",
    "tomllib",
    "tree_sitter",
    "tree_sitter_toml",
    "dateutil",
    "rich",
    "urllib3",
    "apache_iggy",
    "cbor2",
    "re2",
    "sqlite3",
    "asyncio",
]


@pytest.mark.parametrize(
    "code", ["import iggyflux", "sys.argv = ['iggyflux', '--version']; from iggyflux.cli import main; main()"]
)
def test_starting_imports_only_what_is_used(code):
    """`import iggyflux` and `iggyflux --version` pay for nothing else."""
    told = f"print(*[name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    script = f"import sys, atexit\natexit.register(lambda: {told})\n{code}"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)

    assert (result.returncode, result.stderr.strip()) == (0, "")
