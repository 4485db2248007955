"""A user's programs, written to a folder."""

import socket
from pathlib import Path

HUMANS_JOIN = """
from whereby_trigger import TRIGGER_EVENT_SUCCESS, Trigger, is_human

trigger = Trigger()


@trigger.when("room.client.joined")
def people(webhook):
    return is_human(webhook)


@trigger.on(TRIGGER_EVENT_SUCCESS)
async def announce(success):
    print("joining", success.room_url, "attempt", success.attempt, flush=True)
"""


def write(folder: Path, source: str, name: str = "app.py") -> Path:
    """Write a program, and return its path."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source.lstrip(), encoding="utf-8")
    return path


def free_port() -> int:
    """Return a port that nothing listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
