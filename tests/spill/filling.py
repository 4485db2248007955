"""A spool on a disk that fills up and is freed again; a limit on the size of files stands in for the disk."""

import asyncio
import os
import resource
import sys

from tests.store.sqlite.filling import ROOM_LEFT, limit_files
from tests.support.arrivals import arrival
from whereby_trigger.errors import StoreUnavailable
from whereby_trigger.store.spill_file import SpillFile, read_content


async def main(url: str) -> None:
    spill_file = SpillFile(url)
    await spill_file.open()
    taken, refused, reason = 0, 0, ""
    limit_files(ROOM_LEFT)
    for n in range(100):
        try:
            await spill_file.append(arrival(f"{n}", body=os.urandom(50_000)))
            taken += 1
        except StoreUnavailable as error:
            refused, reason = refused + 1, str(error)
    full = await emptied(spill_file)
    limit_files(resource.RLIM_INFINITY)
    await spill_file.append(arrival("after"))
    after = await emptied(spill_file)
    await spill_file.close()
    left = read_content(spill_file.path).waiting
    print(taken, refused, reason, full, after, left, sep="\n")


async def emptied(spill_file: SpillFile) -> int:
    removed = 0
    while rows := await spill_file.head():
        removed += len(rows)
        await spill_file.remove([row.seq for row in rows])
    return removed


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
