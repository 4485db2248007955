"""Every page, over both stores: what it shows, and that nothing stored can harm its reader."""

import asyncio
import html
import re
import time
from datetime import datetime
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlencode

import httpx
import pytest

from tests.inspector.conftest import ANSI, BIDI, NASTY_ROOM, PRIVATE, ROOM, SCRIPT, Client, deliver, form_token, run_in
from tests.support.place import Place
from tests.support.until import AT_ONCE
from whereby_trigger import Trigger
from whereby_trigger.inspector import reads
from whereby_trigger.store import Arrival, RefusalCount, RefusalReason, State, Store, Subject, forget
from whereby_trigger.text import utc

pytestmark = pytest.mark.anyio

VOID = {"meta", "link", "input", "br", "use", "path", "rect", "line", "circle"}


class Checked(HTMLParser):
    """Record what is wrong with a page: tags out of order, code in it, content from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.wrong: list[str] = []
        self.headings: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        if tag not in VOID:
            self.open.append(tag)
        if "id" in given:
            self.ids.append(str(given["id"]))
        if tag in ("h1", "h2", "h3"):
            self.headings.append(tag)
        self.wrong += [f"{name} on {tag}" for name in given if name.startswith("on") or name == "style"]
        if tag in ("style", "base", "iframe", "object") or (tag == "script" and not given.get("src")):
            self.wrong.append(f"inline {tag}")
        for name in ("src", "href", "action"):
            if str(given.get(name, "/")).partition(":")[0] in ("http", "https", "javascript", "data"):
                self.wrong.append(f"{name}={given[name]}")

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        if not self.open or self.open.pop() != tag:
            self.wrong.append(f"</{tag}> out of order")


def assert_sound(answer: httpx.Response) -> None:
    """Check that the page is complete, has no code in it, loads nothing from elsewhere, and shows nothing private."""
    assert answer.status_code == 200, answer.text
    page = Checked()
    page.feed(answer.text)
    assert page.wrong == []
    assert page.open == []
    assert page.headings[0] == "h1"
    assert page.headings.count("h1") == 1
    assert len(page.ids) == len(set(page.ids))
    assert len(answer.content) < 150_000
    assert "\x1b" not in answer.text
    assert [name for name in PRIVATE if name in answer.text] == []


async def fill(store: Store) -> None:
    now = time.time()
    await deliver(store, "first", at=now - 90)
    await deliver(store, "failed", at=now - 60, state=State.FAILED, errors=(f"predicate people: {PRIVATE[0]}",))
    await deliver(store, "fired", at=now - 30, state=State.FIRED, humans=2, reason=f"{SCRIPT}{BIDI}{ANSI}")
    await run_in(store, ROOM, "fired", now - 29)
    await deliver(store, f"{SCRIPT}{BIDI}", at=now - 20, room=NASTY_ROOM, type=f"{SCRIPT}{ANSI}", content=b"\xff<b>")
    await deliver(store, "waits", at=now - 10, room=None, state=State.PENDING)
    minute = int(now) // 60 * 60
    await store.add_refusals([RefusalCount(minute, SCRIPT, "r", 401, 3)])


PAGES = [
    "/",
    "/?state=failed&room=visit-1&since=1h",
    "/?room=nowhere",
    "/?" + urlencode({"room": SCRIPT, "type": SCRIPT, "state": SCRIPT, "since": SCRIPT, "until": SCRIPT}),
    "/rooms",
    "/room?" + urlencode({"key": ROOM}),
    "/room?" + urlencode({"key": NASTY_ROOM, "since": "24h"}),
    "/webhook?id=fired",
    "/webhook?id=failed",
    "/webhook?" + urlencode({"id": f"{SCRIPT}{BIDI}"}),
    "/refusals",
    "/health",
    "/confirm?" + urlencode({"action": "replay", "id": f"{SCRIPT}{BIDI}"}),
    "/confirm?" + urlencode({"action": "ask", "id": f"{SCRIPT}{BIDI}"}),
    "/confirm?" + urlencode({"action": "stop", "key": NASTY_ROOM}),
]


@pytest.mark.parametrize("path", PAGES)
async def test_a_page_is_sound_whatever_is_stored(store: Store, place: Place, client: Client, path: str) -> None:
    await fill(store)
    answer = await client(Trigger(store=place.url)).get(path)
    assert_sound(answer)
    assert "\u202e" not in answer.text
    assert "\x1b" not in answer.text
    assert "<script>alert" not in answer.text


async def test_the_page_of_refusals_says_what_to_do_for_every_reason(
    store: Store, place: Place, client: Client
) -> None:
    minute = int(time.time()) // 60 * 60
    await store.add_refusals([RefusalCount(minute, reason, "r", reason.status, 1) for reason in RefusalReason])
    page = (await client(Trigger(store=place.url)).get("/refusals")).text
    told = dict(re.findall(r"<tr><td><b>([^<]*)</b></td>.*?<td>([^<]*)</td></tr>", page))
    assert told.keys() == {html.escape(reason) for reason in RefusalReason}
    assert [reason for reason, what_to_do in told.items() if not what_to_do] == []


async def test_a_quiet_room_with_people_in_it_is_among_the_rooms_of_now(
    store: Store, place: Place, client: Client
) -> None:
    now = time.time()
    await deliver(store, "quiet", at=now - 3600, room="acme.whereby.com/quiet", humans=2)
    later = (Arrival(f"w{n}", "x", ROOM, b"{}", now, State.QUARANTINED) for n in range(reads.LOOKED_AT))
    await asyncio.gather(*map(store.add, later))
    rooms = (await client(Trigger(store=place.url)).get("/api/rooms")).json()["rooms"]
    assert [(room["room"], room["humans"]) for room in rooms] == [("acme.whereby.com/quiet", 2), (ROOM, None)]


async def test_that_not_all_rooms_are_shown_is_said(
    store: Store, place: Place, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser, said = client(Trigger(store=place.url)), "Not all rooms are shown"
    for number in range(3):
        await deliver(store, f"{number}", at=time.time(), room=f"acme.whereby.com/room-{number}")
    for rows, more in ((3, False), (2, True)):
        monkeypatch.setattr(reads, "ROWS", rows)
        answer = (await browser.get("/api/rooms")).json()
        assert (len(answer["rooms"]), answer["more"]) == (rows, more)
        assert (said in (await browser.get("/rooms")).text) is more


async def test_bidirectional_characters_are_shown_as_escapes(store: Store, place: Place, client: Client) -> None:
    await fill(store)
    page = (await client(Trigger(store=place.url)).get("/rooms")).text
    assert "\\u202etxt.exe" in page
    assert "\\x1b[31mred" in page


async def test_the_live_page_shows_decision_and_reason_and_filters_by_each(
    store: Store, place: Place, client: Client
) -> None:
    await fill(store)
    browser = client(Trigger(store=place.url))
    everything = (await browser.get("/")).text
    assert "predicate people returned False" in everything
    assert everything.count("data-id=") == 5
    for query, ids in {
        "state=failed": ["failed"],
        "room=/visit-1": ["fired", "failed", "first"],
        f"room=https://{ROOM}": ["fired", "failed", "first"],
        "type=room.client.joined&state=skipped": ["first"],
        "until=50s": ["failed", "first"],
        "since=50s&room=visit-1": ["fired"],
    }.items():
        page = (await browser.get(f"/?{query}")).text
        assert [part.partition('"')[0] for part in page.split('data-id="')[1:]] == ids, query


async def test_a_search_that_takes_long_says_how_far_back_it_went_and_leads_further(
    store: Store, place: Place, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    await deliver(store, "old", at=now - 2 * 3600, state=State.FAILED)
    await deliver(store, "new", at=now - 5)
    browser = client(Trigger(store=place.url))
    monkeypatch.setattr(reads, "SEARCH_WITHIN", 60.0)
    assert 'data-id="old"' in (await browser.get("/?state=failed")).text
    monkeypatch.setattr(reads, "SEARCH_WITHIN", -1.0)
    path, looks = "/?state=failed", 0
    while 'data-id="old"' not in (page := (await browser.get(path)).text):
        assert "Searched back to" in page
        path = "/?" + html.unescape(
            page.partition("Search further back")[0].rpartition('href="/?')[2].partition('"')[0]
        )
        looks += 1
    assert looks >= 3


async def test_the_room_page_says_in_words_all_that_its_picture_shows(
    store: Store, place: Place, client: Client
) -> None:
    await fill(store)
    page = (await client(Trigger(store=place.url)).get("/room", params={"key": ROOM})).text
    picture, _, words = page.partition("</svg>\n</div>")
    for target in {part.partition('"')[0] for part in picture.split('<a href="#h-')[1:]}:
        assert f'<li id="h-{target}"' in words
    assert picture.count('class="bar run-bad"') == 1
    assert picture.count('class="bar run-on"') == 1
    assert "the assistant failed: raised" in words
    assert "attempt 2 starts on replica" in words
    assert "room.client.joined (2 humans): fired" in words
    assert '<p class="answer">An assistant is in the meeting of ' in page
    assert "People over time: at most 2 humans and 0 bots." in picture


async def test_a_room_page_zooms_by_since_and_until(store: Store, place: Place, client: Client) -> None:
    await fill(store)
    now = time.time()
    browser = client(Trigger(store=place.url))
    page = (await browser.get("/room", params={"key": ROOM, "since": utc(now - 70), "until": utc(now - 40)})).text
    assert "/webhook?id=failed" in page
    assert "/webhook?id=first" not in page
    assert "/webhook?id=fired" not in page


@pytest.mark.parametrize("path", ["/", "/rooms", "/room?since=9d&key=" + ROOM, "/health"])
async def test_a_time_of_another_day_is_shown_with_its_date(
    store: Store, place: Place, client: Client, path: str
) -> None:
    await deliver(store, "then", at=time.time() - 3 * 86400)
    before = datetime.now().astimezone().date()
    page = (await client(Trigger(store=place.url)).get(path)).text
    # The page may be made before midnight.
    today = {before, datetime.now().astimezone().date()}
    undated = []
    for at, shown in re.findall(r'<time datetime="([^"]+)"[^>]*>([^<]*)</time>', page):
        local = datetime.fromisoformat(at).astimezone()
        if local.date() not in today and not shown.startswith(local.strftime("%d %b ")):
            undated.append(shown)
    assert undated == []


async def test_of_a_room_in_which_very_much_happened_a_page_shows_the_newest_and_leads_further(
    store: Store, place: Place, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reads, "SHOWN", 3)
    now = time.time()
    for number in range(6):
        await deliver(store, f"webhook-{number}", at=now - 60 + 10 * number)
    browser = client(Trigger(store=place.url))
    found, asked, complete = list[str](), {"key": ROOM, "since": "1h"}, False
    while not complete:
        room = (await browser.get("/api/room", params=asked)).json()
        entries = [entry for meeting in room["meetings"] for entry in meeting["entries"]]
        assert len(entries) <= 3
        found = [entry["id"] for entry in entries if entry["kind"] == "webhook"] + found
        asked, complete = asked | {"until": room["since"]}, room["complete"]
    assert found == [f"webhook-{number}" for number in range(6)]
    assert "earlier things are left out" in (await browser.get("/room", params={"key": ROOM, "since": "1h"})).text


async def test_a_room_of_which_only_webhooks_are_known_has_a_page_of_any_time(
    store: Store, place: Place, client: Client
) -> None:
    """Who is in a room is not kept for a program that does not ask."""
    await store.add(Arrival("one", "room.session.started", ROOM, b"{}", time.time() - 2 * 86400))
    browser = client(Trigger(store=place.url))
    answer = await browser.get("/room", params={"key": ROOM, "since": "24h"})
    assert (answer.status_code, "its newest one came at" in answer.text) == (200, True)
    assert (await browser.get("/room", params={"key": f"{ROOM}0", "since": "24h"})).status_code == 404


async def test_a_webhook_is_masked_until_it_is_revealed_and_revealing_is_logged_without_the_value(
    store: Store, place: Place, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "whereby_trigger.inspector")
    await fill(store)
    browser = client(Trigger(store=place.url))
    masked = (await browser.get("/webhook?id=failed")).text
    assert [private for private in PRIVATE if private in masked] == []
    assert "visitor" in masked
    assert "newField" in masked
    fields = {"form_token": form_token(masked), "id": "failed"}
    revealed = (await browser.post("/webhook/reveal", data=fields)).text
    assert [private for private in PRIVATE if private not in revealed] == []
    assert "inspector: webhook failed is revealed" in caplog.messages
    assert [private for private in PRIVATE if private in caplog.text] == []
    assert PRIVATE[0] not in (await browser.get("/webhook?id=failed")).text


async def test_a_forgotten_person_is_on_no_page_also_if_all_is_revealed(
    store: Store, place: Place, client: Client
) -> None:
    await fill(store)
    browser = client(Trigger(store=place.url))
    forgotten = await forget(store, Subject(frozenset({PRIVATE[3]})))
    assert forgotten.webhooks > 1
    for id in ("failed", "fired"):
        answer = await browser.get(f"/webhook?id={id}")
        assert_sound(answer)
        assert "what it said of them was removed at" in answer.text
        assert "Replay…" not in answer.text
        fields = {"form_token": form_token(answer.text), "id": id}
        revealed = (await browser.post("/webhook/reveal", data=fields)).text
        assert [private for private in PRIVATE if private in revealed] == []
    assert_sound(await browser.get("/room", params={"key": ROOM}))


async def test_what_an_assistant_wrote_is_hidden_until_it_is_revealed(
    store: Store, place: Place, client: Client
) -> None:
    await fill(store)
    browser = client(Trigger(store=place.url))
    page = (await browser.get("/webhook?id=fired")).text
    assert "It raised or wrote 1 lines" in page
    assert PRIVATE[0] not in page
    revealed = await browser.post("/webhook/reveal", data={"form_token": form_token(page), "id": "fired"})
    assert f"no room for {PRIVATE[0]}" in revealed.text


async def test_an_inspector_that_reveals_nothing_shows_no_button_and_refuses(
    store: Store, place: Place, client: Client
) -> None:
    await fill(store)
    browser = client(Trigger(store=place.url, inspector_reveal=False))
    page = (await browser.get("/webhook?id=failed")).text
    assert "/webhook/reveal" not in page
    answer = await browser.post("/webhook/reveal", data={"form_token": form_token(page), "id": "failed"})
    assert answer.status_code == 403
    assert PRIVATE[0] not in answer.text


async def test_the_api_has_the_same_filters_and_says_nothing_of_a_person(
    store: Store, place: Place, client: Client
) -> None:
    await fill(store)
    browser = client(Trigger(store=place.url))
    answer = await browser.get("/api/webhooks", params={"room": ROOM, "state": "failed"})
    assert [webhook["id"] for webhook in answer.json()["webhooks"]] == ["failed"]
    rooms = {room["room"]: room for room in (await browser.get("/api/rooms")).json()["rooms"]}
    assert (rooms[ROOM]["humans"], rooms[ROOM]["assistant"]["state"]) == (2, "live")
    assert [name for name in PRIVATE if name in answer.text] == []
    assert (await browser.get("/api/webhooks?state=odd")).status_code == 400


async def test_an_empty_store_says_how_to_get_a_first_webhook(store: Store, place: Place, client: Client) -> None:
    browser = client(Trigger(store=place.url, path="/hooks/whereby"))
    page = await browser.get("/")
    assert_sound(page)
    assert "whereby-trigger send room.client.joined" in page.text
    assert "/hooks/whereby" in page.text
    assert "Secret" in page.text
    assert_sound(await browser.get("/rooms"))
    assert_sound(await browser.get("/refusals"))
    assert_sound(await browser.get("/health"))


async def test_a_page_says_what_is_wrong_if_there_is_no_store(client: Client, tmp_path: object) -> None:
    answer = await client(Trigger(store=f"sqlite:///{tmp_path}/none.db")).get("/")
    assert answer.status_code == 503
    assert "none.db" in answer.text


async def test_a_page_says_what_is_wrong_if_the_file_of_a_setting_is_gone(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = tmp_path / "store-url"
    setting.write_text(f"sqlite:///{tmp_path}/webhooks.db")
    monkeypatch.setenv("WHEREBY_TRIGGER_STORE_FILE", str(setting))
    trigger = Trigger()
    browser = client(trigger)
    assert (await browser.get("/rooms")).status_code == 503
    setting.unlink()
    answer = await browser.get("/rooms")
    assert (answer.status_code, "which cannot be read" in answer.text) == (503, True)
    assert await asyncio.wait_for(browser.get("/live"), AT_ONCE) is not None


async def test_what_is_not_there_is_404(store: Store, place: Place, client: Client) -> None:
    browser = client(Trigger(store=place.url))
    for path in ("/nowhere", "/room?key=x.whereby.com/nobody", "/webhook?id=none", "/confirm?action=delete"):
        assert (await browser.get(path)).status_code == 404


async def test_mounted_under_a_path_every_link_stays_below_it(store: Store, place: Place, client: Client) -> None:
    from starlette.applications import Starlette
    from starlette.routing import Mount

    await fill(store)
    trigger = Trigger(store=place.url)
    client(trigger)
    host = Starlette(routes=[Mount("/ops/whereby", trigger.inspector)])
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(host, client=("127.0.0.1", 1)), base_url="http://127.0.0.1"
    ) as browser:
        for path in ("", "rooms", "health", f"room?key={ROOM}", "webhook?id=fired"):
            page = (await browser.get(f"/ops/whereby/{path}")).text
            links = [part.partition('"')[0] for part in page.replace('action="', 'href="').split('href="')[1:]]
            assert [link for link in links if not link.startswith(("/ops/whereby/", "#"))] == []
        style = next(link for link in links if ".css" in link)
        assert (await browser.get(style)).headers["content-type"].startswith("text/css")
