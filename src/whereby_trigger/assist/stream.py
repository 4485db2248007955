"""What a command with `stdin="stream"` reads after its first line: the events of its room, a line of JSON each."""

import json
from collections.abc import AsyncIterator
from datetime import datetime
from functools import partial
from math import isinf
from typing import Any

from whereby_trigger.assist.session import Session, presence_after
from whereby_trigger.store import Presence
from whereby_trigger.webhook import replace_lone_surrogates


async def room_events(session: Session, key: str, told: Presence) -> AsyncIterator[bytes]:
    """Yield the events of the room `key` as lines, from those that its session holds unread to `leave`, the last one.

    `told` is the presence to tell first: that of the session's beginning, before the webhooks that it holds. It holds
    what is not asked for yet, up to its bound. What it dropped is counted in the line that follows.
    """
    missed = 0
    if told.changed_at is not None:
        yield _presence(told)
    async for webhook in session.webhooks():
        # More may be dropped while a line is being written: they came after this webhook.
        dropped, missed = session.missed - missed, session.missed
        if dropped:
            now = session.presence
            yield _line("dropped", count=dropped)
            if _differ(now, told):
                yield _presence(now)
            told = now
        yield _line("webhook", webhook=readable_by_all(webhook.raw))
        now = presence_after(told, webhook, key)
        if _differ(now, told):
            yield _presence(now)
        told = now
    yield _line("leave", reason=session.ended.reason)


def _differ(now: Presence, told: Presence) -> bool:
    return (now.humans, now.bots) != (told.humans, told.bots)


def _presence(now: Presence) -> bytes:
    return _line("presence", humans=now.humans, bots=now.bots, since=_in_utc(now.humans_since))


def _in_utc(moment: datetime | None) -> str | None:
    """Return a moment of UTC in the format of Whereby's `createdAt`."""
    return None if moment is None else moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _line(event: str, **fields: Any) -> bytes:
    return json.dumps({"event": event, **fields}).encode() + b"\n"


def readable_by_all(raw: bytes) -> Any:
    """Read JSON, with null for a number that no double holds and U+FFFD for half a surrogate pair.

    Both are valid JSON, but parsers refuse them, or return an infinity or text that cannot be printed.
    Source: RFC 8259, 6 and 8.2.
    """
    whole = replace_lone_surrogates(raw)
    return json.loads(whole, parse_int=partial(_number, kind=int), parse_float=partial(_number, kind=float))


def _number(text: str, kind: type[int] | type[float]) -> float | None:
    return None if isinf(float(text)) else kind(text)
