"""Row 1: kill -9 of the receiver at a random point, under load."""

from pathlib import Path

from msgspec import Struct

from reliability.campaign import Campaign
from reliability.checker import Evidence, Rule, check, in_words
from reliability.row import Result
from reliability.sender import Sender
from reliability.stores import Stores

STARTING = 0.1
"""The share of kills that come while the receiver starts, which is also while it recovers from the last one."""

START_TAKES = 0.4
TWICE = (Rule.DOUBLED, Rule.EMITTED_TWICE, Rule.DECIDED_TWICE, Rule.UNCOUNTED)


async def run(
    folder: Path, stores: Stores, *, kills: int, acknowledged_per_life: int, at_least: int, seed: int = 1
) -> Result:
    """Kill a receiver `kills` times, after a random number of acknowledged deliveries, and check everything at the end.

    With less than `at_least` acknowledged deliveries in all the row proves nothing, and does not pass.
    """
    async with Campaign(folder, stores, seed) as campaign:
        for _ in range(kills):
            if campaign.chance.random() < STARTING:
                await campaign.die_starting(START_TAKES)
            else:
                await campaign.live(campaign.chance.randint(1, 2 * acknowledged_per_life))
        evidence = await campaign.reckon()
    reckoning = reckoned(campaign.sender, evidence)
    few = evidence.acknowledged.total() < at_least
    problems = (
        [f"fewer than {at_least} deliveries were acknowledged", *reckoning.problems] if few else reckoning.problems
    )
    return Result({"kills": kills, **reckoning.figures}, problems)


class Reckoning(Struct, frozen=True):
    """Hold the result of a campaign, as figures and problems."""

    figures: dict[str, int]
    problems: list[str]


def reckoned(sender: Sender, evidence: Evidence) -> Reckoning:
    """Turn a campaign's evidence into figures and problems; no answer may be a refusal or a 500."""
    broken = check(evidence)
    problems = in_words(broken)
    problems += [f"{sender.answers[status]} answers were {status}" for status in sender.answers if 400 <= status <= 500]
    heard = [emission.id for emission in evidence.emissions]
    figures = {
        "acknowledged": evidence.acknowledged.total(),
        "webhooks": len(evidence.records),
        "successes": len(set(heard)),
        "emitted again after a death": len(heard) - len(set(heard)),
        "parked as poison": len(evidence.parked),
        "lost": len(broken.get(Rule.LOST, ())),
        "decided twice": sum(len(broken.get(rule, ())) for rule in TWICE),
    }
    return Reckoning(figures, problems)


async def undisturbed(folder: Path, stores: Stores, *, acknowledged: int) -> Result:
    """Send until `acknowledged` deliveries are acknowledged, without faults, and check all: the base of every row.

    The lease lasts as long as a user's: a busy machine may keep a process from renewing a quick one.
    """
    async with Campaign(folder, stores, seed=1, quick_lease=False) as campaign:
        receiver = await campaign.start()
        await campaign.sender.until_acknowledged(acknowledged)
        reckoning = reckoned(campaign.sender, await campaign.reckon(receiver))
    return Result({**reckoning.figures}, reckoning.problems)
