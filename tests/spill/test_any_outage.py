"""Outages that begin and end at any point of a load: everything answered is in the database, in order, once."""

import asyncio
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.spill.conftest import Spilling
from tests.support.arrivals import arrival
from whereby_trigger.store import Added

STEPS = ("deliver", "deliver", "deliver", "go_down", "fall_silent", "come_back", "go_on", "restart")


async def live_through(folder: Path, steps: list[str]) -> None:
    one = Spilling(folder)
    await one.spill.open(lambda: None)
    delivered: list[asyncio.Future[Added]] = []
    for step in steps:
        if step == "deliver":
            delivered.append(asyncio.ensure_future(one.spill.add(arrival(f"{len(delivered)}"))))
        elif step == "go_on":
            await one.spill_file.ping()
        elif step == "restart":
            await one.spill.close()
            await asyncio.gather(*delivered)
            one.store.come_back()
            one = Spilling(folder)
            await one.spill.open(lambda: None)
        else:
            # A database does not refuse and come back before its refusal is noticed.
            await asyncio.sleep(0)
            getattr(one.store, step)()
    assert not any(added.duplicate for added in await asyncio.gather(*delivered))
    one.store.come_back()
    await one.drained()
    assert await one.ids() == [f"{n}" for n in range(len(delivered))]
    await one.spill.close()


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(STEPS), max_size=60))
def test_all_that_was_answered_arrives_once_and_in_order_whatever_the_outages(
    impatience: None, steps: list[str]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(live_through(Path(folder), steps))
