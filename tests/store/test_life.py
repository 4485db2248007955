"""A replica's life: opened, notified of what others write, closed with nothing lost."""

import asyncio
import errno
from collections.abc import Awaitable, Callable

import pytest

from tests.store.conftest import Replicas
from tests.support.arrivals import NOW, ROOM, arrival, decided, decision
from tests.support.place import TTL, Place
from tests.support.rooms import ask, request, take_one
from whereby_trigger.errors import StoreUnavailable
from whereby_trigger.store import UNBOUNDED, Query, RoomMove, RoomState, State, Store

pytestmark = pytest.mark.anyio


async def test_closing_finishes_what_was_handed_over(place: Place, replicas: Replicas) -> None:
    store = place.replica()
    await store.open(lambda: None)
    adding = [store.add(arrival(str(n))) for n in range(3000)]
    await store.close()
    assert not any(added.duplicate for added in await asyncio.gather(*adding))
    assert len(await (await replicas()).find(Query())) == 3000


async def test_closing_twice_or_unopened_is_no_error(place: Place) -> None:
    store = place.replica()
    await store.close()
    await store.open(lambda: None)
    await store.close()
    await store.close()


Verb = Callable[[Store], Awaitable[object]]

VERBS: dict[str, Verb] = {
    "add": lambda store: store.add(arrival("a")),
    "decide": lambda store: store.decide(decision(1, "a")),
    "blame": lambda store: store.begin_attempt(1),
    "claim": lambda store: store.take_over(),
    "pending": lambda store: store.pending(0, 1),
    "find": lambda store: store.find(Query()),
    "replay": lambda store: store.replay(Query(), NOW),
    "prune": lambda store: store.prune(NOW),
    "ping": lambda store: store.ping(NOW),
    "renew": lambda store: store.renew(TTL),
    "request": lambda store: store.request(request()),
    "take": lambda store: store.take(1),
    "move": lambda store: store.move(RoomMove(1, RoomState.LIVE, "")),
    "stop": lambda store: store.stop(ROOM, "stopped by hand"),
    "rooms": lambda store: store.rooms(),
    "stopping": lambda store: store.stopping(),
    "end waiting": lambda store: store.end_waiting(UNBOUNDED),
    "heard": lambda store: store.webhooks_after(0, frozenset({ROOM})),
}


async def test_a_closed_store_can_do_nothing_now_and_says_so(place: Place) -> None:
    store = place.replica()
    await store.open(lambda: None)
    await store.close()
    for verb in VERBS.values():
        with pytest.raises(StoreUnavailable, match="not open"):
            await verb(store)


async def test_a_read_that_begins_just_before_the_store_is_closed_ends(place: Place) -> None:
    store = place.replica()
    await store.open(lambda: None)
    reading = asyncio.ensure_future(store.find(Query()))
    await store.close()
    with pytest.raises(StoreUnavailable, match=r"closed|not open"):
        async with asyncio.timeout(5):
            await reading


async def test_a_note_to_a_closed_store_is_lost_quietly(place: Place) -> None:
    store = place.replica()
    await store.open(lambda: None)
    await store.close()
    store.append_error("a", "too late")


async def test_no_two_replicas_have_the_same_id(place: Place, replicas: Replicas) -> None:
    opened = [await replicas() for _ in range(3)]
    assert len({store.replica for store in [*opened, place.replica()]}) == 4


async def test_all_replicas_say_where_the_store_is(place: Place, store: Store) -> None:
    assert store.location == place.replica().location


async def test_ping_succeeds_where_writes_do_and_stores_no_webhook(store: Store) -> None:
    await store.ping(NOW)
    assert await store.find(Query()) == []


async def test_a_replica_is_told_when_another_has_written(replicas: Replicas) -> None:
    told = asyncio.Event()
    writer = await replicas()
    await replicas(told.set)
    for n in range(3):
        told.clear()
        await writer.add(arrival(str(n)))
        await asyncio.wait_for(told.wait(), 5)


async def test_a_replica_is_told_of_a_replay_by_another(replicas: Replicas) -> None:
    told = asyncio.Event()
    store, other = await replicas(told.set), await replicas()
    await decided(store, "a")
    told.clear()
    await other.replay(Query(), NOW)
    await asyncio.wait_for(told.wait(), 5)
    assert await store.take_over() == 1


async def test_looking_into_a_store_reads_it_and_changes_nothing(place: Place, replicas: Replicas) -> None:
    store = await replicas()
    await decided(store, "a", State.FIRED)
    await store.add(arrival("b"))
    looking = place.replica()
    await looking.open_readonly()
    try:
        assert [found.id for found in await looking.find(Query())] == ["b", "a"]
        assert await looking.pending(0, 10) == []
        with pytest.raises(StoreUnavailable, match="not open for writing"):
            await looking.add(arrival("c"))
    finally:
        await looking.close()
    assert await store.take_over() == 0


async def test_a_store_is_migrated_on_its_own_once(place: Place) -> None:
    first = place.before_the_first()
    applied = await first.migrate()
    assert applied == sorted(applied)
    assert applied[0] == 1
    assert await first.migrate() == []


async def test_a_process_that_can_no_longer_read_the_packages_files_makes_a_store(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root started the process, in a folder that only root can enter, and it has dropped root's rights."""

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    store = place.before_the_first()
    monkeypatch.setattr("importlib.resources.files", refuse)
    await store.open(lambda: None)
    await store.close()


async def test_a_store_whose_close_is_cancelled_gives_back_its_rooms_all_the_same(
    place: Place, replicas: Replicas
) -> None:
    other, leaving = await replicas(), place.replica()
    await leaving.open(lambda: None)
    await ask(leaving)
    await take_one(leaving)
    closing = asyncio.ensure_future(leaving.close())
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.wait({closing})
    assert closing.cancelled()
    assert [room.state for room in await other.rooms()] == [RoomState.WAITING]
