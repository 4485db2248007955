"""One run of a process assistant: what it is given, and what its exit means."""

import asyncio
import json
from collections.abc import Callable, Collection, Mapping
from functools import partial
from math import isinf
from typing import Any, Final

from whereby_trigger.assist.assistant import CommandAssistant
from whereby_trigger.assist.environment import child_environment
from whereby_trigger.assist.follow import End, How
from whereby_trigger.assist.process import Exit, GuardedProcess
from whereby_trigger.assist.runs import Run
from whereby_trigger.assist.session import Session
from whereby_trigger.config import inherited
from whereby_trigger.errors import AssistantError, SystemExhausted
from whereby_trigger.leftovers import name_of_run
from whereby_trigger.webhook import replace_lone_surrogates

TRY_AGAIN: Final = 75
"""The exit code by which a process says that another try makes sense: EX_TEMPFAIL of sysexits.h."""


async def run_command(
    assistant: CommandAssistant,
    run: Run,
    launched: Callable[[int | None], None],
    *,
    grace: float,
    deadline: Callable[[], float],
    life: int | None,
    hidden: Collection[str],
) -> End:
    """Run a command in a room, behind its guard; once the session has ended, it has `grace` seconds to exit.

    `life` is the descriptor of the lock that shows this replica alive, if it has one; `hidden` are the values that its
    environment must not hold.
    """
    room, session = run.room, run.session
    try:
        process = await GuardedProcess.start(
            assistant.argv,
            env=child_environment(inherited(), _room_variables(session), assistant.env, hidden=hidden),
            input=_input(session),
            deadline=deadline(),
            grace=grace,
            line=_logged(session) if assistant.log_output else None,
            life=life,
            run=name_of_run(room.owner, room.id, room.attempt),
        )
    except SystemExhausted as error:
        return End(How.EXHAUSTED, str(error))
    except AssistantError as error:
        return End(How.RAISED, str(error))
    # While it started, a renewal may have moved the deadline.
    process.extend(deadline())
    run.extend = process.extend
    launched(process.pid)
    ended = asyncio.create_task(session.ended.wait())
    exited = asyncio.create_task(process.wait())
    try:
        await asyncio.wait({exited, ended}, return_when=asyncio.FIRST_COMPLETED)
        process.stop(grace)
        # Awaited by itself, it would be cancelled with the run while the process still ends.
        await asyncio.wait({exited})
        exit = exited.result()
        run.handed_over = run.handed_over or exit.late
        return _end(exit)
    except asyncio.CancelledError:
        process.stop(0)
        await asyncio.wait({exited})
        raise
    finally:
        ended.cancel()


def _room_variables(session: Session) -> Mapping[str, str]:
    webhook = session.webhook
    return {
        "WHEREBY_ROOM_URL": session.room_url,
        "WHEREBY_ROOM_NAME": session.room_name,
        "WHEREBY_WEBHOOK_ID": "" if webhook is None else webhook.id,
    }


def _input(session: Session) -> bytes:
    webhook = None if session.webhook is None else _readable_by_all(session.webhook.raw)
    room = {
        "roomUrl": session.room_url,
        "roomName": session.room_name,
        "subdomain": session.subdomain,
        "attempt": session.attempt,
        "webhook": webhook,
    }
    return json.dumps(room).encode() + b"\n"


def _readable_by_all(raw: bytes) -> Any:
    """Read JSON with null for a number that no double holds, and U+FFFD for half a surrogate pair.

    RFC 8259, 6 and 8.2, warns of both: they are JSON, but parsers refuse them, or end up with an infinity or with a
    text that cannot be printed.
    """
    whole = replace_lone_surrogates(raw)
    return json.loads(whole, parse_int=partial(_number, kind=int), parse_float=partial(_number, kind=float))


def _number(text: str, kind: type[int] | type[float]) -> float | None:
    return None if isinf(float(text)) else kind(text)


def _logged(session: Session) -> Callable[[str, str], None]:
    def line(stream: str, text: str) -> None:
        session.log.info("%s: %s", stream, text)

    return line


def _end(exit: Exit) -> End:
    errors = ("\n".join(exit.stderr),) if exit.stderr else ()
    if exit.code == 0:
        return End(How.RETURNED, "it left the room")
    if exit.code == TRY_AGAIN:
        return End(How.REFUSED, f"exited with {TRY_AGAIN}: worth another try", errors=errors)
    if exit.code is not None:
        return End(How.RAISED, f"exited with {exit.code}", errors=errors)
    return End(How.RAISED, f"ended by signal {exit.signal}", errors=errors)
