"""The two scenarios of the demo: one server that crashes, then replicas of which one is killed and one drained."""

import asyncio
import contextlib
import secrets
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

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
from whereby_trigger.cli.demo.meetings import STANDUP, CrashMeeting, MeetingStep, ReplicaMeetings, ReplicaStep
from whereby_trigger.cli.demo.report import Report
from whereby_trigger.cli.demo.server import LEASE, DemoServer, DemoStore, KillableDatabase, post
from whereby_trigger.errors import StoreUnavailable
from whereby_trigger.store import Query, Record, RoomState, State
from whereby_trigger.store.factory import store_for

LOOK = 0.02
HAPPENS_WITHIN = 10.0
DEAD_FOR = 0.3
"""Seconds that the database stays dead, and nothing can be answered."""
REPLICAS = 3


async def run_scenarios(store: DemoStore, report: Report | None = None) -> int:
    """Run both scenarios of the demo; return 0 if all checks passed, else 1."""
    report = report or Report()
    return max(await _run_crash(store, report), await _run_replicas(store, report))


async def _run_crash(store: DemoStore, report: Report) -> int:
    began = time.monotonic()
    meeting = CrashMeeting(datetime.now(UTC))
    with tempfile.TemporaryDirectory(prefix="whereby-trigger-demo-") as folder:
        result = await CrashScenario(Path(folder), report, store).run(meeting)
    return conclude_crash(report, meeting, result, time.monotonic() - began)


async def _run_replicas(store: DemoStore, report: Report) -> int:
    began = time.monotonic()
    meetings = ReplicaMeetings(datetime.now(UTC))
    with tempfile.TemporaryDirectory(prefix="whereby-trigger-demo-") as folder:
        result = await ReplicaScenario(Path(folder), report, store).run(meetings)
    return conclude_replicas(report, meetings, result, time.monotonic() - began)


def conclude_crash(report: Report, meeting: CrashMeeting, result: CrashResult, seconds: float) -> int:
    """Print the result and its checks; return the exit code."""
    checks = check_crash(meeting, result)
    report.decisions(result)
    report.checks(checks, meeting.names(), seconds)
    return _exit_code(checks)


def conclude_replicas(report: Report, meetings: ReplicaMeetings, result: ReplicaResult, seconds: float) -> int:
    """Print the result and its checks; return the exit code."""
    checks = check_replicas(meetings, result)
    report.runs(result)
    report.checks(checks, [], seconds)
    return _exit_code(checks)


def _exit_code(checks: Sequence[Check]) -> int:
    return 0 if all(check.passed for check in checks) else 1


class CrashScenario:
    """Run a meeting during which the server is killed; its folder holds the store and what the listeners write."""

    def __init__(self, folder: Path, report: Report, store: DemoStore) -> None:
        self._folder = folder
        self._report = report
        self._secret = secrets.token_hex(16)
        self._server = DemoServer(folder, self._secret, "listener_program.py", store)
        self._store = store_for(self._server.store)
        self._sent: list[Sent] = []
        self._changed = asyncio.Event()

    async def run(self, meeting: CrashMeeting) -> CrashResult:
        """Start the server, send the meeting, kill and restart the server halfway; return what was observed."""
        (self._folder / "calendar.txt").write_text(f"{STANDUP}\n", encoding="utf-8")
        try:
            await self._server.start()
            self._report.event(f"A server is up: port {self._server.port}, process {self._server.pid}, an empty store")
            await self._store.open(self._changed.set)
            return await self._send(meeting)
        finally:
            await self._server.kill()
            await self._store.close()

    async def _send(self, meeting: CrashMeeting) -> CrashResult:
        *quick, last = meeting.before_kill()
        await self._deliver(quick)
        await self._until_decided()
        busy = self._folder / "calendar.busy"
        busy.touch()
        await self._deliver([last])
        await self._server.kill()
        self._report.event("kill -9, after the 200 and before the decision: the predicate was waiting for a calendar")
        records_at_death, heard_at_death = await self._records(), self._heard()
        busy.unlink()
        await self._server.start()
        self._report.event(
            f"A server is up again: port {self._server.port}, process {self._server.pid}, the same store"
        )
        await self._until_decided()
        await self._deliver(meeting.after_restart())
        records = await self._until_decided()
        await self._server.stop()
        refusals = self._server.refusals
        return CrashResult(self._sent, refusals, records, self._heard(), records_at_death, heard_at_death)

    async def _deliver(self, steps: Sequence[MeetingStep]) -> None:
        for step in steps:
            secret = "not the secret" if step.forged else self._secret
            self._sent.append(await _post_step(step, self._server, secret, self._report))

    async def _until_decided(self) -> list[Record]:
        """Wait until no webhook is pending, for a bounded time, and read the store."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HAPPENS_WITHIN):
                while await self._store.find(Query(state=State.PENDING, limit=1)):
                    self._changed.clear()
                    await self._changed.wait()
        return await self._records()

    async def _records(self) -> list[Record]:
        return list(reversed(await self._store.find(Query())))

    def _heard(self) -> list[Notified]:
        notebook = self._folder / "notebook.txt"
        lines = notebook.read_text(encoding="utf-8").splitlines() if notebook.exists() else []
        return [Notified(id, int(attempt)) for _, id, attempt in map(str.split, lines)]


class ReplicaScenario:
    """Run meetings on replicas of which one is killed and one drained; their shared files are in the folder."""

    def __init__(self, folder: Path, report: Report, store: DemoStore) -> None:
        self._notebook = folder / "notebook.txt"
        self._demo_store = store
        self._report = report
        self._secret = secrets.token_hex(16)
        self._servers = [DemoServer(folder, self._secret, "assistant_program.py", store) for _ in range(REPLICAS)]
        self._pids: dict[int, int] = {}
        self._store = store_for(self._servers[0].store)
        self._sent: list[Sent] = []

    async def run(self, meetings: ReplicaMeetings) -> ReplicaResult:
        """Start two replicas, let people join, kill one and drain the other; return what was observed."""
        try:
            await asyncio.gather(self._start(1), self._start(2))
            self._report.event("\nTwo replicas are up on one store, each ready to run assistants")
            await self._store.open_readonly()
            return await self._send(meetings)
        finally:
            await asyncio.gather(*(server.kill() for server in self._servers))
            await self._store.close()

    async def _send(self, meetings: ReplicaMeetings) -> ReplicaResult:
        database = self._demo_store.database
        rooms = meetings.joins_by_room(outage=database is not None)
        await self._deliver([*meetings.joins, meetings.at_once])
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
        await self._servers[drained - 1].stop()
        await self._until_in(rooms, {new_owner})
        self._report_since(stopped_at)
        await self._deliver(meetings.ends)
        await self._until(self._over)
        await self._servers[new_owner - 1].stop()
        sent = tuple(one.step.webhook.id for one in meetings.steps(outage=outage is not None))
        return ReplicaResult(
            sent=self._sent,
            records=list(reversed(await self._store.find(Query(ids=sent)))),
            runs_before=before,
            runs=self._runs(),
            killed=killed,
            killed_at=killed_at,
            drained=drained,
            exit_code=self._servers[drained - 1].exit_code,
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

    async def _start(self, replica: int) -> None:
        await self._servers[replica - 1].start()
        self._pids[self._servers[replica - 1].pid] = replica

    async def _kill(self, replica: int, rooms: Iterable[str]) -> float:
        killed_at = time.time()
        await self._servers[replica - 1].kill()
        lease = f"; its lease of {LEASE:g} s has to expire" if self._demo_store.is_shared else ""
        self._report.event(f"kill -9 of replica {replica}, which had an assistant in {' and '.join(rooms)}{lease}")
        return killed_at

    async def _deliver(self, steps: Sequence[ReplicaStep]) -> None:
        for one in steps:
            await asyncio.gather(*(self._post(one.step, self._servers[number - 1]) for number in one.replicas))

    async def _answer_to(self, step: ReplicaStep) -> float:
        await self._deliver([step])
        return time.time()

    async def _post(self, step: MeetingStep, server: DemoServer) -> None:
        self._sent.append(await _post_step(step, server, self._secret, self._report))

    async def _until(self, happened: Callable[[], Awaitable[bool]]) -> None:
        """Wait until something has happened, for a bounded time: the checks find what has not."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HAPPENS_WITHIN):
                while not await self._seen(happened):  # noqa: ASYNC110 - it happens in other processes
                    await asyncio.sleep(LOOK)

    async def _seen(self, happened: Callable[[], Awaitable[bool]]) -> bool:
        """Return whether it has happened; False while a database that was just killed does not answer."""
        try:
            return await happened()
        except StoreUnavailable:
            return False

    async def _until_in(self, rooms: Iterable[str], replicas: set[int]) -> None:
        async def running() -> bool:
            present = {run.room for run in self._runs() if run.ended is None and run.replica in replicas}
            return present.issuperset(rooms)

        await self._until(running)

    async def _decided(self) -> bool:
        return not await self._store.find(Query(state=State.PENDING, limit=1))

    async def _over(self) -> bool:
        return all(room.state is RoomState.ENDED for room in await self._store.rooms())

    def _report_since(self, moment: float) -> None:
        for run in self._runs():
            if run.started > moment:
                self._report.started(run, run.started - moment)

    def _runs(self) -> list[AssistantRun]:
        """Read the runs that the assistants noted, in the order of their start."""
        lines = self._notebook.read_text(encoding="utf-8").splitlines() if self._notebook.exists() else []
        runs: dict[tuple[str, str], AssistantRun] = {}
        for what, pid, room, attempt, at, reason in (line.split(" ", 5) for line in lines):
            replica = self._pids.get(int(pid), 0)
            if what == "started":
                runs[room, attempt] = AssistantRun(room, replica, int(attempt), float(at))
            else:
                started = runs[room, attempt].started
                runs[room, attempt] = AssistantRun(room, replica, int(attempt), started, float(at), reason)
        return list(runs.values())


async def _post_step(step: MeetingStep, server: DemoServer, secret: str, report: Report) -> Sent:
    began = time.perf_counter()
    sent = Sent(step, await post(server.port, step.webhook.raw, secret))
    report.sent(sent, (time.perf_counter() - began) * 1000)
    return sent
