"""The two scenarios of the demo: one server that crashes, then replicas of which one is killed and one drained."""

import asyncio
import secrets
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import UTC, datetime
from math import inf
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
from msgspec import structs

from whereby_trigger import timeline
from whereby_trigger.cli.demo.checks import (
    AssistantRun,
    CrashResult,
    Heard,
    ReplicaResult,
    Sent,
    check_crash,
    check_replicas,
)
from whereby_trigger.cli.demo.meetings import CrashMeeting, MeetingStep, ReplicaMeetings
from whereby_trigger.cli.demo.report import conclude, show_event, show_room, show_sent, show_start
from whereby_trigger.cli.demo.store import LEASE, DemoStore
from whereby_trigger.store import Query, Record, RoomState, State
from whereby_trigger.store.factory import store_for
from whereby_trigger.testing.program import Program, until
from whereby_trigger.testing.sender import Address, Sender

HAPPENS_WITHIN = 10.0


class Scenario:
    """Hold the servers of a scenario, their store, and the notebook that their program writes, all in one folder."""

    program: str

    def __init__(self, folder: Path, store: DemoStore) -> None:
        self._secret = secrets.token_hex(16)
        self._folder = folder
        self._demo_store = store
        self._servers: dict[int, Program] = {}
        self._senders: dict[int, Sender] = {}
        self._store = store_for(store.url_in(folder))
        self._sent: list[Sent] = []

    async def _start(self, replica: int = 1) -> Program:
        """Start a server as the replica with a number, which counts from 1."""
        settings = {"STORE": self._demo_store.url_in(self._folder), "HOST": "127.0.0.1", "PORT": "0"}
        env = {f"WHEREBY_TRIGGER_{name}": value for name, value in (settings | self._demo_store.settings).items()}
        # -P: the program must not import the demo's own modules.
        command = [sys.executable, "-P", str(Path(__file__).with_name(self.program))]
        server = await Program.start(command, cwd=self._folder, env=env | {"WHEREBY_WEBHOOK_SECRET": self._secret})
        self._servers[replica] = server
        self._senders[replica] = Sender(Address.local(await server.listening()), self._secret, reuse=False)
        return server

    async def _deliver(self, *steps: MeetingStep) -> None:
        for step in steps:
            await asyncio.gather(*(self._post(step, self._senders[replica]) for replica in step.replicas))

    async def _post(self, step: MeetingStep, sender: Sender) -> None:
        (response,) = await sender.deliver(step.webhook.raw, forged=step.answer == 401, retries=0)
        self._sent.append(Sent(step, response.status))
        show_sent(self._sent[-1], response.seconds * 1000)

    async def _until(self, happened: Callable[[], Awaitable[bool]]) -> None:
        """Wait until something has happened, for a bounded time: the checks find what has not."""
        await until(happened, HAPPENS_WITHIN)

    async def _decided(self) -> bool:
        return not await self._store.find(Query(state=State.PENDING, limit=1))

    async def _records(self, query: Query) -> list[Record]:
        return (await self._store.find(query))[::-1]

    def _noted(self) -> list[bytes]:
        notebook = self._folder / "notebook.txt"
        return notebook.read_bytes().splitlines() if notebook.exists() else []

    async def _show_rooms(self, records: Sequence[Record]) -> None:
        for key in sorted({record.room for record in records if record.room is not None}):
            show_room(await timeline.of_room(self._store, key, now=time.time()))

    async def _close(self) -> None:
        await asyncio.gather(*(server.kill() for server in self._servers.values()))
        await self._store.close()


class CrashScenario(Scenario):
    """Run meetings during which the server is killed."""

    program = "listener_program.py"

    async def run(self, meeting: CrashMeeting) -> CrashResult:
        """Start the server, send the meetings, kill and restart the server halfway; return what was observed."""
        *quick, last = meeting.before_kill
        try:
            server = await self._start()
            show_event("A server is up, on an empty store")
            await self._store.open_readonly()
            await self._deliver(*quick)
            await self._until(self._decided)
            await self._deliver(last)
            await server.kill()
            show_event("kill -9, after the 200 and before the decision: the predicate was waiting for a calendar")
            records_at_death, heard_at_death = await self._records(Query()), self._heard()
            (self._folder / "calendar.txt").write_text("/standup\n", encoding="utf-8")
            server = await self._start()
            show_event("A server is up again, on the same store")
            await self._until(self._decided)
            await self._deliver(*meeting.after_restart)
            await self._until(self._decided)
            await server.stop()
            records = await self._records(Query())
            refused = await self._store.refusals(0, time.time())
            refusals = [counted.reason for counted in refused for _ in range(counted.count)]
            await self._show_rooms(records)
        finally:
            await self._close()
        return CrashResult(self._sent, refusals, records, self._heard(), records_at_death, heard_at_death)

    def _heard(self) -> list[Heard]:
        return [msgspec.json.decode(line, type=Heard) for line in self._noted()]


class ReplicaScenario(Scenario):
    """Run meetings on replicas of which one is killed and one drained."""

    program = "assistant_program.py"

    async def run(self, meetings: ReplicaMeetings) -> ReplicaResult:
        """Start two replicas, let people join, kill one and drain the other; return what was observed."""
        try:
            await asyncio.gather(self._start(1), self._start(2))
            show_event("Two replicas are up on one store, each ready to run assistants")
            await self._store.open_readonly()
            result = await self._play(meetings)
            await self._show_rooms(result.records)
            return result
        finally:
            await self._close()

    async def _play(self, meetings: ReplicaMeetings) -> ReplicaResult:
        rooms = {step.webhook.data.room_name for step in meetings.steps}
        await self._deliver(*meetings.joins, meetings.at_once)
        await self._until(self._decided)
        await self._until_in(rooms, {1, 2})
        await self._meanwhile()
        before = self._runs()
        killed = before[0].replica if before else 1
        drained, new_owner = 3 - killed, 3
        killed_at = await self._kill(killed, [run.room for run in before if run.replica == killed])
        await self._until_in(rooms, {drained})
        self._show_since(killed_at)
        await self._start(new_owner)
        stopped_at = time.time()
        show_event(f"Replica {new_owner} is up, and SIGTERM tells replica {drained} to stop")
        exit_code = await self._servers[drained].stop()
        await self._until_in(rooms, {new_owner})
        self._show_since(stopped_at)
        await self._deliver(*meetings.ends)
        await self._until(self._over)
        await self._servers[new_owner].stop()
        return ReplicaResult(
            sent=self._sent,
            records=await self._records(Query(ids=tuple(step.webhook.id for step in meetings.steps))),
            runs_before=before,
            runs=self._runs(),
            killed=killed,
            killed_at=killed_at,
            drained=drained,
            exit_code=exit_code,
            new_owner=new_owner,
            rooms=await self._store.rooms(),
            takeover_within=self._demo_store.takeover_within,
        )

    async def _meanwhile(self) -> None:
        """Do what a longer scenario adds while both replicas run."""

    async def _kill(self, replica: int, rooms: Iterable[str]) -> float:
        killed_at = time.time()
        await self._servers[replica].kill()
        lease = f"; its lease of {LEASE:g} s has to expire" if self._demo_store.is_shared else ""
        show_event(f"kill -9 of replica {replica}, which had an assistant in {' and '.join(rooms)}{lease}")
        return killed_at

    async def _until_in(self, rooms: set[str], replicas: set[int]) -> None:
        async def running() -> bool:
            return rooms <= {run.room for run in self._runs() if run.ended == inf and run.replica in replicas}

        await self._until(running)

    async def _over(self) -> bool:
        return all(room.state is RoomState.ENDED for room in await self._store.rooms())

    def _show_since(self, moment: float) -> None:
        for run in self._runs():
            if run.started > moment:
                show_start(run, run.started - moment)

    def _runs(self) -> list[AssistantRun]:
        """Read the runs that the assistants noted, in the order of their start; each is noted again at its end."""
        replicas = {server.pid: number for number, server in self._servers.items()}
        noted = [msgspec.json.decode(line, type=AssistantRun) for line in self._noted()]
        runs = {(run.room, run.attempt): structs.replace(run, replica=replicas.get(run.pid, 0)) for run in noted}
        return list(runs.values())


async def play_crash(store: DemoStore) -> int:
    """Run the first scenario in a new folder, and print it; return the exit code."""
    with TemporaryDirectory(prefix="whereby-trigger-demo-") as folder:
        began, meeting = time.monotonic(), CrashMeeting(datetime.now(UTC))
        result = await CrashScenario(Path(folder), store).run(meeting)
        return conclude(check_crash(meeting, result), time.monotonic() - began)


async def play_replicas(store: DemoStore) -> int:
    """Run the second scenario in a new folder, and print it; return the exit code."""
    with TemporaryDirectory(prefix="whereby-trigger-demo-") as folder:
        began, meetings = time.monotonic(), ReplicaMeetings(datetime.now(UTC))
        result = await ReplicaScenario(Path(folder), store).run(meetings)
        return conclude(check_replicas(meetings, result), time.monotonic() - began)
