"""The web server of the playground: the page, and its questions as JSON.

It is for one person on this machine.  A request must name loopback as its host, come from the page itself or from no
page, and have the token, without which nothing but the empty page is served.  Bodies are bounded.  It opens no file but
those of one folder and of this package.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from iggyflux import __version__
from iggyflux.errors import IggyfluxError
from iggyflux.playground.desk import Desk, Superseded
from iggyflux.playground.files import FileRefused, Folder
from iggyflux.playground.gallery import gallery
from iggyflux.playground.service import QUESTIONS, Answer, Question

T = TypeVar("T")
STATIC: Final = Path(__file__).parent / "static"
TOKEN_HEADER: Final = "x-playground-token"  # noqa: S105  # a name
MOST_BYTES: Final = 8 << 20
"""The most bytes of a request: a document has at most 1 MiB, the rest are samples."""
MOST_MESSAGES: Final = 1_000
TOPIC_SECONDS: Final = 30.0

_TYPES: Final = {".js": "text/javascript", ".css": "text/css", ".txt": "text/plain", ".svg": "image/svg+xml"}
_PAGE: Final = "index.html"
_HEADERS: Final = {
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'nonce-{nonce}'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@dataclass(frozen=True, slots=True)
class Topics:
    """Where messages are taken from: `origin` names it, `names` are its topics as STREAM/TOPIC, if they are known.

    `last` returns the last messages of a topic as text, one a line, in a thread.  It raises IggyfluxError.
    """

    origin: str
    names: Sequence[str]
    last: Callable[[str, int], str]


@dataclass(frozen=True, slots=True)
class Start:
    """What the page begins with: a text and samples, and the name of the file to save, if there is one."""

    text: str
    samples: str = ""
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Playground:
    """All that the server needs; `hosts` are the values of the header Host that it answers to."""

    token: str
    hosts: frozenset[str]
    folder: Folder
    start: Start
    topics: Topics | None = None
    desk: Desk = field(default_factory=Desk)


def create_app(playground: Playground) -> ASGIApp:
    """Return the web server as an ASGI application."""
    handlers = _Handlers(playground)
    return Starlette(
        routes=[
            Route("/", handlers.page),
            Route("/static/{name}", handlers.static),
            Route("/api/start", handlers.begin),
            Route("/api/ask/{name}", handlers.ask, methods=["POST"]),
            Route("/api/files/{name}", handlers.open, methods=["GET"]),
            Route("/api/files/{name}", handlers.save, methods=["PUT"]),
            Route("/api/topic", handlers.topic, methods=["POST"]),
        ],
        middleware=[Middleware(_Guard, playground=playground)],
        lifespan=_ending(playground.desk),
    )


def _ending(desk: Desk) -> Callable[[Starlette], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await desk.close()

    return lifespan


class Refused(IggyfluxError):
    """A request that is not answered: the status and the reason say why."""

    def __init__(self, status: int, reason: str, code: str = "", hint: str | None = None) -> None:
        self.status = status
        self.reason = reason
        self.code = code
        self.hint = hint
        super().__init__(reason)


class _Guard:
    """Refuses requests that are not the page's, bounds their bodies, and adds headers to each response."""

    def __init__(self, app: ASGIApp, playground: Playground) -> None:
        self._app = app
        self._playground = playground

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        if scope["type"] != "http":
            return
        begun = False

        async def sent(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                names = {name for name, _ in message["headers"]}
                added = {**_HEADERS, "content-security-policy": _POLICY.format(nonce="")}
                extra = [(key.encode(), value.encode()) for key, value in added.items() if key.encode() not in names]
                message = {**message, "headers": [*message["headers"], *extra]}
            await send(message)

        try:
            self._check(scope)
            await self._app(scope, _bounded(receive), sent)
        except Refused as refused:
            if not begun:
                fault = _fault(refused.code, refused.reason, refused.hint)
                await _json({"fault": fault}, refused.status)(scope, receive, sent)
        except Exception as error:  # the terminal shows no traceback
            if not begun:
                reason = f"a bug in iggyflux: {type(error).__name__}; please report it"
                await _json({"fault": _fault("", reason)}, 500)(scope, receive, sent)

    def _check(self, scope: Scope) -> None:
        """Raise Refused for a request of another page, or without the token."""
        headers = _headers(scope)
        hosts = self._playground.hosts
        if headers.get("host", "").lower() not in hosts:
            raise Refused(421, "the playground answers to its own address only")
        origin = headers.get("origin")
        if origin is not None and origin.lower() not in {f"http://{host}" for host in hosts}:
            raise Refused(403, "another page asks")
        if headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
            raise Refused(403, "another page asks")
        path = scope["path"]
        if path.startswith("/api/"):
            given = headers.get(TOKEN_HEADER, "")
            if not secrets.compare_digest(given.encode(), self._playground.token.encode()):
                raise Refused(401, "the token is missing or wrong: open the URL that the command printed")


def _headers(scope: Scope) -> Mapping[str, str]:
    """Return the headers; of one that is repeated nothing that could be right."""
    found: dict[str, str] = {}
    for name, value in scope["headers"]:
        key = name.decode("latin-1").lower()
        found[key] = f"{found[key]}, {value.decode('latin-1')}" if key in found else value.decode("latin-1")
    return found


def _bounded(receive: Receive) -> Receive:
    size = 0

    async def bounded() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > MOST_BYTES:
            raise Refused(413, f"the texts have more than {MOST_BYTES:,} bytes")
        return message

    return bounded


class _Handlers:
    """One method for each route."""

    def __init__(self, playground: Playground) -> None:
        self._playground = playground

    async def page(self, _: Request) -> Response:
        nonce = secrets.token_urlsafe(16)
        text = (STATIC / _PAGE).read_text("utf-8").replace("{{nonce}}", nonce)
        policy = _POLICY.format(nonce=nonce)
        return Response(text, media_type="text/html", headers={"content-security-policy": policy})

    async def static(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in {path.name for path in STATIC.iterdir()} or name == _PAGE:
            raise Refused(404, "no such file")
        path = STATIC / name
        return Response(path.read_bytes(), media_type=_TYPES.get(path.suffix, "application/octet-stream"))

    async def begin(self, _: Request) -> Response:
        start, folder, topics = self._playground.start, self._playground.folder, self._playground.topics
        opened: Answer = {"name": start.name, "text": start.text, "version": None}
        if start.name is not None:
            try:
                found = folder.open(start.name)
                opened |= {"text": found.text, "version": found.version}
            except FileRefused:
                pass  # it does not exist yet: saving makes it
        items = [{"name": e.name, "about": e.about, "text": e.text, "samples": e.samples} for e in gallery()]
        return _json(
            {
                "version": __version__,
                "file": opened,
                "samples": start.samples,
                "folder": {"name": folder.path.name or str(folder.path), "files": folder.names()},
                "gallery": items,
                "topics": None if topics is None else {"origin": topics.origin, "names": list(topics.names)},
            }
        )

    async def ask(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in QUESTIONS:
            raise Refused(404, "no such question")
        question = await _body(request, Question)
        try:
            return _json(await self._playground.desk.ask(name, question))
        except Superseded:
            raise Refused(409, "a newer question of this kind waits") from None

    async def open(self, request: Request) -> Response:
        opened = await _refusing(lambda: self._playground.folder.open(request.path_params["name"]))
        return _json({"name": opened.name, "text": opened.text, "version": opened.version})

    async def save(self, request: Request) -> Response:
        saved = await _body(request, _Saved)
        folder, name = self._playground.folder, request.path_params["name"]
        opened = await _refusing(lambda: folder.save(name, saved.text, saved.version))
        return _json({"name": opened.name, "version": opened.version, "files": folder.names()})

    async def topic(self, request: Request) -> Response:
        asked = await _body(request, _Topic)
        topics = self._playground.topics
        if topics is None:
            raise Refused(404, "the command was started without --from")
        count = min(max(asked.last, 1), MOST_MESSAGES)
        try:
            async with asyncio.timeout(TOPIC_SECONDS):
                samples = await _refusing(lambda: topics.last(asked.topic, count))
        except TimeoutError:
            raise Refused(504, f"no messages came within {TOPIC_SECONDS:g} s") from None
        return _json({"samples": samples})


class _Saved(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    text: str
    version: str | None = None


class _Topic(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    topic: str
    last: int = 100


async def _body(request: Request, type: type[T]) -> T:  # noqa: A002
    """Return the body of a request.  Raise Refused."""
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise Refused(415, "expected application/json")
    try:
        return msgspec.json.decode(await request.body(), type=type)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Refused(400, f"not what is expected here: {error}") from error


async def _refusing(act: Callable[[], T]) -> T:
    """Return what `act` returns, called in a thread.  Raise Refused for an error of ours."""
    try:
        return await asyncio.to_thread(act)
    except IggyfluxError as error:
        reason = str(getattr(error, "reason", error))
        raise Refused(409, reason, getattr(error, "code", ""), getattr(error, "hint", None)) from error


def _fault(code: str, message: str, hint: str | None = None) -> Answer:
    return {"code": code, "message": message, "line": 0, "hint": hint}


def _json(value: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")
