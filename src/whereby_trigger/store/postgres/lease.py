"""SQL for leases on PostgreSQL: which replicas live, until when, taking over from dead ones, and their log."""

import os
from collections.abc import Callable

import asyncpg

from whereby_trigger import leftovers
from whereby_trigger.store.postgres import rooms
from whereby_trigger.store.postgres.connection import Connection, affected, one_row, transaction
from whereby_trigger.store.records import ReplicaRecord
from whereby_trigger.store.states import OUTLIVED, ReplicaEnding, RunOutcome, sql_in

JOIN = """
INSERT INTO whereby_trigger.replicas (id, pid, seen_at, expires)
VALUES ($1, $2, whereby_trigger.clock(), whereby_trigger.clock() + $3::float8)
ON CONFLICT (id) DO UPDATE SET expires = excluded.expires, seen_at = excluded.seen_at
"""
RENEW = """
UPDATE whereby_trigger.replicas
SET expires = whereby_trigger.clock() + $2::float8, seen_at = whereby_trigger.clock()
WHERE id = $1 AND expires > whereby_trigger.clock()
"""
GIVE_UP = """
UPDATE whereby_trigger.replicas SET expires = 0
WHERE id IN (SELECT id FROM whereby_trigger.replicas WHERE id = $1 FOR UPDATE SKIP LOCKED)
"""
"""Skips a locked row: that lease has run out, or soon will, and must not keep us from a new one."""

LEAVE = """
DELETE FROM whereby_trigger.replicas
WHERE id IN (SELECT id FROM whereby_trigger.replicas WHERE id = $1 FOR UPDATE SKIP LOCKED)
"""
"""Skips a locked row: that replica stays but owns nothing, and must not keep others from taking over."""

WAIT_TO_LEAVE = "SET LOCAL lock_timeout = '2500ms'"
"""Nothing waits behind this, and it is not tried again: if it fails, others wait for the end of the lease."""

SEEN = "UPDATE whereby_trigger.replicas SET seen_at = whereby_trigger.clock() WHERE id = $1"
HOLDS = "SELECT true FROM whereby_trigger.replicas WHERE id = $1 AND expires > whereby_trigger.clock()"
UNOWNED = "SELECT seq FROM whereby_trigger.webhooks WHERE state = 'pending' AND owner IS NULL"
EXPIRED = """
SELECT id, CASE WHEN whereby_trigger.clock() - greatest(seen_at, expires) > $2::float8
    THEN whereby_trigger.clock() - $2 END AS too_old,
    expires <= (SELECT started_at FROM whereby_trigger.replica_log WHERE id = $1) AS before_us
FROM whereby_trigger.replicas WHERE id <> $1 AND expires <= whereby_trigger.clock()
"""
"""From the end of the lease on: before it nobody can take over, whatever max_age is."""

_ORPHANS = """
WITH gaps AS (
    SELECT id AS low, lead(id, 1, '~') OVER (ORDER BY id) AS high FROM whereby_trigger.replicas
    UNION ALL SELECT '', COALESCE(min(id), '~') FROM whereby_trigger.replicas
)
SELECT owner FROM gaps CROSS JOIN LATERAL (
    SELECT owner FROM (
        SELECT owner FROM whereby_trigger.rooms WHERE owner > low AND owner < high ORDER BY owner LIMIT 1{locking}
    ) AS of_rooms
    UNION ALL
    SELECT owner FROM (
        SELECT owner FROM whereby_trigger.webhooks
        WHERE state = 'pending' AND owner > low AND owner < high ORDER BY owner LIMIT 1{locking}
    ) AS of_webhooks
    UNION ALL
    SELECT owner FROM (
        SELECT owner FROM whereby_trigger.webhooks
        WHERE state = 'held' AND owner > low AND owner < high ORDER BY owner LIMIT 1{locking}
    ) AS of_held
) AS orphans
"""
ORPHANS, FREE_ORPHANS = (_ORPHANS.format(locking=locking) for locking in ("", " FOR UPDATE SKIP LOCKED"))
"""Owners that are not replicas, searched between the ids of replicas, which may own very many rows.

FREE_ORPHANS skips locked rows: they must not hide other orphans. Ids are hexadecimal digits, which sort before a ~.
"""

OVERDUE = """
SELECT min(since) < whereby_trigger.clock() - $2::float8 FROM whereby_trigger.rooms WHERE state = 'waiting'
"""
NEXT_END = """
SELECT min(expires) - whereby_trigger.clock() FROM whereby_trigger.replicas
WHERE id <> $1 AND expires > whereby_trigger.clock()
"""
EXPIRED_OF = f"{EXPIRED} AND id = ANY ($3::text[]) LIMIT 1 FOR UPDATE SKIP LOCKED"
EXPIRED_AND_LOCKED = f"""
{EXPIRED} AND id = ANY ($3::text[]) AND greatest(expires, seen_at) < whereby_trigger.clock() - 2 AND (
    EXISTS (SELECT FROM whereby_trigger.rooms WHERE owner = replicas.id)
    OR EXISTS (
        SELECT FROM whereby_trigger.webhooks WHERE state = 'pending' AND owner >= replicas.id AND owner <= replicas.id
    )
    OR EXISTS (
        SELECT FROM whereby_trigger.webhooks WHERE state = 'held' AND owner >= replicas.id AND owner <= replicas.id
    )
) ORDER BY random() LIMIT 1
"""  # noqa: S608
"""Finds a replica whose row has been locked for longer than a takeover takes.

An expired lease is never renewed, so the lock does not matter: the rows that the replica owned have their own locks.
"""

EXPIRED_NOW = f"SELECT id FROM ({EXPIRED}) AS expired"  # noqa: S608
ANYTHING_LEFT = f"""
SELECT EXISTS ({UNOWNED}) OR EXISTS ({EXPIRED}) OR EXISTS ({ORPHANS}) OR ({OVERDUE}) AS any, ({NEXT_END}) AS next_end
"""
TAKE_UNOWNED = f"""
UPDATE whereby_trigger.webhooks SET owner = $1
WHERE seq = ANY (ARRAY({UNOWNED} ORDER BY owner, seq LIMIT $2 FOR UPDATE SKIP LOCKED))
"""  # noqa: S608
PENDING_OF = """
SELECT seq FROM whereby_trigger.webhooks WHERE state = 'pending' AND owner >= $2 AND owner <= $2
ORDER BY owner, seq LIMIT $3 FOR UPDATE SKIP LOCKED
"""
"""Only the index of pending webhooks has this order: no plan can scan decided ones."""

TAKE_ORPHANED = f"""
UPDATE whereby_trigger.webhooks SET owner = $1, takeovers = takeovers + 1,
    crashes = crashes + ($4 AND NOT EXISTS (
        SELECT FROM whereby_trigger.replica_log WHERE id = $2 AND ending {sql_in(OUTLIVED)}
    ))::integer
WHERE seq = ANY (ARRAY({PENDING_OF}))
"""  # noqa: S608
DISOWN = f"""
UPDATE whereby_trigger.webhooks SET owner = $1, takeovers = takeovers + 1, attempts = 0
WHERE seq = ANY (ARRAY({PENDING_OF}))
"""  # noqa: S608

TAKE_HELD = """
UPDATE whereby_trigger.webhooks SET owner = $1, state = 'pending', reason = '' WHERE seq = ANY (ARRAY(
    SELECT seq FROM whereby_trigger.webhooks WHERE state = 'held' AND owner >= $2 AND owner <= $2
    ORDER BY owner, seq LIMIT $3 FOR UPDATE SKIP LOCKED
))
"""

WEBHOOKS = 5000
ROOMS = 500
"""Maximum rows that change their owner in one transaction: it must be short, and not exhaust the server's locks."""


async def join(connection: Connection, id: str, ttl: float, *, logged: bool = True) -> None:
    async with transaction(connection):
        await connection.execute(JOIN, id, os.getpid(), ttl)
        if logged:
            await begin_replica(connection, id)


async def rejoin(connection: Connection, old: str, new: str, ttl: float) -> None:
    """Give up a lease, and join under a new id; what the old one owned can be taken over at once."""
    async with transaction(connection):
        await connection.execute(GIVE_UP, old)
        await end_replica(connection, old, ReplicaEnding.LEASE_LOST)
        await join(connection, new, ttl)


async def renew(connection: Connection, id: str, ttl: float) -> bool:
    return affected(await connection.execute(RENEW, id, ttl)) == 1


async def ping(connection: Connection, id: str) -> None:
    await connection.execute(SEEN, id)


async def leave(connection: Connection, id: str) -> None:
    """Give back what a replica owns, and its lease, without counting a crash against any webhook.

    Rows that are too many for one transaction become orphans, which other replicas find.
    """
    async with transaction(connection):
        await connection.execute(WAIT_TO_LEAVE)
        await connection.execute(LEAVE, id)
        await end_replica(connection, id, ReplicaEnding.STOPPED)
        reason = "given back by a replica that stopped"
        await rooms.release(connection, id, reason, RunOutcome.HANDED_OVER, limit=ROOMS)
        await connection.execute(DISOWN, None, id, WEBHOOKS)
        await connection.execute(TAKE_HELD, None, id, WEBHOOKS)


async def take_over(
    connection: Connection,
    replica: str,
    max_age: float,
    look_in: Callable[[float], None],
    searched: set[str],
    *,
    rejoined: bool,
) -> int | None:
    """Take over some of what dead replicas own, and end some of the rooms that have waited for `max_age` seconds.

    Returns how many webhooks and rooms were taken over, or None if there was nothing to do. `look_in` is called with
    the seconds until the next lease of another replica ends. Remaining processes of a dead replica's assistants on
    this machine are ended first, once for each replica: `searched` remembers those.
    With `rejoined`, this replica had lost a lease itself. One that ended before it had another does not count as a
    crash: the database may have been away for both.
    """
    # Usually there is nothing to do, and this runs all the time: nothing is locked before that is known.
    left = await one_row(connection, ANYTHING_LEFT, replica, max_age)
    if left["next_end"] is not None:
        look_in(left["next_end"])
    if not left["any"]:
        return None
    # Before the transaction: locked rows block others, and the server limits how long.
    dead = {row["id"] for row in await connection.fetch(EXPIRED_NOW, replica, max_age)}
    if dead - searched:
        await leftovers.end(dead - searched)
        searched |= dead
    async with transaction(connection):
        if not await connection.fetchval(HOLDS, replica):
            return None
        expired = await connection.fetchrow(EXPIRED_OF, replica, max_age, list(dead))
        if expired is not None:
            return await _take_over_from_expired(connection, replica, expired, rejoined=rejoined)
        taken = 0
        expired = await connection.fetchrow(EXPIRED_AND_LOCKED, replica, max_age, list(dead)) if dead else None
        if expired is not None:
            taken += await _take_over_from_expired(connection, replica, expired, rejoined=rejoined)
        orphan = await connection.fetchval(f"{FREE_ORPHANS} LIMIT 1")
        if orphan is not None:
            taken += await _take_over_from(connection, replica, orphan)
        taken += affected(await connection.execute(TAKE_UNOWNED, replica, WEBHOOKS))
        ended = await rooms.end_old(connection, max_age, ROOMS)
        return taken if taken or ended else None


async def _take_over_from_expired(
    connection: Connection, new_owner: str, expired: asyncpg.Record, *, rejoined: bool
) -> int:
    crashed = not (rejoined and expired["before_us"])
    return await _take_over_from(connection, new_owner, expired["id"], too_old=expired["too_old"], crashed=crashed)


async def _take_over_from(
    connection: Connection, new_owner: str, dead: str, *, too_old: float | None = None, crashed: bool = True
) -> int:
    reason = f"its replica {dead} died" + ("" if too_old is None else " longer than max_age ago")
    released = await rooms.release(connection, dead, reason, RunOutcome.REPLICA_DIED, limit=ROOMS, too_old=too_old)
    orphaned = affected(await connection.execute(TAKE_ORPHANED, new_owner, dead, WEBHOOKS, crashed))
    held = affected(await connection.execute(TAKE_HELD, new_owner, dead, WEBHOOKS))
    if released < ROOMS and orphaned < WEBHOOKS and held < WEBHOOKS:
        await connection.execute(LEAVE, dead)
        await end_replica(connection, dead, ReplicaEnding.DIED)
    return released + orphaned + held


BEGIN_REPLICA = "INSERT INTO whereby_trigger.replica_log (id) VALUES ($1) ON CONFLICT (id) DO NOTHING"
END_REPLICA = """
UPDATE whereby_trigger.replica_log SET ended_at = whereby_trigger.clock(), ending = $2
WHERE id = $1 AND ended_at IS NULL
"""
FIND_REPLICAS = """
SELECT replica_log.id, started_at, ended_at, ending, replicas.seen_at
FROM whereby_trigger.replica_log LEFT JOIN whereby_trigger.replicas ON replicas.id = replica_log.id
WHERE started_at <= $2 AND (ended_at IS NULL OR ended_at >= COALESCE(
    (SELECT max(ended_at) FROM whereby_trigger.replica_log WHERE ended_at < $1), $1
)) ORDER BY started_at, replica_log.id
"""
FORGET_REPLICAS = """
DELETE FROM whereby_trigger.replica_log WHERE id = ANY (ARRAY(
    SELECT id FROM whereby_trigger.replica_log WHERE COALESCE(ended_at, started_at) < $1
    AND (ended_at IS NOT NULL OR id NOT IN (SELECT id FROM whereby_trigger.replicas))
    LIMIT $2 FOR UPDATE SKIP LOCKED
))
"""


async def begin_replica(connection: Connection, id: str) -> None:
    await connection.execute(BEGIN_REPLICA, id)


async def end_replica(connection: Connection, id: str, ending: ReplicaEnding) -> None:
    """Record how a replica ended; the first ending that was seen stays."""
    await connection.execute(END_REPLICA, id, ending)


async def find_replicas(connection: Connection, since: float, until: float) -> list[ReplicaRecord]:
    rows = await connection.fetch(FIND_REPLICAS, since, until)
    return [ReplicaRecord(**{**row, "ending": ReplicaEnding.of(row["ending"])}) for row in rows]


async def forget_replicas(connection: Connection, before: float, limit: int) -> int:
    """Forget at most `limit` replicas that ended before a time; return how many."""
    return affected(await connection.execute(FORGET_REPLICAS, before, limit))
