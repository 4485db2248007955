"""What the inspector shows of stored text: personal data masked, odd characters escaped. Pure.

A webhook's body is shown by a list of the fields that say nothing about a person. Every other value is masked, also
those of fields that Whereby adds tomorrow.
"""

import json
from typing import Any, Final

from whereby_trigger.text import printable
from whereby_trigger.webhook import masked

MASK: Final = "••••••"

LONGEST_BODY: Final = 64 * 1024
"""Characters of a body that a page shows: the first ones."""


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
