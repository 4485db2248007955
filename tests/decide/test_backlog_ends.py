"""The backlog's loop ends when it is cancelled, whatever else happens to it, and reads no more often than it may."""

import asyncio
from collections.abc import Awaitable
from math import inf
from pathlib import Path

import pytest

from tests.support.stages import backlog_for, decider_for, dispatcher_for
from tests.support.until import eventually
from whereby_trigger.decide import Emitter, Predicates, UserCode
from whereby_trigger.decide import dispatcher as module
from whereby_trigger.store import Pending, Unread
from whereby_trigger.store.sqlite import SqliteStore

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("turns", range(5))
async def test_a_backlog_that_is_woken_as_it_is_cancelled_ends_all_the_same(tmp_path: Path, turns: int) -> None:
    store = SqliteStore(f"sqlite:///{tmp_path}/webhooks.db")
    await store.open(lambda: None)
    user_code = UserCode(1)
    decider, unread = decider_for(store, Predicates({}), Emitter(), user_code, 60), Unread()
    backlog = backlog_for(store, dispatcher_for(store, decider, unread), unread)
    running = asyncio.create_task(backlog.run())
    await eventually(lambda: unread.woken._waiters)
    unread.look()
    for _ in range(turns):
        await asyncio.sleep(0)
    running.cancel()
    done, _ = await asyncio.wait({running}, timeout=5)
    running.cancel()
    await asyncio.wait({running})
    await store.close()
    user_code.close()
    assert done


class CountingStore(SqliteStore):
    reads = 0

    def pending(self, after: int, limit: int) -> Awaitable[list[Pending]]:
        self.reads += 1
        return super().pending(after, limit)


async def test_duplicates_of_what_others_decide_lead_to_no_read_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read is of all that is pending: if 4,000 webhooks are, 80 duplicates a second took all of a core."""
    for name, seconds in {"REREAD": 3600.0, "TAKEOVER": 3600.0, "LONGEST_REST": 3600.0, "REST": inf}.items():
        monkeypatch.setattr(module, name, seconds)
    store = CountingStore(f"sqlite:///{tmp_path}/webhooks.db")
    await store.open(lambda: None)
    user_code = UserCode(1)
    unread = Unread()
    dispatcher = dispatcher_for(store, decider_for(store, Predicates({}), Emitter(), user_code, 60), unread)
    running = asyncio.create_task(backlog_for(store, dispatcher, unread).run())
    await eventually(lambda: unread.woken._waiters)
    assert store.reads == 1
    for _ in range(100):
        dispatcher.find(7)
        await store.newest()
    running.cancel()
    await asyncio.wait({running})
    await store.close()
    user_code.close()
    assert store.reads == 1
    assert unread.due, "the read is still to come"
