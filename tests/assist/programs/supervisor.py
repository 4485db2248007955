"""A supervisor for tests: a real process that runs a command behind a guard, and prints what it sees.

`supervisor.py [OPTION ...] LEASE GRACE PROGRAM [ARGUMENT ...]`: the deadline is LEASE seconds ahead. With --keep it is
renewed again and again, and is a minute ahead before: a start may take long. With --thread the thread that starts it
ends immediately; with --fork a fork of this process, which inherits whatever it holds, lives on. SIGUSR1 stops the
command, with 10 seconds to leave; with --abandon it ends the event loop.
"""

import argparse
import asyncio
import os
import signal
import sys
import threading
from typing import Any

from whereby_trigger.assist.process import GuardedProcess
from whereby_trigger.clock import boot_time


def say(*words: Any) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


async def start(options: argparse.Namespace) -> GuardedProcess:
    process = await GuardedProcess.start(
        options.program,
        env=os.environ,
        input=b"",
        deadline=boot_time() + (60 if options.keep else options.lease),
        grace=options.grace,
        line=None,
    )
    say("started", process.pid)
    return process


async def supervise(options: argparse.Namespace) -> None:
    process = await start(options)
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, process.stop, 10)
    if options.fork:
        fork()
    ended = asyncio.create_task(process.wait())
    while not ended.done():
        await asyncio.wait([ended], timeout=0.05)
        if options.keep:
            process.extend(boot_time() + options.lease)
    say("ended", ended.result())


async def abandon(options: argparse.Namespace) -> None:
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, told.set)
    await start(options)
    await told.wait()


def fork() -> None:
    pid = os.fork()
    if pid == 0:
        signal.pause()
    say("forked", pid)


def start_in_a_thread(options: argparse.Namespace) -> None:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=lambda: loop.run_until_complete(start(options)))
    thread.start()
    thread.join()
    say("the thread has ended")
    signal.pause()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("lease", type=float)
    parser.add_argument("grace", type=float)
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--thread", action="store_true")
    parser.add_argument("--abandon", action="store_true")
    parser.add_argument("--fork", action="store_true")
    parser.add_argument("program", nargs=argparse.REMAINDER)
    options = parser.parse_args(sys.argv[1:])
    if options.thread:
        start_in_a_thread(options)
    elif options.abandon:
        asyncio.run(abandon(options))
        say("the loop has ended")
        signal.pause()
    else:
        asyncio.run(supervise(options))
