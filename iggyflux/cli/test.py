"""`iggyflux test`: runs the examples of documents and prints the differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from unicodedata import combining, east_asian_width
from xml.etree.ElementTree import Element, SubElement, indent, tostring

import click

from iggyflux.authoring.examples import DIFFERENT, Difference, ExampleResult, render_examples, run_examples
from iggyflux.authoring.mutations import mutate as try_mutations
from iggyflux.authoring.series import SeriesCount, beyond_limit, count_series, series_lines
from iggyflux.authoring.updating import update_examples
from iggyflux.cli.documents import DOCUMENTS, find_documents, skip_others, unreadable
from iggyflux.cli.envelopes import Envelope, SamplesCommand, envelope_option
from iggyflux.cli.output import (
    ExitCode,
    Line,
    Styled,
    json_text,
    note,
    plural,
    problem_lines,
    result,
    result_line,
    talk,
    unstyled,
)
from iggyflux.delivery.lines import point_key
from iggyflux.disk import replace_file
from iggyflux.documents import EditableText, format_of, kind_of, read_document, read_source
from iggyflux.editor.coverage import UNTESTED, Coverage, cover
from iggyflux.errors import DocumentError, Problem
from iggyflux.escapes import escaped
from iggyflux.mapping import WriterMapping, compile_document


@dataclass(frozen=True, slots=True)
class TestedFile:
    """The result of one document: its problems if it does not compile, else the results of its examples."""

    __test__ = False  # not a test class, whatever its name says

    path: str
    results: tuple[ExampleResult, ...] = ()
    problems: tuple[Problem, ...] = ()
    untested: bool = False
    coverage: Coverage | None = None
    series: SeriesCount | None = None
    """Those of a writer's examples."""

    @property
    def failures(self) -> int:
        """Return the number of failed examples; a document that does not compile counts as one."""
        return sum(not each.passed for each in self.results) + bool(self.errors)

    @property
    def errors(self) -> tuple[Problem, ...]:
        """Return the problems without the warnings."""
        return tuple(problem for problem in self.problems if problem.severity == "error")


@click.command(name="test", cls=SamplesCommand)
@click.argument("paths", nargs=-1, required=True, type=DOCUMENTS)
@click.option("--format", "form", type=click.Choice(["text", "json", "junit"]), default="text", show_default=True)
@click.option("-k", "words", metavar="TEXT", help="Only examples with TEXT in their name or in their file's name.")
@click.option("--plan", type=click.Choice(["compiled", "reference"]), default="compiled", show_default=True)
@click.option(
    "--round-trip",
    "is_round_trip",
    is_flag=True,
    help="PATHS are WRITER READER [SAMPLES]: list the values that are lost between them.",
)
@click.option("--coverage", is_flag=True, help="List the parts of the documents that no example exercises.")
@click.option("--fail-under", type=click.FloatRange(0, 100), metavar="N", help="With --coverage: fail under N percent.")
@click.option(
    "--mutate", is_flag=True, help="Change the documents, one thing at a time, and list what no example notices."
)
@click.option("--strict", is_flag=True, help="Fail if a document has no examples, or with --mutate for what is listed.")
@skip_others
@click.option("--update", is_flag=True, help="Write what comes of each example into the file as its expected result.")
@envelope_option("With --round-trip: SAMPLES are messages with coordinates and headers.")
def command(
    paths: tuple[Path, ...],
    form: str,
    words: str | None,
    plan: str,
    is_round_trip: bool,
    coverage: bool,
    fail_under: float | None,
    mutate: bool,
    strict: bool,
    skip_others: bool,
    update: bool,
    envelope: Envelope,
) -> int:
    """Run the examples in mapping files.

    PATHS are files or directories. An example lists everything that its message renders: all lines, byte for byte
    and in order, or the codes of its failures, or that it is skipped. Documents without examples are listed.
    With --update, an example without a result gets one, and a result that differs is replaced; all other text
    stays as it is. Look at the changes before you keep them.

    With --round-trip, messages go through a writer, a simulated InfluxDB and the query of a reader, and are compared
    with the result: SAMPLES, one payload per line, or the messages of the writer's examples. The exit code is 1
    if a value is lost. Renamed and added values are reported, but are not losses.

    \b
    Example:
      iggyflux test mappings/
      iggyflux test mapping.yaml -k "without a state"
      iggyflux test mapping.yaml --update
      iggyflux test mappings/ --coverage --fail-under 90
      iggyflux test mapping.yaml --mutate
      iggyflux test --round-trip writer.yaml reader.yaml samples.ndjson
    """
    if is_round_trip:
        from iggyflux.cli.round_trip import run_round_trip  # 350 ms, only with --round-trip

        if form == "junit" or words is not None or update:
            raise click.UsageError("--round-trip does not support -k and --update, and prints text or json")
        return run_round_trip(paths, form=form, envelope=envelope)
    if envelope:
        raise click.UsageError("--envelope needs --round-trip")
    if fail_under is not None and not coverage:
        raise click.UsageError("--fail-under needs --coverage")
    files, _ = find_documents(paths, named_too=skip_others)
    if update:
        if words is not None:
            raise click.UsageError("--update and -k are mutually exclusive: use one of them")
        for file in files:
            _update(file)
    tested = [each for each in (_test(file, plan, words, strict) for file in files) if each is not None]
    _FORMS[form](tested)
    failures = sum(each.failures for each in tested)
    if coverage:
        failures += _show_coverage(tested, form, fail_under)
    if mutate:
        unnoticed = _show_all_mutations([file for file in tested if not file.failures and not file.untested], form)
        failures += unnoticed if strict else 0
    if form != "text" or not tested:
        talk(*_summary(tested))
    nothing = not any(each.results or each.untested for each in tested)
    return ExitCode.PROBLEMS if failures or (nothing and not skip_others) else ExitCode.OK


def _update(file: Path) -> None:
    """Write the results of a file's examples into it, and say what was changed."""
    try:
        text = EditableText.of(read_source(file))
        if text is None:
            note(f"{file} is not updated: lone carriage returns break its lines")
            return
        if kind_of(read_document(text.text, file=str(file)).tree) == "pipeline":
            return
        updated = update_examples(text.text, file=str(file), format=format_of(str(file)))
        if updated.text != text.text:
            replace_file(file, text.with_text(updated.text))
    except DocumentError:
        return  # the test that follows says why
    except OSError as error:
        raise click.UsageError(f"cannot write {file}: {error.strerror}") from error
    if updated.count:
        note(f"{file}: {plural(updated.count, 'example')} updated")
    for place in updated.left:
        note(f"{place} is not updated: its result is an alias, or no edit of the text can change it")


def _test(file: Path, plan: str, words: str | None, strict: bool) -> TestedFile | None:
    """Return the result of a file; None for a pipeline, and if no example of the file is selected."""
    try:
        document = read_document(read_source(file), file=str(file))
        if kind_of(document.tree) == "pipeline":
            return None
        mapping = compile_document(document)
    except OSError as error:
        return TestedFile(str(file), problems=(unreadable(file, error),))
    except DocumentError as error:
        return TestedFile(str(file), problems=tuple(error.problems))
    results = tuple(run_examples(mapping, plan))  # type: ignore[arg-type]  # click has checked the choice
    if not results:
        if words is not None:
            return None
        hint = "add `examples:` with messages; `iggyflux test --update` writes their results"
        missing = document.problem(UNTESTED, "", "the document has no examples", hint=hint)
        return TestedFile(str(file), (), (missing,) if strict else (), untested=True, coverage=cover(mapping))
    if words is not None and words.lower() not in file.name.lower():
        results = tuple(each for each in results if words.lower() in each.title.lower())
        if not results:
            return None
    if not isinstance(mapping, WriterMapping):
        return TestedFile(str(file), results, coverage=cover(mapping))
    rendered = cast(Any, render_examples(mapping, mapping.plan(cast(Any, plan))))
    series = count_series(mapping, (point_key(line)[0] for _, each in rendered for line in each.lines))
    beyond = beyond_limit(mapping, series)
    problems = () if beyond is None else (beyond,)
    return TestedFile(str(file), results, problems, coverage=cover(mapping), series=series)


def _show_coverage(tested: Sequence[TestedFile], form: str, least: float | None) -> int:
    """Print what no example exercises; return how many documents are under `least` percent."""
    found = [(file, file.coverage) for file in tested if file.coverage is not None]
    for file, coverage in found:
        if form == "text":
            for problem in coverage.missing:
                for line in problem_lines(problem):
                    result_line(*line)
        talk(f"{file.path}: {_coverage_text(coverage)}")
    if len(found) > 1:
        talk(f"{plural(len(found), 'document')}: {_coverage_text(_all_coverage(tested))}")
    return sum(least is not None and coverage.percent < least for _, coverage in found)


def _coverage_text(coverage: Coverage) -> str:
    return f"{coverage.exercised:,} of {plural(coverage.parts, 'part')} exercised ({coverage.percent:.0f} %)"


def _all_coverage(tested: Sequence[TestedFile]) -> Coverage:
    """Return the coverage of all documents together."""
    found = [file.coverage for file in tested if file.coverage is not None]
    return Coverage(sum(each.parts for each in found), tuple(problem for each in found for problem in each.missing))


def _show_all_mutations(tested: Sequence[TestedFile], form: str) -> int:
    """Print the changes that no example notices, document by document; return their number."""
    counts = [_show_mutations(file, form) for file in tested]
    tried, unnoticed = sum(tried for tried, _ in counts), sum(unnoticed for _, unnoticed in counts)
    if len(tested) > 1:
        talk(f"{plural(len(tested), 'document')}: {tried - unnoticed:,} of {plural(tried, 'change')} noticed")
    return unnoticed


def _show_mutations(file: TestedFile, form: str) -> tuple[int, int]:
    """Print the changes of a document that no example notices; return how many were tried and how many these are."""
    mapping = compile_document(read_document(read_source(Path(file.path)), file=file.path))
    found = try_mutations(mapping)
    if form == "text":
        for problem in found.unnoticed:
            for line in problem_lines(problem):
                result_line(*line)
    noticed = found.tried - len(found.unnoticed)
    talk(f"{file.path}: {noticed:,} of {plural(found.tried, 'change')} noticed")
    return found.tried, len(found.unnoticed)


def _summary(tested: Sequence[TestedFile]) -> Line:
    results = [each for file in tested for each in file.results]
    passed = sum(each.passed for each in results)
    parts: list[str | Styled] = [f"{passed:,} passed"]
    if failed := len(results) - passed:
        parts += [", ", Styled(f"{failed:,} failed", "red", bold=True)]
    if broken := sum(bool(file.problems) for file in tested):
        parts += [", ", Styled(f"{plural(broken, 'document')} with problems", "red", bold=True)]
    if untested := sum(file.untested for file in tested):
        parts += [", ", Styled(f"{plural(untested, 'document')} without examples", "yellow")]
    if not tested:
        return ("no examples found",)
    return f"{plural(len(tested), 'document')}, {plural(len(results), 'example')}: ", *parts


# --- text ---


def _print_text(tested: Sequence[TestedFile]) -> None:
    for file in tested:
        result_line(Styled(file.path, bold=True))
        for problem in file.problems:
            for line in problem_lines(problem):
                result_line(*line)
        if file.untested:
            result_line("  ", Styled("no examples", "yellow"), ": the mapping is untested")
        for each in file.results:
            mark = Styled("ok  ", "green") if each.passed else Styled("FAIL", "red", bold=True)
            place = "" if each.passed else f" ({each.location})"
            result_line("  ", mark, f" {each.title}{place}")
            for difference in each.differences:
                for line in difference_lines(difference):
                    result_line("       ", *line)
        if file.series is not None:
            for text in series_lines(file.series):
                result_line(f"  {text}")
    if tested:
        talk(*_summary(tested))


def difference_lines(difference: Difference) -> list[Line]:
    """Return a difference as text: both values, a caret at the first difference, and an explanation."""
    expected, actual = difference.expected, difference.actual
    lines: list[Line] = [(f"{difference.title} [{difference.code}]",)]
    if expected is not None:
        lines.append(("  expected  ", Styled(expected, "green")))
    if actual is not None:
        lines.append(("  actual    ", Styled(actual, "red")))
    if difference.code == DIFFERENT and expected is not None and actual is not None:
        lines.append((f"            {_caret(escaped(expected), escaped(actual))}",))
    lines += [(f"  {detail}",) for detail in difference.details]
    return lines


def _caret(expected: str, actual: str) -> str:
    """Return a caret below the first character that differs, after the width of the text before it on a terminal."""
    same = next(
        (index for index, (one, other) in enumerate(zip(expected, actual, strict=False)) if one != other),
        min(len(expected), len(actual)),
    )
    return " " * _width(expected[:same]) + "^"


def _width(text: str) -> int:
    return sum(0 if combining(character) else 2 if east_asian_width(character) in "WF" else 1 for character in text)


# --- machines ---


def _print_json(tested: Sequence[TestedFile]) -> None:
    content = {
        "documents": [
            {
                "file": file.path,
                "problems": [problem.as_dict() for problem in file.problems],
                "coverage": None if file.coverage is None else _coverage_dict(file.coverage),
                "measurements": None if file.series is None else _series_dict(file.series),
                "examples": [_as_dict(each) for each in file.results],
            }
            for file in tested
        ],
        "coverage": _coverage_numbers(_all_coverage(tested)),
        "failures": sum(file.failures for file in tested),
    }
    result(json_text(content, indent=True) + "\n")


def _series_dict(count: SeriesCount) -> dict[str, Any]:
    return {name: {"series": count.of(name), "tags": dict(count.tags(name))} for name in sorted(count.measurements)}


def _coverage_dict(coverage: Coverage) -> dict[str, Any]:
    return {**_coverage_numbers(coverage), "missing": [problem.as_dict() for problem in coverage.missing]}


def _coverage_numbers(coverage: Coverage) -> dict[str, Any]:
    return {"parts": coverage.parts, "exercised": coverage.exercised, "percent": round(coverage.percent, 1)}


def _as_dict(each: ExampleResult) -> dict[str, Any]:
    return {
        "number": each.number,
        "name": each.name,
        "line": each.location.line,
        "passed": each.passed,
        "differences": [
            {
                "code": difference.code,
                "title": difference.title,
                "expected": difference.expected,
                "actual": difference.actual,
                "details": list(difference.details),
            }
            for difference in each.differences
        ],
    }


def _print_junit(tested: Sequence[TestedFile]) -> None:
    """Print JUnit XML: a suite for each document, with its coverage as properties, and a case for each example."""
    root = Element("testsuites", {"name": "iggyflux", **_counts(tested)})
    for file in tested:
        name = escaped(file.path)
        suite = SubElement(root, "testsuite", {"name": name, "file": name, **_counts([file])})
        if file.coverage is not None:
            properties = SubElement(suite, "properties")
            for key, number in _coverage_numbers(file.coverage).items():
                SubElement(properties, "property", name=f"coverage.{key}", value=str(number))
        if file.problems:
            case = SubElement(suite, "testcase", classname=name, name="compiles")
            text = "\n".join(problem.render() for problem in file.problems)
            if file.errors:
                error = file.errors[0]
                SubElement(case, "failure", type=error.code, message=escaped(error.message)).text = text
            else:
                SubElement(case, "system-out").text = text
        for each in file.results:
            case = SubElement(suite, "testcase", classname=name, name=escaped(each.title))
            if each.differences:
                lines: list[Line] = [(str(each.location),)]
                lines += [line for difference in each.differences for line in difference_lines(difference)]
                first = each.differences[0]
                failure = SubElement(case, "failure", type=first.code, message=escaped(first.title))
                failure.text = "\n".join(escaped(unstyled(line)) for line in lines)
    indent(root)
    result(b'<?xml version="1.0" encoding="utf-8"?>\n' + tostring(root, encoding="utf-8") + b"\n")


def _counts(tested: Sequence[TestedFile]) -> dict[str, str]:
    """Return the counts of a suite, or of all suites."""
    tests = sum(len(file.results) + bool(file.problems) for file in tested)
    return {"tests": str(tests), "failures": str(sum(file.failures for file in tested)), "errors": "0"}


_FORMS = {"text": _print_text, "json": _print_json, "junit": _print_junit}
