"""What every table is given: the cores, the stores, and how load is made."""

import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from bench.cores import Cores
from bench.load import Generator
from bench.sides import Server, up
from bench.stores import Stores


class Setting:
    """Hold the cores, the stores and the load generator."""

    def __init__(self, cores: Cores, stores: Stores, generator: Generator) -> None:
        self.cores = cores
        self.stores = stores
        self.generator = generator

    @asynccontextmanager
    async def up(
        self, side: str, *, url: str | None = None, options: Sequence[str] = (), core: int | None = None
    ) -> AsyncIterator[Server]:
        """Run a side in a folder of its own, on a core: that of the servers, if none is named."""
        with tempfile.TemporaryDirectory(prefix="whereby-trigger-bench-") as folder:
            core = self.cores.server if core is None else core
            async with up(side, self.stores, Path(folder), core, url=url, options=options) as server:
                yield server
