"""Texts are plain technical English: a fixed list of expressions stays out of them.

Texts for users are the codes, `--help`, string literals of the package (messages and hints), the schemas, and the docs.
Texts for developers are the docstrings and comments of all code.
"""

from __future__ import annotations

import ast
import json
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from iggyflux.cli import command_line
from iggyflux.codes import CODES

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "iggyflux"
PAGES = sorted([*ROOT.glob("docs/*.md"), ROOT / "README.md"])
CODE = sorted(path for folder in ("iggyflux", "tests", "bench", "examples") for path in (ROOT / folder).rglob("*.py"))

WRONG = re.compile(
    r"""\b(?: told | whoever | nobody | somebody | everybody | for\ ever | comes?\ again | left\ away
        | leaves?\b[^.;:\n]{0,40}\baway | none\ of\ our\ business | that\ it\ does\ not\ take
        | (?<!there\ )(?:is|are)\ no(?=\ [a-z]) | stands?\ (?:twice|there|beside|alone|under|in|for) | mended?
        | (?:is|are)\ here\ twice | is\ never\ closed | a\ text\ that
        | messages?\ came\ back | letters?\ chosen | has\ no\ exact\ double
        | which\ no\ double\ can | found\ faithful | though\ the\ server\ is\ there | for\ its\ turn )\b""",
    re.VERBOSE | re.IGNORECASE,
)


WRONG_IN_CODE = re.compile(rf"{WRONG.pattern} | \b(?: we | stands | nor\ is )\b", WRONG.flags)


def found_in(text: str, wrong: re.Pattern[str] = WRONG) -> list[str]:
    return [text[max(0, m.start() - 40) : m.end() + 40].replace("\n", " ") for m in wrong.finditer(text)]


def documentation(tree: ast.AST) -> Iterator[ast.Constant]:
    """Yield the docstrings of a module, those of constants included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.value


def literals(path: Path) -> Iterator[str]:
    """Yield every string of a module but docstrings; of an f-string its literal parts."""
    tree = ast.parse(path.read_text("utf-8"))
    docstrings = set(map(id, documentation(tree)))
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.value


def docstrings_and_comments(path: Path) -> Iterator[str]:
    source = path.read_text("utf-8")
    if not found_in(source.replace("\\n", " "), WRONG_IN_CODE):
        return  # to read it as tokens takes ten times as long
    for node in documentation(ast.parse(source)):
        yield str(node.value)
    with path.open("rb") as file:
        for token in tokenize.tokenize(file.readline):
            if token.type == tokenize.COMMENT:
                yield token.string


def descriptions(tree: object) -> Iterator[str]:
    if isinstance(tree, str):
        yield tree
    elif isinstance(tree, dict | list):
        for item in tree.values() if isinstance(tree, dict) else tree:
            yield from descriptions(item)


def helps(command: click.Command, path: str = "iggyflux") -> Iterator[tuple[str, str]]:
    # The names as `iggyflux` has them: click keeps the help option that it makes first.
    names = ["-h", "--help"]
    context = click.Context(
        command, info_name=path, terminal_width=10_000, max_content_width=10_000, help_option_names=names
    )
    yield path, command.get_help(context)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from helps(inner, f"{path} {name}")


@pytest.mark.parametrize(
    "text",
    [
        "the runner is told to stop",
        "payloads of cbor are no lines",
        "`x` has a value that it does not take",
        "leave the key away",
        "it stands under `influxdb`",
        "nothing is lost: it comes again",
        "one message came back as several",
        "integer 9 has no exact double",
        "2 dead letters chosen in data",
    ],
)
def test_the_list_finds_what_it_is_for(text: str) -> None:
    assert found_in(text)


def test_comments_are_searched_for_more() -> None:
    assert found_in("as we say", WRONG_IN_CODE)
    assert found_in("what stands between", WRONG_IN_CODE)
    assert not found_in("a standard, weather", WRONG_IN_CODE)


@pytest.mark.parametrize("text", ["there is no such route", "a standard function", "expected a list, found null"])
def test_the_list_leaves_plain_english_alone(text: str) -> None:
    assert not found_in(text)


@pytest.mark.parametrize("code", CODES)
def test_codes_are_plain(code: str) -> None:
    entry = CODES[code]

    assert found_in(f"{entry.title}\n{entry.meaning}\n{entry.fix}") == []


def test_help_is_plain() -> None:
    assert {path: found for path, text in helps(command_line) if (found := found_in(text))} == {}


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_messages_are_plain(path: Path) -> None:
    assert [found for text in literals(path) if " " in text for found in found_in(text)] == []


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(ROOT)))
def test_docstrings_and_comments_are_plain(path: Path) -> None:
    assert [found for text in docstrings_and_comments(path) for found in found_in(text, WRONG_IN_CODE)] == []


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("schemas/*.json")), ids=lambda path: path.name)
def test_schemas_are_plain(path: Path) -> None:
    assert [found for text in descriptions(json.loads(path.read_text("utf-8"))) for found in found_in(text)] == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_pages_are_plain(path: Path) -> None:
    assert found_in(path.read_text("utf-8")) == []
