"""A room's webhooks after a number, in order, whichever replica received them."""

import asyncio

import pytest

from tests.store.conftest import Replicas
from tests.support.arrivals import ROOM, arrival
from tests.support.place import Place
from whereby_trigger.store import Store

pytestmark = pytest.mark.anyio

ELSEWHERE = "acme.whereby.com/elsewhere"


HERE = frozenset({ROOM})
SETTLED = 25.0
"""Seconds after which no store lets a webhook with a lower number appear."""


async def test_the_webhooks_of_some_rooms_are_heard_in_order_with_their_numbers_and_no_others(store: Store) -> None:
    keys = [ROOM, ELSEWHERE, ROOM, "acme.whereby.com/third", None, ROOM]
    seqs = [(await store.add(arrival(str(n), body=b"%d" % n, room=key))).seq for n, key in enumerate(keys)]
    heard = await store.webhooks_after(0, HERE)
    assert heard.webhooks == ((ROOM, seqs[0], b"0"), (ROOM, seqs[2], b"2"), (ROOM, seqs[5], b"5"))
    assert not heard.more
    both = await store.webhooks_after(seqs[0], frozenset({ROOM, ELSEWHERE}))
    assert both.webhooks == ((ELSEWHERE, seqs[1], b"1"), (ROOM, seqs[2], b"2"), (ROOM, seqs[5], b"5"))
    assert (await store.webhooks_after(0, frozenset())).webhooks == ()


async def test_what_is_heard_goes_on_where_it_left_off_though_other_rooms_came_last(place: Place, store: Store) -> None:
    await store.add(arrival("a"))
    other = await store.add(arrival("b", room=ELSEWHERE))
    place.clock.jump(SETTLED)
    heard = await store.webhooks_after(0, HERE)
    assert heard.cursor == other.seq
    assert (await store.webhooks_after(heard.cursor, HERE)).webhooks == ()
    last = await store.add(arrival("c", body=b"c"))
    assert (await store.webhooks_after(heard.cursor, HERE)).webhooks == ((ROOM, last.seq, b"c"),)


async def test_a_great_many_webhooks_are_heard_page_by_page_in_order(place: Place, store: Store) -> None:
    added = await asyncio.gather(*(store.add(arrival(str(n), body=b"%d" % n)) for n in range(1234)))
    place.clock.jump(SETTLED)
    cursor, more, heard = 0, True, list[tuple[str, int, bytes]]()
    while more:
        page = await store.webhooks_after(cursor, HERE)
        heard += page.webhooks
        cursor, more = page.cursor, page.more
    assert cursor == added[-1].seq
    assert heard == [(ROOM, one.seq, b"%d" % n) for n, one in enumerate(added)]


async def test_a_replica_hears_what_another_received(replicas: Replicas) -> None:
    one, two = await replicas(), await replicas()
    added = await one.add(arrival("a", body=b"a"))
    assert (await two.webhooks_after(0, HERE)).webhooks == ((ROOM, added.seq, b"a"),)
