"""The types by which a checker knows a user's functions: what each is called with, by the name it is registered for.

A decorator gives back the very type it was given, which only a type variable of its own can say: one for each name.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Literal, Protocol, TypedDict, TypeVar

from whereby_trigger.decide.emitter import TriggerSuccess
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
Result = TypeVar("Result", covariant=True)

Answer = bool | Awaitable[bool]
Predicate = Callable[[P], Answer] | Callable[[], Answer]
Listener = Callable[[P], object] | Callable[[], object]


class WithDefault(Protocol[Result]):
    """Take a lambda that binds a name of its surroundings, `lambda payload, name=name: …`, as loops need it.

    mypy does not take a lambda with a default for a function of one argument, though any other function it does.
    """

    def __call__(self, payload: object, bound: Any = ..., /) -> Result: ...


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
        "room.client.joined": Predicate[RoomClientJoined],
        "room.client.left": Predicate[RoomClientLeft],
        "room.client.knocked": Predicate[RoomClientKnocked],
        "room.client.knockCancelled": Predicate[RoomClientKnockCancelled],
        "room.session.started": Predicate[RoomSessionStarted],
        "room.session.ended": Predicate[RoomSessionEnded],
        "assistant.requested": Predicate[AssistantRequested],
    },
    total=False,
)
"""Predicates by webhook type. Source: Whereby's Assistant SDK reference, WherebyWebhookTriggers."""

JoinedPredicate = TypeVar("JoinedPredicate", bound=Predicate[RoomClientJoined])
LeftPredicate = TypeVar("LeftPredicate", bound=Predicate[RoomClientLeft])
KnockedPredicate = TypeVar("KnockedPredicate", bound=Predicate[RoomClientKnocked])
KnockCancelledPredicate = TypeVar("KnockCancelledPredicate", bound=Predicate[RoomClientKnockCancelled])
SessionStartedPredicate = TypeVar("SessionStartedPredicate", bound=Predicate[RoomSessionStarted])
SessionEndedPredicate = TypeVar("SessionEndedPredicate", bound=Predicate[RoomSessionEnded])
AssistantRequestedPredicate = TypeVar("AssistantRequestedPredicate", bound=Predicate[AssistantRequested])
AnyPredicate = TypeVar("AnyPredicate", bound=Callable[..., Answer])

SuccessListener = TypeVar("SuccessListener", bound=Listener[TriggerSuccess])
JoinedListener = TypeVar("JoinedListener", bound=Listener[RoomClientJoined])
LeftListener = TypeVar("LeftListener", bound=Listener[RoomClientLeft])
KnockedListener = TypeVar("KnockedListener", bound=Listener[RoomClientKnocked])
KnockCancelledListener = TypeVar("KnockCancelledListener", bound=Listener[RoomClientKnockCancelled])
SessionStartedListener = TypeVar("SessionStartedListener", bound=Listener[RoomSessionStarted])
SessionEndedListener = TypeVar("SessionEndedListener", bound=Listener[RoomSessionEnded])
TranscriptionStartedListener = TypeVar("TranscriptionStartedListener", bound=Listener[TranscriptionStarted])
TranscriptionFinishedListener = TypeVar("TranscriptionFinishedListener", bound=Listener[TranscriptionFinished])
TranscriptionFailedListener = TypeVar("TranscriptionFailedListener", bound=Listener[TranscriptionFailed])
RecordingFinishedListener = TypeVar("RecordingFinishedListener", bound=Listener[RecordingFinished])
AssistantRequestedListener = TypeVar("AssistantRequestedListener", bound=Listener[AssistantRequested])
AnyListener = TypeVar("AnyListener", bound=Callable[..., Any])
