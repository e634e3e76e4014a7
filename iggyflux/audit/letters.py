"""The dead letters of a mapping, as far as an audit asks: which messages, and which of their lines.

Hashes of 64 bits in sorted arrays: 8 bytes a message and a line.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable

from iggyflux.delivery.lines import point_key
from iggyflux.records import DeadLetter, Partition

_ALL = ("", "")
"""Instead of a line: the letter does not keep all lines that were refused."""


class LetterIndex:
    """What is known of the dead letters of one mapping."""

    def __init__(self, letters: Iterable[DeadLetter] = ()) -> None:
        messages: set[int] = set()
        lines: set[int] = set()
        self.count = 0
        for letter in letters:
            message = letter.message
            place = Partition(message.stream, message.topic, message.partition), message.offset
            self.count += 1
            messages.add(hash(place))
            for reason in letter.reasons:
                if reason.line is not None:
                    lines.add(hash((place, point_key(reason.line))))
                elif reason.status is not None:  # as many more are not kept
                    lines.add(hash((place, _ALL)))
        self._messages = array("q", sorted(messages))
        self._lines = array("q", sorted(lines))

    def has_message(self, place: tuple[Partition, int]) -> bool:
        """Return whether a message, given by partition and offset, has a letter."""
        return _has(self._messages, hash(place))

    def has_line(self, place: tuple[Partition, int], series: str, time: int) -> bool:
        """Return whether the line of this point of a message was refused, and is kept."""
        return _has(self._lines, hash((place, (series, str(time))))) or _has(self._lines, hash((place, _ALL)))


def _has(numbers: array[int], number: int) -> bool:
    at = bisect_left(numbers, number)
    return at < len(numbers) and numbers[at] == number
