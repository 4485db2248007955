"""wrk as the load generator: every request of a file once, over a fixed number of connections."""

import asyncio
import re
import signal
from contextlib import suppress
from pathlib import Path

from bench.bodies import Requests
from bench.cores import pinned
from bench.load import Load, LoadFailed
from bench.tools import find

SCRIPT = Path(__file__).with_name("load.lua")
WITHIN = 600
AGAIN = 0.05
"""Seconds after which wrk gets another signal to end: it ignores them until all its threads are set up."""

ANSWERED = re.compile(r"^answered ([0-9.]+) ([0-9.]+)$", re.MULTILINE)
SUMMARY = re.compile(r"^summary ([0-9]+) ([0-9]+) ([0-9]+) ([0-9]+) ([0-9]+) ([0-9]+) ([0-9.]+)$", re.MULTILINE)


async def send(port: int, requests: Requests, connections: int, core: int) -> Load:
    """Send every request and wait for all answers; raises LoadFailed if one is missing or not 200."""
    command = [
        find("wrk"),
        "-t",
        "1",
        "-c",
        str(connections),
        "-d",
        f"{WITHIN}s",
        "--timeout",
        "10s",
        "-s",
        str(SCRIPT),
    ]
    command += [f"http://127.0.0.1:{port}/", "--", str(requests.path), str(requests.count), str(requests.size)]
    process = await asyncio.create_subprocess_exec(
        *pinned(core, [*command, str(connections)]),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdout is not None
    output = b""
    try:
        while line := await process.stdout.readline():
            output += line
            if line.startswith(b"answered "):
                break
        rest = asyncio.create_task(process.stdout.read())
        while not rest.done():
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGINT)
            await asyncio.wait({rest}, timeout=AGAIN)
        await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return read(output.decode(errors="replace") + rest.result().decode(errors="replace"), requests.count)


def read(output: str, count: int) -> Load:
    """Parse the output of wrk and its script for `count` requests; raises LoadFailed."""
    answered, summary = ANSWERED.search(output), SUMMARY.search(output)
    if answered is None or summary is None:
        raise LoadFailed(f"wrk did not come to an end:\n{output}")
    began, ended = map(float, answered.groups())
    requests, failed, refused, p50, p99, slowest = map(int, summary.groups()[:6])
    if failed or refused or requests != count:
        raise LoadFailed(
            f"of {count} requests wrk saw {requests} answered, {refused} with an error; {failed} connections failed"
        )
    return Load(count, began, ended, p50 / 1000, p99 / 1000, slowest / 1000, float(summary.group(7)))
