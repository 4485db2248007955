"""Several replicas on one store, each a separate process, whose assistants tick in one file."""

import contextlib
import itertools
import os
import signal
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from reliability import ROOT
from reliability.assistants import Tick, Ticks
from reliability.load import send
from reliability.receivers import Receiver, receiver_on
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
        self._options = options
        self._numbers = itertools.count()

    async def start(self, *options: str, env: Mapping[str, str] | None = None) -> Receiver:
        """Start one more replica, with `env` on top of our environment, and wait until it listens."""
        command = receiver_on(self.url, "--ticks", str(self.ticks.path), *DEFAULTS, *self._options, *options)
        replica = await Receiver.start(command, cwd=ROOT, env=env)
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

    async def join(self, room: str, replica: Receiver | None = None, *, ahead: float = 0.0) -> int:
        """Deliver a person's join of a room to one replica; return the answer's status, 0 for none."""
        joined = webhook("room.client.joined", room=room, room_session_id=_session(room))
        return await self.send(joined, replica or self.replicas[0], ahead=ahead)

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

    async def until(self, rooms: Iterable[str], ticked: Callable[[Tick], bool], within: float) -> dict[str, float]:
        """Wait until an assistant in each room has a matching tick; return the times, by the boot clock.

        A room without one by then is left out.
        """
        return await self.ticks.until(rooms, ticked, within)

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


def family(pid: int, generations: int = 100) -> list[int]:
    """Return a process and its descendants of up to `generations` generations, the eldest first."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    try:
        own = [int(child) for child in children.read_text(encoding="ascii").split()]
    except FileNotFoundError:
        return []
    own = own if generations else []
    return [pid, *(descendant for child in own for descendant in family(child, generations - 1))]
