"""Measure what counting a webhook for the metrics costs, from its answer to its decision.

    .venv/bin/python scripts/metrics_cost.py

It prints microseconds a webhook: the best of several rounds, since what else runs on the machine only adds to it.
"""

import time
import timeit
from time import monotonic

from whereby_trigger.metrics import Counts, Outcome
from whereby_trigger.store import State

WEBHOOKS, ROUNDS = 20_000, 25


def microseconds(rounds: int = ROUNDS) -> float:
    """Return the microseconds that counting one webhook takes, with the clocks that are read for it."""
    counts = Counts()
    started, received_at = monotonic(), time.time()

    def webhook() -> None:
        counts.let_in(Outcome.STORED, monotonic() - started)
        counts.decided(State.FIRED, time.time() - received_at)

    return min(timeit.repeat(webhook, number=WEBHOOKS, repeat=rounds)) / WEBHOOKS * 1e6


if __name__ == "__main__":
    print(f"{microseconds():.2f} µs a webhook")
