"""A replica that opens the store again, because the first answer was lost, has its lease from then on."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.place import TTL, Place
from tests.support.postgres_place import postgres_place

pytestmark = pytest.mark.anyio


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with postgres_place(tmp_path) as place:
        yield place


async def test_the_lease_of_a_second_opening_counts_from_the_second(place: Place) -> None:
    store = place.replica()
    await store.open(lambda: None)
    await place.crash(store)
    place.clock.jump(TTL + 1)
    await store.open(lambda: None)
    try:
        assert await store.renew(TTL)
    finally:
        await store.close()
