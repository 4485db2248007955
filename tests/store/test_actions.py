"""Manual actions, on every store."""

import asyncio

import pytest

from whereby_trigger.store import ActionKind, ActionQuery, ActionRecord, Store

pytestmark = pytest.mark.anyio

ROOM = "acme.whereby.com/visit-1"


def acted(id: str, at: float, room: str | None = ROOM, webhook: str | None = None) -> ActionRecord:
    return ActionRecord(id, at, "inspector", ActionKind.STOP, room, webhook)


async def test_actions_are_found_by_room_by_webhook_and_by_time_newest_first(store: Store) -> None:
    first, second, other = acted("a", 10.0), acted("b", 20.0, webhook="one"), acted("c", 30.0, "acme.whereby.com/x")
    for action in (first, second, other):
        await store.add_action(action)
    assert await store.find_actions(ActionQuery()) == [other, second, first]
    assert await store.find_actions(ActionQuery(room=ROOM)) == [second, first]
    assert await store.find_actions(ActionQuery(webhook="one")) == [second]
    assert await store.find_actions(ActionQuery(since=10.0, until=30.0)) == [second, first]
    assert await store.find_actions(ActionQuery(limit=1)) == [other]


async def test_an_action_that_is_stored_twice_counts_once(store: Store) -> None:
    await store.add_action(acted("a", 10.0))
    await store.add_action(acted("a", 10.0))
    assert await store.find_actions(ActionQuery()) == [acted("a", 10.0)]


async def test_actions_from_before_the_retention_are_forgotten(store: Store) -> None:
    await asyncio.gather(*(store.add_action(acted(str(n), float(n))) for n in range(9)))
    await store.prune(7.5)
    assert [action.at for action in await store.find_actions(ActionQuery())] == [8.0]
