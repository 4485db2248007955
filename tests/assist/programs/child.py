"""An assistant for tests: it holds a FIFO open while it runs, and writes there what it does.

It writes `NAME here PID PARENT`, then `NAME ticks BOOT_TIME` until it ends.
"""

import argparse
import os
import signal
import subprocess
import sys
import threading
import time


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("fifo")
    parser.add_argument("name")
    parser.add_argument("--ignore-term", action="store_true", help="say that it was told to leave, and stay")
    parser.add_argument("--polite", action="store_true", help="say that it was told to leave, and take half a second")
    parser.add_argument("--close-stdio", action="store_true")
    parser.add_argument("--child", metavar="NAME", help="start a child in the same group")
    parser.add_argument("--daemon", metavar="NAME", help="start an orphan in a session of its own")
    parser.add_argument("--child-ignores-term", action="store_true")
    parser.add_argument("--exit", type=int, metavar="CODE", help="exit at once, when those it starts are there")
    return parser.parse_args()


def boot_time() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME) if sys.platform == "linux" else time.monotonic()


class Child:
    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.fifo = os.open(options.fifo, os.O_WRONLY)
        self.leaving = threading.Event()

    def say(self, text: str) -> None:
        os.write(self.fifo, f"{self.options.name} {text}\n".encode())

    def told(self, *_: object) -> None:
        self.say("was told to leave")
        if self.options.polite:
            self.leaving.set()

    def start(self, name: str, *, daemon: bool) -> None:
        command = [sys.executable, "-I", "-S", __file__, self.options.fifo, name]
        command += ["--ignore-term"] if self.options.child_ignores_term else []
        if daemon:
            script = "import subprocess, sys; subprocess.Popen(sys.argv[1:], start_new_session=True)"
            command = [sys.executable, "-I", "-S", "-c", script, *command]
        ready, arrived = os.pipe()
        # The pipe's end goes to the new process as its stdin, which it closes once it is there.
        popen = subprocess.Popen(command, stdin=arrived)
        os.close(arrived)
        os.read(ready, 1)
        os.close(ready)
        if daemon:
            popen.wait()

    def run(self) -> int:
        options = self.options
        if options.ignore_term or options.polite:
            signal.signal(signal.SIGTERM, self.told)
        if options.close_stdio:
            for descriptor in range(3):
                os.close(descriptor)
        self.say(f"here {os.getpid()} {os.getppid()}")
        if options.child:
            self.start(options.child, daemon=False)
        if options.daemon:
            self.start(options.daemon, daemon=True)
        if options.exit is not None:
            return int(options.exit)
        if not options.close_stdio:
            os.close(0)
        while not self.leaving.wait(0.02):
            self.say(f"ticks {boot_time()}")
        threading.Event().wait(0.5)
        self.say("has left")
        return 0


if __name__ == "__main__":
    sys.exit(Child(parse()).run())
