"""SQL for leases on SQLite: which replicas live, until when, taking over from dead ones, and their log."""

import sqlite3
from collections.abc import Callable, Iterable, Set
from math import inf
from typing import NamedTuple

from whereby_trigger.clock import BootClock
from whereby_trigger.store.records import ReplicaRecord
from whereby_trigger.store.sqlite import rooms, webhooks
from whereby_trigger.store.sqlite.lock import Life
from whereby_trigger.store.states import ReplicaEnding, RunOutcome

JOIN = "INSERT INTO replicas (id, pid, seen_at, boot, expires) VALUES (?, ?, ?, ?, ?)"
RENEW = "UPDATE replicas SET expires = ?, seen_at = ? WHERE id = ? AND boot = ? AND expires > ?"
GIVE_UP = "UPDATE replicas SET expires = 0 WHERE id = ?"
LEAVE = "DELETE FROM replicas WHERE id = ?"
OTHERS = f"""
WITH RECURSIVE holders (owner) AS (
    SELECT (SELECT owner FROM webhooks WHERE state = 'held' ORDER BY owner LIMIT 1)
    UNION ALL
    SELECT (SELECT owner FROM webhooks WHERE state = 'held' AND owner > holders.owner ORDER BY owner LIMIT 1)
    FROM holders WHERE holders.owner IS NOT NULL
), owners (owner) AS (
    SELECT (SELECT owner FROM webhooks INDEXED BY webhooks_owner
        WHERE state = 'pending' AND owner IS NOT NULL ORDER BY owner LIMIT 1)
    UNION ALL
    SELECT (SELECT owner FROM webhooks INDEXED BY webhooks_owner
        WHERE state = 'pending' AND owner > owners.owner ORDER BY owner LIMIT 1)
    FROM owners WHERE owners.owner IS NOT NULL
)
SELECT id, seen_at, boot, expires FROM replicas WHERE id <> :me
UNION SELECT owner, :now, '', 0 FROM owners WHERE owner <> :me AND owner NOT IN (SELECT id FROM replicas)
UNION SELECT owner, :now, '', 0 FROM holders WHERE owner <> :me AND owner NOT IN (SELECT id FROM replicas)
UNION SELECT owner, :now, '', 0 FROM rooms INDEXED BY rooms_open
WHERE {rooms.OPEN} AND owner <> :me AND owner NOT IN (SELECT id FROM replicas)
"""  # noqa: S608
"""Every owner but one. Those of webhooks are found one by one in the indexes: they may have very many."""

Other = tuple[str, float, str, float]
HOLDS = "SELECT 1 FROM replicas WHERE id = ? AND boot = ? AND expires > ?"


def join(
    connection: sqlite3.Connection,
    id: str,
    pid: int,
    now: float,
    ttl: float,
    clock: BootClock,
    *,
    logged: bool = True,
) -> None:
    boot, at = clock()
    connection.execute(JOIN, (id, pid, now, boot, at + ttl))
    if logged:
        begin_replica(connection, id, now)


def rejoin(connection: sqlite3.Connection, old: str, now: float, join: Callable[[sqlite3.Connection], None]) -> None:
    """Give up a lease, and join under a new id; what the old one owned can be taken over at once."""
    connection.execute(GIVE_UP, (old,))
    end_replica(connection, old, ReplicaEnding.LEASE_LOST, now)
    join(connection)


def renew(connection: sqlite3.Connection, id: str, now: float, ttl: float, clock: BootClock) -> bool:
    boot, at = clock()
    return connection.execute(RENEW, (at + ttl, now, id, boot, at)).rowcount == 1


def holds(connection: sqlite3.Connection, id: str, clock: BootClock) -> bool:
    """Return True if a replica's lease has not run out."""
    return connection.execute(HOLDS, (id, *clock())).fetchone() is not None


def leave(connection: sqlite3.Connection, id: str, now: float) -> None:
    """Give back everything that a replica owns, and its lease, without counting a crash against any webhook."""
    connection.execute(webhooks.DISOWN, (id,))
    connection.execute(webhooks.TAKE_HELD, (None, id))
    rooms.release(connection, id, now, "given back by a replica that stopped", RunOutcome.HANDED_OVER)
    connection.execute(LEAVE, (id,))
    end_replica(connection, id, ReplicaEnding.STOPPED, now)


def others(connection: sqlite3.Connection, id: str, now: float) -> list[Other]:
    """Return every replica but one: its id, when it was last seen, and its lease's boot and end, if it has one."""
    return connection.execute(OTHERS, {"me": id, "now": now}).fetchall()


class Dead(NamedTuple):
    """Hold replicas by what ended: their lease for good, all of their processes, or their own process only.

    The lease of those `before_us` ended before ours began.
    """

    over: set[str]
    dead: set[str]
    guarded: set[str]
    before_us: set[str]


def find_the_dead(
    others: Iterable[Other], clock: BootClock, life_of: Callable[[str], Life], rejoined_at: float = -inf
) -> Dead:
    """Return the replicas whose lease has run out for good, and those that died before that.

    If a replica's file is missing, its lease decides; a replica of an older program has no lease and counts as dead.
    `rejoined_at` is when this replica got a lease after it had lost one, by the boot clock.
    """
    found = Dead(set(), set(), set(), set())
    this_boot, at = clock()
    for other, _, boot, expires in others:
        if expires and (boot != this_boot or expires <= at):
            found.over.add(other)
            if boot == this_boot and expires <= rejoined_at:
                found.before_us.add(other)
        elif (life := life_of(other)) is Life.DEAD or (life is Life.UNKNOWN and not expires):
            found.dead.add(other)
        elif life is Life.GUARDED:
            found.guarded.add(other)
    return found


def take_over_dead(
    connection: sqlite3.Connection,
    id: str,
    now: float,
    max_age: float,
    dead: Set[str],
    guarded: Set[str],
    before_us: Set[str],
    clock: BootClock,
) -> int:
    """Take over the webhooks of dead replicas, and make their rooms wait; return how many were taken over.

    The rooms of a `guarded` replica are left to it, since an assistant may still be in one, but its webhooks are not:
    others of the same rooms must not overtake them. Those that another replica has taken over meanwhile are skipped.
    Rooms that waited for `max_age` seconds end. A lease that ended `before_us` does not count as a crash: the file may
    have been out of reach for both.
    """
    taken = 0
    for other, seen_at, boot, expires in others(connection, id, now) if dead or guarded else ():
        if other in guarded:
            taken += _take_webhooks(connection, id, other)
        if other in dead:
            too_old = now - max_age if now - _alive_until(seen_at, boot, expires, now, clock) > max_age else None
            reason = f"its replica {other} died" + ("" if too_old is None else " longer than max_age ago")
            taken += _take_webhooks(connection, id, other, crashed=other not in before_us)
            taken += rooms.release(connection, other, now, reason, RunOutcome.REPLICA_DIED, too_old=too_old)
            connection.execute(LEAVE, (other,))
            end_replica(connection, other, ReplicaEnding.DIED, now)
    rooms.end_old(connection, now, max_age)
    return taken


def _alive_until(seen_at: float, boot: str, expires: float, now: float, clock: BootClock) -> float:
    """Return until when a replica counted as alive: its lease's end, or when it was last seen if that is not known."""
    this_boot, at = clock()
    return max(seen_at, now + expires - at) if expires and boot == this_boot else seen_at


def _take_webhooks(connection: sqlite3.Connection, id: str, other: str, *, crashed: bool = True) -> int:
    values = {"new": id, "owner": other, "crashed": crashed}
    orphaned = connection.execute(webhooks.TAKE_ORPHANED, values).rowcount
    return orphaned + connection.execute(webhooks.TAKE_HELD, (id, other)).rowcount


BEGIN_REPLICA = "INSERT INTO replica_log (id, started_at) VALUES (?, ?) ON CONFLICT (id) DO NOTHING"
END_REPLICA = "UPDATE replica_log SET ended_at = ?, ending = ? WHERE id = ? AND ended_at IS NULL"
FIND_REPLICAS = """
SELECT replica_log.id, started_at, ended_at, ending, replicas.seen_at
FROM replica_log LEFT JOIN replicas ON replicas.id = replica_log.id
WHERE started_at <= :until AND (ended_at IS NULL OR ended_at >= COALESCE(
    (SELECT MAX(ended_at) FROM replica_log WHERE ended_at < :since), :since
)) ORDER BY started_at, replica_log.id
"""
FORGET_REPLICAS = """
DELETE FROM replica_log WHERE rowid IN (
    SELECT rowid FROM replica_log WHERE COALESCE(ended_at, started_at) < ?
    AND (ended_at IS NOT NULL OR id NOT IN (SELECT id FROM replicas)) LIMIT ?
)
"""


def begin_replica(connection: sqlite3.Connection, id: str, now: float) -> None:
    connection.execute(BEGIN_REPLICA, (id, now))


def end_replica(connection: sqlite3.Connection, id: str, ending: ReplicaEnding, now: float) -> None:
    """Record how a replica ended; the first ending that was seen stays."""
    connection.execute(END_REPLICA, (now, ending.value, id))


def find_replicas(connection: sqlite3.Connection, since: float, until: float) -> list[ReplicaRecord]:
    rows = connection.execute(FIND_REPLICAS, {"since": since, "until": until}).fetchall()
    return [
        ReplicaRecord(id, started_at, ended_at, ReplicaEnding.of(ending), seen_at)
        for id, started_at, ended_at, ending, seen_at in rows
    ]


def forget_replicas(connection: sqlite3.Connection, before: float, limit: int) -> int:
    """Forget at most `limit` replicas that ended before a time; return how many."""
    return connection.execute(FORGET_REPLICAS, (before, limit)).rowcount
