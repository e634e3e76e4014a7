"""How long a server has been unavailable: one backoff for all deliveries to it.

Pure: times are seconds of the caller's clock.

| report                                                | and then                                              |
|-------------------------------------------------------|-------------------------------------------------------|
| a failure while no wait is in progress                | counts a step; all deliveries that failed wait for    |
|                                                       | the backoff of that step                              |
| a failure during a wait (of a request that was in     | nothing changes: that delivery joins the wait         |
| flight, or of a delivery that did not fail before)    |                                                       |
| the time that the server asked for, in whatever       | all deliveries wait at least so long, and also after  |
| answer: to a write, a probe, a connecting route       | an answer to another request                          |
| an answer to a request that began after the failure   | the outage is over: no delivery waits                 |
| an answer to a request that began before the failure  | nothing: it does not show that the server is back     |
| a line that is suspected of the failures              | the next backoff is the first one again               |
| … and that the server itself is at fault              | the next backoff is a late one                        |
"""

from __future__ import annotations

from iggyflux.delivery.backoff import backoff_seconds


class Asked:
    """What a server asked for, of all that is sent to it: also of buckets that have their own outages."""

    def __init__(self) -> None:
        self.until = 0.0
        """The time before which it asked for no requests."""
        self.reason = ""


class Outage:
    """The failures of one server, or of one bucket of it, since its last answer."""

    def __init__(self, asked: Asked | None = None) -> None:
        """`asked` is what the outages of one server share."""
        self._asked = asked or Asked()
        self.episode = 0
        """The number of the outage: it grows when an outage is over."""
        self.steps = 0
        """Failures that began a wait, since the start."""
        self.not_before = 0.0
        """When a delivery that failed may try again."""
        self._reason = ""
        self._level = 0
        self._failed_at = float("-inf")

    @property
    def is_on(self) -> bool:
        """Whether the server failed, and has not answered since."""
        return self._failed_at > float("-inf")

    @property
    def shared(self) -> Asked:
        """What the outages of the buckets of one server share."""
        return self._asked

    @property
    def asked_until(self) -> float:
        """The time before which the server asked for no requests."""
        return self._asked.until

    @property
    def reason(self) -> str:
        """Why nothing is sent, for people."""
        return self._reason or self._asked.reason

    def failed(self, reason: str, now: float, jitter: float, *, first: float, cap: float) -> None:
        """Take a failure; begin a wait unless one is in progress."""
        self._reason = reason
        self._failed_at = now
        if now < self.not_before and self._level:
            return
        self.steps += 1
        self._level += 1
        self.not_before = now + backoff_seconds(self._level, jitter, first=first, cap=cap)

    def asked(self, until: float, jitter_seconds: float, reason: str) -> None:
        """Take the time that the server asked for: no request before `until`, and the next attempts not all at once."""
        self._reason = self._asked.reason = reason
        self._asked.until = max(self._asked.until, until)
        self.not_before = max(self.not_before, until + jitter_seconds)

    def answered(self, began: float) -> bool:
        """Take an answer to a request that began at `began`; return whether it ends an outage."""
        if not self.is_on or began < self._failed_at:
            return False
        self.episode += 1
        self._level = 0
        self.not_before = 0.0
        self._failed_at = float("-inf")
        return True

    def suspect_a_line(self) -> None:
        """Begin the backoff anew: the failures may be the doing of a line."""
        self._level = 0

    def blame_server(self, steps: int) -> None:
        """Go on with the backoff after so many steps: the failures are not the doing of a line."""
        self._level = max(self._level, steps)

    def hurry(self) -> None:
        """Let the next attempt be made now."""
        self.not_before = self._asked.until = 0.0
