"""A trigger as a program of its own: its event loop, and what holds while the command line imports it."""

import asyncio
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any


def run(serving: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine in an event loop of its own, to its end. Blocks."""
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(serving)


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


class _Importing:
    active = False


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    if sys.platform == "win32":
        return None
    import uvloop

    return uvloop.new_event_loop
