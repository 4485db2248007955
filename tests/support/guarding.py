"""A replica in a separate process that runs a command in each waiting room, with a guard for each."""

import asyncio
import sys

from tests.support.process import Process
from tests.support.replica import ROOT
from whereby_trigger.assist import Supervisor, launcher
from whereby_trigger.assist.session import command_assistant
from whereby_trigger.clock import boot_time
from whereby_trigger.store.factory import store_for


def replica_that_runs(url: str, grace: float, program: list[str]) -> Process:
    """Start a replica that runs a program in each waiting room; a guard without it gives that `grace` seconds."""
    return Process([sys.executable, "-m", "tests.support.guarding", url, str(grace), *program], cwd=ROOT)


async def main(url: str, grace: str, *program: str) -> None:
    store = store_for(url)
    await store.open(lambda: None)
    assistant = command_assistant(program, None, False, False)
    launch = launcher(assistant, grace=float(grace), deadline=lambda: boot_time() + 60, life=lambda: store.life)
    await Supervisor(store, launch, 10).supervise()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
