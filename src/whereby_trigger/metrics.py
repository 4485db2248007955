"""Metrics for Prometheus: plain counters that the stages add to, and what a scrape makes of them.

The client of Prometheus is imported by the first scrape: counting needs none of it, and costs well under 2 µs a
webhook.
"""

import asyncio
import sys
import time
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping
from contextlib import suppress
from enum import StrEnum
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

from whereby_trigger.errors import StoreError
from whereby_trigger.stderr import lines_dropped
from whereby_trigger.store import CLOSED, UNDECIDED, RefusalReason, RoomState, State, Store, StoreErrors, Workload
from whereby_trigger.store.states import OVER
from whereby_trigger.threads import in_thread

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import Metric

CLIENT: Final = "prometheus_client"

READ_WITHIN: Final = 2.0
"""Seconds that a scrape waits for the store; then it is answered without what only the store knows."""

ANSWER_BOUNDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 4.5)
"""Upper bounds of the buckets, in seconds: a delivery waits for the store for at most 4.5."""

DECISION_BOUNDS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0)


class Outcome(StrEnum):
    """Name what became of a delivery that was answered 200."""

    STORED = "stored"
    DUPLICATE = "duplicate"
    SPILLED = "spilled"
    QUARANTINED = "quarantined"


RUN_RESULTS: Final = ("returned", "raised", "refused", "cut off", "exhausted")
"""How a run of an assistant can end, by the names that `RunEnd` gives."""

AFTER_RUN: Final = (RoomState.ENDED, RoomState.WAITING, RoomState.FAILED)
"""The states of a room after a run."""


class Histogram:
    """Count durations in buckets: `counts` has one number for each bound, not added up, and one for what is longer."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(self.bounds, seconds)] += 1
        # A clock that was set back makes a duration negative, and a sum must never shrink.
        if seconds > 0.0:
            self.sum += seconds


class Counts:
    """Count what happens to deliveries and runs, each count in one thread only, or under one lock."""

    def __init__(self) -> None:
        self.outcomes: dict[Outcome, int] = dict.fromkeys(Outcome, 0)
        self.refusals: dict[RefusalReason, int] = dict.fromkeys(RefusalReason, 0)
        self.decisions: dict[State, int] = {state: 0 for state in State if state not in UNDECIDED}
        self.holds = 0
        self.runs = {(result, str(state)): 0 for result in RUN_RESULTS for state in AFTER_RUN}
        self.answer = Histogram(ANSWER_BOUNDS)
        self.decision = Histogram(DECISION_BOUNDS)

    def let_in(self, outcome: Outcome, seconds: float) -> None:
        """Count a delivery that was answered 200, `seconds` after its first byte."""
        self.outcomes[outcome] += 1
        self.answer.observe(seconds)

    def refused(self, reason: RefusalReason, seconds: float | None = None, count: int = 1) -> None:
        """Count deliveries that were not let in; `seconds` is how long an answer took."""
        self.refusals[reason] += count
        if seconds is not None and reason.status == 503:
            self.answer.observe(seconds)

    def decided(self, state: State, seconds: float | None) -> None:
        """Count a decision or the beginning of a hold, committed `seconds` after its webhook was received or replayed.

        A decision at the end of a hold has no `seconds`: how long that lasted says nothing about how fast we are.
        """
        if state is State.HELD:
            self.holds += 1
        else:
            self.decisions[state] += 1
        if seconds is not None:
            self.decision.observe(seconds)

    def run_ended(self, result: str, state: RoomState) -> None:
        """Count a run of an assistant by its result, a `RunEnd`, and the state that it left its room in."""
        key = result, str(state)
        self.runs[key] = self.runs.get(key, 0) + 1


class Readings(Struct, frozen=True):
    """Hold what is read of a running replica at a scrape."""

    slots_used: int = 0
    slots_free: int = 0
    lease_seconds: float = 0.0
    spilled: int = 0
    draining: bool = False


NOT_RUNNING: Final = Readings()


class MetricDescription(Struct, frozen=True):
    """Describe a metric: its name as it is exposed, its type, its labels, and what it says."""

    name: str
    type: str
    help: str
    labels: tuple[str, ...] = ()


PREFIX: Final = "whereby_trigger_"

METRICS: Final = (
    MetricDescription(
        "deliveries_total",
        "counter",
        "Deliveries by answer; status is closed if the connection was closed without one.",
        ("status", "reason"),
    ),
    MetricDescription(
        "answer_seconds",
        "histogram",
        "Seconds from a delivery's first byte to its answer of 200 or 503.",
    ),
    MetricDescription(
        "decision_seconds",
        "histogram",
        "Seconds from the receipt of a webhook, or its last replay, to its committed decision, or to its hold.",
    ),
    MetricDescription("decisions_total", "counter", "Decisions of this process by state.", ("state",)),
    MetricDescription("holds_total", "counter", "Webhooks that this process put on hold; each is decided later."),
    MetricDescription(
        "runs_total",
        "counter",
        "Runs of assistants that ended in this process, by result and by the state of their room afterwards.",
        ("result", "state"),
    ),
    MetricDescription("slots", "gauge", "Assistants that this replica runs, and how many more it can start.", ("use",)),
    MetricDescription(
        "lease_seconds", "gauge", "Seconds for which this replica's lease is still surely its own; 0 without one."
    ),
    MetricDescription("spilled", "gauge", "Deliveries that wait in this replica's spill; 0 without a spill."),
    MetricDescription(
        "store_errors_total",
        "counter",
        "Failed attempts of this replica at its store, also those that are repeated.",
        ("kind",),
    ),
    MetricDescription(
        "log_lines_dropped_total", "counter", "Log lines of this process dropped because nobody read them."
    ),
    MetricDescription("up", "gauge", "1 while the trigger runs and does not drain, else 0."),
    MetricDescription(
        "store_up", "gauge", "1 if the store answered this scrape; if 0, the metrics below it are missing."
    ),
    MetricDescription("pending", "gauge", "Webhooks in the store that are to be decided now, of all replicas."),
    MetricDescription("held", "gauge", "Webhooks on hold in the store, of all replicas; they are not pending."),
    MetricDescription(
        "oldest_pending_seconds", "gauge", "Age of the oldest pending webhook, of all replicas; 0 if none."
    ),
    MetricDescription("rooms", "gauge", "Rooms in the store that are not over, of all replicas.", ("state",)),
)
"""Every metric. Each name begins with PREFIX."""

OPEN_ROOMS: Final = tuple(state for state in RoomState if state not in OVER)


class ReplicaReadings(Struct, frozen=True):
    """Name where a running replica is read: its store, in its event loop, and a function for the rest."""

    store: Store
    loop: asyncio.AbstractEventLoop
    read: Callable[[], Readings]


Sample = tuple[tuple[str, ...], float]
"""The values of a metric's labels, and its own."""


def samples(
    counts: Counts, readings: Readings, errors: StoreErrors, workload: Workload | None, running: bool
) -> dict[str, list[Sample]]:
    """Return the samples of every metric that is no histogram, by name without the prefix.

    `workload` is None if the store did not answer.
    """
    decisions = dict(counts.decisions)
    # Decided by their arrival: counted there, not on every delivery's way.
    decisions[State.QUARANTINED] += counts.outcomes[Outcome.QUARANTINED]
    found: dict[str, list[Sample]] = {
        "deliveries_total": [
            *((("200", str(outcome)), count) for outcome, count in counts.outcomes.items()),
            *(((_status(reason), str(reason)), count) for reason, count in counts.refusals.items()),
        ],
        "decisions_total": [((str(state),), count) for state, count in decisions.items()],
        "holds_total": [((), counts.holds)],
        "runs_total": list(counts.runs.items()),
        "slots": [(("used",), readings.slots_used), (("free",), readings.slots_free)],
        "lease_seconds": [((), readings.lease_seconds)],
        "spilled": [((), readings.spilled)],
        "store_errors_total": [((kind,), count) for kind, count in errors.counts.items()],
        "log_lines_dropped_total": [((), lines_dropped())],
        "up": [((), float(running and not readings.draining))],
        "store_up": [((), float(workload is not None))],
    }
    if workload is not None:
        age = 0.0 if workload.oldest is None else max(0.0, time.time() - workload.oldest)
        found["pending"] = [((), workload.pending)]
        found["held"] = [((), workload.held)]
        found["oldest_pending_seconds"] = [((), age)]
        found["rooms"] = [((str(state),), workload.rooms.get(state, 0)) for state in OPEN_ROOMS]
    return found


def _status(reason: RefusalReason) -> str:
    return "closed" if reason.status == CLOSED else str(reason.status)


class _Collector:
    """Hand one scrape's values to the client of Prometheus."""

    def __init__(self, counts: Counts, found: Mapping[str, list[Sample]]) -> None:
        self._histograms = {"answer_seconds": counts.answer, "decision_seconds": counts.decision}
        self._found = found

    def collect(self) -> "Iterator[Metric]":
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        for metric in METRICS:
            name = PREFIX + metric.name
            if metric.type == "histogram":
                yield HistogramMetricFamily(name, metric.help, **_buckets(self._histograms[metric.name]))
            elif metric.name in self._found:
                kind = CounterMetricFamily if metric.type == "counter" else GaugeMetricFamily
                family = kind(name, metric.help, labels=metric.labels)
                for values, value in self._found[metric.name]:
                    family.add_metric(values, value)
                yield family


def _buckets(histogram: Histogram) -> dict[str, Any]:
    buckets: list[tuple[str, float]] = []
    total = 0
    for bound, count in zip((*map(repr, histogram.bounds), "+Inf"), histogram.counts, strict=True):
        total += count
        buckets.append((bound, total))
    return {"buckets": buckets, "sum_value": histogram.sum}


Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class MetricsApp:
    """Serve a trigger's metrics over ASGI, at any path that it is mounted at, as text or in the OpenMetrics format.

    `replica` returns what to read of the running replica, or None while there is none. The counts go on from one run of
    the trigger to the next. Anybody who can reach it can read it: it shows counts, and no room, id or name.
    """

    def __init__(self, counts: Counts, replica: Callable[[], ReplicaReadings | None]) -> None:
        self._counts = counts
        self._replica = replica
        self._errors = StoreErrors()
        self._reading: asyncio.Future[Workload | None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})
            return
        if scope["type"] != "http":
            # A server then goes on without. Source: ASGI, Lifespan Protocol.
            raise ValueError(f"metrics have no {scope['type']}")
        if scope["method"] not in ("GET", "HEAD"):
            await _send(send, 405, [(b"allow", b"GET, HEAD")], b"")
            return
        accept = b", ".join(value for name, value in scope["headers"] if name == b"accept").decode("latin-1")
        content_type, body = await self.exposed(accept)
        bodiless = scope["method"] == "HEAD"
        await _send(send, 200, [(b"content-type", content_type.encode())], b"" if bodiless else body)

    async def exposed(self, accept: str = "") -> tuple[str, bytes]:
        """Return the content type and the text for a scraper that accepts the given types."""
        await _import_client()
        from prometheus_client import CollectorRegistry

        replica = self._replica()
        if replica is None:
            found = samples(self._counts, NOT_RUNNING, self._errors, None, running=False)
        else:
            workload = await self._workload(replica)
            self._errors = replica.store.errors
            found = samples(self._counts, replica.read(), self._errors, workload, running=True)
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Collector(self._counts, found))
        encode, content_type = _encoder_for(accept)
        return content_type, encode(registry)

    async def _workload(self, replica: ReplicaReadings) -> Workload | None:
        """Return what the store holds, or None if it does not say in time: then the next scrape waits for that too."""
        here = asyncio.get_running_loop()
        if self._reading is None or self._reading.get_loop() is not here or self._reading.done():
            counting = _workload_of(replica.store)
            if replica.loop is here:
                self._reading = asyncio.ensure_future(counting)
            else:
                self._reading = asyncio.wrap_future(asyncio.run_coroutine_threadsafe(counting, replica.loop))
        await asyncio.wait({self._reading}, timeout=READ_WITHIN)
        done = self._reading.done() and not self._reading.cancelled()
        return self._reading.result() if done else None


def _encoder_for(accept: str) -> "tuple[Callable[[CollectorRegistry], bytes], str]":
    """Return what writes the format that a scraper accepts; the plain one if its header is malformed."""
    from prometheus_client.exposition import choose_encoder

    try:
        return choose_encoder(accept)
    except (TypeError, ValueError):
        return choose_encoder("")


async def _import_client() -> None:
    """Import the client of Prometheus in a thread, if there is one: it takes 50 ms, and deliveries would wait."""
    if CLIENT not in sys.modules:
        with suppress(RuntimeError, MemoryError):
            await in_thread(import_module, CLIENT)


async def _workload_of(store: Store) -> Workload | None:
    try:
        return await store.workload()
    except StoreError:
        return None


METRICS_PATH: Final = "/metrics"


def only_at(path: str, app: Callable[[Scope, Receive, Send], Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """Return an ASGI app that is another one at one path, and answers 404 elsewhere."""

    async def site(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] != path:
            await _send(send, 404, [], b"")
        else:
            await app(scope, receive, send)

    return site


async def _send(send: Send, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})
