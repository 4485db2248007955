"""The backlog's loop ends when it is cancelled, whatever else happens to it."""

import asyncio
from pathlib import Path

import pytest

from tests.support.stages import backlog_for, decider_for, dispatcher_for
from tests.support.until import eventually
from whereby_trigger.decide import Emitter, Predicates, UserCode
from whereby_trigger.store import Unread
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
