"""`iggyflux sim`: a simulated InfluxDB on loopback."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import click

from iggyflux.cli.output import flush_results, note, plural, result_line, talk
from iggyflux.cli.signals import until_signal
from iggyflux.documents import parse_document, read_source
from iggyflux.sim import Fault, SimServer
from iggyflux.sim.faults import Chaos, ScenarioError, parse_fault, read_scenario
from iggyflux.sim.record import Stats

_UNITS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 7 * 86_400}


class Seconds(click.ParamType[int]):
    """`7d`, `1h`, `90s`, or a bare number of seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        found = re.fullmatch(r"([0-9]{1,12})([smhdw]?)", str(value))
        if found is None:
            self.fail(f"{value!r} is not a duration such as 7d, 1h or 90s", param, ctx)
        return int(found[1]) * _UNITS[found[2] or "s"]


@click.command(name="sim")
@click.option(
    "--dialect", type=click.Choice(("1", "2", "3")), default="2", show_default=True, help="InfluxDB 1, 2 or 3."
)
@click.option("--server-version", metavar="VERSION", help="Behave like this version (1.6.7, v2.9.1, 3.6.0).")
@click.option("--host", metavar="ADDRESS", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    metavar="PORT",
    default=8086,
    show_default=True,
    help="Port to listen on; 0 selects a free one.",
)
@click.option(
    "--database",
    "--bucket",
    "database",
    metavar="NAME",
    default="test",
    show_default=True,
    help="Name of the existing database or bucket.",
)
@click.option("--org", metavar="NAME", default="org", show_default=True, help="Name of the organization (dialect 2).")
@click.option(
    "--token",
    "tokens",
    metavar="TOKEN",
    multiple=True,
    help="Require this token (dialect 1: USER:PASSWORD); by default access is open.",
)
@click.option("--read-token", "read_tokens", metavar="TOKEN", multiple=True, help="A token with read permission only.")
@click.option(
    "--write-token", "write_tokens", metavar="TOKEN", multiple=True, help="A token with write permission only."
)
@click.option("--retention", type=Seconds(), default="0", help="Reject points older than this (7d, 1h).")
@click.option(
    "--max-body",
    type=click.IntRange(1),
    metavar="BYTES",
    help="Maximum size of a request body (default: the server's own limit).",
)
@click.option(
    "--wal-flush",
    type=click.FloatRange(0),
    metavar="SECONDS",
    default=0.0,
    help="Answer writes at the next multiple of this time.",
)
@click.option(
    "--no-ui", is_flag=True, help="Dialect 2: answer 404 to unknown paths, like a build without a user interface."
)
@click.option(
    "--db-file", type=click.Path(dir_okay=False, path_type=Path), help="Store points in this file, not in memory."
)
@click.option("--fault", "faults", multiple=True, metavar="KIND[:KEY=VALUE,…]", help="Add a fault; can be repeated.")
@click.option(
    "--scenario", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Add the faults in this file."
)
@click.option("--chaos", metavar="SEED[:RATE]", help="Random faults; the same seed gives the same faults.")
@click.option("--seconds", type=click.FloatRange(0), metavar="SECONDS", help="Stop after this time.")
def sim(**given: Any) -> None:
    """Simulate an InfluxDB server, for tests and demos.

    Prints its URL, serves until it is interrupted, and ends with a summary on stderr. Faults can also be added
    at run time: POST to /__sim__/faults.

    \b
    Example:
      iggyflux sim --dialect 3 --port 0 --fault status:status=503,times=2,retry_after=1
    """
    faults = list(_faults(given))
    try:
        server = SimServer(
            int(given["dialect"]),
            given["port"],
            host=given["host"],
            version=given["server_version"],
            database=given["database"] or None,
            org=given["org"],
            tokens=_rights(given),
            retention_seconds=given["retention"],
            max_body=given["max_body"],
            assets=not given["no_ui"],
            wal_flush_seconds=given["wal_flush"],
            db_file=given["db_file"],
        )
    except ValueError as exc:
        raise click.UsageError(str(exc)) from exc
    server.inject(*faults)
    with until_signal() as signalled, _listening(server):
        result_line(server.url)
        flush_results()
        if not given["tokens"] and not given["read_tokens"] and not given["write_tokens"]:
            note("every token is accepted; use --token NAME to require one")
        signalled.wait(given["seconds"])
        stats = server.stats
    for line in summary(stats):
        talk(line)


@contextmanager
def _listening(server: SimServer) -> Iterator[None]:
    try:
        server.start()
    except OSError as exc:
        server.stop()
        raise click.UsageError(f"cannot listen: {exc.strerror or exc} (use --port 0 for a free port)") from exc
    try:
        yield
    finally:
        server.stop()


def _rights(given: dict[str, Any]) -> dict[str, set[str]]:
    rights: dict[str, set[str]] = {}
    for option, allowed in (("tokens", ("read", "write")), ("read_tokens", ("read",)), ("write_tokens", ("write",))):
        for token in given[option]:
            rights.setdefault(token, set()).update(allowed)
    return rights


def _faults(given: dict[str, Any]) -> Iterator[Fault | Chaos]:
    try:
        for text in given["faults"]:
            yield parse_fault(text)
        if given["scenario"] is not None:
            path: Path = given["scenario"]
            faults, chaos = read_scenario(parse_document(read_source(path), file=str(path)).tree)
            yield from faults
            if chaos is not None:
                yield chaos
        if given["chaos"] is not None:
            seed, _, rate = given["chaos"].partition(":")
            yield Chaos(seed=int(seed), rate=float(rate or 0.1))
    except ScenarioError as exc:
        raise click.UsageError(f"{exc.code}: {exc}") from exc
    except ValueError as exc:
        raise click.UsageError(f"--chaos: expected SEED[:RATE], for example 7:0.1, found {given['chaos']!r}") from exc


def summary(stats: Stats) -> list[str]:
    """Return the lines of the summary."""
    answers = ", ".join(f"{status} × {number:,}" for status, number in sorted(stats.requests.items())) or "none"
    broken = f", broken off × {stats.broken:,}" if stats.broken else ""
    lines = [
        f"requests: {answers}{broken}",
        f"lines: {stats.lines:,} ({stats.stored:,} stored, {stats.refused:,} rejected)",
        f"points: {stats.points:,} in {plural(stats.series, 'series', 'series')} ({stats.overwritten:,} overwritten)",
    ]
    if stats.faults:
        lines.append("faults: " + ", ".join(f"{kind} × {number:,}" for kind, number in sorted(stats.faults.items())))
    return lines
