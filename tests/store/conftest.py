"""A store of every kind, opened by as many replicas as a test wants."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.support.place import Place
from tests.support.stores import KINDS
from whereby_trigger.store import Store

Replicas = Callable[..., Awaitable[Store]]


@pytest.fixture(params=list(KINDS))
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    with KINDS[request.param](tmp_path) as place:
        yield place


@pytest.fixture
async def replicas(place: Place) -> AsyncIterator[Replicas]:
    """Return a function that opens one more replica of the same store; each is closed after the test."""
    async with AsyncExitStack() as opened:

        async def open_one(changed: Callable[[], None] = lambda: None) -> Store:
            store = place.replica()
            await store.open(changed)
            opened.push_async_callback(store.close)
            return store

        yield open_one


@pytest.fixture
async def store(replicas: Replicas) -> Store:
    return await replicas()
