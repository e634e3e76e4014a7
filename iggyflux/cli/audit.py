"""`iggyflux audit`: compares what messages must have made with what the store holds, and sends what is missing.

The exit code is 0 where all is there, 1 where something is missing or different: what was sent again counts as there.
"""

from __future__ import annotations

import asyncio
import dataclasses
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

import click

from iggyflux.audit.again import LinesPlan, StillMissing
from iggyflux.audit.check import NAMED, Audit, Finding, Report
from iggyflux.audit.letters import LetterIndex
from iggyflux.audit.sources import Limits, letters_of, range_of
from iggyflux.audit.stored import StoredPoints
from iggyflux.audit.window import Class
from iggyflux.cli.inputs import MAPPING_FILE, open_pipeline
from iggyflux.cli.output import ExitCode, Line, Styled, json_text, note, plural, result, result_line, show_stop, talk
from iggyflux.cli.progress import telling
from iggyflux.cli.send_again import ReportedFailures, bounds, send_again
from iggyflux.delivery.settled import count_of_others
from iggyflux.errors import Stopped
from iggyflux.lineprotocol import Precision
from iggyflux.mapping import OnError
from iggyflux.pipeline import Pipeline, TopicAddress
from iggyflux.records import Partition
from iggyflux.runner.open import PreparedRoute, prepare_routes
from iggyflux.runner.route import Route
from iggyflux.runner.settled_ledger import read_ledgers
from iggyflux.runner.setup import WriterSetup
from iggyflux.timestamps import format_rfc3339
from iggyflux.transports.local.envelopes import EnvelopeError
from iggyflux.transports.schemas import AskingPlan

_TALK_EVERY_SECONDS: Final = 5.0
_LABELS: Final = {
    Class.THERE: "there",
    Class.MISSING: "missing",
    Class.DIFFERENT: "different",
    Class.OVERWRITTEN: "overwritten by a later message",
    Class.EXPIRED: "expired by retention",
    Class.DEAD_LETTERED: "kept as dead letters",
}


class _Place(click.ParamType[Partition]):
    """The number of a partition, or with its stream and topic; both are empty if they are not given."""

    name = "[STREAM/TOPIC/]P"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Partition:
        found = re.fullmatch(r"(?:([^/]++)/(.+)/)?([0-9]{1,10})", str(value))
        if found is None:
            self.fail(f"expected a number, or STREAM/TOPIC/P; found {value!r}", param, ctx)
        return Partition(found[1] or "", found[2] or "", int(found[3]))


@click.command(name="audit")
@click.argument("pipeline", type=MAPPING_FILE)
@click.option("--mapping", "name", required=True, metavar="NAME", help="The route to audit.")
@click.option("--from", "since", metavar="OFFSET|TIME", help="The first message: an offset, or a time (RFC 3339).")
@click.option("--to", "until", metavar="OFFSET|TIME", help="The end, exclusive (default: what is settled).")
@click.option("--partition", "place", type=_Place(), help="Only this partition, as `status` names it or by its number.")
@click.option("--unsettled", is_flag=True, help="Audit also messages that the route has not settled.")
@click.option("--resend", is_flag=True, help="Send what is missing, after asking the store again.")
@click.option(
    "--show",
    "most",
    type=click.IntRange(min=0),
    default=20,
    show_default=True,
    metavar="N",
    help="Name at most N points that are missing or different.",
)
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
def command(
    pipeline: Path,
    name: str,
    since: str | None,
    until: str | None,
    place: Partition | None,
    unsettled: bool,
    resend: bool,
    most: int,
    form: str,
) -> int:
    """Compare what a range of messages must have made with what InfluxDB holds.

    The messages are read and rendered again, and the server is asked for their points. A point is there, missing,
    different, overwritten by a later message of the range, expired by retention, or kept as a dead letter. Points that
    are missing or different are named with their messages. The route can run meanwhile: no offset is changed.

    With --resend, points that the server does not have are sent; the others are not touched. The exit code is 1 if
    points are missing or different and were not sent.

    \b
    Example:
      iggyflux audit pipeline.yaml --mapping factory-env --from 2026-01-31T12:00:00Z --to 2026-01-31T13:00:00Z
      iggyflux audit pipeline.yaml --mapping factory-env --from 120000 --to 125000 --partition 1 --resend
    """
    loaded = open_pipeline(pipeline)
    (prepared,) = prepare_routes(loaded, only=[name])
    setup = prepared.setup
    if not isinstance(setup, WriterSetup):
        raise click.UsageError(f"{name} is a reader; expected a writer, whose points can be looked for")
    if prepared.sink.kind != "influxdb":
        raise click.UsageError(f"{name} writes to a file; expected a route to InfluxDB, which can be asked")
    if setup.writer.chooses_bucket:
        raise click.UsageError(f"{name} chooses the bucket of each point (`to`); expected a route with one bucket")
    limits = Limits(*bounds(since, until), settled_only=not unsettled)
    if place is not None:
        origin = setup.writer.source
        if place.stream and not (
            place.stream == origin.stream and any(fnmatchcase(place.topic, each) for each in origin.topics)
        ):
            raise click.BadParameter(f"{name} does not read {place}", param_hint="--partition")
        limits = dataclasses.replace(limits, partition=place.partition, topic=place.topic or None)
    return asyncio.run(_audit(loaded, prepared, setup, limits, most, resend=resend, as_json=form == "json"))


@dataclasses.dataclass(slots=True)
class _Sent:
    """What `--resend` did."""

    sent: int = 0
    healed: int = 0
    failed: int = 0
    code: int = ExitCode.OK


async def _audit(
    pipeline: Pipeline,
    prepared: PreparedRoute,
    setup: WriterSetup,
    limits: Limits,
    most: int,
    *,
    resend: bool,
    as_json: bool,
) -> int:
    route = prepared.build()
    assert isinstance(route, Route)  # noqa: S101  # of a writer's setup
    source = await range_of(setup, prepared.source, limits)
    if source is None:
        raise click.UsageError(f"{setup.name} reads standard input, which cannot be read again")
    precision, tags = Precision(setup.influxdb.precision), dict(setup.item.tags)
    store = StoredPoints(setup.influxdb, precision.divisor)
    audit = Audit(
        source,
        lambda dialect: AskingPlan(
            setup.mapping, route.registry, dialect=dialect, precision=precision.value, tags=tags
        ),
        store,
        LetterIndex([letter async for letter in _letters(setup, prepared)]),
        unit_ns=precision.divisor,
        most_named=most,
    )
    sent: _Sent | None = None
    try:
        async with telling(lambda: _tell(audit.report), _TALK_EVERY_SECONDS):
            await audit.run()
        _check_range(audit.report, limits)
        if resend:
            sent = await _send(route, audit, precision.divisor)
        others = (
            0 if isinstance(pipeline.state, TopicAddress) else await asyncio.to_thread(_of_other_plans, setup, audit)
        )
    finally:
        audit.missing.close()
        await store.close()
    if as_json:
        result(json_text(_tree(setup.name, audit.report, sent, others), indent=True) + "\n")
    else:
        for line in _lines(setup.name, audit.report, sent, others):
            result_line(*line)
        if step := _next_step(audit.report, sent, is_iggy=prepared.source.kind == "iggy"):
            result_line(f"  next: {step}")
    points = audit.report.points
    left = points[Class.DIFFERENT] + (points[Class.MISSING] if sent is None else sent.failed)
    return max(sent.code if sent else ExitCode.OK, ExitCode.PROBLEMS if left else ExitCode.OK)


def _check_range(report: Report, limits: Limits) -> None:
    """Raise `Stopped` where offsets were named that no partition has, and note that a range is empty."""
    if report.messages:
        return
    if report.unsettled:
        note(f"nothing to compare: {plural(report.unsettled, 'message')} of the range not settled yet; see --unsettled")
    elif limits.since is not None and limits.since.kind == "offset":
        raise Stopped(f"no message has the offset {limits.since.value} or a later one", "check --from", "IFX612")
    else:
        note("no message is in the range: nothing was compared")


async def _letters(setup: WriterSetup, prepared: PreparedRoute) -> Any:
    try:
        async for letter in letters_of(setup, prepared.source):
            yield letter
    except EnvelopeError as error:
        raise Stopped(
            f"a message in the topic of dead letters cannot be read: {error}",
            "check `dead_letters` of the pipeline",
            "IFX716",
        ) from error


async def _send(route: Route, audit: Audit, unit_ns: int) -> _Sent:
    source, failed = StillMissing(audit, route.batch_size, unit_ns), ReportedFailures()
    again = dataclasses.replace(
        route,
        source=source,
        plan=LinesPlan(),
        sink=source.sink(route.sink),
        dead_letters=failed,
        on_error=OnError.DEAD_LETTER,
    )
    summary = await send_again([again])
    for error in summary.errors:
        show_stop(error)
    for line in failed.lines():
        talk(*line)
    (status,) = summary.routes
    left = sum(audit.report.points[each] for each in (Class.MISSING,)) if summary.errors else 0
    return _Sent(max(status.delivered - source.healed, 0), source.healed, max(failed.count, left), summary.exit_code)


def _of_other_plans(setup: WriterSetup, audit: Audit) -> int:
    """Return how many of the messages were settled by another plan, as far as the ledger knows."""
    assert isinstance(setup.pipeline.state, Path)  # noqa: S101
    try:
        ledger = read_ledgers(setup.pipeline.state, setup.name)
    except Stopped as error:
        note(f"the ledger cannot be read: {error.reason}")
        return 0
    facts = audit.report.facts
    if facts is None or ledger is None:
        return 0
    found = ledger.intervals()
    tags = dict(setup.item.tags)
    plan = setup.mapping.identity(dialect=facts.dialect, precision=setup.influxdb.precision, tags=tags)
    return sum(count_of_others(found, plan, *run) for run in audit.numbers.runs())


def _tell(report: Report) -> None:
    """Say how far it is."""
    if report.compared:
        talk(f"{report.compared:,} of {plural(report.rendered, 'point')} compared")
    else:
        talk(f"{report.messages:,} of {plural(max(report.total, report.messages), 'message')} read")


def _lines(name: str, report: Report, sent: _Sent | None, others: int) -> Iterator[Line]:
    for each in report.findings:
        colour = "red" if each.kind is Class.MISSING else "yellow"
        yield Styled(each.kind.value, colour, bold=True), f": {_point(each)}  {_fields(each)}"
    named = sum(report.points[each] for each in NAMED)
    if (more := named - len(report.findings)) > 0:
        yield (f"… and {plural(more, 'more point' if report.findings else 'point')} missing or different",)
    counts = f"{plural(report.messages, 'message')}, {plural(report.rendered, 'point')}"
    left_out = f", {report.skipped:,} without points" if report.skipped else ""
    yield (Styled(name, bold=True), f": {counts}{left_out}")
    for kind, label in _LABELS.items():
        if report.points[kind] or kind is Class.THERE:
            yield (f"  {report.points[kind]:>12,}  {label}",)
    if report.failed:
        yield (f"  {report.failed:>12,}  records fail to render, and have no dead letter",)
    if report.unsettled:
        yield (f"  {plural(report.unsettled, 'message')} of the range not settled yet, and not audited",)
    if others:
        verb = "was" if others == 1 else "were"
        words = f"{plural(others, 'message')} {verb} settled by another plan, whose points may be others"
        yield Styled("  warning", "yellow"), f": {words}"
    if report.facts is not None and report.facts.keeps_seconds is None:
        yield ("  the server does not tell its retention, so nothing counts as expired",)
    if sent is not None:
        healed = f", {sent.healed:,} there by now" if sent.healed else ""
        failed = f", {sent.failed:,} not accepted" if sent.failed else ""
        yield (f"  {plural(sent.sent, 'missing point')} sent{healed}{failed}",)


def _next_step(report: Report, sent: _Sent | None, *, is_iggy: bool) -> str:
    """Return what ends the difference; empty if there is none."""
    steps = []
    if report.points[Class.MISSING] and sent is None:
        steps.append("`--resend` sends what is missing")
    if report.points[Class.DIFFERENT]:
        again = "`iggyflux resend` sends" if is_iggy else "a consumer of another name (`consumer: {group: NEW}`) reads"
        steps.append(f"{again} a range again, which overwrites what is different")
    return "; ".join(steps)


def _point(finding: Finding) -> str:
    tags = "".join(f",{key}={value}" for key, value in finding.tags.items())
    place = f"{finding.partition}@{finding.offset}"
    return f"{place}  {finding.measurement}{tags} {format_rfc3339(finding.time_ns)}"


def _fields(finding: Finding) -> str:
    parts = []
    for key, (value, stored) in finding.fields.items():
        there = "" if stored is None else f" (stored: {json_text(stored)})"
        parts.append(f"{key}={json_text(value)}{there}")
    return ", ".join(parts)


def _tree(name: str, report: Report, sent: _Sent | None, others: int) -> dict[str, Any]:
    named = sum(report.points[each] for each in NAMED)
    facts = report.facts
    return {
        "route": name,
        "messages": report.messages,
        "messages_without_points": report.skipped,
        "messages_not_settled": report.unsettled,
        "messages_of_other_plans": others,
        "points": {"rendered": report.rendered, **{kind.value: report.points[kind] for kind in Class}},
        "records_failed": report.failed,
        "retention_seconds": None if facts is None else facts.keeps_seconds,
        "findings": [
            {
                "class": each.kind.value,
                "stream": each.partition.stream,
                "topic": each.partition.topic,
                "partition": each.partition.partition,
                "offset": each.offset,
                "measurement": each.measurement,
                "tags": dict(each.tags),
                "time": format_rfc3339(each.time_ns),
                "fields": {key: {"rendered": value, "stored": stored} for key, (value, stored) in each.fields.items()},
            }
            for each in report.findings
        ],
        "findings_not_shown": named - len(report.findings),
        "resent": None if sent is None else {"sent": sent.sent, "there_by_now": sent.healed, "failed": sent.failed},
    }
