"""Writes the results of examples into a document: text edits at the places of its nodes, so all other text stays.

A round trip through a YAML library would keep comments, but not the layout, and there is none for TOML.  Each edit is
proved: the new text has the same tree but for the results, and its examples pass.  What cannot be edited so, such as a
result that is an alias, is left as it is and reported.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from iggyflux.authoring.examples import ExampleResult, actual_result, run_examples
from iggyflux.documents import Document, Format, read_document
from iggyflux.documents.nodes import Node
from iggyflux.documents.offsets import Style
from iggyflux.errors import DocumentError, Edit, Location
from iggyflux.mapping import ReaderMapping, WriterMapping, compile_document

RESULTS = ("points", "fails", "skipped", "messages")


@dataclass(frozen=True, slots=True)
class Updated:
    """A text with new results: `count` examples were changed; `left` are the places of those that could not be."""

    text: str
    count: int
    left: tuple[Location, ...]


def update_examples(text: str, *, file: str | None, format: Format) -> Updated:  # noqa: A002
    """Return the document `text` with what comes of each example that fails as its result.

    Raise MappingError if it does not compile, but for the results: one that is invalid is replaced, too.
    """
    before = text
    text, replaced = _with_valid_results(text, file, format)
    count = number = 0
    left: list[Location] = []
    while True:
        document = read_document(text, file=file, format=format)
        mapping = compile_document(document)
        results = run_examples(mapping)
        if number >= len(results):
            return Updated(text, count, tuple(left))
        if not results[number].passed or number in replaced:
            changed = _with_result(mapping, document, number)
            if changed is None and number in replaced:  # what was there is not lost
                compile_document(read_document(before, file=file, format=format))
            if changed is None:
                left.append(results[number].location)
            else:
                text, count = changed, count + 1
        number += 1


def _with_valid_results(text: str, file: str | None, format: Format) -> tuple[str, set[int]]:  # noqa: A002
    """Return `text` with a result in each example that has none or an invalid one: only then it compiles.

    Return the numbers of those that had an invalid one, too.
    """
    number = 0
    invalid = _invalid_results(read_document(text, file=file, format=format))
    while True:
        document = read_document(text, file=file, format=format)
        tree = document.tree if isinstance(document.tree, dict) else {}
        examples = tree.get("examples")
        if not isinstance(examples, list) or number >= len(examples):
            return text, set(invalid)
        example, node = examples[number], document.node(f"/examples/{number}")
        if isinstance(example, dict) and node is not None and (number in invalid or not set(RESULTS) & set(example)):
            edits, result = _made_valid(document, node, example, invalid.get(number, set()))
            changed = _applied(text, edits)
            if _same_but(document, changed, number, result):
                text = changed
        number += 1


_ANY_LINE: Final = "x x=1"


def _made_valid(
    document: Document, node: Node, example: Mapping[str, Any], lines: set[int]
) -> tuple[Sequence[Edit], Mapping[str, Any]]:
    """Return edits, and the result that they make: other `lines` (their numbers) so that comments stay, or no lines."""
    points = node.children.get("points")
    if lines and points is not None:
        nodes = list(points.children.values())
        written = _written(_ANY_LINE, document.format)
        result = {key: example[key] for key in RESULTS if key in example}
        result["points"] = [_ANY_LINE if at in lines else each for at, each in enumerate(example["points"])]
        return [Edit(nodes[at].start, end_of(document, nodes[at]), written) for at in lines], result
    empty = {"messages" if "row" in example or "rows" in example else "points": list[Any]()}
    return _rewritten(document, node, empty, [key for key in RESULTS if key in example]), empty


_RESULT: Final = re.compile(rf"/examples/(\d+)/(?:points/(\d+)\Z|(?:{'|'.join(RESULTS)})(?:/|\Z))")


def _invalid_results(document: Document) -> dict[int, set[int]]:
    """Return the numbers of the examples whose results are at fault: with those of the lines, if nothing else is."""
    found: dict[int, set[int]] = {}
    try:
        compile_document(document)
    except DocumentError as error:
        pointers = [each.location.pointer or "" for each in error.problems if each.severity == "error"]
        matches = [each for each in map(_RESULT.match, pointers) if each]
        for each in matches:
            found.setdefault(int(each[1]), set()).update([int(each[2])] if each[2] else [])
        for each in matches:
            if each[2] is None:
                found[int(each[1])] = set()
    return found


def _applied(text: str, edits: Sequence[Edit]) -> str:
    for edit in sorted(edits, key=lambda each: each.start, reverse=True):
        text = text[: edit.start] + edit.text + text[edit.end :]
    return text


def _same_but(before: Document, text: str, number: int, result: Mapping[str, Any]) -> bool:
    """Return whether `text` is the document with another result of one example; an alias would change others, too."""
    try:
        document = read_document(text, file=before.file, format=before.format)
    except DocumentError:
        return False
    tree: Any = before.tree
    examples = [*tree["examples"]]
    kept = {key: value for key, value in examples[number].items() if key not in RESULTS}
    examples[number] = {**kept, **result}
    return not document.faults and document.tree == {**tree, "examples": examples}


def _with_result(mapping: WriterMapping | ReaderMapping, document: Document, number: int) -> str | None:
    """Return the text in which the example passes; None if no edit of its text does it."""
    wanted = actual_result(mapping, number)
    example = document.node(f"/examples/{number}")
    if wanted is None or example is None:
        return None
    for edits in _edits(document, example, wanted):
        text = _applied(document.text, edits)
        if _same_but(document, text, number, wanted) and _passes(document, text, number):
            return text
    return None


def _passes(before: Document, text: str, number: int) -> bool:
    try:
        changed = compile_document(read_document(text, file=before.file, format=before.format))
    except DocumentError:
        return False
    result: ExampleResult = run_examples(changed)[number]
    return result.passed


# --- edits, the smallest first ---


def _edits(document: Document, example: Node, wanted: Mapping[str, Any]) -> Iterator[Sequence[Edit]]:
    present = [key for key in RESULTS if key in example.keys]
    if present == list(wanted) and len(present) == 1:
        node = example.children[present[0]]
        values = wanted[present[0]]
        if isinstance(values, list) and isinstance(node.value, list) and values and node.children:
            yield _items(document, node, values)
    yield _rewritten(document, example, wanted, present)


def _items(document: Document, node: Node, values: Sequence[Any]) -> Sequence[Edit]:
    """Return the edits that change the items of a list one by one, so that comments between them stay."""
    text, children = document.text, list(node.children.values())
    edits = [
        Edit(each.start, end_of(document, each), _written(value, document.format))
        for each, value in zip(children, values, strict=False)
        if each.value != value
    ]
    last = children[-1]
    more = [_written(value, document.format) for value in values[len(children) :]]
    if more and node.in_flow:
        edits.append(Edit(end_of(document, last), end_of(document, last), "".join(f", {each}" for each in more)))
    elif more:
        at, begin = line_end(text, end_of(document, last)), text.rfind("\n", 0, last.start) + 1
        dash = text[begin : last.start].rfind("-")
        indent = " " * dash
        edits.append(Edit(at, at, "".join(f"\n{indent}- {each}" for each in more)))
    for number in range(len(values), len(children)):
        before = end_of(document, children[number - 1])
        start = before if node.in_flow else line_end(text, before)
        end = end_of(document, children[number])
        edits.append(Edit(start, end if node.in_flow else line_end(text, end), ""))
    return edits


def line_end(text: str, offset: int) -> int:
    """Return the end of the line of `offset`, behind a comment; `offset` itself where other text follows."""
    found = _REST.match(text, offset)
    return found.end() if found else offset


_REST = re.compile(r"[ \t]*(?:#[^\n]*)?(?=\n|\Z)")


def _rewritten(document: Document, example: Node, wanted: Mapping[str, Any], present: Sequence[str]) -> Sequence[Edit]:
    """Return the edits that write all results where the first one is, or at the end."""
    text = document.text
    edits = []
    if present:
        first, *others = sorted(present, key=lambda key: example.keys[key][0])
        start = example.keys[first][0]
        for key in others:
            begin = example.keys[key][0]
            before = text.rfind("\n", 0, begin) if not example.in_flow else text.rfind(",", 0, begin)
            edits.append(Edit(before, end_of(document, example.children[key]), ""))
        edits.append(Edit(start, end_of(document, example.children[first]), _members(document, example, wanted, start)))
        return edits
    end = end_of(document, example)
    if example.in_flow:
        comma = "" if text[: end - 1].rstrip().endswith((",", "{")) else ","
        return [Edit(end - 1, end - 1, f"{comma} {_members(document, example, wanted, end)}")]
    end = line_end(text, end)
    if not example.keys:
        return []
    last = min(example.keys.values())[0]
    indent = " " * (document.lines.place(last)[1] - 1)
    return [Edit(end, end, f"\n{indent}{_members(document, example, wanted, last)}")]


def _members(document: Document, example: Node, wanted: Mapping[str, Any], at: int) -> str:
    """Return the results as members of the example whose keys are in the column of `at`."""
    indent = " " * (document.lines.place(at)[1] - 1)
    if document.format == "toml":
        separator = ", " if example.in_flow else f"\n{indent}"
        return separator.join(f"{key} = {_value(value, 'toml')}" for key, value in wanted.items())
    if example.in_flow:
        return ", ".join(f"{key}: {_value(value, 'yaml')}" for key, value in wanted.items())
    lines = []
    for key, value in wanted.items():
        if isinstance(value, list) and value:
            lines.append(f"{key}:")
            lines += [f"  - {_written(each, 'yaml')}" for each in value]
        else:
            lines.append(f"{key}: {_value(value, 'yaml')}")
    return f"\n{indent}".join(lines)


def _value(value: Any, format: Format) -> str:  # noqa: A002
    if isinstance(value, list):
        return "[" + ", ".join(_written(each, format) for each in value) + "]"
    return _written(value, format)


def _written(value: Any, format: Format) -> str:  # noqa: A002
    """Return a value on one line; strings in single quotes where that shows them as they are."""
    if isinstance(value, str) and value.isprintable():
        if format == "yaml":
            return "'" + value.replace("'", "''") + "'"
        if "'" not in value:
            return f"'{value}'"
    if format == "toml" and isinstance(value, dict):
        members = (f"{json.dumps(key)} = {_written(each, format)}" for key, each in value.items() if each is not None)
        return "{" + ", ".join(members) + "}"
    if format == "toml" and isinstance(value, list):
        return _value(value, format)
    return json.dumps(value, ensure_ascii=True)


def end_of(document: Document, node: Node) -> int:
    """Return where a node ends, without the blanks and comments after a collection in block style."""
    if node.style is Style.COLLECTION and not node.in_flow and node.children:
        return max(end_of(document, child) for child in node.children.values())
    end = node.end
    while node.style is Style.BLOCK and end > node.start and document.text[end - 1] in " \n":
        end -= 1
    return end
