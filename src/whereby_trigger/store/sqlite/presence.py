"""SQL for who is in each room on SQLite: the counts of a transaction are gathered, and written once before its end."""

import json
import sqlite3
from collections.abc import Collection

from msgspec import structs

from whereby_trigger.store.presence import (
    UNKNOWN,
    Count,
    Presence,
    RoomCounts,
    counts_of,
    keeps_time,
    merged,
    presence_of,
)
from whereby_trigger.store.records import Added

# To replace the row costs a fifth less than to update it, and no index but the key's is there to be changed.
WRITE = """
REPLACE INTO presence
    (key, humans, bots, session_id, humans_since, changed_at, differed_at, humans_stored_at, received_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
READ = """
SELECT key, humans, bots, session_id, humans_since, changed_at, differed_at, humans_stored_at, received_at
FROM presence WHERE key IN (SELECT value FROM json_each(?))
"""
VERSION = "PRAGMA data_version"
"""Another number if another connection has committed something since this one asked."""

MAX_KNOWN = 4096
"""Rooms whose rows are kept in memory, 400 bytes each."""

FIND = """
SELECT key, humans, bots, session_id, humans_since, changed_at, differed_at
FROM presence WHERE key IN (SELECT value FROM json_each(?))
"""
OCCUPIED = """
SELECT key, humans, bots, session_id, humans_since, changed_at, differed_at
FROM presence WHERE humans <> 0 OR bots > 0 ORDER BY changed_at DESC LIMIT ?
"""
OLD = """
key > ? AND received_at < ? AND NOT EXISTS (
    SELECT 1 FROM rooms WHERE rooms.key = presence.key AND rooms.state NOT IN ('ended', 'failed')
)
"""
FIND_OLD = f"SELECT key FROM presence WHERE {OLD} ORDER BY key LIMIT ?"  # noqa: S608
FORGET = f"DELETE FROM presence WHERE {OLD} AND key IN (SELECT value FROM json_each(?))"  # noqa: S608


class GatheredCounts:
    """Gather the counts of a transaction, and write each room's presence once, before the commit.

    What this connection has written is not read again, unless another one has committed since: nobody else can while a
    transaction writes.
    """

    def __init__(self) -> None:
        self._counts: list[tuple[Count, float, Added]] = []
        self._now = 0.0
        self._known: dict[str, tuple[RoomCounts, float, float]] = {}
        self._known_as_of: tuple[sqlite3.Connection, int] | None = None
        self._is_uncommitted = False

    def begin(self) -> None:
        """Forget what a transaction before this one gathered, whether it was written or rolled back."""
        if self._is_uncommitted:
            self.forget_known()
        if self._counts:
            self._counts = []

    def committed(self) -> None:
        """Note that what was written is in the file."""
        self._is_uncommitted = False

    def forget_known(self) -> None:
        """Read from the file again what is in it: something but `write` has changed it."""
        self._known = {}
        self._is_uncommitted = False

    def add(self, count: Count, received_at: float, now: float, added: Added) -> None:
        """Keep a count of a webhook that is new in the store; times are as in the table.

        What was `added` learns what all counts of its room say, once they are written.
        """
        self._counts.append((count, received_at, added))
        self._now = now

    def write(self, connection: sqlite3.Connection) -> None:
        """Merge what was gathered into what is stored."""
        if not self._counts:
            return
        rooms: dict[str, tuple[RoomCounts, float]] = {}
        for count, received_at, _ in self._counts:
            said, earlier = counts_of(count), rooms.get(count.key)
            if earlier is not None:
                said, received_at = merged(earlier[0], said), max(received_at, earlier[1])
            rooms[count.key] = (said, received_at)
        self._learn(connection, rooms)
        known, now = self._known, self._now
        rows: list[tuple[str | int | float | None, ...]] = []
        self._is_uncommitted = True
        for key, (said, received_at) in rooms.items():
            stored_at, before = now, known.get(key)
            if before is not None:
                said = merged(before[0], said)
                if keeps_time(before[0], said):
                    stored_at = before[1]
                received_at = max(received_at, before[2])
            now_known = (said, stored_at, received_at)
            if now_known != before:
                known[key] = now_known
                rows.append((*structs.astuple(said), stored_at, received_at))
        if rows:
            connection.executemany(WRITE, rows)
        for count, _, added in self._counts:
            added.counts = known[count.key][0]

    def _learn(self, connection: sqlite3.Connection, rooms: Collection[str]) -> None:
        """Read the rows of rooms that are not known as they are now."""
        as_of = (connection, connection.execute(VERSION).fetchone()[0])
        if as_of != self._known_as_of or len(self._known) > MAX_KNOWN:
            self._known, self._known_as_of = {}, as_of
        unknown = [key for key in rooms if key not in self._known]
        if not unknown:
            return
        for *said, stored_at, received_at in connection.execute(READ, (json.dumps(unknown),)).fetchall():
            self._known[said[0]] = (RoomCounts(*said), stored_at, received_at)


def find(connection: sqlite3.Connection, keys: frozenset[str]) -> dict[str, Presence]:
    """Return the presence of each room, unknown where no count has arrived."""
    rows = connection.execute(FIND, (json.dumps(sorted(keys)),)).fetchall()
    return dict.fromkeys(keys, UNKNOWN) | {row[0]: presence_of(RoomCounts(*row)) for row in rows}


def occupied(connection: sqlite3.Connection, limit: int) -> dict[str, Presence]:
    """Return the rooms that hold somebody, latest change first."""
    return {row[0]: presence_of(RoomCounts(*row)) for row in connection.execute(OCCUPIED, (limit,)).fetchall()}


def find_old(connection: sqlite3.Connection, before: float, after: str, limit: int) -> list[str]:
    """Return the first keys above `after` of rooms without an open entry whose last count came before a time."""
    return [key for (key,) in connection.execute(FIND_OLD, (after, before, limit)).fetchall()]


def forget(connection: sqlite3.Connection, keys: list[str], before: float, counts: GatheredCounts) -> int:
    """Forget the presence of those rooms of which no count has come since; return how many."""
    counts.forget_known()
    return connection.execute(FORGET, ("", before, json.dumps(keys))).rowcount
