"""The answer keys of tests/inference agree with their samples."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime

import pytest

from iggyflux.records import JSON
from tests.inference import (
    EACH,
    FOLDER,
    HELD_OUT,
    ROOT,
    STAR,
    TYPES,
    Key,
    Sample,
    Step,
    covers,
    leaves,
    parse_path,
    read_keys,
    write_path,
)

KEYS = read_keys()
each_key = pytest.mark.parametrize("key", [*KEYS, *read_keys(HELD_OUT)], ids=str)

_UNITS = {"unix_s": 1, "unix_ms": 1_000, "unix_us": 1_000_000, "unix_ns": 1_000_000_000}


NEED_A_SCHEMA = ("otlp-metrics", "sparkplug-b")
"""What says nothing of itself: `infer` needs `--payload`."""


def test_there_is_a_key_for_each_ready_mapping_and_for_other_products() -> None:
    ready = {key.samples_file for key in KEYS} - set(FOLDER.iterdir())

    samples = {path for path in (ROOT / "mappings" / "samples").iterdir() if path.stem not in NEED_A_SCHEMA}
    assert ready == samples
    assert len(KEYS) - len(ready) >= 22


@each_key
def test_every_path_of_a_key_exists(key: Key) -> None:
    found = {
        path
        for sample in key.samples()
        for element in key.elements(sample)
        for path in key.paths()
        if element.values(path)
    }

    assert {path for path in key.paths() if path not in found and not _is_below(path, key)} == set()


def _is_below(path: str, key: Key) -> bool:
    """Say whether a path belongs to no element: it is ignored, and exists."""
    return path in key.ignored and any(
        covers(path, steps, sample.payload, below=True)
        for sample in key.samples()
        for steps, _ in leaves(sample.payload)
    )


@each_key
def test_a_key_decides_every_scalar_of_its_samples(key: Key) -> None:
    undecided = {
        write_path(tuple(EACH if isinstance(step, int) else step for step in steps))
        for sample in key.samples()
        for steps, value in leaves(sample.payload)
        if not key.is_absent(value) and not _deciding(key, steps, sample)
    }

    assert undecided == set()


def _deciding(key: Key, steps: tuple[Step, ...], sample: Sample) -> dict[str, bool]:
    """Return the paths, as they are in this sample, that lead to a scalar; and whether to no other below it."""
    is_alone = any(element.alone for element in key.elements(sample))
    found = {}
    for path in key.paths():
        if path.startswith("header(") or path.endswith("~key"):
            continue
        here = path.removeprefix(f"{key.each}.") if is_alone else path
        below = path in key.ignored or path in key.tags_optional
        if covers(here, steps, sample.payload, below=below):
            found[here] = len(parse_path(here)) == len(steps)
    return found


@each_key
def test_no_path_has_two_roles(key: Key) -> None:
    roles = [
        *key.tags,
        *key.tags_optional,
        *key.ignored,
        *key.fields,
        *({key.measurement, key.time.path, key.time.clock} - {""}),
    ]

    assert sorted(roles) == sorted(set(roles))


@each_key
def test_the_number_of_series_is_the_one_of_the_samples(key: Key) -> None:
    assert key.series_of(key.samples(), key.tags) == key.series


@each_key
def test_optional_tags_add_few_series(key: Key) -> None:
    assert key.series_of(key.samples(), (*key.tags, *key.tags_optional)) <= max(1.2 * key.series, key.series + 2)


@each_key
def test_every_value_fits_the_type_of_its_field(key: Key) -> None:
    assert set(key.fields.values()) <= TYPES
    wrong = [
        (path, value)
        for sample in key.samples()
        for element in key.elements(sample)
        for path, kind in key.fields.items()
        for _, value in element.values(path)
        if not key.is_absent(value) and not _fits(value, kind, key)
    ]

    assert wrong == []


def _fits(value: JSON, kind: str, key: Key) -> bool:
    if kind == "mixed":
        return True
    if kind == "string":
        return isinstance(value, str)
    if kind == "boolean":
        return isinstance(value, bool) or value in ("true", "false")
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return False
    number = str(value).replace(",", ".") if key.decimal_comma else str(value)
    return (
        re.fullmatch(r"[-+]?\d+" if kind == "integer" else r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", number) is not None
    )


@each_key
def test_every_time_is_of_the_format_and_of_these_years(key: Key) -> None:
    if not key.time.path:
        assert key.time.format == "message"
        return
    kinds = set()
    for sample in key.samples():
        for element in key.elements(sample):
            times = [value for _, value in element.values(key.time.path) if not key.is_absent(value)]
            assert len(times) <= 1
            if key.time.clock:
                [(_, clock)] = element.values(key.time.clock)
                times = [f"{day} {clock}" for day in times]
            for value in times:
                kinds.add(isinstance(value, str))
                assert _is_time(value, key.time.format), value
    assert len(kinds) == 1 or key.time.format == "ask"


def _is_time(value: JSON, form: str) -> bool:
    if form in _UNITS:
        return 1_700_000_000 < float(str(value)) / _UNITS[form] < 1_800_000_000
    if form == "ask":
        day, month = (int(part) for part in re.findall(r"\d+", f"{value} 0")[:2])
        return isinstance(value, int) or (day <= 12 and month <= 12) or re.match(r"\d{4}-", str(value)) is not None
    text = str(value)
    if form == "rfc3339":
        assert re.search(r"(Z|[+-]\d\d:\d\d)$", text)
    read = datetime.fromisoformat(text) if form in ("rfc3339", "flexible") else datetime.strptime(text, form)  # noqa: DTZ007
    return 2024 <= read.year <= 2027


@each_key
def test_what_only_the_second_half_has_is_named(key: Key) -> None:
    halves = key.halves()
    if halves is None:
        assert key.unseen == ()
        return
    first, second = (_kinds(key, key.decode(half)) for half in halves)

    assert {path for path, kinds in second.items() if kinds - first.get(path, set())} == set(key.unseen)


def _kinds(key: Key, samples: list[Sample]) -> Mapping[str, set[str]]:
    """Return the kinds of values by path, members of maps and elements of lists together."""
    kinds: dict[str, set[str]] = defaultdict(set)
    for sample in samples:
        for steps, value in leaves(sample.payload):
            if not key.is_absent(value):
                kinds[_normalised(key, steps, sample)].add(_kind(value, key))
    return kinds


def _normalised(key: Key, steps: tuple[Step, ...], sample: Sample) -> str:
    exact = [path for path, is_exact in _deciding(key, steps, sample).items() if is_exact]
    if exact:
        return min(exact, key=lambda path: parse_path(path).count(STAR))
    return write_path(tuple(EACH if isinstance(step, int) else step for step in steps))


def _kind(value: JSON, key: Key) -> str:
    if not isinstance(value, str):
        return type(value).__name__
    if _fits(value, "integer", key):
        return "text of an integer"
    return "text of a number" if _fits(value, "float", key) else "text"
