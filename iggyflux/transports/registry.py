"""A schema registry (Confluent's API): asked once for each id, since an id never gets another schema.

| the registry answers                     | messages with the id         | the id is asked for again |
|------------------------------------------|------------------------------|---------------------------|
| 200 with a schema of Avro                | are decoded                  | never                     |
| … of another type, one that refers to    | fail (`IFX430`)              | never                     |
| itself, or to too many                   |                              |                           |
| 404, 400 or 422 with an `error_code`     | fail (`IFX431`)              | after a minute            |
| such for 100 ids in a minute: other ids  | fail (`IFX431`), not asked   | when the minute is over   |
| it is not asked for ids of 2**31 or more | fail (`IFX431`)              | never                     |
| 401, 403, a redirect; a bad certificate  | wait: the route stops        | by the next run           |
| nothing, or anything else (429, 500, a   | wait: `NotConnected`, so the | after the backoff         |
| web page, half a body)                   | route connects again         |                           |

What a schema refers to (`references`: versions of subjects) is asked for too, and the table holds for those answers.
A redirect is not followed: it could lead the credentials to another host.  It blocks, and sends one request at a time.
"""

from __future__ import annotations

import asyncio
import base64
import json
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final, TypeAlias
from urllib.parse import quote

from iggyflux import __version__
from iggyflux.delivery.answers import Answer, parse_retry_after
from iggyflux.delivery.verdicts import Impossible
from iggyflux.errors import NotConnected, Stopped
from iggyflux.payloads.avro.known import Refused, Schema
from iggyflux.payloads.avro.references import joined
from iggyflux.payloads.avro.schema import SchemaError
from iggyflux.pipeline import RegistrySettings
from iggyflux.secrets import Scrubber
from iggyflux.transports.certificates import CertificateFault, Tls
from iggyflux.transports.influxdb.http import HttpClient
from iggyflux.transports.urls import AddressError, parse_address

ASK_AGAIN_SECONDS: Final = 60.0
MOST_REFUSED: Final = 10_000
"""So many ids without a schema are remembered: bytes that are not framed name any."""
MOST_UNKNOWN: Final = 100
"""After so many ids without a schema in a minute no id is asked for, as each costs a request."""
MOST_SCHEMA_BYTES: Final = 4_000_000
MOST_REFERRED: Final = 100
"""So many schemas one may refer to, at any depth."""
MOST_REFERRED_DEPTH: Final = 20
REFUSES: Final = "IFX434"


class SchemaRegistry:
    """One registry.  `known` has what is known of ids; it is shared with the plans that read it.  Thread-safe."""

    def __init__(self, settings: RegistrySettings, *, now: Callable[[], float] = time.monotonic) -> None:
        """Open nothing."""
        self.known: dict[int, Schema] = {}
        self.wanted: frozenset[int] = frozenset()
        """The ids that were asked for in vain, since the registry was not there."""
        self._settings = settings
        self._now = now
        self._refused_at: dict[int, float] = {}
        self._minute = now()
        self._versions: dict[_Version, Mapping[str, object]] = {}
        """Versions of subjects that schemas refer to; a version never changes."""
        self._unknown = 0
        """How many ids without a schema were asked for since `_minute`."""
        self._client: HttpClient | None = None
        self._asking = threading.Lock()
        authorization = _authorization(settings)
        self._headers = {"accept": "application/vnd.schemaregistry.v1+json", "user-agent": f"iggyflux/{__version__}"}
        if authorization:
            self._headers["authorization"] = authorization
        secrets = [each.reveal() for each in (settings.token, settings.password) if each is not None]
        self._scrub = Scrubber([*secrets, *([authorization.partition(" ")[2]] if authorization else [])])

    @property
    def server(self) -> str:
        """The address, without credentials."""
        return self._settings.url

    def learn(self, ids: Iterable[int]) -> None:
        """Ask for each of `ids` that is not known.

        Raise `NotConnected` if the registry is not there, and `Stopped` if the operator has to act.
        """
        possible = sorted(each for each in ids if each < 2**31)
        unknown = [each for each in possible if each not in self.known or self._may_be_there_now(each)]
        if not unknown:
            return
        with self._asking:
            for position, each in enumerate(unknown):
                if each in self.known and not self._may_be_there_now(each):
                    continue  # another thread asked meanwhile
                self.wanted = frozenset(unknown[position:])
                if self._asks():
                    self._keep(each, self._ask(each))
                else:
                    reason = f"the schema registry was not asked for {each}: it had none of {MOST_UNKNOWN} ids"
                    self._keep(each, Refused(f"{reason} within a minute", is_unknown=True), self._minute)
            self.wanted = frozenset()

    async def connect(self) -> None:
        """Ask again for what was not answered.  Raise as `learn`."""
        if self.wanted:
            await asyncio.to_thread(self.learn, self.wanted)

    def close(self) -> None:
        """Close the connection, and end a request in progress."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _may_be_there_now(self, number: int) -> bool:
        since = self._refused_at.get(number)
        return since is not None and self._now() - since >= ASK_AGAIN_SECONDS

    def _asks(self) -> bool:
        """Return whether there may be another request."""
        if self._now() - self._minute >= ASK_AGAIN_SECONDS:
            self._minute, self._unknown = self._now(), 0
        return self._unknown < MOST_UNKNOWN

    def _keep(self, number: int, found: Schema, since: float | None = None) -> None:
        """Keep what is found; `since`: it was not asked for, since this minute is full."""
        self._refused_at.pop(number, None)
        if isinstance(found, Refused) and found.is_unknown:
            while len(self._refused_at) >= MOST_REFUSED:
                oldest = next(iter(self._refused_at))
                del self._refused_at[oldest], self.known[oldest]
            self._refused_at[number] = self._now() if since is None else since
            self._unknown += since is None
        self.known[number] = found

    def _ask(self, number: int) -> Schema:
        tree = self._get(f"/schemas/ids/{number}")
        if tree is None:
            return Refused(f"the schema registry has no schema {number}", is_unknown=True)
        others: dict[_Version, str] = {}
        try:
            self._collect(tree, others, ())
            return joined(str(tree["schema"]), list(others.values())) if others else str(tree["schema"])
        except _Unusable as error:
            reason = f"the schema {number} of the registry {error}"
            return Refused(reason, is_unknown=error.is_unknown)
        except SchemaError as error:
            return Refused(f"the schema {number} of the registry cannot be used: {error}")

    def _collect(self, tree: Mapping[str, object], others: dict[_Version, str], path: tuple[_Version, ...]) -> None:
        """Ask for the schemas that one refers to, at any depth.  Raise _Unusable."""
        kind = tree.get("schemaType", "AVRO")
        if kind != "AVRO":
            raise _Unusable(f"is {str(kind)[:40]!r}, not of Avro" if not path else f"refers to a {str(kind)[:40]!r}")
        references = tree.get("references") or ()
        for each in references if isinstance(references, list) else ():
            version = _version(each)
            if version is None:
                raise _Unusable("refers to others in an unknown way")
            if version in path or len(path) >= MOST_REFERRED_DEPTH:
                raise _Unusable("refers to itself" if version in path else "refers to others that refer on too deep")
            if version in others:
                continue
            if len(others) >= MOST_REFERRED:
                raise _Unusable(f"refers to more than {MOST_REFERRED} others")
            subject, number = version
            if version not in self._versions:
                found = self._get(f"/subjects/{quote(subject, safe='')}/versions/{number}")
                if found is None:
                    shown = f"version {number} of {subject[:60]!r}"
                    raise _Unusable(f"refers to {shown}, which the registry does not have", is_unknown=True)
                if len(self._versions) >= MOST_REFUSED:
                    self._versions.clear()
                self._versions[version] = found
            others[version] = str(self._versions[version]["schema"])
            if sum(map(len, others.values())) > MOST_SCHEMA_BYTES:
                raise _Unusable(f"has more than {MOST_SCHEMA_BYTES:,} characters with those that it refers to")
            self._collect(self._versions[version], others, (*path, version))

    def _get(self, path: str) -> Mapping[str, object] | None:
        """Return the answer with a schema; None if there is none.  Raise as `learn`."""
        answer = self._http().exchange("GET", path, self._headers)
        if isinstance(answer, Impossible):
            raise Stopped(f"the schema registry {self.server}: {self._scrub(answer.reason)}", answer.hint, REFUSES)
        if not isinstance(answer, Answer):
            raise self._away(getattr(answer, "reason", "it did not answer"))
        if answer.status in (401, 403):
            reason = f"the schema registry {self.server} refuses the credentials (it answered {answer.status})"
            raise Stopped(reason, "correct `username` and `password`, or `token`, of `schema_registry`", REFUSES)
        if 300 <= answer.status < 400:
            place = self._scrub(answer.headers.get("location", "another address"))[:200]
            reason = f"the schema registry {self.server} redirects to {place}"
            raise Stopped(reason, "name the address of the registry itself in `url` of `schema_registry`", REFUSES)
        tree = _tree(answer)
        if answer.status in (400, 404, 422) and str(tree.get("error_code", "")).startswith(str(answer.status)):
            return None
        if answer.status != 200 or not isinstance(tree.get("schema"), str):
            seconds = parse_retry_after(answer.headers.get("retry-after"), time.time())
            what = "without a schema" if answer.status == 200 else ""
            raise self._away(f"it answered {answer.status} {what}".rstrip(), seconds)
        return tree

    def _away(self, reason: str, retry_after_seconds: float | None = None) -> NotConnected:
        error = NotConnected(f"the schema registry: {self._scrub(reason)}", retry_after_seconds=retry_after_seconds)
        error.server = self.server
        return error

    def _http(self) -> HttpClient:
        if self._client is None:
            try:
                self._client = HttpClient(
                    parse_address(self._settings.url)[0],
                    tls=Tls(self._settings.ca_file),
                    timeout_seconds=self._settings.timeout_seconds,
                    scrub=self._scrub,
                    connections=1,
                )
            except (AddressError, CertificateFault) as error:
                raise Stopped(self._scrub(str(error)), getattr(error, "hint", None), REFUSES) from None
        return self._client


def _authorization(settings: RegistrySettings) -> str | None:
    if settings.token is not None:
        return f"Bearer {settings.token.reveal()}"
    if settings.username is None:
        return None
    password = "" if settings.password is None else settings.password.reveal()
    return "Basic " + base64.b64encode(f"{settings.username}:{password}".encode()).decode("ascii")


def _tree(answer: Answer) -> Mapping[str, object]:
    """Return the body as a JSON object; empty if it is not one, is not whole, or is too large."""
    if not answer.whole or len(answer.body) > MOST_SCHEMA_BYTES:
        return {}
    try:
        tree = json.loads(answer.body)
    except (ValueError, RecursionError):
        return {}
    return tree if isinstance(tree, dict) else {}


_Version: TypeAlias = tuple[str, int]
"""A subject, and the number of a version of it."""


class _Unusable(Exception):
    """What is wrong with a schema, after its name; `is_unknown`: the registry lacks what it refers to."""

    def __init__(self, reason: str, *, is_unknown: bool = False) -> None:
        self.is_unknown = is_unknown
        super().__init__(reason)


def _version(reference: object) -> _Version | None:
    """Return what a reference names; None if it is not one."""
    if not isinstance(reference, dict):
        return None
    subject, version = reference.get("subject"), reference.get("version")
    if not isinstance(subject, str) or not subject or type(version) is not int or version < 1:
        return None
    return subject, version
