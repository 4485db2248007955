"""A store's answer that comes late: after what the test does meanwhile."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any


class LateAnswer:
    """Hold back the first non-empty answer of a store's method, from `answered` until `go` is set."""

    def __init__(self, method: Callable[..., Awaitable[Any]]) -> None:
        self._method = method
        self.answered = asyncio.Event()
        self.go = asyncio.Event()

    async def __call__(self, *arguments: Any) -> Any:
        answer = await self._method(*arguments)
        if answer and not self.answered.is_set():
            self.answered.set()
            await self.go.wait()
        return answer
