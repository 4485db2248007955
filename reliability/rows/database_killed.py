"""Row 7: PostgreSQL is killed with -9 and started again, under load."""

import asyncio
import random
import time
from pathlib import Path

from reliability.campaign import trial
from reliability.checker import Rule, check, in_words
from reliability.load import Load
from reliability.measures import percentile
from reliability.row import Figures, Result
from reliability.rows.kills import TWICE
from reliability.stores import PostgresStores

SHORT = 10.0
"""Seconds for which a database may be down without losing anything sent: Whereby retries for longer."""


async def run(
    folder: Path, stores: PostgresStores, *, restarts: int, rate: float, down_for: float, seed: int = 7
) -> Result:
    """Kill the server `restarts` times, and restart it after at most `down_for` seconds, while deliveries continue."""
    chance, server = random.Random(seed), stores.server
    load, away = Load(folder, seed), list[float]()
    async with trial(folder, stores.new(folder), load) as under_load:
        async with load.going(rate):
            for _ in range(restarts):
                await asyncio.sleep(chance.uniform(0.5, 2))
                began = time.monotonic()
                await asyncio.to_thread(server.kill)
                await asyncio.sleep(chance.uniform(0, down_for))
                await asyncio.to_thread(server.start)
                away.append(time.monotonic() - began)
        evidence = await under_load.evidence(recounted=True)
    broken = check(evidence)
    unacknowledged = load.items.keys() - evidence.acknowledged.keys()
    problems = in_words(broken)
    problems += [f"{len(unacknowledged)} sent were never acknowledged"] if unacknowledged else []
    problems += [f"the database was away for {max(away):.1f} s, not under {SHORT:g}"] if max(away) > SHORT else []
    figures: Figures = {
        "restarts": restarts,
        "away, median (s)": round(percentile(away, 50), 2),
        "away, at most (s)": round(max(away), 2),
        "sent": len(load.items),
        "acknowledged lost": len(broken.get(Rule.LOST, ())),
        "sent lost": len(unacknowledged),
        "answers of 503": load.sender.answers[503],
        "decided twice": sum(len(broken.get(rule, ())) for rule in TWICE),
    }
    return Result(figures, problems)
