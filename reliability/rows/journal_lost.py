"""Row 31: files beside the store's file are removed, replaced or shared while the receiver is under load.

After each fault the receiver acknowledges some more, or is mended first, and is killed with -9.
"""

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Final

from reliability.checker import Rule
from reliability.receivers import Campaign, Receiver, ReceiverFailed
from reliability.row import Figures, Result
from reliability.stores import STORE_FILE, SqliteStores, damage
from whereby_trigger.testing.program import until

AFTER: Final = 40
"""Deliveries acknowledged after each fault: more than can be in flight when it comes."""

NOTICED_WITHIN: Final = 10.0
LOOK: Final = (
    "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('SELECT max(seq) FROM webhooks'); c.close()"
)
Fault = Callable[[Receiver], Coroutine[Any, Any, None]]

REFUSAL: Final = "has a second name, a hard link"


async def run(folder: Path, stores: SqliteStores, *, doses: int, a_life: int = 1) -> Result:
    """Inject each fault `doses` times, `a_life` of them per receiver before it is killed, and check all in the end."""
    path = folder / STORE_FILE
    async with Campaign(folder, stores, seed=1) as campaign:
        trial = _Trial(campaign, path)
        faults = [fault for _ in range(doses) for fault in trial.faults]
        for start in range(0, len(faults), a_life):
            await trial.live(faults[start : start + a_life])
        problems = trial.problems + await trial.refused_at_the_start()
        # A commit that is refused because of a second name is in the file anyway.
        reckoning = await campaign.reckon(refused=campaign.load.refused)
    figures: Figures = {"faults": len(faults), **reckoning.figures, "503s": campaign.load.answers[503]}
    # A replica without its lock file is taken over once its lease has run out: newer webhooks are decided first.
    problems += [problem for problem in reckoning.problems if Rule.OVERTAKEN not in problem]
    problems += damage(path)
    return Result(figures, problems)


class _Trial:
    def __init__(self, campaign: Campaign, path: Path) -> None:
        self._campaign = campaign
        self._path = path
        self.problems: list[str] = []
        self.faults: tuple[Fault, ...] = (
            self._remove_log,
            self._remove_index,
            self._remove_both,
            self._replace_log,
            self._remove_locks,
            self._second_name,
            self._copy_in_the_process,
        )

    async def live(self, faults: Sequence[Fault]) -> None:
        """Start a receiver, inject some faults, and kill it once it has acknowledged more after the last."""
        load = self._campaign.load
        receiver = await self._campaign.start("--copies", str(self._copied))
        for fault in faults:
            await load.until_acknowledged(self._campaign.chance.randint(1, AFTER))
            await fault(receiver)
            try:
                async with asyncio.timeout(NOTICED_WITHIN):
                    await load.until_acknowledged(AFTER)
            except TimeoutError:
                raise ReceiverFailed(f"nothing is taken after {fault.__name__}:\n{receiver.last_words}") from None
        load.up.clear()
        await receiver.kill()

    async def refused_at_the_start(self) -> list[str]:
        """Return what is wrong with how a start refuses a file that has two names."""
        other = self._path.with_name("other.db")
        other.hardlink_to(self._path)
        problems = await self._campaign.receivers.why_not_refused(REFUSAL)
        other.unlink()
        return problems

    @property
    def _copied(self) -> Path:
        return self._path.with_name("copied")

    def _beside(self, end: str) -> Path:
        return self._path.with_name(self._path.name + end)

    async def _remove_log(self, receiver: Receiver) -> None:
        self._beside("-wal").unlink()

    async def _remove_index(self, receiver: Receiver) -> None:
        self._beside("-shm").unlink()

    async def _remove_both(self, receiver: Receiver) -> None:
        self._beside("-wal").unlink()
        self._beside("-shm").unlink()

    async def _replace_log(self, receiver: Receiver) -> None:
        copy = self._path.with_name("copy")
        shutil.copyfile(self._beside("-wal"), copy)
        copy.replace(self._beside("-wal"))

    async def _remove_locks(self, receiver: Receiver) -> None:
        self._beside("-lock").unlink()
        for life in self._path.parent.glob(f"{self._path.name}-replica-*"):
            life.unlink()

    async def _second_name(self, receiver: Receiver) -> None:
        other, before = self._path.with_name("other.db"), self._campaign.load.answers[503]
        other.hardlink_to(self._path)
        await _until(lambda: self._campaign.load.answers[503] > before, "a second name is not noticed")
        other.unlink()

    async def _copy_in_the_process(self, receiver: Receiver) -> None:
        self._copied.unlink(missing_ok=True)
        os.kill(receiver.pid, signal.SIGUSR1)
        await _until(self._copied.exists, "the receiver does not copy its store")
        log = self._beside("-wal").stat()
        looking = await asyncio.create_subprocess_exec(sys.executable, "-c", LOOK, self._path)
        await looking.wait()
        if sys.platform == "linux" and not os.path.samestat(log, self._beside("-wal").stat()):
            self.problems.append("another program removed the log of a receiver that had copied its store")


async def _until(condition: Callable[[], bool], problem: str) -> None:
    if not await until(condition, NOTICED_WITHIN):
        raise ReceiverFailed(problem)
