"""Faults to plant in the code, each of which the world must find.

A fault replaces one piece of the source of one module when the module is imported; the piece must be there exactly
once.  `plant` must be called before the module is imported.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType


@dataclass(frozen=True)
class Planted:
    """A fault: what is wrong, in which module, and the piece of its source that is replaced."""

    name: str
    module: str
    old: str
    new: str
    size: str = "short"
    """The size of the worlds that find it in the least time."""


_RUNNER, _DELIVERY, _IGGY = "iggyflux.runner", "iggyflux.delivery", "iggyflux.transports.iggy"
_LETTERS = "iggyflux.transports.local.deadletters"

PLANTED = [
    Planted(
        "acknowledge before settling",
        f"{_RUNNER}.writer_run",
        "            self._ledger.begin(job)\n",
        "            self._ledger.begin(job)\n"
        "            self._ledger.settle(job)\n"
        "            self._may_acknowledge.set()\n",
    ),
    Planted(
        "acknowledge before the letters are kept",
        f"{_RUNNER}.writer_run",
        "        await self._failures.keep(_reasons(job), job.messages.__getitem__, job.trace)\n"
        "        self._ledger.settle(job, self._intervals(job))\n",
        "        self._ledger.settle(job, self._intervals(job))\n        self._may_acknowledge.set()\n"
        "        await self._failures.keep(_reasons(job), job.messages.__getitem__, job.trace)\n",
    ),
    Planted(
        "write down a batch before it is settled",
        f"{_RUNNER}.writer_run",
        "            self._ledger.begin(job)\n",
        "            self._ledger.begin(job)\n"
        "            written_down = self._route.ledger\n"
        "            if written_down is not None:\n"
        "                written_down.note([(job.batch.partition, each) for each in self._intervals(job)])\n",
    ),
    Planted(
        "claim offsets of a log that was replaced",
        f"{_RUNNER}.settled_ledger",
        "            self._is_changed |= settled.cut(place, 0)\n",
        "            pass\n",
    ),
    Planted(
        "forget the refused lines of a batch",
        f"{_RUNNER}.ledger",
        "            self.job.refusals.append(",
        "            (",
    ),
    Planted(
        "acknowledge over a gap",
        f"{_RUNNER}.ledger",
        "enumerate(takewhile(_is_settled, queue), 1)",
        "enumerate(queue if any(map(_is_settled, queue)) else (), 1)",
    ),
    Planted(
        "take a changed mapping before everything in flight is settled",
        f"{_RUNNER}.writer_run",
        "        while outlet.is_sending:",
        "        while False:",
    ),
    Planted(
        "use a document that is to be refused",
        "iggyflux.authoring.acceptance",
        "            for difference in result.differences[:1]:\n",
        "            for difference in result.differences[:0]:\n",
    ),
    Planted(
        "never take a changed mapping",
        f"{_RUNNER}.change",
        "        self.is_offered.set()\n",
        "",
    ),
    Planted(
        "forget what is abandoned for a changed mapping",
        f"{_RUNNER}.writer_run",
        "                await self._session.unless_stopped(self._connect())\n",
        "                pass\n",
    ),
    Planted(
        "forget a change that arrives while the route is not connected",
        f"{_RUNNER}.writer_run",
        "        self.take_change()  # nothing is in flight\n",
        "        self.change.take()\n",
    ),
    Planted("write a letter without a sync", _LETTERS, "                    file.sync()\n", ""),
    Planted("keep a letter in a file that was removed", _LETTERS, "if file.is_at(end):", "if True:"),
    Planted(
        "take a letter that comes during a sync for kept",
        _LETTERS,
        "        for put in group:\n",
        "        group += self._waiting\n        self._waiting.clear()\n        for put in group:\n",
    ),
    Planted(
        "never sync the folder of a new file",
        "iggyflux.transports.local.append_file",
        "        sync_folder(path.parent)\n",
        "        pass\n",
    ),
    Planted(
        "drop messages that fail, whatever on_error says",
        f"{_RUNNER}.failures",
        "if self.route.on_error is OnError.SKIP:",
        "if self.route.on_error is not OnError.FAIL:",
    ),
    Planted(
        "progress of any partition resets the watch of all",
        f"{_IGGY}.watch",
        "        for place, look in looks.items():\n",
        "        if any(self._watched[p].look.progress != looks[p].progress for p in looks if p in self._watched):\n"
        "            self._watched.clear()\n"
        "        for place, look in looks.items():\n",
        size="usual",
    ),
    Planted(
        "check looks at a group only once",
        f"{_IGGY}.member",
        "if now - begun >= STARVING_SECONDS or not watch.is_stuck(begun):",
        "if True:",
    ),
    Planted(
        "store the offset of the next message over HTTP",
        f"{_IGGY}.connection",
        '("offset", offset), 1, doing, auto_commit=True)',
        '("offset", offset), 2, doing, auto_commit=True)',
    ),
    Planted("no partition ever starves", f"{_IGGY}.watch", "STARVING_SECONDS = 10.0", "STARVING_SECONDS = 1e9"),
    Planted(
        "wake no delivery that waits for another",
        f"{_RUNNER}.server_state",
        "        self._change.set()\n",
        "",
    ),
    Planted(
        "ignore Retry-After",
        f"{_DELIVERY}.outage",
        "        self._asked.until = max(self._asked.until, until)\n"
        "        self.not_before = max(self.not_before, until + jitter_seconds)\n",
        "        return\n",
    ),
    Planted(
        "the backoff never begins anew",
        f"{_DELIVERY}.outage",
        "        self.episode += 1\n        self._level = 0\n",
        "        self.episode += 1\n",
    ),
    Planted(
        "wait for an answer of Iggy without a limit",
        f"{_IGGY}.connection",
        "await asyncio.wait({future}, timeout=self._settings.timeout_seconds)",
        "await asyncio.wait({future})",
    ),
    Planted(
        "forget to join again",
        f"{_IGGY}.source",
        'if new and len(new) == len(infos) and self.consumer.kind == "group":',
        'if new and len(new) == len(infos) and self.consumer.kind == "group" and not self._was_connected:',
    ),
    Planted(
        "take an answer that never came for an acceptance",
        f"{_DELIVERY}.machine",
        "    Unavailable: Machine._unavailable,",
        "    Unavailable: Machine._accepted,",
    ),
    Planted(
        "take the rest of a rejected request for stored",
        f"{_DELIVERY}.machine",
        "        if verdict.rest_stored:\n            self._todo",
        "        if True:\n            self._todo",
    ),
    Planted(
        "lose a line while halving",
        f"{_DELIVERY}.machine",
        "        self._has_accepted = True\n        self._todo = self._todo[width:]\n",
        "        self._has_accepted = True\n"
        "        self._todo = self._todo[width + (self._phase is Phase.SEARCHING) :]\n",
    ),
    Planted(
        "forget a line that is too large",
        f"{_DELIVERY}.machine",
        '            self._refuse_first(verdict.reason, verdict.status, "IFX602", is_vague=is_vague)\n',
        "            self._todo = self._todo[1:]\n",
    ),
    Planted(
        "send requests of one point side by side",
        f"{_RUNNER}.footprint",
        "        return [key for key in near if self._shares_a_point(others[key], times)]\n",
        "        return []\n",
    ),
    Planted(
        "send any number of requests at once",
        f"{_RUNNER}.request_sender",
        "while len(self._in_flight) >= pace.limit:",
        "while False:",
    ),
    Planted(
        "the status says nothing while connecting",
        f"{_RUNNER}.session",
        "        self._status.wait_for(error.named, briefly=error.briefly)\n        is_new",
        "        is_new",
    ),
    Planted(
        "the status forgets its reason during a backoff",
        f"{_RUNNER}.session",
        '                self._status.state = "connecting"  # else',
        "                pass  # else",
    ),
    Planted(
        "trust a log whose offsets are used again",
        f"{_IGGY}.source",
        "        if end <= offset:\n            return False\n",
        "        return True\n",
    ),
    Planted(
        "begin after the message that follows the stored offset",
        f"{_IGGY}.source",
        "begin = stored.stored + 1 if is_trusted else 0\n",
        "begin = stored.stored + 2 if is_trusted else 0\n",
    ),
    Planted(
        "exit 0 whatever happened",
        f"{_RUNNER}.status",
        "return 3 if self.errors or self.interrupted else 0",
        "return 0",
    ),
    Planted(
        "one route that stops ends all",
        f"{_RUNNER}.run",
        "    except Stopped as error:\n        status.error = error\n",
        "    except Stopped as error:\n        status.error = error\n        run._stop.request()\n",
    ),
    Planted(
        "store the position before the messages are sent",
        f"{_RUNNER}.reader_run",
        "        count = await self._publisher.publish(read, window, deduplicator)\n"
        "        self._windows.read(count, self._clock.monotonic())\n",
        "        ahead = __import__('copy').deepcopy(self._windows)\n"
        "        ahead.read(1, self._clock.monotonic())\n"
        "        await self._session.until_confirmed(partial(self._commit, ahead.position, None, None))\n"
        "        count = await self._publisher.publish(read, window, deduplicator)\n"
        "        self._windows.read(count, self._clock.monotonic())\n",
    ),
    Planted(
        "read rows before they have settled",
        f"{_DELIVERY}.windows",
        "        upper = self._floor(now - self.rules.settle)\n",
        "        upper = self._floor(now + self.rules.settle)\n",
    ),
    Planted(
        "never look at late rows",
        f"{_DELIVERY}.windows",
        "        self._at = position.checked if self._looks_back else position.done\n",
        "        self._at = position.done\n",
    ),
    Planted(
        "take messages for sent when the connection breaks",
        f"{_RUNNER}.publish",
        "        except NotConnected:\n            self._is_connected = False\n            raise\n",
        "        except NotConnected:\n            self._is_connected = False\n",
    ),
    Planted(
        "send a page without its last message",
        f"{_RUNNER}.publish",
        "                await self._sink.send(page)\n",
        "                await self._sink.send(page[:-1] if len(page) > 2 else page)\n",
    ),
    Planted(
        "ids that depend on the moment",
        "iggyflux.plan.digests",
        "def id_salt(",
        "import time as _time\n\n\ndef id_salt(name, number):\n"
        "    return _id_salt(name + str(_time.time()), number)\n\n\ndef _id_salt(",
        size="usual",
    ),
    Planted(
        "a requested stop is not heard while the server is away",
        f"{_RUNNER}.deliver",
        "            await first_of(*backoff, shared.change(), stop.wait())\n        elif shared.has_given_up:",
        "            await first_of(*backoff, shared.change())\n        elif False:",
    ),
    Planted(
        "remember what a point ever was, not what it was last",
        "iggyflux.cursors.deduplicator",
        "        self._remember(rows, entries)\n        if self._survey",
        "        for each in self._old if self._count == 0 else ():\n"
        "            self._write(list(self._store.entries(each)))\n"
        "        self._remember(rows, entries)\n        if self._survey",
    ),
    Planted(
        "measure Retry-After by the own clock",
        f"{_DELIVERY}.answers",
        'self.headers.get("retry-after"), self.now if date is None else date)',
        'self.headers.get("retry-after"), self.now)',
    ),
    Planted(
        "wait by the wall clock",
        f"{_RUNNER}.clock",
        "        return time.monotonic()\n",
        "        return time.time()\n",
    ),
    Planted(
        "give a point the time of its rendering",
        "iggyflux.plan.codegen",
        'out.add(f"{times} = [message.timestamp_us * 1000 for message in {messages}]")',
        "out.add(f\"{times} = [__import__('time').time_ns() for message in {messages}]\")",
    ),
    Planted(
        "take points beyond the retention for stored",
        f"{_DELIVERY}.answers",
        '    AnswerRule({204}, _accepted, seen="every server; nothing else acknowledges"),\n',
        '    AnswerRule({204}, _accepted, seen="every server; nothing else acknowledges"),\n'
        '    AnswerRule({400, 422}, _accepted, _words("retention policy"), seen="planted"),\n',
    ),
    Planted(
        "name one of the partitions that starve",
        f"{_IGGY}.member",
        "map(in_words, starving[:_MOST_LISTED])",
        "map(in_words, starving[:1])",
    ),
    Planted(
        "blame a restart of the server, also where clients stay",
        f"{_IGGY}.member",
        "    if connected < members:\n",
        "    if connected <= members:\n",
    ),
    Planted(
        "a hint without a remedy",
        f"{_IGGY}.member",
        'f"{suspicion(len(members), connected)}; {self._advice()}"',
        'f"{suspicion(len(members), connected)}"',
    ),
    Planted(
        "only members without a connection starve",
        f"{_IGGY}.member",
        "if place.topic == topic]\n            self._states",
        "if place.topic == topic]\n"
        "            if await connection.connected_members(self._stream, topic, self._group) == len(membership.held):\n"
        "                starving = []\n"
        "            self._states",
    ),
    Planted(
        "a dead bucket stalls the others",
        f"{_RUNNER}.lanes",
        "            lane.add(share, tasks)\n",
        "            lane.add(share, tasks)\n            lane.flush(tasks)\n            await lane.finish()\n",
        size="buckets",
    ),
    Planted(
        "acknowledge a batch of several buckets before all of them have it",
        f"{_RUNNER}.lanes",
        "            lane.add(share, tasks)\n",
        "            lane.add(share, tasks)\n            job.unsettled_lines = len(share.lines)\n",
        size="buckets",
    ),
    Planted(
        "a point is sent to the wrong bucket",
        f"{_RUNNER}.lanes",
        '        found.setdefault("" if bucket == usual_bucket else bucket, []).append(index)\n',
        "        found.setdefault((job.rendered.buckets or [bucket])[0], []).append(index)\n",
        size="buckets",
    ),
    Planted(
        "fill requests without a bound of bytes",
        f"{_RUNNER}.requests",
        "        self._max_bytes = max_bytes\n",
        "        self._max_bytes = 10**9\n",
    ),
    Planted(
        "have any number of writes in flight, if no number is configured",
        f"{_RUNNER}.request_sender",
        "self._sink.in_flight or _DEFAULT_IN_FLIGHT",
        "Bounds.exactly(1000)",
    ),
    Planted(
        "let a query take as long as it likes",
        "iggyflux.transports.influxdb.query.source",
        "        ticket = Ticket(self._settings.timeout_seconds)\n        self._tickets.add(ticket)\n",
        '        ticket = Ticket(float("inf"))\n        self._tickets.add(ticket)\n',
    ),
]


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, planted: Planted) -> None:
        self._planted = planted

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != self._planted.module:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        assert spec is not None and spec.origin is not None
        return importlib.util.spec_from_loader(name, _Loader(name, spec.origin, self._planted), origin=spec.origin)


class _Loader(importlib.machinery.SourceFileLoader):
    def __init__(self, name: str, path: str, planted: Planted) -> None:
        super().__init__(name, path)
        self._planted = planted

    def get_code(self, fullname: str) -> object:  # type: ignore[override]
        source = self.get_data(self.path).decode()
        planted = self._planted
        count = source.count(planted.old)
        assert count == 1, f"{planted.name}: the piece is {count} times in {self.path}"
        return compile(source.replace(planted.old, planted.new), self.path, "exec")


def plant(name: str) -> None:
    """Plant the fault of this name."""
    planted = next(each for each in PLANTED if each.name == name)
    assert planted.module not in sys.modules, f"{planted.module} is imported already"
    sys.meta_path.insert(0, _Finder(planted))
