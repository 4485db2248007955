"""Everything stored is read in order of arrival, a page at a time, with what affects each decision."""

import pytest

from tests.support.arrivals import NOW, ROOM, arrival, decision, held
from whereby_trigger.store import PastWebhook, State, Store

pytestmark = pytest.mark.anyio


async def test_the_history_is_read_a_page_at_a_time_in_order_of_arrival(store: Store) -> None:
    seqs = [(await store.add(arrival(str(n), room=None if n else ROOM))).seq for n in range(5)]
    first = await store.history(0, 2)
    then = await store.history(first[-1].seq, 10)
    assert [past.seq for past in (*first, *then)] == seqs
    assert [past.id for past in (*first, *then)] == ["0", "1", "2", "3", "4"]
    assert await store.history(seqs[-1], 10) == []


async def test_the_history_holds_what_bears_on_a_decision(store: Store) -> None:
    added = await store.add(arrival("a", body=b'{"id": "a"}'))
    assert await store.decide(decision(added.seq, "a", State.SKIPPED, reason="predicate f returned False"))
    (past,) = await store.history(0, 10)
    assert past == PastWebhook(
        seq=added.seq,
        id="a",
        type="room.client.joined",
        room=ROOM,
        body=b'{"id": "a"}',
        state=State.SKIPPED,
        reason="predicate f returned False",
        received_at=NOW,
        queued_at=NOW,
        decided_at=NOW + 1,
        held_since=None,
        due_at=None,
    )


async def test_the_history_says_when_a_hold_began_and_was_due(store: Store) -> None:
    await held(store, "a", 30)
    (past,) = await store.history(0, 10)
    assert past.state is State.HELD
    assert past.held_since is not None
    assert past.due_at == pytest.approx(past.held_since + 30)


async def test_the_first_webhook_since_a_time_is_found_whatever_came_out_of_order(store: Store) -> None:
    times = [NOW, NOW + 10, NOW + 5, NOW + 20]
    seqs = [(await store.add(arrival(str(n), received_at=at))).seq for n, at in enumerate(times)]
    assert [await store.first_since(NOW + late) for late in (-1, 0, 1, 11, 20, 21)] == [
        *(seqs[0], seqs[0], seqs[1], seqs[3], seqs[3], None),
    ]
