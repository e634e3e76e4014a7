"""Problems as machines read them: JSON, GitHub's annotations, SARIF 2.1.0; and the text form for people.

Each form of machines is a function from checked files and their problems to text, listed in `FORMS`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from iggyflux import __version__
from iggyflux.cli.output import json_text, problem_lines, result_line
from iggyflux.codes import CODES
from iggyflux.editor.checking import CheckedFile
from iggyflux.errors import Problem
from iggyflux.escapes import escaped_lines
from iggyflux.records import JSON


def sorted_problems(files: Sequence[CheckedFile]) -> list[Problem]:
    """Return the distinct problems, sorted by file, line, column and code."""
    seen = dict.fromkeys(problem for file in files for problem in file.problems)
    return sorted(seen, key=_order)


def _order(problem: Problem) -> tuple[str, int, int, str, str]:
    place = problem.location
    return place.file or "", place.line, place.column, problem.code, problem.message


def print_text(files: Sequence[CheckedFile]) -> None:
    """Print the problems with their source lines, separated by blank lines."""
    for number, problem in enumerate(sorted_problems(files)):
        if number:
            result_line()
        for line in problem_lines(problem):
            result_line(*line)


def as_json(files: Sequence[CheckedFile]) -> str:
    """Return one JSON object with the files and all problems."""
    problems = sorted_problems(files)
    content = {
        "files": [_file_as_json(file) for file in files],
        "problems": [problem.as_dict() for problem in problems],
        "errors": len(_errors(problems)),
        "warnings": len(problems) - len(_errors(problems)),
    }
    return json_text(content, indent=True) + "\n"


def _file_as_json(file: CheckedFile) -> dict[str, JSON]:
    """Return the entry of a file; the plan of a mapping is that of dialect v2 and nanoseconds, as in `explain`."""
    plan: dict[str, JSON] = {} if file.mapping is None else {"plan": file.mapping.identity()}
    return {"file": file.path, "kind": file.kind or None, "ok": not _errors(file.problems), **plan}


def _errors(problems: Sequence[Problem]) -> list[Problem]:
    return [problem for problem in problems if problem.severity == "error"]


def as_github(files: Sequence[CheckedFile]) -> str:
    """Return workflow commands of GitHub, which annotate the line of each problem."""
    return "".join(_annotation(problem) + "\n" for problem in sorted_problems(files))


def _annotation(problem: Problem) -> str:
    place = problem.location
    properties = {"file": place.file or ""}
    if place.line:
        properties["line"] = str(place.line)
        properties["col"] = str(place.column)
        properties["endColumn"] = str(place.column + problem.length)
    properties["title"] = problem.code
    text = ",".join(f"{key}={_escape(value, ',:')}" for key, value in properties.items())
    return f"::{problem.severity} {text}::{_escape(full_message(problem))}"


def _escape(text: str, also: str = "") -> str:
    """Escape percent signs and line ends, in properties also commas and colons, as command.ts of actions/toolkit.

    Other unsafe characters are escaped as in text.
    """
    text = escaped_lines(text)
    for character in "%\n" + also:
        text = text.replace(character, f"%{ord(character):02X}")
    return text


def full_message(problem: Problem) -> str:
    """Return the message with the expectation, the finding and the hint, one per line."""
    parts = (("expected", problem.expected), ("found", problem.found), ("hint", problem.hint))
    return "\n".join([problem.message, *(f"{label}: {text}" for label, text in parts if text)])


SARIF_SCHEMA: Final = "https://json.schemastore.org/sarif-2.1.0.json"


def as_sarif(files: Sequence[CheckedFile]) -> str:
    """Return a SARIF 2.1.0 log with one run, whose rules are the codes of the problems."""
    problems = sorted_problems(files)
    codes = sorted({problem.code for problem in problems})
    rules: list[dict[str, Any]] = []
    for code in codes:
        entry = CODES.get(code)
        rule: dict[str, Any] = {"id": code}
        if entry is not None:
            rule["shortDescription"] = {"text": entry.title}
            rule["fullDescription"] = {"text": entry.meaning}
            rule["help"] = {"text": entry.fix}
        rules.append(rule)
    run = {
        "tool": {"driver": {"name": "iggyflux", "semanticVersion": __version__, "rules": rules}},
        "columnKind": "unicodeCodePoints",
        "artifacts": [{"location": {"uri": _uri(file.path)}} for file in files],
        "results": [_sarif_result(problem, codes.index(problem.code)) for problem in problems],
    }
    return json_text({"$schema": SARIF_SCHEMA, "version": "2.1.0", "runs": [run]}, indent=True) + "\n"


def _sarif_result(problem: Problem, rule: int) -> dict[str, Any]:
    place = problem.location
    physical: dict[str, Any] = {"artifactLocation": {"uri": _uri(place.file or "")}}
    if place.line:
        region: dict[str, Any] = {
            "startLine": place.line,
            "startColumn": place.column,
            "endColumn": place.column + problem.length,
        }
        if problem.source is not None:
            region["snippet"] = {"text": problem.source}
        physical["region"] = region
    location: dict[str, Any] = {"physicalLocation": physical}
    if place.pointer:
        location["logicalLocations"] = [{"fullyQualifiedName": place.pointer}]
    return {
        "ruleId": problem.code,
        "ruleIndex": rule,
        "level": problem.severity,
        "message": {"text": full_message(problem)},
        "locations": [location],
    }


def _uri(path: str) -> str:
    """Return a relative path as a relative reference, an absolute one as a file URI, byte for byte."""
    posix = quote(os.fsencode(Path(path).as_posix()))
    return f"file://{posix}" if posix.startswith("/") else posix


FORMS: Final[dict[str, Callable[[Sequence[CheckedFile]], str]]] = {
    "json": as_json,
    "github": as_github,
    "sarif": as_sarif,
}
