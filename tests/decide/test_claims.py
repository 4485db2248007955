"""The room of a success is claimed once the store accepts the claim, and it is not emitted again meanwhile."""

import errno
import logging
import time
from typing import Any

import pytest

from whereby_trigger import Trigger
from whereby_trigger.assist import Claims, Supervisor, launch_nothing
from whereby_trigger.clock import boot_time
from whereby_trigger.decide import Decider, PendingWebhook, UserCode
from whereby_trigger.decide.pending import OnHold
from whereby_trigger.errors import StoreError, StoreUnavailable
from whereby_trigger.store import Decision, State
from whereby_trigger.store.factory import store_for
from whereby_trigger.testing import webhook
from whereby_trigger.webhook import RoomIdentity, Webhook, room_of

pytestmark = pytest.mark.anyio

JOINED = webhook("room.client.joined")
RECEIVED = 1_800_000_000.0


class Clerk(Claims):
    """Accept a claim after refusing it for some reasons, one after the other."""

    def __init__(self, *refusals: Exception) -> None:
        self.refusals = list(refusals)
        self.heard: list[int] = []
        self.seconded: list[object] = []
        self.joined: list[object] = []
        self.received_at = 0.0
        self.store = store_for("sqlite:///never-opened.db")
        self.store.lease.begin(boot_time())
        super().__init__(self.store, Supervisor(self.store, launch_nothing, 0), bots=False)

    async def claim(self, room: RoomIdentity, webhook: Webhook, received_at: float) -> str:
        self.received_at = received_at
        if self.refusals:
            raise self.refusals.pop(0)
        return "an assistant starts"

    async def decision(self, user_code_of: type[UserCode] = UserCode) -> Decision | None:
        """Decide a webhook whose predicate returns True."""
        trigger = Trigger(webhook_triggers={"room.client.joined": lambda: True})
        trigger.on("trigger_event_success", lambda success: self.heard.append(success.attempt))
        trigger.on("trigger_event_success", self.seconded.append)
        trigger.on("room.client.joined", self.joined.append)
        user_code = user_code_of(10)
        try:
            decider = Decider(
                self.store,
                trigger.predicates,
                trigger.emitter,
                user_code,
                self,
                max_age=60,
            )
            now = time.time()
            queued = PendingWebhook(1, self.store.replica, JOINED, room_of(JOINED), RECEIVED, now, 0.0)
            decided = await decider.decide(queued)
            assert not isinstance(decided, OnHold)
            return decided
        finally:
            user_code.close()


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("whereby_trigger.decide.decider.CLAIM_AGAIN", 0)
    monkeypatch.setattr("whereby_trigger.decide.decider.ASK_AGAIN", 0)


async def test_a_store_that_is_away_when_a_success_claims_its_room_is_asked_again_and_the_listeners_are_not() -> None:
    clerk = Clerk(StoreUnavailable("away"), StoreUnavailable("still away"))
    decision = await clerk.decision()
    assert decision is not None
    assert (decision.state, decision.errors) == (State.FIRED, ())
    assert decision.reason.endswith("; an assistant starts")
    assert clerk.heard == [1]


async def test_a_success_claims_its_room_even_if_the_service_of_the_log_is_away_together_with_the_store(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(record: logging.LogRecord) -> None:
        raise ConnectionError("the log's service is away")

    handler = logging.NullHandler()
    monkeypatch.setattr(handler, "handle", fail)
    monkeypatch.setattr(logging.getLogger("whereby_trigger.decide"), "handlers", [handler])
    decision = await Clerk(StoreUnavailable("away")).decision()
    assert decision is not None
    assert decision.state is State.FIRED


SHORTAGES = (MemoryError(), RuntimeError("can't start new thread"), OSError(errno.EMFILE, "Too many open files"))


async def test_a_process_that_is_out_of_something_when_a_success_claims_its_room_asks_again_and_tells_it_once() -> None:
    clerk = Clerk(*SHORTAGES)
    decision = await clerk.decision()
    assert decision is not None
    assert (decision.state, decision.errors) == (State.FIRED, ())
    assert decision.reason.endswith("; an assistant starts")
    assert clerk.heard == [1]


class ShortAfterEachCall(UserCode):
    """Call a listener, and then find no memory for what it returned."""

    async def tell(self, *arguments: Any, **keywords: Any) -> None:
        await super().tell(*arguments, **keywords)
        raise MemoryError


async def test_a_process_that_runs_out_of_memory_between_two_listeners_calls_each_once() -> None:
    clerk = Clerk()
    decision = await clerk.decision(ShortAfterEachCall)
    assert decision is not None
    assert decision.state is State.FIRED
    assert (clerk.heard, len(clerk.seconded), len(clerk.joined)) == ([1], 1, 1)


async def test_a_success_claims_its_room_for_the_time_of_its_arrival_however_late_it_is_decided() -> None:
    clerk = Clerk()
    await clerk.decision()
    assert clerk.received_at == RECEIVED


async def test_a_claim_that_the_store_refuses_for_good_is_told_with_the_decision() -> None:
    clerk = Clerk(StoreError("no such text"))
    decision = await clerk.decision()
    assert decision is not None
    assert decision.state is State.FIRED
    assert decision.reason.endswith("; no assistant: the store refused the request")
    assert "no such text" in decision.errors[0]
    assert clerk.heard == [1]


async def test_a_success_whose_lease_is_lost_meanwhile_is_left_to_whoever_has_it_now() -> None:
    clerk = Clerk(StoreUnavailable("away"))
    claim = clerk.claim

    async def lose(room: RoomIdentity, webhook: Webhook, received_at: float) -> str:
        clerk.store.replica = "another id"
        return await claim(room, webhook, received_at)

    clerk.claim = lose  # type: ignore[method-assign]
    with pytest.raises(StoreUnavailable):
        await clerk.decision()
