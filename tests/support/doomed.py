"""A trigger whose process some webhooks end: `python -m tests.support.doomed URL FILE`.

A webhook's display name decides: it ends the process in its predicate (`poison`) or in its listener before its third
attempt (`sly`), or is never answered (`slow`), which prints a line `asked id`. Predicates for joins are async, for
leaves sync. Every success is written to FILE as a line `id attempt` before anything ends.
"""

import asyncio
import os
import signal
import sys
import threading
from pathlib import Path

from tests.support.process import Process
from tests.support.whereby import SECRET
from whereby_trigger import RoomClientJoined, RoomClientLeft, Trigger, TriggerSuccess

ROOT = Path(__file__).parents[2]


class Doomed(Process):
    """Run the program on the store of a folder until it ends."""

    def __init__(self, folder: Path) -> None:
        url = f"sqlite:///{folder}/stage.db"
        super().__init__([sys.executable, "-m", "tests.support.doomed", url, str(folder / "successes")], cwd=ROOT)


def successes(folder: Path) -> list[tuple[str, int]]:
    """Return the ids that listeners were called for, with the attempts, in order."""
    told = folder / "successes"
    lines = told.read_text().splitlines() if told.exists() else []
    return [(id, int(attempt)) for id, attempt in (line.split() for line in lines)]


def trigger_of_doom(url: str, told: Path) -> Trigger:
    trigger = Trigger(store=url, port=0, host="127.0.0.1", secret=SECRET)

    @trigger.when("room.client.joined")
    async def joined(webhook: RoomClientJoined) -> bool:
        if is_slow(webhook):
            await asyncio.Event().wait()
        return survived(webhook)

    @trigger.when("room.client.left")
    def left(webhook: RoomClientLeft) -> bool:
        if is_slow(webhook):
            threading.Event().wait()
        return survived(webhook)

    @trigger.on("trigger_event_success")
    def tell(success: TriggerSuccess) -> None:
        webhook = success.trigger_webhook
        assert isinstance(webhook, RoomClientJoined | RoomClientLeft)
        with told.open("a") as file:
            file.write(f"{webhook.id} {success.attempt}\n")
        if webhook.data.display_name == "sly" and success.attempt < 3:
            os.kill(os.getpid(), signal.SIGKILL)

    return trigger


def is_slow(webhook: RoomClientJoined | RoomClientLeft) -> bool:
    slow = webhook.data.display_name == "slow"
    if slow:
        print(f"asked {webhook.id}", flush=True)
    return slow


def survived(webhook: RoomClientJoined | RoomClientLeft) -> bool:
    if webhook.data.display_name == "poison":
        os.kill(os.getpid(), signal.SIGKILL)
    return True


if __name__ == "__main__":
    trigger_of_doom(sys.argv[1], Path(sys.argv[2])).start()
