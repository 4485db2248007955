"""Wait for something to come true, by checking it repeatedly, with a deadline."""

import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from whereby_trigger.testing import program

WITHIN = 20.0
AT_ONCE = 3.0
"""Seconds that something immediate may take while other tests keep the machine busy."""

BETWEEN_LOOKS = 0.01

T = TypeVar("T")


def until(look: Callable[[], T], within: float = WITHIN) -> T:
    """Call a function until it returns something true, and return that."""
    deadline = time.monotonic() + within
    while not (seen := look()):
        assert time.monotonic() < deadline, f"not true within {within:g} s"
        threading.Event().wait(BETWEEN_LOOKS)
    return seen


async def eventually(look: Callable[[], Any], within: float = WITHIN) -> Any:
    """Do the same beside a running event loop; the function may return an awaitable."""
    seen = await program.until(look, within)
    assert seen, f"not true within {within:g} s"
    return seen
