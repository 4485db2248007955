"""A trigger as a program of its own: its event loop, and what holds while the command line imports it."""

import asyncio
import gc
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

from whereby_trigger.ending import LastResort
from whereby_trigger.files import many_files
from whereby_trigger.stderr import never_awaited

COLLECT_AFTER = 10_000
"""How many objects may be made and not freed before Python looks for circles among them.

By itself it looks after 700, which is what a dozen webhooks under way take, and hardly one of them is in a circle.
"""


def run(
    serving: Coroutine[Any, Any, None], end_by: Callable[[], float | None] = lambda: None, *, to_the_end: bool = False
) -> None:
    """Run a coroutine in an event loop of its own, to its end. Blocks.

    Tasks and threads of the loop that it leaves behind are waited for until `end_by()`, in seconds of the boot clock,
    and then end with the process; with `to_the_end` so does whatever goes on when this has returned.
    """
    runner = asyncio.Runner(loop_factory=_loop_factory())
    quiet_end = never_awaited(to_the_end)
    with many_files(), _rare_collections(), quiet_end, LastResort(to_the_end) as last_resort, runner:
        try:
            runner.run(serving)
        finally:
            last_resort.set(end_by, runner.get_loop())


@contextmanager
def importing() -> Iterator[None]:
    """Make every `start()` return at once, while the command line imports a program that calls it."""
    _Importing.active = True
    try:
        yield
    finally:
        _Importing.active = False


def is_being_imported() -> bool:
    """Tell whether the command line is importing a program now."""
    return _Importing.active


def in_event_loop() -> bool:
    """Tell whether an event loop runs in this thread."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


@contextmanager
def _rare_collections() -> Iterator[None]:
    before = young, *older = gc.get_threshold()
    gc.set_threshold(max(young, COLLECT_AFTER) if young else 0, *older)
    try:
        yield
    finally:
        gc.set_threshold(*before)


class _Importing:
    active = False


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    if sys.platform == "win32":
        return None
    import uvloop

    return uvloop.new_event_loop
