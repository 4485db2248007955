"""How something is made to happen before or after a function of the package, each time it is called."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

Act = Callable[[], None]
"""What is to happen, such as the end of this process."""


def wrap(
    owner: Any,
    name: str,
    before: Act,
    after: Act,
    counts: Callable[..., bool] = lambda *arguments, **keywords: True,
) -> None:
    """Have something happen around each call that counts of a function, async or not."""
    original = getattr(owner, name)

    @functools.wraps(original)
    def call(*arguments: Any, **keywords: Any) -> Any:
        if not counts(*arguments, **keywords):
            return original(*arguments, **keywords)
        before()
        outcome = original(*arguments, **keywords)
        after()
        return outcome

    @functools.wraps(original)
    async def await_(*arguments: Any, **keywords: Any) -> Any:
        if not counts(*arguments, **keywords):
            return await original(*arguments, **keywords)
        before()
        outcome = await original(*arguments, **keywords)
        after()
        return outcome

    setattr(owner, name, await_ if inspect.iscoroutinefunction(original) else call)
