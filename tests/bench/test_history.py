"""The history benchmark asks every question of a store that has the rows for it."""

from pathlib import Path

import pytest

from bench.history import measure, questions
from tests.support.postgres import Server
from whereby_trigger.store.sqlite import SqliteStore

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
async def test_each_question_is_timed_after_the_migration(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    if kind == "sqlite":
        url = f"sqlite:///{tmp_path}/store.db"
    else:
        postgres: Server = request.getfixturevalue("postgres")
        url = postgres.create_database()
    await measure(url, kind, webhooks=200, runs=200)
    shown = capsys.readouterr().out
    assert f"{kind}: 200 webhooks, 50 entries\n" in shown
    assert "  200 runs\n" in shown
    asked = questions(SqliteStore(f"sqlite:///{tmp_path}/none.db"), 0.0)
    assert all(f" ms  {question}: " in shown for question in asked)
