"""Documents in the making: trees with comments, which are proved before anybody sees them.

A proved document has no problem: what `iggyflux validate` would refuse is removed and reported.  Its examples are the
samples, or a message made from what the mapping reads, with the lines that come of them.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, Final

from iggyflux.authoring.examples import actual_result, run_examples
from iggyflux.authoring.generate import GenerateError, generate_messages
from iggyflux.authoring.inference.copies import example_of
from iggyflux.authoring.inference.write import Entry, yaml_lines
from iggyflux.authoring.samples import Coordinates
from iggyflux.documents import join_pointer, split_pointer
from iggyflux.errors import DocumentError, MappingError, PipelineError, Problem
from iggyflux.mapping import ReaderMapping, WriterMapping, parse_mapping
from iggyflux.pipeline import parse_pipeline
from iggyflux.records import Message

Tree = dict[str, Any]

Tell = Callable[[str, str], None]
"""Reports what a document lost: the pointer of it there, and why."""

MOST_STEPS: Final = 200
"""A document of which more than this has to be removed is not written."""
MOST_EXAMPLES: Final = 3
MOST_READ: Final = 100
"""For a mapping with more tags and fields no message is made up: it takes a time that grows with their square."""
_BLOCKS: Final = re.compile(r"/(?:from|to|tags|fields|iggy|influxdb|tables|cursor|payload|consumer)$|^$")
_FLOW_WIDTH: Final = 76
_EXPRESSIONS: Final = re.compile(r"/(?:for_each|where|measurement|key)$|/(?:tags|fields|timestamp|headers|payload)/")
_MADE_UP: Final = "made up from what the mapping reads; put a real one here"
_START_NS: Final = 1_767_225_600_000_000_000
_PAYLOADS: Final = {
    "json": (b'{"value": 21.5}', b"21.5"),
    "text": (b"21.5",),
    "raw": (b"21.5",),
    "influx": (b"env,site=a value=21.5 1767225600000000000",),
}
"""Payloads for mappings that name none of the members that they read."""
_COLLISION: Final = "IFX351"
_LOGINS: Final = "IFX810"
_HALVES: Final = {
    "password": "username",
    "client_key": "client_cert",
    "client_key_passphrase": "client_cert",
}
"""Keys of `influxdb` that are nothing without another."""
_NOT_OF_THE_TEXT: Final = frozenset({"IFX808", "IFX802", "IFX817"})
"""Problems of a pipeline that come of where it is checked: its mappings are not yet written, variables not set."""


@dataclass
class Draft:
    """A mapping in the making; `points` of a writer is a list of points."""

    name: str
    tree: Tree
    comments: dict[str, str] = field(default_factory=dict)
    """A comment for the line at a pointer."""
    notes: list[str] = field(default_factory=list)
    """Lines at the top."""
    samples: Sequence[Message] = ()
    headers: dict[str, str] = field(default_factory=dict)
    """Headers of the message that is made up for want of samples."""
    row: Tree = field(default_factory=dict)
    """Columns of the row in the example of a reader."""
    measurement: str = ""
    """The measurement of that row, where the reader asks for it."""
    route: Tree = field(default_factory=dict)
    """Keys of its route in the pipeline."""
    sinks: list[tuple[int, Tree]] = field(default_factory=list)
    """The section `influxdb` of each of its routes, with the number of the output, where there is more than one."""

    @property
    def points(self) -> list[Tree]:
        points: list[Tree] = self.tree.get("points", [])
        return points

    def copied(self) -> Draft:
        """Return a draft that can be changed without this one."""
        made = replace(self, tree=copy.deepcopy(self.tree), comments={**self.comments}, notes=[*self.notes])
        return replace(made, route={**self.route}, sinks=[*self.sinks])


def prove(draft: Draft, tell: Tell) -> str | None:
    """Return the text of a draft that validates, with examples that pass; None if nothing is left of it."""
    for _ in range(MOST_STEPS):
        try:
            mapping = parse_mapping(document_text(draft), format="yaml", name=draft.name)
        except MappingError as error:
            fault = next(each for each in error.problems if each.severity == "error")
            if not _without(draft.tree, fault, tell):
                return None
            continue
        if isinstance(mapping, ReaderMapping):
            return _with_row(draft)
        if not _keep_apart(draft, mapping, tell):
            return _with_examples(draft, mapping, tell)
    return None


def _without(tree: Tree, problem: Problem, tell: Tell) -> bool:
    """Remove what a problem is about; return whether there is still a document."""
    parts = list(split_pointer(problem.location.pointer))
    reason = f"{problem.code}: {problem.message}"
    if parts[:1] == ["points"]:
        points: list[Tree] = tree["points"]
        number = int(parts[1]) if len(parts) > 1 and parts[1].isdigit() and len(points) > 1 else 0
        rest = parts[2:] if len(parts) > 1 and parts[1].isdigit() and len(points) > 1 else parts[1:]
        point = points[number]
        if len(rest) > 1 and rest[0] in ("tags", "fields") and rest[1] in point.get(rest[0], {}):
            tell("/".join(rest[:2]), reason)
            del point[rest[0]][rest[1]]
            if point[rest[0]] or rest[0] == "tags":
                return True
        elif rest[:1] in (["timestamp"], ["where"]) and point.pop(rest[0], None) is not None:
            tell(rest[0], reason)
            return True
        tell("points", reason)
        del points[number]
        return bool(points)
    if parts[:1] in (["examples"], ["where"], ["tables"], ["cursor"], ["messages"]) and parts[0] in tree:
        tell(parts[0], reason)
        del tree[parts[0]]
        return True
    tell("/".join(parts) or "document", reason)
    return False


def _keep_apart(draft: Draft, mapping: WriterMapping, tell: Tell) -> bool:
    """Return whether the draft was changed, so that points of one sample do not overwrite each other."""
    if not draft.samples:
        return False
    failures = mapping.plan().render(draft.samples).failures
    numbers = {failure.point or 0 for failure in failures if failure.code == _COLLISION}
    changed = False
    for number in numbers:
        point = draft.points[number]
        time = point.get("timestamp", {})
        has_lists = "for_each" in point or "for_each" in draft.tree
        if has_lists and "spread" not in time and time.get("format") != "unix_ns":
            point["timestamp"] = {**point.get("timestamp", {}), "spread": "index"}
            tell("spread", "points of one message had the same tags and time, so that InfluxDB kept the last only")
            changed = True
    if numbers and not changed and "collisions" not in draft.tree:
        draft.tree["collisions"] = "merge"
        tell("collisions", "points of one message have the same tags and time, which InfluxDB merges")
        changed = True
    return changed


def _with_row(draft: Draft) -> str:
    """Return the text of a reader with a row that is made up, and the message that comes of it."""
    plain = document_text(draft)
    time = draft.tree.get("cursor", {}).get("column", "time")
    example: Tree = {"name": _MADE_UP, "row": {time: _START_NS, **draft.row}, "messages": []}
    if draft.measurement:
        example["meta"] = {"measurement": draft.measurement}
    draft.tree["examples"] = [example]
    try:
        made = actual_result(parse_mapping(document_text(draft), format="yaml", name=draft.name), 0)
    except MappingError:
        return plain
    if made is None or not made.get("messages"):
        return plain
    example["messages"] = made["messages"]
    text = document_text(draft)
    return text if _passes(text, draft.name) else plain


def _with_examples(draft: Draft, mapping: WriterMapping, tell: Tell) -> str:
    """Return the text with examples: of samples that render, else of a message that is made up."""
    made: list[Tree] = []
    made_up = False
    for message in chain(draft.samples, _made_up(draft, mapping)):
        made_up = made_up or message not in draft.samples
        if made_up and made:
            break
        example = example_of(mapping, message, len(made), [*message.headers])
        if example is None or not (example.points or example.skipped):
            continue
        tree: Tree = {"name": example.name, example.form: example.message}
        if made_up:
            tree["name"] = _MADE_UP
        if example.headers:
            tree["headers"] = dict(example.headers)
        made.append(tree | ({"skipped": True} if example.skipped else {"points": list(example.points)}))
        if len(made) == MOST_EXAMPLES:
            break
    if made:
        draft.tree["examples"] = made
        text = document_text(draft)
        if _passes(text, draft.name):
            return text
        del draft.tree["examples"]
    why = "no message could be made up that the mapping reads: give --samples"
    if draft.samples:
        why = "no sample can be one that passes: write one"
    tell("examples", why)
    return document_text(draft)


def _passes(text: str, name: str) -> bool:
    try:
        return all(result.passed for result in run_examples(parse_mapping(text, format="yaml", name=name)))
    except MappingError:
        return False


def _made_up(draft: Draft, mapping: WriterMapping) -> Iterator[Message]:
    """Yield messages that a mapping may read, until one of them makes a point."""
    payloads = list(_PAYLOADS.get(mapping.writer.source.payload.format, ()))
    if sum(len(point["tags"]) + len(point["fields"]) for point in draft.points) <= MOST_READ:
        with suppress(GenerateError, MappingError):
            payloads.insert(0, _generated(draft))
    coordinates = Coordinates.of(mapping.writer.source)
    for payload in payloads:
        made = Message(payload, coordinates.stream, coordinates.topic, headers=draft.headers)
        if mapping.plan().render([made]).lines:
            yield made
            return


def _generated(draft: Draft) -> bytes:
    """Return a payload that the mapping reads, in a message with the headers of the draft.

    Raise GenerateError, and MappingError.
    """
    text = document_text(draft)
    for name, value in draft.headers.items():
        text = text.replace(f"header('{name}')", f"'{value}'").replace(f"header(''{name}'')", f"''{value}''")
    mapping = parse_mapping(text, format="yaml", name=draft.name)
    return next(generate_messages(mapping, start_ns=_START_NS, interval_ns=1_000_000_000)).payload


def prove_pipeline(tree: Tree, comments: Mapping[str, str], notes: Sequence[str], tell: Tell) -> str | None:
    """Return the text of a pipeline that validates; None if nothing is left of it."""
    for _ in range(MOST_STEPS):
        text = tree_text(tree, comments, notes, "pipeline")
        try:
            parse_pipeline(text, format="yaml", environ={})
        except PipelineError as error:
            faults = [each for each in error.problems if each.code not in _NOT_OF_THE_TEXT]
            if not faults:
                return text
            parts = list(split_pointer(faults[0].location.pointer))
            if faults[0].code == _LOGINS and parts[-1:] == ["influxdb"] and (became := _one_login(tree, parts)):
                tell("/".join(parts), f"{faults[0].message}: {became}")
                continue
            tell("/".join(parts), f"{faults[0].code}: {faults[0].message}")
            if not _removed(tree, parts):
                return None
        except DocumentError:
            return None
        else:
            return text
    return None


def _one_login(tree: Any, parts: Sequence[str]) -> str | None:
    """Remove half of a login, or the weaker of two; return what became of it, None if there is nothing to remove."""
    for part in parts:
        tree = tree[int(part)] if isinstance(tree, list) else tree[part]
    for key, needs in _HALVES.items():
        if key in tree and needs not in tree:
            del tree[key]
            return "it is left out"
    headers = tree.get("headers", {})
    for name in [name for name in headers if name.lower() == "authorization"]:
        del headers[name]
        if not headers:
            del tree["headers"]
        return "the token is kept"
    removed = [tree.pop(key, None) for key in ("password", "username")] if "token" in tree else []
    return "the token is kept" if any(removed) else None


def _removed(tree: Any, parts: Sequence[str]) -> bool:
    """Delete the value at a path, or the nearest one around it that exists, but not the document."""
    for part in parts[:-1]:
        inner = tree.get(part) if isinstance(tree, dict) else tree[int(part)] if part.isdigit() else None
        if not isinstance(inner, dict | list):
            return isinstance(tree, dict) and tree.pop(part, None) is not None
        tree = inner
    return bool(parts) and isinstance(tree, dict) and tree.pop(parts[-1], None) is not None


# --- text ---


def document_text(draft: Draft) -> str:
    tree = dict(draft.tree)
    if "points" in tree:
        points = [{key: value for key, value in point.items() if value != {}} for point in draft.points]
        tree["points"] = points[0] if len(points) == 1 else points
    return tree_text(tree, draft.comments, draft.notes, "mapping")


def tree_text(tree: Tree, comments: Mapping[str, str], notes: Sequence[str], schema: str) -> str:
    """Return a document as YAML, with notes at the top and comments at their lines."""
    head = [f"# yaml-language-server: $schema=./{schema}-v1.schema.json", *(f"# {note}" for note in notes)]
    return "\n".join([*head, *yaml_lines(_entries(tree, "", comments))]) + "\n"


def _entries(tree: Tree, pointer: str, comments: Mapping[str, str]) -> Iterator[Entry]:
    for key, value in tree.items():
        here = join_pointer(pointer, key)
        comment = comments.get(here) or comments.get(re.sub(r"^/points/[0-9]+", "/points", here)) or ""
        is_expression = bool(_EXPRESSIONS.search(here)) and not here.startswith("/examples")
        if isinstance(value, dict) and value and _is_block(here, value):
            yield Entry(key, block=list(_entries(value, here, comments)), above=[comment] if comment else ())
        elif isinstance(value, list) and value and all(isinstance(each, dict) for each in value) and key != "header":
            blocks = [list(_entries(each, f"{here}/{number}", comments)) for number, each in enumerate(value)]
            yield Entry(key, blocks=blocks, above=[comment] if comment else ())
        else:
            yield Entry(key, value, comment=comment, is_expression=is_expression)


def _is_block(pointer: str, value: Tree) -> bool:
    if pointer.startswith("/examples"):
        return False
    return bool(_BLOCKS.search(pointer)) or "measurement" in value or len(str(value)) > _FLOW_WIDTH
