"""The types by which a checker knows a user's functions: what each is called with, by the name it is registered for."""

from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypedDict, TypeVar, overload

from whereby_trigger.webhook import (
    AssistantRequested,
    RoomClientJoined,
    RoomClientKnockCancelled,
    RoomClientKnocked,
    RoomClientLeft,
    RoomSessionEnded,
    RoomSessionStarted,
)

P = TypeVar("P")
Answer = TypeVar("Answer", bound=bool | Awaitable[bool])
Result = TypeVar("Result")

Predicate = Callable[[P], bool | Awaitable[bool]] | Callable[[], bool | Awaitable[bool]]

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


class PredicateDecorator(Protocol[P]):
    """Take a predicate for one webhook type, or for several, and return it unchanged."""

    @overload
    def __call__(self, predicate: Callable[[], Answer], /) -> Callable[[], Answer]: ...
    @overload
    def __call__(self, predicate: Callable[[P], Answer], /) -> Callable[[P], Answer]: ...


class ListenerDecorator(Protocol[P]):
    """Take a listener for one event and return it unchanged."""

    @overload
    def __call__(self, listener: Callable[[], Result], /) -> Callable[[], Result]: ...
    @overload
    def __call__(self, listener: Callable[[P], Result], /) -> Callable[[P], Result]: ...


Listener = Callable[[P], Any] | Callable[[], Any]
