"""The trigger of the second scenario: one assistant in each room, however many replicas run this program."""

import json
import sys
import time
from pathlib import Path
from typing import Any

from whereby_trigger import Session, Trigger, is_human

REPLICA = int(sys.argv[1])

trigger = Trigger(webhook_triggers={"room.client.joined": is_human}, drain_timeout=0.5)


@trigger.assistant
async def assistant(session: Session) -> None:
    run = {"room": session.room_name, "attempt": session.attempt, "replica": REPLICA, "started": time.time()}
    write(run)
    reason = await session.ended
    write(run | {"ended": time.time(), "reason": reason})


def write(run: dict[str, Any]) -> None:
    with Path("notebook.txt").open("a") as notebook:
        notebook.write(f"{json.dumps(run)}\n")


if __name__ == "__main__":
    trigger.start()
