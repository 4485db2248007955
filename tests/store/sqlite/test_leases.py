"""Leases across a restart of the machine, on platforms with less information, and beside programs without leases."""

import os
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.arrivals import arrival
from tests.support.clock import JumpingClock
from tests.support.rooms import bring_to, newest, states
from tests.support.sqlite_place import SqlitePlace
from whereby_trigger.errors import StoreUnavailable
from whereby_trigger.store import RoomState, Store
from whereby_trigger.store.sqlite import SqliteStore
from whereby_trigger.store.sqlite.lock import Life, LifeLock, life_file, life_of, remove_life_file

pytestmark = pytest.mark.anyio

TTL = 30.0


@pytest.fixture
def clock() -> JumpingClock:
    return JumpingClock(standing=True)


@pytest.fixture
async def store(url: str, clock: JumpingClock) -> AsyncIterator[Store]:
    store = SqliteStore(url, TTL, clock)
    await store.open(lambda: None)
    yield store
    await store.close()


@pytest.fixture
async def other(url: str, clock: JumpingClock) -> AsyncIterator[Store]:
    other = SqliteStore(url, TTL, clock)
    await other.open(lambda: None)
    yield other
    await other.close()


async def test_a_lease_of_another_start_of_the_machine_is_not_renewed(clock: JumpingClock, store: Store) -> None:
    clock.reboot()
    assert not await store.renew(TTL)


async def test_a_lease_is_renewed_while_nothing_can_be_opened(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SqliteStore(url, TTL)
    await store.open(lambda: None)
    # As with no file descriptor left: which start of the machine this is cannot be read again.
    monkeypatch.setattr("whereby_trigger.clock.BOOT_ID", tmp_path / "none")
    assert await store.renew(TTL)
    await store.close()


async def test_a_file_that_shows_a_life_and_cannot_be_removed_hinders_nobody(
    url: str, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(path)

    monkeypatch.setattr(Path, "unlink", refuse)
    store = SqliteStore(url, TTL)
    await store.open(lambda: None)
    await store.rejoin(TTL)
    assert await store.renew(TTL)
    os.close(LifeLock(path, "gone").descriptor)
    assert life_of(path, "gone") is Life.DEAD
    assert remove_life_file(path, "gone")
    assert life_of(path, store.replica) is Life.RUNS
    assert not remove_life_file(path, store.replica)
    await store.close()


async def test_the_lease_of_another_start_of_the_machine_is_void(url: str, clock: JumpingClock, store: Store) -> None:
    await bring_to(store, RoomState.LIVE)
    clock.reboot()
    after = SqliteStore(url, TTL, clock)
    await after.open(lambda: None)
    try:
        assert await after.take_over() == 1
        assert await states(after) == [RoomState.WAITING]
    finally:
        await after.close()


async def test_a_rejoin_that_fails_can_be_tried_again(tmp_path: Path, store: Store, other: Store) -> None:
    room = await bring_to(store, RoomState.LIVE)
    away = tmp_path.rename(tmp_path.with_name("away"))
    try:
        with pytest.raises(StoreUnavailable, match="no new replica"):
            await store.rejoin(TTL)
    finally:
        away.rename(tmp_path)
    assert await other.take_over() == 0
    assert await newest(other) == room
    await store.rejoin(TTL)
    assert await store.renew(TTL)
    assert await other.take_over() == 1


async def test_a_frozen_replica_is_found_where_the_platform_tells_no_start_of_the_machine(url: str) -> None:
    at = 1000.0
    frozen, other = (SqliteStore(url, TTL, lambda: ("", at)) for _ in range(2))
    await frozen.open(lambda: None)
    await bring_to(frozen, RoomState.LIVE)
    at += TTL - 1
    await other.open(lambda: None)
    try:
        assert await other.take_over() == 0
        at += 2
        assert await other.take_over() == 1
        assert await states(other) == [RoomState.WAITING]
    finally:
        await other.close()
        await frozen.close()


async def test_a_live_replica_of_a_program_without_leases_keeps_what_it_has(url: str, path: Path) -> None:
    older, newer = SqliteStore(url), SqliteStore(url)
    await older.open(lambda: None)
    await newer.open(lambda: None)
    try:
        await bring_to(older, RoomState.LIVE)
        with sqlite3.connect(path) as connection:
            connection.execute("UPDATE replicas SET boot = '', expires = 0 WHERE id = ?", (older.replica,))
        connection.close()
        assert await newer.take_over() == 0
        await older.close()
        assert await states(newer) == [RoomState.WAITING]
    finally:
        await newer.close()
        await older.close()


async def test_a_replica_whose_file_was_removed_keeps_its_rooms_until_its_lease_has_run_out(
    path: Path, clock: JumpingClock, store: Store, other: Store
) -> None:
    room = await bring_to(store, RoomState.LIVE)
    life_file(path, store.replica).unlink()
    assert await other.take_over() == 0
    assert await newest(other) == room
    clock.jump(TTL - 1)
    assert await other.renew(TTL)
    assert await other.take_over() == 0
    clock.jump(2)
    assert await other.take_over() == 1


@pytest.mark.parametrize("content", ["", "123"])
async def test_a_file_in_the_place_of_a_live_replicas_says_nothing_of_its_death(
    path: Path, clock: JumpingClock, store: Store, other: Store, content: str
) -> None:
    room = await bring_to(store, RoomState.LIVE)
    life = life_file(path, store.replica)
    life.unlink()
    life.write_text(content)
    assert await other.take_over() == 0
    assert await newest(other) == room
    clock.jump(TTL + 1)
    await other.rejoin(TTL)
    assert await other.take_over() == 1
    assert not life.exists()


async def test_a_replica_whose_file_was_removed_says_so_once(
    path: Path, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    assert await store.renew(TTL)
    assert caplog.messages == []
    life_file(path, store.replica).unlink()
    for _ in range(3):
        assert await store.renew(TTL)
    (message,) = caplog.messages
    assert "removed" in message


async def test_a_dead_replica_whose_guard_lives_keeps_its_rooms_but_not_its_webhooks(
    url: str, path: Path, store: Store, other: Store
) -> None:
    room = await bring_to(store, RoomState.LIVE)
    added = await store.add(arrival("undecided"))
    assert store.life is not None
    guards = os.dup(store.life)
    try:
        await SqlitePlace(Path(url)).crash(store)
        assert life_of(path, store.replica) is Life.GUARDED
        assert await other.take_over() == 1
        assert [pending.seq for pending in await other.pending(0, 10)] == [added.seq]
        assert await other.take_over() == 0
        assert (await newest(other)).owner == room.owner
    finally:
        os.close(guards)
    assert await other.take_over() == 1
