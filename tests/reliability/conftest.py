"""Every store that the harness knows."""

import pytest

from reliability.stores import KINDS, PostgresStores, SqliteStores, Stores


@pytest.fixture(params=KINDS)
def stores(request: pytest.FixtureRequest) -> Stores:
    if request.param == PostgresStores.name:
        return PostgresStores(request.getfixturevalue("postgres"))
    return SqliteStores()
