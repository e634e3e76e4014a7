"""Line protocol: one table drives encoder and parser; properties cover what no table can."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from iggyflux.codes import CODES
from iggyflux.errors import LineProtocolError, PointError
from iggyflux.lineprotocol import (
    MAX_NS,
    MIN_NS,
    Dialect,
    LinePart,
    Point,
    Precision,
    Unsigned,
    check_part,
    parse_line,
    parse_lines,
    replace_invalid,
    shorten,
    split_lines,
)

DIALECTS = ("v1", "v2", "v3")

# name: (point, line in v1 and v2, line in v3 where it differs)
LINES: dict[str, tuple[Point, str, str | None]] = {
    "bare": (Point("m", {}, {"f": 1.0}), "m f=1.0", None),
    "time": (Point("m", {}, {"f": 1.0}, 17), "m f=1.0 17", None),
    "negative-time": (Point("m", {}, {"f": 1.0}, -1), "m f=1.0 -1", None),
    "first-time": (Point("m", {}, {"f": 1.0}, MIN_NS), "m f=1.0 -9223372036854775806", None),
    "last-time": (Point("m", {}, {"f": 1.0}, MAX_NS), "m f=1.0 9223372036854775806", None),
    "sorted": (Point("m", {"b": "2", "a": "1"}, {"d": 4.0, "c": 3.0}), "m,a=1,b=2 c=3.0,d=4.0", None),
    "sorted-by-bytes": (Point("m", {"é": "1", "z": "2", "Z": "3"}, {"f": 1.0}), "m,Z=3,z=2,é=1 f=1.0", None),
    "escaped-measurement": (Point("a,b c", {}, {"f": 1.0}), "a\\,b\\ c f=1.0", None),
    "escaped-tag": (Point("m", {"a,b=c d": "e,f=g h"}, {"f": 1.0}), "m,a\\,b\\=c\\ d=e\\,f\\=g\\ h f=1.0", None),
    "escaped-field-key": (Point("m", {}, {"a,b=c d": 1.0}), "m a\\,b\\=c\\ d=1.0", None),
    "quotes-in-names": (Point('"m"', {'"t"': '"v"'}, {'"f"': 1.0}), '"m","t"="v" "f"=1.0', None),
    "backslash-in-tag": (Point("m", {"t": "C:\\a"}, {"f": 1.0}), "m,t=C:\\a f=1.0", "m,t=C:\\\\a f=1.0"),
    "backslash-before-comma": (Point("m", {"t": "a\\,b"}, {"f": 1.0}), "m,t=a\\\\,b f=1.0", "m,t=a\\\\\\,b f=1.0"),
    "two-backslashes": (Point("m", {"a\\\\b": "x"}, {"f": 1.0}), "m,a\\\\b=x f=1.0", "m,a\\\\\\\\b=x f=1.0"),
    "trailing-space": (Point("m ", {"t ": "v "}, {"f ": 1.0}), "m\\ ,t\\ =v\\  f\\ =1.0", None),
    "string": (Point("m", {}, {"f": 'a "b" \\c'}), 'm f="a \\"b\\" \\\\c"', None),
    "string-of-text-escapes": (Point("m", {}, {"f": "a\\nb"}), 'm f="a\\\\nb"', None),
    "string-line-feeds": (Point("m", {}, {"f": "\n\r\n\t\0"}), 'm f="\n\r\n\t\0"', None),
    "empty-string": (Point("m", {}, {"f": ""}), 'm f=""', None),
    "string-of-commas": (Point("m", {}, {"f": "a,b=c d", "g": True}), 'm f="a,b=c d",g=true', None),
    "booleans": (Point("m", {}, {"f": False, "t": True}), "m f=false,t=true", None),
    "int64-edges": (Point("m", {}, {"a": -(2**63), "b": 2**63 - 1}), f"m a={-(2**63)}i,b={2**63 - 1}i", None),
    "negative-zero": (Point("m", {}, {"f": -0.0}), "m f=-0.0", None),
    "exponents": (Point("m", {}, {"a": 1e16, "b": 1e-07, "c": 5e-324}), "m a=1e+16,b=1e-07,c=5e-324", None),
    "shortest": (Point("m", {}, {"a": 0.1, "b": 1.7976931348623157e308}), "m a=0.1,b=1.7976931348623157e+308", None),
    "unicode": (Point("Größe", {"日": "本"}, {"🙂": "🙂"}), 'Größe,日=本 🙂="🙂"', None),
    "bom-is-a-character": (Point("\ufeffm", {}, {"f": 1.0}), "\ufeffm f=1.0", None),
    "time-as-measurement": (Point("time", {"times": "x"}, {"_field": 1.0}), "time,times=x _field=1.0", None),
    "number-sign-inside": (Point("a#b", {"#t": "#v"}, {"#f": 1.0}), "a#b,#t=#v #f=1.0", None),
}


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("name", LINES)
def test_a_point_is_written_and_read_back(name: str, dialect: str) -> None:
    point, plain, doubled = LINES[name]
    line = doubled if dialect == "v3" and doubled is not None else plain

    assert point.encode(dialect) == line
    assert parse_lines(line, dialect) == [point]
    assert parse_lines(f"\n # a comment\n{line}\n{line}", dialect) == [point, point]


def test_unsigned_is_written_if_the_dialect_has_it() -> None:
    point = Point("m", {}, {"u": Unsigned(2**64 - 1), "z": Unsigned(0)})

    assert point.encode("v2") == point.encode("v3") == "m u=18446744073709551615u,z=0u"
    assert parse_lines(point.encode("v3"), "v3") == [point]
    with pytest.raises(PointError, match="dialect v1 has no unsigned integers") as refused:
        point.encode("v1")
    assert refused.value.code == "IFX323"
    with pytest.raises(LineProtocolError, match="dialect v1 has no unsigned integers"):
        parse_lines("m u=1u", "v1")


@pytest.mark.parametrize(
    ("precision", "ns", "written"),
    [
        ("ns", -1, "-1"),
        ("us", 1_999, "1"),
        ("us", -1, "-1"),
        ("ms", -1_000_001, "-2"),
        ("ms", 1_999_999, "1"),
        ("s", -1, "-1"),
        ("s", 1_999_999_999, "1"),
        ("s", -2_000_000_000, "-2"),
    ],
)
def test_a_time_is_rounded_down_to_the_precision_also_below_zero(precision: str, ns: int, written: str) -> None:
    """Rule 18."""
    assert Point("m", {}, {"f": 1.0}, ns).encode("v2", precision) == f"m f=1.0 {written}"


@pytest.mark.parametrize("precision", ["us", "ms", "s"])
def test_a_time_that_is_out_of_range_after_rounding_is_rejected(precision: str) -> None:
    with pytest.raises(PointError, match="is below") as refused:
        Point("m", {}, {"f": 1.0}, MIN_NS).encode("v2", precision)

    assert refused.value.code == "IFX322"


REFUSED_POINTS: dict[str, tuple[tuple[Any, Any, Any, Any], str]] = {
    "empty-measurement": (("", {}, {"f": 1.0}, 0), "IFX310"),
    "empty-tag-key": (("m", {"": "x"}, {"f": 1.0}, 0), "IFX310"),
    "empty-tag-value": (("m", {"t": ""}, {"f": 1.0}, 0), "IFX310"),
    "empty-field-key": (("m", {}, {"": 1.0}, 0), "IFX310"),
    "line-feed-in-measurement": (("a\nb", {}, {"f": 1.0}, 0), "IFX311"),
    "line-feed-in-tag": (("m", {"t": "a\nb"}, {"f": 1.0}, 0), "IFX311"),
    "tab-in-tag-key": (("m", {"a\tb": "x"}, {"f": 1.0}, 0), "IFX311"),
    "nul-in-field-key": (("m", {}, {"a\0": 1.0}, 0), "IFX311"),
    "del-in-tag": (("m", {"t": "\x7f"}, {"f": 1.0}, 0), "IFX311"),
    "c1-in-field-key": (("m", {}, {"a\x85": 1.0}, 0), "IFX311"),
    "backslash-in-measurement": (("a\\b", {}, {"f": 1.0}, 0), "IFX312"),
    "backslash-in-field-key": (("m", {}, {"a\\b": 1.0}, 0), "IFX312"),
    "trailing-backslash-in-tag-key": (("m", {"a\\": "x"}, {"f": 1.0}, 0), "IFX312"),
    "trailing-backslash-in-tag": (("m", {"t": "C:\\"}, {"f": 1.0}, 0), "IFX312"),
    "equals-in-measurement": (("a=b", {}, {"f": 1.0}, 0), "IFX313"),
    "comment": (("#m", {}, {"f": 1.0}, 0), "IFX313"),
    "time-as-tag": (("m", {"time": "x"}, {"f": 1.0}, 0), "IFX314"),
    "time-as-field": (("m", {}, {"time": 1.0}, 0), "IFX314"),
    "lone-surrogate-in-measurement": (("\ud800", {}, {"f": 1.0}, 0), "IFX315"),
    "lone-surrogate-in-tag": (("m", {"t": "\udfff"}, {"f": 1.0}, 0), "IFX315"),
    "lone-surrogate-in-string": (("m", {}, {"f": "a\ud83d"}, 0), "IFX315"),
    "long-tag": (("m", {"t": "x" * 65536}, {"f": 1.0}, 0), "IFX316"),
    "long-string": (("m", {}, {"f": "é" * 32768}, 0), "IFX316"),
    "long-field-key": (("m", {}, {"x" * 65536: 1.0}, 0), "IFX316"),
    "long-key-in-all": (("m", {"a": "x" * 40000, "b": "x" * 25520}, {"fffffff": 1.0}, 0), "IFX316"),
    "tag-and-field": (("m", {"a": "x"}, {"a": 1.0}, 0), "IFX317"),
    "no-field": (("m", {"a": "x"}, {}, 0), "IFX319"),
    "nan": (("m", {}, {"f": float("nan")}, 0), "IFX320"),
    "infinity": (("m", {}, {"f": float("-inf")}, 0), "IFX320"),
    "over-int64": (("m", {}, {"f": 2**63}, 0), "IFX321"),
    "under-int64": (("m", {}, {"f": -(2**63) - 1}, 0), "IFX321"),
    "over-uint64": (("m", {}, {"f": Unsigned(2**64)}, 0), "IFX321"),
    "negative-unsigned": (("m", {}, {"f": Unsigned(-1)}, 0), "IFX321"),
    "huge-integer": (("m", {}, {"f": 10**5000}, 0), "IFX321"),
    "early-time": (("m", {}, {"f": 1.0}, MIN_NS - 1), "IFX322"),
    "late-time": (("m", {}, {"f": 1.0}, MAX_NS + 1), "IFX322"),
    "null-field": (("m", {}, {"f": None}, 0), "IFX324"),
    "list-field": (("m", {}, {"f": [1]}, 0), "IFX324"),
    "number-as-tag": (("m", {"t": 1}, {"f": 1.0}, 0), "IFX324"),
    "float-time": (("m", {}, {"f": 1.0}, 1.0), "IFX324"),
    "boolean-time": (("m", {}, {"f": 1.0}, True), "IFX324"),
} | {
    f"reserved-{name}": (("m", {name: "x"}, {"f": 1.0}, 0), "IFX314")
    for name in ("_field", "_measurement", "_time", "_value", "_start", "_stop", "table", "result")
}


@pytest.mark.parametrize("name", REFUSED_POINTS)
def test_a_value_that_a_server_loses_or_changes_is_rejected(name: str) -> None:
    """Rule 19."""
    arguments, code = REFUSED_POINTS[name]

    with pytest.raises(PointError) as refused:
        Point(*arguments)

    assert refused.value.code == code
    assert code in CODES
    assert len(refused.value.reason) < 300
    refused.value.reason.encode()


def test_the_longest_names_are_accepted() -> None:
    point = Point("m" * 20000, {"t" * 20000: "v" * 20000}, {"f" * 5529: "x" * 65535})

    assert parse_lines(point.encode()) == [point]
    with pytest.raises(PointError, match="65536 bytes together"):
        Point("m" * 20000, {"t" * 20000: "v" * 20000}, {"f" * 5530: 1.0})
    with pytest.raises(PointError, match="together"):
        Point("m" * 20000, {"t" * 20000: "," * 15000}, {"f": 1.0})


@pytest.mark.parametrize(
    ("part", "text", "replaced"),
    [
        (LinePart.MEASUREMENT, "#a=b\\c\n", "_a_b_c_"),
        (LinePart.MEASUREMENT, "a#b", "a#b"),
        (LinePart.TAG_KEY, "time", "time_"),
        (LinePart.TAG_KEY, "_field", "_field_"),
        (LinePart.TAG_KEY, "a\\b\\\\", "a\\b\\_"),
        (LinePart.TAG_VALUE, "C:\\", "C:_"),
        (LinePart.TAG_VALUE, "time", "time"),
        (LinePart.TAG_VALUE, "a\r\n\ud800", "a___"),
        (LinePart.FIELD_KEY, "time", "time_"),
        (LinePart.FIELD_KEY, "a\\b\0", "a_b_"),
        (LinePart.FIELD_KEY, "_field", "_field"),
        (LinePart.FIELD_KEY, "", ""),
    ],
)
def test_invalid_names_are_replaced_by_underscores(part: LinePart, text: str, replaced: str) -> None:
    """Rule 19."""
    assert replace_invalid(text, part) == replaced


@given(st.text(min_size=1, max_size=20), st.sampled_from(LinePart))
def test_a_replaced_name_is_valid(text: str, part: LinePart) -> None:
    replaced = replace_invalid(text, part)

    assert check_part(replaced, part) == replaced
    assert replace_invalid(replaced, part) == replaced


def test_equality_distinguishes_types_and_the_sign_of_zero() -> None:
    """Rule 33."""
    values: list[Any] = [0, 0.0, -0.0, False, Unsigned(0), "0", 1, 1.0, True, Unsigned(1), "1", ""]
    points = [Point("m", {}, {"f": value}) for value in values]

    for index, point in enumerate(points):
        assert [other == point for other in points] == [position == index for position in range(len(points))]
    assert len(set(points)) == len(points)


def test_a_point_is_frozen_ordered_hashable_and_pickles() -> None:
    fields = {"b": 1.0, "a": Unsigned(2)}
    point = Point("m", {"y": "1", "x": "2"}, fields, 5)
    fields["c"] = 3.0

    assert list(point.fields) == ["a", "b"]
    assert list(point.tags) == ["x", "y"]
    assert pickle.loads(pickle.dumps(point)) == point == copy.deepcopy(point)
    assert hash(point) == hash(Point("m", {"x": "2", "y": "1"}, {"a": Unsigned(2), "b": 1.0}, 5))
    assert repr(point) == "Point('m', {'x': '2', 'y': '1'}, {'a': 2u, 'b': 1.0}, 5)"
    assert point != "m"
    with pytest.raises(AttributeError, match="cannot be changed"):
        point.measurement = "n"
    with pytest.raises(AttributeError, match="cannot be changed"):
        del point.measurement
    with pytest.raises(TypeError):
        point.tags["z"] = "1"  # type: ignore[index]


@pytest.mark.parametrize("name", ["V2", "v4", ""])
def test_an_unknown_dialect_or_precision_is_an_error(name: str) -> None:
    with pytest.raises(ValueError, match="Dialect"):
        parse_lines("m f=1", name)
    with pytest.raises(ValueError, match="Precision"):
        parse_lines("m f=1", "v2", name)


# text: (line, column, a part of the reason)
REFUSED_LINES: dict[str, tuple[int, int, str]] = {
    "m": (1, 2, "before the fields"),
    "m ": (1, 3, "field key is empty"),
    "m f": (1, 4, "expected '=' after the field key 'f'"),
    "m f=": (1, 5, "has no value"),
    "m f=1,": (1, 7, "field key is empty"),
    "m f=1, g=2": (1, 7, "field key is empty"),
    "m f=1 x": (1, 7, "as the time, found 'x'"),
    "m f=1 1.0": (1, 7, "as the time"),
    "m f=1 1e3": (1, 7, "as the time"),
    "m f=1 +1": (1, 7, "as the time"),
    "m f=1 1 2": (1, 7, "as the time"),
    "m f=1 ١": (1, 7, "as the time"),
    "m f=1 9223372036854775807": (1, 7, "is outside"),
    "m f=1 -9223372036854775807": (1, 7, "is outside"),
    f"m f=1 {'9' * 5000}": (1, 7, "outside"),
    "m,t f=1": (1, 4, "expected '=' after the tag key 't'"),
    "m,t= f=1": (1, 5, "tag value is empty"),
    "m,=v f=1": (1, 3, "tag key is empty"),
    "m, f=1": (1, 3, "tag key is empty"),
    "m,,t=v f=1": (1, 3, "tag key is empty"),
    "m,t=v, f=1": (1, 7, "tag key is empty"),
    "m,t=a=b f=1": (1, 6, "unescaped '=' in a tag value"),
    "m,t=v,t=w f=1": (1, 7, "duplicate tag 't'"),
    "m,t=v,u=w,t=v f=1": (1, 11, "duplicate tag 't'"),
    "m f=1,f=1": (1, 7, "duplicate field 'f'"),
    "m,a=x a=1": (1, 7, "is a tag and a field"),
    "m,time=x f=1": (1, 3, "reserved"),
    "m,_value=x f=1": (1, 3, "reserved"),
    "m time=1": (1, 3, "reserved"),
    "a=b f=1": (1, 1, "contains '='"),
    "a\\=b f=1": (1, 1, "backslash"),
    "a\\b f=1": (1, 1, "backslash"),
    "\\#m f=1": (1, 1, "backslash"),
    "m a\\b=1": (1, 3, "backslash"),
    'm a\\\\="="': (1, 3, "backslash"),
    "m,t=a\\ f=1": (1, 9, "unescaped '='"),
    "m,t=a\\,f=1": (1, 9, "unescaped '='"),
    'm f="a': (1, 5, "is not closed"),
    'm f="a\\"': (1, 5, "is not closed"),
    'm f="a\nb': (1, 5, "is not closed"),
    'm f="a"b': (1, 8, "after the closing quote, found 'b'"),
    'm f="a"\r': (1, 8, "after the closing quote"),
    'm f="a\nb"c': (2, 3, "after the closing quote"),
    "m f='a'": (1, 5, "expected a number"),
    "m f=a": (1, 5, "expected a number"),
    "m f=tRUE": (1, 5, "expected a number"),
    "m f=NaN": (1, 5, "expected a number"),
    "m f=Inf": (1, 5, "expected a number"),
    "m f=+1": (1, 5, "expected a number"),
    "m f=0x10": (1, 5, "expected a number"),
    "m f=1_0": (1, 5, "expected a number"),
    "m f=1e": (1, 5, "expected a number"),
    "m f=.": (1, 5, "expected a number"),
    "m f=-": (1, 5, "expected a number"),
    "m f=--1": (1, 5, "expected a number"),
    "m f=1.5i": (1, 5, "expected a number"),
    "m f=1e3i": (1, 5, "expected a number"),
    "m f=i": (1, 5, "expected a number"),
    "m f=-1u": (1, 5, "expected a number"),
    "m f=1e400": (1, 5, "larger than the largest float"),
    "m f=9223372036854775808i": (1, 5, "outside int64"),
    f"m f={'9' * 5000}i": (1, 5, "outside"),
    "m f=1\r": (1, 5, "carriage return"),
    "m f=1\r\nm f=1": (1, 5, "carriage return"),
    "m,t=\x00 f=1": (1, 5, "control character U+0000"),
    "m\tf=1": (1, 1, "control character U+0009"),
    "m,t=a\nb f=1": (1, 6, "before the fields"),
    "m,t=\\\nb f=1": (1, 5, "ends with a backslash"),
    "m f=1\nm g=\n": (2, 5, "has no value"),
    "# é\n\n  é,t=é g=x": (3, 13, "expected a number"),
    "m f=\ud800": (1, 5, "expected a number"),
    f"m,t={'x' * 65536} f=1": (1, 5, "65536 bytes"),
    f'm f="{"x" * 65536}"': (1, 5, "65536 bytes"),
    f"m,a={'x' * 40000},b={'x' * 30000} f=1": (1, 1, "together"),
}


@pytest.mark.parametrize("text", REFUSED_LINES, ids=lambda text: ascii(text[:30]))
def test_the_parser_reports_line_and_column_in_bytes(text: str) -> None:
    line, column, reason = REFUSED_LINES[text]

    with pytest.raises(LineProtocolError) as refused:
        parse_lines(text)

    assert (refused.value.line, refused.value.column) == (line, column)
    assert reason in refused.value.reason
    assert len(refused.value.reason) < 300


@pytest.mark.parametrize(
    ("text", "value", "dialects"),
    [
        ("1", 1.0, "v1 v2 v3"),
        ("01", 1.0, "v1 v2 v3"),
        ("-0", -0.0, "v1 v2 v3"),
        ("1.", 1.0, "v1 v2"),
        (".5", 0.5, "v1 v2"),
        ("-.5", -0.5, "v1 v2"),
        ("1.e5", 1e5, "v1 v2"),
        ("1e5", 1e5, "v1 v2 v3"),
        ("1E+5", 1e5, "v1 v2 v3"),
        ("1.5e-07", 1.5e-07, "v1 v2 v3"),
        ("1e-400", 0.0, "v1 v2 v3"),
        ("007i", 7, "v1 v2 v3"),
        ("-0i", 0, "v1 v2 v3"),
        ("-9223372036854775808i", -(2**63), "v1 v2 v3"),
        ("000000000000000000000000000007i", 7, "v1 v2 v3"),
        ("7u", Unsigned(7), "v2 v3"),
        ("18446744073709551615u", Unsigned(2**64 - 1), "v2 v3"),
        *[(text, True, "v1 v2 v3") for text in ("t", "T", "true", "True", "TRUE")],
        *[(text, False, "v1 v2 v3") for text in ("f", "F", "false", "False", "FALSE")],
    ],
)
def test_the_parser_accepts_the_values_that_servers_of_a_dialect_accept(text: str, value: Any, dialects: str) -> None:
    for dialect in DIALECTS:
        if dialect in dialects:
            assert parse_lines(f"m f={text}", dialect) == [Point("m", {}, {"f": value})]
        else:
            with pytest.raises(LineProtocolError):
                parse_lines(f"m f={text}", dialect)


@pytest.mark.parametrize(
    ("text", "v2", "v3"),
    [
        ("m,t=a\\b f=1", "a\\b", "a\\b"),
        ("m,t=a\\\\b f=1", "a\\\\b", "a\\b"),
        ("m,t=a\\\\\\,b f=1", "a\\\\,b", "a\\,b"),
        ("m,t=a\\,b f=1", "a,b", "a,b"),
        ("m,t=a\\nb f=1", "a\\nb", "a\\nb"),
    ],
)
def test_a_backslash_outside_of_strings_depends_on_the_dialect(text: str, v2: str, v3: str) -> None:
    read = {dialect: parse_lines(text, dialect)[0].tags["t"] for dialect in DIALECTS}

    assert read == {"v1": v2, "v2": v2, "v3": v3}


def test_an_escaped_comma_after_a_backslash_ends_the_tag_in_v3_only() -> None:
    """`a\\,b`: 1.x and 2.x consider the preceding byte alone, 3.x pairs the backslashes."""
    assert parse_lines("m,t=a\\\\,b f=1", "v2")[0].tags["t"] == "a\\,b"
    with pytest.raises(LineProtocolError, match="ends with a backslash"):
        parse_lines("m,t=a\\\\,b=c f=1", "v3")


def test_spaces_around_the_sections_are_ignored() -> None:
    assert parse_lines("  m,a=b   f=1   17  ") == [Point("m", {"a": "b"}, {"f": 1.0}, 17)]


@pytest.mark.parametrize("precision", list(Precision))
def test_a_parsed_time_is_scaled_to_nanoseconds(precision: Precision) -> None:
    assert parse_lines("m f=1 -3", "v2", precision)[0].timestamp_ns == -3 * precision.divisor
    with pytest.raises(LineProtocolError, match="outside"):
        parse_lines(f"m f=1 {MAX_NS // precision.divisor + 1}", "v2", precision)


def test_invalid_utf8_affects_only_its_own_line() -> None:
    data = b'm f=1\nm,t=\xff f=2\nm f="\xc3"\nm f=4'

    lines = list(split_lines(data))

    assert [number for number, _ in lines] == [1, 2, 3, 4]
    assert parse_line(lines[3][1]) == Point("m", {}, {"f": 4.0})
    for number, column in ((1, 5), (2, 5)):
        with pytest.raises(LineProtocolError) as refused:
            parse_line(lines[number][1], line=number + 1)
        assert (refused.value.line, refused.value.column) == (number + 1, column)
    with pytest.raises(LineProtocolError) as refused:
        parse_lines(data)
    assert refused.value.line == 2


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("", []),
        ("\n\n", []),
        ("  \n # x\n#\n", []),
        ("a\nb", [(1, "a"), (2, "b")]),
        ('m f="a\nb"\nn f=1', [(1, 'm f="a\nb"'), (3, "n f=1")]),
        ('m f="a\\"\nb"\nn f=1', [(1, 'm f="a\\"\nb"'), (3, "n f=1")]),
        ('m f="a\\\\"\nn f=1', [(1, 'm f="a\\\\"'), (2, "n f=1")]),
        ('# "\nm f="x"\n', [(2, 'm f="x"')]),
        ('# a="\nm f="x"', [(2, 'm f="x"')]),
        ('m,t="\nn f="x"', [(1, 'm,t="'), (2, 'n f="x"')]),
        ('m f="a\nb', [(1, 'm f="a\nb')]),
        ('m f=1,g="\n",h="\n" 1\nn f=1', [(1, 'm f=1,g="\n",h="\n" 1'), (4, "n f=1")]),
        ('m "=1\nn f=1', [(1, 'm "=1'), (2, "n f=1")]),
        ("\\\na f=1", [(1, "\\"), (2, "a f=1")]),
    ],
)
def test_lines_are_split_outside_of_strings(text: str, lines: list[tuple[int, str]]) -> None:
    assert list(split_lines(text)) == lines
    assert list(split_lines(text.encode())) == lines


def test_hostile_input_takes_linear_time() -> None:
    """Unclosed strings, runs of backslashes and of quotes: each takes quadratic time in some parser."""
    for text in ('m f="' + 'a\n"' * 100_000, "m,t=" + "\\" * 300_000, 'm f="' + "\\" * 300_000, 'm f="\n' * 100_001):
        with pytest.raises(LineProtocolError):
            parse_lines(text)


names = st.text(st.one_of(st.sampled_from('aé,= "\\#\n\x85'), st.characters(codec="utf-8")), min_size=1, max_size=6)
values: st.SearchStrategy[Any] = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(-(2**63), 2**63 - 1),
    st.integers(0, 2**64 - 1).map(Unsigned),
    st.booleans(),
    st.text(st.one_of(st.sampled_from('a"\\\n ,='), st.characters(codec="utf-8")), max_size=8),
)


@st.composite
def points(draw: st.DrawFn, *, unsigned: bool = True) -> Point:
    """Points with the most unusual names that are valid."""
    tags = draw(st.dictionaries(_valid(LinePart.TAG_KEY), _valid(LinePart.TAG_VALUE), max_size=3))
    fields = draw(st.dictionaries(_valid(LinePart.FIELD_KEY), values, min_size=1, max_size=3))
    fields = {key: value for key, value in fields.items() if key not in tags} or {"\x20": 1.0}
    if not unsigned:
        fields = {key: int(value) // 2 if isinstance(value, Unsigned) else value for key, value in fields.items()}
    tags = {key: text for key, text in tags.items() if key not in fields}
    time = draw(st.none() | st.integers(-9_000_000_000, 9_000_000_000).map(lambda seconds: seconds * 1_000_000_000))
    return Point(draw(_valid(LinePart.MEASUREMENT)), tags, fields, time)


def _valid(part: LinePart) -> st.SearchStrategy[str]:
    return names.map(lambda text: replace_invalid(text, part))


@settings(max_examples=150)
@given(st.lists(points(unsigned=False), max_size=3), st.sampled_from(Dialect), st.sampled_from(Precision))
@example([Point("m ", {"t": "\\ \\=\\,a"}, {'"': '"\\\n'}, 10**9)], Dialect.V3, Precision.S)
def test_an_encoded_point_is_parsed_back(expected: list[Point], dialect: Dialect, precision: Precision) -> None:
    text = "\n".join(point.encode(dialect, precision) for point in expected)

    assert parse_lines(text, dialect, precision) == expected
    assert parse_lines(text.encode(), dialect, precision) == expected
    assert [parse_line(line, dialect, precision) for _, line in split_lines(text)] == expected


@settings(max_examples=150)
@given(points(), st.sampled_from(["v2", "v3"]), st.data())
def test_mutated_lines_are_parsed_or_rejected_and_encoded_alike(
    point: Point, dialect: str, data: st.DataObject
) -> None:
    line = point.encode(dialect)
    position = data.draw(st.integers(0, len(line)))
    removed = data.draw(st.integers(0, 2))
    mutated = line[:position] + data.draw(st.text('"\\,= \n\r#.0-eiut', max_size=2)) + line[position + removed :]

    _accepted_text_is_idempotent(mutated, dialect)


@settings(max_examples=150)
@given(
    st.one_of(st.binary(max_size=40), st.text('ma,= "\\\n\r#.01-+eiutTf', max_size=30).map(str.encode)),
    st.sampled_from(DIALECTS),
)
def test_any_bytes_are_parsed_or_rejected(data: bytes, dialect: str) -> None:
    _accepted_text_is_idempotent(data, dialect)


def _accepted_text_is_idempotent(text: bytes | str, dialect: str) -> None:
    try:
        parsed = parse_lines(text, dialect)
    except LineProtocolError:
        return
    encoded = "\n".join(point.encode(dialect) for point in parsed)
    assert parse_lines(encoded, dialect) == parsed
    assert "\n".join(point.encode(dialect) for point in parse_lines(encoded, dialect)) == encoded


@settings(max_examples=100)
@given(st.text('ma,= "\\\n#1it', max_size=40))
def test_splitting_loses_nothing_but_blank_lines_and_comments(text: str) -> None:
    left = dict(enumerate(text.split("\n"), 1))

    for number, piece in split_lines(text):
        for offset, line in enumerate(piece.split("\n")):
            assert left.pop(number + offset) == line
    assert all(not line.strip(" ") or line.lstrip(" ").startswith("#") for line in left.values())


@settings(max_examples=100)
@given(points())
def test_the_plain_and_the_careful_path_agree(point: Point) -> None:
    """A space before the line forces the careful path."""
    line = point.encode("v2")

    assert parse_line(line) == parse_line(" " + line) == point


PIECES = [
    "m",
    "k",
    "=",
    ",",
    " ",
    ",k=v",
    " k=1",
    ",z=2",
    '"',
    '"x"',
    "1",
    "7",
    ".",
    "e",
    "+",
    "-",
    "i",
    "T",
    "tru",
    "e1",
    " 5",
]


@example(text='m k="x",z=')
@example(text="m k=1. 5")
@example(text="m k=1 ")
@example(text="m k=1e 5")
@given(text=st.lists(st.sampled_from(PIECES), max_size=9).map(lambda found: "m k=" + "".join(found)))
@pytest.mark.parametrize("dialect", ["v1", "v2", "v3"])
def test_the_plain_path_lets_nothing_pass_that_the_careful_path_refuses(dialect: str, text: str) -> None:
    """Broken lines too, each one whole: regular expressions of Python before 3.11.4 can lose the end of one."""

    def parsed(line: str) -> Point | str:
        try:
            return parse_line(line, dialect)
        except LineProtocolError as error:
            return error.reason

    assert parsed(text) == parsed(" " + text)


def test_a_single_line_may_not_end_early() -> None:
    for text in ("", "  ", "# x", "\nm f=1"):
        with pytest.raises(LineProtocolError, match="blank line or a comment"):
            parse_line(text)
    with pytest.raises(LineProtocolError, match="the line ends inside a tag value") as refused:
        parse_line("m,t=a\nb f=1", line=7)
    assert (refused.value.line, refused.value.column) == (7, 6)


def test_reasons_show_shortened_values() -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]

    assert shorten("x" * 1000) == "'" + "x" * 59 + "…"
    assert shorten(10**5000) == "<an integer of 16610 bits>"
    assert shorten([10**5000]) == "[<an integer of 16610 bits>]"
    assert len(shorten(deep)) < 70
    assert shorten(Unsigned(7)) == "7u"
    assert shorten("\ud800") == "'\\ud800'"
