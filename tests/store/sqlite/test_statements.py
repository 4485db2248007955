"""How SQLite compiles the statements that every webhook needs."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from whereby_trigger.store import Query, RoomQuery
from whereby_trigger.store.sqlite import rooms, webhooks
from whereby_trigger.store.sqlite.opening import migrate_file


@pytest.mark.parametrize("statement", [webhooks.INSERT, webhooks.DECIDE], ids=["add", "decide"])
def test_to_add_or_decide_a_webhook_sqlite_makes_up_no_table(path: Path, statement: str) -> None:
    # It does for a list of values, in a CHECK too, and that takes longer than all the rest of the statement.
    migrate_file(path)
    with closing(sqlite3.connect(path)) as connection:
        program = connection.execute(f"EXPLAIN {statement}", (None,) * statement.count("?")).fetchall()
    assert [step for step in program if step[1] in ("OpenEphemeral", "OpenAutoindex")] == []


def test_more_webhooks_can_be_asked_about_than_a_statement_may_have_values(path: Path) -> None:
    migrate_file(path)
    many = tuple(map(str, range(100)))
    with closing(sqlite3.connect(path)) as connection:
        # 32,766 or 250,000, by who compiled it.
        connection.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 50)
        assert webhooks.find(connection, Query(ids=many)) == []
        assert webhooks.replay(connection, Query(ids=many, since=1.0), 2.0) == []
        assert rooms.find(connection, RoomQuery(webhooks=many)) == []
