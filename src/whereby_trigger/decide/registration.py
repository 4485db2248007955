"""Register a user's functions, with their types: `when` for predicates, `on` and `once` for listeners."""

from collections.abc import Callable
from typing import Any, Literal, Protocol, TypedDict, TypeVar, overload

from whereby_trigger.assist import AssistantEvent
from whereby_trigger.decide.emitter import Emitter, TriggerSuccess
from whereby_trigger.decide.predicates import Answer, Hold, Predicates, TypedPredicate
from whereby_trigger.errors import RegistrationError
from whereby_trigger.webhook import (
    AssistantRequested,
    RecordingFinished,
    RoomClientJoined,
    RoomClientKnockCancelled,
    RoomClientKnocked,
    RoomClientLeft,
    RoomSessionEnded,
    RoomSessionStarted,
    TranscriptionFailed,
    TranscriptionFinished,
    TranscriptionStarted,
)

P = TypeVar("P")
Returned = TypeVar("Returned", covariant=True)

TypedListener = Callable[[P], object] | Callable[[], object]


class WithDefault(Protocol[Returned]):
    """Accept a lambda that binds a variable of a loop, `lambda payload, name=name: …`.

    mypy accepts any function with a default as a function of one argument, but not a lambda with one.
    """

    def __call__(self, payload: object, bound: Any = ..., /) -> Returned: ...


RoomType = Literal[
    "room.client.joined",
    "room.client.left",
    "room.client.knocked",
    "room.client.knockCancelled",
    "room.session.started",
    "room.session.ended",
    "assistant.requested",
]

AssistantEventName = Literal["assistant_event_started", "assistant_event_ended", "assistant_event_failed"]

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


class When:
    """Register a predicate for one webhook type or several: `@trigger.when("room.client.joined")`.

    The function takes the webhook, the webhook and the room's `Presence`, or nothing, is sync or async, and returns
    True or False. The decorator returns it unchanged. With `hold=30` it fires only if it says True for 30 seconds: it
    is asked again on each change of who is in the room, and when they are over. Raises RegistrationError if a type is
    unknown, names no room, or already has a predicate, or for a hold that is no number above 0.
    """

    def __init__(self, predicates: Predicates) -> None:
        self._predicates = predicates

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
                self._predicates.register(type, function, hold)
            return function

        return register


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
