"""The playground in a real browser: Debian's Chromium, driven by Playwright."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect
from playwright.sync_api import TimeoutError as PlaywrightTimeout

from tests.browser import PATIENCE_MS, launched
from tests.shell import process

pytestmark = pytest.mark.slow

TEXT = """\
iggyflux: 1
kind: writer
from: {stream: plant, topic: pumps}
points:
  measurement: {const: pump}
  tags: {class: "klass"}
  fields: {bar: "pressure"}
  timestamp: {expr: "at", format: unix_s}
"""
SAMPLES = "".join(f'{{"klass": "{"ab"[n % 2]}", "pressure": {2 + n / 4}, "at": {1767225600 + n}}}\n' for n in range(6))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a mapping, its samples, and a log."""
    made = tmp_path_factory.mktemp("playground")
    (made / "pumps.yaml").write_text(TEXT)
    (made / "pumps.ndjson").write_text(SAMPLES)
    process("log", "append", "data", "plant/pumps", stdin=SAMPLES.encode(), cwd=made)
    return made


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    """The URL of a playground in that folder."""
    command = [sys.executable, "-m", "iggyflux", "playground", "pumps.yaml", "--from", "log:data"]
    running = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert running.stdout is not None
    yield running.stdout.readline().strip()
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 0
    assert "Traceback" not in err


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched("the playground") as found:
        yield found


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    """The page as it begins; a test fails if something was refused or raised in it."""
    context = browser.new_context(viewport={"width": 1280, "height": 860})
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    expect.set_options(timeout=PATIENCE_MS)
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on(
        "console",
        lambda message: faults.append(f"{message.text} {message.location}") if message.type == "error" else None,
    )
    requested: list[str] = []
    page.on("request", lambda request: requested.append(request.url))
    page.goto(address)
    expect(page.locator("#view tbody tr")).to_have_count(6)
    yield page
    context.close()
    base = address.partition("#")[0]
    assert [fault for fault in faults if "status of 409" not in fault] == []  # a refusal is shown, and logged so
    assert [url for url in requested if not url.startswith((base, "data:", "blob:"))] == []


def mapping_text(page: Page) -> str:
    return "\n".join(page.locator("#mapping .cm-line").all_inner_texts())


PLACE = """(line, word) => {
  const walker = document.createTreeWalker(line, NodeFilter.SHOW_TEXT)
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const at = node.data.indexOf(word)
    if (at < 0) continue
    const range = document.createRange()
    range.setStart(node, at)
    range.setEnd(node, at + word.length)
    const box = range.getBoundingClientRect()
    return [box.x + box.width / 2, box.y + box.height / 2]
  }
}"""


def place(page: Page, line: str, word: str) -> tuple[float, float]:
    """Return where a word in a line of the mapping is on the screen."""
    x, y = page.locator("#mapping .cm-line", has_text=line).first.evaluate(PLACE, word)
    return x, y


def write(page: Page, line: str, old: str, new: str) -> None:
    """Select a word in a line of the mapping, and type another one."""
    page.mouse.dblclick(*place(page, line, old))
    page.keyboard.type(new)


PASTE = """(editor, text) => {
  const clipboardData = new DataTransfer()
  clipboardData.setData("text/plain", text)
  editor.dispatchEvent(new ClipboardEvent("paste", {clipboardData, bubbles: true, cancelable: true}))
}"""


def paste(page: Page, samples: str) -> None:
    """Paste other samples."""
    editor = page.locator("#samples .cm-content")
    editor.click()
    page.keyboard.press("Control+a")
    editor.evaluate(PASTE, samples)


def test_points_follow_what_is_typed(page: Page) -> None:
    write(page, "measurement", "pump", "pumps_of_the_plant")

    expect(page.locator("#view h3")).to_contain_text("pumps_of_the_plant")
    expect(page.locator("#counts")).to_contain_text("6 lines")


def test_a_mistake_is_underlined_and_its_fix_is_one_key_away(page: Page) -> None:
    write(page, "timestamp", "timestamp", "timestmap")
    mark = page.locator("#mapping .cm-lintRange-error")
    expect(mark).to_have_text("timestmap")
    expect(page.locator("#problems-button")).to_have_text("1 error")
    expect(page.locator("#view")).to_contain_text("The mapping has errors")
    page.keyboard.press("F8")
    page.get_by_role("button", name="write timestamp").first.click()

    expect(page.locator("#problems-button")).to_have_text("no problems")
    expect(page.locator("#view tbody tr")).to_have_count(6)
    assert "timestamp: {expr" in mapping_text(page)


def test_fixes_are_listed_and_applied_together(page: Page) -> None:
    write(page, "bar:", "pressure", "presure")
    page.locator("#problems-button").click()
    expect(page.locator("#view li", has_text="no sample has a member presure")).to_be_visible()
    page.locator("#fix-button").click()

    expect(page.locator("#problems-button")).to_have_text("no problems")
    assert 'bar: "pressure"' in mapping_text(page)


def test_members_of_the_samples_are_proposed_and_explained(page: Page) -> None:
    page.mouse.dblclick(*place(page, "bar:", "pressure"))
    page.keyboard.press("Backspace")
    page.keyboard.press("Control+Space")
    proposals = page.locator(".cm-tooltip-autocomplete li")
    expect(proposals.filter(has_text="klass")).to_be_visible()
    page.keyboard.type("pres")
    expect(proposals.first).to_contain_text("pressure")
    for _ in range(20):  # a list that is drawn anew takes neither a click nor a key, and may close
        with suppress(PlaywrightTimeout):
            proposals.first.click(timeout=500)
        if "pressure" in mapping_text(page):
            break
        page.keyboard.press("Control+Space")
    expect(page.locator("#view tbody tr")).to_have_count(6)
    explained = page.locator(".explained", has_text="member pressure")
    for _ in range(20):  # what is asked before the text is sent is about the text before
        page.mouse.move(*place(page, "bar:", "pressure"))
        with suppress(PlaywrightTimeout):
            explained.wait_for(timeout=2000)
            break
        page.mouse.move(1, 1)

    expect(explained).to_be_visible()
    expect(page.locator(".explained li").first).to_have_text("2.0")


def test_every_view_shows_what_comes_of_the_samples(page: Page) -> None:
    shown = {
        "lines": "pump,class=a bar=2.0 1767225600000000000",
        "series": "6 points in 2 series",
        "failures": "No sample fails.",
        "problems": "The mapping has no problems.",
    }
    for view, text in shown.items():
        page.locator(f"#tab-{view}").click()
        expect(page.locator("#view")).to_contain_text(text)
    page.locator("#tab-plots").click()
    expect(page.locator("#view polyline")).to_have_count(2)
    page.locator("#tab-answers").click()
    expect(page.locator("#view section.ok")).to_have_count(3)
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#tab-failures")).to_be_focused()


def test_the_gallery_brings_a_mapping_with_samples_and_undo_brings_back(page: Page) -> None:
    page.locator("#gallery-button").click()
    page.get_by_role("button", name="zigbee2mqtt").click()
    expect(page.locator("#view h3")).to_contain_text("zigbee")
    page.locator("#mapping .cm-content").click()
    page.keyboard.press("Control+z")

    expect(page.locator("#mapping")).to_contain_text("measurement: {const: pump}")


def test_pasted_samples_become_a_mapping_and_an_example(page: Page) -> None:
    paste(
        page,
        '{"lambda": 1.5, "device": "d1", "ts": 1767225600000}\n{"lambda": 2, "device": "d2", "ts": 1767225601000}\n',
    )
    page.locator("#tab-answers").click()
    page.get_by_role("button", name="Infer mapping").click()
    expect(page.locator("#mapping")).to_contain_text("Inferred by")
    expect(page.locator("#view tbody tr")).to_have_count(2)
    page.locator("#samples .cm-line").first.click()
    page.get_by_role("button", name="Save as example").click()
    expect(page.locator("#keep-name")).to_have_value("sample 1 makes 1 point")
    page.locator("#keep-name").fill("the first lambda")
    page.keyboard.press("Enter")

    expect(page.locator("#mapping")).to_contain_text("name: 'the first lambda'")
    expect(page.locator("#status")).to_have_text("sample 1 is an example now")
    expect(page.locator("#problems-button")).to_have_text("no problems")


def test_messages_of_a_topic_are_taken(page: Page) -> None:
    page.locator("#topic-button").click()
    page.locator("#topic-last").fill("2")
    page.get_by_role("button", name="Take them").click()

    expect(page.locator("#view tbody tr")).to_have_count(2)
    expect(page.locator("#samples")).to_contain_text('"offset":5')


def test_the_file_is_saved_and_opened_again(page: Page, folder: Path) -> None:
    write(page, "measurement", "pump", "pumpe")
    page.keyboard.press("Control+s")
    expect(page.locator("#status")).to_have_text("saved pumps.yaml")
    assert (folder / "pumps.yaml").read_text() == TEXT.replace("pump}", "pumpe}")
    (folder / "pumps.yaml").write_text(TEXT)
    write(page, "measurement", "pumpe", "other")
    page.keyboard.press("Control+s")
    expect(page.locator("#status")).to_contain_text("IFX525")
    page.locator("#open-button").click()
    page.get_by_role("button", name="pumps.yaml").click()

    expect(page.locator("#mapping")).to_contain_text("{const: pump}")
    assert (folder / "pumps.yaml").read_text() == TEXT


def test_a_mapping_in_toml_is_inferred_and_saved(page: Page, folder: Path) -> None:
    page.locator("#gallery-button").click()
    page.get_by_role("button", name="trades").click()
    expect(page.locator("#view h3").first).to_contain_text("trade")
    page.locator("#format").select_option("toml")
    page.get_by_role("button", name="Infer mapping").click()
    expect(page.locator("#mapping")).to_contain_text("[from]")
    page.locator("#save-button").click()
    page.locator("#save-name").fill("trades.toml")
    page.locator("#save-form button[type=submit]").click()
    expect(page.locator("#status")).to_have_text("saved trades.toml")

    assert process("test", "trades.toml", cwd=folder).code == 0
    (folder / "trades.toml").unlink()


def test_it_is_used_by_the_keyboard_and_its_theme_is_kept(page: Page) -> None:
    page.locator("#mapping .cm-content").focus()
    page.keyboard.press("Escape")
    page.keyboard.press("Tab")
    expect(page.locator("#mapping .cm-content")).not_to_be_focused()
    page.locator("#theme-button").focus()
    page.keyboard.press("Enter")
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    background = page.locator("body").evaluate("body => getComputedStyle(body).backgroundColor")
    assert sum(map(int, re.findall(r"\d+", background))) < 3 * 64
    page.reload()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")


@pytest.mark.parametrize("width", [1280, 800, 480])
def test_nothing_is_wider_than_the_window(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    for view in ("points", "answers", "plots"):
        page.locator(f"#tab-{view}").click()
        assert page.locator("html").evaluate("html => html.scrollWidth <= html.clientWidth")


def test_markup_in_samples_is_shown_and_not_interpreted(page: Page) -> None:
    paste(page, '{"klass": "<img src=x onerror=alert(1)>", "pressure": 1, "at": 1767225600}\n')

    expect(page.locator("#view td.tag").first).to_have_text("<img src=x onerror=alert(1)>")
    assert page.locator("#view img").count() == 0


def test_a_page_without_the_token_shows_nothing(browser: Browser, address: str) -> None:
    page = browser.new_page()
    page.goto(address.partition("#")[0])

    expect(page.locator("#status")).to_contain_text("open the URL that the command printed")
    assert "pump" not in page.locator("body").inner_text()
    page.close()
