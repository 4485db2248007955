"""The claims on a room that docs/reference.md lists are those that claims return, or the decider's if they fail."""

import re
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.decide.test_claims import Clerk
from tests.support.markdown import Page
from whereby_trigger import RoomClientJoined
from whereby_trigger.assist import Claims, Supervisor
from whereby_trigger.assist.supervisor import request_for
from whereby_trigger.errors import StoreError
from whereby_trigger.store import Arrival
from whereby_trigger.store.factory import store_for
from whereby_trigger.testing import webhook
from whereby_trigger.webhook import room_from_url, room_of

pytestmark = pytest.mark.anyio

REFERENCE = Page(Path(__file__).parents[2] / "docs" / "reference.md")


async def test_every_documented_claim_is_said_and_no_other(tmp_path: Path) -> None:
    store = store_for(f"sqlite:///{tmp_path}/rooms.db")
    await store.open(lambda: None)
    said: list[str] = []

    async def claim(by: RoomClientJoined, *, slots: int = 1) -> str:
        room = room_of(by)
        assert room is not None
        claims = Claims(store, Supervisor(store, None, slots), bots=False)  # type: ignore[arg-type]
        said.append(await claims.claim(room, by, time.time()))
        return room.key

    now = datetime.now(UTC)
    joined: RoomClientJoined = webhook("room.client.joined", created_at=now)
    waiting = webhook("room.client.joined", room="/waits")
    try:
        await claim(webhook("room.client.joined", role_name="assistant"))
        await claim(webhook("room.client.joined", room="/no-slot"), slots=0)
        key = await claim(joined)
        await claim(joined)
        await store.take(2)
        await store.request(request_for(room_from_url("https://acme.whereby.com/waits"), None, 0))
        await claim(waiting)
        await claim(joined)
        await claim(webhook("room.client.joined", created_at=now + timedelta(seconds=1), room_session_id=None))
        await store.stop(key, "by hand")
        await claim(joined)
        await claim(webhook("room.client.joined", created_at=now - timedelta(hours=1), room_session_id="older"))
        late = webhook("room.client.joined", room="/over", room_session_id="s")
        for each in (late, webhook("room.session.ended", room="/over", room_session_id="s")):
            room = room_of(each)
            assert room is not None
            await store.add(Arrival(each.id, each.type, room.key, each.raw, time.time()))
        await claim(late)
    finally:
        await store.close()
    refused = await Clerk(StoreError("a value was refused")).decision()
    assert refused is not None
    said.append(refused.reason.partition("; ")[2])
    documented = [row[0] for row in REFERENCE.table("predicate NAME returned True; …")]
    assert sorted(re.sub("replica [0-9a-f]+", "replica ID", words) for words in said) == sorted(documented)
