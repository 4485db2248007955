"""The boundaries that a webhook passes, and how a receiver kills itself with SIGKILL at the n-th passing of one."""

import asyncio
import functools
import inspect
import os
import signal
import sqlite3
from collections.abc import Callable
from typing import Any

from whereby_trigger.assist import process
from whereby_trigger.decide import TRIGGER_EVENT_SUCCESS, Emitter
from whereby_trigger.receive.connections import FastDelivery

Act = Callable[[], None]
"""An action at a boundary, such as ending this process."""

STEPS = ("insert", "commit", "answer", "emit", "decide", "claim", "blame")
BOUNDARIES = tuple(f"{side} {step}" for step in STEPS for side in ("before", "after"))
BEFORE_AGAIN = "before emit again"
"""The boundary before the success of a dead replica's webhook is emitted."""

LEADING_TO = {"claim": ("before emit",), "blame": ("before emit", BEFORE_AGAIN)}
"""Steps that a replica takes only for what was pending at a death, or at two, and the deaths that come first."""

ROOM_STEPS = ("request", "take", "spawn", "move")
ROOM_BOUNDARIES = tuple(f"{side} {step}" for step in ROOM_STEPS for side in ("before", "after"))
"""The boundaries of a room: it is claimed, taken, its process is started, and its state recorded."""


def wrap(
    owner: Any,
    name: str,
    before: Act,
    after: Act,
    counts: Callable[..., bool] = lambda *arguments, **keywords: True,
) -> None:
    """Wrap a function, async or not, to call `before` and `after` around each call that counts."""
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


def die_at(boundary: str, passing: int, store: str) -> None:
    """Make this process kill itself when it passes a boundary for the n-th time; `store` is its store's URL."""
    side, _, step = boundary.partition(" ")
    countdown = _Countdown(passing)
    before, after = (countdown.pass_, _nothing) if side == "before" else (_nothing, countdown.pass_)
    if step == "answer":
        wrap(FastDelivery, "_answer", before, after, lambda self, answer: answer.status == 200)
    elif step == "emit":
        wrap(Emitter, "emit", before, after, lambda self, event, *rest: event == TRIGGER_EVENT_SUCCESS)
    elif step == "emit again":
        wrap(Emitter, "emit", before, after, lambda self, event, success, *rest: getattr(success, "attempt", 1) > 1)
    elif step == "spawn":
        wrap(process, "spawn", before, after)
    elif store.startswith("sqlite:"):
        _around_step_in_sqlite(step, before, after)
    else:
        _around_step_in_postgres(step, before, after)


def _around_step_in_sqlite(step: str, before: Act, after: Act) -> None:
    from whereby_trigger.store.sqlite import lease, rooms, webhooks

    places = {
        "insert": (webhooks, "add"),
        "decide": (webhooks, "decide"),
        "blame": (webhooks, "begin_attempt"),
        "claim": (lease, "take_over_dead"),
        "request": (rooms, "request"),
        "take": (rooms, "take"),
        "move": (rooms, "move"),
    }
    if step in places:
        wrap(*places[step], before, after)
        return

    class Connection(sqlite3.Connection):
        def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
            if sql != "COMMIT":
                return super().execute(sql, *parameters)
            before()
            cursor = super().execute(sql, *parameters)
            after()
            return cursor

    sqlite3.connect = functools.partial(sqlite3.connect, factory=Connection)  # type: ignore[assignment]


def _around_step_in_postgres(step: str, before: Act, after: Act) -> None:
    """Call `before` before a statement is sent, and `after` once it is answered."""
    # Without a PostgreSQL store, its driver may be missing.
    import asyncpg

    from whereby_trigger.store.postgres import lease, rooms, webhooks

    statements = {
        "insert": webhooks.ADD,
        "decide": webhooks.DECIDE,
        "blame": webhooks.BEGIN_ATTEMPT,
        "claim": lease.TAKE_ORPHANED,
        "request": rooms.WAIT,
        "take": rooms.TAKE,
        "move": rooms.MOVE,
        "commit": "COMMIT",
    }

    def is_it(connection: Any, query: str, *arguments: Any, **keywords: Any) -> bool:
        return query == statements[step]

    for name in ("execute", "fetch", "fetchrow", "fetchval"):
        wrap(asyncpg.Connection, name, before, after, is_it)
    if step != "commit":
        return
    original = asyncpg.Connection.fetch

    async def fetch(connection: Any, query: str, *arguments: Any, **keywords: Any) -> Any:
        """Call `before` while an insert is in flight: most inserts are transactions of their own, without a COMMIT."""
        if query != webhooks.ADD or connection.is_in_transaction():
            return await original(connection, query, *arguments, **keywords)
        coming = asyncio.ensure_future(original(connection, query, *arguments, **keywords))
        await asyncio.sleep(0)
        before()
        rows = await coming
        after()
        return rows

    setattr(asyncpg.Connection, "fetch", fetch)  # noqa: B010 - its types do not allow a plain assignment


class _Countdown:
    def __init__(self, passings: int) -> None:
        self._left = passings

    def pass_(self) -> None:
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def _nothing() -> None:
    pass
