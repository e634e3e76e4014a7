"""Times are exact: every form against integer arithmetic, every rejection with its reason."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from iggyflux.codes import CODES
from iggyflux.lineprotocol import shorten
from iggyflux.timestamps import (
    MAX_NS,
    MIN_NS,
    TimestampError,
    check_pattern,
    date_parts,
    format_rfc3339,
    format_time,
    load_zone,
    parse_flexible,
    parse_pattern,
    parse_rfc3339,
    scale_number,
)

S, MS, US, NS = 1_000_000_000, 1_000_000, 1_000, 1
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
instants = st.integers(MIN_NS, MAX_NS)


def at(*parts: int) -> int:
    """Return the nanoseconds of a UTC date."""
    return (datetime(*parts, tzinfo=UTC) - EPOCH) // timedelta(microseconds=1) * 1000  # type: ignore[misc,arg-type]


# --- numbers ---


@pytest.mark.parametrize(
    ("value", "unit", "ns"),
    [
        (0, S, 0),
        (1700000000, S, 1700000000 * S),
        (-1, MS, -MS),
        (MAX_NS, NS, MAX_NS),
        (MIN_NS, NS, MIN_NS),
        ("1700000000", S, 1700000000 * S),
        ("1700000000.123456789", S, 1700000000123456789),
        ("-0", S, 0),
        ("-1.5", MS, -1_500_000),
        ("17e8", S, 1700000000 * S),
        ("1.7E+9", S, 1700000000 * S),
        ("0.1e1", NS, 1),
        (1700000000.1234567, S, 1700000000123456700),
        (1700000000.1, S, 1700000000100000000),
        (0.1, S, 100_000_000),
        (1.7e18, NS, 1_700_000_000_000_000_000),
        (1.7000000000000003e18, NS, 1_700_000_000_000_000_300),
        (-0.0, S, 0),
        (1e-320, S, 0),
        ("1e-999999999999999999", S, 0),
        ("0e999999999999999999", S, 0),
        ("0.5", NS, 0),
        ("1.5", NS, 2),
        ("2.5", NS, 2),
        ("-0.5", NS, 0),
        ("-1.5", NS, -2),
        ("0.50000000000000000000000000000000000001", NS, 1),
        ("0.49999999999999999999999999999999999999", NS, 0),
        ("0." + "0" * 300 + "1", S, 0),
    ],
)
def test_numbers_are_scaled_exactly_and_halves_are_rounded_to_even(value: Any, unit: int, ns: int) -> None:
    """Rule 18."""
    assert scale_number(value, unit) == ns
    assert type(scale_number(value, unit)) is int


@pytest.mark.parametrize(
    "value",
    [
        *(
            "",
            " 1",
            "1 ",
            "1\n",
            "+1",
            "01",
            ".5",
            "1.",
            "1e",
            "0x10",
            "1_000",
            "NaN",
            "Infinity",
            "١",
            "1" * 401,
            "1,5",
        ),
        *(float("nan"), float("inf"), None, True, [], {}),
    ],
    ids=repr,
)
def test_a_text_that_is_not_a_number_in_json_syntax_is_rejected(value: Any) -> None:
    with pytest.raises(TimestampError, match="expected a number as the time") as refused:
        scale_number(value, S)

    assert refused.value.code == "IFX330"
    assert len(refused.value.reason) < 200


@pytest.mark.parametrize(
    ("value", "unit"),
    [
        (2**63, NS),
        (MAX_NS + 1, NS),
        (MIN_NS - 1, NS),
        (1700000000000, S),
        (10**5000, S),
        (1e300, NS),
        ("1e400", S),
        ("9223372036854775806.6", NS),
        ("1e99999999999999999999", S),
        ("-9223372036.854775807", S),
    ],
    ids=shorten,
)
def test_a_time_beyond_int64_nanoseconds_is_out_of_range(value: Any, unit: int) -> None:
    with pytest.raises(TimestampError, match="outside 1677") as refused:
        scale_number(value, unit)

    assert refused.value.code == "IFX322"
    assert len(refused.value.reason) < 200


@given(st.floats(-9.2e9, 9.2e9), st.sampled_from([S, MS, US, NS]))
@example(1700000000.1234567, S)
def test_a_float_counts_as_its_shortest_decimal(value: float, unit: int) -> None:
    """Rule 18."""
    with localcontext(prec=1000):
        expected = int((Decimal(repr(value)) * unit).to_integral_value(ROUND_HALF_EVEN))

    assert scale_number(value, unit) == expected


@given(st.decimals(-9, 9, allow_nan=False), st.sampled_from([S, MS, US, NS]))
def test_numeric_strings_are_exact(value: Decimal, unit: int) -> None:
    text = f"{value:f}"

    assert scale_number(text, unit) == round(Fraction(text) * unit)


@given(st.text("0123456789.eE+-", max_size=12) | st.text(max_size=12))
def test_any_string_is_a_number_or_a_timestamp_error(text: str) -> None:
    for unit in (S, NS):
        try:
            assert MIN_NS <= scale_number(text, unit) <= MAX_NS
        except TimestampError as refused:
            refused.reason.encode()


# --- RFC 3339 ---

RFC3339 = {
    "1970-01-01T00:00:00Z": 0,
    "1969-12-31T23:59:59.999999999Z": -1,
    "2023-11-14T22:13:20Z": 1700000000 * S,
    "2023-11-14t22:13:20z": 1700000000 * S,
    "2023-11-14T22:13:20-00:00": 1700000000 * S,
    "2023-11-14T22:13:20+00:00": 1700000000 * S,
    "2023-11-14T23:13:20+01:00": 1700000000 * S,
    "2023-11-14T16:43:20-05:30": 1700000000 * S,
    "2023-11-15T22:12:20+23:59": 1700000000 * S,
    "2023-11-14T22:13:20.1Z": 1700000000 * S + 100_000_000,
    "2023-11-14T22:13:20.12Z": 1700000000 * S + 120_000_000,
    "2023-11-14T22:13:20.000000001Z": 1700000000 * S + 1,
    "2023-11-14T22:13:20.123456789+00:00": 1700000000123456789,
    "2023-11-14T22:13:20.1+00:00": 1700000000 * S + 100_000_000,
    "2024-02-29T00:00:00Z": at(2024, 2, 29),
    "2000-02-29T23:59:59Z": at(2000, 2, 29, 23, 59, 59),
    "1677-09-21T00:12:43.145224194Z": MIN_NS,
    "2262-04-11T23:47:16.854775806Z": MAX_NS,
}


@pytest.mark.parametrize("text", RFC3339)
def test_rfc3339_is_exact_to_the_nanosecond_the_first_time_and_after(text: str) -> None:
    assert [parse_rfc3339(text) for _ in range(3)] == [RFC3339[text]] * 3


REFUSED_RFC3339 = {
    "": "RFC 3339",
    "2023-11-14": "RFC 3339",
    "2023-11-14T22:13Z": "RFC 3339",
    "2023-11-14 22:13:20Z": "RFC 3339",
    "2023-11-14_22:13:20Z": "RFC 3339",
    "2023-11-14T22:13:20": "RFC 3339",
    "2023-11-14T22:13:20+01": "RFC 3339",
    "2023-11-14T22:13:20+0100": "RFC 3339",
    "2023-11-14T22:13:20.Z": "RFC 3339",
    "2023-11-14T22:13:20.+01:00": "RFC 3339",
    "2023-11-14T22:13:20,5Z": "RFC 3339",
    "2023-11-14T22:13:2Z": "RFC 3339",
    "2023-11-14T22:13:200Z": "RFC 3339",
    "2023-11-14T22:13:20ZZ": "RFC 3339",
    "2023-11-14T22:13:20Z\n": "RFC 3339",
    " 2023-11-14T22:13:20Z": "RFC 3339",
    "2023-11-14T22:13:20+01:00Z": "RFC 3339",
    "2023-11-14T22:13:20.5+01:00Z": "RFC 3339",
    "2023-11-14T22:13:20.-1Z": "RFC 3339",
    "2023-11-14T22:13:20. 5Z": "RFC 3339",
    "2023-11-14T22:13:20.1_0Z": "RFC 3339",
    "2023-11-14T22:13:20.５Z": "RFC 3339",
    "２023-11-14T22:13:20Z": "RFC 3339",
    "02023-11-14T22:13:20Z": "RFC 3339",
    "-2023-11-14T22:13:20Z": "RFC 3339",
    "2023-W46-2T22:13:20Z": "RFC 3339",
    "2023-11-14T22:13:20.1234567890Z": "finer than a nanosecond",
    "2023-11-14T22:13:20.0000000000+01:00": "finer than a nanosecond",
    "2016-12-31T23:59:60Z": "leap second",
    "2023-11-14T24:00:00Z": "invalid time of day",
    "2023-11-14T25:00:00Z": "invalid time of day",
    "2023-11-14T22:60:00Z": "invalid time of day",
    "2023-11-14T22:13:61Z": "invalid time of day",
    "2023-02-29T00:00:00Z": "invalid date",
    "1900-02-29T00:00:00Z": "invalid date",
    "2023-13-01T00:00:00Z": "invalid date",
    "2023-00-01T00:00:00Z": "invalid date",
    "2023-04-31T00:00:00Z": "invalid date",
    "2023-11-00T00:00:00Z": "invalid date",
    "0000-01-01T00:00:00Z": "invalid date",
    "2023-11-14T22:13:20+24:00": "invalid offset",
    "2023-11-14T22:13:20-01:60": "invalid offset",
    "1677-09-21T00:12:43.145224193Z": "outside 1677",
    "2262-04-11T23:47:16.854775807Z": "outside 1677",
    "9999-12-31T23:59:59Z": "outside 1677",
    "0001-01-01T00:00:00Z": "outside 1677",
    "2262-04-11T23:47:16.854775806-00:01": "outside 1677",
}


@pytest.mark.parametrize("text", REFUSED_RFC3339, ids=ascii)
def test_rfc3339_rejects_what_is_not_one_instant(text: str) -> None:
    parse_rfc3339("2023-11-14T22:13:20+01:00")  # so that the parts of the text are known already

    with pytest.raises(TimestampError, match=REFUSED_RFC3339[text]) as refused:
        parse_rfc3339(text)

    assert refused.value.code in CODES


@pytest.mark.parametrize("value", [None, 1, 1.5, b"2023-11-14T22:13:20Z", [], True])
def test_rfc3339_accepts_strings_only(value: Any) -> None:
    with pytest.raises(TimestampError):
        parse_rfc3339(value)


@given(instants, st.integers(-1439, 1439), st.sampled_from("Tt"), st.booleans())
def test_rfc3339_reads_what_arithmetic_wrote(ns: int, offset_minutes: int, letter: str, zulu: bool) -> None:
    """datetime writes the text, and nanoseconds are added to it."""
    seconds, fraction = divmod(ns, S)
    clock = EPOCH + timedelta(seconds=seconds) + timedelta(minutes=0 if zulu else offset_minutes)
    sign, (hours, minutes) = "-" if offset_minutes < 0 else "+", divmod(abs(offset_minutes), 60)
    offset = "Z" if zulu else f"{sign}{hours:02d}:{minutes:02d}"
    text = f"{clock:%Y-%m-%d}{letter}{clock:%H:%M:%S}.{fraction:09d}{offset}"

    assert parse_rfc3339(text) == parse_rfc3339(text) == ns


@given(instants)
def test_rfc3339_round_trips(ns: int) -> None:
    assert parse_rfc3339(format_rfc3339(ns)) == ns


@given(st.sampled_from(sorted(RFC3339)), st.data())
def test_mutated_rfc3339_is_read_as_the_careful_path_reads_it(text: str, data: st.DataObject) -> None:
    """The text is read with cold and with warm tables: a new day could hide a fault of the fast path."""
    position = data.draw(st.integers(0, len(text)))
    mutated = text[:position] + data.draw(st.text("0123459.:+-TtZz ", max_size=2)) + text[position + 1 :]

    results: list[object] = []
    for _ in range(2):
        try:
            results.append(parse_rfc3339(mutated))
        except TimestampError as refused:
            results.append(refused.reason)
    assert results[0] == results[1]


# --- patterns ---


@pytest.mark.parametrize(
    ("text", "pattern", "zone", "expected"),
    [
        ("2023-11-14 22:13:20", "%Y-%m-%d %H:%M:%S", None, 1700000000 * S),
        ("2023-11-14 22:13:20", "%F %T", "UTC", 1700000000 * S),
        ("14.11.2023 23:13", "%d.%m.%Y %H:%M", "Europe/Berlin", at(2023, 11, 14, 22, 13)),
        ("14.07.2023 23:13", "%d.%m.%Y %H:%M", "Europe/Berlin", at(2023, 7, 14, 21, 13)),
        ("14/Nov/2023:22:13:20 +0100", "%d/%b/%Y:%H:%M:%S %z", None, at(2023, 11, 14, 21, 13, 20)),
        ("14/Nov/2023:22:13:20 +01:00", "%d/%b/%Y:%H:%M:%S %z", "Asia/Tokyo", at(2023, 11, 14, 21, 13, 20)),
        ("14 november 2023", "%d %B %Y", None, at(2023, 11, 14)),
        ("Tue, 14 Nov 2023", "%a, %d %b %Y", None, at(2023, 11, 14)),
        ("TUESDAY 14 NOV 2023", "%A %d %b %Y", None, at(2023, 11, 14)),
        ("1/2/2023 1:02:03 PM", "%m/%d/%Y %I:%M:%S %p", None, at(2023, 1, 2, 13, 2, 3)),
        ("1/2/2023 12:00 AM", "%m/%d/%Y %I:%M %p", None, at(2023, 1, 2)),
        ("1/2/2023 12:00 pm", "%m/%d/%Y %I:%M %p", None, at(2023, 1, 2, 12)),
        ("2023-318", "%Y-%j", None, at(2023, 11, 14)),
        ("2024-366", "%Y-%j", None, at(2024, 12, 31)),
        ("68-01-02", "%y-%m-%d", None, at(2068, 1, 2)),
        ("69-01-02", "%y-%m-%d", None, at(1969, 1, 2)),
        ("20231114T221320.5Z", "%Y%m%dT%H%M%S.%f%z", None, 1700000000 * S + 500_000_000),
        ("20231114221320123", "%Y%m%d%H%M%S%3f", None, 1700000000 * S + 123_000_000),
        ("2023-11-14 22:13:20.123456789", "%F %T.%f", None, 1700000000123456789),
        ("2023-11-14   22:13", "%F %H:%M", None, at(2023, 11, 14, 22, 13)),
        ("100%: 2023-11-14", "100%%: %F", None, at(2023, 11, 14)),
        ("1883-01-01", "%F", "America/New_York", at(1883, 1, 1) + (4 * 3600 + 56 * 60 + 2) * S),
    ],
)
def test_a_pattern_reads_one_instant(text: str, pattern: str, zone: str | None, expected: int) -> None:
    assert parse_pattern(text, pattern, zone) == expected


@pytest.mark.parametrize(
    ("text", "pattern", "zone", "reason", "code"),
    [
        ("2023-11-14", "%F %T", None, "expected a time like '%F %T', found '2023-11-14'", "IFX330"),
        ("2023-11-14x", "%F", None, "expected a time like", "IFX330"),
        ("2023-11-14\n", "%F", None, "expected a time like", "IFX330"),
        ("２023-11-14", "%F", None, "expected a time like", "IFX330"),
        ("2023-11-14 24:00", "%F %H:%M", None, "expected a time like", "IFX330"),
        ("2023-11-14 22:13:60", "%F %T", None, "expected a time like", "IFX330"),
        ("2023-11-14.1234567890", "%F.%f", None, "has a fraction without second", "IFX332"),
        ("2023-02-29", "%F", None, "invalid date", "IFX330"),
        ("2023-366", "%Y-%j", None, "invalid date", "IFX330"),
        ("2023-000", "%Y-%j", None, "invalid date", "IFX330"),
        ("Mon, 14 Nov 2023", "%a, %d %b %Y", None, "is not a Mon", "IFX330"),
        ("2023-11-14 22:13 +24:00", "%F %H:%M %z", None, "invalid offset", "IFX330"),
        (
            "2023-03-26 02:30",
            "%F %H:%M",
            "Europe/Berlin",
            "does not occur in the local time of Europe/Berlin",
            "IFX331",
        ),
        ("2023-10-29 02:30", "%F %H:%M", "Europe/Berlin", "occurs twice in the local time of Europe/Berlin", "IFX331"),
        ("2011-12-30", "%F", "Pacific/Apia", "does not occur", "IFX331"),
        ("1600-01-01", "%F", None, "outside 1677", "IFX322"),
        ("0001-01-01", "%F", "Asia/Tokyo", "outside 1677", "IFX322"),
        ("9999-12-31 23:59:59", "%F %T", "America/New_York", "outside 1677", "IFX322"),
        ("0000-01-01", "%F", None, "invalid date", "IFX330"),
        ("2023-11-14", "%F", "Europe/Berln", "did you mean 'Europe/Berlin'", "IFX333"),
        ("2023-11-14", "%F", "../etc/passwd", "unknown time zone", "IFX333"),
        ("2023-11-14", "%F", "", "unknown time zone", "IFX333"),
        ("2023-11-14", "%F", "localtime", "unknown time zone", "IFX333"),
    ],
)
def test_a_pattern_rejects_what_is_not_one_instant(
    text: str, pattern: str, zone: str | None, reason: str, code: str
) -> None:
    with pytest.raises(TimestampError) as refused:
        parse_pattern(text, pattern, zone)

    assert reason in refused.value.reason
    assert refused.value.code == code
    assert code in CODES


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("", "has no year"),
        ("%m-%d", "has no year"),
        ("%Y-%m", "has no day"),
        ("%Y %d", "has no day"),
        ("%F %Z", "%Z is not supported"),
        ("%c", "depends on the locale"),
        ("%x", "depends on the locale"),
        ("%F %Q", "unknown directive %Q"),
        ("%F %", "single '%'"),
        ("%F %M", "a minute without hour"),
        ("%F %H:%S", "a second without minute"),
        ("%F %I:%M", "a hour12 without half"),
        ("%F %H %p", "a half without hour12"),
        ("%F %H %I %p", "has the hour twice"),
        ("%F %Y", "has the year twice"),
        ("%F %j", "has the day twice"),
        ("%F %b", "has the month twice"),
        ("%U %Y", "unknown directive %U"),
    ],
)
def test_an_invalid_pattern_is_rejected_when_it_is_checked(pattern: str, reason: str) -> None:
    with pytest.raises(TimestampError) as refused:
        check_pattern(pattern)

    assert reason in refused.value.reason
    assert refused.value.code == "IFX332"


def test_a_pattern_knows_whether_its_times_have_an_offset() -> None:
    assert check_pattern("%F %T %z")
    assert not check_pattern("%F %T")


@given(instants, st.sampled_from(["UTC", "Asia/Kolkata", "Africa/Monrovia", "America/New_York", None]))
def test_format_time_and_parse_pattern_are_inverse(ns: int, zone: str | None) -> None:
    for pattern in ("%F %T.%f %z", "%A %d %B %Y %I:%M:%S.%9f %p %:z", "%Y-%j %H%M%S%f%z"):
        assert parse_pattern(format_time(ns, pattern, zone), pattern, zone) == ns


@given(instants)
def test_format_time_agrees_with_datetime(ns: int) -> None:
    clock = EPOCH + timedelta(seconds=ns // S)
    pattern = "%Y|%y|%m|%d|%j|%H|%I|%p|%M|%S|%a|%A|%b|%B|%%|%z"
    expected = clock.strftime(pattern).replace(f"{clock.year}|", f"{clock.year:04d}|", 1)

    assert format_time(ns, pattern) == expected


def test_format_time_writes_zones_and_fractions() -> None:
    ns = 1700000000123456789

    assert format_time(ns, "%F %T.%3f %6f %9f %z %:z", "Asia/Kolkata") == (
        "2023-11-15 03:43:20.123 123456 123456789 +0530 +05:30"
    )
    assert format_time(-1, "%T.%f") == "23:59:59.999999999"
    assert format_rfc3339(ns) == "2023-11-14T22:13:20.123456789Z"
    assert format_rfc3339(1700000000 * S + 500_000_000) == "2023-11-14T22:13:20.5Z"
    assert format_rfc3339(-S) == "1969-12-31T23:59:59Z"
    with pytest.raises(TimestampError, match="outside"):
        format_time(2**63, "%F")
    with pytest.raises(TimestampError, match="%Z is not supported"):
        format_time(0, "%Z")


def test_date_parts_follow_the_iso_calendar() -> None:
    parts = date_parts(at(2021, 1, 3, 23, 59, 59) + 7, "Europe/Berlin")

    assert parts == (2021, 1, 4, 0, 59, 59, 7, 1, 4, 2021, 1, 3600)
    assert date_parts(at(2021, 1, 3)).iso_year == 2020
    assert date_parts(at(2021, 1, 3)).iso_week == 53
    assert date_parts(at(2021, 1, 3)).weekday == 7
    assert date_parts(MIN_NS, "Asia/Tokyo").year == 1677
    assert date_parts(MAX_NS, "Asia/Tokyo").year == 2262


def test_zones_come_from_the_package_and_not_from_the_machine() -> None:
    assert load_zone("Europe/Berlin") is load_zone("Europe/Berlin")
    assert load_zone("Europe/Berlin").key == "Europe/Berlin"


@given(st.text("%YmdHMSfzZjbBaApI :-T3", max_size=10), st.text(max_size=10))
def test_any_pattern_and_text_give_a_time_or_a_timestamp_error(pattern: str, text: str) -> None:
    for work in (lambda: parse_pattern(text, pattern), lambda: format_time(0, pattern), lambda: check_pattern(pattern)):
        try:
            work()
        except TimestampError as refused:
            refused.reason.encode()


# --- flexible: what dateutil reads ---


@pytest.mark.parametrize(
    ("text", "zone", "expected"),
    [
        ("2023-11-14", "UTC", at(2023, 11, 14)),
        ("2023-11-14 23:13:20", "Europe/Berlin", 1700000000 * S),
        ("Nov 14, 2023 10:13:20 PM", "UTC", 1700000000 * S),
        ("Tue, 14 Nov 2023 22:13:20 GMT", "Asia/Tokyo", 1700000000 * S),
        ("14 November 2023 22:13:20 UTC", None, 1700000000 * S),
        ("20231114T221320Z", None, 1700000000 * S),
        ("2023-11-14 22:13:20.123456", "UTC", 1700000000123456000),
        ("2023-11-14T22:13:20.123456789Z", None, 1700000000123456789),
        ("2023-11-14 22:13:20+0100", None, at(2023, 11, 14, 21, 13, 20)),
        ("14/02/2024", "UTC", at(2024, 2, 14)),
        ("02/02/2024", "UTC", at(2024, 2, 2)),
    ],
)
def test_flexible_reads_one_instant(text: str, zone: str | None, expected: int) -> None:
    assert parse_flexible(text, zone) == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "cannot parse"),
        ("hello", "cannot parse"),
        ("10:13", "complete date"),
        ("Friday", "complete date"),
        ("November", "complete date"),
        ("Nov 14", "complete date"),
        ("Nov 2023", "complete date"),
        ("2023", "complete date"),
        ("14", "complete date"),
        ("Tuesday 22:13", "complete date"),
        ("1/2/03", "century"),
        ("14 Nov 23", "century"),
        ("2023-11-14 22:13 EST", "has the zone name"),
        ("2023-11-14 22:13 CET", "has the zone name"),
        ("2023-11-14 22:13 BRST", "has the zone name"),
        ("2023-11-14 22:13 EST+3", "has the zone name"),
        ("2023-11-14 22:13 GMT+3", "after a zone name"),
        ("2023-11-14 22:13:20.1234567", "finer"),
        ("2023-02-30", "cannot parse"),
        ("2023-10-29 02:30", "occurs twice"),
        ("2023-03-26 02:30", "does not occur"),
        ("1500-01-01", "outside"),
        ("01/02/2024", "may be 2 January or 1 February"),
        ("05.08.2018 07:17", "dayfirst"),
        ("x" * 201, "as a string"),
    ],
)
def test_flexible_rejects_what_dateutil_would_guess(text: str, reason: str) -> None:
    """Rule 18."""
    with pytest.raises(TimestampError) as refused:
        parse_flexible(text, "Europe/Berlin")

    assert reason in refused.value.reason


_DAYS = st.dates(date(1990, 1, 1), date(2090, 12, 31))
_SWAPPABLE = ["%d.%m.%Y", "%m/%d/%Y", "%d/%m/%Y", "%d-%m-%Y", "%m-%d-%Y", "%d %m %Y", "%m.%d.%Y"]
_CERTAIN = ["%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", "%Y%m%d", "%d %b %Y", "%B %d, %Y", "%d-%b-%Y", "%b %d %Y"]
_CLOCKS = ["", " 07:17", " 23:05:09", "T07:17:00"]


@given(_DAYS, st.sampled_from(_SWAPPABLE), st.sampled_from(_CLOCKS[:3]))
def test_a_day_that_may_be_a_month_is_declared_or_rejected(day: date, pattern: str, clock: str) -> None:
    """Rule 18: whatever the order of a text, it is read as one date or not at all."""
    text = day.strftime(pattern) + clock
    day_is_first = pattern.startswith("%d")
    midnight = parse_flexible(f"{day:%Y-%m-%d}{clock}", "UTC")
    if day.day <= 12 and day.day != day.month:
        with pytest.raises(TimestampError) as refused:
            parse_flexible(text, "UTC")

        assert "dayfirst" in refused.value.reason
        assert parse_flexible(text, "UTC", day_is_first) == midnight
        assert parse_flexible(text, "UTC", not day_is_first) != midnight
    else:
        for dayfirst in (None, day_is_first):
            assert parse_flexible(text, "UTC", dayfirst) == midnight


@given(_DAYS, st.sampled_from(_CERTAIN), st.sampled_from(_CLOCKS), st.sampled_from([None, True, False]))
def test_a_date_with_its_year_first_or_a_name_of_a_month_is_certain(
    day: date, pattern: str, clock: str, dayfirst: bool | None
) -> None:
    if clock.startswith("T") and not pattern.startswith("%Y"):
        clock = clock.replace("T", " ")
    assert parse_flexible(day.strftime(pattern) + clock, "UTC", dayfirst) == parse_pattern(
        f"{day:%Y-%m-%d} {clock[1:] or '00:00'}{'' if clock.count(':') == 2 else ':00'}", "%Y-%m-%d %H:%M:%S", "UTC"
    )


@given(_DAYS, st.sampled_from(_CERTAIN), st.sampled_from(["", "Z", "+02:00", " UTC", " -0530"]))
def test_a_time_without_offset_needs_a_zone(day: date, pattern: str, offset: str) -> None:
    """Rule 18: as in a pattern."""
    text = f"{day.strftime(pattern)} 12:00{offset}"
    if offset:
        assert parse_flexible(text) == parse_flexible(text, "Asia/Tokyo")
        return
    with pytest.raises(TimestampError) as refused:
        parse_flexible(text)

    assert "timezone" in refused.value.reason


@given(st.text("0123456789 :-/.,TZ+GMTUCNovFriapm", max_size=25) | st.text(max_size=20))
@example("1e400")
@example("0000000000000")
@example("99999999999999999999999999")
@example("2023-11-14 22:13:20 +99:99")
@example("2023-11-14 22:13:20 +9999999999")
@example("10h30.5m 2020-01-01")
@example("0001-01-01 00:00 +0100")
@example("9999-12-31 23:59 -1200")
@example("0001-01-01")
@example("9999-12-31 23:59:59")
def test_any_text_is_a_flexible_time_or_a_timestamp_error(text: str) -> None:
    for zone in (None, "America/New_York"):
        try:
            assert MIN_NS <= parse_flexible(text, zone) <= MAX_NS
        except TimestampError as refused:
            refused.reason.encode()


def test_times_do_not_depend_on_the_machine() -> None:
    """The results are the same in another zone, locale and year, and dateutil is imported only when used."""
    program = """
import sys
from iggyflux.timestamps import *
assert "dateutil" not in sys.modules
print(parse_pattern("14 Nov 2023", "%d %b %Y"), parse_flexible("14 Nov 2023 22:13", "UTC"), format_time(0, "%A %B %p"))
assert "dateutil" in sys.modules
"""
    expected = f"{at(2023, 11, 14)} {at(2023, 11, 14, 22, 13)} Thursday January AM"

    for zone in ("Asia/Tokyo", "America/New_York"):
        environment = os.environ | {"TZ": zone, "LC_ALL": "C", "LANG": "de_DE.UTF-8"}
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == expected
