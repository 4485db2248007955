"""The promises hold on every store."""

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.postgres import Server

NewStore = Callable[[], str]


@pytest.fixture(params=["sqlite", "postgresql"])
def new_store(request: pytest.FixtureRequest, tmp_path: Path) -> NewStore:
    """Return a function that returns the URL of another new store of one kind."""
    if request.param == "sqlite":
        numbers = itertools.count(1)
        return lambda: f"sqlite:///{tmp_path}/{next(numbers)}.db"
    postgres: Server = request.getfixturevalue("postgres")
    return postgres.create_database
