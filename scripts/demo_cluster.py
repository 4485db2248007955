"""Run the demo on a new PostgreSQL, which its replicas share and which is killed in mid-meeting.

The server is the tests': a real one, from the wheel that requirements/test.txt names, in a temporary folder.
"""

import asyncio
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from msgspec import Struct

from tests.support.postgres import Server, database_of
from whereby_trigger.cli.demo.checks import AssistantRun, Check, ReplicaResult, check_replicas
from whereby_trigger.cli.demo.meetings import CrashMeeting, MeetingStep, ReplicaMeetings
from whereby_trigger.cli.demo.report import conclude, show_event
from whereby_trigger.cli.demo.scenario import ReplicaScenario, play_crash
from whereby_trigger.cli.demo.store import DemoStore, demo_store_at
from whereby_trigger.errors import StoreUnavailable

DEAD_FOR = 0.3
"""Seconds that the database stays dead, and nothing can be answered."""

SYNC = "syncfs" if sys.platform == "linux" else "fsync"
"""Killed, a server syncs all its files before it recovers: one by one that takes seconds on a busy disk."""

ROWS = """
SELECT type, state, count(*), sum(deliveries) FROM whereby_trigger.webhooks GROUP BY type, state ORDER BY type, state
"""
LEFT = """
SELECT (SELECT count(*) FROM whereby_trigger.webhooks), (SELECT count(*) FROM whereby_trigger.replicas),
    (SELECT count(*) FROM whereby_trigger.rooms WHERE state <> 'ended')
"""


class Outage(Struct, frozen=True):
    """Describe the database's death: the runs at that time, and when the delivery sent during it was answered.

    `up_at` is when the restart of the database began. Both times are seconds since 1970.
    """

    runs: Sequence[AssistantRun]
    up_at: float
    answered_at: float


class ClusterMeetings(ReplicaMeetings):
    """Hold the meetings of the replicas, with one delivery that is sent while the database is dead."""

    def __init__(self, begin: datetime) -> None:
        super().__init__(begin)
        webhook = self.review.join(at=30)
        self.during_outage = MeetingStep("a latecomer enters /review", webhook, "to replica 1", replicas=(1,))

    @property
    def steps(self) -> Sequence[MeetingStep]:
        return [*self.joins, self.at_once, self.during_outage, *self.ends]


class ClusterScenario(ReplicaScenario):
    """Run the meetings of the replicas, and kill their database with the assistants in their rooms."""

    outage: Outage

    def __init__(self, folder: Path, store: DemoStore, database: Server, meetings: ClusterMeetings) -> None:
        super().__init__(folder, store)
        self._database = database
        self._meetings = meetings

    async def _meanwhile(self) -> None:
        runs = self._runs()
        await asyncio.to_thread(self._database.kill)
        show_event("kill -9 of the database, all its processes, with the assistants in their rooms")
        waiting = asyncio.create_task(self._answered())
        await asyncio.wait({waiting}, timeout=DEAD_FOR)
        up_at = time.time()
        await asyncio.to_thread(self._database.start)
        self.outage = Outage(runs, up_at, await waiting)
        show_event("The database is up again, and has recovered what was committed")
        await self._until(self._decided)

    async def _answered(self) -> float:
        await self._deliver(self._meetings.during_outage)
        return time.time()

    async def _decided(self) -> bool:
        try:
            return await super()._decided()
        except StoreUnavailable:
            # A database that was just killed does not answer.
            return False


def check_cluster(meetings: ClusterMeetings, result: ReplicaResult, outage: Outage) -> list[Check]:
    """Compare what was observed of the replicas, and of their database's death, with what must be true."""
    return [
        *check_replicas(meetings, result),
        Check(
            "Every assistant stayed in its room while the database was dead and restarted",
            list(outage.runs),
            list(result.runs_before),
        ),
        Check(
            "The delivery sent during the outage waited, and was answered once the database was back",
            "after its restart",
            "after its restart" if outage.answered_at >= outage.up_at else "before its restart",
        ),
    ]


async def play(url: str, server: Server) -> int:
    """Run both scenarios on one database; return the exit code."""
    store = await demo_store_at(url)
    code = await play_crash(store)
    with TemporaryDirectory(prefix="whereby-trigger-demo-") as folder:
        began, meetings = time.monotonic(), ClusterMeetings(datetime.now(UTC))
        scenario = ClusterScenario(Path(folder), store, server, meetings)
        result = await scenario.run(meetings)
        checks = check_cluster(meetings, result, scenario.outage)
        return max(code, conclude(checks, time.monotonic() - began))


def main() -> int:
    with server_of_the_demo() as server:
        url = server.create_database()
        version = server.run("SHOW server_version")
        print(f"PostgreSQL {version} is up, on port {server.port}, with an empty database\n", flush=True)
        code = asyncio.run(play(url, server))
        lines, complaints = rows(server, url)
        print("What PostgreSQL itself says is in whereby_trigger.webhooks", *lines, *complaints, sep="\n")
        return 1 if complaints else code


def server_of_the_demo() -> Server:
    return Server(recovery_init_sync_method=SYNC)


def rows(server: Server, url: str) -> tuple[Sequence[str], Sequence[str]]:
    """Read by SQL what the demo stored; return it as lines, and complaints about what should not be there."""
    database = database_of(url)
    cells = [("type", "state", "rows", "deliveries"), *(line.split("|") for line in server.run(ROWS, database).split())]
    lines = ["  {:22}{:12}{:>5}{:>12}".format(*row) for row in cells]
    webhooks, replicas, rooms = map(int, server.run(LEFT, database).split("|"))
    complaints = [
        *([f"{webhooks} webhooks are stored, and {delivered()} were delivered"] if webhooks != delivered() else []),
        *([f"{replicas} replicas hold a lease, and none runs"] if replicas else []),
        *([f"{rooms} rooms are not over"] if rooms else []),
    ]
    return lines, complaints


def delivered() -> int:
    """Return how many webhooks both scenarios must have stored."""
    now = datetime.now(UTC)
    return len(CrashMeeting(now).stored) + len(ClusterMeetings(now).steps)


if __name__ == "__main__":
    sys.exit(main())
