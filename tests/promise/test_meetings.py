"""Meetings that follow each other in a room, through the whole trigger: the newest one has the assistant."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import pytest

from tests.promise.conftest import NewStore
from tests.support.http import SECRET, ask, delivery
from tests.support.supervised import Assistants
from tests.support.until import eventually
from whereby_trigger import Trigger, Webhook
from whereby_trigger.store import Query, State
from whereby_trigger.store.factory import store_for
from whereby_trigger.testing import webhook

pytestmark = pytest.mark.anyio

TYPES = {
    "J": "room.client.joined",
    "L": "room.client.left",
    "S": "room.session.started",
    "E": "room.session.ended",
    "R": "assistant.requested",
}
SERIES = [
    pytest.param("J0 A, S1 A, J122 B, E121 A, S123 B", "B", id="the end comes after the next join"),
    pytest.param("J0 -, L60 -, J122 -, E121 A", "J122", id="the joins name no session"),
    pytest.param("J0 A, S1 A, J300 B, J301 B, S302 B", "B", id="the end is lost"),
    pytest.param("R0 A, R122 B, E121 A", "B", id="an assistant is requested"),
    pytest.param("J0 A, J100 B, E150 B, E99 A", "", id="both have ended"),
]
BEGIN = datetime.now(UTC) - timedelta(seconds=400)


def built(deliveries: str) -> Iterable[Webhook]:
    for each in deliveries.split(", "):
        what, session = each.split(" ")
        yield webhook(
            TYPES[what[0]],
            id=f"{session} {what}",
            created_at=BEGIN + timedelta(seconds=int(what[1:])),
            room_session_id=None if session == "-" else session,
        )


@pytest.mark.parametrize(("deliveries", "served"), SERIES)
async def test_of_two_meetings_the_newer_has_the_assistant_unless_it_has_ended(
    new_store: NewStore, deliveries: str, served: str
) -> None:
    assistants, url = Assistants(), new_store()
    trigger = Trigger(port=0, host="127.0.0.1", secret=SECRET, store=url, stop_grace=0.1, drain_timeout=0)
    trigger.when("room.client.joined", "assistant.requested")(lambda: True)
    trigger.assistant(assistants.stay)
    reader = store_for(url)
    async with trigger:
        sent = list(built(deliveries))
        for one in sent:
            answer = await ask(trigger.port, delivery(one.raw))
            assert answer is not None
            assert answer.status == 200
        await reader.open_readonly()
        try:

            async def all_decided() -> bool:
                stored = await reader.find(Query())
                return len(stored) == len(sent) and all(one.state is not State.PENDING for one in stored)

            async def settled() -> bool:
                rooms = [room for room in await reader.rooms() if room.state not in ("ended", "failed")]
                # The end of a meeting is stored with its webhook; the supervisor sees it a moment later.
                to_end = any(room.stop is not None for room in rooms)
                states = [room.state for room in rooms]
                return not to_end and states == (["live"] if served else []) and len(assistants.there) == len(states)

            await eventually(all_decided)
            await eventually(settled)
        finally:
            await reader.close()
        assert assistants.most <= 1
        if served:
            fired = assistants.sessions["visit-1"].webhook
            assert fired is not None
            assert served in fired.id.split(" ")
