"""A load generator in Python, which does what wrk does, slower: it checks the harness where wrk is not installed."""

import asyncio
import time
from collections.abc import Iterator

from bench.bodies import Requests
from bench.connection import NotAnswered, connect
from bench.load import Load, LoadFailed
from reliability.measures import percentile


async def send(port: int, requests: Requests, connections: int, core: int) -> Load:
    """Send every request, each connection one after the other; raises LoadFailed where an answer is not 200.

    Stays on the core that it is on: it runs in the process of whoever calls it.
    """
    waiting, latencies = iter(requests.read()), list[float]()
    cpu, began = time.process_time(), time.monotonic()
    try:
        await asyncio.gather(*(_send_each(port, waiting, latencies) for _ in range(connections)))
    except NotAnswered as error:
        raise LoadFailed(f"a delivery was not answered 200: {error}") from error
    ended = time.monotonic()
    p50, p99 = percentile(latencies, 50) * 1000, percentile(latencies, 99) * 1000
    return Load(requests.count, began, ended, p50, p99, max(latencies) * 1000, time.process_time() - cpu)


async def _send_each(port: int, waiting: Iterator[bytes], latencies: list[float]) -> None:
    connection = await connect(port)
    try:
        for request in waiting:
            began = time.monotonic()
            latencies.append(await connection.send(request) - began)
    finally:
        connection.close()
