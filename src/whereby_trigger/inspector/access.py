"""What the inspector may show: of which program, to whom, and with personal data masked and odd characters escaped.

A webhook's body is shown by a list of the fields that say nothing about a person. Every other value is masked, also
those of fields that Whereby adds tomorrow.
"""

import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from enum import StrEnum
from typing import Any, Final

from msgspec import Struct

from whereby_trigger.config import Resolved
from whereby_trigger.decide import Predicates
from whereby_trigger.metrics import MetricsApp
from whereby_trigger.replica import Replica
from whereby_trigger.store import Store
from whereby_trigger.text import printable
from whereby_trigger.webhook import masked

MASK: Final = "••••••"

LONGEST_BODY: Final = 64 * 1024
"""Characters of a body that a page shows: the first ones."""


class Access(StrEnum):
    """Name who is let in: programs of this machine, those with the token, or those that the host app lets through."""

    LOCAL = "local"
    TOKEN = "token"  # noqa: S105
    HOST = "host"


class InspectedProgram(Struct, frozen=True):
    """Hold what the inspector shows and acts on: its settings, its store, its predicates, its replica if it runs,
    and its metrics.

    `to_change` opens a store to change it, or yields the running trigger's.
    """

    resolve: Callable[[], Resolved]
    to_change: Callable[[], AbstractAsyncContextManager[Store]]
    predicates: Predicates
    replica: Callable[[], Replica | None]
    metrics: MetricsApp


def shown(text: str | None) -> str:
    """Return stored text for a page: control, line-breaking and bidirectional characters are escaped."""
    return "" if text is None else printable(text)


def shown_lines(text: str) -> str:
    """Return stored text of several lines for a page."""
    return printable(text, keep="\n\t")


def body_shown(body: bytes, *, revealed: bool) -> str:
    """Return a webhook's body as indented JSON; unless revealed, values that may say something of a person masked.

    A body that is no JSON says what it likes, so it is shown only if revealed.
    """
    text = body.decode("utf-8", "replace")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return cut(shown_lines(text)) if revealed else f"{MASK} ({len(body)} bytes that are no JSON)"
    shape = value if revealed else masked(value, MASK)
    return cut(shown_lines(json.dumps(shape, indent=2, ensure_ascii=False)))


def body_masked(body: bytes) -> Any:
    """Return a webhook's body as JSON with values masked that may say something of a person; None if it is no JSON."""
    try:
        return masked(json.loads(body.decode("utf-8", "replace")), MASK)
    except (ValueError, RecursionError):
        return None


def cut(text: str) -> str:
    """Return the first characters of a long text, and how many are left out."""
    if len(text) <= LONGEST_BODY:
        return text
    return f"{text[:LONGEST_BODY]}\n… {len(text) - LONGEST_BODY} more characters"


def error_shown(error: str, *, revealed: bool) -> str:
    """Return the error of user code, which may quote what it was given: unless revealed, only where it came from."""
    if revealed:
        return shown_lines(error)
    return f"{shown(error.partition(':')[0][:120])}: {MASK}"
