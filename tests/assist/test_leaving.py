"""Assistants that leave at a bound, through the whole trigger: an empty room, or any room after a time."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.assist.programs import child
from tests.support.asgi import post
from tests.support.clock import JumpingClock
from tests.support.counts import people
from tests.support.http import SECRET
from tests.support.outage import AwayStore
from tests.support.presence import Presence
from tests.support.supervised import Assistants, Supervised
from tests.support.until import AT_ONCE, eventually
from whereby_trigger import Trigger
from whereby_trigger.store import Bounds, Room, RoomState, RunQuery
from whereby_trigger.store.sqlite import SqliteStore
from whereby_trigger.testing import webhook

pytestmark = pytest.mark.anyio

WAITING, STARTING, LIVE, ENDING, ENDED, FAILED = RoomState
SHORT = 0.3
LONG = 600.0
VISIT = "acme.whereby.com/visit-1"
EMPTY = Bounds(60.0, None)
NOBODY = "nobody was in the room for 60 s"


@pytest.fixture
def assistants() -> Assistants:
    return Assistants()


class Meeting:
    """Deliver what Whereby sends about some rooms to a running trigger, and read its rooms."""

    def __init__(self, trigger: Trigger) -> None:
        self._trigger = trigger

    async def joins(self, room: str, humans: int = 1) -> None:
        await self._deliver("room.client.joined", room, humans)

    async def leaves(self, room: str, humans: int = 0) -> None:
        await self._deliver("room.client.left", room, humans)

    async def _deliver(self, type: Any, room: str, humans: int) -> None:
        counts = {"visitor": humans} if humans else {}
        sent = webhook(type, room=f"/{room}", num_clients=humans, num_clients_by_role_name=counts)
        assert (await post(self._trigger.asgi, sent.raw)).status == 200

    async def reaches(self, state: RoomState, name: str) -> Room:
        async def look() -> Room | None:
            found = [room for room in await self._trigger.list_assistants() if room.key.endswith(f"/{name}")]
            return found[0] if found and found[0].state is state else None

        room: Room = await eventually(look)
        return room


@asynccontextmanager
async def serving(folder: Path, register: Callable[[Trigger], None], **settings: Any) -> AsyncIterator[Meeting]:
    """Start one more process of a program that runs an assistant when somebody joins."""
    trigger = Trigger(
        webhook_triggers={"room.client.joined": lambda: True},
        secret=SECRET,
        store=f"sqlite:///{folder}/rooms.db",
        drain_timeout=0,
        **settings,
    )
    register(trigger)
    async with trigger.lifespan():
        yield Meeting(trigger)


async def test_three_empty_rooms_whose_ends_are_lost_make_room_for_a_fourth(
    tmp_path: Path, assistants: Assistants
) -> None:
    def register(trigger: Trigger) -> None:
        trigger.assistant(leave_when_empty=SHORT)(assistants.stay)

    async with serving(tmp_path, register, max_rooms=3) as meeting:
        for name in "abc":
            await meeting.joins(name)
            await meeting.reaches(LIVE, name)
        for name in "abc":
            await meeting.leaves(name)
        empty_since = time.monotonic()
        await meeting.joins("fourth")
        await eventually(lambda: ("fourth", 1) in assistants.started, within=SHORT + 2)
        assert time.monotonic() - empty_since >= SHORT
        for name in "abc":
            assert (await meeting.reaches(ENDED, name)).reason == f"nobody was in the room for {SHORT} s"
            assert assistants.sessions[name].ended.reason == f"nobody was in the room for {SHORT} s"


async def test_after_a_restart_no_empty_room_gets_its_assistant_until_somebody_comes_back(
    tmp_path: Path, assistants: Assistants
) -> None:
    def register(trigger: Trigger) -> None:
        trigger.assistant(leave_when_empty=LONG)(assistants.stay)

    async with serving(tmp_path, register, max_rooms=3, stop_grace=0.1) as meeting:
        for name in "abc":
            await meeting.joins(name)
            await meeting.reaches(LIVE, name)
            await meeting.leaves(name)
    assistants.started.clear()
    async with serving(tmp_path, register, max_rooms=4, stop_grace=0.1) as meeting:
        # Rooms are taken in the order of their requests, and there is a slot for each.
        await meeting.joins("fourth")
        await meeting.reaches(LIVE, "fourth")
        await meeting.joins("b")
        assert (await meeting.reaches(LIVE, "b")).attempt == 2
        for name in "ac":
            await meeting.reaches(WAITING, name)
    assert assistants.started == [("fourth", 1), ("b", 2)]


async def test_a_command_is_told_to_leave_when_its_room_is_empty(tmp_path: Path, presence: Presence) -> None:
    def register(trigger: Trigger) -> None:
        trigger.assistant_command(child(presence, "A"), leave_when_empty=SHORT)

    async with serving(tmp_path, register) as meeting:
        await meeting.joins("visit-1")
        await meeting.reaches(LIVE, "visit-1")
        await meeting.leaves("visit-1")
        assert (await meeting.reaches(ENDED, "visit-1")).reason == f"nobody was in the room for {SHORT} s"
        await asyncio.to_thread(presence.everybody_gone)


async def test_a_command_is_told_to_leave_after_max_duration(tmp_path: Path, presence: Presence) -> None:
    def register(trigger: Trigger) -> None:
        trigger.assistant_command(child(presence, "A"), leave_when_empty=None, max_duration=SHORT)

    async with serving(tmp_path, register) as meeting:
        await meeting.joins("visit-1")
        ended = await meeting.reaches(ENDED, "visit-1")
        assert (ended.reason, ended.attempt) == (f"an assistant for {SHORT} s: max_duration", 1)
        await asyncio.to_thread(presence.everybody_gone)


# On a store whose clock the test moves


@pytest.fixture
def clock() -> JumpingClock:
    return JumpingClock()


async def test_a_room_that_another_replica_knows_to_be_empty_is_left(
    tmp_path: Path, clock: JumpingClock, assistants: Assistants
) -> None:
    def store() -> SqliteStore:
        return SqliteStore(f"sqlite:///{tmp_path}/rooms.db", wall=clock.now)

    idle = Supervised(store(), assistants.stay, max_rooms=0, bounds=EMPTY)
    async with Supervised(store(), assistants.stay, bounds=EMPTY) as one, idle as two:
        await one.ask()
        assert (await one.reaches(LIVE)).owner == one.store.replica
        await people(two.store, 0, VISIT)
        clock.jump(60)
        assert (await two.reaches(ENDED)).reason == NOBODY
        assert assistants.sessions["visit-1"].ended.reason == NOBODY


async def test_a_person_who_comes_back_keeps_the_assistant(
    tmp_path: Path, clock: JumpingClock, assistants: Assistants
) -> None:
    store = SqliteStore(f"sqlite:///{tmp_path}/rooms.db", wall=clock.now)
    async with Supervised(store, assistants.stay, bounds=EMPTY) as one:
        for name in ("visit-1", "visit-2"):
            await one.ask(name)
            await one.reaches(LIVE, name)
            await people(one.store, 0, f"acme.whereby.com/{name}")
        clock.jump(55)
        await people(one.store, 1, VISIT)
        clock.jump(55)
        assert (await one.reaches(ENDED, "visit-2")).reason == NOBODY
        assert assistants.there == ["visit-1"]


async def test_an_assistant_is_told_to_leave_soon_after_a_store_that_was_away_is_back(
    tmp_path: Path, assistants: Assistants
) -> None:
    async with Supervised(
        AwayStore(f"sqlite:///{tmp_path}/rooms.db"), assistants.stay, bounds=Bounds(SHORT, None)
    ) as one:
        await one.ask()
        await one.reaches(LIVE)
        await people(one.store, 0, VISIT)
        away_since = time.monotonic()
        one.store.go_down()  # type: ignore[attr-defined]
        await eventually(lambda: time.monotonic() > away_since + 2 * SHORT)
        assert not assistants.sessions["visit-1"].ended.is_set()
        one.store.come_back()  # type: ignore[attr-defined]
        one.supervisor.wake()
        await eventually(assistants.sessions["visit-1"].ended.is_set, within=AT_ONCE)
        assert (await one.reaches(ENDED)).reason == f"nobody was in the room for {SHORT} s"


async def test_a_room_that_stays_empty_while_it_waits_for_its_assistant_ends_with_the_reason(
    tmp_path: Path, clock: JumpingClock, assistants: Assistants, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("whereby_trigger.assist.supervisor.END_WAITING_EVERY", 0.1)

    async def fails(session: Any) -> None:
        await people(store, 0, VISIT)
        raise RuntimeError

    store = SqliteStore(f"sqlite:///{tmp_path}/rooms.db", wall=clock.now)
    async with Supervised(store, fails, bounds=EMPTY) as one:
        await one.ask()
        assert (await one.reaches(WAITING, attempt=1)).reason == "raised RuntimeError: restart 1 of 3"
        clock.jump(60)
        ended = await one.reaches(ENDED)
        (run,) = await store.find_runs(RunQuery(entry=ended.id))
        assert (ended.reason, run.attempt, run.exception) == (NOBODY, 1, "RuntimeError")


async def test_an_assistant_has_stop_grace_to_leave_an_empty_room(
    tmp_path: Path, clock: JumpingClock, assistants: Assistants
) -> None:
    store = SqliteStore(f"sqlite:///{tmp_path}/rooms.db", wall=clock.now)
    told, go = asyncio.Event(), asyncio.Event()

    async def takes_its_time(session: Any) -> None:
        await session.ended
        told.set()
        await go.wait()

    async with Supervised(store, takes_its_time, bounds=EMPTY) as one:
        await one.ask()
        await one.reaches(LIVE)
        await people(one.store, 0, VISIT)
        clock.jump(60)
        await one.reaches(ENDING)
        assert told.is_set()
        await one.ask()
        go.set()
        await one.reaches(LIVE)
        ended = [room for room in await one.store.rooms() if room.state is ENDED]
        assert [room.reason for room in ended] == [NOBODY]
