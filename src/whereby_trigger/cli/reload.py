"""Reload on save: the program runs in a child process, which a change of its source replaces."""

import logging
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from watchfiles import Change, PythonFilter, watch

from whereby_trigger.cli.leash import Leashed
from whereby_trigger.cli.output import WRONG_CALL
from whereby_trigger.signals import ENDING

logger = logging.getLogger("whereby_trigger.dev")

UNUSABLE = 3
"""The exit code of a child whose program cannot be imported as it stands: another version of it may do."""

LOOK_EVERY = 200
GATHER_FOR = 100
"""Milliseconds between looks at the child, and for which changes are gathered after the first."""

END_WITHIN = 3.0
"""Seconds that a program has to end before it is killed: nothing that was acknowledged is lost by that."""


def keep_reloading(command: Sequence[str], folder: Path) -> int:
    """Run a command, anew after each change of a Python file in a folder, until a signal; give the exit code.

    Pending webhooks survive in the store. What ends by itself waits for a change, unless its very call is wrong.
    """
    with _signalled() as stop:
        child = Leashed(command)
        first, waiting = True, False
        try:
            for changes in watch(
                folder,
                watch_filter=PythonFilter(),
                debounce=GATHER_FOR,
                stop_event=stop,
                rust_timeout=LOOK_EVERY,
                yield_on_timeout=True,
                raise_interrupt=False,
            ):
                if changes:
                    logger.info("%s changed: restarting", _names(changes, folder))
                    child.end(END_WITHIN)
                    child, first, waiting = Leashed(command), False, False
                elif not waiting and child.ended is not None:
                    if child.ended == 0 or (first and child.ended == WRONG_CALL):
                        return child.ended
                    logger.warning("it ended with exit code %d: waiting for a change in %s", child.ended, folder)
                    waiting = True
        finally:
            child.end(END_WITHIN)
    return 0


@contextmanager
def _signalled() -> Iterator[threading.Event]:
    """Give an event that SIGINT and SIGTERM set; a second one has its usual effect."""
    stop = threading.Event()
    before = {number: signal.getsignal(number) for number in ENDING}

    def receive(number: int, frame: FrameType | None) -> None:
        stop.set()
        signal.signal(number, before[signal.Signals(number)])

    for number in ENDING:
        signal.signal(number, receive)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _names(changes: set[tuple[Change, str]], folder: Path) -> str:
    return ", ".join(sorted({str(Path(file).relative_to(folder)) for _, file in changes}))
