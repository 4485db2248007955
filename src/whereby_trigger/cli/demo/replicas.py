"""The second act's course: two replicas on one store, one killed, the other drained while a third is up."""

import asyncio
import contextlib
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path

from whereby_trigger.cli.demo.crowd import Crowd, LoadCall
from whereby_trigger.cli.demo.findings import Sent
from whereby_trigger.cli.demo.meeting import Step
from whereby_trigger.cli.demo.post import post
from whereby_trigger.cli.demo.presence import Observed, Outage, Stay, checks
from whereby_trigger.cli.demo.server import DemoServer
from whereby_trigger.cli.demo.show import Show
from whereby_trigger.cli.demo.venue import LEASE, Database, Venue
from whereby_trigger.errors import StoreUnavailable
from whereby_trigger.store import Query, RoomState, State
from whereby_trigger.store.factory import store_for

LOOK = 0.02
HAPPENS_WITHIN = 10.0
DEAD_FOR = 0.3
"""Seconds in which nothing can be answered, with the database dead and nobody to start it."""
REPLICAS = 3


def conclude(show: Show, crowd: Crowd, observed: Observed, seconds: float) -> int:
    """Show what was observed and whether it is as it must be; return the exit code."""
    results = checks(crowd, observed)
    show.stays(observed)
    show.checks(results, [], seconds)
    return 0 if all(check.passed for check in results) else 1


class Replicas:
    """Perform the second act in a folder: what its replicas share lives there."""

    def __init__(self, folder: Path, show: Show, venue: Venue) -> None:
        self._notebook = folder / "notebook.txt"
        self._venue = venue
        self._show = show
        self._secret = secrets.token_hex(16)
        self._servers = [DemoServer(folder, self._secret, "managed.py", venue) for _ in range(REPLICAS)]
        self._pids: dict[int, int] = {}
        self._store = store_for(self._servers[0].store)
        self._sent: list[Sent] = []

    async def perform(self, crowd: Crowd) -> Observed:
        """Start two replicas, have people join, kill one, drain the other; return what was observed."""
        try:
            await asyncio.gather(self._start(1), self._start(2))
            self._show.server("\nSecond act: two replicas on one store, each ready to run assistants")
            await self._store.open_readonly()
            return await self._act(crowd)
        finally:
            await asyncio.gather(*(server.kill() for server in self._servers))
            await self._store.close()

    async def _act(self, crowd: Crowd) -> Observed:
        database = self._venue.database
        rooms = crowd.rooms(outage=database is not None)
        await self._deliver([*crowd.joins, crowd.at_once])
        await self._until(self._decided)
        await self._until_in(rooms, {1, 2})
        outage = None if database is None else await self._outlive(database, crowd)
        before = self._stays()
        killed = before[0].replica if before else 1
        drained, heir = 3 - killed, 3
        killed_at = await self._kill(killed, [stay.room for stay in before if stay.replica == killed])
        await self._until_in(rooms, {drained})
        self._tell_since(killed_at)
        await self._start(heir)
        told_at = time.time()
        self._show.server(f"Replica {heir} is up, and replica {drained} is told to stop, by SIGTERM")
        await self._servers[drained - 1].stop()
        await self._until_in(rooms, {heir})
        self._tell_since(told_at)
        await self._deliver(crowd.ends)
        await self._until(self._over)
        await self._servers[heir - 1].stop()
        played = tuple(call.step.webhook.id for call in crowd.played(outage=outage is not None))
        return Observed(
            sent=self._sent,
            records=list(reversed(await self._store.find(Query(ids=played)))),
            stays_before=before,
            stays=self._stays(),
            killed=killed,
            killed_at=killed_at,
            drained=drained,
            exit_code=self._servers[drained - 1].exit_code,
            heir=heir,
            rooms=await self._store.rooms(),
            takeover_within=self._venue.takeover_within,
            outage=outage,
        )

    async def _outlive(self, database: Database, crowd: Crowd) -> Outage:
        """Kill the database, deliver while it is dead, and start it again."""
        stays = self._stays()
        await asyncio.to_thread(database.kill)
        self._show.server("kill -9 of the database, all its processes, with the assistants in their rooms")
        waiting = asyncio.create_task(self._answer_to(crowd.meanwhile))
        await asyncio.wait({waiting}, timeout=DEAD_FOR)
        up_at = time.time()
        await asyncio.to_thread(database.start)
        answered_at = await waiting
        self._show.server("The database is up again, and has recovered what was committed")
        await self._until(self._decided)
        return Outage(stays, up_at, answered_at)

    async def _start(self, replica: int) -> None:
        await self._servers[replica - 1].start()
        self._pids[self._servers[replica - 1].pid] = replica

    async def _kill(self, replica: int, rooms: Iterable[str]) -> float:
        killed_at = time.time()
        await self._servers[replica - 1].kill()
        lease = f"; its lease of {LEASE:g} s has to run out" if self._venue.is_shared else ""
        self._show.server(f"kill -9 of replica {replica}, which had an assistant in {' and '.join(rooms)}{lease}")
        return killed_at

    async def _deliver(self, calls: Sequence[LoadCall]) -> None:
        for call in calls:
            await asyncio.gather(*(self._post(call.step, self._servers[number - 1]) for number in call.replicas))

    async def _answer_to(self, call: LoadCall) -> float:
        await self._deliver([call])
        return time.time()

    async def _post(self, step: Step, server: DemoServer) -> None:
        began = time.perf_counter()
        self._sent.append(Sent(step, await post(server.port, step.webhook.raw, self._secret)))
        self._show.sent(self._sent[-1], (time.perf_counter() - began) * 1000)

    async def _until(self, happened: Callable[[], Awaitable[bool]]) -> None:
        """Wait until something has happened, but not for ever: the checks tell what has not."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HAPPENS_WITHIN):
                while not await self._seen(happened):  # noqa: ASYNC110 - it happens in other processes
                    await asyncio.sleep(LOOK)

    async def _seen(self, happened: Callable[[], Awaitable[bool]]) -> bool:
        """Look; a database that has just been killed may have cut the line."""
        try:
            return await happened()
        except StoreUnavailable:
            return False

    async def _until_in(self, rooms: Iterable[str], replicas: set[int]) -> None:
        async def there() -> bool:
            present = {stay.room for stay in self._stays() if stay.left is None and stay.replica in replicas}
            return present.issuperset(rooms)

        await self._until(there)

    async def _decided(self) -> bool:
        return not await self._store.find(Query(state=State.PENDING, limit=1))

    async def _over(self) -> bool:
        return all(room.state is RoomState.ENDED for room in await self._store.rooms())

    def _tell_since(self, moment: float) -> None:
        for stay in self._stays():
            if stay.came > moment:
                self._show.came(stay, stay.came - moment)

    def _stays(self) -> list[Stay]:
        """Read what the assistants wrote, as stays in the order of their coming."""
        lines = self._notebook.read_text(encoding="utf-8").splitlines() if self._notebook.exists() else []
        stays: dict[tuple[str, str], Stay] = {}
        for what, pid, room, attempt, at, why in (line.split(" ", 5) for line in lines):
            replica = self._pids.get(int(pid), 0)
            if what == "comes":
                stays[room, attempt] = Stay(room, replica, int(attempt), float(at))
            else:
                came = stays[room, attempt].came
                stays[room, attempt] = Stay(room, replica, int(attempt), came, float(at), why)
        return list(stays.values())
