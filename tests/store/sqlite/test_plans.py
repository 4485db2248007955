"""The queries of a scrape and of the list of refusals use an index."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from whereby_trigger.store.sqlite import SqliteStore, history, webhooks

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("statement", "values", "indexes"),
    [
        (webhooks.WORKLOAD, 0, {"webhooks_pending", "webhooks_held", "rooms_open"}),
        (history.READ_REFUSALS, 2, {"sqlite_autoindex_refusals_1"}),
        (history.FORGET_REFUSALS, 2, {"sqlite_autoindex_refusals_1", "INTEGER"}),
    ],
)
async def test_no_table_is_read_whole(tmp_path: Path, statement: str, values: int, indexes: set[str]) -> None:
    await SqliteStore(f"sqlite:///{tmp_path}/webhooks.db").migrate()
    with closing(sqlite3.connect(tmp_path / "webhooks.db")) as connection:
        plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", (0,) * values)]
    read = [step for step in plan if step.startswith(("SCAN", "SEARCH")) and "subquery" not in step]
    assert read
    used = {step.partition("USING ")[2].removeprefix("COVERING ").removeprefix("INDEX ").split(" ")[0] for step in read}
    assert used <= indexes
