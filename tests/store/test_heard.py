"""What is heard of a room: its webhooks from a number on, in order, whichever replica received them."""

import asyncio

import pytest

from tests.store.conftest import Replicas
from tests.support.arrivals import ROOM, arrival
from tests.support.until import eventually
from whereby_trigger.store import Store

pytestmark = pytest.mark.anyio

ELSEWHERE = "acme.whereby.com/elsewhere"


HERE = frozenset({ROOM})


async def test_the_webhooks_of_some_rooms_are_heard_in_order_with_their_numbers_and_no_others(store: Store) -> None:
    keys = [ROOM, ELSEWHERE, ROOM, "acme.whereby.com/third", None, ROOM]
    seqs = [(await store.add(arrival(str(n), body=b"%d" % n, room=key))).seq for n, key in enumerate(keys)]
    heard = await store.heard(0, HERE)
    assert heard.webhooks == ((ROOM, seqs[0], b"0"), (ROOM, seqs[2], b"2"), (ROOM, seqs[5], b"5"))
    assert not heard.more
    both = await store.heard(seqs[0], frozenset({ROOM, ELSEWHERE}))
    assert both.webhooks == ((ELSEWHERE, seqs[1], b"1"), (ROOM, seqs[2], b"2"), (ROOM, seqs[5], b"5"))
    assert (await store.heard(0, frozenset())).webhooks == ()


async def test_what_is_heard_goes_on_where_it_left_off_though_other_rooms_came_last(store: Store) -> None:
    await store.add(arrival("a"))
    other = await store.add(arrival("b", room=ELSEWHERE))
    await heard_all_to(store, other.seq)
    assert (await store.heard(other.seq, HERE)).webhooks == ()
    last = await store.add(arrival("c", body=b"c"))
    assert (await store.heard(other.seq, HERE)).webhooks == ((ROOM, last.seq, b"c"),)


async def test_a_great_many_webhooks_are_heard_page_by_page_in_order(store: Store) -> None:
    added = await asyncio.gather(*(store.add(arrival(str(n), body=b"%d" % n)) for n in range(1234)))
    await heard_all_to(store, added[-1].seq)
    upto, more, heard = 0, True, list[tuple[str, int, bytes]]()
    while more:
        page = await store.heard(upto, HERE)
        assert len(page.webhooks) <= 500
        heard += page.webhooks
        upto, more = page.upto, page.more
    assert heard == [(ROOM, one.seq, b"%d" % n) for n, one in enumerate(added)]


async def test_a_replica_hears_what_another_received(replicas: Replicas) -> None:
    one, two = await replicas(), await replicas()
    added = await one.add(arrival("a", body=b"a"))
    assert (await two.heard(0, HERE)).webhooks == ((ROOM, added.seq, b"a"),)


async def heard_all_to(store: Store, seq: int) -> None:
    """Wait until the store says that nothing up to a number is still to come, and nothing above it has come."""

    async def look() -> bool:
        return (await store.heard(seq - 1, HERE)).upto == seq

    await eventually(look)
