"""Change without a restart: what happens when the documents of a run change.

| the run is   | and this happens                | then                                                               |
|--------------|---------------------------------|--------------------------------------------------------------------|
| current      | SIGHUP                          | reads the documents as soon as two looks at their files agree      |
| or refused   | with `--watch`: a file changed  | the same, by itself: files are looked at once a second             |
|              | … is half written               | waits: two looks a second apart have to agree                      |
|              | … was replaced (rename, link)   | the same: what counts is what is at the path                       |
|              | … is gone                       | waits 5 s for it to come back (editors, ConfigMaps), then reads    |
| checking     | the documents compile, their    | is current; each route with another document takes it when what    |
|              | examples and contracts hold     | it has in flight is settled (`writer_run`, `reader_run`)           |
|              | nothing changed that counts     | is current; the routes go on                                       |
|              | a problem                       | is refused: all routes go on as they are, also those whose own     |
|              |                                 | document is good; event, status and metric say where and why       |
|              | a change that needs a restart   | is refused (IFX830), with the key                                  |
|              | another change meanwhile        | reads again afterwards                                             |
| waiting      | another change                  | the newest one counts; the same as what runs changes nothing       |
| for a route  | a broken one                    | is refused; what was accepted before is taken nevertheless         |
|              | the connection is lost          | the route takes it before it connects again: nothing is in flight  |
|              | 30 s pass, or requests are held | the route abandons what is in flight, and reads it again           |
| any state    | SIGTERM                         | the routes end as always; what they have not taken is dropped      |
|              | the process dies                | the next one starts with the documents on disk; a broken one does  |
|              |                                 | not start, as always                                               |

So a message is rendered whole by one plan, by the older or the newer one; one that was abandoned is rendered again, by
the newer.  Positions and acknowledgements do not know of changes.  This module decides; `Documents` read and check.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from iggyflux.errors import DocumentError, Problem
from iggyflux.runner.clock import Clock
from iggyflux.runner.configuration import Configuration
from iggyflux.runner.events import emit
from iggyflux.runner.reader_run import ReaderRun
from iggyflux.runner.service_manager import ServiceManager
from iggyflux.runner.writer_run import WriterRun
from iggyflux.transports.base import Worker

LOOK_SECONDS: Final = 1.0
_GONE_LOOKS: Final = 5
_KEEPS: Final = "the run goes on with the documents it has"
_NEEDS_RESTART: Final = "IFX830"

log = logging.getLogger("iggyflux.runner")


@dataclass(frozen=True, slots=True)
class Current:
    """A route as the documents have it: its content, and what makes the running route into it."""

    content: str
    change: Callable[[Any], Any]


class Documents(Protocol):
    """The documents of a run."""

    contents: Mapping[str, str]
    """The content of each route, by its name, at the start of the run."""

    def look(self) -> Sequence[object]:
        """Return what is seen of the files from outside, None for one that is not there; fast."""

    def read(self) -> Mapping[str, Current]:
        """Return each route that can change, as it is now, checked.

        Called in a thread.  Raise `DocumentError` with the problems.
        """


class Reload:
    """Follows the documents of a run."""

    def __init__(self, documents: Documents, *, watch: bool = False, manager: ServiceManager | None = None) -> None:
        """`manager` learns when documents are read, and when that has ended."""
        self._manager = manager or ServiceManager({})
        self._documents = documents
        self._watch = watch
        self._requested = asyncio.Event()
        self._worker = Worker("reload")
        self._offered = dict(documents.contents)

    def request(self) -> None:
        """Read the documents again, also if their files did not change."""
        self._requested.set()

    async def follow(self, runs: Sequence[WriterRun | ReaderRun], status: Configuration, clock: Clock) -> None:
        """Offer changed routes to their runs, until cancelled."""
        seen: Sequence[object] = ()  # so the first look finds what changed while the run began
        try:
            while True:
                seen = await self._until_changed(seen, clock)
                status.is_checking = True
                try:
                    self._manager.reloading()
                    self._accept(await self._worker.call(self._documents.read), runs, status)
                except DocumentError as error:
                    self._refuse(error.problems, status)
                except Exception as error:  # a bug: the routes go on
                    log.exception("configuration.broken")
                    self._refuse([Problem("IFX699", f"internal error: {error!r}")], status)
                finally:
                    status.is_checking = False
                    status.reads += 1
                    self._manager.ready()
        finally:
            await self._worker.abandon()

    async def _until_changed(self, before: Sequence[object], clock: Clock) -> Sequence[object]:
        """Return what is seen of the files when they have changed, or a request was made, and they are complete."""
        last: Sequence[object] = ()
        same = 0
        while True:
            if not self._watch:
                await self._requested.wait()
            now = await self._worker.call(self._documents.look)
            same = same + 1 if now == last else 0
            is_wanted = self._requested.is_set() or now != before
            if is_wanted and same >= (_GONE_LOOKS if None in now else 1):
                self._requested.clear()
                return now
            last = now
            await clock.sleep(LOOK_SECONDS)

    def _accept(
        self, found: Mapping[str, Current], runs: Sequence[WriterRun | ReaderRun], status: Configuration
    ) -> None:
        names = {name for name, current in found.items() if current.content != self._offered[name]}
        changed = [run for run in runs if run.route.name in names and not run.change.is_over]
        offers = [(run, found[run.route.name].change(run.route)) for run in changed]  # all of them, or none
        was_refused, status.refused = status.refused is not None, None
        if not changed and not was_refused:
            emit(log, logging.DEBUG, "configuration.unchanged")
            return
        status.since_unix = time.time()
        status.changes["accepted"] += 1
        emit(log, logging.INFO, "configuration.accepted", routes=", ".join(run.route.name for run in changed) or None)
        for run, route in offers:
            run.change.offer(route)
            self._offered[run.route.name] = found[run.route.name].content

    def _refuse(self, problems: Sequence[Problem], status: Configuration) -> None:
        first = next((each for each in problems if each.severity == "error"), problems[0])
        status.refused, status.since_unix = first, time.time()
        status.changes["refused"] += 1
        emit(
            log,
            logging.ERROR,
            "configuration.refused",
            code=first.code,
            at=first.location,
            reason=first.message,
            hint=first.hint,
            problems=len(problems),
            then=_KEEPS + ("" if first.code == _NEEDS_RESTART else "; a restart would need the problem solved"),
        )
