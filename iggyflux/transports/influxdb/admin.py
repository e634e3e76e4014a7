"""What `iggyflux check` asks a server, and the creation of what is missing: nothing here writes a point.

Whether we may write is found out with a body that holds only a comment: 1.x and 2.x check the token, the database or
bucket and the permission first, and then find nothing to store (run on 1.6.7 and 2.9.1).  3.x refuses such a body after
the same checks.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol
from urllib.parse import urlencode

from iggyflux.delivery.answers import Answer, plain_words
from iggyflux.delivery.held import one_reason
from iggyflux.delivery.verdicts import Accepted, Impossible, RefusedSome, Unavailable, Verdict
from iggyflux.errors import NotConnected, Stopped
from iggyflux.pipeline import InfluxSettings
from iggyflux.transports.influxdb.flavors import Flavor, bucket_of, database_of, retention_policy_of

Topic = Literal["server", "database", "write"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at: `ok` None is neither good nor bad, but not known."""

    topic: Topic
    ok: bool | None
    text: str
    hint: str | None = None
    code: str | None = None

    def scrubbed(self, scrub: Callable[[str], str]) -> Finding:
        """The same with its texts cleaned of secrets."""
        return replace(self, text=scrub(self.text), hint=scrub(self.hint) if self.hint else None)


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What a connection is good for.  `flavor` and `product` are None where nobody answered."""

    url: str
    flavor: str | None
    product: str | None
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing stands against a run."""
        return all(finding.ok is not False for finding in self.findings)


class Ask(Protocol):
    """One exchange with the server.  Raises `NotConnected` or `Stopped` where there is no answer."""

    def __call__(self, method: str, target: str, body: bytes | None = None, **headers: str) -> Answer: ...


def failed(topic: Topic, error: NotConnected | Stopped) -> Finding:
    """The finding that an exception tells."""
    if isinstance(error, Stopped):
        return Finding(topic, False, error.reason, error.hint, error.code)
    return Finding(topic, False, str(error), "check that the server is running, and check `url`", "IFX730")


def look(flavor: Flavor, settings: InfluxSettings, ask: Ask, probe_write: Callable[[], Verdict]) -> Sequence[Finding]:
    """The findings on database and permission, for a server that answered."""
    findings = []
    for examine in _LOOKS[flavor.name]:
        try:
            findings.append(examine(settings, ask, probe_write))
        except (NotConnected, Stopped) as error:
            findings.append(failed("database", error))
    return findings


def refuses_everything(answers: Sequence[Answer]) -> Sequence[Finding]:
    """The finding that all of `answers` are one and the same refusal: no InfluxDB takes a ping for a write."""
    reasons = {one_reason(answer.status, _message(answer)) for answer in answers}
    if len(answers) < 2 or len(reasons) > 1 or answers[0].status < 400:
        return ()
    text = f"the server answers {answers[0].status} to every request: {_message(answers[0])}"
    return (Finding("server", False, text, "check that `url` is the address of InfluxDB, with its path", "IFX731"),)


def create(flavor: Flavor, settings: InfluxSettings, ask: Ask) -> None:
    """Create the database or bucket of `settings`.  Raises `NotConnected` or `Stopped`."""
    if flavor.name == "v1":
        statement = f"CREATE DATABASE {_quoted(database_of(settings))}"
        answer = ask("POST", "/query?" + urlencode({"q": statement}))
        error = _influxql_error(answer)
    else:
        organization = ask("GET", "/api/v2/orgs?" + urlencode({"org": settings.org or ""}))
        found = _tree(organization).get("orgs")
        if not found:
            raise Stopped(
                f"bucket {bucket_of(settings)!r} cannot be created: this token sees no organization {settings.org!r}",
                "create it by hand, or use a token with that permission",
                "IFX723",
            )
        body = {"orgID": found[0].get("id", ""), "name": bucket_of(settings), "retentionRules": []}
        answer = ask("POST", "/api/v2/buckets", json.dumps(body).encode(), **{"content-type": "application/json"})
        error = None if answer.status in (201, 422) else _message(answer)  # 422: somebody else was faster
    if error is not None or answer.status >= 400:
        raise Stopped(
            f"{flavor.database_word} cannot be created: {error or answer.status}",
            "create it by hand, or grant these credentials the permission",
            "IFX723",
        )


# --- what is looked at, flavour by flavour ---


def _database_1(settings: InfluxSettings, ask: Ask, _probe: Callable[[], Verdict]) -> Finding:
    database, policy = database_of(settings), retention_policy_of(settings)
    statement = f"SHOW RETENTION POLICIES ON {_quoted(database)}"
    answer = ask("GET", "/query?" + urlencode({"q": statement}))
    error = _influxql_error(answer)
    if answer.status == 401:
        return Finding("database", False, f"credentials: {error}", "check `username` and `password`", "IFX721")
    if error is not None and "not found" in error:
        return Finding("database", False, error, "create it, or set `create: true`", "IFX723")
    if error is not None:
        return Finding(
            "database", None, f"no permission to see database {database!r}: {plain_words(error, answer.scrub)}"
        )
    policies = _rows(answer)
    names = [str(row.get("name")) for row in policies]
    if policy and policy not in names:
        hint = f"the retention policies are: {', '.join(names)}"
        return Finding("database", False, f"database {database!r} has no retention policy {policy!r}", hint, "IFX724")
    chosen = next((row for row in policies if (row.get("name") == policy if policy else row.get("default"))), {})
    kept = "without limit" if chosen.get("duration") in ("0s", None) else f"for {chosen['duration']}"
    return Finding("database", True, f"database {database!r}, policy {chosen.get('name')!r} keeps points {kept}")


def _bucket_2(settings: InfluxSettings, ask: Ask, _probe: Callable[[], Verdict]) -> Finding:
    bucket = bucket_of(settings)
    query = {"name": bucket, **({"org": settings.org} if settings.org else {})}
    answer = ask("GET", "/api/v2/buckets?" + urlencode(query))
    if answer.status == 401:
        return Finding("database", False, f"credentials: {_message(answer)}", "check `token`", "IFX721")
    if answer.status == 404 and "organization" in _message(answer):
        return Finding("database", False, _message(answer), "check `org`", "IFX723")
    buckets = _tree(answer).get("buckets") or []
    if answer.status != 200 or not buckets:
        # A token that may only write sees no bucket; the write tells whether it is there.
        return Finding("database", None, f"bucket {bucket!r} does not exist, or this token has no permission to see it")
    seconds = next((rule.get("everySeconds") for rule in buckets[0].get("retentionRules") or []), 0)
    kept = f"for {_span(seconds)}" if seconds else "without limit"
    return Finding("database", True, f"bucket {bucket!r} keeps points {kept}")


def _database_3(settings: InfluxSettings, ask: Ask, _probe: Callable[[], Verdict]) -> Finding:
    database = database_of(settings)
    answer = ask("GET", _LIST_DATABASES_3)
    if answer.status == 401:
        return Finding("database", False, "authentication failed", "check `token`", "IFX721")
    known = _databases_3(answer)
    if known is None:
        return Finding("database", None, f"this token has no permission to see database {database!r}")
    if database in known:
        return Finding("database", True, f"database {database!r}")
    return Finding("database", None, f"database {database!r} does not exist yet; the first write creates it")


def _write_3(settings: InfluxSettings, ask: Ask, probe: Callable[[], Verdict]) -> Finding:
    if database_of(settings) not in (_databases_3(ask("GET", _LIST_DATABASES_3)) or ()):
        return Finding("write", None, "not tried: even a comment would create the database")
    verdict = probe()
    if isinstance(verdict, RefusedSome):  # a body without points is refused after we were let in
        return Finding("write", True, "writes are allowed")
    return _told(verdict)


_LIST_DATABASES_3 = "/api/v3/configure/database?format=json"


def _databases_3(answer: Answer) -> list[str] | None:
    if answer.status != 200:
        return None
    try:
        rows = json.loads(answer.body)
    except ValueError:
        return None
    return [str(row.get("iox::database")) for row in rows if isinstance(row, dict)] if isinstance(rows, list) else None


def _write(_settings: InfluxSettings, _ask: Ask, probe: Callable[[], Verdict]) -> Finding:
    return _told(probe())


def _told(verdict: Verdict) -> Finding:
    match verdict:
        case Accepted():
            return Finding("write", True, "writes are allowed")
        case Impossible(reason=reason, hint=hint, code=code):
            return Finding("write", False, reason, hint, code)
        case Unavailable(reason=reason):
            return Finding("write", False, reason, "try again", "IFX730")
    return Finding("write", None, "unexpected answer to an empty write")


_Look = Callable[[InfluxSettings, Ask, Callable[[], Verdict]], Finding]
_LOOKS: dict[str, tuple[_Look, ...]] = {
    "v1": (_database_1, _write),
    "v2": (_bucket_2, _write),
    "v3": (_database_3, _write_3),
    "victoriametrics": (_write,),
}


def _span(seconds: int) -> str:
    days, hours = divmod(seconds, 86400)
    return f"{days} days" if days and not hours else f"{seconds / 3600:g} hours"


# --- answers ---


def _quoted(name: str) -> str:
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _tree(answer: Answer) -> dict[str, Any]:
    try:
        tree = json.loads(answer.body)
    except ValueError:
        return {}
    return tree if isinstance(tree, dict) else {}


def _message(answer: Answer) -> str:
    tree = _tree(answer)
    said = tree.get("message") or tree.get("error")
    text = said if isinstance(said, str) else answer.body.decode("utf-8", "replace")
    return plain_words(text, answer.scrub) or str(answer.status)


def _influxql_error(answer: Answer) -> str | None:
    """The error of a statement: also inside of a 200."""
    if answer.status >= 400:
        return _message(answer)
    results = _tree(answer).get("results") or [{}]
    error = results[0].get("error")
    return str(error) if error is not None else None


def _rows(answer: Answer) -> list[dict[str, Any]]:
    results = _tree(answer).get("results") or [{}]
    series = results[0].get("series") or [{}]
    columns = series[0].get("columns") or []
    return [dict(zip(columns, values, strict=False)) for values in series[0].get("values") or []]
