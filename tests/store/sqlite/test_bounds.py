"""Bounds on SQLite: max_duration uses the boot clock, which nobody sets, while the machine is up."""

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.clock import JumpingClock
from tests.support.rooms import bring_to, move, take_one
from whereby_trigger.store import Bounds, RoomState, Store
from whereby_trigger.store.sqlite import SqliteStore

pytestmark = pytest.mark.anyio

TTL, HOUR, DAY = 1e6, 3600.0, 86400.0
LONG = Bounds(None, HOUR)
TOO_LONG = "an assistant for 1 h: max_duration"
LIVE, WAITING = RoomState.LIVE, RoomState.WAITING


@pytest.fixture
def boot() -> JumpingClock:
    return JumpingClock(standing=True)


@pytest.fixture
def date() -> JumpingClock:
    return JumpingClock(standing=True)


@pytest.fixture
async def store(url: str, boot: JumpingClock, date: JumpingClock) -> AsyncIterator[Store]:
    store = SqliteStore(url, TTL, boot, date.now)
    await store.open(lambda: None)
    yield store
    await store.close()


@pytest.mark.parametrize("days", [1, -1])
async def test_max_duration_does_not_depend_on_the_date(
    boot: JumpingClock, date: JumpingClock, store: Store, days: int
) -> None:
    await bring_to(store, LIVE)
    date.jump(days * DAY)
    boot.jump(HOUR - 1)
    assert await store.stopping(LONG) == []
    boot.jump(1)
    assert [room.stop for room in await store.stopping(LONG)] == [TOO_LONG]


async def test_after_a_boot_max_duration_goes_by_the_date(
    url: str, boot: JumpingClock, date: JumpingClock, store: Store
) -> None:
    await bring_to(store, LIVE)
    boot.reboot()
    other = SqliteStore(url, TTL, boot, date.now)
    await other.open(lambda: None)
    await other.take_over()
    assert (await take_one(other)).attempt == 2
    date.jump(HOUR - 1)
    assert await other.stopping(LONG) == []
    date.jump(1)
    assert [room.stop for room in await other.stopping(LONG)] == [TOO_LONG]
    await other.close()


async def test_a_platform_that_does_not_tell_its_boots_goes_by_the_date(url: str, date: JumpingClock) -> None:
    store = SqliteStore(url, TTL, lambda: ("", 0.0), date.now)
    await store.open(lambda: None)
    await bring_to(store, LIVE)
    date.jump(HOUR)
    assert [room.stop for room in await store.stopping(LONG)] == [TOO_LONG]
    await store.close()


async def test_a_room_that_a_program_without_bounds_had_counts_from_when_it_was_asked_for(
    path: Path, date: JumpingClock, store: Store
) -> None:
    room = await bring_to(store, LIVE)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("UPDATE rooms SET began_at = NULL, began_boot = NULL, began_up = NULL")
    connection.close()
    date.jump(HOUR)
    assert await store.stopping(LONG) == []
    assert await move(store, room, WAITING)
    await take_one(store)
    assert [room.stop for room in await store.stopping(LONG)] == [TOO_LONG]
