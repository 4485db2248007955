"""Row 17, its other half: predicates that raise, hang, exit and forget their answer, asked among good ones."""

import asyncio
from collections import Counter
from pathlib import Path

from reliability.measures import percentile
from reliability.receiver import SECRET
from reliability.result import Figures, Result
from reliability.stores import Stores, viewing
from whereby_trigger import RoomClientJoined, Trigger
from whereby_trigger.store import Record, State
from whereby_trigger.testing import webhook
from whereby_trigger.testing.sender import Address, Sender

ASKED = {"raise": 3, "hang": 3, "exit": 3, "forget": 1}
"""The poisons, and how often each is asked before it is parked."""

PREDICATE_TIMEOUT = 0.5
GOOD_AMONG = 10
"""After so many poisoned webhooks comes a good one."""

UNAFFECTED = 2.0
"""Seconds within which a good one is decided, at most, while the poisoned ones hang and are waited for."""


async def poison(webhook: RoomClientJoined) -> bool | None:
    """Do to a trigger what the room's name says."""
    match webhook.data.room_name.strip("/").partition("-")[0]:
        case "raise":
            raise RuntimeError("poison")
        case "hang":
            await asyncio.Event().wait()
        case "exit":
            raise SystemExit(1)
        case "good":
            return True
    return None


async def run(folder: Path, stores: Stores, *, doses: int) -> Result:
    """Deliver so many poisoned webhooks, each in a room of its own; each must be parked, and the good ones fire."""
    url = stores.new(folder)
    trigger = Trigger(
        port=0,
        host="127.0.0.1",
        secret=SECRET,
        store=url,
        predicate_timeout=PREDICATE_TIMEOUT,
        webhook_triggers={"room.client.joined": poison},  # type: ignore[typeddict-item]  # one that forgets
    )
    async with trigger:
        answers = await _deliver(trigger.port, doses)
        async with viewing(url) as view:
            await view.until_decided()
            records = await view.records()
    good = [record for record in records if _kind(record) == "good"]
    parked = [record for record in records if record.state is State.FAILED]
    delays = [(record.decided_at or 0.0) - record.received_at for record in good]
    problems = [f"{count} answers were {status}" for status, count in Counter(answers).items() if status != 200]
    problems += [
        f"{record.room} is {record.state}: {record.reason}" for record in records if not _as_it_must_be(record)
    ]
    problems += [f"a good one took {max(delays):.1f} s"] if max(delays) > UNAFFECTED else []
    figures: Figures = {
        "webhooks whose predicate is poisoned": len(records) - len(good),
        "poisoned webhooks parked as failed": len(parked),
        "good webhooks that fired": sum(record.state is State.FIRED for record in good),
        "good ones decided after, p99 (ms)": round(percentile(delays, 99) * 1000, 1),
    }
    return Result(figures, problems)


async def _deliver(port: int, doses: int) -> list[int]:
    kinds, sender = list(ASKED), Sender(Address.local(port), SECRET)
    answers: list[int] = []
    try:
        for number in range(doses):
            answers.append(await _send(sender, f"/{kinds[number % len(kinds)]}-{number}"))
            if number % GOOD_AMONG == 0:
                answers.append(await _send(sender, f"/good-{number}"))
    finally:
        sender.close()
    return answers


async def _send(sender: Sender, room: str) -> int:
    return (await sender.deliver(webhook("room.client.joined", room=room).raw, retries=0))[-1].status


def _kind(record: Record) -> str:
    return (record.room or "").rpartition("/")[2].partition("-")[0]


def _as_it_must_be(record: Record) -> bool:
    kind = _kind(record)
    if kind == "good":
        return record.state is State.FIRED
    return record.state is State.FAILED and record.attempts == ASKED[kind]
