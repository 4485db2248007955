"""What ties the process that serves to the one that watches: a pipe, held by the watcher, that ends with it."""

import os
import signal
import subprocess
import threading
from collections.abc import Sequence

STDIN = 0


class Leashed:
    """A child process that ends when it is let go of, and when its parent dies, however it dies."""

    def __init__(self, command: Sequence[str]) -> None:
        # In a group of its own, since Ctrl-C reaches a whole group: the child hears of it from its parent alone.
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, process_group=0)

    @property
    def ended(self) -> int | None:
        """Its exit code, None while it runs."""
        return self._process.poll()

    def end(self, within: float) -> None:
        """Let go of it, and kill it if it has not ended after `within` seconds."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(within)
        except subprocess.TimeoutExpired:
            pass
        finally:
            self._process.kill()
            self._process.wait()


def end_with_parent() -> None:
    """Have this process, a leashed child, get a SIGTERM when its parent lets go of it or dies."""
    threading.Thread(target=_await_release, name="whereby-trigger-leash", daemon=True).start()


def _await_release() -> None:
    while os.read(STDIN, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
