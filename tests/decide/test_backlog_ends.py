"""The end of the backlog's loop: it heeds its cancellation whatever else happens to it."""

import asyncio
from pathlib import Path

import pytest

from tests.support.until import eventually
from whereby_trigger.decide import Backlog, Decider, Dispatcher, Emitter, Predicates, UserCode
from whereby_trigger.store.sqlite import SqliteStore

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("turns", range(5))
async def test_a_backlog_that_is_woken_as_it_is_cancelled_ends_all_the_same(tmp_path: Path, turns: int) -> None:
    store = SqliteStore(f"sqlite:///{tmp_path}/webhooks.db")
    await store.open(lambda: None)
    user_code = UserCode(1)
    decider = Decider(store, Predicates({}), Emitter(), user_code, max_age=60)
    backlog = Backlog(store, Dispatcher(store, decider, lambda queued, decision: None), max_age=60)
    running = asyncio.create_task(backlog.run())
    await eventually(lambda: backlog._woken._waiters)
    backlog.read()
    for _ in range(turns):
        await asyncio.sleep(0)
    running.cancel()
    done, _ = await asyncio.wait({running}, timeout=5)
    running.cancel()
    await asyncio.wait({running})
    await store.close()
    user_code.close()
    assert done
