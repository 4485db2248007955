"""Attacks on the inspector: nothing is read, and nothing is done."""

import asyncio
import os
import sys
import time
from collections import Counter
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from tests.inspector.conftest import LOCAL, PRIVATE, ROOM, TOKEN, Client, deliver, form_token, served
from tests.support.http import Answer, Connection, request
from tests.support.place import Place
from tests.support.until import AT_ONCE
from whereby_trigger import ConfigError, Trigger
from whereby_trigger.inspector import app, security
from whereby_trigger.inspector.security import (
    ADDRESSES,
    FORGIVEN_AFTER,
    WRONG_LOGINS,
    WRONG_LOGINS_IN_ALL,
    Keys,
    LoginLimit,
    packed_path,
    safe_path,
)
from whereby_trigger.store import ActionQuery, Query, State, Store

pytestmark = pytest.mark.anyio

READ = ("/", "/rooms", f"/room?key={ROOM}", "/webhook?id=one", "/refusals", "/health", "/live", "/metrics")
API = ("webhooks", "webhook?id=one", "rooms", f"room?key={ROOM}", "refusals", "health", "openapi.json")
PAGES = (*READ, *(f"/api/{path}" for path in API))
ELSEWHERE = "http://192.0.2.7:8088"
GUESSES = int(os.environ.get("LOGIN_TRIES", "400"))
"""10,000 take some seconds of CPU: LOGIN_TRIES=10000 makes that many."""


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


@pytest.mark.parametrize("host", ["[", "[::1", "a]b", "[::::]", "[1.2.3.4]", "app.example:65536", "[::1]:99999"])
async def test_a_host_of_which_no_address_can_be_made_is_refused_before_anything_is_made_of_it(
    store: Store, place: Place, client: Client, host: str
) -> None:
    """Older versions of Starlette raise ValueError for these."""
    browser = client(Trigger(store=place.url, inspector_token=TOKEN))
    assert (await browser.get("/login", headers={"host": host})).status_code == 403
    for fine in ("app.example", "app.example:65535", "[::1]:8088", "10.0.0.7:1"):
        assert (await browser.get("/login", headers={"host": fine})).status_code == 200


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


def test_the_limit_remembers_few_addresses_and_counts_the_tries_of_all() -> None:
    limit, tried = LoginLimit(), 0
    for n in range(10_000):
        address, now = f"192.0.2.{n % 250}", n * 0.001
        if not limit.wait(address, now):
            limit.wrong(address, now)
            tried += 1
    assert tried == WRONG_LOGINS_IN_ALL
    assert limit.wait("192.0.2.1", 10.0) > 0
    assert limit.wait("192.0.2.1", 100.0) == 0
    # As many addresses as years of attempts would use.
    for n in range(3 * ADDRESSES):
        limit.wrong(f"2001:db8::{n:x}", 200.0)
    assert (len(limit._wrong), len(limit._all)) == (ADDRESSES, WRONG_LOGINS_IN_ALL)


async def guess(port: int, guesses: int, address: str, seen: list[Answer]) -> None:
    """Try wrong tokens over one connection from an address: in the form, and in a header, to read and to act."""
    form = ("content-type", "application/x-www-form-urlencoded")
    act = f"id=one&key={ROOM}&form_token=x".encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))
    connection = Connection(reader, writer)
    for n in range(guesses):
        wrong = f"a-wrong-token-of-length-{n}"
        bearer = ("authorization", f"Bearer {wrong}")
        tries = (
            request("POST", "/login", [form], f"token={wrong}".encode()),
            request("GET", f"/api/room?key={ROOM}", [bearer]),
            request("POST", "/webhook/replay", [form, bearer], act),
            request("POST", "/webhook/reveal", [form, bearer], act),
        )
        answer = await connection.ask(tries[n % len(tries)])
        assert answer is not None
        seen.append(answer)
    await connection.close()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has all of 127.0.0.0/8 as addresses of its own")
async def test_of_many_login_tries_over_http_few_are_compared_and_nothing_is_read_or_done(
    store: Store, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    await deliver(store, "one", at=time.time())
    compared: list[str] = []
    is_token = Keys.is_token

    def counted(self: Keys, given: str) -> bool:
        compared.append(given)
        return is_token(self, given)

    monkeypatch.setattr(Keys, "is_token", counted)
    # The time of day stands still, so that no minute passes on a slow machine.
    now = time.time()
    for module in (app, security):
        monkeypatch.setattr(module, "time", SimpleNamespace(time=lambda: now))
    trigger = Trigger(store=place.url, inspector_token=TOKEN)
    async with served(trigger) as client:
        assert (await client.post("/login", data={"token": TOKEN})).status_code == 303
        (own,), port = client.cookies.jar, client.base_url.port
        compared.clear()
        seen: list[Answer] = []
        assert port is not None
        addresses = [f"127.0.0.{n}" for n in range(2, 22)]
        await asyncio.gather(*(guess(port, GUESSES // len(addresses), address, seen) for address in addresses))
        assert len(seen) == GUESSES
        assert len(compared) == WRONG_LOGINS_IN_ALL
        statuses = Counter(answer.status for answer in seen)
        assert statuses == {401: WRONG_LOGINS_IN_ALL, 429: GUESSES - WRONG_LOGINS_IN_ALL}
        assert [answer for answer in seen if "set-cookie" in answer.headers] == []
        told = b"".join({answer.body for answer in seen}).decode()
        assert [private for private in ("predicate people", "visit-1", *PRIVATE) if private in told] == []
        (record,) = await store.find(Query())
        assert record.state is State.SKIPPED
        assert await store.find_actions(ActionQuery()) == []
        # A logged-in user notices nothing; anyone else waits for a minute, then the token works again.
        assert (await client.get("/webhook?id=one")).status_code == 200
        waits = await client.post("/login", data={"token": TOKEN})
        assert (waits.status_code, waits.headers["retry-after"]) == (429, "61")
        now += FORGIVEN_AFTER
        client.cookies.delete(str(own.name), domain=own.domain)
        assert (await client.post("/login", data={"token": TOKEN})).status_code == 303
        assert (await client.get("/webhook?id=one")).status_code == 200


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


async def test_a_form_that_is_cut_short_is_refused_and_no_error_in_the_log() -> None:
    form = {"type": "http.request", "body": b"token=", "more_body": True}
    received, sent = iter((form, {"type": "http.disconnect"})), list[Any]()

    async def receive() -> Any:
        return next(received)

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"host", b"127.0.0.1:8088"), (b"content-type", b"application/x-www-form-urlencoded")]
    scope = {"type": "http", "method": "POST", "path": "/login", "query_string": b"", "headers": headers}
    await Trigger(inspector_token=TOKEN).inspector(scope, receive, send)
    assert sent[0]["status"] == 400


async def test_a_head_of_the_live_stream_ends(store: Store, place: Place) -> None:
    async with served(Trigger(store=place.url)) as browser:
        head = await browser.head("/live")
        assert (head.status_code, head.headers["content-type"].split(";")[0]) == (200, "text/event-stream")
        assert (await browser.get("/api/rooms", timeout=AT_ONCE)).status_code == 200


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
