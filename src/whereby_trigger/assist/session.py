"""What a user's assistant is and what it is given: the coroutine or command that is registered, and its session.

A session has the webhooks that an assistant receives until its end. A command with `stdin="stream"` reads the same
after its first line: the events of its room, a line of JSON each. Listeners are told of an assistant by its events.
"""

import asyncio
import inspect
import json
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from math import isinf
from typing import Any, Final, Literal, get_args

from msgspec import Struct

from whereby_trigger.callables import AGAIN, is_again, is_async, name_of
from whereby_trigger.deliveries import session_id
from whereby_trigger.errors import RegistrationError
from whereby_trigger.loggers import own_logger
from whereby_trigger.store import UNKNOWN, Bounds, Presence, RoomState, merge, presence_in
from whereby_trigger.webhook import RoomIdentity, Webhook, replace_lone_surrogates

UNREAD: Final = 1000
"""Maximum webhooks that a session keeps for `webhooks()`: an assistant that never reads them may run for hours."""


class _RoomLog(logging.LoggerAdapter[logging.Logger]):
    """Begin each message with the room, and give each record the run's fields, beside those of the caller."""

    def process(self, message: Any, keywords: Any) -> tuple[Any, Any]:
        fields = self.extra or {}
        return f"[{fields['room']}] {message}", {**keywords, "extra": {**fields, **(keywords.get("extra") or {})}}


class Ended:
    """Signal when and why an assistant must leave: await it, or check `is_set()`. `reason` is "" until then."""

    def __init__(self, told: Callable[[], None]) -> None:
        self._event = asyncio.Event()
        self._told = told
        self.reason = ""

    def is_set(self) -> bool:
        """Return True if the assistant must leave."""
        return self._event.is_set()

    async def wait(self) -> str:
        """Wait until the assistant must leave, and return why."""
        await self._event.wait()
        return self.reason

    def __await__(self) -> Generator[None, None, str]:
        return self.wait().__await__()

    def set(self, reason: str) -> None:
        if not self._event.is_set():
            self.reason = reason
            self._event.set()
            self._told()


class Session:
    """Hold an assistant's room, the webhook that fired, and what happens in the room from then on.

    `webhook` is None if the assistant was started by hand. `attempt` is 1 at the first start, and one more at each
    restart. `log` is a logger that names the room. `ended` is set when the assistant must leave: the room's session
    has ended, nobody was there for `leave_when_empty`, `max_duration` is over, somebody stopped it, or the replica
    drains. It then has `stop_grace` seconds before it is cancelled. `missed` counts the webhooks that were dropped
    because too many were unread. `presence` is who is in the room, at first as the store knew it when the assistant
    started; a new one takes its place with each webhook that says so.
    """

    def __init__(
        self,
        room: RoomIdentity,
        webhook: Webhook | None,
        attempt: int,
        presence: Presence = UNKNOWN,
        replica: str | None = None,
    ) -> None:
        self._key = room.key
        self.room_url = room.url
        self.room_name = room.name
        self.subdomain = room.subdomain
        self.webhook = webhook
        self.attempt = attempt
        fields = _fields(room, webhook, attempt, replica)
        self.log = _RoomLog(own_logger("whereby_trigger.assistant"), fields)
        self._news = asyncio.Event()
        self.ended = Ended(self._news.set)
        self.missed = 0
        self._unread: deque[Webhook] = deque(maxlen=UNREAD)
        self._read = False
        self.presence = presence
        # What the store knows includes the webhook that fired, unless a program stored it that did not use presence.
        if webhook is not None and presence.changed_at is None:
            self._count(webhook)

    @property
    def humans(self) -> int | None:
        """The number of people in the room by the newest counts, without bots; None while it is unknown."""
        return self.presence.humans

    async def webhooks(self) -> AsyncIterator[Webhook]:
        """Yield the room's webhooks after the one that fired, as they come, until the session has ended.

        At most 1,000 unread webhooks are kept, the newest ones.
        """
        self._read = True
        while True:
            while self._unread:
                yield self._unread.popleft()
            if self.ended.is_set():
                return
            self._news.clear()
            await self._news.wait()

    def deliver(self, webhook: Webhook) -> None:
        """Add a webhook of the room."""
        self._count(webhook)
        if len(self._unread) == UNREAD:
            self._miss()
        self._unread.append(webhook)
        self._news.set()

    def _miss(self) -> None:
        self.missed += 1
        if self.missed == 1:
            # An assistant that never reads webhooks does not want them: no warning.
            level = logging.WARNING if self._read else logging.INFO
            self.log.log(level, "more than %s webhooks are unread: keeping only the newest", f"{UNREAD:,}")

    def _count(self, webhook: Webhook) -> None:
        self.presence = presence_after(self.presence, webhook, self._key)


def presence_after(presence: Presence, webhook: Webhook, key: str) -> Presence:
    """Return who is in the room `key` after a webhook; most webhooks change nothing."""
    said = presence_in(webhook, key, time.time())
    return presence if said is None else merge(presence, said)


def _fields(room: RoomIdentity, webhook: Webhook | None, attempt: int, replica: str | None) -> dict[str, object]:
    """Return the fields of each log line about a run; a value that is not known is left out."""
    id, session = (None, None) if webhook is None else (webhook.id, session_id(webhook))
    fields = {"room": room.key, "attempt": attempt, "replica": replica, "webhook_id": id, "session_id": session}
    return {name: value for name, value in fields.items() if value is not None}


async def room_events(session: Session, key: str, told: Presence) -> AsyncIterator[bytes]:
    """Yield the events of the room `key` as lines, from those that its session holds unread to `leave`, the last one.

    `told` is the presence to tell first: that of the session's beginning, before the webhooks that it holds. It holds
    what is not asked for yet, up to its bound. What it dropped is counted in the line that follows.
    """
    missed = 0
    if told.changed_at is not None:
        yield _presence(told)
    async for webhook in session.webhooks():
        # More may be dropped while a line is being written: they came after this webhook.
        dropped, missed = session.missed - missed, session.missed
        if dropped:
            now = session.presence
            yield _line("dropped", count=dropped)
            if _differ(now, told):
                yield _presence(now)
            told = now
        yield _line("webhook", webhook=readable_by_all(webhook.raw))
        now = presence_after(told, webhook, key)
        if _differ(now, told):
            yield _presence(now)
        told = now
    yield _line("leave", reason=session.ended.reason)


def _differ(now: Presence, told: Presence) -> bool:
    return (now.humans, now.bots) != (told.humans, told.bots)


def _presence(now: Presence) -> bytes:
    return _line("presence", humans=now.humans, bots=now.bots, since=_in_utc(now.humans_since))


def _in_utc(moment: datetime | None) -> str | None:
    """Return a moment of UTC in the format of Whereby's `createdAt`."""
    return None if moment is None else moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _line(event: str, **fields: Any) -> bytes:
    return json.dumps({"event": event, **fields}).encode() + b"\n"


def readable_by_all(raw: bytes) -> Any:
    """Read JSON, with null for a number that no double holds and U+FFFD for half a surrogate pair.

    Both are valid JSON, but parsers refuse them, or return an infinity or text that cannot be printed.
    Source: RFC 8259, 6 and 8.2.
    """
    whole = replace_lone_surrogates(raw)
    return json.loads(whole, parse_int=partial(_number, kind=int), parse_float=partial(_number, kind=float))


def _number(text: str, kind: type[int] | type[float]) -> float | None:
    return None if isinf(float(text)) else kind(text)


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
        return name_of(self.function)


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
    if not (env is None or _is_environment(env)):
        raise RegistrationError('an assistant\'s env is a dict of names and strings: write env={"PORT": "8080"}')
    return CommandAssistant(tuple(argv), dict(env or {}), log_output, bots, bounds, stdin)


def _is_environment(env: object) -> bool:
    if not isinstance(env, Mapping):
        return False
    texts = [*env, *env.values()]
    return all(isinstance(text, str) and "\0" not in text for text in texts) and not any("=" in name for name in env)


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
