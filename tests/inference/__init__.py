"""Samples of public payload shapes, each with the mapping that a careful person would write for them.

NAME.key.toml is the answer key of the samples beside it, or of a file of mappings/samples.  Keys are written from the
documentation of the products, before any mapping is inferred: they say what is right, not what a program finds.
tests/test_inference_keys.py compares each key with its samples.

The folder held_out has keys of shapes that were not looked at while the rules were made: docs/infer.md says how many of
their decisions were met at the first run.

A path starts at the root of the payload: names joined by `.`, in double quotes where JMESPath needs them; `[]` for
each element of a list, `[2]` for a fixed position, `[?key == 'a']` for one of a list of pairs; `*` for each member of a
map, `sensors.*~key` for its name.  `header('x')` is a header of the message.

| key | meaning |
|---|---|
| `each` | the elements that become points; empty: the message |
| `parallel` | lists beside the list of `each` that are read at its position: `names[]` beside `values[]` |
| `each_or_message` | a message without this list is itself the element |
| `measurement` | the path of its name; empty: the topic |
| `measurement_also` | other paths that are right; one that is not the measurement may be a tag |
| `tags` | must be tags |
| `tags_optional` | may be a tag, a field, or omitted |
| `ignored` | may be a field, or omitted, never a tag; `raw.*` covers all that is below |
| `fields` | must be fields of this type |
| `time` | `path`, empty for the time of the message; `format`; `also`, other paths that are right |
| `time.clock` | the time of day, where `path` is only the day; `format` is of both, a blank between them |
| `absent` | texts that mean a missing value |
| `series` | the number of measurements and sets of `tags`, of elements that have a field |
| `unseen` | paths that only the second half of the samples has, or has with another kind of value |

The type `number` means that integer and float are both right; `mixed`, that numbers, texts and booleans need a field
each.  The format `ask` means that no format is certain.
"""

from __future__ import annotations

import csv
import io
import json
import re
import tomllib
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise, takewhile
from pathlib import Path
from typing import Any, TypeAlias

import cbor2
import msgspec

from iggyflux.payloads import FORMATS
from iggyflux.records import JSON

FOLDER = Path(__file__).parent
HELD_OUT = FOLDER / "held_out"
ROOT = FOLDER.parent.parent

TYPES = frozenset({"float", "integer", "number", "string", "boolean", "mixed"})

Step: TypeAlias = str | int | tuple[str, str]
"""A name, a position, or a pair of `[?name == 'text']`."""

EACH, STAR, KEY = "[]", "*", "~key"
"""Steps of patterns that are not names; a quoted name `"*"` does not occur."""

_STEP = re.compile(
    r"""\.?(?:(?P<name>[A-Za-z_]\w*)|"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<star>\*))
        | \[\?(?P<by>\w+)\ ==\ '(?P<text>[^']*)'\] | \[(?P<position>\d*)\] | (?P<key>~key)$""",
    re.VERBOSE,
)
_HEADER = re.compile(r"header\('([^']+)'\)")


@dataclass(frozen=True, slots=True)
class Sample:
    """A decoded payload and the headers of its message."""

    payload: JSON
    headers: Mapping[str, JSON] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Time:
    path: str
    format: str
    also: tuple[str, ...] = ()
    clock: str = ""


@dataclass(frozen=True, slots=True)
class Key:
    """What a careful person would choose, seeing only the samples."""

    name: str
    samples_file: Path
    about: str
    source: str
    format: str
    measurement: str
    tags: tuple[str, ...]
    fields: Mapping[str, str]
    time: Time
    series: int
    each: str = ""
    parallel: tuple[str, ...] = ()
    each_or_message: bool = False
    measurement_also: tuple[str, ...] = ()
    tags_optional: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()
    topic: str = ""
    envelope: bool = False
    delimiter: str = ","
    decimal_comma: bool = False

    def __str__(self) -> str:
        return self.name

    def samples(self) -> list[Sample]:
        """Return the samples of the file in their order."""
        return self.decode(self.samples_file.read_bytes())

    def decode(self, content: bytes) -> list[Sample]:
        """Return the samples of the content of a file like `samples_file`."""
        if self.envelope:
            return [self._of_envelope(json.loads(line)) for line in content.splitlines()]
        return [Sample(payload) for payload in _FILES[self.samples_file.suffix][0](content, self)]

    def halves(self) -> tuple[bytes, bytes] | None:
        """Return the contents of two files, each with half of the samples, or None if there is one message only."""
        pieces, join = _FILES[self.samples_file.suffix][1](self.samples_file.read_bytes())
        middle = (len(pieces) + 1) // 2
        return (join(pieces[:middle]), join(pieces[middle:])) if len(pieces) > 1 else None

    def paths(self) -> set[str]:
        """Return every path of the key."""
        return {
            *self.tags,
            *self.tags_optional,
            *self.ignored,
            *self.fields,
            *({self.measurement, *self.measurement_also, self.time.path, self.time.clock, *self.time.also} - {""}),
        }

    def elements(self, sample: Sample) -> Iterator[Element]:
        """Yield what becomes a point, if it has a field."""
        found = list(_walk(sample.payload, parse_path(self.each)))
        if not found and self.each_or_message:
            yield Element(sample, (), alone=parse_path(self.each))
        for concrete, _ in found:
            yield Element(sample, concrete, parse_path(self.each), self.parallel)

    def is_absent(self, value: JSON) -> bool:
        """Say whether a value is missing: null, a text of `absent`, or a list or map where others have a scalar."""
        return value is None or isinstance(value, dict | list) or (isinstance(value, str) and value in self.absent)

    def series_of(self, samples: list[Sample], tags: tuple[str, ...]) -> int:
        """Return the number of different measurements and sets of `tags` over all points."""
        seen = set()
        for element in (element for sample in samples for element in self.elements(sample)):
            if any(not self.is_absent(value) for path in self.fields for _, value in element.values(path)):
                names = [str(value) for _, value in element.values(self.measurement)] if self.measurement else []
                pairs = [
                    (path, concrete[-1] if "*" in path else "", str(value))
                    for path in tags
                    for concrete, value in element.values(path)
                    if not self.is_absent(value) and value != ""
                ]
                seen.add((*names, *pairs))
        return len(seen)

    def _of_envelope(self, envelope: dict[str, JSON]) -> Sample:
        headers = envelope.get("headers") or {}
        assert isinstance(headers, dict)
        if "payload" in envelope:
            return Sample(envelope["payload"], headers)
        payload = envelope["payload_base64"]
        assert isinstance(payload, str)
        return Sample(_BINARY[self.format](b64decode(payload)), headers)


@dataclass(frozen=True, slots=True)
class Element:
    """One element of `each`: the steps to it, and through it the steps to whatever belongs to it."""

    sample: Sample
    steps: tuple[Step, ...]
    pattern: tuple[Step, ...] = ()
    parallel: tuple[str, ...] = ()
    alone: tuple[Step, ...] = ()

    def values(self, path: str) -> list[tuple[tuple[Step, ...], JSON]]:
        """Return where `path` leads from here, with the values."""
        if header := _HEADER.fullmatch(path):
            name = header[1]
            return [((name,), self.sample.headers[name])] if name in self.sample.headers else []
        steps = parse_path(path)
        if self.alone and steps[: len(self.alone)] == self.alone:
            steps = steps[len(self.alone) :]
        return list(_walk(self.sample.payload, self._bound(steps, is_parallel=path in self.parallel)))

    def _bound(self, steps: tuple[Step, ...], *, is_parallel: bool) -> tuple[Step, ...]:
        """Return `steps` with the positions and members of this element in place of `[]` and `*`."""
        common = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(steps, self.pattern, strict=False)))
        bound = (*self.steps[:common], *steps[common:])
        return (*bound[:-1], self.steps[-1]) if is_parallel else bound


@cache
def parse_path(text: str) -> tuple[Step, ...]:
    """Return the steps of a path.  Raise ValueError if it is none."""
    steps: list[Step] = []
    place = 0
    while place < len(text):
        found = _STEP.match(text, place)
        if found is None:
            raise ValueError(f"not a path: {text!r}, at {place}")
        place = found.end()
        if found["quoted"] is not None:
            steps.append(json.loads(f'"{found["quoted"]}"', strict=False))
        elif found["by"]:
            steps.append((found["by"], found["text"]))
        elif found["position"] is not None:
            steps.append(int(found["position"]) if found["position"] else EACH)
        else:
            steps.append(found["name"] or found["star"] or KEY)
    return tuple(steps)


def write_path(steps: tuple[Step, ...]) -> str:
    """Return the text of a path."""
    text = ""
    for step in steps:
        if isinstance(step, tuple):
            text += f"[?{step[0]} == '{step[1]}']"
        elif isinstance(step, int):
            text += f"[{step}]"
        elif step in (EACH, KEY):
            text += step
        elif step == STAR or re.fullmatch(r"[A-Za-z_]\w*", step):
            text += f".{step}" if text else step
        else:
            quoted = json.dumps(step, ensure_ascii=False)
            text += f".{quoted}" if text else quoted
    return text


def covers(path: str, steps: tuple[Step, ...], payload: JSON, *, below: bool = False) -> bool:
    """Say whether the pattern `path` leads to the place `steps` of `payload`; `below`: or `x.*` to what is below."""
    pattern = parse_path(path)
    if below and pattern and pattern[-1] == STAR and len(steps) >= len(pattern):
        steps = steps[: len(pattern)]
    if len(pattern) != len(steps):
        return False
    value = payload
    for wanted, step in zip(pattern, steps, strict=True):
        parent = value
        value = _at(parent, step)
        if wanted == EACH or isinstance(wanted, tuple):
            if not isinstance(step, int):
                return False
            if isinstance(wanted, tuple) and not (isinstance(value, dict) and value.get(wanted[0]) == wanted[1]):
                return False
        elif wanted == STAR:
            if not isinstance(step, str):
                return False
        elif wanted != step:
            return False
    return True


def leaves(payload: JSON, steps: tuple[Step, ...] = ()) -> Iterator[tuple[tuple[Step, ...], JSON]]:
    """Yield every scalar with the steps to it."""
    if isinstance(payload, dict):
        for name, value in payload.items():
            yield from leaves(value, (*steps, name))
    elif isinstance(payload, list):
        for position, value in enumerate(payload):
            yield from leaves(value, (*steps, position))
    else:
        yield steps, payload


def read_key(path: Path) -> Key:
    """Return the key of a file.  Raise TypeError for names that a key does not have."""
    table = tomllib.loads(path.read_text("utf-8"))
    name = path.name.removesuffix(".key.toml")
    samples = table.pop("samples", None)
    found = [ROOT / samples] if samples else sorted(set(path.parent.glob(f"{name}.*")) - {path})
    if len(found) != 1:
        raise ValueError(f"{path.name}: expected one file of samples, found {len(found)}")
    time = Time(**_with_tuples(table.pop("time")))
    return Key(**_with_tuples(table), name=name, samples_file=found[0], time=time)


def read_keys(folder: Path = FOLDER) -> list[Key]:
    """Return the keys of a folder by name."""
    return [read_key(path) for path in sorted(folder.glob("*.key.toml"))]


def _with_tuples(table: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in table.items()}


def _walk(
    value: JSON, pattern: tuple[Step, ...], steps: tuple[Step, ...] = ()
) -> Iterator[tuple[tuple[Step, ...], JSON]]:
    """Yield the places of `value` to which `pattern` leads; `~key` yields the last name."""
    if not pattern:
        yield steps, value
        return
    first, rest = pattern[0], pattern[1:]
    if first == KEY:
        yield steps, str(steps[-1])
    elif first == STAR:
        for name, member in value.items() if isinstance(value, dict) else ():
            yield from _walk(member, rest, (*steps, name))
    elif first == EACH or isinstance(first, tuple):
        for position, element in enumerate(value) if isinstance(value, list) else ():
            if first == EACH or (isinstance(element, dict) and element.get(first[0]) == first[1]):
                yield from _walk(element, rest, (*steps, position))
    elif (isinstance(first, str) and isinstance(value, dict) and first in value) or (
        isinstance(first, int) and isinstance(value, list) and first < len(value)
    ):
        yield from _walk(_at(value, first), rest, (*steps, first))


def _at(value: JSON, step: Step) -> JSON:
    if isinstance(value, dict) and isinstance(step, str):
        return value[step]
    if isinstance(value, list) and isinstance(step, int):
        return value[step]
    raise LookupError(step)


# --- files ---

_BINARY: dict[str, Callable[[bytes], JSON]] = {"msgpack": msgspec.msgpack.decode, "cbor": cbor2.loads}
_PAIR = re.compile(r'([^\s=]+)=(?:"((?:[^"\\]|\\.)*)"|(\S*))')

Pieces: TypeAlias = tuple[list[object], Callable[[list[object]], bytes]]


def _read_json(content: bytes, _: Key) -> Iterator[JSON]:
    """Yield the documents of a text, one after another."""
    text = content.decode()
    for start, end in pairwise(_ends_of_documents(text)):
        yield json.loads(text[start:end])


def _ends_of_documents(text: str) -> list[int]:
    decoder = json.JSONDecoder()
    ends = [0]
    while text[ends[-1] :].strip():
        blanks = len(text[ends[-1] :]) - len(text[ends[-1] :].lstrip())
        ends.append(decoder.raw_decode(text, ends[-1] + blanks)[1])
    return ends


def _read_table(content: bytes, key: Key) -> Iterator[JSON]:
    yield [dict(row) for row in csv.DictReader(io.StringIO(content.decode()), delimiter=key.delimiter)]


def _read_pairs(content: bytes, _: Key) -> Iterator[JSON]:
    for line in content.decode().splitlines():
        yield {name: quoted or bare for name, quoted, bare in _PAIR.findall(line)}


def _read_line_protocol(content: bytes, _: Key) -> Iterator[JSON]:
    for line in content.splitlines():
        yield FORMATS["influx"].decode(line, {}, None, False)


def _read_binary(content: bytes, key: Key) -> Iterator[JSON]:
    yield _BINARY[key.format](content)


def _lines(content: bytes) -> Pieces:
    return [*content.splitlines(keepends=True)], lambda pieces: b"".join(map(bytes, pieces))  # type: ignore[arg-type]


def _rows(content: bytes) -> Pieces:
    header, *rows = content.splitlines(keepends=True)
    return [*rows], lambda pieces: header + b"".join(map(bytes, pieces))  # type: ignore[arg-type]


def _documents(content: bytes) -> Pieces:
    text = content.decode()
    documents = [text[start:end].strip() for start, end in pairwise(_ends_of_documents(text))]
    if len(documents) == 1 and isinstance(elements := json.loads(documents[0]), list):
        return elements, lambda pieces: json.dumps(pieces, ensure_ascii=False).encode()
    return [*documents], lambda pieces: "\n".join(map(str, pieces)).encode()


def _msgpack_elements(content: bytes) -> Pieces:
    return msgspec.msgpack.decode(content, type=list), msgspec.msgpack.encode


def _cbor_elements(content: bytes) -> Pieces:
    return cbor2.loads(content), cbor2.dumps


_FILES: dict[str, tuple[Callable[[bytes, Key], Iterator[JSON]], Callable[[bytes], Pieces]]] = {
    ".ndjson": (_read_json, _lines),
    ".json": (_read_json, _documents),
    ".csv": (_read_table, _rows),
    ".txt": (_read_pairs, _lines),
    ".lp": (_read_line_protocol, _lines),
    ".msgpack": (_read_binary, _msgpack_elements),
    ".cbor": (_read_binary, _cbor_elements),
}
