"""What is heard of a room: its webhooks from a number on, in order, whichever replica received them."""

import asyncio

import pytest

from tests.store.conftest import Replicas
from tests.support.arrivals import ROOM, arrival
from whereby_trigger.store import Store

pytestmark = pytest.mark.anyio

ELSEWHERE = "acme.whereby.com/elsewhere"


async def test_the_webhooks_of_some_rooms_are_heard_in_order_and_no_others(store: Store) -> None:
    for n, key in enumerate([ROOM, ELSEWHERE, ROOM, "acme.whereby.com/third", None, ROOM]):
        last = await store.add(arrival(str(n), body=b"%d" % n, room=key))
    heard = await store.heard(0, frozenset({ROOM}))
    assert heard.webhooks == ((ROOM, b"0"), (ROOM, b"2"), (ROOM, b"5"))
    assert (heard.upto, heard.more) == (last.seq, False)
    both = await store.heard(1, frozenset({ROOM, ELSEWHERE}))
    assert both.webhooks == ((ELSEWHERE, b"1"), (ROOM, b"2"), (ROOM, b"5"))
    assert (await store.heard(0, frozenset())).webhooks == ()


async def test_what_is_heard_goes_on_where_it_left_off_though_other_rooms_came_last(store: Store) -> None:
    await store.add(arrival("a"))
    other = await store.add(arrival("b", room=ELSEWHERE))
    heard = await store.heard(0, frozenset({ROOM}))
    assert heard.upto == other.seq
    assert (await store.heard(heard.upto, frozenset({ROOM}))).webhooks == ()
    await store.add(arrival("c", body=b"c"))
    assert (await store.heard(heard.upto, frozenset({ROOM}))).webhooks == ((ROOM, b"c"),)


async def test_a_great_many_webhooks_are_heard_page_by_page_each_once(store: Store) -> None:
    await asyncio.gather(*(store.add(arrival(str(n), body=b"%d" % n)) for n in range(1234)))
    upto, more, bodies = 0, True, []
    while more:
        heard = await store.heard(upto, frozenset({ROOM}))
        bodies += [body for _, body in heard.webhooks]
        upto, more = heard.upto, heard.more
        assert len(heard.webhooks) <= 500
    assert bodies == [b"%d" % n for n in range(1234)]


async def test_a_replica_hears_what_another_received(replicas: Replicas) -> None:
    one, two = await replicas(), await replicas()
    await one.add(arrival("a", body=b"a"))
    assert (await two.heard(0, frozenset({ROOM}))).webhooks == ((ROOM, b"a"),)
