"""The queries of `iggyflux check`, and the creation of a missing database.  Nothing here writes a point.

The write permission is checked with a body that holds only a comment.  1.x and 2.x check the token, the database or
bucket and the permission first, and then find nothing to store (run on 1.6.7 and 2.9.1).  3.x rejects such a body after
the same checks.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Annotated, Any, Literal, Protocol, TypeVar
from urllib.parse import urlencode

import msgspec

from iggyflux.delivery.answers import Answer, plain_words
from iggyflux.delivery.held import one_reason
from iggyflux.delivery.retention import MOST_SECONDS, Retention, parse_span
from iggyflux.delivery.verdicts import Accepted, Impossible, RefusedSome, Unavailable, Verdict
from iggyflux.errors import NotConnected, Stopped, listed
from iggyflux.pipeline import InfluxSettings
from iggyflux.transports.influxdb.flavors import Flavor, bucket_of, database_of, retention_policy_of

Topic = Literal["server", "database", "write"]


@dataclass(frozen=True, slots=True)
class ServerFinding:
    """One thing that was checked: `ok` is None if it is unknown."""

    topic: Topic
    ok: bool | None
    text: str
    hint: str | None = None
    code: str | None = None

    def scrubbed(self, scrub: Callable[[str], str]) -> ServerFinding:
        """Return the same with secrets removed from its texts."""
        return replace(self, text=scrub(self.text), hint=scrub(self.hint) if self.hint else None)


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What a connection can be used for.  `flavor` and `product` are None if no server answered."""

    url: str
    flavor: str | None
    product: str | None
    findings: tuple[ServerFinding, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing prevents a run."""
        return all(finding.ok is not False for finding in self.findings)


class Ask(Protocol):
    """One exchange with the server.  Raises `NotConnected` or `Stopped` if there is no answer."""

    def __call__(self, method: str, target: str, body: bytes | None = None, **headers: str) -> Answer: ...


def failed(topic: Topic, error: NotConnected | Stopped) -> ServerFinding:
    """Return the finding for an exception."""
    if isinstance(error, Stopped):
        return ServerFinding(topic, False, error.reason, error.hint, error.code)
    return ServerFinding(topic, False, str(error), _when(error.retry_after_seconds) or _UNREACHED, "IFX730")


_UNREACHED = "check that the server is running, and check `url`"


def _when(seconds: float | None) -> str | None:
    """Return the hint to wait as long as the server asks for; None if it does not."""
    return f"the server asks to wait {seconds:g} s; then try again" if seconds else None


def look(
    flavor: Flavor, settings: InfluxSettings, ask: Ask, probe_write: Callable[[], Verdict]
) -> Sequence[ServerFinding]:
    """Return the findings on database and permission, for a server that answered."""
    findings = []
    for examine in _LOOKS[flavor.name]:
        try:
            findings.append(examine(settings, ask, probe_write))
        except (NotConnected, Stopped) as error:
            findings.append(failed("database", error))
    return findings


def refuses_everything(answers: Sequence[Answer]) -> Sequence[ServerFinding]:
    """Return the finding that all of `answers` are the same rejection: InfluxDB does not answer a ping like a write."""
    reasons = {one_reason(answer.status, _message(answer)) for answer in answers}
    if len(answers) < 2 or len(reasons) > 1 or answers[0].status < 400:
        return ()
    text = f"the server answers {answers[0].status} to every request: {_message(answers[0])}"
    return (
        ServerFinding("server", False, text, "check that `url` is the address of InfluxDB, with its path", "IFX731"),
    )


def retention(flavor: Flavor, settings: InfluxSettings, ask: Ask) -> Retention:
    """Return how long the server keeps the points of a run.  Raise `NotConnected` or `Stopped`."""
    read = _RETENTIONS.get(flavor.name)
    return Retention(None, f"{flavor.product} does not tell") if read is None else read(settings, ask)


def _retention_1(settings: InfluxSettings, ask: Ask) -> Retention:
    answer = _ask_policies(settings, ask)
    chosen = _policy_of(settings, _rows(answer))
    seconds = parse_span(str(chosen.get("duration")))
    if seconds is None:
        return Retention(None, _influxql_error(answer) or "no retention policy is seen")
    return Retention(seconds)


def _retention_2(settings: InfluxSettings, ask: Ask) -> Retention:
    found, answer = _find_bucket(settings, ask)
    if found is None:
        return Retention(None, _message(answer) if answer.status >= 400 else "the token does not see the bucket")
    return _retention_of_bucket(found)


_RETENTIONS: dict[str, Callable[[InfluxSettings, Ask], Retention]] = {"v1": _retention_1, "v2": _retention_2}


def _ask_policies(settings: InfluxSettings, ask: Ask) -> Answer:
    statement = f"SHOW RETENTION POLICIES ON {_quoted(database_of(settings))}"
    return ask("GET", "/query?" + urlencode({"q": statement}))


def _policy_of(settings: InfluxSettings, policies: Sequence[dict[str, _Cell]]) -> dict[str, _Cell]:
    """Return the retention policy that writes go to; an empty one if it is not seen."""
    name = retention_policy_of(settings)
    return next((row for row in policies if (row.get("name") == name if name else row.get("default"))), {})


def _retention_of_bucket(bucket: _Bucket) -> Retention:
    try:
        rules = msgspec.convert(bucket.rules, list[_Rule])
    except msgspec.ValidationError:
        return Retention(None, "the answer has no retention rules")
    return Retention(rules[0].seconds if rules else 0)


def create(flavor: Flavor, settings: InfluxSettings, ask: Ask) -> None:
    """Create the database or bucket of `settings`.  Raise `NotConnected` or `Stopped`."""
    if flavor.name == "v1":
        statement = f"CREATE DATABASE {_quoted(database_of(settings))}"
        answer = ask("POST", "/query?" + urlencode({"q": statement}))
        error = _influxql_error(answer)
    else:
        organization = _find_organization(settings, ask)
        if organization is None:
            raise Stopped(
                f"bucket {bucket_of(settings)!r} cannot be created: this token sees no organization {settings.org!r}",
                "create it by hand, or use a token with that permission",
                "IFX723",
            )
        if _IDENTIFIER.fullmatch(bucket_of(settings)):
            raise Stopped(
                f"no bucket has the id {bucket_of(settings)!r}, and a bucket is created by its name",
                "write its name as `bucket`",
                "IFX723",
            )
        body = {"orgID": organization, "name": bucket_of(settings), "retentionRules": []}
        answer = ask("POST", "/api/v2/buckets", json.dumps(body).encode(), **{"content-type": "application/json"})
        error = None if answer.status in (201, 422) else _message(answer)  # 422: another process created it meanwhile
    if error is not None or answer.status >= 400:
        raise Stopped(
            f"{flavor.database_word} cannot be created: {error or answer.status}",
            "create it by hand, or grant these credentials the permission",
            "IFX723",
        )


# --- names and ids ---

# A write of 2.x takes the name or the id of organization and bucket in one parameter; other requests have two.
_IDENTIFIER = re.compile(r"[0-9a-f]{16}")


def _spellings(text: str, *, name: str, number: str) -> list[dict[str, str]]:
    """Return the parameters under which `text` may be known: as an id, if it looks like one, then as a name."""
    return [*([{number: text}] if _IDENTIFIER.fullmatch(text) else []), {name: text}]


def _find_organization(settings: InfluxSettings, ask: Ask) -> str | None:
    """Return the id of the organization; None if the token sees none."""
    for organization in _spellings(settings.org or "", name="org", number="orgID"):
        answer = ask("GET", "/api/v2/orgs?" + urlencode(organization))
        if answer.status == 200 and (found := _decoded(answer, _Organizations)) and found.orgs:
            return found.orgs[0].id
    return None


def _find_bucket(settings: InfluxSettings, ask: Ask) -> tuple[_Bucket | None, Answer]:
    """Return the bucket, or None, and the answer to the likeliest spelling."""
    organizations = _spellings(settings.org, name="org", number="orgID") if settings.org else [{}]
    buckets = _spellings(bucket_of(settings), name="name", number="id")
    answers = []
    for organization, bucket in product(organizations, buckets):
        answers.append(ask("GET", "/api/v2/buckets?" + urlencode({**bucket, **organization})))
        if answers[-1].status == 200 and (found := _decoded(answers[-1], _Buckets)) and found.buckets:
            return found.buckets[0], answers[-1]
    return None, answers[0]


def bucket_name(settings: InfluxSettings, ask: Ask) -> str:
    """Return the name of the bucket, which queries need: it may be given by its id."""
    if not _IDENTIFIER.fullmatch(bucket_of(settings)):
        return bucket_of(settings)
    found, _ = _find_bucket(settings, ask)
    return bucket_of(settings) if found is None else found.name


# --- the checks, flavor by flavor ---


def _database_1(settings: InfluxSettings, ask: Ask, _probe: Callable[[], Verdict]) -> ServerFinding:
    database, policy = database_of(settings), retention_policy_of(settings)
    answer = _ask_policies(settings, ask)
    error = _influxql_error(answer)
    if answer.status == 401:
        return ServerFinding(
            "database", False, f"authentication failed: {error}", "check `username` and `password`", "IFX721"
        )
    if error is not None and "not found" in error and settings.create:
        return ServerFinding("database", True, f"database {database!r} does not exist yet; `run` creates it")
    if error is not None and "not found" in error:
        known = [str(row.get("name")) for row in _rows(ask("GET", "/query?" + urlencode({"q": "SHOW DATABASES"})))]
        return ServerFinding(
            "database", False, error, _existing("create it, or set `create: true`", known, database), "IFX723"
        )
    if error is not None:
        return ServerFinding(
            "database", None, f"no permission to see database {database!r}: {plain_words(error, answer.scrub)}"
        )
    policies = _rows(answer)
    if not policies:  # 2.x answers so for a database that is mapped to no bucket
        return ServerFinding("database", None, f"database {database!r} has no retention policy that is seen")
    names = [str(row.get("name")) for row in policies]
    if policy and policy not in names:
        hint = f"the retention policies are: {', '.join(names)}"
        return ServerFinding(
            "database", False, f"database {database!r} has no retention policy {policy!r}", hint, "IFX724"
        )
    chosen = _policy_of(settings, policies)
    kept = Retention(parse_span(str(chosen.get("duration"))))
    return ServerFinding("database", True, f"database {database!r}, policy {chosen.get('name')!r} keeps points {kept}")


def _bucket_2(settings: InfluxSettings, ask: Ask, _probe: Callable[[], Verdict]) -> ServerFinding:
    bucket = bucket_of(settings)
    found, answer = _find_bucket(settings, ask)
    if answer.status == 401:
        hint = "check `token`; user and password of the 1.x API need `flavor: v1`"
        return ServerFinding("database", False, f"authentication failed: {_message(answer)}", hint, "IFX721")
    if answer.status == 404 and "organization" in _message(answer):
        seen = _decoded(ask("GET", "/api/v2/orgs?limit=100"), _Organizations) or _Organizations()
        hint = _existing("check `org`", [each.name for each in seen.orgs or ()], settings.org or "")
        return ServerFinding("database", False, _message(answer), hint, "IFX723")
    if found is None and settings.create and not _IDENTIFIER.fullmatch(bucket):
        if _find_organization(settings, ask) is None:
            text = f"this token sees no organization {settings.org!r}, in which to create bucket {bucket!r}"
            return ServerFinding("database", False, text, "check `org`, and the permissions of the token", "IFX723")
        return ServerFinding("database", True, f"bucket {bucket!r} does not exist yet; `run` creates it")
    if found is None:
        # A token that may only write sees no bucket; the write shows whether it exists.
        text = f"bucket {bucket!r} does not exist, or this token has no permission to see it"
        return ServerFinding("database", None, text, _existing("", _buckets(settings, ask), bucket) or None)
    return ServerFinding("database", True, f"bucket {bucket!r} keeps points {_retention_of_bucket(found)}")


def _buckets(settings: InfluxSettings, ask: Ask) -> list[str]:
    """Return the names of the buckets that the token sees, without those of the system."""
    organization = _spellings(settings.org, name="org", number="orgID")[0] if settings.org else {}
    answer = ask("GET", "/api/v2/buckets?" + urlencode({"limit": "100", **organization}))
    found = (_decoded(answer, _Buckets) if answer.status == 200 else None) or _Buckets()
    return [each.name for each in found.buckets or () if each.type != "system"]


def _existing(hint: str, names: Sequence[str], wanted: str) -> str:
    """Return `hint`, and what is there, the most similar name first."""
    return "; ".join(filter(None, (hint, f"there is {listed(names, wanted)}" if names else "")))


def _database_3(settings: InfluxSettings, ask: Ask, _probe: Callable[[], Verdict]) -> ServerFinding:
    database = database_of(settings)
    answer = ask("GET", _LIST_DATABASES_3)
    if answer.status == 401:
        return ServerFinding("database", False, "authentication failed", "check `token`", "IFX721")
    known = _databases_3(answer)
    if known is None:
        return ServerFinding("database", None, f"this token has no permission to see database {database!r}")
    if database in known:
        return ServerFinding("database", True, f"database {database!r}")
    text = f"database {database!r} does not exist yet; the first write creates it"
    return ServerFinding("database", None, text, _existing("", known, database) or None)


def _write_3(settings: InfluxSettings, ask: Ask, probe: Callable[[], Verdict]) -> ServerFinding:
    if database_of(settings) not in (_databases_3(ask("GET", _LIST_DATABASES_3)) or ()):
        return ServerFinding("write", None, "not tried: even a comment would create the database")
    verdict = probe()
    if isinstance(verdict, RefusedSome):  # a body without points is rejected after the permission was checked
        return ServerFinding("write", True, "writes are allowed")
    return _finding_of(verdict)


_LIST_DATABASES_3 = "/api/v3/configure/database?format=json"


def _databases_3(answer: Answer) -> list[str] | None:
    rows = _decoded(answer, list[_Database3]) if answer.status == 200 else None
    return None if rows is None else [row.name for row in rows]


def _write(settings: InfluxSettings, _ask: Ask, probe: Callable[[], Verdict]) -> ServerFinding:
    verdict = probe()
    can_be_created = settings.create and not _IDENTIFIER.fullmatch(bucket_of(settings))
    if can_be_created and isinstance(verdict, Impossible) and verdict.code == "IFX723":
        return ServerFinding("write", None, "not tried: what is written to does not exist yet")
    return _finding_of(verdict)


def _finding_of(verdict: Verdict) -> ServerFinding:
    match verdict:
        case Accepted():
            return ServerFinding("write", True, "writes are allowed")
        case Impossible(reason=reason, hint=hint, code=code):
            return ServerFinding("write", False, reason, hint, code)
        case Unavailable(reason=reason, retry_after_seconds=seconds):
            return ServerFinding("write", False, reason, _when(seconds) or "try again", "IFX730")
    return ServerFinding("write", None, "unexpected answer to an empty write")


_Look = Callable[[InfluxSettings, Ask, Callable[[], Verdict]], ServerFinding]
_LOOKS: dict[str, tuple[_Look, ...]] = {
    "v1": (_database_1, _write),
    "v2": (_bucket_2, _write),
    "v3": (_database_3, _write_3),
    "victoriametrics": (_write,),
}


# --- answers ---


def _quoted(name: str) -> str:
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'


class _Statement(msgspec.Struct):
    """What an InfluxQL statement returned: its first series, if any, has the rows."""

    series: list[_Series] | None = None
    error: str | None = None


class _Series(msgspec.Struct):
    columns: list[str]
    values: list[list[_Cell]] | None = None


class _Results(msgspec.Struct):
    results: list[_Statement] | None = None


class _Rule(msgspec.Struct):
    seconds: Annotated[int, msgspec.Meta(ge=0, le=MOST_SECONDS)] = msgspec.field(name="everySeconds")


class _Organization(msgspec.Struct):
    id: str = ""
    name: str = ""


class _Organizations(msgspec.Struct):
    orgs: list[_Organization] | None = None


class _Bucket(msgspec.Struct):
    name: str = ""
    type: str = ""
    rules: Any = msgspec.field(name="retentionRules", default=None)


class _Buckets(msgspec.Struct):
    buckets: list[_Bucket] | None = None


class _Database3(msgspec.Struct):
    name: str = msgspec.field(name="iox::database")


class _Said(msgspec.Struct):
    message: str | None = None
    error: str | None = None


_Cell = str | float | bool | None
T = TypeVar("T")


def _decoded(answer: Answer, kind: type[T]) -> T | None:
    """Return what the body holds; None if it is of another kind."""
    try:
        return msgspec.json.decode(answer.body, type=kind)
    except (ValueError, RecursionError):
        return None


def _message(answer: Answer) -> str:
    said = _decoded(answer, _Said) or _Said()
    text = said.message or said.error or answer.body.decode("utf-8", "replace")
    return plain_words(text, answer.scrub) or str(answer.status)


def _statement(answer: Answer) -> _Statement:
    """Return what the first statement returned; nothing if the answer is of another kind."""
    found = _decoded(answer, _Results)
    return found.results[0] if found and found.results else _Statement()


def _influxql_error(answer: Answer) -> str | None:
    """Return the error of a statement, also inside a 200."""
    return _message(answer) if answer.status >= 400 else _statement(answer).error


def _rows(answer: Answer) -> list[dict[str, _Cell]]:
    series = _statement(answer).series
    if not series:
        return []
    return [dict(zip(series[0].columns, values, strict=False)) for values in series[0].values or ()]
