"""The runner of mutants: what it changes, how it names a change, and when a change counts as noticed."""

from __future__ import annotations

import ast
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import mutants
import pytest

SOURCE = """
LIMIT = 3

class Lager:
    def holt(self, größe, most=LIMIT):
        if größe > 1:
            return False
        return False

def while_(x):
    return [each for each in x if each is not None]
"""


def test_each_mutant_has_another_name() -> None:
    """Several functions may have a line of the same text, and one function may have it twice."""
    names = [each.name for module in mutants.SUITES for each in mutants.mutants_of(module)]

    assert len(names) == len(set(names))


def test_each_accepted_mutant_is_one_mutant() -> None:
    assert mutants.faults_of_accepted() == []


def test_an_accepted_mutant_must_be_there_once_and_say_which_one(monkeypatch: pytest.MonkeyPatch) -> None:
    everywhere = mutants.mutants_of("delivery.machine")
    first = next(each for each in everywhere if each.nth == 2)
    entry = {"module": first.module, "function": first.function, "line": first.text, "change": first.change}
    monkeypatch.setattr(mutants, "entries", lambda: [entry])
    several = mutants.faults_of_accepted()
    monkeypatch.setattr(mutants, "entries", lambda: [{**entry, "nth": 2}, {**entry, "nth": 2}, {**entry, "nth": 99}])
    others = mutants.faults_of_accepted()

    assert [each.rpartition(": ")[2] for each in several] == ["several mutants"]
    assert sorted(each.rpartition(": ")[2] for each in others) == ["listed 2 times", "no such mutant"]


def test_changes_are_those_of_code_and_not_of_words() -> None:
    found = [(name, what) for _, name, what, _ in mutants._changes(ast.parse(SOURCE))]

    assert ("", "3 → 4") in found
    assert ("Lager.holt", "Gt → GtE") in found
    assert found.count(("Lager.holt", "False → True")) == 2
    assert ("while_", "IsNot → Is") in found


def test_what_runs_on_import_is_told_from_what_runs_in_functions() -> None:
    before = compile(ast.parse(SOURCE), "x", "exec")
    seen = {}
    for number, (_, _, what, _) in enumerate(mutants._changes(ast.parse(SOURCE))):
        after = compile(mutants.changed(ast.parse(SOURCE), number), "x", "exec")
        pairs = mutants.changed_functions(before, after)
        seen[what] = None if pairs is None else [old.co_qualname for old, _ in pairs]

    assert seen["3 → 4"] is None
    assert seen["Gt → GtE"] == ["Lager.holt"]
    assert seen["IsNot → Is"] == ["while_"]


def passing(tests: Sequence[str], tell: mutants.Tell) -> None:
    tell("passed", "")


def failing(tests: Sequence[str], tell: mutants.Tell) -> None:
    tell("begins", "a")
    tell("failed", "a")


def hanging(tests: Sequence[str], tell: mutants.Tell) -> None:
    tell("begins", tests[-1])
    time.sleep(1e6)


def late_once(tests: Sequence[str], tell: mutants.Tell) -> None:
    """Fail, but only alone."""
    (hanging if len(tests) > 1 else failing)(tests, tell)


def ending(tests: Sequence[str], tell: mutants.Tell) -> None:
    raise SystemExit(5)


def vanishing(tests: Sequence[str], tell: mutants.Tell) -> None:
    mutants.os._exit(1)


@pytest.mark.parametrize(
    ("run", "usual", "alone", "expected"),
    [
        (passing, 600.0, 600.0, ("passed", "")),
        (failing, 600.0, 600.0, ("failed", "a")),
        (hanging, 0.1, 0.1, ("timed out", "b")),
        (late_once, 0.1, 600.0, ("failed", "a")),
    ],
)
def test_only_what_fails_or_is_late_alone_too_is_noticed(
    run: Callable[[Sequence[str], mutants.Tell], None],
    usual: float,
    alone: float,
    expected: mutants.Outcome,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mutants, "USUAL", mutants.Limit(usual, 1))
    monkeypatch.setattr(mutants, "ALONE", mutants.Limit(alone, 1))

    assert mutants.outcome(run, ["a", "b"], mutants.Ranking({})) == expected


@pytest.mark.parametrize("run", [ending, vanishing])
def test_a_process_that_ends_in_another_way_ends_the_run(run: Callable[[Sequence[str], mutants.Tell], None]) -> None:
    with pytest.raises(mutants.BrokenRun):
        mutants.outcome(run, ["a"], mutants.Ranking({}))


def test_a_process_without_a_limit_is_waited_for() -> None:
    with closing(mutants._messages(lambda tell: tell("passed", ""))) as messages:
        assert next(messages) == ("passed", "")


def test_the_functions_that_a_test_runs_are_recorded(tmp_path: Path) -> None:
    path, names = tmp_path / "lager.py", set[str]()
    path.write_text(SOURCE + "\nclass Regal:\n    make = staticmethod(lambda x: [x])\n", "utf-8")
    found: dict[str, Any] = {}
    exec(compile(path.read_text("utf-8"), str(path), "exec"), found)

    mutants._record_calls(path, ast.parse(path.read_text("utf-8")), names)

    assert found["while_"]([1, None]) == [1]
    assert names == {"while_"}
    assert found["Lager"]().holt(3) is False
    assert found["Regal"].make(1) == [1]
    assert names == {"while_", "Lager.holt", "Regal.<lambda>"}


def spinning(tests: Sequence[str], tell: mutants.Tell) -> None:
    tell("begins", tests[-1])
    while True:
        pass


def test_what_needs_too_much_cpu_is_noticed_however_busy_the_machine_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mutants, "OF_CPU", mutants.Limit(0.05, 1))
    monkeypatch.setattr(mutants, "USUAL", mutants.Limit(600, 1))

    assert mutants.outcome(spinning, ["a", "b"], mutants.Ranking({})) == ("timed out", "b")


def test_tests_that_noticed_a_mutant_of_the_function_go_first_and_what_is_long_is_left_out() -> None:
    usual = {"slow": (9.0, ["f"]), "fast": (0.1, ["f"]), "other": (0.01, ["g"]), "good": (1.0, ["f", "g"])}
    ranking, quick = mutants.Ranking(usual), mutants.Ranking(usual, 5.0)
    for each in (ranking, quick):
        each.count("f", "failed", "good")

    assert ranking.tests(["f"]) == ["good", "fast", "slow"]
    assert quick.tests(["f"]) == ["good", "fast"]
    assert ranking.tests(["g"]) == ["other", "good"]
    assert ranking.tests() == ["good", "other", "fast", "slow"]
