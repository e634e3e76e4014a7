"""Explains each change of a message by what the two documents do with its path."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from iggyflux.authoring.round_trip.changes import Change, Path, leaves, most_alike, same
from iggyflux.authoring.round_trip.trace import Stored, Trace
from iggyflux.records import JSON


@dataclass(frozen=True, slots=True)
class Loss:
    """An explained difference.  `place` is the member, with `[]` for any element, or empty for the whole message.

    `is_lossy` is False if the value was only moved or added.
    """

    place: str
    reason: str
    before: JSON = None
    after: JSON = None
    is_lossy: bool = True


def explain(found: list[Change], after: JSON, trace: Trace) -> Iterator[Loss]:
    """Yield an explanation for each change in `found`, the changes of a message to `after`."""
    moved: set[Path] = set()
    there = dict(leaves(after))
    gone: list[Loss] = []
    for change in found:
        if change.kind == "missing":
            for path, value in leaves(change.before, change.path):
                gone.append(_missing(path, value, there, trace, moved))
        elif change.kind == "changed":
            gone.append(_changed(change, trace))
        elif change.kind == "order":
            gone.append(Loss(place_of(change.path), "the order of elements changed", change.before, change.after))
    yield from gone
    for change in found:
        if change.kind == "added":
            for path, value in leaves(change.after, change.path):
                if path not in moved:
                    reason = "null instead of missing" if value is None else _why_added(path, trace)
                    yield Loss(place_of(path), reason, None, value, is_lossy=False)


def explain_split(before: JSON, after: list[JSON], trace: Trace) -> Iterator[Loss]:
    """Yield the losses of a message that was returned as several: values that none of them has."""
    yield Loss("", "one message is returned as several", None, len(after), is_lossy=False)
    there = [pair for each in after for pair in leaves(each)]
    for path, value in leaves(before):
        name = next((step for step in reversed(path) if isinstance(step, str)), None)
        places = [place for stored in trace.stored(path) for place in trace.sent(stored)]
        if any((path_ in places or (path_ and path_[-1] == name)) and same(value, other) for path_, other in there):
            continue
        element = most_alike(_element_of(path, before), after)
        targets = [other for path_, other in leaves(element) if path_ in places]
        targets = targets or [other for path_, other in there if path_ in places]
        if targets and value is not None:
            yield Loss(place_of(path), _how(value, targets[0], trace.stored(path)), value, targets[0])
        else:
            yield _missing(path, value, {}, trace, set())


def _element_of(path: Path, value: JSON) -> JSON:
    """Return the innermost element of a list that holds a path; the whole value if there is none."""
    found = value
    for step in path:
        value = value[step]  # type: ignore[index]  # a path leads through objects and lists
        if isinstance(step, int):
            found = value
    return found


def place_of(path: Path) -> str:
    """Return a path in the syntax of expressions."""
    text = ""
    for step in path:
        text += "[]" if isinstance(step, int) else f".{step}" if text else step
    return text


def _missing(path: Path, value: JSON, there: dict[Path, JSON], trace: Trace, moved: set[Path]) -> Loss:
    place, ways = place_of(path), trace.stored(path)
    for stored in ways:
        for target in trace.sent(stored):
            if target in there and value is not None:
                moved.add(target)
                if same(value, there[target]):
                    return Loss(place, f"unchanged, as {place_of(target)}", value, there[target], is_lossy=False)
                return Loss(place, f"{_how(value, there[target], ways)}, as {place_of(target)}", value, there[target])
    return Loss(place, _why_missing(path, value, ways, trace), value)


def _why_missing(path: Path, value: JSON, ways: list[Stored], trace: Trace) -> str:
    if value is None:
        return "null is not stored"
    if isinstance(value, (dict, list)) and not value:
        return f"an empty {'object' if isinstance(value, dict) else 'list'} is not stored"
    if not ways:
        return "used by an expression, not stored as it is" if trace.is_used(path) else "dropped: not mapped"
    stored = ways[0]
    if stored.kind == "measurement":
        return "stored as the measurement, which is not a column"
    if stored.kind == "tag" and value == "":
        return "an empty string cannot be a tag value"
    what = "the time" if stored.kind == "time" else f"{stored.kind} {stored.name}"
    if trace.sent(stored):
        return f"stored as {what}, but not returned by the query"
    return (
        f"stored as {what}, which the reader {'uses and does not send' if trace.is_seen(stored) else 'does not send'}"
    )


def _changed(change: Change, trace: Trace) -> Loss:
    words = _how(change.before, change.after, trace.stored(change.path))
    return Loss(place_of(change.path), words, change.before, change.after)


def _how(before: JSON, after: JSON, ways: list[Stored]) -> str:
    kinds = {stored.kind for stored in ways}
    if "time" in kinds and isinstance(after, int):
        return "the time is returned in nanoseconds"
    if before is None:
        return "null became a default"
    pair = _word(before), _word(after)
    if pair in (("integer", "float"), ("float", "integer")) and before == after:
        return f"{pair[0]} became {pair[1]}"
    if pair[1] == "text" and pair[0] in ("integer", "float", "boolean"):
        return f"{pair[0]} became a string" + (" (tags are strings)" if "tag" in kinds else "")
    if pair[0] == "text" and pair[1] in ("integer", "float", "boolean"):
        return f"a string became {pair[1]}"
    return "changed" if pair[0] == pair[1] else f"{pair[0]} became {pair[1]}"


def _why_added(path: Path, trace: Trace) -> str:
    columns = trace.columns_at(path)
    if any(map(trace.is_time, columns)):
        return "added: the time of the point"
    if any(map(trace.constant, columns)):
        return "added by the writer"
    return f"added: column {columns[0]}" if columns else "added by the reader"


_WORDS = {
    bool: "boolean",
    int: "integer",
    float: "float",
    str: "text",
    list: "list",
    dict: "object",
    type(None): "null",
}


def _word(value: JSON) -> str:
    return _WORDS[type(value)]
