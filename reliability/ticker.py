"""A fake assistant: a process that says in a file, several times a second, that it is in its room.

It imports nothing of ours but the clock, so that it starts fast; run by path. It leaves when it gets TERM.
"""

import os
import signal
import sys
import time

EVERY = 0.05


def main() -> None:
    notebook = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    host, room = os.environ["TICK_HOST"], os.environ["WHEREBY_ROOM_NAME"]
    leaving: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: leaving.append(number))
    while not leaving:
        clock = time.clock_gettime(time.CLOCK_BOOTTIME)
        os.write(notebook, f"{clock:.4f} {os.getpid()} {host} {room}\n".encode())
        time.sleep(EVERY)


if __name__ == "__main__":
    main()
