"""What a mutation is, and how it changes code."""

from collections.abc import Callable
from typing import Any

from msgspec import Struct

VARIABLE = "RELIABILITY_MUTANT"
"""The environment variable that names a process's mutation."""


class Mutant(Struct, frozen=True):
    """Describe a mutation: how it is applied, and the test of this suite that must fail with it."""

    put_in: Callable[[], None]
    caught_by: str
    complaint: str = "assert "
    """A text that the failing test must print: proof that it fails for the right reason."""


def replace(owner: Any, name: str, value: Any) -> None:
    """Replace an existing attribute."""
    getattr(owner, name)
    setattr(owner, name, value)


def edited(statement: str, old: str, new: str) -> str:
    """Replace a text in a statement, which must contain it."""
    if old not in statement:
        raise ValueError(f"the mutation has nothing to change: {old!r} is not in {statement!r}")
    return statement.replace(old, new)
