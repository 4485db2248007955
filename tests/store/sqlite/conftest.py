"""A new SQLite file for each test."""

from pathlib import Path

import pytest

from whereby_trigger.store import Store
from whereby_trigger.store.sqlite import SqliteStore


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "webhooks.db"


@pytest.fixture
def url(path: Path) -> str:
    return f"sqlite:///{path}"


@pytest.fixture
def unopened(url: str) -> Store:
    return SqliteStore(url)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> float:
    """Make every store opened from now on wait a fifth of a second for a lock; return the seconds."""
    monkeypatch.setattr("whereby_trigger.store.sqlite.connection.BUSY_TIMEOUT", 0.2)
    return 0.2
