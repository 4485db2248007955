"""A user's program that runs out of threads, files or memory at SIGUSR1, and has them back at SIGUSR2.

`python -m tests.promise.short_of WHAT ASSISTANT`, the assistant a command or a coroutine.
"""

import asyncio
import os
import resource
import signal
import sys
import threading
from pathlib import Path

from whereby_trigger import Session, Trigger
from whereby_trigger.assist import supervisor
from whereby_trigger.decide import decider, user_thread

WHAT, ASSISTANT = sys.argv[1:]
LIMITS = {"files": resource.RLIMIT_NOFILE, "memory": resource.RLIMIT_AS}
plenty = resource.getrlimit(LIMITS[WHAT]) if WHAT in LIMITS else (0, 0)
start_thread = threading.Thread.start
hanging = threading.Event()

user_thread.MAX_HUNG = 2  # type: ignore[misc]
decider.ASK_AGAIN = supervisor.SHORTEST_PAUSE = supervisor.LONGEST_PAUSE = 0.2  # type: ignore[misc]
trigger = Trigger(stop_grace=1)


@trigger.when("assistant.requested")
async def always() -> bool:
    return True


def refuse(thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def run_out(*_: object) -> None:
    if WHAT == "threads":
        threading.Thread.start = refuse  # type: ignore[method-assign]
    else:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        # What is left suffices for the interpreter's own small objects, and for no thread's stack.
        least = 0 if WHAT == "files" else pages * os.sysconf("SC_PAGE_SIZE") + 4 * 1024 * 1024
        resource.setrlimit(LIMITS[WHAT], (least, plenty[1]))
    print("short", flush=True)


def have_plenty(*_: object) -> None:
    if WHAT == "threads":
        threading.Thread.start = start_thread  # type: ignore[method-assign]
    else:
        resource.setrlimit(LIMITS[WHAT], plenty)
    print("plenty", flush=True)


def let_go(*_: object) -> None:
    hanging.set()


@trigger.when("room.client.left")
def hang() -> bool:
    print("hanging", flush=True)
    hanging.wait()
    return False


@trigger.when("room.client.joined")
def needs_all() -> bool:
    with open(os.devnull):
        thread = threading.Thread(target=int)
        thread.start()
        thread.join()
    if WHAT == "memory":
        bytearray(64 * 1024 * 1024)
    return True


async def attend(session: Session) -> None:
    with open(os.devnull):
        print("attending", flush=True)
    await asyncio.to_thread(bytearray, 64 * 1024 * 1024)
    await session.ended


if ASSISTANT == "command":
    trigger.assistant_command(["sh", "-c", "echo attending >&2; exec sleep 600"], log_output=True)
elif ASSISTANT == "coroutine":
    trigger.assistant(attend)

if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, run_out)
    signal.signal(signal.SIGUSR2, have_plenty)
    signal.signal(signal.SIGHUP, let_go)
    trigger.start()
