"""The package as users see it: its names, what they do together, and what an import costs."""

from __future__ import annotations

import pickle
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import iggyflux
from iggyflux.cli import COMMANDS

HEAVY = (
    "apache_iggy",
    "asyncio",
    "cbor2",
    "dateutil",
    "importlib.metadata",
    "jmespath",
    "jsonschema",
    "re2",
    "rich",
    "ruamel",
    "urllib3",
)
DOCUMENT = """\
iggyflux: 1
kind: writer
from: {stream: factory, topic: readings}
points:
  measurement: {const: env}
  tags: [device]
  timestamp: {expr: 'ts', format: unix_ms}
"""


def imported(code: str) -> set[str]:
    """Return the modules that a fresh interpreter has after `code`."""
    program = f"import sys\n{code}\nprint('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.split("\n"))


def heavy(modules: set[str]) -> set[str]:
    return {name for name in HEAVY if any(module == name or module.startswith(f"{name}.") for module in modules)}


def test_importing_the_package_imports_no_other_module() -> None:
    """`import iggyflux` loads the package's own first file and a little of the standard library."""
    modules = imported("import iggyflux; iggyflux.__version__")

    assert heavy(modules) == set()
    assert {module for module in modules if module.startswith("iggyflux.")} == set()
    assert not any(module.split(".")[0] in ("msgspec", "click") for module in modules)


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["codes", "--help"], ["nonsense"]], ids=" ".join)
def test_help_imports_no_heavy_library(arguments: list[str]) -> None:
    """A library is imported by the commands that need it, with their modules."""
    code = (
        "from iggyflux.cli import command_line\n"
        "import contextlib, io\n"
        "with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()), "
        f"contextlib.redirect_stderr(io.StringIO()): command_line.main({arguments!r})"
    )

    assert heavy(imported(code)) == set()


def test_evaluating_an_expression_imports_no_transport() -> None:
    """A program that embeds expressions or plans loads only these."""
    modules = imported("import iggyflux; iggyflux.compile_expression('a.b').evaluate({})")

    assert heavy(modules) <= {"jmespath", "re2"}


@pytest.mark.parametrize("name", iggyflux.__all__)
def test_every_public_name_exists(name: str) -> None:
    """Each name of `__all__` can be imported, and `dir` lists it."""
    assert getattr(iggyflux, name) is not None
    assert name in dir(iggyflux)


def test_an_unknown_name_is_an_attribute_error() -> None:
    """As in a package that is not lazy."""
    with pytest.raises(AttributeError, match="has no attribute 'Mappings'"):
        iggyflux.Mappings  # noqa: B018


def test_the_version_is_that_of_the_distribution() -> None:
    """Two files contain the version."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8"))

    assert project["project"]["version"] == iggyflux.__version__


def test_a_mapping_renders_lines_of_messages() -> None:
    """The session of the README, with public names only."""
    mapping = iggyflux.parse_mapping(DOCUMENT, name="env")
    messages = [
        iggyflux.Message(b'{"device": "d1", "celsius": 21.5, "ts": 1}'),
        iggyflux.Message(b'{"device": "d1", "celsius": 21.5, "ts": "x"}'),
    ]

    rendered = mapping.plan().render(messages)

    assert list(rendered.lines) == ["env,device=d1 celsius=21.5 1000000"]
    assert list(rendered.origins) == [0]
    assert [(failure.index, failure.code) for failure in rendered.failures] == [(1, "IFX349")]
    assert mapping.plan("reference").render(messages) == rendered
    assert pickle.loads(pickle.dumps(mapping)) == mapping


def test_a_mapping_error_has_every_problem() -> None:
    """`MappingError.problems` holds every problem with its place."""
    with pytest.raises(iggyflux.MappingError) as caught:
        iggyflux.parse_mapping(DOCUMENT.replace("const", "cosnt").replace("unix_ms", "unix_m"), name="env")

    assert [problem.location.line for problem in caught.value.problems] == [5, 7]


def test_an_expression_is_evaluated_with_or_without_a_message() -> None:
    """Without one `meta` is null."""
    expression = iggyflux.compile_expression("[a, meta('topic')]")

    assert expression.evaluate({"a": 1}) == [1, None]
    assert expression.evaluate({"a": 1}, iggyflux.Message(b"", topic="readings")) == [1, "readings"]


def test_a_point_equals_its_parsed_line() -> None:
    """`parse_lines(point.encode()) == [point]`, types included."""
    point = iggyflux.Point("env", {"device": "d 1"}, {"a": 1, "b": 1.0, "c": iggyflux.Unsigned(1)}, 7)

    assert iggyflux.parse_lines(point.encode()) == [point]
    assert point != iggyflux.Point("env", {"device": "d 1"}, {"a": 1, "b": 1.0, "c": 1}, 7)


def test_the_overview_has_the_first_sentence_of_each_commands_help() -> None:
    """The overview is a table, so that it needs no import; this test compares it with the commands."""
    import click

    from iggyflux.cli import command_line

    context = click.Context(command_line)
    for name, entry in COMMANDS.items():
        command = command_line.get_command(context, name)
        assert command is not None
        assert (command.help or "").split("\n")[0] == entry.summary
        for each in (command, *getattr(command, "commands", {}).values()):
            assert re.search(r"Example:\n +\S.*iggyflux |Example:\n +iggyflux ", each.help or ""), each.name
