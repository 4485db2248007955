"""The environment of a process assistant: what it inherits, its room, and nothing that opens our doors. Pure."""

from collections.abc import Collection, Iterator, Mapping
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

from whereby_trigger.config import OPTIONS, PREFIX

LIBPQ: Final = frozenset({"PGPASSWORD", "PGPASSFILE", "PGSERVICE", "PGSERVICEFILE"})
"""The variables by which a PostgreSQL store is opened where its URL has no password.

Source: PostgreSQL docs, libpq, Environment Variables.
"""

LONG_ENOUGH: Final = 12
"""Characters from which on a secret is looked for inside of other values: a shorter one may be part of a word."""


def child_environment(
    base: Mapping[str, str], room: Mapping[str, str], extra: Mapping[str, str], *, hidden: Collection[str] = ()
) -> dict[str, str]:
    """Give a process assistant's environment: `base`, the user's `extra` over it, the variables of its room over both.

    Left out are this package's settings, by name, and whatever holds one of the `hidden` values (the secrets, the
    store's URL) or the password in one, under any name and also where `extra` holds it: `{**os.environ, …}` is a habit.
    Where a hidden value is a PostgreSQL's URL, so is what else may open it.
    """
    values = frozenset(_with_passwords(hidden))
    names = LIBPQ if any(value.startswith(("postgresql:", "postgres:")) for value in hidden) else frozenset[str]()
    inherited = {name: value for name, value in {**base, **extra}.items() if name not in names}
    kept = {name: value for name, value in inherited.items() if not _is_ours(name) and not _holds(value, values)}
    return {**kept, **room}


def _is_ours(name: str) -> bool:
    return name.startswith(PREFIX) or any(
        name in option.environment for option in OPTIONS if option.name in ("secret", "store")
    )


def _holds(value: str, hidden: Collection[str]) -> bool:
    return any(value == secret or (len(secret) >= LONG_ENOUGH and secret in value) for secret in hidden)


def _with_passwords(hidden: Collection[str]) -> Iterator[str]:
    for value in filter(None, hidden):
        yield value
        for password in filter(None, _passwords(value)):
            yield password
            yield unquote(password)


def _passwords(url: str) -> list[str | None]:
    try:
        parts = urlsplit(url)
        return [parts.password, *(value for name, value in parse_qsl(parts.query) if name == "password")]
    except ValueError:
        return []
