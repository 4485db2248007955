"""A load as fast as it is answered, from wrk or, for machines without it, from Python; and the result of either."""

import asyncio
import re
import signal
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from msgspec import Struct

from bench.bodies import Requests
from bench.cores import pinned
from reliability.measures import percentile
from reliability.tools import find
from whereby_trigger.testing.sender import Address, Response, Sender

SCRIPT = Path(__file__).with_name("load.lua")
WITHIN = 600
"""Seconds that wrk gets for a load."""

AGAIN = 0.05
"""Seconds after which wrk gets another signal to end: it ignores them until all its threads are set up."""

ANSWERED = re.compile(r"^answered ([0-9.]+) ([0-9.]+)$", re.MULTILINE)
SUMMARY = re.compile(r"^summary ([0-9]+) ([0-9]+) ([0-9]+) ([0-9]+) ([0-9]+) ([0-9]+) ([0-9.]+)$", re.MULTILINE)


class LoadFailed(Exception):
    """A load was not answered, or not processed, as it should have been, so its figures mean nothing."""


class Load(Struct, frozen=True):
    """Hold a load whose requests were all answered 200: its time by CLOCK_MONOTONIC in seconds, latencies in ms.

    `cpu` is the generator's CPU time in seconds.
    """

    requests: int
    began: float
    ended: float
    p50: float
    p99: float
    slowest: float
    cpu: float

    @property
    def seconds(self) -> float:
        return self.ended - self.began

    @property
    def generator_busy(self) -> float:
        """The generator's share of its core: near 1, the generator sets the pace, and not the server."""
        return self.cpu / self.seconds


def together(loads: Sequence[Load]) -> Load:
    """Merge loads made at the same time; each latency is the worst of theirs."""
    return Load(
        requests=sum(load.requests for load in loads),
        began=min(load.began for load in loads),
        ended=max(load.ended for load in loads),
        p50=max(load.p50 for load in loads),
        p99=max(load.p99 for load in loads),
        slowest=max(load.slowest for load in loads),
        cpu=sum(load.cpu for load in loads),
    )


Generator = Callable[[int, Requests, int, int], Awaitable[Load]]
"""Sends a file's requests to a port over a number of connections, from a core; raises LoadFailed."""


async def closed_loop(port: int, requests: Requests, connections: int, core: int) -> Load:
    """Send every request, each connection one after the other; raises LoadFailed if an answer is not 200.

    It runs in the caller's process, and so on its core.
    """
    waiting, answers = iter(requests.read()), list[Response]()
    sender = Sender(Address.local(port), secret=None)
    cpu, began = time.process_time(), time.monotonic()
    try:
        await asyncio.gather(*(_send_each(sender, waiting, answers) for _ in range(connections)))
    finally:
        sender.close()
    ended = time.monotonic()
    latencies = [answer.seconds for answer in answers]
    p50, p99 = percentile(latencies, 50) * 1000, percentile(latencies, 99) * 1000
    return Load(requests.count, began, ended, p50, p99, max(latencies) * 1000, time.process_time() - cpu)


async def _send_each(sender: Sender, waiting: Iterator[bytes], answers: list[Response]) -> None:
    for request in waiting:
        answer = await sender.send(request)
        answers.append(answer)
        if answer.status != 200:
            raise LoadFailed(f"a delivery was not answered 200, but {answer.status} {answer.reason}")


async def wrk(port: int, requests: Requests, connections: int, core: int) -> Load:
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
    return read_wrk(output.decode(errors="replace") + rest.result().decode(errors="replace"), requests.count)


def read_wrk(output: str, count: int) -> Load:
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
