"""A replica that lost its lease has another id: what it stored or read under the old one is not its to decide."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.late import LateAnswer
from tests.support.stage import Stage
from tests.support.stores import KINDS
from tests.support.until import eventually
from whereby_trigger import Presence, RoomClientJoined, Trigger, TriggerSuccess, Webhook
from whereby_trigger.errors import StoreUnavailable
from whereby_trigger.store import Added, Arrival, State
from whereby_trigger.testing import webhook

pytestmark = pytest.mark.anyio


@pytest.fixture(params=list(KINDS))
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    with KINDS[request.param](tmp_path) as place:
        yield place.url


@pytest.fixture(autouse=True)
def renewed_all_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("whereby_trigger.fence.RENEWALS", 600)


class Heard:
    """A trigger that fires for every join, immediately or after its hold, and records each attempt."""

    def __init__(self, hold: float | None = None) -> None:
        self.attempts: list[int] = []
        self.trigger = Trigger()
        self.trigger.when("room.client.joined", hold=hold)(lambda: True)
        self.trigger.on("trigger_event_success", self.note)

    def note(self, success: TriggerSuccess) -> None:
        self.attempts.append(success.attempt)

    @property
    def counted(self) -> bool:
        """Whether each success was marked as not the first: no listener had been called before the loss."""
        return bool(self.attempts) and self.attempts == sorted(set(self.attempts)) and self.attempts[0] > 1


def joined(id: str = "a") -> Webhook:
    return webhook("room.client.joined", id=id, room="/visit-1")


def asking(asked: list[str]) -> Trigger:
    """Return a trigger that lists the webhooks that its predicate is asked about."""

    def note(webhook: RoomClientJoined) -> bool:
        asked.append(webhook.id)
        return False

    return Trigger(webhook_triggers={"room.client.joined": note})


async def lose_the_lease(stage: Stage) -> None:
    """Fail renewals until the replica has lost its lease, as if frozen, and wait until it has another."""
    before, renew = stage.store.replica, stage.store.renew

    async def run_out(ttl: float) -> bool:
        return False

    stage.store.renew = run_out  # type: ignore[method-assign]
    await eventually(lambda: stage.store.replica != before)
    stage.store.renew = renew  # type: ignore[method-assign]
    await eventually(lambda: stage.store.lease.held)


async def test_what_was_read_under_a_lost_lease_is_heard_of_with_the_next_attempt(url: str, tmp_path: Path) -> None:
    heard = Heard()
    async with Stage(heard.trigger, tmp_path, store=url) as stage:
        await eventually(lambda: not stage.running.dispatcher.behind)
        reading = stage.store.pending = LateAnswer(stage.store.pending)  # type: ignore[method-assign, assignment]
        added = await stage.store_only(joined())
        stage.running.dispatcher.find(added.seq)
        await reading.answered.wait()
        await lose_the_lease(stage)
        reading.go.set()
        assert (await stage.decision(joined())).state is State.FIRED
    assert heard.counted


async def test_what_was_stored_under_a_lost_lease_is_heard_of_with_the_next_attempt(url: str, tmp_path: Path) -> None:
    heard = Heard()
    async with Stage(heard.trigger, tmp_path, store=url) as stage:
        await eventually(lambda: not stage.running.dispatcher.behind)
        taking_over = stage.store.take_over = LateAnswer(stage.store.take_over)  # type: ignore[method-assign, assignment]
        added = await stage.store_only(joined())
        await lose_the_lease(stage)
        await taking_over.answered.wait()
        stage.running.dispatcher.end_reading(complete=True)
        stage.hand_on(joined(), added)
        await stage.user_code.ask(lambda: None, (), False)
        taking_over.go.set()
        assert (await stage.decision(joined())).state is State.FIRED
    assert heard.counted


async def test_a_hold_that_was_due_under_a_lost_lease_is_heard_of_once(url: str, tmp_path: Path) -> None:
    heard = Heard(hold=60.0)
    async with Stage(heard.trigger, tmp_path, store=url) as stage:
        await stage.deliver(joined())
        assert (await stage.decision(joined())).state is State.HELD
        stage.forget(joined())
        asking = stage.store.ask_again = LateAnswer(stage.store.ask_again)  # type: ignore[method-assign, assignment]
        stage.jump(61.0)
        await asking.answered.wait()
        await lose_the_lease(stage)
        asking.go.set()
        await eventually(lambda: len(stage.running.holds) == 1)
        assert heard.attempts == []
        stage.jump(61.0)
        assert (await stage.decision(joined())).state is State.FIRED
    assert heard.attempts == [1]


async def test_what_was_stored_under_a_lost_lease_comes_before_what_arrives_since(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    before, since = joined("before"), joined("since")
    async with Stage(asking(asked), tmp_path, store=url) as stage:
        await eventually(lambda: not stage.running.dispatcher.behind)
        monkeypatch.setattr("whereby_trigger.decide.dispatcher.TAKEOVER", 3600.0)
        monkeypatch.setattr("whereby_trigger.decide.dispatcher.Backlog.take_over", lambda backlog: None)
        await stage.store_only(before)
        await lose_the_lease(stage)
        await stage.deliver(since)
        await stage.decision(since)
    assert asked == ["before", "since"]


async def test_what_is_committed_late_under_a_lost_lease_comes_before_what_arrives_since(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    before, since = joined("before"), joined("since")
    async with Stage(asking(asked), tmp_path, store=url) as stage:
        await eventually(lambda: not stage.running.dispatcher.behind)
        monkeypatch.setattr("whereby_trigger.decide.dispatcher.TAKEOVER", 3600.0)
        monkeypatch.setattr("whereby_trigger.decide.dispatcher.Backlog.take_over", lambda backlog: None)
        old, add = stage.store.replica, stage.store.add
        await lose_the_lease(stage)
        await eventually(lambda: not stage.running.dispatcher.behind)

        def add_as_before(arrival: Arrival) -> "asyncio.Future[Added]":
            now, stage.store.replica = stage.store.replica, old
            try:
                return add(arrival)
            finally:
                stage.store.replica = now

        with monkeypatch.context() as late:
            late.setattr(stage.store, "add", add_as_before)
            await stage.deliver(before)
        await stage.deliver(since)
        await stage.decision(since)
    assert asked == ["before", "since"]


async def test_a_read_between_two_leases_lets_nothing_overtake_what_is_left_of_the_first(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    before, since = joined("before"), joined("since")
    async with Stage(asking(asked), tmp_path, store=url) as stage:
        dispatcher, rejoin = stage.running.dispatcher, stage.store.rejoin

        async def rejoin_after_a_read(ttl: float) -> None:
            dispatcher.find(0)
            await eventually(lambda: not dispatcher.behind)
            await rejoin(ttl)

        await eventually(lambda: not dispatcher.behind)
        await stage.store_only(before)
        stage.store.rejoin = rejoin_after_a_read  # type: ignore[method-assign]
        taking_over = stage.store.take_over = LateAnswer(stage.store.take_over)  # type: ignore[method-assign, assignment]
        await lose_the_lease(stage)
        await taking_over.answered.wait()
        await stage.deliver(since)
        await stage.user_code.ask(lambda: None, (), False)
        taking_over.go.set()
        await stage.decision(since)
    assert asked == ["before", "since"]


async def test_a_look_that_began_before_the_loss_lets_nothing_overtake_what_is_left_of_the_lost_lease(
    url: str, tmp_path: Path
) -> None:
    asked: list[str] = []
    before, since = joined("before"), joined("since")
    async with Stage(asking(asked), tmp_path, store=url) as stage:
        old, take_over = stage.store.replica, stage.store.take_over
        looked, go_on, dispatcher = asyncio.Event(), asyncio.Event(), stage.running.dispatcher

        async def take_over_late(max_age: float) -> int:
            taken = await take_over(max_age)
            if not go_on.is_set():
                looked.set()
                await go_on.wait()
            return taken

        await eventually(lambda: not dispatcher.behind)
        await stage.store_only(before)
        taking_over = stage.store.take_over = LateAnswer(take_over_late)  # type: ignore[method-assign, assignment]
        await looked.wait()
        assert stage.store.replica == old
        await lose_the_lease(stage)
        go_on.set()
        await taking_over.answered.wait()
        await stage.deliver(since)
        await stage.user_code.ask(lambda: None, (), False)
        taking_over.go.set()
        await stage.decision(since)
    assert asked == ["before", "since"]


async def test_a_success_is_told_once_if_its_lease_is_renewed_late_while_it_claims_its_room(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("whereby_trigger.decide.decider.CLAIM_AGAIN", 0)
    heard = Heard()
    async with Stage(heard.trigger, tmp_path, store=url) as stage:
        replica, renew, claim = stage.store.replica, stage.store.renew, stage.running.claims.claim
        asked, go = asyncio.Event(), asyncio.Event()

        async def renew_late(ttl: float) -> bool:
            asked.set()
            await go.wait()
            return await renew(ttl)

        async def claim_as_the_lease_lapses(*arguments: Any) -> str:
            if not go.is_set():
                await asked.wait()
                stage.store.lease.lose()
                asyncio.get_running_loop().call_soon(go.set)
                raise StoreUnavailable("away")
            return await claim(*arguments)

        stage.store.renew = renew_late  # type: ignore[method-assign]
        stage.running.claims.claim = claim_as_the_lease_lapses  # type: ignore[method-assign, assignment]
        added = await stage.deliver(joined())
        await go.wait()
        await eventually(lambda: stage.store.lease.held)
        stage.running.dispatcher.find(added.seq)
        assert (await stage.decision(joined())).state is State.FIRED
        assert stage.store.replica == replica
    assert heard.attempts == [1]


async def test_a_verdict_that_comes_after_the_lease_has_lapsed_is_told_to_nobody(url: str, tmp_path: Path) -> None:
    asked: list[str] = []
    attempts: list[int] = []
    trigger = Trigger()

    @trigger.when("room.client.joined")
    async def freeze(webhook: RoomClientJoined, presence: Presence) -> bool:
        asked.append(webhook.id)
        if len(asked) == 1:
            # As after SIGSTOP and SIGCONT: no renewal was sent meanwhile.
            stage.store.lease.lose()
        return True

    trigger.on("trigger_event_success", lambda success: attempts.append(success.attempt))
    async with Stage(trigger, tmp_path, store=url) as stage:
        await stage.deliver(joined())
        assert (await asyncio.wait_for(stage.decision(joined()), 20)).state is State.FIRED
    assert asked == ["a", "a"]
    # The second, or the first again if an answer that was under way has renewed the lease: told once in any case.
    assert len(attempts) == 1


async def test_what_came_while_the_lease_had_lapsed_is_not_overtaken_if_it_is_renewed_late(
    url: str, tmp_path: Path
) -> None:
    asked: list[str] = []
    before, since = joined("before"), joined("since")
    async with Stage(asking(asked), tmp_path, store=url) as stage:
        await eventually(lambda: not stage.running.dispatcher.behind)
        replica, renew = stage.store.replica, stage.store.renew
        renewing, go = asyncio.Event(), asyncio.Event()

        async def renew_late(ttl: float) -> bool:
            renewing.set()
            await go.wait()
            return await renew(ttl)

        stage.store.renew = renew_late  # type: ignore[method-assign]
        await renewing.wait()
        stage.store.lease.lose()
        added = await stage.deliver(before)
        await eventually(lambda: not stage.running.dispatcher.knows(added.seq))
        go.set()
        await eventually(lambda: stage.store.lease.held)
        await stage.deliver(since)
        await stage.decision(since)
        assert stage.store.replica == replica
    assert asked == ["before", "since"]


async def test_a_webhook_in_user_code_at_each_loss_of_the_lease_is_decided_alone_and_fails_in_the_end(
    url: str, tmp_path: Path
) -> None:
    asked: asyncio.Queue[str] = asyncio.Queue()
    blamed: list[int] = []
    trigger = Trigger()

    @trigger.when("room.client.joined")
    async def block(webhook: RoomClientJoined) -> bool:
        asked.put_nowait(webhook.id)
        await asyncio.Event().wait()
        return True

    async with Stage(trigger, tmp_path, store=url) as stage:
        await stage.deliver(joined())
        for _ in range(5):
            assert await asyncio.wait_for(asked.get(), 10) == "a"
            (row,) = await stage.store.pending(0, 10)
            blamed.append(row.attempts)
            await lose_the_lease(stage)
        decision = await asyncio.wait_for(stage.decision(joined()), 10)
    assert blamed == [0, 0, 1, 2, 3]
    assert decision.state is State.FAILED
    assert asked.empty()
