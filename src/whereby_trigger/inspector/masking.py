"""What the inspector shows of stored text: personal data masked, odd characters escaped. Pure.

A webhook's body is shown by a list of the fields that say nothing about a person. Every other value is masked, also
those of fields that Whereby adds tomorrow.
"""

import json
from typing import Any, Final, get_args

from whereby_trigger.text import printable
from whereby_trigger.webhook import RoleName

MASK: Final = "••••••"

SHOWN: Final = frozenset(
    {
        *("id", "apiVersion", "type", "createdAt", "data"),
        *("roomName", "meetingId", "roomSessionId", "subdomain", "subdoman", "roleName", "isDialIn"),
        *("numClients", "numClientsByRoleName", "status", "storageType", "durationInSeconds"),
        *("transcriptionId", "recordingId"),
        *get_args(RoleName),
    }
)
"""The fields whose values are shown. Not among them: displayName, metadata, externalId, participantId, filename."""

LONGEST_BODY: Final = 64 * 1024
"""Characters of a body that a page shows: the first ones."""

DEEPEST: Final = 32


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
    shape = value if revealed else masked(value)
    return cut(shown_lines(json.dumps(shape, indent=2, ensure_ascii=False)))


def masked(value: Any, name: str | None = None, depth: int = 0) -> Any:
    """Return JSON with every value masked whose field is not known to say nothing of a person."""
    if depth > DEEPEST:
        return MASK
    if value is None:
        return None
    if isinstance(value, dict) and (name is None or name in SHOWN):
        return {_field(field): masked(inner, field, depth + 1) for field, inner in value.items()}
    known = name is not None and name in SHOWN and not isinstance(value, list | dict)
    return value if known else MASK


def _field(name: str) -> str:
    # A sender may put anything into the name of a field, too.
    return name if name.isascii() and name.isidentifier() and len(name) <= 40 else MASK


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
