"""A process that is killed when its spilled deliveries are in the database, and have not left the spool yet."""

import asyncio
import os
import signal
import sys
from pathlib import Path

from tests.spill.conftest import Counted, Spilling
from tests.support.arrivals import arrival


class Doomed(Counted):
    def fall_behind(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


async def main(folder: str, *ids: str) -> None:
    async with Spilling(Path(folder), Doomed()) as one:
        one.store.go_down()
        for id in ids:
            assert (await one.spill.add(arrival(id))).spilled
        one.store.come_back()
        await one.drained()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
