"""Each room's webhooks are decided one at a time in order of arrival, rooms concurrently, the rest unordered."""

import asyncio
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.stage import Stage, leave_pending
from whereby_trigger import RoomClientJoined, Trigger, Webhook
from whereby_trigger.store import State
from whereby_trigger.testing import webhook

pytestmark = pytest.mark.anyio

WITHIN = 30.0


class Gates:
    """Block every call of the predicate until it is released, and know which are blocked."""

    def __init__(self) -> None:
        self.held: dict[str, asyncio.Event] = {}
        self.begun: list[str] = []
        self._changed = asyncio.Event()

    async def predicate(self, webhook: RoomClientJoined) -> bool:
        gate = self.held[webhook.id] = asyncio.Event()
        self.begun.append(webhook.id)
        self._changed.set()
        await gate.wait()
        return True

    def let_go(self, id: str) -> None:
        self.held.pop(id).set()

    async def until_held(self, ids: set[str]) -> None:
        async with asyncio.timeout(WITHIN):
            while set(self.held) != ids:
                self._changed.clear()
                await self._changed.wait()


def joined(id: int, room: int | None) -> Webhook:
    subdomain = "" if room is None else "acme"
    return webhook("room.client.joined", id=f"{id:04}", room=f"/visit-{room}", subdomain=subdomain)


rooms = st.lists(st.one_of(st.none(), st.integers(0, 3)), min_size=1, max_size=20)


@settings(max_examples=30)
@given(rooms=rooms, choices=st.randoms(use_true_random=False))
def test_whatever_takes_how_long_each_room_is_decided_in_order_and_none_waits_for_another(rooms, choices) -> None:  # type: ignore[no-untyped-def]
    async def run() -> None:
        gates = Gates()
        undecided: dict[int | str, list[str]] = {}
        trigger = Trigger(webhook_triggers={"room.client.joined": gates.predicate})
        with tempfile.TemporaryDirectory() as folder:
            async with Stage(trigger, Path(folder)) as stage:
                for number, room in enumerate(rooms):
                    sent = joined(number, room)
                    undecided.setdefault(sent.id if room is None else room, []).append(sent.id)
                    await stage.deliver(sent)
                while undecided:
                    await gates.until_held({waiting[0] for waiting in undecided.values()})
                    order = choices.choice(list(undecided))
                    gates.let_go(undecided[order].pop(0))
                    if not undecided[order]:
                        del undecided[order]
                await stage.running.drain(WITHIN, asyncio.Event())
            assert sorted(decision.id for decision in stage.decided) == [f"{number:04}" for number in range(len(rooms))]
        for room in set(rooms) - {None}:
            of_room = [f"{number:04}" for number, other in enumerate(rooms) if other == room]
            assert [id for id in gates.begun if id in of_room] == of_room

    asyncio.run(run())


async def test_a_burst_in_one_room_is_decided_in_order_of_arrival(tmp_path: Path) -> None:
    seen: list[str] = []

    def note(webhook: RoomClientJoined) -> bool:
        seen.append(webhook.id)
        return True

    trigger = Trigger(webhook_triggers={"room.client.joined": note})
    burst = [joined(number, 1) for number in range(200)]
    async with Stage(trigger, tmp_path) as stage:
        await asyncio.gather(*(stage.deliver(sent) for sent in burst))
        await asyncio.gather(*(stage.decision(sent) for sent in burst))
    assert seen == [sent.id for sent in burst] == [decision.id for decision in stage.decided]


async def test_sync_code_of_all_rooms_runs_in_one_thread_so_that_it_can_count(tmp_path: Path) -> None:
    threads: set[int] = set()
    counted = 0

    def count(webhook: RoomClientJoined) -> bool:
        nonlocal counted
        threads.add(threading.get_ident())
        before = counted
        bytes(1000)
        counted = before + 1
        return True

    trigger = Trigger(webhook_triggers={"room.client.joined": count})
    trigger.on("trigger_event_success", lambda success: threads.add(threading.get_ident()))
    burst = [joined(number, number % 7) for number in range(300)]
    async with Stage(trigger, tmp_path) as stage:
        await asyncio.gather(*(stage.deliver(sent) for sent in burst))
        await asyncio.gather(*(stage.decision(sent) for sent in burst))
    assert counted == 300
    assert len(threads) == 1
    assert threads != {threading.get_ident()}


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_flag_that_a_listener_sets_is_seen_by_the_next_predicate_of_the_room(asynchronous: bool) -> None:
    joined_once = False

    async def predicate_async() -> bool:
        return not joined_once

    def predicate() -> bool:
        return not joined_once

    trigger = Trigger(webhook_triggers={"room.client.joined": predicate_async if asynchronous else predicate})

    @trigger.on("trigger_event_success")
    async def join() -> None:
        nonlocal joined_once
        joined_once = True
        await asyncio.sleep(0)

    async with trigger.testing() as t:
        decisions = await asyncio.gather(*(t.deliver(joined(number, 1)) for number in range(4)))
    assert [decision.state for decision in decisions] == [State.FIRED] + [State.SKIPPED] * 3


async def test_a_predicate_that_raises_holds_up_its_own_room_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("whereby_trigger.decide.predicates.BACKOFF", (3600.0, 3600.0))
    gates = Gates()

    async def predicate(webhook: RoomClientJoined) -> bool:
        if webhook.data.room_name == "/visit-1":
            raise LookupError
        return await gates.predicate(webhook)

    trigger = Trigger(webhook_triggers={"room.client.joined": predicate})
    raising, behind, elsewhere = joined(1, 1), joined(2, 1), joined(3, 2)
    async with Stage(trigger, tmp_path) as stage:
        for sent in (raising, behind, elsewhere):
            await stage.deliver(sent)
        await gates.until_held({elsewhere.id})
        gates.let_go(elsewhere.id)
        assert (await stage.decision(elsewhere)).state is State.FIRED
        assert stage.decided == [await stage.decision(elsewhere)]


async def test_a_sync_predicate_that_hangs_holds_up_others_only_until_the_limit(tmp_path: Path) -> None:
    let_go = threading.Event()

    def predicate(webhook: RoomClientJoined) -> bool:
        return let_go.wait() if webhook.data.room_name == "/visit-1" else True

    trigger = Trigger(webhook_triggers={"room.client.joined": predicate})
    hanging, behind, elsewhere = joined(1, 1), joined(2, 2), joined(3, 3)
    async with Stage(trigger, tmp_path, predicate_timeout=0.1) as stage:
        for sent in (hanging, behind, elsewhere):
            await stage.deliver(sent)
        assert (await stage.decision(hanging)).reason == "predicate predicate took longer than 0.1 s, once"
        assert (await stage.decision(behind)).state is State.FIRED
        assert (await stage.decision(elsewhere)).state is State.FIRED
        later = joined(4, 4)
        await stage.deliver(later)
        assert (await stage.decision(later)).state is State.FIRED
        let_go.set()


async def test_what_a_restart_finds_pending_is_decided_before_what_arrives_in_its_room(tmp_path: Path) -> None:
    older = [joined(number, 1) for number in range(600)]
    await leave_pending(tmp_path, *older)
    seen: list[str] = []

    async def note(webhook: RoomClientJoined) -> bool:
        seen.append(webhook.id)
        return True

    newer = joined(9999, 1)
    async with Stage(Trigger(webhook_triggers={"room.client.joined": note}), tmp_path) as stage:
        await stage.deliver(newer)
        await stage.decision(newer)
    assert seen == [sent.id for sent in (*older, newer)]


async def test_a_room_full_of_webhooks_that_wait_for_nothing_leaves_the_loop_to_others(tmp_path: Path) -> None:
    asked_in: list[int] = []
    turns = 0
    trigger = Trigger()

    @trigger.when("room.client.joined")
    async def waits_for_nothing() -> bool:
        asked_in.append(turns)
        return False

    async with Stage(trigger, tmp_path) as stage:
        # From then on, nothing is read from the store for a while.
        await stage.deliver(first := joined(99, 1))
        await stage.decision(first)
        asked_in.clear()
        webhooks = [joined(id, 0) for id in range(20)]
        added = [await stage.store_only(each) for each in webhooks]
        for each, stored in zip(webhooks, added, strict=True):
            stage.hand_on(each, stored)
        while len(asked_in) < len(webhooks):
            turns += 1
            await asyncio.sleep(0)
    assert len(set(asked_in)) == len(webhooks)
