"""First-order mutants of modules: one small change of the code each, and the tests that should notice it.

`python -m tests.mutants` tries each mutant of the modules of `SUITES` in a process of its own: first the tests of the
module, then short simulated worlds.  It prints each mutant that nothing notices and that `mutants_accepted.toml` does
not give a reason for; the exit code is 1 if there is one.  Mutants of words (messages, log fields, docstrings,
annotations) are not made.
"""

from __future__ import annotations

import argparse
import ast
import copy
import importlib.abc
import importlib.machinery
import importlib.util
import os
import signal
import sys
import time
import tomllib
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import islice
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, TypeAlias

ROUTES = ["test_runner.py", "test_reader_route.py", "test_session.py", "test_deliver.py", "test_failures.py"]

SUITES: dict[str, list[str]] = {
    "delivery.answers": [
        "test_delivery.py",
        "test_hostile_answers.py",
        "transports/test_influxdb.py",
        "transports/test_influxdb_query.py",
        "test_faults.py",
    ],
    "delivery.backoff": ["test_delivery.py", "test_outages.py", "test_session.py", "test_deliver.py"],
    "delivery.held": ["test_held_requests.py"],
    "delivery.limit": ["test_delivery.py", "test_deliver.py"],
    "delivery.lines": ["test_delivery.py", "test_deliver.py"],
    "delivery.machine": ["test_delivery.py", "test_outages.py", "test_deliver.py", "test_faults.py"],
    "delivery.naming": ["test_delivery.py", "test_hostile_answers.py", "transports/test_influxdb.py"],
    "delivery.outage": ["test_outages.py", "test_deliver.py"],
    "delivery.pace": ["test_pace.py", "test_deliver.py"],
    "delivery.retry": ["test_delivery.py", "test_outages.py", "test_deliver.py", "test_pipeline.py"],
    "delivery.windows": ["test_windows.py", "test_reader_route.py", "test_cursors.py"],
    "runner.deliver": ["test_deliver.py", "test_outages.py", "test_runner.py"],
    "runner.failures": ["test_failures.py", "test_runner.py", "test_reader_route.py"],
    "runner.ledger": ["test_runner.py"],
    "runner.prefetch": ["test_runner.py", "test_reader_route.py"],
    "runner.publish": ["test_reader_route.py", "test_session.py"],
    "runner.reader_run": ["test_reader_route.py", "test_session.py"],
    "runner.request_sender": ["test_runner.py", "test_deliver.py", "test_held_requests.py"],
    "runner.send_gate": ["test_deliver.py", "test_runner.py"],
    "runner.server_state": ["test_outages.py", "test_deliver.py", "test_runner.py"],
    "runner.session": ["test_session.py", "test_runner.py", "test_reader_route.py"],
    "runner.unanswered": ["test_deliver.py", "test_runner.py", "test_outages.py"],
    "runner.writer_run": ["test_runner.py", "test_session.py", "test_deliver.py", "test_failures.py"],
}
"""The tests of each module, below `tests`: those that notice most first."""

WORLDS = 12
"""How many short worlds a mutant lives in that the tests of its module do not notice."""

HERE = Path(__file__).parent

_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_OPERATIONS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
}
_OTHER_NAMES = {"max": "min", "min": "max", "any": "all", "all": "any"}
_OF_WORDS = {"emit", "debug", "info", "warning", "error", "exception"}
"""Functions whose arguments are words for people and machines that watch the log."""


def mutants(tree: ast.Module) -> Iterator[tuple[int, str, ast.Module]]:
    """Yield the line, the description and the tree of each mutant."""
    for number in range(sum(1 for _ in _changes(copy.deepcopy(tree)))):
        changed = copy.deepcopy(tree)
        line, what, change = next(islice(_changes(changed), number, None))
        change()
        yield line, what, ast.fix_missing_locations(changed)


_Change: TypeAlias = tuple[int, str, Callable[[], Any]]
"""A change of a tree: its line, what it does, and the function that makes it."""


def _changes(tree: ast.Module) -> Iterator[_Change]:
    """Yield each change of the tree."""
    skipped = set(_words(tree))
    for node in ast.walk(tree):
        if node in skipped:
            continue
        line = getattr(node, "lineno", 0)
        yield from ((line, what, change) for what, change in _of_operators(node))
        yield from ((line, what, change) for what, change in _of_values(node))
        for name in ("body", "orelse", "finalbody"):
            yield from _of_statements(getattr(node, name, None), skipped)


def _of_operators(node: ast.AST) -> Iterator[tuple[str, Callable[[], Any]]]:
    match node:
        case ast.Compare(ops=ops):
            for at, each in enumerate(ops):
                other = _COMPARISONS[type(each)]
                yield f"{type(each).__name__} → {other.__name__}", _put(ops, at, other())
        case ast.BoolOp(op=op, values=values):
            other_op = ast.Or() if isinstance(op, ast.And) else ast.And()
            yield f"{type(op).__name__} → {type(other_op).__name__}", _set(node, "op", other_op)
            for at in range(len(values)):
                yield f"without `{ast.unparse(values[at])}`", _drop(values, at)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield "without `not`", _set(node, "operand", ast.UnaryOp(ast.Not(), operand))
        case ast.BinOp(op=op) | ast.AugAssign(op=op) if type(op) in _OPERATIONS:
            other_operator = _OPERATIONS[type(op)]
            yield f"{type(op).__name__} → {other_operator.__name__}", _set(node, "op", other_operator())


def _of_values(node: ast.AST) -> Iterator[tuple[str, Callable[[], Any]]]:
    match node:
        case ast.Constant(value=bool() as value):
            yield f"{value} → {not value}", _set(node, "value", not value)
        case ast.Constant(value=int() | float() as value):
            yield f"{value} → {value + 1}", _set(node, "value", value + 1)
        case ast.Name(id=name) if name in _OTHER_NAMES:
            yield f"{name} → {_OTHER_NAMES[name]}", _set(node, "id", _OTHER_NAMES[name])
        case ast.If(test=test) | ast.IfExp(test=test) | ast.While(test=test):
            if not isinstance(test, (ast.Compare, ast.UnaryOp, ast.BoolOp, ast.Constant)):
                yield f"not `{ast.unparse(test)}`", _set(node, "test", ast.UnaryOp(ast.Not(), test))
        case ast.Return(value=ast.expr() as value):
            if not isinstance(value, ast.Constant) or value.value is not None:
                yield f"return None for `{ast.unparse(value)[:60]}`", _set(node, "value", ast.Constant(None))


def _of_statements(statements: object, skipped: Collection[ast.AST]) -> Iterator[_Change]:
    """Yield each statement that can be left out."""
    for at, each in enumerate(statements if isinstance(statements, list) else []):
        match each:
            case ast.AugAssign() | ast.Raise() | ast.Continue() | ast.Break():
                pass
            case ast.Assign(targets=[ast.Attribute(), *_]):
                pass
            case ast.Expr(value=value) if not isinstance(value, (ast.Constant, ast.Yield)) and each not in skipped:
                pass
            case _:
                continue
        yield each.lineno, f"without `{ast.unparse(each)[:80]}`", _put(statements, at, ast.Pass())  # type: ignore[arg-type]


def _put(items: list[Any], at: int, new: object) -> Callable[[], Any]:
    return lambda: items.__setitem__(at, new)


def _drop(items: list[Any], at: int) -> Callable[[], Any]:
    return lambda: items.pop(at) if len(items) > 2 else items.__setitem__(slice(None), [items[1 - at]] * 2)


def _set(node: ast.AST, name: str, new: object) -> Callable[[], Any]:
    return lambda: setattr(node, name, new)


def _words(tree: ast.Module) -> Iterator[ast.AST]:
    """Yield the nodes of annotations and of what is said to people."""
    for node in ast.walk(tree):
        spoken: list[ast.AST] = []
        match node:
            case ast.Call(func=ast.Attribute(attr=name) | ast.Name(id=name)) if name in _OF_WORDS:
                spoken = [node]
            case ast.Expr(value=ast.Call(func=ast.Attribute(attr=name) | ast.Name(id=name))) if name in _OF_WORDS:
                spoken = [node]
            case ast.JoinedStr():
                spoken = [node]
            case ast.AnnAssign():
                spoken = [node.annotation]
            case ast.arg(annotation=ast.expr() as annotation):
                spoken = [annotation]
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                spoken = [*([node.returns] if node.returns else []), *node.decorator_list]
            case ast.ClassDef():
                spoken = list(node.decorator_list)
        for each in spoken:
            yield from ast.walk(each)


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the mutant of one module."""

    def __init__(self, module: str, code: CodeType) -> None:
        self._module = module
        self._code = code

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != self._module:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        assert spec is not None and spec.origin is not None
        return importlib.util.spec_from_loader(name, _Loader(name, spec.origin, self._code), origin=spec.origin)


class _Loader(importlib.machinery.SourceFileLoader):
    """Loads a mutant in place of the code of its file."""

    def __init__(self, name: str, path: str, code: CodeType) -> None:
        super().__init__(name, path)
        self._code = code

    def get_code(self, fullname: str) -> CodeType:
        return self._code


def _outcome(module: str, code: CodeType | None, suites: Sequence[str], seconds: float) -> str:
    """Return what notices a mutant: "tests", "worlds", "time", or "" for nothing."""
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        quiet = os.open(os.environ.get("MUTANTS_LOG", os.devnull), os.O_RDWR | os.O_CREAT | os.O_APPEND)
        for number in (0, 1, 2):
            os.dup2(quiet, number)
        try:
            os._exit(_try(module, code, suites))
        except BaseException:
            os._exit(1)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return {0: "", 3: "worlds"}.get(os.waitstatus_to_exitcode(status), "tests")
        time.sleep(0.02)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "time"


def _try(module: str, code: CodeType | None, suites: Sequence[str]) -> int:
    """Return 0 if nothing notices the mutant, 1 if the tests do, 3 if worlds do."""
    if code is not None:
        sys.meta_path.insert(0, _Finder(module, code))
    import pytest

    options = ["-x", "-q", "-p", "no:xdist", "-p", "no:cacheprovider", "-m", "not slow and not long", "--timeout", "40"]
    options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
    if pytest.main([*options, *(str(HERE / each) for each in suites)]) != 0:
        return 1
    if code is None:
        return 0
    from tests.simulation.scenario import SIZES
    from tests.simulation.worlds import run_seed

    return 3 if any(run_seed(seed, SIZES["short"]).wrong for seed in range(WORLDS)) else 0


def _accepted() -> dict[tuple[str, str, str], str]:
    """Return the reason of each mutant that may survive, by module, the line's text and the change."""
    found = tomllib.loads((HERE / "mutants_accepted.toml").read_text("utf-8"))
    return {(each["module"], each["line"], each["change"]): each["reason"] for each in found["mutant"]}


def main() -> int:
    """Try the mutants that the command line asks for; return 1 if one survives without a reason."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("modules", nargs="*", help=f"some of: {', '.join(SUITES)}")
    parser.add_argument("--every", type=int, default=1, help="try one of so many mutants")
    given = parser.parse_args()
    for name in ("hypothesis", "jmespath", "jsonschema", "msgspec", "pytest", "ruamel.yaml", "urllib3"):
        importlib.import_module(name)  # once, and not in each process

    accepted, survived = _accepted(), 0
    for name in given.modules or SUITES:
        path = HERE.parent / "iggyflux" / f"{name.replace('.', '/')}.py"
        text = path.read_text("utf-8")
        lines = text.splitlines()
        began = time.monotonic()
        without = _outcome(f"iggyflux.{name}", None, SUITES[name], 900)
        assert without == "", f"the tests of {name} fail without a mutant: {without}"
        longest = 2 * (time.monotonic() - began) + 90
        counts = {"tests": 0, "worlds": 0, "time": 0, "accepted": 0, "survived": 0}
        for number, (line, what, mutant) in enumerate(mutants(ast.parse(text))):
            if number % given.every:
                continue
            if (name, lines[line - 1].strip(), what) in accepted:
                counts["accepted"] += 1
                continue
            code = compile(mutant, str(path), "exec")
            found = _outcome(f"iggyflux.{name}", code, SUITES[name], longest) or "survived"
            counts[found] += 1
            if found == "survived":
                survived += 1
                print(f"{name}:{line}: {what}\n    {lines[line - 1].strip()}", flush=True)
        print(f"{name}: {counts}, {time.monotonic() - began:.0f} s", flush=True)
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
