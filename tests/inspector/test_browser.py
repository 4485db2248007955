"""The inspector in a real browser: no error on any page, live rows, and all of it by keyboard alone."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest

from tests.inspector.conftest import PRIVATE, ROOM
from tests.inspector.page_checks import AXE, needs_axe
from tests.support.process import Process, whereby_trigger
from tests.support.programs import write
from tests.support.whereby import deliver
from whereby_trigger.testing import webhook

pytest.importorskip("playwright", reason="playwright is not installed: pip install playwright")
from playwright.sync_api import Locator, Page, Playwright, Route, expect, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed: apt-get install chromium")

TOKEN = "a-token-of-enough-characters"
PROGRAM = """
from whereby_trigger import Trigger, is_human

trigger = Trigger()


@trigger.when("room.client.joined")
def two_people(webhook):
    return is_human(webhook) and webhook.data.humans >= 2


@trigger.assistant
async def stay(session):
    await session.ended.wait()
"""


class Served:
    def __init__(self, process: Process) -> None:
        self.process = process
        self.webhooks = f"http://127.0.0.1:{process.port()}/"
        self.url = "http" + process.line("inspector at").split("inspector at http")[1].split('"')[0].strip()

    def send(self, id: str, type: Any = "room.client.joined", **fields: Any) -> None:
        named = {"display_name": PRIVATE[0]} if type.startswith("room.client") else {}
        deliver(self.webhooks, webhook(type, id=id, room_name="/visit-1", subdomain="acme", **named, **fields).raw)
        self.process.line(id)


@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as playwright:
        yield playwright


@pytest.fixture(scope="module")
def browser(playwright: Playwright) -> Iterator[Any]:
    browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
    yield browser
    browser.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Page]:
    """Yield a page whose console must stay silent."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.set_default_timeout(20_000)
    yield page
    context.close()
    assert said == []


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    write(tmp_path, PROGRAM)
    options = ("start", "--host", "127.0.0.1", "--port", "0", "--inspector", "127.0.0.1:0", "--stop-grace", "1")
    with Process(whereby_trigger(*options), cwd=tmp_path) as process:
        yield Served(process)


def counts(humans: int) -> dict[str, Any]:
    return {"num_clients": humans, "num_clients_by_role_name": {"visitor": humans}}


def test_each_page_renders_at_each_width_without_scrolling_sideways(served: Served, page: Page) -> None:
    page.goto(served.url)
    for width in (320, 1440):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.goto("about:blank")
    long = "two-" + "x" * 120
    served.send("one", **counts(1))
    served.send(long, **counts(2))
    assert httpx.post(served.webhooks, content=b"{}").status_code == 400
    room = urlencode({"key": ROOM})
    paths = ["", "?state=failed", "?since=never", "rooms", f"room?{room}", "webhook?id=one", f"webhook?id={long}"]
    paths += ["refusals", "health", f"confirm?action=stop&{room}", f"confirm?action=ask&id={long}"]
    for path in paths:
        page.goto(served.url + path)
        for width in (320, 1440):
            page.set_viewport_size({"width": width, "height": 800})
            assert page.evaluate("document.documentElement.scrollWidth") <= width, f"{path} at {width}"
        expect(page.locator("h1")).to_be_visible()


@needs_axe
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_violation_on_any_page(served: Served, page: Page, scheme: Any) -> None:
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    found = []
    page.goto(served.url)
    found += violations(page, "the empty page")
    served.send("one", **counts(1))
    # The page is reloading now, which would cancel another navigation.
    expect(page.locator('tr[data-id="one"]')).to_be_visible()
    served.send("two", **counts(2))
    refused = httpx.post(served.webhooks, content=b"{}")
    assert refused.status_code == 400
    room = urlencode({"key": ROOM})
    for path in ("", "rooms", f"room?{room}", "webhook?id=two", "refusals", "health", f"confirm?action=stop&{room}"):
        page.goto(served.url + path)
        found += violations(page, path)
    page.get_by_role("button", name="Stop assistant").press("Enter")
    expect(page.get_by_role("status")).to_contain_text("asked to leave")
    found += violations(page, "after a stop")
    assert found == []


def violations(page: Page, path: str) -> list[str]:
    """Return what axe finds on a page, in words. It is not part of the page, whose policy would forbid it."""
    page.evaluate(AXE.read_text())
    found = page.evaluate("axe.run().then((results) => results.violations)")
    return [
        f"{path}: {one['id']}: {node['html'][:200]}: {node['failureSummary']}" for one in found for node in one["nodes"]
    ]


def test_a_delivery_appears_within_a_second_and_pausing_holds_it_back(served: Served, page: Page) -> None:
    served.send("one", **counts(1))
    page.goto(served.url)
    expect(page.locator("#live-state")).to_have_text("Live")
    served.send("warm", **counts(1))
    expect(page.locator('tr[data-id="warm"]')).to_be_visible()
    began = time.monotonic()
    deliver(served.webhooks, webhook("room.client.joined", id="new", room_name="/visit-1", subdomain="acme").raw)
    page.locator('tr[data-id="new"]').wait_for()
    assert time.monotonic() - began < 1.0
    page.get_by_role("button", name="Pause").press("Enter")
    served.send("held-back", **counts(1))
    expect(page.locator("#live-state")).to_contain_text("Paused, 1 new delivery")
    assert page.locator('tr[data-id="held-back"]').count() == 0
    page.get_by_role("button", name="Resume").press("Space")
    expect(page.locator('tr[data-id="held-back"]')).to_be_visible()


def test_a_webhook_has_one_row_whatever_its_id(served: Served, page: Page) -> None:
    served.send("sha256:odd id/50%", **counts(1))
    page.goto(served.url)
    served.send("two", **counts(1))
    # The first news of the page, which names the rows that it has, comes before that.
    expect(page.locator('tr[data-id="two"]')).to_be_visible()
    assert page.locator("#rows tr").count() == 2


def test_a_row_goes_when_its_webhook_leaves_the_state_that_is_shown(tmp_path: Path, page: Page) -> None:
    go = tmp_path / "go"
    wait = f"    while not Path({str(go)!r}).exists():\n        time.sleep(0.01)\n    return"
    write(tmp_path, "import time\nfrom pathlib import Path\n" + PROGRAM.replace("    return", wait))
    options = ("start", "--host", "127.0.0.1", "--port", "0", "--inspector", "127.0.0.1:0")
    with Process(whereby_trigger(*options), cwd=tmp_path) as process:
        served = Served(process)
        deliver(served.webhooks, webhook("room.client.joined", id="slow").raw)
        page.goto(f"{served.url}?state=pending")
        row = page.locator('tr[data-id="slow"]')
        expect(row).to_be_visible()
        expect(page.locator("#live-state")).to_have_text("Live")
        go.touch()
        expect(row).to_have_count(0)
        page.goto("about:blank")


def test_the_page_that_teaches_shows_the_first_delivery_when_it_comes(served: Served, page: Page) -> None:
    page.goto(served.url)
    expect(page.locator("h2").first).to_have_text("Nothing has arrived yet")
    expect(page.locator("#live-state")).to_have_text("Live")
    served.send("the-first", **counts(1))
    expect(page.locator('tr[data-id="the-first"]')).to_be_visible()


def test_the_first_delivery_of_all_calls_nobody_back_who_is_on_the_way_to_another_page(
    served: Served, page: Page
) -> None:
    page.goto(served.url)
    expect(page.locator("#live-state")).to_have_text("Live")
    # Show when the page has received the delivery: nothing can be evaluated in a page that is being left.
    page.evaluate(
        """() => {
            const source = new EventSource(document.querySelector("[data-follow]").dataset.follow);
            source.onmessage = () => fetch("static/icon.svg").then(() => fetch("static/icon.svg?heard"));
        }"""
    )
    asked: list[Route] = []
    page.route("**/health", lambda route: asked.append(route))
    with page.expect_request("**/health"):
        page.get_by_role("link", name="Health").click(no_wait_after=True)
    with page.expect_request("**/icon.svg?heard"):
        served.send("the-first", **counts(1))
    asked[0].continue_()
    expect(page.locator("h1")).to_have_text("Health")


def press_on(page: Page, there: Locator, key: str = "Enter") -> None:
    """Press a key on an element, reached by Tab alone, as without a mouse."""
    expect(there).to_be_visible()
    for _ in range(60):
        if there.evaluate("(element) => element === document.activeElement"):
            return page.keyboard.press(key)
        page.keyboard.press("Tab")
    raise AssertionError(f"Tab does not lead to {there}")


def test_filters_reveal_replay_and_stop_work_by_keyboard_alone(served: Served, page: Page) -> None:
    served.send("alone", **counts(1))
    served.send("together", **counts(2))
    page.goto(served.url)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to content"
    press_on(page, page.get_by_label("State"), "f")
    page.keyboard.type("ired")
    press_on(page, page.get_by_role("button", name="Filter"), "Space")
    expect(page.locator("#rows tr")).to_have_count(1)
    press_on(page, page.locator("#rows tr a").first)
    expect(page.locator("h1")).to_have_text("room.client.joined")
    assert PRIVATE[0] not in page.content()
    press_on(page, page.get_by_role("button", name="Reveal"))
    expect(page.locator("pre").first).to_contain_text(PRIVATE[0])
    page.goto(f"{served.url}webhook?id=alone")
    press_on(page, page.get_by_role("link", name="Ask again, without effect…"))
    press_on(page, page.get_by_role("button", name="Ask again"), "Space")
    expect(page.get_by_role("status")).to_contain_text("It would be skipped now: predicate two_people returned False.")
    press_on(page, page.get_by_role("link", name="Replay…"))
    press_on(page, page.get_by_role("button", name="Replay"))
    expect(page.get_by_role("status")).to_contain_text("decided again")
    page.goto(f"{served.url}room?{urlencode({'key': ROOM})}")
    press_on(page, page.get_by_role("link", name="Stop assistant…"))
    press_on(page, page.get_by_role("button", name="Stop assistant"))
    expect(page.get_by_role("status")).to_contain_text("asked to leave")
    served.process.line("is stopped")


def test_filters_reveal_replay_and_stop_work_by_mouse(served: Served, page: Page) -> None:
    served.send("alone", **counts(1))
    served.send("together", **counts(2))
    page.goto(served.url)
    page.get_by_label("State").select_option("fired")
    page.get_by_role("button", name="Filter").click()
    expect(page.locator("#rows tr")).to_have_count(1)
    page.locator("#rows tr a").first.click()
    page.get_by_role("button", name="Reveal").click()
    expect(page.locator("pre").first).to_contain_text(PRIVATE[0])
    page.get_by_role("link", name="Replay…").click()
    page.get_by_role("button", name="Replay").click()
    expect(page.get_by_role("status")).to_contain_text("decided again")
    page.goto(f"{served.url}room?{urlencode({'key': ROOM})}")
    page.get_by_role("link", name="Stop assistant…").click()
    page.get_by_role("button", name="Stop assistant").click()
    expect(page.get_by_role("status")).to_contain_text("asked to leave")
    served.process.line("is stopped")
    expect(page.locator(".happenings")).to_contain_text("by hand, in the inspector: the assistant is asked to leave")


def test_each_mark_of_the_picture_can_be_focused_and_leads_to_its_words(served: Served, page: Page) -> None:
    served.send("two", **counts(2))
    page.goto(f"{served.url}room?{urlencode({'key': ROOM})}")
    mark = page.locator("svg.picture a.mark").first
    mark.focus()
    words = mark.get_attribute("aria-label")
    expect(page.locator("#explained")).to_have_text(str(words))
    bar = page.locator("svg.picture a.bar").first
    bar.hover()
    expect(page.locator("#explained")).to_have_text(str(bar.get_attribute("aria-label")))
    mark.focus()
    page.keyboard.press("Enter")
    expect(page.locator(".happenings li:target .words")).to_have_text(str(words))


def test_a_login_works_by_keyboard_by_mouse_and_without_javascript(browser: Any, tmp_path: Path) -> None:
    write(tmp_path, PROGRAM)
    options = ("start", "--host", "127.0.0.1", "--port", "0", "--inspector", "127.0.0.1:0")
    with Process(whereby_trigger(*options), cwd=tmp_path, env={"WHEREBY_TRIGGER_INSPECTOR_TOKEN": TOKEN}) as process:
        served = Served(process)
        served.send("one", **counts(1))
        context = browser.new_context(java_script_enabled=False)
        page = context.new_page()
        page.goto(f"{served.url}webhook?id=one")
        page.set_viewport_size({"width": 320, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= 320
        press_on(page, page.get_by_label("Token"), "n")
        page.keyboard.type("ot the token, but long")
        press_on(page, page.get_by_role("button", name="Log in"), "Space")
        expect(page.get_by_role("alert")).to_contain_text("That is not the token")
        press_on(page, page.get_by_label("Token"), TOKEN[0])
        page.keyboard.type(TOKEN[1:])
        page.keyboard.press("Enter")
        expect(page.locator("h1")).to_have_text("room.client.joined")
        press_on(page, page.get_by_role("button", name="Log out"))
        expect(page.locator("h1")).to_have_text("Log in")
        page.get_by_label("Token").click()
        page.keyboard.type(TOKEN)
        page.get_by_role("button", name="Log in").click()
        expect(page.locator("h1")).to_have_text("Live")
        context.close()
