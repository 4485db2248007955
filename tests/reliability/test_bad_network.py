"""How row 9 treats a webhook that is committed when nobody looks any more."""

import time
from pathlib import Path

import pytest

from reliability.checker import check
from reliability.corpus import Item
from reliability.receivers import Receiver
from reliability.rows.bad_network import Cell
from reliability.stores import PostgresStores
from tests.support.arrivals import arrival
from tests.support.postgres import Server
from whereby_trigger.store import State
from whereby_trigger.store.factory import store_for
from whereby_trigger.webhook import decode, room_of

pytestmark = pytest.mark.anyio


async def commit(cell: Cell, late: Item) -> None:
    """Store a webhook that was sent but not answered, for a replica that is gone."""
    cell.load.items[late.id] = late
    cell.load.sends[late.id] += 1
    room, store = room_of(decode(late.body)), store_for(cell.url)
    assert room is not None
    await store.open(lambda: None)
    await store.add(arrival(late.id, body=late.body, type=late.type, room=room.key, received_at=time.time()))
    await store.close()


async def test_what_was_given_up_and_is_committed_after_the_stop_is_decided_by_the_next_start(
    tmp_path: Path, postgres: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = Cell(tmp_path / "cell", PostgresStores(postgres), seed=1)
    late = next(item for item in iter(cell.load.next, None) if item.state is State.FIRED)
    stop, stopped = Receiver.stop, list[Receiver]()

    async def stop_and_commit(receiver: Receiver) -> int:
        code = await stop(receiver)
        if not stopped:
            await commit(cell, late)
        stopped.append(receiver)
        return code

    monkeypatch.setattr(Receiver, "stop", stop_and_commit)
    try:
        await cell.start()
        evidence = await cell.reckon()
    finally:
        await cell.close()
    assert [record.state for record in evidence.records] == [State.FIRED]
    assert check(evidence) == {}
