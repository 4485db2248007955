"""Rooms that are given up: by a drain, by a hand-over that may be cancelled, and by losing them to another replica."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.clock import JumpingClock
from tests.support.supervised import Assistants, Supervised
from tests.support.until import AT_ONCE, eventually
from whereby_trigger.assist import Session
from whereby_trigger.assist.runners import Run, RunEnd, RunResult
from whereby_trigger.store import RoomState, Store
from whereby_trigger.store.sqlite import SqliteStore

pytestmark = pytest.mark.anyio

WAITING, LIVE, ENDED = RoomState.WAITING, RoomState.LIVE, RoomState.ENDED
TTL = 30.0

Stores = Callable[[], SqliteStore]


@pytest.fixture
def clock() -> JumpingClock:
    return JumpingClock()


@pytest.fixture
def store(tmp_path: Path, clock: JumpingClock) -> Callable[[], SqliteStore]:
    return lambda: SqliteStore(f"sqlite:///{tmp_path}/rooms.db", TTL, clock)


@pytest.fixture
def assistants() -> Assistants:
    return Assistants()


async def test_a_drain_launches_nothing_more_and_waits_for_what_runs(store: Stores, assistants: Assistants) -> None:
    async with Supervised(store(), assistants.stay) as one:
        await one.ask("a")
        await one.reaches(LIVE, "a")
        draining = asyncio.create_task(one.supervisor.drain(60))
        await asyncio.sleep(0)
        await one.ask("b")
        assert one.supervisor.free == 0
        assistants.let_go("a")
        await draining
        await one.reaches(ENDED, "a")
        assert (await one.reaches(WAITING, "b")).attempt == 0


async def test_a_drain_waits_no_longer_than_it_is_told(store: Stores, assistants: Assistants) -> None:
    async with Supervised(store(), assistants.stay) as one:
        await one.ask()
        await one.reaches(LIVE)
        await asyncio.wait_for(one.supervisor.drain(0.01), 5)
        assert assistants.there == ["visit-1"]


async def test_a_hand_over_ends_every_assistant_and_another_replica_has_its_room_within_a_second(
    store: Stores, assistants: Assistants
) -> None:
    async with Supervised(store(), assistants.stay) as one, Supervised(store(), assistants.stay, max_rooms=0) as two:
        for name in "ab":
            await one.ask(name)
            await one.reaches(LIVE, name)
        two.supervisor.slots = 10
        await one.supervisor.hand_over("the replica is draining")
        assert assistants.sessions["a"].ended.reason == "the replica is draining"
        for name in "ab":
            room = await two.reaches(LIVE, name, attempt=2, within=AT_ONCE)
            assert (room.owner, room.restarts) == (two.store.replica, 0)
        assert assistants.most == 2


async def test_a_replica_that_closes_gives_its_rooms_to_another_within_a_second(
    store: Stores, assistants: Assistants
) -> None:
    async with Supervised(store(), assistants.stay, max_rooms=1) as other:
        await other.ask("busy")
        await other.reaches(LIVE, "busy")
        async with Supervised(store(), assistants.stay) as leaving:
            await leaving.ask("a")
            await leaving.reaches(LIVE, "a")
            assistants.let_go("busy")
            await leaving.reaches(ENDED, "busy")
        await other.reaches(LIVE, "a", attempt=2, within=AT_ONCE)


async def test_one_that_leaves_after_the_hand_over_was_called_off_is_not_taken_for_done(store: Stores) -> None:
    attempts: list[int] = []
    leave = asyncio.Event()

    async def lingers(session: Session) -> None:
        attempts.append(session.attempt)
        await session.ended
        await leave.wait()

    async with Supervised(store(), lingers) as one:
        await one.ask()
        await one.reaches(LIVE)
        handing_over = asyncio.create_task(one.supervisor.hand_over("the lease runs out"))
        await asyncio.sleep(0)
        one.supervisor.resume()
        leave.set()
        await handing_over
        assert (await one.reaches(LIVE, attempt=2)).restarts == 0
        assert attempts == [1, 2]


async def test_one_that_clings_to_its_room_however_often_it_is_cut_off_keeps_the_room(store: Stores) -> None:
    released, cancelled = asyncio.Event(), []

    async def clings(session: Session) -> None:
        while not released.is_set():
            try:
                await released.wait()
            except asyncio.CancelledError:
                cancelled.append(True)

    async with Supervised(store(), clings) as one, Supervised(store(), clings) as two:
        await one.ask()
        room = await one.reaches(LIVE)
        owner = {one.store.replica: one, two.store.replica: two}[room.owner or ""]
        try:
            cutting = [asyncio.create_task(owner.supervisor.cut_off("the lease runs out"))]
            await eventually(lambda: cancelled)
            cutting.append(asyncio.create_task(owner.supervisor.cut_off("the lease has run out")))
            for _ in range(10):
                await asyncio.sleep(0)
            assert owner.supervisor.running, "the room was given up with the assistant still in it"
            assert not any(task.done() for task in cutting)
            assert (await one.reaches(LIVE)).owner == room.owner
        finally:
            released.set()
        await asyncio.gather(*cutting)


async def test_a_room_that_is_taken_just_as_the_rooms_are_handed_over_waits_for_another(
    store: Stores, assistants: Assistants
) -> None:
    async with Supervised(store(), assistants.stay) as one:
        taking = Taking(one.store)
        one.supervisor._store = taking  # type: ignore[assignment]
        await one.ask()
        await taking.taken.wait()
        await one.supervisor.hand_over("the lease runs out")
        taking.go_on.set()
        await one.reaches(WAITING, attempt=1)
        assert one.supervisor.running is False
        assert assistants.started == []
        one.supervisor.resume()
        assert (await one.reaches(LIVE, attempt=2)).restarts == 0


@pytest.mark.parametrize("turns", range(5))
async def test_a_supervisor_that_is_woken_as_it_is_cancelled_ends_all_the_same(store: Stores, turns: int) -> None:
    idle = Supervised(store(), Assistants().stay)
    await idle.store.open(lambda: None)
    supervising = asyncio.create_task(idle.supervisor.supervise())
    await eventually(lambda: idle.supervisor._woken._waiters)
    idle.supervisor.wake()
    for _ in range(turns):
        await asyncio.sleep(0)
    supervising.cancel()
    done, _ = await asyncio.wait({supervising}, timeout=5)
    supervising.cancel()
    await asyncio.wait({supervising})
    await idle.store.close()
    assert done


class Taking:
    """A store that holds back taken rooms until `go_on` is set."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.taken, self.go_on = asyncio.Event(), asyncio.Event()

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    async def take(self, *asked: Any) -> object:
        rooms = await self._store.take(*asked)
        if rooms:
            self.taken.set()
            await self.go_on.wait()
        return rooms


async def test_an_assistant_whose_room_was_taken_over_before_it_was_there_is_ended(
    store: Stores, clock: JumpingClock, assistants: Assistants
) -> None:
    starting, go_on, cut = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def launch(run: Run, launched: Callable[[int | None], None]) -> RunResult:
        starting.set()
        await go_on.wait()
        launched(None)
        try:
            await asyncio.Event().wait()
        finally:
            cut.set()
        return RunResult(RunEnd.RETURNED, "never")

    async with Supervised(store(), launch=launch) as frozen, Supervised(store(), assistants.stay) as two:
        two.supervisor.slots = 0
        await frozen.ask()
        await starting.wait()
        clock.jump(TTL - 1)
        assert await two.store.renew(TTL)
        clock.jump(2)
        two.supervisor.slots = 10
        assert await two.store.take_over() == 1
        two.supervisor.wake()
        await two.reaches(LIVE)
        go_on.set()
        await asyncio.wait_for(cut.wait(), 5)
        assert (await two.reaches(LIVE)).owner == two.store.replica
        assert assistants.there == ["visit-1"]
