"""A load generator in Python, which does what wrk does, slower: it checks the harness where wrk is not installed."""

import asyncio
import time
from collections.abc import Iterator

from bench.bodies import Requests
from bench.load import Load, LoadFailed
from reliability.measures import percentile
from whereby_trigger.testing.sender import Address, Response, Sender


async def send(port: int, requests: Requests, connections: int, core: int) -> Load:
    """Send every request, each connection one after the other; raises LoadFailed where an answer is not 200.

    Stays on the core that it is on: it runs in the process of whoever calls it.
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
