"""SQL by which a SQLite file forgets a person or a room. The last two functions run outside of a transaction."""

import json
import sqlite3
from collections.abc import Sequence

from whereby_trigger.store.records import OldBody, Record, Rewrite
from whereby_trigger.store.sqlite import presence, webhooks

SMALL = 64 * 1024 * 1024
"""Bytes of a file that is written again in about a second."""

AFTER = f"{webhooks.FIND} WHERE seq > ? ORDER BY seq LIMIT ?"
OLD_BODIES = """
SELECT seq, received_at, CASE WHEN body_removed_at IS NULL THEN body END FROM webhooks
WHERE state <> 'pending' AND state <> 'held' AND received_at < ? AND (received_at, seq) > (?, ?)
ORDER BY received_at, seq LIMIT ?
"""
REWRITE = """
UPDATE webhooks SET body = ?, errors = '[]', body_removed_at = ?
WHERE seq = ? AND state <> 'pending' AND state <> 'held'
"""
_NAME = "substr(key, instr(key, '/'))"
_OF_WEBHOOKS = f"""
{_NAME} IN (SELECT substr(room, instr(room, '/')) FROM webhooks WHERE seq IN (SELECT value FROM json_each(:seqs)))
AND key IN (SELECT room FROM webhooks WHERE seq IN (SELECT value FROM json_each(:seqs)))
"""  # noqa: S608
_OF_ROOM = f"{_NAME} = :path AND (:room = :path OR key = :room)"
_REFUSED = "CASE WHEN substr(reason, 1, 9) = 'refused: ' THEN 'refused' ELSE reason END"
"""The reason of a refusal is text of the assistant."""

# A row that says nothing already is not written again: a room may have thousands of them.
_SILENCE = (
    f"""UPDATE runs SET output = '', exception = NULL, silent = ended_at IS NULL, reason = {_REFUSED}
WHERE (output <> '' OR exception IS NOT NULL OR ended_at IS NULL OR substr(reason, 1, 9) = 'refused: ') AND """,  # noqa: S608
    f"""UPDATE rooms SET errors = '[]', reason = {_REFUSED}
WHERE (errors <> '[]' OR substr(reason, 1, 9) = 'refused: ') AND """,  # noqa: S608
)
SILENCE_WEBHOOKS = tuple(statement + _OF_WEBHOOKS for statement in _SILENCE)
EMPTY = """
UPDATE webhooks SET body = x'7b7d', errors = '[]', type = '', room = NULL, owner = NULL, state = 'skipped',
reason = 'forgotten', decided_at = coalesce(decided_at, :now), held_since = NULL, due_at = NULL, body_removed_at = :now
WHERE seq IN (SELECT value FROM json_each(:seqs)) AND kept_until >= :now
"""
DELETE = "DELETE FROM webhooks WHERE seq IN (SELECT value FROM json_each(:seqs)) AND kept_until < :now"
DROP_ROOM = (
    f"DELETE FROM runs WHERE {_OF_ROOM} AND entry NOT IN (SELECT id FROM rooms WHERE {_OF_ROOM} AND owner IS NOT NULL)",  # noqa: S608
    f"DELETE FROM rooms WHERE {_OF_ROOM} AND owner IS NULL",  # noqa: S608
    *(statement + _OF_ROOM for statement in _SILENCE),
    f"UPDATE rooms SET successor = NULL WHERE {_OF_ROOM}",  # noqa: S608
    f"DELETE FROM presence WHERE {_OF_ROOM}",  # noqa: S608
    "DELETE FROM actions WHERE substr(room, instr(room, '/')) = :path AND (:room = :path OR room = :room)",
)


def records_after(connection: sqlite3.Connection, after: int, limit: int) -> list[Record]:
    return [webhooks.record(row) for row in connection.execute(AFTER, (after, limit)).fetchall()]


def old_bodies(connection: sqlite3.Connection, before: float, after: tuple[float, int], limit: int) -> list[OldBody]:
    return [OldBody(*row) for row in connection.execute(OLD_BODIES, (before, *after, limit)).fetchall()]


def rewrite(connection: sqlite3.Connection, rewrites: Sequence[Rewrite], *, silence: bool, now: float) -> int:
    if silence:
        for statement in SILENCE_WEBHOOKS:
            connection.execute(statement, {"seqs": json.dumps([one.seq for one in rewrites])})
    return connection.executemany(REWRITE, [(one.body, now, one.seq) for one in rewrites]).rowcount


def drop(
    connection: sqlite3.Connection, seqs: Sequence[int], room: str, now: float, counts: presence.GatheredCounts
) -> int:
    changed = 0
    if seqs:
        given = {"now": now, "seqs": json.dumps(list(seqs))}
        changed = connection.execute(EMPTY, given).rowcount + connection.execute(DELETE, given).rowcount
    if room:
        counts.forget_known()
        for statement in DROP_ROOM:
            connection.execute(statement, {"room": room, "path": room[room.index("/") :]})
    return changed


def empty_journal(connection: sqlite3.Connection) -> bool:
    """Copy the journal into the database and cut it to nothing; return False if a reader prevents that now."""
    (within,) = connection.execute("PRAGMA busy_timeout").fetchone()
    # Whoever waits for a reader holds up every writer.
    connection.execute("PRAGMA busy_timeout = 0")
    try:
        (busy, _, _) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    finally:
        connection.execute(f"PRAGMA busy_timeout = {int(within)}")
    return not busy


def write_again(connection: sqlite3.Connection, *, in_memory: bool) -> None:
    """Write the whole database again: pages keep copies of rows that were moved to others.

    If not in memory, SQLite makes the copy in a temporary file without a name.
    """
    connection.execute(f"PRAGMA temp_store = {'MEMORY' if in_memory else 'DEFAULT'}").close()
    try:
        connection.execute("VACUUM").close()
    finally:
        connection.execute("PRAGMA temp_store = DEFAULT").close()
