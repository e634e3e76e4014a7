"""Hosts on one machine: network namespaces, each with one link to a bridge, whose faults are those of a network.

| fault      | how                                                                                              |
|------------|--------------------------------------------------------------------------------------------------|
| unplugged  | the bridge's end of the link is down: packets vanish without a FIN or RST                        |
| slow link  | `tc` delays each packet (`netem`), or limits the rate (`tbf`) where the kernel has no `netem`    |
| power off  | unplugged, then the host's processes are killed: no packet of their end leaves                   |

The test's process is at `Network.here`.  It needs root, and the programs `ip` and `tc`.  A network names its namespaces
by the process that made it, and removes those that a killed process has left.
"""

from __future__ import annotations

import ipaddress
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

PREFIX: Final = "iggyflux-test-"
_RANGE: Final = ipaddress.ip_network("198.18.0.0/15")  # for benchmarks of networks: RFC 2544
_RATE: Final = ("tbf", "rate", "400kbit", "burst", "16kb", "latency", "1s")
_DELAY: Final = ("netem", "delay", "150ms", "50ms")


def missing() -> str | None:
    """Why there can be no network of namespaces here; None if there can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if absent := [program for program in ("ip", "tc") if shutil.which(program) is None]:
        return f"no {' and '.join(absent)} (iproute2) on PATH"
    name = f"{PREFIX}{os.getpid()}-probe"
    tried = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if tried.returncode:
        return f"network namespaces cannot be made: {tried.stderr.strip()}"
    _ip("netns", "delete", name)
    return None


class Host:
    """A namespace with one link to the bridge."""

    def __init__(self, network: Network, name: str, address: str) -> None:
        self._network, self.name, self.address = network, name, address
        self.namespace = network.namespace(name)
        network.connect(self.namespace, name, address)

    def command(self, *command: str) -> list[str]:
        """Return the command line that runs a command on this host."""
        return ["ip", "netns", "exec", self.namespace, *command]

    def unplug(self) -> None:
        _ip("-n", self._network.hub, "link", "set", self.name, "down")

    def plug(self) -> None:
        _ip("-n", self._network.hub, "link", "set", self.name, "up")

    def slow_down(self) -> str:
        """Make the link slow in both directions; return by what."""
        for kind in (_DELAY, _RATE):
            ends = [(self.namespace, "eth0"), (self._network.hub, self.name)]
            done = [_try("tc", "-n", space, "qdisc", "replace", "dev", link, "root", *kind) for space, link in ends]
            if all(done):
                return " ".join(kind)
        raise RuntimeError("tc knows neither netem nor tbf")

    def speed_up(self) -> None:
        for space, link in ((self.namespace, "eth0"), (self._network.hub, self.name)):
            _try("tc", "-n", space, "qdisc", "del", "dev", link, "root")

    def power_off(self) -> None:
        """End all processes of this host, without a packet that says so; the next `plug` is that of a new machine."""
        self.unplug()
        _kill(self.namespace)


class Network:
    """A bridge in a namespace of its own, and this process beside its hosts; `with` removes all of it in any case."""

    def __init__(self) -> None:
        _remove_left_behind()
        self._spaces: list[str] = []
        self._range = _free_range()
        self._addresses = self._range.hosts()
        self.here = self._next_address()
        self._own_link = f"ifx{os.getpid()}"
        try:
            self.hub = self.namespace("hub")
            _ip("-n", self.hub, "link", "add", "bridge", "type", "bridge")
            _ip("-n", self.hub, "link", "set", "bridge", "up")
            _ip("link", "add", self._own_link, "type", "veth", "peer", "name", "here", "netns", self.hub)
            _ip("address", "add", f"{self.here}/{self._range.prefixlen}", "dev", self._own_link)
            _ip("link", "set", self._own_link, "up")
            _ip("-n", self.hub, "link", "set", "here", "master", "bridge", "up")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def host(self, name: str) -> Host:
        """Return a new host."""
        return Host(self, name, self._next_address())

    def namespace(self, name: str) -> str:
        space = f"{PREFIX}{os.getpid()}-{name}"
        _ip("netns", "add", space)
        self._spaces.append(space)
        _ip("-n", space, "link", "set", "lo", "up")
        return space

    def connect(self, namespace: str, name: str, address: str) -> None:
        _ip("link", "add", "eth0", "netns", namespace, "type", "veth", "peer", "name", name, "netns", self.hub)
        _ip("-n", namespace, "address", "add", f"{address}/{self._range.prefixlen}", "dev", "eth0")
        _ip("-n", namespace, "link", "set", "eth0", "up")
        _ip("-n", self.hub, "link", "set", name, "master", "bridge", "up")

    def close(self) -> None:
        for space in self._spaces:
            _remove(space)
        self._spaces.clear()
        _try("ip", "link", "delete", self._own_link)

    def _next_address(self) -> str:
        return str(next(self._addresses))


def _free_range() -> ipaddress.IPv4Network:
    """Return a part of the range that no address of this machine is in."""
    found = json.loads(_ip("-json", "-4", "address"))
    used = [ipaddress.ip_address(each["local"]) for link in found for each in link.get("addr_info", ())]
    ranges = list(_RANGE.subnets(new_prefix=24))
    begin = os.getpid() % len(ranges)
    for part in (*ranges[begin:], *ranges[:begin]):
        if not any(address in part for address in used):
            return part
    raise RuntimeError(f"all of {_RANGE} is in use")


def _remove_left_behind() -> None:
    for line in _ip("netns", "list").splitlines():
        space = line.split()[0]
        owner = space.removeprefix(PREFIX).partition("-")[0]
        if space.startswith(PREFIX) and not Path(f"/proc/{owner}").exists():
            _remove(space)


def _remove(space: str) -> None:
    _kill(space)
    _try("ip", "netns", "delete", space)


def _kill(space: str) -> None:
    """End the processes of a namespace, and wait until they have ended."""
    until = time.monotonic() + 10
    while running := _processes(space):
        for process in running:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        assert time.monotonic() < until, running
        time.sleep(0.02)


def _processes(space: str) -> Sequence[int]:
    """Return the processes of a namespace that have not ended."""
    done = subprocess.run(["ip", "netns", "pids", space], capture_output=True, text=True, check=False)
    return [int(each) for each in done.stdout.split() if not _has_ended(int(each))]


def _has_ended(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def _ip(*arguments: str) -> str:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def _try(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0
