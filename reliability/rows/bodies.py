"""Row 20: bodies at the limit, over it, far over it, and with a length that is not theirs."""

import asyncio
from pathlib import Path

from reliability import memory
from reliability.odd_requests import CASES, HUGE_CASES, LIMIT, TAKEN, Case
from reliability.process import Receivers
from reliability.raw import Reply, send_raw
from reliability.result import Figures, Result
from reliability.stores import Stores, viewing
from whereby_trigger.store import Record

WARM_UP = 20
AT_ONCE = 8
RSS_MAY_GROW = 8 * 1024 * 1024
MIB = 1024 * 1024


async def run(folder: Path, stores: Stores) -> Result:
    """Send each request once, and the huge ones several at once, while the receiver's memory is watched."""
    url = stores.new(folder)
    receivers, problems = Receivers(url, folder / "emissions"), list[str]()
    replies: dict[str, Reply] = {}
    try:
        receiver = await receivers.start()
        port = await receiver.listening()
        for _ in range(WARM_UP):
            await _send(port, "warm-up", CASES["the limit"])
        before = memory.resident(receiver.pid)
        await asyncio.to_thread(memory.forget_peak, receiver.pid)
        for name, case in CASES.items():
            replies[name] = await _send(port, name, case)
        for name, case in HUGE_CASES.items():
            crowd = await asyncio.gather(*(_send(port, name, case) for _ in range(AT_ONCE)))
            replies |= {f"{name}, {number} of {AT_ONCE} at once": reply for number, reply in enumerate(crowd)}
        grown = memory.peak(receiver.pid) - before
        await receiver.stop()
        async with viewing(url) as view:
            problems += _wrongly_stored(await view.records())
    finally:
        await receivers.close()
    wrong = 0
    for name, reply in replies.items():
        must = CASES[name if name in CASES else name.rpartition(", ")[0]].answers
        if reply.status not in must:
            problems.append(f"{name}: answered {reply.status}, not {must[0]}")
            wrong += 1
    if grown > RSS_MAY_GROW:
        problems.append(f"the receiver's memory grew by {grown / MIB:.1f} MiB")
    figures: Figures = {
        "requests": len(replies),
        "answered as they must be": len(replies) - wrong,
        "RSS grew by (MiB)": round(grown / MIB, 1),
        "of 100 MiB it let in (MiB), at most": round(max(reply.sent for reply in replies.values()) / MIB, 1),
    }
    return Result(figures, problems)


async def _send(port: int, id: str, case: Case) -> Reply:
    return await send_raw(port, case.pieces(id), half_close=case.half_close)


def _wrongly_stored(records: list[Record]) -> list[str]:
    """Say which webhook is stored though it was refused, or is not though it was taken, or not whole."""
    stored = {record.id: record.body for record in records}
    taken = {name for name, case in CASES.items() if case.answers == (TAKEN,)}
    problems = [f"{id}: stored, but it was refused" for id in stored.keys() & CASES.keys() - taken]
    problems += [f"{id}: taken, but not stored" for id in taken - stored.keys()]
    at_limit = stored.get("the limit")
    return problems if at_limit is None or len(at_limit) == LIMIT else [*problems, "the limit: cut off"]
