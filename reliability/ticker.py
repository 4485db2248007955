"""A fake assistant: a process that says in a file, several times a second, that it is in its room.

It imports nothing of this project, to start fast; run by path as `ticker.py TICKS [LEAVING]`. When it gets TERM, it
leaves after LEAVING seconds, or less: how many differs from one to the next. With LEAVING it has a helper, which is in
its own process session, ignores TERM, and ticks as part of the same assistant.
"""

import os
import signal
import subprocess
import sys
import time

EVERY = 0.05
HELPER = "TICK_HELPER_OF"
STEPS = 10
HELPS_FOR = 60.0


def main() -> None:
    notebook = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    host, room = os.environ["TICK_HOST"], os.environ["WHEREBY_ROOM_NAME"]
    pid = os.environ.get(HELPER) or str(os.getpid())
    leaving: list[float] = []
    lasts = float(sys.argv[2]) if len(sys.argv) > 2 else 0.0
    lasts *= os.getpid() % STEPS / (STEPS - 1)
    signal.signal(signal.SIGTERM, lambda number, frame: leaving.append(now() + lasts))
    if len(sys.argv) > 2 and HELPER not in os.environ:
        subprocess.Popen([sys.executable, "-S", *sys.argv], env=os.environ | {HELPER: pid}, start_new_session=True)
    # If nothing ends it as it should, it must still not tick forever.
    last = now() + HELPS_FOR if HELPER in os.environ else None
    while now() < last if last else not leaving or now() < leaving[0]:
        os.write(notebook, f"{now():.4f} {pid} {host} {room}\n".encode())
        time.sleep(EVERY)


def now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


if __name__ == "__main__":
    main()
