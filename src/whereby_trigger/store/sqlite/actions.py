"""SQL for what people did by hand on SQLite: one function for each method of the store."""

import sqlite3
from typing import Any

from whereby_trigger.store.records import ActionQuery, ActionRecord

ADD = """
INSERT INTO actions (id, at, actor, action, room, webhook) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING
"""
READ = "SELECT id, at, actor, action, room, webhook FROM actions"
FORGET = "DELETE FROM actions WHERE rowid IN (SELECT rowid FROM actions WHERE at < ? LIMIT ?)"


def add(connection: sqlite3.Connection, action: ActionRecord) -> None:
    row = (action.id, action.at, action.actor, str(action.action), action.room, action.webhook)
    connection.execute(ADD, row)


def find(connection: sqlite3.Connection, query: ActionQuery) -> list[ActionRecord]:
    clauses, values = ["at >= ?", "at < ?"], list[Any]((query.since, query.until))
    if query.room is not None:
        clauses.append("room = ?")
        values.append(query.room)
    if query.webhook is not None:
        clauses.append("webhook = ?")
        values.append(query.webhook)
    statement = f"{READ} WHERE {' AND '.join(clauses)} ORDER BY at DESC, id LIMIT ?"
    return [ActionRecord(*row) for row in connection.execute(statement, (*values, query.limit)).fetchall()]


def forget(connection: sqlite3.Connection, before: float, limit: int) -> int:
    """Forget at most `limit` actions from before a time; return how many."""
    return connection.execute(FORGET, (before, limit)).rowcount
