"""A held webhook fires exactly if its predicate was True from its hold until it was due, whatever happens."""

import asyncio
import os
import tempfile
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.support.clock import JumpingClock
from tests.support.stage import settings_for, verdict_on
from tests.support.stages import backlog_for
from whereby_trigger import Presence, RoomClientJoined, Trigger, Webhook
from whereby_trigger.assist import NoClaims, Supervisor, launch_nothing
from whereby_trigger.decide import Decider, Dispatcher, Holds, HoldWatch, PendingWebhook, UserCode
from whereby_trigger.deliveries import DeliveryLog
from whereby_trigger.store import Query, State, Unread
from whereby_trigger.store.sqlite import SqliteStore
from whereby_trigger.testing import webhook

HOLD = 30


@dataclass(frozen=True)
class Step:
    """Wait, perhaps restart the replica meanwhile, then have `humans` people in the room after a join or a leave."""

    wait: int
    humans: int
    joined: bool = True
    elsewhere: bool = False
    restart: bool = False


STEPS = st.lists(
    st.builds(
        Step, st.sampled_from([0, 1, 10, 29, 30, 31]), st.integers(0, 3), st.booleans(), st.booleans(), st.booleans()
    ).map(lambda step: replace(step, humans=max(step.humans, int(step.joined)))),
    max_size=8,
)


def model(steps: list[Step]) -> dict[str, State]:
    """Return the expected state of each join that the replica receives."""
    now, due, became = 0, dict[str, int](), dict[str, State]()

    def end(ids: list[str], state: State) -> None:
        for id in ids:
            del due[id]
            became[id] = state

    for number, step in enumerate([*steps, Step(HOLD, 2, joined=False)]):
        now += step.wait
        end([id for id, at in due.items() if at <= now], State.FIRED)
        if step.joined and not step.elsewhere:
            due[str(number)] = now + HOLD
        if step.humans < 2:
            end(list(due), State.SKIPPED)
    return became


class OneReplica:
    """A replica whose stages run only when told to, and another one that only receives."""

    def __init__(self, folder: Path) -> None:
        self.clock = JumpingClock(standing=True)
        self.settings = settings_for(folder)
        self.trigger = Trigger()
        self.trigger.when("room.client.joined", hold=HOLD)(_two_people)
        self.other = self._store()

    async def open(self) -> None:
        self.store, self.holds, self.unread = self._store(), Holds(self.clock), Unread()
        await self.store.open(lambda: None)
        supervisor = Supervisor(self.store, launch_nothing, 0)
        self.user_code = UserCode(10)
        decider = Decider(
            self.store,
            self.trigger.predicates,
            self.trigger.emitter,
            self.user_code,
            NoClaims(self.store, supervisor, bots=False),
            max_age=1e6,
            clock=self.clock,
        )
        self.dispatcher = Dispatcher(self.store, supervisor, decider, DeliveryLog(), self.unread, self.holds)
        self.watch = HoldWatch(self.store, self.holds, self.dispatcher.requeue, self.unread)
        backlog = backlog_for(self.store, self.dispatcher, self.unread, self.clock)
        await backlog._look()
        await self.settle()

    async def close(self) -> None:
        await self.dispatcher.cancel()
        self.user_code.close()
        await self.store.close()

    async def settle(self) -> None:
        """Decide everything that can be decided now."""
        # The first look may put webhooks on hold again, which the second one must look at.
        for _ in range(2):
            await self.watch.look()
            assert await self.dispatcher.drain(20)

    async def take(self, number: int, step: Step) -> None:
        at = datetime.fromtimestamp(self.clock.now(), UTC)
        type = "room.client.joined" if step.joined else "room.client.left"
        by_role = {"visitor": step.humans} if step.humans else {}
        counts = {"num_clients": step.humans, "num_clients_by_role_name": by_role}
        sent: Webhook = webhook(type, id=str(number), created_at=at, **counts)  # type: ignore[call-overload]
        verdict = verdict_on(sent, self.settings, self.clock.now())
        if step.elsewhere:
            await self.other.add(verdict.arrival)
            self.holds.other_replicas_wrote()
        else:
            added = await self.store.add(verdict.arrival)
            now = self.clock.now()
            self.dispatcher.submit(PendingWebhook(added.seq, added.owner, sent, verdict.room, now, now, 0.0))
            assert await self.dispatcher.drain(20)

    async def states(self) -> dict[str, State]:
        return {
            record.id: record.state
            for record in await self.store.find(Query(type="room.client.joined"))
            if record.owner != self.other.replica
        }

    def _store(self) -> SqliteStore:
        return SqliteStore(self.settings.store, 1e9, self.clock, self.clock.now)


def _two_people(webhook: RoomClientJoined, presence: Presence) -> bool:
    return presence.humans is not None and presence.humans >= 2


async def became(steps: list[Step], folder: Path) -> dict[str, State]:
    """Play the steps on a replica; return the states of the joins that it received."""
    replica = OneReplica(folder)
    await replica.other.open(lambda: None)
    await replica.open()
    for number, step in enumerate([*steps, Step(HOLD, 2, joined=False)]):
        if step.restart:
            await replica.close()
        replica.clock.jump(step.wait)
        if step.restart:
            await replica.open()
        await replica.settle()
        await replica.take(number, step)
        await replica.settle()
    states = await replica.states()
    await replica.close()
    await replica.other.close()
    return states


@pytest.fixture(scope="module", autouse=True)
def at_once() -> object:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("whereby_trigger.decide.pending.LOOK_EVERY", 0.0)
        yield


@given(STEPS)
@example([Step(0, 2), Step(29, 3), Step(1, 1)])
@example([Step(0, 2), Step(10, 1), Step(10, 2)])
@example([Step(0, 2), Step(10, 1, elsewhere=True), Step(10, 2)])
@example([Step(0, 2), Step(31, 1, restart=True)])
@example([Step(0, 2), Step(10, 2, joined=False, restart=True), Step(10, 0, joined=False, elsewhere=True)])
@settings(max_examples=int(os.environ.get("HOLD_EXAMPLES", "8")), deadline=None)
def test_a_held_webhook_fires_exactly_if_it_was_true_from_its_hold_until_it_was_due(steps: list[Step]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        assert asyncio.run(became(steps, Path(folder))) == model(steps)
