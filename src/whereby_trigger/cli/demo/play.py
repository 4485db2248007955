"""The demo's course: start, send, kill, restart, look, check; and then the second act."""

import asyncio
import contextlib
import secrets
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from whereby_trigger.cli.demo import replicas
from whereby_trigger.cli.demo.crowd import Crowd
from whereby_trigger.cli.demo.findings import Found, Notified, Sent, checks
from whereby_trigger.cli.demo.meeting import STANDUP, Meeting, Step
from whereby_trigger.cli.demo.post import post
from whereby_trigger.cli.demo.server import DemoServer
from whereby_trigger.cli.demo.show import Show
from whereby_trigger.cli.demo.venue import Venue
from whereby_trigger.store import Query, Record, State
from whereby_trigger.store.factory import store_for

DECIDED_WITHIN = 10.0


async def play(venue: Venue, show: Show | None = None) -> int:
    """Play both acts of the demo; return 0 if everything came out as it must, else 1."""
    show = show or Show()
    return max(await _play_first(venue, show), await _play_second(venue, show))


async def _play_first(venue: Venue, show: Show) -> int:
    began = time.monotonic()
    meeting = Meeting(datetime.now(UTC))
    with tempfile.TemporaryDirectory(prefix="whereby-trigger-demo-") as folder:
        found = await Stage(Path(folder), show, venue).perform(meeting)
    return conclude(show, meeting, found, time.monotonic() - began)


async def _play_second(venue: Venue, show: Show) -> int:
    began = time.monotonic()
    crowd = Crowd(datetime.now(UTC))
    with tempfile.TemporaryDirectory(prefix="whereby-trigger-demo-") as folder:
        observed = await replicas.Replicas(Path(folder), show, venue).perform(crowd)
    return replicas.conclude(show, crowd, observed, time.monotonic() - began)


def conclude(show: Show, meeting: Meeting, found: Found, seconds: float) -> int:
    """Show what was found and whether it is as it must be; return the exit code."""
    results = checks(meeting, found)
    show.table(found)
    show.checks(results, meeting.names(), seconds)
    return 0 if all(check.passed for check in results) else 1


class Stage:
    """Perform a meeting in a folder: the server, its store and what its listeners write live there."""

    def __init__(self, folder: Path, show: Show, venue: Venue) -> None:
        self._folder = folder
        self._show = show
        self._secret = secrets.token_hex(16)
        self._server = DemoServer(folder, self._secret, "example.py", venue)
        self._store = store_for(self._server.store)
        self._sent: list[Sent] = []
        self._changed = asyncio.Event()

    async def perform(self, meeting: Meeting) -> Found:
        """Start the server, send the meeting, kill and restart in the middle of it; return what was observed."""
        (self._folder / "calendar.txt").write_text(f"{STANDUP}\n", encoding="utf-8")
        try:
            await self._server.start()
            self._show.server(f"A server is up: port {self._server.port}, process {self._server.pid}, an empty store")
            await self._store.open(self._changed.set)
            return await self._act(meeting)
        finally:
            await self._server.kill()
            await self._store.close()

    async def _act(self, meeting: Meeting) -> Found:
        *quick, last = meeting.before_kill()
        await self._deliver(quick)
        await self._until_decided()
        busy = self._folder / "calendar.busy"
        busy.touch()
        await self._deliver([last])
        await self._server.kill()
        self._show.server("kill -9, after the 200 and before the decision: the predicate was waiting for a calendar")
        records_at_death, heard_at_death = await self._records(), self._heard()
        busy.unlink()
        await self._server.start()
        self._show.server(f"A server is up again: port {self._server.port}, process {self._server.pid}, the same store")
        await self._until_decided()
        await self._deliver(meeting.after_restart())
        records = await self._until_decided()
        await self._server.stop()
        refusals = self._server.refusals
        return Found(self._sent, refusals, records, self._heard(), records_at_death, heard_at_death)

    async def _deliver(self, steps: Sequence[Step]) -> None:
        for step in steps:
            secret = "not the secret" if step.forged else self._secret
            began = time.perf_counter()
            answer = await post(self._server.port, step.webhook.raw, secret)
            self._sent.append(Sent(step, answer))
            self._show.sent(self._sent[-1], (time.perf_counter() - began) * 1000)

    async def _until_decided(self) -> list[Record]:
        """Wait until nothing is pending, but not for ever, and read the store."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DECIDED_WITHIN):
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
