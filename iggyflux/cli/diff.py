"""`iggyflux diff`: what changes in the data when one version of a mapping replaces another."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click

from iggyflux.authoring.comparison import Change, ChangedSample, Comparison, Given, compare, samples_of_examples
from iggyflux.cli.envelopes import Envelope, SamplesCommand, check_sample_options, envelope_option
from iggyflux.cli.git import ChangedFile, changed_files, commit_of, of_revision
from iggyflux.cli.inputs import INPUT_FILE, STDIN, input_name
from iggyflux.cli.output import ExitCode, Styled, json_text, plural, result, result_line, talk
from iggyflux.cli.sample_files import samples_of_file
from iggyflux.documents import format_of, has_version, kind_of, read_document, read_source
from iggyflux.errors import DocumentError
from iggyflux.mapping import ReaderMapping, WriterMapping, compile_document
from iggyflux.records import JSON, Message

_MOST_SAMPLES_SHOWN: Final = 20
_COLOURS: Final = {"breaking": "red", "compatible": "green", "-": "red", "+": "green"}


@click.command(name="diff", cls=SamplesCommand)
@click.argument("paths", nargs=-1, metavar="[OLD NEW | PATHS...]")
@click.option(
    "--since",
    metavar="REVISION",
    help="Compare the mappings in PATHS (default: this directory) that changed since this revision of git.",
)
@click.option("--samples", type=INPUT_FILE, multiple=True, help="Render these messages too (for readers: rows).")
@envelope_option("The samples are messages with coordinates and headers.")
@click.option("--whole", is_flag=True, help="Each file of samples is one payload.")
@click.option("--format", "form", type=click.Choice(["text", "json", "markdown"]), default="text", show_default=True)
@click.option(
    "--fail-on",
    type=click.Choice(["breaking", "any", "none"]),
    default="breaking",
    show_default=True,
    help="Which changes give the exit code 1.",
)
@click.option("--all", "shows_all", is_flag=True, help=f"Show the lines of all samples, not of {_MOST_SAMPLES_SHOWN}.")
def command(
    paths: tuple[str, ...],
    since: str | None,
    samples: tuple[Path, ...],
    envelope: Envelope,
    whole: bool,
    form: str,
    fail_on: str,
    shows_all: bool,
) -> int:
    """Compare what two versions of a mapping make of the same messages.

    OLD and NEW are files, or REVISION:PATH of the git repository that the current directory is in. Both render the
    examples of both, and the samples. A change is breaking if later data does not fit to what is stored: a type
    changed, a tag added or removed, a time moved, something is missing or fails. All else is compatible.

    With --since, every changed mapping is compared with what it was, by the examples of both, also under another
    name. A mapping that was removed or does not compile is breaking; without examples the change is unknown.

    \b
    Example:
      iggyflux diff old.yaml mapping.yaml --samples samples.ndjson
      iggyflux diff main:mapping.yaml mapping.yaml --format markdown
      iggyflux diff old.yaml mapping.yaml --fail-on any
      iggyflux diff --since main mappings/ --format markdown
    """
    check_sample_options(envelope, whole, has_samples=bool(samples))
    if since is not None:
        if samples:
            raise click.UsageError("--samples is for OLD NEW, not for --since")
        return _compare_all(since, paths, form, fail_on, shows_all)
    if len(paths) != 2:
        raise click.UsageError("expected OLD and NEW, or --since REVISION")
    old, new = paths
    if samples.count(STDIN) > 1:
        raise click.UsageError("stdin can be read once")
    mappings = [_mapping(name) for name in (old, new)]
    if mappings[0].kind != mappings[1].kind:
        kinds = f"{old} is a {mappings[0].kind}, {new} is a {mappings[1].kind}"
        raise click.UsageError(f"the mappings are of two kinds: {kinds}")
    given = samples_of_examples(*mappings)
    names_file = len(samples) > 1 or any(each.name.startswith("sample ") for each in given)
    for path in samples:
        given += _samples_of_file(mappings[1], path, envelope=envelope, whole=whole, names_file=names_file)
    if not given:
        raise click.UsageError("no samples: the documents have no examples; name a file with --samples")
    comparison = compare(mappings[0], mappings[1], given)
    if form == "json":
        result(json_text(_as_json(comparison), indent=True) + "\n")
    else:
        _print(comparison, form, shows_all)
    return _exit_code([comparison.verdict], fail_on)


def _compare_all(revision: str, paths: Sequence[str], form: str, fail_on: str, shows_all: bool) -> int:
    """Compare every mapping that changed since `revision`, and print each under its name."""
    files: list[JSON] = []
    verdicts: list[str] = []
    commit = commit_of(revision)
    for changed in changed_files(commit, paths):
        found = _compare_with(revision, commit, changed)
        if found is None:
            continue
        file = changed.new or changed.old or ""
        verdict, words, comparison = found
        verdicts.append(verdict)
        was = changed.old if changed.old != file else None
        if form == "json":
            about: dict[str, JSON] = {"verdict": verdict, "note": words} if comparison is None else _as_json(comparison)
            files.append({"file": file, **({"was": was} if was else {}), **about})
            continue
        if len(verdicts) > 1:
            result_line()
        title = f"{file} (was {was})" if was else file
        result_line(Styled(title, bold=True) if form == "text" else f"### {_cell(title)}")
        result_line()
        if comparison is not None:
            _print(comparison, form, shows_all)
        else:
            result_line(f"{verdict}: {words}" if form == "text" else f"**{verdict}**: {_cell(words)}")
    if form == "json":
        result(json_text({"since": revision, "files": files}, indent=True) + "\n")
    counts = ", ".join(
        f"{verdicts.count(each)} {each}" for each in ("breaking", "unknown", "compatible", "equal") if each in verdicts
    )
    talk(f"{plural(len(verdicts), 'mapping')} changed since {revision}" + (f": {counts}" if counts else ""))
    return _exit_code(verdicts, fail_on)


def _compare_with(revision: str, commit: str, changed: ChangedFile) -> tuple[str, str, Comparison | None] | None:
    """Return the verdict on a changed file, and why it is not compared, or the comparison; None for other files."""
    new = _version(changed.new, changed.new)
    old = _version(changed.old, f"{revision}:{changed.old}", commit)
    if isinstance(new, DocumentError):
        first = new.problems[0]
        return "breaking", f"the mapping does not compile: {first.code}: {first.message}", None
    if isinstance(old, DocumentError):
        first = old.problems[0]
        return ("unknown", f"not compared: {first.code} in {revision}: {first.message}", None) if new else None
    if old is None or new is None:
        if old is new:
            return None
        return ("breaking", "the mapping was removed", None) if old else ("compatible", "the mapping was added", None)
    if old.kind != new.kind:
        return "breaking", f"it was a {old.kind} and is a {new.kind}", None
    given = samples_of_examples(old, new)
    if not given:
        return "unknown", "not compared: no examples", None
    comparison = compare(old, new, given)
    return comparison.verdict, "", comparison


def _version(
    file: str | None, name: str | None, commit: str | None = None
) -> WriterMapping | ReaderMapping | DocumentError | None:
    """Return the mapping of a file, here or in a commit; an error in it; or None if it has none.  `name` is shown."""
    if file is None or name is None:
        return None
    data = read_source(Path(file)) if commit is None else of_revision(f"{commit}:{file}")
    if not has_version(data):
        return None
    try:
        document = read_document(data, format=format_of(file), file=name)
        return None if kind_of(document.tree) == "pipeline" else compile_document(document, name=Path(file).stem)
    except DocumentError as error:
        return error


def _print(comparison: Comparison, form: str, shows_all: bool) -> None:
    shown = comparison.changed_samples if shows_all else comparison.changed_samples[:_MOST_SAMPLES_SHOWN]
    (_print_text if form == "text" else _print_markdown)(comparison, shown)


def _exit_code(verdicts: Sequence[str], fail_on: str) -> int:
    is_failed = "breaking" in verdicts or (fail_on == "any" and any(each != "equal" for each in verdicts))
    return ExitCode.PROBLEMS if is_failed and fail_on != "none" else ExitCode.OK


def _mapping(name: str) -> WriterMapping | ReaderMapping:
    """Return the mapping of a file, or of a revision.  Raise UsageError or MappingError."""
    path = Path(name)
    revision, _, inside = name.partition(":")
    if path.exists() or not (revision and inside):
        if not path.is_file():
            raise click.UsageError(f"cannot read {name}: " + ("it is a directory" if path.is_dir() else "no such file"))
        data, own_name = read_source(path), None
    else:
        data, own_name = of_revision(name), Path(inside).stem
    document = read_document(data, format=format_of(str(path)), file=name)
    if kind_of(document.tree) == "pipeline":
        raise click.UsageError(f"{name} is a pipeline; expected a mapping")
    return compile_document(document, name=own_name)


def _samples_of_file(
    mapping: WriterMapping | ReaderMapping, path: Path, *, envelope: Envelope, whole: bool, names_file: bool
) -> list[Given]:
    found = samples_of_file(mapping, path, envelope=envelope, whole=whole)
    if mapping.kind == "reader":
        return [Given(f"rows of {path}", rows=tuple(found))] if found else []  # type: ignore[arg-type]
    where = f" of {input_name(path)}" if names_file else ""
    return [Given(f"sample {number}{where}", each) for number, each in enumerate(found, 1) if isinstance(each, Message)]


# --- forms ---


def _print_text(comparison: Comparison, shown: Sequence[ChangedSample]) -> None:
    for change in comparison.changes:
        about = _about(change)
        result_line(Styled(f"{change.verdict:10}", _COLOURS[change.verdict]), f"  {about}")
    _print_series(comparison)
    for each in shown:
        result_line()
        result_line(Styled(each.sample, bold=True))
        for sign, line in each.lines:
            result_line(Styled(f"{sign} {line}", _COLOURS[sign]))
    talk(_summary(comparison, shown))


def _about(change: Change) -> str:
    """Return a change in words: `tag cpu.host removed: "a" (in 12 points, first in sample 1)`."""
    how = {"type": "has another type"}.get(change.how, change.how)
    detail = f": {change.detail}" if change.detail else ""
    if change.how == "fails otherwise":
        return f"{change.subject}: {change.detail} (in {change.sample})"
    if change.kind == "sample":
        more = "more" if change.how == "fails" else "fewer"
        return f"{plural(change.count, f'failure {more}', f'failures {more}')}: {change.subject} (in {change.sample})"
    subject = f" {change.subject}" if change.subject else ""
    times = f"{change.count:,} times, first in " if change.count > 1 else "in "
    return f"{change.kind}{subject} {how}{detail} ({times}{change.sample})"


def _print_series(comparison: Comparison) -> None:
    for measurement, (before, after) in comparison.series.items():
        if before != after:
            result_line(f"series      {measurement}: {before:,} → {after:,}")


def _summary(comparison: Comparison, shown: Sequence[ChangedSample]) -> str:
    hidden = len(comparison.changed_samples) - len(shown)
    changed = f"{len(comparison.changed_samples):,} of {plural(comparison.samples, 'sample')} changed"
    more = f"; {hidden:,} more with --all" if hidden else ""
    return f"{comparison.verdict}: {changed}{more}"


def _as_json(comparison: Comparison) -> dict[str, JSON]:
    return {
        "verdict": comparison.verdict,
        "samples": comparison.samples,
        "changes": [
            {
                "verdict": each.verdict,
                "kind": each.kind,
                "how": each.how,
                "subject": each.subject,
                "detail": each.detail or None,
                "count": each.count,
                "sample": each.sample,
            }
            for each in comparison.changes
        ],
        "series": {name: {"old": before, "new": after} for name, (before, after) in comparison.series.items()},
        "lines": [
            {
                "sample": each.sample,
                "removed": [line for sign, line in each.lines if sign == "-"],
                "added": [line for sign, line in each.lines if sign == "+"],
            }
            for each in comparison.changed_samples
        ],
    }


def _print_markdown(comparison: Comparison, shown: Sequence[ChangedSample]) -> None:
    """Print what fits into the description of a pull request."""
    result_line(f"**{_summary(comparison, shown)}**")
    if comparison.changes:
        result_line()
        result_line("| verdict | change |")
        result_line("|---|---|")
        for change in comparison.changes:
            result_line(f"| {change.verdict} | {_cell(_about(change))} |")
    changed = {name: counts for name, counts in comparison.series.items() if counts[0] != counts[1]}
    if changed:
        result_line()
        result_line("| measurement | series before | series after |")
        result_line("|---|---|---|")
        for name, (before, after) in changed.items():
            result_line(f"| {_cell(name)} | {before:,} | {after:,} |")
    if shown:
        result_line()
        result_line("<details><summary>Lines</summary>")
        result_line()
        result_line("```diff")
        for each in shown:
            result_line(f"# {each.sample}")
            for sign, line in each.lines:
                result_line(f"{sign} {line}")
        result_line("```")
        result_line()
        result_line("</details>")


def _cell(text: str) -> str:
    """Return text for a cell of a table: as it is, also where it has characters of Markdown or HTML."""
    for character in "\\|`*_<>[]":
        text = text.replace(character, f"\\{character}")
    return text.replace("\n", " ")
