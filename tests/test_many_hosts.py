"""Many hosts, one group: hosts that join, leave, are killed, vanish, are cut off or slow lose nothing and share evenly.

Each host is a network namespace, so that a host can vanish without a word (no FIN): then only the heartbeat tells Iggy.
It needs root, iproute2 and iggy-server, and says so where one of them is not there.
"""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from required_servers import not_found

from iggyflux.transports.iggy.member import UNEVEN_SECONDS
from tests import network
from tests.hosts import Member, Site, site

pytestmark = pytest.mark.slow

PARTITIONS = 7
INTERVAL = 6.0
"""Seconds of the server's heartbeat; a client says something every 5 s."""
EXPIRY = 2.2 * INTERVAL
"""A member that said nothing for 1.2 intervals is dropped, and the server looks once an interval."""
LEAVING = 15.0
JOINING = UNEVEN_SECONDS + 40.0  # those that join at the same moment may have to join again, and wait to connect again
WITHIN = {
    "start": JOINING,
    "join": JOINING,
    "leave": LEAVING,
    "kill -9": LEAVING,
    "start again": JOINING,
    "cut off for 2 s": LEAVING,
    "cut off": EXPIRY + 5,
    "back": JOINING,
    "power off": EXPIRY + 5,
    "power on": JOINING,
    "beside a slow one": LEAVING,
    "join beside a slow one": JOINING,
}
"""Seconds until each partition is read by a member, and all share evenly."""


@pytest.fixture
def plant(tmp_path: Path) -> Iterator[Site]:
    if shutil.which("iggy-server") is None:
        not_found("iggy", "many hosts: no iggy-server on PATH")
    if reason := network.missing():
        not_found("iggy", f"many hosts: {reason}")
    seconds = {"IGGY_HEARTBEAT_INTERVAL": f"{INTERVAL:.0f} s", "IGGY_CONSUMER_GROUP_REBALANCING_TIMEOUT": "5 s"}
    with site(tmp_path, partitions=PARTITIONS, **seconds) as made:
        yield made


def others_go_on(plant: Site, slow: Member) -> float:
    """Return the seconds until each partition that the slow host does not hold has settled messages sent meanwhile."""
    others = set(range(PARTITIONS)) - slow.partitions
    ends = {number: last for number, (_, last) in plant.look().offsets.items()}
    return plant.until(
        lambda look: all(look.offsets[number][0] > ends[number] for number in others), "others wait for a slow host"
    )


def test_hosts_that_come_go_die_and_are_cut_off_lose_nothing(plant: Site) -> None:
    seconds: dict[str, float] = {}
    first, second, third = (plant.add() for _ in range(3))
    with plant.sending():
        for member in plant.members:
            member.start()
        seconds["start"] = plant.until(lambda look: look.is_balanced(3), "three hosts share evenly")

        fourth = plant.add()
        seconds["join"] = plant.takeover(fourth.start, 4)
        assert fourth.process is not None
        seconds["leave"] = plant.takeover(lambda: fourth.process.send_signal(signal.SIGTERM), 3)
        assert fourth.wait() == 0, fourth.log

        assert first.process is not None
        seconds["kill -9"] = plant.takeover(first.process.kill, 2)
        first.wait()
        seconds["start again"] = plant.takeover(first.start, 3)

        second.host.unplug()  # and back before the server misses it
        time.sleep(2)
        seconds["cut off for 2 s"] = plant.takeover(second.host.plug, 3)
        seconds["cut off"] = plant.takeover(second.host.unplug, 2)
        seconds["back"] = plant.takeover(second.host.plug, 3)

        seconds["power off"] = plant.takeover(third.power_off, 2)
        third.host.plug()
        seconds["power on"] = plant.takeover(third.start, 3)

        how = third.host.slow_down()
        seconds["beside a slow one"] = others_go_on(plant, third)
        seconds["join beside a slow one"] = plant.takeover(fourth.start, 4)
        third.host.speed_up()
    plant.until(lambda look: look.is_settled and look.is_balanced(4), "all is settled")
    for member in plant.members:
        assert member.process is not None
        member.process.send_signal(signal.SIGTERM)
    assert [member.wait() for member in plant.members] == [0, 0, 0, 0]

    print({name: round(each, 1) for name, each in seconds.items()}, how)
    missing, strange = plant.missing_and_strange()
    assert (missing, strange) == (set(), set())
    assert {name: each for name, each in seconds.items() if each > WITHIN[name]} == {}
    assert seconds.keys() == WITHIN.keys()
