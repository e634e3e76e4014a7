"""Changes of one thing in an alarm, one at a time, and which of them no unit test of the alarms notices.

`python -m tests.alarm_mutants [ALARM …]` prints them; it needs `promtool`.  A threshold, a comparison, a duration, an
operator, a selector, a function, a part of the expression, `for`, the severity and each label in a text are changed.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

RULES = Path(__file__).parents[1] / "deploy" / "prometheus"
_ALARM = re.compile(r"      - alert: (\w+)\n(.*?)(?=\n      #|\n      - alert|\n  - name|\Z)", re.DOTALL)
_EXPRESSION = re.compile(r"expr: \|-\n(.*?)(?=\n        (?:for|labels):)", re.DOTALL)


def _numbers(found: re.Match[str]) -> list[str]:
    value = float(found[0])
    if 0 < value < 10 and value.is_integer():
        return [f"{value - 1:g}", f"{value + 1:g}"]
    return [f"{each:g}" for each in ((value * 0.9, value * 1.1) if value else (1.0,))]


def _durations(found: re.Match[str]) -> list[str]:
    minutes = int(found[1]) * {"m": 1, "h": 60}[found[2]]
    return [f"{minutes * 2}m", f"{max(minutes // 2, 1)}m"]


def _without_one(found: re.Match[str]) -> list[str]:
    names = found[0].split(", ")
    return [", ".join(name for name in names if name != left_out) for left_out in names]


_OTHERS = {
    "==": ["!="],
    ">=": [">", "<"],
    ">": [">=", "<"],
    "and": ["or", "unless"],
    "or": ["and", "unless"],
    "unless": ["and", "or"],
    "min_over_time": ["max_over_time"],
    "max_over_time": ["min_over_time"],
    "avg_over_time": ["max_over_time", "min_over_time"],
    "increase": ["delta"],
    "changes": ["resets"],
}
_IN_EXPRESSION: tuple[tuple[str, Callable[[re.Match[str]], list[str]]], ...] = (
    (r"(?<![\w.\[])(?:\d+\.)?\d+(?![\w.\]])", _numbers),
    (r"(?<=\[)(\d+)([mh])(?=\])|(?<=offset )(\d+)([mh])", lambda found: _durations(re.match(r"(\d+)(.)", found[0]))),  # type: ignore[arg-type]
    (r"==|>=|>|\b(?:and|or|unless)\b|\b(?:\w+_over_time|increase|changes)\b", lambda found: _OTHERS[found[0]]),
    (r"\{[^}]*\}| offset \d+[mh]| on \([^)]*\)|\n[^\n]*", lambda _found: [""]),
    (r"(?<=\()(?:\w+, )+\w+(?=\))", _without_one),
)  # fmt: skip


def mutants(text: str) -> Iterator[tuple[str, str, str]]:
    """Yield the alarm, what is changed of it, and the text of all rules with that change."""
    for alarm in _ALARM.finditer(text):
        expression = _EXPRESSION.search(alarm[2])
        assert expression is not None
        places: list[tuple[int, re.Match[str], list[str]]] = []
        for pattern, others in _IN_EXPRESSION:
            places += [(expression.start(1), found, others(found)) for found in re.finditer(pattern, expression[1])]
        for found in re.finditer(r"\n        for: \d+m", alarm[2]):
            places.append((0, found, [""]))
        for found in re.finditer(r"(?<=\n        for: )(\d+)m", alarm[2]):
            places.append((0, found, [f"{int(found[1]) - 1}m", f"{int(found[1]) + 1}m"]))
        for found in re.finditer(r"(?<=severity: )\w+", alarm[2]):
            places.append((0, found, ["warning" if found[0] == "critical" else "critical"]))
        for found in re.finditer(r"\$labels\.\w+|\$value", alarm[2]):
            places.append((0, found, ["$labels.none"]))
        for offset, found, news in places:
            start, stop = (alarm.start(2) + offset + each for each in found.span())
            for new in news:
                yield alarm[1], f"{found[0].strip()} → {new}", text[:start] + new + text[stop:]


def survives(alarm: str, rules: str, tests: str) -> bool:
    """Return whether the unit tests of an alarm pass."""
    head, *blocks = re.split(r"(?m)^(?=  - name: )", tests)  # as text: `0x20` is a number in YAML 1.2
    of_alarm = [each for each in blocks if re.match(rf"  - name: '?{alarm}\b", each)]
    assert of_alarm, alarm
    with TemporaryDirectory() as folder:
        (Path(folder) / "rules.yaml").write_text(rules, "utf-8")
        (Path(folder) / "test.yaml").write_text(head + "".join(of_alarm), "utf-8")
        done = subprocess.run(["promtool", "test", "rules", "test.yaml"], cwd=folder, capture_output=True, check=False)
    return done.returncode == 0


def survivors(only: list[str]) -> list[str]:
    """Return the changes, of all alarms or of some, that the unit tests do not notice."""
    text, tests = ((RULES / name).read_text("utf-8") for name in ("rules.yaml", "rules_test.yaml"))
    chosen = [each for each in mutants(text) if each[2] != text and (not only or each[0] in only)]
    with ThreadPoolExecutor(2) as pool:
        alive = pool.map(lambda each: survives(each[0], each[2], tests), chosen)
        return [f"{alarm}: {change}" for (alarm, change, _), lives in zip(chosen, alive, strict=True) if lives]


if __name__ == "__main__":
    for line in survivors(sys.argv[1:]):
        print(line)
