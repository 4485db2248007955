"""A webhook that ends the process each time its predicate is asked affects no other."""

import asyncio
from pathlib import Path

import pytest

from reliability.corpus import Item
from reliability.load import Load
from reliability.receiver import POISON
from reliability.receivers import Receivers
from reliability.stores import Stores, viewing
from whereby_trigger.store import State
from whereby_trigger.testing import webhook

pytestmark = pytest.mark.anyio

MOST_DEATHS = 6


def joined(id: str, room: str, external_id: str | None = None) -> Item:
    built = webhook("room.client.joined", room=room, id=id, role_name="host", external_id=external_id)
    return Item(id, built.type, room, built.raw, State.FIRED)


async def test_a_webhook_that_kills_the_process_is_parked(tmp_path: Path, stores: Stores) -> None:
    url = stores.new(tmp_path)
    receivers, load = Receivers(url, tmp_path / "emissions", options=stores.quick_lease), Load(tmp_path, seed=1)
    innocent = [joined(f"innocent-{number}", f"/visit-{number % 3}") for number in range(9)]
    blocking = webhook("assistant.requested", room="/standup", id="blocking")
    try:
        busy = await receivers.start("--delay", "5")
        load.port = await busy.listening()
        first = Item("blocking", blocking.type, "/standup", blocking.raw, State.FIRED)
        for item in [first, *innocent[:5], joined("poison", "/visit-0", POISON), *innocent[5:]]:
            assert await load.deliver(item) == 200
        await busy.kill()

        deaths = 0
        async with viewing(url) as view:
            while True:
                receiver = await receivers.start()
                decided, ended = asyncio.create_task(view.until_decided()), asyncio.create_task(receiver.ended())
                await asyncio.wait({decided, ended}, return_when=asyncio.FIRST_COMPLETED)
                if not ended.done():
                    break
                decided.cancel()
                deaths += 1
                assert deaths <= MOST_DEATHS, "the dying goes on"
            await receiver.stop()
            states = {record.id: (record.state, record.reason) for record in await view.records()}
    finally:
        load.close()
        await receivers.close()

    assert deaths == 4
    assert states.pop("poison") == (State.FAILED, "the process ended while it was in user code, 3 times")
    assert {state for state, _ in states.values()} == {State.FIRED}
    assert {emission.id for emission in receivers.emissions()} == states.keys()
