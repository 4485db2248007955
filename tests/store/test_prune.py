"""Pruning old webhooks, and never undecided ones."""

import asyncio
import time

import pytest

from tests.store.conftest import Replicas
from tests.support.arrivals import NOW, arrival, decided, decision
from whereby_trigger.store import Query, State, Store

pytestmark = pytest.mark.anyio

QUARANTINED = {"type": "", "room": None, "state": State.QUARANTINED, "reason": "odd"}


async def ids(store: Store) -> set[str]:
    return {found.id for found in await store.find(Query())}


async def test_decided_webhooks_from_before_the_time_are_forgotten(store: Store) -> None:
    await decided(store, "old", received_at=NOW - 10)
    await decided(store, "new", received_at=NOW)
    await store.add(arrival("odd", received_at=NOW - 10, state=State.QUARANTINED, reason="odd"))
    assert await store.prune(NOW) == 2
    assert await ids(store) == {"new"}
    assert await store.prune(NOW) == 0


async def test_a_pending_webhook_is_never_forgotten_however_old(replicas: Replicas) -> None:
    gone, store = await replicas(), await replicas()
    await store.add(arrival("mine", received_at=0))
    await gone.add(arrival("a dead replica's", received_at=0))
    await decided(store, "replayed", received_at=0)
    await store.replay(Query(ids=("replayed",)), NOW)
    await gone.close()
    assert await store.prune(NOW * 2) == 0
    assert await ids(store) == {"mine", "a dead replica's", "replayed"}


async def test_an_id_dedupes_for_as_long_as_it_is_remembered(store: Store) -> None:
    await decided(store, "a")
    assert (await store.add(arrival("a"))).duplicate
    await store.prune(NOW + 1)
    assert not (await store.add(arrival("a"))).duplicate


LATER, SOONER = 1e12, 1.0
"""Retention limits far in the future, and long past."""


async def test_what_a_copy_could_make_fire_again_is_kept_until_its_signature_is_stale(store: Store) -> None:
    for id, kept_until in (("good", LATER), ("stale", SOONER)):
        added = await store.add(arrival(id, kept_until=kept_until))
        assert await store.decide(decision(added.seq, id))
    assert await store.prune(NOW + 1) == 1
    assert await ids(store) == {"good"}
    assert (await store.add(arrival("good"))).duplicate


async def test_a_duplicate_that_was_signed_later_is_what_counts(store: Store) -> None:
    for id, times in {"raised": (SOONER, LATER), "stays": (LATER, SOONER)}.items():
        for kept_until in times:
            await store.add(arrival(id, kept_until=kept_until))
    together = [arrival("together", kept_until=until) for until in (SOONER, LATER, SOONER)]
    await asyncio.gather(*map(store.add, together))
    for pending in await store.pending(0, 10):
        assert await store.decide(decision(pending.seq, pending.id))
    assert await store.prune(NOW + 1) == 0


async def test_what_came_while_the_clock_was_ahead_keeps_nothing_else_alive(store: Store) -> None:
    ahead = {"received_at": NOW + 1e9, "state": State.QUARANTINED, "reason": "odd"}
    await asyncio.gather(*(store.add(arrival(f"ahead {n}", **ahead)) for n in range(1100)))  # type: ignore[arg-type]
    await decided(store, "old", received_at=NOW - 10)
    assert await store.prune(NOW) == 1


async def test_another_writer_gets_through_while_20000_are_forgotten(replicas: Replicas) -> None:
    pruning, writing = await replicas(), await replicas()
    old = (arrival(str(n), state=State.QUARANTINED, reason="odd") for n in range(20_000))
    await asyncio.gather(*map(pruning.add, old))
    await asyncio.gather(*(pruning.add(arrival(f"pending {n}")) for n in range(1000)))
    # The first use of a connection takes as long as some of the prune's transactions.
    await writing.add(arrival("before", received_at=NOW + 2))
    prune = asyncio.ensure_future(pruning.prune(NOW + 1))
    waits: list[float] = []
    while not prune.done():
        started = time.monotonic()
        await writing.add(arrival(f"new {len(waits)}", received_at=NOW + 2))
        waits.append(time.monotonic() - started)
    assert await prune == 20_000
    assert len(waits) >= 5
    assert max(waits) < 2
    assert len(await ids(writing)) == 1001 + len(waits)
