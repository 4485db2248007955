"""The predicates: one for each webhook type, registered by `when` and asked up to three times; and their verdicts.

Only a bool counts as an answer. The rules on what a verdict makes of a webhook are pure: the decider reads them, and so
does a backtest.
"""

import asyncio
import difflib
import traceback
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final, Generic, Literal, TypedDict, TypeVar, overload

from msgspec import Struct, structs

from whereby_trigger.callables import AGAIN, UserFunction, count_arguments, is_again, is_async, name_of, place_of
from whereby_trigger.decide.pending import Seen, held_in_words, in_seconds, seen
from whereby_trigger.decide.user_code import LeftBehind, TookTooLong, UserCode
from whereby_trigger.errors import RegistrationError
from whereby_trigger.store import UNKNOWN, Presence, State
from whereby_trigger.text import storable_text
from whereby_trigger.threads import shortage_now
from whereby_trigger.webhook import (
    ROOM_TYPES,
    WEBHOOK_TYPES,
    AssistantRequested,
    RoomClientJoined,
    RoomClientKnockCancelled,
    RoomClientKnocked,
    RoomClientLeft,
    RoomIdentity,
    RoomSessionEnded,
    RoomSessionStarted,
    Webhook,
    is_human,
    why_no_room,
)

MAX_LENGTH = 500
LONGEST_HOLD: Final = 1e8
"""Seconds that no hold reaches, three years: a deadline of an event loop must not be too far off for it."""

LOOP_MISSING = ("no running event loop", "no current event loop")


def brief_error(error: BaseException) -> str:
    """Return what happened without the exception's own text, which may hold a person's name."""
    if isinstance(error, TookTooLong):
        return str(error)
    if isinstance(error, asyncio.CancelledError):
        return "was cancelled"
    if isinstance(error, RuntimeError) and any(hint in _text(error) for hint in LOOP_MISSING):
        return "needs the event loop: make it `async def`, because sync code runs in a thread"
    return f"raised {type(error).__name__}"


def full_error(error: BaseException) -> str:
    """Return what was raised and where, in full: for the store only."""
    return f"{located_error(error)}: {_text(error)}"


def located_error(error: BaseException) -> str:
    """Return the type of what was raised and where, without its text."""
    frames = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    where = " (at {}:{})".format(*frames[-1]) if frames else ""
    return f"{type(error).__name__}{where}"


def storable_error(text: str) -> str:
    """Return a text that every store takes: without lone surrogates and NUL, of at most MAX_LENGTH characters."""
    brief = text if len(text) <= MAX_LENGTH else text[: MAX_LENGTH - 1] + "…"
    return storable_text(brief)


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException as raised:
        return f"(its text raised {type(raised).__name__})"


P_contra = TypeVar("P_contra", contravariant=True)
Answer = bool | Awaitable[bool]
TypedPredicate = Callable[[P_contra], Answer] | Callable[[], Answer] | Callable[[P_contra, Presence], Answer]


class Hold(Generic[P_contra]):
    """Have a predicate fire only if it says True for some seconds: `{"room.client.joined": Hold(two_people, 30)}`.

    It is asked again on each change of who is in the room, and when the time is over.
    """

    __slots__ = ("predicate", "seconds")

    def __init__(self, predicate: TypedPredicate[P_contra], seconds: float) -> None:
        self.predicate, self.seconds = predicate, seconds

    def __repr__(self) -> str:
        return f"Hold({self.predicate!r}, {self.seconds!r})"


class Predicate(Struct, frozen=True):
    """Hold a user's predicate and how to call it: `takes` is how many arguments it gets.

    `hold` is for how many seconds it must say True, and `uses_presence` True if it depends on who is in the room.
    """

    function: UserFunction
    name: str
    is_async: bool
    takes: int
    hold: float | None = None
    uses_presence: bool = False

    @property
    def takes_presence(self) -> bool:
        return self.takes > 1


class Predicates:
    """Keep one predicate for each webhook type that names a room: `by_type`."""

    def __init__(self, by_type: Mapping[str, Any] | None = None) -> None:
        self.by_type: dict[str, Predicate] = {}
        for type, function in (by_type or {}).items():
            if isinstance(function, Hold):
                self.register(type, function.predicate, function.seconds)
            else:
                self.register(type, function)

    def register(
        self, type: str, function: UserFunction, hold: float | None = None, *, keeps_presence: bool = True
    ) -> None:
        """Make a function the predicate for a webhook type; with a hold, it must say True for that many seconds.

        Raises RegistrationError if the type is unknown, names no room, or already has a predicate, for a hold that is
        no number of seconds above 0, and if it depends on who is in the room but nobody `keeps_presence`.
        """
        _check_type(type)
        _check_hold(type, hold)
        takes = count_arguments(function, "predicate", type)
        uses_presence = takes > 1 or hold is not None
        if uses_presence and not keeps_presence:
            raise RegistrationError(
                f"the trigger is already running, and keeps nothing of who is in a room, on which the predicate for "
                f"{type!r} depends: register it before the trigger starts"
            )
        predicate = Predicate(function, name_of(function), is_async(function), takes, hold, uses_presence)
        other = self.by_type.get(type)
        if other is not None:
            again = is_again(function, other.function)
            remedy = AGAIN if again else "join them into one that returns `first(webhook) or second(webhook)`"
            raise RegistrationError(
                f"{type!r} has two predicates: {other.name} at {place_of(other.function)} and {predicate.name} at "
                f"{place_of(function)}: {remedy}"
            )
        self.by_type[type] = predicate

    @property
    def use_presence(self) -> bool:
        """True if a predicate asks who is in its webhook's room, or is asked again when that changes."""
        return any(predicate.uses_presence for predicate in self.by_type.values())

    def types(self) -> list[str]:
        """Return the webhook types that have a predicate."""
        return list(self.by_type)

    def names(self) -> dict[str, str]:
        """Return the name of each webhook type's predicate."""
        return {type: predicate.name for type, predicate in self.by_type.items()}


def _check_hold(type: str, hold: object) -> None:
    if hold is None:
        return
    if isinstance(hold, bool) or not isinstance(hold, int | float) or not 0 < hold < LONGEST_HOLD:
        raise RegistrationError(
            f"hold is for how many seconds the predicate for {type!r} must say True, above 0 and below "
            f"{LONGEST_HOLD:g}, not {hold!r}: write hold=30, or leave it out to fire at once"
        )


def _check_type(type: str) -> None:
    if type in ROOM_TYPES:
        return
    if type in WEBHOOK_TYPES:
        raise RegistrationError(
            f"{type!r} names no room, so it cannot start an assistant: listen with @trigger.on({type!r})"
        )
    raise RegistrationError(f"there is no webhook type {type!r}{did_you_mean(type, ROOM_TYPES)}")


def did_you_mean(word: object, words: Iterable[str]) -> str:
    """Return a hint for a wrong word: the nearest of the right words, or all of them."""
    candidates = list(words)
    near = difflib.get_close_matches(str(word), candidates, 1, 0.6)
    return f": did you mean {near[0]!r}?" if near else ": use one of " + ", ".join(candidates)


BACKOFF: Final = (0.5, 2.0)
"""Seconds before a predicate that raised is asked the second and the third time."""

ATTEMPTS: Final = len(BACKOFF) + 1


class Verdict(Struct, frozen=True):
    """Hold a predicate's answer, True or False, or None if it failed; the reason; and how often it was asked.

    `error` is what it raised, in full; the reason holds only its type, and `raised` its type and where. `short` is what
    the process had run out of, if that is why the predicate failed: then it may succeed later. `presence` is who was in
    the room, if that was read.
    """

    answer: bool | None
    reason: str
    asked: int
    error: str | None = None
    short: str | None = None
    presence: Presence = UNKNOWN
    raised: str | None = None


NO_COUNT: Final = (
    ": presence.humans is None, because no count says who is in this room now; "
    "write `presence.humans is not None and …`"
)


async def ask(
    predicate: Predicate,
    webhook: Webhook,
    find_presence: Callable[[], Awaitable[Presence]],
    user_code: UserCode,
    pause: Callable[[float], Awaitable[None]],
) -> Verdict:
    """Ask a predicate about a webhook; if it raises or is too slow, ask again after each BACKOFF.

    `find_presence` returns who is in the room now; it is called before each asking of a predicate that uses that. A
    sync predicate over the limit is not asked again: its thread cannot be stopped.
    """
    asked, presence = 0, UNKNOWN
    while True:
        if predicate.uses_presence:
            presence = await find_presence()
        asked += 1
        arguments = (webhook, presence)[: predicate.takes]
        outcome = await user_code.ask(predicate.function, arguments, predicate.is_async)
        if outcome.error is None:
            return _judge(predicate, webhook, outcome.value, asked, presence)
        if (short := shortage_now(outcome.error)) is not None:
            return structs.replace(_failed(predicate, outcome.error, asked), short=short)
        if isinstance(outcome.error, LeftBehind) or asked == ATTEMPTS:
            is_unknown = predicate.takes_presence and presence.humans is None
            return _failed(predicate, outcome.error, asked, is_unknown=is_unknown)
        await pause(BACKOFF[asked - 1])


def _failed(predicate: Predicate, error: BaseException, asked: int, *, is_unknown: bool = False) -> Verdict:
    times = "once" if asked == 1 else f"{asked} times"
    met_none = isinstance(error, TypeError | AttributeError) and "NoneType" in _text(error)
    reason = f"predicate {predicate.name} {brief_error(error)}, {times}{NO_COUNT if is_unknown and met_none else ''}"
    full, raised = (f"predicate {predicate.name}: {told(error)}" for told in (full_error, located_error))
    return Verdict(None, reason, asked, full, raised=raised)


def _judge(predicate: Predicate, webhook: Webhook, answer: object, asked: int, presence: Presence) -> Verdict:
    if answer is True:
        return Verdict(True, f"predicate {predicate.name} returned True", asked, presence=presence)
    if answer is False:
        reason = f"predicate {predicate.name} returned False"
        shown = reason if is_human(webhook) else f"{reason} (a bot's own event: is_human)"
        return Verdict(False, shown, asked, presence=presence)
    missing = NO_COUNT if predicate.takes_presence and presence.humans is None else ": is a `return` missing?"
    hint = missing if answer is None else ", not True or False"
    return Verdict(None, f"predicate {predicate.name} returned {_brief(answer)}{hint}", asked, presence=presence)


def _brief(answer: object) -> str:
    return "None" if answer is None else f"a value of type {type(answer).__name__}"


DIED = "the process ended while it was in user code"
"""How the reason begins of a webhook that was blamed too often for the end of its process."""


class Judgement(Struct, frozen=True):
    """Hold a state and its reason, before they become a decision; `error`, `raised` and `short` as in a verdict.

    If the state is `held`, it is so for `hold` seconds in all, and the predicate was asked with the presence `seen`.
    """

    state: State
    reason: str
    asked: int = 0
    error: str | None = None
    short: str | None = None
    raised: str | None = None
    hold: float = 0.0
    seen: Seen = (None, None)


def too_old(max_age: float, *, was_due: bool) -> Judgement:
    """Return what becomes of a webhook older than `max_age`: its age counts from when its hold was due, if any."""
    if was_due:
        return Judgement(State.SKIPPED, f"due longer than max_age ({max_age:g} s) ago")
    return Judgement(State.SKIPPED, f"older than max_age ({max_age:g} s) when it was first decided")


def without_predicate(type: str, *, listened: bool) -> Judgement:
    """Return what becomes of a webhook of a type that has no predicate; `listened` is True if it has listeners."""
    if listened:
        return Judgement(State.NOTIFIED, "no predicate for its type; its listeners were called")
    return Judgement(State.UNHANDLED, f"no predicate and no listener for {type}")


def judge(
    predicate: Predicate,
    verdict: Verdict,
    webhook: Webhook,
    room: RoomIdentity | None,
    subdomain: str | None,
    *,
    held_for: float | None,
    is_due: bool,
) -> Judgement:
    """Return what a verdict makes of a webhook. `subdomain` is the setting, for the reasons.

    Its hold began `held_for` seconds ago, or has not begun if that is None; `is_due` is True if the predicate was asked
    when the hold was over.
    """
    if verdict.answer is None:
        return Judgement(State.FAILED, verdict.reason, verdict.asked, verdict.error, verdict.short, verdict.raised)
    if not verdict.answer:
        no_longer = "" if held_for is None else f", no longer true after {in_seconds(held_for)}"
        return Judgement(State.SKIPPED, f"{verdict.reason}{no_longer}", verdict.asked)
    if room is None:
        return Judgement(State.FAILED, f"{verdict.reason}, but {why_no_room(webhook, subdomain)}", verdict.asked)
    if predicate.hold is None:
        return Judgement(State.FIRED, verdict.reason, verdict.asked)
    if not is_due:
        reason = held_in_words(predicate.hold, verdict.presence)
        return Judgement(State.HELD, reason, verdict.asked, hold=predicate.hold, seen=seen(verdict.presence))
    return Judgement(State.FIRED, f"{verdict.reason} for {predicate.hold:g} s", verdict.asked)


RoomType = Literal[
    "room.client.joined",
    "room.client.left",
    "room.client.knocked",
    "room.client.knockCancelled",
    "room.session.started",
    "room.session.ended",
    "assistant.requested",
]

WebhookTriggers = TypedDict(
    "WebhookTriggers",
    {
        "room.client.joined": TypedPredicate[RoomClientJoined] | Hold[RoomClientJoined],
        "room.client.left": TypedPredicate[RoomClientLeft] | Hold[RoomClientLeft],
        "room.client.knocked": TypedPredicate[RoomClientKnocked] | Hold[RoomClientKnocked],
        "room.client.knockCancelled": TypedPredicate[RoomClientKnockCancelled] | Hold[RoomClientKnockCancelled],
        "room.session.started": TypedPredicate[RoomSessionStarted] | Hold[RoomSessionStarted],
        "room.session.ended": TypedPredicate[RoomSessionEnded] | Hold[RoomSessionEnded],
        "assistant.requested": TypedPredicate[AssistantRequested] | Hold[AssistantRequested],
    },
    total=False,
)
"""Predicates by webhook type. Source: Whereby's Assistant SDK reference, WherebyWebhookTriggers."""

JoinedPredicate = TypeVar("JoinedPredicate", bound=TypedPredicate[RoomClientJoined])
LeftPredicate = TypeVar("LeftPredicate", bound=TypedPredicate[RoomClientLeft])
KnockedPredicate = TypeVar("KnockedPredicate", bound=TypedPredicate[RoomClientKnocked])
KnockCancelledPredicate = TypeVar("KnockCancelledPredicate", bound=TypedPredicate[RoomClientKnockCancelled])
SessionStartedPredicate = TypeVar("SessionStartedPredicate", bound=TypedPredicate[RoomSessionStarted])
SessionEndedPredicate = TypeVar("SessionEndedPredicate", bound=TypedPredicate[RoomSessionEnded])
AssistantRequestedPredicate = TypeVar("AssistantRequestedPredicate", bound=TypedPredicate[AssistantRequested])
AnyPredicate = TypeVar("AnyPredicate", bound=Callable[..., Answer])


class When:
    """Register a predicate for one webhook type or several: `@trigger.when("room.client.joined")`.

    The function takes the webhook, the webhook and the room's `Presence`, or nothing, is sync or async, and returns
    True or False. The decorator returns it unchanged. With `hold=30` it fires only if it says True for 30 seconds: it
    is asked again on each change of who is in the room, and when they are over. Raises RegistrationError if a type is
    unknown, names no room, or already has a predicate, for a hold that is no number above 0, and once the trigger runs
    for the first predicate that depends on who is in the room, unless an assistant is registered.
    """

    def __init__(self, predicates: Predicates, keeps_presence: Callable[[], bool]) -> None:
        self._predicates = predicates
        self._keeps_presence = keeps_presence

    @overload
    def __call__(
        self, type: Literal["room.client.joined"], /, *, hold: float | None = None
    ) -> Callable[[JoinedPredicate], JoinedPredicate]: ...
    @overload
    def __call__(
        self, type: Literal["room.client.left"], /, *, hold: float | None = None
    ) -> Callable[[LeftPredicate], LeftPredicate]: ...
    @overload
    def __call__(
        self, type: Literal["room.client.knocked"], /, *, hold: float | None = None
    ) -> Callable[[KnockedPredicate], KnockedPredicate]: ...
    @overload
    def __call__(
        self, type: Literal["room.client.knockCancelled"], /, *, hold: float | None = None
    ) -> Callable[[KnockCancelledPredicate], KnockCancelledPredicate]: ...
    @overload
    def __call__(
        self, type: Literal["room.session.started"], /, *, hold: float | None = None
    ) -> Callable[[SessionStartedPredicate], SessionStartedPredicate]: ...
    @overload
    def __call__(
        self, type: Literal["room.session.ended"], /, *, hold: float | None = None
    ) -> Callable[[SessionEndedPredicate], SessionEndedPredicate]: ...
    @overload
    def __call__(
        self, type: Literal["assistant.requested"], /, *, hold: float | None = None
    ) -> Callable[[AssistantRequestedPredicate], AssistantRequestedPredicate]: ...
    @overload
    def __call__(
        self, type: RoomType, second: RoomType, /, *more: RoomType, hold: float | None = None
    ) -> Callable[[AnyPredicate], AnyPredicate]: ...
    def __call__(self, *types: str, hold: float | None = None) -> Any:
        if not types or not all(isinstance(type, str) for type in types):
            raise RegistrationError('when() takes webhook types: write @trigger.when("room.client.joined")')

        def register(function: Callable[..., Any]) -> Callable[..., Any]:
            for type in types:
                self._predicates.register(type, function, hold, keeps_presence=self._keeps_presence())
            return function

        return register
