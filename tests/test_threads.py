"""Threads of our own: no lack of memory ends one, or keeps what it says from those who wait for it."""

import asyncio
from collections.abc import Callable
from contextvars import Context
from typing import Any

from whereby_trigger.decide.user_code import UserThread
from whereby_trigger.threads import OwnThread


class ShortOfMemory(asyncio.SelectorEventLoop):
    """Raise MemoryError in the first calls from another thread."""

    failures = 2

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        if self.failures:
            self.failures -= 1
            raise MemoryError
        return super().call_soon_threadsafe(callback, *args, context=context)


def run(main: Any) -> Any:
    with asyncio.Runner(loop_factory=ShortOfMemory) as runner:
        return runner.run(asyncio.wait_for(main, 5))


def test_what_a_thread_returns_arrives_once_there_is_memory_again() -> None:
    async def main() -> list[int]:
        thread = OwnThread("test")
        returned = [await thread.run(int, text) for text in ("1", "2")]
        assert await thread.close(5)
        return returned

    assert run(main()) == [1, 2]


def test_what_sync_user_code_returns_arrives_once_there_is_memory_again() -> None:
    async def main() -> list[Any]:
        thread = UserThread(5)
        return [(await thread.run(int, text)).value for text in ("1", "2")]

    assert run(main()) == [1, 2]
