"""SQL by which a PostgreSQL database forgets a person or a room."""

import asyncio
from collections.abc import Sequence

from asyncpg import LockNotAvailableError

from whereby_trigger.clock import boot_time
from whereby_trigger.store.postgres import webhooks
from whereby_trigger.store.postgres.connection import Connection, affected, one_row, transaction
from whereby_trigger.store.records import OldBody, Record, Rewrite

AFTER = f"{webhooks.FIND} WHERE seq > $1 ORDER BY seq LIMIT $2"
OLD_BODIES = """
SELECT seq, received_at, CASE WHEN body_removed_at IS NULL THEN body END FROM whereby_trigger.webhooks
WHERE state <> 'pending' AND state <> 'held' AND received_at < $1 AND (received_at, seq) > ($2, $3)
ORDER BY received_at, seq LIMIT $4
"""
_LOCKED = "SELECT FROM whereby_trigger.webhooks WHERE seq = ANY ($1::bigint[]) ORDER BY id FOR UPDATE"
REWRITE = """
UPDATE whereby_trigger.webhooks AS webhooks SET body = given.body, errors = '{}', body_removed_at = $3
FROM unnest($1::bigint[], $2::bytea[]) AS given (seq, body)
WHERE webhooks.seq = given.seq AND webhooks.state <> 'pending' AND webhooks.state <> 'held'
"""
_NAME = "substr(key, strpos(key, '/'))"
_OF_WEBHOOKS = f"""
{_NAME} = ANY (ARRAY(
    SELECT substr(room, strpos(room, '/')) FROM whereby_trigger.webhooks WHERE seq = ANY ($1::bigint[])
)) AND key = ANY (ARRAY(SELECT room FROM whereby_trigger.webhooks WHERE seq = ANY ($1::bigint[])))
"""  # noqa: S608
_OF_ROOM = f"{_NAME} = $2 AND ($1 = $2 OR key = $1)"
_REFUSED = "CASE WHEN left(reason, 9) = 'refused: ' THEN 'refused' ELSE reason END"
"""The reason of a refusal is text of the assistant."""

# A row that says nothing already is not written again: a room may have thousands of them.
_SILENCE = (
    f"""UPDATE whereby_trigger.runs
SET output = '', exception = NULL, silent = ended_at IS NULL, reason = {_REFUSED}
WHERE (output <> '' OR exception IS NOT NULL OR ended_at IS NULL OR left(reason, 9) = 'refused: ') AND """,  # noqa: S608
    f"""UPDATE whereby_trigger.rooms SET errors = '{{}}', reason = {_REFUSED}
WHERE (errors <> '{{}}' OR left(reason, 9) = 'refused: ') AND """,  # noqa: S608
)
SILENCE_WEBHOOKS = tuple(statement + _OF_WEBHOOKS for statement in _SILENCE)
EMPTY = """
UPDATE whereby_trigger.webhooks SET body = '{}', errors = '{}', type = '', room = NULL, owner = NULL, state = 'skipped',
reason = 'forgotten', decided_at = coalesce(decided_at, $2), held_since = NULL, due_at = NULL, body_removed_at = $2
WHERE seq = ANY ($1::bigint[]) AND kept_until >= $2
"""
DELETE = "DELETE FROM whereby_trigger.webhooks WHERE seq = ANY ($1::bigint[]) AND kept_until < $2"
DROP_ROOM = (
    f"""DELETE FROM whereby_trigger.runs WHERE {_OF_ROOM} AND NOT entry = ANY (ARRAY(
    SELECT id FROM whereby_trigger.rooms WHERE {_OF_ROOM} AND owner IS NOT NULL
))""",  # noqa: S608
    f"DELETE FROM whereby_trigger.rooms WHERE {_OF_ROOM} AND owner IS NULL",  # noqa: S608
    *(statement + _OF_ROOM for statement in _SILENCE),
    f"UPDATE whereby_trigger.rooms SET successor = NULL WHERE {_OF_ROOM}",  # noqa: S608
    f"DELETE FROM whereby_trigger.presence WHERE {_OF_ROOM}",  # noqa: S608
    "DELETE FROM whereby_trigger.actions WHERE substr(room, strpos(room, '/')) = $2 AND ($1 = $2 OR room = $1)",
)

_NAMES = ("webhooks", "rooms", "runs", "presence", "actions")
TABLES = ", ".join(f"whereby_trigger.{name}" for name in _NAMES)
_EACH = f"unnest(ARRAY[{', '.join(map(repr, _NAMES))}]) AS called"
SIZE = f"SELECT sum(pg_total_relation_size(('whereby_trigger.' || called)::regclass))::bigint FROM {_EACH}"  # noqa: S608
MAY = f"""
SELECT bool_and(pg_has_role(relowner, 'USAGE')) FROM pg_class
WHERE oid IN (SELECT ('whereby_trigger.' || called)::regclass FROM {_EACH})
"""  # noqa: S608


OWNS_DATABASE = "SELECT pg_has_role(datdba, 'USAGE') FROM pg_database WHERE datname = current_database()"
READERS = f"""
SELECT pid::text FROM pg_stat_activity
WHERE pid <> pg_backend_pid() AND (age(backend_xmin) > age($1::text::xid) OR age(backend_xid) > age($1::text::xid))
UNION SELECT pid::text FROM pg_locks JOIN pg_stat_activity USING (pid)
WHERE pid <> pg_backend_pid() AND xact_start < $2::timestamptz
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND relation IN (SELECT ('whereby_trigger.' || called)::regclass FROM {_EACH})
UNION SELECT gid FROM pg_prepared_xacts WHERE age(transaction) > age($1::text::xid)
UNION SELECT slot_name FROM pg_replication_slots WHERE age(xmin) > age($1::text::xid)
"""  # noqa: S608
"""Who may still read what was there before a transaction: a vacuum keeps those rows for them.

And who has a lock on the tables since before, as `psql` has after a query in a transaction that is left open.
"""

NOW = "SELECT (txid_current() % 4294967296)::text AS xid, clock_timestamp() AS time"
LOOK_AGAIN = 0.1


async def records_after(connection: Connection, after: int, limit: int) -> list[Record]:
    return [webhooks.record(row) for row in await connection.fetch(AFTER, after, limit)]


async def old_bodies(connection: Connection, before: float, after: tuple[float, int], limit: int) -> list[OldBody]:
    return [OldBody(*row) for row in await connection.fetch(OLD_BODIES, before, *after, limit)]


async def rewrite(connection: Connection, rewrites: Sequence[Rewrite], *, silence: bool, now: float) -> int:
    seqs, bodies = [one.seq for one in rewrites], [one.body for one in rewrites]
    async with transaction(connection):
        if silence:
            for statement in SILENCE_WEBHOOKS:
                await connection.execute(statement, seqs)
        # In the order in which arrivals lock rows: no two batches can deadlock.
        await connection.execute(_LOCKED, seqs)
        return affected(await connection.execute(REWRITE, seqs, bodies, now))


async def drop(connection: Connection, seqs: Sequence[int], room: str, now: float) -> int:
    changed = 0
    async with transaction(connection):
        if seqs:
            await connection.execute(_LOCKED, list(seqs))
            changed = affected(await connection.execute(EMPTY, list(seqs), now))
            changed += affected(await connection.execute(DELETE, list(seqs), now))
        if room:
            for statement in DROP_ROOM:
                await connection.execute(statement, room, room[room.index("/") :])
    return changed


async def wipe(connection: Connection, *, rewrite: bool, always_below: int, wait: float) -> str:
    """Vacuum the tables, or write them again if they are small or `rewrite` is set; return what is left, or "".

    It waits at most `wait` seconds for transactions that may still read the old rows, which a vacuum would keep.
    """
    if not await connection.fetchval(MAY):
        return (
            "this role does not own the tables, so it cannot vacuum them: the old rows stay in their files until "
            f"autovacuum comes; as their owner, run VACUUM FULL {TABLES}"
        )
    if connection.is_in_transaction():
        return (
            "behind a pooler of transactions nothing can be vacuumed: the old rows stay in the tables' files until "
            f"autovacuum comes; on a connection to the server itself, run VACUUM (FULL, ANALYZE) {TABLES}"
        )
    try:
        return await _vacuumed(connection, rewrite=rewrite, always_below=always_below, wait=wait)
    except LockNotAvailableError:
        return (
            "another transaction has locked the tables, so they were not vacuumed, and the old rows stay in their "
            "files: find it in pg_stat_activity, and run this again once it has ended"
        )


async def _vacuumed(connection: Connection, *, rewrite: bool, always_below: int, wait: float) -> str:
    size = await connection.fetchval(SIZE)
    readers = await _readers(connection, boot_time() + wait)
    # It would wait for the locks of those readers, and hold up every delivery meanwhile.
    full = not readers and (rewrite or size <= always_below)
    await connection.execute(f"VACUUM ({'FULL, ' if full else ''}ANALYZE) {TABLES}")
    if readers:
        return (
            f"transactions that began before may still read the old rows, and keep them in the files ({readers}): "
            "see pg_stat_activity, pg_prepared_xacts and pg_replication_slots; run this again once they have ended"
        )
    if not full:
        return size_left(size)
    # Names of rooms are among the samples of the planner. This table is small.
    if await connection.fetchval(OWNS_DATABASE):
        await connection.execute("VACUUM FULL pg_catalog.pg_statistic")
    return ""


async def _readers(connection: Connection, until: float) -> str:
    """Wait until nobody can read what was there before, or a time on the boot clock; return who still can."""
    now = await one_row(connection, NOW)
    while readers := ", ".join(row["pid"] for row in await connection.fetch(READERS, now["xid"], now["time"])):
        if boot_time() >= until:
            break
        await asyncio.sleep(LOOK_AGAIN)
    return readers


def size_left(size: int) -> str:
    return (
        f"the tables take {size // 2**20} MiB and were not written again, which holds up deliveries: their files may "
        "hold pieces of old rows until those places are used again; run this again with --rewrite when that suits"
    )
