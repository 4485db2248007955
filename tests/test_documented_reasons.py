"""The reasons that docs/reference.md lists are those that decisions have."""

import asyncio
import re
import threading
import time
from pathlib import Path

import pytest

from tests.support.markdown import Page
from tests.support.stages import decider_for
from whereby_trigger import AssistantRequested, RoomClientJoined, RoomClientLeft, Trigger, Webhook
from whereby_trigger.clock import boot_time
from whereby_trigger.decide import PendingWebhook, UserCode
from whereby_trigger.store.factory import store_for
from whereby_trigger.testing import Decision, webhook

pytestmark = pytest.mark.anyio

REFERENCE = Page(Path(__file__).parents[1] / "docs" / "reference.md")
MAX_AGE = 7200.0
SHORT = 0.05
HELD = (RoomClientLeft, AssistantRequested)
"""The webhooks that are held here."""

trigger = Trigger(predicate_timeout=0.05)
gate = threading.Event()


@trigger.when("room.client.joined")
async def by_room(webhook: RoomClientJoined) -> bool:
    match webhook.data.room_name:
        case "/raises":
            raise KeyError
        case "/none":
            return None  # type: ignore[return-value]
        case "/int":
            return 1  # type: ignore[return-value]
    return webhook.data.room_name != "/false" and webhook.data.role_name != "assistant"


@trigger.when("room.session.started")
def blocks() -> bool:
    return gate.wait()


trigger.on("recording.finished", lambda: None)


@trigger.when("room.client.left", "assistant.requested", hold=SHORT)
def stays(webhook: Webhook) -> bool:
    stayed.append(webhook.id)
    return webhook.id != "gone" or stayed.count("gone") == 1


stayed: list[str] = []

DELIVERED = (
    webhook("room.client.joined", room="/true"),
    webhook("room.client.joined", room="/false"),
    webhook("room.client.joined", room="/bot", role_name="assistant"),
    webhook("room.client.joined", room="/raises"),
    webhook("room.client.joined", room="/none"),
    webhook("room.client.joined", room="/int"),
    webhook("room.client.joined", room="/nowhere", subdomain=""),
    webhook("room.session.started", room="/blocks"),
    webhook("room.client.left", id="gone", room="/held", num_clients=2),
    webhook("assistant.requested", id="stays", room="/held-too"),
    webhook("recording.finished"),
    webhook("transcription.finished"),
    b"{",
)


async def late_decisions(folder: Path) -> list[Decision]:
    """Decide what a test cannot cause in a second: a webhook of yesterday, and one that ended three processes."""
    store = store_for(f"sqlite:///{folder}/never-opened.db")
    store.lease.begin(boot_time())
    decider = decider_for(store, trigger.predicates, trigger.emitter, UserCode(1), MAX_AGE)
    now = time.time()
    joined = webhook("room.client.joined")
    old = PendingWebhook(1, store.replica, joined, None, now - MAX_AGE - 1, now - MAX_AGE - 1, 0.0)
    deadly = PendingWebhook(2, store.replica, joined, None, now, now, 0.0, attempts=3, takeovers=3, crashes=3)
    due_at = boot_time() - MAX_AGE - 1
    due = PendingWebhook(3, store.replica, joined, None, now, now, 0.0, held_since=0.0, due=due_at)
    decisions = [await decider.decide(queued) for queued in (old, deadly, due)]
    return [decision for decision in decisions if isinstance(decision, Decision)]


def as_documented(reason: str) -> str:
    """Replace what differs from one decision to another, as the page does."""
    named = re.sub(r"predicate (by_room|blocks|stays)", "predicate NAME", reason)
    named = re.sub(r"(held|True) for [0-9.]+ s", r"\1 for 30 s", named)
    named = re.sub(r"after [0-9.]+ s", "after 12 s", named)
    named = re.sub(r"\d humans? since \d\d:\d\d:\d\d", "2 humans since 22:14:03", named)
    return re.sub(r"longer than [0-9.]+ s", "longer than 10 s", named).replace("transcription.finished", "TYPE")


async def test_every_documented_reason_is_given_and_in_the_documented_state(tmp_path: Path) -> None:
    async with trigger.testing() as t:
        decisions = await asyncio.gather(*(t.deliver(sent) for sent in DELIVERED))
        decisions += [await t.decided(sent) for sent in DELIVERED if isinstance(sent, HELD)]
        gate.set()
    decisions += await late_decisions(tmp_path)
    given = {(as_documented(decision.reason), f"`{decision.state}`") for decision in decisions}
    assert given == {(row[0], row[1]) for row in REFERENCE.table("Reason")}
