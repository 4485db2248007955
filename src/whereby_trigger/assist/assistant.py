"""What a user registers to run in a room, a coroutine or a command, and what listeners are told of it."""

import inspect
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final, Literal, get_args

from msgspec import Struct

from whereby_trigger.assist.session import Session
from whereby_trigger.callables import AGAIN, is_again, is_async
from whereby_trigger.errors import RegistrationError
from whereby_trigger.store import Bounds, RoomState

Stdin = Literal["line", "stream"]
"""What a command reads on its stdin: one line and the end of file, or after it a line for each event of its room."""

STDIN: Final[tuple[str, ...]] = get_args(Stdin)

AssistantFunction = Callable[[Session], Coroutine[Any, Any, Any]]

Duration = float | timedelta
"""Seconds, or a timedelta."""

LEAVE_WHEN_EMPTY: Final = 60.0
MAX_DURATION: Final = 12 * 3600.0
LONGEST: Final = timedelta.max.total_seconds()
DEFAULT_BOUNDS: Final = Bounds(LEAVE_WHEN_EMPTY, MAX_DURATION)


class CoroutineAssistant(Struct, frozen=True):
    """Run the user's coroutine function in each room; with `bots`, a bot's join starts one too."""

    function: AssistantFunction
    bots: bool = False
    bounds: Bounds = DEFAULT_BOUNDS

    @property
    def name(self) -> str:
        return getattr(self.function, "__name__", type(self.function).__name__)


class CommandAssistant(Struct, frozen=True):
    """Run a command as a process in each room; `env` is added to its environment, `stdin` says what it reads."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    log_output: bool = False
    bots: bool = False
    bounds: Bounds = DEFAULT_BOUNDS
    stdin: Stdin = "line"

    @property
    def name(self) -> str:
        return " ".join(self.argv)


Assistant = CoroutineAssistant | CommandAssistant


def bounds_of(leave_when_empty: Duration | None, max_duration: Duration | None) -> Bounds:
    """Return the bounds of an assistant; raises RegistrationError, with what to write, for what is no duration."""
    return Bounds(_bound("leave_when_empty", leave_when_empty), _bound("max_duration", max_duration))


def _bound(name: str, value: object) -> float | None:
    if value is None:
        return None
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    # A NaN compares as False with everything.
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= LONGEST:
        raise RegistrationError(
            f"{name} must be seconds as a number or a timedelta, more than 0, not {value!r}: "
            f"write {name}=60, or {name}=None for no bound"
        )
    return float(seconds)


def coroutine_assistant(function: Any, bots: bool, bounds: Bounds = DEFAULT_BOUNDS) -> CoroutineAssistant:
    """Return a coroutine assistant; raises RegistrationError, with the right form, if the function cannot be one."""
    name = getattr(function, "__name__", repr(function))
    if not is_async(function):
        raise RegistrationError(
            f"the assistant {name} must be a coroutine: write `async def {name}(session: Session) -> None`"
        )
    try:
        inspect.signature(function).bind(object())
    except TypeError:
        raise RegistrationError(
            f"the assistant {name} must take one argument, its session: write `async def {name}(session: Session)`"
        ) from None
    return CoroutineAssistant(function, bots, bounds)


def command_assistant(
    argv: Sequence[str],
    env: Mapping[str, str] | None,
    log_output: bool,
    bots: bool,
    bounds: Bounds = DEFAULT_BOUNDS,
    stdin: Stdin = "line",
) -> CommandAssistant:
    """Return a command assistant; raises RegistrationError, with the right form, if the command cannot be one."""
    if isinstance(argv, str) or not argv or not all(isinstance(part, str) and "\0" not in part for part in argv):
        raise RegistrationError('an assistant\'s command is a list of strings: write ["node", "assistant.mjs"]')
    if stdin not in STDIN:
        raise RegistrationError(
            f'stdin={stdin!r} is not known: write stdin="line" for one line of JSON and the end of file, '
            'or stdin="stream" for a line for each event of the room after it'
        )
    return CommandAssistant(tuple(argv), dict(env or {}), log_output, bots, bounds, stdin)


class Registered:
    """Hold the one assistant of a trigger."""

    def __init__(self) -> None:
        self.assistant: Assistant | None = None

    def register(self, assistant: Assistant, *, running: bool) -> None:
        """Set the trigger's assistant; raises RegistrationError if it has one already, or is running."""
        if self.assistant is not None:
            both = [getattr(one, "function", None) for one in (self.assistant, assistant)]
            remedy = AGAIN if is_again(*both) else f"call {assistant.name} from there, or make another Trigger"
            raise RegistrationError(
                f"a trigger has one assistant, and this one already has {self.assistant.name}: {remedy}"
            )
        if running:
            raise RegistrationError(
                f"the trigger is already running, so {assistant.name} would never be started: "
                "register the assistant before the trigger starts, e.g. above `async with trigger.lifespan(app)`"
            )
        self.assistant = assistant


ASSISTANT_EVENT_STARTED: Final = "assistant_event_started"
"""The event of an assistant that is live in its room."""

ASSISTANT_EVENT_ENDED: Final = "assistant_event_ended"
"""The event of a room whose assistant has left, or was asked to."""

ASSISTANT_EVENT_FAILED: Final = "assistant_event_failed"
"""The event of a room whose assistant failed for good."""


class AssistantEvent(Struct, frozen=True):
    """Tell what became of an assistant: its room's URL, its state now and why, and which attempt it was.

    `state` is `live`, `ended` or `failed`. `reason` of one that is live says why an earlier attempt was over; it is ""
    at the first. `webhook_id` is the webhook that fired, or None if the assistant was started by hand.
    """

    room_url: str
    state: RoomState
    reason: str
    attempt: int
    webhook_id: str | None


Announce = Callable[[AssistantEvent], None]
"""Have an event told; returns at once."""


def announce_nothing(event: AssistantEvent) -> None:
    """Stand in for what tells listeners, where nobody listens."""
