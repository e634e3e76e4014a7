"""The meaning of answers, and the machine that acts on them: both are pure, so the tests simulate time and servers."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from iggyflux.codes import CODES
from iggyflux.delivery.answers import RULES, Answer, classify, parse_retry_after, plain_words, proxy_hint
from iggyflux.delivery.backoff import backoff_seconds
from iggyflux.delivery.limit import ByteLimit
from iggyflux.delivery.lines import RequestLines, is_ignored, line_bytes, point_key
from iggyflux.delivery.machine import TRANSITIONS, Done, Machine, Phase, Probe, Send, Wait
from iggyflux.delivery.outage import Outage
from iggyflux.delivery.retry import Policy, Stop
from iggyflux.delivery.verdicts import (
    Accepted,
    Impossible,
    Refusal,
    Refused,
    RefusedSome,
    SchemaConflict,
    TooLarge,
    Unavailable,
    Verdict,
)
from iggyflux.secrets import Scrubber

NOW = 1_700_000_000.0
LINES = ["m,t=a f=1 1", "m,t=b f=x 2", "m,t=c f=3 3"]
JSON = {"content-type": "application/json"}
HTML = {"content-type": "text/html; charset=utf-8"}
CONFLICT = 'field type conflict: input field "f" on measurement "m" is type string, already exists as type float'


def answer(status: int, body: object = b"", headers: dict[str, str] | None = None) -> Answer:
    if isinstance(body, dict):
        return Answer(status, JSON | (headers or {}), json.dumps(body).encode())
    return Answer(status, headers or {}, body if isinstance(body, bytes) else str(body).encode())


def verdict(
    status: int, body: object = b"", headers: dict[str, str] | None = None, lines: Sequence[str] = LINES
) -> Verdict:
    return classify("v2", answer(status, body, headers), lines, NOW)


# --- answers ---


def test_only_204_acknowledges() -> None:
    for status in range(200, 300):
        for body, headers in ((b"", {}), (b"<!doctype html><html>", HTML), (b"{}", JSON)):
            assert (verdict(status, body, headers) == Accepted()) == (status == 204)


# (id, status, body, headers, what it means, code or None)
STOPS = [
    ("a web page as 200", 200, b"<!DOCTYPE html><html>", HTML, "IFX720"),
    ("200 with nothing", 200, b"", {}, "IFX720"),
    ("202 of something else", 202, {"ok": True}, {}, "IFX720"),
    ("401 of 1.x", 401, {"error": "authorization failed"}, {"www-authenticate": "Basic"}, "IFX721"),
    ("401 of 2.x", 401, {"code": "unauthorized", "message": "unauthorized access"}, {}, "IFX721"),
    ("401 of 3.x", 401, {"error": "the request was not authenticated"}, {}, "IFX721"),
    ("403 of 2.x", 403, {"code": "forbidden", "message": "insufficient permissions for write"}, {}, "IFX722"),
    ("403 of a firewall", 403, b"<html>blocked</html>", HTML, "IFX722"),
    ("404 database of 1.x", 404, {"error": 'database not found: "x"'}, {}, "IFX723"),
    ("404 bucket of 2.x", 404, {"code": "not found", "message": 'bucket "x" not found'}, {}, "IFX723"),
    ("404 organization", 404, {"code": "not found", "message": 'organization name "o" not found'}, {}, "IFX723"),
    ("404 mapping of 2.x", 404, {"code": "not found", "message": "no dbrp mapping found"}, {}, "IFX723"),
    ("404 of no route", 404, b"404 page not found\n", {}, "IFX720"),
    ("404 page", 404, b"<html>nginx</html>", HTML, "IFX720"),
    ("405", 405, b"", {}, "IFX720"),
    ("407", 407, b"", {}, "IFX726"),
    ("308 of 2.x", 308, b"", {"location": "/api/v2/write"}, "IFX725"),
    ("301 to https", 301, b"<html>moved", HTML | {"location": "https://other.example/x?p=secret"}, "IFX725"),
    ("retention policy of 1.x, as 500", 500, {"error": "retention policy not found: x"}, {}, "IFX724"),
    ("no database named", 400, {"error": "database is required"}, {}, "IFX728"),
    ("no org named", 400, {"message": "Please provide either orgID or org"}, {}, "IFX728"),
    ("no db of 3.x", 400, b"serde error: missing field `db`", {}, "IFX728"),
    (
        "precision",
        400,
        {"code": "invalid", "message": "invalid precision; valid precision units are ns, us"},
        {},
        "IFX728",
    ),
    ("gzip as 500", 500, {"message": "gzip: invalid header"}, {}, "IFX731"),
    ("no database, in a header", 404, b"", {"x-influxdb-error": "database not found"}, "IFX723"),
    ("TLS of Go", 400, b"Client sent an HTTP request to an HTTPS server.\n", {}, "IFX727"),
    ("TLS page of nginx", 400, b"<html>The plain HTTP request was sent to HTTPS port", HTML, "IFX727"),
    ("400 page", 400, b"<html><h1>400 Bad Request</h1>", HTML, "IFX720"),
    ("400 without words", 400, b"", {}, "IFX731"),
    ("400 of a balancer", 400, b"400 Bad Request", {}, "IFX731"),
    ("databases of 3.x", 422, {"error": "Adding a new database would exceed limit of 5 databases"}, {}, "IFX735"),
    ("415", 415, b"", {}, "IFX731"),
    ("418", 418, b"", {}, "IFX731"),
    ("501", 501, b"", {}, "IFX731"),
    ("505", 505, b"", {}, "IFX731"),
    ("a page of no status", 600, b"<html>", HTML, "IFX731"),
]


@pytest.mark.parametrize(
    ("status", "body", "headers", "code"), [row[1:] for row in STOPS], ids=[row[0] for row in STOPS]
)
def test_what_an_operator_must_correct_stops(status: int, body: object, headers: dict[str, str], code: str) -> None:
    found = verdict(status, body, headers)

    assert isinstance(found, Impossible)
    assert (found.code, found.status) == (code, status)
    assert found.hint
    assert code in CODES
    assert "secret" not in found.reason


@pytest.mark.parametrize(
    ("status", "headers", "code", "hint"),
    [
        (407, {}, "IFX726", "write the proxy's login"),
        (407, {"x-influxdb-version": "2.7"}, "IFX726", "write the proxy's login"),
        (403, {}, "IFX726", "allow this host and port"),
        (403, {"x-influxdb-version": "2.7"}, "IFX722", "grant write permission"),
    ],
)
@pytest.mark.parametrize(("body", "words"), [(b"", ""), (b"not here", ": not here")])
def test_a_refusal_is_the_proxys_where_influxdb_does_not_name_itself(
    status: int, headers: dict[str, str], code: str, hint: str, body: bytes, words: str
) -> None:
    found = classify("v2", Answer(status, headers, body, proxy="http://squid:3128"), LINES, NOW)

    assert isinstance(found, Impossible)
    assert (found.code, found.status) == (code, status)
    assert found.hint is not None
    assert hint in found.hint
    assert found.reason.endswith(f"{status}{words}" if code == "IFX726" else f" the proxy http://squid:3128{words}")


def test_a_proxy_that_does_not_connect_is_to_be_checked() -> None:
    assert [proxy_hint(status).partition(" ")[0] for status in (407, 401, 403, 405, 502)] == [
        "write",
        "allow",
        "allow",
        "check",
        "check",
    ]


@pytest.mark.parametrize(
    ("location", "shown"),
    [
        ("https://u:hidden@new:8086/p?u=x&p=hidden#hidden", ", a redirect to https://new:8086/p"),
        ("//u:hidden@new/p", ", a redirect to new/p"),
        ("/signin", ", a redirect to /signin"),
        ("", ", a redirect"),
    ],
)
def test_a_redirect_is_shown_without_secrets(location: str, shown: str) -> None:
    found = verdict(302, b"", {"location": location})

    assert isinstance(found, Impossible)
    assert found.reason.endswith(shown)


@pytest.mark.parametrize(
    ("body", "headers", "words"),
    [
        (b"down", HTML, "an HTML page"),
        (b"  <!DOCTYPE html>down", {}, "an HTML page"),
        (b"<HTML>down", {}, "an HTML page"),
        (b"down <html>", {}, "down <html>"),
    ],
)
def test_a_page_is_known_by_its_type_or_its_beginning(body: bytes, headers: dict[str, str], words: str) -> None:
    found = verdict(502, body, headers)

    assert isinstance(found, Unavailable)
    assert found.reason == f"the server answered 502: {words}"


def test_a_secret_that_is_cut_at_the_end_is_not_shown() -> None:
    assert "hemlock" not in plain_words("no such token: hemlock-and-fox", Scrubber(("hemlock-and-foxglove",)))


def test_words_that_fit_are_shown_as_a_whole() -> None:
    assert [plain_words("x" * length, Scrubber(())) for length in (400, 401)] == ["x" * 400, "x" * 400 + "…"]


def test_only_overload_balancers_and_networks_pass() -> None:
    """Each status without a word: 52x and 530 are those of networks in front of a server."""
    passing = []
    for status in range(400, 600):
        found = verdict(status)
        if isinstance(found, Unavailable) and not found.suspicious:
            passing.append(status)

    assert passing == [408, 425, 429, 502, 503, 504, 509, *range(520, 528), 530]


def test_a_request_of_two_lines_is_searched_for_the_one_whose_field_was_removed() -> None:
    words = {"message": "partial write: 'time' has been stripped from point"}
    assert verdict(400, words, lines=LINES[:1]) == Refused(
        (Refusal(0, "stored without its field 'time', which no server accepts", 400),), rest_stored=True
    )
    assert isinstance(verdict(400, words, lines=LINES[:2]), RefusedSome)


def test_an_answer_without_words_is_reported_by_its_status() -> None:
    found = verdict(422)

    assert isinstance(found, RefusedSome)
    assert found.reason == "the server answered 422"


@pytest.mark.parametrize("status", [400, 422, 500])
def test_a_passing_fault_passes_with_each_status_that_is_about_content(status: int) -> None:
    found = verdict(status, {"message": "hinted handoff queue not empty"})

    assert isinstance(found, Unavailable)
    assert not found.suspicious


def test_a_number_of_dropped_points_at_another_place_proves_nothing() -> None:
    assert isinstance(verdict(400, {"message": "a valve dropped 7 times"}, lines=LINES[:1]), RefusedSome)


@pytest.mark.parametrize(
    ("first", "last", "code"),
    [(205, 299, "IFX720"), (300, 399, "IFX725"), (404, 405, "IFX720"), (410, 412, "IFX731"), (600, 999, "IFX731")],
)
def test_the_statuses_of_a_range_stop_alike(first: int, last: int, code: str) -> None:
    found = [verdict(status) for status in (first, last)]

    assert [each.code for each in found if isinstance(each, Impossible)] == [code, code]


@pytest.mark.parametrize(
    ("status", "code"), [(400, "IFX720"), (418, "IFX720"), (499, "IFX720"), (500, None), (599, None)]
)
def test_a_page_is_of_no_database_whatever_its_status(status: int, code: str | None) -> None:
    """A client error is an address that is wrong; a server error is a balancer whose server is away."""
    found = verdict(status, b"partial write: unable to parse", HTML)

    if code:
        assert isinstance(found, Impossible)
        assert found.code == code
    else:
        assert found == Unavailable(f"the server answered {status}: an HTML page", status)


PASSING = [
    ("408", 408, b"", {}, None),
    ("429 with seconds", 429, b"", {"retry-after": "7"}, 7.0),
    ("429 with a date", 429, b"", {"retry-after": "Tue, 14 Nov 2023 22:13:30 GMT"}, 10.0),
    ("503 of 1.x", 503, b"request throttled, queue full", {}, None),
    ("503 page", 503, b"<html>try later", HTML | {"retry-after": "120"}, 120.0),
    ("502 page", 502, b"<html>bad gateway", HTML, None),
    ("504", 504, b"", {}, None),
    ("522 of a network", 522, b"<html>", HTML, None),
    ("500 page", 500, b"<html>oops", HTML, None),
    ("query queue, as 400", 400, {"code": "invalid", "message": "queue length exceeded"}, {}, None),
    ("cache full, as 500", 500, {"message": "engine: cache-max-memory-size exceeded: (1/2)"}, {}, None),
    ("timeout, as 500", 500, {"error": "timeout"}, {}, None),
    ("disk full, as 500", 500, {"error": "write wal/1: no space left on device"}, {}, None),
]


@pytest.mark.parametrize(
    ("status", "body", "headers", "seconds"), [row[1:] for row in PASSING], ids=[row[0] for row in PASSING]
)
def test_what_passes_is_sent_again_and_blames_no_line(
    status: int, body: object, headers: dict[str, str], seconds: float | None
) -> None:
    found = verdict(status, body, headers)

    assert isinstance(found, Unavailable)
    assert (found.status, found.retry_after_seconds) == (status, seconds)
    assert not found.suspicious
    assert not found.connection_died


def test_a_verdict_claims_nothing_that_the_sink_does_not_say() -> None:
    assert not RefusedSome("no").blames_lines
    assert not Unavailable("away").connection_died
    assert not Unavailable("away").suspicious


def test_an_unknown_500_is_suspicious() -> None:
    found = verdict(500, {"code": "internal error", "message": "An internal error has occurred"})

    assert found == Unavailable("the server answered 500: An internal error has occurred", 500, suspicious=True)


@pytest.mark.parametrize(
    ("status", "body", "limit"),
    [
        (413, {"error": "Request Entity Too Large"}, None),
        (413, b"<html>413 Request Entity Too Large</html>", None),
        (413, {"code": "request too large", "message": "cannot read data: limit of 50000000"}, 50_000_000),
        (500, b"max request size (10485760 bytes) exceeded", 10_485_760),
        (400, b"max request size (10485760 bytes) exceeded", 10_485_760),
    ],
)
def test_too_large_by_status_and_by_words(status: int, body: object, limit: int | None) -> None:
    found = verdict(status, body)

    assert isinstance(found, TooLarge)
    assert found.limit_bytes == limit


def refused(*lines: tuple[int, str], status: int = 400, stored: bool, code: str = "IFX601") -> Refused:
    return Refused(tuple(Refusal(line, why, status, code) for line, why in lines), stored)


def test_1x_names_lines_and_has_stored_the_rest() -> None:
    body = {"error": "partial write: unable to parse 'm,t=b f=x 2': invalid boolean dropped=0"}

    assert verdict(400, body) == refused((1, "invalid boolean"), stored=True)


def test_1x_with_all_lines_bad_has_stored_nothing() -> None:
    body = {"error": "unable to parse 'm,t=b f=x 2': invalid boolean\nunable to parse 'm,t=c f=3 3': bad"}

    assert verdict(400, body) == refused((1, "invalid boolean"), (2, "bad"), stored=False)


def test_2x_names_every_bad_line_and_has_stored_nothing() -> None:
    body = {"code": "invalid", "message": "unable to parse 'm,t=b f=x 2': invalid boolean"}

    assert verdict(400, body) == refused((1, "invalid boolean"), stored=False)


def test_equal_lines_are_refused_together() -> None:
    body = {"message": "unable to parse 'bad': missing fields"}

    assert verdict(400, body, lines=["bad", "m f=1 1", "bad"]) == refused(
        (0, "missing fields"), (2, "missing fields"), stored=False
    )


def test_a_line_with_the_servers_own_phrases_is_matched_as_a_whole() -> None:
    evil = "m s=\"unable to parse 'm,t=a f=1 1': x\n dropped=99\",f=x 2"
    body = {"message": f"unable to parse '{evil}': invalid boolean"}

    assert verdict(400, body, lines=[LINES[0], evil]) == refused((1, "invalid boolean"), stored=False)


def test_a_quotation_that_may_be_two_lines_names_no_line() -> None:
    lines = ["m f", "m f': x"]
    body = {"message": "unable to parse 'm f': x': missing"}

    assert isinstance(verdict(400, body, lines=lines), RefusedSome)


def test_an_unbalanced_quote_swallows_lines_that_are_sent_again() -> None:
    lines = ["m f=1 1", 'm s="x 2', "m f=3 3"]
    body = {"error": "partial write: unable to parse 'm s=\"x 2\nm f=3 3': unbalanced quotes dropped=0"}

    found = verdict(400, body, lines=lines)

    assert found == refused((1, "a string that does not end"), stored=False)


def test_3x_counts_neither_blank_lines_nor_comments() -> None:
    body = {
        "error": "partial write of line protocol occurred",
        "data": [{"error_message": "No fields were provided", "line_number": 2, "original_line": "m f=1 1"}],
    }

    found = verdict(400, body, lines=["", "# hello", "m f=1 1", "  ", "m", "m f=3 3"])

    assert found == refused((4, "No fields were provided"), stored=True)


def test_3x_with_an_object_has_stored_nothing() -> None:
    body = {
        "error": "parsing failed for write_lp endpoint",
        "data": {"error_message": "bad", "line_number": 3, "original_line": "m"},
    }

    assert verdict(400, body) == refused((2, "bad"), stored=False)


@pytest.mark.parametrize("number", [0, 4, -1, True, None, "1", 1.0])
def test_3x_with_a_number_of_no_line_names_no_line(number: object) -> None:
    body = {"error": "partial write of line protocol occurred", "data": [{"error_message": "x", "line_number": number}]}

    assert isinstance(verdict(400, body), RefusedSome)


def test_3x_reports_a_conflict_with_both_types() -> None:
    why = (
        "invalid column type for column 'f', expected iox::column_type::field::float, "
        "got iox::column_type::field::string"
    )
    body = {"error": "x", "data": [{"error_message": why, "line_number": 2, "original_line": "m"}]}

    found = verdict(400, body)

    assert found == Refused(
        (Refusal(1, why, 400, "IFX609"),), True, (SchemaConflict("m", "f", sent="string", stored="float"),)
    )
    assert str(found.conflicts[0]) == "field 'f' of measurement 'm' is sent as string, but stored as float"


def test_3x_on_the_path_of_2x_names_no_line() -> None:
    body = {"code": "invalid", "message": "write buffer error: parsing for line protocol failed"}

    assert verdict(400, body) == RefusedSome(
        "write buffer error: parsing for line protocol failed", 400, blames_lines=True
    )


def test_cloud_names_lines_by_number_unless_a_string_spans_lines() -> None:
    body = {"code": "invalid", "line": 2, "message": "failed: error parsing line 2 (1-based): Invalid measurement"}

    assert verdict(400, body) == refused((1, "Invalid measurement"), stored=False)
    assert isinstance(verdict(400, body, lines=['m s="a\nb" 1', "m", "m f=1 1"]), RefusedSome)


def test_dropped_as_many_as_were_sent_refuses_all() -> None:
    found = verdict(422, {"message": f"failure writing points to database: partial write: {CONFLICT} dropped=3"})

    assert isinstance(found, Refused)
    assert [refusal.line for refusal in found.refusals] == [0, 1, 2]
    assert {refusal.code for refusal in found.refusals} == {"IFX609"}
    assert found.rest_stored
    assert found.conflicts == (SchemaConflict("m", "f", "string", "float"),)


def test_dropped_may_be_followed_by_the_database() -> None:
    message = f"partial write: {CONFLICT} dropped=3 for database: 0f for retention policy: autogen"

    assert isinstance(verdict(422, {"message": message}), Refused)


def test_dropped_in_a_name_counts_nothing() -> None:
    message = f"partial write: {CONFLICT} dropped=1".replace('"f"', '"a dropped=9 b"')

    assert isinstance(verdict(400, {"error": message}), RefusedSome)


def test_fewer_dropped_than_sent_gives_only_suspects() -> None:
    lines = ['m,t=a f="x" 3', "m,t=a f=1 2", 'm,t=b g=1,f="y" 1', 'mm f="x" 4', 'm,t=c xf="x" 5']

    found = verdict(400, {"error": f"partial write: {CONFLICT} dropped=1"}, lines=lines)

    assert isinstance(found, RefusedSome)
    assert found.suspects == (2, 0)
    assert found.code == "IFX609"


@pytest.mark.parametrize(
    "message",
    [
        "partial write: points beyond retention policy dropped=2",
        "partial write: dropped 2 points outside retention policy of duration 1h0m0s - oldest point m,t=a at 1970",
        "failure writing points to database: partial write: points beyond retention policy dropped=2 for database: 0f",
    ],
)
def test_the_oldest_are_suspect_of_being_beyond_retention(message: str) -> None:
    found = verdict(422, {"message": message}, lines=["m f=1 30", "m f=1 10", "m f=1 -20"])

    assert isinstance(found, RefusedSome)
    assert found.suspects == (2, 1)


@pytest.mark.parametrize("words", ["max key length exceeded: 70 > 65", "input is too long, 70 > 65"])
def test_the_longest_are_suspect_of_being_too_long(words: str) -> None:
    found = verdict(422, {"message": f"partial write: {words} dropped=1"}, lines=["m f=1 1", f"m,t={'a' * 66} f=1 2"])

    assert isinstance(found, RefusedSome)
    assert found.suspects == (1,)


def test_a_stripped_time_is_reported_for_its_line() -> None:
    message = (
        'failure writing points to database: partial write: invalid field name: input field "time" on measurement "m" '
        "is invalid. Field 'time' has been stripped from point. dropped=0 for database: 0f for retention policy: a"
    )

    assert isinstance(verdict(422, {"message": message}), RefusedSome)
    (refusal,) = verdict(422, {"message": message}, lines=LINES[:1]).refusals  # type: ignore[union-attr]
    assert "stored without" in refusal.reason


def test_500_of_a_line_that_the_engine_cannot_read_is_about_lines() -> None:
    found = verdict(500, {"message": "unexpected error writing points to database: engine: unable to parse bool value"})

    assert isinstance(found, RefusedSome)


@pytest.mark.parametrize(
    "phrase", ["queue length exceeded", "retention policy not found", "database is required", "x dropped=4"]
)
def test_phrases_inside_of_a_refused_line_prove_nothing(phrase: str) -> None:
    line = f'm s="{phrase}",f=x 1'
    quoted = {"message": f"unable to parse '{line}': invalid boolean"}
    doubtful = {"message": f"unable to parse '{line[1:]}': invalid boolean {phrase}"}
    numbered = {"error": phrase, "data": [{"error_message": phrase, "line_number": 9}]}

    assert isinstance(verdict(400, quoted, lines=[line, *LINES]), Refused)
    assert isinstance(verdict(400, doubtful, lines=[line, *LINES]), RefusedSome)
    assert isinstance(verdict(400, numbered, lines=[line, *LINES]), RefusedSome)


@pytest.mark.parametrize(
    "piece", ["unable to parse '", "': ", "'m': ", 'input field "', " dropped=1 for database: ", "exceeded limit of 1 "]
)
def test_an_answer_that_is_made_to_be_slow_is_not(piece: str) -> None:
    line = f'm s="{piece * (1_000_000 // len(piece))}" x'
    lines = [*(f"m{'m' * number}" for number in range(1000)), line]
    for body in (
        {"message": f"unable to parse '{line}': bad timestamp"},
        {"message": line},
        {"error": "x", "data": [{"error_message": line, "line_number": 1}]},
    ):
        for status in (400, 500):
            assert not isinstance(verdict(status, body, lines=lines), Accepted)


def test_words_are_one_line_without_control_characters() -> None:
    assert plain_words("a\x1b[31m\r\nb\u2028c", Scrubber(())) == "a [31m b c"
    assert len(plain_words("x" * 10_000, Scrubber(()))) == 401


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("0", 0.0),
        ("120", 120.0),
        ("1.5", 1.5),
        (" 3 ", 3.0),
        ("Tue, 14 Nov 2023 22:14:20 GMT", 60.0),
        ("Tuesday, 14-Nov-23 22:14:20 GMT", 60.0),
        ("Tue Nov 14 22:14:20 2023", 60.0),
        ("Tue, 14 Nov 2023 22:00:00 GMT", 0.0),
        ("-5", None),
        ("Wed, 15 Nov 2023 00:13:30 +0200", 10.0),
        ("Tue, 14 Nov 2023 22:13:30 -0000", 10.0),
        ("soon", None),
        ("", None),
        ("9" * 400, None),
        ("Tue, 99 Nov 2023 22:14:20 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str | None, seconds: float | None) -> None:
    assert parse_retry_after(value, NOW) == seconds


def test_retry_after_as_a_date_counts_by_the_servers_clock() -> None:
    headers = {"date": "Wed, 21 Oct 2015 07:28:00 GMT", "retry-after": "Wed, 21 Oct 2015 07:28:09 GMT"}

    found = verdict(429, b"", headers)

    assert isinstance(found, Unavailable)
    assert found.retry_after_seconds == 9.0


@given(
    st.integers(100, 999),
    st.binary(max_size=300)
    | st.text(max_size=100).map(str.encode)
    | st.sampled_from([b"{", b'{"error":3}', b'{"data":[1]}']),
    st.dictionaries(st.sampled_from(["retry-after", "date", "location", "content-type"]), st.text(max_size=30)),
    st.lists(st.text(max_size=20), min_size=1, max_size=4),
)
def test_every_answer_means_something(status: int, body: bytes, headers: dict[str, str], lines: list[str]) -> None:
    found = classify("v3", Answer(status, headers, body), lines, NOW)

    assert isinstance(found, Accepted | Refused | RefusedSome | TooLarge | Unavailable | Impossible)
    assert (found == Accepted()) == (status == 204)
    if isinstance(found, Refused):
        assert {refusal.line for refusal in found.refusals} <= set(range(len(lines)))
        assert found.refusals


def test_every_row_of_the_table_says_who_answers_so() -> None:
    assert [row for row in RULES[:-1] if not row.seen] == []


# --- lines ---


@given(
    st.lists(st.sampled_from(["class", "\\ ", "\\\\", ",from=", "ü"]), min_size=1, max_size=6).map("".join),
    st.text('a "\\,=\n', max_size=8),
    st.integers(-(2**63), 2**63 - 1),
)
@example("\\ ", "", 1)
def test_the_key_of_a_point_is_its_series_and_time(series: str, text: str, time: int) -> None:
    """A space in a name has a backslash before it; strings hold what they like."""
    assert point_key(f'{series}s s="{text}" {time}') == (f"{series}s", str(time))


@given(st.integers(0, 3), st.sampled_from(["", "#", "# m f=1", "\n", "\nm f=1", "m f=1", '"#" f=1', 'm s="\n#"']))
def test_blank_lines_and_comments_are_ignored(spaces: int, rest: str) -> None:
    assert is_ignored(" " * spaces + rest) is (rest[:1] in ("", "#", "\n"))


def test_bytes_of_a_line_are_those_of_utf_8() -> None:
    assert [line_bytes(text) for text in ("abc", "ä", "€", "😀")] == [3, 2, 3, 4]


# --- the machine ---


def test_backoff_doubles_to_its_cap_with_full_jitter() -> None:
    waits = [backoff_seconds(attempt, 1.0, first=0.5, cap=10.0) for attempt in range(1, 9)]

    assert waits == [0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0, 10.0]
    assert backoff_seconds(5, 0.0, first=0.5, cap=10.0) == 0.0
    assert backoff_seconds(10**9, 1.0, first=0.5, cap=10.0) == 10.0
    assert backoff_seconds(61, 1.0, first=2.0**-60, cap=10.0) == 1.0
    assert backoff_seconds(0, 0.25, first=0.5, cap=10.0) == 0.125


@dataclass
class Server:
    """A server with the configured faults: it stores what it acknowledges, in order."""

    bad: frozenset[str] = frozenset()
    killers: frozenset[str] = frozenset()
    failing: frozenset[str] = frozenset()
    max_bytes: int = 10**9
    style: str = "unnamed"  # how bad lines are refused: unnamed, named, partial (named, rest stored), dropped
    outage: list[Verdict] = field(default_factory=list)
    accidents: list[bool] = field(default_factory=list)
    """Which of the next requests without killers break by chance."""
    suspects: bool = False
    first_only: bool = False
    """A named answer names only the first bad line, as 3.x does where it may store nothing."""
    stored: dict[tuple[str, str], str] = field(default_factory=dict)
    requests: int = 0
    sizes: list[int] = field(default_factory=list)

    def write(self, lines: Sequence[str]) -> Verdict:
        self.requests += 1
        self.sizes.append(len(lines))
        if self.outage:
            return self.outage.pop(0)
        if sum(map(line_bytes, lines)) + len(lines) - 1 > self.max_bytes:
            return TooLarge("too large", None)
        if self.killers.intersection(lines):
            return Unavailable("reset", connection_died=True)
        if self.accidents and self.accidents.pop(0):
            return Unavailable("reset", connection_died=True)
        if self.failing.intersection(lines):
            return Unavailable(f"internal error {self.requests}", 500, suspicious=True)
        bad = [index for index, line in enumerate(lines) if line in self.bad]
        if not bad:
            self.store(lines)
            return Accepted()
        suspects = tuple(bad) if self.suspects else ()
        refusals = tuple(Refusal(index, "bad", 400) for index in (bad[:1] if self.first_only else bad))
        if self.style == "named":
            return Refused(refusals, rest_stored=False)
        if self.style in ("partial", "dropped"):
            self.store([line for line in lines if line not in self.bad])
            if self.style == "partial" or len(bad) == len(lines):
                return Refused(refusals, rest_stored=True)
        return RefusedSome("bad", 400, suspects)

    def store(self, lines: Sequence[str]) -> None:
        for line in lines:
            self.stored[point_key(line)] = line


def run(
    server: Server, lines: Sequence[str], policy: Policy | None = None, jitters: Sequence[float] = (0.5,)
) -> Done | Stop:
    """Drive the machine as `deliver` does, with a clock that jumps."""
    machine = Machine(lines, policy or Policy())
    now = 0.0
    for step in range(20_000):
        jitter = jitters[step % len(jitters)]
        match machine.next(now):
            case Send(indices):
                assert len(set(indices)) == len(indices) > 0
                machine.receive(server.write([lines[index] for index in indices]), now, jitter)
            case Probe():
                machine.probed(None, now, jitter)
            case Wait(seconds):
                assert seconds > 0
                now += seconds
            case Done() | Stop() as end:
                assert machine.next(now) is end
                return end
    raise AssertionError("the machine does not come to an end")


def points(count: int) -> list[str]:
    return [f"m,t=a f={number} {number}" for number in range(count)]


def refused_lines(end: Done | Stop, lines: Sequence[str]) -> list[str]:
    assert isinstance(end, Done)
    return [lines[refusal.line] for refusal in end.refusals]


@pytest.mark.parametrize("at", [0, 1, 2, 1249, 2499, 2500, 4095, 4096, 4998, 4999])
def test_one_bad_line_in_5000_is_found_with_at_most_26_requests(at: int) -> None:
    lines = points(5000)
    server = Server(bad=frozenset({lines[at]}))

    end = run(server, lines)

    assert refused_lines(end, lines) == [lines[at]]
    assert len(server.stored) == 4999
    assert server.requests <= 16


def test_one_bad_line_that_3x_names_costs_no_request() -> None:
    lines = points(5000)
    server = Server(bad=frozenset({lines[77]}), style="partial")

    assert refused_lines(run(server, lines), lines) == [lines[77]]
    assert server.requests == 1


def test_lines_named_by_2x_cost_one_request() -> None:
    lines = points(5000)
    server = Server(bad=frozenset(lines[::100]), style="named")

    assert refused_lines(run(server, lines), lines) == lines[::100]
    assert server.requests == 2


def test_half_of_the_lines_in_the_wrong_type_cost_three_requests() -> None:
    lines = points(5000)
    server = Server(bad=frozenset(lines[::2]), style="dropped", suspects=True)

    assert refused_lines(run(server, lines), lines) == lines[::2]
    assert server.requests == 3


@pytest.mark.parametrize(("every", "most"), [(1, 115), (2, 165), (5, 110), (10, 75)])
def test_the_more_lines_are_bad_the_fewer_are_looked_at_together(every: int, most: int) -> None:
    lines = points(100)
    server = Server(bad=frozenset(lines[::every]))

    assert refused_lines(run(server, lines), lines) == lines[::every]
    assert server.requests <= most


def test_when_most_are_bad_the_search_is_bounded_and_nothing_is_lost() -> None:
    lines = points(5000)
    server = Server(bad=frozenset(lines[1:]))

    end = run(server, lines, Policy(max_refused_requests=100))

    assert isinstance(end, Done)
    assert server.requests <= 2 * 100 + 2
    assert set(refused_lines(end, lines)) | set(server.stored.values()) == set(lines)
    assert {refusal.code for refusal in end.refusals} == {"IFX601", "IFX604"}


def test_where_each_answer_names_one_line_many_bad_ones_cost_no_good_one() -> None:
    """3.x with `accept_partial: false`."""
    lines = points(5000)
    server = Server(bad=frozenset(lines[::8]), style="named", first_only=True)

    end = run(server, lines)

    assert refused_lines(end, lines) == lines[::8]
    assert len(server.stored) == 5000 - 625
    assert server.requests == 626


def test_where_each_answer_names_one_line_and_most_are_bad_the_search_ends() -> None:
    lines = points(5000)
    server = Server(bad=frozenset(lines[1:]), style="named", first_only=True)

    end = run(server, lines)

    assert isinstance(end, Done)
    assert server.requests == 2500
    assert refused_lines(end, lines) == lines
    assert {refusal.code for refusal in end.refusals} == {"IFX601", "IFX604"}


def test_a_request_that_is_too_large_is_halved_by_bytes() -> None:
    lines = ["m f=1 1", *(f'm s="{"x" * 1000}" {number}' for number in range(8)), "m f=1 9"]
    server = Server(max_bytes=4100)

    assert refused_lines(run(server, lines), lines) == []
    assert server.requests <= 5


@given(st.lists(st.text(st.characters(exclude_characters="\n", codec="utf-8"), max_size=9), min_size=1))
def test_lines_are_read_of_the_body_that_was_kept_of_them(texts: list[str]) -> None:
    lines = RequestLines(texts)
    assert (lines.kept_bytes, lines.body) == (None, None)
    body = gzip.compress("\n".join(texts).encode())
    lines.keep(body)

    assert (len(lines), lines.kept_bytes, lines.body) == (len(texts), len(body), body)
    assert [*lines] == texts
    assert (lines[-1], lines[:2], lines.kept_bytes) == (texts[-1], texts[:2], None)


@pytest.mark.parametrize("letter", ["x", "ä", "語", "🜁"])
def test_sending_again_reads_no_line_of_the_kept_body(letter: str) -> None:
    """All requests that wait for a server would be in memory as lines at the moment when it is back."""
    texts = [f'm s="{letter * 100}" {number}' for number in range(50)]
    size = len("\n".join(texts).encode())
    lines = RequestLines(texts)
    machine = Machine(lines, Policy(max_bytes=size))
    for _ in range(3):
        assert machine.next(NOW) == Send(range(50))
        lines.keep(gzip.compress("\n".join(texts).encode()))
        machine.receive(Unavailable("away"), NOW, 0.0)
        machine.probed(None, NOW, 0.0)

    assert isinstance(machine.next(NOW), Send)
    assert lines.kept_bytes is not None


def test_one_line_that_is_too_large_alone_is_refused() -> None:
    lines = ["m f=1 1", f'm s="{"x" * 5000}" 2', "m f=1 3"]

    end = run(Server(max_bytes=3000), lines)

    assert refused_lines(end, lines) == [lines[1]]
    assert isinstance(end, Done)
    assert end.refusals[0].code == "IFX602"


@pytest.mark.parametrize(
    ("line", "series"),
    [
        ("yield f=1 5", "yield"),
        ("while\\ x,class=a\\ b f=1 5", "while\\ x,class=a\\ b"),
        ("\\ x f=1 5", "\\ x"),
        ("a\\  f=1 5", "a\\ "),
        ("a\\\\ b f=1 5", "a\\\\ b"),
        (" yield\\", ""),
    ],
)
def test_the_name_of_a_point_ends_at_the_first_space_without_a_backslash(line: str, series: str) -> None:
    assert point_key(line)[0] == series


def test_what_has_no_space_has_a_key() -> None:
    assert point_key("a\\b")[1] == "a\\b"


def test_a_limit_that_the_server_named_is_kept() -> None:
    lines = points(100)
    limit = ByteLimit(10**6)
    machine = Machine(lines, Policy(), limit=limit)
    machine.next(0)
    machine.receive(TooLarge("max request size (300 bytes) exceeded", 300), 0, 0)

    action = machine.next(0)

    assert isinstance(action, Send)
    assert sum(line_bytes(lines[index]) + 1 for index in action.lines) - 1 <= 300
    assert limit.bytes == 300
    for _ in range(100):
        limit.accepted(300)
    assert limit.bytes == 300


def test_an_inferred_limit_doubles_after_many_accepted_requests_near_it() -> None:
    limit = ByteLimit(1000)
    limit.refused(900, None)
    for _ in range(100):
        limit.accepted(100)  # far below the limit: this proves nothing
    assert limit.bytes == 450
    for _ in range(16):
        limit.accepted(400)
    assert limit.bytes == 900
    for _ in range(16):
        limit.accepted(900)
    assert (limit.bytes, limit.is_lowered) == (1000, False)


@pytest.mark.parametrize(
    ("size", "named", "expected", "is_kept"),
    [
        (900, None, 450, False),
        (900, 899, 899, True),
        (900, 1, 1, True),
        (900, 0, 450, False),  # no limit, or one that the request keeps to: the server means something else
        (900, 900, 450, False),
        (1, None, 1, False),
        (2001, None, 1000, False),
    ],
)
def test_a_limit_is_the_named_one_or_half_of_what_was_too_large(
    size: int, named: int | None, expected: int, is_kept: bool
) -> None:
    limit = ByteLimit(1000)
    limit.refused(size, named)

    assert limit.bytes == expected
    assert limit.is_lowered is (expected < 1000 and not is_kept)


def test_sixteen_accepted_requests_of_half_the_limit_double_it() -> None:
    limit = ByteLimit(1000)
    limit.refused(400, None)
    seen = []
    for size in [*[99] * 50, *[100] * 16, *[200] * 15]:
        limit.accepted(size)
        seen.append(limit.bytes)
    limit.refused(400, None)  # what was accepted before says nothing any more
    for _ in range(15):
        limit.accepted(200)
    seen.append(limit.bytes)

    assert seen == [*[200] * 65, 400, *[400] * 15, 200]


def test_many_requests_that_are_too_large_at_once_halve_the_limit_once() -> None:
    limit = ByteLimit(1000)
    for _ in range(8):
        limit.refused(1000, None)

    assert limit.bytes == 500


def test_a_moment_of_refusals_does_not_leave_requests_small() -> None:
    """Eight times 413, whatever the size: 5,000 lines are still sent in hundreds of requests, not thousands."""
    lines = points(5000)
    server = Server(outage=[TooLarge("413")] * 8)

    assert refused_lines(run(server, lines), lines) == []
    assert server.requests < 150


@given(
    accidents=st.lists(st.booleans(), max_size=120),
    killers=st.sets(st.integers(0, 39), max_size=3),
    max_lines=st.sampled_from([1, 2, 7, 40]),
)
def test_connections_that_break_by_chance_blame_no_line(
    accidents: list[bool], killers: set[int], max_lines: int
) -> None:
    """Chance breaks any request, but never three in a row of those that hold no killer."""
    lines = points(40)
    in_a_row, schedule = 0, []
    for breaks in accidents:
        in_a_row = in_a_row + 1 if breaks and in_a_row < 2 else 0
        schedule.append(in_a_row > 0)
    server = Server(killers=frozenset(lines[index] for index in killers), accidents=schedule)

    end = run(server, lines, Policy(max_lines=max_lines))

    assert refused_lines(end, lines) == [lines[index] for index in sorted(killers)]


def test_two_deaths_by_chance_blame_no_line_sent_alone_for_its_size() -> None:
    lines = points(20)
    death = Unavailable("reset", connection_died=True)
    policy = Policy(max_bytes=line_bytes(lines[0]) + 1)

    chance = run(Server(outage=[death, death]), lines, policy)
    server = Server(killers=frozenset({lines[0]}))
    killed = run(server, lines, policy)

    assert refused_lines(chance, lines) == []
    assert refused_lines(killed, lines) == [lines[0]]
    assert server.requests <= 6 + 19


@pytest.mark.parametrize("at", [0, 2500, 4999])
def test_a_line_that_kills_the_server_is_rejected_after_three_deaths(at: int) -> None:
    lines = points(5000)
    server = Server(killers=frozenset({lines[at]}))

    end = run(server, lines)

    assert refused_lines(end, lines) == [lines[at]]
    assert isinstance(end, Done)
    assert end.refusals[0].code == "IFX603"
    assert server.requests <= 27


def test_a_single_line_that_kills_the_server_is_sent_three_times() -> None:
    lines = points(1)
    server = Server(killers=frozenset(lines))

    assert refused_lines(run(server, lines), lines) == lines
    assert server.requests == 3


def test_a_server_that_is_simply_away_kills_no_line() -> None:
    lines = points(3)
    server = Server(outage=[Unavailable("connection refused")] * 500)

    assert refused_lines(run(server, lines), lines) == []
    assert set(server.sizes) == {3}


def test_after_a_death_the_server_is_looked_for_before_lines_are_sent() -> None:
    machine = Machine(points(2), Policy())
    machine.next(0)
    machine.receive(Unavailable("reset", connection_died=True), 0, 0)

    assert machine.next(0) == Probe()
    machine.probed(Unavailable("still away"), 0, 0.5)
    assert machine.next(0) == Wait(1.0, 2, "still away", away=False)
    assert machine.next(1.0) == Probe()
    machine.probed(None, 1.0, 0)
    assert machine.next(1.0) == Send(range(2))


def test_a_server_that_dies_whatever_is_sent_stops_the_run() -> None:
    end = run(Server(outage=[Unavailable("reset", connection_died=True)] * 500), points(5000))

    assert isinstance(end, Stop)
    assert end.code == "IFX608"


@pytest.mark.parametrize("at", [0, 2500, 4999])
def test_a_line_with_a_repeated_unknown_error_is_found(at: int) -> None:
    lines = points(5000)
    server = Server(failing=frozenset({lines[at]}))

    end = run(server, lines)

    assert refused_lines(end, lines) == [lines[at]]
    assert isinstance(end, Done)
    assert end.refusals[0].code == "IFX607"
    assert server.requests <= 30


def test_points_that_were_stored_beside_refused_ones_bear_witness_too() -> None:
    lines = points(4)
    server = Server(failing=frozenset(lines[:1]), bad=frozenset(lines[1:2]), style="partial")

    assert refused_lines(run(server, lines), lines) == lines[:2]
    assert list(server.stored.values()) == lines[2:]


def test_a_server_that_fails_on_everything_blames_no_line() -> None:
    lines = points(100)
    server = Server(outage=[Unavailable("internal error", 500, suspicious=True)] * 300)

    assert refused_lines(run(server, lines), lines) == []


def test_a_failing_server_stops_the_run_with_on_unavailable_stop() -> None:
    server = Server(outage=[Unavailable("internal error", 500, suspicious=True)] * 300)

    end = run(server, points(10), Policy(on_unavailable="stop"))

    assert isinstance(end, Stop)
    assert end.code == "IFX606"


def test_waits_grow_to_the_cap_without_end() -> None:
    machine = Machine(points(1), Policy(retry_backoff_seconds=1.0, max_backoff_seconds=8.0))
    now, waits = 0.0, []
    for _ in range(50):
        assert isinstance(machine.next(now), Send)
        machine.receive(Unavailable("away"), now, 1.0)
        action = machine.next(now)
        assert isinstance(action, Wait)
        waits.append((action.seconds, action.away))
        now += action.seconds

    assert waits[:5] == [(1.0, False), (2.0, False), (4.0, False), (8.0, True), (8.0, True)]
    assert waits[-1] == (8.0, True)


def test_retry_after_is_obeyed_up_to_the_cap() -> None:
    for asked, waited in ((5.0, 5.5), (10_000.0, 600.5), (0.0, 0.5)):
        machine = Machine(points(1), Policy())
        machine.next(0)
        machine.receive(Unavailable("slow down", 429, asked), 0, 0.5)

        assert machine.next(0) == Wait(waited, 1, "slow down", away=False)


def test_on_unavailable_stop_stops_after_the_retries() -> None:
    server = Server(outage=[Unavailable("away")] * 100)

    end = run(server, points(2), Policy(max_retries=3, on_unavailable="stop"))

    assert isinstance(end, Stop)
    assert end.code == "IFX606"
    assert server.requests == 4


def test_on_unavailable_dead_letter_refuses_what_is_left() -> None:
    lines = points(4)
    server = Server(outage=[Unavailable("away", 503)] * 100)

    end = run(server, lines, Policy(max_retries=0, on_unavailable="dead_letter"))

    assert isinstance(end, Done)
    assert [(refusal.line, refusal.status, refusal.code) for refusal in end.refusals] == [
        (line, 503, "IFX605") for line in range(4)
    ]


def test_impossible_stops_at_once() -> None:
    machine = Machine(points(1), Policy())
    machine.next(0)
    machine.receive(Impossible("no token", "set one", 401, "IFX721"), 0, 0)

    assert machine.next(0) == Stop("no token", "set one", "IFX721")


def test_nothing_to_send_is_done() -> None:
    assert Machine([], Policy()).next(0) == Done(())


def test_requests_keep_to_the_bounds_of_lines_and_bytes() -> None:
    lines = points(1000)
    server = Server()

    run(server, lines, Policy(max_lines=64, max_bytes=600))

    assert max(server.sizes) <= 64
    assert sum(server.sizes) == 1000


def test_a_request_may_be_just_as_large_as_its_bound() -> None:
    for most, sizes in ((23, [3]), (22, [2, 1])):
        server = Server()
        run(server, ["m f=1 1", "m f=2 2", "m f=3 3"], Policy(max_bytes=most))

        assert server.sizes == sizes


def test_two_lines_of_one_point_keep_their_order_whatever_is_refused() -> None:
    lines = [f"m,t=a f={number} {number % 7}" for number in range(50)]
    for style in ("unnamed", "dropped", "named", "partial"):
        for suspects in (False, True):
            server = Server(bad=frozenset(lines[3:40:5]), style=style, suspects=suspects)
            run(server, lines)
            expected = Server()
            expected.store([line for line in lines if line not in server.bad])

            assert server.stored == expected.stored


def test_a_wrong_hint_does_not_let_an_older_line_overwrite_a_newer_one() -> None:
    lines = ["m f=1 1", "m f=2 1", "m f=3 2", "m f=x 3"]
    server = Server(bad=frozenset(lines[3:]), outage=[RefusedSome("x", 400, (1, 3))])

    assert refused_lines(run(server, lines), lines) == lines[3:]
    assert list(server.stored.values()) == lines[1:3]


OUTAGES = [
    Unavailable("connection refused"),
    Unavailable("busy", 503, 2.0),
    Unavailable("timeout"),
    Unavailable("reset", connection_died=True),
    Unavailable("internal error", 500, suspicious=True),
]


@given(st.data())
def test_every_line_is_stored_or_refused_and_exactly_the_bad_are_refused(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 120), label="lines")
    lines = [
        f'm,t=a s="{"x" * data.draw(st.sampled_from([0, 0, 0, 50, 400]))}",f={number} {number}'
        for number in range(count)
    ]
    some = st.sets(st.sampled_from(lines), max_size=5).map(frozenset)
    bad = data.draw(st.one_of(some, st.just(frozenset(lines)), st.just(frozenset(lines[::2]))), label="bad")
    killers = data.draw(st.one_of(st.just(frozenset()), st.sets(st.sampled_from(lines), max_size=2).map(frozenset)))
    failing = data.draw(st.one_of(st.just(frozenset()), st.sets(st.sampled_from(lines), max_size=1).map(frozenset)))
    server = Server(
        bad=bad,
        killers=killers,
        failing=failing,
        max_bytes=data.draw(st.sampled_from([10**9, 2000, 300])),
        style=data.draw(st.sampled_from(["unnamed", "named", "partial", "dropped"])),
        suspects=data.draw(st.booleans()),
        outage=data.draw(st.lists(st.sampled_from(OUTAGES[:3]), max_size=30)),
    )
    large = {line for line in lines if line_bytes(line) > server.max_bytes}
    if not set(lines) - bad - killers - failing - large:
        server.failing = failing = frozenset()  # without an accepted line, the cause may be the server
    policy = Policy(max_lines=data.draw(st.sampled_from([5000, 40, 7])), max_refused_requests=10_000)

    end = run(server, lines, policy, data.draw(st.lists(st.floats(0.01, 0.99), min_size=1, max_size=5)))

    assert isinstance(end, Done)
    wrong = bad | killers | failing | large
    assert set(refused_lines(end, lines)) == wrong
    assert set(server.stored.values()) == set(lines) - wrong
    assert len(end.refusals) == len({refusal.line for refusal in end.refusals})


@given(st.data())
def test_whatever_a_server_answers_the_machine_ends_and_loses_nothing(data: st.DataObject) -> None:
    """A hostile server: any verdict for any request, then only `Accepted`."""
    lines = points(data.draw(st.integers(1, 40)))
    answers = st.one_of(
        st.sampled_from(
            [*OUTAGES, Accepted(), TooLarge("x"), TooLarge("x", 50), RefusedSome("x"), RefusedSome("x", 1, (0, 3, 99))]
        ),
        st.builds(
            Refused,
            st.lists(st.builds(Refusal, st.integers(-1, 41), st.just("x")), max_size=4).map(tuple),
            st.booleans(),
        ),
    )
    server = Server(outage=data.draw(st.lists(answers, max_size=60)))
    machine = Machine(lines, Policy(max_lines=data.draw(st.integers(1, 50))))
    settled: set[int] = set()
    now = 0.0
    for _ in range(5000):
        action = machine.next(now)
        if isinstance(action, Send):
            found = server.write([lines[index] for index in action.lines])
            if isinstance(found, Accepted):
                settled |= set(action.lines)
            if isinstance(found, Refused) and found.rest_stored:
                named = {refusal.line for refusal in found.refusals}
                if any(0 <= line < len(action.lines) for line in named):
                    settled |= {index for line, index in enumerate(action.lines) if line not in named}
            machine.receive(found, now, 0.5)
        elif isinstance(action, Probe):
            machine.probed(data.draw(st.sampled_from([None, None, Unavailable("away")])), now, 0.5)
        elif isinstance(action, Wait):
            now += action.seconds
        else:
            break
    else:
        raise AssertionError("the machine does not come to an end")

    assert isinstance(action, Done)
    assert settled | {refusal.line for refusal in action.refusals} == set(range(len(lines)))


def test_every_transition_of_the_table_happens_and_no_other() -> None:
    """Servers with random bad, deadly and failing lines: the table has no transition too many and none too few."""
    seen: set[tuple[Phase, Phase]] = set()

    for seed in range(600):
        random = Random(seed)
        lines = points(random.choice((1, 2, 3, 9)))
        server = Server(
            bad=frozenset(line for line in lines if random.random() < 0.1),
            killers=frozenset(line for line in lines if random.random() < random.choice((0.1, 0.5, 1))),
            failing=frozenset(line for line in lines if random.random() < random.choice((0.1, 0.5, 1))),
            style=random.choice(("unnamed", "named", "partial")),
        )
        odds = random.choice((0, 0.2, 0.6))
        machine, now = Machine(lines, Policy(max_lines=random.choice((1, 2, 50)))), 0.0
        for _ in range(300):
            before = machine.phase
            match machine.next(now):
                case Send(indices):
                    if random.random() < odds:
                        server.outage.append(random.choice([*OUTAGES, Accepted(), RefusedSome("x")]))
                    machine.receive(server.write([lines[index] for index in indices]), now, 0.5)
                case Probe():
                    machine.probed(None, now, 0.5)
                case Wait(seconds):
                    now += seconds
                case _:
                    break
            seen.add((before, machine.phase))

    table = {(phase, follows) for phase, others in TRANSITIONS.items() for follows in others}
    assert {(before, after) for before, after in seen if before is not after} == table


# --- what mutants of the machine showed: a search that begins anew, witnesses, order ---

SUSPICIOUS = Unavailable("internal error", 500, suspicious=True)


def driven(machine: Machine, answer: Callable[[Sequence[int], int], Verdict], most: int = 400) -> list[Sequence[int]]:
    """Answer each request, until the machine ends; return the requests.  `answer` gets the lines and their number.

    After a failure the machine waits.
    """
    sent: list[Sequence[int]] = []
    now = 0.0
    while len(sent) < most:
        action = machine.next(now)
        if isinstance(action, Send):
            sent.append(tuple(action.lines))
            verdict = answer(action.lines, len(sent))
            machine.receive(verdict, now, 0.5)
            assert not isinstance(verdict, Unavailable) or not isinstance(machine.next(now), Send | Probe)
        elif isinstance(action, Wait):
            now += action.seconds
        elif isinstance(action, Probe):
            machine.probed(None, now, 0.5)
        else:
            break
    return sent


def test_the_first_request_has_all_lines() -> None:
    assert Machine(points(7), Policy()).next(0.0) == Send(range(7))


def test_what_was_accepted_before_a_search_is_no_witness() -> None:
    """A server that fails from the second request on fails itself: no line is blamed, however often it fails."""
    machine = Machine(points(3), Policy(max_lines=1, max_retries=2))

    driven(machine, lambda _, number: SUSPICIOUS if 1 < number < 60 else Accepted())

    assert machine.next(1e9) == Done(())


def test_a_line_that_was_accepted_during_the_search_is_not_sent_again() -> None:
    """It is the witness already."""
    machine = Machine(points(2), Policy(max_retries=1))

    sent = driven(machine, lambda lines, _: SUSPICIOUS if 1 in lines else Accepted())

    assert [lines for lines in sent if 0 in lines and 1 not in lines] == [(0,)]
    done = machine.next(1e9)
    assert isinstance(done, Done)
    assert [refusal.line for refusal in done.refusals] == [1]


def test_where_the_server_itself_fails_the_lines_that_waited_are_sent_once() -> None:
    """Both lines failed alone, so no line is blamed; afterwards nothing waits behind the others any more."""
    machine = Machine(["stove heat=1 1", "oven heat=1 1"], Policy(max_retries=0))
    now, sent = 0.0, []
    while machine.phase is not Phase.FAILING:
        assert isinstance(machine.next(now), Send)
        machine.receive(Unavailable("fault 7", 500, suspicious=True), now, 0.5)
        now += 1000.0
    while isinstance(action := machine.next(now), Send):
        sent += list(action.lines)
        machine.receive(Accepted(), now, 0.5)

    assert (sent, action) == ([0, 1], Done(()))


def test_a_delivery_whose_lines_are_all_settled_is_done_whatever_fails_afterwards() -> None:
    """The server died of its only line; that others fail since then is nothing to this delivery."""
    outage = Outage()
    machine = Machine(points(1), Policy(max_retries=5, on_unavailable="stop"), outage=outage)
    for attempt in range(3):
        now = 1000.0 * attempt
        while not isinstance(machine.next(now), Send):
            machine.probed(None, now, 0.5)
        machine.receive(Unavailable("broken pipe", connection_died=True), now, 0.5)
    for attempt in range(10):
        outage.failed("broken pipe", 10_000.0 * (attempt + 1), 0.5, first=1.0, cap=30.0)

    done = machine.next(200_000.0)

    assert isinstance(done, Done)
    assert [refusal.code for refusal in done.refusals] == ["IFX603"]
    assert done.refusals[0].vague is not None


def test_a_server_that_fails_itself_is_not_searched_for_a_line_again() -> None:
    machine = Machine(points(2), Policy(max_retries=0))
    for attempt in range(30):
        assert isinstance(machine.next(1000.0 * attempt), Send)
        machine.receive(Unavailable("fault 7", 500, suspicious=True), 1000.0 * attempt, 0.5)

    assert machine.phase is Phase.FAILING
    action = machine.next(1e9)
    assert isinstance(action, Send)
    assert list(action.lines) == [0, 1]


def test_after_a_connection_broke_a_delivery_wants_to_be_alone() -> None:
    machine = Machine(points(2), Policy())
    assert isinstance(machine.next(0.0), Send)
    assert not machine.wants_to_be_alone
    machine.receive(Unavailable("broken pipe", connection_died=True), 0.0, 0.5)

    assert machine.wants_to_be_alone


def test_a_search_that_found_nothing_ends_with_its_last_suspect() -> None:
    machine = Machine(points(8), Policy(max_lines=4))
    widths = []
    while isinstance(action := machine.next(0.0), Send):
        widths.append(len(action.lines))
        machine.receive(RefusedSome("no") if len(widths) == 1 else Accepted(), 0.0, 0.5)

    assert widths == [4, 2, 1, 1, 2, 2]


@pytest.mark.parametrize(
    ("limit", "vague"), [(None, "large"), (10**6, "large"), (len(points(1)[0]) + 1, "large"), (5, None)]
)
def test_a_line_that_is_smaller_than_the_named_limit_is_not_to_blame(limit: int | None, vague: str | None) -> None:
    machine = Machine(points(1), Policy())
    assert isinstance(machine.next(0.0), Send)
    machine.receive(TooLarge("large", limit), 0.0, 0.5)

    done = machine.next(0.0)

    assert isinstance(done, Done)
    assert [(refusal.code, refusal.vague) for refusal in done.refusals] == [("IFX602", vague)]


@pytest.mark.parametrize(
    ("others", "then"),
    [
        (["shelf heat=1 1", "rack heat=2 1"], [[0, 1, 2]]),
        (["rack heat=2 1", "shelf heat=1 1"], [[0, 1, 2]]),
        (["shelf heat=1 1", "rack heat=2 2"], [[1, 2], [0]]),
    ],
    ids=["the last of the same point", "the next of the same point", "of other points"],
)
def test_a_line_that_failed_alone_waits_behind_the_others_unless_one_writes_its_point(
    others: list[str], then: list[list[int]]
) -> None:
    machine = Machine(["rack heat=1 1", *others], Policy(max_retries=0))
    sent = []
    for attempt in range(2 + len(then)):
        action = machine.next(1000.0 * attempt)
        assert isinstance(action, Send)
        sent.append(list(action.lines))
        failure = Unavailable("fault 7", 500, suspicious=True)
        machine.receive(failure if attempt < 2 else Accepted(), 1000.0 * attempt, 0.5)

    assert sent == [[0, 1, 2], [0], *then]
    assert machine.next(1e9) == Done(())


def test_two_lines_of_one_point_never_change_places() -> None:
    machine = Machine(["rack heat=1 1", "rack heat=2 1"], Policy())
    assert isinstance(machine.next(0.0), Send)
    machine.receive(RefusedSome("field type conflict", 400, suspects=(1, 0)), 0.0, 0.5)

    action = machine.next(0.0)
    assert isinstance(action, Send)
    assert list(action.lines) == [0]


def test_a_request_of_four_byte_characters_keeps_to_the_limit() -> None:
    action = Machine(["\N{FIRE}" * 100] * 3, Policy(max_bytes=1_195)).next(0.0)

    assert isinstance(action, Send)
    assert list(action.lines) == [0, 1]


def test_a_line_that_was_stored_bears_witness_and_then_each_line_is_sent_once() -> None:
    """Both other lines failed alone: the stored one shows that the server works by now."""
    machine = Machine(points(3), Policy(max_lines=1, max_retries=0))
    sent = []
    while isinstance(action := machine.next(1000.0 * len(sent)), Send):
        failure = Unavailable("fault 7", 500, suspicious=True)
        machine.receive(failure if len(sent) in (1, 2) else Accepted(), 1000.0 * len(sent), 0.5)
        sent.append(list(action.lines))

    assert sent == [[0], [1], [2], [0], [1], [2]]
    assert action == Done(())


def test_a_refusal_of_a_line_that_was_not_sent_names_no_line() -> None:
    machine = Machine(points(2), Policy(max_lines=1))
    assert machine.next(0.0) == Send(range(1))
    machine.receive(Refused((Refusal(1, "no"),), rest_stored=True), 0.0, 0.5)

    assert machine.next(0.0) == Send(range(1, 2))
    machine.receive(Accepted(), 0.0, 0.5)
    done = machine.next(0.0)
    assert isinstance(done, Done)
    assert [refusal.line for refusal in done.refusals] == [0]


@pytest.mark.parametrize("blames_lines", [True, False])
def test_lines_that_are_rejected_when_a_search_ends_are_in_doubt_where_the_words_name_none(blames_lines: bool) -> None:
    machine = Machine(points(4), Policy(max_refused_requests=1))
    assert isinstance(machine.next(0.0), Send)
    machine.receive(RefusedSome("no", 400, blames_lines=blames_lines), 0.0, 0.5)

    done = machine.next(0.0)

    assert isinstance(done, Done)
    assert [refusal.vague for refusal in done.refusals] == [None if blames_lines else "no"] * 4


def test_a_suspect_that_was_not_sent_is_none() -> None:
    machine = Machine(points(2), Policy())
    assert isinstance(machine.next(0.0), Send)
    machine.receive(RefusedSome("no", suspects=(2, -1)), 0.0, 0.5)

    assert machine.next(0.0) == Send(range(1))


@pytest.mark.parametrize(("count", "ended_after"), [(2, 1), (8, 4)])
def test_where_each_answer_names_a_line_the_search_goes_on_for_half_of_them(count: int, ended_after: int) -> None:
    """The lines that are left are not in doubt: the server named those before them."""
    machine = Machine(points(count), Policy(max_refused_requests=1))
    requests = 0
    while isinstance(action := machine.next(0.0), Send):
        requests += 1
        machine.receive(Refused((Refusal(0, "no"),), rest_stored=False), 0.0, 0.5)

    assert requests == ended_after
    assert isinstance(action, Done)
    assert [refusal.vague for refusal in action.refusals] == [None] * count


@pytest.mark.parametrize(("suspects", "first", "second"), [((), 0, 1), ((1, 0), 1, 0)])
def test_what_was_accepted_in_a_search_for_rejected_lines_is_no_witness_of_a_failure(
    suspects: tuple[int, ...], first: int, second: int
) -> None:
    machine = Machine(points(2), Policy(max_retries=0))
    verdicts = [RefusedSome("no", suspects=suspects), Accepted(), Unavailable("fault 7", 500, suspicious=True)]
    sent = []
    for number, each in enumerate([*verdicts, Accepted()]):
        action = machine.next(1000.0 * number)
        assert isinstance(action, Send)
        sent.append(list(action.lines))
        machine.receive(each, 1000.0 * number, 0.5)

    assert sent == [[0, 1], [first], [second], [first]]


def test_what_an_operator_must_correct_stops_a_witness_too() -> None:
    machine = Machine(points(2), Policy(max_lines=1, max_retries=0))
    failure = Unavailable("fault 7", 500, suspicious=True)
    for number, each in enumerate([Accepted(), failure, Impossible("no such token", code="IFX721")]):
        assert isinstance(machine.next(1000.0 * number), Send)
        machine.receive(each, 1000.0 * number, 0.5)

    assert machine.phase is Phase.CALLING_WITNESS
    assert machine.next(1e9) == Stop("no such token", None, "IFX721")


def test_only_what_the_server_took_shows_that_larger_requests_fit() -> None:
    """A request that was not answered, or was too large as well, does not raise the limit."""
    limit = ByteLimit(1_000)
    limit.refused(500, None)
    before = limit.bytes
    for answer_to_all in (Unavailable("busy", 503), TooLarge("large", 10_000)):
        for _ in range(100):
            machine = Machine(["kiln heat=1 1" * (before // 13 - 1)], Policy(), limit=limit)
            assert isinstance(machine.next(0.0), Send)
            machine.receive(answer_to_all, 0.0, 0.5)

    assert limit.bytes <= before


def test_suspects_in_another_order_are_sent_in_that_order() -> None:
    """The server's words fit some lines better: similar lines come together, so that half of them tells most."""
    machine = Machine(points(4), Policy())
    assert machine.next(0.0) == Send(range(4))
    machine.receive(RefusedSome("field type conflict", 400, suspects=(2, 0, 3, 1)), 0.0, 0.5)

    assert machine.next(0.0) == Send([2, 0])


@given(st.data())
def test_a_server_that_fails_for_a_while_blames_no_line(data: st.DataObject) -> None:
    """Exactly the bad lines are refused: an answer before the failures does not show that the server works."""
    count = data.draw(st.integers(2, 6))
    bad = data.draw(st.sets(st.integers(0, count - 1), min_size=1, max_size=2))
    failure = data.draw(st.sampled_from([SUSPICIOUS, Unavailable("reset", connection_died=True)]))
    first = data.draw(st.integers(1, 6))
    fails = range(first, first + data.draw(st.integers(3, 11)))
    names_lines, is_rest_stored, hints = (data.draw(st.booleans()) for _ in range(3))
    machine = Machine(points(count), Policy(max_lines=data.draw(st.integers(1, 4)), max_retries=2))

    def answer(lines: Sequence[int], number: int) -> Verdict:
        if number in fails:
            return failure
        found = [at for at, line in enumerate(lines) if line in bad]
        if not found:
            return Accepted()
        if names_lines:
            return Refused(tuple(Refusal(at, "bad") for at in found), rest_stored=is_rest_stored)
        return RefusedSome("bad", suspects=tuple(reversed(range(len(lines)))) if hints else ())

    driven(machine, answer)

    end = machine.next(1e9)
    assert isinstance(end, Done)
    assert {refusal.line for refusal in end.refusals} == bad


def test_an_answer_before_the_first_failure_does_not_show_that_the_server_works() -> None:
    machine = Machine(points(2), Policy())
    died = Unavailable("reset", connection_died=True)

    driven(machine, lambda _, number: TooLarge("413") if number == 1 else died if number < 5 else Accepted())

    assert machine.next(1e9) == Done(())


def test_failures_of_other_deliveries_use_up_the_retries_of_one_that_failed() -> None:
    outage, policy = Outage(), Policy(max_retries=1, on_unavailable="stop")
    first, second = (Machine(points(1), policy, outage=outage) for _ in range(2))
    for machine, now in ((first, 0.0), (second, 1.0)):
        assert isinstance(machine.next(now), Send)
        machine.receive(Unavailable("refused"), now, 0.5)

    assert isinstance(first.next(1.0), Stop)
    assert isinstance(second.next(1.0), Wait)


def test_failures_of_a_request_do_not_count_for_a_line_of_it() -> None:
    """It is suspected when it has failed alone, and as often."""
    machine = Machine(points(2), Policy(max_retries=2))

    sent = driven(machine, lambda *_: SUSPICIOUS, most=7)

    assert sent == [*[(0, 1)] * 3, *[(0,)] * 3, (1,)]


@pytest.mark.parametrize("rest_stored", [True, False])
def test_a_server_that_names_a_line_works_again(rest_stored: bool) -> None:
    machine = Machine(points(9), Policy(max_lines=1, max_retries=0))
    driven(machine, lambda *_: SUSPICIOUS, most=4)
    assert machine.phase is Phase.FAILING

    driven(machine, lambda *_: Refused((Refusal(0, "bad"),), rest_stored), most=1)

    assert machine.phase is Phase.DELIVERING


def test_a_search_has_its_own_retries() -> None:
    """So a line that makes the server fail is found before the retries are used up."""
    machine = Machine(points(4), Policy(max_retries=2, on_unavailable="stop"))

    driven(machine, lambda lines, _: SUSPICIOUS if 1 in lines else Accepted())

    end = machine.next(1e9)
    assert isinstance(end, Done)
    assert [refusal.line for refusal in end.refusals] == [1]


def test_where_the_server_itself_fails_the_retries_are_used_up() -> None:
    machine = Machine(points(2), Policy(max_lines=1, max_retries=8, on_unavailable="stop"))

    sent = driven(machine, lambda *_: Unavailable("reset", connection_died=True))

    assert sent == [(0,), (0,), (0,), (1,), (1,), (1,)]
    assert isinstance(machine.next(1e9), Stop)


def test_a_transition_that_is_not_in_the_table_is_a_bug() -> None:
    machine = Machine(points(1), Policy())
    machine._enter(Phase.FAILING)

    with pytest.raises(AssertionError, match="never follows"):
        machine._enter(Phase.CALLING_WITNESS)


@pytest.mark.parametrize("named", [-1, 9])
def test_a_refusal_of_a_line_that_was_not_sent_is_a_refusal_of_some_line(named: int) -> None:
    machine = Machine(points(2), Policy())

    driven(machine, lambda lines, _: Refused((Refusal(named, "bad"),), True) if 1 in lines else Accepted(), most=20)

    end = machine.next(1e9)
    assert isinstance(end, Done)
    assert [refusal.line for refusal in end.refusals] == [1]


def test_a_server_to_which_every_line_is_too_large_is_not_sent_each_of_them() -> None:
    machine = Machine(points(9), Policy(max_lines=1, max_refused_requests=3))

    sent = driven(machine, lambda *_: TooLarge("413"))

    assert sent == [(0,), (1,), (2,)]
    end = machine.next(1e9)
    assert isinstance(end, Done)
    assert [refusal.line for refusal in end.refusals] == list(range(9))


def test_suspects_are_sent_first_and_without_others() -> None:
    machine = Machine(points(8), Policy())

    sent = driven(machine, lambda lines, _: RefusedSome("bad", suspects=(5, 3)) if len(lines) > 2 else Accepted(), 2)

    assert sent == [tuple(range(8)), (5, 3)]


def test_lines_that_wait_behind_the_others_are_given_up_with_them() -> None:
    machine = Machine(points(3), Policy(max_lines=1, max_retries=1, on_unavailable="dead_letter"))

    sent = driven(machine, lambda *_: SUSPICIOUS)

    assert sent == [(0,), (0,)]
    end = machine.next(1e9)
    assert isinstance(end, Done)
    assert [refusal.line for refusal in end.refusals] == [0, 1, 2]


def test_a_server_that_fails_on_four_lines_and_stored_none_fails_itself() -> None:
    machine = Machine(points(9), Policy(max_lines=1, max_retries=0))

    sent = driven(machine, lambda *_: SUSPICIOUS, most=4)

    assert sent == [(0,), (1,), (2,), (3,)]
    assert machine.phase is Phase.FAILING


def test_a_line_that_kills_the_server_is_blamed_where_the_witness_is_refused_by_now() -> None:
    """The stored line is beyond the retention, for example: its refusal must not hide the deaths without end."""
    lines = ["kiln,id=a glow=1 0", "kiln,id=b glow=2 1", "kiln,id=c glow=3 2"]
    machine, now, stored = Machine(lines, Policy(max_backoff_seconds=1.0)), 0.0, 0
    for _ in range(1_000):
        match machine.next(now):
            case Send(indices) if 0 in indices or 2 in indices:
                machine.receive(Unavailable("reset", connection_died=True), now, 0.5)
            case Send() if stored:
                machine.receive(RefusedSome("beyond the retention", 400), now, 0.5)
            case Send():
                stored += 1
                machine.receive(Accepted(), now, 0.5)
            case Probe():
                machine.probed(None, now, 0.5)
            case Wait() as wait:
                now += wait.seconds
            case Done(refusals):
                assert [each.line for each in refusals] == [0, 2]
                return
            case Stop() as stop:
                raise AssertionError(stop)
    raise AssertionError("it goes on without end")
