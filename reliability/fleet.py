"""Several replicas on one store, each a separate process, whose assistants tick in one file."""

import asyncio
import contextlib
import itertools
import os
import signal
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from reliability.assistants import Ticks
from reliability.load import send
from reliability.measures import family
from reliability.receivers import Receiver, Receivers
from reliability.stores import Stores
from whereby_trigger.cli.arguments import store_to_read
from whereby_trigger.store import RoomState
from whereby_trigger.testing import webhook
from whereby_trigger.testing.program import until
from whereby_trigger.webhook import Webhook

DEFAULTS = ("--max-rooms", "200", "--stop-grace", "2", "--drain-timeout", "0.2")


class Fleet:
    """Start, load, kill, freeze and replace replicas; an async context that leaves nothing running."""

    def __init__(self, folder: Path, stores: Stores, *options: str) -> None:
        self.url = stores.new(folder)
        self.ticks = Ticks(folder / "ticks")
        self.replicas: list[Receiver] = []
        self._receivers = Receivers(self.url, options=("--ticks", str(self.ticks.path), *DEFAULTS, *options))
        self._numbers = itertools.count()

    async def start(self, *options: str, env: Mapping[str, str] | None = None) -> Receiver:
        """Start one more replica, with `env` on top of our environment, and wait until it listens."""
        replica = await self._receivers.start(*options, env=env)
        self.replicas.append(replica)
        await replica.listening()
        return replica

    async def kill(self, replica: Receiver) -> None:
        """Kill a replica with -9; its guards and assistants keep running."""
        self.replicas.remove(replica)
        os.kill(replica.pid, signal.SIGKILL)
        await replica.ended()

    async def drain(self, replica: Receiver) -> int:
        """Drain a replica until it ends, if it has not ended itself; return its exit code."""
        self.replicas.remove(replica)
        with contextlib.suppress(ProcessLookupError):
            os.kill(replica.pid, signal.SIGTERM)
        return await replica.ended()

    async def join(self, room: str, replica: Receiver, *, ahead: float = 0.0) -> int:
        """Deliver a person's join of a room to one replica; return the answer's status, 0 for none."""
        joined = webhook("room.client.joined", room=room, room_session_id=_session(room))
        return await self.send(joined, replica, ahead=ahead)

    async def leave(self, room: str) -> int:
        """Deliver the end of a room's session to the first replica; return the answer's status, 0 for none."""
        ended = webhook("room.session.ended", room=room, room_session_id=_session(room))
        return await self.send(ended, self.replicas[0])

    async def send(self, sent: Webhook, replica: Receiver, *, ahead: float = 0.0) -> int:
        """Deliver a webhook to a replica; return the answer's status, 0 for none.

        It is signed by a clock that is `ahead` seconds ahead of ours.
        """
        return await send(await replica.listening(), sent.raw, ahead=ahead)

    def room(self) -> str:
        """Return a new room name."""
        return f"/room-{next(self._numbers)}"

    async def occupy(self, replica: Receiver, rooms: int, within: float) -> list[str]:
        """Deliver joins of so many new rooms to a replica, and wait until an assistant ticks in each; return them."""
        joined = [self.room() for _ in range(rooms)]
        await asyncio.gather(*(self.join(room, replica) for room in joined))
        await self.ticks.until(joined, within)
        return joined

    async def until_elsewhere(
        self, rooms: Collection[str], lost: Receiver, since: float, within: float
    ) -> tuple[dict[str, float], list[str]]:
        """Wait until an assistant of another replica ticks in each room of a lost one, after `since`.

        Return the times, by the boot clock, and what is wrong: the rooms to which none has come back by then.
        """
        back = await self.ticks.until(rooms, within, lambda tick: tick.at > since and tick.host != lost.pid)
        return back, [f"no assistant came back to {room}" for room in rooms if room not in back]

    async def until_live(self, rooms: Iterable[str], within: float) -> None:
        """Wait until the store says that an assistant is live in each room, and no replica has that left to write."""
        missing = set(rooms)

        async def all_live() -> bool:
            live = [room.url for room in await store.rooms() if room.state is RoomState.LIVE]
            missing.difference_update([room for room in missing if any(url.endswith(room) for url in live)])
            return not missing

        async with store_to_read(self.url) as store:
            await until(all_live, within)

    def rooms_of(self, replica: Receiver) -> set[str]:
        """Return the rooms whose last tick came from an assistant of this replica."""
        self.ticks.fresh()
        last = {tick.room: tick.host for tick in self.ticks.all}
        return {room for room, host in last.items() if host == replica.pid}

    async def __aenter__(self) -> "Fleet":
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Kill every replica and everything it started."""
        for replica in self.replicas:
            for process in family(replica.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            await replica.ended()


def _session(room: str) -> str:
    return f"session of {room}"
