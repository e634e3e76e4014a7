"""The page at `/` of a run, in a real browser: Debian's Chromium, driven by Playwright."""

from __future__ import annotations

import json
import random
import shlex
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from iggyflux.codes import CODES
from iggyflux.delivery.windows import ReadPosition
from iggyflux.errors import Location, Problem, Stopped
from iggyflux.records import DeadLetter, Message, Partition, Reason
from iggyflux.runner import RouteStatus, Status
from iggyflux.runner.newest import with_newest
from iggyflux.runner.status import About, ReaderStatus, WorkerStatus
from iggyflux.secrets import Secret
from iggyflux.sim import SimServer
from iggyflux.telemetry.answers import Site
from iggyflux.transports.local.log import Log
from tests.browser import PATIENCE_MS, launched
from tests.metrics_watch import tree_of
from tests.pages import blocks
from tests.telemetry_site import serving

pytestmark = pytest.mark.slow

DOCS = Path(__file__).parent.parent / "docs"
HOSTILE = "<img src=x onerror=\"document.title='broken'\"><script>document.title='broken'</script>&amp;"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched("the page of a run") as found:
        yield found


class Run:
    """A run that is not there: its routes, and the clock, are what a test says; each answer is a second later."""

    def __init__(self, *routes: RouteStatus, token: str | None = None, show: Any = "codes") -> None:
        self.status = Status(list(routes), 5.0, 1_700_000_000.0)
        self.now = 1_700_000_005.0
        self.site = Site(lambda: self._tree(show), None if token is None else Secret(token))

    def _tree(self, show: Any) -> dict[str, Any]:
        self.now += 1
        return {**tree_of(self.status), "time_unix": self.now, **self.status.as_public(show)}


@contextmanager
def opened(browser: Browser, url: str, *, allowed: str = "", **options: Any) -> Iterator[Page]:
    """Open a page; fail if it raised something, asked another server, or logged an error that is not `allowed`."""
    context = browser.new_context(**{"viewport": {"width": 1400, "height": 900}, **options})
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    expect.set_options(timeout=PATIENCE_MS)
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("dialog", lambda dialog: faults.append(dialog.message))
    page.on("console", lambda line: faults.append(line.text) if line.type in ("error", "warning") else None)
    requested: list[str] = []
    page.on("request", lambda request: requested.append(request.url))
    page.goto(url)
    yield page
    context.close()
    assert [each for each in faults if not allowed or allowed not in each] == []
    names = {"", "page.css", "page.js", "dom.js", "history.js", "plot.js", "icon.svg", "status"}
    assert {each.removeprefix(url) for each in requested} <= names


@contextmanager
def shown(browser: Browser, run: Run, **options: Any) -> Iterator[Page]:
    with serving(run.site) as (server, _), opened(browser, server.url, **options) as page:
        yield page


def answers(page: Page, count: int = 2) -> None:
    """Wait until the page has shown so many more answers."""
    for _ in range(count):
        before = page.locator("#link .words").inner_text()
        page.wait_for_function("before => document.querySelector('#link .words').textContent !== before", arg=before)


def letters(count: int, words: str = "the words", line: str | None = "line x=1") -> list[DeadLetter]:
    reason = Reason("IFX609", words, "/points/fields/x", line=line, status=400)
    return [DeadLetter(Message(b'{"x": 1}', "werk", "halle", 2, at), "m", "h", [reason]) for at in range(count)]


def busy() -> list[RouteStatus]:
    """Return routes in every kind of state, with large numbers and long names."""
    good = RouteStatus("k" * 128, About("writer", "env", "0a", "iggy:8090", "http://influx:8086"), "running")
    good.lag = {Partition("werk", "halle", number): 987_654_321_012 * number for number in range(20)}
    good.read = good.delivered = 123_456_789_012
    good.in_flight = 8
    for value in (0.004, 0.3, 99.0):
        good.request_seconds.observe(value)
    away = RouteStatus("away", About("writer", "m", "0b", None, "http://influx:8086"), "running", is_away=True)
    away.wait_for("geheim", briefly="http://influx:8086: http_503")
    away.backoff_seconds = 6.4
    away.count("retries", "http_503", 1_234_567)
    stopped = RouteStatus("stopped", state="stopped", error=Stopped("geheim", code="IFX606"))
    stopped.count("dead_letters", "IFX609", 12)
    stopped.newest = with_newest((), letters(12), 1_700_000_000.0)
    reader = RouteStatus("back", About("reader", "back", "2c", "http://influx:8086"), "idle", reader=ReaderStatus())
    assert reader.reader is not None
    hour = 3_600_000_000_000
    reader.reader.position = ReadPosition(400_000 * hour, 400_000 * hour, (300_000 * hour, 390_000 * hour))
    reader.reader.live_to, reader.reader.share, reader.reader.seconds_left = 400_001 * hour, 0.25, 7200.0
    return [good, away, stopped, reader]


# --- what is shown ---


def test_the_state_of_each_route_has_its_reason_and_the_time_left(browser: Browser) -> None:
    with shown(browser, Run(*busy())) as page:
        answers(page)
        rows = page.locator("#routes .under td").all_inner_texts()
        states = page.locator("#routes td.state").all_inner_texts()

        assert states == ["✕ 1 stopped", "● running", "▲ running", "✕ stopped", "◐ idle"]
        assert rows[:2] == [
            "iggy:8090 → http://influx:8086",
            "waits for http://influx:8086: http_503; tries again in 7 s",
        ]
        assert [each.split()[1] for each in states[1:]] == [route.state for route in busy()], "as elsewhere"
        assert rows[2].startswith("IFX606: ")
        assert page.title() == "▲ 2 of 4 routes – iggyflux"
        reader = page.locator("#readers tbody tr").inner_text().split("\t")
        assert reader[:2] == ["back", "2015-08-19 16:00:00 UTC"]
        assert reader[2].endswith("; 25 % read, 2 h left")
        assert reader[2].startswith("2004-03-23 00:00:00 UTC to 2014-06-29 00:00:00 UTC")
        assert "geheim" not in page.content()


def test_each_worker_has_its_state_and_partitions(browser: Browser) -> None:
    run = Run(*busy())
    run.status.workers = [
        WorkerStatus(0, "running", 4711, 2, 0, 0, 0.0, {}, 90, ["werk/halle/0", "werk/halle/2"]),
        WorkerStatus(1, "waiting", None, 0, -9, 0, 0.0, {}),
    ]
    with shown(browser, run) as page:
        answers(page)
        found = [each.split("\t") for each in page.locator("#workers tbody tr").all_inner_texts()]

    assert [[*row[:2], *row[3:]] for row in found] == [
        ["0", "running, process 4711", "2", "werk/halle/0, werk/halle/2"],
        ["1", "waiting, exit code -9", "0", "none"],
    ]


def test_rates_and_sums_are_of_the_route_that_is_chosen(browser: Browser) -> None:
    one, other = RouteStatus("one", state="running"), RouteStatus("other", state="running")
    run = Run(one, other)
    taken = run._tree

    def growing(show: Any) -> dict[str, Any]:
        one.read, other.read = int(run.now - 1_700_000_000) * 50, int(run.now - 1_700_000_000) * 2_000
        return taken(show)

    run._tree = growing  # type: ignore[method-assign]
    with shown(browser, run) as page:
        rate = page.locator("figure", has_text="Rate").locator("dd").first
        answers(page, 5)  # a rate is of three seconds
        expect(rate).to_have_text("2,050")
        page.get_by_role("button", name="one", exact=True).click()
        expect(rate).to_have_text("50")
        expect(page.locator("#routes tbody").nth(2)).to_contain_text("2,000")
        expect(page.get_by_role("button", name="one", exact=True)).to_have_attribute("aria-pressed", "true")
        label = page.locator("figure", has_text="Rate").get_by_role("img").last.get_attribute("aria-label")
        assert label is not None and "in 50" in label


def test_the_newest_dead_letters_have_what_was_asked_for(browser: Browser) -> None:
    for show, words in (("codes", 0), ("words", 1), ("payloads", 1)):
        route = RouteStatus("r", newest=with_newest((), letters(25, "the server said no"), 1_700_000_000.0))
        route.count("dead_letters", "IFX609", 25)
        with shown(browser, Run(route, show=show)) as page:
            rows = page.locator("#newest tbody tr")
            expect(rows).to_have_count(10)
            text = rows.first.inner_text()
            assert ["werk/halle/2@24" in text, "IFX609" in text, "status 400" in text] == [True] * 3
            assert text.count("the server said no") == text.count("line x=1") == text.count("/points/fields/x") == words
            assert ('{"x": 1}' in text) == (show == "payloads")
            expect(page.locator("#newest-note")).to_contain_text("" if words else "show: words")


@pytest.mark.parametrize("show", ["codes", "words"])
def test_a_refused_change_is_said_in_words_until_it_is_corrected(browser: Browser, show: str) -> None:
    run = Run(RouteStatus("r", state="idle"), show=show)
    banner = "#refused"
    with shown(browser, run) as page:
        answers(page)
        expect(page.locator(banner)).not_to_be_visible()
        run.status.configuration.since_unix = 1_700_000_000.0
        run.status.configuration.refused = Problem("IFX203", HOSTILE, Location("/a/kilns.yaml", 9, 21), hint="geheim")
        expect(page.locator(banner)).to_be_visible()
        text = page.locator(banner).inner_text()

        assert "Changed documents were refused" in text
        assert "IFX203 at kilns.yaml:9:21, since 2023-11-14 22:13:20 UTC: " in text
        assert (HOSTILE in text, "geheim" in page.content()) == (show == "words", show == "words")
        assert show == "words" or CODES["IFX203"].title in text
        assert page.title() == "▲ change refused – iggyflux"
        assert page.evaluate(PALE) == []
        run.status.configuration.refused = None
        expect(page.locator(banner)).not_to_be_visible()


def test_what_comes_from_the_pipeline_is_text(browser: Browser) -> None:
    """Names, servers, reasons, words, lines and payloads that are markup and script."""
    route = RouteStatus(HOSTILE, About("reader", HOSTILE, HOSTILE, HOSTILE, HOSTILE), "running")
    waiting = RouteStatus("w" + HOSTILE, state="running", is_away=True, reader=ReaderStatus())
    waiting.wait_for(HOSTILE, briefly=HOSTILE)
    stopped = RouteStatus("s" + HOSTILE, state="stopped", error=Stopped("x", code=HOSTILE))
    route.lag = {Partition(HOSTILE, HOSTILE, 0): 1, Partition("__proto__", "constructor", 0): 2}
    for counter in ("retries", "dead_letters"):
        route.count(counter, HOSTILE)
    found = [
        DeadLetter(
            Message(HOSTILE.encode(), HOSTILE, HOSTILE), "m", "h", [Reason(HOSTILE, HOSTILE, HOSTILE, line=HOSTILE)]
        )
    ]
    route.newest = with_newest((), found, 1.0)
    with shown(browser, Run(route, waiting, stopped, show="payloads")) as page:
        answers(page)

        assert page.locator("img").count() == page.locator("script").count() == 1
        assert "broken" not in page.title()
        body = page.locator("body").inner_text()
        assert body.count(HOSTILE) >= 14, "else the test shows little of it"
        page.get_by_role("button", name=HOSTILE, exact=True).click()
        expect(page.locator("#of")).to_have_text(HOSTILE)


def test_ten_thousand_partitions_and_hundreds_of_routes_make_a_page_of_bounded_size(browser: Browser) -> None:
    routes = [RouteStatus(f"r{number}", state="running") for number in range(250)]
    routes[0].lag = {Partition("s", "t", number): number for number in range(10_000)}
    routes[249].state = "stopped"
    with shown(browser, Run(*routes)) as page:
        expect(page.locator("#routes tfoot")).to_have_text("and 150 routes more, of which none is in trouble")
        expect(page.locator("#partitions tfoot")).to_contain_text("and 9,988 partitions more")
        assert page.locator("#routes tbody").count() == 101
        assert page.locator("#partitions tbody tr").count() == 12
        assert "r249" in page.locator("#routes").inner_text()


# --- states ---


def test_a_run_that_begins_and_one_that_began_anew(browser: Browser) -> None:
    run = Run()
    with shown(browser, run) as page:
        expect(page.locator("#routes tfoot")).to_have_text("The run begins: there is no route yet.")
        run.status.routes.append(RouteStatus("r", state="starting", read=5_000))
        expect(page.locator("#routes td.state")).to_have_text("○ starting")
        expect(page.locator("#routes tfoot")).to_have_count(0)
        answers(page)
        run.status.routes[0].read, run.status.started_unix = 3, run.now
        expect(page.locator("#plots .nothing").first).to_be_visible()
        expect(page.locator("#plots .nothing").first).not_to_be_visible()


def test_a_run_that_ended_is_said_with_the_age_of_what_is_shown(browser: Browser) -> None:
    run = Run(RouteStatus("r", state="running"))
    with serving(run.site) as (server, _), opened(browser, server.url, allowed="net::ERR") as page:
        answers(page)
        server.close()

        expect(page.locator("#notice")).to_contain_text(
            "The run has ended, or cannot be reached. What is shown is from "
        )
        expect(page.locator("#link")).to_contain_text("no answer, data 7 s old")
        expect(page.locator("#routes td.state")).to_have_text("● running")
        assert page.title() == "▲ no answer – iggyflux"


@pytest.mark.parametrize("token", ["Gh2-kLm9", "tökên ✓"])
def test_a_token_is_asked_for_and_kept_by_the_tab_alone(browser: Browser, token: str) -> None:
    run = Run(RouteStatus("geheim", state="running"), token=token)
    with shown(browser, run, allowed="401") as page:
        expect(page.locator("#login")).to_be_visible()
        assert "geheim" not in page.content()
        page.get_by_label("Token").fill("another")
        page.keyboard.press("Enter")
        expect(page.locator("#login-fault")).to_have_text("This token is not the one of the run.")
        page.get_by_label("Token").fill(token)
        page.keyboard.press("Enter")
        expect(page.get_by_role("button", name="geheim")).to_be_visible()
        expect(page.locator("#login")).not_to_be_visible()

        assert token not in page.content() + page.url
        assert page.evaluate("[localStorage.length, document.cookie, sessionStorage.length]") == [0, "", 1]
        page.reload()
        expect(page.get_by_role("button", name="geheim")).to_be_visible()
        page.get_by_role("button", name="Forget the token").click()
        expect(page.locator("#login")).to_be_visible()
        assert page.evaluate("sessionStorage.length") == 0


# --- how it looks ---

CUT = """() => [...document.querySelectorAll(
    "#routes .number, dd, .list td.number, #readers td, #link .words, h3, #routes .state")]
  .filter(each => each.checkVisibility() && getComputedStyle(each).display !== "inline")
  .filter(each => each.scrollWidth > each.clientWidth + 1)
  .map(each => each.textContent)"""
OUTSIDE = """() => [...document.querySelectorAll(".panel *")]
  .filter(each => each.checkVisibility() && !each.closest(".wide"))
  .filter(each => each.getBoundingClientRect().right > each.closest(".panel").getBoundingClientRect().right)
  .map(each => each.outerHTML.slice(0, 99))"""
PALE = """() => {
  const rgb = text => (text.match(/[\\d.]+/g) ?? []).map(Number)
  const linear = part => (part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
  const light = colour => colour.slice(0, 3).map(part => linear(part / 255))
    .reduce((sum, part, at) => sum + part * [0.2126, 0.7152, 0.0722][at], 0)
  const behind = element => {
    const colour = rgb(getComputedStyle(element).backgroundColor)
    return colour[3] !== 0 || !element.parentElement ? colour : behind(element.parentElement)
  }
  const hasText = element => [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim())
  return [...document.querySelectorAll("body *")].filter(each => hasText(each) && each.checkVisibility()).map(each => {
    const style = getComputedStyle(each)
    const both = [light(rgb(each.closest("svg") ? style.fill : style.color)), light(behind(each))]
    return [(Math.max(...both) + 0.05) / (Math.min(...both) + 0.05), each.textContent.slice(0, 40)]
  }).filter(([ratio]) => ratio < 4.5)
}"""
PLACES = """() => [...document.querySelectorAll("h2, h3, .panel, .plot, thead th, #routes tbody")].map(each => {
  const box = each.getBoundingClientRect(); return [Math.round(box.x), Math.round(box.y), Math.round(box.width)] })"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [800, 1400])
def test_no_number_is_cut_and_no_text_is_pale(browser: Browser, width: int, scheme: Any) -> None:
    run = Run(*busy(), show="words")
    with shown(browser, run, viewport={"width": width, "height": 900}, color_scheme=scheme) as page:
        answers(page, 3)

        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(CUT) == []
        assert page.evaluate(OUTSIDE) == []
        assert page.evaluate(PALE) == []


@pytest.mark.parametrize("width", [800, 1400])
def test_nothing_moves_while_numbers_grow_and_states_change(browser: Browser, width: int) -> None:
    route = RouteStatus("r", About(sink="http://influx:8086"), "running")
    route.lag = {Partition("s", "t", 0): 0}
    other = RouteStatus("other", state="running")
    with shown(browser, Run(route, other), viewport={"width": width, "height": 900}) as page:
        answers(page)
        before = page.evaluate(PLACES)
        route.read = route.delivered = 98_765_432_109
        route.lag = {Partition("s", "t", 0): 12_345_678_901}
        route.is_away, route.backoff_seconds, route.in_flight = True, 29.3, 128
        route.count("retries", "http_503", 7_654_321)
        route.request_seconds.observe(99)
        route.wait_for("x", briefly="http://influx:8086: connection_lost")
        expect(page.locator("#routes td.state").nth(1)).to_have_text("▲ running")
        answers(page)

        assert page.evaluate(PLACES) == before


# --- its arithmetic ---


def quantile(bounds: list[float], counts: list[int], share: float) -> float | None:
    """Return what Prometheus' `histogram_quantile` does."""
    wanted, below, low = sum(counts) * share, 0, 0.0
    if not wanted:
        return None
    for bound, count in zip(bounds, counts, strict=False):
        if count and below + count >= wanted:
            return low + (bound - low) * (wanted - below) / count
        below, low = below + count, bound
    return bounds[-1]


def test_quantiles_and_numbers_are_right(browser: Browser) -> None:
    """Quantiles as Prometheus has them; a number is its value to three digits, a decimal place, or whole."""
    draw = random.Random(7)
    bounds = [0.005, 0.05, 0.5, 5.0, 30.0]
    cases = [
        ([draw.choice((0, 0, 1, draw.randrange(1000))) for _ in range(6)], draw.choice((0.5, 0.95, 1.0)))
        for _ in range(300)
    ]
    numbers = [draw.choice((1, -1)) * draw.random() * 10 ** draw.randrange(-2, 16) for _ in range(300)] + [
        999_499,
        999_500,
        9_999.6,
    ]
    units = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
    with shown(browser, Run()) as page:
        found = page.evaluate(
            "async ([bounds, cases]) => { const {quantile} = await import('/history.js')\n"
            "return cases.map(([counts, share]) => quantile(bounds, counts, share)) }",
            [bounds, cases],
        )
        texts = page.evaluate("async numbers => numbers.map((await import('/dom.js')).number)", numbers)

    assert found == [pytest.approx(quantile(bounds, counts, share)) for counts, share in cases]
    for value, text in zip(numbers, texts, strict=True):
        digits, _, unit = text.partition(" ")
        assert len(text) <= 8
        allowed = max(abs(value) * 0.0051, 0.5 if abs(value) >= 10 else 0.051)
        assert float(digits.replace(",", "")) * units[unit] == pytest.approx(value, abs=allowed)


# --- a real run ---

WRITER = """\
iggyflux: 1
kind: writer
name: {name}
from: {{stream: garden, topic: {name}}}
points:
  measurement: {{const: soil}}
  tags: {{bed: bed}}
  fields: {{wet: {{expr: wet, type: {type}}}}}
  timestamp: {{expr: at, format: unix_s}}
"""
READER = """\
iggyflux: 1
kind: reader
name: back
from: {measurement: soil}
to: {stream: garden, topic: history}
cursor: {start: beginning, settle: 1s, overlap: 2s}
"""
PIPELINE = """\
iggyflux: 1
from: log:data
to: influxdb
influxdb: {{url: "{url}", org: org, bucket: test, token: canary-5Hq, flavor: v2, linger: 10ms}}
telemetry: {{show: words}}
run: [{{mapping: numbers.yaml}}, {{mapping: texts.yaml}}, {{mapping: back.yaml, from: influxdb, to: "log:data"}}]
"""


def test_a_run_with_load_dead_letters_an_outage_and_a_reader_is_seen(browser: Browser, tmp_path: Path) -> None:
    """Begun by the command in docs/watching.md, with a free port."""
    with SimServer(2, token="canary-5Hq") as sim:
        (tmp_path / "numbers.yaml").write_text(WRITER.format(name="numbers", type="float"))
        (tmp_path / "texts.yaml").write_text(WRITER.format(name="texts", type="string"))
        (tmp_path / "back.yaml").write_text(READER)
        (tmp_path / "pipeline.yaml").write_text(PIPELINE.format(url=sim.url))
        log = Log.open(tmp_path / "data", create=True)
        log.create_topic("garden", "history")
        log.create_topic("garden", "texts")
        append(log, "numbers", 500, "1.5")
        [written] = [block["text"] for block in blocks(DOCS / "watching.md") if block["kind"] == "sh"]
        command = [sys.executable, "-m", *shlex.split(written.replace(":9273", ":0"))]
        running = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
        assert running.stderr is not None
        lines = iter(running.stderr.readline, "")
        url = next(line for line in lines if "telemetry.listening" in line).partition("url=")[2].strip()
        with opened(browser, url, allowed="net::ERR") as page:
            expect(page.locator("#routes tbody")).to_have_count(4)
            expect(page.locator("#readers tbody tr")).to_contain_text(" UTC")
            append(log, "texts", 3, '"<b>wet</b>"')
            expect(page.locator("#newest tbody tr")).to_have_count(3)
            expect(page.locator("#newest tbody tr").first).to_contain_text(
                'input field "wet" on measurement "soil" is type string'
            )
            expect(page.locator("#newest tbody tr").first).to_contain_text('wet="<b>wet</b>"')
            expect(page.locator("#letters tbody tr")).to_contain_text("IFX609 field type conflict")
            arm(sim, [{"kind": "status", "status": 503, "times": None, "on": "write"}])
            append(log, "numbers", 500, "2.5")
            expect(page.locator("#routes tbody.warn .under").first).to_contain_text("http_503; tries again in ")
            expect(page.locator("#retries tbody tr")).to_contain_text("http_503")
            expect(page.locator("#partitions tbody tr", has_text="numbers")).to_contain_text("500")
            arm(sim, None)
            expect(page.locator("#partitions tbody tr", has_text="numbers").locator("td").last).to_have_text("0")
            expect(page.locator("#routes tbody.warn")).to_have_count(0)
            assert "canary" not in page.content()
            running.send_signal(signal.SIGINT)
            expect(page.locator("#notice")).to_contain_text("The run has ended")
        assert running.wait(60) == 0
        running.stderr.close()
        log.close()


def append(log: Log, topic: str, count: int, value: str) -> None:
    payloads = [f'{{"bed": "b{at % 7}", "wet": {value}, "at": {1_700_000_000 + at}}}' for at in range(count)]
    log.append("garden", topic, [Message(each.encode()) for each in payloads])


def arm(sim: SimServer, faults: list[dict[str, Any]] | None) -> None:
    """Arm faults of the simulator, or take all of them away."""
    headers = {"Authorization": "Token canary-5Hq", "Content-Type": "application/json"}
    body = None if faults is None else json.dumps(faults).encode()
    method = "DELETE" if faults is None else "POST"
    request = urllib.request.Request(f"{sim.url}/__sim__/faults", body, headers, method=method)
    urllib.request.urlopen(request, timeout=60).close()
