"""First-order mutants of modules: one small change of the code each, and the tests that should notice it.

`python -m tests.mutants` tries each mutant of the modules of `SUITES`: first the tests of the module that run the
changed function, then short simulated worlds.  It prints each mutant that nothing notices and that
`mutants_accepted.toml` gives no reason for; the exit code is 1 if there is one.

| the mutant                                         | counts as                                              |
|----------------------------------------------------|--------------------------------------------------------|
| a test fails                                       | noticed by tests                                       |
| the module cannot be imported                      | noticed by its import                                  |
| a world is wrong                                   | noticed by worlds                                      |
| a test or a world takes 10 times as long and 8 s,  | timed out: noticed                                     |
| and 30 times as long and 20 s when it runs alone   |                                                        |
| it needs 15 times as much CPU, and 1.5 s           | timed out: noticed                                     |
| none of these                                      | survived, or accepted                                  |
| pytest ends in another way than with failed tests  | an error: the run ends, for the result says nothing    |

`--quick` tries only what is fast: no world, and of the tests those that take a second or so, with fewer drawn examples
and parameters.  What it notices is noticed; what it leaves over needs another look, with a reason or without `--quick`.

A mutant of a function is tried in a copy of a process that has collected the tests.  What runs when the module is
imported is tried in a new process.  Mutants of words (messages, log fields, docstrings, annotations) are not made.
"""

from __future__ import annotations

import argparse
import ast
import builtins
import copy
import gc
import importlib.abc
import importlib.machinery
import importlib.util
import inspect
import json
import os
import resource
import select
import signal
import sys
import tempfile
import threading
import time
import tomllib
import traceback
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, islice, zip_longest
from pathlib import Path
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import Any, TypeAlias

import pytest
from hypothesis import Phase, settings

SUITES: dict[str, list[str]] = {
    "audit.again": ["test_audit.py"],
    "audit.check": ["test_audit.py"],
    "audit.letters": ["test_audit.py"],
    "audit.points": ["test_audit.py"],
    "audit.sorting": ["test_audit.py"],
    "audit.sources": ["test_audit.py"],
    "audit.stored": ["test_audit_stored.py"],
    "audit.window": ["test_audit.py"],
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
    "delivery.naming": [
        "test_naming.py",
        "test_delivery.py",
        "test_hostile_answers.py",
        "transports/test_influxdb.py",
    ],
    "delivery.outage": ["test_outages.py", "test_deliver.py"],
    "delivery.pace": ["test_pace.py", "test_deliver.py"],
    "delivery.retention": ["test_retention.py"],
    "delivery.retry": ["test_delivery.py", "test_outages.py", "test_deliver.py", "test_pipeline.py"],
    "delivery.series": ["test_series_limit.py"],
    "delivery.settled": ["test_settled.py", "test_settled_ledger.py"],
    "delivery.verdicts": ["test_delivery.py", "test_deliver.py", "transports/test_influxdb.py"],
    "delivery.windows": ["test_windows.py", "test_reader_route.py", "test_cursors.py"],
    "runner.change": ["test_change.py", "test_reload.py"],
    "runner.deliver": ["test_deliver.py", "test_outages.py", "test_runner.py"],
    "runner.documents": ["test_reload.py"],
    "runner.failures": ["test_failures.py", "test_runner.py", "test_reader_route.py", "test_bounds.py"],
    "runner.ledger": ["test_ledger.py", "test_runner.py"],
    "runner.prefetch": ["test_reader_route.py"],
    "runner.publish": ["test_publish.py", "test_reader_route.py", "test_session.py"],
    "runner.reader_run": ["test_reader_route.py", "test_change.py", "test_traces.py", "test_session.py"],
    "runner.reload": ["test_reload.py", "test_service_manager.py"],
    "runner.request_sender": [
        "test_request_sender.py",
        "test_runner.py",
        "test_held_requests.py",
        "test_retention.py",
        "test_deliver.py",
    ],
    "runner.send_gate": ["test_deliver.py", "test_runner.py"],
    "runner.server_state": ["test_outages.py", "test_deliver.py", "test_runner.py"],
    "runner.service_manager": ["test_service_manager.py"],
    "runner.session": ["test_session.py", "test_runner.py", "test_reader_route.py"],
    "runner.settled_ledger": ["test_settled_ledger.py"],
    "runner.unanswered": ["test_deliver.py", "test_runner.py", "test_outages.py"],
    "runner.writer_run": [
        "test_runner.py",
        "test_outages.py",
        "test_held_requests.py",
        "test_session.py",
        "test_deliver.py",
        "test_failures.py",
    ],
    "transports.iggy.watch": ["transports/test_iggy_groups.py"],
}
"""The tests of each module, below `tests`: those that notice most first."""

WORLDS = 12
"""How many short worlds a mutant lives in that the tests of its module do not notice."""

HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Selection:
    """What runs of the tests of a module."""

    worlds: int = WORLDS
    seconds_of_one: float = 600.0
    """A test that takes longer without a mutant is left out if `is_partial`, or else ends the run."""
    seconds_of_all: float = 1e9
    """How long the tests of one mutant may take together."""
    examples: int = 10**9
    """The most examples of a test that draws them."""
    seconds_of_function: float = 1e9
    """How long the sets of parameters of one test function may take together."""

    @property
    def is_partial(self) -> bool:
        """Whether a test that takes long is left out."""
        return self.worlds < WORLDS


FULL, QUICK = Selection(), Selection(0, 4.0, 8.0, 40, 3.0)

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


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change of a module; the first five fields are its name, which does not change with the lines above it."""

    module: str
    function: str
    """The qualified name of the function or class; empty outside of them."""
    text: str
    """The text of the line."""
    change: str
    nth: int
    """Which of the mutants of that function with the same text and change, from 1."""
    line: int
    number: int

    @property
    def name(self) -> tuple[str, str, str, str, int]:
        """What an entry of the accepted list must say."""
        return self.module, self.function, self.text, self.change, self.nth


def mutants_of(module: str) -> list[Mutant]:
    """Return the mutants of a module, in the order of `changed`."""
    source = path_of(module).read_text("utf-8")
    lines = [each.strip() for each in source.splitlines()]
    seen: Counter[tuple[str, str, str]] = Counter()
    found = []
    for number, (line, function, change, _) in enumerate(_changes(ast.parse(source))):
        key = function, lines[line - 1], change
        seen[key] += 1
        found.append(Mutant(module, *key, seen[key], line, number))
    return found


def path_of(module: str) -> Path:
    """Return the file of a module below the package."""
    return HERE.parent / "iggyflux" / f"{module.replace('.', '/')}.py"


def changed(tree: ast.Module, number: int) -> ast.Module:
    """Return a copy of the tree with one change."""
    other = copy.deepcopy(tree)
    *_, change = next(islice(_changes(other), number, None))
    change()
    return ast.fix_missing_locations(other)


_Change: TypeAlias = tuple[int, str, str, Callable[[], Any]]
"""A change of a tree: its line, the name of the function, what it does, and the function that makes it."""


def _changes(tree: ast.Module) -> Iterator[_Change]:
    """Yield each change of the tree."""
    skipped = set(_words(tree))
    names = dict(_names(tree, ""))
    for node in ast.walk(tree):
        if node in skipped:
            continue
        line, name = getattr(node, "lineno", 0), names.get(node, "")
        yield from ((line, name, what, change) for what, change in _of_operators(node))
        yield from ((line, name, what, change) for what, change in _of_values(node))
        for block in ("body", "orelse", "finalbody"):
            found = _of_statements(getattr(node, block, None), skipped)
            yield from ((at, name, what, change) for at, what, change in found)


def _names(node: ast.AST, name: str) -> Iterator[tuple[ast.AST, str]]:
    """Yield each node below `node` with the qualified name of its function or class."""
    for child in ast.iter_child_nodes(node):
        is_named = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        own = f"{name}.{child.name}".lstrip(".") if is_named else name  # type: ignore[attr-defined]
        yield child, own
        yield from _names(child, own)


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


def _of_statements(statements: object, skipped: Collection[ast.AST]) -> Iterator[tuple[int, str, Callable[[], Any]]]:
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


# --- processes: each tells its parent what happens, and can be ended ---

Tell: TypeAlias = Callable[[str, Any], None]
"""`begins` with the name of a test or world, `failed` with it, `passed`, `error` with a traceback, and others."""

_MOST_BYTES = 8 * 2**30
"""The address space of a process: an endless list ends with a MemoryError."""
_MOST_CPU_SECONDS = 3600


def _messages(
    body: Callable[[Tell], None],
    limit: Callable[[str], float] | None = None,
    limit_of_cpu: Callable[[str], float] | None = None,
) -> Iterator[tuple[str, Any]]:
    """Run `body` in a process of its own; yield what it tells, and `late` with what takes longer than its limit.

    `spins` is what needs more CPU than `limit_of_cpu`.
    """
    reading, writing = os.pipe()
    ready = select.poll()
    ready.register(reading)
    child = os.fork()
    if child == 0:
        os.close(reading)  # so that this process ends when its parent has ended
        _be_child(body, writing, limit_of_cpu)
    with suppress(ProcessLookupError, PermissionError):
        os.setpgid(child, child)
    os.close(writing)
    buffer, under_way, end = b"", "the start", time.monotonic() + (600 if limit else 1e6)
    try:
        while True:
            if not ready.poll(max(end - time.monotonic(), 0.0) * 1000):
                yield "late", under_way
                return
            received = os.read(reading, 65536)
            if not received:
                yield "error", f"the process ended during {under_way}"
                return
            *told, buffer = (buffer + received).split(b"\n")
            for kind, what in map(json.loads, told):
                if kind == "begins" and limit:
                    under_way, end = what, time.monotonic() + limit(what)
                yield kind, what
    finally:
        os.close(reading)
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _be_child(body: Callable[[Tell], None], writing: int, limit_of_cpu: Callable[[str], float] | None) -> None:
    os.setpgid(0, 0)
    quiet = os.open(os.environ.get("MUTANTS_LOG", os.devnull), os.O_RDWR | os.O_CREAT | os.O_APPEND)
    for number in (0, 1, 2):
        os.dup2(quiet, number)
    resource.setrlimit(resource.RLIMIT_AS, (_MOST_BYTES, _MOST_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (_MOST_CPU_SECONDS, _MOST_CPU_SECONDS))

    under_way: Any = ""

    def tell(kind: str, what: Any) -> None:
        nonlocal under_way
        if kind == "begins" and limit_of_cpu:
            under_way = what
            signal.setitimer(signal.ITIMER_PROF, limit_of_cpu(what))
        os.write(writing, json.dumps([kind, what]).encode() + b"\n")

    def spins(*_: object) -> None:
        tell("spins", under_way)
        os._exit(0)

    signal.signal(signal.SIGPROF, spins)
    try:
        body(tell)
    except BaseException:
        tell("error", traceback.format_exc())
    finally:
        os._exit(0)


@dataclass(frozen=True, slots=True)
class Limit:
    """How long a test or a world may take with a mutant: some seconds, and so many times as long as without."""

    least_seconds: float
    times: float

    def of(self, usual_seconds: float) -> float:
        """Return the limit in seconds."""
        return self.least_seconds + self.times * usual_seconds


USUAL, ALONE = Limit(8, 10), Limit(20, 30)
OF_CPU = Limit(1.5, 15)


class BrokenRun(Exception):
    """The runner or the tests are at fault: the result of a mutant says nothing."""


def outcome(run: Callable[[Sequence[str], Tell], None], tests: Sequence[str], ranking: Ranking) -> Outcome:
    """Return what `tests` find out about a mutant, and rank them by it.  `run` runs them, in a process of its own.

    What is late runs again alone, with more time: only what is late again is timed out.
    """

    def ended(which: Sequence[str], limit: Limit) -> Outcome:
        def seconds(of: Limit, test: str) -> float:
            return of.of(ranking.seconds.get(test, 0.0))

        with closing(_messages(partial(run, which), partial(seconds, limit), partial(seconds, OF_CPU))) as messages:
            kind, what = next(each for each in messages if each[0] in ("failed", "passed", "late", "spins", "error"))
        if kind == "error":
            raise BrokenRun(what)
        return "timed out" if kind == "spins" else kind, what

    kind, what = ended(tests, USUAL)
    if kind == "late":
        ranking.late.add(what)
        kind, what = ended([what], ALONE)
        if kind == "late":
            return "timed out", what
        if kind == "passed":
            kind, what = ended(tests, ALONE)
            if kind == "late":
                raise BrokenRun(f"{what} takes long, but not always: is the machine busy?")
    return kind, what


Outcome: TypeAlias = tuple[str, str]
"""`failed`, `passed` or `timed out`, and the test or world."""


# --- tests and worlds ---


class _Teller:
    """A plugin of pytest that tells which test begins, and which fails."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self.has_failed = False

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._tell("begins", nodeid)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> None:
        """Tell a failure before pytest describes it: that takes longer than most tests, for words that are not used."""
        if call.excinfo and not call.excinfo.errisinstance(pytest.skip.Exception) and "MUTANTS_LOG" not in os.environ:
            self._tell("failed", item.nodeid)
            self.has_failed = True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._see(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._see(report)

    def _see(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if report.failed:
            self._tell("failed", report.nodeid)
            self.has_failed = True


class _Chosen:
    """A plugin of pytest that runs these tests, in this order, and does not shrink drawn examples."""

    def __init__(self, selection: Selection, tests: Sequence[str] | None = None) -> None:
        self._selection = selection
        self._tests = tests

    @pytest.hookimpl(trylast=True)
    def pytest_configure(self) -> None:
        settings.register_profile("mutants", settings.default, phases=[Phase.explicit, Phase.generate], database=None)
        settings.load_profile("mutants")

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        if self._tests is not None:
            order = {test: at for at, test in enumerate(self._tests)}
            items[:] = sorted((each for each in items if each.nodeid in order), key=lambda each: order[each.nodeid])
        for item in items:
            assert isinstance(item, pytest.Function)
            drawn = getattr(item.obj, "_hypothesis_internal_use_settings", None)
            if drawn is not None and drawn.max_examples > self._selection.examples:
                item.obj._hypothesis_internal_use_settings = settings(drawn, max_examples=self._selection.examples)


def _pytest(suites: Sequence[str], folder: str, *plugins: object) -> int:
    options = ["-x", "-q", "-p", "no:xdist", "-p", "no:cacheprovider", "-m", "not slow and not long", "--timeout", "0"]
    options += ["--capture", "sys", "--basetemp", f"{folder}/tests", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
    return pytest.main([*options, *(str(HERE / each) for each in suites)], plugins=list(plugins))


def _run_worlds(tests: Sequence[str], tell: Tell) -> bool:
    """Run those of `tests` that are worlds; return whether all of them are right."""
    from tests.simulation.scenario import SIZES
    from tests.simulation.worlds import run_seed

    for each in tests:
        if each in _WORLDS:
            tell("begins", each)
            if run_seed(_WORLDS.index(each), SIZES["short"]).wrong:
                tell("failed", each)
                return False
    return True


_WORLDS = [f"world {seed}" for seed in range(WORLDS)]


# --- mutants of functions, in copies of a process that has collected the tests ---


class _Collected:
    """A plugin of pytest that tries the mutants of a module in place of running the tests.

    It tells `usual` (the seconds and functions of each test), `result` (the number and the outcome of each mutant), and
    `new process` (the number of each mutant that needs one).
    """

    def __init__(self, todo: Sequence[Mutant], imported: Collection[str], selection: Selection, tell: Tell) -> None:
        """`imported` are the functions that run when the module is imported."""
        self._selection = selection
        self._todo = todo
        self._imported = set(imported)
        self._tell = tell
        self._path = path_of(todo[0].module)
        self._has_values: bool | None = None

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        self._items = {item.nodeid: item for item in session.items}
        self._config = session.config
        usual = self._usual()
        self._tell("usual", usual)
        ranking = Ranking(usual, self._selection.seconds_of_all)
        source = self._path.read_text("utf-8")
        tree = ast.parse(source)
        before = compile(tree, str(self._path), "exec")
        functions = _functions_of(self._path)
        for mutant in self._todo:
            code = compile(changed(tree, mutant.number), str(self._path), "exec")
            pairs = changed_functions(before, code)
            swaps = [(each, new) for old, new in pairs or [] for each in functions if each.__code__ == old]
            names = {old.co_qualname.partition(".<locals>")[0] for old, _ in pairs or []}
            can_swap = all(len(each.__code__.co_freevars) == len(new.co_freevars) for each, new in swaps)
            if pairs is None and not mutant.function and self._can_try_values(before, mutant.module, ranking):
                found = outcome(partial(self._try_values, mutant.module, code), ranking.tests(), ranking)
                ranking.count(mutant.function, *found)
                self._tell("result", [mutant.number, *found])
                continue
            if not swaps or not can_swap or names & self._imported:
                self._tell("new process", mutant.number)
                continue
            tests = ranking.tests(names)
            found = outcome(partial(self._try, swaps), tests, ranking) if tests else ("passed", "")
            ranking.count(mutant.function, *found)
            self._tell("result", [mutant.number, *found])
        self._tell("done", None)
        return True

    def _try(self, swaps: Sequence[tuple[FunctionType, CodeType]], tests: Sequence[str], tell: Tell) -> None:
        for function, code in swaps:
            function.__code__ = code
        if self._run(tests, tell) and _run_worlds(tests, tell):
            tell("passed", "")

    def _can_try_values(self, before: CodeType, module: str, ranking: Ranking) -> bool:
        """Whether `_try_values` finds nothing wrong with the values that the module has."""
        if not self._selection.is_partial:
            return False
        if self._has_values is None:
            kind, _ = outcome(partial(self._try_values, module, before), ranking.tests(), ranking)
            self._has_values = kind == "passed"
        return self._has_values

    def _try_values(self, module: str, code: CodeType, tests: Sequence[str], tell: Tell) -> None:
        """Try other values of what a module defines outside of functions and classes.

        A class or a default that holds such a value keeps it: so what survives needs a new process to be sure.
        """
        live = sys.modules[f"iggyflux.{module}"]
        other = ModuleType(live.__name__)
        other.__dict__.update({name: value for name, value in vars(live).items() if name.startswith("__")})
        try:
            exec(code, other.__dict__)
        except Exception:
            tell("failed", "import")
            return
        for name, value in vars(other).items():
            is_own = isinstance(value, type | FunctionType) and value.__module__ == live.__name__
            if name.startswith("__") or is_own or name not in vars(live):
                continue
            before = vars(live)[name]
            for each in list(sys.modules.values()):
                if getattr(each, "__dict__", {}).get(name, self) is before:
                    setattr(each, name, value)
        if self._run(tests, tell) and _run_worlds(tests, tell):
            tell("passed", "")

    def _run(self, tests: Sequence[str], tell: Tell) -> bool:
        """Run those of `tests` that are of pytest; return whether all of them pass."""
        teller = _Teller(tell)
        self._config.pluginmanager.register(teller)
        items = [self._items[each] for each in tests if each in self._items]
        for item, following in zip_longest(items, items[1:]):
            self._config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if teller.has_failed:
                return False
        return True

    def _usual(self) -> dict[str, tuple[float, list[str]]]:
        """Run all tests and worlds without a mutant; return their seconds, and the functions of the module that ran."""

        left = [*self._items, *_WORLDS[: self._selection.worlds]]

        source = ast.parse(self._path.read_text("utf-8"))
        names: set[str] = set()

        def body(tell: Tell) -> None:
            _record_calls(self._path, source, names)
            spent: dict[str, float] = {}
            for each in left:
                if spent.get(_function_of(each), 0.0) > self._selection.seconds_of_function:
                    continue
                began = time.monotonic()
                names.clear()
                is_right = self._run([each], tell) if each in self._items else _run_worlds([each], tell)
                assert is_right, f"{each} fails without a mutant"
                seconds = time.monotonic() - began
                spent[_function_of(each)] = spent.get(_function_of(each), 0.0) + seconds
                tell("usual", [each, seconds, sorted(names)])
            tell("passed", "")

        usual = {}
        while left:
            for kind, what in _messages(body, lambda _: self._selection.seconds_of_one):
                match kind, what:
                    case "usual", (test, seconds, functions):
                        usual[test] = (seconds, functions)
                    case "late", test if self._selection.is_partial and test in left:
                        left = left[left.index(test) + 1 :]
                        break
                    case "late" | "error", _:
                        raise BrokenRun(what)
                    case "passed", _:
                        return usual
        return usual


def _functions_of(path: Path) -> list[FunctionType]:
    """Return the functions of a file that are in use."""
    found = [each for each in gc.get_objects() if isinstance(each, FunctionType)]
    return [each for each in found if each.__code__.co_filename == str(path)]


def _record_calls(path: Path, tree: ast.Module, names: set[str]) -> None:
    """Let each function of a file add its qualified name, or that of the function around it, to `names` when it runs.

    The code of the functions is replaced: a trace would slow down everything else.
    """
    builtins.__called__ = names.add  # type: ignore[attr-defined]
    tree = copy.deepcopy(tree)
    _insert_calls(tree, "", None)
    codes: dict[str, list[CodeType]] = {}
    left = [compile(ast.fix_missing_locations(tree), str(path), "exec")]
    while left:
        inner = _inner(left.pop())
        left += inner
        for code in inner:
            codes.setdefault(code.co_qualname, []).append(code)
    for function in _functions_of(path):
        found = codes.get(function.__code__.co_qualname, [])
        same = [each for each in found if each.co_firstlineno == function.__code__.co_firstlineno]
        if len(same) == 1 and same[0].co_freevars == function.__code__.co_freevars:
            function.__code__ = same[0]


def _insert_calls(node: ast.AST, name: str, outer: str | None) -> None:
    """Insert the calls below `node`, whose qualified name begins with `name`."""
    for child in ast.iter_child_nodes(node):
        own = f"{name}{getattr(child, 'name', '<lambda>')}"
        call = ast.Call(ast.Name("__called__", ast.Load()), [ast.Constant(outer or own)], [])
        match child:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                _insert_calls(child, f"{own}.<locals>.", outer or own)
                child.body.insert(0, ast.Expr(call))
            case ast.Lambda():
                _insert_calls(child, f"{own}.<locals>.", outer or own)
                child.body = ast.Subscript(ast.Tuple([call, child.body], ast.Load()), ast.Constant(1), ast.Load())
            case ast.ClassDef():
                _insert_calls(child, f"{own}.", outer)
            case _:
                _insert_calls(child, name, outer)


def _function_of(test: str) -> str:
    """Return the name of a test without its parameters."""
    return test.partition("[")[0]


class Ranking:
    """The tests of a module in the order in which they should be tried for a mutant."""

    def __init__(self, usual: Mapping[str, tuple[float, Sequence[str]]], most_seconds: float = 1e9) -> None:
        self._most_seconds = most_seconds
        self.seconds = {test: seconds for test, (seconds, _) in usual.items()}
        self._functions = {test: set(functions) for test, (_, functions) in usual.items()}
        self._noticed: Counter[tuple[str, str]] = Counter()
        self.late: set[str] = set()
        """Those that were late: they hang for other mutants, too."""

    def tests(self, functions: Collection[str] = ()) -> list[str]:
        """Return the tests that run one of `functions`, or all: those first that noticed others and are fast."""
        found = [test for test, ran in self._functions.items() if not functions or ran & set(functions)]
        noticed: Counter[str] = Counter()
        for (function, test), count in self._noticed.items():
            noticed[test] += count * (not functions or function in functions)
        found.sort(key=lambda test: (test in self.late, -noticed[test], test in _WORLDS, self.seconds[test]))
        ends = accumulate(self.seconds[test] for test in found)
        return [test for test, end in zip(found, ends, strict=True) if end <= self._most_seconds]

    def count(self, function: str, kind: str, test: str) -> None:
        """Count that `test` noticed a mutant of `function`."""
        if kind == "failed":
            self._noticed[function, test] += 1


@contextmanager
def called(path: Path) -> Iterator[set[str]]:
    """Collect the qualified names of the functions of a file that run in the block, without those inside of others."""
    names: set[str] = set()

    file = str(path)

    def trace(frame: FrameType, _event: str, _arg: object) -> None:
        if frame.f_code.co_filename == file:
            names.add(frame.f_code.co_qualname.partition(".<locals>")[0])

    threading.settrace(trace)
    sys.settrace(trace)
    try:
        yield names
    finally:
        sys.settrace(None)
        threading.settrace(None)  # type: ignore[arg-type]


def changed_functions(before: CodeType, after: CodeType) -> list[tuple[CodeType, CodeType]] | None:
    """Return the functions that differ, without those inside of others; None if what runs on import differs."""
    if _without_inner(before) != _without_inner(after):
        return None
    pairs: list[tuple[CodeType, CodeType]] = []
    for old, new in zip(_inner(before), _inner(after), strict=True):
        if old == new:
            continue
        if old.co_flags & inspect.CO_OPTIMIZED:
            pairs.append((old, new))
            continue
        inner = changed_functions(old, new)  # the body of a class
        if inner is None:
            return None
        pairs += inner
    return pairs


def _inner(code: CodeType) -> list[CodeType]:
    return [each for each in code.co_consts if isinstance(each, CodeType)]


def _without_inner(code: CodeType) -> CodeType:
    return code.replace(co_consts=tuple(None if isinstance(each, CodeType) else each for each in code.co_consts))


# --- mutants of what runs on import, each in a new process ---


def _try_new(mutant: Mutant, folder: str, selection: Selection, tests: Sequence[str], tell: Tell) -> None:
    name, path = f"iggyflux.{mutant.module}", path_of(mutant.module)
    code = compile(changed(ast.parse(path.read_text("utf-8")), mutant.number), str(path), "exec")
    sys.meta_path.insert(0, _Finder(name, code))
    try:
        importlib.import_module(name)
    except Exception:
        tell("failed", "import")
        return
    teller = _Teller(tell)
    if any(each not in _WORLDS for each in tests):
        status = _pytest(SUITES[mutant.module], folder, teller, _Chosen(selection, tests))
        if teller.has_failed:
            return
        if status != 0:
            raise BrokenRun(f"pytest ends with {status}")
    if _run_worlds(tests, tell):
        tell("passed", "")


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


# --- modules ---


def entries() -> list[dict[str, Any]]:
    """Return the mutants that may survive."""
    found: list[dict[str, Any]] = tomllib.loads((HERE / "mutants_accepted.toml").read_text("utf-8"))["mutant"]
    return found


def name_of(entry: Mapping[str, Any]) -> tuple[str, str, str, str, int]:
    """Return the name of the mutant that an entry is about."""
    return entry["module"], entry["function"], entry["line"], entry["change"], entry.get("nth", 1)


def faults_of_accepted() -> list[str]:
    """Return what is wrong with the list of accepted mutants: each entry must be the name of one mutant."""
    names = {each.name for module in SUITES for each in mutants_of(module)}
    several = {name[:4] for name in names if name[4] > 1}
    faults = []
    for name, count in Counter(map(name_of, entries())).items():
        if name not in names:
            faults.append(f"{name}: no such mutant")
        elif count > 1:
            faults.append(f"{name}: listed {count} times")
    faults += [
        f"{name_of(each)}: say with `nth` which one: several mutants"
        for each in entries()
        if "nth" not in each and name_of(each)[:4] in several
    ]
    return faults


def results(
    module: str, todo: Sequence[Mutant], folder: str, selection: Selection = FULL
) -> Iterator[tuple[Mutant, Outcome]]:
    """Try mutants of a module; yield the outcome of each."""
    by_number = {each.number: each for each in todo}

    def collected(tell: Tell) -> None:
        with called(path_of(module)) as imported:
            importlib.import_module(f"iggyflux.{module}")
        status = _pytest(SUITES[module], folder, _Collected(todo, imported, selection, tell), _Chosen(selection))
        raise BrokenRun(f"pytest ends with {status}")

    ranking, new = Ranking({}), []
    for kind, what in _messages(collected):
        match kind, what:
            case "usual", usual:
                ranking = Ranking(usual, selection.seconds_of_all)
            case "result", (number, *found):
                ranking.count(by_number[number].function, *found)
                yield by_number[number], tuple(found)
            case "new process", number:
                new.append(by_number[number])
            case "error", _:
                raise BrokenRun(what)
            case "done", _:
                break
    for mutant in new:
        found = outcome(partial(_try_new, mutant, folder, selection), ranking.tests(), ranking)
        ranking.count("", *found)
        yield mutant, found


def main() -> int:
    """Try the mutants that the command line asks for; return 1 if one survives without a reason."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("modules", nargs="*", help=f"some of: {', '.join(SUITES)}")
    parser.add_argument("--every", type=int, default=1, help="try one of so many mutants")
    parser.add_argument("--line", type=int, nargs="+", help="try those of these lines, the accepted ones too")
    parser.add_argument("--quick", action="store_true", help="try only what is fast")
    parser.add_argument("--verbose", action="store_true", help="say of each mutant what notices it")
    given = parser.parse_args()
    if faults := faults_of_accepted():
        print("tests/mutants_accepted.toml:", *faults, sep="\n  ")
        return 1
    for name in ("jmespath", "jsonschema", "msgspec", "ruamel.yaml", "urllib3"):
        importlib.import_module(name)  # once, and not in each process
    may_survive = () if given.line else {name_of(each) for each in entries()}
    survived = 0
    for module in given.modules or SUITES:
        began, cpu_began = time.monotonic(), _cpu_seconds()
        some = [each for each in mutants_of(module)[:: given.every] if not given.line or each.line in given.line]
        todo = [each for each in some if each.name not in may_survive]
        counts = Counter({"accepted": len(some) - len(todo)})
        with tempfile.TemporaryDirectory() as folder:
            for mutant, (kind, what) in results(module, todo, folder, QUICK if given.quick else FULL):
                counts[_COUNTED.get(what.partition(" ")[0], "tests") if kind == "failed" else kind] += 1
                if given.verbose:
                    seconds = time.monotonic() - began
                    print(f"{seconds:5.0f} s: {module}:{mutant.line}: {mutant.change}: {kind} {what}", flush=True)
                if kind == "passed":
                    survived += 1
                    print(_entry(mutant), flush=True)
        seconds, cpu = time.monotonic() - began, _cpu_seconds() - cpu_began
        print(f"{module}: {dict(counts)}, {seconds:.0f} s, {cpu:.0f} s of CPU", flush=True)
    return 1 if survived else 0


_COUNTED = {"world": "worlds", "import": "import"}


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _entry(mutant: Mutant) -> str:
    """Return the entry of the list of accepted mutants for a survivor, without its reason."""
    fields = {"module": mutant.module, "function": mutant.function, "line": mutant.text, "change": mutant.change}
    lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in fields.items()]
    nth = [f"nth = {mutant.nth}"] if mutant.nth > 1 else []
    return "\n".join([f"# {mutant.module}:{mutant.line}", "[[mutant]]", *lines, *nth, 'reason = ""', ""])


if __name__ == "__main__":
    sys.exit(main())
