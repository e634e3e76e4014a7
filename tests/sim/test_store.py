"""What is stored: points are identified by series and time, fields are merged, the newest value stays."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iggyflux.lineprotocol import Point, Unsigned
from iggyflux.sim import SimServer, classic, modern, shards
from iggyflux.sim.store import DAY_NS, Store
from tests.sim.client import call, write


def test_redelivered_lines_overwrite_themselves(any_dialect: SimServer) -> None:
    lines = 'm,a=b f=1.5,g=2i,h="x",k=true 1\nm f=1 1'
    write(any_dialect, lines)
    before = any_dialect.dump()

    write(any_dialect, lines)

    assert any_dialect.dump() == before == ["m f=1.0 1", 'm,a=b f=1.5,g=2i,h="x",k=true 1']
    assert any_dialect.stats.overwritten == 2


def test_fields_of_one_point_are_merged_and_the_newest_value_stays(any_dialect: SimServer) -> None:
    write(any_dialect, "m,a=b f=1,g=1 1\nm,a=b g=2,h=2 1")
    write(any_dialect, "m,a=b h=3 1")

    assert any_dialect.dump() == ["m,a=b f=1.0,g=2.0,h=3.0 1"]


def test_the_order_of_tags_does_not_make_another_series(any_dialect: SimServer) -> None:
    write(any_dialect, "m,a=1,b=2 f=1 1\nm,b=2,a=1 g=2 1")

    assert any_dialect.dump() == ["m,a=1,b=2 f=1.0,g=2.0 1"]
    assert any_dialect.stats.series == 1


def test_points_give_their_types_back() -> None:
    with SimServer(2) as server:
        write(server, 'm,a=b d=1,i=-5i,u=18446744073709551615u,s="x\\"y",t=F -7')

        fields = {"d": 1.0, "i": -5, "u": Unsigned(2**64 - 1), "s": 'x"y', "t": False}
        assert server.points() == [Point("m", {"a": "b"}, fields, -7)]


def test_points_survive_in_a_file(tmp_path: Path, any_dialect: SimServer) -> None:
    path = tmp_path / "points.db"
    dialect = any_dialect.dialect
    with SimServer(dialect, db_file=path) as server:
        write(server, 'm,a=b f=1,s="x" 1')
        before = server.dump()
    with SimServer(dialect, db_file=path) as server:
        assert server.dump() == before
        assert write(server, 'm,a=b f="other" 2').status in (400, 422)
        assert write(server, "m,a=b g=2 1").status == 204
        assert server.dump() == ['m,a=b f=1.0,g=2.0,s="x" 1']


def test_reset_forgets_everything(any_dialect: SimServer) -> None:
    write(any_dialect, "m f=1 1")
    any_dialect.reset()

    assert any_dialect.dump() == []
    assert any_dialect.requests == []
    assert write(any_dialect, 'm f="another type" 1').status == 204


def test_stats_count_lines_points_and_refusals(any_dialect: SimServer) -> None:
    write(any_dialect, "m f=1 1\nm f=2 2\nm,a=b f=2 2")
    write(any_dialect, "bad")

    stats = any_dialect.stats
    assert (stats.lines, stats.stored, stats.refused) == (4, 3, 1)
    assert (stats.points, stats.series) == (3, 2)
    assert dict(stats.requests) == {204: 1, 400: 1}


def test_requests_are_remembered_with_their_sizes(any_dialect: SimServer) -> None:
    write(any_dialect, "m f=1 1")
    call(any_dialect, "GET", "/ping")

    seen = any_dialect.requests
    assert [(each.method, each.status) for each in seen] == [
        ("POST", 204),
        ("GET", 200 if any_dialect.dialect == 3 else 204),
    ]
    assert seen[0].bytes == len("m f=1 1")


def test_pages_of_a_scan_join_without_loss_or_repeat() -> None:
    store = Store()
    policy = store.create_database("x").policy()
    assert policy is not None
    measurement = store.measurement(policy, b"m")
    series = [store.series(measurement, b"m,t=%d" % number, ((b"t", b"%d" % number),)) for number in range(3)]
    store.write((each, time, {b"f": 1.0}) for time in range(4_000) for each in series)

    found = [(point.time, point.series.id) for point in store.scan(measurement, 10, 3_990)]

    assert found == [(time, each.id) for time in range(10, 3_990) for each in series]
    assert list(reversed(found)) == [
        (point.time, point.series.id) for point in store.scan(measurement, 10, 3_990, descending=True)
    ]
    store.close()


PIECES = st.sampled_from(
    [
        "m",
        "a",
        "=",
        ",",
        " ",
        "\\",
        '"',
        "1",
        "1i",
        "2u",
        "-",
        ".",
        "e5",
        "t",
        "true",
        "#",
        "\n",
        "\t",
        "ü",
        "x y",
        '"s"',
        "i",
    ]
)
LINES = st.lists(PIECES, max_size=14).map("".join)
RULES = classic.ParseRules(unsigned=True, reserved_tags=True)


@given(LINES)
@settings(max_examples=1_000, deadline=None)
def test_the_fast_and_the_slow_parser_agree_in_1_and_2(text: str) -> None:
    data = text.encode()
    try:
        fast = classic.parse(data, RULES, 1, 0)
    except classic.ServerKilled:
        return

    good, bad, position = [], [], 0
    while position < len(data):
        position, block = classic.scan_line(data, position)
        position += 1
        line = block.lstrip(b" \t\x00")
        if not line or line.startswith(b"#"):
            continue
        try:
            key, fields, time = classic.parse_line(line, RULES)
            good.append((key, fields, 0 if time is None else classic.scale_time(time, 1)))
        except classic.LineError as reason:
            bad.append((line, str(reason)))
    assert fast == (good, bad)


@given(LINES)
@settings(max_examples=1_000, deadline=None)
def test_the_fast_and_the_slow_parser_agree_in_3(text: str) -> None:
    good, _ = modern.parse(text.encode(), older=False)

    for line in good:
        if not isinstance(line, modern.Line):
            series, fields, time = line[1:]
            again = modern.format_plain(series, fields, time)
            assert modern.parse_line(again.decode()) == (modern.read_series(series), list(fields.items()), time)


@pytest.mark.parametrize(("neighbours", "stored"), [(0, 0), (1, 2)])
def test_an_old_point_is_kept_where_a_neighbour_opened_its_shard(neighbours: int, stored: int) -> None:
    store = Store()
    policy = store.create_database("x", duration_ns=30 * DAY_NS).policy()
    assert policy is not None
    now = 20_000 * DAY_NS + DAY_NS // 2
    points = [(b"m", {b"f": 1.0}, now - 30 * DAY_NS - 1), *[(b"m", {b"f": 2.0}, now - 30 * DAY_NS + 1)] * neighbours]

    outcome = shards.write(store, policy, points, shards.StoreRules(immediate=True, quoted=True), now)

    assert (outcome.stored, len(outcome.beyond)) == (stored, 1 - neighbours)
    store.close()


def test_many_connections_write_and_read_at_once(any_dialect: SimServer) -> None:
    def work(writer: int) -> list[int]:
        statuses = []
        for batch in range(10):
            lines = [f"m{batch},w={writer} f{writer}={number} {number}" for number in range(50)]
            statuses.append(write(any_dialect, "\n".join(lines)).status)
            statuses.append(call(any_dialect, "GET", "/query?db=test&q=SHOW+FIELD+KEYS").status)
        return statuses

    with ThreadPoolExecutor(8) as pool:
        found = {status for statuses in pool.map(work, range(8)) for status in statuses}

    assert found == {204, 200}
    assert any_dialect.stats.points == 8 * 10 * 50


@pytest.mark.parametrize(("dialect", "text"), [(1, "m f=1 1"), (2, "m,a=b f=1u 1"), (3, "m f=1 1")])
def test_a_thousand_lines_in_one_request(dialect: int, text: str) -> None:
    with SimServer(dialect) as server:
        head = text.rsplit(" ", 1)[0]
        assert write(server, "\n".join(f"{head} {number}" for number in range(1_000))).status == 204
        assert server.stats.points == 1_000
