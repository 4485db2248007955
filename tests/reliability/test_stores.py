"""How the harness reads a store."""

from pathlib import Path

import pytest

from reliability import stores as harness
from reliability.stores import Stores, viewing
from tests.support.arrivals import NOW, arrival
from whereby_trigger.store.factory import store_for

pytestmark = pytest.mark.anyio


async def test_all_webhooks_are_read_once_and_in_order_by_pages(
    tmp_path: Path, stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of a row of half an hour in one read took a replica longer than it waits for any answer."""
    monkeypatch.setattr(harness, "PAGE", 4)
    url = stores.new(tmp_path)
    store = store_for(url)
    await store.open(lambda: None)
    for number in range(11):
        # Each third came at the moment of the one before, and one of them is stored late.
        late = 5 if number == 7 else number % 3 == 2
        await store.add(arrival(f"w{number:02d}", received_at=NOW + number - late))
    await store.close()
    async with viewing(url) as view:
        assert [record.id for record in await view.records()] == [f"w{number:02d}" for number in range(11)]
