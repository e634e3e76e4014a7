"""`iggyflux run`: runs the routes of a pipeline, with events or a live table, and prints a summary."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import click

from iggyflux import __version__
from iggyflux.authoring.acceptance import acceptance_problems
from iggyflux.authoring.contract import Database
from iggyflux.cli.allocator import keep_freed_memory
from iggyflux.cli.inputs import MAPPING_FILE, open_pipeline
from iggyflux.cli.output import ExitCode, Styled, leave_at_once, plural, talk
from iggyflux.cli.progress import show_run, summary_lines
from iggyflux.cli.sdk_threads import run_sdk_on_one_thread
from iggyflux.errors import Problem
from iggyflux.pipeline import Pipeline, load_pipeline
from iggyflux.runner import Status, Stop, Summary, run_pipeline, stopping_on_signals
from iggyflux.runner.documents import fixed_identity
from iggyflux.runner.open import prepare_routes
from iggyflux.runner.reload import Documents, Reload
from iggyflux.runner.reporting import reporting
from iggyflux.runner.service_manager import ServiceManager
from iggyflux.runner.setup import AnySetup, WriterSetup
from iggyflux.runner.stop import calling_on_hangup, stopping_as_worker
from iggyflux.runner.workers import MOST_WORKERS, encoded, run_workers
from iggyflux.transports.share import ALONE, Share

_FAILURES: Final = {"dead-letters": ("dead_letters",), "failures": ("dead_letters", "dropped")}
"""By the word of `--fail-on`: the counters of messages that must be 0."""


class Count(click.ParamType[int | None]):
    """A number of workers, or `auto`, which is None."""

    name = "N|auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        if value == "auto":
            return None
        if not str(value).isdecimal() or not 1 <= int(value) <= MOST_WORKERS:
            self.fail(f"expected auto, or a number from 1 to {MOST_WORKERS}; found {value!r}", param, ctx)
        return int(value)


class OneOf(click.ParamType[Share]):
    """Which worker this process is, as its supervisor says it: `1/4@VERSION`."""

    name = "I/N@VERSION"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Share:
        which, _, version = str(value).partition("@")
        found = re.fullmatch(r"([0-9]{1,4})/([0-9]{1,4})", which)
        if found is None or not int(found[1]) < int(found[2]):
            self.fail(f"expected {self.name}: only a supervisor starts workers", param, ctx)
        if version != __version__:
            self.fail(f"iggyflux is {__version__} now, and the run began with {version}: restart the run", param, ctx)
        return Share(int(found[1]), int(found[2]))


@click.command(name="run")
@click.argument("pipeline", type=MAPPING_FILE)
@click.option("--until-end", is_flag=True, help="Stop when everything that is present at the start is settled.")
@click.option("--mapping", "only", multiple=True, metavar="NAME", help="Only the route of this name; can be repeated.")
@click.option("--log-format", type=click.Choice(["text", "json"]), help="Print one line per event, also on a terminal.")
@click.option(
    "--status-file", type=click.Path(dir_okay=False, path_type=Path), help="Write the counters to this file, as JSON."
)
@click.option(
    "--listen", metavar="HOST:PORT", help="Serve a page with live plots there, /metrics, /healthz, /readyz and /status."
)
@click.option(
    "--fail-on",
    type=click.Choice(list(_FAILURES)),
    help="Exit with 1 if messages became dead letters, or also if `on_error: skip` dropped them.",
)
@click.option(
    "--workers",
    type=Count(),
    metavar="N|auto",
    default="1",
    help="Share the partitions among N processes; auto: one for each usable CPU, at most one for each partition.",
)
@click.option("--worker", "share", type=OneOf(), hidden=True)
@click.option("--fixed", default="", hidden=True)
@click.option("--watch", is_flag=True, help="Take changed mappings without a restart; SIGHUP does it once.")
@click.option("--quiet", is_flag=True, help="Print warnings and errors only.")
def command(
    pipeline: Path,
    until_end: bool,
    only: tuple[str, ...],
    log_format: str | None,
    status_file: Path | None,
    listen: str | None,
    fail_on: str | None,
    workers: int | None,
    share: Share | None,
    fixed: str,
    watch: bool,
    quiet: bool,
) -> int:
    """Run the routes of a pipeline file.

    A message is acknowledged when all its points were accepted by the server, or when it was kept as a dead letter.
    On SIGTERM or SIGINT, messages in flight are finished; a second signal ends at once. With --until-end, a server
    that cannot be reached at the start is tried `max_retries` times again; then the route stops.

    The exit code is 0 on success, 3 if a route stopped, if messages in flight were not finished, or if a run with
    --until-end was interrupted before the end. A continuous run that is stopped by a signal ends with 0. With
    --fail-on, a run that would end with 0 ends with 1 if messages failed.

    With --listen, or `telemetry.listen` in the pipeline, the run shows what it does on a page, and answers requests for
    its metrics and health. Where other machines can reach the address, the pipeline must have a `telemetry.token`.

    On SIGHUP, or by itself with --watch, the run reads its documents again. A changed mapping that compiles and whose
    examples pass replaces the old one when everything in flight is settled. A broken one is refused, and the run goes
    on as it was. Changes of the pipeline file itself need a restart.

    With --workers, N processes share the partitions of topics and logs; one that crashes is started again. Readers,
    files and other routes without partitions run in the first of them. Each takes the memory of a run.

    \b
    Example:
      iggyflux run pipeline.yaml
      iggyflux run pipeline.yaml --until-end --mapping factory-env
      iggyflux run pipeline.yaml --until-end --mapping env-history --fail-on dead-letters
      iggyflux run pipeline.yaml --listen 127.0.0.1:9273
      iggyflux run pipeline.yaml --watch
      iggyflux run pipeline.yaml --workers 4 --listen 127.0.0.1:9273
    """
    if share is not None:
        return _work(pipeline, share, fixed, until_end, only, watch, quiet)
    loaded = open_pipeline(pipeline, warns=True)
    run_sdk_on_one_thread()
    if workers != 1:
        if not pipeline.is_file():
            raise click.UsageError("--workers needs a pipeline file that each of them can read")
        command = partial(_command, pipeline, until_end, only, watch, quiet)
        running = _supervise(loaded, command, workers, until_end, only, log_format, status_file, listen, quiet)
    else:
        keep_freed_memory()
        running = _run(loaded, until_end, only, log_format, status_file, listen, watch, quiet)
    summary, was_stopped = asyncio.run(running)
    count = sum(getattr(route, counter) for route in summary.routes for counter in _FAILURES.get(fail_on or "", ()))
    code = summary.exit_code or (ExitCode.PROBLEMS if count else ExitCode.OK)
    if not quiet or code:
        for line in summary_lines(summary):
            talk(*line)
    if count:
        talk(Styled("failed", "red", bold=True), f" by --fail-on {fail_on}: {plural(count, 'message')}")
    if was_stopped:  # a request that hangs, or a name that is not resolved, is not waited for
        leave_at_once(code)
    return code


def _check(setups: Sequence[AnySetup]) -> list[Problem]:
    """Return what the examples and the contract say of routes."""

    def database(setup: AnySetup) -> Database:
        if setup.item.sink is not None and setup.item.sink.kind != "influxdb":
            return Database((str(setup.item.sink),))
        settings = setup.influxdb
        parts = (settings.url, settings.org, settings.bucket, settings.database, settings.retention_policy)
        return Database(tuple(str(part or "") for part in parts))

    routes = [(each.mapping, database(each)) for each in setups if isinstance(each, WriterSetup)]
    return list(acceptance_problems([each.mapping for each in setups], routes))


def worker_command(name: str, share: Share) -> list[str]:
    """Return how a command is started as a worker, with its own arguments to follow."""
    is_apart = {"", str(Path.cwd())}.isdisjoint(sys.path)  # else `-m` imports what lies in the folder of the user
    python = [sys.executable, *(["-P"] if is_apart else []), "-m", "iggyflux"]
    return [*python, name, "--worker", f"{share.worker}/{share.workers}@{__version__}"]


def _command(
    pipeline: Path, until_end: bool, only: Sequence[str], watch: bool, quiet: bool, share: Share, fixed: str
) -> list[str]:
    """Return the command of a worker; `fixed` is the identity of what must be as it was when the run began."""
    flags = {"--until-end": until_end, "--watch": watch, "--quiet": quiet}
    return [
        *worker_command("run", share),
        *("--fixed", fixed),
        *(flag for flag, is_set in flags.items() if is_set),
        *(text for name in only for text in ("--mapping", name)),
        *("--", str(pipeline)),
    ]


def _work(
    pipeline: Path, share: Share, fixed: str, until_end: bool, only: Sequence[str], watch: bool, quiet: bool
) -> int:
    """Run as a worker: what it does is shown by its supervisor, which starts it again while it is refused."""
    hangups: list[object] = []  # those before the run follows its documents
    signal.signal(signal.SIGHUP, lambda *_: hangups.append(None))
    loaded = load_pipeline(pipeline)
    if fixed_identity(loaded, prepare_routes(loaded, until_end=until_end, only=only)) != fixed:
        raise click.UsageError(f"{pipeline}, or a mapping, has changed what needs a restart of the run (IFX830)")
    loaded = replace(loaded, telemetry=replace(loaded.telemetry, listen=None))
    keep_freed_memory()
    run_sdk_on_one_thread()
    summary, was_stopped = asyncio.run(_run(loaded, until_end, only, "json", None, None, watch, quiet, share, hangups))
    if was_stopped:
        leave_at_once(summary.exit_code)
    return summary.exit_code


async def _supervise(
    pipeline: Pipeline,
    command: Callable[[Share, str], Sequence[str]],
    workers: int | None,
    until_end: bool,
    only: Sequence[str],
    log_format: str | None,
    status_file: Path | None,
    listen: str | None,
    quiet: bool,
) -> tuple[Summary, bool]:
    """Return the summary of what the workers did, and whether a signal stopped the run."""
    stop, status = Stop(), Status()
    with show_run(status, log_format, quiet=quiet), stopping_on_signals(stop, for_good=True):
        summary = await run_workers(
            pipeline,
            command,
            workers,
            until_end=until_end,
            only=only,
            stop=stop,
            status=status,
            status_file=status_file,
            listen=listen,
            manager=ServiceManager(os.environ),
        )
    return summary, stop.requested.is_set()


async def _run(
    pipeline: Pipeline,
    until_end: bool,
    only: Sequence[str],
    log_format: str | None,
    status_file: Path | None,
    listen: str | None,
    watch: bool,
    quiet: bool,
    share: Share | None = None,
    hangups: Sequence[object] = (),
) -> tuple[Summary, bool]:
    """Return the summary, and whether a signal stopped the run; `hangups` are those that came before."""
    stop, status = Stop(), Status()
    hangup, manager = ExitStack(), ServiceManager(os.environ)

    def reloading(documents: Documents) -> Reload:
        reload = Reload(documents, watch=watch, manager=manager)
        hangup.enter_context(calling_on_hangup(reload.request, for_good=True))
        if hangups:
            reload.request()
        return reload

    stopping = stopping_on_signals(stop, for_good=True) if share is None else stopping_as_worker(stop)
    with show_run(status, log_format, quiet=quiet), stopping, hangup:
        async with nullcontext() if share is None else reporting(lambda: encoded(status), stop.request):
            summary = await run_pipeline(
                pipeline,
                until_end=until_end,
                only=only,
                stop=stop,
                status=status,
                status_file=status_file,
                listen=listen,
                manager=manager,
                reloading=reloading,
                check=_check,
                share=share or ALONE,
            )
    return summary, stop.requested.is_set()
