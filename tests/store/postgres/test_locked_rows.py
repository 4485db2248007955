"""One row that somebody else has locked blocks work on that row, and nothing else."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from msgspec import structs

from tests.store.conftest import Replicas
from tests.support.arrivals import ROOM, arrival, decision, record
from tests.support.connecting import connected
from tests.support.postgres import Server, database_of
from tests.support.rooms import ask, bring_to, move, session_arrival, take_one
from tests.support.stage import Stage
from tests.support.until import eventually
from whereby_trigger import Trigger
from whereby_trigger.errors import StoreUnavailable
from whereby_trigger.store import Bounds, Query, RoomState, State, Store
from whereby_trigger.store.postgres import store as postgres_store
from whereby_trigger.store.postgres import writer
from whereby_trigger.testing import webhook

pytestmark = pytest.mark.anyio

SOON = 2.0
"""Seconds in which unblocked work is done on a busy machine; waiting for a lock takes longer, or did before."""

BACK_WITHIN = 5.0
MANY = 40
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
DIE = "UPDATE whereby_trigger.replicas SET expires = 0 WHERE id <> '{heir}'"
OTHER = "acme.whereby.com/other"


@asynccontextmanager
async def locked(url: str, rows: str) -> AsyncIterator[Any]:
    """Lock some rows, as from a psql prompt, until `COMMIT` or the end of the block."""
    async with connected(url) as holding:
        await holding.execute(f"BEGIN; SELECT FROM whereby_trigger.{rows} FOR UPDATE")
        yield holding
        if holding.is_in_transaction():
            await holding.execute("COMMIT")


async def add_all(store: Store, *ids: str, room: str = ROOM) -> list[bool]:
    """Store webhooks concurrently; return for each whether it is new."""
    added = await asyncio.gather(*(store.add(arrival(id, room=room)) for id in ids))
    return [not one.duplicate for one in added]


async def test_a_duplicate_of_a_locked_webhook_holds_up_no_other_delivery(url: str, opened: Replicas) -> None:
    store = await opened(url)
    await add_all(store, "locked", "known")
    async with locked(url, "webhooks WHERE id = 'locked'") as holding:
        held_up = asyncio.ensure_future(store.add(arrival("locked")))
        async with asyncio.timeout(SOON):
            assert await add_all(store, "known", *map(str, range(MANY))) == [False] + MANY * [True]
        async with asyncio.timeout(SOON):
            assert await add_all(store, "known", "later") == [False, True]
        assert not held_up.done()
        await holding.execute("COMMIT")
        async with asyncio.timeout(BACK_WITHIN):
            assert (await held_up).duplicate
    assert (await record(store, "locked")).deliveries == 2


async def test_a_log_handler_that_fails_to_tell_of_a_locked_row_holds_up_no_delivery(
    url: str, opened: Replicas, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler, fail = logging.Handler(), Mock(side_effect=RuntimeError("the log's service is away"))
    monkeypatch.setattr(handler, "emit", fail)
    monkeypatch.setattr(writer.logger, "handlers", [handler])
    loop = asyncio.get_running_loop()
    store = await opened(url)
    await add_all(store, "locked")
    async with locked(url, "webhooks WHERE id = 'locked'") as holding:
        tests_own = loop.get_exception_handler()
        loop.set_exception_handler(lambda loop, context: None)
        held_up = asyncio.ensure_future(store.add(arrival("locked")))
        await eventually(lambda: fail.called)
        loop.set_exception_handler(tests_own)
        async with asyncio.timeout(SOON):
            assert await add_all(store, "later") == [True]
        await holding.execute("COMMIT")
        async with asyncio.timeout(BACK_WITHIN):
            assert (await held_up).duplicate


async def test_a_locked_duplicate_of_a_sessions_end_holds_up_nothing_else_in_its_room(
    url: str, opened: Replicas
) -> None:
    store = await opened(url)
    await store.add(session_arrival("over"))
    async with locked(url, "webhooks WHERE id = 'over'") as holding:
        held_up = asyncio.ensure_future(store.add(session_arrival("over")))
        async with asyncio.timeout(SOON):
            assert await add_all(store, *map(str, range(MANY))) == MANY * [True]
        await eventually(lambda: getattr(held_up, "held_up", False))
        async with asyncio.timeout(SOON):
            assert await add_all(store, "later") == [True]
        assert not held_up.done()
        await holding.execute("COMMIT")
        assert (await held_up).duplicate


async def test_a_locked_webhook_holds_up_no_other_decision_and_keeps_its_own_until_then(
    url: str, opened: Replicas
) -> None:
    store = await opened(url)
    ids = ["locked", *map(str, range(MANY))]
    added = {id: await store.add(arrival(id)) for id in ids}
    async with locked(url, "webhooks WHERE id = 'locked'") as holding:
        kept, *others = (asyncio.ensure_future(store.decide(decision(added[id].seq, id))) for id in ids)
        store.append_error("locked", "what its listener raised later")
        async with asyncio.timeout(SOON):
            assert await asyncio.gather(*others) == MANY * [True]
            store.append_error("0", "what the listener of another raised")
            await eventually(lambda: has_error(store, "0"))
        assert not kept.done()
        await holding.execute("COMMIT")
        async with asyncio.timeout(BACK_WITHIN):
            assert await kept
    await eventually(lambda: has_error(store, "locked"))
    assert (await record(store, "locked")).state is State.FIRED


async def has_error(store: Store, id: str) -> bool:
    return len((await record(store, id)).errors) == 1


async def test_a_locked_hold_holds_up_no_other_and_fires_once_when_it_is_free(url: str, tmp_path: Path) -> None:
    heard: list[str] = []
    trigger = Trigger()
    trigger.when("room.client.joined", hold=30.0)(lambda: True)
    trigger.on("trigger_event_success", lambda success: heard.append(success.trigger_webhook.id))
    one, other = (webhook("room.client.joined", id=id, room=f"/{id}") for id in ("locked", "other"))
    async with Stage(trigger, tmp_path, store=url) as stage:
        for each in (one, other):
            await stage.deliver(each)
            assert (await stage.decision(each)).state is State.HELD
            stage.forget(each)
        async with locked(url, "webhooks WHERE id = 'locked'") as holding:
            stage.jump(30.0)
            async with asyncio.timeout(BACK_WITHIN):
                assert (await stage.decision(other)).state is State.FIRED
            await holding.execute("COMMIT")
        async with asyncio.timeout(BACK_WITHIN):
            assert (await stage.decision(one)).state is State.FIRED
    assert heard == ["other", "locked"]


async def test_a_locked_room_holds_up_no_other_room_and_no_other_delivery(url: str, opened: Replicas) -> None:
    store = await opened(url)
    await ask(store)
    room = await take_one(store)
    async with locked(url, f"rooms WHERE key = '{ROOM}'") as holding:
        moved = asyncio.ensure_future(move(store, room, RoomState.LIVE))
        ended = asyncio.ensure_future(move(store, room, RoomState.ENDED))
        asked = asyncio.ensure_future(ask(store))
        over = asyncio.ensure_future(store.add(session_arrival("over")))
        async with asyncio.timeout(SOON):
            assert (await ask(store, OTHER)).new
            other = await take_one(store)
            assert await move(store, other, RoomState.LIVE)
            assert await store.stop(OTHER, "by hand") is RoomState.LIVE
            await add_all(store, *map(str, range(MANY)), room=OTHER)
        assert not any(held_up.done() for held_up in (moved, ended, asked, over))
        await holding.execute("COMMIT")
        async with asyncio.timeout(BACK_WITHIN):
            assert await moved
            assert await ended
            assert (await asked).new
            assert not (await over).duplicate


async def test_a_request_that_changes_nothing_waits_for_no_lock_on_its_rooms_row(url: str, opened: Replicas) -> None:
    store = await opened(url)
    await bring_to(store, RoomState.LIVE)
    async with locked(url, f"rooms WHERE key = '{ROOM}'"), asyncio.timeout(SOON):
        claims = await asyncio.gather(*(ask(store) for _ in range(MANY)))
    assert {(claim.new, claim.state, claim.owner) for claim in claims} == {(False, RoomState.LIVE, store.replica)}


async def test_a_locked_room_at_a_bound_holds_up_no_other_and_is_asked_to_end_when_it_is_free(
    url: str, opened: Replicas
) -> None:
    store, at_once = await opened(url), Bounds(None, 1e-9)
    await ask(store)
    await ask(store, OTHER)
    assert len(await store.take(2)) == 2
    async with locked(url, f"rooms WHERE key = '{ROOM}'"), asyncio.timeout(SOON):
        assert [room.key for room in await store.stopping(at_once)] == [OTHER]
    assert {room.key for room in await store.stopping(at_once)} == {ROOM, OTHER}


async def test_what_comes_later_in_a_room_does_not_overtake_the_end_of_its_session(url: str, opened: Replicas) -> None:
    store = await opened(url)
    await ask(store)
    async with locked(url, f"rooms WHERE key = '{ROOM}'") as holding:
        over = asyncio.ensure_future(store.add(session_arrival("over")))
        await eventually(lambda: getattr(over, "held_up", False) or over.done())
        later = asyncio.ensure_future(store.add(arrival("later")))
        await holding.execute("COMMIT")
        assert (await over).seq < (await later).seq


async def test_more_rows_than_can_be_tried_one_by_one_hold_up_nothing_else(url: str, opened: Replicas) -> None:
    store = await opened(url)
    ids = [f"locked {number}" for number in range(400)]
    await add_all(store, *ids)
    async with locked(url, "webhooks") as holding:
        held_up = asyncio.gather(*(store.add(arrival(id)) for id in ids), return_exceptions=True)
        for number in range(5):
            async with asyncio.timeout(SOON):
                assert await add_all(store, f"new {number}") == [True]
        await holding.execute("COMMIT")
        await held_up


async def test_a_delivery_of_a_locked_row_is_refused_when_its_sender_waits_no_longer(
    url: str, opened: Replicas, monkeypatch: pytest.MonkeyPatch
) -> None:
    impatient = structs.replace(writer.ADD, patience=0.5)
    monkeypatch.setattr(postgres_store, "ADD", impatient)
    store = await opened(url)
    await add_all(store, "locked")
    async with locked(url, "webhooks WHERE id = 'locked'"):
        with pytest.raises(StoreUnavailable, match="pg_stat_activity"):
            await store.add(arrival("locked"))


async def test_a_locked_row_of_a_dead_replica_holds_up_the_takeover_of_nothing_else(
    postgres: Server, url: str, opened: Replicas
) -> None:
    dead, heir = await opened(url), await opened(url)
    await add_all(dead, "locked", "free")
    for key in (ROOM, OTHER):
        await ask(dead, key)
        await take_one(dead)
    postgres.run(DIE.format(heir=heir.replica), database_of(url))
    async with locked(url, f"rooms WHERE key = '{ROOM}'"), locked(url, "webhooks WHERE id = 'locked'"):
        async with asyncio.timeout(SOON):
            assert await heir.take_over() == 2
        assert [row.id for row in await heir.pending(0, 10)] == ["free"]
        assert [room.state for room in await heir.rooms()] == [RoomState.WAITING, RoomState.STARTING]
    assert await heir.take_over() == 2
    assert {room.state for room in await heir.rooms()} == {RoomState.WAITING}


async def test_a_locked_lease_that_ran_out_keeps_nobody_from_a_new_one(
    postgres: Server, url: str, opened: Replicas
) -> None:
    store = await opened(url)
    async with locked(url, f"replicas WHERE id = '{store.replica}'"):
        with pytest.raises(StoreUnavailable):
            await store.renew(30.0)
        await store.rejoin(30.0)
        assert await store.renew(30.0)


LONG_DEAD = "UPDATE whereby_trigger.replicas SET expires = 0, seen_at = seen_at - 60 WHERE id <> '{heir}'"
REPLICAS = "SELECT count(*) FROM whereby_trigger.replicas"


async def test_a_locked_lease_that_ran_out_keeps_from_nobody_what_it_was_for(
    postgres: Server, url: str, opened: Replicas
) -> None:
    dead, heir = await opened(url), await opened(url)
    await add_all(dead, "one", "two")
    await ask(dead)
    await take_one(dead)
    postgres.run(LONG_DEAD.format(heir=heir.replica), database_of(url))
    async with locked(url, f"replicas WHERE id = '{dead.replica}'"):
        async with asyncio.timeout(SOON):
            assert await heir.take_over() == 3
            assert await heir.take_over() == 0
        assert [row.id for row in await heir.pending(0, 10)] == ["one", "two"]
        assert [room.state for room in await heir.rooms()] == [RoomState.WAITING]
    await heir.take_over()
    assert postgres.run(REPLICAS, database_of(url)) == "1"


async def test_a_replica_whose_lease_is_locked_gives_back_what_it_has_when_it_stops(url: str, opened: Replicas) -> None:
    leaving, other = await opened(url), await opened(url)
    await add_all(leaving, "one")
    await ask(leaving)
    await take_one(leaving)
    async with locked(url, f"replicas WHERE id = '{leaving.replica}'"):
        await leaving.close()
        assert await other.take_over() == 1
        assert [room.state for room in await other.rooms()] == [RoomState.WAITING]


@pytest.mark.parametrize("mode", ["SHARE", "EXCLUSIVE", "ACCESS EXCLUSIVE"])
async def test_what_waits_for_a_locked_table_is_done_soon_after_it_is_free(
    url: str, opened: Replicas, mode: str
) -> None:
    store = await opened(url)
    first = await store.add(arrival("first"))
    async with connected(url) as holding:
        await holding.execute(f"BEGIN; LOCK TABLE whereby_trigger.webhooks IN {mode} MODE")
        deciding = asyncio.ensure_future(store.decide(decision(first.seq, "first")))
        async with connected(url) as looking:
            await eventually(lambda: looking.fetchval(WAITING))
        adding = [asyncio.ensure_future(store.add(arrival(str(number)))) for number in range(MANY)]
        await holding.execute("COMMIT")
        async with asyncio.timeout(BACK_WITHIN):
            assert await deciding
            await asyncio.gather(*adding)
    assert len(await store.find(Query())) == 1 + MANY
