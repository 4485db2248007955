"""Inspect a user's function without calling it: its name, its place, and the arguments it takes."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, Final

from whereby_trigger.errors import RegistrationError

UserFunction = Callable[..., Any]

ARGUMENTS: Final = {"predicate": "webhook", "listener": "payload"}


def unwrapped(function: UserFunction) -> UserFunction:
    """Return the function inside any `functools.partial`."""
    while isinstance(function, functools.partial):
        function = function.func
    return function


def is_async(function: UserFunction) -> bool:
    """Return True if calling the function returns a coroutine."""
    inner = unwrapped(function)
    return inspect.iscoroutinefunction(inner) or inspect.iscoroutinefunction(_call_of(inner))


def name_of(function: UserFunction) -> str:
    """Return a function's name, or the file and line of a lambda."""
    inner = unwrapped(function)
    name = getattr(inner, "__name__", type(inner).__name__)
    if name == "<lambda>":
        return f"lambda in {place_of(inner)}"
    return str(name)


def place_of(function: UserFunction) -> str:
    """Return where a function was defined, as file:line."""
    inner = unwrapped(function)
    code = getattr(inner, "__code__", getattr(_call_of(inner), "__code__", None))
    if code is None:
        return "code that is not Python"
    return f"{code.co_filename.rpartition('/')[2]}:{code.co_firstlineno}"


def takes_argument(function: UserFunction, role: str, name: str) -> bool:
    """Return True if a function takes one argument, False if it takes none.

    `role` ("predicate" or "listener") and `name`, what it is registered for, are for the message.

    Raises RegistrationError if it takes neither one argument nor none.
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
