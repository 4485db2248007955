"""Meetings that follow each other in a room: whatever is lost, late, doubled or killed, the newest one is served.

MEETING_EXAMPLES makes the dose larger than in a test run.
"""

import asyncio
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.store.rules_place import rules_place
from tests.support.arrivals import NOW, arrival
from tests.support.rooms import request, session_arrival
from tests.support.stores import KINDS
from whereby_trigger.store import RoomMove, RoomState
from whereby_trigger.store.states import OVER

PLACES: dict[str, Any] = {"rules": rules_place, **KINDS}
EXAMPLES = {"rules": 60, "sqlite": 8, "postgresql": 3, "pgbouncer": 3}
"""Series in a test run: a store on files or a server needs milliseconds for each step."""

JOINED, LEFT, STARTED, ENDED = "JLSE"


class Sent(NamedTuple):
    """Hold a webhook: its kind, time, meeting and room, and whether it names the session."""

    kind: str
    at: float
    meeting: str
    named: bool = True
    room: str = "a"

    @property
    def key(self) -> str:
        return f"acme.whereby.com/{self.room}"

    @property
    def id(self) -> str:
        return f"{self.room} {self.kind}{self.at:g} {self.meeting}"

    @property
    def session(self) -> str | None:
        return f"{self.room} {self.meeting}" if self.named else None


class Step(NamedTuple):
    """Hold a delivery, or what happens between deliveries, and to which replica."""

    what: Sent | str
    which: int = 0


# What can be known


class Known:
    """Derive what the webhooks of a room show, in any order; meetings are named in alphabetical order."""

    def __init__(self, received: Iterable[Sent]) -> None:
        self.received = set(received)
        self.newest = max((one.meeting for one in self.received), default="")
        self.all_named = all(one.named for one in self.received)

    def has(self, kind: str) -> bool:
        return any(one.kind == kind and one.meeting == self.newest for one in self.received)

    @property
    def must_run(self) -> bool:
        """True if the newest meeting asked for an assistant, and nothing ends it."""
        return self.has(JOINED) and not self.has(ENDED)

    def may_serve(self, webhook: Sent) -> bool:
        """Return True if the assistant that a webhook asked for may be in the room at the end."""
        if webhook.meeting == self.newest:
            return not self.has(ENDED)
        # A session that is not named may be any; and the end of another session ends nothing that runs.
        return not ((self.all_named and (self.has(JOINED) or self.has(STARTED))) or self.is_followed(webhook))

    def is_followed(self, webhook: Sent) -> bool:
        """Return True if two sessions are known to have started after a webhook, so the first of them is over."""
        starts = {one.meeting for one in self.received if one.kind == STARTED and one.named and one.at > webhook.at}
        return len(starts) > 1


# What happens


class Stage:
    """Play steps on replicas of one store, each with a supervisor that acts immediately."""

    def __init__(self, place: Any) -> None:
        self.place = place
        self.stores: list[Any] = []
        self.left: list[Any] = []
        self.running: dict[str, tuple[int, Any]] = {}
        self.undecided: list[Sent] = []
        self.received: dict[str, Sent] = {}
        self.returned: set[Sent] = set()

    async def play(self, steps: Iterable[Step]) -> None:
        await self.start()
        for step in steps:
            store = self.stores[step.which % len(self.stores)]
            if isinstance(step.what, Sent):
                await self.deliver(store, step.what)
            else:
                await getattr(self, step.what)(store)
        while self.undecided:
            await self.decide(self.stores[0])
        await self.place.outlast_the_dead(*self.stores)
        while await self.settle():
            pass

    async def start(self, _: Any = None) -> None:
        store = self.place.replica()
        await store.open(lambda: None)
        self.stores.append(store)

    async def kill(self, store: Any) -> None:
        """Kill a replica with its assistants, and start another one, so there is always one."""
        self.stores.remove(store)
        self.left.append(store)
        await self.place.crash(store)
        self.running = {key: run for key, run in self.running.items() if run[1] is not store}
        await self.start()

    async def deliver(self, store: Any, sent: Sent) -> None:
        said = {STARTED: True, ENDED: False}.get(sent.kind)
        if said is None:
            await store.add(arrival(sent.id, room=sent.key))
        else:
            values: dict[str, Any] = {"session_id": sent.session, "created_at": NOW + sent.at, "key": sent.key}
            await store.add(session_arrival(sent.id, started=said, **values))
        if sent.kind == JOINED and sent.id not in self.received:
            self.undecided.append(sent)
        self.received[sent.id] = sent

    async def decide(self, store: Any) -> None:
        if self.undecided:
            sent = self.undecided.pop(0)
            values: dict[str, Any] = {"session_id": sent.session, "asked_at": NOW + sent.at}
            await store.request(request(sent.key, webhook=sent.id, **values))

    async def supervise(self, store: Any) -> bool:
        """End the assistants that were asked to end, and start those that wait."""
        stopping, taken = await store.stopping(), await store.take(100)
        for room in stopping:
            await store.move(RoomMove(room.id, RoomState.ENDING, room.stop))
            assert self.running.pop(room.key) == (room.id, store)
            assert await store.move(RoomMove(room.id, RoomState.ENDED, room.stop))
        for room in taken:
            assert room.key not in self.running, "two at once"
            self.running[room.key] = (room.id, store)
            assert await store.move(RoomMove(room.id, RoomState.LIVE, ""))
        return bool(stopping or taken)

    async def leave(self, store: Any) -> None:
        """Make an assistant leave its room."""
        rooms = await store.rooms()
        for room in rooms:
            if room.state is RoomState.LIVE and room.owner == store.replica:
                self.running.pop(room.key)
                self.returned.add(self.received[room.webhook])
                assert await store.move(RoomMove(room.id, RoomState.ENDED, "returned"))
                return

    async def settle(self) -> bool:
        taken_over = [await store.take_over() for store in self.stores]
        return any([await self.supervise(store) for store in self.stores] + taken_over)

    async def judge(self) -> None:
        for key in {one.key for one in self.received.values()}:
            known = Known(one for one in self.received.values() if one.key == key)
            serving = [room for room in await self.stores[0].rooms() if room.key == key and room.state not in OVER]
            assert len(serving) <= 1
            assert {room.key for room in serving} == {key} & set(self.running)
            returned = {one.meeting for one in self.returned if one.key == key}
            if known.must_run and (not returned or (known.all_named and known.newest not in returned)):
                assert serving, "the newest meeting is not served"
            for room in serving:
                webhook = self.received[room.webhook]
                # Once an assistant has left, only starts and ends show that its meeting took place.
                assert known.may_serve(webhook) or max(returned, default="") > webhook.meeting, f"{webhook} is over"

    async def close(self) -> None:
        for store in (*self.stores, *self.left):
            await store.close()


def serve(kind: str, steps: Iterable[Step]) -> list[str]:
    """Play steps on a store of some kind; return the webhooks whose assistants are in a room at the end."""

    async def play(stage: Stage) -> list[str]:
        try:
            await stage.play(steps)
            await stage.judge()
            return [room.webhook for room in await stage.stores[0].rooms() if room.state not in OVER]
        finally:
            await stage.close()

    with tempfile.TemporaryDirectory() as folder, PLACES[kind](Path(folder)) as place:
        return asyncio.run(play(Stage(place)))


# Any series


@st.composite
def series(draw: st.DrawFn) -> list[Step]:
    """Draw series of meetings in some rooms, and the fate of their webhooks."""
    deliveries: list[tuple[float, Sent]] = []
    for room in "ab"[: draw(st.integers(1, 2))]:
        start = 0.0
        for meeting in "ABCD"[: draw(st.integers(1, 4))]:
            naming = draw(st.sampled_from([st.just(True), st.just(True), st.just(False), st.booleans()]))
            kinds = [JOINED, *draw(st.lists(st.sampled_from([JOINED, STARTED, LEFT]), max_size=4)), ENDED]
            for n, kind in enumerate(kinds):
                sent = Sent(kind, start + n, meeting, draw(naming), room)
                lost = (
                    draw(st.sampled_from([False, False, True]))
                    if kind in (STARTED, ENDED)
                    else draw(st.sampled_from([False] * 4 + [True]))
                )
                for _ in range(0 if lost else draw(st.sampled_from([1, 1, 1, 2]))):
                    deliveries.append((sent.at + draw(st.sampled_from([0, 0, 0, 3, 30, 300])), sent))
            start += draw(st.sampled_from([10.0, 100.0]))
    steps = []
    replicas = st.integers(0, 1)
    for _, sent in sorted(deliveries):
        steps.append(Step(sent, draw(replicas)))
        between = st.sampled_from(["decide", "decide", "decide", "supervise", "supervise", "kill", "leave"])
        steps += [Step(what, draw(replicas)) for what in draw(st.lists(between, max_size=4))]
    return [Step("start"), *steps] if draw(st.booleans()) else steps


def parse(deliveries: str, room: str = "a") -> list[Step]:
    """Parse a series as the table below writes it; a webhook does not name a session in brackets."""
    steps = []
    for each in deliveries.split(", "):
        what, meeting = each.split(" ")
        sent = Sent(what[0].replace("R", JOINED), float(what[1:]), meeting.strip("()"), "(" not in meeting, room)
        steps += [Step(sent), Step("decide"), Step("supervise")]
    return steps


SERIES = {
    "J0 A, S1 A, J122 B, E121 A, S123 B": "B",
    "J0 (A), J122 (B), E121 A": "B",
    "J0 A, S1 A, J300 B, J301 B, S302 B": "B",
    "R0 A, R122 B, E121 A": "B",
    "J0 A, J300 B": "B",
    "J0 A, J100 B, E150 B, E99 A": "",
    "J0 (A), J300 B, E99 A": "B",
    "J0 A, E150 B, J100 B, E99 A": "",
    "J100 B, E150 B, J0 A": "",
    "J100 B, S101 B, J0 A": "B",
    "S1 A, J300 B, J301 A": "B",
    "J0 (A), S1 A, J300 B": "B",
    "J0 (A), J300 B, S1 A": "B",
    "J0 (A), J300 B, J600 C": "C",
    "J0 (A), J600 C, J300 B": "C",
    "J0 (A), J300 B, S601 C, J602 C": "C",
    "J0 A, J122 (B), S123 B": "B",
    "J0 A, J122 (B), S123 B, J300 C": "C",
    "S1 A, J0 (A), J300 B": "B",
    "J0 A, E202 C, J102 B, J200 C": "",
    "J0 (A), J100 (B), S101 B, S1 A": "B",
    "J0 (A), S101 B, J100 (B), S1 A": "B",
    "J0 (A), S101 B, J102 B, S1 A": "B",
    "J0 (A), J5 A, S1 A, J100 (B), S101 B": "B",
}
"""The meeting that is served in the end, by deliveries."""


@pytest.mark.parametrize("kind", PLACES)
def test_the_newest_meeting_is_served_whatever_becomes_of_the_webhooks(kind: str) -> None:
    def holds(steps: list[Step]) -> None:
        serve(kind, steps)

    for deliveries in SERIES if kind == "rules" else ():
        holds = example(parse(deliveries))(holds)
    dose = int(os.environ.get("MEETING_EXAMPLES", EXAMPLES[kind]))
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large]
    settings(max_examples=dose, deadline=None, suppress_health_check=checks)(given(series())(holds))()


@pytest.mark.parametrize("kind", PLACES)
def test_of_meetings_that_follow_each_other_the_right_one_is_served(kind: str) -> None:
    rooms = {str(number): deliveries for number, deliveries in enumerate(SERIES)}
    steps = [step for room, deliveries in rooms.items() for step in parse(deliveries, room)]
    served = {webhook.split(" ")[0]: webhook[-1] for webhook in serve(kind, steps)}
    assert {deliveries: served.get(room, "") for room, deliveries in rooms.items()} == SERIES
