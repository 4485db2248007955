"""A replica that runs assistants: filled with rooms at an even pace, each of which notes when its assistant runs."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from msgspec import Struct

from bench.bodies import bodies
from bench.load import LoadFailed
from bench.notes import read_notes
from bench.open_loop import OpenLoop
from bench.serving import module, serving
from bench.setting import Setting
from bench.sides import NOTES, Side
from whereby_trigger.testing.program import Program, ProgramFailed, until

RUNNING = "running"
RUNNING_WITHIN = 60.0


class Host(Struct, frozen=True):
    """Hold a replica, and where it notes what."""

    process: Program
    sender: OpenLoop
    folder: Path

    async def fill(self, rooms: int, per_second: float) -> None:
        """Let a person join so many new rooms, and wait until an assistant runs in each; raises LoadFailed."""
        already = len(self._running())
        deliveries = await self.sender.evenly(per_second, rooms / per_second)
        if refused := [one.refusal for one in deliveries if one.refusal]:
            raise LoadFailed(f"{len(refused)} joins were answered {refused[0]}")
        if not await until(lambda: len(self._running()) >= already + rooms, RUNNING_WITHIN):
            raise LoadFailed(f"an assistant is missing in a room {RUNNING_WITHIN:g} s after its join")

    async def stop(self) -> list[float]:
        """End it, assistants and all; give the milliseconds from each success to its assistant's first line."""
        running = self._running()
        if code := await self.process.stop():
            raise ProgramFailed(f"a replica ended with {code}; it said:\n{self.process.last_words}")
        told = read_notes(self.folder / NOTES).times
        return [(ran - told[room]) / 1e6 for room, ran in running.items()]

    def _running(self) -> dict[str, int]:
        file = self.folder / RUNNING
        lines = [line.split() for line in file.read_text(encoding="ascii").splitlines()] if file.exists() else []
        return {room: int(ran) for ran, room in lines}


@asynccontextmanager
async def hosting(setting: Setting, side: Side, folder: Path, *options: str) -> AsyncIterator[Host]:
    """Run a replica with a new store, on the first server's core, with options of `programs.host`."""
    async with AsyncExitStack() as stack:
        url = stack.enter_context(setting.stores.new(side))
        told = ("--store", url, "--notes", str(folder / NOTES), "--running", str(folder / RUNNING))
        command = module("bench.programs.host", *told, *options)
        process = await stack.enter_async_context(serving(command, setting.cores.server))
        sender = await stack.enter_async_context(OpenLoop(await process.listening(), bodies(rooms=10**6)))
        yield Host(process, sender, folder)
