"""`to: {bucket: EXPR}`: each point goes to its bucket, and a bucket that is dead stalls no other."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import defaultdict
from pathlib import Path
from typing import Self
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shell import iggyflux
from transports.raw_server import NO_CONTENT, RawServer, Reply, Request, http

from iggyflux.mapping import parse_mapping
from iggyflux.pipeline import parse_pipeline
from iggyflux.records import Batch, Partition, Rendered
from iggyflux.runner import Status, Stop, Summary, lanes, run_pipeline
from iggyflux.runner.bucket_guard import BucketGuard
from iggyflux.runner.lanes import shares_of
from iggyflux.runner.ledger import Job
from iggyflux.runner.places import BucketSink
from iggyflux.runner.reload import Documents, Reload

MAPPING = """\
iggyflux: 1
kind: writer
from: {stream: while, topic: def}
to: {bucket: yield}
points:
  measurement: {const: lambda}
  fields: {class: class}
  timestamp: {expr: at, format: unix_s}
"""
NOT_THERE = http(404, '{"code":"not found","message":"bucket \\"dead\\" not found"}')
CANARY = "n0t-t0-be-sh0wn"
UNAUTHORIZED = http(401, json.dumps({"code": "unauthorized", "message": f"unauthorized access with {CANARY}"}))
FULL = http(503, '{"code":"unavailable","message":"no space left on device"}')


class Buckets:
    """A server of 2.x that stores lines by bucket; `dead` is answered by `answer` while there is one."""

    def __init__(self, answer: Reply | None) -> None:
        self.answer = answer
        self.stored: dict[str, list[str]] = defaultdict(list)
        self.raw = RawServer([self.reply] * 20_000, probe=None)

    def reply(self, request: Request) -> Reply:
        """Return the answer to a request."""
        parts = urlsplit(request.target)
        if parts.path == "/api/v2/buckets":
            seconds = {"ab": 3600}.get(parse_qs(parts.query)["name"][0], 0)
            return http(
                200, json.dumps({"buckets": [{"retentionRules": [{"type": "expire", "everySeconds": seconds}]}]})
            )
        if parts.path != "/api/v2/write":
            return http(404, "{}")
        (bucket,) = parse_qs(parts.query)["bucket"]
        if bucket == "dead" and self.answer is not None:
            return self.answer
        self.stored[bucket] += [line for line in request.text.splitlines() if not line.startswith("#")]
        return NO_CONTENT


def append(folder: Path, names: list[str]) -> None:
    """Append a message for each of these buckets to the log."""
    messages = [{"yield": name, "class": number, "at": 1_700_000_000 + number} for number, name in enumerate(names)]
    lines = "".join(json.dumps(each) + "\n" for each in messages)
    assert iggyflux("log", "append", str(folder / "data"), "while/def", stdin=lines).code == 0


class Running:
    """A run of a log to these buckets, inside the event loop."""

    def __init__(
        self, folder: Path, server: Buckets, names: list[str], *, until_end: bool = True, **settings: object
    ) -> None:
        self.folder, self._until_end = folder, until_end
        (folder / "m.yaml").write_text(MAPPING)
        append(folder, names)
        section = {"url": server.raw.url, "bucket": "usual", "org": "o", "buckets": ["dead", "a*"], "linger": "10ms"}
        section |= {"retry_backoff": "10ms", "max_retry_backoff": "50ms", "gzip": "off", "batch_size": 50, **settings}
        text = json.dumps(
            {
                "iggyflux": 1,
                "from": "log:data",
                "to": "influxdb",
                "influxdb": section,
                "run": [{"mapping": "m.yaml"}],
                "dead_letters": "dead",
            }
        )
        (folder / "p.yaml").write_text(text)
        self.pipeline = parse_pipeline(text, file=folder / "p.yaml", environ={}, format="yaml")
        self.stop, self.status = Stop(), Status()

    async def __aenter__(self) -> Self:
        self.task = asyncio.create_task(
            run_pipeline(
                self.pipeline,
                until_end=self._until_end,
                stop=self.stop,
                status=self.status,
                only=(),
                reloading=self._reloading,
            )
        )
        return self

    def _reloading(self, documents: Documents) -> Reload:
        self.reload = Reload(documents)
        return self.reload

    async def __aexit__(self, *_: object) -> None:
        self.stop.requested.set()
        await self.task

    async def until(self, condition) -> None:
        """Wait for a condition, with a generous deadline."""
        async with asyncio.timeout(60):
            while not condition():
                assert not self.task.done(), self.task.result().errors
                await asyncio.sleep(0.01)

    async def end(self) -> Summary:
        """Wait for the end of the run."""
        async with asyncio.timeout(60):
            return await asyncio.shield(self.task)


NAMES = ["ab", "dead", "a", "usual"]


@pytest.mark.parametrize("answer", [NOT_THERE, UNAUTHORIZED, FULL], ids=["404", "401", "503"])
def test_a_dead_bucket_stalls_no_other(answer, tmp_path, caplog):
    """The others have everything, nothing after its first line is acknowledged, and in the end all is stored."""
    caplog.set_level(logging.INFO)
    names = ["ab", "a"] * 50 + ["dead"] + ["ab", "a"] * 450

    async def main():
        server = Buckets(answer)
        with server.raw:
            async with Running(tmp_path, server, names, token=CANARY) as running:
                await running.until(lambda: len(server.stored["a"]) + len(server.stored["ab"]) >= 1000)
                status = running.status.routes[0]
                await running.until(lambda: status.waiting_for is not None and "'dead'" in status.waiting_for)
                assert status.acknowledged <= 100
                assert (status.dead_letters, status.is_away) == (0, True)
                assert CANARY not in json.dumps(running.status.as_dict())
                server.answer = None
                summary = await running.end()
        return server, summary

    server, summary = asyncio.run(main())
    expected = {
        name: [f"lambda class={n}.0 {1_700_000_000 + n}000000000" for n, each in enumerate(names) if each == name]
        for name in set(names)
    }

    assert {name: sorted(set(lines)) for name, lines in server.stored.items() if lines} == {
        name: sorted(lines) for name, lines in expected.items()
    }
    assert "delivery.away" in caplog.text
    assert CANARY not in caplog.text
    assert (summary.exit_code, summary.routes[0].acknowledged, summary.routes[0].is_away) == (0, 1001, False)
    assert summary.routes[0].sent_bytes >= sum(len(line) + 1 for each in expected.values() for line in each) - 99


@pytest.mark.parametrize("bound", ["bytes", "requests"])
def test_what_is_read_ahead_of_a_dead_bucket_is_bounded(bound, tmp_path, monkeypatch):
    """By what is not settled, and by full requests in its queue; then reading pauses until it is there again."""
    monkeypatch.setattr("iggyflux.runner.lanes.MOST_UNSETTLED_BYTES", 20_000 if bound == "bytes" else 10**9)
    names = (["dead"] + ["a"] * 9) * 1000

    async def main():
        server = Buckets(NOT_THERE)
        with server.raw:
            async with Running(tmp_path, server, names, max_in_flight=2) as running:
                status, read, looks = running.status.routes, -1, 0
                await running.until(lambda: len(server.stored["a"]) >= 200)
                while looks < 50:  # no time: what holds up the run holds up these looks, too
                    looks = looks + 1 if len(server.stored["a"]) == names[:read].count("a") else 0
                    looks, read = looks if read == status[0].read else 0, status[0].read
                    await asyncio.sleep(0.01)
                server.answer = None
                return read, await running.end()

    read, summary = asyncio.run(main())
    full = 50 * (2 + lanes.MOST_WAITING + 2) * 10
    assert (200 < read < 800) if bound == "bytes" else (full / 2 < read <= full)
    assert summary.routes[0].acknowledged == 10_000


@pytest.mark.parametrize("has_accepted", [False, True])
def test_reading_does_not_pause_for_ever_for_requests_that_are_held(has_accepted, tmp_path, monkeypatch):
    """No line that is not read decides about them: the route stops, or keeps them where a line was accepted before."""
    monkeypatch.setattr("iggyflux.runner.lanes.MOST_UNSETTLED_BYTES", 20_000)
    vague = http(400, '{"code":"invalid","message":"something is wrong"}')
    first = "dead" if has_accepted else "a"

    async def main():
        server = Buckets(None)
        with server.raw:
            async with Running(tmp_path, server, [first], until_end=False, linger="10s", batch_size=50) as running:
                await running.until(lambda: running.status.routes and running.status.routes[0].read)
                server.answer = None if has_accepted else vague
                await asyncio.to_thread(append, tmp_path, [first] * 50)
                await running.until(lambda: len(server.stored[first]) >= 50)
                server.answer = vague
                await asyncio.to_thread(append, tmp_path, (["dead"] + ["a"] * 49) * 100)
                if has_accepted:
                    await running.until(lambda: running.status.routes[0].acknowledged > 2000)
                    return running.status.routes[0], None
                return running.status.routes[0], (await running.end()).errors

    status, errors = asyncio.run(main())
    if has_accepted:
        assert status.dead_letters >= 40
    else:
        assert [error.code for error in errors] == ["IFX610"]
        assert status.acknowledged <= 51


def test_with_dead_letters_a_dead_bucket_holds_nothing_back(tmp_path):
    """`on_unavailable: dead_letter`: after the retries its messages are kept, and the others are acknowledged too."""

    async def main():
        server = Buckets(NOT_THERE)
        with server.raw:
            async with Running(tmp_path, server, NAMES * 100, on_unavailable="dead_letter", max_retries=1) as running:
                return server, await running.end()

    server, summary = asyncio.run(main())
    status = summary.routes[0]
    assert (status.acknowledged, status.dead_letters, len(server.stored["a"])) == (400, 200, 100)


def test_a_bucket_that_is_not_allowed_fails_its_points(tmp_path):
    """`usual` is the place of the pipeline and not among those that points may choose; `on_error` keeps the message."""

    async def main():
        server = Buckets(None)
        with server.raw:
            async with Running(tmp_path, server, ["a", "usual", "b"]) as running:
                return server, await running.end()

    server, summary = asyncio.run(main())
    assert {name: len(lines) for name, lines in server.stored.items() if lines} == {"a": 1}
    assert summary.routes[0].reasons["dead_letters"] == {"IFX623": 2}


def test_a_change_of_the_mapping_does_not_wait_for_a_bucket_that_is_away(tmp_path, monkeypatch):
    """Its queue is full, so reading pauses; the message whose bucket had a wrong name goes to the right one."""
    monkeypatch.setattr("iggyflux.runner.writer_run.SETTLE_SECONDS", 0.5)

    async def main():
        server = Buckets(NOT_THERE)
        with server.raw:
            async with Running(tmp_path, server, ["dead"] * 3000, max_in_flight=1) as running:
                await running.until(lambda: running.status.routes and running.status.routes[0].buckets)
                await running.until(lambda: running.status.routes[0].buckets["dead"]["waiting"] == lanes.MOST_WAITING)
                (tmp_path / "m.yaml").write_text(MAPPING.replace("{bucket: yield}", "{bucket: {const: ab}}"))
                running.reload.request()
                return server, await running.end()

    server, summary = asyncio.run(main())
    assert (len(server.stored["ab"]), len(server.stored["dead"])) == (3000, 0)
    assert (summary.exit_code, summary.routes[0].acknowledged) == (0, 3000)


def documents(folder: Path, server: Buckets, names: list[str], *, to: str = "influxdb") -> Path:
    """Write a mapping, a pipeline and a log with a message for each bucket."""
    (folder / "m.yaml").write_text(MAPPING)
    append(folder, names)
    section = {"url": server.raw.url, "bucket": "usual", "org": "o", "buckets": ["dead", "a*"], "gzip": "off"}
    section |= {"retry_backoff": "10ms", "max_retry_backoff": "50ms", "on_unavailable": "dead_letter", "max_retries": 1}
    tree = {"iggyflux": 1, "from": f"log:{folder / 'data'}", "to": to, "influxdb": section, "dead_letters": "dead"}
    (folder / "p.yaml").write_text(json.dumps({**tree, "run": [{"mapping": "m.yaml"}]}))
    return folder / "p.yaml"


@pytest.mark.parametrize("as_is", [False, True])
def test_a_letter_is_replayed_to_its_bucket(as_is, tmp_path):
    """Rendered again, or as the lines that were rejected: both know the bucket."""
    server = Buckets(http(400, '{"code":"invalid","message":"unable to parse \'lambda class=1.0 1\': bad"}'))
    with server.raw:
        path = documents(tmp_path, server, ["a", "dead", "ab"])
        ran = iggyflux("run", str(path), "--until-end")
        assert (ran.code, server.stored["dead"]) == (0, []), ran.err
        server.answer = None
        words = ["replay", str(tmp_path / "dead"), "--pipeline", str(path), *(["--as-is"] if as_is else [])]
        assert iggyflux(*words, "--dry-run").out == "# bucket: dead\nlambda class=1.0 1700000001000000000\n"
        again = iggyflux(*words)
    assert again.code == 0, again.err
    assert server.stored["dead"] == ["lambda class=1.0 1700000001000000000"], again.err + str(server.stored)
    assert {name: len(lines) for name, lines in server.stored.items() if lines} == {"a": 1, "ab": 1, "dead": 1}


def test_a_kept_line_goes_to_no_other_bucket(tmp_path):
    """The mapping chooses none any more: its letter stays, and the bucket of the pipeline does not get the line."""
    server = Buckets(http(400, '{"code":"invalid","message":"unable to parse \'lambda class=1.0 1\': bad"}'))
    with server.raw:
        path = documents(tmp_path, server, ["a", "dead"])
        assert iggyflux("run", str(path), "--until-end").code == 0
        (tmp_path / "m.yaml").write_text(MAPPING.replace("to: {bucket: yield}\n", ""))
        again = iggyflux("replay", str(tmp_path / "dead"), "--pipeline", str(path), "--as-is")
    assert (again.code, {name for name, lines in server.stored.items() if lines}) == (1, {"a"}), again.err
    assert "IFX623" in again.err and "'dead'" in again.err


@pytest.mark.parametrize("command", ["run", "audit"])
def test_what_would_lose_the_bucket_is_refused(command, tmp_path):
    """Lines of a file have no bucket, and an audit asks one bucket."""
    with (server := Buckets(None)).raw:
        path = documents(tmp_path, server, ["a"], to="file:points.lp" if command == "run" else "influxdb")
        found = iggyflux(command, str(path), *(["--mapping", "m", "--from", "0"] if command == "audit" else []))
    assert found.code == (1 if command == "run" else 2)
    assert ("IFX828" if command == "run" else "chooses the bucket of each point") in found.err
    assert not (tmp_path / "points.lp").exists()


def test_an_unused_bucket_is_closed_and_opened_again(tmp_path, monkeypatch):
    """While the run goes on; a bucket whose line waits is not closed."""
    monkeypatch.setattr("iggyflux.runner.lanes.UNUSED_SECONDS", 0.3)
    closed: list[str | None] = []
    close = BucketSink.close

    async def noted(sink: BucketSink) -> None:
        if sink.is_connected or sink._sink is not None:
            closed.append(sink._state.bucket)
        await close(sink)

    monkeypatch.setattr(BucketSink, "close", noted)

    async def main():
        server = Buckets(NOT_THERE)
        with server.raw:
            async with Running(tmp_path, server, ["ab", "dead", "a"], until_end=False) as running:
                await running.until(lambda: sorted(closed) == ["a", "ab"])
                await asyncio.to_thread(append, tmp_path, ["a"])
                await running.until(lambda: len(server.stored["a"]) == 2 and closed.count("a") == 2)
                before, server.answer = closed.copy(), None
                await running.until(lambda: running.status.routes[0].acknowledged == 4)
                sent = running.status.routes[0].sent_bytes
        return server, before, sent

    server, before, sent = asyncio.run(main())
    assert "dead" not in before
    assert {name: len(lines) for name, lines in server.stored.items() if lines} == {"a": 2, "ab": 1, "dead": 1}
    assert sent >= sum(len(line) for lines in server.stored.values() for line in lines)


def test_each_bucket_has_its_own_retention(tmp_path):
    """Points too old for theirs are counted before they are sent; `ab` keeps an hour, the others keep all."""

    async def main():
        server = Buckets(None)
        with server.raw:
            async with Running(tmp_path, server, ["ab", "a", "a", "ab", "ab"]) as running:
                return await running.end()

    status = asyncio.run(main()).routes[0]
    assert status.too_old == 3
    assert {name: each["retention_seconds"] for name, each in status.buckets.items()} == {"a": 0, "ab": 3600}


@given(
    buckets=st.lists(st.sampled_from(["", "a", "b", "c"]), max_size=30), usual=st.sampled_from(["", "a", "b", "other"])
)
def test_each_line_is_in_one_share_in_order(buckets, usual):
    """And what the pipeline names is one place by both its names: its requests keep the order of its points."""
    lines = [f"line {number}" for number in range(len(buckets))]
    shares = dict(
        shares_of(Job(Batch(Partition("s", "t", 0), ()), Rendered(lines, buckets=buckets), len(lines)), usual)
    )

    place = {bucket: "" if bucket == usual else bucket for bucket in buckets}
    assert {name: list(share.lines) for name, share in shares.items()} == {
        name: [line for line, bucket in zip(lines, buckets, strict=True) if place[bucket] == name]
        for name in place.values()
    }
    assert all([lines[index] for index in share.indices] == list(share.lines) for share in shares.values())


@given(
    batches=st.lists(
        st.lists(st.sampled_from(["", *(f"{first}{number}" for first in "ab" for number in range(5))])), max_size=8
    ),
    most=st.integers(1, 6),
)
def test_no_route_has_more_buckets_than_it_may(batches, most):
    """Each line is kept or failed, and what a bucket is worth does not change later: the first ones stay."""
    kept: set[str] = set()
    refused: set[str] = set()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("iggyflux.runner.bucket_guard.MOST_BUCKETS", most)
        guard = BucketGuard(["a?", "never"])
        for buckets in batches:
            made = Rendered([f"line {n}" for n in range(len(buckets))], list(range(len(buckets))), buckets=buckets)
            found = guard.admit(made)
            assert sorted([*found.origins, *(each.index for each in found.failures)]) == list(range(len(buckets)))
            kept |= {*found.buckets} - {""}
            refused |= {buckets[each.index] for each in found.failures}
    assert len(kept) <= most
    assert kept.isdisjoint(refused)
    assert all(each.startswith("a") for each in kept)


def test_the_expression_is_part_of_the_plan_identity():
    """So letters, events and the ledger tell points of another bucket."""
    texts = [MAPPING, MAPPING.replace("yield", "nonlocal"), MAPPING.replace("to: {bucket: yield}\n", "")]
    assert len({parse_mapping(text, name="m").identity() for text in texts}) == 3


def test_who_shows_lines_shows_their_buckets(tmp_path):
    """A dry run, and a comparison of two versions; the same point in two buckets is two points."""
    (tmp_path / "m.yaml").write_text(MAPPING)
    (tmp_path / "n.yaml").write_text(MAPPING.replace("{bucket: yield}", "{bucket: {const: other}}"))
    samples = "".join(json.dumps({"yield": name, "class": 1, "at": 1}) + "\n" for name in ("a", "b", "a"))
    (tmp_path / "samples").write_text(samples)
    dry = iggyflux("dry-run", str(tmp_path / "m.yaml"), str(tmp_path / "samples"), "--format", "json")
    *shown, summary = map(json.loads, dry.out.splitlines())
    assert [each["buckets"] for each in shown] == [["a"], ["b"], ["a"]]
    assert summary["summary"]["collisions"] == 1

    found = iggyflux(
        "diff", *(str(tmp_path / name) for name in ("m.yaml", "n.yaml")), "--samples", str(tmp_path / "samples")
    )
    assert found.code == 1
    assert "+ lambda class=1.0 1000000000  # bucket: other" in found.out
    assert "a/lambda" in found.out


def test_check_looks_for_each_bucket_that_is_named(tmp_path):
    """A glob names none; a bucket that is missing is a fault."""
    server = Buckets(NOT_THERE)
    server.raw.probe = None
    with server.raw:
        path = documents(tmp_path, server, ["a"])
        found = iggyflux("check", str(path))
        server.answer = None
        again = iggyflux("check", str(path))
    assert (found.code, again.code) == (1, 0), again.out + again.err
    assert 'bucket "dead" not found' in found.out
