"""Row 2: the receiver is killed at each boundary that a webhook passes."""

from collections import Counter
from pathlib import Path

from reliability.boundaries import BEFORE_AGAIN, BOUNDARIES, LEADING_TO
from reliability.campaign import Campaign
from reliability.checker import Evidence
from reliability.row import Result
from reliability.rows.kills import reckoned
from reliability.sender import Sender
from reliability.stores import Stores

MAX_PASSINGS = 60


async def run(folder: Path, stores: Stores, *, deaths: int, boundaries: tuple[str, ...] = BOUNDARIES) -> Result:
    """Kill a receiver `deaths` times at each boundary; each boundary has its own store."""
    figures: Counter[str] = Counter()
    problems: list[str] = []
    for number, boundary in enumerate(boundaries):
        place = folder / boundary.replace(" ", "-")
        place.mkdir()
        sender, evidence = await die_often(place, stores, boundary, deaths, seed=number)
        one = reckoned(sender, evidence)
        figures.update(one.figures)
        problems += [f"{boundary}: {problem}" for problem in one.problems]
    return Result({"boundaries": len(boundaries), "deaths at each": deaths, **figures}, problems)


async def die_often(folder: Path, stores: Stores, boundary: str, deaths: int, seed: int) -> tuple[Sender, Evidence]:
    """Die repeatedly at one boundary, each time at another passing of it."""
    leading = LEADING_TO.get(boundary.split()[1], ())
    async with Campaign(folder, stores, seed) as campaign:
        for _ in range(deaths):
            for earlier in leading:
                await campaign.die_at(earlier, 1 if earlier == BEFORE_AGAIN else _any_passing(campaign))
            await campaign.die_at(boundary, 1 if leading else _any_passing(campaign))
        return campaign.sender, await campaign.reckon()


def _any_passing(campaign: Campaign) -> int:
    return campaign.chance.randint(1, MAX_PASSINGS)
