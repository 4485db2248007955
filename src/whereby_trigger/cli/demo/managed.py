"""The trigger of the demo's second act: an assistant in each room, one however many replicas run this program."""

import os
import time
from pathlib import Path

from whereby_trigger import Session, Trigger, is_human

NOTEBOOK = Path("notebook.txt")

trigger = Trigger(webhook_triggers={"room.client.joined": is_human}, drain_timeout=0.5)


@trigger.assistant
async def assistant(session: Session) -> None:
    write("comes", session)
    write("leaves", session, await session.ended)


def write(what: str, session: Session, why: str = "") -> None:
    with NOTEBOOK.open("a") as notebook:
        notebook.write(f"{what} {os.getpid()} {session.room_name} {session.attempt} {time.time()} {why}\n")


if __name__ == "__main__":
    trigger.start()
