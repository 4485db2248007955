"""The predicates: one for each webhook type, registered by dict or by decorator."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from msgspec import Struct

from whereby_trigger.errors import RegistrationError
from whereby_trigger.functions import UserFunction, is_async, name_of, place_of, takes_argument
from whereby_trigger.webhook import ROOM_TYPES, WEBHOOK_TYPES


class Predicate(Struct, frozen=True):
    """Describe a user's predicate and how it is called."""

    function: UserFunction
    name: str
    is_async: bool
    takes_webhook: bool

    def arguments(self, webhook: Any) -> tuple[Any, ...]:
        return (webhook,) if self.takes_webhook else ()


class Predicates:
    """Keep one predicate for each webhook type that names a room."""

    def __init__(self, by_type: Mapping[str, Any] | None = None) -> None:
        self._by_type: dict[str, Predicate] = {}
        for type, function in (by_type or {}).items():
            self.register(type, function)

    def register(self, type: str, function: UserFunction) -> None:
        """Make a function the predicate for a webhook type.

        Raises RegistrationError for a type that is unknown, names no room, or has a predicate already.
        """
        _check_type(type)
        takes_webhook = takes_argument(function, "predicate", type)
        predicate = Predicate(function, name_of(function), is_async(function), takes_webhook)
        other = self._by_type.get(type)
        if other is not None:
            raise RegistrationError(
                f"{type!r} has two predicates: {other.name} at {place_of(other.function)} and {predicate.name} at "
                f"{place_of(function)}: join them into one that returns `first(webhook) or second(webhook)`"
            )
        self._by_type[type] = predicate

    def get(self, type: str) -> Predicate | None:
        """Find the predicate for a webhook type."""
        return self._by_type.get(type)

    def types(self) -> list[str]:
        """List the webhook types that have a predicate."""
        return list(self._by_type)

    def names(self) -> dict[str, str]:
        """Map each webhook type to the name of its predicate."""
        return {type: predicate.name for type, predicate in self._by_type.items()}


def _check_type(type: str) -> None:
    if type in ROOM_TYPES:
        return
    if type in WEBHOOK_TYPES:
        raise RegistrationError(
            f"{type!r} names no room, so that no assistant can be started by it: listen with @trigger.on({type!r})"
        )
    raise RegistrationError(f"there is no webhook type {type!r}{did_you_mean(type, ROOM_TYPES)}")


def did_you_mean(word: object, words: Iterable[str]) -> str:
    """Suggest the nearest of the words that would have been right, or list them."""
    candidates = list(words)
    near = difflib.get_close_matches(str(word), candidates, 1, 0.6)
    return f": did you mean {near[0]!r}?" if near else ": use one of " + ", ".join(candidates)
