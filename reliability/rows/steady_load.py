"""Row 5: a steady load, and then a burst."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from reliability.campaign import trial
from reliability.checker import check, in_words
from reliability.load import Load
from reliability.measures import percentile
from reliability.row import Figures, Result
from reliability.sender import Answer
from reliability.stores import Stores

P99_WITHIN = 0.25
EACH_WITHIN = 2.0
PAUSE = 1.0


async def run(folder: Path, stores: Stores, *, rate: float, seconds: float, burst: int) -> Result:
    """Deliver at a rate for a time, a tenth of it duplicates, and then send a burst within one second."""
    load = Load(folder, seed=5)
    async with trial(folder, stores.new(folder), load) as under_load:
        async with load.going(rate):
            await asyncio.sleep(seconds)
        steady = len(load.sender.each)
        await asyncio.sleep(PAUSE)
        await load.burst(burst, 1.0)
        evidence = await under_load.evidence()
    figures: Figures = {"deliveries a second": rate, "acknowledged": evidence.acknowledged.total()}
    problems = in_words(check(evidence))
    for name, answers in (("steady", load.sender.each[:steady]), ("burst", load.sender.each[steady:])):
        more, wrong = _judged(name, answers)
        figures |= more
        problems += wrong
    return Result(figures, problems)


def _judged(name: str, answers: Sequence[Answer]) -> tuple[Figures, list[str]]:
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
