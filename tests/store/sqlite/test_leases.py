"""Leases on platforms that tell less, and beside programs that knew none."""

import sqlite3
from pathlib import Path

import pytest

from tests.support.rooms import bring_to, states
from whereby_trigger.store import RoomState
from whereby_trigger.store.sqlite import SqliteStore

pytestmark = pytest.mark.anyio

TTL = 30.0


async def test_a_frozen_replica_is_found_where_the_platform_tells_no_start_of_the_machine(url: str) -> None:
    at = 1000.0
    frozen, other = (SqliteStore(url, TTL, lambda: ("", at)) for _ in range(2))
    await frozen.open(lambda: None)
    await bring_to(frozen, RoomState.LIVE)
    at += TTL - 1
    await other.open(lambda: None)
    try:
        assert await other.claim() == 0
        at += 2
        assert await other.claim() == 1
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
        assert await newer.claim() == 0
        await older.close()
        assert await states(newer) == [RoomState.WAITING]
    finally:
        await newer.close()
        await older.close()
