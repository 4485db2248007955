"""A night of forty meetings on three replicas, with every cause of a missing assistant once, and how each is shown.

What `rooms show` prints about the rooms without an assistant is in scripted_night.txt, with times and ids replaced.
`python -m tests.test_scripted_night` prints it again.
"""

import asyncio
import contextlib
import io
import re
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.replica import replica_that_takes
from tests.support.until import eventually
from tests.support.whereby import SECRET, deliver, post
from whereby_trigger import (
    TRIGGER_EVENT_SUCCESS,
    AssistantRefused,
    Presence,
    Session,
    Trigger,
    Webhook,
    timeline,
)
from whereby_trigger.assist import runners
from whereby_trigger.cli.rooms import show_timeline
from whereby_trigger.decide import predicates
from whereby_trigger.store import Arrival, Query, RoomQuery, RoomState, State, Store
from whereby_trigger.store.factory import store_for
from whereby_trigger.testing import webhook
from whereby_trigger.webhook import WebhookBase

pytestmark = pytest.mark.anyio

EXPECTED = Path(__file__).with_name("scripted_night.txt")
HOST = "acme.whereby.com"
SLOTS = 8
"""Of each of the three replicas."""

ORDINARY = [f"ordinary-{number:02}" for number in range(23)]
LACKING = (
    "predicate-says-no",
    "predicate-raises",
    "predicate-returns-none",
    "no-predicate",
    "not-for-so-long",
    "too-old",
    "a-bot",
    "session-over-already",
    "assistant-raises",
    "assistant-refuses",
    "assistant-leaves",
    "stopped-by-hand",
    "replica-dies",
    "no-slot",
    "listener-raises",
    "not-decided",
    "wrong-secret",
)
REPLACED = {
    r"\d{4}-\d\d-\d\d ": "",
    r"\b\d\d:\d\d(:\d\d)?\b": "TIME",
    r"\breplica [0-9a-f]{8,32}\b": "replica ID",
    r"\b[0-9.]+ s\b": "SECONDS",
    r" +": " ",
}
OTHER_ROOMS = re.compile(r"TIME replica ID (starts|stopped|died)")
"""Lines about replicas that are not the room's: how many there are depends on how long the night takes."""


def of_room(type: str, room: str, **fields: Any) -> Any:
    return webhook(type, room_name=f"/{room}", subdomain="acme", room_session_id=f"session-{room}", **fields)


def name_of(webhook: Any) -> str:
    return str(webhook.data.room_name).strip("/")


def program(url: str) -> Trigger:
    """Build a program whose predicates, listeners and assistants do what a room's name says."""
    trigger = Trigger(store=url, port=0, secret=SECRET, max_rooms=SLOTS, drain_timeout=1, stop_grace=1)

    @trigger.when("room.client.joined")
    def wanted(webhook: Webhook) -> bool:
        room = name_of(webhook)
        if room == "predicate-raises":
            raise KeyError(room)
        if room == "predicate-returns-none":
            return None  # type: ignore[return-value]
        return room != "predicate-says-no"

    @trigger.when("room.session.started", hold=60)
    def two_people(webhook: Webhook, presence: Presence) -> bool:
        return presence.humans == 2

    @trigger.on(TRIGGER_EVENT_SUCCESS)
    def greet(success: Any) -> None:
        if success.room_url.endswith("listener-raises"):
            raise RuntimeError("Ada")

    trigger.assistant(leave_when_empty=None)(joins)
    return trigger


async def joins(session: Session) -> None:
    room = session.room_name.strip("/")
    if room == "assistant-raises":
        raise ValueError("Ada")
    if room == "assistant-refuses":
        raise AssistantRefused("no key", retry=True)
    if room != "assistant-leaves":
        await session.ended


class Night:
    def __init__(self, url: str, store: Store, triggers: list[Trigger]) -> None:
        self.url, self.store, self.triggers = url, store, triggers
        self._next = 0

    async def comes(self, *webhooks: WebhookBase) -> None:
        """Deliver webhooks to one replica after the other, and wait for their decisions."""
        for each in webhooks:
            self._next += 1
            port = self.triggers[self._next % len(self.triggers)].port
            answer = await asyncio.to_thread(deliver, f"http://127.0.0.1:{port}/", each)
            assert answer.status == 200
        ids = tuple(each.id for each in webhooks)
        await eventually(lambda: self._decided(ids))

    async def joins(self, *rooms: str) -> None:
        await self.comes(*(of_room("room.client.joined", room) for room in rooms))

    async def ends(self, *rooms: str) -> None:
        await self.comes(*(of_room("room.session.ended", room) for room in rooms))

    async def over(self, room: str, state: RoomState) -> None:
        async def is_so() -> bool:
            entries = await self.store.find_rooms(RoomQuery(room=f"{HOST}/{room}"))
            return bool(entries) and entries[0].state is state

        await eventually(is_so)

    async def is_decided(self, id: str) -> bool:
        found = await self.store.find(Query(ids=(id,)))
        return bool(found) and found[0].state not in (State.PENDING, State.HELD)

    async def _decided(self, ids: tuple[str, ...]) -> bool:
        found = await self.store.find(Query(ids=ids))
        return len(found) == len(ids) and all(record.state is not State.PENDING for record in found)

    async def shown(self, room: str) -> str:
        """Return what `rooms show` prints."""
        known = await self.store.room_keys(f"/{room}")
        history = await timeline.of_room(self.store, known[0] if known else f"/{room}", now=time.time())
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            show_timeline(history)
        text = printed.getvalue()
        for pattern, replacement in REPLACED.items():
            text = re.sub(pattern, replacement, text)
        return "\n".join(line for line in text.splitlines() if not OTHER_ROOMS.fullmatch(line)) + "\n"


async def play(night: Night) -> None:
    """Play the night, except for its last two rooms."""
    await night.joins("predicate-says-no", "predicate-raises", "predicate-returns-none")
    await night.comes(of_room("room.client.knocked", "no-predicate"))
    await night.comes(of_room("room.client.joined", "a-bot", role_name="assistant"))
    # Two people are there when it is asked first; it is asked again when one of them leaves.
    started = of_room("room.session.started", "not-for-so-long")
    first, left = (
        of_room("room.client.left", "not-for-so-long", num_clients=n, num_clients_by_role_name={"host": n})
        for n in (2, 1)
    )
    await night.comes(first)
    await night.comes(started)
    await night.comes(left)
    await eventually(lambda: night.is_decided(started.id))
    late = of_room("room.client.joined", "session-over-already")
    await night.ends("session-over-already")
    await night.comes(late)
    await leave_old(night)
    for room, state in (
        ("assistant-raises", RoomState.FAILED),
        ("assistant-refuses", RoomState.FAILED),
        ("assistant-leaves", RoomState.ENDED),
    ):
        await night.joins(room)
        await night.over(room, state)
    await night.joins("stopped-by-hand")
    await night.over("stopped-by-hand", RoomState.LIVE)
    await night.triggers[0].stop_assistant(f"https://{HOST}/stopped-by-hand")
    await night.over("stopped-by-hand", RoomState.ENDED)
    await night.joins("listener-raises", *ORDINARY)
    for room in ("listener-raises", *ORDINARY):
        await night.over(room, RoomState.LIVE)
    await night.joins("replica-dies")
    await asyncio.to_thread(take_and_die, night.url)
    await night.over("replica-dies", RoomState.WAITING)
    await night.joins("no-slot")
    await night.ends("replica-dies", "no-slot")
    await night.ends("listener-raises", *ORDINARY)
    for room in ("listener-raises", *ORDINARY):
        await night.over(room, RoomState.ENDED)


def take_and_die(url: str) -> None:
    """Start another replica that takes the waiting room, and kill it."""
    with replica_that_takes(url) as other:
        other.line("took")
        other.kill()


async def leave_old(night: Night, room: str = "too-old", age: float = 10_000.0) -> None:
    """Leave a webhook for the running replicas to decide, as a replica does that stops before it decides."""
    joined = of_room("room.client.joined", room)
    store = store_for(night.url)
    await store.open(lambda: None)
    await store.add(Arrival(joined.id, joined.type, f"{HOST}/{room}", joined.raw, time.time() - age))
    await store.close()
    if age:
        await eventually(lambda: night.is_decided(joined.id))


async def whole_night(folder: Path) -> str:
    """Play the night, and return what is shown for each room without an assistant."""
    url = f"sqlite:///{folder}/night.db"
    shown: dict[str, str] = {}
    async with AsyncExitStack() as running:
        triggers = [await running.enter_async_context(program(url)) for _ in range(3)]
        store = store_for(url)
        await store.open_readonly()
        running.push_async_callback(store.close)
        night = Night(url, store, triggers)
        await play(night)
        for room in (*LACKING[:-2], *ORDINARY):
            shown[room] = await night.shown(room)
    # The rest is of no known room, or of nobody: it is shown once nothing else can be.
    await leave_old(night, "not-decided", age=0.0)
    looking = store_for(url)
    await looking.open_readonly()
    night.store = looking
    shown["not-decided"] = await night.shown("not-decided")
    await looking.close()
    async with program(url) as trigger:
        body = of_room("room.client.joined", "wrong-secret").raw
        for _ in range(2):
            answer = await asyncio.to_thread(deliver, f"http://127.0.0.1:{trigger.port}/", body, "another secret")
            assert answer.status == 401
        assert (await asyncio.to_thread(post, f"http://127.0.0.1:{trigger.port}/hooks", body, {})).status == 404
    looking = store_for(url)
    await looking.open_readonly()
    night.store = looking
    shown["wrong-secret"] = await night.shown("wrong-secret")
    await looking.close()
    answers = {shown[room].splitlines()[1] for room in ORDINARY}
    shown["each ordinary room"] = "\n".join(sorted(answers)) + "\n"
    return "\n".join(f"# {room}\n{shown[room]}" for room in (*LACKING, "each ordinary room"))


def without_pauses(patched: pytest.MonkeyPatch) -> None:
    patched.setattr(runners, "BACKOFF", (0.0, 0.0, 0.0))
    patched.setattr(predicates, "BACKOFF", (0.0, 0.0))


async def test_each_cause_of_a_missing_assistant_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_pauses(monkeypatch)
    assert await whole_night(tmp_path) == EXPECTED.read_text(encoding="utf-8")


if __name__ == "__main__":
    with pytest.MonkeyPatch.context() as patched, tempfile.TemporaryDirectory() as folder:
        without_pauses(patched)
        sys.stdout.write(asyncio.run(whole_night(Path(folder))))
