"""What user code raised, in words: briefly for reasons and logs, in full for the store alone."""

import asyncio
import traceback

from whereby_trigger.decide.user_thread import TookTooLong
from whereby_trigger.texts import fit_for_stores

MAX_LENGTH = 500
LOOP_MISSING = ("no running event loop", "no current event loop")


def kind(error: BaseException) -> str:
    """Say what happened without the exception's own text, which may hold a person's name."""
    if isinstance(error, TookTooLong):
        return str(error)
    if isinstance(error, asyncio.CancelledError):
        return "was cancelled"
    if isinstance(error, RuntimeError) and any(hint in _text(error) for hint in LOOP_MISSING):
        return "needs the event loop: make it `async def`, sync code runs in a thread"
    return f"raised {type(error).__name__}"


def describe(error: BaseException) -> str:
    """Say in full, for the store alone, what was raised and where."""
    frames = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    where = " (at {}:{})".format(*frames[-1]) if frames else ""
    return f"{type(error).__name__}{where}: {_text(error)}"


def storable(text: str) -> str:
    """Make a text fit for every store: no lone surrogate, no NUL, of bounded length."""
    brief = text if len(text) <= MAX_LENGTH else text[: MAX_LENGTH - 1] + "…"
    return fit_for_stores(brief)


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException as raised:
        return f"its text cannot be had, {type(raised).__name__}"
