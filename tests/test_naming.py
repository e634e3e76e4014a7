"""Which lines a server's message means: quotations, numbers, types, ages and lengths, with any lines beside them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iggyflux.delivery.naming import NamedLines, find_conflicts, lines_named, lines_numbered, suspects_of
from iggyflux.delivery.verdicts import SchemaConflict

LINES = st.lists(st.sampled_from(["", "  ", "#", "# class", "\nif", "if f=1 1", '"#" f=1 2', "$ f=1 3", "ü f=1 4"]))
NAMED = st.integers(0, 12).map(lambda number: f'if,from=b{number} s="lambda",f=x{number} {number}')
WHY = "invalid number"
BAD_TIME = "bad timestamp"


# --- by number ---


@given(LINES, st.lists(st.one_of(st.integers(-1, 12), st.just(True), st.just("1"), st.none()), max_size=3))
def test_numbers_count_the_lines_that_a_server_counts(lines: list[str], numbers: list[object]) -> None:
    counted = [index for index, line in enumerate(lines) if line.lstrip(" ")[:1] not in ("", "#", "\n")]
    entries = [{"line_number": number, "error_message": WHY} for number in numbers]
    valid = all(type(number) is int and 1 <= number <= len(counted) for number in numbers)

    found = lines_numbered(entries, lines)

    assert found == ({counted[number - 1]: WHY for number in numbers} if valid else {})  # type: ignore[operator]


@pytest.mark.parametrize("entry", [None, "1", ["line_number"], {}], ids=repr)
def test_an_entry_without_a_number_names_no_line(entry: object) -> None:
    assert lines_numbered([{"line_number": 1}, entry], ["if f=1 1"]) == {}


def test_an_entry_without_words_refuses_its_line() -> None:
    assert lines_numbered([{"line_number": 2, "error_message": ""}], ["if f=1 1", "if f=x 2"]) == {1: "refused"}


@given(st.lists(NAMED, min_size=1, max_size=6), st.lists(st.integers(0, 7), max_size=3))
def test_numbers_in_words_name_lines_where_each_is_counted(lines: list[str], numbers: list[int]) -> None:
    message = "failed: " + "\n".join(f"error parsing line {number} (1-based): {WHY}" for number in numbers)
    valid = numbers and all(1 <= number <= len(lines) for number in numbers)

    found = lines_named(message, lines)

    assert found == (NamedLines({number - 1: WHY for number in numbers}, all_exact=False) if valid else None)
    for uncounted in ("", "# class", 'if s="a\nb" 1'):
        assert lines_named(message, [*lines, uncounted]) is None


def test_a_number_in_words_without_a_reason_refuses_its_line() -> None:
    found = lines_named("error parsing line 1 (1-based): ", ["if f=x 1"])

    assert found == NamedLines({0: "refused"}, all_exact=False)


# --- by quotation ---


@given(st.lists(NAMED, min_size=1, max_size=8), st.lists(st.integers(0, 7), min_size=1, max_size=4), st.booleans())
def test_each_quoted_line_has_the_words_after_it(lines: list[str], chosen: list[int], is_counted: bool) -> None:
    """Equal lines are refused together; the number of dropped points belongs to no line."""
    whys = {lines[number % len(lines)]: f"{WHY} {number}" for number in chosen}
    trailer = " dropped=0" if is_counted else ""
    message = "partial write: " + "\n".join(f"unable to parse '{line}': {why}" for line, why in whys.items()) + trailer

    found = lines_named(message, lines)

    assert found == NamedLines({index: whys[line] for index, line in enumerate(lines) if line in whys}, all_exact=True)


@given(st.lists(st.text("a':\" \n", min_size=1, max_size=6), min_size=1, max_size=6), st.data())
def test_a_quotation_names_its_line_or_none_whatever_the_lines_hold(lines: list[str], data: st.DataObject) -> None:
    line = data.draw(st.sampled_from(lines))

    found = lines_named(f"unable to parse '{line}': {WHY}", lines)

    assert found is None or {lines[index] for index in found.reasons} == {line}


@pytest.mark.parametrize(
    "message",
    [
        "unable to parse 'if f=2 2': no",
        "unable to parse '",
        "unable to parse 'if f=1",
        "unable to parse 'if f=1 12",
        "unable to parse 'if f=\"\n1",
    ],
)
def test_a_quotation_of_what_was_not_sent_names_no_line(message: str) -> None:
    assert lines_named(message, ["if f=1 1"]) is None
    assert lines_named(message, []) is None


def test_a_quotation_that_may_be_two_lines_names_none() -> None:
    assert lines_named("unable to parse 'if f=1 1': 2': no", ["if f=1 1", "if f=1 1': 2"]) is None


@pytest.mark.parametrize("ends", [190_000, 200_001])
def test_the_search_for_the_end_of_a_quotation_is_bounded(ends: int) -> None:
    """A message may hold as many ends of quotations as its sender likes."""
    line = 'yield class="' + "': " * ends + '"'
    found = lines_named(f"unable to parse '{line}': bad", [line])

    assert found == (NamedLines({0: "bad"}, all_exact=True) if ends < 200_000 else None)


def test_a_string_that_does_not_end_and_a_line_after_it_are_both_named() -> None:
    lines = ['if s="x 1', "if f=1 2", "if f=y 3"]
    message = f"unable to parse '{lines[0]}\n{lines[1]}': unbalanced quotes\nunable to parse '{lines[2]}': {WHY}"

    found = lines_named(message, lines)

    assert found == NamedLines({0: "a string that does not end", 2: WHY}, all_exact=False)


# --- conflicts ---

CONFLICT = 'input field "{}" on measurement "{}" is type {}, already exists as type {}'
COLUMN = "invalid column type for column '{}', expected iox::column_type::field::{}, got iox::column_type::field::{}"


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (CONFLICT.format("f", "if", "string", "float"), [SchemaConflict("if", "f", "string", "float")]),
        (COLUMN.format("f", "bool", "uinteger"), [SchemaConflict("a b,c", "f", "unsigned", "boolean")]),
        (
            "invalid column type for column 'time', expected iox::column_type::timestamp, got Integer",
            [SchemaConflict("a b,c", "time", "integer", "the time")],
        ),
        ((CONFLICT.format("f", "if", "string", "float") + " ") * 2, [SchemaConflict("if", "f", "string", "float")]),
        ("x" * 8300 + CONFLICT.format("f", "if", "string", "float"), []),
        ("nothing", []),
    ],
)
def test_conflicts_are_read_in_the_words_of_each_server(message: str, expected: list[SchemaConflict]) -> None:
    assert find_conflicts(message, line="a\\ b\\,c,from=x f=1 1") == tuple(expected)


def test_where_the_line_is_not_known_the_measurement_is_empty() -> None:
    assert find_conflicts(COLUMN.format("f", "bool", "float")) == (SchemaConflict("", "f", "float", "boolean"),)


# --- suspects ---

OF_TYPE = {"string": '"x"', "integer": "-7i", "unsigned": "7u", "float": "-7.5e+3", "boolean": "true"}


@pytest.mark.parametrize("sent", OF_TYPE)
@pytest.mark.parametrize("form", ["if,from=x f={} {}", "if f={} {}", "if g=1i,f={},h=t {}"])
def test_lines_with_the_type_that_was_sent_are_suspects_by_their_time(sent: str, form: str) -> None:
    """Neither are those of other fields, measurements or types."""
    message = CONFLICT.format("f", "if", sent, "other")
    lines = [form.format(value, 50 - number) for number, value in enumerate(OF_TYPE.values())]
    others = [f"iff f={OF_TYPE[sent]} 1", f"if ff={OF_TYPE[sent]} 2", f"else,if=f f={OF_TYPE[sent]} 3"]
    again = form.format(OF_TYPE[sent], -5)
    own = list(OF_TYPE).index(sent)

    assert suspects_of(message, [*lines, *others, again], 1) == (len(lines) + len(others), own)
    assert suspects_of(message, others, 1) == ()


def test_names_are_compared_as_they_are_written_in_lines() -> None:
    message = CONFLICT.format("a, b=c", "my if,x", "float", "string")

    assert suspects_of(message, ["my\\ if\\,x a\\,\\ b\\=c=1 1", "my\\ if\\,x a=1 1"], 1) == (0,)


def test_a_type_that_is_not_known_makes_no_line_suspect() -> None:
    assert suspects_of(CONFLICT.format("f", "if", "decimal", "float"), ["if f=1 1"], 1) == ()


@given(st.lists(st.one_of(st.integers(-(10**18), 10**18), st.just("x")), max_size=8), st.integers(0, 9))
def test_as_many_of_the_oldest_lines_as_were_dropped_are_suspects(times: list[int | str], dropped: int) -> None:
    """A line without a time is of the time 0."""
    lines = [f"if f=1 {time}" for time in times]
    expected = sorted(range(len(times)), key=lambda index: time if isinstance(time := times[index], int) else 0)

    assert suspects_of("points beyond retention policy", lines, dropped) == tuple(expected[: max(dropped, 1)])


@pytest.mark.parametrize("message", ["the key is too long, 9 > {}", "max key length exceeded: 9 > {}"])
@given(sizes=st.lists(st.integers(1, 12), max_size=6), limit=st.integers(1, 12))
def test_lines_that_are_longer_than_the_limit_are_suspects(message: str, sizes: Sequence[int], limit: int) -> None:
    expected = tuple(index for index, size in enumerate(sizes) if 2 * size > limit)

    assert suspects_of(message.format(limit), ["ü" * size for size in sizes], 1) == expected


def test_other_words_make_no_line_suspect() -> None:
    assert suspects_of("nothing of that kind", ["if f=1 1"], 1) == ()
