"""Inspect a user's function without calling it: its name, its place, and the arguments it takes."""

import functools
import inspect
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final

from whereby_trigger.errors import RegistrationError

UserFunction = Callable[..., Any]

ARGUMENTS: Final[Mapping[str, tuple[str, ...]]] = {"predicate": ("webhook", "presence"), "listener": ("payload",)}
"""By role, the arguments that a function may take; it may leave out the last ones."""


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


def count_arguments(function: UserFunction, role: str, name: str) -> int:
    """Return how many of the ARGUMENTS of its role to call a function with.

    The second one goes to a function that needs it, or calls it by its name. `role` ("predicate" or "listener") and
    `name`, what it is registered for, are for the message. Raises RegistrationError if the function needs more.
    """
    arguments = ARGUMENTS[role]
    what = f"the {role} for {name!r}"
    if not callable(function):
        raise RegistrationError(f"{what} must be a function, not {function!r}")
    try:
        signature = inspect.signature(function)
    except ValueError:
        return 1
    if len(arguments) > 1 and _has_second(signature, arguments[1]):
        return 2
    for number in (1, 0, 2)[: len(arguments) + 1]:
        if _binds(signature, *arguments[:number]):
            return number
    *forms, last = [f"`def {role}({', '.join(arguments[:number])})`" for number in range(len(arguments), -1, -1)]
    raise RegistrationError(
        f"{what} must take at most {len(arguments)} argument{'s' * (len(arguments) > 1)}, but {name_of(function)} at "
        f"{place_of(function)} takes {signature}: write {', '.join(forms)} or {last}"
    )


def _has_second(signature: inspect.Signature, name: str) -> bool:
    """Return True if a function has a second positional argument of a name, even one with a default."""
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    named = [parameter.name for parameter in signature.parameters.values() if parameter.kind in positional]
    return len(named) > 1 and named[1] == name and _binds(signature, *named[:2])


def _call_of(instance: object) -> object:
    return getattr(type(instance), "__call__", None)  # noqa: B004


def _binds(signature: inspect.Signature, *arguments: object) -> bool:
    try:
        signature.bind(*arguments)
    except TypeError:
        return False
    return True


AGAIN = "a cell of a notebook that is run again registers it again: run the cell that makes the Trigger first"
"""What to do if the same function is registered twice."""


def is_again(function: object, other: object) -> bool:
    """Return True if two functions are one that an interactive session has defined twice."""
    name, other_name = (getattr(each, "__qualname__", None) for each in (function, other))
    modules = {getattr(each, "__module__", None) for each in (function, other)}
    return name is not None and name == other_name and name != "<lambda>" and modules == {"__main__"} and in_notebook()


def in_notebook() -> bool:
    """Return True in IPython, and so in a notebook."""
    return "IPython" in sys.modules
