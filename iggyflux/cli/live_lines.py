"""The lines of the live display: pure, of routes, their rates and the size of the terminal.

No line is wider than the terminal, and a number is whole or not there.  The first form that fits is taken:

| form    | a route is                                                                            |
|---------|---------------------------------------------------------------------------------------|
| all     | a row of a table with every count                                                     |
| few     | a row with what always counts; other counts that are not 0 are below it               |
| short   | the same with numbers such as `1.23M`                                                 |
| stacked | its name and state, and below it its counts with their names                          |

Below that: an error, or what it waits for with the time left; how far a reader is; the lag of partitions.  Where there
are more lines than rows, partitions are left out first, then routes, those in trouble last; the last line adds up the
rest.  A changed document that was refused is the first line.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Final, TypeAlias

from wcwidth import wcwidth

from iggyflux.cli.output import Line, Styled, plural
from iggyflux.delivery.windows import ReadPosition
from iggyflux.errors import Problem
from iggyflux.escapes import escaped
from iggyflux.runner import RouteStatus
from iggyflux.runner.status import InputStatus, ReaderStatus
from iggyflux.timestamps import format_rfc3339

Counts: TypeAlias = Mapping[str, float]

_MOST_PARTITIONS: Final = 16
_SHORTEST_NAME: Final = 12
_GAP: Final = 2
_STYLES: Final = {"running": "green", "idle": "green", "done": "green", "stopped": "red", "connecting": "yellow"}
_FEW: Final = ("messages", "a second", "points", "behind")
_ALL: Final = ("messages", "a second", "points", "sending", "failed", "dead letters", "behind")
_BAD: Final = ("failed", "dead letters")
_UNITS: Final = ("", "k", "M", "G", "T", "P", "E")


def live_lines(
    routes: Sequence[RouteStatus], rates: Mapping[str, float], columns: int, rows: int, refused: Problem | None = None
) -> list[Line]:
    """Return at most `rows` lines of at most `columns` cells.

    `rates` are messages a second by route; `refused` is the problem of a changed document that is not in use.
    """
    first = [] if refused is None or rows < 2 else list(_cut(_refusal(refused), columns, "red"))
    return [*first, *_of_routes(routes, rates, columns, rows - len(first))]


def _refusal(problem: Problem) -> str:
    return f"change refused: error[{problem.code}]: {problem.location}: {problem.message}"


def _of_routes(routes: Sequence[RouteStatus], rates: Mapping[str, float], columns: int, rows: int) -> list[Line]:
    counts = [_counts(route, rates) for route in routes]
    layout = _layout(routes, counts, columns)
    head = [] if layout is None or not routes else [_head(layout)]
    blocks = [_block(route, each, layout, columns) for route, each in zip(routes, counts, strict=True)]
    kept = _kept(routes, blocks, [_partitions(route, columns) for route in routes], rows - len(head))
    left = [at for at in range(len(routes)) if at not in kept]
    lines = [*(head if kept else []), *(line for block in kept.values() for line in block)]
    if left:
        lines.append(_rest([routes[at] for at in left], [counts[at] for at in left], columns, is_all=not kept))
    return [line for line in lines if line][: max(rows, 0)]


def _kept(
    routes: Sequence[RouteStatus], blocks: Sequence[list[Line]], partitions: Sequence[list[Line]], room: int
) -> dict[int, list[Line]]:
    """Return the blocks that there is room for by the index of their route, in order; one line is kept for the rest."""
    if sum(map(len, blocks)) <= room:
        room -= sum(map(len, blocks))
        kept: dict[int, list[Line]] = {}
        for at, (block, more) in enumerate(zip(blocks, partitions, strict=True)):
            kept[at] = [*block, *(more if len(more) <= room else ())]
            room -= len(kept[at]) - len(block)
        return kept
    chosen = []
    for at in sorted(range(len(routes)), key=lambda at: -_trouble(routes[at])):
        if len(blocks[at]) < room:
            room -= len(blocks[at])
            chosen.append(at)
    return {at: blocks[at] for at in sorted(chosen)}


def _trouble(route: RouteStatus) -> int:
    """Return how much a route needs to be seen."""
    if route.error is not None or route.state == "stopped":
        return 3
    if route.backoff_seconds is not None or route.waiting_for or route.state == "connecting":
        return 2
    return int(bool(route.failed or route.refused or route.dead_letters))


# --- what is counted ---


def _counts(route: RouteStatus, rates: Mapping[str, float]) -> Counts:
    """Return the counts by their names; `behind` only where it is known."""
    found: dict[str, float] = {
        "messages": route.read,
        "a second": rates.get(route.name, 0.0),
        "points": route.delivered,
        "sending": route.in_flight,
        "failed": route.failed + route.refused,
        "dead letters": route.dead_letters,
        "retries": route.retries,
    }
    return {**found, "behind": sum(route.lag.values())} if route.lag else found


def exact(number: float) -> str:
    """Return a number without its decimals, its thousands apart."""
    return f"{number:,.0f}"


def short(number: float) -> str:
    """Return a number with at most six characters, such as `12,345` and `1.23M`."""
    if number < 99_999.5:
        return exact(number)
    power = next(power for power in range(1, len(_UNITS)) if number / 1000**power < 999.5 or power == len(_UNITS) - 1)
    scaled = number / 1000**power
    return f"{scaled:.{2 if scaled < 9.995 else 1 if scaled < 99.95 else 0}f}{_UNITS[power]}"


# --- the table ---


@dataclass(frozen=True, slots=True)
class _Layout:
    """The columns of a table: their headings and widths, those of the route and the state first."""

    headings: tuple[str, ...]
    widths: tuple[int, ...]
    number: Callable[[float], str]


def _layout(routes: Sequence[RouteStatus], counts: Sequence[Counts], columns: int) -> _Layout | None:
    """Return the first table that fits; None if none does."""
    state = max([len("state"), *(len(route.state) for route in routes)])
    name = max([len("route"), *(width(route.name) for route in routes)])
    for wanted, number in ((_ALL, exact), (_FEW, exact), (_FEW, short)):
        headings = tuple(each for each in wanted if each != "behind" or any(each in found for found in counts))
        widths = [max(len(each), *(len(number(found.get(each, 0))) for found in counts), 0) for each in headings]
        room = columns - sum(each + _GAP for each in (state, *widths))
        if room >= min(name, _SHORTEST_NAME):
            return _Layout(("route", "state", *headings), (min(name, room), state, *widths), number)
    return None


def _head(layout: _Layout) -> Line:
    (name, state, *names), (first, second, *widths) = layout.headings, layout.widths
    cells = [
        _left(name, first),
        _left(state, second),
        *(each.rjust(size) for each, size in zip(names, widths, strict=True)),
    ]
    return ((" " * _GAP).join(cells).rstrip(),)


def _row(route: RouteStatus, counts: Counts, layout: _Layout) -> Line:
    line: list[str | Styled] = [_left(in_the_middle(route.name, layout.widths[0]), layout.widths[0]), " " * _GAP]
    line.append(Styled(_left(route.state, layout.widths[1]), _STYLES.get(route.state), bold=route.state == "stopped"))
    for heading, size in zip(layout.headings[2:], layout.widths[2:], strict=True):
        text = layout.number(counts[heading]) if heading in counts else ""
        line += [" " * (_GAP + size - len(text)), Styled(text, "red") if heading in _BAD and counts[heading] else text]
    return tuple(line)


def _block(route: RouteStatus, counts: Counts, layout: _Layout | None, columns: int) -> list[Line]:
    """Return the lines of a route, without those of its partitions."""
    if layout is None:
        room = columns - len(route.state) - _GAP
        name = in_the_middle(route.name, room)
        state = Styled(at_the_end(route.state, columns), _STYLES.get(route.state))
        lines: list[Line] = [(name, " " * _GAP, state) if name else (state,)]
        shown = {name: count for name, count in counts.items() if count or name in _FEW}
        lines += [(line,) for line in _flowing([f"{short(count)} {name}" for name, count in shown.items()], columns)]
    else:
        lines = [_row(route, counts, layout)]
        others = {name: count for name, count in counts.items() if count and name not in layout.headings}
        lines += [(line,) for line in _flowing([f"{exact(count)} {name}" for name, count in others.items()], columns)]
    return [*lines, *_reasons(route, columns), *_position(route, columns)]


def _reasons(route: RouteStatus, columns: int) -> Iterator[Line]:
    """Yield why a route does not go on, and when it tries again."""
    if route.error is not None:
        yield from _cut(f"  error[{route.error.code}]: {route.error.reason}", columns, "red")
    elif route.backoff_seconds is not None or route.waiting_for:
        again = "waits" if route.backoff_seconds is None else f"tries again in {ceil(route.backoff_seconds)} s"
        start = f"  {again}: " if route.waiting_for else f"  {again}"
        if len(start) <= columns:  # the end of the reason says most
            yield (Styled(f"{start}{in_the_middle(route.waiting_for or '', columns - len(start))}".rstrip(), "yellow"),)


def _position(route: RouteStatus, columns: int) -> Iterator[Line]:
    if route.reader is not None and route.reader.position is not None:
        for text in _flowing(list(_of_reader(route.reader, route.reader.position)), columns):
            yield (text,)
    if route.input is not None:
        for text in _flowing(list(of_input(route.input)), columns):
            yield (text,)


def of_input(read: InputStatus) -> Iterator[str]:
    """Yield how much of an input is read, and the time that is left."""
    yield f"{read.share:.0%} of {size_text(read.total)}"
    if read.seconds_left is not None:
        yield f"{_span(read.seconds_left)} left"


def size_text(count: int) -> str:
    """Return a number of bytes such as `12 kB` or `1.2 GB`."""
    if count < 1000:
        return plural(count, "byte")
    power = min((len(str(count)) - 1) // 3, 4)
    scaled = count / 1000**power
    return f"{scaled:.{1 if scaled < 9.95 else 0}f} {('kB', 'MB', 'GB', 'TB')[power - 1]}"


def _of_reader(reader: ReaderStatus, position: ReadPosition) -> Iterator[str]:
    """Yield how far a reader is, and what is left."""
    at = position.done if position.gap is None else position.gap[0]
    word = "backfill" if position.gap else "read"
    yield f"{word} to {format_rfc3339(at // 1_000_000_000 * 1_000_000_000)}"
    if reader.share is not None:
        yield f"{reader.share:.0%}"
        if reader.seconds_left is not None:
            yield f"{_span(reader.seconds_left)} left"


def _partitions(route: RouteStatus, columns: int) -> list[Line]:
    """Return a line for each partition that is behind, if they are few."""
    if not 1 < len(route.lag) <= _MOST_PARTITIONS:
        return []
    behind = sorted((str(partition), exact(count)) for partition, count in route.lag.items() if count)
    size = max((len(count) for _, count in behind), default=0)
    starts = [(f"  {count.rjust(size)} behind in ", name) for name, count in behind]
    return [(start, in_the_middle(name, columns - len(start))) for start, name in starts if len(start) < columns]


def _rest(routes: Sequence[RouteStatus], counts: Sequence[Counts], columns: int, *, is_all: bool) -> Line:
    """Return the line that adds up routes that are not shown."""
    states = Counter(route.state for route in routes)
    head = plural(len(routes), "route") if is_all else f"and {plural(len(routes), 'more route')}"
    known = [name for name in _FEW if name != "points" and any(name in each for each in counts)]
    sums = {name: sum(each.get(name, 0) for each in counts) for name in known}
    parts = [f"{head}: {states.most_common(1)[0][1]} {states.most_common(1)[0][0]}"]
    parts += [f"{count} {state}" for state, count in states.most_common()[1:]]
    parts += [f"{short(number)} {name}" for name, number in sums.items()]
    return tuple(_flowing(parts, columns, indent="")[:1])


# --- text in cells ---


def width(text: str) -> int:
    """Return how many cells a text takes at most: a sign that asks for an emoji may widen the one before it."""
    return sum(1 if each == "\ufe0f" else max(wcwidth(each), 0) for each in _plain(text))


def _plain(text: str) -> str:
    return escaped(text).replace("\t", " ")


def at_the_end(text: str, cells: int) -> str:
    """Return a text in at most so many cells, its end cut off; no number is cut."""
    text = _plain(text)
    if width(text) <= cells:
        return text
    return f"{_beginning(text, cells - 1)}…" if cells > 0 else ""


def in_the_middle(text: str, cells: int) -> str:
    """Return a text in at most so many cells, cut in its middle, since names differ at their ends; no number is cut."""
    text = _plain(text)
    if width(text) <= cells:
        return text
    if cells < 1:
        return ""
    begin = _beginning(text, cells // 2)
    end = _beginning(text[::-1], cells - 1 - width(begin))[::-1]
    return f"{begin}…{end}" if end else at_the_end(text, cells)


def _beginning(text: str, cells: int) -> str:
    """Return as much of the start of a text as fits, without a part of a number."""
    kept, room = 0, cells
    for kept, each in enumerate(text):  # noqa: B007 - the number of characters is the result
        room -= width(each)
        if room < 0:
            break
    begin, after = text[:kept], text[kept : kept + 1]
    if re.match(r"[\d.,:%]", after) or begin[-1:].isdigit():
        end = len(begin)
        while end and (begin[end - 1].isdecimal() or begin[end - 1] in ".,:"):
            end -= 1
        return begin[:end]
    return begin


def _left(text: str, cells: int) -> str:
    return text + " " * (cells - width(text))


def _cut(text: str, columns: int, style: str) -> Iterator[Line]:
    if found := at_the_end(text, columns).rstrip():
        yield (Styled(found, style),)


def _flowing(parts: Sequence[str], columns: int, *, indent: str = "  ") -> list[str]:
    """Return lines of parts that are whole; a part that is wider than a line is left out."""
    lines: list[str] = []
    for part in parts:
        if lines and width(f"{lines[-1]}, {part}") <= columns:
            lines[-1] += f", {part}"
        elif width(indent + part) <= columns:
            lines.append(indent + part)
    return lines


def _span(seconds: float) -> str:
    """Return a duration such as `3 s`, `12 min` or `4.5 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
