"""A user's program in a separate process, and Whereby's side of it: deliveries over many connections."""

import asyncio
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.http import SECRET, connected, delivery
from tests.support.process import Process
from tests.support.stored import stored
from tests.support.until import until
from whereby_trigger.store import Record, State

ROOT = Path(__file__).parents[2]
WITHIN = 60.0


@dataclass(frozen=True)
class Sent:
    """Hold a delivery's answer, and the seconds until it came."""

    status: int
    seconds: float


class Served(Process):
    """Run a program of this folder on a store, for a `with` block."""

    def __init__(self, program: str, store: str, arguments: Sequence[str] = (), **settings: str) -> None:
        self.store = store
        env = {
            "WHEREBY_TRIGGER_STORE": store,
            "WHEREBY_TRIGGER_HOST": "127.0.0.1",
            "WHEREBY_TRIGGER_PORT": "0",
            "WHEREBY_WEBHOOK_SECRET": SECRET,
        }
        super().__init__([sys.executable, "-m", f"tests.promise.{program}", *arguments], cwd=ROOT, env=env | settings)

    def __enter__(self) -> "Served":
        super().__enter__()
        self.answers_on = self.port()
        return self

    def send(self, bodies: Iterable[bytes], connections: int = 1, secret: str = SECRET) -> list[Sent]:
        """Deliver each body: over one connection in order, over several in any order."""
        return asyncio.run(_send(self.answers_on, list(bodies), connections, secret))

    def records(self) -> list[Record]:
        """Read the stored webhooks, oldest first."""
        return stored(self.store)

    def decided(self, total: int) -> list[Record]:
        """Wait until `total` webhooks are stored and none of them is pending, and return them, oldest first."""

        def look() -> list[Record]:
            records = self.records()
            done = len(records) == total and all(record.state is not State.PENDING for record in records)
            return records if done else []

        return until(look, WITHIN)


async def _send(port: int, bodies: list[bytes], connections: int, secret: str) -> list[Sent]:
    answers: dict[int, Sent] = {}
    waiting = iter(enumerate(bodies))

    async def work() -> None:
        async with connected(port) as connection:
            for number, body in waiting:
                begin = time.monotonic()
                answer = await connection.ask(delivery(body, secret=secret, headers=EMPTY if not body else ()))
                assert answer is not None
                answers[number] = Sent(answer.status, time.monotonic() - begin)

    await asyncio.gather(*(work() for _ in range(connections)))
    return [answers[number] for number in range(len(bodies))]


EMPTY = [("Content-Length", "0")]
