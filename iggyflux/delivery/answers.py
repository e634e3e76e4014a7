"""Classify the HTTP response to a write: a table of rules, of which the first that matches decides.

The status alone misleads: servers report permanent errors as 500 and transient ones as 400, and a 200 may be a web
page.  So a rule looks at the status *and* the words.  The wordings come from real servers (1.6, 1.8, 2.7, 2.9, 3.6) and
their sources.  Pure: the current time, which a `Retry-After` date needs, is an argument.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import Any, Final

from iggyflux.delivery.naming import find_conflicts, lines_named, lines_numbered, suspects_of
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

_WORDS_SHOWN = 400
_GIST = 4096
_STRIPPED = "stored without its field 'time', which no server accepts"
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


@dataclass(frozen=True, slots=True)
class Answer:
    """A received HTTP response: header names in lower case, the body as bytes (cut where it is very long).

    `whole` is false where the response broke off after the status: headers and body may then be incomplete.
    `scrub` removes the secrets of the request, which a server may echo.  Every text of a response that a person sees
    goes through it.  `proxy` names the proxy that may have answered instead of the server; empty if there is none.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes = b""
    whole: bool = True
    scrub: Scrubber = field(default=Scrubber(()), compare=False)
    proxy: str = ""

    @property
    def through(self) -> str:
        """The proxy, as the end of a sentence; empty if there is none."""
        return f" through the proxy {self.proxy}" if self.proxy else ""


def classify(flavor: str, answer: Answer, lines: Sequence[str], now: float) -> Verdict:
    """Return what `answer` to a request with `lines` means; `now` is seconds since the epoch.

    `flavor` is one of `v1`, `v2`, `v3`, `victoriametrics`.  It chooses the hint, never the verdict: the server behind
    an address can change, and its words say what it did.
    """
    case = AnsweredRequest(flavor, answer, lines, now)
    for rule in RULES:
        if rule.fits(case):
            verdict = rule.verdict(case)
            if verdict is not None:
                break
    else:
        verdict = _unknown(case)
    if not answer.whole and isinstance(verdict, Impossible | Refused | RefusedSome):
        # An incomplete response blames no line: the server may have died while sending it.
        return Unavailable(f"incomplete answer; {case.report}", case.status, connection_died=True)
    return verdict


class AnsweredRequest:
    """A response together with the lines that were sent, and what can be read from it."""

    def __init__(self, flavor: str, answer: Answer, lines: Sequence[str], now: float) -> None:
        self.flavor = flavor
        self.status = answer.status
        self.headers = answer.headers
        self.lines = lines
        self.now = now
        self.scrub = answer.scrub
        self.proxy = answer.proxy
        self.answered = f"the server answered {answer.status}{answer.through}"
        self._body = answer.body

    @cached_property
    def text(self) -> str:
        return self._body.decode("utf-8", "replace")

    @cached_property
    def is_page(self) -> bool:
        """Whether the body is a web page: no database wrote it."""
        kind = self.headers.get("content-type", "").lower()
        return "html" in kind or self.text.lstrip()[:15].lower().startswith(("<!doctype", "<html"))

    @cached_property
    def tree(self) -> dict[str, Any]:
        """The body as a JSON object; empty if it is not one."""
        if not self._body.lstrip().startswith(b"{"):
            return {}
        try:
            tree = json.loads(self.text)
        except (ValueError, RecursionError):
            return {}
        return tree if isinstance(tree, dict) else {}

    @cached_property
    def message(self) -> str:
        """The server's message, complete: its JSON member, else the body, else a header."""
        for key in ("message", "error"):
            said = self.tree.get(key)
            if isinstance(said, str):
                return said
        return self.text or self.headers.get("x-influxdb-error", "")

    @cached_property
    def gist(self) -> str:
        return gist_of(self.message)

    @cached_property
    def words(self) -> str:
        """The message for people: one line, no control characters, cut to a readable length."""
        return "an HTML page" if self.is_page else self.shown(self.message)

    def shown(self, text: str) -> str:
        """Return `text`, a part of this response, for people."""
        return plain_words(text, self.scrub)

    @property
    def report(self) -> str:
        return self.answered + (f": {self.words}" if self.words else "")

    @cached_property
    def retry_after_seconds(self) -> float | None:
        """The wait that the server asked for, measured from the server's `Date`: the local clock may be wrong."""
        date = parse_http_date(self.headers.get("date", ""))
        return parse_retry_after(self.headers.get("retry-after"), self.now if date is None else date)

    @cached_property
    def dropped(self) -> int:
        """The number of dropped points in a partial write's message: a lower bound, or 0."""
        found = None if self.quotes else _DROPPED.search(self.gist) or _OUTSIDE.match(self.gist)
        return int(found.group(1)) if found else 0

    @cached_property
    def quotes(self) -> bool:
        """Whether the message echoes what was sent: then phrases in it prove nothing."""
        return "data" in self.tree or _QUOTING.search(self.gist) is not None

    @cached_property
    def conflicts(self) -> tuple[SchemaConflict, ...]:
        return find_conflicts(self.scrub(self.gist))


# Such messages hold users' names, so the count is matched only at the position where the server writes it.
_DROPPED = re.compile(r" dropped=(\d{1,18})(?: for database: \S+)?(?: for retention policy: \S+)?\s*\Z")
_OUTSIDE = re.compile(r"(?:failure writing points to database: )?partial write: dropped (\d{1,18}) points outside")
_QUOTING = re.compile(r"unable to parse '|error parsing line \d")


def gist_of(said: str) -> str:
    """Return the beginning and the end of a message.  Between them may be megabytes of echoed lines."""
    return said if len(said) <= 2 * _GIST else said[:_GIST] + "\n" + said[-_GIST:]


def plain_words(text: str, scrub: Scrubber) -> str:
    """Return `text` on one line, without secrets and control characters, cut to a readable length.

    A secret that is cut at the end is removed too, since servers, proxies and connections cut texts without a sign.
    """
    # Only the head of a long text is read: a response may echo megabytes of lines.
    line = _CONTROL.sub(" ", scrub(text[: 4 * _WORDS_SHOWN], is_cut=True)).strip()
    return line if len(line) <= _WORDS_SHOWN else line[:_WORDS_SHOWN] + "…"


def parse_retry_after(value: str | None, now: float) -> float | None:
    """Return the seconds that `Retry-After` asks for, from a number or an HTTP date; None if missing or unreadable.

    >>> parse_retry_after("Wed, 21 Oct 2015 07:28:00 GMT", 1445412470.0)
    10.0
    """
    if value is None:
        return None
    value = value.strip()
    if re.fullmatch(r"\d{1,9}(\.\d*)?", value):
        return float(value)
    moment = parse_http_date(value)
    return None if moment is None else max(moment - now, 0.0)


def parse_http_date(value: str) -> float | None:
    """Return seconds since the epoch, or None if `value` is not a date."""
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, IndexError, OverflowError):
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


# --- verdicts of the rules ---


def _accepted(case: AnsweredRequest) -> Verdict:
    return Accepted(case.status)


def _passing(case: AnsweredRequest) -> Verdict:
    return Unavailable(case.report, case.status, case.retry_after_seconds)


def _unknown_failure(case: AnsweredRequest) -> Verdict:
    return Unavailable(case.report, case.status, case.retry_after_seconds, suspicious=True)


def _too_large(case: AnsweredRequest) -> Verdict:
    found = _LIMIT.search(case.gist)
    limit = int(next(group for group in found.groups() if group)) if found else None
    return TooLarge(case.report, limit, case.status)


_LIMIT = re.compile(r"\((\d{1,15}) bytes\) exceeded|\b(?:limit|maximum)(?: of| is|:)? (\d{4,15})\b")


def _stop(code: str, hint: str) -> Callable[[AnsweredRequest], Verdict]:
    def verdict(case: AnsweredRequest) -> Verdict:
        return Impossible(case.report, hint, case.status, code)

    return verdict


def refused_by_proxy(case: AnsweredRequest) -> Impossible | None:
    """Return the refusal of a proxy; None if there is no proxy, or InfluxDB names itself in the answer."""
    if not case.proxy or (case.status != 407 and case.headers.keys() & _NAMES_INFLUXDB):
        return None
    words = f": {case.words}" if case.words else ""
    reason = f"the proxy {case.proxy}, or the server behind it, answered {case.status}{words}"
    return Impossible(reason, proxy_hint(case.status), case.status, "IFX726")


_NAMES_INFLUXDB = frozenset({"x-influxdb-version", "x-influxdb-build", "x-platform-error-code", "cluster-uuid"})


def proxy_hint(status: int) -> str:
    """Return what can be done about a proxy that refuses, with this status."""
    if status == 407:
        return "write the proxy's login into the variable, http://USER:PASSWORD@HOST; or add this host to NO_PROXY"
    if status in (401, 403):
        return "allow this host and port in the proxy, or add the host to NO_PROXY"
    return "check that the variable names a proxy that supports CONNECT, or add this host to NO_PROXY"


def _redirect(case: AnsweredRequest) -> Verdict:
    target = _without_secrets(case.headers.get("location", ""), case.scrub)
    where = f" to {target}" if target else ""
    return Impossible(
        f"{case.answered}, a redirect{where}",
        "set `url` to the address of InfluxDB itself; redirects are not followed, since the token would be sent along",
        case.status,
        "IFX725",
    )


def _without_secrets(location: str, scrub: Scrubber) -> str:
    """Return an address without user, password and query (where 1.x keeps credentials)."""
    bare = plain_words(scrub(location).split("?", 1)[0].split("#", 1)[0], scrub)
    scheme, separator, rest = bare.partition("://")
    if not separator:
        return bare.rpartition("@")[2]
    host, slash, path = rest.partition("/")
    return scheme + separator + host.rpartition("@")[2] + slash + path


def _refused_by_number(case: AnsweredRequest) -> Verdict | None:
    """3.x: `data` is a list where the other lines are stored, an object where nothing is stored."""
    data = case.tree.get("data")
    entries = data if isinstance(data, list) else [data] if isinstance(data, dict) else []
    numbered = lines_numbered(entries, case.lines)
    if not numbered:
        return None
    return Refused(
        tuple(Refusal(line, case.shown(why), case.status, _code_of(why)) for line, why in numbered.items()),
        rest_stored=isinstance(data, list),
        conflicts=tuple(
            {
                conflict: None
                for line, why in numbered.items()
                for conflict in find_conflicts(case.scrub(why), line=case.lines[line])
            }
        ),
    )


def _refused_by_name(case: AnsweredRequest) -> Verdict | None:
    """1.x, 2.x: the message quotes each line that does not parse.  1.x stored the rest if it says `partial write`."""
    named = lines_named(case.message, case.lines)
    if named is None:
        return None
    refusals = tuple(Refusal(line, case.shown(why), case.status) for line, why in named.reasons.items())
    return Refused(refusals, rest_stored=named.all_exact and case.message.startswith("partial write:"))


def _dropped(case: AnsweredRequest) -> Verdict | None:
    """1.x, 2.x: `dropped=N` never says which lines; N of N lines are all of them."""
    if case.dropped < len(case.lines):
        return None
    why = case.words
    refusals = tuple(Refusal(line, why, case.status, _code_of(why)) for line in range(len(case.lines)))
    return Refused(refusals, rest_stored=True, conflicts=case.conflicts)


def _stripped(case: AnsweredRequest) -> Verdict | None:
    """2.9: the server removed a field `time` and stored the rest of the point; other errors may be hidden behind it."""
    if len(case.lines) > 1:
        return None
    return Refused((Refusal(0, _STRIPPED, case.status),), rest_stored=True)


def _refused_some(case: AnsweredRequest) -> Verdict:
    return RefusedSome(
        case.words or case.report,
        case.status,
        suspects_of(case.gist, case.lines, case.dropped),
        case.conflicts,
        _code_of(case.gist),
        blames_lines=_ABOUT_LINES.search(case.gist) is not None,
    )


def _code_of(why: str) -> str:
    return "IFX609" if find_conflicts(why) else "IFX601"


def _unauthorized(case: AnsweredRequest) -> Verdict:
    return Impossible(case.report, _CREDENTIALS.get(case.flavor, _CREDENTIALS["v2"]), case.status, "IFX721")


_CREDENTIALS = {
    "v1": "check `username` and `password` (or `token`, a JWT) of this connection; 2.x takes those of `influx v1 auth`",
    "v2": "check `token`: wrong, deleted, or of another server; user and password of the 1.x API need `flavor: v1`",
    "victoriametrics": "check `token` (or `username` and `password`) of this connection",
}


def _unknown(case: AnsweredRequest) -> Verdict:
    return Impossible(case.report, "check `url`: InfluxDB does not answer a write like this", case.status, "IFX731")


# --- the table ---


@dataclass(frozen=True, slots=True)
class AnswerRule:
    """A rule matches where `status` and, if given, `words`, `page` and `quotes` match.

    `verdict` may still decline with None: then the next rule is tried.  `seen` names the servers that answer like this.
    """

    status: Container[int]
    verdict: Callable[[AnsweredRequest], Verdict | None]
    words: re.Pattern[str] | None = None
    page: bool | None = None
    quotes: bool | None = None
    seen: str = ""

    def fits(self, case: AnsweredRequest) -> bool:
        return (
            case.status in self.status
            and (self.page is None or self.page == case.is_page)
            and (self.quotes is None or self.quotes == case.quotes)
            and (self.words is None or self.words.search(case.gist) is not None)
        )


def _words(*alternatives: str) -> re.Pattern[str]:
    return re.compile("|".join(alternatives), re.IGNORECASE)


_ANY = range(100, 1000)
PASSING: Final = frozenset({408, 425, 429, 502, 503, 504, 509, *range(520, 528), 530})
"""Statuses that say nothing about the request, only that it can be sent again later."""
_CONTENT = frozenset({400, 422})
_CONTENT_OR_FAILURE = frozenset({400, 422, 500})
# InfluxDB's own phrases only: another product's words prove nothing about a line.
_ABOUT_LINES = _words(
    "partial write",
    "unable to parse",
    r"error parsing line \d",
    "parsing failed for write_lp",
    "parsing for line protocol failed",
    "field type conflict",
    "invalid column type for column",
    "invalid (number|boolean|tag format|field format)",
    "(beyond|outside) retention policy",
    "max key length exceeded",
    "has been stripped from point",
)

_ADDRESS = "check that `url` is the address of InfluxDB (with its path, behind a proxy), and check `flavor`"

RULES: Final[tuple[AnswerRule, ...]] = (
    AnswerRule({204}, _accepted, seen="every server; nothing else acknowledges"),
    AnswerRule({403, 407}, refused_by_proxy, seen="a proxy of the environment"),
    AnswerRule({401}, _unauthorized, seen="wrong or missing credentials"),
    AnswerRule(
        {403},
        _stop("IFX722", "grant write permission to these credentials"),
        seen="no write permission; 2.x also: an inactive token",
    ),
    AnswerRule(
        {407}, _stop("IFX726", "put the proxy's user and password into HTTPS_PROXY or HTTP_PROXY"), seen="proxies"
    ),
    AnswerRule(range(300, 400), _redirect, seen="load balancers; 2.x: 308 for a trailing slash"),
    AnswerRule({413}, _too_large, seen="1.x, 3.x, every proxy"),
    AnswerRule(
        _CONTENT_OR_FAILURE,
        _too_large,
        _words(r"max request size \(\d+ bytes\) exceeded", "request (entity |body )?too large"),
        quotes=False,
        seen="3.6 answers 500 to more than 10 MiB",
    ),
    AnswerRule(
        PASSING,
        _passing,
        seen="overload and balancers, with a page or without",
    ),
    AnswerRule(
        {400},
        _stop("IFX727", "write https:// instead of http:// in `url`: the server uses TLS"),
        _words(
            "HTTP request to an HTTPS server",
            "plain HTTP request was sent to HTTPS port",
            "plain HTTP to an SSL-enabled server",
            "combination of host and port requires TLS",
        ),
        quotes=False,
        seen="http to a port for https: Go (1.x, 2.x), nginx, Apache, Tomcat",
    ),
    AnswerRule(
        range(200, 300), _stop("IFX720", _ADDRESS), seen="2.x serves its user interface on unknown paths, as 200"
    ),
    AnswerRule(range(400, 500), _stop("IFX720", _ADDRESS), page=True, seen="web servers, firewalls"),
    AnswerRule(range(500, 600), _passing, page=True, seen="balancers whose server is away"),
    AnswerRule(
        {404},
        _stop("IFX723", "map the database to a bucket: influx v1 dbrp create --db NAME --rp autogen --bucket-id ID"),
        _words("no dbrp mapping"),
        seen="2.x, on the routes of 1.x: no bucket has this name",
    ),
    AnswerRule(
        {404},
        _stop("IFX723", "correct the name, or create it; `create: true` creates a database or bucket (1.x, 2.x)"),
        _words("database not found", r"bucket .*not found", "not find bucket", "organization name"),
        seen="1.x, 2.x: the database, bucket or organisation is missing, or hidden from this token",
    ),
    AnswerRule({404, 405}, _stop("IFX720", _ADDRESS), seen="the server has no such endpoint"),
    AnswerRule(
        _CONTENT_OR_FAILURE,
        _passing,
        _words(
            "queue length exceeded",
            "cache-max-memory-size exceeded",
            "memory allocation limit reached",
            r"\btimeout$",
            "request throttled",
            "queue full",
            "shutting down",
            "shut down",
            "node (is|has) stopped",
            "no space left on device",
            "(engine|shard) is (closed|disabled)",
            "engine: closed",
            "unexpected EOF",
            "too many open files",
            "hinted handoff queue",
        ),
        quotes=False,
        seen="passing faults as 400 and 500: 2.x under load, 3.x while it stops, a full disk, a body cut on its way",
    ),
    AnswerRule(
        _CONTENT_OR_FAILURE,
        _stop("IFX724", "create the retention policy, or correct `retention_policy`"),
        _words("retention policy not found"),
        quotes=False,
        seen="1.x always answers 500 to it",
    ),
    AnswerRule(
        _CONTENT_OR_FAILURE,
        _stop("IFX731", "set `gzip: off`: a proxy alters compressed bodies"),
        _words("gzip: invalid (header|checksum)", "invalid gzip", "error decoding gzip"),
        quotes=False,
        seen="2.x: 500; 1.x, 3.x: 400",
    ),
    AnswerRule(
        _CONTENT,
        _stop("IFX728", "add `org: NAME`: 2.x writes to a bucket of an organization"),
        _words("either orgID or org"),
        quotes=False,
        seen="2.x: `database` or `bucket` without `org`",
    ),
    AnswerRule(
        _CONTENT,
        _stop("IFX728", "check `org`, `bucket`, `database`, `precision` and the credentials of this connection"),
        _words(
            "database is required",
            "^bucket not found",
            "missing field `db`",
            "^invalid precision",
            "precision must be",
            "invalid consistency",
            "malformed .*auth",
            "authorization header",
            "(db|database) name .*(invalid|must|empty|character|too long)",
            "invalid character in (db|database)",
            "(db|database) name did not start with",
            "invalid (db|database) name",
        ),
        quotes=False,
        seen="a request that is wrong whatever its lines are",
    ),
    AnswerRule(
        _CONTENT,
        _stop("IFX735", "raise the limit of the server, or write to a database that exists"),
        _words(r"exceed.{0,80}(number|limit) of \d* ?databases", r"limit of \d+ databases"),
        quotes=False,
        seen="3.x Core",
    ),
    AnswerRule(_CONTENT, _refused_by_number, seen="3.x"),
    AnswerRule(
        _CONTENT_OR_FAILURE, _refused_by_name, _words("unable to parse '", r"error parsing line \d+"), seen="1.x, 2.x"
    ),
    AnswerRule(_CONTENT, _stripped, _words("has been stripped from point"), seen="1.12, 2.9"),
    AnswerRule(_CONTENT, _dropped, _words(r"\bdropped(=| )\d"), seen="1.x, 2.x: every line of the request is refused"),
    AnswerRule(
        {400},
        _stop("IFX731", _ADDRESS),
        re.compile(r"\A\s*+(400 )?(bad request)?\s*+\Z", re.IGNORECASE),
        seen="balancers and web servers: InfluxDB always says why",
    ),
    AnswerRule(_CONTENT, _refused_some, seen="everything else that is about lines: bisect"),
    AnswerRule(
        {500},
        _refused_some,
        _words("unable to parse", "partial write", "field type conflict", "invalid (number|boolean|tag format)"),
        seen="1.x, 2.x: a line that the engine cannot read; other shards have stored their points",
    ),
    AnswerRule({501, 505}, _stop("IFX731", _ADDRESS), seen="proxies and web servers"),
    AnswerRule(range(500, 600), _unknown_failure, seen="bisected when it does not pass"),
    AnswerRule(_ANY, _unknown),
)
