"""Attacks on the inspector: nothing is read, and nothing is done."""

import time

import httpx
import pytest

from tests.inspector.conftest import LOCAL, ROOM, TOKEN, Client, deliver, form_token
from tests.support.place import Place
from whereby_trigger import ConfigError, Trigger
from whereby_trigger.inspector.security import (
    WRONG_LOGINS,
    WRONG_LOGINS_IN_ALL,
    Keys,
    LoginLimit,
    packed_path,
    safe_path,
)
from whereby_trigger.store import Query, State, Store

pytestmark = pytest.mark.anyio

READ = ("/", "/rooms", f"/room?key={ROOM}", "/webhook?id=one", "/refusals", "/health", "/live", "/metrics")
API = ("webhooks", "webhook?id=one", "rooms", f"room?key={ROOM}", "refusals", "health", "openapi.json")
PAGES = (*READ, *(f"/api/{path}" for path in API))
ELSEWHERE = "http://192.0.2.7:8088"


async def logged_in(client: httpx.AsyncClient) -> httpx.AsyncClient:
    answer = await client.post("/login", data={"token": TOKEN})
    assert answer.status_code == 303
    return client


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:8088", "", "a b"])
async def test_a_foreign_host_reads_nothing(store: Store, place: Place, client: Client, host: str) -> None:
    await deliver(store, "one", at=time.time())
    browser = client(Trigger(store=place.url))
    for path in PAGES:
        answer = await browser.get(path, headers={"host": host})
        assert answer.status_code == 403
        assert "one" not in answer.text.partition("\n")[2]


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site", "sec-fetch-mode": "cors"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"},
    ],
)
async def test_a_page_of_another_site_neither_reads_nor_acts(
    store: Store, place: Place, client: Client, headers: dict[str, str]
) -> None:
    await deliver(store, "one", at=time.time())
    browser = client(Trigger(store=place.url))
    fields = {"id": "one", "form_token": form_token((await browser.get("/webhook?id=one")).text)}
    for path in PAGES:
        assert (await browser.get(path, headers=headers)).status_code == 403
    assert (await browser.post("/webhook/replay", data=fields, headers=headers)).status_code == 403
    (record,) = await store.find(Query(ids=("one",)))
    assert record.state is State.SKIPPED
    followed = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    assert (await browser.get("/", headers=followed)).status_code == 200
    assert (await browser.post("/webhook/replay", data=fields, headers=followed)).status_code == 403


@pytest.mark.parametrize("header", ["x-forwarded-for", "forwarded", "x-real-ip", "cf-connecting-ip", "via"])
async def test_without_a_token_nothing_comes_through_a_proxy(
    store: Store, place: Place, client: Client, header: str
) -> None:
    browser = client(Trigger(store=place.url))
    assert (await browser.get("/", headers={header: "192.0.2.1"})).status_code == 403


async def test_without_a_token_another_machine_reads_nothing(store: Store, place: Place, client: Client) -> None:
    browser = client(Trigger(store=place.url), peer="192.0.2.9")
    assert {(await browser.get(path)).status_code for path in PAGES} == {403}


async def test_without_a_login_a_token_keeps_every_page_closed(store: Store, place: Place, client: Client) -> None:
    await deliver(store, "one", at=time.time())
    browser = client(Trigger(store=place.url, inspector_token=TOKEN), ELSEWHERE, peer="192.0.2.9")
    for path in PAGES:
        answer = await browser.get(path)
        assert answer.status_code in (303, 401)
        assert answer.headers.get("location", "/login").startswith("/login")
        assert "predicate" not in answer.text
    for path in ("/webhook/replay", "/webhook/reveal", "/webhook/ask", "/room/stop", "/room/start"):
        assert (await browser.post(path, data={"id": "one", "key": ROOM, "form_token": "x"})).status_code == 401
    assert (await store.find(Query()))[0].state is State.SKIPPED


async def test_a_login_leads_to_the_page_that_was_asked_for(store: Store, place: Place, client: Client) -> None:
    await deliver(store, "one", at=time.time())
    browser = client(Trigger(store=place.url, inspector_token=TOKEN), ELSEWHERE, peer="192.0.2.9")
    asked = await browser.get("/webhook?id=one")
    answer = await browser.post(asked.headers["location"], data={"token": TOKEN})
    assert answer.headers["location"] == "/webhook?id=one"
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert TOKEN not in cookie
    page = await browser.get("/webhook?id=one")
    assert page.status_code == 200
    await browser.post("/logout", data={"form_token": form_token(page.text)})
    assert (await browser.get("/")).status_code == 303


async def test_a_program_reads_with_the_token_in_a_header(store: Store, place: Place, client: Client) -> None:
    trigger = Trigger(store=place.url, inspector_token=TOKEN)
    assert (await client(trigger, ELSEWHERE, authorization=f"Bearer {TOKEN}").get("/api/rooms")).status_code == 200
    assert (await client(trigger, ELSEWHERE, authorization="Bearer wrong").get("/api/rooms")).status_code == 401


async def test_after_a_few_wrong_tokens_even_the_right_one_has_to_wait(
    store: Store, place: Place, client: Client
) -> None:
    browser = client(Trigger(store=place.url, inspector_token=TOKEN), ELSEWHERE, peer="192.0.2.9")
    answers = [await browser.post("/login", data={"token": f"wrong {n}"}) for n in range(WRONG_LOGINS + 2)]
    assert [answer.status_code for answer in answers] == [401] * WRONG_LOGINS + [429, 429]
    assert int(answers[-1].headers["retry-after"]) > 0
    right = await browser.post("/login", data={"token": TOKEN})
    assert (right.status_code, right.headers.get("set-cookie")) == (429, None)


def test_of_ten_thousand_tries_few_are_compared_whatever_addresses_they_come_from() -> None:
    limit, tried = LoginLimit(), 0
    for n in range(10_000):
        address, now = f"192.0.2.{n % 250}", n * 0.001
        if not limit.wait(address, now):
            limit.wrong(address, now)
            tried += 1
    assert tried == WRONG_LOGINS_IN_ALL
    assert limit.wait("192.0.2.1", 10.0) > 0
    assert limit.wait("192.0.2.1", 100.0) == 0


async def test_a_stolen_form_token_is_of_no_use_in_another_session(store: Store, place: Place, client: Client) -> None:
    await deliver(store, "one", at=time.time())
    trigger = Trigger(store=place.url, inspector_token=TOKEN)
    owner, thief = await logged_in(client(trigger)), await logged_in(client(trigger))
    stolen = form_token((await owner.get("/webhook?id=one")).text)
    for token in (stolen, "", "x" * 43, "\N{BULLET}"):
        answer = await thief.post("/webhook/replay", data={"id": "one", "form_token": token})
        assert answer.status_code == 403
    assert (await store.find(Query()))[0].state is State.SKIPPED
    assert (await owner.post("/webhook/replay", data={"id": "one", "form_token": stolen})).status_code == 303
    assert (await store.find(Query()))[0].state is State.PENDING


async def test_a_forged_changed_or_old_session_is_none() -> None:
    keys, now = Keys(TOKEN), 1000.0
    session = keys.new_session(now, logged_in=False)
    cookie = keys.cookie(session)
    assert keys.session(cookie, now) == session
    nonce, ends_at, _, mac = cookie.split(".")
    for forged in (
        f"{nonce}.{ends_at}.1.{mac}",
        f"{nonce}.9{ends_at}.0.{mac}",
        "",
        "...",
        "a.b.c.d",
        cookie + "x",
        "é" * 9,
    ):
        assert keys.session(forged, now) is None
    assert keys.session(cookie, session.ends_at + 1.0) is None
    assert Keys("another token of length").session(cookie, now) is None
    assert Keys(TOKEN).session(cookie, now) == session


@pytest.mark.parametrize("path", ["//evil.example", "https://evil.example", "/\\evil.example", "rooms", "/a\nb"])
def test_a_login_never_leads_to_another_site(path: str) -> None:
    assert safe_path(packed_path(path)) == "/"
    assert safe_path(path) == "/"


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py",
        "/static/..%2fapp.py",
        "/static/%2e%2e/app.py",
        "/static//etc/passwd",
        "/static/inspector.css%00.py",
        "/static/",
        "/static/../../config.py",
        "/templates/layout.html",
    ],
)
async def test_no_path_leads_out_of_the_list_of_static_files(
    store: Store, place: Place, client: Client, path: str
) -> None:
    answer = await client(Trigger(store=place.url)).get(path)
    assert answer.status_code == 404
    assert "import" not in answer.text


async def test_every_answer_forbids_all_that_is_not_its_own(store: Store, place: Place, client: Client) -> None:
    browser = client(Trigger(store=place.url))
    for path in ("/", "/health", "/api/rooms", "/nowhere", "/static/inspector.js"):
        headers = (await browser.get(path)).headers
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"
        assert headers["cache-control"] == ("private, max-age=86400" if "static" in path else "no-store")


async def test_an_action_takes_a_small_form_and_nothing_else(store: Store, place: Place, client: Client) -> None:
    browser = client(Trigger(store=place.url))
    assert (await browser.get("/webhook/replay?id=one")).status_code == 405
    assert (await browser.post("/", data={})).status_code == 405
    assert (await browser.post("/webhook/replay", json={"id": "one"})).status_code == 415
    assert (await browser.post("/webhook/replay", data={"id": "x" * 20_000})).status_code == 413


@pytest.mark.parametrize("token", ["short", "", "               x"])
def test_a_token_that_could_be_guessed_is_refused(token: str) -> None:
    with pytest.raises(ConfigError, match="at least 16 characters") as refused:
        Trigger(inspector_token=token)
    assert token.strip() == "" or token.strip() not in str(refused.value).replace("x secrets", "")


async def test_a_trigger_refuses_to_start_with_an_open_inspector_and_no_token(tmp_path: object) -> None:
    trigger = Trigger(store=f"sqlite:///{tmp_path}/a.db", port=0, host="127.0.0.1", inspector="0.0.0.0:0")
    with pytest.raises(ConfigError, match="WHEREBY_TRIGGER_INSPECTOR_TOKEN"):
        async with trigger:
            pass


async def test_behind_a_login_of_the_host_app_everybody_whom_it_lets_through_is_served(
    store: Store, place: Place, client: Client
) -> None:
    trigger = Trigger(store=place.url)
    browser = client(trigger.inspector.behind_login(), "https://app.example", peer="192.0.2.9", via="1.1 proxy")
    assert (await browser.get("/")).status_code == 200
    assert (await browser.get("/", headers={"origin": "https://evil.example"})).status_code == 403
    assert (await client(trigger.inspector, LOCAL, peer="192.0.2.9").get("/")).status_code == 403
