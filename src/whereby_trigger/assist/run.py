"""One run of an assistant in its room, from its start to its end, in the terms of `follow`."""

import asyncio
import traceback
from typing import Final

from whereby_trigger.assist.assistant import CoroutineAssistant
from whereby_trigger.assist.follow import End, How
from whereby_trigger.assist.session import Session
from whereby_trigger.errors import AssistantRefused
from whereby_trigger.shortage import shortage_now

TO_UNWIND: Final = 1.0
"""Seconds after which an assistant that was cancelled and has not returned is named in the log."""


async def run_coroutine(assistant: CoroutineAssistant, session: Session, grace: float) -> End:
    """Run a coroutine in a room; once its session has ended, it has `grace` seconds before it is cancelled.

    One that takes no notice of its cancellation is waited for, since it may still be in the room; a warning names it.
    """
    run = asyncio.create_task(_guarded(assistant, session), name=f"assistant in {session.room_url}")
    ended = asyncio.create_task(session.ended.wait())
    try:
        await asyncio.wait({run, ended}, return_when=asyncio.FIRST_COMPLETED)
        if not run.done():
            await asyncio.wait({run}, timeout=grace)
        if not run.done():
            await _cancel(run, assistant, session)
        return run.result()
    except asyncio.CancelledError:
        await _cancel(run, assistant, session)
        raise
    finally:
        ended.cancel()


async def _cancel(run: "asyncio.Task[End]", assistant: CoroutineAssistant, session: Session) -> None:
    run.cancel()
    await asyncio.wait({run}, timeout=TO_UNWIND)
    if not run.done():
        session.log.warning(
            "the assistant %s was cancelled and does not return: until it does, its room gets no other and a drain "
            "waits; let CancelledError pass",
            assistant.name,
        )
        await asyncio.wait({run})


async def _guarded(assistant: CoroutineAssistant, session: Session) -> End:
    # SystemExit that leaves a task ends the loop, and with it every other room's assistant.
    try:
        await assistant.function(session)
    except AssistantRefused as error:
        return End(How.REFUSED, f"refused: {error.reason}", retry=error.retry)
    except asyncio.CancelledError:
        return End(How.CUT_OFF, "cancelled: it had not returned in time")
    except BaseException as error:
        if (short := shortage_now(error)) is not None:
            return End(How.EXHAUSTED, f"out of {short}", errors=(_in_full(error),))
        return End(How.RAISED, f"raised {type(error).__name__}", errors=(_in_full(error),))
    return End(How.RETURNED, "it left the room")


def _in_full(error: BaseException) -> str:
    return "".join(traceback.format_exception(error, limit=-5))
