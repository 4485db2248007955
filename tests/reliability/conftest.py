"""The stores that the harness knows: every one, or only files if the behaviour is the same on each."""

import pytest

from reliability.stores import KINDS, PostgresStores, SqliteStores, Stores


@pytest.fixture(params=KINDS)
def stores(request: pytest.FixtureRequest) -> Stores:
    if request.param == PostgresStores.name:
        return PostgresStores(request.getfixturevalue("postgres"))
    return SqliteStores()


@pytest.fixture
def files() -> SqliteStores:
    return SqliteStores()
