"""The trigger of the demo's replicas: one assistant in each room, however many replicas run this program."""

import os
import time
from pathlib import Path

from whereby_trigger import Session, Trigger, is_human

NOTEBOOK = Path("notebook.txt")

trigger = Trigger(webhook_triggers={"room.client.joined": is_human}, drain_timeout=0.5)


@trigger.assistant
async def assistant(session: Session) -> None:
    write("started", session)
    write("ended", session, await session.ended)


def write(what: str, session: Session, reason: str = "") -> None:
    with NOTEBOOK.open("a") as notebook:
        notebook.write(f"{what} {os.getpid()} {session.room_name} {session.attempt} {time.time()} {reason}\n")


if __name__ == "__main__":
    trigger.start()
