"""The result of a load, from either generator; and a generator in Python, for machines without wrk."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence

from msgspec import Struct

from bench.bodies import Requests
from reliability.measures import percentile
from whereby_trigger.testing.sender import Address, Response, Sender


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
