"""How a user's functions are registered: `when` for predicates, `on` and `once` for listeners."""

from collections.abc import Callable
from typing import Any, Literal, overload

from whereby_trigger.decide.emitter import Emitter, TriggerSuccess
from whereby_trigger.decide.predicates import Predicates
from whereby_trigger.decide.signatures import Listener, ListenerDecorator, PredicateDecorator
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
    RoomWebhook,
    TranscriptionFailed,
    TranscriptionFinished,
    TranscriptionStarted,
)


class When:
    """Register a predicate for one webhook type or several: `@trigger.when("room.client.joined")`.

    The function takes the webhook or nothing, is sync or async, returns True or False, and comes back unchanged.
    Raises RegistrationError for a type that is unknown, names no room, or has a predicate already.
    """

    def __init__(self, predicates: Predicates) -> None:
        self._predicates = predicates

    @overload
    def __call__(self, type: Literal["room.client.joined"], /) -> PredicateDecorator[RoomClientJoined]: ...
    @overload
    def __call__(self, type: Literal["room.client.left"], /) -> PredicateDecorator[RoomClientLeft]: ...
    @overload
    def __call__(self, type: Literal["room.client.knocked"], /) -> PredicateDecorator[RoomClientKnocked]: ...
    @overload
    def __call__(
        self, type: Literal["room.client.knockCancelled"], /
    ) -> PredicateDecorator[RoomClientKnockCancelled]: ...
    @overload
    def __call__(self, type: Literal["room.session.started"], /) -> PredicateDecorator[RoomSessionStarted]: ...
    @overload
    def __call__(self, type: Literal["room.session.ended"], /) -> PredicateDecorator[RoomSessionEnded]: ...
    @overload
    def __call__(self, type: Literal["assistant.requested"], /) -> PredicateDecorator[AssistantRequested]: ...
    @overload
    def __call__(self, type: str, second: str, /, *more: str) -> PredicateDecorator[RoomWebhook]: ...
    def __call__(self, *types: str) -> Any:
        if not types or not all(isinstance(type, str) for type in types):
            raise RegistrationError('when() takes webhook types: write @trigger.when("room.client.joined")')

        def register(function: Callable[..., Any]) -> Callable[..., Any]:
            for type in types:
                self._predicates.register(type, function)
            return function

        return register


class On:
    """Register a listener for an event: `@trigger.on(NAME)` or `trigger.on(NAME, listener)`.

    NAME is TRIGGER_EVENT_SUCCESS, a webhook type, or a name of your own that you emit. The function takes the event's
    payload or nothing, is sync or async, and comes back unchanged. Raises RegistrationError for a misspelt name.
    """

    def __init__(self, emitter: Emitter, *, once: bool) -> None:
        self._emitter = emitter
        self._once = once

    @overload
    def __call__(self, event: Literal["trigger_event_success"], /) -> ListenerDecorator[TriggerSuccess]: ...
    @overload
    def __call__(
        self, event: Literal["trigger_event_success"], listener: Listener[TriggerSuccess], /
    ) -> Listener[TriggerSuccess]: ...
    @overload
    def __call__(self, event: Literal["room.client.joined"], /) -> ListenerDecorator[RoomClientJoined]: ...
    @overload
    def __call__(
        self, event: Literal["room.client.joined"], listener: Listener[RoomClientJoined], /
    ) -> Listener[RoomClientJoined]: ...
    @overload
    def __call__(self, event: Literal["room.client.left"], /) -> ListenerDecorator[RoomClientLeft]: ...
    @overload
    def __call__(
        self, event: Literal["room.client.left"], listener: Listener[RoomClientLeft], /
    ) -> Listener[RoomClientLeft]: ...
    @overload
    def __call__(self, event: Literal["room.client.knocked"], /) -> ListenerDecorator[RoomClientKnocked]: ...
    @overload
    def __call__(
        self, event: Literal["room.client.knocked"], listener: Listener[RoomClientKnocked], /
    ) -> Listener[RoomClientKnocked]: ...
    @overload
    def __call__(
        self, event: Literal["room.client.knockCancelled"], /
    ) -> ListenerDecorator[RoomClientKnockCancelled]: ...
    @overload
    def __call__(
        self, event: Literal["room.client.knockCancelled"], listener: Listener[RoomClientKnockCancelled], /
    ) -> Listener[RoomClientKnockCancelled]: ...
    @overload
    def __call__(self, event: Literal["room.session.started"], /) -> ListenerDecorator[RoomSessionStarted]: ...
    @overload
    def __call__(
        self, event: Literal["room.session.started"], listener: Listener[RoomSessionStarted], /
    ) -> Listener[RoomSessionStarted]: ...
    @overload
    def __call__(self, event: Literal["room.session.ended"], /) -> ListenerDecorator[RoomSessionEnded]: ...
    @overload
    def __call__(
        self, event: Literal["room.session.ended"], listener: Listener[RoomSessionEnded], /
    ) -> Listener[RoomSessionEnded]: ...
    @overload
    def __call__(self, event: Literal["transcription.started"], /) -> ListenerDecorator[TranscriptionStarted]: ...
    @overload
    def __call__(
        self, event: Literal["transcription.started"], listener: Listener[TranscriptionStarted], /
    ) -> Listener[TranscriptionStarted]: ...
    @overload
    def __call__(self, event: Literal["transcription.finished"], /) -> ListenerDecorator[TranscriptionFinished]: ...
    @overload
    def __call__(
        self, event: Literal["transcription.finished"], listener: Listener[TranscriptionFinished], /
    ) -> Listener[TranscriptionFinished]: ...
    @overload
    def __call__(self, event: Literal["transcription.failed"], /) -> ListenerDecorator[TranscriptionFailed]: ...
    @overload
    def __call__(
        self, event: Literal["transcription.failed"], listener: Listener[TranscriptionFailed], /
    ) -> Listener[TranscriptionFailed]: ...
    @overload
    def __call__(self, event: Literal["recording.finished"], /) -> ListenerDecorator[RecordingFinished]: ...
    @overload
    def __call__(
        self, event: Literal["recording.finished"], listener: Listener[RecordingFinished], /
    ) -> Listener[RecordingFinished]: ...
    @overload
    def __call__(self, event: Literal["assistant.requested"], /) -> ListenerDecorator[AssistantRequested]: ...
    @overload
    def __call__(
        self, event: Literal["assistant.requested"], listener: Listener[AssistantRequested], /
    ) -> Listener[AssistantRequested]: ...
    @overload
    def __call__(self, event: str, /) -> ListenerDecorator[Any]: ...
    @overload
    def __call__(self, event: str, listener: Listener[Any], /) -> Listener[Any]: ...
    def __call__(self, event: str, listener: Callable[..., Any] | None = None, /) -> Any:
        if listener is not None:
            self._emitter.on(event, listener, once=self._once)
            return listener

        def register(function: Callable[..., Any]) -> Callable[..., Any]:
            self._emitter.on(event, function, once=self._once)
            return function

        return register
