"""What the lease says to SQLite: who lives, until when, and what becomes of what the dead leave."""

import sqlite3
from collections.abc import Callable

from whereby_trigger.boot import BootClock
from whereby_trigger.store.sqlite import rooms, statements

JOIN = "INSERT INTO replicas (id, pid, seen_at, boot, expires) VALUES (?, ?, ?, ?, ?)"
RENEW = "UPDATE replicas SET expires = ?, seen_at = ? WHERE id = ? AND boot = ? AND expires > ?"
LEAVE = "DELETE FROM replicas WHERE id = ?"
OTHERS = """
SELECT id, seen_at, boot, expires FROM replicas WHERE id <> :me
UNION SELECT owner, :now, '', 0 FROM webhooks
WHERE state = 'pending' AND owner <> :me AND owner NOT IN (SELECT id FROM replicas)
UNION SELECT owner, :now, '', 0 FROM rooms WHERE owner <> :me AND owner NOT IN (SELECT id FROM replicas)
"""
HOLDS = "SELECT 1 FROM replicas WHERE id = ? AND boot = ? AND expires > ?"


def join(connection: sqlite3.Connection, id: str, pid: int, now: float, ttl: float, clock: BootClock) -> None:
    boot, at = clock()
    connection.execute(JOIN, (id, pid, now, boot, at + ttl))


def renew(connection: sqlite3.Connection, id: str, now: float, ttl: float, clock: BootClock) -> bool:
    boot, at = clock()
    return connection.execute(RENEW, (at + ttl, now, id, boot, at)).rowcount == 1


def holds(connection: sqlite3.Connection, id: str, clock: BootClock) -> bool:
    """Tell whether a replica's lease has not run out."""
    return connection.execute(HOLDS, (id, *clock())).fetchone() is not None


def leave(connection: sqlite3.Connection, id: str, now: float) -> None:
    """Give back everything that a replica owns, and its lease; no webhook is to blame for an end like this."""
    connection.execute(statements.DISOWN, (id,))
    rooms.release(connection, id, now, "given back by a replica that stopped")
    connection.execute(LEAVE, (id,))


def bury_the_dead(
    connection: sqlite3.Connection,
    id: str,
    now: float,
    max_age: float,
    clock: BootClock,
    is_dead: Callable[[str], bool],
) -> int:
    """Take over the webhooks of every replica that is dead or whose lease has run out, and let its rooms wait."""
    taken = 0
    this_boot, at = clock()
    for other, seen_at, boot, expires in connection.execute(OTHERS, {"me": id, "now": now}).fetchall():
        # A replica of an older program has no lease, only its lock.
        if is_dead(other) or (expires and (boot != this_boot or expires <= at)):
            too_old = now - max_age if now - seen_at > max_age else None
            reason = f"its replica {other} died" + ("" if too_old is None else " longer than max_age ago")
            taken += connection.execute(statements.CLAIM_ORPHANED, (id, other)).rowcount
            taken += rooms.release(connection, other, now, reason, too_old=too_old)
            connection.execute(LEAVE, (other,))
    rooms.end_old(connection, now, max_age)
    return taken
