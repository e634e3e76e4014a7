"""A server that rejects everything: no line is at fault, so none becomes a dead letter and none is acknowledged."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shell import iggyflux

from iggyflux.delivery.held import HeldRequests
from iggyflux.delivery.retry import Policy
from iggyflux.delivery.retry import Stop as MustStop
from iggyflux.delivery.verdicts import Accepted, Refusal, Refused, RefusedSome, TooLarge, Verdict
from iggyflux.errors import NotConnected
from iggyflux.mapping import OnError
from iggyflux.records import Batch, DeadLetter, Message, Rendered
from iggyflux.runner import Route, Stop, Summary, run_routes
from iggyflux.runner.route import WriterPlan
from iggyflux.transports.local.deadletters import read_dead_letters
from iggyflux.transports.local.memory import CollectingDeadLetters, ImmediateClock, ScriptedSource, batch
from tests.transports.raw_server import PING_1, PING_2, PING_3, RawServer, Reply, Request, http

GOOD, NAMED, VAGUE = b"lambda", b"None", b"\xc3\xbc"
KINDS = (GOOD, NAMED, VAGUE)


class OneLine(WriterPlan):
    """A plan that makes one line of each message, with the payload as its tag."""

    def render(self, messages: Sequence[Message]) -> Rendered:
        lines = [f"m,kind={each.payload.decode()} f={each.offset} {each.offset}" for each in messages]
        return Rendered(lines, list(range(len(lines))))


class Server:
    """A sink that accepts good lines, rejects some lines by name, and others without naming them.

    From request number `shut` on it rejects everything, until request number `opened`.
    """

    dialect = "v2"
    in_flight = None

    def __init__(self, *, words: str = "no", shut: int = 10**9, opened: int = 10**9) -> None:
        self.words, self.shut, self.opened = words, shut, opened
        self.requests = 0
        self.stored: list[str] = []

    async def connect(self) -> None:
        pass

    async def write(self, lines: Sequence[str]) -> Verdict:
        self.requests += 1
        await asyncio.sleep(0)
        vague = RefusedSome(f"{self.words} (request 7f{self.requests:06x} at 12:00:{self.requests % 60:02})", 400)
        if self.shut <= self.requests < self.opened:
            return vague
        named = [index for index, line in enumerate(lines) if NAMED.decode() in line]
        if named:
            return Refused(tuple(Refusal(index, "no such type", 400) for index in named), rest_stored=False)
        if any(VAGUE.decode() in line for line in lines):
            return vague
        self.stored += lines
        return Accepted()

    async def close(self) -> None:
        pass


class Letters(CollectingDeadLetters):
    """Dead letters that record one that is kept before the server has accepted a line."""

    def __init__(self, server: Server) -> None:
        super().__init__()
        self.server = server
        self.unproved: list[DeadLetter] = []

    async def put(self, letters: Sequence[DeadLetter]) -> None:
        if not self.server.stored:
            self.unproved += [each for each in letters if each.message.payload != NAMED]
        await super().put(letters)


def run(
    source: ScriptedSource,
    server: object,
    letters: CollectingDeadLetters,
    *,
    clock: ImmediateClock | None = None,
    **more: object,
) -> Summary:
    values: dict[str, object] = {
        "name": "r",
        "source": source,
        "plan": OneLine(),
        "sink": server,
        "dead_letters": letters,
        "policy": Policy(retry_backoff_seconds=0.1),
        "max_in_flight": 1,
        **more,
    }

    async def main() -> Summary:
        route = Route(**values)  # type: ignore[arg-type]
        return await run_routes([route], stop=Stop(), clock=clock or ImmediateClock(), tick_seconds=None)

    return asyncio.run(asyncio.wait_for(main(), 30))


def batches_of(*groups: Sequence[bytes]) -> list[Batch]:
    """Return batches of these payloads, one after another."""
    offset, found = 0, []
    for group in groups:
        found.append(batch(group, offset=offset))
        offset += len(group)
    return found


def settled(source: ScriptedSource) -> int:
    """Return how many messages are acknowledged."""
    return max(source.settled.values(), default=-1) + 1


@settings(max_examples=400, deadline=None)
@given(
    st.integers(1, 5).flatmap(
        lambda size: st.lists(
            st.one_of(
                st.lists(st.sampled_from(KINDS), min_size=size, max_size=size),
                st.sampled_from(KINDS).map(lambda kind: [kind] * size),
            ),
            min_size=1,
            max_size=8,
        )
    ),
    st.sampled_from([OnError.DEAD_LETTER, OnError.SKIP]),
    st.integers(1, 3),
)
def test_no_line_is_blamed_for_a_vague_reason_until_one_was_accepted(
    groups: list[list[bytes]], on_error: OnError, max_in_flight: int
) -> None:
    """For any mix: an acknowledged message was stored or is a dead letter; only the bad lines of a mix are lost."""
    source, server = ScriptedSource(batches_of(*groups)), Server()
    letters = Letters(server)

    summary = run(source, server, letters, on_error=on_error, batch_size=len(groups[0]), max_in_flight=max_in_flight)

    payloads = [payload for group in groups for payload in group]
    kept = {letter.message.offset for letter in letters.letters}
    stored = {int(line.rpartition(" ")[2]) for line in server.stored}
    assert letters.unproved == []
    assert not kept & stored
    if on_error is OnError.DEAD_LETTER:
        assert set(range(settled(source))) <= kept | stored
    assert all(payloads[offset] != GOOD for offset in kept)
    if summary.exit_code == 0:
        assert settled(source) == len(payloads)
        assert len(stored) == payloads.count(GOOD)
    else:
        assert [error.code for error in summary.errors] == ["IFX610"]
        assert "no (request" in summary.errors[0].reason
        assert GOOD not in payloads or _longest_row(groups) >= 3
    if all(GOOD in group for group in groups) or VAGUE not in payloads:
        assert summary.exit_code == 0
    if max_in_flight == 1 and (_has_row_of_vague(groups) or (GOOD not in payloads and VAGUE in payloads)):
        assert summary.exit_code == 3


def _longest_row(groups: Sequence[Sequence[bytes]]) -> int:
    """Return the largest number of requests in a row without a good line."""
    longest = row = 0
    for group in groups:
        row = 0 if GOOD in group else row + 1
        longest = max(longest, row)
    return longest


def _has_row_of_vague(groups: Sequence[Sequence[bytes]]) -> bool:
    flags = [set(group) == {VAGUE} for group in groups]
    return any(all(flags[start : start + 3]) for start in range(len(flags) - 2))


@pytest.mark.parametrize("on_error", list(OnError))
@pytest.mark.parametrize("size", [1, 2, 700])
@pytest.mark.parametrize("requests", [1, 2, 3, 9])
@pytest.mark.parametrize("max_in_flight", [1, 4])
def test_a_server_that_refuses_everything_since_the_start_stops_the_route(
    on_error: OnError, size: int, requests: int, max_in_flight: int
) -> None:
    source, server = ScriptedSource(batches_of(*[[GOOD] * size] * requests)), Server(words="go away", shut=0)
    letters = CollectingDeadLetters()

    summary = run(source, server, letters, on_error=on_error, batch_size=size, max_in_flight=max_in_flight)

    assert (summary.exit_code, source.settled, letters.letters) == (3, {}, [])
    (error,) = summary.errors
    assert (error.code, "400: go away" in error.reason, bool(error.hint)) == ("IFX610", True, True)
    assert summary.routes[0].dropped == summary.routes[0].dead_letters == summary.routes[0].acknowledged == 0


def test_a_server_that_begins_to_reject_everything_stops_the_third_request() -> None:
    source, server = ScriptedSource(batches_of(*[[GOOD]] * 9)), Server(shut=5)
    letters = CollectingDeadLetters()

    summary = run(source, server, letters, batch_size=1)

    assert (summary.exit_code, letters.letters, server.requests) == (3, [], 7)
    assert settled(source) <= 4


def test_halves_of_one_request_count_as_one() -> None:
    """The search for one line rejects far more than three requests in a row."""
    source, server = ScriptedSource(batches_of([GOOD] * 64, [VAGUE] * 64, [GOOD] * 64)), Server()
    letters = CollectingDeadLetters()

    summary = run(source, server, letters, batch_size=64)

    assert (summary.exit_code, len(letters.letters), len(server.stored)) == (0, 64, 128)


@pytest.mark.parametrize("bad", [1, 2])
def test_a_server_that_recovers_within_two_requests_costs_their_lines(bad: int) -> None:
    """They were rejected while others were accepted: as with any rejected line, a replay delivers them."""
    source, server = ScriptedSource(batches_of(*[[GOOD]] * 5)), Server(shut=1, opened=1 + bad)
    letters = CollectingDeadLetters()

    summary = run(source, server, letters, batch_size=1)

    assert (summary.exit_code, [letter.message.offset for letter in letters.letters]) == (0, list(range(bad)))
    assert settled(source) == 5


def test_the_next_run_stops_too_until_the_server_is_corrected() -> None:
    batches = batches_of(*[[GOOD] * 3] * 4)
    for opened, code, count in ((10**9, 3, 0), (10**9, 3, 0), (0, 0, 12)):
        source, server = ScriptedSource(batches), Server(shut=0, opened=opened)

        summary = run(source, server, letters := CollectingDeadLetters(), batch_size=3)

        assert (summary.exit_code, len(server.stored), letters.letters) == (code, count, [])
        assert settled(source) == count


class OneAtATime(ScriptedSource):
    """A source that gives a batch when all before it is acknowledged."""

    is_full = False

    async def read(self) -> Batch | None:
        self.is_full = bool(self._given) and self._unsettled(self._given[-1]) is not None
        if self.is_full:
            await asyncio.sleep(0)
            return None
        return await super().read()


@pytest.mark.parametrize("shut", [1, 2])
def test_what_is_held_does_not_wait_for_lines_that_the_source_keeps_back(shut: int) -> None:
    """Nothing more comes before it is settled: it ends as at the end of the input, at once."""
    source, server = OneAtATime(batches_of([GOOD], [GOOD], [GOOD])), Server(shut=shut, opened=shut + 1)
    letters, clock = Letters(server), ImmediateClock()

    summary = run(source, server, letters, clock=clock)  # with requests of 5,000 lines: what lingers is sent too

    assert clock.monotonic() < 2.0
    if shut == 2:
        assert (summary.exit_code, [each.message.offset for each in letters.letters], settled(source)) == (0, [1], 3)
    else:
        assert ([each.code for each in summary.errors], letters.letters, settled(source)) == (["IFX610"], [], 0)


def test_held_lines_are_sent_again_after_reconnecting_and_counted_once() -> None:
    """One bad line, and the source loses its connection three times: these are not three requests in a row."""
    first, second = batches_of([VAGUE], [GOOD])
    quiet = [None] * 5  # the request ends, and is held, before the connection is lost
    source = ScriptedSource(
        [first, *quiet, NotConnected("a"), *quiet, NotConnected("b"), *quiet, NotConnected("c"), second]
    )
    server = Server()
    letters = Letters(server)

    summary = run(source, server, letters, batch_size=1)

    assert (summary.exit_code, len(letters.letters), letters.unproved) == (0, 1, [])
    assert settled(source) == 2


def test_a_mapping_that_always_fails_is_not_a_rejection() -> None:
    """Lines that the server names become dead letters, even if there are many and none was accepted."""
    source, server = ScriptedSource(batches_of(*[[NAMED] * 2] * 9)), Server()

    summary = run(source, server, letters := CollectingDeadLetters(), batch_size=2)

    assert (summary.exit_code, len(letters.letters), settled(source)) == (0, 18, 18)


def test_different_reasons_in_a_row_blame_lines_after_an_accepted_one() -> None:
    words = iter(["cannot take a", "cannot take b", "cannot take c", "cannot take d", "cannot take e"])

    class Picky(Server):
        async def write(self, lines: Sequence[str]) -> Verdict:
            found = await super().write(lines)
            return RefusedSome(next(words), 400) if isinstance(found, RefusedSome) else found

    source, letters = ScriptedSource(batches_of([GOOD], *[[VAGUE]] * 5)), CollectingDeadLetters()

    summary = run(source, Picky(), letters, batch_size=1)

    assert (summary.exit_code, len(letters.letters), settled(source)) == (0, 5, 6)


def test_a_proxy_that_finds_every_request_too_large_stops_the_route() -> None:
    class Tiny(Server):
        async def write(self, lines: Sequence[str]) -> Verdict:
            return TooLarge("the server answered 413", None, 413)

    source, letters = ScriptedSource(batches_of(*[[GOOD] * 5] * 2)), CollectingDeadLetters()

    summary = run(source, Tiny(), letters, batch_size=5)

    assert (summary.exit_code, source.settled, letters.letters) == (3, {}, [])


def test_one_route_that_is_refused_stops_no_other_to_the_same_server() -> None:
    server = Server()
    sources = [ScriptedSource(batches_of(*[[kind]] * 4)) for kind in (GOOD, VAGUE)]
    letters = CollectingDeadLetters()

    async def main() -> Summary:
        routes = [
            Route(
                name=f"r{number}",
                source=source,
                plan=OneLine(),
                sink=server,
                dead_letters=letters,
                batch_size=1,
                max_in_flight=1,
            )
            for number, source in enumerate(sources)
        ]
        return await run_routes(routes, stop=Stop(), clock=ImmediateClock(), tick_seconds=None)

    summary = asyncio.run(asyncio.wait_for(main(), 30))

    assert summary.exit_code == 3
    assert [settled(source) for source in sources] == [4, 0]
    assert letters.letters == []


def test_held_lines_show_in_the_status() -> None:
    """A route that waits for the next answer reports what it waits for."""
    server = Server(words="nope")
    seen: set[tuple[str | None, str | None]] = set()

    class Watching(ScriptedSource):
        waiting_for = "a partition"

        async def read(self) -> Batch | None:
            seen.update((route.waiting_for, route.waiting_briefly) for route in statuses)
            return await super().read()

    source = Watching([*[None] * 10, *batches_of([VAGUE]), *[None] * 50])
    statuses: list = []  # type: ignore[type-arg]

    async def main() -> None:
        from iggyflux.runner import Status

        status = Status()
        statuses_task = asyncio.ensure_future(
            run_routes(
                [
                    Route(
                        name="r",
                        source=source,
                        plan=OneLine(),
                        sink=server,
                        dead_letters=CollectingDeadLetters(),
                        batch_size=1,
                    )
                ],
                stop=Stop(),
                status=status,
                clock=ImmediateClock(),
                tick_seconds=0.01,
            )
        )
        await asyncio.sleep(0)
        statuses.extend(status.routes)
        await statuses_task

    asyncio.run(asyncio.wait_for(main(), 30))

    held = next(words for words, _ in seen if words and "nope" in words)
    assert seen == {(None, None), ("a partition", "a partition"), (held, held.partition(": 400")[0])}


# --- nothing follows a request that is held ---


QUIET = [None] * 600  # polls without a message, 0.25 s apart: five of the largest backoff


@pytest.mark.parametrize("was_open", [False, True])
@pytest.mark.parametrize("requests", [1, 2])
@pytest.mark.parametrize("max_in_flight", [1, 3])
@pytest.mark.parametrize("attempts", [1, 2, 4])
def test_what_is_held_is_sent_again_after_the_largest_backoff(
    was_open: bool, requests: int, max_in_flight: int, attempts: int, caplog: pytest.LogCaptureFixture
) -> None:
    """A server that rejects everything for a while: all is stored afterwards, also if no message comes any more.

    Each request that is held is logged once.
    """
    first = [[GOOD]] if was_open else []
    source = ScriptedSource([*batches_of(*first, *[[GOOD]] * requests), *QUIET])
    shut = 1 + was_open
    server, letters = Server(shut=shut, opened=shut + attempts * requests), CollectingDeadLetters()

    summary = run(source, server, letters, batch_size=1, max_in_flight=max_in_flight)

    assert summary.exit_code == 0, summary.routes[0].error
    assert settled(source) == was_open + requests
    assert (server.stored, letters.letters) == ([f"m,kind=lambda f={at} {at}" for at in range(settled(source))], [])
    assert server.requests == was_open + (attempts + 1) * requests
    assert sum("request.held" in each.getMessage() for each in caplog.records) == requests


@pytest.mark.parametrize("max_in_flight", [1, 3])
def test_the_end_of_the_input_does_not_wait_for_a_request_that_is_held(max_in_flight: int) -> None:
    """A line was accepted before, so what is held at the end is settled at once: no backoff passes."""

    class Slow(Server):
        async def write(self, lines: Sequence[str]) -> Verdict:
            for _ in range(200 * (VAGUE.decode() in lines[0])):
                await asyncio.sleep(0)
            return await super().write(lines)

    source, server, letters = ScriptedSource(batches_of([GOOD], [VAGUE])), Slow(), CollectingDeadLetters()
    clock = ImmediateClock()

    summary = run(source, server, letters, batch_size=1, max_in_flight=max_in_flight, clock=clock)

    assert (summary.exit_code, settled(source), len(letters.letters)) == (0, 2, 1)
    assert clock.now < Policy().max_backoff_seconds


def test_a_backoff_of_zero_sends_what_is_held_once_a_second() -> None:
    source, server, clock = ScriptedSource([*batches_of([VAGUE]), *[None] * 100]), Server(), ImmediateClock()
    run(source, server, CollectingDeadLetters(), batch_size=1, policy=Policy(max_backoff_seconds=0.0), clock=clock)
    assert server.requests <= clock.now + 2


def test_a_request_that_is_sent_again_does_not_count_twice_towards_a_row() -> None:
    source, server = ScriptedSource([*batches_of([VAGUE]), *QUIET]), Server()

    summary = run(source, server, CollectingDeadLetters(), batch_size=1)

    assert server.requests == 5
    assert "since the start" in str(summary.routes[0].error)
    assert settled(source) == 0


def test_held_requests_that_are_sent_again_keep_their_order_and_their_numbers() -> None:
    held: HeldRequests[str] = HeldRequests()
    for number in (1, 2, 3):
        held.begin()
        if number != 2:
            assert held.ended(number, f"request {number}", 1, REFUSED) == []

    assert held.again() == [(1, "request 1"), (3, "request 3")]
    assert (held.again(), held.words) == ([], None)
    assert held.ended(1, "request 1", 1, REFUSED) == []
    assert isinstance(held.ended(2, "request 2", 1, REFUSED), list)
    assert isinstance(held.ended(3, "request 3", 1, REFUSED), MustStop)


# --- requests that overlap, by the order in which they end ---

REFUSED = (Refusal(0, "no", 400, vague="no 7"),)
OTHERWISE = (Refusal(0, "no", 400, vague="else"),)
BY_NAME = (Refusal(0, "no", 400),)
TWO_REASONS = (*REFUSED, Refusal(1, "no", 400, vague="else"))
ONE_BY_NAME = (*REFUSED, Refusal(1, "no", 400))
LARGE = (Refusal(0, "no", 413, "IFX602", vague="large"),)


def ends(*steps: tuple[int, tuple[Refusal, ...]], begun: int = 9) -> list[object]:
    """Return what follows each end of a request: the settled numbers, or the code of a stop."""
    held: HeldRequests[int] = HeldRequests()
    for _ in range(begun):
        held.begin()
    found: list[object] = []
    for number, refusals in steps:
        end = held.ended(number, number, max(len(refusals), 1), refusals)
        found.append(end.code if isinstance(end, MustStop) else [each.request for each in end])
    return found


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([(1, REFUSED), (2, REFUSED), (4, REFUSED), (3, ())], [[], [], [], [1, 2, 3]]),
        ([(4, REFUSED), (3, ()), (5, REFUSED), (6, REFUSED)], [[], [3], [], "IFX610"]),
        ([(3, ()), (1, REFUSED), (2, REFUSED)], [[3], [1], [2]]),
        ([(3, REFUSED), (1, REFUSED), (2, REFUSED)], [[], [], "IFX610"]),
        ([(1, REFUSED), (3, REFUSED), (5, REFUSED), (7, REFUSED), (9, ())], [[], [], [], [], [1, 3, 5, 7, 9]]),
        ([(1, ()), (2, REFUSED), (3, OTHERWISE)], [[1], [], [2]]),
        ([(1, ()), (2, REFUSED), (3, BY_NAME)], [[1], [], [2, 3]]),
        ([(1, ()), (2, REFUSED), (3, REFUSED), (4, REFUSED)], [[1], [], [], "IFX610"]),
        ([(1, REFUSED), (2, OTHERWISE), (3, TWO_REASONS)], [[], [], "IFX610"]),
        ([(1, TWO_REASONS), (2, ())], [[], [1, 2]]),
        ([(1, ()), (2, REFUSED), (3, TWO_REASONS)], [[1], [], [2, 3]]),
        ([(1, ()), (2, REFUSED), (3, ONE_BY_NAME)], [[1], [], [2, 3]]),
        ([(1, LARGE), (2, ()), (3, LARGE)], [[], [1, 2], [3]]),
        ([(3, REFUSED), (5, BY_NAME), (2, ()), (4, REFUSED)], [[], [5], [2], []]),
    ],
    ids=[
        "one under way between them",
        "an older one is accepted",
        "a later one was accepted",
        "backwards",
        "never three in a row",
        "another reason",
        "a named line",
        "one reason after an accepted line",
        "three reasons since the start",
        "two reasons in a request",
        "two reasons in a request after an accepted line",
        "a named line in a request",
        "too large",
        "a named line is in no row after an accepted line",
    ],
)
def test_in_a_row_means_the_order_in_which_requests_began(
    steps: list[tuple[int, tuple[Refusal, ...]]], expected: list[object]
) -> None:
    assert ends(*steps) == expected


def test_what_is_forgotten_is_neither_held_nor_in_a_row() -> None:
    """The source lost its connection: it reads these messages again, as new requests."""
    held: HeldRequests[str] = HeldRequests()
    for number in (1, 2):
        assert held.ended(held.begin(), f"request {number}", 1, REFUSED) == []
    assert held.words == "400: no 7"

    held.forget()

    assert (held.words, held.again(), held.finished()) == (None, [], [])
    assert held.ended(held.begin(), "request 3", 1, REFUSED) == []


# --- over HTTP ---

DOCUMENT = """\
iggyflux: 1
kind: writer
name: env
from: {stream: s, topic: t}
points: {measurement: {const: class}, fields: {"in": "def"}, timestamp: {expr: ts, format: unix_s}}
"""
PIPELINE = """\
iggyflux: 1
from: log:data
dead_letters: dead
influxdb: {url: "URL", flavor: FLAVOR, database: "DATABASE", retry_backoff: 1ms, max_retry_backoff: 2ms, batch_size: 20}
run: [{mapping: env.yaml}]
"""
MESSAGES = b"".join(b'{"def": %d, "ts": %d}\n' % (number, number) for number in range(200))
PINGS = {"v1": PING_1, "v2": PING_2, "v3": PING_3, "victoriametrics": http(204)}
GO_TLS = "Client sent an HTTP request to an HTTPS server.\n"
"""The answer of Go's web server to http on an https port: InfluxDB 1.x and 2.x."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with a mapping and a log of 200 messages."""
    monkeypatch.chdir(tmp_path)
    Path("env.yaml").write_text(DOCUMENT, "utf-8")
    assert iggyflux("log", "append", "data", "s/t", stdin=MESSAGES).code == 0
    return tmp_path


def pipeline(url: str, flavor: str, database: str = "lambda") -> None:
    text = PIPELINE.replace("URL", url).replace("FLAVOR", flavor).replace("DATABASE", database)
    Path("pipeline.yaml").write_text(text, "utf-8")


def refusing(reply: Reply, flavor: str, *, everything: bool = False) -> RawServer:
    """A server that rejects every write; with `everything` also a ping and a write of a comment."""
    ping, probe = (None, None) if everything else (PINGS[flavor], http(204))
    return RawServer([reply] * 5000, ping=ping, probe=probe)


def assert_stopped(url_words: str, *, code: str | None = None) -> None:
    """`run` stops with a reason, acknowledges nothing and keeps no dead letter: twice the same."""
    for _ in range(2):
        outcome = iggyflux("run", "pipeline.yaml", "--until-end", "--quiet")
        assert outcome.code == 3, outcome.err
        assert url_words in outcome.err
        assert code is None or code in outcome.err
        assert " 0 acknowledged" in outcome.err
        assert not list(read_dead_letters(Path("dead"))) if Path("dead").exists() else True


ANSWERS = [
    ("text", http(400, "nobody is at home")),
    ("page", http(400, "<html>nobody is at home", "Content-Type: text/html")),
    ("json", http(400, json.dumps({"error": "nobody is at home"}), "Content-Type: application/json")),
    ("json without words", http(400, json.dumps({"detail": ["x"]}), "Content-Type: application/json")),
    ("data", http(422, json.dumps({"data": None, "error": "nobody is at home"}), "Content-Type: application/json")),
    ("422", http(422, "nobody is at home")),
    ("404", http(404, "nobody is at home")),
    ("405", http(405, "nobody is at home")),
    ("406", http(406, "nobody is at home")),
    ("413", http(413, "nobody is at home")),
    ("415", http(415, "nobody is at home")),
    ("precision of Cloud", http(400, json.dumps({"code": "invalid", "message": "url: bad unit of time"}))),
]


@pytest.mark.parametrize("flavor", ["v1", "v2", "v3", "victoriametrics"])
@pytest.mark.parametrize("everything", [False, True])
@pytest.mark.parametrize("reply", [row[1] for row in ANSWERS], ids=[row[0] for row in ANSWERS])
def test_a_product_that_refuses_every_write_drains_no_topic(
    folder: Path, flavor: str, everything: bool, reply: Reply
) -> None:
    with refusing(reply, flavor, everything=everything) as server:
        pipeline(server.url, flavor)
        checked = iggyflux("check", "pipeline.yaml")

        if everything:
            assert checked.code == 1, checked.out
            assert f" {reply.data.split()[1].decode()}" in checked.out

        assert_stopped(f" {reply.data.split()[1].decode()}: ")


def test_words_that_change_with_each_answer_are_one_reason(folder: Path) -> None:
    count = iter(range(10**6))

    def reply(_request: Request) -> Reply:
        number = next(count)
        return http(400, f"gate {number}: 2026-01-01T00:00:{number % 60:02}Z request beef{number:08x} is unwanted")

    with RawServer([reply] * 5000) as server:
        pipeline(server.url, "v2")

        assert_stopped("is unwanted", code="IFX610")


TLS_ANSWERS = [
    ("Go", http(400, GO_TLS)),
    ("nginx", http(400, "<html>The plain HTTP request was sent to HTTPS port", "Content-Type: text/html")),
    ("Apache", http(400, "<html>You're speaking plain HTTP to an SSL-enabled server port.", "Content-Type: text/html")),
    ("Tomcat", http(400, "Bad Request\nThis combination of host and port requires TLS.\n")),
    ("an alert", Reply(b"\x15\x03\x01\x00\x02\x02\x46", close=True)),
]


@pytest.mark.parametrize("flavor", ["auto", "v1", "v2", "v3", "victoriametrics"])
@pytest.mark.parametrize("reply", [row[1] for row in TLS_ANSWERS], ids=[row[0] for row in TLS_ANSWERS])
def test_check_and_run_report_http_to_an_https_server(folder: Path, flavor: str, reply: Reply) -> None:
    with refusing(reply, flavor, everything=True) as server:
        pipeline(server.url, flavor)

        checked = iggyflux("check", "pipeline.yaml")

        assert checked.code == 1
        assert "IFX727" in checked.out
        assert "https://" in checked.out
        assert_stopped("https://", code="IFX727")


@pytest.mark.parametrize("name", ["my db", "x.y", "ünï", "_x", "a/b/c", "a/", "-", "x\ty"])
@pytest.mark.parametrize("flavor", ["auto", "v3"])
def test_a_name_that_3x_rejects_is_reported_before_a_line_is_sent(folder: Path, name: str, flavor: str) -> None:
    from iggyflux.sim.server import SimServer

    with SimServer(3) as server:
        pipeline(server.url, flavor, name.replace("\t", "\\t"))

        checked = iggyflux("check", "pipeline.yaml")
        ran = iggyflux("run", "pipeline.yaml", "--until-end", "--quiet")

    assert checked.code != 0
    assert "IFX728" in checked.out + checked.err
    assert ran.code in (1, 3)
    assert "IFX728" in ran.err
    assert not Path("dead").exists()


def test_a_replay_to_a_rejecting_server_stops_and_keeps_the_letters(folder: Path) -> None:
    iggyflux("log", "append", "data", "s/t", stdin=b'{"def": "x", "ts": 1}\n' * 3)
    with RawServer() as server:
        pipeline(server.url, "v2")
        assert iggyflux("run", "pipeline.yaml", "--until-end", "--quiet").code == 0
    before = len(list(read_dead_letters(Path("dead"))))
    Path("env.yaml").write_text(DOCUMENT.replace('"def"', '{expr: "def", type: string, cast: true}'), "utf-8")
    with refusing(http(400, "nobody is at home"), "v2") as server:
        pipeline(server.url, "v2")

        outcome = iggyflux("replay", "dead", "--pipeline", "pipeline.yaml")

    assert (outcome.code, before) == (3, 3)
    assert "nobody is at home" in outcome.err + outcome.out
    assert len(list(read_dead_letters(Path("dead")))) == before


def test_a_corrected_server_gets_everything(folder: Path) -> None:
    with refusing(http(400, "nobody is at home"), "v2") as server:
        pipeline(server.url, "v2")
        assert_stopped("nobody is at home")
    with RawServer() as server:
        pipeline(server.url, "v2")

        outcome = iggyflux("run", "pipeline.yaml", "--until-end", "--quiet")

        assert outcome.code == 0, outcome.err
        assert sum(request.text.count("\n") + 1 for request in server.writes) == 200
