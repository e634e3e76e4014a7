"""`python -m bench.scaling`: how many messages a second a number of hosts move, and what limits them.

A model, not a measurement: each place has so much CPU and network, and each message, byte and request costs so much of
it.  The rate is that of the place that is full first.  The costs are those that `python -m bench.hosts` measured; the
sizes of machines are assumptions.  All are options, and the result depends on nothing else.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, fields

from iggyflux.transports.iggy.member import _MOST_WATCHED, LOOK_SECONDS
from iggyflux.transports.iggy.source import _POLLS_OF_OTHERS

HOSTS = (1, 10, 100)
MEASURED_BYTES = 171
_REQUESTS_A_LOOK = 3


@dataclass(frozen=True)
class Inputs:
    """What the rate depends on; the text of each is its description."""

    processes: int = 2
    "processes of a host, each with a core of its own (assumed)"
    partitions: int = 0
    "partitions of the topic; 0: four for each process"
    message_bytes: int = MEASURED_BYTES
    "size of a payload"
    batch: int = 5_000
    "lines of a request to InfluxDB"
    host_gbit: float = 10.0
    "network of each host, of Iggy and of InfluxDB, each way (assumed)"
    iggy_cores: float = 16.0
    "cores of the Iggy server, all of them used evenly (assumed)"
    influxdb_cores: float = 16.0
    "cores of the InfluxDB server, all of them used evenly (assumed)"
    own_us: float = 3.2
    "our CPU for a message (measured)"
    own_kb_us: float = 4.4
    "… for a kB more (measured)"
    own_request_us: float = 1500.0
    "… for a request (measured)"
    iggy_us: float = 2.5
    "CPU of Iggy to store a message and hand it over (measured)"
    iggy_kb_us: float = 1.4
    "… for a kB more (measured)"
    iggy_request_us: float = 210.0
    "CPU of Iggy for a small request of a member (measured)"
    influxdb_us: float = 4.4
    "CPU of InfluxDB 1.6 for a line (measured)"
    influxdb_request_us: float = 2600.0
    "… for a request (measured)"
    sent_bytes: float = 15.0
    "a line on the wire, compressed (measured)"


@dataclass(frozen=True)
class Result:
    """What a number of hosts moves: messages a second by limit, and the smallest of them."""

    hosts: int
    partitions: int
    limits: dict[str, float]

    @property
    def bound(self) -> str:
        return min(self.limits, key=lambda name: self.limits[name])

    @property
    def rate(self) -> float:
        return self.limits[self.bound]


def simulate(hosts: int, given: Inputs) -> Result:
    """Return what a number of hosts moves."""
    members = hosts * given.processes
    partitions = given.partitions or 4 * members
    kb_more = (given.message_bytes - MEASURED_BYTES) / 1000
    own = given.own_us + given.own_kb_us * kb_more + given.own_request_us / given.batch
    iggy = given.iggy_us + given.iggy_kb_us * kb_more
    influxdb = given.influxdb_us + given.influxdb_request_us / given.batch
    a_process = 1e6 / own
    # Messages come to all partitions alike, so the process with the most partitions is full first.
    shared = partitions / -(-partitions // members)
    # Members look at the group, and poll some of each other's partitions, whatever the load.
    looks = members * (_POLLS_OF_OTHERS + (_REQUESTS_A_LOOK + min(partitions, _MOST_WATCHED)) / LOOK_SECONDS)
    left = max(given.iggy_cores - (looks * given.iggy_request_us / 1e6 if members > 1 else 0), 0)
    bytes_a_second = given.host_gbit * 1e9 / 8
    limits = {
        "CPU of the hosts": members * a_process,
        "partitions": min(shared, members) * a_process,
        "network of the hosts": hosts * bytes_a_second / given.message_bytes,
        "CPU of Iggy": left * 1e6 / iggy,
        "network of Iggy": bytes_a_second / given.message_bytes,
        "CPU of InfluxDB": given.influxdb_cores * 1e6 / influxdb,
        "network of InfluxDB": bytes_a_second / given.sent_bytes,
    }
    return Result(hosts, partitions, limits)


def table(results: Sequence[Result]) -> str:
    """Return a Markdown table of the results."""
    lines = [
        "| hosts | partitions | the hosts alone | Iggy alone | InfluxDB alone | moved | limit |",
        "|---|---|---|---|---|---|---|",
    ]
    for each in results:
        groups = [
            min(each.limits[name] for name in each.limits if name.endswith(place) or name == more)
            for place, more in (("the hosts", "partitions"), ("of Iggy", ""), ("of InfluxDB", ""))
        ]
        cells = [str(each.hosts), str(each.partitions), *map(_rate, (*groups, each.rate)), each.bound]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _rate(messages: float) -> str:
    return f"{messages / 1e6:.1f} M/s"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.scaling", description=__doc__)
    parser.add_argument("--hosts", type=int, nargs="+", default=HOSTS, help="numbers of hosts, a row for each")
    for each in fields(Inputs):
        option = f"--{each.name.replace('_', '-')}"
        parser.add_argument(option, type=type(each.default), default=each.default, help=f"default: {each.default}")
    given = vars(parser.parse_args(arguments))
    hosts = given.pop("hosts")
    print(table([simulate(number, Inputs(**given)) for number in hosts]))


if __name__ == "__main__":
    main()
