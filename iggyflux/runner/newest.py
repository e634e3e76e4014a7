"""The newest dead letters of a route, for who watches it: a few, and of each no more than fits on a screen.

What is shown of one is asked for, since words of servers and lines quote messages:

| show       | keys                                                                                            |
|------------|-------------------------------------------------------------------------------------------------|
| `codes`    | when it was kept, where its message is, the code of the first reason, the server's status         |
| `words`    | also its place in the mapping, its words and the line                                           |
| `payloads` | also the payload                                                                                |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from iggyflux.records import JSON, DeadLetter, Message, Partition, Position
from iggyflux.timestamps import format_rfc3339

Show: TypeAlias = Literal["codes", "words", "payloads"]

MOST: Final = 10
"""How many letters of a route are remembered."""
MOST_CHARACTERS: Final = 500
"""How much of a text is remembered."""


@dataclass(frozen=True, slots=True)
class Newest:
    """What is remembered of a dead letter; texts are cut."""

    unix: float
    """When it was kept, in seconds since the epoch."""
    at: str
    """Where its message is; of a row, its time."""
    code: str
    status: int | None
    reasons: int
    """How many reasons the letter has; the others are of the first one."""
    location: str
    reason: str
    line: str | None
    payload: str

    def as_dict(self, show: Show = "codes") -> dict[str, JSON]:
        """Return the JSON form."""
        tree: dict[str, JSON] = {
            "time_unix": round(self.unix, 3),
            "at": self.at,
            "code": self.code,
            "status": self.status,
            "reasons": self.reasons,
        }
        if show != "codes":
            tree |= {"location": self.location, "reason": self.reason, "line": self.line}
        if show == "payloads":
            tree["payload"] = self.payload
        return tree


def with_newest(
    before: Sequence[Newest], letters: Sequence[DeadLetter], now: float, *, of_rows: bool = False
) -> tuple[Newest, ...]:
    """Return the newest letters, the last one at the end, after `letters` were kept at `now` (since the epoch).

    `of_rows` says that they are of a reader.
    """
    made = [_newest(letter, now, of_rows) for letter in letters[-MOST:]]
    return (*before, *made)[-MOST:]


def _newest(letter: DeadLetter, now: float, of_row: bool) -> Newest:
    first = letter.reasons[0]
    return Newest(
        now,
        _cut(_place(letter.message, of_row)),
        first.code,
        first.status,
        len(letter.reasons),
        _cut(first.location),
        _cut(first.reason),
        None if first.line is None else _cut(first.line),
        _cut(letter.message.payload[: 4 * MOST_CHARACTERS + 4].decode("utf-8", "replace")),
    )


def _place(message: Message, of_row: bool) -> str:
    """Return the coordinates of a message; a row has none, but a time."""
    if of_row:
        return f"{message.stream}/{message.topic}, row of {format_rfc3339(message.timestamp_us * 1000)}"
    return str(Position(Partition(message.stream, message.topic, message.partition), message.offset))


def _cut(text: str) -> str:
    return text if len(text) <= MOST_CHARACTERS else f"{text[: MOST_CHARACTERS - 1]}…"
