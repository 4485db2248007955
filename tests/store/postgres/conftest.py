"""A new database for each test, and stores on it."""

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack

import pytest

from tests.store.conftest import Replicas
from tests.support.postgres import Server
from tests.support.postgres_roles import Roles
from whereby_trigger.store import Store
from whereby_trigger.store.postgres import PostgresStore


@pytest.fixture
def url(postgres: Server) -> str:
    return postgres.create_database()


@pytest.fixture
async def opened() -> AsyncIterator[Replicas]:
    """Return a function that opens a replica of the store at a URL; each is closed after the test."""
    async with AsyncExitStack() as stack:

        async def open_one(url: str) -> Store:
            store = PostgresStore(url)
            await store.open(lambda: None)
            stack.push_async_callback(store.close)
            return store

        yield open_one


@pytest.fixture
def roles(postgres: Server) -> Iterator[Roles]:
    """Create roles with few privileges; they are dropped after the test."""
    roles = Roles(postgres)
    yield roles
    roles.drop()
