"""Counts in tests: webhooks that say who is in a room, and what a store keeps of them."""

import itertools
import sqlite3
from datetime import UTC, datetime

import asyncpg

from tests.support.arrivals import NOW, ROOM
from tests.support.place import Place
from whereby_trigger.store import Added, Arrival, Count, Presence, Store

_numbers = itertools.count()
HUMANS_STORED_AT = "SELECT humans_stored_at FROM {}presence WHERE key = '{}'"


def at(seconds: float) -> datetime:
    """Return the time `seconds` seconds after NOW."""
    return datetime.fromtimestamp(NOW + seconds, UTC)


def count(seconds: float, humans: int, bots: int = 0, *, room: str = ROOM, session_id: str | None = None) -> Count:
    """Return a count that was taken `seconds` seconds after NOW."""
    return Count(room, humans, bots, NOW + seconds, session_id)


def counted(id: str, said: Count, *, received_at: float = NOW) -> Arrival:
    """Return the arrival of a webhook with a count."""
    return Arrival(id, "room.client.joined", said.key, b"{}", received_at, count=said)


async def say(store: Store, id: str, seconds: float, humans: int, bots: int = 0, *, room: str = ROOM) -> Added:
    """Store a webhook with a count."""
    return await store.add(counted(id, count(seconds, humans, bots, room=room)))


async def people(store: Store, humans: int, room: str = ROOM) -> Added:
    """Store the newest webhook so far, which says how many people are in a room."""
    number = next(_numbers)
    return await say(store, f"people {number}", number, humans, room=room)


async def presence(store: Store, room: str = ROOM) -> Presence:
    """Read one room's presence."""
    return (await store.presences(frozenset({room})))[room]


TOO_MANY = 100


async def refuse_too_many(place: Place) -> None:
    """Make the database refuse to write TOO_MANY humans or more."""
    if place.url.startswith("sqlite:///"):
        with sqlite3.connect(place.url.removeprefix("sqlite:///")) as file:
            file.execute(
                f"CREATE TRIGGER too_many BEFORE INSERT ON presence WHEN new.humans >= {TOO_MANY} "
                "BEGIN SELECT RAISE(ABORT, 'too many'); END"
            )
        file.close()
        return
    connection = await asyncpg.connect(place.url)
    try:
        await connection.execute(f"ALTER TABLE whereby_trigger.presence ADD CHECK (humans < {TOO_MANY})")
    finally:
        await connection.close()


async def humans_stored_at(place: Place, room: str = ROOM) -> float:
    """Return when the number of humans in a room took its value, by the store's clock."""
    if place.url.startswith("sqlite:///"):
        with sqlite3.connect(place.url.removeprefix("sqlite:///")) as file:
            (stored_at,) = file.execute(HUMANS_STORED_AT.format("", room)).fetchone()
        file.close()
        return float(stored_at)
    connection = await asyncpg.connect(place.url)
    try:
        return float(await connection.fetchval(HUMANS_STORED_AT.format("whereby_trigger.", room)))
    finally:
        await connection.close()
