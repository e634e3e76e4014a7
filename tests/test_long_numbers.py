"""Numbers of thousands of digits, which Python refuses to convert: in variables, options and statements."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

import pytest
from shell import iggyflux
from test_broken_paths import MAPPING, is_clear

from iggyflux.delivery.answers import parse_retry_after
from iggyflux.sim.queries import QueryError
from iggyflux.sim.queries.flux_script import evaluate
from iggyflux.sim.queries.tokens import TokenCursor
from iggyflux.transports.urls import AddressError, parse_address

DIGITS = [20, 400, 5_000, 100_000]
KEYS = ("batch_size", "linger", "max_retries", "timeout")
VALUES = ("{}", "'{}'", "{}s", "{}GB", "'${{NUMBER}}'", "'${{NUMBER}}s'")


@pytest.mark.parametrize("digits", DIGITS[:3])
def test_a_long_number_in_a_pipeline_is_a_problem(digits: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Written in the file, or from a variable."""
    monkeypatch.chdir(tmp_path)
    Path("m.yaml").write_text(MAPPING)
    number = "9" * digits
    monkeypatch.setenv("NUMBER", number)
    for key in KEYS:
        for value in VALUES:
            server = f"url: 'http://127.0.0.1:1', org: o, bucket: b, token: t, {key}: {value.format(number)}"
            Path("p.yaml").write_text(
                f"iggyflux: 1\nfrom: log:data\ninfluxdb: {{{server}}}\nrun: [{{mapping: m.yaml}}]\n"
            )

            assert is_clear(iggyflux("validate", "p.yaml")), (key, value)


@pytest.mark.parametrize("digits", DIGITS)
@pytest.mark.parametrize("text", ["{}", "http://h:{}", "http://[{}::1]", "http://{}", "1.{}"])
def test_a_long_number_in_an_address_takes_no_time(digits: int, text: str) -> None:
    started = time.thread_time()
    with suppress(AddressError):
        parse_address(text.format("9" * digits))

    assert time.thread_time() - started < 1.0


@pytest.mark.parametrize("digits", DIGITS)
@pytest.mark.parametrize("text", ["{}", "{}.5", "Wed, {} Oct 2015 07:28:00 GMT", "Wed, 21 Oct {} 07:28:00 GMT"])
def test_a_long_number_of_seconds_or_in_a_date_is_none_to_wait_for(digits: int, text: str) -> None:
    assert parse_retry_after(text.format("9" * digits), 0.0) is None


@pytest.mark.parametrize("digits", DIGITS[1:])
@pytest.mark.parametrize("unit", ["", "s"])
def test_a_long_number_in_a_statement_to_the_simulator_is_its_error(digits: int, unit: str) -> None:
    number = "9" * digits + unit
    with pytest.raises(QueryError):
        list(evaluate(f"x = {number}\nx", {}))
    for sql in (False, True):
        cursor = TokenCursor(f"{number} x", sql)
        cursor.next()

        assert cursor.peek().kind in ("number", "duration")
