"""What becomes of failed records and refused lines: `on_error` in both kinds of routes."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import itertools
import logging
import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from iggyflux.delivery.verdicts import Refusal
from iggyflux.errors import Stopped
from iggyflux.mapping import OnError
from iggyflux.records import DeadLetter, Failure, Message, Reason
from iggyflux.runner import failures
from iggyflux.runner.failures import FailureHandler, bounded, reasons_by_record
from iggyflux.runner.status import RouteStatus
from iggyflux.transports.base import Removed
from iggyflux.transports.local.deadletters import DirectoryDeadLetters

FAILURES = st.lists(
    st.builds(
        Failure,
        index=st.integers(0, 30),
        element=st.none() | st.integers(0, 3),
        point=st.none() | st.integers(0, 3),
        code=st.sampled_from(["IFX301", "IFX340"]),
        location=st.sampled_from(["", *(f"/points/0/tags/class{number}" for number in range(15))]),
        reason=st.sampled_from(["no", "Ω\n"]),
    ),
    max_size=60,
)


def handler(on_error: OnError, letters: list[DeadLetter] | None = None) -> tuple[FailureHandler, RouteStatus]:
    async def put(found: Sequence[DeadLetter]) -> None:
        assert letters is not None, "nothing is kept"
        letters.extend(found)

    names = {"pipeline": "plant.yaml", "name": "lambda", "mapping": "m", "plan_identity": "0123", "dead_letters": None}
    route: Any = SimpleNamespace(**names, on_error=on_error)
    status = RouteStatus("lambda")
    return FailureHandler(route, status, put, record="row"), status


def message(index: int) -> Message:
    return Message(str(index).encode())


@given(FAILURES)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_each_kind_is_logged_once_and_every_reason_is_kept(
    caplog: pytest.LogCaptureFixture, failures: list[Failure]
) -> None:
    letters: list[DeadLetter] = []
    failing, status = handler(OnError.DEAD_LETTER, letters)
    caplog.clear()
    with caplog.at_level(logging.INFO, "iggyflux.runner"):
        for _ in range(2):
            failing.report_failures(failures, lambda index: f"here@{index}")
    asyncio.run(failing.keep(reasons_by_record(failures), message))

    kinds = list(dict.fromkeys((failure.code, failure.location or None) for failure in failures))
    logged = [getattr(record, "fields", {}) for record in caplog.records]
    assert [(each["code"], each.get("location")) for each in logged] == kinds[:20]
    assert status.failed == 2 * len(failures)
    indices = sorted({failure.index for failure in failures})
    assert [letter.message for letter in letters] == [message(index) for index in indices]
    for index, letter in zip(indices, letters, strict=True):
        assert [(reason.code, reason.location, reason.element, reason.point) for reason in letter.reasons] == [
            (each.code, each.location, each.element, each.point) for each in failures if each.index == index
        ]
    assert status.dead_letters == len(indices)


@given(FAILURES.filter(bool))
def test_rule_21_skip_counts_each_record_once_and_keeps_none(failures: list[Failure]) -> None:
    failing, status = handler(OnError.SKIP)
    asyncio.run(failing.keep(reasons_by_record(failures), message))

    assert (status.dropped, status.dead_letters) == (len({failure.index for failure in failures}), 0)


@given(FAILURES.filter(bool))
def test_rule_21_fail_stops_at_the_first_record(failures: list[Failure]) -> None:
    failing, _ = handler(OnError.FAIL)
    with pytest.raises(Stopped) as error:
        failing.report_failures(failures, lambda index: f"here@{index}")

    first = failures[0]
    where = f" at {first.location}" if first.location else ""
    assert error.value.code == "IFX620"
    assert error.value.reason == f"here@{first.index}: {first.code}: {first.reason}{where}, and on_error is fail"
    assert error.value.hint is not None
    assert error.value.hint.endswith("the row is read again")


REFUSED = st.lists(
    st.builds(
        Refusal,
        line=st.integers(0, 500),
        reason=st.builds(
            "type of {}{}".format,
            st.sampled_from([f"field{number}" for number in range(25)]),
            st.sampled_from(["", " dropped=1", " dropped=13"]),
        ),
        code=st.sampled_from(["IFX601", "IFX609"]),
    ),
    max_size=60,
)


def test_rule_21_fail_stops_also_at_a_kind_that_was_logged_before_the_mapping_changed() -> None:
    """A mapping is changed while its route runs: what was kept until then stops the route."""
    failing, _ = handler(OnError.DEAD_LETTER)
    failure, refusal = Failure(0, None, None, "IFX341", "/points/0", "no"), Refusal(0, "bad", 400)
    failing.report_failures([failure], str)
    failing.report_refusals([refusal], str)
    failing.route = SimpleNamespace(**{**vars(failing.route), "on_error": OnError.FAIL})  # type: ignore[assignment]

    with pytest.raises(Stopped):
        failing.report_failures([failure], str)
    with pytest.raises(Stopped):
        failing.report_refusals([refusal], str)


@given(st.lists(REFUSED, max_size=4))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_each_cause_of_refused_lines_is_logged_once_with_the_number_of_lines(
    caplog: pytest.LogCaptureFixture, batches: list[list[Refusal]]
) -> None:
    """Servers count lines in their words, so these differ for one cause.  At most 20 causes are logged."""
    failing, _ = handler(OnError.DEAD_LETTER)
    caplog.clear()
    with caplog.at_level(logging.INFO, "iggyflux.runner"):
        for refusals in batches:
            failing.report_refusals(refusals, lambda refusal: f"here@{refusal.line}")

    expected: dict[tuple[str, str], list[object]] = {}
    for refusals in batches:
        of_batch: dict[tuple[str, str], list[object]] = {}
        for each in refusals:
            found = of_batch.setdefault((each.code, each.reason.split(" dropped")[0]), [f"here@{each.line}", 0])
            found[1] += 1  # type: ignore[operator]
        expected |= {cause: found for cause, found in of_batch.items() if cause not in expected}
    logged = [record.fields for record in caplog.records]  # type: ignore[attr-defined]
    assert [[each["at"], each["lines"]] for each in logged] == list(expected.values())[:20]


@pytest.mark.parametrize("on_error", list(OnError))
def test_values_left_out_are_counted_and_logged_once_whatever_on_error_says(
    on_error: OnError, caplog: pytest.LogCaptureFixture
) -> None:
    failing, status = handler(on_error)
    values = [Failure(index, None, 0, "IFX340", f"/points/fields/{index % 2}", "no", count=3) for index in range(4)]
    with caplog.at_level(logging.INFO, "iggyflux.runner"):
        for _ in range(2):
            failing.report_omitted(values, lambda index: f"here@{index}")

    events = [(getattr(each, "event", None), each.fields["location"]) for each in caplog.records]  # type: ignore[attr-defined]
    assert events == [("value.omitted", "/points/fields/0"), ("value.omitted", "/points/fields/1")]
    assert status.omitted == 24
    assert status.failed == 0


TEXTS = st.text("aé", max_size=4)
REASONS = st.lists(
    st.builds(
        Reason,
        st.sampled_from(["IFX301", "IFX340"]),
        TEXTS,
        TEXTS,
        line=st.none() | TEXTS,
        status=st.sampled_from([None, 400, 422]),
    ),
    max_size=8,
)


@given(REASONS, st.integers(1, 6), st.integers(0, 30))
def test_a_letter_keeps_the_first_reasons_and_counts_the_others(reasons: list[Reason], most: int, room: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(failures, "_MOST_REASONS", most)
        patch.setattr(failures, "_MOST_CHARACTERS", room)
        found = bounded(reasons)

    sizes = itertools.accumulate(len(f"{each.reason}{each.location}{each.line or ''}") for each in reasons)
    fits = min(most, sum(size <= room for size in sizes))
    rest = reasons[fits:]
    assert list(found[:fits]) == reasons[:fits]
    assert len(found) == fits + bool(rest)
    if rest:
        last, codes = found[-1], sorted(Counter(each.code for each in rest).items())
        assert (last.code, last.location, last.status) == (rest[0].code, rest[0].location, rest[0].status)
        assert last.line is None
        assert last.reason.startswith(f"and {len(rest)} more reason")
        assert last.reason.endswith(f": {', '.join(f'{count} {code}' for code, count in codes)}")


@pytest.mark.parametrize(("kind", "at"), [("writer", "s/t/0@7"), ("reader", "s/t, row of 1970-01-01T00:00:01Z")])
def test_the_status_has_what_was_kept_last_and_what_retention_removed(kind: str, at: str) -> None:
    failing, status = handler(OnError.DEAD_LETTER, [])
    status.about = dataclasses.replace(status.about, kind=kind)
    failing.refresh()
    assert (status.removed_replayed, status.removed_letters) == (0, 0)
    failing.route.dead_letters = SimpleNamespace(removed=Removed(3, 5))
    failing.refresh()
    assert (status.removed_replayed, status.removed_letters) == (3, 5)
    kept = Message(b"", "s", "t", 0, 7, timestamp_us=10**6)
    for _ in range(2):
        asyncio.run(failing.keep({0: [Reason("IFX340", "no")]}, lambda _: kept))
    assert [(each.at, each.code) for each in status.newest] == [(at, "IFX340")] * 2


@pytest.mark.parametrize("is_kept", [True, False])
def test_letters_that_are_written_while_the_route_is_cut_off_are_counted(is_kept: bool, tmp_path: Path) -> None:
    """A thread writes them: a cancellation does not stop it.  The sink is closed after it, as a run does."""
    began, may_write = threading.Event(), threading.Event()
    sink = DirectoryDeadLetters(tmp_path / ("letters" if is_kept else "none"))
    write = sink._put
    if not is_kept:
        (tmp_path / "none").write_text("a file")

    def wait_and_write(letters: Sequence[DeadLetter]) -> str:
        began.set()
        may_write.wait()
        return write(letters)

    sink._put = wait_and_write  # type: ignore[method-assign]
    route: Any = SimpleNamespace(
        name="lambda", mapping="m", pipeline="", plan_identity="0123", on_error=OnError.DEAD_LETTER
    )
    status = RouteStatus("lambda")
    failing = FailureHandler(route, status, sink.put, record="row")
    reasons = reasons_by_record([Failure(index, None, None, "IFX340", "", "no") for index in (3, 5)])

    async def main() -> int:
        keeping = asyncio.create_task(failing.keep(reasons, message))
        while not began.is_set():
            await asyncio.sleep(0)
        keeping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await keeping
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unheard.append(context))
        may_write.set()
        await sink.close()
        gc.collect()
        return status.dead_letters

    unheard: list[dict[str, Any]] = []
    counted = asyncio.run(main())
    assert not unheard

    written = list((tmp_path / "letters").glob("*.ndjson")) if is_kept else []
    lines = sum(len(each.read_bytes().splitlines()) for each in written)
    assert counted == lines == (2 if is_kept else 0)
