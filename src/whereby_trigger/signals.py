"""The signals that end a program, taken for as long as a trigger serves, and given back afterwards."""

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from whereby_trigger.ending import ENDING as ENDING
from whereby_trigger.ending import LastResort


@contextmanager
def taken(handle: Callable[[signal.Signals], None], at_once: Callable[[signal.Signals], None]) -> Iterator[None]:
    """Have SIGINT and SIGTERM handled on the running loop; off the main thread nothing is taken.

    `at_once` is called before, even while user code blocks the loop; it must not touch the loop.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()

    def receive(number: int, frame: FrameType | None) -> None:
        at_once(signal.Signals(number))
        loop.call_soon_threadsafe(handle, signal.Signals(number))

    before = {number: signal.signal(number, receive) for number in ENDING}
    try:
        yield
    finally:
        for number, handler in before.items() if not LastResort.keeps_signals else ():
            signal.signal(number, handler)
