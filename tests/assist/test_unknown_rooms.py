"""A replica that does not know which rooms it has: each of them gets an assistant, and none has two."""

import asyncio
import errno
import logging
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from tests.support.rooms import request
from tests.support.supervised import Assistants, Supervised
from tests.support.until import eventually
from whereby_trigger.assist import supervisor
from whereby_trigger.errors import StoreUnavailable
from whereby_trigger.store import Room, RoomMove, RoomQuery, RoomState
from whereby_trigger.store.sqlite import SqliteStore
from whereby_trigger.store.sqlite.journal import Database

pytestmark = pytest.mark.anyio

LIVE, ENDING, ENDED = RoomState.LIVE, RoomState.ENDING, RoomState.ENDED


@pytest.fixture
def store(tmp_path: Path) -> SqliteStore:
    return SqliteStore(f"sqlite:///{tmp_path}/rooms.db")


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("whereby_trigger.assist.supervisor.OWN_EVERY", 0.05)


async def test_a_room_gets_its_assistant_though_its_taking_was_committed_and_then_failed(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the store's file is given a second name at that moment."""
    assistants, failed, settle = Assistants(), list[int](), Database.settle

    def fail_once(database: Database) -> None:
        settle(database)
        taken = database.connection.execute("SELECT id FROM rooms WHERE state = 'starting'").fetchall()
        if taken and not failed:
            failed.append(len(taken))
            raise FileExistsError(errno.EEXIST, "it has a second name")

    async with Supervised(store, assistants.stay, max_rooms=0) as one:
        await one.ask()
        monkeypatch.setattr(Database, "settle", fail_once)
        one.supervisor.slots = 1
        await eventually(lambda: failed)
        await one.reaches(LIVE, attempt=2)
    assert assistants.started == [("visit-1", 2)]


@pytest.mark.parametrize("function", ["launch", "_supervise_run"])
async def test_a_run_that_cannot_be_begun_keeps_neither_its_room_nor_its_slot(
    store: SqliteStore, function: str
) -> None:
    assistants, refused, loop = Assistants(), list[str](), asyncio.get_running_loop()

    def refuse_once(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> "asyncio.Task[Any]":
        if coroutine.__name__ == function and not refused:
            refused.append(function)
            coroutine.close()
            raise MemoryError
        return asyncio.Task(coroutine, loop=loop, **options)

    async with Supervised(store, assistants.stay, max_rooms=1) as one:
        loop.set_task_factory(refuse_once)
        await one.ask()
        await eventually(lambda: one._supervising.done())
        loop.set_task_factory(None)
        with pytest.raises(MemoryError):
            await one._supervising
        one._supervising = asyncio.create_task(one.supervisor.supervise())
        await one.reaches(LIVE, attempt=2)
    assert assistants.started == [("visit-1", 2)]


async def test_a_run_whose_end_cannot_be_recorded_keeps_neither_its_room_nor_its_slot(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    assistants, failed = Assistants(), asyncio.Event()

    def fail_once(text: str) -> str:
        if failed.is_set():
            return text
        failed.set()
        raise MemoryError

    monkeypatch.setattr("whereby_trigger.assist.supervisor.storable_text", fail_once)
    # The loop hears of an error that ends a task when the task is collected, perhaps in this test.
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    async with Supervised(store, assistants.stay, max_rooms=1) as one:
        await one.ask()
        await one.reaches(LIVE)
        assistants.let_go("visit-1")
        await failed.wait()
        await one.reaches(ENDED, attempt=2)
    assert assistants.started == [("visit-1", 1), ("visit-1", 2)]


async def test_a_room_that_the_next_taking_will_name_is_not_given_back_before(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on PostgreSQL, where a move may also wait for a row, and be overtaken by the next taking."""
    assistants, unnamed, lost, freed = Assistants(), list[Room](), asyncio.Event(), asyncio.Event()
    take, move = store.take, store.move

    async def lose_the_first_answer(*values: Any) -> list[Room]:
        taken = await take(*values)
        if taken and not lost.is_set():
            lost.set()
            unnamed.extend(taken)
            await one.supervisor.hand_over("the lease runs out")
            raise StoreUnavailable("no answer")
        return [*(unnamed.pop() for _ in list(unnamed)), *taken]

    async def give_back_late(change: RoomMove) -> bool:
        if change.state is RoomState.WAITING:
            await freed.wait()
        return await move(change)

    monkeypatch.setattr("whereby_trigger.assist.supervisor.OWN_EVERY", 0.0)
    monkeypatch.setattr(store, "take", lose_the_first_answer)
    monkeypatch.setattr(store, "move", give_back_late)
    async with Supervised(store, assistants.stay, max_rooms=1) as one:
        await one.ask()
        await lost.wait()
        # The first look is over once the second begins.
        for _ in range(2):
            one.supervisor.wake()
            await eventually(lambda: not one.supervisor._woken.is_set())
        one.supervisor.resume()
        await one.reaches(LIVE)
        freed.set()
        await one.supervisor.settle(5)
        assert (await one.reaches(LIVE)).attempt == 1
        assert assistants.started == [("visit-1", 1)]


async def test_a_log_handler_that_fails_keeps_no_assistant_in_a_room_that_belongs_to_another_replica(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler, fail, loop = logging.Handler(), Mock(side_effect=ConnectionError), asyncio.get_running_loop()
    assistants, move = Assistants(), store.move
    monkeypatch.setattr(handler, "emit", fail)

    async def lose_the_room(change: RoomMove) -> bool:
        if change.state is LIVE:
            await eventually(lambda: assistants.there)
            with closing(sqlite3.connect(store.path)) as connection:
                connection.execute("UPDATE rooms SET owner = 'another'")
                connection.commit()
            monkeypatch.setattr(supervisor.logger, "handlers", [handler])
        return await move(change)

    monkeypatch.setattr(store, "move", lose_the_room)
    async with Supervised(store, assistants.stay) as one:
        tests_own = loop.get_exception_handler()
        loop.set_exception_handler(lambda loop, context: None)
        await one.ask()
        await eventually(lambda: fail.called)
        await eventually(lambda: not assistants.there)
        monkeypatch.setattr(supervisor.logger, "handlers", [])
        loop.set_exception_handler(tests_own)
    assert assistants.started == [("visit-1", 1)]


async def test_an_end_that_was_asked_for_comes_to_a_room_without_a_run(store: SqliteStore) -> None:
    async with Supervised(store, Assistants().stay, max_rooms=0) as one:
        await one.ask()
        (room,) = await store.take(1)
        await store.move(RoomMove(room.id, ENDING, "the session has ended"))
        one.supervisor.wake()
        await one.reaches(ENDED)


async def test_a_replica_finds_the_rooms_that_it_has_now(store: SqliteStore) -> None:
    await store.open(lambda: None)
    for name in ("visit-1", "visit-2", "visit-3"):
        await store.request(request(f"acme.whereby.com/{name}"))
    first, second = await store.take(2)
    await store.move(RoomMove(first.id, ENDED, "it left the room"))
    assert [room.id for room in await store.find_rooms(RoomQuery(owner=store.replica))] == [second.id]
    assert await store.find_rooms(RoomQuery(owner="another")) == []
    await store.close()
