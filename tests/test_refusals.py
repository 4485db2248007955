"""Refusals on their way to the store: bounded in memory, kept while the store is away, and counted once."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.outage import AwayStore
from tests.support.until import eventually
from whereby_trigger import deliveries
from whereby_trigger.deliveries import MOST_COUNTS, NEWEST_KEPT, Refusals
from whereby_trigger.errors import StoreUnavailable
from whereby_trigger.store import RefusalReason

pytestmark = pytest.mark.anyio

WRONG, PATH = RefusalReason.WRONG_SIGNATURE, RefusalReason.WRONG_PATH


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[AwayStore]:
    store = AwayStore(f"sqlite:///{tmp_path}/webhooks.db")
    await store.open(lambda: None)
    yield store
    store.come_back()
    await store.close()


class Clock:
    """The wall clock of refusals, set by the test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1_800_000_000.0
        monkeypatch.setattr("whereby_trigger.deliveries.time.time", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


async def counted(store: AwayStore) -> dict[str, int]:
    """Return what the store counts by reason, over all time."""
    found: dict[str, int] = {}
    for each in await store.refusals(0, 1e12):
        found[each.reason] = found.get(each.reason, 0) + each.count
    return found


async def test_what_is_counted_gets_into_the_store_once_however_often_it_is_stored(
    store: AwayStore, clock: Clock
) -> None:
    counts = Refusals()
    for _ in range(3):
        counts.note(WRONG)
        await counts.store(store)
        await counts.store(store)
    clock.now += 60
    counts.note(WRONG)
    counts.note(PATH, count=5)
    await counts.store(store)
    assert await counted(store) == {WRONG: 4, PATH: 5}
    assert [each.count for each in await store.refusals(0, 1e12)] == [3, 5, 1]


async def test_what_the_store_could_not_take_is_part_of_the_next_try(store: AwayStore, clock: Clock) -> None:
    counts = Refusals()
    counts.note(WRONG)
    await counts.store(store)
    store.go_down()
    for _ in range(3):
        counts.note(WRONG)
        clock.now += 60
        with pytest.raises(StoreUnavailable):
            await counts.store(store)
    store.come_back()
    counts.note(PATH)
    await counts.store(store)
    assert await counted(store) == {WRONG: 4, PATH: 1}


async def test_a_store_whose_answer_was_lost_counts_what_it_has_stored_once(store: AwayStore, clock: Clock) -> None:
    counts = Refusals()
    counts.note(WRONG, count=3)
    store.fall_silent()
    lost = asyncio.create_task(counts.store(store))
    await eventually(lambda: store._waiting)
    unanswered, store._waiting = store._waiting, []
    lost.cancel()
    await asyncio.gather(lost, return_exceptions=True)
    store.come_back()
    counts.note(WRONG)
    await counts.store(store)
    # What was sent first is executed last, as by a server that was slow to read it.
    for work, kept, _ in unanswered:
        await store._write(work, kept=kept)
    assert await counted(store) == {WRONG: 4}


async def test_a_replica_that_got_another_id_counts_nothing_twice(store: AwayStore, clock: Clock) -> None:
    counts = Refusals()
    counts.note(WRONG, count=3)
    await counts.store(store)
    await store.rejoin(30)
    counts.note(WRONG)
    await counts.store(store)
    assert sorted(each.count for each in await store.refusals(0, 1e12)) == [1, 3]


async def test_minutes_that_cannot_be_stored_take_bounded_memory_and_lose_no_count(
    store: AwayStore, clock: Clock
) -> None:
    counts = Refusals()
    counts.note(WRONG, count=7)
    await counts.store(store)
    for _ in range(MOST_COUNTS):
        for reason in (WRONG, PATH):
            counts.note(reason)
        clock.now += 60
    assert len(counts._counts) <= MOST_COUNTS
    await counts.store(store)
    assert await counted(store) == {WRONG: MOST_COUNTS + 7, PATH: MOST_COUNTS}
    await counts.store(store)
    assert not counts._counts


async def test_what_is_refused_while_the_store_works_is_not_forgotten(store: AwayStore, clock: Clock) -> None:
    counts = Refusals()
    counts.note(WRONG)
    store.fall_silent()
    storing = asyncio.create_task(counts.store(store))
    await eventually(lambda: store._waiting)
    counts.note(WRONG, count=4)
    clock.now += 60
    store.come_back()
    await storing
    await counts.store(store)
    assert await counted(store) == {WRONG: 5}


async def test_refusals_are_stored_every_few_seconds_and_a_store_that_is_away_ends_nothing(
    store: AwayStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliveries, "STORE_EVERY", 0.01)
    counts = Refusals()
    store.go_down()
    keeping = asyncio.create_task(counts.keep(store))
    counts.note(WRONG)
    tried = asyncio.Event()
    asyncio.get_running_loop().call_later(0.05, tried.set)
    await tried.wait()
    store.come_back()

    async def stored() -> bool:
        return await counted(store) == {WRONG: 1}

    await eventually(stored)
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)


def test_the_newest_are_kept_with_a_short_path_that_steers_no_terminal() -> None:
    counts = Refusals()
    for number in range(NEWEST_KEPT + 5):
        counts.note(PATH, f"/{number}")
    counts.note(PATH, "/\x1b[2J\n" + "\u202e" * 10_000)
    counts.note(WRONG, "/", -3600.0)
    assert len(counts.newest) == NEWEST_KEPT
    assert counts.newest[0].path == "/7"
    hostile, stale = list(counts.newest)[-2:]
    assert hostile.path.startswith("/\\x1b[2J\\n")
    assert len(hostile.path) <= 200
    assert hostile.path.isprintable()
    assert (stale.reason, stale.status, stale.skew) == (WRONG, 401, -3600.0)
    assert abs(stale.at - time.time()) < 60
