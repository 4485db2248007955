"""No row, but what every row rests on: a receiver that nobody disturbs does everything right, once."""

from pathlib import Path

from reliability.campaign import Campaign
from reliability.result import Result
from reliability.rows.kills import reckoned
from reliability.stores import Stores


async def run(folder: Path, stores: Stores, *, acknowledged: int) -> Result:
    """Send until so many deliveries are acknowledged, and check all of it."""
    async with Campaign(folder, stores, seed=1) as campaign:
        receiver = await campaign.start()
        await campaign.sender.until_acknowledged(acknowledged)
        reckoning = reckoned(campaign.sender, await campaign.reckon(receiver))
    return Result({**reckoning.figures}, reckoning.problems)
