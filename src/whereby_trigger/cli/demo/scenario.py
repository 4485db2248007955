"""The two scenarios of the demo: one server that crashes, then replicas of which one is killed and one drained."""

import asyncio
import secrets
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from msgspec import structs

from whereby_trigger.cli.demo.checks import (
    AssistantRun,
    Check,
    CrashResult,
    Notified,
    Outage,
    ReplicaResult,
    Sent,
    check_crash,
    check_replicas,
)
from whereby_trigger.cli.demo.meetings import STANDUP, CrashMeeting, MeetingStep, ReplicaMeetings
from whereby_trigger.cli.demo.report import Report
from whereby_trigger.cli.demo.server import LEASE, DemoServer, DemoStore, KillableDatabase
from whereby_trigger.errors import StoreUnavailable
from whereby_trigger.store import Query, Record, RoomState, State
from whereby_trigger.store.factory import store_for
from whereby_trigger.testing.program import until

HAPPENS_WITHIN = 10.0
DEAD_FOR = 0.3
"""Seconds that the database stays dead, and nothing can be answered."""


async def run_scenarios(store: DemoStore, report: Report | None = None) -> int:
    """Run both scenarios of the demo; return 0 if all checks passed, else 1."""
    report = report or Report()
    with tempfile.TemporaryDirectory(prefix="whereby-trigger-demo-") as folder:
        began, meeting = time.monotonic(), CrashMeeting(datetime.now(UTC))
        crash = await CrashScenario(Path(folder), report, store).run(meeting)
        code = conclude_crash(report, meeting, crash, time.monotonic() - began)
    with tempfile.TemporaryDirectory(prefix="whereby-trigger-demo-") as folder:
        began, meetings = time.monotonic(), ReplicaMeetings(datetime.now(UTC))
        replicas = await ReplicaScenario(Path(folder), report, store).run(meetings)
        code = max(code, conclude_replicas(report, meetings, replicas, time.monotonic() - began))
    if code == 0:
        report.next_command()
    return code


def conclude_crash(report: Report, meeting: CrashMeeting, result: CrashResult, seconds: float) -> int:
    """Print the result and its checks; return the exit code."""
    report.decisions(result)
    return _concluded(report, check_crash(meeting, result), meeting.names(), seconds)


def conclude_replicas(report: Report, meetings: ReplicaMeetings, result: ReplicaResult, seconds: float) -> int:
    """Print the result and its checks; return the exit code."""
    report.runs(result)
    return _concluded(report, check_replicas(meetings, result), [], seconds)


def _concluded(report: Report, checks: Sequence[Check], names: Sequence[tuple[str, str]], seconds: float) -> int:
    report.checks(checks, names, seconds)
    return 0 if all(check.passed for check in checks) else 1


class _Scenario:
    """Hold the servers of a scenario, what was sent to them, their store, and the notebook that their program writes.

    All files are in the folder.
    """

    program: str

    def __init__(self, folder: Path, report: Report, store: DemoStore) -> None:
        self._secret = secrets.token_hex(16)
        self._folder = folder
        self._report = report
        self._demo_store = store
        self._servers: dict[int, DemoServer] = {}
        self._store = store_for(store.url_in(folder))
        self._sent: list[Sent] = []

    async def _start(self, replica: int = 1) -> DemoServer:
        """Start a server as the replica with a number, which counts from 1."""
        server = await DemoServer.launch(self.program, self._folder, self._secret, self._demo_store)
        self._servers[replica] = server
        return server

    async def _deliver(self, *steps: MeetingStep) -> None:
        for step in steps:
            await asyncio.gather(*(self._post(step, self._servers[replica]) for replica in step.replicas))

    async def _post(self, step: MeetingStep, server: DemoServer) -> None:
        response = await server.deliver(step.webhook.raw, forged=step.forged)
        self._sent.append(Sent(step, response.status))
        self._report.sent(self._sent[-1], response.seconds * 1000)

    async def _until(self, happened: Callable[[], Awaitable[bool]]) -> None:
        """Wait until something has happened, for a bounded time: the checks find what has not."""

        async def seen() -> bool:
            try:
                return await happened()
            except StoreUnavailable:
                # A database that was just killed does not answer.
                return False

        await until(seen, HAPPENS_WITHIN)

    async def _decided(self) -> bool:
        return not await self._store.find(Query(state=State.PENDING, limit=1))

    async def _records(self, ids: Sequence[str] | None = None) -> list[Record]:
        return (await self._store.find(Query() if ids is None else Query(ids=tuple(ids))))[::-1]

    def _noted(self) -> list[list[str]]:
        notebook = self._folder / "notebook.txt"
        lines = notebook.read_text(encoding="utf-8").splitlines() if notebook.exists() else []
        return [line.split(" ", 5) for line in lines]

    async def _close(self) -> None:
        await asyncio.gather(*(server.kill() for server in self._servers.values()))
        await self._store.close()


class CrashScenario(_Scenario):
    """Run a meeting during which the server is killed."""

    program = "listener_program.py"

    async def run(self, meeting: CrashMeeting) -> CrashResult:
        """Start the server, send the meeting, kill and restart the server halfway; return what was observed."""
        (self._folder / "calendar.txt").write_text(f"{STANDUP}\n", encoding="utf-8")
        busy = self._folder / "calendar.busy"
        *quick, last = meeting.before_kill()
        try:
            first = await self._start()
            self._report.event(f"A server is up: port {first.port}, process {first.pid}, an empty store")
            await self._store.open_readonly()
            await self._deliver(*quick)
            await self._until(self._decided)
            busy.touch()
            await self._deliver(last)
            await first.kill()
            self._report.event(
                "kill -9, after the 200 and before the decision: the predicate was waiting for a calendar"
            )
            records_at_death, heard_at_death = await self._records(), self._heard()
            busy.unlink()
            second = await self._start()
            self._report.event(f"A server is up again: port {second.port}, process {second.pid}, the same store")
            await self._until(self._decided)
            await self._deliver(*meeting.after_restart())
            await self._until(self._decided)
            records = await self._records()
            await second.stop()
        finally:
            await self._close()
        refusals = first.refusals + second.refusals
        return CrashResult(self._sent, refusals, records, self._heard(), records_at_death, heard_at_death)

    def _heard(self) -> list[Notified]:
        return [Notified(id, int(attempt)) for _, id, attempt in self._noted()]


class ReplicaScenario(_Scenario):
    """Run meetings on replicas of which one is killed and one drained."""

    program = "assistant_program.py"

    async def run(self, meetings: ReplicaMeetings) -> ReplicaResult:
        """Start two replicas, let people join, kill one and drain the other; return what was observed."""
        try:
            await asyncio.gather(self._start(1), self._start(2))
            self._report.event("\nTwo replicas are up on one store, each ready to run assistants")
            await self._store.open_readonly()
            return await self._send(meetings)
        finally:
            await self._close()

    async def _send(self, meetings: ReplicaMeetings) -> ReplicaResult:
        database = self._demo_store.database
        rooms = meetings.joins_by_room(outage=database is not None)
        await self._deliver(*meetings.joins, meetings.at_once)
        await self._until(self._decided)
        await self._until_in(rooms, {1, 2})
        outage = None if database is None else await self._outlive(database, meetings)
        before = self._runs()
        killed = before[0].replica if before else 1
        drained, new_owner = 3 - killed, 3
        killed_at = await self._kill(killed, [run.room for run in before if run.replica == killed])
        await self._until_in(rooms, {drained})
        self._report_since(killed_at)
        await self._start(new_owner)
        stopped_at = time.time()
        self._report.event(f"Replica {new_owner} is up, and SIGTERM tells replica {drained} to stop")
        exit_code = await self._servers[drained].stop()
        await self._until_in(rooms, {new_owner})
        self._report_since(stopped_at)
        await self._deliver(*meetings.ends)
        await self._until(self._over)
        await self._servers[new_owner].stop()
        return ReplicaResult(
            sent=self._sent,
            records=await self._records([step.webhook.id for step in meetings.steps(outage=outage is not None)]),
            runs_before=before,
            runs=self._runs(),
            killed=killed,
            killed_at=killed_at,
            drained=drained,
            exit_code=exit_code,
            new_owner=new_owner,
            rooms=await self._store.rooms(),
            takeover_within=self._demo_store.takeover_within,
            outage=outage,
        )

    async def _outlive(self, database: KillableDatabase, meetings: ReplicaMeetings) -> Outage:
        """Kill the database, deliver while it is dead, and start it again."""
        runs = self._runs()
        await asyncio.to_thread(database.kill)
        self._report.event("kill -9 of the database, all its processes, with the assistants in their rooms")
        waiting = asyncio.create_task(self._answer_to(meetings.during_outage))
        await asyncio.wait({waiting}, timeout=DEAD_FOR)
        up_at = time.time()
        await asyncio.to_thread(database.start)
        answered_at = await waiting
        self._report.event("The database is up again, and has recovered what was committed")
        await self._until(self._decided)
        return Outage(runs, up_at, answered_at)

    async def _answer_to(self, step: MeetingStep) -> float:
        await self._deliver(step)
        return time.time()

    async def _kill(self, replica: int, rooms: Iterable[str]) -> float:
        killed_at = time.time()
        await self._servers[replica].kill()
        lease = f"; its lease of {LEASE:g} s has to expire" if self._demo_store.is_shared else ""
        self._report.event(f"kill -9 of replica {replica}, which had an assistant in {' and '.join(rooms)}{lease}")
        return killed_at

    async def _until_in(self, rooms: Iterable[str], replicas: set[int]) -> None:
        async def running() -> bool:
            present = {run.room for run in self._runs() if run.ended is None and run.replica in replicas}
            return present.issuperset(rooms)

        await self._until(running)

    async def _over(self) -> bool:
        return all(room.state is RoomState.ENDED for room in await self._store.rooms())

    def _report_since(self, moment: float) -> None:
        for run in self._runs():
            if run.started > moment:
                self._report.started(run, run.started - moment)

    def _runs(self) -> list[AssistantRun]:
        """Read the runs that the assistants noted, in the order of their start."""
        replicas = {server.pid: number for number, server in self._servers.items()}
        runs: dict[tuple[str, str], AssistantRun] = {}
        for what, pid, room, attempt, at, reason in self._noted():
            if what == "started":
                runs[room, attempt] = AssistantRun(room, replicas.get(int(pid), 0), int(attempt), float(at))
            else:
                runs[room, attempt] = structs.replace(runs[room, attempt], ended=float(at), reason=reason)
        return list(runs.values())
