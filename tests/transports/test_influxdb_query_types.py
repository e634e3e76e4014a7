"""The numeric type of a field over time is found from its values, wherever the edges of shards are."""

from __future__ import annotations

from bisect import bisect_left

from hypothesis import given
from hypothesis import strategies as st

from iggyflux.records import JSON
from iggyflux.transports.influxdb.query.types import NARROWEST_SHARD_NS, find_spans

VALUES: dict[str, JSON] = {"float": 7.0, "integer": -1, "unsigned": 2**64 - 1}


@st.composite
def shards(draw: st.DrawFn) -> tuple[list[tuple[int, int, str]], dict[int, str]]:
    """Shards with their types, an hour wide at least, and the times at which there are values."""
    start, found, types = draw(st.integers(-(10**18), 10**18)), [], {}
    for kind in draw(st.lists(st.sampled_from(list(VALUES)), min_size=1, max_size=6)):
        width = NARROWEST_SHARD_NS + draw(st.sampled_from([0, 1, NARROWEST_SHARD_NS // 2, 24 * NARROWEST_SHARD_NS]))
        found.append((start, start + width, kind))
        offsets = st.sampled_from([0, 1, width // 2, width - 1]) | st.integers(0, width - 1)
        types |= {start + offset: kind for offset in draw(st.lists(offsets, max_size=6))}
        start += width
    return found, types


@given(shards(), st.booleans())
def test_each_value_gets_the_type_of_its_shard(
    given_shards: tuple[list[tuple[int, int, str]], dict[int, str]], signed: bool
) -> None:
    found, types = given_shards
    times = sorted(types)
    questions = 0

    def ask(start: int, stop: int, last: bool) -> tuple[int, JSON] | None:
        nonlocal questions
        questions += 1
        touched = {kind for begin, end, kind in found if begin < stop and start < end}
        inside = times[bisect_left(times, start) : bisect_left(times, stop)]
        if not inside:
            return None
        strongest = next(kind for kind in VALUES if kind in touched)
        value = VALUES[strongest]
        return inside[-1 if last else 0], value

    start, stop = found[0][0], found[-1][1]
    spans = find_spans(ask, start, stop, signed=signed)

    assert spans == sorted(spans)
    for time, kind in types.items():
        stored = next(each for end, each in spans if time < end)
        assert stored == (kind if signed or kind == "float" else "whole")
    assert questions <= 1 + len(times) * 100
    if set(types.values()) == {"unsigned"} == {kind for *_, kind in found}:
        assert questions == 1
