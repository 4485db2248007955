"""An assistant for tests that reads the events of its room and writes them to a FIFO, until the end of file.

It writes `NAME here PID`, and then a line for each event: `first ATTEMPT`, `webhook ID`, `presence HUMANS BOTS`,
`dropped COUNT`, `leave REASON`, and `end of file`. TERM makes it write `was told to leave`.
"""

import argparse
import json
import os
import signal
import sys
import threading
from typing import Any


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("fifo")
    parser.add_argument("name")
    parser.add_argument("--late", action="store_true", help="begin to read at SIGUSR1")
    parser.add_argument("--never", action="store_true", help="read nothing, and leave when told")
    parser.add_argument("--closes", action="store_true", help="close stdin after the first line, and leave when told")
    parser.add_argument("--forks", action="store_true", help="leave a fork that keeps stdin open and does not read")
    return parser.parse_args()


class Reader:
    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.fifo = os.open(options.fifo, os.O_WRONLY)
        self.begin, self.leaving = threading.Event(), threading.Event()

    def say(self, text: str) -> None:
        os.write(self.fifo, f"{self.options.name} {text}\n".encode())

    def told(self, *_: object) -> None:
        self.say("was told to leave")
        self.leaving.set()

    def run(self) -> None:
        signal.signal(signal.SIGTERM, self.told)
        signal.signal(signal.SIGUSR1, lambda *_: self.begin.set())
        if self.options.forks and os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            self.say(f"fork {os.getpid()}")
            while True:
                signal.pause()
        self.say(f"here {os.getpid()}")
        if self.options.late:
            self.begin.wait()
        if self.options.closes:
            self.say(in_short(json.loads(sys.stdin.buffer.readline())))
            os.close(0)
            self.say("closed")
        if self.options.closes or self.options.never:
            self.leaving.wait()
            return
        while line := sys.stdin.buffer.readline():
            self.say(in_short(json.loads(line)))
        self.say("end of file")


def in_short(event: dict[str, Any]) -> str:
    match event:
        case {"event": "webhook", "webhook": webhook}:
            return f"webhook {webhook['id']}"
        case {"event": "presence", "humans": humans, "bots": bots, "since": _}:
            return f"presence {humans} {bots}"
        case {"event": "dropped", "count": count}:
            return f"dropped {count}"
        case {"event": "leave", "reason": reason}:
            return f"leave {reason}"
        case {"roomUrl": _, "attempt": attempt}:
            return f"first {attempt}"
    raise ValueError(event)


if __name__ == "__main__":
    Reader(parse()).run()
