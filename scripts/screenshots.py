"""Make the screenshots of docs/inspector.md: a scripted meeting in a new store, in light and in dark.

It needs playwright and Debian's chromium.
"""

import asyncio
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from playwright.async_api import async_playwright

from whereby_trigger import Trigger
from whereby_trigger.receive import bind
from whereby_trigger.receive.server import Server
from whereby_trigger.store import (
    Arrival,
    Count,
    Decision,
    RoomMove,
    RoomRequest,
    RoomState,
    RunOutcome,
    RunReport,
    State,
)
from whereby_trigger.store.sqlite import SqliteStore

IMAGES = Path(__file__).parent.parent / "docs" / "images"
HOST = "acme.whereby.com"
VISIT = f"{HOST}/visit-1042"
TWO_PEOPLE = "predicate two_people returned"


class Meeting:
    """Write what a trigger would have written, at chosen times."""

    def __init__(self, url: str) -> None:
        self.now = time.time() - 1500
        self.store = SqliteStore(url, wall=lambda: self.now)
        self._count = 0

    async def webhook(self, room: str, type: str, state: State, reason: str, counts: tuple[int, int] | None) -> str:
        """Store and decide a webhook; `counts` are the humans and the bots after it."""
        self._count += 1
        id = f"{self._count:04d}f3a9c2d1"
        data: dict[str, Any] = {
            "roomName": "/" + room.partition("/")[2],
            "subdomain": "acme",
            "displayName": "Ada",
            "roleName": "visitor",
        }
        if counts is not None:
            data |= {"numClients": sum(counts), "numClientsByRoleName": {"visitor": counts[0], "assistant": counts[1]}}
        body = json.dumps({"id": id, "type": type, "apiVersion": "1.0", "data": data}).encode()
        count = None if counts is None else Count(room, *counts, self.now, None)
        added = await self.store.add(Arrival(id, type, room, body, self.now, count=count))
        if state is not State.PENDING:
            await self.store.decide(Decision(added.seq, id, state, reason, 1, self.now + 0.02))
        return id

    async def start(self, room: str, webhook: str) -> int:
        """Start an assistant; return its entry's id."""
        await self.store.request(RoomRequest(room, f"https://{room}", webhook, None, self.now))
        return await self.restart()

    async def restart(self) -> int:
        """Start the assistant that waits."""
        (taken,) = await self.store.take(1)
        self.now += 2
        await self.store.move(RoomMove(taken.id, RoomState.LIVE, "", pid=1))
        return taken.id


async def play(meeting: Meeting) -> None:
    """Play a meeting whose assistant fails once, and the beginning of some others."""
    joined, left = "room.client.joined", "room.client.left"
    no, yes = f"{TWO_PEOPLE} False", f"{TWO_PEOPLE} True; the room waits for an assistant"
    await meeting.webhook(VISIT, joined, State.SKIPPED, no, (1, 0))
    meeting.now += 70
    fired = await meeting.webhook(VISIT, joined, State.FIRED, yes, (2, 0))
    await meeting.webhook(VISIT, "room.session.started", State.UNHANDLED, "no predicate and no listener", None)
    entry = await meeting.start(VISIT, fired)
    meeting.now += 3
    await meeting.webhook(VISIT, joined, State.SKIPPED, f"{no} (a bot's own event: is_human)", (2, 1))
    meeting.now += 240
    failed = RunReport(RunOutcome.FAILED, exception="ConnectionError", output="ConnectionError: the stream was lost")
    await meeting.store.move(RoomMove(entry, RoomState.WAITING, "raised ConnectionError", restarts=1, run=failed))
    meeting.now += 4
    await meeting.restart()
    meeting.now += 160
    await meeting.webhook(VISIT, joined, State.FIRED, f"{TWO_PEOPLE} True; the room has an assistant already", (3, 1))
    meeting.now += 420
    await meeting.webhook(VISIT, left, State.UNHANDLED, "no predicate and no listener", (2, 1))
    meeting.now += 90
    await meeting.webhook(VISIT, left, State.UNHANDLED, "no predicate and no listener", (1, 1))
    meeting.now += 60
    over = RunReport(RunOutcome.SESSION_OVER)
    await meeting.store.move(RoomMove(entry, RoomState.ENDING, "its session ended"))
    await meeting.store.move(RoomMove(entry, RoomState.ENDED, "its session ended", run=over))
    await meeting.webhook(VISIT, "room.session.ended", State.UNHANDLED, "it ended the room's assistant", None)
    for room, humans in (("interview-7", 2), ("standup", 4), ("follow-up-8812", 1)):
        meeting.now += 37
        state, reason = (State.FIRED, yes) if humans > 1 else (State.SKIPPED, no)
        id = await meeting.webhook(f"{HOST}/{room}", joined, state, reason, (humans, 0))
        if humans > 1:
            await meeting.start(f"{HOST}/{room}", id)


async def main() -> None:
    """Write light and dark images of the pages that the docs show."""
    chromium = shutil.which("chromium")
    if chromium is None:
        sys.exit("chromium is missing: apt-get install chromium")
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/whereby-trigger.db"
        meeting = Meeting(url)
        await meeting.store.open(lambda: None)
        await play(meeting)
        trigger = Trigger(store=url)
        server = Server(trigger.inspector, bind("127.0.0.1", 0))
        await server.open()
        try:
            async with async_playwright() as playwright:
                browser = await playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
                for scheme in ("light", "dark"):
                    size = {"width": 1200, "height": 800}
                    context = await browser.new_context(color_scheme=scheme, viewport=size)  # type: ignore[arg-type]
                    page = await context.new_page()
                    for name, path in (("live", ""), ("room", f"room?key={VISIT}")):
                        await page.goto(f"http://127.0.0.1:{server.port}/{path}")
                        # The picture must not depend on the path of this run's store.
                        await page.evaluate("document.querySelector('.path').remove()")
                        await page.screenshot(path=IMAGES / f"inspector-{name}-{scheme}.png")
                await browser.close()
        finally:
            await server.close(0)
            await trigger.inspector.close()
            await meeting.store.close()


if __name__ == "__main__":
    asyncio.run(main())
