"""Run the demo on a new PostgreSQL, which its replicas share and which is killed in mid-meeting.

The server is the tests': a real one, from the wheel that requirements/test.txt names, in a temporary folder.
"""

import asyncio
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from tests.support.postgres import Server, database_of
from whereby_trigger.cli.demo import Checks, Happening, empty_store_at, run_scenario, show_event
from whereby_trigger.cli.demo.crash import CrashScenario
from whereby_trigger.cli.demo.replicas import ReplicaScenario
from whereby_trigger.errors import StoreUnavailable

DEAD_FOR = 0.3
"""Seconds that the database stays dead, and nothing can be answered."""

SYNC = "syncfs" if sys.platform == "linux" else "fsync"
"""A killed server syncs all its files before it recovers: one by one takes seconds on a busy disk."""

ROWS = """
SELECT type, state, count(*), sum(deliveries) FROM whereby_trigger.webhooks GROUP BY type, state ORDER BY type, state
"""
LEFT = """
SELECT (SELECT count(*) FROM whereby_trigger.webhooks), (SELECT count(*) FROM whereby_trigger.replicas),
    (SELECT count(*) FROM whereby_trigger.rooms WHERE state <> 'ended')
"""


class ClusterScenario(ReplicaScenario):
    """Hold the meetings of the replicas, whose database is killed with the assistants in their rooms.

    `runs_at_death` are the runs at that time; its restart began at `up_at`, and the delivery sent in between was
    answered at `answered_at`, in seconds since 1970.
    """

    def __init__(self, folder: Path, store: str | None, *, database: Server) -> None:
        super().__init__(folder, store)
        self._database = database
        self.during_outage = Happening("a latecomer enters /review", self.review.join(at=30), "to replica 1")

    async def _meanwhile(self) -> None:
        self.runs_at_death = self._runs()
        await asyncio.to_thread(self._database.kill)
        show_event("kill -9 of the database, all its processes, with the assistants in their rooms")
        waiting = asyncio.create_task(self._answered())
        await asyncio.wait({waiting}, timeout=DEAD_FOR)
        self.up_at = time.time()
        await asyncio.to_thread(self._database.start)
        self.answered_at = await waiting
        show_event("The database is up again, and has recovered what was committed")
        await self._until(self._decided)

    async def _answered(self) -> float:
        self.joins.append(self.during_outage)
        await self._deliver(self.during_outage)
        return time.time()

    async def _decided(self) -> bool:
        try:
            return await super()._decided()
        except StoreUnavailable:
            # A database that was just killed does not answer.
            return False

    def checks(self) -> Checks:
        return {
            **super().checks(),
            "Every assistant stayed in its room while the database was dead and restarted": (
                self.runs_at_death,
                self.runs_before,
            ),
            "The delivery sent during the outage waited, and was answered once the database was back": (
                "after its restart",
                "after its restart" if self.answered_at >= self.up_at else "before its restart",
            ),
        }


async def play(url: str, server: Server) -> int:
    """Run both scenarios on one database; return the exit code."""
    store = await empty_store_at(url)
    code = await run_scenario(CrashScenario, store)
    return max(code, await run_scenario(partial(ClusterScenario, database=server), store))


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
    crash, replicas = CrashScenario(Path()), ReplicaScenario(Path())
    during_outage = 1
    return len(crash.stored) + len(replicas.joins) + during_outage + len(replicas.ends)


if __name__ == "__main__":
    sys.exit(main())
