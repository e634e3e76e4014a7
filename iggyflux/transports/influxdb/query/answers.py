"""Classify an answer to a query that has no rows: a table of rules, of which the first that matches decides.

As with writes, the status alone misleads: 3.x answers 500 to a statement that it cannot parse, 1.x answers 200 to a
missing database, 2.x answers 400 when it is busy.  So a rule looks at the status *and* the words; words inside a 200
are judged as the status 200.  The wordings come from real servers (1.6, 2.9, 3.6) and their sources.  Pure.
"""

from __future__ import annotations

import re
from collections.abc import Container
from dataclasses import dataclass
from typing import Final, Literal

from iggyflux.delivery.answers import Answer, AnsweredRequest, gist_of, plain_words, refused_by_proxy
from iggyflux.errors import NotConnected, Stopped, TooMuch
from iggyflux.secrets import Scrubber

Kind = Literal["away", "too much", "empty", "stopped"]


@dataclass(frozen=True, slots=True)
class QueryRule:
    """A rule matches where `status` and, if given, `words` and `page` match; `code` and `hint` are for `stopped`."""

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

RULES: Final[tuple[QueryRule, ...]] = (
    QueryRule(
        {401},
        "stopped",
        code="IFX721",
        hint="check `token` (2.x, 3.x), or `username` and `password` (1.x, and 2.x with `flavor: v1`)",
        seen="wrong or missing credentials",
    ),
    QueryRule(
        {403},
        "stopped",
        _words("flux.{0,80}(disabled|not enabled)"),
        code="IFX743",
        hint="set `language: influxql`: Flux is disabled on this server",
        seen="1.8",
    ),
    QueryRule(
        {403},
        "stopped",
        code="IFX741",
        hint="grant read permission to these credentials",
        seen="no read permission; 2.x also: an inactive token",
    ),
    QueryRule({407}, "stopped", code="IFX726", hint="put the proxy's user and password into HTTPS_PROXY or HTTP_PROXY"),
    QueryRule(
        range(300, 400),
        "stopped",
        code="IFX725",
        hint="set `url` to InfluxDB itself; redirects are not followed, since the token would be sent along",
        seen="load balancers",
    ),
    QueryRule({413}, "stopped", code="IFX742", hint="name fewer `fields`: the statement is too long", seen="proxies"),
    QueryRule({408, 425, 429, 502, 503, 504, 509, *range(520, 528), 530}, "away", seen="overload and balancers"),
    QueryRule(range(400, 500), "stopped", page=True, code="IFX740", hint=_ADDRESS, seen="web servers, firewalls"),
    QueryRule(range(500, 600), "away", page=True, seen="balancers whose server is away"),
    QueryRule(
        range(200, 300), "stopped", page=True, code="IFX740", hint=_ADDRESS, seen="2.x serves its interface as 200"
    ),
    QueryRule(
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
    QueryRule(
        _SAID,
        "too much",
        _words(
            "file limit",
            "max-select-(point|series|buckets)",
            "query-timeout limit",
            "timeout.{0,80} reached|exceeded.{0,80}timeout|query timed out",
            "memory allocation limit reached",
            "exceeds the (file|partition) limit",
            "would scan \\d+ ",
            "resources exhausted",
            "too many (points|series|files)",
            "context deadline exceeded",
        ),
        seen="3.x Core: 432 files; limits of 1.x and 2.x on memory, points, series, time",
    ),
    QueryRule(
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
    QueryRule(
        {400, 404, 500},
        "empty",
        _words(r"table '.*' not found", "measurement not found"),
        seen="3.x: nothing was written to this measurement yet",
    ),
    QueryRule(
        _SAID,
        "stopped",
        _words("a panic has occurred", "panic:"),
        code="IFX745",
        hint="set `language: influxql`: Flux fails on these series (for example with a tag named `_time` or `_value`)",
        seen="2.x: a tag key that Flux keeps for itself",
    ),
    QueryRule({404, 405, 501}, "stopped", code="IFX743", hint=_ADDRESS, seen="the server has no such endpoint"),
    QueryRule(
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
    QueryRule({200, 400, 422}, "stopped", hint="correct the statement, or the names, in the mapping"),
    QueryRule(range(500, 600), "away", seen="everything else that is the server's"),
    QueryRule(_ANY, "stopped", code="IFX740", hint=_ADDRESS),
)


def judge(answer: Answer, now: float) -> NotConnected | TooMuch | Stopped | None:
    """Return what an answer without rows means; None if the measurement does not exist yet."""
    case = AnsweredRequest("v2", answer, (), now)
    if answer.status in (403, 407) and (refused := refused_by_proxy(case)) is not None:
        return Stopped(refused.reason, refused.hint, refused.code)
    rule = _rule_of(answer.status, case.gist, case.is_page)
    return _error(rule, case.report, case.retry_after_seconds)


def judge_words(message: str, scrub: Scrubber) -> NotConnected | TooMuch | Stopped | None:
    """Return what an error inside a 200 means."""
    rule = _rule_of(200, gist_of(message), is_page=False)
    return _error(rule, f"the server answered within 200: {plain_words(message, scrub)}", None)


def _rule_of(status: int, words: str, is_page: bool) -> QueryRule:
    return next(rule for rule in RULES if rule.fits(status, words, is_page))


def _error(rule: QueryRule, report: str, retry_after_seconds: float | None) -> NotConnected | TooMuch | Stopped | None:
    match rule.kind:
        case "empty":
            return None
        case "away":
            return NotConnected(report, retry_after_seconds=retry_after_seconds)
        case "too much":
            return TooMuch(report)
        case "stopped":
            return Stopped(report, rule.hint, rule.code)
