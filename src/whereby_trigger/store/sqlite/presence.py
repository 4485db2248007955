"""SQL for who is in each room on SQLite: the counts of a transaction are gathered, and written once before its end."""

import json
import sqlite3

from whereby_trigger.store.presence import (
    UNKNOWN,
    Count,
    Presence,
    RoomCounts,
    keeps_time,
    merged,
    presence_of,
    together,
)
from whereby_trigger.store.records import Added

READ = """
SELECT key, humans, bots, session_id, humans_since, changed_at, differed_at, humans_stored_at, received_at
FROM presence WHERE key = ?
"""
WRITE = """
INSERT INTO presence
    (key, humans, bots, session_id, humans_since, changed_at, differed_at, humans_stored_at, received_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (key) DO UPDATE SET
    humans = excluded.humans, bots = excluded.bots, session_id = excluded.session_id,
    humans_since = excluded.humans_since, changed_at = excluded.changed_at, differed_at = excluded.differed_at,
    humans_stored_at = excluded.humans_stored_at, received_at = excluded.received_at
"""
WRITE_NEWEST = """
INSERT INTO presence AS stored
    (key, humans, bots, session_id, humans_since, changed_at, differed_at, humans_stored_at, received_at)
VALUES (?, ?, ?, ?, ?, ?, -9e999, ?, ?)
ON CONFLICT (key) DO UPDATE SET
    humans = excluded.humans, bots = excluded.bots, session_id = excluded.session_id,
    changed_at = excluded.changed_at, received_at = max(stored.received_at, excluded.received_at),
    humans_since = CASE WHEN stored.humans = excluded.humans
        THEN stored.humans_since ELSE excluded.humans_since END,
    differed_at = CASE WHEN stored.humans = excluded.humans THEN stored.differed_at ELSE stored.changed_at END,
    humans_stored_at = CASE WHEN stored.humans = excluded.humans
        THEN stored.humans_stored_at ELSE excluded.humans_stored_at END
WHERE excluded.changed_at >= stored.changed_at
"""
"""Does what `merged` does for one count that is the newest: most are, and this costs a third of reading it first."""

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
    """Gather the counts of a transaction, and write each room's presence once, before the commit."""

    def __init__(self) -> None:
        self._rooms: dict[str, list[Count]] = {}
        self._received: dict[str, float] = {}
        self._added: list[tuple[str, Added]] = []
        self._now = 0.0

    def begin(self) -> None:
        """Forget what a transaction before this one gathered, whether it was written or rolled back."""
        if self._rooms:
            self._rooms, self._received, self._added = {}, {}, []

    def add(self, count: Count, received_at: float, now: float, added: Added) -> None:
        """Keep a count of a webhook that is new in the store; times are as in the table.

        What was `added` learns what all counts of its room say, once they are written.
        """
        key = count.key
        self._added.append((key, added))
        if key in self._rooms:
            self._rooms[key].append(count)
            self._received[key] = max(received_at, self._received[key])
        else:
            self._rooms[key], self._received[key] = [count], received_at
        self._now = now

    def write(self, connection: sqlite3.Connection) -> None:
        """Merge what was gathered into what is stored."""
        if not self._rooms:
            return
        received, now = self._received, self._now
        alone = [counts[0] for counts in self._rooms.values() if len(counts) == 1]
        rows = [(c.key, c.humans, c.bots, c.session_id, c.at, c.at, now, received[c.key]) for c in alone]
        written = connection.executemany(WRITE_NEWEST, rows).rowcount if rows else 0
        # If a count was not the newest, all are merged; those that were written already are found to be there.
        for counts in self._rooms.values():
            if written < len(rows) or len(counts) > 1:
                (said,) = together(counts)
                _merge(connection, said, received[said.key], now)
        found = {row[0]: RoomCounts(*row) for row in connection.execute(FIND, (json.dumps(list(self._rooms)),))}
        for key, added in self._added:
            added.counts = found.get(key)


def _merge(connection: sqlite3.Connection, said: RoomCounts, received_at: float, now: float) -> None:
    row = connection.execute(READ, (said.key,)).fetchone()
    stored_at = now
    if row is not None:
        *columns, stored_at, last_received_at = row
        stored = RoomCounts(*columns)
        said = merged(stored, said)
        stored_at = stored_at if keeps_time(stored, said) else now
        received_at = max(received_at, last_received_at)
    values = (said.key, said.humans, said.bots, said.session_id, said.humans_since, said.changed_at, said.differed_at)
    if row != (*values, stored_at, received_at):
        connection.execute(WRITE, (*values, stored_at, received_at))


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


def forget(connection: sqlite3.Connection, keys: list[str], before: float) -> int:
    """Forget the presence of those rooms of which no count has come since; return how many."""
    return connection.execute(FORGET, ("", before, json.dumps(keys))).rowcount
