"""A property: whatever arrives, in any batches and over any number of openings, is held once and counted."""

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.arrivals import arrival
from tests.support.place import Place
from tests.support.stores import KINDS
from whereby_trigger.store import Query, Store

EXAMPLES, EXAMPLES_ON_A_SERVER = 30, 8

DELIVERY = st.tuples(st.sampled_from(["a", "b", "c", "A", "ä", ""]), st.binary(max_size=8))
BATCH = st.lists(DELIVERY, max_size=12)
OPENING = st.lists(BATCH, max_size=4)


async def deliver(store: Store, batch: list[tuple[str, bytes]]) -> list[bool]:
    added = await asyncio.gather(*(store.add(arrival(id, body=body)) for id, body in batch))
    return [one.duplicate for one in added]


async def check(place: Place, openings: list[list[list[tuple[str, bytes]]]]) -> None:
    first_bodies: dict[str, bytes] = {}
    deliveries: dict[str, int] = {}
    for opening in openings:
        store = place.replica()
        await store.open(lambda: None)
        for batch in opening:
            expected = []
            for id, body in batch:
                expected.append(id in first_bodies)
                first_bodies.setdefault(id, body)
                deliveries[id] = deliveries.get(id, 0) + 1
            assert await deliver(store, batch) == expected
        stored = await store.find(Query())
        await store.close()
        assert {found.id: found.body for found in stored} == first_bodies
        assert {found.id: found.deliveries for found in stored} == deliveries
        assert [found.id for found in reversed(stored)] == list(first_bodies)


@pytest.mark.parametrize("kind", KINDS)
def test_every_id_is_held_once_with_its_first_body_and_all_its_deliveries(kind: str) -> None:
    @settings(max_examples=EXAMPLES if kind == "sqlite" else EXAMPLES_ON_A_SERVER)
    @given(openings=st.lists(OPENING, max_size=3))
    def each(openings: list[list[list[tuple[str, bytes]]]]) -> None:
        with TemporaryDirectory() as folder, KINDS[kind](Path(folder)) as place:
            asyncio.run(check(place, openings))

    each()
