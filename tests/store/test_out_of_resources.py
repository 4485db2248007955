"""Out of threads, memory or files is an outage: the work is kept or can be tried again; no value is blamed."""

import asyncio
import errno
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.store.conftest import Replicas
from tests.support.arrivals import arrival, decision, record
from tests.support.place import Place
from tests.support.postgres import database_of, shared_server
from tests.support.rooms import ask, move, take_one
from tests.support.until import eventually
from whereby_trigger.errors import StoreUnavailable
from whereby_trigger.store import Query, RoomState, State, Store
from whereby_trigger.store.postgres import PostgresStore
from whereby_trigger.store.sqlite import webhooks

pytestmark = pytest.mark.anyio

LACKS = [RuntimeError("can't start new thread"), MemoryError(), OSError(errno.EMFILE, os.strerror(errno.EMFILE))]
DISCONNECT = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{0}'"


class Lack:
    """Start no thread, and let SQLite decide and find nothing, while `now`; `met` counts the attempts."""

    def __init__(self, error: Exception) -> None:
        self.error, self.now, self.met = error, False, 0

    def stand_before(self, done: Callable[..., Any]) -> Callable[..., Any]:
        def do(*arguments: object, **keywords: object) -> Any:
            if not self.now:
                return done(*arguments, **keywords)
            self.met += 1
            raise self.error

        return do


@pytest.fixture(params=LACKS, ids=lambda error: type(error).__name__)
def lack(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lack]:
    lack = Lack(request.param)
    monkeypatch.setattr(threading.Thread, "start", lack.stand_before(threading.Thread.start))
    for verb in ("decide", "find"):
        monkeypatch.setattr(webhooks, verb, lack.stand_before(getattr(webhooks, verb)))
    yield lack
    lack.now = False


def disconnect(place: Place, store: Store) -> None:
    """Make the next use of a database connect again."""
    if isinstance(store, PostgresStore):
        shared_server().run(DISCONNECT.format(database_of(place.url)))


async def test_what_must_not_be_lost_waits_until_there_is_enough_again(
    place: Place, replicas: Replicas, lack: Lack
) -> None:
    store = await replicas()
    first = await store.add(arrival("first"))
    await ask(store)
    room = await take_one(store)
    disconnect(place, store)
    lack.now = True
    deciding = asyncio.ensure_future(store.decide(decision(first.seq, "first")))
    moving = asyncio.ensure_future(move(store, room, RoomState.LIVE))
    await eventually(lambda: lack.met > 1)
    assert not deciding.done()
    lack.now = False
    assert await deciding
    assert await moving
    assert (await record(store, "first")).state is State.FIRED


async def test_what_cannot_be_read_for_lack_of_something_can_be_read_later(
    place: Place, replicas: Replicas, lack: Lack
) -> None:
    store = await replicas()
    await store.add(arrival("first"))
    disconnect(place, store)
    lack.now = True
    with pytest.raises(StoreUnavailable):
        await store.find(Query())
    lack.now = False
    await eventually(lambda: reads(store))


async def reads(store: Store) -> bool:
    try:
        return len(await store.find(Query())) == 1
    except StoreUnavailable:
        return False
