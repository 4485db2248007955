"""The emitter: listeners by event name, called in the order in which they were registered."""

import difflib
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from msgspec import Struct

from whereby_trigger.decide.functions import UserFunction, is_async, name_of, takes_argument
from whereby_trigger.decide.user_code import UserCode
from whereby_trigger.errors import RegistrationError
from whereby_trigger.webhook import WEBHOOK_TYPES, Webhook

TRIGGER_EVENT_SUCCESS: Final = "trigger_event_success"
"""The event that tells that a trigger has fired. Source: Whereby's Assistant SDK reference, Trigger."""


class TriggerSuccess(Struct, frozen=True):
    """Tell that a trigger has fired: the room's URL and the webhook that its predicate said True to.

    `attempt` is 1, and one more for every time a process ended before the decision was on disk: then listeners may
    hear of the same webhook again. Source: Whereby's Assistant SDK reference, TriggerEvents.
    """

    room_url: str
    trigger_webhook: Webhook
    attempt: int = 1


class Listener(Struct, frozen=True, eq=False):
    """Describe a user's listener and how it is called."""

    function: UserFunction
    name: str
    is_async: bool
    takes_payload: bool
    once: bool


class Emitter:
    """Keep listeners by event and call them; an exception of one hinders no other."""

    def __init__(self) -> None:
        self._by_event: dict[str, tuple[Listener, ...]] = {}

    def on(self, event: str, function: UserFunction, *, once: bool = False) -> None:
        """Register a listener; raises RegistrationError for an event that looks misspelt."""
        _check_event(event)
        takes_payload = takes_argument(function, f"the listener for {event!r}")
        listener = Listener(function, name_of(function), is_async(function), takes_payload, once)
        self._by_event[event] = (*self._by_event.get(event, ()), listener)

    def off(self, event: str, function: UserFunction) -> bool:
        """Remove the newest registration of a listener; tell whether there was one."""
        listeners = list(self._by_event.get(event, ()))
        for index in range(len(listeners) - 1, -1, -1):
            if listeners[index].function == function:
                del listeners[index]
                self._by_event[event] = tuple(listeners)
                return True
        return False

    def listeners(self, event: str) -> list[UserFunction]:
        """List an event's listeners, in order."""
        return [listener.function for listener in self._by_event.get(event, ())]

    def events(self) -> list[str]:
        """List the events that have a listener."""
        return [event for event, listeners in self._by_event.items() if listeners]

    async def emit(
        self, event: str, payload: Any, user_code: UserCode, failed: Callable[[str, BaseException], None]
    ) -> bool:
        """Call an event's listeners and tell whether there was one.

        `failed` is told the name of each listener that raises and what: of async ones later, when they do.
        """
        listeners = self._by_event.get(event, ())
        for listener in listeners:
            if listener.once and not self._take(event, listener):
                continue
            arguments = (payload,) if listener.takes_payload else ()
            named = partial(failed, listener.name)
            error = await user_code.tell(listener.function, arguments, listener.is_async, named)
            if error is not None:
                named(error)
        return bool(listeners)

    def _take(self, event: str, listener: Listener) -> bool:
        remaining = tuple(other for other in self._by_event[event] if other is not listener)
        taken = len(remaining) < len(self._by_event[event])
        self._by_event[event] = remaining
        return taken


def _check_event(event: str) -> None:
    known = (*WEBHOOK_TYPES, TRIGGER_EVENT_SUCCESS)
    if not isinstance(event, str):
        raise RegistrationError(f"an event is named by a text, not by {event!r}: write @trigger.on(NAME)")
    near = difflib.get_close_matches(event, known, 1, 0.8)
    if event not in known and near:
        raise RegistrationError(f"there is no event {event!r}: did you mean {near[0]!r}?")
