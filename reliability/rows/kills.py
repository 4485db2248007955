"""Rows 1 and 2: the receiver is killed with -9 under load: at a random point, and at each boundary of a webhook."""

from collections import Counter
from pathlib import Path

from reliability.boundaries import BEFORE_AGAIN, BOUNDARIES, LEADING_TO
from reliability.receivers import Campaign, Reckoning
from reliability.row import Result
from reliability.stores import Stores

STARTING = 0.1
"""The share of kills that come while the receiver starts, which is also while it recovers from the last one."""

START_TAKES = 0.4
MAX_PASSINGS = 60


async def run(folder: Path, stores: Stores, *, kills: int, acknowledged_per_life: int, at_least: int) -> Result:
    """Kill a receiver `kills` times, after a random number of acknowledged deliveries, and check everything at the end.

    With less than `at_least` acknowledged deliveries in all the row proves nothing, and does not pass.
    """
    async with Campaign(folder, stores, seed=1) as campaign:
        for _ in range(kills):
            if campaign.chance.random() < STARTING:
                await campaign.die_starting(START_TAKES)
            else:
                await campaign.live(campaign.chance.randint(1, 2 * acknowledged_per_life))
        reckoning = await campaign.reckon()
    few = reckoning.figures["acknowledged"] < at_least
    problems = [f"fewer than {at_least} deliveries were acknowledged"] if few else []
    return Result({"kills": kills, **reckoning.figures}, problems + reckoning.problems)


async def run_undisturbed(folder: Path, stores: Stores, *, acknowledged: int) -> Result:
    """Send until `acknowledged` deliveries are acknowledged, without faults, and check all: the base of every row.

    The lease lasts as long as a user's: a busy machine may keep a process from renewing a quick one.
    """
    async with Campaign(folder, stores, seed=1, quick_lease=False) as campaign:
        receiver = await campaign.start()
        await campaign.load.until_acknowledged(acknowledged)
        reckoning = await campaign.reckon(receiver)
    return Result({**reckoning.figures}, reckoning.problems)


async def run_at_boundaries(
    folder: Path, stores: Stores, *, deaths: int, boundaries: tuple[str, ...] = BOUNDARIES
) -> Result:
    """Kill a receiver `deaths` times at each boundary; each boundary has its own store."""
    figures: Counter[str] = Counter()
    problems: list[str] = []
    for number, boundary in enumerate(boundaries):
        one = await _die_often(folder / boundary.replace(" ", "-"), stores, boundary, deaths, seed=number)
        figures.update(one.figures)
        problems += [f"{boundary}: {problem}" for problem in one.problems]
    return Result({"boundaries": len(boundaries), "deaths at each": deaths, **figures}, problems)


async def _die_often(folder: Path, stores: Stores, boundary: str, deaths: int, seed: int) -> Reckoning:
    """Die repeatedly at one boundary, each time at another passing of it."""
    leading = LEADING_TO.get(boundary.split()[1], ())
    async with Campaign(folder, stores, seed) as campaign:
        for _ in range(deaths):
            for earlier in leading:
                await campaign.die_at(earlier, 1 if earlier == BEFORE_AGAIN else _any_passing(campaign))
            await campaign.die_at(boundary, 1 if leading else _any_passing(campaign))
        return await campaign.reckon()


def _any_passing(campaign: Campaign) -> int:
    return campaign.chance.randint(1, MAX_PASSINGS)
