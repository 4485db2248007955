"""A user's program that runs out of threads, files or memory at SIGUSR1, and has them back at SIGUSR2.

`python -m tests.promise.short_of WHAT ASSISTANT`; the assistant is a command or a coroutine.
"""

import signal
import sys
import threading

from reliability import conditions
from whereby_trigger import Session, Trigger
from whereby_trigger.assist import shortage as pauses
from whereby_trigger.decide import decider, user_code

WHAT, ASSISTANT = sys.argv[1:]
hanging = threading.Event()

user_code.MAX_HUNG = 2  # type: ignore[misc]
decider.ASK_AGAIN = pauses.SHORTEST_PAUSE = pauses.LONGEST_PAUSE = 0.2  # type: ignore[misc]
trigger = Trigger(stop_grace=1)


@trigger.when("assistant.requested")
async def always() -> bool:
    return True


def let_go(*_: object) -> None:
    hanging.set()


@trigger.when("room.client.left")
def hang() -> bool:
    print("hanging", flush=True)
    hanging.wait()
    return False


@trigger.when("room.client.joined")
def needs_it() -> bool:
    conditions.need(WHAT)
    return True


async def attend(session: Session) -> None:
    conditions.need(WHAT)
    print("attending", flush=True)
    await session.ended


if ASSISTANT == "command":
    trigger.assistant_command(["sh", "-c", "echo attending >&2; exec sleep 600"], log_output=True)
elif ASSISTANT == "coroutine":
    trigger.assistant(attend)

if __name__ == "__main__":
    conditions.bear_shortage(WHAT)
    signal.signal(signal.SIGHUP, let_go)
    trigger.start()
