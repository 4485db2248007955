"""Row 3: power loss. kill -9 cannot show it, since the page cache survives; the trace of the system calls can.

The receiver runs under strace, which records every write and every sync of the store's files, and every request and
answer. This shows, for each 200, whether its webhook was written and synced before the answer began; and for any
moment, what a disk that lost its power then would be sure to hold. That is written to a new folder (without the
shared-memory file, which is no file to keep), the store is opened there as after any crash and must pass its integrity
check and hold every webhook acknowledged up to that moment: once with nothing of what was not synced, and once with a
random half of its sectors, since a disk may write those too.
"""

import random
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from reliability.receivers import Campaign, ReceiverFailed
from reliability.row import Figures, Result, found
from reliability.stores import STORE_FILE, SqliteStores, damage, viewing
from reliability.trace import SYNCS, Call, Disk, read_trace, tracer
from whereby_trigger import StoreError

REQUEST_ID = re.compile(rb'"id": ?"([0-9a-f]{64})"')
OK = b"HTTP/1.1 200"
READS = ("read", "recvfrom", "recvmsg")
WRITES = ("write", "writev", "sendto", "sendmsg")


class Answer(Struct, frozen=True):
    """Hold one 200: its webhook, the place in the trace where it began, and whether the webhook was synced before."""

    id: str
    began: int
    synced: bool


async def run(folder: Path, stores: SqliteStores, *, acknowledged: int, cuts: int) -> Result:
    """Trace two lives of a receiver, the first of which is killed, and cut the power at some of its 200s."""
    trace = folder / "trace"
    problems = await _record(folder, stores, trace, acknowledged)
    with trace.open(encoding="ascii") as lines:
        calls = list(read_trace(lines))
    answers = answers_in(calls, STORE_FILE + "-wal")
    if len(answers) < acknowledged:
        raise ReceiverFailed(f"the trace shows only {len(answers)} answers of {acknowledged}")
    early = [answer.id for answer in answers if not answer.synced]
    if early:
        problems.append(f"{len(early)} answers were 200 before their webhook was on disk: {early[0]}")
    chosen = sorted(random.Random(1).sample(range(len(answers)), min(cuts, len(answers))))
    broken = await _cut(folder, stores, calls, answers, chosen)
    figures: Figures = {
        "200s": len(answers),
        "200s before the sync": len(early),
        "syncs": sum(call.name in SYNCS for call in calls),
        "cuts": len(chosen),
        "cuts with a webhook missing or a damaged store": len(broken),
    }
    return Result(figures, problems + broken)


def answers_in(calls: Sequence[Call], journal: str) -> list[Answer]:
    """Find each 200 in a trace, and whether its webhook had been written to the journal and synced when it began."""
    asked: dict[str, str] = {}
    written: dict[str, int] = {}
    syncs: list[Call] = []
    answers: list[Answer] = []
    for call in calls:
        if call.path.startswith("socket:") and call.name in READS:
            for id in REQUEST_ID.findall(call.data):
                asked[call.path] = id.decode()
        elif call.path.startswith("socket:") and call.name in WRITES and call.data.startswith(OK):
            id = asked.pop(call.path)
            since = written.get(id)
            synced = since is not None and any(since <= sync.began and sync.ended < call.began for sync in syncs)
            answers.append(Answer(id, call.began, synced))
        elif call.path.endswith(journal) and call.name == "pwrite64":
            for id in asked.values():
                if id not in written and id.encode() in call.data:
                    written[id] = call.ended
        elif call.path.endswith(journal) and call.name in SYNCS:
            syncs.append(call)
    return answers


async def _record(folder: Path, stores: SqliteStores, trace: Path, acknowledged: int) -> list[str]:
    async with Campaign(folder, stores, seed=1, prefix=tracer(trace)) as campaign:
        traced = await campaign.start()
        await campaign.load.until_acknowledged(acknowledged // 2)
        campaign.load.up.clear()
        await traced.kill_child()
        traced = await campaign.start()
        await campaign.load.until_acknowledged(acknowledged - acknowledged // 2)
        return (await campaign.reckon(traced)).problems


async def _cut(
    folder: Path, stores: SqliteStores, calls: Sequence[Call], answers: Sequence[Answer], chosen: Sequence[int]
) -> list[str]:
    disk, chance, following = Disk(folder, STORE_FILE), random.Random(len(calls)), iter(calls)
    problems = []
    call = next(following, None)
    for number in chosen:
        while call is not None and call.ended < answers[number].began:
            disk.follow(call)
            call = next(following, None)
        acknowledged = {answer.id for answer in answers[: number + 1]}
        for partly in (None, chance):
            with tempfile.TemporaryDirectory(dir=folder) as left:
                disk.cut(Path(left), partly)
                wrong = await _wrong(left, stores, acknowledged)
                problems += [f"power cut at 200 number {number}: {one}" for one in wrong]
    return problems


async def _wrong(left: str, stores: SqliteStores, acknowledged: set[str]) -> list[str]:
    """Open what a power cut left, and return what is wrong with it."""
    try:
        async with viewing(stores.new(Path(left))) as view:
            missing = acknowledged - {record.id for record in await view.records()}
    except StoreError as error:
        return [f"the store cannot be opened: {error}"]
    return found(len(missing), "acknowledged webhooks are missing") + damage(Path(left) / STORE_FILE)
