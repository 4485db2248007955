"""Test a predicate in ten lines: run `python -m pytest` in this folder."""

import pytest
from my_trigger import trigger

from whereby_trigger.testing import webhook


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize(("role", "state"), [("visitor", "fired"), ("assistant", "skipped")])
async def test_an_assistant_joins_people_but_not_itself(role: str, state: str) -> None:
    async with trigger.testing() as t:
        decision = await t.deliver(webhook("room.client.joined", room="/visit-1", role_name=role))
    assert decision.state == state
