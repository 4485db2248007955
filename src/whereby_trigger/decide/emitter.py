"""The emitter: listeners by event name, registered by `on` and called in the order of their registration.

The announcer calls those of assistants' events, one event after the other, and holds up nobody.
"""

import asyncio
import contextlib
import difflib
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Literal, Protocol, TypeVar, overload

from msgspec import Struct

from whereby_trigger.assist import (
    ASSISTANT_EVENT_ENDED,
    ASSISTANT_EVENT_FAILED,
    ASSISTANT_EVENT_STARTED,
    AssistantEvent,
)
from whereby_trigger.callables import UserFunction, count_arguments, is_async, name_of
from whereby_trigger.decide.predicates import brief_error
from whereby_trigger.decide.user_code import UserCode
from whereby_trigger.errors import RegistrationError
from whereby_trigger.loggers import own_logger
from whereby_trigger.store import RoomState
from whereby_trigger.webhook import (
    WEBHOOK_TYPES,
    AssistantRequested,
    RecordingFinished,
    RoomClientJoined,
    RoomClientKnockCancelled,
    RoomClientKnocked,
    RoomClientLeft,
    RoomSessionEnded,
    RoomSessionStarted,
    RoomWebhook,
    TranscriptionFailed,
    TranscriptionFinished,
    TranscriptionStarted,
    room_from_url,
)

TRIGGER_EVENT_SUCCESS: Final = "trigger_event_success"
"""The event that tells that a trigger has fired. Source: Whereby's Assistant SDK reference, Trigger."""

OWN_EVENTS: Final = (
    TRIGGER_EVENT_SUCCESS,
    ASSISTANT_EVENT_STARTED,
    ASSISTANT_EVENT_ENDED,
    ASSISTANT_EVENT_FAILED,
)
"""The events that are not webhook types: a webhook of a type with such a name does not cause them."""

ALIKE: Final = 0.8
"""How alike, from 0 to 1, each part of an event's name must be to that of another to be taken for a slip."""


class TriggerSuccess(Struct, frozen=True):
    """Tell that a trigger has fired: the room's URL and the webhook that its predicate said True to.

    `attempt` is 1, and one more for every time a process ended before the decision was on disk: then listeners may
    hear of the same webhook again. Source: Whereby's Assistant SDK reference, TriggerEvents.
    """

    room_url: str
    trigger_webhook: RoomWebhook
    attempt: int = 1


class Listener(Struct, frozen=True, eq=False):
    """Describe a user's listener and how it is called."""

    function: UserFunction
    name: str
    is_async: bool
    takes_payload: bool
    once: bool


class ListenersLeft(Struct, eq=False):
    """Hold which listeners of an event are still to be called, and whether any was."""

    listeners: deque[Listener]
    called: bool = False


class Emitter:
    """Keep listeners by event and call them; an exception of one hinders no other.

    Registering and removing may happen in any thread, also from a listener.
    """

    def __init__(self) -> None:
        self._by_event: dict[str, tuple[Listener, ...]] = {}
        self._changing = threading.Lock()

    def on(self, event: str, function: UserFunction, *, once: bool = False) -> None:
        """Register a listener; raises RegistrationError for an event that looks misspelt."""
        _check_event(event)
        takes_payload = count_arguments(function, "listener", event) == 1
        listener = Listener(function, name_of(function), is_async(function), takes_payload, once)
        with self._changing:
            self._by_event[event] = (*self._by_event.get(event, ()), listener)

    def off(self, event: str, function: UserFunction) -> bool:
        """Remove the newest registration of a listener; tell whether there was one."""
        for listener in reversed(self._by_event.get(event, ())):
            if listener.function == function and self._take(event, listener):
                return True
        return False

    def listeners(self, event: str) -> list[UserFunction]:
        """List an event's listeners, in order."""
        return [listener.function for listener in self._by_event.get(event, ())]

    def events(self) -> list[str]:
        """List the events that have a listener."""
        return [event for event, listeners in self._by_event.items() if listeners]

    async def emit(
        self,
        event: str,
        payload: Any,
        user_code: UserCode,
        failed: Callable[[str, BaseException], None],
        left: ListenersLeft | None = None,
    ) -> bool:
        """Call an event's listeners and tell whether there was one.

        `failed` is told the name of each listener that raises and what: of async ones later, when they do. If an error
        interrupts this, another call with the same `left` calls those that were not called yet.
        """
        left = self.listeners_left(event) if left is None else left
        while left.listeners:
            listener = left.listeners.popleft()
            if listener.once and not self._take(event, listener):
                continue
            left.called = True
            arguments = (payload,) if listener.takes_payload else ()
            await user_code.tell(listener.function, arguments, listener.is_async, partial(failed, listener.name))
        return left.called

    def listeners_left(self, event: str) -> "ListenersLeft":
        """Return the listeners of an event, all of them still to be called."""
        return ListenersLeft(deque(self._by_event.get(event, ())))

    def _take(self, event: str, listener: Listener) -> bool:
        with self._changing:
            listeners = self._by_event[event]
            self._by_event[event] = tuple(other for other in listeners if other is not listener)
            return len(self._by_event[event]) < len(listeners)


def _check_event(event: str) -> None:
    if not isinstance(event, str):
        raise RegistrationError(f"an event is named by a text, not by {event!r}: write @trigger.on(NAME)")
    known = (*WEBHOOK_TYPES, *OWN_EVENTS)
    meant = [name for name in known if _misspells(event, name)]
    if meant and event not in known:
        raise RegistrationError(f"there is no event {event!r}: did you mean {meant[0]!r}?")


def _misspells(event: str, name: str) -> bool:
    # Part by part: what Whereby adds one day is likely to differ from what there is in its last part only.
    parts, named = event.lower().split("."), name.lower().split(".")
    alike = (difflib.SequenceMatcher(None, *pair).ratio() >= ALIKE for pair in zip(parts, named, strict=False))
    return len(parts) == len(named) and all(alike)


logger = own_logger("whereby_trigger.decide")

MOST_WAITING: Final = 1000
"""Events that may wait for listeners, or two for each of `max_rooms` if that is more; the log says what is dropped."""

NAMES: Final = {
    RoomState.LIVE: ASSISTANT_EVENT_STARTED,
    RoomState.ENDED: ASSISTANT_EVENT_ENDED,
    RoomState.FAILED: ASSISTANT_EVENT_FAILED,
}


class Announcer:
    """Call listeners with the events of our assistants, at most `max_rooms` at a time, in order of commit."""

    def __init__(self, emitter: Emitter, user_code: UserCode, max_rooms: int) -> None:
        self._emitter = emitter
        self._user_code = user_code
        # All of its rooms may end together and begin again.
        self._waiting: asyncio.Queue[AssistantEvent] = asyncio.Queue(max(MOST_WAITING, 2 * max_rooms))
        self.told = 0
        """How many events listeners were called for so far."""

        self._announced = 0
        self._heard = 0

    def announce(self, event: AssistantEvent) -> None:
        """Have the listeners of an event called, and return at once."""
        if not self._emitter.listeners(NAMES[event.state]):
            return
        try:
            self._waiting.put_nowait(event)
            self._announced += 1
        except asyncio.QueueFull:
            logger.warning(
                "nobody is told that the assistant in %s is %s: the listeners of %d earlier events have not returned",
                event.room_url,
                event.state,
                self._waiting.maxsize,
                extra=_fields(event),
            )

    @property
    def idle(self) -> bool:
        """True if listeners were called for every event; async ones may still run."""
        return self._heard == self._announced

    async def run(self) -> None:
        """Tell what is announced, until cancelled."""
        while True:
            event = await self._waiting.get()
            self.told += 1
            try:
                await self._emitter.emit(NAMES[event.state], event, self._user_code, partial(_failed, event))
            finally:
                self._heard += 1
                self._waiting.task_done()

    async def drain(self, timeout: float) -> None:
        """Wait at most `timeout` seconds until everything announced was told; async listeners may still run then."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._waiting.join()


def _failed(event: AssistantEvent, listener: str, error: BaseException) -> None:
    words = listener, brief_error(error), NAMES[event.state], event.room_url
    logger.warning("listener %s %s (%s of %s)", *words, extra=_fields(event))


def _fields(event: AssistantEvent) -> dict[str, object]:
    """Return the fields of a log line about an event, without the attempt: lines that have one are not folded."""
    fields: dict[str, object] = {"room": room_from_url(event.room_url).key}
    return fields if event.webhook_id is None else fields | {"webhook_id": event.webhook_id}


P = TypeVar("P")
Returned = TypeVar("Returned", covariant=True)

TypedListener = Callable[[P], object] | Callable[[], object]


class WithDefault(Protocol[Returned]):
    """Accept a lambda that binds a variable of a loop, `lambda payload, name=name: …`.

    mypy accepts any function with a default as a function of one argument, but not a lambda with one.
    """

    def __call__(self, payload: object, bound: Any = ..., /) -> Returned: ...


AssistantEventName = Literal["assistant_event_started", "assistant_event_ended", "assistant_event_failed"]

SuccessListener = TypeVar("SuccessListener", bound=TypedListener[TriggerSuccess])
AssistantListener = TypeVar("AssistantListener", bound=TypedListener[AssistantEvent])
JoinedListener = TypeVar("JoinedListener", bound=TypedListener[RoomClientJoined])
LeftListener = TypeVar("LeftListener", bound=TypedListener[RoomClientLeft])
KnockedListener = TypeVar("KnockedListener", bound=TypedListener[RoomClientKnocked])
KnockCancelledListener = TypeVar("KnockCancelledListener", bound=TypedListener[RoomClientKnockCancelled])
SessionStartedListener = TypeVar("SessionStartedListener", bound=TypedListener[RoomSessionStarted])
SessionEndedListener = TypeVar("SessionEndedListener", bound=TypedListener[RoomSessionEnded])
TranscriptionStartedListener = TypeVar("TranscriptionStartedListener", bound=TypedListener[TranscriptionStarted])
TranscriptionFinishedListener = TypeVar("TranscriptionFinishedListener", bound=TypedListener[TranscriptionFinished])
TranscriptionFailedListener = TypeVar("TranscriptionFailedListener", bound=TypedListener[TranscriptionFailed])
RecordingFinishedListener = TypeVar("RecordingFinishedListener", bound=TypedListener[RecordingFinished])
AssistantRequestedListener = TypeVar("AssistantRequestedListener", bound=TypedListener[AssistantRequested])
AnyListener = TypeVar("AnyListener", bound=Callable[..., Any])
Result = TypeVar("Result")


class On:
    """Register a listener for an event: `@trigger.on(NAME)` or `trigger.on(NAME, listener)`.

    NAME is TRIGGER_EVENT_SUCCESS, an ASSISTANT_EVENT_…, a webhook type, or a name of your own that you emit. The
    function takes the event's payload or nothing, and is sync or async. It is returned unchanged. Raises
    RegistrationError for a misspelt name.
    """

    def __init__(self, emitter: Emitter, *, once: bool) -> None:
        self._emitter = emitter
        self._once = once

    @overload
    def __call__(self, event: Literal["trigger_event_success"], /) -> Callable[[SuccessListener], SuccessListener]: ...
    @overload
    def __call__(self, event: AssistantEventName, /) -> Callable[[AssistantListener], AssistantListener]: ...
    @overload
    def __call__(self, event: Literal["room.client.joined"], /) -> Callable[[JoinedListener], JoinedListener]: ...
    @overload
    def __call__(self, event: Literal["room.client.left"], /) -> Callable[[LeftListener], LeftListener]: ...
    @overload
    def __call__(self, event: Literal["room.client.knocked"], /) -> Callable[[KnockedListener], KnockedListener]: ...
    @overload
    def __call__(
        self, event: Literal["room.client.knockCancelled"], /
    ) -> Callable[[KnockCancelledListener], KnockCancelledListener]: ...
    @overload
    def __call__(
        self, event: Literal["room.session.started"], /
    ) -> Callable[[SessionStartedListener], SessionStartedListener]: ...
    @overload
    def __call__(
        self, event: Literal["room.session.ended"], /
    ) -> Callable[[SessionEndedListener], SessionEndedListener]: ...
    @overload
    def __call__(
        self, event: Literal["transcription.started"], /
    ) -> Callable[[TranscriptionStartedListener], TranscriptionStartedListener]: ...
    @overload
    def __call__(
        self, event: Literal["transcription.finished"], /
    ) -> Callable[[TranscriptionFinishedListener], TranscriptionFinishedListener]: ...
    @overload
    def __call__(
        self, event: Literal["transcription.failed"], /
    ) -> Callable[[TranscriptionFailedListener], TranscriptionFailedListener]: ...
    @overload
    def __call__(
        self, event: Literal["recording.finished"], /
    ) -> Callable[[RecordingFinishedListener], RecordingFinishedListener]: ...
    @overload
    def __call__(
        self, event: Literal["assistant.requested"], /
    ) -> Callable[[AssistantRequestedListener], AssistantRequestedListener]: ...
    @overload
    def __call__(self, event: str, /) -> Callable[[AnyListener], AnyListener]: ...
    @overload
    def __call__(
        self, event: Literal["trigger_event_success"], listener: Callable[[TriggerSuccess], Result], /
    ) -> Callable[[TriggerSuccess], Result]: ...
    @overload
    def __call__(
        self, event: AssistantEventName, listener: Callable[[AssistantEvent], Result], /
    ) -> Callable[[AssistantEvent], Result]: ...
    @overload
    def __call__(
        self, event: Literal["room.client.joined"], listener: Callable[[RoomClientJoined], Result], /
    ) -> Callable[[RoomClientJoined], Result]: ...
    @overload
    def __call__(
        self, event: Literal["room.client.left"], listener: Callable[[RoomClientLeft], Result], /
    ) -> Callable[[RoomClientLeft], Result]: ...
    @overload
    def __call__(
        self, event: Literal["room.client.knocked"], listener: Callable[[RoomClientKnocked], Result], /
    ) -> Callable[[RoomClientKnocked], Result]: ...
    @overload
    def __call__(
        self, event: Literal["room.client.knockCancelled"], listener: Callable[[RoomClientKnockCancelled], Result], /
    ) -> Callable[[RoomClientKnockCancelled], Result]: ...
    @overload
    def __call__(
        self, event: Literal["room.session.started"], listener: Callable[[RoomSessionStarted], Result], /
    ) -> Callable[[RoomSessionStarted], Result]: ...
    @overload
    def __call__(
        self, event: Literal["room.session.ended"], listener: Callable[[RoomSessionEnded], Result], /
    ) -> Callable[[RoomSessionEnded], Result]: ...
    @overload
    def __call__(
        self, event: Literal["transcription.started"], listener: Callable[[TranscriptionStarted], Result], /
    ) -> Callable[[TranscriptionStarted], Result]: ...
    @overload
    def __call__(
        self, event: Literal["transcription.finished"], listener: Callable[[TranscriptionFinished], Result], /
    ) -> Callable[[TranscriptionFinished], Result]: ...
    @overload
    def __call__(
        self, event: Literal["transcription.failed"], listener: Callable[[TranscriptionFailed], Result], /
    ) -> Callable[[TranscriptionFailed], Result]: ...
    @overload
    def __call__(
        self, event: Literal["recording.finished"], listener: Callable[[RecordingFinished], Result], /
    ) -> Callable[[RecordingFinished], Result]: ...
    @overload
    def __call__(
        self, event: Literal["assistant.requested"], listener: Callable[[AssistantRequested], Result], /
    ) -> Callable[[AssistantRequested], Result]: ...
    @overload
    def __call__(self, event: str, listener: Callable[[object], Result], /) -> Callable[..., Result]: ...
    @overload
    def __call__(self, event: str, listener: Callable[[], Result], /) -> Callable[[], Result]: ...
    @overload
    def __call__(  # type: ignore[overload-cannot-match]
        self, event: str, listener: WithDefault[Result], /
    ) -> Callable[..., Result]: ...
    def __call__(self, event: str, listener: Callable[..., Any] | None = None, /) -> Any:
        if listener is not None:
            self._emitter.on(event, listener, once=self._once)
            return listener

        def register(function: Callable[..., Any]) -> Callable[..., Any]:
            self._emitter.on(event, function, once=self._once)
            return function

        return register
