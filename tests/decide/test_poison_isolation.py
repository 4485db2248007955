"""A webhook still pending after two crashes enters user code alone, and each later crash is blamed on that one only."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.doomed import Doomed
from tests.support.sqlite_place import crash
from tests.support.stage import Stage, leave_pending
from tests.support.stages import decider_for
from tests.support.stored import stored
from whereby_trigger import RoomClientJoined, Trigger, Webhook
from whereby_trigger.clock import boot_time
from whereby_trigger.decide import UserCode
from whereby_trigger.decide.decider import MAX_CRASHES
from whereby_trigger.decide.pending import PendingWebhook, PoisonIsolation
from whereby_trigger.errors import StoreUnavailable
from whereby_trigger.store import State
from whereby_trigger.store.sqlite import SqliteStore
from whereby_trigger.testing import webhook

pytestmark = pytest.mark.anyio

WITHIN = 30.0


def joined(number: int, display_name: str = "Robin") -> Webhook:
    return webhook("room.client.joined", id=f"{number}", room=f"/visit-{number}", display_name=display_name)


def left(number: int, display_name: str = "Robin") -> Webhook:
    return webhook("room.client.left", id=f"{number}", room=f"/visit-{number}", display_name=display_name)


def queued(seq: int, attempts: int = 0) -> PendingWebhook:
    return PendingWebhook(seq, "replica", joined(seq), None, 0.0, 0.0, 0.0, attempts=attempts, takeovers=2, crashes=2)


async def die_again(folder: Path, pending: int) -> None:
    """Take over what is pending, and die."""
    again = SqliteStore(f"sqlite:///{folder}/stage.db")
    await again.open(lambda: None)
    assert await again.take_over() == pending
    await crash(again)
    await again.close()


class Together:
    """A predicate that returns True once it has been asked `total` times, all of them at once."""

    def __init__(self, total: int) -> None:
        self.all = asyncio.Event()
        self._left = total

    async def __call__(self) -> bool:
        self._left -= 1
        if self._left == 0:
            self.all.set()
        await self.all.wait()
        return True


@pytest.mark.parametrize("make", [joined, left], ids=["async", "sync"])
def test_deaths_that_come_from_outside_are_blamed_on_one_webhook_each_and_on_a_different_one_each_time(
    make: Callable[[int, str], Webhook], tmp_path: Path
) -> None:
    asyncio.run(leave_pending(tmp_path, *(make(number, "slow") for number in range(4))))
    asked = []
    for _ in range(9):
        with Doomed(tmp_path) as program:
            asked.append(program.line("asked"))
            program.kill()
    assert Counter(asked[1:]) == {f"asked {number}\n": 2 for number in range(4)}
    states = [(record.state, record.attempts) for record in stored(f"sqlite:///{tmp_path}/stage.db")]
    assert states == [(State.PENDING, 2)] * 4


async def test_what_was_pending_at_one_death_is_decided_together(tmp_path: Path) -> None:
    total, together = 20, Together(20)
    await leave_pending(tmp_path, *(joined(number) for number in range(total)))
    async with Stage(Trigger(webhook_triggers={"room.client.joined": together}), tmp_path) as stage:
        async with asyncio.timeout(WITHIN):
            await together.all.wait()
            await asyncio.gather(*(stage.decision(joined(number)) for number in range(total)))
        assert {record.state for record in await stage.records()} == {State.FIRED}


async def test_what_was_pending_at_two_deaths_is_asked_about_one_at_a_time_with_its_blame_stored(
    tmp_path: Path,
) -> None:
    blamed: list[list[int]] = []

    async def predicate(webhook: RoomClientJoined) -> bool:
        await asyncio.sleep(0)
        blamed.append([row.attempts for row in await stage.store.pending(0, 10)])
        return True

    sent = [joined(number) for number in range(3)]
    await leave_pending(tmp_path, *sent)
    await die_again(tmp_path, 3)
    async with Stage(Trigger(webhook_triggers={"room.client.joined": predicate}), tmp_path) as stage:
        await asyncio.gather(*map(stage.decision, sent))
    assert [sum(attempts) for attempts in blamed] == [1, 1, 1]


async def test_a_suspect_that_no_user_code_is_called_for_waits_for_none_that_it_is_called_for(tmp_path: Path) -> None:
    asked, answer = asyncio.Event(), asyncio.Event()

    async def predicate() -> bool:
        asked.set()
        await answer.wait()
        return True

    old: Webhook = webhook("room.client.joined", id="old")
    others: list[Webhook] = [webhook("room.client.knocked", id=f"knocked {number}") for number in range(3)]
    await leave_pending(tmp_path, joined(0), *others)
    await die_again(tmp_path, 4)
    await leave_pending(tmp_path, old, received_at=1_000_000_000.0)
    await die_again(tmp_path, 5)
    async with Stage(Trigger(webhook_triggers={"room.client.joined": predicate}), tmp_path) as stage:
        async with asyncio.timeout(WITHIN):
            await asked.wait()
            decisions = await asyncio.gather(*map(stage.decision, [old, *others]))
            answer.set()
            fired = await stage.decision(joined(0))
    assert [decision.state for decision in decisions] == [State.SKIPPED] + [State.UNHANDLED] * 3
    assert (fired.state, fired.attempts) == (State.FIRED, 4)


async def test_a_loss_of_the_lease_says_nothing_of_a_webhook_that_another_replica_has_decided_since() -> None:
    asked = asyncio.Queue[None]()

    async def never() -> bool:
        asked.put_nowait(None)
        await asyncio.Event().wait()
        return True

    store = SqliteStore("sqlite:///never-opened.db")
    store.lease.begin(boot_time())
    trigger, user_code = Trigger(webhook_triggers={"room.client.joined": never}), UserCode(60)
    decider = decider_for(store, trigger.predicates, trigger.emitter, user_code, 60.0)

    async def decide_until_the_loss() -> None:
        one = PendingWebhook(1, store.replica, joined(1), None, 0.0, time.time(), 0.0)
        deciding, asking = asyncio.ensure_future(decider.decide(one)), asyncio.ensure_future(asked.get())
        either: set[asyncio.Future[Any]] = {deciding, asking}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        # An attempt of a suspect cannot be stored here.
        assert asking.done()
        decider.forget_losses({1})
        deciding.cancel()
        await asyncio.wait({deciding})
        store.replica += " and on"

    for _ in range(3):
        await decide_until_the_loss()
        # At this loss, it is not here.
        decider.forget_losses(())
    user_code.close()


async def test_an_attempt_that_the_process_outlives_is_no_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("whereby_trigger.decide.dispatcher.REREAD", 0.0)
    monkeypatch.setattr("whereby_trigger.decide.dispatcher.TAKEOVER", 0.01)
    await leave_pending(tmp_path, joined(0))
    again = SqliteStore(f"sqlite:///{tmp_path}/stage.db")
    await again.open(lambda: None)
    assert await again.take_over() == 1
    await crash(again)
    await again.close()
    stage = Stage(Trigger(webhook_triggers={"room.client.joined": lambda: True}), tmp_path)
    begin_attempt, blamed = stage.store.begin_attempt, list[int]()

    async def lose_answers(seq: int) -> int:
        blamed.append(await begin_attempt(seq))
        if len(blamed) <= 2 * MAX_CRASHES:
            raise StoreUnavailable("the answer was lost")
        return blamed[-1]

    stage.store.begin_attempt = lose_answers  # type: ignore[method-assign]
    async with stage:
        assert (await stage.decision(joined(0))).state is State.FIRED
    assert blamed == [1, 2, 3, 4, 5, 6, 7]


async def test_what_was_pending_at_any_number_of_stops_is_decided_together(tmp_path: Path) -> None:
    total, together = 20, Together(20)
    await leave_pending(tmp_path, *(joined(number) for number in range(total)))
    for _ in range(3):
        stopping = SqliteStore(f"sqlite:///{tmp_path}/stage.db")
        await stopping.open(lambda: None)
        assert await stopping.take_over() == total
        await stopping.close()
    async with Stage(Trigger(webhook_triggers={"room.client.joined": together}), tmp_path) as stage:
        async with asyncio.timeout(WITHIN):
            await together.all.wait()
            await asyncio.gather(*(stage.decision(joined(number)) for number in range(total)))
        assert {record.attempts for record in await stage.records()} == {5}


async def test_the_least_blamed_of_those_that_wait_together_goes_first() -> None:
    suspects, order = PoisonIsolation(), list[int]()

    async def take_turn(seq: int, attempts: int) -> None:
        async with suspects.alone(queued(seq, attempts)):
            await asyncio.sleep(0)
            order.append(seq)

    await asyncio.gather(*(take_turn(seq, attempts) for seq, attempts in [(1, 2), (2, 1), (3, 0), (4, 1), (5, 0)]))
    assert order == [3, 5, 2, 4, 1]


@pytest.mark.parametrize("steps", range(5))
async def test_a_turn_that_is_cancelled_before_or_in_it_passes_on(steps: int) -> None:
    suspects = PoisonIsolation()

    async def take_turn(seq: int) -> None:
        async with suspects.alone(queued(seq)):
            await asyncio.sleep(0)

    tasks = [asyncio.create_task(take_turn(seq)) for seq in range(3)]
    for _ in range(steps):
        await asyncio.sleep(0)
    tasks[0].cancel()
    async with asyncio.timeout(WITHIN):
        await asyncio.gather(*tasks, return_exceptions=True)
        await take_turn(4)
