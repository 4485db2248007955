"""The program under test for assistants: records the time of each success and when its assistant then ran.

Run as `python -m bench.programs.host`.
"""

import argparse
import logging
import os
import sys
import time
from pathlib import Path

from bench.programs import SECRET, Notebook
from whereby_trigger import TRIGGER_EVENT_SUCCESS, Session, Trigger, TriggerSuccess

ASSISTANT = Path(__file__).with_name("assistant.py")
FORMS = COROUTINE, PROCESS = "coroutine", "process"


def command(running: str) -> list[str]:
    """Return the command of a process assistant."""
    return [sys.executable, "-I", "-S", str(ASSISTANT), running]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.programs.host")
    parser.add_argument("--store", required=True)
    parser.add_argument("--notes", required=True, type=Path)
    parser.add_argument("--running", required=True)
    parser.add_argument("--assistant", choices=FORMS, default=COROUTINE)
    parser.add_argument("--lease-ttl", type=float, default=30.0)
    options = parser.parse_args()
    logging.getLogger("whereby_trigger.deliveries").setLevel(logging.ERROR)
    logging.getLogger("whereby_trigger.assist").setLevel(logging.ERROR)
    notebook = Notebook(options.notes, times=True)
    trigger = Trigger(
        port=0,
        host="127.0.0.1",
        secret=SECRET,
        store=options.store,
        lease_ttl=options.lease_ttl,
        max_rooms=100_000,
        drain_timeout=0,
        stop_grace=5,
        webhook_triggers={"room.client.joined": lambda: True},
    )

    @trigger.on(TRIGGER_EVENT_SUCCESS)
    async def note(success: TriggerSuccess) -> None:
        notebook.note(success.trigger_webhook.data.room_name)

    if options.assistant == PROCESS:
        trigger.assistant_command(command(options.running))
    else:
        running = os.open(options.running, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

        @trigger.assistant
        async def stay(session: Session) -> None:
            os.write(running, f"{time.monotonic_ns()} {session.room_name}\n".encode())
            await session.ended

    trigger.start()
    notebook.close()


if __name__ == "__main__":
    main()
