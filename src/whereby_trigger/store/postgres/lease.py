"""What the lease says to PostgreSQL: who lives, until when, and what becomes of what the dead leave."""

import os

from whereby_trigger.store.postgres import rooms
from whereby_trigger.store.postgres.link import Connection, affected, transaction

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
GIVE_UP = "UPDATE whereby_trigger.replicas SET expires = 0 WHERE id = $1"
LEAVE = "DELETE FROM whereby_trigger.replicas WHERE id = $1"
SEEN = "UPDATE whereby_trigger.replicas SET seen_at = whereby_trigger.clock() WHERE id = $1"
HOLDS = "SELECT true FROM whereby_trigger.replicas WHERE id = $1 AND expires > whereby_trigger.clock()"
UNOWNED = "SELECT seq FROM whereby_trigger.webhooks WHERE state = 'pending' AND owner IS NULL"
EXPIRED = """
SELECT id, whereby_trigger.clock() - seen_at > $2::float8 AS too_old FROM whereby_trigger.replicas
WHERE id <> $1 AND expires <= whereby_trigger.clock()
"""
STRAYS = """
WITH RECURSIVE owners AS (
    (SELECT min(owner) AS owner FROM whereby_trigger.webhooks WHERE state = 'pending' AND owner IS NOT NULL)
    UNION ALL
    SELECT (SELECT min(webhooks.owner) FROM whereby_trigger.webhooks AS webhooks
            WHERE state = 'pending' AND webhooks.owner > owners.owner)
    FROM owners WHERE owner IS NOT NULL
), settlers AS (
    (SELECT min(owner) AS owner FROM whereby_trigger.rooms WHERE owner IS NOT NULL)
    UNION ALL
    SELECT (SELECT min(rooms.owner) FROM whereby_trigger.rooms AS rooms WHERE rooms.owner > settlers.owner)
    FROM settlers WHERE owner IS NOT NULL
)
SELECT owner AS id, false AS too_old FROM (SELECT owner FROM owners UNION SELECT owner FROM settlers) AS everybody
WHERE owner IS NOT NULL AND owner <> $1
AND NOT EXISTS (SELECT FROM whereby_trigger.replicas WHERE replicas.id = everybody.owner)
"""
ANYTHING_LEFT = f"""
SELECT EXISTS ({UNOWNED}) OR EXISTS ({EXPIRED}) OR EXISTS ({STRAYS}) OR EXISTS (
    SELECT FROM whereby_trigger.rooms WHERE state = 'waiting' AND since < whereby_trigger.clock() - $2::float8
)
"""  # noqa: S608
CLAIM_UNOWNED = f"""
WITH unowned AS MATERIALIZED ({UNOWNED} ORDER BY seq FOR UPDATE SKIP LOCKED)
UPDATE whereby_trigger.webhooks AS webhooks SET owner = $1 FROM unowned WHERE webhooks.seq = unowned.seq
"""  # noqa: S608
DISOWN = """
UPDATE whereby_trigger.webhooks SET owner = NULL, takeovers = takeovers + 1, attempts = 0
WHERE state = 'pending' AND owner = $1
"""
CLAIM_ORPHANED = """
UPDATE whereby_trigger.webhooks SET owner = $1, takeovers = takeovers + 1 WHERE state = 'pending' AND owner = $2
"""


async def join(connection: Connection, id: str, ttl: float) -> None:
    await connection.execute(JOIN, id, os.getpid(), ttl)


async def rejoin(connection: Connection, old: str, new: str, ttl: float) -> None:
    """Give up a lease, so that what it held can be taken over at once, and enter anew."""
    async with transaction(connection):
        await connection.execute(GIVE_UP, old)
        await join(connection, new, ttl)


async def renew(connection: Connection, id: str, ttl: float) -> bool:
    return affected(await connection.execute(RENEW, id, ttl)) == 1


async def ping(connection: Connection, id: str) -> None:
    await connection.execute(SEEN, id)


async def leave(connection: Connection, id: str) -> None:
    """Give back everything that a replica owns, and its lease; no webhook is to blame for an end like this."""
    async with transaction(connection):
        await rooms.lock_owned(connection, [id])
        await rooms.release(connection, id, "given back by a replica that stopped")
        await connection.execute(DISOWN, id)
        await connection.execute(LEAVE, id)


async def claim(connection: Connection, replica: str, max_age: float) -> int:
    """Take over what the dead have left; end their rooms where they died longer than `max_age` seconds ago."""
    # Mostly there is nothing to do, and this is asked all the time: nothing is locked before that is known.
    if not await connection.fetchval(ANYTHING_LEFT, replica, max_age):
        return 0
    async with transaction(connection):
        if not await connection.fetchval(HOLDS, replica):
            return 0
        dead = await connection.fetch(f"{EXPIRED} FOR UPDATE SKIP LOCKED", replica, max_age)
        dead += await connection.fetch(STRAYS, replica)
        await rooms.lock_owned(connection, [row["id"] for row in dead])
        taken = affected(await connection.execute(CLAIM_UNOWNED, replica))
        for row in dead:
            taken += await _bury(connection, replica, row["id"], too_old=row["too_old"])
        await rooms.end_old(connection, max_age)
        return taken


async def _bury(connection: Connection, heir: str, dead: str, *, too_old: bool) -> int:
    reason = f"its replica {dead} died" + (" longer than max_age ago" if too_old else "")
    released = await rooms.release(connection, dead, reason, too_old=too_old)
    orphaned = affected(await connection.execute(CLAIM_ORPHANED, heir, dead))
    await connection.execute(LEAVE, dead)
    return released + orphaned
