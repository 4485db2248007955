"""Several processes on one store, each on a core of its own as far as there are any."""

from contextlib import AsyncExitStack

from bench.rounds import Ring, Round
from bench.setting import Setting
from bench.sides import Side


async def several(setting: Setting, ring: Ring, side: Side, processes: int, webhooks: int, connections: int) -> Round:
    """Load so many processes that share a new store, the load shared out among them; raises LoadFailed."""
    async with AsyncExitStack() as stack:
        url = stack.enter_context(setting.stores.new(side))
        servers = [
            await stack.enter_async_context(setting.up(side, url=url, core=setting.cores.spread(number)))
            for number in range(processes)
        ]
        return await ring.round(servers, webhooks, connections)


def shared(setting: Setting, most: int) -> list[str]:
    """Say which of so many processes have no core to themselves."""
    every = [setting.cores.spread(number) for number in range(most)]
    taken = {setting.cores.load, setting.cores.database}
    crowded = [number + 1 for number, core in enumerate(every) if core in taken or core in every[:number]]
    return [f"process {number} shared a core with the load, the database or another process" for number in crowded]
