"""A backtest decides as the live trigger did with the same program: whatever came, and when, on every store."""

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.support.place import Place
from tests.support.stage import settings_for, verdict_on
from tests.support.stages import backlog_for
from tests.support.stores import KINDS
from whereby_trigger import Presence, Webhook
from whereby_trigger.assist import NoClaims, Supervisor, launch_nothing
from whereby_trigger.clock import Clock
from whereby_trigger.decide import Decider, Dispatcher, Emitter, Holds, HoldWatch, PendingWebhook, Predicates, UserCode
from whereby_trigger.decide.backtest import NO_PREDICATE, Backtest, Scope
from whereby_trigger.decide.predicates import Judgement
from whereby_trigger.deliveries import DeliveryLog
from whereby_trigger.store import Query, State, Unread
from whereby_trigger.testing import webhook

TYPES = ("room.client.joined", "room.client.left", "room.session.started")
MAX_AGE = 1e6


def odd(webhook: Webhook) -> bool:
    return webhook.id[-1] in "13579"


async def odd_later(webhook: Webhook) -> bool:
    await asyncio.sleep(0)
    return odd(webhook)


def two_people(webhook: Webhook, presence: Presence) -> bool:
    return presence.humans is not None and presence.humans >= 2


async def two_people_later(webhook: Webhook, presence: Presence) -> bool:
    await asyncio.sleep(0)
    return two_people(webhook, presence)


def just_changed(webhook: Webhook, presence: Presence) -> bool:
    return presence.humans_since == webhook.created_at


def fails_when_unknown(webhook: Webhook, presence: Any) -> bool:
    return bool(presence.humans > 0)


PREDICATES = (odd, odd_later, two_people, two_people_later, just_changed, fails_when_unknown, lambda: None)


@dataclass(frozen=True)
class Step:
    """Wait, then deliver a room's webhook created a little earlier; replay an earlier one, or none."""

    wait: int
    type: str = TYPES[0]
    humans: int | None = 2
    room: str = "a"
    created_before: int = 0
    replay: int | None = None


STEPS = st.lists(
    st.builds(
        Step,
        st.sampled_from([0, 1, 10, 29, 30, 31]),
        st.sampled_from(TYPES),
        st.none() | st.integers(0, 3),
        st.sampled_from("ab"),
        st.sampled_from([0, 0, 5, 40]),
        st.none() | st.none() | st.integers(0, 9),
    ),
    min_size=1,
    max_size=10,
)
REGISTERED = st.dictionaries(
    st.sampled_from(TYPES), st.tuples(st.sampled_from(PREDICATES), st.sampled_from([None, 30])), min_size=1
)
Registered = dict[str, tuple[Callable[..., Any], float | None]]
EXAMPLES = int(os.environ.get("BACKTEST_EXAMPLES", "8"))


class StoppedClock(Clock):
    """Show a place's time, whose clock stands still until it is moved forward."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now

    def wall(self) -> float:
        return self._now()

    def boot(self) -> float:
        return self._now()


class Live:
    """A trigger whose stages run only when told to, on a store whose clock stands still."""

    def __init__(self, place: Place, folder: Path, registered: Registered) -> None:
        self.place, self.clock = place, place.clock
        self.settings = settings_for(folder)
        self.predicates = Predicates()
        for type, (function, hold) in registered.items():
            self.predicates.register(type, function, hold)
        self.store = place.replica()
        self.ids: list[str] = []

    async def open(self) -> None:
        clock = StoppedClock(self.clock.now)
        self.holds, self.unread = Holds(clock), Unread()
        await self.store.open(lambda: None)
        supervisor = Supervisor(self.store, launch_nothing, 0)
        self.user_code = UserCode(10)
        claims = NoClaims(self.store, supervisor, bots=False)
        decider = Decider(
            *(self.store, self.predicates, Emitter(), self.user_code, claims), max_age=MAX_AGE, clock=clock
        )
        self.dispatcher = Dispatcher(self.store, supervisor, decider, DeliveryLog(), self.unread, self.holds)
        self.watch = HoldWatch(self.store, self.holds, self.dispatcher.requeue, self.unread)
        self.backlog = backlog_for(self.store, self.dispatcher, self.unread, clock)
        await self.backlog._look()
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
            assert await self.dispatcher.drain(5)

    async def wait(self, seconds: float) -> None:
        await self.place.pass_time(seconds, self.store)
        await self.settle()

    async def take(self, step: Step, id: str, room: str) -> None:
        await self.wait(step.wait)
        at = datetime.fromtimestamp(self.clock.now() - step.created_before, UTC)
        counts: dict[str, Any] = {}
        if step.humans is not None and step.type != "room.session.started":
            by_role = {"visitor": step.humans} if step.humans else {}
            counts = {"num_clients": step.humans, "num_clients_by_role_name": by_role}
        sent: Webhook = webhook(step.type, id=id, created_at=at, room=room, **counts)
        verdict = verdict_on(sent, self.settings, self.clock.now(), presence=self.predicates.use_presence)
        added = await self.store.add(verdict.arrival)
        now = self.clock.now()
        self.dispatcher.submit(PendingWebhook(added.seq, added.owner, sent, verdict.room, now, now, 0.0))
        assert await self.dispatcher.drain(5)
        await self.settle()
        self.ids.append(id)

    async def replay(self, id: str) -> None:
        await self.wait(1)
        await self.store.replay(Query(ids=(id,)), self.clock.now())
        # As the backlog does every few seconds.
        self.backlog._claim_at = 0.0
        await self.backlog._look()
        await self.settle()


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("whereby_trigger.decide.pending.LOOK_EVERY", 0.0)
    monkeypatch.setattr("whereby_trigger.decide.predicates.BACKOFF", (0.0, 0.0))


@pytest.fixture(params=list(KINDS))
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    with KINDS[request.param](tmp_path) as place:
        yield place


async def asked_back(
    place: Place,
    folder: Path,
    registered: Registered,
    steps: list[Step],
    name: str,
    changed: Predicates | None = None,
) -> tuple[dict[str, State], list[tuple[str, Judgement]]]:
    """Run a trigger on the steps; return the states of what it decided, and the decisions that differ in a backtest.

    The backtest asks the same predicates, or those that are `changed`.
    """
    place.clock.jump(1000)
    scope = Scope(since=place.clock.now())
    live = Live(place, folder, registered)
    async with AsyncExitStack() as opened:
        await live.open()
        opened.push_async_callback(live.close)
        for number, step in enumerate(steps):
            await live.take(step, f"{name}-{number}", f"/{name}-{step.room}")
            if step.replay is not None:
                await live.replay(live.ids[step.replay % len(live.ids)])
        await live.wait(31)
        decided = {
            record.id: record.state
            for record in await live.store.find(Query(ids=tuple(live.ids)))
            if record.type in registered
        }
    otherwise: list[tuple[str, Judgement]] = []
    reader = place.replica()
    await reader.open_readonly()
    user_code = UserCode(10)
    try:
        backtest = Backtest(
            *(reader, changed or live.predicates, lambda type: False, user_code, scope),
            lambda past, judged: otherwise.append((past.id, judged)),
            max_age=MAX_AGE,
            now=place.clock.now(),
        )
        summary = await backtest.run(lambda seq: None)
    finally:
        user_code.close()
        await reader.close()
    assert summary.asked == len(decided)
    assert summary.different == len(otherwise)
    assert set(summary.not_asked) <= {NO_PREDICATE}
    return decided, otherwise


def test_a_backtest_decides_as_the_live_trigger_did(place: Place, tmp_path: Path) -> None:
    numbers = count()

    @given(REGISTERED, STEPS)
    @example({TYPES[0]: (two_people, 30)}, [Step(0), Step(29, TYPES[1], 3), Step(1, TYPES[1], 1)])
    @example({TYPES[0]: (two_people, 30)}, [Step(0), Step(10, TYPES[1], 1), Step(10, TYPES[1], 2)])
    @example({TYPES[2]: (two_people, None)}, [Step(0, TYPES[2]), Step(1, TYPES[0], 2, replay=0)])
    @example({TYPES[2]: (two_people_later, 30)}, [Step(0), Step(1, TYPES[2], replay=1), Step(29, humans=1)])
    @settings(max_examples=EXAMPLES, deadline=None)
    def holds(registered: Registered, steps: list[Step]) -> None:
        _, otherwise = asyncio.run(asked_back(place, tmp_path, registered, steps, f"n{next(numbers)}"))
        assert otherwise == []

    holds()


def test_a_changed_predicate_decides_otherwise(place: Place, tmp_path: Path) -> None:
    steps, changed = [Step(0), Step(1, humans=1), Step(40, humans=3)], Predicates()
    changed.register(TYPES[0], odd, 30)
    asking = asked_back(place, tmp_path, {TYPES[0]: (two_people, None)}, steps, "n", changed)
    decided, otherwise = asyncio.run(asking)
    assert decided == {"n-0": State.FIRED, "n-1": State.SKIPPED, "n-2": State.FIRED}
    assert [(id, judged.state, judged.reason) for id, judged in otherwise] == [
        ("n-0", State.SKIPPED, "predicate odd returned False"),
        ("n-1", State.FIRED, "predicate odd returned True for 30 s"),
        ("n-2", State.SKIPPED, "predicate odd returned False"),
    ]
