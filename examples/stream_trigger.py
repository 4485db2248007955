"""Run a process in each room that a person joins, and write to its stdin what happens in the room.

    whereby-trigger dev stream_trigger.py
    whereby-trigger send room.client.joined --room /visit-1

ASSISTANT is the command of the process: stream_assistant.py by default, or `node stream_assistant.mjs`.
"""

import os
import shlex
import sys
from pathlib import Path

from whereby_trigger import Trigger, is_human

here = Path(__file__).parent
command = shlex.split(os.environ.get("ASSISTANT", "")) or [sys.executable, str(here / "stream_assistant.py")]

trigger = Trigger(webhook_triggers={"room.client.joined": is_human})
trigger.assistant_command(command, stdin="stream", log_output=True)

if __name__ == "__main__":
    trigger.start()
