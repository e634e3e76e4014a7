"""What an answer to a query means where it is no rows: one table, read from the top, the first row that fits decides.

As with writes, status alone misleads: 3.x says 500 to a statement that it cannot parse, 1.x says 200 to a database
that is not there, 2.x says 400 when it is busy.  So a row looks at status *and* words; words inside a 200 count as
the status 200.  The wordings were taken from real servers (1.6, 2.9, 3.6) and from their sources.  Pure.
"""

from __future__ import annotations

import re
from collections.abc import Container
from dataclasses import dataclass
from typing import Final, Literal

from iggyflux.delivery.answers import Answer, Case, plain_words
from iggyflux.errors import NotConnected, Stopped, TooMuch
from iggyflux.secrets import Scrubber

Kind = Literal["away", "too much", "empty", "stopped"]


@dataclass(frozen=True, slots=True)
class Row:
    """`status` and, where given, `words` and `page` must fit; `code` and `hint` are those of `stopped`."""

    status: Container[int]
    kind: Kind
    words: re.Pattern[str] | None = None
    page: bool | None = None
    code: str = "IFX742"
    hint: str = ""
    seen: str = ""

    def fits(self, status: int, words: str, is_page: bool) -> bool:
        return (
            status in self.status
            and (self.page is None or self.page == is_page)
            and (self.words is None or self.words.search(words) is not None)
        )


def _words(*alternatives: str) -> re.Pattern[str]:
    return re.compile("|".join(alternatives), re.IGNORECASE)


_ANY = range(100, 1000)
_SAID = frozenset({200, 400, 404, 422, 500})
_ADDRESS = "check that `url` is the address of InfluxDB (with its path, behind a proxy), and check `flavor`"

ROWS: Final[tuple[Row, ...]] = (
    Row(
        {401},
        "stopped",
        code="IFX721",
        hint="check `token` (2.x, 3.x), or `username` and `password` (1.x)",
        seen="wrong or missing credentials",
    ),
    Row(
        {403},
        "stopped",
        _words("flux.*(disabled|not enabled)"),
        code="IFX743",
        hint="set `language: influxql`: Flux is disabled on this server",
        seen="1.8",
    ),
    Row(
        {403},
        "stopped",
        code="IFX741",
        hint="grant read permission to these credentials",
        seen="no read permission; 2.x also: an inactive token",
    ),
    Row({407}, "stopped", code="IFX726", hint="a proxy requires credentials: put them into HTTPS_PROXY or HTTP_PROXY"),
    Row(
        range(300, 400),
        "stopped",
        code="IFX725",
        hint="set `url` to InfluxDB itself; redirects are not followed, since the token would be sent along",
        seen="load balancers",
    ),
    Row({413}, "stopped", code="IFX742", hint="name fewer `fields`: the statement is too long", seen="proxies"),
    Row({408, 425, 429, 502, 503, 504, 509, *range(520, 528), 530}, "away", seen="overload and balancers"),
    Row(range(400, 500), "stopped", page=True, code="IFX740", hint=_ADDRESS, seen="web servers, firewalls"),
    Row(range(500, 600), "away", page=True, seen="balancers whose server is away"),
    Row(range(200, 300), "stopped", page=True, code="IFX740", hint=_ADDRESS, seen="2.x serves its interface as 200"),
    Row(
        _SAID,
        "stopped",
        _words(
            "database not found",
            r"bucket .*not found",
            "not find bucket",
            "no dbrp mapping",
            "organization name .* not found",
            "retention policy not found",
        ),
        code="IFX723",
        hint="correct `database`, `bucket` or `org`; they are also hidden from a token without read permission",
        seen="1.x and 2.x InfluxQL say it within a 200",
    ),
    Row(
        _SAID,
        "too much",
        _words(
            "file limit",
            "max-select-(point|series|buckets)",
            "query-timeout limit",
            "timeout.* reached|exceeded.*timeout|query timed out",
            "memory allocation limit reached",
            "exceeds the (file|partition) limit",
            "would scan \\d+ ",
            "resources exhausted",
            "too many (points|series|files)",
            "context deadline exceeded",
        ),
        seen="3.x Core: 432 files; limits of 1.x and 2.x on memory, points, series, time",
    ),
    Row(
        _SAID,
        "away",
        _words(
            "queue length exceeded",
            "max-concurrent-queries",
            "too many concurrent",
            "shutting down",
            "shut down",
            "(engine|shard|store|tsdb) is (closed|disabled)",
            "engine: closed",
            "query (was )?(killed|interrupted|cancell?ed)",
            "too many open files",
            "connection (refused|reset)",
            "unexpected EOF",
            "no space left on device",
        ),
        seen="passing faults as 200, 400 and 500",
    ),
    Row(
        {400, 404, 500},
        "empty",
        _words(r"table '.*' not found", "measurement not found"),
        seen="3.x: nothing was written to this measurement yet",
    ),
    Row(
        _SAID,
        "stopped",
        _words("a panic has occurred", "panic:"),
        code="IFX745",
        hint="set `language: influxql`: Flux fails on these series (for example with a tag named `_time` or `_value`)",
        seen="2.x: a tag key that Flux keeps for itself",
    ),
    Row({404, 405, 501}, "stopped", code="IFX743", hint=_ADDRESS, seen="the server has no such endpoint"),
    Row(
        _SAID,
        "stopped",
        _words(
            "error parsing query",
            "failed to parse query",
            "parsing error",
            "error while planning",
            "SQL error",
            "schema error",
            "compilation failed",
            "error in building plan",
            "type error",
            "undefined (identifier|function)",
            "invalid statement",
            "runtime error",
            "not implemented",
            "not supported",
            "mixing aggregate",
            "schema collision",
            "unsupported",
            "must be|must not|cannot",
        ),
        hint="correct the statement, or the names, in the mapping",
        seen="statements that no repetition heals; 3.x says 500",
    ),
    Row({200, 400, 422}, "stopped", hint="correct the statement, or the names, in the mapping"),
    Row(range(500, 600), "away", seen="everything else that is the server's"),
    Row(_ANY, "stopped", code="IFX740", hint=_ADDRESS),
)


def judge(answer: Answer, now: float) -> NotConnected | TooMuch | Stopped | None:
    """What an answer that is no rows means; None where the measurement is only not there yet."""
    case = Case("v2", answer, (), now)
    row = _row_of(answer.status, case.gist, case.is_page)
    return _error(row, case.told, case.retry_after_seconds)


def judge_words(message: str, scrub: Scrubber) -> NotConnected | TooMuch | Stopped | None:
    """What an error inside a 200 means."""
    row = _row_of(200, message, is_page=False)
    return _error(row, f"the server answered within 200: {plain_words(message, scrub)}", None)


def _row_of(status: int, words: str, is_page: bool) -> Row:
    return next(row for row in ROWS if row.fits(status, words, is_page))


def _error(row: Row, told: str, retry_after_seconds: float | None) -> NotConnected | TooMuch | Stopped | None:
    match row.kind:
        case "empty":
            return None
        case "away":
            return NotConnected(told, retry_after_seconds=retry_after_seconds)
        case "too much":
            return TooMuch(told)
        case "stopped":
            return Stopped(told, row.hint, row.code)
