"""Run the demo on a new PostgreSQL, which its replicas share and which is killed in mid-meeting.

The server is the tests': a real one, from the wheel that requirements/test.txt names, in a temporary folder.
"""

import sys
from collections.abc import Sequence
from datetime import UTC, datetime

from tests.support.postgres import Server, database_of
from whereby_trigger.cli.demo import run
from whereby_trigger.cli.demo.meetings import CrashMeeting, ReplicaMeetings

SYNC = "syncfs" if sys.platform == "linux" else "fsync"
"""Killed, a server syncs all its files before it recovers: one by one that takes seconds on a busy disk."""

ROWS = """
SELECT type, state, count(*), sum(deliveries) FROM whereby_trigger.webhooks GROUP BY type, state ORDER BY type, state
"""
LEFT = """
SELECT (SELECT count(*) FROM whereby_trigger.webhooks), (SELECT count(*) FROM whereby_trigger.replicas),
    (SELECT count(*) FROM whereby_trigger.rooms WHERE state <> 'ended')
"""


def main() -> int:
    with server_of_the_demo() as server:
        url = server.create_database()
        version = server.run("SHOW server_version")
        print(f"PostgreSQL {version} is up, on port {server.port}, with an empty database\n", flush=True)
        code = run(url, server)
        lines, complaints = rows(server, url)
        print("\nWhat PostgreSQL itself says is in whereby_trigger.webhooks", *lines, *complaints, sep="\n")
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
    return len(CrashMeeting(now).expected()) + len(ReplicaMeetings(now).steps(outage=True))


if __name__ == "__main__":
    sys.exit(main())
