"""The live part: open pages get what other processes write, folded if much comes, and read once for all."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from msgspec import structs
from starlette.requests import Request
from starlette.responses import StreamingResponse

from tests.inspector.conftest import ROOM, SCRIPT, deliver, served
from tests.support import whereby
from tests.support.place import Place
from tests.support.process import Process, whereby_trigger
from tests.support.programs import HUMANS_JOIN, write
from tests.support.until import AT_ONCE, eventually
from whereby_trigger import Trigger
from whereby_trigger.errors import StoreError
from whereby_trigger.inspector import live, reads
from whereby_trigger.inspector.live import FOLD_ABOVE, Batch, Folded, LiveFeed, Looking, SharedStore, fold
from whereby_trigger.inspector.reads import filters_of
from whereby_trigger.inspector.security import Visit
from whereby_trigger.store import Query, Record, State, Store
from whereby_trigger.store.sqlite import SqliteStore
from whereby_trigger.testing import webhook

pytestmark = pytest.mark.anyio

RECORD = Record("1", "room.client.joined", ROOM, State.SKIPPED, "no", 1, 1, 1.0, 1.0, None, (), b"{}")


async def events(answer: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    async for line in answer.aiter_lines():
        if line.startswith("data: "):
            yield json.loads(line.removeprefix("data: "))


async def test_a_webhook_written_by_another_process_is_told_at_once(store: Store, place: Place) -> None:
    await deliver(store, "before", at=time.time())
    async with served(Trigger(store=place.url)) as client, client.stream("GET", "/live") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        told = events(answer)
        first = await anext(told)
        assert (first["first"], first["rows"][0]["ids"]) == (True, ["before"])
        # The feed has looked once when it reports the second; the time is measured only from then on.
        await deliver(store, "second", at=time.time())
        await anext(told)
        began = time.monotonic()
        await deliver(store, "third", at=time.time(), reason=SCRIPT)
        new = await anext(told)
        took = time.monotonic() - began
        assert new["rows"][-1]["ids"] == ["third"]
        assert SCRIPT not in new["rows"][-1]["html"]
        assert took < AT_ONCE


async def test_what_a_trigger_in_another_process_stores_and_decides_is_told(
    store: Store, place: Place, tmp_path: Path
) -> None:
    write(tmp_path, HUMANS_JOIN)
    start = whereby_trigger("start", "--host", "127.0.0.1", "--port", "0", "--store", place.url)
    with Process(start, cwd=tmp_path) as process:
        url = f"http://127.0.0.1:{await asyncio.to_thread(process.port)}/"
        async with served(Trigger(store=place.url)) as client, client.stream("GET", "/live") as answer:
            told = events(answer)
            await asyncio.to_thread(whereby.deliver, url, webhook("room.client.joined", id="one").raw)
            html = ""
            while "fired" not in html:
                (row,) = (await anext(told))["rows"]
                assert row["ids"] == ["one"]
                html = row["html"]


async def test_a_page_is_told_only_of_what_its_filters_select(store: Store, place: Place) -> None:
    await deliver(store, "here", at=time.time())
    async with served(Trigger(store=place.url)) as client, client.stream("GET", "/live?state=failed") as answer:
        told = events(answer)
        await deliver(store, "skipped", at=time.time())
        await deliver(store, "failed", at=time.time(), state=State.FAILED)
        while not (rows := (await anext(told))["rows"]):
            pass
        assert rows[0]["ids"] == ["failed"]
        assert (await client.get("/live?state=odd")).status_code == 400


async def test_a_decision_is_told_after_its_webhook() -> None:
    looking, found = Looking(), [structs.replace(RECORD, state=State.PENDING)]

    async def find(query: Query) -> list[Record]:
        return found if query.ids is None else []

    assert await looking.new(find) == []
    assert await looking.new(find) == []
    found = [RECORD]
    assert [record.state for record in await looking.new(find)] == [State.SKIPPED]
    assert await looking.new(find) == []
    found = [structs.replace(RECORD, deliveries=2)]
    assert [record.deliveries for record in await looking.new(find)] == [2]


def test_many_at_once_become_one_row_a_room() -> None:
    few = [structs.replace(RECORD, id=str(n)) for n in range(FOLD_ABOVE)]
    assert fold(few) == few
    many = [*few, structs.replace(RECORD, id="other", room="acme.whereby.com/other")]
    folded, single = fold(many)
    assert isinstance(folded, Folded)
    assert (folded.room, len(folded.records)) == (ROOM, FOLD_ABOVE)
    assert isinstance(single, Record)


def test_many_rooms_at_once_are_the_newest_and_one_row_for_all_others() -> None:
    rooms = [structs.replace(RECORD, id=str(n), room=f"acme.whereby.com/{n % 90}") for n in range(180)]
    others, *newest = fold(rooms)
    assert isinstance(others, Folded)
    assert (others.rooms, len(others.records)) == (90 - FOLD_ABOVE, 2 * (90 - FOLD_ABOVE))
    assert [one.room for one in newest] == [f"acme.whereby.com/{n}" for n in range(90 - FOLD_ABOVE, 90)]
    shown = [record.id for one in (others, *newest) if isinstance(one, Folded) for record in one.records]
    assert sorted(shown) == sorted(record.id for record in rooms)


def test_pages_with_the_same_filters_are_told_the_same_bytes(tmp_path: Path) -> None:
    trigger = Trigger(store=f"sqlite:///{tmp_path}/a.db")
    site, batch = trigger.inspector._open(), Batch([RECORD, structs.replace(RECORD, id="2", state=State.FIRED)])
    first, again, fired = (filters_of({"state": state}, 0.0) for state in ("", "", "fired"))
    event = site._event(batch, first, "")
    assert site._event(batch, again, "") is event
    assert b'"count":2' in event
    assert b'"gone":["1"],"count":1' in site._event(batch, fired, "")
    assert b'"gone":[]' in event


async def test_a_page_reads_what_there_is_only_after_the_first_look_so_that_nothing_falls_between(
    store: Store, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    page_read = asyncio.Event()
    new, live_page = Looking.new, reads.live_page

    async def late(self: Looking, find: Callable[[Query], Awaitable[list[Record]]]) -> list[Record]:
        if not order:
            # The page would read meanwhile if it did not wait.
            with suppress(TimeoutError):
                await asyncio.wait_for(page_read.wait(), 0.1)
        found = await new(self, find)
        order.append("look")
        return found

    async def noted(*arguments: Any) -> Any:
        order.append("page")
        page_read.set()
        return await live_page(*arguments)

    monkeypatch.setattr(Looking, "new", late)
    monkeypatch.setattr(reads, "live_page", noted)
    await deliver(store, "before", at=time.time())
    async with served(Trigger(store=place.url)) as client, client.stream("GET", "/live") as answer:
        assert (await anext(events(answer)))["rows"][0]["ids"] == ["before"]
    assert order[:2] == ["look", "page"]


async def test_a_page_whose_feed_cannot_look_is_told_so_and_the_next_one_waits_for_the_next_look(
    tmp_path: Path,
) -> None:
    url = f"sqlite:///{tmp_path}/made-later.db"
    shared = SharedStore(lambda: SqliteStore(url))
    feed = LiveFeed(shared)
    with feed.follow() as follower:
        with pytest.raises(StoreError):
            await follower.begun()
        store = SqliteStore(url)
        await store.open()
        with feed.follow() as later:
            await asyncio.wait_for(later.begun(), 20)
        await store.close()
    await shared.close()


class SlowStore(SqliteStore):
    """Take its time to find anything."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.asked, self.goes_on = asyncio.Event(), asyncio.Event()

    async def find(self, query: Query) -> list[Record]:
        self.asked.set()
        await self.goes_on.wait()
        return []


async def test_a_page_that_reads_for_long_does_not_hold_up_the_end_of_the_trigger(tmp_path: Path) -> None:
    """A trigger closes its inspector before it gives back its lease."""
    url = f"sqlite:///{tmp_path}/webhooks.db"
    store = SqliteStore(url)
    await store.open()
    await store.close()
    slow = SlowStore(url)
    shared = SharedStore(lambda: slow)

    async def read() -> list[Record]:
        async with shared.use() as opened:
            return await opened.find(Query())

    reading = asyncio.create_task(read())
    await slow.asked.wait()
    await asyncio.wait_for(shared.close(), AT_ONCE)
    slow.goes_on.set()
    assert await reading == []


async def test_of_pages_that_come_at_once_no_more_follow_than_may(
    store: Store, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "PAGES", 1)
    inspector = Trigger(store=place.url).inspector
    site = inspector._open()
    scope = {"type": "http", "method": "GET", "path": "/live", "query_string": b"", "headers": []}
    visit = Visit(None, allowed=True, is_new=False)
    answers = [await site._stream(Request(scope), visit) for _ in range(2)]
    first, second = (aiter(answer.body_iterator) for answer in answers if isinstance(answer, StreamingResponse))
    assert await anext(first) == b"retry: 2000\n\n"
    assert [told async for told in second] == [b"retry: 30000\n\n"]
    assert isinstance(first, AsyncGenerator)
    await first.aclose()
    await inspector.close()


async def test_fifty_pages_cost_no_more_looks_into_the_store_than_one(
    store: Store, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[str] = []
    new = Looking.new

    async def counted(self: Looking, find: Callable[[Query], Awaitable[list[Record]]]) -> list[Record]:
        found = await new(self, find)
        # Only now: what is stored before the first look is not new to it.
        looks.append("look")
        return found

    monkeypatch.setattr(Looking, "new", counted)
    shared = SharedStore(place.replica)
    feed = LiveFeed(shared)
    with ExitStack() as pages:
        followers = [pages.enter_context(feed.follow()) for _ in range(50)]
        await eventually(lambda: looks)
        await deliver(store, "one", at=time.time())
        batches = [await asyncio.wait_for(follower.next(), 20) for follower in followers]
        assert len({id(batch) for batch in batches}) == 1
        assert [record.id for record in batches[0].records] == ["one"]
        assert len(looks) < 50
    await shared.close()
    seen = len(looks)
    await deliver(store, "nobody-looks", at=time.time())
    assert len(looks) == seen
