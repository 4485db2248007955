"""The watchdog: a thread that ends the process when a deadline passes that the event loop should have kept."""

import os
import threading
from collections.abc import Callable

from whereby_trigger.boot import boot_time
from whereby_trigger.stderr import say_last

LOOK = 0.1
EXIT_CODE = 70

LOOKS = 5
"""How many looks in a row must find a deadline passed: the loop of a machine that slept gets its chance first."""


class Watchdog:
    """Keep deadlines, by name, in seconds of the boot clock. One that passes ends the process at once."""

    def __init__(self) -> None:
        self._deadlines: dict[str, tuple[float, Callable[[], bool]]] = {}
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()

    def set(self, name: str, deadline: float, applies: Callable[[], bool] = lambda: True) -> None:
        """Have the process ended at `deadline`, if it `applies` then, unless it is moved or cleared before."""
        self._deadlines[name] = deadline, applies
        self.start()

    def start(self) -> None:
        """Start the thread now, unless it runs: raises RuntimeError where none can be started."""
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="whereby-trigger-watchdog", daemon=True)
            thread.start()
            self._thread = thread

    def clear(self, name: str) -> bool:
        """Forget a deadline; return whether it was set."""
        return self._deadlines.pop(name, None) is not None

    def close(self) -> None:
        """Forget every deadline and end the thread."""
        self._deadlines.clear()
        self._closed.set()

    def _run(self) -> None:
        passed: dict[str, int] = {}
        while not self._closed.wait(LOOK):
            now = boot_time()
            for name, (deadline, applies) in list(self._deadlines.items()):
                passed[name] = passed.get(name, 0) + 1 if now > deadline and applies() else 0
                if passed[name] >= LOOKS:
                    _end_process(name)


def _end_process(name: str) -> None:
    try:
        say_last(f"whereby-trigger: ended, user code did not return by the deadline of {name}\n")
    finally:
        os._exit(EXIT_CODE)
