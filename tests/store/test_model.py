"""Whatever happens to it, in any order, a store behaves like its model: nothing lost, nothing twice.

MODEL_EXAMPLES and MODEL_STEPS make the dose larger than in a test run.
"""

import asyncio
import math
import os
import tempfile
from collections import Counter
from collections.abc import Awaitable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.store.model import Entry, Model
from tests.support.arrivals import decision
from tests.support.place import TTL
from tests.support.rooms import request, session_arrival
from tests.support.stores import KINDS
from whereby_trigger.store import ROOM_TRANSITIONS, Arrival, Query, RoomMove, RoomState, State, Store
from whereby_trigger.store.states import OVER, OWNED

T = TypeVar("T")

EXAMPLES, EXAMPLES_ON_A_SERVER = 30, 8
"""Runs of the machine in a test run: on a server each step costs several round trips."""
STEPS = int(os.environ.get("MODEL_STEPS", "30"))
REPLICAS = 3

WHICH = st.integers(0, REPLICAS - 1)
KEYS = st.sampled_from(["acme.whereby.com/a", "acme.whereby.com/b"])
SESSIONS = st.sampled_from([None, "s1", "s2"])
TIMES = st.integers(0, 5).map(float)
PRESENT = precondition(lambda self: self.stores)


class StoreMachine(RuleBasedStateMachine):
    """Do to a store what replicas, senders and accidents do, and do the same to the model."""

    kind: str

    def __init__(self) -> None:
        super().__init__()
        self.entered = ExitStack()
        folder = self.entered.enter_context(tempfile.TemporaryDirectory())
        self.place = self.entered.enter_context(KINDS[self.kind](Path(folder)))
        self.loop = asyncio.new_event_loop()
        self.clock = self.place.clock
        self.model = Model(TTL, self.clock.now, sees_death=not self.place.takeover_within)
        self.stores: list[Store] = []
        self.left: list[Store] = []
        self.seqs: dict[str, int] = {}
        self.decided: Counter[str] = Counter()
        self.may_decide: Counter[str] = Counter()

    def run(self, awaitable: Awaitable[T]) -> T:
        async def wait() -> T:
            return await awaitable

        return self.loop.run_until_complete(wait())

    def one(self, which: int) -> Store:
        return self.stores[which % len(self.stores)]

    # What replicas do

    @initialize()
    def begin(self) -> None:
        self.enter()

    @precondition(lambda self: len(self.stores) < REPLICAS)
    @rule()
    def enter(self) -> None:
        async def opened() -> Store:
            store = self.place.replica()
            await store.open(lambda: None)
            return store

        store = self.run(opened())
        self.stores.append(store)
        self.model.join(store.replica)

    @PRESENT
    @rule(which=WHICH)
    def renew(self, which: int) -> None:
        store = self.one(which)
        assert self.run(self.later(lambda: store.renew(TTL))) == self.model.renew(store.replica)

    @PRESENT
    @rule(which=WHICH)
    def rejoin(self, which: int) -> None:
        store = self.one(which)
        old = store.replica
        self.run(store.rejoin(TTL))
        self.model.rejoin(old, store.replica)

    @PRESENT
    @rule(which=WHICH, key=KEYS, webhook=st.sampled_from([None, "a"]), session=SESSIONS, asked_at=TIMES)
    def ask(self, which: int, key: str, webhook: str | None, session: str | None, asked_at: float) -> None:
        store, asked = self.one(which), request(key, webhook=webhook, session_id=session, asked_at=asked_at)
        claim = self.run(self.later(lambda: store.request(asked)))
        assert claim == self.model.request(asked)

    @PRESENT
    @rule(which=WHICH, slots=st.integers(0, 3), max_age=st.sampled_from([math.inf, 3.0]))
    def take(self, which: int, slots: int, max_age: float) -> None:
        store = self.one(which)
        taken = self.run(self.later(lambda: store.take(slots, max_age)))
        expected = self.model.take(store.replica, slots, max_age)
        assert [(room.id, room.attempt) for room in taken] == [(entry.id, entry.attempt) for entry in expected]

    @precondition(lambda self: self.stores and self.model.rooms)
    @rule(which=WHICH, n=st.integers(0, 9), state=st.sampled_from(RoomState))
    def move(self, which: int, n: int, state: RoomState) -> None:
        self._move(self.one(which), self.model.rooms[-1 - n % len(self.model.rooms)], state)

    @precondition(lambda self: any(entry.state in OWNED for entry in self.model.rooms))
    @rule(n=st.integers(0, 9), pick=st.integers(0, 9))
    def go_on(self, n: int, pick: int) -> None:
        """Make an allowed move of a room for an owner that is still there."""
        owned = [entry for entry in self.model.rooms if entry.state in OWNED]
        entry = owned[n % len(owned)]
        following = sorted(ROOM_TRANSITIONS[entry.state])
        for store in self.stores:
            if store.replica == entry.owner:
                self._move(store, entry, following[pick % len(following)])
                return

    def _move(self, store: Store, entry: Entry, state: RoomState) -> None:
        change = RoomMove(int(entry.id), state, "moved")
        moved = self.run(self.later(lambda: store.move(change)))
        assert moved == self.model.move(entry, state, store.replica)

    @PRESENT
    @rule(which=WHICH, key=KEYS)
    def stop(self, which: int, key: str) -> None:
        store, open_entry = self.one(which), self.model.open_entry(key)
        was = None if open_entry is None else open_entry.state
        assert self.run(self.later(lambda: store.stop(key, "hand"))) == was
        self.model.stop(key)

    @PRESENT
    @rule(which=WHICH)
    def take_over(self, which: int) -> None:
        store = self.one(which)
        assert self.run(self.later(store.take_over)) == self.model.take_over(store.replica)

    @PRESENT
    @rule(which=WHICH, n=st.integers(0, 9))
    def decide(self, which: int, n: int) -> None:
        ids = sorted(self.model.webhooks)
        if not ids:
            return
        store, id = self.one(which), ids[n % len(ids)]
        verdict = decision(self.seqs[id], id, State.FIRED)
        decided = self.run(self.later(lambda: store.decide(verdict)))
        assert decided == self.model.decide(id, store.replica)
        self.decided[id] += decided

    # What the sender does

    @PRESENT
    @rule(which=WHICH, id=st.sampled_from("abcdef"), key=KEYS)
    def deliver(self, which: int, id: str, key: str) -> None:
        self._deliver(which, Arrival(id, "t", key, b"{}", self.clock.now()))

    @PRESENT
    @rule(which=WHICH, n=st.integers(0, 3), key=KEYS, started=st.booleans(), session=SESSIONS, created_at=TIMES)
    def deliver_session(
        self, which: int, n: int, key: str, started: bool, session: str | None, created_at: float
    ) -> None:
        values = {"started": started, "session_id": session, "created_at": created_at, "key": key}
        self._deliver(which, session_arrival(f"session {n}", received_at=self.clock.now(), **values))  # type: ignore[arg-type]

    def _deliver(self, which: int, arrival: Arrival) -> None:
        store, id = self.one(which), arrival.id
        added = self.run(self.later(lambda: store.add(arrival)))
        new = self.model.add(id, store.replica, arrival.change)
        assert added.duplicate is not new
        if new:
            self.seqs[id] = added.seq
            self.may_decide[id], self.decided[id] = 1, 0

    # What people do

    @PRESENT
    @rule(which=WHICH)
    def replay(self, which: int) -> None:
        store = self.one(which)
        replayed = self.run(self.later(lambda: store.replay(Query(), self.clock.now())))
        self.may_decide.update(replayed)
        self.model.replay()

    @PRESENT
    @rule(which=WHICH, age=st.integers(0, 10))
    def prune(self, which: int, age: int) -> None:
        self.run(self.one(which).prune(self.clock.now() - age))
        self.model.prune(self.clock.now() - age)

    # What happens to them

    @rule(seconds=st.sampled_from([TTL / 3, TTL / 2, TTL + 1]))
    def freeze(self, seconds: float) -> None:
        self.clock.jump(seconds)

    @PRESENT
    @rule(which=WHICH)
    def die(self, which: int) -> None:
        store = self.stores.pop(which % len(self.stores))
        self.left.append(store)
        self.run(self.place.crash(store))
        self.model.die(store.replica)

    @PRESENT
    @rule(which=WHICH)
    def drain(self, which: int) -> None:
        store = self.stores.pop(which % len(self.stores))
        self.run(store.close())
        self.model.leave(store.replica)

    # What must hold

    @PRESENT
    @invariant()
    def amounts_to_its_model(self) -> None:
        self.clock.jump(1)
        stored = self.run(self.stores[0].rooms())
        newest = {room.key: room.id for room in reversed(stored)}
        for entry in self.model.rooms:
            if entry.id == float("inf"):
                entry.id = newest[entry.request.key]
        assert {room.id: (room.key, room.state, room.owner, bool(room.stop), room.attempt) for room in stored} == {
            entry.id: (entry.request.key, entry.state, entry.owner, bool(entry.stop), entry.attempt)
            for entry in self.model.rooms
        }
        webhooks = self.run(self.stores[0].find(Query()))
        assert {(one.id, one.state is State.PENDING, one.deliveries) for one in webhooks} == {
            (id, one.pending, one.deliveries) for id, one in self.model.webhooks.items()
        }
        owners = {one.id: one.owner for one in webhooks if one.state is State.PENDING}
        assert owners == {id: one.owner for id, one in self.model.webhooks.items() if one.pending}
        for store in self.stores:
            for row in self.run(store.pending(0, 100)):
                assert row.takeovers == self.model.webhooks[row.id].takeovers
                assert row.crashes == self.model.webhooks[row.id].crashes

    @PRESENT
    @invariant()
    def keeps_its_promises(self) -> None:
        rooms = self.run(self.stores[0].rooms())
        assert max(Counter(room.key for room in rooms if room.state not in OVER).values(), default=0) <= 1
        ids = [webhook.id for webhook in self.run(self.stores[0].find(Query()))]
        assert len(ids) == len(set(ids))
        assert all(self.decided[id] <= self.may_decide[id] for id in ids)
        known = {store.replica for store in (*self.stores, *self.left)} | self.model.gone()
        assert {room.owner for room in rooms if room.state in OWNED} <= known

    def teardown(self) -> None:
        try:
            self._all_is_there_for_an_heir()
        finally:
            for store in (*self.stores, *self.left):
                self.run(store.close())
            self.loop.run_until_complete(self.loop.shutdown_default_executor())
            self.loop.close()
            self.entered.close()

    def _all_is_there_for_an_heir(self) -> None:
        # No lease survives this; replicas that thaw start again, and what they leave is taken over as well.
        self.clock.jump(TTL + 1)
        for store in self.stores:
            self.run(store.rejoin(TTL))
        self.enter()
        heir = self.stores[-1]
        self.run(self.later(heir.take_over))
        rooms = self.run(heir.rooms())
        assert [room for room in rooms if room.state in OWNED] == []
        kept = {entry.request.key for entry in self.model.rooms if entry.state in (RoomState.STARTING, RoomState.LIVE)}
        asked_to_end = {entry.request.key for entry in self.model.rooms if entry.stop}
        assert {room.key for room in rooms if room.state not in OVER} >= kept - asked_to_end
        owners = {webhook.owner for webhook in self.run(heir.find(Query(state=State.PENDING)))}
        assert owners <= {heir.replica}

    async def later(self, verb: Any) -> Any:
        """Call a method inside the loop, where its future belongs."""
        return await verb()


@pytest.mark.parametrize("kind", KINDS)
def test_a_store_amounts_to_its_model(kind: str) -> None:
    machine = type("Machine", (StoreMachine,), {"kind": kind})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=int(os.environ.get("MODEL_EXAMPLES", EXAMPLES if kind == "sqlite" else EXAMPLES_ON_A_SERVER)),
            stateful_step_count=STEPS,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )
