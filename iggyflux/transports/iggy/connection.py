"""One connection to Iggy: its calls with our types, its errors translated.  The only file that knows the SDK.

What the SDK requires:

- Every call has a timeout, and none is ever cancelled: the state of a connection after a cancelled request is not
  documented.  After a call that took too long, the connection is not used again.
- The SDK's own reconnecting is off: a client that reconnects by itself has lost its groups.  After `NotConnected`
  the caller makes a new `Connection`.
- A client that is only dropped keeps sending heartbeats, and stays a member that holds its partitions: it must be
  logged out.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from importlib.metadata import PackageNotFoundError, version
from platform import python_version
from typing import Any, Final, Literal, TypeAlias, TypeVar

from iggyflux.errors import Stopped
from iggyflux.pipeline import IggySettings
from iggyflux.pipeline.addresses import PORTS
from iggyflux.records import Message, OutgoingMessage, Partition, Scalar
from iggyflux.secrets import Scrubber, url_secrets
from iggyflux.transports.base import forget_error
from iggyflux.transports.iggy import wire
from iggyflux.transports.iggy.errors import CallFailed, Meaning, translated
from iggyflux.transports.iggy.messages import lazy_messages
from iggyflux.transports.iggy.wire import StoredOffset
from iggyflux.transports.probes import answers_http, answers_tls
from iggyflux.transports.proxies import proxy_for
from iggyflux.transports.urls import Address, AddressError

try:
    import apache_iggy as sdk
except ImportError:  # there is no wheel for this Python or machine: `Connection.open` says so, all else works
    sdk = None  # type: ignore[assignment]  # a module

T = TypeVar("T")
At: TypeAlias = tuple[Literal["offset", "timestamp", "first", "next"], int]
_LEAVE_SECONDS: Final = 2.0
_MOST_CLIENTS_ASKED: Final = 64
_PRESENCE_TRIES = 3
_HTTP_ID: Final = 2**64 - 1
"""The bits of an id that are sent over http: the SDK panics at longer ids."""
_INT64 = range(-(2**63), 2**63)
_UINT64 = range(2**64)
_STRATEGIES: Final[Mapping[str, Any]] = {
    "offset": lambda value: sdk.PollingStrategy.Offset(value),
    "timestamp": lambda value: sdk.PollingStrategy.Timestamp(value),
    "first": lambda _: sdk.PollingStrategy.First(),
    "next": lambda _: sdk.PollingStrategy.Next(),
}

log = logging.getLogger("iggyflux.iggy")


@dataclass(frozen=True, slots=True)
class ConsumerId:
    """The consumer for which messages are polled and offsets stored."""

    kind: Literal["single", "group"]
    name: str


@dataclass(frozen=True, slots=True)
class Membership:
    """A consumer group, as one of its members sees it."""

    number: int | None
    """The number of this member; None if it is not known yet, or this client is not a member."""
    own: frozenset[int] | None
    """The partitions that this member may poll; None if it is not a member."""
    held: Mapping[int, tuple[int, ...]]
    """The members by number, with the partitions that each holds, also those being handed over."""

    def holder(self, partition: int) -> int | None:
        """Return the member that holds a partition."""
        return next((member for member, held in self.held.items() if partition in held), None)


@dataclass(frozen=True, slots=True)
class PartitionInfo:
    """The server's data about a partition: `end` is the offset of the next message."""

    number: int
    end: int
    messages: int
    size: int


class Connection:
    """One client of one server: `open` it, call it, `close` it; after `NotConnected` make another.

    All calls raise `NotConnected` (as `CallFailed`, with the server's meaning) or `Stopped`.
    """

    def __init__(self, settings: IggySettings, *, client: Callable[[IggySettings], Any] | None = None) -> None:
        self._settings = settings
        self._make_client = client or _client
        self._client: Any = None
        self._handles: dict[tuple[str, str, str], Any] = {}
        self._numbers: dict[tuple[str, str, str], int] = {}
        self._http = speaks_http(settings)
        self._speaks_wire = not self._http and wire.is_known(_sdk_version())

    async def open(self) -> None:
        """Connect and log in."""
        if sdk is None:
            raise Stopped(
                f"the SDK of Apache Iggy (package apache-iggy) is not installed for Python {python_version()}",
                "install iggyflux in a Python for which that package has a wheel: 3.11, 3.12 or 3.13",
                "IFX765",
            )
        try:
            self._client = _Calls(self._make_client(self._settings))
        except (ValueError, TypeError, OverflowError, RuntimeError) as error:
            raise Stopped(
                f"the `iggy` section cannot be used: {_masked(error, self._settings)}", code="IFX760"
            ) from error
        where = address_of(self._settings)
        try:
            await self._call(self._client.connect(), f"connecting to {where}", logging_in=True)
            if self._http:  # over http `connect` does not log in
                login = self._client.login_user(*_name_and_password(self._settings))
                await self._call(login, f"logging in to {where}", logging_in=True)
        except Stopped:
            await self.close()
            await self._stop_at_another_protocol()  # the SDK reads the start of any answer as a code of an error
            raise
        except CallFailed as failure:
            await self.close()
            if _NO_CONNECTION not in str(failure).lower():
                await self._stop_at_another_protocol()
            text = f"{failure}{_of_encryption(str(failure), self._settings)}{_of_address(str(failure), self._settings)}"
            raise CallFailed(text, failure.meaning) from failure

    async def _stop_at_another_protocol(self) -> None:
        """Raise `Stopped` if the port speaks HTTP or TLS, and should not."""
        settings = self._settings
        if settings.transport != "tcp" or settings.connection_string is not None or settings.tls:
            return
        where, (host, _, port) = address_of(settings), settings.address.rpartition(":")
        if await asyncio.to_thread(answers_http, host.strip("[]"), int(port)):
            hint = f"set `transport: http`, or use the port of tcp, by default {PORTS['tcp']}"
            raise Stopped(f"{where} answers HTTP, which is another transport of Iggy", hint, "IFX760")
        if await asyncio.to_thread(answers_tls, host.strip("[]"), int(port)):
            raise Stopped(f"{where} uses TLS", "set `tls: true`", "IFX761")

    async def close(self) -> None:
        """Leave the groups and log out, as far as the server still answers; idempotent, never raises."""
        client, self._client = self._client, None
        handles, self._handles = self._handles, {}
        if client is None:
            return
        for stream, topic, group in handles:
            await _quietly(client.leave_consumer_group(stream, topic, group))
        await _quietly(client.logout_user())

    # Topics

    async def topics(self, stream: str) -> list[str] | None:
        """Return the names of the topics of `stream`; None if it does not exist."""
        doing = f"requesting the topics of {stream}"
        if await self._call(self._alive.get_stream(stream), doing) is None:
            return None
        return sorted(topic.name for topic in await self._call(self._alive.get_topics(stream), doing))

    async def streams(self) -> list[str]:
        """Return the names of the streams; none if this user may not list them."""
        try:
            return sorted(
                stream.name for stream in await self._call(self._alive.get_streams(), "requesting the streams")
            )
        except Stopped:
            return []

    async def partitions(self, stream: str, topic: str) -> list[PartitionInfo] | None:
        """Return the partitions of a topic; None if it does not exist."""
        details = await self._call(self._alive.get_topic(stream, topic), f"requesting {stream}/{topic}")
        if details is None:
            return None
        infos = [PartitionInfo(each.id, _end(each), each.messages_count, each.size) for each in details.partitions]
        return sorted(infos, key=lambda info: info.number)

    async def create(self, stream: str, topic: str, partitions: int) -> None:
        """Create a topic, and its stream, if missing.  Raise `Stopped` (IFX767) with the server's words."""
        doing = f"creating {stream}/{topic}"
        try:
            if await self._call(self._alive.get_stream(stream), doing) is None:
                await self._unless_there(self._alive.create_stream(stream), doing)
            if await self._call(self._alive.get_topic(stream, topic), doing) is None:
                await self._unless_there(self._alive.create_topic(stream, topic, partitions), doing)
        except CallFailed as failure:
            if failure.meaning is Meaning.AWAY:
                raise
            hint = f"create it by hand: iggy topic create {stream} {topic} {partitions} none"
            raise Stopped(f"Iggy: {failure}", hint, "IFX767") from failure

    # Groups

    async def join(self, stream: str, topic: str, group: str) -> None:
        """Join `group`, and create it if missing."""
        before = await self.members(stream, topic, group)
        handle = await self._call(
            self._alive.consumer_group(
                group,
                stream,
                topic,
                auto_commit=sdk.AutoCommit.Disabled(),
                polling_strategy=sdk.PollingStrategy.Next(),
                batch_length=1,
                poll_interval=timedelta(seconds=1),
                allow_replay=True,
            ),
            f"joining group {group} of {stream}/{topic}",
        )
        self._handles[stream, topic, group] = handle
        new = [number for number in await self.members(stream, topic, group) if number not in before]
        if len(new) == 1:  # else another member joined at the same time: `membership` compares the partitions
            self._numbers[stream, topic, group] = new[0]

    async def membership(self, stream: str, topic: str, group: str) -> Membership:
        """Return the group, and the part of it that belongs to this member."""
        held = await self.members(stream, topic, group)
        known = self._numbers.get((stream, topic, group))
        number = known if known in held else None
        own = None if number is None else frozenset(held[number])
        if self._speaks_wire:
            body = wire.group_request(stream, topic, group)
            doing = f"requesting the assigned partitions of group {group} of {stream}/{topic}"
            try:
                own = wire.parse_assignment(
                    await self._call(self._alive.send_binary_request(wire.SYNC_GROUP, body), doing)
                )
            except ValueError as error:
                self._do_without_wire(error)
        if own:
            number = next((each for each, partitions in held.items() if own <= set(partitions)), None)
        if own is None:
            number = None
        if number is not None:
            self._numbers[stream, topic, group] = number
        return Membership(number, own, held)

    async def connected_members(self, stream: str, topic: str, group: str) -> int | None:
        """Return how many members have a connection; None if the server does not say, or not to this user."""
        doing = f"requesting the connected members of group {group} of {stream}/{topic}"
        if not self._speaks_wire:
            return None
        try:
            parts = (
                await self._call(self._alive.get_stream(stream), doing),
                await self._call(self._alive.get_topic(stream, topic), doing),
                await self._call(self._alive.get_consumer_group(stream, topic, group), doing),
            )
            if None in parts:
                return 0
            wanted = tuple(part.id for part in parts)
            clients = wire.parse_clients(
                await self._call(self._alive.send_binary_request(wire.GET_CLIENTS, b""), doing)
            )
            asked = [client for client, groups in clients.items() if groups]
            if len(asked) > _MOST_CLIENTS_ASKED:
                return None
            answers = [
                await self._call(self._alive.send_binary_request(wire.GET_CLIENT, wire.client_request(client)), doing)
                for client in asked
            ]
            return sum(wanted in wire.parse_client_groups(answer) for answer in answers)
        except (ValueError, Stopped) as error:  # the user needs a permission that reading does not need
            log.debug("iggy.clients_not_visible reason=%r", str(error))
            return None

    async def presence(self, stream: str, topic: str, group: str) -> tuple[dict[int, tuple[int, ...]], int | None]:
        """Return `members`, and how many have a connection: of one moment, so that one who joins hides no ghost.

        The number is None as in `connected_members`, and where members come and go all the time.
        """
        members = await self.members(stream, topic, group)
        for _ in range(_PRESENCE_TRIES if members else 0):
            connected = await self.connected_members(stream, topic, group)
            before, members = members, await self.members(stream, topic, group)
            if members.keys() == before.keys():
                return members, connected
        return members, None if members else 0

    async def members(self, stream: str, topic: str, group: str) -> dict[int, tuple[int, ...]]:
        """Return the members of a group by number, with the partitions that each holds."""
        doing = f"requesting group {group} of {stream}/{topic}"
        details = await self._call(self._alive.get_consumer_group(stream, topic, group), doing)
        return {} if details is None else {each.id: tuple(sorted(each.partitions)) for each in details.members}

    async def forget_group(self, stream: str, topic: str, group: str) -> None:
        """Delete a group, with its members and offsets; do nothing if it does not exist."""
        doing = f"deleting group {group} of {stream}/{topic}"
        if await self._call(self._alive.get_consumer_group(stream, topic, group), doing) is not None:
            await self._call(self._alive.delete_consumer_group(stream, topic, group), doing)

    # Offsets

    async def stored(self, consumer: ConsumerId, place: Partition) -> StoredOffset | None:
        """Return the stored offset of `consumer`; None if there is none."""
        doing = f"requesting the offset of {consumer.name} in {place}"
        if self._speaks_wire:
            body = wire.offset_request(consumer.kind, consumer.name, place.stream, place.topic, place.partition)
            try:
                return wire.parse_offset(
                    await self._call(self._alive.send_binary_request(wire.GET_OFFSET, body), doing), place.partition
                )
            except (ValueError, Stopped) as error:
                self._do_without_wire(error)
        return await self._stored_by_polling(consumer, place)

    async def store(self, consumer: ConsumerId, place: Partition, offset: int) -> None:
        """Store that all up to `offset` is settled.  Raise `CallFailed` (NOT_OWNER) if the partition was reassigned."""
        doing = f"storing offset {offset} of {consumer.name} in {place}"
        if consumer.kind == "group":
            handle = self._handles.get((place.stream, place.topic, consumer.name))
            if handle is None:
                raise CallFailed(f"{doing}: not a member", Meaning.NO_MEMBER)
            await self._call(handle.store_offset(offset, place.partition), doing)
            return
        if self._speaks_wire:
            body = wire.store_request(consumer.name, place.stream, place.topic, place.partition, offset)
            try:
                await self._call(self._alive.send_binary_request(wire.STORE_OFFSET, body), doing)
            except Stopped as error:
                self._do_without_wire(error)
            else:
                return
        await self._poll(consumer, place, ("offset", offset), 1, doing, auto_commit=True)

    # Messages

    async def poll(self, consumer: ConsumerId, place: Partition, at: At, count: int) -> Sequence[Message]:
        """Return at most `count` messages of a partition; none if it is empty or belongs to another member."""
        polled = await self._poll(consumer, place, at, count, f"polling {place}")
        return lazy_messages(polled, place)

    async def send(self, stream: str, topic: str, partition: int, messages: Sequence[OutgoingMessage]) -> None:
        """Append `messages` to a partition; return when the server has confirmed them."""
        doing = f"sending to {stream}/{topic}/{partition}"
        try:
            most = _HTTP_ID if self._http else -1
            batch = [sdk.SendMessage(each.payload, _headers(each.headers), each.id & most or None) for each in messages]
        except (ValueError, TypeError, OverflowError, RuntimeError) as error:
            hint = "send payloads of 1 byte to 64 MB, and header keys and values of 1 to 255 bytes"
            raise Stopped(f"Iggy rejects the message: {error}", hint, "IFX775") from error
        partitioning = sdk.Partitioning.partition_id(partition)
        answer = await self._call(self._alive.send_messages(stream, topic, partitioning, batch), doing)
        confirmed = {each.partition_id for each in answer.confirmations}
        if confirmed - {partition}:
            raise CallFailed(f"{doing}: the server confirmed partitions {sorted(confirmed)}", Meaning.AWAY)

    # The calls

    @property
    def _alive(self) -> Any:
        if self._client is None:
            raise CallFailed("not connected to Iggy", Meaning.AWAY)
        return self._client

    async def _call(self, answer: Awaitable[T], doing: str, *, logging_in: bool = False) -> T:
        """Return the answer, within the timeout; the call itself is never cancelled."""
        future = asyncio.ensure_future(answer)
        try:
            await asyncio.wait({future}, timeout=self._settings.timeout_seconds)  # `wait_for` may lose a cancellation
            if not future.done():
                future.add_done_callback(forget_error)
                seconds = f"{self._settings.timeout_seconds:g} s"
                raise CallFailed(f"{doing}: no answer in {seconds}", Meaning.AWAY)
            return future.result()
        except asyncio.CancelledError:
            future.add_done_callback(forget_error)
            raise
        except (RuntimeError, ValueError, TypeError, OverflowError) as error:
            raise translated(_masked(error, self._settings), doing, logging_in=logging_in) from error

    async def _unless_there(self, answer: Awaitable[None], doing: str) -> None:
        try:
            await self._call(answer, doing)
        except CallFailed as failure:
            if failure.meaning is not Meaning.EXISTS:
                raise

    async def _poll(
        self, consumer: ConsumerId, place: Partition, at: At, count: int, doing: str, *, auto_commit: bool = False
    ) -> Any:
        kind = sdk.Consumer.Group if consumer.kind == "group" else sdk.Consumer.Single
        return await self._call(
            self._alive.poll_messages(
                place.stream,
                place.topic,
                consumer=kind(consumer.name),
                partition_id=place.partition,
                polling_strategy=_STRATEGIES[at[0]](at[1]),
                count=count,
                auto_commit=auto_commit,
            ),
            doing,
        )

    async def _stored_by_polling(self, consumer: ConsumerId, place: Partition) -> StoredOffset | None:
        """Return the stored offset, inferred from the next message; without one it is taken as the last offset."""
        infos = await self.partitions(place.stream, place.topic) or []
        end = next((info.end for info in infos if info.number == place.partition), 0)
        polled = await self._poll(consumer, place, ("next", 0), 1, f"polling {place}")
        following = polled[0].offset() if polled else end
        return StoredOffset(end - 1, following - 1) if following else None

    def _do_without_wire(self, reason: Exception) -> None:
        self._speaks_wire = False
        log.warning("iggy.slower_offsets reason=%r", str(reason))


class _Calls:
    """The SDK's client with one way to fail: an exception raised by a call is raised by the awaitable it returns."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        method = getattr(self._client, name)

        def call(*args: Any, **named: Any) -> Awaitable[Any]:
            try:
                answer: Awaitable[Any] = method(*args, **named)
            except (RuntimeError, ValueError, TypeError, OverflowError) as error:
                failed = asyncio.get_running_loop().create_future()
                failed.set_exception(error)
                return failed
            return answer

        return call


def speaks_http(settings: IggySettings) -> bool:
    """Return whether these settings mean requests over http."""
    return settings.transport == "http" or _in_string(settings).startswith("iggy+http:")


def address_of(settings: IggySettings) -> str:
    """Return the server's address, for people; never a secret."""
    if settings.connection_string is not None:
        return settings.connection_string.reveal().rpartition("@")[2].partition("?")[0]
    return f"{settings.transport}://{settings.address}"


def _sdk_version() -> str:
    try:
        return version("apache-iggy")
    except PackageNotFoundError:
        return ""


def _client(settings: IggySettings) -> Any:
    """Return the SDK's client for these settings, not connected."""
    if settings.connection_string is not None:
        return sdk.IggyClient.from_connection_string(_without_reconnecting(settings.connection_string.reveal()))
    return sdk.IggyClient(_TRANSPORTS[settings.transport](settings))


def _server(settings: IggySettings) -> dict[str, Any]:
    return {"server_address": settings.address, "auto_login": _login(settings)}


def _tls(settings: IggySettings) -> dict[str, Any]:
    ca_file = str(settings.ca_file) if settings.ca_file else None
    return {"tls_enabled": settings.tls, "tls_domain": settings.domain, "tls_ca_file": ca_file}


def _tcp(settings: IggySettings) -> Any:
    reconnection = sdk.TcpReconnectionConfig(enabled=False)
    return sdk.TcpConfig(**_server(settings), **_tls(settings), reconnection=reconnection, nodelay=True)


def _websocket(settings: IggySettings) -> Any:
    reconnection = sdk.WebSocketReconnectionConfig(enabled=False)
    return sdk.WebSocketConfig(
        **_server(settings), **_tls(settings), reconnection=reconnection, tls_validate_certificate=settings.tls
    )


def _quic(settings: IggySettings) -> Any:  # TLS always, by other names
    reconnection = sdk.QuicReconnectionConfig(enabled=False)
    return sdk.QuicConfig(
        **_server(settings),
        reconnection=reconnection,
        server_name=settings.domain,
        validate_certificate=settings.tls,
    )


def _http(settings: IggySettings) -> Any:
    scheme = "https" if settings.tls else "http"
    return sdk.HttpConfig(api_url=f"{scheme}://{settings.address}", retries=0)


_TRANSPORTS: Final[Mapping[str, Any]] = {"tcp": _tcp, "websocket": _websocket, "quic": _quic, "http": _http}


def _login(settings: IggySettings) -> Any:
    if settings.token is not None:
        return sdk.AutoLogin.personal_access_token(settings.token.reveal())
    password = settings.password.reveal() if settings.password else ""
    return sdk.AutoLogin.username_password(settings.username or "", password)


def _in_string(settings: IggySettings) -> str:
    return settings.connection_string.reveal() if settings.connection_string else ""


def _name_and_password(settings: IggySettings) -> tuple[str, str]:
    if settings.connection_string is None:
        return settings.username or "", settings.password.reveal() if settings.password else ""
    name, _, password = _in_string(settings).partition("://")[2].rpartition("@")[0].partition(":")
    return name, password


def _of_encryption(text: str, settings: IggySettings) -> str:
    """Return a text with a hint at TLS, since the SDK does not report faults of certificates."""
    if settings.tls and _NO_CONNECTION in text.lower():
        return " (if it is running, check that its certificate is trusted and valid for the name: `ca_file`, `domain`)"
    if not settings.tls and "disconnected" in text.lower() and not settings.connection_string:
        return " (if it expects encryption, set `tls: true`)"
    return ""


_NO_CONNECTION: Final = "cannot establish"


def _of_address(text: str, settings: IggySettings) -> str:
    """Return a text with a hint at what is at the address: the usual port of another transport, or a proxy before it.

    The SDK uses the proxy of the environment for http, and does not say so.
    """
    if settings.connection_string is not None:
        return ""
    host, _, port = settings.address.rpartition(":")
    usual = next((each for each, number in PORTS.items() if str(number) == port), settings.transport)
    if usual != settings.transport:
        return f" (port {port} is the usual port of {usual}: check `transport`)"
    if settings.transport != "http":
        return ""
    with suppress(AddressError):
        proxy = proxy_for(Address("https" if settings.tls else "http", host.strip("[]"), int(port)))
        if proxy is not None:
            return f" (through the proxy {proxy}; NO_PROXY excepts hosts from it)"
    return " (is it the port of another transport?)" if "no answer" in text else ""


def _without_reconnecting(text: str) -> str:
    """Add an option to a connection string: without it TCP and WebSocket reconnect without end; others lack it."""
    if "reconnection_retries=" in text or not text.startswith(("iggy:", "iggy+tcp:", "iggy+ws:")):
        return text
    return text + ("&" if "?" in text else "?") + "reconnection_retries=0"


def _masked(error: BaseException, settings: IggySettings) -> str:
    """Return the text of an error, without secrets."""
    secrets = (settings.password, settings.token, settings.connection_string)
    hidden = [secret.reveal() for secret in secrets if secret is not None]
    return Scrubber([*hidden, *(part for each in hidden for part in url_secrets(each))])(str(error))


def _end(partition: Any) -> int:
    """Return the offset of the next message: the server reports 0 as the last offset of an empty partition."""
    return int(partition.current_offset) + 1 if partition.messages_count or partition.current_offset else 0


def _headers(headers: Mapping[str, Scalar]) -> dict[str, Any] | None:
    """Return headers whose kinds do not depend on their values; an empty string cannot be sent and is omitted."""
    return {key: _header(value) for key, value in headers.items() if value != ""} or None


def _header(value: Scalar | bytes) -> Any:
    kinds = sdk.HeaderValue
    if isinstance(value, bool):
        return kinds.Bool(value)
    if isinstance(value, int):
        kind = kinds.Int64 if value in _INT64 else kinds.UnsignedInt64 if value in _UINT64 else kinds.Int128
        return kind(value)
    if isinstance(value, float):
        return kinds.Float64(value)
    return kinds.Raw(value) if isinstance(value, bytes) else kinds.String(value)


async def _quietly(answer: Awaitable[object]) -> None:
    """Wait for an answer that may never come, for a short time."""
    future = asyncio.ensure_future(answer)
    future.add_done_callback(forget_error)
    await asyncio.wait({future}, timeout=_LEAVE_SECONDS)
