"""The house: imports go one way, foreign packages stay behind one file, and starting costs no more than is used."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "iggyflux"

LAYERS: list[set[str]] = [
    {"escapes", "interrupts"},
    {"errors", "codes"},
    {"disk", "deflate"},
    {"secrets"},
    {"records"},
    {"reads", "structure", "lineprotocol"},
    {"timestamps"},
    {"values"},
    {"payloads", "functions"},
    {"expressions"},
    {"documents"},
    {"spec"},
    {"plan"},
    {"mapping"},
    {"pipeline"},
    {"delivery"},
    {"state"},
    {"transports"},
    {"cursors"},
    {"telemetry"},
    {"runner"},
    {"audit"},
    {"sim"},
    {"authoring"},
    {"importing"},
    {"archives"},
    {"engines"},
    {"editor"},
    {"playground"},
    {"cli"},
    {"__main__"},
]
"""From the ground up; modules of one layer do not import each other."""

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
    "cramjam": {"payloads"},
    "xmltodict": {"payloads"},
    "h11": {"sim", "telemetry"},
    "opentelemetry": {"telemetry"},
    "prometheus_client": {"telemetry"},
    "urllib3": {"transports"},
    "apache_iggy": {"transports"},
    "fsspec": {"archives"},
    "ray": {"engines"},
    "datafusion": {"sim"},
    "pyarrow": {"archives", "engines", "sim"},
    "sqlite3": {"state", "sim", "transports"},
    "starlette": {"playground"},
    "uvicorn": {"cli"},
    "click": {"cli"},
    "pygls": {"cli"},
    "lsprotocol": {"cli"},
    "rich": {"cli"},
}


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree_of(path)):
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
        if LEVEL[parts[1]] >= LEVEL[here]:
            wrong.append(name)

    assert wrong == []


def module(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


def used_modules(path: Path, names: set[str]) -> set[str]:
    """Return the modules of ours that a module imports when it runs, at its top or in a function.

    Imports under TYPE_CHECKING do not run, so they do not count; `test_imports_go_down` checks them.
    """
    tree = tree_of(path)
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
        elif isinstance(node, ast.Import) and id(node) not in for_types:
            found |= {alias.name for alias in node.names} & names
    return found - {module(path)}


def circles(graph: Mapping[str, set[str]]) -> list[set[str]]:
    """Return the groups of nodes that all reach each other: the strongly connected components of two nodes or more."""
    reached = {node: set(used) for node, used in graph.items()}
    for middle in graph:
        for node, seen in reached.items():
            if middle in seen:
                reached[node] = seen | reached[middle]
    groups = {frozenset(other for other in seen if node in reached[other]) for node, seen in reached.items()}
    return sorted((set(group) for group in groups if len(group) > 1), key=min)


@cache
def graph_of_imports() -> Mapping[str, set[str]]:
    names = set(map(module, MODULES))
    return {module(path): used_modules(path, names) for path in MODULES}


def test_no_module_imports_itself_by_way_of_another():
    """Inside a room too."""
    assert circles(graph_of_imports()) == []


def test_no_package_imports_itself_by_way_of_another():
    """Also where no module does: two packages that import each other can only be understood together."""
    packages: dict[str, set[str]] = {}
    for name, used in graph_of_imports().items():
        here = name.split(".")[1]
        packages.setdefault(here, set()).update(other.split(".")[1] for other in used if other.split(".")[1] != here)

    assert circles(packages) == []


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
    "prometheus_client",
    "opentelemetry",
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


@pytest.mark.parametrize("path", sorted((PACKAGE.parent / "mappings").glob("*.yaml"))[:1], ids=lambda path: path.stem)
def test_validate_loads_neither_transports_nor_other_formats(path):
    """Checking one YAML document waits for what documents and expressions need, and for nothing that sends."""
    unused = ["rich", "urllib3", "apache_iggy", "sqlite3", "asyncio", "tree_sitter", "iggyflux.runner"]
    unused += ["iggyflux.plan.codegen", "iggyflux.sim"]
    report = f"print('loaded:', *[name for name in {unused!r} if name in sys.modules], file=sys.stderr)"
    code = f"sys.argv = ['iggyflux', 'validate', {str(path)!r}]; from iggyflux.cli import main; main()"
    script = f"import sys, atexit\natexit.register(lambda: {report})\n{code}"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)

    assert (result.returncode, result.stderr.splitlines()[-1]) == (0, "loaded:")


def test_what_jsonschema_imports_where_it_is_installed_costs_nothing(tmp_path):
    """A grammar of rfc3987_syntax takes 0.8 s of each command."""
    (tmp_path / "rfc3987_syntax.py").write_text("raise SystemExit('it was imported')")
    mapping = next((PACKAGE.parent / "mappings").glob("*.yaml"))
    command = [sys.executable, "-m", "iggyflux", "validate", str(mapping)]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, check=False)

    assert done.returncode == 0, done.stderr


IMPORTED_LATE = {
    ("cli/dry_run.py", "iggyflux.cli.iggy"): "the SDK, only with --from iggy",
    ("cli/eval_session.py", "readline"): "it writes to the terminal",
    ("cli/infer.py", "iggyflux.cli.iggy"): "the SDK, only with --from iggy",
    ("cli/dry_run_reader.py", "iggyflux.transports.influxdb.query.source"): "urllib3, only with --from influxdb",
    ("cli/lsp.py", "iggyflux.cli.language_server"): "pygls, which is an extra",
    ("cli/playground.py", "iggyflux.cli.playground_server"): "starlette and uvicorn, which are an extra",
    ("cli/playground_server.py", "iggyflux.cli.iggy"): "the SDK, only with --from iggy",
    ("cli/progress.py", "iggyflux.cli.live_display"): "wcwidth, only on a terminal",
    ("cli/test.py", "iggyflux.cli.round_trip"): "the simulator and transports, only with --round-trip",
    ("editor/checking.py", "iggyflux.runner.open"): "the runner, only for pipelines",
}
"""The imports in functions: each saves a command that does not need it at least 25 ms."""


def test_commands_import_at_the_top_of_their_modules():
    """A command is imported when it is called, so only measured exceptions are imported later."""
    late = {
        (str(path.relative_to(PACKAGE)), node.module if isinstance(node, ast.ImportFrom) else node.names[0].name)
        for path in MODULES
        if room(path) in ("cli", "authoring", "editor", "playground")
        for function in ast.walk(tree_of(path))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
    }

    assert late == set(IMPORTED_LATE)
