"""Whose process it is that a stop may end: that of a program which serves, and nobody else's."""

import sys
from pathlib import Path

from tests.support.process import Process
from tests.support.programs import write

BESIDE = """
import asyncio
import threading
from whereby_trigger import Trigger, running

running.DRAIN_MARGIN = 0.1
trigger = Trigger(host="127.0.0.1", port=0, drain_timeout=0, stop_grace=0)

async def main():
    async with trigger:
        trigger.stop()
        threading.Event().wait(1.5)
        print("went on with", trigger.port > 0, flush=True)

asyncio.run(main())
"""


def test_a_stop_within_the_block_ends_neither_the_block_nor_the_process(tmp_path: Path) -> None:
    with Process([sys.executable, str(write(tmp_path, BESIDE))], cwd=tmp_path) as process:
        assert process.wait() == 0
        assert process.output == "went on with True\n"
