"""Work for the database is done in order, and work that nobody waits for any more is skipped."""

import asyncio

import pytest

from tests.store.conftest import Replicas
from tests.support.arrivals import arrival
from whereby_trigger.errors import StoreError
from whereby_trigger.store import Query

pytestmark = pytest.mark.anyio


async def test_a_delivery_that_was_given_up_before_it_was_sent_is_not_stored(url: str, opened: Replicas) -> None:
    store = await opened(url)
    first, given_up, last = (store.add(arrival(id)) for id in ("first", "given up", "last"))
    given_up.cancel()
    assert not (await first).duplicate
    assert not (await last).duplicate
    assert [found.id for found in await store.find(Query())] == ["last", "first"]


async def test_what_the_database_refuses_takes_nothing_else_of_its_batch_along(url: str, opened: Replicas) -> None:
    store = await opened(url)
    ids = ["first", "no\0good", "second", "third"]
    adding = [store.add(arrival(id)) for id in ids]
    outcomes = await asyncio.gather(*adding, return_exceptions=True)
    assert [isinstance(outcome, StoreError) for outcome in outcomes] == [False, True, False, False]
    assert [found.id for found in await store.find(Query())] == ["third", "second", "first"]
