"""What one message may become: limits of points, characters and failures, whatever the document multiplies it by.

The reference plan applies them.  The compiled plan gives a message to the reference plan wherever it may exceed one.
Several messages that are rendered at once together stay within the limits of one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final, TypeAlias

from iggyflux.errors import RecordError
from iggyflux.functions.table import MAX_STEPS, Budget
from iggyflux.records import Failure

TOO_MUCH: Final = "IFX354"

MAX_ELEMENTS: Final = 250_000
"""The most elements of a `for_each`, each counted once for every item of `points`; of nested ones, of each list all
elements together.
"""

MAX_BYTES_AT_ONCE: Final = 16_000_000
"""The most bytes of several payloads that are decoded at once."""

_STEPS_OF_A_RECORD: Final = 32
"""The reference plan takes about as long for a point or a failure as an expression for this many steps."""

MAX_LINE_CHARACTERS: Final = 64_000_000
"""The most characters of the lines of one message: as many as the largest payload has bytes."""

MAX_NAME_CHARACTERS: Final = 4_000_000
"""The most characters of the names that `flatten` makes for one message, those on the way to a leaf included."""

MAX_FAILURES: Final = 100
"""The most failures of one message that are kept one by one."""


class Room:
    """How many characters are left to one message."""

    __slots__ = ("_left", "_most", "_what")

    def __init__(self, most: int, what: str) -> None:
        self._left = self._most = most
        self._what = what

    def take(self, characters: int, pointer: str) -> None:
        """Take `characters` away, for what is at `pointer`.  Raise RecordError if that is more than is left."""
        self._left -= characters
        if self._left < 0:
            raise RecordError(TOO_MUCH, f"{self._what} have more than {self._most:,} characters", pointer)


class MayBeTooMuch(Exception):
    """What is made of several messages at once, or of one of them, may be too much for memory or take too long."""


class Work:
    """How much has been done since the last part ended; the reference plan counts it in steps."""

    __slots__ = ("characters", "steps")

    def __init__(self) -> None:
        self.steps = 0
        self.characters = 0
        """Of the lines that generated code made."""

    def add(self, budget: Budget, records: int) -> None:
        """Add what one message took: the steps of its expressions and its points and failures."""
        self.steps += budget.spent + _STEPS_OF_A_RECORD * records

    @property
    def is_enough(self) -> bool:
        """Whether the next message belongs to another part."""
        return self.steps > MAX_STEPS


def most_elements(points: int) -> int:
    """Return the most elements of `for_each` with this many items of `points`."""
    return MAX_ELEMENTS // points


def check_characters(count: int, most: int) -> None:
    """Raise MayBeTooMuch if `count` characters are more than `most`."""
    if count > most:
        raise MayBeTooMuch


Order: TypeAlias = tuple[tuple[int, ...], int, tuple[int, ...]]
"""Where a record is among those of its message: the positions of the elements of the document's `for_each`, from the
outer list to the inner one, the item of `points`, and the positions of the elements of the item's own `for_each`.
"""

WHOLE_MESSAGE: Final[Order] = ((), -1, ())


class Failures:
    """The failures of one message: the first ones as they are, of the others one for each code and place."""

    __slots__ = ("_first", "_others")

    def __init__(self) -> None:
        self._first: list[tuple[Order, Failure]] = []
        self._others: dict[tuple[str, str], tuple[Order, Failure]] = {}

    def add(self, failure: Failure, order: Order = WHOLE_MESSAGE) -> None:
        """Add a failure of the record, or of the list, that is at `order`."""
        if len(self._first) < MAX_FAILURES:
            self._first.append((order, failure))
            return
        key = failure.code, failure.location
        if key in self._others:
            first, known = self._others[key]
            self._others[key] = first, replace(known, count=known.count + 1)
        else:
            self._others[key] = order, failure

    def in_order(self) -> Sequence[Failure]:
        """Return what is kept, in the order of elements and points."""
        kept = [*self._first, *((order, _counted(failure)) for order, failure in self._others.values())]
        kept.sort(key=lambda entry: entry[0])
        return [failure for _, failure in kept]


def _counted(failure: Failure) -> Failure:
    if failure.count == 1:
        return failure
    return replace(failure, reason=f"{failure.reason} (and {failure.count - 1:,} more of this kind)")
