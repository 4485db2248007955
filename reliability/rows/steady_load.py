"""Rows 5 and 6: a steady load and then a burst; and half an hour and more on a store that is already full.

Does the full store slow down, does the receiver grow?
"""

import asyncio
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from statistics import median

from reliability.checker import check, in_words
from reliability.corpus import items
from reliability.load import Load
from reliability.measures import percentile, resident
from reliability.receivers import trial
from reliability.row import Figures, Result, found
from reliability.stores import Stores, viewing
from whereby_trigger.store import Arrival, State
from whereby_trigger.store.factory import store_for
from whereby_trigger.testing.sender import Response

P99_WITHIN = 0.25
EACH_WITHIN = 2.0
PAUSE = 1.0

DRIFT_UNDER = 0.20
GROWTH_UNDER = 0.10
WINDOWS = 24
"""Windows into which the time is divided; each has its own p99."""

WARM_UP = 0.1
"""The share of the time that is not measured: caches and pools fill."""

AT_ONCE = 2000
SEED, SEED_OF_INBOX = 6, 60


async def run(folder: Path, stores: Stores, *, rate: float, seconds: float, burst: int) -> Result:
    """Deliver at a rate for a time, a tenth of it duplicates, and then send a burst within one second."""
    load = Load(folder, seed=5)
    async with trial(folder, stores.new(folder), load) as under_load:
        async with load.going(rate):
            await asyncio.sleep(seconds)
        steady = len(load.each)
        await asyncio.sleep(PAUSE)
        await load.burst(burst, 1.0)
        evidence = await under_load.evidence()
    figures: Figures = {"deliveries a second": rate, "acknowledged": evidence.acknowledged.total()}
    problems = in_words(check(evidence))
    for name, answers in (("steady", load.each[:steady]), ("burst", load.each[steady:])):
        more, wrong = _judged(name, answers)
        figures |= more
        problems += wrong
    return Result(figures, problems)


def _judged(name: str, answers: Sequence[Response]) -> tuple[Figures, list[str]]:
    took = [answer.seconds for answer in answers]
    p99, slowest = percentile(took, 99), max(took)
    others = [answer.status for answer in answers if answer.status != 200]
    figures: Figures = {
        f"{name}: deliveries": len(answers),
        f"{name}: p50 (ms)": round(percentile(took, 50) * 1000, 1),
        f"{name}: p99 (ms)": round(p99 * 1000, 1),
        f"{name}: slowest (ms)": round(slowest * 1000, 1),
        f"{name}: answers other than 200": len(others),
    }
    problems = [
        *([f"{name}: {len(others)} answers were {sorted(set(others))}"] if others else []),
        *([f"{name}: p99 was {p99:.3f} s"] if p99 > P99_WITHIN else []),
        *([f"{name}: an answer took {slowest:.2f} s"] if slowest > EACH_WITHIN else []),
    ]
    return figures, problems


async def run_soak(folder: Path, stores: Stores, *, inbox: int, rate: float, seconds: float) -> Result:
    """Deliver at a rate for a time to a store that already holds `inbox` webhooks."""
    url = stores.new(folder)
    await _fill(url, inbox)
    load = Load(folder, SEED)
    async with trial(folder, url, load) as under_load:
        receiver = under_load.receiver
        async with load.going(rate):
            await asyncio.sleep(seconds * WARM_UP)
            began, before = time.monotonic(), resident(receiver.pid)
            await asyncio.sleep(seconds * (1 - WARM_UP))
            ended, after = time.monotonic(), resident(receiver.pid)
        async with viewing(url) as view:
            await view.until_decided()
            await receiver.stop()
            stored = {record.id for record in await view.of(load.items)}
    p99s = list(_p99s(load.each, began, ended))
    third = len(p99s) // 3
    first, last = median(p99s[:third]), median(p99s[-third:])
    drift, growth = last / first - 1, after / before - 1
    lost = load.acknowledged().keys() - stored
    others = sum(answer.status != 200 for answer in load.each)
    problems = [
        *found(len(lost), "acknowledged are lost"),
        *found(others, "answers were not 200"),
        *([f"the p99 drifted by {drift:.0%}"] if drift > DRIFT_UNDER else []),
        *([f"the receiver's memory grew by {growth:.0%}"] if growth > GROWTH_UNDER else []),
    ]
    figures: Figures = {
        "webhooks stored before": inbox,
        "deliveries a second": rate,
        "deliveries": len(load.each),
        "p99, first third (ms)": round(first * 1000, 1),
        "p99, last third (ms)": round(last * 1000, 1),
        "drift (%)": round(drift * 100, 1),
        "RSS at first (MiB)": round(before / 2**20, 1),
        "RSS at last (MiB)": round(after / 2**20, 1),
        "growth (%)": round(growth * 100, 1),
        "lost": len(lost),
    }
    return Result(figures, problems)


async def _fill(url: str, webhooks: int) -> None:
    """Add webhooks to a new store, already decided."""
    store, source = store_for(url), items(SEED_OF_INBOX)
    await store.open(lambda: None)
    try:
        for begun in range(0, webhooks, AT_ONCE):
            some = islice(source, min(AT_ONCE, webhooks - begun))
            now = time.time()
            arrivals = [Arrival(i.id, i.type, i.room, i.body, now, State.QUARANTINED, "put there before") for i in some]
            await asyncio.gather(*map(store.add, arrivals))
    finally:
        await store.close()


def _p99s(answers: Sequence[Response], began: float, ended: float) -> Iterator[float]:
    """Yield each window's p99, in order."""
    length = (ended - began) / WINDOWS
    for number in range(WINDOWS):
        since = began + number * length
        took = [answer.seconds for answer in answers if since <= answer.sent_at < since + length]
        if took:
            yield percentile(took, 99)
