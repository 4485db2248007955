"""How many deliveries were refused, by minute and reason, on every store."""

import pytest

from tests.store.conftest import Replicas
from tests.support.arrivals import arrival, decided, held
from whereby_trigger.errors import StoreError
from whereby_trigger.store import CLOSED, RefusalCount, RefusalReason, RoomState, Store
from whereby_trigger.store.records import RoomRequest

pytestmark = pytest.mark.anyio

NOON = 1_800_000_000 // 60 * 60
WRONG, SLOW = RefusalReason.WRONG_SIGNATURE, RefusalReason.STORE_SLOW


def counted(count: int, reason: str = WRONG, minute: int = NOON, replica: str = "one") -> RefusalCount:
    return RefusalCount(minute, reason, replica, RefusalReason(reason).status, count)


async def test_what_was_added_is_read_back_oldest_first(store: Store) -> None:
    later, sooner, other = counted(1, minute=NOON + 60), counted(2), counted(3, SLOW)
    await store.add_refusals([later, sooner, other])
    assert await store.refusals(NOON, NOON + 120) == [other, sooner, later]


async def test_a_count_that_is_stored_twice_counts_once_and_a_late_lower_one_not_at_all(store: Store) -> None:
    await store.add_refusals([counted(5)])
    await store.add_refusals([counted(5)])
    await store.add_refusals([counted(4)])
    assert await store.refusals(NOON, NOON + 60) == [counted(5)]
    await store.add_refusals([counted(7)])
    assert await store.refusals(NOON, NOON + 60) == [counted(7)]


async def test_each_replica_has_its_own_count_of_a_minute(replicas: Replicas) -> None:
    first, second = await replicas(), await replicas()
    await first.add_refusals([counted(5, replica="one")])
    await second.add_refusals([counted(4, replica="two")])
    for store in (first, second):
        assert sum(each.count for each in await store.refusals(NOON, NOON + 60)) == 9


async def test_a_minute_counts_if_it_overlaps_the_time_asked_for(store: Store) -> None:
    await store.add_refusals([counted(n + 1, minute=NOON + n * 60) for n in range(4)])

    async def counts(since: float, until: float) -> list[int]:
        return [each.count for each in await store.refusals(since, until)]

    assert await counts(NOON + 59.9, NOON + 120) == [1, 2]
    assert await counts(NOON + 60, NOON + 120.1) == [2, 3]
    assert await counts(NOON + 240, NOON + 1e9) == []


async def test_counts_from_before_the_retention_are_forgotten_with_the_webhooks(store: Store) -> None:
    await store.add_refusals([counted(1, minute=NOON + n * 60) for n in range(700)])
    await store.prune(NOON + 599 * 60 + 0.5)
    assert len(await store.refusals(0, 1e12)) == 100


async def test_each_reason_has_a_status_and_fits_every_store(store: Store) -> None:
    counts = [counted(1, reason) for reason in sorted(RefusalReason)]
    await store.add_refusals(counts)
    assert await store.refusals(NOON, NOON + 1) == counts
    assert {each.status for each in counts} == {400, 401, 404, 405, 408, 413, 503, CLOSED}


async def test_the_workload_counts_what_waits_and_the_open_rooms_of_all_replicas(replicas: Replicas) -> None:
    first, second = await replicas(), await replicas()
    empty = await first.workload()
    assert (empty.pending, empty.held, empty.oldest, empty.rooms) == (0, 0, None, {})
    for n, store in enumerate((first, second, first)):
        await store.add(arrival(f"pending {n}", received_at=NOON + 5 - n))
    await decided(first, "decided", received_at=NOON - 100)
    await held(first, "held")
    for key in ("a", "b", "c"):
        await first.request(RoomRequest(f"acme.whereby.com/{key}", f"https://acme.whereby.com/{key}", None, None, 0))
    await second.take(1)
    assert await first.stop("acme.whereby.com/c", "by hand") is RoomState.WAITING
    workload = await second.workload()
    assert (workload.pending, workload.held, workload.oldest) == (3, 1, NOON + 3)
    assert workload.rooms == {RoomState.WAITING: 1, RoomState.STARTING: 1}


async def test_a_failed_attempt_is_counted_by_its_kind(store: Store) -> None:
    assert set(store.errors.counts.values()) == {0}
    with pytest.raises(StoreError):
        await store.add_refusals([RefusalCount(NOON, "a\0b\ud800", "one", 401, 1)])
    assert store.errors.counts == {"busy": 0, "unavailable": 0, "refused": 1}
