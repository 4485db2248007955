"""Supervisors on a real store: replicas that run a coroutine in each room that asks, without webhooks or a port."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from types import TracebackType

from tests.support.rooms import request
from tests.support.until import eventually
from whereby_trigger.assist import Announce, CoroutineAssistant, Session, Supervisor, announce_nothing, launcher
from whereby_trigger.assist.runners import Launch
from whereby_trigger.store import UNBOUNDED, Bounds, Room, RoomState, Store

LONG = 60.0

Function = Callable[[Session], Awaitable[None]]


class Supervised:
    """Supervise a store's rooms for an `async with` block; `launch` takes the place of `function`."""

    def __init__(
        self,
        store: Store,
        function: Function | None = None,
        *,
        max_rooms: int = 10,
        grace: float = LONG,
        launch: Launch | None = None,
        max_age: float = math.inf,
        bounds: Bounds = UNBOUNDED,
        announce: Announce = announce_nothing,
    ) -> None:
        self.store = store
        assistant = CoroutineAssistant(function)  # type: ignore[arg-type]
        launch = launch or launcher(assistant, grace=grace, deadline=lambda: LONG)
        self.supervisor = Supervisor(store, launch, max_rooms, max_age, bounds, announce)

    async def __aenter__(self) -> "Supervised":
        await self.store.open(self.supervisor.wake)
        self._supervising = asyncio.create_task(self.supervisor.supervise())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.supervisor.cut_off("the test is over")
        self._supervising.cancel()
        await asyncio.wait({self._supervising})
        await self.store.close()

    async def ask(self, name: str = "visit-1", **values: object) -> None:
        """Request an assistant in a room, now."""
        values = {"asked_at": time.time()} | values
        await self.store.request(request(f"acme.whereby.com/{name}", **values))  # type: ignore[arg-type]
        self.supervisor.wake()

    async def stop(self, name: str = "visit-1") -> None:
        """Ask a room's assistant to end, now."""
        await self.store.stop(f"acme.whereby.com/{name}", "stopped by hand")
        self.supervisor.wake()

    async def reaches(
        self, state: RoomState, name: str = "visit-1", *, attempt: int | None = None, within: float = 10.0
    ) -> Room:
        """Wait until the last entry of a room is in a state, and at an attempt if that is given."""

        async def look() -> Room | None:
            entries = [room for room in await self.store.rooms() if room.key.endswith(f"/{name}")]
            found = entries and entries[0].state is state and attempt in (None, entries[0].attempt)
            return entries[0] if found else None

        room: Room = await eventually(look, within)
        return room


class Assistants:
    """The assistants of a test: they record who is in which room, and stay there until released."""

    def __init__(self) -> None:
        self.started: list[tuple[str, int]] = []
        self.there: list[str] = []
        self.most = 0
        self.sessions: dict[str, Session] = {}
        self._free: set[str] = set()

    async def stay(self, session: Session) -> None:
        """Stay until the session has ended, or the test releases the room."""
        name = session.room_name[1:]
        self.sessions[name] = session
        self.started.append((name, session.attempt))
        self.there.append(name)
        self.most = max(self.most, len(self.there))
        leave = asyncio.create_task(eventually(lambda: name in self._free, LONG))
        ended = asyncio.create_task(session.ended.wait())
        try:
            await asyncio.wait({leave, ended}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            leave.cancel()
            ended.cancel()
            self.there.remove(name)

    def let_go(self, name: str) -> None:
        """Make the assistant of a room leave it on its own."""
        self._free.add(name)
