"""The JSON API: openapi.json describes what the running app does, and nothing in it names a person."""

import asyncio
import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest
from hypothesis import Phase, given, settings

from tests.inspector.conftest import LOCAL, PRIVATE, ROOM, TOKEN, Client, deliver, run_in
from tests.support.place import Place
from tests.support.whereby import SECRET
from whereby_trigger import Session, Trigger
from whereby_trigger.inspector import reads
from whereby_trigger.inspector.rendering import OPENAPI
from whereby_trigger.store import State, Store

pytestmark = pytest.mark.anyio

EXAMPLES = 12
"""Requests for each address: most ways to fill in a parameter are tried by the first few."""


@cache
def api() -> Any:
    """Return the described API.

    Importing schemathesis takes a second: only a worker that runs these tests does so.
    """
    import schemathesis

    return schemathesis.openapi.from_dict(json.loads(OPENAPI))


def conformance() -> list[Any]:
    """Return the checks that each answer must pass."""
    from schemathesis import checks

    return [
        checks.not_a_server_error,
        checks.status_code_conformance,
        checks.content_type_conformance,
        checks.response_schema_conformance,
    ]


async def fill(store: Store) -> None:
    now = time.time()
    await deliver(store, "failed", at=now - 60, state=State.FAILED, errors=(f"predicate people: {PRIVATE[0]}",))
    await deliver(store, "fired", at=now - 30, state=State.FIRED, humans=2)
    await run_in(store, ROOM, "fired", now - 29)


async def test_each_answer_is_as_described_whatever_is_asked(store: Store, place: Place, client: Client) -> None:
    await fill(store)
    browser = client(Trigger(store=place.url))
    asked = [
        ("/api/webhooks?state=failed", 200),
        ("/api/webhook?id=failed", 200),
        ("/api/rooms", 200),
        (f"/api/room?key={ROOM}", 200),
        ("/api/room?key=visit-1", 200),
        (f"/api/room?key=https://{ROOM}&since=1h", 200),
        ("/api/refusals", 200),
        ("/api/health", 200),
        ("/api/webhooks?state=odd", 400),
        ("/api/webhooks?since=soon", 400),
        ("/api/room?key=visit-1&since=1h&until=2h", 400),
        ("/api/room?key=https://elsewhere.example/x", 400),
        ("/api/room?key=nobody", 404),
        ("/api/webhook?id=%00", 404),
    ]
    for path, status in asked:
        answer = await browser.get(path)
        assert answer.status_code == status, path
        api()[path.partition("?")[0]]["GET"].validate_response(answer)
        assert [name for name in PRIVATE if name in answer.text] == []
        assert answer.text.isascii()


async def test_a_room_has_the_timeline_that_rooms_show_prints(store: Store, place: Place, client: Client) -> None:
    await fill(store)
    told = (await client(Trigger(store=place.url)).get("/api/room", params={"key": ROOM})).json()
    kinds = [entry["kind"] for meeting in told["meetings"] for entry in meeting["entries"]]
    assert {"webhook", "started", "over"} <= set(kinds)
    assert (told["humans"], told["assistant"]["state"]) == (2, "live")
    assert told["answer"].startswith("An assistant is in ")


async def test_the_slots_in_use_are_those_of_all_assistants_however_many_a_page_reads(
    tmp_path: Path, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reads, "ROWS", 1)
    trigger = Trigger(store=f"sqlite:///{tmp_path}/store.db", port=0, secret=SECRET, drain_timeout=0)
    joined = asyncio.Queue[None]()

    @trigger.assistant
    async def stays(session: Session) -> None:
        joined.put_nowait(None)
        await session.ended

    async with trigger:
        for room in ("one", "two"):
            await trigger.start_assistant(f"https://acme.whereby.com/{room}")
            await joined.get()
        browser = client(trigger)
        assert (await browser.get("/api/health")).json()["replica"]["slots_used"] == 2
        assert "of the newest 1<" in (await browser.get("/health")).text


async def test_the_description_is_served_and_a_program_gets_in_by_its_token(
    store: Store, place: Place, client: Client
) -> None:
    trigger = Trigger(store=place.url, inspector_token=TOKEN)
    assert (await client(trigger).get("/api/openapi.json")).status_code == 401
    answer = await client(trigger, authorization=f"Bearer {TOKEN}").get("/api/openapi.json")
    assert answer.content == OPENAPI


async def test_metrics_are_served_to_who_may_see_the_pages(store: Store, place: Place, client: Client) -> None:
    trigger = Trigger(store=place.url, inspector_token=TOKEN)
    refused = await client(trigger).get("/metrics")
    assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
    scraped = await client(trigger, authorization=f"Bearer {TOKEN}").get("/metrics")
    assert scraped.headers["content-type"].startswith("text/plain")
    assert "whereby_trigger_up 0.0" in scraped.text
    assert (await client(Trigger(store=place.url)).get("/metrics", headers={"host": "evil.example"})).status_code == 403


class Loop:
    """Run an event loop in a thread, for the requests of tests that are not async."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever)
        self._thread.start()

    def run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Loop, httpx.AsyncClient]]:
    """Yield an inspector of a file with some webhooks, shared by every example."""
    from whereby_trigger.store.sqlite import SqliteStore

    folder: Path = tmp_path_factory.mktemp("api")
    url = f"sqlite:///{folder}/webhooks.db"
    with ExitStack() as undo:
        loop = Loop()
        undo.callback(loop.close)
        store = SqliteStore(url, synced=False)
        loop.run(store.open(lambda: None))
        undo.callback(lambda: loop.run(store.close()))
        loop.run(fill(store))
        trigger = Trigger(store=url)
        undo.callback(lambda: loop.run(trigger.inspector.close()))
        transport = httpx.ASGITransport(trigger.inspector, client=("127.0.0.1", 1))
        client = httpx.AsyncClient(transport=transport, base_url=LOCAL)
        undo.callback(lambda: loop.run(client.aclose()))
        yield loop, client


@pytest.mark.parametrize("path", sorted(json.loads(OPENAPI)["paths"]))
def test_no_request_breaks_the_description(path: str, running: tuple[Loop, httpx.AsyncClient]) -> None:
    loop, client = running

    @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, phases=[Phase.generate])
    @given(case=api()[path]["GET"].as_strategy())
    def holds(case: Any) -> None:
        sent = case.as_transport_kwargs(base_url=LOCAL)
        answer = loop.run(client.request(sent["method"], path, params=sent.get("params")))
        case.validate_response(answer, checks=conformance())

    holds()
