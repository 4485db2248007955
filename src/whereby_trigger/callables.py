"""What can be told about a user's function without calling it: its name, its place, and how it wants to be called."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, Final

from whereby_trigger.errors import RegistrationError

UserFunction = Callable[..., Any]

ARGUMENTS: Final = {"predicate": "webhook", "listener": "payload"}


def unwrapped(function: UserFunction) -> UserFunction:
    while isinstance(function, functools.partial):
        function = function.func
    return function


def is_async(function: UserFunction) -> bool:
    """Tell whether calling a function gives a coroutine."""
    inner = unwrapped(function)
    return inspect.iscoroutinefunction(inner) or inspect.iscoroutinefunction(_call_of(inner))


def name_of(function: UserFunction) -> str:
    """Name a function as its author would: its own name, or where a lambda stands."""
    inner = unwrapped(function)
    name = getattr(inner, "__name__", type(inner).__name__)
    if name == "<lambda>":
        return f"lambda in {place_of(inner)}"
    return str(name)


def place_of(function: UserFunction) -> str:
    """Say where a function was written, as file:line."""
    inner = unwrapped(function)
    code = getattr(inner, "__code__", getattr(_call_of(inner), "__code__", None))
    if code is None:
        return "code that is not Python"
    return f"{code.co_filename.rpartition('/')[2]}:{code.co_firstlineno}"


def takes_argument(function: UserFunction, role: str, name: str) -> bool:
    """Tell whether a function takes the one argument it is offered, or none.

    Raises RegistrationError where it takes neither one argument nor none; `role` ("predicate" or "listener") and
    `name`, what it is registered for, say in the message which function that is.
    """
    what = f"the {role} for {name!r}"
    if not callable(function):
        raise RegistrationError(f"{what} must be a function, not {function!r}")
    try:
        signature = inspect.signature(function)
    except ValueError:
        return True
    if _binds(signature, object()):
        return True
    if _binds(signature):
        return False
    raise RegistrationError(
        f"{what} must take one argument or none, but {name_of(function)} at {place_of(function)} takes {signature}: "
        f"write `def {role}({ARGUMENTS[role]})` or `def {role}()`"
    )


def _call_of(instance: object) -> object:
    return getattr(type(instance), "__call__", None)  # noqa: B004


def _binds(signature: inspect.Signature, *arguments: object) -> bool:
    try:
        signature.bind(*arguments)
    except TypeError:
        return False
    return True
