"""How SQLite compiles the statements that every webhook needs."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from whereby_trigger.store.sqlite import webhooks
from whereby_trigger.store.sqlite.opening import migrate_file


@pytest.mark.parametrize("statement", [webhooks.INSERT, webhooks.DECIDE], ids=["add", "decide"])
def test_to_add_or_decide_a_webhook_sqlite_makes_up_no_table(path: Path, statement: str) -> None:
    # It does for a list of values, in a CHECK too, and that takes longer than all the rest of the statement.
    migrate_file(path)
    with closing(sqlite3.connect(path)) as connection:
        program = connection.execute(f"EXPLAIN {statement}", (None,) * statement.count("?")).fetchall()
    assert [step for step in program if step[1] in ("OpenEphemeral", "OpenAutoindex")] == []
