"""The boundaries of a webhook's way, and how a receiver dies at one: by SIGKILL from itself, at the n-th passing."""

import functools
import inspect
import os
import signal
import sqlite3
from collections.abc import Callable
from typing import Any

from whereby_trigger.assist import process
from whereby_trigger.decide import TRIGGER_EVENT_SUCCESS, Emitter
from whereby_trigger.receive import edge
from whereby_trigger.store.sqlite import lease, rooms, statements

STEPS = ("insert", "commit", "answer", "emit", "decide", "claim", "blame")
BOUNDARIES = tuple(f"{side} {step}" for step in STEPS for side in ("before", "after"))

RECOVERY_STEPS = ("claim", "blame")
"""Steps that a replica takes only for what a dead one left behind."""


ROOM_STEPS = ("request", "take", "spawn", "move")
ROOM_BOUNDARIES = tuple(f"{side} {step}" for step in ROOM_STEPS for side in ("before", "after"))
"""Those of a room's way: it is claimed, taken, its process is started, and its state recorded."""


def die_at(boundary: str, passing: int) -> None:
    """Have this process kill itself when it passes a boundary for the n-th time."""
    side, _, step = boundary.partition(" ")
    countdown = _Countdown(passing)
    before, after = (countdown.pass_, _nothing) if side == "before" else (_nothing, countdown.pass_)
    if step == "insert":
        _wrap(statements, "add", before, after)
    elif step == "commit":
        _wrap_commit(before, after)
    elif step == "answer":
        _wrap(edge, "_answer", before, after, lambda send, status, *headers: status == 200)
    elif step == "emit":
        _wrap(Emitter, "emit", before, after, lambda self, event, *rest: event == TRIGGER_EVENT_SUCCESS)
    elif step == "spawn":
        _wrap(process, "spawn", before, after)
    elif step in ROOM_STEPS:
        _wrap(rooms, step, before, after)
    elif step == "claim":
        _wrap(lease, "bury_the_dead", before, after)
    else:
        _wrap(statements, step, before, after)


class _Countdown:
    def __init__(self, passings: int) -> None:
        self._left = passings

    def pass_(self) -> None:
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def _nothing() -> None:
    pass


def _wrap(
    owner: Any,
    name: str,
    before: Callable[[], None],
    after: Callable[[], None],
    counts: Callable[..., bool] = lambda *arguments, **keywords: True,
) -> None:
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


def _wrap_commit(before: Callable[[], None], after: Callable[[], None]) -> None:
    class Connection(sqlite3.Connection):
        def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
            if sql != "COMMIT":
                return super().execute(sql, *parameters)
            before()
            cursor = super().execute(sql, *parameters)
            after()
            return cursor

    sqlite3.connect = functools.partial(sqlite3.connect, factory=Connection)  # type: ignore[assignment]
