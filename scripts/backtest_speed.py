"""Measure how long a backtest takes: `.venv/bin/python scripts/backtest_speed.py [--webhooks N] [--store URL]`.

It fills a store, an empty one or a new SQLite file, with a week of simulated meetings in 400 rooms, all decided, and
asks predicates of several forms about every webhook. Prints seconds by the wall clock and of CPU for each form.
"""

import argparse
import asyncio
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, Final

from whereby_trigger import Presence, Webhook
from whereby_trigger.decide import Predicates, UserCode
from whereby_trigger.decide.backtest import Backtest, Scope
from whereby_trigger.receive import Accepted, Rules, intake
from whereby_trigger.store import Arrival, Decision, State, Store
from whereby_trigger.store.factory import store_for
from whereby_trigger.testing.simulator import Faults, Load, plan
from whereby_trigger.webhook import ROOM_TYPES

DAYS: Final = 7
A_MEETING: Final = 8.0
"""Webhooks of a simulated meeting, on average: the result is cut off at the requested number."""

AT_ONCE: Final = 1000
RULES: Final = Rules(allow_unsigned=True)


def one_argument(webhook: Webhook) -> bool:
    return webhook.id < "8"


def two_arguments(webhook: Webhook, presence: Presence) -> bool:
    return presence.humans is not None and presence.humans >= 2


async def coroutine(webhook: Webhook, presence: Presence) -> bool:
    return two_arguments(webhook, presence)


FORMS: Final[dict[str, tuple[Callable[..., Any], float | None]]] = {
    "one argument": (one_argument, None),
    "two arguments": (two_arguments, None),
    "async, two arguments": (coroutine, None),
    "two arguments, hold=30": (two_arguments, 30),
}


def arrivals(number: int) -> Iterator[Arrival]:
    """Yield what arrived in the week before now, in order."""
    minutes = DAYS * 24 * 60 - 60
    load = Load(number / minutes / A_MEETING * 2, minutes, 400, 3, "acme")
    begin = datetime.now(UTC) - timedelta(days=DAYS)
    for planned in islice(plan(load, Faults(), begin=begin, seed=1), number):
        verdict = intake((), planned.webhook.raw, begin.timestamp() + planned.at, RULES)
        if isinstance(verdict, Accepted):
            yield verdict.arrival


async def fill(url: str, number: int) -> int:
    """Store webhooks and decide each; return how many there are."""
    store = store_for(url)
    await store.open(lambda: None)
    coming, total = arrivals(number), 0
    while batch := list(islice(coming, AT_ONCE)):
        added = await asyncio.gather(*(store.add(arrival) for arrival in batch))
        await asyncio.gather(
            *(
                store.decide(Decision(one.seq, arrival.id, State.SKIPPED, "as it was", 1, arrival.received_at + 0.01))
                for one, arrival in zip(added, batch, strict=True)
            )
        )
        total += len(batch)
    await store.close()
    return total


async def ask(store: Store, function: Callable[..., Any], hold: float | None) -> tuple[int, int]:
    """Ask a predicate about all that is stored; return how many webhooks were asked, and how many decisions differ."""
    predicates = Predicates()
    for type in ROOM_TYPES:
        predicates.register(type, function, hold)
    user_code = UserCode(10)
    try:
        backtest = Backtest(
            *(store, predicates, lambda type: False, user_code, Scope(), lambda past, judged: None), max_age=7200
        )
        summary = await backtest.run(lambda seq: None)
    finally:
        user_code.close()
    return summary.asked, summary.different


async def main(url: str, number: int) -> None:
    begun = time.monotonic()
    total = await fill(url, number)
    print(f"{total:,} webhooks stored and decided in {time.monotonic() - begun:.0f} s")
    store = store_for(url)
    await store.open_readonly()
    for form, (function, hold) in FORMS.items():
        begun, cpu = time.monotonic(), time.process_time()
        asked, different = await ask(store, function, hold)
        wall, cpu = time.monotonic() - begun, time.process_time() - cpu
        print(f"{form:24} {asked:8,} asked {different:8,} different {wall:6.1f} s {cpu:6.1f} s of CPU", flush=True)
    await store.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--webhooks", type=int, default=100_000)
    parser.add_argument("--store", help="an empty store [default: a new SQLite file]")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(main(given.store or f"sqlite:///{folder}/past.db", given.webhooks))
