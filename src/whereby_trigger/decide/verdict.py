"""What a predicate says about a webhook: asked up to three times, and taken at its word only if that is a bool."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from msgspec import Struct, structs

from whereby_trigger.decide.failure import describe, kind
from whereby_trigger.decide.predicates import Predicate
from whereby_trigger.decide.user_code import UserCode
from whereby_trigger.decide.user_thread import LeftBehind
from whereby_trigger.shortage import shortage_now
from whereby_trigger.webhook import Webhook, is_human

BACKOFF: Final = (0.5, 2.0)
"""Seconds before a predicate that raised is asked the second and the third time."""

ATTEMPTS: Final = len(BACKOFF) + 1


class Verdict(Struct, frozen=True):
    """Hold a predicate's answer: True or False, or None where it failed; the reason; how often it was asked.

    `error` is what it raised, in full; the reason holds nothing of it but its type. `short` says what the process had
    run out of, if that is why it failed: then the answer may be another as soon as there is some again.
    """

    answer: bool | None
    reason: str
    asked: int
    error: str | None = None
    short: str | None = None


async def ask(
    predicate: Predicate,
    webhook: Webhook,
    user_code: UserCode,
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Verdict:
    """Ask a predicate about a webhook, again after a backoff where it raises or is too slow.

    A sync predicate over the limit is not asked again: its thread cannot be stopped, only left behind.
    """
    arguments = predicate.arguments(webhook)
    asked = 0
    while True:
        asked += 1
        outcome = await user_code.ask(predicate.function, arguments, predicate.is_async)
        if outcome.error is None:
            return _judge(predicate, webhook, outcome.value, asked)
        if (short := shortage_now(outcome.error)) is not None:
            return structs.replace(_failed(predicate, outcome.error, asked), short=short)
        if isinstance(outcome.error, LeftBehind) or asked == ATTEMPTS:
            return _failed(predicate, outcome.error, asked)
        await pause(BACKOFF[asked - 1])


def _failed(predicate: Predicate, error: BaseException, asked: int) -> Verdict:
    times = "once" if asked == 1 else f"{asked} times"
    reason = f"predicate {predicate.name} {kind(error)}, {times}"
    return Verdict(None, reason, asked, f"predicate {predicate.name}: {describe(error)}")


def _judge(predicate: Predicate, webhook: Webhook, answer: object, asked: int) -> Verdict:
    if answer is True:
        return Verdict(True, f"predicate {predicate.name} returned True", asked)
    if answer is False:
        reason = f"predicate {predicate.name} returned False"
        return Verdict(False, reason if is_human(webhook) else f"{reason} (a bot's own event: is_human)", asked)
    hint = ": is a `return` missing?" if answer is None else ", not True or False"
    return Verdict(None, f"predicate {predicate.name} returned {_brief(answer)}{hint}", asked)


def _brief(answer: object) -> str:
    return "None" if answer is None else f"a value of type {type(answer).__name__}"
