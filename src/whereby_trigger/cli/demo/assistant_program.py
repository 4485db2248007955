"""The trigger of the demo's replicas: one assistant in each room, however many replicas run this program."""

import json
import os
import time
from pathlib import Path
from typing import Any

from whereby_trigger import Session, Trigger, is_human

trigger = Trigger(webhook_triggers={"room.client.joined": is_human}, drain_timeout=0.5)


@trigger.assistant
async def assistant(session: Session) -> None:
    run = {"pid": os.getpid(), "room": session.room_name, "attempt": session.attempt, "started": time.time()}
    write(run)
    reason = await session.ended
    write(run | {"ended": time.time(), "reason": reason})


def write(run: dict[str, Any]) -> None:
    with Path("notebook.txt").open("a") as notebook:
        notebook.write(f"{json.dumps(run)}\n")


if __name__ == "__main__":
    trigger.start()
