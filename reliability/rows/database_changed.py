"""Row 32: what others do to a PostgreSQL in use: read-only, a standby in its place, locks, settings, crashes."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg

from reliability.campaign import trial
from reliability.checker import Rule, check, in_words
from reliability.link import Link
from reliability.load import Load
from reliability.measures import percentile
from reliability.row import Figures, Result
from reliability.stores import PostgresStores, View, viewing
from tests.support.postgres import Server, database_of
from whereby_trigger.store import State
from whereby_trigger.testing.program import until

BACK_WITHIN = 5.0
HELD_UP = 2.0
"""Seconds after which a delivery counts as blocked by a row that is not its own."""

WATCHED = 30.0
LOOK = 0.05
FORBIDDEN = (Rule.LOST, Rule.INVENTED, Rule.DOUBLED, Rule.UNDECIDED, Rule.MISJUDGED, Rule.UNHEARD, Rule.HEARD_WRONGLY)
"""A lease may run out meanwhile; webhooks not decided by then are decided and emitted again."""

DISCONNECT = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{0}'"
LAZY = {"synchronous_commit": "off", "wal_writer_delay": "10s", "wal_writer_flush_after": "1GB"}
AS_BEFORE = dict.fromkeys(LAZY, "")


class Changes:
    """Change the database under a receiver and its load again and again, and measure how soon it is back."""

    def __init__(
        self, server: Server, standby: Server, url: str, link: Link, load: Load, view: View, seed: int
    ) -> None:
        self._server, self._standby, self._url = server, standby, url
        self._link, self._load, self._view = link, load, view
        self._chance = random.Random(seed)
        self.back: list[float] = []
        self.problems: list[str] = []
        self.faults: dict[str, Callable[[float], Awaitable[None]]] = {
            "read-only": self._read_only,
            "a standby": self._standing_by,
            "a row": self._row,
            "a table": self._table,
            "settings": self._settings,
        }

    async def suffer(self, name: str, longest: float) -> None:
        """Keep one fault up for at least a second and at most `longest` seconds; then check that all works again."""
        await self.faults[name](min(longest, self._chance.lognormvariate(0.0, 1.5) + 1.0))
        began = time.monotonic()
        await until(self._works, WATCHED, LOOK)
        took = time.monotonic() - began
        self.back.append(took)
        if took > BACK_WITHIN:
            self.problems.append(f"{name}: not back until {took:.1f} s after it was over")

    async def _works(self) -> bool:
        """Return True once a new webhook is stored and decided."""
        item = self._load.next()
        if await self._load.deliver(item, retries=0) != 200:
            return False

        async def is_decided() -> bool:
            return all(row.state is not State.PENDING for row in await self._view.of([item.id]))

        if not await until(is_decided, WATCHED, LOOK):
            raise TimeoutError(f"{item.id} is not decided {WATCHED:g} s after it was acknowledged")
        return True

    async def _read_only(self, seconds: float) -> None:
        database = database_of(self._url)
        await self._run(f"ALTER DATABASE {database} SET default_transaction_read_only = on")
        await self._run(DISCONNECT.format(database))
        await asyncio.sleep(seconds)
        await self._run(f"ALTER DATABASE {database} RESET default_transaction_read_only")

    async def _standing_by(self, seconds: float) -> None:
        self._link.lead_to(self._standby.port)
        await asyncio.sleep(seconds)
        self._link.lead_to(self._server.port)

    async def _row(self, seconds: float) -> None:
        """Lock a row, deliver its webhook again, and check that nothing else is delayed."""
        item = self._load.next()
        await self._load.deliver(item)
        rows = f"SELECT FROM whereby_trigger.webhooks WHERE id = '{item.id}' FOR UPDATE"
        async with self._held(rows), asyncio.TaskGroup() as deliveries:
            deliveries.create_task(self._load.deliver(item, retries=0))
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                await self._not_held_up(item.id)
                await asyncio.sleep(LOOK)

    async def _not_held_up(self, locked: str) -> None:
        item, began = self._load.next(), time.monotonic()
        if item.id == locked:
            return
        answer = await self._load.deliver(item, retries=0)
        took = time.monotonic() - began
        if answer != 200 or took > HELD_UP:
            self.problems.append(f"a row: another delivery was answered {answer} after {took:.1f} s")

    async def _table(self, seconds: float) -> None:
        async with self._held("LOCK TABLE whereby_trigger.webhooks"):
            await asyncio.sleep(seconds)

    async def _settings(self, seconds: float) -> None:
        """Turn off synchronous commits to the disk, and crash the server: every acknowledged webhook must be there."""
        await asyncio.to_thread(self._server.reload, **LAZY)
        await asyncio.sleep(seconds)
        await asyncio.to_thread(self._server.kill)
        await asyncio.to_thread(self._server.start)
        await asyncio.to_thread(self._server.reload, **AS_BEFORE)

    @asynccontextmanager
    async def _held(self, statement: str) -> AsyncIterator[None]:
        holding = await asyncpg.connect(self._url)
        try:
            await holding.execute(f"BEGIN; {statement}")
            yield
        finally:
            await holding.close()

    async def _run(self, statement: str) -> None:
        await asyncio.to_thread(self._server.run, statement)


async def run(
    folder: Path, stores: PostgresStores, *, doses: int, longest: float, rate: float, seed: int = 32
) -> Result:
    """Inject each fault `doses` times, for at most `longest` seconds each, while deliveries continue."""
    server, url = stores.server, stores.new(folder)
    load = Load(folder, seed)
    async with viewing(url), Link(server.port) as link:
        with server.standby() as standby:
            async with trial(folder, url, load, link.through(url)) as under_load, viewing(url) as view:
                changes = Changes(server, standby, url, link, load, view, seed)
                async with load.going(rate):
                    for _ in range(doses):
                        for fault in changes.faults:
                            await changes.suffer(fault, longest)
                evidence = await under_load.evidence(recounted=True)
    broken = check(evidence)
    figures: Figures = {
        "faults": doses * len(changes.faults),
        "back after, median (s)": round(percentile(changes.back, 50), 2),
        "back after, at most (s)": round(max(changes.back), 2),
        "acknowledged": evidence.acknowledged.total(),
        "acknowledged lost": len(broken.get(Rule.LOST, ())),
        "answers of 503": load.sender.answers[503],
    }
    return Result(figures, changes.problems + in_words({rule: broken[rule] for rule in FORBIDDEN if rule in broken}))
