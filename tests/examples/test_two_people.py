"""The example that starts at two people does so, whichever of their joins arrives last."""

import importlib.util
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.examples.conftest import EXAMPLES
from whereby_trigger.testing import webhook

NOW = datetime.now(UTC)


def joined(humans: int, seconds: float, room: str) -> Any:
    roles = {"visitor": humans}
    return webhook(
        "room.client.joined",
        room=room,
        created_at=NOW + timedelta(seconds=seconds),
        num_clients=humans,
        num_clients_by_role_name=roles,
    )


@pytest.mark.anyio
async def test_an_assistant_starts_at_two_people_also_if_the_second_join_arrives_first() -> None:
    spec = importlib.util.spec_from_file_location("two_people", EXAMPLES / "two_people.py")
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    async with example.trigger.testing() as t:
        alone = await t.deliver(joined(1, 0, "/one"))
        both = await t.deliver(joined(2, 5, "/one"))
        late = [await t.deliver(joined(humans, seconds, "/two")) for humans, seconds in ((2, 5), (1, 0))]
        rooms = [start.room_url for start in t.assistants]
    assert [str(decision.state) for decision in (alone, both, *late)] == ["skipped", "fired", "fired", "fired"]
    assert rooms == ["https://acme.whereby.com/one", "https://acme.whereby.com/two"]
